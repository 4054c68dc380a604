"""Write encodings: by the sim's tensor names, or by those of its float ONNX model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from keras_edgeq.errors import EncodingsError
from keras_edgeq.export.encodings import format_0_6, format_1_0, format_2_0
from keras_edgeq.export.encodings.entry import ACTIVATION, PARAM, TensorGrid
from keras_edgeq.export.encodings.grids import check_blocks, encoding_of, keras_grids, quantizers
from keras_edgeq.files import write_whole
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.spec.tensor_ref import TensorRef

DEFAULT_VERSION = "1.0.0"
WRITERS = {"0.6.1": format_0_6, "1.0.0": format_1_0, "2.0.0": format_2_0}


def keras_encodings(sim: QuantSim, version: str = DEFAULT_VERSION) -> dict[str, Any]:
    """Return the sim's grids by the sim's tensor names; `load_encodings` gives them back exactly.

    Biases have no entry: their grid is input scale times weight scale. Weights in blocks are
    written, and not read.

    Args:
        sim: a calibrated sim.
        version: `"0.6.1"`, `"1.0.0"` or `"2.0.0"`.

    Raises:
        EncodingsError: the sim is not calibrated, or the version is unknown or cannot hold a grid.
    """
    return _document(sim, keras_grids(sim), {"names": "keras"}, version)


def onnx_encodings(
    sim: QuantSim, model: Any, names: Mapping[TensorRef, str], version: str = DEFAULT_VERSION
) -> dict[str, Any]:
    """Return the sim's grids by the tensor names of `to_onnx_float(sim)`.

    Float activations of the ONNX graph without an entry are listed under `keras_edgeq/absent` with
    the reason. Biases have no entry: their grid is input scale times weight scale.

    Args:
        sim: the sim that was exported.
        model: the ONNX model.
        names: the ONNX name of each tensor.
        version: `"0.6.1"`, `"1.0.0"` or `"2.0.0"`.
    """
    from keras_edgeq.export.onnx.float_graph import absent_tensors

    own, plan = quantizers(sim), sim.record.plan
    grids = []
    for ref, name in names.items():
        section = PARAM if ref.kind == "param" else ACTIVATION
        owner = ref if ref.kind == "param" else plan.owner(ref)
        quantizer = own.get((section, str(owner)))
        if quantizer is not None:
            encoding = encoding_of(quantizer)
            grids.append(TensorGrid(section, name, encoding, _onnx_axis(model, name, encoding)))
    absent = absent_tensors(model, sim, names)
    return _document(sim, grids, {"names": "onnx", "absent": absent}, version)


def write_aimet_folder(
    sim: QuantSim, folder: str | Path, name: str = "model", version: str = DEFAULT_VERSION
) -> Path:
    """Write the pair that Qualcomm AI Hub compiles, and return its folder.

    Args:
        sim: a calibrated sim.
        folder: where `<name>.aimet/` is made, with `<name>.onnx` and `<name>.encodings` inside.
        name: stem of the names.
        version: of the encodings.

    Raises:
        ExportError: the sim cannot be converted or the place not written.
        EncodingsError: the version is unknown or cannot hold a grid.
    """
    path = Path(folder) / f"{name}.aimet"
    write_whole(path, aimet_folder(sim, name, version))
    return path


def aimet_folder(sim: QuantSim, name: str, version: str) -> Callable[[Path], None]:
    """Convert a sim, and return what writes the folder of `write_aimet_folder`."""
    import onnx

    from keras_edgeq.export.onnx.float_graph import to_onnx_float

    model, names = to_onnx_float(sim)
    text = json.dumps(onnx_encodings(sim, model, names, version), indent=1, allow_nan=False)

    def write(target: Path) -> None:
        target.mkdir()
        onnx.save(model, str(target / f"{name}.onnx"))
        (target / f"{name}.encodings").write_text(text + "\n", encoding="utf-8")

    return write


def check_version(version: str) -> None:
    """Raise unless encodings of a version can be written.

    Raises:
        EncodingsError: they cannot.
    """
    if version not in WRITERS:
        raise EncodingsError(
            f"Encodings version {version!r} is not written; {', '.join(WRITERS)} are."
            + did_you_mean(version, WRITERS)
        )


def _document(
    sim: QuantSim, grids: Iterable[TensorGrid], notes: dict, version: str
) -> dict[str, Any]:
    """Return a document; `notes` go where AIMET readers do not look."""
    check_version(version)
    check_blocks(sim)
    profile = sim.record.profile
    return {
        "version": version,
        "producer": {"package": "keras_edgeq"},
        "quantizer_args": {
            "activation_bitwidth": 32 if profile.activation is None else profile.activation.bits,
            "dtype": "float" if profile.weight.is_half else "int",
            "is_symmetric": profile.weight.symmetric,
            "param_bitwidth": profile.weight.bits,
            "per_channel_quantization": bool(profile.per_channel),
            "quant_scheme": "min_max",
        },
        **WRITERS[version].sections(grids),
        "keras_edgeq": {"profile": profile.name, **notes},
    }


def _onnx_axis(model: Any, name: str, encoding: Encoding) -> int | None:
    """Return the channel axis of an ONNX weight; None if the scales do not lie on one."""
    if not encoding.scale.ndim:
        return None
    dims = next(list(c.dims) for c in model.graph.initializer if c.name == name)
    if encoding.spec.block_size:
        kinds = {node.op_type for node in model.graph.node if name in node.input}
        if len(dims) != 2 or encoding.scale.ndim != 2 or kinds != {"MatMul"}:
            raise EncodingsError(
                f"{name!r} has a scale per block, and the ONNX graph holds it in another layout; "
                "encodings by the names of ONNX hold blocks of Dense layers. Give the layer a "
                "precision without blocks."
            )
        return None
    kinds = {node.op_type for node in model.graph.node if name in node.input}
    axis = 0 if kinds == {"Conv"} else 1 if kinds == {"ConvTranspose"} else len(dims) - 1
    return axis if dims[axis] == encoding.scale.size else None
