"""The artifacts of each export format: converted here, written by whoever knows where."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from keras_edgeq.errors import EdgeqError, ExportError
from keras_edgeq.graph.keras_file import save_keras
from keras_edgeq.layers.swap import LOCK
from keras_edgeq.sim.quant_sim import QuantSim


@dataclass(frozen=True, eq=False)
class Artifact:
    """A file or folder of a format.

    Args:
        kind: what the report calls it.
        name: of the file.
        write: writes it whole to a path.
        runs: whether a runtime can run it.
    """

    kind: str
    name: str
    write: Callable[[Path], object]
    runs: bool = False


@dataclass(frozen=True, eq=False)
class Request:
    """What is exported, and how: `sim`, stem of the file names, and options of `export`."""

    sim: QuantSim
    name: str
    float_io: bool
    encodings_version: str


@dataclass(frozen=True, eq=False)
class Converted:
    """A sim in one format.

    Args:
        artifacts: what is to be written.
        float_ops: result in the TFLite file -> op that stayed float there, and why.
        constant_bytes: bytes of constants in the TFLite file, by the type that holds them.
    """

    artifacts: tuple[Artifact, ...]
    float_ops: Mapping[str, str] = field(default_factory=dict)
    constant_bytes: Mapping[str, int] = field(default_factory=dict)


def convert(kind: str, request: Request) -> Converted:
    """Convert a sim to a format; nothing is written yet.

    Raises:
        EdgeqError: the format cannot hold the sim, its extra is not installed, or the converter
            failed.
    """
    try:
        with LOCK:
            return _CONVERTERS[kind](request)
    except EdgeqError:
        raise
    except ImportError as error:
        extra = _EXTRAS.get(kind, "all")
        raise ExportError(
            f"Format {kind!r} needs {error.name}: pip install 'keras_edgeq[{extra}]'."
        ) from error
    except OSError as error:
        raise ExportError(
            f"Format {kind!r}: cannot write temporary files ({error}); make room, or set TMPDIR."
        ) from error
    except Exception as error:  # converters raise what they like
        raise ExportError(
            f"Format {kind!r}: the converter failed with {type(error).__name__}: {_lines(error)} "
            "Export the other formats, or give the layer it names precision 'FP32'."
        ) from error


def _tflite(request: Request) -> Converted:
    from keras_edgeq.export.tflite.convert import to_tflite

    made = to_tflite(request.sim, request.float_io)
    name = f"{request.name}.tflite"
    artifact = Artifact("tflite", name, lambda path: path.write_bytes(made.content), runs=True)
    return Converted((artifact,), made.floats, made.constant_bytes)


def _onnx(request: Request) -> Converted:
    from keras_edgeq.export.onnx.qdq import to_onnx_qdq

    content = to_onnx_qdq(request.sim).SerializeToString()
    name = f"{request.name}.onnx"
    return Converted((Artifact("onnx", name, lambda p: p.write_bytes(content), runs=True),))


def _encodings(request: Request) -> Converted:
    from keras_edgeq.export.encodings.write import aimet_folder, keras_encodings

    text = json.dumps(keras_encodings(request.sim, request.encodings_version), indent=1)
    write = aimet_folder(request.sim, request.name, request.encodings_version)
    return Converted(
        (
            Artifact(
                "encodings",
                f"{request.name}.encodings.json",
                lambda path: path.write_text(text, encoding="utf-8"),
            ),
            Artifact("aimet", f"{request.name}.aimet", write),
        )
    )


def _saved_model(request: Request) -> Converted:
    from keras_edgeq.export.saved_model import saved_model
    from keras_edgeq.sim.strip import stripped

    model = stripped(request.sim)
    return Converted(
        (
            Artifact("saved_model", "saved_model", saved_model(request.sim), runs=True),
            Artifact("float", f"{request.name}_float.keras", partial(save_keras, model)),
        )
    )


_CONVERTERS: dict[str, Callable[[Request], Converted]] = {
    "tflite": _tflite,
    "onnx": _onnx,
    "encodings": _encodings,
    "saved_model": _saved_model,
}
_EXTRAS = {"tflite": "tflite", "onnx": "onnx", "encodings": "onnx"}


def _lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:3])[:500]
    return text if text.endswith((".", "!")) else f"{text}."
