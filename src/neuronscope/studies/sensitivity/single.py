"""Designs of one augmentation at a time: an image as it is, and the same image treated, in one block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from neuronscope.augment import Augmentation, decoded
from neuronscope.data.dataset import balanced_rows
from neuronscope.data.design import Design
from neuronscope.studies.sensitivity.setting import Setting


def single_images(setting: Setting, wanted: int) -> Int[np.ndarray, "n"]:
    """Rows of the images looked at one augmentation at a time, classes balanced, of both partitions."""
    pool = np.sort(setting.problem.pool.rows)
    chosen = balanced_rows(setting.data.labels[pool], limit=min(wanted, len(pool)), seed=setting.run.seed)
    return np.asarray(pool[chosen])


def drawn(
    setting: Setting, augmentation: Augmentation, *, images: int, draws: int, what: str
) -> Float[np.ndarray, "n d p"]:
    """Parameter values of an augmentation for some images, uniform in its ranges."""
    rng = setting.run.generator(what, augmentation.name)
    unit = rng.random((images * draws, len(augmentation.parameters)))
    values = decoded(augmentation, unit)
    return values.reshape(images, draws, len(augmentation.parameters))


def treated_rows(
    setting: Setting, rows: Int[np.ndarray, "n"], treatments: Sequence[tuple[str, Float[np.ndarray, "n p"]]]
) -> Design:
    """A block for each image: as it is, then each treatment by one augmentation alone.

    Args:
        setting: with the augmentations.
        rows: of the images.
        treatments: augmentation's name and its parameter values for each image.
    """
    chosen = setting.augmentations
    widths = [len(one.parameters) for one in chosen]
    number = {one.name: place for place, one in enumerate(chosen)}
    many, count = sum(widths), len(chosen)
    block = 1 + len(treatments)
    vectors = np.zeros((len(rows), block, many + 2 * count))
    vectors[:, :, many + count :] = np.arange(count)
    for place, (name, values) in enumerate(treatments, start=1):
        start = sum(widths[: number[name]])
        vectors[:, place, start : start + values.shape[1]] = values
        vectors[:, place, many + number[name]] = 1.0
    return Design(setting.data, np.repeat(rows, block), vectors.reshape(len(rows) * block, -1), block=block)
