"""Segments on channels of the colours: what they are, each unit's channels beside one another, and units in full."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, zip_longest

import numpy as np
import pandas as pd

from neuronscope.studies.sensitivity.page.pictures import SCALE, colour_bar
from neuronscope.studies.sensitivity.page.strips import Chosen, choose, unit_rows
from neuronscope.studies.sensitivity.page.view import MEASURES, WILD, View, counted, listed, texts
from neuronscope.views import Block, Gallery, Section, Strip, Table, Text

_PICTURES = 750  # of all units in full: two megabytes


def pieces(view: View) -> Iterator[Block]:
    """Which modules and units were looked at, on which channels."""
    table = view.groups.get("segments")
    if table is None:
        return
    tones = "images that are normalised already" if view.has("normalised-hsv") else "the augmented image"
    yield Section(
        "Segments",
        "Modules that follow one another in the network were taken out of it and given the image itself: one channel "
        f"of the colours of {tones}, the same in every input channel. What units do there is not what they do in the "
        "network, where they see the output of the modules before them.",
    )
    segment, channel, index, modules = (texts(table[name]) for name in ("segment", "channel", "index", "modules"))
    frame = pd.DataFrame({"segment": segment, "modules": modules, "channel": channel, "unit": index})
    grouped = frame.groupby("segment", sort=False)
    yield Table(
        "segments",
        "Segments",
        pd.DataFrame(
            {
                "segment": list(grouped.groups),
                "modules": [", ".join(own.iloc[0].split(",")) for _, own in grouped["modules"]],
                "channels": [", ".join(dict.fromkeys(own)) for _, own in grouped["channel"]],
                "units": [own.nunique() for _, own in grouped["unit"]],
            }
        ),
        help={"units": "of the output of the last module, by their numbers in the network"},
    )
    if any(texts(table["reasons"])):
        yield Text(
            "Units are listed with reasons: what they stood out for in other results. Whatever is chosen for a large "
            "share has, in the images that it was chosen by, a larger one than it deserves. Estimates are fair only on "
            "other images than the choice was made on.",
            tone="note",
        )


def by_channel(view: View) -> Iterator[Block]:
    """A table of all units with what dominates them on each channel, and some units in full."""
    if "segments" not in view.groups:
        return
    yield Section(
        "Units by channel",
        "The same unit on one channel after another. A unit that never changes on a channel is dead there, and has no "
        "sensitivities on it: nothing that is done to the image comes through, or the channel never makes it active.",
    )
    if view.find("units", "dominant") is not None:
        yield _table(view)
    yield from _galleries(view)


def _table(view: View) -> Table:
    """A row for each unit, a column for each channel."""
    table = view.groups["segments"]
    frame = pd.DataFrame(
        {
            "segment": texts(table["segment"]),
            "unit": view.index_of,
            "channel": texts(table["channel"]),
            "reasons": texts(table["reasons"]),
            "said": _dominant(view),
        }
    )
    rows = frame.drop_duplicates(["segment", "unit"])[["segment", "unit", "reasons"]].reset_index(drop=True)
    channels = list(dict.fromkeys(frame["channel"]))
    for channel in channels:
        own = frame[frame["channel"] == channel][["segment", "unit", "said"]]
        rows = rows.merge(own.rename(columns={"said": channel}), on=["segment", "unit"], how="left")
    return Table(
        "units-by-channel",
        "What dominates each unit on each channel",
        rows[["segment", "unit", *channels, "reasons"]],
        help={
            **dict.fromkeys(channels, "factor with the largest total index, the index, its interval"),
            "reasons": "what the unit was listed for: variable, value, set of augmentations",
        },
        text="The factor with the largest total index, the index and its interval. With a question mark it is not told "
        f"from every other factor. Not known: the index is beyond {WILD:g}, which no true share is.",
    )


def _dominant(view: View) -> list[str]:
    """What dominates each row of the table of units, in words."""
    units = view.groups["units"]
    dominant, known = units["dominant"].to_numpy(), units["dominant_known"].to_numpy() == 1
    value, low, high = (units[f"total{end}"].to_numpy() for end in ("", "_low", "_high"))

    def said(row: int, factor: int) -> str:
        if factor < 0:
            return "dead"
        if value[row, factor] > WILD:
            return "not known"
        ends = f"({low[row, factor]:.2f} to {high[row, factor]:.2f})".replace("-", "\u2212")
        return f"{view.factors[factor]}{'' if known[row] else '?'} {value[row, factor]:.2f} {ends}"

    return [said(row, factor) for row, factor in enumerate(dominant.tolist())]


def _galleries(view: View) -> Iterator[Block]:
    """A gallery for each segment: rows for measures and channels, columns for factors."""
    asked = int(view.option("shown_units", 6))
    layers = {name: own for name, own in _layers(view).items() if any(view.has_maps(layer) for layer in own.values())}
    if not asked or not layers:
        return
    measures = [name for name in MEASURES if any(view.maps(one, name) is not None for one in view.layers)]
    each = (len(measures) * len(view.factors) + 6) * max(len(own) for own in layers.values())  # means and variances
    count = max(1, min(asked, _PICTURES // (each * len(layers))))
    fewer = f" Room is for {count} of the {asked} that were asked for (shown_units)." if count < asked else ""
    yield Text(
        f"Below are up to {counted(count, 'unit')} of each segment, with the channels one under another: those that a "
        f"factor dominates by the widest margin on some channel. They are extremes, not examples.{fewer}"
    )
    for number, (segment, own) in enumerate(layers.items()):
        chosen = _chosen(view, own, count)
        if chosen:
            yield Gallery(
                f"channels-{number}",
                f"Units of {segment} on {listed(own)}",
                (
                    colour_bar("0 to 1", times=SCALE),
                    *(strip for unit, reason in chosen.items() for strip in _unit(view, segment, own, unit, reason)),
                ),
                scale=SCALE,
                key="dark to bright: 0 to 1, in rows of the activation 0 to what the caption says, of log10(1 + size); "
                "white: no value, for the unit never changes there. Numbers are of the unit as a whole",
            )


def _layers(view: View) -> dict[str, dict[str, str]]:
    """Segment -> channel -> layer."""
    table = view.groups["segments"]
    found: dict[str, dict[str, str]] = {}
    for segment, channel, layer in zip(*(texts(table[name]) for name in ("segment", "channel", "layer")), strict=True):
        found.setdefault(segment, {})[channel] = layer
    return found


def _chosen(view: View, layers: dict[str, str], count: int) -> dict[int, str]:
    """Units and why: in turn the best of each channel."""

    def named(channel: str, one: Chosen) -> tuple[int, str]:
        return int(view.index_of[one.place]), f"{channel}: {one.reason}" if one.reason else ""

    picked = [
        [named(channel, one) for one in _best_first(view, choose(view, layer, count))]
        for channel, layer in layers.items()
    ]
    found: dict[int, str] = {}
    for pair in chain.from_iterable(zip_longest(*picked)):
        if pair is not None:
            found.setdefault(*pair)
    first = list(found)[:count]
    table = view.groups["segments"]
    there = texts(table["layer"])
    reasons = {
        unit: reason
        for layer, unit, reason in zip(there, table["index"].to_numpy().tolist(), texts(table["reasons"]), strict=True)
        if layer in layers.values()
    }
    return {
        unit: "; ".join(filter(None, [f"listed for {reasons[unit]}" if reasons[unit] else "", found[unit]]))
        for unit in sorted(first)
    }


def _best_first(view: View, chosen: list[Chosen]) -> list[Chosen]:
    """Those with the widest margin first."""
    margin = view.find("units", "dominant_margin")
    if margin is None:
        return chosen
    return sorted(chosen, key=lambda one: -float(np.nan_to_num(margin[one.place])))


def _unit(view: View, segment: str, layers: dict[str, str], unit: int, reason: str) -> Iterator[Strip]:
    """All rows of one unit; the first says which it is and why it is here."""
    rows: dict[str, list[Strip]] = {}
    for channel, layer in layers.items():
        places = view.places(layer)
        place = int(np.flatnonzero(view.index_of[places] == unit)[0])
        for title, pictures in unit_rows(view, layer, place, int(places[place])):
            rows.setdefault(title, []).append(Strip(f"{segment}:{unit} {title}, {channel}", pictures))
    first = True
    for strip in chain.from_iterable(rows.values()):
        yield Strip(strip.label, strip.pictures, note=reason if first else "")
        first = False
