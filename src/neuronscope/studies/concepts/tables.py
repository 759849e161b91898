"""The groups of the result, from the evidence of each layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from neuronscope.maths.controls import against_controls
from neuronscope.maths.formula_search import Explanation
from neuronscope.maths.formulas import Formula, key, label_numbers, text
from neuronscope.maths.relations import equivalent_groups
from neuronscope.maths.resampling import bh_qvalues
from neuronscope.result import unit_table
from neuronscope.studies.concepts.evidence import Detectors, LayerEvidence
from neuronscope.studies.concepts.fit import Fit, chance_scores, held_out_score, iou_interval, shares
from neuronscope.studies.concepts.grid import Explained, Grid
from neuronscope.studies.concepts.setting import Setting

Variable = tuple[tuple[str, ...], np.ndarray, str, str]
_UNIT = ("unit",)


class Words:
    """Formulas and categories in words."""

    def __init__(self, setting: Setting) -> None:
        """Names and categories of the study's concepts."""
        self.names = {concept.number: concept.name for concept in setting.concepts.concepts}
        self.categories = {concept.number: concept.category for concept in setting.concepts.concepts}

    def formula(self, formula: Formula | None) -> str:
        """A formula; empty for none."""
        return text(formula, self.names) if formula is not None else ""

    def explanation(self, one: Explanation | None) -> str:
        """Its formula; empty for none."""
        return "" if one is None else self.formula(one.formula)

    def category(self, formula: Formula | None) -> str:
        """The categories of a formula's labels, each once."""
        if formula is None:
            return ""
        return ", ".join(dict.fromkeys(self.categories[number] for number in label_numbers(formula)))


def units_group(setting: Setting, evidence: Sequence[LayerEvidence]) -> xr.Dataset:
    """What is known of every unit."""
    words = Words(setting)
    parts = [_of_layer(setting, one, words) for one in evidence]
    joined: dict[str, Variable] = {}
    for name, (axes, _, meaning, unit) in parts[0].items():
        joined[name] = (axes, np.concatenate([part[name][1] for part in parts]), meaning, unit)
    p = joined.pop("p")
    joined["q"] = (p[0], bh_qvalues(p[1]), "q-value of the fit on other images against masks laid over others", "")
    joined["shared_by"] = (
        _UNIT,
        _sharing(evidence, words.names),
        "units of the layer, itself included, whose formula says the same; 0 without a formula",
        "",
    )
    counts: dict[str, int] = {}
    for one in evidence:
        counts[one.layer.name] = counts.get(one.layer.name, 0) + len(one.units)
    table = unit_table(counts, joined)
    return table.assign_coords(index=(_UNIT, np.concatenate([one.units for one in evidence])))


def _of_layer(setting: Setting, one: LayerEvidence, words: Words) -> dict[str, Variable]:
    """The variables of a layer's units."""
    spec, found, fit = setting.spec, one.above.found, one.above.fit
    none = np.array([explanation.choice is None for explanation in found], dtype=bool)
    chosen = [explanation.choice for explanation in found]
    held, iou, null, p, low, high = _judged(setting, one.above, none)
    numbers = {name: np.where(none & (name != "active_share"), np.nan, part) for name, part in shares(fit).items()}
    agreement = {name: np.where(none, np.nan, part) for name, part in one.agreement.items()}
    proved = [explanation.certificate for explanation in found]
    lengths = max(spec.length, 1)
    alternatives = [[other for other in each.top if not _same(other, each.choice)] for each in found]
    return {
        "formula": (_UNIT, _texts(words.explanation(each) for each in chosen), "the formula chosen", ""),
        "category": (
            _UNIT,
            _texts(words.category(None if each is None else each.formula) for each in chosen),
            "of its labels",
            "",
        ),
        "formula_length": (
            _UNIT,
            np.array([0 if e is None else e.length for e in chosen]),
            "labels of the formula",
            "",
        ),
        "score": (_UNIT, _numbers(chosen), f"{spec.score} on the images searched", ""),
        "report_score": (_UNIT, held, f"{setting.report_score.name} on the images reported", ""),
        "held_out": (_UNIT, iou, "intersection over union on the images reported", ""),
        "held_out_low": (_UNIT, low, "lower limit of it for images like these", ""),
        "held_out_high": (_UNIT, high, "upper limit of it for images like these", ""),
        "null": (_UNIT, null, "the report score with the unit's masks laid over other images, mean", ""),
        "p": (_UNIT, p, "of that", ""),
        "detection_accuracy": (
            _UNIT,
            numbers["detection_accuracy"],
            "share of the formula's pixels that are active (images reported)",
            "",
        ),
        "activation_coverage": (
            _UNIT,
            numbers["activation_coverage"],
            "share of the active pixels that the formula covers (images reported)",
            "",
        ),
        "samples_coverage": (
            _UNIT,
            numbers["samples_coverage"],
            "of the images with the formula, those where a pixel of it is active",
            "",
        ),
        "explanation_coverage": (
            _UNIT,
            numbers["explanation_coverage"],
            "of the images where the unit is active, those where a pixel of the formula is",
            "",
        ),
        "active_share": (_UNIT, numbers["active_share"], "share of the pixels that are active (images reported)", ""),
        "formula_share": (_UNIT, numbers["formula_share"], "share of the pixels that the formula covers", ""),
        **{name: (_UNIT, agreement[name], meaning, "") for name, meaning in _AGREEMENT.items() if name in agreement},
        "threshold": (_UNIT, one.above.bounds.lower, "activation above which a position is active", ""),
        "dead": (
            _UNIT,
            np.array([int(each.active == 0) for each in found], dtype=np.int8),
            "1: nothing exceeds its threshold on the images searched",
            "",
        ),
        "optimal": (
            _UNIT,
            np.array([-1 if each is None else int(each.optimal) for each in proved]),
            "1: proved best up to three labels, 0: not proved, -1: not asked",
            "",
        ),
        "gap": (_UNIT, np.array([np.nan if e is None else e.gap for e in proved]), "what a better one could add", ""),
        "seconds": (_UNIT, np.array([each.seconds for each in found]), "time of the search", "s"),
        "best_score": (
            ("unit", "length"),
            _table([[np.nan if b is None else b.score for b in each.best] for each in found], lengths),
            "best score with at most so many labels",
            "",
        ),
        "best_formula": (
            ("unit", "length"),
            _text_table([[words.explanation(b) for b in each.best] for each in found], lengths),
            "the formula with it",
            "",
        ),
        "held_out_by_length": (
            ("unit", "length"),
            fit.by_length if fit.by_length.shape[1] == lengths else np.full((len(found), lengths), np.nan),
            "intersection over union of that formula on the images reported",
            "",
        ),
        "alternative_formula": (
            ("unit", "alternative"),
            _text_table([[words.explanation(other) for other in each] for each in alternatives], spec.alternatives),
            "next-best formulas with other masks",
            "",
        ),
        "alternative_score": (
            ("unit", "alternative"),
            _table([[other.score for other in each] for each in alternatives], spec.alternatives),
            f"their {spec.score} on the images searched",
            "",
        ),
        "margin": (
            _UNIT,
            np.array([_margin(each, rest) for each, rest in zip(found, alternatives, strict=True)]),
            "objective of the best formula minus that of the next",
            "",
        ),
    }


_AGREEMENT = {
    "auroc": "chance that a position with the formula has a higher activation than one without (images reported)",
    "auroc_low": "lower limit of it",
    "auroc_high": "upper limit of it",
    "correlation": "Pearson, of activation and formula over the positions of the map (images reported)",
    "correlation_low": "lower limit of it for images like these",
    "correlation_high": "upper limit of it for images like these",
}


def _judged(setting: Setting, some: Detectors, none: np.ndarray) -> tuple[np.ndarray, ...]:
    """Report score, IoU, null mean, p, and limits of the IoU; nan without a formula."""
    firing = setting.spec.probe == "firing"
    fit: Fit = some.fit.among_firing() if firing else some.fit
    score = setting.report_score
    held = np.where(none, np.nan, held_out_score(fit, score))
    union = fit.active.sum(axis=1) + fit.areas.sum(axis=1) - fit.hits.sum(axis=1)
    iou = np.where(none | (union == 0), np.nan, fit.hits.sum(axis=1) / np.maximum(union, 1))
    low, high = (np.where(none, np.nan, limit) for limit in iou_interval(fit, level=setting.spec.level))
    if not setting.spec.draws:
        nothing = np.full(len(held), np.nan)
        return held, iou, nothing, nothing, low, high
    chance = chance_scores(some.fit, score, firing=firing)
    p = against_controls(held, chance.T).p_greater
    return held, iou, np.where(none, np.nan, chance.mean(axis=1)), np.where(none, np.nan, p), low, high


def ranges_group(setting: Setting, evidence: Sequence[LayerEvidence]) -> xr.Dataset | None:
    """Formulas of ranges of activations (unit x range); None where nobody asked."""
    parts: list[tuple[LayerEvidence, Detectors]] = [(one, one.ranges) for one in evidence if one.ranges is not None]
    if not parts:
        return None
    words, k = Words(setting), setting.spec.ranges
    flat: dict[str, list[np.ndarray]] = {}
    for _, some in parts:
        none = np.array([each.choice is None for each in some.found], dtype=bool)
        held, iou, null, p, low, high = _judged(setting, some, none)
        numbers = shares(some.fit)
        for name, values in {
            "lower": some.bounds.lower,
            "upper": some.bounds.upper,
            "active_share": numbers["active_share"],
            "formula": _texts(words.explanation(each.choice) for each in some.found),
            "score": _numbers([each.choice for each in some.found]),
            "report_score": held,
            "held_out": iou,
            "held_out_low": low,
            "held_out_high": high,
            "null": null,
            "p": p,
        }.items():
            flat.setdefault(name, []).append(values)
    table = {name: np.concatenate(values).reshape(-1, k) for name, values in flat.items()}
    table["q"] = bh_qvalues(table.pop("p").reshape(-1)).reshape(-1, k)
    return xr.Dataset({name: (("unit", "range"), values) for name, values in table.items()})


def concepts_group(setting: Setting, grid: Grid) -> xr.Dataset:
    """The concepts with what they cover."""
    concepts, area = setting.concepts.concepts, grid.areas()
    facts = {name: ((), np.array(value)) for name, value in grid.facts().items()}
    return xr.Dataset(
        {
            "number": ("concept", np.array([c.number for c in concepts])),
            "pixels": ("concept", np.array([area.get(c.number, 0) for c in concepts])),
            **facts,
            "images_searched": ((), np.array(len(setting.searched))),
            "images_reported": ((), np.array(len(setting.reported))),
        },
        coords={
            "concept_name": ("concept", np.array([c.name for c in concepts], dtype=object)),
            "category": ("concept", np.array([c.category for c in concepts], dtype=object)),
        },
    )


def history_group(setting: Setting, evidence: Sequence[LayerEvidence]) -> xr.Dataset:
    """The beam at each length, and the labels that formulas were extended by where they were limited."""
    words, found = Words(setting), [each for one in evidence for each in one.above.found]
    thresholds = np.concatenate([one.above.bounds.lower for one in evidence])
    length = max((len(each.beams) for each in found), default=0)
    place = max((len(beam) for each in found for beam in each.beams), default=0)
    shape = (len(found), length, place)
    formulas = np.full(shape, "", dtype=object)
    scores, moved = np.full(shape, np.nan), np.full(shape, np.nan)
    for unit, each in enumerate(found):
        for at, beam in enumerate(each.beams):
            for rank, one in enumerate(beam):
                formulas[unit, at, rank] = words.explanation(one)
                scores[unit, at, rank] = one.objective
                moved[unit, at, rank] = getattr(one, "threshold", thresholds[unit])
    candidates = [[words.formula(formula) for formula in each.candidates] for each in found]
    axes = ("unit", "length", "place")
    return xr.Dataset(
        {
            "beam_formula": (axes, formulas),
            "beam_score": (axes, scores),
            "beam_threshold": (axes, moved),
            "candidate_label": (("unit", "candidate"), _text_table(candidates, max(map(len, candidates), default=0))),
        }
    )


def _sharing(evidence: Sequence[LayerEvidence], names: dict[int, str]) -> np.ndarray:
    """Of each unit, how many of its layer have a formula that is logically the same."""
    by_layer: dict[str, list[LayerEvidence]] = {}
    for one in evidence:
        by_layer.setdefault(one.layer.name, []).append(one)
    counts = []
    for parts in by_layer.values():
        formulas = [each.formula for one in parts for each in one.above.found]
        known = [formula for formula in formulas if formula is not None]
        groups = equivalent_groups(known, names=names)
        size = np.bincount(groups, minlength=1)[groups] if known else np.zeros(0, np.int64)
        own = np.zeros(len(formulas), dtype=np.int64)
        own[[formula is not None for formula in formulas]] = size
        counts.append(own)
    return np.concatenate(counts)


def _same(one: Explanation, other: Explanation | None) -> bool:
    return other is not None and key(one.formula) == key(other.formula)


def _margin(each: Explained, alternatives: Sequence[Explanation]) -> float:
    """By how much the best is ahead of the next; nan where there is none."""
    if each.choice is None or not alternatives:
        return float("nan")
    return float(each.choice.objective - max(other.objective for other in alternatives))


def _texts(words: Iterable[str]) -> np.ndarray:
    return np.array(list(words), dtype=object)


def _numbers(chosen: Sequence[Explanation | None]) -> Float[np.ndarray, "d"]:
    return np.array([np.nan if one is None else one.score for one in chosen], dtype=np.float64)


def _table(rows: Sequence[Sequence[float]], width: int) -> Float[np.ndarray, "u width"]:
    table = np.full((len(rows), width), np.nan)
    for row, values in enumerate(rows):
        table[row, : len(values)] = values[:width]
    return table


def _text_table(rows: Sequence[Sequence[str]], width: int) -> np.ndarray:
    table = np.full((len(rows), width), "", dtype=object)
    for row, values in enumerate(rows):
        for column, value in enumerate(values[:width]):
            table[row, column] = value
    return table
