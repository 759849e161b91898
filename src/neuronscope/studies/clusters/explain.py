"""One pass that attributes, measures the maps, and predicts images without what the maps point at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuronscope.data.dataset import Batch
from neuronscope.edits import stop_gradient
from neuronscope.hooks import applied
from neuronscope.maths.attribution_maps import (
    Sums,
    blurred_to,
    channel_sums,
    neighbour_likeness,
    patch_masses,
    patch_sparsity,
    pixel_sparsity,
    random_order,
)
from neuronscope.maths.decomposition import decompose
from neuronscope.maths.faithfulness import Mode, PixelFill
from neuronscope.maths.streams import Seen
from neuronscope.steps.ablate import classes_ahead
from neuronscope.steps.filtered import MEMORY, Filtered, Method
from neuronscope.steps.masked_inputs import drops, measured_classes
from neuronscope.studies.clusters.configurations import Plan
from neuronscope.units import LayerInfo, UnitSet

PARTS = ("magnitude", "share", "part_sparsity", "error", "likeness")
"""Measurements of the decomposition."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What is kept of the maps of some images: sums over channels, sparsity, and the parts of the whole.

    Attributes:
        plan: configurations.
        mass: share of the attribution that sparsity is about.
        sums: number format of running sums.
        shape: of an image.
    """

    plan: Plan
    mass: float
    sums: Sums
    shape: tuple[int, int, int]

    def __call__(self, maps: Float[Tensor, "n m c h w"], batch: Batch) -> Mapping[str, Tensor]:  # noqa: ARG002 the protocol's
        """Measure them."""
        parts = decompose(maps[:, list(self.plan.alone)], maps[:, 0], mass=self.mass, sums=self.sums)
        return {
            "surface": channel_sums(maps),
            "pixel_sparsity": pixel_sparsity(maps, mass=self.mass, sums=self.sums),
            "magnitude": parts.magnitudes,
            "share": parts.shares,
            "part_sparsity": parts.sparsity,
            "error": parts.error,
            "likeness": parts.likeness,
        }

    def shapes(self, masks: int) -> Mapping[str, tuple[int, ...]]:
        """Of the measurements."""
        parts = len(self.plan.alone)
        by_part = dict.fromkeys(("magnitude", "share", "part_sparsity"), (parts,))
        return {
            "surface": (masks, *self.shape[1:]),
            "pixel_sparsity": (masks,),
            **by_part,
            "error": (),
            "likeness": (),
        }


@dataclass(frozen=True, eq=False)
class Explain:
    """Attributions of every configuration at one layer, by every method, and how good they are.

    Measurements, of configurations in the order of the plan, for each method M: `M/faithfulness_patch`,
    `M/faithfulness_pixel`, `M/sparsity_patch`, `M/sparsity_pixel` (n, configurations; nan where a configuration has no
    such number); `M/deletion` and `M/insertion` (n, curves, fractions) of the baseline, the filters of the main
    clustering and their blurred controls; the parts of the baseline's map (n, clusters). And `probability`,
    `predicted`, `measured` of each image, `residual`, `past` and `cut`.

    Attributes:
        layer: where the gradient is filtered.
        plan: configurations.
        methods: attributions by name.
        metrics: `patch`, `pixel` or both.
        target, measure: class explained, and class whose probability drops.
        mass, drop, fractions: of sparsity, faithfulness and curves.
        fill: what replaces patches and pixels.
        sums: number format of running sums.
        shape: of an image.
        seed: of the random ranking.
        surfaces: whether the maps' sums over channels are passed on, too, as `M/surface`.
        memory: bytes of activations held at once.
    """

    layer: LayerInfo
    plan: Plan
    methods: dict[str, Method]
    metrics: tuple[str, ...]
    target: Literal["label", "prediction"] | int
    measure: Literal["label", "prediction"] | int
    mass: float
    drop: float
    fractions: tuple[float, ...]
    fill: PixelFill
    sums: Sums
    shape: tuple[int, int, int]
    seed: int
    surfaces: Literal["dropped", "kept"] = "dropped"
    memory: int = MEMORY

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """Explain one batch."""
        found: dict[str, Tensor] = {}
        for name, method in self.methods.items():
            seen = self.filtered(method)(model, batch)
            measured = measured_classes(seen["logits"], batch.label, of=self.measure)
            found |= self._judged(name, model, batch, seen, measured)
            for part in PARTS:
                found[f"{name}/{part}"] = seen[part]
            if self.surfaces == "kept":
                found[f"{name}/surface"] = seen["surface"].half()
            if "residual" in seen:
                found[f"{name}/residual"] = seen["residual"]
            found[f"{name}/past"], cut, logits = seen["past"], seen["cut"], seen["logits"]
        probability = logits.double().softmax(1)
        closed = UnitSet(self.layer.name, self.plan.masks.shape[1], tuple(np.flatnonzero(~self.plan.masks[1]).tolist()))
        with torch.no_grad(), applied(model, (self.layer,), (stop_gradient(closed),)):
            again = model(batch.image)
        return {
            "index": batch.index,
            "label": batch.label,
            "logits": logits,
            "cut": cut,
            "predicted": logits.argmax(1).int(),
            "measured": measured.int(),
            "ahead": torch.where(batch.label >= 0, classes_ahead(logits, batch.label), -1).int(),
            "unchanged": (again == logits).all(1).int(),
            "probability": probability.gather(1, measured[:, None])[:, 0],
            **found,
        }

    def filtered(self, method: Method) -> Filtered:
        """The step that attributes."""
        summary = Measured(self.plan, self.mass, self.sums, self.shape)
        return Filtered(self.layer, self.plan.masks, method, target=self.target, memory=self.memory, summary=summary)

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:
        """Of the measurements."""
        count, parts = len(self.plan.configurations), len(self.plan.alone)
        shapes: dict[str, tuple[int, ...]] = {"logits": (outputs,)}
        shapes |= dict.fromkeys(("cut", "predicted", "measured", "ahead", "unchanged", "probability"), ())
        for name, method in self.methods.items():
            for metric in self.metrics:
                shapes[f"{name}/faithfulness_{metric}"] = shapes[f"{name}/sparsity_{metric}"] = (count,)
            if self.fractions:
                shapes[f"{name}/deletion"] = shapes[f"{name}/insertion"] = (len(self.curved), len(self.fractions))
            shapes |= {f"{name}/{part}": (parts,) for part in PARTS[:3]}
            shapes |= {f"{name}/{part}": () for part in (*PARTS[3:], "past")}
            if "residual" in self.filtered(method).shapes(outputs):
                shapes[f"{name}/residual"] = ()
            if self.surfaces == "kept":
                shapes[f"{name}/surface"] = (len(self.plan.masked), *self.shape[1:])
        return shapes

    @property
    def passes(self) -> tuple[int, int]:
        """Those of all methods, and one forward pass for each map, metric and share at most."""
        own = [self.filtered(method).passes for method in self.methods.values()]
        maps = len(self.plan.configurations) - len(self.plan.alone)
        predicted = maps * len(self.metrics) + 2 * len(self.curved) * len(self.fractions)
        return (sum(one[0] for one in own) + predicted * len(self.methods), sum(one[1] for one in own))

    @property
    def curved(self) -> tuple[int, ...]:
        """Numbers of the configurations that have curves."""
        blurred = [at for at, one in enumerate(self.plan.configurations) if one.kind == "blurred"]
        return (0, *self.plan.main, *blurred)

    @property
    def judged(self) -> tuple[int, ...]:
        """Numbers of the configurations with maps that are judged by faithfulness: all but isolated clusters."""
        return tuple(at for at, one in enumerate(self.plan.masked) if one.kind != "isolate")

    def _judged(
        self, name: str, model: nn.Module, batch: Batch, seen: Seen, measured: Int[Tensor, "n"]
    ) -> dict[str, Tensor]:
        """Sparsity and faithfulness of all configurations by one method."""
        surface, n = seen["surface"], len(batch.index)
        made = [one for one in self.plan.made if one.kind == "blurred"]
        maps = surface
        if made:
            likeness = neighbour_likeness(surface[:, list(self.plan.main)])
            smooth = blurred_to(surface[:, :1].expand(-1, len(made), -1, -1), likeness).maps.to(surface.dtype)
            maps = torch.cat([surface, smooth], dim=1)
        count = len(self.plan.configurations)
        ranked = count - maps.shape[1]  # the random ranking, if there is one
        masses = patch_masses(maps)
        numbers = [*self.judged, *range(surface.shape[1], maps.shape[1])]
        found: dict[str, Tensor] = {}
        for metric in self.metrics:
            own = masses if metric == "patch" else maps
            answers = torch.full((n, count), torch.nan, dtype=torch.float64)
            answers[:, numbers] = self._fall(model, batch, own[:, numbers].float(), seen["logits"], measured)[:, :, 0]
            if ranked:
                positions = own.shape[-1] * own.shape[-2]
                order = random_order(positions, index=batch.index.cpu(), seed=self.seed).to(own.device)
                answers[:, -1] = self._fall(model, batch, order, seen["logits"], measured)[:, 0, 0]
            sparse = torch.full((n, count), torch.nan, dtype=torch.float64)
            if metric == "patch":
                sparse[:, : maps.shape[1]] = patch_sparsity(masses, mass=self.mass, sums=self.sums).double().cpu()
            else:
                sparse[:, : surface.shape[1]] = seen["pixel_sparsity"].double().cpu()
            found[f"{name}/faithfulness_{metric}"], found[f"{name}/sparsity_{metric}"] = answers, sparse
        if self.fractions:
            curved = masses[:, list(self.curved)].float()
            for mode in ("deletion", "insertion"):
                found[f"{name}/{mode}"] = self._predicted(
                    model, batch, curved, seen["logits"], measured, fractions=self.fractions, mode=mode
                )
        return found

    def _fall(
        self, model: nn.Module, batch: Batch, maps: Tensor, logits: Tensor, measured: Int[Tensor, "n"]
    ) -> Float[Tensor, "n m f"]:
        """By how much the probability falls."""
        made = drops(
            model,
            batch.image,
            maps,
            classes=measured,
            fractions=(self.drop,),
            fill=self.fill,
            index=batch.index,
            logits=logits,
            memory=self.memory,
        )
        return made.drop.cpu()

    def _predicted(
        self,
        model: nn.Module,
        batch: Batch,
        maps: Tensor,
        logits: Tensor,
        measured: Int[Tensor, "n"],
        *,
        fractions: tuple[float, ...],
        mode: Mode,
    ) -> Float[Tensor, "n m f"]:
        """The probability with the first shares replaced, or with these alone."""
        made = drops(
            model,
            batch.image,
            maps,
            classes=measured,
            fractions=fractions,
            mode=mode,
            fill=self.fill,
            index=batch.index,
            logits=logits,
            memory=self.memory,
        )
        return made.after.cpu()
