import json

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import EncodingsError, ProfileError
from keras_edgeq.export.encodings import keras_encodings
from keras_edgeq.sim.derive import derive, raise_scales
from keras_edgeq.sim.freeze import all_quantizers
from tests.harness import assert_same_sim, saved_and_loaded
from tests.models import inputs_for, make, train_like

L = tf_keras.layers


def named():
    x = tf_keras.Input((6, 6, 3), name="image")
    y = L.ReLU(name="re_lu")(L.Conv2D(4, 1, name="conv_a")(x))
    y = L.Add(name="skip")([L.Conv2D(4, 1, name="conv_b")(y), y])
    return train_like(tf_keras.Model(x, L.Dense(2, name="scores")(L.Flatten(name="flat")(y))))


@pytest.fixture(scope="module")
def calibrated():
    model = named()
    x = inputs_for(model)
    other = eq.quantize(model, 3.0 * x, "qnn_w8a8", progress=False)
    return eq.quantize(model, x, "qnn_w8a8", progress=False), other.stats


def scales(sim):
    return {name: q.encoding.scale.copy() for name, q in all_quantizers(sim).items()}


def recalibrate(sim, stats):
    """Give a sim other weights and statistics, and every grid anew."""
    for layer in sim.quantized_layers().values():
        layer.layer.set_weights([2.0 * w for w in layer.layer.get_weights()])
    derive(sim, stats)


def changed(before, after):
    return {name for name in before if not np.array_equal(before[name], after[name])}


def test_a_new_calibration_changes_all_grids_but_the_frozen(calibrated):
    sim, stats = calibrated
    patterns = ("conv_b/*", "re_*", "skip")
    frozen = eq.freeze_encodings(sim, *patterns)
    assert frozen.record.frozen == {"conv_b/kernel", "re_lu", "skip"}
    assert sim.record.frozen == frozenset()
    before, free = scales(frozen), eq.freeze_encodings(sim)
    recalibrate(frozen, stats)
    recalibrate(free, stats)
    moved = changed(before, scales(free))
    assert {"image", "skip", "conv_a/kernel", "conv_b/kernel"} <= moved
    assert changed(before, scales(frozen)) == moved - frozen.record.frozen
    assert not changed(before, scales(sim))


def test_floors_of_dead_channels_leave_frozen_scales_alone():
    model = make("dead_channel")
    sim = eq.quantize(model, inputs_for(model), progress=False)
    (name,) = sim.record.floored
    kernel = next(n for n in all_quantizers(sim) if n.startswith(f"{name}/"))
    frozen = eq.freeze_encodings(sim, kernel)
    quantizer = all_quantizers(frozen)[kernel]
    quantizer.start.assign(quantizer.scale * 1e-3)
    before = quantizer.scale.numpy()
    assert raise_scales(frozen) == {}
    np.testing.assert_array_equal(before, quantizer.scale.numpy())


def test_freezing_adds_up_and_survives_saving(calibrated):
    sim, _ = calibrated
    frozen = eq.freeze_encodings(eq.freeze_encodings(sim, "image"), "skip")
    assert frozen.record.frozen == {"image", "skip"}
    assert_same_sim(frozen, saved_and_loaded(frozen))


@pytest.mark.parametrize(
    ("freeze", "wanted"),
    [
        (True, None),
        ("conv*", {"conv_a/kernel", "conv_b/kernel", "conv_b"}),
        (["image", "skip"], {"image", "skip"}),
        (False, set()),
    ],
)
def test_loaded_grids_can_be_frozen(freeze, wanted, calibrated, tmp_path):
    sim, _ = calibrated
    path = tmp_path / "grids.json"
    path.write_text(json.dumps(keras_encodings(sim, "0.6.1")))
    loaded = eq.load_encodings(sim, path, freeze=freeze)
    assert loaded.record.frozen == (set(all_quantizers(sim)) if wanted is None else wanted)


def test_a_pattern_without_a_tensor_is_an_error(calibrated, tmp_path):
    sim, _ = calibrated
    with pytest.raises(EncodingsError, match="'conv9'"):
        eq.freeze_encodings(sim, "image", "conv9")
    path = tmp_path / "grids.json"
    path.write_text(json.dumps(keras_encodings(sim)))
    with pytest.raises(EncodingsError, match="'conv9'"):
        eq.load_encodings(sim, path, freeze=["conv9"])


def test_a_grid_that_is_not_there_cannot_be_frozen(calibrated):
    sim = eq.freeze_encodings(calibrated[0])
    sim.quantizers()["skip"].start.assign(0.0)
    with pytest.raises(EncodingsError, match=r"'skip'.*no grid"):
        eq.freeze_encodings(sim, "skip")


def test_requantize_keeps_what_is_frozen(calibrated, tmp_path):
    sim, _ = calibrated
    document = keras_encodings(sim, "0.6.1")
    for channel in document["param_encodings"]["conv_a/kernel"]:
        channel.update(bitwidth=4, offset=-8, scale=17.0 * channel["scale"])
    path = tmp_path / "grids.json"
    path.write_text(json.dumps(document))
    loaded = eq.load_encodings(sim, path, freeze="conv_a/kernel")
    frozen = eq.freeze_encodings(loaded, "re_lu")
    again = eq.requantize(frozen, rules={"activations": "percentile", "weights": "mse"})
    assert again.record.frozen == {"conv_a/kernel", "re_lu"}
    moved = changed(scales(frozen), scales(again))
    assert moved
    assert not moved & again.record.frozen
    assert all_quantizers(again)["conv_a/kernel"].encoding.spec.bits == 4
    plan = {str(ref): spec.bits for ref, spec in again.record.plan.specs.items()}
    assert (plan["conv_a/kernel"], plan["conv_b/kernel"]) == (4, 8)


def test_requantize_refuses_another_grid_for_a_frozen_tensor(calibrated):
    frozen = eq.freeze_encodings(calibrated[0], "conv_a/kernel")
    with pytest.raises(ProfileError, match=r"'conv_a/kernel' is frozen"):
        eq.requantize(frozen, precision={"conv_a": "W4A8"})
    assert eq.requantize(frozen, precision={"conv_b": "W4A8"}).record.frozen == {"conv_a/kernel"}
