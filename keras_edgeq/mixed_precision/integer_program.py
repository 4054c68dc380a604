"""`IntegerProgram`: one candidate per group within limits, solved by HiGHS to the last digit.

A solver of linear programs works to absolute tolerances, so numbers that span eleven decades need
care: every row is shifted so that its least entry in each group is 0 and scaled by what is left of
its limit, candidates that alone exceed it are dropped, and each answer is checked in the numbers
it came from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.errors import SearchError
from keras_edgeq.mixed_precision.solver_output import without_solver_output

Table = NDArray[np.float64]
Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]

# What the bound of the objective and the room below a limit are scaled to: HiGHS takes 1e-6 for
# nothing. More in the rows makes it reject its own roundings.
UNIT, ROW_UNIT = 1e4, 1e2
# Losses that differ by a smaller share are ties.
TIE = 1e-9
MOST_REFUSED = 200
# Below it a row would overflow; `_within` has left it nothing to decide.
LEAST_SLACK = 1e-280


def total(table: Table, choice: Numbers) -> float:
    """Return what a choice adds up to, rounded once; NaN where a group cannot have it."""
    return math.fsum(table[np.arange(len(choice)), choice])


class IntegerProgram:
    """Finds the choice of least objective within limits.

    Args:
        allowed: `[groups, candidates]`.
        rows: limits, finite where allowed.
    """

    def __init__(self, allowed: Mask, rows: Sequence[tuple[Table, float]]):
        self.allowed, self.rows = allowed, list(rows)

    def least(self, objective: Table, tie_break: Table) -> Numbers | None:
        """Return the choice of least objective, among equal ones that of least `tie_break`.

        None if no choice keeps the limits.
        """
        if not self.allowed.any(axis=1).all():
            return None
        best = self._search(objective, self.rows)
        if best is None:
            return None
        value = total(objective, best)
        within = value + TIE * _above(objective, best, self.allowed)
        cheaper = self._search(tie_break, [*self.rows, (objective, within)])
        if cheaper is None or total(tie_break, cheaper) >= total(tie_break, best):
            return best
        return cheaper

    def _search(self, objective: Table, rows: Sequence[tuple[Table, float]]) -> Numbers | None:
        """Return the least choice; its bound takes out what cannot be in a better one."""
        best = self._solve(objective, rows, self.allowed)
        if best is None:
            return None
        mask = self.allowed
        while True:
            bound = total(objective, best)
            reduced = _within(objective, bound, mask)
            if reduced is None or (reduced == mask).all():
                return best
            mask = reduced
            better = self._solve(objective, rows, mask, bound)
            if better is None or total(objective, better) >= bound:
                return best
            best = better

    def _solve(
        self,
        objective: Table,
        rows: Sequence[tuple[Table, float]],
        mask: Mask,
        bound: float | None = None,
    ) -> Numbers | None:
        """Solve once, with the objective scaled by a bound on it where one is known."""
        for table, limit in rows:
            reduced = _within(table, limit, mask)
            if reduced is None:
                return None
            mask = reduced
        if not mask.any(axis=1).all():
            return None
        weights = _shifted(objective, mask)
        spread = weights[mask].max() if bound is None else bound - _floor(objective, mask)
        scaled = weights * (UNIT / spread) if spread > 0 else weights
        refused: list[Numbers] = []
        while len(refused) < MOST_REFUSED:
            choice = _highs(scaled, rows, mask, refused)
            if choice is None:
                return None
            if all(total(table, choice) <= limit for table, limit in rows):
                return choice
            refused.append(choice)
        raise SearchError(
            f"The integer program met {MOST_REFUSED} choices that exceed a limit by rounding; "
            "give the limit in whole bytes, or with fewer digits."
        )


def _highs(
    weights: Table,
    rows: Sequence[tuple[Table, float]],
    mask: Mask,
    refused: Sequence[Numbers],
) -> Numbers | None:
    """Return the choice that HiGHS finds, None if it proves that there is none."""
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_matrix
    except ImportError as error:
        raise SearchError(
            f"The search needs {error.name}: pip install 'keras_edgeq[search]'."
        ) from error
    groups = np.nonzero(mask)[0]
    columns = np.arange(len(groups))
    one_each = csr_matrix((np.ones(len(groups)), (groups, columns)), (len(mask), len(groups)))
    constraints = [LinearConstraint(one_each, 1.0, 1.0)]
    for table, limit in rows:
        slack = limit - _floor(table, mask)
        if LEAST_SLACK < slack < np.inf:
            row = _shifted(table, mask)[mask] * (ROW_UNIT / slack)
            constraints.append(LinearConstraint(row[None], -np.inf, ROW_UNIT))
    for choice in refused:
        same = np.zeros(mask.shape)
        same[np.arange(len(choice)), choice] = 1.0
        constraints.append(LinearConstraint(same[mask][None], -np.inf, len(mask) - 1.0))
    with without_solver_output():
        result = milp(
            weights[mask],
            integrality=np.ones(len(groups)),
            bounds=Bounds(0.0, 1.0),
            constraints=constraints,
            options={"mip_rel_gap": 0.0},
        )
    if result.status == 2:
        return None
    if result.x is None or result.status != 0:
        raise SearchError(f"The integer program was not solved: {result.message}")
    taken = np.zeros(mask.shape)
    taken[mask] = result.x
    return np.argmax(taken, axis=1).astype(np.int64)


def _least(table: Table, mask: Mask) -> Table:
    return np.min(np.where(mask, table, np.inf), axis=1)


def _floor(table: Table, mask: Mask) -> float:
    """Return the least that any choice adds up to."""
    return math.fsum(_least(table, mask))


def _shifted(table: Table, mask: Mask) -> Table:
    """Return the table with the least of each group at 0, and 0 where nothing is allowed."""
    return np.where(mask, table - _least(table, mask)[:, None], 0.0)


def _above(table: Table, choice: Numbers, mask: Mask) -> float:
    """Return how far a choice lies above the floor."""
    return total(_shifted(table, mask), choice)


def _within(table: Table, limit: float, mask: Mask) -> Mask | None:
    """Return the candidates that do not exceed a limit alone, None if the floor does."""
    least = _least(table, mask)
    floor = math.fsum(least)
    if floor > limit:
        return None
    # Rounding of the difference must not drop a candidate that just fits.
    slack = (limit - floor) + 1e-12 * (abs(limit) + abs(floor) if np.isfinite(limit) else 0.0)
    return mask & (_shifted(table, mask) <= slack)
