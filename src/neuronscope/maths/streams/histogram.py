"""Distributions as streams: a histogram over the bits of a float, and the exact upper tail.

A float's exponent and first mantissa bits are a logarithmic bin number for free. Counts are integers, so histograms
merge in any order without loss, and every quantile read from one has a known relative error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, prod

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuronscope.errors import InputError
from neuronscope.maths.streams.protocol import Seen, State

_MANTISSA_BITS = 23
_EXPONENT_BIAS = 127


@dataclass(frozen=True)
class HistogramCounts:
    """Counts of each unit's values in logarithmic bins of both signs.

    Attributes:
        counts: values in each bin.
        edges: bin edges in ascending order, one more than bins; the outermost bins hold everything beyond them.
        relative_error: bound of a quantile's relative error inside the covered range (its absolute error is below the
            smallest positive edge near 0).
        nonfinite: values that were NaN or infinite, in no bin.
    """

    counts: Int[np.ndarray, "u bins"]
    edges: Float[np.ndarray, "edges"]
    relative_error: float
    nonfinite: Int[np.ndarray, "u"]

    def quantile(self, level: float) -> Float[np.ndarray, "u"]:
        """The value below or at which a fraction `level` (0 to 1) lies; nan for units with non-finite values."""
        cumulative = self.counts.cumsum(axis=1)
        total = cumulative[:, -1]
        share = Fraction(str(level))
        rank = np.array([max(ceil(share * int(count)), 1) for count in total])
        column = (cumulative < rank[:, None]).sum(axis=1).clip(max=self.counts.shape[1] - 1)
        middle = (self.edges[:-1] + self.edges[1:]) / 2
        return np.where((total > 0) & (self.nonfinite == 0), middle[column], np.nan)


@dataclass(frozen=True)
class Histogram:
    """A histogram of each unit's values, pooled over images and, for maps, over positions.

    Attributes:
        of: name of a measurement of shape (n, u, ...).
        mantissa_bits: bins an octave = 2^bits; a quantile's relative error is at most 2^-(bits + 1).
        octaves: powers of two covered, from the first (inclusive) to the last (exclusive).
    """

    of: str
    mantissa_bits: int = 3
    octaves: tuple[int, int] = (-16, 16)

    @property
    def _half(self) -> int:
        return (self.octaves[1] - self.octaves[0]) << self.mantissa_bits

    def start(self) -> State:
        """Nothing seen."""
        return {}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        values = _by_unit(seen[self.of]).float()
        bins = 2 * self._half + 1
        if not state:
            units = values.shape[0]
            state = {
                "counts": torch.zeros(units, bins, dtype=torch.int64, device=values.device),
                "nonfinite": torch.zeros(units, dtype=torch.int64, device=values.device),
            }
        finite = values.isfinite()
        columns = self._columns(values)
        state["counts"].scatter_add_(1, columns, finite.to(torch.int64))
        state["nonfinite"] += (~finite).sum(1)
        return state

    def merge(self, left: State, right: State) -> State:
        """Counts add up."""
        if not left or not right:
            return left or right
        return {name: left[name] + right[name] for name in left}

    def finish(self, state: State) -> HistogramCounts:
        """Counts with their edges."""
        steps = np.arange(self._half + 1)
        octave, part = steps >> self.mantissa_bits, steps & ((1 << self.mantissa_bits) - 1)
        positive = np.ldexp(1.0 + part / (1 << self.mantissa_bits), octave + self.octaves[0])
        return HistogramCounts(
            counts=state["counts"].cpu().numpy(),
            edges=np.concatenate([-positive[::-1], positive]),
            relative_error=2.0 ** -(self.mantissa_bits + 1),
            nonfinite=state["nonfinite"].cpu().numpy(),
        )

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """8 bytes a bin and unit."""
        return 8 * (2 * self._half + 1) * shapes[self.of][0]

    def _columns(self, values: Tensor) -> Tensor:
        magnitude = (values.view(torch.int32) & 0x7FFFFFFF) >> (_MANTISSA_BITS - self.mantissa_bits)
        first = (self.octaves[0] + _EXPONENT_BIAS) << self.mantissa_bits
        step = (magnitude.to(torch.int64) - first + 1).clamp(0, self._half)
        return torch.where(values < 0, -step, step) + self._half


@dataclass(frozen=True)
class UpperTail:
    """The exact upper tail of each unit's values: thresholds that a stated fraction exceeds.

    Attributes:
        of: name of a measurement of shape (n, u, ...); positions of maps count as values.
        fraction: share of values wanted above the threshold (0 to 1).
        total: number of values a unit will have in all (images times positions): it sets how many must be kept.
    """

    of: str
    fraction: float
    total: int

    @property
    def kept(self) -> int:
        """How many of the largest values are kept for each unit."""
        return min(self._above(self.total) + 1, self.total)

    def start(self) -> State:
        """Nothing seen."""
        return {}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        flat = _by_unit(seen[self.of])
        count = torch.tensor(flat.shape[1], dtype=torch.int64)
        return self.merge(state, {"values": flat, "count": count, "nonfinite": (~flat.isfinite()).sum(1)})

    def merge(self, left: State, right: State) -> State:
        """The largest of both, in any order."""
        if not right:
            return left
        both = {name: left[name] + right[name] for name in ("count", "nonfinite")} if left else dict(right)
        both["values"] = torch.cat([left["values"], right["values"]], dim=1) if left else right["values"]
        if both["values"].shape[1] > self.kept:
            both["values"] = both["values"].topk(self.kept, dim=1).values
        return both

    def finish(self, state: State) -> Float[np.ndarray, "u"]:
        """The smallest value t of each unit with at most `fraction` of its values strictly above t.

        It is nan for units with a value that was NaN or infinite.

        Raises:
            InputError: another number of values came than announced, so the tail kept is not the tail asked for.
        """
        count = int(state["count"])
        if count > self.total:
            message = f"{count} values a unit came where {self.total} were announced: the tail kept is too short"
            raise InputError(message)
        ordered: Tensor = state["values"].sort(dim=1, descending=True).values
        threshold = ordered[:, min(self._above(count), count - 1)].double() + 0.0  # one zero, not two
        return threshold.where(state["nonfinite"] == 0, torch.nan).cpu().numpy()

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """4 bytes a kept value, twice while merging."""
        return 2 * 4 * self.kept * prod(shapes[self.of][:1])

    def _above(self, count: int) -> int:
        """How many values may lie above: of the decimal fraction that was written, not of its binary rounding."""
        return floor(Fraction(str(self.fraction)) * count)


def _by_unit(values: Tensor) -> Tensor:
    """All values of each unit in one row: (n, u, ...) to (u, n * positions), contiguous."""
    return values.movedim(1, 0).reshape(values.shape[1], -1).contiguous()
