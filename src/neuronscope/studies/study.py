"""What every study is made of, so that the command line, reports and recipes need to know none of them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from neuronscope.data.dataset import Data
from neuronscope.models.subject import Subject
from neuronscope.result import Result
from neuronscope.run import Run
from neuronscope.sweep import Plan
from neuronscope.units import LayerInfo
from neuronscope.views import Page


@runtime_checkable
class RunStudy(Protocol):
    """Runs a study."""

    def __call__(self, subject: Subject, data: Data, spec: Any, *, run: Run) -> Result:
        """The study's result."""
        ...


@runtime_checkable
class PlanStudy(Protocol):
    """Says what a study would do."""

    def __call__(self, subject: Subject, data: Data, spec: Any, *, run: Run) -> Plan:
        """Its sweeps, with passes, memory and time."""
        ...


@dataclass(frozen=True)
class Study:
    """One row of the table of studies.

    Attributes:
        name: as on the command line.
        question: what it answers, in one sentence.
        spec: its options: a frozen pydantic dataclass whose fields carry a description. Every spec has the fields
            `layers` (patterns) and `legacy` (named deviations).
        layers: which layers a spec asks for.
        join: one result of several finished runs that belong together, such as ranges of classes or sets of
            augmentations; None for studies that are shared by `--shard` only.
        analyse: (result, spec) -> the result with the further analyses that the spec asks for, which need no network;
            None for studies without such.
        analysis_options: fields of the spec that such analyses heed.
        data_of: (spec, seed) -> the images, for studies whose options name them; None where they are given.
        run, plan: do it, and say beforehand what doing it takes.
        page: shows a result.
        export_original: writes a result under the file names of the program the study comes from, into a folder.
        original_figures: file name in that program's own results -> name of the figure here that takes its place;
            `{dataset}` in the file name stands for the name of the images, such as mnist.
        legacy: name of a deviation -> what it changes.
    """

    name: str
    question: str
    spec: type[Any]
    layers: Callable[[Subject, Any], tuple[LayerInfo, ...]]
    run: RunStudy
    plan: PlanStudy
    page: Callable[[Result], Page]
    export_original: Callable[[Result, Path], list[Path]]
    original_figures: Mapping[str, str]
    legacy: Mapping[str, str]
    join: Callable[[Sequence[Result]], Result] | None = None
    data_of: Callable[[Any, int], Data] | None = None
    analyse: Callable[[Result, Any], Result] | None = None
    analysis_options: tuple[str, ...] = ()
