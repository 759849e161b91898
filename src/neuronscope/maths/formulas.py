"""Formulas of concepts: `water OR (blue AND NOT sky)` as a value, its length, its text and its meaning.

A formula is a tree of frozen values over label numbers. OR, AND and AND NOT are Boolean: a pixel's labels decide, so
they can be evaluated on signatures (`satisfied`). WITH, CLOSE, CLOSE TO and expanded labels look at a pixel's image or
neighbourhood and need masks (`mask`), which is also the slow definition of the Boolean ones.

Two notations are written and read: that of the compositional explanations of Mu and Andreas (2020, "compexp":
`((water OR blue) AND (NOT sky))`) and that of Harth (2022, "indres": `(water OR blue) AND NOT sky`, expanded labels as
`water-X`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool

from neuronscope.errors import InputError, nearest
from neuronscope.maths.signatures import Signatures

Style = Literal["compexp", "indres"]
"""Notation of a formula."""

Convention = Literal["labels", "compexp"]
"""How length counts: labels, or labels and negations."""

_CLOSE_SQUARED = 5
"""Squared distance, in cells, up to which two cells are close: a 5x5 window without its corners, 21 cells."""

_EXPANDED = "-X"
"""Ending of an expanded label's name."""

_NONE = "NONE"
"""The text for no formula."""


@dataclass(frozen=True)
class Label:
    """The pixels that carry a label."""

    number: int


@dataclass(frozen=True)
class Expanded:
    """A label's cells and those with at least so many of it in their 3x3 neighbourhood."""

    number: int


@dataclass(frozen=True)
class Or:
    """Pixels of either."""

    left: Formula
    right: Formula


@dataclass(frozen=True)
class And:
    """Pixels of both."""

    left: Formula
    right: Formula


@dataclass(frozen=True)
class AndNot:
    """Pixels of the left that are not in the right."""

    left: Formula
    right: Formula


@dataclass(frozen=True)
class With:
    """Pixels of the left, in images where the right occurs."""

    left: Formula
    right: Formula


@dataclass(frozen=True)
class Close:
    """Cells of either that are close to a cell of the other."""

    left: Formula
    right: Formula


@dataclass(frozen=True)
class CloseTo:
    """Cells of the left that are close to a cell of each on the right."""

    left: Formula
    rights: tuple[Formula, ...]


Formula = Label | Expanded | Or | And | AndNot | With | Close | CloseTo
"""A formula over concepts."""

Key = tuple[object, ...]
"""A formula's canonical form: equal for formulas that differ only in the order of operands that may change places."""

_WORDS: dict[str, type[Or | And | AndNot | With | Close]] = {
    "OR": Or,
    "AND": And,
    "AND NOT": AndNot,
    "WITH": With,
    "CLOSE": Close,
}
_NAMES: dict[type, str] = {kind: word for word, kind in _WORDS.items()}


def operands(formula: Formula) -> tuple[Formula, ...]:
    """The parts directly below, left to right; none for a label."""
    match formula:
        case Label() | Expanded():
            return ()
        case CloseTo(left, rights):
            return (left, *rights)
        case _:
            return (formula.left, formula.right)


def leaves(formula: Formula) -> Iterator[Label | Expanded]:
    """The labels, left to right, as often as they stand there."""
    if isinstance(formula, Label | Expanded):
        yield formula
    for part in operands(formula):
        yield from leaves(part)


def label_numbers(formula: Formula) -> tuple[int, ...]:
    """The label numbers, left to right, as often as they stand there.

    Example:
        >>> label_numbers(AndNot(Or(Label(3), Label(1)), Label(2)))
        (3, 1, 2)
    """
    return tuple(leaf.number for leaf in leaves(formula))


def length(formula: Formula, *, convention: Convention = "labels") -> int:
    """How long a formula is: its labels, or with "compexp" its labels and its negations.

    Example:
        >>> length(AndNot(Label(1), Label(2))), length(AndNot(Label(1), Label(2)), convention="compexp")
        (2, 3)
    """
    if isinstance(formula, Label | Expanded):
        return 1
    negated = int(isinstance(formula, AndNot) and convention == "compexp")
    return negated + sum(length(part, convention=convention) for part in operands(formula))


def is_boolean(formula: Formula) -> bool:
    """Whether a pixel's own labels decide, so that signatures suffice."""
    return isinstance(formula, Label | Or | And | AndNot) and all(is_boolean(part) for part in operands(formula))


def key(formula: Formula) -> Key:  # noqa: PLR0911 one case each
    """The canonical form: chains of OR and of AND are flattened and sorted, as are CLOSE and the rights of CLOSE TO.

    `(A AND NOT B) AND NOT C` has the form of `A AND NOT (B OR C)`. Other equivalences are not looked for.

    Example:
        >>> key(Or(Label(1), Or(Label(3), Label(2)))) == key(Or(Or(Label(2), Label(1)), Label(3)))
        True
    """
    match formula:
        case Label(number):
            return ("label", number)
        case Expanded(number):
            return ("label-X", number)
        case Or() | And():
            return (_NAMES[type(formula)], *sorted((key(part) for part in _chain(formula, type(formula))), key=repr))
        case AndNot(AndNot(left, first), second):
            return key(AndNot(left, Or(first, second)))
        case Close(left, right):
            return ("CLOSE", *sorted((key(left), key(right)), key=repr))
        case CloseTo(left, rights):
            return ("CLOSE TO", key(left), *sorted({key(right) for right in rights}, key=repr))
        case _:
            return (_NAMES[type(formula)], key(formula.left), key(formula.right))


def text(formula: Formula | None, names: Mapping[int, str], *, style: Style = "indres") -> str:
    """A formula in words; "NONE" for no formula.

    Args:
        formula: what to write.
        names: name of each label number.
        style: "compexp" puts every operation into parentheses and writes AND NOT as `(A AND (NOT B))`; "indres"
            leaves parentheses out of chains of one operator and joins subtracted parts: `A AND NOT (B OR C)`.

    Raises:
        InputError: a label number without a name.

    Example:
        >>> names = {1: "water", 2: "blue", 3: "sky"}
        >>> formula = AndNot(Or(Label(1), Label(2)), Label(3))
        >>> text(formula, names), text(formula, names, style="compexp")
        ('(water OR blue) AND NOT sky', '((water OR blue) AND (NOT sky))')
    """
    if formula is None:
        return _NONE
    return _compexp(formula, names) if style == "compexp" else _indres(formula, names)


def parse(words: str, names: Mapping[int, str]) -> Formula | None:
    """Read a formula in either notation; operators of a chain without parentheses apply from left to right.

    Names may hold blanks, hyphens and parentheses: at each place the longest name that fits is taken. `name-X` is an
    expanded label unless a label is called so.

    Args:
        words: the text; "NONE" gives None.
        names: name of each label number; of labels with one name, the lowest number is meant.

    Raises:
        InputError: a name that is not a label's, or words that are not a formula.

    Example:
        >>> parse("(water OR blue) AND NOT sky", {1: "water", 2: "blue", 3: "sky"})
        AndNot(left=Or(left=Label(number=1), right=Label(number=2)), right=Label(number=3))
    """
    if words.strip() == _NONE:
        return None
    reader = _Reader(words, names)
    formula = reader.formula()
    if not reader.ended():
        reader.fail("the end or an operator (OR, AND, AND NOT, WITH, CLOSE, CLOSE TO)")
    return formula


def satisfied(formula: Formula, signatures: Signatures) -> Bool[np.ndarray, "s"]:
    """Which signatures a Boolean formula holds for.

    Raises:
        InputError: the formula is not Boolean.
    """
    found: np.ndarray
    match formula:
        case Label(number):
            found = np.zeros(len(signatures), dtype=bool)
            found[signatures.signatures_of(number)] = True
        case Or(left, right):
            found = satisfied(left, signatures) | satisfied(right, signatures)
        case And(left, right):
            found = satisfied(left, signatures) & satisfied(right, signatures)
        case AndNot(left, right):
            found = satisfied(left, signatures) & ~satisfied(right, signatures)
        case _:
            message = (
                f"{type(formula).__name__} looks at a pixel's neighbours or image, and signatures only know its own "
                "labels (OR, AND, AND NOT). Evaluate it on masks"
            )
            raise InputError(message)
    return found


def mask(
    formula: Formula, label_mask: Callable[[int], Bool[np.ndarray, "n h w"]], *, expansion: int = 3
) -> Bool[np.ndarray, "n h w"]:
    """The pixels that a formula holds for: the definition of every operator, on masks.

    Args:
        formula: any formula.
        label_mask: the mask of a label number, of all images.
        expansion: cells of a label's 3x3 neighbourhood, clipped at the border, that turn a cell of an expanded label
            on (1 to 8; 3 in indres).
    """
    found: np.ndarray
    masks = [mask(part, label_mask, expansion=expansion) for part in operands(formula)]
    match formula:
        case Label(number):
            found = label_mask(number)
        case Expanded(number):
            own = label_mask(number)
            near = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            found = own | (np.sum(list(_shifts(own, near)), axis=0) >= expansion)
        case Or():
            found = masks[0] | masks[1]
        case And():
            found = masks[0] & masks[1]
        case AndNot():
            found = masks[0] & ~masks[1]
        case With():
            found = masks[0] & masks[1].any((1, 2), keepdims=True)
        case Close():
            found = (masks[0] & neighbourhood(masks[1])) | (masks[1] & neighbourhood(masks[0]))
        case _:
            found = np.logical_and.reduce([masks[0], *(neighbourhood(right) for right in masks[1:])])
    return found


def neighbourhood(cells: Bool[np.ndarray, "n h w"]) -> Bool[np.ndarray, "n h w"]:
    """All cells that are close to a given one: at a squared distance of at most 5, in the same image."""
    reach = range(-2, 3)
    near = [(dy, dx) for dy in reach for dx in reach if dy * dy + dx * dx <= _CLOSE_SQUARED]
    found: np.ndarray = np.logical_or.reduce(list(_shifts(cells, near)))
    return found


def _shifts(cells: Bool[np.ndarray, "n h w"], steps: list[tuple[int, int]]) -> Iterator[Bool[np.ndarray, "n h w"]]:
    """The cells moved by each step; what leaves the image is lost."""
    height, width = cells.shape[1:]
    for dy, dx in steps:
        moved = np.zeros_like(cells)
        target = (slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0)))
        source = (slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0)))
        if abs(dy) < height and abs(dx) < width:
            moved[:, *target] = cells[:, *source]
        yield moved


def _chain(formula: Formula, kind: type) -> list[Formula]:
    """Operands of a chain of one operator, left to right."""
    if not isinstance(formula, kind):
        return [formula]
    return [leaf for part in operands(formula) for leaf in _chain(part, kind)]


def _name(leaf: Label | Expanded, names: Mapping[int, str]) -> str:
    if leaf.number not in names:
        message = (
            f"label {leaf.number} has no name: {len(names)} labels are named. "
            "Give the names of the labels that the formula was found with"
        )
        raise InputError(message)
    return names[leaf.number] + (_EXPANDED if isinstance(leaf, Expanded) else "")


def _compexp(formula: Formula, names: Mapping[int, str]) -> str:
    match formula:
        case Label() | Expanded():
            return _name(formula, names)
        case AndNot(left, right):
            return f"({_compexp(left, names)} AND (NOT {_compexp(right, names)}))"
        case CloseTo(left, rights):
            return f"({_compexp(left, names)} CLOSE TO {' & '.join(_compexp(right, names) for right in rights)})"
        case _:
            return f"({_compexp(formula.left, names)} {_NAMES[type(formula)]} {_compexp(formula.right, names)})"


def _indres(formula: Formula, names: Mapping[int, str]) -> str:
    def inner(part: Formula) -> str:
        written = _indres(part, names)
        return written if isinstance(part, Label | Expanded) else f"({written})"

    match formula:
        case Label() | Expanded():
            return _name(formula, names)
        case AndNot(AndNot(left, first), second):
            return _indres(AndNot(left, Or(first, second)), names)
        case Or(left, right) | And(left, right):
            word = _NAMES[type(formula)]
            start = _indres(left, names) if isinstance(left, type(formula)) else inner(left)
            return f"{start} {word} {inner(right)}"
        case CloseTo(left, rights):
            return f"{inner(left)} CLOSE TO {' & '.join(inner(right) for right in rights)}"
        case _:
            return f"{inner(formula.left)} {_NAMES[type(formula)]} {inner(formula.right)}"


_OPERATOR = re.compile(r"\s*(AND\s+NOT|AND|OR|WITH|CLOSE\s+TO|CLOSE)(?=[\s(]|$)")
_NEGATION = re.compile(r"\s*\(\s*NOT(?=[\s(])")


class _Reader:
    """Reads a formula from left to right."""

    def __init__(self, words: str, names: Mapping[int, str]) -> None:
        self.words = words
        self.at = 0
        self.known: dict[str, Label | Expanded] = {}
        for number in sorted(names):
            self.known.setdefault(names[number], Label(number))
        for number in sorted(names):
            self.known.setdefault(names[number] + _EXPANDED, Expanded(number))
        longest = sorted((name for name in self.known if name), key=len, reverse=True)
        self.label = (
            re.compile(rf"({'|'.join(re.escape(name) for name in longest)})(?=\s|[()&]|$)") if longest else None
        )

    def formula(self) -> Formula:
        """An operand, and operators with operands as long as they come."""
        left = self.operand()
        while found := _OPERATOR.match(self.words, self.at):
            self.at = found.end()
            left = self.applied(left, re.sub(r"\s+", " ", found[1]))
        return left

    def applied(self, left: Formula, word: str) -> Formula:
        if word == "CLOSE TO":
            rights = [self.operand()]
            while self.taken("&"):
                rights.append(self.operand())
            return CloseTo(left, tuple(rights))
        if word == "AND" and (negation := _NEGATION.match(self.words, self.at)):
            self.at = negation.end()
            right = self.formula()
            self.close()
            return AndNot(left, right)
        return _WORDS[word](left, self.operand())

    def operand(self) -> Formula:
        if self.label and (found := self.label.match(self.words, self.blank())):
            self.at = found.end()
            return self.known[found[1]]
        if self.taken("("):
            inner = self.formula()
            self.close()
            return inner
        self.fail("a label or an opening parenthesis")
        raise AssertionError  # fail always raises

    def close(self) -> None:
        if not self.taken(")"):
            self.fail("an operator or a closing parenthesis")

    def taken(self, sign: str) -> bool:
        self.blank()
        there = self.words.startswith(sign, self.at)
        self.at += len(sign) * there
        return there

    def blank(self) -> int:
        while self.at < len(self.words) and self.words[self.at].isspace():
            self.at += 1
        return self.at

    def ended(self) -> bool:
        return self.blank() == len(self.words)

    def fail(self, expected: str) -> None:
        rest = self.words[self.blank() :]
        word = re.split(r" (?:AND|OR|WITH|CLOSE)\b|[()&]", rest)[0].strip()
        message = (
            f"'{self.words}' cannot be read at position {self.at}: {expected} was expected, "
            f"'{rest[:40]}' came.{nearest(word, self.known)} Labels are written as in the list of labels"
        )
        raise InputError(message)
