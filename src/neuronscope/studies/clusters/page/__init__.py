"""The page of the `clusters` study: what the clusters are, what blocking them does, and whether that beats controls."""

from __future__ import annotations

from neuronscope.result import Result
from neuronscope.studies.clusters.page.classes import classes
from neuronscope.studies.clusters.page.curves import curves
from neuronscope.studies.clusters.page.decomposition import decomposition
from neuronscope.studies.clusters.page.dropped import dropped
from neuronscope.studies.clusters.page.effect import effect
from neuronscope.studies.clusters.page.groups import clusters
from neuronscope.studies.clusters.page.others import others
from neuronscope.studies.clusters.page.overview import overview
from neuronscope.studies.clusters.page.panels import panels
from neuronscope.studies.clusters.page.relatives import relatives
from neuronscope.studies.clusters.page.smoothing import smoothing
from neuronscope.studies.clusters.page.view import View
from neuronscope.views import Block, Page

__all__ = ["clusters_page"]


def clusters_page(result: Result) -> Page:
    """Everything the study found, in reading order: overview, clusters, effect, controls, curves, parts, images.

    A part stands on the page where its group is in the result.
    """
    view = View(result)
    blocks: list[Block] = [
        *overview(view),
        *clusters(view),
        *relatives(view),
        *effect(view),
        *smoothing(view),
        *others(view),
        *curves(view),
        *decomposition(view),
        *dropped(view),
        *classes(view),
        *panels(view),
    ]
    origin = result.provenance
    summary = (
        f"{origin.subject} on {origin.images:,} images of {origin.data}: clusters of channels, and what attributions "
        "are like when the gradient of a cluster is blocked."
    )
    return Page("Clusters of channels", summary, tuple(blocks))
