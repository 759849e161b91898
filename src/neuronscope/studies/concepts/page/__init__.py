"""The page of the `concepts` study: what each unit detects, how sure that is, and pictures to judge it by."""

from __future__ import annotations

from neuronscope.result import Result
from neuronscope.studies.concepts.page.accuracy import accuracy
from neuronscope.studies.concepts.page.cards import cards, overlay
from neuronscope.studies.concepts.page.contributions import contributions
from neuronscope.studies.concepts.page.evidence import evidence
from neuronscope.studies.concepts.page.formulas import categories, lengths
from neuronscope.studies.concepts.page.overview import exceptions, layers, overview, warnings
from neuronscope.studies.concepts.page.pasting import pasting
from neuronscope.studies.concepts.page.ranges import ranges
from neuronscope.studies.concepts.page.similarity import similarity
from neuronscope.studies.concepts.page.units import concepts, units, uses
from neuronscope.studies.concepts.page.view import View
from neuronscope.views import Block, Page

__all__ = ["concepts_page", "overlay", "uses"]


def concepts_page(result: Result) -> Page:
    """Everything the study found, in reading order: overview, formulas, evidence, units, what they do, their images.

    A part stands on the page where its group is in the result: results of fewer analyses, and older ones, have fewer.
    """
    view = View(result)
    blocks: list[Block] = [
        *overview(view),
        *warnings(view),
        *exceptions(view),
        *layers(view),
        *categories(view),
        *lengths(view),
        *evidence(view),
        *units(view),
        *concepts(view),
        *ranges(view),
        *accuracy(view),
        *contributions(view),
        *similarity(view),
        *pasting(view),
        *cards(view),
    ]
    origin = result.provenance
    summary = (
        f"{origin.subject} on {origin.images:,} images of {origin.data}: which formula of concepts a unit detects."
    )
    return Page("Concepts that units detect", summary, tuple(blocks))
