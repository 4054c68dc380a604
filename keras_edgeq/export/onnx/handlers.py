"""Operations of TensorFlow that tf2onnx does not write, or not as they compute."""

from __future__ import annotations

from typing import Any

import numpy as np


def handlers() -> dict[str, tuple[Any, list]]:
    """Return what writes operations in place of tf2onnx, by their name."""
    return {"Erfc": (_erfc, []), "Select": (_select, []), "SelectV2": (_select, [])}


def _erfc(ctx: Any, node: Any, name: str, _: Any) -> None:
    """Write erfc(x) as 1 - erf(x): the op that Keras computes gelu with."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    erf = ctx.make_node("Erf", node.input, shapes=shapes, dtypes=dtypes)
    one = ctx.make_const(f"{name}/one", np.float32(1.0))
    ctx.remove_node(name)
    ctx.make_node(
        "Sub",
        [one.output[0], erf.output[0]],
        outputs=node.output,
        name=name,
        shapes=shapes,
        dtypes=dtypes,
    )


def _select(ctx: Any, node: Any, name: str, _: Any) -> None:
    """Write a selection as Where.

    Of real numbers, tf2onnx multiplies both branches with 0 or 1 and adds them: NaN and infinity in
    the branch that is not taken become NaN, and -0 becomes 0.
    """
    from tf2onnx.onnx_opset.controlflow import Select

    node.set_attr("handles_nan", True)
    Select.version_9(ctx, node)
