"""The step: attributions of a batch under every mask, a few images at a time within a memory budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from math import nan, prod
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from neuronscope.data.dataset import Batch
from neuronscope.errors import InputError, nearest
from neuronscope.maths.masks_basis import mask_basis
from neuronscope.maths.streams import Seen
from neuronscope.steps.filtered.methods import Colour, GradCam, IntegratedGradients, Method
from neuronscope.steps.filtered.shared import (
    MEMORY,
    along_units,
    check_eval,
    chosen,
    differentiable,
    forward,
    survey,
)
from neuronscope.steps.gradients import explained
from neuronscope.units import LayerInfo

FAST_BYTES = 320 * 2**20
"""Activations of one pass above which a processor gets slower, since it asks the system for memory again and again.

Measured on DenseNet-121 at 224 x 224: up to 3 inputs at once take the same time each, 4 a seventh and 6 a quarter more.
"""

_SUMS_SHARE = 4  # sums of gradients take at most this part of the memory
_TARGETS = ("label", "prediction")
_MOST_KNOWN = 16  # bases kept: a sweep asks for one


@runtime_checkable
class Summary(Protocol):
    """What is kept of the attribution maps of a few images; must be picklable."""

    def __call__(self, maps: Float[Tensor, "n m c h w"], batch: Batch) -> Mapping[str, Tensor]:
        """Measurements of shape (n, ...) by name, of those images of a batch that the maps belong to."""
        ...

    def shapes(self, masks: int) -> Mapping[str, tuple[int, ...]]:
        """Shape of each measurement without its first axis, for so many masks."""
        ...


@dataclass(frozen=True)
class Whole:
    """The maps themselves, as the measurement `maps` (n, masks, channels, height, width).

    Attributes:
        shape: channels, height and width of a map: those of an image; of Grad-CAM, one channel.
    """

    shape: tuple[int, int, int] = (3, 224, 224)

    def __call__(self, maps: Float[Tensor, "n m c h w"], batch: Batch) -> Mapping[str, Tensor]:  # noqa: ARG002 of the protocol
        """All of it."""
        return {"maps": maps}

    def shapes(self, masks: int) -> Mapping[str, tuple[int, ...]]:
        """A map for each mask."""
        return {"maps": (masks, *self.shape)}


@dataclass(frozen=True, eq=False)
class Filtered:
    """Attributions to the image under each of many masks of the gradient at one layer.

    Beside the summary's, the measurements are `logits`; `target` (n,), the class explained; `cut` (n,), 1 where every
    way from image to logits leads through the layer, else 0; and of integrated gradients `change` (n,), the target's
    logit at the image less that at the baseline, and `residual` (n,), the sum of the unfiltered attribution less that
    change: how far the steps are too coarse. It is nan where the masks do not give the unfiltered attribution by adding
    and taking away.

    Where the layer is no cut, what goes past it belongs to every mask, and one backward pass of the whole network is
    needed besides; the maps are those of the edited network in any case. How much it is stands in `past` (n,): the
    norm of the summed gradient that goes past the layer over that of the whole one; 0 at a cut, above 1 where the two
    ways cancel, nan where it does not follow from the masks, and for Grad-CAM.

    Attributes:
        layer: where the gradient is filtered; of a part, masks are for the whole layer.
        masks: a row for each configuration, true where the gradient passes.
        method: how to attribute.
        target: what is explained: the logit of the label (of the prediction, for images without a label), of the
            prediction, or of this class for all images. It is the same under all masks.
        memory: bytes of activations and sums held at once; inputs are taken together as far as they fit, at least one
            (on a processor only as far as that is faster).
        rows: inputs taken together instead. The maps agree within the rounding of convolutions.
        summary: what to keep of the maps.
    """

    layer: LayerInfo
    masks: Bool[np.ndarray, "m units"]
    method: Method = field(default_factory=IntegratedGradients)
    target: Literal["label", "prediction"] | int = "label"
    memory: int = MEMORY
    rows: int | None = None
    summary: Summary = field(default_factory=Whole)

    def __post_init__(self) -> None:
        """Refuse masks for another layer, and sizes and classes that cannot be.

        Raises:
            InputError: masks for another number of units, no masks, fewer than one row, a negative class, Grad-CAM at a
                layer without maps.
        """
        units = self.layer.whole or self.layer.units
        if self.masks.shape[1] != units or len(self.masks) == 0:
            message = (
                f"{len(self.masks)} masks for {self.masks.shape[1]} units do not fit layer '{self.layer.name}', which "
                f"has {units}. Give at least one mask, with one true or false for each unit"
            )
            raise InputError(message)
        if self.rows is not None and self.rows < 1:
            message = f"rows is {self.rows}: give at least 1 input at once, or None for as many as fit the memory"
            raise InputError(message)
        if isinstance(self.target, str) and self.target not in _TARGETS:
            message = (
                f"target '{self.target}' is not one of {', '.join(_TARGETS)}, nor a class number."
                f"{nearest(self.target, _TARGETS)}"
            )
            raise InputError(message)
        if isinstance(self.target, int) and self.target < 0:
            message = f"target class {self.target} does not exist: count classes from 0, or say label or prediction"
            raise InputError(message)
        if isinstance(self.method, GradCam) and len(self.layer.map_shape) != 2:  # noqa: PLR2004 height and width
            message = (
                f"Grad-CAM needs maps, but a unit of layer '{self.layer.name}' has the shape {self.layer.map_shape}. "
                "Choose a layer of feature maps, or another method"
            )
            raise InputError(message)

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """Attribute one batch."""
        check_eval(model)
        with differentiable(model):
            images = batch.image.detach().clone()
            with torch.no_grad():
                logits = model(images)
            wanted = self._wanted(logits, batch.label)
            seen = survey(model, self.layer, images)
            plan = _planned(self.masks.tobytes(), len(self.masks), cut=seen.cut)
            room = self.memory - self.memory // _SUMS_SHARE
            fits = (min(room, FAST_BYTES) if images.device.type == "cpu" else room) // seen.row_bytes
            at_once = self.rows if self.rows is not None else max(1, fits)
            parts: list[Mapping[str, Tensor]] = []
            for group in self._groups(images, plan):
                own = _part(batch, group)
                inputs = replace(own, image=images[group])
                maps, numbers = self._attributed(model, inputs, wanted[group], plan, at_once=at_once)
                with torch.no_grad():
                    parts.append({**self.summary(maps, own), **numbers})
            found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            total = found.pop("total")
            if isinstance(self.method, IntegratedGradients):
                change = _change(model, self.method, images, logits, wanted)
                found |= {"change": change, "residual": total - change}
        return {
            "index": batch.index,
            "label": batch.label,
            "logits": logits,
            "target": wanted,
            "cut": torch.full_like(wanted, int(seen.cut), dtype=torch.int32),
            **found,
        }

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:
        """Those of the summary, and the numbers beside them."""
        numbers = ["target", "cut", "past", *(["change", "residual"] if self._integrates else [])]
        return {**self.summary.shapes(len(self.masks)), **dict.fromkeys(numbers, ()), "logits": (outputs,)}

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass for each point and the prediction; as many backward passes of the lower part as the rank."""
        points = len(self.method.weights)
        return (points + 1 + int(self._integrates), points * max(1, self.products))

    @property
    def products(self) -> int:
        """Vector-Jacobian products of the lower part for each input, where the layer is a cut; none for Grad-CAM."""
        if isinstance(self.method, GradCam):
            return 0
        return _planned(self.masks.tobytes(), len(self.masks), cut=True).products

    @property
    def _integrates(self) -> bool:
        return isinstance(self.method, IntegratedGradients)

    def _wanted(self, logits: Float[Tensor, "n classes"], label: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
        if self.target in ("label", "prediction"):
            return explained(logits, label, of="label" if self.target == "label" else "prediction")
        number = int(self.target)
        if number >= logits.shape[1]:
            message = f"target class {number} does not exist: the network has {logits.shape[1]} classes, from 0"
            raise InputError(message)
        return torch.full_like(label, number)

    def _groups(self, images: Float[Tensor, "n c h w"], plan: _Plan) -> Iterator[slice]:
        """Images whose sums are held at once."""
        doubles = plan.columns + 2 * len(self.masks)
        most = max(1, self.memory // _SUMS_SHARE // (8 * doubles * prod(images.shape[1:])))
        for first in range(0, len(images), most):
            yield slice(first, min(first + most, len(images)))

    def _attributed(
        self, model: nn.Module, batch: Batch, wanted: Int[Tensor, "n"], plan: _Plan, *, at_once: int
    ) -> tuple[Float[Tensor, "n m c h w"], dict[str, Tensor]]:
        """Maps under each mask; the sum of the unfiltered map (`total`), and how much goes past the layer (`past`)."""
        images = batch.image
        weights = self.method.weights
        work = list(product(range(len(images)), range(len(weights))))
        numbers = batch.index.tolist()
        cam = isinstance(self.method, GradCam)
        columns = len(self.masks) if cam else plan.columns
        shape = self.layer.map_shape if cam else images.shape[1:]
        sums = torch.zeros((len(images), columns, *shape), dtype=torch.float64, device=images.device)
        for first in range(0, len(work), at_once):
            which = work[first : first + at_once]
            places = torch.tensor([place for place, _ in which], device=images.device)
            share = torch.tensor([weights[point] for _, point in which], dtype=torch.float64, device=images.device)
            inputs = self.method.points(images, numbers, which)
            ways = self._cams if cam else self._gradients
            for column, found in enumerate(ways(model, inputs, wanted[places], plan)):
                sums[:, column].index_add_(0, places, found.double() * share.view(-1, *(1,) * (found.ndim - 1)))
        exact = images.double()
        unknown = images.new_full((len(images),), nan)
        if cam:
            return self.method.finish(sums[:, :, None], exact).to(images.dtype), {"total": unknown, "past": unknown}
        maps = self.method.finish(_mixed(plan.coefficients, sums), exact).to(images.dtype)
        whole, past = _mixed(plan.whole, sums), _mixed(plan.past, sums)
        total = self.method.finish(whole, exact).sum((1, 2, 3, 4)).to(images.dtype) if len(plan.whole) else unknown
        if plan.cut:
            return maps, {"total": total, "past": torch.zeros_like(unknown)}
        share = past.flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1).clamp_min(torch.finfo(sums.dtype).tiny)
        return maps, {"total": total, "past": share.to(images.dtype) if len(plan.past) else unknown}

    def _gradients(
        self, model: nn.Module, inputs: Float[Tensor, "p c h w"], wanted: Int[Tensor, "p"], plan: _Plan
    ) -> Iterator[Float[Tensor, "p c h w"]]:
        """One gradient at the inputs for each column of the plan."""
        seen = forward(model, self.layer, inputs)
        vectors = torch.from_numpy(plan.vectors).to(inputs.device)
        answer = chosen(seen.logits, wanted).sum()
        at_layer, at_images = seen.back(answer, below=len(vectors) > 0, past=not plan.cut)
        if not plan.cut:
            yield at_images if at_images is not None else torch.zeros_like(inputs)
        for number, vector in enumerate(vectors):
            if at_layer is None:
                yield torch.zeros_like(inputs)
            else:
                again = number + 1 < len(vectors)
                yield seen.lower(along_units(vector, at_layer, self.layer), again=again)

    def _cams(
        self,
        model: nn.Module,
        inputs: Float[Tensor, "p c h w"],
        wanted: Int[Tensor, "p"],
        plan: _Plan,  # noqa: ARG002 as of gradients
    ) -> Iterator[Float[Tensor, "p y x"]]:
        """For each mask the sum of its channels, each times its mean gradient."""
        seen = forward(model, self.layer, inputs)
        slopes, _ = seen.back(chosen(seen.logits, wanted).sum(), below=False, past=False)
        if slopes is None:
            slopes = torch.zeros_like(seen.maps)
        elif self.layer.channel_axis != 1:
            slopes = slopes.movedim(self.layer.channel_axis, 1)
        importance = slopes.mean((2, 3))
        for mask in torch.tensor(self.masks, device=inputs.device):
            yield torch.einsum("pu,puyx->pyx", torch.where(mask, importance, 0.0), seen.maps)


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which gradients to compute, and how the attributions asked for are put together from them.

    Attributes:
        cut: whether the layer is a cut; if not, the first column is the unfiltered gradient.
        vectors: masks of the gradient at the layer, one lower vector-Jacobian product for each.
        coefficients: of the columns, for each mask asked for.
        whole: of the columns, for the unfiltered attribution, as one row; no row if it does not follow from them.
        past: of the columns, for what goes past the layer, likewise; no row at a cut.
    """

    cut: bool
    vectors: Bool[np.ndarray, "r units"]
    coefficients: Float[np.ndarray, "m columns"]
    whole: Float[np.ndarray, "w columns"]
    past: Float[np.ndarray, "p columns"]

    @property
    def products(self) -> int:
        """Lower vector-Jacobian products."""
        return len(self.vectors)

    @property
    def columns(self) -> int:
        """Gradients that are added up."""
        return self.products + (not self.cut)


@lru_cache(maxsize=_MOST_KNOWN)
def _planned(content: bytes, count: int, *, cut: bool) -> _Plan:
    masks = np.frombuffer(content, dtype=bool).reshape(count, -1)
    # At a cut gradients of open channels are added up; elsewhere those of closed ones are taken off the whole, for so
    # what goes past the layer need not be told apart.
    asked = masks if cut else ~masks
    basis = mask_basis(asked)
    more = mask_basis(np.concatenate([asked, np.ones_like(asked[:1])]))
    free = more.size == basis.size  # what all channels let through follows from the masks
    vectors, rows = (more.vectors, more.coefficients) if free else (basis.vectors, basis.coefficients)
    wanted, everything = rows[:count].astype(float), rows[count:].astype(float)
    if cut:
        return _Plan(cut, vectors, wanted, whole=everything, past=np.zeros((0, len(vectors))))
    wanted, past = (np.concatenate([np.ones((len(one), 1)), -one], axis=1) for one in (wanted, everything))
    return _Plan(cut, vectors, wanted, whole=np.eye(1, 1 + len(vectors)), past=past)


def _mixed(coefficients: Float[np.ndarray, "m r"], sums: Float[Tensor, "n r c h w"]) -> Float[Tensor, "n m c h w"]:
    return torch.einsum("mr,nrchw->nmchw", torch.from_numpy(coefficients).to(sums), sums)


def _part(batch: Batch, rows: slice) -> Batch:
    parameters = None if batch.parameters is None else batch.parameters[rows]
    return Batch(index=batch.index[rows], image=batch.image[rows], label=batch.label[rows], parameters=parameters)


@torch.no_grad()
def _change(
    model: nn.Module,
    method: IntegratedGradients,
    images: Float[Tensor, "n c h w"],
    logits: Float[Tensor, "n classes"],
    wanted: Int[Tensor, "n"],
) -> Float[Tensor, "n"]:
    """What the target's logit is more at the images than at their baselines."""
    # A baseline of one colour is the same for all images.
    images = images[:1] if isinstance(method.baseline, Colour) else images
    start = model(method.baseline.of(images).contiguous())
    return chosen(logits, wanted) - chosen(start.expand_as(logits), wanted)
