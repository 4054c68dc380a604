"""What is known of an operation stands in its row: no other room names operations.

Free of it are the rooms of file formats and of Keras 3, which know operations by the names they
have there, the names of AIMET's files, and names that changed.
"""

import ast
from pathlib import Path

import keras_edgeq
from keras_edgeq.ops.table import OPS

ROOT = Path(keras_edgeq.__file__).parent
FREE = ("ops", "export", "runtime", "keras3")
FILES_OF_NAMES = ("profiles/aimet_ops.py", "profiles/aimet_config.py", "profiles/renamed.py")
HOLDERS = (ast.Module, ast.ClassDef, ast.FunctionDef)


def names_in(path):
    """Yield line and text of each string of a file that names an operation, docstrings aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, HOLDERS) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in OPS and id(node) not in told:
            yield node.lineno, node.value


def test_operations_are_named_in_their_rows_only():
    files = [path.relative_to(ROOT) for path in ROOT.rglob("*.py")]
    files = [path for path in files if path.parts[0] not in FREE]
    found = {
        f"{path}:{line} names {name!r}"
        for path in files
        if path.as_posix() not in FILES_OF_NAMES
        for line, name in names_in(ROOT / path)
    }
    assert not found
