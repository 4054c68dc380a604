"""Sum up what a profiler recorded, a row per operation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Event(NamedTuple):
    """One operation that ran once.

    Attributes:
        place: tells it from the other operations of the file.
        name: of the operation, or of its result.
        type: of the operation, in the runtime's words.
        kernel: whose kernel ran it.
        time_us: how long it took, in microseconds.
    """

    place: Any
    name: str
    type: str
    kernel: str
    time_us: float


def rows(events: Iterable[Event], runs: int) -> list[dict[str, Any]]:
    """Return a row of JSON values per operation, in the order in which they first ran.

    `time_us` and `calls` are those of one run, the mean over all: a loop calls its body often.
    """
    found: dict[Any, dict[str, Any]] = {}
    for event in events:
        made = {"name": event.name, "type": event.type, "kernel": event.kernel}
        row = found.setdefault(event.place, {**made, "time_us": 0.0, "calls": 0})
        row["time_us"] += event.time_us
        row["calls"] += 1
    means = ({"time_us": r["time_us"] / runs, "calls": r["calls"] / runs} for r in found.values())
    return [{**row, **mean} for row, mean in zip(found.values(), means, strict=True)]
