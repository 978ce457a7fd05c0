# Sourced by the other scripts: makes .venv in the checkout, with karp and the extras named in $1 (commas between them),
# and puts it on PATH. A second call starts at once. What is there is kept, and what is missing added, when an extra is
# asked for that it lacks or pyproject.toml has changed; what does not work any more (Python has been replaced, the
# checkout has been moved, a set-up was killed) is made again. PYTHON names the Python to make it with.

set -euo pipefail
root=$(unset CDPATH && cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
extras=${1:-}
venv=$root/.venv
stamp=$venv/.karp # a line with the place, a line with the extras, and the pyproject.toml of the last set-up that was whole

fail() {
    echo "karp: $*" >&2
    exit 1
}

# The extras of the environment that is there.
extras_there() { sed -n 2p "$stamp" 2>/dev/null || true; }

# The version of a Python in which pip can be used.
probe='import sys, importlib.util; assert importlib.util.find_spec("pip"); print("%d.%d.%d" % sys.version_info[:3])'
version_of() { "$1" -I -c "${2:-import sys; print('%d.%d.%d' % sys.version_info[:3])}" 2>/dev/null; }

# Why the environment that is there cannot be used; nothing if it can be, or if there is none.
trouble() {
    local has wants
    [ -e "$venv" ] || return 0
    has=$(version_of "$venv/bin/python") || { echo "its Python does not start"; return; }
    version_of "$venv/bin/python" "$probe" >/dev/null || { echo "it is not whole, or was made with another Python"; return; }
    case $has in 3.[0-9].* | 3.10.*) echo "it has Python $has"; return ;; esac
    if [ -n "${PYTHON:-}" ] && wants=$(version_of "$PYTHON" || true) && [ "$has" != "$wants" ]; then
        echo "it has Python $has, and PYTHON is ${wants:-none}"
    elif [ -s "$stamp" ] && [ "$(head -n 1 "$stamp")" != "$root" ]; then
        echo "it was made in another place"
    fi
}

# Whether there is nothing to do.
ready() {
    local extra there
    [ -f "$stamp" ] && [ -z "$(trouble)" ] && tail -n +3 "$stamp" | cmp -s - "$root/pyproject.toml" || return 1
    there=,$(extras_there),
    for extra in ${extras//,/ }; do
        [[ $there == *,$extra,* ]] || return 1
    done
}

set_up() {
    local before had python=${PYTHON:-python3} why
    why=$(trouble)
    had=$(extras_there)
    [ -w "$root" ] && { [ ! -d "$venv" ] || [ -w "$venv" ]; } || fail "$venv has to be set up, and $(id -un)" \
        "may not write there: do it once as the owner, or work in a copy of $root"
    if [ ! -e "$venv" ] || [ -n "$why" ]; then
        command -v "$python" >/dev/null ||
            fail "there is no $python: install Python 3.11 or newer (Debian: apt-get install python3 python3-venv)"
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
            fail "$("$python" --version 2>&1) is too old: karp needs Python 3.11 or newer (set PYTHON to the path of one)"
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            fail "$python has no venv module: install it (Debian: apt-get install python3-venv)"
        [ -z "$why" ] || echo "karp: $venv is made again: $why" >&2
    fi
    echo "karp: setting up $venv" >&2
    if [ ! -e "$venv" ] || [ -n "$why" ]; then
        "$python" -m venv --clear "$venv" || fail "$venv could not be made (see above)"
    fi
    before=$(cat "$stamp" 2>/dev/null || true)
    printf '%s\n%s\n' "$root" "$had" >"$stamp" # whoever kills this leaves a set-up that is not whole
    extras=$(echo "$had,$extras" | tr , '\n' | sort -u | sed '/^$/d' | paste -sd, -)
    if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root${extras:+[$extras]}"; then
        [ -z "$before" ] || printf '%s\n' "$before" >"$stamp" # pip changes nothing where it fails
        fail "the packages could not be installed (see above): check the network and try again"
    fi
    { printf '%s\n%s\n' "$root" "$extras" && cat "$root/pyproject.toml"; } >"$stamp"
}

if ! ready; then
    exec 9<"$root"
    flock 9 2>/dev/null || true # one at a time, where there is flock
    ready || set_up
    exec 9<&-
fi
PATH=$venv/bin:$PATH
