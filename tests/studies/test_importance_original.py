"""The program the importance study comes from: its numbers from its own weights, and its files.

Known answers were had from the committed weights and the 10,000 test images of MNIST by a re-implementation that shares
no code with this package.
"""

from __future__ import annotations

import csv

import networkx as nx
import numpy as np
import pytest
import xarray as xr

from neuronscope.data.sources import load_data
from neuronscope.errors import InputError
from neuronscope.executors import Processes
from neuronscope.faces.outputs import draw_outputs
from neuronscope.models import load_model
from neuronscope.result import Result
from neuronscope.run import Run
from neuronscope.studies.importance import ORIGINAL_FIGURES, ImportanceSpec, export_importance, run_importance
from neuronscope.studies.importance.original import subnetwork_graph

LAYERS = ("relu0", "relu1", "relu4", "relu5", "relu9")
NO_CONTROLS = {"controls": 0, "layer_controls": 0, "ablate": ("none",), "alone": ("none",)}
LEGACY = ("absolute-activation", "fixed-thresholds", "force-on", "same-images", "positional-overlap")

THRESHOLDING = {
    # class: sub-network on its own class, on all, modularity, labels ever predicted; without it: own class, the others
    0: (0.9939, 0.2602, 3.82, "0 1 9", 0.0, 0.5501),
    1: (1.0000, 0.1135, 8.81, "1", 0.0, 0.5316),
    2: (0.9225, 0.2974, 3.10, "0 1 2 3 4 5 6 8 9", 0.0, 0.6512),
    3: (1.0000, 0.1846, 5.42, "0 1 3 5 9", 0.0, 0.6735),
    4: (1.0000, 0.0983, 10.17, "1 4", 0.0, 0.5560),
    5: (1.0000, 0.1798, 5.56, "0 1 3 5 9", 0.0, 0.6908),
    6: (0.9280, 0.3963, 2.34, "0 1 2 3 4 5 6 8 9", 0.0, 0.6617),
    7: (0.9728, 0.2859, 3.40, "1 2 3 5 7 9", 0.0, 0.4044),
    8: (0.8532, 0.2585, 3.30, "0 1 3 4 8 9", 0.0, 0.7092),
    9: (1.0000, 0.1072, 9.33, "1 4 9", 0.0, 0.6622),
}

OVERLAP = {
    # layer: between classes by the original's formula, overlap, Jaccard, share, chance; halves by its formula, overlap
    "relu0": (0.684, 0.898, 0.824, 0.281, 0.312, 0.970, 0.980),
    "relu1": (0.411, 0.731, 0.603, 0.228, 0.312, 0.840, 0.910),
    "relu4": (0.281, 0.758, 0.627, 0.225, 0.297, 0.505, 0.905),
    "relu5": (0.292, 0.628, 0.470, 0.186, 0.297, 0.684, 0.916),
    "relu9": (0.056, 0.284, 0.170, 0.087, 0.305, 0.556, 0.962),
}


@pytest.fixture(scope="session")
def original(test_data) -> Result:
    """The study with all deviations, on the network and images of the original."""
    subject = load_model(f"keras:{test_data / 'golden' / 'mnist-subnetworks' / 'original_model.h5'}")
    data = load_data(f"mnist:{test_data / 'mnist'}", split="test")
    spec = ImportanceSpec(layers=LAYERS, rules=("thresholding", "masking"), legacy=LEGACY, **NO_CONTROLS)
    # 41 networks on 10,000 images: two processes halve a minute and a half
    run = Run(seed=0, batch_size=100, executor=Processes(2))
    return run_importance(subject, data, spec, run=run)


def group(result: Result, name: str) -> xr.Dataset:
    """One group of a result."""
    return result.tree[name].to_dataset()


@pytest.mark.parametrize("number", range(10))
def test_golden_thresholding(original, number):
    """Accuracies, modularity and predicted labels of every class's sub-network, and of the network without it."""
    table = group(original, "subnetworks").isel(rule=0, **{"class": number})
    own, full, modularity, labels, ablated_own, ablated_others = THRESHOLDING[number]
    assert float(table["intact_full"]) == pytest.approx(0.9914, abs=1e-9)
    assert float(table["keep_own"]) == pytest.approx(own, abs=0.00005 + 1e-9)
    assert float(table["keep_full"]) == pytest.approx(full, abs=0.00005 + 1e-9)
    assert float(table["modularity_a"]) == pytest.approx(modularity, abs=0.005 + 1e-9)
    predicted = table["predicted_name"].to_numpy()[table["labels"].to_numpy().astype(bool)]
    assert " ".join(predicted) == labels
    right = np.diag(table["intact_confusion"])
    images = table["intact_confusion"].sum("predicted").to_numpy()
    others = (right.sum() - right[number]) / (images.sum() - images[number])
    assert float(table["intact"] + table["drop_own"]) == pytest.approx(ablated_own, abs=0.00005 + 1e-9)
    assert others + float(table["drop_others"]) == pytest.approx(ablated_others, abs=0.00005 + 1e-9)


def test_golden_masking(original):
    """33 ON units in the dense layer, none elsewhere, nothing OFF; own, full, precision and drops as on record."""
    table = group(original, "masking")
    assert table["on"].to_numpy().tolist() == [[0] * 10] * 4 + [[33] * 10]
    assert not table["off"].to_numpy().any()
    own, full, precision = (table[name].to_numpy() for name in ("keep_own", "keep_full", "keep_precision"))
    # which 33 of 42 to 54 tied units are ON is for the sort to say: on record are own accuracies from 0.998 to 1, full
    # ones from 0.972 to 0.987 and precisions from 0.832 to 0.946, for another order of the ties
    assert own.min() == pytest.approx(0.998, abs=0.0005)
    assert own.max() == 1
    assert full.min() == pytest.approx(0.972, abs=0.002)
    assert full.max() == pytest.approx(0.987, abs=0.002)
    assert precision.min() == pytest.approx(0.832, abs=0.007)
    assert precision.max() == pytest.approx(0.946, abs=0.007)
    images = np.round(table["drop_own"].to_numpy() * table["images"].to_numpy())
    assert images[1] == -3  # as published, where ties go by the units' numbers
    assert -0.0805 <= float(table["drop_own"].mean()) <= -0.0545
    assert float(np.abs(table["drop_others"]).max()) < 0.005


@pytest.mark.parametrize("layer", LAYERS)
def test_golden_overlap(original, layer):
    """Specialisation and reuse by the original's formula and by correct measures, over all pairs and all classes."""
    table = group(original, "reuse").isel(layer=LAYERS.index(layer))
    names = ("positional_spec", "mean_overlap", "mean_jaccard", "mean_share", "mean_expected")
    found = [float(table[name]) for name in (*names, "positional_reuse", "within_overlap")]
    np.testing.assert_allclose(found, OVERLAP[layer], atol=0.0005 + 1e-9)


def test_golden_overlap_of_masking(original):
    """Shares over the layer's width against a ceiling of 0.258, and the Jaccard indices that they hide."""
    table = group(original, "reuse")
    last = {name: float(table[f"on_{name}"][-1]) for name in ("share_spec", "share_reuse")}
    # which of the tied units are ON depends on the sort, hence the tolerances
    assert last == {"share_spec": pytest.approx(0.0875, abs=0.02), "share_reuse": pytest.approx(0.248, abs=0.02)}
    assert float(table["on_jaccard_spec"][-1]) == pytest.approx(0.208, abs=0.05)
    assert float(table["on_jaccard_reuse"][-1]) == pytest.approx(0.926, abs=0.06)
    assert table["on_share_spec"][:-1].isnull().all()


def test_golden_bars(original, tmp_path):
    """The bars' heights as tables, with the original's 0.10 for the output layer, which is none of the study's."""
    files = {path.name: path for path in export_importance(original, tmp_path)}
    with files["P_spec.csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == [*LAYERS, "dense11"]
    assert [round(float(row["thresholding"]), 3) for row in rows] == [0.684, 0.411, 0.281, 0.292, 0.056, 0.1]
    assert [float(row["masking, ON units"]) for row in rows][:4] == [0.0] * 4


# Files


@pytest.fixture(scope="module")
def small() -> Result:
    """A small network with class names that XML does not like."""
    names = ("<a>", "b & c", 'd"', "e\x00f", *"ghijkl")
    subject = load_model("builtin:subnet-mnist", weights="random", classes=names)
    spec = ImportanceSpec(rules=("thresholding", "masking"), legacy=("positional-overlap",), edges=5, **NO_CONTROLS)
    return run_importance(subject, load_data("digits", limit=60), spec, run=Run(seed=0))


def test_graph_has_true_units(small, tmp_path):
    """Nodes are the members under their own numbers, edges carry the weights between just these units."""
    export_importance(small, tmp_path)
    graph = nx.read_gexf(tmp_path / "all_subnetworks.gexf")
    assert set(graph) == set(subnetwork_graph(small))
    table = small.table
    layers = list(dict.fromkeys(table["layer"].to_numpy().astype(str)))
    member = table["member"].to_numpy()[:, 0]
    for k in range(10):
        rows = np.flatnonzero(member[:, k])
        places = {(str(table["layer"][row].item()), int(table["index"][row])) for row in rows}
        nodes = {node: data for node, data in graph.nodes(data=True) if node.startswith(f"{k}_")}
        inside = {(data["layer_name"], data["neuron_index"]) for data in nodes.values() if data["layer_name"] in layers}
        assert inside == places
        for node, data in nodes.items():
            assert node == f"{k}_{data['layer']}_{data['neuron_index']}"
            assert data["layer_type"] in ("relu", "linear")
    subject = load_model("builtin:subnet-mnist", weights="random")
    weight = subject.module.dense11.weight.detach().numpy()
    last = len(layers)
    into = [(a, b, data) for a, b, data in graph.edges(data=True) if graph.nodes[b]["layer"] == last]
    assert len(into) == 5 * 10
    for a, b, data in into:
        expected = weight[graph.nodes[b]["neuron_index"], graph.nodes[a]["neuron_index"]]
        assert data["weight"] == pytest.approx(float(expected))


def test_graph_has_places_and_escaped_names(small, tmp_path):
    """Names come back as they were, but for characters that XML cannot hold; places are the original's."""
    export_importance(small, tmp_path)
    text = (tmp_path / "all_subnetworks.gexf").read_text()
    assert "\x00" not in text
    graph = nx.read_gexf(tmp_path / "all_subnetworks.gexf")
    names = {node.split("_")[0]: data["class"] for node, data in graph.nodes(data=True)}
    assert [names[str(k)] for k in range(4)] == ["<a>", "b & c", 'd"', "e\ufffdf"]
    first = [data["viz"]["position"] for node, data in graph.nodes(data=True) if node.startswith("0_1_")]
    assert [place["x"] for place in first] == [200.0] * len(first)
    assert sorted(place["y"] for place in first) == [50.0 * rank for rank in range(len(first))]


def test_tables(small, tmp_path):
    """What the original prints of each class, and accuracies before and after, agree with the result."""
    files = {path.name: path for path in export_importance(small, tmp_path)}
    with files["class_results.csv"].open() as file:
        rows = list(csv.DictReader(file))
    table = group(small, "subnetworks")
    assert [row["rule"] for row in rows] == ["thresholding"] * 10 + ["masking"] * 10
    assert [float(row["full_accuracy"]) for row in rows] == table["keep_full"].to_numpy().ravel().tolist()
    with files["ablation_results.csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 100
    assert [float(row["change"]) for row in rows[:100]] == table["change"][0].to_numpy().ravel().tolist()
    for row in rows:
        assert float(row["accuracy_after"]) - float(row["accuracy_before"]) == pytest.approx(float(row["change"]))
    with files["masking_results.csv"].open() as file:
        assert [int(row["n_on"]) for row in csv.DictReader(file)] == group(small, "masking")["on"].sum(
            "layer"
        ).values.tolist()


def test_figures_have_the_original_names(small, tmp_path):
    """Figures of the page are there again under the names the original gives them, with the images' name."""
    written = {path.name for path in draw_outputs(small, tmp_path, original="export").original}
    assert {name.replace("{dataset}", "digits") for name in ORIGINAL_FIGURES} <= written


# Left out


def test_without_controls(small):
    """Without random sets nothing is said about chance, and nothing else is missing."""
    table = group(small, "subnetworks")
    assert table["drop_own_random"].isnull().all()
    assert table["drop_selective_q"].isnull().all()
    assert table["drop_own"].notnull().all()
    assert "layers" not in small.tree


@pytest.mark.parametrize("option", ["controls", "layer_controls"])
def test_few_controls_are_refused(option):
    """Between none and 20 random sets there is no telling how they scatter."""
    subject = load_model("builtin:subnet-mnist", weights="random")
    with pytest.raises(InputError, match=rf"{option} = 19: so few .* 20 or more, or 0"):
        run_importance(subject, load_data("digits", limit=60), ImportanceSpec(**{option: 19}))
