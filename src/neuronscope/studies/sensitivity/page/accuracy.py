"""What augmentations do to right answers, and how far units move as an augmentation grows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Float

from neuronscope.studies.sensitivity.page.view import View, spread, texts
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text

_ACCURACY = Axis("accuracy", limits=(0.0, 1.03))
"""A little more than can be, so that the whiskers of what is always right have their ends."""


def accuracy(view: View) -> Iterator[Block]:
    """Accuracy on plain images and under each augmentation, those first that harm most."""
    share = view.find("accuracy", "accuracy")
    if share is None:
        return
    table = view.groups["accuracy"]
    low, high = (table[f"accuracy_{end}"].to_numpy() for end in ("low", "high"))
    names, tops = texts(table["input_name"]), [int(k) for k in table["k"].to_numpy()]
    harm, least, most = (-table[f"change{end}"].to_numpy()[0] for end in ("", "_high", "_low"))
    order = [0, *(1 + np.argsort(-np.nan_to_num(harm[1:], nan=-np.inf), kind="stable")).tolist()]
    yield Section(
        "Accuracy under augmentations",
        "Each augmentation alone, with parameters drawn from its whole range; by what it takes from top-1 accuracy.",
    )
    yield Chart(
        "accuracy",
        "Accuracy by augmentation",
        "bar",
        tuple(
            Series(f"top-{k}", share[number, order], low=low[number, order], high=high[number, order])
            for number, k in enumerate(tops)
        ),
        Axis("images", ticks=tuple(names[place] for place in order)),
        _ACCURACY,
    )
    columns: dict[str, object] = {"images": [names[place] for place in order]}
    for number, k in enumerate(tops):
        columns |= {f"top-{k}": share[number, order], f"top-{k} low": low[number, order],
                    f"top-{k} high": high[number, order]}  # fmt: skip
    columns |= {"harm": harm[order], "harm low": least[order], "harm high": most[order]}
    columns["told"] = [place > 0 and bool(least[place] > 0) for place in order]
    yield Table(
        "accuracy",
        "Accuracy by augmentation",
        pd.DataFrame(columns),
        formats=dict.fromkeys([name for name in columns if name not in ("images", "told")], ".3f"),
        help={
            "harm": "top-1 accuracy on plain images minus that under the augmentation, image by image",
            "harm low": f"lower {view.level:.0%} limit, each image paired with itself",
            "told": "whether the harm is surely above 0",
            **{f"top-{k} low": f"lower {view.level:.0%} limit, images being what was sampled" for k in tops},
        },
    )


def severity(view: View) -> Iterator[Block]:
    """Curves from nothing to the whole range: accuracy, and drift of the units of each layer."""
    curves, drift = view.find("severity", "accuracy"), view.find("units", "drift")
    if curves is None and drift is None:
        return
    yield Section(
        "Severity",
        "One augmentation at a time, from nothing (0) to its whole range (1), on the same images. Augmentations "
        "without parameters have one strength.",
    )
    if curves is not None:
        yield from _accuracy_curves(view, curves)
    if drift is not None:
        yield from _drift(view, drift)


def _accuracy_curves(view: View, curves: Float[np.ndarray, "a s"]) -> Iterator[Block]:
    table = view.groups["severity"]
    low, high = (table[f"accuracy_{end}"].to_numpy() for end in ("low", "high"))
    strength = table["strength_value"].to_numpy().astype(np.float64)
    names = texts(table["augmentation_name"])
    yield Chart(
        "severity",
        "Accuracy by severity",
        "line",
        tuple(Series(name, curves[a], strength, low[a], high[a]) for a, name in enumerate(names)),
        Axis("strength"),
        _ACCURACY,
    )
    a, s = (part.ravel() for part in np.nonzero(np.isfinite(curves)))
    yield Table(
        "severity",
        "Accuracy by severity",
        pd.DataFrame(
            {
                "augmentation": [names[place] for place in a],
                "strength": strength[s],
                "accuracy": curves[a, s],
                "low": low[a, s],
                "high": high[a, s],
            }
        ),
        formats=dict.fromkeys(("accuracy", "low", "high"), ".3f") | {"strength": "g"},
        help={"low": f"lower {view.level:.0%} limit over images"},
    )


def _drift(view: View, drift: Float[np.ndarray, "u a s"]) -> Iterator[Block]:
    """The median unit of each layer; means would be those of units that hardly vary on plain images."""
    strength = np.array([0.0, *(float(one) for one in texts(view.groups["units"]["strength_name"]))])
    charts: list[Chart] = []
    rows: list[dict[str, object]] = []
    for layer in view.layers:
        own = drift[view.places(layer)]
        lines = []
        for a, name in enumerate(view.augmentations):
            low, middle, high = np.array([(0.0,) * 3, *(spread(own[:, a, s]) for s in range(own.shape[2]))]).T
            lines.append(Series(name, middle, strength, low, high))
            rows.extend(
                {"layer": layer, "augmentation": name, "strength": strength[s], "lower quartile": low[s],
                 "median": middle[s], "upper quartile": high[s]}
                for s in range(1, len(strength)) if np.isfinite(middle[s])
            )  # fmt: skip
        if layer in view.shown_layers:
            charts.append(
                Chart(layer, layer, "line", tuple(lines), Axis("strength"), Axis("drift", "standard deviations"))
            )
    yield Panel(
        "drift",
        "Drift of units by severity",
        tuple(charts),
        columns=2,
        text="Drift: mean distance of a unit's activation from that of the plain image, in standard deviations of the "
        "unit over plain images. Lines are the median unit; half of the units lie within the band."
        + (f" {view.left_out}" if view.left_out else ""),
    )
    yield Table(
        "drift",
        "Drift of units by severity",
        pd.DataFrame(rows),
        formats=dict.fromkeys(("lower quartile", "median", "upper quartile"), ".3f") | {"strength": "g"},
        help={"median": "over the units of the layer, in standard deviations of the plain activation over images"},
    )
    still = [name for a, name in enumerate(view.augmentations) if not np.isfinite(drift[:, a]).any()]
    if still:
        yield Text(f"Nothing is known of the drift under {', '.join(still)}.", tone="note")
