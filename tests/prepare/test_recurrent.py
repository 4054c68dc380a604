"""Recurrent layers written out: they compute what Keras does, step by step, or say why not."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.ops.cell_layers import CellDense
from keras_edgeq.prepare import prepare
from keras_edgeq.prepare.recurrent import UNROLLED, unrolled, why_rolled
from tests.short import short

L = tf_keras.layers
STEPS, FEATURES, UNITS = 4, 3, 5


def _on_sequence(layer, *around):
    x = tf_keras.Input((STEPS, FEATURES))
    y = x
    for one in (*around, layer):
        y = one(y)
    return tf_keras.Model(x, y)


def _with_states(layer, *sizes, masked=False):
    x, states = tf_keras.Input((STEPS, FEATURES)), [tf_keras.Input((n,)) for n in sizes]
    y = L.Masking()(x) if masked else x
    return tf_keras.Model([x, *states], layer(y, initial_state=states))


def _both(layer, mode):
    return _on_sequence(L.Bidirectional(layer, merge_mode=mode))


def _twice():
    x, layer = tf_keras.Input((STEPS, FEATURES)), L.LSTM(FEATURES, return_sequences=True)
    return tf_keras.Model(x, layer(layer(x)))


def _words():
    x = tf_keras.Input((STEPS,))
    return tf_keras.Model(x, L.LSTM(UNITS)(L.Embedding(7, 4, mask_zero=True)(x)))


SEQUENCES, STATES = {"return_sequences": True}, {"return_state": True}
MODELS = {
    "lstm": lambda: _on_sequence(L.LSTM(UNITS)),
    "lstm sequences": lambda: _on_sequence(L.LSTM(UNITS, **SEQUENCES, unit_forget_bias=False)),
    "lstm without bias": lambda: _on_sequence(L.LSTM(UNITS, use_bias=False)),
    "lstm backward": lambda: _on_sequence(L.LSTM(UNITS, **SEQUENCES, go_backwards=True)),
    "lstm states": lambda: _on_sequence(L.LSTM(UNITS, **SEQUENCES, **STATES)),
    "lstm from states": lambda: _with_states(L.LSTM(UNITS, **STATES), UNITS, UNITS),
    "lstm hard sigmoid": lambda: _on_sequence(L.LSTM(UNITS, recurrent_activation="hard_sigmoid")),
    "lstm swish": lambda: _on_sequence(L.LSTM(UNITS, activation="swish")),
    "lstm linear": lambda: _on_sequence(L.LSTM(UNITS, activation=None)),
    "lstm dropout": lambda: _on_sequence(L.LSTM(UNITS, dropout=0.2, recurrent_dropout=0.2)),
    "lstm twice": _twice,
    "lstm unrolled": lambda: _on_sequence(L.LSTM(UNITS, implementation=1, unroll=True)),
    "gru": lambda: _on_sequence(L.GRU(UNITS)),
    "gru before": lambda: _on_sequence(L.GRU(UNITS, reset_after=False, **SEQUENCES)),
    "gru without bias": lambda: _on_sequence(L.GRU(UNITS, use_bias=False)),
    "gru from state": lambda: _with_states(L.GRU(UNITS, **SEQUENCES, **STATES), UNITS),
    "simple": lambda: _on_sequence(L.SimpleRNN(UNITS, activation="relu", **SEQUENCES)),
    "cell": lambda: _on_sequence(L.RNN(L.LSTMCell(UNITS), **SEQUENCES)),
    "cells": lambda: _on_sequence(L.RNN([L.LSTMCell(UNITS), L.GRUCell(4)], **STATES)),
    "cells backward": lambda: _on_sequence(
        L.RNN([L.GRUCell(UNITS), L.SimpleRNNCell(4)], go_backwards=True, **SEQUENCES)
    ),
    "cells reversed": lambda: _on_sequence(
        L.RNN(L.StackedRNNCells([L.GRUCell(4), L.GRUCell(4)], reverse_state_order=True), **STATES)
    ),
    "both": lambda: _both(L.LSTM(UNITS, **SEQUENCES), "concat"),
    "both sum": lambda: _both(L.GRU(UNITS), "sum"),
    "both ave": lambda: _both(L.GRU(UNITS, **SEQUENCES), "ave"),
    "both mul": lambda: _both(L.SimpleRNN(UNITS), "mul"),
    "both apart": lambda: _both(L.LSTM(UNITS, **STATES), None),
    "both states": lambda: _both(L.GRU(UNITS, **SEQUENCES, **STATES), "concat"),
    "both from states": lambda: _with_states(L.Bidirectional(L.GRU(UNITS)), UNITS, UNITS),
    "masked": lambda: _on_sequence(L.LSTM(UNITS, **SEQUENCES), L.Masking()),
    "masked last": _words,
    "masked zero": lambda: _on_sequence(
        L.LSTM(UNITS, **SEQUENCES, zero_output_for_mask=True), L.Masking()
    ),
    "masked from states": lambda: _with_states(
        L.LSTM(UNITS, **SEQUENCES, **STATES), UNITS, UNITS, masked=True
    ),
    "masked both": lambda: _on_sequence(L.Bidirectional(L.GRU(UNITS, **SEQUENCES)), L.Masking()),
    "masked cells": lambda: _on_sequence(
        L.RNN([L.LSTMCell(UNITS), L.GRUCell(4)], **SEQUENCES), L.Masking()
    ),
}
SHORT = ("lstm", "gru", "gru before", "cells", "masked from states", "masked zero", "lstm twice")


def _trained(model):
    """Give a model weights as of training, biases included."""
    random = np.random.default_rng(0)
    noise = (0.3 * random.normal(size=w.shape) for w in model.get_weights())
    model.set_weights([w + n for w, n in zip(model.get_weights(), noise, strict=True)])
    return model


def _data(model):
    random = np.random.default_rng(1)
    made = []
    for tensor in model.inputs:
        values = random.normal(size=(6, *tensor.shape[1:])).astype(np.float32)
        if tensor.shape.rank == 3:
            values[random.random((6, STEPS)) < 0.4] = 0.0  # what Masking masks
        made.append(np.abs(values * 3).astype(np.int32) if "embedding" in model.layers[1].name
                    else values)  # fmt: skip
    return made


@pytest.mark.parametrize("name", short(MODELS, *SHORT))
def test_a_recurrent_layer_written_out_computes_what_keras_does(name):
    model = _trained(MODELS[name]())
    made = prepare(model)
    assert not any(type(layer) in UNROLLED for layer in made.layers)
    inputs = _data(model)
    for wanted, got in zip(
        tf.nest.flatten(model(inputs)), tf.nest.flatten(made(inputs)), strict=True
    ):
        np.testing.assert_allclose(got, wanted, atol=2e-6)


def test_parts_are_called_once_per_step_and_trained_as_the_layer():
    layer = L.LSTM(UNITS, kernel_regularizer="l2", trainable=False)
    made = unrolled(_on_sequence(layer))
    recurrent = made.get_layer(f"{layer.name}/gates_recurrent")
    assert isinstance(recurrent, CellDense)
    assert not recurrent.trainable
    assert len(recurrent.inbound_nodes) == STEPS - 1  # the first state is 0
    kernel = made.get_layer(f"{layer.name}/gates_kernel")
    assert len(kernel.inbound_nodes) == 1
    assert kernel.kernel_regularizer is not None


class Peephole(L.LSTMCell):
    """A cell of the user's."""


def _why(layer, shape=(STEPS, FEATURES)):
    x = tf_keras.Input(shape)
    layer(x)
    return why_rolled(layer, (x,), {})


@pytest.mark.parametrize(
    ("layer", "shape", "why"),
    [
        (lambda: L.LSTM(2), (200, 3), "200 steps; up to 128 are unrolled"),
        (lambda: L.GRU(2), (None, 3), "its number of steps is not known"),
        (lambda: L.LSTM(2, time_major=True), (STEPS, 3), "time_major=True"),
        (lambda: L.LSTM(2, activation=L.LeakyReLU()), (STEPS, 3), "its activation is a layer"),
        (
            lambda: L.LSTM(2, kernel_regularizer="orthogonal_regularizer"),
            (STEPS, 3),
            "its kernel_regularizer is not one of L1, L2 and L1L2",
        ),
        (
            lambda: L.RNN(Peephole(2)),
            (STEPS, 3),
            "its cell is a Peephole",
        ),
        (lambda: L.Bidirectional(L.ConvLSTM1D(2, 1)), (STEPS, 3, 2), "it holds a ConvLSTM1D"),
        (lambda: L.LSTM(2), (128, 3), None),
    ],
)
def test_a_layer_that_stays_says_why(layer, shape, why):
    got = _why(layer(), shape)
    assert got is None if why is None else why in got
