"""Histories of a search as text: the beam of each unit at every length, to read and to go on from.

The form is that of Harth's program (2022, "indres"), `history_{first}_{last}.txt`: for each unit its candidate labels,
then its beam at each length, every formula with score and threshold. Files may be put one after the other. Scores come
back with four decimals and thresholds with one, so a search that goes on from a history scores its beam anew.

Texts hold names, not numbers: a history is read with the names of the labels it was written with, and names that could
be read in two ways are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from neuronscope.errors import DataError, InputError, nearest
from neuronscope.maths.formulas import Formula, key, label_numbers, parse
from neuronscope.maths.formulas import text as words_of

_WIDTH = 120
"""Characters after which a list goes on in the next line, where an item ends."""

_UNIT, _CANDIDATES, _END, _BEAM = " ||||||| {} |||||||", "-" * 29, "-" * 28, "-" * 45  # lengths of the original's lines
_HEADER = re.compile(r"\s*\|{7} (\d+) \|{7}\s*")
_OF_CANDIDATES = re.compile(r"\s*Neuron #(\d+) has candidate set:\s*")
_OF_BEAM = re.compile(r"\s*For neuron (\d+) at formula length (\d+), the beam is\s*")
_RULE = re.compile(r"\s*-{20,}\s*")
_NUMBER = r"-?(?:\d+\.\d+(?:e[+-]\d+)?|nan|inf)"
_ENTRY = re.compile(rf"\s*(.+?), s=({_NUMBER})/th=({_NUMBER}),(?=\s|$)")
_SHOWN = 60  # characters of a strange line that an error repeats


@dataclass(frozen=True)
class HistoryEntry:
    """A formula of a beam.

    Attributes:
        formula: the formula.
        score: its score then, without unit, up to 1.
        threshold: activation above which the unit counted as active.
    """

    formula: Formula
    score: float
    threshold: float


@dataclass(frozen=True)
class UnitHistory:
    """What is known of the search for one unit.

    Attributes:
        unit: its index in the layer.
        candidates: the labels that formulas were extended by, best first.
        beams: length of the longest formulas -> the beam, best first.
    """

    unit: int
    candidates: tuple[Formula, ...] = ()
    beams: Mapping[int, tuple[HistoryEntry, ...]] = field(default_factory=dict)


def write_history(units: Iterable[UnitHistory], names: Mapping[int, str]) -> str:
    """The text of a history, from which `read_history` gets the same formulas in the same places.

    Args:
        units: what to write; in this order.
        names: name of each label number.

    Raises:
        InputError: a label without a name, or names that the text could not be told apart by: equal names, names with
            commas that make up others, `A OR B` beside A and B, and the like.

    Example:
        >>> from neuronscope.maths.formulas import Label, Or
        >>> beam = (HistoryEntry(Or(Label(1), Label(2)), 0.0912, 4.6),)
        >>> print(write_history([UnitHistory(23, (Label(1), Label(2)), {2: beam})], {1: "sea", 2: "sky"}).strip())
        ||||||| 23 |||||||
        <BLANKLINE>
        Neuron #23 has candidate set:
        -----------------------------
        sea, sky,
        ----------------------------
        For neuron 23 at formula length 2, the beam is
        ---------------------------------------------
        sea OR sky, s=0.0912/th=4.6,
        ---------------------------------------------
    """
    written = []
    for one in units:
        candidates = [words_of(formula, names) for formula in one.candidates]
        beams = {
            length: [(words_of(entry.formula, names), entry.score, entry.threshold) for entry in beam]
            for length, beam in one.beams.items()
        }
        block = unit_text(one.unit, candidates, beams)
        _check(block, one, names)
        written.append(block)
    return "".join(written)


def unit_text(unit: int, candidates: Sequence[str], beams: Mapping[int, Sequence[tuple[str, float, float]]]) -> str:
    """The text of one unit, of formulas that are words already; nothing is checked.

    Args:
        unit: its index in the layer.
        candidates: names of its candidate labels.
        beams: length -> formula, score and threshold of each place.
    """
    lines = ["", "", _UNIT.format(unit), ""]
    if candidates:
        lines += [f"Neuron #{unit} has candidate set:", _CANDIDATES, *_wrapped(candidates), _END]
    for length in sorted(beams):
        entries = [f"{words}, s={score:.4f}/th={threshold:.1f}" for words, score, threshold in beams[length]]
        lines += [f"For neuron {unit} at formula length {length}, the beam is", _BEAM, *_wrapped(entries), _BEAM]
    return "\n".join(lines) + "\n"


def read_history(text: str, names: Mapping[int, str], *, file: str = "history") -> dict[int, UnitHistory]:
    """The units of one or several histories; of what is there twice, the later counts.

    Args:
        text: the content of the file, or of several one after the other.
        names: name of each label number.
        file: what the text is called in errors.

    Raises:
        DataError: the text is torn or no history, or names labels that are not there or cannot be told apart.
    """
    return _Reader(text, names, file).units()


def longest(history: UnitHistory, length: int) -> UnitHistory:
    """A unit's candidates and its longest beam of at most `length`; no beam where all are longer.

    Example:
        >>> history = UnitHistory(0, beams={1: (), 2: (), 5: ()})
        >>> list(longest(history, 3).beams)
        [2]
    """
    reached = max((known for known in history.beams if known <= length), default=None)
    return UnitHistory(history.unit, history.candidates, {} if reached is None else {reached: history.beams[reached]})


def longest_beams(histories: Mapping[int, UnitHistory], length: int) -> dict[int, UnitHistory]:
    """`longest` of each unit."""
    return {unit: longest(history, length) for unit, history in histories.items()}


def _wrapped(items: Sequence[str]) -> list[str]:
    """Items with a comma each, as many to a line as fit."""
    lines = [""]
    for item in items:
        if lines[-1] and len(lines[-1]) + len(item) + 2 > _WIDTH:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{item},"
    return lines if items else []


def _check(block: str, history: UnitHistory, names: Mapping[int, str]) -> None:
    """Refuse a text that would be read as something else."""
    try:
        again = read_history(block, names)[history.unit]
    except DataError as error:
        raise InputError(_unclear(history.unit, str(error))) from error
    if _meaning(again) != _meaning(history):
        raise InputError(_unclear(history.unit, "a name there reads like a formula or several names"))


def _unclear(unit: int, why: str) -> str:
    return (
        f"the history of unit {unit} could not be read back: {why}. Expected names of labels that can be told apart in "
        "a list with commas and in formulas. Rename the labels in the concept data"
    )


def _meaning(history: UnitHistory) -> object:
    beams = {length: [key(entry.formula) for entry in beam] for length, beam in history.beams.items()}
    return [key(formula) for formula in history.candidates], beams


class _Reader:
    """Goes through a history line by line."""

    def __init__(self, text: str, names: Mapping[int, str], file: str) -> None:
        self.lines = text.split("\n")
        self.names = names
        self.file = file
        self.at = 0
        self.begun = 1  # first line of the list that was read last
        self.numbers: dict[str, list[int]] = {}
        for number, name in names.items():
            self.numbers.setdefault(name, []).append(number)
        self.known: dict[str, Formula] = {}  # what was read already, as beams say much again

    def units(self) -> dict[int, UnitHistory]:
        candidates: dict[int, tuple[Formula, ...]] = {}
        beams: dict[int, dict[int, tuple[HistoryEntry, ...]]] = {}
        current: int | None = None
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if found := _HEADER.fullmatch(line):
                current = int(found[1])
                beams.setdefault(current, {})
            elif found := _OF_CANDIDATES.fullmatch(line):
                unit = self.same(int(found[1]), current)
                beams.setdefault(unit, {})
                candidates[unit] = self.labels(self.content())
            elif found := _OF_BEAM.fullmatch(line):
                unit = self.same(int(found[1]), current)
                beams.setdefault(unit, {})[int(found[2])] = self.entries(self.content())
            elif line.strip():
                self.fail(
                    "'||||||| UNIT |||||||', 'Neuron #UNIT has candidate set:' or 'For neuron UNIT at formula ...'"
                )
            self.at += 1
        if not beams and any(line.strip() for line in self.lines):
            self.fail("a unit")
        return {unit: UnitHistory(unit, candidates.get(unit, ()), own) for unit, own in beams.items()}

    def same(self, unit: int, current: int | None) -> int:
        if current is not None and unit != current:
            self.fail(f"unit {current}, which the lines above announce,")
        return unit

    def content(self) -> str:
        """The list between two rules; the reader then stands on the second."""
        self.next("a rule of dashes")
        if not _RULE.fullmatch(self.lines[self.at]):
            self.fail("a rule of dashes")
        self.begun = self.at + 2
        items = []
        self.next("a list, and a rule of dashes after it")
        while not _RULE.fullmatch(line := self.lines[self.at]):
            if any(start.fullmatch(line) for start in (_HEADER, _OF_CANDIDATES, _OF_BEAM)):
                self.fail("the rest of a list, and a rule of dashes after it,")
            items.append(line.rstrip("\r"))
            self.next("the rest of a list, and a rule of dashes after it,")
        return " ".join(items)

    def next(self, expected: str) -> None:
        self.at += 1
        if self.at >= len(self.lines):
            self.fail(expected)

    def labels(self, content: str) -> tuple[Formula, ...]:
        """Names with a comma after each; a name may hold commas where only one reading is left."""
        pieces = content.split(",")
        if pieces.pop().strip():
            self.refuse("a comma after each label", content[-_SHOWN:].strip())
        # For each number of pieces: in how many ways they are names, and where the last name of one way begins.
        ways, begins = [1, *[0] * len(pieces)], [0] * (len(pieces) + 1)
        for end in range(1, len(pieces) + 1):
            for begin in range(end):
                if ways[begin] and self.label(",".join(pieces[begin:end]).strip()) is not None:
                    ways[end] += ways[begin]
                    begins[end] = begin
        if not ways[-1]:
            reached = max(end for end, count in enumerate(ways) if count)
            name = pieces[reached].strip()
            self.refuse("names of labels", name, hint=nearest(name, self.numbers))
        if ways[-1] > 1:
            self.refuse("names that can be told apart", "names with commas that make up others")
        found: list[Formula] = []
        end = len(pieces)
        while end:
            name = ",".join(pieces[begins[end] : end]).strip()
            found.append(self.formula(name))
            end = begins[end]
        return tuple(reversed(found))

    def label(self, name: str) -> str | None:
        """The name as it stands among the labels, without the mark of an expanded one; None where it is none."""
        for known in (name, name.removesuffix("-X")):
            if known in self.numbers:
                return known
        return None

    def entries(self, content: str) -> tuple[HistoryEntry, ...]:
        found, at = [], 0
        while match := _ENTRY.match(content, at):
            found.append(HistoryEntry(self.formula(match[1]), float(match[2]), float(match[3])))
            at = match.end()
        if rest := content[at:].strip():
            self.refuse("FORMULA, s=SCORE/th=THRESHOLD,", rest[:_SHOWN])
        return tuple(found)

    def formula(self, words: str) -> Formula:
        if words not in self.known:
            self.known[words] = self.parsed(words)
        return self.known[words]

    def parsed(self, words: str) -> Formula:
        # Only names that are there can be meant; thousands of others would make reading slow.
        there = {number: name for number, name in self.names.items() if name in words}
        try:
            formula = parse(words, there)
        except InputError:
            formula = self.refused(words)
        if formula is None:
            self.refuse("a formula", words)
        for number in label_numbers(formula):
            name = self.names[number]
            if len(twice := self.numbers[name]) > 1:
                self.refuse("names of one label each", name, hint=f" That is the name of labels {twice}.")
        return formula

    def refused(self, words: str) -> NoReturn:
        """Say what is wrong with a formula, with all names in view."""
        try:
            parse(words, self.names)
        except InputError as error:
            message = f"{self.place()} holds a formula that cannot be read: {error}"
            raise DataError(message) from error
        raise AssertionError  # more names never made words that cannot be read a formula

    def refuse(self, expected: str, came: str, *, hint: str = "") -> NoReturn:
        """Say what is wrong with the list that the reader has just gone through."""
        message = (
            f"{self.place()} is not a history's: {expected} was expected, '{came}' came.{hint} Give a history of the "
            "same concepts, whole"
        )
        raise DataError(message)

    def place(self) -> str:
        return f"{self.file}, list from line {self.begun}"

    def fail(self, expected: str) -> NoReturn:
        line = self.lines[self.at].strip() if self.at < len(self.lines) else ""
        came = f"'{line[:_SHOWN]}'" if line else "an empty line" if self.at < len(self.lines) else "the end of the text"
        message = (
            f"{self.file}, line {min(self.at, len(self.lines) - 1) + 1} is not a history's: {expected} was expected, "
            f"{came} came. Give a whole history_FIRST_LAST.txt, or several one after the other"
        )
        raise DataError(message)
