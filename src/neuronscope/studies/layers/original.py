"""What the program this study comes from leaves behind, under its own names.

That program shows figures and saves none; its results are the pictures of its README. They are taken over by name
(`ORIGINAL_FIGURES`), and what its methods return is written as tables.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from neuronscope.result import Result

ORIGINAL_FIGURES: dict[str, str] = {
    "image.png": "decision-path",
    "image-1.png": "decision-probabilities",
    "image-2.png": "feature-maps-mean",
    "image-3.png": "feature-maps-0",
    "image-4.png": "feature-maps-1",
    "image-5.png": "feature-maps-2",
    "image-7.png": "preferences-*",
    "image-8.png": "importance-*",
    "image-9.png": "top-*",
    "image-10.png": "ratio-against-noise",
}
"""Picture in the README -> figure here in its place (`*`: the first layer's); `image-6.png` is a training curve."""


def export_layers(result: Result, folder: Path) -> list[Path]:
    """Write what `find_selective_neurons` and `analyze_neuron_importance` return, one file per layer.

    `selective_neurons_layer_I.csv` has a row per neuron and class: `neuron, digit, mean_activation`, with the neuron's
    `preferred_digit` and `selectivity`; `neuron_importance_layer_I.csv` has the variance over images and positions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = result.table
    layer_of = table["layer"].to_numpy().astype(str)
    unknown = np.full(len(layer_of), np.nan)
    preferred = table["preferred"].to_numpy() if "preferred" in table else unknown
    ratio = table["ratio"].to_numpy() if "ratio" in table else unknown
    written = []
    for number, layer in enumerate(dict.fromkeys(layer_of), start=1):
        own = np.flatnonzero(layer_of == layer)
        means = table["class_mean"].to_numpy()[own]
        units, classes = means.shape
        profile = pd.DataFrame(
            {
                "neuron": np.repeat(np.arange(units), classes),
                "digit": np.tile(table["class_name"].to_numpy().astype(str), units),
                "mean_activation": means.ravel(),
                "preferred_digit": np.repeat(preferred[own], classes),
                "selectivity": np.repeat(ratio[own], classes),
            }
        )
        importance = pd.DataFrame({"neuron": np.arange(units), "variance": table["variance_all"].to_numpy()[own]})
        for name, frame in (("selective_neurons", profile), ("neuron_importance", importance)):
            path = folder / f"{name}_layer_{number}.csv"
            frame.to_csv(path, index=False)
            written.append(path)
    return written
