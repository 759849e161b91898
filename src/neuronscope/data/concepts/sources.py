"""Where concepts come from: one table of sources, one function that asks it.

A source is written `NAME:PATH`, or `NAME:PATH,PATH` where files lie in different places. Third parties add one through
the entry point group `neuronscope.concepts`: a function from `ConceptRequest` to `ConceptData`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import get_args

import numpy as np

from neuronscope.data.concepts.annotations import Encoding, Report, read_table, refuse
from neuronscope.data.concepts.broden import Ties, load_broden
from neuronscope.data.concepts.concept_data import ConceptData, combine, expect_categories
from neuronscope.data.concepts.digits import load_digit_concepts
from neuronscope.data.concepts.framing import Side
from neuronscope.data.concepts.instances import Crowd, load_coco, load_yolo
from neuronscope.data.concepts.labelmaps import load_label_maps, map_folders
from neuronscope.data.concepts.tags import load_boxes, load_classes, load_tags
from neuronscope.data.dataset import OnError, balanced_rows
from neuronscope.errors import DataError, InputError, UnknownName, nearest

ENTRY_POINTS = "neuronscope.concepts"


@dataclass(frozen=True)
class ConceptOptions:
    """What only some sources understand; None leaves it to the source.

    Attributes:
        subset: Broden: the images of one of its sources, such as `ade20k`.
        ties: Broden: which of several equal categories is the primary one.
        encoding: label maps: how numbers are written.
        crowd: COCO: whether crowd regions count.
        category: category of concepts for which the source gives none.
        digits: which part of the digits.
    """

    subset: str | None = None
    ties: Ties | None = None
    encoding: Encoding | None = None
    crowd: Crowd | None = None
    category: str | None = None
    digits: str | None = None


NO_OPTIONS = ConceptOptions()
"""Everything is left to the source."""

_VALUES: dict[str, tuple[str, ...]] = {
    "ties": get_args(Ties),
    "encoding": get_args(Encoding),
    "crowd": get_args(Crowd),
}
"""Options that know only a few values."""


def concept_options(words: Sequence[str]) -> ConceptOptions:
    """Options as people write them: `subset=ade20k`.

    Raises:
        InputError: no `=`, or a value that the option does not know.
        UnknownName: no such option.

    Example:
        >>> concept_options(["subset=ade20k", "ties=last"]).subset
        'ade20k'
    """
    known = [option.name for option in fields(ConceptOptions)]
    found: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not value:
            message = f"'{word}' is no option of a concept source: expected NAME=VALUE, such as subset=ade20k"
            raise InputError(message)
        if name not in known:
            message = f"'{name}' is no option of a concept source: expected {', '.join(known)}.{nearest(name, known)}"
            raise UnknownName(message)
        if value not in _VALUES.get(name, (value,)):
            message = f"{name} cannot be '{value}': expected {' or '.join(_VALUES[name])}"
            raise InputError(message)
        found[name] = value
    return ConceptOptions(**found)  # type: ignore[arg-type]  # values of literals were checked


@dataclass(frozen=True)
class ConceptRequest:
    """What a source is asked for.

    Attributes:
        source: as the caller wrote it, for messages.
        name: the part before the colon.
        rest: the part after it.
        categories: those wanted, for sources that can spare themselves the others; None for all.
        options: what only some sources understand.
        report: is told of everything that is wrong.
    """

    source: str
    name: str
    rest: str = ""
    categories: tuple[str, ...] | None = None
    options: ConceptOptions = NO_OPTIONS
    report: Report = refuse

    @property
    def called(self) -> str:
        """Name of the set: the source without the folders above it."""
        last = Path(self.rest.partition(",")[0]).expanduser().resolve().name if self.rest else ""
        return f"{self.name}:{last}" if last else self.name

    def parts(self, *names: str, optional: int = 0) -> tuple[str, ...]:
        """The comma-separated parts of the rest; a path that exists as it stands is one part, commas and all.

        Args:
            names: what the parts are, for the message.
            optional: how many at the end may be left out.

        Raises:
            InputError: there are too few or too many.
        """
        if self.rest and Path(self.rest).expanduser().exists():
            found: tuple[str, ...] = (self.rest,)
        else:
            found = tuple(part.strip() for part in self.rest.split(",") if part.strip())
        if not len(names) - optional <= len(found) <= len(names):
            form = ",".join(names[: len(names) - optional]) + "".join(
                f"[,{name}]" for name in names[len(names) - optional :]
            )
            message = (
                f"'{self.source}' has {len(found)} parts after the colon: expected {self.name}:{form}. Complete it"
            )
            raise InputError(message)
        return found

    def folder(self, path: str) -> Path:
        """A folder that the source names.

        Raises:
            DataError: it is not there.
        """
        found = Path(path).expanduser()
        if not found.is_dir():
            what = "a file" if found.exists() else "not there"
            message = f"'{found}' is {what}: expected the folder of {self.name}. Check the path in '{self.source}'"
            raise DataError(message)
        return found


def load_concepts(
    source: str | Sequence[str],
    *,
    categories: Sequence[str] | None = None,
    limit: int | None = None,
    side: int | Side | None = None,
    split: str | None = None,
    on_error: OnError = "raise",
    seed: int = 0,
    options: ConceptOptions = NO_OPTIONS,
    report: Report = refuse,
) -> ConceptData:
    """The images and concepts of a source; masks are read later, as they are needed.

    Masks cover the whole image (`ConceptData.framing`). So the network must see the whole image, too: give it
    `squashed(subject.preprocess)`, or let the masks follow its centre crop with `ConceptData.seen_by`.

    Args:
        source: one, or several that are combined: `broden:FOLDER`, `labelmaps:FOLDER` (or
            `labelmaps:IMAGES,MASKS,LABELS.csv`), `coco:IMAGES,JSON`, `yolo:FOLDER[,NAMES]`,
            `classes:FOLDER[,CATEGORY]`, `tags:CSV[,IMAGES]`, `boxes:CSV[,IMAGES]`, `digits`, or a third party's.
        categories: only concepts of these categories, and images annotated for any of them. The primary category of a
            concept of Broden is then that among these.
        limit: at most so many images; with as many of each source, or, for a single one, of each class, as can be.
        side: height and width of the masks; when left out that of the source (Broden: half the image's side; digits:
            28), otherwise 112 x 112. Combined sources have that of the first.
        split: only images of this split, from the sources that have it (Broden: `train`, `val`).
        on_error: what a sweep does with an image that cannot be read.
        seed: decides which images a `limit` takes.
        options: what only some sources understand.
        report: is told what is wrong with the annotations; the usual one raises.

    Raises:
        UnknownName: no such source, category or split; the message offers the nearest.
        DataError: files are missing or wrong.
        InputError: an option that does not fit the source, a limit or side below 1.

    Example:
        >>> digits = load_concepts("digits", categories=["stroke"], limit=20)
        >>> len(digits), digits.side, [concept.name for concept in digits.concepts]
        (20, (28, 28), ['horizontal stroke', 'vertical stroke', 'rising stroke', 'falling stroke'])
    """
    if limit is not None and limit < 1:
        message = f"limit is {limit}: expected at least 1 image, or no limit"
        raise InputError(message)
    sources = (source,) if isinstance(source, str) else tuple(source)
    _expect_understood(sources, options)
    wanted = tuple(categories) if categories is not None else None
    parts = [_load(one, wanted, options, report) for one in sources]
    if wanted is not None:
        parts = _of_categories(parts, wanted, lambda: [_load(one, None, options, report) for one in sources])
    if split is not None:
        having = [part for part in parts if split in part.splits]
        parts = [part.of_split(split) for part in having or parts]  # without any, the first says what it has
    origin = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    found = combine(parts)
    found = replace(found, images=replace(found.images, on_error=on_error))
    if limit is not None and limit < len(found):
        even = found.images.labels if len(parts) == 1 else origin
        found = found.take(balanced_rows(even, limit=limit, seed=seed))
    return found if side is None else found.at(side)


def from_broden(request: ConceptRequest) -> ConceptData:
    """`broden:FOLDER`."""
    folder = request.folder(*request.parts("FOLDER"))
    options = request.options
    table = read_table(folder / "category.csv", required=("name",), report=request.report)
    known = [row["name"] for row in table if row["name"] in (request.categories or ())]
    return load_broden(
        folder,
        name=request.called,
        categories=known or None,
        subset=options.subset,
        ties=options.ties or "first",
        report=request.report,
    )


def from_label_maps(request: ConceptRequest) -> ConceptData:
    """`labelmaps:FOLDER` or `labelmaps:IMAGES,MASKS,LABELS.csv`."""
    images, *others = request.parts("IMAGES", "MASKS", "LABELS.csv", optional=2)
    options = request.options
    if len(others) == 1:
        message = f"'{request.source}' lacks the table: expected labelmaps:FOLDER or labelmaps:IMAGES,MASKS,LABELS.csv"
        raise InputError(message)
    folder = request.folder(images)
    return load_label_maps(
        folder if others else folder / "images",
        [request.folder(others[0])] if others else map_folders(folder),
        Path(others[1]).expanduser() if others else folder / "labels.csv",
        name=request.called,
        encoding=options.encoding or "index",
        category=options.category or "object",
        report=request.report,
    )


def from_coco(request: ConceptRequest) -> ConceptData:
    """`coco:IMAGES,JSON`."""
    images, instances = request.parts("IMAGES", "JSON")
    options = request.options
    return load_coco(
        request.folder(images),
        Path(instances).expanduser(),
        name=request.called,
        crowd=options.crowd or "include",
        category="object" if options.category is None else options.category,
        report=request.report,
    )


def from_yolo(request: ConceptRequest) -> ConceptData:
    """`yolo:FOLDER` or `yolo:FOLDER,NAMES`."""
    folder, *names = request.parts("FOLDER", "NAMES", optional=1)
    options = request.options
    return load_yolo(
        request.folder(folder),
        names=Path(names[0]).expanduser() if names else None,
        name=request.called,
        category=options.category or "object",
        report=request.report,
    )


def from_classes(request: ConceptRequest) -> ConceptData:
    """`classes:FOLDER` or `classes:FOLDER,CATEGORY`."""
    folder, *category = request.parts("FOLDER", "CATEGORY", optional=1)
    options = request.options
    of = category[0] if category else options.category or "class"
    return load_classes(request.folder(folder), name=request.called, category=of, report=request.report)


def from_tags(request: ConceptRequest) -> ConceptData:
    """`tags:CSV` or `tags:CSV,IMAGES`."""
    table, *images = request.parts("CSV", "IMAGES", optional=1)
    options = request.options
    return load_tags(
        Path(table).expanduser(),
        images=request.folder(images[0]) if images else None,
        name=request.called,
        category=options.category or "tag",
        report=request.report,
    )


def from_boxes(request: ConceptRequest) -> ConceptData:
    """`boxes:CSV` or `boxes:CSV,IMAGES`."""
    table, *images = request.parts("CSV", "IMAGES", optional=1)
    options = request.options
    return load_boxes(
        Path(table).expanduser(),
        images=request.folder(images[0]) if images else None,
        name=request.called,
        category=options.category or "object",
        report=request.report,
    )


def from_digits(request: ConceptRequest) -> ConceptData:
    """`digits`, `digits:train`, `digits:report` or `digits:all`."""
    options = request.options
    if request.rest and options.digits not in (None, request.rest):
        message = f"'{request.source}' and digits={options.digits!r} contradict each other: give one of them"
        raise InputError(message)
    return load_digit_concepts(split=request.rest or options.digits)


ConceptLoader = Callable[[ConceptRequest], ConceptData]

CONCEPT_SOURCES: dict[str, ConceptLoader] = {
    "boxes": from_boxes,
    "broden": from_broden,
    "classes": from_classes,
    "coco": from_coco,
    "digits": from_digits,
    "labelmaps": from_label_maps,
    "tags": from_tags,
    "yolo": from_yolo,
}
"""The part of a source before its colon -> what loads it."""


OPTIONS: dict[str, tuple[str, ...]] = {
    "broden": ("subset", "ties"),
    "boxes": ("category",),
    "classes": ("category",),
    "coco": ("crowd", "category"),
    "digits": ("digits",),
    "labelmaps": ("encoding", "category"),
    "tags": ("category",),
    "yolo": ("category",),
}
"""Which options each source understands. Those of third parties are taken to understand all."""


def _expect_understood(sources: Sequence[str], options: ConceptOptions) -> None:
    """Refuse options that no source understands."""
    names = [source.partition(":")[0] for source in sources]
    every = tuple(option.name for option in fields(options))
    understood = {option for name in names for option in OPTIONS.get(name, every)}
    for option in every:
        value = getattr(options, option)
        if value is not None and option not in understood:
            message = (
                f"{', '.join(names)} has no option {option}: expected {', '.join(sorted(understood)) or 'none'}, got "
                f"{option}={value!r}. Leave it out"
            )
            raise InputError(message)


def _load(source: str, categories: tuple[str, ...] | None, options: ConceptOptions, report: Report) -> ConceptData:
    """One source; it may, but need not, leave out what is of no wanted category."""
    name, _, rest = source.partition(":")
    request = ConceptRequest(source=source, name=name, rest=rest, categories=categories, options=options, report=report)
    return _source(request)(request)


def _of_categories(
    parts: Sequence[ConceptData], wanted: tuple[str, ...], everything: Callable[[], list[ConceptData]]
) -> list[ConceptData]:
    """What is of the wanted categories; sets without any of them are left out."""
    known = {category for part in parts for category in part.categories}
    if not wanted or not known.issuperset(wanted):
        whole = everything()  # only to name all that there are
        names = list(dict.fromkeys(category for part in whole for category in part.categories))
        expect_categories(wanted, names, name="+".join(part.name for part in whole))
    chosen = [(part, [category for category in part.categories if category in wanted]) for part in parts]
    # A source that has chosen already knows best which images to keep: Broden keeps those whose only cell is a scene 0.
    return [
        part if len(inside) == len(part.categories) else part.of_categories(inside) for part, inside in chosen if inside
    ]


def _source(request: ConceptRequest) -> ConceptLoader:
    """The loader of a source: ours, or a third party's."""
    if request.name in CONCEPT_SOURCES:
        return CONCEPT_SOURCES[request.name]
    others = entry_points(group=ENTRY_POINTS)
    if request.name in others.names:
        loader: ConceptLoader = others[request.name].load()
        return loader
    known = sorted({*CONCEPT_SOURCES, *others.names})
    message = (
        f"'{request.name}' is no source of concepts: expected one of {', '.join(known)}, got '{request.source}'."
        f"{nearest(request.name, known)}"
    )
    raise UnknownName(message)
