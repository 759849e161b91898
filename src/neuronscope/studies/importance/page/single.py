"""One layer alone: curves along each ranking, and what the layer's share of each sub-network is worth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from neuronscope.studies.importance.page.view import MANY_CLASSES, View, texts
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text


def single_layers(view: View) -> Iterator[Block]:
    """For each layer that was looked at alone: curves, the area between them, and a table."""
    if view.layers is None or not view.layers.sizes.get("layer", 0):
        return
    yield Section(
        "One layer alone",
        "Only units of one layer are silenced, so that many random sets can be tried. Deletion silences the best units "
        "first, insertion starts from a silent layer and gives the best back first. A good ranking falls early and "
        "rises early: the area between its curves is large.",
    )
    for i, layer in enumerate(texts(view.layers["layer_name"])):
        own = view.layers.isel(layer=i)
        yield from _curves(view, own, layer)
        yield from _areas(view, own, layer)
    yield _table(view, view.layers)


def _curves(view: View, own: xr.Dataset, layer: str) -> Iterator[Block]:
    if "insertion" not in own:
        return
    fraction = own["fraction"].to_numpy()
    across = Axis("share of the layer's units", limits=(0.0, 1.0))
    up = Axis("balanced accuracy")
    for name, title in (("insertion", "given back"), ("deletion", "silenced")):
        yield Chart(
            f"{name}-{layer}",
            f"{name.capitalize()} in {layer}, all classes",
            "line",
            (
                *(Series(rule, own[name].to_numpy()[r].mean(axis=0), fraction) for r, rule in enumerate(view.rules)),
                *_random(own, name, "random order", fraction, None),
            ),
            Axis(f"share of the units {title}", limits=(0.0, 1.0)),
            up,
            text="Telling a class from the others, 0.5: no better than chance; mean over classes.",
        )
    shown = min(len(view.classes), MANY_CLASSES)
    yield Panel(
        f"curves-{layer}",
        f"Insertion and deletion in {layer} along {view.first}",
        tuple(
            Chart(
                f"curves-{layer}-{k}",
                view.classes[k],
                "line",
                (
                    Series("insertion", own["insertion"].to_numpy()[0, k], fraction),
                    Series("deletion", own["deletion"].to_numpy()[0, k], fraction),
                    *_random(own, "insertion", "insertion, random order", fraction, k),
                    *_random(own, "deletion", "deletion, random order", fraction, k),
                ),
                across,
                up,
            )
            for k in range(shown)
        ),
        columns=2,
        text="Random orders: mean of all that were tried.",
    )


def _random(own: xr.Dataset, name: str, title: str, fraction: np.ndarray, k: int | None) -> list[Series]:
    """The curve of random orders for a class, or on average; none where none was tried."""
    if f"{name}_random" not in own or not np.isfinite(own[f"{name}_random"].to_numpy()).any():
        return []
    curves = own[f"{name}_random"].to_numpy()
    return [Series(title, curves.mean(axis=0) if k is None else curves[k], fraction)]


def _areas(view: View, own: xr.Dataset, layer: str) -> Iterator[Block]:
    if "between" not in own:
        return
    area = [Series(view.first, *_ends(own, "between"))]
    if "between_random" in own and np.isfinite(own["between_random"].to_numpy()).any():
        area.append(Series("random orders", *_ends(own, "between_random")))
    yield Chart(
        f"area-between-{layer}",
        f"Area between insertion and deletion in {layer}",
        "bar",
        tuple(area),
        Axis("class", ticks=view.classes),
        Axis("area, balanced accuracy"),
        text="Whiskers: bootstrap over the images; for random orders, where one falls.",
    )
    for name, title in (
        ("between_q", "The ranking is no better than a random order, as far as can be told, for"),
        (
            "drop_selective_q",
            "Silencing the layer's share of the sub-network is no more selective than random units for",
        ),
    ):
        if name in own:
            q = own[name].to_numpy()[0]
            told = view.told(q)
            if not told.all() and not view.unheld(q):
                yield Text(f"{layer}: {title} {view.those(~told)}.", tone="note")


def _ends(own: xr.Dataset, name: str) -> tuple[np.ndarray, None, np.ndarray, np.ndarray]:
    """Values, no positions, low, high: as a series takes them, under the first rule."""
    return (
        own[name].to_numpy()[0],
        None,
        own[f"{name}_low"].to_numpy()[0],
        own[f"{name}_high"].to_numpy()[0],
    )


_COLUMNS = {
    "drop_own": "own change",
    "drop_own_random": "own random",
    "drop_own_q": "own q",
    "drop_others": "others' change",
    "drop_selective": "selective fall",
    "drop_selective_random": "selective random",
    "drop_selective_q": "selective q",
    "between": "area between",
    "between_random": "area random",
    "between_q": "area q",
    "keep_own": "kept own accuracy",
    "drop_own_low": "own low",
    "drop_own_high": "own high",
    "drop_others_low": "others low",
    "drop_others_high": "others high",
    "drop_selective_random_low": "selective random low",
    "drop_selective_random_high": "selective random high",
    "between_low": "area low",
    "between_high": "area high",
    "between_random_low": "area random low",
    "between_random_high": "area random high",
}


def _table(view: View, table: xr.Dataset) -> Table:
    layers = texts(table["layer_name"])
    shape = (len(layers), len(view.rules), len(view.classes))
    i, r, k = (part.ravel() for part in np.indices(shape))
    columns: dict[str, object] = {
        "layer": [layers[n] for n in i],
        "rule": [view.rules[n] for n in r],
        "class": [view.classes[n] for n in k],
    }
    columns |= {title: table[name].to_numpy().ravel() for name, title in _COLUMNS.items() if name in table}
    frame = pd.DataFrame(columns)
    draws = view.null(int(table["draws"].to_numpy().min()))
    return Table(
        "single-layers",
        "One layer alone, for every rule and class",
        frame,
        formats={name: ".2g" if name.endswith(" q") else ".3f" for name in frame.columns[3:]},
        help={
            "own change": "change of the class's accuracy when the layer's share of its sub-network is silenced",
            "own random": "mean change with as many random units of the layer silenced",
            "others' change": "change of the accuracy on all other classes",
            "selective fall": "others' change minus own change",
            "kept own accuracy": "with nothing but the sub-network's units left in this layer",
            "area between": "area between insertion and deletion curve, in balanced accuracy, -1 to 1",
            "area random": "the same for random orders of the layer's units",
            "own q": "chance that random units hit the class as hard, corrected for layers, rules and classes",
            "selective q": "chance that random units are as selective, corrected likewise",
            "area q": "chance that a random order has as large an area, corrected likewise",
        },
        text=f"Random units: {draws}. Random orders of the curves are fewer: see where one falls.",
    )
