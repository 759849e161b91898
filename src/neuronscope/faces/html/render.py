"""Pages as self-contained HTML: styles, script and pictures inside, nothing fetched, everything escaped.

The page carries a Content-Security-Policy that allows exactly its own style sheet and script (by hash) and pictures
held as data, so a class name that contains markup can neither run nor phone home, even if an escape were forgotten.
Positions and sizes are therefore attributes and classes, never inline styles. What is too long to show at once (long
tables, galleries of hundreds of units) travels as JSON beside its first rows and is built by the script on demand;
without a script the first rows, all charts and all text are still there.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from neuronscope import Chart, Gallery, Network, Page, Panel, Picture, Section, Stat, StorageError, Strip, Table, Text
from neuronscope.faces.figures.drawing import Drawable, Drawings, drawing_of
from neuronscope.faces.figures.networks import numbers_of_links
from neuronscope.faces.figures.style import MINUS, UNPRINTABLE
from neuronscope.faces.tables import with_index

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
NO_VALUE = "\u2013"
"""What stands in a cell without a value."""
MOST_ROWS = 200
"""Table rows written as HTML; the others wait as data."""
MOST_STRIPS = 60
"""Galleries with more strips show `FIRST_STRIPS` at first."""
FIRST_STRIPS = 30
FILTERED_STRIPS = 12
"""Galleries with more strips than this have a filter box."""
PNG_SIDE = 40
"""Colour pictures with a longer side become JPEG: a tenth of the size at no visible loss."""
JPEG_QUALITY = 88
SMALL_CHART = 240
"""Charts with no more values, and networks with no more links, carry them as a table, for readers who cannot see the
drawing."""
CHART_SCALE = 1.32
"""CSS pixels per point of a chart at its natural size."""
LEAST_SCALE = 1.05
"""CSS pixels per point of a panel or network at least: on a narrow page it scrolls, since its text is small."""
NARROW_CHART = 450
"""Charts at most this wide, in points, stand two in a row where there is room."""


def render_page(
    page: Page,
    *,
    meta: Mapping[str, str] | None = None,
    links: Sequence[tuple[str, str]] = (),
    drawings: Drawings | None = None,
) -> str:
    """A page as one HTML file that opens offline; the same page gives the same text.

    Args:
        page: what to show.
        meta: lines of provenance (seed, versions, fingerprints), folded away at the end.
        links: (text, address) of other files, for example the index and the tables beside the report. Addresses are
            relative, or `#anchors`; anything with a scheme is shown as text.
        drawings: charts drawn already, by `draw_charts(page)`; the others are drawn here.

    Example:
        >>> html = render_page(Page("Units of <net>", "One line.", (Stat("accuracy", 0.9733),)))
        >>> "Units of &lt;net&gt;" in html, "0.9733" in html
        (True, True)
    """
    parts = _parts(page, drawings)
    widths = sorted({block.width for part in parts for block in part.blocks if isinstance(block, _ChartView)})
    style = _asset("style.css") + "".join(f".mw-{width}{{max-width:{width}px}}" for width in widths)
    leasts = sorted({block.least for part in parts for block in part.blocks if isinstance(block, _ChartView)} - {0})
    style += "".join(f".drawing>.lw-{least}{{min-width:{least}px}}" for least in leasts)
    return _finish("report.html.j2", style, page=page, parts=parts, meta=dict(meta or {}), links=_safe(links))


def render_index(
    title: str,
    summary: str,
    entries: Sequence[tuple[str, str, str]],
    *,
    stats: Sequence[Stat] = (),
    meta: Mapping[str, str] | None = None,
) -> str:
    """The entrance to a folder of reports.

    Args:
        title: heading.
        summary: one line below it.
        entries: (title, relative address, one sentence) of each report.
        stats: headline numbers above the entries.
        meta: lines of provenance.

    Example:
        >>> "layers/report.html" in render_index("Demo", "", [("Layers", "layers/report.html", "Every unit.")])
        True
    """
    cards = [(name, _relative(address), text) for name, address, text in entries]
    shown = [_stat(stat) for stat in stats]
    return _finish(
        "index.html.j2",
        _asset("style.css"),
        title=title,
        summary=summary,
        entries=cards,
        stats=shown,
        meta=dict(meta or {}),
    )


def write_report(
    page: Page,
    path: Path,
    *,
    meta: Mapping[str, str] | None = None,
    links: Sequence[tuple[str, str]] = (),
    drawings: Drawings | None = None,
) -> Path:
    """`render_page` into a file, whole or not at all: a reader never meets half a report.

    Raises:
        StorageError: the file cannot be written.
    """
    return _write(render_page(page, meta=meta, links=links, drawings=drawings), path)


def write_index(
    path: Path,
    title: str,
    summary: str,
    entries: Sequence[tuple[str, str, str]],
    *,
    stats: Sequence[Stat] = (),
    meta: Mapping[str, str] | None = None,
) -> Path:
    """`render_index` into a file, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    return _write(render_index(title, summary, entries, stats=stats, meta=meta), path)


def _write(html: str, path: Path) -> Path:
    """Write beside the target and rename: a full disk leaves an older report untouched."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(html.encode())
        # Temporary files are private; a report is as readable as any new file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        message = (
            f"the report cannot be written to '{path}': a writable folder with room for {len(html):,} characters was "
            f"expected, the system says: {error}. Choose another output folder or make room."
        )
        raise StorageError(message) from error
    return path


def _finish(template: str, style: str, **values: Any) -> str:
    """The template with style and script inlined, and the policy that allows these two alone."""
    script = _asset("script.js")
    policy = (
        f"default-src 'none'; style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    html = _environment().get_template(template).render(style=style, script=script, policy=policy, **values)
    return UNPRINTABLE.sub("\ufffd", html)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["icon"] = {"warning": "⚠", "note": "i", "plain": ""}
    return environment


@cache
def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """The hash by which a Content-Security-Policy knows an inline element (base64 of SHA-256)."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _relative(address: str) -> str:
    """The address, or an empty one when it would lead off the disk or run a script."""
    return "" if re.match(r"\s*([a-zA-Z][a-zA-Z0-9+.-]*:|//|\\)", address) else address


def _safe(links: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(text, _relative(address)) for text, address in links]


@dataclass(frozen=True)
class _StatView:
    """A headline number in words."""

    label: str
    value: str
    unit: str
    interval: str
    note: str
    kind: str = "stat"


@dataclass(frozen=True)
class _TextView:
    text: str
    tone: str
    kind: str = "text"


@dataclass(frozen=True)
class _ChartView:
    """A chart, panel or network as SVG, its natural width in CSS pixels, and its numbers when they are few."""

    anchor: str
    title: str
    text: str
    svg: Any
    width: int
    least: int
    narrow: bool
    numbers: list[_Numbers]
    kind: str = "chart"


@dataclass(frozen=True)
class _Numbers:
    """Values of a chart as a table, with the title of the chart where there are several."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class _Column:
    name: str
    help: str
    numeric: bool
    sort: str


@dataclass(frozen=True)
class _TableView:
    """A table: the first rows as cells of (text, sort key), all rows as JSON when there are more."""

    anchor: str
    name: str
    title: str
    text: str
    columns: list[_Column]
    rows: list[list[tuple[str, str | None]]]
    total: int
    data: Any
    kind: str = "table"


@dataclass(frozen=True)
class _PictureView:
    source: str
    width: int
    height: int
    sharp: bool
    caption: str
    tone: str
    box: tuple[int, int, int, int] | None
    view: tuple[int, int]


@dataclass(frozen=True)
class _StripView:
    label: str
    note: str
    pictures: list[_PictureView]


@dataclass(frozen=True)
class _GalleryView:
    anchor: str
    title: str
    text: str
    key: str
    strips: list[_StripView]
    total: int
    filtered: bool
    data: Any
    kind: str = "gallery"


_View = _StatView | _TextView | _ChartView | _TableView | _GalleryView


@dataclass(frozen=True)
class _Part:
    """A section with its blocks; neighbours of one kind that stand side by side share a group."""

    title: str
    text: str
    anchor: str
    groups: list[tuple[str, list[_View]]] = field(default_factory=list)

    @property
    def blocks(self) -> list[_View]:
        """All blocks, in reading order."""
        return [block for _, group in self.groups for block in group]

    def add(self, block: _View) -> None:
        """Append a block, beside the one before it when both are headline numbers or narrow charts."""
        kind = block.kind if block.kind == "stat" or (isinstance(block, _ChartView) and block.narrow) else "single"
        if kind != "single" and self.groups and self.groups[-1][0] == kind:
            self.groups[-1][1].append(block)
        else:
            self.groups.append((kind, [block]))


def _parts(page: Page, drawings: Drawings | None) -> list[_Part]:
    """The blocks of a page by section; those before the first section stand at the top, without a heading."""
    parts = [_Part("", "", "start")]
    taken: set[str] = {"start", "contents", "main"}
    for i, block in enumerate(page.blocks):
        if isinstance(block, Section):
            parts.append(_Part(block.title, block.text, _anchor(block.title, taken)))
        elif isinstance(block, Stat):
            parts[-1].add(_stat(block))
        elif isinstance(block, Text):
            parts[-1].add(_TextView(block.text, block.tone))
        elif isinstance(block, Drawable):
            parts[-1].add(_chart(block, i, _anchor(block.name, taken), drawings))
        elif isinstance(block, Table):
            parts[-1].add(_table(block, _anchor(block.name, taken)))
        else:
            parts[-1].add(_gallery(block, _anchor(block.name, taken)))
    return parts


def _anchor(name: str, taken: set[str]) -> str:
    """An id made of the letters and digits of a name, unique on the page."""
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "part"
    anchor, count = stem, 1
    while anchor in taken:
        count += 1
        anchor = f"{stem}-{count}"
    taken.add(anchor)
    return anchor


def _stat(stat: Stat) -> _StatView:
    value = _shown(stat.value, "")
    interval = ""
    if stat.low is not None or stat.high is not None:
        low, high = (
            (f"{MINUS}∞" if stat.low is None else _shown(stat.low, "")),
            ("∞" if stat.high is None else _shown(stat.high, "")),
        )
        interval = f"{low} to {high}"
    return _StatView(stat.label, value, stat.unit, interval, stat.note)


def _chart(chart: Drawable, number: int, anchor: str, drawings: Drawings | None) -> _ChartView:
    from markupsafe import Markup

    svg = drawing_of(chart, drawings).inline(prefix=f"c{number}")
    points = float(svg.split('viewBox="0 0 ', 1)[1].split(" ", 1)[0])
    # The drawing's element is built from a parsed tree, so all text in it is escaped already.
    drawn = Markup(svg)  # noqa: S704
    width = 20 * round(points * CHART_SCALE / 20)
    least = 0 if isinstance(chart, Chart) else 20 * round(points * LEAST_SCALE / 20)
    narrow = points <= NARROW_CHART
    return _ChartView(anchor, chart.title, chart.text, drawn, width, least, narrow, _numbers_of(chart))


def _numbers_of(chart: Drawable) -> list[_Numbers]:
    """The values of a chart, of each chart of a panel, or the links of a network, where they are few."""
    if isinstance(chart, Network):
        links = numbers_of_links(chart) if chart.form == "layers" else []  # the drawing of a tree has all its numbers
        heads = ["from", "node", "to", "node", chart.weight.caption]
        rows = [[*names, _number(weight)] for *names, weight in links]
        return [_Numbers("", heads, rows)] if 0 < len(rows) <= SMALL_CHART else []
    if isinstance(chart, Panel):
        found = [_Numbers(one.title, *_table_of(one)) for one in chart.charts]
    else:
        found = [_Numbers("", *_table_of(chart))]
    return [numbers for numbers in found if numbers.rows]


def _table_of(chart: Chart) -> tuple[list[str], list[list[str]]]:
    """The values of a small chart as a table, or nothing."""
    values = [np.asarray(series.y, dtype=float) for series in chart.series]
    if not values or sum(value.size for value in values) > SMALL_CHART:
        return [], []
    if chart.kind == "heatmap":
        [cells] = values
        across = chart.x.ticks or tuple(str(i) for i in range(cells.shape[1]))
        down = chart.y.ticks or tuple(str(i) for i in range(cells.shape[0]))
        return [chart.y.label, *across], [
            [name, *map(_number, row)] for name, row in zip(down, cells.tolist(), strict=False)
        ]
    if chart.kind == "dendrogram":
        return [], []  # brackets have places, which say nothing in numbers
    rows = []
    for i, (series, y) in enumerate(zip(chart.series, values, strict=True)):
        places = np.arange(len(y), dtype=float) if series.x is None else np.asarray(series.x, dtype=float)
        for j, value in enumerate(y):
            name = series.name or f"series {i + 1}"
            rows.append(
                [
                    name,
                    _place(chart, places, j),
                    *(_number(one) for one in np.atleast_1d(value).tolist()),
                    *_ends(series.low, series.high, j),
                ]
            )
    shown = (
        ["minimum", "first quartile", "median", "third quartile", "maximum"]
        if chart.kind == "box"
        else [chart.y.caption]
    )
    intervals = any(series.low is not None or series.high is not None for series in chart.series)
    return ["series", chart.x.caption, *shown, *(["low", "high"] if intervals else [])], rows


def _place(chart: Chart, places: np.ndarray, j: int) -> str:
    """Where the j-th value stands on the x axis, in words."""
    if chart.kind == "histogram" and len(places) > j + 1:
        return f"{_number(places[j])} to {_number(places[j + 1])}"
    at = places[j]
    if chart.x.ticks is not None and at == int(at) and 0 <= at < len(chart.x.ticks):
        return chart.x.ticks[int(at)]
    return _number(at)


def _ends(low: np.ndarray | None, high: np.ndarray | None, j: int) -> list[str]:
    return [] if low is None and high is None else ["" if end is None else _number(end[j]) for end in (low, high)]


def _number(value: Any) -> str:
    return _shown(float(value), "")


def _shown(value: Any, form: str) -> str:
    """A value as text: floats to four significant digits unless the format says otherwise, no number as a dash."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return format(int(value), form or "d")
    if isinstance(value, float | np.floating):
        value = float(value)
        if math.isnan(value):
            return NO_VALUE
        if math.isinf(value):
            return "∞" if value > 0 else f"{MINUS}∞"
        return format(value, form or ".4g").replace("-", MINUS)
    missing = pd.isna(value) if pd.api.types.is_scalar(value) else False
    return NO_VALUE if missing else str(value)


def _table(table: Table, anchor: str) -> _TableView:
    frame = with_index(table.frame)
    names = [str(name) for name in frame.columns]
    preset = table.preset.removeprefix("-")
    direction = ""
    if preset in names:
        direction = "descending" if table.preset.startswith("-") else "ascending"
        order = _order(frame.iloc[:, names.index(preset)], direction)
        frame = frame.iloc[order]
    columns = []
    shown: list[Callable[[Any], tuple[str, str | None]]] = []
    for i, name in enumerate(names):
        numeric = _numeric(frame.iloc[:, i])
        columns.append(_Column(name, table.help.get(name, ""), numeric, direction if name == preset else ""))
        form = table.formats.get(name, "")
        shown.append(_cell(form, numeric=numeric))
    first = [frame.iloc[:MOST_ROWS, i].tolist() for i in range(len(names))]
    rows = [[cell(value) for cell, value in zip(shown, row, strict=True)] for row in zip(*first, strict=True)]
    data = None
    if len(frame) > MOST_ROWS:
        data = _json([_data(frame.iloc[:, i], table.formats.get(name, "")) for i, name in enumerate(names)])
    return _TableView(anchor, table.name, table.title, table.text, columns, rows, len(frame), data)


def _order(column: pd.Series[Any], direction: str) -> np.ndarray:
    """Row order for a preset: stable, cells without a value last in both directions."""
    plain = column.reset_index(drop=True)
    key = None if _numeric(plain) else (lambda values: values.astype(str))
    ordered = plain.sort_values(ascending=direction == "ascending", kind="stable", na_position="last", key=key)
    return np.asarray(ordered.index)


def _numeric(column: pd.Series[Any]) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column)) and not bool(pd.api.types.is_bool_dtype(column))


def _cell(form: str, *, numeric: bool) -> Callable[[Any], tuple[str, str | None]]:
    """What writes one cell: its text, and the exact number by which the script sorts."""

    def write(value: Any) -> tuple[str, str | None]:
        return _shown(value, form), repr(float(value)) if numeric and not pd.isna(value) else None

    return write


def _data(column: pd.Series[Any], form: str) -> dict[str, Any]:
    """A column for the script: numbers to seven digits with their format, or texts."""
    values = column.tolist()
    if not _numeric(column):
        return {"text": [_shown(value, form) for value in values]}
    if not re.fullmatch(r"(,?d|,?\.\d+[fge%])?", form):
        return {"text": [_shown(value, form) for value in values], "sort": [_plain(value) for value in values]}
    whole = pd.api.types.is_integer_dtype(column)
    return {"number": [_plain(value) for value in values], "format": form or ("d" if whole else ".4g")}


def _plain(value: Any) -> float | int | str | None:
    """A number as JSON can hold it: none for no value, text for infinity."""
    if pd.isna(value):
        return None
    if isinstance(value, int | np.integer):
        return int(value)
    number = float(value)
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    return float(f"{number:.7g}")


def _json(value: Any) -> Any:
    """JSON for a script element: no `<`, so that no text in it can close the element or open a comment."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704 escaped here


def _gallery(gallery: Gallery, anchor: str) -> _GalleryView:
    strips = [_strip(strip, gallery.scale) for strip in gallery.strips]
    data = None
    shown = strips
    if len(strips) > MOST_STRIPS:
        shown = strips[:FIRST_STRIPS]
        data = _json(
            [[strip.label, strip.note, [_packed(one) for one in strip.pictures]] for strip in strips[FIRST_STRIPS:]]
        )
    filtered = len(strips) > FILTERED_STRIPS
    return _GalleryView(anchor, gallery.title, gallery.text, gallery.key, shown, len(strips), filtered, data)


def _packed(picture: _PictureView) -> list[Any]:
    """A picture for the script, in the order that `script.js` reads."""
    return [picture.source, picture.width, picture.height, int(picture.sharp), picture.caption, picture.tone,
            picture.box, picture.view]  # fmt: skip


def _strip(strip: Strip, scale: int) -> _StripView:
    return _StripView(strip.label, strip.note, [_picture(picture, scale) for picture in strip.pictures])


def _picture(picture: Picture, scale: int) -> _PictureView:
    height, width = picture.image.shape[:2]
    box = None
    if picture.box is not None:
        top, bottom, left, right = picture.box
        box = (left, top, right - left, bottom - top)
    return _PictureView(
        _encode(picture.image),
        width * scale,
        height * scale,
        scale > 1,
        picture.caption,
        picture.tone,
        box,
        (width, height),
    )


def _encode(image: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]) -> str:
    """A picture as a data address: PNG, or JPEG for large colour ones."""
    from PIL import Image

    file = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image))
    kind = "jpeg" if picture.mode == "RGB" and max(picture.size) > PNG_SIDE else "png"
    if kind == "jpeg":
        picture.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        picture.save(file, "PNG")
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
