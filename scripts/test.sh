#!/usr/bin/env bash
# test.sh [ARGS…]: run the test suite, two tests at a time; the arguments go to pytest (-n 0: one at a time). With
# --no-skips none may be passed over.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" test
cd "$root"
exec python -m pytest -n 2 --dist worksteal "$@"
