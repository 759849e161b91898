"""What is left of each class without its sub-network, and of the network without anything else: on the report images.

Every finding stands beside random unit sets with as many units in every layer, and beside the interval for the same
images before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int, Int8

from neuronscope.maths.controls import (
    against_controls,
    paired_accuracy_change,
    paired_accuracy_change_by_class,
)
from neuronscope.maths.resampling import bh_qvalues, wilson_interval
from neuronscope.maths.streams import Each, StackRows
from neuronscope.steps import MaskGroup, PredictMasked, PredictVariants
from neuronscope.studies.importance.layers import Alone
from neuronscope.studies.importance.setting import Setting
from neuronscope.studies.importance.variants import Case
from neuronscope.sweep import sweep

NETWORKS_AT_ONCE = 256
"""Edited networks to a sweep, so that little is lost and the table of predictions stays small."""


@dataclass(frozen=True)
class Said:
    """What each edited network said about each image.

    Attributes:
        label: (n,) class of each image.
        predicted: (n, networks).
        skipped: row among the images shown, and cause, of each image that could not be read.
    """

    label: Int[np.ndarray, "n"]
    predicted: Int[np.ndarray, "n v"]
    skipped: tuple[tuple[int, str], ...] = ()

    @property
    def right(self) -> Bool[np.ndarray, "v n"]:
        """Which images each network gets right."""
        return np.ascontiguousarray(self.label == self.predicted.T)


def try_networks(setting: Setting, cases: Sequence[Case]) -> Said:
    """Predictions of every edited network for every labelled report image."""
    layers = tuple(dict.fromkeys(setting.silenced))
    answers = []
    for first in range(0, len(cases), NETWORKS_AT_ONCE):
        some = cases[first : first + NETWORKS_AT_ONCE]
        step = PredictVariants(layers, tuple(case.edits for case in some), seed=setting.run.seed)
        fold = Each(predicted=StackRows("predicted", images=len(setting.report)))
        found = sweep(setting.subject, setting.report, step, fold, run=setting.run, name=f"report-{first}")
        answers.append(found.answer["predicted"])
    return _said([answer.values for answer in answers], answers[0].label, found.skipped)


def try_layer(setting: Setting, how: Alone, groups: tuple[MaskGroup, ...]) -> Said:
    """Predictions with sets of units of one layer silenced."""
    images = setting.report.take(how.rows)
    step = PredictMasked(setting.silenced[how.number], groups, memory=setting.replay_memory)
    fold = Each(predicted=StackRows("predicted", images=len(images)))
    found = sweep(setting.subject, images, step, fold, run=setting.run, name=f"report-layer-{how.number}")
    answer = found.answer["predicted"]
    return _said([answer.values], answer.label, found.skipped)


def _said(values: Sequence[np.ndarray], label: np.ndarray, skipped: tuple[tuple[int, str], ...]) -> Said:
    known = label >= 0
    return Said(label[known].astype(np.int64), np.concatenate(values, axis=1)[known].astype(np.int64), skipped)


def subnetworks(setting: Setting, cases: Sequence[Case], said: Said) -> xr.Dataset:
    """The sub-networks by rule and class: kept alone, taken out, and held against random ones.

    Variables over (rule, class), on the report images: `size`; `keep_own`, `keep_full`, `keep_precision`,
    `keep_informedness` (true minus false positive rate of the class), `modularity_a` (own / full), `modularity_b` (own
    x precision), `keep_labels` (number of labels still predicted); `drop_own`, `drop_others` (changes of accuracy) and
    `drop_selective` (fall for the class minus fall for the others). Accuracies carry `_low` and `_high`; what is held
    against random sets carries `_random`, `_random_low`, `_random_high` (where one random set falls), and `_q`.
    """
    rules = tuple(dict.fromkeys(case.rule for case in cases if case.kind == "keep"))
    table = _Table(setting, said, rules)
    by_key = {(case.kind, case.rule, case.class_number): place for place, case in enumerate(cases) if case.rule}
    random = _Randoms(setting, cases)
    for r, rule in enumerate(rules):
        for k, c in enumerate(setting.classes):
            keep, drop = by_key["keep", rule, c], by_key["drop", rule, c]
            table.put("size", r, k, float(sum(cases[keep].sizes)))
            table.kept(r, k, c, keep, random.like(cases[keep]))
            table.dropped(r, k, c, drop, random.like(cases[drop]))
    return table.dataset()


def masked_networks(setting: Setting, cases: Sequence[Case], said: Said, codes: Int8[np.ndarray, "u c"]) -> xr.Dataset:
    """The masking rule's own networks: units held on and off, and all of them silenced; over (class)."""
    table = _Table(setting, said, ("masking",))
    by_key = {(case.kind, case.class_number): place for place, case in enumerate(cases) if case.rule == "masking"}
    for k, c in enumerate(setting.classes):
        table.kept(0, k, c, by_key["fix", c], [])
        table.dropped(0, k, c, by_key["unfix", c], [])
    found = table.dataset().isel(rule=0, drop=True)
    chosen = codes[:, list(setting.classes)]
    for name, code in (("on", 1), ("off", 0)):
        counts = np.array([(chosen[place] == code).sum(axis=0) for place in setting.places])
        found[name] = (("layer", "class"), counts)
    return found.assign_coords(layer_name=("layer", np.array([layer.name for layer in setting.layers], dtype=object)))


class _Randoms:
    """Finds the random sets that match a case."""

    def __init__(self, setting: Setting, cases: Sequence[Case]) -> None:
        self.own = setting.spec.silence == "other-mean"
        self.places: dict[tuple[str, tuple[int, ...], int], list[int]] = {}
        for place, case in enumerate(cases):
            if case.kind in ("random keep", "random drop"):
                self.places.setdefault((case.kind, case.sizes, case.class_number), []).append(place)

    def like(self, case: Case) -> list[int]:
        return self.places.get((f"random {case.kind}", case.sizes, case.class_number if self.own else -1), [])


class _Table:
    """Fills the variables of edited networks by rule and class."""

    def __init__(self, setting: Setting, said: Said, rules: tuple[str, ...]) -> None:
        self.setting, self.said, self.rules = setting, said, rules
        self.classes = np.array(setting.classes)
        self.right = said.right
        self.shape = (len(rules), len(self.classes))
        self.values: dict[str, np.ndarray] = {}
        k = len(self.classes)
        self.change = np.full((*self.shape, k), np.nan)
        self.change_low, self.change_high = self.change.copy(), self.change.copy()
        self.labels = np.zeros((*self.shape, k + 1), dtype=np.int8)
        self.kept_confusion = np.zeros((*self.shape, k, k + 1), dtype=np.int64)
        self.dropped_confusion = self.kept_confusion.copy()

    def put(self, name: str, r: int, k: int, value: float) -> None:
        self.values.setdefault(name, np.full(self.shape, np.nan))[r, k] = value

    def kept(self, r: int, k: int, c: int, place: int, random: Sequence[int]) -> None:
        """A network with nothing but the sub-network."""
        own = self.said.label == c
        right, says = self.right[place], self.said.predicted[:, place] == c
        level = self.setting.spec.level
        for name, images in (("keep_own", own), ("keep_full", np.ones_like(own))):
            hits, all_ = np.array([right[images].sum()]), np.array([images.sum()])
            low, high = wilson_interval(hits, all_, level=level)
            self.put(name, r, k, float(hits[0] / all_[0]) if all_[0] else np.nan)
            self.put(f"{name}_low", r, k, float(low[0]))
            self.put(f"{name}_high", r, k, float(high[0]))
        precision = float((own & says).sum() / says.sum()) if says.any() else 0.0
        accuracy, full = float(right[own].mean()), float(right.mean())
        self.put("keep_precision", r, k, precision)
        self.put("modularity_a", r, k, accuracy / full if full > 0 else np.nan)
        self.put("modularity_b", r, k, accuracy * precision)
        informed = self._informedness([place], c)[0]
        self.put("keep_informedness", r, k, informed)
        self._against("keep_informedness", r, k, informed, self._informedness(random, c), better="greater")
        seen = self._coded(self.said.predicted[:, place])
        self.labels[r, k] = np.bincount(seen, minlength=len(self.classes) + 1) > 0
        self.put("keep_labels", r, k, float(len(np.unique(self.said.predicted[:, place]))))
        self.kept_confusion[r, k] = self._confusion(place)

    def dropped(self, r: int, k: int, c: int, place: int, random: Sequence[int]) -> None:
        """The network without the sub-network."""
        level = self.setting.spec.level
        own = self.said.label == c
        before, after = self.right[0], self.right[place][None]
        each = self._by_class(after)
        self.change[r, k], self.change_low[r, k], self.change_high[r, k] = each
        for name, images in (("drop_own", own), ("drop_others", ~own)):
            found = paired_accuracy_change(before[images], after[:, images], level=level)
            self.put(name, r, k, float(found.change[0]))
            self.put(f"{name}_low", r, k, float(found.low[0]))
            self.put(f"{name}_high", r, k, float(found.high[0]))
            if name == "drop_own":
                self.put("drop_own_changed_p", r, k, float(found.p[0]))
        falls = self._falls([place], own)
        self.put("drop_selective", r, k, falls["drop_selective"][0])
        controls = self._falls(random, own)
        for name, better in (("drop_own", "less"), ("drop_others", "less"), ("drop_selective", "greater")):
            self._against(name, r, k, falls[name][0], controls[name], better=better)
        self.dropped_confusion[r, k] = self._confusion(place) - self._confusion(0)

    def dataset(self) -> xr.Dataset:
        """All variables; p-values become q-values over rules and classes."""
        found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
        for name, values in self.values.items():
            if name.endswith("_p"):
                found[f"{name[:-2]}_q"] = (("rule", "class"), bh_qvalues(values))
            else:
                found[name] = (("rule", "class"), values)
        pair = ("rule", "class", "affected")
        found |= {"change": (pair, self.change), "change_low": (pair, self.change_low)}
        found |= {"change_high": (pair, self.change_high)}
        found["labels"] = (("rule", "class", "predicted"), self.labels)
        tables = ("rule", "class", "true", "predicted")
        found["keep_confusion"] = (tables, self.kept_confusion)
        found["drop_confusion_change"] = (tables, self.dropped_confusion)
        names = np.array(self.setting.class_names, dtype=object)
        level = self.setting.spec.level
        own = np.array([(self.said.label == c).sum() for c in self.classes])
        hits = np.array([self.right[0][self.said.label == c].sum() for c in self.classes])
        low, high = wilson_interval(hits, own, level=level)
        intact = {
            "intact": hits / np.where(own > 0, own, np.nan),
            "intact_low": low,
            "intact_high": high,
            "images": own,
        }
        found |= {name: (("class",), values) for name, values in intact.items()}
        found["intact_confusion"] = (("true", "predicted"), self._confusion(0))
        found["intact_full"] = ((), np.array(self.right[0].mean()))
        found["report_images"] = ((), np.array(len(self.said.label)))
        return xr.Dataset(
            {name: (axes, values) for name, (axes, values) in found.items()},
            coords={
                "rule_name": ("rule", np.array(self.rules, dtype=object)),
                "class_name": ("class", names),
                "affected_name": ("affected", names),
                "true_name": ("true", names),
                "predicted_name": ("predicted", np.array([*names, "other"], dtype=object)),
            },
        )

    def _against(
        self, name: str, r: int, k: int, observed: float, controls: Float[np.ndarray, "d"], *, better: str
    ) -> None:
        parts = ("random", "random_low", "random_high", "p")
        if len(controls) < 2:  # noqa: PLR2004 nothing to be held against
            for part in parts:
                self.put(f"{name}_{part}", r, k, np.nan)
            return
        found = against_controls(np.array([observed]), controls[:, None], level=self.setting.spec.level)
        chosen = found.p_greater if better == "greater" else found.p_less
        for part, value in zip(parts, (found.mean, found.low, found.high, chosen), strict=True):
            self.put(f"{name}_{part}", r, k, float(value[0]))

    def _informedness(self, places: Sequence[int], c: int) -> Float[np.ndarray, "d"]:
        own = self.said.label == c
        says = self.said.predicted[:, list(places)] == c
        if not own.any() or own.all():
            return np.full(len(places), np.nan)
        return np.asarray(says[own].mean(axis=0) - says[~own].mean(axis=0))

    def _falls(self, places: Sequence[int], own: np.ndarray) -> dict[str, np.ndarray]:
        before, after = self.right[0].astype(np.float64), self.right[list(places)].astype(np.float64)
        mine = (after[:, own] - before[own]).mean(axis=1) if own.any() else np.full(len(places), np.nan)
        others = (after[:, ~own] - before[~own]).mean(axis=1) if (~own).any() else np.full(len(places), np.nan)
        return {"drop_own": mine, "drop_others": others, "drop_selective": others - mine}

    def _by_class(self, after: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        coded = self._coded(self.said.label)
        labels = np.where(coded < len(self.classes), coded, -1)
        found = paired_accuracy_change_by_class(
            self.right[0], after, labels, classes=len(self.classes), level=self.setting.spec.level
        )
        return found.change[0], found.low[0], found.high[0]

    def _coded(self, numbers: np.ndarray) -> np.ndarray:
        """Class numbers as places among the classes in question; the number of these for all others."""
        code = np.full(max(len(self.setting.subject.classes), int(numbers.max(initial=0)) + 1), len(self.classes))
        code[self.classes] = np.arange(len(self.classes))
        return np.asarray(code[numbers])

    def _confusion(self, place: int) -> Int[np.ndarray, "k l"]:
        k = len(self.classes)
        true, said = self._coded(self.said.label), self._coded(self.said.predicted[:, place])
        return np.bincount(true * (k + 1) + said, minlength=(k + 1) ** 2).reshape(k + 1, k + 1)[:k]
