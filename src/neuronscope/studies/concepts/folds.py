"""What a pass over the images leaves of detectors: counts of label sets, words of cells, and how formulas fit.

The reducers take whole maps of a layer and keep whole numbers only. A detector is a unit with the activations at which
it counts as active (`Bounds`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8, UInt64
from torch import Tensor

from neuronscope.maths.cells import CELLS, to_words
from neuronscope.maths.signature_counts import active_positions, batch_labels, count_batch
from neuronscope.maths.signatures import CountFold, Signatures, UnitCounts, signature_of
from neuronscope.maths.streams import Seen, State
from neuronscope.studies.concepts.bounds import Bounds
from neuronscope.studies.concepts.fit import Fit

_WORD = 64
"""Bits of a word."""

_MOST_MASKS = 1 << 29
"""Bytes of formulas' masks that are held for the null."""


@dataclass(frozen=True, eq=False)
class CountSignatures:
    """Active pixels of every detector by label set.

    Attributes:
        of: measurement with a layer's maps (n, units, height, width), or (n, units) for a flat layer.
        signatures: the label sets of the images; image i of the pass is image i there.
        bounds: the detectors; one whose lower bound is nan is never active.
        shape: height and width of the masks.
    """

    of: str
    signatures: Signatures
    bounds: Bounds
    shape: tuple[int, int]

    @property
    def fold(self) -> CountFold:
        """Counts as the search wants them."""
        return CountFold(self.signatures, len(self.bounds))

    def start(self) -> State:
        """Nothing seen."""
        return {name: torch.from_numpy(values) for name, values in self.fold.start().items()}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch, counted on the device that its maps are on."""
        maps, lower, upper = _detecting(seen[self.of], self.bounds)
        labels = batch_labels(self.signatures, seen["index"].cpu().numpy(), device=maps.device)
        return count_batch(state, maps, labels=labels, shape=self.shape, lower=lower, upper=upper)

    def merge(self, left: State, right: State) -> State:
        """Counts add up."""
        return {name: left[name] + right[name] for name in left}

    def finish(self, state: State) -> LazyCounts:
        """Counts of each detector, made when asked for."""
        return LazyCounts(self.signatures, state["active"].numpy(), state["images"].numpy())

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:  # noqa: ARG002 part of the protocol
        """4 bytes for each detector and label set, and each detector and image."""
        return self.fold.nbytes


@dataclass(frozen=True, eq=False)
class LazyCounts(Sequence[UnitCounts]):
    """Counts of many detectors in 32 bits; one detector's in full when asked for, as all together would be large."""

    signatures: Signatures
    active: Int[np.ndarray, "d s"]
    images: Int[np.ndarray, "d n"]

    def __len__(self) -> int:
        """Number of detectors."""
        return len(self.active)

    def __getitem__(self, detector: Any) -> Any:
        """Counts of one detector."""
        fold = CountFold(self.signatures, 1)
        one = {"active": self.active[[detector]], "images": self.images[[detector]]}
        return next(fold.finish(one))


@dataclass(frozen=True, eq=False)
class Words:
    """Where every detector is active on the 7 x 7 grid: a 64-bit word for each image.

    Attributes:
        of: measurement with a layer's maps on the grid (n, units, 7, 7), or (n, units) for a flat layer.
        bounds: the detectors.
        images: images of the pass.
    """

    of: str
    bounds: Bounds
    images: int

    def start(self) -> State:
        """Nothing seen."""
        return {"words": torch.zeros((len(self.bounds), self.images), dtype=torch.int64)}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        inside = self.bounds.inside(seen[self.of]).cpu().numpy()
        if inside.ndim == 2:  # noqa: PLR2004 a flat layer: one number for the whole image
            inside = np.broadcast_to(inside[:, :, None, None], (*inside.shape, CELLS, CELLS))
        words = torch.from_numpy(to_words(inside).view(np.int64).T.copy())
        state["words"][:, seen["index"].cpu()] = words
        return state

    def merge(self, left: State, right: State) -> State:
        """Images are in one part only."""
        return {"words": left["words"] | right["words"]}

    def finish(self, state: State) -> UInt64[np.ndarray, "d n"]:
        """The words."""
        words: UInt64[np.ndarray, "d n"] = state["words"].numpy().view(np.uint64)
        return words

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:  # noqa: ARG002 part of the protocol
        """8 bytes for each detector and image."""
        return 8 * len(self.bounds) * self.images


@dataclass(frozen=True, eq=False)
class Holding(Sequence[np.ndarray]):
    """Which label sets satisfy the formula of each detector, in bits.

    Attributes:
        packed: eight label sets a byte.
        sets: number of label sets.
    """

    packed: UInt8[np.ndarray, "d bytes"]
    sets: int

    @classmethod
    def of(cls, holds: Sequence[Bool[np.ndarray, "s"]], sets: int) -> Holding:
        """Of tables of truth values."""
        packed = [np.packbits(one) for one in holds]
        return cls(np.stack(packed) if packed else np.zeros((0, -(-sets // 8)), np.uint8), sets)

    def __len__(self) -> int:
        """Number of detectors."""
        return len(self.packed)

    def __getitem__(self, detector: Any) -> Any:
        """The label sets of one formula, or of some."""
        if isinstance(detector, slice):
            return [self.row(number) for number in range(*detector.indices(len(self)))]
        return self.row(detector)

    def row(self, detector: int) -> Bool[np.ndarray, "s"]:
        """The label sets of one detector's formula."""
        return np.unpackbits(self.packed[detector], count=self.sets).astype(bool)

    def at(self, detector: Int[np.ndarray, "m"], number: Int[np.ndarray, "m"]) -> Bool[np.ndarray, "m"]:
        """Whether label sets satisfy the formulas of detectors, one by one."""
        found: np.ndarray = (self.packed[detector, number >> 3] >> (~number & 7).astype(np.uint8)) & 1
        return found.astype(bool)


@dataclass(frozen=True, eq=False)
class Fitting:
    """How well each detector's formula fits it, and how well it fits when masks are laid over other images.

    Attributes:
        of: measurement with a layer's maps.
        signatures: the label sets of the images.
        holds: the label sets that satisfy each formula.
        bounds: the detectors.
        shape: height and width of the masks.
        other: for each draw, the image whose labels each image's mask is laid over.
        steps: the label sets that satisfy the best formula of each length; none where nobody asks for these.
    """

    of: str
    signatures: Signatures
    holds: Holding
    bounds: Bounds
    shape: tuple[int, int]
    other: Int[np.ndarray, "draws n"]
    steps: Sequence[Holding] = ()

    def start(self) -> State:
        """Nothing seen."""
        table = torch.zeros((len(self.bounds), self.signatures.images), dtype=torch.int32)
        draws = torch.zeros((len(self.bounds), len(self.other)), dtype=torch.int64)
        steps = torch.zeros((len(self.bounds), len(self.steps)), dtype=torch.int64)
        return {"active": table, "hits": table.clone(), "chance": draws, "steps": steps}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        rows, count = seen["index"].cpu().numpy(), len(self.bounds)
        masks = self._masks
        words = None if masks is None else np.zeros((count, len(rows), masks.shape[2]), dtype=np.uint64)
        for tensors in _positions(seen[self.of], self.bounds, self.shape):
            unit, image, pixel = (tensor.cpu().numpy() for tensor in tensors)
            own = rows[image]
            numbers = signature_of(self.signatures, own, pixel)
            there = self.holds.at(unit, numbers)
            cell = unit * len(rows) + image
            for name, cells in (("active", cell), ("hits", cell[there])):
                more = np.bincount(cells, minlength=count * len(rows)).reshape(count, len(rows))
                state[name][:, rows] += torch.from_numpy(more).int()
            for length, holds in enumerate(self.steps):
                state["steps"][:, length] += _counted(unit[holds.at(unit, numbers)], count)
            if words is not None:
                bit = np.left_shift(np.uint64(1), (pixel % _WORD).astype(np.uint64))
                np.bitwise_or.at(words, (unit, image, pixel // _WORD), bit)
                continue
            for draw, other in enumerate(self.other):
                by_chance = self.holds.at(unit, signature_of(self.signatures, other[own], pixel))
                state["chance"][:, draw] += _counted(unit[by_chance], count)
        if masks is not None and words is not None:
            for draw, other in enumerate(self.other):
                both = np.bitwise_count(words & masks[:, other[rows]]).sum(axis=(1, 2), dtype=np.int64)
                state["chance"][:, draw] += torch.from_numpy(both)
        return state

    @cached_property
    def _masks(self) -> UInt64[np.ndarray, "d n words"] | None:
        """Every formula's mask of every image in bits: a draw of the null is then an AND for each 64 pixels.

        None where they would be too large, or nobody draws: then each active pixel is looked up.
        """
        signatures, pixels = self.signatures, int(np.prod(self.shape))
        words = -(-pixels // _WORD)
        if not len(self.other) or 8 * len(self.bounds) * signatures.images * words > _MOST_MASKS:
            return None
        masks = np.zeros((len(self.bounds), signatures.images, words), dtype=np.uint64)
        truth = np.stack([self.holds.row(detector) for detector in range(len(self.bounds))])
        bits = np.zeros((len(self.bounds), words * _WORD), dtype=bool)
        for image in range(signatures.images):
            bits[:, :pixels] = truth[:, signatures.signature_map(image)]
            masks[:, image] = _packed(bits)
        return masks

    def merge(self, left: State, right: State) -> State:
        """Counts add up."""
        return {name: left[name] + right[name] for name in left}

    def finish(self, state: State) -> Fit:
        """Counts of pixels."""
        signatures = self.signatures
        areas = np.zeros((len(self.bounds), signatures.images), dtype=np.int32)
        filled = np.flatnonzero(np.diff(signatures.start))
        for detector in range(len(self.bounds)):
            weights = signatures.pair_pixels * self.holds.row(detector)[signatures.pair_signature]
            if len(filled):
                areas[detector, filled] = np.add.reduceat(weights, signatures.start[filled])
        steps = np.zeros((len(self.bounds), len(self.steps)), dtype=np.int64)
        for length, holds in enumerate(self.steps):
            for detector in range(len(self.bounds)):
                steps[detector, length] = signatures.weight[holds.row(detector)].sum()
        return Fit(
            active=state["active"].numpy(),
            hits=state["hits"].numpy(),
            areas=areas,
            chance=state["chance"].numpy(),
            other=self.other,
            cells=int(np.prod(self.shape)),
            step_hits=state["steps"].numpy(),
            step_areas=steps,
        )

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:  # noqa: ARG002 part of the protocol
        """8 bytes for each detector and draw, 12 for each detector and image, and formulas' masks where held."""
        held = 8 * len(self.bounds) * self.signatures.images * -(-int(np.prod(self.shape)) // _WORD)
        masks = held if len(self.other) and held <= _MOST_MASKS else 0
        return len(self.bounds) * (8 * len(self.other) + 12 * self.signatures.images) + masks


@dataclass(frozen=True, eq=False)
class FittingWords:
    """The same on the 7 x 7 grid.

    Attributes:
        words: where detectors are active.
        formulas: cells of each detector's formula.
        other: for each draw, the image whose labels each image's mask is laid over.
        steps: cells of the best formula of each length.
    """

    words: Words
    formulas: UInt64[np.ndarray, "d n"]
    other: Int[np.ndarray, "draws n"]
    steps: Sequence[UInt64[np.ndarray, "d n"]] = ()

    def start(self) -> State:
        """Nothing seen."""
        return self.words.start()

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        return self.words.add(state, seen)

    def merge(self, left: State, right: State) -> State:
        """Images are in one part only."""
        return self.words.merge(left, right)

    def finish(self, state: State) -> Fit:
        """Counts of cells."""
        active, draws = self.words.finish(state), len(self.other)
        chance = np.zeros((len(active), draws), dtype=np.int64)
        for draw, other in enumerate(self.other):
            chance[:, draw] = np.bitwise_count(active & self.formulas[:, other]).sum(axis=1, dtype=np.int64)
        step_hits, step_areas = (
            np.stack([np.bitwise_count(one).sum(axis=1, dtype=np.int64) for one in words], axis=1)
            if self.steps
            else np.zeros((len(active), 0), dtype=np.int64)
            for words in ([active & one for one in self.steps], list(self.steps))
        )
        return Fit(
            active=np.bitwise_count(active).astype(np.int32),
            hits=np.bitwise_count(active & self.formulas).astype(np.int32),
            areas=np.bitwise_count(self.formulas).astype(np.int32),
            chance=chance,
            other=self.other,
            cells=CELLS * CELLS,
            step_hits=step_hits,
            step_areas=step_areas,
        )

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """8 bytes for each detector and image, and 28 for what is counted in the end."""
        return self.words.size(shapes) * 4


def firing(
    maps: Float[np.ndarray, "n u *map"], bounds: Bounds, *, shape: tuple[int, int]
) -> Iterator[tuple[Int[np.ndarray, "m"], Int[np.ndarray, "m"], Int[np.ndarray, "m"]]]:
    """Where detectors are active, maps being enlarged bilinearly, some at a time: detectors, images and pixels."""
    for tensors in _positions(torch.from_numpy(maps), bounds, shape):
        detector, image, pixel = (tensor.numpy() for tensor in tensors)
        yield detector, image, pixel


def _positions(maps: Tensor, bounds: Bounds, shape: tuple[int, int]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    chosen, lower, upper = _detecting(maps, bounds)
    return active_positions(chosen, lower=lower, upper=upper, shape=shape)


def _detecting(maps: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor, Tensor | None]:
    """The detectors' maps, and their bounds, where the maps are; a flat layer has maps of a single position."""
    whole = maps[:, :, None, None] if maps.ndim == 2 else maps  # noqa: PLR2004 a flat layer
    unit, lower, upper = (torch.from_numpy(one).to(maps.device) for one in bounds.arrays)
    return whole[:, unit], lower, upper if bool(torch.isfinite(upper).any()) else None


def _packed(bits: Bool[np.ndarray, "*s pixels"]) -> UInt64[np.ndarray, "*s words"]:
    """64 pixels to a word, the first in the lowest bit; there must be a multiple of them."""
    words: UInt64[np.ndarray, "*s words"] = np.packbits(bits, axis=-1, bitorder="little").view("<u8").astype(np.uint64)
    return words


def _counted(numbers: Int[np.ndarray, "m"], size: int) -> Tensor:
    return torch.from_numpy(np.bincount(numbers, minlength=size))
