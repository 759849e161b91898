"""`neuronscope data`: look at a set of images, and put a flat ImageNet folder in order."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuronscope.faces.cli import console

app = typer.Typer(help="Look at images and put them in order.", no_args_is_help=True, rich_markup_mode="rich")


@app.command(
    "sort-imagenet",
    epilog=console.examples(
        "neuronscope data sort-imagenet path/to/val path/to/labels.csv --dry-run",
        "neuronscope data sort-imagenet path/to/val",
    ),
)
def sort(
    folder: Annotated[Path, typer.Argument(help="Folder of validation images, or with a sub-folder images/.")],
    labels: Annotated[
        Path | None,
        typer.Argument(help="Label file; found by itself when it lies beside the images.", show_default=False),
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be moved.")] = False,
) -> None:
    """Sort a flat ImageNet folder into class sub-folders, once and safely repeatable."""
    from neuronscope import sort_imagenet

    done = sort_imagenet(folder, labels=labels, action="plan" if dry_run else "move")
    console.say(f"{'would move' if dry_run else 'moved'}  {len(done.moved):,} images into class sub-folders")
    console.say(f"in place already  {len(done.already):,}")
    for what, names in (
        ("in the label file, but not in the folder", done.missing),
        ("without a label", done.unlabelled),
    ):
        if names:
            console.warn(f"{len(names):,} images are {what}, first {names[0]}")


@app.command(
    epilog=console.examples(
        "neuronscope data show digits",
        "neuronscope data show imagenet:path/to/val",
        "neuronscope data show mnist:path/to/mnist --split train",
    ),
)
def show(
    source: Annotated[str, typer.Argument(help="The images, as NAME:PATH.")],
    *,
    split: Annotated[str | None, typer.Option("--split", help="Which part of them.", show_default=False)] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="A label file that lies elsewhere.", show_default=False)
    ] = None,
) -> None:
    """A set of images: name, number, classes with counts, fingerprint."""
    from neuronscope import class_counts, load_data

    data = load_data(source, split=split, labels=labels)
    console.say(f"name         {data.name}")
    console.say(f"images       {len(data):,}")
    console.say(f"fingerprint  {data.fingerprint}")
    console.say(
        f"classes      {len(data.classes):,}" if data.classes else "classes      none: the images have no labels"
    )
    counts: list[int] = class_counts(data).tolist() if data.classes else []
    present = [
        (str(row), name, f"{count:,}")
        for row, (name, count) in enumerate(zip(data.classes, counts, strict=True))
        if count
    ]
    if present:
        console.rows("", ("number", "class", "images"), present, right=("number", "images"))
    missing = len(data.classes) - len(present)
    if missing:
        console.say(f"{missing:,} classes have no image here")
