"""docs/operations.md is what the rows and the profiles say."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "operations_page.py"


def test_the_page_of_operations_is_what_the_rows_say():
    spec = importlib.util.spec_from_file_location("operations_page", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = module.PAGE.read_text(encoding="utf-8")
    assert written == module.page(), "run python scripts/operations_page.py"
