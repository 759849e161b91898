"""Whether the network is right more often where well explained units fire."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from neuronscope.studies.concepts.page.view import View, signed
from neuronscope.views import Axis, Block, Chart, Section, Series, Stat, Table

_WHISKERS = 150  # units: with more, intervals hide the points
_KINDS = {"formula": "formula", "concept": "single concept"}


def accuracy(view: View) -> Iterator[Block]:
    """Accuracy when a unit fires, against how well it is explained."""
    right = view.find("accuracy_when_firing", group="accuracy")
    if right is None or right.shape != view.explained.shape:
        return
    images, whole = view.number("images", group="accuracy"), view.number("accuracy", group="accuracy")
    yield Section(
        "Accuracy when units fire",
        "On images with class labels: how often the network is right on those where a unit is active, and whether that "
        "goes with how well the unit is explained. It shows what goes together, not what causes what: a unit may "
        "fire on images that are easy anyway.",
    )
    if np.isfinite(whole):
        low, high = (view.number(f"accuracy_{end}", group="accuracy") for end in ("low", "high"))
        known = np.isfinite(low) and np.isfinite(high)
        note = f"of {images:,.0f} labelled images" if np.isfinite(images) else "of the labelled images"
        yield Stat(
            "accuracy of the network",
            100 * whole,
            "%",
            100 * low if known else None,
            100 * high if known else None,
            note,
        )
    for name, words in _KINDS.items():
        r, low, high = (view.number(f"r_{name}{end}", group="accuracy") for end in ("", "_low", "_high"))
        if np.isfinite(r):
            known = np.isfinite(low) and np.isfinite(high)
            yield Stat(f"correlation, {words}", r, "", low if known else None, high if known else None, _p(view, name))
    yield from _scatter(view, right, whole)
    yield _table(view, right)


def _p(view: View, name: str) -> str:
    """How sure a correlation is."""
    p, permuted = (view.number(f"p_{name}{end}", group="accuracy") for end in ("", "_permuted"))
    said = [f"p = {p:.2g}"] if np.isfinite(p) else []
    said += [f"p = {permuted:.2g} with units permuted"] if np.isfinite(permuted) else []
    units = view.number(f"units_{name}", group="accuracy")
    said += [f"{units:,.0f} units"] if np.isfinite(units) else []
    return "; ".join(said)


def _finding(view: View, name: str) -> str:
    """A correlation in words that claim no more than it tells."""
    r, low, high, p = (view.number(f"{part}_{name}{end}", group="accuracy")
                       for part, end in (("r", ""), ("r", "_low"), ("r", "_high"), ("p", "")))  # fmt: skip
    if not np.isfinite(r):
        return f"With the best {_KINDS[name]}: no correlation can be worked out."
    interval = f" ({view.level:.0%} interval {signed(low)} to {signed(high)}" if np.isfinite(low) else " ("
    interval += f"{', ' if np.isfinite(low) else ''}p = {p:.2g})" if np.isfinite(p) else ")"
    sure = np.isfinite(p) and p < 1 - view.level
    tells = (
        f"better explained units fire on images that are {'more' if r > 0 else 'less'} often classified rightly"
        if sure
        else "not distinguishable from no relation at all"
    )
    return f"With the IoU of the best {_KINDS[name]}: r = {signed(r)}{interval}, {tells}."


def _scatter(view: View, right: np.ndarray, whole: float) -> Iterator[Block]:
    held = view.get("held_out")
    lows, highs = (view.find(end, group="accuracy") for end in ("low", "high"))
    shown = view.explained & np.isfinite(held) & np.isfinite(right)
    if not shown.any():
        return
    told = view.told
    parts = [("better than chance", told), ("not distinguishable from chance", ~told)]
    if not view.tested.any():
        parts = [("units", np.ones_like(told))]
    whiskers = lows is not None and highs is not None and shown.sum() <= _WHISKERS
    least = max(-0.02, float(np.nanmin((lows if whiskers and lows is not None else right)[shown])) - 0.05)
    series = []
    for title, own in parts:
        mine = shown & own
        if mine.any():
            low, high = (
                (lows[mine], highs[mine]) if whiskers and lows is not None and highs is not None else (None, None)
            )
            series.append(Series(title, right[mine], held[mine], low, high))
    said = [_finding(view, name) for name in _KINDS if view.find(f"r_{name}", group="accuracy") is not None]
    if np.isfinite(whole):
        said.append(f"On all images {whole:.1%} are right.")
    if whiskers:
        said.append(
            f"Whiskers: {view.level:.0%} interval of the share; a unit that fires on few images has a long one, and "
            "those that fire on the fewest are left out of the correlation."
        )
    yield Chart(
        "accuracy-iou",
        "Accuracy when firing and fit of the formula",
        "scatter",
        tuple(series),
        Axis("IoU of the formula on held-out images"),
        Axis("accuracy when the unit fires", limits=(least, 1.02)),
        text=" ".join(said),
    )


def _table(view: View, right: np.ndarray) -> Table:
    columns: dict[str, object] = {
        "layer": view.layer_of,
        "unit": view.index_of,
        "formula": [view.formulas[unit] or view.verdict(unit) for unit in range(len(right))],
        "accuracy": right,
    }
    for title, name in (("low", "low"), ("high", "high"), ("fires", "fires"), ("images", "fires_images")):
        values = view.find(name, group="accuracy")
        if values is not None:
            columns[title] = values
    columns["held-out IoU"] = view.get("held_out")
    return Table(
        "accuracy",
        "Accuracy when each unit fires",
        pd.DataFrame(columns),
        help={
            "accuracy": "share of rightly classified images among those where the unit fires, 0 to 1",
            "low": f"{view.level:.0%} interval: lower end",
            "high": "upper end",
            "fires": "share of the labelled images on which the unit fires",
            "images": "labelled images on which the unit fires",
            "held-out IoU": "of the unit and its formula",
        },
        formats={**dict.fromkeys(("accuracy", "low", "high", "fires"), ".3f"), "held-out IoU": ".4f"},
        preset="-accuracy",
    )
