"""What a plan says of the tensors of a prepared model, batch norms that train included."""

from __future__ import annotations

from dataclasses import dataclass, replace

import tf_keras

from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.plan.quant_plan import QuantPlan
from keras_edgeq.prepare.fold_batch_norms import batch_norms_behind
from keras_edgeq.spec.tensor_ref import TensorRef


@dataclass(frozen=True, eq=False)
class PlannedGrids:
    """A plan, read for the graph it is inserted into.

    Args:
        graph: of the prepared model.
        plan: of the model with its batch norms folded.
        behind: batch norm -> layer that it folds into: what the plan says of that layer's output
            holds for the output of the batch norm.
    """

    graph: LayerGraph
    plan: QuantPlan
    behind: dict[str, str]

    @classmethod
    def of(cls, prepared: tf_keras.Model, plan: QuantPlan) -> PlannedGrids:
        """Read a plan for a prepared model."""
        return cls(LayerGraph.of(prepared), plan, batch_norms_behind(prepared))

    def planned(self, ref: TensorRef) -> TensorRef | None:
        """Return what the plan calls a tensor, None for one that a batch norm still changes."""
        if ref.kind == "output" and ref.layer in self.behind:
            return replace(ref, layer=self.behind[ref.layer])
        if ref.kind == "output" and ref.layer in self.behind.values():
            return None
        return ref

    def quantized_on(self, ref: TensorRef) -> TensorRef | None:
        """Return the owner of the grid that a tensor is rounded onto, None if it is not."""
        planned = self.planned(ref)
        if planned is None or planned in self.plan.carriers:
            return None  # what a Concat makes of tensors on fixed grids owns the grid it lies on
        return planned if planned in self.plan.specs else self.plan.shared.get(planned)

    def lies_on(self, ref: TensorRef) -> TensorRef | None:
        """Return the owner of the grid that a tensor lies on, rounded there or moved."""
        planned = self.planned(ref)
        return None if planned is None else self.plan.owner(planned)

    def read_on(self, node: GraphNode, index: int = 0) -> TensorRef | None:
        """Return the grid of a tensor that a call reads, None if it is float."""
        return self.plan.owner(node.call.input_ref(index)) or self.lies_on(node.inputs[index])

    def is_half(self, owner: TensorRef) -> bool:
        """Tell whether a grid is half precision, which has no steps."""
        return self.plan.specs[owner].is_half

    def is_rounded(self, ref: TensorRef) -> bool:
        """Tell whether a quantizer that makes whole numbers stands on a tensor."""
        owner = self.quantized_on(ref)
        return owner is not None and not self.is_half(owner)
