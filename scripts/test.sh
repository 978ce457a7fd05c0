#!/usr/bin/env bash
# test.sh [ARGS…]: run the test suite; the arguments go to pytest. With --no-skips none may be passed over.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" test
cd "$root"
exec python -m pytest "$@"
