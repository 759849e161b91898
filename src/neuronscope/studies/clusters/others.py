"""Maps beside the filtered ones: of a network with shuffled weights, and of Captum's methods by name, unfiltered.

A map that points at much the same places when the weights are shuffled says more about the image than about the network
(Adebayo et al. 2018, "Sanity checks for saliency maps"). Faithfulness is measured with the network as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuronscope.data.dataset import Batch
from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.maths.attribution_maps import Sums, channel_sums, patch_masses, patch_sparsity, pixel_sparsity
from neuronscope.maths.decomposition import summary
from neuronscope.maths.faithfulness import PixelFill
from neuronscope.maths.streams import Seen
from neuronscope.steps.filtered import MEMORY, Filtered, Method, Whole
from neuronscope.steps.masked_inputs import drops, measured_classes
from neuronscope.studies.clusters.evidence import Pass
from neuronscope.studies.clusters.setting import Setting
from neuronscope.studies.clusters.spec import SHUFFLED
from neuronscope.units import LayerInfo

_WINDOW = 16  # pixels of the side of an occluding window, at a side of 224
_SIDE = 224


_KNOWN = (
    "Deconvolution",
    "DeepLift",
    "FeatureAblation",
    "GradientShap",
    "GuidedBackprop",
    "InputXGradient",
    "IntegratedGradients",
    "KernelShap",
    "LRP",
    "Lime",
    "Occlusion",
    "Saliency",
    "ShapleyValueSampling",
)
"""Methods of Captum that take an image and a class."""


def check_captum(names: tuple[str, ...]) -> None:
    """Refuse names that Captum does not have.

    Raises:
        UnknownName: there is no such method.
    """
    for name in names:
        if name not in _KNOWN:
            message = (
                f"'{name}' is no method of Captum for whole images.{nearest(name, _KNOWN)} All: {', '.join(_KNOWN)}"
            )
            raise UnknownName(message)


@dataclass(frozen=True, eq=False)
class OtherMaps:
    """Faithfulness and sparsity of further maps.

    Measurements for each map M: `M/faithfulness_METRIC` and `M/sparsity_METRIC` (n,).

    Attributes:
        layer: any; nothing is filtered there.
        shuffled: methods that are tried on the network with shuffled weights, by name.
        captum: names of Captum's methods.
        metrics: `patch`, `pixel` or both.
        target, measure: class explained, and class whose probability drops.
        mass, drop: of sparsity and faithfulness.
        fill: what replaces patches and pixels.
        sums: number format of running sums.
        seed: of the shuffled weights, and of methods that draw.
        memory: bytes of activations held at once.
    """

    layer: LayerInfo
    shuffled: dict[str, Method]
    captum: tuple[str, ...]
    metrics: tuple[str, ...]
    target: Literal["label", "prediction"] | int
    measure: Literal["label", "prediction"] | int
    mass: float
    drop: float
    fill: PixelFill
    sums: Sums
    seed: int
    shape: tuple[int, int, int]
    memory: int = MEMORY

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """Measure one batch."""
        with torch.no_grad():
            logits = model(batch.image)
        measured = measured_classes(logits, batch.label, of=self.measure)
        explained = measured_classes(logits, batch.label, of=self.target)
        found: dict[str, Tensor] = {}
        if self.shuffled:
            other = shuffled_copy(model, seed=self.seed)
            everything = np.ones((1, self.layer.whole or self.layer.units), dtype=bool)
            for name, method in self.shuffled.items():
                step = Filtered(
                    self.layer, everything, method, target=self.target, memory=self.memory, summary=Whole(self.shape)
                )
                maps = step(other, batch)["maps"][:, 0]
                found |= self._judged(f"{name}{SHUFFLED}", model, batch, maps, (logits, measured))
        for name in self.captum:
            maps = captum_map(name, model, batch.image, explained, seed=self.seed)
            found |= self._judged(f"Captum {name}", model, batch, maps, (logits, measured))
        return {"index": batch.index, "label": batch.label, "logits": logits, **found}

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:
        """Of the measurements."""
        shapes: dict[str, tuple[int, ...]] = {"logits": (outputs,)}
        for name in self.names:
            for metric in self.metrics:
                shapes[f"{name}/faithfulness_{metric}"] = shapes[f"{name}/sparsity_{metric}"] = ()
        return shapes

    @property
    def names(self) -> tuple[str, ...]:
        """Of the maps."""
        return (*(f"{name}{SHUFFLED}" for name in self.shuffled), *(f"Captum {name}" for name in self.captum))

    @property
    def passes(self) -> tuple[int, int]:
        """Those of the methods on the shuffled network; Captum's are not known beforehand and count as one."""
        points = sum(len(method.weights) for method in self.shuffled.values()) + len(self.captum)
        return (points + len(self.names) * len(self.metrics) + 1, points)

    def _judged(
        self,
        name: str,
        model: nn.Module,
        batch: Batch,
        maps: Float[Tensor, "n c h w"],
        known: tuple[Float[Tensor, "n k"], Int[Tensor, "n"]],
    ) -> dict[str, Tensor]:
        logits, measured = known
        surface = channel_sums(maps.detach())
        found: dict[str, Tensor] = {}
        for metric in self.metrics:
            scores = patch_masses(surface) if metric == "patch" else surface
            made = drops(
                model,
                batch.image,
                scores[:, None].float(),
                classes=measured,
                fractions=(self.drop,),
                fill=self.fill,
                index=batch.index,
                logits=logits,
                memory=self.memory,
            )
            found[f"{name}/faithfulness_{metric}"] = made.drop[:, 0, 0]
            found[f"{name}/sparsity_{metric}"] = (
                patch_sparsity(scores, mass=self.mass, sums=self.sums)
                if metric == "patch"
                else pixel_sparsity(maps.detach(), mass=self.mass, sums=self.sums)
            )
        return found


def shuffled_copy(model: nn.Module, *, seed: int) -> nn.Module:
    """The network with the numbers of each weight tensor in random order; running statistics stay."""
    other = copy.deepcopy(model)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.parameters():
            order = torch.randperm(weight.numel(), generator=draw).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
    return other.eval()


def captum_map(
    name: str, model: nn.Module, images: Float[Tensor, "n c h w"], classes: Int[Tensor, "n"], *, seed: int
) -> Float[Tensor, "n c h w"]:
    """One of Captum's attributions with its own defaults; methods that replace parts of the image do so by patches.

    Raises:
        InputError: the method does not work on this network, in Captum's words.
    """
    from captum import attr

    channels, height, width = images.shape[1:]
    window = max(1, _WINDOW * min(height, width) // _SIDE)
    inputs = images.detach().clone().requires_grad_()
    options: dict[str, Any] = {"target": classes.long()}
    if name == "Occlusion":
        options |= {"sliding_window_shapes": (channels, window, window), "strides": (channels, window, window)}
    if name in ("FeatureAblation", "ShapleyValueSampling", "KernelShap", "Lime"):
        rows = torch.arange(height, device=images.device) // window
        columns = torch.arange(width, device=images.device) // window
        mask = rows[:, None] * (int(columns.max()) + 1) + columns
        options["feature_mask"] = mask.expand(1, channels, height, width)
    if name in ("GradientShap", "DeepLift"):
        options["baselines"] = torch.zeros_like(inputs)
    other = copy.deepcopy(model)  # some methods leave hooks, some need activations that are not in place
    for module in other.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    try:
        with torch.random.fork_rng(), torch.inference_mode(mode=False), torch.enable_grad():
            torch.manual_seed(seed)
            found: Tensor = getattr(attr, name)(other).attribute(inputs, **options)
    except (AssertionError, RuntimeError, TypeError, ValueError) as cause:
        message = f"Captum's {name} does not work on this network: {cause}. Leave it out, or choose another method"
        raise InputError(message) from cause
    return found.detach()


def others_pass(setting: Setting) -> Pass | None:
    """The pass that makes further maps; None where nobody asked."""
    spec = setting.spec
    shuffled = setting.methods if spec.sanity == "weights" else {}
    if not shuffled and not spec.captum:
        return None
    step = OtherMaps(
        layer=setting.layers[0],
        shuffled=dict(shuffled),
        captum=spec.captum,
        metrics=spec.metrics,
        target=setting.target,
        measure=setting.measure,
        mass=spec.mass,
        drop=spec.drop,
        fill=setting.fill,
        sums="float32-sums" if setting.has("float32-sums") else "float64",
        seed=setting.run.seed,
        shape=setting.subject.input_shape,
        memory=setting.at_once,
    )
    kept = tuple(name for name in step.shapes(len(setting.subject.classes)) if name != "logits")
    return Pass("other maps", setting.explained, step, kept)


def others_group(setting: Setting) -> xr.Dataset | None:
    """Group `unfiltered`: faithfulness and sparsity of further maps, unfiltered; None where nobody asked."""
    one, spec = others_pass(setting), setting.spec
    if one is None:
        return None
    answer = one.swept(setting)
    names = [
        name.removesuffix(f"/sparsity_{spec.metrics[0]}")
        for name in one.kept
        if name.endswith(f"/sparsity_{spec.metrics[0]}")
    ]
    tables = {
        what: np.array(
            [[answer[f"{name}/{what}_{metric}"].values for metric in spec.metrics] for name in names],
            dtype=np.float64,
        ).transpose(2, 0, 1)
        for what in ("faithfulness", "sparsity")
    }
    variables = {}
    for what, values in tables.items():
        found = summary(values, level=spec.level)
        for part, numbers in (("mean", found.mean), ("std", found.spread), ("low", found.low), ("high", found.high)):
            variables[f"{what}_{part}"] = (("map", "metric"), numbers)
    return xr.Dataset(
        variables,
        coords={
            "map_name": ("map", np.array(names, dtype=object)),
            "metric_name": ("metric", np.array(spec.metrics, dtype=object)),
        },
    )
