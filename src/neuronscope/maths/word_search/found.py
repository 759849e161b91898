"""What a search over cells found, and where one goes on."""

from __future__ import annotations

from dataclasses import dataclass

from neuronscope.maths.formula_search import Explanation, Found
from neuronscope.maths.formulas import Formula


@dataclass(frozen=True)
class WordExplanation(Explanation):
    """A formula and how it fits; areas are cells.

    Attributes:
        threshold: the unit's threshold that the scores are about.
    """

    threshold: float


@dataclass(frozen=True)
class WordFound(Found):
    """The formulas found for a unit, and what the search knew on its way; nothing is proved.

    Attributes:
        best: as in `Found`.
        top: as in `Found`.
        choice: as in `Found`.
        beams: the formulas kept at each length from 1 (or from that of the start), best first: as many as the beam
            has, or as are to be reported if that is more.
        candidates: the labels that formulas were extended by; all of them without a limit.
    """

    best: tuple[WordExplanation | None, ...]
    top: tuple[WordExplanation, ...]
    choice: WordExplanation | None
    beams: tuple[tuple[WordExplanation, ...], ...] = ()
    candidates: tuple[Formula, ...] = ()


@dataclass(frozen=True)
class Start:
    """Where an earlier search stood: the next one goes on to greater lengths (the original's jumpstart).

    Attributes:
        candidates: labels that formulas are extended by; none to choose them anew.
        beam: the formulas kept, best first. Their scores are worked out anew.
        length: the length at which they were kept.
        thresholds: the unit's threshold of each formula; none for its own.
    """

    candidates: tuple[Formula, ...]
    beam: tuple[Formula, ...]
    length: int
    thresholds: tuple[float, ...] = ()
