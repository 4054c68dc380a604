"""List what the graph in a SavedModel does: it is a program, and TensorFlow runs parts at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.prepare.allowed import is_kernel

# Other forms of the graph, of which TensorFlow would take one instead of `saved_model.pb`.
OTHER_GRAPHS = ("saved_model.pbtxt", "saved_model.cpb")
# What saves and restores variables. Every SavedModel has it, in functions that loading by objects
# leaves alone.
SAVERS = frozenset({"SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename"})


def check_saved_model(path: Path, way_out: str) -> None:
    """Raise if the graph of a SavedModel does more than compute.

    Args:
        path: the folder.
        way_out: said in the error.

    Raises:
        UnsupportedModelError: names the operations and where they stand.
    """
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString((path / "saved_model.pb").read_bytes())
    except (OSError, DecodeError) as error:
        raise UnsupportedModelError(f"{path} is damaged: {error}.") from None
    others = [name for name in OTHER_GRAPHS if (path / name).exists()]
    if others or len(model.meta_graphs) != 1 or not model.meta_graphs[0].object_graph_def.nodes:
        raise UnsupportedModelError(
            f"{path} is not a SavedModel of one Keras model: it has "
            f"{', '.join(others) or f'{len(model.meta_graphs)} graphs, or none of objects'}."
        )
    found = list(dict.fromkeys(_reaching(model.meta_graphs[0])))
    if found:
        parts = "; ".join(f"{op[:60]} in {place[:100]}" for op, place in found[:5])
        raise UnsupportedModelError(
            f"The graph of {path} has operations not known to only compute: {parts}. {way_out} if "
            "you trust where the folder came from; better, save the model as model.keras."
        )


def _reaching(meta: Any) -> Iterator[tuple[str, str]]:
    """Yield the operations that reach outside, with the function that they stand in."""
    graph, objects = meta.graph_def, meta.object_graph_def
    library = {function.signature.name: function for function in graph.library.function}
    used = _closure(library, {*objects.concrete_functions, *_gradients(graph.library)})
    for name, function in library.items():
        # One function is run instead of another that "implements" the same.
        alone = name not in used and "api_implements" not in function.attr
        for node in function.node_def:
            saves = node.op in SAVERS and alone
            if not (is_kernel(node.op) or node.op in library or saves):
                yield node.op, name
    for node in graph.node:
        if not (is_kernel(node.op) or node.op in SAVERS or node.op in library):
            yield node.op, "the main graph"


def _gradients(library: Any) -> Iterator[str]:
    for gradient in library.gradient:
        yield from (gradient.function_name, gradient.gradient_func)
    for gradient in library.registered_gradients:
        yield gradient.gradient_func


def _closure(library: dict[str, Any], names: Iterable[str]) -> set[str]:
    """Return these functions and all that they call."""
    waiting, seen = [name for name in names if name in library], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in library[name].node_def:
            waiting += [one for one in (node.op, *_called(node)) if one in library]
    return seen


def _called(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        yield value.func.name
        yield from (function.name for function in value.list.func)
        if value.s:  # some name a function in a string
            yield value.s.decode("utf-8", "replace")
