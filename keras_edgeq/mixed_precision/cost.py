"""`CostModel`: what a choice of precisions costs in bytes and operations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod

import numpy as np

from keras_edgeq.errors import SearchError
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.measure.groups import Choice, Group, folded_graph
from keras_edgeq.mixed_precision.activation_memory import ActivationMemory
from keras_edgeq.mixed_precision.group_map import GroupMap
from keras_edgeq.mixed_precision.integer_program import Numbers, Table
from keras_edgeq.mixed_precision.stored_bits import (
    activation_bytes,
    grid_bits,
    stored_bits,
)
from keras_edgeq.ops import op_of, op_type, weights_of
from keras_edgeq.ops.macs import macs
from keras_edgeq.profiles.precision import FLOAT_BITS
from keras_edgeq.sim.quant_sim import QuantSim

COSTS = ("weight_bytes", "size", "bitops", "activation_memory")


class CostModel:
    """Counts what a choice costs, and gives the same as tables for an integer program.

    Tables are `[groups, candidates]`, NaN where the target has no such kernel; what a choice adds
    up to in one, plus its constant, is exactly the cost.

    Args:
        sim: of the model; its profile says what the artifact stores.
        groups: all of `find_groups`; a layer to leave alone is a group of one candidate.
        packed: count weights with the bits of their grids, as other tools do, and not as they are
            stored.
        candidates: the columns; by default in the order in which the groups name them.
        graph: that of `folded_graph`, if available.

    Attributes:
        eight_bit_bytes: bytes of the weights at one byte each: what a size of 1 is.

    Raises:
        SearchError: a layer that the target quantizes is in no group.
    """

    def __init__(
        self,
        sim: QuantSim,
        groups: Sequence[Group],
        packed: bool = False,
        *,
        candidates: Sequence[str] | None = None,
        graph: LayerGraph | None = None,
    ):
        self.groups, self.packed, self.profile = tuple(groups), packed, sim.record.profile
        named = dict.fromkeys(name for group in groups for name in group.candidates)
        self.candidates = tuple(named) if candidates is None else tuple(candidates)
        rows = [[name in group.candidates for name in self.candidates] for group in self.groups]
        self.allowed = np.array(rows, bool)
        self.graph = folded_graph(sim) if graph is None else graph
        self._group_map = GroupMap.of(self.graph, sim, self.groups)
        self.weight_table, weight_constant, self.eight_bit_bytes = self._count_weights()
        self.weight_constant = int(weight_constant)

    def numbers(self, choice: Choice) -> Numbers:
        """Return a choice as candidate numbers in the order of the groups."""
        return np.array([self.candidates.index(choice[group.name]) for group in self.groups])

    def choice(self, numbers: Numbers) -> dict[str, str]:
        """Return candidate numbers as a choice."""
        pairs = zip(self.groups, numbers, strict=True)
        return {group.name: self.candidates[number] for group, number in pairs}

    def weight_bytes(self, choice: Choice) -> int:
        """Return the bytes of all kernels as the artifact stores them, without biases.

        Files hold the weights of a layer once, however often it is called. Kernels of layers that
        nothing is known of are float.
        """
        return int(self._sum(self.weight_table, choice)) + self.weight_constant

    def size(self, choice: Choice) -> float:
        """Return the bytes of all kernels as a share of one byte for each weight."""
        return self.weight_bytes(choice) / self.eight_bit_bytes

    def bitops(self, choice: Choice) -> float:
        """Return the sum over weighted layers of multiplications, times the bits of both factors.

        For one sample; float counts 32 bits, half 16. Products of two activations are not counted.

        Raises:
            UnsupportedModelError: a layer works on unknown sizes.
        """
        return float(self._sum(self.bitops_table, choice) + self.bitops_constant)

    def activation_memory(self, choice: Choice) -> int:
        """Return the largest sum of bytes of activations that live at one time, of one sample.

        A tensor lives from the kernel that makes it to the last that reads it, in graph order;
        inputs from the start, outputs to the end. What a fused chain makes inside is not a tensor.
        The copy of a tensor that a reader of another precision needs is not counted.

        Raises:
            UnsupportedModelError: a layer works on unknown sizes.
        """
        return self._memory.peak(self.numbers(choice))

    @property
    def bitops_table(self) -> Table:
        """What each candidate of a group costs in `bitops`."""
        return self._bitops[0]

    @property
    def bitops_constant(self) -> float:
        """The part of `bitops` that no choice changes."""
        return self._bitops[1]

    @property
    def eight_bit_bitops(self) -> float:
        """`bitops` with 8 bits throughout, even without such kernels on the target."""
        return float(self._bitops[2] * 8 * 8)

    def memory_rows(self) -> list[tuple[Table, int]]:
        """Return tables with constants: a choice's greatest sum is its `activation_memory`.

        It is an upper bound where many groups decide about the tensors of one step.
        """
        return self._memory.rows()

    def rows(self, cost_name: str, limit: float) -> list[tuple[Table, float]]:
        """Return a limit on a cost as rows of an integer program.

        Raises:
            SearchError: there is no such cost.
        """
        self._check(cost_name)
        if cost_name == "activation_memory":
            return [(table, limit - constant) for table, constant in self.memory_rows()]
        if cost_name == "bitops":
            return [(self.bitops_table, limit - self.bitops_constant)]
        # 0.29 of 100 bytes is a little less than 29 in binary.
        most = limit * self.eight_bit_bytes * (1 + 1e-12) if cost_name == "size" else limit
        return [(self.weight_table, float(np.floor(most)) - self.weight_constant)]

    def cost(self, cost_name: str, choice: Choice) -> float:
        """Return a cost by its name.

        Raises:
            SearchError: there is no such cost.
        """
        self._check(cost_name)
        return getattr(self, cost_name)(choice)

    def least(self, cost_name: str) -> float:
        """Return the least that any choice costs."""
        return self._extreme(cost_name, 1.0)

    def most(self, cost_name: str) -> float:
        """Return the most that any choice costs."""
        return self._extreme(cost_name, -1.0)

    def _extreme(self, cost_name: str, sign: float) -> float:
        self._check(cost_name)
        table = self.bitops_table if cost_name == "bitops" else self.weight_table
        if cost_name == "activation_memory":
            precisions = [self.profile.precision(name) for name in self.candidates]
            widths = [float(activation_bytes(precision)) for precision in precisions]
            table = np.where(self.allowed, widths, np.nan)
        numbers = np.nanargmin(sign * table, axis=1)
        return self.cost(cost_name, self.choice(numbers))

    def _check(self, cost_name: str) -> None:
        if cost_name not in COSTS:
            raise SearchError(f"There is no cost {cost_name!r}; costs are {', '.join(COSTS)}.")

    def _sum(self, table: Table, choice: Choice) -> float:
        return float(table[np.arange(len(self.groups)), self.numbers(choice)].sum())

    @cached_property
    def _memory(self) -> ActivationMemory:
        return ActivationMemory(self._group_map, self.profile, self.candidates, self.allowed)

    @cached_property
    def _bitops(self) -> tuple[Table, float, int]:
        """Return the table, the constant and the count of multiplications."""
        table, constant, multiplications = np.zeros(self.allowed.shape), 0.0, 0
        for node in self.graph.nodes:
            if op_of(node.layer).macs in ("none", "operands"):
                continue
            count, op = macs(self.graph, node), op_type(node.layer)
            multiplications += count
            group = self._group_of(node)
            if group is None:
                constant += count * FLOAT_BITS * FLOAT_BITS
                continue
            for column, name in enumerate(self.candidates):
                precision = self.profile.precision(name)
                bits = grid_bits(self.profile, precision, op) * precision.activation_bits
                table[group, column] += count * bits
        return np.where(self.allowed, table, np.nan), constant, multiplications

    def _count_weights(self) -> tuple[Table, int, int]:
        """Return the table, the constant and the count of all weights."""
        table, constant, weights = np.zeros(self.allowed.shape), 0, 0
        seen: set[str] = set()
        for node in self.graph.nodes:
            if node.layer.name in seen:
                continue
            seen.add(node.layer.name)
            op = op_type(node.layer)
            for size in _kernel_sizes(node):
                weights += size
                group = self._group_of(node)
                if group is None:
                    constant += _bytes(size, FLOAT_BITS)
                    continue
                table[group] += [_bytes(size, self._bits(name, op)) for name in self.candidates]
        return np.where(self.allowed, table, np.nan), constant, weights

    def _bits(self, name: str, op: str) -> int:
        count = grid_bits if self.packed else stored_bits
        return count(self.profile, self.profile.precision(name), op)

    def _group_of(self, node: GraphNode) -> int | None:
        """Return the group that decides about a layer's weights, None if they are float."""
        op = op_type(node.layer)
        weighted = weights_of(node.layer) is not None and self.profile.quantizes_weights(op)
        if not weighted or id(node) in self._group_map.floats:
            return None
        head = self._group_map.heads[id(node)]
        names = [group.name for group in self.groups]
        for name in (head.layer.name, node.layer.name):
            if name in names:
                return names.index(name)
        raise SearchError(
            f"Layer {node.layer.name!r} is in no group; give all that find_groups returns, with "
            "one candidate for a layer that is to stay as it is."
        )


def _kernel_sizes(node: GraphNode) -> list[int]:
    """Return the numbers in each kernel of a layer; vectors are biases or statistics."""
    trait = weights_of(node.layer)
    if trait is not None:
        return [prod(int(size) for size in getattr(node.layer, trait.kernel).shape)]
    shapes = [tuple(weight.shape) for weight in node.layer.weights]
    return [prod(shape) for shape in shapes if len(shape) > 1]


def _bytes(count: int, bits: int) -> int:
    return -(-count * bits // 8)
