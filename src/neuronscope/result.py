"""What a study found: named arrays with provenance, one save, one open, one table.

A result is an `xarray.DataTree`. Its group `units` is one flat table: the axis `unit` runs over all units of all
layers, with the coordinates `layer` and `index`. Maps, whose sizes differ by layer, stand in one group per layer,
`maps/LAYER`. Every variable carries `long_name` and, where it has one, `units` (of measure) in its attributes.

On disk a result is a Zarr folder that any Zarr reader opens. A manifest among the root's attributes holds the
provenance and a checksum of every file, so that a torn or foreign folder is recognised. Nothing in it is pickled.
"""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from neuronscope.errors import InputError, ResultFileError, StorageError
from neuronscope.run import Run
from neuronscope.views import Page

FORMAT = 1
MANIFEST = "neuronscope"
_ROOT = "zarr.json"
_PACKAGES = ("neuronscope", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "xarray", "zarr")


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from: enough to make it again.

    Attributes:
        study: name of the study.
        spec: its options.
        legacy: named deviations in force.
        subject, data: how network and images were asked for, with their fingerprints.
        images: number of images that were read.
        skipped: row and cause of each image left out.
        nonfinite: layer -> units that gave NaN or infinite activations; their statistics are nan.
        circumstances: seed, batch size, threads, device, number format.
        versions: of Python and of the packages that decide numbers.
        seconds: wall time; peak_memory: largest resident size of the process, bytes.
    """

    study: str
    spec: Mapping[str, Any]
    legacy: tuple[str, ...]
    subject: str
    subject_fingerprint: str
    data: str
    data_fingerprint: str
    images: int
    skipped: tuple[tuple[int, str], ...] = ()
    nonfinite: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    circumstances: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory: int = 0

    def __post_init__(self) -> None:
        """Write options the way JSON has them (tuples as lists), so that a saved provenance comes back equal."""
        for name in ("spec", "circumstances"):
            object.__setattr__(self, name, json.loads(json.dumps(getattr(self, name))))


@dataclass(frozen=True)
class Result:
    """The outcome of one study.

    Attributes:
        tree: the arrays.
        provenance: where they come from.
        view: makes the page; set by the study, and again when a result is opened.
    """

    tree: xr.DataTree
    provenance: Provenance
    view: Callable[[Result], Page] | None = field(default=None, compare=False, repr=False)

    @property
    def table(self) -> xr.Dataset:
        """The group `units` as a dataset."""
        return self.tree["units"].to_dataset()

    def units(self) -> pd.DataFrame:
        """One row per unit: `layer`, `index`, and a column `study.quantity` for every number a unit has.

        Intervals, nulls and q-values stand beside their quantity as `_low`, `_high`, `_null`, `_q`.
        """
        frame = self.to_frame("unit")
        prefix = self.provenance.study
        return frame.rename(columns={name: f"{prefix}.{name}" for name in frame.columns if name not in _COORDINATES})

    def to_frame(self, *axes: str) -> pd.DataFrame:
        """All quantities of the unit table that have exactly these axes, one row per entry.

        With `unit` among the axes (the default is `unit` alone), rows start with `layer` and `index`.

        Raises:
            InputError: no quantity has these axes.
        """
        wanted = axes or ("unit",)
        table = self.table
        chosen = [name for name, values in table.data_vars.items() if set(values.dims) == set(wanted)]
        if not chosen and wanted != ("unit",):
            there = sorted({" x ".join(map(str, values.dims)) for values in table.data_vars.values()})
            axes_wanted, study = " x ".join(wanted), self.provenance.study
            message = f"no quantity of {study} has the axes {axes_wanted}. There are: {', '.join(there)}"
            raise InputError(message)
        if not chosen:
            return table[["layer", "index"]].to_dataframe().reset_index(drop=True)[["layer", "index"]]
        frame = table[chosen].reset_coords(drop=True).to_dataframe(dim_order=list(wanted)).reset_index()
        if "unit" in wanted:
            places = frame.pop("unit").to_numpy()
            frame.insert(0, "layer", table["layer"].to_numpy()[places].astype(str))
            frame.insert(1, "index", table["index"].to_numpy()[places])
        for axis in wanted:
            names = f"{axis}_name"
            if names in table.coords and axis in frame:
                frame[axis] = table[names].to_numpy()[frame[axis].to_numpy()].astype(str)
        return frame

    def page(self) -> Page:
        """What there is to show.

        Raises:
            ResultFileError: the result was opened without the study that knows how to show it.
        """
        if self.view is None:
            message = f"no study named '{self.provenance.study}' is installed here, so this result has no page"
            raise ResultFileError(message)
        return self.view(self)

    def save(self, path: str | Path) -> Path:
        """Write to a Zarr folder, all or nothing; an older result of the same name is replaced at the end.

        Raises:
            StorageError: the folder cannot be written, or something stands there that is not a result.
        """
        target = Path(path)
        if target.exists() and not _replaceable(target):
            message = f"{target} exists and is no result, so it is not replaced. Choose another --out"
            raise StorageError(message)
        scratch: Path | None = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            store = scratch / "new"
            self.tree.to_zarr(store, mode="w", consolidated=False, encoding=None)
            manifest = {"format": FORMAT, "provenance": asdict(self.provenance), "files": _checksums(store)}
            root = json.loads((store / _ROOT).read_text(encoding="utf-8"))
            root["attributes"][MANIFEST] = {"manifest": manifest}
            root["attributes"][MANIFEST]["sha256"] = _digest(root)
            (store / _ROOT).write_text(json.dumps(root, indent=1), encoding="utf-8")
            _swap(store, target, scratch / "old")
        except OSError as error:
            message = (
                f"cannot write the result to {target}: {error.strerror or error}. Free space or choose another --out"
            )
            raise StorageError(message) from error
        finally:
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)
        return target


def open_result(path: str | Path) -> Result:
    """Read a result back, after checking every file against the manifest.

    Raises:
        ResultFileError: there is no result, it is torn, foreign, or of a newer format.
    """
    folder = Path(path)
    store = folder / "result.zarr" if (folder / "result.zarr").is_dir() else folder
    if not (store / _ROOT).is_file():
        message = f"{folder} holds no neuronscope result. Give a folder that a run has written"
        raise ResultFileError(message)
    try:
        root = json.loads((store / _ROOT).read_text(encoding="utf-8"))
        manifest = root["attributes"][MANIFEST]["manifest"]
        version = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        message = f"{store / _ROOT} is torn or was not written by neuronscope. Run the study again"
        raise ResultFileError(message) from error
    if version != FORMAT:
        message = f"{store} has result format {version}, this neuronscope reads format {FORMAT}. Update neuronscope"
        raise ResultFileError(message)
    if root["attributes"][MANIFEST].pop("sha256", None) != _digest(root):
        message = f"{store / _ROOT} is torn: it does not match its checksum. Run the study again"
        raise ResultFileError(message)
    expected, found = manifest["files"], _checksums(store)
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if differing:
        message = (
            f"{store} is torn: {len(differing)} of {len(expected)} files are missing, changed or strange, "
            f"first '{differing[0]}'. Run the study again"
        )
        raise ResultFileError(message)
    # An attribute `units` of "seconds" is a unit of measure here, not a request to make dates of numbers.
    dates: dict[str, Any] = {"decode_times": False, "decode_timedelta": False}
    with xr.open_datatree(store, engine="zarr", consolidated=False, **dates) as lazy:
        tree = lazy.load()
    return Result(tree=_plain(tree), provenance=_provenance(manifest["provenance"]))


def same(left: Result, right: Result) -> bool:
    """Whether two results hold identical arrays, names, attributes and provenance."""
    return left.tree.identical(right.tree) and left.provenance == right.provenance


def unit_table(
    layers: Mapping[str, int], variables: Mapping[str, tuple[tuple[str, ...], np.ndarray, str, str]], **names: Any
) -> xr.Dataset:
    """The group `units` of a result.

    Args:
        layers: layer name -> number of units, in calling order.
        variables: name -> (axes, values, meaning, unit of measure).
        names: axis -> names along it, stored as the coordinate `AXIS_name`.
    """
    layer = np.repeat(np.array(list(layers), dtype=object), np.array(list(layers.values()), dtype=np.int64))
    index = np.concatenate([np.arange(count) for count in layers.values()]) if layers else np.zeros(0, dtype=np.int64)
    coordinates: dict[str, Any] = {"layer": ("unit", layer), "index": ("unit", index.astype(np.int64))}
    for axis, labels in names.items():
        coordinates[f"{axis}_name"] = (axis, np.array([str(label) for label in labels], dtype=object))
    data = {
        name: xr.Variable(axes, values, attrs={"long_name": meaning, **({"units": unit} if unit else {})})
        for name, (axes, values, meaning, unit) in variables.items()
    }
    return xr.Dataset(data, coords=coordinates)


def circumstances(run: Run) -> dict[str, Any]:
    """What of a run decides bits, for the provenance."""
    return {
        "seed": run.seed,
        "batch_size": run.batch_size,
        "threads": run.threads,
        "device": str(run.torch_device),
        "dtype": run.dtype,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would give a process the peak of its parent as well
        for line in status.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


_COORDINATES = frozenset({"layer", "index"})


def _provenance(recorded: dict[str, Any]) -> Provenance:
    exact = {
        "legacy": tuple(recorded["legacy"]),
        "skipped": tuple((int(row), str(cause)) for row, cause in recorded["skipped"]),
        "nonfinite": {layer: tuple(units) for layer, units in recorded["nonfinite"].items()},
    }
    return Provenance(**{**recorded, **exact})


def _plain(tree: xr.DataTree) -> xr.DataTree:
    """The tree with text as Python objects again and without storage encodings, as it was before saving."""

    def plain(dataset: xr.Dataset) -> xr.Dataset:
        text = {
            name: (values.dims, values.to_numpy().astype(object), values.attrs)
            for name, values in dataset.variables.items()
            if values.dtype.kind in "UST"
        }
        coordinates = {name: values for name, values in text.items() if name in dataset.coords}
        quantities = {name: values for name, values in text.items() if name not in coordinates}
        restored = dataset.assign_coords(coordinates).assign(quantities).drop_encoding()
        restored.attrs = {name: value for name, value in dataset.attrs.items() if name != MANIFEST}
        return restored

    return xr.DataTree.from_dict({node.path: plain(node.to_dataset(inherit=False)) for node in tree.subtree})


def _checksums(store: Path) -> dict[str, str]:
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path != store / _ROOT
    }


def _digest(root: Mapping[str, Any]) -> str:
    """Checksum of the root's metadata, manifest included, independent of spaces and the order of keys."""
    return hashlib.sha256(json.dumps(root, sort_keys=True).encode()).hexdigest()


def _replaceable(target: Path) -> bool:
    """Whether a result may take this place: an older result (torn or not) or an empty folder; never other files."""
    return target.is_dir() and ((target / _ROOT).is_file() or not any(target.iterdir()))


def _swap(store: Path, target: Path, aside: Path) -> None:
    """Put a new result in place of an older one, which comes back should that fail."""
    if not target.exists():
        store.rename(target)
        return
    target.rename(aside)
    try:
        store.rename(target)
    except OSError:
        aside.rename(target)
        raise
