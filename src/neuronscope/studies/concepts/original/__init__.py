"""What the programs this study comes from leave behind, under their own names.

Three of them are followed: that of Harth (2022, "indres"), whose folder is named by the settings and holds the page of
units, its pictures, the history of the search and the table of results; the tally and the contributions of Mu and
Andreas (2020, "compexp"); and the table of ranges of La Rosa et al. (2023, "cce"). Everything is taken from the result,
so pictures exist of the units that have cards, and older results that lack a group lack its file.
"""

from __future__ import annotations

from pathlib import Path

from neuronscope.result import Result
from neuronscope.studies.concepts.original.cards import write_cards
from neuronscope.studies.concepts.original.parts import explained_layers, file_part, folder_name, layer_units
from neuronscope.studies.concepts.original.tables import further_tables, history_of, results_table

__all__ = ["ORIGINAL_FIGURES", "export_concepts", "folder_name"]

ORIGINAL_FIGURES: dict[str, str] = {}
"""File of the original -> figure here in its place: its pictures lie in its pages, which are written anew."""


def export_concepts(result: Result, folder: Path) -> list[Path]:
    """Write the files of the originals.

    For each layer, in a folder named by the settings as in `FL3_imrou75_X3_close` (with several layers, under a folder
    for each), with L and U the smallest and the largest unit:

    * `results_{L}_{U}.csv`: neuron, category, formula, threshold (one decimal); an empty formula where there is none.
    * `{L}_{U}.html` with `images_{L}_{U}/`: a card for each unit, best first; see `write_cards`.
    * `{layer}-{score}.svg`: the histogram of scores.
    * `history_{L}_{U}.txt`: candidates and beams, to go on from with `--jumpstart`.

    Beside these folders the tables of the other programs: `tally_{layer}.csv`,
    `{layer}_{clusters}_{length}_metrics.csv` where ranges were explained, `contrib_{part}.csv` and
    `accuracy_{layer}.csv` where these analyses were made; see `further_tables`.
    """
    layers = explained_layers(result)
    written = []
    for layer in layers:
        units = layer_units(result, layer)
        parent = folder / file_part(layer) if len(layers) > 1 else folder
        target = parent / folder_name(result.provenance.spec)
        target.mkdir(parents=True, exist_ok=True)
        table = target / f"results_{units.span}.csv"
        results_table(units).to_csv(table, index=False)
        written.append(table)
        if history := history_of(result, units):
            path = target / f"history_{units.span}.txt"
            path.write_text(history, encoding="utf-8")
            written.append(path)
        written += write_cards(result, units, target)
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in further_tables(result):
        path = folder / name
        frame.to_csv(path, index=False)
        written.append(path)
    return written
