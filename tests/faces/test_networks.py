"""Layered graphs as pictures: every node and link in its place, signs told apart in grey, edge sizes, files."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from neuronscope.errors import InputError
from neuronscope.faces.figures import chart_svg, describe, draw_network, save_figures
from neuronscope.faces.html import render_page
from neuronscope.views import Axis, Network, NetworkColumn, NetworkLinks, Page

NONE = NetworkLinks(np.empty(0, dtype=int), np.empty(0, dtype=int), np.empty(0))
EVIL = "<script>alert('$x$')</script>"


def network(*sizes: int, links: int = 30, seed: int = 0) -> Network:
    """A network with random links and values, some of them missing."""
    rng = np.random.default_rng(seed)
    columns = tuple(
        NetworkColumn(
            f"layer{i}.conv2",
            tuple(map(str, range(100, 100 + size))),
            np.where(np.arange(size) % 4 == 3, np.nan, rng.random(size)),
        )
        for i, size in enumerate(sizes)
    )
    between = tuple(
        NetworkLinks(rng.integers(0, left, links), rng.integers(0, right, links), rng.normal(size=links))
        for left, right in pairwise(sizes)
    )
    return Network("net", "Strongest links", columns, between, value=Axis("importance"), weight=Axis("weight"))


NETWORKS = {
    "one node": Network("net", "One", (NetworkColumn("fc", ("0",)),)),
    "no links": replace(network(3, 5), links=()),
    "empty links": replace(network(3, 5), links=(NONE,)),
    "an empty column": Network("net", "", (NetworkColumn("a", ("1",)), NetworkColumn("b", ())), (NONE,)),
    "labelled": network(40, 3, 12, 1),
    "crowded": network(*[60] * 10, links=400),
    "very crowded": network(1000, 10, links=50),
    "weights of zero": Network(
        "net",
        "Zero",
        network(2, 2).columns,
        (NetworkLinks(np.array([0]), np.array([1]), np.array([0.0])),),
    ),
    "long names": Network(
        "net",
        f"A title {EVIL} " * 4,
        tuple(NetworkColumn(f"features.{i}.denselayer24.{EVIL}", (EVIL, f"漢字\x00{i}")) for i in range(6)),
    ),
}


@pytest.fixture(params=NETWORKS)
def any_network(request) -> Network:
    """One network of each make."""
    return NETWORKS[request.param]


def strokes(figure) -> list:
    """The drawn paths of links."""
    from matplotlib.patches import PathPatch

    return [patch for patch in figure.axes[0].patches if isinstance(patch, PathPatch)]


def test_texts_lie_inside_and_apart(any_network):
    """Nothing is cut off, no label lies on another one, and drawing warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_network(any_network)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.draw_without_rendering()
        texts = [*figure.axes[0].texts, *figure.texts, *(text for key in figure.legends for text in key.get_texts())]
        boxes = np.array([text.get_window_extent().extents for text in texts if text.get_text()])
    width, height = figure.get_size_inches() * figure.dpi
    assert boxes[:, :2].min() >= -1
    assert boxes[:, 2].max() <= width + 1
    assert boxes[:, 3].max() <= height + 1
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    overlap = (high - low).min(axis=2)
    assert (overlap[~np.eye(len(boxes), dtype=bool)] <= 2).all()


def test_nodes_are_spread_evenly_and_labelled_where_there_is_room():
    """Columns span the same height with equal steps; up to 40 nodes are named, more are counted."""
    figure = draw_network(network(40, 41, 3))
    names = [text.get_text() for text in figure.axes[0].texts]
    assert names.count("layer1.conv2\n(41 nodes)") == 1
    assert len([name for name in names if name.isdigit()]) == 43
    for size in (40, 41, 3):
        single = draw_network(network(size))
        heights = np.sort(np.concatenate([drawn.get_offsets()[:, 1] for drawn in single.axes[0].collections]))
        assert len(heights) == size
        np.testing.assert_allclose(np.diff(heights), np.diff(heights)[0])


def test_values_are_areas_and_gaps_are_rings():
    """The area of a disc grows with its value by equal steps; a node without a value is not filled."""
    column = NetworkColumn("a", ("0", "1", "2", "3"), np.array([0.0, 0.5, 1.0, np.nan]))
    discs, rings = draw_network(Network("n", "N", (column,))).axes[0].collections
    small, middle, large = discs.get_sizes()
    assert 0 < small < middle < large
    assert middle - small == pytest.approx(large - middle)
    assert len(rings.get_facecolor()) == 0
    assert len(rings.get_offsets()) == 1


def test_links_join_their_nodes():
    """Each link starts at its node on the left and ends beside its node on the right, at their heights."""
    sizes = (4, 3)
    links = NetworkLinks(np.array([0, 3]), np.array([2, 1]), np.array([1.0, 1.0]))
    figure = draw_network(replace(network(*sizes), links=(links,)))
    [path] = strokes(figure)
    points = path.get_path().vertices.reshape(2, 2, 2)
    heights = [
        np.sort(np.unique(np.concatenate([
            one.get_offsets()[:, 1] for one in figure.axes[0].collections if len(one.get_offsets())
            and np.isclose(one.get_offsets()[0, 0], x)])))[::-1]
        for x in sorted({round(float(one.get_offsets()[0, 0]), 6) for one in figure.axes[0].collections})
    ]  # fmt: skip
    np.testing.assert_allclose(points[:, 0, 1], heights[0][[0, 3]])
    np.testing.assert_allclose(points[:, 1, 1], heights[1][[2, 1]])
    assert (points[:, 0, 0] < points[:, 1, 0]).all()


def test_weight_is_width_and_sign_is_dashes():
    """Heavier links are wider and stronger, negative ones dashed: both are seen without colour, and the key says so."""
    links = NetworkLinks(np.array([0, 0, 0, 0]), np.array([0, 1, 2, 2]), np.array([1.0, 0.1, -1.0, 0.0]))
    figure = draw_network(replace(network(2, 3), links=(links,)))
    light, heavy, negative = sorted(strokes(figure), key=lambda one: (one.get_linestyle() != "-", one.get_lw()))
    assert light.get_lw() < heavy.get_lw() == negative.get_lw()
    assert light.get_alpha() < heavy.get_alpha()
    assert heavy.get_linestyle() == "-" != negative.get_linestyle()
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["weight +1", "weight \u22121", "importance 1", "importance 0"]


def test_networks_can_be_drawn_on_one_scale():
    """With limits of the weight, the widest possible line stands for these, not for the largest weight there is."""
    links = NetworkLinks(np.array([0]), np.array([0]), np.array([0.5]))
    widths = [
        strokes(draw_network(replace(network(2, 3), links=(links,), weight=Axis("w", limits=limits))))[0].get_lw()
        for limits in (None, (-2.0, 1.0))
    ]
    assert widths[1] < widths[0]


def test_a_network_is_one_file_and_one_figure_of_a_report(any_network, tmp_path):
    """PNG and SVG of a sensible size, the same each time; in the report an SVG that a strict page can hold."""
    page = Page("t", "", (any_network,))
    written = save_figures(page, tmp_path)
    assert [path.name for path in written] == ["net.png", "net.svg"]
    with Image.open(written[0]) as image:
        assert image.width > 500
        assert image.height > 300
    assert [path.read_bytes() for path in save_figures(page, tmp_path / "2")] == [path.read_bytes() for path in written]
    svg = chart_svg(any_network, prefix="c0")
    root = ET.fromstring(svg)  # noqa: S314 our own output
    assert root.get("role") == "img"
    assert root.find("desc").text == describe(any_network)
    assert not {element.tag for element in root.iter()} & {"style", "script", "metadata", "a", "image"}
    assert len(svg) < 600_000
    assert render_page(page).count(svg) == 1


def test_readers_who_cannot_see_are_told_columns_and_links():
    """The description counts nodes and links; a report carries the links of a small network as a table."""
    links = NetworkLinks(np.array([0, 1]), np.array([2, 0]), np.array([0.25, -1.5]))
    small = replace(network(2, 3), links=(links,))
    words = describe(small)
    assert words == (
        "Layered graph of layer0.conv2 (2 nodes), layer1.conv2 (3 nodes); 1 links with a positive and 1 with a "
        "negative weight, from -1.5 to 0.25."
    )
    cells = re.findall(r"<td>(.*?)</td>", render_page(Page("t", "", (small,))))
    assert cells[:5] == ["layer0.conv2", "100", "layer1.conv2", "102", "0.25"]
    assert cells[5:] == ["layer0.conv2", "101", "layer1.conv2", "100", "\u22121.5"]
    assert "<td>" not in render_page(Page("t", "", (NETWORKS["crowded"],)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network("n", "N", ()), "at least one column expected, got none"),
        (lambda: replace(network(2, 3), links=(NONE, NONE)), "1, one for each pair of neighbours, or none expected"),
        (lambda: NetworkColumn("a", ("1", "2"), np.zeros(3)), "2 nodes expected, got shape"),
        (lambda: NetworkColumn("a", ("1",), np.array([1.5])), "0 to 1, or nan expected, got 1.5"),
        (lambda: NetworkColumn("a", ("1",), np.array([-np.inf])), "got -inf"),
        (lambda: NetworkLinks(np.array([0]), np.array([0, 1]), np.array([1.0])), "links are incomplete"),
        (lambda: NetworkLinks(np.array([0]), np.array([0]), np.array([np.nan])), "finite weights expected, got nan"),
        (
            lambda: replace(network(2, 3), links=(NetworkLinks(np.array([2]), np.array([0]), np.array([1.0])),)),
            "leads out of column 'layer0.conv2': a position among its 2 nodes, from 0 expected, got 2",
        ),
        (
            lambda: replace(network(2, 3), links=(NetworkLinks(np.array([0]), np.array([-1]), np.array([1.0])),)),
            "leads out of column 'layer1.conv2'",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, message):
    """Positions out of range, unequal lengths, values without a size: an error that says what to do."""
    with pytest.raises(InputError, match=message):
        make()
