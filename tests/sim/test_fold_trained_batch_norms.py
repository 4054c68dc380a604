"""A sim whose batch norms train computes the integers that it computes once they are folded."""

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.numerics.metrics import sqnr_db
from keras_edgeq.sim.reference import float_form
from tests.models import train_like

L = tf_keras.layers
RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(64, 8, 8, 3)).astype(np.float32)
LABELS = RNG.integers(0, 4, 64)


def make_model():
    x = inputs = L.Input((8, 8, 3))
    for i, layer in enumerate((
        L.Conv2D(8, 3, padding="same", name="conv"),
        L.DepthwiseConv2D(3, use_bias=False, name="depthwise"),
        L.Conv2D(6, 1, use_bias=False, name="pointwise"),
        L.Conv2DTranspose(5, 3, name="transposed"),
    )):  # fmt: skip
        x = L.ReLU(6.0 if i % 2 else None)(L.BatchNormalization(name=f"behind_{i}")(layer(x)))
    x = L.Dense(8, name="hidden")(L.GlobalAveragePooling2D()(x))
    x = L.BatchNormalization(name="behind_hidden")(x)
    return train_like(tf_keras.Model(inputs, L.Dense(4, name="head")(x)))


def trained(profile, **options):
    sim = eq.quantize(make_model(), DATA, profile, batch_norm="train", progress=False, **options)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sim.compile(tf_keras.optimizers.Adam(1e-2), loss)
    sim.fit(DATA, LABELS, epochs=2, batch_size=16, verbose=0)
    return sim


SIMS = {
    "litert_w4a8": ("litert_w4a8", {}),
    "litert_int8": ("litert_int8", {}),
    "qnn_w4a8": ("qnn_w4a8", {}),
    "W4A8 on onnxruntime_int8": ("onnxruntime_int8", {"precision": {"*": "W4A8"}}),
}


@pytest.mark.parametrize(
    "name", [next(iter(SIMS)), *(pytest.param(n, marks=pytest.mark.slow) for n in list(SIMS)[1:])]
)
def test_folding_after_training_changes_no_integer(name):
    profile, options = SIMS[name]
    sim = trained(profile, **options)
    wanted, got = sim(DATA).numpy(), eq.fold_batch_norms(sim)(DATA).numpy()
    # Float noise may take a sum of thousands of units over a tie; nothing else differs.
    assert np.mean(wanted == got) > 0.995
    assert sqnr_db(wanted, got) > 45.0


def test_a_batch_norm_is_rounded_to_the_units_it_folds_into():
    sim = eq.quantize(make_model(), DATA, "litert_w4a8", batch_norm="train", progress=False)
    calls = {layer.name: layer.inbound_nodes[0].call_kwargs for layer in sim.layers}
    assert "unit" in calls["behind_0"]
    floats = eq.quantize(make_model(), DATA, "aimet_per_channel", batch_norm="train",
                         progress=False)  # fmt: skip
    assert not any("unit" in layer.inbound_nodes[0].call_kwargs for layer in floats.layers)


def test_a_sim_that_trains_batch_norms_strips_saves_and_loads(tmp_path):
    sim = eq.quantize(make_model(), DATA, "litert_w4a8", batch_norm="train", progress=False)
    eq.save_sim(sim, tmp_path / "sim.keras")
    np.testing.assert_array_equal(eq.load_sim(tmp_path / "sim.keras")(DATA), sim(DATA))
    assert eq.strip(sim)(DATA).shape == (64, 4)


@pytest.mark.slow
def test_the_float_parameters_are_folded_with_the_rounded_ones():
    sim = eq.quantize(make_model(), DATA, "litert_w4a8", batch_norm="train", progress=False)
    rounded = eq.gptq(sim, DATA, progress=False)
    folded = eq.fold_batch_norms(rounded)
    assert folded.reference is not None
    assert folded.record.rounded == rounded.record.rounded
    assert "depthwise/bias" in folded.reference
    before, after = (eq.strip(float_form(one))(DATA).numpy() for one in (rounded, folded))
    assert sqnr_db(before, after) > 100.0
