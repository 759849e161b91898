"""What there is to show of a sensitivity result."""

from __future__ import annotations

from neuronscope.result import Result
from neuronscope.studies.sensitivity.sheets import sheet_gallery
from neuronscope.views import Page


def sensitivity_page(result: Result) -> Page:
    """The report of a sensitivity result."""
    return Page("Sensitivity", "in progress", (sheet_gallery(result.tree["sheet"].to_dataset()),))
