"""What all pictures share: colours, dashes and hatches that differ in grey too, fonts, themes, and text made safe."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Item = TypeVar("Item")
ThemeName = Literal["light", "dark"]
COLOURS = ("#1b7fc4", "#d55e00", "#009e73", "#b8579a", "#a67c00", "#2a93c4", "#7a7a7a", "#8d6bd1")
"""Series colours: told apart under colour-blindness (after Okabe and Ito, 2008), and each with a contrast of at least
3 : 1 on a white and on a near-black ground, so that one drawing serves both."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (1.2, 1.4)),
    (0, (6, 1.8, 1.2, 1.8)),
    (0, (9, 2.5)),
    (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2)),
    (0, (2.5, 2.5)),
    (0, (9, 2, 3, 2)),
)
HATCHES = ("", "///", "---", "\\\\\\", "xxx", "|||", "+++", "////---")
MINUS = "\u2212"
"""The minus sign, as wide as a plus sign."""
LONGEST_TICK = 26
"""Characters of a tick label that are shown; a longer one is shortened in its middle."""
CHARACTER = 0.08
"""Mean width of a character at tick size, in inches."""
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Theme:
    """Ink for text and axes, ground behind everything."""

    ink: str
    ground: str


THEMES: dict[ThemeName, Theme] = {
    "light": Theme(ink="#1d2430", ground="#ffffff"),
    "dark": Theme(ink="#e4e8ef", ground="#14181f"),
}


@contextmanager
def style(theme: Theme, *, salt: str = "neuronscope") -> Iterator[None]:
    """Settings of matplotlib for one drawing; they are put back at the end."""
    import matplotlib as mpl

    ink, ground = theme.ink, theme.ground
    # Labels are data (class names, file names): a dollar sign in them is no formula.
    settings: dict[Any, Any] = {
        "text.parse_math": False,
        "font.family": ["DejaVu Sans"],
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        # A fixed height: matplotlib would look for a free one in each drawing.
        "axes.titley": 1.0,
        "axes.labelsize": 10,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "legend.handlelength": 3.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.axisbelow": True,
        "grid.linewidth": 0.6,
        "grid.alpha": 0.16,
        "lines.linewidth": 1.7,
        "lines.markersize": 4.6,
        "hatch.linewidth": 0.9,
        "figure.facecolor": ground,
        "axes.facecolor": "none",
        "savefig.facecolor": "auto",
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
    }
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "grid.color")
    ticks = ("xtick.color", "ytick.color", "xtick.labelcolor", "ytick.labelcolor")
    with mpl.rc_context(settings | dict.fromkeys(inked + ticks, ink)):
        yield


@contextmanager
def fonts_may_lack_glyphs() -> Iterator[None]:
    """Class names come in every script: a glyph that the font of the picture lacks is a box, not a failure."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def clean(text: str) -> str:
    """Text without characters that no SVG or UTF-8 file can hold (file names may)."""
    return UNPRINTABLE.sub("\ufffd", text)


def short(text: str, *, most: int = LONGEST_TICK) -> str:
    """Text shortened in its middle: layer names differ at both ends."""
    text = clean(text)
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[head + 1 - most :]}"


def pick(cycle: Sequence[Item], i: int) -> Item:
    """The i-th of a cycle that begins again at its end."""
    return cycle[i % len(cycle)]


def power(value: float) -> str:
    """A tick of a logarithmic axis: plain near 1, a power of ten elsewhere."""
    if 1e-3 <= value < 1e5:  # noqa: PLR2004 what reads well in plain digits
        return f"{value:,.10g}"
    exponent = round(math.log10(value)) if value > 0 else 0
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
