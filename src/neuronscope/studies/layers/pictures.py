"""What people look at: feature maps of examples, first-layer filters, and the images that drive units most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import nn

from neuronscope.data.dataset import Data
from neuronscope.maths.streams import DecisionsAnswer
from neuronscope.studies.layers.setting import MOST_EXAMPLES, Setting, feature_maps, map_blocks
from neuronscope.sweep import sweep
from neuronscope.units import LayerInfo

_SMALL = 64  # pixels: images up to this side are shown whole, larger ones as receptive-field crops
_CROP = 56  # pixels: side of a shown crop
_FEW = 12  # units a layer in the gallery of large images
_FEW_BOTTOM = 4  # units a layer whose weakest images are shown


def example_rows(setting: Setting, decisions: DecisionsAnswer) -> list[int]:
    """The images shown step by step: the chosen ones (or one of each class), then some wrong decisions."""
    labels = setting.data.labels
    readable = {int(row) for row in decisions.index}
    chosen = [row for row in setting.spec.examples if row in readable]
    if not setting.spec.examples:
        present = [c for c in np.unique(labels) if c >= 0][:MOST_EXAMPLES]
        firsts = [next((int(row) for row in np.flatnonzero(labels == c) if int(row) in readable), -1) for c in present]
        chosen = [row for row in firsts if row >= 0] or sorted(readable)[:MOST_EXAMPLES]
    wrong = [int(row) for row in decisions.index[decisions.rank > 0] if int(row) not in chosen]
    return chosen + wrong[: setting.spec.wrong]


def examples(setting: Setting, decisions: DecisionsAnswer) -> dict[str, xr.Dataset]:
    """Feature maps of the example images at every layer, their frames and class probabilities."""
    rows = example_rows(setting, decisions)
    few = setting.data.take(rows)
    frames = [setting.subject.preprocess.frame(setting.data.read(row)).movedim(0, -1).numpy() for row in rows]
    groups: dict[str, xr.Dataset] = {}
    response: list[np.ndarray] = []
    kept: dict[str, _Kept] = {}
    for block in map_blocks(setting):
        logits, found = _kept_of(setting, block, few)
        for name, part in found.items():
            kept[name] = kept[name] + part if name in kept else part
    for layer in setting.layers:
        shown, mean = kept[layer.name].shown, kept[layer.name].total / layer.units
        response.append(mean.reshape(len(rows), -1).mean(axis=1))
        if mean.ndim == 3:  # noqa: PLR2004 (images, height, width): only maps have a place in `maps`
            groups[f"/maps/{layer.name}"] = _maps(shown, mean.astype(shown.dtype), rows)
    groups["/examples"] = xr.Dataset(
        {
            "frame": (("image", "y", "x", "channel"), np.stack(frames)),
            "label": ("image", few.labels),
            "probability": (("image", "class"), logits.softmax(1).numpy()),
            "response": (("image", "layer"), np.stack(response, axis=1).astype(np.float64)),
        },
        coords={
            "row": ("image", np.array(rows)),
            "layer_name": ("layer", np.array([layer.name for layer in setting.layers], dtype=object)),
        },
    )
    return groups


@dataclass(frozen=True)
class _Kept:
    """What is kept of the maps of a layer or of a part of it.

    Attributes:
        shown: (images, units, ...) of those of its units that are shown.
        total: (images, ...), the sum over all its units in float64.
    """

    shown: np.ndarray
    total: np.ndarray

    def __add__(self, other: _Kept) -> _Kept:
        """That of two parts of a layer, the second following the first."""
        return _Kept(np.concatenate([self.shown, other.shown], axis=1), self.total + other.total)


def _kept_of(setting: Setting, block: Setting, few: Data) -> tuple[torch.Tensor, dict[str, _Kept]]:
    """The logits of the examples, and what is kept of a group of layers; their whole maps are let go here."""
    found = sweep(setting.subject, few, *feature_maps(block), run=setting.run, name="examples").answer
    kept = {}
    for layer in block.layers:
        values = found[f"maps/{layer.name}"].values
        shown = values[:, : max(0, setting.spec.channels - layer.first)].copy()
        kept[layer.name] = _Kept(shown, values.sum(axis=1, dtype=np.float64))
    return torch.from_numpy(found["logits"].values).double(), kept


def _maps(shown: np.ndarray, mean: np.ndarray, rows: list[int]) -> xr.Dataset:
    """The first feature maps of a layer and the mean over all."""
    return xr.Dataset(
        {
            "feature_map": xr.Variable(("image", "unit", "y", "x"), shown, {"long_name": "activation"}),
            "mean_map": xr.Variable(("image", "y", "x"), mean, {"long_name": "mean over units"}),
        },
        coords={"row": ("image", np.array(rows))},
    )


def filters(setting: Setting) -> dict[str, xr.Dataset]:
    """Weights of the first convolution; empty for networks without one."""
    first = next((m for m in setting.subject.module.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        return {}
    weight = first.weight.detach().float().cpu().numpy().copy()
    return {"/filters": xr.Dataset({"weight": (("unit", "channel", "y", "x"), weight)})}


def exemplars(setting: Setting, units: xr.Dataset) -> dict[str, xr.Dataset]:
    """Pictures of the top and bottom images: whole and with a frame where small, else the receptive field's crop."""
    height, width = setting.subject.input_shape[1:]
    small = max(height, width) <= _SMALL
    most = setting.spec.gallery or (10**9 if small else _FEW)
    channels = setting.subject.preprocess.channels
    side = (height, width) if small else (_CROP, _CROP)
    cache: dict[int, torch.Tensor] = {}
    shown: dict[str, xr.Dataset] = {}
    for end in ("top", "bottom"):
        chosen = gallery_units(setting, units, most=most if end == "top" else min(most, _FEW_BOTTOM))
        rows, places = units[f"{end}_image"].to_numpy()[chosen], units[f"{end}_at"].to_numpy()[chosen]
        pictures = np.zeros((*rows.shape, *side, channels), dtype=np.uint8)
        boxes = np.zeros((*rows.shape, 4), dtype=np.int16)
        for place, rank in np.argwhere(rows >= 0):
            row = int(rows[place, rank])
            if row not in cache:
                cache[row] = setting.subject.preprocess.frame(setting.data.read(row))
            layer = _layer_of(setting, int(chosen[place]))
            box = receptive_box(layer, int(places[place, rank]), height=height, width=width)
            top, bottom, left, right = box
            picture = cache[row] if small else _crop(cache[row][:, top:bottom, left:right], _CROP)
            pictures[place, rank] = picture.movedim(0, -1).numpy()
            boxes[place, rank] = box
        shown[f"/exemplars/{end}"] = xr.Dataset(
            {
                "picture": (("unit", "rank", "y", "x", "channel"), pictures),
                "box": (("unit", "rank", "edge"), boxes),
            },
            coords={"unit_number": ("unit", chosen)},
        )
    return shown


def gallery_units(setting: Setting, units: xr.Dataset, *, most: int) -> np.ndarray:
    """Unit numbers shown: the most class-dependent of each layer that are not dead."""
    strength = np.nan_to_num(units["class_share"].to_numpy(), nan=-1.0)
    chosen = []
    for place in setting.by_layer.values():
        numbers = np.arange(place.start, place.stop)
        alive = numbers[units["dead"].to_numpy()[place] != 1]
        best = alive[np.argsort(-strength[alive], kind="stable")[:most]]
        chosen.append(np.sort(best))
    return np.concatenate(chosen)


def receptive_box(layer: LayerInfo, position: int, *, height: int, width: int) -> tuple[int, int, int, int]:
    """Input pixels behind a map position: (top, bottom, left, right), the whole image where that is not known."""
    if layer.receptive_field is None or len(layer.map_shape) != 2:  # noqa: PLR2004 a map has two axes
        return 0, height, 0, width
    y, x = divmod(position, layer.map_shape[1])
    return layer.receptive_field.box(y, x, height=height, width=width)


def _crop(patch: torch.Tensor, side: int) -> torch.Tensor:
    from torchvision.transforms.v2 import functional as transform

    crop: torch.Tensor = transform.resize(patch, [side, side], antialias=True)
    return crop


def _layer_of(setting: Setting, unit: int) -> LayerInfo:
    return next(layer for layer in setting.layers if unit < setting.by_layer[layer.name].stop)
