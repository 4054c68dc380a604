"""What becomes of random models: quantized, exported and run, each failure as small as it gets.

    python benchmarks/random_graphs.py --graphs 500 --export 100 --seed 0 [--keras3] [--out FILE]

Graph number i is drawn from seed + i. Each is quantized on 8 bits and on 16 (`check_graph`); the
first `--export` of them that could be are also written as TFLite and ONNX and run by the real
runtimes. A child process does the work: one that dies or hangs is counted, and a new one goes on.

Result: a table of outcomes, the share of layers in integers, seconds per graph, and each failure,
        shrunk, as the text that builds it again.
Time:   about 25 minutes for 500 and 100 on two cores, and half a minute per failure.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.random_graphs.check import Outcome
from tests.random_graphs.child import Child
from tests.random_graphs.generate import generate
from tests.random_graphs.graph import Graph
from tests.random_graphs.shrink import shrink

FAILURES = ("raw", "wrong", "disagrees", "failed", "abort", "hangs")
# Less than that on 8 bits is suspicious, and no proof of a fault.
COARSE_DB = 10.0
# How many failures with one cause are shrunk.
SHRUNK = 3


def main() -> None:
    """Draw, check, export, shrink and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=500)
    parser.add_argument("--export", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keras3", action="store_true", help="models of Keras 3 and keras.ops")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    out = asked.out.open("w") if asked.out else None

    def say(line: str) -> None:
        print(line, flush=True)
        if out is not None:
            print(line, file=out, flush=True)

    child, start = Child(), time.perf_counter()
    checked, failures, exports = [], [], []

    def keep(how: str, seed: int, graph: Graph, outcome: Outcome) -> None:
        (checked if how == "check" else exports).append((seed, outcome))
        if outcome.kind in FAILURES:
            failures.append((seed, how, graph, outcome))
            print(f"seed {seed}, {how}: {outcome.kind} {outcome.text[:100]}", file=sys.stderr)

    for done in range(asked.graphs):
        seed = asked.seed + done
        graph = generate(seed, "keras" if asked.keras3 else "tf_keras")
        outcome = child.check("check", graph)
        keep("check", seed, graph, outcome)
        if outcome.kind == "ok" and len(exports) < asked.export:
            keep("export", seed, graph, child.check("export", graph))
        if done % 10 == 9:
            spent = time.perf_counter() - start
            left = spent / (done + 1) * (asked.graphs - done - 1)
            kinds = dict(Counter(o.kind for _, o in checked))
            print(f"{done + 1} graphs, {kinds}, about {left / 60:.0f} min left", file=sys.stderr)
    _report(say, checked, exports)
    _shrunk(say, child, failures)
    child.stop()


def _report(say, checked, exports) -> None:
    """Print the tables."""
    for title, group in (("quantized", checked), ("exported", exports)):
        if not group:
            continue
        kinds = Counter(outcome.kind for _, outcome in group)
        seconds = sum(outcome.seconds for _, outcome in group) / len(group)
        say(f"\n{title}: {len(group)} graphs, {seconds:.2f} s per graph\n")
        say("| outcome | graphs |\n|---|---|")
        for kind, count in kinds.most_common():
            say(f"| {kind} | {count} |")
    integers = sum(outcome.integers for _, outcome in checked)
    layers = sum(outcome.layers for _, outcome in checked)
    say(f"\nlayers in integers: {integers} of {layers}, {100 * integers / max(layers, 1):.1f} %")
    refused = Counter(o.text[:200] for _, o in (*checked, *exports) if o.kind == "refused")
    for text, count in refused.most_common():
        say(f"refused {count} times: {text}")
    coarse = [(s, o.coarse_db) for s, o in checked if o.kind == "ok" and o.coarse_db < COARSE_DB]
    for seed, decibels in coarse:
        say(f"suspicious: seed {seed}, {decibels:.1f} dB on 8 bits")


def _shrunk(say, child: Child, failures) -> None:
    """Print each failure as small as it gets; a few of each cause."""
    groups = defaultdict(list)
    for failure in failures:
        groups[failure[1], failure[3].cause].append(failure)
    seen = set()
    for (how, cause), group in groups.items():
        seeds = ", ".join(str(seed) for seed, *_ in group)
        say(f"\n{how}: {' '.join(cause)}: {len(group)} graphs, seeds {seeds}")
        for seed, _, graph, _ in group[: None if cause[0] == "wrong" else SHRUNK]:

            def fails(smaller: Graph, how=how, cause=cause) -> bool:
                return child.check(how, smaller).cause == cause

            small = shrink(graph, fails)
            if repr(small) not in seen:
                seen.add(repr(small))
                say(f"seed {seed}: {child.check(how, small).text}\n  {small!r}")


if __name__ == "__main__":
    main()
