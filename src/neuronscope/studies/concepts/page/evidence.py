"""Whether formulas say more than chance: scores on images that were not searched, and what chance would reach."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neuronscope.studies.concepts.page.view import View, median
from neuronscope.views import Axis, Block, Chart, Section, Series

_WHISKERS = 150  # units: with more, intervals hide the points


def evidence(view: View) -> Iterator[Block]:
    """Held-out scores beside their null, and beside those of the search."""
    report = view.find("report_score") if view.judged != "IoU" else None
    judged = view.judged if report is not None else "IoU"
    held, null = view.known("report_score" if report is not None else "held_out"), view.known("null")
    if not held.size:
        return
    yield Section(
        "Is it real?",
        "Scores on images that were not searched, beside those of the same masks laid over other images. A formula of "
        "image halves or large areas fits to some extent whatever the unit does.",
    )
    low = min(0.0, float(held.min()), float(null.min()) if null.size else 0.0)
    top = max(float(held.max()), float(null.max()) if null.size else 0.0) or 1.0
    edges = np.linspace(low, top, 31 if held.size > 60 else 16)  # noqa: PLR2004 some units in a bin
    bars = [Series("units", np.histogram(held, edges)[0].astype(np.float64), edges)]
    if null.size:
        bars.append(Series("masks over other images", np.histogram(null, edges)[0].astype(np.float64), edges))
    yield Chart(
        "held-out",
        f"Held-out {judged} and its null",
        "histogram",
        tuple(bars),
        Axis(f"{judged} on held-out images"),
        Axis("units"),
        text=f"Null: for each unit the mean of {view.draws} draws." if null.size else "",
    )
    if view.spec["score"] == "iou" and not view.has("same-images"):  # other scores do not compare with IoU
        yield from _overfit(view)


def _overfit(view: View) -> Iterator[Block]:
    """What the score of the search is worth on other images."""
    both = view.explained & np.isfinite(view.get("held_out")) & np.isfinite(view.get("score"))
    if not both.any():
        return
    score, held_out = view.get("score")[both], view.get("held_out")[both]
    lows, highs = view.find("held_out_low"), view.find("held_out_high")
    shown = lows is not None and highs is not None and len(score) <= _WHISKERS
    ends = (lows[both], highs[both]) if shown and lows is not None and highs is not None else (held_out, held_out)
    end = float(max(score.max(), held_out.max(), np.nanmax(ends[1])))
    kept = median(held_out[score > 0] / score[score > 0])
    told = view.told[both]
    parts = [("better than chance", told), ("not distinguishable from chance", ~told)]
    if not view.tested.any():
        parts = [("units", np.ones(len(score), dtype=bool))]
    yield Chart(
        "overfit",
        "IoU on images searched and on held-out images",
        "scatter",
        tuple(
            Series(
                title,
                held_out[own],
                score[own],
                ends[0][own] if shown else None,
                ends[1][own] if shown else None,
            )
            for title, own in parts
            if own.any()
        ),
        Axis("IoU on the images searched", limits=(0.0, 1.05 * end or 1.0)),
        Axis("IoU on held-out images", limits=(0.0, 1.05 * end or 1.0)),
        text=(
            "Both axes have the same range: below the diagonal, a formula owes part of its score to having been chosen "
            f"for it. The median unit keeps {kept:.0%} of its score."
            + (f" Whiskers: {view.level:.0%} interval for images like these." if shown else "")
        ),
    )
