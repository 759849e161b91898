"""The units themselves: scores beside what silencing each one alone really does; masking's own networks; games."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Float

from neuronscope.maths.ranks import normal_quantile, spearman
from neuronscope.studies.importance.page.view import View, named, number, picked, texts
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text

_TOP = 5  # units of each layer and class in the table
_SCATTER_RULES, _SCATTER_LAYERS = 3, 4  # pictures of how well a rule predicts; the table has all
_BARS = 12  # units of a game's chart
_GAMES = 12  # classes with a chart of their own


def units(view: View) -> Iterator[Block]:
    """The best units of every class, and how well each rule's scores predict what silencing does."""
    yield Section(
        "Units",
        "Scores are of each rule's own unit of measure and comparable within a layer only. Silencing single units is "
        "exact, but one unit alone may be replaced by others: many falls near 0 do not make a layer unimportant.",
    )
    yield _top_units(view)
    layers = _ablated(view)
    if not layers:
        yield Text("No layer's units were silenced one by one (--ablate).", tone="note")
        return
    yield from _single_falls(view, layers)
    yield from _prediction(view, layers)


def _ablated(view: View) -> list[str]:
    if "logit_fall" not in view.units:
        return []
    known = np.isfinite(view.units["logit_fall"].to_numpy()).any(axis=1)
    return [layer for layer in view.layer_names if known[view.of_layer(layer)].any()]


def _top_units(view: View) -> Table:
    score, member = view.units["score"].to_numpy(), view.units["member"].to_numpy()
    rows: list[int] = []
    classes: list[int] = []
    ranks: list[int] = []
    for place in range(len(view.classes)):
        for layer in view.layer_names:
            own = view.of_layer(layer)
            own = own[np.isfinite(score[own, 0, place])]
            best = own[np.argsort(-score[own, 0, place], kind="stable")[:_TOP]]
            rows += best.tolist()
            classes += [place] * len(best)
            ranks += list(range(1, len(best) + 1))
    at, k = np.array(rows, dtype=np.int64), np.array(classes, dtype=np.int64)
    columns: dict[str, object] = {
        "class": [view.classes[c] for c in classes],
        "layer": view.layer_of[at],
        "unit": view.index_of[at],
        "rank": ranks,
    }
    columns |= {rule: score[at, r, k] for r, rule in enumerate(view.rules)}
    columns |= {title: view.units[name].to_numpy()[at, k] for name, title in _FALLS.items() if name in view.units}
    columns["chosen by"] = member[at, :, k].sum(axis=1)
    if "reuse" in view.units:
        columns["classes"] = view.units["reuse"].to_numpy()[at]
    if "class_mean" in view.units:
        columns["class mean"] = view.units["class_mean"].to_numpy()[at, k]
    columns |= {title: view.units[name].to_numpy()[at, k] for name, title in _LIMITS.items() if name in view.units}
    frame = pd.DataFrame(columns)
    return Table(
        "top-units",
        f"The {_TOP} best units of every class and layer, by {view.first}",
        frame,
        formats={name: ".2g" for name in frame.columns if name.endswith(" q")}
        | {name: ".3f" for name in frame.columns if name.startswith("accuracy fall") and not name.endswith(" q")},
        help={
            "rank": f"within class and layer, by {view.first}",
            **dict.fromkeys(view.rules, "the rule's score for the class; larger is more important"),
            "chosen by": f"number of rules, of {len(view.rules)}, that put the unit into the class's sub-network",
            "classes": f"number of classes whose sub-network the unit is in ({view.first})",
            "class mean": "mean activation on the selection images of the class",
            "logit fall": "fall of the class's logit on its report images when the unit alone is silenced",
            "logit fall low": f"lower {view.level:.0%} limit over the images",
            "logit fall q": "of no change, corrected for all units and classes",
            "accuracy fall": "fall of the class's accuracy when the unit alone is silenced, -1 to 1",
            "accuracy fall q": "of as many images gained as lost (McNemar), corrected for all units and classes",
        },
        text="Falls are empty in layers whose units were not silenced one by one.",
    )


_FALLS = {
    "logit_fall": "logit fall",
    "logit_fall_q": "logit fall q",
    "accuracy_fall": "accuracy fall",
    "accuracy_fall_q": "accuracy fall q",
}
_LIMITS = {
    "logit_fall_low": "logit fall low",
    "logit_fall_high": "logit fall high",
    "accuracy_fall_low": "accuracy fall low",
    "accuracy_fall_high": "accuracy fall high",
}


def _single_falls(view: View, layers: list[str]) -> Iterator[Block]:
    """How many single units matter at all, by layer."""
    rows = []
    for layer in layers:
        own = view.of_layer(layer)
        row: dict[str, object] = {"layer": layer, "units": len(own), "pairs": len(own) * len(view.classes)}
        for name, title in (("logit_fall", "logit"), ("accuracy_fall", "accuracy")):
            if name in view.units and f"{name}_q" in view.units:
                fall, told = view.units[name].to_numpy()[own], view.told(view.units[f"{name}_q"].to_numpy()[own])
                row[f"{title} falls"] = int((told & (fall > 0)).sum())
                row[f"{title} rises"] = int((told & (fall < 0)).sum())
                row[f"largest {title} fall"] = float(np.nanmax(fall))
        rows.append(row)
    yield Table(
        "single-units",
        "Units silenced one by one",
        pd.DataFrame(rows),
        help={
            "pairs": "units x classes",
            "logit falls": f"pairs in which the class's logit falls ({view.bound})",
            "logit rises": f"pairs in which it rises ({view.bound}): the unit speaks against the class",
            "accuracy falls": f"pairs in which the class's accuracy falls ({view.bound})",
            "largest accuracy fall": "-1 to 1",
        },
    )
    lost = [row for row in rows if not row.get("accuracy falls", 1)]
    if lost:
        yield Text(
            f"No single unit of {named(str(row['layer']) for row in lost)} takes accuracy from a class that could be "
            "told from chance: the others make up for it, or there are too few images.",
            tone="note",
        )


def _prediction(view: View, layers: list[str]) -> Iterator[Block]:
    """Each rule's scores against the exact fall of the logit: rank correlations, and pictures of the first rules."""
    score, fall = view.units["score"].to_numpy(), view.units["logit_fall"].to_numpy()
    rows, said, rhos = [], [], {}
    for layer in layers:
        own = view.of_layer(layer)
        agreements = {rule: rank_agreement(score[own, r], fall[own]) for r, rule in enumerate(view.rules)}
        means = {rule: view.mean(rho).within(-1.0, 1.0) for rule, rho in agreements.items()}
        for rule, mean in means.items():
            rhos[layer, rule] = mean.value
            known = agreements[rule][np.isfinite(agreements[rule])]
            rows.append(
                {
                    "layer": layer,
                    "rule": rule,
                    "rho": mean.value,
                    "low": mean.low,
                    "high": mean.high,
                    "worst class": known.min() if known.size else np.nan,
                    "best class": known.max() if known.size else np.nan,
                    "by chance": normal_quantile(view.level) / np.sqrt(len(own) - 1) if len(own) > 1 else np.nan,
                }
            )
        best = max(means, key=lambda rule: np.nan_to_num(means[rule].value, nan=-2.0))
        said.append(
            f"{layer}: {view.first} {means[view.first]}"
            + (f", best {best} {means[best]}" if best != view.first else "")
        )
    shown = layers[-_SCATTER_LAYERS:]
    rules = view.rules[:_SCATTER_RULES]
    yield Text(
        "How well scores predict what silencing does, as Spearman's rho between score and exact logit fall over the "
        f"units of a layer, mean over classes. {'; '.join(said)}."
    )
    yield Table(
        "score-against-fall",
        "Scores against exact logit falls",
        pd.DataFrame(rows),
        formats=dict.fromkeys(("rho", "low", "high", "worst class", "best class", "by chance"), ".3f"),
        help={
            "rho": "Spearman's rank correlation of score and exact logit fall over the units, mean over classes",
            "low": f"lower {view.level:.0%} limit for classes like these",
            "by chance": f"unrelated rankings of so many units stay below it in {view.level:.0%} of classes",
        },
    )
    yield Panel(
        "scores-against-falls",
        "Score against exact logit fall",
        tuple(
            Chart(
                f"score-{layer}-{rule}",
                f"{layer}, {rule}: rho {number(rhos[layer, rule], '.2f')}",
                "scatter",
                (Series("units", fall[view.of_layer(layer)].ravel(), score[view.of_layer(layer), r].ravel()),),
                Axis("score"),
                Axis("logit fall"),
            )
            for r, rule in enumerate(rules)
            for layer in shown
        ),
        columns=2 if len(shown) != 3 else 3,  # noqa: PLR2004 the layers of a rule in one row
        text=(
            "One point for each unit and class. Scores come from selection images, falls from report images."
            + (f" The first {len(rules)} of {len(view.rules)} rules." if len(rules) < len(view.rules) else "")
            + (f" The last {len(shown)} of {len(layers)} layers." if len(shown) < len(layers) else "")
        ),
    )


def rank_agreement(scores: Float[np.ndarray, "u c"], falls: Float[np.ndarray, "u c"]) -> Float[np.ndarray, "c"]:
    """Spearman's rho between scores and falls for each class; nan where there are no two different values."""
    found = []
    for score, fall in zip(scores.T, falls.T, strict=True):
        known = np.isfinite(score) & np.isfinite(fall)
        several = known.sum() > 1
        found.append(float(spearman(score[known][:, None], fall[known][:, None])[0, 0]) if several else np.nan)
    return np.array(found)


def masking(view: View) -> Iterator[Block]:
    """The masking rule's own networks, with units held on and off."""
    table = view.masking
    if table is None:
        return
    on = "set to 1" if view.has("force-on") else "held at their mean for the class"
    yield Section(
        "Masking",
        f"The rule's own networks: units ON for a class are {on}, units OFF are silenced, the others are left alone. "
        "Beside the sub-networks above, they differ in size and in what is done to units.",
    )
    columns: dict[str, object] = {"class": view.classes}
    if "on" in table and "off" in table:
        columns |= {name.upper(): table[name].to_numpy().sum(axis=0).astype(int) for name in ("on", "off")}
    for name, title in (
        ("keep_own", "own accuracy"),
        ("keep_full", "full accuracy"),
        ("keep_precision", "precision"),
        ("modularity_b", "modularity B"),
        ("keep_informedness", "informedness"),
        ("drop_own", "own change without"),
        ("drop_others", "others' change without"),
        ("keep_own_low", "own low"),
        ("keep_own_high", "own high"),
        ("keep_full_low", "full low"),
        ("keep_full_high", "full high"),
        ("drop_own_low", "own change low"),
        ("drop_own_high", "own change high"),
        ("drop_others_low", "others' change low"),
        ("drop_others_high", "others' change high"),
    ):
        if name in table:
            columns[title] = table[name].to_numpy()
    yield Table(
        "masking",
        "Networks with units held on and off",
        pd.DataFrame(columns),
        formats={name: ".3f" for name in columns if name not in ("class", "ON", "OFF")},
        help={
            "ON": "units in all layers",
            "OFF": "units in all layers",
            "own accuracy": "on the images of the class, with ON and OFF units fixed",
            "full accuracy": "on all report images",
            "precision": "share of the class among the images called so",
            "informedness": "true minus false positive rate of the class: 0 for guessing",
            "modularity B": "own accuracy x precision, 0 to 1",
            "own change without": "change of the class's accuracy with all ON and OFF units silenced",
        },
        text="No random networks of the same kind are run: whether others would do as well is not known.",
    )
    if "on" in table and "off" in table:
        layers = texts(table["layer_name"])
        k, i = (part.ravel() for part in np.indices((len(view.classes), len(layers))))
        yield Table(
            "masking-counts",
            "Units held on and off, by layer",
            pd.DataFrame(
                {
                    "class": [view.classes[n] for n in k],
                    "layer": [layers[n] for n in i],
                    "ON": table["on"].to_numpy()[i, k].astype(int),
                    "OFF": table["off"].to_numpy()[i, k].astype(int),
                    "of": [len(view.of_layer(layers[n])) for n in i],
                }
            ),
            help={"of": "units in the layer"},
        )


def _bound(view: View) -> str:
    return {"student": " (Student's t)", "bernstein": " (empirical Bernstein)"}.get(
        str(view.spec.get("shapley_interval")), ""
    )


def _effort(view: View) -> Iterator[Block]:
    """What the early stop saved, and where the best units were not told from the rest."""
    table = view.network
    if table is None or "shapley_evaluations" not in table:
        return
    layers, settled = texts(table["layer_name"]), table["shapley_settled"].to_numpy() > 0
    yield Table(
        "shapley-games",
        "Games",
        pd.DataFrame(
            {
                "layer": layers,
                "evaluations": table["shapley_evaluations"].to_numpy(),
                "without early stop": table["shapley_plain"].to_numpy(),
                "settled": settled,
            }
        ),
        help={
            "evaluations": "sets of units that the network was asked about",
            "without early stop": "sets that the same number of permutations would have needed",
            "settled": f"whether the {view.spec['shapley_top']} best units were told from the rest for every class",
        },
    )
    if not settled.all():
        yield Text(
            f"The best units were not told from the rest in {named(picked(layers, ~settled))}: more permutations or "
            "images would.",
            tone="note",
        )


def shapley(view: View) -> Iterator[Block]:
    """Shapley values of the units, with the intervals of the sampling."""
    if "shapley" not in view.rules or "shapley_low" not in view.units:
        return
    yield Section(
        "Shapley values",
        "Average gain in the class's accuracy when the unit joins a random set of its layer's units. All units of a "
        "layer together share the difference between the intact layer and the silent one.",
    )
    value = view.units["score"].to_numpy()[:, view.rules.index("shapley")]
    low, high = view.units["shapley_low"].to_numpy(), view.units["shapley_high"].to_numpy()
    sure = (low > 0).sum(axis=0)
    yield from _effort(view)
    i, k = (part.ravel() for part in np.indices(value.shape))
    known = np.isfinite(value[i, k])
    i, k = i[known], k[known]
    columns: dict[str, object] = {
        "class": [view.classes[n] for n in k],
        "layer": view.layer_of[i],
        "unit": view.index_of[i],
        "value": value[i, k],
        "low": low[i, k],
        "high": high[i, k],
    }
    for name, title in (("shapley_all", "all classes"), ("shapley_bias", "bias")):
        if name in view.units:
            columns[title] = view.units[name].to_numpy()[i]
    yield Table(
        "shapley",
        "Shapley value of every unit for every class",
        pd.DataFrame(columns),
        preset="-value",
        formats=dict.fromkeys([name for name in columns if name not in ("class", "layer", "unit")], ".4f"),
        help={
            "value": "in accuracy of the class, -1 to 1",
            "low": f"lower {view.level:.0%} limit of the sampling{_bound(view)}; the images are fixed",
            "all classes": "the same for the accuracy on all images of the game",
            "bias": "largest error that ending walks early can have made, beyond the interval",
        },
    )
    yield Text(
        f"Units whose interval lies above 0: "
        f"{'; '.join(f'{name}: {count}' for name, count in zip(view.classes, sure.tolist(), strict=True))} "
        f"of {len(view.layer_of)}. The others cannot be told from units without any gain after so few permutations.",
        tone="note",
    )
    charts = []
    for c in range(min(len(view.classes), _GAMES)):
        best = np.argsort(-np.nan_to_num(value[:, c], nan=-np.inf), kind="stable")[:_BARS]
        charts.append(
            Chart(
                f"shapley-{c}",
                view.classes[c],
                "bar",
                (Series("value", value[best, c], low=low[best, c], high=high[best, c]),),
                Axis("unit", ticks=tuple(f"{view.layer_of[u]}:{view.index_of[u]}" for u in best)),
                Axis("Shapley value", "accuracy"),
            )
        )
    yield Panel(
        "shapley-values",
        "Units with the largest Shapley values",
        tuple(charts),
        columns=2,
        text=f"The first {len(charts)} of {len(view.classes)} classes." if len(charts) < len(view.classes) else "",
    )
