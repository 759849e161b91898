"""Formulas: text and back, canonical form, length, and their meaning cell by cell."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import InputError
from neuronscope.maths.formulas import (
    And,
    AndNot,
    Close,
    CloseTo,
    Expanded,
    Label,
    Or,
    With,
    is_boolean,
    key,
    label_numbers,
    length,
    mask,
    neighbourhood,
    parse,
    satisfied,
    text,
)
from neuronscope.maths.signatures import assemble, image_signatures

NAMES = {1: "sky", 2: "sky scraper", 3: "light (lamp)", 4: "street-s", 5: "X", 6: "OR ange"}
labels = st.builds(Label, st.sampled_from(sorted(NAMES)))
leaves = labels | st.builds(Expanded, st.sampled_from(sorted(NAMES)))


def grown(parts):
    """One operation on smaller formulas."""
    pairs = [st.builds(kind, parts, parts) for kind in (Or, And, AndNot, With, Close)]
    return st.one_of(*pairs, st.builds(CloseTo, parts, st.lists(parts, min_size=1, max_size=3).map(tuple)))


formulas = st.recursive(leaves, grown, max_leaves=6)
booleans = st.recursive(
    labels, lambda parts: st.one_of(*(st.builds(kind, parts, parts) for kind in (Or, And, AndNot))), max_leaves=6
)


def cells(seed, *, images=2, side=5):
    """A mask of every label, by number."""
    rng = np.random.default_rng(seed)
    made = {number: rng.random((images, side, side)) < 0.15 for number in NAMES}
    return made.__getitem__


@given(formulas)
def test_text_is_read_back(formula):
    """Both notations are read back; compexp's to the same tree, indres's to the same canonical form."""
    assert parse(text(formula, NAMES, style="compexp"), NAMES) == formula
    assert key(parse(text(formula, NAMES), NAMES)) == key(formula)


@given(formulas, st.integers(0, 2**32 - 1))
def test_equal_keys_are_equal_masks(formula, seed):
    """What the canonical form of the text joins has one meaning."""
    back = parse(text(formula, NAMES), NAMES)
    assert np.array_equal(mask(formula, cells(seed)), mask(back, cells(seed)))


@given(booleans, st.integers(0, 2**32 - 1))
def test_signatures_know_boolean_formulas(formula, seed):
    """Signatures satisfy a formula where its mask says so."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, 7, (3, 2, 4, 4))
    images = assemble(image_signatures(layers) for layers in maps)
    expected = mask(formula, lambda number: (maps == number).any(1))
    found = satisfied(formula, images)
    assert is_boolean(formula)
    assert np.array_equal(np.stack([found[images.signature_map(i)] for i in range(3)]), expected.reshape(3, -1))


def close_by_definition(left, right):
    """Cells of the left with a cell of the right at a squared distance of at most 5, cell by cell."""
    found = np.zeros_like(left)
    for image, y, x in zip(*np.nonzero(left), strict=True):
        there = zip(*np.nonzero(right[image]), strict=True)
        found[image, y, x] = any((y - b) ** 2 + (x - a) ** 2 <= 5 for b, a in there)
    return found


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 7))
def test_operators_by_their_definitions(seed, expansion, side):
    """WITH, CLOSE, CLOSE TO and expanded labels, cell by cell."""
    of = cells(seed, side=side)
    a, b, c = of(1), of(2), of(3)
    one, two, three = Label(1), Label(2), Label(3)
    assert np.array_equal(mask(CloseTo(one, (two,)), of), close_by_definition(a, b))
    both = close_by_definition(a, b) & close_by_definition(a, c)
    assert np.array_equal(mask(CloseTo(one, (two, three)), of), both)
    assert np.array_equal(mask(Close(one, two), of), close_by_definition(a, b) | close_by_definition(b, a))
    present = np.stack([x & y.any() for x, y in zip(a, b, strict=True)])
    assert np.array_equal(mask(With(one, two), of), present)
    grown_cells = a.copy()
    for image, y, x in itertools.product(range(2), range(side), range(side)):
        window = a[image, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        grown_cells[image, y, x] |= window.sum() >= expansion
    assert np.array_equal(mask(Expanded(1), of, expansion=expansion), grown_cells)


def test_the_neighbourhood_is_a_square_without_corners():
    """21 cells around a cell."""
    one = np.zeros((1, 9, 9), dtype=bool)
    one[0, 4, 4] = True
    found = neighbourhood(one)[0]
    assert found.sum() == 21
    assert found[2, 3]
    assert not found[2, 2]


def test_known_texts():
    """Texts as the originals print and write them."""
    names = {1: "bed", 2: "sofa", 3: "wall", 4: "lamp"}
    made = AndNot(AndNot(Or(Or(Label(1), Expanded(2)), Label(4)), Label(3)), Label(2))
    assert text(made, names) == "(bed OR sofa-X OR lamp) AND NOT (wall OR sofa)"
    assert text(made, names, style="compexp") == "((((bed OR sofa-X) OR lamp) AND (NOT wall)) AND (NOT sofa))"
    close = CloseTo(Label(1), (Label(2), Label(4)))
    assert text(close, names) == "bed CLOSE TO sofa & lamp"
    assert text(Close(close, Label(3)), names) == "(bed CLOSE TO sofa & lamp) CLOSE wall"
    assert parse("bed OR sofa AND wall", names) == And(Or(Label(1), Label(2)), Label(3))
    assert parse(" ( bed  AND  ( NOT sofa ) ) ", names) == AndNot(Label(1), Label(2))
    assert text(None, names) == "NONE"
    assert parse("NONE", names) is None


def test_a_label_called_like_an_expanded_one_wins():
    """`bed-X` is the label of that name where there is one."""
    assert parse("bed-X", {1: "bed", 2: "bed-X"}) == Label(2)
    assert parse("bed-X", {1: "bed"}) == Expanded(1)
    assert parse("bed", {2: "bed", 1: "bed"}) == Label(1)


def test_length_and_labels():
    """AND NOT is one label more for us, two for compexp; expansion is free."""
    made = AndNot(And(Expanded(1), Label(2)), CloseTo(Label(3), (Label(1), Label(1))))
    assert length(made) == 5
    assert length(made, convention="compexp") == 6
    assert label_numbers(made) == (1, 2, 3, 1, 1)
    assert not is_boolean(made)


@given(booleans, booleans, booleans)
def test_keys_forget_order(a, b, c):
    """Operands that may change places do not matter, others do."""
    assert key(Or(Or(a, b), c)) == key(Or(b, Or(c, a)))
    assert key(And(And(a, b), c)) == key(And(b, And(c, a)))
    assert key(AndNot(AndNot(a, b), c)) == key(AndNot(a, Or(c, b)))
    assert key(Close(a, b)) == key(Close(b, a))
    assert (key(With(a, b)) == key(With(b, a))) == (key(a) == key(b))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "a label"),
        ("sky OR", "a label"),
        ("sky sofa", "the end or an operator"),
        ("(sky OR X", "closing parenthesis"),
        ("skie AND X", "Closest: 'sky'"),
        ("sky CLOSE TO", "a label"),
        ("(sky AND (NOT X)", "closing parenthesis"),
        ("sky)", "the end"),
    ],
)
def test_what_cannot_be_read_is_said(words, expected):
    """A wrong text names the place, what was expected and the nearest label."""
    with pytest.raises(InputError, match="cannot be read at position") as caught:
        parse(words, NAMES)
    assert expected in str(caught.value)


def test_no_labels_no_formula():
    """Without labels nothing can be read."""
    with pytest.raises(InputError, match="a label"):
        parse("sky", {})


def test_labels_without_name_are_refused():
    """A formula over other labels is not printed."""
    with pytest.raises(InputError, match="label 9 has no name"):
        text(Label(9), NAMES)


def test_signatures_refuse_neighbourhoods():
    """CLOSE cannot be told from a pixel's own labels."""
    images = assemble([image_signatures(np.ones((1, 2, 2), dtype=np.uint8))])
    with pytest.raises(InputError, match="masks"):
        satisfied(Close(Label(1), Label(1)), images)
