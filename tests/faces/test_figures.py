"""Charts and galleries as pictures: captions, legibility in grey, gaps for missing values, files, inline SVG."""

from __future__ import annotations

import csv
import re
import warnings
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from neuronscope.errors import StorageError
from neuronscope.faces.figures import (
    ChartDrawing,
    chart_svg,
    describe,
    draw_chart,
    draw_charts,
    draw_gallery,
    save_figures,
)
from neuronscope.faces.figures.png import write_png
from neuronscope.faces.html import render_page
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
    "dendrogram": Chart(
        "dendrogram",
        "Responses",
        "dendrogram",
        (
            Series("near", np.array([[0.0, 0.0, 1.0, 0.0]]), np.array([0.1])),
            Series("far", np.array([[0.5, 0.1, 2.0, 0.0]]), np.array([0.8])),
        ),
        Axis("distance", "nats"),
        Axis("response", ticks=("first", EVIL, "third")),
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


@pytest.mark.parametrize("kind", ["line", "bar", "scatter", "histogram", "box", "heatmap", "dendrogram"])
def test_nothing_finite_is_said_not_raised(kind):
    """A study of dead units has charts without a single value: they are empty pictures, without a warning."""
    y = np.full((2, 5), np.nan) if kind in ("box", "heatmap") else np.full(5, np.inf)
    y = np.zeros((0, 4)) if kind == "dendrogram" else y
    x = {"histogram": np.arange(6.0), "dendrogram": np.zeros(0)}.get(kind)
    series = Series("dead", y, x=x)
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


def find(image: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    """Which pixels have exactly this colour."""
    return (np.asarray(image) == np.array(colour)).all(axis=2)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_gallery_shows_every_picture_magnified(theme):
    """Each pixel becomes a square of `2 * scale` pixels of its own value, without smoothing; grey keeps its range."""
    pixels = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
    strips = [Strip(f"conv1:{i}", [Picture(pixels, "a"), Picture(pixels, "b")]) for i in range(3)]
    image = np.asarray(draw_gallery(Gallery("top", "Top", strips, scale=2), theme=theme))
    wanted = np.repeat(np.kron(pixels, np.ones((4, 4), dtype=np.uint8))[..., None], 3, axis=2)
    windows = np.lib.stride_tricks.sliding_window_view(image[::2, ::2], (16, 16, 3))[:, :, 0]
    # A quarter of the windows of the thinned image is enough: pictures begin at whole layout pixels.
    assert (windows == wanted[::2, ::2]).all(axis=(2, 3, 4)).sum() == 6


def test_tones_and_boxes_are_frames_around_pictures():
    """A picture in a good tone has a green frame, in a bad one an orange frame; a box is light between dark lines."""
    plain = Picture(np.full((8, 8), 200, dtype=np.uint8))
    sheets = {
        tone: draw_gallery(Gallery("g", "g", [Strip("s", [replace(plain, tone=tone)])])) for tone in ("good", "bad")
    }
    green, orange = (0, 158, 115), (213, 94, 0)
    assert find(sheets["good"], green).sum() == find(sheets["bad"], orange).sum() > 100
    assert not find(sheets["good"], orange).any()
    boxed = draw_gallery(Gallery("g", "g", [Strip("s", [replace(plain, box=(2, 6, 1, 7))])]))
    rows, columns = np.nonzero(find(boxed, (255, 210, 63)))
    # 4 by 6 pixels of 4 file pixels each, and a line that reaches one pixel beyond them.
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (4 * 4 + 2, 6 * 4 + 2)
    assert not find(draw_gallery(Gallery("g", "g", [Strip("s", [plain])])), (255, 210, 63)).any()


def test_tones_are_signs_too():
    """A caption begins with a tick or a cross, readable without colour: it is longer than the caption alone."""
    plain = Picture(np.zeros((8, 8), dtype=np.uint8), "a")
    inked = [
        (np.asarray(draw_gallery(Gallery("g", "g", [Strip("", [replace(plain, tone=tone)])])))[130:] < 100).sum()
        for tone in ("plain", "good", "bad")
    ]
    assert inked[0] < min(inked[1:])


def test_a_long_gallery_says_what_it_leaves_out():
    """Picture files stay small enough to open; what is missing is counted in a note."""
    cut = draw_gallery(gallery(strips=150), most_rows=20)
    assert cut.height < draw_gallery(gallery(strips=30)).height
    whole = draw_gallery(gallery(strips=20), most_rows=20)
    assert cut.size == whole.size
    assert cut.tobytes() != whole.tobytes()


def test_an_empty_gallery_is_a_title():
    """No strips, or strips without pictures, are drawn as such."""
    for strips in ([], [Strip("a", [])]):
        image = draw_gallery(Gallery("g", "None", strips))
        assert find(image, (29, 36, 48)).any()


def test_class_names_of_any_script_fit_a_gallery():
    """Glyphs that the font lacks are boxes, control characters are replaced: no warning, no failure."""
    picture = Picture(np.zeros((8, 8), dtype=np.uint8), "漢字 \x00 \udcff $x$")
    assert draw_gallery(Gallery("g", "漢字\x00", [Strip("\udcff", [picture], note="\x00")])).height > 100


def test_gallery_files_keep_every_pixel(tmp_path):
    """What is read back from the file is what was drawn, whatever the pixels and the size, at 200 dots per inch."""
    noise = np.random.default_rng(0).integers(0, 256, (137, 33, 3), dtype=np.uint8)
    for image in (Image.fromarray(noise), draw_gallery(gallery())):
        with Image.open(write_png(image, tmp_path / "a.png", dpi=200)) as again:
            assert again.mode == "RGB"
            assert round(again.info["dpi"][0]) == 200
            assert np.asarray(again).tolist() == np.asarray(image).tolist()


def test_a_drawing_is_shared_by_files_and_report(tmp_path):
    """Charts drawn for a page give the same files and the same report as charts drawn each time."""
    page = Page("t", "", (*CHARTS.values(), gallery()))
    drawings = draw_charts(page)
    shared = save_figures(page, tmp_path / "shared", drawings=drawings)
    alone = save_figures(page, tmp_path / "alone")
    assert [path.read_bytes() for path in shared] == [path.read_bytes() for path in alone]
    assert render_page(page, drawings=drawings) == render_page(page)
    changed = replace(CHARTS["line"], title="Other")
    assert "Other" in render_page(Page("t", "", (changed,)), drawings=drawings)


def test_files_have_title_and_ground_and_pages_their_own(chart):
    """The SVG file stands alone, dark on white under its title; inside a page these belong to the page."""
    drawing = ChartDrawing(chart)
    inline = drawing.inline(prefix="c")
    texts = [{element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("text")}  # noqa: S314 our own output
             for svg in (drawing.svg, inline)]  # fmt: skip
    assert chart.title in texts[0] - texts[1]
    assert "#1d2430" in drawing.svg
    assert "#1d2430" not in inline
    assert 'id="ground"' in drawing.svg
    assert "ground" not in inline
    height = [float(re.search(r'viewBox="0 0 \S+ (\S+)"', svg)[1]) for svg in (drawing.svg, inline)]
    assert height[1] < height[0]


def test_large_numbers_on_an_axis_are_clear_of_the_title():
    """The power that matplotlib writes above an axis lies below the title, not on it."""
    chart = Chart("n", "Large", "line", (Series("", np.array([1.0, 2.0]) * 1e12),), Axis("epoch"), Axis("sum"))
    figure = draw_chart(chart)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    power = axes.yaxis.get_offset_text()
    assert power.get_text()
    title = axes.title if axes.get_title() else next(text for text in axes.findobj() if text.get_gid() == "title")
    assert power.get_window_extent().y1 <= title.get_window_extent().y0


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
