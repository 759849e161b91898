"""The page of the `concepts` study."""

from __future__ import annotations

from neuronscope.result import Result
from neuronscope.views import Page


def concepts_page(result: Result) -> Page:
    """What the units detect."""
    return Page("Concepts", result.provenance.subject, ())
