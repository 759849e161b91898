"""Panels: several charts in one figure, comparable, with nothing cut off and nothing on top of anything else."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from neuronscope.errors import InputError
from neuronscope.faces.figures import chart_svg, describe, draw_panel, save_figures
from neuronscope.faces.html import render_page
from neuronscope.views import Axis, Chart, Page, Panel, Series

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def lines(title: str = "Dropping units", *, count: int = 2) -> Chart:
    """Accuracy as units are dropped, one series for each way to choose them."""
    x = np.arange(0.0, 60.0, 5.0)
    series = tuple(Series(f"rule {i}", 1 - x / (60 + 20 * i), x=x) for i in range(count))
    return Chart("lines", title, "line", series, Axis("units dropped"), Axis("accuracy", "fraction"))


def bars() -> Chart:
    """One bar for each class."""
    return Chart("bars", "Units", "bar", (Series("", np.arange(10.0)),), Axis("class", ticks=CLASSES), Axis("units"))


def difference(title: str = "keep 0", *, most: int = 99, seed: int = 0) -> Chart:
    """Differences of two confusion matrices."""
    cells = np.random.default_rng(seed).integers(-most, most, (10, 10)).astype(float)
    classes = tuple("0123456789")
    return Chart(
        "d", title, "heatmap", (Series("", cells),), Axis("predicted", ticks=classes), Axis("true", ticks=classes),
        value=Axis("difference", "images"), annotate=True, diverging=True,
    )  # fmt: skip


PANELS = {
    "one": Panel("one", "One chart", (lines(),), columns=3),
    "mixed": Panel("mixed", "Four kinds", (lines(), difference(), bars(), bars()), columns=2),
    "shared": Panel(
        "shared",
        "Ten classes",
        tuple(difference(f"keep {i}", most=10 + i, seed=i) for i in range(10)),
        columns=3,
        scale="shared",
    ),
    "twelve": Panel("twelve", "Twelve layers", tuple(lines(f"layer {i}", count=3) for i in range(12)), columns=4),
    "untitled": Panel("untitled", "", (replace(bars(), title=""), difference("")), columns=1, scale="shared"),
}


@pytest.fixture(params=PANELS)
def panel(request) -> Panel:
    """One panel of each make."""
    return PANELS[request.param]


def boxes(figure) -> list:
    """Where the texts of a figure are that are seen."""
    figure.draw_without_rendering()
    texts = [*figure.texts, *(text for part in (figure, *figure.subfigs) for key in part.legends
                              for text in key.get_texts())]  # fmt: skip
    for axes in figure.axes:
        texts += [*axes.texts, axes._left_title]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            # matplotlib keeps ticks outside the axes too, without drawing them.
            texts += [axis.label, *(tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high)]
            texts += [tick.label2 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [text.get_window_extent() for text in texts if text.get_text().strip() and text.get_visible()]


def axes_of(figure, panel: Panel) -> list:
    """The axes of the charts, in order; what is left are colour bars."""
    captions = {(chart.x.caption, chart.y.caption) for chart in panel.charts}
    return [axes for axes in figure.axes if (axes.get_xlabel(), axes.get_ylabel()) in captions]


def test_every_chart_keeps_its_title_and_axes(panel):
    """Each chart stands in the panel in its order, with captions, and the panel's title above them."""
    figure = draw_panel(panel)
    axes = axes_of(figure, panel)
    assert [one.get_title(loc="left") for one in axes] == [chart.title for chart in panel.charts]
    assert [text.get_text() for text in figure.texts] == ([panel.title] if panel.title else [])


def test_nothing_is_cut_off_and_no_texts_overlap(panel):
    """All text lies inside the figure, and no two texts share a pixel but for a hair."""
    figure = draw_panel(panel)
    found = boxes(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for box in found:
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1
    upright = [box for box in found if box.height < 40]
    for i, box in enumerate(upright):
        for other in upright[i + 1 :]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            up = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert min(across, up) <= 2, (box, other)


def test_axes_stand_in_line():
    """Axes in a column begin at the same place, those in a row end at the same heights."""
    panel = PANELS["mixed"]
    figure = draw_panel(panel)
    first, second, third, fourth = (one.get_window_extent() for one in axes_of(figure, panel))
    for left, below in ((first, third), (second, fourth)):
        assert left.x0 == pytest.approx(below.x0, abs=0.5)
    for left, right in ((first, second), (third, fourth)):
        assert (left.y0, left.y1) == pytest.approx((right.y0, right.y1), abs=0.5)


def test_a_shared_scale_is_that_of_all_maps():
    """Equal numbers have equal colours in all maps, and one bar says which; otherwise each map has its own."""
    panel = PANELS["shared"]
    figure = draw_panel(panel)
    limits = {axes.images[0].get_clim() for axes in axes_of(figure, panel)}
    largest = max(np.abs(chart.series[0].y).max() for chart in panel.charts)
    assert limits == {(-largest, largest)}
    assert len(figure.axes) == 11
    own = draw_panel(replace(panel, scale="own"))
    assert len({axes.images[0].get_clim() for axes in axes_of(own, panel)}) > 5
    assert len(own.axes) == 20


def test_numbers_fit_their_cells_at_one_size():
    """Every number of every map is of the same size, large enough to be read, and inside its cell."""
    panel = PANELS["shared"]
    figure = draw_panel(panel)
    axes = axes_of(figure, panel)
    sizes = {text.get_fontsize() for one in axes for text in one.texts}
    assert len(sizes) == 1
    assert min(sizes) >= 6.5
    assert all(len(one.texts) == 100 for one in axes)
    figure.draw_without_rendering()
    for one in axes:
        cell = one.get_window_extent().width / 10
        assert all(text.get_window_extent().width < cell for text in one.texts)


def test_figures_grow_with_their_charts():
    """No chart of a panel is smaller because there are more of them."""
    sizes = []
    for count in (2, 4, 12):
        chosen = PANELS["twelve"].charts[:count]
        panel = Panel("p", "P", chosen, columns=2)
        figure = draw_panel(panel)
        sizes.append(min(axes.get_window_extent().width for axes in axes_of(figure, panel)))
        assert figure.get_figheight() > 2 * count / 2
    assert all(after == pytest.approx(before, rel=0.02) for before, after in pairwise(sizes))


def test_one_legend_serves_charts_with_the_same_series():
    """Twelve charts of the same three rules have one legend; charts that differ keep their own."""
    figure = draw_panel(PANELS["twelve"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["rule 0", "rule 1", "rule 2"]
    assert not any(cell.legends for cell in figure.subfigs)
    mixed = draw_panel(Panel("m", "M", (lines(count=2), lines(count=3)), columns=2))
    assert [len(cell.legends) for cell in mixed.subfigs] == [1, 1]
    assert not mixed.legends


def test_a_panel_is_one_file_and_one_figure_of_a_report(panel, tmp_path):
    """`NAME.png` and `NAME.svg`; in the report one drawing under the panel's title, with the numbers of each chart."""
    page = Page("t", "", (panel,))
    written = save_figures(page, tmp_path)
    assert [path.name for path in written] == [f"{panel.name}.png", f"{panel.name}.svg"]
    with Image.open(written[0]) as image:
        assert image.width > 700
        assert image.height > 450
    assert [path.read_bytes() for path in save_figures(page, tmp_path / "again")] == [
        path.read_bytes() for path in written
    ]
    html = render_page(page)
    assert html.count('role="img"') == 1
    assert html.count('<details class="numbers">') == 1
    assert html.count("<thead>") == len(panel.charts)


def test_readers_who_cannot_see_are_told_each_chart():
    """The description names every chart and its range; inside a page the charts keep their titles, not the panel."""
    panel = PANELS["mixed"]
    words = describe(panel)
    assert words.startswith("4 charts. Dropping units: Line chart of accuracy [fraction] against units dropped;")
    assert "keep 0: Heat map of difference [images] against true and predicted" in words
    svg = chart_svg(panel, prefix="c")
    assert words in svg
    assert ">Dropping units<" in svg
    assert svg.count(">Four kinds<") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"charts": ()}, "empty: at least one chart expected"),
        ({"columns": 0}, "1 or more charts in a row expected, got 0"),
        ({"charts": (difference(), replace(difference("b"), diverging=False))}, "cannot share a colour scale"),
        ({"charts": (difference(), replace(difference("b"), value=Axis("z")))}, "got diverging z in 'b'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, message):
    """No charts, no columns, or one scale for two quantities: an error that says what to do."""
    with pytest.raises(InputError, match=message):
        replace(PANELS["shared"], **change)
