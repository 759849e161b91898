"""Options of the `layers` study, and its named deviations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

LEGACY: dict[str, str] = {
    "raw-input": "feed pixels scaled to 0..1 without the normalisation the network was trained with",
    "first-1000": "use the first 1,000 images only, whatever their classes",
    "ratio-epsilon": "add 1e-6 to the denominator of the ratio selectivity, so that dead units score 0 instead of nan",
    "shared-preference-scale": "scale the preference picture over the whole layer; weak units' tuning is hidden",
    "appearance-order": "draw layer responses in the order in which classes appear, under labels in class order",
}
"""What each named deviation brings back of the program this study comes from (mrinalmouza/MNIST-training)."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class LayersSpec:
    """What to look at and how hard to test it."""

    layers: Annotated[
        tuple[str, ...],
        Field(description="layers by name, glob (layer*.0.conv?) or kind (conv, relu, block); default: activations"),
    ] = ()
    pool: Annotated[
        Literal["mean", "max"],
        Field(description="how a unit's map becomes one number per image for selectivity and preferences"),
    ] = "mean"
    top_by: Annotated[
        Literal["max", "mean"], Field(description="which number ranks a unit's top and bottom images")
    ] = "max"
    top_k: Annotated[int, Field(ge=1, le=100, description="top and bottom images kept for each unit")] = 9
    gallery: Annotated[
        int, Field(ge=0, description="units per layer shown with their top images; 0: all for small images, else 12")
    ] = 0
    examples: Annotated[
        tuple[int, ...],
        Field(description="rows of the images whose feature maps are shown; default: one per class"),
    ] = ()
    channels: Annotated[int, Field(ge=1, le=256, description="feature maps shown for each layer and example")] = 16
    wrong: Annotated[int, Field(ge=0, le=50, description="wrong decisions shown step by step")] = 5
    gradient: Annotated[
        Literal["label", "prediction", "none"],
        Field(description="whose logit gradient x activation explains; none leaves the backward pass out"),
    ] = "label"
    draws: Annotated[int, Field(ge=19, le=100_000, description="label permutations behind nulls and q-values")] = 500
    splits: Annotated[int, Field(ge=1, le=1000, description="random halvings behind the noise-free selectivity")] = 20
    level: Annotated[float, Field(gt=0.5, lt=1, description="coverage of the intervals")] = 0.95
    legacy: Annotated[tuple[str, ...], Field(description="named deviations: see `neuronscope list studies`")] = ()
