"""Beam and proof against pixel masks: scores, order, duplicates, the original's order, the optimum and its gap."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronscope.errors import InputError
from neuronscope.maths.formula_search import (
    Penalty,
    Score,
    SearchSpec,
    beam_search,
    certified,
    explain,
    explain_all,
    measure,
    prepare,
)
from neuronscope.maths.formulas import And, AndNot, Label, Or, label_numbers, length, mask, operands
from neuronscope.maths.signatures import assemble, image_signatures, mask_counts

OPERATORS = (Or, And, AndNot)


class Labelled:
    """A small labelled image set with a unit's mask, and both as pixels and as signatures."""

    def __init__(self, maps, whole, active):
        """From label maps, whole-image labels and active pixels."""
        self.maps, self.whole, self.active = maps, whole, active
        self.signatures = assemble([image_signatures(m, w) for m, w in zip(maps, whole, strict=True)])
        self.numbers = [n for n in range(1, 20) if self.label_mask(n).any()]
        self.kept = {}

    def label_mask(self, number):
        """The mask of a label: any layer, or the whole image."""
        masks = (self.maps == number).any(1)
        masks[[number in whole for whole in self.whole]] = True
        return masks

    def mask(self, formula):
        """The mask of a formula."""
        if formula not in self.kept:
            self.kept[formula] = mask(formula, self.label_mask)
        return self.kept[formula]

    def score(self, formula, score):
        """A score by its definition."""
        formula_mask, unit = self.mask(formula), self.active
        both = (formula_mask & unit).sum()
        cells = unit[0].size
        n, m = unit.sum((1, 2)), formula_mask.sum((1, 2))
        union = (formula_mask | unit).sum()
        chance = score.multiplier / cells * (n * m).sum()
        perfect = (n.sum() - score.multiplier / cells * (n**2).sum()) / max(1, n.sum())
        return {
            "iou": lambda: both / union if union else 0.0,
            "detection_accuracy": lambda: both / m.sum() if m.sum() else 0.0,
            "activation_coverage": lambda: both / n.sum() if n.sum() else 0.0,
            "imrou": lambda: (both - chance) / union if union else 0.0,
            "imrou_normalised": lambda: (both - chance) / union / perfect if union and perfect > 0 else 0.0,
        }[score.name]()


def random_set(rng, *, images=6, side=4, labels=6, layers=2, density=0.3):
    """A random labelled set whose unit follows a random formula, with noise."""
    maps = rng.integers(1, labels + 1, (images, layers, side, side))
    maps[rng.random(maps.shape) < 0.4] = 0
    whole = [rng.choice(labels, rng.integers(0, 2), replace=False) + 1 for _ in range(images)]
    whole = [[int(label) for label in some] for some in whole]
    found = Labelled(maps, whole, np.zeros((images, side, side), dtype=bool))
    chosen = rng.choice(labels, 3, replace=False) + 1
    first, second = (OPERATORS[rng.integers(3)] for _ in range(2))
    planted = mask(second(first(Label(int(chosen[0])), Label(int(chosen[1]))), Label(int(chosen[2]))), found.label_mask)
    noise = rng.random(planted.shape)
    found.active = (planted & (noise < 1 - density)) | (noise > 1 - density / 4)
    return found


# A seed, not drawn arrays: what the search can get wrong shows on whole images, not on minimal ones.
seeds = st.integers(0, 2**32 - 1)


def drawn(seed, **sizes):
    """A random set by its seed."""
    return random_set(np.random.default_rng(seed), **sizes)


def left_deep(numbers, size):
    """All left-deep formulas of a number of labels."""
    if size == 1:
        yield from (Label(n) for n in numbers)
        return
    for start in left_deep(numbers, size - 1):
        for number, operator in itertools.product(numbers, OPERATORS):
            yield operator(start, Label(number))


def operators(formula):
    """Operators in the order in which ties look at them."""
    own = (OPERATORS.index(type(formula)),) if isinstance(formula, OPERATORS) else ()
    return own + tuple(number for part in operands(formula) for number in operators(part))


def naive_beam(data, score, *, size, beam, penalty, candidates):
    """The beam search on pixel masks: every candidate's mask is built, scored and compared with those before."""

    def objective(formula):
        return data.score(formula, score) * penalty.factor(length(formula))

    def best(pool):
        found = {}
        for formula in sorted(pool, key=lambda f: (-objective(f), length(f), label_numbers(f), operators(f))):
            if objective(formula) > 0:
                found.setdefault(data.mask(formula).tobytes(), formula)
        return list(found.values())[:beam]

    singles = [Label(n) for n in data.numbers]
    terms = sorted(singles, key=lambda f: (-objective(f), f.number))[:candidates]
    kept = best(singles)
    levels = [kept]
    for _ in range(1, size):
        kept = best([*kept, *(o(f, t) for f in kept for t in terms for o in OPERATORS)])
        levels.append(kept)
    return levels


def legacy_beam(data, *, size, beam, penalty):
    """The original search, as its description says: dictionaries, insertion order, no look at duplicates."""

    def iou(formula):
        formula_mask, unit = data.mask(formula), data.active
        both = (formula_mask & unit).sum()
        return both / (formula_mask.sum() + unit.sum() - both + 1e-10)

    def most_common(scored):
        return sorted(scored, key=lambda item: item[1], reverse=True)[:beam]

    firing = data.active.any((1, 2))
    primitives = [Label(n) for n in data.numbers if data.label_mask(n)[firing].any()]
    kept = most_common([(f, iou(f)) for f in primitives if iou(f) > 0])
    levels = [kept]
    for _ in range(size - 1):
        new = []
        for formula, _ in kept:
            for number in data.numbers:
                for operator in OPERATORS:
                    made = operator(formula, Label(number))
                    new.append((made, iou(made) * penalty ** (length(made, convention="compexp") - 1)))
        kept = most_common(kept + new)
        levels.append(kept)
    return levels


NAMES = ("iou", "detection_accuracy", "activation_coverage", "imrou", "imrou_normalised")
scores = st.builds(Score, st.sampled_from(NAMES), st.sampled_from([0.0, 0.5, 0.75]))
fair = st.builds(Score, st.sampled_from(["iou", "imrou", "imrou_normalised"]), st.sampled_from([0.5, 0.75]))
penalties = st.sampled_from([Penalty(), Penalty("linear", 0.02), Penalty("geometric", 0.95)])


def counted(data):
    """The unit of a set, counted."""
    return mask_counts(data.signatures, data.active)


def brute_force(data, score, penalty, *, size=3):
    """The highest objective over all left-deep formulas of at most so many labels."""
    return max(
        data.score(formula, score) * penalty.factor(n)
        for n in range(1, size + 1)
        for formula in left_deep(data.numbers, n)
    )


@given(seeds, scores)
def test_scores_of_signatures_equal_those_of_masks(seed, score):
    """Every score of every formula of two labels is what its definition on pixels gives."""
    data = drawn(seed)
    counts = counted(data)
    for formula in left_deep(data.numbers, 2):
        found = score.of(measure(formula, data.signatures, counts), counts)
        assert found == pytest.approx(data.score(formula, score), abs=1e-12)


@settings(max_examples=25)
@given(seeds, fair, penalties, st.integers(1, 4), st.sampled_from([None, 3]))
def test_beam_equals_the_beam_on_masks(seed, score, penalty, beam, candidates):
    """Formula for formula, at every length, with ties, duplicates, penalties and a candidate limit."""
    data = drawn(seed)
    spec = SearchSpec(score=score, penalty=penalty, length=4, beam=beam, candidates=candidates, top=beam)
    found = beam_search(prepare(data.signatures), counted(data), spec)
    levels = naive_beam(data, score, size=4, beam=beam, penalty=penalty, candidates=candidates)
    assert [one.objective if one else 0 for one in found.best] == pytest.approx(
        [data.score(kept[0], score) * penalty.factor(length(kept[0])) if kept else 0 for kept in levels]
    )
    if score.name == "iou":  # the others' twins round differently, so their ties may fall otherwise
        assert [one.formula for one in found.top] == levels[-1]
    for one in found.top:
        assert one.score == pytest.approx(data.score(one.formula, score))
        assert one.area == data.mask(one.formula).sum()


@settings(max_examples=25)
@given(seeds, st.integers(1, 5), st.sampled_from([1.0, 0.97]))
def test_legacy_order_equals_the_original(seed, beam, rate):
    """The final beam is the original's formula for formula, duplicates included."""
    data = drawn(seed)
    spec = SearchSpec(length=3, beam=beam, top=beam, legacy="compexp", penalty=Penalty("geometric", rate))
    found = beam_search(prepare(data.signatures), counted(data), spec)
    levels = legacy_beam(data, size=3, beam=beam, penalty=rate)
    assert [one.formula for one in found.top] == [formula for formula, _ in levels[-1]]
    assert [one and one.formula for one in found.best] == [kept[0][0] if kept else None for kept in levels]


@settings(max_examples=15)
@given(seeds, scores, penalties)
def test_optimum_equals_brute_force(seed, score, penalty):
    """The certified formula is as good as the best of all left-deep formulas, for each length up to three."""
    data = drawn(seed)
    spec = SearchSpec(score=score, penalty=penalty, certify="optimum")
    best, certificate = certified(prepare(data.signatures), counted(data), spec)
    assert certificate.optimal
    assert certificate.gap == 0
    for size, one in enumerate(best, start=1):
        assert (one.objective if one else 0.0) == pytest.approx(
            max(0.0, brute_force(data, score, penalty, size=size)), abs=1e-9
        )


@pytest.mark.parametrize("seed", range(4))
def test_optimum_of_twelve_labels(seed):
    """The same on sets of 12 labels, 20 images of 8x8, three layers."""
    data = random_set(np.random.default_rng(seed), images=20, side=8, labels=12, layers=3, density=0.5)
    best, certificate = certified(prepare(data.signatures), counted(data), SearchSpec(certify="optimum"))
    assert certificate.optimal
    # Masks as words: 15,876 formulas on 1,280 pixels.
    packed = {n: data.label_mask(n).reshape(-1) for n in data.numbers}
    unit, highest = data.active.reshape(-1), 0.0
    for formula in left_deep(data.numbers, 2):
        first = packed[formula.left.number], packed[formula.right.number]
        start = {Or: first[0] | first[1], And: first[0] & first[1], AndNot: first[0] & ~first[1]}[type(formula)]
        for c in packed.values():
            for made in (start | c, start & c, start & ~c):
                highest = max(highest, (made & unit).sum() / (made | unit).sum())
    assert best[-1].score == pytest.approx(highest, abs=1e-12)


def fast_brute_force(data, score, penalty):
    """The highest objectives of at most one, two and three labels, on rows of signatures instead of masks."""
    images, counts = data.signatures, counted(data)
    carries = np.stack([np.isin(np.arange(len(images)), images.signatures_of(n)) for n in data.numbers])
    form = score.form(counts)

    def highest(rows, size):
        sums = (rows @ one.astype(np.float64) for one in (images.weight, counts.active, counts.chance))
        return form.value(*sums).max(initial=0.0) * penalty.factor(size)

    def extended(rows, one):
        return np.concatenate([rows | one, rows & one, rows & ~one])

    pairs = np.concatenate([extended(carries, one) for one in carries])
    found = [highest(carries, 1), highest(pairs, 2), max(highest(extended(pairs, one), 3) for one in carries)]
    return np.maximum.accumulate(found)


@pytest.mark.parametrize("start", range(0, 240, 40))
def test_optimum_of_many_small_sets(start):
    """Bounds, finds and restarts of the proof on sets of all shapes, from nothing known and from the beam."""
    for seed in range(start, start + 40):
        rng = np.random.default_rng(seed)
        shape = {"images": rng.integers(1, 10), "side": rng.integers(2, 7), "layers": rng.integers(1, 5)}
        data = random_set(rng, labels=int(rng.integers(3, 10)), density=rng.choice([0.3, 0.6, 0.95]), **shape)
        score = Score(NAMES[seed % len(NAMES)], float(rng.choice([0.25, 0.75, 1.0])))
        penalty = (Penalty(), Penalty("linear", 0.02), Penalty("geometric", 0.99))[seed % 3]
        tables, counts = prepare(data.signatures), counted(data)
        spec = SearchSpec(score=score, penalty=penalty)
        expected = fast_brute_force(data, score, penalty)
        for known in ((), beam_search(tables, counts, spec).best):
            best, certificate = certified(tables, counts, spec, start=known)
            assert certificate.optimal
            assert [one.objective if one else 0.0 for one in best] == pytest.approx(expected, abs=1e-9)
        hasty, certificate = certified(tables, counts, spec, seconds=0.0)
        assert (hasty[-1].objective if hasty[-1] else 0.0) + certificate.gap >= expected[-1] - 2e-9


@pytest.mark.parametrize("seed", [4524, 5238, 6398, 7856, 8157, 9162])
def test_a_find_does_not_end_what_was_begun(seed):
    """A formula found in the middle of a step does not hide a better one of the same step, in sets where it could."""
    data = random_set(np.random.default_rng(seed), images=8, side=5, labels=9, layers=4, density=0.95)
    best, _ = certified(prepare(data.signatures), counted(data), SearchSpec())
    assert best[-1].objective == pytest.approx(fast_brute_force(data, Score(), Penalty())[-1], abs=1e-12)


@pytest.mark.parametrize("name", ["iou", "imrou_normalised"])
def test_planted_formulas_are_recovered(name):
    """A unit that is a formula, pixel by pixel, gets that formula's mask and IoU 1; three labels, any operators."""
    rng = np.random.default_rng(3)
    data = random_set(rng, images=12, side=6, labels=8, layers=3)
    tables = prepare(data.signatures)
    for first in (Or, And, AndNot):
        for second in (Or, And, AndNot):
            planted = second(first(Label(1), Label(2)), Label(3))
            data.active = data.mask(planted)
            spec = SearchSpec(score=Score(name), certify="optimum", length=4)
            found = explain(tables, counted(data), spec)
            assert found.certificate.optimal
            assert found.choice is not None
            assert found.choice.length <= 3
            if name == "iou":
                assert np.array_equal(data.mask(found.choice.formula), data.active)


def test_pairs_reach_what_single_labels_do_not():
    """`Y OR (X AND Z)` is found although neither X nor Z nor X AND Z is worth keeping."""
    rng = np.random.default_rng(0)
    data = random_set(rng, images=12, side=6, labels=8, layers=3)
    data.active = data.mask(Or(Label(1), And(Label(2), Label(3))))
    tables, counts = prepare(data.signatures), counted(data)
    plain, pairs = (beam_search(tables, counts, SearchSpec(beam=1, terms=terms)) for terms in ("labels", "pairs"))
    assert plain.best[-1].score < 1
    assert pairs.best[-1].score == 1
    assert pairs.best[-1].length == 3


@settings(max_examples=20)
@given(seeds, fair)
def test_out_of_time_leaves_a_true_gap(seed, score):
    """Without time the gap bounds what the optimum could still add, and is 0 exactly where the proof was finished."""
    data = drawn(seed, labels=9, layers=3, images=8)
    tables, counts = prepare(data.signatures), counted(data)
    spec = SearchSpec(score=score, certify="optimum")
    exact, _ = certified(tables, counts, spec)
    hasty, certificate = certified(tables, counts, spec, seconds=0.0)
    best, known = (one[-1].objective if one[-1] else 0.0 for one in (exact, hasty))
    assert (certificate.gap == 0) == certificate.optimal
    assert (certificate.left > 0) != certificate.optimal
    assert known <= best + 1e-12 <= known + certificate.gap + 2e-9


def test_longer_formulas_start_from_the_optimum():
    """With a proof, no length is worse than without, and length never lowers the objective."""
    for seed in range(6):
        data = random_set(np.random.default_rng(seed), images=8, labels=9, layers=3)
        tables, counts = prepare(data.signatures), counted(data)
        spec = SearchSpec(length=6, beam=2)
        plain = explain(tables, counts, spec)
        found = explain(tables, counts, SearchSpec(length=6, beam=2, certify="optimum"))
        objectives = [one.objective for one in found.best]
        assert objectives == sorted(objectives)
        assert all(a.objective >= b.objective - 1e-12 for a, b in zip(found.best[:3], plain.best[:3], strict=True))


def test_a_dead_unit_has_no_formula():
    """A unit that never fires is explained by nothing, and that is proved."""
    data = random_set(np.random.default_rng(1))
    data.active[:] = False
    found = explain(prepare(data.signatures), counted(data), SearchSpec(certify="optimum", length=4))
    assert found.best == (None, None, None, None)
    assert found.top == ()
    assert found.choice is None
    assert found.certificate.optimal
    legacy = explain(prepare(data.signatures), counted(data), SearchSpec(legacy="compexp"))
    assert legacy.choice is None


def test_minimum_gain_stops_padding():
    """A longer formula is chosen only if every label more is worth it."""
    data = random_set(np.random.default_rng(5), labels=8, layers=3)
    tables, counts = prepare(data.signatures), counted(data)
    greedy = explain(tables, counts, SearchSpec(length=5))
    strict = explain(tables, counts, SearchSpec(length=5, minimum_gain=1.0))
    assert greedy.choice.objective == greedy.best[-1].objective
    assert strict.choice == strict.best[0]


def test_units_are_explained_in_order():
    """The driver over a list is the function for one unit, unit by unit."""
    data = random_set(np.random.default_rng(2))
    counts = counted(data)
    dead = mask_counts(data.signatures, np.zeros_like(data.active))
    tables, spec = prepare(data.signatures), SearchSpec()
    assert explain_all(tables, [dead, counts], spec) == [explain(tables, one, spec) for one in (dead, counts)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"length": 0},
        {"beam": 0},
        {"top": 0},
        {"candidates": 0},
        {"legacy": "compexp", "terms": "pairs"},
        {"certify": "optimum", "candidates": 5},
    ],
)
def test_impossible_settings_are_refused(wrong):
    """Settings that contradict each other or count nothing are refused when they are made."""
    with pytest.raises(InputError):
        SearchSpec(**wrong)


def test_counts_of_another_set_are_refused():
    """A unit counted over other images cannot be searched."""
    first, second = (random_set(np.random.default_rng(seed), labels=seed + 4) for seed in (0, 3))
    with pytest.raises(InputError, match="signatures"):
        beam_search(prepare(first.signatures), counted(second), SearchSpec())


@pytest.mark.parametrize(("kind", "rate"), [(Penalty, 1.5), (Score, 2.0)])
def test_rates_outside_their_range_are_refused(kind, rate):
    """A penalty or a multiplier outside 0 to 1 is refused."""
    with pytest.raises(InputError, match="outside 0 to 1"):
        kind(**{"rate" if kind is Penalty else "multiplier": rate})
