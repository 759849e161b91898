"""`neuronscope doctor`: is everything in order, before a long run is trusted to it?

Installation and machine are examined first, with nothing else imported: where PyTorch does not load, this still speaks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import typer
from rich.markup import escape
from rich.table import Table as RichTable

from neuronscope import Finding, WeightsError, examine_installation
from neuronscope.faces.cli import console, options
from neuronscope.faces.cli.options import Option

BROKEN = 1

# The signs are ASCII, for terminals of any encoding; the word and the sign say what the colour says.
_SIGNS = {"fine": (".", "green"), "note": ("i", "cyan"), "warning": ("!", "yellow"), "broken": ("x", "bold red")}

_RUN = (
    Option("out", "Folder that results would go to: whether there is room.", type=Path, table="run", short="-o"),
    *options.chosen(options.RUN, "seed", "batch_size", "device", "dtype", "threads", "workers"),
)
_OWN = (
    Option("layers", "Layers to study, by name, glob or kind.", many=True, default="activations", panel="Examination"),
    Option(
        "format",
        "A table to read, or json for programs.",
        type=Literal["table", "json"],
        default="table",
        short="-f",
        panel="Examination",
    ),
    Option(
        "fail_on",
        "What gives exit code 1: only what is broken, or a warning too.",
        type=Literal["broken", "warning"],
        default="broken",
        panel="Examination",
    ),
)


def make_app() -> typer.Typer:
    """The command."""
    return options.make_app(
        "doctor",
        run_doctor,
        doctor_options(),
        help="Examine installation, machine, network and images for what makes runs fail or results wrong.",
        examples=(
            "neuronscope doctor",
            "neuronscope doctor -m torchvision:resnet18 -w DEFAULT -d imagenet:PATH --layers 'layer4*'",
            "neuronscope doctor -m file:runs/digits/model.pt -d digits --format json --fail-on warning",
        ),
    )


def doctor_options() -> tuple[Option, ...]:
    """All options of the command: network, images and run as for a study."""
    return (*options.MODEL, *options.DATA, *_OWN, *_RUN)


def run_doctor(flags: Mapping[str, Any]) -> None:
    """Examine, say what was found, and leave with the exit code for it.

    Raises:
        NeuronscopeError: a name or option that cannot be.
        Exit: code 1 when something is broken, or a warning was found and `--fail-on warning` was said.
    """
    findings = examined(flags)
    if flags.get("format") == "json":
        console.say(json.dumps([asdict(one) for one in findings], indent=1, ensure_ascii=False))
    else:
        show(findings)
    grave = {"broken"} if flags.get("fail_on", "broken") == "broken" else {"broken", "warning"}
    if any(one.verdict in grave for one in findings):
        raise typer.Exit(BROKEN)


def examined(flags: Mapping[str, Any]) -> Sequence[Finding]:
    """The findings for what was asked.

    Raises:
        NeuronscopeError: a name or option that cannot be.
    """
    out = Path(flags["out"]) if "out" in flags else None
    findings = examine_installation(out=out)
    tables = {option.key: option.table for option in doctor_options()}
    model = {key: value for key, value in flags.items() if tables[key] == "model"}
    data = {key: value for key, value in flags.items() if tables[key] == "data"}
    if not model and not data and "layers" not in flags:
        return findings
    if any(one.topic == "installation" and one.verdict == "broken" for one in findings):
        text = "not examined: the installation is broken"
        return (*findings, Finding("network", "network", "note", text, "Mend the installation first"))
    # Only now, since these load the packages that were just examined.
    from neuronscope import examine
    from neuronscope.faces.cli.making import make_data, make_run, make_subject

    run = make_run({key: flags[key] for key in flags if tables[key] == "run"}, progress=console.progress(quiet=True))
    images = make_data(data, seed=run.seed) if data else None
    try:
        subject = make_subject(model, progress=console.progress(quiet=False, what="bytes"))
    except WeightsError as error:
        if not _is_file(model):
            raise  # a name that cannot be; a file that is there, but bad, is what a doctor is asked about
        return (*findings, Finding("network", "weights", "broken", str(error)))
    return examine(subject, images, layers=flags.get("layers", ()), run=run, out=out)


def _is_file(model: Mapping[str, Any]) -> bool:
    """Whether the weights that were asked for are a file that is there."""
    prefix, _, rest = str(model.get("model", "")).partition(":")
    return Path(str(model.get("weights", rest if prefix == "file" else ""))).is_file()


def show(findings: Sequence[Finding]) -> None:
    """The findings by topic, each with a sign, a word and what to do."""
    for topic, group in groupby(findings, key=lambda one: one.topic):
        table = RichTable(title=topic, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
        for column in ("", "what", "found"):
            table.add_column(column, overflow="fold", no_wrap=not column)
        for one in group:
            sign, style = _SIGNS[one.verdict]
            advice = f"\n[dim]->[/dim] {escape(one.advice)}" if one.advice else ""
            table.add_row(f"[{style}]{sign} {one.verdict}[/]", escape(one.subject), escape(one.text) + advice)
        console.out().print(table)
        console.say()
    counts = {verdict: sum(one.verdict == verdict for one in findings) for verdict in reversed(_SIGNS)}
    console.say(", ".join(f"{verdict} {count}" for verdict, count in counts.items()))
