"""Annotation files, read with suspicion: CSV tables, label-map PNGs, sizes of images; and what becomes of faults.

A reader hands everything that it finds wrong to a `Report` and goes on without the faulty part. `refuse`, the usual
one, raises at the first; a `Collected` keeps all of them, which is how `check_concepts` finds every problem at once.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from jaxtyping import Int

from neuronscope.data import formats
from neuronscope.data.dataset import Data
from neuronscope.data.formats import GZIP_MAGIC, IMAGE_FORMATS
from neuronscope.errors import DataError

Report = Callable[[str, str], None]
"""Is told a file and what is wrong with it, in the four parts of an error message; may raise."""

Encoding = Literal["index", "r+256g"]
"""How a PNG holds label numbers: the grey level or palette index, or red + 256 * green of a colour picture."""

MODES: Mapping[Encoding, tuple[str, ...]] = {
    "index": ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"),
    "r+256g": ("RGB",),
}
"""Modes of PIL that each encoding may come in."""

LONGEST_FIELD = 2**24
"""Characters of one CSV field; the csv module's own limit of 131,072 is too short for long lists of labels."""


def refuse(file: str, what: str) -> NoReturn:
    """Raise the first problem.

    Raises:
        DataError: always.
    """
    message = f"'{file}': {what}"
    raise DataError(message)


@dataclass
class Collected:
    """Keeps every problem, as (file, what is wrong)."""

    problems: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, file: str, what: str) -> None:
        """Keep one problem."""
        self.problems.append((file, what))


def read_table(
    path: Path, *, required: Sequence[str], report: Report = refuse, header: Sequence[str] = ()
) -> list[dict[str, str]]:
    """The rows of a CSV file by column name, gzipped or not; surrounding blanks are taken off.

    Args:
        path: the file.
        required: columns that must be there. When one is missing that is reported, and there are no rows.
        report: is told what is wrong.
        header: column names for a file whose first row holds none of `required`; none: a header is a must.
    """
    try:
        content = path.read_bytes()
        if content[: len(GZIP_MAGIC)] == GZIP_MAGIC:
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        report(str(path), f"is not there: expected a table with the columns {', '.join(required)}. Check the path")
        return []
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as cause:
        report(str(path), f"cannot be read: expected a CSV table in UTF-8, got {cause}. Write it anew")
        return []
    previous = csv.field_size_limit(LONGEST_FIELD)
    try:
        lines = [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(text, newline=""), strict=False)]
    except csv.Error as cause:
        report(str(path), f"cannot be read: expected a CSV table, got {cause}. Write it anew")
        return []
    finally:
        csv.field_size_limit(previous)
    lines = [line for line in lines if any(line)]
    columns = lines[0] if lines else []
    if header and not set(columns) & set(required):
        columns = list(header)
    elif lines:
        lines = lines[1:]
    missing = [column for column in required if column not in columns]
    if missing:
        came = ", ".join(columns) or "nothing"
        report(str(path), f"lacks the column {', '.join(missing)}: expected {', '.join(required)}, got {came}. Add it")
        return []
    return [dict(zip(columns, line + [""] * (len(columns) - len(line)), strict=False)) for line in lines]


def whole_number(text: str, *, file: str, what: str, report: Report = refuse, default: int | None = None) -> int | None:
    """A whole number from 0 on in a cell; `default` for an empty cell; None, and a report, for anything else."""
    if not text and default is not None:
        return default
    if not (text.isascii() and text.isdigit()):
        report(file, f"{what} is '{text}': expected a whole number from 0 on. Correct it")
        return None
    return int(text)


def decimal(text: str, *, default: float = 0.0) -> float:
    """A number in a cell that only orders things; `default` where it is none."""
    try:
        return float(text)
    except ValueError:
        return default


def read_labels_png(path: Path, *, encoding: Encoding = "index") -> Int[np.ndarray, "y x"]:
    """The label numbers in a PNG.

    Args:
        path: the file: 1, 8 or 16 bits of grey, a palette (the index counts, not the colour), or RGB.
        encoding: how the numbers are written; RGB pictures must be announced as `r+256g` and others must not be.

    Raises:
        DataError: the file is not there, torn, no picture, or of a mode that does not fit the encoding.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=IMAGE_FORMATS) as opened:
            _expect_size(path, opened)
            mode = opened.mode
            if mode in MODES[encoding]:
                pixels = np.asarray(opened)
    except DataError:
        raise
    except FileNotFoundError:
        refuse(str(path), "is not there: expected a label map. Put it there, or correct the list that names it")
    except Exception as cause:  # noqa: BLE001 decoders of broken files raise nearly anything, warnings included
        refuse(str(path), f"cannot be read: {cause or type(cause).__name__}. Expected a complete PNG. Make it anew")
    if mode not in MODES[encoding]:
        other = "r+256g" if mode == "RGB" else "index"
        hint = f" or say that it is written as '{other}'" if other != encoding else ""
        refuse(
            str(path),
            f"is a PNG of the mode {mode}: expected {' or '.join(MODES[encoding])} for the encoding '{encoding}'. "
            f"Convert it{hint}",
        )
    if encoding == "r+256g":
        wide = pixels.astype(np.int32)  # before the multiplication: 256 * green does not fit into 8 bits
        return wide[..., 0] + 256 * wide[..., 1]
    return pixels.astype(np.int32)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image, from its header.

    Raises:
        DataError: the file is not there or no image.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=IMAGE_FORMATS) as opened:
            _expect_size(path, opened)
            return opened.height, opened.width
    except DataError:
        raise
    except FileNotFoundError:
        refuse(str(path), "is not there: expected an image. Put it there, or correct the list that names it")
    except Exception as cause:  # noqa: BLE001 decoders of broken files raise nearly anything
        refuse(str(path), f"cannot be read: {cause or type(cause).__name__}. Expected a complete image. Replace it")


def expect_same_shape(file: str, came: tuple[int, int], image: tuple[int, int]) -> None:
    """Refuse a label map that cannot belong to its image: it may be smaller or larger, but not of another shape.

    One pixel of rounding is granted along the coarser of the two.

    Raises:
        DataError: height and width are not in the proportion of the image's.
    """
    (height, width), (of_height, of_width) = came, image
    slack = max(height, width, of_height, of_width)
    if abs(height * of_width - width * of_height) > slack:
        refuse(
            file,
            f"is {height} x {width} (height x width), but its image {of_height} x {of_width}: expected the same "
            "proportions. Make the label map from this very image",
        )


def expect_listed(
    numbers: Int[np.ndarray, "..."],
    listed: Int[np.ndarray, "k"],
    *,
    file: str,
    table: str,
    allowed: Iterable[int] = (0,),
) -> None:
    """Refuse label numbers that the table of labels does not have.

    Raises:
        DataError: there is one.
    """
    strange = np.setdiff1d(np.unique(numbers), np.union1d(listed, np.array([*allowed], dtype=np.int64)))
    if strange.size:
        more = f" (and {strange.size - 1} more)" if strange.size > 1 else ""
        refuse(
            file,
            f"holds the label {strange[0]}{more}, which {table} does not list: expected one of its {len(listed)} "
            "numbers. Add it to the table or correct the file",
        )


def image_files(
    name: str, folder: Path, names: Sequence[str], *, labels: Sequence[int] | None = None, classes: Sequence[str] = ()
) -> Data:
    """Image files of a concept set as a data set; without class labels unless there are some."""
    numbers = np.array(labels if labels is not None else [-1] * len(names), dtype=np.int64)
    return Data(
        name=name,
        read=formats.ImageFiles(folder, tuple(names)),
        labels=numbers,
        classes=tuple(classes),
        fingerprint=formats.fingerprint_files(folder, names, numbers, classes),
        ids=tuple(names),
    )


def digest_of(files: Iterable[Path | str], *further: object) -> str:
    """A SHA-256 over the content of files and the `repr` of further things; a missing file counts as missing.

    About 1 s for 20,000 small files that are in the disk cache.
    """
    digest = hashlib.sha256(repr(further).encode())
    for file in files:
        try:
            content = Path(file).read_bytes()
        except OSError:
            content = b"unreadable"  # an error only when the masks are asked for
        digest.update(len(content).to_bytes(8, "little") + hashlib.sha256(content).digest())
    return digest.hexdigest()


def _expect_size(path: Path, opened: Any) -> None:
    """Refuse pictures so large that they look like an attack."""
    from PIL import Image

    most = Image.MAX_IMAGE_PIXELS
    if most is not None and opened.width * opened.height > most:
        refuse(str(path), f"has {opened.width} x {opened.height} pixels: expected at most {most}. Replace it")
