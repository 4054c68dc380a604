#!/usr/bin/env bash
# What is too long for .ci/run, in the present environment. Without names, all of it, about three hours
# on two cores.
#
#     scripts/long_checks.sh [slow] [mutations] [graphs] [identity] [layers] [applications]
#
# slow         the long tests: training, exports, processes of their own       25 minutes
# mutations    the package broken in one place at a time; something notices     5 minutes
# graphs       500 random models quantized, 100 of them exported and run        60 minutes
# identity     the identity check on the families of tf_keras.applications      15 minutes
# layers       docs/layers.md written anew: every layer quantized, exported      20 minutes
# applications every family of both libraries quantized, exported, verified      60 minutes
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export TF_CPP_MIN_LOG_LEVEL=2
[ $# -gt 0 ] || set -- slow mutations graphs identity layers applications
for name in "$@"; do
    printf '\n== %s\n' "$name"
    case $name in
        slow) python -m pytest -m slow ;;
        mutations) python scripts/mutations.py ;;
        graphs)
            python benchmarks/random_graphs.py --graphs 500 --export 100
            python benchmarks/random_graphs.py --graphs 100 --keras3
            ;;
        identity) python benchmarks/identity.py ;;
        layers) python scripts/layer_matrix.py ;;
        applications) python benchmarks/applications.py ;;
        *) echo "no such check: $name" >&2; exit 2 ;;
    esac
done
