"""The settings of a search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from neuronscope.errors import InputError
from neuronscope.maths.formula_search.scores import Penalty, Score

CERTIFIED_LENGTH = 3
"""Labels up to which the optimum can be proved."""

Operator = Literal["or", "and", "and-not"]
"""The Boolean operators."""

OPERATORS: tuple[Operator, ...] = ("or", "and", "and-not")
"""All of them, in the order of the original."""


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """How to search for a formula.

    Attributes:
        score: what to maximise.
        length: labels of the longest formula.
        beam: formulas kept from one length to the next.
        candidates: labels that formulas may be extended by, best first; None for all.
        penalty: what length costs.
        operators: which ones formulas are made of; pairs and proofs need all three.
        terms: what is appended: "labels", or also "pairs", `F OR (X AND Z)` and `F AND NOT (X AND Z)`, which single
            labels cannot build up when `X AND Z` alone is a poor formula.
        top: formulas to report, with distinct masks, best first.
        minimum_gain: score that a label more must add for a longer formula to be chosen (`Found.choice`).
        legacy: "compexp" keeps duplicates and breaks ties by the order of insertion, as the original did.
        certify: "optimum" proves the best formula of up to three labels and starts longer ones from it.
        seconds: time after which a proof stops with the gap that is left; None for no limit.
    """

    score: Score = field(default_factory=Score)
    length: int = 3
    beam: int = 5
    candidates: int | None = None
    penalty: Penalty = field(default_factory=Penalty)
    operators: tuple[Operator, ...] = OPERATORS
    terms: Literal["labels", "pairs"] = "labels"
    top: int = 1
    minimum_gain: float = 0.0
    legacy: Literal["none", "compexp"] = "none"
    certify: Literal["none", "optimum"] = "none"
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Check the counts, and that the original's search is asked for nothing it did not have."""
        for name, number in (("length", self.length), ("beam", self.beam), ("top", self.top)):
            if number < 1:
                message = f"{name} is {number}, at least 1 is needed. Leave it out for the default"
                raise InputError(message)
        if self.candidates is not None and self.candidates < 1:
            message = f"candidates is {self.candidates}, at least 1 is needed. None takes every label"
            raise InputError(message)
        if self.legacy != "none" and (self.terms != "labels" or self.certify != "none" or self.top > self.beam):
            message = (
                f"legacy '{self.legacy}' came with terms '{self.terms}', certify '{self.certify}', top {self.top}: the "
                "original appends labels only, proves nothing and keeps its beam. Drop `legacy`, or these"
            )
            raise InputError(message)
        if self.certify != "none" and self.candidates is not None:
            message = (
                f"certify '{self.certify}' came with candidates {self.candidates}: a proof is about all labels. "
                "Drop one of the two"
            )
            raise InputError(message)
        self._check_operators()

    def _check_operators(self) -> None:
        if not self.operators or len(set(self.operators)) < len(self.operators) or set(self.operators) - set(OPERATORS):
            message = (
                f"operators are {', '.join(self.operators) or 'none'}: expected some of {', '.join(OPERATORS)}, each "
                "once. WITH and CLOSE need a search over cells (`maths.word_search`)"
            )
            raise InputError(message)
        if len(self.operators) < len(OPERATORS) and (self.terms != "labels" or self.certify != "none"):
            message = (
                f"operators {', '.join(self.operators)} came with terms '{self.terms}', certify '{self.certify}': "
                f"proofs and pairs are about formulas of {', '.join(OPERATORS)}. Leave `operators` out, or these"
            )
            raise InputError(message)
