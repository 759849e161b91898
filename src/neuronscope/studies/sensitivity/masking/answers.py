"""What the network said under masks, and how numbers of several sets stand in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int

from neuronscope.maths.masking_analysis import image_accuracy
from neuronscope.studies.sensitivity.masking.scalings import guided_items
from neuronscope.studies.sensitivity.masking.setting import Combined, MaskingSetting


@dataclass(frozen=True, eq=False)
class Answers:
    """What the network said under the guided masks of a set.

    Attributes:
        of: kinds of input and factors of masks.
        rank: classes before the label, for each row of an image's block, without a mask and under each.
        label: of each image.
        row: of each image in the data.
        top: first classes, where they are kept.
        probability: theirs, where they are kept.
    """

    of: Combined
    rank: Int[np.ndarray, "n block m"]
    label: Int[np.ndarray, "n"]
    row: Int[np.ndarray, "n"]
    top: Int[np.ndarray, "n block m k"] | None = None
    probability: Float32[np.ndarray, "n block m k"] | None = None


@dataclass(frozen=True, eq=False)
class Controlled:
    """What it said under random masks.

    Attributes:
        of: kinds of input, and factors whose masks are matched.
        rank: as in `Answers`, under the random masks alone.
        which: of them, for each draw and guided mask.
    """

    of: Combined
    rank: Int[np.ndarray, "n block r"]
    which: Int[np.ndarray, "draws masks"]


def by_input(
    setting: MaskingSetting, of: Combined, rank: Int[np.ndarray, "n block m"], *, top: int
) -> Float32[np.ndarray, "n i m"]:
    """Share of right draws of each image, for each kind of input."""
    return np.stack([image_accuracy(rank[:, own], top=top) for own in setting.columns(of)], axis=1)


def whole(setting: MaskingSetting, parts: Sequence[tuple[Combined, np.ndarray]]) -> np.ndarray:
    """Numbers by input and mask (the network as it is first) of several sets; nan for what is not combined."""
    items = guided_items(setting, setting.every)
    inputs = setting.every.inputs
    lead = parts[0][1].shape[:-2]
    found = np.full((*lead, len(inputs), 1 + len(items)), np.nan, dtype=parts[0][1].dtype)
    for of, values in parts:
        rows = [inputs.index(name) for name in of.inputs]
        columns = [0, *(1 + place for place, item in enumerate(items) if item.variable in of.variables)]
        found[..., np.array(rows)[:, None], np.array(columns)] = values
    return found


def texts(names: Sequence[str]) -> np.ndarray:
    """Names as an array that a result can hold."""
    return np.array([str(name) for name in names], dtype=object)
