"""Designs of one augmentation at a time: an image as it is, and the same image treated, in one block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from neuronscope.augment import Augmentation, decoded
from neuronscope.data.dataset import Data, balanced_rows
from neuronscope.data.design import Design
from neuronscope.run import Run
from neuronscope.studies.sensitivity.setting import Setting


def single_images(setting: Setting, wanted: int) -> Int[np.ndarray, "n"]:
    """Rows of the images looked at one augmentation at a time."""
    rows = setting.problem.pool.rows
    return balanced_images(rows, setting.data.labels[rows], wanted=wanted, seed=setting.run.seed)


def balanced_images(
    rows: Int[np.ndarray, "m"], labels: Int[np.ndarray, "m"], *, wanted: int, seed: int
) -> Int[np.ndarray, "n"]:
    """So many of some images, classes balanced, of both partitions; all of them where there are not as many."""
    order = np.argsort(rows)
    chosen = balanced_rows(labels[order], limit=min(wanted, len(rows)), seed=seed)
    return np.asarray(rows[order][chosen])


def drawn(run: Run, augmentation: Augmentation, *, images: int, draws: int, what: str) -> Float[np.ndarray, "n d p"]:
    """Parameter values of an augmentation for some images, uniform in its ranges."""
    rng = run.generator(what, augmentation.name)
    unit = rng.random((images * draws, len(augmentation.parameters)))
    values = decoded(augmentation, unit)
    return values.reshape(images, draws, len(augmentation.parameters))


def treated_rows(
    setting: Setting, rows: Int[np.ndarray, "n"], treatments: Sequence[tuple[str, Float[np.ndarray, "n _"]]]
) -> Design:
    """A block for each image: as it is, then each treatment by one augmentation alone.

    Args:
        setting: with the augmentations.
        rows: of the images.
        treatments: augmentation's name and its parameter values for each image.
    """
    return treated(setting.data, setting.augmentations, rows, treatments)


def treated(
    data: Data,
    augmentations: Sequence[Augmentation],
    rows: Int[np.ndarray, "n"],
    treatments: Sequence[tuple[str, Float[np.ndarray, "n _"]]],
) -> Design:
    """As `treated_rows`, of any images and augmentations."""
    widths = [len(one.parameters) for one in augmentations]
    number = {one.name: place for place, one in enumerate(augmentations)}
    many, count = sum(widths), len(augmentations)
    block = 1 + len(treatments)
    vectors = np.zeros((len(rows), block, many + 2 * count))
    vectors[:, :, many + count :] = np.arange(count)
    for place, (name, values) in enumerate(treatments, start=1):
        start = sum(widths[: number[name]])
        vectors[:, place, start : start + values.shape[1]] = values
        vectors[:, place, many + number[name]] = 1.0
    return Design(data, np.repeat(rows, block), vectors.reshape(len(rows) * block, -1), block=block)
