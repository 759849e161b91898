"""How much faster is guided masking than reading, augmenting and running the whole network for each configuration?

AlexNet, ResNet-18 and SqueezeNet at 224 x 224, random weights, one thread, masks as published: 17 configurations of
each of one or two factors, and the network as it is. The other side is the plain way: for each configuration, images
are read from JPEG files, augmented, and run through the whole network with a hook on every masked layer.

Where all layers are masked together, all that configurations share is what comes before the first one: the bound is
1 / (1 - share), the share being the time to the first layer over the time of the whole network. It is held against the
times of the networks alone; with reading and augmenting, the ratio is reported. Our side also folds normalisation into
convolutions and keeps channels last, which the bound knows nothing of.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import _measure as measure
import neuronscope as ns
from neuronscope.augment import SETS, augmentations, decoded
from neuronscope.data.dataset import Batch, Data, framed
from neuronscope.data.loading import batches
from neuronscope.hooks import intercepted
from neuronscope.maths.guide_masks import ScaleMap, configurations, guide
from neuronscope.preprocessing import Preprocess
from neuronscope.replay.stages import staged
from neuronscope.steps.augmented import Augmented
from neuronscope.steps.scaled import PredictScaled, Scaling
from neuronscope.units import LayerInfo

SIDE = 224
TOLERANCE = 1e-5  # of the largest logit
FACTORS = ("erasing", "hue")

CASES: dict[str, tuple[tuple[str, ...], float]] = {
    "alexnet": (("features.2", "features.5", "features.7", "features.9", "avgpool"), 4),
    "resnet18": (("maxpool", "layer1", "layer2", "layer3"), 6),
    "squeezenet1_1": (("features.2", "features.5", "features.8", "features.12"), 3),
}
"""Network -> masked layers in calling order, as published where they are; goal for masking the last of them alone."""


@dataclass(frozen=True)
class Sides:
    """One batch of images, and both ways to predict it under all configurations.

    Attributes:
        subject: the network.
        data: JPEG files, framed when they are read.
        parameters: of each image's augmentation.
        step: our side.
    """

    subject: ns.Subject
    data: Data
    parameters: Tensor
    step: PredictScaled

    def read(self) -> Batch:
        """The images from their files."""
        batch = next(batches(self.data, Preprocess().batch, batch_size=len(self.data), workers=0))
        return replace(batch, parameters=self.parameters)

    def ours(self) -> dict[str, Tensor]:
        """From files to predictions."""
        return dict(self.step(self.subject.module, self.read()))

    def ours_of(self, prepared: Batch) -> dict[str, Tensor]:
        """From prepared images to predictions."""
        return dict(replace(self.step, augmented=None)(self.subject.module, prepared))

    def plain(self) -> list[Tensor]:
        """From files to logits, for each configuration anew."""
        return [self.run(self.prepared().image, scaling) for scaling in self.scalings]

    def plain_of(self, prepared: Batch) -> list[Tensor]:
        """From prepared images to logits."""
        return [self.run(prepared.image, scaling) for scaling in self.scalings]

    def prepared(self) -> Batch:
        """Read and augmented."""
        assert self.step.augmented is not None
        batch = self.read()
        return replace(batch, image=self.step.augmented.prepared(batch), parameters=None)

    @property
    def scalings(self) -> list[dict[str, ScaleMap]]:
        """The network as it is, and all configurations."""
        return [{}, *(dict(one.maps) for one in self.step.scalings)]

    def run(self, images: Tensor, scaling: dict[str, ScaleMap]) -> Tensor:
        """One forward pass with hooks."""

        def scaling_of(layer: LayerInfo) -> Callable[[Tensor], Tensor]:
            scales = torch.from_numpy(scaling[layer.name].scales()).view(layer.shape)
            return lambda output: output * scales

        changes = {layer: scaling_of(layer) for layer in self.step.layers if layer.name in scaling}
        with torch.inference_mode(), intercepted(self.subject.module, changes):
            logits: Tensor = self.subject.module(images)
        return logits


class ReachedError(Exception):
    """The first layer was reached."""


def share_of(sides: Sides, prepared: Batch, *, repeats: int) -> measure.Paired:
    """Time of the whole network, and of what comes before and in the first masked layer."""

    def stop(_output: Tensor) -> None:
        raise ReachedError

    def front() -> None:
        try:
            with torch.inference_mode(), intercepted(sides.subject.module, {sides.step.layers[0]: stop}):
                sides.subject.module(prepared.image)
        except ReachedError:
            return

    return measure.pairs(lambda: sides.run(prepared.image, {}), front, repeats=repeats)


def sides_of(name: str, layers: tuple[str, ...], folder: str, *, factors: tuple[str, ...], step: int) -> Sides:
    """A network with masks of all these layers together, from maps of random sensitivity; every `step`-th mask."""
    subject = ns.load_model(f"torchvision:{name}", weights="random")
    chosen = tuple(subject.layer(one) for one in layers)
    data = framed(ns.load_data(f"folder:{folder}"), subject.preprocess)
    rng = np.random.default_rng(0)
    guides = {
        (factor, layer.name): guide(rng.random(layer.shape) ** 4, rng=rng) for factor in factors for layer in chosen
    }
    scalings = tuple(
        Scaling(one.name(factor), {layer.name: ScaleMap(guides[factor, layer.name], one) for layer in chosen})
        for factor in factors
        for one in configurations()[::step]
    )
    known = augmentations(SIDE, SIDE)
    transforms = tuple(known[one] for one in (*SETS["set1"], *SETS["set2"]))
    augmented = Augmented(
        chosen, transforms, mean=subject.preprocess.mean, std=subject.preprocess.std, range="stretched"
    )
    values = np.concatenate([decoded(one, rng.random((len(data), len(one.parameters)))) for one in transforms], axis=1)
    turn = np.arange(len(data))[:, None] % len(transforms) == np.arange(len(transforms))
    order = np.broadcast_to(np.arange(len(transforms)), turn.shape)
    parameters = torch.from_numpy(np.concatenate([values, turn, order], axis=1)).float()
    return Sides(subject, data, parameters, PredictScaled(chosen, scalings, augmented))


def check(sides: Sides) -> float:
    """Both sides give the same logits; how far they are apart, as a share of the largest."""
    images = sides.prepared().image
    stages = staged(sides.subject.module, sides.step.layers, images[:2])
    expected, worst = sides.plain_of(sides.prepared()), 0.0

    def scales(layer: LayerInfo, own: ScaleMap) -> Tensor:
        return torch.from_numpy(own.scales()).view(layer.shape)

    for number, logits in stages.logits(images, sides.scalings, scales):
        worst = max(worst, float((logits - expected[number]).abs().max() / expected[number].abs().max()))
    assert stages.way == "graph", stages.reason
    assert worst <= TOLERANCE, f"the two sides differ by {worst} of the largest logit"
    return worst


def write_images(folder: Path, number: int) -> None:
    """Smooth colours, as large as the photographs of ImageNet and as large on disk, about 100 kB."""
    rng = np.random.default_rng(0)
    for row in range(number):
        coarse = Image.fromarray(rng.integers(0, 256, (125, 166, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{row:04d}.jpg", quality=90)


def figures(quick: bool) -> Iterator[measure.Figure]:  # noqa: FBT001 called by the harness
    """All networks."""
    repeats = 2 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "one").mkdir()
        write_images(Path(folder) / "one", 4 if quick else 16)
        for name, (layers, goal) in CASES.items():
            all_together = sides_of(name, layers, folder, factors=FACTORS[:1], step=4 if quick else 1)
            yield from together(name, all_together, repeats=repeats)
            last = sides_of(name, layers[-1:], folder, factors=FACTORS, step=8 if quick else 1)
            yield from alone(name, last, goal=None if quick else goal, repeats=repeats)


def together(name: str, sides: Sides, *, repeats: int) -> Iterator[measure.Figure]:
    """All layers masked together."""
    apart = check(sides)
    prepared = sides.prepared()
    fronts = share_of(sides, prepared, repeats=2 * repeats + 1)
    share = fronts.ratio
    bound = 1 / (1 - share)
    many = f"{len(sides.scalings)} predictions of {len(sides.data)} images"
    yield measure.Figure(f"{name}: share of the network up to '{sides.step.layers[0].name}'", share, "", None, "")
    paired = measure.pairs(lambda: sides.ours_of(prepared), lambda: sides.plain_of(prepared), repeats=repeats)
    yield told(
        measure.judged(
            f"{name}: {many}, all layers together, networks alone, over the bound of {bound:.3g}",
            paired,
            goal=">= 0.9",
            met=lambda ratio: ratio >= 0.9,
            value=paired.ratio / bound,
        ),
        f"ratio {paired.ratio:.3g}; logits differ by {apart:.1g}",
    )
    yield reported(f"{name}: the same with reading and augmenting", sides, repeats=repeats)


def alone(name: str, sides: Sides, *, goal: float | None, repeats: int) -> Iterator[measure.Figure]:
    """The last layer masked alone; the few images and configurations of a short run gain less and have no goal."""
    apart = check(sides)
    figure = measure.judged(
        f"{name}: {len(sides.scalings)} predictions of {len(sides.data)} images, '{sides.step.layers[0].name}' alone, "
        "with reading and augmenting",
        measure.pairs(sides.ours, sides.plain, repeats=repeats),
        goal=f">= {goal:g}" if goal else "",
        met=lambda ratio: ratio >= (goal or 0.0),
    )
    yield told(figure, f"logits differ by {apart:.1g}")


def reported(what: str, sides: Sides, *, repeats: int) -> measure.Figure:
    """The plain way over ours, from files, without a goal."""
    return measure.judged(
        what, measure.pairs(sides.ours, sides.plain, repeats=repeats), goal="", met=lambda _ratio: True
    )


def told(figure: measure.Figure, more: str) -> measure.Figure:
    """A figure with something to add."""
    return replace(figure, detail=f"{figure.detail}; {more}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    measure.main(__doc__ or "", figures)
