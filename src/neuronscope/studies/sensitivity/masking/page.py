"""The page of the `masking` study: what masks do, beside random ones, and how alike inputs respond to them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import factorial

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float

from neuronscope.result import Result
from neuronscope.studies.sensitivity.masking.page_clusters import cluster_blocks
from neuronscope.studies.sensitivity.masking.page_comparison import comparison_blocks
from neuronscope.studies.sensitivity.masking.page_overlap import overlap_blocks
from neuronscope.studies.sensitivity.page.view import counted
from neuronscope.views import (
    Axis,
    Block,
    Chart,
    Page,
    Panel,
    Section,
    Series,
    Stat,
    Table,
    Text,
)

_VALUES = {
    "shapley": "Shapley effects",
    "total": "total Sobol indices",
    "first": "first-order Sobol indices",
    "contrast": "sizes of the paired contrast",
}
_KINDS = {"keep": "times sensitivity", "remove": "times 1 - sensitivity"}
_ACCURACY = Axis("accuracy", limits=(0.0, 1.0))
_TOGETHER = "together"
_BANDS = 4  # factors whose intervals can be told apart in one chart
_FEW_ORDERS = 40  # with fewer no p-value can say much


class View:
    """A masking result under short names."""

    def __init__(self, result: Result) -> None:  # noqa: D107 the class says it
        self.provenance = result.provenance
        self.groups = {str(name): node.to_dataset() for name, node in result.tree.children.items()}
        masks = self.groups["configurations"]
        self.names = _texts(masks["configuration_name"])
        self.variable, self.kind, self.where = (_texts(masks[name]) for name in ("variable", "kind", "at"))
        self.scale, self.quantile = masks["scale"].to_numpy(), masks["quantile"].to_numpy()
        self.inputs = _texts(self.groups["accuracy"]["input_name"])
        self.variables = list(dict.fromkeys(self.variable[1:]))
        self.ats = list(dict.fromkeys(self.where[1:]))
        self.level = float(self.provenance.spec["level"])

    @property
    def bound(self) -> float:
        """Findings count when q is below this."""
        return 1 - self.level

    @property
    def images(self) -> int:
        """Labelled images."""
        return int(self.groups["accuracy"].attrs["images"])

    @cached_property
    def accuracy(self) -> Float[np.ndarray, "i m"]:
        """Top-1 accuracy of each input and mask, the network as it is first."""
        return np.asarray(self.groups["accuracy"]["accuracy"].to_numpy()[0])

    def label(self, place: int) -> str:
        """A mask without its variable, in a few words."""
        if self.kind[place] == "selection":
            return f"x {self.scale[place]:g}, q {self.quantile[place]:g}"
        return _KINDS[self.kind[place]]

    def masks(self, *, variable: str, at: str) -> list[int]:
        """Places of the masks of a variable."""
        return [
            place for place in range(1, len(self.names)) if self.variable[place] == variable and self.where[place] == at
        ]

    def own_masks(self) -> list[str]:
        """The masks that each variable has, in a few words."""
        return [self.label(place) for place in self.masks(variable=self.variables[0], at=_TOGETHER)]

    def random(self, name: str) -> Float[np.ndarray, "j m"]:
        """Of masks beside random ones, by input and mask (without the unmasked network)."""
        return np.asarray(self.groups["against_random"][name].to_numpy())

    def told(self) -> Bool[np.ndarray, "j m"]:
        """Masks that are not like random ones."""
        return np.asarray(np.nan_to_num(self.random("difference_q"), nan=1.0) < self.bound)


def masking_page(result: Result) -> Page:
    """Everything the study found, in reading order: overview, accuracies, random masks, responses, tables."""
    view = View(result)
    origin = view.provenance
    value = _VALUES[str(origin.spec["value"])]
    layers = counted(len(_texts(view.groups["guides"]["layer_name"])), "layer")
    blocks: list[Block] = [
        *_overview(view),
        *_curves(view),
        *_accuracies(view),
        *_correlations(view),
        *cluster_blocks(view.groups),
        *overlap_blocks(view.groups, level=view.level, masks=view.own_masks()),
        *comparison_blocks(view.groups, level=view.level),
        *_tables(view),
    ]
    summary = (
        f"{origin.subject} on {origin.images:,} images of {origin.data}: {layers} masked by {value} of "
        f"{counted(len(view.variables), 'factor')}."
    )
    return Page("Guided masks", summary, tuple(blocks))


def _overview(view: View) -> Iterator[Block]:
    """Headline numbers, and what they do and do not say."""
    table = view.groups["accuracy"]
    low, high = (100 * float(table[f"accuracy_{end}"].to_numpy()[0, 0, 0]) for end in ("low", "high"))
    yield Stat(
        "accuracy, no mask",
        f"{100 * view.accuracy[0, 0]:.1f}",
        "%",
        round(low, 1),
        round(high, 1),
        f"{view.level:.0%} interval, {view.images:,} images",
    )
    draws = int(view.groups["against_random"].attrs["draws"])
    difference, told = view.random("difference"), view.told()
    tried = " input as it is" if len(difference) == 1 else " all inputs"
    count = int(np.isfinite(difference).sum())
    for name, found in (("worse", told & (difference < 0)), ("better", told & (difference > 0))):
        note = f"of {count:,} masks on{tried}; q < {view.bound:.2g}, beside {draws} random masks each"
        yield Stat(f"masks {name} than random ones", int(found.sum()), note=note)
    yield from _gaps(view)
    yield Text(
        "A mask multiplies the outputs of layers by numbers: the most sensitive elements by one number (0 kills, 0.5 "
        "damps, 1.5 amplifies), or every element by its sensitivity (or 1 minus it). Quantile q leaves that share "
        "alone. A random mask has the same numbers, as often, in other places of the same layer."
    )
    if not told.any():
        yield Text(
            f"No guided mask can be told from random ones with {view.images:,} images and {draws} random masks: that "
            "accuracy falls under a mask is then no finding about the factor that guides it.",
            tone="warning",
        )
    if len(difference) == 1 and len(view.inputs) > 1:
        yield Text(
            "Random masks were tried on input as it is only (--controlled all tries them on augmented input too): "
            "accuracies under augmentations have no random masks beside them.",
            tone="note",
        )
    guides = view.groups["guides"]
    empty = guides["above_zero"].to_numpy() < 1 - max(view.quantile[np.isfinite(view.quantile)], default=0.5)
    if empty.any():
        layers, variables = _texts(guides["layer_name"]), _texts(guides["variable_name"])
        where = ", ".join(f"{variables[j]} in {layers[i]}" for i, j in np.argwhere(empty)[:8])
        yield Text(
            f"Fewer elements have a sensitivity above 0 than even the smallest mask scales: {where}. There part of "
            "each mask is random.",
            tone="warning",
        )


def _gaps(view: View) -> Iterator[Block]:
    """Whether factors that augment the input deviate more."""
    table = view.groups.get("pairing")
    if table is None:
        return
    orders = factorial(len(view.variables))
    least = f", and no smaller one is possible with {orders} of them" if orders < _FEW_ORDERS else ""
    for place, name in enumerate(_texts(table["pattern_name"])):
        value, low, high, p = (float(table[f"gap{end}"].to_numpy()[place]) for end in ("", "_low", "_high", "_p"))
        if np.isfinite(value):
            sure = "" if high < 0 or low > 0 else "; not told from 0"
            yield Stat(
                f"pairing gap, {name}",
                round(value, 3),
                low=round(low, 3),
                high=round(high, 3),
                note=f"mean correlation of {int(table['pairs'].to_numpy()[place])} such pairs minus that of all "
                f"others; p = {p:.3g} among random orders of mask factors{least if p < 1.5 / orders else ''}{sure}",
            )


def _curves(view: View) -> Iterator[Block]:
    """Accuracy over quantiles of plain input, guided and random."""
    few = len(view.variables) <= _BANDS
    bands = "with the intervals of images" if few else "without their intervals, which are in the table"
    yield Section(
        "Guided and random masks",
        f"Plain images. Lines are guided masks, {bands}; the band of random masks is from the lowest to the highest of "
        "them. A line within that band is what random masks do.",
    )
    random = view.groups["against_random"]
    mean, least, most = (random[name].to_numpy()[0] for name in ("random", "random_lowest", "random_highest"))
    table = view.groups["accuracy"]
    low, high = (table[f"accuracy_{end}"].to_numpy()[0, 0] for end in ("low", "high"))
    scales = np.unique(view.scale[np.isfinite(view.scale)])
    for number, at in enumerate(view.ats):
        charts = []
        for scale in scales:
            lines = []
            for variable in view.variables:
                own = [p for p in view.masks(variable=variable, at=at) if view.scale[p] == scale]
                ends = (low[own], high[own]) if few else (None, None)
                lines.append(Series(variable, view.accuracy[0, own], view.quantile[own], *ends))
            first = [p for p in view.masks(variable=view.variables[0], at=at) if view.scale[p] == scale]
            places = np.array(first) - 1
            lines.append(Series("random", mean[places], view.quantile[first], least[places], most[places]))
            charts.append(
                Chart(
                    f"{scale:g}",
                    f"most sensitive elements x {scale:g}",
                    "line",
                    tuple(lines),
                    Axis("share left alone"),
                    _ACCURACY,
                )
            )
        where = "all layers together" if at == _TOGETHER else at
        quantiles = "quantile-masks" in view.provenance.legacy
        note = f" Random masks are those of {view.variables[0]}." if quantiles else ""
        yield Panel(f"curves-{number}", f"Accuracy on plain images, {where}", tuple(charts), columns=2, text=note)


def _accuracies(view: View) -> Iterator[Block]:
    """Accuracy by variable and mask of plain input; by input and mask of each variable."""
    yield Section(
        "Accuracy under each mask", "Top-1. Rows and columns of the same mask can be compared; see the tables."
    )
    masks = view.masks(variable=view.variables[0], at=_TOGETHER)
    ticks = tuple(view.label(place) for place in masks)
    every = np.stack([view.accuracy[:, view.masks(variable=name, at=_TOGETHER)] for name in view.variables], axis=1)
    yield _heat(
        "accuracy-plain",
        "Plain images, all layers together",
        every[0],
        Axis("mask", ticks=ticks),
        Axis("factor of the mask", ticks=tuple(view.variables)),
    )
    difference = view.random("difference")[0]
    told = view.told()[0]
    places = np.array([view.masks(variable=name, at=_TOGETHER) for name in view.variables]) - 1
    yield Chart(
        "against-random",
        "Plain images: accuracy minus that of random masks",
        "heatmap",
        (Series("difference", np.where(told[places], difference[places], np.nan).round(2) + 0.0),),
        Axis("mask", ticks=ticks),
        Axis("factor of the mask", ticks=tuple(view.variables)),
        value=Axis("difference", limits=(-1.0, 1.0)),
        annotate=True,
        diverging=True,
        text=f"Hatched: not told from random masks (q < {view.bound:.2g}, Benjamini-Yekutieli over all masks).",
    )
    if len(view.inputs) > 1:
        charts = []
        for number, name in enumerate(view.variables):
            combined = np.flatnonzero(np.isfinite(every[:, number, 0]))
            charts.append(
                _heat(
                    name,
                    name,
                    np.hstack([view.accuracy[combined, :1], every[combined, number]]),
                    Axis("mask", ticks=("none", *ticks)),
                    Axis("input", ticks=tuple(view.inputs[row] for row in combined)),
                )
            )
        yield Panel(
            "accuracy-inputs", "By input, for each factor of the mask", tuple(charts), columns=1, scale="shared"
        )


def _heat(name: str, title: str, cells: Float[np.ndarray, "r c"], x: Axis, y: Axis) -> Chart:
    return Chart(name, title, "heatmap", (Series("accuracy", cells.round(2)),), x, y, value=_ACCURACY, annotate=True)


def _correlations(view: View) -> Iterator[Block]:
    """Analysis A as a heat map and a table."""
    table = view.groups.get("correlations")
    if table is None:
        return
    value = table["correlation"].to_numpy()
    inputs, variables = _texts(table["augmentation_name"]), _texts(table["variable_name"])
    configurations = int(table.attrs["configurations"])
    yield Section(
        "Does augmented input respond as plain input does?",
        f"Spearman's correlation of the accuracies under the {configurations} masks of a factor, augmented against "
        "plain input, all layers together. The original found the lowest where input and mask are of the same factor, "
        "and between hue and saturation. The masks are nested, so p- and q-values describe only; intervals are over "
        "images. With few images all correlations are lowered by noise.",
    )
    yield Chart(
        "correlations",
        "Correlation of responses with those of plain input",
        "heatmap",
        (Series("correlation", value.round(2) + 0.0),),
        Axis("factor of the mask", ticks=tuple(variables)),
        Axis("augmentation of the input", ticks=tuple(inputs)),
        value=Axis("correlation", limits=(-1.0, 1.0)),
        annotate=True,
        diverging=True,
        text="Hatched: one of the two responses is the same under all masks, or input and mask are of different sets.",
    )
    shape = value.shape
    columns = {name: table[f"correlation_{name}"].to_numpy().ravel() for name in ("low", "high", "p", "q")}
    yield Table(
        "correlations",
        "Correlation of responses with those of plain input",
        pd.DataFrame(
            {
                "input": np.repeat(np.array(inputs, dtype=object), shape[1]),
                "mask": np.tile(np.array(variables, dtype=object), shape[0]),
                "correlation": value.ravel(),
                **columns,
            }
        )
        .dropna(subset=["correlation"])
        .reset_index(drop=True),
        formats=dict.fromkeys(("correlation", "low", "high"), ".3f"),
        help={
            "low": f"lower {view.level:.0%} limit over images",
            "p": "Student's t over configurations, which are nested: descriptive",
            "q": "of p, Benjamini-Yekutieli over the table",
        },
        preset="correlation",
    )


def _tables(view: View) -> Iterator[Block]:
    """All numbers."""
    yield Section("Tables")
    accuracy = view.groups["accuracy"]
    columns: dict[str, object] = {
        "input": np.repeat(np.array(view.inputs, dtype=object), len(view.names)),
        "mask": view.names * len(view.inputs),
        "factor": view.variable * len(view.inputs),
        "kind": view.kind * len(view.inputs),
        "at": view.where * len(view.inputs),
    }
    formats = {}
    for place, k in enumerate(int(one) for one in accuracy["k"].to_numpy()):
        for end, name in (("", f"top-{k}"), ("_low", f"top-{k} low"), ("_high", f"top-{k} high")):
            columns[name] = accuracy[f"accuracy{end}"].to_numpy()[place].ravel()
            formats[name] = ".3f"
    yield Table(
        "accuracy",
        "Accuracy of every input under every mask",
        pd.DataFrame(columns).dropna(subset=["top-1"]),
        formats=formats,
        help={"top-1 low": f"lower {view.level:.0%} limit over images", "at": "masked layer, or all together"},
    )
    random = view.groups["against_random"]
    inputs, masks = _texts(random["input_name"]), _texts(random["mask_name"])
    found = {
        "guided": view.accuracy[: len(inputs), 1:].ravel(),
        **{
            title: random[name].to_numpy().ravel()
            for title, name in (
                ("random", "random"),
                ("lowest random", "random_lowest"),
                ("highest random", "random_highest"),
                ("difference", "difference"),
                ("low", "difference_low"),
                ("high", "difference_high"),
                ("p", "difference_p"),
                ("q", "difference_q"),
            )
        },
    }
    yield Table(
        "against-random",
        "Guided masks beside random ones",
        pd.DataFrame(
            {
                "input": np.repeat(np.array(inputs, dtype=object), len(masks)),
                "mask": masks * len(inputs),
                **found,
                "told": view.told().ravel(),
            }
        ).dropna(subset=["random"]),
        formats=dict.fromkeys([name for name in found if name not in ("p", "q")], ".3f"),
        help={
            "difference": "top-1 accuracy minus the mean of random masks",
            "low": f"lower {view.level:.0%} limit over images and random masks",
            "p": "whether the guided mask could be a random one, two-sided",
            "q": "Benjamini-Yekutieli over all masks",
            "told": f"whether the mask is not like random ones (q < {view.bound:.2g})",
        },
        preset="difference",
    )
    yield _class_table(view)
    yield _guides_table(view.groups["guides"])


def _class_table(view: View) -> Table:
    """Plain input, all layers together: classes by masks; the result has all inputs, and intervals."""
    table = view.groups["accuracy_by_class"]
    own = table["accuracy"].to_numpy()[:, 0]
    chosen = [0, *(place for place in range(1, len(view.names)) if view.where[place] == _TOGETHER)]
    frame = pd.DataFrame(
        {"class": _texts(table["class_name"]), "images": table["images"].to_numpy()}
        | {view.names[place]: own[:, place] for place in chosen}
    )
    return Table(
        "accuracy-by-class",
        "Accuracy on plain images by class",
        frame,
        formats={view.names[place]: ".2f" for place in chosen},
        text="Classes have few images each: the result has the intervals, and augmented input.",
    )


def _guides_table(table: xr.Dataset) -> Table:
    layers, variables = _texts(table["layer_name"]), _texts(table["variable_name"])
    return Table(
        "guides",
        "Maps that guide",
        pd.DataFrame(
            {
                "layer": np.repeat(np.array(layers, dtype=object), len(variables)),
                "factor": variables * len(layers),
                "mean": table["mean"].to_numpy().ravel(),
                "above 0": table["above_zero"].to_numpy().ravel(),
            }
        ),
        formats={"mean": ".3f", "above 0": ".3f"},
        help={
            "mean": "mean sensitivity over elements, cut to 0..1",
            "above 0": "share of elements whose sensitivity is above 0; of the others the order is random",
        },
    )


def _texts(values: xr.DataArray) -> list[str]:
    return [str(value) for value in values.to_numpy().ravel()]
