"""The clusters study before it starts: images for statistics and images to explain, layers, methods."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Int

from neuronscope.checkpoint import digest
from neuronscope.data.dataset import Data, balanced_rows
from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.maths.faithfulness import PixelFill
from neuronscope.maths.faithfulness import black as black_of
from neuronscope.models.subject import Subject
from neuronscope.quantities import memory_size
from neuronscope.run import Run
from neuronscope.steps.filtered import (
    MEMORY,
    Blurred,
    Colour,
    GradCam,
    InputXGradient,
    IntegratedGradients,
    Method,
    Saliency,
    SmoothGrad,
    black,
)
from neuronscope.studies.clusters.spec import LEGACY, PRESETS, ClustersSpec
from neuronscope.units import LayerInfo

LOGGER = logging.getLogger("neuronscope")

_DEPTHS = 4  # layers looked at without a choice
_FEW_IMAGES = 8  # at a time: every image has a map for each configuration
_LEAST_EXPLAINED = 2
_PANEL_BYTES = 2**31
_MAP_BYTES = 2  # of each pixel of a map that is shown; one more for what each metric replaces


@dataclass(frozen=True)
class Setting:
    """Everything the study was asked for, settled.

    Attributes:
        subject: the network.
        data: all images.
        statistics: rows of the images that statistics are made on.
        explained: rows of the images whose predictions are explained; of others, where there are enough.
        classes: for each class looked at by itself, its number and rows.
        spec, run: options and circumstances.
        layers: where gradients are filtered.
        methods: attributions by name.
        fill: what replaces patches and pixels.
    """

    subject: Subject
    data: Data
    statistics: Int[np.ndarray, "s"]
    explained: Int[np.ndarray, "n"]
    classes: tuple[tuple[int, Int[np.ndarray, "_"]], ...]
    spec: ClustersSpec
    run: Run
    layers: tuple[LayerInfo, ...]
    methods: dict[str, Method]
    fill: PixelFill

    @property
    def target(self) -> Literal["label", "prediction"] | int:
        """The class explained."""
        return class_word(self.spec.target, "target")

    @property
    def measure(self) -> Literal["label", "prediction"] | int:
        """The class whose probability drops."""
        return class_word(self.spec.measure, "measure")

    @property
    def ks(self) -> tuple[int, ...]:
        """Numbers of clusters, ascending; that with controls is among them."""
        return tuple(sorted({*self.spec.k, self.spec.main_k}))

    @property
    def at_once(self) -> int:
        """Bytes of activations and maps that a step may hold."""
        return min(MEMORY, self.run.memory or MEMORY)

    @property
    def shown(self) -> dict[int, tuple[int, ...]]:
        """Number of clusters -> clusters that panels are shown without."""
        return shown_clusters(self.spec) if self.spec.panels else {}

    def has(self, deviation: str) -> bool:
        """Whether a deviation is in force."""
        return deviation in self.spec.legacy


def settle(subject: Subject, data: Data, spec: ClustersSpec, run: Run) -> Setting:
    """Choose layers and images, and refuse what cannot work.

    Raises:
        UnknownName: a deviation or layer that does not exist.
        InputError: too few images, more clusters than units, or options that cannot be.
    """
    for name in spec.legacy:
        if name not in LEGACY:
            message = (
                f"'{name}' is not a deviation of the clusters study.{nearest(name, LEGACY)} All: {', '.join(LEGACY)}"
            )
            raise UnknownName(message)
    for word, name in ((spec.target, "target"), (spec.measure, "measure")):
        class_word(word, name)
    if any(not 0 < share < 1 for share in spec.fractions) or list(spec.fractions) != sorted(set(spec.fractions)):
        message = f"fractions are {spec.fractions}: expected shares between 0 and 1, rising, such as 0.05, 0.1, 0.2"
        raise InputError(message)
    layers = chosen_layers(subject, spec)
    for layer in layers:
        wrong = [k for k in (*spec.k, spec.main_k) if not 2 <= k <= layer.units]  # noqa: PLR2004 one cluster is no clustering
        if wrong:
            message = (
                f"{layer.units} units of '{layer.name}' cannot be put into {wrong[0]} clusters: expected 2 to "
                f"{layer.units}. Give another --k or --main-k, or leave the layer out"
            )
            raise InputError(message)
    _check_panels(subject, spec, layers=len(layers))
    statistics, explained = two_samples(data, spec, run)
    return Setting(
        subject=subject,
        data=data,
        statistics=statistics,
        explained=explained,
        classes=_classes(subject, data, spec),
        spec=spec,
        run=replace(
            run,
            batch_size=min(run.batch_size, _FEW_IMAGES),
            context=(*run.context, "clusters", digest(spec, data.fingerprint)),
        ),
        layers=layers,
        methods={name: _method(name, subject, spec, run) for name in dict.fromkeys(spec.methods)},
        fill=PixelFill(
            spec.fill,
            black=black_of(subject.preprocess.mean, subject.preprocess.std, channels=subject.input_shape[0]),
            seed=run.seed,
        ),
    )


def chosen_layers(subject: Subject, spec: ClustersSpec) -> tuple[LayerInfo, ...]:
    """The layers in question; without a choice the last one of each map size, the four deepest of these.

    Raises:
        UnknownName: no such layer.
        InputError: layers without units to cluster.
    """
    if spec.layers:
        return subject.select(*(PRESETS.get(name, name) for name in spec.layers))
    last: dict[tuple[int, ...], LayerInfo] = {}
    for layer in subject.layers:
        if len(layer.map_shape) == 2 and min(layer.map_shape) > 1 and layer.kind != "dropout":  # noqa: PLR2004 height and width
            last[layer.map_shape] = layer
    found = tuple(last.values())[-_DEPTHS:]
    if not found:
        message = f"{subject.name} has no layer with maps. Name layers with --layers"
        raise InputError(message)
    return found


def class_word(word: str, name: str) -> Literal["label", "prediction"] | int:
    """`label`, `prediction`, or the number of a class.

    Raises:
        InputError: anything else.

    Example:
        >>> class_word("17", "target"), class_word("label", "target")
        (17, 'label')
    """
    if word == "label":
        return "label"
    if word == "prediction":
        return "prediction"
    if word.isdecimal():
        return int(word)
    hint = nearest(word, ("label", "prediction"))
    message = f"{name} '{word}' is neither label nor prediction nor the number of a class.{hint}"
    raise InputError(message)


def shown_clusters(spec: ClustersSpec) -> dict[int, tuple[int, ...]]:
    """Number of clusters -> clusters that panels are shown without.

    Raises:
        InputError: a number of clusters that is not made, clusters that no such clustering has, or no numbers.

    Example:
        >>> shown_clusters(ClustersSpec(panel_k=(2, 3), panel_clusters="0,2"))
        {2: (0,), 3: (0, 2)}
    """
    ks = spec.panel_k or (spec.main_k,)
    unknown = [k for k in ks if k not in (*spec.k, spec.main_k)]
    if unknown:
        made = ", ".join(map(str, sorted({*spec.k, spec.main_k})))
        message = (
            f"panel-k has {unknown[0]}, but units are put into {made} clusters. Give one of these, or add it to --k"
        )
        raise InputError(message)
    words = [word.strip() for word in spec.panel_clusters.split(",") if word.strip()]
    if words == ["all"]:
        return {k: tuple(range(k)) for k in ks}
    if not words or not all(word.isdecimal() for word in words):
        message = f"panel-clusters '{spec.panel_clusters}' is neither all nor numbers of clusters, as in 0,2"
        raise InputError(message)
    numbers = sorted({int(word) for word in words})
    if numbers[-1] >= max(ks):
        message = (
            f"cluster {numbers[-1]} of --panel-clusters does not exist: with {', '.join(map(str, ks))} clusters they "
            f"are 0 to {max(ks) - 1}. Give one of these, or all"
        )
        raise InputError(message)
    return {k: tuple(number for number in numbers if number < k) for k in ks}


def _check_panels(subject: Subject, spec: ClustersSpec, *, layers: int) -> None:
    """Refuse panels that would fill the memory.

    Raises:
        InputError: maps of more than two gigabytes.
    """
    shown = shown_clusters(spec) if spec.panels else {}
    strips = spec.panels * layers * sum(map(len, shown.values())) * len(set(spec.methods))
    parts, pixels = 2 + max(shown, default=0), int(np.prod(subject.input_shape[1:]))
    needed = strips * parts * pixels * (_MAP_BYTES + len(spec.metrics))
    if needed > _PANEL_BYTES:
        message = (
            f"panels of {spec.panels} images at {layers} layers, {sum(map(len, shown.values()))} clusters each, "
            f"take {memory_size(needed)}: at most {memory_size(_PANEL_BYTES)} are kept. Give fewer --panels, --panel-k "
            "or --panel-clusters"
        )
        raise InputError(message)


def two_samples(data: Data, spec: ClustersSpec, run: Run) -> tuple[Int[np.ndarray, "s"], Int[np.ndarray, "n"]]:
    """Rows of the images for statistics, and of those to explain: of other images as far as there are enough.

    Raises:
        InputError: too few images.
    """
    if len(data) < 2 * _LEAST_EXPLAINED:
        message = f"{data.name} has {len(data)} images: {2 * _LEAST_EXPLAINED} or more are needed. Give more images"
        raise InputError(message)
    labels = data.labels
    if "strided-images" in spec.legacy:
        explained = np.arange(0, len(data), max(1, len(data) // spec.images))[: spec.images]
    else:
        explained = np.sort(balanced_rows(labels, limit=min(spec.images, len(data) // 2), seed=run.seed))
    if "first-images" in spec.legacy:
        return np.arange(min(spec.statistics_images, len(data))), explained
    rest = np.setdiff1d(np.arange(len(data)), explained)
    chosen = rest[np.sort(balanced_rows(labels[rest], limit=min(spec.statistics_images, len(rest)), seed=run.seed))]
    return chosen, explained


def _classes(subject: Subject, data: Data, spec: ClustersSpec) -> tuple[tuple[int, Int[np.ndarray, "_"]], ...]:
    """The first images of each class that is looked at by itself.

    Raises:
        InputError: classes that the network does not have, or of which there is no image.
    """
    if not spec.class_end:
        return ()
    if spec.class_end > len(subject.classes) or spec.class_start >= spec.class_end:
        message = (
            f"classes {spec.class_start} to {spec.class_end} (not included) do not exist: {subject.name} has "
            f"{len(subject.classes)}. Give --class-start and --class-end within 0 to {len(subject.classes)}"
        )
        raise InputError(message)
    found = tuple(
        (number, np.flatnonzero(data.labels == number)[: spec.images_per_class])
        for number in range(spec.class_start, spec.class_end)
    )
    missing = [number for number, rows in found if not len(rows)]
    if missing:
        name = subject.classes[missing[0]]
        words = "" if name == str(missing[0]) else f" ({name})"
        message = (
            f"{len(missing)} of the {len(found)} classes have no image in {data.name}, the first of them class "
            f"{missing[0]}{words}. Add their folders, or choose other classes"
        )
        raise InputError(message)
    return found


def _method(name: str, subject: Subject, spec: ClustersSpec, run: Run) -> Method:
    """An attribution by its name."""
    if name == "saliency":
        return Saliency()
    if name == "signed_saliency":
        return Saliency("signed")
    if name == "input_x_gradient":
        return InputXGradient()
    if name == "smoothgrad":
        return SmoothGrad(samples=spec.steps, seed=run.seed)
    if name == "gradcam":
        return GradCam()
    starts: dict[str, Colour | Blurred] = {"mean": Colour(), "black": black(subject.preprocess), "blur": Blurred()}
    start = starts[spec.baseline]
    return IntegratedGradients(steps=spec.steps, baseline=start)
