"""What kinds of concepts formulas are made of, and what more concepts add, on images searched and on others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int

from neuronscope.maths.formulas import label_numbers
from neuronscope.maths.resampling import wilson_interval
from neuronscope.studies.concepts.page.view import View, listed, median
from neuronscope.views import Axis, Block, Chart, Section, Series, Text

_MANY = 30  # categories: more would make labels unreadable
_ROUNDING = 1e-12


def categories(view: View) -> Iterator[Block]:
    """Units by category of what they detect."""
    total = int(view.explained.sum())
    if not total:
        yield Text("No unit has a formula.", tone="warning")
        return
    yield Section("Formulas", "What kinds of concepts formulas are made of, and what more concepts add.")
    lengths = view.get("formula_length")
    counts = (Counter[str](), Counter[str]())
    for unit in np.flatnonzero(view.explained):
        counts[int(lengths[unit] > 1)].update(str(view.get("category")[unit]).split(", "))
    names = [name for name, _ in (counts[0] + counts[1]).most_common()]
    shown = names[:_MANY]
    single = int((lengths[view.explained] == 1).sum())
    text = (
        f"Of {total:,} explained units {single:,} have a single concept and {total - single:,} a formula of several. A "
        "formula counts once in each category that it has a concept of: shares add up to more than 100 %."
    )
    if len(shown) < len(names):
        text += f" The first {len(shown)} of {len(names)} categories."
    yield Chart(
        "categories",
        "Units by category of their formula",
        "bar",
        tuple(
            _shares(title, np.array([count[name] for name in shown]), total, view.level)
            for title, count in zip(("single concept", "formula of several"), counts, strict=True)
            if count
        ),
        Axis("category", ticks=tuple(shown)),
        Axis("share of the explained units", "%"),
        text=text,
    )
    yield from _single(view, counts[0] + counts[1])


def _single(view: View, of_formulas: Counter[str]) -> Iterator[Block]:
    """Categories of the best single concept of each unit, beside those of its formula."""
    formulas = view.find("best_formula")
    if formulas is None or formulas.shape[1] < 2:  # noqa: PLR2004 the formulas are single concepts themselves
        return
    found: Counter[str] = Counter()
    for words in formulas[view.explained, 0]:
        formula = view.read(str(words))
        if formula is not None:
            found[view.categories[label_numbers(formula)[0]]] += 1
    total = sum(found.values())
    if not total:
        return
    names = [name for name, _ in found.most_common()]
    names = [*names, *(name for name, _ in of_formulas.most_common() if name not in found)][:_MANY]
    explained = int(view.explained.sum())
    ahead = max(names, key=lambda name: of_formulas[name] / explained - found[name] / total)
    yield Chart(
        "single-concepts",
        "Best single concept, and formula, by category",
        "bar",
        (
            _shares("best single concept", np.array([found[name] for name in names]), total, view.level),
            _shares("formula", np.array([of_formulas[name] for name in names]), explained, view.level),
        ),
        Axis("category", ticks=tuple(names)),
        Axis("share of the explained units", "%"),
        text=(
            "If each unit were given one concept only, it would be of the category of the first bar; its formula has a "
            f"concept of the category of the second. What formulas add most is {ahead}. Whiskers: {view.level:.0%} "
            "interval for units like these."
        ),
    )


def _shares(title: str, counts: Int[np.ndarray, "c"], total: int, level: float) -> Series:
    low, high = wilson_interval(counts, np.full(len(counts), total), level=level)
    return Series(title, 100 * counts / total, low=100 * low, high=100 * high)


def lengths(view: View) -> Iterator[Block]:
    """The best score of formulas by their length, searched and held out."""
    table = view.get("best_score")
    longest = table.shape[1]
    usable = view.explained & np.isfinite(table).all(axis=1)
    if longest < 2 or not usable.any():  # noqa: PLR2004 no line through one point
        return
    lines = []
    for layer, own in view.of_layers(usable):
        values = table[own]
        mean, low, high = view.mean(values)
        known = np.isfinite(low).all()
        lines.append(
            Series(
                f"{layer} ({len(values):,} units)",
                mean,
                np.arange(float(longest)),
                low if known else None,
                high if known else None,
            )
        )
    ends = table[usable, 0], table[usable, -1]
    kept = median(ends[0][ends[1] > 0] / ends[1][ends[1] > 0])
    yield Chart(
        "score-by-length",
        f"{view.score} by length of the formula",
        "line",
        tuple(lines),
        Axis("concepts of the formula, at most", ticks=tuple(str(1 + i) for i in range(longest))),
        Axis(f"mean of the best {view.score}"),
        text=(
            "On the images searched, where a longer formula can only fit better. A single concept reaches "
            f"{kept:.0%} of the score of {longest} in half of the units or more. Band: {view.level:.0%} interval for "
            "units like these."
        ),
    )
    yield from _gains(view, usable)


def _gains(view: View, usable: Bool[np.ndarray, "units"]) -> Iterator[Block]:
    """What each concept more adds on images that were not searched."""
    table = view.find("held_out_by_length")
    if table is None or view.has("same-images"):
        return
    usable = usable & np.isfinite(table).all(axis=1)
    if not usable.any():
        return
    steps = np.diff(table, axis=1)
    names = tuple(f"{1 + i} to {2 + i}" for i in range(steps.shape[1]))
    bars = []
    for layer, own in view.of_layers(usable):
        mean, low, high = view.mean(steps[own])
        known = np.isfinite(low).all()
        title = f"{layer} ({int(own.sum()):,} units)"
        bars.append(Series(title, mean, low=low if known else None, high=high if known else None))
    _, low, high = view.mean(steps[usable])
    gains = [name for name, end in zip(names, low, strict=True) if end > _ROUNDING]
    losses = [name for name, end in zip(names, high, strict=True) if end < -_ROUNDING]
    rest = [name for name in names if name not in gains + losses]
    said = []
    if gains:
        said.append(f"Over all units, formulas fit other images better from {listed(gains)} concepts")
    if losses:
        said.append(f"they fit worse from {listed(losses)}: more than the images searched supported")
    if rest:
        said.append(f"from {listed(rest)} no gain can be told from noise")
    text = "; ".join(said)
    yield Chart(
        "gain-by-length",
        "What each concept more adds on held-out images",
        "bar",
        tuple(bars),
        Axis("concepts of the formula, at most", ticks=names),
        Axis("mean change of held-out IoU"),
        text=(
            "The best formula of each length, found on the images searched, scored on the others. A bar above 0 is a "
            f"real gain if its whisker ({view.level:.0%} interval for units like these) stays above 0. "
            f"{text[:1].upper()}{text[1:]}."
        ),
    )
