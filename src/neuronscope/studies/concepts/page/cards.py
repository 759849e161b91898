"""Units on their images: how each formula is made, where the unit is strongest, and where its formula is largest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int, UInt8

from neuronscope.studies.concepts.page.trees import formula_trees
from neuronscope.studies.concepts.page.view import View
from neuronscope.views import Block, Gallery, Picture, Section, Strip, Text

_TOGETHER = 60  # cards of a layer: with more, they are divided by ranges of units
_RANGE = 64  # units of such a range
_TREES = 12  # formulas drawn of each layer where there are no cards
_SIDE = 112  # pixels: smaller pictures are magnified to about this side, so that outlines are thin
_DARK = 0.3  # of the brightness left outside a unit's mask
_FLOOR = 88  # grey level of black inside it: above what white becomes outside
_LINE = (255, 210, 0)  # bright yellow, with black beside it: seen on any ground, also in grey
_CHOICES = {"strongest": "where the unit is strongest", "formula": "where the formula is largest"}


def cards(view: View) -> Iterator[Block]:
    """Trees and pictures of the shown units, layer by layer; of many units in ranges of their numbers."""
    if view.cards is None:
        yield from _trees_alone(view)
        return
    both = "choice" in view.cards
    yield Section(
        "Units and their images",
        "The units of each layer that fit best on held-out images: their formula as a tree, then "
        + (
            "two rows of those images for each, where the unit is strongest and where its formula is largest."
            if both
            else "the images where they are strongest."
        )
        + (
            " The first row is what the unit answers to; the second shows whether it answers where its formula holds."
            if both
            else ""
        ),
    )
    units = view.cards["unit"].to_numpy()
    for layer in view.layer_names:
        places = np.flatnonzero(view.layer_of[units] == layer)
        own = int((view.explained & (view.layer_of == layer)).sum())
        parts = _parts(view, units, places)
        if len(parts) > 1:
            yield Text(
                f"{len(places):,} of {own:,} explained units of {layer}, by their numbers. Long lists show their first "
                "rows and the rest on demand; the filter finds a unit or a concept by name."
            )
        for suffix, chosen in parts:
            title = f"{layer}, units {suffix}" if suffix else layer
            yield from _gallery(view, title, chosen, own)


def _parts(view: View, units: Int[np.ndarray, "card"], places: Int[np.ndarray, "_"]) -> list[tuple[str, np.ndarray]]:
    """Cards of a layer at once, or by ranges of unit numbers."""
    if len(places) <= _TOGETHER:
        return [("", places)] if len(places) else []
    numbers = view.index_of[units[places]]
    first = np.unique(numbers // _RANGE) * _RANGE
    return [
        (f"{start}-{start + _RANGE - 1}", places[(numbers >= start) & (numbers < start + _RANGE)]) for start in first
    ]


def _gallery(view: View, title: str, places: Int[np.ndarray, "_"], own: int) -> Iterator[Block]:
    table = view.cards
    if table is None:
        return
    units = table["unit"].to_numpy()[places].tolist()
    name = title.replace(", units ", "-")
    trees = formula_trees(view, units, name=f"trees-{name}", title=f"Formulas of {title}")
    if trees is not None:
        yield trees
    yield Gallery(
        f"cards-{name}",
        f"Units of {title}",
        [strip for place in places for strip in _strips(view, table, int(place))],
        scale=1,
        key=(
            "bright: the unit is active; dark: it is not. Yellow line: the formula's "
            f"{view.places_word} lie inside. Bright inside the line is a hit, bright outside is not in the formula, "
            "dark inside is missed"
        ),
        text=(
            f"{len(places)} of {own:,} explained units. Below each image: the share of its active {view.places_word} "
            "that the formula covers, and the IoU in that image alone."
        ),
    )


def _trees_alone(view: View) -> Iterator[Block]:
    """Formulas of the best units where no cards were asked for."""
    drawn = []
    held = np.where(view.explained, np.nan_to_num(view.get("held_out"), nan=-1.0), -1.0)
    for layer in view.layer_names:
        places = view.places(layer)
        best = places[np.argsort(-held[places], kind="stable")][:_TREES]
        trees = formula_trees(
            view, [int(one) for one in best if view.explained[one]], name=f"trees-{layer}", title=f"Formulas of {layer}"
        )
        if trees is not None:
            drawn.append(trees)
    if drawn:
        yield Section("Formulas as trees", f"The up to {_TREES} units of each layer that fit best on held-out images.")
        yield from drawn


def _strips(view: View, table: xr.Dataset, place: int) -> Iterator[Strip]:
    """The rows of one card: one for each way its images were chosen."""
    unit = int(table["unit"].to_numpy()[place])
    title = f"unit {view.index_of[unit]}: {view.formulas[unit]}"
    if "choice" not in table:
        yield Strip(title, _pictures(view, table, place, range(table.sizes["image"])), note=_note(view, unit))
        return
    choice = [str(one) for one in table["choice"].to_numpy()[place]]
    for number, kind in enumerate(dict.fromkeys(choice)):
        if not kind:
            continue
        own = [i for i, one in enumerate(choice) if one == kind]
        means = _CHOICES.get(kind, kind)
        note = f"{means}; {_note(view, unit)}" if not number else ""
        label = title if not number else f"unit {view.index_of[unit]}: {means}"
        yield Strip(label, _pictures(view, table, place, own), note=note)


def _pictures(view: View, table: xr.Dataset, place: int, numbers: Sequence[int]) -> list[Picture]:
    unit = int(table["unit"].to_numpy()[place])
    grey = view.get("score")[unit] < float(view.option("grey_below", 0.0))
    ious = table["iou"].to_numpy()[place] if "iou" in table else None
    found = []
    for number in numbers:
        frame, active, formula = (table[name].to_numpy()[place, number] for name in ("frame", "active", "formula"))
        if not (frame.any() or active.any() or formula.any()):
            continue  # fewer images than asked for
        if grey:
            frame = np.repeat(frame.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
        caption = _caption(active, formula, None if ious is None else float(ious[number]))
        found.append(Picture(overlay(frame, active=active, formula=formula), caption))
    return found


def _note(view: View, unit: int) -> str:
    held, null, q = (float(view.get(name)[unit]) for name in ("held_out", "null", "q"))
    said = [f"held-out IoU {held:.3f}"]
    ends = [view.find(f"held_out_{end}") for end in ("low", "high")]
    if ends[0] is not None and ends[1] is not None and np.isfinite(ends[0][unit]):
        said[0] += f" ({ends[0][unit]:.3f} to {ends[1][unit]:.3f})"
    if view.judged != "IoU":
        report = view.find("report_score")
        said.append(f"{view.judged} {float('nan') if report is None else report[unit]:.3f}")
    if np.isfinite(q):
        said.append(f"by chance {null:.3f}, q = {q:.2g}" + ("" if view.told[unit] else ": not distinguishable"))
    optimal = int(view.get("optimal")[unit])
    if optimal >= 0:
        said.append("proved optimal" if optimal else f"not proved optimal: gap at most {view.get('gap')[unit]:.3g}")
    if view.get("score")[unit] < float(view.option("grey_below", 0.0)):
        said.append(f"grey: its {view.score} is below {float(view.option('grey_below', 0.0)):g}")
    return "; ".join(said)


def _caption(active: Bool[np.ndarray, "h w"], formula: Bool[np.ndarray, "h w"], iou: float | None) -> str:
    """Share of the active pixels that the formula covers, and the overlap."""
    both, either = int((active & formula).sum()), int((active | formula).sum())
    overlap = (both / either if either else float("nan")) if iou is None else iou
    hit = f"{both / active.sum():.0%} hit" if active.any() else "not active"
    return f"{hit}, IoU {overlap:.2f}" if np.isfinite(overlap) else hit


def overlay(
    frame: UInt8[np.ndarray, "h w 3"], *, active: Bool[np.ndarray, "mh mw"], formula: Bool[np.ndarray, "mh mw"]
) -> UInt8[np.ndarray, "oh ow 3"]:
    """A picture with the active part bright, the rest dark, and an outline around the formula's pixels.

    Small pictures are magnified by whole steps; masks are enlarged to the picture by nearest neighbour.

    Args:
        frame: the picture, 0 to 255.
        active: where the unit is active.
        formula: where the formula holds.

    Example:
        >>> half = np.arange(8) < 4
        >>> white, nowhere = np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8), bool)
        >>> whole = overlay(white, active=np.tile(half, (8, 1)), formula=nowhere)
        >>> whole.shape, int(whole[0, 0, 0]), int(whole[0, -1, 0])
        ((112, 112, 3), 255, 76)
    """
    factor = max(1, _SIDE // max(frame.shape[:2]))
    large = frame.repeat(factor, axis=0).repeat(factor, axis=1).astype(np.float64)
    shape = large.shape[:2]
    bright = _FLOOR + large * (255 - _FLOOR) / 255
    shown = np.where(_enlarged(active, shape)[..., None], bright, large * _DARK).astype(np.uint8)
    inside = _enlarged(formula, shape)
    inner = inside & ~_eroded(inside)  # the border of the image closes an outline too
    second = inside & ~inner & ~_eroded(inside & ~inner)
    shown[second] = 0
    shown[inner] = _LINE
    return shown


def _enlarged(mask: Bool[np.ndarray, "h w"], shape: tuple[int, int]) -> Bool[np.ndarray, "oh ow"]:
    """A mask at another size, by nearest neighbour."""
    rows, columns = (_nearest(wanted, size) for wanted, size in zip(shape, mask.shape, strict=True))
    return np.asarray(mask[np.ix_(rows, columns)])


def _nearest(wanted: int, size: int) -> Int[np.ndarray, "_"]:
    """For each of `wanted` pixels the one of `size` pixels that covers its centre."""
    return ((np.arange(wanted) + 0.5) * size / wanted).astype(np.int64)


def _eroded(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose four neighbours are in the mask too; outside the image none is."""
    wide = np.pad(mask, 1)
    return np.asarray(mask & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:])
