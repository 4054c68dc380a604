"""Progress bars that go on where they were, and say in time when work will take long."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
LONG_SECONDS = 30.0
# What is judged by: layers differ, so the first of many say little.
LEAST_SECONDS = 3.0
LEAST_SHARE = 0.1
SHARE_ONLY = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


class Bar:
    """A bar over work that may become more while it is done.

    Once some of the work has shown how fast it goes, a line says how long all of it will take, if
    that is more than half a minute.

    Args:
        name: of the work, in front of the bar.
        total: amount of work.
        unit: of the amount, shown; `""` shows the share only.
        shown: False draws and says nothing.
    """

    def __init__(self, name: str, total: float, unit: str = "", shown: bool = True):
        form: dict[str, Any] = {"unit": unit} if unit else {"bar_format": SHARE_ONLY}
        self.name, self._said = name, not shown
        self._begin = self._first = time.perf_counter()
        self._at_first = 0.0
        self._bar = tqdm(total=total, desc=name, disable=not shown, **form)

    def to(self, done: float, total: float | None = None, name: str | None = None) -> None:
        """Move to an amount of work done; the whole, and what is being done, may be others now."""
        if total is not None and total > self._bar.total:
            self._bar.total = total
        if name is not None and name != self.name:
            self.name = name
            self._bar.set_description_str(name, refresh=False)
        self._bar.update(max(0.0, min(done, self._bar.total) - self._bar.n))
        if not self._said:
            self._say(done)

    def close(self) -> None:
        """Leave the bar full: less work was needed where it was not done."""
        if not self._bar.disable and self._bar.n:
            self._bar.total = self._bar.n
            self._bar.refresh()
        self._bar.close()

    def _say(self, done: float) -> None:
        now = time.perf_counter()
        if done > 0.0 and not self._at_first:
            self._first, self._at_first = now, done
        # Tracing makes the first unit slower than the others: it counts as itself only.
        seconds, share = self._first - self._begin, done / self._bar.total
        if done > self._at_first:
            rate = (now - self._first) / (done - self._at_first)
            seconds += rate * (self._bar.total - self._at_first)
        elif done > 0.0 and seconds > LONG_SECONDS:
            seconds *= self._bar.total / done
        else:
            return
        passed = now - self._begin
        if passed >= LEAST_SECONDS and (share >= LEAST_SHARE or passed > LONG_SECONDS):
            self._said = True
            if seconds > LONG_SECONDS:
                text = f"about {duration(seconds)} in all, as the first {100 * share:.0f} % went"
                tqdm.write(f"{self.name}: {text}", file=sys.stderr)


def each(
    items: Sequence[Item],
    name: str,
    unit: str,
    shown: bool = True,
    work: Sequence[float] | None = None,
) -> Iterator[Item]:
    """Yield items behind a bar; `work` says how much each takes beside the others."""
    ends = list(accumulate([1] * len(items) if work is None else work))
    bar = Bar(name, ends[-1] if ends else 0, unit if work is None else "", shown)
    try:
        for item, end in zip(items, ends, strict=True):
            yield item
            bar.to(end)
    finally:
        bar.close()


def duration(seconds: float) -> str:
    """Return a time as people say it: `40 seconds`, `3 minutes`, `1.5 hours`.

    Example:
        >>> duration(200)
        '3 minutes'
    """
    if seconds < 90:
        return f"{10 * round(seconds / 10)} seconds"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"
