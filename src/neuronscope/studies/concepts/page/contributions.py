"""Which units make up the classes and the units of the next layer: the strongest for and against each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from neuronscope.studies.concepts.page.view import View, texts
from neuronscope.views import Axis, Block, Chart, Section, Series, Table, Text

_PREFIX = "contributions_"
_CLASSES = "classes"
_NAMED = 5  # contributors, and inhibitors, of one class or unit in the tables
_ROWS, _COLUMNS = 30, 60  # of a heat map


@dataclass(frozen=True)
class _Part:
    """What leads from the units of one layer to the classes or to the units of the next."""

    name: str
    table: xr.Dataset

    @property
    def of(self) -> list[str]:
        """Names of what is made up."""
        return self._names("of")

    @property
    def by(self) -> list[str]:
        """Names of the units that make it up."""
        return self._names("by")

    def _names(self, axis: str) -> list[str]:
        for name in (f"{axis}_name", axis):
            if name in self.table.coords:
                return texts(self.table[name].to_numpy())
        return [str(number) for number in range(self.table.sizes[axis])]

    def get(self, name: str) -> Float[np.ndarray, "of by"] | None:
        """A matrix, where there is any value in it."""
        if name not in self.table:
            return None
        values = np.asarray(self.table[name].to_numpy(), dtype=np.float64)
        return values if np.isfinite(values).any() else None

    @property
    def ranked(self) -> tuple[str, Float[np.ndarray, "of by"]] | None:
        """What contributors are chosen by: weights, or where there are none correlations."""
        for name in (str(self.table.attrs.get("contributor_of", "weight")), "weight", "correlation"):
            values = self.get(name)
            if values is not None:
                return name, values
        return None


def contributions(view: View) -> Iterator[Block]:
    """Contributors and inhibitors of the classes first, then of the units of each layer."""
    parts = [
        _Part(name.removeprefix(_PREFIX), table)
        for name, table in view.groups.items()
        if name.startswith(_PREFIX) and {"of", "by"} <= set(table.sizes)
    ]
    parts = sorted((part for part in parts if part.ranked is not None), key=lambda part: part.name != _CLASSES)
    if not parts:
        return
    yield Section(
        "What feeds what",
        "How the units of one layer enter the classes or the units of the next. Weight: what a connection could do. "
        "Correlation: what goes together over the images. Overlap: the places where both are active, of those where "
        "any is. Contributors of a class or unit have the largest links to it, inhibitors the smallest, below 0.",
    )
    for part in parts:
        yield from _part(view, part)


def _part(view: View, part: _Part) -> Iterator[Block]:
    ranked = part.ranked
    if ranked is None:
        return
    name, values = ranked
    marked = part.get("contributor")
    title = "the classes" if part.name == _CLASSES else f"the units of {part.name}"
    rows = _rows(view, part, values, marked)
    q = part.get("q")
    if q is not None and rows:
        sure = sum(row["verdict"] == "correlated" for row in rows)
        yield Text(
            f"Of the {len(rows):,} listed links to {title}, {sure:,} have a correlation that can be told from none "
            f"({view.bound} over the whole table); weights are what the network holds and have no uncertainty.",
            tone="plain" if sure else "note",
        )
    if len(part.of) <= _ROWS:
        yield from _map(view, part, name, values, title)
    if rows:
        yield _table(view, part, rows, name, title)


def _rows(
    view: View, part: _Part, values: Float[np.ndarray, "of by"], marked: Float[np.ndarray, "of by"] | None
) -> list[dict[str, object]]:
    """The strongest links to each class or unit: the marked ones first, else the largest on both sides."""
    formulas = _formulas(view)
    q = part.get("q")
    sure = view.below(q) if q is not None else None
    rows: list[dict[str, object]] = []
    for k, of in enumerate(part.of):
        known = np.flatnonzero(np.isfinite(values[k]))
        order = known[np.argsort(-values[k, known], kind="stable")]
        chosen = [(int(one), "contributor") for one in order[:_NAMED] if values[k, one] > 0]
        chosen += [(int(one), "inhibitor") for one in order[::-1][:_NAMED] if values[k, one] < 0]
        if part.name != _CLASSES and marked is not None:  # of many units only what stands out of the whole table
            chosen = [(one, role) for one, role in chosen if marked[k, one]]
        for one, role in chosen:
            row: dict[str, object] = {"of": of, "by": part.by[one], "role": role}
            row["formula"] = formulas.get(part.by[one], "")
            for name in ("weight", "correlation", "overlap", "q"):
                matrix = part.get(name)
                if matrix is not None:
                    row[name.replace("_", " ")] = float(matrix[k, one])
            if sure is not None:
                row["verdict"] = "correlated" if sure[k, one] else "not distinguishable from none"
            if marked is not None:
                row["stands out"] = "yes" if marked[k, one] else ""
            for name in ("correlation_low", "correlation_high"):
                matrix = part.get(name)
                if matrix is not None:
                    row[name.replace("_", " ")] = float(matrix[k, one])
            rows.append(row)
    return rows


def _formulas(view: View) -> dict[str, str]:
    """What units detect, by layer and number; the number alone where there is one layer."""
    found = {}
    for unit, words in enumerate(view.formulas):
        said = words or view.verdict(unit)
        found[f"{view.layer_of[unit]}:{view.index_of[unit]}"] = said
        if len(view.layer_names) == 1:
            found[str(view.index_of[unit])] = said
    return found


def _map(view: View, part: _Part, name: str, values: Float[np.ndarray, "of by"], title: str) -> Iterator[Block]:
    """All links of a small table, of a wide one those to the units with the strongest."""
    strength = np.nan_to_num(np.abs(values)).max(axis=0)
    chosen = np.sort(np.argsort(-strength, kind="stable")[:_COLUMNS])
    q = part.get("q") if name == "correlation" else None
    shown = values if q is None else np.where(view.below(q), values, np.nan)
    text = "Signs mark the sides of the scale without colour. "
    if len(chosen) < len(part.by):
        text += f"The {len(chosen)} of {len(part.by)} units with the strongest {name}. "
    text += "Hatched: not told from none. " if q is not None else ""
    prefix = str(part.table.attrs.get("by", ""))
    yield Chart(
        f"contributions-{part.name}",
        f"{name.capitalize()} of units to {title}",
        "heatmap",
        (Series("", shown[:, chosen]),),
        Axis(
            f"unit of {prefix}" if prefix else "unit",
            ticks=tuple(part.by[int(one)].removeprefix(f"{prefix}:") for one in chosen),
        ),
        Axis(
            "class" if part.name == _CLASSES else "unit",
            ticks=tuple(one.removeprefix(f"{part.name}:") for one in part.of),
        ),
        value=Axis(name),
        diverging=True,
        text=text.strip(),
    )


def _table(view: View, part: _Part, rows: list[dict[str, object]], name: str, title: str) -> Table:
    of = "class" if part.name == _CLASSES else "of"
    frame = pd.DataFrame(rows).rename(columns={"of": of, "by": "unit"})
    text = f"For each up to {_NAMED} units with the largest {name} above 0, and as many with the smallest below."
    if part.name != _CLASSES:
        text += " Only those that stand out of the whole table."
    return Table(
        f"contributors-{part.name}",
        f"Contributors and inhibitors of {title}",
        frame,
        help={
            of: "what the unit enters",
            "unit": "layer and number of the unit",
            "role": f"contributor: its {name} is above 0; inhibitor: below",
            "formula": "what the unit detects",
            "weight": "of the connection, averaged over positions",
            "correlation": "of the two activations over the images, \u22121 to 1",
            "correlation low": "95 % interval for images like these: lower end",
            "correlation high": "upper end",
            "overlap": "places or images where both are active, of those where any is, 0 to 1",
            "q": "of the correlation, false discovery rate over the whole table",
            "verdict": f"correlated: {view.bound}",
            "stands out": f"among the largest or smallest {name} of the whole table",
        },
        formats={
            **dict.fromkeys(("correlation", "correlation low", "correlation high", "overlap", "q"), ".3f"),
            "weight": ".4f",
        },
        text=text,
    )
