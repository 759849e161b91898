"""The masking study before it starts: the sensitivity result it is guided by, images, layers, guides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import xarray as xr
from jaxtyping import Int

from neuronscope.augment import Augmentation
from neuronscope.checkpoint import digest
from neuronscope.data.dataset import Data, framed
from neuronscope.data.design import Design
from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.maths.guide_masks import Guide, Rule, configurations, guide
from neuronscope.models.subject import Subject
from neuronscope.preprocessing import Preprocess
from neuronscope.result import Result, open_result
from neuronscope.run import Run
from neuronscope.steps import Augmented
from neuronscope.studies.sensitivity.analyses import class_groups
from neuronscope.studies.sensitivity.joining import join_sets
from neuronscope.studies.sensitivity.masking.spec import LEGACY, MaskingSpec
from neuronscope.studies.sensitivity.setting import chosen_augmentations, classifier_of
from neuronscope.studies.sensitivity.single import balanced_images, drawn, treated
from neuronscope.studies.sensitivity.spec import recorded_spec
from neuronscope.units import LayerInfo

PLAIN = "original"
"""Name of input as it is: the original's."""

_FEWEST = 2  # images that have a scatter


@dataclass(frozen=True)
class Combined:
    """Kinds of input and factors of masks that are tried with each other.

    Attributes:
        augmentations: input comes as it is and under each of them alone.
        variables: factors whose maps guide masks.
    """

    augmentations: tuple[Augmentation, ...]
    variables: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Kinds of input by name."""
        return (PLAIN, *(one.name for one in self.augmentations))


@dataclass(frozen=True, eq=False)
class MaskingSetting:
    """Everything the study was asked for, settled.

    Attributes:
        subject: the network, which is given pixels from 0 to 1 already cut to its size.
        data: the images, cut to the network's size.
        rows: which images are looked at.
        spec, run: options and circumstances.
        layers: whose outputs are scaled, in calling order.
        augmentations: of the sensitivity result, of all sets.
        sets: what is tried with what: augmented input of a set with masks of its own factors.
        guides: (layer, variable) -> guide.
        images: what is done to images before the network.
        softmaxes: taken for probabilities, one of the other.
        classes: the classes that are most sensitive, a group as `analyses.class_groups` makes it.
    """

    subject: Subject
    data: Data
    rows: Int[np.ndarray, "n"]
    spec: MaskingSpec
    run: Run
    layers: tuple[LayerInfo, ...]
    augmentations: tuple[Augmentation, ...]
    sets: tuple[Combined, ...]
    guides: Mapping[tuple[str, str], Guide]
    images: Augmented
    softmaxes: int
    classes: xr.Dataset

    @property
    def rule(self) -> Rule:
        """Which elements are the most sensitive."""
        return "quantiles" if "quantile-masks" in self.spec.legacy else "ranks"

    @property
    def every(self) -> Combined:
        """All kinds of input and all factors."""
        variables = tuple(name for one in self.sets for name in one.variables)
        return Combined(tuple(augmentation for one in self.sets for augmentation in one.augmentations), variables)

    @property
    def controlled(self) -> tuple[Combined, ...]:
        """What random masks are tried with."""
        return self.sets if self.spec.controlled == "all" else (Combined((), self.every.variables),)

    def columns(self, of: Combined) -> tuple[slice, ...]:
        """Of each kind of input, where its rows are in a block."""
        counts = [1, *(self.spec.draws if one.parameters else 1 for one in of.augmentations)]
        ends = np.cumsum(counts)
        return tuple(slice(int(end) - count, int(end)) for count, end in zip(counts, ends, strict=True))

    def design(self, of: Combined) -> Design:
        """A block for each image: as it is, and under each augmentation, draw by draw."""
        treatments = []
        for augmentation, columns in zip(of.augmentations, self.columns(of)[1:], strict=True):
            draws = columns.stop - columns.start
            values = drawn(self.run, augmentation, images=len(self.rows), draws=draws, what="masking")
            treatments += [(augmentation.name, values[:, draw]) for draw in range(draws)]
        return treated(self.data, self.augmentations, self.rows, treatments)

    def running(self, rows: Design) -> Run:
        """The run for some rows: its batches hold at least one of their blocks."""
        return replace(self.run, batch_size=max(self.run.batch_size, rows.block))


def settle(subject: Subject, data: Data, spec: MaskingSpec, run: Run) -> MaskingSetting:
    """Open the sensitivity result, make guides of its maps, choose images, and refuse what does not fit.

    Raises:
        UnknownName: a deviation, layer or variable that does not exist, or that the result has no maps of.
        InputError: no sensitivity result, maps of another network or shape, maps that the result lacks, scales or
            quantiles that are none, or too few labelled images.
        ResultFileError: the result is torn.
    """
    for name in spec.legacy:
        if name not in LEGACY:
            close = nearest(name, LEGACY)
            message = f"'{name}' is not a deviation of the masking study.{close} All: {', '.join(LEGACY)}"
            raise UnknownName(message)
    configurations(spec.scales, spec.quantiles)
    source = opened(spec)
    _check_subject(source, subject, spec)
    layers = layers_of(source, subject, spec)
    maps = {layer.name: _maps(source, layer, spec) for layer in layers}
    variables = _variables(maps[layers[0].name], spec)
    own = recorded_spec(source.provenance.spec)
    augmentations = chosen_augmentations(subject.input_shape, own)
    last = (*classifier_of(subject), subject.layers[-1].name)
    labelled = np.flatnonzero(data.labels >= 0)
    rows = balanced_images(labelled, data.labels[labelled], wanted=spec.images, seed=run.seed)
    if len(rows) < _FEWEST:
        message = f"{data.name} has {len(labelled)} labelled images: at least {_FEWEST} expected. Give more"
        raise InputError(message)
    preprocess = subject.preprocess
    return MaskingSetting(
        subject=replace(subject, preprocess=Preprocess(channels=preprocess.channels)),
        data=framed(data, preprocess),
        rows=rows,
        spec=spec,
        run=replace(run, context=(*run.context, "masking", digest(spec, source.provenance.spec))),
        layers=layers,
        augmentations=augmentations,
        sets=_sets(maps[layers[0].name], augmentations, variables),
        guides=_guides(maps, variables, run),
        images=Augmented(
            (),
            augmentations,
            mean=preprocess.mean,
            std=preprocess.std,
            range="stretched" if "min-max" in own.legacy else "as it is",
        ),
        softmaxes=_softmaxes(subject, last[0]) if "repeated-softmax" in spec.legacy else 1,
        classes=class_groups(source.tree, layers=last[:-1] or last, names=subject.classes)["classes"],
    )


def _softmaxes(subject: Subject, last: str) -> int:
    """How many the original's network ends with: it hooks every module whose name is part of the last layer's."""
    return sum(name in last for name, _ in subject.module.named_modules())


def _sets(
    maps: xr.DataArray, augmentations: tuple[Augmentation, ...], variables: tuple[str, ...]
) -> tuple[Combined, ...]:
    """The sets of a result, one or several that were joined, as far as masks of their factors were asked for."""
    coordinate, names = f"{maps.dims[-1]}_set", _names(maps)
    numbers = maps[coordinate].to_numpy().tolist() if coordinate in maps.coords else [1] * len(names)
    of = dict(zip(names, numbers, strict=True))
    found = (
        Combined(
            tuple(one for one in augmentations if of.get(one.name) == number),
            tuple(name for name in variables if of[name] == number),
        )
        for number in dict.fromkeys(numbers)
    )
    return tuple(one for one in found if one.variables)


def opened(spec: MaskingSpec) -> Result:
    """The sensitivity result that masks are guided by; of several, one with the factors of all.

    Raises:
        InputError: none was named, one of them is of another study, or they do not belong together.
        ResultFileError: there is none, or it is torn.
    """
    if not spec.maps_from:
        message = (
            "masks need maps that guide them: name the folder of a finished sensitivity result with --maps-from, as in "
            "--maps-from runs/sensitivity. Make one with: neuronscope run sensitivity"
        )
        raise InputError(message)
    sources = [open_result(folder) for folder in spec.maps_from]
    for folder, source in zip(spec.maps_from, sources, strict=True):
        if source.provenance.study != "sensitivity":
            message = (
                f"{folder} holds a result of the study '{source.provenance.study}': one of 'sensitivity' expected, "
                "which has maps of factors. Make one with: neuronscope run sensitivity"
            )
            raise InputError(message)
    return sources[0] if len(sources) == 1 else join_sets(sources)


def _named(spec: MaskingSpec) -> str:
    """The folders in a sentence."""
    return " and ".join(spec.maps_from)


def chosen_layers(subject: Subject, spec: MaskingSpec) -> tuple[LayerInfo, ...]:
    """The layers whose outputs are scaled.

    Raises:
        UnknownName: no such layer, or the result has no maps of it.
        InputError: no sensitivity result, maps of another network, or none with positions.
    """
    source = opened(spec)
    _check_subject(source, subject, spec)
    return layers_of(source, subject, spec)


def layers_of(source: Result, subject: Subject, spec: MaskingSpec) -> tuple[LayerInfo, ...]:
    """As `chosen_layers`, of an open result."""
    there = list(source.tree["maps"].children) if "maps" in source.tree.children else []
    if spec.layers:
        layers = subject.select(*spec.layers)
        for layer in layers:
            if layer.name not in there:
                close = nearest(layer.name, there)
                message = (
                    f"{_named(spec)} has no maps of layer '{layer.name}'.{close} It has: {', '.join(there) or 'none'}"
                )
                raise UnknownName(message)
    else:
        layers = tuple(one for one in subject.layers if one.name in there and prod(one.map_shape) > 1)
    if not layers:
        message = (
            f"no layer of {_named(spec)} has maps with positions: {', '.join(there) or 'no maps at all'}. Run the "
            "sensitivity study on convolutions, or name flat layers with --layers"
        )
        raise InputError(message)
    return layers


def _check_subject(source: Result, subject: Subject, spec: MaskingSpec) -> None:
    """Refuse maps of another network.

    Raises:
        InputError: with both fingerprints.
    """
    own = source.provenance
    if own.subject_fingerprint != subject.fingerprint:
        message = (
            f"{_named(spec)} holds maps of another network: {own.subject} with fingerprint "
            f"{own.subject_fingerprint[:12]}, and {subject.name} has {subject.fingerprint[:12]}. Give the network and "
            "the weights that the sensitivity result is of, or run the sensitivity study on this one"
        )
        raise InputError(message)


def _maps(source: Result, layer: LayerInfo, spec: MaskingSpec) -> xr.DataArray:
    """Sensitivity of each element of a layer, the last axis of variables.

    Raises:
        InputError: the result lacks this value, or its maps have another shape.
    """
    group = source.tree[f"maps/{layer.name}"].to_dataset()
    if spec.value not in group:
        message = (
            f"{_named(spec)} has no maps of '{spec.value}' for layer '{layer.name}': it was made with the estimators "
            f"{', '.join(source.provenance.spec.get('estimators', ()))}. Choose another with --value, or make one with "
            "the estimator that is missing"
        )
        raise InputError(message)
    maps = group[spec.value]
    if maps.shape[:-1] != layer.shape:
        message = (
            f"the maps of layer '{layer.name}' in {_named(spec)} have the shape {maps.shape[:-1]}, and its output "
            f"{layer.shape}. Load the network with the input size that the sensitivity result was made with"
        )
        raise InputError(message)
    return maps


def _variables(maps: xr.DataArray, spec: MaskingSpec) -> tuple[str, ...]:
    """Factors whose maps guide masks.

    Raises:
        UnknownName: the result has no maps of it.
    """
    there = _names(maps)
    for name in spec.variables:
        if name not in there:
            close = nearest(name, there)
            message = f"{_named(spec)} has no maps of variable '{name}'.{close} It has: {', '.join(there)}"
            raise UnknownName(message)
    return tuple(name for name in there if name in spec.variables or not spec.variables)


def _names(maps: xr.DataArray) -> list[str]:
    return [str(name) for name in maps[f"{maps.dims[-1]}_name"].to_numpy()]


def _guides(maps: Mapping[str, xr.DataArray], variables: tuple[str, ...], run: Run) -> dict[tuple[str, str], Guide]:
    """A guide from each map; contrasts, which have a sign, count by their size."""
    found = {}
    for layer, own in maps.items():
        names, values = _names(own), own.to_numpy()
        if own.name == "contrast":
            values = np.abs(values)
        for variable in variables:
            rng = run.generator("guide", layer, variable)
            found[layer, variable] = guide(values[..., names.index(variable)], rng=rng)
    return found
