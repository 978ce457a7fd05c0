#!/usr/bin/env bash
# fuzz.sh [OPTIONS…]: mutated bytes on the wire, messages in any order, damaged checkpoints; nothing may come of them.
#   --inputs 1000000 --seed 0 --json FILE; a million take a few minutes. --help says more.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" ""
PYTHONPATH=$root/scripts${PYTHONPATH:+:$PYTHONPATH} exec python -P -m fuzz "$@"
