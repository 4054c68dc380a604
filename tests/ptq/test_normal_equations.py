"""Least squares over rows against NumPy's own, on the rows themselves."""

import numpy as np
import pytest

from keras_edgeq.ptq.normal_equations import DAMPS, MOST_SHRINKAGE, NormalEquations


def data(count=400, groups=2, inputs=5, outputs=3, noise=0.0, offset=0.0, seed=0):
    """Return rows, the columns behind them, and outputs with a bias."""
    rng = np.random.default_rng(seed)
    mix = np.eye(inputs) + 0.4 * rng.normal(size=(groups, inputs, inputs)) / np.sqrt(inputs)
    rows = rng.normal(size=(groups, count, inputs)) @ mix + offset
    columns = rng.normal(size=(groups, inputs, outputs))
    made = rows @ columns + 0.7 + noise * rng.normal(size=(groups, count, outputs))
    return np.float32(rows), columns, np.float32(made)


def equations(rows, made, centered=True, parts=8):
    found = NormalEquations(centered)
    size = -(-rows.shape[1] // parts)
    for i, start in enumerate(range(0, rows.shape[1], size)):
        some = slice(start, start + size)
        found.add(rows[:, some], made[:, some], i % 2)
    return found


def lstsq(rows, made, centered):
    """Return columns and bias of one group by NumPy, in float64."""
    rows = np.float64(rows)
    if centered:
        rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    best = np.linalg.lstsq(rows, np.float64(made), rcond=None)[0]
    return (best[:-1], best[-1]) if centered else (best, np.zeros(made.shape[1]))


@pytest.mark.parametrize("centered", [True, False])
def test_solution_bias_and_loss_are_those_of_lstsq(centered):
    rows, _, made = data(noise=0.5, offset=1.0)
    problem = equations(rows, made, centered).least_squares()
    columns = problem.solve()
    bias, loss = problem.bias(columns), problem.loss(columns)
    assert bias.shape == (2, 1, 3)
    for g in range(2):
        wanted, constant = lstsq(rows[g], made[g], centered)
        np.testing.assert_allclose(columns[g], wanted, atol=1e-4)
        np.testing.assert_allclose(bias[g, 0], constant, atol=1e-4)
        residual = made[g] - rows[g] @ wanted - constant
        np.testing.assert_allclose(loss[g], np.mean(residual**2, axis=0), rtol=1e-3)


def test_the_bias_makes_any_columns_right_on_average():
    rows, _, made = data(offset=2.0)
    problem = equations(rows, made).least_squares()
    columns = np.random.default_rng(1).normal(size=(2, 5, 3))
    off = made - rows @ columns - problem.bias(columns)
    np.testing.assert_allclose(off.mean(1), 0.0, atol=1e-4)
    np.testing.assert_allclose(problem.loss(columns), np.mean(off**2, axis=1), rtol=1e-3)


def test_damping_is_ridge_regression_around_given_columns():
    rows, _, made = data(count=60, noise=1.0)
    given = np.random.default_rng(2).normal(size=(2, 5, 3))
    damp = np.array([0.3, 4.0])
    got = equations(rows, made, centered=False).least_squares().damped(given, damp).solve()
    for g in range(2):
        level = damp[g] * np.mean(np.square(np.float64(rows[g])))
        ridge = np.sqrt(level * rows.shape[1]) * np.eye(5)
        wanted, _ = lstsq(
            np.concatenate([rows[g], ridge]), np.concatenate([made[g], ridge @ given[g]]), False
        )
        np.testing.assert_allclose(got[g], wanted, rtol=1e-3, atol=1e-4)


def test_the_gain_is_the_best_factor_of_an_output():
    rows, columns, made = data()
    problem = equations(rows, made).least_squares()
    factor = np.array([0.5, 1.0, 1.6])
    np.testing.assert_allclose(
        problem.gain(columns / factor), np.broadcast_to(factor, (2, 1, 3)), rtol=1e-3
    )
    np.testing.assert_array_equal(problem.gain(np.zeros_like(columns)), np.ones((2, 1, 3)))


def test_damping_is_weak_where_the_data_knows_better_and_strong_where_it_is_noise():
    rows, columns, made = data(count=2_000)
    elsewhere = columns + np.random.default_rng(3).normal(size=columns.shape)
    assert equations(rows, made).choose_damp(elsewhere) == DAMPS[0]
    rows, columns, made = data(count=24, inputs=10, noise=20.0)
    assert equations(rows, made).choose_damp(columns) == DAMPS[-1]


def test_one_half_alone_has_nothing_to_judge_by():
    rows, columns, made = data()
    one = equations(rows, made, parts=1)
    assert one.choose_damp(columns) == DAMPS[-1]
    np.testing.assert_allclose(one.shrinkage(), MOST_SHRINKAGE / (1.0 - MOST_SHRINKAGE))
    none = rows[:, :0], made[:, :0]
    one.add(*none, 1)
    assert one.choose_damp(columns) == DAMPS[-1]


def test_much_data_is_shrunk_little_and_few_rows_much():
    few, many = (equations(*data(count=count, inputs=20)[::2]).shrinkage() for count in (24, 8_000))
    assert few.shape == many.shape == (2,)
    assert (many < 0.02).all()
    assert (few > 20 * many).all()
    assert (few <= MOST_SHRINKAGE / (1.0 - MOST_SHRINKAGE)).all()


def test_shrinkage_comes_close_to_the_truth_where_few_rows_do_not():
    rng = np.random.default_rng(0)
    rows = np.float32(rng.normal(size=(1, 40, 30)) * rng.uniform(0.5, 1.5, 30))
    truth = np.diag(np.var(rng.normal(size=(100_000, 30)) * 1.0, axis=0))
    found = equations(rows, rows[:, :, :1], centered=False)
    problem = found.least_squares()
    share = found.shrinkage()
    shrunk = problem.damped(np.zeros((1, 30, 1)), share).gram / (1.0 + share)
    assert np.sum((shrunk - truth) ** 2) < 0.6 * np.sum((problem.gram - truth) ** 2)


@pytest.mark.parametrize("constant", [3.3, 1234.567])
def test_an_input_that_never_changes_keeps_the_given_columns(constant):
    rows = np.full((2, 3_000, 9), constant, np.float32)
    rows[1] = 0.0
    columns = np.random.default_rng(0).normal(size=(2, 9, 1))
    made = np.float32(rows @ columns)
    found = equations(rows, made)
    damped = found.least_squares().damped(columns, np.maximum(found.shrinkage(), 0.01))
    np.linalg.cholesky(np.linalg.inv(damped.gram))
    np.testing.assert_allclose(damped.solve(), columns, atol=1e-6)
