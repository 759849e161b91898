"""What the program this study comes from leaves behind, under its own names."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from neuronscope.result import Result

ORIGINAL_FIGURES: dict[str, str] = {}
"""File of the original -> figure here in its place: its pictures lie in its pages, which the report replaces."""


def export_concepts(result: Result, folder: Path) -> list[Path]:
    """Write `results_{first}_{last}.csv` for each layer: neuron, category, formula, threshold (one decimal).

    Units without a formula have an empty one. The layers' files stand in folders of their names.
    """
    table = result.table
    layer_of = table["layer"].to_numpy().astype(str)
    written = []
    for layer in dict.fromkeys(layer_of):
        own = layer_of == layer
        numbers = table["index"].to_numpy()[own]
        frame = pd.DataFrame(
            {
                "neuron": numbers,
                "category": table["category"].to_numpy()[own].astype(str),
                "formula": table["formula"].to_numpy()[own].astype(str),
                "threshold": table["threshold"].to_numpy()[own].round(1),
            }
        )
        target = folder / layer
        target.mkdir(parents=True, exist_ok=True)
        path = target / f"results_{numbers.min()}_{numbers.max()}.csv"
        frame.to_csv(path, index=False)
        written.append(path)
    return written
