"""Value files on disk: written in the layouts of the original, and read back, ours as well as the published ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuronscope.errors import DataError
from neuronscope.studies.sensitivity.original.layouts import (
    BOUNDARIES,
    NEEDED,
    VARIABLES,
    Checkpoint,
    FileName,
    Groups,
    ValueFile,
    file_name,
)

if TYPE_CHECKING:
    import h5py

_PACKED: dict[str, Any] = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}
"""As the published archive is packed, but for the level, which gains 1 % at three times the time."""


def write_values(file: ValueFile, folder: Path) -> Path:
    """Write a value file: a group for each checkpoint with the attribute `shape`, and in it the datasets of its kind.

    Returns:
        Its path, in the folder.
    """
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file.name.text
    with h5py.File(path, "w") as content:
        if file.variables:
            content.attrs["variables"] = list(file.variables)
        for name, value in file.notes.items():
            content.attrs[name] = value
        for layer, checkpoint in file.checkpoints.items():
            group = content.create_group(layer)
            group.attrs["shape"] = np.array(checkpoint.shape)
            for name, values in checkpoint.values.items():
                group.create_dataset(name, data=values, **_PACKED)
    return path


def read_published(path: Path) -> tuple[ValueFile, ...]:
    """The value files at a path: one, or all in a folder and below, by name.

    Args:
        path: a file of the original's name, or a folder with such files.

    Raises:
        DataError: there are none, or one is torn, misses datasets, or has rows that nothing says the meaning of.
    """
    return tuple(read_values(one) for one in published_files(path))


def published_files(path: Path) -> tuple[Path, ...]:
    """The value files at a path, by name. A contrast whose plain file is there is not taken from its corrected copy.

    Raises:
        DataError: there are none.
    """
    if path.is_file():
        found = [path] if file_name(path.name) else []
    else:
        found = sorted(one for one in path.rglob("*.hdf5") if file_name(one.name))
    there = {one.name for one in found}
    chosen = tuple(one for one in found if one == path or _plain(one.name) == one.name or _plain(one.name) not in there)
    if not chosen:
        raise _nothing(path)
    return chosen


def read_values(path: Path) -> ValueFile:
    """One value file.

    Raises:
        DataError: its name is no value file's, or it is torn, misses datasets, or has rows without a meaning.
    """
    import h5py

    name = file_name(path.name)
    if name is None:
        raise _nothing(path)
    try:
        with h5py.File(path, "r") as content:
            return _read(path, name, content)
    except (OSError, RuntimeError) as error:  # RuntimeError: metadata that h5py cannot follow
        message = (
            f"{path} is torn or no HDF5 file: expected value files as the original writes them, and reading gave "
            f"'{error}'. Unpack or fetch it again"
        )
        raise DataError(message) from error


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Checkpoint -> shape of its activations, of one value file, without reading values.

    Raises:
        DataError: it is torn, or has no checkpoints.
    """
    import h5py

    try:
        with h5py.File(path, "r") as content:
            return {layer: _shape(path, layer, group) for layer, group in _groups(path, content)}
    except OSError as error:
        message = (
            f"{path} is torn or no HDF5 file: expected value files as the original writes them, and opening it gave "
            f"'{error}'. Unpack or fetch it again"
        )
        raise DataError(message) from error


def _nothing(path: Path) -> DataError:
    example = FileName("si", "alexnet_imagenet_ILSVRC", "train+valid", sets="1").text
    came = "there is no such file or folder" if not path.exists() else "there is none"
    return DataError(
        f"{path} has no value files of the original: expected names such as {example}, and {came}. Give a value file, "
        "or the folder that the archive was unpacked to"
    )


def _plain(name: str) -> str:
    """The name of the file that a corrected copy is a copy of."""
    found = file_name(name)
    return name if found is None else FileName(**{**found.__dict__, "corrected": False}).text


def _read(path: Path, name: FileName, content: h5py.File) -> ValueFile:
    checkpoints = {layer: _checkpoint(path, name, layer, group) for layer, group in _groups(path, content)}
    variables = _variables(path, name, content)
    count = len(variables)
    for dataset, axis, expected in (("si+sT", 0, 2), ("si+sT", 1, count), ("si2", 0, count * (count - 1) // 2)):
        _check_rows(path, checkpoints, dataset, axis=axis, expected=expected)
    players: Groups = ()
    if name.kind == "shpv":
        players = _players(path, name, content, variables, _rows(checkpoints, "shpv", axis=0))
        _check_rows(path, checkpoints, "shpv", axis=0, expected=sum(map(len, players)))
    notes = {key: value for key, value in content.attrs.items() if key != "variables"}
    return ValueFile(name, variables, players, checkpoints, notes)


def _groups(path: Path, content: h5py.File) -> Iterator[tuple[str, h5py.Group]]:
    """Groups that are checkpoints."""
    import h5py

    found = {layer: group for layer, group in content.items() if isinstance(group, h5py.Group)}
    if not found:
        message = (
            f"{path} has no checkpoints: expected a group for each, and found {', '.join(content) or 'nothing'}. Give "
            "value files, not activations or parameters"
        )
        raise DataError(message)
    yield from found.items()


def _shape(path: Path, layer: str, group: h5py.Group) -> tuple[int, ...]:
    if "shape" not in group.attrs:
        message = (
            f"checkpoint '{layer}' of {path} does not say its shape: expected an attribute 'shape', and there are "
            f"{', '.join(group.attrs) or 'none'}. Give value files as the original writes them"
        )
        raise DataError(message)
    return tuple(int(side) for side in np.atleast_1d(group.attrs["shape"]))


def _checkpoint(path: Path, name: FileName, layer: str, group: h5py.Group) -> Checkpoint:
    shape = _shape(path, layer, group)
    missing = [one for one in NEEDED[name.kind] if one not in group]
    if missing:
        message = (
            f"checkpoint '{layer}' of {path} has no dataset '{missing[0]}': expected {', '.join(NEEDED[name.kind])} in "
            f"a file of {name.kind}, and there are {', '.join(group) or 'none'}. Unpack or fetch it again"
        )
        raise DataError(message)
    values = {one: np.asarray(dataset[()]) for one, dataset in group.items()}
    wrong = next((one for one, array in values.items() if array.shape[-1:] != (int(np.prod(shape)),)), None)
    if wrong is not None:
        message = (
            f"'{wrong}' of checkpoint '{layer}' in {path} has the shape {values[wrong].shape}: expected "
            f"{int(np.prod(shape))} activations ({'x'.join(map(str, shape))}) along the last axis. Fetch it again"
        )
        raise DataError(message)
    return Checkpoint(shape, values)


def _variables(path: Path, name: FileName, content: h5py.File) -> tuple[str, ...]:
    if name.kind == "cs":
        return (name.augmentation,)
    if name.kind not in ("si", "shpv"):
        return ()
    if "variables" in content.attrs:
        return tuple(str(one) for one in np.atleast_1d(content.attrs["variables"]))
    if name.sets in VARIABLES:
        return VARIABLES[name.sets]
    message = (
        f"nothing says what the rows of {path} are about: expected augnm=1 or augnm=2 in its name, or an attribute "
        f"'variables', and the name says '{name.sets}'. Rename it as the original does"
    )
    raise DataError(message)


def _players(path: Path, name: FileName, content: h5py.File, variables: tuple[str, ...], rows: set[int]) -> Groups:
    """Rows of `shpv` that belong to each variable: as the file says, or one each, or the scalars of the original."""
    count = len(variables)
    if "groups" in content.attrs:
        ends = tuple(int(one) for one in np.atleast_1d(content.attrs["groups"]))
    else:
        ends = tuple(range(count + 1)) if rows == {count} else BOUNDARIES.get(name.sets, ())
    if len(ends) != count + 1:
        message = (
            f"nothing says which rows of shpv in {path} belong to which of its {count} variables: expected {count} "
            f"rows, an attribute 'groups' with {count + 1} numbers, or augnm=1 or 2 in its name, and there are "
            f"{', '.join(map(str, sorted(rows)))} rows. Unpack or fetch it again"
        )
        raise DataError(message)
    return tuple(tuple(range(first, end)) for first, end in pairwise(ends))


def _rows(checkpoints: Mapping[str, Checkpoint], dataset: str, *, axis: int) -> set[int]:
    return {one.values[dataset].shape[axis] for one in checkpoints.values() if dataset in one.values}


def _check_rows(path: Path, checkpoints: Mapping[str, Checkpoint], dataset: str, *, axis: int, expected: int) -> None:
    """Refuse an index with other rows than there are variables."""
    for layer, checkpoint in checkpoints.items():
        if dataset in checkpoint.values and checkpoint.values[dataset].shape[axis] != expected:
            message = (
                f"'{dataset}' of checkpoint '{layer}' in {path} has the shape {checkpoint.values[dataset].shape}: "
                f"expected {expected} along axis {axis}, as its variables say, so some are missing. Unpack or fetch it "
                "again"
            )
            raise DataError(message)
