"""`Measured`: choices measured as whole models, and the search for a better one beside the best.

What groups lose alone does not add up. Around the best choice so far, single changes are measured
in the model that has this choice; an integer program over those proposes changes of several groups
at once; what it proposes is measured, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from keras_edgeq.mixed_precision.solve import Numbers, Row, Table, fits, solve_ilp, total

# Most groups that a proposal changes.
DISTANCES = (1, 2, 3, 4, 6, 8)
# Share of the work that single changes may take.
FLIPS_SHARE = 0.7
# A change deep in the network is cheaper than one at its front: how many too dear ones are tried.
MOST_REFUSED = 8
# Around a limit, for its price: what the loss gains if the limit is raised by so much.
PRICE_STEP = 0.05

Measure = Callable[[Sequence[Numbers], Numbers], list[float]]
Expense = Callable[[Sequence[Numbers], Numbers], float]


class Measured:
    """Losses of choices by measurement, and estimates of those that were not measured.

    Args:
        losses: what each group loses alone, `[groups, candidates]`; NaN where not allowed.
        base_loss: loss of the choice that these are beside.
        measure: `(choices, around) -> losses`.
        expense: `(choices, around) -> passes` that measuring them takes.
    """

    def __init__(self, losses: Table, base_loss: float, measure: Measure, expense: Expense):
        self.losses, self.base_loss = losses, base_loss
        self._measure, self._expense = measure, expense
        self.known: dict[tuple[int, ...], float] = {}

    def predict(self, choice: Numbers) -> float:
        """Return what the sensitivities add up to."""
        return self.base_loss + total(self.losses, choice)

    def measure(self, choices: Sequence[Numbers], around: Numbers) -> list[float]:
        """Return the measured losses of choices."""
        new = [c for c in choices if key(c) not in self.known]
        values = self._measure(new, around) if new else []
        self.known.update(zip(map(key, new), values, strict=True))
        return [self.known[key(c)] for c in choices]

    def affordable(
        self, choices: Sequence[Numbers], around: Numbers, passes: float
    ) -> list[Numbers]:
        """Return as many of the choices, from the first, as so many passes measure."""
        taken: list[Numbers] = []
        new: list[Numbers] = []
        refused = 0
        for choice in choices:
            if key(choice) not in self.known:
                if self._expense([*new, choice], around) > passes:
                    refused += 1
                    if refused == MOST_REFUSED:
                        break
                    continue
                new.append(choice)
            taken.append(choice)
        return taken

    def expense(self, choices: Sequence[Numbers], around: Numbers) -> float:
        """Return the passes that measuring choices takes."""
        new = [c for c in choices if key(c) not in self.known]
        return self._expense(new, around) if new else 0.0

    def best(self, rows: Sequence[Row]) -> Numbers | None:
        """Return the measured choice of least loss within limits."""
        return next(iter(self.ranked(rows)), None)

    def ranked(self, rows: Sequence[Row]) -> list[Numbers]:
        """Return the measured choices within limits, that of least loss first."""
        inside = [np.array(k) for k in self.known if fits(np.array(k), rows)]
        return sorted(inside, key=lambda c: self.known[key(c)])

    def refine(self, start: Numbers, rows: Sequence[Row], passes: float) -> Numbers:
        """Return the best choice within limits that is found near `start`, a measured one.

        Args:
            start: within the limits.
            rows: limits.
            passes: work to stop at.
        """
        best = start
        while passes > 0.0:
            for propose, share in (
                (self._flips, FLIPS_SHARE),
                (self._proposals, 1.0),
                (self._swaps, 1.0),
            ):
                choices = self.affordable(propose(best, rows), best, share * passes)
                passes -= self.expense(choices, best)
                self.measure(choices, best)
                found = self.best(rows)
                if found is not None and key(found) != key(best) and propose != self._flips:
                    break
            else:
                break
            best = found
        found = self.best(rows)
        return best if found is None else found

    def _flips(self, best: Numbers, rows: Sequence[Row]) -> list[Numbers]:
        """Return the changes of one group, those first whose worth is most in doubt."""
        price = self._price(rows)
        found: list[tuple[float, Numbers]] = []
        for group, candidate in zip(*np.nonzero(np.isfinite(self.losses)), strict=True):
            if candidate == best[group]:
                continue
            change = self.losses[group, candidate] - self.losses[group, best[group]]
            if rows:
                table = rows[0][0]
                change += price * (table[group, candidate] - table[group, best[group]])
            found.append((abs(float(change)), with_change(best, group, candidate)))
        return [choice for _, choice in sorted(found, key=lambda pair: pair[0])]

    def _price(self, rows: Sequence[Row]) -> float:
        """Return what the loss falls by for each unit more of the first limit."""
        if not rows:
            return 0.0
        (table, limit), others = rows[0], rows[1:]
        span = PRICE_STEP * float(np.nansum(np.nanmax(table, 1) - np.nanmin(table, 1)))
        ends = [solve_ilp(self.losses, [(table, limit + d), *others]) for d in (-span, span)]
        low, high = ends
        if low is None or high is None:
            return 0.0
        saved = total(table, high) - total(table, low)
        return (total(self.losses, low) - total(self.losses, high)) / saved if saved > 0 else 0.0

    def _proposals(self, best: Numbers, rows: Sequence[Row]) -> list[Numbers]:
        """Return the choices that measured and estimated changes of single groups make best."""
        table = self._changes(best)
        found: dict[tuple[int, ...], Numbers] = {}
        for distance in DISTANCES:
            choice = solve_ilp(table, rows, near=best, distance=distance)
            if choice is not None and key(choice) not in self.known:
                found[key(choice)] = choice
        return list(found.values())

    def _swaps(self, best: Numbers, rows: Sequence[Row]) -> list[Numbers]:
        """Return the changes of two groups within the limits, the most promising first."""
        table = self._changes(best)
        moves = [
            (int(group), int(candidate))
            for group, candidate in zip(*np.nonzero(np.isfinite(table)), strict=True)
            if candidate != best[group]
        ]
        found: list[tuple[float, Numbers]] = []
        for (group, candidate), (other, second) in combinations(moves, 2):
            choice = with_change(with_change(best, group, candidate), other, second)
            if group != other and key(choice) not in self.known and fits(choice, rows):
                found.append((float(table[group, candidate] + table[other, second]), choice))
        return [choice for _, choice in sorted(found, key=lambda pair: pair[0])]

    def _changes(self, best: Numbers) -> Table:
        """Return what changing one group does to the best choice, measured or estimated."""
        table, here = np.full(self.losses.shape, np.nan), self.known[key(best)]
        for group, candidate in zip(*np.nonzero(np.isfinite(self.losses)), strict=True):
            known = self.known.get(key(with_change(best, group, candidate)))
            alone = self.losses[group, candidate] - self.losses[group, best[group]]
            table[group, candidate] = alone if known is None else known - here
        return table


def key(choice: Numbers) -> tuple[int, ...]:
    """Return a choice as something that can be looked up."""
    return tuple(int(number) for number in choice)


def with_change(choice: Numbers, group: int, candidate: int) -> Numbers:
    """Return a choice with another candidate for one group."""
    changed = np.array(choice)
    changed[group] = candidate
    return changed
