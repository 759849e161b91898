"""Further questions about explained units: what they contribute to, whether they help, which are alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from neuronscope.data import load_data
from neuronscope.data.dataset import Data
from neuronscope.errors import InputError
from neuronscope.maths.formulas import Formula
from neuronscope.studies.concepts.accuracy import accuracy_when_firing, labelled_images
from neuronscope.studies.concepts.contributions import LayerThresholds, contributions
from neuronscope.studies.concepts.copy_paste import copy_paste_examples
from neuronscope.studies.concepts.evidence import LayerEvidence
from neuronscope.studies.concepts.grid import Grid
from neuronscope.studies.concepts.setting import Setting
from neuronscope.studies.concepts.similarity import activation_correlations, similarity

_log = logging.getLogger(__name__)


def analyses_groups(
    setting: Setting, grid: Grid, evidence: Sequence[LayerEvidence], units: xr.Dataset
) -> dict[str, xr.Dataset | None]:
    """The groups of the analyses that were asked for; one that has nothing to go on is left out, with a reason."""
    wanted = setting.spec.analyses
    layers = whole_layers(setting, evidence)
    groups: dict[str, xr.Dataset | None] = {}
    if "contributions" in wanted or "copy-paste" in wanted:
        groups |= contributions(setting, layers)
    if "accuracy" in wanted:
        groups["accuracy"] = _accuracy(setting, layers, units)
    if "copy-paste" in wanted:
        groups["copy_paste"] = _copy_paste(setting, evidence, layers, groups)
    if "similarity" in wanted:
        groups |= _similarity(setting, grid, evidence, layers)
    return groups


def whole_layers(setting: Setting, evidence: Sequence[LayerEvidence]) -> list[LayerThresholds]:
    """The layers with the thresholds of all their units, which may have been explained in blocks."""
    found: dict[str, list[np.ndarray]] = {}
    for one in evidence:
        found.setdefault(one.layer.name, []).append(one.levels.threshold)
    return [LayerThresholds(layer, np.concatenate(found[layer.name])) for layer in setting.layers]


def _accuracy(setting: Setting, layers: Sequence[LayerThresholds], units: xr.Dataset) -> xr.Dataset | None:
    data = _labelled(setting)
    if data is None:
        return None
    iou = _per_unit(units, layers, units["held_out"].to_numpy())
    single = _per_unit(units, layers, units["held_out_by_length"].to_numpy()[:, 0])
    return accuracy_when_firing(
        setting.subject, data, layers, iou=iou, concept_iou=single, run=setting.run, level=setting.spec.level
    )


def _labelled(setting: Setting) -> Data | None:
    """Images with classes of the network.

    Raises:
        InputError: `labelled` names images of other classes.
    """
    if not setting.spec.labelled:
        data, reason = labelled_images(setting)
        if data is None:
            _log.warning("no accuracy of units: %s. Give labelled images with --labelled", reason)
        return data
    data = load_data(setting.spec.labelled, seed=setting.run.seed)
    if data.labels.max(initial=-1) >= len(setting.subject.classes):
        message = (
            f"{data.name} has labels up to {data.labels.max()}, but {setting.subject.name} has "
            f"{len(setting.subject.classes)} outputs. Give images with the classes of the network"
        )
        raise InputError(message)
    return data


def _similarity(
    setting: Setting, grid: Grid, evidence: Sequence[LayerEvidence], layers: Sequence[LayerThresholds]
) -> dict[str, xr.Dataset | None]:
    related = activation_correlations(setting, [one.layer for one in layers])
    groups: dict[str, xr.Dataset | None] = {}
    for one in layers:
        formulas: list[Formula | None] = [None] * one.layer.units
        for part in evidence:
            if part.layer.name == one.layer.name:
                for unit, each in zip(part.units.tolist(), part.above.found, strict=True):
                    formulas[unit] = each.formula
        holds, weight = grid.holding(formulas)
        groups[f"similarity_{one.layer.name}"] = similarity(
            setting, one.layer, holds, weight, activations=related[one.layer.name]
        )
    return groups


def _copy_paste(
    setting: Setting,
    evidence: Sequence[LayerEvidence],
    layers: Sequence[LayerThresholds],
    groups: Mapping[str, xr.Dataset | None],
) -> xr.Dataset | None:
    """Objects pasted into images, for the layer before the classes."""
    part = groups.get("contributions_classes")
    if part is None:
        _log.warning("no copy-paste examples: the layer's units are the classes themselves. Choose an earlier layer")
        return None
    last = next(one for one in layers if one.layer.name == part.attrs["by"])
    formulas: list[Formula | None] = [None] * last.layer.units
    row_of, row = np.full(last.layer.units, -1), 0
    for one in evidence:
        if one.layer.name == last.layer.name:
            for place, (unit, each) in enumerate(zip(one.units.tolist(), one.above.found, strict=True)):
                formulas[unit], row_of[unit] = each.formula, row + place
        row += len(one.units)
    found = copy_paste_examples(
        setting,
        last.layer,
        formulas,
        part["contributor"].to_numpy(),
        strength=part[part.attrs["contributor_of"]].to_numpy(),
        examples=setting.spec.examples,
    )
    if found is None:
        return None
    unit = found["unit"]
    return found.assign(unit=(unit.dims, row_of[unit.to_numpy()], unit.attrs))


def _per_unit(units: xr.Dataset, layers: Sequence[LayerThresholds], values: np.ndarray) -> np.ndarray:
    """A number for every unit of the layers, nan for those that were not explained."""
    layer_of, index = units["layer"].to_numpy().astype(str), units["index"].to_numpy()
    parts = []
    for one in layers:
        own = np.full(one.layer.units, np.nan)
        here = layer_of == one.layer.name
        own[index[here]] = values[here]
        parts.append(own)
    return np.concatenate(parts)
