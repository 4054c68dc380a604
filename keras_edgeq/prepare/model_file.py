"""Load a float model from disk, and no code with it unless the caller allows that."""

from __future__ import annotations

import builtins
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import tensorflow as tf
import tf_keras
from google.protobuf.message import DecodeError
from tf_keras.protobuf import saved_metadata_pb2

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.prepare.check import check_model
from keras_edgeq.prepare.graph_check import check_graph
from keras_edgeq.prepare.load_guard import bounded_by_file

KERAS_METADATA = "keras_metadata.pb"
KERAS_MODULES = {"keras", "tf_keras", "builtins"}
PYTHON_CODE = {"Lambda", "__lambda__"}
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

    Loss and metrics stay in the file: quantization needs none. A SavedModel holds a TensorFlow
    graph besides the layers; load those you trust.

    Args:
        path: a `.keras` file, an `.h5` file of a whole model, or a SavedModel folder.
        allow_lambda: also load a file that holds Python code (a Lambda layer, a lambda as
            activation), which runs when the model is loaded or called.
        custom_objects: your own layers and functions by name, as for
            `tf_keras.models.load_model`.

    Returns:
        The model, as `quantize` takes it.

    Raises:
        UnsupportedModelError: the file is missing, damaged, of another framework or of Keras 3,
            holds weights only or code, or its model is subclassed or a sim.

    Example:
        >>> import tempfile, tf_keras, keras_edgeq as eq
        >>> model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(2)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.keras")
        ...     eq.load_model(f"{folder}/model.keras").output_shape
        (None, 2)
    """
    path = Path(path)
    if not allow_lambda:
        refuse_code(path, "Allow it with allow_lambda=True or --allow-lambda", custom_objects)
    else:
        saved_config(path)
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


def refuse_code(path: Path, way_out: str, custom_objects: Mapping[str, Any] | None = None) -> None:
    """Raise where a saved model holds Python code, before Keras sees the file.

    Raises:
        UnsupportedModelError: names the layers and says `way_out`; or the file is no model.
    """
    found = list(dict.fromkeys(_code(saved_config(path), "", set(custom_objects or ()))))
    if found:
        names = ", ".join(repr(name) for name in found)
        raise UnsupportedModelError(
            f"{path} holds Python code in {names}, as Lambda layers do, and loading would run it. "
            f"{way_out} if you trust where the file came from; better, save the model with "
            "ordinary layers in place of the code."
        )


def saved_config(path: Path) -> Any:
    """Return the configuration in a saved model as JSON values; nothing of it is executed.

    Raises:
        UnsupportedModelError: the file is missing, damaged, or no model of `tf_keras`.
    """
    config = _read_config(path)
    check_graph(path, config)
    return config


def _read_config(path: Path) -> Any:
    if not path.exists():
        raise UnsupportedModelError(f"No such model: {path}.")
    try:
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
        _check_version(path, json.loads(file.read("metadata.json")).get("keras_version"))
        return json.loads(file.read("config.json"))


def _h5_config(path: Path) -> Any:
    with h5py.File(path, "r") as file:
        version, config = file.attrs.get("keras_version"), file.attrs.get("model_config")
    if config is None:
        raise UnsupportedModelError(
            f"{path} holds no model, at most its weights. Save the whole model: "
            "model.save('model.keras')."
        )
    _check_version(path, version)
    return json.loads(config)


def _folder_config(path: Path) -> Any:
    if not (path / "saved_model.pb").exists():
        raise UnsupportedModelError(f"{path} is a folder, but no SavedModel: no saved_model.pb.")
    if not (path / KERAS_METADATA).exists():
        raise UnsupportedModelError(
            f"{path} is a SavedModel without Keras layers in it (no {KERAS_METADATA}), a frozen "
            "one perhaps. Save the model with tf_keras: model.save('model.keras')."
        )
    metadata = saved_metadata_pb2.SavedMetadata()
    metadata.ParseFromString((path / KERAS_METADATA).read_bytes())
    return [json.loads(node.metadata) for node in metadata.nodes]


def _check_version(path: Path, version: Any) -> None:
    text = version.decode() if isinstance(version, bytes) else str(version or "")
    if text.partition(".")[0].isdigit() and int(text.partition(".")[0]) >= 3:
        raise UnsupportedModelError(
            f"{path} was saved by Keras {text}; this package takes models of tf_keras (Keras 2). "
            "Build the same model with tf_keras (import tf_keras, or TF_USE_LEGACY_KERAS=1 before "
            "TensorFlow is imported), copy the weights with set_weights(other.get_weights()), and "
            "save it again."
        )


def _code(part: Any, owner: str, known: set[str]) -> Iterator[str]:
    """Yield the names of the layers that hold code, at any depth: nested models, wrappers."""
    if isinstance(part, list):
        for item in part:
            yield from _code(item, owner, known)
    elif isinstance(part, dict):
        config = part.get("config")
        name = config.get("name") if isinstance(config, dict) else part.get("name")
        owner = name if isinstance(name, str) else owner
        if _is_code(part, known):
            yield owner or "a layer without a name"
        for item in part.values():
            yield from _code(item, owner, known)


def _is_code(part: dict, known: set[str]) -> bool:
    if PYTHON_CODE & {str(part.get("class_name")), str(part.get("function_type"))}:
        return True
    if part.get("class_name") != "function":
        return False
    # A .keras file may name any function of any module; Keras imports and calls it.
    module, name = str(part.get("module") or "builtins"), str(part.get("config"))
    foreign = module.partition(".")[0] not in KERAS_MODULES or hasattr(builtins, name)
    return foreign and not known & {name, str(part.get("registered_name"))}


def _first_line(error: Exception) -> str:
    text = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
    return text if text.endswith(".") else f"{text}."
