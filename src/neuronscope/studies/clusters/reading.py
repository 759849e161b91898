"""Files of the program this study comes from, read as data: statistics, clusterings, and tables by class.

That program writes its statistics under two names (`activation_rate` today, `sparsity` before August 2025), keeps a
folder for each block and number of clusters, and works on classes in ranges whose tables are put together by hand.
All of these are read here; nothing is unpickled, and what is torn or foreign is one `DataError` that names the file.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from neuronscope.errors import DataError

_RATES = ("activation_rate", "sparsity")  # the second: files made before 27 August 2025
_KEYS = ("class_id", "method")
_SHOWN = 5
"""Doubtful rows that a message names."""


def read_statistics(
    place: Path | str,
) -> tuple[Float[np.ndarray, "u"], Float[np.ndarray, "u"], Float[np.ndarray, "u"]]:
    """Rate, mean and variance of the units of a block, float64.

    Args:
        place: a file `stats_BLOCK.npz`, or a folder with one.

    Raises:
        DataError: there is no such file or several, or it is torn, foreign, or holds numbers that are no statistics.
    """
    path = _the_file(Path(place), "stats_*.npz")
    arrays = _load(path)
    rate = next((name for name in _RATES if name in arrays), None)
    missing = [name for name in ("mean_activation", "variance") if name not in arrays]
    if rate is None or missing:
        missing = [*([] if rate else [" or ".join(_RATES)]), *missing]
        message = (
            f"{path} has no statistics of units: {', '.join(missing)} missing, there are "
            f"{', '.join(arrays) or 'no arrays'}. Give a file that neuron_stats.py or this study has written"
        )
        raise DataError(message)
    found = [np.asarray(arrays[name]) for name in (rate, "mean_activation", "variance")]
    if any(values.ndim != 1 or values.shape != found[0].shape or values.dtype.kind not in "fiu" for values in found):
        shapes = ", ".join(f"{values.dtype} {values.shape}" for values in found)
        message = f"{path} has statistics that do not belong together: {shapes}. Expected three rows of equal length"
        raise DataError(message)
    exact = [values.astype(np.float64) for values in found]
    if not all(np.isfinite(values).all() for values in exact) or (exact[0] < 0).any() or (exact[0] > 1).any():
        message = (
            f"{path} has statistics that are not finite, or rates outside 0 to 1. Expected those of a network that "
            "gives finite activations: make them again"
        )
        raise DataError(message)
    return exact[0], exact[1], exact[2]


def read_clusters(place: Path | str) -> tuple[Int[np.ndarray, "u"], int, str]:
    """Cluster of each unit, number of clusters, and name of the block.

    Args:
        place: a file `cluster_results*.npz`, or a folder with one.

    Raises:
        DataError: there is no such file or several, or it is torn, foreign, or has clusters outside its number.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.savez(folder / "cluster_results.npz", labels=[0, 1, 0], n_clusters=2, selected_block="block_1")
        >>> read_clusters(folder)
        (array([0, 1, 0]), 2, 'block_1')
    """
    path = _the_file(Path(place), "cluster_results*.npz")
    arrays = _load(path)
    missing = [name for name in ("selected_block", "labels", "n_clusters") if name not in arrays]
    if missing:
        message = (
            f"{path} has no clusters: {', '.join(missing)} missing, there are {', '.join(arrays) or 'no arrays'}. "
            "Give a file that neuron_stats.py or this study has written"
        )
        raise DataError(message)
    labels, number = arrays["labels"], arrays["n_clusters"]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or number.size != 1 or number.dtype.kind not in "iu":
        message = (
            f"{path} has labels of type {labels.dtype} {labels.shape} and a number of clusters of type {number.dtype} "
            f"{number.shape}. Expected a row of whole numbers, and one whole number"
        )
        raise DataError(message)
    k, block = int(number.item()), str(arrays["selected_block"])
    if len(labels) and (int(labels.min()) < -1 or int(labels.max()) >= k):
        message = (
            f"{path} has clusters from {labels.min()} to {labels.max()}, but {k} clusters. Expected 0 to {k - 1}, or "
            "-1 for units set apart: make the file again"
        )
        raise DataError(message)
    return labels.astype(np.int64), k, block


def merge_class_csvs(paths: Sequence[Path | str]) -> pd.DataFrame:
    """Tables of ranges of classes as one, sorted by class and method.

    Args:
        paths: of `class_analysis_metrics_*.csv`.

    Returns:
        All columns of the tables; a column that some lack is nan there. Where classes between the first and the last
        are missing, or one lacks a method that others have, a warning says which.

    Raises:
        DataError: no table, one that cannot be read or lacks `class_id` or `method`, or a class that is there twice.
    """
    if not paths:
        message = "no tables to merge. Give at least one class_analysis_metrics_*.csv"
        raise DataError(message)
    files = [Path(path) for path in paths]
    whole = pd.concat([_table(path).assign(_file=path.name) for path in files], ignore_index=True)
    twice = whole[whole.duplicated(list(_KEYS), keep=False)]
    if len(twice):
        doubled = [f"class {number}, {method}" for number, method in dict.fromkeys(_pairs(twice))]
        names = ", ".join(sorted(set(twice["_file"])))
        message = (
            f"{_some(doubled)} in more than one row, from {names}. Expected each class and method once: leave out the "
            "tables whose ranges overlap"
        )
        raise DataError(message)
    whole = whole.drop(columns="_file").sort_values(list(_KEYS), kind="stable", ignore_index=True)
    there, methods = set(_pairs(whole)), sorted(set(whole["method"]))
    classes = range(int(whole["class_id"].min()), int(whole["class_id"].max()) + 1) if len(whole) else range(0)
    absent = [f"class {number}, {method}" for number in classes for method in methods if (number, method) not in there]
    if absent:
        message = f"{_some(absent)} missing between classes {classes[0]} and {classes[-1]}: merge their tables as well"
        warnings.warn(message, stacklevel=2)
    return whole


def _the_file(place: Path, pattern: str) -> Path:
    if not place.is_dir():
        return place
    found = sorted(place.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        message = f"{place} holds {len(found)} files {pattern} ({names}). Expected one: name the file itself"
        raise DataError(message)
    return found[0]


def _load(path: Path) -> Mapping[str, np.ndarray]:
    """All arrays of an archive; objects are refused, as unpickling runs code."""
    try:
        # Given a file, not a path, which it would leave open where it cannot read it.
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            arrays = {name: found[name] for name in found.files} if isinstance(found, np.lib.npyio.NpzFile) else None
    except FileNotFoundError as error:
        message = f"{path} does not exist. Give a file or folder that neuron_stats.py or this study has written"
        raise DataError(message) from error
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        # numpy takes whatever it does not know for pickled objects, and says how to load them: that would run code.
        cause = "it is no such archive, or holds objects" if isinstance(error, ValueError) else error
        message = (
            f"{path} cannot be read ({cause}). Expected an archive (.npz) of plain numbers as neuron_stats.py writes "
            "it: it is torn or of something else, make it again"
        )
        raise DataError(message) from error
    if arrays is None:
        message = f"{path} is a single array. Expected an archive (.npz) of neuron_stats.py or of this study"
        raise DataError(message)
    return arrays


def _table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except FileNotFoundError as error:
        message = f"{path} does not exist. Give tables that class_analysis.py or this study has written"
        raise DataError(message) from error
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read ({error}). Expected a table that class_analysis.py or this study has written"
        raise DataError(message) from error
    missing = [name for name in _KEYS if name not in table]
    if missing:
        message = (
            f"{path} has no column {' or '.join(missing)}, but {', '.join(map(str, table.columns[:_SHOWN]))}. Expected "
            "a table that class_analysis.py or this study has written"
        )
        raise DataError(message)
    if len(table) and (table["class_id"].dtype.kind not in "iu" or table["method"].isna().any()):
        message = f"{path} is torn: a class_id is no whole number or a method is missing. Make the table again"
        raise DataError(message)
    return table


def _pairs(table: pd.DataFrame) -> list[tuple[int, str]]:
    return [(int(number), str(method)) for number, method in zip(table["class_id"], table["method"], strict=True)]


def _some(names: Sequence[str]) -> str:
    """The first few of many."""
    more = len(names) - _SHOWN
    return "; ".join(names[:_SHOWN]) + (f" and {more} more are" if more > 0 else " are" if len(names) > 1 else " is")
