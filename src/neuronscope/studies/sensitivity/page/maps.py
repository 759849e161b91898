"""Every activation: where in the image each factor matters, and montages of the maps of the units of each layer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from neuronscope.studies.sensitivity.page.pictures import (
    ACROSS,
    SCALE,
    colour_bar,
    map_picture,
    masked,
    montage,
    shrunk,
    top_of,
)
from neuronscope.studies.sensitivity.page.view import MEASURES, View, clipped, counted, known_mean, listed
from neuronscope.views import Axis, Block, Chart, Gallery, Panel, Picture, Section, Series, Strip, Text

_TILE = 15  # longest side of a map in a montage
_PIXELS = 2_400_000  # of all montages together: a few megabytes
_MOST_PIXELS, _LEAST_PIXELS = 20_000, 5_000  # of one montage
_MAGNIFIED = 2 * _TILE  # side of a tile as it is shown
_FEWEST = 16  # units in a montage, of layers that have so many
_FLAT = 4  # layers without maps that are drawn
_DESIGNS = {"Sobol rows": "", "Shapley draws": "shapley_"}
"""Rows that means and variances are over, and the beginning of their names."""
_MEAN_FLOOR = 1e-5  # of the original's coefficient of variation


def where(view: View) -> Iterator[Block]:
    """Mean maps of layers: a row for each layer and measure, a picture for each factor."""
    strips = []
    for layer in view.shown_layers:
        if not view.has_maps(layer):
            continue
        for name, title in MEASURES.items():
            values = view.maps(layer, name)
            if values is not None:
                means = known_mean(clipped(values))
                strips.append(_mean_strip(view, layer, title, means))
        total = view.maps(layer, "total")
        if total is not None and view.sets == 1:  # shares of different designs are not compared
            strips.append(_mean_strip(view, layer, "dominated", _dominated(total)))
    if not strips:
        return
    yield Section(
        "Where in the image",
        "Means over the units of a layer at each place of their maps."
        + (
            " The rows 'dominated' show the share of the units for which the factor has the largest total index there, "
            "known or not."
            if view.sets == 1
            else ""
        ),
    )
    yield Gallery(
        "where",
        "Factors by place, mean over units",
        (colour_bar("low to high end of the row's range", times=SCALE), *strips),
        scale=SCALE,
        key="dark to bright: low to high, over the range that each row says; white: no unit has a value there",
        text=view.left_out,
    )


def _dominated(total: Float[np.ndarray, "u y x k"]) -> Float[np.ndarray, "y x k"]:
    """Share of the live units at each place for which each factor has the largest total index."""
    alive = np.isfinite(total).all(axis=3)
    largest = np.where(alive[..., None], total, -1.0).argmax(axis=3)
    counts = np.stack([((largest == g) & alive).sum(axis=0) for g in range(total.shape[3])], axis=-1)
    there = alive.sum(axis=0)[..., None]
    return np.where(there > 0, counts / np.maximum(there, 1), np.nan)


def _mean_strip(view: View, layer: str, title: str, means: Float[np.ndarray, "y x k"]) -> Strip:
    top = top_of(means)
    pictures = [map_picture(means[..., g], 0.0, top, caption=factor) for g, factor in enumerate(view.factors)]
    return Strip(f"{layer}, {title}", pictures, note=f"0 to {top:.2g}")


def montages(view: View) -> Iterator[Block]:
    """All measures of the units of each layer, a gallery for each; bars and maps of numbers where there is no place."""
    spatial = [layer for layer in view.shown_layers if view.has_maps(layer)]
    flat = [layer for layer in view.flat_layers if layer in view.shown_layers]
    if not spatial and not flat:
        return
    yield Section(
        "Maps of the units",
        "Every activation of a layer by itself. In a montage each tile is the map of one unit, unit 0 at the upper "
        f"left, {ACROSS} in a row. Contrasts are shown only where they are told from noise "
        f"({view.bound}, Benjamini-Yekutieli over all activations of all layers), the others are white; indices and "
        "effects have no such test, and small ones are noise.",
    )
    count = max(sum(_pictures(view, layer) for layer in spatial), 1)
    pixels = int(np.clip(_PIXELS // count, _LEAST_PIXELS, _MOST_PIXELS))
    for number, layer in enumerate(spatial):
        yield _gallery(view, layer, number, pixels)
    for number, layer in enumerate(flat[:_FLAT]):
        yield from _flat(view, layer, number)
    if len(flat) > _FLAT:
        yield Text(f"Not drawn, but in the result: {listed(flat[_FLAT:])}.")


def _pictures(view: View, layer: str) -> int:
    """About how many montages a layer has."""
    measures = sum(view.maps(layer, name) is not None for name in MEASURES)
    contrasts = sum(view.maps(layer, name) is not None for name in ("contrast", "contrast_point_biserial"))
    return len(view.factors) * measures + len(view.augmentations) * contrasts + 6  # means and variances


def _gallery(view: View, layer: str, number: int, pixels: int) -> Gallery:
    """The montages of one layer, one row for each measure."""
    shape = next(maps.shape for name in ("mean", "first", "shapley", "contrast")
                 if (maps := view.maps(layer, name)) is not None)  # fmt: skip
    step = -(-max(shape[1:3]) // _TILE)
    height, width = (-(-side // step) for side in shape[1:3])
    units = max(pixels // ((height + 1) * (width + 1)) // ACROSS * ACROSS, _FEWEST)
    strips = [*_moments(view, layer, units), *_contrasts(view, layer, units), *_shares(view, layer, units)]
    times = max(1, _MAGNIFIED // max(height, width))
    shown = min(units, shape[0])
    said = f"{layer}: {counted(shape[0], 'unit')} with maps of {shape[1]} x {shape[2]}."
    said += f" The first {shown} are shown; the result has all." if shown < shape[0] else ""
    said += f" Each pixel is the mean of {step} x {step} activations." if step > 1 else ""
    return Gallery(
        f"maps-{number}",
        f"Units of {layer}",
        (colour_bar("low to high end of the range", times=times), *strips),
        scale=times,
        key="dark to bright: low to high, over the range that the row or the caption says; white: no value (a dead "
        "activation), or not told from noise",
        text=said,
    )


def _tiles(maps: Float[np.ndarray, "u y x k"], units: int, k: int) -> Float[np.ndarray, "n h w"]:
    return shrunk(maps[:units, :, :, k], _TILE)


def moments_of(mean: Float[np.ndarray, "*s"], variance: Float[np.ndarray, "*s"]) -> dict[str, Float[np.ndarray, "*s"]]:
    """Mean, variance and coefficient of variation on the scale of the original's figures: log10(1 + size).

    Example:
        >>> {name: value.round(2).tolist() for name, value in moments_of(np.array([9.0]), np.array([81.0])).items()}
        {'mean': [1.0], 'variance': [1.91], 'CoV': [0.3]}
    """
    deviation = np.sqrt(np.maximum(variance, 0.0))
    values = {"mean": np.abs(mean), "variance": np.abs(variance), "CoV": deviation / (np.abs(mean) + _MEAN_FLOOR)}
    return {name: np.log10(1 + value) for name, value in values.items()}


def _moments(view: View, layer: str, units: int) -> Iterator[Strip]:
    """Means, variances and coefficients of variation over the rows of the two designs."""
    for title, prefix in _DESIGNS.items():
        mean, variance = view.maps(layer, f"{prefix}mean"), view.maps(layer, f"{prefix}variance")
        if mean is None or variance is None:
            continue
        for run, ending in enumerate(view.of_sets):
            pictures = []
            for name, values in moments_of(mean, variance).items():
                tiles = _tiles(values, units, run)
                top = top_of(tiles)
                pictures.append(Picture(montage(tiles, 0.0, top), f"{name}, 0 to {top:.2g}"))
            yield Strip("activation", pictures, note=f"{title}{ending}: log10(1 + size)")


def _contrasts(view: View, layer: str, units: int) -> Iterator[Strip]:
    """Contrasts where they are told from noise, and how often they are."""
    q = view.maps(layer, "contrast_q")
    if q is None:
        return
    told = view.told(q)
    for title, name in (("rank-biserial", "contrast"), ("point-biserial", "contrast_point_biserial")):
        values = view.maps(layer, name)
        if values is None:
            continue
        shown = masked(values, told)
        top = 1.0 if name == "contrast" else top_of(shown[:units])
        pictures = [
            Picture(montage(_tiles(shown, units, a), -top, top), f"{one}: {told[..., a].mean():.0%} told")
            for a, one in enumerate(view.augmentations)
        ]
        yield Strip(title, pictures, note=f"{-top:.2g} to {top:.2g}".replace("-", "\u2212"))


def _shares(view: View, layer: str, units: int) -> Iterator[Strip]:
    """Sobol indices and Shapley effects."""
    for name, title in MEASURES.items():
        values = view.maps(layer, name)
        if values is None:
            continue
        top = min(1.0, top_of(values[:units]))
        pictures = [
            Picture(montage(_tiles(values, units, g), 0.0, top), factor) for g, factor in enumerate(view.factors)
        ]
        yield Strip(title, pictures, note=f"0 to {top:.2g}")


def _flat(view: View, layer: str, number: int) -> Iterator[Block]:
    """A layer without maps: its moments as bars, its shares as maps of factors by units."""
    for title, prefix in _DESIGNS.items():
        mean, variance = view.maps(layer, f"{prefix}mean"), view.maps(layer, f"{prefix}variance")
        if mean is not None and variance is not None:
            bars = tuple(
                _unit_bars(f"{name}{ending}", values[..., run].ravel())
                for run, ending in enumerate(view.of_sets)
                for name, values in moments_of(mean, variance).items()
            )
            yield Panel(f"moments-{number}", f"Units of {layer}: activation, {title}", bars, columns=3)
            break
    charts = []
    for name, title in MEASURES.items():
        values = view.maps(layer, name)
        if values is not None:
            charts.append(
                _unit_map(
                    title, clipped(values[:, 0, 0].T), view.factors, Axis("share of the variance", limits=(0.0, 1.0))
                )
            )
    if charts:
        yield Panel(f"shares-{number}", f"Units of {layer}: shares of the variance", tuple(charts), columns=1,
                    scale="shared", text="Cut to 0..1. A column is a unit.")  # fmt: skip
    contrast, q = view.maps(layer, "contrast"), view.maps(layer, "contrast_q")
    if contrast is not None and q is not None:
        shown = masked(contrast, view.told(q))[:, 0, 0].T
        yield _unit_map(
            f"Units of {layer}: contrast",
            shown,
            view.augmentations,
            Axis("rank-biserial correlation", limits=(-1.0, 1.0)),
            name=f"contrast-{number}",
        )


def _unit_bars(name: str, values: Float[np.ndarray, "u"]) -> Chart:
    """A bar for each unit, drawn as steps: one line however many units there are."""
    edges = np.arange(len(values) + 1) - 0.5
    return Chart(name, name, "histogram", (Series(name, values, edges),), Axis("unit"), Axis("log10(1 + size)"))


def _unit_map(
    title: str, cells: Float[np.ndarray, "k u"], names: tuple[str, ...], value: Axis, *, name: str = ""
) -> Chart:
    """Columns are units; with a name of its own it is of contrasts, alone on the page."""
    return Chart(
        name or title,
        title,
        "heatmap",
        (Series(title, cells),),
        Axis("unit"),
        Axis("augmentation" if name else "factor", ticks=names),
        value=value,
        text="Only where it is told from noise; the rest is hatched." if name else "",
    )
