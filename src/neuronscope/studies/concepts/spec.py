"""Options of the `concepts` study, and its named deviations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

LEGACY: dict[str, str] = {
    "compexp-order": (
        "the beam of Mu and Andreas: formulas of equal masks each take a place in it, and equal scores keep the order "
        "in which they were made"
    ),
    "compexp-input": (
        "pixels minus (124.6901, 118.6897, 109.5388), divided by 57.12 for all channels, in place of the network's own "
        "normalisation"
    ),
    "same-images": "search and score on the same images; scores are then too good, most of all those of long formulas",
}
"""What each named deviation brings back of the programs this study comes from."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ConceptsSpec:
    """Which concepts, which units, and how hard to search."""

    concepts: Annotated[
        tuple[str, ...],
        Field(
            min_length=1,
            description="images with concepts, as in digits, broden:PATH, labelmaps:PATH, yolo:PATH, classes:PATH",
            json_schema_extra={"commas": "belong"},  # they are part of a source, as in coco:IMAGES,JSON
        ),
    ] = ("digits",)
    categories: Annotated[tuple[str, ...], Field(description="only concepts of these categories; default: all")] = ()
    side: Annotated[
        int, Field(ge=0, le=2048, description="height and width of the masks in pixels; 0: that of the concepts")
    ] = 0
    concept_limit: Annotated[int, Field(ge=0, description="at most so many images with concepts; 0: all")] = 0
    layers: Annotated[
        tuple[str, ...], Field(description="layers by name, glob or kind; default: the last activation with a map")
    ] = ()
    quantile: Annotated[
        float, Field(gt=0, lt=1, description="share of a unit's activations above its threshold: where it is active")
    ] = 0.005
    length: Annotated[int, Field(ge=1, le=20, description="labels of the longest formula")] = 3
    beam: Annotated[int, Field(ge=1, le=1000, description="formulas kept from one length to the next")] = 5
    candidates: Annotated[int, Field(ge=0, description="labels that formulas are extended by; 0: all")] = 0
    score: Annotated[
        Literal["iou", "detection_accuracy", "activation_coverage", "imrou", "imrou_normalised"],
        Field(description="what the search maximises"),
    ] = "iou"
    multiplier: Annotated[
        float, Field(ge=0, le=1, description="share of the chance intersection that ImRoU takes away")
    ] = 0.75
    penalty: Annotated[float, Field(ge=0, lt=1, description="what each label more costs, as a share of the score")] = (
        0.0
    )
    minimum_gain: Annotated[
        float, Field(ge=0, description="score that a label more must add for the longer formula to be chosen")
    ] = 0.0
    certify: Annotated[
        Literal["optimum", "none"], Field(description="prove that no formula of up to three labels is better")
    ] = "optimum"
    seconds: Annotated[
        float, Field(ge=0, description="most seconds of a proof for a unit, then the gap that is left; 0: no limit")
    ] = 0.0
    report_share: Annotated[
        float, Field(gt=0, lt=1, description="part of the images that formulas are scored on, not searched")
    ] = 0.5
    draws: Annotated[
        int,
        Field(
            ge=0,
            le=10_000,
            description="times that masks are laid over other images, for the null; 20 or more, 0: none",
        ),
    ] = 99
    cards: Annotated[int, Field(ge=0, description="units of each layer shown with their images, best first")] = 12
    images: Annotated[int, Field(ge=1, le=50, description="images on a unit's card")] = 6
    level: Annotated[float, Field(gt=0.5, lt=1, description="coverage of the intervals")] = 0.95
    legacy: Annotated[tuple[str, ...], Field(description="named deviations: see `neuronscope list studies`")] = ()
