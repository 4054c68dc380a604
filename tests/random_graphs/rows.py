"""What a row of the table is, and the words it is written in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from random import Random
from typing import Any

import numpy as np
import tensorflow as tf

# A symbolic tensor, of tf_keras or Keras 3.
Tensor = Any


def nothing(chance: Random, x: Tensor) -> dict[str, Any]:
    """Draw no options."""
    del chance, x
    return {}


@dataclass(frozen=True)
class Row:
    """One operation as users write it.

    Args:
        make: `(options, name)` -> what is called on tensors.
        takes: whether it takes a tensor first.
        draw: options for that tensor.
        pairs: whether it takes a second tensor beside the first; None where it reads one.
        most: how many tensors it reads at most.
        weight: how often it is drawn beside other rows.
        chains: a Keras layer of one input, which a Sequential model can hold.
    """

    make: Callable[[dict[str, Any], str], Callable]
    takes: Callable[[Tensor], bool]
    draw: Callable[[Random, Tensor], dict[str, Any]] = nothing
    pairs: Callable[[Tensor, Tensor], bool] | None = None
    most: int = 2
    weight: float = 1.0
    chains: bool = False


# Activations as users give them, by the text that stands for them in options, of a Keras.
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "tf.nn.relu": lambda K: tf.nn.relu,
    "tf.nn.relu6": lambda K: tf.nn.relu6,
    "tf.nn.silu": lambda K: tf.nn.silu,
    "tf.nn.leaky_relu": lambda K: tf.nn.leaky_relu,
    "tf.nn.tanh": lambda K: tf.nn.tanh,
    "tf.nn.softmax": lambda K: tf.nn.softmax,
    "tf.sigmoid": lambda K: tf.sigmoid,
    "activations.relu": lambda K: K.activations.relu,
    "ReLU": lambda K: K.layers.ReLU(),
    "ReLU 6": lambda K: K.layers.ReLU(6.0),
    "LeakyReLU": lambda K: K.layers.LeakyReLU(0.1),
}
NAMED = (
    "linear", "relu", "relu6", "leaky_relu", "sigmoid", "tanh", "softmax", "swish", "silu", "gelu",
    "elu", "selu", "softplus", "softsign", "hard_sigmoid", "mish",
)  # fmt: skip


def layer(cls: Callable, takes, draw=nothing, *, listed: bool = False, **rest: Any) -> Row:
    """Return the row of a Keras layer; options are its arguments, activations as texts."""

    def make(options, name):
        given = dict(options)
        if given.get("activation") in FUNCTIONS:
            given["activation"] = FUNCTIONS[given["activation"]](keras_of(cls))
        made = cls(**given, name=name)
        return (lambda *xs: made(list(xs))) if listed else made

    return Row(make, takes, draw, **{"chains": not listed and "pairs" not in rest, **rest})


def keras_of(cls: Any) -> Any:
    """Return the Keras that a layer is from."""
    return import_module(cls.__module__.partition(".")[0])


def rank(x: Tensor) -> int:
    """Return how many axes a tensor has."""
    return len(x.shape)


def is_of(x: Tensor, *dtypes: str) -> bool:
    """Tell whether a tensor has one of these types."""
    return tf.as_dtype(x.dtype).name in dtypes


def spelled(function: Callable, names: str, takes, draw=nothing, *, listed=False, **rest) -> Row:
    """Return the row of a function, called by position, by keyword, or the tensors by position.

    Args:
        function: of TensorFlow.
        names: its arguments in order, the tensors first.
        takes: as in `Row`.
        draw: as in `Row`.
        listed: the first argument is the list of all tensors.
        rest: as in `Row`.
    """
    order = names.split()

    def make(options, name):
        del name
        how = options.get("how", "mixed")
        given = {k: v for k, v in options.items() if k != "how"}

        def call(*xs):
            tensors = [list(xs)] if listed else list(xs)
            values = {**dict(zip(order, tensors, strict=False)), **given}
            leading = 0
            while leading < len(order) and order[leading] in values:
                leading += 1
            count = {"position": leading, "mixed": len(tensors), "keyword": 0}[how]
            args = [values.pop(key) for key in order[:count]]
            return function(*args, **values)

        return call

    def spell(chance, x):
        return {**draw(chance, x), "how": chance.choice(("position", "mixed", "keyword"))}

    return Row(make, takes, spell, **rest)


def written(function: Callable, takes, draw=nothing, **rest: Any) -> Row:
    """Return the row of an expression; options are its keywords."""
    return Row(lambda options, _: lambda *xs: function(*xs, **options), takes, draw, **rest)


def pick(chance: Random, **choices: Any) -> dict[str, Any]:
    """Draw one of each option's choices; `...` leaves it out."""
    drawn = {name: chance.choice(values) for name, values in choices.items()}
    return {name: value for name, value in drawn.items() if value is not ...}


def drawn(**choices: Any) -> Callable[[Random, Tensor], dict[str, Any]]:
    """Return a `draw` whose choices do not depend on the tensor."""
    return lambda chance, x: pick(chance, **choices)


def real(*ranks: int) -> Callable[[Tensor], bool]:
    """Return whether a tensor is real, of one of these ranks, with a known last size."""

    def takes(x):
        return is_of(x, "float32") and rank(x) in ranks and x.shape[-1] is not None

    return takes


def known(*ranks: int) -> Callable[[Tensor], bool]:
    """Return whether a tensor is `real` and only its batch size is unknown."""
    return lambda x: real(*ranks)(x) and None not in tuple(x.shape[1:])


def roomy(sides: int, least: int) -> Callable[[Tensor], bool]:
    """Return whether a tensor is `real` with so many pixels or steps in each direction."""
    return lambda x: real(sides)(x) and all(d is None or d >= least for d in x.shape[1:-1])


def same(x: Tensor, y: Tensor) -> bool:
    """Tell whether two tensors have one shape and type."""
    return x.dtype == y.dtype and tuple(x.shape) == tuple(y.shape)


def broadcasts(x: Tensor, y: Tensor) -> bool:
    """Tell whether the second tensor broadcasts to the first."""
    if x.dtype != y.dtype or rank(x) != rank(y):
        return False
    return all(a == b or b == 1 for a, b in zip(x.shape[1:], y.shape[1:], strict=True))


def joins(x: Tensor, y: Tensor) -> bool:
    """Tell whether two tensors can be put together along the last axis."""
    return real(2, 3, 4)(x) and x.dtype == y.dtype and tuple(x.shape[:-1]) == tuple(y.shape[:-1])


def least_size(x: Tensor, most: int) -> int:
    """Return the smallest known size between batch and channels, at most `most`."""
    return min([most, *(d for d in x.shape[1:-1] if d is not None)])


CONSTANTS = (
    "scalar", "integer", "numpy scalar", "tf scalar", "list", "channel", "tf channel", "row", "one",
    "whole", "tf whole", "pixels",
)  # fmt: skip


def constant(kind: str, x: Tensor, seed: int) -> Any:
    """Return a constant operand for a tensor, between 0.3 and 1.7 in size."""
    rng = np.random.default_rng(seed)
    sizes, channels = [d or 1 for d in x.shape[1:]], x.shape[-1]
    inner = len(sizes) - 1

    def values(*shape):
        return (rng.uniform(0.3, 1.7, shape) * rng.choice([-1.0, 1.0], shape)).astype(np.float32)

    made = {
        "scalar": lambda: round(float(values()), 3),
        "integer": lambda: int(rng.choice([-1, 2, 3])),
        "numpy scalar": lambda: values()[()],
        "tf scalar": lambda: tf.constant(values()),
        "list": lambda: values(channels).tolist(),
        "channel": lambda: values(channels),
        "tf channel": lambda: tf.constant(values(channels)),
        "row": lambda: values(1, *[1] * inner, channels),
        "one": lambda: values(1, *[1] * inner, 1),
        "whole": lambda: values(*sizes),
        "tf whole": lambda: tf.constant(values(*sizes)),
        "pixels": lambda: values(*sizes[:-1], 1),
    }
    return made[kind]()


def draw_constant(chance: Random, x: Tensor) -> dict[str, Any]:
    """Draw what `constant` reads; those of a whole tensor where its sizes are known."""
    kinds = CONSTANTS if None not in tuple(x.shape[1:]) else CONSTANTS[:-3]
    return {"kind": chance.choice(kinds), "seed": chance.randrange(100)}
