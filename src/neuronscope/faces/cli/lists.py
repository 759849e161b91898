"""`neuronscope list`: what there is to choose from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import typer

from neuronscope.faces.cli import console, options

Format = Literal["table", "json", "csv"]

app = typer.Typer(
    help="List layers, models, data, studies and executors.", no_args_is_help=True, rich_markup_mode="rich"
)

FormatOption = Annotated[Format, typer.Option("--format", "-f", help="A table to read, or json or csv for programs.")]


@app.command(
    epilog=console.examples(
        "neuronscope list layers torchvision:resnet18",
        "neuronscope list layers builtin:viewer-cnn --layers conv --format csv",
        "neuronscope list layers file:runs/train/model.pt --layers 'conv_layers.*'",
    ),
)
def layers(
    model: Annotated[str, typer.Argument(help="The network, as PREFIX:NAME.")],
    *,
    patterns: Annotated[
        list[str] | None,
        typer.Option(
            "--layers", help="Only these: names, globs or kinds, repeated or with commas.", show_default="all"
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", "-w", help="Its weights, where the number of classes depends on them."),
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option("--input-shape", help="Channels, height and width of its input, as in 3,224,224.")
    ] = None,
    format: FormatOption = "table",  # noqa: A002 named like its flag
) -> None:
    """Layers of a network: name, kind, output shape, units, receptive field."""
    from neuronscope.faces.cli.making import make_subject

    chosen: dict[str, Any] = {"model": model}
    # What a layer is called and how large it is does not depend on the weights; files bring theirs along.
    if weights is not None or not model.startswith("file:"):
        chosen["weights"] = weights or "random"
    if input_shape is not None:
        shape = options.Option("input_shape", "", type=int, many=True)
        chosen["input_shape"] = options.read_values(shape, [input_shape])
    subject = make_subject(chosen, progress=console.progress(quiet=False, what="bytes"))
    wanted = [part for text in patterns or [] for part in options.split(text)]
    found = subject.select(*wanted) if wanted else subject.layers
    lines = [
        {
            "name": layer.name,
            "kind": layer.kind,
            "shape": "x".join(map(str, layer.shape)),
            "units": layer.units,
            "receptive field": "x".join(map(str, layer.receptive_field.size))
            if layer.receptive_field
            else "whole image",
            "stride": "x".join(map(str, layer.receptive_field.stride)) if layer.receptive_field else "",
        }
        for layer in found
    ]
    show(lines, format=format, right=("units",), title=f"{subject.name}: {len(found)} of {len(subject.layers)} layers")
    if format == "table":
        for name, reason in subject.unaddressable:
            console.say(f"not addressable: {name} {reason}")


@app.command(epilog=console.examples("neuronscope list models", "neuronscope list models --format json"))
def models(*, format: FormatOption = "table") -> None:  # noqa: A002 named like its flag
    """Sources of networks, as `--model` takes them."""
    from neuronscope import MODEL_SOURCES

    show(_described(MODEL_SOURCES, suffix=":..."), format=format)


@app.command(epilog=console.examples("neuronscope list data", "neuronscope list data --format json"))
def data(*, format: FormatOption = "table") -> None:  # noqa: A002 named like its flag
    """Sources of images, as `--data` takes them."""
    from neuronscope import DATA_SOURCES

    show(_described(DATA_SOURCES), format=format)


@app.command(epilog=console.examples("neuronscope list studies", "neuronscope list studies --format json"))
def studies(*, format: FormatOption = "table") -> None:  # noqa: A002 named like its flag
    """Studies, with the named deviations that `--legacy` takes."""
    from neuronscope import STUDIES

    lines = [{"name": study.name, "what": study.question} for study in STUDIES.values()]
    deviations = [
        {"name": f"{study.name} --legacy {name}", "what": meaning}
        for study in STUDIES.values()
        for name, meaning in study.legacy.items()
    ]
    show([*lines, *deviations], format=format)


@app.command(epilog=console.examples("neuronscope list executors", "neuronscope list executors --format json"))
def executors(*, format: FormatOption = "table") -> None:  # noqa: A002 named like its flag
    """Who can work the shards of a sweep, as `--executor` takes them."""
    from neuronscope import EXECUTORS

    show(_described(EXECUTORS), format=format)


def _described(table: Mapping[str, Callable[..., Any]], *, suffix: str = "") -> list[dict[str, Any]]:
    """The rows of a table with the first sentence of what stands behind them."""
    return [
        {"name": f"{name}{suffix}", "what": " ".join((maker.__doc__ or "").split("\n\n")[0].split())}
        for name, maker in table.items()
    ]


def show(lines: Sequence[Mapping[str, Any]], *, format: Format, right: Sequence[str] = (), title: str = "") -> None:  # noqa: A002 named like its flag
    """Lines that share their keys, in the form that was asked for."""
    if format == "json":
        console.say(json.dumps(list(lines), indent=1, ensure_ascii=False))
    elif format == "csv":
        import csv
        import io

        text = io.StringIO()
        writer = csv.DictWriter(text, list(lines[0]) if lines else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        console.say(text.getvalue().rstrip("\n"))
    elif lines:
        columns = list(lines[0])
        console.rows(title, columns, [[str(line[column]) for column in columns] for line in lines], right=right)
