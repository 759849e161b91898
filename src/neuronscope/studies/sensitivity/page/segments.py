"""Segments beside the whole network: how factors go together on each channel, unit by unit and layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from neuronscope.studies.sensitivity.page.view import MEASURES, View, counted, listed, texts
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text

_COEFFICIENTS = {"spearman": "Spearman's", "pearson": "Pearson's", "kendall": "Kendall's"}
_SEGMENTS = 6  # segments with matrices of their own
_WIDE = 12  # rows of a heat map that stands beside another, with its numbers


def segments_and_whole(view: View) -> Iterator[Block]:
    """What is told from chance, differences of units, matrices, distances of layers, and all numbers."""
    table = view.groups.get("whole_network")
    if table is None:
        return
    kind = _COEFFICIENTS[str(table.attrs.get("method", "spearman"))]
    draws = int(table.attrs["draws"])
    yield Section(
        "Segments beside the whole network",
        f"{kind} correlation between factors across the places of each unit's map, for segments on each channel of the "
        "images' colours and for the same units in the whole network (original). Shares of the variance are cut to "
        f"0..1. Intervals and q-values count units ({view.bound}, Benjamini-Yekutieli); tests make {draws} random "
        "exchanges of units or factors. Maps may have other sizes: each is correlated over its own places.",
    )
    yield Text(_findings(view, table))
    left_out = str(table.attrs.get("left_out", ""))
    if left_out:
        yield Text(
            f"Left out, as maps of fewer than three places have no correlations across places: {left_out}.", tone="note"
        )
    yield _apart(view, table)
    shares = texts(table["share_name"])
    for number, share in enumerate(shares):
        yield _matrices(view, table, number, share)
        yield _differences(view, table, number, share)
    for number, share in enumerate(shares):
        if table.sizes["segment"] > 1:
            yield _distances(view, table, number, share)
    yield _unit_table(table)
    yield _layer_table(table)
    yield _correlation_table(table)


def _findings(view: View, table: xr.Dataset) -> str:
    """What can be told from chance, in sentences."""
    channels = texts(table["channel_name"])
    q, apart, other = (table[name].to_numpy() for name in ("apart_q", "apart", "apart_mismatched"))
    told, known = view.told(q) & (apart < other), np.isfinite(q)
    parts = [f"{name} {told[..., k].sum()} of {known[..., k].sum()}" for k, name in enumerate(channels)]
    values = listed(MEASURES[name] for name in texts(table["share_name"]))
    apart_told, apart_known = _same_units(view, table, "distance")
    alike_told, alike_known = _same_units(view, table, "alike")
    found = (
        f"In {told.sum()} of {known.sum()} comparisons ({values} of each segment and channel) units are surely closer "
        f"to themselves in the whole network than to other units of their layer: on {listed(parts)}. The mean matrix "
        f"of a segment surely differs from that of the same units in the whole network in {apart_told} of "
        f"{apart_known}. Its pattern surely goes together with theirs in {alike_told} of {alike_known}: the same "
        "factors go together. Errors of estimation, which all factors of an activation share, have a pattern too."
    )
    if told.any() or apart_told or alike_told:
        return found
    return f"{found} Nothing of this can be told from chance: look at more units, or estimate with more points."


def _same_units(view: View, table: xr.Dataset, name: str) -> tuple[int, int]:
    """Of channels and the whole network, the same units: how many comparisons are told from chance, of how many."""
    channels, pairs = texts(table["channel_name"]), texts(table["pair_name"])
    own = [pairs.index(f"{channel} x original") for channel in channels]
    q = np.diagonal(table[f"{name}_q"].to_numpy()[:, own], axis1=2, axis2=3)
    return int(view.told(q).sum()), int(np.isfinite(q).sum())


def _apart(view: View, table: xr.Dataset) -> Panel:
    """Mean difference of the same units with intervals, and that of different units."""
    segments, channels = tuple(texts(table["segment_name"])), texts(table["channel_name"])
    ends = np.stack([table[f"apart{end}"].to_numpy() for end in ("", "_high", "_mismatched")])
    charts = []
    for number, share in enumerate(texts(table["share_name"])):
        top = 1.05 * float(np.nanmax(ends[:, :, number])) if np.isfinite(ends[:, :, number]).any() else 1.0
        for k, channel in enumerate(channels):
            own, low, high, other = (
                table[f"apart{end}"].to_numpy()[:, number, k] for end in ("", "_low", "_high", "_mismatched")
            )
            if np.isfinite(own).any():
                charts.append(
                    Chart(
                        f"{share}-{channel}",
                        f"{MEASURES[share]}, {channel}",
                        "line",
                        (Series("same unit", own, low=low, high=high), Series("other units of the layer", other)),
                        Axis("segment", ticks=segments),
                        Axis("mean absolute difference", limits=(0.0, top)),
                    )
                )
    return Panel(
        "segments-apart",
        "How far a unit's correlations on one channel are from those in the whole network",
        tuple(charts),
        columns=min(3, len(channels)),
        text="Of the correlations of all pairs of factors, mean over pairs and units. Bands: intervals for other units "
        f"of the same kind ({view.level:.0%}). A unit that is as far from itself as from others has not kept what it "
        "is.",
    )


def _matrices(view: View, table: xr.Dataset, number: int, share: str) -> Panel:
    """Mean correlations of each segment and source; what is not told from 0 is hatched."""
    factors = tuple(texts(table["factor_name"]))
    mean, q = (table[f"own_{end}"].to_numpy()[:, number] for end in ("mean", "q"))
    shown = np.where(view.told(q) | np.eye(len(factors), dtype=bool), mean, np.nan)
    charts = tuple(
        _square(f"{segment}, {source}", shown[place, k], factors, "factor", ("correlation", -1.0, 1.0))
        for place, segment in _shown(table)
        for k, source in enumerate(texts(table["source_name"]))
        if np.isfinite(mean[place, k]).any()
    )
    return Panel(
        f"segments-correlations-{share}",
        f"{MEASURES[share]}: correlations across the places of each unit, mean over units",
        charts,
        columns=2,
        scale="shared",
        text=f"Hatched: not told from 0 ({view.bound}). {_left_out(table)}".strip(),
    )


def _differences(view: View, table: xr.Dataset, number: int, share: str) -> Panel:
    """Mean absolute difference of each entry."""
    del view  # differences are sizes: whether they are more than chance is in the chart above and in the table
    factors = tuple(texts(table["factor_name"]))
    mean = table["difference_mean"].to_numpy()[:, number]
    top = float(np.nanmax(mean)) if np.isfinite(mean).any() else 1.0
    charts = tuple(
        _square(f"{segment}, {channel}", mean[place, k], factors, "factor", ("absolute difference", 0.0, top))
        for place, segment in _shown(table)
        for k, channel in enumerate(texts(table["channel_name"]))
        if np.isfinite(mean[place, k]).any()
    )
    return Panel(
        f"segments-differences-{share}",
        f"{MEASURES[share]}: absolute difference to the same units in the whole network, mean over units",
        charts,
        columns=min(3, table.sizes["channel"]),
        scale="shared",
        text=_left_out(table),
    )


def _distances(view: View, table: xr.Dataset, number: int, share: str) -> Panel:
    """All layers on all sources beside each other: distances and correlations that chance does not make."""
    sources, count = texts(table["source_name"]), table.sizes["segment"]
    ticks = tuple(f"{source}: {segment}" for source in sources for segment in texts(table["segment_name"]))
    same = np.eye(len(ticks), dtype=bool)
    charts = []
    for name, title, low, high in (
        ("distance", "mean absolute difference", 0.0, 1.0),
        ("alike", "Spearman's correlation", -1.0, 1.0),
    ):
        value, q = (np.full((len(ticks), len(ticks)), np.nan) for _ in range(2))
        for k, pair in enumerate(texts(table["pair_name"])):
            one, other = (slice(place * count, (place + 1) * count) for place in map(sources.index, pair.split(" x ")))
            for whole, part in ((value, name), (q, f"{name}_q")):
                whole[one, other] = table[part].to_numpy()[number, k]
                whole[other, one] = whole[one, other].T
        cells = np.where(view.told(q) | same, value, np.nan)
        top = float(np.nanmax(value)) if name == "distance" else high
        charts.append(_square(title, cells, ticks, "source and segment", (title, low, top or high)))
    return Panel(
        f"segments-distances-{share}",
        f"{MEASURES[share]}: how alike the mean matrices of two layers are",
        tuple(charts),
        columns=1 if len(ticks) > _WIDE else 2,
        text=f"Hatched: no more apart than groups made at random, or no more alike than with factors in random order "
        f"({view.bound}). Pairs of a channel with the whole network are over the upper triangle with its diagonal of "
        "ones, which makes them more alike; all others without, as published.",
    )


def _shown(table: xr.Dataset) -> list[tuple[int, str]]:
    """Segments with matrices of their own, evenly from the first to the last."""
    names = texts(table["segment_name"])
    if len(names) <= _SEGMENTS:
        return list(enumerate(names))
    places = np.unique(np.linspace(0, len(names) - 1, _SEGMENTS).round().astype(int))
    return [(int(place), names[place]) for place in places]


def _left_out(table: xr.Dataset) -> str:
    shown, every = len(_shown(table)), table.sizes["segment"]
    return f"{shown} of {counted(every, 'segment')}; the tables have all." if shown < every else ""


def _square(
    title: str,
    cells: Float[np.ndarray, "r c"],
    ticks: Sequence[str],
    what: str,
    value: tuple[str, float, float],
) -> Chart:
    label, low, high = value
    return Chart(
        title,
        title,
        "heatmap",
        # Adding 0 makes a plain 0 of what rounds to nothing from below.
        (Series(title, cells.round(2) + 0.0),),
        Axis(what, ticks=tuple(ticks)),
        Axis(what, ticks=tuple(ticks)),
        value=Axis(label, limits=(low, high)),
        annotate=len(ticks) <= _WIDE,
        diverging=low < 0,
    )


def _unit_table(table: xr.Dataset) -> Table:
    names = {"difference": "apart", "low": "apart_low", "high": "apart_high", "other units": "apart_mismatched",
             "p": "apart_p", "q": "apart_q"}  # fmt: skip
    values = {column: table[name].to_numpy() for column, name in names.items()}
    segments, shares, channels = (texts(table[f"{axis}_name"]) for axis in ("segment", "share", "channel"))
    units, places, modules = table["units"].to_numpy(), table["places"].to_numpy(), texts(table["module"])
    rows = [
        {
            "segment": segments[place],
            "value": shares[number],
            "channel": channels[k],
            **{column: float(one[place, number, k]) for column, one in values.items()},
            "units": int(units[place]),
            "places": int(places[place, k]),
            "places in the network": int(places[place, -1]),
            "module": modules[place],
        }
        for place, number, k in zip(*np.nonzero(np.isfinite(values["difference"])), strict=True)
    ]
    return Table(
        "segments-apart",
        "Units on one channel and in the whole network",
        pd.DataFrame(rows),
        formats=dict.fromkeys(("difference", "low", "high", "other units"), ".3f"),
        help={
            "difference": "mean absolute difference of the correlations between factors, 0 to 2: same unit",
            "low": "lower end of its interval, for other units of the same kind",
            "other units": "the same between different units of the layer: what is expected if it is not the unit that "
            "counts",
            "p": "that units are closer to themselves than to others, by exchange of units",
            "q": "Benjamini-Yekutieli over the segments and channels of a value",
        },
    )


def _layer_table(table: xr.Dataset) -> Table:
    names = {"difference": "distance", "by chance": "distance_null", "95 % by chance": "distance_null_high",
             "q": "distance_q", "spearman": "alike", "spearman q": "alike_q"}  # fmt: skip
    values = {column: table[name].to_numpy() for column, name in names.items()}
    segments, shares, pairs = (texts(table[f"{axis}_name"]) for axis in ("segment", "share", "pair"))
    rows: list[dict[str, object]] = []
    for number, k, row, column in zip(*np.nonzero(np.isfinite(values["difference"])), strict=True):
        one, _, other = pairs[k].partition(" x ")
        if one == other and row >= column:
            continue
        rows.append(
            {
                "value": shares[number],
                "segment": segments[row],
                "source": one,
                "other segment": segments[column],
                "other source": other,
                **{name: float(part[number, k, row, column]) for name, part in values.items()},
            }
        )
    return Table(
        "segments-distances",
        "Mean matrices of two layers",
        pd.DataFrame(rows),
        formats=dict.fromkeys(("difference", "by chance", "95 % by chance", "spearman"), ".3f"),
        help={
            "difference": "mean absolute difference of the entries of the two mean matrices, 0 to 2",
            "by chance": "its mean between groups of the same units made at random",
            "q": "that it is no larger than by chance (Benjamini-Yekutieli over the rows of a value)",
            "spearman": "rank correlation of the entries",
            "spearman q": "that the patterns go together no more than with factors in random order (likewise)",
        },
    )


def _correlation_table(table: xr.Dataset) -> Table:
    factors = texts(table["factor_name"])
    segments, shares, sources = (texts(table[f"{axis}_name"]) for axis in ("segment", "share", "source"))
    values = {end: table[f"own_{end}"].to_numpy() for end in ("mean", "deviation", "low", "high", "q")}
    rows = [
        {
            "segment": segments[place],
            "value": shares[number],
            "source": sources[k],
            "factor": factors[g],
            "other": factors[h],
            **{
                ("correlation" if end == "mean" else end): float(one[place, number, k, g, h])
                for end, one in values.items()
            },
        }
        for place in range(len(segments))
        for number in range(len(shares))
        for k in range(len(sources))
        for g, h in combinations(range(len(factors)), 2)
        if np.isfinite(values["mean"][place, number, k, g, h])
    ]
    return Table(
        "segments-correlations",
        "All correlations of segments and of the whole network",
        pd.DataFrame(rows),
        formats=dict.fromkeys(("correlation", "deviation", "low", "high"), ".3f"),
        help={
            "correlation": "across the places of each unit, mean over units",
            "deviation": "standard deviation over units",
            "low": "lower end of the interval of the mean, for other units of the same kind",
            "q": "Benjamini-Yekutieli over the matrix",
        },
    )
