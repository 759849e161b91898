"""How a formula F is made one label longer, for all labels at once.

For a label P these are F OR P, F AND P, F AND NOT P, F WITH P, F CLOSE P, F CLOSE TO P and P CLOSE TO F. Where F is a
relation of two parts (WITH, CLOSE, CLOSE TO with one right part), OR and AND NOT are also put inside its left and its
right part: `(A OR P) WITH B`, `A WITH (B OR P)`. To a CLOSE TO of labels, CLOSE appends: `A CLOSE TO B & P`.

Left out is what another formula says shorter (Harth 2022): a label combined with itself or with its expanded copy; a
label that the chain of OR or of AND holds already; and WITH, CLOSE and CLOSE TO a label of whole images (`P CLOSE TO F`
stays); an appended one too.

In images without P a move gives F or nothing (`Move.keeps`), so that only images with P need be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from neuronscope.maths.cells import neighbourhood
from neuronscope.maths.formulas import (
    And,
    AndNot,
    Close,
    CloseTo,
    Expanded,
    Formula,
    Label,
    Or,
    With,
    operands,
)
from neuronscope.maths.word_search.concept_words import ConceptWords, words_of
from neuronscope.maths.word_search.spec import OPERATORS, Operator
from neuronscope.maths.word_search.terms import Chunk, Terms

Vectors = Mapping[str, UInt64[np.ndarray, "n"]]
"""Masks in all images: `f`, a formula; `a`, `b`, its left and right part; `near_f`, ..., the cells close to them."""


class Entries:
    """A chunk's words beside those of a formula in the same images."""

    def __init__(self, chunk: Chunk, vectors: Vectors) -> None:
        """Nothing is gathered before it is asked for."""
        self.chunk = chunk
        self.words = chunk.words
        self.near = chunk.near
        self._vectors = vectors
        self._kept: dict[str, np.ndarray] = {}

    def at(self, name: str) -> UInt64[np.ndarray, "e"]:
        """A mask in the image of each word."""
        if name not in self._kept:
            self._kept[name] = self._vectors[name][self.chunk.image]
        return self._kept[name]

    def near_without(self, name: str) -> UInt64[np.ndarray, "e"]:
        """The cells close to a part of the formula less the label; right only where the formula has cells."""
        own = self.at(name)
        changed = np.flatnonzero(((own & self.words) != 0) & (self.at("f") != 0))
        found = self.at(f"near_{name}").copy()
        found[changed] = neighbourhood(own[changed] & ~self.words[changed])
        return found


@dataclass(frozen=True, eq=False)
class Move:
    """One way to make a formula longer.

    Attributes:
        make: the longer formula, from the label.
        words: its mask in the images of the label.
        keeps: whether images without the label keep the formula's mask; otherwise they have none.
        nested: whether the new mask holds the old one or lies in it, so that equal areas are equal masks.
        close: whether the new formula is one of CLOSE or CLOSE TO.
        allowed: the labels for which the move is worth looking at.
    """

    make: Callable[[Label | Expanded], Formula]
    words: Callable[[Entries], np.ndarray]
    keeps: bool
    nested: bool
    close: bool
    allowed: Bool[np.ndarray, "t"]


class Sums(NamedTuple):
    """A number for each move (rows) and label."""

    intersection: Int64[np.ndarray, "m t"]
    chance: Int64[np.ndarray, "m t"]


def single_moves(terms: Terms) -> list[Move]:
    """The move from nothing to a label."""
    return [Move(lambda p: p, lambda e: e.words, False, False, False, np.ones(len(terms), dtype=bool))]


def moves_of(formula: Formula, terms: Terms, operators: Sequence[Operator]) -> list[Move]:
    """All moves from a formula, in the order of the original."""
    makers: dict[Operator, Callable[[Formula, Terms], list[Move]]] = {
        "or": _or_moves,
        "and": lambda f, t: [_simple(And, lambda e: e.at("f") & e.words, f, t)],
        "and-not": _and_not_moves,
        "with": lambda f, t: [_simple(With, lambda e: e.at("f"), f, t, scenes=False)],
        "close": _close_moves,
    }
    return [move for name in OPERATORS if name in operators for move in makers[name](formula, terms)]


def vectors_of(formula: Formula, words: UInt64[np.ndarray, "n"], concepts: ConceptWords, *, close: bool) -> Vectors:
    """The masks that the moves from a formula look at."""
    found = {"f": words}
    if close:
        found["near_f"] = neighbourhood(words)
    if (parts := _parts(formula)) is not None:
        for name, part in zip("ab", parts, strict=True):
            found[name] = words_of(part, concepts)
            found[f"near_{name}"] = neighbourhood(found[name])
        found["with_b"] = np.where(found["b"] != 0, ~np.uint64(0), np.uint64(0))
    return found


def areas(
    moves: Sequence[Move], vectors: Vectors, chunks: Sequence[Chunk], *, total: int, terms: int
) -> Int64[np.ndarray, "m t"]:
    """Cells of each new formula in the images of the chunks and in those without the label.

    Args:
        moves: the moves.
        vectors: see `vectors_of`.
        chunks: words of the labels.
        total: cells of the formula itself.
        terms: number of labels.
    """
    found = _filled(moves, total, terms)
    for chunk in chunks:
        entries = Entries(chunk, vectors)
        own = chunk.sums(np.bitwise_count(entries.at("f"))) if any(move.keeps for move in moves) else 0
        for row, move in zip(found, moves, strict=True):
            row[chunk.terms] += chunk.sums(np.bitwise_count(move.words(entries))) - own * move.keeps
    return found


def hits(
    moves: Sequence[Move],
    vectors: Vectors,
    chunks: Sequence[Chunk],
    unit: UInt64[np.ndarray, "n"],
    *,
    terms: int,
    chance: bool,
) -> Sums:
    """Active cells of each new formula, and its cells times the unit's active cells in their image.

    Args:
        moves: the moves.
        vectors: see `vectors_of`.
        chunks: words of the labels in images where the unit is active; others add nothing.
        unit: the unit's mask.
        terms: number of labels.
        chance: whether the second number is needed.
    """
    counts = np.bitwise_count(unit).astype(np.int64)
    own = vectors["f"]
    totals = int(np.bitwise_count(own & unit).sum()), int((np.bitwise_count(own) * counts).sum()) if chance else 0
    found = Sums(*(_filled(moves, part, terms) for part in totals))

    def sums(chunk: Chunk, words: UInt64[np.ndarray, "e"]) -> tuple[Int64[np.ndarray, "t2"], ...]:
        both = chunk.sums(np.bitwise_count(words & unit[chunk.image]))
        return both, chunk.sums(np.bitwise_count(words) * counts[chunk.image]) if chance else np.zeros_like(both)

    for chunk in chunks:
        entries = Entries(chunk, vectors)
        own_sums = sums(chunk, entries.at("f"))
        for at, move in enumerate(moves):
            for into, more, less in zip(found, sums(chunk, move.words(entries)), own_sums, strict=True):
                into[at, chunk.terms] += more - less if move.keeps else more
    return found


def _filled(moves: Sequence[Move], total: int, terms: int) -> Int64[np.ndarray, "m t"]:
    """What each new formula has if its label is nowhere, `total` being what the formula has."""
    column = np.array([total if move.keeps else 0 for move in moves], dtype=np.int64)
    return np.repeat(column, terms).reshape(len(moves), terms)


def _simple(
    kind: type[Or | And | AndNot | With],
    words: Callable[[Entries], np.ndarray],
    formula: Formula,
    terms: Terms,
    *,
    scenes: bool = True,
) -> Move:
    """The formula, an operator, the label."""
    allowed = _worth(formula, kind, terms) & (scenes | ~terms.whole)
    keeps = kind in {Or, AndNot}
    return Move(lambda p: kind(formula, p), words, keeps, True, False, allowed)


def _or_moves(formula: Formula, terms: Terms) -> list[Move]:
    found = [_simple(Or, lambda e: e.at("f") | e.words, formula, terms)]
    left: Callable[[Entries], np.ndarray]
    right: Callable[[Entries], np.ndarray]
    match formula:
        case With():
            left, right = lambda e: e.at("f") | (e.words & e.at("with_b")), lambda e: e.at("a")
        case CloseTo(_, (_,)):
            left = lambda e: e.at("f") | (e.words & e.at("near_b"))  # noqa: E731 one line each, beside its mirror
            right = lambda e: e.at("f") | (e.at("a") & e.near)  # noqa: E731
        case Close():
            left = lambda e: e.at("f") | (e.words & e.at("near_b")) | (e.at("b") & e.near)  # noqa: E731
            right = lambda e: e.at("f") | (e.words & e.at("near_a")) | (e.at("a") & e.near)  # noqa: E731
        case _:
            return found
    return [*found, *_inside(Or, formula, left, right, terms)]


def _and_not_moves(formula: Formula, terms: Terms) -> list[Move]:
    found = [_simple(AndNot, lambda e: e.at("f") & ~e.words, formula, terms)]
    left: Callable[[Entries], np.ndarray] = lambda e: e.at("f") & ~e.words  # noqa: E731 as above
    right: Callable[[Entries], np.ndarray]
    match formula:
        case With():
            right = lambda e: np.where((e.at("b") & ~e.words) != 0, e.at("f"), np.uint64(0))  # noqa: E731
        case CloseTo(_, (_,)):
            right = lambda e: e.at("a") & e.near_without("b")  # noqa: E731
        case Close():
            left, right = _less("a", "b"), _less("b", "a")
        case _:
            return found
    return [*found, *_inside(AndNot, formula, left, right, terms)]


def _less(name: str, other: str) -> Callable[[Entries], np.ndarray]:
    """A CLOSE from one of whose parts the label is taken."""

    def words(entries: Entries) -> UInt64[np.ndarray, "e"]:
        left = entries.at(name) & ~entries.words
        found: np.ndarray = (left & entries.at(f"near_{other}")) | (entries.at(other) & entries.near_without(name))
        return found

    return words


def _inside(
    kind: type[Or | AndNot],
    formula: Formula,
    left: Callable[[Entries], np.ndarray],
    right: Callable[[Entries], np.ndarray],
    terms: Terms,
) -> list[Move]:
    """An operator put into the left and into the right part of a relation."""
    close = not isinstance(formula, With)
    a, b = operands(formula)

    def related(one: Formula, other: Formula) -> Formula:
        match formula:
            case With():
                return With(one, other)
            case Close():
                return Close(one, other)
            case _:
                return CloseTo(one, (other,))

    return [
        Move(lambda p: related(kind(a, p), b), left, True, True, close, _worth(a, kind, terms)),
        Move(lambda p: related(a, kind(b, p)), right, True, True, close, _worth(b, kind, terms)),
    ]


def _close_moves(formula: Formula, terms: Terms) -> list[Move]:
    worth = _worth(formula, Close, terms)
    to: Callable[[Entries], np.ndarray] = lambda e: e.at("f") & e.near  # noqa: E731 used twice
    match formula:
        case CloseTo(left, rights):
            plain = all(isinstance(right, Label | Expanded) for right in rights)
            make = lambda p: CloseTo(left, (*rights, p))  # noqa: E731 one line, beside those below
            return [Move(make, to, False, True, True, worth & ~terms.whole)] if plain else []
        case Close():
            return []
        case _:
            pass

    def either(entries: Entries) -> UInt64[np.ndarray, "e"]:
        found: np.ndarray = (entries.at("f") & entries.near) | (entries.words & entries.at("near_f"))
        return found

    return [
        Move(lambda p: Close(formula, p), either, False, False, True, worth & ~terms.whole),
        Move(lambda p: CloseTo(formula, (p,)), to, False, True, True, worth & ~terms.whole),
        Move(lambda p: CloseTo(p, (formula,)), lambda e: e.words & e.at("near_f"), False, False, True, worth),
    ]


def _worth(part: Formula, kind: type, terms: Terms) -> Bool[np.ndarray, "t"]:
    """The labels that say something new beside a part of a formula: not itself, not in its chain already."""
    there: list[Formula] = [part] if isinstance(part, Label | Expanded) else []
    if kind in {Or, And} and isinstance(part, kind):
        there = _chain(part, kind)
    numbers = [leaf.number for leaf in there if isinstance(leaf, Label | Expanded)]
    return ~np.isin(terms.numbers, numbers)


def _chain(formula: Formula, kind: type) -> list[Formula]:
    """Operands of a chain of one operator."""
    if not isinstance(formula, kind):
        return [formula]
    return [leaf for part in operands(formula) for leaf in _chain(part, kind)]


def _parts(formula: Formula) -> tuple[Formula, Formula] | None:
    """Left and right part of a relation of two."""
    match formula:
        case With(left, right) | Close(left, right) | CloseTo(left, (right,)):
            return left, right
        case _:
            return None
