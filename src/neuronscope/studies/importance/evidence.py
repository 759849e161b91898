"""What the selection images say about every unit and class: the sweeps, and tables to cut any random half from.

All quantities are folded by class and random part of the images. A half of the images is a choice of parts, so the
reuse of units between halves needs no further pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Int

from neuronscope.data.dataset import Data, balanced_rows
from neuronscope.maths.streams import ClassMoments, Each, MomentsAnswer, Reducer, StackRows
from neuronscope.quantities import memory_size
from neuronscope.steps import FALLS, Ablate, AlongPath, Gradients, Grouped, Observe, Step, Target, columns
from neuronscope.studies.blocks import layer_blocks
from neuronscope.studies.importance.setting import Setting
from neuronscope.studies.importance.silence import fill_for_labels, needs_means
from neuronscope.studies.importance.spec import Rule
from neuronscope.studies.importance.tables import Stats, Table
from neuronscope.sweep import Swept, planned, sweep
from neuronscope.units import LayerInfo

TARGETS: dict[Rule, Target] = {"gradient": "logit", "gradient-contrast": "contrast", "taylor": "loss"}
"""Rules that need a gradient -> what is differentiated."""

ON_PATH: tuple[Rule, ...] = ("influence", "conductance")


@dataclass(frozen=True)
class Evidence:
    """Everything the selection images said.

    Attributes:
        tables: quantity -> table over all units of the layers: `mean`, `logit`, `contrast`, `loss`, `influence`,
            `conductance`, `logit_fall`.
        silenced: moments of each unit's output where it is silenced, by class; for edits that put a mean in its place.
        seen: what was read, and the confusion matrix of the untouched network.
        residual: what the conductances of the first layer lack, as a share of the logit's change (median over images);
            nan where the memory of the run did not allow to look at that layer as a whole.
    """

    tables: Mapping[str, Table]
    silenced: Stats
    seen: Swept[Any]
    residual: float = np.nan


def gather(setting: Setting) -> Evidence | None:
    """All sweeps over the selection images; None when only a portion of them was worked."""
    names = ("mean", *targets_of(setting))
    portioned = setting.run.portion is not None
    looks = [
        sweep(setting.subject, setting.selection, *looking(setting, group), run=setting.run, name="select")
        for group in look_groups(setting)
    ]
    answers: dict[str, MomentsAnswer] = {}
    silenced: Stats | None = None
    if not portioned:
        units = sum(layer.units for layer in setting.layers)
        whole = {name: _joined([look.answer[name] for look in looks]) for name in names}
        answers |= {name: _columns(answer, slice(0, units)) for name, answer in whole.items()}
        silenced = _where_silenced(setting, whole["mean"])
    residual = np.nan
    if set(setting.spec.rules) & set(ON_PATH):
        paths = [
            sweep(setting.subject, setting.selection, *walking(setting, group), run=setting.run, name="path")
            for group in walk_groups(setting)
        ]
        if not portioned:
            answers |= {name: _joined([path.answer[name] for path in paths]) for name in ON_PATH}
            # of a part of a layer the step would count the other part's conductance as lacking
            whole_layer = walk_groups(setting)[0][0].whole is None
            residual = first_residual(setting, paths[0].answer["residual"].values) if whole_layer else np.nan
    if "ablation" in setting.spec.rules and not (portioned and needs_means(setting.spec)):
        rows = few_rows(setting.selection, setting)
        falls = []
        for number in range(len(setting.layers)):
            step, reducer = silencing(setting, number, silenced, groups=setting.groups[rows])
            few = setting.selection.take(rows)
            falls.append(sweep(setting.subject, few, step, reducer, run=setting.run, name=f"select-{number}").answer)
        if not portioned:
            answers["logit_fall"] = _joined([fall["logit_fall"] for fall in falls])
    if portioned or silenced is None:
        return None
    tables = {name: Table.of(answer, parts=setting.parts) for name, answer in answers.items()}
    return Evidence(tables, silenced, looks[0], residual)


def first_residual(setting: Setting, residuals: np.ndarray) -> float:
    """Median of what the first layer's conductances lack; nan where memory allowed a part of that layer only."""
    return float(np.median(residuals)) if walk_groups(setting)[0][0].whole is None else np.nan


def targets_of(setting: Setting) -> tuple[Target, ...]:
    """What the rules need gradients of."""
    return tuple(TARGETS[rule] for rule in setting.spec.rules if rule in TARGETS)


def look_groups(setting: Setting) -> list[tuple[LayerInfo, ...]]:
    """The layers to look at in as few groups as the memory of the run allows."""
    return _groups(setting, watched_layers(setting), looking)


def walk_groups(setting: Setting) -> list[tuple[LayerInfo, ...]]:
    """The same for the path from a baseline."""
    return _groups(setting, setting.layers, walking)


def looking(setting: Setting, layers: tuple[LayerInfo, ...]) -> tuple[Step, Reducer[dict[str, Any]]]:
    """One pass for all rules that need activations and gradients."""
    targets = targets_of(setting)
    step: Step = Gradients(layers, targets=targets) if targets else Observe(layers, measures=("mean",))
    many = len(setting.subject.classes) * setting.parts
    folds: dict[str, Reducer[Any]] = {"mean": ClassMoments("mean", classes=many)}
    for target in targets:
        folds[target] = ClassMoments(f"{'size' if target == 'loss' else 'pull'}/{target}", classes=many)
    return Grouped(step, setting.groups), Each(**folds)


def walking(setting: Setting, layers: tuple[LayerInfo, ...]) -> tuple[Step, Reducer[dict[str, Any]]]:
    """The pass along the path from a baseline."""
    many = len(setting.subject.classes) * setting.parts
    folds: dict[str, Reducer[Any]] = {name: ClassMoments(name, classes=many) for name in ON_PATH}
    residual = StackRows("residual", images=len(setting.selection))
    step = AlongPath(layers, steps=setting.spec.path_steps)
    return Grouped(step, setting.groups), Each(**folds, residual=residual)


def _groups(
    setting: Setting,
    layers: tuple[LayerInfo, ...],
    job: Callable[[Setting, tuple[LayerInfo, ...]], tuple[Step, Reducer[dict[str, Any]]]],
) -> list[tuple[LayerInfo, ...]]:
    memory = setting.run.memory
    if memory is None:
        return [layers]

    def needs(group: tuple[LayerInfo, ...]) -> int:
        one = planned(setting.subject, setting.selection, *job(setting, group), run=setting.run, name="select")
        return one.state + one.working

    def refuse(layer: LayerInfo) -> str:
        return (
            f"one unit of layer '{layer.name}' alone needs {memory_size(needs((layer.part(0, 1),)))} beside the "
            f"network, and --memory allows {memory_size(memory)}. Allow more, or lower --batch-size"
        )

    return layer_blocks(layers, fits=lambda group: needs(group) <= memory, refuse=refuse)


def silencing(
    setting: Setting, number: int, means: Stats | None, *, groups: Int[np.ndarray, "n"] | None = None
) -> tuple[Step, Reducer[dict[str, Any]]]:
    """The pass that silences every unit of a layer alone; by class, or by the given groups."""
    where = setting.silenced[number]
    own = means.at(setting.places[number]) if means is not None else None
    step: Step = Ablate(where, fill=fill_for_labels(setting, own, units=where.units), memory=setting.replay_memory)
    many = len(setting.subject.classes)
    if groups is not None:
        step, many = Grouped(step, groups), many * setting.parts
    return step, Each(**{name: ClassMoments(name, classes=many) for name in FALLS})


def few_rows(data: Data, setting: Setting) -> Int[np.ndarray, "m"]:
    """The images on which units are silenced one by one, classes balanced; only those of the classes in question."""
    mine = np.flatnonzero(np.isin(data.labels, setting.classes))
    return np.asarray(mine[balanced_rows(data.labels[mine], limit=setting.spec.ablation_images, seed=setting.run.seed)])


def watched_layers(setting: Setting) -> tuple[LayerInfo, ...]:
    """The layers, and after them those where their units are silenced."""
    return (*setting.layers, *(layer for layer in dict.fromkeys(setting.silenced) if layer not in setting.layers))


def _where_silenced(setting: Setting, answer: MomentsAnswer) -> Stats:
    """Moments where each unit is silenced, in the order of the units."""
    place = columns(watched_layers(setting))
    own = np.concatenate([np.arange(place[where.name].start, place[where.name].stop) for where in setting.silenced])
    return Table.of(_columns(answer, own), parts=setting.parts).over()


def _columns(answer: MomentsAnswer, chosen: slice | Int[np.ndarray, "m"]) -> MomentsAnswer:
    """Some of the units of a fold by class."""
    parts = {one.name: getattr(answer, one.name) for one in fields(answer) if one.name != "count"}
    return MomentsAnswer(count=answer.count, **{name: values[:, chosen] for name, values in parts.items()})


def _joined(answers: Sequence[MomentsAnswer]) -> MomentsAnswer:
    """The units of several folds over the same images, side by side."""
    names = [one.name for one in fields(answers[0]) if one.name != "count"]
    return MomentsAnswer(
        count=answers[0].count,
        **{name: np.concatenate([getattr(one, name) for one in answers], axis=1) for name in names},
    )
