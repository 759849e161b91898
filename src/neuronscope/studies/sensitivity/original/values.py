"""The values of a result in the layouts of the original."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import xarray as xr
from jaxtyping import Float

from neuronscope.augment import SETS
from neuronscope.result import Result
from neuronscope.studies.sensitivity.original.layouts import (
    AUXILIARY,
    DATASETS,
    Checkpoint,
    FileName,
    Groups,
    Kind,
    ValueFile,
)

IMAGENET = "imagenet_ILSVRC"
"""What the original calls ImageNet."""

PART = "train+valid"
"""What the original calls both partitions together."""

_PARTS = {"train": "train", "val": "valid", "valid": "valid"}
"""Split of the data -> what the original calls it."""

_ORDER = (*SETS["set1"], *SETS["set2"], *AUXILIARY)

_LONGEST = 80
"""Characters of names of augmentations in a file's name; longer ones are a checksum."""


@dataclass(frozen=True, eq=False)
class Original:
    """A result as the original sees it.

    Attributes:
        result: of the study.
    """

    result: Result

    @cached_property
    def network(self) -> str:
        """The network without its source."""
        return file_part(self.result.provenance.subject.rpartition(":")[2])

    @cached_property
    def origin(self) -> str:
        """Network and data as parts of names."""
        data = self.result.provenance.data
        return f"{self.network}_{IMAGENET if data.startswith('imagenet:') else file_part(data)}"

    @cached_property
    def part(self) -> str:
        """What stands for the partitions: both, or the one that the data is of."""
        return PART if "partition" in self.named else split_part(self.result.provenance.data)

    @cached_property
    def factors(self) -> xr.Dataset:
        """The group of that name."""
        return self.result.tree["factors"].to_dataset()

    @cached_property
    def named(self) -> tuple[str, ...]:
        """The factors in the result's order under the original's names."""
        names = [str(name) for name in self.factors["factor_name"].to_numpy()]
        return tuple("permutation" if name == "order" else name for name in names)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Places of the factors in the order of the original, with factors that it does not have after them."""
        places = [_ORDER.index(name) if name in _ORDER else len(_ORDER) for name in self.named]
        return tuple(int(one) for one in np.argsort(places, kind="stable"))

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """What the rows of an index are about."""
        return tuple(self.named[place] for place in self.order)

    @cached_property
    def augmentations(self) -> tuple[str, ...]:
        """Those that were applied, in the original's order."""
        kinds = self.factors["kind"].to_numpy()
        return tuple(self.named[place] for place in self.order if kinds[place] == "augmentation")

    @cached_property
    def sets(self) -> str:
        """Number of the set of augmentations: 1, 2, 3 for both; the names for any other."""
        numbers = {
            tuple(SETS["set1"]): "1",
            tuple(SETS["set2"]): "2",
            (*SETS["set1"], *SETS["set2"]): "3",
        }
        joined = "+".join(file_part(name) for name in self.augmentations)
        short = hashlib.sha256(joined.encode()).hexdigest()[:12] if len(joined) > _LONGEST else joined
        return numbers.get(self.augmentations, short)

    @cached_property
    def layers(self) -> dict[str, xr.Dataset]:
        """Layer -> what is known of each of its activations."""
        names = [str(name) for name in self.result.tree["layers"].to_dataset()["layer_name"].to_numpy()]
        maps = self.result.tree["maps"].children if "maps" in self.result.tree else {}
        return {name: maps[name].to_dataset() for name in names if name in maps}

    @cached_property
    def channels(self) -> dict[str, dict[str, str]]:
        """Channel of the colours -> checkpoint of the original -> layer; of a whole network one without a name."""
        if "segments" not in self.result.tree:
            return {"": {name: name for name in self.layers}}
        table = self.result.tree["segments"].to_dataset()
        found: dict[str, dict[str, str]] = {}
        for layer, segment, channel, modules in zip(
            *(table[name].to_numpy().tolist() for name in ("layer", "segment", "channel", "modules")), strict=True
        ):
            if layer in self.layers:
                found.setdefault(channel, {})[segment_checkpoint(segment, len(modules.split(",")))] = layer
        return found

    @cached_property
    def players(self) -> Groups:
        """Rows of the result's raw Shapley effects that belong to each factor, in the result's order."""
        counts = self.factors["players"].to_numpy() if "players" in self.factors else np.ones(len(self.named))
        ends = np.cumsum(counts).astype(int).tolist()
        return tuple(tuple(range(end - int(count), end)) for end, count in zip(ends, counts, strict=True))

    def file_name(self, kind: Kind, **more: str | bool) -> FileName:
        """The name of a value file."""
        own = {} if kind == "cs" else {"sets": self.sets}
        return FileName(kind, self.origin, self.part, **own, **more)  # type: ignore[arg-type]


def split_part(data: str) -> str:
    """What the original calls the split that data is of; `all` where it has none.

    Example:
        >>> split_part("imagenet:val"), split_part("digits")
        ('valid', 'all')
    """
    split = re.match(r"[^:]*:(\w+)", data)
    return _PARTS.get(split[1] if split else "", "all")


def segment_checkpoint(segment: str, modules: int) -> str:
    """What the original calls the output of a segment of so many modules.

    Example:
        >>> segment_checkpoint("features5", 3)
        'modules_dict.features5.2'
    """
    return f"modules_dict.{segment}.{modules - 1}"


def value_files(original: Original) -> Iterator[ValueFile]:
    """All value files of a result, one at a time; of segments those of each channel."""
    for channel, checkpoints in original.channels.items():
        yield from _of_channel(original, channel, {name: original.layers[own] for name, own in checkpoints.items()})


def _of_channel(original: Original, channel: str, every: dict[str, xr.Dataset]) -> Iterator[ValueFile]:
    """The value files of some checkpoints."""
    for kind, wanted in (
        ("sitv", ("mean", "variance")),
        ("si", ("first", "total")),
        ("shptv", ("shapley_mean", "shapley_variance")),
        ("shpv", ("shapley_raw", "shapley_mean")),
    ):
        layers = {name: maps for name, maps in every.items() if all(one in maps for one in wanted)}
        if layers:
            yield _file(original, kind, layers, channel)  # type: ignore[arg-type]
    contrasted = {name: maps for name, maps in every.items() if "contrast" in maps}
    for augmentation in original.augmentations if contrasted else ():
        for corrected in (False, True):
            yield _contrast(original, augmentation, contrasted, corrected=corrected)


def _file(original: Original, kind: Kind, layers: dict[str, xr.Dataset], channel: str) -> ValueFile:
    make = {"sitv": _moments, "si": _indices, "shptv": _shapley_moments, "shpv": _effects}[kind]
    indexed = kind in ("si", "shpv")
    players = _players_of(original) if kind == "shpv" else ()
    scalars = any(len(rows) > 1 for rows in players)
    notes: dict[str, object] = {"players": "scalars" if scalars else "groups"} if kind == "shpv" else {}
    if kind == "shpv":
        notes["groups"] = np.array([0, *(rows[-1] + 1 for rows in players)])
    return ValueFile(
        name=original.file_name(kind, channel=channel),
        variables=original.variables if indexed else (),
        players=players,
        checkpoints={name: Checkpoint(shape_of(maps), make(original, maps)) for name, maps in layers.items()},
        notes=notes,
    )


def _moments(_: Original, maps: xr.Dataset) -> dict[str, np.ndarray]:
    return {"mean": flat(maps["mean"]), "var": flat(maps["variance"])}


def _shapley_moments(_: Original, maps: xr.Dataset) -> dict[str, np.ndarray]:
    return {"mean": flat(maps["shapley_mean"]), "var": flat(maps["shapley_variance"])}


def _indices(original: Original, maps: xr.Dataset) -> dict[str, np.ndarray]:
    order = list(original.order)
    found = {"si+sT": np.stack([flat(maps[name])[order] for name in ("first", "total")])}
    if "second" in maps:
        found["si2"] = flat(maps["second"])[_pairs(original.order)]
    return found


def _pairs(order: Sequence[int]) -> list[int]:
    """Places of the pairs of factors in a new order: rows of the upper triangle, row by row."""
    place = {pair: number for number, pair in enumerate(combinations(range(len(order)), 2))}
    return [place[min(pair), max(pair)] for pair in combinations(order, 2)]


def _effects(original: Original, maps: xr.Dataset) -> dict[str, np.ndarray]:
    rows = [row for place in original.order for row in original.players[place]]
    raw = flat(maps["shapley_raw"])[rows].astype(np.float64)
    return {"shpv": raw, "means": flat(maps["shapley_mean"])}


def _players_of(original: Original) -> Groups:
    """Rows of `shpv` that belong to each variable."""
    found: list[tuple[int, ...]] = []
    for place in original.order:
        first = found[-1][-1] + 1 if found else 0
        found.append(tuple(range(first, first + len(original.players[place]))))
    return tuple(found)


def _contrast(original: Original, augmentation: str, layers: dict[str, xr.Dataset], *, corrected: bool) -> ValueFile:
    checkpoints = {}
    for name, maps in layers.items():
        place = [str(one) for one in maps["augmentation_name"].to_numpy()].index(augmentation)
        p, statistic, rank_biserial, point_biserial = (
            flat(maps[one])[place]
            for one in (
                "contrast_q" if corrected else "contrast_p",
                "contrast_statistic",
                "contrast",
                "contrast_point_biserial",
            )
        )
        values = (p, statistic, np.abs(rank_biserial), point_biserial)
        checkpoints[name] = Checkpoint(shape_of(maps), dict(zip(DATASETS["cs"], values, strict=True)))
    said = "q-values (Benjamini-Yekutieli, over all activations of all checkpoints)" if corrected else "p-values"
    own = original.file_name("cs", augmentation=augmentation, corrected=corrected)
    return ValueFile(own, (augmentation,), (), checkpoints, {"cs_pvals": said})


def shape_of(maps: xr.Dataset) -> tuple[int, ...]:
    """The shape of a layer's activations, channels first."""
    places = [axis for axis in ("unit", "y", "x", *(f"axis_{number}" for number in range(8))) if axis in maps.sizes]
    return tuple(int(maps.sizes[axis]) for axis in places)


def flat(values: xr.DataArray) -> Float[np.ndarray, "... m"]:
    """A quantity of activations with these last, one after another, and what it has beside them in front."""
    array = values.to_numpy()
    if values.dims[-1] in ("factor", "pair", "player", "augmentation"):
        return np.moveaxis(array, -1, 0).reshape(array.shape[-1], -1)
    return np.asarray(array.reshape(-1))


def file_part(name: str) -> str:
    """A name as a part of file names: letters, digits, dots, hyphens, plus signs.

    Example:
        >>> file_part("imagenet:my images")
        'imagenet-my-images'
    """
    return re.sub(r"[^\w.+-]+", "-", name).strip(".-") or "none"
