"""Open a layer or model of the user's by one symbolic call, and say what stands in the way."""

from __future__ import annotations

import linecache
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import QuantizationWarning, UnsupportedModelError, first_words, warn
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.compare import Gap, largest_gap, random_arrays
from keras_edgeq.graph.rebuild import calls, infer

# Largest difference between a layer and its opened form, relative to its largest number.
NOISE, HALF_NOISE = 1e-4, 0.05
HALF_TYPES = ("float16", "bfloat16")
LIBRARIES = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) for name in ("purelib", "platlib", "stdlib")
)
OURS = str(Path(__file__).resolve().parents[1])


class Trace(NamedTuple):
    """What a layer is made of.

    Args:
        graph: a model whose inputs are the tensors among the arguments, in their order.
        loses_variables: whether it holds numbers of variables that train, and not the variables.
        shares_variables: whether operations compute with weights of layers in it.
    """

    graph: tf_keras.Model
    loses_variables: bool
    shares_variables: bool


def trace(
    layer: Any, args: tuple, kwargs: dict, name: str | None = None, masks_given: bool = False
) -> Trace:
    """Return what a layer's `call` does as a functional model of the same layers and variables.

    The model is for a walk inside of `keras_compat.kept_calls`: it holds calls of the user's own
    layers, which are forgotten afterwards.

    Args:
        layer: built; it is not changed.
        args: what it is called on: symbolic tensors, or `tf.TensorSpec`s, in any structure.
        kwargs: likewise.
        name: of the model.
        masks_given: whether masks are among the arguments, so that those of its inputs are not
            read.

    Raises:
        UnsupportedModelError: it cannot be followed; says where, by file and line, and why.
    """
    if keras_compat.takes_training(layer):
        kwargs = {"training": None, **kwargs}
    for value in tf.nest.flatten((args, kwargs)):
        if isinstance(value, tf.TypeSpec) and not isinstance(value, tf.TensorSpec):
            raise UnsupportedModelError("its input is ragged or sparse; give dense tensors")
    given = tf.nest.flatten((args, kwargs))
    if not masks_given and any(keras_compat.mask_of(value) is not None for value in given):
        raise UnsupportedModelError("its input carries a mask, which its own code may read")
    symbols: list[Any] = []

    def fresh(value):
        if not _is_tensor(value):
            return value
        dtype, name = value.dtype, getattr(value, "name", None)
        name = name if isinstance(value, tf.TensorSpec) else None
        symbols.append(tf_keras.Input(batch_shape=value.shape, dtype=dtype, name=name))
        return symbols[-1]

    args, kwargs = tf.nest.map_structure(fresh, (args, kwargs))
    with _unchanged(layer):
        try:
            with tf.GradientTape() as tape:
                made = keras_compat.python_call(layer)(*args, **kwargs)
            graph = tf_keras.Model(_structured(args, kwargs, symbols), made, name=name)
        except Exception as error:  # whatever the user's code meets in symbolic tensors
            raise UnsupportedModelError(_reason(error)) from error
    _check_layers_known(layer, graph)
    given = _variables(graph)
    kept = given | {id(weight) for weight in graph.weights}
    read = {id(variable) for variable in tape.watched_variables()}
    own = {id(weight) for weight in layer.trainable_weights}
    # TensorFlow reads a variable at once where nothing symbolic is computed with it first.
    return Trace(graph, bool(read & own - kept), bool(given & {id(w) for w in graph.weights}))


def _variables(graph: tf_keras.Model) -> set[int]:
    """Return the ids of the variables among the arguments of operations."""
    nodes = [call.node for call in calls(graph)]
    given = tf.nest.flatten([(node.call_args, node.call_kwargs) for node in nodes])
    return {id(value) for value in given if isinstance(value, tf.Variable)}


def warn_frozen(names: Iterable[str]) -> None:
    """Warn that variables of layers became constants; not where there are none."""
    if found := ", ".join(names):
        warn(
            f"Variables of {found} are constants from here on and do not train: the code there "
            "computes with them in a way that no layer of Keras has.",
            QuantizationWarning,
        )


def warn_shared(names: Iterable[str]) -> None:
    """Warn that operations and layers no longer share weights; not where there are none."""
    if found := ", ".join(names):
        warn(
            f"The code of {found} computes with weights of a layer that is called as well (tied "
            "weights): they are copies of each other from here on, and training moves them apart.",
            QuantizationWarning,
        )


def first_difference(
    layer: Any, other: Any, args: tuple, kwargs: dict, samples: Sequence[Any] | None = None
) -> tuple[int, Gap] | None:
    """Return the number of the first output that differs, and how; None where none does.

    Args:
        layer: a layer, called as its user calls it.
        other: takes the tensors among the arguments as a list, and the arguments.
        args: symbolic tensors or `tf.TensorSpec`s, in any structure.
        kwargs: likewise.
        samples: values of the tensors; random ones by default.
    """
    flat = [value for value in tf.nest.flatten((args, kwargs)) if _is_tensor(value)]
    arrays = samples or _values(flat)
    if arrays is None:  # text
        return None
    values = list(map(tf.constant, arrays))
    rest = iter(values)
    args, kwargs = tf.nest.map_structure(
        lambda value: next(rest) if _is_tensor(value) else value, (args, kwargs)
    )
    try:
        wanted = tf.nest.flatten(infer(layer, args, kwargs))
    except (tf.errors.OpError, TypeError, ValueError) as error:
        raise UnsupportedModelError(f"it fails on random inputs: {first_words(error)}") from error
    got = tf.nest.flatten(other(values, args, kwargs))
    parts = (layer, *keras_compat.all_layers(layer))
    is_half = any(part.compute_dtype in HALF_TYPES for part in parts)
    noise = HALF_NOISE if is_half else NOISE
    for number, (one, two) in enumerate(zip(wanted, got, strict=True)):
        gap = largest_gap(one, two)
        if gap.distance > noise:
            return number, gap
    return None


def _values(flat: list[Any]) -> list[Any] | None:
    """Return random values of tensors; where only code knows a size, those of random inputs."""
    if all(None not in tuple(t.shape)[1:] for t in flat) or not all(
        map(keras_compat.is_keras_tensor, flat)
    ):
        return random_arrays((value.shape, value.dtype.name) for value in flat)
    inputs = _inputs_of(flat)
    arrays = random_arrays((value.shape, value.dtype.name) for value in inputs)
    if arrays is None:
        return None
    made = tf_keras.Model(inputs, flat)(list(map(tf.constant, arrays)), training=False)
    return list(tf.nest.flatten(made))


def _inputs_of(tensors: list[Any]) -> list[Any]:
    """Return the inputs of the graph that symbolic tensors are made in."""
    waiting, found = list(tensors), {}
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in found:
            found[id(tensor)] = tensor
            waiting += keras_compat.producer(tensor)[1].keras_inputs
    return [t for t in found.values() if keras_compat.producer(t)[1].is_input]


def _structured(args: tuple, kwargs: dict, symbols: list[Any]) -> Any:
    """Return the inputs as the first argument has them, as a list where there are others."""
    alone = len(tf.nest.flatten(args[:1])) == len(symbols)
    return args[0] if alone else symbols


def _is_tensor(value: Any) -> bool:
    return keras_compat.is_keras_tensor(value) or isinstance(value, tf.TensorSpec)


@contextmanager
def _unchanged(layer: Any) -> Iterator[None]:
    """Raise where a symbolic call changes variables of a layer, which get their values back."""
    before = [(weight, weight.numpy()) for weight in layer.weights]
    changed = None
    try:
        yield
    finally:
        for weight, value in before:
            if not np.array_equal(weight.numpy(), value, equal_nan=value.dtype.kind == "f"):
                weight.assign(value)
                changed = weight.name.removesuffix(":0")
    if changed is not None:
        raise UnsupportedModelError(
            f"it assigns to its variable {changed!r} in each call: state that outlives a call, "
            "which no exported file holds"
        )


def _check_layers_known(layer: Any, graph: tf_keras.Model) -> None:
    """Raise where a call makes layers with weights anew, so that each call has others."""
    own = {id(weight) for weight in layer.weights}
    for part in graph.layers:
        if any(id(weight) not in own for weight in part.weights):
            raise UnsupportedModelError(
                f"it calls layer {part.name!r} ({type(part).__name__}), which is not among its "
                "own layers: make it once, in __init__, as an attribute"
            )


def _reason(error: BaseException) -> str:
    """Return what a failed symbolic call met, with the file and line of the user's code."""
    where, line, called = "", "", ""
    frame: TracebackType | None = error.__traceback__
    while frame is not None:
        code, number = frame.tb_frame.f_code, frame.tb_lineno
        path = str(Path(code.co_filename).resolve())
        if not path.startswith((*LIBRARIES, OURS)) and Path(path).suffix == ".py":
            line = linecache.getline(code.co_filename, number).strip()
            where = f"{Path(path).name}, line {number}, in {code.co_name}: `{line}`: "
            called = "" if frame.tb_next is None else frame.tb_next.tb_frame.f_code.co_name
        frame = frame.tb_next
    text = " ".join(str(error).split())
    for kind, is_of in KINDS.items():
        if is_of(text, line, called):
            return f"{where}{kind}"
    return f"{where}{type(error).__name__}: {text[:200]}"


def _is_condition(text: str, line: str, _: str) -> bool:
    return "__len__" in text or ("bool" in text and line.startswith(("if ", "elif ", "while ")))


KINDS = {
    "a condition on the values of a tensor (if, while, and, or); use tf.where": _is_condition,
    "a Python loop over a tensor, or a size that is a tensor; use whole-tensor operations": (
        lambda text, *_: "Cannot iterate" in text or "interpreted as an integer" in text
    ),
    "a NumPy function on a symbolic tensor; use the TensorFlow one": (
        lambda text, _, called: called == "__array__" or "has no attribute 'numpy'" in text
    ),
    "a number of Python made of a tensor; keep it a tensor": (
        lambda text, *_: "argument must be a string" in text
    ),
    "a size of x.shape that is not known; use tf.shape(x)": (
        lambda text, *_: "NoneType" in text
    ),
    "a variable that the call assigns to, or a function that TensorFlow does not record "
    "(tf.cond, tf.while_loop, tf.map_fn, or one decorated with tf.function)": (
        lambda text, *_: "KerasTensor" in text or "FuncGraph" in text
    ),
}  # fmt: skip
