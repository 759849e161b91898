"""The settings of a search over cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from neuronscope.errors import InputError
from neuronscope.maths.formula_search import Penalty, Score

Operator = Literal["or", "and", "and-not", "with", "close"]
"""The operators there are; CLOSE TO comes with CLOSE."""

OPERATORS: tuple[Operator, ...] = ("or", "and", "and-not", "with", "close")
"""In the order of the original."""


@dataclass(frozen=True, kw_only=True)
class WordSearchSpec:
    """How to search for a formula over cells.

    Attributes:
        score: what to maximise.
        length: labels of the longest formula.
        beam: formulas kept from one length to the next.
        candidates: labels (expanded copies count) that formulas may be extended by, best first; None for all.
        penalty: what length costs.
        operators: which ones formulas are made of.
        expansions: whether expanded labels may stand in formulas, where the concepts have them.
        least_coverage: formulas that cover less than this share of all cells are left out.
        abort_images: formulas of CLOSE and CLOSE TO are first scored on so many images; 0 for no such test.
        abort_share: they are left out if that score is below this share of the worst objective in a full beam.
        minimum_gain: score that a label more must add for a longer formula to be chosen (`Found.choice`).
        top: formulas to report, with distinct masks, best first.
        thresholds: "dynamic" moves the unit's threshold with the formula (Harth's option, off by default there too;
            with IoU thresholds become very low).
        threshold_step: step of the threshold.
        threshold_update: "immediately" moves the threshold of every formula that is looked at, "after" of those kept.
        legacy: "indres" is the original search (Harth 2022): see `search`.
    """

    score: Score = field(default_factory=Score)
    length: int = 3
    beam: int = 4
    candidates: int | None = None
    penalty: Penalty = field(default_factory=Penalty)
    operators: tuple[Operator, ...] = OPERATORS
    expansions: bool = True
    least_coverage: float = 0.0
    abort_images: int = 0
    abort_share: float = 0.5
    minimum_gain: float = 0.0
    top: int = 1
    thresholds: Literal["static", "dynamic"] = "static"
    threshold_step: float = 0.1
    threshold_update: Literal["immediately", "after"] = "immediately"
    legacy: Literal["none", "indres"] = "none"

    def __post_init__(self) -> None:
        """Check counts, shares and operators."""
        for name, number in (("length", self.length), ("beam", self.beam), ("top", self.top)):
            if number < 1:
                message = f"{name} is {number}, at least 1 is needed. Leave it out for the default"
                raise InputError(message)
        if self.candidates is not None and self.candidates < 1:
            message = f"candidates is {self.candidates}, at least 1 is needed. None takes every label"
            raise InputError(message)
        for name, share in (("least_coverage", self.least_coverage), ("abort_share", self.abort_share)):
            if not 0 <= share <= 1:
                message = f"{name} is {share}: expected a share from 0 to 1"
                raise InputError(message)
        if self.abort_images < 0:
            message = f"abort_images is {self.abort_images}: expected a number of images. 0 turns the test off"
            raise InputError(message)
        if self.threshold_step <= 0:
            message = f"threshold_step is {self.threshold_step}: expected a step above 0, such as 0.1"
            raise InputError(message)
        if self.legacy != "none" and self.top > self.beam:
            message = (
                f"legacy '{self.legacy}' came with top {self.top} and beam {self.beam}: the original keeps its beam "
                "and nothing else. Ask for as many as the beam has, or drop `legacy`"
            )
            raise InputError(message)
        self._check_operators()

    def _check_operators(self) -> None:
        if not self.operators or len(set(self.operators)) < len(self.operators):
            message = (
                f"operators are {', '.join(self.operators) or 'none'}: expected some of {', '.join(OPERATORS)}, each "
                "once. Leave them out for all"
            )
            raise InputError(message)


INDRES = WordSearchSpec(
    score=Score("imrou_normalised", 0.75),
    candidates=50,
    penalty=Penalty("linear", 0.001),
    least_coverage=1e-4,
    abort_images=4000,
    legacy="indres",
)
"""The settings of Harth 2022; formulas of the paper have up to 10 labels."""
