"""Histories as text: what is written is read back, several files make one, and torn ones say where."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronscope.errors import DataError, InputError
from neuronscope.maths.formulas import And, AndNot, Close, CloseTo, Expanded, Label, Or, With, key
from neuronscope.studies.concepts.history import (
    HistoryEntry,
    UnitHistory,
    longest,
    longest_beams,
    read_history,
    write_history,
)

NAMES = {1: "kitchen-s", 2: "cabinet", 3: "auditorium-s", 4: "seat", 5: "traffic light, green", 6: "grass (dry) s=1"}

SAMPLE = """

 ||||||| 23 |||||||

Neuron #23 has candidate set:
-----------------------------
kitchen-s, cabinet-X, cabinet,
seat,
----------------------------
For neuron 23 at formula length 1, the beam is
---------------------------------------------
auditorium-s, s=0.0840/th=4.6, seat-X, s=0.0786/th=4.6,
---------------------------------------------
For neuron 23 at formula length 2, the beam is
---------------------------------------------
auditorium-s OR
seat-X, s=0.0912/th=4.6, seat CLOSE TO cabinet & kitchen-s, s=-0.0010/th=4.5,
---------------------------------------------
"""

leaf = st.sampled_from([kind(number) for kind in (Label, Expanded) for number in NAMES])
formulas = st.recursive(
    leaf,
    lambda part: st.one_of(
        *(st.builds(kind, part, part) for kind in (Or, And, AndNot, With, Close)),
        st.builds(CloseTo, part, st.lists(leaf, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)
# Plain tuples: the run-time type check of the dataclasses draws random items, which a strategy must not.
entries = st.tuples(
    formulas,
    st.integers(-9999, 9999).map(lambda whole: whole / 10_000),
    st.integers(-500, 500).map(lambda whole: whole / 10),
)
histories = st.tuples(
    st.integers(0, 511),
    st.lists(leaf, max_size=30),
    st.dictionaries(st.integers(1, 10), st.lists(entries, max_size=6), max_size=4),
)


def made(unit: int, candidates: list, beams: dict) -> UnitHistory:
    """A history of drawn parts."""
    entered = {length: tuple(HistoryEntry(*entry) for entry in beam) for length, beam in beams.items()}
    return UnitHistory(unit, tuple(candidates), entered)


def meaning(history: UnitHistory) -> object:
    """A history with formulas in canonical form."""
    beams = {length: [(key(e.formula), e.score, e.threshold) for e in beam] for length, beam in history.beams.items()}
    return history.unit, history.candidates, beams


@settings(max_examples=20, deadline=None)
@given(st.lists(histories, max_size=3, unique_by=lambda one: one[0]))
def test_what_is_written_is_read_back(drawn):
    """Candidates, formulas of every operator, scores and thresholds survive, also names with commas and ` s=`."""
    units = [made(*one) for one in drawn]
    text = write_history(units, NAMES)
    found = read_history(text, NAMES)
    assert [meaning(one) for one in found.values()] == [meaning(one) for one in units]
    assert write_history(found.values(), NAMES) == text


def test_the_published_form_is_read():
    """A history as the original prints it, broken within a list and within a formula."""
    found = read_history(SAMPLE, NAMES)[23]
    assert found.candidates == (Label(1), Expanded(2), Label(2), Label(4))
    assert found.beams[1] == (HistoryEntry(Label(3), 0.084, 4.6), HistoryEntry(Expanded(4), 0.0786, 4.6))
    assert found.beams[2][0] == HistoryEntry(Or(Label(3), Expanded(4)), 0.0912, 4.6)
    assert found.beams[2][1] == HistoryEntry(CloseTo(Label(4), (Label(2), Label(1))), -0.001, 4.5)


def test_the_published_form_is_written():
    """The same but for the line breaks, which stand where an item ends."""
    assert write_history(read_history(SAMPLE, NAMES).values(), NAMES) == SAMPLE.replace(",\nseat", ", seat").replace(
        "OR\nseat", "OR seat"
    )


def test_long_lists_are_wrapped_where_an_item_ends():
    """No line is longer than 120 characters unless a single item is, and each ends with a comma."""
    history = UnitHistory(0, (Label(1), Label(5)) * 40)
    lines = [line for line in write_history([history], NAMES).split("\n") if "kitchen" in line]
    assert len(lines) > 5
    assert all(90 < len(line) <= 120 for line in lines[:-1])
    assert all(line.endswith(",") for line in lines)


def test_a_later_history_adds_to_an_earlier_one():
    """Of one length the later beam counts; other lengths and units of the earlier one stay."""
    first, second = HistoryEntry(Label(1), 0.1, 1.0), HistoryEntry(Label(2), 0.2, 1.0)
    earlier = [UnitHistory(0, (Label(1),), {1: (first,), 3: (first,)}), UnitHistory(7, (), {1: (first,)})]
    later = [UnitHistory(0, (), {1: (second,), 2: (second,)})]
    found = read_history(write_history(earlier, NAMES) + write_history(later, NAMES), NAMES)
    assert found[0] == UnitHistory(0, (Label(1),), {1: (second,), 3: (first,), 2: (second,)})
    assert list(found) == [0, 7]


def test_the_longest_usable_beam_is_chosen():
    """Of at most the wanted length; none where all are longer."""
    beam = (HistoryEntry(Label(1), 0.1, 1.0),)
    history = UnitHistory(4, (Label(1),), {2: beam, 3: beam, 10: beam})
    assert longest(history, 5) == UnitHistory(4, (Label(1),), {3: beam})
    assert longest(history, 1) == UnitHistory(4, (Label(1),), {})
    assert longest_beams({4: history}, 99) == {4: UnitHistory(4, (Label(1),), {10: beam})}


def test_an_empty_text_has_no_units():
    """Nothing there is no error."""
    assert read_history("\n\n", NAMES) == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[: text.rindex("seat CLOSE")], "line 17 is not a history's: the rest of a list"),
        (lambda text: text[: text.rindex("\n---")], "the rest of a list, and a rule of dashes after it, was expected"),
        (lambda text: text.replace("----------------------------\nFor", "For", 1), "For neuron 23 at formula length 1"),
        (
            lambda text: text.replace("s=0.0786", "s=0.07S6"),
            "line 12 is not a history's: FORMULA, s=SCORE/th=THRESHOLD,",
        ),
        (
            lambda text: text.replace("th=4.6, seat-X", "th=4.6 seat-X", 1),
            "line 12 holds a formula that cannot be read",
        ),
        (
            lambda text: text.replace("\nseat,\n", "\nseet,\n"),
            "line 7 is not a history's: names of labels was expected",
        ),
        (lambda text: text.replace("\nseat,\n", "\nseet,\n"), "'seet' came. Closest: 'seat'."),
        (lambda text: text.replace("\nseat,\n", "\nseat\n"), "a comma after each label was expected, '"),
        (lambda text: text.replace("auditorium-s OR", "auditorium-s XOR"), "cannot be read"),
        (lambda text: text.replace("For neuron 23", "For neuron 24", 1), "unit 23, which the lines above announce"),
        (lambda _: "unit,formula\n0,sky\n", "line 1 is not a history's"),
        (lambda text: text.replace("seat-X, s=0.0786", "NONE, s=0.0786"), "a formula was expected, 'NONE' came"),
    ],
)
def test_torn_or_foreign_text_is_refused(change, words):
    """The error names file, line, what was expected and what came."""
    changed = change(SAMPLE)
    assert changed != SAMPLE
    with pytest.raises(DataError) as caught:
        read_history(changed, NAMES, file="old.txt")
    assert str(caught.value).startswith(("old.txt, line ", "old.txt, list from line "))
    assert words in str(caught.value)


def test_one_name_for_two_labels_is_refused():
    """A name that two labels have says nothing, whether written or read."""
    names = {1: "seat", 2: "seat"}
    with pytest.raises(InputError, match=r"unit 0 could not be read back.*labels \[1, 2\].*Rename"):
        write_history([UnitHistory(0, (Label(2),))], names)
    text = write_history([UnitHistory(0, (Label(2),))], {2: "seat"})
    with pytest.raises(DataError, match=r"labels \[1, 2\]"):
        read_history(text, names)


@pytest.mark.parametrize(
    ("names", "history"),
    [
        ({1: "a", 2: "b", 3: "a, b"}, UnitHistory(0, (Label(3),))),
        ({1: "a", 2: "b", 3: "a OR b"}, UnitHistory(0, (), {2: (HistoryEntry(Or(Label(1), Label(2)), 0.1, 1.0),)})),
        ({1: "a", 2: "a-X"}, UnitHistory(0, (Expanded(1),))),
        ({1: "a, s=0.1000/th=1.0, a", 2: "a"}, UnitHistory(0, (), {1: (HistoryEntry(Label(1), 0.1, 1.0),)})),
        ({1: "two\nlines"}, UnitHistory(0, (), {1: (HistoryEntry(Label(1), 0.1, 1.0),)})),
        ({1: ""}, UnitHistory(0, (Label(1),))),
    ],
)
def test_names_that_read_in_two_ways_are_refused(names, history):
    """Nothing is written that would come back as another formula."""
    with pytest.raises(InputError, match="unit 0 could not be read back"):
        write_history([history], names)
