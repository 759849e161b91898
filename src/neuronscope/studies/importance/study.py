"""Which units carry a class? Scored on some images, proven on others by switching them off.

The program this study comes from (seed: Neuron Analysis for CNNs) ranks and reports on the same test images, compares
lists of indices position by position and never looks at random units. Here selection and report are different samples,
every finding stands beside matched random unit sets, and silencing is done where a silenced unit is silent.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int8

from neuronscope.data.dataset import Data
from neuronscope.maths.importance import ON
from neuronscope.maths.overlap import reuse_counts, reuse_kinds
from neuronscope.maths.streams import MomentsAnswer
from neuronscope.models.subject import Subject
from neuronscope.result import Provenance, Result, circumstances, peak_memory, unit_table, versions
from neuronscope.run import Run
from neuronscope.studies.importance.connections import strongest
from neuronscope.studies.importance.evidence import Evidence, few_rows, gather, silencing
from neuronscope.studies.importance.games import Played, play, scores_by_weights
from neuronscope.studies.importance.layers import ablated_layers, effort, single_layers
from neuronscope.studies.importance.page import importance_page
from neuronscope.studies.importance.reuse import KINDS, class_reuse
from neuronscope.studies.importance.rules import HALVED, Choice, choose_units, masks, score_units
from neuronscope.studies.importance.setting import Setting, settle
from neuronscope.studies.importance.silence import needs_means
from neuronscope.studies.importance.single import layer_effects, unit_effects
from neuronscope.studies.importance.spec import ImportanceSpec, Rule
from neuronscope.studies.importance.variants import all_cases, layer_cases
from neuronscope.studies.importance.verify import masked_networks, subnetworks, try_layer, try_networks
from neuronscope.sweep import sweep, unfinished


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
    tree, unread = assemble(setting, evidence, alone)
    provenance = Provenance(
        study="importance",
        spec=asdict(setting.spec),
        legacy=setting.spec.legacy,
        subject=setting.subject.name,
        subject_fingerprint=setting.subject.fingerprint,
        data=data.name,
        data_fingerprint=data.fingerprint,
        images=len(setting.selection) + (0 if setting.has("same-images") else len(setting.report)),
        skipped=_skipped(setting, evidence.seen.skipped, unread),
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
    found: dict[int, Mapping[str, MomentsAnswer]] = {}
    for number in ablated_layers(setting):
        step, reducer = silencing(setting, number, means)
        found[number] = sweep(setting.subject, few, step, reducer, run=setting.run, name=f"ablate-{number}").answer
    return found


@dataclass(frozen=True)
class Found:
    """What the selection images have decided.

    Attributes:
        scores: rule -> importance of every unit for every class of the network.
        choices: rule -> the units of each class's sub-network.
        codes: the masking rule's ON and OFF units, where it was asked.
        played: Shapley values, where they were asked for.
    """

    scores: Mapping[str, Float[np.ndarray, "u c"]]
    choices: Mapping[str, Choice]
    codes: Int8[np.ndarray, "u c"] | None
    played: Played | None

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules in the order asked for."""
        return tuple(self.scores)


def decide(setting: Setting, evidence: Evidence) -> Found:
    """Scores and choices of all rules."""
    played = play(setting, evidence.silenced) if "shapley" in setting.spec.rules else None
    rules = tuple(dict.fromkeys(setting.spec.rules))
    scores: dict[str, np.ndarray] = {rule: scored(setting, evidence, rule, played) for rule in rules}
    choices: dict[str, Choice] = {rule: choose_units(setting, evidence, scores[rule], rule) for rule in rules}
    return Found(scores, choices, masks(setting, evidence) if "masking" in rules else None, played)


def assemble(
    setting: Setting, evidence: Evidence, alone: Mapping[int, Mapping[str, MomentsAnswer]]
) -> tuple[xr.DataTree, tuple[tuple[int, str], ...]]:
    """Choose, verify, and put all groups of the result together; and the report images that could not be read."""
    found = decide(setting, evidence)
    cases = all_cases(setting, found.choices, evidence.silenced, found.codes)
    said = try_networks(setting, cases)
    groups: dict[str, xr.Dataset] = {"/": xr.Dataset(), "/subnetworks": subnetworks(setting, cases, said)}
    if found.codes is not None:
        groups["/masking"] = masked_networks(setting, cases, said, found.codes)
    if single_layers(setting):
        groups["/layers"] = layers_alone(setting, evidence, found)
    first = found.choices[found.rules[0]]
    groups["/reuse"] = reused(setting, evidence, found)
    groups["/edges"] = strongest(setting, first.members, evidence.tables["mean"].over())
    groups["/network"] = network(setting, evidence, found)
    groups["/units"] = units(setting, evidence, found, alone)
    return xr.DataTree.from_dict(groups), said.skipped


def network(setting: Setting, evidence: Evidence, found: Found) -> xr.Dataset:
    """One row per layer: its size, where its units are silenced, and which layers skip connections tie to it."""
    tied = np.full(len(setting.layers), -1)
    for number, group in enumerate(setting.coupled):
        tied[list(group)] = number
    variables: dict[str, tuple[tuple[str, ...], Any]] = {
        "units": (("layer",), np.array([layer.units for layer in setting.layers])),
        "coupled": (("layer",), tied),
        "path_residual": ((), np.array(evidence.residual)),
        "selection_images": ((), np.array(int((setting.selection.labels >= 0).sum()))),
    }
    if found.played is not None:
        variables |= {
            "shapley_evaluations": (("layer",), np.array(found.played.evaluations)),
            "shapley_plain": (("layer",), np.array(found.played.plain)),
            "shapley_settled": (("layer",), np.array(found.played.settled).astype(np.int8)),
        }
    texts = {
        "layer_name": [layer.name for layer in setting.layers],
        "kind": [layer.kind for layer in setting.layers],
        "silenced_at": [where.name for where in setting.silenced],
    }
    coordinates = {name: ("layer", np.array(values, dtype=object)) for name, values in texts.items()}
    return xr.Dataset(variables, coords=coordinates)


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


def layers_alone(setting: Setting, evidence: Evidence, found: Found) -> xr.Dataset:
    """Single layers: many random controls, and curves."""
    tried = {}
    for number in single_layers(setting):
        place, how = setting.places[number], effort(setting, number)
        ranked = {
            rule: np.argsort(np.where(np.isnan(table[place]), np.inf, -table[place]), axis=0, kind="stable")
            for rule, table in found.scores.items()
        }
        cases, groups = layer_cases(setting, how, found.choices, ranked, evidence.silenced.at(place))
        tried[number] = (how, cases, try_layer(setting, how, groups))
    return layer_effects(setting, found.rules, tried)


def reused(setting: Setting, evidence: Evidence, found: Found) -> xr.Dataset:
    """Reuse and specialisation under the first rule, and of the units that masking calls ON."""
    rule = setting.spec.rules[0]

    def again(half: Bool[np.ndarray, "parts"]) -> Bool[np.ndarray, "u c"]:
        scores = score_units(setting, evidence, rule, parts=half)
        return choose_units(setting, evidence, scores, rule, parts=half).members

    def held(half: Bool[np.ndarray, "parts"]) -> Bool[np.ndarray, "u c"]:
        return np.asarray(masks(setting, evidence, parts=half) == ON)

    return class_reuse(
        setting,
        found.choices[rule].members,
        again if rule in HALVED else None,
        on_from=held if found.codes is not None else None,
    )


def units(
    setting: Setting, evidence: Evidence, found: Found, alone: Mapping[int, Mapping[str, MomentsAnswer]]
) -> xr.Dataset:
    """One row per unit."""
    scores, choices, codes, played = found.scores, found.choices, found.codes, found.played
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
    variables |= best_scores(next(iter(scores.values()))[:, classes])
    if alone:
        effects = unit_effects(setting, alone)
        variables |= effects | largest_falls(
            *(effects[name][1] for name in ("accuracy_fall", "logit_fall", "accuracy_fall_q"))
        )
    return unit_table(
        {layer.name: layer.units for layer in setting.layers},
        variables,
        **{"class": setting.class_names, "rule": tuple(scores)},
    )


def best_scores(scores: Float[np.ndarray, "u k"]) -> dict[str, tuple[tuple[str, ...], np.ndarray, str, str]]:
    """For which class each unit is most important, in one number for each unit."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    defined = ~np.isnan(scores).all(axis=1)
    best = np.where(defined, known.argmax(axis=1), -1)
    meaning = "place among the classes of the largest score (first rule); -1: no score is defined"
    return {
        "best_class": (("unit",), best, meaning, ""),
        "best_score": (("unit",), np.where(defined, known.max(axis=1), np.nan), "largest score (first rule)", ""),
    }


def largest_falls(
    accuracy: Float[np.ndarray, "u k"], logit: Float[np.ndarray, "u k"], q: Float[np.ndarray, "u k"]
) -> dict[str, tuple[tuple[str, ...], np.ndarray, str, str]]:
    """Which class suffers most when a unit alone is silenced: the max-class drop of Morcos (2018) and Zhou (2018).

    Of classes whose accuracies fall alike, as many do not fall at all, it is the one whose logit falls most. The class
    is chosen by its fall, so the fall is larger than new images would show; the q-value is of a family of all units and
    classes, and allows for the choice.

    Args:
        accuracy: fall of each class's accuracy; nan for units that were not silenced.
        logit: fall of each class's logit.
        q: of the accuracies.
    """
    tried = ~np.isnan(accuracy).all(axis=1)
    most = np.where(np.isnan(accuracy), -np.inf, accuracy)
    worst = np.where(most == most.max(axis=1, keepdims=True), np.nan_to_num(logit, nan=-np.inf), -np.inf).argmax(axis=1)
    rows = np.arange(len(accuracy))
    which = "when it alone is silenced, of the class that falls most"
    return {
        "largest_fall": (("unit",), accuracy[rows, worst], f"fall of the accuracy {which}", "fraction"),
        "largest_fall_class": (
            ("unit",),
            np.where(tried, worst, -1),
            "place among the classes of the largest fall of the accuracy; -1: the unit was not silenced",
            "",
        ),
        "largest_fall_q": (("unit",), np.where(tried, q[rows, worst], np.nan), f"q-value of the fall {which}", ""),
    }


def _stacked(tables: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.stack(list(tables.values()), axis=1)


def _skipped(
    setting: Setting, selection: tuple[tuple[int, str], ...], report: tuple[tuple[int, str], ...]
) -> tuple[tuple[int, str], ...]:
    """Row in the data given, and cause, of each image left out, whichever sample it was to be in."""
    own, other = setting.rows
    found = [(int(own[row]), cause) for row, cause in selection] + [(int(other[row]), cause) for row, cause in report]
    return tuple(dict.fromkeys(found))


def _nonfinite(setting: Setting, evidence: Evidence) -> dict[str, tuple[int, ...]]:
    """Layer -> units whose mean activation is not a number although the class has images."""
    stats = evidence.tables["mean"].over()
    broken = (np.isnan(stats.means) & (stats.counts > 0)).any(axis=1)
    found = {
        layer.name: tuple(np.flatnonzero(broken[place]).tolist())
        for layer, place in zip(setting.layers, setting.places, strict=True)
    }
    return {name: numbers for name, numbers in found.items() if numbers}
