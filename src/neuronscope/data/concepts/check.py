"""Looking through a concept set before it is used: what is in it, and everything that is wrong with it, by file.

Nothing stops at the first problem. What is faulty is left out of the counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from neuronscope.data.concepts.annotations import Collected
from neuronscope.data.concepts.concept_data import ConceptData, Level
from neuronscope.data.concepts.framing import Side
from neuronscope.data.concepts.masks import ConceptMasks
from neuronscope.data.concepts.sources import NO_OPTIONS, ConceptOptions, load_concepts
from neuronscope.errors import InputError

Severity = Literal["error", "warning"]
"""An error stops a study; a warning is something that its author may not have meant."""

Images = Literal["decode", "skip"]
"""Whether every image is decoded, which takes most of the time."""


@dataclass(frozen=True)
class ConceptProblem:
    """Something wrong with a concept set.

    Attributes:
        file: where; empty when it is nowhere in particular.
        what: what is wrong, what was expected, what to do.
        severity: how bad it is.
    """

    file: str
    what: str
    severity: Severity


@dataclass(frozen=True)
class ConceptUse:
    """How often a concept occurs among the images that were looked at.

    Attributes:
        number, name, category, level: as in the concept table.
        images: images with it.
        pixels: mask pixels with it.
    """

    number: int
    name: str
    category: str
    level: Level
    images: int
    pixels: int


@dataclass(frozen=True)
class ConceptReport:
    """What a concept set holds.

    Attributes:
        name: of the set.
        images: images in it that were looked at.
        side: height and width of the masks.
        annotated: images annotated for each category.
        uses: every concept of the table.
        pixels: mask pixels of all images.
        labelled: those with at least one label.
        most: largest number of labels on one pixel.
        mean: mean number of labels on a pixel, unlabelled ones included.
        signatures: distinct sets of labels that pixels have; the set without labels counts, where there is any.
        pairs: distinct sets of labels, counted in each image anew.
        problems: everything that is wrong.
    """

    name: str
    images: int
    side: Side
    annotated: tuple[tuple[str, int], ...]
    uses: tuple[ConceptUse, ...]
    pixels: int
    labelled: int
    most: int
    mean: float
    signatures: int
    pairs: int
    problems: tuple[ConceptProblem, ...]

    @property
    def errors(self) -> tuple[ConceptProblem, ...]:
        """The problems that would stop a study."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    def text(self, *, most: int = 50) -> str:
        """The report for a terminal.

        Args:
            most: how many problems to list.
        """
        used = [use for use in self.uses if use.images]
        share = f"{self.labelled / self.pixels:.1%}" if self.pixels else "none"
        lines = [
            f"{self.name}: {self.images:,} images, {len(self.uses):,} concepts ({len(used):,} occur)",
            f"  masks       {self.side[0]} x {self.side[1]}",
            f"  pixels      {self.pixels:,}, labelled {share}",
            f"  labels      {self.mean:.2f} on a pixel on average, {self.most} at most",
            f"  signatures  {self.signatures:,} distinct sets of labels; {self.pairs:,} pairs of image and set",
        ]
        for category, images in self.annotated:
            inside = [use for use in self.uses if use.category == category]
            levels = Counter(use.level for use in inside)
            drawn = ", ".join(f"{many} {level}-level" for level, many in sorted(levels.items(), reverse=True))
            lines.append(f"  {category:<11} {len(inside):,} concepts ({drawn or 'none'}), {images:,} images annotated")
        warnings = len(self.problems) - len(self.errors)
        lines.append(f"{len(self.errors)} errors, {warnings} warnings" if self.problems else "no problems")
        lines += [_line(problem) for problem in self.problems[:most]]
        if len(self.problems) > most:
            lines.append(f"  ... and {len(self.problems) - most} more")
        return "\n".join(lines)


def check_concepts(
    source: str | Sequence[str],
    *,
    categories: Sequence[str] | None = None,
    limit: int | None = None,
    side: int | Side | None = None,
    options: ConceptOptions = NO_OPTIONS,
    images: Images = "decode",
) -> ConceptReport:
    """Load a source, read every annotation and image, and report what is there and what is wrong.

    Args:
        source: as for `load_concepts`, which see for the others.
        categories: only these.
        limit: at most so many images of each source; concepts that do not occur are no problem then.
        side: height and width of the masks.
        options: what only some sources understand.
        images: whether to decode the images, too.

    Example:
        >>> report = check_concepts("digits", limit=10, images="skip")
        >>> report.images, report.most, report.problems
        (10, 5, ())
    """
    found = Collected()
    try:
        concepts = load_concepts(source, categories=categories, limit=limit, side=side, options=options, report=found)
    except InputError as cause:
        problems = [ConceptProblem(file, what, "error") for file, what in dict.fromkeys(found.problems)]
        return _report(_named(source), None, [*problems, ConceptProblem("", str(cause), "error")], _Counts())
    return check(concepts, images=images, found=found.problems, whole_set="yes" if limit is None else "no")


def check(
    concepts: ConceptData,
    *,
    images: Images = "decode",
    found: Sequence[tuple[str, str]] = (),
    whole_set: Literal["yes", "no"] = "yes",
) -> ConceptReport:
    """Read every annotation and image of a set, and report what is there and what is wrong.

    Args:
        concepts: the set.
        images: whether to decode the images, too.
        found: problems, as (file, what), that are known already.
        whole_set: `no` when it is part of a larger set: then concepts and categories that do not occur are no
            problem.
    """
    problems = [ConceptProblem(file, what, "error") for file, what in dict.fromkeys(found)]
    counts = _Counts()
    for row in range(len(concepts)):
        problems += counts.add(concepts, row)
        if images == "decode":
            try:
                concepts.images.read(row)
            except InputError as cause:
                problems.append(ConceptProblem(concepts.images.ids[row], str(cause), "error"))
    if whole_set == "yes":
        for one in concepts.concepts:
            if not counts.images[one.number]:
                what = (
                    f"concept {one.number} '{one.name}' ({one.category}) is in no image: expected at least one. "
                    "Take it out of the table, or complete the annotations"
                )
                problems.append(ConceptProblem("", what, "warning"))
        for column, category in enumerate(concepts.categories):
            lacks = (
                "concepts"
                if not any(category in (one.category, *dict(one.categories)) for one in concepts.concepts)
                else ("" if concepts.annotated[:, column].any() else "annotated images")
            )
            if lacks:
                problems.append(
                    ConceptProblem("", f"category '{category}' has no {lacks}: expected some. Leave it out", "warning")
                )
    return _report(concepts.name, concepts, problems, counts)


class _Counts:
    """Running counts over images."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self.images: Counter[int] = Counter()
        self.pixels: Counter[int] = Counter()
        self.total = self.labelled = self.labels = self.most = self.pairs = 0
        self.signatures: set[bytes] = set()

    def add(self, concepts: ConceptData, row: int) -> list[ConceptProblem]:
        """Count one image, without those of its annotations that cannot be read, which are returned."""
        problems = []
        fitted = [np.zeros((0, *concepts.side), dtype=np.int32)]
        for source in concepts.reader.sources(row):
            try:
                fitted.append(concepts.framing.fit(source.read(), side=concepts.side))
            except InputError as cause:
                problems.append(ConceptProblem(source.file, _without(source.file, str(cause)), "error"))
        masks = ConceptMasks(np.concatenate(fitted).astype(np.int32), np.unique(concepts.reader.whole(row)))
        tuples, pixels = masks.tuples()
        self._count(tuples, pixels)
        return problems

    def _count(self, tuples: Int[np.ndarray, "s deep"], pixels: Int[np.ndarray, "s"]) -> None:
        """Count the label sets of one image."""
        deep = (tuples > 0).sum(axis=1)
        self.total += int(pixels.sum())
        self.labelled += int(pixels[deep > 0].sum())
        self.labels += int((deep * pixels).sum())
        self.most = max(self.most, int(deep.max(initial=0)))
        self.pairs += len(tuples)
        for row, many, labels in zip(tuples, pixels.tolist(), deep.tolist(), strict=True):
            of_pixel = row[len(row) - labels :]  # without the zeros, of which deeper images have more
            self.signatures.add(of_pixel.astype(np.int32).tobytes())
            for number in of_pixel.tolist():
                self.pixels[number] += many
        self.images.update(np.unique(tuples[tuples > 0]).tolist())


def _report(
    name: str, concepts: ConceptData | None, problems: Sequence[ConceptProblem], counts: _Counts
) -> ConceptReport:
    """The counts and problems as a report; an empty one for a set that could not be loaded."""
    return ConceptReport(
        name=name,
        images=len(concepts) if concepts else 0,
        side=concepts.side if concepts else (0, 0),
        annotated=tuple(zip(concepts.categories, concepts.annotated.sum(axis=0).tolist(), strict=True))
        if concepts
        else (),
        uses=tuple(
            ConceptUse(c.number, c.name, c.category, c.level, counts.images[c.number], counts.pixels[c.number])
            for c in (concepts.concepts if concepts else ())
        ),
        pixels=counts.total,
        labelled=counts.labelled,
        most=counts.most,
        mean=counts.labels / counts.total if counts.total else 0.0,
        signatures=len(counts.signatures),
        pairs=counts.pairs,
        problems=tuple(problems),
    )


def _named(source: str | Sequence[str]) -> str:
    """A source that could not be loaded."""
    return source if isinstance(source, str) else "+".join(source)


def _without(file: str, what: str) -> str:
    """A message without the file that stands beside it."""
    return what.removeprefix(f"'{file}': ")


def _line(problem: ConceptProblem) -> str:
    """One problem, for a terminal."""
    where = f"{problem.file}: " if problem.file else ""
    return f"  {problem.severity}: {where}{problem.what}"
