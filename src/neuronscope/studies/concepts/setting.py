"""The concepts study before it starts: images with concepts, two samples of them, layers with maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from neuronscope.checkpoint import digest
from neuronscope.data.concepts import ConceptData, concept_options, load_concepts, squashed
from neuronscope.data.dataset import Data, scatter
from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.maths.cells import CELLS
from neuronscope.maths.formula_search import Penalty, Score, SearchSpec
from neuronscope.maths.word_search import INDRES, WordSearchSpec
from neuronscope.models.subject import Subject
from neuronscope.run import Run
from neuronscope.studies.concepts.bounds import chosen_units
from neuronscope.studies.concepts.history import UnitHistory, longest_beams, read_history
from neuronscope.studies.concepts.spec import LEGACY, ConceptsSpec
from neuronscope.units import LayerInfo

_ORIGINAL_MEAN = (124.6901 / 255, 118.6897 / 255, 109.5388 / 255)
_ORIGINAL_STD = (0.224, 0.224, 0.224)  # one divisor for all channels, 255 x 0.224
BOOLEAN: tuple[Literal["or", "and", "and-not"], ...] = ("or", "and", "and-not")
"""Operators that a pixel's own labels decide."""
_BLOCKED = 112  # pixels of a side: 7 blocks of 16
_LEAST_IMAGES = 2
_LEAST_DRAWS = 20


@dataclass(frozen=True)
class Setting:
    """Everything the study was asked for, settled.

    Attributes:
        subject: the network, which sees whole images squashed to its input, as the masks cover them.
        concepts: all images with their concepts.
        searched, reported: rows of the images that formulas are searched on, and of those they are scored on.
        spec, run: options and circumstances.
        layers: whose units are explained.
        history: beams of an earlier run, by unit, to go on from.
    """

    subject: Subject
    concepts: ConceptData
    searched: Int[np.ndarray, "m"]
    reported: Int[np.ndarray, "r"]
    spec: ConceptsSpec
    run: Run
    layers: tuple[LayerInfo, ...]
    history: Mapping[int, UnitHistory] = field(default_factory=dict)

    @property
    def score(self) -> Score:
        """What the search maximises."""
        return Score(self.spec.score, self.spec.multiplier)

    @property
    def report_score(self) -> Score:
        """What held-out formulas are judged by."""
        return Score(self.spec.report_score or self.spec.score, self.spec.multiplier)

    @property
    def search(self) -> SearchSpec:
        """How formulas over pixels are searched."""
        spec = self.spec
        old = "compexp-order" in spec.legacy
        partial = bool(spec.candidates) or set(spec.operators) != set(BOOLEAN)
        return SearchSpec(
            score=self.score,
            length=spec.length,
            beam=spec.beam,
            candidates=spec.candidates or None,
            operators=tuple(one for one in BOOLEAN if spec.operators.count(one)),
            penalty=Penalty(rate=spec.penalty),
            top=1 if old else 1 + spec.alternatives,
            minimum_gain=spec.minimum_gain,
            legacy="compexp" if old else "none",
            certify="none" if old or partial else spec.certify,
            seconds=spec.seconds or None,
        )

    @property
    def word_search(self) -> WordSearchSpec:
        """How formulas over cells are searched."""
        spec = self.spec
        old = "indres-order" in spec.legacy
        firing = spec.probe == "firing"
        return WordSearchSpec(
            score=self.score,
            length=spec.length,
            beam=spec.beam,
            candidates=spec.candidates or (INDRES.candidates if old else None),
            operators=spec.operators,
            penalty=Penalty("linear", spec.penalty or INDRES.penalty.rate) if old else Penalty(rate=spec.penalty),
            top=1 if old else 1 + spec.alternatives,
            minimum_gain=spec.minimum_gain,
            least_coverage=0.0 if firing else spec.least_coverage or (INDRES.least_coverage if old else 0.0),
            abort_images=0 if firing else spec.abort_images or (INDRES.abort_images if old else 0),
            abort_share=spec.abort_share,
            legacy="indres" if old else "none",
            thresholds=spec.thresholds,
            threshold_step=spec.threshold_step,
            threshold_update=spec.threshold_update,
        )


def concept_images(spec: ConceptsSpec, seed: int = 0) -> Data:
    """The images that come with the concepts."""
    return concepts_of(spec, seed=seed).images


def concepts_of(spec: ConceptsSpec, *, seed: int) -> ConceptData:
    """The images with concepts that a spec asks for; for cells with masks that have equal blocks."""
    concepts = load_concepts(
        list(spec.concepts),
        categories=spec.categories or None,
        limit=spec.concept_limit or None,
        side=spec.side or None,
        split=spec.concept_split or None,
        seed=seed,
        options=concept_options(spec.concept_options),
    )
    blocks = all(side % CELLS == 0 for side in concepts.side)
    return concepts if spec.resolution == "pixels" or blocks or spec.side else concepts.at(_BLOCKED)


def settle(subject: Subject, data: Data, spec: ConceptsSpec, run: Run) -> Setting:
    """Load the concepts, split the images, choose layers, and refuse what cannot work.

    Raises:
        UnknownName: a deviation, layer, source or category that does not exist.
        InputError: too few images, or other images than those of the concepts.
        DataError: concept files are missing or wrong.
    """
    for name in spec.legacy:
        if name not in LEGACY:
            message = (
                f"'{name}' is not a deviation of the concepts study.{nearest(name, LEGACY)} All: {', '.join(LEGACY)}"
            )
            raise UnknownName(message)
    if 0 < spec.draws < _LEAST_DRAWS:
        message = (
            f"draws = {spec.draws}: so few do not say how chance scatters. Give {_LEAST_DRAWS} or more, or 0 to hold "
            "formulas against nothing"
        )
        raise InputError(message)
    _expect_sense(spec)
    concepts = concepts_of(spec, seed=run.seed)
    if data.fingerprint != concepts.images.fingerprint:
        message = (
            f"the images are {data.name}, but the concepts are annotated on {concepts.name}: a formula is searched "
            "over images with concepts. Leave --data out, or give the images of the concepts"
        )
        raise InputError(message)
    preprocess = squashed(subject.preprocess)
    if "compexp-input" in spec.legacy:
        preprocess = replace(preprocess, mean=_ORIGINAL_MEAN, std=_ORIGINAL_STD)
    held = _held(len(concepts), share=spec.report_share, seed=run.seed)
    if "same-images" in spec.legacy:
        searched = reported = np.arange(len(concepts))
    else:
        searched, reported = np.flatnonzero(~held), np.flatnonzero(held)
    if min(len(searched), len(reported)) < _LEAST_IMAGES:
        message = (
            f"{concepts.name} has {len(concepts)} images: {len(searched)} to search on and {len(reported)} to score on"
            f", expected {_LEAST_IMAGES} or more of each. Give more images, or another --report-share"
        )
        raise InputError(message)
    layers = chosen_layers(subject, spec)
    history = _history(spec, layers, concepts)
    for layer in layers:
        chosen_units(spec.units, layer.units, layer=layer.name)
    return Setting(
        subject=replace(subject, preprocess=preprocess),
        concepts=concepts,
        searched=searched,
        reported=reported,
        spec=spec,
        run=replace(run, context=(*run.context, "concepts", digest(spec, concepts.fingerprint))),
        layers=layers,
        history=history,
    )


def _expect_sense(spec: ConceptsSpec) -> None:
    """Refuse options that contradict one another.

    Raises:
        InputError: they do.
    """
    cells = spec.resolution == "cells"
    wrong = ""
    if not cells and {"with", "close"} & set(spec.operators):
        wrong = f"operators {', '.join(spec.operators)} look at a pixel's image or neighbours, which needs"
    elif not cells and spec.thresholds == "dynamic":
        wrong = "dynamic thresholds need"
    elif not cells and "indres-order" in spec.legacy:
        wrong = "the deviation indres-order needs"
    if wrong:
        message = (
            f"{wrong} masks of cells, and the resolution is {spec.resolution}. Say --resolution cells, or leave it out"
        )
        raise InputError(message)
    if spec.thresholds == "dynamic" and spec.ranges > 1:
        message = (
            f"thresholds cannot move while activations are cut into {spec.ranges} ranges, which have two ends. Leave "
            "out --thresholds dynamic, or --ranges"
        )
        raise InputError(message)
    if cells and "compexp-order" in spec.legacy:
        message = (
            "the deviation compexp-order is of masks of pixels, and the resolution is cells. Leave one of them out"
        )
        raise InputError(message)


def _history(spec: ConceptsSpec, layers: tuple[LayerInfo, ...], concepts: ConceptData) -> Mapping[int, UnitHistory]:
    """The beams to go on from.

    Raises:
        InputError: several layers, or no such file.
        DataError: it is no history.
    """
    if not spec.jumpstart:
        return {}
    path = Path(spec.jumpstart).expanduser()
    if len(layers) > 1:
        message = f"a history is of one layer, and {len(layers)} are asked for. Say which with --layers"
        raise InputError(message)
    if not path.is_file():
        message = f"no history at {path}: expected a history_FIRST_LAST.txt of an earlier run. Check --jumpstart"
        raise InputError(message)
    names = {concept.number: concept.name for concept in concepts.concepts}
    return longest_beams(read_history(path.read_text(encoding="utf-8"), names, file=str(path)), spec.length)


def chosen_layers(subject: Subject, spec: ConceptsSpec) -> tuple[LayerInfo, ...]:
    """The layers in question; without a choice the last activation that has a map.

    Raises:
        UnknownName: no such layer.
    """
    layers = subject.select(*spec.layers)
    if spec.layers:
        return layers
    with_maps = [layer for layer in layers if len(layer.map_shape) == 2]  # noqa: PLR2004 height and width
    return tuple(with_maps[-1:]) or layers[-1:]


def _held(images: int, *, share: float, seed: int) -> Bool[np.ndarray, "n"]:
    """Which images are kept for the report: that share, without pattern."""
    order = np.argsort(scatter(np.arange(images), seed=seed), kind="stable")
    held = np.zeros(images, dtype=bool)
    held[order[: round(share * images)]] = True
    return held
