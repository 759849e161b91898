"""Charts and galleries as pictures: captions, legibility in grey, gaps for missing values, files, inline SVG."""

from __future__ import annotations

import csv
import re
import warnings
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from neuronscope.errors import StorageError
from neuronscope.faces.figures import chart_svg, describe, draw_chart, draw_gallery, save_figures
from neuronscope.faces.tables import write_tables
from neuronscope.views import Axis, Chart, Gallery, Page, Picture, Series, Strip, Table, Text

DIGITS = tuple("0123456789")
EVIL = '<script>alert("$x$")</script>'


def rising(n: int = 10) -> np.ndarray:
    """Numbers 0 to 1 with a gap, as studies give for dead units."""
    values = np.linspace(0.0, 1.0, n)
    values[n // 2] = np.nan
    return values


def two(**options) -> tuple[Series, Series]:
    """Two series with an interval on the first."""
    y = rising()
    return Series("kept", y, low=y - 0.1, high=y + 0.2, **options), Series("dropped", 1 - y, **options)


CHARTS = {
    "line": Chart("line", "Loss", "line", two(), Axis("epoch"), Axis("loss", "nats")),
    "bar": Chart("bar", "Accuracy", "bar", two(), Axis("class", ticks=DIGITS), Axis("accuracy", "fraction")),
    "scatter": Chart(
        "scatter", "Units", "scatter", two(x=np.geomspace(1, 1000, 10)), Axis("norm", log=True), Axis("AUROC")
    ),
    "histogram": Chart(
        "histogram",
        "Activations",
        "histogram",
        (Series("class 3", np.arange(9), x=np.arange(10.0)),),
        Axis("activation", "a.u."),
        Axis("images", "count"),
    ),
    "heatmap": Chart(
        "heatmap",
        "Preference",
        "heatmap",
        (Series("", np.outer(rising(4) - 0.5, np.arange(10.0))),),
        Axis("class", ticks=DIGITS),
        Axis("unit", ticks=("conv1:0", "conv1:1", EVIL, "conv1:3")),
        value=Axis("d'", "standard deviations"),
        diverging=True,
    ),
    "box": Chart(
        "box",
        "Selectivity",
        "box",
        (Series("trained", np.sort(np.outer(rising(3), np.arange(5.0)))), Series("random", np.zeros((3, 5)))),
        Axis("layer", ticks=("conv1", "conv2", "fc")),
        Axis("selectivity index"),
    ),
}


@pytest.fixture(params=CHARTS)
def chart(request) -> Chart:
    """One chart of each kind."""
    return CHARTS[request.param]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_figure_names_its_axes_with_units(chart, theme):
    """Axis labels are the captions: label and unit in brackets; the title is the chart's."""
    axes = draw_chart(chart, theme=theme).axes[0]
    assert axes.get_xlabel() == chart.x.caption
    assert axes.get_ylabel() == chart.y.caption
    assert axes.get_title(loc="left") == chart.title


def test_a_heat_map_names_what_its_colours_mean():
    """The colour bar carries the caption of the value, a diverging scale is symmetric about 0 and shows signs."""
    figure = draw_chart(CHARTS["heatmap"])
    bar = figure.axes[1]
    assert bar.get_ylabel() == "d' [standard deviations]"
    low, high = figure.axes[0].images[0].get_clim()
    assert low == -high
    figure.draw_without_rendering()
    texts = {label.get_text()[:1] for label in bar.get_yticklabels()}
    assert {"+", "\u2212"} <= texts


def test_cells_without_a_value_are_hatched_and_explained():
    """A gap in a heat map is masked and named in a legend; a full map has no such note."""
    figure = draw_chart(CHARTS["heatmap"])
    assert np.ma.getmaskarray(figure.axes[0].images[0].get_array()).any(axis=1).tolist() == [False, False, True, False]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["hatched: no value"]
    full = Chart("m", "m", "heatmap", (Series("", np.eye(3)),), Axis("x"), Axis("y"), annotate=True)
    assert draw_chart(full).legends == []


def test_annotated_cells_show_their_numbers():
    """Whole numbers are printed whole, on every cell with a value."""
    cells = np.array([[12.0, 0.0], [np.nan, 7.0]])
    chart = Chart("m", "m", "heatmap", (Series("", cells),), Axis("x"), Axis("y"), annotate=True)
    assert sorted(text.get_text() for text in draw_chart(chart).axes[0].texts) == ["0", "12", "7"]


def test_series_differ_without_colour():
    """Lines by dash and marker, bars by hatch: a legend outside the data tells them apart in grey."""
    axes = draw_chart(CHARTS["line"]).axes[0]
    first, second = axes.lines
    assert first.get_linestyle() != second.get_linestyle()
    assert first.get_marker() != second.get_marker()
    figure = draw_chart(CHARTS["bar"])
    assert len({container[0].get_hatch() for container in figure.axes[0].containers}) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["kept", "dropped"]


def test_nothing_is_drawn_over_the_edge(chart):
    """After layout all text lies inside the picture, with long and strange tick names too."""
    figure = draw_chart(chart)
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 >= -0.02
    assert box.y0 >= -0.02
    assert box.x1 <= width + 0.02
    assert box.y1 <= height + 0.02


@pytest.mark.parametrize(("rows", "columns"), [(700, 10), (10, 1000), (1, 1)])
def test_large_maps_stay_readable(rows, columns):
    """Size is bounded and tick names are thinned: none lies closer to the next than a line of text."""
    names = [tuple(f"layer4.1.conv2:{i}" for i in range(n)) for n in (columns, rows)]
    x, y = (Axis("class", ticks=names[0]), Axis("unit", ticks=names[1]))
    chart = Chart("m", "m", "heatmap", (Series("", np.ones((rows, columns))),), x, y)
    figure = draw_chart(chart)
    figure.draw_without_rendering()
    assert max(figure.get_size_inches()) <= 13.5
    axes = figure.axes[0]
    assert len(axes.get_xticks()) <= 40
    assert len(axes.get_yticks()) <= 61
    room = axes.get_window_extent().height / figure.dpi / max(len(axes.get_yticks()), 1)
    assert room >= 0.12


@pytest.mark.parametrize("kind", ["line", "bar", "scatter", "histogram", "box", "heatmap"])
def test_nothing_finite_is_said_not_raised(kind):
    """A study of dead units has charts without a single value: they are empty pictures, without a warning."""
    y = np.full((2, 5), np.nan) if kind in ("box", "heatmap") else np.full(5, np.inf)
    series = Series("dead", y, x=np.arange(6.0) if kind == "histogram" else None)
    figure = draw_chart(Chart("dead", "Dead", kind, (series,), Axis("x", log=kind == "scatter"), Axis("y", log=True)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()


def test_logarithmic_ticks_are_plain_text():
    """Powers of ten are written with superscript digits, never as markup."""
    wide = Chart("w", "w", "line", (Series("", np.geomspace(1e-8, 1e8, 20)),), Axis("rank"), Axis("value", log=True))
    svg = chart_svg(wide, prefix="c")
    assert re.search(">10[⁰¹²³⁴⁵⁶⁷⁸⁹]+<", svg)
    assert re.search(">10⁻[⁰¹²³⁴⁵⁶⁷⁸⁹]+<", svg)
    assert "mathdefault" not in svg


def test_drawing_leaves_matplotlib_as_it_was(chart):
    """Settings are put back, and pyplot holds no figure."""
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    draw_chart(chart)
    chart_svg(chart, prefix="c")
    assert dict(mpl.rcParams) == before


def test_svg_is_fit_for_a_strict_page(chart):
    """Inline SVG: a named picture with a view box, no styles, scripts, links or fixed size, and data as text."""
    svg = chart_svg(chart, prefix="c7")
    root = ET.fromstring(svg)  # noqa: S314 our own output
    assert root.get("role") == "img"
    assert root.get("viewBox")
    assert root.get("width") is None
    assert root.find("title").text == chart.title
    assert root.find("desc").text == describe(chart)
    tags = {element.tag for element in root.iter()}
    assert not tags & {"style", "script", "metadata", "a"}
    for element in root.iter():
        assert "style" not in element.attrib
        assert not any(key.startswith("on") for key in element.attrib)
        assert element.get("href", "#").startswith(("#", "data:image/png"))
    assert "http" not in svg
    assert "currentColor" in svg
    assert chart.x.caption in {element.text for element in root.iter("text")}


def test_svg_ids_are_unique_to_their_chart(chart):
    """Two charts on a page share no id, and every reference finds its target."""
    one, other = chart_svg(chart, prefix="c1"), chart_svg(chart, prefix="c2")
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, other)]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', one)) <= ids[0]


def test_the_same_chart_gives_the_same_bytes(chart):
    """No dates, no random ids."""
    assert chart_svg(chart, prefix="c") == chart_svg(chart, prefix="c")


def test_class_names_are_text_not_formulas_nor_markup():
    """Dollar signs, markup, control characters and other scripts in names are shown, without a warning."""
    names = (EVIL, "a $\\frac{$ b", "bad\x00byte\udcff", "漢字")
    chart = Chart(
        "n", EVIL, "bar", (Series(EVIL, np.arange(4)), Series("$", np.ones(4))), Axis(EVIL, ticks=names), Axis("y")
    )
    svg = chart_svg(chart, prefix="c")
    assert "<script" not in svg
    root = ET.fromstring(svg)  # noqa: S314 our own output
    texts = {element.text for element in root.iter("text")}
    assert {"a $\\frac{$ b", "bad\ufffdbyte\ufffd", "漢字"} <= texts


def gallery(strips: int = 3, pictures: int = 4) -> Gallery:
    """Grey and colour pictures with boxes, tones and captions."""
    grey = Picture(np.full((8, 8), 200, dtype=np.uint8), "3 · 9.1", box=(1, 5, 2, 6), tone="good")
    colour = Picture(np.zeros((8, 8, 3), dtype=np.uint8), "tabby cat", tone="bad")
    return Gallery(
        "top",
        "Top inputs",
        [Strip(f"conv1:{i}", [grey, colour] * (pictures // 2), "note") for i in range(strips)],
        key="k",
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_gallery_shows_every_picture_magnified(theme):
    """One image per picture, `scale` screen pixels per pixel, no smoothing; grey keeps its full range."""
    axes = draw_gallery(gallery(), theme=theme).axes[0]
    assert len(axes.images) == 12
    left, right, bottom, top = axes.images[0].get_extent()
    assert (right - left, bottom - top) == (16, 16)
    assert axes.images[0].get_interpolation() == "nearest"
    assert np.unique(axes.images[0].get_array()).tolist() == [200]
    texts = [text.get_text() for text in axes.texts]
    assert "conv1:2" in texts
    assert any(text.startswith("✓") for text in texts)


def test_a_long_gallery_says_what_it_leaves_out():
    """Picture files stay small enough to open; what is missing is counted."""
    figure = draw_gallery(gallery(strips=150), most_rows=20)
    assert len(figure.axes[0].images) == 80
    assert "the first 20 of 150 rows" in figure.axes[0].texts[1].get_text()


def test_an_empty_gallery_is_a_title():
    """No strips, or strips without pictures, are drawn as such."""
    assert len(draw_gallery(Gallery("g", "None", [])).axes[0].images) == 0
    assert len(draw_gallery(Gallery("g", "None", [Strip("a", [])])).axes) == 1


def test_files_are_written_under_their_names(tmp_path):
    """PNG and SVG for charts, PNG for galleries; the same page gives the same files."""
    page = Page("t", "", (Text("x"), CHARTS["line"], gallery(), CHARTS["heatmap"]))
    written = save_figures(page, tmp_path / "figures")
    assert [path.name for path in written] == ["line.png", "line.svg", "top.png", "heatmap.png", "heatmap.svg"]
    with Image.open(written[0]) as image:
        assert image.size[0] > 800
    again = save_figures(page, tmp_path / "again")
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    """A file in the place of the folder: the message names it and says what to do."""
    (tmp_path / "taken").write_text("")
    page = Page("t", "", (CHARTS["line"], Table("t", "t", pd.DataFrame({"a": [1]}))))
    with pytest.raises(StorageError, match="taken"):
        save_figures(page, tmp_path / "taken")
    with pytest.raises(StorageError, match="taken"):
        write_tables(page, tmp_path / "taken")


def test_tables_keep_every_bit(tmp_path):
    """Floats, missing values, commas, quotes, line breaks and names survive writing and reading."""
    values = np.random.default_rng(0).normal(size=50) * 10.0 ** np.arange(-25, 25)
    frame = pd.DataFrame(
        {"unit": [f'a,"{i}"\n' for i in range(50)], "value": values}, index=pd.Index(range(7, 57), name="id")
    )
    frame.loc[9, "value"] = np.nan
    [path] = write_tables(Page("t", "", (Table("units", "Units", frame),)), tmp_path / "tables")
    assert path.name == "units.csv"
    assert b"\r" not in path.read_bytes()
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "unit", "value"]
    assert [(int(row[0]), row[1]) for row in rows] == list(frame["unit"].items())
    assert [float(row[2] or "nan").hex() for row in rows] == [value.hex() for value in frame["value"]]
