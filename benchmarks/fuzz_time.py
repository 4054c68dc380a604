"""How long each reader takes over damaged and hostile files, next to one valid read.

Run:    python -m benchmarks.fuzz_time [cases per reader, 100]
Result: one line per reader: seconds of a valid read, of the slowest case, and which case that was.
Time:   about three minutes on two cores.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
import warnings
from pathlib import Path

from keras_edgeq.errors import EdgeqError
from tests import fuzz


def seconds(reader: fuzz.Reader, path: Path) -> float:
    """Return how long one read takes, refused or not."""
    start = time.perf_counter()
    with contextlib.suppress(EdgeqError):
        reader.read(path)
    return time.perf_counter() - start


def cases(reader: fuzz.Reader, count: int, bombs: dict[str, tuple[str, bytes]]):
    """Yield the name and the content of each damaged file."""
    for seed in range(count):
        yield f"damage {seed}", fuzz.damaged(reader, seed)
        if reader.valid.suffix == ".keras":
            yield f"configuration {seed}", fuzz.inner_damaged(reader, seed)
    yield from fuzz.TEXTS.items()
    for name, (suffix, content) in bombs.items():
        if suffix == reader.valid.suffix:
            yield name, content


def main() -> None:
    """Measure every reader."""
    warnings.simplefilter("ignore")
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bombs = fuzz.bombs()
        print(f"{'reader':18}{'valid s':>9}{'slowest s':>11}{'ratio':>8}  case")
        for reader in fuzz.readers(folder):
            seconds(reader, reader.valid)  # the first read imports and traces
            valid = min(seconds(reader, reader.valid) for _ in range(3))
            slowest, case = 0.0, ""
            for label, content in cases(reader, count, bombs):
                path = fuzz.as_file(folder / "damaged", reader.valid.suffix, content)
                took = seconds(reader, path)
                if took > slowest:
                    slowest, case = took, label
            print(f"{reader.name:18}{valid:9.3f}{slowest:11.3f}{slowest / valid:8.1f}  {case}")


if __name__ == "__main__":
    main()
