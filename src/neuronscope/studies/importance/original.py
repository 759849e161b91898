"""What the program this study comes from leaves behind, under its own names.

That program shows most of its figures, prints the rest and writes one file: `all_subnetworks.gexf`, a graph for Gephi.
Its edges carry the weights of other units than the ones they join, since it counts units by rank; here all units go by
their own number. Figures are taken over by name (`ORIGINAL_FIGURES`), and what is printed becomes tables.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from neuronscope.maths.overlap import list_equality_share
from neuronscope.result import Result

ORIGINAL_FIGURES: dict[str, str] = {
    "P_spec_{dataset}.png": "P_spec",
    "P_reuse_{dataset}.png": "P_reuse",
    "ablation_results.png": "ablation-results",
    "class_ablation_confusion_matrices.png": "class-ablation-confusion-matrices",
}
"""File of the original -> figure here in its place."""

_APART, _BELOW = 200.0, 50.0  # distances that the original puts between layers, and between units of a layer
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def export_importance(result: Result, folder: Path) -> list[Path]:
    """Write the graph of all sub-networks and, as tables, what the original prints and plots.

    * `all_subnetworks.gexf`: see `subnetwork_graph`.
    * `class_results.csv`: for each rule and class accuracy on the class (`own_accuracy`) and on all images
      (`full_accuracy`) of the sub-network alone, its `precision`, both modularity scores (own / full, own x precision)
      and the labels it ever predicts.
    * `masking_results.csv`, where masking ran: the same of its network with units held ON and OFF, and their numbers.
    * `ablation_results.csv`: accuracy of every class before and after each class's units are taken out.
    * `P_spec.csv` and `P_reuse.csv` under `positional-overlap`: the heights of the bars, over all pairs and all classes
      instead of ten random draws. The output layer is none of this study's layers, as its units are the classes and are
      never chosen: the original's bar for it says nothing of the network. It is a row of these tables only: 1 / classes
      for thresholding, which compares two equal lists and counts one, and 0 for masking, which leaves that layer alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [_graph(result, folder / "all_subnetworks.gexf")]
    subnetworks = result.tree["subnetworks"].to_dataset()
    tables = {"class_results": _kept(subnetworks)}
    ablated = [_dropped(subnetworks)]
    if "masking" in result.tree:
        masking = result.tree["masking"].to_dataset()
        own = masking.expand_dims("rule").assign_coords(rule_name=("rule", np.array(["masking, held"], dtype=object)))
        counts = pd.DataFrame({f"n_{name}": masking[name].sum("layer").to_numpy() for name in ("on", "off")})
        tables["masking_results"] = pd.concat([_kept(own), counts], axis=1)
        ablated.append(_dropped(own))
    tables["ablation_results"] = pd.concat(ablated, ignore_index=True)
    if "positional-overlap" in result.provenance.legacy:
        tables |= {f"P_{kind}": _bars(result, kind) for kind in ("spec", "reuse")}
    for name, table in tables.items():
        path = folder / f"{name}.csv"
        table.to_csv(path, index=False)
        written.append(path)
    return written


def subnetwork_graph(result: Result) -> Any:
    """All classes' sub-networks under the first rule as one directed graph of networkx.

    Nodes are the members, and each class's own output unit: `CLASS_LAYER_UNIT`, all numbers from 0 (the class among the
    classes in question, the layer among the study's, the output last), with attributes `layer`, `layer_name`,
    `neuron_index`, `layer_type`, `class` and the original's places. Edges are the strongest connections (group `edges`)
    with their `weight`, and `strength`: weight x mean activation for the class.
    """
    import networkx as nx

    edges = result.tree["edges"].to_dataset()
    names, kinds = _texts(edges["layer_name"]), _texts(edges["layer_kind"])
    classes = _texts(edges["class_name"])
    table = result.table
    layer_of, unit_of = table["layer"].to_numpy().astype(str), table["index"].to_numpy()
    members = table["member"].to_numpy()[:, 0].astype(bool)
    graph = nx.DiGraph()

    def add(k: int, layer: int, unit: int, rank: int) -> None:
        place = {"x": _APART * layer, "y": _BELOW * rank, "z": 0.0}
        graph.add_node(
            f"{k}_{layer}_{unit}",
            label=f"{classes[k]}: {names[layer]} {unit}",
            layer=layer,
            layer_name=names[layer],
            neuron_index=unit,
            layer_type=kinds[layer],
            viz={"position": place},
            **{"class": classes[k]},
        )

    for k in range(len(classes)):
        for layer, name in enumerate(names):
            for rank, unit in enumerate(unit_of[(layer_of == name) & members[:, k]].tolist()):
                add(k, layer, unit, rank)
    columns = [edges[name].to_numpy().tolist() for name in ("class_number", "before", "after")]
    columns += [edges[name].to_numpy().tolist() for name in ("unit_before", "unit_after", "weight", "strength")]
    for k, before, after, first, second, weight, strength in zip(*columns, strict=True):
        if f"{k}_{after}_{second}" not in graph:  # the class's own output
            add(k, after, second, 0)
        graph.add_edge(f"{k}_{before}_{first}", f"{k}_{after}_{second}", weight=weight, strength=strength)
    return graph


def _graph(result: Result, path: Path) -> Path:
    import networkx as nx

    nx.write_gexf(subnetwork_graph(result), path)
    return path


def _texts(names: xr.DataArray) -> list[str]:
    """Names as XML can hold them."""
    return [_NOT_XML.sub("\ufffd", str(name)) for name in names.to_numpy()]


def _kept(table: xr.Dataset) -> pd.DataFrame:
    """What the original prints of each class's sub-network."""
    rules, classes = table["rule_name"].to_numpy().astype(str), table["class_name"].to_numpy().astype(str)
    columns = {
        "own_accuracy": "keep_own",
        "full_accuracy": "keep_full",
        "precision": "keep_precision",
        "modularity_own_by_full": "modularity_a",
        "modularity_own_times_precision": "modularity_b",
    }
    predicted = table["predicted_name"].to_numpy().astype(str)
    seen = table["labels"].to_numpy().astype(bool).reshape(-1, len(predicted))
    return pd.DataFrame(
        {
            "rule": np.repeat(rules, len(classes)),
            "class": np.tile(classes, len(rules)),
            **{name: table[variable].to_numpy().ravel() for name, variable in columns.items()},
            "predicted_labels": [" ".join(predicted[row]) for row in seen],
        }
    )


def _dropped(table: xr.Dataset) -> pd.DataFrame:
    """Accuracy of each class before and after a class's units are taken out."""
    rules, classes = table["rule_name"].to_numpy().astype(str), table["class_name"].to_numpy().astype(str)
    k = len(classes)
    change, before = table["change"].to_numpy(), table["intact"].to_numpy()
    before = np.broadcast_to(before.reshape(-1, k)[-1], change.shape)
    return pd.DataFrame(
        {
            "rule": np.repeat(rules, k * k),
            "removed": np.tile(np.repeat(classes, k), len(rules)),
            "class": np.tile(classes, len(rules) * k),
            "accuracy_before": before.ravel(),
            "accuracy_after": (before + change).ravel(),
            "change": change.ravel(),
        }
    )


def _bars(result: Result, kind: str) -> pd.DataFrame:
    """The original's proportions, layer by layer, with its bar for the output layer."""
    reuse, edges = result.tree["reuse"].to_dataset(), result.tree["edges"].to_dataset()
    layers = reuse["layer_name"].to_numpy().astype(str).tolist()
    output = [name for name in edges["layer_name"].to_numpy().astype(str).tolist() if name not in layers]
    every = np.ones((len(reuse["class_name"]), 1), dtype=bool)
    first = str(result.table["rule_name"].to_numpy()[0])
    shares = [*reuse[f"positional_{kind}"].to_numpy(), list_equality_share(every).item()]
    frame = pd.DataFrame({"layer": [*layers, *(output or ["output"])], first: shares})
    if f"on_share_{kind}" in reuse:
        frame["masking, ON units"] = [*reuse[f"on_share_{kind}"].fillna(0.0).to_numpy(), 0.0]
    return frame
