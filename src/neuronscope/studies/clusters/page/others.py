"""Further maps: do they depend on the weights, and how good are other methods?"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from neuronscope.studies.clusters.page.view import View
from neuronscope.views import Block, Section, Table


def others(view: View) -> Iterator[Block]:
    """Faithfulness and sparsity of unfiltered maps that stand beside the study's own."""
    table = view.groups.get("unfiltered")
    if table is None:
        return
    yield Section(
        "Other maps",
        "Unfiltered maps beside the study's own: of the same network with the numbers of each weight tensor shuffled, "
        "whose map should be no better than a random order of the positions, and of other methods where they were "
        "asked for.",
    )
    rows = []
    for at, name in enumerate(table["map_name"].to_numpy()):
        for place, metric in enumerate(table["metric_name"].to_numpy()):
            rows.append(
                {
                    "map": str(name),
                    "metric": str(metric),
                    **{
                        title: float(table[variable].to_numpy()[at, place])
                        for title, variable in (
                            ("faithfulness", "faithfulness_mean"),
                            ("low", "faithfulness_low"),
                            ("high", "faithfulness_high"),
                            ("sparsity", "sparsity_mean"),
                        )
                    },
                }
            )
    yield Table(
        "other-maps",
        "Unfiltered maps of other origin",
        pd.DataFrame(rows),
        help={
            "map": "a method on the network with shuffled weights, or a method of Captum's",
            "faithfulness": "probability of the class minus that with the highest positions replaced, mean over images",
            "low": "limits of the mean for images like these",
            "sparsity": "share of positions not needed for most of the attribution",
        },
        formats=dict.fromkeys(("faithfulness", "low", "high", "sparsity"), ".4f"),
    )
