"""Whether the maps of a finished result tell their factors apart, layer by layer: linear discriminants."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from neuronscope.errors import InputError
from neuronscope.maths.discriminants import COMPONENTS, Discriminants, Split, discriminate
from neuronscope.maths.resampling import by_qvalues
from neuronscope.run import Run
from neuronscope.studies.sensitivity.analyses.values import SHARES, LayerValues, layer_names, layer_values

_NUMBERS = ("test", "low", "high", "train", "null", "null_high", "p")
_FEWEST = 2
"""Places of a layer with maps."""


def check_discriminants(units: Mapping[str, int], *, folds: int) -> None:
    """Refuse layers that cannot be split into that many parts, before hours of work.

    Args:
        units: of each layer with maps.
        folds: of the cross-validation.

    Raises:
        InputError: a layer has fewer units than folds.

    Example:
        >>> check_discriminants({"conv": 64}, folds=5)
    """
    for layer, count in units.items():
        if count < folds:
            message = (
                f"the units of layer '{layer}' cannot be split into {folds} folds: {folds} units or more expected, got "
                f"{count}. Use fewer folds, leave out the layer, or leave out the discriminants"
            )
            raise InputError(message)


def discriminant_groups(
    tree: xr.DataTree,
    *,
    folds: int = 5,
    repeats: int = 10,
    permutations: int = 199,
    split: Split = "units",
    level: float = 0.95,
    run: Run,
) -> dict[str, xr.Dataset]:
    """The group `discriminants` of a result: a row for each layer with maps, and a sample for each unit and factor.

    Variables by layer and value (first, total, shapley): `test`, `train` (balanced accuracy), `low`, `high`, `null`,
    `null_high`, `p`, `q` (Benjamini-Yekutieli over all of them), `units` (that took part), `spread` (shares
    of the two discriminants), `confusion` (rows
    are true factors). `projection` has two numbers for each sample; `sample_layer`, `sample_unit`, `sample_factor` say
    whose. Layers of which fewer units than folds have a value are nan.

    Args:
        tree: of the result.
        folds: parts that units are split into.
        repeats: new splits.
        permutations: of factors within units, for the null.
        split: by units, or the leaking one by samples.
        level: coverage of the intervals.
        run: seed.

    Returns:
        Empty where no layer has maps of two factors.
    """
    layers, found = [], []
    for name in layer_names(tree):
        layer = layer_values(tree, name)
        if layer.places < _FEWEST or not layer.shares or len(layer.factors) < _FEWEST:
            continue
        own = {}
        for share, values in layer.shares.items():
            if np.isfinite(values).any(axis=(1, 2)).sum() >= folds:
                own[share] = discriminate(
                    values,
                    folds=folds,
                    repeats=repeats,
                    permutations=permutations,
                    split=split,
                    level=level,
                    rng=run.generator("discriminants", name, share),
                )
        layers.append(layer)
        found.append(own)
    if not layers:
        return {}
    factors = layers[0].factors
    shares = [name for name in SHARES if any(name in one.shares for one in layers)]
    rows = ("layer", "share")
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        name: (rows, np.array([[getattr(own.get(share), name, np.nan) for share in shares] for own in found]))
        for name in _NUMBERS
    }
    variables["q"] = (rows, by_qvalues(variables["p"][1]))
    variables["units"] = (
        rows,
        np.array([[int(own[share].kept.sum()) if share in own else 0 for share in shares] for own in found]),
    )
    variables["places"] = (("layer",), np.array([layer.places for layer in layers]))
    variables["spread"] = ((*rows, "axis"), np.array([[_spread(own.get(share)) for share in shares] for own in found]))
    variables["confusion"] = (
        (*rows, "factor", "predicted"),
        np.array([[_confusion(own.get(share), len(factors)) for share in shares] for own in found]),
    )
    parts = [
        np.stack([_projection(own.get(share), layer) for share in shares])
        for own, layer in zip(found, layers, strict=True)
    ]
    variables["projection"] = (("share", "sample", "axis"), np.concatenate(parts, axis=1))
    count = [layer.units * len(factors) for layer in layers]
    coords = {
        "layer_name": ("layer", np.array([layer.layer for layer in layers], dtype=object)),
        "share_name": ("share", np.array(shares, dtype=object)),
        "factor_name": ("factor", np.array(factors, dtype=object)),
        "sample_layer": ("sample", np.repeat(np.arange(len(layers)), count)),
        "sample_unit": ("sample", np.concatenate([np.repeat(np.arange(one.units), len(factors)) for one in layers])),
        "sample_factor": ("sample", np.tile(np.arange(len(factors)), sum(one.units for one in layers))),
    }
    options = {"folds": folds, "repeats": repeats, "permutations": permutations, "split": split}
    return {"discriminants": xr.Dataset(variables, coords=coords, attrs=options)}


def _spread(found: Discriminants | None) -> np.ndarray:
    wide = np.full(COMPONENTS, np.nan)
    if found is not None:
        wide[: len(found.spread)] = found.spread
    return wide


def _confusion(found: Discriminants | None, factors: int) -> np.ndarray:
    return np.full((factors, factors), np.nan) if found is None else found.confusion


def _projection(found: Discriminants | None, layer: LayerValues) -> np.ndarray:
    """Of all units of a layer; nan for those that took no part, and where there is no second discriminant."""
    wide = np.full((layer.units, len(layer.factors), COMPONENTS), np.nan)
    if found is not None:
        wide[found.kept, :, : found.projection.shape[2]] = found.projection
    return wide.reshape(-1, COMPONENTS)
