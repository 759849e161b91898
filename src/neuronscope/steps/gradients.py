"""How much each unit adds to what a network says, to first order: several targets from one forward pass.

All measurements are of shape (n, units of all layers). What they mean:

- `pull/TARGET`: the sum over positions of activation times the gradient of the target (Captum's
  `LayerGradientXActivation`, summed over a channel); `size/TARGET` is its absolute value. `size/loss` is the
  first-order Taylor criterion of Molchanov et al. 2017 (arXiv 1611.06440, equation 8) times the number of positions.
- `conductance`: the integral along the straight path from a baseline (Dhamdhere, Sundararajan & Yan 2019, arXiv
  1805.12233, equation 3, in the form of Shrikumar et al. 2018, arXiv 1807.09946); over all units of a cut of the
  network it adds up to the change of the target.
- `influence`: the gradient of the target with respect to the unit, averaged along the same path (internal influence,
  Leino et al. 2018, arXiv 1802.03788), summed over positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuronscope.data.dataset import Batch
from neuronscope.hooks import tapped, units_first
from neuronscope.maths.streams import Seen
from neuronscope.steps.observe import MEASURES
from neuronscope.steps.protocol import check_called
from neuronscope.units import LayerInfo

Target = Literal["logit", "contrast", "loss"]
"""What is differentiated: the class's logit, that logit minus the mean of all others, or the cross-entropy loss."""


@dataclass(frozen=True)
class Gradients:
    """One forward pass and one backward pass for each target.

    Attributes:
        layers: whose units to attribute to.
        targets: what to differentiate.
        of: the class meant: the true one (the predicted one for images without a label), or the predicted one.
        measures: what of the activations to measure on the way, names in `observe.MEASURES`. In all layers of a
            ResNet-18, the mean takes 2 % of the time.
    """

    layers: tuple[LayerInfo, ...]
    targets: tuple[Target, ...] = ("logit",)
    of: Literal["label", "prediction"] = "label"
    measures: tuple[str, ...] = ("mean",)

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """Attribute one batch."""
        found: dict[str, Tensor] = {}
        with torch.enable_grad(), tapped(model, self.layers) as kept:
            logits = model(batch.image)
            check_called(self.layers, kept)
            wanted = explained(logits, batch.label, of=self.of)
            outputs = [kept[layer.name] for layer in self.layers]
            for number, target in enumerate(self.targets):
                total = score(logits, wanted, target).sum()
                again = number + 1 < len(self.targets)
                gradients = torch.autograd.grad(total, outputs, allow_unused=True, retain_graph=again)
                parts = [
                    pulled(output, gradient, layer)
                    for layer, output, gradient in zip(self.layers, outputs, gradients, strict=True)
                ]
                found[f"pull/{target}"] = torch.cat(parts, dim=1)
                found[f"size/{target}"] = found[f"pull/{target}"].abs()
        maps = [flat_maps(output, layer) for layer, output in zip(self.layers, outputs, strict=True)]
        tables = [{k: v for name in self.measures for k, v in MEASURES[name](own).items()} for own in maps]
        means = {name: torch.cat([one[name] for one in tables], dim=1) for name in tables[0]}
        return {"index": batch.index, "label": batch.label, "logits": logits.detach(), **means, **found}

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:
        """The attributions, the activations and the logits."""
        units = sum(layer.units for layer in self.layers)
        names = [f"{kind}/{target}" for target in self.targets for kind in ("pull", "size")]
        means = [*self.measures, *(["max_at"] if "max" in self.measures else [])]
        return {**dict.fromkeys([*means, *names], (units,)), "logits": (outputs,)}

    @property
    def passes(self) -> tuple[int, int]:
        """One forward, as many backward as targets."""
        return (1, len(self.targets))


@dataclass(frozen=True)
class AlongPath:
    """Conductance and internal influence: the path from a baseline to the image in equal steps, trapezoid rule.

    The measurement `residual` (n,) is what the first layer's conductances lack of the target's change, as a share of
    that change: how far the steps are too coarse, or how much goes past the layer on another path.

    Attributes:
        layers: whose units to attribute to.
        steps: intervals of the path.
        baseline: its start, the value of every number of the prepared input; 0 is the mean image.
        of: the class meant.
    """

    layers: tuple[LayerInfo, ...]
    steps: int = 16
    baseline: float = 0.0
    of: Literal["label", "prediction"] = "label"

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """Attribute one batch."""
        with torch.inference_mode():
            logits = model(batch.image)
        wanted = explained(logits, batch.label, of=self.of)
        start = torch.full_like(batch.image, self.baseline)
        before: list[tuple[Tensor, Tensor]] = []
        conductance, influence, ends = _Sum(), _Sum(), []
        for step in range(self.steps + 1):
            outputs, gradients, value = self._at(model, start.lerp(batch.image, step / self.steps), wanted)
            ends.append(value)
            weight = 1.0 if 0 < step < self.steps else 0.5
            influence.add(
                [over_positions(slope, layer) for slope, layer in zip(gradients, self.layers, strict=True)],
                weight / self.steps,
            )
            if before:
                conductance.add(
                    [
                        over_positions((now - past) * (slope + old), layer)
                        for (past, old), now, slope, layer in zip(before, outputs, gradients, self.layers, strict=True)
                    ],
                    0.5,
                )
            before = list(zip(outputs, gradients, strict=True))
        change = ends[-1] - ends[0]
        first = conductance.parts[0].sum(1)
        return {
            "index": batch.index,
            "label": batch.label,
            "logits": logits,
            "conductance": torch.cat(conductance.parts, dim=1),
            "influence": torch.cat(influence.parts, dim=1),
            "residual": (first - change).abs() / change.abs().clamp_min(torch.finfo(change.dtype).tiny),
        }

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:
        """Both attributions, the residual and the logits."""
        units = sum(layer.units for layer in self.layers)
        return {"conductance": (units,), "influence": (units,), "residual": (), "logits": (outputs,)}

    @property
    def passes(self) -> tuple[int, int]:
        """One of each for every point of the path, and the prediction."""
        return (self.steps + 2, self.steps + 1)

    def _at(self, model: nn.Module, image: Tensor, wanted: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Outputs, gradients of the target, and its value at one point of the path."""
        with torch.enable_grad(), tapped(model, self.layers) as kept:
            logits = model(image)
            check_called(self.layers, kept)
            outputs = [kept[layer.name] for layer in self.layers]
            values = score(logits, wanted, "logit")
            gradients = torch.autograd.grad(values.sum(), outputs, allow_unused=True)
        slopes = [
            slope if slope is not None else torch.zeros_like(output)
            for slope, output in zip(gradients, outputs, strict=True)
        ]
        return [output.detach() for output in outputs], slopes, values.detach()


def explained(logits: Tensor, label: Tensor, *, of: Literal["label", "prediction"]) -> Tensor:
    """The class to explain for each image, (n,): its label, or what the network says where it has none."""
    predicted = logits.detach().argmax(1)
    known = (label >= 0) & (label < logits.shape[1])
    return torch.where(known, label, predicted) if of == "label" else predicted


def score(logits: Tensor, wanted: Tensor, target: Target) -> Tensor:
    """The number to differentiate for each image, (n,)."""
    own = logits.gather(1, wanted[:, None])[:, 0]
    match target:
        case "logit":
            return own
        case "contrast":
            others = logits.shape[1] - 1
            return own - (logits.sum(1) - own) / max(others, 1)
        case "loss":
            return functional.cross_entropy(logits, wanted, reduction="none")


def pulled(output: Tensor, gradient: Tensor | None, layer: LayerInfo) -> Tensor:
    """Activation times gradient, summed over the positions of each unit's map: (n, units); 0 where nothing depends."""
    own = flat_maps(output, layer)
    return (own * flat_maps(gradient, layer)).sum(2) if gradient is not None else torch.zeros_like(own[:, :, 0])


def over_positions(values: Tensor, layer: LayerInfo) -> Tensor:
    """Values of the shape of a layer's output summed over the positions of each unit's map: (n, units)."""
    return flat_maps(values, layer).sum(2)


def flat_maps(values: Tensor, layer: LayerInfo) -> Tensor:
    """Values of the shape of a layer's output as (n, units, positions), without their gradient."""
    return units_first(values.detach(), layer).reshape(values.shape[0], layer.units, -1)


class _Sum:
    """Tables that are added up, one for each layer."""

    def __init__(self) -> None:
        self.parts: list[Tensor] = []

    def add(self, tables: Sequence[Tensor], weight: float) -> None:
        scaled = [table * weight for table in tables]
        self.parts = [a + b for a, b in zip(self.parts, scaled, strict=True)] if self.parts else scaled
