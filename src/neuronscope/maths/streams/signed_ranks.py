"""Signed ranks of paired differences as a stream: does a treatment move a scalar activation, for millions of them.

Ranks need all differences at once, and 550,000 scalars with 500,000 differences each are a terabyte. But ranks need
only the order, and a float's exponent and first mantissa bits order it well enough: the state counts differences by
sign and by bins of |d|, and the counts themselves say how far the answer can be from that of the exact ranks.

The bins cover a number of octaves below the largest |d| that a scalar has shown, so activations of any scale fit. When
a larger one comes, the window moves up by whole octaves, and what falls out below joins the smallest bin. What is
counted in the end depends on the differences alone, not on their order or on where the stream was cut: a bin inside
the last window was inside all windows before it.

`Histogram` has one fixed window for all cells; here it would take twice the octaves to fit all scalars.

What costs most is to fetch the counts of all scalars from memory and bring them back: batches wait until there are rows
enough for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuronscope.errors import InputError, check_name
from neuronscope.maths.ranks import unit_blocks
from neuronscope.maths.signed_ranks import SignedRanks, point_biserial, signed_ranks_of_counts
from neuronscope.maths.streams.protocol import Seen, State

Pooling = Literal["draws", "images"]
"""What is ranked: the difference of every draw, or each image's mean over its draws."""

POOLINGS: tuple[Pooling, ...] = ("draws", "images")

_MANTISSA_BITS = 23
_MOST_OCTAVES = 253
_MAGNITUDE = 0x7FFFFFFF
_INFINITE = 0x7F800000

_NOTHING = -1
"""Octave of the largest difference before there is one."""

_SMALLEST_BLOCK = 2
"""Rows of a block with one treatment."""

_ON_PROCESSOR, _ON_DEVICE = 2**17, 2**24
"""Numbers worked on at a time: what fits the processor's cache; what fills an accelerator."""

_TOGETHER = 128
"""Rows counted at a time: at 30 the counts would cost twice the time."""

_FINISHED = 2**17
"""Counts read at a time in the end: bounds the memory, and stays in the cache."""

_INT32, _FLOAT32, _FLOAT64 = 4, 4, 8

_COUNTS = ("counts", "top", "nonfinite")
"""Differences in each bin, positive ones first; biased exponent of the largest; how many are not finite."""

_MOMENTS = ("original", "treated", "squares")
"""Means of both groups, and the sum of squared deviations of all values from their common mean."""


@dataclass(frozen=True, eq=False)
class SignedRanksAnswer:
    """The paired contrast of each scalar activation.

    Attributes:
        images: number of images (blocks).
        ranks: signed ranks; equal bins are ties.
        bound: largest possible distance of the rank-biserial correlation from that of the exact ranks (0 to 1).
        point_biserial: correlation of the activation with being treated (-1 to 1).
        difference: mean of the treated less mean of the originals, in the unit of the activation.
        nonfinite: number of differences that were NaN or infinite; such scalars are nan in all the rest.
    """

    images: int
    ranks: SignedRanks
    bound: Float[np.ndarray, "s"]
    point_biserial: Float[np.ndarray, "s"]
    difference: Float[np.ndarray, "s"]
    nonfinite: Int[np.ndarray, "s"]


@dataclass(frozen=True)
class SignedRankHistogram:
    """Signed ranks of treated less original activations, from blocks of rows whose first row is the original.

    With b mantissa bits an octave has 2^b bins. For b = 3 the rank-biserial correlation of normal, Laplace and ReLU
    differences was within 0.0025 of the exact one for 1,000 differences and within 0.0005 for 10,000, a tenth of its
    standard error (Cauchy: 0.03 and 0.01, near the whole of it). The answer's bound is what is guaranteed: about 0.014
    where signs are evenly mixed, half of that with one bit more. Many exact ties make it loose, because it cannot tell
    them from near ones.

    Differences below 2^-octaves of the scalar's largest count as equally small: 16 octaves suffice for activations,
    while probabilities behind a softmax can spread over 40. Activations are taken as float32; rounding their difference
    keeps its order.

    Batches of fewer than 128 rows in all wait in the state as the step handed them over, so they must stay as they are.

    Attributes:
        of: name of a measurement of shape (n, scalars).
        block: rows per block: 1 original and `block - 1` draws of the treatment on the same image.
        pool: `draws` ranks every difference, as the effect is defined; its p-values take draws on one image for
            independent. `images` ranks the images' mean differences, whose p-values are valid.
        mantissa_bits: bins an octave = 2^bits, 0 to 23.
        octaves: powers of two up to the largest difference that are told apart, 1 to 253; none below 2^-125.

    Raises:
        InputError: a block without treatment, or bits or octaves out of range.
        UnknownName: an unknown pooling.

    Example:
        >>> reducer = SignedRankHistogram("maps", block=3)
        >>> maps = torch.tensor([[0.0, 5.0], [1.0, 5.0], [3.0, 4.0]])
        >>> found = reducer.finish(reducer.add(reducer.start(), {"maps": maps}))
        >>> found.ranks.rank_biserial.round(3), found.ranks.zero_share, found.bound
        (array([ 1.   , -0.667]), array([0. , 0.5]), array([0., 0.]))
    """

    of: str
    block: int
    pool: Pooling = "draws"
    mantissa_bits: int = 3
    octaves: int = 16

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        check_name(self.pool, POOLINGS, "pool")
        if self.block < _SMALLEST_BLOCK:
            message = f"a block has 1 original and at least 1 treated row, got {self.block} rows: raise `block`"
            raise InputError(message)
        if not (0 <= self.mantissa_bits <= _MANTISSA_BITS and 1 <= self.octaves <= _MOST_OCTAVES):
            message = (
                f"a float32 has 0 to {_MANTISSA_BITS} mantissa bits and 1 to {_MOST_OCTAVES} octaves, "
                f"got {self.mantissa_bits} and {self.octaves}: 3 bits and 16 octaves suit activations"
            )
            raise InputError(message)

    @property
    def _bins(self) -> int:
        """Bins of one sign: exactly 0, smaller than the window, the window."""
        return (self.octaves << self.mantissa_bits) + 2

    def start(self) -> State:
        """Nothing seen."""
        return {}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch of whole blocks.

        Raises:
            InputError: the batch ends within a block.
        """
        values = seen[self.of].float()
        rows, scalars = values.shape
        if rows % self.block:
            message = (
                f"a batch holds whole blocks of {self.block} rows, got {rows} rows: "
                f"take a batch size that is a multiple of {self.block}"
            )
            raise InputError(message)
        if not rows:
            return state
        state = state or self._empty(scalars, values.device)
        state["waiting"].append(values)
        return self._settled(state, least=_TOGETHER)

    def merge(self, left: State, right: State) -> State:
        """Counts add up, in whatever order; means and squares by Chan's update."""
        if not left or not right:
            return left or right
        for part in unit_blocks(len(left["top"]), images=self._bins, elements=_FINISHED):
            counts, top = left["counts"][part], left["top"][part]
            joint = torch.maximum(top, right["top"][part])
            self._raise_window(counts, top, joint)
            other = right["counts"][part].clone()
            self._raise_window(other, right["top"][part], joint)
            counts += other
            top.copy_(joint)
        left["nonfinite"] += right["nonfinite"]
        if int(right["images"]):
            self._join_moments(left, right)
        left["images"] += right["images"]
        left["waiting"] = [*left["waiting"], *right["waiting"]]
        return self._settled(left, least=_TOGETHER)

    def settled(self, state: State) -> State:
        """The same state with all counted that waits; built on the memory of what is given."""
        return self._settled(state, least=1) if state else state

    def _settled(self, state: State, *, least: int) -> State:
        """Count what waits if it has so many rows."""
        waiting = state["waiting"]
        rows = sum(map(len, waiting))
        if rows < least:
            return state
        images = {"images": state["images"]}
        elements = _ON_PROCESSOR if state["top"].device.type == "cpu" else _ON_DEVICE
        for part in unit_blocks(len(state["top"]), images=rows, elements=elements):
            blocks = torch.cat([values[:, part] for values in waiting]).view(rows // self.block, self.block, -1)
            self._count({name: state[name][part] for name in _COUNTS}, self._differences(blocks))
            self._join_moments({name: state[name][part] for name in _MOMENTS} | images, _moments(blocks))
        state["images"] += rows // self.block
        state["waiting"] = []
        return state

    def finish(self, state: State) -> SignedRanksAnswer:
        """Effects, their bounds, and what tests need.

        Raises:
            InputError: no image was seen.
        """
        if not state:
            message = "no image was seen, so there is nothing to rank: check the data's filter"
            raise InputError(message)
        state = self.settled(state)
        images, scalars = int(state["images"]), len(state["top"])
        count = images * (self.block - 1) if self.pool == "draws" else images
        blocks = unit_blocks(scalars, images=self._bins, elements=_FINISHED)
        parts = [self._ranks(state["counts"][part], count) for part in blocks]
        nonfinite = state["nonfinite"].cpu().numpy()
        broken = nonfinite > 0
        difference = np.where(broken, np.nan, (state["treated"] - state["original"]).cpu().numpy())
        correlation = point_biserial(
            difference, state["squares"].cpu().numpy(), controls=images, treated=images * (self.block - 1)
        )
        ranks = SignedRanks(
            count=count,
            balance=np.where(broken, np.nan, np.concatenate([own.balance for own, _ in parts])),
            zeros=np.concatenate([own.zeros for own, _ in parts]),
            ties=np.where(broken, np.nan, np.concatenate([own.ties for own, _ in parts])),
        )
        bound = np.where(np.isnan(ranks.rank_biserial), np.nan, np.concatenate([bound for _, bound in parts]))
        return SignedRanksAnswer(images, ranks, bound, correlation, difference, nonfinite)

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """For each scalar 4 bytes a bin of either sign, 32 beside them, and the rows that wait: 1,580 as it comes."""
        each = 2 * _INT32 * self._bins + 2 * _INT32 + 3 * _FLOAT64 + _FLOAT32 * (_TOGETHER - 1)
        return each * prod(shapes[self.of])

    def _empty(self, scalars: int, device: torch.device) -> State:
        return {
            "counts": torch.zeros(scalars, 2 * self._bins, dtype=torch.int32, device=device),
            "top": torch.full((scalars,), _NOTHING, dtype=torch.int32, device=device),
            "nonfinite": torch.zeros(scalars, dtype=torch.int32, device=device),
            **{name: torch.zeros(scalars, dtype=torch.float64, device=device) for name in _MOMENTS},
            "images": torch.zeros((), dtype=torch.int64),
            "waiting": [],
        }

    def _differences(self, blocks: Float[Tensor, "b rows s"]) -> Float[Tensor, "m s"]:
        apart = blocks[:, 1:] - blocks[:, :1]
        if self.pool == "draws" or self.block == _SMALLEST_BLOCK:
            return apart.flatten(0, 1)
        # one draw after another: a sum over an axis may group its terms by the shape of the batch
        total = apart[:, 0].double()
        for draw in range(1, self.block - 1):
            total += apart[:, draw]
        return total.div_(self.block - 1).float()

    def _count(self, state: State, difference: Float[Tensor, "m s"]) -> None:
        """Add each difference to its bin.

        The steps are whole-number arithmetic on a float's bits, done in place on a part that stays in the cache.
        """
        bits = difference.view(torch.int32)
        step = bits & _MAGNITUDE
        largest = step.amax(0)
        if int(largest.max()) >= _INFINITE:
            broken = step >= _INFINITE
            state["nonfinite"] += broken.sum(0, dtype=torch.int32)
            step.masked_fill_(broken, 0)
            largest = step.amax(0)
        # a window that starts above the two smallest octaves leaves 0 below it
        top = torch.maximum(state["top"], (largest >> _MANTISSA_BITS).clamp_min(self.octaves + 1))
        self._raise_window(state["counts"], state["top"], top)
        state["top"].copy_(top)
        at_least = step.clamp_max(1)  # 1 for what is merely too small
        step >>= _MANTISSA_BITS - self.mantissa_bits
        step -= ((top - self.octaves + 1) << self.mantissa_bits) - 2
        torch.maximum(step, at_least, out=step)
        bits >>= 31  # all ones for a negative number
        bits &= self._bins
        step += bits
        one = torch.ones((), dtype=torch.int32, device=step.device)
        places = step.t().long()
        state["counts"].scatter_add_(1, places, one.expand(places.shape))

    def _raise_window(self, counts: Int[Tensor, "s bins"], old: Int[Tensor, "s"], new: Int[Tensor, "s"]) -> None:
        """Move counts down where the largest octave went from `old` to `new`; what falls out joins the smallest."""
        rows = ((new > old) & (old > _NOTHING)).nonzero()[:, 0]
        if not len(rows):
            return
        by = (new - old)[rows].clamp_max(self.octaves)  # beyond the window all is small
        for octaves in by.bincount().nonzero()[:, 0].tolist():
            own = rows[by == octaves]
            before = counts.index_select(0, own).view(len(own), 2, self._bins)
            after = torch.zeros_like(before)
            window = 2 + (octaves << self.mantissa_bits)  # the first bin that stays in it
            after[:, :, 0] = before[:, :, 0]
            after[:, :, 1] = before[:, :, 1:window].sum(2, dtype=torch.int32)
            after[:, :, 2 : 2 + self._bins - window] = before[:, :, window:]
            counts.index_copy_(0, own, after.flatten(1))

    def _join_moments(self, left: State, right: State) -> None:
        """Chan's update (1979, equation 2.1) of the left moments, in place."""
        draws, known, new = self.block - 1, int(left["images"]), int(right["images"])
        share = new / (known + new)
        original, treated = right["original"] - left["original"], right["treated"] - left["treated"]
        apart = (original + draws * treated) / self.block
        left["squares"] += right["squares"]
        left["squares"] += apart.square_().mul_(known * share * self.block)
        left["original"] += original.mul_(share)
        left["treated"] += treated.mul_(share)

    def _ranks(self, counts: Int[Tensor, "s bins"], count: int) -> tuple[SignedRanks, Float[np.ndarray, "s"]]:
        by_sign = counts.cpu().numpy().reshape(len(counts), 2, self._bins)
        return signed_ranks_of_counts(by_sign[:, 0, 1:], by_sign[:, 1, 1:], count=count)


def _moments(blocks: Float[Tensor, "b rows s"]) -> State:
    """Of one batch, around its first row, so that a common offset takes no digits."""
    images, rows = blocks.shape[:2]
    near = blocks[0, 0].double()
    centred = blocks.double().sub_(near)
    total, original = centred.sum((0, 1)), centred[:, 0].sum(0)
    # by difference: a sum over the treated rows alone, which do not lie together, takes ten times as long
    treated = (total - original).div_(images * (rows - 1))
    original.div_(images)
    squares = centred.square_().sum((0, 1)).sub_(total.square_().div_(images * rows))
    return {
        "original": original.add_(near),
        "treated": treated.add_(near),
        "squares": squares.clamp_min_(0.0),
        "images": images,
    }
