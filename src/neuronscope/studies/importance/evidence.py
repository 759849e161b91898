"""What the selection images say about every unit and class: the sweeps, and tables that any random half can be cut from.

All quantities are folded by class and random part of the images. A half of the images is a choice of parts, so the
reuse of units between halves needs no further pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Int

from neuronscope.data.dataset import Data, balanced_rows
from neuronscope.maths.streams import ClassMoments, Decisions, Each, MomentsAnswer, Reducer, StackRows
from neuronscope.steps import FALLS, Ablate, AlongPath, Gradients, Grouped, Observe, Step, Target, columns
from neuronscope.studies.importance.setting import Setting
from neuronscope.studies.importance.silence import fill_for_labels, needs_means
from neuronscope.studies.importance.spec import Rule
from neuronscope.studies.importance.tables import Stats, Table
from neuronscope.sweep import Swept, sweep
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
        residual: what the conductances of the first layer lack, as a share of the logit's change (median over images).
    """

    tables: Mapping[str, Table]
    silenced: Stats
    seen: Swept[Any]
    residual: float = np.nan


def gather(setting: Setting) -> Evidence | None:
    """All sweeps over the selection images; None when only a portion of them was worked."""
    names = ("mean", *targets_of(setting))
    first = sweep(setting.subject, setting.selection, *looking(setting), run=setting.run, name="select")
    portioned = setting.run.portion is not None
    answers: dict[str, MomentsAnswer] = {}
    silenced: Stats | None = None
    if not portioned:
        units = sum(layer.units for layer in setting.layers)
        answers |= {name: _columns(first.answer[name], slice(0, units)) for name in names}
        silenced = _where_silenced(setting, first.answer["mean"])
    residual = np.nan
    if set(setting.spec.rules) & set(ON_PATH):
        path = sweep(setting.subject, setting.selection, *walking(setting), run=setting.run, name="path")
        if not portioned:
            answers |= {name: path.answer[name] for name in ON_PATH}
            residual = float(np.median(path.answer["residual"].values))
    if "ablation" in setting.spec.rules and not (portioned and needs_means(setting.spec)):
        few = setting.selection.take(few_rows(setting.selection, setting))
        groups = setting.groups[few_rows(setting.selection, setting)]
        falls = []
        for number in range(len(setting.layers)):
            step, reducer = silencing(setting, number, silenced, groups=groups)
            one = sweep(setting.subject, few, step, reducer, run=setting.run, name=f"select-{number}")
            falls.append(one.answer)
        if not portioned:
            answers["logit_fall"] = _joined([fall["logit_fall"] for fall in falls])
    if portioned or silenced is None:
        return None
    tables = {name: Table.of(answer, parts=setting.parts) for name, answer in answers.items()}
    return Evidence(tables, silenced, first, residual)


def targets_of(setting: Setting) -> tuple[Target, ...]:
    """What the rules need gradients of."""
    return tuple(TARGETS[rule] for rule in setting.spec.rules if rule in TARGETS)


def looking(setting: Setting) -> tuple[Step, Reducer[dict[str, Any]]]:
    """One pass for all rules that need activations and gradients."""
    watched = watched_layers(setting)
    targets = targets_of(setting)
    step: Step = Gradients(watched, targets=targets) if targets else Observe(watched, measures=("mean",))
    many = len(setting.subject.classes) * setting.parts
    folds: dict[str, Reducer[Any]] = {"mean": ClassMoments("mean", classes=many)}
    for target in targets:
        folds[target] = ClassMoments(f"{'size' if target == 'loss' else 'pull'}/{target}", classes=many)
    return Grouped(step, setting.groups), Each(**folds, decisions=Decisions("logits", images=len(setting.selection)))


def walking(setting: Setting) -> tuple[Step, Reducer[dict[str, Any]]]:
    """The pass along the path from a baseline."""
    many = len(setting.subject.classes) * setting.parts
    folds: dict[str, Reducer[Any]] = {name: ClassMoments(name, classes=many) for name in ON_PATH}
    residual = StackRows("residual", images=len(setting.selection))
    step = AlongPath(setting.layers, steps=setting.spec.path_steps)
    return Grouped(step, setting.groups), Each(**folds, residual=residual)


def silencing(
    setting: Setting, number: int, means: Stats | None, *, groups: Int[np.ndarray, "n"] | None = None
) -> tuple[Step, Reducer[dict[str, Any]]]:
    """The pass that silences every unit of a layer alone; by class, or by the given groups."""
    where = setting.silenced[number]
    own = means.at(setting.places[number]) if means is not None else None
    step: Step = Ablate(where, fill=fill_for_labels(setting, own))
    many = len(setting.subject.classes)
    if groups is not None:
        step, many = Grouped(step, groups), many * setting.parts
    return step, Each(**{name: ClassMoments(name, classes=many) for name in FALLS})


def few_rows(data: Data, setting: Setting) -> Int[np.ndarray, "m"]:
    """The images on which units are silenced one by one, classes balanced; only those of the classes in question."""
    mine = np.flatnonzero(np.isin(data.labels, setting.classes))
    return mine[balanced_rows(data.labels[mine], limit=setting.spec.ablation_images, seed=setting.run.seed)]


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
