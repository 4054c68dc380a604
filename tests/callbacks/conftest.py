import pytest

from keras_edgeq.qat.learn_ranges import learn_ranges
from tests.callbacks.training import small_sim


@pytest.fixture(scope="session")
def sim():
    """A sim of 4-bit weights and 8-bit activations; train copies of it."""
    return small_sim("litert_w4a8")


@pytest.fixture(scope="session")
def normed():
    """The same model, whose batch norms train."""
    return small_sim("litert_w4a8", batch_norm="train")


@pytest.fixture(scope="session")
def learning(sim):
    """The same with learned ranges."""
    return learn_ranges(sim)
