"""What the program this study comes from leaves behind, under its own names: value files, and the rows behind them.

The layouts are the original's, so its notebooks and its `validate.py` read these files, and `published` reads those of
its archive. Activations themselves are not kept by anything here. `manifest.json`, which the original has not, lists
the files and says what differs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from neuronscope.errors import NeuronscopeError
from neuronscope.result import Result
from neuronscope.studies.sensitivity.original.comparison import (
    Compared,
    check_published,
    compare,
    comparison_group,
    with_comparison,
)
from neuronscope.studies.sensitivity.original.layouts import DATASETS, ValueFile, quantities
from neuronscope.studies.sensitivity.original.parameters import effects_orders, write_parameters
from neuronscope.studies.sensitivity.original.published import read_published, write_values
from neuronscope.studies.sensitivity.original.values import Original, segment_checkpoint, value_files

__all__ = [
    "ORIGINAL_FIGURES",
    "Compared",
    "ValueFile",
    "check_published",
    "compare",
    "comparison_group",
    "export_sensitivity",
    "quantities",
    "read_published",
    "segment_checkpoint",
    "with_comparison",
]

ORIGINAL_FIGURES: dict[str, str] = {}
"""File of the original -> figure here in its place: its figures are cells of notebooks, without names."""

_LARGEST_ATTRIBUTE = 60_000
"""Bytes that an attribute of an HDF5 file can safely hold: beside its header, 64 KiB."""

_DIFFERENCES = {
    "sitv, si": "rows of all replicates together; dead activations are nan, not 0 (0 under zero-for-dead)",
    "shptv": "of the rows of the Shapley design that are independent draws; its mean is that of all rows, as in shpv",
    "shpv": "rows are groups, or single scalars under scalar-players: the attribute `players` says which, and `groups` "
    "where the rows of each variable begin, and the end; in 64 bits, of 32-bit values",
    "cs": "images of both partitions together where partition was a factor",
    "cs_pvals": "of the images' mean differences (of all differences under unclustered); the copy that is called "
    "corrected holds q-values, where the original's holds the same p-values again",
    "part": "train+valid: partitions 0 and 1, halves of one data set without other_data; train, valid or all: "
    "partition was no factor, and the data is that split, or has none",
    "selected_single_units": "hue, saturation and value are of pixels, not of normalised images (of these under "
    "normalised-hsv); units of a segment are in rising order",
    "variables": "an attribute of the file: what its rows are about, with factors that the original lacks at the end",
    "activations_params": "class is the row of the data, the second data set's after the first's; 32-bit floats; names "
    "of parameters that two augmentations share begin with the augmentation's",
}
"""What is not as in the original, by what it is about."""


def export_sensitivity(result: Result, folder: Path) -> list[Path]:
    """Write the files of the original into a folder.

    With the network, the data, the set of augmentations (1, 2, 3 for both, or the augmentations' names) in the names:

    * `{sitv|si|shptv|shpv}_NET_DATA_values_part=train+valid_augnm=SET.hdf5`.
    * `cs_NET_DATA_values_AUGMENTATION_part=train+valid.hdf5`, and its corrected copy.
    * `{si|shpv|shptv}_NET_DATA_activations_params_part=train+valid_augnm=SET.npz` and `cs_..._params_part=....npz`.
    * Of segments, the same for each channel: `CHANNEL_{sitv|si|...}_NET_DATA_values_selected_single_units_part=...`,
      with checkpoints `modules_dict.SEGMENT.LAST`, and `..._activations_params_selected_single_units_part=...`.
    * `manifest.json`.

    Data is `imagenet_ILSVRC` for ImageNet. What was not estimated has no file; a result that is joined of runs of
    several sets has the manifest only, for the original has files for each set.

    Args:
        result: of the study.
        folder: where to; made when it does not exist.
    """
    original = Original(result)
    missing: list[str] = []
    written = list(_written(original, folder, missing))
    return [*written, _manifest(original, folder, written, missing)]


def _written(original: Original, folder: Path, missing: list[str]) -> Iterator[Path]:
    if "layers" not in original.result.tree:
        missing.append("everything: the result shows the augmentations only")
        return
    if "factor_set" in original.factors.coords:
        missing.append("everything: the result is joined of several runs, and each set has files of its own; they are "
                       "written of the single runs (neuronscope report RUN --export-original)")  # fmt: skip
        return
    for file in value_files(original):
        lacking = {name for one in file.checkpoints.values() for name in DATASETS[file.kind] if name not in one.values}
        missing.extend(f"{name} in {file.name.text}: not estimated for activations" for name in sorted(lacking))
        yield write_values(_with_orders(original, file, missing), folder)
    try:
        yield from write_parameters(original, folder)
    except NeuronscopeError as error:
        missing.append(f"activations_params: {error}")


def _with_orders(original: Original, file: ValueFile, missing: list[str]) -> ValueFile:
    """Shapley effects with the orders in which players joined."""
    if file.kind != "shpv":
        return file
    try:
        orders = effects_orders(original)
    except NeuronscopeError as error:
        missing.append(f"sigmas of {file.name.text}: {error}")
        return file
    if orders.nbytes > _LARGEST_ATTRIBUTE:
        missing.append(
            f"sigmas of {file.name.text}: too large for an attribute; see variables_sigmas of its parameters"
        )
        return file
    return replace(file, notes={**file.notes, "sigmas": orders})


def _manifest(original: Original, folder: Path, written: list[Path], missing: list[str]) -> Path:
    provenance = original.result.provenance
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.json"
    content = {
        "network": provenance.subject,
        "data": provenance.data,
        "variables": list(original.variables) if "factors" in original.result.tree else [],
        "legacy": list(provenance.legacy),
        "settings": dict(provenance.spec),
        "differences": _DIFFERENCES,
        "missing": [
            "activations: rows are folded while they are made, and nothing stores them",
            "sitv_*_activations_params: its rows are those of si",
            *missing,
        ],
        "files": sorted(one.name for one in written),
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
