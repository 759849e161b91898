"""Masks compared pixel by pixel: units are enlarged to the concepts' masks, concepts are reduced to label sets."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from neuronscope.data.concepts import ConceptData
from neuronscope.maths.formula_search import SearchSpec, SearchTables, explain, prepare
from neuronscope.maths.formula_search.memory import expected_size, search_bytes
from neuronscope.maths.formulas import Formula, is_boolean, satisfied
from neuronscope.maths.signatures import ImageSignatures, Signatures, UnitCounts, assemble, image_signatures
from neuronscope.run import Run
from neuronscope.steps import Observe
from neuronscope.studies.concepts.agreement import SignatureCoverage
from neuronscope.studies.concepts.bounds import Bounds
from neuronscope.studies.concepts.folds import CountSignatures, Fitting, Holding
from neuronscope.studies.concepts.grid import Explained, Formulas, explained
from neuronscope.studies.concepts.history import UnitHistory
from neuronscope.studies.concepts.spec import ConceptsSpec
from neuronscope.units import LayerInfo

_ANY = 1 << 62
"""More memory than there is."""


@dataclass(frozen=True)
class PixelSearch:
    """What the search of any unit needs: the label sets, settings, and whether only images count where it fires."""

    tables: SearchTables
    spec: SearchSpec
    firing_only: bool


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixel grid.

    Attributes:
        concepts: all images.
        labels: their label sets.
        searched, reported: rows of the two parts.
        spec: how to search.
        firing_only: whether only images count where a unit is active.
    """

    concepts: ConceptData
    labels: Signatures
    searched: Int[np.ndarray, "m"]
    reported: Int[np.ndarray, "r"]
    spec: SearchSpec
    firing_only: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the masks."""
        return self.concepts.side

    @cached_property
    def searched_labels(self) -> Signatures:
        """Label sets of the images searched."""
        return self.labels.part(self.searched)

    @cached_property
    def reported_labels(self) -> Signatures:
        """Label sets of the images reported."""
        return self.labels.part(self.reported)

    def look(self, layers: Sequence[LayerInfo], *measures: str) -> Observe:
        """The layers' own maps."""
        return Observe(tuple(layers), measures=measures, maps=tuple(layer.name for layer in layers))

    def map_shape(self, layer: LayerInfo) -> tuple[int, int]:
        """Those of the layer."""
        return (layer.map_shape[0], layer.map_shape[1]) if len(layer.map_shape) == 2 else (1, 1)  # noqa: PLR2004 a map

    def gather(self, of: str, bounds: Bounds) -> CountSignatures:
        """Counts by label set."""
        return CountSignatures(of, self.searched_labels, bounds, self.shape)

    def cost(self, detectors: int, spec: ConceptsSpec) -> int:
        """4 bytes for each label set, 24 for each image, 8 for each draw and a few bits for formulas."""
        sets, images = len(self.labels), len(self.concepts)
        return detectors * (4 * sets + sets * (1 + spec.length) // 8 + 24 * images + 8 * spec.draws)

    def search_bytes(self) -> int:
        """At most: with every pair of labels that can meet."""
        labels = self.labels
        size = expected_size(
            images=labels.images,
            cells=labels.cells,
            labels=int((labels.area > 0).sum()),
            per_image=-(-len(labels.pair_signature) // max(1, labels.images)),
            width=labels.table.shape[1],
        )
        known = replace(size, signatures=len(labels), entries=min(size.entries, len(labels) * _meeting(size.width)))
        return search_bytes(known, self.spec, units=0, memory=_ANY).peak

    def shared(self) -> PixelSearch:
        """The tables of the images searched."""
        return PixelSearch(prepare(self.searched_labels), self.spec, self.firing_only)

    @staticmethod
    def search(shared: PixelSearch, task: tuple[UnitCounts, Sequence[Formula]]) -> Explained:
        """Explain one unit from its counts and formulas known before."""
        started = time.perf_counter()
        counts, seeds = task
        tables = shared.tables
        if shared.firing_only and counts.area:
            images = np.flatnonzero(counts.images)
            tables = prepare(tables.signatures.part(images))
            counts = replace(counts, images=counts.images[images])
        found = explain(tables, counts, shared.spec, seeds=seeds)
        return explained(found, active=counts.area, seconds=time.perf_counter() - started)

    def fitting(
        self,
        of: str,
        bounds: Bounds,
        formulas: Formulas,
        other: Int[np.ndarray, "draws n"],
        steps: Sequence[Formulas] = (),
    ) -> Fitting:
        """Pixels in common, by detector and image."""
        by_length = tuple(self._holding(one) for one in steps)
        return Fitting(of, self.reported_labels, self._holding(formulas), bounds, self.shape, other, by_length)

    def coverage(self, formulas: Formulas, map_shape: tuple[int, int]) -> SignatureCoverage:
        """Shares of the layer's map cells."""
        return SignatureCoverage(self.reported_labels, self._holding(formulas), self.shape, map_shape)

    def holding(self, formulas: Formulas) -> tuple[Holding, Int[np.ndarray, "s"]]:
        """The label sets that satisfy each formula, with their pixels."""
        return self._holding(formulas), self.reported_labels.weight

    def mask(self, row: int, formula: Formula) -> Bool[np.ndarray, "h w"]:
        """Where a formula holds in one of all images."""
        masks = self.concepts.masks(row)
        alone = assemble([image_signatures(masks.maps, masks.whole.tolist())])
        return np.asarray(satisfied(formula, alone)[alone.signature_map(0)].reshape(self.shape))

    def areas(self) -> dict[int, int]:
        """Pixels of each concept."""
        return dict(enumerate(self.labels.area.tolist()))

    def facts(self) -> dict[str, int]:
        """Label sets, and these counted in each image anew."""
        return {"signatures": len(self.labels), "pairs": len(self.labels.pair_signature)}

    def keep(self, folder: Path) -> list[Path]:  # noqa: ARG002 part of the protocol
        """Nothing: the originals kept masks of cells only."""
        return []

    def start_from(self, history: UnitHistory | None) -> tuple[Formula, ...]:
        """The formulas of its longest beam that pixels can decide."""
        if history is None or not history.beams:
            return ()
        beam = history.beams[max(history.beams)]
        return tuple(entry.formula for entry in beam if is_boolean(entry.formula))

    def _holding(self, formulas: Formulas) -> Holding:
        labels = self.reported_labels
        nowhere = np.zeros(len(labels), dtype=bool)
        holds = [nowhere if formula is None else np.asarray(satisfied(formula, labels)) for formula in formulas]
        return Holding.of(holds, len(labels))


def _meeting(width: int) -> int:
    """Pairs of labels of a label set."""
    return width * (width - 1) // 2


def pixel_grid(
    concepts: ConceptData,
    searched: Int[np.ndarray, "m"],
    reported: Int[np.ndarray, "r"],
    *,
    spec: SearchSpec,
    firing_only: bool,
    run: Run,
) -> Pixels:
    """Reduce all images to label sets, read one at a time."""

    def images() -> Iterator[ImageSignatures]:
        for row in range(len(concepts)):
            masks = concepts.masks(row)
            yield image_signatures(masks.maps, masks.whole.tolist())
            run.progress.advance(1)

    run.progress.start("concepts", len(concepts))
    try:
        labels = assemble(images())
    finally:
        run.progress.finish()
    return Pixels(concepts, labels, searched, reported, spec, firing_only)
