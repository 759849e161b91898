"""Sensitivities of every activation of a layer as the analyses take them: units, places, factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from neuronscope.maths.map_correlations import coefficient_of_variation

SHARES = ("first", "total", "shapley")
"""Shares of the variance, by their names in a result."""
_MOMENTS = {"first": "", "total": "", "shapley": "shapley_"}
"""Beginning of the names of mean and variance over the rows that a share is of."""


@dataclass(frozen=True, eq=False)
class LayerValues:
    """All values of one layer.

    Attributes:
        layer: its name.
        factors: names of all factors.
        shares: `first`, `total` and `shapley`, as far as they were estimated, cut to 0..1: what lies beyond is error
            of estimation, of near-dead activations by many powers of ten.
        contrast: size of the rank-biserial correlation, nan for factors that are no augmentations; None without.
        variation: coefficient of variation of the activations that each share is of, one for each run that was joined.
        sets: of each factor, which of these it is of.
        space: sizes of the axes of places; () for numbers.
    """

    layer: str
    factors: tuple[str, ...]
    shares: Mapping[str, Float[np.ndarray, "u p g"]]
    contrast: Float[np.ndarray, "u p g"] | None
    variation: Mapping[str, Float[np.ndarray, "u p s"]]
    space: tuple[int, ...]
    sets: tuple[int, ...]

    @property
    def units(self) -> int:
        """How many units the layer has."""
        known = [*self.shares.values(), *(() if self.contrast is None else (self.contrast,))]
        return len(known[0]) if known else 0

    @property
    def places(self) -> int:
        """How many activations a unit has."""
        return int(np.prod(self.space, dtype=np.int64))

    def values(self) -> dict[str, Float[np.ndarray, "u p g"]]:
        """Shares and contrast by name."""
        return {**self.shares, **({} if self.contrast is None else {"contrast": self.contrast})}


def layer_names(tree: xr.DataTree) -> tuple[str, ...]:
    """Layers with maps in a result, in the order of the network."""
    if "maps" not in tree.children:
        return ()
    there = [str(name) for name in tree["maps"].children]
    if "layers" not in tree.children:
        return tuple(there)
    order = [str(name) for name in tree["layers"]["layer_name"].to_numpy()]
    return tuple(name for name in order if name in there)


def layer_values(tree: xr.DataTree, layer: str) -> LayerValues:
    """The values of one layer of a result.

    Args:
        tree: of the result.
        layer: one of `layer_names`.
    """
    table = tree["maps"].children[layer].to_dataset()
    factors = tuple(str(name) for name in table["factor_name"].to_numpy())
    shares = {name: np.clip(_flat(table[name]), 0.0, 1.0) for name in SHARES if name in table}
    variation = {}
    for name in shares:
        prefix = _MOMENTS[name]
        if f"{prefix}mean" in table and f"{prefix}variance" in table:
            mean, variance = (_flat(_of_sets(table[f"{prefix}{moment}"])) for moment in ("mean", "variance"))
            variation[name] = coefficient_of_variation(mean, variance)
    contrast = None
    if "contrast" in table:
        own = np.abs(_flat(table["contrast"]))
        contrast = np.full((*own.shape[:2], len(factors)), np.nan)
        for place, name in enumerate(table["augmentation_name"].to_numpy()):
            contrast[..., factors.index(str(name))] = own[..., place]
    known = next(table[name] for name in (*SHARES, "contrast", "mean", "shapley_mean") if name in table)
    space = tuple(size for name, size in known.sizes.items() if name not in ("unit", "factor", "augmentation", "set"))
    sets = table["factor_set"].to_numpy() - 1 if "factor_set" in table.coords else np.zeros(len(factors), dtype=int)
    return LayerValues(layer, factors, shares, contrast, variation, space, tuple(int(one) for one in sets))


def _of_sets(values: xr.DataArray) -> xr.DataArray:
    """With an axis of runs at the end, also where there was one run only."""
    return values if "set" in values.dims else values.expand_dims("set", -1)


def _flat(values: xr.DataArray) -> Float[np.ndarray, "u p k"]:
    """Places as one axis."""
    found = values.to_numpy()
    return np.asarray(found.reshape(len(found), -1, found.shape[-1]), dtype=np.float64)
