"""The rooms of the package and who may import whom: a room imports only from rows below its own."""

import ast
import re
from pathlib import Path

import keras_edgeq

ROWS = (
    ("__init__",),
    ("cli",),
    ("autoquant",),
    ("diagnose",),
    ("mixed_precision",),
    ("evaluate",),
    ("analysis",),
    ("measure",),
    ("compress",),
    ("callbacks", "qat"),
    ("ptq",),
    ("streams",),
    ("export",),
    ("runtime",),
    ("quantize", "requantize"),
    ("sim",),
    ("prepare",),
    ("keras3",),
    ("layers",),
    ("ops",),
    ("graph",),
    ("numerics",),
    ("plan",),
    ("profiles",),
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
OWN = ("self", "cls", "super()", "part", "TargetProfile", "os", "sys")
NAMED_TUPLE = ("_asdict", "_fields", "_replace")
PLAIN = ("plan", "profiles", "spec", "errors", "files", "table", "nearest", "progress")
COMPAT = ("graph/keras_compat.py", "graph/known_outputs.py")
KERAS3 = "keras3/compat.py"
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


def modules_read(path):
    """Return the modules of the package that a file imports when it runs, anywhere in it."""
    tree = ast.parse(source(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras_edgeq"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module


def test_no_modules_import_each_other():
    names = {
        ".".join(("keras_edgeq", *path.with_suffix("").parts)).removesuffix(".__init__"): path
        for path in FILES
    }
    rooms = {name for name, path in names.items() if path.name == "__init__.py"}
    waits = {
        name: {other for other in modules_read(path) if other in names} - rooms - {name}
        for name, path in names.items()
        if name not in rooms
    }
    while free := {name for name, others in waits.items() if not others & waits.keys()}:
        waits = {name: others for name, others in waits.items() if name not in free}
    assert not waits, "in a circle, or behind one"


def test_the_data_needs_no_tensorflow():
    plain = [path for path in FILES if room(path) in PLAIN]
    assert not [p for p in plain if re.search(r"import (tensorflow|tf_keras)", source(p))]


def test_private_keras_modules_are_imported_in_one_file_only():
    assert [p.as_posix() for p in FILES if "tf_keras.src" in source(p)] == [*COMPAT]


def test_private_attributes_of_others_are_read_in_one_file_only():
    found = [
        f"{path}:{node.lineno} {ast.unparse(node)}"
        for path in FILES
        if path.as_posix() not in (*COMPAT, KERAS3)
        for node in ast.walk(ast.parse(source(path)))
        if isinstance(node, ast.Attribute)
        and re.match(r"_[a-z]", node.attr)
        and node.attr not in NAMED_TUPLE
        and ast.unparse(node.value) not in OWN
    ]
    assert not found


def test_a_file_is_a_room_of_at_most_300_lines():
    assert not [f"{path} is too long" for path in FILES if source(path).count("\n") > 300]
