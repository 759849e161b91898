"""The rows behind a result as the original keeps them: one array for each scalar variable.

Designs are functions of the options and the seed, so rows are made again from the result alone: its options, the size
of its pictures and the rows of its images. What the network said to them is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from neuronscope.augment import Augmentation
from neuronscope.errors import ResultFileError
from neuronscope.maths.shapley_effects import ShapleyDesign
from neuronscope.run import Run
from neuronscope.studies.sensitivity.contrast import draws_of
from neuronscope.studies.sensitivity.effects import effects_design
from neuronscope.studies.sensitivity.factors import Problem
from neuronscope.studies.sensitivity.indices import sobol_design, sobol_images
from neuronscope.studies.sensitivity.original.layouts import SEGMENTS
from neuronscope.studies.sensitivity.original.values import Original
from neuronscope.studies.sensitivity.pool import Pool
from neuronscope.studies.sensitivity.setting import chosen_augmentations, problems
from neuronscope.studies.sensitivity.single import balanced_images, drawn
from neuronscope.studies.sensitivity.spec import SensitivitySpec

_AT_ONCE = 2**18
"""Rows decoded at a time."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What the designs of a result are made of.

    Attributes:
        original: the result.
    """

    original: Original

    @cached_property
    def spec(self) -> SensitivitySpec:
        """The options."""
        known = {one.name for one in fields(SensitivitySpec)}
        given = {name: value for name, value in self.original.result.provenance.spec.items() if name in known}
        return SensitivitySpec(**given)

    @cached_property
    def run(self) -> Run:
        """Of the circumstances, only the seed decides rows."""
        return Run(seed=int(self.original.result.provenance.circumstances["seed"]))

    @cached_property
    def pool(self) -> Pool:
        """The images.

        Raises:
            ResultFileError: the result does not keep them.
        """
        group = self._group("pool")
        count = group["images"].to_numpy().astype(np.int64)
        return Pool(
            classes=tuple(group["class_number"].to_numpy().tolist()),
            partitions=count.shape[1],
            rows=group["row"].to_numpy().astype(np.int64),
            first=np.concatenate([[0], count.ravel().cumsum()[:-1]]).reshape(count.shape),
            count=count,
        )

    @cached_property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """As they were applied.

        Raises:
            ResultFileError: the size of the images is not known.
        """
        picture = self._group("sheet")["picture"]
        height, width, channels = (int(picture.sizes[axis]) for axis in ("y", "x", "channel"))
        return chosen_augmentations((channels, height, width), self.spec)

    @cached_property
    def problems(self) -> tuple[Problem, Problem]:
        """Of Sobol indices, and of Shapley effects."""
        return problems(self.augmentations, self.pool, self.spec)

    def _group(self, name: str) -> Any:
        tree = self.original.result.tree
        if name not in tree:
            message = (
                f"the result has no group '{name}': expected that of a finished run of this neuronscope, and an older "
                "one made it. Run the study again"
            )
            raise ResultFileError(message)
        return tree[name].to_dataset()


def scalar_names(problem: Problem) -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """Names of the scalars: those of parameters by (augmentation, parameter), and of switches by augmentation.

    A parameter keeps its name where no other augmentation has one of it, and has the augmentation's in front otherwise.
    """
    every = [parameter.name for one in problem.augmentations for parameter in one.parameters]
    parameters = {
        (one.name, own.name): own.name if every.count(own.name) == 1 else f"{one.name}_{own.name}"
        for one in problem.augmentations
        for own in one.parameters
    }
    switches = {
        one.name: f"{one.name}_switch" if one.parameters else one.name
        for one in problem.augmentations
        if problem.switches == "all" or not one.parameters
    }
    return parameters, switches


def decoded_rows(
    problem: Problem, unit: Callable[[Int[np.ndarray, "r"]], np.ndarray], numbers: Int[np.ndarray, "n"]
) -> dict[str, np.ndarray]:
    """One array for each scalar variable but the image, with a number for each row.

    Args:
        problem: how to decode.
        unit: row numbers -> points of the unit cube.
        numbers: of the rows wanted.

    Returns:
        Values of parameters; switches, 1 where an augmentation is applied; `permutation`, the augmentations by number
        in the order in which they are applied; `partition`, 0 or 1.
    """
    parts = [_decoded(problem, unit(numbers[start : start + _AT_ONCE])) for start in range(0, len(numbers), _AT_ONCE)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _decoded(problem: Problem, points: np.ndarray) -> dict[str, np.ndarray]:
    parameters, switches = scalar_names(problem)
    vectors = problem.vectors(points)
    many, count = len(parameters), len(problem.augmentations)
    found: dict[str, np.ndarray] = {}
    column = 0
    for place, augmentation in enumerate(problem.augmentations):
        if augmentation.name in switches:
            found[switches[augmentation.name]] = vectors[:, many + place].astype(np.int8)
        for own in augmentation.parameters:
            found[parameters[augmentation.name, own.name]] = vectors[:, column].astype(np.float32)
            column += 1
    if problem.place("order") is not None:
        found["permutation"] = vectors[:, many + count :].astype(np.int8)
    if problem.place("partition") is not None:
        found["partition"] = problem.cell(points)[1].astype(np.int8)
    return found


def write_parameters(original: Original, folder: Path) -> Iterator[Path]:
    """`*_activations_params_*.npz` of the designs that a result comes from.

    `class` holds the image, as in the original: the row of the data, the second partition's after the first's. The rows
    of `sitv` are those of `si`, and are not written twice.

    Raises:
        ResultFileError: the rows cannot be made again.
    """
    rows = Rows(original)
    _ = rows.problems
    folder.mkdir(parents=True, exist_ok=True)
    middle = f"{SEGMENTS}_" if "segments" in original.result.tree else ""
    end = f"{middle}part={original.part}_augnm={original.sets}.npz"
    for kind, make in (("si", _sobol), ("shpv", _shapley), ("shptv", _independent)):
        if rows.spec.estimators.count("sobol" if kind == "si" else "shapley"):
            yield _written(folder / f"{kind}_{original.origin}_activations_params_{end}", make(rows))
    if "contrast" in rows.spec.estimators:
        path = folder / f"cs_{original.origin}_activations_params_part={original.part}.npz"
        yield _written(path, _contrast(rows))


def _written(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def _replicates(rows: Rows) -> int:
    """Replicates of the Sobol design that were worked: fewer where the ranking was settled."""
    layers = rows.original.result.tree["layers"].to_dataset()
    return int(layers["replicates"].to_numpy().max())


def _sobol(rows: Rows) -> dict[str, np.ndarray]:
    problem, parts = rows.problems[0], []
    for replicate in range(_replicates(rows)):
        design = sobol_design(problem, rows.spec, rows.run, replicate)
        numbers = np.arange(len(design))
        image = sobol_images(problem, rows.spec, rows.run, design.unit(numbers), replicate)
        parts.append({**decoded_rows(problem, design.unit, numbers), "class": image.astype(np.int32)})
    return _joined(parts)


def _shapley(rows: Rows) -> dict[str, np.ndarray]:
    parts = []
    for replicate in range(rows.spec.replicates):
        design = effects_design(rows.problems[1], rows.spec, rows.run, replicate)
        parts.append({**_effects_rows(rows, design, np.arange(len(design))), "variables_sigmas": sigmas(design)})
    return _joined(parts)


def _independent(rows: Rows) -> dict[str, np.ndarray]:
    """The rows of Shapley designs that are independent draws of all variables."""
    parts = []
    for replicate in range(rows.spec.replicates):
        design = effects_design(rows.problems[1], rows.spec, rows.run, replicate)
        parts.append(_effects_rows(rows, design, design.full(np.arange(design.blocks))))
    return _joined(parts)


def _effects_rows(rows: Rows, design: ShapleyDesign, numbers: Int[np.ndarray, "n"]) -> dict[str, np.ndarray]:
    problem = rows.problems[1]
    images = [
        problem.images(design.unit(numbers[start : start + _AT_ONCE])) for start in range(0, len(numbers), _AT_ONCE)
    ]
    return {
        **decoded_rows(problem, design.unit, numbers),
        "class": np.concatenate(images).astype(np.int32),
    }


def sigmas(design: ShapleyDesign) -> Int[np.ndarray, "p g"]:
    """The orders in which players join, one for each permutation."""
    each = design.blocks // design.permutations
    return design.order_of(np.arange(design.permutations) * each).astype(np.int16)


def effects_orders(original: Original) -> Int[np.ndarray, "p g"]:
    """The orders in which players join, of all replicates: the original's `sigmas`.

    Raises:
        ResultFileError: the rows cannot be made again.
    """
    rows = Rows(original)
    return np.concatenate(
        [
            sigmas(effects_design(rows.problems[1], rows.spec, rows.run, replicate))
            for replicate in range(rows.spec.replicates)
        ]
    )


def _contrast(rows: Rows) -> dict[str, np.ndarray]:
    """Values of every parameter, image after image and draw after draw; the images."""
    pool = rows.original.result.tree["pool"].to_dataset()
    labels = pool["label"].to_numpy().astype(np.int64)
    images = balanced_images(rows.pool.rows, labels, wanted=rows.spec.contrast_images, seed=rows.run.seed)
    names, _ = scalar_names(rows.problems[0])
    found: dict[str, np.ndarray] = {}
    for augmentation in rows.augmentations:
        draws = draws_of(rows.spec, augmentation)
        values = drawn(rows.run, augmentation, images=len(images), draws=draws, what="contrast")
        for place, own in enumerate(augmentation.parameters):
            found[names[augmentation.name, own.name]] = values[:, :, place].ravel().astype(np.float32)
    return {**found, "class": images.astype(np.int32)}


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
