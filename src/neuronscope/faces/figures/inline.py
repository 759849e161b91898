"""Charts as SVG elements for HTML pages: no styles, no links, no fixed size, the page's own font and colour."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from neuronscope.faces.figures.charts import GROUND_ID, TITLE_ID
from neuronscope.faces.figures.style import clean

POINTS_PER_INCH = 72.0


@dataclass(frozen=True)
class Words:
    """What stands for a drawing where it is not seen: its name, and what it shows in one sentence or a few."""

    name: str
    text: str


def inline_svg(svg: str, words: Words, *, prefix: str, ink: str, cut: float) -> str:
    """The SVG file of a chart, made fit for a page: see `chart_svg`.

    Args:
        svg: what matplotlib wrote.
        words: name and description.
        prefix: begins every id in the element.
        ink: the colour of text and axes, which becomes `currentColor`.
        cut: height of the title, in inches, which is left out: it is the page's.
    """
    root = ET.fromstring(svg)  # noqa: S314 written by matplotlib a moment ago
    namespace, link = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{namespace}metadata", f"{namespace}style") or child.get("id") in (GROUND_ID, TITLE_ID):
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
            element.set(key, _attribute(key, value, names, ink))
        # Indentation is half of the file; only text elements have text that counts.
        if element.tag != "text":
            element.text = None
        element.tail = None
    return _frame(root, words, prefix=prefix, cut=cut * POINTS_PER_INCH)


def _attribute(key: str, value: str, names: dict[str, str], ink: str) -> str:
    """One attribute value, with renamed references and the page's ink."""
    if key == "id":
        return names[value]
    if key == "href":
        return "".join(value.split()) if value.startswith("data:") else f"#{names[value[1:]]}"
    if value.startswith("url(#"):
        return f"url(#{names[value[5:-1]]})"
    if key == "d":
        return " ".join(value.split())
    return value.replace(ink, "currentColor")


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


def _frame(root: ET.Element, words: Words, *, prefix: str, cut: float) -> str:
    """The outermost element: a picture with a name and a description, sized by its view box."""
    children = list(root)
    _, _, width, height = map(float, root.get("viewBox", "0 0 1 1").split())
    # The room of the title, at the top, is cut off.
    if cut:
        children = [ET.Element("g", {"transform": f"translate(0 {-cut:.6g})"})]
        children[0][:] = list(root)
    view = f"0 0 {width:.6g} {height - cut:.6g}"
    root.attrib.clear()
    root.attrib.update(
        {"viewBox": view, "class": "chart-svg", "role": "img", "aria-labelledby": f"{prefix}-title {prefix}-text"}
    )
    root.set("stroke-linejoin", "round")
    name = ET.Element("title", {"id": f"{prefix}-title"})
    name.text = clean(words.name)
    text = ET.Element("desc", {"id": f"{prefix}-text"})
    text.text = clean(words.text)
    root[:] = [name, text, *children]
    return ET.tostring(root, encoding="unicode")
