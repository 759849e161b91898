"""The root of the command line: its commands, its version, and what becomes of errors.

The commands whose options depend on the library (`run` on the table of studies, `train` on its spec) are made when they
are called for: until then, a line of help stands in their place, and torch is not imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from neuronscope import __version__
from neuronscope.faces.cli import concepts, console, data, fetch, lists, select


def _run() -> Any:
    from neuronscope.faces.cli.run import make_group

    return get_command(make_group())


def _train() -> Any:
    from neuronscope.faces.cli.train import make_app

    return get_command(make_app())


def _doctor() -> Any:
    from neuronscope.faces.cli.doctor import make_app

    return get_command(make_app())


def _paste() -> Any:
    from neuronscope.faces.cli.paste import make_app

    return get_command(make_app())


def _analyse() -> Any:
    from neuronscope.faces.cli.analyse import make_app

    return get_command(make_app())


def _series() -> Any:
    from neuronscope.faces.cli.series import make_app

    return get_command(make_app())


LATE: dict[str, Callable[[], Any]] = {
    "run": _run,
    "train": _train,
    "analyse": _analyse,
    "doctor": _doctor,
    "paste": _paste,
    "series": _series,
}
"""Commands that are made when they are called for."""


class Root(TyperGroup):
    """The group of all commands, with two ways of its own: late commands, and one message for what a user can mend."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names, made now if it is a late one."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, LATE[name]() if name in LATE else command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with console.answering(debug=bool(ctx.params.get("debug"))):
            return super().invoke(ctx)


app = typer.Typer(
    name="neuronscope",
    cls=Root,
    help="Understand the single units of vision CNNs: what they respond to, what they are for, how sure one can be.",
    epilog="Begin with: neuronscope demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> bool:  # noqa: FBT001 Typer calls it with the flag
    if wanted:
        console.say(f"neuronscope {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Say the version and stop.", callback=_say_version, is_eager=True),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show tracebacks of errors.", envvar="NEURONSCOPE_DEBUG"),
    ] = False,
) -> None:
    """Options of all commands; what they say is read from the context."""


@app.command("run", help="Run a study on a network and images: what its units respond to, are for, detect.")
def _run_stands_for() -> None:
    """Never called: `Root` puts the real command in its place."""


@app.command("series", help="Do a list of experiments; what is finished is not done again.")
def _series_stands_for() -> None:
    """Never called: `Root` puts the real command in its place."""


@app.command("train", help="Train a small network to study.")
def _train_stands_for() -> None:
    """Never called: `Root` puts the real command in its place."""


@app.command("analyse", help="Make further analyses of a finished result, without looking at images again.")
def _analyse_stands_for() -> None:
    """Never called: `Root` puts the real command in its place."""


@app.command("doctor", help="Examine installation, machine, network and images for what makes runs fail.")
def _doctor_stands_for() -> None:
    """Never called: `Root` puts the real command in its place."""


@app.command("paste", help="Paste an object onto an image and count what the network then sees.")
def _paste_stands_for() -> None:
    """Never called: `Root` puts the real command in its place."""


@app.command(
    epilog=console.examples("neuronscope demo", "neuronscope demo --out /tmp/demo --seed 3"),
)
def demo(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Where all random streams start.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the outcome: no progress.")] = False,
) -> None:
    """Train on handwritten digits, run every study on the network, and write reports to read."""
    from neuronscope.faces.cli.demo import run_demo

    run_demo(out, seed=seed, quiet=quiet)


@app.command(
    epilog=console.examples(
        "neuronscope report runs/layers",
        "neuronscope report runs/layers --export-original",
    ),
)
def report(
    folder: Annotated[Path, typer.Argument(help="Folder that a run has written.")],
    *,
    export_original: Annotated[
        bool,
        typer.Option("--export-original", help="Also write the files of the original program."),
    ] = False,
) -> None:
    """Draw report, tables and figures of a saved result again."""
    import neuronscope as ns
    from neuronscope.faces.outputs import draw_outputs

    outputs = draw_outputs(ns.open(folder), folder, original="export" if export_original else "none")
    console.say(str(outputs.report.resolve()))


@app.command(
    epilog=console.examples(
        "neuronscope merge runs/part-1 runs/part-2 --out runs/whole",
        "neuronscope merge runs/part-* --out runs/whole",
        "neuronscope merge runs/classes-0-200 runs/classes-200-400 --out runs/classes-0-400",
        "neuronscope merge runs/set1 runs/set2 --out runs/both",
    ),
)
def merge(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Output folders of the parts: each made with --shard I/N, or each a finished run over other classes."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("runs/merged"),
) -> None:
    """Join the parts of a study that several machines have worked, and write its result.

    Parts made with --shard are joined and the study is finished. Finished runs of `clusters` over different classes
    (--class-start, --class-end) become one, with the tables of all classes in original/. Finished runs of `sensitivity`
    with different augmentations become one, with the factors of all of them side by side.
    """
    from neuronscope.faces.cli.run import run_merged

    run_merged(folders, out)


app.command("fetch", epilog=fetch.EXAMPLES)(fetch.fetch)
app.command("select-units", epilog=select.EXAMPLES)(select.select_units)
app.add_typer(lists.app, name="list")
app.add_typer(data.app, name="data")
app.add_typer(concepts.app, name="concepts")


def main() -> None:
    """The command `neuronscope`."""
    # Set before torch is loaded: threads that wait must not spin, or a second program on the machine slows this one
    # down tenfold (two of them share two cores: 42 s against 6 s).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app(prog_name="neuronscope")
