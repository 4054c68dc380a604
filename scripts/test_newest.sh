#!/usr/bin/env bash
# Run the test suite with the newest release of everything, whatever the upper bounds in setup.cfg, in
# a fresh virtual environment. Prints which packages differ from constraints.txt and the suite's last
# line; exits non-zero if it failed.
#
#     scripts/test_newest.sh [--write] [PYTEST OPTION ...]
#
# With --write, constraints.txt is written again if the suite passed. PYTHON picks the interpreter
# (default: python3).
set -euo pipefail

write=0
if [ "${1:-}" = --write ]; then
    write=1
    shift
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
repo=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

export TF_CPP_MIN_LOG_LEVEL=2
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=2

# A copy of what git knows, without upper bounds: only requirements are indented and end in one.
mkdir "$work/checkout"
git ls-files -z | xargs -0 cp --parents -t "$work/checkout"
sed -Ei 's/^(    [a-z][^<]*),<[0-9.]+$/\1/' "$work/checkout/setup.cfg"

"${PYTHON:-python3}" -m venv "$work/venv"
python=$work/venv/bin/python
cd "$work/checkout"
"$python" -m pip install ".[all,dev]"
"$python" -m pip freeze --exclude keras_edgeq >"$work/freeze"

if "$python" -m pytest "$@" 2>&1 | tee "$work/log"; then
    outcome=passed
else
    outcome=FAILED
fi

printf '\n== Moved against constraints.txt\n'
"$python" - "$repo/constraints.txt" "$work/freeze" <<'PYTHON'
import sys
from pathlib import Path


def pins(path):
    lines = (line.strip() for line in Path(path).read_text().splitlines())
    return dict(line.split("==", 1) for line in lines if "==" in line and line[0] != "#")


old, new = map(pins, sys.argv[1:])
for name in sorted(old.keys() | new.keys(), key=str.lower):
    if old.get(name) != new.get(name):
        print(f"{name:28} {old.get(name, '-'):16} {new.get(name, '-')}")
PYTHON

if [ "$write" = 1 ] && [ "$outcome" = passed ]; then
    { grep '^#' "$repo/constraints.txt"; cat "$work/freeze"; } >"$work/constraints.txt"
    cp "$work/constraints.txt" "$repo/constraints.txt"
    printf '\n== constraints.txt written\n'
fi

printf '\n== %s: %s\n' "$outcome" "$(tail -n 1 "$work/log" | sed 's/^[= ]*//; s/[= ]*$//')"
[ "$outcome" = passed ]
