"""What an augmentation is: parameters with ranges, and a function that applies them to a batch of images.

Parameters are drawn apart from their application. A design draws numbers from 0 to 1, `decoded` makes parameter values
of them, `severity` moves values towards the ones that change nothing, and `apply` takes one row of values for each
image. So the same augmentations serve any way of sampling. Nothing here draws anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from neuronscope.errors import InputError
from neuronscope.preprocessing import COLOUR

Kind = Literal["continuous", "integer"]
Colours = Literal["any", "rgb"]

Apply = Callable[[Tensor, Tensor], Tensor]
"""(images of shape (n, c, h, w), 0 to 1; parameter values of shape (n, p)) -> images of the same shape, 0 to 1."""


@dataclass(frozen=True)
class Parameter:
    """One number that an augmentation takes for each image.

    Attributes:
        name: unique within its augmentation, for example `angle`.
        low: least value.
        high: largest value if continuous; whole numbers stay below it.
        kind: `continuous` (`low` to `high`) or `integer` (`low <= k < high`).
        neutral: the value that changes nothing, such as 0 degrees; None for a parameter that is no strength but says
            where, or which way.
        unit: of measure, for example `pixels`; empty for a plain number.

    Raises:
        InputError: a range without values.
    """

    name: str
    low: float
    high: float
    kind: Kind = "continuous"
    neutral: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        """Refuse a range from which nothing can be drawn."""
        finite = math.isfinite(self.low) and math.isfinite(self.high)
        if not (finite and self.low < self.high):
            message = (
                f"parameter '{self.name}' has no range: expected finite ends, the lower first, got {self.low} to "
                f"{self.high}. Correct low and high"
            )
            raise InputError(message)
        if self.kind == "integer" and not (float(self.low).is_integer() and float(self.high).is_integer()):
            message = (
                f"parameter '{self.name}' is an integer, but its range is {self.low} to {self.high}: expected whole "
                "numbers. Round them, or make it continuous"
            )
            raise InputError(message)

    @property
    def last(self) -> float:
        """The largest value that can be drawn."""
        return self.high - 1 if self.kind == "integer" else self.high


@dataclass(frozen=True)
class Augmentation:
    """A change of images that a person would call small or irrelevant, with its parameters.

    Attributes:
        name: as in `rotation`.
        parameters: in the order in which `apply` takes them; none for a change that is there or not.
        apply: makes changed images; never changes its arguments. It enters the keys of checkpoints and travels to other
            processes: a frozen dataclass with `__call__`, or a function of a module.
        title: one line for people.
        colours: `rgb` if images of one channel cannot be changed by it.

    Raises:
        InputError: two parameters of one name.
    """

    name: str
    parameters: tuple[Parameter, ...]
    apply: Apply
    title: str
    colours: Colours = "any"

    def __post_init__(self) -> None:
        """Refuse names that name two things."""
        names = [parameter.name for parameter in self.parameters]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            message = (
                f"augmentation '{self.name}' has more than one parameter '{twice[0]}': expected different names, got "
                f"{', '.join(names)}. Rename one"
            )
            raise InputError(message)


def decoded(
    augmentation: Augmentation,
    unit: Float[np.ndarray, "n p"],
    *,
    integers: Literal["whole", "continuous"] = "whole",
) -> Float[np.ndarray, "n p"]:
    """Parameter values that numbers from 0 to 1 stand for, linear in them.

    Args:
        augmentation: whose parameters.
        unit: one column for each parameter, 0 to 1.
        integers: `whole` gives each whole number of an integer's range the same share of 0 to 1,
            `floor(low + u (high - low))`; `continuous` leaves `low + u (high - low)`, which the augmentations of this
            package then round, as the original does in its Sobol design (the two end values get other shares).

    Raises:
        InputError: columns that are not those of the parameters, or a number outside 0 to 1.

    Example:
        >>> shift = Augmentation("shift", (Parameter("rows", -2, 2, "integer"),), lambda images, _: images, "a shift")
        >>> decoded(shift, np.array([[0.0], [0.3], [0.999]])).tolist()
        [[-2.0], [-1.0], [1.0]]
    """
    _check_columns(augmentation, unit)
    outside = unit[~((unit >= 0) & (unit <= 1))]
    if outside.size:
        message = (
            f"the parameters of '{augmentation.name}' cannot be decoded: expected numbers from 0 to 1, got "
            f"{outside[0]:g}. Draw them uniformly from 0 to 1"
        )
        raise InputError(message)
    low, high = _ends(augmentation)
    values: Float[np.ndarray, "n p"] = low + unit.astype(np.float64) * (high - low)
    if integers == "continuous":
        return values
    # Rounding may carry a number just below 1 to the end, which a whole number does not reach.
    return np.asarray(np.where(_whole(augmentation), np.minimum(np.floor(values), high - 1), values))


def severity(augmentation: Augmentation, values: Float[np.ndarray, "n p"], strength: float) -> Float[np.ndarray, "n p"]:
    """Parameter values of a weaker augmentation: `neutral + strength (value - neutral)`, rounded for integers.

    Parameters that say where or which way (without a neutral value) are kept.

    Args:
        augmentation: whose parameters.
        values: as `decoded` gives them.
        strength: 0 (changes nothing) to 1 (as drawn).

    Raises:
        InputError: columns that are not those of the parameters, or a strength outside 0 to 1.

    Example:
        >>> brightness = Parameter("factor", 0.1, 2.5, neutral=1.0)
        >>> severity(Augmentation("brightness", (brightness,), lambda images, _: images, ""), np.array([[2.0]]), 0.5)
        array([[1.5]])
    """
    _check_columns(augmentation, values)
    if not 0 <= strength <= 1:
        message = (
            f"'{augmentation.name}' cannot have a strength of {strength:g}: expected 0 (changes nothing) to 1 (as "
            "drawn). For a stronger augmentation widen its ranges"
        )
        raise InputError(message)
    neutral = np.array([np.nan if one.neutral is None else one.neutral for one in augmentation.parameters])
    moved = neutral + strength * (values - neutral)
    weaker = np.where(_whole(augmentation), np.round(moved), moved)
    return np.asarray(np.where(np.isnan(neutral), values, weaker))


def check_channels(augmentations: Sequence[Augmentation], channels: int) -> None:
    """Refuse augmentations of colour for images that have none, rather than let them do nothing.

    Raises:
        InputError: an augmentation needs red, green and blue, and the images have another number of channels.
    """
    wrong = [augmentation.name for augmentation in augmentations if augmentation.colours == "rgb"]
    if wrong and channels != COLOUR:
        message = (
            f"{', '.join(wrong)} cannot change images of {channels} channel{'s' if channels != 1 else ''}: expected "
            "red, green and blue. Leave these augmentations out"
        )
        raise InputError(message)


def _check_columns(augmentation: Augmentation, values: np.ndarray) -> None:
    expected = [parameter.name for parameter in augmentation.parameters]
    if values.shape[1] != len(expected):
        message = (
            f"'{augmentation.name}' got {values.shape[1]} columns of parameters: expected {len(expected)} "
            f"({', '.join(expected) or 'none'}). Give one column for each, in this order"
        )
        raise InputError(message)


def _ends(augmentation: Augmentation) -> tuple[np.ndarray, np.ndarray]:
    ends = np.array([(one.low, one.high) for one in augmentation.parameters], dtype=np.float64).reshape(-1, 2)
    return ends[:, 0], ends[:, 1]


def _whole(augmentation: Augmentation) -> np.ndarray:
    return np.array([one.kind == "integer" for one in augmentation.parameters], dtype=bool)
