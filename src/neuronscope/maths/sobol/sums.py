"""The fold over a Sobol design: what has to be added up of each block, for every scalar output at once.

First order, total and second-order indices of all groups are ratios of sums of products of the block's rows. The sums
are float64. Products are taken relative to a shift (the mean of the first batch), for the indices do not depend on
where an output has its zero, while the rounding of products does; states with different shifts merge exactly, because
the sums of the rows themselves are kept too.

Columns are worked on in pieces that stay in the processor's cache: the sums then cost a few percent of the forward pass
of a ResNet-18 that made the rows.
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


class _Rows(NamedTuple):
    """Where each sum stands in the tensor of all of them."""

    rows: slice
    squares: int
    ends: int
    product: int
    first: slice
    total: slice
    second: slice


@dataclass(frozen=True)
class SobolSums:
    """Sums over whole blocks of a Sobol design, for several measurements of shape (n, m).

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
            self._fold(values.view(-1, block, values.shape[1]), own["shift"], own["sums"])
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
            sums = own["sums"].cpu().numpy()
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
            )
        return found

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Eight bytes a sum, and the shift."""
        return (int(self._at.second.stop) + 1) * 8 * sum(prod(shapes[name]) for name in self.of)

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
        )

    def _empty(self, values: Tensor) -> State:
        return {
            "count": torch.zeros((), dtype=torch.int64, device=values.device),
            "shift": values.mean(0),
            "sums": values.new_zeros(self._at.second.stop, values.shape[1], dtype=torch.float64),
        }

    def _fold(self, values: Float[Tensor, "k block m"], shift: Float[Tensor, "m"], sums: Tensor) -> None:
        """Add some blocks to the sums, in pieces of columns."""
        columns = values.shape[2]
        width = min(columns, _CACHED if values.device.type == "cpu" else _ON_DEVICE)
        partial = values.new_empty(sums.shape[0], width)
        centred = values.new_empty(values.shape[1], width)
        difference = values.new_empty(self.groups, width)
        for start in range(0, columns, width):
            piece = slice(start, min(start + width, columns))
            few = piece.stop - piece.start
            part = partial[:, :few].zero_()
            for one in values:
                block = torch.sub(one[:, piece], shift[piece], out=centred[:, :few])
                self._fold_block(block, difference[:, :few], part)
            sums[:, piece].add_(part)

    def _fold_block(self, block: Float[Tensor, "block w"], difference: Float[Tensor, "g w"], part: Tensor) -> None:
        """Add one block to partial sums in its own number format."""
        at, g = self._at, self.groups
        a, b, ab = block[0], block[-1], block[1 : g + 1]
        part[at.rows].add_(block)
        for row in block:  # one row at a time adds to one sum in place
            part[at.squares].addcmul_(row, row)
        part[at.ends].addcmul_(a, a).addcmul_(b, b)
        part[at.product].addcmul_(a, b)
        torch.sub(ab, a, out=difference)
        part[at.first].addcmul_(difference, b)
        part[at.total].addcmul_(difference, difference)
        if self.order == "first":
            return
        ba = block[g + 1 : -1]
        if self.halves == "both":
            torch.sub(ba, b, out=difference)
            part[at.first].addcmul_(difference, a)
            part[at.total].addcmul_(difference, difference)
        second, place = part[at.second], 0
        for one in range(g - 1):
            later = second[place : place + g - 1 - one]
            later.addcmul_(ba[one], ab[one + 1 :])
            if self.halves == "both":
                later.addcmul_(ab[one], ba[one + 1 :])
            place += g - 1 - one

    def _merged(self, left: State, right: State) -> State:
        self._move(right["sums"], int(right["count"]), right["shift"].double() - left["shift"].double())
        return {
            "count": left["count"] + right["count"],
            "shift": left["shift"],
            "sums": left["sums"].add_(right["sums"]),
        }

    def _move(self, sums: Tensor, count: int, by: Float[Tensor, "m"]) -> None:
        """Make the sums those of rows that are larger by `by`, in place."""
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
