"""What maps say together: correlations between factors over depth, and how well discriminants tell factors apart."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from neuronscope.studies.sensitivity.page.pictures import SCALE, colour_bar, map_picture
from neuronscope.studies.sensitivity.page.view import MEASURES, View, counted, listed, texts
from neuronscope.views import Axis, Block, Chart, Gallery, Panel, Section, Series, Strip, Table, Text

_NAMES = {**MEASURES, "contrast": "size of the contrast"}
_COEFFICIENTS = {"spearman": "Spearman's", "pearson": "Pearson's", "kendall": "Kendall's"}
_BINS = 35  # of histograms, as published
_LINES = 8  # pairs of factors with lines of their own
_POINTS = 2500  # of one scatter plot
_FLAT = 4  # layers without maps that are drawn


def correlations(view: View) -> Iterator[Block]:
    """Between factors of one value and of two, with the coefficient of variation, over depth, and between layers."""
    table = view.groups.get("correlations")
    if table is None:
        return
    kind = _COEFFICIENTS[str(table.attrs.get("method", "spearman"))]
    yield Section(
        "Correlations between factors",
        f"{kind} correlation across the units of a layer at each place of their maps, mean over places: do units that "
        "one factor moves also answer to another? Shares of the variance are cut to 0..1, contrasts are taken by size. "
        f"Intervals and q-values count units, not places ({view.bound}, Benjamini-Yekutieli over each matrix). Cells "
        "that are not told from 0 are hatched; the table has all. Errors of estimation go together too, as all factors "
        "of an activation are estimated from the same rows: a small correlation of all pairs of factors may be theirs.",
    )
    layers, factors = texts(table["layer_name"]), texts(table["factor_name"])
    shown = [place for place, layer in enumerate(layers) if layer in view.shown_layers]
    values = texts(table["value_name"])
    for number, value in enumerate(values):
        yield _matrices(view, table, "within", number, title=f"{_named(value)}: factors with each other", shown=shown)
    for number, crossing in enumerate(texts(table["crossing_name"]) if "crossing_name" in table.coords else []):
        rows, columns = crossing.split(" x ")
        yield _matrices(
            view, table, "between", number, title=f"{_named(rows)} (rows) with {_named(columns)} (columns)", shown=shown
        )
    yield from _spreads(table, values, [layers[place] for place in shown], shown)
    if len(layers) > 1:
        yield _depth(table, values, layers, factors)
    if "share_name" in table.coords:
        yield _with_variation(view, table, layers, factors)
        yield from _variation_maps(view, table, layers, factors)
    yield from _own(view, table, values, layers, shown)
    yield _correlation_table(table, layers, factors)


def _named(value: str) -> str:
    return _NAMES[value]


def _matrices(view: View, table: xr.Dataset, name: str, number: int, *, title: str, shown: list[int]) -> Panel:
    """A heat map for each layer; what is not told from 0 is nan, but for the diagonal of ones."""
    factors = tuple(texts(table["factor_name"]))
    mean, q = (table[f"{name}_{ending}"].to_numpy()[:, number] for ending in ("mean", "q"))
    layers = texts(table["layer_name"])
    certain = view.told(q) | (np.eye(len(factors), dtype=bool) & (name != "between"))
    there = [g for g in range(len(factors)) if np.isfinite(mean[:, g]).any()]
    ticks = tuple(factors[g] for g in there)
    charts = tuple(
        _square(layers[place], np.where(certain[place], mean[place], np.nan)[np.ix_(there, there)], ticks)
        for place in shown
    )
    return Panel(
        f"correlations-{name}-{number}", title, charts, columns=view.beside, scale="shared", text=view.left_out
    )


def _square(title: str, cells: Float[np.ndarray, "r c"], ticks: tuple[str, ...]) -> Chart:
    return Chart(
        title,
        title,
        "heatmap",
        # Adding 0 makes a plain 0 of what rounds to nothing from below.
        (Series(title, cells.round(2) + 0.0),),
        Axis("factor", ticks=ticks),
        Axis("factor", ticks=ticks),
        value=Axis("correlation", limits=(-1.0, 1.0)),
        annotate=True,
        diverging=True,
    )


def _spreads(table: xr.Dataset, values: list[str], layers: list[str], shown: list[int]) -> Iterator[Panel]:
    """How far correlations differ from place to place: standard deviations of all pairs, and their running share."""
    deviation = table["within_deviation"].to_numpy()
    upper = np.triu_indices(deviation.shape[-1], 1)
    charts = []
    for number, value in enumerate(values):
        found = {layer: deviation[place, number][upper] for layer, place in zip(layers, shown, strict=True)}
        found = {layer: own[np.isfinite(own)] for layer, own in found.items()}
        top = max((float(own.max()) for own in found.values() if own.size), default=0.0) or 1.0
        edges = np.linspace(0.0, top, _BINS + 1)
        shares = {layer: np.histogram(own, edges)[0] / max(own.size, 1) for layer, own in found.items() if own.size}
        for what, series in (
            ("share of pairs", shares),
            ("share of pairs up to here", {layer: own.cumsum() for layer, own in shares.items()}),
        ):
            if series:
                charts.append(
                    Chart(
                        f"{value}-{what}",
                        _named(value),
                        "histogram",
                        tuple(Series(layer, own, edges) for layer, own in series.items()),
                        Axis("standard deviation of the correlation over places"),
                        Axis(what),
                    )
                )
    if charts:
        yield Panel(
            "correlation-spreads",
            "How far correlations differ from place to place",
            tuple(charts),
            columns=2,
            text="Of all pairs of factors. Layers without maps have one place and no deviation.",
        )


def _depth(table: xr.Dataset, values: list[str], layers: list[str], factors: list[str]) -> Panel:
    """Lines over layers of the pairs that are correlated most in some layer, with bands of one deviation."""
    charts = []
    mean, deviation = table["within_mean"].to_numpy(), table["within_deviation"].to_numpy()
    pairs = list(combinations(range(len(factors)), 2))
    for number, value in enumerate(values):
        heights = [np.nan_to_num(np.abs(mean[:, number, g, h])).max() for g, h in pairs]
        chosen = [pairs[place] for place in np.argsort(heights)[::-1][:_LINES] if heights[place] > 0]
        lines = tuple(
            Series(
                f"{factors[g]} x {factors[h]}",
                mean[:, number, g, h],
                low=mean[:, number, g, h] - np.nan_to_num(deviation[:, number, g, h]),
                high=mean[:, number, g, h] + np.nan_to_num(deviation[:, number, g, h]),
            )
            for g, h in chosen
        )
        charts.append(
            Chart(
                value,
                _named(value),
                "line",
                lines,
                Axis("layer", ticks=tuple(layers)),
                Axis("correlation", limits=(-1.0, 1.0)),
            )
        )
    return Panel(
        "correlations-by-depth",
        "Correlations over depth",
        tuple(charts),
        columns=2,
        text=f"The {_LINES} pairs of factors with the largest mean correlation in any layer. Bands are one standard "
        "deviation over places: no intervals, which are in the table.",
    )


def _with_variation(view: View, table: xr.Dataset, layers: list[str], factors: list[str]) -> Panel:
    """Factors by layers, for each share."""
    mean, q = table["variation_mean"].to_numpy(), table["variation_q"].to_numpy()
    shown = np.where(view.told(q), mean, np.nan)
    charts = tuple(
        Chart(
            share,
            _named(share),
            "heatmap",
            (Series(share, shown[:, number].T.round(2) + 0.0),),
            Axis("layer", ticks=tuple(layers)),
            Axis("factor", ticks=tuple(factors)),
            value=Axis("correlation", limits=(-1.0, 1.0)),
            annotate=True,
            diverging=True,
        )
        for number, share in enumerate(texts(table["share_name"]))
    )
    return Panel(
        "correlations-with-variation",
        "Sensitivity and how variable units are: correlation with the coefficient of variation",
        charts,
        columns=view.beside,
        scale="shared",
        text="Coefficient of variation: standard deviation of an activation over all rows, divided by the size of its "
        "mean. Above 0, units that vary more owe more of it to the factor.",
    )


def _variation_maps(view: View, table: xr.Dataset, layers: list[str], factors: list[str]) -> Iterator[Gallery]:
    """The same at every place."""
    maps = table["variation_map"].to_numpy()
    layer_of, y, x = (table[f"place_{name}"].to_numpy() for name in ("layer", "y", "x"))
    strips = []
    for place, layer in enumerate(layers):
        own = layer_of == place
        if own.sum() < 2 or layer not in view.shown_layers:  # noqa: PLR2004 one place is no map
            continue
        for number, share in enumerate(texts(table["share_name"])):
            whole = np.full((y[own].max() + 1, x[own].max() + 1, len(factors)), np.nan)
            whole[y[own], x[own]] = maps[number, own]
            pictures = [map_picture(whole[..., g], -1.0, 1.0, caption=factor) for g, factor in enumerate(factors)]
            strips.append(Strip(f"{layer}, {_named(share)}", pictures))
    if strips:
        yield Gallery(
            "variation-maps",
            "Correlation with the coefficient of variation at each place",
            (colour_bar("-1 to 1".replace("-", "\u2212"), times=SCALE), *strips),
            scale=SCALE,
            key="dark to bright: \u22121 to 1; white: no value. Of single places, which are not told from 0 one by one",
            text=view.left_out,
        )


def _own(view: View, table: xr.Dataset, values: list[str], layers: list[str], shown: list[int]) -> Iterator[Block]:
    """Across the places of each unit: matrices of the first value that has them, and distances of layers."""
    mean = table["own_mean"].to_numpy()
    known = np.isfinite(mean).any(axis=(2, 3))
    order = [number for name in ("total", "shapley", "first", "contrast") if name in values
             for number in [values.index(name)] if known[:, number].any()]  # fmt: skip
    if not order:
        return
    with_maps = [place for place in shown if known[place, order[0]]]
    yield _matrices(
        view,
        table,
        "own",
        order[0],
        title=f"{_named(values[order[0]])}: across the places of each unit, mean over units",
        shown=with_maps,
    )
    places = [place for place in range(len(layers)) if known[place].any()]
    if len(places) < 2:  # noqa: PLR2004 a distance is of two
        return
    ticks = tuple(layers[place] for place in places)
    charts = [
        Chart(
            f"{values[number]}-{name}",
            f"{_named(values[number])}, {title}",
            "heatmap",
            (Series(title, table[f"own_{name}"].to_numpy()[number][np.ix_(places, places)].round(2) + 0.0),),
            Axis("layer", ticks=ticks),
            Axis("layer", ticks=ticks),
            value=Axis(title, limits=limits),
            annotate=True,
            diverging=name == "spearman",
        )
        for number in order
        for name, title, limits in (
            ("difference", "mean absolute difference", (0.0, 1.0)),
            ("spearman", "Spearman's correlation", (-1.0, 1.0)),
        )
    ]
    yield Panel(
        "correlation-distances",
        "How alike the matrices of two layers are, of correlations across the places of each unit",
        tuple(charts),
        columns=2,
    )


def _correlation_table(table: xr.Dataset, layers: list[str], factors: list[str]) -> Table:
    rows: list[dict[str, object]] = []
    kinds = [("within", "value_name"), ("own", "value_name"), ("between", "crossing_name")]
    for kind, axis in [one for one in kinds if one[1] in table.coords]:
        parts = {ending: table[f"{kind}_{ending}"].to_numpy() for ending in ("mean", "deviation", "low", "high", "q")}
        for place, number, g, h in zip(*np.nonzero(np.isfinite(parts["mean"])), strict=True):
            if kind == "between" or g < h:
                names = (texts(table[axis])[number], factors[g], factors[h])
                rows.append(
                    _row(layers[place], kind, names, {name: one[place, number, g, h] for name, one in parts.items()})
                )
    if "share_name" in table.coords:
        parts = {
            ending: table[f"variation_{ending}"].to_numpy() for ending in ("mean", "deviation", "low", "high", "q")
        }
        for place, number, g in zip(*np.nonzero(np.isfinite(parts["mean"])), strict=True):
            names = (texts(table["share_name"])[number], factors[g], "variation")
            rows.append(
                _row(layers[place], "variation", names, {name: one[place, number, g] for name, one in parts.items()})
            )
    return Table(
        "correlations",
        "All correlations",
        pd.DataFrame(rows),
        formats=dict.fromkeys(("correlation", "deviation", "low", "high"), ".3f"),
        help={
            "kind": "within a value, between two, with the coefficient of variation (across units, mean over places); "
            "own: across the places of each unit, mean over units",
            "deviation": "standard deviation over places; of kind own, over units",
            "low": "lower end of the interval of the mean, for other units of the same kind",
            "q": "Benjamini-Yekutieli over the matrix",
        },
    )


def _row(layer: str, kind: str, names: tuple[str, str, str], numbers: dict[str, float]) -> dict[str, object]:
    value, factor, other = names
    found: dict[str, object] = {"layer": layer, "kind": kind, "value": value, "factor": factor, "other": other}
    return found | {("correlation" if name == "mean" else name): float(one) for name, one in numbers.items()}


def discriminants(view: View) -> Iterator[Block]:
    """Accuracies beside chance, confusions, projections; histograms of layers without maps."""
    table = view.groups.get("discriminants")
    if table is None:
        return
    shares, layers = texts(table["share_name"]), texts(table["layer_name"])
    factors = tuple(texts(table["factor_name"]))
    folds, repeats = int(table.attrs["folds"]), int(table.attrs["repeats"])
    yield Section(
        "Telling factors apart by their maps",
        f"Linear discriminants of the maps of all units, each labelled with its factor: {counted(folds, 'fold')}, "
        f"{counted(repeats, 'repeat')}. Accuracy is the mean over factors of the share of maps that are recognised.",
    )
    if table.attrs["split"] == "samples":
        yield Text(
            "Folds are split by samples, as published: maps of the same unit are in training and test. Maps that say "
            "nothing are then recognised more rarely than by chance; neither accuracy nor p-value means anything.",
            tone="warning",
        )
    found = {
        name: table[name].to_numpy()
        for name in ("test", "low", "high", "train", "null", "null_high", "p", "q", "units")
    }
    void = [layers[place] for place in np.flatnonzero(~np.isfinite(found["test"]).any(axis=1))]
    if void:
        yield Text(f"Too few units with a value for {folds} folds: {listed(void)}.", tone="note")
    yield Chart(
        "discriminants",
        "Balanced accuracy on units that were not seen",
        "bar",
        (
            *(
                Series(
                    _named(share), found["test"][:, number], low=found["low"][:, number], high=found["high"][:, number]
                )
                for number, share in enumerate(shares)
            ),
            Series("factors permuted, 95 % quantile", np.nanmax(np.nan_to_num(found["null_high"]), axis=1)),
        ),
        Axis("layer", ticks=tuple(layers)),
        Axis("balanced accuracy", limits=(0.0, 1.0)),
        text=f"Chance is {1 / len(factors):.3f}. Intervals are for other units, from as many as a fold trains on.",
    )
    yield _accuracies(view, found, layers, shares)
    shown = [place for place, layer in enumerate(layers) if layer in view.shown_layers and layer not in void]
    for number, share in enumerate(shares):
        charts = tuple(
            Chart(
                layers[place],
                layers[place],
                "heatmap",
                (Series("share", table["confusion"].to_numpy()[place, number].round(2) + 0.0),),
                Axis("taken for", ticks=factors),
                Axis("factor", ticks=factors),
                value=Axis("share of the factor's maps", limits=(0.0, 1.0)),
                annotate=True,
            )
            for place in shown
        )
        if charts:
            yield Panel(f"confusion-{number}", f"{_named(share)}: which factors are taken for which", charts,
                        columns=2, scale="shared", text=view.left_out)  # fmt: skip
    many = [layers[place] for place in shown if table["places"].to_numpy()[place] >= _trained(table, place)]
    text = "Discriminants of all maps, seen ones: groups are farther apart than those of new units would be."
    if many:
        text += f" In {listed(many)} maps have more places than there are maps, and the groups of seen maps are points."
    for number, share in enumerate(shares):
        charts = tuple(_scatter(table, place, number, layers[place], factors) for place in shown)
        if charts:
            title = f"{_named(share)}: maps along the first two discriminants"
            yield Panel(f"discriminants-{number}", title, charts, columns=2, text=text)
    yield from _histograms(view)


def _trained(table: xr.Dataset, place: int) -> int:
    """Maps of a layer beyond its means, which as many places can tell apart whatever they show."""
    factors = table.sizes["factor"]
    return int(table["units"].to_numpy()[place].max()) * factors - factors


def _accuracies(view: View, found: dict[str, np.ndarray], layers: list[str], shares: list[str]) -> Table:
    count = len(shares)
    frame = pd.DataFrame(
        {
            "layer": np.repeat(np.array(layers, dtype=object), count),
            "value": [_named(share) for share in shares] * len(layers),
            "units": found["units"].ravel(),
            "accuracy": found["test"].ravel(),
            "low": found["low"].ravel(),
            "high": found["high"].ravel(),
            "seen units": found["train"].ravel(),
            "permuted": found["null"].ravel(),
            "permuted, 95 %": found["null_high"].ravel(),
            "p": found["p"].ravel(),
            "q": found["q"].ravel(),
            "told": view.told(found["q"]).ravel(),
        }
    )
    return Table(
        "discriminants",
        "Accuracy of discriminants",
        frame,
        formats=dict.fromkeys(("accuracy", "low", "high", "seen units", "permuted", "permuted, 95 %"), ".3f"),
        help={
            "low": "lower end of the interval (corrected for what folds share: Nadeau and Bengio 2003)",
            "seen units": "accuracy on the units that the discriminants were found from",
            "permuted": "mean accuracy with factors permuted within units, everything found anew",
            "q": "of p, Benjamini-Yekutieli over layers and values",
            "told": f"whether maps tell factors apart ({view.bound})",
        },
    )


def _scatter(table: xr.Dataset, place: int, number: int, layer: str, factors: tuple[str, ...]) -> Chart:
    """A series for each factor; of many units some, evenly."""
    own = table["sample_layer"].to_numpy() == place
    points = table["projection"].to_numpy()[number, own]
    factor = table["sample_factor"].to_numpy()[own]
    spread = table["spread"].to_numpy()[place, number]
    step = -(-own.sum() // _POINTS)
    unit = table["sample_unit"].to_numpy()[own]
    chosen = (unit % step == 0) & np.isfinite(points[:, 0])
    # With two factors there is one discriminant: the points then lie on a line.
    points = np.nan_to_num(points)
    return Chart(
        layer,
        layer,
        "scatter",
        tuple(
            Series(name, points[chosen & (factor == g), 1], points[chosen & (factor == g), 0])
            for g, name in enumerate(factors)
        ),
        Axis(f"first discriminant ({np.nan_to_num(spread[0]):.0%})"),
        Axis(f"second discriminant ({np.nan_to_num(spread[1]):.0%})"),
    )


def _histograms(view: View) -> Iterator[Panel]:
    """Layers without maps: the distribution over units of each factor's share."""
    charts = []
    for layer in [layer for layer in view.flat_layers if layer in view.shown_layers][:_FLAT]:
        for share, title in MEASURES.items():
            values = view.maps(layer, share)
            if values is None:
                continue
            cut = np.clip(values, 0.0, 1.0).reshape(-1, values.shape[-1])
            edges = np.linspace(0.0, max(float(np.nanmax(cut, initial=0.0)), 1e-6), _BINS + 1)
            series = tuple(
                Series(factor, np.histogram(cut[np.isfinite(cut[:, g]), g], edges, density=True)[0], edges)
                for g, factor in enumerate(view.factors)
                if np.isfinite(cut[:, g]).any()
            )
            if series:
                charts.append(
                    Chart(f"{layer}-{share}", f"{layer}, {title}", "histogram", series, Axis(title), Axis("density"))
                )
    if charts:
        yield Panel(
            "flat-shares",
            "Layers without maps: shares of the variance over units",
            tuple(charts),
            columns=2,
            text="Cut to 0..1. A number is no map, so that there is nothing for discriminants.",
        )
