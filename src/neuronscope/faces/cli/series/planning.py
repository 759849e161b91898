"""What a series would take before it starts: passes, memory and time of each step that is to be done, and of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from neuronscope import NeuronscopeError, Plan, duration, memory_size
from neuronscope.faces.cli import console
from neuronscope.faces.cli.run import make_request
from neuronscope.faces.cli.series.steps import Step

_COUNTS = ("forward", "backward", "replays")
FINISHED = "finished"
_UNKNOWN = "-"


@dataclass(frozen=True)
class Planned:
    """A step with its plan.

    Attributes:
        step: the step.
        plan: what it would take; None where it is finished, or waits for a result that is not there yet.
        note: why there is no plan, or that it goes on.
    """

    step: Step
    plan: Plan | None
    note: str = ""


def plan_steps(steps: Sequence[Step], *, due: Literal["all", "unfinished"]) -> tuple[Planned, ...]:
    """The plan of each step, as far as it can be known.

    Args:
        steps: in order.
        due: which of them are to be done.

    Raises:
        NeuronscopeError: a network or images that cannot be loaded, or options that do not fit them; says which step.
    """
    plans: dict[str, Planned] = {}
    for step in steps:
        if due == "unfinished" and step.finished:
            plans[step.name] = Planned(step, None, FINISHED)
            continue
        # What a step before makes anew is not there yet, even where there is one.
        waits = [
            need.name
            for need in step.needs
            if not need.finished or (need.name in plans and plans[need.name].note != FINISHED)
        ]
        plans[step.name] = Planned(step, None, f"known after {', '.join(waits)}") if waits else _planned(step)
    return tuple(plans.values())


def _planned(step: Step) -> Planned:
    with naming(step):
        request = make_request(
            step.study, step.spec, step.settings, folder=step.folder, progress="none", purpose="plan"
        )
        plan = step.study.plan(request.subject, request.data, step.spec, run=request.run)
    return Planned(step, plan, "goes on" if step.begun else "")


@contextmanager
def naming(step: Step) -> Iterator[None]:
    """Put the name of a step before what is wrong with it."""
    try:
        yield
    except NeuronscopeError as error:
        message = f"step '{step.name}': {error}"
        raise type(error)(message) from error


def show_plans(plans: Sequence[Planned], *, title: str) -> None:
    """Say what each step would take, and all together: passes and time add up, memory is that of the largest step."""
    known = [one.plan for one in plans if one.plan is not None]
    total = [("all", _total(known), "")] if len(known) > 1 else []
    counts = [one for one in _COUNTS if one == _COUNTS[0] or any(_count(plan, one) for plan in known)]
    columns = ("step", *counts, "state", "memory", "time", "")
    rows = [
        (name, *_cells(plan, counts), note)
        for name, plan, note in (*((one.step.name, one.plan, one.note) for one in plans), *total)
    ]
    console.rows(title, columns, rows, right=columns[1:-1])
    waiting = [one.step.name for one in plans if one.plan is None and one.note != FINISHED]
    if waiting:
        console.say(f"not counted: {', '.join(waiting)}, whose passes depend on results that are not there yet")


def _cells(plan: Plan | None, counts: Sequence[str]) -> tuple[str, ...]:
    if plan is None:
        return (_UNKNOWN,) * (len(counts) + 3)
    passes = (f"{_count(plan, count):,}" for count in counts)
    state = max((one.state for one in plan.sweeps), default=0)
    return (*passes, memory_size(state), memory_size(plan.memory), _time(plan.seconds))


def _count(plan: Plan, count: str) -> int:
    return sum(getattr(one, count) for one in plan.sweeps)


def _total(plans: Sequence[Plan]) -> Plan:
    seconds = [plan.seconds for plan in plans]
    known = [one for one in seconds if one is not None]
    return Plan(tuple(one for plan in plans for one in plan.sweeps), sum(known) if len(known) == len(seconds) else None)


def _time(seconds: float | None) -> str:
    return "not timed" if seconds is None else duration(seconds)
