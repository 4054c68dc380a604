"""Encodings files as AIMET writes them: the grids of a sim as JSON, and back.

The only place that knows AIMET's offset: `-zero_point` on the unsigned grid, so a signed grid of
8 bits with zero point 0 has offset -128.
"""

from keras_edgeq.export.encodings.load import load_encodings
from keras_edgeq.export.encodings.write import (
    keras_encodings,
    onnx_encodings,
    write_aimet_folder,
)

__all__ = ["keras_encodings", "load_encodings", "onnx_encodings", "write_aimet_folder"]
