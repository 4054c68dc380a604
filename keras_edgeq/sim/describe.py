"""Say how a target computes a model, layer by layer, before any data is read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import tf_keras

from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.ops import op_of, op_type
from keras_edgeq.plan.asked import Asked, by_layer
from keras_edgeq.plan.quant_plan import QuantPlan
from keras_edgeq.prepare import prepare
from keras_edgeq.prepare.functional import as_functional
from keras_edgeq.profiles import TargetProfile, load_profile
from keras_edgeq.sim.resolve import resolve
from keras_edgeq.table import aligned, html

HEADER = ("layer", "operation", "computes", "")


@dataclass(frozen=True)
class LayerRow:
    """How one layer is computed.

    Args:
        layer: its name in the prepared model; parts of a split layer are `conv/relu`.
        op: its operation in the vocabulary of the profiles.
        computes: `"integer"`; `"fused"` into the kernel before it; `"moves integers"` without
            arithmetic; `"float"`.
        why: the grid it is on, what it is fused into, or why it stays float.
    """

    layer: str
    op: str
    computes: str
    why: str


@dataclass(frozen=True)
class ModelDescription:
    """What a target computes in integers of a model; prints as a table.

    Args:
        model: name of the model.
        profile: name of the profile.
        rows: the layers in graph order, inputs and layers without computation left out.

    Example:
        >>> found = eq.describe(model)
        >>> found.floats, found.summary
        ((), '3 of 3 layers compute in integers, 1 more are fused into them.')
    """

    model: str
    profile: str
    rows: tuple[LayerRow, ...]

    @property
    def floats(self) -> tuple[LayerRow, ...]:
        """The layers that stay float."""
        return tuple(row for row in self.rows if row.computes == "float")

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @property
    def summary(self) -> str:
        """How many layers compute in integers, in a sentence."""
        alone = [row for row in self.rows if row.computes != "fused"]
        count, stay = len(alone), len(self.floats)
        summary = f"{count - stay} of {count} layers compute in integers"
        if count < len(self.rows):
            summary += f", {len(self.rows) - count} more are fused into them"
        if stay:
            summary += f"; {stay} {'stays' if stay == 1 else 'stay'} float"
        return f"{summary}."

    def table(self) -> list[tuple[str, ...]]:
        """Return the cells for people, titles first."""
        return [HEADER, *((row.layer, row.op, row.computes, row.why) for row in self.rows)]

    def __repr__(self) -> str:
        return f"<{self.model} on {self.profile}: {self.summary.rstrip('.')}>"

    def __str__(self) -> str:
        return f"{self.model} on {self.profile}\n{aligned(self.table())}\n{self.summary}"

    def _repr_html_(self) -> str:
        return html(f"{self.model} on {self.profile}", self.table(), self.summary)


def describe(
    model: tf_keras.Model,
    profile: str | Path | TargetProfile = "litert_int8",
    precision: Asked = None,
) -> ModelDescription:
    """Return what a target computes in integers of `model`, and what stays float and why.

    Needs no data and does not change the model. The rows are the layers of the prepared model:
    batch norms are folded, fused activations are layers of their own. Layers that make integers or
    booleans, such as masks, have no row.

    Args:
        model: as for `quantize`.
        profile: as for `quantize`.
        precision: as for `quantize`.

    Raises:
        UnsupportedModelError: as for `quantize`; also if the profile quantizes nothing.
        ProfileError: no such profile or precision, or a name matches nothing.

    Example:
        >>> import tf_keras, keras_edgeq as eq
        >>> x = tf_keras.Input((8,))
        >>> model = tf_keras.Model(x, tf_keras.layers.Dense(2, activation="relu", name="d")(x))
        >>> [(row.layer, row.computes) for row in eq.describe(model).rows]
        [('d', 'integer'), ('d/relu', 'fused')]
    """
    target = load_profile(profile)
    model = as_functional(model)
    asked = by_layer(precision, target)
    prepared = prepare(model, target, asked)
    plan = resolve(prepared, target, asked)
    rows: dict[str, LayerRow] = {}
    graph = LayerGraph.of(prepared)
    for node in graph.nodes:
        op = op_of(node.layer)
        if not op.transparent and node.is_float and node.layer.name not in rows:
            computes, why = _computes(graph, node, plan, target)
            rows[node.layer.name] = LayerRow(node.layer.name, op.name, computes, why)
    return ModelDescription(model.name, target.name, tuple(rows.values()))


def _computes(
    graph: LayerGraph, node: GraphNode, plan: QuantPlan, profile: TargetProfile
) -> tuple[str, str]:
    name, op = node.layer.name, op_type(node.layer)
    if name in plan.floats:
        return "float", plan.floats[name]
    owner = plan.owner(node.outputs[0])
    if node.inputs and _is_inside(graph, node, plan, profile):
        return "fused", f"into {node.inputs[0].layer}"
    if op in profile.same_grid:
        return "moves integers", f"on the grid of {owner}"
    if op in profile.regrid:
        return "integer", f"on the grid of {owner}"
    fixed = None if owner is None else plan.specs[owner].fixed_range
    if fixed is not None:
        return "integer", f"fixed range {fixed[0]:g} to {fixed[1]:g}"
    return "integer", _weights(name, plan)


def _is_inside(graph: LayerGraph, node: GraphNode, plan: QuantPlan, profile: TargetProfile) -> bool:
    """Tell whether a call is fused into the one before: there is no quantizer in between."""
    maker = graph.producer(node.inputs[0])
    pair = (op_type(maker.layer), op_type(node.layer))
    follows = any(pair in pairwise(chain) for chain in profile.fused)
    return follows and plan.owner(node.inputs[0]) is None and maker.is_float


def _weights(name: str, plan: QuantPlan) -> str:
    """Return the grids of a layer's parameters in words."""
    words = []
    for ref, spec in plan.specs.items():
        if ref.kind == "param" and ref.layer == name:
            scales = " per channel" if spec.axes else ""
            scales = f" per block of {spec.block_size}" if spec.block_size else scales
            words.append(f"{ref.param} int{spec.bits}{scales}")
    return ", ".join(words)
