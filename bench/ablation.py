"""How much faster is replayed ablation of every channel than Captum's, with the same numbers, and how does it grow?

ResNet-18 at 224 x 224, random weights, one thread, cut at the outputs of its stages. Both sides start from images and
end with the logits of every single-channel ablation; our time includes the forward pass that fills the caches. Captum's
`LayerFeatureAblation` costs the same for every channel, so it is timed on a few and its time is carried to all of
them by the number of full forward passes it makes: two unedited ones, and one for each channel. It runs one image at a
time, as it needs (we take them together), with `perturbations_per_eval=1`, and once more at the fastest setting found.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from captum.attr import LayerFeatureAblation
from torch import Tensor, nn

import _measure as measure
import neuronscope as ns
from neuronscope.replay import Cut, Live, cut
from neuronscope.units import LayerInfo

SIZE = 224
GOALS = {"layer4": 500.0, "layer3": 7.0, "layer2": 3.3}
IMAGES = {"layer4": 8, "layer3": 1, "layer2": 1}  # the cheaper the tail, the more of them make a time to measure
SETTINGS = (4, 16, 32)  # Captum's other `perturbations_per_eval` tried
UNEDITED = 2  # forward passes Captum makes before the first ablation
TOLERANCE = 1e-5  # of the largest logit


@dataclass(frozen=True)
class Captum:
    """Captum's side: ablation of some channels of a layer for one image at a time.

    Attributes:
        module: the network.
        layer: where.
        channels: how many channels are ablated one by one; the others are one more group, ablated together.
        per_eval: how many ablations run as one batch.
    """

    module: nn.Module
    layer: LayerInfo
    channels: int
    per_eval: int

    def __call__(self, images: Tensor) -> Tensor:
        """Logits with each channel at 0: (channels, images, classes)."""
        return torch.stack([self._one(image[None]) for image in images], dim=1)

    @property
    def share(self) -> float:
        """Forward passes for all channels over forward passes made."""
        return (self.layer.units + UNEDITED) / (self._groups + UNEDITED)

    @property
    def _groups(self) -> int:
        return min(self.channels + 1, self.layer.units)

    def _one(self, image: Tensor) -> Tensor:
        logits: list[Tensor] = []

        def forward(images: Tensor) -> Tensor:
            logits.append(self.module(images))
            return logits[-1]

        groups = torch.arange(self.layer.units).clamp(max=self._groups - 1).view(1, -1, 1, 1)
        ablation = LayerFeatureAblation(forward, self.module.get_submodule(self.layer.module_name))
        ablation.attribute(
            image, target=0, layer_mask=groups.expand(1, *self.layer.shape), perturbations_per_eval=self.per_eval
        )
        return torch.cat(logits)[UNEDITED : UNEDITED + self.channels]


def replayed(tail: Cut, images: Tensor, channels: int) -> Tensor:
    """Our side, from images to logits: (channels, images, classes)."""
    live = tail.prefix(images)
    return torch.cat([logits for _, logits in tail.single(live, range(channels))])


def against_captum(*, quick: bool) -> Iterator[measure.Figure]:
    """Every channel of the outputs of three stages."""
    module, layers = _network()
    for name, goal in GOALS.items():
        image = _images(IMAGES[name])
        layer = layers[name]
        tail = cut(module, layer, image)
        part = 4 if quick else 16
        plain = Captum(module, layer, part, 1)
        ours, theirs = replayed(tail, image, part), plain(image)
        off = float((ours - theirs).abs().max() / theirs.abs().max())
        assert off <= TOLERANCE, f"the two sides differ by {off} of the largest logit"
        best = _fastest(module, layer, image[:1], part)
        for captum, met in ((plain, lambda ratio, goal=goal: ratio >= goal), (best, None)):
            paired = measure.pairs(
                lambda tail=tail, layer=layer, image=image: replayed(tail, image, layer.units),
                lambda captum=captum, image=image: captum(image),
                repeats=3 if quick else 7,
            )
            figure = measure.judged(
                f"{name}: all {layer.units} channels, {len(image)} image(s), "
                f"Captum (perturbations_per_eval={captum.per_eval}) "
                f"over replay ({tail.way})",
                paired,
                goal=f">= {goal:g}" if met else "",
                met=met or (lambda _ratio: True),
                value=paired.ratio * captum.share,
            )
            yield replace(figure, detail=f"{figure.detail}; Captum on {part} channels; logits differ by {off:.1g}")


def growth(*, quick: bool) -> Iterator[measure.Figure]:
    """Time of four times the units, and of four times the images, over four times the time."""
    module, layers = _network()
    layer = layers["layer3"]
    one, four = _images(1), _images(4)
    tail = cut(module, layer, one)
    live, lives = tail.prefix(one), tail.prefix(four)
    repeats = 3 if quick else 9
    few = layer.units // 4

    def run(kept: Live, units: int) -> None:
        for _ in tail.single(kept, range(units)):
            pass

    cases = (
        ("units", lambda: run(live, few), lambda: run(live, layer.units)),
        ("images", lambda: run(live, few), lambda: run(lives, few)),
    )
    for what, first, second in cases:
        paired = measure.pairs(first, second, repeats=repeats)
        yield measure.judged(
            f"layer3: time of 4 x the {what} over 4 x the time",
            paired,
            goal="<= 1.15",
            met=lambda ratio: ratio <= 1.15,
            value=paired.ratio / 4,
        )


def _fastest(module: nn.Module, layer: LayerInfo, image: Tensor, part: int) -> Captum:
    """Captum at the setting that takes the least time for each channel."""

    def seconds(captum: Captum) -> float:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            captum(image)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    return min((Captum(module, layer, part, setting) for setting in SETTINGS), key=seconds)


def _network() -> tuple[nn.Module, dict[str, LayerInfo]]:
    subject = ns.load_model("torchvision:resnet18", weights="random")
    return subject.module, {layer.name: layer for layer in subject.layers}


def _images(number: int) -> Tensor:
    return torch.randn(number, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def figures(quick: bool) -> Iterator[measure.Figure]:  # noqa: FBT001 called by the harness
    """All of them."""
    yield from against_captum(quick=quick)
    yield from growth(quick=quick)


if __name__ == "__main__":
    torch.set_num_threads(1)
    measure.main(__doc__ or "", figures)
