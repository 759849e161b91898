"""`neuronscope analyse RUN`: further analyses of a finished result, without looking at an image again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from neuronscope import STUDIES, InputError, Result, Study, locked
from neuronscope import open as open_result
from neuronscope.faces.cli import console, options
from neuronscope.faces.cli.making import make_spec
from neuronscope.faces.cli.options import Option
from neuronscope.faces.outputs import Outputs, prepare_folder, write_outputs

_FOLDER = inspect.Parameter(
    "folder",
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    annotation=Annotated[Path, typer.Argument(help="Folder that a run, or a merge, has written.", metavar="RUN")],
)
OUT = Option("out", "Folder to write to.", type=Path, short="-o", default="RUN itself: its result is replaced")


def make_app() -> typer.Typer:
    """The command, with the options of the analyses of all studies that have some."""
    app = typer.Typer(rich_markup_mode="rich", add_completion=False)
    described = app.command(
        "analyse",
        help="Make further analyses of a finished result: how maps of factors go together, and whether they tell "
        "factors apart.",
        epilog=console.examples(
            "neuronscope analyse runs/sensitivity --analyses correlations",
            "neuronscope analyse runs/sensitivity --analyses discriminants --folds 5 --repeats 100",
            "neuronscope merge runs/set1 runs/set2 --out runs/both && neuronscope analyse runs/both --analyses "
            "correlations",
        ),
        no_args_is_help=True,
    )
    described(_command())
    return app


def _command() -> Callable[..., None]:
    chosen = (*analysis_options(), OUT, options.QUIET)

    def command(folder: Path, **values: Any) -> None:
        given = {
            option.key: options.read_values(option, values[option.key])
            for option in chosen
            if values[option.key] is not None
        }
        run_analyses(folder, given)

    listed = options.signature(chosen).parameters.values()
    command.__signature__ = inspect.Signature([_FOLDER, *listed])  # type: ignore[attr-defined]  # as in options
    command.__annotations__ = {}
    return command


def analysis_options() -> tuple[Option, ...]:
    """The options of the analyses of all studies."""
    found: dict[str, Option] = {}
    for study in STUDIES.values():
        own = [one for one in options.spec_options(study.spec) if one.key in study.analysis_options]
        found |= {one.key: replace(one, default="as in the run") for one in own}
    return tuple(found.values())


def run_analyses(folder: Path, flags: Mapping[str, Any]) -> Outputs:
    """Open, analyse, write.

    Raises:
        NeuronscopeError: whatever was wrong with the request.
    """
    result = open_result(folder)
    study = _study(result, folder)
    given = {key: value for key, value in flags.items() if key in study.analysis_options}
    own = {one.name for one in fields(study.spec)} & set(study.analysis_options) - {"analyses"}
    recorded = {key: value for key, value in result.provenance.spec.items() if key in own}
    analysed = study.analyse(result, make_spec(study.spec, recorded | given)) if study.analyse else result
    out = prepare_folder(flags.get("out", folder))
    with locked(out):
        # Files of the original that a run has written into this folder are written again, as a new result drops them.
        outputs = write_outputs(analysed, out, original="export" if (out / "original").is_dir() else "none")
    if not flags.get("quiet"):
        console.say(f"analysed  {', '.join(given.get('analyses', ()))}")
    console.say(str(outputs.report.resolve()))
    return outputs


def _study(result: Result, folder: Path) -> Study:
    """The study of a result, which must have analyses.

    Raises:
        InputError: it has none.
    """
    study = STUDIES.get(result.provenance.study)
    if study is None or study.analyse is None:
        able = ", ".join(name for name, one in STUDIES.items() if one.analyse is not None)
        message = (
            f"{folder} holds a result of '{result.provenance.study}', which has no further analyses: expected one of "
            f"{able}. Give the folder of such a run"
        )
        raise InputError(message)
    return study
