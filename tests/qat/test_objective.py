import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import TrainingError
from keras_edgeq.qat import Distillation
from keras_edgeq.qat.objective import Objective, is_categorical, label_losses

RNG = np.random.default_rng(0)
OURS, THEIRS = (np.float32(RNG.normal(size=(5, 4)) * 2.0) for _ in range(2))
LABELS = np.array([0, 3, 1, 1, 2])
losses = tf_keras.losses


def softmax(logits):
    e = np.exp(np.float64(logits) - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def terms(distillation, kinds=("kl",), features=((), ()), loss=None, labels=None, weights=None):
    objective = Objective(("y",), label_losses(loss, ["y"]), kinds, distillation)
    made = ([OURS], [OURS], features[0])
    result = objective.terms(made, ([THEIRS], features[1]), labels, weights)
    return {name: term.numpy() for name, term in result.items()}


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_outputs_of_classes_are_compared_by_the_divergence_of_softened_probabilities(temperature):
    found = terms(Distillation(temperature=temperature, weight=0.5))["teacher_loss"]
    t, s = softmax(THEIRS / temperature), softmax(OURS / temperature)
    wanted = 0.5 * temperature**2 * np.sum(t * np.log(t / s), axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_at_high_temperature_the_divergence_becomes_the_squared_difference_of_centred_logits():
    found = terms(Distillation(temperature=50.0))["teacher_loss"]
    centred = OURS - OURS.mean(1, keepdims=True) - THEIRS + THEIRS.mean(1, keepdims=True)
    # Hinton et al. 2015, section 2.1: T^2 KL -> sum of squares / (2 N).
    np.testing.assert_allclose(found, np.sum(centred**2, axis=1) / 8.0, rtol=0.05)


def test_other_outputs_are_compared_by_squares():
    found = terms(Distillation(), kinds=("mse",))["teacher_loss"]
    np.testing.assert_allclose(found, np.mean((OURS - THEIRS) ** 2, axis=1), rtol=1e-6)


def test_features_are_compared_relative_to_the_teachers_norm():
    ours, theirs = (np.float32(RNG.normal(size=(5, 3, 2))) for _ in range(2))
    theirs[2] = 0.0
    found = terms(Distillation(outputs="none", feature_weight=2.0), ("none",), ([ours], [theirs]))
    norms = np.sum(theirs**2, (1, 2))
    norms[2] = np.inf
    wanted = 2.0 * np.sum((ours - theirs) ** 2, (1, 2)) / norms
    assert set(found) == {"feature_loss"}
    np.testing.assert_allclose(found["feature_loss"], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        (losses.SparseCategoricalCrossentropy(from_logits=True), LABELS),
        (losses.SparseCategoricalCrossentropy(from_logits=True), LABELS[:, None]),
        (losses.CategoricalCrossentropy(from_logits=True), np.eye(4)[LABELS]),
        (losses.MeanSquaredError(reduction="sum"), np.float32(np.eye(4)[LABELS])),
        ("mean_absolute_error", np.float32(np.eye(4)[LABELS])),
        (lambda y, p: tf.square(y - p), np.float32(np.eye(4)[LABELS])),
    ],
)
def test_the_loss_on_labels_is_that_of_keras_whatever_its_reduction(loss, labels):
    weights = np.float32([0.0, 1.0, 2.0, 0.5, 1.5])
    found = terms(Distillation(), ("none",), loss=loss, labels=labels, weights=weights)[
        "label_loss"
    ]
    model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.ReLU(negative_slope=1.0)])
    if isinstance(loss, losses.Loss):
        loss = type(loss).from_config({**loss.get_config(), "reduction": "auto"})
    model.compile(loss=loss)
    wanted = model.evaluate(OURS, labels, sample_weight=weights, verbose=0)
    np.testing.assert_allclose(found.mean(), wanted, rtol=1e-5)


def test_labels_of_one_number_meet_outputs_of_one_column():
    loss = label_losses("mean_squared_error", ["y"])[0]
    assert loss is not None
    outputs = tf.constant([[1.0], [2.0]])
    np.testing.assert_array_equal(loss(np.float32([1.0, 4.0]), outputs), [0.0, 4.0])


def test_each_output_has_its_own_loss_by_name_or_in_order():
    assert [one is None for one in label_losses({"b": "mse"}, ["a", "b"])] == [True, False]
    assert None not in label_losses(["mse", "mae"], ["a", "b"])
    with pytest.raises(TrainingError, match=r"names outputs \['c'\]"):
        label_losses({"c": "mse"}, ["a", "b"])
    with pytest.raises(TrainingError, match="gives 1 losses"):
        label_losses(["mse"], ["a", "b"])


def test_a_loss_on_labels_needs_labels():
    with pytest.raises(TrainingError, match="yields inputs alone"):
        terms(Distillation(), ("none",), loss="mse")


def test_cross_entropies_of_classes_are_known():
    assert is_categorical("sparse_categorical_crossentropy")
    assert is_categorical(losses.CategoricalCrossentropy(from_logits=True))
    assert is_categorical(losses.sparse_categorical_crossentropy)
    assert not is_categorical("mse")
    assert not is_categorical(None)


@pytest.mark.parametrize("wrong", [{"outputs": "cosine"}, {"temperature": 0.0}])
def test_settings_of_distillation_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Distillation(**wrong)
