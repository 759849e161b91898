"""Files of single predictions, in the layout of the program this study comes from: written, and read mask by mask.

A group for each kind of input, in it one for each mask, in it the first classes (`predictions`) and their probabilities
(`probas`), a row for each image and draw of the augmentation: images one after another, their draws together. Published
files have 13 GB: nothing here holds more than one mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Int

from neuronscope.errors import DataError

if TYPE_CHECKING:
    import h5py

LABELS = ("true_labels", "labels")
_PACKED: dict[str, Any] = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}


@dataclass(frozen=True, eq=False)
class PredictedMask:
    """What was predicted for one kind of input under one mask.

    Attributes:
        given: kind of input: `original`, or the augmentation.
        mask: the original's name of it.
        top: first classes of each image (n) and draw (d).
        probability: theirs.
    """

    given: str
    mask: str
    top: Int[np.ndarray, "n d k"]
    probability: Float32[np.ndarray, "n d k"]


def write_predictions(path: Path, labels: Int[np.ndarray, "n"], masks: Iterable[PredictedMask]) -> Path:
    """Write a file.

    Args:
        path: of the file; its folder is made where there is none.
        labels: of the images.
        masks: one at a time.

    Returns:
        The path.
    """
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as content:
        content.create_group(LABELS[0]).create_dataset(LABELS[1], data=labels.astype(np.int16)[:, None], **_PACKED)
        for one in masks:
            group = content.require_group(one.given).create_group(one.mask)
            k = one.top.shape[2]
            group.attrs["shape"] = np.array([k])
            group.create_dataset("predictions", data=one.top.reshape(-1, k).astype(np.int64), **_PACKED)
            group.create_dataset("probas", data=one.probability.reshape(-1, k), **_PACKED)
    return path


def read_labels(path: Path) -> Int[np.ndarray, "n"]:
    """The labels of a file, one for each image.

    Raises:
        DataError: it is torn, or no such file.
    """
    with _opened(path) as content:
        return _labels(path, content)


def listed_masks(path: Path) -> set[tuple[str, str]]:
    """Kinds of input and masks that a file has.

    Raises:
        DataError: it is torn, or no such file.
    """
    with _opened(path) as content:
        return {(given, mask) for given, group in content.items() if given != LABELS[0] for mask in group}


def read_predictions(path: Path, wanted: Iterable[tuple[str, str]]) -> Iterator[PredictedMask]:
    """What a file says of some kinds of input and masks, one at a time; those that it lacks are passed over.

    Args:
        path: of the file.
        wanted: kinds of input and masks, by the original's names.

    Raises:
        DataError: it is torn, no such file, or has not as many rows for each image.
    """
    with _opened(path) as content:
        images = len(_labels(path, content))
        for given, mask in wanted:
            if given not in content or mask not in content[given]:
                continue
            group = content[given][mask]
            missing = [name for name in ("predictions", "probas") if name not in group]
            if missing:
                message = (
                    f"'{given}/{mask}' of {path} has no '{missing[0]}': expected predictions and probas. Fetch or "
                    "unpack it again"
                )
                raise DataError(message)
            top, probability = (_read(path, group[name]) for name in ("predictions", "probas"))
            if top.shape != probability.shape or images == 0 or len(top) % images:
                message = (
                    f"'{given}/{mask}' of {path} has {len(top)} rows of predictions and {len(probability)} of "
                    f"probabilities: expected the same number of draws for each of its {images} images. Fetch it again"
                )
                raise DataError(message)
            shape = (images, len(top) // images, top.shape[1])
            yield PredictedMask(
                given, mask, top.astype(np.int64).reshape(shape), probability.astype(np.float32).reshape(shape)
            )


def _labels(path: Path, content: h5py.File) -> Int[np.ndarray, "n"]:
    name = "/".join(LABELS)
    if name not in content:
        message = (
            f"{path} has no labels: expected '{name}' in a file of predictions, and there are "
            f"{', '.join(content) or 'no groups'}. Give a file of predictions, such as one with pred_NOFCL in its name"
        )
        raise DataError(message)
    return _read(path, content[name]).astype(np.int64).reshape(-1)


def _read(path: Path, dataset: h5py.Dataset) -> np.ndarray:
    try:
        return np.asarray(dataset[()])
    except (OSError, RuntimeError) as error:
        raise _torn(path, error) from error


def _opened(path: Path) -> h5py.File:
    import h5py

    if not path.is_file():
        message = (
            f"there is no file {path}: expected one of predictions of the original, such as "
            "shpv_alexnet_imagenet_ILSVRC_values_pred_NOFCL_part=valid.hdf5. Give its path"
        )
        raise DataError(message)
    try:
        return h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise _torn(path, error) from error


def _torn(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is torn or no HDF5 file: expected predictions as the original writes them, and reading gave "
        f"'{error}'. Unpack or fetch it again"
    )
