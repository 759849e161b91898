"""Options of the `importance` study, and its named deviations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Rule = Literal[
    "thresholding",
    "masking",
    "activation",
    "gradient",
    "gradient-contrast",
    "taylor",
    "influence",
    "conductance",
    "selectivity",
    "ablation",
    "shapley",
    "nisp",
]
"""How units are scored; `RULES` says what each means."""

RULES: dict[str, str] = {
    "thresholding": "class mean minus the mean of the other classes' means, in standard deviations of the unit",
    "masking": "z of that difference: how surely, not how strongly, a unit prefers the class",
    "activation": "mean activation for the class",
    "gradient": "mean of activation x gradient of the class's logit, over the class's images",
    "gradient-contrast": "mean of activation x gradient of the class's logit minus the mean of the other logits",
    "taylor": "mean absolute activation x gradient of the loss, scaled to length 1 in each layer (Molchanov 2017)",
    "influence": "gradient of the class's logit averaged on the way from a baseline (internal influence, Leino 2018)",
    "conductance": "share of the change of the class's logit on that way that runs through the unit (Dhamdhere 2019)",
    "selectivity": "(class mean - mean of the other class means) / their sum (Morcos 2018, for each class)",
    "ablation": "fall of the class's logit when the unit alone is silenced, exactly, over the class's images",
    "shapley": "average gain in the class's accuracy when the unit joins a random set (Neuron Shapley, Ghorbani 2020)",
    "nisp": "importance handed back from the last layer through absolute weights (NISP, Yu 2018), for all classes",
}
"""Rule -> how it scores a unit for a class; larger is more important."""

LEGACY: dict[str, str] = {
    "absolute-activation": (
        "thresholding keeps every unit whose class mean lies above the layer's percentile 100 (1 - budget), whatever "
        "it does for other classes, instead of comparing classes"
    ),
    "fixed-thresholds": (
        "masking tests class means against 0.55 and 1e-5 on every layer's scale, ranks by a probability that saturates "
        "at 1 and looks for OFF units among the least likely ones"
    ),
    "force-on": "units that masking calls ON are set to 1 whatever their scale, instead of their mean for the class",
    "same-images": "select and report on the same images; numbers are then too good",
    "positional-overlap": (
        "reuse and specialisation as printed by the original: index lists compared position by position, ON sets over "
        "the layer's width, halves in file order, the output layer's 1/10"
    ),
}
"""What each named deviation brings back of the program this study comes from (modularity_in_NN)."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ImportanceSpec:
    """Which units, which classes, which rules, and how hard to test them."""

    layers: Annotated[
        tuple[str, ...],
        Field(description="layers by name, glob or kind; default: activations, without the output layer"),
    ] = ()
    which_class: Annotated[
        tuple[str, ...],
        Field(description="classes by name or number; default: all, of more than 20 those with the most images"),
    ] = ()
    rules: Annotated[
        tuple[Rule, ...],
        Field(min_length=1, description="how units are scored; the first decides pictures and reuse"),
    ] = ("gradient-contrast", "thresholding", "masking")
    budget: Annotated[float, Field(gt=0, lt=1, description="share of each layer that a class's sub-network takes")] = (
        0.3
    )
    silence: Annotated[
        Literal["zero", "mean", "other-mean", "resample", "constant"],
        Field(
            description="what a silenced unit gives: 0, its mean, its mean over the other classes, its map for another "
            "image, the number --constant"
        ),
    ] = "zero"
    constant: Annotated[float, Field(description="what silenced units give under --silence constant")] = 1.0
    coupled: Annotated[
        Literal["separate", "joint"],
        Field(description="layers added by skip connections: chosen by themselves, or the same channels in all"),
    ] = "separate"
    report_data: Annotated[
        str, Field(description="other images to report on, as in digits:report; default: a part of the images given")
    ] = ""
    report_split: Annotated[str, Field(description="split of report_data, as in test")] = ""
    report_share: Annotated[
        float, Field(gt=0, lt=1, description="part of each class kept for the report when there are no other images")
    ] = 0.5
    controls: Annotated[
        int,
        Field(
            ge=0, le=10_000, description="random sub-networks of the same size beside each finding; 20 or more, 0: none"
        ),
    ] = 20
    layer_controls: Annotated[
        int | None,
        Field(
            ge=0,
            le=100_000,
            description="random unit sets of the same size for each single layer; 20 or more, 0: none; default: 1,000 "
            "where that costs nothing, else 200",
        ),
    ] = None
    ablate: Annotated[
        tuple[str, ...],
        Field(description="layers whose units are silenced one by one; default: the last two; none: no layer"),
    ] = ()
    alone: Annotated[
        tuple[str, ...],
        Field(description="layers looked at by themselves, with curves; default: the last; none: no layer"),
    ] = ()
    ablation_images: Annotated[
        int, Field(ge=2, description="at most so many images for silencing units one by one, classes balanced")
    ] = 500
    curves: Annotated[int, Field(ge=2, le=100, description="steps of the insertion and deletion curves")] = 10
    halves: Annotated[int, Field(ge=2, le=1000, description="random halvings behind the reuse of units")] = 20
    path_steps: Annotated[int, Field(ge=2, le=500, description="steps of the path of influence and conductance")] = 16
    shapley_images: Annotated[int, Field(ge=10, description="images that a Shapley game is played on")] = 128
    shapley_permutations: Annotated[int, Field(ge=2, description="most permutations of a Shapley game")] = 400
    shapley_interval: Annotated[
        Literal["student", "bernstein"],
        Field(description="what ends a Shapley game: Student's intervals, or the wider empirical Bernstein bounds"),
    ] = "student"
    shapley_top: Annotated[int, Field(ge=1, description="stop when so many best units of a layer are settled")] = 10
    high: Annotated[float, Field(description="masking under fixed-thresholds: a mean above it is ON")] = 0.55
    low: Annotated[float, Field(description="masking under fixed-thresholds: a mean below it is OFF")] = 1e-5
    confidence: Annotated[float, Field(gt=0.5, lt=1, description="masking: how sure ON and OFF must be")] = 0.9
    fraction_base: Annotated[float, Field(gt=0, le=1, description="masking: share of the first layer it may fix")] = 0.1
    fraction_max: Annotated[float, Field(gt=0, le=1, description="masking: share of the last layer it may fix")] = 0.3
    edges: Annotated[
        int,
        Field(ge=1, le=10_000, description="strongest connections kept between two layers of a sub-network"),
    ] = 40
    level: Annotated[float, Field(gt=0.5, lt=1, description="coverage of the intervals")] = 0.95
    legacy: Annotated[tuple[str, ...], Field(description="named deviations: see `neuronscope list studies`")] = ()
