"""The rooms of the package and who may import whom: a room imports only from rows below its own."""

import ast
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_room_imports_only_downward(path):
    own = room(path)
    for other in imported(path):
        above = row(other) < row(own)
        assert not above or (own, other) in ALLOWED, f"{path} imports {other}"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in PLAIN], ids=str)
def test_the_data_needs_no_tensorflow(path):
    source = (ROOT / path).read_text(encoding="utf-8")
    assert "import tensorflow" not in source
    assert "import tf_keras" not in source


def test_private_keras_modules_are_imported_in_one_file_only():
    using = {str(p) for p in FILES if "tf_keras.src" in (ROOT / p).read_text(encoding="utf-8")}
    assert using == {"graph/keras_compat.py"}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_is_a_room_of_at_most_300_lines(path):
    lines = (ROOT / path).read_text(encoding="utf-8").count("\n")
    assert lines <= 300
