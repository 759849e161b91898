"""Options of the `clusters` study, its presets of layers, and its named deviations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

LEGACY: dict[str, str] = {
    "first-images": "statistics of the first images in their order, so of the first classes only, not of all alike",
    "one-start": "k-means from one start with seed 42, in place of the best of many: memberships hang on that start",
    "dead-clustered": "units that are never active are clustered with the others, not set apart",
    "strided-images": "explained are the images at every step of n / images, not a sample balanced over classes",
    "float32-sums": "the mass of an attribution is added up in 32 bits",
    "percentile-interval": "bootstrap intervals from percentiles, with the original's seed, in place of BCa",
    "raw-tsne": "t-SNE of unscaled statistics, though the clustering used scaled ones",
}
"""What each named deviation brings back of the program this study comes from."""

PRESETS: dict[str, str] = {f"block_{number}": f"features.denseblock{number}" for number in (1, 2, 3, 4)}
"""Short names of layers of DenseNet, as in the original."""

SHUFFLED = ", shuffled weights"
"""End of the names of maps of a network with shuffled weights."""

MethodName = Literal["ig", "saliency", "signed_saliency", "input_x_gradient", "smoothgrad", "gradcam"]
MetricName = Literal["patch", "pixel"]
Profile = Literal["activation", "gradient"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ClustersSpec:
    """Which layers, how units are clustered, and how the filtered attributions are judged."""

    layers: Annotated[
        tuple[str, ...],
        Field(description="layers by name, glob, kind or preset (block_1 to block_4); default: four, spread in depth"),
    ] = ()
    statistics_images: Annotated[int, Field(ge=2, description="images that statistics of units are made on")] = 1000
    threshold: Annotated[
        float, Field(description="mean activation above which a unit counts as active in an image")
    ] = 0.1
    profiles: Annotated[
        tuple[Profile, ...],
        Field(description="cluster units also by their mean activation in each class, or their attribution there"),
    ] = ()
    clustering: Annotated[Literal["kmeans", "hierarchical"], Field(description="how")] = "kmeans"
    k: Annotated[tuple[int, ...], Field(min_length=1, description="numbers of clusters")] = (2, 3, 4, 5)
    main_k: Annotated[int, Field(ge=2, description="the one with controls, decomposition and panels")] = 3
    n_init: Annotated[int, Field(ge=1, le=1000, description="starts of k-means, of which the best counts")] = 20
    choose: Annotated[Literal["choose", "none"], Field(description="look for the number of clusters that there is")] = (
        "choose"
    )
    clusters_from: Annotated[str, Field(description="folder with stats_BLOCK.npz to cluster, in place of images")] = ""
    images: Annotated[int, Field(ge=2, description="images whose predictions are explained")] = 200
    methods: Annotated[tuple[MethodName, ...], Field(min_length=1, description="attributions")] = ("ig", "saliency")
    steps: Annotated[int, Field(ge=1, le=1000, description="points of integrated gradients, samples of SmoothGrad")] = (
        50
    )
    baseline: Annotated[Literal["mean", "black", "blur"], Field(description="where integrated gradients start")] = (
        "mean"
    )
    target: Annotated[str, Field(description="class explained: label, prediction or a class number")] = "label"
    measure: Annotated[str, Field(description="class whose probability drops: prediction, label or a class number")] = (
        "prediction"
    )
    metrics: Annotated[tuple[MetricName, ...], Field(min_length=1, description="patches of a 14 x 14 grid, pixels")] = (
        "patch",
        "pixel",
    )
    mass: Annotated[float, Field(gt=0, lt=1, description="share of the attribution that sparsity is about")] = 0.9
    drop: Annotated[float, Field(gt=0, lt=1, description="share of patches or pixels replaced")] = 0.1
    fractions: Annotated[
        tuple[float, ...],
        Field(description="shares of patches of the curves of deletion and insertion; none: no curves"),
    ] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
    fill: Annotated[
        Literal["mean", "blur", "noise", "zero", "image mean"], Field(description="what replaces patches or pixels")
    ] = "mean"
    controls: Annotated[int, Field(ge=0, le=1000, description="random unit sets for each cluster of main-k")] = 3
    n_random: Annotated[int, Field(ge=0, description="units of a random set; 0: as many as the cluster has")] = 0
    sanity: Annotated[
        Literal["weights", "none"], Field(description="also attribute with shuffled weights: a map should get bad")
    ] = "weights"
    captum: Annotated[
        tuple[str, ...], Field(description="further unfiltered maps by Captum's names, as in DeepLift,Occlusion")
    ] = ()
    dropped: Annotated[Literal["all", "none"], Field(description="predict with each cluster really silenced")] = "all"
    class_start: Annotated[int, Field(ge=0, description="first class looked at by itself")] = 0
    class_end: Annotated[int, Field(ge=0, description="the class after the last; 0: none is looked at by itself")] = 0
    images_per_class: Annotated[int, Field(ge=1, description="images of each of these classes")] = 50
    panels: Annotated[int, Field(ge=0, le=100, description="images shown with their attributions")] = 4
    panel_k: Annotated[
        tuple[int, ...], Field(description="numbers of clusters that they are shown for, of those of --k; none: main-k")
    ] = ()
    panel_clusters: Annotated[
        str, Field(description="clusters that they are shown without: all, or numbers as in 0,2")
    ] = "0"
    keep_in: Annotated[str, Field(description="folder for attributions, a file for each image; default: none")] = ""
    keep: Annotated[
        Literal["sums", "masses", "whole"],
        Field(description="what of them: sums over channels in half precision, masses of patches, or all of it"),
    ] = "sums"
    draws: Annotated[int, Field(ge=100, description="bootstrap samples of the intervals")] = 10_000
    level: Annotated[float, Field(gt=0.5, lt=1, description="coverage of the intervals")] = 0.95
    legacy: Annotated[tuple[str, ...], Field(description="named deviations: see `neuronscope list studies`")] = ()
