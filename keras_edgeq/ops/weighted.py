"""Rows of operations with weights."""

from __future__ import annotations

from typing import Any

import tf_keras

from keras_edgeq.ops import einsum
from keras_edgeq.ops.cell_layers import CellDense
from keras_edgeq.ops.channel_map import CHANNELS_FIRST, convolution, depthwise, transposed
from keras_edgeq.ops.constant_operands import AddConstant, MultiplyConstant
from keras_edgeq.ops.matrix_form import ConvolutionForm, DepthwiseForm, MatrixForm, TransposedForm
from keras_edgeq.ops.op import Op, Operands, Unsupported, Weights

L = tf_keras.layers
A_TABLE = Unsupported("looks its numbers up, so that no sums can make up for their rounding")
ONE_BY_ONE = Unsupported("has a number of its own for each element")
IRREGULAR = Unsupported("is transposed, with a dilation or an output padding")


def _weights(kernel: str, *axes: int, bias: str | None = "bias") -> Any:
    found = Weights(kernel, axes, bias)
    return lambda _: found


def _channels_last(form: Any, kernel: str = "kernel") -> Any:
    def matrix(layer: Any) -> MatrixForm | Unsupported:
        return form(layer, kernel) if layer.data_format == "channels_last" else CHANNELS_FIRST

    return matrix


def _transposed_form(layer: Any) -> MatrixForm | Unsupported:
    if any(rate != 1 for rate in layer.dilation_rate) or layer.output_padding is not None:
        return IRREGULAR
    return _channels_last(TransposedForm)(layer)


def _is_unpadded(layer: Any) -> bool:
    return layer.padding == "valid" or set(layer.kernel_size) == {1}


def _always(_: Any) -> bool:
    return True


def _convolution(
    kind: type, *axes: int, form: Any = ConvolutionForm, channels: Any = convolution
) -> Op:
    kernel = "depthwise_kernel" if form is DepthwiseForm else "kernel"
    return Op(
        name=kind.__name__,
        classes=(kind,),
        weights=_weights(kernel, *axes),
        matrix=_channels_last(form, kernel),
        channels=channels,
        macs="result",
        window=True,
        sees_all=_is_unpadded,
    )


def _transposed(kind: type, name: str, axis: int) -> Op:
    return Op(
        name=name,
        classes=(kind,),
        weights=_weights("kernel", axis),
        matrix=_transposed_form,
        channels=transposed,
        macs="input",
        window=True,
    )


MATMUL = Op(name="MatMul", symbols=("linalg.matmul",), macs="operands", operands=Operands(2))
ROWS = (
    _convolution(L.Conv1D, 2),
    _convolution(L.Conv2D, 3),
    _convolution(L.Conv3D, 4),
    _transposed(L.Conv1DTranspose, "ConvTranspose1D", 1),
    _transposed(L.Conv2DTranspose, "ConvTranspose2D", 2),
    _transposed(L.Conv3DTranspose, "ConvTranspose3D", 3),
    _convolution(L.DepthwiseConv1D, 1, 2, form=DepthwiseForm, channels=depthwise),
    _convolution(L.DepthwiseConv2D, 2, 3, form=DepthwiseForm, channels=depthwise),
    Op(
        name="Dense",
        classes=(L.Dense, CellDense),
        weights=_weights("kernel", 1),
        matrix=MatrixForm,
        in_blocks=_always,
        channels=convolution,
        macs="result",
        sees_all=_always,
    ),
    Op(
        name="EinsumDense",
        classes=(L.EinsumDense,),
        weights=lambda layer: Weights("kernel", einsum.kernel_axes(layer)),
        matrix=einsum.matrix,
        in_blocks=einsum.in_blocks,
        channels=einsum.channels,
        macs="equation",
        sees_all=_always,
    ),
    Op(
        name="Embedding",
        classes=(L.Embedding,),
        weights=_weights("embeddings", 1, bias=None),
        matrix=A_TABLE,
        channels=A_TABLE,
        spread="table",
        reads_ids=True,
    ),
    Op(
        name="PRelu",
        classes=(L.PReLU,),
        weights=_weights("alpha", bias=None),
        matrix=ONE_BY_ONE,
        channels=ONE_BY_ONE,
        scale="passes",
        spread="each",
        activates=True,
    ),
    *(
        Op(
            name=name,
            classes=(kind,),
            weights=_weights("value", bias=None),
            matrix=ONE_BY_ONE,
            channels=ONE_BY_ONE,
            spread="each",
        )
        for name, kind in (("AddConstant", AddConstant), ("MulConstant", MultiplyConstant))
    ),
    MATMUL,
)
