"""The study's arguments once its deviations and defaults are settled, and the sweeps they lead to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

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
from neuronscope.steps import Gradients, Observe, Step, activation_bytes, columns
from neuronscope.studies.blocks import layer_blocks
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
        """The same for some of the layers, or parts of layers."""
        return replace(self, layers=layers)

    @property
    def classes(self) -> int:
        """Number of outputs of the network."""
        return len(self.subject.classes)

    @property
    def by_layer(self) -> dict[str, slice]:
        """Layer name -> its rows in the unit table (of a block: in the block's)."""
        return columns(self.layers)


def chosen_layers(subject: Subject, spec: Any) -> tuple[LayerInfo, ...]:
    """The layers that a spec asks for.

    Raises:
        UnknownName: no such layer.
    """
    return subject.select(*spec.layers)


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
    return Setting(subject, data, spec, named, chosen_layers(subject, spec))


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


def attribution(setting: Setting) -> tuple[Gradients, Reducer[dict[str, Any]]]:
    """The backward sweep."""
    of: Literal["label", "prediction"] = "prediction" if setting.spec.gradient == "prediction" else "label"
    reducer = Each(
        all=Moments("pull/logit"),
        size=Moments("size/logit"),
        by_class=ClassMoments("pull/logit", classes=setting.classes),
    )
    return Gradients(setting.layers, of=of, measures=()), reducer


def shown_images(setting: Setting) -> int:
    """Most images shown step by step: the chosen ones, or one of each class, and wrong decisions."""
    examples = len(setting.spec.examples) or min(MOST_EXAMPLES, max(setting.classes, 1))
    return min(examples + setting.spec.wrong, len(setting.data))


def map_blocks(setting: Setting) -> list[Setting]:
    """The layers in groups whose whole maps, of all examples, take little memory: a pass over a few images is cheap.

    Raises:
        InputError: the maps of a single unit need more than the memory of the run.
    """
    images, memory = shown_images(setting), setting.run.memory

    def needs(layers: tuple[LayerInfo, ...]) -> int:
        return _bytes_of(planned_maps(setting.block(layers))[0])

    def fits(layers: tuple[LayerInfo, ...]) -> bool:
        few = len(layers) == 1 or images * activation_bytes(layers) <= _MAPS_AT_ONCE
        return few and (memory is None or needs(layers) <= memory)

    return _in_blocks(setting, fits, needs)


def feature_maps(setting: Setting) -> tuple[Observe, Reducer[dict[str, Any]]]:
    """The sweep over the examples: whole maps of every layer."""
    most = shown_images(setting)
    step = Observe(setting.layers, measures=("mean",), maps=tuple(layer.name for layer in setting.layers))
    maps = {f"maps/{layer.name}": StackRows(f"maps/{layer.name}", images=most) for layer in setting.layers}
    return step, Each(logits=StackRows("logits", images=most), **maps)


def planned_maps(setting: Setting) -> tuple[PlannedSweep, Step]:
    """The sweep over the examples for one group of layers, with what it needs."""
    few = setting.data.take(range(shown_images(setting)))
    step, reducer = feature_maps(setting)
    return planned(setting.subject, few, step, reducer, run=setting.run, name="examples"), step


def blocks(setting: Setting) -> list[Setting]:
    """The layers in as few groups as the memory of the run allows, one sweep of each kind for a group.

    A layer which alone needs more is split into blocks of its units, one to a group; the last of them may share its
    group with the layers that follow.

    Raises:
        InputError: one unit alone, with the passes through the network, needs more than the memory that was asked for.
    """
    memory = setting.run.memory
    if memory is None:
        return [setting]
    present = len(np.unique(setting.data.labels[setting.data.labels >= 0]))

    def needs(layers: tuple[LayerInfo, ...]) -> int:
        return _needs(setting.block(layers), present=present)

    return _in_blocks(setting, lambda layers: needs(layers) <= memory, needs)


def _in_blocks(
    setting: Setting,
    fits: Callable[[tuple[LayerInfo, ...]], bool],
    needs: Callable[[tuple[LayerInfo, ...]], int],
) -> list[Setting]:
    def refuse(layer: LayerInfo) -> str:
        return _refusal(setting, layer, needs((layer.part(0, 1),)))

    return [setting.block(group) for group in layer_blocks(setting.layers, fits=fits, refuse=refuse)]


def _refusal(setting: Setting, layer: LayerInfo, least: int) -> str:
    passes = max(sweep.working for sweep, _ in planned_sweeps(setting))
    return (
        f"one unit of layer '{layer.name}' alone needs {_mib(least)} beside the network, and --memory allows "
        f"{_mib(setting.run.memory or 0)}. Layers are split by units, but {_mib(passes)} of it are the passes through "
        f"the network with {setting.run.batch_size} images at a time: allow more, or lower --batch-size"
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def planned_sweeps(setting: Setting) -> list[tuple[PlannedSweep, Step]]:
    """The sweeps over all images for one group of layers, with what they need."""
    jobs: list[tuple[str, Step, Reducer[Any]]] = [("observe", *observation(setting))]
    if setting.spec.gradient != "none":
        jobs.append(("attribute", *attribution(setting)))
    return [
        (planned(setting.subject, setting.data, step, reducer, run=setting.run, name=name), step)
        for name, step, reducer in jobs
    ]


def _needs(setting: Setting, *, present: int) -> int:
    """Bytes at the largest moment of the sweeps and of the arithmetic on their answers, roughly."""
    units = sum(layer.units for layer in setting.layers)
    arithmetic = 8 * units * (3 * len(setting.data) + 12 * present)
    return max(arithmetic, *(_bytes_of(sweep) for sweep, _ in planned_sweeps(setting)))


def _bytes_of(sweep: PlannedSweep) -> int:
    return sweep.state + sweep.working
