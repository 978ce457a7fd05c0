#!/usr/bin/env bash
# bench.sh COMMAND [OPTIONS…]: karp's benchmarks. COMMAND --help lists the options.
#   engine   training steps per second of karp, hand-written NumPy and whichever other engines are installed
#   exchange samples per second of several workers that train together, karp's and others'
#   modes    samples and seconds to a target score, for each mode of training
#   tables   scores of models of tables, and seconds from file to model, karp.fit's and others'
#   estimators  training steps per second of karp's MLPClassifier and of scikit-learn's, with the same settings
#   import   the time of `import karp` beside that of `import numpy`
# With --install the other engines and matplotlib are installed into .venv first (pip's own settings choose from where;
# the usual build of torch for Linux brings gigabytes for GPUs that are not used here, one for the CPU does as well).
case ${1:-} in
'' | -h | --help)
    sed -n '2,10s/^# //p' "${BASH_SOURCE[0]}"
    [ $# -gt 0 ] && exit 0
    exit 2
    ;;
esac
extras=""
for argument; do
    [ "$argument" != --install ] || extras=bench
done
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" "$extras"
PYTHONPATH=$root/scripts${PYTHONPATH:+:$PYTHONPATH} exec python -P -m bench "$@"
