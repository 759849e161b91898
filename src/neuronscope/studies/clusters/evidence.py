"""What is found at each layer: judged attributions, networks without a cluster, single classes, pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from neuronscope.errors import InputError
from neuronscope.maths.streams import Each, RowsAnswer, StackRows
from neuronscope.steps import MaskGroup, PredictMasked, Step
from neuronscope.studies.clusters.configurations import Plan, plan_of
from neuronscope.studies.clusters.explain import Explain
from neuronscope.studies.clusters.setting import Setting
from neuronscope.studies.clusters.statistics import LayerClusters
from neuronscope.sweep import PlannedSweep, Swept, planned, sweep

LOGGER = logging.getLogger("neuronscope")

_NAMED = 8
"""Images that a message names."""


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
        panels: number of clusters -> configurations, and some images with their maps; empty for no pictures.
    """

    clusters: LayerClusters
    plan: Plan
    judged: Judged
    dropped: Dropped | None
    classes: Judged | None
    class_plan: Plan
    panels: dict[int, tuple[Plan, Judged]]


@dataclass(frozen=True, eq=False)
class Pass:
    """One pass over some images, independent of the others.

    Attributes:
        name: what it is for.
        rows: of the images.
        step: what is done with a batch.
        kept: measurements of which every image's is kept.
    """

    name: str
    rows: Int[np.ndarray, "n"]
    step: Step
    kept: tuple[str, ...]

    def swept(self, setting: Setting) -> dict[str, RowsAnswer]:
        """Make it."""
        answer: dict[str, RowsAnswer] = self._sweep(setting).answer
        return answer

    def work(self, setting: Setting) -> None:
        """Make the run's portion of it, which is kept in its checkpoint."""
        self._sweep(setting)

    def planned(self, setting: Setting) -> PlannedSweep:
        """What it will take."""
        images = setting.data.take(self.rows)
        return planned(setting.subject, images, self.step, self._folds(), run=setting.run, name=self.name)

    def _sweep(self, setting: Setting) -> Swept[Any]:
        images = setting.data.take(self.rows)
        return sweep(setting.subject, images, self.step, self._folds(), run=setting.run, name=self.name)

    def _folds(self) -> Each:
        return Each(**{name: StackRows(name, images=len(self.rows)) for name in self.kept})


def explaining(setting: Setting, step: Explain, rows: Int[np.ndarray, "n"], *, name: str) -> Pass:
    """A pass that explains images and keeps all of it."""
    kept = tuple(one for one in step.shapes(len(setting.subject.classes)) if one != "logits")
    return Pass(name, rows, step, kept)


def passes_of(setting: Setting, clusters: LayerClusters) -> dict[str, Pass]:
    """All passes over a layer, which need its clusters, not one another: `judged`, `classes`, `panels 3`, `dropped`."""
    layer = clusters.layer.name
    step = explain_step(setting, clusters, plan_of(setting, clusters))
    single = replace(step, plan=plan_of(setting, clusters, controls=False), fractions=())
    passes = {"judged": explaining(setting, step, setting.explained, name=f"explanations {layer}")}
    if setting.classes:
        rows = np.concatenate([own for _, own in setting.classes])
        passes["classes"] = explaining(setting, single, rows, name=f"classes {layer}")
    for k in setting.shown:
        rows = setting.explained[_spread(len(setting.explained), setting.spec.panels)]
        shown = replace(single, plan=plan_of(setting, clusters, controls=False, k=k), surfaces="kept")
        passes[f"panels {k}"] = explaining(setting, shown, rows, name=f"panels {layer} {k}")
    if setting.spec.dropped == "all":
        sets = PredictMasked(clusters.layer, (MaskGroup(_distinct_clusters(setting, clusters)[0]),))
        passes["dropped"] = Pass(f"dropped {layer}", setting.explained, sets, ("predicted", "ahead"))
    return passes


def explain_layer(setting: Setting, clusters: LayerClusters) -> LayerEvidence:
    """Make all passes over a layer.

    Raises:
        InputError: no image has a gradient there.
    """
    passes = passes_of(setting, clusters)
    found = {key: one.swept(setting) for key, one in passes.items()}
    judged = {key: _judged(one, found[key]) for key, one in passes.items() if key != "dropped"}
    few = plan_of(setting, clusters, controls=False)
    _check_gradients(setting, clusters.layer.name, judged["judged"])
    return LayerEvidence(
        clusters,
        plan=plan_of(setting, clusters),
        judged=judged["judged"],
        dropped=_dropped(setting, clusters, found["dropped"]) if "dropped" in found else None,
        classes=judged.get("classes"),
        class_plan=few,
        panels={k: (plan_of(setting, clusters, controls=False, k=k), judged[f"panels {k}"]) for k in setting.shown},
    )


def _check_gradients(setting: Setting, layer: str, judged: Judged) -> None:
    """Say which images have maps that are 0 everywhere: nothing in them comes first, so faithfulness means little.

    Raises:
        InputError: all of them, by every method.
    """
    blank = {  # no cluster has a part of the map, and nothing is missing from it: units of no cluster have none either
        name: np.isnan(judged.values[f"{name}/share"]).all(axis=1) & (judged.values[f"{name}/error"] == 0)
        for name in setting.methods
    }
    if all(own.all() for own in blank.values()):
        message = (
            f"none of the {len(judged.index)} images has a gradient at '{layer}': no class explained depends on it "
            "there. Give another layer, another --target, or other images"
        )
        raise InputError(message)
    for name, own in blank.items():
        if own.any():
            rows = ", ".join(map(str, judged.index[own][:_NAMED])) + (", ..." if own.sum() > _NAMED else "")
            LOGGER.warning(
                "%d of %d images have no gradient at %s by %s, and maps that are 0 everywhere: rows %s",
                own.sum(), len(own), layer, name, rows,
            )  # fmt: skip


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
        memory=setting.at_once,
    )


def _judged(one: Pass, answer: dict[str, RowsAnswer]) -> Judged:
    first = answer["predicted"]
    return Judged(one.rows[first.index], first.label, {name: found.values for name, found in answer.items()})


def _distinct_clusters(
    setting: Setting, clusters: LayerClusters
) -> tuple[Bool[np.ndarray, "s u"], list[tuple[int, int]], Int[np.ndarray, "c"]]:
    """Every distinct set of units that is a cluster; k and cluster of all clusters; and which set each of them is."""
    of = [(k, cluster) for k in setting.ks for cluster in range(k)]
    masks = np.stack([clusters.clusterings[k].labels == cluster for k, cluster in of])
    distinct, place = np.unique(masks, axis=0, return_inverse=True)
    return distinct, of, place.reshape(-1)


def _dropped(setting: Setting, clusters: LayerClusters, answer: dict[str, RowsAnswer]) -> Dropped:
    """Every cluster's channels set to 0 at the layer, each distinct set once."""
    _, of, columns = _distinct_clusters(setting, clusters)
    return Dropped(tuple(of), answer["predicted"].values[:, columns], answer["ahead"].values[:, columns])


def _spread(images: int, wanted: int) -> Int[np.ndarray, "m"]:
    """Places spread over the images."""
    return np.unique(np.linspace(0, images - 1, min(images, wanted)).astype(np.int64))


def column(judged: Judged, name: str, which: Sequence[int]) -> Float[np.ndarray, "n c"]:
    """Some configurations of a measurement."""
    return np.asarray(judged.values[name][:, list(which)], dtype=np.float64)
