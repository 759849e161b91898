"""The importance study before it starts: which images choose, which report, which layers, classes and groups."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from neuronscope.checkpoint import digest
from neuronscope.data.dataset import Data, class_counts, scatter
from neuronscope.data.sources import load_data
from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.models.subject import Subject
from neuronscope.models.wiring import coupled, silenced_at
from neuronscope.replay import MEMORY
from neuronscope.run import Run
from neuronscope.studies.importance.spec import LEGACY, ImportanceSpec
from neuronscope.units import LayerInfo

LOGGER = logging.getLogger("neuronscope")

_MOST_CLASSES = 20  # more sub-networks than that are not looked at unless they are asked for
_PARTS, _FEW_PARTS = 8, 2  # random parts of the selection images; halves are made of them
_MANY_CLASSES = 50
_LEAST_CONTROLS = 20
_LEAST_IMAGES = 2  # of a class, in the selection and in the report


@dataclass(frozen=True)
class Setting:
    """Everything the study was asked for, settled.

    Attributes:
        subject: the network.
        selection, report: the images that choose units, and the images that findings are reported on.
        rows: of the selection and of the report images in the data that they come from.
        spec, run: options and circumstances.
        layers: whose units are scored.
        silenced: for each of them the layer where a silenced unit is really silent: after normalisation and activation.
        classes: numbers of the classes in question.
        parts: number of random parts of the selection images.
        coupled: layers whose channels are added by skip connections, by their places among the layers.
        groups: for each selection image `label * parts + part`; -1 without a label.
    """

    subject: Subject
    selection: Data
    report: Data
    spec: ImportanceSpec
    run: Run
    layers: tuple[LayerInfo, ...]
    silenced: tuple[LayerInfo, ...]
    classes: tuple[int, ...]
    parts: int
    coupled: tuple[tuple[int, ...], ...]
    groups: Int[np.ndarray, "n"]
    rows: tuple[Int[np.ndarray, "selection"], Int[np.ndarray, "report"]]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in question."""
        return tuple(self.subject.classes[c] for c in self.classes)

    @property
    def by_layer(self) -> dict[str, slice]:
        """Layer -> its rows in the table of units."""
        ends = np.cumsum([layer.units for layer in self.layers])
        return {
            layer.name: slice(int(end) - layer.units, int(end)) for layer, end in zip(self.layers, ends, strict=True)
        }

    @property
    def places(self) -> tuple[slice, ...]:
        """Rows of each layer in the table of units, in the order of the layers."""
        return tuple(self.by_layer.values())

    @property
    def replay_memory(self) -> int:
        """Bytes of activations that replays may hold at once: a half of the run's memory, where that is bounded."""
        return MEMORY if self.run.memory is None else min(MEMORY, self.run.memory // 2)

    def has(self, deviation: str) -> bool:
        """Whether a deviation is in force."""
        return deviation in self.spec.legacy


def settle(subject: Subject, data: Data, spec: ImportanceSpec, run: Run) -> Setting:
    """Choose images, layers and classes, and refuse what cannot work.

    Raises:
        UnknownName: a deviation, layer or class that does not exist.
        InputError: images without labels, labels beyond the network's outputs, a class without enough images, layers
            without units to choose from, too few random sets, or the same images for choosing and reporting.
    """
    for name in spec.legacy:
        if name not in LEGACY:
            message = (
                f"'{name}' is not a deviation of the importance study.{nearest(name, LEGACY)} All: {', '.join(LEGACY)}"
            )
            raise UnknownName(message)
    for option in ("controls", "layer_controls"):
        if 0 < (getattr(spec, option) or 0) < _LEAST_CONTROLS:
            message = (
                f"{option} = {getattr(spec, option)}: so few random sets do not say how they scatter. Give "
                f"{_LEAST_CONTROLS} or more, or 0 to hold findings against nothing"
            )
            raise InputError(message)
    samples = two_samples(data, spec, run)
    selection, report = (sample.images for sample in samples)
    for images in (selection, report):
        _check_labels(subject, images)
    classes = chosen_classes(subject, spec, selection=selection, report=report)
    layers = chosen_layers(subject, spec)
    silenced = []
    for layer in layers:
        where = silenced_at(subject, layer)
        if not where.certain:
            LOGGER.warning("where units of %s are silent is not certain: %s", layer.name, where.reason)
        elif where.layer.name != layer.name:
            LOGGER.info("units of %s are silenced at %s: %s", layer.name, where.layer.name, where.reason)
        silenced.append(where.layer)
    parts = _PARTS if len(subject.classes) <= _MANY_CLASSES else _FEW_PARTS
    order: Literal["none", "file"] = "none"
    if "positional-overlap" in spec.legacy:
        parts, order = 2, "file"
    names = [layer.name for layer in layers]
    named = replace(run, context=(*run.context, "importance", digest(spec)))
    return Setting(
        subject=subject,
        selection=selection,
        report=report,
        spec=spec,
        run=named,
        layers=layers,
        silenced=tuple(silenced),
        classes=classes,
        parts=parts,
        coupled=tuple(tuple(names.index(name) for name in group) for group in coupled(subject, layers)),
        groups=grouped(selection.labels, parts=parts, seed=run.seed, order=order),
        rows=(samples[0].rows, samples[1].rows),
    )


@dataclass(frozen=True)
class Sample:
    """Some images of a data set.

    Attributes:
        images: themselves.
        rows: where they are in the data set.
    """

    images: Data
    rows: Int[np.ndarray, "n"]

    @classmethod
    def mixed(cls, data: Data, rows: Int[np.ndarray, "n"], *, seed: int, name: str | None = None) -> Sample:
        """The images in an order without pattern, so that a batch holds many classes (one lends maps to the next)."""
        chosen = rows[np.argsort(scatter(np.arange(len(rows)), seed=seed), kind="stable")]
        return cls(data.take(chosen, name=name or data.name), chosen)


def two_samples(data: Data, spec: ImportanceSpec, run: Run) -> tuple[Sample, Sample]:
    """Images that choose units and images that report, in an order without pattern.

    Raises:
        InputError: they would be the same images, and `same-images` was not asked for.
    """
    if "same-images" in spec.legacy:
        if spec.report_data:
            message = "same-images reports on the images given: leave out --report-data, or the deviation"
            raise InputError(message)
        rows = np.arange(len(data))
        by_file = "positional-overlap" in spec.legacy  # whose halves are stretches of the file
        both = Sample(data, rows) if by_file else Sample.mixed(data, rows, seed=run.seed)
        return both, both
    if spec.report_data:
        other = load_data(spec.report_data, split=spec.report_split or None, seed=run.seed)
        if data.fingerprint == other.fingerprint:
            message = (
                f"--report-data gives the same images as --data ({data.name}): units chosen on images look good on the "
                "same images. Give others, leave --report-data out to split them, or say --legacy same-images"
            )
            raise InputError(message)
        shared = common_images(data, other)
        if shared:
            message = (
                f"{shared} images of {other.name} are in {data.name} too: units must be chosen on other images than "
                "they are reported on. Give other images, or leave --report-data out to split them"
            )
            raise InputError(message)
        one, two = (Sample.mixed(each, np.arange(len(each)), seed=run.seed) for each in (data, other))
        return one, two
    held = held_out(data.labels, share=spec.report_share, seed=run.seed)
    selection = Sample.mixed(data, np.flatnonzero(~held), seed=run.seed, name=f"{data.name}, selection part")
    report = Sample.mixed(data, np.flatnonzero(held), seed=run.seed, name=f"{data.name}, report part")
    return selection, report


def held_out(labels: Int[np.ndarray, "n"], *, share: float, seed: int) -> Bool[np.ndarray, "n"]:
    """Which images are kept for the report: that share of every class, chosen without pattern."""
    order = scatter(np.arange(len(labels)), seed=seed)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        first = mine[np.argsort(order[mine], kind="stable")]
        held[first[: round(share * len(mine))]] = True
    return held


def common_images(one: Data, other: Data) -> int:
    """How many images of the second set are in the first as well, told by their pixels where these are in memory."""
    if one.pixels is None or other.pixels is None or one.pixels.shape[1:] != other.pixels.shape[1:]:
        return len(set(one.ids) & set(other.ids)) if one.name == other.name else 0
    known = {image.numpy().tobytes() for image in one.pixels}
    return sum(image.numpy().tobytes() in known for image in other.pixels)


def grouped(
    labels: Int[np.ndarray, "n"], *, parts: int, seed: int, order: Literal["none", "file"] = "none"
) -> Int[np.ndarray, "n"]:
    """`label * parts + part`: the images of each class dealt out to the parts in turn, in an order without pattern.

    In the order of the file, the first stretch of each class goes to the first part, the next to the second.
    """
    groups = np.full(len(labels), -1, dtype=np.int64)
    key = scatter(np.arange(len(labels)), seed=seed + 1)
    for label in np.unique(labels[labels >= 0]):
        mine = np.flatnonzero(labels == label)
        if order == "file":
            # of an odd number of images the later stretch has one more, as in the original
            groups[mine] = label * parts + ((np.arange(len(mine)) + 1) * parts - 1) // len(mine)
            continue
        dealt = mine[np.argsort(key[mine], kind="stable")]
        groups[dealt] = label * parts + np.arange(len(dealt)) % parts
    return groups


def chosen_classes(subject: Subject, spec: ImportanceSpec, *, selection: Data, report: Data) -> tuple[int, ...]:
    """The classes in question.

    Raises:
        UnknownName: a class that the network has not.
        InputError: a class without enough images.
    """
    there = np.minimum(*(_counts(images, len(subject.classes)) for images in (selection, report)))
    if not spec.which_class:
        usable = np.flatnonzero(there >= _LEAST_IMAGES)
        if len(usable) < 2:  # noqa: PLR2004 importance compares classes
            message = (
                f"{len(usable)} classes have {_LEAST_IMAGES} images or more in both {selection.name} and {report.name}"
                ": expected at least 2 such classes. Give more labelled images"
            )
            raise InputError(message)
        best = usable[np.argsort(-there[usable], kind="stable")][:_MOST_CLASSES]
        return tuple(sorted(int(c) for c in best))
    chosen = tuple(dict.fromkeys(_class_number(subject, name) for name in spec.which_class))
    for c in chosen:
        if there[c] < _LEAST_IMAGES:
            message = (
                f"class '{subject.classes[c]}' has {int(there[c])} images in {selection.name} or {report.name}: "
                f"expected at least {_LEAST_IMAGES} in each. Choose another class, or give more images"
            )
            raise InputError(message)
    return chosen


def chosen_layers(subject: Subject, spec: ImportanceSpec) -> tuple[LayerInfo, ...]:
    """The layers in question; without a choice the activations, but not the output layer, whose units are the classes.

    Raises:
        UnknownName: no such layer.
        InputError: no layer with units is left.
    """
    layers = subject.select(*spec.layers)
    if not spec.layers:
        layers = tuple(layer for layer in layers if not is_output(subject, layer))
    if not layers:
        message = f"{subject.name} has no layer with units before its output. Name layers with --layers"
        raise InputError(message)
    for layer in layers:
        if layer.units < 2:  # noqa: PLR2004 one unit leaves nothing to choose from
            message = f"layer '{layer.name}' has {layer.units} unit: expected at least 2 to choose from"
            raise InputError(message)
    return layers


def is_output(subject: Subject, layer: LayerInfo) -> bool:
    """Whether a layer's units are the classes themselves: as many, and no weighted layer that mixes them follows."""
    if layer.units != len(subject.classes) or layer not in subject.layers:
        return False
    later = subject.layers[subject.layers.index(layer) + 1 :]
    inside = f"{layer.module_name}."  # a block may be listed before what it consists of
    return not any(one.kind in ("linear", "conv") and not one.name.startswith(inside) for one in later)


def _class_number(subject: Subject, name: str) -> int:
    if name in subject.classes:
        return subject.classes.index(name)
    if name.isdigit() and int(name) < len(subject.classes):
        return int(name)
    message = (
        f"{subject.name} has no class '{name}' among its {len(subject.classes)}.{nearest(name, subject.classes)} "
        "Give names or numbers from 0"
    )
    raise UnknownName(message)


def _counts(data: Data, classes: int) -> Int[np.ndarray, "c"]:
    counts = class_counts(data)
    return np.pad(counts, (0, max(classes - len(counts), 0)))[:classes]


def _check_labels(subject: Subject, data: Data) -> None:
    if not len(data) or not (data.labels >= 0).any():
        message = f"{data.name} has no labelled images: the importance study asks which units carry a class"
        raise InputError(message)
    if int(data.labels.max()) >= len(subject.classes):
        message = (
            f"{data.name} has labels up to {data.labels.max()}, but {subject.name} has {len(subject.classes)} outputs: "
            "network and data do not belong together"
        )
        raise InputError(message)
