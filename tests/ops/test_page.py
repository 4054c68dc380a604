"""docs/operations.md is what the rows and the profiles say."""

from tests.scripts import script


def test_the_page_of_operations_is_what_the_rows_say():
    module = script("operations_page")
    written = module.PAGE.read_text(encoding="utf-8")
    assert written == module.page(), "run python scripts/operations_page.py"
