"""Options as data: what a flag is called, what it holds, and which table of a recipe it belongs to.

The options that all studies share stand here once. Those of a study are read from its `Spec`, so a new study brings its
flags, their help and its recipe keys along. No option has a default of its own at the command line: a flag that was not
given is absent, and the recipe, the spec or the library decides.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from rich.markup import escape

from neuronscope import InputError
from neuronscope.faces.cli import console

Table = Literal["train", "model", "data", "study", "run", ""]
"""Table of a recipe; "" for what is only said at the command line."""

OnError = Literal["raise", "skip"]

PANELS: dict[str, str] = {
    "train": "Training",
    "model": "Network",
    "data": "Images",
    "study": "Study",
    "run": "Run and output",
    "": "Run and output",
}

_RANGE = re.compile(r"\d+(-\d+)?")


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        key: name in a recipe; the flag has hyphens in place of underscores.
        help: what it means, in one sentence.
        type: of one value: str, int, float, bool, Path or a Literal.
        table: where it stands in a recipe.
        many: whether it takes several values, repeated or separated by commas.
        default: what holds when it is not given, as shown by `--help`; "" shows nothing.
        short: a one-letter flag.
        panel: the box of `--help` it stands in; "" for that of its table.
        commas: of several values: whether a comma separates two, or belongs to one, as in a list of paths.
    """

    key: str
    help: str
    type: Any = str
    table: Table = ""
    many: bool = False
    default: str = ""
    short: str = ""
    panel: str = ""
    commas: Literal["separate", "belong"] = "separate"

    @property
    def flag(self) -> str:
        """As it is typed."""
        return f"--{self.key.replace('_', '-')}"


MODEL = (
    Option("model", "The network, as PREFIX:NAME: see `neuronscope list models`.", table="model", short="-m"),
    Option(
        "weights",
        "Its weights: a file, a weights name such as DEFAULT, or random; file: sources have their own.",
        table="model",
        short="-w",
    ),
    Option(
        "strict",
        "Whether the weights must fill the whole network; partial leaves the rest random.",
        type=Literal["all", "partial"],
        table="model",
        default="all",
    ),
    Option(
        "input_shape", "Channels, height and width of its input, as in 3,224,224.", type=int, table="model", many=True
    ),
    Option(
        "resize",
        "Pixels of the shorter side before the crop, or height,width.",
        type=int,
        table="model",
        many=True,
        default="as the weights say",
    ),
    Option(
        "crop",
        "Pixels of the centre crop: a side, or height,width.",
        type=int,
        table="model",
        many=True,
        default="as the weights say",
    ),
    Option(
        "interpolation",
        "How the resize finds new pixels.",
        type=Literal["bilinear", "bicubic", "nearest"],
        table="model",
        default="as the weights say",
    ),
    Option(
        "mean",
        "Mean of each channel, on the scale 0 to 1.",
        type=float,
        table="model",
        many=True,
        default="as the weights say",
    ),
    Option(
        "std",
        "Standard deviation of each channel, on the scale 0 to 1.",
        type=float,
        table="model",
        many=True,
        default="as the weights say",
    ),
    Option(
        "normalise",
        "none feeds values 0 to 1 as they are.",
        type=Literal["weights", "none"],
        table="model",
        default="weights",
    ),
)

DATA = (
    Option("data", "The images, as NAME:PATH: see `neuronscope list data`.", table="data", short="-d"),
    Option("split", "Which part of them, as in train, test, report.", table="data", default="the part not trained on"),
    Option("limit", "At most so many images, all classes evenly.", type=int, table="data", default="all"),
    Option("classes", "Only images of these classes, by name or number.", table="data", many=True, default="all"),
    Option("labels", "A label file that lies elsewhere than the images.", type=Path, table="data"),
    Option(
        "on_error",
        "What becomes of an image that cannot be read.",
        type=OnError,
        table="data",
        default="raise",
    ),
    Option("download", "Fetch missing files of a standard data set.", type=bool, table="data"),
)

RUN = (
    Option("out", "Folder to write to; an older result in it is replaced.", type=Path, table="run", short="-o"),
    Option("seed", "Where all random streams start.", type=int, table="run", default="0"),
    Option("batch_size", "Images in one forward pass.", type=int, table="run", default="32"),
    Option("device", "cpu, cuda, cuda:1, or auto for the first accelerator there is.", table="run", default="auto"),
    Option(
        "dtype",
        "Number format of the network's arithmetic.",
        type=Literal["float32", "float64"],
        table="run",
        default="float32",
    ),
    Option("threads", "Threads of one operation.", type=int, table="run", default="PyTorch's choice"),
    Option("workers", "Threads that decode images beside the network.", type=int, table="run", default="one a core"),
    Option(
        "memory",
        "What a study may use beside the network, as in 2GB: layers, and units of a single layer, are taken in groups "
        "that fit.",
        table="run",
    ),
    Option("executor", "Who works the shards: see `neuronscope list executors`.", table="run", default="serial"),
    Option("processes", "Workers of the executor.", type=int, table="run", default="one a core"),
    Option(
        "address",
        "host:port of a Ray cluster, or auto for the one on this machine.",
        table="run",
        default="a cluster on this machine, for the run",
    ),
)


def chosen(table: Sequence[Option], *keys: str) -> tuple[Option, ...]:
    """Some of the shared options, in the order of their table.

    Example:
        >>> [one.flag for one in chosen(RUN, "seed", "out")]
        ['--out', '--seed']
    """
    return tuple(one for one in table if one.key in keys)


SHARD = Option("shard", "Work one part of the images only, as in 2/8; `neuronscope merge` joins the parts.")
FRESH = Option("fresh", "Start over: forget what an interrupted run in this folder has finished.", type=bool)

ORIGINAL = Option(
    "export_original",
    "Also write original/: the files of the program the study comes from, under their names.",
    type=bool,
    table="run",
)
RECIPE = Option(
    "recipe", "A TOML file with tables \\[train] \\[model] \\[data] \\[study] \\[run]; flags win over it.", type=Path
)
PLAN = Option("plan", "Say what would be done, with memory and time, and stop.", type=bool)
QUIET = Option("quiet", "Only the outcome: no header, plan or progress.", type=bool, short="-q")


def spec_options(spec: type[Any], *, panel: str = "") -> tuple[Option, ...]:
    """One option for each field of a spec: help from its description, the default shown."""
    described: Mapping[str, Any] = spec.__pydantic_fields__
    return tuple(
        _spec_option(field.name, described[field.name], default=_default(field), panel=panel) for field in fields(spec)
    )


def _default(field: Any) -> str:
    if field.default_factory is not MISSING:
        return _shown(field.default_factory())
    value = getattr(field.default, "default", field.default)  # a pydantic FieldInfo keeps the value inside
    return "" if value is MISSING else _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list | frozenset):
        return ",".join(_shown(one) for one in value)
    return (
        {None: "", True: "yes", False: "no"}[value] if value is None or value is True or value is False else str(value)
    )


def _spec_option(name: str, described: Any, *, default: str, panel: str) -> Option:
    kind, many = _kind(described.annotation)
    text = described.description or ""
    sentence = f"{text[:1].upper()}{text[1:]}{'.' if text else ''}"
    told = described.json_schema_extra
    commas: Any = told.get("commas", "separate") if isinstance(told, dict) else "separate"
    return Option(
        name, escape(sentence), type=kind, table="study", many=many, default=default, panel=panel, commas=commas
    )


def _kind(annotation: Any) -> tuple[Any, bool]:
    """What one value of a field is at the command line, and whether it takes several; `str` where pydantic decides."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin in (Union, UnionType):
        inner = [one for one in arguments if one is not NoneType]
        kinds = {_kind(one) for one in inner}
        # int | tuple[int, int] takes several whole numbers; a mix of kinds stays text.
        same = len({kind for kind, _ in kinds}) == 1
        return (next(iter(kinds))[0] if same else str), any(many for _, many in kinds)
    if origin in (tuple, list, frozenset, set):
        kinds = {_kind(one)[0] for one in arguments if one is not Ellipsis}
        return (kinds.pop() if len(kinds) == 1 else str), True
    known = origin is Literal or annotation in (str, int, float, bool, Path)
    return (annotation if known else str), False


def signature(options: Sequence[Option]) -> inspect.Signature:
    """The options as keyword parameters that Typer understands, each None when it was not given."""
    return inspect.Signature(
        [
            inspect.Parameter(option.key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(option))
            for option in options
        ]
    )


def _annotation(option: Option) -> Any:
    flags = [option.flag, *([option.short] if option.short else [])]
    # Options of a recipe can be switched off again at the command line; the others have nothing to be switched off.
    if option.type is bool and option.table:
        flags[0] = f"{option.flag}/--no-{option.flag[2:]}"
    metavar = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH", bool: " "}.get(option.type)
    if get_origin(option.type) is Literal:
        metavar = "|".join(map(str, get_args(option.type)))
    details = typer.Option(
        *flags,
        help=option.help + (f" [dim]\\[default: {escape(option.default)}][/dim]" if option.default else ""),
        show_default=False,
        rich_help_panel=option.panel or PANELS[option.table],
        metavar=f"{metavar},..." if option.many and option.commas == "separate" else metavar,
    )
    value = list[str] if option.many else option.type
    return Annotated[value | None if value is not bool else bool | None, details]


def with_options(function: Callable[[dict[str, Any]], None], options: Sequence[Option]) -> Callable[..., None]:
    """A command that hands the options that were given to a function, as one mapping.

    Raises:
        InputError: when called, a list of numbers holds something else.
    """

    def command(**values: Any) -> None:
        function(
            {
                option.key: read_values(option, values[option.key])
                for option in options
                if values[option.key] is not None
            }
        )

    command.__signature__ = signature(options)  # type: ignore[attr-defined]  # what inspect.signature looks for first
    command.__annotations__ = {}
    return command


def make_app(
    name: str,
    function: Callable[[dict[str, Any]], None],
    options: Sequence[Option],
    *,
    help: str,  # noqa: A002 named as in Typer
    examples: Sequence[str],
    alone: Literal["runs", "helps"] = "runs",
) -> typer.Typer:
    """A command of its own, made of options.

    Args:
        name: of the command.
        function: takes the options that were given.
        options: its flags.
        help: what it is for.
        examples: commands below the help.
        alone: what it does without any flag.
    """
    app = typer.Typer(rich_markup_mode="rich", add_completion=False)
    described = app.command(name, help=help, epilog=console.examples(*examples), no_args_is_help=alone == "helps")
    described(with_options(function, options))
    return app


def read_values(option: Option, given: Any) -> Any:
    """What was typed for an option, with lists taken apart at their commas.

    Raises:
        InputError: a list of numbers holds something else.
    """
    if not option.many:
        return given
    parts = list(given) if option.commas == "belong" else [part for text in given for part in split(text)]
    try:
        return tuple(option.type(part) if option.type in (int, float) else part for part in parts)
    except ValueError as error:
        what = "whole numbers" if option.type is int else "numbers"
        message = f"{option.flag} takes {what} separated by commas, got '{','.join(given)}'"
        raise InputError(message) from error


def split(text: str) -> list[str]:
    """The parts between commas; the commas within a list of units belong to it.

    Example:
        >>> split("conv1,fc:0-3,7,relu")
        ['conv1', 'fc:0-3,7', 'relu']
    """
    parts: list[str] = []
    for part in text.split(","):
        if parts and ":" in parts[-1] and _RANGE.fullmatch(part.strip()):
            parts[-1] += f",{part.strip()}"
        elif part.strip():
            parts.append(part.strip())
    return parts
