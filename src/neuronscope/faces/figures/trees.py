"""Trees as a figure, from left to right and one below the other: roots by name, inner nodes in boxes, named leaves.

Each leaf has a row of its own, and everything that hangs on a node stands to its right: so no text meets another,
however deep a tree is. Narrow trees stand in columns, between those that take the whole width. Sizes are in inches from
the start; nothing is searched for. Dashes mark links with a negative weight (what a branch excludes), for grey print.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from neuronscope import Network
from neuronscope.faces.figures.arrange import EDGE
from neuronscope.faces.figures.charts import GROUND_ID, RESOLUTION, TITLE_ID, title_height, title_lines
from neuronscope.faces.figures.style import (
    COLOURS,
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

ROW, GAP = 0.22, 0.14
"""Height of a leaf, and what is free between two trees, in inches."""
CHARACTER = 0.075
"""Width of a character at most, on average, in inches."""
TEXT_SIZE, VALUE_SIZE = 8.0, 7.0
"""Of names and of values, in points."""
LINK = 0.24
"""Room for links between two depths, in inches."""
BOX, BOX_WITH_VALUE = 0.17, 0.29
"""Height of an inner node without and with its value, in inches."""
LONGEST_LEAF, LONGEST_ROOT, ROOT_LINE = 44, 30, 15
"""Characters shown of a leaf and of a root, and of a root in one line."""
WIDEST, BETWEEN = 12.5, 0.35
"""Trees stand in columns as long as these are together not wider; what is free between columns, in inches."""
EXCLUDED = "#bd4a00"
"""Colour of links with a negative weight, as in networks."""
DASH = (3.2, 1.6)


def draw_trees(network: Network, *, theme: ThemeName = "light") -> Figure:
    """A network of the form `tree` as a matplotlib figure.

    Args:
        network: what to draw: roots in its first column.
        theme: ink on white, or light ink on a near-black ground.

    Example:
        >>> from neuronscope import NetworkColumn, NetworkLinks
        >>> columns = (NetworkColumn("unit", ("7",)), NetworkColumn("1", ("OR",)), NetworkColumn("2", ("sky", "sea")))
        >>> trunk = NetworkLinks(np.array([0]), np.array([0]), np.ones(1))
        >>> branches = NetworkLinks(np.array([0, 0]), np.array([0, 1]), np.ones(2))
        >>> figure = draw_trees(Network("trees", "Formulas", columns, (trunk, branches), form="tree"))
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['sky', 'sea', 'OR', '7']
    """
    with style(THEMES[theme]):
        return compose_trees(network, THEMES[theme])


def describe_trees(network: Network) -> str:
    """The trees in words: see `describe`."""
    trees = _trees(network)
    shown = "; ".join(_words(tree) for tree in trees[:20])
    more = f"; and {len(trees) - 20} more" if len(trees) > 20 else ""  # noqa: PLR2004 said in the text
    return f"{len(trees)} {'tree' if len(trees) == 1 else 'trees'}: {shown}{more}."


def trees_title_height(network: Network) -> float:
    """Height of the title, in inches."""
    return title_height(network.title, _plan(_trees(network)).width)


def compose_trees(network: Network, theme: Theme) -> Figure:
    """The figure in the settings of `style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    trees = _trees(network)
    plan = _plan(trees)
    key = _key(network, theme)
    below = 0.32 if key else 0.0
    title = title_height(network.title, plan.width)
    height = title + plan.height + below
    figure = Figure((plan.width, height), dpi=RESOLUTION)
    FigureCanvasAgg(figure)
    figure.patch.set_gid(GROUND_ID)
    # One unit of the axes is an inch, from the upper left corner of the trees.
    axes = figure.add_axes((0, below / height, 1, plan.height / height))
    axes.set(xlim=(0, plan.width), ylim=(plan.height, 0))
    axes.set_axis_off()
    if title:
        heading = "\n".join(title_lines(network.title, plan.width))
        look: dict[str, Any] = {"va": "top", "fontsize": 11, "fontweight": "bold", "gid": TITLE_ID}
        figure.text(EDGE / plan.width, 1 - EDGE / height, heading, **look)
    with fonts_may_lack_glyphs():
        for tree, (x, y) in zip(trees, plan.corners, strict=True):
            rows = iter(range(_leaves(tree)))
            _draw(axes, tree, _Pen(x, y, plan.steps, theme, rows), 0)
        if key:
            figure.legend(handles=key, loc="lower left", ncols=len(key), columnspacing=1.4)
    return figure


@dataclass(frozen=True)
class _Node:
    """A node with what hangs on it."""

    name: str
    value: float
    excluded: bool
    parts: tuple[_Node, ...]


def _trees(network: Network) -> list[_Node]:
    """The nodes of a network, each with what hangs on it, from the deepest column to the roots."""
    below: list[_Node] = []
    signs: np.ndarray = np.empty(0)
    owners: np.ndarray = np.empty(0, dtype=int)
    for i, column in reversed(list(enumerate(network.columns))):
        values = np.full(len(column.nodes), np.nan) if column.values is None else column.values
        parts: list[list[_Node]] = [[] for _ in column.nodes]
        for owner, part in zip(owners.tolist(), below, strict=True):
            parts[owner].append(part)
        signs, owners = np.ones(len(column.nodes)), np.zeros(len(column.nodes), dtype=int)
        if i and network.links:
            links = network.links[i - 1]
            signs[links.end], owners[links.end] = np.sign(links.weight), links.start
        whole = zip(column.nodes, values.tolist(), (signs < 0).tolist(), map(tuple, parts), strict=True)
        below = [_Node(*one) for one in whole]
    return below


def _leaves(node: _Node) -> int:
    return sum(map(_leaves, node.parts)) or 1


def _words(node: _Node) -> str:
    """A tree as nested words."""
    own = ("without " if node.excluded else "") + node.name + (f" {node.value:.3f}" if np.isfinite(node.value) else "")
    return own + (f" ({', '.join(_words(part) for part in node.parts)})" if node.parts else "")


@dataclass(frozen=True)
class _Plan:
    """Places in inches.

    Attributes:
        steps: where nodes of each depth begin, from the left of a tree.
        corners: upper left corner of each tree.
    """

    width: float
    height: float
    steps: list[float]
    corners: list[tuple[float, float]]


def _plan(trees: Sequence[_Node]) -> _Plan:
    boxes: dict[int, float] = {}
    for tree in trees:
        for depth, node in _walk(tree):
            if node.parts or not depth:
                boxes[depth] = max(boxes.get(depth, 0.0), _width(node, depth))
    steps = [0.0]
    for depth in range(max((depth for tree in trees for depth, _ in _walk(tree)), default=0)):
        steps.append(steps[-1] + boxes.get(depth, 0.0) + LINK)
    widths = [max(steps[depth] + _width(node, depth) for depth, node in _walk(tree)) for tree in trees]
    room = max([WIDEST - 2 * EDGE, *widths])
    # Those that leave room for another beside them stand in columns.
    narrow = max([width for width in widths if 2 * width + BETWEEN <= room], default=room)
    heights = [max(_leaves(tree) * ROW, _root_height(tree)) + GAP for tree in trees]
    corners: list[tuple[float, float]] = []
    y = right = 0.0
    for beside, run in groupby(range(len(trees)), key=lambda i: widths[i] <= narrow):
        members = list(run)
        most = int((room + BETWEEN) / (narrow + BETWEEN)) if beside else 1
        columns = max(1, min(most, len(members) // 2))
        found, tall = _columns([heights[i] for i in members], columns)
        for i, (column, down) in zip(members, found, strict=True):
            corners.append((EDGE + column * (narrow + BETWEEN), y + down + GAP / 2))
            right = max(right, corners[-1][0] + widths[i])
        y += tall
    return _Plan(round(max(right + EDGE, 3.2), 2), round(max(y, ROW) + EDGE, 2), steps, corners)


def _columns(heights: Sequence[float], columns: int) -> tuple[list[tuple[int, float]], float]:
    """Column of each tree and how far down it begins, in reading order and about equally tall; the tallest column."""
    share, filled, column, tall = sum(heights) / columns, 0.0, 0, 0.0
    found = []
    for height in heights:
        # A tree that is for the larger part beyond a column's share begins the next one.
        if filled and filled + height / 2 > share and column < columns - 1:
            column, filled = column + 1, 0.0
        found.append((column, filled))
        filled += height
        tall = max(tall, filled)
    return found, tall


def _walk(node: _Node, depth: int = 0) -> Iterator[tuple[int, _Node]]:
    yield depth, node
    for part in node.parts:
        yield from _walk(part, depth + 1)


def _root(node: _Node) -> list[str]:
    return textwrap.wrap(short(node.name, most=LONGEST_ROOT), ROOT_LINE) or [""]


def _root_height(node: _Node) -> float:
    return 0.14 * len(_root(node)) + 0.05


def _width(node: _Node, depth: int) -> float:
    """Room for a node and its text."""
    if not depth:
        return max(map(len, _root(node))) * CHARACTER * 1.1
    if node.parts:
        return max(len(short(node.name)), 5) * CHARACTER + 0.1
    return 0.12 + len(_leaf(node)) * CHARACTER


def _leaf(node: _Node) -> str:
    return short(node.name, most=LONGEST_LEAF) + (f"  {node.value:.3f}" if np.isfinite(node.value) else "")


@dataclass(frozen=True)
class _Pen:
    """Where a tree is drawn: its corner, where depths begin, and the rows of leaves that are still free."""

    x: float
    y: float
    steps: list[float]
    theme: Theme
    rows: Iterator[int]


def _draw(axes: Axes, node: _Node, pen: _Pen, depth: int) -> tuple[float, float]:
    """Draw a node with all that hangs on it; gives its left end and its height."""
    parts = [(_draw(axes, part, pen, depth + 1), part.excluded) for part in node.parts]
    x = pen.x + pen.steps[depth]
    heights = [y for (_, y), _ in parts] or [pen.y + (next(pen.rows) + 0.5) * ROW]
    y = (heights[0] + heights[-1]) / 2
    end = x + _width(node, depth)
    # Links of a depth turn at the same place, right before what they lead to.
    turn = pen.x + pen.steps[depth + 1] - 0.6 * LINK if parts else end
    if parts:
        axes.plot([end, turn], [y, y], linewidth=1.1, color=pen.theme.ink, zorder=1)
    for (start, height), excluded in parts:
        look: dict[str, Any] = {"color": EXCLUDED, "linestyle": (0, DASH)} if excluded else {"color": pen.theme.ink}
        axes.plot([turn, turn, start], [y, height, height], linewidth=1.1, zorder=1, **look)
    if not depth:
        axes.text(x, y, "\n".join(_root(node)), va="center", fontsize=TEXT_SIZE, fontweight="bold")
    elif parts:
        _draw_box(axes, node, (x, y, end - x), pen.theme)
    else:
        look = {"facecolors": "none"} if node.excluded else {"facecolors": COLOURS[0]}
        colour = EXCLUDED if node.excluded else COLOURS[0]
        axes.scatter([x + 0.045], [y], s=20, edgecolors=colour, linewidths=1.1, zorder=3, **look)
        axes.text(x + 0.12, y, _leaf(node), va="center_baseline", fontsize=TEXT_SIZE)
    return x, y


def _draw_box(axes: Axes, node: _Node, place: tuple[float, float, float], theme: Theme) -> None:
    """An inner node: its word, and below it its value, in a box that is clear inside."""
    from matplotlib.patches import FancyBboxPatch

    x, y, width = place
    valued = bool(np.isfinite(node.value))
    height = BOX_WITH_VALUE if valued else BOX
    shape = f"round,pad=0,rounding_size={BOX / 3}"
    axes.add_patch(
        FancyBboxPatch(
            (x, y - height / 2), width, height, boxstyle=shape, fill=False, edgecolor=theme.ink, linewidth=0.9
        )
    )
    look: dict[str, Any] = {"ha": "center", "va": "center_baseline"}
    axes.text(x + width / 2, y - (0.065 if valued else 0), short(node.name), fontsize=TEXT_SIZE, **look)
    if valued:
        axes.text(x + width / 2, y + 0.07, f"{node.value:.3f}", fontsize=VALUE_SIZE, **look)


def _key(network: Network, theme: Theme) -> list[Line2D]:
    """What numbers and dashes mean, as far as they occur."""
    from matplotlib.lines import Line2D

    key = []
    if any((links.weight < 0).any() for links in network.links):
        key.append(Line2D([], [], color=EXCLUDED, linestyle=(0, DASH), linewidth=1.1, label="excluded"))
    if any(column.values is not None and np.isfinite(column.values).any() for column in network.columns):
        key.append(
            Line2D([], [], linestyle="", marker="", color=theme.ink, label=clean(f"number: {network.value.caption}"))
        )
    return key
