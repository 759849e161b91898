"""Options of the `masking` study, and its named deviation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from neuronscope.maths.guide_masks import QUANTILES, SCALES

LEGACY: dict[str, str] = {
    "quantile-masks": "the most sensitive elements are all at or above a quantile of the map: where most of a map is 0 "
    "that is the whole layer, so factors with many zeros mask more than others",
    "repeated-softmax": "probabilities are of a softmax taken two or three times, as the original's networks end (once "
    "for each module whose name is part of the last layer's): they are nearly uniform, hundreds of classes have the "
    "same 32-bit number, and come by class number. First classes hardly change, first fives do",
}
"""What each named deviation brings back of the program this study comes from.

Deviations that change how images are augmented or normalised come with the sensitivity result."""

GuideValue = Literal["shapley", "total", "first", "contrast"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class MaskingSpec:
    """Whose maps guide the masks, what is done where these are high, and how many images and random masks."""

    maps_from: Annotated[
        tuple[str, ...],
        Field(
            description="folders of finished sensitivity results of the same network, whose maps guide the masks: one, "
            "or one for each set of augmentations. Augmented input is masked by maps of its own set only"
        ),
    ] = ()
    value: Annotated[
        GuideValue,
        Field(description="which maps: Shapley effects, total or first-order indices, size of the contrast"),
    ] = "shapley"
    layers: Annotated[
        tuple[str, ...],
        Field(description="layers by name, glob or kind; default: those of the result whose maps have positions"),
    ] = ()
    variables: Annotated[
        tuple[str, ...], Field(description="factors whose maps guide masks; default: all that the result has maps of")
    ] = ()
    scales: Annotated[
        tuple[float, ...], Field(min_length=1, description="what the most sensitive elements are multiplied by")
    ] = SCALES
    quantiles: Annotated[
        tuple[float, ...], Field(min_length=1, description="shares of the elements of a layer that are left alone")
    ] = QUANTILES
    at: Annotated[
        Literal["together", "each"], Field(description="all layers in one pass, or each of them alone as well")
    ] = "together"
    images: Annotated[int, Field(ge=2, description="images, classes as balanced as they can be")] = 200
    draws: Annotated[
        int, Field(ge=1, le=1000, description="draws of each augmentation that has parameters, for each image")
    ] = 1
    controls: Annotated[
        int, Field(ge=2, le=10_000, description="random masks with the numbers of each guided one, in other places")
    ] = 20
    controlled: Annotated[
        Literal["plain", "all"], Field(description="which input random masks are tried on: as it is, or augmented too")
    ] = "plain"
    keep: Annotated[
        Literal["ranks", "classes", "predictions"],
        Field(
            description="of each row under each mask: the place of the label; the first classes too, for their overlap "
            "with sensitive ones; these and their probabilities, which go into the result and the original's file"
        ),
    ] = "classes"
    top_k: Annotated[int, Field(ge=1, description="a prediction also counts if the class is among so many first")] = 5
    resamples: Annotated[
        int, Field(ge=2, le=100_000, description="times images are drawn again, for intervals of correlations")
    ] = 1000
    level: Annotated[float, Field(gt=0.5, lt=1, description="coverage of the intervals")] = 0.95
    compare_with: Annotated[
        str, Field(description="file of predictions of the original to compare with; default: none")
    ] = ""
    legacy: Annotated[tuple[str, ...], Field(description="named deviations: see `neuronscope list studies`")] = ()
