# Sourced by the other scripts: makes .venv in the checkout, with karp and the extras named in $1, and puts it on PATH.
# A second call starts at once: the environment is made again only when pyproject.toml or the extras have changed.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
extras=${1:-}

fail() {
    echo "karp: $*" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "there is no $python: install Python 3.11 or newer (Debian: apt-get install python3 python3-venv)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old: karp needs Python 3.11 or newer (set PYTHON to the path of one)"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no venv module: install it (Debian: apt-get install python3-venv)"

stamp=$root/.venv/.karp${extras:+-$extras}
if ! cmp -s "$stamp" "$root/pyproject.toml"; then
    echo "karp: setting up $root/.venv" >&2
    [ -x "$root/.venv/bin/python" ] || "$python" -m venv "$root/.venv" || fail "$root/.venv could not be made"
    "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root${extras:+[$extras]}" ||
        fail "the packages could not be installed (see above): check the network and try again"
    cp "$root/pyproject.toml" "$stamp"
fi
PATH=$root/.venv/bin:$PATH
