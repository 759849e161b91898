"""The original's file of predictions: written from a result that kept them, and compared with.

The names of inputs and masks are the original's, so its notebooks read these files. `manifest.json`, which the original
has not, says what differs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float, Float32, Int

from neuronscope.augment import SETS
from neuronscope.errors import DataError
from neuronscope.maths.masking_analysis import accuracies, image_accuracy
from neuronscope.result import Result
from neuronscope.run import Run
from neuronscope.studies.sensitivity.masking.answers import texts
from neuronscope.studies.sensitivity.masking.predictions import (
    PredictedMask,
    listed_masks,
    read_labels,
    read_predictions,
    write_predictions,
)
from neuronscope.studies.sensitivity.masking.responses import Responses, response_groups
from neuronscope.studies.sensitivity.masking.scalings import TOGETHER
from neuronscope.studies.sensitivity.masking.setting import PLAIN, Combined
from neuronscope.studies.sensitivity.masking.spec import MaskingSpec
from neuronscope.studies.sensitivity.original.values import Original, split_part

ORIGINAL_FIGURES: dict[str, str] = {}
"""File of the original -> figure here in its place: its figures are cells of notebooks, without names."""

VALUES = {"shapley": "shpv", "first": "si", "total": "siT", "contrast": "rbscc"}
"""What the original calls the maps that guide."""

_AUXILIARY = {"order": "permutation", "class": "class", "partition": "partition", "image": "image"}
"""Factors that are no augmentation, and what the original calls them; it adds the number of the set."""

_DIFFERENCES = {
    "masks": "exactly the share that was asked for, elements of equal sensitivity in random order, unless "
    "quantile-masks was in force",
    "probas": "of one softmax, unless repeated-softmax was in force; classes of equal number come by class number",
    "rows": "images are those of this run, classes balanced, in its own order; their number and the draws may differ",
    "packing": "gzip level 4, where the published archive has 9 and 16-bit classes",
}
"""What is not as in the original, by what it is about."""


def export_masking(result: Result, folder: Path) -> list[Path]:
    """Write the original's file of predictions into a folder, where the result has kept them, and a manifest.

    The file is `{shpv|si|siT|rbscc}_NET_DATA_values_pred_NOFCL_part=PART.hdf5`; data is `imagenet_ILSVRC` for ImageNet.
    Masks of single layers, which the original has not, are left out.

    Args:
        result: of the study.
        folder: where to; made when it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written, missing = [], []
    if "predictions" in result.tree.children:
        groups = [node.to_dataset() for node in result.tree["predictions"].children.values()]
        path = folder / file_name(result)
        labels = groups[0]["label"].to_numpy()
        written.append(write_predictions(path, labels, _masks(result, groups)))
    else:
        missing.append("predictions: the result keeps accuracies alone; --keep predictions keeps them")
    manifest = folder / "manifest.json"
    content = {
        "network": result.provenance.subject,
        "data": result.provenance.data,
        "legacy": list(result.provenance.legacy),
        "settings": dict(result.provenance.spec),
        "differences": _DIFFERENCES,
        "missing": missing,
        "files": [one.name for one in written],
    }
    manifest.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [*written, manifest]


def file_name(result: Result) -> str:
    """The name of the original's file for a result."""
    value = VALUES[str(result.provenance.spec["value"])]
    return f"{value}_{Original(result).origin}_values_pred_NOFCL_part={split_part(result.provenance.data)}.hdf5"


def original_variables(variables: Sequence[str], *, number: int) -> dict[str, str]:
    """What the original calls the factors of a set.

    Args:
        variables: the factors' names; those of several sets that were joined have the number of their set already.
        number: of the set, for those that have none.

    Example:
        >>> original_variables(["hue", "order", "class-2"], number=1)
        {'hue': 'hue', 'order': 'permutation-1', 'class-2': 'class-2'}
    """
    found = {}
    for name in variables:
        known = re.fullmatch(rf"({'|'.join(_AUXILIARY)})(-\d+)?", name)
        found[name] = f"{_AUXILIARY[known[1]]}{known[2] or f'-{number}'}" if known else name
    return found


def set_number(augmentations: Sequence[str], place: int) -> int:
    """The original's number of a set of augmentations: 2 for its second set, of others the place, from 1."""
    return 2 if tuple(augmentations) == tuple(SETS["set2"]) else place + 1


def original_masks(configurations: xr.Dataset, variables: Mapping[str, str]) -> dict[str, str]:
    """Name of each mask of some factors in a result -> the original's; masks of single layers are not among them.

    Args:
        configurations: the group of that name.
        variables: factors and what the original calls them.
    """
    found = {}
    for name, variable, at in zip(
        configurations["configuration_name"].to_numpy(),
        configurations["variable"].to_numpy(),
        configurations["at"].to_numpy(),
        strict=True,
    ):
        if not variable:
            found[str(name)] = str(name)
        elif variable in variables and at == TOGETHER:
            found[str(name)] = str(name).replace(f"iaug={variable}", f"iaug={variables[str(variable)]}", 1)
    return found


def _masks(result: Result, groups: Sequence[xr.Dataset]) -> Iterator[PredictedMask]:
    """Every mask of every kind of input; what plain input has without a mask is written once."""
    seen: set[tuple[str, str]] = set()
    for place, group in enumerate(groups):
        inputs = [str(name) for name in group["row_input"].to_numpy()]
        names = [str(name) for name in group["configuration_name"].to_numpy()]
        number = set_number(list(dict.fromkeys(inputs))[1:], place)
        variables = original_variables(group.attrs["variables"], number=number)
        masks = original_masks(result.tree["configurations"].to_dataset(), variables)
        top, probability = group["top"].to_numpy(), group["probability"].to_numpy()
        for given in dict.fromkeys(inputs):
            rows = [row for row, name in enumerate(inputs) if name == given]
            for column, name in enumerate(names):
                if name in masks and (given, masks[name]) not in seen:
                    seen.add((given, masks[name]))
                    yield PredictedMask(
                        given, masks[name], top[:, rows, column].astype(np.int64), probability[:, rows, column]
                    )


def _variable(mask: str) -> str:
    """The factor of a mask by its name."""
    return mask.rpartition("iaug=")[2].partition("_invert=")[0]


def check_published(path: Path, sets: Sequence[Combined]) -> None:
    """Refuse a file that cannot be compared with, before anything is computed.

    Args:
        path: of the file.
        sets: inputs and factors of the study.

    Raises:
        DataError: it is torn, no file of predictions, or has none of these inputs and factors.
    """
    read_labels(path)
    there = listed_masks(path)
    wanted = {
        (given, variable)
        for place, one in enumerate(sets)
        for given in one.inputs
        for variable in original_variables(one.variables, number=set_number(one.inputs[1:], place)).values()
    }
    if not wanted & {(given, _variable(mask)) for given, mask in there}:
        inputs = ", ".join(sorted({given for given, _ in there})) or "no inputs"
        message = (
            f"{path} has none of the masks of this study: expected some of "
            f"{', '.join(sorted({name for _, name in wanted}))}, and it has input {inputs} with other masks. Give "
            "predictions of the same augmentations"
        )
        raise DataError(message)


def with_comparison(result: Result, path: Path) -> Result:
    """A result with the groups `comparison` and `comparison_correlations`: beside what a file of the original says.

    Args:
        result: of the study.
        path: of the file.

    Raises:
        DataError: it is torn, or shares no mask with the result.
    """
    spec = result.provenance.spec
    level = float(spec["level"])
    labels = read_labels(path)
    accuracy = result.tree["accuracy"].to_dataset()
    names = [str(name) for name in result.tree["configurations"]["configuration_name"].to_numpy()]
    sets = _sets(result)
    rows: list[tuple[str, str, Float[np.ndarray, "ends"], Float[np.ndarray, "ends"]]] = []
    responses: list[Responses] = []
    seen: set[tuple[str, str]] = set()
    inputs = [str(name) for name in accuracy["input_name"].to_numpy()]
    here = np.stack([accuracy[f"accuracy{end}"].to_numpy()[0] for end in ("", "_low", "_high")])
    for own_inputs, variables, masks in sets:
        ours = {theirs: name for name, theirs in masks.items()}
        wanted = [(given, theirs) for given in own_inputs for theirs in masks.values()]
        right: dict[tuple[str, str], Float32[np.ndarray, "n"]] = {}
        for one in read_predictions(path, wanted):
            own = _right(one, labels)
            key = (one.given, ours[one.mask])
            right[key] = own
            if key not in seen:
                seen.add(key)
                there = accuracies(own, level=level)
                place = (inputs.index(key[0]), names.index(key[1]))
                ends = np.array([float(there.value), float(there.low), float(there.high)])
                rows.append((*key, here[:, place[0], place[1]], ends))
        responses.extend(_responses(right, own_inputs, variables, masks))
    if not rows:
        message = (
            f"{path} shares no mask with this result: expected some of {', '.join(names[:3])}. Give predictions of the "
            "same augmentations"
        )
        raise DataError(message)
    groups = {"comparison": _comparison(path, rows)}
    asked = MaskingSpec(resamples=int(spec["resamples"]), level=level)
    run = Run(seed=int(result.provenance.circumstances.get("seed", 0)))
    theirs = response_groups(responses, asked, run)
    if theirs:
        groups["comparison_correlations"] = theirs["correlations"]
    tree = {node.path: node.to_dataset(inherit=False) for node in result.tree.subtree}
    return replace(result, tree=xr.DataTree.from_dict({**tree, **{f"/{name}": one for name, one in groups.items()}}))


def _sets(result: Result) -> list[tuple[list[str], list[str], dict[str, str]]]:
    """Of each set of a result: kinds of input, factors, and the original's names of masks."""
    accuracy = result.tree["accuracy"].to_dataset()
    configurations = result.tree["configurations"].to_dataset()
    known = np.isfinite(accuracy["accuracy"].to_numpy()[0])
    inputs = [str(name) for name in accuracy["input_name"].to_numpy()]
    variable = [str(name) for name in configurations["variable"].to_numpy()]
    found: dict[tuple[str, ...], list[str]] = {}
    for name in dict.fromkeys(variable[1:]):
        column = variable.index(name)
        own = tuple(given for row, given in enumerate(inputs) if known[row, column])
        found.setdefault(own, []).append(name)
    return [
        (
            list(own),
            variables,
            original_masks(configurations, original_variables(variables, number=set_number(own[1:], place))),
        )
        for place, (own, variables) in enumerate(found.items())
    ]


def _right(one: PredictedMask, labels: Int[np.ndarray, "n"]) -> Float32[np.ndarray, "n"]:
    """Share of an image's draws whose first class is the label."""
    rank = (one.top[:, :, 0] != labels[:, None]).astype(np.int64)
    return image_accuracy(rank[:, :, None])[:, 0]


def _responses(
    right: Mapping[tuple[str, str], Float32[np.ndarray, "n"]],
    inputs: Sequence[str],
    variables: Sequence[str],
    masks: Mapping[str, str],
) -> Iterator[Responses]:
    """The responses of a set, as far as the file has all of them."""
    of = {variable: [name for name in masks if _variable(name) == variable] for variable in variables}
    whole = [name for name, own in of.items() if all((PLAIN, mask) in right for mask in own)]
    augmentations = [
        given for given in inputs[1:] if all((given, mask) in right for name in whole for mask in of[name])
    ]
    if whole and augmentations:
        cells = [[[right[given, mask] for mask in of[name]] for name in whole] for given in (PLAIN, *augmentations)]
        yield Responses(augmentations, whole, np.moveaxis(np.array(cells), -1, 0))


def _comparison(
    path: Path, rows: Sequence[tuple[str, str, Float[np.ndarray, "ends"], Float[np.ndarray, "ends"]]]
) -> xr.Dataset:
    """Accuracies of both, and their difference with the interval that the two of them make.

    Source: Newcombe (1998), "Interval estimation for the difference between independent proportions", method 10.
    """
    here, there = (np.stack([row[place] for row in rows]) for place in (2, 3))
    difference = here[:, 0] - there[:, 0]
    low = difference - np.hypot(here[:, 0] - here[:, 1], there[:, 2] - there[:, 0])
    high = difference + np.hypot(here[:, 2] - here[:, 0], there[:, 0] - there[:, 1])
    variables = {
        "accuracy": here[:, 0],
        "accuracy_other": there[:, 0],
        "accuracy_other_low": there[:, 1],
        "accuracy_other_high": there[:, 2],
        "difference": difference,
        "difference_low": low,
        "difference_high": high,
    }
    return xr.Dataset(
        {name: ("comparison", values) for name, values in variables.items()},
        coords={
            "compared_input": ("comparison", texts([row[0] for row in rows])),
            "compared_mask": ("comparison", texts([row[1] for row in rows])),
        },
        attrs={"file": path.name},
    )
