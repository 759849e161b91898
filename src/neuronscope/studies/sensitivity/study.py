"""How does each activation react when many things about the image change at once?

The program this study comes from stores every activation of every row and reads them again: terabytes, and hundreds of
days. Here the same designs are folded while they are swept: what is kept of a layer is what its answer is made of.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from math import prod
from pathlib import Path

import numpy as np
import xarray as xr

from neuronscope.data.dataset import Data
from neuronscope.data.design import Design
from neuronscope.errors import InputError
from neuronscope.maths.streams import DecisionsAnswer
from neuronscope.models.subject import Subject
from neuronscope.result import Provenance, Result, circumstances, peak_memory, versions
from neuronscope.run import Run
from neuronscope.steps import Augmented
from neuronscope.studies.blocks import block_title, layer_blocks
from neuronscope.studies.sensitivity.analyses import analysis_groups, check_discriminants, outputs_group
from neuronscope.studies.sensitivity.analyses.whole import check_whole_from
from neuronscope.studies.sensitivity.contrast import LayerContrast, accuracy_of, contrast_of, planned_contrast
from neuronscope.studies.sensitivity.effects import LayerEffects, planned_shapley, shapley_of
from neuronscope.studies.sensitivity.indices import LayerIndices, planned_sobol, sobol_of
from neuronscope.studies.sensitivity.original import check_published, segment_checkpoint, with_comparison
from neuronscope.studies.sensitivity.page import sensitivity_page
from neuronscope.studies.sensitivity.setting import Setting, settle
from neuronscope.studies.sensitivity.severity import LayerDrift, planned_severity, severity_accuracy, severity_of
from neuronscope.studies.sensitivity.sheets import sheet_group
from neuronscope.studies.sensitivity.spec import SensitivitySpec
from neuronscope.studies.sensitivity.tables import Findings, factors_group, result_groups
from neuronscope.sweep import Plan, PlannedSweep, timed, unfinished
from neuronscope.units import LayerInfo

Job = tuple[PlannedSweep, Design, Augmented]
Planner = Callable[[Setting], list[Job]]

PLANNERS: dict[str, Planner] = {
    "sobol": planned_sobol,
    "shapley": planned_shapley,
    "contrast": planned_contrast,
    "severity": planned_severity,
}
"""Estimator -> its sweeps over some layers."""


def run_sensitivity(
    subject: Subject, data: Data, spec: SensitivitySpec | None = None, *, run: Run | None = None
) -> Result:
    """How sensitive every activation of some layers is to many augmentations at once, and to the image itself.

    Args:
        subject: the network.
        data: images, with class labels where class is a factor or accuracy is asked for.
        spec: options.
        run: seed, device, batch size, memory, progress. With a memory bound layers are taken in groups that fit, in
            several passes.

    Returns:
        Groups `units` (fingerprint of each unit, with intervals), `layers`, `outputs` (the last layers and classes),
        `maps/LAYER` (every activation), `convergence`, `factors`, `pool` (the images), `accuracy`, `severity`,
        `segments` (where units of segments come from), `sheet` (pictures of the augmentations), and `comparison` with
        published values where they are given.

    Raises:
        UnknownName: a layer, augmentation, parameter or deviation that does not exist.
        InputError: ranges without values, numbers of points that no design has, too few images, no labels where class
            is a factor, segments that are not the network's, or a memory bound too low for even one unit.
        DataError: files to compare with that are torn, or of another network or other augmentations.

    Example:
        >>> import neuronscope as ns
        >>> subject = ns.load_model("builtin:viewer-cnn", weights="random")
        >>> spec = ns.SensitivitySpec(layers=("conv_layers.1",), augmentations=("brightness", "hflip"),
        ...                           estimators=("sobol",), points=8, replicates=4)
        >>> result = ns.run_sensitivity(subject, ns.load_data("digits", limit=80), spec)
        >>> result.table["factor_name"].to_numpy().tolist()
        ['brightness', 'hflip', 'order', 'class', 'partition', 'image']
    """
    started = time.perf_counter()
    setting = settle(subject, data, spec or SensitivitySpec(), run or Run())
    check_comparison(setting)
    check_analyses(setting)
    check_network(setting, subject)
    groups = {"sheet": sheet_group(setting)}
    nonfinite: dict[str, tuple[int, ...]] = {}
    if not setting.spec.show_augmentations:
        found = find(setting)
        unfinished(setting.run)
        groups |= result_groups(setting, found, setting.layers)
        groups["outputs"] = outputs_group(setting.classifier, subject.classes)
        groups |= analysis_groups(tree_of(groups), setting.spec, setting.run)
        nonfinite = nonfinite_units(setting, found)
    provenance = Provenance(
        study="sensitivity",
        spec=asdict(setting.spec),
        legacy=setting.spec.legacy,
        subject=subject.name,
        subject_fingerprint=subject.fingerprint,
        data=setting.data.name,
        data_fingerprint=setting.data.fingerprint,
        images=len(setting.problem.pool.rows),
        skipped=(),
        nonfinite=nonfinite,
        circumstances=circumstances(setting.run),
        versions=versions(),
        seconds=time.perf_counter() - started,
        peak_memory=peak_memory(),
    )
    result = Result(tree_of(groups), provenance, view=sensitivity_page)
    wanted = setting.spec.compare_with and not setting.spec.show_augmentations
    return with_comparison(result, Path(setting.spec.compare_with)) if wanted else result


def tree_of(groups: dict[str, xr.Dataset]) -> xr.DataTree:
    """Groups as a tree."""
    return xr.DataTree.from_dict({"/": xr.Dataset(), **{f"/{name}": group for name, group in groups.items()}})


def check_analyses(setting: Setting) -> None:
    """Refuse discriminants of layers with fewer units than folds, before hours of work.

    Raises:
        InputError: with what to change.
    """
    if "discriminants" in setting.spec.analyses:
        units = {one.name: one.units for one in setting.layers if prod(one.map_shape) > 1}
        check_discriminants(units, folds=setting.spec.folds)


def check_comparison(setting: Setting) -> None:
    """Refuse files to compare with that are torn or of another network, before hours of work.

    Raises:
        DataError: with what to change.
    """
    if setting.spec.compare_with:
        names = {
            name: segment_checkpoint(one.segment.name, len(one.segment.modules)) for name, one in setting.pieces.items()
        }
        shapes = {names.get(layer.name, layer.name): layer.shape for layer in setting.layers}
        check_published(Path(setting.spec.compare_with), shapes)


def check_network(setting: Setting, subject: Subject) -> None:
    """Refuse a result of the whole network that the segments cannot be compared with.

    Raises:
        InputError: with what to change.
    """
    units = {piece.segment.modules[-1]: piece.units for piece in setting.pieces.values()}
    check_whole_from(setting.spec, fingerprint=subject.fingerprint, factors=factors_group(setting), units=units)


def find(setting: Setting) -> Findings:
    """Everything that was asked for, group of layers by group of layers."""
    indices: list[LayerIndices] = []
    effects: list[LayerEffects] = []
    contrast: list[LayerContrast] = []
    drift: list[LayerDrift] = []
    decisions: list[DecisionsAnswer] = []
    severe: DecisionsAnswer | None = None
    if setting.wants("sobol"):
        indices = [one for block in in_blocks(setting, planned_sobol) for one in sobol_of(block)]
    if setting.wants("shapley"):
        effects = [one for block in in_blocks(setting, planned_shapley) for one in shapley_of(block)]
    if setting.wants("contrast"):
        for block in in_blocks(setting, planned_contrast):
            own, said = contrast_of(block)
            contrast.extend(own)
            decisions = decisions or said
    if setting.wants("severity"):
        for block in in_blocks(setting, planned_severity):
            moved, said_at = severity_of(block)
            drift.extend(moved)
            severe = severe or said_at
    return Findings(
        indices=indices,
        effects=effects,
        contrast=contrast,
        drift=drift,
        accuracy=accuracy_of(setting, decisions) if decisions else None,
        severity=severity_accuracy(setting, severe) if severe is not None else None,
    )


def in_blocks(setting: Setting, planner: Planner) -> list[Setting]:
    """The layers in as few groups as the memory of the run allows.

    Raises:
        InputError: one unit alone needs more than the memory that was asked for.
    """
    memory = setting.run.memory
    if memory is None:
        return [setting]

    def needs(layers: tuple[LayerInfo, ...]) -> int:
        return max(one.state + one.working for one, *_ in planner(setting.block(layers)))

    def refuse(layer: LayerInfo) -> str:
        least = needs((layer.part(0, 1),))
        without = "" if setting.spec.second_order == "none" else ", --second-order none (half the sums)"
        return (
            f"one unit of layer '{layer.name}' alone needs {least / 2**20:,.1f} MiB beside the network, and --memory "
            f"allows {memory / 2**20:,.1f} MiB. What helps: more memory, a smaller --batch-size{without}, fewer "
            "augmentations, or deeper layers, whose maps are smaller"
        )

    whole = classifier_whole(setting, needs, memory)
    groups = layer_blocks(whole, fits=lambda some: needs(some) <= memory, refuse=refuse)
    return [setting.block(group) for group in groups]


def classifier_whole(
    setting: Setting, needs: Callable[[tuple[LayerInfo, ...]], int], memory: int
) -> tuple[LayerInfo, ...]:
    """The layers, once it is sure that the classifier need not be split: a softmax is of all classes.

    Raises:
        InputError: it does not fit whole.
    """
    for layer in setting.layers:
        if layer.name in setting.classifier and setting.spec.output == "softmax" and needs((layer,)) > memory:
            message = (
                f"'{layer.name}' with all its classes needs {needs((layer,)) / 2**20:,.1f} MiB, and --memory allows "
                f"{memory / 2**20:,.1f} MiB: probabilities cannot be split. Allow more, leave the layer out, or say "
                "--output logits"
            )
            raise InputError(message)
    return setting.layers


def nonfinite_units(setting: Setting, found: Findings) -> dict[str, tuple[int, ...]]:
    """Units with NaN or infinite activations in a sweep, by layer."""
    listed: dict[str, set[int]] = {}

    def note(layer: LayerInfo, broken: np.ndarray) -> None:
        units = np.flatnonzero(broken.reshape(layer.units, -1).any(axis=1)) + layer.first
        listed.setdefault(layer.name, set()).update(units.tolist())

    for one in found.indices:
        note(one.layer, ~np.isfinite(one.moments.mean))
    for other in found.effects:
        note(other.layer, ~np.isfinite(other.mean))
    for contrast in found.contrast:
        note(contrast.layer, ~np.isfinite(np.stack([own.difference for own in contrast.units])).all(axis=0))
    own = {name: piece.units for name, piece in setting.pieces.items()}
    return {
        name: tuple(own[name][unit] if own else unit for unit in sorted(units))
        for name, units in listed.items()
        if units
    }


def plan_sensitivity(
    subject: Subject, data: Data, spec: SensitivitySpec | None = None, *, run: Run | None = None
) -> Plan:
    """The sweeps `run_sensitivity` will make, with passes, memory and time; fewer if the ranking settles earlier."""
    setting = settle(subject, data, spec or SensitivitySpec(), run or Run())
    check_comparison(setting)
    check_analyses(setting)
    check_network(setting, subject)
    if setting.spec.show_augmentations:
        return Plan((), 0.0)
    sweeps: list[PlannedSweep] = []
    seconds = 0.0
    for name, planner in PLANNERS.items():
        if not setting.wants(name):
            continue
        groups = in_blocks(setting, planner)
        for number, block in enumerate(groups, start=1):
            jobs = planner(block)
            place = f", layers {number} of {len(groups)}" if len(groups) > 1 else ""
            title = block_title(block.layers)
            sweeps.extend(replace(one, name=f"{one.name}{place}{f' ({title})' if title else ''}") for one, *_ in jobs)
            rows = sum(one.images for one, *_ in jobs)
            _, probed, step = jobs[0]
            seconds += rows * timed(block.subject, probed, step, run=block.running(probed))
    return Plan(tuple(sweeps), seconds)
