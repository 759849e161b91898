"""Options of the `sensitivity` study, its presets of layers, and its named deviations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from neuronscope.models.hsv import CHANNELS, Channel

LEGACY: dict[str, str] = {
    "image-redrawn": "the image is drawn anew for every row, so that total indices and the shares of class and "
    "partition hold the variance between images, whatever they are asked about",
    "min-max": "every channel of every image is stretched to 0..1 before the normalisation: half of all changes of "
    "brightness and contrast cancel",
    "eight-bit": "rotation and local blur go through 8-bit images, rotation takes the nearest pixel",
    "nearest-rotation": "rotation takes the nearest pixel",
    "swapped-ellipse": "height and width change places in the local blur: another place in images that are not square",
    "rounded-integers": "whole-numbered parameters are drawn as numbers and rounded: both ends half as often",
    "unscrambled": "one Sobol' sequence from its corner 0, in place of independent scrambles: no intervals",
    "first-half": "Sobol indices from the rows AB only; second order from one of two equivalent pairs of rows",
    "zero-for-dead": "Sobol indices of activations that never change are 0 by a guarded division, not nan",
    "switched-shapley": "for Shapley effects every augmentation is switched on in half of the rows: not the "
    "distribution that Sobol indices are of",
    "scalar-players": "the players of the Shapley game are single parameters, added up to groups afterwards, with new "
    "random numbers at every place of an order: 15 to 20 times the rows for the same error",
    "clipped-shares": "negative Shapley effects are cut off before effects are divided by their sum",
    "leaking-folds": "discriminants are tested on other maps of the units that they were found from",
    "zero-correlations": "places without a correlation count as 0 in means",
    "normalised-hsv": "hue, saturation and value of segments are made of images that are normalised already, of which "
    "they are neither: the saturation has no bound where the largest of the three colours is near 0",
    "unclustered": "tests of the contrast treat several draws of one image as independent images",
}
"""What each named deviation brings back of the program this study comes from."""

PRESETS: dict[str, tuple[str, ...]] = {
    "alexnet": (
        "features.2",
        "features.5",
        "features.7",
        "features.9",
        "avgpool",
        "classifier.2",
        "classifier.5",
        "classifier.6",
    ),
    "vgg11": (
        "features.2",
        "features.5",
        "features.10",
        "features.15",
        "avgpool",
        "classifier.1",
        "classifier.4",
        "classifier.6",
    ),
    "resnet18": ("maxpool", "layer1", "layer2", "layer3", "avgpool", "fc"),
}
"""Checkpoints of the original, by network."""

Analysis = Literal["correlations", "discriminants", "classes", "segments"]
Estimator = Literal["sobol", "shapley", "contrast", "severity"]
AuxiliaryFactor = Literal["order", "class", "partition", "image"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SensitivitySpec:
    """Which layers, which augmentations and other factors, and how sensitivity to them is estimated."""

    layers: Annotated[
        tuple[str, ...],
        Field(
            description="layers by name, glob, kind, or preset (alexnet, vgg11, resnet18: the original's checkpoints); "
            "default: the last of each map size with up to 262,144 activations, and the classifier"
        ),
    ] = ()
    segments: Annotated[
        str,
        Field(
            description="look at pieces of the network alone, each on one channel of the images' colours: JSON file of "
            "segments and units, or preset (alexnet, resnet18: the original's); default: the network"
        ),
    ] = ""
    channels: Annotated[
        tuple[Channel, ...], Field(min_length=1, description="channels of the colours that segments are given")
    ] = CHANNELS
    whole_from: Annotated[
        str,
        Field(
            description="finished sensitivity result of the whole network that the segments' correlations are compared "
            "with; default: none"
        ),
    ] = ""
    show_augmentations: Annotated[
        bool, Field(description="only show each augmentation at its extremes, on a few images, and stop")
    ] = False
    augmentations: Annotated[
        tuple[str, ...],
        Field(min_length=1, description="set1, set2, both by name, single names, or your own as python:FILE:NAME"),
    ] = ("set1",)
    ranges: Annotated[tuple[str, ...], Field(description="other ranges of parameters, as in rotation.angle=-5:5")] = ()
    switches: Annotated[
        Literal["plain", "all"],
        Field(description="which augmentations are there in half of the rows only: those without parameters, or all"),
    ] = "plain"
    factors: Annotated[
        tuple[AuxiliaryFactor, ...],
        Field(description="what varies beside augmentations: their order, class, partition, the image in its class"),
    ] = ("order", "class", "partition", "image")
    other_data: Annotated[
        str, Field(description="images of the second partition, as in imagenet:PATH; default: half of those given")
    ] = ""
    other_split: Annotated[str, Field(description="split of other_data, as in val")] = ""
    min_images: Annotated[
        int, Field(ge=0, description="leave out classes with fewer images; 0: a class with too few is an error")
    ] = 0
    estimators: Annotated[
        tuple[Estimator, ...],
        Field(
            min_length=1,
            description="Sobol indices, Shapley effects, paired contrast with the plain image, curves of severity",
        ),
    ] = ("sobol", "shapley", "contrast", "severity")
    points: Annotated[
        int, Field(ge=2, description="base points of the Sobol design in all; over replicates, a power of two")
    ] = 512
    replicates: Annotated[
        int, Field(ge=1, le=1000, description="independent scrambles, and sets of permutations: intervals come of them")
    ] = 8
    second_order: Annotated[
        Literal["maps", "units", "none"], Field(description="second-order indices of each activation, unit, or none")
    ] = "maps"
    stop: Annotated[
        Literal["ranking", "never"],
        Field(description="end before the last replicate once the order of the factors is settled in every layer"),
    ] = "ranking"
    tolerance: Annotated[
        float, Field(ge=0, lt=1, description="share of the variance that makes no difference between two factors")
    ] = 0.02
    permutations: Annotated[int, Field(ge=1, description="orders of the factors for Shapley effects, in all")] = 512
    outer: Annotated[int, Field(ge=1, description="outer draws of Shapley effects for each order")] = 1
    inner: Annotated[int, Field(ge=2, description="inner draws of Shapley effects for each outer one")] = 2
    contrast_images: Annotated[int, Field(ge=2, description="images of the paired contrast, classes balanced")] = 100
    draws: Annotated[int, Field(ge=1, description="draws of an augmentation's parameters for each of these images")] = 4
    ranks: Annotated[
        Literal["histogram", "exact"],
        Field(description="rank statistics of maps: in one pass with a bound, or exact in more passes"),
    ] = "histogram"
    severity_images: Annotated[int, Field(ge=2, description="images of the curves of severity")] = 100
    severities: Annotated[
        tuple[float, ...], Field(description="strengths, 0 to 1, from nothing to the whole range")
    ] = (0.25, 0.5, 0.75, 1.0)
    output: Annotated[
        Literal["softmax", "logits"], Field(description="what the network's last layer is looked at as")
    ] = "softmax"
    analyses: Annotated[
        tuple[Analysis, ...],
        Field(
            description="how maps of factors go together, whether a factor can be told by its maps, which classes "
            "react most, how segments differ from the network of whole_from; default: none"
        ),
    ] = ()
    correlation: Annotated[
        Literal["spearman", "pearson", "kendall"], Field(description="coefficient of the correlations of maps")
    ] = "spearman"
    folds: Annotated[int, Field(ge=2, description="parts of the units that discriminants are tested on in turn")] = 5
    repeats: Annotated[int, Field(ge=1, le=1000, description="divisions into such parts")] = 10
    label_permutations: Annotated[
        int, Field(ge=19, le=100_000, description="exchanges of the factors' names that make the null of discriminants")
    ] = 199
    compare_with: Annotated[
        str, Field(description="folder with value files of the original to compare with; default: none")
    ] = ""
    shown_units: Annotated[int, Field(ge=0, le=64, description="units of each layer with their maps on the page")] = 6
    level: Annotated[float, Field(gt=0.5, lt=1, description="coverage of the intervals")] = 0.95
    legacy: Annotated[tuple[str, ...], Field(description="named deviations: see `neuronscope list studies`")] = ()


def recorded_spec(options: Mapping[str, Any]) -> SensitivitySpec:
    """The options in a result's provenance; those that are newer than the result have their defaults.

    Example:
        >>> recorded_spec({"points": 64, "an_option_of_another_version": 1}).points
        64
    """
    known = {one.name for one in fields(SensitivitySpec)}
    return SensitivitySpec(**{name: given for name, given in options.items() if name in known})
