"""What the study found in a few numbers, what the three shares mean, and what to beware of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neuronscope.maths.resampling import wilson_interval
from neuronscope.studies.sensitivity.page.view import WILD, View, counted, listed
from neuronscope.studies.sensitivity.spec import LEGACY
from neuronscope.views import Block, Stat, Text

_FEW_REPLICATES = 4  # with fewer, Student's quantile alone makes intervals three times as wide


def overview(view: View) -> Iterator[Block]:
    """Headline numbers, a paragraph for readers who are new to this, and warnings."""
    yield from _accuracy(view)
    yield from _dominance(view)
    yield from _material(view)
    for text in _explanation(view):
        yield Text(text)
    yield from _joined(view)
    yield from _warnings(view)


def _joined(view: View) -> Iterator[Block]:
    """Which factors are of which run, where several were joined."""
    if view.sets > 1:
        of = view.groups["factors"]["factor_set"].to_numpy()
        said = "; ".join(
            f"Set {number}: {', '.join(name for name, own in zip(view.factors, of, strict=True) if own == number)}"
            for number in range(1, view.sets + 1)
        )
        yield Text(
            f"Joined of {view.sets} runs. {said}. Shares are of the variance in the design of their own run, in which "
            "the augmentations of the others were not there: compare them within a set. What is of one design only "
            "(convergence, dominant factors) is in the reports of the runs.",
            tone="note",
        )


def _accuracy(view: View) -> Iterator[Block]:
    """Right answers on plain images, and under what harms most."""
    share = view.find("accuracy", "accuracy")
    if share is None:
        return
    table = view.groups["accuracy"]
    low, high = (100 * table[f"accuracy_{end}"].to_numpy()[0] for end in ("low", "high"))
    first, images = 100 * share[0], int(table.attrs.get("images", 0))
    yield Stat("accuracy, plain images", f"{first[0]:.1f}", "%", round(float(low[0]), 1), round(float(high[0]), 1),
               f"{view.level:.0%} interval, {counted(images, 'image')}")  # fmt: skip
    worst = 1 + int(np.nanargmin(first[1:])) if len(first) > 1 and np.isfinite(first[1:]).any() else 0
    if worst:
        name = str(table["input_name"].to_numpy()[worst])
        told = table["change_high"].to_numpy()[0, worst] < 0
        note = name if told else f"{name}; not told from that on the same images as they are"
        yield Stat("accuracy, worst augmentation", f"{first[worst]:.1f}", "%", round(float(low[worst]), 1),
                   round(float(high[worst]), 1), note)  # fmt: skip


def _dominance(view: View) -> Iterator[Block]:
    """Of how many units it is known what moves them most, and what that is."""
    known, dominant = view.find("units", "dominant_known"), view.find("units", "dominant")
    if known is None or dominant is None:
        return
    live = dominant >= 0
    if not live.any():
        return
    sure = live & (known == 1)
    low, high = (
        100 * float(end[0])
        for end in wilson_interval(np.array([int(sure.sum())]), np.array([int(live.sum())]), level=view.level)
    )
    note = f"{int(sure.sum()):,} of {counted(int(live.sum()), 'live unit')}"
    share = 100 * sure.sum() / live.sum()
    yield Stat("dominant factor known", f"{share:.1f}", "%", round(low, 1), round(high, 1), note)
    counts = np.bincount(dominant[live], minlength=len(view.factors))
    most = int(counts.argmax())
    note = f"largest total index in {counts[most] / live.sum():.0%} of the live units, known or not"
    yield Stat("most often the largest", view.factors[most], note=note)


def _material(view: View) -> Iterator[Block]:
    """What was looked at, how often, and whether that was enough."""
    dead = int(view.dead.sum())
    if len(view.layer_of):
        yield Stat("units", f"{len(view.layer_of):,}", note=f"in {counted(len(view.layers), 'layer')}; {dead} dead")
    rows = rows_of(view)
    if rows:
        note = "; ".join(f"{name} {count:,}" for name, count in rows.items())
        yield Stat("rows of the designs", f"{sum(rows.values()):,}", note=f"images with parameters: {note}")
    if view.replicates:
        asked = 1 if view.has("unscrambled") else int(view.option("replicates", view.replicates))
        settled = view.settled()
        meaning = "the order of the factors is settled in every layer" if settled else "the order is not settled"
        yield Stat("replicates", f"{view.replicates} of {asked}", note=meaning)


def rows_of(view: View) -> dict[str, int]:
    """Rows of the two designs of variance, by name; those that were swept, not those planned."""
    found: dict[str, int] = {}
    if view.sets > 1:
        return found  # those of the runs are in their own reports
    factors = len(view.factors)
    if view.replicates:
        asked = 1 if view.has("unscrambled") else int(view.option("replicates", view.replicates))
        block = factors + 2 if view.option("second_order", "maps") == "none" else 2 * factors + 2
        found["Sobol"] = view.replicates * (int(view.option("points", 0)) // asked) * block
    if view.find("layers", "shapley") is not None:
        players = int(view.groups["factors"].attrs.get("players", factors))
        walks, inner = int(view.option("permutations", 0)) * int(view.option("outer", 1)), int(view.option("inner", 2))
        fresh = view.has("scalar-players")
        found["Shapley"] = walks * (players * inner if fresh else 1 + players * (inner - 1))
    return found


def _explanation(view: View) -> Iterator[str]:
    """What the shares mean, for readers who are new to them, and how sure they are."""
    if view.measures:
        yield (
            "Many things about an image are changed at once, in a design of random rows: the parameters of every "
            "augmentation, and whatever else is in the table of factors. The variance of an activation over the rows "
            "is then divided among these factors."
        )
    said = {
        "first": "First-order index: the share of the variance that a factor explains by itself, whatever the others "
        "do; it would vanish if only this factor were held fixed.",
        "total": "Total index: the share that a factor has any part in, alone or together with others; it would remain "
        "if all others were held fixed. With interactions, total indices add up to more than 1.",
        "shapley": "Shapley effect: what a factor explains by itself plus an equal part of every interaction it takes "
        "part in; the effects of all factors add up to 1.",
    }
    shown = [text for name, text in said.items() if name in view.measures]
    if shown:
        yield " ".join(shown)
        yield (
            f"Intervals cover {view.level:.0%}; they come from the scatter of independent replicates of the design. "
            f"Findings count at {view.bound}. Total indices are means of squares, so they are never below 0: a small "
            "one shows no more than that the factor matters little."
        )


def _warnings(view: View) -> Iterator[Block]:
    """What makes the numbers less than they seem."""
    for name in view.option("legacy", ()):
        yield Text(f"Deviation {name} is in force: {LEGACY.get(name, 'not known to this version')}.", tone="warning")
    yield from _floor(view)
    if view.replicates == 1:
        yield Text(
            "There is one replicate of the Sobol design: nothing can be said on the error of the indices, so that "
            "intervals are missing and no factor can be called the dominant one.",
            tone="warning",
        )
    elif 0 < view.replicates < _FEW_REPLICATES:
        yield Text(
            f"There are only {view.replicates} replicates of the Sobol design: intervals are very wide.", tone="warning"
        )
    yield from _wild(view)
    yield from _dead(view)
    if view.settled() is False and view.replicates > 1:
        yield Text(
            "Which factor is the larger one is not known of every two, in every layer, up to the tolerance of "
            f"{float(view.option('tolerance', 0.0)):g}: more points or replicates would tell.",
            tone="note",
        )
    yield from _not_told(view)


def _floor(view: View) -> Iterator[Block]:
    """How much of every total index is the image, where it is drawn anew."""
    total = view.find("layers", "total")
    if not view.has("image-redrawn") or total is None:
        return
    floors = {layer: float(values.min()) for layer, values in zip(view.layers, total, strict=True)}
    known = {layer: value for layer, value in floors.items() if np.isfinite(value)}
    if known:
        said = listed(f"{value:.2f} in {layer}" for layer, value in known.items())
        yield Text(
            "The image is drawn anew in every row, so that every total index holds the variance between images as a "
            "floor: also a factor without any effect has one of this size. The lowest of each layer is about that "
            f"floor: {said}. Compare total indices with it, not with 0.",
            tone="warning",
        )


def _wild(view: View) -> Iterator[Block]:
    """Layers of which too little is known: their shares are none."""
    if view.wild_layers:
        said = listed(f"{counted(units, 'unit')} in {layer}" for layer, units in view.wild_layers.items())
        yield Text(
            f"Some units have a share of the variance beyond {WILD:g}, which no true share is: {said}. They hardly "
            "vary, or in rare rows only, so that it takes more points to say anything of them, and of their layers: "
            "charts leave these out. Medians are not touched by them.",
            tone="warning",
        )


def _dead(view: View) -> Iterator[Block]:
    """Layers and units that never change."""
    counts = {layer: int(view.dead[view.places(layer)].sum()) for layer in view.layers}
    gone = [layer for layer, count in counts.items() if count and count == len(view.places(layer))]
    some = {layer: count for layer, count in counts.items() if count and layer not in gone}
    if gone:
        yield Text(
            f"No unit of {listed(gone)} changes in any row: the layer is dead on these images, and has no "
            "sensitivities. That is not the same as being insensitive.",
            tone="warning",
        )
    if some:
        said = listed(f"{count} of {len(view.places(layer))} in {layer}" for layer, count in some.items())
        yield Text(f"Dead units, which never change and have no sensitivities: {said}.", tone="note")
    broken = {layer: units for layer, units in view.provenance.nonfinite.items() if units}
    if broken:
        said = listed(f"{layer}: {listed(str(unit) for unit in units)}" for layer, units in broken.items())
        yield Text(f"Units with infinite or missing activations, left out: {said}.", tone="warning")


def _not_told(view: View) -> Iterator[Block]:
    """Factors of which nothing is known to act by itself."""
    q = view.find("units", "first_q")
    if q is None:
        return
    told = view.told(q)
    live = np.isfinite(q).any(axis=1)
    shares = told[live].mean(axis=0) if live.any() else np.zeros(len(view.factors))
    never = [name for name, share in zip(view.factors, shares, strict=True) if share == 0]
    ending = " What cannot be told from 0 may still be there." if not told[live].all() else ""
    yield Text(
        f"First-order indices can be told from 0 ({view.bound}) for {int(told.sum()):,} of {told[live].size:,} pairs "
        f"of unit and factor{f', for none of {listed(never)}' if never else ''}.{ending}",
        tone="note",
    )
