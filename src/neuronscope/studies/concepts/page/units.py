"""All units and all concepts as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from neuronscope.errors import InputError
from neuronscope.maths.formulas import label_numbers, parse
from neuronscope.studies.concepts.page.view import View
from neuronscope.views import Block, Section, Table


@dataclass(frozen=True)
class _Column:
    """A column of the table of units that is a variable of the result.

    Attributes:
        variable: in the group `units`; without values there, the column is left out.
        form: format specification.
        explained: only of units with a formula.
    """

    name: str
    variable: str
    help: str
    form: str = ".3f"
    explained: bool = False


def units(view: View) -> Iterator[Block]:
    """Every unit once, the most important columns first."""
    yield Section("Units", "Every unit with its formula, how well it fits, and whether a better one can exist.")
    words = {1: "yes", 0: "not proved"}
    count = range(len(view.formulas))
    columns: dict[str, object] = {
        "layer": view.layer_of,
        "unit": view.index_of,
        "formula": [view.formulas[unit] or view.verdict(unit) for unit in count],
        "held-out IoU": view.get("held_out"),
    }
    meant = {
        "formula": "of the concepts; dead units have none",
        "held-out IoU": f"active {view.places_word} and {view.places_word} of the formula: both over either, "
        "on held-out images, 0 to 1",
    }
    formats = {"held-out IoU": ".4f"}

    def add(wanted: Iterable[_Column]) -> None:
        for one in wanted:
            values = view.find(one.variable)
            if values is not None or one.variable in ("null", "q"):
                values = view.get(one.variable) if values is None else values
                columns[one.name] = np.where(view.explained, values, np.nan) if one.explained else values
                meant[one.name], formats[one.name] = one.help, one.form

    add(_first(view))
    columns["verdict"] = [view.verdict(unit) for unit in count]
    meant["verdict"] = f"better than chance: {view.bound}"
    add(_middle(view))
    others = _alternatives(view)
    if others:
        columns["next best"] = others[0]
        meant["next best"] = f"the best formula with another mask, with its {view.score} on the images searched"
    add([_Column("margin", "margin", f"{view.score} by which the formula is ahead of the next best", ".4f")])
    columns["optimal"] = [
        words.get(int(one), "not asked") if own else ""
        for one, own in zip(view.get("optimal"), view.explained, strict=True)
    ]
    meant["optimal"] = f"proved: no formula of up to {view.proved_length} labels scores higher on the images searched"
    columns["gap"] = np.where(view.explained, view.get("gap"), np.nan)
    meant["gap"], formats["gap"] = "what a better formula could add to the score at most; 0 if optimal", ".4f"
    add(_last(view))
    for place, words_of in enumerate(others[1:], start=2):
        columns[f"next best, {place}"] = words_of
        meant[f"next best, {place}"] = "the one after that"
    columns["category"] = [str(name) for name in view.get("category")]
    meant["category"] = "of its concepts"
    yield Table(
        "units", "Units, best first", pd.DataFrame(columns), help=meant, formats=formats, preset="-held-out IoU"
    )


def _first(view: View) -> list[_Column]:
    """What tells how sure a formula is."""
    interval = f"{view.level:.0%} interval of the held-out IoU for images like these"
    judged = view.judged if view.judged != "IoU" else "the same"
    found = [
        _Column("low", "held_out_low", f"{interval}: lower end", ".4f"),
        _Column("high", "held_out_high", f"{interval}: upper end", ".4f"),
    ]
    if view.judged != "IoU":
        found.append(_Column(f"held-out {view.judged}", "report_score", "what q is about, on held-out images", ".4f"))
    return [
        *found,
        _Column(
            "null",
            "null",
            f"{judged} with the unit's masks laid over other images, mean of the draws",
            ".4f",
            explained=True,
        ),
        _Column(
            "q",
            "q",
            "of the held-out score against these draws (counted from 1,000 draws on, below that Student's t on their "
            "mean and spread), false discovery rate over all units",
        ),
    ]


def _middle(view: View) -> list[_Column]:
    """Other measures of the fit."""
    return [
        _Column("AUROC", "auroc", "chance that a position with the formula is more active than one without; 0.5: none"),
        _Column(
            "correlation", "correlation", "of activation and formula over positions of held-out images, \u22121 to 1"
        ),
        _Column("score", "score", f"{view.score} on the images searched", ".4f"),
        _Column("length", "formula_length", "concepts of the formula", "d"),
        _Column("shared by", "shared_by", "units of the layer, itself included, whose formula says the same", "d"),
        _Column(
            "detection accuracy",
            "detection_accuracy",
            f"share of the formula's {view.places_word} where the unit is active, held-out images, 0 to 1",
        ),
        _Column(
            "activation coverage",
            "activation_coverage",
            f"share of the active {view.places_word} that the formula covers, held-out images, 0 to 1",
        ),
        _Column(
            "samples coverage",
            "samples_coverage",
            "of the held-out images with the formula: share where the unit is active on it, 0 to 1",
        ),
        _Column(
            "explanation coverage",
            "explanation_coverage",
            "of the held-out images where the unit is active: share where the formula covers some of that, 0 to 1",
        ),
    ]


def _last(view: View) -> list[_Column]:
    """What is seldom asked for."""
    return [
        _Column("correlation low", "correlation_low", f"{view.level:.0%} interval of the correlation: lower end"),
        _Column("correlation high", "correlation_high", "upper end"),
        _Column("AUROC low", "auroc_low", f"{view.level:.0%} interval of the AUROC: lower end"),
        _Column("AUROC high", "auroc_high", "upper end"),
        _Column(
            "formula's share", "formula_share", f"share of all held-out {view.places_word} the formula covers", ".4f"
        ),
    ]


def _alternatives(view: View) -> list[list[str]]:
    """The next-best formulas of all units, rank by rank, each with its score."""
    formulas, scores = view.find("alternative_formula"), view.find("alternative_score")
    if formulas is None or formulas.ndim != 2:  # noqa: PLR2004 unit, rank
        return []
    found = []
    for rank in range(formulas.shape[1]):
        column = [str(words) for words in formulas[:, rank]]
        if scores is not None:
            column = [
                f"{words} {score:.4f}" if words else "" for words, score in zip(column, scores[:, rank], strict=True)
            ]
        if any(column):
            found.append(column)
    return found


def concepts(view: View) -> Iterator[Block]:
    """Every concept with what it covers and how often it is used."""
    table = view.concepts
    names = [str(name) for name in table["concept_name"].to_numpy()]
    numbers = table["number"].to_numpy()
    columns: dict[str, object] = {
        "concept": names,
        "category": [str(name) for name in table["category"].to_numpy()],
        view.places_word: table["pixels"].to_numpy(),
    }
    used = uses(view.formulas, dict(zip(numbers.tolist(), names, strict=True)))
    if used is not None:
        columns["units"] = np.array([used[int(number)] for number in numbers])
    empty = int((table["pixels"].to_numpy() == 0).sum())
    yield Table(
        "concepts",
        "Concepts",
        pd.DataFrame(columns),
        help={
            view.places_word: "of the concept's masks, all images",
            "units": "units with the concept in their formula, also where it is excluded (AND NOT)",
        },
        formats={view.places_word: ","},
        preset="-units" if used is not None else f"-{view.places_word}",
        text=f"{empty:,} concepts are in no image and in no formula." if empty else "",
    )


def uses(formulas: Iterable[str], names: dict[int, str]) -> Counter[int] | None:
    """How many formulas have each label; None where names do not tell labels apart.

    Args:
        formulas: in words, as `maths.formulas.text` writes them; empty ones do not count.
        names: name of each label number.

    Example:
        >>> sorted(uses(["(sky OR sea) AND NOT blue", "sea", ""], {1: "sea", 2: "sky", 3: "blue"}).items())
        [(1, 2), (2, 1), (3, 1)]
    """
    if len(set(names.values())) < len(names):
        return None
    found: Counter[int] = Counter()
    for words, times in Counter(words for words in formulas if words).items():
        try:
            formula = parse(words, names)
        except InputError:  # a name that reads like an operator
            return None
        if formula is not None:
            for number in set(label_numbers(formula)):
                found[number] += times
    return found
