"""What becomes of a network's answers when the places that are sensitive to one factor are masked?

Guided by maps of a sensitivity result, the outputs of some layers are multiplied by numbers: the most sensitive
elements killed, damped or amplified, or all weighted by their sensitivity. Every mask stands beside random ones with
the same numbers in other places. One image is read and augmented once for all masks (`steps.scaled`).
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import xarray as xr

from neuronscope.data.dataset import Data
from neuronscope.data.design import Design
from neuronscope.maths.streams import Each, RowsAnswer, StackRows
from neuronscope.models.subject import Subject
from neuronscope.result import Provenance, Result, circumstances, peak_memory, versions
from neuronscope.run import Run
from neuronscope.steps.scaled import PredictScaled
from neuronscope.studies.sensitivity.masking.answers import Answers, Controlled
from neuronscope.studies.sensitivity.masking.original import check_published, with_comparison
from neuronscope.studies.sensitivity.masking.page import masking_page
from neuronscope.studies.sensitivity.masking.scalings import Controls, control_scalings, guided_scalings, step_of
from neuronscope.studies.sensitivity.masking.setting import Combined, MaskingSetting, settle
from neuronscope.studies.sensitivity.masking.spec import MaskingSpec
from neuronscope.studies.sensitivity.masking.tables import result_groups
from neuronscope.sweep import Plan, PlannedSweep, Swept, planned, sweep, timed, unfinished

_GUIDE = 8
"""Bytes of a guide for each element: its value and its place."""

_KEPT: dict[str, tuple[str, ...]] = {"ranks": (), "classes": ("top",), "predictions": ("top", "probability")}
"""What is kept of guided masks beside ranks, by option."""


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
        tree of responses), `pairing` (whether masks of a factor matter more to input that it augments), `guides`,
        `classes` (the most sensitive ones), `overlap` and `overlap_masked` (of these with the predicted ones),
        `predictions/SET` where they are kept, and `comparison` with a file of the original where one is given.

    Raises:
        UnknownName: a layer, variable or deviation that does not exist.
        InputError: no sensitivity result, maps of another network or shape, or too few labelled images.
        ResultFileError: the sensitivity result is torn.
        DataError: a file to compare with that is torn, or has none of these inputs and masks.
    """
    started = time.perf_counter()
    setting = settle(subject, data, spec or MaskingSpec(), run or Run())
    _check_comparison(setting)
    jobs = _jobs(setting)
    swept = [_swept(setting, job) for job in jobs]
    unfinished(setting.run)
    guided = [_answers(setting, job, own) for job, own in zip(jobs, swept, strict=True) if job.controls is None]
    random = [_controlled(setting, job, own) for job, own in zip(jobs, swept, strict=True) if job.controls is not None]
    groups = result_groups(setting, guided, random)
    provenance = Provenance(
        study="masking",
        spec=asdict(setting.spec),
        legacy=setting.spec.legacy,
        subject=subject.name,
        subject_fingerprint=subject.fingerprint,
        data=setting.data.name,
        data_fingerprint=setting.data.fingerprint,
        images=len(guided[0].label),
        skipped=swept[0].skipped,
        nonfinite={},
        circumstances=circumstances(setting.run),
        versions=versions(),
        seconds=time.perf_counter() - started,
        peak_memory=peak_memory(),
    )
    tree = xr.DataTree.from_dict({"/": xr.Dataset(), **{f"/{name}": group for name, group in groups.items()}})
    result = Result(tree, provenance, view=masking_page)
    return with_comparison(result, Path(setting.spec.compare_with)) if setting.spec.compare_with else result


def _check_comparison(setting: MaskingSetting) -> None:
    """Refuse a file that cannot be compared with before hours of work.

    Raises:
        DataError: with what to change.
    """
    if setting.spec.compare_with:
        check_published(Path(setting.spec.compare_with), setting.sets)


@dataclass(frozen=True, eq=False)
class _Job:
    """A sweep: what is combined, the step, and for random masks which they are."""

    of: Combined
    name: str
    step: PredictScaled
    controls: Controls | None = None


def _jobs(setting: MaskingSetting) -> list[_Job]:
    """Guided masks of each set, then random masks."""
    jobs = []
    for number, of in enumerate(setting.sets, start=1):
        name = f"guided masks, set {number}" if len(setting.sets) > 1 else "guided masks"
        jobs.append(_Job(of, name, step_of(setting, guided_scalings(setting, of))))
    for number, of in enumerate(setting.controlled, start=1):
        name = f"random masks, set {number}" if len(setting.controlled) > 1 else "random masks"
        controls = control_scalings(setting, of)
        jobs.append(_Job(of, name, step_of(setting, controls.scalings), controls))
    return jobs


def _swept(setting: MaskingSetting, job: _Job) -> Swept[dict[str, RowsAnswer]]:
    rows = setting.design(job.of)
    return sweep(setting.subject, rows, job.step, _fold(setting, job, rows), run=setting.running(rows), name=job.name)


def _answers(setting: MaskingSetting, job: _Job, swept: Swept[dict[str, RowsAnswer]]) -> Answers:
    """Of guided masks, image by image."""
    rows, ranks = setting.design(job.of), swept.answer["rank"]
    first = ranks.index[:: rows.block]
    shape = (len(first), rows.block, 1 + len(job.step.scalings))
    kept = {name: own.values.reshape(*shape, -1) for name, own in swept.answer.items() if name != "rank"}
    return Answers(
        of=job.of,
        rank=ranks.values.reshape(shape),
        label=ranks.label[:: rows.block].astype(np.int64),
        row=rows.image_row[first],
        top=kept.get("top"),
        probability=kept.get("probability"),
    )


def _controlled(setting: MaskingSetting, job: _Job, swept: Swept[dict[str, RowsAnswer]]) -> Controlled:
    """Of random masks."""
    block = setting.design(job.of).block
    ranks = swept.answer["rank"].values.reshape(-1, block, 1 + len(job.step.scalings))
    which = np.zeros((0, 0), dtype=np.int64) if job.controls is None else job.controls.of
    return Controlled(job.of, ranks[:, :, 1:], which)


def plan_masking(subject: Subject, data: Data, spec: MaskingSpec | None = None, *, run: Run | None = None) -> Plan:
    """The sweeps `run_masking` will make, with passes, memory and time."""
    setting = settle(subject, data, spec or MaskingSpec(), run or Run())
    _check_comparison(setting)
    jobs = _jobs(setting)
    sweeps = tuple(_planned(setting, job) for job in jobs)
    seconds = 0.0
    for job in jobs:
        rows = setting.design(job.of)
        seconds += len(rows) * timed(setting.subject, rows, job.step, run=setting.running(rows))
    return Plan(sweeps, seconds)


def _planned(setting: MaskingSetting, job: _Job) -> PlannedSweep:
    """A sweep to come, with the memory of all guides, and of random ones."""
    rows = setting.design(job.of)
    fold = _fold(setting, job, rows)
    one = planned(setting.subject, rows, job.step, fold, run=setting.running(rows), name=job.name)
    elements = sum(prod(layer.shape) for layer in setting.layers) // len(setting.layers)
    guides = len(setting.layers) * len(setting.every.variables) + (0 if job.controls is None else job.controls.guides)
    return replace(one, state=one.state + _GUIDE * guides * elements)


def _fold(setting: MaskingSetting, job: _Job, rows: Design) -> Each:
    """What is kept of a row under each mask: the place of the label, and of guided ones what was asked for."""
    names = ("rank", *(_KEPT[setting.spec.keep] if job.controls is None else ()))
    return Each(**{name: StackRows(name, images=len(rows)) for name in names})
