"""A result beside value files of the original: the same quantities of the same activations, after its post-processing.

Correlations are over all activations of a checkpoint; their intervals count units, for the positions of a map are not
independent (`maths.clustered_correlation`). Activations that one of the two does not know are left out: dead ones are
nan here and 0 in the original.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from neuronscope.errors import DataError
from neuronscope.maths.clustered_correlation import ClusteredCorrelation, clustered_pearson, clustered_spearman
from neuronscope.result import Result
from neuronscope.studies.sensitivity.original.layouts import AUXILIARY, ValueFile, file_name, quantities
from neuronscope.studies.sensitivity.original.published import published_files, read_shapes, read_values
from neuronscope.studies.sensitivity.original.values import Original, value_files


@dataclass(frozen=True)
class Compared:
    """One quantity of one checkpoint, here and there.

    Attributes:
        file: the value file that it is compared with.
        layer: the checkpoint.
        quantity: first, total, second, shapley, contrast, mean, variance, shapley_mean or shapley_variance.
        variable: what it is about.
        activations: how many are known on both sides.
        left_out: how many are not.
        difference: mean absolute difference, in the unit of the quantity.
        pearson, spearman: correlation over activations.
        mean: over these activations, here.
        mean_other: there.
    """

    file: str
    layer: str
    quantity: str
    variable: str
    activations: int
    left_out: int
    difference: float
    pearson: ClusteredCorrelation
    spearman: ClusteredCorrelation
    mean: float
    mean_other: float


def compare(ours: ValueFile, theirs: ValueFile, *, level: float = 0.95) -> list[Compared]:
    """Every quantity and variable that two value files of the same kind share, checkpoint by checkpoint.

    Args:
        ours: of one side.
        theirs: of the other.
        level: coverage of the intervals, 0 to 1.

    Raises:
        DataError: a checkpoint has different shapes, or there is no checkpoint or variable in common.
    """
    check_shapes(
        {layer: one.shape for layer, one in ours.checkpoints.items()},
        {layer: one.shape for layer, one in theirs.checkpoints.items()},
        theirs.name.text,
    )
    found = []
    for layer in ours.checkpoints:
        if layer not in theirs.checkpoints:
            continue
        known = {(one.name, _unordered(one.variable)): one.values for one in quantities(theirs, layer)}
        units = ours.checkpoints[layer].shape[0]
        for own in quantities(ours, layer):
            other = known.get((own.name, _unordered(own.variable)))
            if other is not None:
                here, there = own.values.reshape(units, -1), other.reshape(units, -1)
                where = (theirs.name.text, layer, own.name, own.variable)
                found.append(_compared(where, here, there, level=level))
    if not found:
        message = (
            f"{theirs.name.text} shares no variable with this result: expected some of {', '.join(ours.variables)}, "
            f"and it has {', '.join(theirs.variables) or 'none'}. Give value files of the same augmentations"
        )
        raise DataError(message)
    return found


def _unordered(variable: str) -> frozenset[str]:
    """A variable, or a pair of them in either order."""
    return frozenset(variable.split(" x "))


def _compared(where: tuple[str, str, str, str], here: np.ndarray, there: np.ndarray, *, level: float) -> Compared:
    known = np.isfinite(here) & np.isfinite(there)
    count = int(known.sum())
    nothing = float("nan")
    return Compared(
        *where,
        activations=count,
        left_out=int(known.size) - count,
        difference=float(np.abs(here - there)[known].mean()) if count else nothing,
        pearson=clustered_pearson(here, there, level=level),
        spearman=clustered_spearman(here, there, level=level),
        mean=float(here[known].mean()) if count else nothing,
        mean_other=float(there[known].mean()) if count else nothing,
    )


def check_shapes(ours: Mapping[str, tuple[int, ...]], theirs: Mapping[str, tuple[int, ...]], name: str) -> None:
    """Refuse files of another network.

    Args:
        ours: layer -> shape of its activations, channels first.
        theirs: likewise; sides of 1 make no difference.
        name: of the file.

    Raises:
        DataError: no checkpoint in common, or one of different shapes.

    Example:
        >>> check_shapes({"avgpool": (512,)}, {"avgpool": (512, 1, 1)}, "si.hdf5")
    """
    shared = [layer for layer in ours if layer in theirs]
    if not shared:
        message = (
            f"{name} has no checkpoint of this result: expected some of {', '.join(ours)}, and it has "
            f"{', '.join(theirs)}. Give files of the same network, or name its checkpoints with --layers"
        )
        raise DataError(message)
    for layer in shared:
        if _sides(ours[layer]) != _sides(theirs[layer]):
            message = (
                f"checkpoint '{layer}' of {name} belongs to another network: expected activations of "
                f"{'x'.join(map(str, ours[layer]))}, and it has {'x'.join(map(str, theirs[layer]))}. Give files of the "
                "network that is looked at"
            )
            raise DataError(message)


def _sides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(side for side in shape if side > 1)


def check_published(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse value files that cannot be compared with, before anything is computed.

    Args:
        path: a value file or a folder of them.
        shapes: layer -> shape of its activations.

    Raises:
        DataError: there are none, one is torn, or one belongs to another network.
    """
    for one in published_files(path):
        check_shapes(shapes, read_shapes(one), one.name)


def with_comparison(result: Result, path: Path) -> Result:
    """A result with the group `comparison`: each quantity beside that of value files of the same kind and variables.

    Of a folder, files of other sets of augmentations are passed over, for there the same class is another factor.

    Args:
        result: of the study.
        path: a value file or a folder of them.

    Raises:
        DataError: there are none that go with the result, or one is torn or belongs to another network.
    """
    original = Original(result)
    level = float(result.provenance.spec.get("level", 0.95))
    found = [one for ours, theirs in _matched(original, path) for one in compare(ours, theirs, level=level)]
    if not found:
        names = ", ".join(one.name for one in published_files(path))
        message = (
            f"no value file at {path} goes with this result: expected the set of augmentations "
            f"'{original.sets}' and what was estimated, and there are {names}. Give other files, or choose the same "
            "--augmentations and --estimators"
        )
        raise DataError(message)
    tree = {node.path: node.to_dataset(inherit=False) for node in result.tree.subtree}
    return replace(result, tree=xr.DataTree.from_dict({**tree, "/comparison": comparison_group(found)}))


def _matched(original: Original, path: Path) -> Iterator[tuple[ValueFile, ValueFile]]:
    """Value files of the result and those that hold the same, one pair at a time: they may be large."""
    theirs = published_files(path)
    for ours in value_files(original):
        if ours.name.corrected:
            continue
        for one in theirs:
            read = read_values(one) if _same_kind(ours, one) else None
            if read is not None and _same_variables(original, ours, read):
                yield ours, read


def _same_kind(ours: ValueFile, path: Path) -> bool:
    name = file_name(path.name)
    own = ours.name
    return name is not None and (name.kind, name.augmentation, name.channel) == (
        own.kind,
        own.augmentation,
        own.channel,
    )


def _same_variables(original: Original, ours: ValueFile, theirs: ValueFile) -> bool:
    """Whether the augmentations are the same, whatever else varies."""
    if not ours.variables:
        return ours.name.sets == theirs.name.sets
    return ours.kind == "cs" or set(theirs.variables) - {*AUXILIARY, "image"} == set(original.augmentations)


def comparison_group(rows: Sequence[Compared]) -> xr.Dataset:
    """Comparisons as a group of a result, one row for each checkpoint, quantity and variable."""
    names = {"file": "file_name", "layer": "layer_name", "quantity": "quantity_name", "variable": "variable_name"}
    coords = {
        name: ("comparison", np.array([getattr(row, own) for row in rows], dtype=object)) for own, name in names.items()
    }
    meaning = {
        "activations": "activations known on both sides",
        "left_out": "activations not known on one side, such as dead ones",
        "difference": "mean absolute difference",
        "mean": "mean over activations of this result",
        "mean_other": "mean over activations of the files",
    }
    data = {
        name: xr.Variable(("comparison",), np.array([getattr(row, name) for row in rows]), {"long_name": text})
        for name, text in meaning.items()
    }
    for kind in ("pearson", "spearman"):
        for end, text in (
            ("value", f"{kind.title()}'s correlation over activations"),
            ("low", "lower end of its interval, units being what was sampled"),
            ("high", "upper end of its interval"),
        ):
            values = np.array([getattr(getattr(row, kind), end) for row in rows])
            name = kind if end == "value" else f"{kind}_{end}"
            data[name] = xr.Variable(("comparison",), values, {"long_name": text})
    return xr.Dataset(data, coords=coords)
