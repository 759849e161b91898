"""Which edited networks are tried on the report images: sub-networks kept and taken out, and random ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int8

from neuronscope.edits import Edit, drop, replace
from neuronscope.maths.controls import matched_sets
from neuronscope.maths.importance import LEAVE, OFF, ON
from neuronscope.steps import MaskGroup, Variant
from neuronscope.studies.importance.layers import Alone
from neuronscope.studies.importance.rules import Choice
from neuronscope.studies.importance.setting import Setting
from neuronscope.studies.importance.silence import fill_for_class, silence
from neuronscope.studies.importance.tables import Stats
from neuronscope.units import UnitSet

Kind = Literal["intact", "keep", "drop", "fix", "unfix", "random keep", "random drop"]
"""`keep`: only the sub-network; `drop`: all but it; `fix`: ON units held at their mean and OFF units silent, as masking
has it; `unfix`: all those units silenced."""


@dataclass(frozen=True)
class Case:
    """One edited network.

    Attributes:
        kind: what was done.
        rule: name of the rule that chose the units; empty for the untouched network and random sets.
        class_number: whose sub-network it is; of random sets under `other-mean` whose means fill in, else -1.
        sizes: units kept or silenced in each layer, which random sets have to match.
        draw: number of the random set.
        edits: what to do.
    """

    kind: Kind
    rule: str
    class_number: int
    sizes: tuple[int, ...]
    draw: int
    edits: Variant


def all_cases(
    setting: Setting, choices: Mapping[str, Choice], means: Stats, codes: Int8[np.ndarray, "u c"] | None
) -> list[Case]:
    """The untouched network, every class's sub-network by every rule, masking's fixed networks, and random sets."""
    cases = [Case("intact", "", -1, (), 0, ())]
    for rule, choice in choices.items():
        for c in setting.classes:
            members, rest = choice.members[:, c], choice.rest[:, c]
            cases.append(Case("keep", rule, c, sizes(setting, members), 0, silenced(setting, ~members, means, c)))
            cases.append(Case("drop", rule, c, sizes(setting, ~rest), 0, silenced(setting, ~rest, means, c)))
    if codes is not None:
        for c in setting.classes:
            fixed = codes[:, c] != LEAVE
            cases.append(Case("fix", "masking", c, sizes(setting, fixed), 0, held(setting, codes[:, c], means, c)))
            cases.append(Case("unfix", "masking", c, sizes(setting, fixed), 0, silenced(setting, fixed, means, c)))
    return [*cases, *(random_cases(setting, cases, means) if setting.spec.controls else ())]


def random_cases(setting: Setting, cases: Sequence[Case], means: Stats) -> list[Case]:
    """Random unit sets with as many units in every layer as each sub-network, drawn once for all of these sizes."""
    own = setting.spec.silence == "other-mean"
    wanted = dict.fromkeys(
        (case.kind, case.sizes, case.class_number if own else -1) for case in cases if case.kind in ("keep", "drop")
    )
    found = []
    sets: dict[tuple[int, ...], Bool[np.ndarray, "draws u"]] = {}
    for kind, counts, c in wanted:
        if counts not in sets:
            sets[counts] = random_members(setting, counts, draws=setting.spec.controls)
        for draw, members in enumerate(sets[counts]):
            gone = ~members if kind == "keep" else members
            chosen: Kind = "random keep" if kind == "keep" else "random drop"
            found.append(Case(chosen, "", c, counts, draw, silenced(setting, gone, means, max(c, 0))))
    return found


def random_members(setting: Setting, counts: tuple[int, ...], *, draws: int) -> Bool[np.ndarray, "draws u"]:
    """Random sets over all units with that many in each layer."""
    rng = setting.run.generator("importance", "controls", *map(str, counts))
    names = [layer.name for layer in setting.layers]
    drawn = matched_sets(
        dict(zip(names, counts, strict=True)),
        {layer.name: layer.units for layer in setting.layers},
        draws=draws,
        rng=rng,
    )
    return np.concatenate([drawn.masks[name] for name in names], axis=1)


def sizes(setting: Setting, members: Bool[np.ndarray, "u"]) -> tuple[int, ...]:
    """Members in each layer."""
    return tuple(int(members[place].sum()) for place in setting.places)


def silenced(setting: Setting, gone: Bool[np.ndarray, "u"], means: Stats, c: int) -> Variant:
    """The edits that silence units of all layers."""
    return tuple(
        silence(setting, UnitSet.from_mask(where.name, gone[place]), means.at(place), c)
        for place, where in zip(setting.places, setting.silenced, strict=True)
        if gone[place].any()
    )


def held(setting: Setting, codes: Int8[np.ndarray, "u"], means: Stats, c: int) -> Variant:
    """The masking rule's sub-network: ON units give their mean for the class (`force-on`: 1), OFF units give 0."""
    edits: list[Edit] = []
    for place, where in zip(setting.places, setting.silenced, strict=True):
        on = UnitSet.from_mask(where.name, codes[place] == ON)
        off = UnitSet.from_mask(where.name, codes[place] == OFF)
        if len(on):
            level = 1.0 if setting.has("force-on") else tuple(means.at(place).means[list(on.indices), c].tolist())
            edits.append(replace(on, level))
        if len(off):
            edits.append(drop(off))
    return tuple(edits)


@dataclass(frozen=True)
class LayerCase:
    """One set of units of a single layer silenced.

    Attributes:
        kind: `drop` the class's units, `keep` them alone, a point of a `deletion` or `insertion` curve, and each of
            these at random.
        rule: that ranked the units; empty at random.
        class_number: whose; -1 at random.
        step: place along a curve, from 0 to the number of steps.
        draw: number of the random set or order.
        count: units that a `drop` silences.
    """

    kind: Literal["drop", "keep", "deletion", "insertion"]
    rule: str
    class_number: int
    step: int = 0
    draw: int = -1
    count: int = 0


def layer_cases(
    setting: Setting, how: Alone, choices: Mapping[str, Choice], ranked: Mapping[str, np.ndarray], means: Stats
) -> tuple[list[LayerCase], tuple[MaskGroup, ...]]:
    """Everything tried on one layer alone, with the masks in the same order.

    Args:
        setting: the study's.
        how: which layer, and how many random sets.
        choices: rule -> chosen units.
        ranked: rule -> (u, c) units of this layer, most important first.
        means: of the layer's units where they are silenced.
    """
    number = how.number
    place, units = setting.places[number], setting.layers[number].units
    rng = setting.run.generator("importance", "layer controls", setting.layers[number].name)
    counts = sorted({int(choice.members[place, c].sum()) for choice in choices.values() for c in setting.classes})
    draws = {count: _random_sets(units, count, how.draws, rng) for count in counts}
    orders = [rng.permutation(units) for _ in range(setting.spec.controls)]
    cases: list[LayerCase] = []
    groups: list[MaskGroup] = []
    own = setting.spec.silence == "other-mean"
    for c in setting.classes:
        masks: list[np.ndarray] = []
        for rule, choice in choices.items():
            members = choice.members[place, c]
            cases += [LayerCase("drop", rule, c, count=int(members.sum())), LayerCase("keep", rule, c)]
            masks += [members, ~members]
            for kind, step, mask in _curve(ranked[rule][:, c], setting.spec.curves):
                cases.append(LayerCase(kind, rule, c, step))
                masks.append(mask)
        if own or c == setting.classes[0]:
            at = c if own else -1
            for count in counts:
                for draw, mask in enumerate(draws[count]):
                    cases.append(LayerCase("drop", f"random {count}", at, draw=draw))
                    masks.append(mask)
            for draw, order in enumerate(orders):
                for kind, step, mask in _curve(order, setting.spec.curves):
                    cases.append(LayerCase(kind, "random", at, step, draw))
                    masks.append(mask)
        groups.append(MaskGroup(np.stack(masks), fill_for_class(setting, means, c)))
    return cases, tuple(groups)


def _curve(
    order: np.ndarray, steps: int
) -> Iterable[tuple[Literal["deletion", "insertion"], int, Bool[np.ndarray, "u"]]]:
    """For each step the units that are gone when the best are taken out, and when only the best are put in."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    for step in range(steps + 1):
        taken = place < round(step * len(order) / steps)
        yield "deletion", step, taken
        yield "insertion", step, ~taken


def _random_sets(units: int, count: int, draws: int, rng: np.random.Generator) -> Bool[np.ndarray, "draws u"]:
    if not draws:
        return np.zeros((0, units), dtype=bool)
    return matched_sets({"": count}, {"": units}, draws=draws, rng=rng).masks[""]
