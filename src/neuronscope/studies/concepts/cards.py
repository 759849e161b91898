"""Units on their images: where they are strongest, and where their formula is largest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int, UInt8

from neuronscope.data.dataset import Data
from neuronscope.maths.formulas import Formula
from neuronscope.maths.streams import StackRows
from neuronscope.studies.concepts.bounds import Bounds
from neuronscope.studies.concepts.evidence import LayerEvidence
from neuronscope.studies.concepts.folds import firing
from neuronscope.studies.concepts.grid import Grid
from neuronscope.studies.concepts.setting import Setting
from neuronscope.sweep import sweep

_SIDE = 112  # pixels of the pictures on cards
CHOICES = ("strongest", "formula")
"""What images of a card were chosen for: the unit's activation, the area of its formula."""


def cards_group(
    setting: Setting, grid: Grid, evidence: Sequence[LayerEvidence], held_out: Float[np.ndarray, "units"]
) -> xr.Dataset | None:
    """The units of each layer that fit best; None where no unit has a card.

    Args:
        setting: the study.
        grid: how masks are compared.
        evidence: layers, or blocks of their units.
        held_out: report score of all units, in the same order.
    """
    first = np.cumsum([0, *(len(one.units) for one in evidence)])
    best: dict[str, list[int]] = {}
    for at, one in enumerate(evidence):
        best.setdefault(one.layer.name, []).extend(range(first[at], first[at + 1]))
    shown: set[int] = set()
    for numbers in best.values():
        order = sorted((n for n in numbers if not np.isnan(held_out[n])), key=lambda n: (-held_out[n], n))
        shown |= set(order[: setting.spec.cards])
    numbers_of: list[int] = []
    parts = []
    for at, one in enumerate(evidence):
        own = sorted((n for n in shown if first[at] <= n < first[at + 1]), key=lambda n: (-held_out[n], n))
        if own:
            numbers_of += own
            parts.append(_cards_of(setting, grid, one, [n - int(first[at]) for n in own]))
    if not numbers_of:
        return None
    # Blocks of a layer come one after another; its cards stand by rank all the same.
    place = {name: at for at, name in enumerate(best)}
    layer_of = {number: place[name] for name, numbers in best.items() for number in numbers}
    order = sorted(range(len(numbers_of)), key=lambda at: (layer_of[numbers_of[at]], -held_out[numbers_of[at]], at))
    frames, active, formula, rows, iou = (np.concatenate(table)[order] for table in zip(*parts, strict=True))
    images = setting.spec.images
    choice = np.array([[name] * images for name in CHOICES], dtype=object).reshape(-1)
    return xr.Dataset(
        {
            "unit": ("card", np.array(numbers_of)[order]),
            "row": (("card", "image"), rows),
            "choice": (("card", "image"), np.tile(choice, (len(numbers_of), 1))),
            "iou": (("card", "image"), iou),
            "frame": (("card", "image", "y", "x", "channel"), frames),
            "active": (("card", "image", "mask_y", "mask_x"), active),
            "formula": (("card", "image", "mask_y", "mask_x"), formula),
        }
    )


def _cards_of(
    setting: Setting, grid: Grid, one: LayerEvidence, shown: Sequence[int]
) -> tuple[
    UInt8[np.ndarray, "..."], Bool[np.ndarray, "..."], Bool[np.ndarray, "..."], Int[np.ndarray, "..."], np.ndarray
]:
    """Pictures and masks of some units of a layer: (units, images, ...)."""
    wanted = np.concatenate([one.top[list(shown)], _largest(setting, one, shown)], axis=1)
    rows = np.unique(wanted[wanted >= 0])
    images = setting.concepts.images.take(setting.reported[rows])
    of = f"maps/{one.layer.name}"
    maps = sweep(
        setting.subject,
        images,
        grid.look([one.layer]),
        StackRows(of, images=len(images)),
        run=setting.run,
        name="cards",
    ).answer.values
    place = {int(row): i for i, row in enumerate(rows)}
    frames = np.stack([_frame(setting, images, i) for i in range(len(images))])
    names, bounds = (len(shown), wanted.shape[1]), one.above.bounds
    pictures = np.zeros((*names, *frames.shape[1:]), dtype=np.uint8)
    active = np.zeros((*names, *grid.shape), dtype=bool)
    covered = np.zeros((*names, *grid.shape), dtype=bool)
    for i, unit in enumerate(shown):
        alone = Bounds(bounds.unit[[unit]], bounds.lower[[unit]], bounds.upper[[unit]])
        formula = one.above.found[unit].formula
        for j, row in enumerate(wanted[i]):
            if row < 0:
                continue
            number = place[int(row)]
            pictures[i, j] = frames[number]
            for _, _, pixel in firing(maps[number : number + 1], alone, shape=grid.shape):
                active[i, j].reshape(-1)[pixel] = True
            if formula is not None:
                covered[i, j] = _mask(setting, grid, int(row), formula)
    union = (active | covered).sum(axis=(2, 3))
    iou = np.where((union > 0) & (wanted >= 0), (active & covered).sum(axis=(2, 3)) / np.maximum(union, 1), np.nan)
    return pictures, active, covered, np.where(wanted >= 0, setting.reported[np.maximum(wanted, 0)], -1), iou


def _mask(setting: Setting, grid: Grid, row: int, formula: Formula) -> Bool[np.ndarray, "h w"]:
    return grid.mask(int(setting.reported[row]), formula)


def _largest(setting: Setting, one: LayerEvidence, shown: Sequence[int]) -> Int[np.ndarray, "shown images"]:
    """Rows of the reported images in which formulas cover most; -1 where they cover nothing any more."""
    areas = one.above.fit.areas[list(shown)]
    count = min(setting.spec.images, areas.shape[1])
    order = np.argsort(-areas.astype(np.int64), axis=1, kind="stable")[:, :count]
    found = np.full((len(shown), setting.spec.images), -1, dtype=np.int64)
    found[:, :count] = np.where(np.take_along_axis(areas, order, axis=1) > 0, order, -1)
    return found


def _frame(setting: Setting, images: Data, row: int) -> UInt8[np.ndarray, "h w 3"]:
    """A picture as the network sees it, in colour, no larger than a card needs."""
    frame = setting.subject.preprocess.frame(images.read(row)).movedim(0, -1).numpy()
    step = max(1, frame.shape[0] // _SIDE)
    small = frame[::step, ::step]
    return np.repeat(small, 3, axis=2) if small.shape[2] == 1 else small
