"""`neuronscope select-units`: units worth a closer look, from finished runs, as a file for `--segments`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuronscope.faces.cli import console

if TYPE_CHECKING:
    from neuronscope import Segment, Selection

EXAMPLES = console.examples(
    "neuronscope select-units runs/set1 --out units.json",
    "neuronscope select-units runs/set1 runs/set2 --segments alexnet --out units.json",
    "neuronscope select-units runs/set1 --values first,shapley --top 2 --above 0.1 --factors erasing,rolling",
    "neuronscope select-units runs/set1 --segments my-segments.json --layers features.5 --out units.json",
)


def select_units(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of finished runs of the study sensitivity, all of one network; reasons of several are joined."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; an older one is replaced.")] = Path(
        "units.json"
    ),
    segments: Annotated[
        str,
        typer.Option(
            "--segments",
            help="Pieces of the network to choose units of: alexnet, resnet18, or a JSON file. Units are chosen of "
            "layers that a piece ends with; its own units are replaced.",
            show_default="the preset of the network's name; else each layer alone, which suits blocks and convolutions",
        ),
    ] = "",
    values: Annotated[
        str,
        typer.Option(
            "--values",
            help="Shares of the variance to choose by: first, total, second (pairs of factors), shapley.",
            show_default="all that the runs have",
        ),
    ] = "",
    factors: Annotated[
        str, typer.Option("--factors", help="Only for these factors; pairs are of two of them.", show_default="all")
    ] = "",
    layers: Annotated[
        str, typer.Option("--layers", help="Only of these layers.", show_default="all that end a piece")
    ] = "",
    top: Annotated[int, typer.Option("--top", min=1, help="Most units of a layer for one value and factor.")] = 4,
    above: Annotated[
        float,
        typer.Option(
            "--above", min=0, max=1, help="The share must surely be above this: by its interval, and by its q-value."
        ),
    ] = 0.02,
) -> None:
    """Choose units of a network that surely react to something, and write them with the reasons.

    For every layer, value and factor those with the largest share of the variance are chosen, of all whose interval
    lies above the limit and whose q-value says so too (Benjamini-Yekutieli, over the layers, units and factors of a
    value): of all that pass at most 5 % are expected to be noise, with intervals of 95 %. Reasons have the names of the
    original: si, siT, si2, shpv.

    The largest of many shares are too large by chance: look at the chosen units with other images or another seed, as
    in neuronscope run sensitivity --segments units.json --seed 1.
    """
    import neuronscope as ns
    from neuronscope.faces.cli.options import split

    results = [ns.open(folder) for folder in runs]
    pieces = _pieces(segments, results[0].provenance.subject)
    chosen = ns.select_units(
        results,
        segments=pieces,
        values=split(values),
        factors=split(factors),
        layers=split(layers),
        top=top,
        above=above,
    )
    ns.write_segments(out, chosen.segments)
    say_selection(chosen, above=above)
    console.say(str(out.resolve()))


def _pieces(segments: str, network: str) -> Sequence[Segment] | None:
    """The pieces that were named, or the preset of the network's name; None for single layers.

    Raises:
        InputError: the preset of another network, or a file that is none.
    """
    from neuronscope import SEGMENTS, InputError, read_segments

    source, _, name = network.rpartition(":")
    if segments in SEGMENTS and source == "torchvision" and name != segments:
        message = (
            f"--segments {segments} is of the network {segments}, and the results are of {network}. Give a JSON file "
            "with segments of this network, or leave it out"
        )
        raise InputError(message)
    if segments:
        return SEGMENTS[segments] if segments in SEGMENTS else read_segments(segments)
    return SEGMENTS.get(name)


def say_selection(chosen: Selection, *, above: float) -> None:
    """How many shares there were, how many passed, what was chosen, and why."""
    counts = [
        (
            str(row.layer), str(row.value), str(row.set), f"{row.tests:,}", f"{row.above:,}", f"{row.by_chance:,.0f}",
            f"{row.told:,}", f"{row.reasons:,}", f"{row.units:,}",
        )
        for row in chosen.counts.itertuples()
    ]  # fmt: skip
    columns = ("layer", "value", "set", "shares", "interval", "by chance", "q-value too", "reasons", "units")
    console.rows(f"shares of the variance surely above {above:g}", columns, counts, right=columns[2:])
    console.say("by chance: as many intervals as noise alone puts above the limit at most, if no share is above it")
    console.say()
    layers = [segment.modules[-1] for segment in chosen.segments]
    table = chosen.reasons.groupby(["variable", "layer"], sort=False).size().unstack(fill_value=0)
    table = table[layers].assign(all=lambda own: own.sum(axis=1)).sort_values("all", ascending=False, kind="stable")
    lines = [
        (str(name), *(f"{count:,}" for count in row)) for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    console.rows("reasons by factor", ("factor", *layers, "all"), lines, right=(*layers, "all"))
    console.say()
    if chosen.left_out:
        console.say(f"left out, as no piece of the network ends there: {', '.join(chosen.left_out)}")
    without = sorted(set(chosen.counts["layer"]) - set(layers))
    if without:
        console.warn(f"nothing was chosen of {', '.join(without)}")
    units = sum(len(segment.units or ()) for segment in chosen.segments)
    console.say(
        f"chosen: {units:,} units in {len(chosen.segments)} pieces for {len(chosen.reasons):,} reasons. The largest of "
        "many shares are too large by chance: estimate these units again, with other images or another seed"
    )
