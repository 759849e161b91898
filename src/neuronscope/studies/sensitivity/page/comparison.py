"""How far the result agrees with value files of the original, where it was asked to be compared with them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from neuronscope.studies.sensitivity.page.view import View, texts
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table

_COLUMNS = ("activations", "left_out", "difference", "pearson", "spearman", "mean", "mean_other")


def comparison(view: View) -> Iterator[Block]:
    """Rank correlations by layer and variable for each quantity, and all numbers."""
    table = view.groups.get("comparison")
    if table is None:
        return
    frame = pd.DataFrame(
        {
            **{axis: texts(table[f"{axis}_name"]) for axis in ("layer", "quantity", "variable", "file")},
            **{name: table[name].to_numpy() for name in _COLUMNS},
            **{
                f"{name} {end}": table[f"{name}_{end}"].to_numpy()
                for name in ("pearson", "spearman")
                for end in ("low", "high")
            },
        }
    )
    yield Section(
        "Compared with other values",
        "Over the activations of a layer, this result against the files it was to be compared with; after the same "
        "post-processing on both sides. Activations that one side does not know are left out.",
    )
    charts = tuple(_chart(str(name), rows) for name, rows in frame.groupby("quantity", sort=False))
    if charts:
        yield Panel(
            "comparison", "Rank correlation of both", charts, columns=2, scale="shared",
            text="1: the same order of activations; 0: none in common.",
        )  # fmt: skip
    yield Table(
        "comparison",
        "Agreement by layer, quantity and variable",
        frame,
        help={
            "left_out": "activations that one side does not know, such as dead ones",
            "difference": "mean absolute difference",
            "pearson": "correlation over activations; its interval counts units, not positions",
            "mean": "mean over activations of this result",
            "mean_other": "mean over activations of the files",
        },
        formats=dict.fromkeys(("difference", "pearson", "spearman", "mean", "mean_other"), ".4f"),
    )


def _chart(name: str, rows: pd.DataFrame) -> Chart:
    """One quantity: variables by layers."""
    layers, variables = list(dict.fromkeys(rows["layer"])), list(dict.fromkeys(rows["variable"]))
    values = np.full((len(variables), len(layers)), np.nan)
    for layer, variable, value in zip(rows["layer"], rows["variable"], rows["spearman"], strict=True):
        values[variables.index(variable), layers.index(layer)] = value
    return Chart(
        f"comparison-{name}",
        name,
        "heatmap",
        (Series(name, values),),
        Axis("layer", ticks=tuple(layers)),
        Axis("variable", ticks=tuple(variables)),
        value=Axis("Spearman's correlation", limits=(-1.0, 1.0)),
        annotate=True,
        diverging=True,
    )
