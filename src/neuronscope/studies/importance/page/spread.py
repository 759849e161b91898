"""What else falls when one class's sub-network is silenced: the other classes, and what they are taken for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from neuronscope.studies.importance.page.view import MANY_CLASSES, View, seen_labels, texts
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text

_LIMITS = (-1.0, 1.0)  # of the colour scale: all that a change can be (the original ends at a half)


def spread(view: View) -> Iterator[Block]:
    """Every class's accuracy without every sub-network, and confusions before and after."""
    yield Section(
        "What else falls",
        f"Each sub-network ({view.first}) is silenced in turn. A part of the network that served one class alone would "
        "change nothing for the others.",
    )
    charts = ablation_charts(view)
    yield charts["ablation-heatmap"]
    yield charts["ablation-lines"]
    yield from _pairs(view)
    yield Panel(
        "ablation-results",
        "Ablation results",
        tuple(charts.values()),
        columns=2,
        text="The changes above, for the class itself, beside the others' and beside random units, in one figure.",
    )
    yield from _confusions(view)


def ablation_charts(view: View) -> dict[str, Chart]:
    """The four charts of the original's figure; its fourth place is empty, here are the random controls."""
    names, change = view.classes, view.get("change")
    ticks = Axis("Class", ticks=names)
    lines = tuple(Series(name, change[k]) for k, name in enumerate(names))
    grid = Chart(
        "ablation-heatmap",
        "Change of accuracy of every class",
        "heatmap",
        (Series("change", change.T),),
        Axis("Removed Subnetwork", ticks=names),
        Axis("Affected Class", ticks=names),
        Axis("change of accuracy", limits=_LIMITS),
        annotate=view.few_cells,
        diverging=True,
        text="A column is a removed sub-network; the diagonal is the class itself.",
    )
    own = Series("the class itself", view.get("drop_own"), low=view.get("drop_own_low"), high=view.get("drop_own_high"))
    others = Series(
        "others (mean)", view.get("drop_others"), low=view.get("drop_others_low"), high=view.get("drop_others_high")
    )
    random = Series(
        "random units",
        view.get("drop_own_random"),
        low=view.get("drop_own_random_low"),
        high=view.get("drop_own_random_high"),
    )
    return {
        "ablation-lines": Chart(
            "ablation-lines",
            "Accuracy Change by Class",
            "line",
            lines,
            ticks,
            Axis("Accuracy Change"),
            text="One line for each removed sub-network.",
        ),
        "ablation-heatmap": grid,
        "ablation-effect": Chart(
            "ablation-effect",
            "Effect on Removed Class Recognition",
            "bar",
            (own, others),
            ticks,
            Axis("Accuracy Change"),
        ),
        "ablation-controls": Chart(
            "ablation-controls",
            "Removed Class, against Random Units",
            "bar",
            (replace(own, name="sub-network"), *([random] if np.isfinite(random.y).any() else [])),
            ticks,
            Axis("Accuracy Change"),
        ),
    }


def _pairs(view: View) -> Iterator[Block]:
    k = len(view.classes)
    if k < 2:  # noqa: PLR2004 there are no others
        yield Text(
            "One class was asked for: what its removal does to the others is known of all together.", tone="note"
        )
        return
    low, high = view.get("change_low"), view.get("change_high")
    removed, affected = np.nonzero(~np.eye(k, dtype=bool))
    yield Table(
        "spillover",
        "Every class without every other sub-network",
        pd.DataFrame(
            {
                "removed": [view.classes[i] for i in removed],
                "affected": [view.classes[i] for i in affected],
                "change": view.get("change")[removed, affected],
                "low": low[removed, affected],
                "high": high[removed, affected],
            }
        ),
        preset="change",
        formats=dict.fromkeys(("change", "low", "high"), ".3f"),
        help={
            "change": "of the affected class's accuracy, -1 to 1",
            "low": f"lower {view.level:.0%} limit for this pair alone: of many pairs some are off by chance",
        },
    )
    fall = view.get("drop_others_high") < 0
    q = view.get("drop_others_q")
    beyond = (
        "" if view.unheld(q) else f", and further than with random units in {int(view.told(q).sum())} ({view.bound})"
    )
    certain = int((high[removed, affected] < 0).sum())
    yield Text(
        f"The other classes together fall in {int(fall.sum())} of {k} removals (interval below 0)"
        f"{beyond}. Of {len(removed)} pairs of a removed and another "
        f"class, {certain} show a fall whose own interval lies below 0.",
    )
    if fall.any():
        yield Text(
            f"Not modules: without the units of {view.those(fall)}, other classes lose accuracy too.",
            tone="note",
        )


def _confusions(view: View) -> Iterator[Block]:
    said = texts(view.sub["predicted_name"])
    before, names = seen_labels(view.sub["intact_confusion"].to_numpy().astype(np.float64), said)
    yield Chart(
        "confusion-before",
        "Confusion before: true against predicted class",
        "heatmap",
        (Series("images", before),),
        Axis("Predicted Labels", ticks=names),
        Axis("True Labels", ticks=view.classes),
        Axis("images"),
        annotate=view.few_cells,
    )
    change, names = seen_labels(view.get("drop_confusion_change").astype(np.float64), said)
    shown = min(len(view.classes), MANY_CLASSES)
    yield Panel(
        "class-ablation-confusion-matrices",
        "Confusion after minus before",
        tuple(
            Chart(
                f"confusion-change-{k}",
                f"Removed: {view.classes[k]}",
                "heatmap",
                (Series("images", change[k]),),
                Axis("Predicted Labels", ticks=names),
                Axis("True Labels", ticks=view.classes),
                Axis("images, after minus before"),
                annotate=True,
                diverging=True,
            )
            for k in range(shown)
        ),
        columns=2,
        scale="shared",
        text=(
            "A column that gains in all rows: the damaged network calls everything so."
            + (f" The first {shown} of {len(view.classes)} classes." if shown < len(view.classes) else "")
        ),
    )
