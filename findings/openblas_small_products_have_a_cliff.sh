#!/usr/bin/env bash
# OpenBLAS multiplies small float32 matrices with kernels of their own, if m * n * k is at most a million, and these are
# faster than those for large ones, which need large ones: with a weight of 340 x 256, 8 rows are as fast a row as 1,024,
# and 16 rows take 1.5 times as long a row. So a batch in pieces of 8 rows is faster than in pieces of 16, and than whole.
# Seen with NumPy 2.4.6 (scipy-openblas 0.3.31, SkylakeX kernels, one thread) on an EPYC of the fifth generation:
#   8 rows at a time: 1.54 us a row
#   16 rows at a time: 2.34 us a row
#   1,024 rows at a time: 1.68 us a row
# Ends with 0 while this is so (kernels for processors without AVX-512 have no such cliff).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet numpy==2.4.6
OPENBLAS_NUM_THREADS=1 "$folder/env/bin/python" - <<'PY'
import sys
import time

import numpy as np

rng = np.random.default_rng(0)
weight = rng.standard_normal((340, 256), np.float32)
seconds = {}
for rows in (8, 16, 1024):
    x, out = rng.standard_normal((rows, 340), np.float32), np.empty((rows, 256), np.float32)
    times = []
    for _ in range(40):
        began = time.thread_time()
        for _ in range(2048 // rows):
            x.dot(weight, out)
        times.append(time.thread_time() - began)
    seconds[rows] = min(times) / 2048
    print(f"{rows:,} rows at a time: {seconds[rows] * 1e6:.2f} us a row")
sys.exit(0 if seconds[16] > 1.2 * seconds[8] and seconds[8] < 1.1 * seconds[1024] else 1)
PY
