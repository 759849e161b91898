"""Further maps: do they depend on the weights, and how good are other methods?"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import xarray as xr

from neuronscope.studies.clusters.page.view import View, listed, texts
from neuronscope.studies.clusters.spec import SHUFFLED
from neuronscope.views import Block, Section, Table, Text

_MOSTLY = 0.5
"""Share of the way from which on a map of a shuffled network is as good as none should be."""


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
    yield from _told(view, table)
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


def _told(view: View, table: xr.Dataset) -> Iterator[Block]:
    """How far maps of the shuffled network get on the way from a random order to the untouched map."""
    base, ranking = view.rows("baseline"), view.rows("ranking")
    if not base.size or not ranking.size:
        return
    known = view.cells("metrics", "faithfulness_mean")
    names, metrics = texts(table["map_name"]), texts(table["metric_name"])
    shares = {}
    for a, b, title in view.pairs():
        name = f"{view.methods[a]}{SHUFFLED}"
        if name in names and view.metrics[b] in metrics:
            found = float(table["faithfulness_mean"].to_numpy()[names.index(name), metrics.index(view.metrics[b])])
            untouched, floor = (float(known[rows[0], a, b]) for rows in (base, ranking))
            if untouched > floor:
                shares[title] = (found - floor) / (untouched - floor)
    if not shares:
        return
    often = [title for title, share in shares.items() if share >= _MOSTLY]
    ways = listed(f"{share:.0%} ({title})" for title, share in shares.items())
    verdict = (
        f"By {listed(often)}, most of what makes a map faithful is in the image, not in what the network has learned: "
        "a difference between two maps there says little about the network."
        if often
        else "What makes the untouched maps faithful depends on the weights."
    )
    yield Text(
        "Of the way from a random order (0%) to the untouched map (100%), the shuffled network's map makes "
        f"{ways} in faithfulness. {verdict}",
        tone="warning" if often else "plain",
    )
