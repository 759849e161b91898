"""Which clusters belong together, over numbers of clusters and over layers."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from neuronscope.studies.clusters.page.view import View
from neuronscope.views import Block, Table


def relatives(view: View) -> Iterator[Block]:
    """Parents over k, and counterparts in the next layer."""
    descent, pairs = view.groups.get("descent"), view.groups.get("counterparts")
    if descent is not None:
        yield Table(
            "descent",
            "Where clusters come from",
            pd.DataFrame({name: descent[name].to_numpy() for name in _DESCENT}),
            help={
                "k": "number of clusters",
                "before": "next smaller number of clusters",
                "parent": "the cluster among these that gave most of the channels",
                "share": "of the cluster's channels, those that come from the parent; 1 for a pure split",
                "kept": "of the parent's channels, those that are in the cluster",
            },
            formats={"share": ".3f", "kept": ".3f"},
            text="Clusters that split as k grows are the same groups seen more finely; low shares mean that channels "
            "were dealt anew.",
        )
    if pairs is not None:
        table = pd.DataFrame({name: pairs[name].to_numpy() for name in _PAIRS})
        table["counterpart"] = ["none" if other < 0 else str(other) for other in table["counterpart"]]
        yield Table(
            "counterparts",
            f"Clusters most alike in the next layer, k = {pairs.attrs.get('k', view.spec['main_k'])}",
            table.rename(columns={"next_layer": "next layer"}),
            help={
                "counterpart": "cluster of the next layer whose channels are most like this one's",
                "distance": "of the mean statistics, in standard deviations between the channels of a layer",
            },
            formats={"distance": ".3f"},
        )


_DESCENT = ("layer", "k", "cluster", "before", "parent", "share", "kept")
_PAIRS = ("layer", "cluster", "next_layer", "counterpart", "distance")
