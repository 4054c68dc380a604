"""`ChoiceFinder`: from the sensitivities to the best choice that can be found with so much work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from keras_edgeq.analysis.sensitivity import loss_of, measure_groups
from keras_edgeq.errors import SearchError
from keras_edgeq.measure.gradient import gradient_passes
from keras_edgeq.measure.precision_study import PrecisionStudy, Score
from keras_edgeq.mixed_precision.cost import CostModel
from keras_edgeq.mixed_precision.refine import Measured, key, with_change
from keras_edgeq.mixed_precision.search_result import Point
from keras_edgeq.mixed_precision.solve import (
    Numbers,
    Row,
    fits,
    frontier,
    pareto,
    solve_greedy,
    solve_ilp,
    total,
)

# Share of the work behind the sensitivities that goes into the best choice; the curve has the rest.
REFINING = 0.65
# Budgets among which the smallest that keeps a drop is looked for.
STEPS = 33
# Choices that a user's score decides between.
FINALISTS = 3


class ChoiceFinder:
    """Finds choices, best first by sensitivities and then by measuring them.

    Args:
        study: of the sim.
        costs: what choices cost.
        rows: limits that some choice keeps.
        cost: what the curve is over.
        measure: loss to minimise.
        effort: most forward passes over the data, times groups times candidates.
        score: the user's, None without one.

    Attributes:
        report: the sensitivities.
        compared: what plainer methods choose, by name.

    Raises:
        EdgeqError: the score of the float model is not a finite number.
    """

    def __init__(
        self,
        study: PrecisionStudy,
        costs: CostModel,
        rows: Sequence[Row],
        cost: str,
        measure: str,
        effort: float,
        score: Score | None,
    ):
        self._study, self._measure, self._score = study, measure, score
        self.costs, self.rows, self._cost = costs, rows, cost
        groups = study.grids.groups
        if score is not None:
            study.score_float(score)
        # Counted as if nothing was known from an earlier run, so that both end alike.
        work = effort * sum(len(group.candidates) for group in groups)
        study.evaluator.expect(work)
        self._left = work - 1.0
        self.report = measure_groups(study, study.finest, measure)
        self._found = Measured(
            self.report.losses, self.report.base_loss, self._losses, self._expense
        )
        self.compared: dict[str, Point] = {}
        self.base = self.costs.numbers(study.grids.uniform(study.finest))
        self._found.measure(self._known_from_report(), self.base)

    def within_limits(self) -> Numbers:
        """Return the best choice found within the limits."""
        starts = self._starts()
        # Spending nothing on refinement is better than not knowing what a plain solution loses.
        self._found.measure(list(starts.values()), self.base)
        self.compared = {name: self.point(choice) for name, choice in starts.items()}
        best = self._found.best(self.rows)
        assert best is not None  # a start is measured
        best = self._found.refine(best, self.rows, REFINING * self._left)
        return best if self._score is None else self._by_score()

    def within_drop(self, most: float) -> Numbers:
        """Return the cheapest choice found within the limits that loses no more than `most`.

        Raises:
            SearchError: the most precise choice within the limits loses more.
        """
        ladder = frontier(self.report.losses, self._table(), STEPS, self.rows)
        finest = self._drop(ladder[-1])
        if finest > most:
            raise SearchError(
                f"max_drop={most:g} is impossible: the most precise choice within the limits loses "
                f"{finest:.4g}."
            )
        low, high = -1, len(ladder) - 1
        while high - low > 1:
            middle = (low + high) // 2
            keeps = self._drop(ladder[middle]) <= most
            low, high = (low, middle) if keeps else (middle, high)
        best = ladder[high]
        # What is measured near the next smaller one may keep the drop at its price.
        while high > 0 and self._left > 0.0:
            limit = total(self._table(), ladder[high - 1])
            rows = [(self._table(), limit), *self.rows]
            self._found.measure([ladder[high - 1]], self.base)
            refined = self._found.refine(ladder[high - 1], rows, REFINING * self._left)
            if self._drop(refined) > most:
                break
            best, high = refined, high - 1
        self._found.measure([best], self.base)
        return best

    def curve(self, count: int) -> tuple[Point, ...]:
        """Return the Pareto curve of what was measured and what is predicted, the cheapest first.

        Args:
            count: budgets at which the curve is looked at; measured as far as the work allows.
        """
        table = self._table()
        asked = frontier(self.report.losses, table, max(count, 2), ())
        # Spread over the curve, should the work not suffice for all.
        spread = sorted(range(len(asked)), key=lambda i: (i % 4, i))
        chosen = self._found.affordable([asked[i] for i in spread], self.base, self._left)
        self._found.measure(chosen, self.base)
        measured = self._kept([np.array(k) for k in self._found.known])
        guessed = [c for c in asked if key(c) not in self._found.known]
        return _filled(measured, [self.point(c) for c in guessed], self._cost_of)

    def _kept(self, choices: Sequence[Numbers]) -> list[Point]:
        """Return those on the Pareto curve of a set, the cheapest first."""
        made = [self.point(choice) for choice in choices]
        costs = np.array([self._cost_of(point) for point in made])
        return [made[i] for i in pareto(costs, np.array([point.best_known for point in made]))]

    def point(self, numbers: Numbers) -> Point:
        """Return a choice with its costs and losses."""
        choice, known = self.choice(numbers), self._study.evaluator.log.get
        score = known(choice, "score")
        return Point(
            choice=choice,
            weight_bytes=self.costs.weight_bytes(choice),
            size=self.costs.size(choice),
            bitops=self.costs.bitops(choice),
            activation_memory=self.costs.activation_memory(choice),
            predicted=self._found.predict(numbers),
            loss=self._found.known.get(key(numbers)),
            score=None if score is None else float(score[0]),
        )

    def choice(self, numbers: Numbers) -> dict[str, str]:
        """Return a choice by the names of groups and precisions."""
        return self.costs.choice(numbers)

    @property
    def evaluations(self) -> int:
        """Number of choices that were measured."""
        return len(self._found.known)

    def _starts(self) -> dict[str, Numbers]:
        """Return what the integer program, a greedy search and uniform precisions make of it."""
        losses, rows, starts = self.report.losses, self.rows, {}
        starts["integer program"] = solve_ilp(losses, rows)
        table, limit = rows[0]
        starts["greedy"] = solve_greedy(losses, table, limit, self.base)
        starts["greedy per saving"] = solve_greedy(losses, table, limit, self.base, per_saving=True)
        for name in self._study.candidates:
            starts[name] = self.costs.numbers(self._study.grids.uniform(name))
        return {n: c for n, c in starts.items() if c is not None and fits(c, rows)}

    def _by_score(self) -> Numbers:
        """Return the best by the user's score of those that lose least."""
        finalists = self._found.ranked(self.rows)[:FINALISTS]
        return max(finalists, key=self._scored)

    def _scored(self, numbers: Numbers) -> float:
        assert self._score is not None  # asked before
        return self._study.score(self.choice(numbers), self._score)

    def _drop(self, numbers: Numbers) -> float:
        """Return what a choice loses against the float model."""
        if self._score is not None:
            return self._float_score() - self._scored(numbers)
        self._found.measure([numbers], self.base)
        (loss,) = self._study.evaluator.measure(
            [self.choice(numbers)], self.choice(self.base), "search"
        )
        return 100.0 - loss.agreement

    def _float_score(self) -> float:
        assert self._score is not None  # asked before
        return self._study.score_float(self._score)

    def _losses(self, choices: Sequence[Numbers], around: Numbers) -> list[float]:
        named = [self.choice(numbers) for numbers in choices]
        self._left -= self._expense(choices, around)
        totals = self._study.evaluator.measure(named, self.choice(around), "search")
        return [loss_of(loss, self._measure) for loss in totals]

    def _expense(self, choices: Sequence[Numbers], around: Numbers) -> float:
        named = [self.choice(numbers) for numbers in choices]
        return self._study.evaluator.expense(named, self.choice(around))

    def _known_from_report(self) -> list[Numbers]:
        """Return the choices that the sensitivities measured."""
        found = [self.base]
        if self.report.measure == "gradient":
            self._left -= gradient_passes(self._study)
            return found
        for group, candidate in zip(*np.nonzero(np.isfinite(self.report.losses)), strict=True):
            found.append(with_change(self.base, group, candidate))
        return found

    def _table(self):
        """Return the table of what the curve is over; for memory, that of its greatest step."""
        if self._cost == "bitops":
            return self.costs.bitops_table
        if self._cost == "activation_memory":
            return self.costs.memory_rows()[0][0]
        return self.costs.weight_table

    def _cost_of(self, point: Point) -> float:
        return float(getattr(point, self._cost))


def _filled(
    measured: Sequence[Point], guessed: Sequence[Point], cost_of: Callable[[Point], float]
) -> tuple[Point, ...]:
    """Fill gaps of a curve with predicted points.

    Sums of sensitivities promise too much: one counts only between the measured points that are
    cheaper and dearer than itself, where it promises no more than the dearer one keeps.
    """
    made = list(measured)
    for point in guessed:
        cheaper = [p for p in measured if cost_of(p) < cost_of(point)]
        dearer = [p for p in measured if cost_of(p) > cost_of(point)]
        if not (cheaper and dearer):
            continue
        if dearer[0].best_known < point.predicted < cheaper[-1].best_known:
            made.append(point)
    return tuple(sorted(made, key=lambda p: (cost_of(p), p.best_known)))
