"""Charts as SVG elements for HTML pages: no styles, no links, no fixed size, the page's own font and colour."""

from __future__ import annotations

import re
from io import StringIO
from xml.etree import ElementTree as ET

from neuronscope import Chart
from neuronscope.faces.figures.charts import compose_chart, describe
from neuronscope.faces.figures.style import INLINE, clean, fonts_may_lack_glyphs, style


def chart_svg(chart: Chart, *, prefix: str) -> str:
    """A chart as an SVG element to be placed inside an HTML page (no title: the page gives the caption).

    Text stays text and takes the font of the page; text and axes take its colour (`currentColor`); the ground is clear.
    There are no style attributes and no links, so a strict Content-Security-Policy can hold. The size is a `viewBox` in
    points; give the element a width in the style sheet. The same chart and prefix give the same bytes.

    Args:
        chart: what to draw.
        prefix: begins every id in the element; unique on the page.

    Example:
        >>> import numpy as np
        >>> from neuronscope import Axis, Series
        >>> loss = Chart("loss", "Loss", "line", (Series("train", np.array([2.0, 1.0])),), Axis("epoch"), Axis("loss"))
        >>> chart_svg(loss, prefix="c1")[:29]
        '<svg viewBox="0 0 388.8 244.8'
    """
    with style(INLINE, salt=prefix):
        figure = compose_chart(chart, INLINE, title="")
        written = StringIO()
        with fonts_may_lack_glyphs():
            # Pictures inside the drawing (dense scatter, colour bars) need more than the 72 dots per inch of a point.
            figure.savefig(written, format="svg", dpi=144, transparent=True, metadata={"Date": None})
    return _inline(written.getvalue(), prefix=prefix, title=chart.title, description=describe(chart))


def _inline(svg: str, *, prefix: str, title: str, description: str) -> str:
    """The SVG that matplotlib wrote, made fit for a page: see `chart_svg`."""
    root = ET.fromstring(svg)  # noqa: S314 written by matplotlib a moment ago
    namespace, link = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{namespace}metadata", f"{namespace}style"):
                parent.remove(child)
    used = set(re.findall(r'(?:url\(|xlink:href=")#([^)"]+)', svg))
    names = {name: f"{prefix}-{i}" for i, name in enumerate(sorted(used))}
    for element in root.iter():
        element.tag = element.tag.removeprefix(namespace)
        attributes = {("href" if key == link else key): value for key, value in element.attrib.items()}
        attributes |= _properties(attributes.pop("style", ""))
        element.attrib.clear()
        for key, value in attributes.items():
            if key == "id" and value not in names:
                continue
            element.set(key, _attribute(key, value, names))
        # Indentation is half of the file; only text elements have text that counts.
        if element.tag != "text":
            element.text = None
        element.tail = None
    return _frame(root, prefix=prefix, title=title, description=description)


def _attribute(key: str, value: str, names: dict[str, str]) -> str:
    """One attribute value, with renamed references and the page's ink."""
    if key == "id":
        return names[value]
    if key == "href":
        return "".join(value.split()) if value.startswith("data:") else f"#{names[value[1:]]}"
    if value.startswith("url(#"):
        return f"url(#{names[value[5:-1]]})"
    if key == "d":
        return " ".join(value.split())
    return value.replace(INLINE.ink, "currentColor")


def _properties(style: str) -> dict[str, str]:
    """Style declarations as presentation attributes, which a strict Content-Security-Policy allows."""
    found: dict[str, str] = {}
    for declaration in style.split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":
            size = re.search(r"[\d.]+px", value)
            found |= {"font-size": size.group()} if size else {}
            found |= {"font-weight": "bold"} if re.search(r"\b(bold|[6-9]00)\b", value) else {}
        elif key and key != "font-family":
            found[key] = value
    return found


def _frame(root: ET.Element, *, prefix: str, title: str, description: str) -> str:
    """The outermost element: a picture with a name and a description, sized by its view box."""
    children = list(root)
    view = root.get("viewBox", "0 0 1 1")
    root.attrib.clear()
    root.attrib.update(
        {"viewBox": view, "class": "chart-svg", "role": "img", "aria-labelledby": f"{prefix}-title {prefix}-text"}
    )
    root.set("stroke-linejoin", "round")
    name = ET.Element("title", {"id": f"{prefix}-title"})
    name.text = clean(title)
    text = ET.Element("desc", {"id": f"{prefix}-text"})
    text.text = description
    root[:] = [name, text, *children]
    return ET.tostring(root, encoding="unicode")
