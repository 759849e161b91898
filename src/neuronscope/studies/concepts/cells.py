"""Masks compared on 7 x 7 cells: concepts are brought down to the resolution of deep layers, units stay as they are.

Annotations are downsampled in place of enlarging maps (Harth 2022), which makes room for operators that look at a
cell's neighbours (CLOSE, CLOSE TO, expanded labels) or at its image (WITH).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt64
from torch import Tensor, nn
from torch.nn import functional

from neuronscope.data.concepts import ConceptData
from neuronscope.data.dataset import Batch
from neuronscope.maths.cells import CELLS, from_words, label_words
from neuronscope.maths.formulas import Formula
from neuronscope.maths.streams import Reducer, Seen, State
from neuronscope.maths.word_search import (
    ConceptWords,
    Start,
    UnitWords,
    WordSearchSpec,
    concept_words,
    expected_bytes,
    explain_words,
    firing_only,
    words_of,
)
from neuronscope.run import Run
from neuronscope.steps import Observe
from neuronscope.studies.concepts.bounds import Bounds
from neuronscope.studies.concepts.folds import FittingWords, Words
from neuronscope.studies.concepts.grid import Explained, Formulas
from neuronscope.studies.concepts.history import UnitHistory
from neuronscope.studies.concepts.spec import ConceptsSpec
from neuronscope.units import LayerInfo

_MAPS = "maps/"  # what the names of whole maps begin with
_BLOCK = 16  # pixels of a block's side that thresholds are stated for


@dataclass(frozen=True)
class ObserveCells:
    """Like `Observe`, with the maps brought to 7 x 7.

    Larger maps are averaged over equal shares of them, smaller ones enlarged bilinearly; maps of 7 x 7 stay as they
    are, and so do flat layers.

    Attributes:
        layers: whose maps.
        measures: names in `MEASURES`, of the layers' own maps.
    """

    layers: tuple[LayerInfo, ...]
    measures: tuple[str, ...] = ()

    @property
    def step(self) -> Observe:
        """What is measured before."""
        return Observe(self.layers, measures=self.measures, maps=tuple(layer.name for layer in self.layers))

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """Measure one batch."""
        seen = dict(self.step(model, batch))
        return {name: on_cells(value) if name.startswith(_MAPS) else value for name, value in seen.items()}

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:
        """Those of `Observe`, with maps of 7 x 7."""
        return {
            name: (shape[0], CELLS, CELLS) if name.startswith(_MAPS) and len(shape) > 1 else shape
            for name, shape in self.step.shapes(outputs).items()
        }

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass."""
        return (1, 0)


def on_cells(maps: Tensor) -> Tensor:
    """Maps brought to 7 x 7: (n, units, h, w) to (n, units, 7, 7); flat layers stay as they are.

    Example:
        >>> on_cells(torch.ones(2, 3, 14, 14)).shape
        torch.Size([2, 3, 7, 7])
    """
    if maps.ndim != 4 or maps.shape[2:] == (CELLS, CELLS):  # noqa: PLR2004 maps have four axes
        return maps
    if min(maps.shape[2:]) >= CELLS:
        return functional.adaptive_avg_pool2d(maps, CELLS)
    return functional.interpolate(maps, size=(CELLS, CELLS), mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class CellSearch:
    """What the search of any unit needs: the words, settings, and whether only images count where it fires."""

    words: ConceptWords
    spec: WordSearchSpec
    firing_only: bool


@dataclass(frozen=True, eq=False)
class UnitMaps:
    """Every detector's words together with its maps: for thresholds that move with the formula.

    Attributes:
        words: where they are active.
        images: images of the pass.
    """

    words: Words

    def start(self) -> State:
        """Nothing seen."""
        shape = (len(self.words.bounds), self.words.images, CELLS, CELLS)
        return {"words": self.words.start(), "maps": torch.zeros(shape, dtype=torch.float32)}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        maps = seen[self.words.of][:, torch.from_numpy(self.words.bounds.unit)].cpu().float()
        if maps.ndim == 2:  # noqa: PLR2004 a flat layer
            maps = maps[:, :, None, None].expand(-1, -1, CELLS, CELLS)
        state["words"] = self.words.add(state["words"], seen)
        state["maps"][:, seen["index"].cpu()] = maps.movedim(1, 0)
        return state

    def merge(self, left: State, right: State) -> State:
        """Images are in one part only."""
        return {"words": self.words.merge(left["words"], right["words"]), "maps": left["maps"] + right["maps"]}

    def finish(self, state: State) -> list[UnitWords]:
        """One entry for each detector."""
        words, maps = self.words.finish(state["words"]), state["maps"].numpy()
        lower = self.words.bounds.lower
        return [UnitWords(words[unit], float(lower[unit]), maps[unit]) for unit in range(len(words))]

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """4 bytes for each cell of each detector and image, and the words."""
        return self.words.size(shapes) * (1 + CELLS * CELLS // 2)


@dataclass(frozen=True, eq=False)
class GatherWords:
    """Every detector's words, one entry for each."""

    words: Words

    def start(self) -> State:
        """Nothing seen."""
        return self.words.start()

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        return self.words.add(state, seen)

    def merge(self, left: State, right: State) -> State:
        """Images are in one part only."""
        return self.words.merge(left, right)

    def finish(self, state: State) -> list[UnitWords]:
        """One entry for each detector."""
        words = self.words.finish(state)
        return [UnitWords(one, float(lower)) for one, lower in zip(words, self.words.bounds.lower, strict=True)]

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """That of the words."""
        return self.words.size(shapes)


@dataclass(frozen=True, eq=False)
class WordCoverage:
    """Which cells formulas cover, image by image."""

    formulas: UInt64[np.ndarray, "d n"]
    flat: bool

    def __call__(self, image: int) -> Float[np.ndarray, "d cells"]:
        """1 where a formula holds; for flat layers its share of the image."""
        cells = from_words(self.formulas[:, image]).reshape(len(self.formulas), -1).astype(np.float32)
        return cells.mean(axis=1, keepdims=True) if self.flat else cells


@dataclass(frozen=True, eq=False)
class Cells:
    """The grid of 7 x 7 cells.

    Attributes:
        concepts: all images.
        words: their concepts, a word each.
        searched, reported: rows of the two parts.
        search_spec: how to search.
        firing_only: whether only images count where a unit is active.
        options: how label masks are downsampled.
    """

    concepts: ConceptData
    words: ConceptWords
    searched: Int[np.ndarray, "m"]
    reported: Int[np.ndarray, "r"]
    search_spec: WordSearchSpec
    firing_only: bool
    options: ConceptsSpec

    @property
    def shape(self) -> tuple[int, int]:
        """7 x 7."""
        return (CELLS, CELLS)

    @cached_property
    def searched_words(self) -> ConceptWords:
        """Words of the images searched."""
        return self.words.part(self.searched)

    @cached_property
    def reported_words(self) -> ConceptWords:
        """Words of the images reported."""
        return self.words.part(self.reported)

    def look(self, layers: Sequence[LayerInfo], *measures: str) -> ObserveCells:
        """The layers' maps, brought to 7 x 7."""
        return ObserveCells(tuple(layers), measures)

    def map_shape(self, layer: LayerInfo) -> tuple[int, int]:
        """7 x 7; flat layers have one position."""
        return (CELLS, CELLS) if len(layer.map_shape) == 2 else (1, 1)  # noqa: PLR2004 a map

    def gather(self, of: str, bounds: Bounds) -> Reducer[list[UnitWords]]:
        """Words, with the maps where thresholds may move."""
        words = Words(of, bounds, len(self.searched))
        return UnitMaps(words) if self.search_spec.thresholds == "dynamic" else GatherWords(words)

    def cost(self, detectors: int, spec: ConceptsSpec) -> int:
        """8 bytes for each image and formula of any length, 36 for counts, and maps where thresholds may move."""
        maps = 4 * CELLS * CELLS * len(self.searched) if spec.thresholds == "dynamic" else 0
        return detectors * (len(self.concepts) * (36 + 8 * spec.length) + 8 * spec.draws + maps)

    def search_bytes(self) -> int:
        """With neighbourhoods and expanded copies, once they are made."""
        images = max(1, self.words.images)
        return expected_bytes(
            images=images, per_image=len(self.words.cells) / images, expansion=self.options.expansions
        )

    def shared(self) -> CellSearch:
        """The words of the images searched."""
        return CellSearch(self.searched_words, self.search_spec, self.firing_only)

    @staticmethod
    def search(shared: CellSearch, task: tuple[UnitWords, Start | None]) -> Explained:
        """Explain one unit from its words, and from where an earlier search stood."""
        started = time.perf_counter()
        unit, start = task
        concepts = shared.words
        if shared.firing_only:
            concepts, unit = firing_only(concepts, unit)
        found = explain_words(concepts, unit, shared.spec, start=start)
        moved = shared.spec.thresholds == "dynamic" and found.choice is not None
        return Explained(
            best=found.best,
            top=found.top,
            choice=found.choice,
            certificate=None,
            beams=found.beams,
            candidates=found.candidates if shared.spec.candidates else (),
            threshold=found.choice.threshold if moved and found.choice is not None else float("nan"),
            active=int(np.bitwise_count(unit.words).sum()),
            seconds=time.perf_counter() - started,
        )

    def fitting(
        self,
        of: str,
        bounds: Bounds,
        formulas: Formulas,
        other: Int[np.ndarray, "draws n"],
        steps: Sequence[Formulas] = (),
    ) -> FittingWords:
        """Cells in common, by detector and image."""
        words = Words(of, bounds, len(self.reported))
        return FittingWords(words, self._words(formulas), other, tuple(self._words(one) for one in steps))

    def coverage(self, formulas: Formulas, map_shape: tuple[int, int]) -> WordCoverage:
        """Which cells formulas cover."""
        return WordCoverage(self._words(formulas), flat=map_shape == (1, 1))

    def holding(self, formulas: Formulas) -> tuple[list[Bool[np.ndarray, "s"]], Int[np.ndarray, "s"]]:
        """The cells of each formula, image by image."""
        words = self._words(formulas)
        return [from_words(one).reshape(-1) for one in words], np.ones(CELLS * CELLS * words.shape[1], dtype=np.int64)

    def mask(self, row: int, formula: Formula) -> Bool[np.ndarray, "h w"]:
        """Where a formula holds in one of all images."""
        cells: Bool[np.ndarray, "h w"] = from_words(words_of(formula, self.words.part(np.array([row]))))[0]
        return cells

    def areas(self) -> dict[int, int]:
        """Cells of each concept."""
        sizes = np.bitwise_count(self.words.cells).astype(np.int64)
        total = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        start = self.words.start
        return {int(number): int(total[start[i + 1]] - total[start[i]]) for i, number in enumerate(self.words.numbers)}

    def facts(self) -> dict[str, int]:
        """Words that are not empty."""
        return {"words": len(self.words.cells)}

    def keep(self, folder: Path) -> list[Path]:
        """`masks_{MD100|imresize}_{X3|regular}.npy`: (labels + 1, n, 7, 7) bool, with expanded copies behind."""
        spec = self.options
        kind = "imresize" if spec.downsampling == "nearest" else f"MD{spec.block_threshold}"
        path = folder / f"masks_{kind}_{f'X{spec.expansions}' if spec.expansions else 'regular'}.npy"
        highest = max((concept.number for concept in self.concepts.concepts), default=0)
        rows = 1 + highest * (2 if spec.expansions else 1)
        table = np.lib.format.open_memmap(path, mode="w+", dtype=bool, shape=(rows, self.words.images, CELLS, CELLS))
        for place, number in enumerate(self.words.numbers.tolist()):
            chosen = slice(int(self.words.start[place]), int(self.words.start[place + 1]))
            table[number, self.words.image[chosen]] = from_words(self.words.cells[chosen])
            if spec.expansions:
                table[highest + number, self.words.image[chosen]] = from_words(self.words.grown[chosen])
        table.flush()
        return [path]

    def start_from(self, history: UnitHistory | None) -> Start | None:
        """Its longest beam with the candidates of the time."""
        if history is None or not history.beams:
            return None
        reached = max(history.beams)
        beam = history.beams[reached]
        dynamic = self.search_spec.thresholds == "dynamic"
        return Start(
            candidates=history.candidates,
            beam=tuple(entry.formula for entry in beam),
            length=reached,
            thresholds=tuple(entry.threshold for entry in beam) if dynamic else (),
        )

    def _words(self, formulas: Formulas) -> UInt64[np.ndarray, "d n"]:
        words = self.reported_words
        found = np.zeros((len(formulas), words.images), dtype=np.uint64)
        for row, formula in enumerate(formulas):
            if formula is not None:
                found[row] = words_of(formula, words)
        return found


def cell_grid(
    concepts: ConceptData,
    searched: Int[np.ndarray, "m"],
    reported: Int[np.ndarray, "r"],
    *,
    search: WordSearchSpec,
    spec: ConceptsSpec,
    run: Run,
) -> Cells:
    """Reduce all images to words, read one at a time.

    The block threshold is stated for masks of 112 x 112; it is scaled with the blocks of others.
    """
    pixels = concepts.side[0] * concepts.side[1] / CELLS**2
    threshold = max(1, round(spec.block_threshold * pixels / _BLOCK**2))

    def images() -> Iterator[tuple[Int[np.ndarray, "k"], UInt64[np.ndarray, "k"]]]:
        for row in range(len(concepts)):
            masks = concepts.masks(row)
            yield label_words(masks.maps, whole=masks.whole, rule=spec.downsampling, threshold=threshold)
            run.progress.advance(1)

    run.progress.start("concepts", len(concepts))
    try:
        words = concept_words(images(), expansion=spec.expansions)
    finally:
        run.progress.finish()
    return Cells(concepts, words, searched, reported, search, spec.probe == "firing", spec)
