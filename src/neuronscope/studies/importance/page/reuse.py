"""Which units the classes share in each layer, and whether the same class would choose its units again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from neuronscope.studies.importance.page.view import View, named, picked, texts
from neuronscope.units import UnitSet
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text

_UNIVERSAL, _NONE = 3, 0  # codes of `reuse_kind`
_RUNS = 40  # characters: longer lists of units are counted instead
_PROPORTION = (0.0, 1.0)


def reuse(view: View) -> Iterator[Block]:
    """Overlap between classes and within a class, by layer, beside what chance gives."""
    if view.reuse is None:
        return
    table, layers = view.reuse, texts(view.reuse["layer_name"])
    yield Section(
        "Reuse and specialisation",
        f"Sub-networks chosen by {view.first}. Specialised: different classes take different units. Reused: another "
        "half of the images of the same class takes the same units. Without the second, the first is only noise.",
    )
    if len(view.classes) < 2:  # noqa: PLR2004 nothing to compare
        yield Text("One class was asked for: there is no other to share units with.", tone="note")
    yield from _proportions(view, table, layers)
    yield from _agreement(view, table, layers)
    yield _table(view, table, layers)
    yield from _maps(view, table, layers)
    if len(view.classes) > 1:
        yield from _histograms(view, table, layers)
    yield from _kinds(view)


def _proportions(view: View, table: xr.Dataset, layers: tuple[str, ...]) -> Iterator[Block]:
    legacy = view.has("positional-overlap")
    across, up = Axis("layer", ticks=layers), Axis("proportion", limits=_PROPORTION)
    charts = (
        ("P_spec", "units shared by two classes", "mean_overlap", "positional_spec", "share_spec"),
        ("P_reuse", "units shared by two halves of one class", "within_overlap", "positional_reuse", "share_reuse"),
    )
    for name, title, honest, positional, share in charts:
        if legacy:
            series = [
                Series(shown, table[key].to_numpy())
                for key, shown in (
                    (positional, "same place in both lists"),
                    (share, "in both, over the layer's width"),
                    (f"on_{share}", "ON units in both, over the layer's width"),
                )
                if key in table
            ]
            text = "Deviation positional-overlap: as the original counts; no chance level is known for it."
        else:
            series = [Series("shared", table[honest].to_numpy())] if honest in table else []
            if "mean_expected" in table:
                series.append(Series("expected by chance", table["mean_expected"].to_numpy()))
            text = "Overlap: units in both over the smaller number; chance: random units of the same numbers."
        found = [one for one in series if np.isfinite(one.y).any()]
        if found and (legacy or len(found) > 1):
            yield Chart(name, f"{name}: {title}", "bar", tuple(found), across, up, text=text)
    if "within" not in table:
        yield Text(
            f"{view.first} cannot be asked again from halves of the images: P_reuse and the gap are unknown.",
            tone="note",
        )


def _agreement(view: View, table: xr.Dataset, layers: tuple[str, ...]) -> Iterator[Block]:
    series = []
    for key, title in (
        ("between", "between classes"),
        ("within", "within a class, halves"),
        ("gap", "gap: within minus between, both from halves"),
    ):
        if key in table and np.isfinite(table[key].to_numpy()).any():
            low, high = (
                table[f"{key}_{end}"].to_numpy() if f"{key}_{end}" in table else None for end in ("low", "high")
            )
            series.append(Series(title, table[key].to_numpy(), low=low, high=high))
    if not series:
        return
    yield Chart(
        "kappa",
        "Agreement beyond chance",
        "bar",
        tuple(series),
        Axis("layer", ticks=layers),
        Axis("kappa"),
        text=(
            "0: as random units agree, 1: the same units. Intervals for classes like these (jackknife); they need "
            "three classes."
        ),
    )
    if "gap_low" not in table:
        return
    low = table["gap_low"].to_numpy()
    known = np.isfinite(low)
    if len(view.classes) < 2:  # noqa: PLR2004 said above
        return
    if not known.any():
        yield Text("With fewer than three classes the gap has no interval.", tone="note")
        return
    apart = known & (low > 0)
    if apart.any():
        yield Text(
            f"Classes have units of their own in {named(picked(layers, apart))}: a class agrees more with itself than "
            "with others (gap above 0)."
        )
    if (known & ~apart).any():
        yield Text(
            f"In {named(picked(layers, known & ~apart))}, a class agrees no more with itself than with others, as far "
            "as can be told.",
            tone="note",
        )


def _table(view: View, table: xr.Dataset, layers: tuple[str, ...]) -> Table:
    columns: dict[str, object] = {"layer": layers}
    for key, title in (
        ("between", "kappa between"),
        ("within", "kappa within"),
        ("gap", "gap"),
        ("gap_low", "gap low"),
        ("gap_high", "gap high"),
        ("mean_overlap", "overlap"),
        ("mean_expected", "expected"),
        ("within_overlap", "overlap within"),
        ("mean_jaccard", "Jaccard"),
        ("between_low", "between low"),
        ("between_high", "between high"),
    ):
        if key in table:
            columns[title] = table[key].to_numpy()
    if "overlap_q" in table:
        upper = np.triu_indices(len(view.classes), 1)
        told = view.told(table["overlap_q"].to_numpy()[:, upper[0], upper[1]])
        columns["pairs above chance"] = [f"{int(row.sum())} of {len(row)}" for row in told]
    return Table(
        "reuse",
        "Shared units by layer",
        pd.DataFrame(columns),
        formats={name: ".3f" for name in columns if name not in ("layer", "pairs above chance")},
        help={
            "overlap": "units that two classes share over the smaller sub-network's, mean over pairs, 0 to 1",
            "expected": "the same for random units",
            "Jaccard": "units in both over units in either, mean over pairs, 0 to 1",
            "kappa between": "overlap beyond chance, over the most that is possible: 0 chance, 1 the same units",
            "between low": f"lower {view.level:.0%} limit for classes like these",
            "overlap within": "overlap of the units chosen from two halves of a class's images",
            "kappa within": "the same beyond chance",
            "gap": "kappa within minus kappa between, both from halves of the images",
            "pairs above chance": f"pairs of classes that share more units than random ones ({view.bound})",
        },
        text=f"Halves: mean over {int(table['halvings'])} ways to halve the selection images."
        if "within" in table
        else "",
    )


def _maps(view: View, table: xr.Dataset, layers: tuple[str, ...]) -> Iterator[Block]:
    k = len(view.classes)
    if k < 2 or "kappa" not in table:  # noqa: PLR2004 nothing to compare
        return
    charts = []
    for i, layer in enumerate(layers):
        kappa = table["kappa"].to_numpy()[i].copy()
        own = table["within_class"].to_numpy()[i] if "within_class" in table else np.full(k, np.nan)
        kappa[np.diag_indices(k)] = own
        order = table["order"].to_numpy()[i].astype(int) if "order" in table else np.arange(k)
        ticks = tuple(view.classes[c] for c in order)
        charts.append(
            Chart(
                f"kappa-{layer}",
                layer,
                "heatmap",
                (Series("kappa", kappa[np.ix_(order, order)]),),
                Axis("class", ticks=ticks),
                Axis("class", ticks=ticks),
                Axis("kappa", limits=(-1.0, 1.0)),
                diverging=True,
            )
        )
    diagonal = (
        "The diagonal is the class's agreement with itself, between halves of its images."
        if "within_class" in table
        else "A class's agreement with itself is unknown: the diagonal is left blank."
    )
    yield Panel(
        "kappa-maps",
        "Which classes share units",
        tuple(charts),
        columns=3 if k <= 12 else 2,  # noqa: PLR2004 fits the page
        scale="shared",
        text=f"Classes in the order of a clustering of each layer: those that share units stand together. {diagonal}",
    )


def _histograms(view: View, table: xr.Dataset, layers: tuple[str, ...]) -> Iterator[Block]:
    if "histogram" not in table:
        return
    edges = np.arange(len(view.classes) + 2) - 0.5
    yield Panel(
        "reuse-histograms",
        "In how many sub-networks a unit is",
        tuple(
            Chart(
                f"reuse-{layer}",
                layer,
                "histogram",
                (
                    Series("units", table["histogram"].to_numpy()[i].astype(np.float64), edges),
                    Series("expected of random units", table["histogram_expected"].to_numpy()[i], edges),
                ),
                Axis("classes that use the unit"),
                Axis("units"),
            )
            for i, layer in enumerate(layers)
        ),
        columns=2,
        text="Above chance at both ends: units are used by many classes or by none.",
    )


def _kinds(view: View) -> Iterator[Block]:
    if "reuse_kind" not in view.units or len(view.classes) < 2:  # noqa: PLR2004 one class shares nothing
        return
    kind = view.units["reuse_kind"].to_numpy()
    for code, words in (
        (_UNIVERSAL, "Universal units, in the sub-network of every class"),
        (_NONE, "Units in no class's sub-network"),
    ):
        found = kind == code
        if not found.any():
            yield Text(f"{words}: none.")
            continue
        parts = []
        for layer in view.layer_names:
            rows = view.of_layer(layer)
            own = view.index_of[rows[found[rows]]].astype(int)
            if len(own):
                runs = str(UnitSet(layer, len(rows), tuple(own.tolist())))
                parts.append(runs if len(runs) <= len(layer) + _RUNS else f"{layer}: {len(own)} of {len(rows)}")
        yield Text(f"{words}: {'; '.join(parts)}.")
