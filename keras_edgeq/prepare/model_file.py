"""Load a float model from disk, and no code with it unless the caller allows that."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import tensorflow as tf
import tf_keras
from google.protobuf.message import DecodeError
from tf_keras.protobuf import saved_metadata_pb2

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.files import json_text
from keras_edgeq.keras3 import from_keras3, guard
from keras_edgeq.prepare.check import check_model
from keras_edgeq.prepare.config_guard import CODE, refused
from keras_edgeq.prepare.functional import as_functional
from keras_edgeq.prepare.graph_check import check_graph
from keras_edgeq.prepare.load_guard import bounded_by_file, check_size
from keras_edgeq.prepare.saved_model_guard import check_saved_model

KERAS_METADATA = "keras_metadata.pb"
OWN_LAYERS = (
    "Either the file is damaged, or it has layers of your own: those go into "
    "custom_objects={name: class} of keras_edgeq.load_model."
)
METRICS = {"_tf_keras_metric"}
# What Keras and the readers below it raise on files that are damaged or something else.
READ_ERRORS = (
    OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError,
    ImportError, NameError, AssertionError, ArithmeticError, MemoryError,
    zipfile.BadZipFile, zlib.error, struct.error, DecodeError, tf.errors.OpError,
)  # fmt: skip


def load_model(
    path: str | Path,
    allow_lambda: bool = False,
    custom_objects: Mapping[str, Any] | None = None,
) -> tf_keras.Model:
    """Load a float model that `tf_keras` or Keras 3 saved; the latter as `from_keras3` gives it.

    The file may come from anywhere: every name in it is checked against the layers and operations
    of Keras and TensorFlow that only compute, before Keras reads it. Loss and metrics are not
    loaded: quantization needs none.

    Args:
        path: a `.keras` file, an `.h5` file of a whole model, or a SavedModel folder of `tf_keras`.
        allow_lambda: trust the file, and load one that holds Python code (a Lambda layer, a lambda
            as activation), names a class, function or operation that is not known to only compute,
            or, for a SavedModel, a graph that reaches files. What it holds runs when the model is
            loaded or called.
        custom_objects: your own layers and functions by name, as for
            `tf_keras.models.load_model`; what you registered with
            `tf_keras.utils.register_keras_serializable` needs none.

    Returns:
        The model, as `quantize` takes it; a subclassed one as by `as_functional`.

    Raises:
        UnsupportedModelError: the file is missing, damaged, or of another framework; it holds only
            weights, or code; it has unknown names, or reaches outside itself; or its model is a
            sim. For a file of Keras 3, also as for `from_keras3`.

    Example:
        >>> import tempfile, tf_keras, keras_edgeq as eq
        >>> model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(2)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.keras")
        ...     eq.load_model(f"{folder}/model.keras").output_shape
        (None, 2)
    """
    path = Path(path)
    way_out = "Allow it with allow_lambda=True or --allow-lambda"
    if _is_of_keras3(path):
        return _load_keras3(path, custom_objects, None if allow_lambda else way_out)
    checked_config(path, custom_objects, None if allow_lambda else way_out)
    options = {"safe_mode": not allow_lambda} if path.suffix == ".keras" else {}
    with _bounded(path):
        model = tf_keras.models.load_model(
            str(path), custom_objects=custom_objects, compile=False, **options
        )
    model = as_functional(model)
    check_model(model)
    return model


@contextmanager
def _bounded(path: Path) -> Iterator[None]:
    """Let Keras load no more than a file holds, and say what stands in its way."""
    try:
        with bounded_by_file(path):
            yield
    except UnsupportedModelError:
        raise
    except READ_ERRORS as error:
        # Keras answers an unknown class with "'str' object is not callable".
        raise UnsupportedModelError(
            f"Cannot load {path}: {_first_line(error)} {OWN_LAYERS}"
        ) from error


def checked_config(
    path: Path,
    custom_objects: Mapping[str, Any] | None,
    way_out: str | None,
    training: bool = False,
) -> Any:
    """Return the configuration in a saved model as JSON values, checked before Keras sees the file.

    Args:
        path: the file.
        custom_objects: what the caller trusts by name.
        way_out: said where the file holds code; None trusts the file and all that it names.
        training: loss, optimizer and metrics will be loaded, too.

    Raises:
        UnsupportedModelError: the file is missing, damaged or no model of `tf_keras`, or what it
            names is not known to only compute; names the layers.
    """
    config = _read_config(path)
    check_graph(path, config)
    if way_out is None:
        return config
    _refuse(path, refused(_without_training(config, training), custom_objects or ()), way_out)
    if path.is_dir():
        check_saved_model(path, way_out)
    return config


def _refuse(path: Path, findings: Iterable[tuple[str, str]], way_out: str) -> None:
    """Raise where a file holds or names what it may not."""
    found = list(dict.fromkeys(findings))
    code = ", ".join(repr(name[:100]) for name, why in found if why == CODE)
    if code:
        raise UnsupportedModelError(
            f"{path} holds Python code in {code}, as Lambda layers do, and loading would run it. "
            f"{way_out} if you trust where the file came from; better, save the model with "
            "ordinary layers instead of the code."
        )
    if found:
        parts = "; ".join(f"{name[:100]!r} {why}" for name, why in found[:5])
        raise UnsupportedModelError(
            f"{path} names things not known to only compute: {parts}. Your own layers and "
            f"functions go into custom_objects={{name: object}}. {way_out} if you trust where the "
            "file came from."
        )


def _is_of_keras3(path: Path) -> bool:
    """Tell whether Keras 3 saved a file; what cannot be read is left to who reads it."""
    try:
        if not path.is_file():  # a pipe may never end
            return False
        if zipfile.is_zipfile(path):
            check_size(path)
            with zipfile.ZipFile(path) as file:
                version = json_text.parse(file.read("metadata.json")).get("keras_version")
        else:
            with h5py.File(path, "r") as file:
                version = file.attrs.get("keras_version")
    except (*READ_ERRORS, UnsupportedModelError):
        return False
    return _major(version) >= 3


def _load_keras3(
    path: Path, custom_objects: Mapping[str, Any] | None, way_out: str | None
) -> tf_keras.Model:
    try:
        import keras
    except ImportError:
        raise UnsupportedModelError(f"{path} needs Keras 3: pip install keras.") from None
    config = _read_config(path, newest=3)
    if way_out is not None:
        plain = _without(config, "compile_config")
        _refuse(path, refused(plain, custom_objects or (), guard.why_not), way_out)
    with _bounded(path):
        model = keras.models.load_model(
            str(path), custom_objects=custom_objects, compile=False, safe_mode=way_out is not None
        )
    made = from_keras3(model)
    check_model(made)
    return made


def _read_config(path: Path, newest: int = 2) -> Any:
    if not path.exists():
        raise UnsupportedModelError(f"No such model: {path}.")
    try:
        check_size(path)
        if path.is_dir():
            return _folder_config(path)
        if zipfile.is_zipfile(path):
            return _zip_config(path, newest)
        if h5py.is_hdf5(path):
            return _h5_config(path, newest)
    except UnsupportedModelError:
        raise
    except READ_ERRORS as error:
        raise UnsupportedModelError(f"{path} is damaged: {_first_line(error)}") from error
    raise UnsupportedModelError(
        f"{path} is neither a .keras file, an .h5 file nor a SavedModel folder, or it is damaged. "
        "Save the model with tf_keras: model.save('model.keras')."
    )


def _zip_config(path: Path, newest: int) -> Any:
    if path.suffix != ".keras":
        raise UnsupportedModelError(
            f"{path} is a zip archive; a Keras model is one named .keras. Rename it if it is."
        )
    with zipfile.ZipFile(path) as file:
        if not {"config.json", "metadata.json"} <= set(file.namelist()):
            raise UnsupportedModelError(f"{path} is a zip archive without a Keras model in it.")
        _check_version(
            path, json_text.parse(file.read("metadata.json")).get("keras_version"), newest
        )
        return json_text.parse(file.read("config.json"))


def _h5_config(path: Path, newest: int) -> Any:
    with h5py.File(path, "r") as file:
        version, config = file.attrs.get("keras_version"), file.attrs.get("model_config")
        training = file.attrs.get("training_config")
    if config is None:
        raise UnsupportedModelError(
            f"{path} holds no model, at most its weights. Save the whole model: "
            "model.save('model.keras')."
        )
    _check_version(path, version, newest)
    model = json_text.parse(config)
    if training is None or not isinstance(model, dict):
        return model
    return {**model, "compile_config": json_text.parse(training)}  # where .keras files have it


def _folder_config(path: Path) -> Any:
    if not (path / "saved_model.pb").exists():
        raise UnsupportedModelError(
            f"{path} is a folder, but not a SavedModel: it has no saved_model.pb."
        )
    if not (path / KERAS_METADATA).exists():
        raise UnsupportedModelError(
            f"{path} is a SavedModel without Keras layers in it (no {KERAS_METADATA}), a frozen "
            "one perhaps. Save the model with tf_keras: model.save('model.keras')."
        )
    metadata = saved_metadata_pb2.SavedMetadata()
    metadata.ParseFromString((path / KERAS_METADATA).read_bytes())
    return [
        {"identifier": node.identifier, "metadata": json_text.parse(node.metadata)}
        for node in metadata.nodes
    ]


def _check_version(path: Path, version: Any, newest: int) -> None:
    if _major(version) > newest:
        raise UnsupportedModelError(
            f"{path} was saved by Keras {_text(version)}, and a sim is a model of tf_keras (Keras "
            "2). A float model of Keras 3 is read by keras_edgeq.load_model."
        )


def _major(version: Any) -> int:
    """Return the first number of a version of Keras, 0 where there is none."""
    first = _text(version).partition(".")[0]
    return int(first) if first.isdigit() else 0


def _text(version: Any) -> str:
    return version.decode() if isinstance(version, bytes) else str(version or "")


def _without_training(config: Any, training: bool) -> Any:
    """Return a configuration without what is left in the file: loss, optimizer and metrics."""
    if training:
        return config
    if isinstance(config, list):  # the nodes of a SavedModel
        nodes = [node for node in config if node["identifier"] not in METRICS]
        return [_without(node["metadata"], "training_config") for node in nodes]
    return _without(config, "compile_config")


def _without(config: Any, key: str) -> Any:
    return {k: v for k, v in config.items() if k != key} if isinstance(config, dict) else config


def _first_line(error: Exception) -> str:
    text = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
    return text if text.endswith(".") else f"{text}."
