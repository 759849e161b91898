"""`neuronscope concepts`: look through images with concepts before units are explained with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from neuronscope.faces.cli import console, lists, options

BROKEN = 1

if TYPE_CHECKING:
    from neuronscope import ConceptOptions

app = typer.Typer(
    help="Look through images with human concepts in them.", no_args_is_help=True, rich_markup_mode="rich"
)

Sources = Annotated[
    list[str],
    typer.Argument(help="Images with concepts, as `--concepts` takes them; several are combined.", metavar="SOURCE..."),
]
Categories = Annotated[
    list[str] | None,
    typer.Option(
        "--categories", help="Only concepts of these, repeated or with commas.", metavar="TEXT,...", show_default="all"
    ),
]

OptionsOfSources = Annotated[
    list[str] | None,
    typer.Option(
        "--concept-options",
        help="Of the sources: subset=ade20k, ties=last, encoding=r+256g, crowd=skip, category=NAME.",
        metavar="NAME=VALUE,...",
        show_default="none",
    ),
]


@app.command(
    epilog=console.examples(
        "neuronscope concepts check digits",
        "neuronscope concepts check labelmaps:mine",
        "neuronscope concepts check broden:data/broden/broden1_224 --categories object,part --limit 500",
        "neuronscope concepts check coco:images,instances.json --fail-on warning",
    ),
)
def check(
    sources: Sources,
    *,
    categories: Categories = None,
    concept_options: OptionsOfSources = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="At most so many images.", metavar="INTEGER", show_default="all"),
    ] = None,
    side: Annotated[
        int | None,
        typer.Option(
            "--side",
            min=1,
            help="Height and width of the masks in pixels.",
            metavar="INTEGER",
            show_default="as they are",
        ),
    ] = None,
    images: Annotated[
        Literal["decode", "skip"],
        typer.Option("--images", help="Whether to decode the images, too, which takes most of the time."),
    ] = "decode",
    fail_on: Annotated[
        Literal["error", "warning"],
        typer.Option("--fail-on", help="What gives exit code 1: only what would stop a study, or a warning too."),
    ] = "error",
) -> None:
    """Read every annotation and image, count, and name everything that is wrong, by file."""
    from neuronscope import check_concepts

    report = check_concepts(
        sources,
        categories=_parts(categories),
        limit=limit,
        side=side,
        options=_of_sources(concept_options),
        images=images,
    )
    console.say(report.text())
    if report.errors if fail_on == "error" else report.problems:
        raise typer.Exit(BROKEN)


@app.command(
    "list",
    epilog=console.examples(
        "neuronscope concepts list digits",
        "neuronscope concepts list broden:data/broden/broden1_224 --categories texture --format csv",
    ),
)
def list_concepts(
    sources: Sources,
    *,
    categories: Categories = None,
    concept_options: OptionsOfSources = None,
    format: lists.FormatOption = "table",  # noqa: A002 named like its flag
) -> None:
    """The concepts of a set: number, name, category, whether pixels or whole images have them, in how many images."""
    from neuronscope import load_concepts

    found = load_concepts(sources, categories=_parts(categories), options=_of_sources(concept_options))
    lines = [
        {
            "number": one.number,
            "name": one.name,
            "category": one.category,
            "level": one.level,
            "images": "" if one.frequency is None else one.frequency,
        }
        for one in found.concepts
    ]
    title = f"{found.name}: {len(lines):,} concepts, {len(found):,} images"
    lists.show(lines, format=format, right=("number", "images"), title=title)
    if format == "table" and any(one.frequency is None for one in found.concepts):
        console.say("images are not counted in all sources: neuronscope concepts check counts them")


def _of_sources(texts: list[str] | None) -> ConceptOptions:
    """Options of the sources, from `NAME=VALUE`."""
    from neuronscope import concept_options

    return concept_options(_parts(texts) or [])


def _parts(texts: list[str] | None) -> list[str] | None:
    """What stands between commas, None where nothing was said."""
    return None if texts is None else [part for text in texts for part in options.split(text)]
