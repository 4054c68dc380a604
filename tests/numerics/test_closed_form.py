"""Rounding of a matrix against the best of all roundings, found by trying each."""

import itertools

import numpy as np
import pytest

from keras_edgeq.numerics.closed_form import BLOCK, Grid, descend, error, round_forward

INPUTS = 4


def problem(seed, groups=1, inputs=INPUTS, outputs=3, correlation=0.9):
    """Return columns and the Gram matrix of correlated inputs."""
    rng = np.random.default_rng(seed)
    shared = np.sqrt(correlation) * rng.normal(size=(groups, 256, 1))
    rows = shared + np.sqrt(1.0 - correlation) * rng.normal(size=(groups, 256, inputs))
    rows *= rng.uniform(0.5, 2.0, (groups, 1, inputs))
    gram = np.swapaxes(rows, 1, 2) @ rows / 256
    return rng.normal(size=(groups, inputs, outputs)), gram


def squared(column, rounded, gram):
    """The error from its definition, number by number."""
    d = np.asarray(rounded) - column
    return sum(d[i] * gram[i, j] * d[j] for i in range(len(d)) for j in range(len(d)))


def best(columns, gram, grid):
    """Return the least error of each output over all roundings."""
    least = np.zeros(columns[..., 0, :].shape)
    for g, o in np.ndindex(least.shape):
        scale, low, high = (
            np.broadcast_to(v, (len(columns), 1, columns.shape[2]))[g, 0, o]
            for v in (grid.scale, grid.low, grid.high)
        )
        points = scale * np.arange(low, high + 1)
        tried = itertools.product(points, repeat=columns.shape[1])
        least[g, o] = min(squared(columns[g, :, o], q, gram[g]) for q in tried)
    return least


def assert_on_grid(values, grid):
    integers = values / grid.scale
    np.testing.assert_allclose(integers, np.rint(integers), atol=1e-9)
    assert (np.rint(integers) >= grid.low).all()
    assert (np.rint(integers) <= grid.high).all()


def test_the_error_is_the_definition():
    columns, gram = problem(0, groups=2)
    rounded = np.rint(columns)
    wanted = [
        [squared(columns[g, :, o], rounded[g, :, o], gram[g]) for o in range(3)] for g in range(2)
    ]
    np.testing.assert_allclose(error(columns, rounded, gram), wanted)


@pytest.mark.parametrize(("low", "high"), [(-2, 1), (-1, 1), (0, 3)])
def test_no_rounding_beats_the_best_and_descent_never_loses(low, high):
    for seed in range(6):
        columns, gram = problem(seed)
        grid = Grid(np.array([[[0.5, 0.8, 1.1]]]), low, high)
        least, nearest = best(columns, gram, grid), grid.nearest(columns)
        forward = round_forward(columns, gram, grid)
        for start in (nearest, forward, np.full_like(columns, high) * grid.scale):
            end = descend(columns, start, gram, grid)
            assert_on_grid(end, grid)
            assert (error(columns, end, gram) <= error(columns, start, gram) + 1e-12).all()
            assert (error(columns, end, gram) >= least - 1e-12).all()
            # Where it stopped, no single step of one element helps.
            settled = descend(columns, start, gram, grid, sweeps=50)
            for i, step in itertools.product(range(INPUTS), (-1, 1)):
                moved = settled.copy()
                moved[:, i] = np.clip(moved[:, i] / grid.scale[:, 0] + step, low, high)
                moved[:, i] *= grid.scale[:, 0]
                assert (error(columns, moved, gram) >= error(columns, settled, gram) - 1e-12).all()


def test_on_correlated_inputs_moving_errors_on_beats_the_nearest():
    grid, found = Grid(np.full((1, 1, 1), 0.6), -2, 1), []
    for seed in range(20):
        columns, gram = problem(seed, inputs=24)
        columns = np.clip(columns, -1.2, 0.6)
        forward = round_forward(columns, gram, grid)
        assert_on_grid(forward, grid)
        ends = (grid.nearest(columns), forward, descend(columns, forward, gram, grid))
        found.append([error(columns, end, gram).sum() for end in ends])
    nearest, forward, both = np.sum(found, axis=0)
    assert forward < 0.5 * nearest
    assert both < forward


def test_the_next_input_takes_over_the_error_by_hand():
    # Twin inputs of gram [[1, 1], [1, 1]] but for a ridge: 0.4 + 0.4 is best made as 0 + 1.
    gram, grid = np.array([[[1.01, 1.0], [1.0, 1.0]]]), Grid(np.ones((1, 1, 1)), -8, 7)
    rounded = round_forward(np.full((1, 2, 1), 0.4), gram, grid)
    np.testing.assert_array_equal(rounded[0, :, 0], [0.0, 1.0])


@pytest.mark.parametrize("method", ["forward", "descend"])
def test_groups_and_outputs_do_not_touch_each_other(method):
    columns, gram = problem(3, groups=3, inputs=6)
    scale = np.random.default_rng(0).uniform(0.2, 0.6, (3, 1, 3))
    low = np.array([-2.0, -1.0, 0.0]).reshape(1, 1, 3)

    def run(g, o):
        grid = Grid(scale[g, :, o], low[:, :, o], low[:, :, o] + 3)
        if method == "forward":
            return round_forward(columns[g, :, o], gram[g], grid)
        return descend(columns[g, :, o], grid.nearest(columns[g, :, o]), gram[g], grid)

    together = run(slice(None), slice(None))
    assert_on_grid(together, Grid(scale, low, low + 3))
    for g, o in np.ndindex(3, 3):
        alone = run(slice(g, g + 1), slice(o, o + 1))
        np.testing.assert_array_equal(together[g : g + 1, :, o : o + 1], alone)


def test_more_inputs_than_a_block_are_rounded_as_one_matrix(monkeypatch):
    columns, gram = problem(5, inputs=BLOCK + 9, outputs=2)
    gram += 0.01 * np.eye(BLOCK + 9)
    grid = Grid(np.full((1, 1, 1), 0.4), -4, 3)
    parts = [round_forward(columns, gram, grid)]
    parts.append(descend(columns, parts[0], gram, grid))
    monkeypatch.setattr("keras_edgeq.numerics.closed_form.BLOCK", 10_000)
    whole = [round_forward(columns, gram, grid)]
    whole.append(descend(columns, whole[0], gram, grid))
    np.testing.assert_allclose(parts, whole, atol=1e-9)
    assert error(columns, parts[1], gram).sum() < error(columns, parts[0], gram).sum()


def test_what_lies_on_the_grid_stays():
    _, gram = problem(7)
    grid = Grid(np.full((1, 1, 1), 0.25), -8, 7)
    columns = 0.25 * np.random.default_rng(1).integers(-8, 8, (1, INPUTS, 3))
    np.testing.assert_allclose(round_forward(columns, gram, grid), columns, atol=1e-12)
    np.testing.assert_array_equal(descend(columns, columns, gram, grid), columns)
