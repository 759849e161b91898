"""Do masks drive predictions to the classes that are most sensitive to an augmentation? The original's notebook 8.

The sensitive classes come from the sensitivity result's last layer. Their overlap with the first classes predicted is
looked at without masks, for each kind of input, and under masks whose factor is the augmentation of the input and of
the sensitive classes alike (*self-masking*).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Int

from neuronscope.maths.class_sensitivity import JaccardTable, draws_needed, jaccard_table
from neuronscope.maths.guide_masks import configurations
from neuronscope.maths.resampling import by_qvalues
from neuronscope.studies.sensitivity.masking.answers import Answers, texts
from neuronscope.studies.sensitivity.masking.scalings import TOGETHER, guided_items
from neuronscope.studies.sensitivity.masking.setting import PLAIN, MaskingSetting

SENSITIVE = 5
"""Classes of an augmentation that count as sensitive, as published."""
_FIELDS = ("mean", "low", "high", "p")


def overlap_groups(setting: MaskingSetting, guided: Sequence[Answers]) -> dict[str, xr.Dataset]:
    """Groups `classes`, `overlap` (value, input, augmentation) and `overlap_masked` (value, augmentation, mask).

    Of both: `jaccard` with `jaccard_low` and `jaccard_high`, `jaccard_p` and `jaccard_q` (Benjamini-Yekutieli over the
    group); the chance level is an attribute. Intervals are over classes of images.

    Args:
        setting: of the study.
        guided: of each set.

    Returns:
        `classes` alone where nothing is known of classes, or first classes were not kept; its attribute `missing` or
        `no_overlap` then says why.
    """
    classes = setting.classes
    if "missing" in classes.attrs:
        return {"classes": classes}
    count, predicted = int(classes.attrs["classes"]), setting.spec.top_k
    if setting.spec.keep == "ranks" or predicted >= count:
        said = (
            "first classes were not kept (--keep classes does)"
            if setting.spec.keep == "ranks"
            else f"all {count} classes are among the first {predicted}; choose a smaller --top-k"
        )
        return {"classes": classes.assign_attrs(no_overlap=said)}
    top = classes["number"].to_numpy()[:, :, :SENSITIVE]
    named = [str(name) for name in classes["augmentation_name"].to_numpy()]
    groups = {"classes": classes, "overlap": _unmasked(setting, guided, top, named)}
    masked = _masked(setting, guided, top, named)
    return groups if masked is None else {**groups, "overlap_masked": masked}


def _unmasked(
    setting: MaskingSetting, guided: Sequence[Answers], top: Int[np.ndarray, "v g k"], named: list[str]
) -> xr.Dataset:
    """Every input, every augmentation's classes."""
    inputs = setting.every.inputs
    of = {name: own for own in reversed(guided) for name in own.of.inputs}
    predicted = [_first_classes(setting, of[name], name, [0])[0] for name in inputs]
    draws = draws_needed(top.shape[0] * top.shape[1] * len(inputs), level=setting.spec.level)
    tables = [_table(setting, one, predicted, guided, draws, "overlap", str(v)) for v, one in enumerate(top)]
    found = _group(
        [{field: getattr(one, field) for field in _FIELDS} for one in tables], ("value", "input", "augmentation")
    )
    names = {"input_name": ("input", texts(inputs)), "augmentation_name": ("augmentation", texts(named))}
    return found.assign_coords(_values(setting) | names).assign_attrs(_attrs(setting, top, tables[0].chance))


def _masked(
    setting: MaskingSetting, guided: Sequence[Answers], top: Int[np.ndarray, "v g k"], named: list[str]
) -> xr.Dataset | None:
    """Every augmentation whose own map guides masks, under these; None without any."""
    own = configurations(setting.spec.scales, setting.spec.quantiles)
    predicted = {}
    for answers in guided:
        items = guided_items(setting, answers.of)
        for name in answers.of.inputs:
            places = [p for p, item in enumerate(items, start=1) if (item.variable, item.at) == (name, TOGETHER)]
            if name != PLAIN and name in named and places:
                predicted[name] = _first_classes(setting, answers, name, places)
    if not predicted:
        return None
    rows, chance = [], float("nan")
    draws = draws_needed(len(top) * len(predicted) * len(own), level=setting.spec.level)
    for value, sets in enumerate(top):
        tables = [
            _table(setting, sets[named.index(name)][None], own_classes, guided, draws, "self-masked", str(value), name)
            for name, own_classes in predicted.items()
        ]
        rows.append({field: np.stack([getattr(one, field)[:, 0] for one in tables]) for field in _FIELDS})
        chance = tables[0].chance
    found = _group(rows, ("value", "augmentation", "mask"))
    names = {
        "augmentation_name": ("augmentation", texts(list(predicted))),
        "mask_name": ("mask", texts([one.name("own") for one in own])),
    }
    return found.assign_coords(_values(setting) | names).assign_attrs(_attrs(setting, top, chance))


def _first_classes(
    setting: MaskingSetting, answers: Answers, name: str, places: Sequence[int]
) -> list[Int[np.ndarray, "n d k"]]:
    """Predicted under some masks, for each image and draw of a kind of input."""
    rows = dict(zip(answers.of.inputs, setting.columns(answers.of), strict=True))[name]
    top = np.asarray(answers.top)
    return [top[:, rows, place].astype(np.int64) for place in places]


def _table(
    setting: MaskingSetting,
    top: Int[np.ndarray, "g k"],
    predicted: Sequence[Int[np.ndarray, "n _ s"]],
    guided: Sequence[Answers],
    draws: int,
    *streams: str,
) -> JaccardTable:
    return jaccard_table(
        top,
        predicted,
        classes=int(setting.classes.attrs["classes"]),
        labels=guided[0].label,
        draws=draws,
        rng=setting.run.generator(*streams),
        level=setting.spec.level,
    )


def _group(rows: Sequence[dict[str, np.ndarray]], axes: tuple[str, ...]) -> xr.Dataset:
    """The tables of all values, corrected together."""
    found = {field: np.stack([row[field] for row in rows]) for field in _FIELDS}
    return xr.Dataset(
        {
            "jaccard": (axes, found["mean"]),
            **{f"jaccard_{field}": (axes, found[field]) for field in _FIELDS[1:]},
            "jaccard_q": (axes, by_qvalues(found["p"])),
        }
    )


def _values(setting: MaskingSetting) -> dict[str, tuple[str, np.ndarray]]:
    return {"value_name": ("value", setting.classes["value_name"].to_numpy())}


def _attrs(setting: MaskingSetting, top: Int[np.ndarray, "v g k"], chance: float) -> dict[str, float | int]:
    return {"sensitive": top.shape[2], "predicted": setting.spec.top_k, "chance": chance}
