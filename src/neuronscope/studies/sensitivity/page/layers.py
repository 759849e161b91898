"""Layer by layer: shares of the variance of each factor with intervals, over depth, in pairs, and as they settled."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np
import pandas as pd
from jaxtyping import Float

from neuronscope.maths.replicates import t_quantile
from neuronscope.studies.sensitivity.page.view import MEASURES, View, counted, known_mean, spread, texts
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text

_SHARE = Axis("share of the variance", limits=(0.0, 1.0))
_BAR_SHARE = Axis("share of the variance", limits=(-0.1, 1.0))


def factors(view: View) -> Iterator[Block]:
    """What varied, and over which range."""
    table = view.groups.get("factors")
    if table is None:
        return
    yield Section("Factors")
    yield Table(
        "factors",
        "What varies",
        pd.DataFrame(
            {
                "factor": view.factors,
                "kind": texts(table["kind"]),
                "columns": table["columns"].to_numpy(),
                "range": texts(table["range"]),
            }
        ),
        help={"columns": "coordinates of a row that belong to it; they change together"},
        text=f"Images: {counted(int(table.attrs.get('images', 0)), 'image')} of "
        f"{int(table.attrs.get('classes', 0)):,} classes. All values are uniform over their ranges.",
    )


def layers(view: View) -> Iterator[Block]:
    """Shares by factor: bars and maps of numbers, profiles over depth, the table."""
    if not view.measures:
        return
    names = [MEASURES[name] for name in view.measures]
    yield Section(
        "Factors by layer",
        f"Of a layer as a whole, the variances of all its activations added up: {', '.join(names)}. Whiskers and bands "
        "are intervals over replicates; the axes end at 0 and 1 even where an interval does not.",
    )
    yield _bars(view)
    yield _numbers(view)
    if any(len(own) > 1 for own in view.rows_of_layers.values()):
        yield _depth(view)
    yield _table(view)


def _bars(view: View) -> Panel:
    """A chart for each layer."""
    found = {name: view.of_layers(name) for name in view.measures}
    charts = []
    for layer in view.shown_layers:
        place = view.layers.index(layer)
        series = tuple(
            Series(MEASURES[name], value[place], low=low[place], high=high[place])
            for name, (value, low, high) in found.items()
        )
        charts.append(Chart(layer, layer, "bar", series, Axis("factor", ticks=view.factors), _BAR_SHARE))
    return Panel(
        "factors-by-layer",
        "Shares of the variance by factor",
        tuple(charts),
        columns=view.beside,
        text=view.left_out,
    )


def _numbers(view: View) -> Panel:
    """The same as numbers: factors by layers, and medians over units beside the layers as a whole."""
    charts = tuple(
        Chart(
            f"{name}-{kind}",
            f"{MEASURES[name]}, {kind}",
            "heatmap",
            # Adding 0 makes a plain 0 of what rounds to nothing from below.
            (Series(MEASURES[name], values.T.round(2) + 0.0),),
            Axis("layer", ticks=view.layers),
            Axis("factor", ticks=view.factors),
            value=_SHARE,
            annotate=True,
        )
        for name in view.measures
        for kind, values in (("layer", view.of_layers(name)[0]), ("median unit", _medians(view, name)))
    )
    return Panel(
        "factors-and-layers",
        "Shares of the variance by factor and layer",
        charts,
        columns=2,
        scale="shared",
        text="Layers as a whole, and the median of their live units. Differences of less than the intervals above mean "
        "nothing.",
    )


def _depth(view: View) -> Panel:
    """Profiles over layers: a line for each factor; of segments on each channel."""
    charts = []
    for name, (row, own) in product(view.measures, view.rows_of_layers.items()):
        places = [view.layers.index(layer) for layer in own]
        value, low, high = (values[places] for values in view.of_layers(name))
        lines = tuple(
            Series(factor, value[:, g], low=np.clip(low[:, g], 0, 1), high=np.clip(high[:, g], 0, 1))
            for g, factor in enumerate(view.factors)
        )
        every = view.of_layers(name)[0]
        top = float(np.nanmax(np.where(np.isfinite(every), every, 0.0))) if name == "first" else 1.0
        ends = (0.0, min(1.0, max(0.1, 1.3 * top)))
        charts.append(
            Chart(
                f"{name}-{row}" if row else name,
                f"{MEASURES[name]}, {row}" if row else MEASURES[name],
                "line",
                lines,
                Axis("layer", ticks=own),
                Axis("share of the variance", limits=ends),
            )
        )
    return Panel(
        "depth",
        "Factors over depth",
        tuple(charts),
        columns=len(view.rows_of_layers) if len(view.rows_of_layers) > 1 else 2,
        text="First-order indices have a scale of their own where they are small." if "first" in view.measures else "",
    )


def _table(view: View) -> Table:
    """Everything known of layers: a row for each layer and factor."""
    table = view.groups["layers"]
    count = len(view.factors)
    columns: dict[str, object] = {
        "layer": np.repeat(np.array(view.layers, dtype=object), count),
        "factor": np.tile(np.array(view.factors, dtype=object), len(view.layers)),
    }
    for name in ("units", "live", "replicates"):
        if name in table:
            columns[name] = np.repeat(table[name].to_numpy(), count)
    for name in view.measures:
        title = MEASURES[name]
        columns[title] = table[name].to_numpy().ravel()
        for end in ("low", "high"):
            columns[f"{title} {end}"] = table[f"{name}_{end}"].to_numpy().ravel()
        columns[f"{title}, median unit"] = _medians(view, name).ravel()
        if f"{name}_activations" in table:
            columns[f"{title}, activations"] = table[f"{name}_activations"].to_numpy().ravel()
    frame = pd.DataFrame(columns)
    return Table(
        "layers",
        "Layers and factors",
        frame,
        formats=dict.fromkeys([name for name in frame.columns if frame[name].dtype.kind == "f"], ".3f"),
        help={
            "live": "units that change",
            "replicates": "independent scrambles of the Sobol design",
            **{f"{MEASURES[name]}, activations": "mean over all activations of the layer, each cut to 0..1: the "
               "average of the program this study comes from" for name in view.measures},
            **{f"{MEASURES[name]}, median unit": "half of the live units have less" for name in view.measures},
        },
    )  # fmt: skip


def _medians(view: View, name: str) -> Float[np.ndarray, "layer factor"]:
    values = view.find("units", name)
    if values is None:
        return np.full((len(view.layers), len(view.factors)), np.nan)
    return np.array([[spread(one)[1] for one in values[view.places(layer)].T] for layer in view.layers])


def pairs(view: View) -> Iterator[Block]:
    """Second-order indices: what two factors do together and neither alone."""
    second = view.find("units", "second")
    if second is None or len(view.factors) < 2:  # noqa: PLR2004 a pair
        return
    yield Section(
        "Pairs of factors",
        "Second-order index: the share of the variance that two factors explain together and neither alone. Means over "
        "the live units of a layer, each unit's cut to -1..1. Estimates scatter around 0, also below it.",
    )
    charts = tuple(_pair_map(view, layer, second) for layer in view.shown_layers)
    yield Panel(
        "pairs", "Second-order indices", charts, columns=view.beside, scale="shared",
        text=" ".join(filter(None, ["The lower triangle would repeat the upper.", view.left_out])),
    )  # fmt: skip
    yield _pair_table(view, second)


def _pair_map(view: View, layer: str, second: Float[np.ndarray, "u pairs"]) -> Chart:
    """The upper triangle of a layer, without the empty first column and last row."""
    count, names = len(view.factors), texts(view.groups["units"]["pair_name"])
    place = {
        f"{view.factors[one]} x {view.factors[other]}": (one, other) for one, other in combinations(range(count), 2)
    }
    cells = np.full((count - 1, count - 1), np.nan)
    for name, value in zip(names, known_mean(_live(second[view.places(layer)])), strict=True):
        one, other = place[name]
        cells[one, other - 1] = value
    return Chart(
        layer,
        layer,
        "heatmap",
        (Series("second-order index", cells),),
        Axis("with", ticks=view.factors[1:]),
        Axis("factor", ticks=view.factors[:-1]),
        value=Axis("second-order index"),
        annotate=True,
        diverging=True,
    )


def _live(values: Float[np.ndarray, "u k"]) -> Float[np.ndarray, "v k"]:
    """Of live units only, cut to -1..1; one row of nan where none is alive."""
    alive = np.isfinite(values).all(axis=1)
    return np.clip(values[alive], -1, 1) if alive.any() else np.full((1, values.shape[1]), np.nan)


def _pair_table(view: View, second: Float[np.ndarray, "u pairs"]) -> Table:
    names = texts(view.groups["units"]["pair_name"])
    low, high = (view.groups["units"][f"second_{end}"].to_numpy() for end in ("low", "high"))
    rows = []
    for layer in view.layers:
        own = view.places(layer)
        means, live = known_mean(_live(second[own])), int(np.isfinite(second[own, 0]).sum())
        for place, name in enumerate(names):
            rows.append(
                {
                    "layer": layer,
                    "pair": name,
                    "mean": means[place],
                    "median": spread(second[own, place])[1],
                    "above 0": int((low[own, place] > 0).sum()),
                    "below 0": int((high[own, place] < 0).sum()),
                    "of": live,
                }
            )
    return Table(
        "pairs",
        "Pairs of factors",
        pd.DataFrame(rows),
        preset="-mean",
        formats={"mean": ".3f", "median": ".3f"},
        help={
            "mean": "second-order index, mean over live units",
            "above 0": f"units whose {view.level:.0%} interval lies above 0, by chance {(1 - view.level) / 2:.1%}",
            "below 0": "units whose interval lies below 0: no true index is, so these are errors",
            "of": "live units",
        },
    )


def convergence(view: View) -> Iterator[Block]:
    """Total indices after each replicate."""
    total = view.find("convergence", "total")
    if total is None:
        return
    used = int(np.isfinite(total).any(axis=(0, 2)).sum())
    if used < 2:  # noqa: PLR2004 one number has no scatter
        return
    yield Section(
        "How sure the order is",
        "Mean total index of each layer and factor after 1, 2, ... replicates. The band is the interval of the "
        "replicates so far; the study stops early once the order of the factors is settled in every layer.",
    )
    charts = tuple(_running(view, layer, total) for layer in view.shown_layers if layer not in view.wild_layers)
    if charts:
        yield Panel("convergence", "Total indices over replicates", charts, columns=2, text=view.left_out)
    if view.settled() is False:
        yield Text("By the last replicate, the order was not settled in every layer.", tone="note")


def _running(view: View, layer: str, total: Float[np.ndarray, "layer replicate factor"]) -> Chart:
    own = total[view.layers.index(layer)]
    own = own[np.isfinite(own).any(axis=1)]
    count = np.arange(1, len(own) + 1)
    lines = []
    for g, factor in enumerate(view.factors):
        parts = own[:, g]
        mean = np.array([parts[:n].mean() for n in count])
        reach = np.array(
            [
                t_quantile(n, view.level) * parts[:n].std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
                for n in count.tolist()
            ]
        )
        lines.append(Series(factor, mean, low=np.clip(mean - reach, 0, 1), high=np.clip(mean + reach, 0, 1)))
    return Chart(
        layer,
        layer,
        "line",
        tuple(lines),
        Axis("replicates", ticks=tuple(map(str, count.tolist()))),
        Axis("total index", limits=(0.0, 1.0)),
    )
