"""A few units of each layer in full: their maps for every factor, on one scale, and why they were chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from neuronscope.studies.sensitivity.page.maps import moments_of
from neuronscope.studies.sensitivity.page.pictures import SCALE, colour_bar, map_picture, masked, top_of
from neuronscope.studies.sensitivity.page.view import MEASURES, WILD, View
from neuronscope.views import Block, Gallery, Picture, Section, Strip

_PICTURES = 750  # of all strips: two megabytes


@dataclass(frozen=True)
class Chosen:
    """A unit that is shown, its place in the table of units, and why."""

    place: int
    reason: str


def strips(view: View) -> Iterator[Block]:
    """A gallery for each layer with maps: rows for measures, columns for factors."""
    layers = [layer for layer in view.shown_layers if view.has_maps(layer)]
    asked = int(view.option("shown_units", 6))
    if not layers or not asked:
        return
    rows = [name for name in MEASURES if any(view.maps(layer, name) is not None for layer in layers)]
    each = len(rows) * len(view.factors) + len(view.augmentations) + 6  # means and variances
    count = max(1, min(asked, _PICTURES // (each * len(layers))))
    chosen = {layer: choose(view, layer, count) for layer in layers}
    if not any(chosen.values()):
        return
    fewer = f" Room is for {count} of the {asked} that were asked for (shown_units)." if count < asked else ""
    yield Section(
        "Single units",
        f"Up to {count} units of each layer, chosen so that they differ: for each factor the unit that it dominates by "
        "the widest margin, those first of which that is known, then whichever units have the widest margins. They are "
        f"extremes, not examples of their layer.{fewer}",
    )
    for number, layer in enumerate(layers):
        if chosen[layer]:
            yield Gallery(
                f"units-{number}",
                f"Units of {layer}",
                (
                    colour_bar("0 to 1", times=SCALE),
                    *(strip for one in chosen[layer] for strip in _unit(view, layer, one)),
                ),
                scale=SCALE,
                key="dark to bright: 0 to 1, in rows of the activation 0 to what the caption says, of log10(1 + size); "
                "white: no value, or a contrast not told from noise. Numbers are of the unit as a whole",
            )


def choose(view: View, layer: str, count: int) -> list[Chosen]:
    """Units of a layer that each stand for another factor, as far as there are such."""
    own = view.places(layer)
    found = _scores(view)
    if found is None:
        return [Chosen(int(place), "") for place in own[:count]]
    names, scores, known, word = found
    usable = own[np.isfinite(scores[own]).all(axis=1)]
    if word != "contrast":
        usable = usable[(np.abs(scores[usable]) <= WILD).all(axis=1)]
    if not usable.size or scores.shape[1] < 2:  # noqa: PLR2004 a margin is between two
        return [Chosen(int(place), "") for place in usable[:count]]
    ordered = np.sort(scores[usable], axis=1)
    largest, margin = scores[usable].argmax(axis=1), ordered[:, -1] - ordered[:, -2]
    height = margin + 2.0 * known[usable]
    best = [int(np.flatnonzero(largest == k)[np.argmax(height[largest == k])]) for k in np.unique(largest)]
    best.sort(key=lambda place: -height[place])
    rest = [place for place in np.argsort(-height, kind="stable").tolist() if place not in best]
    picked = [*best, *rest][:count]
    return [
        Chosen(
            int(usable[place]),
            f"largest {word}: {names[largest[place]]} {ordered[place, -1]:.2f}"
            + ("" if known[usable[place]] else ", not told from the second"),
        )
        for place in sorted(picked)
    ]


def _scores(view: View) -> tuple[tuple[str, ...], Float[np.ndarray, "u k"], Bool[np.ndarray, "u"], str] | None:
    """What units are chosen by: names, values, whether the largest is known, and a word for it."""
    for name in ("total", "shapley"):
        values = view.find("units", name)
        if values is not None:
            known = view.find("units", "dominant_known") if name == "total" else None
            sure = _apart(view, name) if known is None else known == 1
            return view.factors, values, sure, MEASURES[name]
    values, q = view.find("units", "contrast"), view.find("units", "contrast_q")
    if values is None or q is None:
        return None
    size = np.abs(values)
    return (
        view.augmentations,
        size,
        np.take_along_axis(view.told(q), size.argmax(axis=1)[:, None], axis=1)[:, 0],
        ("contrast"),
    )


def _apart(view: View, name: str) -> np.ndarray:
    """Whether the interval of the largest share lies above those of all others."""
    table = view.groups["units"]
    low, high = table[f"{name}_low"].to_numpy(), np.array(table[f"{name}_high"].to_numpy())
    largest = np.nan_to_num(table[name].to_numpy(), nan=-1.0).argmax(axis=1)[:, None]
    own = np.take_along_axis(low, largest, axis=1)[:, 0]
    np.put_along_axis(high, largest, -np.inf, axis=1)
    return np.asarray(own > high.max(axis=1))


def _unit(view: View, layer: str, one: Chosen) -> Iterator[Strip]:
    """All rows of one unit; the first says which it is and why it is here."""
    unit = int(view.index_of[one.place])
    place = int(np.flatnonzero(view.places(layer) == one.place)[0])
    name, note = f"{layer}:{unit}", one.reason
    for title, pictures in unit_rows(view, layer, place, one.place):
        yield Strip(f"{name} {title}", pictures, note=note)
        note = ""


def unit_rows(view: View, layer: str, place: int, row: int) -> Iterator[tuple[str, list[Picture]]]:
    """Titles and pictures of everything known of a unit's activations.

    Args:
        view: of the result.
        layer: that has it.
        place: among the units of the layer.
        row: in the table of units.
    """
    for name, title in MEASURES.items():
        maps, whole = view.maps(layer, name), view.find("units", name)
        if maps is not None:
            yield title, _pictures(maps[place], view.factors, whole[row] if whole is not None else None)
    contrast, q = view.maps(layer, "contrast"), view.maps(layer, "contrast_q")
    whole = view.find("units", "contrast")
    if contrast is not None and q is not None:
        sizes = np.abs(masked(contrast[place], view.told(q[place])))
        yield (
            "size of the contrast",
            _pictures(sizes, view.augmentations, np.abs(whole[row]) if whole is not None else None),
        )
    pictures = []
    for title, prefix in (("Sobol", ""), ("Shapley", "shapley_")):
        mean, variance = view.maps(layer, f"{prefix}mean"), view.maps(layer, f"{prefix}variance")
        if mean is not None and variance is not None:
            for run, ending in enumerate(view.of_sets):
                for name, values in moments_of(mean[place, ..., run], variance[place, ..., run]).items():
                    top = top_of(values)
                    caption = f"{name}, {title}{ending}, to {top:.2g}"
                    pictures.append(map_picture(values, 0.0, top, caption=caption))
    if pictures:
        yield "activation", pictures


def _pictures(
    maps: Float[np.ndarray, "y x k"], names: tuple[str, ...], whole: Float[np.ndarray, "k"] | None
) -> list[Picture]:
    """A picture for each factor on the scale 0 to 1, with the number of the whole unit."""
    return [
        map_picture(
            maps[..., k],
            0.0,
            1.0,
            caption=name if whole is None or not np.isfinite(whole[k]) else f"{name} {_number(whole[k])}",
        )
        for k, name in enumerate(names)
    ]


def _number(value: float) -> str:
    """Two decimals; what rounds to nothing is a plain 0."""
    text = f"{value:.2f}"
    return "0" if float(text) == 0 else text.replace("-", "\u2212")
