"""What does every layer and unit respond to? One forward sweep, one backward sweep, and arithmetic.

The program this study comes from (seed: MNIST CNN visualisation) keeps whole activation tensors, looks at the first
1,000 images and reports a ratio without any null. Here one pass folds every measurement, selectivity is reported with
its noise floor removed, and a unit that cannot be told from noise is shown as such.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from neuronscope.data.dataset import Data
from neuronscope.maths import resampling
from neuronscope.maths.streams import DecisionsAnswer
from neuronscope.models.subject import Subject
from neuronscope.result import Provenance, Result, circumstances, peak_memory, unit_table, versions
from neuronscope.run import Run
from neuronscope.steps import Step
from neuronscope.studies.blocks import block_title
from neuronscope.studies.layers.measures import (
    LEVELS,
    SHARES,
    LayerSums,
    Variable,
    activation_variables,
    extreme_variables,
    importance_variables,
    layer_rows,
    selectivity_variables,
    shares,
)
from neuronscope.studies.layers.page import layers_page
from neuronscope.studies.layers.pictures import examples, exemplars, filters
from neuronscope.studies.layers.setting import (
    Setting,
    attribution,
    blocks,
    map_blocks,
    observation,
    planned_maps,
    planned_sweeps,
    settle,
)
from neuronscope.studies.layers.spec import LayersSpec
from neuronscope.sweep import Plan, PlannedSweep, Swept, sweep, timed, unfinished


def run_layers(subject: Subject, data: Data, spec: LayersSpec | None = None, *, run: Run | None = None) -> Result:
    """What every layer and unit responds to, how selectively, and how sure one can be.

    Args:
        subject: the network.
        data: the images; labels are needed for selectivity (without them those quantities are nan).
        spec: options; the defaults suit small and large networks.
        run: seed, device, batch size, memory, progress. With a memory bound, layers are taken in groups that fit, and a
            layer that alone is too large in blocks of its units.

    Returns:
        Groups `units` (one row per unit: activation moments, selectivity with null, interval and q-value, top and
        bottom images, importance), `layers`, `decisions` (one row per image), `examples`, `maps/LAYER`, `filters`,
        `exemplars`.

    Raises:
        UnknownName: a layer pattern or deviation that does not exist.
        InputError: labels beyond the network's outputs, no images, or a memory bound too low for even one unit.

    Example:
        >>> import neuronscope as ns
        >>> subject = ns.load_model("builtin:viewer-cnn", weights="random")
        >>> data = ns.load_data("digits", limit=40)
        >>> result = ns.run_layers(subject, data, ns.LayersSpec(layers=("conv_layers.1",), draws=19))
        >>> len(result.units())
        32
    """
    started = time.perf_counter()
    setting = settle(subject, data, spec or LayersSpec(), run or Run())
    map_blocks(setting)  # what could not be shown at the end is refused now
    findings: list[Findings] = []
    for block in blocks(setting):
        findings.extend(look(block, findings[-1] if findings else None))
    unfinished(setting.run)
    provenance = Provenance(
        study="layers",
        spec=asdict(setting.spec),
        legacy=setting.spec.legacy,
        subject=setting.subject.name,
        subject_fingerprint=setting.subject.fingerprint,
        data=setting.data.name,
        data_fingerprint=setting.data.fingerprint,
        images=findings[0].seen.images,
        skipped=findings[0].seen.skipped,
        nonfinite=_listed([finding.nonfinite for finding in findings]),
        circumstances=circumstances(setting.run),
        versions=versions(),
        seconds=time.perf_counter() - started,
        peak_memory=peak_memory(),
    )
    return Result(assemble(setting, findings), provenance, view=layers_page)


def plan_layers(subject: Subject, data: Data, spec: LayersSpec | None = None, *, run: Run | None = None) -> Plan:
    """The sweeps `run_layers` will make, with passes, memory and time."""
    setting = settle(subject, data, spec or LayersSpec(), run or Run())
    groups, shown = blocks(setting), map_blocks(setting)
    jobs: list[tuple[Setting, str, PlannedSweep, Step]] = []
    for number, block in enumerate(groups, start=1):
        place = f" {number} of {len(groups)}" if len(groups) > 1 else ""
        jobs.extend((block, place, *job) for job in planned_sweeps(block))
    jobs.extend((block, "", *planned_maps(block)) for block in shown)
    sweeps: list[PlannedSweep] = []
    seconds = 0.0
    known: dict[tuple[str, ...], float] = {}
    for block, place, one, step in jobs:
        key = (one.name, *(layer.name for layer in block.layers))
        if key not in known:  # blocks of the same layer's units take as long as one another
            known[key] = timed(setting.subject, setting.data, step, run=setting.run)
        seconds += one.images * known[key]
        title = block_title(block.layers)
        sweeps.append(replace(one, name=f"{one.name}{place}{f' ({title})' if title else ''}"))
    return Plan(tuple(sweeps), seconds)


@dataclass(frozen=True)
class Findings:
    """What is known of one group of layers once its sweeps are done and its scores are let go.

    Attributes:
        seen: the observing sweep: of the first group its decisions, which are the same in all, else no answer.
        variables: of the units, by name.
        layers: one row for each layer that ends in this group.
        goes_on: sums of a layer whose later units come in the next group.
        nonfinite: layer -> units with NaN or infinite activations.
    """

    seen: Swept[dict[str, Any]]
    variables: dict[str, Variable]
    layers: list[dict[str, Any]]
    goes_on: LayerSums | None
    nonfinite: dict[str, tuple[int, ...]]


def look(setting: Setting, before: Findings | None) -> list[Findings]:
    """Sweep one group of layers and work it up, unless only a portion was asked for; the answers are let go here."""
    seen = sweep(setting.subject, setting.data, *observation(setting), run=setting.run, name="observe")
    pulled = None
    if setting.spec.gradient != "none":
        pulled = sweep(setting.subject, setting.data, *attribution(setting), run=setting.run, name="attribute")
    return [find(setting, seen, pulled, before)] if setting.run.portion is None else []


def find(
    setting: Setting,
    seen: Swept[dict[str, Any]],
    pulled: Swept[dict[str, Any]] | None,
    before: Findings | None,
) -> Findings:
    """Work up the sweeps over one group of layers, after those of the group before."""
    found = seen.answer
    scores, labels = found["scores"].values.astype(np.float64), found["scores"].label
    variables = {
        **activation_variables(setting, found),
        **selectivity_variables(setting, scores, labels),
        **extreme_variables(found),
        **(importance_variables(setting, pulled.answer) if pulled else {}),
    }
    rows, goes_on = layer_rows(setting, scores, labels, before=before.goes_on if before else None)
    kept = {name: found[name] for name in ("decisions", "confusion")} if before is None else {}
    return Findings(
        seen=replace(seen, answer=kept),
        variables=variables,
        layers=rows,
        goes_on=goes_on,
        nonfinite=_nonfinite(setting, found["mean"].nonfinite),
    )


def assemble(setting: Setting, findings: Sequence[Findings]) -> xr.DataTree:
    """All groups of the result."""
    units = unit_table(
        {layer.name: layer.units for layer in setting.layers},
        joined(setting, [finding.variables for finding in findings]),
        **{"class": setting.subject.classes, "level": LEVELS},
    )
    decisions: DecisionsAnswer = findings[0].seen.answer["decisions"]
    groups = {
        "/units": units,
        "/layers": layer_table(setting, [row for finding in findings for row in finding.layers], units),
        "/decisions": decision_table(setting, decisions, findings[0].seen.answer["confusion"]),
        **examples(setting, decisions),
        **filters(setting),
        **exemplars(setting, units),
    }
    return xr.DataTree.from_dict({"/": xr.Dataset(), **groups})


def joined(setting: Setting, blocks_of_variables: Sequence[dict[str, Variable]]) -> dict[str, Variable]:
    """The variables of all units; p-values become q-values over all of them, sizes become shares of their layer."""
    variables: dict[str, Variable] = {}
    for name, (axes, _, meaning, unit) in blocks_of_variables[0].items():
        values = np.concatenate([block[name][1] for block in blocks_of_variables])
        if name.endswith("_p"):
            variables[f"{name[:-2]}_q"] = (axes, resampling.bh_qvalues(values), meaning, unit)
        else:
            variables[name] = (axes, values, meaning, unit)
    if SHARES[0] in variables:
        sizes = variables[SHARES[0]][1]
        for name in SHARES:
            axes, values, meaning, unit = variables[name]
            variables[name] = (axes, shares(values, sizes, setting.by_layer.values()), meaning, unit)
    return variables


def layer_table(setting: Setting, rows: Sequence[dict[str, Any]], units: xr.Dataset) -> xr.Dataset:
    """One row per layer: what was found of it, and how many of its units are dead or selective."""
    named = {"layer_name", "kind", "shape"}
    columns_of = {name: np.array([row[name] for row in rows]) for name in rows[0] if name not in named}
    for name, flags in (
        ("dead", units["dead"].to_numpy() == 1),
        ("near_dead", units["near_dead"].to_numpy() == 1),
        ("selective", units["class_share_q"].to_numpy() < 1 - setting.spec.level),
    ):
        columns_of[name] = np.array([int(flags[place].sum()) for place in setting.by_layer.values()])
    texts = {name: ("layer", np.array([row[name] for row in rows], dtype=object)) for name in sorted(named)}
    return xr.Dataset(
        {name: (("layer", "class") if values.ndim > 1 else ("layer",), values) for name, values in columns_of.items()},
        coords={**texts, "class_name": ("class", np.array(setting.subject.classes, dtype=object))},
    )


def decision_table(setting: Setting, decisions: DecisionsAnswer, confusion: np.ndarray) -> xr.Dataset:
    """One row per image, and the confusion matrix."""
    ids = setting.data.ids
    names = [ids[row] for row in decisions.index] if ids else [str(row) for row in decisions.index]
    return xr.Dataset(
        {
            "row": ("image", decisions.index),
            "label": ("image", decisions.label),
            "predicted": ("image", decisions.predicted),
            "confidence": ("image", decisions.confidence),
            "rank_of_label": ("image", decisions.rank),
            "confusion": (("class", "predicted_class"), confusion),
        },
        coords={"image_name": ("image", np.array(names, dtype=object))},
    )


def _nonfinite(setting: Setting, counts: np.ndarray) -> dict[str, tuple[int, ...]]:
    places = setting.by_layer
    found = {one.name: np.flatnonzero(counts[places[one.name]]) + one.first for one in setting.layers}
    return {name: tuple(units.tolist()) for name, units in found.items() if units.size}


def _listed(parts: Sequence[dict[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    """Lists of units by layer, those of a layer's parts one after another."""
    whole: dict[str, tuple[int, ...]] = {}
    for part in parts:
        for name, units in part.items():
            whole[name] = whole.get(name, ()) + units
    return whole
