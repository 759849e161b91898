"""Count, mean, variance, activation rate, smallest and largest value: per cell, and per class and cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuronscope.maths.streams import exact
from neuronscope.maths.streams.exact import Pair
from neuronscope.maths.streams.protocol import Seen, State

_FLOAT64, _FLOAT32 = 8, 4


@dataclass(frozen=True)
class MomentsAnswer:
    """Moments of each cell over the images.

    Attributes:
        count: number of images; for class moments one number per class.
        mean, variance: variance with divisor `count - 1`; nan where the count is too small or a value was not finite.
        rate: fraction of images with a value above the threshold (0 to 1).
        low, high: smallest and largest value; nan where a value was not finite.
        nonfinite: number of images whose value was NaN or infinite.
    """

    count: Int[np.ndarray, "*classes"]
    mean: Float[np.ndarray, "*cells"]
    variance: Float[np.ndarray, "*cells"]
    rate: Float[np.ndarray, "*cells"]
    low: Float[np.ndarray, "*cells"]
    high: Float[np.ndarray, "*cells"]
    nonfinite: Int[np.ndarray, "*cells"]


@dataclass(frozen=True)
class Moments:
    """Moments of every cell of a measurement of shape (n, ...), accumulated exactly.

    Attributes:
        of: name of the measurement.
        threshold: a value above it counts as active.
    """

    of: str
    threshold: float = 0.0

    def start(self) -> State:
        """Nothing seen."""
        return {}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        return self.merge(state, _summary(seen[self.of], self.threshold))

    def merge(self, left: State, right: State) -> State:
        """Exact for sums within 2^53 of one another; counts and extremes always exact."""
        return _merge(left, right)

    def finish(self, state: State) -> MomentsAnswer:
        """Moments per cell."""
        return _answer(state, count_shape=())

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Four sums, two counts and two extremes of 8 bytes a cell."""
        return 8 * _FLOAT64 * prod(shapes[self.of])


@dataclass(frozen=True)
class ClassMoments:
    """Moments of every cell for each class; images without a label (-1) are left out.

    Attributes:
        of: name of the measurement.
        classes: number of classes.
        threshold: a value above it counts as active.
    """

    of: str
    classes: int
    threshold: float = 0.0

    def start(self) -> State:
        """Nothing seen."""
        return {}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch: only the rows of classes that occur in it are touched."""
        values, labels = seen[self.of], seen["label"]
        if not state:
            state = _empty((self.classes, *values.shape[1:]), values.device)
        present = torch.unique(labels[labels >= 0]).tolist()
        if not present:
            return state
        parts = [_summary(values[labels == label], self.threshold) for label in present]
        rows = torch.tensor(present, device=values.device)
        batch = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
        touched = _merge({name: tensor[rows] for name, tensor in state.items()}, batch)
        for name, tensor in touched.items():
            state[name][rows] = tensor
        return state

    def merge(self, left: State, right: State) -> State:
        """As `Moments.merge`, class by class."""
        return _merge(left, right)

    def finish(self, state: State) -> MomentsAnswer:
        """Moments of shape (classes, ...); classes without images are nan."""
        return _answer(state, count_shape=(self.classes,))

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """`Moments.size` times the classes."""
        return 8 * _FLOAT64 * prod(shapes[self.of]) * self.classes


@dataclass(frozen=True)
class MapMoments:
    """Mean and variance of every scalar activation, for whole maps: one fast pass, Chan's merge in float64.

    Where `Moments` would carry pairs for millions of cells, this carries two float64 numbers each. Merging in shard
    order is repeatable; another grouping agrees within 1e-6 of the standard deviation (batch sums are float32).

    Source: T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1979), equation 2.1.
    """

    of: str

    def start(self) -> State:
        """Nothing seen."""
        return {}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        values = seen[self.of]
        near = values.mean(0)
        centred = values - near
        offset = centred.mean(0).double()  # what rounding took from the mean
        m2 = torch.linalg.vector_norm(centred, dim=0).double().square_()
        count = torch.tensor(float(values.shape[0]), dtype=torch.float64, device=values.device)
        m2 = m2.sub_(offset.square(), alpha=values.shape[0]).clamp_min_(0.0)
        return self.merge(state, {"count": count, "mean": near.double() + offset, "m2": m2})

    def merge(self, left: State, right: State) -> State:
        """Chan's update."""
        if not left or not right:
            return left or right
        count = left["count"] + right["count"]
        delta = right["mean"] - left["mean"]
        mean = left["mean"].add_(delta * (right["count"] / count))
        m2 = left["m2"].add_(right["m2"]).add_(delta.square_(), alpha=float(left["count"] * right["count"] / count))
        return {"count": count, "mean": mean, "m2": m2}

    def finish(self, state: State) -> tuple[Float[np.ndarray, "*cells"], Float[np.ndarray, "*cells"]]:
        """Mean and variance (divisor n - 1) of each cell."""
        spread = state["m2"] / (state["count"] - 1)
        return state["mean"].cpu().numpy(), spread.cpu().numpy()

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Two float64 a cell, and the temporaries of one batch row."""
        return (2 * _FLOAT64 + 2 * _FLOAT32) * prod(shapes[self.of])


def _summary(values: Tensor, threshold: float) -> State:
    exact_values = values.double()
    total, squares = exact.sum_rows(exact_values), exact.sum_rows(exact.square(values))
    cells = values.shape[1:]
    return {
        "count": torch.full(cells, values.shape[0], dtype=torch.int64, device=values.device),
        "sum": total.high,
        "sum_low": total.low,
        "squares": squares.high,
        "squares_low": squares.low,
        "active": (values > threshold).sum(0),
        "low": exact_values.amin(0),
        "high": exact_values.amax(0),
        "nonfinite": (~values.isfinite()).sum(0),
    }


def _empty(shape: tuple[int, ...], device: torch.device) -> State:
    zero = {name: torch.zeros(shape, dtype=torch.float64, device=device) for name in ("sum", "squares")}
    counts = {n: torch.zeros(shape, dtype=torch.int64, device=device) for n in ("count", "active", "nonfinite")}
    return {
        **counts,
        **zero,
        **{f"{name}_low": tensor.clone() for name, tensor in zero.items()},
        "low": torch.full(shape, torch.inf, dtype=torch.float64, device=device),
        "high": torch.full(shape, -torch.inf, dtype=torch.float64, device=device),
    }


def _merge(left: State, right: State) -> State:
    if not left or not right:
        return left or right
    total = exact.add(Pair(left["sum"], left["sum_low"]), Pair(right["sum"], right["sum_low"]))
    squares = exact.add(Pair(left["squares"], left["squares_low"]), Pair(right["squares"], right["squares_low"]))
    return {
        "count": left["count"] + right["count"],
        "sum": total.high,
        "sum_low": total.low,
        "squares": squares.high,
        "squares_low": squares.low,
        "active": left["active"] + right["active"],
        "low": torch.minimum(left["low"], right["low"]),
        "high": torch.maximum(left["high"], right["high"]),
        "nonfinite": left["nonfinite"] + right["nonfinite"],
    }


def _answer(state: State, *, count_shape: tuple[int, ...]) -> MomentsAnswer:
    count = state["count"].double()
    total = Pair(state["sum"], state["sum_low"])
    m2 = exact.central_moment(total, Pair(state["squares"], state["squares_low"]), count)
    finite = (state["nonfinite"] == 0) & (count > 0)
    nan = torch.full_like(m2, torch.nan)

    def where_finite(values: Tensor) -> np.ndarray:
        return torch.where(finite, values, nan).cpu().numpy()

    flat_count = state["count"].reshape(*count_shape, -1)[..., 0]
    return MomentsAnswer(
        count=flat_count.cpu().numpy(),
        mean=where_finite((total.high + total.low) / count),
        variance=where_finite(torch.where(count > 1, m2 / (count - 1), nan)),
        rate=where_finite(state["active"] / count),
        low=where_finite(state["low"] + 0.0),  # 0 and -0 are one value: which of them comes first is no matter
        high=where_finite(state["high"] + 0.0),
        nonfinite=state["nonfinite"].cpu().numpy(),
    )
