"""The solvers find what trying every choice finds."""

import builtins
from itertools import product

import numpy as np
import pytest

from keras_edgeq.errors import SearchError
from keras_edgeq.mixed_precision.solve import (
    brute_force,
    fits,
    frontier,
    minimise_cost,
    pareto,
    solve_greedy,
    solve_ilp,
    total,
)


def instance(seed, groups=6, candidates=4, rows=1, decades=11.0):
    """Losses over many decades, some forbidden, and limits that bind."""
    rng = np.random.default_rng(seed)
    losses = 10.0 ** rng.uniform(2.0 - decades, 2.0, (groups, candidates))
    forbidden = rng.random((groups, candidates)) < 0.2
    forbidden[np.arange(groups), rng.integers(0, candidates, groups)] = False
    losses[forbidden] = np.nan
    limits = []
    for _ in range(rows):
        table = rng.integers(1, 10**7, (groups, candidates)).astype(float)
        least, most = (f(np.where(forbidden, v, table), 1).sum() for f, v in ENDS)
        limits.append((table, np.floor(least + rng.uniform(0.2, 0.7) * (most - least))))
    return losses, limits


ENDS = ((np.min, np.inf), (np.max, -np.inf))


def oracle(losses, rows):
    return brute_force(lambda choice: total(losses, choice), np.isfinite(losses), rows)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("seed", range(25))
def test_the_program_is_as_good_as_trying_every_choice(seed, rows):
    losses, limits = instance(seed, rows=rows)
    best, found = oracle(losses, limits), solve_ilp(losses, limits)
    if best is None:
        assert found is None
        return
    assert found is not None
    assert fits(found, limits)
    assert total(losses, found) == pytest.approx(total(losses, best), rel=1e-9, abs=0.0)


@pytest.mark.parametrize("seed", range(10))
def test_losses_may_be_negative_and_tiny(seed):
    losses, limits = instance(seed, decades=6.0)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], losses.shape)
    losses = 1e-9 * signs * losses
    best, found = oracle(losses, limits), solve_ilp(losses, limits)
    assert total(losses, found) == pytest.approx(total(losses, best), rel=1e-9, abs=0.0)


def test_a_limit_holds_to_the_last_byte():
    costs = np.array([[50_000_001.0, 100_000_000.0], [50_000_000.0, 100_000_000.0]])
    losses = np.array([[1.0, 0.0], [1.0, 0.5]])
    just = 150_000_000.0
    assert list(solve_ilp(losses, [(costs, just)])) == [1, 0]
    assert list(solve_ilp(losses, [(costs, just - 1)])) == [0, 0]
    assert solve_ilp(losses, [(costs, 100_000_000.0)]) is None
    assert list(solve_ilp(losses, [(costs, 100_000_001.0)])) == [0, 0]


def test_a_limit_that_rounding_can_hide_is_checked_in_the_numbers_themselves():
    # 0.1 + 0.2 exceeds 0.3 by the last bit, which no solver sees.
    costs = np.array([[0.1, 0.05], [0.2, 0.1]])
    losses = np.array([[0.0, 1.0], [0.0, 2.0]])
    assert list(solve_ilp(losses, [(costs, 0.3)])) == [1, 0]


def test_small_losses_are_not_lost_beside_large_ones():
    losses = np.array([[0.0, 1e2], [3e-9, 1e-9], [0.0, 2.5e-9], [0.0, 2e-9]])
    costs = np.array([[1.0, 0.0], [2.0, 2.0], [2.0, 1.0], [2.0, 1.0]])
    found = solve_ilp(losses, [(costs, 6.0)])
    assert list(found) == [0, 1, 0, 1]


def test_of_equal_losses_the_cheaper_choice_is_taken():
    losses = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 0.5], [2.0, 2.0, 2.0]])
    costs = np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 9.0], [8.0, 7.0, 7.5]])
    assert list(solve_ilp(losses, [(costs, 9.0)])) == [1, 0, 1]
    assert list(solve_ilp(losses, [(costs, 100.0)])) == [1, 2, 1]


def test_what_a_row_forbids_is_not_taken():
    losses = np.array([[0.0, 1.0], [0.0, 1.0]])
    costs = np.array([[np.nan, 1.0], [1.0, 1.0]])
    assert list(solve_ilp(losses, [(costs, 10.0)])) == [1, 0]
    costs[0] = np.nan
    assert solve_ilp(losses, [(costs, 10.0)]) is None


@pytest.mark.parametrize("distance", [0, 1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_a_trust_region_bounds_the_groups_that_change(seed, distance):
    losses, limits = instance(seed, groups=5)
    near = np.array([np.flatnonzero(np.isfinite(row))[-1] for row in losses])
    loose = [(table, float(table.sum())) for table, _ in limits]
    found = solve_ilp(losses, loose, near=near, distance=distance)
    assert (found != near).sum() <= distance
    ranges = [np.flatnonzero(np.isfinite(row)) for row in losses]
    close = [np.array(c) for c in product(*ranges) if (np.array(c) != near).sum() <= distance]
    assert total(losses, found) == pytest.approx(min(total(losses, c) for c in close), rel=1e-9)


def test_a_trust_region_without_a_choice_within_the_limits_has_none():
    losses, costs = np.zeros((3, 2)), np.array([[1.0, 0.0]] * 3)
    near = np.zeros(3, int)
    assert solve_ilp(losses, [(costs, 1.0)], near=near, distance=1) is None
    assert solve_ilp(losses, [(costs, 1.0)], near=near, distance=2) is not None


def test_the_same_question_has_the_same_answer():
    losses, limits = instance(3, groups=30, rows=2)
    first, second = (solve_ilp(losses, limits) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("seed", range(10))
def test_the_cheapest_choice_within_a_loss(seed):
    losses, [(costs, _)] = instance(seed, groups=5, decades=4.0)
    limit = float(np.nanmean(losses) * 2)
    best = brute_force(lambda c: total(costs, c), np.isfinite(losses), [(losses, limit)])
    found = minimise_cost(costs, losses, limit)
    assert (found is None) == (best is None)
    if found is not None:
        assert total(losses, found) <= limit
        assert total(costs, found) == total(costs, best)


def test_no_choice_within_a_loss_below_the_least():
    assert minimise_cost(np.ones((2, 2)), np.ones((2, 2)), 1.9) is None


def test_greedy_takes_harmless_moves_first():
    losses = np.array([[0.0, 0.3, 0.5], [0.0, 0.1, 0.2]])
    costs = np.array([[8.0, 4.0, 2.0], [8.0, 4.0, 2.0]])
    start = np.array([0, 0])
    assert list(solve_greedy(losses, costs, 16.0, start)) == [0, 0]
    assert list(solve_greedy(losses, costs, 12.0, start)) == [0, 1]
    assert list(solve_greedy(losses, costs, 11.0, start)) == [0, 2]
    assert list(solve_greedy(losses, costs, 6.0, start)) == [1, 2]
    assert list(solve_greedy(losses, costs, 4.0, start)) == [2, 2]
    assert solve_greedy(losses, costs, 3.0, start) is None


def test_greedy_takes_the_greater_saving_of_equal_losses_and_no_dearer_move():
    losses = np.array([[0.0, 0.1, np.nan], [0.0, 0.1, 0.0]])
    costs = np.array([[8.0, 4.0, 0.0], [8.0, 2.0, 9.0]])
    assert list(solve_greedy(losses, costs, 15.0, np.array([0, 0]))) == [0, 1]
    assert solve_greedy(losses, costs, 5.9, np.array([0, 0])) is None


def test_greedy_by_saving_weighs_what_a_move_is_worth():
    losses = np.array([[0.0, 0.1], [0.0, 0.2]])
    costs = np.array([[8.0, 7.0], [8.0, 1.0]])
    start = np.array([0, 0])
    assert list(solve_greedy(losses, costs, 10.0, start)) == [1, 1]
    assert list(solve_greedy(losses, costs, 10.0, start, per_saving=True)) == [0, 1]


@pytest.mark.parametrize("seed", range(10))
def test_greedy_is_never_better_than_the_program(seed):
    losses, [(costs, limit)] = instance(seed, decades=4.0)
    start = np.nanargmin(np.where(np.isfinite(losses), losses, np.inf), axis=1)
    greedy = solve_greedy(losses, costs, limit, start)
    best = solve_ilp(losses, [(costs, limit)])
    if greedy is not None:
        assert fits(greedy, [(costs, limit)])
        assert total(losses, best) <= total(losses, greedy) * (1 + 1e-9)


def test_trying_every_choice_takes_losses_that_do_not_add():
    allowed = np.array([[True, True], [True, False], [True, True]])
    losses = {(0, 0, 0): 5.0, (0, 0, 1): 3.0, (1, 0, 0): 4.0, (1, 0, 1): 9.0}
    found = brute_force(lambda c: losses[tuple(c)], allowed)
    assert tuple(found) == (0, 0, 1)


def test_trying_every_choice_is_refused_where_it_would_not_end():
    with pytest.raises(SearchError, match="262,144 choices"):
        brute_force(lambda c: 0.0, np.ones((18, 2), bool))


def test_the_pareto_curve_drops_beaten_points():
    costs = np.array([3.0, 1.0, 2.0, 2.0, 1.0, 4.0])
    losses = np.array([0.1, 0.9, 0.5, 0.4, 0.9, 0.1])
    assert pareto(costs, losses) == [1, 3, 0]


@pytest.mark.parametrize("seed", range(4))
def test_the_frontier_lies_on_the_curve_of_all_choices(seed):
    losses, [(costs, _)] = instance(seed, groups=5, candidates=3, decades=3.0)
    ranges = [np.flatnonzero(np.isfinite(row)) for row in losses]
    every = [np.array(c) for c in product(*ranges)]
    points = np.array([(total(costs, c), total(losses, c)) for c in every])
    curve = {tuple(every[i]) for i in pareto(*points.T)}
    found = frontier(losses, costs, 9)
    assert len(found) > 2
    assert {tuple(c) for c in found} <= curve
    spent = [total(costs, c) for c in found]
    assert spent == sorted(spent)
    assert spent[0] == points[:, 0].min()


def test_a_missing_solver_is_named_with_its_extra(monkeypatch):
    real = builtins.__import__

    def without_scipy(name, *args, **options):
        if name.startswith("scipy"):
            raise ImportError(name="scipy")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(SearchError, match=r"pip install 'keras_edgeq\[search\]'"):
        solve_ilp(np.ones((2, 2)), [(np.ones((2, 2)), 3.0)])
