"""Which formula of human concepts does a unit detect, how well, and is there a better one?

Formulas are searched on one part of the images and scored on the other. A formula that fits no better than it fits the
same unit's masks laid over other images is shown as such. Up to three labels the search can prove that it has found the
best formula there is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from neuronscope.data.concepts import ConceptData
from neuronscope.data.dataset import Data
from neuronscope.errors import InputError
from neuronscope.maths.controls import against_controls
from neuronscope.maths.formula_search import Found, SearchTables, explain, prepare
from neuronscope.maths.formulas import Formula, label_numbers, satisfied, text
from neuronscope.maths.resampling import bh_qvalues
from neuronscope.maths.signatures import Signatures, UnitCounts, assemble, image_signatures
from neuronscope.maths.streams import Each, StackRows, TopK, UpperTail
from neuronscope.models.subject import Subject
from neuronscope.result import Provenance, Result, circumstances, peak_memory, unit_table, versions
from neuronscope.run import Run
from neuronscope.steps import Observe
from neuronscope.studies.concepts.folds import CountSignatures, Fitting, firing
from neuronscope.studies.concepts.page import concepts_page
from neuronscope.studies.concepts.setting import Setting, settle
from neuronscope.studies.concepts.spec import ConceptsSpec
from neuronscope.sweep import Plan, PlannedSweep, estimate, planned, sweep, unfinished
from neuronscope.units import LayerInfo

Variable = tuple[tuple[str, ...], np.ndarray, str, str]


def run_concepts(subject: Subject, data: Data, spec: ConceptsSpec | None = None, *, run: Run | None = None) -> Result:
    """The formula of concepts that each unit detects, with its score on other images, a null, and a certificate.

    Args:
        subject: the network; it is given whole images, squashed to its input, as the masks cover them.
        data: the images of the concepts (`ns.concept_images(spec)`).
        spec: options.
        run: seed, device, batch size, progress.

    Returns:
        Groups `units` (unit; unit x length), `concepts` (the labels, with their areas), `cards` (images of the shown
        units with the masks of unit and formula).

    Raises:
        UnknownName: a layer, concept source, category or deviation that does not exist.
        InputError: too few images, or other images than those of the concepts.

    Example:
        >>> import neuronscope as ns
        >>> subject = ns.load_model("builtin:viewer-cnn", weights="random")
        >>> spec = ns.ConceptsSpec(concept_limit=60, layers=("conv_layers.1",), length=2, draws=20)
        >>> result = ns.run_concepts(subject, ns.concept_images(spec), spec)
        >>> len(result.units())
        32
    """
    started = time.perf_counter()
    setting = settle(subject, data, spec or ConceptsSpec(), run or Run())
    if setting.run.portion is not None:  # everything after the thresholds needs them whole
        for layer in setting.layers:
            threshold_units(setting, layer)
        unfinished(setting.run)
    labels = signatures_of(setting)
    searched = labels.part(setting.searched)
    tables = prepare(searched)
    explained = [explain_layer(setting, layer, searched, tables, labels) for layer in setting.layers]
    provenance = Provenance(
        study="concepts",
        spec=asdict(setting.spec),
        legacy=setting.spec.legacy,
        subject=setting.subject.name,
        subject_fingerprint=setting.subject.fingerprint,
        data=setting.concepts.name,
        data_fingerprint=setting.concepts.fingerprint,
        images=len(setting.concepts),
        skipped=(),
        nonfinite={
            one.layer.name: tuple(np.flatnonzero(np.isnan(one.thresholds)).tolist())
            for one in explained
            if np.isnan(one.thresholds).any()
        },
        circumstances=circumstances(setting.run),
        versions=versions(),
        seconds=time.perf_counter() - started,
        peak_memory=peak_memory(),
    )
    return Result(assemble_tree(setting, labels, explained), provenance, view=concepts_page)


@dataclass(frozen=True)
class Explained:
    """One layer's units.

    Attributes:
        layer: whose.
        thresholds: of each unit; nan where activations are not finite.
        counts: on the images searched.
        found: formulas.
        fitted: on the images reported, from `Fitting`.
        areas: pixels of each unit's chosen formula on the images reported.
        top: rows of the reported images where each unit is strongest.
        seconds: of the search of each unit.
    """

    layer: LayerInfo
    thresholds: Float[np.ndarray, "u"]
    counts: list[UnitCounts]
    found: list[Found]
    fitted: dict[str, np.ndarray]
    areas: Int[np.ndarray, "u"]
    top: Int[np.ndarray, "u k"]
    seconds: Float[np.ndarray, "u"]


def signatures_of(setting: Setting) -> Signatures:
    """The label sets of all images, read one at a time."""
    concepts, run = setting.concepts, setting.run
    run.progress.start("concepts", len(concepts))
    try:
        images = []
        for row in range(len(concepts)):
            masks = concepts.masks(row)
            images.append(image_signatures(masks.maps, masks.whole.tolist()))
            run.progress.advance(1)
        return assemble(images)
    finally:
        run.progress.finish()


def explain_layer(
    setting: Setting, layer: LayerInfo, searched: Signatures, tables: SearchTables, labels: Signatures
) -> Explained:
    """Thresholds, counts, formulas, and their fit on other images."""
    spec, run = setting.spec, setting.run
    images = setting.concepts.images.take(setting.searched)
    of = f"maps/{layer.name}"
    look = Observe((layer,), maps=(layer.name,))
    thresholds = threshold_units(setting, layer)
    fold = CountSignatures(of, searched, thresholds, setting.concepts.side)
    counts = sweep(setting.subject, images, look, fold, run=run, name="counts").answer
    found, seconds = searched_units(setting, layer, tables, counts)
    reported = labels.part(setting.reported)
    holds = [holding(one, reported) for one in found]
    fit = Fitting(of, reported, holds, thresholds, setting.concepts.side, others(setting))
    folds = Each(fit=fit, top=TopK("max", spec.images))
    step = Observe((layer,), measures=("max",), maps=(layer.name,))
    other_images = setting.concepts.images.take(setting.reported)
    answer = sweep(setting.subject, other_images, step, folds, run=run, name="fit").answer
    areas = np.array([int(reported.weight[one].sum()) for one in holds])
    return Explained(layer, thresholds, counts, found, answer["fit"], areas, answer["top"].index.T, seconds)


def threshold_units(setting: Setting, layer: LayerInfo) -> Any:
    """The activation above which each unit counts as active; from a portion of the images there is no answer yet."""
    images = setting.concepts.images.take(setting.searched)
    look = Observe((layer,), maps=(layer.name,))
    return sweep(setting.subject, images, look, tail(setting, layer), run=setting.run, name="thresholds").answer


def tail(setting: Setting, layer: LayerInfo) -> UpperTail:
    """The exact upper quantile of each unit's activations over images and positions."""
    positions = int(np.prod(layer.map_shape)) if layer.map_shape else 1
    values = len(setting.searched) * positions
    if values * setting.spec.quantile < 1:
        message = (
            f"a share of {setting.spec.quantile:g} of a unit's {values:,} activations in '{layer.name}' "
            f"({len(setting.searched):,} images, {positions} positions) is less than one: no unit would ever be "
            "active. Give more images, a layer with larger maps, or a larger --quantile"
        )
        raise InputError(message)
    return UpperTail(f"maps/{layer.name}", setting.spec.quantile, total=values)


def searched_units(
    setting: Setting, layer: LayerInfo, tables: SearchTables, counts: Sequence[UnitCounts]
) -> tuple[list[Found], Float[np.ndarray, "u"]]:
    """The formulas of each unit, and what finding them took."""
    found, seconds = [], []
    setting.run.progress.start(f"formulas {layer.name}", len(counts))
    try:
        for one in counts:
            started = time.perf_counter()
            found.append(explain(tables, one, setting.search))
            seconds.append(time.perf_counter() - started)
            setting.run.progress.advance(1)
    finally:
        setting.run.progress.finish()
    return found, np.array(seconds)


def holding(found: Found, signatures: Signatures) -> np.ndarray:
    """Which label sets satisfy the chosen formula; none where there is no formula."""
    if found.choice is None:
        return np.zeros(len(signatures), dtype=bool)
    return np.asarray(satisfied(found.choice.formula, signatures))


def others(setting: Setting) -> Int[np.ndarray, "draws n"]:
    """For each draw an order of the reported images in which none stands at its own place."""
    rng, images = setting.run.generator("concepts", "null"), len(setting.reported)
    orders = np.empty((setting.spec.draws, images), dtype=np.int64)
    for draw in range(setting.spec.draws):
        ring = rng.permutation(images)
        orders[draw, ring] = np.roll(ring, int(rng.integers(1, images)))
    return orders


def assemble_tree(setting: Setting, labels: Signatures, explained: Sequence[Explained]) -> xr.DataTree:
    """All groups of the result."""
    names = {concept.number: concept.name for concept in setting.concepts.concepts}
    categories = {concept.number: concept.category for concept in setting.concepts.concepts}
    variables = [unit_variables(setting, one, names, categories) for one in explained]
    joined: dict[str, Variable] = {}
    for name, (axes, _, meaning, unit) in variables[0].items():
        joined[name] = (axes, np.concatenate([one[name][1] for one in variables]), meaning, unit)
    p = joined.pop("p")
    joined["q"] = (p[0], bh_qvalues(p[1]), "q-value of the fit on other images against masks laid over others", "")
    groups: dict[str, xr.Dataset] = {
        "/": xr.Dataset(),
        "/units": unit_table({one.layer.name: one.layer.units for one in explained}, joined),
        "/concepts": concept_table(setting, labels),
    }
    cards = card_table(setting, explained, joined["held_out"][1])
    if cards is not None:
        groups["/cards"] = cards
    return xr.DataTree.from_dict(groups)


def unit_variables(
    setting: Setting, one: Explained, names: dict[int, str], categories: dict[int, str]
) -> dict[str, Variable]:
    """What is known of the units of a layer."""
    unit, by_length = ("unit",), ("unit", "length")
    chosen = [found.choice for found in one.found]
    hits, active = one.fitted["hits"], one.fitted["active"]
    with np.errstate(invalid="ignore", divide="ignore"):
        union = active + one.areas - hits
        iou = np.where(union > 0, hits / union, np.nan)
        chance = one.fitted["chance"] / ((active + one.areas)[:, None] - one.fitted["chance"])
        accuracy = np.where(one.areas > 0, hits / one.areas, np.nan)
        coverage = np.where(active > 0, hits / active, np.nan)
    dead = np.array([counts.area == 0 for counts in one.counts])
    none = np.array([explanation is None for explanation in chosen])
    iou, accuracy, coverage = (np.where(none, np.nan, values) for values in (iou, accuracy, coverage))
    draws = setting.spec.draws
    p = against_controls(iou, chance.T).p_greater if draws else np.full(len(iou), np.nan)
    table = np.full((len(one.found), setting.spec.length), np.nan)
    for row, found in enumerate(one.found):
        table[row] = [np.nan if best is None else best.score for best in found.best]

    def words(formula: Formula | None, mapping: dict[int, str]) -> str:
        return text(formula, mapping) if formula is not None else ""

    formulas = [None if explanation is None else explanation.formula for explanation in chosen]
    proved = [found.certificate for found in one.found]
    cells = len(setting.reported) * int(np.prod(setting.concepts.side))
    return {
        "formula": (unit, np.array([words(f, names) for f in formulas], dtype=object), "the formula chosen", ""),
        "category": (unit, np.array([_category(f, categories) for f in formulas], dtype=object), "of its labels", ""),
        "formula_length": (unit, np.array([0 if e is None else e.length for e in chosen]), "labels of the formula", ""),
        "score": (unit, _numbers(chosen, "score"), f"{setting.spec.score} on the images searched", ""),
        "held_out": (unit, iou, "intersection over union on the images reported", ""),
        "null": (unit, _mean(chance), "the same with the unit's masks laid over other images, mean", ""),
        "p": (unit, np.where(none, np.nan, p), "of that", ""),
        "detection_accuracy": (unit, accuracy, "share of the formula's pixels that are active (images reported)", ""),
        "activation_coverage": (unit, coverage, "share of the active pixels that the formula covers", ""),
        "active_share": (unit, active / cells, "share of the pixels that are active (images reported)", ""),
        "threshold": (unit, one.thresholds, "activation above which a position is active", ""),
        "dead": (unit, dead.astype(np.int8), "1: nothing exceeds its threshold on the images searched", ""),
        "optimal": (
            unit,
            np.array([-1 if c is None else int(c.optimal) for c in proved]),
            "1: proved best up to three labels, 0: not proved, -1: not asked",
            "",
        ),
        "gap": (unit, np.array([np.nan if c is None else c.gap for c in proved]), "what a better one could add", ""),
        "seconds": (unit, one.seconds, "time of the search", "s"),
        "best_score": (by_length, table, "best score with at most so many labels", ""),
    }


def concept_table(setting: Setting, labels: Signatures) -> xr.Dataset:
    """The concepts with what they cover."""
    concepts = setting.concepts.concepts
    area = np.zeros(max((c.number for c in concepts), default=0) + 1, dtype=np.int64)
    area[: len(labels.area)] = labels.area[: len(area)]
    return xr.Dataset(
        {
            "number": ("concept", np.array([c.number for c in concepts])),
            "pixels": ("concept", np.array([area[c.number] for c in concepts])),
            "signatures": ((), np.array(len(labels))),
            "pairs": ((), np.array(len(labels.pair_signature))),
            "images_searched": ((), np.array(len(setting.searched))),
            "images_reported": ((), np.array(len(setting.reported))),
        },
        coords={
            "concept_name": ("concept", np.array([c.name for c in concepts], dtype=object)),
            "category": ("concept", np.array([c.category for c in concepts], dtype=object)),
        },
    )


def card_table(
    setting: Setting, explained: Sequence[Explained], held_out: Float[np.ndarray, "units"]
) -> xr.Dataset | None:
    """The units of each layer that fit best, on the images where they are strongest: picture, unit, formula."""
    unit_numbers: list[int] = []
    tables: tuple[list[np.ndarray], ...] = ([], [], [], [])
    first = 0
    for one in explained:
        own = held_out[first : first + one.layer.units]
        order = np.argsort(np.where(np.isnan(own), np.inf, -own), kind="stable")[: setting.spec.cards]
        shown = [int(unit) for unit in order if not np.isnan(own[unit])]
        if shown:
            parts = _cards_of(setting, one, shown)
            unit_numbers += [first + unit for unit in shown]
            for table, part in zip(tables, parts, strict=True):
                table.append(part)
        first += one.layer.units
    if not unit_numbers:
        return None
    frames, active, formula, rows = (np.concatenate(table) for table in tables)
    return xr.Dataset(
        {
            "unit": ("card", np.array(unit_numbers)),
            "row": (("card", "image"), rows),
            "frame": (("card", "image", "y", "x", "channel"), frames),
            "active": (("card", "image", "mask_y", "mask_x"), active),
            "formula": (("card", "image", "mask_y", "mask_x"), formula),
        }
    )


def _cards_of(setting: Setting, one: Explained, shown: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Pictures and masks of some units of a layer: (units, images, ...)."""
    wanted = one.top[list(shown)]
    rows = np.unique(wanted[wanted >= 0])
    images = setting.concepts.images.take(setting.reported[rows])
    of = f"maps/{one.layer.name}"
    step = Observe((one.layer,), maps=(one.layer.name,))
    maps = sweep(
        setting.subject, images, step, StackRows(of, images=len(images)), run=setting.run, name="cards"
    ).answer.values
    side, place = setting.concepts.side, {int(row): i for i, row in enumerate(rows)}
    frames = np.stack([_frame(setting, images, i) for i in range(len(images))])
    names = (len(shown), wanted.shape[1])
    pictures = np.zeros((*names, *frames.shape[1:]), dtype=np.uint8)
    active = np.zeros((*names, *side), dtype=bool)
    covered = np.zeros((*names, *side), dtype=bool)
    for i, unit in enumerate(shown):
        formula = one.found[unit].choice
        for j, row in enumerate(wanted[i]):
            if row < 0:
                continue
            number = place[int(row)]
            pictures[i, j] = frames[number]
            for _, _, pixel in firing(maps[number : number + 1, [unit]], one.thresholds[[unit]], shape=side):
                active[i, j].reshape(-1)[pixel] = True
            if formula is not None:
                covered[i, j] = _formula_mask(setting.concepts, int(setting.reported[row]), formula.formula)
    return pictures, active, covered, setting.reported[np.maximum(wanted, 0)]


def _formula_mask(concepts: ConceptData, row: int, formula: Formula) -> np.ndarray:
    masks = concepts.masks(row)
    alone = assemble([image_signatures(masks.maps, masks.whole.tolist())])
    return np.asarray(satisfied(formula, alone)[alone.signature_map(0)].reshape(concepts.side))


_CARD_SIDE = 112  # pixels of the pictures on cards


def _frame(setting: Setting, images: Data, row: int) -> np.ndarray:
    """A picture as the network sees it, in colour, no larger than a card needs."""
    frame = setting.subject.preprocess.frame(images.read(row)).movedim(0, -1).numpy()
    step = max(1, frame.shape[0] // _CARD_SIDE)
    small = frame[::step, ::step]
    return np.repeat(small, 3, axis=2) if small.shape[2] == 1 else small


def _category(formula: Formula | None, categories: dict[int, str]) -> str:
    """The categories of a formula's labels, each once."""
    if formula is None:
        return ""
    return ", ".join(dict.fromkeys(categories[number] for number in label_numbers(formula)))


def _numbers(chosen: Sequence[Any], name: str) -> np.ndarray:
    return np.array([np.nan if one is None else getattr(one, name) for one in chosen])


def _mean(chance: np.ndarray) -> np.ndarray:
    return np.asarray(chance.mean(axis=1)) if chance.shape[1] else np.full(len(chance), np.nan)


def plan_concepts(subject: Subject, data: Data, spec: ConceptsSpec | None = None, *, run: Run | None = None) -> Plan:
    """The sweeps `run_concepts` will make; the search of formulas comes on top."""
    setting = settle(subject, data, spec or ConceptsSpec(), run or Run())
    sweeps: list[tuple[PlannedSweep, Any]] = []
    searched, reported = (setting.concepts.images.take(rows) for rows in (setting.searched, setting.reported))
    for layer in setting.layers:
        step = Observe((layer,), maps=(layer.name,))
        for name, images in (("thresholds", searched), ("counts", searched), ("fit", reported)):
            one = planned(
                setting.subject, images, step, tail(setting, layer), run=setting.run, name=f"{name} {layer.name}"
            )
            sweeps.append((one, step))
    return estimate(setting.subject, searched, sweeps, run=setting.run)
