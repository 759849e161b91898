"""Copy-paste examples, found by reading formulas: a concept that a unit detects makes another class of an image.

Where a unit helps class b and not class a, and its formula holds a concept, a region of that concept pasted onto images
seen as a should make some of them b (Mu and Andreas 2020, "Compositional explanations of neurons", section 7; there by
hand, on four images). Here concept, region, place and size are chosen on the images searched, and what is told was
counted on the images reported, one picture for each, beside two controls: the same region with its pixels in random
order, and regions of as many pixels of concepts that no unit helping class b detects.

What a few images cannot show is not shown: an example that does not beat both controls has a q near 1, and it may be
that no example does.
"""

from __future__ import annotations

import heapq
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int, Int8, UInt8
from scipy import ndimage, special
from torch import Tensor

from neuronscope.data.dataset import Data, scatter
from neuronscope.data.pasting import Paste, Patch, Placement, cut_out, pasted_data
from neuronscope.maths.formulas import AndNot, Expanded, Formula, Label, label_numbers, operands
from neuronscope.maths.resampling import bh_qvalues, wilson_interval
from neuronscope.maths.streams import Decisions
from neuronscope.steps import Predict
from neuronscope.studies.concepts.paste_grid import ask, frame_for, softmax
from neuronscope.studies.concepts.setting import Setting
from neuronscope.sweep import sweep
from neuronscope.units import LayerInfo

SIDES = (1 / 3, 1 / 2, 3 / 4)
"""Longer side of the region, in shorter sides of the input."""
CENTRES = ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
"""Where the middle of the region comes to lie, as (down, right), in sides of the input."""
REGIONS = 3
"""Regions of each concept that are tried, largest first."""
SEARCHED, REPORTED = 6, 30
"""Most images of a class that an example is chosen on, and scored on."""
LEAST_REPORTED = 6
"""With fewer images even an example that changes all of them has a p-value (1 in 2 to their number) that several
examples at once would leave above 0.05."""
TRIED = 3
"""Candidates tried on the images searched for each example that is reported."""
OTHERS = 8
"""Regions of other concepts that serve as a control, in turns."""
SMALLEST = 0.01
"""Least share of an image that a region covers: smaller ones hold too few pixels to be enlarged."""
MOST_ROWS = 5000
"""Images that are looked through for regions, and images of each part that are predicted."""

ANY = -1
"""In place of a class: every class that the unit does not help."""

_log = logging.getLogger("neuronscope")


@dataclass(frozen=True)
class Images:
    """Images to paste onto, with what the network sees in them.

    Attributes:
        data: where they come from.
        rows: of `data`, in an order without pattern.
        predicted: the class of each.
    """

    data: Data
    rows: Int[np.ndarray, "n"]
    predicted: Int[np.ndarray, "n"]

    def seen_as(self, classes: Sequence[int], *, most: int, without: int = -1) -> Int[np.ndarray, "m"]:
        """Rows that the network takes for one of some classes, at most so many, and not one certain row."""
        chosen = np.isin(self.predicted, classes) & (self.rows != without)
        return np.asarray(self.rows[chosen][:most])


@dataclass(frozen=True)
class Candidate:
    """A question: does the concept turn images of one class into the other?

    Attributes:
        from_class: class a; `ANY` stands for all of `from_classes`.
        from_classes: the classes meant.
        to_class: class b.
        unit: that helps b, and not a.
        concept: number of the concept.
    """

    from_class: int
    from_classes: tuple[int, ...]
    to_class: int
    unit: int
    concept: int


@dataclass(frozen=True)
class Chosen:
    """A candidate with the region, place and size that did best on the images searched.

    Attributes:
        candidate: the question.
        patch: the region.
        row: concept image that it was cut from.
        place: number of its placement.
        success: share of the images searched that became b there.
        gain: mean logarithm of the probability of b there, to order candidates of equal success.
        seen_as: the class that the network gives the whole picture of the region.
    """

    candidate: Candidate
    patch: Patch
    row: int
    place: int
    success: float
    gain: float
    seen_as: int

    @property
    def adversarial(self) -> bool:
        """Whether the region's own picture is not of class b, so that b comes from the two together."""
        return self.seen_as != self.candidate.to_class

    @property
    def merit(self) -> tuple[bool, float, float]:
        """What is sought, in order: anything adversarial that works, then what works best."""
        return (self.adversarial and self.success > 0, self.success, self.gain)


@dataclass(frozen=True)
class Scored:
    """An example on the images reported: which of them became b, with the region and its controls.

    Attributes:
        chosen: the example.
        own, shuffled, other: (images, placements) whether b was predicted; `other` is empty where there is no control
            concept.
        before, after: the clearest picture without and with the region, channels last.
        row: of that picture.
        predicted: its class with the region.
        probability: of that class.
    """

    chosen: Chosen
    own: Bool[np.ndarray, "n p"]
    shuffled: Bool[np.ndarray, "n p"]
    other: Bool[np.ndarray, "n p"]
    before: UInt8[np.ndarray, "y x 3"]
    after: UInt8[np.ndarray, "y x 3"]
    row: int
    predicted: int
    probability: float


@dataclass
class _Regions:
    """Where the largest regions of each concept are, and the regions themselves once they were cut out."""

    setting: Setting
    rows: Mapping[int, Sequence[int]]
    cut: dict[tuple[int, int], Patch | None] = field(default_factory=dict)

    def of(self, concept: int) -> list[tuple[int, Patch]]:
        """Row and region, largest first; regions that are too small are left out."""
        found = []
        for row in self.rows.get(concept, ()):
            if (concept, row) not in self.cut:
                self.cut[concept, row] = region_of(self.setting, row, concept)
            patch = self.cut[concept, row]
            if patch is not None:
                found.append((row, patch))
        return sorted(found, key=lambda one: -one[1].area)


def copy_paste_examples(
    setting: Setting,
    layer: LayerInfo,
    formulas: Sequence[Formula | None],
    contributor: Int8[np.ndarray, "classes units"],
    *,
    strength: Float[np.ndarray, "classes units"] | None = None,
    examples: int,
    data_labelled: Data | None = None,
    first: int = 0,
) -> xr.Dataset | None:
    """Copy-paste examples for the units of one layer, with controls, intervals and q-values.

    About `examples` x (3 x 270 + 30 x 45) forward passes, beside one for each image.

    Args:
        setting: network, images with concepts, and the two samples of them.
        layer: whose units.
        formulas: of each unit; None without one.
        contributor: 1 where a unit helps a class, -1 where it hinders it, else 0.
        strength: how much a unit helps a class, such as a correlation or weight: strongest units are tried first.
        examples: number of examples reported, at most.
        data_labelled: images to paste onto, in place of those of the concepts; their labels are not looked at.
        first: row of the layer's first unit in the table of units.

    Returns:
        Variables over (example), best first on the images searched. The question: `class_from`, `class_to` (names),
        `class_from_number` (-1: any class that the unit does not help), `class_to_number`, `unit` (row in the table of
        units), `concept`, `concept_number`. What was pasted where: `region_row`, `region_class` (the network's for the
        whole picture that the region was cut from), `adversarial` (0: that is class b itself, no wonder; such examples
        come last), `left`, `top`, `side` (pixels of the input). How many of the reported images became b: `successes`
        of `trials`, with `low` and `high` (Wilson interval of the share); the same with the prefixes `shuffled_`,
        `other_`, and `control_` for the more successful of these two; `searched_share`: of the images searched. `p`:
        one-sided exact McNemar test over images, the larger of both controls'; `q`. Shares over images and all
        placements: `grid_own`, `grid_shuffled`, `grid_other`. The clearest picture: `frame` and `before` (example, y,
        x, channel), `frame_row`, `predicted`, `probability`.
        None where there is nothing to try, with the reason in the log.
    """
    triples = helpful(setting, formulas, contributor, strength)
    reason = _why_not(setting, triples)
    if reason or examples < 1:
        _log.info("no copy-paste examples for %s: %s", layer.title, reason or "none were asked for")
        return None
    searched, reported = backgrounds(setting, data_labelled)
    candidates = list(candidates_of(triples, contributor, searched, reported))[: TRIED * examples]
    if not candidates:
        _log.info(
            "no copy-paste examples for %s: no class that such a unit does not help is seen in %d images or more",
            layer.title,
            LEAST_REPORTED,
        )
        return None
    regions = _Regions(setting, largest_regions(setting))
    places = placements()
    tried = [
        choose(setting, candidate, regions, searched, places, number=number)
        for number, candidate in enumerate(candidates)
    ]
    best = sorted((one for one in tried if one is not None), key=lambda one: one.merit, reverse=True)[:examples]
    if not best:
        _log.info(
            "no copy-paste examples for %s: no region of its concepts covers %.0f %% of an image",
            layer.title,
            100 * SMALLEST,
        )
        return None
    scored = [
        score(
            setting, one, other_patches(setting, one, formulas, contributor, regions), reported, places, number=number
        )
        for number, one in enumerate(best)
    ]
    return examples_table(setting, layer, scored, places, first=first)


def helpful(
    setting: Setting,
    formulas: Sequence[Formula | None],
    contributor: Int8[np.ndarray, "classes units"],
    strength: Float[np.ndarray, "classes units"] | None,
) -> list[tuple[int, int, int]]:
    """Class, unit that helps it, and pixel-level concept that the unit's formula holds; strongest units first."""
    in_pixels = {concept.number for concept in setting.concepts.concepts if concept.level == "pixel"}
    found = []
    for unit, formula in enumerate(formulas):
        held = sorted(positive_labels(formula) & in_pixels) if formula is not None else []
        found += [(int(b), unit, number) for b in np.flatnonzero(contributor[:, unit] == 1) for number in held]
    if strength is None:
        return found
    return sorted(found, key=lambda one: -float(np.nan_to_num(strength[one[0], one[1]])))


def positive_labels(formula: Formula, *, positive: bool = True) -> set[int]:
    """The labels whose presence the formula asks for: not those behind AND NOT, but those behind two of them.

    Example:
        >>> positive_labels(AndNot(Label(1), AndNot(Label(2), Label(3))))
        {1, 3}
    """
    if isinstance(formula, Label | Expanded):
        return {formula.number} if positive else set()
    if isinstance(formula, AndNot):
        return positive_labels(formula.left, positive=positive) | positive_labels(formula.right, positive=not positive)
    return set().union(*(positive_labels(part, positive=positive) for part in operands(formula)))


def _why_not(setting: Setting, triples: Sequence[object]) -> str:
    """Why there is nothing to look for; empty where there is."""
    if len(setting.subject.classes) < 2:  # noqa: PLR2004 one class cannot become another
        return "the network has no two classes"
    if not triples:
        return "no unit that helps a class has a concept of pixels in its formula"
    return ""


def backgrounds(setting: Setting, labelled: Data | None) -> tuple[Images, Images]:
    """The images to paste onto for choosing and for scoring, with the network's predictions."""
    data = setting.concepts.images if labelled is None else labelled
    searched, reported = setting.searched, setting.reported
    if labelled is not None or len(np.intersect1d(searched, reported)):
        every = np.arange(len(data))
        half = scatter(every, seed=setting.run.seed).argsort(kind="stable") % 2 == 0
        searched, reported = every[half], every[~half]
    return _predicted(setting, data, searched, name="searched"), _predicted(setting, data, reported, name="reported")


def _predicted(setting: Setting, data: Data, rows: Int[np.ndarray, "n"], *, name: str) -> Images:
    """What the network sees in some images, in an order without pattern."""
    rows = rows[scatter(rows, seed=setting.run.seed).argsort(kind="stable")][:MOST_ROWS]
    if not len(rows):
        return Images(data, rows, rows)
    fold = Decisions("logits", images=len(rows))
    found = sweep(setting.subject, data.take(rows), Predict(), fold, run=setting.run, name=f"copy-paste {name}").answer
    return Images(data, rows[found.index], found.predicted)


def candidates_of(
    triples: Sequence[tuple[int, int, int]],
    contributor: Int8[np.ndarray, "classes units"],
    searched: Images,
    reported: Images,
) -> Iterator[Candidate]:
    """Questions in turns: every class, unit and concept with its most frequent other class, then with the next.

    Where no single class is seen in enough images, as among a thousand classes, all of them together are asked.
    """
    classes = len(contributor)
    here, there = (np.bincount(images.predicted, minlength=classes) for images in (searched, reported))
    turns: list[list[Candidate]] = []
    for b, unit, concept in triples:
        free = np.flatnonzero((contributor[:, unit] != 1) & (np.arange(classes) != b))
        enough = free[(here[free] > 0) & (there[free] >= LEAST_REPORTED)]
        if len(enough):
            order = enough[np.argsort(-there[enough], kind="stable")]
            turns.append([Candidate(int(a), (int(a),), b, unit, concept) for a in order])
        elif here[free].sum() > 0 and there[free].sum() >= LEAST_REPORTED:
            turns.append([Candidate(ANY, tuple(free.tolist()), b, unit, concept)])
    asked: set[tuple[int, int, int]] = set()
    for turn in range(max((len(one) for one in turns), default=0)):
        for one in (row[turn] for row in turns if turn < len(row)):
            # Another unit with the same concept asks the same question again.
            question = (one.from_class, one.to_class, one.concept)
            if question not in asked:
                asked.add(question)
                yield one


def largest_regions(setting: Setting) -> dict[int, list[int]]:
    """For each pixel-level concept the searched images that it covers most of, most first."""
    rows = setting.searched[scatter(setting.searched, seed=setting.run.seed).argsort(kind="stable")][:MOST_ROWS]
    in_pixels = {concept.number for concept in setting.concepts.concepts if concept.level == "pixel"}
    kept: dict[int, list[tuple[int, int]]] = defaultdict(list)
    setting.run.progress.start("regions", len(rows))
    try:
        for row in rows.tolist():
            numbers, areas = np.unique(setting.concepts.masks(row).maps, return_counts=True)
            for number, area in zip(numbers.tolist(), areas.tolist(), strict=True):
                if number in in_pixels:
                    heapq.heappush(kept[number], (area, -row))
                    if len(kept[number]) > REGIONS:
                        heapq.heappop(kept[number])
            setting.run.progress.advance(1)
    finally:
        setting.run.progress.finish()
    return {number: [-row for _, row in sorted(found, reverse=True)] for number, found in kept.items()}


def region_of(setting: Setting, row: int, concept: int) -> Patch | None:
    """The largest connected region of a concept in an image as the network sees it; None where it is too small."""
    masks = setting.concepts.masks(row)
    parts, many = ndimage.label((masks.maps == concept).any(axis=0))
    if not many:
        return None
    largest = parts == 1 + np.bincount(parts.reshape(-1))[1:].argmax()
    if largest.mean() < SMALLEST:
        return None
    frame = frame_for(setting.subject, setting.concepts.images.read(row))
    resize = torch.nn.functional.interpolate
    mask = resize(torch.from_numpy(largest).float()[None, None], size=frame.shape[1:], mode="nearest-exact")[0, 0] > 0
    return cut_out(frame, mask) if bool(mask.any()) else None


def placements() -> tuple[tuple[float, tuple[float, float]], ...]:
    """Size and middle of every place that is tried, as shares of the input."""
    return tuple(product(SIDES, CENTRES))


def placed_at(
    patch: Patch, place: tuple[float, tuple[float, float]], size: tuple[int, int], *, area: float | None = None
) -> Placement:
    """A place in pixels of the input, for one region.

    Args:
        patch: the region.
        place: of `placements`.
        size: height and width of the input.
        area: pixels that the region covers once it is scaled; by default as the place's size says.
    """
    share, (down, right) = place
    height, width = patch.mask.shape
    longer = max(height, width)
    side = share * min(size) if area is None else longer * float(np.sqrt(area / patch.area))
    side = max(1, round(side))
    own = (height * side / longer, width * side / longer)
    return Placement(round(right * size[1] - own[1] / 2), round(down * size[0] - own[0] / 2), side)


def choose(
    setting: Setting,
    candidate: Candidate,
    regions: _Regions,
    images: Images,
    places: Sequence[tuple[float, tuple[float, float]]],
    *,
    number: int,
) -> Chosen | None:
    """The region, place and size of a candidate that do best on the images searched; None without a region."""
    own = regions.of(candidate.concept)
    best: Chosen | None = None
    for turn, (row, patch) in enumerate(own):
        rows = images.seen_as(candidate.from_classes, most=SEARCHED, without=own_row(setting, row, images))
        if not len(rows):
            continue
        whole = frame_for(setting.subject, setting.concepts.images.read(row))
        frames = torch.cat([frames_of(setting, images.data, rows), whole[None]])
        size = (int(frames.shape[2]), int(frames.shape[3]))
        pastes = [Paste(i, 0, placed_at(patch, place, size)) for i in range(len(rows)) for place in places]
        pastes.append(Paste(len(rows)))
        data = pasted_data(frames, [patch], pastes, seed=setting.run.seed)
        logits = ask(setting.subject, data, run=setting.run, name=f"copy-paste choice {number} {turn}")
        table = logits[:-1].reshape(len(rows), len(places), -1)
        success = (table.argmax(axis=2) == candidate.to_class).mean(axis=0)
        gain = np.log(np.maximum(softmax(table)[:, :, candidate.to_class], np.finfo(np.float64).tiny)).mean(axis=0)
        place = int(np.lexsort((-gain, -success))[0])
        seen_as = int(logits[-1].argmax())
        found = Chosen(candidate, patch, row, place, float(success[place]), float(gain[place]), seen_as)
        if best is None or found.merit > best.merit:
            best = found
    return best


def other_patches(
    setting: Setting,
    chosen: Chosen,
    formulas: Sequence[Formula | None],
    contributor: Int8[np.ndarray, "classes units"],
    regions: _Regions,
) -> list[Patch]:
    """Regions of concepts that are in no formula of a unit that helps class b, of about the region's size."""
    helping = np.flatnonzero(contributor[chosen.candidate.to_class] == 1)
    held = {number for unit in helping.tolist() for number in _labels(formulas[unit])}
    free = sorted(set(regions.rows) - held)
    rng = setting.run.generator("copy-paste", str(chosen.candidate.concept), str(chosen.candidate.to_class))
    found = []
    for concept in rng.permutation(free).tolist()[: 4 * OTHERS]:
        found += [patch for _, patch in regions.of(concept)[:1]]
    # Of like size: a region that must be enlarged or shrunk much looks like nothing.
    return sorted(found, key=lambda patch: abs(float(np.log(patch.area / chosen.patch.area))))[:OTHERS]


def _labels(formula: Formula | None) -> tuple[int, ...]:
    return () if formula is None else label_numbers(formula)


def score(
    setting: Setting,
    chosen: Chosen,
    others: Sequence[Patch],
    images: Images,
    places: Sequence[tuple[float, tuple[float, float]]],
    *,
    number: int,
) -> Scored:
    """An example on the images reported, with its controls, at all places."""
    candidate = chosen.candidate
    rows = images.seen_as(candidate.from_classes, most=REPORTED, without=own_row(setting, chosen.row, images))
    frames = frames_of(setting, images.data, rows)
    size = (int(frames.shape[2]), int(frames.shape[3]))
    patches = [chosen.patch, *others]
    pastes: list[Paste] = []
    for i in range(len(rows)):
        own = [placed_at(chosen.patch, place, size) for place in places]
        pastes += [Paste(i, 0, place) for place in own]
        pastes += [Paste(i, 0, place, "shuffled") for place in own]
        if others:
            turn = 1 + i % len(others)
            longer = max(chosen.patch.mask.shape)
            areas = [chosen.patch.area * (place.side / longer) ** 2 for place in own]
            pastes += [
                Paste(i, turn, placed_at(patches[turn], place, size, area=area))
                for place, area in zip(places, areas, strict=True)
            ]
    data = pasted_data(frames, patches, pastes, seed=setting.run.seed)
    logits = ask(setting.subject, data, run=setting.run, name=f"copy-paste score {number}")
    table = logits.reshape(len(rows), 3 if others else 2, len(places), -1)
    became = table.argmax(axis=3) == candidate.to_class
    chance = softmax(table[:, 0, chosen.place])
    clearest = int(np.lexsort((-chance[:, candidate.to_class], ~became[:, 0, chosen.place]))[0])
    predicted = int(chance[clearest].argmax())
    row = (clearest * (3 if others else 2)) * len(places) + chosen.place
    return Scored(
        chosen=chosen,
        own=became[:, 0],
        shuffled=became[:, 1],
        other=became[:, 2] if others else np.zeros((0, len(places)), dtype=bool),
        before=in_colour(frames[clearest]),
        after=in_colour(data.read(row)),
        row=int(rows[clearest]),
        predicted=predicted,
        probability=float(chance[clearest, predicted]),
    )


def own_row(setting: Setting, row: int, images: Images) -> int:
    """The row among images to paste onto that a region was cut from; -1 where they are other images."""
    return row if images.data.fingerprint == setting.concepts.images.fingerprint else -1


def frames_of(setting: Setting, data: Data, rows: Int[np.ndarray, "n"]) -> UInt8[Tensor, "n c h w"]:
    """Some images as the network sees them: few enough for memory."""
    return torch.stack([frame_for(setting.subject, data.read(int(row))) for row in rows])


def in_colour(frame: UInt8[Tensor, "c h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """A picture with three channels, last."""
    pixels = frame.movedim(0, -1).numpy()
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def beats(own: Bool[np.ndarray, "n"], control: Bool[np.ndarray, "n"]) -> float:
    """One-sided exact McNemar test that the region turns more images than its control: p-value, 1 where none differ.

    Example:
        >>> beats(np.ones(5, dtype=bool), np.zeros(5, dtype=bool))
        0.03125
    """
    gained, lost = int((own & ~control).sum()), int((control & ~own).sum())
    return float(special.bdtrc(gained - 1, gained + lost, 0.5)) if gained else 1.0


def examples_table(
    setting: Setting,
    layer: LayerInfo,
    scored: Sequence[Scored],
    places: Sequence[tuple[float, tuple[float, float]]],
    *,
    first: int,
) -> xr.Dataset:
    """All examples as one group of a result."""
    names, size = setting.subject.classes, scored[0].before.shape[:2]
    chosen = [one.chosen for one in scored]
    asked = [one.candidate for one in chosen]
    where = [placed_at(one.patch, places[one.place], (size[0], size[1])) for one in chosen]
    p = np.array([_p(one) for one in scored])
    columns: dict[str, np.ndarray] = {
        "class_from": _texts("any other" if one.from_class == ANY else names[one.from_class] for one in asked),
        "class_to": _texts(names[one.to_class] for one in asked),
        "class_from_number": np.array([one.from_class for one in asked]),
        "class_to_number": np.array([one.to_class for one in asked]),
        "unit": np.array([first + one.unit for one in asked]),
        "concept": _texts(setting.concepts.concept(one.concept).name for one in asked),
        "concept_number": np.array([one.concept for one in asked]),
        "region_row": np.array([one.row for one in chosen]),
        "region_class": _texts(names[one.seen_as] for one in chosen),
        "adversarial": np.array([one.adversarial for one in chosen], dtype=np.int8),
        "left": np.array([one.x for one in where]),
        "top": np.array([one.y for one in where]),
        "side": np.array([one.side for one in where]),
        "searched_share": np.array([one.success for one in chosen]),
        "p": p,
        "q": bh_qvalues(p),
        "frame_row": np.array([one.row for one in scored]),
        "predicted": _texts(names[one.predicted] for one in scored),
        "probability": np.array([one.probability for one in scored]),
    }
    tables = {
        "": [one.own for one in scored],
        "shuffled_": [one.shuffled for one in scored],
        "other_": [one.other for one in scored],
        "control_": [_stronger(one) for one in scored],
    }
    for prefix, found in tables.items():
        at_place = [table[:, one.place] for table, one in zip(found, chosen, strict=True)]
        hits, trials = np.array([int(one.sum()) for one in at_place]), np.array([len(one) for one in at_place])
        low, high = wilson_interval(hits, trials, level=setting.spec.level)
        columns |= {f"{prefix}successes": hits, f"{prefix}trials": trials, f"{prefix}low": low, f"{prefix}high": high}
        if prefix != "control_":
            mean = [float(table.mean()) if len(table) else np.nan for table in found]
            columns[f"grid_{prefix.rstrip('_') or 'own'}"] = np.array(mean)
    picture = ("example", "y", "x", "channel")
    return xr.Dataset(
        {
            **{name: ("example", values) for name, values in columns.items()},
            "frame": (picture, np.stack([one.after for one in scored])),
            "before": (picture, np.stack([one.before for one in scored])),
        },
        attrs={"layer": layer.name},
    )


def _stronger(one: Scored) -> Bool[np.ndarray, "n p"]:
    """The control with more successes where the example was laid."""
    place = one.chosen.place
    return one.other if len(one.other) and one.other[:, place].sum() > one.shuffled[:, place].sum() else one.shuffled


def _p(one: Scored) -> float:
    """That the region beats both controls: the larger p of the two (an intersection-union test)."""
    place = one.chosen.place
    controls = [one.shuffled, *([one.other] if len(one.other) else [])]
    return max(beats(one.own[:, place], control[:, place]) for control in controls)


def _texts(words: Iterator[str]) -> np.ndarray:
    return np.array(list(words), dtype=object)
