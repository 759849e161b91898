"""Masks from a map of sensitivity: which elements of a layer's output are multiplied by what.

A *guide* is one layer's sensitivity to one factor, a number from 0 to 1 for each element. A *configuration* makes a
*scale map* of it: the most sensitive elements times a number (0 kills, 0.5 damps, 1.5 amplifies), or every element
times its sensitivity, or times 1 minus it.

The original takes elements at or above a quantile. Where most of a map is 0 its quantile is 0, every element is at or
above it, and the mask is the whole layer; so factors with many zeros mask more than others. Here the default counts:
exactly the share asked for, with elements of equal sensitivity in random order, so that none is favoured by its place.

That a mask hurts says little while a random one is not seen beside it: `shuffled` gives a guide's values to random
places, so that each of its scale maps has the same numbers, as often, somewhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int32, Shaped

from neuronscope.errors import InputError

Rule = Literal["ranks", "quantiles"]
"""Which elements are the most sensitive: exactly as many as asked for, or all at or above a quantile (the original's,
deviation `quantile-masks`)."""

SCALES = (0.0, 0.5, 1.5)
"""Published: the most sensitive elements are killed, damped, amplified."""

QUANTILES = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Published: shares of the elements that are left alone."""

UNMASKED = "iaug=original"
"""The original's name of the network as it is."""


@dataclass(frozen=True)
class Selection:
    """The most sensitive elements are multiplied by a number, the others stay as they are.

    Attributes:
        scale: that number, 0 or more.
        quantile: share of the elements that stay, between 0 and 1.
    """

    scale: float
    quantile: float

    def __post_init__(self) -> None:
        """Refuse what is no share and no scale.

        Raises:
            InputError: a quantile outside 0 to 1, or a scale that is below 0 or not finite.
        """
        if not (0 < self.quantile < 1 and 0 <= self.scale < float("inf")):
            message = (
                f"a scale of {self.scale} at quantile {self.quantile}: expected a finite scale of 0 or more and a "
                "quantile between 0 and 1 (0.9 for the most sensitive tenth)"
            )
            raise InputError(message)

    def name(self, factor: str) -> str:
        """As the original's files have it."""
        return f"alpha={self.scale:.2f}_perc={self.quantile:.2f}_iaug={factor}"


@dataclass(frozen=True)
class Weighting:
    """Every element is multiplied by its sensitivity (`keep`), or by 1 minus it (`remove`)."""

    sensitive: Literal["keep", "remove"]

    def name(self, factor: str) -> str:
        """As the original's files have it."""
        return f"iaug={factor}_invert={int(self.sensitive == 'remove')}"


Configuration = Selection | Weighting


@dataclass(frozen=True, eq=False)
class Guide:
    """Sensitivity of each element of a layer's output to one factor, and the elements' order by it.

    Attributes:
        values: 0 to 1, units first, flat.
        places: of each element, counted from the most sensitive, from 0; elements of equal sensitivity in random order.
    """

    values: Float32[np.ndarray, "m"]
    places: Int32[np.ndarray, "m"]


@dataclass(frozen=True)
class ScaleMap:
    """A configuration of a guide. Scale maps of the same guide and configuration are equal.

    Attributes:
        guide: whose values.
        configuration: what is made of them.
        rule: which elements are the most sensitive.
    """

    guide: Guide
    configuration: Configuration
    rule: Rule = "ranks"

    def scales(self) -> Float32[np.ndarray, "m"]:
        """What each element is multiplied by.

        Example:
            >>> own = guide(np.array([[0.1, 0.9], [0.0, 0.4]]), rng=np.random.default_rng(0))
            >>> ScaleMap(own, Selection(0.5, 0.75)).scales()
            array([1. , 0.5, 1. , 1. ], dtype=float32)
            >>> ScaleMap(own, Weighting("remove")).scales().round(1)
            array([0.9, 0.1, 1. , 0.6], dtype=float32)
        """
        values = self.guide.values
        if isinstance(self.configuration, Weighting):
            return values.copy() if self.configuration.sensitive == "keep" else 1 - values
        return np.where(self.selected(), np.float32(self.configuration.scale), np.float32(1))

    def selected(self) -> Bool[np.ndarray, "m"]:
        """Which elements count as the most sensitive; none under a weighting."""
        values = self.guide.values
        if isinstance(self.configuration, Weighting):
            return np.zeros(len(values), dtype=bool)
        quantile = self.configuration.quantile
        if self.rule == "ranks":
            return self.guide.places < round((1 - quantile) * len(values))
        exact = values.astype(np.float64)
        return exact >= np.quantile(exact, quantile)


def configurations(
    scales: Sequence[float] = SCALES, quantiles: Sequence[float] = QUANTILES
) -> tuple[Configuration, ...]:
    """The configurations of one guide in the original's order: 17 as published.

    Scale by scale every quantile, then the whole map and 1 minus it.

    Raises:
        InputError: a quantile outside 0 to 1, or a scale that is below 0 or not finite.

    Example:
        >>> [one.name("hue") for one in configurations((0.0,), (0.5, 0.9))]
        ['alpha=0.00_perc=0.50_iaug=hue', 'alpha=0.00_perc=0.90_iaug=hue', 'iaug=hue_invert=0', 'iaug=hue_invert=1']
    """
    selections = [Selection(scale, quantile) for scale in scales for quantile in quantiles]
    return (*selections, Weighting("keep"), Weighting("remove"))


def guide(sensitivity: Shaped[np.ndarray, "*m"], *, rng: np.random.Generator) -> Guide:
    """A guide from a map of sensitivity.

    Args:
        sensitivity: one number for each element of a layer's output, units first, in any shape. What is below 0 counts
            as 0, above 1 as 1; nan (activations that never vary) as 0.
        rng: decides between elements of equal sensitivity.

    Raises:
        InputError: no element.

    Example:
        >>> guide(np.array([0.2, np.nan, 3.0, -1.0]), rng=np.random.default_rng(0)).values
        array([0.2, 0. , 1. , 0. ], dtype=float32)
    """
    if sensitivity.size == 0:
        message = "a map of sensitivity without elements cannot guide a mask. Give one number for each activation"
        raise InputError(message)
    values = np.clip(np.nan_to_num(sensitivity.astype(np.float64), nan=0.0), 0.0, 1.0).astype(np.float32).ravel()
    mixed = rng.permutation(len(values))
    order = mixed[np.argsort(-values[mixed], kind="stable")]
    places = np.empty(len(values), dtype=np.int32)
    places[order] = np.arange(len(values), dtype=np.int32)
    return Guide(values, places)


def shuffled(own: Guide, *, rng: np.random.Generator) -> Guide:
    """The matched random control of a guide: the same values at random places.

    Every scale map of it has the numbers of the guide's own, each as often. Guides of equal size that are shuffled by
    equal generators have the same elements selected under `ranks`: one control serves all of them.

    Args:
        own: the guide.
        rng: decides on the places.

    Example:
        >>> own = guide(np.array([0.0, 0.0, 0.5, 1.0]), rng=np.random.default_rng(0))
        >>> shuffled(own, rng=np.random.default_rng(3)).values
        array([0. , 0. , 0.5, 1. ], dtype=float32)
    """
    falling = np.empty_like(own.values)
    falling[own.places] = own.values
    places = rng.permutation(len(falling)).astype(np.int32)
    return Guide(falling[places], places)
