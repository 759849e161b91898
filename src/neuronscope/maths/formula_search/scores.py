"""How well a formula fits a unit: scores that are a linear form over another, and penalties for length.

Every score is a function of three numbers of a formula's mask: its area, its intersection with the unit's mask, and
the intersection that chance gives inside each image. All three are sums over signatures, so a score above t is a sum
above a number: that is what the search and its bounds use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from neuronscope.errors import InputError
from neuronscope.maths.formulas import Formula, satisfied
from neuronscope.maths.signatures import Signatures, UnitCounts

ScoreName = Literal["iou", "detection_accuracy", "activation_coverage", "imrou", "imrou_normalised"]
"""The scores there are."""


@dataclass(frozen=True)
class Measure:
    """What a score needs to know of a formula's mask.

    Attributes:
        area: pixels of the mask.
        intersection: of them, the active ones.
        chance: sum over its pixels of `UnitCounts.chance`'s numbers: the intersection by chance times `cells`.
    """

    area: float
    intersection: float
    chance: float


@dataclass(frozen=True)
class Form:
    """A score of one unit as a fraction of sums, 0 where the denominator is 0.

    `factor * (intersection + chance_share * chance) / (constant + per_area * area + per_intersection * intersection)`
    """

    factor: float
    chance_share: float
    constant: float
    per_area: float
    per_intersection: float

    def value(
        self, area: Float[np.ndarray, "*a"], intersection: Float[np.ndarray, "*a"], chance: Float[np.ndarray, "*a"]
    ) -> Float[np.ndarray, "*a"]:
        """The score of masks."""
        above = self.numerator(intersection, chance)
        below = self.constant + self.denominator(area, intersection)
        score: np.ndarray = self.factor * np.divide(above, below, out=np.zeros_like(above), where=below > 0)
        return score

    def single(self, area: float, intersection: float, chance: float) -> float:
        """The score of one mask."""
        one = (np.array([number], dtype=np.float64) for number in (area, intersection, chance))
        return float(self.value(*one)[0])

    def numerator(
        self, intersection: Float[np.ndarray, "*a"], chance: Float[np.ndarray, "*a"]
    ) -> Float[np.ndarray, "*a"]:
        """The part above the line: a sum over signatures."""
        return intersection + self.chance_share * chance if self.chance_share else intersection

    def denominator(
        self, area: Float[np.ndarray, "*a"], intersection: Float[np.ndarray, "*a"]
    ) -> Float[np.ndarray, "*a"]:
        """The part below the line without its constant: a sum over signatures, never below 0."""
        return self.per_area * area + self.per_intersection * intersection


@dataclass(frozen=True)
class Score:
    """A measure of fit, 0 to 1 (the last two can be negative); with N the unit's mask and L the formula's.

    - `iou`: intersection over union of all images together.
    - `detection_accuracy`: |N and L| / |L|, also called label coverage (Makinwa et al. 2021).
    - `activation_coverage`: |N and L| / |N|.
    - `imrou`: intersection minus `multiplier` times the intersection expected if both masks lay at random inside
      their own image, over the union (Harth 2022).
    - `imrou_normalised`: that over the score of a formula that equals the unit's mask.

    The originals add 1e-10 to the denominator; here a score without denominator is 0. All are certified by `certified`,
    which proves for `detection_accuracy` only what little it means: a formula of one active pixel is perfect.

    Attributes:
        name: which.
        multiplier: r of the last two, 0 to 1: 0 makes them IoU.
    """

    name: ScoreName = "iou"
    multiplier: float = 0.75

    def __post_init__(self) -> None:
        """Check the multiplier."""
        if not 0 <= self.multiplier <= 1:
            message = f"multiplier {self.multiplier} is outside 0 to 1. Give the share of chance to subtract, e.g. 0.75"
            raise InputError(message)

    def form(self, counts: UnitCounts) -> Form:
        """The score as a fraction of sums, for one unit."""
        area = float(counts.area)
        share = -self.multiplier / counts.cells if counts.cells else 0.0
        match self.name:
            case "iou":
                return Form(1.0, 0.0, area, 1.0, -1.0)
            case "detection_accuracy":
                return Form(1.0, 0.0, 0.0, 1.0, 0.0)
            case "activation_coverage":
                return Form(1.0, 0.0, area, 0.0, 0.0)
            case "imrou":
                return Form(1.0, share, area, 1.0, -1.0)
            case _:
                perfect = (area + share * counts.own_chance) / area if area else 0.0
                return Form(1 / perfect if perfect > 0 else 0.0, share, area, 1.0, -1.0)

    def of(self, measured: Measure, counts: UnitCounts) -> float:
        """The score of one mask."""
        return self.form(counts).single(measured.area, measured.intersection, measured.chance)


@dataclass(frozen=True)
class Penalty:
    """What a label more costs: the score is multiplied by `1 - rate * (length - 1)`, or by `rate^(length - 1)`.

    Attributes:
        form: "linear" as Harth (rate 0.001 there), "geometric" as Mu and Andreas (rate 1 there: no penalty).
        rate: see above.
    """

    form: Literal["linear", "geometric"] = "linear"
    rate: float = 0.0

    def __post_init__(self) -> None:
        """Check the rate."""
        if not 0 <= self.rate <= 1:
            message = f"a penalty rate of {self.rate} is outside 0 to 1. Give e.g. 0.001 (linear) or 0.99 (geometric)"
            raise InputError(message)

    def factor(self, length: int) -> float:
        """What a formula's score is multiplied by."""
        return max(0.0, 1 - self.rate * (length - 1)) if self.form == "linear" else self.rate ** (length - 1)


def measure(formula: Formula, signatures: Signatures, counts: UnitCounts) -> Measure:
    """A Boolean formula's area, intersection and chance."""
    holds = satisfied(formula, signatures)
    return Measure(
        float(signatures.weight[holds].sum()), float(counts.active[holds].sum()), float(counts.chance[holds].sum())
    )
