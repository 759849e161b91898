"""Units as points: in space by mean, rate and variance, and in the plane where neighbours stay together.

Groups differ by mark and by brightness, so that they can be told apart in grey.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = ("mean activation", "activation rate", "variance")

_DPI = 150
_COLOURS = (
    "#08306b",
    "#d95f02",
    "#4bb39b",
    "#c994c7",
    "#111111",
    "#a6761d",
    "#9ecae1",
    "#6a51a3",
    "#e7c71f",
    "#666666",
)
_MARKS = ("o", "^", "s", "D", "v", "P", "X", "*", "<", ">")
_SPACE_MARKS = ("circle", "diamond", "square", "circle-open", "diamond-open", "square-open")  # crosses blur when small
_APART = "#8c8c8c"

_USED = 0.94  # share of a figure's width that words may take
_LETTER = 0.58  # mean width of a letter, of its size


@dataclass(frozen=True, eq=False)
class Group:
    """Units that share a mark.

    Attributes:
        name: in the legend.
        members: which units.
        apart: whether they belong to no cluster, and are drawn grey.
    """

    name: str
    members: Bool[np.ndarray, "u"]
    apart: bool = False


@dataclass(frozen=True, eq=False)
class Cloud:
    """Units of a layer.

    Attributes:
        points: mean, rate and variance of each.
        plane: places in the plane; None where there are none.
        numbers: of the units in their layer.
        groups: of units.
        title: of the pictures.
    """

    points: Float[np.ndarray, "u 3"]
    plane: Float[np.ndarray, "u 2"] | None
    numbers: Int[np.ndarray, "u"]
    groups: tuple[Group, ...]
    title: str

    @property
    def placed(self) -> Bool[np.ndarray, "u"]:
        """Units that have a place in the plane."""
        if self.plane is None:
            return np.zeros(len(self.numbers), dtype=bool)
        return np.asarray(np.isfinite(self.plane).all(axis=1))


def write_space(cloud: Cloud, path: Path) -> Path:
    """Mean, rate and variance from the original's point of view."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 6.6), facecolor="white")
    axes: Any = figure.add_axes((0.0, 0.0, 0.68, 0.98), projection="3d")
    for group, colour, mark in _marked(cloud.groups):
        own = cloud.points[group.members]
        label = f"{group.name} ({len(own)})"
        axes.scatter(*own.T, s=14, color=colour, marker=mark, depthshade=False, linewidth=0.8, label=label)
    axes.view_init(elev=30, azim=120)
    axes.set_box_aspect(None, zoom=0.92)
    for name, text in zip("xyz", AXES, strict=True):
        getattr(axes, f"set_{name}label")(text, labelpad=14 if name == "z" else 8)
    axes.tick_params(axis="z", pad=8)
    axes.ticklabel_format(axis="z", scilimits=(-2, 4), useMathText=True)
    figure.suptitle(fitted(f"Units by their activations: {cloud.title}", figure), x=0.03, ha="left")
    figure.legend(loc="center right", bbox_to_anchor=(0.995, 0.5), frameon=False, title="units")
    return save(figure, path)


def write_plane(cloud: Cloud, path: Path) -> Path:
    """t-SNE of the features that units were clustered by; units without a place are left out."""
    from matplotlib.figure import Figure

    plane = cloud.plane if cloud.plane is not None else np.zeros((len(cloud.numbers), 2))
    figure = Figure(figsize=(9.0, 6.2), facecolor="white")
    axes = figure.add_axes((0.08, 0.1, 0.64, 0.77))
    for group, colour, mark in _marked(cloud.groups):
        own = plane[group.members & cloud.placed]
        label = f"{group.name} ({len(own)})"
        axes.scatter(own[:, 0], own[:, 1], s=20, color=colour, marker=mark, linewidth=0.8, label=label)
    axes.set_xlabel("t-SNE 1 (no unit)")
    axes.set_ylabel("t-SNE 2 (no unit)")
    title = f"Units with similar activations side by side (t-SNE): {cloud.title}"
    figure.suptitle(fitted(title, figure), x=0.03, ha="left")
    figure.legend(loc="center right", bbox_to_anchor=(0.995, 0.5), frameon=False, title="units")
    return save(figure, path)


def write_interactive(cloud: Cloud, path: Path, *, centres: Float[np.ndarray, "k 3"] | None = None) -> Path:
    """The same points to turn around, as one file that needs no network."""
    import plotly.graph_objects as go

    traces = []
    for number, (group, colour, _) in enumerate(_marked(cloud.groups)):
        own = cloud.points[group.members]
        symbol = _SPACE_MARKS[number % len(_SPACE_MARKS)]
        traces.append(_trace(own, f"{group.name} ({len(own)})", colour, symbol, texts=cloud.numbers[group.members]))
    for number, centre in enumerate(centres if centres is not None else ()):
        group, colour, _ = _marked(cloud.groups)[number]
        traces.append(_trace(centre[None], f"{group.name}, centre", colour, "diamond", size=8, opacity=1.0))
    figure = go.Figure(traces)
    # Powers in place of prefixes: a variance has no unit that "milli" could go with.
    form = {"exponentformat": "power"}
    axes = {f"{name}axis": {"title": {"text": text}, **form} for name, text in zip("xyz", AXES, strict=True)}
    figure.update_layout(
        title={"text": f"Units by their activations: {cloud.title}"},
        scene={**axes, "camera": {"eye": {"x": 1.5, "y": 1.5, "z": 1.1}}},
        template="plotly_white",
        margin={"l": 0, "r": 0, "t": 48, "b": 0},
        legend={"title": {"text": "units"}, "itemsizing": "constant"},
    )
    # The library stands in the file, so that it opens without a network and for good; the name keeps bytes repeatable.
    figure.write_html(path, include_plotlyjs=True, full_html=True, div_id="units")
    return path


def fitted(words: str, figure: Figure, *, points: float = 12.0) -> str:
    """Words in as many lines as they need in a figure of this width."""
    return textwrap.fill(words, max(20, int(_USED * figure.get_figwidth() * 72 / (_LETTER * points))))


def save(figure: Figure, path: Path, *, dpi: int = _DPI) -> Path:
    """Write a picture whose bytes depend on nothing but what it shows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi, facecolor="white", metadata={"Software": None})
    return path


def _trace(
    points: np.ndarray,
    name: str,
    colour: str,
    symbol: str,
    *,
    size: int = 4,
    opacity: float = 0.7,
    texts: np.ndarray | None = None,
) -> Any:
    import plotly.graph_objects as go

    what = "<b>unit %{text}</b><br>" if texts is not None else ""
    edge = {"color": "#000000", "width": 2 if texts is None else 0}
    return go.Scatter3d(
        x=points[:, 0].tolist(),
        y=points[:, 1].tolist(),
        z=points[:, 2].tolist(),
        mode="markers",
        name=name,
        text=None if texts is None else [str(text) for text in texts],
        hovertemplate=what + "mean %{x:.3g}<br>rate %{y:.3g}<br>variance %{z:.3g}<extra>" + name + "</extra>",
        marker={"size": size, "color": colour, "symbol": symbol, "opacity": opacity, "line": edge},
    )


def _marked(groups: tuple[Group, ...]) -> list[tuple[Group, str, str]]:
    """Each group with a colour and a mark; those apart are grey crosses."""
    return [
        (group, _APART, "x")
        if group.apart
        else (group, _COLOURS[at % len(_COLOURS)], _MARKS[(at + at // len(_COLOURS)) % len(_MARKS)])
        for at, group in enumerate(groups)
    ]
