"""How blocking each cluster changes faithfulness, over layers and numbers of clusters, and what is more than noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from neuronscope.studies.clusters.page.view import POINTS, View, capital, spanned
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text

KINDS = {
    "baseline": "nothing blocked",
    "filter": "cluster blocked",
    "isolate": "all but the cluster blocked",
    "random": "random channels blocked",
    "blurred": "baseline map, blurred",
    "ranking": "random order",
}
"""What each kind of configuration is, in words."""
_WRITTEN = 0.1
"""Points: where all differences are smaller, two decimals in the cells of a map would all be 0."""
_COLUMNS = {
    "difference": "difference",
    "low": "low",
    "high": "high",
    "spread": "spread",
    "d": "effect",
    "improved": "improved",
    "improved low": "improved_low",
    "improved high": "improved_high",
    "log10 p, t": "log10_p_t",
    "log10 p, Wilcoxon": "log10_p_wilcoxon",
    "log10 p, by class": "log10_p_clustered",
    "log10 q": "log10_q",
    "images": "images",
}
"""Column of the table of comparisons: variable of the group."""


def effect(view: View) -> Iterator[Block]:
    """Maps and bars of the differences, what they amount to in words, and the tables."""
    difference, levels = view.grid("comparisons", "difference"), view.grid("metrics", "faithfulness_mean")
    if difference is None and levels is None:
        return
    yield Section(
        "Effect of blocking a cluster",
        "Faithfulness of the map with a cluster's gradient blocked, minus that of the untouched map, on the same "
        "images.",
    )
    filters = view.rows("filter")
    if difference is not None and filters.size and np.isfinite(difference[filters]).any():
        yield from _words(view, difference, filters)
        yield from _maps(view, difference, filters)
        yield from _bars(view, difference)
    if difference is not None:
        yield from _comparisons(view)
    if levels is not None:
        yield from _levels(view)


def _words(view: View, difference: np.ndarray, filters: np.ndarray) -> Iterator[Block]:
    """How many findings there are, for each method and metric."""
    told = view.told(view.cells("comparisons", "log10_q"))
    nothing: dict[int, list[str]] = {}  # said once, as it may be all there is to say
    for a, b, title in view.pairs():
        own = difference[filters, a, b]
        if not np.isfinite(own).any():
            continue
        up = filters[told[filters, a, b] & (own > 0)]
        down = filters[told[filters, a, b] & (own < 0)]
        count, blank = int(np.isfinite(own).sum()), int(np.isfinite(own).sum()) - len(up) - len(down)
        parts = []
        if len(up):
            parts.append(
                f"{len(up)} of {count} clusters make the map more faithful when blocked "
                f"({_titles(view, up, difference[:, a, b])})"
            )
        if len(down):
            parts.append(f"{len(down)} less faithful ({_titles(view, down, -difference[:, a, b])})")
        if not parts:
            nothing.setdefault(count, []).append(title)
            continue
        rest = f"; {blank} cannot be told from no effect" if blank else ""
        best = up[np.argmax(difference[up, a, b])] if len(up) else down[np.argmin(difference[down, a, b])]
        value, low, high = (
            100 * float(view.cells("comparisons", name)[best, a, b]) for name in ("difference", "low", "high")
        )
        largest = f"{view.title(int(best))}, {spanned(value, low, high)} {POINTS}"
        yield Text(f"{capital(title)}: {', '.join(parts)}{rest}. Largest: {largest}.")
    for count, titles in nothing.items():
        yield Text(
            f"{view.together(titles)}: none of {count} clusters has an effect that can be told from none "
            f"({view.bound}).",
            tone="note",
        )


def _titles(view: View, rows: np.ndarray, height: np.ndarray) -> str:
    """Clusters, largest effect first."""
    return view.titles(rows[np.argsort(-height[rows], kind="stable")].tolist())


def _maps(view: View, difference: np.ndarray, filters: np.ndarray) -> Iterator[Block]:
    """Layers against clusters of every k."""
    columns = sorted({(int(view.k[row]), int(view.cluster[row])) for row in filters})
    layers = [layer for layer in view.layers if (view.layer[filters] == layer).any()]
    if len(columns) < 2:  # noqa: PLR2004 no grid
        return
    largest = 100 * np.nanmax(np.abs(difference[filters]))
    charts = []
    for a, b, title in view.pairs():
        cells = np.full((len(layers), len(columns)), np.nan)
        for row in filters:
            place = (int(view.k[row]), int(view.cluster[row]))
            cells[layers.index(str(view.layer[row])), columns.index(place)] = 100 * difference[row, a, b]
        if np.isfinite(cells).any():
            charts.append(
                Chart(
                    "map",
                    capital(title),
                    "heatmap",
                    (Series("difference", cells),),
                    Axis("cluster of k", ticks=tuple(f"{c} of {k}" for k, c in columns)),
                    Axis("layer", ticks=tuple(view.short(layer) for layer in layers)),
                    Axis("difference of faithfulness", POINTS),
                    annotate=bool(largest >= _WRITTEN),
                    diverging=True,
                )
            )
    if charts:
        yield Panel(
            "effect-grid",
            "Change of faithfulness by layer and cluster",
            tuple(charts),
            columns=2 if len(columns) <= 6 and len(charts) > 1 else 1,  # noqa: PLR2004 what fits half a page
            scale="shared",
            text="Above 0 (red): the map is more faithful without the gradient of the cluster. Whether a difference "
            "is more "
            "than noise is shown below.",
        )


def _bars(view: View, difference: np.ndarray) -> Iterator[Block]:
    """The same with intervals, what cannot be told from noise hatched."""
    told = view.told(view.cells("comparisons", "log10_q"))
    low, high = (100 * view.cells("comparisons", name) for name in ("low", "high"))
    filters = view.rows("filter")
    for a, b, title in view.pairs():
        charts = []
        # One scale for all layers: noise must not look as large as an effect.
        limits = _limits(*(cells[filters, a, b] for cells in (100 * difference, low, high)))
        for layer in view.layers:
            rows = view.rows("filter", layer=layer)
            if not rows.size or not np.isfinite(difference[rows, a, b]).any():
                continue
            series = []
            for name, chosen in (
                ("told from no effect", told[rows, a, b]),
                ("not told from no effect", ~told[rows, a, b]),
            ):
                values = np.where(chosen, 100 * difference[rows, a, b], np.nan)
                ends = [np.where(chosen, end[rows, a, b], np.nan) for end in (low, high)]
                series.append(Series(name, values, low=ends[0], high=ends[1]))
            charts.append(
                Chart(
                    "bars",
                    view.short(layer),
                    "bar",
                    tuple(series),
                    Axis("cluster of k", ticks=tuple(view.tick(int(row)) for row in rows)),
                    Axis("difference of faithfulness", POINTS, limits=limits),
                )
            )
        if charts:
            yield Panel(
                f"effect-{view.methods[a]}-{view.metrics[b]}",
                f"Change of faithfulness with intervals: {title}",
                tuple(charts),
                columns=min(2, len(charts)),
                text=(
                    f"Whiskers: {view.level:.0%} interval over images. Hatched: cannot be told from no effect "
                    f"({view.bound} over the whole grid is missed)."
                ),
            )


def _limits(*values: np.ndarray) -> tuple[float, float]:
    """Ends of an axis that holds 0 and all values, with a margin."""
    known = np.concatenate([np.zeros(1), *(one[np.isfinite(one)] for one in values)])
    margin = 0.05 * float(np.ptp(known))
    low, high = float(known.min()), float(known.max())
    return low - margin * (low < 0), high + margin * (high > 0)


def _comparisons(view: View) -> Iterator[Block]:
    """Every configuration against the baseline."""
    grids = {
        title: view.cells("comparisons", name)
        for title, name in _COLUMNS.items()
        if view.grid("comparisons", name) is not None
    }
    q = view.cells("comparisons", "log10_q")
    told, difference = view.told(q), view.cells("comparisons", "difference")
    kinds = [kind for kind in ("filter", "isolate", "random", "blurred", "ranking") if view.rows(kind).size]
    rows = [
        {
            **_named(view, row, a, b),
            **{title: float(cells[row, a, b]) for title, cells in grids.items()},
            "verdict": _verdict(bool(told[row, a, b]), float(difference[row, a, b]), float(q[row, a, b])),
        }
        for kind in kinds
        for row in view.rows(kind).tolist()
        for a, b, _ in view.pairs()
        if np.isfinite(difference[row, a, b])
    ]
    if not rows:
        return
    frame = pd.DataFrame(rows)
    if "images" in frame:
        frame["images"] = frame["images"].astype("Int64")
    first = ["layer", "what", "cluster", "k", "draw", "method", "metric", "difference", "low", "high", "log10 q"]
    order = [name for name in (*first, "verdict") if name in frame]
    frame = frame[[*order, *(name for name in frame if name not in order)]]
    yield Table(
        "comparisons",
        "All comparisons with the untouched map",
        frame.loc[:, [name for name in frame if not frame[name].isna().all()]],
        help={
            "what": "what the map is of; isolated: only the gradient of the cluster passes",
            "draw": "which of the random sets",
            "blocked": "channels whose gradient is blocked",
            "difference": "faithfulness minus that of the untouched map, mean over images, -1 to 1",
            "low": f"{view.level:.0%} bootstrap interval over images: lower end",
            "high": "upper end",
            "spread": "standard deviation of the difference over images",
            "d": "Cohen's d of paired values: difference over its standard deviation",
            "improved": "share of images with a more faithful map, 0 to 1",
            "log10 p, t": "paired t-test, p-value as a power of ten: -3 is 0.001",
            "log10 p, Wilcoxon": "signed rank test",
            "log10 p, by class": "t-test that allows for images of one class resembling each other",
            "log10 q": f"false discovery rate over the grid, as a power of ten; a finding is below "
            f"{np.log10(1 - view.level):.2f}",
            "images": "that were compared",
        },
        formats={
            **dict.fromkeys(("difference", "low", "high", "spread"), ".4f"),
            **dict.fromkeys(("improved", "improved low", "improved high"), ".1%"),
            **dict.fromkeys(("log10 p, t", "log10 p, Wilcoxon", "log10 p, by class", "log10 q"), ".2f"),
            "d": ".3f",
        },
        preset="-difference",
    )


def _levels(view: View) -> Iterator[Block]:
    """Faithfulness and sparsity themselves, of every configuration."""
    names = {
        "faithfulness": "faithfulness_mean",
        "low": "faithfulness_low",
        "high": "faithfulness_high",
        "spread": "faithfulness_std",
        "sparsity": "sparsity_mean",
        "sparsity spread": "sparsity_std",
    }
    grids = {
        title: view.cells("metrics", name) for title, name in names.items() if view.grid("metrics", name) is not None
    }
    kinds = [*KINDS, *sorted(set(map(str, view.kind)) - set(KINDS))]
    rows = [
        {**_named(view, row, a, b), **{title: float(cells[row, a, b]) for title, cells in grids.items()}}
        for kind in kinds
        for row in view.rows(kind).tolist()
        for a, b, _ in view.pairs()
        if any(np.isfinite(cells[row, a, b]) for cells in grids.values())
    ]
    if not rows:
        return
    yield Table(
        "metrics",
        "Faithfulness and sparsity of every map",
        pd.DataFrame(rows),
        help={
            "faithfulness": "fall of the probability when the highest-ranked part of the image is replaced, mean "
            "over images",
            "low": f"{view.level:.0%} interval of the mean over images: lower end",
            "high": "upper end",
            "spread": "population standard deviation over images",
            "sparsity": f"share of the image not needed to gather {float(view.option('mass', 0.9)):.0%} of the "
            f"attribution, 0 to 1",
            "sparsity spread": "population standard deviation over images",
        },
        formats=dict.fromkeys(names, ".4f"),
    )


def _named(view: View, row: int, method: int, metric: int) -> dict[str, object]:
    """What a configuration is, in columns."""
    table = view.configurations
    baseline = view.kind[row] == "baseline"
    named: dict[str, object] = {
        "layer": view.short(str(view.layer[row])),
        "what": KINDS.get(str(view.kind[row]), str(view.kind[row])),
        "k": str(view.k[row]) if view.k[row] > 0 and not baseline else "",
        "cluster": str(view.cluster[row]) if view.cluster[row] >= 0 else "",
        "draw": str(view.draw[row]) if view.draw[row] >= 0 else "",
        "method": view.methods[method],
        "metric": view.metrics[metric],
    }
    if table is not None and "n_filtered" in table:
        total = f" of {int(table['n_total'].to_numpy()[row])}" if "n_total" in table else ""
        named["blocked"] = f"{int(table['n_filtered'].to_numpy()[row])}{total}"
    return named


def _verdict(told: bool, difference: float, log10_q: float) -> str:  # noqa: FBT001 one finding of many
    if np.isnan(log10_q):
        return "not tested"
    if not told:
        return "not distinguishable"
    return "more faithful" if difference > 0 else "less faithful"
