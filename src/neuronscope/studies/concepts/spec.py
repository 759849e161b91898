"""Options of the `concepts` study, and its named deviations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

ScoreName = Literal["iou", "detection_accuracy", "activation_coverage", "imrou", "imrou_normalised"]
Operator = Literal["or", "and", "and-not", "with", "close"]
Analysis = Literal["contributions", "accuracy", "similarity", "copy-paste"]

LEGACY: dict[str, str] = {
    "compexp-order": (
        "the beam of Mu and Andreas: formulas of equal masks each take a place in it, and equal scores keep the order "
        "in which they were made"
    ),
    "compexp-input": (
        "pixels minus (124.6901, 118.6897, 109.5388), divided by 57.12 for all channels, in place of the network's own "
        "normalisation"
    ),
    "indres-order": (
        "the search of Harth on cells: formulas that differ only in labels being expanded do not stand side by side in "
        "the beam; 50 candidates, formulas of under 1e-4 of the cells dropped, close ones given up after 4,000 images, "
        "a label more costs a thousandth of the score, unless said otherwise"
    ),
    "sketch-thresholds": (
        "thresholds from the randomised sketch of the originals, read at 994/999 for 0.005, in place of the exact "
        "order statistic; up to half a percent off"
    ),
    "cce-ranges": (
        "ranges of activations end at the smallest and the largest activation of their cluster, which the strict "
        "comparison then leaves out, as it does what lies between two clusters"
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
    concept_options: Annotated[
        tuple[str, ...],
        Field(description="of the sources: subset=ade20k, ties=last, encoding=r+256g, crowd=skip, category=NAME"),
    ] = ()
    concept_split: Annotated[str, Field(description="only images of this split, as in train; default: all")] = ""
    side: Annotated[
        int, Field(ge=0, le=2048, description="height and width of the masks in pixels; 0: that of the concepts")
    ] = 0
    concept_limit: Annotated[int, Field(ge=0, description="at most so many images with concepts; 0: all")] = 0
    layers: Annotated[
        tuple[str, ...], Field(description="layers by name, glob or kind; default: the last activation with a map")
    ] = ()
    units: Annotated[str, Field(description="only these units of each layer, as in 0-63,80; default: all")] = ""
    resolution: Annotated[
        Literal["pixels", "cells"],
        Field(description="masks of pixels, units enlarged to them; or both on 7 x 7 cells, for with and close"),
    ] = "pixels"
    downsampling: Annotated[
        Literal["blocks", "nearest"], Field(description="cells: on by its labelled pixels, or by its middle pixel")
    ] = "blocks"
    block_threshold: Annotated[
        int, Field(ge=1, le=256, description="cells: labelled pixels, of 256, that turn a cell on")
    ] = 100
    expansions: Annotated[
        int, Field(ge=0, le=8, description="cells: neighbours that turn a cell of an expanded label on; 0: no such")
    ] = 3
    quantile: Annotated[
        float, Field(gt=0, lt=1, description="share of a unit's activations above its threshold: where it is active")
    ] = 0.005
    ranges: Annotated[
        int, Field(ge=1, le=20, description="also explain so many ranges of each unit's activations (k-means); 1: none")
    ] = 1
    probe: Annotated[
        Literal["all", "firing"], Field(description="images that count for a unit: all, or those it is active on")
    ] = "all"
    thresholds: Annotated[
        Literal["static", "dynamic"], Field(description="cells: whether the search may move a unit's threshold")
    ] = "static"
    threshold_step: Annotated[float, Field(gt=0, description="by how much it moves at a time")] = 0.1
    threshold_update: Annotated[
        Literal["immediately", "after"], Field(description="for every formula tried, or for those kept")
    ] = "immediately"
    operators: Annotated[
        tuple[Operator, ...],
        Field(min_length=1, description="what joins concepts; with and close need --resolution cells"),
    ] = ("or", "and", "and-not")
    length: Annotated[int, Field(ge=1, le=20, description="labels of the longest formula")] = 3
    beam: Annotated[int, Field(ge=1, le=1000, description="formulas kept from one length to the next")] = 5
    candidates: Annotated[int, Field(ge=0, description="labels that formulas are extended by; 0: all")] = 0
    score: Annotated[
        ScoreName,
        Field(description="what the search maximises"),
    ] = "iou"
    report_score: Annotated[
        Literal["", "iou", "detection_accuracy", "activation_coverage", "imrou", "imrou_normalised"],
        Field(description="what held-out formulas are judged by; default: the same"),
    ] = ""
    multiplier: Annotated[
        float, Field(ge=0, le=1, description="share of the chance intersection that ImRoU takes away")
    ] = 0.75
    penalty: Annotated[float, Field(ge=0, lt=1, description="what each label more costs, as a share of the score")] = (
        0.0
    )
    minimum_gain: Annotated[
        float, Field(ge=0, description="score that a label more must add for the longer formula to be chosen")
    ] = 0.0
    least_coverage: Annotated[
        float, Field(ge=0, lt=1, description="cells: share of all cells that a formula must cover")
    ] = 0.0
    abort_images: Annotated[
        int, Field(ge=0, description="cells: images after which a hopeless close formula is given up; 0: never")
    ] = 0
    abort_share: Annotated[
        float, Field(gt=0, le=1, description="hopeless: below this share of the beam's worst score")
    ] = 0.5
    alternatives: Annotated[int, Field(ge=0, le=50, description="next-best formulas with other masks to name")] = 3
    jumpstart: Annotated[str, Field(description="history file whose beams the search goes on from")] = ""
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
    images: Annotated[int, Field(ge=1, le=100, description="images on a unit's card")] = 6
    grey_below: Annotated[float, Field(ge=0, description="score below which a unit's card is grey")] = 0.01
    keep_in: Annotated[
        str, Field(description="folder for activations, thresholds and label masks as the originals kept them")
    ] = ""
    analyses: Annotated[
        tuple[Analysis, ...], Field(description="further: to classes, accuracy, unit pairs, pasting")
    ] = ()
    labelled: Annotated[
        str, Field(description="images with classes for the accuracy; default: those of the concepts")
    ] = ""
    examples: Annotated[int, Field(ge=1, le=100, description="copy-paste examples to look for")] = 8
    level: Annotated[float, Field(gt=0.5, lt=1, description="coverage of the intervals")] = 0.95
    legacy: Annotated[tuple[str, ...], Field(description="named deviations: see `neuronscope list studies`")] = ()
