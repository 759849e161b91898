"""What is found at each layer: judged attributions, networks without a cluster, single classes, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int, Shaped

from neuronscope.maths.streams import Each, RowsAnswer, StackRows
from neuronscope.steps import MaskGroup, PredictMasked
from neuronscope.studies.clusters.configurations import Plan, plan_of
from neuronscope.studies.clusters.explain import Explain
from neuronscope.studies.clusters.setting import Setting
from neuronscope.studies.clusters.statistics import LayerClusters
from neuronscope.sweep import sweep


@dataclass(frozen=True, eq=False)
class Judged:
    """One row for each explained image.

    Attributes:
        index: row of the image among those explained.
        label: its class, -1 for none.
        values: by name, as `Explain` says.
    """

    index: Int[np.ndarray, "n"]
    label: Int[np.ndarray, "n"]
    values: dict[str, Shaped[np.ndarray, "n ..."]]


@dataclass(frozen=True, eq=False)
class Dropped:
    """Predictions with a cluster really silenced, for each distinct cluster.

    Attributes:
        of: (k, cluster) of each column.
        predicted: class predicted.
        ahead: classes with a higher logit than the label, -1 without a label.
    """

    of: tuple[tuple[int, int], ...]
    predicted: Int[np.ndarray, "n c"]
    ahead: Int[np.ndarray, "n c"]


@dataclass(frozen=True, eq=False)
class LayerEvidence:
    """Everything about a layer.

    Attributes:
        clusters: its units in clusters.
        plan: configurations.
        judged: the explained images.
        dropped: the same images with clusters silenced; None where nobody asked.
        classes: the images of the classes looked at by themselves, with the baseline and the main filters only; None
            where there are none.
        class_plan: the configurations of these.
        panels: some images with their maps, with the same configurations; None for no pictures.
    """

    clusters: LayerClusters
    plan: Plan
    judged: Judged
    dropped: Dropped | None
    classes: Judged | None
    class_plan: Plan
    panels: Judged | None


def explain_layer(setting: Setting, clusters: LayerClusters) -> LayerEvidence:
    """All passes over a layer."""
    plan, few = plan_of(setting, clusters), plan_of(setting, clusters, controls=False)
    step = explain_step(setting, clusters, plan)
    judged = _judged(setting, step, setting.explained, name=f"explanations {clusters.layer.name}")
    single = replace(step, plan=few, fractions=())
    classes = None
    if setting.classes:
        rows = np.concatenate([own for _, own in setting.classes])
        classes = _judged(setting, single, rows, name=f"classes {clusters.layer.name}")
    panels = None
    if setting.spec.panels:
        rows = setting.explained[_spread(len(setting.explained), setting.spec.panels)]
        shown = replace(single, surfaces="kept")
        panels = _judged(setting, shown, rows, name=f"panels {clusters.layer.name}")
    dropped = _dropped(setting, clusters) if setting.spec.dropped == "all" else None
    return LayerEvidence(clusters, plan, judged, dropped, classes, few, panels)


def explain_step(setting: Setting, clusters: LayerClusters, plan: Plan) -> Explain:
    """The step for a layer and its configurations."""
    spec = setting.spec
    return Explain(
        layer=clusters.layer,
        plan=plan,
        methods=setting.methods,
        metrics=spec.metrics,
        target=setting.target,
        measure=setting.measure,
        mass=spec.mass,
        drop=spec.drop,
        fractions=spec.fractions,
        fill=setting.fill,
        sums="float32-sums" if setting.has("float32-sums") else "float64",
        shape=setting.subject.input_shape,
        seed=setting.run.seed,
    )


def _judged(setting: Setting, step: Explain, rows: Int[np.ndarray, "n"], *, name: str) -> Judged:
    images = setting.data.take(rows)
    names = [one for one in step.shapes(len(setting.subject.classes)) if one != "logits"]
    folds = Each(**{one: StackRows(one, images=len(images)) for one in names})
    answer: dict[str, RowsAnswer] = sweep(setting.subject, images, step, folds, run=setting.run, name=name).answer
    first = answer["predicted"]
    return Judged(rows[first.index], first.label, {one: found.values for one, found in answer.items()})


def _dropped(setting: Setting, clusters: LayerClusters) -> Dropped:
    """Every cluster's channels set to 0 at the layer, each distinct set once."""
    images = setting.data.take(setting.explained)
    of, masks = [], []
    for k in setting.ks:
        for cluster in range(k):
            of.append((k, cluster))
            masks.append(clusters.clusterings[k].labels == cluster)
    distinct, place = np.unique(np.stack(masks), axis=0, return_inverse=True)
    step = PredictMasked(clusters.layer, (MaskGroup(distinct),))
    folds = Each(**{one: StackRows(one, images=len(images)) for one in ("predicted", "ahead")})
    name = f"dropped {clusters.layer.name}"
    answer = sweep(setting.subject, images, step, folds, run=setting.run, name=name).answer
    columns = place.reshape(-1)
    return Dropped(tuple(of), answer["predicted"].values[:, columns], answer["ahead"].values[:, columns])


def _spread(images: int, wanted: int) -> Int[np.ndarray, "m"]:
    """Places spread over the images."""
    return np.unique(np.linspace(0, images - 1, min(images, wanted)).astype(np.int64))


def column(judged: Judged, name: str, which: Sequence[int]) -> Float[np.ndarray, "n c"]:
    """Some configurations of a measurement."""
    return np.asarray(judged.values[name][:, list(which)], dtype=np.float64)
