#!/usr/bin/env bash
# A BLAS limit that one thread has set by threadpoolctl is not changed by another, and nothing says so: as long as the
# first thread lives, threadpool_limits and restore_original_limits are obeyed there alone, with an OpenBLAS that has
# threads of its own. In the other thread both return as if they had done it.
# Seen with threadpoolctl 3.8.0 and NumPy 2.4.6 (OpenBLAS, pthreads) on a machine of 2 cores, CPython 3.11:
#   threads at first: 2
#   after a limit of 1 in the main thread: 1
#   after its restore_original_limits in another thread: 1
#   after a limit of 2 in another thread: 1
#   after restore_original_limits in the main thread: 2
# Ends with 0 while this is so (a machine of one core cannot show it, and ends with 2).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet threadpoolctl==3.8.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import sys
from threading import Thread

import numpy as np  # noqa: F401  (loads OpenBLAS)
from threadpoolctl import threadpool_info, threadpool_limits


def threads() -> int:
    return next(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


def elsewhere(function) -> None:
    thread = Thread(target=function)
    thread.start()
    thread.join()


first = threads()
print("threads at first:", first)
if first < 2:
    sys.exit(2)
limits = threadpool_limits(1, user_api="blas")
print("after a limit of 1 in the main thread:", threads())
seen = []
elsewhere(limits.restore_original_limits)
seen.append(threads())
print("after its restore_original_limits in another thread:", threads())
elsewhere(lambda: threadpool_limits(2, user_api="blas"))
seen.append(threads())
print("after a limit of 2 in another thread:", threads())
limits.restore_original_limits()
print("after restore_original_limits in the main thread:", threads())
sys.exit(0 if seen == [1, 1] and threads() == first else 1)
PY
