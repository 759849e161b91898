"""How much faster are gradient-filtered attributions of many clusters with a shared upper pass, with the same numbers?

DenseNet-121 at 224 x 224, random weights, one thread; integrated gradients of one image, unfiltered and with each
cluster of a block closed. The clusterings are those of the original where `NEURONSCOPE_TEST_DATA` names a folder that
holds them, else random ones of the same sizes (whose masks have a higher rank, so that their figures have no goal).

Captum sees the network with a `stop_gradient` edit. Its time is the same for every cluster, so one configuration is
timed and counted as often as there are configurations, repeated clusters too; leaving those out is in the detail. It
runs at the fastest `internal_batch_size` found, and once as it is called by default, all steps as one batch. Both sides
have the weights frozen. The maps are compared with as many inputs at once on both sides: another number of them rounds
otherwise, and a ReLU that falls on its other side changes a gradient by up to a thousandth, in Captum, too.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from captum.attr import IntegratedGradients as CaptumIG
from torch import Tensor

import _measure as measure
import neuronscope as ns
from neuronscope.data.dataset import Batch
from neuronscope.edits import stop_gradient
from neuronscope.hooks import applied
from neuronscope.models.subject import Subject
from neuronscope.steps.filtered import Filtered, IntegratedGradients
from neuronscope.units import LayerInfo, UnitSet

BLOCKS = (1, 2, 3, 4)
KS = (2, 3, 4, 5)
SIZES: dict[int, tuple[tuple[int, ...], ...]] = {  # channels of each cluster in the original's clusterings, k = 2 to 5
    1: ((217, 39), (214, 13, 29), (187, 13, 28, 28), (107, 13, 28, 25, 83)),
    2: ((45, 467), (467, 3, 42), (424, 3, 42, 43), (339, 3, 42, 125, 3)),
    3: ((973, 51), (874, 48, 102), (382, 41, 74, 527), (382, 34, 79, 520, 9)),
    4: ((438, 586), (15, 586, 423), (201, 482, 331, 10), (312, 442, 233, 6, 31)),
}
RANKS = {1: 8, 2: 6, 3: 11, 4: 11}
GOALS_THREE = {1: 2.3, 2: 1.9, 3: 1.7, 4: 1.6}  # k = 3
GOALS_ALL = {1: 4.8, 2: 4.3, 3: 2.0, 4: 1.9}  # k = 2 to 5 together
BATCHES = (1, 2, 4, 8)  # Captum's `internal_batch_size` tried
TARGET = 7
TOLERANCE = 1e-5  # of the norm of a map


@dataclass(frozen=True)
class Captum:
    """Captum's side: integrated gradients of the edited network, one configuration after the other.

    Attributes:
        subject: the network.
        layer: where the gradient is blocked.
        masks: where it passes; a row for each configuration.
        steps: points on the path.
        batch: how many of them run at once; None for all.
    """

    subject: Subject
    layer: LayerInfo
    masks: np.ndarray
    steps: int
    batch: int | None

    def __call__(self, image: Tensor) -> Tensor:
        """One map for each configuration: (configurations, channels, height, width)."""
        method = CaptumIG(self.subject.module)
        maps = []
        for mask in self.masks:
            with applied(self.subject.module, [self.layer], [stop_gradient(UnitSet.from_mask(self.layer.name, ~mask))]):
                found = method.attribute(image, target=TARGET, n_steps=self.steps, internal_batch_size=self.batch)
            maps.append(found[0].detach().float())
        return torch.stack(maps)


def ours(
    subject: Subject, layer: LayerInfo, masks: np.ndarray, image: Tensor, *, steps: int, rows: int | None = None
) -> Tensor:
    """Our side: the same maps."""
    step = Filtered(layer, masks, method=IntegratedGradients(steps=steps), target=TARGET, rows=rows)
    batch = Batch(index=torch.zeros(1, dtype=torch.int64), image=image, label=torch.full((1,), -1))
    return step(subject.module, batch)["maps"][0]


def products(*, quick: bool) -> Iterator[measure.Figure]:  # noqa: ARG001 takes no time
    """Lower vector-Jacobian products for all clusterings of a block together, and the rank of their masks."""
    golden = _golden()
    subject = _subject()
    for block in BLOCKS:
        layer = _layer(subject, block)
        masks = _masks(_labels(block, KS))
        needed = Filtered(layer, masks).products
        rank = int(np.linalg.matrix_rank(masks.astype(np.float64)))
        goal = RANKS[block] if golden else rank
        distinct = len(np.unique(masks, axis=0))
        detail = (
            f"{len(masks)} configurations, {distinct} distinct, of rank {rank}{'' if golden else '; random clusters'}"
        )
        figure = f"block {block}, k = 2 to 5: lower vector-Jacobian products"
        yield measure.Figure(figure, float(needed), f"= {goal}", needed == goal == rank, detail)


def against_captum(*, quick: bool) -> Iterator[measure.Figure]:
    """Time of Captum over ours."""
    subject, image = _subject(), torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    steps, check, repeats = (9, 1, 1) if quick else (50, 5, 3)
    best = _fastest(subject, image, quick=quick)
    for block in BLOCKS:
        layer = _layer(subject, block)
        everything = _masks(_labels(block, KS))
        off = _apart(
            ours(subject, layer, everything, image, steps=check, rows=best),
            Captum(subject, layer, everything, check, best)(image),
        )
        assert off <= TOLERANCE, f"block {block}: the two sides differ by {off}"
        for ks, goals in (((3,), GOALS_THREE), (KS, GOALS_ALL)):
            masks = _masks(_labels(block, ks))
            paired = measure.pairs(
                lambda layer=layer, masks=masks: ours(subject, layer, masks, image, steps=steps),
                lambda layer=layer, masks=masks: Captum(subject, layer, masks[1:2], steps, best)(image),
                repeats=repeats,
            )
            goal = goals[block] if _golden() or len(ks) == 1 else None
            figure = measure.judged(
                f"block {block}, k = {', '.join(map(str, ks))}: {len(masks)} configurations, {steps} steps, "
                f"Captum (internal_batch_size={best}) over the shared pass",
                paired,
                goal=f">= {goal}" if goal else "",
                met=lambda ratio, goal=goal: goal is None or ratio >= goal,
                value=paired.ratio * len(masks),
            )
            distinct = paired.ratio * len(np.unique(masks, axis=0))
            more = f"; maps differ by {off:.1g}; repeated clusters left out: {distinct:.3g}"
            yield replace(figure, detail=figure.detail + more)
    yield _default(subject, image, best, steps=10 if quick else 50, repeats=repeats)


def _default(subject: Subject, image: Tensor, best: int, *, steps: int, repeats: int) -> measure.Figure:
    """Captum as it is called by default over Captum at its best."""
    layer = _layer(subject, 1)
    masks = _masks(_labels(1, (3,)))[1:2]
    paired = measure.pairs(
        lambda: Captum(subject, layer, masks, steps, best)(image),
        lambda: Captum(subject, layer, masks, steps, None)(image),
        repeats=repeats,
    )
    name = f"Captum's default call (one batch of {steps} steps) over internal_batch_size={best}"
    return measure.judged(name, paired, goal="", met=lambda _ratio: True)


def _fastest(subject: Subject, image: Tensor, *, quick: bool) -> int:
    """The `internal_batch_size` at which Captum takes the least time."""
    layer = _layer(subject, 1)
    masks = _masks(_labels(1, (3,)))[1:2]

    def seconds(batch: int) -> float:
        times = []
        for _ in range(2 if quick else 5):
            start = time.perf_counter()
            Captum(subject, layer, masks, max(BATCHES), batch)(image)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    return min(BATCHES, key=seconds)


def _apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two maps of one configuration, of the norm of the map."""
    distance = (found - expected).flatten(1).norm(dim=1)
    return float((distance / expected.flatten(1).norm(dim=1)).max())


def _masks(clusterings: Sequence[np.ndarray]) -> np.ndarray:
    """All open, then each cluster of each clustering closed."""
    closed = [labels != cluster for labels in clusterings for cluster in range(labels.max() + 1)]
    return np.stack([np.ones_like(closed[0]), *closed])


def _labels(block: int, ks: Sequence[int]) -> list[np.ndarray]:
    folder = _golden()
    if folder is not None:
        return [np.load(folder / f"cluster_results_block_{block}_k{k}.npz")["labels"] for k in ks]
    generator = np.random.default_rng(block)
    return [
        generator.permutation(np.repeat(np.arange(len(sizes)), sizes)) for sizes in SIZES[block] if len(sizes) in ks
    ]


def _golden() -> Path | None:
    folder = Path(os.environ.get("NEURONSCOPE_TEST_DATA", "")) / "golden" / "densenet121-clusters"
    return folder if "NEURONSCOPE_TEST_DATA" in os.environ and folder.is_dir() else None


def _layer(subject: Subject, block: int) -> LayerInfo:
    return subject.layer(f"features.denseblock{block}")


def _subject() -> Subject:
    subject = ns.load_model("torchvision:densenet121", weights="random")
    subject.module.requires_grad_(False)
    return subject


def figures(quick: bool) -> Iterator[measure.Figure]:  # noqa: FBT001 called by the harness
    """All of them."""
    yield from products(quick=quick)
    yield from against_captum(quick=quick)


if __name__ == "__main__":
    torch.set_num_threads(1)
    measure.main(__doc__ or "", figures)
