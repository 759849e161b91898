"""The originals' page of units: `{L}_{U}.html`, its pictures and the histogram of scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from neuronscope.result import Result
from neuronscope.studies.concepts.original.parts import SCORES, LayerUnits, file_part, group, score_part
from neuronscope.studies.concepts.original.pictures import HEIGHT, enlarged, tinted, write_jpeg

_TEMPLATE = Path(__file__).parent / "cards.html.j2"
_GREY_BELOW = 0.01  # of results that do not say it
_BINS = 30
_PAD = 0.12  # inches around the histogram
_NO_VALUE = "\u2013"
_CHOICES = {"strongest": "unit strongest", "formula": "formula largest"}


@dataclass(frozen=True)
class Shown:
    """An image on a card: its three files, and what stands below it."""

    tinted: str
    plain: str
    source: str
    width: int
    height: int
    caption: str
    choice: str


@dataclass(frozen=True)
class Card:
    """A unit as the page shows it; all numbers in words."""

    number: int
    formula: str
    known: bool
    score: str
    iou: str
    active_share: str
    formula_share: str
    threshold: str
    chance: str
    grey: bool
    images: tuple[Shown, ...]


def write_cards(result: Result, units: LayerUnits, folder: Path) -> list[Path]:
    """Write a layer's page, its pictures and the histogram of its scores.

    The page has a card for each unit, best first, grey where the score is below `grey_below`: formula, score and IoU on
    the images reported, coverage, threshold, and for units that the result has pictures of these, in three rows: with
    tints, plain, and the tints on white. Below each stand the score and the IoU in that image and the row it is.
    """
    name = file_part(f"{units.layer}-{score_part(units.score_name, float(units.spec.get('multiplier', 0.75)))}")
    written = []
    histogram = f"{name}.svg" if np.isfinite(units.scores).any() else ""
    if histogram:
        (folder / histogram).write_text(histogram_svg(units.scores), encoding="utf-8")
        written.append(folder / histogram)
    pictures = folder / f"images_{units.span}"
    found = group(result, "cards")
    shown: dict[int, tuple[Shown, ...]] = {}
    if found is not None:
        places = {int(row): place for place, row in enumerate(units.rows)}
        for card, row in enumerate(found["unit"].to_numpy().tolist()):
            if row in places:
                pictures.mkdir(exist_ok=True)
                number = int(units.numbers[places[row]])
                images = tuple(_images(found.isel(card=card), number, units, pictures))
                shown[places[row]] = images
                written += [pictures / file for one in images for file in (one.tinted, one.plain, one.source)]
    page = folder / f"{units.span}.html"
    page.write_text(_page(result, units, shown, histogram=histogram, images=pictures.name), encoding="utf-8")
    return [page, *written]


def image_score(
    name: str, multiplier: float, *, active: Bool[np.ndarray, "h w"], formula: Bool[np.ndarray, "h w"]
) -> float:
    """A score within one image; nan where its denominator is 0.

    Example:
        >>> left, top = np.array([[1, 0], [1, 0]], bool), np.array([[1, 1], [0, 0]], bool)
        >>> [round(image_score(score, 0.75, active=left, formula=top), 3) for score in ("iou", "imrou")]
        [0.333, 0.083]
    """
    n, covered, both = (int(part.sum()) for part in (active, formula, active & formula))
    chance = multiplier / active.size
    over = {
        "iou": (both, n + covered - both),
        "detection_accuracy": (both, covered),
        "activation_coverage": (both, n),
        "imrou": (both - chance * n * covered, n + covered - both),
        # Divided by the score of a formula that equals the unit's mask, 1 - chance x n.
        "imrou_normalised": (both - chance * n * covered, (n + covered - both) * (1 - chance * n)),
    }
    above, below = over[name]
    return above / below if below else float("nan")


def histogram_svg(scores: Float[np.ndarray, "u"]) -> str:
    """The scores that are known as a histogram, titled `Scores: (mean +/- std)`; the same scores give the same text."""
    import io

    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    known = scores[np.isfinite(scores)]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "neuronscope", "font.family": "sans-serif"}):
        figure = Figure(figsize=(6.4, 3.2), layout=ConstrainedLayoutEngine(w_pad=_PAD, h_pad=_PAD))
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.hist(known, bins=_BINS, color="#4a6a8a", edgecolor="white", linewidth=0.5)
        axes.set(title=f"Scores: ({known.mean():.3f} +/- {known.std():.3f})", xlabel="score", ylabel="units")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _images(card: xr.Dataset, number: int, units: LayerUnits, folder: Path) -> Iterator[Shown]:
    """Write the pictures of a card."""
    name, multiplier = units.score_name, float(units.spec.get("multiplier", 0.75))
    taken = 0
    for place in range(card.sizes["image"]):
        one = card.isel(image=place)
        frame, active, formula = (one[part].to_numpy() for part in ("frame", "active", "formula"))
        row = int(one["row"])
        if row < 0 or not (frame.any() or active.any() or formula.any()):
            continue  # fewer images than asked for
        picture = enlarged(frame)
        stem = f"{number:04d}"
        files = [f"{stem}-{taken}.jpg", f"{stem}-maskimg-{taken}.jpg", f"{stem}-masksource-{taken}.jpg"]
        write_jpeg(tinted(picture, formula=formula, active=active), folder / files[0])
        write_jpeg(picture, folder / files[1])
        write_jpeg(tinted(np.full_like(picture, 255), formula=formula, active=active), folder / files[2])
        score = image_score(name, multiplier, active=active, formula=formula)
        iou = image_score("iou", multiplier, active=active, formula=formula)
        height, width = picture.shape[:2]
        yield Shown(
            tinted=files[0],
            plain=files[1],
            source=files[2],
            width=round(width * HEIGHT / height),
            height=HEIGHT,
            caption=f"{_number(score)} / {_number(iou)} / #{row}",
            choice=_CHOICES.get(str(one["choice"].item()), "") if "choice" in one else "",
        )
        taken += 1


def _page(
    result: Result, units: LayerUnits, shown: dict[int, tuple[Shown, ...]], *, histogram: str, images: str
) -> str:
    from jinja2 import Environment, StrictUndefined

    scores = units.scores
    order = sorted(range(len(scores)), key=lambda place: (-np.nan_to_num(scores[place], nan=-np.inf), place))
    formulas = units.texts("formula")
    cards = [_card(units, place, formulas[place], shown.get(place, ())) for place in order]
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    origin = result.provenance
    return made.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        layer=units.layer,
        span=units.span.replace("_", " to "),
        cards=cards,
        ordered=sorted(cards, key=lambda card: card.number),
        histogram=histogram,
        folder=images,
        score=SCORES.get(units.score_name, units.score_name),
        held_out="report_score" in units.table or units.score_name == "iou",
        same_images="same-images" in origin.legacy,
        subject=origin.subject,
        data=origin.data,
        grey_below=float(units.spec.get("grey_below", _GREY_BELOW)),
        unit_pictures=bool(shown),
    )


def _card(units: LayerUnits, place: int, formula: str, images: tuple[Shown, ...]) -> Card:
    score, threshold = float(units.scores[place]), float(units.get("threshold")[place])
    null, q = float(units.get("null")[place]), float(units.get("q")[place])
    chance = f"By chance: {_number(null)}" if formula and np.isfinite(null) else ""
    if chance and np.isfinite(q):
        chance += f" (q = {q:.2g})"
    return Card(
        number=int(units.numbers[place]),
        formula=formula or _reason(units, place),
        known=bool(formula),
        score=_number(score),
        iou=_number(float(units.get("held_out")[place])),
        active_share=_percent(float(units.get("active_share")[place])),
        formula_share=_percent(float(units.formula_share[place])) if formula else _NO_VALUE,
        threshold=f"{threshold:.2f}" if np.isfinite(threshold) else _NO_VALUE,
        chance=chance,
        grey=not score >= float(units.spec.get("grey_below", _GREY_BELOW)),
        images=images,
    )


def _reason(units: LayerUnits, place: int) -> str:
    """Why a unit has no formula."""
    if np.isnan(units.get("threshold")[place]):
        return "no formula: NaN or infinite activations"
    if units.get("dead")[place] == 1:
        return "no formula: dead, never above its threshold"
    return "no formula scores above 0"


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else _NO_VALUE


def _percent(value: float) -> str:
    return f"{100 * value:.2f}%" if np.isfinite(value) else _NO_VALUE
