"""Statistics of units, their clusters, and whether there are any: the input of every filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from neuronscope.errors import DataError
from neuronscope.maths.cluster_choice import ChoiceOfK, choose_k
from neuronscope.maths.clustering import Clustering, UnitFeatures, features_of, hierarchical, kmeans, tsne
from neuronscope.maths.streams import Each, RowsAnswer, StackRows
from neuronscope.steps import Gradients, Observe, Step, columns
from neuronscope.studies.clusters.reading import read_statistics
from neuronscope.studies.clusters.setting import Setting
from neuronscope.studies.clusters.spec import PRESETS
from neuronscope.sweep import sweep
from neuronscope.units import LayerInfo

_LEGACY_SEED = 42
_LEAST_IN_PLANE = 5  # units that have neighbours worth drawing


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """What is known of a layer's units.

    Attributes:
        rate: share of the images in which the unit's mean activation is above the threshold.
        mean, variance: of the mean activation over images.
        profiles: by name, mean activation or attribution in each class that occurs.
    """

    rate: Float[np.ndarray, "u"]
    mean: Float[np.ndarray, "u"]
    variance: Float[np.ndarray, "u"]
    profiles: dict[str, Float[np.ndarray, "u c"]]


@dataclass(frozen=True, eq=False)
class LayerClusters:
    """A layer's units in clusters.

    Attributes:
        layer: whose.
        statistics: of its units.
        features: what units were clustered by.
        clusterings: by number of clusters.
        choice: how many clusters there are; None where nobody asked.
        map: place of each unit in a plane that keeps neighbours together (t-SNE).
    """

    layer: LayerInfo
    statistics: LayerStatistics
    features: UnitFeatures
    clusterings: dict[int, Clustering]
    choice: ChoiceOfK | None
    map: Float[np.ndarray, "u 2"]


def statistics_of(setting: Setting) -> dict[str, LayerStatistics]:
    """Statistics of every layer, from one pass over the images chosen for them, or from files of the original.

    A portion of the study makes them whole, for what it then explains depends on them.

    Raises:
        DataError: a file is missing, torn, or of another number of units.
    """
    if setting.spec.clusters_from:
        return {layer.name: _read(setting, layer) for layer in setting.layers}
    images = setting.data.take(setting.statistics)
    wanted = setting.spec.profiles
    step: Step = Observe(setting.layers, measures=("mean",))
    folds = {"mean": StackRows("mean", images=len(images))}
    if "gradient" in wanted:
        step = Gradients(setting.layers)
        folds["pull"] = StackRows("pull/logit", images=len(images))
    run = replace(setting.run, portion=None)
    answer = sweep(setting.subject, images, step, Each(**folds), run=run, name="statistics").answer
    places = columns(setting.layers)
    rows: dict[str, RowsAnswer] = {"activation": answer["mean"], "gradient": answer.get("pull", answer["mean"])}
    profiles: dict[str, RowsAnswer] = {name: rows[name] for name in wanted}
    return {layer.name: _summed(setting, answer["mean"], profiles, places[layer.name]) for layer in setting.layers}


def _summed(setting: Setting, means: RowsAnswer, profiles: Mapping[str, RowsAnswer], place: slice) -> LayerStatistics:
    values = means.values[:, place].astype(np.float64)
    present = np.unique(means.label[means.label >= 0])
    return LayerStatistics(
        rate=(values > setting.spec.threshold).mean(axis=0),
        mean=values.mean(axis=0),
        variance=values.var(axis=0),
        profiles={
            name: np.stack([rows.values[rows.label == one][:, place].mean(axis=0) for one in present], axis=1)
            for name, rows in profiles.items()
            if len(present)
        },
    )


def _read(setting: Setting, layer: LayerInfo) -> LayerStatistics:
    folder = Path(setting.spec.clusters_from).expanduser()
    short = {name: block for block, name in PRESETS.items()}.get(layer.name, layer.name)
    rate, mean, variance = read_statistics(folder / f"stats_{short}.npz")
    if len(rate) != layer.units:
        message = (
            f"{folder / f'stats_{short}.npz'} has statistics of {len(rate)} units, but layer '{layer.name}' of "
            f"{setting.subject.name} has {layer.units}. Give statistics of this network"
        )
        raise DataError(message)
    return LayerStatistics(rate, mean, variance, {})


def cluster_layers(setting: Setting, statistics: Mapping[str, LayerStatistics]) -> list[LayerClusters]:
    """Clusters of every layer for every number of them, and how many there are."""
    found = []
    setting.run.progress.start("clusters", len(setting.layers))
    try:
        for layer in setting.layers:
            found.append(_clustered(setting, layer, statistics[layer.name]))
            setting.run.progress.advance(1)
    finally:
        setting.run.progress.finish()
    return found


def _clustered(setting: Setting, layer: LayerInfo, known: LayerStatistics) -> LayerClusters:
    spec = setting.spec
    one_start = setting.has("one-start")
    features = features_of(
        known.rate,
        known.mean,
        known.variance,
        profiles={name: values.astype(np.float64) for name, values in known.profiles.items()} or None,
        dead="clustered" if setting.has("dead-clustered") else "apart",
    )

    def clustered(k: int) -> Clustering:
        if spec.clustering == "hierarchical":
            return hierarchical(features, k)
        if one_start:
            return kmeans(features, k, n_init=1, seed=_LEGACY_SEED, order="as found")
        return kmeans(features, k, n_init=spec.n_init, seed=setting.run.seed)

    clusterings = {k: clustered(k) for k in setting.ks}
    choice = None
    if spec.choose == "choose":
        rng = setting.run.generator("clusters", layer.name)
        choice = choose_k(features, list(setting.ks), rng=rng, n_init=min(spec.n_init, 20), clusterings=clusterings)
    plane = np.full((layer.units, 2), np.nan)
    if features.clustered.sum() >= _LEAST_IN_PLANE:
        plane = tsne(features, of="raw" if setting.has("raw-tsne") else "scaled")
    return LayerClusters(layer, known, features, clusterings, choice, plane)


def cluster_labels(one: LayerClusters, k: int) -> Int[np.ndarray, "u"]:
    """The cluster of each unit, -1 for those apart."""
    return one.clusterings[k].labels
