"""The study's arguments once its deviations and defaults are settled, and the sweeps they lead to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from neuronscope.checkpoint import digest
from neuronscope.data.dataset import Data
from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.maths.streams import (
    ClassMoments,
    Confusion,
    Decisions,
    Each,
    Histogram,
    Moments,
    Reducer,
    StackRows,
    TopK,
)
from neuronscope.models.subject import Subject
from neuronscope.run import Run
from neuronscope.steps import GradientTimesActivation, Observe, Step, activation_bytes, columns
from neuronscope.studies.layers.spec import LEGACY, LayersSpec
from neuronscope.sweep import PlannedSweep, planned
from neuronscope.units import LayerInfo

MOST_EXAMPLES = 10
"""Examples shown when none are chosen: one of each class, up to so many."""

_FIRST = 1000  # images of the deviation `first-1000`
_MAPS_AT_ONCE = 32 * 2**20  # bytes of whole maps of the examples


@dataclass(frozen=True)
class Setting:
    """The study's arguments after its deviations and defaults are settled."""

    subject: Subject
    data: Data
    spec: LayersSpec
    run: Run
    layers: tuple[LayerInfo, ...]

    def block(self, layers: tuple[LayerInfo, ...]) -> Setting:
        """The same for some of the layers."""
        return replace(self, layers=layers)

    @property
    def classes(self) -> int:
        """Number of outputs of the network."""
        return len(self.subject.classes)

    @property
    def by_layer(self) -> dict[str, slice]:
        """Layer name -> its rows in the unit table."""
        return columns(self.layers)


def settle(subject: Subject, data: Data, spec: LayersSpec, run: Run) -> Setting:
    """Apply deviations, choose layers, and refuse what cannot work.

    Raises:
        UnknownName: a deviation or layer that does not exist.
        InputError: a label beyond the network's outputs, or an example row beyond the data.
    """
    for name in spec.legacy:
        if name not in LEGACY:
            message = (
                f"'{name}' is not a deviation of the layers study.{nearest(name, LEGACY)} All: {', '.join(LEGACY)}"
            )
            raise UnknownName(message)
    if "raw-input" in spec.legacy:
        subject = replace(subject, preprocess=replace(subject.preprocess, mean=(), std=()))
    if "first-1000" in spec.legacy:
        data = data.take(range(min(_FIRST, len(data))))
    if len(data) and int(data.labels.max()) >= len(subject.classes):
        message = (
            f"{data.name} has labels up to {data.labels.max()}, but {subject.name} has {len(subject.classes)} outputs: "
            "network and data do not belong together"
        )
        raise InputError(message)
    if any(not 0 <= row < len(data) for row in spec.examples):
        message = f"example row {max(spec.examples)} is not in {data.name}, which has {len(data)} images"
        raise InputError(message)
    named = replace(run, context=(*run.context, "layers", digest(spec)))
    return Setting(subject, data, spec, named, subject.select(*spec.layers))


def observation(setting: Setting) -> tuple[Observe, Reducer[dict[str, Any]]]:
    """The forward sweep: every measurement in one pass."""
    spec, classes = setting.spec, setting.classes
    where = "max_at" if spec.top_by == "max" else ""
    step = Observe(setting.layers, measures=("mean", "max", "rate", "square"))
    reducer = Each(
        mean=Moments("mean"),
        max=Moments("max"),
        rate=Moments("rate"),
        square=Moments("square"),
        top=TopK(spec.top_by, spec.top_k, where=where),
        bottom=TopK(spec.top_by, spec.top_k, where=where, end="smallest"),
        histogram=Histogram(spec.pool),
        confusion=Confusion("logits", classes=classes),
        decisions=Decisions("logits", images=len(setting.data)),
        scores=StackRows(spec.pool, images=len(setting.data)),
    )
    return step, reducer


def attribution(setting: Setting) -> tuple[GradientTimesActivation, Reducer[dict[str, Any]]]:
    """The backward sweep."""
    target: Literal["label", "prediction"] = "prediction" if setting.spec.gradient == "prediction" else "label"
    reducer = Each(
        all=Moments("attribution"),
        size=Moments("size"),
        by_class=ClassMoments("attribution", classes=setting.classes),
    )
    return GradientTimesActivation(setting.layers, target=target), reducer


def map_blocks(setting: Setting) -> list[Setting]:
    """The layers in groups whose whole maps, of all examples, take little memory: a pass over a few images is cheap."""
    images = MOST_EXAMPLES + setting.spec.wrong
    groups: list[tuple[LayerInfo, ...]] = []
    for layer in setting.layers:
        together = (*groups[-1], layer) if groups else (layer,)
        if groups and images * activation_bytes(together) <= _MAPS_AT_ONCE:
            groups[-1] = together
        else:
            groups.append((layer,))
    return [setting.block(group) for group in groups]


def feature_maps(setting: Setting) -> tuple[Observe, Reducer[dict[str, Any]]]:
    """The sweep over the examples: whole maps of every layer."""
    most = MOST_EXAMPLES + setting.spec.wrong
    step = Observe(setting.layers, measures=("mean",), maps=tuple(layer.name for layer in setting.layers))
    maps = {f"maps/{layer.name}": StackRows(f"maps/{layer.name}", images=most) for layer in setting.layers}
    return step, Each(logits=StackRows("logits", images=most), **maps)


def blocks(setting: Setting) -> list[Setting]:
    """The layers in as few groups as the memory of the run allows, one sweep of each kind for a group.

    Raises:
        InputError: one layer alone needs more than the memory that was asked for.
    """
    if setting.run.memory is None:
        return [setting]
    groups: list[tuple[LayerInfo, ...]] = []
    for layer in setting.layers:
        if groups and _needs(setting.block((*groups[-1], layer))) <= setting.run.memory:
            groups[-1] = (*groups[-1], layer)
            continue
        alone = _needs(setting.block((layer,)))
        if alone > setting.run.memory:
            message = (
                f"layer '{layer.name}' alone needs {alone / 2**20:,.0f} MiB beside the network, and --memory allows "
                f"{setting.run.memory / 2**20:,.0f} MiB. Allow as much, choose other layers, or lower --batch-size"
            )
            raise InputError(message)
        groups.append((layer,))
    return [setting.block(group) for group in groups]


def planned_sweeps(setting: Setting) -> list[tuple[PlannedSweep, Step]]:
    """The sweeps over all images for one group of layers, with what they need."""
    jobs: list[tuple[str, Step, Reducer[Any]]] = [("observe", *observation(setting))]
    if setting.spec.gradient != "none":
        jobs.append(("attribute", *attribution(setting)))
    return [
        (planned(setting.subject, setting.data, step, reducer, run=setting.run, name=name), step)
        for name, step, reducer in jobs
    ]


def _needs(setting: Setting) -> int:
    """Bytes at the largest moment of the sweeps and of the arithmetic on their answers, roughly."""
    units = sum(layer.units for layer in setting.layers)
    present = len(set(setting.data.labels.tolist()) - {-1})
    arithmetic = 8 * units * (3 * len(setting.data) + 12 * present)
    return max(arithmetic, *(sweep.state + sweep.working for sweep, _ in planned_sweeps(setting)))
