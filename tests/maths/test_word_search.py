"""The search over cells against searches on boolean masks, the signature search, planted formulas and single rules."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronscope.errors import InputError
from neuronscope.maths.cells import FULL, expanded, from_words, label_words, to_words
from neuronscope.maths.formula_search import Measure, Penalty, Score, SearchSpec, beam_search, prepare
from neuronscope.maths.formulas import (
    And,
    AndNot,
    Close,
    CloseTo,
    Expanded,
    Label,
    Or,
    With,
    key,
    label_numbers,
    leaves,
    length,
    mask,
    operands,
)
from neuronscope.maths.signatures import UnitCounts, assemble, image_signatures, mask_counts
from neuronscope.maths.word_search import (
    INDRES,
    OPERATORS,
    Start,
    UnitWords,
    WordSearchSpec,
    concept_words,
    expected_bytes,
    explain_words,
    firing_images,
    firing_only,
    start_after,
    unit_words,
    words_of,
)

KINDS = (Or, And, AndNot, With, Close, CloseTo, Label, Expanded)
BOOLEAN = ("or", "and", "and-not")
SCORES = ("iou", "detection_accuracy", "activation_coverage", "imrou", "imrou_normalised")
seeds = st.integers(0, 2**32 - 1)
scores = st.builds(Score, st.sampled_from(SCORES), st.sampled_from([0.0, 0.5, 0.75]))


class Cells:
    """A small labelled set of cells with a unit: boolean masks, and the same as words."""

    def __init__(self, masks, maps, threshold=0.5):
        """From masks by label number (n, 7, 7) and the unit's activations."""
        self.masks, self.maps = masks, maps
        self.images = len(maps)
        self.unit = unit_words(maps, above=threshold, keep=True)
        self.kept = {}
        rows = ({number: to_words(one[image]) for number, one in masks.items()} for image in range(self.images))
        self.concepts = concept_words(
            (np.array([n for n in row if row[n]], dtype=np.int64), np.array([w for w in row.values() if w], np.uint64))
            for row in rows
        )

    @property
    def scenes(self):
        """Labels that cover every image wholly or not at all."""
        return {n for n, one in self.masks.items() if (one.all((1, 2)) | ~one.any((1, 2))).all()}

    def primitives(self):
        """Labels, then expanded copies of those that are no scenes."""
        there = [n for n in sorted(self.masks) if self.masks[n].any()]
        return [Label(n) for n in there] + [Expanded(n) for n in there if n not in self.scenes]

    def mask(self, formula):
        """The mask of a formula, by the definitions."""
        if formula not in self.kept:
            self.kept[formula] = mask(formula, self.masks.__getitem__)
        return self.kept[formula]

    def score(self, formula, score, *, threshold=0.5, images=None, epsilon=0.0):
        """A score with the arithmetic of the package, from counts of masks."""
        active, found = (self.maps > threshold)[:images], self.mask(formula)[:images]
        n, area = active.sum((1, 2)), found.sum((1, 2))
        counts = UnitCounts(n.sum(keepdims=True), n, np.zeros(1), float((n**2).sum()), 49)
        measure = Measure(float(area.sum()), float((active & found).sum()), float((n * area).sum()))
        if not epsilon:
            return score.of(measure, counts)
        form = score.form(counts)
        above = measure.intersection + form.chance_share * measure.chance
        below = form.constant + form.per_area * measure.area + form.per_intersection * measure.intersection
        return form.factor * above / (below + epsilon)


def random_cells(seed, *, images=5, labels=3, density=0.3):
    """Rectangles of labels, one label of whole images, and a unit that follows two of them with noise."""
    rng = np.random.default_rng(seed)

    def rectangles():
        found = np.zeros((images, 7, 7), dtype=bool)
        for image in found:
            if rng.random() < 0.7:
                y, x, h, w = rng.integers(0, 5, 4)
                image[y : y + h + 1, x : x + w + 1] = True
        return found

    masks = {2 * n + 1: rectangles() for n in range(labels)}
    scene = np.zeros((images, 7, 7), dtype=bool)
    scene[rng.random(images) < 0.5] = True
    masks[4] = scene
    chosen = [masks[2 * int(n) + 1] for n in rng.integers(0, labels, 2)]
    maps = 0.8 * chosen[0] + 0.5 * chosen[1] * rng.choice([1, -1]) + density * rng.normal(size=scene.shape)
    return Cells(masks, maps.astype(np.float32))


# The slow twin: every rule as a plain function of one formula and one label.


def related(formula, left, right):
    """The same relation between other parts."""
    return CloseTo(left, (right,)) if isinstance(formula, CloseTo) else type(formula)(left, right)


def chain(formula, kind):
    """Operands of a chain."""
    return [x for part in operands(formula) for x in chain(part, kind)] if isinstance(formula, kind) else [formula]


def says_nothing(part, kind, label):
    """Whether the label is the part itself or stands in its chain."""
    there = [part] + (chain(part, kind) if kind in (Or, And) else [])
    return any(isinstance(one, Label | Expanded) and one.number == label.number for one in there)


def moves(formula, label, operator, scenes):  # noqa: C901 the rules as the text lists them
    """All formulas that an operator makes of a formula and a label, in order."""
    scene = label.number in scenes
    if operator in BOOLEAN:
        kind = {"or": Or, "and": And, "and-not": AndNot}[operator]
        if not says_nothing(formula, kind, label):
            yield kind(formula, label)
        relation = isinstance(formula, With | Close) or (isinstance(formula, CloseTo) and len(formula.rights) == 1)
        if relation and kind is not And:
            left, right = operands(formula)
            if not says_nothing(left, kind, label):
                yield related(formula, kind(left, label), right)
            if not says_nothing(right, kind, label):
                yield related(formula, left, kind(right, label))
    elif operator == "with":
        if not scene and not says_nothing(formula, With, label):
            yield With(formula, label)
    elif isinstance(formula, CloseTo):
        if all(isinstance(right, Label | Expanded) for right in formula.rights) and not scene:
            yield CloseTo(formula.left, (*formula.rights, label))
    elif not isinstance(formula, Close) and not says_nothing(formula, Close, label):
        if not scene:
            yield Close(formula, label)
            yield CloseTo(formula, (label,))
        yield CloseTo(label, (formula,))


def shape(formula):
    """Kinds of the parts, from the top."""
    return (KINDS.index(type(formula)), *(k for part in operands(formula) for k in shape(part)))


def code(formula):
    """The canonical form without expansion."""

    def plain(one):
        if isinstance(one, Label | Expanded):
            return Label(one.number)
        left, *rights = (plain(part) for part in operands(one))
        return CloseTo(left, tuple(rights)) if isinstance(one, CloseTo) else type(one)(left, *rights)

    return key(plain(formula))


def climb(score, start, step):
    """The naive hill climb of one formula's threshold."""
    at, best = start, score(start)
    for sign in (1, -1):
        steps = 1
        while score(round(start + sign * steps * step, 9)) > best + 1e-4:
            at = round(start + sign * steps * step, 9)
            best, steps = score(at), steps + 1
        if at != start:
            break
    return best, at


class Twin:
    """The search, formula by formula, on boolean masks."""

    def __init__(self, data, spec):
        """Of a labelled set."""
        self.data, self.spec = data, spec
        self.legacy = spec.legacy == "indres"
        self.epsilon = 1e-10 if self.legacy else 0.0
        self.terms = data.primitives() if spec.expansions else [p for p in data.primitives() if isinstance(p, Label)]

    def valued(self, formula, threshold, *, climbs=True):
        """Objective and threshold."""
        size = length(formula)

        def score(at):
            return self.data.score(formula, self.spec.score, threshold=at, epsilon=self.epsilon)

        best, at = score(threshold), threshold
        if climbs and self.spec.thresholds == "dynamic":
            best, at = climb(score, threshold, self.spec.threshold_step)
        return best * self.spec.penalty.factor(size), at

    def covers(self, formula):
        """Whether it covers enough."""
        return self.data.mask(formula).sum() >= self.spec.least_coverage * 49 * self.data.images

    def fails_at_first(self, formula, threshold, worst):
        """The early test."""
        if not self.spec.abort_images or not isinstance(formula, Close | CloseTo):
            return False
        images = self.spec.abort_images
        score = self.data.score(formula, self.spec.score, threshold=threshold, images=images, epsilon=self.epsilon)
        return score < self.spec.abort_share * worst

    def extensions(self, beam, terms, seen):
        """Formulas of one label more, with the objective and the threshold, in order."""
        worst = min(objective for _, objective, _ in beam) if len(beam) >= self.spec.beam else 0.0
        immediately = self.spec.threshold_update == "immediately"
        for formula, _, threshold in beam:
            for term in terms:
                for operator in OPERATORS:
                    if operator not in self.spec.operators:
                        continue
                    for made in moves(formula, term, operator, self.data.scenes):
                        new = not self.legacy or key(made) not in seen
                        seen.add(key(made))
                        if new and self.covers(made) and not self.fails_at_first(made, threshold, worst):
                            yield (made, *self.valued(made, threshold, climbs=immediately))

    def distinct(self, pool):
        """The best, by objective, length, labels and shape, with distinct masks."""
        found = {}
        for one in sorted(pool, key=lambda o: (-o[1], length(o[0]), label_numbers(o[0]), shape(o[0]))):
            if one[1] > 0 and self.covers(one[0]):
                found.setdefault(self.data.mask(one[0]).tobytes(), one)
        return list(found.values())[: max(self.spec.beam, self.spec.top)]

    def originals(self, pool):
        """The best in their order, none twice but for expansion."""
        found = {}
        for one in sorted(pool, key=lambda o: -o[1]):
            plain = code(one[0])
            if one[1] > 0 and len(found) < self.spec.beam:
                found.setdefault(plain, one)
        return list(found.values())

    def finished(self, kept):
        """With thresholds moved at the end, where they are."""
        if self.spec.threshold_update == "immediately" or self.spec.thresholds == "static":
            return kept
        done = [(f, *self.valued(f, at)) if f not in self.tuned else self.tuned[f] for f, _, at in kept]
        self.tuned.update({one[0]: one for one in done})
        if self.legacy:
            return sorted(done, key=lambda one: -one[1])
        return sorted(done, key=lambda o: (-o[1], length(o[0]), label_numbers(o[0]), shape(o[0])))

    def levels(self):
        """The beam at each length."""
        self.tuned = {}
        pick = self.originals if self.legacy else self.distinct
        immediately = self.spec.threshold_update == "immediately"
        singles = [(term, *self.valued(term, 0.5, climbs=immediately)) for term in self.terms]
        ranked = sorted((one for one in singles if one[1] > 0 or not self.legacy), key=lambda one: -one[1])
        terms = [one[0] for one in ranked[: self.spec.candidates]]
        beam = self.finished(pick(singles))
        found, seen = [beam], set()
        for _ in range(1, self.spec.length):
            new = list(self.extensions(beam[: self.spec.beam], terms, seen))
            beam = self.finished(pick([*beam, *new]))
            found.append(beam)
        return found


def assert_same(data, spec, *, formulas=True):
    """The search finds what its twin finds: the same formulas, objectives and thresholds, at every length."""
    found = explain_words(data.concepts, data.unit, spec)
    levels = Twin(data, spec).levels()
    for beam, expected in zip(found.beams, levels, strict=True):
        assert [one.objective for one in beam] == pytest.approx([objective for _, objective, _ in expected], abs=1e-12)
        if formulas:
            assert [one.formula for one in beam] == [formula for formula, _, _ in expected]
            assert [one.threshold for one in beam] == pytest.approx([at for _, _, at in expected])
        for one in beam:
            assert one.area == data.mask(one.formula).sum()
            assert one.score * spec.penalty.factor(one.length) == one.objective
    return found


@pytest.mark.parametrize("operators", [OPERATORS, ("or",), ("with", "close"), ("and", "close"), ("and-not", "with")])
@pytest.mark.parametrize("seed", range(2))
def test_every_operator_set_equals_the_twin(seed, operators):
    """The default search is the plain one on boolean masks, whatever operators it has."""
    assert_same(random_cells(seed), WordSearchSpec(operators=operators, length=3, beam=3))


@settings(max_examples=10)
@given(seeds, scores, st.integers(1, 4), st.sampled_from([None, 3]), st.booleans(), st.sampled_from([0.0, 0.02]))
def test_default_search_equals_the_twin(  # noqa: PLR0917 one argument for each setting
    seed, score, beam, candidates, expansions, least
):
    """With every score, beam, limit and coverage, at every length."""
    data = random_cells(seed)
    spec = WordSearchSpec(
        score=score,
        beam=beam,
        candidates=candidates,
        expansions=expansions,
        least_coverage=least,
        penalty=Penalty("linear", 0.01),
        top=2,
    )
    assert_same(data, spec)


@settings(max_examples=10)
@given(
    seeds, scores, st.integers(1, 4), st.sampled_from([None, 4]), st.sampled_from([0, 3]), st.sampled_from([0, 0.03])
)
def test_legacy_search_equals_the_twin(  # noqa: PLR0917 one argument for each setting
    seed, score, beam, candidates, first, least
):
    """The original's order, candidate limit, coverage cut and early abort, formula by formula."""
    data = random_cells(seed)
    spec = replace(INDRES, score=score, beam=beam, candidates=candidates, abort_images=first, least_coverage=least)
    assert_same(data, spec)


@pytest.mark.parametrize("seed", range(3))
def test_four_labels_reach_every_rewriting(seed):
    """Relations of compound parts, and lists of CLOSE TO, at four labels."""
    data = random_cells(seed, labels=2, images=4)
    found = assert_same(data, WordSearchSpec(length=4, beam=8, operators=("or", "and-not", "with", "close")))
    assert len(found.beams[-1]) == 8


@settings(max_examples=5)
@given(seeds, st.sampled_from(["immediately", "after"]), st.sampled_from(["none", "indres"]))
def test_dynamic_thresholds_equal_a_naive_climb(seed, update, legacy):
    """Every formula's threshold climbs as a loop over single formulas has it."""
    data = random_cells(seed, labels=2)
    spec = WordSearchSpec(
        beam=2, thresholds="dynamic", threshold_update=update, legacy=legacy, penalty=Penalty("linear", 0.001)
    )
    found = assert_same(data, spec)
    assert any(one.threshold != 0.5 for beam in found.beams for one in beam) or len(found.beams[-1]) < 3


@settings(max_examples=10)
@given(seeds, scores)
def test_scores_are_those_of_the_definitions(seed, score):
    """Every score of what is found follows from the masks by the formulas of the papers."""
    data = random_cells(seed)
    unit = data.maps > 0.5
    found = explain_words(data.concepts, data.unit, WordSearchSpec(score=score, length=2, top=4))
    n, share = unit.sum((1, 2)), score.multiplier / 49
    for one in found.top:
        formula = data.mask(one.formula)
        both, union = (formula & unit).sum(), (formula | unit).sum()
        chance = share * (n * formula.sum((1, 2))).sum()
        perfect = (n.sum() - share * (n**2).sum()) / n.sum()
        expected = {
            "iou": both / union,
            "detection_accuracy": both / formula.sum(),
            "activation_coverage": both / n.sum(),
            "imrou": (both - chance) / union,
            "imrou_normalised": (both - chance) / union / perfect if perfect else 0.0,
        }
        assert one.score == pytest.approx(expected[score.name])
        assert one.intersection == both


@settings(max_examples=20)
@given(
    seeds, scores, st.integers(1, 4), st.sampled_from([None, 3]), st.sampled_from([BOOLEAN, ("or",), ("and-not", "or")])
)
def test_boolean_operators_equal_the_signature_search(seed, score, beam, candidates, operators):
    """With OR, AND and AND NOT, formulas and scores are those of a search over signatures of the same cells."""
    data = random_cells(seed)
    maps = np.stack([number * one.astype(np.int64) for number, one in sorted(data.masks.items())], axis=1)
    signatures = assemble([image_signatures(one) for one in maps])
    common = {"score": score, "beam": beam, "candidates": candidates, "length": 4, "operators": operators}
    counts = mask_counts(signatures, data.maps > 0.5)
    expected = beam_search(prepare(signatures), counts, SearchSpec(**common, top=beam))
    found = explain_words(data.concepts, data.unit, WordSearchSpec(**common, top=beam, expansions=False))
    for one, other in zip(found.top, expected.top, strict=True):
        assert (one.formula, one.area, one.intersection) == (other.formula, other.area, other.intersection)
        assert one.score == pytest.approx(other.score, abs=1e-12)
    assert [one and one.objective for one in found.best] == pytest.approx([o and o.objective for o in expected.best])


@settings(max_examples=10)
@given(seeds, st.sampled_from([("or",), ("and-not",), ("or", "and"), ("and", "and-not")]))
def test_the_order_of_compexp_with_fewer_operators(seed, operators):
    """The signature search in the original's order keeps to the operators; what it finds scores what the twin says."""
    data = random_cells(seed)
    maps = np.stack([number * one.astype(np.int64) for number, one in sorted(data.masks.items())], axis=1)
    signatures = assemble([image_signatures(one) for one in maps])
    spec = SearchSpec(legacy="compexp", operators=operators, top=5)
    found = beam_search(prepare(signatures), mask_counts(signatures, data.maps > 0.5), spec)
    allowed = {{"or": Or, "and": And, "and-not": AndNot}[name] for name in operators}
    for one in found.top:
        kinds = {type(one.formula), *(type(part) for part in operands(one.formula))} - {Label}
        assert kinds <= allowed
        assert one.score == pytest.approx(data.score(one.formula, Score()))


@pytest.mark.parametrize(
    "wrong",
    [{"operators": ()}, {"operators": ("or", "or")}, {"certify": "optimum"}, {"terms": "pairs"}],
)
def test_the_signature_search_refuses_what_fewer_operators_cannot_do(wrong):
    """Proofs and pairs are about all three Boolean operators."""
    with pytest.raises(InputError):
        SearchSpec(**{"operators": ("or", "and"), **wrong})


PLANTED = [
    With(Label(1), Label(3)),
    Close(Label(1), Label(3)),
    CloseTo(Label(1), (Label(3),)),
    CloseTo(Label(1), (Label(3), Label(5))),
    Expanded(1),
    With(Expanded(3), Label(5)),
    With(Or(Label(1), Label(3)), Label(5)),
    With(Label(1), AndNot(Label(3), Label(5))),
    CloseTo(Or(Label(1), Label(3)), (Label(5),)),
    CloseTo(Label(1), (Or(Label(3), Label(5)),)),
    Close(Label(1), Or(Label(3), Label(5))),
    AndNot(Close(Label(1), Label(3)), Expanded(5)),
]


@pytest.mark.parametrize("planted", PLANTED, ids=str)
def test_planted_formulas_are_recovered(planted):
    """A unit that is a formula of WITH, CLOSE, CLOSE TO or expansion gets exactly its mask, in no more labels."""
    data = random_cells(11, images=40, labels=4)
    unit = UnitWords(words_of(planted, data.concepts))
    assert unit.words.any()
    found = explain_words(data.concepts, unit, WordSearchSpec(beam=12))
    assert found.choice.score == 1
    assert found.choice.length <= length(planted)
    assert (words_of(found.choice.formula, data.concepts) == unit.words).all()


formulas = st.recursive(
    st.builds(Label, st.sampled_from([1, 3, 4, 5, 99])) | st.builds(Expanded, st.sampled_from([1, 3, 5])),
    lambda part: st.one_of(
        *(st.builds(kind, part, part) for kind in (Or, And, AndNot, With, Close)),
        st.builds(CloseTo, part, st.lists(part, min_size=1, max_size=2).map(tuple)),
    ),
    max_leaves=5,
)


@given(seeds, formulas)
def test_words_of_equals_masks(seed, formula):
    """The words of any formula are its mask; labels that do not occur are empty."""
    data = random_cells(seed)
    empty = np.zeros((data.images, 7, 7), dtype=bool)
    expected = mask(formula, lambda number: data.masks.get(number, empty))
    assert (from_words(words_of(formula, data.concepts)) == expected).all()


@given(seeds, st.permutations(range(5)), st.integers(1, 5))
def test_parts_are_the_same_images(seed, order, size):
    """A part has the words of its images in their order, expanded copies and neighbourhoods included."""
    data = random_cells(seed)
    rows = np.array(order[:size])
    part = data.concepts.part(rows)
    assert (part.words == data.concepts.words[:, rows]).all()
    assert (part.expanded == expanded(part.words)).all()
    assert (part.whole == data.concepts.whole).all()
    assert (np.diff(part.start) >= 0).all()
    formula = CloseTo(Expanded(1), (Label(3),))
    assert (words_of(formula, part) == words_of(formula, data.concepts)[rows]).all()


def test_concepts_are_put_together_from_label_words():
    """Words of images stand at their label and image; labels of whole images are known as such."""
    maps = np.zeros((2, 1, 14, 14), dtype=np.int64)
    maps[0, 0, :2, :2], maps[1, 0, 2:6, :4] = 5, 9
    images = [label_words(one, whole=np.array([7]), threshold=4) for one in maps]
    concepts = concept_words(images)
    assert concepts.numbers.tolist() == [5, 7, 9]
    assert concepts.whole.tolist() == [False, True, False]
    assert concepts.words.tolist() == [[1, 0], [int(FULL)] * 2, [0, 3 << 7 | 3 << 14]]
    assert len(concepts) == 3
    assert concepts.nbytes >= 4 * 12
    assert concept_words(images, expansion=0).expanded is None
    assert expected_bytes(images=2, per_image=2) > 0


def test_no_images_and_dead_units_have_no_formula():
    """Nothing is found where there is nothing to find, in both modes."""
    data = random_cells(0)
    dead = UnitWords(np.zeros(data.images, np.uint64))
    for spec in (WordSearchSpec(), INDRES):
        found = explain_words(data.concepts, dead, spec)
        assert found.best == (None, None, None)
        assert found.choice is None
        nothing = explain_words(concept_words([]), UnitWords(np.zeros(0, np.uint64)), spec)
        assert nothing.top == ()


# The original's rules, one by one.


def found_by(masks, unit, **changes):
    """All formulas in the beams of the original search, on one or more images."""
    data = Cells(masks, unit.astype(np.float32))
    spec = replace(INDRES, **{"beam": 30, "abort_images": 0, "least_coverage": 0.0, "score": Score("iou"), **changes})
    found = explain_words(data.concepts, data.unit, spec)
    return [[one.formula for one in beam] for beam in found.beams]


def picture(*cells, images=1):
    """Masks with some cells on, in the first image."""
    found = np.zeros((images, 7, 7), dtype=bool)
    for cell in cells:
        found[0][cell] = True
    return found


SKY, SEA, TREE = (
    picture((slice(0, 3), slice(None)), images=2),
    picture((slice(2, 5), slice(None)), images=2),
    picture((slice(None), slice(2, 4)), images=2),
)
BEACH = np.ones((2, 7, 7), dtype=bool)
BEACH[1] = False
UNIT = picture((slice(1, 4), slice(1, 5)), images=2)
NAMES = {1: SKY, 2: SEA, 3: TREE, 4: BEACH}


def test_first_beam_holds_no_label_beside_its_copy():
    """Of a label and its expanded copy, the better one alone is in the first beam."""
    first, *_ = found_by(NAMES, UNIT)
    assert len(first) == 4
    assert len({leaf.number for leaf in first}) == 4


def test_scenes_are_not_expanded():
    """There is no expanded copy of a label of whole images."""
    for beam in found_by(NAMES, UNIT, beam=300):
        assert Expanded(4) not in {leaf for formula in beam for leaf in leaves(formula)}


def test_a_label_is_not_combined_with_itself():
    """Neither with itself nor with its expanded copy, by any operator."""
    _, second, _ = found_by({1: SKY}, UNIT)
    assert second == found_by({1: SKY}, UNIT)[0]


def test_a_chain_holds_no_label_twice():
    """A label, or its copy, is not appended to a chain of OR or AND that has it."""
    for beam in found_by(NAMES, UNIT, beam=200, length=3, operators=("or", "and")):
        for formula in beam:
            if isinstance(formula, Or | And):
                direct = [x.number for x in chain(formula, type(formula)) if isinstance(x, Label | Expanded)]
                assert len(direct) == len(set(direct))


def test_a_chain_inside_a_relation_holds_no_label_twice():
    """The rule about chains holds inside WITH and CLOSE, too."""
    for beam in found_by(NAMES, UNIT, beam=400, length=4, operators=("or", "with")):
        for formula in beam:
            for part in operands(formula):
                direct = [x.number for x in chain(part, Or) if isinstance(x, Label | Expanded)]
                assert len(direct) == len(set(direct))


def test_scenes_stand_behind_no_with_and_no_close():
    """WITH a scene, CLOSE and CLOSE TO a scene, and a scene appended to CLOSE TO are left out; scenes stand before."""
    found = [formula for beam in found_by(NAMES, UNIT, beam=500) for formula in beam]
    for formula in found:
        match formula:
            case With(_, right) | Close(_, right):
                assert right != Label(4)
            case CloseTo(_, rights):  # the first stands there as the F of `P CLOSE TO F`
                assert Label(4) not in rights[1:]
            case _:
                pass
    assert any(isinstance(one, CloseTo) and one.left == Label(4) for one in found)


def test_close_appends_to_close_to_and_leaves_close_alone():
    """CLOSE TO gets another right operand; CLOSE is part of nothing that CLOSE makes."""
    found = [formula for beam in found_by(NAMES, UNIT, beam=500, operators=("close",)) for formula in beam]
    assert any(isinstance(one, CloseTo) and len(one.rights) == 2 for one in found)
    for one in found:
        assert not any(isinstance(part, Close | CloseTo) for part in operands(one))


def test_relations_are_changed_inside():
    """OR and AND NOT go inside WITH, CLOSE and CLOSE TO, left and right; AND only outside."""
    found = {formula for beam in found_by(NAMES, UNIT, beam=700) for formula in beam}
    inner = {(type(one), place, type(p)) for one in found for place, p in enumerate(operands(one))}
    for relation in (With, Close, CloseTo):
        for kind in (Or, AndNot):
            assert (relation, 1, kind) in inner
    made_of_and = [one for one in found if isinstance(one, With | CloseTo) and isinstance(operands(one)[1], And)]
    assert all(isinstance(one, CloseTo) and isinstance(one.left, Label | Expanded) for one in made_of_and)


def test_the_beam_holds_no_two_formulas_that_differ_in_expansion_alone():
    """Of formulas that are the same without expansion, the best one alone is kept."""
    for beam in found_by(NAMES, UNIT, beam=40):
        plain = [code(one) for one in beam]
        assert len(plain) == len(set(plain))


def test_formulas_that_cover_too_little_are_left_out():
    """Below the least coverage no formula of several labels is kept; labels are."""
    first, *rest = found_by(NAMES, UNIT, beam=100, least_coverage=0.3)
    data = Cells(NAMES, UNIT.astype(np.float32))
    assert any(data.mask(one).mean() < 0.3 for one in first)
    longer = [one for beam in rest for one in beam if length(one) > 1]
    assert longer
    assert all(data.mask(one).mean() >= 0.3 for one in longer)


def test_close_formulas_are_left_out_when_the_first_images_speak_against_them():
    """The early test takes a good formula of CLOSE away if the first image is a bad one; others are not tested."""
    masks = {1: np.roll(SKY, 1, axis=0), 2: np.roll(SEA, 1, axis=0), 3: np.roll(TREE, 1, axis=0)}
    unit = mask(CloseTo(Label(1), (Label(3),)), masks.__getitem__)
    data = Cells(masks, unit.astype(np.float32))
    spec = replace(INDRES, score=Score("iou"), least_coverage=0.0, length=2, beam=3)
    free = explain_words(data.concepts, data.unit, replace(spec, abort_images=0))
    tested = explain_words(data.concepts, data.unit, replace(spec, abort_images=1))
    assert isinstance(free.choice.formula, CloseTo)
    assert free.choice.score == pytest.approx(1)
    assert not any(isinstance(one.formula, Close | CloseTo) for one in tested.beams[-1])
    assert any(isinstance(one.formula, And | AndNot | With | Or) for one in tested.beams[-1])
    # While the beam has places left, no formula is too bad for it.
    roomy = explain_words(data.concepts, data.unit, replace(spec, abort_images=1, beam=100))
    assert isinstance(roomy.choice.formula, CloseTo)


def test_the_penalty_spares_labels():
    """A label's objective is its score; each label more costs a share."""
    data = random_cells(1)
    found = explain_words(data.concepts, data.unit, replace(INDRES, penalty=Penalty("linear", 0.1), abort_images=0))
    for one in found.beams[-1]:
        assert one.objective == one.score * (1 - 0.1 * (one.length - 1))


def test_candidates_are_the_best_labels():
    """No label beyond the candidates is appended."""
    data = random_cells(5, labels=4)
    found = explain_words(data.concepts, data.unit, replace(INDRES, candidates=2, beam=8, abort_images=0, length=2))
    assert len(found.candidates) == 2
    values = {one: data.score(one, INDRES.score) for one in data.primitives()}
    assert [values[one] for one in found.candidates] == sorted(values.values(), reverse=True)[:2]
    for one in found.beams[-1]:
        if one.length == 2:
            assert set(leaves(one.formula)) & set(found.candidates)


# Going on, easy mode, and what is refused.


@settings(max_examples=10)
@given(
    seeds, st.integers(1, 3), st.sampled_from(["none", "indres", "immediately", "after"]), st.sampled_from([None, 4])
)
def test_a_resumed_search_ends_like_one_that_ran_through(seed, at, mode, candidates):
    """From the beam of any length, with the scores worked out anew, the same formulas are found."""
    data = random_cells(seed, labels=2)
    modes = {
        "indres": {"legacy": "indres"},
        "immediately": {"thresholds": "dynamic"},
        "after": {"thresholds": "dynamic", "threshold_update": "after"},
    }
    common = {
        "length": 3,
        "beam": 3,
        "candidates": candidates,
        "threshold_step": 0.3,
        "penalty": Penalty("linear", 0.001),
    }
    spec = WordSearchSpec(**common, **modes.get(mode, {}))
    through = explain_words(data.concepts, data.unit, spec)
    short = explain_words(data.concepts, data.unit, replace(spec, length=at))
    for start in (start_after(through, at), start_after(short, at)):
        resumed = explain_words(data.concepts, data.unit, spec, start=start)
        assert resumed.beams == through.beams[at - 1 :]
        assert resumed.best[at - 1 :] == through.best[at - 1 :]
        assert resumed.candidates == through.candidates
        assert resumed.top == through.top
        assert start_after(resumed, 3) == start_after(through, 3)


def test_a_start_of_formulas_alone_is_enough():
    """A start read from a history holds candidates, formulas and a length."""
    data = random_cells(3)
    spec = WordSearchSpec(length=3, beam=3, candidates=4)
    through = explain_words(data.concepts, data.unit, spec)
    start = Start(through.candidates, tuple(one.formula for one in through.beams[1]), 2)
    assert explain_words(data.concepts, data.unit, spec, start=start).top == through.top


def test_seeds_compete_from_their_length_on():
    """A good formula that the beam would not reach is kept, and grown."""
    data = random_cells(7, labels=4)
    planted = With(Label(1), And(Label(3), Label(5)))
    unit = UnitWords(words_of(Or(planted, Label(7)), data.concepts))
    spec = WordSearchSpec(length=4, beam=1, operators=("or", "with"), expansions=False)
    found = explain_words(data.concepts, unit, spec, seeds=[planted])
    assert found.best[2].objective >= explain_words(data.concepts, unit, spec).best[2].objective
    whole = explain_words(data.concepts, UnitWords(words_of(planted, data.concepts)), spec, seeds=[planted])
    assert whole.best[2].score == 1 or not words_of(planted, data.concepts).any()


@settings(max_examples=10)
@given(seeds)
def test_easy_mode_looks_at_firing_images_alone(seed):
    """Scores are those in the images where the unit is active."""
    data = random_cells(seed, images=8)
    rows = firing_images(data.unit)
    concepts, unit = firing_only(data.concepts, data.unit)
    found = explain_words(concepts, unit, WordSearchSpec(length=2))
    active = (data.maps > 0.5)[rows]
    assert concepts.images == len(rows) == active.any((1, 2)).sum()
    for one in found.top:
        formula = data.mask(one.formula)[rows]
        assert one.score == pytest.approx((formula & active).sum() / (formula | active).sum())


def test_minimum_gain_chooses_the_shorter():
    """A longer formula is chosen only if every label more is worth it."""
    data = random_cells(2)
    greedy, strict = (explain_words(data.concepts, data.unit, WordSearchSpec(minimum_gain=g)) for g in (0.0, 1.0))
    assert greedy.choice.objective == greedy.best[-1].objective
    assert strict.choice == strict.best[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"length": 0},
        {"beam": 0},
        {"top": 0},
        {"candidates": 0},
        {"least_coverage": 1.5},
        {"abort_share": -0.1},
        {"abort_images": -1},
        {"threshold_step": 0.0},
        {"operators": ()},
        {"operators": ("or", "or")},
        {"legacy": "indres", "top": 9},
    ],
)
def test_impossible_settings_are_refused(wrong):
    """Settings that mean nothing are refused when they are made."""
    with pytest.raises(InputError):
        WordSearchSpec(**wrong)


def test_what_does_not_belong_together_is_refused():
    """Units of other images, thresholds without maps, and starts that do not fit are refused."""
    data, spec = random_cells(0), WordSearchSpec()

    def refused(match, *, unit=data.unit, spec=spec, start=None):
        with pytest.raises(InputError, match=match):
            explain_words(data.concepts, unit, spec, start=start)

    refused("images", unit=data.unit.part(np.array([0])))
    dynamic = WordSearchSpec(thresholds="dynamic")
    refused("no activations", unit=UnitWords(data.unit.words, 0.5), spec=dynamic)
    refused("threshold nan", unit=UnitWords(data.unit.words, float("nan"), data.maps), spec=dynamic)
    refused("longer", start=Start((), (Label(1),), 4))
    refused("longer", start=Start((), (Or(Label(1), Label(3)),), 1))
    refused("thresholds", start=Start((), (Label(1),), 1, (0.5, 0.6)))
    refused("does not occur", start=Start((Label(77),), (Label(1),), 1))
    with pytest.raises(InputError, match="expansion"):
        concept_words([], expansion=9)
