"""Bring a SavedModel into one form: equal models give equal bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from tensorflow.core.protobuf import saved_model_pb2

# TensorFlow numbers functions across a whole process.
NUMBERED = re.compile(r"(__(?:inference|forward|backward)_.*_)(\d+)")


def make_canonical(folder: Path) -> None:
    """Number the functions of a SavedModel from 0, and put them and their nodes in order of name.

    The file with its fingerprint, which holds a random number, is removed; nothing needs it.
    """
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel()
    model.ParseFromString(path.read_bytes())
    for graph in model.meta_graphs:
        library = graph.graph_def.library
        names = _numbered_anew([function.signature.name for function in library.function])
        _rename(graph, names)
        _sort(library.function, lambda function: function.signature.name)
        for function in library.function:  # what reads what is said by names
            _sort(function.node_def, lambda node: node.name)
    path.write_bytes(model.SerializeToString(deterministic=True))
    (folder / "fingerprint.pb").unlink(missing_ok=True)


def _numbered_anew(names: list[str]) -> dict[str, str]:
    found = [match for name in names if (match := NUMBERED.fullmatch(name))]
    found.sort(key=lambda match: (match[1], int(match[2])))
    return {match[0]: f"{match[1]}{number}" for number, match in enumerate(found)}


def _sort(field: Any, key: Callable[[Any], str]) -> None:
    copies = [_copy(value) for value in sorted(field, key=key)]
    del field[:]
    field.extend(copies)


def _copy(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


def _rename(message: Message, names: Mapping[str, str]) -> None:
    """Exchange every text in a message, at any depth, that is one of the names."""
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _rename_map(value, field.message_type, names)
        elif field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                _rename(inner, names)
        elif isinstance(value, str):
            setattr(message, field.name, names.get(value, value))
        elif field.type == field.TYPE_STRING:
            value[:] = [names.get(text, text) for text in value]


def _rename_map(values: Any, entry: Any, names: Mapping[str, str]) -> None:
    holds_messages = entry.fields_by_name["value"].message_type is not None
    former = {key: _copy(value) if holds_messages else value for key, value in values.items()}
    values.clear()  # a new name can be the old one of another function
    for key, value in former.items():
        if holds_messages:
            _rename(value, names)
            values[names.get(key, key)].CopyFrom(value)
        else:
            values[names.get(key, key)] = names.get(value, value)
