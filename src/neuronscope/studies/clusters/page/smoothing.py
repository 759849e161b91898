"""Is a gain only what any smoother map would give? Filtered maps beside blurred ones, random sets, random order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from neuronscope.studies.clusters.page.overview import verdict
from neuronscope.studies.clusters.page.view import POINTS, View, capital
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text

_AGAINST = {"against_blurred": "its blurred control", "against_random": "its random sets"}
_CONTROLS = {
    "blurred": "untouched map, blurred",
    "random": "random channels blocked",
    "ranking": "random order",
}


def smoothing(view: View) -> Iterator[Block]:
    """Clusters of the main k beside their controls, in pictures, words and a table."""
    filters = view.main_filters
    shown = [kind for kind in _CONTROLS if any(view.controls(int(row), kind).size for row in filters)]
    tested = [group for group in _AGAINST if view.grid(group, "difference") is not None]
    values = any(
        view.grid(*one) is not None for one in (("comparisons", "difference"), ("metrics", "faithfulness_mean"))
    )
    if not filters.size or not ((shown and values) or tested):
        return
    yield Section(
        "Is it smoothing?",
        "A filtered map may be better only because it is smoother, or because any channels were blocked. Its controls: "
        "the untouched map, blurred until it is as smooth as the filtered one; as many channels drawn at random, "
        "blocked; "
        "and pixels replaced in random order, which says what replacing alone does.",
    )
    if shown:
        yield from _differences(view, filters, shown)
        yield from _levels(view, filters, shown)
    for group in tested:
        yield from _words(view, filters, group)
    if tested:
        yield _table(view, filters, tested)


def _differences(view: View, filters: Int[np.ndarray, "_"], shown: list[str]) -> Iterator[Block]:
    """Gains of filter and controls over the untouched map."""
    difference = view.grid("comparisons", "difference")
    if difference is None:
        return
    low, high = (view.cells("comparisons", name) for name in ("low", "high"))
    charts = []
    for a, b, title in view.pairs():
        value, start, end = (100 * cells[:, a, b] for cells in (difference, low, high))
        series = [
            _series("cluster blocked", value[filters], start[filters], end[filters]),
            # Random order lies far below the others and would flatten them.
            *(_control(view, filters, kind, (value, start, end)) for kind in shown if kind != "ranking"),
        ]
        if any(np.isfinite(one.y).any() for one in series):
            charts.append(
                Chart(
                    "gain",
                    capital(title),
                    "bar",
                    tuple(series),
                    _clusters(view, filters),
                    Axis("change of faithfulness", POINTS),
                )
            )
    if charts:
        yield Panel(
            "smoothing-gain",
            "Change of faithfulness against that of controls",
            tuple(charts),
            columns=_columns(filters, charts),
            text=(
                f"Against the untouched map. Whiskers: {view.level:.0%} interval over images; for random channels, of "
                "which there are several sets, the range of the sets around their mean."
            ),
        )


def _levels(view: View, filters: Int[np.ndarray, "_"], shown: list[str]) -> Iterator[Block]:
    """Faithfulness itself, down to what replacing pixels in random order does."""
    level = view.grid("metrics", "faithfulness_mean")
    if level is None or "ranking" not in shown:
        return
    low, high = (view.cells("metrics", f"faithfulness_{end}") for end in ("low", "high"))
    baseline = np.array(
        [
            next(iter(view.controls(int(row), "baseline").tolist() or view.rows("baseline").tolist()), -1)
            for row in filters
        ]
    )
    charts = []
    for a, b, title in view.pairs():
        own = (100 * cells[:, a, b] for cells in (level, low, high))
        mean, start, end = (np.append(one, np.nan) for one in own)  # the last place: no baseline
        series = [
            _series("untouched", mean[baseline], start[baseline], end[baseline]),
            _series("cluster blocked", mean[filters], start[filters], end[filters]),
            *(_control(view, filters, kind, (mean, start, end)) for kind in ("blurred", "ranking") if kind in shown),
        ]
        series = [one for one in series if np.isfinite(one.y).any()]
        if series:
            charts.append(
                Chart(
                    "level",
                    capital(title),
                    "bar",
                    tuple(series),
                    _clusters(view, filters),
                    Axis("faithfulness", POINTS),
                )
            )
    if charts:
        yield Panel(
            "smoothing-level",
            "Faithfulness itself",
            tuple(charts),
            columns=_columns(filters, charts),
            text=f"Fall of the probability of the answer, in {POINTS}. Whiskers: {view.level:.0%} interval of the "
            f"mean over images.",
        )


def _control(
    view: View,
    filters: Int[np.ndarray, "_"],
    kind: str,
    ends: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]],
) -> Series:
    """Controls of one kind, one bar for each cluster; of several the mean and the range."""
    value, low, high = ends
    found = []
    for row in filters:
        own = view.controls(int(row), kind)
        own = own[np.isfinite(value[own])]
        if len(own) == 1:
            found.append((value[own[0]], low[own[0]], high[own[0]]))
        else:
            found.append((value[own].mean(), value[own].min(), value[own].max()) if len(own) else (np.nan,) * 3)
    columns = np.array(found, dtype=np.float64).reshape(-1, 3)
    return _series(_CONTROLS[kind], columns[:, 0], columns[:, 1], columns[:, 2])


def _series(name: str, value: np.ndarray, low: np.ndarray, high: np.ndarray) -> Series:
    known = bool(np.isfinite(low).any() and np.isfinite(high).any())
    return Series(name, value, low=low if known else None, high=high if known else None)


def _clusters(view: View, filters: Int[np.ndarray, "_"]) -> Axis:
    """The clusters of the main k, layer by layer."""
    return Axis("layer: cluster", ticks=tuple(view.place(int(row)) for row in filters))


def _columns(filters: Int[np.ndarray, "_"], charts: list[Chart]) -> int:
    """Charts side by side: few bars leave room for two."""
    return min(2, len(charts)) if len(filters) <= 12 else 1  # noqa: PLR2004 what fits half a page


def _words(view: View, filters: Int[np.ndarray, "_"], group: str) -> Iterator[Block]:
    """Which clusters do better than their control, of all that were tested; what is alike is said once."""
    difference, q = view.cells(group, "difference"), view.cells(group, "log10_q")
    gain = view.cells("comparisons", "difference")
    useful = view.told(view.cells("comparisons", "log10_q")) & (gain > 0)
    found: dict[str, list[str]] = {}
    doubts: dict[str, list[str]] = {}
    for a, b, title in view.pairs():
        said: dict[str, list[int]] = {"yes": [], "no": [], "cannot be told": [], "not tested": []}
        for row in filters:
            said[verdict(view, float(difference[row, a, b]), float(q[row, a, b]))].append(int(row))
        if len(said["not tested"]) == len(filters):
            continue
        found.setdefault(_sentence(view, said, _AGAINST[group]), []).append(title)
        doubtful = [row for row in said["no"] + said["cannot be told"] if useful[row, a, b]]
        if doubtful and group == "against_blurred":
            doubts.setdefault(view.titles(doubtful), []).append(title)
    for sentence, titles in found.items():
        yield Text(f"{view.together(titles)}: {sentence}.", tone="note" if sentence.startswith("none") else "plain")
    for clusters, titles in doubts.items():
        yield Text(
            f"{view.together(titles)}: the gain of {clusters} over the untouched map is not shown to be more "
            f"than "
            "smoothing.",
            tone="warning",
        )


def _sentence(view: View, said: dict[str, list[int]], control: str) -> str:
    """Verdicts on the clusters against one kind of control."""
    if not said["yes"] and not said["no"]:
        return f"none of {len(said['cannot be told'])} clusters can be told from {control}"
    words = {
        "yes": f"more faithful than {control}",
        "no": f"less faithful than {control}",
        "cannot be told": "not distinguishable",
    }
    parts = [f"{meaning}: {view.titles(said[answer])}" for answer, meaning in words.items() if said[answer]]
    return ". ".join([parts[0], *map(capital, parts[1:])])


def _table(view: View, filters: Int[np.ndarray, "_"], tested: list[str]) -> Table:
    rows = []
    for row in filters.tolist():
        for a, b, _ in view.pairs():
            line: dict[str, object] = {
                "layer": view.short(str(view.layer[row])),
                "cluster": view.tick(row),
                "method": view.methods[a],
                "metric": view.metrics[b],
                "gain": float(view.cells("comparisons", "difference")[row, a, b]),
            }
            for group in tested:
                short = group.removeprefix("against_")
                value, low, high, p, q = (
                    float(view.cells(group, name)[row, a, b])
                    for name in ("difference", "low", "high", "log10_p", "log10_q")
                )
                line |= {f"minus {short}": value, f"{short} low": low, f"{short} high": high}
                line |= {f"{short} log10 p": p, f"{short} log10 q": q, f"better than {short}": verdict(view, value, q)}
            rows.append(line)
    frame = pd.DataFrame(rows)
    frame = frame.loc[:, [name for name in frame if not frame[name].isna().all()]]
    floats = {str(name): ".2f" if "log10" in str(name) else ".4f" for name in frame.select_dtypes("float").columns}
    return Table(
        "controls",
        "Clusters against their controls",
        frame,
        help={
            "gain": "faithfulness with the cluster blocked minus that of the untouched map",
            "minus blurred": "faithfulness with the cluster blocked minus that of the untouched map, blurred as smooth",
            "minus random": "the same minus the mean of its random sets",
            "better than blurred": f"yes or no where {view.bound}",
            "better than random": f"yes or no where {view.bound}",
        },
        formats=floats,
        text=f"Intervals cover {view.level:.0%}; p and q are powers of ten.",
    )
