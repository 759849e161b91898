"""A result as the originals see it: one layer, its units, and the settings that name a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from neuronscope.result import Result

SCORES: dict[str, str] = {
    "iou": "IoU",
    "detection_accuracy": "detection accuracy",
    "activation_coverage": "activation coverage",
    "imrou": "ImRoU",
    "imrou_normalised": "normalised ImRoU",
}
"""Scores in words."""

DIGITS = 9  # decimals of a percentage that are kept before it is cut, so that 0.57 makes 57


@dataclass(frozen=True)
class LayerUnits:
    """The units of a layer.

    Attributes:
        layer: its name.
        rows: their places in the result's table.
        numbers: their indices in the layer.
        table: their part of the table.
        spec: the study's options.
    """

    layer: str
    rows: Int[np.ndarray, "u"]
    numbers: Int[np.ndarray, "u"]
    table: xr.Dataset
    spec: Mapping[str, Any]

    @property
    def span(self) -> str:
        """Smallest and largest unit as a part of file names."""
        return f"{self.numbers.min()}_{self.numbers.max()}"

    def texts(self, name: str) -> list[str]:
        """A variable of texts; empty ones where the result has no such variable."""
        if name not in self.table:
            return [""] * len(self.numbers)
        return [str(words) for words in self.table[name].to_numpy()]

    def get(self, name: str) -> Float[np.ndarray, "u"]:
        """A variable of numbers; nan where the result has no such variable."""
        if name not in self.table:
            return np.full(len(self.numbers), np.nan)
        return np.asarray(self.table[name].to_numpy(), dtype=np.float64)

    @property
    def score_name(self) -> str:
        """The score that formulas are judged by."""
        return str(self.spec.get("report_score") or self.spec["score"])

    @property
    def scores(self) -> Float[np.ndarray, "u"]:
        """That score of each unit; of older results, which only judged by IoU, the search's where it was another."""
        if "report_score" in self.table:
            return self.get("report_score")
        return self.get("held_out" if self.score_name == "iou" else "score")

    @property
    def formula_share(self) -> Float[np.ndarray, "u"]:
        """Share of the pixels that the formula covers; of older results as far as other shares tell."""
        if "formula_share" in self.table:
            return self.get("formula_share")
        hits = self.get("active_share") * self.get("activation_coverage")
        accuracy = self.get("detection_accuracy")
        return np.asarray(np.divide(hits, accuracy, out=np.full(len(hits), np.nan), where=accuracy > 0))


def explained_layers(result: Result) -> list[str]:
    """Names of the layers, in calling order."""
    return list(dict.fromkeys(str(name) for name in result.table["layer"].to_numpy()))


def layer_units(result: Result, layer: str) -> LayerUnits:
    """The units of one layer."""
    table = result.table
    rows = np.flatnonzero(table["layer"].to_numpy().astype(str) == layer)
    own = table.isel(unit=rows)
    return LayerUnits(layer, rows, own["index"].to_numpy().astype(np.int64), own, result.provenance.spec)


def group(result: Result, name: str) -> xr.Dataset | None:
    """A group of the result; None where it is not there."""
    return result.tree[name].to_dataset() if name in result.tree.children else None


def folder_name(spec: Mapping[str, Any]) -> str:
    """The folder that indres would put these settings' results into.

    Both forms of ImRoU are called by their multiplier in percent, as there; expanded labels exist on cells only. The
    scores that the original does not have go by their own names.

    Example:
        >>> folder_name({"length": 3, "score": "imrou", "resolution": "cells", "expansions": 3, "operators": ["or"]})
        'FL3_imrou75_X3_standard'
        >>> folder_name({"length": 10, "score": "iou", "operators": ["or", "close"], "probe": "firing"})
        'FL10_iou_N_close_EASY'
    """
    expansions = int(spec.get("expansions", 0)) if spec.get("resolution") == "cells" else 0
    close = {"with", "close"} & set(spec.get("operators", ()))
    parts = [
        f"FL{spec['length']}",
        score_part(str(spec["score"]), float(spec.get("multiplier", 0.75))),
        f"X{expansions}" if expansions else "N",
        "close" if close else "standard",
    ]
    return "_".join([*parts, "EASY"] if spec.get("probe") == "firing" else parts)


def score_part(name: str, multiplier: float) -> str:
    """A score as a part of file names.

    Example:
        >>> score_part("imrou_normalised", 0.57), score_part("detection_accuracy", 0.75)
        ('imrou57', 'detection-accuracy')
    """
    if name.startswith("imrou"):
        return f"imrou{int(round(100 * multiplier, DIGITS))}"
    return name.replace("_", "-")


def file_part(name: str) -> str:
    """A name as a part of file names: letters, digits, dots, hyphens.

    Example:
        >>> file_part("layer4.1/conv 2")
        'layer4.1-conv-2'
    """
    return re.sub(r"[^\w.-]+", "-", name).lstrip(".") or "layer"
