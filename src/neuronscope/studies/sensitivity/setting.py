"""The sensitivity study before it starts: images, augmentations, factors, layers, and what its sweeps look at."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, get_args

import numpy as np
from jaxtyping import Int

from neuronscope.augment import LEGACY as AUGMENT_LEGACY
from neuronscope.augment import SETS, Augmentation, augmentations, check_channels
from neuronscope.augment.custom import load_augmentation
from neuronscope.checkpoint import digest
from neuronscope.data import load_data
from neuronscope.data.dataset import Data, framed, one_after_other
from neuronscope.data.design import Design
from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.maths.sobol import check_base
from neuronscope.models.segmented import SegmentLayer, narrowed
from neuronscope.models.subject import Subject
from neuronscope.preprocessing import COLOUR, Preprocess
from neuronscope.run import Run
from neuronscope.steps import Augmented
from neuronscope.studies.sensitivity.analyses.whole import with_comparison_asked
from neuronscope.studies.sensitivity.factors import Integers, Problem, Switches, make_problem
from neuronscope.studies.sensitivity.pieces import looked_at, piece_layers, without_answers
from neuronscope.studies.sensitivity.pool import Pool, halves, make_pool
from neuronscope.studies.sensitivity.spec import LEGACY, PRESETS, AuxiliaryFactor, SensitivitySpec
from neuronscope.units import LayerInfo

LOGGER = logging.getLogger("neuronscope")

_DEPTHS = 4  # layers looked at without a choice, beside the classifier
_LARGE = 2**18  # activations of a layer that is looked at only where it is named
_IN_EXPLICIT = 2  # images of a cell that the image as a factor needs to vary


@dataclass(frozen=True, eq=False)
class Setting:
    """Everything the study was asked for, settled.

    Attributes:
        subject: the network, which is given pixels from 0 to 1 already cut to its size.
        preprocess: of the network as it came: what is done after the augmentations.
        data: the images, cut to the network's size; those of the second partition follow the first.
        partition: of each image, 0 or 1.
        spec, run: options and circumstances.
        layers: checkpoints.
        classifier: layers whose output is the network's.
        augmentations: chosen, with their ranges.
        problem: the factors of Sobol indices.
        shapley_problem: those of Shapley effects: the same but for deviations.
        pieces: of segments, what each layer is of.
    """

    subject: Subject
    preprocess: Preprocess
    data: Data
    partition: Int[np.ndarray, "n"]
    spec: SensitivitySpec
    run: Run
    layers: tuple[LayerInfo, ...]
    classifier: tuple[str, ...]
    augmentations: tuple[Augmentation, ...]
    problem: Problem
    shapley_problem: Problem
    pieces: Mapping[str, SegmentLayer] = field(default_factory=dict)

    def has(self, deviation: str) -> bool:
        """Whether a deviation is in force."""
        return deviation in self.spec.legacy

    def wants(self, estimator: str) -> bool:
        """Whether an estimator was asked for."""
        return estimator in self.spec.estimators

    @property
    def redrawn(self) -> bool:
        """Whether the image is noise, not a factor."""
        return self.has("image-redrawn")

    def block(self, layers: tuple[LayerInfo, ...]) -> Setting:
        """The same for some of the layers, or parts of layers."""
        return replace(self, layers=layers, subject=narrowed(self.subject, layers))

    def step(self, **options: Any) -> Augmented:
        """What looks at a batch of augmented images."""
        return Augmented(
            self.layers,
            self.augmentations,
            mean=self.preprocess.mean,
            std=self.preprocess.std,
            classifier=self.classifier,
            output=self.spec.output,
            range="stretched" if self.has("min-max") else "as it is",
            **options,
        )

    def running(self, rows: Design) -> Run:
        """The run for some rows: its batches hold at least one of their blocks."""
        return replace(self.run, batch_size=max(self.run.batch_size, rows.block))

    @property
    def replicates(self) -> int:
        """Independent estimates."""
        return 1 if self.has("unscrambled") else self.spec.replicates


def settle(subject: Subject, data: Data, spec: SensitivitySpec, run: Run) -> Setting:
    """Choose layers, images, augmentations and factors, and refuse what cannot work.

    Raises:
        UnknownName: a deviation, layer, augmentation or parameter that does not exist.
        InputError: too few images, ranges without values, numbers of points that are no power of two, segments that are
            not the network's.
        DataError: images of the second partition have other classes.
    """
    for name in spec.legacy:
        if name not in LEGACY:
            message = (
                f"'{name}' is not a deviation of the sensitivity study.{nearest(name, LEGACY)} All: {', '.join(LEGACY)}"
            )
            raise UnknownName(message)
    spec = with_comparison_asked(without_answers(spec))
    _check_numbers(spec)
    subject, pieces = looked_at(subject, spec)
    layers = _layers_of(subject, spec)
    chosen = chosen_augmentations(subject.input_shape, spec)
    both, partition = _images(data, spec, run)
    factors = chosen_factors(spec)
    pool = make_pool(
        both,
        partition if "partition" in factors else None,
        by_class="class" in factors,
        least=_IN_EXPLICIT if "image" in factors else 1,
        min_images=spec.min_images,
    )
    problem, shapley_problem = problems(chosen, pool, spec)
    preprocess = subject.preprocess
    if any(layer.units == 0 for layer in layers):
        message = "a layer without units cannot be looked at. Name other layers with --layers"
        raise InputError(message)
    return Setting(
        subject=narrowed(replace(subject, preprocess=Preprocess(channels=preprocess.channels)), layers),
        preprocess=preprocess,
        data=framed(both, preprocess),
        partition=partition,
        spec=spec,
        run=replace(run, context=(*run.context, "sensitivity", digest(spec, both.fingerprint))),
        layers=layers,
        classifier=classifier_of(subject),
        augmentations=chosen,
        problem=problem,
        shapley_problem=shapley_problem,
        pieces=pieces,
    )


def problems(chosen: Sequence[Augmentation], pool: Pool, spec: SensitivitySpec) -> tuple[Problem, Problem]:
    """The factors of Sobol indices, and those of Shapley effects: the same but for deviations."""
    factors = chosen_factors(spec)
    integers: Integers = "continuous" if "rounded-integers" in spec.legacy else "whole"
    switched: Switches = "all" if "switched-shapley" in spec.legacy else spec.switches
    drawn = (*factors, "image") if "image-redrawn" in spec.legacy else factors
    return (
        make_problem(chosen, factors, pool, switches=spec.switches, integers=integers),
        make_problem(chosen, drawn, pool, switches=switched, integers=integers),
    )


def chosen_layers(subject: Subject, spec: SensitivitySpec) -> tuple[LayerInfo, ...]:
    """The checkpoints: those named, or the last layer of each map size and the classifier; of segments all.

    Raises:
        UnknownName: no such layer.
        InputError: segments that are not the network's.
    """
    return _layers_of(looked_at(subject, spec)[0], spec)


def _layers_of(subject: Subject, spec: SensitivitySpec) -> tuple[LayerInfo, ...]:
    """As `chosen_layers`, of the network as it is looked at."""
    if spec.segments:
        return piece_layers(subject, spec.layers)
    if spec.layers:
        names = [name for given in spec.layers for name in PRESETS.get(given, (given,))]
        return subject.select(*names)
    last: dict[tuple[int, ...], LayerInfo] = {}
    for layer in subject.layers:
        if layer.kind != "dropout" and min(layer.map_shape, default=0) > 1 and prod(layer.shape) <= _LARGE:
            last[layer.map_shape] = layer
    names = [layer.name for layer in list(last.values())[-_DEPTHS:]]
    end = (*classifier_of(subject), subject.layers[-1].name)[0]
    return subject.select(*dict.fromkeys([*names, end]))


def classifier_of(subject: Subject) -> tuple[str, ...]:
    """The last layer, where it has one number for each class, and what that module itself ends with."""
    found: tuple[str, ...] = ()
    for layer in reversed(subject.layers):
        inside = not found or layer.name.startswith(f"{found[0]}.")
        if not (inside and prod(layer.shape) == layer.units == len(subject.classes)):
            break
        found = (layer.name, *found)
    return found


def chosen_factors(spec: SensitivitySpec) -> tuple[AuxiliaryFactor, ...]:
    """What varies beside the augmentations: the image is noise, not a factor, under `image-redrawn`."""
    redrawn = "image-redrawn" in spec.legacy
    return tuple(
        name for name in get_args(AuxiliaryFactor) if name in spec.factors and not (redrawn and name == "image")
    )


def chosen_augmentations(input_shape: tuple[int, int, int], spec: SensitivitySpec) -> tuple[Augmentation, ...]:
    """The augmentations that were named, with their ranges.

    Sets leave out what cannot change grey images; a name of its own is refused there.

    Raises:
        UnknownName: an augmentation or a parameter that does not exist.
        InputError: a range that cannot be read or has no values, or colours changed in grey images.
    """
    channels, height, width = input_shape
    legacy = [name for name in AUGMENT_LEGACY if name in spec.legacy]
    known = augmentations(height, width, legacy=legacy)
    found: dict[str, Augmentation] = {}
    for name in spec.augmentations:
        if name in SETS:
            own = [known[one] for one in SETS[name]]
            left_out = [one.name for one in own if one.colours == "rgb" and channels != COLOUR]
            if left_out:
                LOGGER.warning("%s left out of %s: the images are grey", ", ".join(left_out), name)
            found |= {one.name: one for one in own if one.name not in left_out}
        elif name in known:
            found[name] = known[name]
        elif name.startswith("python:"):
            own_one = load_augmentation(name, height=height, width=width)
            found[own_one.name] = own_one
        else:
            close = nearest(name, (*SETS, *known))
            message = (
                f"augmentation '{name}' is not known.{close} Sets: {', '.join(SETS)}; single ones: {', '.join(known)}; "
                "your own: python:FILE:NAME"
            )
            raise UnknownName(message)
    for text in spec.ranges:
        found = _with_range(found, text)
    check_channels(list(found.values()), channels)
    return tuple(found.values())


def _with_range(found: dict[str, Augmentation], text: str) -> dict[str, Augmentation]:
    """The augmentations with one parameter's range as `rotation.angle=-5:5` says."""
    place, equals, ends = text.partition("=")
    name, dot, parameter = place.strip().partition(".")
    low, colon, high = ends.partition(":")
    try:
        limits = (float(low), float(high)) if equals and dot and colon else None
    except ValueError:
        limits = None
    if limits is None:
        message = (
            f"the range '{text}' cannot be read: expected AUGMENTATION.PARAMETER=LOW:HIGH, as in rotation.angle=-5:5"
        )
        raise InputError(message)
    if name not in found:
        message = f"the range '{text}' is of no chosen augmentation.{nearest(name, found)} Chosen: {', '.join(found)}"
        raise UnknownName(message)
    own = found[name]
    names = [one.name for one in own.parameters]
    if parameter not in names:
        close = nearest(parameter, names)
        message = f"'{name}' has no parameter '{parameter}'.{close} It has: {', '.join(names) or 'none'}"
        raise UnknownName(message)
    changed = tuple(
        replace(one, low=limits[0], high=limits[1]) if one.name == parameter else one for one in own.parameters
    )
    return {**found, name: replace(own, parameters=changed)}


def _images(data: Data, spec: SensitivitySpec, run: Run) -> tuple[Data, Int[np.ndarray, "n"]]:
    """All images with their partition."""
    if not spec.other_data:
        return data, halves(data.labels, seed=run.seed)
    other = load_data(spec.other_data, split=spec.other_split or None, seed=run.seed)
    if other.fingerprint == data.fingerprint:
        message = (
            f"--other-data gives the same images as --data ({data.name}): two partitions are two sets of images. Give "
            "others, or leave it out to split the images"
        )
        raise InputError(message)
    return one_after_other(data, other), np.repeat([0, 1], [len(data), len(other)])


def _check_numbers(spec: SensitivitySpec) -> None:
    """Refuse numbers of points and strengths that no design can have.

    Raises:
        InputError: with what to change.
    """
    if "sobol" in spec.estimators:
        check_base(spec.points)
        parts = 1 if "unscrambled" in spec.legacy else spec.replicates
        if spec.points % parts or parts & (parts - 1):
            message = (
                f"{spec.points} base points cannot be shared out to {parts} scrambles of a power of two each: expected "
                "a power of two of --replicates, such as 8, and at least as many --points"
            )
            raise InputError(message)
    if "shapley" in spec.estimators and spec.permutations % spec.replicates:
        message = (
            f"{spec.permutations} permutations cannot be shared out evenly to {spec.replicates} replicates. Take "
            f"{-(-spec.permutations // spec.replicates) * spec.replicates} with --permutations"
        )
        raise InputError(message)
    if any(not 0 < one <= 1 for one in spec.severities) or list(spec.severities) != sorted(set(spec.severities)):
        message = f"severities are {spec.severities}: expected strengths above 0 up to 1, rising, as in 0.25, 0.5, 1"
        raise InputError(message)
