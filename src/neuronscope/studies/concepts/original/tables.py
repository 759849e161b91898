"""The originals' tables and histories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import xarray as xr

from neuronscope.errors import InputError
from neuronscope.maths.formulas import Formula, length, parse, text
from neuronscope.result import Result
from neuronscope.studies.concepts.history import unit_text
from neuronscope.studies.concepts.original.parts import LayerUnits, explained_layers, file_part, group, layer_units

_CONTRIBUTIONS = "contributions_"
_COMPEXP = {"correlation": "feat_corr", "overlap": "act_iou"}
"""Names of compexp for what `contrib.pkl` holds under them; `weight` is called so there too."""

_MEANINGS = ("emb_summary", "emb_summary_sim", "wn_summary", "wn_summary_sim")
_SIMILARITIES = ("wn_mean_sim", "wn_min_sim", "wn_max_sim", "consistency")


def results_table(units: LayerUnits) -> pd.DataFrame:
    """Neuron, category, formula and threshold, as indres rounds it."""
    return pd.DataFrame(
        {
            "neuron": units.numbers,
            "category": units.texts("category"),
            "formula": units.texts("formula"),
            "threshold": units.get("threshold").round(1),
        }
    )


def history_of(result: Result, units: LayerUnits) -> str:
    """Candidates and beams of a layer's units; empty where the result kept none.

    Thresholds are those of the units unless the beam has its own. Formulas are written as the result names them.
    """
    kept = group(result, "history")
    if kept is None or "beam_formula" not in kept:
        return ""
    formulas, scores = kept["beam_formula"].to_numpy(), kept["beam_score"].to_numpy()
    thresholds = np.broadcast_to(units.get("threshold")[:, None, None], (len(units.rows), *scores.shape[1:]))
    if "beam_threshold" in kept:
        thresholds = kept["beam_threshold"].to_numpy()[units.rows]
    candidates = next((kept[name].to_numpy() for name in ("candidate", "candidate_label") if name in kept), None)
    blocks = []
    for place, row in enumerate(units.rows.tolist()):
        beams = {}
        for number, words in enumerate(formulas[row], start=1):
            there = [rank for rank, one in enumerate(words) if str(one)]
            if there:
                beams[number] = [
                    (str(words[rank]), float(scores[row, number - 1, rank]), float(thresholds[place, number - 1, rank]))
                    for rank in there
                ]
        labels = [] if candidates is None else [str(name) for name in candidates[row] if str(name)]
        blocks.append(unit_text(int(units.numbers[place]), labels, beams))
    return "".join(blocks)


def further_tables(result: Result) -> Iterator[tuple[str, pd.DataFrame]]:
    """File names and tables of compexp and cce.

    * `tally_{layer}.csv`: see `tally`.
    * `{layer}_{clusters}_{length}_metrics.csv`: unit, range, its limits, formula, `iou` on the held-out images, and
      what else is known of it.
    * `contrib_{part}.csv`, in place of `contrib.pkl`: a row for each pair of units, or of a class (`of`) and a unit
      (`by`), with compexp's `weight`, `feat_corr` and `act_iou`, and `contributor`: 1, -1 (inhibitor) or 0.
    * `preds.csv`: predicted class, true class, and 0 or 1 for each unit that fires, a row for each labelled image;
      where the result keeps it (up to 20 million entries).
    * `accuracy_{layer}.csv`: what compexp works out from it: the accuracy on the images where a unit is active.
      `accuracy.csv` has what is not of one unit.
    """
    for layer in explained_layers(result):
        units = layer_units(result, layer)
        yield f"tally_{file_part(layer)}.csv", tally(units, group(result, "concepts"))
        ranges = group(result, "ranges")
        if ranges is not None and "range" in ranges.sizes:
            name = f"{file_part(layer)}_{ranges.sizes['range']}_{units.spec['length']}_metrics.csv"
            yield name, _metrics(units, ranges)
        accuracy = group(result, "accuracy")
        if accuracy is not None and "unit" in accuracy.sizes:
            yield f"accuracy_{file_part(layer)}.csv", _accuracy(units, accuracy)
    accuracy = group(result, "accuracy")
    if accuracy is not None:
        single = {str(name): values.item() for name, values in accuracy.data_vars.items() if not values.dims}
        if "fired" in accuracy:
            yield "preds.csv", _predictions(accuracy)
        if single:
            yield "accuracy.csv", pd.DataFrame({"quantity": list(single), "value": list(single.values())})
    for name in result.tree.children:
        if name.startswith(_CONTRIBUTIONS):
            pairs = result.tree[name].to_dataset()
            yield f"contrib_{file_part(name.removeprefix(_CONTRIBUTIONS))}.csv", _contributions(pairs)


def _predictions(accuracy: xr.Dataset) -> pd.DataFrame:
    """Predicted and true class of each image, and which units fire on it."""
    fired = accuracy["fired"].transpose("image", "unit").to_numpy()
    layers, numbers = accuracy["layer"].to_numpy().astype(str), accuracy["index"].to_numpy()
    several = len(set(layers.tolist())) > 1
    names = [f"{layer}:{unit}" if several else str(unit) for layer, unit in zip(layers, numbers, strict=True)]
    table = pd.DataFrame(fired, columns=names)
    table.insert(0, "target", accuracy["target"].to_numpy())
    table.insert(0, "pred", accuracy["pred"].to_numpy())
    return table


def tally(units: LayerUnits, concepts: xr.Dataset | None) -> pd.DataFrame:
    """The tally of compexp: formula and best single concept of each unit, with their scores on the images searched.

    Units are numbered from 0. `category` is the formula with the categories in place of the names; `length` counts
    negations. The columns of word embeddings and WordNet (`emb_...`, `wn_...`, `consistency`) are there and empty:
    they need word lists that are no part of a result. Where names do not tell labels apart, formulas stay in the
    notation of the report.
    """
    names, categories = _named(concepts)
    words = units.texts("formula")
    alone = [str(row[0]) for row in units.table["best_formula"].to_numpy()] if "best_formula" in units.table else []
    scores = units.table["best_score"].to_numpy()[:, 0] if "best_score" in units.table else np.nan
    formulas = [_read(one, names) for one in words]
    single = [_read(one, names) for one in alone or [""] * len(words)]
    lengths = units.get("formula_length").copy()
    label, category = words, units.texts("category")
    for place, formula in enumerate(formulas):
        if formula is not None:
            label[place] = text(formula, names, style="compexp")
            category[place] = text(formula, categories, style="compexp")
            lengths[place] = length(formula, convention="compexp")
    empty = dict.fromkeys((*_MEANINGS, *_SIMILARITIES), "")
    return pd.DataFrame(
        {
            "unit": units.numbers,
            "category": category,
            "label": label,
            "score": units.get("score"),
            "length": pd.array(lengths, dtype="Int64"),
            **empty,
            "category_noncomp": ["" if one is None else text(one, categories, style="compexp") for one in single],
            "label_noncomp": alone or "",
            "score_noncomp": scores,
        }
    )


def _named(concepts: xr.Dataset | None) -> tuple[dict[int, str], dict[int, str]]:
    """Name and category of each label number; nothing where names do not tell labels apart."""
    if concepts is None:
        return {}, {}
    numbers = concepts["number"].to_numpy().tolist()
    names = [str(name) for name in concepts["concept_name"].to_numpy()]
    if len(set(names)) < len(names):
        return {}, {}
    categories = [str(name) for name in concepts["category"].to_numpy()]
    return dict(zip(numbers, names, strict=True)), dict(zip(numbers, categories, strict=True))


def _read(words: str, names: Mapping[int, str]) -> Formula | None:
    """A formula; None where there is none or it cannot be read."""
    if not words:
        return None
    try:
        return parse(words, {number: name for number, name in names.items() if name in words})
    except InputError:  # a name that reads like an operator
        return None


def _metrics(units: LayerUnits, ranges: xr.Dataset) -> pd.DataFrame:
    own = ranges.isel(unit=units.rows)
    count = own.sizes["range"]
    columns: dict[str, object] = {
        "unit": np.repeat(units.numbers, count),
        "range": np.tile(np.arange(count), len(units.numbers)),
    }
    first = ["lower", "upper", "formula", "held_out"]
    found = [str(name) for name, values in own.data_vars.items() if values.dims == ("unit", "range")]
    for name in sorted(found, key=lambda name: first.index(name) if name in first else len(first)):
        columns["iou" if name == "held_out" else name] = own[name].to_numpy().ravel()
    return pd.DataFrame(columns)


def _accuracy(units: LayerUnits, accuracy: xr.Dataset) -> pd.DataFrame:
    found = {str(name): values for name, values in accuracy.data_vars.items() if values.dims == ("unit",)}
    columns = {name: values.to_numpy()[units.rows] for name, values in found.items()}
    return pd.DataFrame({"unit": units.numbers, "iou": units.get("held_out"), **columns})


def _contributions(pairs: xr.Dataset) -> pd.DataFrame:
    of, by = pairs.sizes["of"], pairs.sizes["by"]

    def called(axis: str) -> np.ndarray:
        name = f"{axis}_name"
        return pairs[name].to_numpy().astype(str) if name in pairs.variables else np.arange(pairs.sizes[axis])

    columns: dict[str, np.ndarray] = {"of": np.repeat(called("of"), by), "by": np.tile(called("by"), of)}
    for name, values in pairs.data_vars.items():
        if values.dims == ("of", "by"):
            columns[_COMPEXP.get(str(name), str(name))] = values.to_numpy().ravel()
    return pd.DataFrame(columns)
