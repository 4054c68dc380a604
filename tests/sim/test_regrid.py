import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.qat.learn_ranges import learn_ranges
from keras_edgeq.sim.freeze import all_quantizers, copy_sim
from keras_edgeq.sim.new_ranges import change_bits, own_bits, present_bits, recalibrate

L = tf_keras.layers


@pytest.fixture(scope="module")
def sim():
    tf_keras.utils.set_random_seed(0)
    x = tf_keras.Input((6,), name="x")
    y = L.Dense(5, activation="relu", name="first")(x)
    model = tf_keras.Model(x, L.Softmax(name="last")(L.Dense(3, name="second")(y)))
    values = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    return eq.quantize(model, values, precision={"second": "W4A8"}, progress=False,
                       rules={"activations": "mse"}, profile="litert_w4a8")  # fmt: skip


def test_other_bits_give_what_quantizing_to_them_gives(sim):
    wide = copy_sim(sim)
    change_bits(wide, dict.fromkeys(own_bits(sim), 8))
    wanted = eq.requantize(sim, precision={"*": "W8A8"})
    grids = all_quantizers(wide)
    assert {name: q.encoding.spec.bits for name, q in grids.items()} == present_bits(wide)
    for name, quantizer in all_quantizers(wanted).items():
        assert grids[name].encoding.same_grid(quantizer.encoding), name


def test_going_there_and_back_gives_the_same_grids(sim):
    there = copy_sim(sim)
    change_bits(there, dict.fromkeys(own_bits(sim), 12))
    for name, quantizer in all_quantizers(there).items():
        assert not quantizer.encoding.same_grid(all_quantizers(sim)[name].encoding)
    change_bits(there, own_bits(sim))
    for name, quantizer in all_quantizers(there).items():
        assert quantizer.encoding.same_grid(all_quantizers(sim)[name].encoding), name


@pytest.mark.parametrize("bits", [3, 7, 12])
def test_a_learned_range_keeps_what_it_covers(sim, bits):
    own = learn_ranges(sim)
    for quantizer in all_quantizers(own).values():
        if quantizer.learned is not None:
            quantizer.learned.change.assign_add(0.3 + 0.0 * quantizer.learned.change)
    names = [name for name, q in all_quantizers(own).items() if q.learned is not None]
    before = {name: all_quantizers(own)[name].encoding for name in names}
    change_bits(own, dict.fromkeys(names, bits))
    for name in names:
        old, new = before[name], all_quantizers(own)[name].encoding
        assert new.spec.bits == bits
        np.testing.assert_allclose(new.max, old.max, atol=float(np.max(new.scale)) * 0.51)
        if old.spec.symmetric:
            np.testing.assert_allclose(new.max, old.max, rtol=1e-6)
        else:
            span = new.max - new.min
            np.testing.assert_allclose(span, old.max - old.min, rtol=1e-6)


def test_recalibrating_keeps_present_bits_and_frozen_grids(sim):
    own = copy_sim(sim)
    change_bits(own, {"first/kernel": 6, "first/relu": 9})
    own.keep(frozen=frozenset({"second"}))
    before = {name: q.encoding for name, q in all_quantizers(own).items()}
    stats, values = own.stats, np.random.default_rng(1).normal(size=(32, 6)).astype("float32")
    recalibrate(own, [[2.0 * values]])
    after = {name: q.encoding for name, q in all_quantizers(own).items()}
    assert present_bits(own) == {name: grid.spec.bits for name, grid in before.items()}
    assert after["second"].same_grid(before["second"])
    assert after["first/relu"].scale > before["first/relu"].scale
    assert own.stats is stats
    assert own.record.frozen == {"second"}


def test_grids_without_numbers_are_named(sim):
    own = copy_sim(sim)
    own.quantizers()["x"].start.assign(0.0)
    with pytest.raises(CalibrationDataError, match="'x'"):
        present_bits(own)
