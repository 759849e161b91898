"""What becomes of a network's answers when the places that are sensitive to one factor are masked?

Guided by maps of a sensitivity result, the outputs of some layers are multiplied by numbers: the most sensitive
elements killed, damped or amplified, or all weighted by their sensitivity. Every mask stands beside random ones with
the same numbers in other places. One image is read and augmented once for all masks (`steps.scaled`).
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from math import prod

import xarray as xr

from neuronscope.data.dataset import Data
from neuronscope.data.design import Design
from neuronscope.maths.streams import StackRows
from neuronscope.models.subject import Subject
from neuronscope.result import Provenance, Result, circumstances, peak_memory, versions
from neuronscope.run import Run
from neuronscope.steps.scaled import PredictScaled
from neuronscope.studies.sensitivity.masking.page import masking_page
from neuronscope.studies.sensitivity.masking.scalings import control_scalings, guided_scalings, step_of
from neuronscope.studies.sensitivity.masking.setting import MaskingSetting, settle
from neuronscope.studies.sensitivity.masking.spec import MaskingSpec
from neuronscope.studies.sensitivity.masking.tables import result_groups
from neuronscope.sweep import Plan, PlannedSweep, planned, sweep, timed, unfinished

_GUIDE = 8
"""Bytes of a guide for each element: its value and its place."""


def run_masking(subject: Subject, data: Data, spec: MaskingSpec | None = None, *, run: Run | None = None) -> Result:
    """Accuracy with masks that a sensitivity result guides, on plain and augmented images, beside random masks.

    Args:
        subject: the network that the sensitivity result is of.
        data: labelled images.
        spec: options; `maps_from` must be given.
        run: seed, device, batch size, memory, progress.

    Returns:
        Groups `configurations` (the masks), `accuracy` (of each input and mask), `against_random` (differences to
        random masks), `accuracy_by_class`, `correlations` (of augmented with plain input, over masks), `clusters` (the
        tree of responses), `pairing` (whether masks of a factor matter more to input that it augments), `guides`.

    Raises:
        UnknownName: a layer, variable or deviation that does not exist.
        InputError: no sensitivity result, maps of another network or shape, or too few labelled images.
        ResultFileError: the sensitivity result is torn.
    """
    started = time.perf_counter()
    setting = settle(subject, data, spec or MaskingSpec(), run or Run())
    rows = setting.design("all")
    step = step_of(setting, guided_scalings(setting))
    guided = sweep(setting.subject, rows, step, _fold(rows), run=setting.running(rows), name="guided masks")
    controls = control_scalings(setting)
    fewer = setting.design(setting.spec.controlled)
    random = sweep(
        setting.subject,
        fewer,
        step_of(setting, controls.scalings),
        _fold(fewer),
        run=setting.running(fewer),
        name="random masks",
    )
    unfinished(setting.run)
    groups = result_groups(
        setting,
        guided.answer.values.reshape(-1, rows.block, 1 + len(step.scalings)),
        guided.answer.label[:: rows.block].astype("int64"),
        random.answer.values.reshape(-1, fewer.block, 1 + len(controls.scalings))[:, :, 1:],
        controls.of,
    )
    provenance = Provenance(
        study="masking",
        spec=asdict(setting.spec),
        legacy=setting.spec.legacy,
        subject=subject.name,
        subject_fingerprint=subject.fingerprint,
        data=setting.data.name,
        data_fingerprint=setting.data.fingerprint,
        images=len(guided.answer.index) // rows.block,
        skipped=guided.skipped,
        nonfinite={},
        circumstances=circumstances(setting.run),
        versions=versions(),
        seconds=time.perf_counter() - started,
        peak_memory=peak_memory(),
    )
    tree = xr.DataTree.from_dict({"/": xr.Dataset(), **{f"/{name}": group for name, group in groups.items()}})
    return Result(tree, provenance, view=masking_page)


def plan_masking(subject: Subject, data: Data, spec: MaskingSpec | None = None, *, run: Run | None = None) -> Plan:
    """The two sweeps `run_masking` will make, with passes, memory and time."""
    setting = settle(subject, data, spec or MaskingSpec(), run or Run())
    controls, rows = control_scalings(setting), setting.design("all")
    fewer = setting.design(setting.spec.controlled)
    guides = len(setting.layers) * len(setting.variables)
    jobs = (
        (rows, step_of(setting, guided_scalings(setting)), guides, "guided masks"),
        (fewer, step_of(setting, controls.scalings), guides + controls.guides, "random masks"),
    )
    sweeps = tuple(_planned(setting, *job) for job in jobs)
    seconds = sum(len(own) * timed(setting.subject, own, step, run=setting.running(own)) for own, step, *_ in jobs)
    return Plan(sweeps, seconds)


def _planned(setting: MaskingSetting, rows: Design, step: PredictScaled, guides: int, name: str) -> PlannedSweep:
    """A sweep to come, with the memory of its guides."""
    one = planned(setting.subject, rows, step, _fold(rows), run=setting.running(rows), name=name)
    elements = sum(prod(layer.shape) for layer in setting.layers) // len(setting.layers)
    return replace(one, state=one.state + _GUIDE * guides * elements)


def _fold(rows: Design) -> StackRows:
    """What is kept of a row: under each mask, how many classes come before the label."""
    return StackRows("rank", images=len(rows))
