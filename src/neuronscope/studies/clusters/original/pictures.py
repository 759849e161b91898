"""The original's pictures of attributions: overlays, dropped positions, cluster by cluster, and gains by class.

Maps are drawn in a scale whose brightness rises with the value, so that they can be read in grey; that of the
original's (jet) rises and falls. Dropped positions are black on the paled image; there they have the colour that
replaces them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, UInt8

from neuronscope.studies.clusters.original.panels import PanelView, panels_of
from neuronscope.studies.clusters.original.parts import Original
from neuronscope.studies.clusters.original.scatter import fitted, save

METHODS = {
    "ig": "Integrated gradients",
    "saliency": "Saliency",
    "signed_saliency": "Gradient",
    "input_x_gradient": "Input x gradient",
    "smoothgrad": "SmoothGrad",
    "gradcam": "Grad-CAM",
}
"""Attributions in words."""

_SCALE = "inferno"
_SMALL = 1e-8
"""Keeps a map without range from a division by 0; the original's."""

_CELL = 2.5
"""Side of a picture in a row, inches."""

_PALE = 0.45
"""How far an image is moved towards white where dropped positions are shown in it."""


def write_panels(original: Original) -> Iterator[Path]:
    """`visualizations/attr_example_{idx}_{block}_idx_{cluster}_k{k}.png`: the original's panel, one row per method."""
    folder = original.outputs / f"visualizations{original.classes}"
    for panel in panels_of(original):
        name = f"attr_example_{panel.row}_{panel.block}_idx_{panel.cluster}_k{panel.k}.png"
        yield write_panel(panel, folder / name)


def write_panel(panel: PanelView, path: Path) -> Path:
    """The image, both overlays, and both images without what each metric drops: seven columns, one row per method."""
    metrics = [metric for metric in ("pixel", "patch") if metric in panel.original.metrics]
    methods = panel.original.methods
    titles = ["Image", "Baseline map", f"Cluster {panel.cluster} filtered"]
    titles += [f"{side}:\ntop {in_words(metric)} dropped" for metric in metrics for side in ("Baseline", "Filtered")]
    figure, grid = _grid(len(methods), titles, caption=0.62)
    frame = panel.frame
    for row, method in enumerate(methods):
        pictures: list[np.ndarray | None] = [frame]
        for part in ("baseline", "filtered"):
            values = panel.map(method, part)
            pictures.append(None if values is None else _overlay(frame, values, image=0.2))
        for metric in metrics:
            for part in ("baseline", "filtered"):
                mask = panel.dropped(method, part, metric)
                pictures.append(None if mask is None else _without(frame, mask))
        for axes, picture in zip(grid[row], pictures, strict=True):
            _show(axes, picture)
        grid[row][0].set_ylabel(METHODS.get(method, method), fontsize=11)
        place = grid[row][0].get_position()
        figure.text(
            place.x0,
            place.y0 - 0.06 / figure.get_figheight(),
            fitted(_footer(panel, method), figure, points=9.5),
            va="top",
            fontsize=9.5,
        )
    label, predicted = panel.classes
    verdict = "rightly recognised" if panel.right else f"taken for {predicted}"
    title = f"Image {panel.row}, {label}, {verdict}: {panel.block}, cluster {panel.cluster} of {panel.k} filtered"
    figure.suptitle(fitted(title, figure, points=13), x=0.02, ha="left", fontsize=13)
    return save(figure, path, dpi=150)


def write_decomposition(panel: PanelView, method: str, path: Path) -> Path:
    """Each cluster alone, their sum, and the map without the filtered cluster: over the image, and as they are."""
    parts = [*panel.clusters, "baseline", "filtered"]
    titles = [f"Cluster {cluster} alone" for cluster in range(panel.k)]
    titles += ["All (baseline)", f"Cluster {panel.cluster} filtered"]
    figure, grid = _grid(2, titles, caption=0.12)
    frame = panel.frame
    for column, part in enumerate(parts):
        values = panel.map(method, part)
        _show(grid[0][column], None if values is None else _overlay(frame, values, image=0.5))
        _show(grid[1][column], None if values is None else _coloured(values))
    for row, name in enumerate(("over the image", "the map alone")):
        grid[row][0].set_ylabel(name, fontsize=11)
    words = METHODS.get(method, method)
    title = f"{words} by cluster: image {panel.row}, {panel.classes[0]}, {panel.block}, k = {panel.k}"
    shown = (
        f"{textwrap.shorten(title, 110, placeholder=' ...')}\neach map from its own least (dark) to its largest value"
    )
    figure.suptitle(shown, x=0.02, ha="left", fontsize=12)
    return save(figure, path, dpi=120)


def write_improvement(table: pd.DataFrame, path: Path, *, title: str) -> Path:
    """Gain of each class by filtering, averaged over methods and sorted, with its mean over classes.

    Args:
        table: rows of `class_analysis_metrics_*.csv`, one for each class and method.
        path: of the picture.
        title: what was filtered.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    gain = improvement(table)
    mean = float(gain.mean()) if len(gain) else float("nan")
    figure = Figure(figsize=(9.2, 5.0), facecolor="white")
    axes = figure.add_axes((0.1, 0.12, 0.87, 0.74))
    ranks = np.arange(1, len(gain) + 1)
    axes.plot(ranks, gain, color="#08306b", marker="o" if len(gain) <= _FEW else None, markersize=4, label="classes")
    axes.axhline(0, color="#444444", linestyle="--", linewidth=1)
    if len(gain):
        axes.axhline(mean, color="#c62828", linewidth=1.6, label=f"mean {mean:+.3g}")
        axes.legend(loc="upper left", frameon=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Class rank")
    axes.set_ylabel("Faithfulness improvement (probability)")
    better = int((gain > 0).sum())
    figure.suptitle(fitted(f"{title}: {better} of {len(gain)} classes better", figure), x=0.03, ha="left")
    return save(figure, path)


def improvement(table: pd.DataFrame) -> Float[np.ndarray, "c"]:
    """Gain of each class by filtering, averaged over methods, ascending; classes without one are left out.

    Example:
        >>> rows = {"class_id": [0, 0, 1], "filtered_faithfulness_mean": [0.5, 0.3, 0.1]}
        >>> improvement(pd.DataFrame({**rows, "baseline_faithfulness_mean": [0.25, 0.3, 0.2]})).round(3)
        array([-0.1  ,  0.125])
    """
    gain = table["filtered_faithfulness_mean"] - table["baseline_faithfulness_mean"]
    by_class = gain.groupby(table["class_id"]).mean().dropna()
    return np.sort(by_class.to_numpy().astype(np.float64))


_FEW = 60
"""Classes that still get a mark each."""


def _grid(rows: int, titles: list[str], *, caption: float) -> tuple[Any, list[list[Any]]]:
    """A figure with square places, room for titles above and a caption below each row, inches."""
    from matplotlib.figure import Figure

    left, right, gap, head, title = 0.45, 0.12, 0.1, 0.48, 0.42
    width = left + right + len(titles) * _CELL + (len(titles) - 1) * gap
    height = head + title + rows * (_CELL + caption) + 0.08
    figure = Figure(figsize=(width, height), facecolor="white")
    grid = []
    for row in range(rows):
        bottom = height - head - title - _CELL - row * (_CELL + caption)
        grid.append(
            [
                figure.add_axes(((left + at * (_CELL + gap)) / width, bottom / height, _CELL / width, _CELL / height))
                for at in range(len(titles))
            ]
        )
    for axes, words in zip(grid[0], titles, strict=True):
        axes.set_title(words, fontsize=10.5, pad=4)
    return figure, grid


def _show(axes: Any, picture: np.ndarray | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    if picture is None:
        axes.text(0.5, 0.5, "not kept", ha="center", va="center", transform=axes.transAxes, color="#555555")
        return
    axes.imshow(picture, aspect="auto", interpolation="nearest")


def _footer(panel: PanelView, method: str) -> str:
    """Probability and faithfulness by patches as in the original, and sparsity by every metric."""
    metrics = panel.original.metrics
    metric = "patch" if "patch" in metrics else metrics[0]
    sides = ("baseline", "filtered")
    before = panel.number("before", method, "baseline", metric)
    after = [panel.number("after", method, side, metric) for side in sides]
    words = [
        "baseline / filtered:",
        f"probability {before:.3f}, without the top {in_words(metric)} {after[0]:.3f} / {after[1]:.3f}",
    ]
    words.append(f"faithfulness {before - after[0]:.2g} / {before - after[1]:.2g}")
    for name in metrics:
        own = [panel.number("sparsity", method, side, name) for side in sides]
        words.append(f"sparsity by {in_words(name)} {own[0]:.3f} / {own[1]:.3f}")
    shown = "   ".join(words).replace("nan", "unknown")
    return shown + (
        "   predicted: \u2713" if panel.right else f"   predicted: {textwrap.shorten(panel.classes[1], 60)}"
    )


def in_words(metric: str) -> str:
    """A metric's positions, in the plural."""
    return f"{metric}es" if metric.endswith("ch") else f"{metric}s"


def _scaled(values: Float[np.ndarray, "y x"]) -> Float[np.ndarray, "y x"]:
    """Values from 0 to 1; what is not finite is lowest."""
    size = np.abs(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0))
    return np.asarray((size - size.min()) / (size.max() - size.min() + _SMALL))


def _coloured(values: Float[np.ndarray, "y x"]) -> Float[np.ndarray, "y x 3"]:
    from matplotlib import colormaps

    return np.asarray(colormaps[_SCALE](_scaled(values))[..., :3], dtype=np.float64)


def _overlay(
    frame: UInt8[np.ndarray, "h w 3"], values: Float[np.ndarray, "y x"], *, image: float
) -> Float[np.ndarray, "h w 3"]:
    """The image and, over it, the map enlarged to its size."""
    heat = _coloured(_enlarged(values, frame.shape[:2]))
    return np.asarray(image * frame / 255 + (1 - image) * heat)


def _without(frame: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "y x"]) -> Float[np.ndarray, "h w 3"]:
    """The image paled, and black where positions are dropped."""
    pale = (1 - _PALE) * frame / 255 + _PALE
    return np.where(_enlarged(mask, frame.shape[:2])[..., None], 0.0, pale)


def _enlarged(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Values at another size, by nearest neighbour."""
    rows, columns = (
        ((np.arange(wanted) + 0.5) * size / wanted).astype(np.int64)
        for wanted, size in zip(shape, values.shape, strict=True)
    )
    return np.asarray(values[np.ix_(rows, columns)])
