"""A unit's activations cut into ranges: the best one-dimensional k-means there is, from a histogram.

A unit may answer to one thing weakly and to another strongly, so each range of its activations can get an explanation
of its own. In one dimension k-means needs no random starts: clusters are runs of the sorted values, and a dynamic
programme finds the best runs. It works on a fine histogram whose bins remember their smallest and largest value, so one
pass over the images suffices, the limits found are activations that occurred, and the squared distances are right to
within the width of a bin.

`LowestHighest` finds each unit's limits in a first pass, `RangeHistogram` counts between them, `ranges_of` cuts.

Source: B. La Rosa, L. Gilpin and R. Capobianco, "Towards a fuller understanding of neurons with Clustered
Compositional Explanations" (2023), where k-means with random starts runs on all values. The dynamic programme is that
of H. Wang and M. Song, "Ckmeans.1d.dp", The R Journal 3 (2011), made quick by monotone split points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from neuronscope.errors import InputError
from neuronscope.maths.streams.protocol import Seen, State


@dataclass(frozen=True)
class Limits:
    """Where each unit's activations end.

    Attributes:
        lowest: smallest finite value of each unit; nan where none was seen.
        highest: largest.
        nonfinite: values that were NaN or infinite.
    """

    lowest: Float[np.ndarray, "u"]
    highest: Float[np.ndarray, "u"]
    nonfinite: Int[np.ndarray, "u"]


@dataclass(frozen=True)
class LowestHighest:
    """The smallest and the largest activation of each unit, over images and positions; merges in any order.

    Attributes:
        of: name of a measurement of shape (n, u, ...).

    Example:
        >>> limits = LowestHighest("maps")
        >>> limits.finish(limits.add(limits.start(), {"maps": torch.tensor([[0.5], [-2.0]])})).lowest
        array([-2.])
    """

    of: str

    def start(self) -> State:
        """Nothing seen."""
        return {}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        values = seen[self.of]
        flat = values.reshape(*values.shape[:2], -1).double()
        sound = flat.isfinite()
        batch = {
            "lowest": flat.where(sound, torch.inf).amin((0, 2)),
            "highest": flat.where(sound, -torch.inf).amax((0, 2)),
            "nonfinite": (~sound).sum((0, 2)),
        }
        return self.merge(state, batch)

    def merge(self, left: State, right: State) -> State:
        """The wider of both."""
        if not left or not right:
            return left or right
        return {
            "lowest": torch.minimum(left["lowest"], right["lowest"]),
            "highest": torch.maximum(left["highest"], right["highest"]),
            "nonfinite": left["nonfinite"] + right["nonfinite"],
        }

    def finish(self, state: State) -> Limits:
        """The limits."""
        lowest, highest = state["lowest"], state["highest"]
        seen = lowest <= highest
        return Limits(
            lowest=lowest.where(seen, torch.nan).cpu().numpy(),
            highest=highest.where(seen, torch.nan).cpu().numpy(),
            nonfinite=state["nonfinite"].cpu().numpy(),
        )

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Three numbers of 8 bytes a unit."""
        return 24 * shapes[self.of][0]


@dataclass(frozen=True)
class RangeCounts:
    """A histogram of each unit's activations whose bins know the values they hold.

    Attributes:
        counts: values in each bin, exact zeros left out; bins ascend.
        smallest: smallest value of each bin, infinite in an empty one.
        largest: largest value of each bin, minus infinity in an empty one.
        zeros: values that were exactly 0.
        nonfinite: values that were NaN or infinite, in no bin.
    """

    counts: Int64[np.ndarray, "u bins"]
    smallest: Float32[np.ndarray, "u bins"]
    largest: Float32[np.ndarray, "u bins"]
    zeros: Int64[np.ndarray, "u"]
    nonfinite: Int64[np.ndarray, "u"]


@dataclass(frozen=True, eq=False)
class RangeHistogram:
    """Counts each unit's activations in bins of one width between its own limits; merges in any order.

    Attributes:
        of: name of a measurement of shape (n, u, ...).
        lowest: smallest activation of each unit; values below it count in the first bin.
        highest: largest; values above it count in the last bin. A unit with nan here has one bin.
        steps: bins of a unit.

    Example:
        >>> fold = RangeHistogram("maps", np.zeros(1), np.ones(1), steps=4)
        >>> fold.finish(fold.add(fold.start(), {"maps": torch.tensor([[0.0], [0.1], [0.9], [1.0]])})).counts
        array([[1, 0, 0, 2]])
    """

    of: str
    lowest: Float[np.ndarray, "u"]
    highest: Float[np.ndarray, "u"]
    steps: int = 2048

    def start(self) -> State:
        """Nothing seen."""
        return {}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        values = seen[self.of].movedim(1, 0).reshape(seen[self.of].shape[1], -1).float()
        if not state:
            state = self._empty(values.device)
        state["zeros"] += (values == 0).sum(1)
        state["nonfinite"] += (~values.isfinite()).sum(1)
        unit, place = (values.isfinite() & (values != 0)).nonzero(as_tuple=True)
        chosen = values[unit, place]
        bins = self._column(unit, chosen) + unit * self.steps
        state["counts"].view(-1).scatter_add_(0, bins, torch.ones_like(bins))
        state["smallest"].view(-1).scatter_reduce_(0, bins, chosen, "amin")
        state["largest"].view(-1).scatter_reduce_(0, bins, chosen, "amax")
        return state

    def merge(self, left: State, right: State) -> State:
        """Counts add up; bins widen."""
        if not left or not right:
            return left or right
        return {name: _JOIN.get(name, torch.add)(left[name], right[name]) for name in left}

    def finish(self, state: State) -> RangeCounts:
        """The histogram."""
        return RangeCounts(**{name: tensor.cpu().numpy() for name, tensor in state.items()})

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """16 bytes a bin, and two numbers of 8 bytes a unit."""
        return 16 * shapes[self.of][0] * (self.steps + 1)

    def _empty(self, device: torch.device) -> State:
        shape = (len(self.lowest), self.steps)
        return {
            "counts": torch.zeros(shape, dtype=torch.int64, device=device),
            "smallest": torch.full(shape, torch.inf, device=device),
            "largest": torch.full(shape, -torch.inf, device=device),
            "zeros": torch.zeros(shape[0], dtype=torch.int64, device=device),
            "nonfinite": torch.zeros(shape[0], dtype=torch.int64, device=device),
        }

    def _column(self, unit: Tensor, values: Tensor) -> Tensor:
        """Bin of each value: never descending with the value, so that the bins of a unit do not overlap."""
        span = self.highest - self.lowest
        scale = np.divide(self.steps, span, out=np.zeros(len(span)), where=span > 0)
        first = torch.from_numpy(np.nan_to_num(self.lowest)).to(values.device)
        per_value = torch.from_numpy(scale).to(values.device)
        place = (values.double() - first[unit]) * per_value[unit]
        return place.clamp_(0, self.steps - 1).long()


_JOIN = {"smallest": torch.minimum, "largest": torch.maximum}
"""How the parts of two histograms join where they do not add up."""


@dataclass(frozen=True)
class Clusters:
    """The best partition of points on a line.

    Attributes:
        first: number of the first point of each cluster; clusters are runs of points.
        inertia: weighted sum of squared distances of the points to the mean of their cluster.
    """

    first: Int64[np.ndarray, "k"]
    inertia: float


def ranges_of(counts: RangeCounts, k: int, *, members: bool = False) -> Float[np.ndarray, "u {k} 2"]:
    """Each unit's activations in `k` ranges: lower and upper bound of the optimal k-means clusters, ascending.

    A position is in a range if `lower < activation < upper`. Exact zeros belong to no range where a unit is never
    negative. Our ranges leave no gap: one ends where the next begins, halfway between the two nearest activations of
    two clusters; the first begins at 0, or at minus infinity for a unit that can be negative, and the last ends at
    infinity.

    Args:
        counts: the histogram; its bins count as points at the middle of the values they hold.
        k: number of ranges.
        members: bounds as in the originals, the smallest and the largest activation of each cluster. The strict
            comparison then excludes those two, and every upsampled value between two clusters.

    Returns:
        Bounds in units of the activation; nan for units with fewer than `k` bins that hold anything (dead ones among
        them), and for those with values that were NaN or infinite.

    Raises:
        InputError: `k` below 1.

    Example:
        >>> fold = RangeHistogram("maps", np.zeros(1), np.full(1, 10.0))
        >>> maps = torch.tensor([[0.0], [1.0], [2.0], [9.0], [10.0]])
        >>> ranges_of(fold.finish(fold.add(fold.start(), {"maps": maps})), 2)
        array([[[0. , 5.5],
                [5.5, inf]]])
    """
    if k < 1:
        message = (
            f"activations cannot be cut into {k} ranges: expected 1 or more. Set the number of ranges to 1 or more"
        )
        raise InputError(message)
    units = len(counts.zeros)
    found = np.full((units, k, 2), np.nan)
    for unit in range(units):
        weights, low, high = _points(counts, unit)
        if len(weights) < k or counts.nonfinite[unit]:
            continue
        first = optimal_clusters((low + high) / 2, weights, k).first
        last = np.append(first[1:], len(low)) - 1
        if members:
            found[unit] = np.stack([low[first], high[last]], axis=1)
            continue
        between = _between(high[last[:-1]], low[first[1:]])
        found[unit, :, 0] = np.insert(between, 0, -np.inf if low[0] < 0 else 0.0)
        found[unit, :, 1] = np.append(between, np.inf)
    return found


def optimal_clusters(points: Float[np.ndarray, "m"], weights: Int[np.ndarray, "m"], k: int) -> Clusters:
    """The partition of weighted points into `k` clusters with the smallest sum of squared distances: exact k-means.

    `D_q[j] = min over i of D_{q-1}[i] + cost(i, j)`, where `cost` is the sum of squares of points i to j - 1 around
    their mean. The best i never falls as j grows, so the middle j of a stretch halves the choice for all others:
    O(k m log m).

    Args:
        points: ascending, each value once.
        weights: how often each occurs, at least 1.
        k: number of clusters, none of them empty.

    Raises:
        InputError: fewer points than clusters, or `k` below 1.

    Example:
        >>> optimal_clusters(np.array([0.0, 1.0, 5.0, 6.0, 7.0]), np.ones(5, int), 2)
        Clusters(first=array([0, 2]), inertia=2.5)
    """
    m = len(points)
    if not 1 <= k <= m:
        message = f"{m} points cannot be put into {k} clusters, none of them empty. Ask for 1 to {m} clusters"
        raise InputError(message)
    centred = points - np.average(points, weights=weights)
    mass, total, squares = (
        np.concatenate([[0.0], np.cumsum(weights * power)]) for power in (np.ones(m), centred, centred**2)
    )
    best = squares - np.divide(total**2, mass, out=np.zeros(m + 1), where=mass > 0)
    choices: list[np.ndarray] = []
    for clusters in range(2, k + 1):
        # of the last cluster only its full length is asked for
        ends = (m, m) if clusters == k else (clusters, m)
        best, choice = _one_more(best - squares, mass, total, squares, clusters=clusters, ends=ends)
        choices.append(choice)
    first = np.zeros(k, dtype=np.int64)
    end = m
    for place in range(k - 1, 0, -1):
        end = int(choices[place - 1][end])
        first[place] = end
    return Clusters(first, max(float(best[m]), 0.0))


def _one_more(
    rest: Float[np.ndarray, "m1"],
    mass: Float[np.ndarray, "m1"],
    total: Float[np.ndarray, "m1"],
    squares: Float[np.ndarray, "m1"],
    *,
    clusters: int,
    ends: tuple[int, int],
) -> tuple[Float[np.ndarray, "m1"], Int64[np.ndarray, "m1"]]:
    """For every end j: the least cost with one cluster more, and where that cluster begins.

    All stretches of one depth of the recursion are worked together: their candidates lie in one row.
    """
    best, choice = np.full(len(rest), np.inf), np.zeros(len(rest), dtype=np.int64)
    first, last = np.array([ends[0]]), np.array([ends[1]])
    low, high = np.array([clusters - 1]), np.array([ends[1] - 1])
    while len(first):
        middle = (first + last) // 2
        until = np.minimum(high, middle - 1)
        sizes = until - low + 1
        starts = np.cumsum(sizes) - sizes
        begin = np.arange(int(sizes.sum())) + np.repeat(low - starts, sizes)
        deviation = np.repeat(total[middle], sizes) - total[begin]
        cost = rest[begin] - deviation * deviation / (np.repeat(mass[middle], sizes) - mass[begin])
        least = np.minimum.reduceat(cost, starts)
        reached = np.flatnonzero(cost == np.repeat(least, sizes))
        chosen = begin[reached[np.searchsorted(reached, starts)]]
        best[middle], choice[middle] = least + squares[middle], chosen
        # the ends before the middle begin no later, those behind it no earlier
        low, high = np.concatenate([low, chosen]), np.concatenate([chosen, high])
        first, last = np.concatenate([first, middle + 1]), np.concatenate([middle - 1, last])
        some = first <= last
        first, last, low, high = first[some], last[some], low[some], high[some]
    return best, choice


def _points(
    counts: RangeCounts, unit: int
) -> tuple[Int64[np.ndarray, "m"], Float[np.ndarray, "m"], Float[np.ndarray, "m"]]:
    """A unit's bins that hold anything: how many values, the smallest and the largest, with zeros where they count."""
    held = np.flatnonzero(counts.counts[unit])
    weights = counts.counts[unit, held]
    low = counts.smallest[unit, held].astype(np.float64)
    high = counts.largest[unit, held].astype(np.float64)
    if not counts.zeros[unit] or not len(low) or low[0] >= 0:
        return weights, low, high
    place = int(np.searchsorted(high, 0.0))
    if place < len(low) and low[place] < 0:  # zero lies inside a bin
        weights[place] += counts.zeros[unit]
        return weights, low, high
    return np.insert(weights, place, counts.zeros[unit]), np.insert(low, place, 0.0), np.insert(high, place, 0.0)


def _between(below: Float[np.ndarray, "m"], above: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
    """Halfway, as a number of 32 bits, which activations are compared with.

    Two activations with no such number between them would lose one to the bound; a strict comparison cannot keep both.
    """
    return np.asarray(((below + above) / 2).astype(np.float32), dtype=np.float64)
