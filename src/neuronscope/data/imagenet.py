"""ImageNet (ILSVRC-2012) as people have it on disk, brought to the standard numbering of its 1,000 classes.

Two layouts are read: class sub-folders named by wnid (`n01440764`), and a flat folder of images with a label file.
Class numbers 0 to 999 follow the sorted wnids, as in the outputs of published networks. Where numbers do not come with
the labels, a list of all wnids must lie beside the images. `sort_imagenet` turns the second layout into the first.
"""

from __future__ import annotations

import bisect
import csv
import filecmp
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
from jaxtyping import Int

from neuronscope.data.formats import image_names, is_image
from neuronscope.errors import DataError, StorageError

CLASSES = 1000
WNID = re.compile(r"n\d{8}")
SYNSET_FILES = ("synset_words.txt", "LOC_synset_mapping.txt")
"""Lists of all classes: a line for each, `n01440764 tench, Tinca tinca` (from Caffe and from Kaggle)."""
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
LABEL_FILES = ("labels.csv", "LOC_val_solution.csv", GROUND_TRUTH, "val.txt")
"""Names under which a label file is found without being given."""
IMAGE_COLUMNS = ("image", "file", "filename", "path", "imageid", "image_id")
CLASS_COLUMNS = ("class", "label", "target", "class_id")
WNID_COLUMNS = ("wnid", "synset")
KAGGLE_COLUMN = "predictionstring"


@dataclass(frozen=True)
class Listing:
    """Images of a folder, before anything is decoded.

    Attributes:
        folder: what the names are relative to.
        names: image files, parts separated by `/`.
        labels: class number of each.
        classes: class names.
    """

    folder: Path
    names: tuple[str, ...]
    labels: Int[np.ndarray, "n"]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Synsets:
    """The classes: wnids in standard order, and a name for each."""

    wnids: tuple[str, ...]
    names: tuple[str, ...]

    def number(self, wnid: str) -> int:
        """The class number of a wnid, -1 when it is none of the classes."""
        number = bisect.bisect_left(self.wnids, wnid)  # they are sorted: that is the standard order
        return number if number < len(self.wnids) and self.wnids[number] == wnid else -1


@dataclass(frozen=True)
class Label:
    """What a label file says of one image: a class number, a wnid, or both."""

    number: int | None
    wnid: str | None


@dataclass(frozen=True)
class Sorted:
    """What `sort_imagenet` did, or would do.

    Attributes:
        moved: images that went into their class's sub-folder.
        already: images that lay there before.
        missing: images in the label file that are nowhere below the folder.
        unlabelled: images in the folder that the label file does not know; they stay.
    """

    moved: tuple[str, ...]
    already: tuple[str, ...]
    missing: tuple[str, ...]
    unlabelled: tuple[str, ...]


def list_imagenet(folder: Path, *, labels: Path | None = None) -> Listing:
    """The images in an ImageNet folder with class numbers 0 to 999.

    A flat folder needs a label file: the one given, or one of these in the folder or the one above it: a CSV file with
    a header (`labels.csv`; an image column and a class number or wnid), Kaggle's `LOC_val_solution.csv`, Caffe's
    `val.txt`, or the development kit's `ILSVRC2012_validation_ground_truth.txt` with `meta.mat` beside it. The images
    may also lie in a sub-folder `images`.

    Args:
        folder: class sub-folders, images, or `images/` with a label file.
        labels: the label file, when it lies elsewhere.

    Raises:
        DataError: there are no images, an image has no label, or the numbers of the classes cannot be known.
    """
    root = _image_folder(folder)
    wnids = _wnid_folders(root)
    loose = _loose_images(root)
    if wnids and loose:
        message = (
            f"'{root}' holds {len(wnids)} class sub-folders and {len(loose)} images beside them, such as '{loose[0]}': "
            "expected one or the other. Finish the sorting with: neuronscope data sort-imagenet"
        )
        raise DataError(message)
    if not wnids and not loose:
        inside = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        hint = f" It has the folders {', '.join(inside[:5])}: did you mean one of them?" if inside else ""
        message = (
            f"'{root}' holds no ImageNet images: expected sub-folders named like n01440764, or images with a label "
            f"file.{hint}"
        )
        raise DataError(message)
    file = labels or _label_file(root)
    synsets = _synsets(root, file)
    return _sorted_listing(root, wnids, file, synsets) if wnids else _flat_listing(root, loose, file, synsets)


def sort_imagenet(folder: Path, *, labels: Path | None = None, action: Literal["move", "plan"] = "move") -> Sorted:
    """Sort a flat validation folder into class sub-folders named by wnid, once and safely repeatable.

    Each image is moved by one rename within the folder, so a crash leaves every image in its old or its new place, and
    the next call completes the work. A file is never overwritten by a different one.

    Args:
        folder: images, or `images/` with a label file; some may be sorted already.
        labels: the label file, when it lies elsewhere (see `list_imagenet` for its forms).
        action: `plan` only reports what `move` would do.

    Raises:
        DataError: there is no label file, a label's wnid cannot be known, or the place of an image is taken by another
            image; found before anything is moved.
        StorageError: the folder cannot be written to.
    """
    root = _image_folder(folder)
    file = labels or _label_file(root)
    if file is None:
        _no_label_file(root)
    synsets = _synsets(root, file)
    loose = _loose_images(root)
    present, by_stem = set(loose), {Path(name).stem: name for name in loose}
    moves: dict[str, Path] = {}
    already, missing = [], []
    for name, label in _read_labels(file).items():
        wnid = _wnid_of(name, label, synsets, file)
        source = name if name in present else by_stem.get(Path(name).stem)
        if source is not None:
            moves[source] = root / wnid / source
        elif (place := _sorted_place(root / wnid, name)) is not None:
            already.append(place)
        else:
            missing.append(name)
    for source, target in moves.items():
        if target.exists() and not filecmp.cmp(root / source, target, shallow=False):
            message = (
                f"'{root / source}' belongs to '{target}', where a different file lies: expected none. "
                "Nothing was moved; remove the wrong one"
            )
            raise DataError(message)
    if action == "move":
        _move(root, moves)
    return Sorted(
        moved=tuple(sorted(moves)),
        already=tuple(sorted(already)),
        missing=tuple(sorted(missing)),
        unlabelled=tuple(name for name in loose if name not in moves),
    )


def _move(root: Path, moves: Mapping[str, Path]) -> None:
    """Give each image its new place, by renames."""
    try:
        for source, target in moves.items():
            target.parent.mkdir(exist_ok=True)
            os.replace(root / source, target)  # noqa: PTH105 the name says what happens to an equal file: one remains
    except OSError as cause:
        message = (
            f"images in '{root}' cannot be moved: {cause}. Expected a folder that may be written to. "
            "What was moved is in its right place: call again to complete the work"
        )
        raise StorageError(message) from cause


def _image_folder(folder: Path) -> Path:
    """The folder itself, or its `images` sub-folder where that holds the images."""
    if not folder.is_dir():
        message = f"'{folder}' is not a folder: expected ImageNet images. Give imagenet:PATH with the folder's path"
        raise DataError(message)
    images = folder / "images"
    inside = images.is_dir() and not _wnid_folders(folder) and not _loose_images(folder)
    return images if inside else folder


def _wnid_folders(root: Path) -> list[str]:
    """Sub-folders named by wnid, sorted."""
    return sorted(entry.name for entry in os.scandir(root) if WNID.fullmatch(entry.name) and entry.is_dir())


def _loose_images(root: Path) -> list[str]:
    """Image files directly in a folder, sorted."""
    return sorted(entry.name for entry in os.scandir(root) if is_image(entry.name) and entry.is_file())


def _beside(root: Path, names: Iterable[str]) -> Path | None:
    """The first of some files that lies in a folder or the one above it."""
    places = (root / name for name in names), (root.resolve().parent / name for name in names)
    return next((path for paths in places for path in paths if path.is_file()), None)


def _label_file(root: Path) -> Path | None:
    """A label file in the usual places."""
    return _beside(root, LABEL_FILES)


def _sorted_listing(root: Path, wnids: list[str], file: Path | None, synsets: Synsets | None) -> Listing:
    """Images in class sub-folders."""
    if synsets is not None:
        numbers = {wnid: synsets.number(wnid) for wnid in wnids}
    elif len(wnids) == CLASSES:
        numbers = {wnid: number for number, wnid in enumerate(wnids)}
    elif file is not None:
        known = _read_labels(file).values()
        numbers = {label.wnid: label.number for label in known if label.wnid and label.number is not None}
    else:
        numbers = {}
    unknown = [wnid for wnid in wnids if numbers.get(wnid, -1) < 0]
    if unknown:
        message = (
            f"'{root}' holds {len(wnids)} of ImageNet's {CLASSES} class folders, and the class number of "
            f"'{unknown[0]}' cannot be known: expected all {CLASSES} folders, or a list of them. "
            f"Put {' or '.join(SYNSET_FILES)} into the folder or the one above it"
        )
        raise DataError(message)
    names = [name for wnid in wnids for name in image_names(root, within=wnid)]
    if not names:
        message = f"the {len(wnids)} class folders of '{root}' hold no images: expected .JPEG files"
        raise DataError(message)
    labels = np.array([numbers[name.split("/", 1)[0]] for name in names], dtype=np.int64)
    return Listing(root, tuple(names), labels, synsets.names if synsets else _torchvision_names())


def _flat_listing(root: Path, loose: list[str], file: Path | None, synsets: Synsets | None) -> Listing:
    """Images in one folder with a label file."""
    if file is None:
        _no_label_file(root)
    known = _read_labels(file)
    by_stem = {Path(name).stem: label for name, label in known.items()}  # Kaggle leaves the file ending out
    found = [known.get(name) or by_stem.get(Path(name).stem) for name in loose]
    without = [name for name, label in zip(loose, found, strict=True) if label is None]
    if without:
        message = (
            f"{len(without)} of {len(loose)} images in '{root}' have no label, such as '{without[0]}': expected each "
            f"in '{file}'. Complete that file or give another with labels"
        )
        raise DataError(message)
    pairs = [(name, label) for name, label in zip(loose, found, strict=True) if label is not None]
    labels = np.array([_number_of(name, label, synsets, file) for name, label in pairs], dtype=np.int64)
    return Listing(root, tuple(loose), labels, synsets.names if synsets else _torchvision_names())


def _number_of(name: str, label: Label, synsets: Synsets | None, file: Path) -> int:
    """The class number of an image; a number and a wnid that contradict each other are refused."""
    named = synsets.number(label.wnid) if synsets and label.wnid else None
    if named == -1:
        message = f"label '{label.wnid}' of image {name} in '{file}' is outside the {CLASSES} classes. Correct it"
        raise DataError(message)
    if label.number is None and named is None:
        message = (
            f"'{file}' gives wnids without class numbers ('{label.wnid}' for {name}): expected a list of all {CLASSES} "
            f"classes beside it. Put {' or '.join(SYNSET_FILES)} into the same folder or the folder of the images"
        )
        raise DataError(message)
    if label.number is not None and named is not None and label.number != named:
        message = (
            f"'{file}' gives image {name} the class {label.number} and the wnid '{label.wnid}', which is {named}: "
            "expected them to agree (class numbers count from 0 in the order of the sorted wnids). Correct one of them"
        )
        raise DataError(message)
    number = label.number if named is None else named
    if number is None or not 0 <= number < CLASSES:
        message = (
            f"label {number} of image {name} in '{file}' is outside the {CLASSES} classes: expected 0 to "
            f"{CLASSES - 1}. Correct it"
        )
        raise DataError(message)
    return number


def _wnid_of(name: str, label: Label, synsets: Synsets | None, file: Path) -> str:
    """The wnid of an image: the name of its folder."""
    if synsets is not None:
        return synsets.wnids[_number_of(name, label, synsets, file)]
    if label.wnid is None or not WNID.fullmatch(label.wnid):  # becomes a path: nothing else may pass
        message = (
            f"'{file}' gives no usable wnid for image {name} ('{label.wnid}'): expected one like n01440764, or a list "
            f"of all classes beside it. Put {' or '.join(SYNSET_FILES)} into the same folder"
        )
        raise DataError(message)
    return label.wnid


def _sorted_place(place: Path, name: str) -> str | None:
    """Where a labelled image lies in its class folder, relative to the folder above."""
    for candidate in (name, *(f"{name}{ending}" for ending in (".JPEG", ".jpeg", ".jpg", ".png"))):
        if (place / candidate).is_file():
            return f"{place.name}/{candidate}"
    return None


def _read_labels(file: Path) -> dict[str, Label]:
    """File name of each image (without folders) -> its label."""
    lines = _text(file).splitlines()
    if file.suffix.lower() == ".csv":
        labels = _read_table(file, lines)
    elif len(lines) and all(len(line.split()) == 1 for line in lines):
        labels = _read_ground_truth(file, lines)
    else:
        labels = _read_pairs(file, lines)
    if not labels:
        message = f"label file '{file}' holds no labels: expected a line for each image"
        raise DataError(message)
    return labels


def _read_table(file: Path, lines: list[str]) -> dict[str, Label]:
    """A CSV file with a header, Kaggle's included."""
    rows = csv.DictReader(lines)
    header = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
    image = next((header[name] for name in IMAGE_COLUMNS if name in header), None)
    number = next((header[name] for name in CLASS_COLUMNS if name in header), None)
    wnid = next((header[name] for name in (*WNID_COLUMNS, KAGGLE_COLUMN) if name in header), None)
    if image is None or (number is None and wnid is None):
        message = (
            f"label file '{file}' has the columns {', '.join(header) or '(none)'}: expected an image column "
            f"({', '.join(IMAGE_COLUMNS)}) and a class number ({', '.join(CLASS_COLUMNS)}) or a wnid "
            f"({', '.join(WNID_COLUMNS)}). Add a header line with these names"
        )
        raise DataError(message)
    labels = {}
    for row in rows:
        key = _base_name(row[image] or "")
        words = (row[wnid] or "").split() if wnid is not None else []  # Kaggle: a wnid and a box, repeated
        labels[key] = Label(
            number=_whole(file, key, row[number] or "") if number is not None else None,
            wnid=words[0] if words else None,
        )
        if labels[key] == Label(None, None):
            message = f"label file '{file}' gives image {key} no label: expected a class number or a wnid"
            raise DataError(message)
    return labels


def _read_pairs(file: Path, lines: list[str]) -> dict[str, Label]:
    """Lines of an image name and a class number or wnid."""
    labels = {}
    for line in filter(str.strip, lines):
        name, _, value = line.strip().rpartition(" ")
        if not name:
            message = f"label file '{file}' has the line '{line.strip()}': expected an image name, a blank and a label"
            raise DataError(message)
        key = _base_name(name)
        wnid = value if WNID.fullmatch(value) else None
        labels[key] = Label(number=None if wnid else _whole(file, key, value), wnid=wnid)
    return labels


def _read_ground_truth(file: Path, lines: list[str]) -> dict[str, Label]:
    """The development kit's list: line i holds the ILSVRC number (1 to 1000, an order of its own) of image i."""
    meta = next(
        (path for path in (file.parent / "meta.mat", file.parent / "data" / "meta.mat") if path.is_file()), None
    )
    if meta is None:
        message = (
            f"'{file}' numbers the classes in an order of its own: expected the development kit's meta.mat beside it. "
            "Put it there, or give a label file with wnids, such as Kaggle's LOC_val_solution.csv"
        )
        raise DataError(message)
    wnids = {number: wnid for number, wnid, _ in _read_meta(meta)}
    labels = {}
    for position, line in enumerate(lines, start=1):
        key = f"ILSVRC2012_val_{position:08d}.JPEG"
        number = _whole(file, key, line.strip())
        if number not in wnids:
            message = f"label {number} of image {key} in '{file}' is outside the {len(wnids)} classes of '{meta}'"
            raise DataError(message)
        labels[key] = Label(number=None, wnid=wnids[number])
    return labels


def _read_meta(meta: Path) -> list[tuple[int, str, str]]:
    """ILSVRC number, wnid and words of the classes in the development kit's `meta.mat` (inner nodes left out)."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        rows = [(int(row["ILSVRC2012_ID"]), str(row["WNID"]), str(row["words"])) for row in synsets]
    except Exception as cause:  # a torn .mat file may raise nearly anything
        message = f"'{meta}' cannot be read: {cause}. Expected the meta.mat of the ILSVRC-2012 development kit"
        raise DataError(message) from cause
    return [row for row in rows if 1 <= row[0] <= CLASSES]


def _synsets(root: Path, file: Path | None) -> Synsets | None:
    """All classes, from a list beside the images or the label file; None when there is none."""
    path = _beside(root, SYNSET_FILES) or (_beside(file.parent, SYNSET_FILES) if file else None)
    if path is not None:
        pairs = [line.split(maxsplit=1) for line in _text(path).splitlines() if line.strip()]
        found = {pair[0]: pair[1] if len(pair) > 1 else pair[0] for pair in pairs}
    elif file is not None and file.name == GROUND_TRUTH and (file.parent / "meta.mat").is_file():
        path = file.parent / "meta.mat"
        found = {wnid: words for _, wnid, words in _read_meta(path)}
    else:
        return None
    if len(found) != CLASSES or not all(WNID.fullmatch(wnid) for wnid in found):
        message = (
            f"'{path}' lists {len(found)} classes: expected ImageNet's {CLASSES}, each as 'n01440764 tench, Tinca'. "
            "Complete it or take it away"
        )
        raise DataError(message)
    wnids = tuple(sorted(found))
    first = [found[wnid].split(",")[0].strip() for wnid in wnids]
    often = Counter(first)  # the bird and the machine are both called crane
    names = tuple(f"{name} ({wnid})" if often[name] > 1 else name for name, wnid in zip(first, wnids, strict=True))
    return Synsets(wnids, names)


def _torchvision_names() -> tuple[str, ...]:
    """Class names in standard order, from the description of torchvision's weights."""
    from torchvision.models import AlexNet_Weights

    return tuple(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])


def _text(file: Path) -> str:
    """The content of a text file."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as cause:
        message = f"label file '{file}' cannot be read: {cause}. Expected a text file (UTF-8)"
        raise DataError(message) from cause


def _base_name(name: str) -> str:
    """The last part of a path, whichever way its slashes lean."""
    return name.strip().replace("\\", "/").rsplit("/", 1)[-1]


def _whole(file: Path, image: str, text: str) -> int:
    """A class number that stands in a label file."""
    try:
        return int(text)
    except ValueError as cause:
        message = f"label '{text}' of image {image} in '{file}' is no class number: expected 0 to {CLASSES - 1}"
        raise DataError(message) from cause


def _no_label_file(root: Path) -> NoReturn:
    """Raise the error for a flat folder without labels."""
    message = (
        f"'{root}' holds images without class sub-folders, and there is no label file: expected one of "
        f"{', '.join(LABEL_FILES)} in it or in the folder above. Put it there or name it with --labels"
    )
    raise DataError(message)
