"""`neuronscope series FILE`: the plan of all steps, then what is not done yet, then what came of each."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from neuronscope import InputError, NonFiniteActivations, duration
from neuronscope.faces.cli import console, options
from neuronscope.faces.cli.options import Option
from neuronscope.faces.cli.run import run_settings
from neuronscope.faces.cli.series.document import read_series
from neuronscope.faces.cli.series.jobs import ALL, TEMPLATE, write_jobs
from neuronscope.faces.cli.series.planning import Planned, naming, plan_steps, show_plans
from neuronscope.faces.cli.series.steps import SHARED, Step, check_needs, choose, settle
from neuronscope.faces.outputs import REPORT

_OWN = (
    Option("only", "Only these steps, by name.", many=True, default="all", panel="Series"),
    Option("out", "Folder below which each step has its own.", type=Path, short="-o", default="as the series says"),
    Option("fresh", "Start over: work finished steps again, and forget what interrupted ones have done.", type=bool),
    Option("plan", "Say what would be done, with passes, memory and time, and stop.", type=bool),
    options.QUIET,
    Option("emit_jobs", "Write shell scripts that do the same to this folder, and stop.", type=Path, panel="Jobs"),
    Option("shards", "Parts of each step, a script for each.", type=int, default="1", panel="Jobs"),
    Option(
        "template",
        "What scripts are made of; the default is written beside them.",
        type=Path,
        default=f"{TEMPLATE} in that folder",
        panel="Jobs",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What came of a step.

    Attributes:
        step: the step.
        state: in words.
        seconds: it took; None where it was not worked.
    """

    step: Step
    state: str
    seconds: float | None = None


def make_app() -> typer.Typer:
    """The command."""
    app = typer.Typer(rich_markup_mode="rich", add_completion=False)
    described = app.command(
        "series",
        help="Do a list of experiments, one after another; what is finished is not done again.",
        epilog=console.examples(
            "neuronscope series recipes/sensitivity/tests.toml --plan",
            "neuronscope series recipes/sensitivity/series1.toml --data imagenet:PATH --out runs/sensitivity",
            "neuronscope series recipes/sensitivity/series1.toml --only series1-alexnet-set1 --device cuda",
            "neuronscope series recipes/sensitivity/series1.toml --emit-jobs jobs --shards 4",
        ),
        no_args_is_help=True,
    )
    described(_command())
    return app


def _command() -> Any:
    """The function of the command: a file, then options."""
    asked = (*_OWN, *SHARED)

    def command(file: Path, **values: Any) -> None:
        options.with_options(lambda flags: run_series(file, flags), asked)(**values)

    place = inspect.Parameter(
        "file",
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        annotation=Annotated[Path, typer.Argument(help="The series, a TOML file; or a recipe, as its only step.")],
    )
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what inspect.signature looks for first
        [place, *options.signature(asked).parameters.values()]
    )
    command.__annotations__ = {}
    return command


def run_series(path: Path, flags: Mapping[str, Any]) -> None:
    """Do what the command line asks for.

    Raises:
        NeuronscopeError: whatever was wrong with the series, before anything is worked, or with a step, which ends it.
        NonFiniteActivations: all is done and saved, but some units of a step have no finite activations.
    """
    document = read_series(path)
    title = " ".join(document.title.split()) or path.stem
    _check_flags(flags)
    chosen = choose(settle(document, path=path, flags=flags), flags.get("only", ()))
    check_needs(chosen)
    quiet, fresh, emit = bool(flags.get("quiet")), bool(flags.get("fresh")), flags.get("emit_jobs")
    if flags.get("plan") or not quiet:
        plans = plan_steps(chosen, due="all" if fresh or emit is not None else "unfinished")
        show_plans(plans, title=title)
    else:
        plans = tuple(Planned(step, None) for step in chosen)
    if emit is not None:
        shards = flags.get("shards", 1)
        jobs = write_jobs(plans, emit, parts=shards, title=title, template=flags.get("template"))
        console.say(f"{len(jobs)} jobs for {len(chosen)} steps. All, one after another: {emit / ALL}")
    elif not flags.get("plan"):
        _work(chosen, quiet=quiet, fresh=fresh)


def _check_flags(flags: Mapping[str, Any]) -> None:
    """Refuse options of jobs where no jobs are asked for.

    Raises:
        InputError: with the option.
    """
    for option in ("shards", "template"):
        if option in flags and "emit_jobs" not in flags:
            message = f"--{option} is about jobs, but none were asked for. Say --emit-jobs FOLDER, or leave it out"
            raise InputError(message)


def _work(steps: Sequence[Step], *, quiet: bool, fresh: bool) -> None:
    """Work the steps that are not finished, in order, and say at the end what came of each, whatever ended it."""
    outcomes: list[Outcome] = []
    broken: list[NonFiniteActivations] = []
    current: tuple[Step, float] | None = None
    try:
        for place, step in enumerate(steps, 1):
            if not fresh and step.finished:
                console.say(f"step {place} of {len(steps)}: {step.name} is finished already")
                outcomes.append(Outcome(step, "finished before"))
                continue
            console.say(f"step {place} of {len(steps)}: {step.name}", style="bold")
            current = (step, time.monotonic())
            state = "done"
            try:
                with naming(step):
                    run_settings(step.study, step.settings, {"quiet": quiet, "fresh": fresh})
            except NonFiniteActivations as error:  # complete and saved: no reason to leave the others undone
                console.warn(str(error))
                broken.append(error)
                state = "done, not all finite"
            outcomes.append(Outcome(step, state, time.monotonic() - current[1]))
            current = None
    finally:
        if current is not None:
            outcomes.append(Outcome(current[0], "broken off", time.monotonic() - current[1]))
        _show(outcomes, steps)
    if broken:
        raise broken[0]


def _show(outcomes: Sequence[Outcome], steps: Sequence[Step]) -> None:
    """What came of each step, and which were not reached."""
    rest = [Outcome(step, "not reached") for step in steps[len(outcomes) :]]
    console.rows(
        "What came of it",
        ("step", "state", "time", "report"),
        [
            (
                one.step.name,
                one.state,
                "-" if one.seconds is None else duration(one.seconds),
                str(one.step.folder / REPORT) if one.step.finished else "-",
            )
            for one in (*outcomes, *rest)
        ],
        right=("time",),
    )
