"""Where images come from: one table of sources, one function that asks it.

A source is written `NAME:PATH` (or `NAME:SPLIT` where nothing has to be on disk). Third parties add one through the
entry point group `neuronscope.data`: a function from `DataRequest` to `Data`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from jaxtyping import Int, UInt8

from neuronscope.data import formats
from neuronscope.data.dataset import Data, OnError, balanced_rows, data_from_arrays, scatter
from neuronscope.data.imagenet import list_imagenet
from neuronscope.errors import DataError, InputError, UnknownName, nearest
from neuronscope.fetching import FETCHABLE, fetch

ENTRY_POINTS = "neuronscope.data"

DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class DataRequest:
    """What a source is asked for.

    Attributes:
        source: as the caller wrote it, for messages.
        name: the part before the colon.
        rest: the part after it: a path, or a split where the source needs no path.
        split: which part of the data; None for the source's default.
        labels: a label file that lies elsewhere than the images.
        download: whether missing files may be fetched.
    """

    source: str
    name: str
    rest: str = ""
    split: str | None = None
    labels: Path | None = None
    download: bool = False

    def folder(self) -> Path:
        """The folder that the source names.

        Raises:
            DataError: none is named, or it is not there.
        """
        if not self.rest:
            message = f"'{self.source}' names no folder: expected {self.name}:PATH, for example {self.name}:data/images"
            raise DataError(message)
        path = Path(self.rest).expanduser()
        if not path.is_dir() and not self.download:
            what = "a file" if path.exists() else "not there"
            message = f"'{path}' is {what}: expected the folder of {self.name}. Check the path in '{self.source}'"
            raise DataError(message)
        return path

    def choose(self, splits: Sequence[str], *, default: str) -> str:
        """The split that was asked for.

        Raises:
            UnknownName: it is none of the source's splits.
        """
        split = self.split or default
        if split not in splits:
            message = f"'{self.name}' has no split '{split}': expected {', '.join(splits)}.{nearest(split, splits)}"
            raise UnknownName(message)
        return split

    def refuse_labels(self) -> None:
        """Refuse a label file where the labels come with the images.

        Raises:
            InputError: a label file was given.
        """
        if self.labels is not None:
            message = f"'{self.name}' has its own labels: expected no label file, got '{self.labels}'. Leave it out"
            raise InputError(message)


def load_data(
    source: str,
    *,
    split: str | None = None,
    limit: int | None = None,
    classes: Sequence[str | int] | None = None,
    on_error: OnError = "raise",
    download: bool = False,
    labels: str | Path | None = None,
    seed: int = 0,
) -> Data:
    """The images of a source, as a numbered data set; files of images are decoded later, as they are needed.

    Args:
        source: `digits`, `mnist:PATH`, `fashion-mnist:PATH`, `cifar10:PATH`, `imagenet:PATH`, `folder:PATH`, or a
            third party's. PATH is a folder. `digits:train` is the same as `digits` with `split="train"`.
        split: `train` or `report` for digits, `train` or `test` for MNIST, Fashion-MNIST and CIFAR-10 (default: the
            part not trained on; `all` is both for digits); a sub-folder such as `val` for folders of images.
        limit: at most so many images, with the classes as evenly represented as they can be (`balanced_rows`).
        classes: only images of these classes, by name or number. Numbers and names of classes stay as they were.
        on_error: `skip` leaves out images that cannot be read, with a count, in place of an error.
        download: fetch the files of MNIST, Fashion-MNIST and CIFAR-10 that are missing from PATH.
        labels: a label file for ImageNet that lies elsewhere than the images.
        seed: decides which images a `limit` takes.

    Raises:
        UnknownName: no such source, split or class; the message offers the nearest.
        DataError: files are missing, torn, or hold labels outside the classes.
        InputError: an option that does not fit the source, or a limit below 1.

    Example:
        >>> data = load_data("digits", limit=20)
        >>> len(data), data.name, data.pixels.shape, data.classes[:3]
        (20, 'digits:report[20]', torch.Size([20, 1, 28, 28]), ('0', '1', '2'))
    """
    if limit is not None and limit < 1:
        message = f"limit is {limit}: expected at least 1 image, or no limit"
        raise InputError(message)
    name, _, rest = source.partition(":")
    request = DataRequest(
        source=source,
        name=name,
        rest=rest,
        split=split,
        labels=Path(labels).expanduser() if labels is not None else None,
        download=download,
    )
    data = replace(_source(request)(request), on_error=on_error)
    if classes is not None:
        data = _of_classes(data, classes)
    if limit is not None and limit < len(data):
        data = data.take(balanced_rows(data.labels, limit=limit, seed=seed))
    return data


def load_digits(request: DataRequest) -> Data:
    """Scikit-learn's 1,797 handwritten digits (8x8, 17 grey levels), enlarged to 28x28; nothing is downloaded.

    Source: Alpaydin & Kaynak 1998, "Optical recognition of handwritten digits", UCI repository (its test part). The
    digit fills the inner 20x20 pixels, as in MNIST: of the ways tried, bicubic (Keys 1981, a = -0.5) into a black
    frame looks most like handwriting. It is computed in whole numbers and therefore the same on every machine.

    Splits: `train` (1,078 images) and `report` (719, the default), 60 and 40 % of every class, fixed for good by
    hashes of the row numbers; `all`. The images come without the writers' names, so a writer may be in both parts.
    """
    request.refuse_labels()
    if request.rest and request.split is not None and request.rest != request.split:
        message = f"'{request.source}' and the split '{request.split}' contradict each other: give one of them"
        raise InputError(message)
    split = replace(request, split=request.split or request.rest or None).choose(
        ("train", "report", "all"), default="report"
    )
    from sklearn.datasets import load_digits as sklearn_digits

    bunch = sklearn_digits()
    small, labels = bunch.images.astype(np.int64), bunch.target.astype(np.int64)
    by_class = np.lexsort((scatter(np.arange(len(labels)), seed=0), labels))
    position = np.empty(len(labels), dtype=np.int64)
    position[by_class] = np.arange(len(labels))
    training = (position + 1) * 3 // 5 > position * 3 // 5  # three of five neighbours in class order: stratified
    wanted = {"train": training, "report": ~training, "all": np.ones(len(labels), dtype=bool)}[split]
    rows = np.flatnonzero(wanted)
    pixels = torch.from_numpy(_enlarged(small[rows]))[:, None]
    return data_from_arrays(
        pixels, labels[rows], name=f"digits:{split}", classes=DIGITS, ids=[f"digit-{row:04d}" for row in rows]
    )


def _enlarged(digits: Int[np.ndarray, "n 8 8"]) -> UInt8[np.ndarray, "n 28 28"]:
    """Digits of 0..16 as 28x28 pixels of 0..255: scaled 2.5 times, with black all around."""
    # Distances between new and old pixel centres, in tenths of an old pixel: (i - 4 + 1/2) / 2.5 - 1/2 - j.
    distance = np.abs(4 * np.arange(28)[:, None] - 19 - 10 * np.arange(8)[None, :])
    near = 3 * distance**3 - 50 * distance**2 + 2000
    far = -(distance**3) + 50 * distance**2 - 800 * distance + 4000
    weights = np.where(distance < 10, near, np.where(distance < 20, far, 0))  # noqa: PLR2004 one and two old pixels
    whole = 16 * 2000**2  # the brightest grey level times the scale of the weights in both directions
    scaled: Int[np.ndarray, "n 28 28"] = weights @ digits @ weights.T
    return ((scaled.clip(0, whole) * 255 + whole // 2) // whole).astype(np.uint8)


def load_mnist(request: DataRequest) -> Data:
    """MNIST (LeCun et al. 1998): 60,000 `train` and 10,000 `test` images, from its four IDX files, gzipped or not."""
    return _idx_data(request, DIGITS, ("", "raw", "MNIST/raw"))


def load_fashion_mnist(request: DataRequest) -> Data:
    """Fashion-MNIST (Xiao et al. 2017): as MNIST, with pictures of clothes."""
    return _idx_data(request, FASHION, ("", "raw", "FashionMNIST/raw"))


def load_cifar10(request: DataRequest) -> Data:
    """CIFAR-10 (Krizhevsky 2009): 50,000 `train` and 10,000 `test` images, from its binary form or its Python batches.

    The files are found in the folder, in `cifar-10-batches-bin` or `cifar-10-batches-py` below it, or in the archives
    as they are downloaded. Python batches are read without running anything that they ask for.
    """
    request.refuse_labels()
    folder, split = request.folder(), request.choose(("train", "test"), default="test")
    stems = [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]
    parts = [_cifar_part(folder, stem) for stem in stems]
    if request.download and None in parts:
        fetch(request.name, to=folder)
        parts = [_cifar_part(folder, stem) for stem in stems]
    missing = [stem for stem, part in zip(stems, parts, strict=True) if part is None]
    if missing:
        _refuse_missing(request, folder, [f"{stem}.bin (or {stem})" for stem in missing])
    found = [part for part in parts if part is not None]
    pixels = np.concatenate([images for images, _ in found])
    labels = np.concatenate([numbers for _, numbers in found]).astype(np.int64)
    return data_from_arrays(torch.from_numpy(pixels), labels, name=f"cifar10:{split}", classes=CIFAR10)


def load_imagenet(request: DataRequest) -> Data:
    """ImageNet (ILSVRC-2012), in class folders or flat with a label file; see `list_imagenet` for the layouts."""
    folder = _split_folder(request)
    listing = list_imagenet(folder, labels=request.labels)
    return _file_data(
        f"imagenet:{folder.resolve().name}", listing.folder, listing.names, listing.labels, listing.classes
    )


def load_folder(request: DataRequest) -> Data:
    """Any folder of images: its sub-folders are the classes, sorted by name; without them there are no labels."""
    request.refuse_labels()
    folder = _split_folder(request)
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    inside = [formats.image_names(folder, within=name) for name in classes]
    loose = sorted(path.name for path in folder.iterdir() if formats.is_image(path.name) and path.is_file())
    names = [name for of_class in inside for name in of_class]
    if not names and not loose:
        message = f"'{folder}' holds no images: expected files ending in {', '.join(formats.IMAGE_SUFFIXES)}"
        raise DataError(message)
    if names and loose:
        message = (
            f"'{folder}' holds {len(loose)} images beside its class sub-folders, such as '{loose[0]}': expected one or "
            "the other. Move them into a sub-folder or away"
        )
        raise DataError(message)
    name = f"folder:{folder.resolve().name}"
    if loose:
        return _file_data(name, folder, loose, np.full(len(loose), -1, dtype=np.int64), ())
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(of_class) for of_class in inside])
    return _file_data(name, folder, names, labels, classes)


Loader = Callable[[DataRequest], Data]

DATA_SOURCES: dict[str, Loader] = {
    "cifar10": load_cifar10,
    "digits": load_digits,
    "fashion-mnist": load_fashion_mnist,
    "folder": load_folder,
    "imagenet": load_imagenet,
    "mnist": load_mnist,
}
"""The part of a source before its colon -> what loads it."""


def _source(request: DataRequest) -> Loader:
    """The loader of a source: ours, or a third party's."""
    if request.name in DATA_SOURCES:
        return DATA_SOURCES[request.name]
    others = entry_points(group=ENTRY_POINTS)
    if request.name in others.names:
        loader: Loader = others[request.name].load()
        return loader
    known = sorted({*DATA_SOURCES, *others.names})
    as_folder = f" For a folder of images write folder:{request.source}." if Path(request.source).is_dir() else ""
    message = (
        f"'{request.name}' is no data source: expected one of {', '.join(known)}, got '{request.source}'."
        f"{nearest(request.name, known)}{as_folder}"
    )
    raise UnknownName(message)


def _of_classes(data: Data, wanted: Sequence[str | int]) -> Data:
    """The images of some classes, given by name or number."""
    numbers = {_class_number(data, one) for one in wanted}
    rows = np.flatnonzero(np.isin(data.labels, sorted(numbers)))
    if not rows.size:
        message = f"{data.name} has no image of the classes {', '.join(map(str, wanted))}: ask for others"
        raise DataError(message)
    return data.take(rows, name=f"{data.name}[{','.join(map(str, wanted))}]")


def _class_number(data: Data, wanted: str | int) -> int:
    """The number of a class; a name goes before a number that looks the same."""
    if wanted in data.classes:
        return data.classes.index(str(wanted))
    if isinstance(wanted, int) or wanted.isdecimal():
        number = int(wanted)
        if 0 <= number < len(data.classes):
            return number
    message = (
        f"'{wanted}' is no class of {data.name}: expected one of its {len(data.classes)} class names or a number from "
        f"0.{nearest(str(wanted), data.classes)}"
    )
    raise UnknownName(message)


def _split_folder(request: DataRequest) -> Path:
    """The folder of images, or the sub-folder of the split that was asked for."""
    folder = request.folder()
    if not folder.is_dir():
        message = f"'{folder}' is not there, and {request.name} cannot be downloaded: put the images there"
        raise DataError(message)
    if request.split is None:
        return folder
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if request.split not in inside:
        message = (
            f"'{folder}' has no sub-folder for the split '{request.split}': it has {', '.join(inside[:5]) or 'none'}."
            f"{nearest(request.split, inside)}"
        )
        raise UnknownName(message)
    return folder / request.split


def _file_data(
    name: str, folder: Path, names: Sequence[str], labels: Int[np.ndarray, "n"], classes: Sequence[str]
) -> Data:
    """Image files as a data set."""
    return Data(
        name=name,
        read=formats.ImageFiles(folder, tuple(names)),
        labels=labels,
        classes=tuple(classes),
        fingerprint=formats.fingerprint_files(folder, names, labels, classes),
        ids=tuple(names),
    )


def _idx_data(request: DataRequest, classes: Sequence[str], places: Sequence[str]) -> Data:
    """One split of an MNIST-like data set."""
    request.refuse_labels()
    folder, split = request.folder(), request.choose(("train", "test"), default="test")
    prefix = "train" if split == "train" else "t10k"
    wanted = [f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"]
    paths = [_idx_path(folder, name, places) for name in wanted]
    if request.download and None in paths:
        absent = [f"{name}.gz" for name, path in zip(wanted, paths, strict=True) if path is None]
        item = FETCHABLE[request.name]
        fetch(replace(item, files=tuple(file for file in item.files if file.name in absent)), to=folder)
        paths = [_idx_path(folder, name, places) for name in wanted]
    image_path, label_path = paths
    if image_path is None or label_path is None:
        _refuse_missing(request, folder, [name for name, path in zip(wanted, paths, strict=True) if path is None])
    images, labels = formats.read_idx(image_path, dimensions=3), formats.read_idx(label_path, dimensions=1)
    if len(images) != len(labels):
        message = (
            f"'{image_path}' holds {len(images)} images but '{label_path}' {len(labels)} labels: expected as many. "
            "Fetch both files again"
        )
        raise DataError(message)
    pixels = torch.from_numpy(images.copy())[:, None]  # a copy, since what is read from bytes must not be written to
    return data_from_arrays(pixels, labels.astype(np.int64), name=f"{request.name}:{split}", classes=classes)


def _idx_path(folder: Path, name: str, places: Sequence[str]) -> Path | None:
    """An IDX file under one of its usual names, in the folder or where torchvision puts it."""
    dotted = name.replace("-idx", ".idx")  # how some unpackers name it
    paths = (folder / place / f"{stem}{end}" for place in places for stem in (name, dotted) for end in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def _cifar_part(
    folder: Path, stem: str
) -> tuple[UInt8[np.ndarray, "n 3 32 32"], UInt8[np.ndarray, "n"] | Int[np.ndarray, "n"]] | None:
    """Images and labels of one file of CIFAR-10, in whichever form it is there."""
    binary = formats.find_member(
        folder,
        (f"{stem}.bin", f"cifar-10-batches-bin/{stem}.bin"),
        archives=("cifar-10-binary.tar.gz", "cifar-10-binary.tar"),
    )
    if binary is not None:
        return formats.read_cifar_binary(binary[1], file=binary[0])
    batch = formats.find_member(
        folder,
        (stem, f"cifar-10-batches-py/{stem}"),
        archives=("cifar-10-python.tar.gz", "cifar-10-python.tar"),
    )
    return formats.read_cifar_pickle(batch[1], file=batch[0]) if batch is not None else None


def _refuse_missing(request: DataRequest, folder: Path, names: Sequence[str]) -> NoReturn:
    """Raise the error for files that are not there."""
    message = (
        f"'{folder}' lacks {', '.join(names)}: expected the original files of {request.name}, gzipped or not. "
        "Put them there, or have them fetched with --download"
    )
    raise DataError(message)
