"""Scripts of the checkout as modules."""

import importlib.util
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "scripts"


def script(name):
    """Return `scripts/<name>.py` as a module."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
