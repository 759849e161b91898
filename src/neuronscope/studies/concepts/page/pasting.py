"""Copy-paste examples: does a concept laid over images of one class turn the answer, and would anything do so?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from neuronscope.studies.concepts.page.view import View
from neuronscope.views import Axis, Block, Chart, Gallery, Picture, Section, Series, Strip, Table, Text

_AXIS = "example"
_COLUMNS = {
    "from": "class_from",
    "to": "class_to",
    "concept": "concept",
    "unit": "unit",
    "success": "success",
    "low": "low",
    "high": "high",
    "control": "control",
    "control low": "control_low",
    "control high": "control_high",
    "q": "q",
    "verdict": "verdict",
    "p": "p",
    "successes": "successes",
    "trials": "trials",
    "control successes": "control_successes",
    "control trials": "control_trials",
}
"""Column of the table: variable of the group; success, control and verdict are worked out."""
_MAGNIFIED = 112  # pixels: smaller pictures are magnified to about this side


def pasting(view: View) -> Iterator[Block]:
    """The examples with their success against that of controls, and a picture of each."""
    table = view.groups.get("copy_paste")
    if table is None:
        return
    yield Section(
        "Copy-paste examples",
        "A concept is cut out of an image and laid over images of one class, to see whether the network then answers "
        "with another class, as its units and their weights would have it. The controls cover the very same pixels "
        "and show no such thing: what they reach, any change of these pixels would.",
    )
    if not table.sizes.get(_AXIS, 0):
        yield Text("No example was found: no concept leads from one class to another by its units.", tone="note")
        return
    share, control = _share(table, ""), _share(table, "control_")
    told = view.below(_column(table, "q")) if _has(table, "q") else None
    if told is not None:
        if share is not None and control is not None:
            told = told & (share > control)
        yield Text(
            f"{int(told.sum())} of {len(told)} examples turn the answer more often than their controls ({view.bound})."
            + ("" if told.any() else " None can be told from chance."),
            tone="plain" if told.any() else "note",
        )
    yield from _chart(view, table, share, control)
    yield _table(view, _columns(view, table, share, control, told))
    yield from _pictures(table, share, control, told)


def _columns(
    view: View, table: xr.Dataset, share: np.ndarray | None, control: np.ndarray | None, told: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Columns of the table, as far as the result has them, the most important first."""
    found = {"example": np.arange(1, 1 + table.sizes[_AXIS])}
    for title, name in _COLUMNS.items():
        if name == "success" and share is not None:
            found[title] = share
        elif name == "control" and control is not None:
            found[title] = control
        elif name == "verdict" and told is not None:
            found[title] = np.where(told, "better than controls", "not distinguishable from controls")
        elif _has(table, name):
            found[title] = _column(table, name)
    if "unit" in found:
        found["unit"], formulas = _units(view, found["unit"])
        if any(formulas):
            found["formula"] = np.array(formulas, dtype=object)
    return found


def _has(table: xr.Dataset, name: str) -> bool:
    return name in table.variables and table[name].dims == (_AXIS,)


def _column(table: xr.Dataset, name: str) -> np.ndarray:
    return np.asarray(table[name].to_numpy())


def _share(table: xr.Dataset, prefix: str) -> np.ndarray | None:
    """Successes by trials; None where either is missing."""
    names = (f"{prefix}successes", f"{prefix}trials")
    if not all(_has(table, name) for name in names):
        return None
    successes, trials = (_column(table, name).astype(np.float64) for name in names)
    return np.asarray(np.divide(successes, trials, out=np.full(len(trials), np.nan), where=trials > 0))


def _units(view: View, units: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Rows of the table of units as layer and number, with their formulas; what is no row stays as it is."""
    if units.dtype.kind not in "iu":
        return units, ["" for _ in units]
    inside = [0 <= int(unit) < len(view.formulas) for unit in units]
    names = [
        f"{view.layer_of[unit]}:{view.index_of[unit]}" if own else "" for unit, own in zip(units, inside, strict=True)
    ]
    formulas = [view.formulas[unit] if own else "" for unit, own in zip(units, inside, strict=True)]
    return np.array(names, dtype=object), formulas


def _titles(table: xr.Dataset) -> list[str]:
    """Each example in a few words."""
    said = []
    for number in range(table.sizes[_AXIS]):
        parts = [str(_column(table, name)[number]) if _has(table, name) else "" for name in ("class_from", "class_to")]
        title = f"{number + 1}: {parts[0]} to {parts[1]}" if all(parts) else f"{number + 1}"
        said.append(f"{title}, {_column(table, 'concept')[number]}" if _has(table, "concept") else title)
    return said


def _chart(view: View, table: xr.Dataset, share: np.ndarray | None, control: np.ndarray | None) -> Iterator[Block]:
    bars = []
    for title, values, prefix in (("concept pasted", share, ""), ("controls", control, "control_")):
        if values is not None:
            ends = [
                100 * _column(table, f"{prefix}{end}").astype(np.float64) if _has(table, f"{prefix}{end}") else None
                for end in ("low", "high")
            ]
            bars.append(Series(title, 100 * values, low=ends[0], high=ends[1]))
    if not bars:
        return
    yield Chart(
        "copy-paste",
        "How often pasting turns the answer",
        "bar",
        tuple(bars),
        Axis("example", ticks=tuple(str(1 + number) for number in range(table.sizes[_AXIS]))),
        Axis("images that turned", "%"),
        text=(
            f"Whiskers: {view.level:.0%} interval for images like these. An example counts if its bar stands out above "
            "that of its controls."
        ),
    )


def _table(view: View, columns: dict[str, np.ndarray]) -> Table:
    return Table(
        "copy-paste-examples",
        "Copy-paste examples",
        pd.DataFrame(columns),
        help={
            "from": "class of the images",
            "to": "class that the network should answer with",
            "concept": "what is pasted",
            "unit": "unit that detects it, by layer and number",
            "success": "share of the images that are then answered with that class, 0 to 1",
            "low": f"{view.level:.0%} interval of it: lower end",
            "high": "upper end",
            "control": "the same with controls over the same pixels",
            "control low": f"{view.level:.0%} interval of it: lower end",
            "control high": "upper end",
            "q": "of success against control, false discovery rate over the examples",
            "verdict": f"better than controls: {view.bound}",
        },
        formats={
            **dict.fromkeys(("success", "low", "high", "control", "control low", "control high"), ".2f"),
            **dict.fromkeys(("p", "q"), ".3g"),
        },
    )


def _pictures(
    table: xr.Dataset, share: np.ndarray | None, control: np.ndarray | None, told: np.ndarray | None
) -> Iterator[Block]:
    if "frame" not in table or table["frame"].dims[0] != _AXIS or table["frame"].ndim != 4:  # noqa: PLR2004 examples
        return
    strips = []
    for number, title in enumerate(_titles(table)):
        frame = np.asarray(table["frame"].to_numpy()[number]).astype(np.uint8)
        frame = np.repeat(frame, 3, axis=2) if frame.shape[2] == 1 else frame
        factor = max(1, _MAGNIFIED // max(frame.shape[:2]))
        said = [str(_column(table, "predicted")[number])] if _has(table, "predicted") else []
        if _has(table, "probability"):
            said.append(f"{float(_column(table, 'probability')[number]):.0%}")
        note = []
        if share is not None:
            note.append(f"{share[number]:.0%} of the images turned")
        if control is not None:
            note.append(f"controls {control[number]:.0%}")
        if told is not None and not told[number]:
            note.append("not distinguishable from controls")
        picture = Picture(frame.repeat(factor, axis=0).repeat(factor, axis=1), ", ".join(said))
        strips.append(Strip(title, [picture], note="; ".join(note)))
    yield Gallery(
        "copy-paste-pictures",
        "One image of each example",
        strips,
        scale=1,
        text="Below each picture: what the network takes it for with the concept pasted, and its probability.",
    )
