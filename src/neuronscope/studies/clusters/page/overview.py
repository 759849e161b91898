"""What the study found in a few numbers, what blocking a gradient means, and what to beware of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from neuronscope.studies.clusters.page.view import (
    POINTS,
    View,
    decimals,
    first,
    listed,
    numbers,
    probable,
    signed,
    spanned,
    texts,
)
from neuronscope.studies.clusters.spec import LEGACY
from neuronscope.views import Block, Stat, Text

_FEW_IMAGES = 100  # a difference of means then has an interval of several points


@dataclass(frozen=True)
class Best:
    """The filter with the largest gain in faithfulness."""

    row: int
    method: int
    metric: int


def overview(view: View) -> Iterator[Block]:
    """Headline numbers, a paragraph for readers who are new to this, and warnings."""
    yield from _material(view)
    yield from _effect(view)
    yield from _cut(view)
    yield Text(_explanation(view))
    yield from _warnings(view)


def best_filter(view: View, rows: np.ndarray) -> Best | None:
    """Of some filters the one with the largest difference, before all others those told from noise."""
    difference = view.grid("comparisons", "difference")
    if difference is None or not len(rows) or not np.isfinite(difference[rows]).any():
        return None
    told = view.told(view.cells("comparisons", "log10_q"))[rows] & (difference[rows] > 0)
    height = np.where(np.isfinite(difference[rows]), difference[rows], -np.inf) + np.where(told, 2.0, 0.0)
    row, method, metric = (int(place) for place in np.unravel_index(int(np.argmax(height)), height.shape))
    return Best(int(rows[row]), method, metric)


def verdict(view: View, difference: float, log10_q: float) -> str:
    """Whether something is better than its control."""
    if not np.isfinite(difference):
        return "not tested"
    if not view.told(np.array(log10_q)):
        return "cannot be told"
    return "yes" if difference > 0 else "no"


def _material(view: View) -> Iterator[Block]:
    """What was looked at."""
    if view.layers:
        names = [view.short(layer) for layer in view.layers]
        yield Stat("layers", len(names), note=listed(names[:6]) + (f" and {len(names) - 6} more" if names[6:] else ""))
    units = view.groups.get("units")
    if units is not None and "unit" in units.sizes:
        yield Stat("channels", int(units.sizes["unit"]))
    if view.groups.get("images") is not None and "image" in view.groups["images"].sizes:
        yield Stat("images explained", int(view.groups["images"].sizes["image"]))


def _effect(view: View) -> Iterator[Block]:
    """The largest gain, and whether controls do as well."""
    filters = view.rows("filter")
    best = best_filter(view, filters)
    if best is None:
        return
    at = (best.row, best.method, best.metric)
    value, low, high, q = (
        float(view.cells("comparisons", name)[at]) for name in ("difference", "low", "high", "log10_q")
    )
    tried = len(filters) * len(view.methods) * len(view.metrics)
    what = f"{view.title(best.row)}, {view.method(best.method)}, {view.metrics[best.metric]} metric"
    told = bool(view.told(np.array(q))) and value > 0
    digits = decimals(100 * value, 100 * low, 100 * high)
    yield Stat(
        "best filter",
        signed(100 * value, f"+.{digits}f"),
        POINTS,
        round(100 * low, digits) + 0.0,  # no minus before a zero
        round(100 * high, digits) + 0.0,
        f"{what}; {probable(q)}, the largest of {tried} tried" + ("" if told else "; not distinguishable from no gain"),
    )
    main = best_filter(view, view.main_filters)
    if main is None:
        return
    for group, label in (("against_blurred", "beats blurring?"), ("against_random", "beats random channels?")):
        yield from _beaten(view, main, group, label)


def _beaten(view: View, main: Best, group: str, label: str) -> Iterator[Block]:
    """The best filter of the main k against one of its controls."""
    at = (main.row, main.method, main.metric)
    if view.grid(group, "difference") is None:
        return
    value, low, high, q = (
        100 * float(view.cells(group, name)[at]) for name in ("difference", "low", "high", "log10_q")
    )
    said = verdict(view, value, q / 100)
    if said == "not tested":
        return
    meaning = {"yes": "more than its control", "no": "its control does better", "cannot be told": "no clear difference"}
    note = f"{spanned(value, low, high)} {POINTS}, {probable(q / 100)}: {meaning[said]}; {view.title(main.row)}"
    yield Stat(label, said, note=note)


def _cut(view: View) -> Iterator[Block]:
    """Whether layers are the only way from image to answer, and how complete integrated gradients are."""
    table = view.groups.get("completeness")
    if table is None:
        return
    names = [view.short(name) for name in _completeness_layers(view)]
    cut = numbers(table, "cut", "layer")
    if cut is not None:
        whole = cut.astype(np.float64) == 1
        open_at = listed(name for name, one in zip(names, whole, strict=True) if not one)
        note = "all paths lead through them" if whole.all() else f"other paths lead past {open_at}"
        yield Stat("layers that are cuts", f"{int(whole.sum())} of {len(whole)}", note=note)
    residual = numbers(table, "residual_mean", "layer")
    if residual is not None and np.isfinite(residual).any():
        worst = int(np.nanargmax(residual))
        high = numbers(table, "residual_high", "layer")
        note = "of integrated gradients, mean over images"
        if high is not None and np.isfinite(high[worst]):
            note += f"; {float(high[worst]):.3g} at most"
        if len(names) > 1:
            note += f"; {names[worst]}, the largest"
        yield Stat("completeness residual", float(f"{float(residual[worst]):.3g}"), "logits", note=note)


def _completeness_layers(view: View) -> list[str]:
    table = view.groups["completeness"]
    names = first(table, "layer_name", "layer")
    return texts(names) if names is not None else [str(number) for number in range(table.sizes.get("layer", 0))]


def _explanation(view: View) -> str:
    """What blocking the gradient of a cluster means, for readers who are new to it."""
    drop, fill = float(view.option("drop", 0.1)), str(view.option("fill", "mean"))
    return (
        "The channels of a layer are put into clusters by how often and how strongly they answer to images. An "
        "attribution is a map of how much each pixel matters for the answer; it comes from gradients, which flow from "
        "the answer back through the layer to the image. Blocking the gradient of a cluster means that nothing flows "
        "back through its channels. On the way forward nothing changes: the network sees, computes and answers exactly "
        "as before, so its predictions stay the same, and only the map is another one. Whether that map is better is "
        f"then measured: the {drop:.0%} of the image that it ranks highest is replaced (fill: {fill}), and "
        f"faithfulness is how far "
        "the probability of the answer falls. It is 0 if nothing happens; more means that the map found what the "
        f"network uses. Differences are in points: hundredths of probability. Intervals cover {view.level:.0%}; a "
        f"finding counts if {view.bound} over all comparisons of the grid."
    )


def _warnings(view: View) -> Iterator[Block]:
    """What makes the numbers less than they seem."""
    for name in view.option("legacy", ()):
        yield Text(f"Deviation {name} is in force: {LEGACY.get(name, 'not known to this version')}.", tone="warning")
    table = view.groups.get("completeness")
    if table is not None:
        cut, past = numbers(table, "cut", "layer"), numbers(table, "past", "layer")
        for place, name in enumerate(_completeness_layers(view)):
            if cut is not None and int(cut[place]) != 1:
                share = float(past[place]) if past is not None else float("nan")
                way = f", with a gradient of {share:.0%} of the size of the whole one" if np.isfinite(share) else ""
                yield Text(
                    f"{view.short(name)} is not a cut of the network: some paths lead past it{way}. Their gradient is "
                    "never blocked: it is in the map of every cluster, so these do not add up to the whole.",
                    tone="warning",
                )
    images = view.groups.get("images")
    if images is not None and 0 < images.sizes.get("image", 0) < _FEW_IMAGES:
        yield Text(
            f"Few images ({images.sizes['image']}) were explained: intervals are wide, and what is not found may still "
            "be there.",
            tone="warning",
        )
    if view.rows("filter").size and not view.rows("random").size:
        yield Text(
            "No random sets were tried (--controls 0): blocking any channels of the same number may do the same.",
            tone="warning",
        )
    yield from _overlap(view)
    if view.provenance.skipped:
        yield Text(f"{len(view.provenance.skipped)} images could not be read and were left out.", tone="warning")


def _overlap(view: View) -> Iterator[Block]:
    """Random sets that hold much of the cluster they stand against."""
    table = view.configurations
    random = view.rows("random")
    if table is None or not random.size or "overlap" not in table or "n_filtered" not in table:
        return
    overlap, closed = (table[name].to_numpy().astype(np.float64)[random] for name in ("overlap", "n_filtered"))
    share = np.divide(overlap, closed, out=np.zeros(len(random)), where=closed > 0)
    shared = [int(row) for row, one in zip(random, share, strict=True) if one > 0.5]  # noqa: PLR2004 most of the set
    clusters = {(str(view.layer[row]), int(view.k[row]), int(view.cluster[row])): row for row in shared}
    if clusters:
        yield Text(
            f"Some random sets are mostly the cluster itself, up to {share.max():.0%}, as it is most of its layer: "
            f"they "
            f"are a weak control for {view.titles(clusters.values())}.",
            tone="note",
        )
