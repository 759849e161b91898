"""The page of the `importance` study: a result's arrays as blocks; nothing is computed but means and ranks of them."""

from __future__ import annotations

from neuronscope.result import Result
from neuronscope.studies.importance.page.connections import connections
from neuronscope.studies.importance.page.overview import overview
from neuronscope.studies.importance.page.reuse import reuse
from neuronscope.studies.importance.page.single import single_layers
from neuronscope.studies.importance.page.spread import spread
from neuronscope.studies.importance.page.subnetworks import subnetworks
from neuronscope.studies.importance.page.units import masking, shapley, units
from neuronscope.studies.importance.page.view import View
from neuronscope.views import Block, Page

__all__ = ["importance_page"]


def importance_page(result: Result) -> Page:
    """Everything the study found, in reading order: overview, sub-networks, what else falls, layers, reuse, units."""
    view = View(result)
    blocks: list[Block] = [
        *overview(view),
        *subnetworks(view),
        *spread(view),
        *single_layers(view),
        *reuse(view),
        *units(view),
        *masking(view),
        *shapley(view),
        *connections(view),
    ]
    origin = result.provenance
    summary = (
        f"{origin.subject} on {origin.images:,} images of {origin.data}: which units carry each class, tested by "
        "switching them off."
    )
    return Page("Importance", summary, tuple(blocks))
