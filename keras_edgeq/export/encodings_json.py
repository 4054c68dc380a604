"""Encodings files, version 1.0.0 of AIMET: the grids of a sim as JSON, and back.

The only place that knows AIMET's offset: `-zero_point` on the unsigned grid, so a signed grid of
8 bits with zero point 0 has offset -128.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_edgeq.errors import EncodingsError
from keras_edgeq.files import write_whole
from keras_edgeq.graph.rebuild import rebuild
from keras_edgeq.layers import FakeQuant
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.spec.tensor_ref import TensorRef

VERSION = "1.0.0"
MAX_FILE_BYTES = 200_000_000
SECTIONS = {"activation_encodings": "activation", "param_encodings": "parameter"}
Key = tuple[str, str]


def keras_encodings(sim: QuantSim) -> dict[str, Any]:
    """Return the sim's grids by the sim's tensor names; `load_encodings` gives them back exactly.

    Biases have no entry: their grid is input scale times weight scale.
    """
    grids = {key: _encoding_of(q) for key, q in _quantizers(sim).items()}
    return _document(sim, grids, {"names": "keras"})


def onnx_encodings(sim: QuantSim, model: Any, names: Mapping[TensorRef, str]) -> dict[str, Any]:
    """Return the sim's grids by the tensor names of `to_onnx_float(sim)`.

    Float activations of the ONNX graph without an entry are listed under `keras_edgeq/absent` with
    the reason. Biases have no entry: their grid is input scale times weight scale.

    Args:
        sim: the sim that was exported.
        model: the ONNX model.
        names: the ONNX name of each tensor.
    """
    from keras_edgeq.export.onnx_float import absent_tensors

    quantizers, plan = _quantizers(sim), sim.record.plan
    grids: dict[Key, Encoding] = {}
    for ref, name in names.items():
        kind = "param_encodings" if ref.kind == "param" else "activation_encodings"
        owner = ref if ref.kind == "param" else plan.owner(ref)
        quantizer = quantizers.get((kind, str(owner)))
        if quantizer is not None:
            grids[kind, name] = _encoding_of(quantizer)
    absent = absent_tensors(model, sim, names)
    return _document(sim, grids, {"names": "onnx", "absent": absent})


def write_aimet_folder(sim: QuantSim, folder: str | Path, name: str = "model") -> Path:
    """Write the pair that Qualcomm AI Hub compiles, and return its folder.

    Args:
        sim: a calibrated sim.
        folder: where `<name>.aimet/` is made, with `<name>.onnx` and `<name>.encodings` inside.
        name: stem of the names.

    Raises:
        ExportError: the sim cannot be converted or the place not written.
    """
    import onnx

    from keras_edgeq.export.onnx_float import to_onnx_float

    model, names = to_onnx_float(sim)
    text = json.dumps(onnx_encodings(sim, model, names), indent=1, allow_nan=False)
    path = Path(folder) / f"{name}.aimet"

    def write(target: Path) -> None:
        target.mkdir()
        onnx.save(model, str(target / f"{name}.onnx"))
        (target / f"{name}.encodings").write_text(text + "\n", encoding="utf-8")

    write_whole(path, write)
    return path


def load_encodings(sim: QuantSim, path: str | Path, strict: bool = True) -> QuantSim:
    """Return a sim like `sim` with the grids of a file that `keras_encodings` describes.

    Args:
        sim: a sim of the same model and profile; it is not changed.
        path: the JSON file, tensors by the sim's names.
        strict: a tensor that only one side knows is an error; otherwise unknown tensors of the
            file are ignored and missing ones keep what the sim has.

    Raises:
        EncodingsError: the file cannot be read, is malformed, of another version, or does not
            fit the sim.
    """
    entries, quantizers = _read(Path(path)), _quantizers(sim)
    if strict:
        _check_names(Path(path), entries, quantizers)
    grids = {
        key: entry.encoding(quantizers[key]) for key, entry in entries.items() if key in quantizers
    }
    loaded = _copy(sim)
    own = _quantizers(loaded)
    for key, encoding in grids.items():
        own[key].assign(encoding)
    plan = sim.record.plan
    changed = {
        ref: replace(spec, bits=grids[key].spec.bits)
        for ref, spec in plan.specs.items()
        if (key := _key(ref)) in grids
    }
    loaded.keep(plan=plan.replace(changed))
    return loaded


@dataclass(frozen=True)
class Entry:
    """One checked entry of a file."""

    name: str
    bits: int
    scale: np.ndarray
    offset: np.ndarray

    @classmethod
    def parse(cls, data: Any, where: str) -> Entry:
        """Check the types and ranges of an entry; `where` names it in errors."""
        if not isinstance(data, dict) or not isinstance(data.get("name"), str):
            raise EncodingsError(f"{where} is not an object with a name.")
        where = f"{where} ({data['name']!r})"
        if data.get("dtype") != "INT":
            raise EncodingsError(f"{where}: dtype is {data.get('dtype')!r}; only 'INT' is known.")
        bits: Any = data.get("bw")
        scale: Any = data.get("scale")
        offset: Any = data.get("offset")
        if type(bits) is not int or not 2 <= bits <= 16:
            raise EncodingsError(f"{where}: bw is {bits!r}; it is an integer from 2 to 16.")
        if not _numbers(scale, (int, float)) or not _numbers(offset, int):
            raise EncodingsError(f"{where}: scale and offset are non-empty lists of numbers.")
        if len(scale) != len(offset):
            raise EncodingsError(f"{where}: {len(scale)} scales but {len(offset)} offsets.")
        try:
            with np.errstate(over="ignore"):
                scales = np.array([float(s) for s in scale]).astype(np.float32)
        except OverflowError:  # an integer beyond float64
            scales = np.array([np.inf], np.float32)
        if not np.all(np.isfinite(scales) & (scales > 0.0)):
            raise EncodingsError(f"{where}: a scale is not a positive finite float32.")
        if not all(1 - 2**bits <= o <= 0 for o in offset):
            raise EncodingsError(f"{where}: an offset is not in [{1 - 2**bits}, 0].")
        return cls(data["name"], bits, scales, np.array(offset, np.int32))

    def encoding(self, quantizer: FakeQuant) -> Encoding:
        """Return the entry as a grid of the quantizer's kind."""
        shape, spec = tuple(quantizer.scale.shape), quantizer.spec
        if self.scale.size != int(np.prod(shape, dtype=int)):
            raise EncodingsError(
                f"{self.name!r} has {self.scale.size} scales in the file; the sim has "
                f"{int(np.prod(shape, dtype=int))}."
            )
        signed = spec.signed
        if signed is None:
            signed = bool(np.any(self.offset)) if spec.symmetric else False
        zero_point = -self.offset - (2 ** (self.bits - 1) if signed else 0)
        if spec.symmetric and np.any(zero_point):
            raise EncodingsError(
                f"{self.name!r} has a zero point in the file; the sim's grid is symmetric."
            )
        spec = replace(spec, bits=self.bits, signed=signed)
        return Encoding(spec, self.scale.reshape(shape), zero_point.reshape(shape).astype(np.int32))


def _document(sim: QuantSim, grids: Mapping[Key, Encoding], notes: dict) -> dict[str, Any]:
    """Return a 1.0.0 document; `notes` go where AIMET readers do not look."""
    profile = sim.record.profile
    sections = {
        section: [_entry(name, grid) for (own, name), grid in grids.items() if own == section]
        for section in SECTIONS
    }
    return {
        "version": VERSION,
        "producer": {"package": "keras_edgeq"},
        "quantizer_args": {
            "activation_bitwidth": profile.activation.bits,
            "dtype": "int",
            "is_symmetric": profile.weight.symmetric,
            "param_bitwidth": profile.weight.bits,
            "per_channel_quantization": bool(profile.per_channel),
            "quant_scheme": "min_max",
        },
        **sections,
        "keras_edgeq": {"profile": profile.name, **notes},
    }


def _entry(name: str, encoding: Encoding) -> dict[str, Any]:
    spec = encoding.spec
    shift = 2 ** (spec.bits - 1) if spec.signed else 0
    return {
        "name": name,
        "dtype": "INT",
        "enc_type": "PER_CHANNEL" if encoding.scale.ndim else "PER_TENSOR",
        "bw": spec.bits,
        "is_sym": bool(spec.symmetric),
        "scale": [float(s) for s in encoding.scale.ravel()],
        "offset": [-(int(z) + shift) for z in encoding.zero_point.ravel()],
    }


def _quantizers(sim: QuantSim) -> dict[Key, FakeQuant]:
    """Return every quantizer by section of the file and printed name."""
    found = {("activation_encodings", name): q for name, q in sim.quantizers().items()}
    for layer in sim.quantized_layers().values():
        for name, quantizer in layer.quantizers.items():
            found["param_encodings", f"{layer.name}/{name}"] = quantizer
    return found


def _key(ref: TensorRef) -> Key:
    return ("param_encodings" if ref.kind == "param" else "activation_encodings", str(ref))


def _encoding_of(quantizer: FakeQuant) -> Encoding:
    encoding = quantizer.encoding
    if encoding is None:
        raise EncodingsError(f"{quantizer.tensor!r} has no grid; calibrate the sim first.")
    return encoding


def _copy(sim: QuantSim) -> QuantSim:
    """Return a sim of its own variables with the same values, record and statistics."""
    copy = rebuild(sim, make=QuantSim)
    assert isinstance(copy, QuantSim)  # rebuild returns what `make` makes
    copy.attach(sim.record)
    copy.stats = sim.stats
    return copy


def _read(path: Path) -> dict[Key, Entry]:
    """Return the checked entries of a file."""
    try:
        is_huge = path.stat().st_size > MAX_FILE_BYTES
        data = None if is_huge else json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EncodingsError(f"Cannot read {path}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise EncodingsError(f"{path} is not JSON: {error}") from None
    if is_huge:
        raise EncodingsError(f"{path} is larger than {MAX_FILE_BYTES // 10**6} MB.")
    version = data.get("version") if isinstance(data, dict) else None
    if not isinstance(data, dict) or version != VERSION:
        raise EncodingsError(f"{path} has encodings version {version!r}; only {VERSION!r} is read.")
    entries: dict[Key, Entry] = {}
    for section in SECTIONS:
        items = data.get(section)
        if not isinstance(items, list):
            raise EncodingsError(f"{path}: {section} is not a list.")
        for number, item in enumerate(items):
            entry = Entry.parse(item, f"{path}: {section}[{number}]")
            if (section, entry.name) in entries:
                raise EncodingsError(f"{path}: {section} names {entry.name!r} twice.")
            entries[section, entry.name] = entry
    return entries


def _numbers(values: Any, types: Any) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and all(isinstance(v, types) and not isinstance(v, bool) for v in values)
    )


def _check_names(path: Path, entries: Iterable[Key], quantizers: Iterable[Key]) -> None:
    in_file, in_sim = set(entries), set(quantizers)
    unknown = _listed(in_file - in_sim)
    missing = _listed(in_sim - in_file)
    parts = [f"the sim does not have {unknown}"] if unknown else []
    parts += [f"the file does not have {missing}"] if missing else []
    if parts:
        raise EncodingsError(
            f"{path} does not fit the sim: {'; '.join(parts)}. "
            "strict=False ignores both and keeps what the sim has."
        )


def _listed(keys: Iterable[Key]) -> str:
    names = [f"{SECTIONS[section]} {name!r}" for section, name in sorted(keys)]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more
