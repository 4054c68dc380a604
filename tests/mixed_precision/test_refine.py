"""Refinement on losses that do not add up, without a model."""

import numpy as np
import pytest

from keras_edgeq.mixed_precision.refine import Measured, key, with_change
from keras_edgeq.mixed_precision.solve import brute_force, solve_ilp

GROUPS, CANDIDATES = 7, 3


class Landscape:
    """Losses with products between groups, and a count of what was measured."""

    def __init__(self, seed, strength):
        rng = np.random.default_rng(seed)
        self.single = np.sort(rng.exponential(size=(GROUPS, CANDIDATES)), axis=1)[:, ::-1]
        self.single[:, -1] = 0.0
        pairs = rng.normal(size=(GROUPS, CANDIDATES, GROUPS, CANDIDATES)) * strength
        self.pairs = pairs + pairs.transpose(2, 3, 0, 1)
        self.cost = np.tile(np.arange(1.0, CANDIDATES + 1.0), (GROUPS, 1)) * rng.integers(
            1, 9, (GROUPS, 1)
        )
        self.measured = []

    def loss(self, choice):
        rows = np.arange(GROUPS)
        size = np.sqrt(self.single[rows, choice])
        mixed = self.pairs[rows[:, None], choice[:, None], rows[None], choice[None]]
        return float(self.single[rows, choice].sum() + np.sum(mixed * np.outer(size, size)) / 2)

    def measure(self, choices, around):
        self.measured += [key(c) for c in choices]
        return [self.loss(c) for c in choices]

    def search(self, limit, passes):
        base = np.full(GROUPS, CANDIDATES - 1)
        alone = np.array(
            [
                [self.loss(with_change(base, g, c)) - self.loss(base) for c in range(CANDIDATES)]
                for g in range(GROUPS)
            ]
        )
        found = Measured(alone, self.loss(base), self.measure, lambda new, _: 1.0 * len(new))
        rows = [(self.cost, limit)]
        start = solve_ilp(alone, rows)
        found.measure([start], base)
        return found, start, rows, found.refine(start, rows, passes)


@pytest.mark.parametrize("seed", range(6))
def test_it_comes_near_the_best_of_all_and_never_ends_worse(seed):
    land = Landscape(seed, 0.15)
    limit = 0.6 * land.cost.max(1).sum()
    found, start, rows, best = land.search(limit, 200.0)
    oracle = brute_force(land.loss, np.ones((GROUPS, CANDIDATES), bool), rows)
    assert land.loss(best) <= land.loss(start)
    assert land.loss(best) == pytest.approx(land.loss(oracle), rel=0.02)
    assert land.cost[np.arange(GROUPS), best].sum() <= limit
    assert len(land.measured) == len(set(land.measured))
    assert found.best(rows) is not None


def test_the_work_is_bounded():
    for passes in (0.0, 3.0, 11.0):
        land = Landscape(0, 0.15)
        land.search(0.6 * land.cost.max(1).sum(), passes)
        assert len(land.measured) <= 1 + passes


def test_losses_that_add_up_need_no_refinement():
    land = Landscape(3, 0.0)
    _, start, _, best = land.search(0.5 * land.cost.max(1).sum(), 100.0)
    assert key(start) == key(best)
