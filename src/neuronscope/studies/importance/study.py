"""Which units carry a class? Scored on some images, proven on others by switching them off.

The program this study comes from (seed: Neuron Analysis for CNNs) ranks and reports on the same test images, compares
lists of indices position by position and never looks at random units. Here selection and report are different samples,
every finding stands beside matched random unit sets, and silencing is done where a silenced unit is silent.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int8

from neuronscope.data.dataset import Data
from neuronscope.errors import InputError
from neuronscope.maths.importance import LEAVE
from neuronscope.maths.overlap import reuse_counts, reuse_kinds
from neuronscope.maths.streams import MomentsAnswer
from neuronscope.models.subject import Subject
from neuronscope.result import Provenance, Result, circumstances, peak_memory, unit_table, versions
from neuronscope.run import Run
from neuronscope.steps import Step
from neuronscope.studies.importance.connections import strongest
from neuronscope.studies.importance.evidence import Evidence, few_rows, gather, looking, silencing, walking, ON_PATH
from neuronscope.studies.importance.games import Played, play, scores_by_weights
from neuronscope.studies.importance.page import importance_page
from neuronscope.studies.importance.reuse import KINDS, class_reuse
from neuronscope.studies.importance.rules import HALVED, Choice, choose_units, masks, score_units
from neuronscope.studies.importance.setting import Setting, settle, usual_single_layers
from neuronscope.studies.importance.silence import needs_means
from neuronscope.studies.importance.single import layer_effects, unit_effects
from neuronscope.studies.importance.spec import RULES, ImportanceSpec, Rule
from neuronscope.studies.importance.variants import all_cases, layer_cases
from neuronscope.studies.importance.verify import masked_networks, subnetworks, try_layer, try_networks
from neuronscope.sweep import Plan, PlannedSweep, estimate, planned, sweep, unfinished

_SINGLE, _ABLATED = 1, 2  # layers at the end that are looked at alone, and unit by unit, unless others are asked for


def run_importance(
    subject: Subject, data: Data, spec: ImportanceSpec | None = None, *, run: Run | None = None
) -> Result:
    """Which units carry each class, and what becomes of the network without them.

    Args:
        subject: the network.
        data: labelled images: one part chooses units, the other is reported on (`report_data` gives other images).
        spec: options.
        run: seed, device, batch size, progress.

    Returns:
        Groups `units` (scores of every rule, members of the sub-networks, what silencing each unit alone costs),
        `subnetworks` (kept alone, taken out, beside random ones), `masking`, `layers` (one layer alone, and curves),
        `reuse` (classes that share units), `edges` (connections within the sub-networks).

    Raises:
        UnknownName: a layer, class or deviation that does not exist.
        InputError: a class without images, the same images for selection and report, images without labels.

    Example:
        >>> import neuronscope as ns
        >>> subject = ns.load_model("builtin:viewer-cnn", weights="random")
        >>> data = ns.load_data("digits", limit=80)
        >>> spec = ns.ImportanceSpec(layers=("fc_layers.2",), rules=("thresholding",), layer_controls=20)
        >>> result = ns.run_importance(subject, data, spec)
        >>> result.table["member"].sum("unit").to_numpy().tolist()[0][:3]
        [20, 20, 20]
    """
    started = time.perf_counter()
    setting = settle(subject, data, spec or ImportanceSpec(), run or Run())
    evidence = gather(setting)
    alone = ablations(setting, evidence)
    unfinished(setting.run)
    if evidence is None:
        message = "the study has no evidence although all of it was worked"
        raise AssertionError(message)
    tree = assemble(setting, evidence, alone)
    provenance = Provenance(
        study="importance",
        spec=_plain(asdict(setting.spec)),
        legacy=setting.spec.legacy,
        subject=setting.subject.name,
        subject_fingerprint=setting.subject.fingerprint,
        data=data.name,
        data_fingerprint=data.fingerprint,
        images=len(setting.selection) + (0 if setting.has("same-images") else len(setting.report)),
        skipped=evidence.seen.skipped,
        nonfinite=_nonfinite(setting, evidence),
        circumstances=circumstances(setting.run),
        versions=versions(),
        seconds=time.perf_counter() - started,
        peak_memory=peak_memory(),
    )
    return Result(tree, provenance, view=importance_page)


def ablations(setting: Setting, evidence: Evidence | None) -> dict[int, Mapping[str, MomentsAnswer]]:
    """Units of the chosen layers silenced one by one, on report images; empty for a portion that cannot know how."""
    if evidence is None and needs_means(setting.spec):
        return {}
    means = evidence.silenced if evidence is not None else None
    few = setting.report.take(few_rows(setting.report, setting))
    found = {}
    for number in ablated_layers(setting):
        step, reducer = silencing(setting, number, means)
        found[number] = sweep(setting.subject, few, step, reducer, run=setting.run, name=f"ablate-{number}").answer
    return found


def ablated_layers(setting: Setting) -> tuple[int, ...]:
    """Numbers of the layers whose units are silenced one by one.

    Raises:
        UnknownName: no such layer.
        InputError: a layer that is not among those of the study.
    """
    if setting.spec.ablate == ("none",):
        return ()
    if not setting.spec.ablate:
        return tuple(range(len(setting.layers)))[-_ABLATED:]
    wanted = setting.subject.select(*setting.spec.ablate)
    for layer in wanted:
        if layer not in setting.layers:
            message = (
                f"--ablate names '{layer.name}', which is not among the layers of the study "
                f"({', '.join(one.name for one in setting.layers)}). Name it in --layers too"
            )
            raise InputError(message)
    return tuple(number for number, layer in enumerate(setting.layers) if layer in wanted)


def assemble(
    setting: Setting, evidence: Evidence, alone: Mapping[int, Mapping[str, MomentsAnswer]]
) -> xr.DataTree:
    """Choose, verify, and put all groups of the result together."""
    played = play(setting, evidence.silenced) if "shapley" in setting.spec.rules else None
    scores = {rule: scored(setting, evidence, rule, played) for rule in dict.fromkeys(setting.spec.rules)}
    choices = {rule: choose_units(setting, evidence, scores, rule) for rule in scores}
    codes = masks(setting, evidence) if "masking" in scores else None
    cases = all_cases(setting, choices, evidence.silenced, codes)
    said = try_networks(setting, cases)
    groups: dict[str, xr.Dataset] = {"/subnetworks": subnetworks(setting, cases, said)}
    if codes is not None:
        groups["/masking"] = masked_networks(setting, cases, said, codes)
    groups["/layers"] = layers_alone(setting, evidence, scores, choices)
    primary = next(iter(scores))
    groups["/reuse"] = reused(setting, evidence, primary, choices[primary], codes)
    groups["/edges"] = strongest(setting, choices[primary].members, evidence.tables["mean"].over())
    groups["/units"] = units(setting, evidence, scores, choices, codes, alone, played)
    groups["/"] = xr.Dataset(attrs={})
    return xr.DataTree.from_dict(groups)


def scored(setting: Setting, evidence: Evidence, rule: Rule, played: Played | None) -> Float[np.ndarray, "u c"]:
    """Scores of any rule, for all classes of the network; nan for classes that a costly rule was not asked about."""
    if rule in HALVED:
        return score_units(setting, evidence, rule)
    table = np.full((sum(layer.units for layer in setting.layers), len(setting.subject.classes)), np.nan)
    if rule == "nisp":
        table[:] = scores_by_weights(setting)[:, None]
    elif played is not None:
        table[:, list(setting.classes)] = played.value[:, 1:]
    return table


def layers_alone(
    setting: Setting,
    evidence: Evidence,
    scores: Mapping[Rule, Float[np.ndarray, "u c"]],
    choices: Mapping[Rule, Choice],
) -> xr.Dataset:
    """The last layer by itself: many random controls, and curves."""
    found = {}
    for layer in usual_single_layers(setting.layers, many=_SINGLE):
        number = setting.layers.index(layer)
        place = setting.places[number]
        ranked = {
            rule: np.argsort(np.where(np.isnan(table[place]), np.inf, -table[place]), axis=0, kind="stable")
            for rule, table in scores.items()
        }
        cases, groups = layer_cases(setting, number, choices, ranked, evidence.silenced.at(place))
        found[number] = (cases, try_layer(setting, number, groups))
    return layer_effects(setting, tuple(scores), found)


def reused(
    setting: Setting,
    evidence: Evidence,
    rule: Rule,
    choice: Choice,
    codes: Int8[np.ndarray, "u c"] | None,
) -> xr.Dataset:
    """Reuse and specialisation under the first rule; under `positional-overlap` of masking's ON units too."""

    def again(half: Bool[np.ndarray, "parts"]) -> Bool[np.ndarray, "u c"]:
        table = {rule: score_units(setting, evidence, rule, parts=half)}
        return choose_units(setting, evidence, table, rule, parts=half).members

    return class_reuse(setting, choice.members, again if rule in HALVED else None)


def units(
    setting: Setting,
    evidence: Evidence,
    scores: Mapping[Rule, Float[np.ndarray, "u c"]],
    choices: Mapping[Rule, Choice],
    codes: Int8[np.ndarray, "u c"] | None,
    alone: Mapping[int, Mapping[str, MomentsAnswer]],
    played: Played | None,
) -> xr.Dataset:
    """One row per unit."""
    classes = list(setting.classes)
    stats = evidence.tables["mean"].over()
    members = next(iter(choices.values())).members[:, classes]
    kinds = np.array([KINDS.index(str(kind)) for place in setting.places for kind in reuse_kinds(members[place])])
    axes = ("unit", "rule", "class")
    variables: dict[str, tuple[tuple[str, ...], np.ndarray, str, str]] = {
        "score": (axes, _stacked({r: t[:, classes] for r, t in scores.items()}), "importance for the class", ""),
        "member": (
            axes,
            _stacked({r: c.members[:, classes].astype(np.int8) for r, c in choices.items()}),
            "1 where the rule puts the unit into the class's sub-network",
            "",
        ),
        "class_mean": (("unit", "class"), stats.means[:, classes], "mean activation for the class", ""),
        "reuse": (("unit",), reuse_counts(members), "classes whose sub-network the unit is in (first rule)", "classes"),
        "reuse_kind": (("unit",), kinds, f"0 to {len(KINDS) - 1}: {', '.join(KINDS)} (first rule)", ""),
    }
    if codes is not None:
        variables["mask"] = (("unit", "class"), codes[:, classes], "masking: 1 ON, 0 OFF, -1 left alone", "")
    if played is not None:
        variables["shapley_low"] = (("unit", "class"), played.low[:, 1:], "Shapley value, lower limit", "fraction")
        variables["shapley_high"] = (("unit", "class"), played.high[:, 1:], "Shapley value, upper limit", "fraction")
        variables["shapley_all"] = (("unit",), played.value[:, 0], "Shapley value for the whole accuracy", "fraction")
        variables["shapley_bias"] = (("unit",), played.bias, "largest error of ending walks early", "fraction")
    if alone:
        variables |= unit_effects(setting, alone)
    return unit_table(
        {layer.name: layer.units for layer in setting.layers},
        variables,
        **{"class": setting.class_names, "rule": tuple(scores)},
    )


def plan_importance(subject: Subject, data: Data, spec: ImportanceSpec | None = None, *, run: Run | None = None) -> Plan:
    """The sweeps `run_importance` will make, with passes, memory and time; unit by unit only the tail is run again."""
    setting = settle(subject, data, spec or ImportanceSpec(), run or Run())
    few = setting.report.take(few_rows(setting.report, setting))
    jobs: list[tuple[str, Data, Step, Any]] = [("select", setting.selection, *looking(setting))]
    if set(setting.spec.rules) & set(ON_PATH):
        jobs.append(("path", setting.selection, *walking(setting)))
    ...
    sweeps: list[tuple[PlannedSweep, Step]] = []
    for name, images, step, reducer in jobs:
        sweeps.append((planned(setting.subject, images, step, reducer, run=setting.run, name=name), step))
    return estimate(setting.subject, few, sweeps, run=setting.run)


def _stacked(tables: Mapping[Rule, np.ndarray]) -> np.ndarray:
    return np.stack(list(tables.values()), axis=1)


def _nonfinite(setting: Setting, evidence: Evidence) -> dict[str, tuple[int, ...]]:
    """Layer -> units whose mean activation is not a number although the class has images."""
    stats = evidence.tables["mean"].over()
    broken = (np.isnan(stats.means) & (stats.counts > 0)).any(axis=1)
    found = {
        layer.name: tuple(np.flatnonzero(broken[place]).tolist())
        for layer, place in zip(setting.layers, setting.places, strict=True)
    }
    return {name: numbers for name, numbers in found.items() if numbers}


def _plain(value: Any) -> Any:
    """Options as JSON knows them, so that they compare equal after saving."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
