"""Sphinx configuration. The build is strict: `sphinx-build -W --keep-going -n docs docs/_build/html`."""

from attribguard import __version__

project = "attribguard"
author = "the attribguard authors"
copyright = "the attribguard authors"
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "attribguard"

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

# In the signature, one parameter a line: as descriptions, a class's attributes would give its parameters their types.
autodoc_typehints = "signature"
maximum_signature_line_length = 80
autodoc_member_order = "bysource"
autoclass_content = "class"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes as a list; as directives they would be described twice

# Other projects' pages are not looked up: the build needs no network. Their names stay unlinked.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|captum|matplotlib|rich|numpy|np|os|collections|typing|pathlib|builtins)(\..*)?"),
    (r"py:.*", r"(Tensor|Generator|Module|nn\.Module|F\..*|optional|callable|Ellipsis|Path|Axes|Figure|Floats)"),
    (r"py:.*", r"Attribution"),
    (r"py:.*", r"(attribguard\.step\.)?Step"),  # what a Trace is made from, which users never make
    (r"py:class", r"attribguard\.data\.medical\..*"),  # what CtSlices is made from: read_slices makes it
]
