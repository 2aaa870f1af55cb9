"""The examples in the documentation of the read-outs, the family and the migration."""

import doctest
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["sigreg-readouts", "choose-regularizer", "migrate"])
def test_pages_print_what_they_say(page):
    """Every prompt on the page prints what the page shows."""
    failed, tried = doctest.testfile(
        str(DOCS / f"{page}.md"),
        module_relative=False,
        encoding="utf-8",
        optionflags=doctest.NORMALIZE_WHITESPACE,
    )
    assert tried > 0
    assert failed == 0
