#!/usr/bin/env bash
# chaos.sh [OPTIONS…]: break real runs in every way there is, at random, and see that they end with the same bits.
#   --schedules 200 --seed 0 --json FILE --epochs 10 --jobs 2; --strangers: what strangers cost a run. --help says more.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" ""
PYTHONPATH=$root/scripts${PYTHONPATH:+:$PYTHONPATH} exec python -P -m chaos "$@"
