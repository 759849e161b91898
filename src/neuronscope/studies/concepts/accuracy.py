"""Is the network right more often where a unit fires, and is that so for the units that are explained well?

Mu and Andreas (2020) report that it is: over the units of a layer, the accuracy on the images where a unit fires goes
up with the overlap of the unit and its formula. Here the correlation stands beside its interval and a permutation test.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from neuronscope.data.dataset import Data
from neuronscope.errors import InputError
from neuronscope.maths.relations import Association, Firing, FiringRows, association
from neuronscope.maths.resampling import wilson_interval
from neuronscope.maths.streams import Decisions, DecisionsAnswer, Each
from neuronscope.models.subject import Subject
from neuronscope.result import unit_table
from neuronscope.run import Run
from neuronscope.steps import Observe
from neuronscope.studies.concepts.contributions import LayerThresholds
from neuronscope.studies.concepts.setting import Setting
from neuronscope.sweep import sweep

LEAST_IMAGES = 10
"""Images on which a unit must fire to take part in a correlation: the accuracy on fewer is mostly luck."""

LARGEST_TABLE = 20_000_000
"""Entries (images x units) up to which the table of who fires where is part of the result."""

Variable = tuple[tuple[str, ...], np.ndarray, str, str]


def accuracy_when_firing(
    subject: Subject,
    data: Data,
    layers_thresholds: Sequence[LayerThresholds],
    *,
    iou: Float[np.ndarray, "units"],
    concept_iou: Float[np.ndarray, "units"],
    run: Run,
    level: float = 0.95,
) -> xr.Dataset:
    """Top-1 accuracy on the images where each unit fires, and how it goes with how well the unit is explained.

    A unit fires on an image if any cell of its map is above its threshold. One pass over the labelled images.

    Args:
        subject: the network, with the preprocessing that the images need.
        data: images with class labels of the network; images without (-1) are left out.
        layers_thresholds: the layers, in the order of `iou`.
        iou: overlap of each unit with its best formula, all layers one after another; nan for units without.
        concept_iou: the same with the best single concept.
        run: seed of the permutations, device, batch size, progress.
        level: coverage of the intervals, between 0 and 1.

    Returns:
        By unit `accuracy_when_firing` with `low` and `high` (Wilson; nan where it never fires), `fires` (share of the
        images) and `fires_images`. As single numbers `accuracy` with its interval, `images`, and for X = `formula` and
        `concept` the correlation over the units that fire on `LEAST_IMAGES` or more: `r_X`, `r_X_low`, `r_X_high`,
        `p_X` (Student's t), `p_X_permuted` (units permuted), `rho_X` (Spearman) and `units_X`, how many units these
        were. While images times units is at most `LARGEST_TABLE`, by image `row`, `pred` and `target`, and by both
        `fired` (0 or 1).

    Raises:
        InputError: no labelled image, labels beyond the network's outputs, or not one overlap for each unit.
    """
    units = sum(one.layer.units for one in layers_thresholds)
    if len(iou) != units or len(concept_iou) != units:
        message = f"{len(iou)} and {len(concept_iou)} overlaps came for {units} units: give one of each for every unit"
        raise InputError(message)
    rows = np.flatnonzero(data.labels >= 0)
    if not len(rows):
        message = (
            f"none of the {len(data)} images of {data.name} has a class label. Give --labelled with labelled images"
        )
        raise InputError(message)
    if int(data.labels.max()) >= len(subject.classes):
        message = (
            f"{data.name} has labels up to {data.labels.max()}, but {subject.name} has {len(subject.classes)} outputs: "
            "give images with the classes of the network"
        )
        raise InputError(message)
    above = np.concatenate([one.thresholds.astype(np.float64) for one in layers_thresholds])
    step = Observe(tuple(one.layer for one in layers_thresholds), measures=("max",))
    folds = Each(said=Decisions("logits", len(rows)), fired=Firing("max", above, len(rows)))
    labelled = data.take(rows)
    answer = sweep(subject, labelled, step, folds, run=run, name="accuracy").answer
    said: DecisionsAnswer = answer["said"]
    fired: FiringRows = answer["fired"]
    right = said.predicted == said.label
    many = fired.fired.sum(axis=0)
    hits = fired.fired[right].sum(axis=0)
    low, high = wilson_interval(hits, many, level=level)
    share = np.where(many > 0, hits / np.maximum(many, 1), np.nan)
    whole_low, whole_high = wilson_interval(np.array([right.sum()]), np.array([len(right)]), level=level)
    unit = ("unit",)
    variables: dict[str, Variable] = {
        "accuracy_when_firing": (
            unit,
            share,
            "share of right classes among the images where the unit fires",
            "",
        ),
        "low": (unit, low, f"lower limit of that, {level:.0%}", ""),
        "high": (unit, high, f"upper limit of that, {level:.0%}", ""),
        "fires": (unit, many / len(right), "share of the images on which the unit fires", ""),
        "fires_images": (unit, many, "images on which the unit fires", ""),
        "accuracy": ((), np.array(right.mean()), "share of all images that are classified rightly", ""),
        "accuracy_low": ((), whole_low[0], f"lower limit of that, {level:.0%}", ""),
        "accuracy_high": ((), whole_high[0], f"upper limit of that, {level:.0%}", ""),
        "images": ((), np.array(len(right)), "labelled images", ""),
    }
    enough = np.where(many >= LEAST_IMAGES, share, np.nan)
    for name, quality in (("formula", iou), ("concept", concept_iou)):
        rng = run.generator("accuracy", name)
        variables |= _association(name, association(enough, quality, rng=rng, level=level))
    table = unit_table({one.layer.name: one.layer.units for one in layers_thresholds}, variables)
    by_image = {
        "row": ("image", rows[said.index], {"long_name": f"row of {data.name}"}),
        "pred": ("image", said.predicted, {"long_name": "class with the largest logit"}),
        "target": ("image", said.label, {"long_name": "class of the label"}),
    }
    if fired.fired.size > LARGEST_TABLE:
        return table
    own = {"fired": (("image", "unit"), fired.fired.astype(np.int8), {"long_name": "1: the unit fires on the image"})}
    return table.assign({**by_image, **own})


def targets_of(setting: Setting) -> tuple[Int[np.ndarray, "n"] | None, str]:
    """Class of each concept image, as a number of the network's output; -1 where an image has none.

    Taken are the images' own labels where their classes are the network's (the same names in the same order, or as
    many classes of a network whose own are mere numbers); else labels of the whole image whose name is that of a class.
    Names are compared without case, a trailing `-s`, and the difference between `_`, `-`, `/` and blanks; the `/a/` of
    Places365 counts for nothing. Of several such labels the first of the image holds.

    Returns:
        The classes and where they come from; None and the reason where there are none.
    """
    images, classes = setting.concepts.images, setting.subject.classes
    names = [_cleaned(name) for name in classes]
    own = [_cleaned(name) for name in images.classes]
    numbered = all(name.isdigit() for name in classes)
    if own and (images.labels >= 0).any() and len(own) == len(names) and (numbered or own == names):
        return images.labels, "the images' own labels"
    number = {name: place for place, name in reversed(list(enumerate(names)))}
    concepts = setting.concepts.concepts
    class_of = {c.number: number[_cleaned(c.raw or c.name)] for c in concepts if _cleaned(c.raw or c.name) in number}
    class_of |= {c.number: number[_cleaned(c.name)] for c in concepts if _cleaned(c.name) in number}
    if not class_of:
        reason = (
            f"neither are the classes of {setting.concepts.name} those of {setting.subject.name}, nor has any concept "
            f"the name of one of its {len(classes)} classes ({', '.join(classes[:3])}, ...)"
        )
        return None, reason
    reader = setting.concepts.reader
    targets = np.full(len(images), -1, dtype=np.int64)
    for row in range(len(images)):
        found = [class_of[label] for label in reader.whole(row).tolist() if label in class_of]
        targets[row] = found[0] if found else -1
    if (targets < 0).all():
        return None, f"no image of {setting.concepts.name} has a label of the whole image that is a class's name"
    return targets, f"{len(set(class_of.values()))} concepts of whole images with the name of a class"


def labelled_images(setting: Setting) -> tuple[Data | None, str]:
    """The images reported, with the classes of `targets_of` as labels; None and the reason where there are none."""
    targets, reason = targets_of(setting)
    if targets is None:
        return None, reason
    images = setting.concepts.images
    fingerprint = f"{images.fingerprint} targets {setting.concepts.fingerprint} {setting.subject.fingerprint}"
    known = replace(images, labels=targets, classes=setting.subject.classes, fingerprint=fingerprint)
    rows = setting.reported[targets[setting.reported] >= 0]
    if not len(rows):
        return None, f"no image among the {len(setting.reported)} reported has a class ({reason})"
    return known.take(rows), reason


def _association(name: str, found: Association) -> dict[str, Variable]:
    of = "accuracy when firing and overlap with the best " + ("formula" if name == "formula" else "single concept")
    numbers = {
        f"r_{name}": (found.r, f"Pearson's correlation over the units of {of}"),
        f"r_{name}_low": (found.low, "lower limit of that (Fisher's z)"),
        f"r_{name}_high": (found.high, "upper limit of that (Fisher's z)"),
        f"p_{name}": (found.p, "of that, two-sided (Student's t)"),
        f"p_{name}_permuted": (found.p_permuted, "of that, two-sided, with the units permuted"),
        f"rho_{name}": (found.rho, f"Spearman's rank correlation over the units of {of}"),
        f"units_{name}": (found.count, f"units in these: they fire on {LEAST_IMAGES} images or more"),
    }
    return {key: ((), np.array(value), meaning, "") for key, (value, meaning) in numbers.items()}


def _cleaned(name: str) -> str:
    """A class or concept name, for comparison."""
    bare = re.sub(r"^/\w/", "", name.strip())
    words = re.sub(r"-s$", "", bare).replace("_", " ").replace("/", " ").replace("-", " ")
    return " ".join(words.casefold().split())
