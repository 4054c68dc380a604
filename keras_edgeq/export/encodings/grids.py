"""The grids of a sim by the names that encodings files give them."""

from __future__ import annotations

from keras_edgeq.errors import EncodingsError
from keras_edgeq.export.encodings.blocks import check_whole
from keras_edgeq.export.encodings.entry import ACTIVATION, PARAM, TensorGrid
from keras_edgeq.layers import FakeQuant
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.spec.tensor_ref import TensorRef

Key = tuple[str, str]


def quantizers(sim: QuantSim) -> dict[Key, FakeQuant]:
    """Return every quantizer by section of the file and printed name."""
    found = {(ACTIVATION, name): quantizer for name, quantizer in sim.quantizers().items()}
    for layer in sim.quantized_layers().values():
        for name, quantizer in layer.quantizers.items():
            found[PARAM, f"{layer.name}/{name}"] = quantizer
    return found


def derived(sim: QuantSim) -> set[Key]:
    """Return the biases whose grid is input scale times weight scale."""
    return {key_of(ref) for ref, spec in sim.record.plan.specs.items() if spec.rule == "derived"}


def key_of(ref: TensorRef) -> Key:
    """Return the section and name of a tensor."""
    return (PARAM if ref.kind == "param" else ACTIVATION, str(ref))


def keras_grids(sim: QuantSim) -> list[TensorGrid]:
    """Return every grid of a sim by the sim's names."""
    made = []
    for (section, name), quantizer in quantizers(sim).items():
        encoding = encoding_of(quantizer)
        made.append(TensorGrid(section, name, encoding, _axis(encoding)))
    return made


def encoding_of(quantizer: FakeQuant) -> Encoding:
    """Return the grid of a quantizer.

    Raises:
        EncodingsError: it has none yet.
    """
    encoding = quantizer.encoding
    if encoding is None:
        raise EncodingsError(f"{quantizer.tensor!r} has no grid; calibrate the sim first.")
    return encoding


def check_blocks(sim: QuantSim) -> None:
    """Raise where a weight of a sim does not end with a whole block."""
    for layer in sim.quantized_layers().values():
        for name, quantizer in layer.quantizers.items():
            if quantizer.spec.block_size:
                shape = getattr(layer.layer, name).shape
                check_whole(f"{layer.name}/{name}", encoding_of(quantizer), shape)


def _axis(encoding: Encoding) -> int | None:
    """Return the one axis that owns the scales; None if there is none, or more than one."""
    shape = encoding.scale.shape
    long = [axis for axis, size in enumerate(shape) if size > 1]
    if len(long) > 1 or not shape:
        return None
    return long[0] if long else encoding.spec.axes[0] % len(shape)
