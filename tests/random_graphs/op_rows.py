"""Rows of TensorFlow functions and Python operators that the package knows."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from tests.random_graphs.rows import (
    Row,
    broadcasts,
    constant,
    draw_constant,
    drawn,
    joins,
    known,
    least_size,
    pick,
    real,
    roomy,
    same,
    spelled,
    written,
)

ANY = real(2, 3, 4, 5)
# Operation -> its function, its operator or None.
BINARY: dict[str, tuple[Any, Any]] = {
    "tf.add": (tf.add, operator.add),
    "tf.subtract": (tf.subtract, operator.sub),
    "tf.multiply": (tf.multiply, operator.mul),
    "tf.divide": (tf.divide, operator.truediv),
    "tf.maximum": (tf.maximum, None),
    "tf.minimum": (tf.minimum, None),
}


def _with_constant(function, sign):
    """Return `make` of a function or its operator with a constant on one side."""

    def make(options, name):
        del name

        def call(x):
            value = constant(options["kind"], x, options["seed"])
            a, b = (value, x) if options.get("left") else (x, value)
            how = options["how"]
            if how == "operator":
                return sign(a, b)
            given = {"position": ((a, b), {}), "mixed": ((a,), {"y": b})}
            args, kwargs = given.get(how, ((), {"x": a, "y": b}))
            return function(*args, **kwargs)

        return call

    return make


def _constant_row(function, sign) -> Row:
    hows = ("position", "mixed", "keyword", *["operator"] * (4 if sign else 0))

    def draw(chance, x):
        options = {**draw_constant(chance, x), "how": chance.choice(hows)}
        left = function is not tf.divide and chance.random() < 0.3
        # An array on the left of an operator asks the array first, not Keras.
        if left and options["how"] == "operator" and options["kind"] not in ("scalar", "integer"):
            options["how"] = "position"
        return {**options, "left": True} if left else options

    return Row(_with_constant(function, sign), ANY, draw, weight=1.5)


def _divided(x, y):
    return x / (tf.abs(y) + 1.0)


def _axes(chance, x) -> dict[str, Any]:
    forms: list[Any] = [1, -1, [1], (1,)]
    if x.shape.rank == 4:
        forms += [[1, 2], (1, 2), [1, 2], [2, 1], [-3, -2], [1, 2, 3], 2]
    if x.shape.rank == 2:
        forms = [1, -1]
    axis = chance.choice(forms)
    return {"axis": axis, **pick(chance, keepdims=[..., True, True, False])}


def _paddings(chance, x) -> dict[str, Any]:
    most = min(2, max(1, least_size(x, 3) - 1))
    inner = [[chance.randint(0, most), chance.randint(0, most)] for _ in x.shape[1:-1]]
    paddings = [[0, 0], *inner, [0, 0]]
    modes = [..., ..., "CONSTANT", "REFLECT", "SYMMETRIC"]
    options = {"paddings": paddings, **pick(chance, mode=modes)}
    if options.get("mode", "CONSTANT") == "CONSTANT":
        options |= pick(chance, constant_values=[..., ..., 0, 0.0, 1.0, -0.5])
    return options


def _padded(tensor, paddings, mode="CONSTANT", constant_values=0, form="list"):
    """`tf.pad` with its paddings as an array or a constant."""
    made = np.array(paddings) if form == "numpy" else tf.constant(paddings)
    return tf.pad(tensor, made, mode, constant_values)


def _window(chance, x) -> dict[str, Any]:
    options = {"ksize": chance.choice((1, 2, [2, 1][: x.shape.rank - 2], least_size(x, 3)))}
    if isinstance(options["ksize"], list) and len(options["ksize"]) != x.shape.rank - 2:
        options["ksize"] = 2
    return options | pick(chance, strides=[1, 2], padding=["VALID", "SAME"])


def _window1d(chance, x) -> dict[str, Any]:
    return {**_window(chance, x), "ksize": [chance.choice((1, 2))]}


def _shape(chance, x) -> dict[str, Any]:
    count = int(np.prod(x.shape[1:]))
    channels = x.shape[-1]
    shapes = [[-1, count], (-1, count // channels, channels), [-1, 1, count]]
    return {"shape": chance.choice(shapes)}


def _permutation(chance, x) -> dict[str, Any]:
    order = list(range(1, x.shape.rank))
    chance.shuffle(order)
    return {"perm": [0, *order]}


SLICES = {
    "[:, 1:]": lambda x: x[:, 1:],
    "[..., :1]": lambda x: x[..., :1],
    "[..., -2:]": lambda x: x[..., -2:],
    "[:, ::2]": lambda x: x[:, ::2],
    "[:, -1]": lambda x: x[:, -1],
    "[:, 0]": lambda x: x[:, 0],
    "[:, :-1]": lambda x: x[:, :-1],
    "[:, ::-1]": lambda x: x[:, ::-1],
    "[:, None]": lambda x: x[:, None],
    "[..., tf.newaxis]": lambda x: x[..., tf.newaxis],
}


def _slices(chance, x) -> dict[str, Any]:
    names = list(SLICES)
    return {"at": chance.choice(names[:-2] if x.shape.rank > 4 else names)}


def _parts(chance, x) -> dict[str, Any]:
    channels = x.shape[-1]
    forms: list[Any] = [channels] if channels < 4 else []
    forms += [2] if channels % 2 == 0 else [[1, channels - 1]]
    return pick(chance, num_or_size_splits=forms, axis=[-1, x.shape.rank - 1])


def _part_at(chance, x) -> dict[str, Any]:
    rank = x.shape.rank
    return {"begin": [0] * rank, "size": [-1] * (rank - 1) + [max(1, x.shape[-1] - 1)]}


def _strided(x):
    rank = x.shape.rank
    return (
        tf.strided_slice(x, [0, 1], [0, 3], [1, 1], begin_mask=1, end_mask=1)
        if rank > 2
        else (tf.strided_slice(x, [0, 0], [0, 1], [1, 1], begin_mask=1, end_mask=1))
    )


def _resized(chance, x) -> dict[str, Any]:
    size = (chance.choice((3, 4, 7)), chance.choice((2, 5, 8)))
    return {"size": size, **pick(chance, method=[..., "bilinear", "nearest"])}


def _matrix(x, columns, seed, form="operator"):
    values = np.random.default_rng(seed).normal(size=(x.shape[-1], columns)).astype(np.float32)
    matrix = tf.constant(values / np.sqrt(x.shape[-1], dtype=np.float32))
    return {
        "operator": lambda: x @ matrix,
        "position": lambda: tf.matmul(x, matrix),
        "keyword": lambda: tf.matmul(a=x, b=matrix),
        "transposed": lambda: tf.linalg.matmul(x, tf.transpose(matrix), transpose_b=True),
    }[form]()


def _products(x, y, form="keyword"):
    scaled = 1.0 / np.sqrt(x.shape[-1])
    if form == "operator":
        return (x @ tf.transpose(y, [0, 2, 1])) * scaled
    return tf.matmul(x, y, transpose_b=True) * scaled


def _unary(function, names: str = "x", takes=ANY, **rest: Any) -> Row:
    return spelled(function, names, takes, **rest)


OPS: dict[str, Row] = {
    **{f"{name} constant": _constant_row(*forms) for name, forms in BINARY.items()},
    **{
        name: spelled(function, "x y", ANY, pairs=broadcasts)
        for name, (function, _) in BINARY.items()
        if name != "tf.divide"
    },
    **{
        sign: written(function, ANY, pairs=broadcasts, weight=1.5)
        for sign, function in (("+", operator.add), ("-", operator.sub), ("*", operator.mul))
    },
    "/": written(_divided, ANY, pairs=broadcasts),
    "tf.nn.relu": _unary(tf.nn.relu, "features"),
    "tf.nn.relu6": _unary(tf.nn.relu6, "features"),
    "tf.nn.leaky_relu": _unary(
        tf.nn.leaky_relu, "features alpha", draw=drawn(alpha=[..., 0.1, 0.3])
    ),
    "tf.sigmoid": _unary(tf.sigmoid),
    "tf.nn.sigmoid": _unary(tf.nn.sigmoid),
    "tf.tanh": _unary(tf.tanh),
    "tf.nn.tanh": _unary(tf.nn.tanh),
    "tf.nn.softmax": _unary(
        tf.nn.softmax, "logits axis", draw=drawn(axis=[..., ..., -1, 1]), weight=0.6
    ),
    "tf.nn.silu": _unary(tf.nn.silu, "features"),
    "tf.nn.swish beta": written(lambda x: tf.nn.silu(x, beta=1.5), ANY, weight=0.5),
    "activations.relu": written(
        tf_keras.activations.relu,
        ANY,
        lambda chance, x: pick(chance, max_value=[..., 6, 6.0], alpha=[..., 0.1]),
    ),
    "tf.reshape": spelled(tf.reshape, "tensor shape", known(2, 3, 4), _shape),
    "tf.reshape batch": written(
        lambda x: tf.reshape(x, (tf.shape(x)[0], int(np.prod(x.shape[1:])))), known(2, 3, 4)
    ),
    "tf.expand_dims": spelled(
        tf.expand_dims, "input axis", real(2, 3), drawn(axis=[1, -1, 2])
    ),
    "tf.squeeze": spelled(
        tf.squeeze, "input axis", lambda x: real(3, 4)(x) and x.shape[1] == 1,
        drawn(axis=[1, [1]]), weight=6,
    ),
    "tf.transpose": spelled(tf.transpose, "a perm", real(3, 4), _permutation),
    "tf.concat": spelled(
        tf.concat, "values axis", ANY, drawn(axis=[-1]), listed=True, pairs=joins, most=3, weight=2
    ),
    "tf.concat 1": spelled(
        tf.concat, "values axis", real(3, 4), drawn(axis=[1]), listed=True, pairs=same
    ),
    "tf.concat zeros": written(lambda x: tf.concat([x, tf.zeros_like(x)], -1), ANY, weight=0.5),
    "tf.split": spelled(
        tf.split, "value num_or_size_splits axis", lambda x: ANY(x) and x.shape[-1] > 1, _parts,
        weight=2,
    ),
    "[]": Row(lambda options, _: SLICES[options["at"]], roomy(3, 2), _slices, weight=0.8),
    "[] map": Row(lambda options, _: SLICES[options["at"]], roomy(4, 3), _slices),
    "[] vector": Row(
        lambda options, _: SLICES[options["at"]], lambda x: real(2)(x) and x.shape[-1] > 2, _slices,
        weight=0.5,
    ),
    "tf.slice": spelled(tf.slice, "input_ begin size", real(3, 4), _part_at, weight=0.7),
    "tf.strided_slice": written(_strided, lambda x: real(2)(x) or roomy(4, 3)(x), weight=0.7),
    "tf.pad": spelled(tf.pad, "tensor paddings mode constant_values", real(3, 4), _paddings,
                      weight=2),
    "tf.pad array": written(
        _padded, real(3, 4),
        lambda chance, x: {**_paddings(chance, x), "form": chance.choice(("numpy", "tensor"))},
        weight=0.5,
    ),
    "tf.identity": _unary(tf.identity, "input", weight=0.4),
    "tf.reduce_mean": spelled(
        tf.reduce_mean, "input_tensor axis keepdims", real(2, 3, 4), _axes, weight=2
    ),
    "tf.reduce_max": spelled(tf.reduce_max, "input_tensor axis keepdims", real(2, 3, 4), _axes),
    "backend.mean": spelled(tf_keras.backend.mean, "x axis keepdims", real(3, 4), _axes),
    **{
        f"tf.nn.{name}": spelled(function, "input ksize strides padding", roomy(4, 2), _window)
        for name, function in (
            ("max_pool2d", tf.nn.max_pool2d),
            ("avg_pool2d", tf.nn.avg_pool2d),
            ("max_pool", tf.nn.max_pool),
            ("avg_pool", tf.nn.avg_pool),
        )
    },
    **{
        f"tf.nn.{name} 1d": spelled(function, "input ksize strides padding", roomy(3, 2), _window1d,
                                    weight=0.4)
        for name, function in (("max_pool", tf.nn.max_pool), ("avg_pool", tf.nn.avg_pool))
    },
    "tf.image.resize": spelled(tf.image.resize, "images size method", real(4), _resized),
    "tf.matmul constant": written(
        _matrix, real(2, 3),
        lambda chance, x: {
            "columns": chance.choice((2, 3)), "seed": chance.randrange(100),
            "form": chance.choice(("operator", "position", "keyword", "transposed")),
        },
    ),
    "tf.matmul": written(
        _products, real(3), drawn(form=["operator", "keyword"]),
        pairs=lambda x, y: y.dtype == x.dtype and y.shape.rank == 3 and y.shape[-1] == x.shape[-1],
    ),
}  # fmt: skip
