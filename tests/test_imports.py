"""The rooms of the package and who may import whom: a room imports only from rows below its own."""

import ast
import re
from pathlib import Path

import keras_edgeq

ROWS = (
    ("__init__",),
    ("cli",),
    ("autoquant",),
    ("mixed_precision",),
    ("analysis",),
    ("compress",),
    ("callbacks", "qat"),
    ("ptq",),
    ("export",),
    ("runtime",),
    ("quantize", "requantize"),
    ("sim",),
    ("prepare",),
    ("layers",),
    ("ops",),
    ("graph",),
    ("numerics",),
    ("spec",),
    ("files",),
    ("progress",),
    ("table",),
    ("nearest",),
    ("errors",),
)
# Deferred to the call, because a room further up does the work for a type further down.
ALLOWED = {("spec", "numerics")}
# What a class reads of itself and of its like, functions of Python, and what named tuples have.
OWN = ("self", "cls", "super()", "part", "TargetProfile", "os")
NAMED_TUPLE = ("_asdict", "_fields", "_replace")
PLAIN = ("spec", "errors", "files", "table", "nearest", "progress")
ROOT = Path(keras_edgeq.__file__).parent
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def room(path):
    return path.parts[0].removesuffix(".py")


def row(name):
    # What is no room is a name of the package itself, which stands above all rooms.
    return next((i for i, names in enumerate(ROWS) if name in names), 0)


def imported(path):
    """Return the rooms that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            modules = [node.module or ""]
            if node.module == "keras_edgeq":
                modules = [f"keras_edgeq.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            if module.startswith("keras_edgeq."):
                yield module.split(".")[1]


def source(path):
    return (ROOT / path).read_text(encoding="utf-8")


def test_a_room_imports_only_downward():
    upward = [
        f"{path} imports {other}"
        for path in FILES
        for other in imported(path)
        if row(other) < row(room(path)) and (room(path), other) not in ALLOWED
    ]
    assert not upward


def test_the_data_needs_no_tensorflow():
    plain = [path for path in FILES if room(path) in PLAIN]
    assert not [p for p in plain if re.search(r"import (tensorflow|tf_keras)", source(p))]


def test_private_keras_modules_are_imported_in_one_file_only():
    assert [str(p) for p in FILES if "tf_keras.src" in source(p)] == ["graph/keras_compat.py"]


def test_private_attributes_of_others_are_read_in_one_file_only():
    found = [
        f"{path}:{node.lineno} {ast.unparse(node)}"
        for path in FILES
        if path.as_posix() != "graph/keras_compat.py"
        for node in ast.walk(ast.parse(source(path)))
        if isinstance(node, ast.Attribute)
        and re.match(r"_[a-z]", node.attr)
        and node.attr not in NAMED_TUPLE
        and ast.unparse(node.value) not in OWN
    ]
    assert not found


def test_a_file_is_a_room_of_at_most_300_lines():
    assert not [f"{path} is too long" for path in FILES if source(path).count("\n") > 300]
