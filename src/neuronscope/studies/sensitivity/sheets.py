"""The sheet of augmentations as arrays, so that it is kept with the result, and back to pictures."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from neuronscope.augment.sheet import sheet
from neuronscope.data.dataset import balanced_rows
from neuronscope.studies.sensitivity.setting import Setting
from neuronscope.views import Gallery, Picture, Strip

_IMAGES = 4
"""Images that the strips take in turn."""

_NO_BOX = (-1, -1, -1, -1)


def sheet_group(setting: Setting) -> xr.Dataset:
    """Pictures of each augmentation at its extremes."""
    pool = np.sort(setting.problem.pool.rows)
    rows = pool[balanced_rows(setting.data.labels[pool], limit=min(_IMAGES, len(pool)), seed=setting.run.seed)]
    raws = [setting.data.read(int(row)) for row in rows]
    images = torch.stack(raws).float().div_(255.0)
    gallery = sheet(setting.augmentations, images, rng=setting.run.generator("sheet"))
    pictures = [(number, one) for number, strip in enumerate(gallery.strips) for one in strip.pictures]
    stacked = np.stack([one.image if one.image.ndim == 3 else one.image[..., None] for _, one in pictures])  # noqa: PLR2004 colours
    return xr.Dataset(
        {
            "picture": (("picture", "y", "x", "channel"), stacked),
            "strip": (("picture",), np.array([number for number, _ in pictures])),
            "box": (("picture", "side"), np.array([one.box or _NO_BOX for _, one in pictures])),
        },
        coords={
            "caption": ("picture", np.array([one.caption for _, one in pictures], dtype=object)),
            "label": ("row", np.array([strip.label for strip in gallery.strips], dtype=object)),
            "note": ("row", np.array([strip.note for strip in gallery.strips], dtype=object)),
        },
        attrs={"title": gallery.title, "key": gallery.key, "text": gallery.text, "scale": gallery.scale},
    )


def sheet_gallery(group: xr.Dataset) -> Gallery:
    """The pictures of a kept sheet."""
    strips: list[Strip] = []
    where = group["strip"].to_numpy()
    for number, (label, note) in enumerate(zip(group["label"].to_numpy(), group["note"].to_numpy(), strict=True)):
        pictures = [_picture(group, int(place)) for place in np.flatnonzero(where == number)]
        strips.append(Strip(str(label), pictures, note=str(note)))
    attrs = group.attrs
    return Gallery(
        "augmentations",
        attrs["title"],
        tuple(strips),
        scale=int(attrs["scale"]),
        key=attrs["key"],
        text=attrs["text"],
    )


def _picture(group: xr.Dataset, place: int) -> Picture:
    image = group["picture"].to_numpy()[place]
    box = tuple(int(side) for side in group["box"].to_numpy()[place])
    return Picture(
        image[..., 0] if image.shape[-1] == 1 else image,
        caption=str(group["caption"].to_numpy()[place]),
        box=None if box == _NO_BOX else box,  # type: ignore[arg-type]
    )
