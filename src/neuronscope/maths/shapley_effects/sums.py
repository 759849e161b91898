"""The fold over a Shapley design: what each player adds to the variance, for every scalar output at once.

A block's outputs are taken relative to its first row, and moments relative to the first row of all, so that an output
around 1000 that varies by 1 loses nothing; sums over batches are float64. Outputs are worked in pieces of columns that
stay in the processor's cache: each number is fetched from memory once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuronscope.errors import InputError
from neuronscope.maths.shapley_effects.design import ShapleyDesign
from neuronscope.maths.shapley_effects.effects import ShapleyEffects
from neuronscope.maths.streams import Seen, State

_CACHED = 2**19
"""Outputs worked at a time on a processor (numbers): 2 MiB of float32, a few times over."""

_ON_DEVICE = 2**26
"""Outputs worked at a time elsewhere, where a launch costs more than memory."""


@dataclass(frozen=True)
class ShapleySums:
    """Sums over whole blocks of a Shapley design, for several measurements of shape (n, m).

    Row numbers (`index`) say which players a block is about.

    Attributes:
        of: names of the measurements.
        design: the rows.
    """

    of: tuple[str, ...]
    design: ShapleyDesign

    def start(self) -> State:
        """Nothing seen."""
        return {}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch of whole blocks.

        Raises:
            InputError: a torn block: an image of it was left out.
        """
        blocks = self._blocks_of(seen["index"])
        credit, full = self._credit(blocks), torch.from_numpy(self.design.full(blocks))
        for name in self.of:
            values = seen[name]
            if name not in state:
                state[name] = self._empty(values)
            own = state[name]
            own["blocks"] += len(blocks)
            own["full"] += len(full)
            self._fold(values, own, credit=credit.to(values), full=full.to(values.device))
        return state

    def merge(self, left: State, right: State) -> State:
        """Sums add up once they have the same shift."""
        if not left or not right:
            return left or right
        return {name: self._merged(left[name], right[name]) for name in left}

    def finish(self, state: State) -> dict[str, ShapleyEffects]:
        """The effects by measurement.

        Raises:
            InputError: blocks of the design are missing, or were seen twice.
        """
        return {name: self._effects(own) for name, own in state.items()}

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Eight bytes for each player and the four other numbers of each output, and two counts."""
        return sum(8 * (len(self.design.groups) + 4) * prod(shapes[name]) + 16 for name in self.of)

    def _blocks_of(self, index: Int[Tensor, "n"]) -> Int[np.ndarray, "b"]:
        """Numbers of the blocks of a batch."""
        rows, block = index.cpu().numpy(), self.design.block
        whole = len(rows) % block == 0
        blocks = rows[::block] // block if whole else rows
        if not whole or (rows != (blocks[:, None] * block + np.arange(block)).ravel()).any():
            message = (
                f"a batch of {len(rows)} rows holds no whole blocks of {block}: an image of the design could "
                "not be read. Remove or repair it: a block cannot do without one of its rows"
            )
            raise InputError(message)
        return blocks

    def _credit(self, blocks: np.ndarray) -> Float[Tensor, "g b_steps"]:
        """How each step of each block counts for each player: 1, -1 or 0."""
        added, following = self.design.added(blocks), self.design.following(blocks)
        players = np.arange(len(self.design.groups))[:, None, None]
        credit = (players == added).astype(np.float64) - (players == following[:, None])
        return torch.from_numpy(credit.reshape(len(players), -1))

    def _empty(self, values: Tensor) -> State:
        outputs = values.shape[1]

        def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return values.new_zeros(shape, dtype=dtype)

        return {
            "blocks": zeros(dtype=torch.int64),
            "full": zeros(dtype=torch.int64),
            "shift": values[0].double(),
            "effects": zeros(len(self.design.groups), outputs),
            "rows": zeros(outputs),
            "full_sum": zeros(outputs),
            "full_squares": zeros(outputs),
        }

    def _fold(
        self, values: Float[Tensor, "n m"], own: State, *, credit: Float[Tensor, "g b_steps"], full: Int[Tensor, "f"]
    ) -> None:
        """Add some blocks to the sums, in pieces of columns."""
        most = _CACHED if values.device.type == "cpu" else _ON_DEVICE
        width = max(1, most // len(values))
        by_block = values.reshape(-1, self.design.block, values.shape[1])
        for start in range(0, values.shape[1], width):
            piece = slice(start, start + width)
            shift = own["shift"][piece].to(values.dtype)
            first = by_block[:, :1, piece]
            away = by_block[:, 1:, piece] - first
            own["rows"][piece] += (first - shift).sum((0, 1)) * self.design.block + away.sum((0, 1))
            own["effects"][:, piece] += credit @ self._steps(away).flatten(0, 1)
            if len(full):
                whole = values[:, piece].index_select(0, full).sub_(shift)
                own["full_sum"][piece] += whole.sum(0)
                own["full_squares"][piece] += whole.square_().sum(0)

    def _steps(self, away: Float[Tensor, "b rows w"]) -> Float[Tensor, "b steps w"]:
        """What each step adds to the variance of the block's outputs, given without the first and relative to it."""
        others = away.reshape(len(away), self.design.steps, -1, away.shape[2])
        total, squares = others[:, :, 0], others[:, :, 0].square()
        for draw in range(1, others.shape[2]):
            other = others[:, :, draw]
            squares.addcmul_(other, other)
            total = total + other
        inner = self.design.inner
        variance = squares.addcmul_(total, total, value=-1 / inner).div_(inner - 1)
        gained: Tensor = variance.clone()
        gained[:, 1:] -= variance[:, :-1]
        return gained

    def _merged(self, left: State, right: State) -> State:
        by, full = right["shift"] - left["shift"], right["full"]
        moved = {
            **right,
            "rows": right["rows"] + by * (right["blocks"] * self.design.block),
            "full_sum": right["full_sum"] + by * full,
            "full_squares": right["full_squares"] + by * (2 * right["full_sum"] + by * full),
        }
        return {"shift": left["shift"], **{name: left[name].add_(moved[name]) for name in left if name != "shift"}}

    def _effects(self, own: State) -> ShapleyEffects:
        design, blocks = self.design, int(own["blocks"])
        if blocks != design.blocks:
            message = (
                f"effects need each of the {design.blocks} blocks of a Shapley design once, {blocks} were folded. "
                "For fewer rows, make a design of fewer permutations"
            )
            raise InputError(message)
        full = own["full"]
        squares = own["full_squares"] - own["full_sum"].square() / full
        return ShapleyEffects(
            effects=(own["effects"] / design.walks).cpu().numpy(),
            mean=(own["shift"] + own["rows"] / len(design)).cpu().numpy(),
            variance=(squares.clamp_min(0.0) / (full - 1)).cpu().numpy(),
        )
