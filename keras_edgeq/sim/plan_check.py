"""Check a given plan against its model, and the grids of a new one against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tf_keras

from keras_edgeq.errors import ProfileError
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.ops import op_type
from keras_edgeq.plan.quant_plan import QuantPlan
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.spec.quant_spec import QuantSpec
from keras_edgeq.spec.tensor_ref import TensorRef


def check_is_plan(plan: Any, precision: Mapping[str, str]) -> None:
    """Raise unless something is a plan, given alone.

    Args:
        plan: that.
        precision: what was asked for beside it, which has to be nothing.

    Raises:
        ProfileError: it is something else, or names the precisions.
    """
    if not isinstance(plan, QuantPlan):
        raise ProfileError(
            f"plan is of type {type(plan).__name__}; it is a QuantPlan, such as another sim's "
            "sim.record.plan, or QuantPlan.from_json(...) of a file."
        )
    if precision:
        raise ProfileError(
            f"A plan says already what precision={dict(precision)} would; give one of them."
        )


def check_plan(plan: QuantPlan, model: tf_keras.Model) -> None:
    """Raise unless a plan names tensors of a model only.

    Args:
        plan: the plan.
        model: prepared, its batch norms folded.

    Raises:
        ProfileError: names the tensors that the model does not have.
    """
    graph = LayerGraph.of(model)
    known: set[TensorRef] = set()
    for node in graph.nodes:
        known |= {*node.outputs, *(node.call.input_ref(i) for i in range(len(node.inputs)))}
    layers = {node.layer.name: node.layer for node in graph.nodes}
    named = {*plan.specs, *plan.shared, *plan.carriers, *plan.rounding}
    foreign = sorted(
        str(ref)
        for ref in named
        if (
            getattr(layers.get(ref.layer), ref.param, None) is None
            if ref.kind == "param"
            else ref not in known
        )
    )
    foreign += sorted(name for name in plan.kernels if name not in layers)
    if foreign:
        raise ProfileError(
            f"The plan is that of another model: {model.name!r} has no {', '.join(foreign[:10])}."
        )


def check_joint(
    specs: Mapping[TensorRef, QuantSpec], node: GraphNode, graph: LayerGraph, profile: TargetProfile
) -> None:
    """Raise if tensors that a call needs on one grid were given different ones.

    Raises:
        ProfileError: names both and the rules they come from.
    """
    one, *others = specs
    for other in others:
        if specs[other] != specs[one]:
            ops = [op_type(graph.producer(ref).layer) for ref in (one, other)]
            raise ProfileError(
                f"Layer {node.layer.name!r} needs one grid for its inputs, but profile "
                f"{profile.name!r} gives them different ones: its rule for {ops[0]} "
                f"({one}) conflicts with that for {ops[1]} ({other})."
            )
