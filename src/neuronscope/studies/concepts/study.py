"""Which formula of human concepts does a unit detect, how well, and is there a better one?

Formulas are searched on one part of the images and scored on the other. A formula that fits no better than it fits the
same unit's masks laid over other images is shown as such. Up to three labels the search can prove that it has found the
best formula there is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import xarray as xr

from neuronscope.data.dataset import Data
from neuronscope.maths.streams import Each
from neuronscope.models.subject import Subject
from neuronscope.result import Provenance, Result, circumstances, peak_memory, versions
from neuronscope.run import Run
from neuronscope.studies.blocks import layer_blocks
from neuronscope.studies.concepts.agreement import Agreement
from neuronscope.studies.concepts.analyses import analyses_groups
from neuronscope.studies.concepts.cards import cards_group
from neuronscope.studies.concepts.cells import cell_grid
from neuronscope.studies.concepts.detect import levels_of, tail
from neuronscope.studies.concepts.evidence import LayerEvidence, explain_layers
from neuronscope.studies.concepts.grid import Grid
from neuronscope.studies.concepts.keep import keep
from neuronscope.studies.concepts.page import concepts_page
from neuronscope.studies.concepts.pixels import pixel_grid
from neuronscope.studies.concepts.setting import Setting, settle
from neuronscope.studies.concepts.spec import ConceptsSpec
from neuronscope.studies.concepts.tables import concepts_group, history_group, ranges_group, units_group
from neuronscope.sweep import Plan, PlannedSweep, estimate, planned, unfinished
from neuronscope.units import LayerInfo

_MOST = 1 << 30
"""Bytes that counts of a block of units may take where the run sets no bound."""


def run_concepts(subject: Subject, data: Data, spec: ConceptsSpec | None = None, *, run: Run | None = None) -> Result:
    """The formula of concepts that each unit detects, with its score on other images, a null, and a certificate.

    Args:
        subject: the network; it is given whole images, squashed to its input, as the masks cover them.
        data: the images of the concepts (`ns.concept_images(spec)`).
        spec: options.
        run: seed, device, batch size, progress; its executor also searches units side by side.

    Returns:
        Groups `units` (unit; unit x length; unit x alternative), `concepts` (the labels, with their areas), `history`
        (the beam at each length), `cards` (images of the shown units with the masks of unit and formula), and those of
        ranges and analyses where they were asked for.

    Raises:
        UnknownName: a layer, concept source, category or deviation that does not exist.
        InputError: too few images, other images than those of the concepts, or options that do not go together.
        StorageError: what is to be kept cannot be written.

    Example:
        >>> import neuronscope as ns
        >>> subject = ns.load_model("builtin:viewer-cnn", weights="random")
        >>> spec = ns.ConceptsSpec(concept_limit=60, layers=("conv_layers.1",), length=2, draws=20)
        >>> result = ns.run_concepts(subject, ns.concept_images(spec), spec)
        >>> len(result.units())
        32
    """
    started = time.perf_counter()
    setting = settle(subject, data, spec or ConceptsSpec(), run or Run())
    grid = grid_of(setting)
    if setting.run.portion is not None:  # everything after the thresholds needs them whole
        for group in groups_of(setting, grid):
            levels_of(setting, grid, group)
        unfinished(setting.run)
    shared = grid.shared()
    evidence = [one for group in groups_of(setting, grid) for one in explain_layers(setting, grid, shared, group)]
    if setting.spec.keep_in:
        keep(setting, grid, setting.layers)
    tree = assemble_tree(setting, grid, evidence)
    broken: dict[str, tuple[int, ...]] = {}
    for one in evidence:
        units = one.units[np.isnan(one.levels.threshold[one.units - one.layer.first])]
        if len(units):
            broken[one.layer.name] = (*broken.get(one.layer.name, ()), *units.tolist())
    provenance = Provenance(
        study="concepts",
        spec=asdict(setting.spec),
        legacy=setting.spec.legacy,
        subject=setting.subject.name,
        subject_fingerprint=setting.subject.fingerprint,
        data=setting.concepts.name,
        data_fingerprint=setting.concepts.fingerprint,
        images=len(setting.concepts),
        skipped=(),
        nonfinite=broken,
        circumstances=circumstances(setting.run),
        versions=versions(),
        seconds=time.perf_counter() - started,
        peak_memory=peak_memory(),
    )
    return Result(tree, provenance, view=concepts_page)


def grid_of(setting: Setting) -> Grid:
    """The annotations, read once, in the form that the asked-for masks need."""
    parts = (setting.concepts, setting.searched, setting.reported)
    if setting.spec.resolution == "cells":
        return cell_grid(*parts, search=setting.word_search, spec=setting.spec, run=setting.run)
    firing_only = setting.spec.probe == "firing"
    return pixel_grid(*parts, spec=setting.search, firing_only=firing_only, run=setting.run)


def groups_of(setting: Setting, grid: Grid) -> list[tuple[LayerInfo, ...]]:
    """Layers that share passes, in as few groups as fit into memory; a layer that does not fit in blocks of its units.

    Raises:
        InputError: not even one unit fits.
    """
    most = setting.run.memory or _MOST

    def fits(layers: tuple[LayerInfo, ...]) -> bool:
        working = _working(setting, grid, layers) if setting.run.memory is not None else 0
        return sum(kept_bytes(setting, grid, layer) for layer in layers) + working <= most

    def refuse(layer: LayerInfo) -> str:
        one = layer.part(0, 1)
        return (
            f"what is counted of one unit of '{layer.name}' takes {kept_bytes(setting, grid, one) / 2**20:,.2f} MiB "
            f"beside {_working(setting, grid, (one,)) / 2**20:,.2f} MiB of a batch of images, and --memory allows "
            f"{most / 2**20:,.2f} MiB. Allow more, take fewer images (--concept-limit), or lower --batch-size"
        )

    return layer_blocks(setting.layers, fits=fits, refuse=refuse)


def kept_bytes(setting: Setting, grid: Grid, part: LayerInfo) -> int:
    """What passes keep of a block of units."""
    levels = np.zeros(part.units)
    agreement = Agreement("", grid.coverage([], (1, 1)), levels, levels, 0).size({})
    return grid.cost(part.units * max(1, setting.spec.ranges), setting.spec) + agreement


def _working(setting: Setting, grid: Grid, layers: tuple[LayerInfo, ...]) -> int:
    """What a batch of images takes."""
    step, folds = grid.look(layers), _tails(setting, grid, layers)
    return planned(setting.subject, setting.concepts.images, step, folds, run=setting.run, name="").working


def _tails(setting: Setting, grid: Grid, layers: tuple[LayerInfo, ...]) -> Each:
    return Each(**{layer.name: tail(setting, grid, layer) for layer in layers})


def assemble_tree(setting: Setting, grid: Grid, evidence: Sequence[LayerEvidence]) -> xr.DataTree:
    """All groups of the result."""
    units = units_group(setting, evidence)
    groups: dict[str, xr.Dataset | None] = {
        "units": units,
        "concepts": concepts_group(setting, grid),
        "history": history_group(setting, evidence),
        "ranges": ranges_group(setting, evidence),
        "cards": cards_group(setting, grid, evidence, units["report_score"].to_numpy()),
        **analyses_groups(setting, grid, evidence, units),
    }
    return xr.DataTree.from_dict(
        {"/": xr.Dataset(), **{f"/{name}": group for name, group in groups.items() if group is not None}}
    )


def plan_concepts(subject: Subject, data: Data, spec: ConceptsSpec | None = None, *, run: Run | None = None) -> Plan:
    """The sweeps `run_concepts` will make; the search of formulas comes on top."""
    setting = settle(subject, data, spec or ConceptsSpec(), run or Run())
    grid = grid_of(setting)
    sweeps: list[tuple[PlannedSweep, Any]] = []
    searched, reported = (setting.concepts.images.take(rows) for rows in (setting.searched, setting.reported))
    names = [("thresholds", searched), ("counts", searched), ("fit", reported)]
    if setting.spec.ranges > 1:
        names += [("activations", searched), ("counts of ranges", searched), ("fit of ranges", reported)]
    for group in groups_of(setting, grid):
        step, folds = grid.look(group), _tails(setting, grid, group)
        titles = ", ".join(part.title for part in group)
        for name, images in names:
            one = planned(setting.subject, images, step, folds, run=setting.run, name=f"{name} {titles}")
            if not name.startswith(("thresholds", "activations")):
                one = replace(one, state=sum(kept_bytes(setting, grid, part) for part in group))
            sweeps.append((one, step))
    plan = estimate(setting.subject, searched, sweeps, run=setting.run)
    held = PlannedSweep("formulas", images=0, forward=0, backward=0, state=grid.search_bytes(), working=0)
    return replace(plan, sweeps=(*plan.sweeps, held))
