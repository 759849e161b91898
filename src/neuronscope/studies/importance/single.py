"""One layer alone: its share of each class's sub-network taken out, curves along a ranking, and units one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from scipy import special

from neuronscope.maths.controls import (
    against_controls,
    area_between,
    curve_area,
    mcnemar_exact,
    paired_accuracy_change,
)
from neuronscope.maths.resampling import bh_qvalues
from neuronscope.maths.streams import MomentsAnswer
from neuronscope.steps import FALLS
from neuronscope.studies.importance.layers import Alone
from neuronscope.studies.importance.setting import Setting
from neuronscope.studies.importance.variants import LayerCase
from neuronscope.studies.importance.verify import Said

_DRAWS = 1000  # bootstrap samples behind the area between two curves


def layer_effects(
    setting: Setting, rules: Sequence[str], found: Mapping[int, tuple[Alone, Sequence[LayerCase], Said]]
) -> xr.Dataset:
    """What taking out a class's units of one layer does, by layer, rule and class, and the curves of every ranking.

    Args:
        setting: the study's.
        rules: names, in order.
        found: number of the layer -> how hard, what was tried on it, and what the network said.

    Returns:
        Over (layer, rule, class): `drop_own`, `drop_others`, `drop_selective`, `keep_own` with intervals, controls and
        q-values as in `subnetworks`; `between`, the area between insertion and deletion curve. Over (..., step):
        `deletion` and `insertion`, balanced accuracy of telling the class from the others (0.5: no better than chance).
    """
    numbers = list(found)
    shape = (len(numbers), len(rules), len(setting.classes))
    steps = setting.spec.curves + 1
    values: dict[str, np.ndarray] = {}
    curves = {name: np.full((*shape, steps), np.nan) for name in ("deletion", "insertion")}
    random_curves = {name: np.full((shape[0], shape[2], steps), np.nan) for name in curves}

    def put(name: str, place: tuple[int, int, int], value: float) -> None:
        values.setdefault(name, np.full(shape, np.nan))[place] = value

    for i, number in enumerate(numbers):
        _, cases, said = found[number]
        layer = _Layer(setting, cases, said)
        for k, c in enumerate(setting.classes):
            for name, table in random_curves.items():
                table[i, k] = layer.random_curve(name, c)
            for r, rule in enumerate(rules):
                for name, value in layer.effects(rule, c).items():
                    put(name, (i, r, k), value)
                for name, curve in layer.curves(rule, c).items():
                    curves[name][i, r, k] = curve
    axes = ("layer", "rule", "class")
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name, table in values.items():
        if name.endswith("_p"):
            variables[f"{name[:-2]}_q"] = (axes, bh_qvalues(table))
        else:
            variables[name] = (axes, table)
    variables |= {name: ((*axes, "step"), table) for name, table in curves.items()}
    variables |= {f"{name}_random": (("layer", "class", "step"), table) for name, table in random_curves.items()}
    variables["draws"] = (("layer",), np.array([found[number][0].draws for number in numbers]))
    variables["images"] = (("layer",), np.array([len(found[number][2].label) for number in numbers]))
    return xr.Dataset(
        variables,
        coords={
            "layer_name": ("layer", np.array([setting.layers[number].name for number in numbers], dtype=object)),
            "rule_name": ("rule", np.array(rules, dtype=object)),
            "class_name": ("class", np.array(setting.class_names, dtype=object)),
            "fraction": ("step", np.arange(steps) / setting.spec.curves),
        },
    )


class _Layer:
    """Everything said with one layer changed."""

    def __init__(self, setting: Setting, cases: Sequence[LayerCase], said: Said) -> None:
        self.setting, self.said = setting, said
        self.own_fill = setting.spec.silence == "other-mean"
        self.right = said.right
        self.places: dict[tuple[str, str, int, int], list[int]] = {}
        for place, case in enumerate(cases):
            self.places.setdefault((case.kind, case.rule, case.class_number, case.step), []).append(place)
        self.counts = {(case.rule, case.class_number): case.count for case in cases if case.kind == "drop"}
        first = next(key for key in self.places if key[0] == "deletion" and key[3] == 0)
        self.intact = self.places[first][0]  # nothing is silenced at the start of a deletion curve

    def effects(self, rule: str, c: int) -> dict[str, float]:
        level = self.setting.spec.level
        own = self.said.label == c
        drop = self.places["drop", rule, c, 0][0]
        keep = self.places["keep", rule, c, 0][0]
        values: dict[str, float] = {}
        for name, images in (("drop_own", own), ("drop_others", ~own)):
            found = paired_accuracy_change(self.right[self.intact][images], self.right[[drop]][:, images], level=level)
            values |= {name: found.change[0], f"{name}_low": found.low[0], f"{name}_high": found.high[0]}
        values["drop_selective"] = values["drop_others"] - values["drop_own"]
        values["keep_own"] = float(self.right[keep][own].mean())
        random = self.random_drops(rule, c)
        mine, others = self._falls(random, own)
        controls = {"drop_own": mine, "drop_others": others, "drop_selective": others - mine}
        for name, draws in controls.items():
            if len(draws) < 2:  # noqa: PLR2004 nothing to be held against
                continue
            found_ = against_controls(np.array([values[name]]), draws[:, None], level=level)
            values |= {f"{name}_random": found_.mean[0], f"{name}_random_low": found_.low[0]}
            values |= {f"{name}_random_high": found_.high[0]}
            values[f"{name}_p"] = (found_.p_greater if name == "drop_selective" else found_.p_less)[0]
        return {name: float(value) for name, value in (values | self.areas(rule, c)).items()}

    def random_drops(self, rule: str, c: int) -> list[int]:
        """Random sets of the size that the rule takes from this layer for the class."""
        count = self.counts[rule, c]
        return self.places.get(("drop", f"random {count}", c if self.own_fill else -1, 0), [])

    def curves(self, rule: str, c: int) -> dict[str, np.ndarray]:
        return {name: self._balanced(self._along(name, rule, c), c).mean(axis=1) for name in ("deletion", "insertion")}

    def areas(self, rule: str, c: int) -> dict[str, float]:
        """Area between the curves, with an interval over the images and beside random orders."""
        fractions = np.arange(self.setting.spec.curves + 1) / self.setting.spec.curves
        insertion, deletion = (self._balanced(self._along(n, rule, c), c) for n in ("insertion", "deletion"))
        # of its own, so that a class's interval does not depend on which classes come before it
        rng = self.setting.run.generator("importance", "areas", rule, str(c))
        found = area_between(
            fractions, insertion, deletion, rng=rng, draws=_DRAWS, level=self.setting.spec.level
        ).between
        values = {"between": float(found.value), "between_low": float(found.low), "between_high": float(found.high)}
        draws = self._random_areas(c, fractions)
        if len(draws) > 1:
            held = against_controls(np.array([values["between"]]), draws[:, None], level=self.setting.spec.level)
            values |= {"between_random": held.mean[0], "between_random_low": held.low[0]}
            values |= {"between_random_high": held.high[0], "between_p": held.p_greater[0]}
        return values

    def random_curve(self, name: str, c: int) -> np.ndarray:
        """Mean of the curves along random orders; nan without any."""
        at = c if self.own_fill else -1
        steps = range(self.setting.spec.curves + 1)
        if (name, "random", at, 0) not in self.places:
            return np.full(len(steps), np.nan)
        return np.array(
            [self._balanced(self.said.predicted[:, self.places[name, "random", at, s]].T, c).mean() for s in steps]
        )

    def _random_areas(self, c: int, fractions: np.ndarray) -> np.ndarray:
        at = c if self.own_fill else -1
        if ("deletion", "random", at, 0) not in self.places:
            return np.zeros(0)
        heights = {}
        for name in ("insertion", "deletion"):
            places = np.array([self.places[name, "random", at, step] for step in range(len(fractions))])
            says = self.said.predicted[:, places.ravel()].T
            heights[name] = self._balanced(says, c).mean(axis=1).reshape(places.shape)
        return np.asarray(curve_area(fractions, heights["insertion"] - heights["deletion"]))

    def _along(self, name: str, rule: str, c: int) -> np.ndarray:
        places = [self.places[name, rule, c, step][0] for step in range(self.setting.spec.curves + 1)]
        return self.said.predicted[:, places].T

    def _balanced(self, says: np.ndarray, c: int) -> np.ndarray:
        """For each image whether it was told rightly if it is of the class, weighted so that both sides count alike."""
        own = self.said.label == c
        weights = np.where(own, len(own) / (2 * max(own.sum(), 1)), len(own) / (2 * max((~own).sum(), 1)))
        return np.asarray(((says == c) == own) * weights)

    def _falls(self, places: Sequence[int], own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not places:
            return np.zeros(0), np.zeros(0)
        before, after = self.right[self.intact].astype(np.float64), self.right[list(places)]
        mine, others = (after[:, part].mean(axis=1) - before[part].mean() for part in (own, ~own))
        return mine, others


def unit_effects(
    setting: Setting, answers: Mapping[int, Mapping[str, MomentsAnswer]]
) -> dict[str, tuple[tuple[str, ...], np.ndarray, str, str]]:
    """What silencing each unit alone costs each class: means with intervals and p-values; nan in other layers.

    The test of accuracy is McNemar's exact one on the images that changed sides; that of the logit is Student's on the
    paired differences. Limits are Student's.

    Args:
        setting: the study's.
        answers: number of the layer -> measurement -> moments by class of the network.
    """
    units = sum(layer.units for layer in setting.layers)
    classes = list(setting.classes)
    meanings = {
        "accuracy_fall": ("fall of the class's accuracy when the unit alone is silenced", "fraction"),
        "logit_fall": ("fall of the class's logit when the unit alone is silenced", "logit"),
        "loss_rise": ("rise of the loss of the class's images when the unit alone is silenced", "nat"),
    }
    variables: dict[str, tuple[tuple[str, ...], np.ndarray, str, str]] = {}
    axes = ("unit", "class")
    for name in FALLS:
        parts = {part: np.full((units, len(classes)), np.nan) for part in ("", "_low", "_high", "_p")}
        for number, found in answers.items():
            place, moments = setting.places[number], found[name]
            count = moments.count[classes][:, None].astype(np.float64)
            mean, variance = moments.mean[classes], moments.variance[classes]
            with np.errstate(invalid="ignore", divide="ignore"):
                error = np.sqrt(variance / count)
                half = special.stdtrit(np.maximum(count - 1, 1), (1 + setting.spec.level) / 2)
                if name == "accuracy_fall":
                    changed = np.rint(count * mean**2 + (count - 1) * variance)
                    lost = np.rint((changed + np.rint(count * mean)) / 2)
                    safe = np.nan_to_num(np.stack([changed - lost, lost])).astype(np.int64)
                    p = np.where(np.isnan(mean), np.nan, mcnemar_exact(safe[0], safe[1]))
                else:
                    t = np.where(error > 0, mean / error, np.where(mean == 0, 0.0, np.inf))
                    p = 2 * special.stdtr(np.maximum(count - 1, 1), -np.abs(t))
            for part, value in (("", mean), ("_low", mean - half * error), ("_high", mean + half * error), ("_p", p)):
                parts[part][place] = value.T
        meaning, unit = meanings[name]
        for part, said in (("", ""), ("_low", ", lower limit"), ("_high", ", upper limit")):
            variables[f"{name}{part}"] = (axes, parts[part], f"{meaning}{said}", unit)
        variables[f"{name}_q"] = (axes, bh_qvalues(parts["_p"]), f"q-value of: {meaning}", "")
    return variables
