"""Trees as figures: every part is drawn, nothing overlaps, and branches that exclude differ without colour."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronscope import InputError, Network, NetworkColumn, NetworkLinks, Page
from neuronscope.faces.figures.drawing import ChartDrawing, describe
from neuronscope.faces.figures.trees import draw_trees
from neuronscope.faces.html import render_page

Tree = str | tuple[str, list]
"""A leaf, or a word and what hangs on it; a word with NOT excludes the last part."""

LONG = "a concept with a rather long name, such as sets of labels have"
DEEP: Tree = "label 0"
for _number in range(1, 10):
    DEEP = ("AND NOT" if _number % 3 else "CLOSE TO", [DEEP, f"label {_number}"])
BALANCED: Tree = ("OR", [("AND", ["sky", "sea"]), ("AND NOT", [LONG, ("WITH", ["dog", "tail-X"])])])
WIDE: Tree = ("CLOSE TO", [f"part {_number}" for _number in range(9)])
TREES: dict[str, list[Tree]] = {
    "one leaf": ["sky"],
    "ten labels, one after another": [DEEP],
    "both sides": [BALANCED],
    "many parts": [WIDE],
    "many trees": [DEEP, *[BALANCED, "sky", ("OR", ["a", "b"])] * 8, WIDE],
    "other scripts": [("AND", ["空", "<b>&\x00"])],
}


def network(trees: list[Tree], *, values: bool = True, names: str = "unit {}") -> Network:
    """Trees as columns and links."""
    columns: list[list[str]] = [[names.format(number) for number in range(len(trees))]]
    links: list[list[tuple[int, int]]] = []

    def add(tree: Tree, depth: int, owner: int, sign: int) -> None:
        word, parts = tree if isinstance(tree, tuple) else (tree, [])
        while len(columns) <= depth:
            columns.append([])
            links.append([])
        columns[depth].append(word)
        links[depth - 1].append((owner, sign))
        place = len(columns[depth]) - 1
        for number, part in enumerate(parts):
            add(part, depth + 1, place, -1 if "NOT" in word and number == len(parts) - 1 else 1)

    for number, tree in enumerate(trees):
        add(tree, 1, number, 1)
    made = [
        NetworkColumn(str(i), tuple(nodes), np.full(len(nodes), 0.123 if values and i else np.nan))
        for i, nodes in enumerate(columns)
    ]
    between = [
        NetworkLinks(
            np.array([owner for owner, _ in one]), np.arange(len(one)), np.array([float(sign) for _, sign in one])
        )
        for one in links
    ]
    return Network("trees", "Formulas", tuple(made), tuple(between), form="tree")


def boxes(figure) -> np.ndarray:
    """Where all texts and boxes of nodes are, in pixels: left, bottom, right, top."""
    figure.draw_without_rendering()
    texts = [*figure.axes[0].texts, *figure.texts, *(text for key in figure.legends for text in key.get_texts())]
    return np.array([text.get_window_extent().extents for text in texts if text.get_text()])


def overlapping(places: np.ndarray) -> np.ndarray:
    """Pairs of rectangles that share more than a hair's breadth."""
    low = np.maximum(places[:, None, :2], places[None, :, :2])
    high = np.minimum(places[:, None, 2:], places[None, :, 2:])
    return np.argwhere(((high - low).min(axis=2) > 2) & ~np.eye(len(places), dtype=bool))


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("make", TREES)
@pytest.mark.parametrize("values", [True, False])
def test_texts_lie_inside_and_apart(make, values):
    """Nothing is cut off, and no text lies on another one, up to ten labels and for any shape."""
    figure = draw_trees(network(TREES[make], values=values))
    places = boxes(figure)
    width, height = figure.get_size_inches() * figure.dpi
    assert places[:, :2].min() >= -1
    assert places[:, 2].max() <= width + 1
    assert places[:, 3].max() <= height + 1
    assert not len(overlapping(places))


_names = st.text(st.characters(categories=["L", "Nd", "Zs"], max_codepoint=0x17F), min_size=1, max_size=30)
_trees = st.recursive(
    _names,
    lambda part: st.tuples(st.sampled_from(["OR", "AND NOT", "CLOSE TO"]), st.lists(part, min_size=2, max_size=3)),
    max_leaves=10,
)


@settings(max_examples=15, deadline=None)
@given(st.lists(_trees, min_size=1, max_size=5), st.booleans())
def test_any_trees_are_drawn_without_overlap(trees, values):
    """Whatever the shape: texts lie apart, and each leaf has a row of its own."""
    figure = draw_trees(network(trees, values=values))
    assert not len(overlapping(boxes(figure)))


def test_boxes_of_nodes_do_not_meet():
    """Boxes are kept apart from each other and from the texts of others."""
    from matplotlib.patches import FancyBboxPatch

    figure = draw_trees(network(TREES["many trees"]))
    figure.draw_without_rendering()
    drawn = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    assert len(drawn) == 9 + 8 * (4 + 1) + 1
    places = np.array([patch.get_window_extent().extents for patch in drawn])
    assert not len(overlapping(places))
    texts = boxes(figure)
    inside = (texts[:, None, :2] >= places[:, :2] - 2).all(axis=2) & (texts[:, None, 2:] <= places[:, 2:] + 2).all(
        axis=2
    )
    low, high = np.maximum(texts[:, None, :2], places[:, :2]), np.minimum(texts[:, None, 2:], places[:, 2:])
    assert (inside | ((high - low).min(axis=2) <= 2)).all()


def test_what_is_excluded_differs_without_colour():
    """Its branch is dashed and its leaf hollow; the key says so, and what numbers are."""
    figure = draw_trees(network([("AND NOT", ["sky", "sea"])]))
    dashed = [line for line in figure.axes[0].lines if line.get_linestyle() != "-"]
    assert len(dashed) == 1
    hollow = [points for points in figure.axes[0].collections if not len(points.get_facecolor())]
    assert len(hollow) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["excluded", "number: value"]


def test_a_tree_is_told_in_words():
    """Readers who cannot see it get the same nested words, in the page too."""
    trees = network([("AND NOT", ["sky", "sea"])])
    assert describe(trees) == "1 tree: unit 0 (AND NOT 0.123 (sky 0.123, without sea 0.123))."
    html = render_page(Page("Trees", "", (trees,)))
    assert "without sea" in html
    assert "currentColor" in ChartDrawing(trees).inline(prefix="t")


def test_the_same_trees_give_the_same_file(tmp_path):
    """Bytes of all formats are equal from one run to the next."""
    trees = network(TREES["both sides"])
    for kind in ("svg", "png"):
        first, second = (ChartDrawing(trees).save(tmp_path / f"{i}.{kind}", kind=kind) for i in range(2))
        assert first.read_bytes() == second.read_bytes()


def test_nodes_that_hang_on_none_or_several_are_refused():
    """A tree has one way to each node."""
    columns = (NetworkColumn("0", ("a", "b")), NetworkColumn("1", ("c", "d")))
    for start, end in (([0], [0]), ([0, 1, 1], [0, 0, 1])):
        links = NetworkLinks(np.array(start), np.array(end), np.ones(len(start)))
        with pytest.raises(InputError, match="does not hang on one other"):
            Network("trees", "", columns, (links,), form="tree")
        Network("layers", "", columns, (links,))
