"""Sphinx settings. `nox -s docs` builds the site with warnings as errors."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_sphinx"), str(HERE.parent / "benchmarks")]

project = "sigreg"
copyright = "the sigreg authors"
release = importlib.metadata.version("sigreg")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    # Ours, in docs/_sphinx.
    "api_pages",
    "contracts",
    "executed_examples",
    "mathml",
    "result_tables",
]
exclude_patterns = ["_build", "_sphinx", "examples/*.py"]
default_role = "code"

html_theme = "furo"
html_title = "sigreg"
html_static_path = ["_static"]
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3

autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "undoc-members": False,
    "exclude-members": "__new__, __init__",
}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_display_short_literal_types = True

# Annotations name classes of other projects, whose inventories cannot be fetched while building;
# every name of ours must resolve.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!sigreg|planners|worldmodel).*"),
    (r"py:.*", r".*\._\w+(\.\w+)*"),  # what is private has no page
    (r"py:.*", r".*\.\w*T"),  # type variables
]
