import numpy as np
import pytest
import tf_keras

from keras_edgeq.prepare import prepare, prepared_form
from keras_edgeq.spec.tensor_ref import TensorRef
from tests.models import Input, make, train_like

L = tf_keras.layers


def known(model):
    return prepared_form(model).known


def made_by(layer):
    gamma, beta, _, variance = (np.float64(w) for w in layer.get_weights())
    return beta, np.abs(gamma) * np.sqrt(variance / (variance + layer.epsilon))


@pytest.mark.parametrize("hazard", ["residual", "nested_twice", "separable", "batch_norm_first"])
def test_statistics_do_not_change_what_prepare_makes(hazard):
    model = make(hazard)
    prepared = prepared_form(model).model
    plain = prepare(model)
    assert [layer.name for layer in prepared.layers] == [layer.name for layer in plain.layers]
    for a, b in zip(prepared.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_folded_layer_makes_what_its_last_batch_norm_made():
    x = Input((6, 6, 2))
    y = L.BatchNormalization(name="first")(L.Conv2D(3, 3, name="conv")(x))
    model = train_like(tf_keras.Model(x, L.BatchNormalization(name="second")(y)))
    moments = known(model).made["conv"]
    mean, deviation = made_by(model.get_layer("second"))
    np.testing.assert_allclose(moments.mean, mean)
    np.testing.assert_allclose(moments.deviation, deviation)


def test_a_batch_norm_without_scale_and_center_makes_a_standard_normal():
    x = Input((6,))
    norm = L.BatchNormalization(scale=False, center=False, name="norm")
    moments = known(tf_keras.Model(x, norm(L.Dense(3, name="dense")(x)))).made["dense"]
    np.testing.assert_array_equal(moments.mean, np.zeros(3))
    np.testing.assert_allclose(moments.deviation, np.ones(3), rtol=1e-3)


def test_a_dead_channel_is_constant_whatever_its_gamma():
    x = Input((6,))
    norm = L.BatchNormalization(name="norm")
    model = tf_keras.Model(x, norm(L.Dense(2, name="dense")(x)))
    norm.set_weights([np.ones(2), np.full(2, 0.5), np.zeros(2), np.array([0.0, 1.0])])
    np.testing.assert_allclose(known(model).made["dense"].deviation, [0.0, 1.0], atol=1e-3)


def test_a_forward_fold_tells_of_the_input_and_not_of_the_output():
    model = make("forward_conv")
    statistics = known(model)
    norm = model.get_layer("norm")
    (relu,) = (layer.name for layer in model.layers if isinstance(layer, L.ReLU))
    assert "conv" not in statistics.made
    moments = statistics.seen[TensorRef(relu)]
    np.testing.assert_allclose(moments.mean, norm.moving_mean)
    np.testing.assert_allclose(moments.deviation, np.sqrt(norm.moving_variance))


def test_what_is_seen_of_a_concat_is_seen_of_its_parts():
    x = Input((4,), name="x")
    parts = [L.Dense(2, name="two")(x), L.Dense(3, name="three")(x)]
    joined = L.Dropout(0.5)(L.Concatenate(name="joined")(parts))
    model = train_like(tf_keras.Model(x, L.ReLU()(L.BatchNormalization(name="norm")(joined))))
    seen, mean = known(model).seen, model.get_layer("norm").moving_mean.numpy()
    np.testing.assert_allclose(seen[TensorRef("two")].mean, mean[:2])
    np.testing.assert_allclose(seen[TensorRef("three")].mean, mean[2:])


def test_inputs_are_known_from_their_preprocessing():
    statistics = known(make("preprocessing"))
    table = statistics.seen[TensorRef("table")]
    norm = make("preprocessing").get_layer("normalize")
    np.testing.assert_allclose(table.mean, np.ravel(norm.mean))
    np.testing.assert_allclose(table.deviation, np.sqrt(np.ravel(norm.variance)))
    x = Input((4, 4, 3), name="image")
    y = L.Conv2D(2, 1)(L.Rescaling(1 / 127.5, offset=-1)(x))
    assert known(tf_keras.Model(x, y)).ranges == {"image": (0.0, 255.0)}


def test_a_rescaling_that_is_not_of_pixels_tells_nothing():
    assert known(make("preprocessing")).ranges == {}
