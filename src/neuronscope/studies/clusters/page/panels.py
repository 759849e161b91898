"""Images with their attributions: untouched, with a cluster blocked, of each cluster alone, and what was replaced."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int, UInt8

from neuronscope.studies.clusters.page.view import View, first, texts
from neuronscope.views import Block, Gallery, Picture, Section, Strip

_SIDE = 112  # pixels: smaller pictures are magnified to about this side
_LARGEST = 168  # pixels: larger ones are made smaller by whole steps
_BRIGHT = 0.995
"""Quantile of a map that is drawn brightest: single pixels far above all others would leave the rest dark."""
_LEAST, _MOST = 0.45, 0.92  # share of the attribution in an overlay where it is 0 and largest; the rest is the image
_RAMP = np.array(
    [[0, 0, 4], [64, 10, 103], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]], dtype=np.float64
)
"""Colours from no to much attribution, ever lighter, so that order is seen in grey too."""
_GREY = 128


def panels(view: View) -> Iterator[Block]:
    """A gallery with a row for each image and method."""
    table = view.groups.get("panels")
    if table is None or not table.sizes.get("panel", 0) or "frame" not in table:
        return
    strips = [strip for place in range(table.sizes["panel"]) for strip in _strips(view, table, place)]
    yield Section(
        "Images and their maps",
        "The image, the untouched map, the map with a cluster's gradient blocked, the map of each cluster alone, and "
        "the "
        "image with the part replaced that each map ranks highest.",
    )
    yield Gallery(
        "panels",
        "Attributions of single images",
        strips,
        scale=1,
        key=(
            "dark to bright: no to much attribution, each map scaled by itself, over the image in grey. Flat grey: "
            "what "
            "was replaced"
        ),
        text=(
            "Below a replaced image: the probability of the answer before and after. Maps of single images show what a "
            "map looks like, not which one is better: that is what the comparisons above are for."
        ),
    )


def _strips(view: View, table: xr.Dataset, place: int) -> Iterator[Strip]:
    """One row for each method, or a single one with the image alone."""
    frame = np.asarray(table["frame"].to_numpy()[place])
    frame = frame[..., None] if frame.ndim == 2 else frame  # noqa: PLR2004 grey
    image = np.repeat(frame, 3, axis=2) if frame.shape[2] == 1 else frame[..., :3]
    image = _sized(image.astype(np.uint8))
    methods = table.sizes.get("method", 0)
    for number in range(methods) if "maps" in table else ():
        method = view.method(number) if number < len(view.methods) else str(number)
        label = f"{view.class_name(_said(table, 'label', place))}; {method}"
        yield Strip(label, list(_pictures(view, table, place, number, image)), note=_note(view, table, place))
    if "maps" not in table or not methods:
        yield Strip(
            view.class_name(_said(table, "label", place)), [Picture(image, "image")], note=_note(view, table, place)
        )


def _pictures(
    view: View, table: xr.Dataset, place: int, method: int, image: UInt8[np.ndarray, "h w 3"]
) -> Iterator[Picture]:
    """The image, its maps, and what was replaced."""
    parts = _parts(table)
    at = {"panel": place, "method": method, "part": 0, "metric": 0}
    yield Picture(image, "image")
    maps = table["maps"].transpose("panel", "method", "part", ...).to_numpy()[place, method].astype(np.float64)
    cluster = _said(table, "cluster", place)
    for place_of_part, (part, one) in enumerate(zip(parts, maps, strict=True)):
        if not np.isfinite(one).any():
            continue  # fewer clusters than another panel has
        sparsity = _number(table, "sparsity", {**at, "part": place_of_part})
        caption = _title(part, cluster) + (f", sparsity {sparsity:.2f}" if np.isfinite(sparsity) else "")
        yield Picture(overlay(image, one), caption)
    if "masks" not in table:
        return
    masks = table["masks"].transpose("panel", "method", "part", "metric", ...).to_numpy()[place, method]
    for number in range(masks.shape[1]):
        metric = view.metrics[number] if number < len(view.metrics) else str(number)
        for part in ("baseline", "filtered"):
            if part in parts and masks[parts.index(part), number].any():
                own = {**at, "part": parts.index(part), "metric": number}
                before, after = _number(table, "before", own), _number(table, "after", own)
                fall = f": {before:.0%} to {after:.0%}" if np.isfinite(before) and np.isfinite(after) else ""
                shown = replaced(image, masks[parts.index(part), number].astype(bool))
                yield Picture(shown, f"{_title(part, cluster)}, {metric}{fall}")


def _parts(table: xr.Dataset) -> list[str]:
    """Names of the parts; in the order agreed on where the result does not give them."""
    names = first(table, "part_name", "part")
    count = table.sizes.get("part", 0)
    if names is not None and names.dims == ("part",) and names.dtype.kind in "OUST":
        return texts(names)
    return [*("baseline", "filtered")[:count], *(f"cluster_{i}" for i in range(count - 2))]


def _title(part: str, cluster: str) -> str:
    """A part in words."""
    if part == "baseline":
        return "untouched"
    if part == "filtered":
        return f"{cluster} blocked" if cluster else "filtered"
    return f"only {part.removeprefix('cluster_')}"


def _number(table: xr.Dataset, name: str, at: dict[str, int]) -> float:
    """A number of a panel, over whichever axes the result has it."""
    values = first(table, name)
    if values is None or not set(values.dims) <= set(at):
        return float("nan")
    return float(values.isel({axis: number for axis, number in at.items() if axis in values.dims}))


def _said(table: xr.Dataset, name: str, place: int) -> str:
    values = first(table, f"{name}_name", name)
    return str(values.to_numpy()[place]) if values is not None and values.dims == ("panel",) else ""


def _note(view: View, table: xr.Dataset, place: int) -> str:
    """What the network says, and which cluster is blocked."""
    said = []
    if _said(table, "predicted", place):
        right = _said(table, "predicted", place) == _said(table, "label", place)
        said.append("answered rightly" if right else f"answered {view.class_name(_said(table, 'predicted', place))}")
    if _said(table, "layer", place):
        said.append(
            f"blocked: cluster {_said(table, 'cluster', place)} of {_said(table, 'k', place)} in "
            f"{view.short(_said(table, 'layer', place))}"
        )
    if _said(table, "row", place):
        said.append(f"image {_said(table, 'row', place)}")
    return "; ".join(said)


def overlay(image: UInt8[np.ndarray, "h w 3"], values: Float[np.ndarray, "y x"]) -> UInt8[np.ndarray, "h w 3"]:
    """A map of any size over an image in grey, from dark (0) to bright (its largest values).

    Args:
        image: the picture, 0 to 255.
        values: attribution summed over channels, at least 0; enlarged by nearest neighbour.

    Example:
        >>> grey = np.full((4, 4, 3), 100, np.uint8)
        >>> shown = overlay(grey, np.array([[0.0, 1.0], [0.0, 0.0]]))
        >>> bool(shown[0, 3].sum() > shown[0, 0].sum())
        True
    """
    known = np.abs(np.nan_to_num(values))
    top = float(np.quantile(known, _BRIGHT)) or float(known.max()) or 1.0
    scaled = np.clip(known / top, 0.0, 1.0)
    height, width = image.shape[:2]
    scaled = _fitted(scaled, height, width)
    places = np.linspace(0, 1, len(_RAMP))
    colour = np.stack([np.interp(scaled, places, _RAMP[:, channel]) for channel in range(3)], axis=2)
    grey = image.astype(np.float64).mean(axis=2, keepdims=True)
    share = (_LEAST + (_MOST - _LEAST) * scaled)[..., None]
    return np.asarray(np.rint(share * colour + (1 - share) * grey), dtype=np.uint8)


def replaced(image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "y x"]) -> UInt8[np.ndarray, "h w 3"]:
    """An image with the places of a mask (of any size) in flat grey."""
    height, width = image.shape[:2]
    large = mask[np.ix_(_nearest(height, mask.shape[0]), _nearest(width, mask.shape[1]))]
    return np.where(large[..., None], np.uint8(_GREY), image)


def _fitted(values: Float[np.ndarray, "y x"], height: int, width: int) -> Float[np.ndarray, "h w"]:
    """A map at the size of a picture: averaged over squares where it is larger by whole steps, else nearest."""
    down, across = values.shape[0] // height, values.shape[1] // width
    if down * across > 1 and values.shape == (down * height, across * width):
        return np.asarray(values.reshape(height, down, width, across).mean(axis=(1, 3)))
    return np.asarray(values[np.ix_(_nearest(height, values.shape[0]), _nearest(width, values.shape[1]))])


def _nearest(wanted: int, size: int) -> Int[np.ndarray, "_"]:
    """For each of `wanted` pixels the one of `size` pixels that covers its centre."""
    return ((np.arange(wanted) + 0.5) * size / wanted).astype(np.int64)


def _sized(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "a b 3"]:
    """Small images magnified by whole steps, large ones averaged over squares of pixels."""
    side = max(image.shape[:2])
    if side <= _LARGEST:
        factor = max(1, _SIDE // side)
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    step = -(-side // _LARGEST)
    height, width = (size // step for size in image.shape[:2])
    squares = image[: height * step, : width * step].reshape(height, step, width, step, 3)
    return np.asarray(np.rint(squares.mean(axis=(1, 3))), dtype=np.uint8)
