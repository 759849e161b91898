"""The page of the `concepts` study: what each unit detects, how sure that is, and pictures to judge it by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float, Int, UInt8

from neuronscope.errors import InputError
from neuronscope.maths.formulas import label_numbers, parse
from neuronscope.maths.resampling import mean_interval, wilson_interval
from neuronscope.result import Result
from neuronscope.studies.concepts.spec import LEGACY
from neuronscope.views import Axis, Block, Chart, Gallery, Page, Picture, Section, Series, Stat, Strip, Table, Text

_FEW_IMAGES = 100  # one image then holds over a hundredth of the pixels that a score is made of
_NAMED = 12  # units in a sentence
_MANY = 30  # categories or layers: more would make labels unreadable
_LINES = 8  # layers with a line or colour of their own
_SIDE = 112  # pixels: smaller pictures are magnified to about this side, so that outlines are thin
_DARK = 0.3  # of the brightness left outside a unit's mask
_FLOOR = 88  # grey level of black inside it: above what white becomes outside
_LINE = (255, 210, 0)  # bright yellow, with black beside it: seen on any ground, also in grey
_SCORES = {
    "iou": "IoU",
    "detection_accuracy": "detection accuracy",
    "activation_coverage": "activation coverage",
    "imrou": "ImRoU",
    "imrou_normalised": "normalised ImRoU",
}


def concepts_page(result: Result) -> Page:
    """Everything the study found, in reading order: overview, formulas, evidence, units, concepts, images of units."""
    view = _View(result)
    blocks: list[Block] = [
        *_overview(view),
        *_warnings(view),
        *_exceptions(view),
        *_layers(view),
        *_categories(view),
        *_lengths(view),
        *_evidence(view),
        *_units(view),
        *_concepts(view),
        *_cards(view),
    ]
    origin = result.provenance
    summary = (
        f"{origin.subject} on {origin.images:,} images of {origin.data}: which formula of concepts a unit detects."
    )
    return Page("Concepts that units detect", summary, tuple(blocks))


class _View:
    """A result's groups under short names."""

    def __init__(self, result: Result) -> None:
        self.provenance = result.provenance
        self.spec = result.provenance.spec
        self.units = result.tree["units"].to_dataset()
        self.concepts = result.tree["concepts"].to_dataset()
        self.cards = result.tree["cards"].to_dataset() if "cards" in result.tree.children else None
        self.layer_of = self.units["layer"].to_numpy().astype(str)
        self.index_of = self.units["index"].to_numpy()
        self.layer_names = tuple(dict.fromkeys(self.layer_of.tolist()))
        self.formulas = [str(words) for words in self.units["formula"].to_numpy()]
        self.explained = np.array([bool(words) for words in self.formulas], dtype=bool)
        self.broken = np.isnan(self.get("threshold"))
        self.dead = (self.get("dead") == 1) & ~self.broken

    def get(self, name: str) -> np.ndarray:
        """A variable of the units."""
        return self.units[name].to_numpy()

    def known(self, name: str) -> Float[np.ndarray, "_"]:
        """A variable of the explained units, where it is a number."""
        values = self.get(name)[self.explained]
        return np.asarray(values[np.isfinite(values)], dtype=np.float64)

    def those(self, chosen: Bool[np.ndarray, "units"]) -> str:
        """The chosen units in a sentence; of many the first."""
        places = np.flatnonzero(chosen)
        shown = places[:_NAMED]
        parts = []
        for layer in dict.fromkeys(self.layer_of[shown].tolist()):
            numbers = self.index_of[shown[self.layer_of[shown] == layer]]
            parts.append(f"{layer}: {', '.join(str(number) for number in numbers)}")
        return "; ".join(parts) + (f"; and {len(places) - _NAMED:,} more" if len(places) > _NAMED else "")

    @property
    def level(self) -> float:
        """Coverage of the intervals; findings count when q is below the rest."""
        return float(self.spec["level"])

    @property
    def bound(self) -> str:
        """The limit of q-values in words."""
        return f"q < {1 - self.level:.2g}"

    @property
    def draws(self) -> int:
        """Times that masks were laid over other images."""
        return int(self.spec["draws"])

    @property
    def score(self) -> str:
        """What the search maximised, in words."""
        return _SCORES.get(self.spec["score"], str(self.spec["score"]))

    @property
    def tested(self) -> Bool[np.ndarray, "units"]:
        """Units whose fit was held against chance."""
        return np.asarray(self.explained & np.isfinite(self.get("q")))

    @property
    def told(self) -> Bool[np.ndarray, "units"]:
        """Units that fit better than chance, with false discoveries under control."""
        return np.asarray(self.tested & (np.nan_to_num(self.get("q"), nan=1.0) < 1 - self.level))

    @property
    def proved_length(self) -> int:
        """Labels of the formulas that a proof is about."""
        return min(3, int(self.spec["length"]))

    def has(self, deviation: str) -> bool:
        """Whether a named deviation is in force."""
        return deviation in self.spec["legacy"]

    def verdict(self, unit: int) -> str:
        """What can be said of a unit."""
        if self.broken[unit]:
            return "NaN or infinite activations"
        if self.dead[unit]:
            return "dead: never active" if self.get("threshold")[unit] == 0 else "dead: never above its threshold"
        if not self.explained[unit]:
            return "no formula scores above 0"
        if not self.tested[unit]:
            return "not tested"
        return "better than chance" if self.told[unit] else "not distinguishable from chance"


def _overview(view: _View) -> Iterator[Block]:
    units, explained = len(view.formulas), int(view.explained.sum())
    layers = len(view.layer_names)
    yield Stat(
        "units explained", f"{explained:,} of {units:,}", note=f"in {layers} {'layer' if layers == 1 else 'layers'}"
    )
    dead = int(view.dead.sum())
    yield Stat("dead units", dead, note="never above their threshold on the images searched" if dead else "none")
    held = view.known("held_out")
    if held.size:
        low, high = np.quantile(held, [0.25, 0.75])
        yield Stat(
            "median held-out IoU", round(float(np.median(held)), 4), note=f"half of them from {low:.3f} to {high:.3f}"
        )
    tested, told = int(view.tested.sum()), int(view.told.sum())
    if tested:
        low, high = (
            100 * float(end[0]) for end in wilson_interval(np.array([told]), np.array([tested]), level=view.level)
        )
        note = f"{view.bound}; {told:,} of {tested:,} units"
        yield Stat("better than chance", 100 * told / tested, "%", low, high, note)
    optimal = view.get("optimal")[view.explained]
    asked = int((optimal >= 0).sum())
    if asked:
        proved = int((optimal == 1).sum())
        note = (
            f"{proved:,} of {asked:,}; no formula of up to {view.proved_length} labels is better on the images searched"
        )
        yield Stat("proved optimal", 100 * proved / asked, "%", note=note)
    else:
        yield Stat("proved optimal", "not asked", note="formulas are the best that the beam met")
    numbers = view.concepts
    searched, reported = int(numbers["images_searched"]), int(numbers["images_reported"])
    yield Stat("images", f"{searched:,} / {reported:,}", note="searched / scored (held out)")
    yield Stat(
        "label sets",
        int(numbers["signatures"]),
        note=f"distinct combinations of {numbers.sizes['concept']:,} concepts at a pixel, all that a search needs",
    )
    share = float(view.spec["quantile"])
    yield Text(
        f"A unit is active where its activation, enlarged to the masks, is above a threshold that {share:.2%} of its "
        f"activations exceed. The search looks for the formula of up to {view.spec['length']} concepts whose pixels "
        f"agree best with that ({view.score}). IoU: pixels in both over pixels in either, 0 to 1. Held-out scores are "
        "measured on images that neither threshold nor formula was chosen on."
        if not view.has("same-images")
        else f"A unit is active where its activation is above a threshold that {share:.2%} of its activations exceed. "
        "IoU: pixels in both over pixels in either, 0 to 1."
    )


def _warnings(view: _View) -> Iterator[Block]:
    for name in view.spec["legacy"]:
        yield Text(f"Deviation {name} is in force: {LEGACY.get(name, 'not known to this version')}.", tone="warning")
    if view.has("same-images"):
        yield Text(
            "Formulas were searched and scored on the same images: what is called held-out below is not, and scores "
            "are too good.",
            tone="warning",
        )
    images = min(int(view.concepts[f"images_{part}"]) for part in ("searched", "reported"))
    if images < _FEW_IMAGES:
        yield Text(
            f"Few images ({images} at least to search or to score on): formulas fit single images, and held-out scores "
            "vary from sample to sample.",
            tone="warning",
        )
    if not view.draws:
        yield Text(
            "No chance level was asked for (--draws 0): scores may be what any mask of the same area would reach.",
            tone="warning",
        )
    if view.provenance.skipped:
        yield Text(f"{len(view.provenance.skipped)} images could not be read and were left out.", tone="warning")


def _exceptions(view: _View) -> Iterator[Block]:
    """Units of which less can be said than of others."""
    if view.broken.any():
        yield Text(
            f"Some units gave NaN or infinite activations and are not explained: {view.those(view.broken)}.",
            tone="warning",
        )
    if view.dead.any():
        yield Text(
            "Dead units have no formula. Nothing exceeds their threshold, as they are 0 or constant, or at their "
            f"highest value in more than {float(view.spec['quantile']):.2%} of the positions: {view.those(view.dead)}.",
            tone="note",
        )
    blank = ~(view.explained | view.dead | view.broken)
    if blank.any():
        yield Text(f"No formula has anything in common with the activity of {view.those(blank)}.", tone="note")
    yield from _untold(view)
    unseen = view.explained & ~np.isfinite(view.get("held_out"))
    if unseen.any():
        yield Text(f"Neither active nor described on held-out images: {view.those(unseen)}.", tone="note")
    silent = view.explained & ~unseen & (view.get("active_share") == 0)
    if silent.any():
        yield Text(
            f"Active on images searched, but on no held-out image, so that no formula can fit: {view.those(silent)}.",
            tone="note",
        )
    gap = view.get("gap")
    left = view.explained & (view.get("optimal") == 0)
    if left.any():
        yield Text(
            f"{int(left.sum()):,} formulas are not proved optimal: a better one could add at most "
            f"{np.nanmax(gap[left]):.3g} ({view.score}).",
            tone="note",
        )


def _untold(view: _View) -> Iterator[Block]:
    """Formulas that may be chance."""
    tested, untold = int(view.tested.sum()), view.tested & ~view.told
    count = int(untold.sum())
    if not count:
        return
    meaning = "on held-out images they fit no better, as far as can be told, than the same masks laid over other images"
    if count < tested:
        yield Text(
            f"{count:,} of {tested:,} formulas are not distinguishable from chance: {meaning}: {view.those(untold)}.",
            tone="note",
        )
        return
    yield Text(f"None of the {tested:,} formulas is distinguishable from chance: {meaning}.", tone="warning")


def _layers(view: _View) -> Iterator[Block]:
    if len(view.layer_names) < 2:  # noqa: PLR2004 nothing to compare
        return
    rows = []
    for layer in view.layer_names:
        own = view.layer_of == layer
        formulas = [view.formulas[int(unit)] for unit in np.flatnonzero(own & view.explained)]
        rows.append(
            {
                "layer": layer,
                "units": int(own.sum()),
                "explained": len(formulas),
                "dead": int((own & view.dead).sum()),
                "better than chance": int((own & view.told).sum()),
                "median IoU": _median(view.get("held_out")[own & view.explained]),
                "median null": _median(view.get("null")[own & view.explained]),
                "different formulas": len(set(formulas)),
            }
        )
    yield Table(
        "layers",
        "Layers in calling order",
        pd.DataFrame(rows),
        help={
            "explained": "units with a formula",
            "dead": "units never above their threshold on the images searched",
            "better than chance": f"units with {view.bound}",
            "median IoU": "of the explained units on held-out images, 0 to 1",
            "median null": "the same with masks laid over other images",
            "different formulas": "of the explained units; fewer than these where units share one",
        },
        formats={"median IoU": ".4f", "median null": ".4f"},
    )


def _categories(view: _View) -> Iterator[Block]:
    total = int(view.explained.sum())
    if not total:
        yield Text("No unit has a formula.", tone="warning")
        return
    yield Section("Formulas", "What kinds of concepts formulas are made of, and what more concepts add.")
    lengths = view.get("formula_length")
    counts = (Counter[str](), Counter[str]())
    for unit in np.flatnonzero(view.explained):
        counts[int(lengths[unit] > 1)].update(str(view.get("category")[unit]).split(", "))
    names = [name for name, _ in (counts[0] + counts[1]).most_common()]
    shown = names[:_MANY]
    single = int((lengths[view.explained] == 1).sum())
    text = (
        f"Of {total:,} explained units {single:,} have a single concept and {total - single:,} a formula of several. A "
        "formula counts once in each category that it has a concept of: shares add up to more than 100 %."
    )
    if len(shown) < len(names):
        text += f" The first {len(shown)} of {len(names)} categories."
    yield Chart(
        "categories",
        "Units by category of their formula",
        "bar",
        tuple(
            Series(title, np.array([100 * count[name] / total for name in shown]))
            for title, count in zip(("single concept", "formula of several"), counts, strict=True)
            if count
        ),
        Axis("category", ticks=tuple(shown)),
        Axis("share of the explained units", "%"),
        text=text,
    )


def _lengths(view: _View) -> Iterator[Block]:
    table = view.get("best_score")
    longest = table.shape[1]
    usable = view.explained & np.isfinite(table).all(axis=1)
    if longest < 2 or not usable.any():  # noqa: PLR2004 no line through one point
        return
    groups = [(layer, usable & (view.layer_of == layer)) for layer in view.layer_names]
    groups = [(layer, own) for layer, own in groups if own.any()]
    if len(groups) > _LINES:
        groups = [("all layers", usable)]
    lines = []
    for layer, own in groups:
        values = table[own]
        mean = values.mean(axis=0)
        low, high = mean_interval(mean, values.var(axis=0), len(values), level=view.level)
        known = np.isfinite(low).all()
        lines.append(
            Series(
                f"{layer} ({len(values):,} units)",
                mean,
                np.arange(float(longest)),
                low if known else None,
                high if known else None,
            )
        )
    yield Chart(
        "score-by-length",
        f"{view.score} by length of the formula",
        "line",
        tuple(lines),
        Axis("concepts of the formula, at most", ticks=tuple(str(1 + i) for i in range(longest))),
        Axis(f"mean of the best {view.score}"),
        text=(
            "On the images searched, where a longer formula can only fit better. A single concept reaches "
            f"{_median(table[usable, 0] / table[usable, -1]):.0%} of the score of {longest} in half of the units or "
            f"more. Band: {view.level:.0%} interval for units like these."
        ),
    )


def _evidence(view: _View) -> Iterator[Block]:
    held, null = view.known("held_out"), view.known("null")
    if not held.size:
        return
    yield Section(
        "Is it real?",
        "Scores on images that were not searched, beside those of the same masks laid over other images. A formula of "
        "image halves or large areas fits to some extent whatever the unit does.",
    )
    top = max(float(held.max()), float(null.max()) if null.size else 0.0) or 1.0
    edges = np.linspace(0, top, 31 if held.size > 60 else 16)  # noqa: PLR2004 some units in a bin
    bars = [Series("units", np.histogram(held, edges)[0].astype(np.float64), edges)]
    if null.size:
        bars.append(Series("masks over other images", np.histogram(null, edges)[0].astype(np.float64), edges))
    yield Chart(
        "held-out",
        "Held-out IoU and its null",
        "histogram",
        tuple(bars),
        Axis("IoU on held-out images"),
        Axis("units"),
        text=f"Null: for each unit the mean of {view.draws} draws." if null.size else "",
    )
    if view.spec["score"] != "iou" or view.has("same-images"):
        return  # other scores do not compare with IoU
    both = view.explained & np.isfinite(view.get("held_out")) & np.isfinite(view.get("score"))
    score, held_out = view.get("score")[both], view.get("held_out")[both]
    end = float(max(score.max(), held_out.max()))
    kept = _median(held_out[score > 0] / score[score > 0])
    told = view.told[both]
    parts = [("better than chance", told), ("not distinguishable from chance", ~told)]
    if not view.tested.any():
        parts = [("units", np.ones(len(score), dtype=bool))]
    yield Chart(
        "overfit",
        "IoU on images searched and on held-out images",
        "scatter",
        tuple(Series(title, held_out[own], score[own]) for title, own in parts if own.any()),
        Axis("IoU on the images searched", limits=(0.0, 1.05 * end or 1.0)),
        Axis("IoU on held-out images", limits=(0.0, 1.05 * end or 1.0)),
        text=(
            "Both axes have the same range: below the diagonal, a formula owes part of its score to having been chosen "
            f"for it. The median unit keeps {kept:.0%} of its score."
        ),
    )


def _units(view: _View) -> Iterator[Block]:
    yield Section("Units", "Every unit with its formula, how well it fits, and whether a better one can exist.")
    words = {1: "yes", 0: "not proved"}
    count = range(len(view.formulas))
    columns: dict[str, object] = {
        "layer": view.layer_of,
        "unit": view.index_of,
        "formula": [view.formulas[unit] or view.verdict(unit) for unit in count],
        "held-out IoU": view.get("held_out"),
        "null": np.where(view.explained, view.get("null"), np.nan),
        "q": view.get("q"),
        "verdict": [view.verdict(unit) for unit in count],
        "score": view.get("score"),
        "length": view.get("formula_length"),
        "detection accuracy": view.get("detection_accuracy"),
        "activation coverage": view.get("activation_coverage"),
        "optimal": [
            words.get(int(one), "not asked") if own else ""
            for one, own in zip(view.get("optimal"), view.explained, strict=True)
        ],
        "gap": np.where(view.explained, view.get("gap"), np.nan),
        "category": [str(name) for name in view.get("category")],
    }
    yield Table(
        "units",
        "Units, best first",
        pd.DataFrame(columns),
        help={
            "formula": "of the concepts; dead units have none",
            "category": "of its concepts",
            "held-out IoU": "active pixels and pixels of the formula: both over either, on held-out images, 0 to 1",
            "null": "the same with the unit's masks laid over other images, mean of the draws",
            "q": "of the held-out IoU against these draws (counted from 1,000 draws on, below that Student's t on "
            "their mean and spread), false discovery rate over all units",
            "verdict": f"better than chance: {view.bound}",
            "score": f"{view.score} on the images searched",
            "length": "concepts of the formula",
            "detection accuracy": "share of the formula's pixels where the unit is active, held-out images, 0 to 1",
            "activation coverage": "share of the active pixels that the formula covers, held-out images, 0 to 1",
            "optimal": f"proved: no formula of up to {view.proved_length} labels scores higher on the images searched",
            "gap": "what a better formula could add to the score at most; 0 if optimal",
        },
        formats={
            **dict.fromkeys(("held-out IoU", "null", "score", "gap"), ".4f"),
            **dict.fromkeys(("q", "detection accuracy", "activation coverage"), ".3f"),
        },
        preset="-held-out IoU",
    )


def _concepts(view: _View) -> Iterator[Block]:
    table = view.concepts
    names = [str(name) for name in table["concept_name"].to_numpy()]
    numbers = table["number"].to_numpy()
    columns: dict[str, object] = {
        "concept": names,
        "category": [str(name) for name in table["category"].to_numpy()],
        "pixels": table["pixels"].to_numpy(),
    }
    used = uses(view.formulas, dict(zip(numbers.tolist(), names, strict=True)))
    if used is not None:
        columns["units"] = np.array([used[int(number)] for number in numbers])
    empty = int((table["pixels"].to_numpy() == 0).sum())
    yield Table(
        "concepts",
        "Concepts",
        pd.DataFrame(columns),
        help={
            "pixels": "of the concept's masks, all images",
            "units": "units with the concept in their formula, also where it is excluded (AND NOT)",
        },
        formats={"pixels": ","},
        preset="-units" if used is not None else "-pixels",
        text=f"{empty:,} concepts are in no image and in no formula." if empty else "",
    )


def uses(formulas: Iterable[str], names: dict[int, str]) -> Counter[int] | None:
    """How many formulas have each label; None where names do not tell labels apart.

    Args:
        formulas: in words, as `maths.formulas.text` writes them; empty ones do not count.
        names: name of each label number.

    Example:
        >>> sorted(uses(["(sky OR sea) AND NOT blue", "sea", ""], {1: "sea", 2: "sky", 3: "blue"}).items())
        [(1, 2), (2, 1), (3, 1)]
    """
    if len(set(names.values())) < len(names):
        return None
    found: Counter[int] = Counter()
    for words, times in Counter(words for words in formulas if words).items():
        try:
            formula = parse(words, names)
        except InputError:  # a name that reads like an operator
            return None
        if formula is not None:
            for number in set(label_numbers(formula)):
                found[number] += times
    return found


def _cards(view: _View) -> Iterator[Block]:
    if view.cards is None:
        return
    yield Section(
        "Units and their images",
        "The units of each layer that fit best on held-out images, on those of them where they are strongest.",
    )
    units = view.cards["unit"].to_numpy()
    for layer in view.layer_names:
        places = np.flatnonzero(view.layer_of[units] == layer)
        if not len(places):
            continue
        own = int((view.explained & (view.layer_of == layer)).sum())
        yield Gallery(
            f"cards-{layer}",
            f"Units of {layer}",
            [_strip(view, view.cards, int(place)) for place in places],
            scale=1,
            key=(
                "bright: the unit is active; dark: it is not. Yellow line: the formula's pixels lie inside. Bright "
                "inside the line is a hit, bright outside is not in the formula, dark inside is missed"
            ),
            text=(
                f"{len(places)} of {own:,} explained units. Below each image: the share of its active pixels that the "
                "formula covers."
            ),
        )


def _strip(view: _View, cards: xr.Dataset, place: int) -> Strip:
    unit = int(cards["unit"].to_numpy()[place])
    pictures = []
    for number in range(cards.sizes["image"]):
        frame = cards["frame"].to_numpy()[place, number]
        active = cards["active"].to_numpy()[place, number]
        formula = cards["formula"].to_numpy()[place, number]
        if not (frame.any() or active.any() or formula.any()):
            continue  # fewer images than asked for
        pictures.append(Picture(overlay(frame, active=active, formula=formula), _caption(active, formula)))
    return Strip(f"unit {view.index_of[unit]}: {view.formulas[unit]}", pictures, note=_note(view, unit))


def _note(view: _View, unit: int) -> str:
    held, null, q = (float(view.get(name)[unit]) for name in ("held_out", "null", "q"))
    said = [f"held-out IoU {held:.3f}"]
    if np.isfinite(q):
        said.append(f"by chance {null:.3f}, q = {q:.2g}" + ("" if view.told[unit] else ": not distinguishable"))
    optimal = int(view.get("optimal")[unit])
    if optimal >= 0:
        said.append("proved optimal" if optimal else f"not proved optimal: gap at most {view.get('gap')[unit]:.3g}")
    return "; ".join(said)


def _caption(active: Bool[np.ndarray, "h w"], formula: Bool[np.ndarray, "h w"]) -> str:
    if not active.any():
        return "not active"
    return f"{(active & formula).sum() / active.sum():.0%} hit"


def overlay(
    frame: UInt8[np.ndarray, "h w 3"], *, active: Bool[np.ndarray, "mh mw"], formula: Bool[np.ndarray, "mh mw"]
) -> UInt8[np.ndarray, "oh ow 3"]:
    """A picture with the active part bright, the rest dark, and an outline around the formula's pixels.

    Small pictures are magnified by whole steps; masks are enlarged to the picture by nearest neighbour.

    Args:
        frame: the picture, 0 to 255.
        active: where the unit is active.
        formula: where the formula holds.

    Example:
        >>> half = np.arange(8) < 4
        >>> white, nowhere = np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8), bool)
        >>> whole = overlay(white, active=np.tile(half, (8, 1)), formula=nowhere)
        >>> whole.shape, int(whole[0, 0, 0]), int(whole[0, -1, 0])
        ((112, 112, 3), 255, 76)
    """
    factor = max(1, _SIDE // max(frame.shape[:2]))
    large = frame.repeat(factor, axis=0).repeat(factor, axis=1).astype(np.float64)
    shape = large.shape[:2]
    bright = _FLOOR + large * (255 - _FLOOR) / 255
    shown = np.where(_enlarged(active, shape)[..., None], bright, large * _DARK).astype(np.uint8)
    inside = _enlarged(formula, shape)
    inner = inside & ~_eroded(inside)  # the border of the image closes an outline too
    second = inside & ~inner & ~_eroded(inside & ~inner)
    shown[second] = 0
    shown[inner] = _LINE
    return shown


def _enlarged(mask: Bool[np.ndarray, "h w"], shape: tuple[int, int]) -> Bool[np.ndarray, "oh ow"]:
    """A mask at another size, by nearest neighbour."""
    rows, columns = (_nearest(wanted, size) for wanted, size in zip(shape, mask.shape, strict=True))
    return np.asarray(mask[np.ix_(rows, columns)])


def _nearest(wanted: int, size: int) -> Int[np.ndarray, "_"]:
    """For each of `wanted` pixels the one of `size` pixels that covers its centre."""
    return ((np.arange(wanted) + 0.5) * size / wanted).astype(np.int64)


def _eroded(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose four neighbours are in the mask too; outside the image none is."""
    wide = np.pad(mask, 1)
    return np.asarray(mask & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:])


def _median(values: np.ndarray) -> float:
    """Of the values that are numbers; nan without any."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")
