"""Reports as one HTML file: escaped, self-contained, the same every time, and alive in a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from neuronscope.errors import StorageError
from neuronscope.faces.html import render_index, render_page, write_index, write_report
from neuronscope.views import Axis, Chart, Gallery, Page, Picture, Section, Series, Stat, Strip, Table, Text

EVIL = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)>\"'&"


class Reader(HTMLParser):
    """What a browser would see: elements with attributes, ids, and text."""

    def __init__(self, html: str) -> None:
        """Read the whole text at once."""
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[tuple[str, str]] = []
        self.within = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        """Note an element and its attributes."""
        self.elements.append((tag, dict(attrs)))
        self.within = tag
        if tag == "script":
            self.scripts.append((dict(attrs).get("type") or "", ""))

    def handle_endtag(self, tag):  # noqa: ARG002 the parser hands it over
        """Text from here on is not inside a script."""
        self.within = ""

    def handle_data(self, data):
        """Keep text, and scripts apart from it."""
        if self.within == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self.within != "style":
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements of one name."""
        return [attributes for name, attributes in self.elements if name == tag]

    def data(self) -> list:
        """The contents of the JSON scripts."""
        return [json.loads(text) for kind, text in self.scripts if kind == "application/json"]


def grey(value: int = 90) -> Picture:
    """A small grey picture with a box."""
    return Picture(np.full((28, 28), value, dtype=np.uint8), f"{EVIL} {value}", box=(4, 20, 6, 26), tone="good")


def units(rows: int) -> pd.DataFrame:
    """A table as studies write it: names, scores with gaps and infinities, counts, flags."""
    frame = pd.DataFrame({"unit": [f"conv1:{i}" for i in range(rows)], "auroc": np.linspace(1, 0, rows)})
    frame["n"] = np.arange(rows) * 1000
    frame["dead"] = frame["n"] % 3 == 0
    frame.loc[0, "unit"] = EVIL
    frame.loc[1, "auroc"] = np.nan
    frame.loc[2, "auroc"] = np.inf
    return frame


def sample(*, rows: int = 250, strips: int = 70) -> Page:
    """A page with every kind of block, and text that tries to break out of each."""
    y = np.array([1.0, np.nan, 3.0])
    axes = {"x": Axis("class", ticks=("a", EVIL, "c")), "y": Axis("accuracy", "fraction")}
    colour = Picture(np.zeros((64, 64, 3), dtype=np.uint8), "tabby", tone="bad")
    small = Picture(np.zeros((20, 20, 3), dtype=np.uint8))
    return Page(
        f"Layers {EVIL}",
        f"Summary {EVIL}",
        (
            Stat(f"accuracy {EVIL}", 0.97333, low=0.961, high=0.983, note=EVIL),
            Stat("units", 512, unit=EVIL),
            Text(f"plain {EVIL}"),
            Text(f"careful {EVIL}", "warning"),
            Text(f"by the way {EVIL}", "note"),
            Section(f"Training {EVIL}", EVIL),
            Chart("loss", f"Loss {EVIL}", "bar", (Series(EVIL, y, low=y - 0.5, high=y + 0.5),), text=EVIL, **axes),
            Chart("acc", "Accuracy", "line", (Series("a", y), Series("b", y)), **axes),
            Section("Units"),
            Table(
                "units",
                "Units",
                units(rows),
                help={"auroc": f"area {EVIL}"},
                formats={"auroc": ".3f", "n": ",d"},
                preset="-auroc",
            ),
            Table("few", "Few", units(5), text=EVIL),
            Section("Units"),
            Gallery(
                "top",
                f"Top {EVIL}",
                [Strip(f"conv1:{i} {EVIL}", [grey(i), small], EVIL) for i in range(strips)],
                key=EVIL,
            ),
            Gallery("crops", "Crops", [Strip("fc:1", [colour])], scale=1),
        ),
    )


@pytest.fixture(scope="module")
def html() -> str:
    """The sample page, rendered once."""
    return render_page(
        sample(), meta={"seed": "0", EVIL: EVIL}, links=[("All", "../index.html"), ("bad", "javascript:alert(1)")]
    )


def test_names_are_text_everywhere(html):
    """Markup in titles, names, captions, notes, cells and provenance is shown, never obeyed."""
    page = Reader(html)
    assert [kind for kind, _ in page.scripts].count("") == 1
    assert all(attributes.get("src", "").startswith("data:image/") for attributes in page.all("img"))
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on") or key == "style"]
    assert "".join(page.text).count("document.title='broken'") > 30


def test_nothing_is_fetched(html):
    """Every address is inside the file, or a relative link that a reader may follow; none has a foreign host."""
    for tag, attributes in Reader(html).elements:
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            address = attributes.get(key)
            if address is None:
                continue
            assert not re.match(r"([a-z]+:)?//|javascript:", address)
            assert address.startswith(("data:", "#")) or tag == "a"
    assert not re.search(r"@import|url\((?!#)", html)
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "the name of a vocabulary, not an address")
    assert "https://" not in html


def test_the_policy_allows_exactly_its_own_style_and_script(html):
    """The hashes of the Content-Security-Policy are those of the inlined elements; everything else is shut."""
    policy = next(attributes["content"] for attributes in Reader(html).all("meta") if attributes.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_the_same_page_gives_the_same_text(html):
    """No dates, no random ids: reports can be compared."""
    again = render_page(
        sample(), meta={"seed": "0", EVIL: EVIL}, links=[("All", "../index.html"), ("bad", "javascript:alert(1)")]
    )
    assert again == html


def test_every_block_is_there_and_can_be_reached(html):
    """Headings, numbers with intervals, tones in words, drawings, rows and pictures; contents lead to sections."""
    page = Reader(html)
    text = " ".join("".join(page.text).split())
    for words in ("0.9733", "0.961 to 0.983", "Warning", "Note", "key", "Provenance", "What the columns mean"):
        assert words in text
    assert len([one for one in page.all("svg") if one.get("role") == "img"]) == 2
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    targets = [one["href"][1:] for one in page.all("a") if one["href"].startswith("#")]
    assert set(targets) <= set(ids)
    assert {"main", "units", "units-2", "loss", "top"} <= set(ids)


def test_tables_show_the_first_rows_and_carry_the_rest(html):
    """200 rows as HTML in the preset order, gaps last; all rows as data for the script; headers are buttons."""
    page = Reader(html)
    assert html.count("<td") < 1300
    columns = page.data()[0]
    assert [len(next(iter(column.values()))) for column in columns] == [250] * 4
    scores = columns[1]["number"]
    assert columns[1]["format"] == ".3f"
    assert scores[0] == "inf"
    assert scores[-1] is None
    assert scores[1:-1] == sorted(scores[1:-1], reverse=True)
    assert columns[2]["format"] == ",d"
    assert columns[3]["text"][0] in ("yes", "no")
    heads = [one for one in page.all("th") if one.get("aria-sort")]
    assert [one["aria-sort"] for one in heads] == ["descending"]
    buttons = [one for one in page.all("button") if one.get("data-sort") == "auroc"]
    assert buttons[0]["title"] == f"area {EVIL}"


def test_values_are_shown_to_four_digits_and_gaps_as_dashes():
    """Formats as asked, four digits otherwise; no value, infinity and flags in words."""
    frame = pd.DataFrame(
        {"a": [0.123456, np.nan, -np.inf], "b": [0.5, 0.25, 1.0], "c": [True, False, True], "d": ["x", None, "z"]}
    )
    html = render_page(Page("t", "", (Table("t", "T", frame, formats={"b": ".1%"}),)))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert cells == ["0.1235", "50.0%", "yes", "x", "\u2013", "25.0%", "no", "\u2013", "\u2212∞", "100.0%", "yes", "z"]


def test_galleries_show_the_first_strips_and_carry_the_rest(html):
    """30 of 70 strips as HTML, 40 as data; pictures are magnified without smoothing and decode to what they were."""
    page = Reader(html)
    assert len(page.data()[1]) == 40
    images = page.all("img")
    assert len(images) == 61
    first = images[0]
    assert (first["width"], first["class"], first["loading"]) == ("56", "sharp", "lazy")
    assert first["alt"].endswith(" 0")
    decoded = Image.open(io.BytesIO(base64.b64decode(images[2]["src"].removeprefix("data:image/png;base64,"))))
    assert np.asarray(decoded).tolist() == np.full((28, 28), 1).tolist()
    assert images[-1]["src"].startswith("data:image/jpeg")
    assert images[1]["src"].startswith("data:image/png")
    box = {key: page.all("rect")[-1].get(key) for key in ("x", "y", "width", "height")}
    assert box == {"x": "6", "y": "4", "width": "20", "height": "16"}


def test_small_charts_carry_their_numbers(html):
    """Each value of a small chart, with its interval, can be read without seeing the drawing."""
    assert html.count('<details class="numbers">') == 2
    assert "<td>1</td><td>0.5</td><td>1.5</td>" in html


def test_an_empty_page_is_a_page():
    """No blocks, no rows, no pictures: nothing to stumble over."""
    blocks = (
        Table("t", "None", pd.DataFrame({"a": []})),
        Table("u", "None", pd.DataFrame()),
        Gallery("g", "None", [Strip("s", [])]),
    )
    assert "<main" in render_page(Page("t", "", ()))
    assert "0 of 0 rows" in render_page(Page("t", "", blocks))


def test_an_index_leads_to_reports(tmp_path):
    """Entries are links with a sentence; addresses that leave the disk are not links; names are text."""
    html = render_index(
        "Demo",
        EVIL,
        [("Layers", "layers/report.html", EVIL), ("Bad", " JavaScript:alert(1)", "")],
        stats=[Stat("s", 1.5)],
    )
    page = Reader(html)
    assert [one["href"] for one in page.all("a")] == ["#main", "layers/report.html"]
    assert [kind for kind, _ in page.scripts] == [""]
    path = write_index(tmp_path / "index.html", "Demo", "", [])
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_report_is_written_whole_or_not_at_all(tmp_path):
    """An older report stays when the new one cannot be written, no half file is left, and the error says where."""
    path = tmp_path / "out" / "report.html"
    assert write_report(Page("one \udcff", "", ()), path) == path
    write_report(Page("two", "", ()), path)
    assert "two" in path.read_text(encoding="utf-8")
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder"):
        write_report(Page("three", "", ()), tmp_path / "folder")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "out"]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to open the report as a reader would")
def test_the_report_works_in_a_browser(tmp_path):
    """No message in the console, no request; sorting, showing all rows and the theme work, and formats agree."""
    path = write_report(sample(), tmp_path / "report.html")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    options += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    options += ["--enable-logging=stderr", "--v=0", "--dump-dom"]
    address = f"{path.as_uri()}?theme=dark&sort=units:auroc&all=units"
    done = subprocess.run([CHROMIUM, *options, address], capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    assert "Refused" not in done.stderr
    page = Reader(done.stdout)
    assert page.all("html")[0]["data-theme"] == "dark"
    assert "broken" not in re.findall(r"<title>(.*?)</title>", done.stdout)[0].split("&lt;")[0]
    table = done.stdout.split('data-table="units"')[1].split("</table>")[0]
    assert 'aria-sort="ascending"' in table
    rows = re.findall(r"<tr>(.*?)</tr>", table.split("<tbody>")[1], flags=re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    assert len(cells) == 250
    assert [row[1] for row in cells[-2:]] == ["∞", "\u2013"]
    assert cells[0][1:] == ["0.000", "249,000", "yes"]
