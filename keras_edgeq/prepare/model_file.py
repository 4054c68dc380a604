"""Load a float model from disk, and no code with it unless the caller allows that."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import tensorflow as tf
import tf_keras
from google.protobuf.message import DecodeError
from tf_keras.protobuf import saved_metadata_pb2

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.files import json_text
from keras_edgeq.prepare.check import check_model
from keras_edgeq.prepare.config_guard import CODE, refused
from keras_edgeq.prepare.graph_check import check_graph
from keras_edgeq.prepare.load_guard import bounded_by_file, check_size
from keras_edgeq.prepare.saved_model_guard import check_saved_model

KERAS_METADATA = "keras_metadata.pb"
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
    """Load a float functional or Sequential model that `tf_keras` saved.

    The file may come from anywhere: every name in it is checked against the layers and operations
    of Keras and TensorFlow that only compute, before Keras reads it. Loss and metrics are not
    loaded: quantization needs none.

    Args:
        path: a `.keras` file, an `.h5` file of a whole model, or a SavedModel folder.
        allow_lambda: trust the file, and load one that holds Python code (a Lambda layer, a lambda
            as activation), names a class, function or operation that is not known to only compute,
            or, for a SavedModel, a graph that reaches files. What it holds runs when the model is
            loaded or called.
        custom_objects: your own layers and functions by name, as for
            `tf_keras.models.load_model`; what you registered with
            `tf_keras.utils.register_keras_serializable` needs none.

    Returns:
        The model, as `quantize` takes it.

    Raises:
        UnsupportedModelError: the file is missing, damaged, of another framework or of Keras 3;
            it holds only weights, or code; it has unknown names, or reaches outside itself; or its
            model is subclassed or a sim.

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
    checked_config(path, custom_objects, None if allow_lambda else way_out)
    options = {"safe_mode": not allow_lambda} if path.suffix == ".keras" else {}
    try:
        with bounded_by_file(path):
            model = tf_keras.models.load_model(
                str(path), custom_objects=custom_objects, compile=False, **options
            )
    except UnsupportedModelError:
        raise
    except READ_ERRORS as error:
        # Keras answers an unknown class with "'str' object is not callable".
        raise UnsupportedModelError(
            f"Cannot load {path}: {_first_line(error)} Either the file is damaged, or it has "
            "layers of your own: those go into custom_objects={name: class} of "
            "keras_edgeq.load_model."
        ) from error
    check_model(model)
    return model


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
    found = list(dict.fromkeys(refused(_without_training(config, training), custom_objects or ())))
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
    if path.is_dir():
        check_saved_model(path, way_out)
    return config


def _read_config(path: Path) -> Any:
    if not path.exists():
        raise UnsupportedModelError(f"No such model: {path}.")
    try:
        check_size(path)
        if path.is_dir():
            return _folder_config(path)
        if zipfile.is_zipfile(path):
            return _zip_config(path)
        if h5py.is_hdf5(path):
            return _h5_config(path)
    except UnsupportedModelError:
        raise
    except READ_ERRORS as error:
        raise UnsupportedModelError(f"{path} is damaged: {_first_line(error)}") from error
    raise UnsupportedModelError(
        f"{path} is neither a .keras file, an .h5 file nor a SavedModel folder, or it is damaged. "
        "Save the model with tf_keras: model.save('model.keras')."
    )


def _zip_config(path: Path) -> Any:
    if path.suffix != ".keras":
        raise UnsupportedModelError(
            f"{path} is a zip archive; a Keras model is one named .keras. Rename it if it is."
        )
    with zipfile.ZipFile(path) as file:
        if not {"config.json", "metadata.json"} <= set(file.namelist()):
            raise UnsupportedModelError(f"{path} is a zip archive without a Keras model in it.")
        _check_version(path, json_text.parse(file.read("metadata.json")).get("keras_version"))
        return json_text.parse(file.read("config.json"))


def _h5_config(path: Path) -> Any:
    with h5py.File(path, "r") as file:
        version, config = file.attrs.get("keras_version"), file.attrs.get("model_config")
        training = file.attrs.get("training_config")
    if config is None:
        raise UnsupportedModelError(
            f"{path} holds no model, at most its weights. Save the whole model: "
            "model.save('model.keras')."
        )
    _check_version(path, version)
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


def _check_version(path: Path, version: Any) -> None:
    text = version.decode() if isinstance(version, bytes) else str(version or "")
    if text.partition(".")[0].isdigit() and int(text.partition(".")[0]) >= 3:
        raise UnsupportedModelError(
            f"{path} was saved by Keras {text}; this package takes models of tf_keras (Keras 2). "
            "Build the same model with tf_keras (import tf_keras, or TF_USE_LEGACY_KERAS=1 before "
            "TensorFlow is imported), copy the weights with set_weights(other.get_weights()), and "
            "save it again."
        )


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
