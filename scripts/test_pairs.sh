#!/usr/bin/env bash
# Run the test suite on several (Python, TensorFlow) pairs, each in a fresh virtual environment.
#
#     scripts/test_pairs.sh 3.11:2.18 3.12:2.21
#
# Needs python3.11, python3.12, ... on the PATH. Prints one line per pair at the end; exits non-zero
# if any pair failed. Each pair installs TensorFlow again: expect minutes and some gigabytes of
# temporary space.
set -euo pipefail

if [ $# -eq 0 ]; then
    echo "usage: $0 PYTHON:TENSORFLOW ...   for example: $0 3.11:2.18 3.12:2.21" >&2
    exit 2
fi
for pair in "$@"; do
    if ! [[ $pair =~ ^[0-9]+\.[0-9]+:[0-9]+\.[0-9]+$ ]]; then
        echo "not a PYTHON:TENSORFLOW pair: '$pair' (for example 3.11:2.18)" >&2
        exit 2
    fi
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
repo=$PWD
work=$(mktemp -d)
remove_build() { rm -rf "$repo/build" "$repo/keras_edgeq.egg-info"; }
trap 'rm -rf "$work"; remove_build' EXIT

export TF_CPP_MIN_LOG_LEVEL=2
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=2

# `a || return` at each step: errexit is off in a function whose status is tested.
test_pair() {
    local python=python$1 pins=("tensorflow==$2.*" "tf-keras==$2.*") venv=$work/venv
    rm -rf "$venv" && remove_build
    "$python" -m venv "$venv" || { echo "no usable $python"; return 1; }
    "$venv/bin/python" -m pip install ".[all,dev]" "${pins[@]}" || {
        echo "pip install failed"
        return 1
    }
    "$venv/bin/python" -m pytest
}

table=() failed=0
for pair in "$@"; do
    python=${pair%:*} tensorflow=${pair#*:}
    printf '\n== Python %s, TensorFlow %s\n' "$python" "$tensorflow"
    if test_pair "$python" "$tensorflow" 2>&1 | tee "$work/log"; then
        outcome=passed
    else
        outcome=FAILED failed=1
    fi
    closing=$(tail -n 1 "$work/log" | sed 's/^[= ]*//; s/[= ]*$//')
    table+=("$(printf '%-8s %-10s %-8s %s' "$python" "$tensorflow" "$outcome" "$closing")")
done

printf '\n%-8s %-10s %-8s %s\n' Python TensorFlow Outcome "Last line"
printf '%s\n' "${table[@]}"
exit "$failed"
