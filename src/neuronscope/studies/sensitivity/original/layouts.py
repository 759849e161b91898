"""The value files of the original: kinds, names, rows, and what is done with their values before they are used.

A file holds one kind of value of all checkpoints of a network, for one set of augmentations or, of the contrast, for
one augmentation. Each checkpoint is a group whose attribute `shape` says what its M activations are, channel by channel
and in a channel row by row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from neuronscope.augment import SETS
from neuronscope.maths.shapley_effects import original_shares
from neuronscope.models.hsv import CHANNELS

Kind = Literal["sitv", "si", "shptv", "shpv", "cs"]
"""Mean and variance over the rows of the Sobol design, Sobol indices, mean and variance over independent draws, Shapley
effects, contrast."""

DATASETS: dict[str, tuple[str, ...]] = {
    "sitv": ("mean", "var"),
    "si": ("si+sT", "si2"),
    "shptv": ("mean", "var"),
    "shpv": ("shpv", "means"),
    "cs": ("cs_pvals", "cs_stats", "cs_rbscc", "cs_pbrcc"),
}
"""Kind -> what each checkpoint holds."""

NEEDED: dict[str, tuple[str, ...]] = {
    "sitv": ("mean", "var"),
    "si": ("si+sT",),
    "shptv": ("mean", "var"),
    "shpv": ("shpv",),
    "cs": ("cs_rbscc",),
}
"""What a comparison needs of it."""

AUXILIARY = ("permutation", "class", "partition")

VARIABLES: dict[str, tuple[str, ...]] = {
    "1": (*SETS["set1"], *AUXILIARY),
    "2": (*SETS["set2"], *AUXILIARY),
}
"""Number of the set -> rows of an index."""

BOUNDARIES: dict[str, tuple[int, ...]] = {
    "1": (0, 5, 6, 9, 10, 12, 13, 14, 15),
    "2": (0, 2, 4, 6, 8, 9, 11, 17, 18, 19, 20),
}
"""Number of the set -> where the scalars of each variable begin among the rows of `shpv`, and the end."""

CORRECTED = "_fdr-by-corrected."
"""What the name of a corrected copy has before `.hdf5`; the second dot is the original's."""

SEGMENTS = "selected_single_units"
"""What names of files of segments have in them."""

_NAME = re.compile(
    rf"(?:(?P<channel>{'|'.join(CHANNELS)})_)?(?P<kind>{'|'.join(get_args(Kind))})_(?P<origin>.+)_values_"
    rf"(?:{SEGMENTS}_(?:TEST_)?)?(?:(?P<augmentation>.+)_)?"
    rf"part=(?P<part>[^_]+?)(?:_augnm=(?P<sets>.+?))?(?P<corrected>{re.escape(CORRECTED)})?\.hdf5"
)

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class FileName:
    """What the name of a value file says.

    Attributes:
        kind: of its values.
        origin: network and data.
        part: of the data.
        augmentation: of the contrast; empty for other kinds.
        sets: number or name of the set of augmentations; empty for the contrast.
        corrected: whether p-values are meant to be corrected for their number.
        channel: of the colours that segments were given; empty for whole networks.
    """

    kind: Kind
    origin: str
    part: str
    augmentation: str = ""
    sets: str = ""
    corrected: bool = False
    channel: str = ""

    @property
    def text(self) -> str:
        """The name.

        Example:
            >>> FileName("si", "alexnet_imagenet_ILSVRC", "train+valid", sets="1").text
            'si_alexnet_imagenet_ILSVRC_values_part=train+valid_augnm=1.hdf5'
            >>> FileName("si", "alexnet_imagenet_ILSVRC", "train+valid", sets="1", channel="hue").text
            'hue_si_alexnet_imagenet_ILSVRC_values_selected_single_units_part=train+valid_augnm=1.hdf5'
        """
        before = f"{self.channel}_" if self.channel else ""
        middle = f"{SEGMENTS}_" if self.channel else ""
        middle += f"{self.augmentation}_" if self.augmentation else ""
        end = f"_augnm={self.sets}" if self.sets else ""
        corrected = CORRECTED if self.corrected else ""
        return f"{before}{self.kind}_{self.origin}_values_{middle}part={self.part}{end}{corrected}.hdf5"


def file_name(text: str) -> FileName | None:
    """What a name says; None for one that is no value file's.

    Example:
        >>> file_name("cs_vgg11_imagenet_ILSVRC_values_hue_part=valid_fdr-by-corrected..hdf5").augmentation
        'hue'
        >>> file_name("readme.txt")
    """
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    return FileName(
        kind=found["kind"],  # type: ignore[arg-type]
        origin=found["origin"],
        part=found["part"],
        augmentation=found["augmentation"] or "",
        sets=found["sets"] or "",
        corrected=found["corrected"] is not None,
        channel=found["channel"] or "",
    )


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The values of one layer.

    Attributes:
        shape: of its activations, channels first.
        values: name of the dataset -> values, whose last axis runs over the M activations.
    """

    shape: tuple[int, ...]
    values: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class ValueFile:
    """The content of a value file.

    Attributes:
        name: of the file.
        variables: what the rows of an index are about, in their order; of the contrast its augmentation.
        players: rows of `shpv` that belong to each variable.
        checkpoints: layer -> values.
        notes: more that is said of the whole file.
    """

    name: FileName
    variables: tuple[str, ...]
    players: Groups
    checkpoints: Mapping[str, Checkpoint]
    notes: Mapping[str, object]

    @property
    def kind(self) -> Kind:
        """Of its values."""
        return self.name.kind


@dataclass(frozen=True, eq=False)
class Quantity:
    """One number of each activation, as the original uses it.

    Attributes:
        name: first, total, second, shapley, contrast, mean, variance, shapley_mean or shapley_variance.
        variable: what it is about; `activation` for moments.
        values: of the M activations.
    """

    name: str
    variable: str
    values: Float[np.ndarray, "m"]


def quantities(file: ValueFile, layer: str) -> Iterator[Quantity]:
    """The values of a layer after the original's post-processing.

    First-order and total indices are cut to 0..1. Shapley effects of scalars are added up to variables, cut off at 0
    and divided by their sum. Everything else is left as it is.

    Args:
        file: with the values.
        layer: one of its checkpoints.
    """
    values = {name: one.astype(np.float64) for name, one in file.checkpoints[layer].values.items()}
    if file.kind == "si":
        for name, rows in zip(("first", "total"), np.clip(values["si+sT"], 0.0, 1.0), strict=True):
            yield from (Quantity(name, *one) for one in zip(file.variables, rows, strict=True))
        pairs = [f"{one} x {other}" for one, other in combinations(file.variables, 2)]
        if "si2" in values:
            yield from (Quantity("second", *one) for one in zip(pairs, values["si2"], strict=True))
    elif file.kind == "shpv":
        shares = original_shares(values["shpv"], file.players)
        yield from (Quantity("shapley", *one) for one in zip(file.variables, shares, strict=True))
    elif file.kind == "cs":
        yield Quantity("contrast", file.variables[0], values["cs_rbscc"])
    else:
        before = "shapley_" if file.kind == "shptv" else ""
        yield Quantity(f"{before}mean", "activation", values["mean"])
        yield Quantity(f"{before}variance", "activation", values["var"])
