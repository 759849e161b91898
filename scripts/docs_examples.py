"""Let the reference show `Example:` sections of docstrings as code (an extension of griffe, named in `mkdocs.yml`).

griffe knows the section as `Examples:` only and takes the singular, which reads right for one example, for a remark.
"""

# ruff: noqa: INP001 griffe loads this file by its path; it is in no package

from __future__ import annotations

import re

import griffe


class ExampleSections(griffe.Extension):
    """Reads the singular as the plural."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rename the section before the docstring is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(?m)^( *)Example:$", r"\1Examples:", obj.docstring.value)
