"""What the study will do and take, before it does it: passes, memory and time, with networks and unit sets counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neuronscope.data.dataset import Data
from neuronscope.edits import drop
from neuronscope.maths.streams import Each, StackRows
from neuronscope.models.subject import Subject
from neuronscope.run import Run
from neuronscope.steps import MaskGroup, PredictMasked, PredictVariants
from neuronscope.studies.blocks import block_title
from neuronscope.studies.importance.evidence import (
    ON_PATH,
    few_rows,
    look_groups,
    looking,
    silencing,
    walk_groups,
    walking,
)
from neuronscope.studies.importance.games import game_images, response_features
from neuronscope.studies.importance.layers import ablated_layers, effort, single_layers
from neuronscope.studies.importance.setting import Setting, settle
from neuronscope.studies.importance.silence import needs_means
from neuronscope.studies.importance.spec import ImportanceSpec
from neuronscope.studies.importance.variants import random_members
from neuronscope.studies.importance.verify import NETWORKS_AT_ONCE
from neuronscope.sweep import Plan, PlannedSweep, planned, timed
from neuronscope.units import UnitSet

_PROBE_SETS = (8, 40)  # sets of units silenced to see how long one takes
_PROBE_NETWORKS = (8, 16)


def plan_importance(
    subject: Subject, data: Data, spec: ImportanceSpec | None = None, *, run: Run | None = None
) -> Plan:
    """The sweeps `run_importance` will make, with passes, memory and time.

    Random sets are counted once for each size, as when all classes' sub-networks have the same number of units; a rule
    that leaves units out needs some more. The games of the Shapley rule end when they are decided; they are counted to
    their end.
    """
    setting = settle(subject, data, spec or ImportanceSpec(), run or Run())
    return Plan(*_added([*_choosing(setting), *_reporting(setting)]))


Job = tuple[PlannedSweep, float]
"""A sweep and its seconds."""


def _choosing(setting: Setting) -> list[Job]:
    jobs: list[Job] = []
    for name, groups, make in (
        ("select", look_groups(setting), looking),
        ("path", walk_groups(setting) if set(setting.spec.rules) & set(ON_PATH) else [], walking),
    ):
        for number, group in enumerate(groups, start=1):
            step, reducer = make(setting, group)
            title = f"{name} {number} of {len(groups)}" if len(groups) > 1 else name
            title += f" ({block_title(group)})" if block_title(group) else ""
            one = planned(setting.subject, setting.selection, step, reducer, run=setting.run, name=title)
            jobs.append((one, one.images * timed(setting.subject, setting.selection, step, run=setting.run)))
    if "ablation" in setting.spec.rules:
        few = setting.selection.take(few_rows(setting.selection, setting))
        jobs += [_one_by_one(setting, few, number, "select") for number in range(len(setting.layers))]
    if "nisp" in setting.spec.rules:
        few, step, fold = response_features(setting)
        one = planned(setting.subject, few, step, fold, run=setting.run, name="features")
        jobs.append((one, one.images * timed(setting.subject, few, step, run=setting.run)))
    if "shapley" in setting.spec.rules:
        few = game_images(setting)
        for number, where in enumerate(setting.silenced):
            masks = setting.spec.shapley_permutations * where.units
            jobs.append(_many_sets(setting, few, number, masks, f"shapley {where.name}, at most"))
    return jobs


def _reporting(setting: Setting) -> list[Job]:
    spec, report = setting.spec, setting.report
    few = report.take(few_rows(report, setting))
    jobs = [_one_by_one(setting, few, number, "ablate") for number in ablated_layers(setting)]
    rules, classes = len(dict.fromkeys(spec.rules)), len(setting.classes)
    fixed = 2 * classes if "masking" in spec.rules else 0
    many = 1 + 2 * rules * classes + fixed + 2 * spec.controls * (classes if spec.silence == "other-mean" else 1)
    step = PredictVariants(
        tuple(dict.fromkeys(setting.silenced)), ((),) * min(many, NETWORKS_AT_ONCE), seed=setting.run.seed
    )
    fold = Each(predicted=StackRows("predicted", images=len(report)))
    one = planned(setting.subject, report, step, fold, run=setting.run, name=f"report: {many} edited networks")
    one = replace(one, forward=many * len(report))  # in sweeps of so many at once
    jobs.append((one, many * len(report) * _seconds_a_network(setting)))
    for number in single_layers(setting):
        own, how = classes if spec.silence == "other-mean" else 1, effort(setting, number)
        curve = 2 * (spec.curves + 1)
        sets = rules * classes * (2 + curve) + own * (how.draws + spec.controls * curve)
        name = f"report {setting.silenced[number].name} alone: {sets} sets of units"
        jobs.append(_many_sets(setting, report.take(how.rows), number, sets, name))
    return jobs


def _one_by_one(setting: Setting, images: Data, number: int, what: str) -> Job:
    """Every unit of a layer silenced alone: only the tail runs again, as a probe of a few sets shows."""
    setting = replace(setting, spec=replace(setting.spec, silence="zero")) if needs_means(setting.spec) else setting
    step, reducer = silencing(setting, number, None)
    where = setting.silenced[number]
    one = planned(
        setting.subject, images, step, reducer, run=setting.run, name=f"{what} {where.name}: {where.units} units"
    )
    return one, len(images) * where.units * _seconds_a_set(setting, images, number)


def _many_sets(setting: Setting, images: Data, number: int, sets: int, name: str) -> Job:
    where = setting.silenced[number]
    group = MaskGroup(np.zeros((sets, where.units), dtype=bool))
    step = PredictMasked(where, (group,))
    fold = Each(predicted=StackRows("predicted", images=len(images)))
    one = planned(setting.subject, images, step, fold, run=setting.run, name=name)
    return one, len(images) * sets * _seconds_a_set(setting, images, number)


def _seconds_a_set(setting: Setting, images: Data, number: int) -> float:
    """Seconds for an image and a set of silenced units: what more sets take than fewer."""
    where = setting.silenced[number]

    def probe(sets: int) -> float:
        masks = np.zeros((sets, where.units), dtype=bool)
        masks[np.arange(sets), np.arange(sets) % where.units] = True
        return timed(setting.subject, images, PredictMasked(where, (MaskGroup(masks),)), run=setting.run)

    few, more = (probe(sets) for sets in _PROBE_SETS)
    return max(more - few, 0.0) / (_PROBE_SETS[1] - _PROBE_SETS[0])


def _seconds_a_network(setting: Setting) -> float:
    """Seconds for an image and a sub-network taken out: what more networks take than fewer."""
    counts = tuple(max(1, round(setting.spec.budget * layer.units)) for layer in setting.layers)
    gone = random_members(setting, counts, draws=_PROBE_NETWORKS[1])
    variants = tuple(
        tuple(
            drop(UnitSet.from_mask(where.name, mask[place]))
            for place, where in zip(setting.places, setting.silenced, strict=True)
        )
        for mask in gone
    )

    def probe(networks: int) -> float:
        step = PredictVariants(tuple(dict.fromkeys(setting.silenced)), variants[:networks], seed=setting.run.seed)
        return timed(setting.subject, setting.report, step, run=setting.run)

    few, more = (probe(networks) for networks in _PROBE_NETWORKS)
    return max(more - few, 0.0) / (_PROBE_NETWORKS[1] - _PROBE_NETWORKS[0])


def _added(jobs: list[Job]) -> tuple[tuple[PlannedSweep, ...], float]:
    return tuple(one for one, _ in jobs), sum(seconds for _, seconds in jobs)
