"""What findings are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keras_edgeq.diagnose.choices import Choices
from keras_edgeq.diagnose.rows import FloatLayer, GraphLayer, TensorDiagnosis, WeightDiagnosis
from keras_edgeq.runtime.run_report import RunReport


@dataclass(frozen=True)
class Seen:
    """What findings are drawn from.

    Args:
        tensors: rows of the quantized tensors.
        weights: rows of the layers with weights.
        floats: layers in float.
        graph: all layers.
        runs: of artifacts.
        beyond: tensor -> its range on the data over that in the calibration.
        clipping: share of the noise at the outputs that goes without any clipping, and the dB won.
        choices: what the target has for each layer.
    """

    tensors: Sequence[TensorDiagnosis]
    weights: Sequence[WeightDiagnosis]
    floats: Sequence[FloatLayer]
    graph: Sequence[GraphLayer]
    runs: Sequence[RunReport]
    beyond: Mapping[str, float]
    clipping: tuple[float, float]
    choices: Choices
