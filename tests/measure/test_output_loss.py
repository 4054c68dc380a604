"""Losses of outputs against NumPy's own arithmetic."""

import numpy as np
import pytest

from keras_edgeq.measure.output_loss import OutputLoss
from keras_edgeq.numerics.metrics import agreement, sqnr_db

RNG = np.random.default_rng(0)
EXACT, OTHER = RNG.normal(size=(12, 5)), RNG.normal(size=(12, 5))


def softmax(x):
    e = np.exp(x)
    return e / e.sum(-1, keepdims=True)


def total(exact, rounded, parts=3):
    pieces = zip(np.array_split(exact, parts), np.array_split(rounded, parts), strict=True)
    return OutputLoss.total(OutputLoss.of([e], [r]) for e, r in pieces)


def test_noise_and_agreement():
    loss = total(EXACT, OTHER)
    assert loss.sqnr_db == pytest.approx(sqnr_db(EXACT, OTHER))
    assert loss.agreement == pytest.approx(agreement(EXACT, OTHER))


def test_divergence_of_logits_and_of_probabilities():
    p, q = softmax(EXACT), softmax(OTHER)
    wanted = np.mean(np.sum(p * np.log(p / q), -1))
    assert total(EXACT, OTHER).kl == pytest.approx(wanted)
    assert total(p, q).kl == pytest.approx(wanted)
    assert total(EXACT, EXACT).kl == 0.0


def test_a_probability_of_zero_is_no_infinity():
    exact, rounded = np.eye(3), np.roll(np.eye(3), 1, 0)
    assert np.isfinite(total(exact, rounded).kl)


@pytest.mark.parametrize("bits", [8, 16])
def test_classes_that_a_grid_calls_zero_do_not_outweigh_the_others(bits):
    p = softmax(RNG.normal(scale=3.0, size=(40, 1000)))
    rounded = np.round(p * 2**bits) / 2**bits
    other = np.round(softmax(np.log(p) + 0.5 * RNG.normal(size=p.shape)) * 2**bits) / 2**bits
    loss = total(p, rounded)
    assert loss.kl < 0.02
    assert total(p, other).kl > 3 * loss.kl
    assert total(p, rounded, parts=7).kl == pytest.approx(loss.kl, rel=1e-12)


def test_outputs_weigh_alike_whatever_their_size():
    small, large = EXACT * 1e-3, EXACT * 1e3
    loss = OutputLoss.of([small, large], [small * 1.1, large * 1.3])
    assert loss.sqnr == pytest.approx((0.01 + 0.09) / 2)


def test_one_number_per_sample():
    loss = OutputLoss.of([EXACT[:, 0]], [OTHER[:, 0]])
    assert loss.sqnr_db == pytest.approx(sqnr_db(EXACT[:, 0], OTHER[:, 0]))
    assert loss.agreement == 100.0
