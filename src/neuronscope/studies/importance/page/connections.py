"""The strongest connections within the sub-networks, as pictures of the first classes and as a table of all."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from neuronscope.studies.importance.page.view import View, texts
from neuronscope.views import Axis, Block, Network, NetworkColumn, NetworkLinks, Section, Table, Text

_PICTURES = 4  # classes
_LINKS = 40  # between two layers of a picture


def connections(view: View) -> Iterator[Block]:
    """Pictures of the first classes' sub-networks, and all connections that were kept."""
    edges = view.edges
    if edges is None:
        return
    yield Section(
        "Connections",
        f"Within each sub-network ({view.first}), the connections with the largest weight x mean activation for the "
        "class. What a unit receives is not what it passes on: a strong connection is no proof of influence.",
    )
    if not edges.sizes.get("edge", 0):
        yield Text("No two neighbouring layers are joined by a single weighted layer: nothing to show.", tone="note")
        return
    layers = texts(edges["layer_name"])
    table = {name: edges[name].to_numpy() for name in _COLUMNS}
    for k in range(min(len(view.classes), _PICTURES)):
        own = table["class_number"] == k
        if own.any():
            yield _picture(view, layers, {name: values[own] for name, values in table.items()}, k)
    yield Table(
        "edges",
        "Strongest connections of every sub-network",
        pd.DataFrame(
            {
                "class": [view.classes[int(k)] for k in table["class_number"]],
                "from layer": [layers[int(i)] for i in table["before"]],
                "unit": table["unit_before"],
                "to layer": [layers[int(i)] for i in table["after"]],
                "to unit": table["unit_after"],
                "weight": table["weight"],
                "strength": table["strength"],
            }
        ),
        help={
            "weight": "of the connection: of a kernel its mean over space, of a flattened map the mean over positions",
            "strength": "weight x mean activation of the first unit for the class; negative: it holds the next back",
        },
        text=f"At most {view.spec['edges']} between two layers for each class.",
    )


_COLUMNS = ("class_number", "before", "after", "unit_before", "unit_after", "weight", "strength")


def _picture(view: View, layers: tuple[str, ...], own: dict[str, np.ndarray], k: int) -> Network:
    """One class: columns are layers, nodes the units at either end of a shown connection."""
    kept = np.sort(
        np.concatenate(
            [
                rows[np.argsort(-np.abs(own["strength"][rows]), kind="stable")[:_LINKS]]
                for before in np.unique(own["before"])
                for rows in [np.flatnonzero(own["before"] == before)]
            ]
        )
    )
    own = {name: values[kept] for name, values in own.items()}
    used = np.unique(np.concatenate([own["before"], own["after"]])).astype(int).tolist()
    nodes = {int(i): _nodes(own, int(i)) for i in used}
    columns = tuple(_column(view, layers[i], nodes[i], k) for i in used)
    links = []
    for first, second in pairwise(used):
        rows = np.flatnonzero((own["before"] == first) & (own["after"] == second))
        strength = own["strength"][rows].astype(np.float64)
        # Layers differ in scale by orders of magnitude: each pair of layers has a strongest connection of its own.
        largest = np.abs(strength).max() if strength.size else 1.0
        links.append(
            NetworkLinks(
                np.searchsorted(nodes[first], own["unit_before"][rows]),
                np.searchsorted(nodes[second], own["unit_after"][rows]),
                strength / largest if largest > 0 else strength,
            )
        )
    most = max((int((own["before"] == i).sum()) for i in used), default=0)
    return Network(
        f"network-{k}",
        f"Sub-network of {view.classes[k]}",
        columns,
        tuple(links),
        text=(
            f"At most the {most} strongest connections between two layers, relative to the strongest of these; size of "
            "units: mean activation for the class, relative to the column's largest. Dashed: they hold the next back."
        ),
        value=Axis("relative activation"),
        weight=Axis("relative strength"),
    )


def _nodes(own: dict[str, np.ndarray], layer: int) -> Int[np.ndarray, "n"]:
    """Numbers of a layer's units that a connection starts from or leads to."""
    leaving, arriving = own["unit_before"][own["before"] == layer], own["unit_after"][own["after"] == layer]
    return np.unique(np.concatenate([leaving, arriving])).astype(np.int64)


def _column(view: View, layer: str, units: Int[np.ndarray, "n"], k: int) -> NetworkColumn:
    if layer not in view.layer_names:  # the output layer: its unit is the class
        return NetworkColumn(layer, (view.classes[k],) if len(units) == 1 else tuple(map(str, units)))
    return NetworkColumn(layer, tuple(map(str, units)), _sizes(view, layer, units, k))


def _sizes(view: View, layer: str, units: Int[np.ndarray, "n"], k: int) -> Float[np.ndarray, "n"] | None:
    """Mean activations over the largest of the column; negative ones count as none."""
    if "class_mean" not in view.units:
        return None
    means = view.units["class_mean"].to_numpy()[view.of_layer(layer)[units], k]
    largest = np.nanmax(means) if np.isfinite(means).any() else 0.0
    return np.clip(means / largest, 0.0, 1.0) if largest > 0 else None
