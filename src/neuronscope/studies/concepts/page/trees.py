"""Formulas as trees: operators inside, concepts at the ends, and what each part is worth on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from neuronscope.maths.formulas import (
    And,
    AndNot,
    Close,
    CloseTo,
    Expanded,
    Formula,
    Key,
    Label,
    Or,
    With,
    key,
    operands,
)
from neuronscope.studies.concepts.page.view import View
from neuronscope.views import Axis, Network, NetworkColumn, NetworkLinks

_WORDS = {Or: "OR", And: "AND", AndNot: "AND NOT", With: "WITH", Close: "CLOSE", CloseTo: "CLOSE TO"}
_SHORTEST = 0.0005  # share of all pixels below which it is written with another digit


@dataclass
class _Level:
    """Nodes of one depth with the places of what they hang on."""

    names: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    excluded: list[bool] = field(default_factory=list)


def formula_trees(view: View, units: Sequence[int], *, name: str, title: str) -> Network | None:
    """The formulas of some units, one tree below the other; None where none can be read.

    Scores of parts come from the group `tree` (unit, node; nodes from the root, parts left to right, each before what
    comes after it) where a result has one: `held_out` or else `score`. Otherwise the parts that are themselves the best
    formula of a shorter length have that length's score, and the whole has its own.
    """
    levels = [_Level()]
    stored, meaning = _stored(view)
    total = _total(view)
    for unit in units:
        formula = view.read(view.formulas[unit])
        if formula is None:
            continue
        scores = _by_formula(view, unit) if stored is None else {}
        nodes = iter([] if stored is None else stored[unit].tolist())
        said = "" if view.told[unit] or not view.tested[unit] else " not told from chance"
        levels[0].names.append(f"unit {view.index_of[unit]}{said}")
        levels[0].values.append(float("nan"))
        stack: list[tuple[Formula, int, int, bool]] = [(formula, 1, len(levels[0].names) - 1, False)]
        while stack:
            part, depth, owner, excluded = stack.pop()
            value = next(nodes, float("nan")) if stored is not None else scores.get(key(part), float("nan"))
            while len(levels) <= depth:
                levels.append(_Level())
            level = levels[depth]
            level.names.append(_named(view, part, total))
            level.values.append(value if 0 <= value <= 1 else float("nan"))
            level.owners.append(owner)
            level.excluded.append(excluded)
            below = [(one, isinstance(part, AndNot) and i == 1) for i, one in enumerate(operands(part))]
            stack += [(one, depth + 1, len(level.names) - 1, out) for one, out in reversed(below)]
    if len(levels) == 1:
        return None
    columns = [
        NetworkColumn("unit" if not i else f"depth {i}", tuple(level.names), np.array(level.values))
        for i, level in enumerate(levels)
    ]
    links = [
        NetworkLinks(
            np.array(level.owners), np.arange(len(level.owners)), np.where(np.array(level.excluded), -1.0, 1.0)
        )
        for level in levels[1:]
    ]
    text = "Read from right to left: operators join what hangs on them, from top to bottom. Dashed: excluded (NOT). "
    text += f"Numbers in boxes and after concepts: {meaning}, of that part alone. " if _any(columns) else ""
    text += f"In brackets: share of all {view.places_word} that carry the concept." if total else ""
    if any("-X" in one for level in levels for one in level.names):
        text += " name-X: a concept enlarged by the cells around it."
    return Network(
        name, title, tuple(columns), tuple(links), text=text, value=Axis(meaning), weight=Axis("branch"), form="tree"
    )


def _any(columns: Sequence[NetworkColumn]) -> bool:
    return any(one.values is not None and np.isfinite(one.values).any() for one in columns)


def _stored(view: View) -> tuple[np.ndarray | None, str]:
    """Scores of parts that the result holds, and what they are."""
    for variable, meaning in (
        ("held_out", "IoU on held-out images"),
        ("score", f"{view.score} on the images searched"),
    ):
        values = view.find(variable, group="tree")
        if values is not None and len(values) == len(view.formulas):
            return values, meaning
    return None, f"{view.score} on the images searched"


def _by_formula(view: View, unit: int) -> dict[Key, float]:
    """Scores of the formulas that are known for a unit: the best of each length, and the chosen one."""
    found: dict[Key, float] = {}
    best, scores = view.find("best_formula"), view.get("best_score")
    for place, words in enumerate([] if best is None else best[unit].tolist()):
        formula = view.read(str(words))
        if formula is not None:
            found.setdefault(key(formula), float(scores[unit, place]))
    whole = view.read(view.formulas[unit])
    if whole is not None:
        found[key(whole)] = float(view.get("score")[unit])
    return found


def _total(view: View) -> int:
    """Pixels or cells of all images; 0 where the result does not tell."""
    if view.cards is None or "active" not in view.cards or view.has("same-images"):
        return 0
    images = int(view.concepts["images_searched"]) + int(view.concepts["images_reported"])
    return images * int(np.prod(view.cards["active"].shape[2:]))


def _named(view: View, part: Formula, total: int) -> str:
    """A node's word: the operator, or the concept with its share of all pixels."""
    if isinstance(part, Expanded):
        return f"{view.names[part.number]}-X"
    if not isinstance(part, Label):
        return _WORDS[type(part)]
    if not total:
        return view.names[part.number]
    share = view.areas[part.number] / total
    return f"{view.names[part.number]} ({share:{'.1%' if share >= _SHORTEST else '.2g'}})"
