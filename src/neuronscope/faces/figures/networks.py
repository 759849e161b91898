"""A layered graph as a figure: columns of nodes, and links between neighbours whose width shows their weight.

Everything has its place in inches from the start: nothing is searched for, so thousands of links are quick. Links of
one sign and about the same weight are one path, for the sake of the size of SVG. Labels stand in a gutter to the left
of their nodes, where links end: none is crossed by a line. Signs differ by dashes as well as by colour, for grey print.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from neuronscope import Network, NetworkColumn
from neuronscope.faces.figures.arrange import EDGE
from neuronscope.faces.figures.charts import GROUND_ID, RESOLUTION, TITLE_ID, title_height, title_lines
from neuronscope.faces.figures.style import (
    COLOURS,
    MINUS,
    THEMES,
    Theme,
    ThemeName,
    clean,
    fonts_may_lack_glyphs,
    short,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

MOST_LABELS = 40
"""Columns with more nodes show none of their labels, and say how many nodes there are."""
SPACING, DENSE_SPACING = 0.16, 0.08
"""Between nodes with and without labels, in inches, as long as the figure is not too tall."""
LOWEST, TALLEST = 1.7, 8.5
"""Height of the columns, in inches."""
LARGEST_NODE, SMALLEST_NODE = 0.16, 0.045
"""Diameter of a node of value 1, in inches: as large as the densest column allows."""
PLAIN_NODE = 0.5
"""Diameter of a node without a value, as a fraction of the largest."""
LINKS_ROOM = (0.75, 2.2)
"""Between columns, in inches: links are longer where there are few columns."""
WIDEST = 12.5
"""Preferred width of the figure, in inches."""
LABEL_SIZE, HEAD_SIZE = 7.0, 9.0
"""Of labels of nodes and of columns, in points."""
LABEL_CHARACTER, HEAD_CHARACTER, HEAD_LINE = 0.0625, 0.083, 0.155
"""Width of a character of either, and height of a line of the latter, in inches."""
LEVELS = 8
"""Steps of the width of links."""
WIDTHS, STRENGTHS = (0.35, 3.2), (0.25, 0.95)
"""Of the lightest and the heaviest links: width in points, opacity."""
MANY_LINKS = 200
"""Between two columns: with more, lines are narrower."""
NEGATIVE = "#bd4a00"
"""Colour of links with a negative weight: darker than that of series, to stand out among hundreds in grey print, and
still with a contrast of 3 : 1 on a near-black ground."""
DASH = (3.2, 1.5)
"""Of links with a negative weight: on and off, in widths of the line."""
POINTS_PER_INCH = 72.0


def draw_network(network: Network, *, theme: ThemeName = "light") -> Figure:
    """A network as a matplotlib figure: columns under their labels, links, and a key below.

    Links are drawn from the lightest to the heaviest; those of weight 0 are left out.

    Args:
        network: what to draw.
        theme: ink on white, or light ink on a near-black ground.

    Example:
        >>> from neuronscope import NetworkLinks
        >>> columns = (NetworkColumn("conv1", ("3", "7")), NetworkColumn("fc", ("0",)))
        >>> links = NetworkLinks(np.array([0, 1]), np.array([0, 0]), np.array([0.5, -1.0]))
        >>> figure = draw_network(Network("net", "Strongest paths", columns, (links,)))
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['conv1', '3', '7', 'fc', '0']
    """
    with style(THEMES[theme]):
        return compose_network(network, THEMES[theme])


def describe_network(network: Network) -> str:
    """A network in a sentence: see `describe`."""
    columns = ", ".join(f"{column.label} ({_count(column)})" for column in network.columns)
    weights = _weights(network)
    sentence = f"Layered graph of {columns}; {np.count_nonzero(weights > 0)} links with a positive and "
    sentence += f"{np.count_nonzero(weights < 0)} with a negative {network.weight.caption}"
    if weights.size:
        sentence += f", from {weights.min():.4g} to {weights.max():.4g}"
    return sentence + "."


def network_title_height(network: Network) -> float:
    """Height of the title of a network, in inches."""
    return title_height(network.title, _plan(network).width)


def compose_network(network: Network, theme: Theme) -> Figure:
    """The figure of a network in the settings of `style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    plan = _plan(network)
    key = _key(network, plan.node, theme)
    across = max(1, int((plan.width - 2 * EDGE) / max((_key_width(one) for one in key), default=1.0)))
    across = len(key) if sum(map(_key_width, key)) < plan.width - 2 * EDGE else across
    below = 0.2 * -(-len(key) // max(across, 1)) + 0.12 if key else 0.0
    title = title_height(network.title, plan.width)
    height = title + plan.height + below
    figure = Figure((plan.width, height), dpi=RESOLUTION)
    FigureCanvasAgg(figure)
    figure.patch.set_gid(GROUND_ID)
    # One unit of the axes is an inch, from the lower left corner of the columns.
    axes = figure.add_axes((0, below / height, 1, plan.height / height))
    axes.set(xlim=(0, plan.width), ylim=(0, plan.height))
    axes.set_axis_off()
    if title:
        heading = "\n".join(title_lines(network.title, plan.width))
        look: dict[str, Any] = {"va": "top", "fontsize": 11, "fontweight": "bold", "gid": TITLE_ID}
        figure.text(EDGE / plan.width, 1 - EDGE / height, heading, **look)
    with fonts_may_lack_glyphs():
        _draw_links(axes, network, plan, theme)
        for column, x, lines in zip(network.columns, plan.x, plan.heads, strict=True):
            axes.text(x, plan.top + 0.12, "\n".join(lines), ha="center", va="bottom", fontsize=HEAD_SIZE)
            _draw_nodes(axes, column, x, plan, theme)
        if key:
            figure.legend(handles=key, loc="lower left", ncols=across, columnspacing=1.4, numpoints=1)
    return figure


@dataclass(frozen=True)
class _Plan:
    """Places in inches.

    Attributes:
        width, height: of the part with columns and their labels.
        x: of the nodes of each column.
        heads: lines of text above each column.
        top: of the columns; below them there is only the edge.
        node: diameter of the largest nodes.
        gutters: width of the labels to the left of the nodes of each column.
    """

    width: float
    height: float
    x: list[float]
    heads: list[list[str]]
    top: float
    node: float
    gutters: list[float]

    def y(self, count: int) -> Float[np.ndarray, " u"]:
        """Where the nodes of a column are: evenly from top to bottom, with half a step at both ends."""
        return EDGE + (self.top - EDGE) * (1 - (np.arange(count) + 0.5) / max(count, 1))


def _plan(network: Network) -> _Plan:
    columns = network.columns
    gutters = [
        max(len(short(name)) for name in column.nodes) * LABEL_CHARACTER + 0.05 if _is_labelled(column) else 0.0
        for column in columns
    ]
    needed = [len(column.nodes) * (SPACING if _is_labelled(column) else DENSE_SPACING) for column in columns]
    tall = min(max(*needed, LOWEST), TALLEST)
    closest = tall / max(*(len(column.nodes) for column in columns), 1)
    node = max(min(LARGEST_NODE, 0.85 * closest), SMALLEST_NODE)
    between = max(len(columns) - 1, 1)
    room = (WIDEST - sum(gutters) - (2 + between) * node) / between
    room = min(max(room, LINKS_ROOM[0]), max(LINKS_ROOM[1], tall / 2))
    steps = [room + node + gutter for gutter in gutters[1:]] or [room]
    beside = zip([*steps, steps[-1]], [steps[0], *steps], strict=False)
    heads = [_head(column, min(sides) - 0.1) for column, sides in zip(columns, beside, strict=False)]
    # Heads are centred on their columns, so the outer ones may reach further out than nodes and labels.
    wide = [max(len(line) for line in lines) * HEAD_CHARACTER / 2 for lines in heads]
    first = EDGE + max(gutters[0] + node / 2, wide[0])
    x = [first + sum(steps[:i]) for i in range(len(columns))]
    width = max(x[-1] + max(node / 2, wide[-1]) + EDGE, 3.2)
    top = EDGE + tall
    height = top + 0.12 + HEAD_LINE * max(map(len, heads)) + EDGE
    # In the middle, where there is more room than the columns need.
    shift = max(width - (x[-1] + max(node / 2, wide[-1]) + EDGE), 0.0) / 2
    return _Plan(round(width, 2), round(height, 2), [one + shift for one in x], heads, top, node, gutters)


def _is_labelled(column: NetworkColumn) -> bool:
    return 0 < len(column.nodes) <= MOST_LABELS


def _count(column: NetworkColumn) -> str:
    return f"{len(column.nodes)} {'node' if len(column.nodes) == 1 else 'nodes'}"


def _head(column: NetworkColumn, width: float) -> list[str]:
    """Text above a column, in lines no wider than the column: names of layers are broken after dots and the like."""
    most = max(int(width / HEAD_CHARACTER), 6)
    lines = [""]
    for piece in re.findall(r"[^\s._:/-]*[\s._:/-]?", clean(column.label)):
        if lines[-1] and len((lines[-1] + piece).rstrip()) > most:
            lines.append("")
        lines[-1] += piece
    lines = [short(line.strip(), most=most) for line in lines]
    return lines if _is_labelled(column) else [*(line for line in lines if line), f"({_count(column)})"]


def _weights(network: Network) -> Float[np.ndarray, " e"]:
    """All weights that are drawn, in one row."""
    weights = np.concatenate([np.empty(0), *(links.weight for links in network.links)]).astype(float)
    return np.asarray(weights[weights != 0])


def _heaviest(network: Network) -> float:
    """The weight of the widest line."""
    return float(np.abs(_weights(network) if network.weight.limits is None else network.weight.limits).max(initial=0))


def _draw_links(axes: Axes, network: Network, plan: _Plan, theme: Theme) -> None:
    """Lines from node to node, or to the label of a node: for each sign and width one path, the widest on top."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    heaviest, heavy = _heaviest(network), _heavy(network)
    starts, ends, weights = [np.empty((0, 2))], [np.empty((0, 2))], [np.empty(0)]
    for i, links in enumerate(network.links):
        y_start, y_end = (plan.y(len(column.nodes)) for column in network.columns[i : i + 2])
        leave, reach = (_rings(column, plan) for column in network.columns[i : i + 2])
        if plan.gutters[i + 1]:
            reach = np.full(len(reach), plan.node / 2 + plan.gutters[i + 1])
        starts.append(np.column_stack([plan.x[i] + leave[links.start], y_start[links.start]]))
        ends.append(np.column_stack([plan.x[i + 1] - reach[links.end], y_end[links.end]]))
        weights.append(links.weight)
    segments = np.stack([np.concatenate(starts), np.concatenate(ends)], axis=1)
    weight = np.concatenate(weights)
    level = np.ceil(np.abs(weight) / (heaviest or 1.0) * LEVELS).clip(0, LEVELS).astype(int)
    for step in range(1, LEVELS + 1):
        for sign in (1, -1):
            chosen = segments[(level == step) & (np.sign(weight) == sign)]
            if len(chosen):
                codes = np.tile(np.array([Path.MOVETO, Path.LINETO], dtype=Path.code_type), len(chosen))
                path = Path(chosen.reshape(-1, 2), codes)
                look = _look(step, sign, theme, heavy=heavy)
                axes.add_patch(PathPatch(path, fill=False, **look, zorder=1 + step / 100))


def _rings(column: NetworkColumn, plan: _Plan) -> Float[np.ndarray, " u"]:
    """How far from the middle of each node links begin, in inches: not inside a ring, and below a disc."""
    return np.where(np.isfinite(_values(column)), 0.0, plan.node * PLAIN_NODE / 2)


def _values(column: NetworkColumn) -> Float[np.ndarray, " u"]:
    """Values of the nodes, nan where there is none."""
    return np.full(len(column.nodes), np.nan) if column.values is None else np.asarray(column.values, dtype=float)


def _heavy(network: Network) -> float:
    """Width of the widest line, in points: narrower where there are so many links that they would hide each other."""
    most = max((len(links.weight) for links in network.links), default=0)
    return max(WIDTHS[1] * math.sqrt(MANY_LINKS / max(most, MANY_LINKS)), WIDTHS[1] / 2.5)


def _look(step: int, sign: int, theme: Theme, *, heavy: float) -> dict[str, Any]:
    """How links of a width from 1 to `LEVELS` and of a sign look."""
    part = step / LEVELS
    width, strength = (low + (high - low) * part for low, high in ((WIDTHS[0], heavy), STRENGTHS))
    dashes: Any = "-" if sign > 0 else (0, DASH)
    colour = theme.ink if sign > 0 else NEGATIVE
    return {"linewidth": width, "alpha": strength, "linestyle": dashes, "color": colour, "capstyle": "butt"}


def _draw_nodes(axes: Axes, column: NetworkColumn, x: float, plan: _Plan, theme: Theme) -> None:
    """Nodes with a value as discs, those without as rings, and labels to their left."""
    y = plan.y(len(column.nodes))
    values = _values(column)
    known = np.isfinite(values)
    diameter = plan.node * POINTS_PER_INCH
    places = np.full(len(y), x)
    if known.any():
        areas = (diameter * _relative(values[known])) ** 2
        axes.scatter(places[known], y[known], s=areas, color=COLOURS[0], linewidths=0, zorder=3)
    if not known.all():
        area = (diameter * PLAIN_NODE) ** 2
        axes.scatter(
            places[~known], y[~known], s=area, facecolors="none", edgecolors=theme.ink, linewidths=0.9, zorder=3
        )
    if _is_labelled(column):
        look: dict[str, Any] = {"ha": "right", "va": "center_baseline", "fontsize": LABEL_SIZE}
        for name, up in zip(column.nodes, y, strict=True):
            axes.text(x - plan.node / 2 - 0.02, up, short(name), **look)


def _relative(values: Float[np.ndarray, " u"]) -> Float[np.ndarray, " u"]:
    """Diameter of nodes with values, as a fraction of the largest: areas grow evenly, and a 0 is still seen."""
    return np.sqrt(0.12 + 0.88 * values)


def _key(network: Network, node: float, theme: Theme) -> list[Line2D]:
    """What sizes, rings, widths and dashes mean, as far as they occur."""
    from matplotlib.lines import Line2D

    heaviest = _heaviest(network)
    found = np.sign(_weights(network))
    key = []
    for sign, mark in ((1, "+"), (-1, MINUS)):
        if (found == sign).any():
            label = f"{network.weight.label} {mark}{heaviest:.3g} {network.weight.unit}"
            look = _look(LEVELS, sign, theme, heavy=_heavy(network))
            look["solid_capstyle"] = look["dash_capstyle"] = look.pop("capstyle")
            key.append(Line2D([], [], label=clean(label).strip(), **look))
    values = np.concatenate([_values(column) for column in network.columns])
    diameter = node * POINTS_PER_INCH
    disc: dict[str, Any] = {"linestyle": "", "marker": "o", "markeredgewidth": 0, "color": COLOURS[0]}
    if np.isfinite(values).any():  # else all nodes are rings, which says nothing
        for value in (1.0, 0.0):
            size = diameter * float(_relative(np.array([value]))[0])
            key.append(Line2D([], [], label=clean(f"{network.value.label} {value:g}"), markersize=size, **disc))
    if np.isfinite(values).any() and np.isnan(values).any():
        ring: dict[str, Any] = disc | {"markerfacecolor": "none", "markeredgewidth": 0.9, "color": theme.ink}
        key.append(Line2D([], [], label=f"no {clean(network.value.label)}", markersize=diameter * PLAIN_NODE, **ring))
    return key


def _key_width(one: Line2D) -> float:
    """Room for an entry of the key, in inches."""
    return len(str(one.get_label())) * 0.078 + 0.68


def numbers_of_links(network: Network) -> list[tuple[str, str, str, str, float]]:
    """Each link: column and node it starts from, column and node it leads to, weight."""
    found = []
    for left, right, links in zip(network.columns, network.columns[1:], network.links, strict=False):
        places: Sequence[Any] = (links.start.tolist(), links.end.tolist(), links.weight.tolist())
        for start, end, weight in zip(*places, strict=True):
            found.append((left.label, left.nodes[start], right.label, right.nodes[end], weight))
    return found
