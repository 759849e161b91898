"""What a search found."""

from __future__ import annotations

from dataclasses import dataclass

from neuronscope.maths.formulas import Formula


@dataclass(frozen=True)
class Explanation:
    """A formula and how it fits.

    Attributes:
        formula: the formula.
        score: without the penalty for length.
        objective: with it: what the search maximises.
        length: labels.
        area: pixels of the formula over all images.
        intersection: of them, active ones.
    """

    formula: Formula
    score: float
    objective: float
    length: int
    area: int
    intersection: int


@dataclass(frozen=True)
class Certificate:
    """What is proved about formulas of few labels: left-deep, of OR, AND and AND NOT, over all labels.

    Attributes:
        length: labels of the formulas that the proof is about.
        optimal: no such formula has a higher objective (by more than a share of 1e-10, the room for rounding).
        gap: proved upper bound of the objective minus the best found; 0 exactly if optimal.
        completed: formulas of two labels whose completions were all worked out.
        left: those that bounds could not rule out and that time did not suffice for.
    """

    length: int
    optimal: bool
    gap: float
    completed: int
    left: int


@dataclass(frozen=True)
class Found:
    """The formulas found for a unit.

    Attributes:
        best: for each length from 1, the best formula of at most so many labels; None where none scores above 0, as
            for a unit that is never active.
        top: the best formulas whose masks differ, best first.
        choice: of `best`, the one that further labels do not improve by `minimum_gain` each.
        certificate: what is proved; None without a proof.
        beams: the formulas kept at each length, best first.
    """

    best: tuple[Explanation | None, ...]
    top: tuple[Explanation, ...]
    choice: Explanation | None
    certificate: Certificate | None
    beams: tuple[tuple[Explanation, ...], ...] = ()


def choice(best: tuple[Explanation | None, ...], *, minimum_gain: float) -> Explanation | None:
    """The shortest formula that longer ones do not beat by `minimum_gain` for each label more."""
    chosen: Explanation | None = None
    for one in best:
        if one is None:
            continue
        needed = 0.0 if chosen is None else minimum_gain * (one.length - chosen.length)
        if chosen is None or (one.objective > chosen.objective and one.objective >= chosen.objective + needed):
            chosen = one
    return chosen
