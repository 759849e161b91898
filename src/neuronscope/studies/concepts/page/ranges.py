"""Ranges of each unit's activations: what it detects when it answers weakly, and what when strongly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from neuronscope.maths.resampling import wilson_interval
from neuronscope.studies.concepts.page.view import View
from neuronscope.views import Axis, Block, Chart, Section, Series, Stat, Table

_ROWS = 40  # units of the map: more would make names unreadable


def ranges(view: View) -> Iterator[Block]:
    """Formulas by range of activation."""
    formulas, held = view.find("formula", group="ranges"), view.find("held_out", group="ranges")
    if formulas is None or held is None:
        return
    there = np.array([[bool(words) for words in row] for row in formulas.tolist()], dtype=bool).reshape(held.shape)
    if not there.any():
        return
    count = held.shape[1]
    yield Section(
        "Ranges of activation",
        f"Each unit's activations cut into {count} ranges (clusters along a line, the weakest first), and a formula "
        "found for each: where the unit's activation lies within the range. A unit may answer to one thing weakly and "
        "to another strongly.",
    )
    q = view.find("q", group="ranges")
    told = there & view.below(q) if q is not None else np.zeros_like(there)
    if q is not None:
        yield from _share(view, there & np.isfinite(q), told)
    yield from _by_range(view, held, there, told if q is not None else None)
    yield from _map(view, held, there, told if q is not None else None)
    yield _table(view, there, told if q is not None else None)


def _share(view: View, tested: np.ndarray, told: np.ndarray) -> Iterator[Block]:
    """How many ranges can be told from chance."""
    if not tested.any():
        return
    for name, mine in (("all ranges", np.ones(tested.shape[1], dtype=bool)), *_single(tested.shape[1])):
        right, all_of = int(told[:, mine].sum()), int(tested[:, mine].sum())
        if all_of:
            low, high = wilson_interval(np.array([right]), np.array([all_of]), level=view.level)
            yield Stat(
                f"{name}: better than chance",
                100 * right / all_of,
                "%",
                100 * float(low[0]),
                100 * float(high[0]),
                f"{view.bound}; {right:,} of {all_of:,}",
            )


def _single(count: int) -> list[tuple[str, np.ndarray]]:
    """The weakest and the strongest range."""
    if count < 2:  # noqa: PLR2004 there is one only
        return []
    return [("weakest range", np.arange(count) == 0), ("strongest range", np.arange(count) == count - 1)]


def _by_range(view: View, held: np.ndarray, there: np.ndarray, told: np.ndarray | None) -> Iterator[Block]:
    """Mean fit of each range, over units with a formula in every range."""
    count = held.shape[1]
    usable = np.asarray((there & np.isfinite(held)).all(axis=1))
    if count < 2 or usable.sum() < 2:  # noqa: PLR2004 no interval, no line
        return
    null = view.find("null", group="ranges") if view.judged == "IoU" else None
    null = null if null is not None and np.isfinite(null[usable]).all() else None
    lines = []
    for layer, own in view.of_layers(usable):
        title = f"{layer} ({int(own.sum()):,} units)"
        for name, values in ((title, held), (f"{layer}, masks over other images", null)):
            if values is not None:
                mean, low, high = view.mean(values[own])
                known = bool(np.isfinite(low).all())
                lines.append(Series(name, mean, low=low if known else None, high=high if known else None))
    above = (held if null is None else held - null)[usable]
    [change], [low], [high] = view.mean((above[:, -1] - above[:, 0])[:, None])
    verdict = (
        "no difference that could be told from noise"
        if low <= 0 <= high
        else f"a difference of {abs(change):.3f} ({min(abs(low), abs(high)):.3f} to {max(abs(low), abs(high)):.3f}) in "
        f"favour of the {'strongest' if change > 0 else 'weakest'} range"
    )
    verdict = f"{'less what chance reaches, ' if null is not None else ''}{verdict}"
    if told is not None:
        verdict += f"; {told[usable].mean():.0%} of these ranges are better than chance"
    yield Chart(
        "ranges-mean",
        "Held-out IoU by range of activation",
        "line",
        tuple(lines),
        Axis("range, weakest to strongest", ticks=tuple(str(1 + i) for i in range(count))),
        Axis("mean IoU on held-out images"),
        text=(
            "Over units with a formula in every range. A range that activations are in more often reaches a higher "
            f"IoU, by chance too. First against last: {verdict}. Band: {view.level:.0%} interval for units like these."
        ),
    )


def _map(view: View, held: np.ndarray, there: np.ndarray, told: np.ndarray | None) -> Iterator[Block]:
    """The ranges of the best units side by side."""
    shown = np.where(there if told is None else told, held, np.nan)
    for layer in view.layer_names:
        places = view.places(layer)
        places = places[there[places].any(axis=1)]
        if not len(places):
            continue
        best = np.nan_to_num(np.where(there, held, np.nan), nan=-1.0).max(axis=1)
        rows = places[np.argsort(-best[places], kind="stable")][:_ROWS]
        if not np.isfinite(shown[rows]).any():
            continue
        yield Chart(
            f"ranges-{layer}",
            f"Ranges of the units of {layer}",
            "heatmap",
            (Series("", shown[rows]),),
            Axis("range, weakest to strongest", ticks=tuple(str(1 + i) for i in range(held.shape[1]))),
            Axis("unit", ticks=tuple(str(view.index_of[row]) for row in rows)),
            value=Axis("IoU on held-out images"),
            annotate=True,
            text=(
                (
                    f"The {len(rows)} of {len(places):,} units that fit best in any range. "
                    if len(rows) < len(places)
                    else ""
                )
                + (
                    "Hatched: no formula, or one that cannot be told from chance."
                    if told is not None
                    else "Hatched: no formula."
                )
            ),
        )


def _table(view: View, there: np.ndarray, told: np.ndarray | None) -> Table:
    units, count = there.shape
    unit, number = np.repeat(np.arange(units), count), np.tile(np.arange(count), units)
    keep = there.reshape(-1)
    columns: dict[str, object] = {
        "layer": view.layer_of[unit][keep],
        "unit": view.index_of[unit][keep],
        "range": 1 + number[keep],
    }
    for title, name in (
        ("above", "lower"),
        ("up to", "upper"),
        ("active share", "active_share"),
        ("formula", "formula"),
        ("held-out IoU", "held_out"),
        ("low", "held_out_low"),
        ("high", "held_out_high"),
        ("null", "null"),
        ("q", "q"),
    ):
        values = view.find(name, group="ranges")
        if values is not None:
            columns[title] = values.reshape(-1)[keep]
    if told is not None:
        words = {True: "better than chance", False: "not distinguishable from chance"}
        columns["verdict"] = [words[bool(one)] for one in told.reshape(-1)[keep]]
    score = view.find("score", group="ranges")
    if score is not None:
        columns["score"] = score.reshape(-1)[keep]
    return Table(
        "ranges",
        "Ranges of all units",
        pd.DataFrame(columns),
        help={
            "range": "1: the weakest activations",
            "above": "lower end of the range, in units of the activation",
            "up to": "upper end; infinite: no limit",
            "active share": f"share of the {view.places_word} of held-out images where the activation is in the range",
            "held-out IoU": "of formula and range, on held-out images, 0 to 1",
            "low": f"{view.level:.0%} interval of it for images like these: lower end",
            "high": "upper end",
            "null": f"{view.judged} with masks laid over other images, mean of the draws",
            "q": "against these draws, false discovery rate over all ranges of all units",
            "verdict": f"better than chance: {view.bound}",
            "score": f"{view.score} on the images searched",
        },
        formats={
            **dict.fromkeys(("held-out IoU", "low", "high", "null", "score", "active share"), ".4f"),
            **dict.fromkeys(("above", "up to"), ".4g"),
            "q": ".3f",
        },
    )
