"""Solvers of the choice: one candidate for each group, least loss within limits on costs.

All work on arrays `[groups, candidates]`; NaN marks what a group cannot have. A choice is an array
of candidate numbers, one per group. A row is `(table, limit)`: what the choice adds up to in the
table must not exceed the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.errors import SearchError
from keras_edgeq.mixed_precision.integer_program import IntegerProgram, Numbers, Table, total

Row = tuple[Table, float]

BRUTE_FORCE_MOST = 200_000


def fits(choice: Numbers, rows: Sequence[Row]) -> bool:
    """Tell whether a choice keeps all limits."""
    return all(total(table, choice) <= limit for table, limit in rows)


def solve_ilp(
    losses: Table,
    rows: Sequence[Row] = (),
    *,
    near: Numbers | None = None,
    distance: int | None = None,
) -> Numbers | None:
    """Return the choice of least summed loss within the limits, by integer programming.

    Among choices whose losses agree to one part in a billion it is the one that costs least in
    the first row.

    Args:
        losses: `[groups, candidates]`, of any sign and size.
        rows: limits.
        near: a choice that the result may differ from in `distance` groups.
        distance: number of groups.

    Returns:
        Candidate numbers, None if no choice keeps the limits.

    Raises:
        SearchError: scipy is missing, or the solver gave up.
    """
    losses = np.asarray(losses, np.float64)
    rows = [(np.asarray(table, np.float64), float(limit)) for table, limit in rows]
    allowed = np.isfinite(losses)
    for table, _ in rows:
        allowed &= np.isfinite(table)
    if near is not None and distance is not None and distance < len(near):
        changed = np.ones(losses.shape)
        changed[np.arange(len(near)), near] = 0.0
        rows = [*rows, (changed, float(distance))]
    cost = rows[0][0] if rows else np.zeros(losses.shape)
    return IntegerProgram(allowed, rows).least(losses, cost)


def minimise_cost(
    costs: Table, losses: Table, loss_limit: float, rows: Sequence[Row] = ()
) -> Numbers | None:
    """Return the cheapest choice whose losses add up to at most a limit, None if there is none.

    Of equally cheap ones it is the one that loses least.
    """
    return solve_ilp(costs, [(losses, loss_limit), *rows])


def solve_greedy(
    losses: Table, costs: Table, limit: float, baseline: Numbers, *, per_saving: bool = False
) -> Numbers | None:
    """Return AIMET's greedy choice: the harmless moves first, until the cost is within its limit.

    A move gives one group another candidate. Moves are taken in the order of their loss, of equal
    ones the greatest saving first; one that would make its group dearer is passed over.

    Args:
        losses: `[groups, candidates]`.
        costs: `[groups, candidates]`.
        limit: most that the choice may cost.
        baseline: the choice to start from.
        per_saving: order by loss per cost saved instead.

    Returns:
        The choice, None if the limit is not reached.
    """
    choice = np.array(baseline, np.int64)
    rows = np.arange(len(choice))
    saved = costs[rows, choice][:, None] - costs
    moves = [(g, c) for g, c in np.ndindex(losses.shape) if losses[g, c] == losses[g, c]]
    moves = [(g, c) for g, c in moves if saved[g, c] > 0]

    def rank(move: tuple[int, int]) -> tuple[float, float]:
        loss = losses[move] - losses[move[0], baseline[move[0]]] if per_saving else losses[move]
        return (loss / saved[move] if per_saving else loss), -saved[move]

    for group, candidate in sorted(moves, key=rank):
        if total(costs, choice) <= limit:
            break
        if costs[group, candidate] < costs[group, choice[group]]:
            choice[group] = candidate
    return choice if total(costs, choice) <= limit else None


def brute_force(
    loss_of: Callable[[Numbers], float], allowed: NDArray[np.bool_], rows: Sequence[Row] = ()
) -> Numbers | None:
    """Return the choice of least loss among all that keep the limits, by trying each.

    Args:
        loss_of: loss of a choice; it need not be a sum.
        allowed: `[groups, candidates]`.
        rows: limits; choices that break one are not tried.

    Raises:
        SearchError: there are more than 200 000 choices.
    """
    count = math.prod(int(n) for n in np.sum(allowed, axis=1))
    if count > BRUTE_FORCE_MOST:
        raise SearchError(
            f"{len(allowed)} groups have {count:,} choices; trying each is for up to "
            f"{BRUTE_FORCE_MOST:,}. Give fewer candidates, or let the integer program solve it."
        )
    best, least = None, np.inf
    for numbers in product(*(np.flatnonzero(row) for row in allowed)):
        choice = np.array(numbers, np.int64)
        if fits(choice, rows):
            loss = loss_of(choice)
            if best is None or loss < least:
                best, least = choice, loss
    return best


def pareto(costs: Sequence[float] | Table, losses: Sequence[float] | Table) -> list[int]:
    """Return the numbers of the points that no other beats in both, the smallest cost first.

    Of equal points it is the first.
    """
    order = np.lexsort([np.asarray(losses, np.float64), np.asarray(costs, np.float64)])
    kept: list[int] = []
    least = np.inf
    for i in order:
        if losses[i] < least:
            kept.append(int(i))
            least = losses[i]
    return kept


def frontier(losses: Table, costs: Table, count: int, rows: Sequence[Row] = ()) -> list[Numbers]:
    """Return the best choices at budgets between the least cost and that of the least loss.

    Args:
        losses: `[groups, candidates]`.
        costs: what the budgets limit, `[groups, candidates]`.
        count: number of budgets, evenly apart.
        rows: further limits.

    Returns:
        Different choices, the cheapest first; none where the further limits cannot be kept.
    """
    most = solve_ilp(losses, [(costs, np.inf), *rows])
    least = solve_ilp(costs, [(losses, np.inf), *rows])
    if most is None or least is None:
        return []
    ends = total(costs, least), total(costs, most)
    found = [least, most]
    for budget in np.linspace(*ends, count)[1:-1]:
        choice = solve_ilp(losses, [(costs, float(budget)), *rows])
        found += [] if choice is None else [choice]
    distinct = list({tuple(int(c) for c in choice): choice for choice in found}.values())
    points = [(total(costs, choice), total(losses, choice)) for choice in distinct]
    return [distinct[i] for i in pareto(*map(np.array, zip(*points, strict=True)))]
