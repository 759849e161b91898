"""The concepts study before it starts: images with concepts, two samples of them, layers with maps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from neuronscope.checkpoint import digest
from neuronscope.data.concepts import ConceptData, load_concepts, squashed
from neuronscope.data.dataset import Data, scatter
from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.maths.formula_search import Penalty, Score, SearchSpec
from neuronscope.models.subject import Subject
from neuronscope.run import Run
from neuronscope.studies.concepts.spec import LEGACY, ConceptsSpec
from neuronscope.units import LayerInfo

_ORIGINAL_MEAN = (124.6901 / 255, 118.6897 / 255, 109.5388 / 255)
_ORIGINAL_STD = (0.224, 0.224, 0.224)  # one divisor for all channels, 255 x 0.224
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
    """

    subject: Subject
    concepts: ConceptData
    searched: Int[np.ndarray, "m"]
    reported: Int[np.ndarray, "r"]
    spec: ConceptsSpec
    run: Run
    layers: tuple[LayerInfo, ...]

    @property
    def search(self) -> SearchSpec:
        """How formulas are searched."""
        spec = self.spec
        old = "compexp-order" in spec.legacy
        return SearchSpec(
            score=Score(spec.score, spec.multiplier),
            length=spec.length,
            beam=spec.beam,
            candidates=spec.candidates or None,
            penalty=Penalty(rate=spec.penalty),
            minimum_gain=spec.minimum_gain,
            legacy="compexp" if old else "none",
            certify="none" if old or spec.candidates else spec.certify,
            seconds=spec.seconds or None,
        )


def concept_images(spec: ConceptsSpec, seed: int = 0) -> Data:
    """The images that come with the concepts."""
    return concepts_of(spec, seed=seed).images


def concepts_of(spec: ConceptsSpec, *, seed: int) -> ConceptData:
    """The images with concepts that a spec asks for."""
    return load_concepts(
        list(spec.concepts),
        categories=spec.categories or None,
        limit=spec.concept_limit or None,
        side=spec.side or None,
        seed=seed,
    )


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
    return Setting(
        subject=replace(subject, preprocess=preprocess),
        concepts=concepts,
        searched=searched,
        reported=reported,
        spec=spec,
        run=replace(run, context=(*run.context, "concepts", digest(spec, concepts.fingerprint))),
        layers=chosen_layers(subject, spec),
    )


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
