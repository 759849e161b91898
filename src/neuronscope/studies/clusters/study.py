"""Do explanations become more faithful when the gradient is kept from flowing through some units?

Units of a layer are clustered by what they do over many images. The gradient is then blocked in one cluster at a time:
predictions stay as they are, attributions change. Whether they become better is measured on other images, beside random
sets of units, and beside the unfiltered map blurred until it is as smooth as the filtered one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

import xarray as xr

from neuronscope.data.dataset import Data
from neuronscope.maths.streams import StackRows
from neuronscope.models.subject import Subject
from neuronscope.result import Provenance, Result, circumstances, peak_memory, versions
from neuronscope.run import Run
from neuronscope.steps import Observe, Step
from neuronscope.studies.clusters.evidence import LayerEvidence, Pass, explain_layer, passes_of
from neuronscope.studies.clusters.keep import keep_maps
from neuronscope.studies.clusters.matching import counterparts_group, descent_group
from neuronscope.studies.clusters.others import check_captum, others_group, others_pass
from neuronscope.studies.clusters.page import clusters_page
from neuronscope.studies.clusters.setting import Setting, settle
from neuronscope.studies.clusters.spec import ClustersSpec
from neuronscope.studies.clusters.statistics import LayerClusters, cluster_layers, statistics_of
from neuronscope.studies.clusters.tables import (
    accuracy_group,
    centroids_group,
    classes_group,
    clusterings_group,
    comparisons,
    completeness_group,
    configurations_group,
    curves_group,
    decomposition_groups,
    images_group,
    panels_group,
    random_sets_group,
    units_group,
)
from neuronscope.sweep import Plan, PlannedSweep, estimate, planned, unfinished


def run_clusters(subject: Subject, data: Data, spec: ClustersSpec | None = None, *, run: Run | None = None) -> Result:
    """Clusters of units, and what blocking the gradient in each does to attributions.

    Args:
        subject: the network.
        data: images; with class labels where targets, accuracies or single classes need them.
        spec: options.
        run: seed, device, batch size, progress.

    Returns:
        Groups `units` (statistics and clusters), `clusterings`, `centroids`, `descent` and `counterparts` (which
        clusters belong together), `configurations`, `random_sets`, `metrics`, `comparisons`, `against_blurred`,
        `against_random`, `unfiltered`, `images`, `curves`, `accuracy`, `decomposition_LAYER`, `classes`,
        `completeness`, `panels`.

    Raises:
        UnknownName: a layer or deviation that does not exist.
        InputError: too few images, more clusters than units, a layer of dead units, or classes that do not exist.
        DataError: statistics that are missing, torn or of another network.

    Example:
        >>> import neuronscope as ns
        >>> subject = ns.load_model("builtin:viewer-cnn", weights="random")
        >>> spec = ns.ClustersSpec(layers=("conv_layers.4",), k=(2,), main_k=2, images=4, steps=4, controls=1,
        ...                        choose="none", fractions=(), panels=0, draws=100)
        >>> result = ns.run_clusters(subject, ns.load_data("digits", limit=40), spec)
        >>> result.tree["configurations"]["kind"].to_numpy().tolist()[:3]
        ['baseline', 'filter', 'filter']
    """
    started = time.perf_counter()
    setting = settle(subject, data, spec or ClustersSpec(), run or Run())
    check_captum(setting.spec.captum)
    statistics = statistics_of(setting)
    clusters = cluster_layers(setting, statistics)
    if setting.run.portion is not None:
        for one in later_passes(setting, clusters):
            one.work(setting)
    unfinished(setting.run)
    evidence = [explain_layer(setting, one) for one in clusters]
    if setting.spec.keep_in:
        keep_maps(setting, clusters)
    provenance = Provenance(
        study="clusters",
        spec=asdict(setting.spec),
        legacy=setting.spec.legacy,
        subject=setting.subject.name,
        subject_fingerprint=setting.subject.fingerprint,
        data=data.name,
        data_fingerprint=data.fingerprint,
        images=len(data),
        skipped=(),
        nonfinite={},
        circumstances=circumstances(setting.run),
        versions=versions(),
        seconds=time.perf_counter() - started,
        peak_memory=peak_memory(),
    )
    return Result(assemble_tree(setting, clusters, evidence), provenance, view=clusters_page)


def assemble_tree(
    setting: Setting, clusters: Sequence[LayerClusters], evidence: Sequence[LayerEvidence]
) -> xr.DataTree:
    """All groups of the result."""
    compared, fall, sparse = comparisons(setting, evidence)
    groups: dict[str, xr.Dataset | None] = {
        "units": units_group(setting, clusters),
        "clusterings": clusterings_group(setting, clusters),
        "centroids": centroids_group(setting, clusters),
        "descent": descent_group(clusters),
        "counterparts": counterparts_group(setting, clusters),
        "configurations": configurations_group(evidence),
        "random_sets": random_sets_group(evidence),
        **compared,
        "images": images_group(setting, evidence, fall, sparse),
        "curves": curves_group(setting, evidence),
        "accuracy": accuracy_group(setting, evidence),
        **decomposition_groups(setting, evidence),
        "classes": classes_group(setting, evidence),
        "unfiltered": others_group(setting),
        "completeness": completeness_group(setting, evidence),
        "panels": panels_group(setting, evidence),
    }
    return xr.DataTree.from_dict(
        {"/": xr.Dataset(), **{f"/{name}": group for name, group in groups.items() if group is not None}}
    )


def plan_clusters(subject: Subject, data: Data, spec: ClustersSpec | None = None, *, run: Run | None = None) -> Plan:
    """The sweeps `run_clusters` will make; statistics are made at once, for the configurations follow from them."""
    setting = settle(subject, data, spec or ClustersSpec(), run or Run())
    look, fold = Observe(setting.layers, measures=("mean",)), StackRows("mean", images=len(setting.statistics))
    images = setting.data.take(setting.statistics)
    first = planned(subject, images, look, fold, run=setting.run, name="statistics")
    later = later_passes(setting, cluster_layers(setting, statistics_of(setting)))
    every = [first, *(one.planned(setting) for one in later)]
    # An image has hundreds of passes here: one at one layer is enough to time, and other sweeps are more of the same.
    timed: list[tuple[PlannedSweep, Step]] = [(first, look), (later[0].planned(setting), later[0].step)]
    known = estimate(subject, setting.data.take(setting.explained[:1]), timed, run=setting.run)
    seconds = (known.seconds or 0.0) * sum(map(_work, every)) / sum(_work(one) for one, _ in timed)
    return Plan(tuple(every), seconds)


def _work(one: PlannedSweep) -> int:
    return one.forward + one.backward


def later_passes(setting: Setting, clusters: Sequence[LayerClusters]) -> list[Pass]:
    """All passes after the statistics, which can be made in any order and in portions."""
    others = others_pass(setting)
    return [one for layer in clusters for one in passes_of(setting, layer).values()] + ([others] if others else [])
