"""`neuronscope run STUDY`: from options to a folder with a result, a report, tables and figures.

There is one subcommand for each row of `STUDIES`, made from the fields of its spec; nothing here knows a study by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import typer
from rich.markup import escape

from neuronscope import (
    STUDIES,
    Data,
    InputError,
    NonFiniteActivations,
    Page,
    Plan,
    PortionDone,
    Result,
    Run,
    Stat,
    Study,
    Subject,
    UnknownName,
    __version__,
    drop_checkpoints,
    duration,
    gather,
    locked,
    memory_size,
    nearest,
)
from neuronscope import open as open_result
from neuronscope.faces.cli import console, once, options, recipes
from neuronscope.faces.cli.making import EXECUTOR_OPTIONS, make_run, make_spec, make_subject, study_data
from neuronscope.faces.cli.options import Option
from neuronscope.faces.cli.train import full_settings, table_options
from neuronscope.faces.outputs import RECIPE, RESULT, Original, Outputs, prepare_folder, write_outputs

CHECKPOINT = "checkpoint"
"""Folder inside the output folder where an unfinished run keeps what it has done."""

_SHOWN_SKIPPED = 5
_SHOWN_LAYERS = 8


@dataclass(frozen=True)
class Request:
    """What a run was asked for, with its objects made.

    Attributes:
        study: the row of the table.
        subject, data, spec, run: what it is run with.
        folder: where its files go.
        original: whether to write the files of the original program.
    """

    study: Study
    subject: Subject
    data: Data
    spec: Any
    run: Run
    folder: Path
    original: Original = "none"


def make_group() -> typer.Typer:
    """A command for each study."""
    group = typer.Typer(
        name="run",
        help="Run a study on a network and images.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        add_completion=False,
    )
    group.callback()(_keep_the_study_name)
    for study in STUDIES.values():
        group.command(study.name, help=escape(study.question), epilog=_examples(study), no_args_is_help=True)(
            make_command(study)
        )
    return group


def _keep_the_study_name() -> None:
    """Options of all studies; there are none, but without this Typer drops the name of a lone command."""


def make_command(study: Study) -> Callable[..., None]:
    """The command of one study."""

    def command(flags: dict[str, Any]) -> None:
        run_study(study, flags)

    return options.with_options(command, study_options(study))


def study_options(study: Study) -> tuple[Option, ...]:
    """All options of a study's command: the network's, the images', its own, and the run's.

    Raises:
        InputError: a field of the spec has the name of an option that all studies share.
    """
    own = tuple(_with_choices(option, study) for option in options.spec_options(study.spec))
    shared = (
        *options.MODEL,
        *options.DATA,
        *options.RUN,
        options.ORIGINAL,
        options.RECIPE,
        options.SHARD,
        options.FRESH,
        options.PLAN,
        options.QUIET,
    )
    twice = {option.key for option in own} & {option.key for option in shared}
    if twice:
        message = f"the spec of '{study.name}' has fields named like shared options: {', '.join(sorted(twice))}"
        raise InputError(message)
    return (*options.MODEL, *options.DATA, *own, *shared[len(options.MODEL) + len(options.DATA) :])


def _with_choices(option: Option, study: Study) -> Option:
    """The option `legacy` with the names it takes."""
    if option.key != "legacy":
        return option
    names = f"Known: {', '.join(study.legacy)}." if study.legacy else "There are none."
    return Option("legacy", f"Named deviations, see `neuronscope list studies`. {names}", table="study", many=True)


def _examples(study: Study) -> str:
    """Commands below the help."""
    name = study.name
    small, large = ("", "") if study.data_of is not None else (" -d digits", " -d imagenet:PATH")
    return console.examples(
        f"neuronscope run {name} -m builtin:viewer-cnn -w random{small} --out runs/{name}",
        f"neuronscope run {name} -m torchvision:resnet18 -w DEFAULT{large} --layers 'layer4*' --plan",
        f"neuronscope run {name} --recipe runs/{name}/recipe.toml --seed 1 --out runs/{name}-1",
    )


def run_study(study: Study, flags: Mapping[str, Any]) -> None:
    """Do what the command line asks for.

    Raises:
        NeuronscopeError: whatever was wrong with the request; nothing was computed before it was noticed.
        NonFiniteActivations: the study is complete and saved, but some units have no finite activations.
    """
    known = study_options(study)
    recipe = flags.get("recipe")
    written = (
        recipes.read_recipe(recipe, options=(*known, *table_options()), study=study.name) if recipe is not None else {}
    )
    run_settings(study, recipes.merge(recipes.moved(written, flags.get("data")), flags, options=known), flags)


def run_settings(study: Study, settings: recipes.Settings, flags: Mapping[str, Any]) -> None:
    """Do what settings ask for.

    Args:
        study: the row of the table.
        settings: everything that may stand in a recipe.
        flags: what only the command line says: plan, quiet, fresh, shard.

    Raises:
        NeuronscopeError: whatever was wrong with the settings; nothing was computed before it was noticed.
        NonFiniteActivations: the study is complete and saved, but some units have no finite activations.
    """
    spec = study_spec(study, settings)
    folder = Path(settings["run"].get("out", Path("runs") / study.name))
    if flags.get("plan"):
        _run_in(folder, study, spec, settings, flags)
        return
    prepare_folder(folder)
    with locked(folder):
        _run_in(folder, study, spec, settings, flags)


def study_spec(study: Study, settings: recipes.Settings) -> Any:
    """The options of a study, as settings have them.

    Raises:
        InputError: a value that its field does not take.
        UnknownName: no such deviation.
    """
    spec = make_spec(study.spec, settings["study"])
    _check_legacy(study, spec)
    return spec


def _run_in(folder: Path, study: Study, spec: Any, settings: recipes.Settings, flags: Mapping[str, Any]) -> None:
    """The study in a folder that no other run is writing to."""
    quiet, plan_only = bool(flags.get("quiet")), bool(flags.get("plan"))
    checkpoint = folder / CHECKPOINT
    if flags.get("fresh") and not plan_only:
        drop_checkpoints(checkpoint)
    made = make_request(
        study,
        spec,
        settings,
        folder=folder,
        progress="none" if quiet else "shown",
        purpose="plan" if plan_only else "work",
    )
    request = replace(made, run=replace(made.run, checkpoint=checkpoint, portion=read_shard(flags.get("shard"))))
    if not quiet:
        header(request)
    if plan_only or not quiet:
        plan = study.plan(request.subject, request.data, spec, run=request.run)
        show_plan(plan, portion=request.run.portion)
    if plan_only:
        return
    # A folder with a checkpoint holds no finished run, so that the recipe is never taken for that of an older result.
    checkpoint.mkdir(exist_ok=True)
    recipes.write_recipe(folder / RECIPE, resolved(settings, study, spec, folder=folder), title=_repeat(request))
    try:
        result, outputs = execute(request)
    except PortionDone:
        console.say(f"part {flags['shard']} is done. When all are: neuronscope merge FOLDER... --out FOLDER")
        console.say(str(folder.resolve()))
        return
    drop_checkpoints(checkpoint)
    show_stats(outputs.page)
    say_skipped(result, request.data)
    console.say(str(outputs.report.resolve()))
    check_finite(result)


def make_request(
    study: Study,
    spec: Any,
    settings: recipes.Settings,
    *,
    folder: Path,
    progress: Literal["shown", "none"],
    purpose: Literal["work", "plan"],
) -> Request:
    """Network, images and circumstances that settings ask for.

    Args:
        study: the row of the table.
        spec: its options.
        settings: the rest.
        folder: where its files go.
        progress: of training, fetching and sweeps.
        purpose: a plan trains no network, and takes one of the same form for it.

    Raises:
        NeuronscopeError: whatever was wrong with the settings.
    """
    quiet = progress == "none"
    request = Request(
        study=study,
        run=make_run(settings["run"], progress=console.progress(quiet=quiet)),
        data=study_data(study, spec, settings["data"], seed=settings["run"].get("seed", 0)),
        subject=_network(settings, folder=folder, quiet=quiet, plan_only=purpose == "plan"),
        spec=spec,
        folder=folder,
        original="export" if settings["run"].get("export_original") else "none",
    )
    if study.data_of is None:  # images that come with a study are not asked for the network's classes
        check_classes(request.subject, request.data)
    return request


def _network(settings: recipes.Settings, *, folder: Path, quiet: bool, plan_only: bool) -> Subject:
    """The network that was asked for, trained first where the recipe says so."""
    table = once.table_of(settings)
    if table is None:
        return make_subject(settings["model"], progress=console.progress(quiet=quiet, what="bytes"))
    if plan_only:
        return once.planned_subject(table, settings["model"])
    return once.trained_subject(table, settings["model"], quiet=quiet, study_folder=folder)


def run_merged(parts: Sequence[Path], out: Path) -> None:
    """Join the parts of a study that were worked with `--shard`, and finish it; or join finished runs.

    Raises:
        InputError: a folder holds no part, or a part of another computation.
    """
    for part in parts:
        if not (part / RECIPE).is_file():
            message = f"{part} holds no {RECIPE}: expected the output folder of a run, with --shard I/N or finished"
            raise InputError(message)
    recipe = parts[0] / RECIPE
    name = recipes.study_name(recipe)
    if name not in STUDIES:
        message = f"{recipe} is of the study '{name}', which is not installed here.{nearest(name, STUDIES)}"
        raise UnknownName(message)
    prepare_folder(out)
    finished = [part for part in parts if (part / RESULT).is_dir() and not any((part / CHECKPOINT).glob("*"))]
    if finished and len(finished) < len(parts):
        other = next(part for part in parts if part not in finished)
        message = (
            f"{finished[0]} holds a finished result, and {other} does not: expected finished runs only, or parts made "
            "with --shard I/N only. Give the same command again to finish a run"
        )
        raise InputError(message)
    if finished:
        with locked(out):
            _join_finished(STUDIES[name], parts, out)
        return
    with locked(out):
        found = gather([part / CHECKPOINT for part in parts], out / CHECKPOINT)
    console.say(f"joined {len(parts)} parts of {found} sweeps")
    run_study(STUDIES[name], {"recipe": recipe, "out": out})


def _join_finished(study: Study, parts: Sequence[Path], out: Path) -> None:
    """One result of several finished runs, with the files of the original program.

    Raises:
        InputError: the study has no way to join them, or they do not belong together.
    """
    if study.join is None or len(parts) == 1:
        able = ", ".join(name for name, one in STUDIES.items() if one.join is not None)
        message = (
            f"nothing to join: {', '.join(map(str, parts))} hold finished results of '{study.name}'. Expected parts "
            f"made with --shard I/N, or several finished runs over different classes of: {able}"
        )
        raise InputError(message)
    result = study.join([open_result(part) for part in parts])
    outputs = write_outputs(result, out, original="export")
    console.say(f"joined {len(parts)} runs")
    console.say(str(outputs.report.resolve()))


def read_shard(text: str | None) -> tuple[int, int] | None:
    """`2/8` as (2, 8).

    Raises:
        InputError: the text is not of this form.
    """
    if text is None:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.strip().isdigit() and count.strip().isdigit()):
        message = f"--shard takes a part and their number, as in 2/8, not '{text}'"
        raise InputError(message)
    return int(number), int(count)


def execute(request: Request) -> tuple[Result, Outputs]:
    """Run the study, save its result, draw its files."""
    with ExitStack() as stack:
        if isinstance(request.run.executor, AbstractContextManager):  # a cluster stays for all sweeps of the study
            stack.enter_context(request.run.executor)
        result = request.study.run(request.subject, request.data, request.spec, run=request.run)
    return result, write_outputs(result, request.folder, original=request.original)


def check_classes(subject: Subject, data: Data) -> None:
    """Refuse labels that mean other classes than the network's.

    Raises:
        InputError: images with labels have another number of classes than the network has outputs.
    """
    if data.classes and len(data.classes) != len(subject.classes):
        message = (
            f"{data.name} has {len(data.classes)} classes, but {subject.name} has {len(subject.classes)} outputs: "
            "expected as many. Choose images that the network was trained for, or weights that fit them"
        )
        raise InputError(message)


def _check_legacy(study: Study, spec: Any) -> None:
    for name in spec.legacy:
        if name not in study.legacy:
            known = ", ".join(study.legacy) or "none"
            message = (
                f"'{name}' is no deviation of the study '{study.name}'.{nearest(name, study.legacy)} Known: {known}"
            )
            raise UnknownName(message)


def header(request: Request) -> None:
    """Say what is about to be looked at."""
    subject, data = request.subject, request.data
    layers = request.study.layers(subject, request.spec)
    names = ", ".join(layer.name for layer in layers[:_SHOWN_LAYERS]) + (", ..." if len(layers) > _SHOWN_LAYERS else "")
    classes = f"{len(data.classes):,} classes" if data.classes else "without labels"
    console.say(f"network  {subject.name} ({subject.fingerprint[:12]}), {len(subject.classes):,} outputs")
    console.say(f"images   {data.name} ({data.fingerprint[:12]}), {len(data):,} images, {classes}")
    console.say(f"layers   {len(layers):,} with {sum(layer.units for layer in layers):,} units: {names}")
    console.say(f"study    {request.study.name}: {request.study.question}")


def show_plan(plan: Plan, *, portion: tuple[int, int] | None = None) -> None:
    """Say what is about to be done: by all parts together, where the run is one of them."""
    console.rows(
        "Plan",
        ("sweep", "images", "forward", "backward", "replays", "state", "working memory"),
        [
            (
                one.name,
                f"{one.images:,}",
                f"{one.forward:,}",
                f"{one.backward:,}",
                f"{one.replays:,}",
                memory_size(one.state),
                memory_size(one.working),
            )
            for one in plan.sweeps
        ],
        right=("images", "forward", "backward", "replays", "state", "working memory"),
    )
    console.say(f"memory   about {memory_size(plan.memory)}, beside the program and the network")
    if plan.seconds is not None:
        console.say(f"time     about {duration(plan.seconds)}")
    if portion is not None:
        console.say(f"part     {portion[0]} of {portion[1]}: this run works its share of the sweeps above")


def show_stats(page: Page) -> None:
    """The headline numbers of a page."""
    stats = [block for block in page.blocks if isinstance(block, Stat)]
    console.rows("", ("", "value", ""), [(stat.label, shown(stat), stat.note) for stat in stats], right=("value",))


def shown(stat: Stat) -> str:
    """A headline number with its interval, rounded for reading.

    Example:
        >>> shown(Stat("accuracy", 0.98054, low=0.9673, high=0.9891))
        '0.9805 [0.9673, 0.9891]'
    """

    def number(value: float | str) -> str:
        return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"

    interval = f" [{number(stat.low)}, {number(stat.high)}]" if stat.low is not None and stat.high is not None else ""
    return f"{number(stat.value)}{f' {stat.unit}' if stat.unit else ''}{interval}"


def say_skipped(result: Result, data: Data) -> None:
    """Name the images that were left out."""
    skipped = result.provenance.skipped
    if skipped:
        names = [data.ids[row] if data.ids else str(row) for row, _ in skipped[:_SHOWN_SKIPPED]]
        more = f" and {len(skipped) - len(names):,} more" if len(skipped) > len(names) else ""
        console.warn(f"{len(skipped):,} images could not be read and were left out: {', '.join(names)}{more}")


def check_finite(result: Result) -> None:
    """Refuse to call a study a success whose numbers are partly missing.

    Raises:
        NonFiniteActivations: some units gave NaN or infinity.
    """
    found = result.provenance.nonfinite
    if found:
        layers = ", ".join(f"{layer} ({len(units):,} units)" for layer, units in found.items())
        total = sum(len(units) for units in found.values())
        message = (
            f"the study is complete and saved, but {total:,} units gave NaN or infinite activations and are nan in it: "
            f"{layers}. Look for an overflow in the network or its preprocessing; --dtype float64 may help"
        )
        raise NonFiniteActivations(message)


def resolved(settings: recipes.Settings, study: Study, spec: Any, *, folder: Path) -> recipes.Settings:
    """Everything that decides a run, as a recipe.

    Args:
        settings: what was asked for.
        study: the row of the table.
        spec: its options, defaults included.
        folder: where its files go.

    Raises:
        InputError: circumstances that cannot be.
    """
    run = make_run(settings["run"], progress=console.progress(quiet=True))
    decided = {
        "seed": run.seed,
        "batch_size": run.batch_size,
        "device": run.device,
        "dtype": run.dtype,
        "threads": run.threads,
        "workers": run.workers,
        **({"memory": settings["run"]["memory"]} if "memory" in settings["run"] else {}),
        "executor": settings["run"].get("executor", "serial"),
        **{key: settings["run"].get(key) for key in EXECUTOR_OPTIONS},
    }
    table = once.table_of(settings)
    return {
        "train": full_settings(table) if table is not None else {},
        "model": settings["model"],
        "data": settings["data"],
        "study": {"name": study.name, **asdict(spec)},
        "run": {"out": str(folder), **decided, "export_original": bool(settings["run"].get("export_original"))},
    }


def _repeat(request: Request) -> str:
    path = request.folder / RECIPE
    return f"neuronscope {__version__}. Repeat with: neuronscope run {request.study.name} --recipe {path}"
