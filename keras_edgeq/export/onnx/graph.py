"""An ONNX graph as a rewrite sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from keras_edgeq.errors import ExportError

# What tf2onnx converts to at most. The operators it makes mean the same in opsets up to 21.
OPSET = 18
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


class OnnxGraph:
    """Nodes and constants of a model, open for changes until `finish`.

    Attributes:
        nodes: in topological order.
        constants: initializers by name.
        inputs, outputs: tensor names of the graph's interface, which never change.
    """

    def __init__(self, model: ModelProto):
        self.model = model
        self.nodes = list(model.graph.node)
        self.constants = {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}
        self.inputs = [value.name for value in model.graph.input]
        self.outputs = [value.name for value in model.graph.output]
        self._later: dict[str, str] = {}
        # Every name that was ever taken, except constants that were put in by hand.
        self._names = self._taken()

    def producers(self) -> dict[str, NodeProto]:
        """Map every tensor that a node makes to the node."""
        return {name: node for node in self.nodes for name in node.output}

    def readers(self) -> dict[str, list[NodeProto]]:
        """Map every tensor to the nodes that read it; a node that holds a subgraph reads for it."""
        readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(reads(node)):
                readers.setdefault(name, []).append(node)
        return readers

    def only_reader(self, tensor: str, readers: Mapping[str, list[NodeProto]]) -> NodeProto | None:
        """Return the node that reads `tensor` where it is the only one and `tensor` no output.

        Args:
            tensor: its name.
            readers: what `readers` returned.
        """
        nodes = readers.get(tensor, [])
        return nodes[0] if len(nodes) == 1 and tensor not in self.outputs else None

    def before(
        self,
        tensors: Iterable[str],
        stop: Any = lambda node: False,
        of: Callable[[NodeProto], Iterable[str]] | None = None,
    ) -> list[NodeProto]:
        """Return the nodes that `tensors` are computed from.

        Args:
            tensors: by name.
            stop: nodes where it is true end the walk.
            of: node -> the tensors that it is followed to; all that it reads by default.
        """
        producers, found, open_ends = self.producers(), {}, list(tensors)
        while open_ends:
            node = producers.get(open_ends.pop())
            if node is not None and id(node) not in found:
                found[id(node)] = node
                if not stop(node):
                    open_ends.extend((of or reads)(node))
        return list(found.values())

    def place_of(self, node: NodeProto) -> int:
        """Return the position of a node."""
        return next(i for i, other in enumerate(self.nodes) if other is node)

    def rename(self, names: Mapping[str, str]) -> None:
        """Rename tensors, old name -> new, wherever they are made or read."""
        for old in names.keys() & self.constants.keys():
            self.constants[names[old]] = self.constants.pop(old)
        for node in self.nodes:
            _exchange(node.output, names)
        self.redirect(names)

    def rename_later(self, old: str, new: str) -> None:
        """Rename a tensor when `rename_now` is called; both names are taken until then."""
        self._later[old] = new

    def rename_now(self) -> None:
        """Rename what `rename_later` was told, all in one walk."""
        self.rename(self._later)
        self._later = {}

    def redirect(
        self, names: Mapping[str, str], readers: Sequence[NodeProto] | None = None
    ) -> None:
        """Let every reader of the old names, or those that are given, read the new ones."""
        for node in self.nodes if readers is None else readers:
            for inner in _with_subgraphs(node):
                _exchange(inner.input, names)

    def bypass(self, node: NodeProto) -> None:
        """Take out a node, so that its readers read what it read."""
        source, result = node.input[0], node.output[0]
        place = self.place_of(node)
        del self.nodes[place]
        if result not in self.outputs:
            self.redirect({result: source})
        elif source in self.inputs + self.outputs:
            self.nodes.insert(place, self.node("Identity", [source], result))
        else:
            self.rename({source: result})

    def node(self, op_type: str, inputs: Sequence[str], output: str, **options: Any) -> NodeProto:
        """Return a new node, named after its one output."""
        self._names.add(output)
        return helper.make_node(op_type, inputs, [output], name=output, **options)

    def add_constant(self, wanted: str, value: Any) -> str:
        """Add an initializer, and return its name."""
        name = self.free_name(wanted)
        self.constants[name] = np.asarray(value)
        return name

    def free_name(self, wanted: str) -> str:
        """Return `wanted`, with a number where a tensor has that name already."""
        number, name = 1, wanted
        if wanted in self._names or wanted in self.constants:
            taken = self._taken()
            while name in taken:
                number, name = number + 1, f"{wanted}#{number + 1}"
        self._names.add(name)
        return name

    def _taken(self) -> set[str]:
        made, read = self.producers(), self.readers()
        return {*self.constants, *self.inputs, *made, *read, *self._later.values()}

    def finish(self, opset: int = OPSET) -> ModelProto:
        """Drop what nothing reads, and return the checked model.

        Raises:
            ExportError: the graph is not valid ONNX.
        """
        used = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if used.intersection(node.output):
                kept.append(node)
                used.update(reads(node))
        graph = self.model.graph
        for field in (graph.node, graph.initializer, graph.value_info):
            del field[:]
        graph.node.extend(reversed(kept))
        graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
            for name, value in self.constants.items()
            if name in used
        )
        others = sorted({node.domain for node in kept if node.domain})
        versions = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in others)]
        self.model.ir_version = helper.find_min_ir_version_for(versions[:1])
        self.model.producer_name, self.model.producer_version = "keras_edgeq", ""
        self.model.doc_string = graph.doc_string = ""
        del self.model.opset_import[:], self.model.metadata_props[:]
        self.model.opset_import.extend(versions)
        try:
            onnx.checker.check_model(self.model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ExportError(f"The ONNX graph of the sim is not valid: {error}") from error
        return self.model


def reads(node: NodeProto) -> Iterator[str]:
    """Yield what a node reads, its subgraphs included."""
    for inner in _with_subgraphs(node):
        yield from (name for name in inner.input if name)
        for graph in _subgraphs(inner):
            yield from (value.name for value in graph.output)


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _subgraphs(node: NodeProto) -> list[GraphProto]:
    return [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def _with_subgraphs(node: NodeProto) -> Iterator[NodeProto]:
    yield node
    for graph in _subgraphs(node):
        for inner in graph.node:
            yield from _with_subgraphs(inner)


def _exchange(names, new: Mapping[str, str]) -> None:
    for i, name in enumerate(names):
        if name in new:
            names[i] = new[name]


def reads_numbers(node: NodeProto) -> Iterable[str]:
    """Return what a node reads whose numbers are among what it makes: no conditions, no sizes."""
    if node.op_type == "Shape":
        return ()
    return node.input[1:] if node.op_type == "Where" else reads(node)
