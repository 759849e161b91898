"""The fold over a Sobol design: what has to be added up of each block, for every scalar output at once.

First order, total and second-order indices of all groups are ratios of sums of products of the block's rows. The sums
are float64. Products are taken relative to a shift (the mean of the first batch), for the indices do not depend on
where an output has its zero, while the rounding of products does; states with different shifts merge exactly, because
the sums of the rows themselves are kept too.

Rounding is kept account of as well. Products are as precise as the outputs, mostly float32, and in an output that does
not vary but for a few rows, or whose first batch was far from the rest, they may be large while their differences are
nothing. How large they were when they were taken is added up, and says below which variance there is only rounding.

Columns are worked on in pieces that stay in the processor's cache, and several blocks at a time, for what costs most is
to fetch all the sums from memory and bring them back: blocks wait until there are enough. The sums then cost a few
percent of the forward pass of a ResNet-18 that made the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuronscope.errors import InputError
from neuronscope.maths.sobol.design import Order, block_rows
from neuronscope.maths.streams.protocol import Seen, State

Halves = Literal["both", "first"]
"""Which rows an index is made of.

`first`: A, B and the rows AB, and second order from BA_g with AB_h for g < h, as SALib does. `both`: the mean of that
and of the same with A and B exchanged. The rows are there anyway; the error is smaller.
"""

_CACHED = 8192
"""Columns worked on at a time on a processor."""

_ON_DEVICE = 2**20
"""Columns worked on at a time elsewhere."""

_TOGETHER = 4
"""Blocks worked on at a time: half the time of one by one; more would take memory and gain little."""

_MOST_TOGETHER = 16
"""Blocks of a large batch whose products are added up before they join the float64 sums: bounds the rounding."""


@dataclass(frozen=True, eq=False)
class Sums:
    """What a design adds up to, for each scalar output; products are relative to `shift`.

    Attributes:
        count: base points.
        shift: of each output.
        rows: sum of each row of the block, in the order of the design (block, m).
        squares: sum of the squares of all rows (m).
        ends: sum of A^2 + B^2 (m).
        product: sum of A * B (m).
        first: sum of B (AB_g - A), plus A (BA_g - B) with both halves (g, m).
        total: sum of (AB_g - A)^2, plus (BA_g - B)^2 with both halves (g, m).
        second: sum of BA_g * AB_h, plus AB_g * BA_h with both halves, for g < h (pairs, m); no row without second
            order.
        rounding: largest rounding error of the sum of squared deviations that the variance is made of: of all rows
            with both halves, of A and B with the first (m).
        resolution: relative distance of neighbouring numbers in the outputs' number format.
    """

    count: int
    shift: Float[np.ndarray, "m"]
    rows: Float[np.ndarray, "block m"]
    squares: Float[np.ndarray, "m"]
    ends: Float[np.ndarray, "m"]
    product: Float[np.ndarray, "m"]
    first: Float[np.ndarray, "g m"]
    total: Float[np.ndarray, "g m"]
    second: Float[np.ndarray, "pairs m"]
    rounding: Float[np.ndarray, "m"]
    resolution: float


class _Rows(NamedTuple):
    """Where each sum stands; `taken` is that of the squares relative to the shift at the time."""

    rows: slice
    squares: int
    ends: int
    product: int
    first: slice
    total: slice
    second: slice
    taken: int


class _Piece(NamedTuple):
    """Working memory for a piece of columns: a block, and the sums of some blocks in the block's number format.

    Attributes:
        block, squares: of the block at hand (block, w).
        difference: rows of one half less its end (g, w).
        line: of any row (w).
        part: all sums (sums, w).
        pairs: for each g but the last its AB and BA, those of the later ones, and their sums.
    """

    block: Tensor
    squares: Tensor
    difference: Tensor
    line: Tensor
    part: Tensor
    pairs: tuple[tuple[Tensor, Tensor, Tensor, Tensor, Tensor], ...]


@dataclass(frozen=True)
class SobolSums:
    """Sums over whole blocks of a Sobol design, for several measurements of shape (n, m).

    Up to three blocks wait in the state as the step handed them over, so they must stay as they are.

    Attributes:
        of: names of the measurements.
        groups: number of groups of the design.
        order: as the design has it.
        halves: which rows count.

    Raises:
        InputError: `both` halves without second order, for which the rows BA are needed.
    """

    of: tuple[str, ...]
    groups: int
    order: Order = "second"
    halves: Halves = "both"

    def __post_init__(self) -> None:
        """Refuse halves that a design does not have."""
        if self.halves == "both" and self.order == "first":
            message = "both halves of a Sobol design need its rows BA, which only second order has. Set halves='first'"
            raise InputError(message)

    def start(self) -> State:
        """Nothing seen."""
        return {}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch of whole blocks.

        Raises:
            InputError: a torn block: an image of it was left out.
        """
        block = block_rows(self.groups, self.order)
        for name in self.of:
            values = seen[name]
            if len(values) % block:
                message = (
                    f"a batch of {len(values)} rows holds no whole blocks of {block}: an image of the design could "
                    "not be read. Remove or repair it: a block cannot do without one of its rows"
                )
                raise InputError(message)
            if name not in state:
                state[name] = self._empty(values)
            own = state[name]
            own["count"] += len(values) // block
            own["waiting"].extend(values.view(-1, block, values.shape[1]))
            self._fold_waiting(own, least=_TOGETHER)
        return state

    def merge(self, left: State, right: State) -> State:
        """Sums add up once they have the same shift."""
        if not left or not right:
            return left or right
        return {name: self._merged(left[name], right[name]) for name in left}

    def finish(self, state: State) -> dict[str, Sums]:
        """The sums by measurement."""
        at = self._at
        found = {}
        for name, own in state.items():
            self._fold_waiting(own, least=1)
            sums = own["sums"].cpu().numpy()
            resolution = torch.finfo(own["shift"].dtype).eps
            found[name] = Sums(
                count=int(own["count"]),
                shift=own["shift"].double().cpu().numpy(),
                rows=sums[at.rows],
                squares=sums[at.squares],
                ends=sums[at.ends],
                product=sums[at.product],
                first=sums[at.first],
                total=sums[at.total],
                second=sums[at.second],
                rounding=self._relative_rounding * resolution * sums[at.taken],
                resolution=resolution,
            )
        return found

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Eight bytes a sum, and what waits and the shift, four bytes a number."""
        waiting = (_TOGETHER - 1) * block_rows(self.groups, self.order)
        return ((self._at.taken + 1) * 8 + (waiting + 1) * 4) * sum(prod(shapes[name]) for name in self.of)

    @property
    def _at(self) -> _Rows:
        g, block = self.groups, block_rows(self.groups, self.order)
        pairs = g * (g - 1) // 2 if self.order == "second" else 0
        first = block + 3
        return _Rows(
            rows=slice(0, block),
            squares=block,
            ends=block + 1,
            product=block + 2,
            first=slice(first, first + g),
            total=slice(first + g, first + 2 * g),
            second=slice(first + 2 * g, first + 2 * g + pairs),
            taken=first + 2 * g + pairs,
        )

    @property
    def _relative_rounding(self) -> float:
        """Error of a sum of squared deviations over the sum of squares, in units of the resolution.

        Each of k additions errs by half a unit of the sum so far at most, the products and deviations by three halves.
        Squares: a block's rows, then the blocks. A and B: two to each block. The square of the sums that is taken off
        errs by twice what they do.
        """
        squares = block_rows(self.groups, self.order) + _MOST_TOGETHER if self.halves == "both" else 2 * _MOST_TOGETHER
        return (squares + 2 * _MOST_TOGETHER + 3) / 2

    def _empty(self, values: Tensor) -> State:
        return {
            "count": torch.zeros((), dtype=torch.int64, device=values.device),
            "shift": values.mean(0),
            "sums": values.new_zeros(self._at.taken + 1, values.shape[1], dtype=torch.float64),
            "waiting": [],
        }

    def _fold_waiting(self, own: State, *, least: int) -> None:
        """Add the blocks that wait to the sums if there are so many, in pieces of columns."""
        blocks, shift, sums, at = own["waiting"], own["shift"], own["sums"], self._at
        if len(blocks) < least:
            return
        columns = len(shift)
        width = min(columns, _CACHED if shift.device.type == "cpu" else _ON_DEVICE)
        memory = self._piece(shift, width)
        for start in range(0, columns, width):
            piece = slice(start, min(start + width, columns))
            if piece.stop - start < width:
                memory = self._piece(shift, piece.stop - start)
            for together in range(0, len(blocks), _MOST_TOGETHER):
                memory.part.zero_()
                for block in blocks[together : together + _MOST_TOGETHER]:
                    torch.sub(block[:, piece], shift[piece], out=memory.block)
                    self._fold_block(memory)
                sums[: at.taken, piece].add_(memory.part)
                sums[at.taken, piece].add_(memory.part[at.squares if self.halves == "both" else at.ends])
        own["waiting"] = []

    def _piece(self, like: Tensor, width: int) -> _Piece:
        """Memory that all pieces share, cut once: taking views in the innermost loop would cost as much as the sums."""
        g, at = self.groups, self._at
        block, part = like.new_empty(at.squares, width), like.new_empty(at.taken, width)
        ab, ba, sums, pairs, place = block[1 : g + 1], block[g + 1 : -1], part[at.second], [], 0
        for one in range(g - 1) if self.order == "second" else ():
            later = g - 1 - one
            pairs.append((ab[one], ba[one], ab[one + 1 :], ba[one + 1 :], sums[place : place + later]))
            place += later
        return _Piece(
            block=block,
            squares=torch.empty_like(block),
            difference=like.new_empty(g, width),
            line=like.new_empty(width),
            part=part,
            pairs=tuple(pairs),
        )

    def _fold_block(self, memory: _Piece) -> None:
        """Add the block at hand to the partial sums."""
        at, g = self._at, self.groups
        block, part = memory.block, memory.part
        part[at.rows].add_(block)
        torch.mul(block, block, out=memory.squares)
        a, b = memory.squares[0], memory.squares[-1]
        part[at.ends].add_(a).add_(b)
        part[at.squares].add_(torch.sum(memory.squares, 0, out=memory.line))
        a, b = block[0], block[-1]
        part[at.product].addcmul_(a, b)
        self._fold_half(memory, block[1 : g + 1], a, b)
        if self.halves == "both":
            self._fold_half(memory, block[g + 1 : -1], b, a)
        for ab, ba, later_ab, later_ba, sums in memory.pairs:
            sums.addcmul_(ba, later_ab)
            if self.halves == "both":
                sums.addcmul_(ab, later_ba)

    def _fold_half(self, memory: _Piece, rows: Tensor, near: Tensor, far: Tensor) -> None:
        """Add what exchanging each group does to the end `near`, with values of the end `far`."""
        torch.sub(rows, near, out=memory.difference)
        memory.part[self._at.first].addcmul_(memory.difference, far)
        memory.part[self._at.total].addcmul_(memory.difference, memory.difference)

    def _merged(self, left: State, right: State) -> State:
        summed = int(right["count"]) - len(right["waiting"])
        self._move(right["sums"], summed, right["shift"].double() - left["shift"].double())
        merged = {
            "count": left["count"] + right["count"],
            "shift": left["shift"],
            "sums": left["sums"].add_(right["sums"]),
            "waiting": [*left["waiting"], *right["waiting"]],
        }
        self._fold_waiting(merged, least=_TOGETHER)
        return merged

    def _move(self, sums: Tensor, count: int, by: Float[Tensor, "m"]) -> None:
        """Make the sums those of rows that are larger by `by`, in place; `taken` tells what they were before."""
        if not by.any():
            return
        at, g, block = self._at, self.groups, block_rows(self.groups, self.order)
        half = 2 if self.halves == "both" else 1
        rows = sums[at.rows]
        a, b, ab = rows[0], rows[-1], rows[1 : g + 1]
        squared = by.square() * count
        sums[at.squares].add_(2 * by * rows.sum(0) + block * squared)
        sums[at.ends].add_(2 * by * (a + b) + 2 * squared)
        sums[at.product].add_(by * (a + b) + squared)
        sums[at.first].add_(by * (ab - a))
        if self.order == "second":
            ba = rows[g + 1 : -1]
            if self.halves == "both":
                sums[at.first].add_(by * (ba - b))
            for place, (one, other) in enumerate(combinations(range(g), 2)):
                linear = ba[one] + ab[other]
                if self.halves == "both":
                    linear = linear + ab[one] + ba[other]
                sums[at.second][place].add_(by * linear + half * squared)
        rows.add_(by * count)
