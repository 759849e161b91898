"""`neuronscope paste`: lay an object over an image, and see what the network then takes the image for.

A formula says which concepts a unit detects; pasting one of them where it does not belong is the test of what that
means for the network's answers. Controls that show no object, over the same pixels, tell an effect from chance.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from neuronscope import (
    DataError,
    Gallery,
    InputError,
    Page,
    PasteTrials,
    Picture,
    Placement,
    Strip,
    Subject,
    Table,
    cut_out,
    find_class,
    grid_for,
    opaque_pixels,
    read_image,
    try_pastes,
)
from neuronscope.faces.cli import console, options
from neuronscope.faces.cli.making import make_run, make_subject
from neuronscope.faces.cli.options import Option
from neuronscope.faces.figures import save_figures
from neuronscope.faces.outputs import prepare_folder
from neuronscope.faces.tables import write_tables

TOP = 5
"""Classes shown for each picture."""
SHOWN = 12
"""Most pictures of one size on the contact sheet."""
PICTURE = 112
"""Most pixels of a side of a picture on the contact sheet."""
EXAMPLES = (
    "neuronscope paste snow.jpg dog.jpg --mask dog.png -m torchvision:resnet18 -w DEFAULT --target sled --out runs/x",
    "neuronscope paste corridor.jpg igloo.jpg -m file:places.pt --class-names names.txt --at 50,-50 --side 168",
)

_KINDS = {"object": "the object", "shuffled": "control: its pixels shuffled", "grey": "control: plain grey"}

_OWN = (
    Option("mask", "A picture of the object's size, bright where the object is.", type=Path, default="all of OBJECT"),
    Option("class_names", "A text file with the name of one class in a line, in the network's order.", type=Path),
    Option("target", "The class that counts as success, by name or number.", default="none"),
    Option("grid", "Try 6 x 6 places and 6 sides.", type=bool, default="where --at is not given"),
    Option(
        "at",
        "X,Y of the object's upper left corner, in pixels right of and below that of the network's input.",
        type=int,
        many=True,
    ),
    Option("side", "Pixels of the object's longer side, for --at.", type=int, default="half of the input's"),
)
_RUN = options.chosen(options.RUN, "out", "seed", "batch_size", "device", "dtype", "threads", "workers")

_ARGUMENTS = {
    "image": (Path, "The image that is pasted onto."),
    "object": (Path, "The picture of the object."),
}


def paste_options() -> tuple[Option, ...]:
    """All options of the command: network and run as for a study."""
    own = tuple(_in_panel(one) for one in _OWN)
    return (*options.MODEL, *own, *_RUN, options.QUIET)


def make_app() -> typer.Typer:
    """The command."""
    app = typer.Typer(rich_markup_mode="rich", add_completion=False)
    described = app.command(
        "paste",
        help="Paste an object onto an image, at many places and sizes, and count what the network then sees.",
        epilog=console.examples(*EXAMPLES),
        no_args_is_help=True,
    )
    described(_command())
    return app


def _command() -> Any:
    flags = paste_options()

    def command(image: Path, object: Path, **values: Any) -> None:  # noqa: A002 named as in its help
        def run(given: Mapping[str, Any]) -> None:
            run_paste(image, object, given)

        options.with_options(run, flags)(**values)

    arguments = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            annotation=Annotated[kind, typer.Argument(help=help, show_default=False, metavar=name.upper())],
        )
        for name, (kind, help) in _ARGUMENTS.items()  # noqa: A001 Typer's word
    ]
    keywords = options.signature(flags).parameters.values()
    command.__signature__ = inspect.Signature([*arguments, *keywords])  # type: ignore[attr-defined]  # read by Typer
    command.__annotations__ = {}
    return command


def _in_panel(option: Option) -> Option:
    from dataclasses import replace

    return replace(option, panel="Pasting")


def run_paste(image: Path, object: Path, flags: Mapping[str, Any]) -> PasteTrials:  # noqa: A002 as in its help
    """Paste, say what the network sees, and write table and pictures where a folder was named.

    Raises:
        NeuronscopeError: a file, name or number that cannot be.
    """
    quiet = bool(flags.get("quiet"))
    tables = {option.key: option.table for option in paste_options()}
    below, above = read_image(image), read_image(object)
    mask = opaque_pixels(read_image(flags["mask"])) if "mask" in flags else None
    patch = cut_out(above, mask)
    folder = prepare_folder(flags["out"]) if "out" in flags else None
    model = {key: value for key, value in flags.items() if tables[key] == "model"}
    if "class_names" in flags:
        model["classes"] = read_class_names(flags["class_names"])
    run = make_run({key: flags[key] for key in flags if tables[key] == "run"}, progress=console.progress(quiet=quiet))
    subject = make_subject(model, progress=console.progress(quiet=quiet, what="bytes"))
    target = find_class(subject, flags["target"]) if "target" in flags else None
    places, single = placements_of(flags, subject)
    trials = try_pastes(subject, below, patch, object_image=above, placements=places, target=target, run=run)
    if not quiet:
        say_classes(trials, names=(image.name, object.name), single=single)
    say_counts(trials)
    if folder is not None:
        page = page_of(trials, names=(image.name, object.name))
        for path in (*write_tables(page, folder), *save_figures(page, folder, formats=("png",))):
            console.say(str(path.resolve()))
    return trials


def placements_of(flags: Mapping[str, Any], subject: Subject) -> tuple[tuple[Placement, ...], bool]:
    """Where to paste, and whether the first place is one that was asked for by itself.

    Raises:
        InputError: not two numbers, a side below 1, or a side without a place.
    """
    least = min(subject.input_shape[1:])
    if "side" in flags and "at" not in flags:
        message = (
            f"--side {flags['side']} is the size at one place, and no place was given. Add --at X,Y, or leave it out"
        )
        raise InputError(message)
    if "at" not in flags:
        return grid_for(least), False
    at, side = flags["at"], flags.get("side", max(1, least // 2))
    if len(at) != 2:  # noqa: PLR2004 x and y
        message = f"--at takes two whole numbers, X,Y, got {len(at)}: {','.join(map(str, at))}. Write --at 50,-50"
        raise InputError(message)
    if side < 1:
        message = f"--side takes the pixels of the object's longer side, at least 1, got {side}. Give a larger side"
        raise InputError(message)
    one = Placement(at[0], at[1], side)
    return (one, *(grid_for(least) if flags.get("grid") else ())), True


def read_class_names(path: Path) -> tuple[str, ...]:
    """The class names in a text file: a line each; a WordNet number before a name, as in `n01440764 tench`, is dropped.

    Raises:
        DataError: the file cannot be read, or holds no name.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else "it is no UTF-8 text"
        message = (
            f"cannot read class names from {path}: {reason}. Expected a text file with the name of a class in a line"
        )
        raise DataError(message) from cause
    names = tuple(_without_number(line.strip()) for line in lines if line.strip())
    if not names:
        message = f"{path} holds no class names: expected the name of a class in each line. Give another file"
        raise DataError(message)
    return names


def _without_number(line: str) -> str:
    return re.sub(r"^n\d{8}\s+", "", line)


def say_classes(trials: PasteTrials, *, names: tuple[str, str], single: bool) -> None:
    """The classes that the network sees in image, object and pasted picture."""
    best = 0 if single else trials.ranked()[0]
    where = trials.placements[best]
    pictures = [
        (f"image {names[0]}", trials.image_logits),
        (f"object {names[1]}", trials.object_logits),
        (f"pasted at {where.x},{where.y}, side {where.side}", trials.logits[0, best]),
    ]
    for title, logits in pictures:
        chance = _chance(logits)
        order = np.argsort(-logits, kind="stable")[:TOP].tolist()
        asked = [trials.target] if trials.target is not None and trials.target not in order else []
        lines = [
            (str(one), trials.classes[one], f"{logits[one]:.2f}", f"{chance[one]:.3f}", _mark(trials, one))
            for one in (*order, *asked)
        ]
        console.rows(
            title, ("number", "class", "logit", "probability", ""), lines, right=("number", "logit", "probability")
        )
        console.say()


def say_counts(trials: PasteTrials) -> None:
    """Successes and failures, in total and by size, beside the controls."""
    if trials.target is None:
        title = "no --target: nothing counts as success"
    else:
        title = f"success: seen as '{trials.classes[trials.target]}'"
    lines = []
    for kind, name in _KINDS.items():
        lines.append((name, "all", *_cells(trials, kind, None)))
        lines += [("", str(side), *_cells(trials, kind, side)) for side in trials.sides if len(trials.sides) > 1]
    columns = ("pasted", "side", "success", "partial", "failure", "share of success (95 %)")
    console.rows(title, columns, lines, right=columns[1:])
    unseen = int((trials.visible == 0).sum())
    if unseen:
        console.say(f"{unseen} of {len(trials.placements)} places show nothing of the object: they count as failures")


def _cells(trials: PasteTrials, kind: Any, side: int | None) -> tuple[str, ...]:
    counts = trials.counts(kind, side=side)
    if trials.target is None:
        return ("-", str(counts["partial"]), str(counts["failure"]), "-")
    share, low, high = trials.success(kind, side=side)
    return (*(str(count) for count in counts.values()), f"{share:.3f} ({low:.3f} to {high:.3f})")


def page_of(trials: PasteTrials, *, names: tuple[str, str]) -> Page:
    """The table of all pictures, and the contact sheet."""
    title = f"{names[1]} on {names[0]}"
    return Page(title, "", (Table("results", title, trials.table()), contact_sheet(trials, names=names)))


def contact_sheet(trials: PasteTrials, *, names: tuple[str, str]) -> Gallery:
    """The successes by size, likeliest first; where there are none, what came closest."""
    outcomes, order = trials.outcomes("object"), trials.ranked()
    chosen = [i for i in order if outcomes[i] == "success"]
    note = ""
    if not chosen:
        chosen = [i for i in order if trials.visible[i] > 0][:SHOWN]
        note = "no success; what came closest" if trials.target is not None else "no target; what changed most surely"
    strips = [
        Strip(
            "alone",
            [
                Picture(_small(trials.frame), f"image: {_seen(trials, trials.image_logits)}"),
                Picture(_small(_on_grey(trials)), f"object: {_seen(trials, trials.object_logits)}"),
            ],
        )
    ]
    for side in trials.sides:
        of_side = [i for i in chosen if trials.placements[i].side == side]
        if of_side:
            more = f"{len(of_side)} of {sum(one.side == side for one in trials.placements)} places"
            strips.append(Strip(f"side {side}", [_picture(trials, i) for i in of_side[:SHOWN]], note=note or more))
    target = "" if trials.target is None else f", target {trials.classes[trials.target].partition(',')[0]}"
    success, low, high = trials.success("object")
    text = note
    if trials.target is not None:
        control = trials.success("shuffled")
        text = (
            f"{trials.counts('object')['success']} of {len(trials.placements)} placements succeed ({success:.1%}, 95 % "
            f"interval {low:.1%} to {high:.1%}); with its pixels shuffled {control[0]:.1%} ({control[1]:.1%} to "
            f"{control[2]:.1%}), with plain grey {trials.success('grey')[0]:.1%}"
        )
    key = "below: place x,y; the class that is seen, with its probability"
    return Gallery("successes", f"{names[1]} on {names[0]}{target}", strips, scale=1, key=key, text=text)


def _picture(trials: PasteTrials, number: int) -> Picture:
    one, logits = trials.placements[number], trials.logits[0, number]
    success = trials.outcomes("object")[number] == "success"
    caption = f"{one.x},{one.y}: {_seen(trials, logits)}"
    if trials.target is not None and not success:
        caption += f", target {_chance(logits)[trials.target]:.2f}"
    return Picture(_small(trials.picture(number)), caption, tone="good" if success else "plain")


def _on_grey(trials: PasteTrials) -> Any:
    """The object as it was cut out, on light grey."""
    patch = trials.patch
    return patch.pixels.where(patch.mask, patch.pixels.new_tensor(225))


def _small(image: Any) -> np.ndarray:
    """A picture of at most `PICTURE` pixels a side, channels last."""
    from PIL import Image

    pixels = image.movedim(0, -1).numpy()
    picture = Image.fromarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)
    picture.thumbnail((PICTURE, PICTURE), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _seen(trials: PasteTrials, logits: np.ndarray) -> str:
    best = int(logits.argmax())
    return f"{trials.classes[best].partition(',')[0]} {_chance(logits)[best]:.2f}"


def _mark(trials: PasteTrials, number: int) -> str:
    roles = ((trials.target, "target"), (trials.image_class, "the image's"), (trials.object_class, "the object's"))
    return ", ".join(name for one, name in roles if one == number)


def _chance(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())
