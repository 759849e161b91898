"""How formulas fit on images they were not searched on: scores with intervals, and the same scores by chance.

Everything follows from a few whole numbers for each detector (a unit above its threshold, or in a range of its
activations) and image. The null lays each image's mask over another image's labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from neuronscope.maths.formula_search import Score
from neuronscope.maths.formula_search.scores import Form
from neuronscope.maths.signatures import UnitCounts


@dataclass(frozen=True, eq=False)
class Fit:
    """Pixels of detectors and of their formulas.

    Attributes:
        active: where the detector is active.
        hits: where the formula holds, too.
        areas: where the formula holds.
        chance: hits of all images together when masks lie over other images' labels.
        other: for each draw, the image whose labels each image's mask lies over.
        cells: pixels of an image.
        step_hits: hits of the best formula of each length, all images together; no columns where nobody asked.
        step_areas: where these formulas hold.
    """

    active: Int[np.ndarray, "d n"]
    hits: Int[np.ndarray, "d n"]
    areas: Int[np.ndarray, "d n"]
    chance: Int[np.ndarray, "d draws"]
    other: Int[np.ndarray, "draws n"]
    cells: int
    step_hits: Int[np.ndarray, "d lengths"]
    step_areas: Int[np.ndarray, "d lengths"]

    def among_firing(self) -> Fit:
        """The same, with formulas counted only in images where the detector is active."""
        areas = np.where(self.active > 0, self.areas, 0)
        return replace(self, areas=areas)

    @property
    def by_length(self) -> Float[np.ndarray, "d lengths"]:
        """IoU of the best formula of each length; nan where it and the detector are nowhere."""
        union = self.active.sum(axis=1, dtype=np.int64)[:, None] + self.step_areas - self.step_hits
        return np.where(union > 0, self.step_hits / np.maximum(union, 1), np.nan)


def held_out_score(fit: Fit, score: Score) -> Float[np.ndarray, "d"]:
    """The score of each formula over all images; nan where neither the detector nor the formula is anywhere."""
    area, hits = _totals(fit.areas), _totals(fit.hits)
    product = _products(fit.active, fit.areas)
    values = np.array(
        [form.single(*one) for form, *one in zip(_forms(fit, score), area, hits, product, strict=True)],
        dtype=np.float64,
    )
    return np.where((area > 0) | (_totals(fit.active) > 0), values, np.nan)


def chance_scores(fit: Fit, score: Score, *, firing: bool = False) -> Float[np.ndarray, "d draws"]:
    """The same score for each draw of the null.

    Args:
        fit: all images.
        score: which.
        firing: formulas count only in images where the detector is active.
    """
    draws = len(fit.other)
    area = np.repeat(_totals(fit.areas)[:, None], draws, axis=1)
    product = np.zeros_like(area)
    wanted = score.name in ("imrou", "imrou_normalised")
    if wanted or firing:
        anywhere = (fit.active > 0).astype(np.float64)
        for draw, other in enumerate(fit.other):
            moved = fit.areas[:, other].astype(np.float64)
            if firing:
                area[:, draw] = np.einsum("dn,dn->d", anywhere, moved)
            product[:, draw] = np.einsum("dn,dn->d", fit.active.astype(np.float64), moved)
    forms = _forms(fit, score)
    found = np.zeros((len(forms), draws))
    for row, form in enumerate(forms):
        found[row] = form.value(area[row], fit.chance[row].astype(np.float64), product[row])
    return found


def iou_interval(fit: Fit, *, level: float) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "d"]]:
    """Limits of the IoU for images like these: those of a ratio of sums over images.

    The variance of a ratio r of two means is that of `hits - r union` over the images (Cochran 1977, section 2.11).
    Limits are nan where fewer than two images have anything in them.
    """
    union = (fit.active + fit.areas - fit.hits).astype(np.float64)
    total = union.sum(axis=1)
    n = union.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = fit.hits.sum(axis=1) / total
        rest = fit.hits - ratio[:, None] * union
        error = np.sqrt(n / (n - 1) * (rest**2).sum(axis=1)) / total
    wide = stats.t.ppf((1 + level) / 2, n - 1) * error
    seen = (union > 0).sum(axis=1) > 1
    low, high = np.clip(ratio - wide, 0, 1), np.clip(ratio + wide, 0, 1)
    return np.where(seen, low, np.nan), np.where(seen, high, np.nan)


def shares(fit: Fit) -> dict[str, Float[np.ndarray, "d"]]:
    """The plain shares, 0 to 1: of pixels, and of images (samples and explanation coverage; La Rosa et al. 2023)."""
    hits, areas, active = _totals(fit.hits), _totals(fit.areas), _totals(fit.active)
    both = (fit.hits > 0).sum(axis=1)
    everything = fit.active.shape[1] * fit.cells
    return {
        "detection_accuracy": _ratio(hits, areas),
        "activation_coverage": _ratio(hits, active),
        "samples_coverage": _ratio(both, (fit.areas > 0).sum(axis=1)),
        "explanation_coverage": _ratio(both, (fit.active > 0).sum(axis=1)),
        "active_share": active / everything,
        "formula_share": areas / everything,
    }


def _forms(fit: Fit, score: Score) -> list[Form]:
    """The score of each detector: its masks on these images are all that a form needs to know."""
    none = np.zeros(fit.active.shape[1])
    return [
        score.form(
            UnitCounts(
                active=row, images=row, chance=none, own_chance=float((row.astype(float) ** 2).sum()), cells=fit.cells
            )
        )
        for row in fit.active.astype(np.int64)
    ]


def _products(active: Int[np.ndarray, "d n"], areas: Int[np.ndarray, "d n"]) -> Float[np.ndarray, "d"]:
    return np.asarray(np.einsum("dn,dn->d", active.astype(np.float64), areas.astype(np.float64)))


def _totals(values: Int[np.ndarray, "d n"]) -> Float[np.ndarray, "d"]:
    return np.asarray(values.sum(axis=1, dtype=np.int64).astype(np.float64))


def _ratio(above: np.ndarray, below: np.ndarray) -> Float[np.ndarray, "d"]:
    return np.where(below > 0, above / np.maximum(below, 1), np.nan)
