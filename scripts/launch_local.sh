#!/usr/bin/env bash
# launch_local.sh N [PROGRAM [ARGS…]]: train PROGRAM (workers/digits.py) with N workers on this machine.
case ${1:-} in
'' | -h | --help | *[!0-9]*)
    echo "usage: scripts/launch_local.sh N [PROGRAM [ARGS…]]    N workers run PROGRAM (default: workers/digits.py)" >&2
    [[ ${1:-} != -* ]] || exit 0
    exit 2
    ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" table
workers=$1
shift
[ $# -gt 0 ] || set -- "$root/workers/digits.py"
exec karp launch -n "$workers" "$@"
