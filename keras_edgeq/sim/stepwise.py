"""Which calls of a sim run on whole numbers of steps, and which read real numbers."""

from __future__ import annotations

from keras_edgeq.graph.layer_graph import GraphNode
from keras_edgeq.ops import op_of, op_type, weights_of
from keras_edgeq.ops.plain import IDENTITY, SELECT, TRAINS_IN_REAL_UNITS
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.sim.planned_grids import PlannedGrids
from keras_edgeq.spec.tensor_ref import TensorRef


def stepwise_calls(grids: PlannedGrids, profile: TargetProfile) -> set[int]:
    """Return the calls that move or average numbers in steps, by the `id` of their node.

    What such a call moves is known in steps only, so all that reads it has to take steps. A call
    with another reader moves real numbers, and so do those around it that would mix the two: calls
    that cannot stay are taken out until all fit. A layer that the target leaves float always reads
    real numbers.
    """
    walk = _Walk(grids, profile)
    while walk.shrinks():
        pass
    return walk.found


class _Walk:
    def __init__(self, grids: PlannedGrids, profile: TargetProfile):
        self.grids, self.profile, self.graph = grids, profile, grids.graph
        self.nodes = [n for n in self.graph.nodes if self._moves(n) or self._regrids(n)]
        self.found = {id(node) for node in self.nodes}

    def shrinks(self) -> bool:
        """Take out what does not fit; tell whether there was anything."""
        before = len(self.found)
        for node in self.nodes:
            if not (self._reads_steps(node) and self._is_read_in_steps(node)):
                self.found.discard(id(node))
        return len(self.found) < before

    def _reads_steps(self, node: GraphNode) -> bool:
        """Tell whether all that a call reads is in steps of one grid."""
        owners = {self.grids.read_on(node, index) for index in range(len(node.inputs))}
        return len(owners) == 1 and all(
            self._is_in_steps(node.call.input_ref(index), ref)
            for index, ref in enumerate(node.inputs)
        )

    def _is_in_steps(self, place: TensorRef, ref: TensorRef) -> bool:
        """Tell whether a tensor is known in steps at a place where it is read."""
        if self.grids.quantized_on(place) is not None:
            return self.grids.is_rounded(place)
        maker = self.graph.producer(ref)
        moved = id(maker) in self.found and self._moves(maker)
        return moved or self.grids.is_rounded(ref)

    def _is_read_in_steps(self, node: GraphNode) -> bool:
        """Tell whether all readers of a call take steps; sums are rounded before they are read."""
        if self._regrids(node):
            return True
        (ref,) = node.outputs
        return ref not in self.graph.outputs and all(
            id(reader) in self.found or self._sums(reader) or self._requantizes(reader, ref)
            for reader in self.graph.consumers(ref)
        )

    def _requantizes(self, reader: GraphNode, ref: TensorRef) -> bool:
        """Tell whether a tensor is quantized again wherever a call reads it."""
        places = (i for i, read in enumerate(reader.inputs) if read == ref)
        return all(self.grids.is_rounded(reader.call.input_ref(i)) for i in places)

    def _sums(self, node: GraphNode) -> bool:
        """Tell whether a call sums products of whole numbers."""
        trait = weights_of(node.layer)
        if trait is None or trait.bias is None:
            return False
        spec = self.grids.plan.specs.get(TensorRef(node.layer.name, "param", param=trait.kernel))
        return spec is not None and not spec.is_half

    def _moves(self, node: GraphNode) -> bool:
        """Tell whether a call only moves the numbers of a grid."""
        if node.layer.activity_regularizer is not None:
            return False  # its loss is in real units
        if isinstance(node.layer, TRAINS_IN_REAL_UNITS) or op_of(node.layer) is SELECT:
            return False  # or selects numbers in them
        kinds = self.profile.same_grid | {IDENTITY.name}
        return self._is(node, kinds) and len(node.outputs) == 1

    def _regrids(self, node: GraphNode) -> bool:
        """Tell whether a call averages the numbers of a grid onto it."""
        return self._is(node, self.profile.regrid) and self.grids.read_on(node) is not None

    def _is(self, node: GraphNode, kinds) -> bool:
        is_float = node.layer.name in self.grids.plan.floats
        return op_type(node.layer) in kinds and not is_float and bool(node.inputs)
