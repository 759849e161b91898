"""The page of the `sensitivity` study: which factors move each activation, where in the image, and how sure that is."""

from __future__ import annotations

from neuronscope.result import Result
from neuronscope.studies.sensitivity.page.accuracy import accuracy, severity
from neuronscope.studies.sensitivity.page.analyses import correlations, discriminants
from neuronscope.studies.sensitivity.page.classes import classes
from neuronscope.studies.sensitivity.page.comparison import comparison
from neuronscope.studies.sensitivity.page.dominance import contrasts, dominance, fingerprints
from neuronscope.studies.sensitivity.page.histograms import histograms
from neuronscope.studies.sensitivity.page.layers import convergence, factors, layers, pairs
from neuronscope.studies.sensitivity.page.maps import montages, where
from neuronscope.studies.sensitivity.page.overview import overview
from neuronscope.studies.sensitivity.page.pieces import by_channel, pieces
from neuronscope.studies.sensitivity.page.segments import segments_and_whole
from neuronscope.studies.sensitivity.page.strips import strips
from neuronscope.studies.sensitivity.page.view import View
from neuronscope.studies.sensitivity.sheets import sheet_gallery
from neuronscope.views import Block, Page, Section

__all__ = ["sensitivity_page"]


def sensitivity_page(result: Result) -> Page:
    """Everything the study found, in reading order: overview, layers, units, accuracy, places, single units.

    A part stands on the page where its group is in the result: results of fewer estimators have fewer, and one that
    only shows augmentations has their pictures.
    """
    view = View(result)
    blocks: list[Block] = [
        *overview(view),
        *pieces(view),
        *layers(view),
        *dominance(view),
        *contrasts(view),
        *accuracy(view),
        *severity(view),
        *pairs(view),
        *fingerprints(view),
        *where(view),
        *(by_channel(view) if "segments" in view.groups else strips(view)),
        *montages(view),
        *histograms(view),
        *correlations(view),
        *discriminants(view),
        *segments_and_whole(view),
        *classes(view),
        *convergence(view),
        *comparison(view),
        *factors(view),
    ]
    sheet = view.groups.get("sheet")
    if sheet is not None:
        blocks += [Section("Augmentations"), sheet_gallery(sheet)]
    origin = result.provenance
    summary = f"{origin.subject} on {origin.images:,} images of {origin.data}: " + (
        "what the augmentations do to them."
        if len(view.groups) == 1 and sheet is not None
        else "how sensitive every activation is to augmentations, and to the image itself."
    )
    return Page("Sensitivity", summary, tuple(blocks))
