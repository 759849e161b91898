"""Which classes react most to each augmentation: the sensitivities of a finished result's last layer, class by class.

The output for a class that hardly ever varies has shares of nearly no variance, which are noise, and now and then one
row that outweighs all others gives them a narrow interval: classes of which any share is far beyond 0 to 1, or any
interval as wide as a share can be, are left out, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from neuronscope.maths.class_sensitivity import SharedClasses, sensitivity_decay, shared_classes, top_classes

VALUES = ("shapley", "first")
"""Shares of the variance that are looked at, as published."""
MOST = 10
"""Classes of each augmentation that are named, as published."""
_DEPTH = 20  # sensitivities of the falling curve, as published
_WIDEST = 1.0  # of an interval: all that a share can be
_FAR = 0.5  # beyond 0 to 1: no share, but noise
_FEWEST = 2  # classes that can be told apart


def class_groups(tree: xr.DataTree, *, layers: Sequence[str] = (), names: Sequence[str] = ()) -> dict[str, xr.Dataset]:
    """The group `classes`: the most sensitive classes of each augmentation, by Shapley effects and first-order indices.

    Variables by value, augmentation and place: `number` (of the class), `sensitivity`, `low`, `high`; `decay` are the
    largest sensitivities, falling; `known` classes took part. Where both values are there, `common` counts for each
    augmentation which of the most sensitive classes are the same, of classes that both know; `common_p` and `common_q`
    ask whether these are more than of sets at random (`common_chance`, an attribute).

    Args:
        tree: of a result, with `units` and `outputs`.
        layers: that may be the network's last; default: as `outputs` says, or in results without it the last of the
            table, where it has no places.
        names: of the classes; default: as `outputs` says, or numbers.

    Returns:
        A group without variables, whose attribute `missing` says why, where there is no layer of classes.
    """
    layer = _last_layer(tree, layers)
    if layer is None:
        return {"classes": xr.Dataset(attrs={"missing": "no layer of this result has one number for each class"})}
    units = tree["units"].to_dataset()
    table = units.isel(unit=np.flatnonzero(units["layer"].to_numpy() == layer))
    count = table.sizes["unit"]
    augmentations = [str(name) for name in tree["factors"]["factor_name"].to_numpy()]
    kinds = tree["factors"]["kind"].to_numpy()
    places = [place for place, kind in enumerate(kinds) if kind == "augmentation"]
    found = {name: _known(table, name)[:, :, places] for name in VALUES if name in table}
    alive = {name: int(np.isfinite(own[0]).all(axis=1).sum()) for name, own in found.items()}
    values = [name for name in found if alive[name] >= _FEWEST]
    if not values or not places:
        said = f"fewer than {_FEWEST} classes of '{layer}' have Shapley effects or first-order indices that are known"
        return {"classes": xr.Dataset(attrs={"missing": said})}
    most = min(MOST, *(alive[name] for name in values))
    top = [top_classes(*found[name], most=most) for name in values]
    number = np.stack([one.index for one in top])
    named = np.array(_class_names(tree, names, count), dtype=object)
    axes = ("value", "augmentation", "place")
    depth = np.stack([sensitivity_decay(found[name][0], most=_DEPTH).T for name in values])
    variables = {
        "number": (axes, number),
        "sensitivity": (axes, np.stack([one.value for one in top])),
        "low": (axes, np.stack([one.low for one in top])),
        "high": (axes, np.stack([one.high for one in top])),
        "decay": (("value", "augmentation", "rank"), depth),
        "known": (("value",), np.array([alive[name] for name in values])),
    }
    attrs: dict[str, object] = {"layer": layer, "classes": count}
    shared = _shared([found[name] for name in values])
    if shared is not None:
        variables |= {
            "common": (("augmentation",), shared.common),
            "common_p": (("augmentation",), shared.p),
            "common_q": (("augmentation",), shared.q),
        }
        attrs |= {"common_chance": shared.chance, "common_most": shared.most}
    coords = {
        "value_name": ("value", np.array(values, dtype=object)),
        "augmentation_name": ("augmentation", np.array([augmentations[place] for place in places], dtype=object)),
        "class_name": (axes, named[number]),
    }
    return {"classes": xr.Dataset(variables, coords=coords, attrs=attrs)}


def _shared(found: Sequence[Float[np.ndarray, "ends c g"]]) -> SharedClasses | None:
    """Of the classes that both values know: how many of the most sensitive ones they share."""
    if len(found) < len(VALUES):
        return None
    both = np.isfinite(found[0][0]).all(axis=1) & np.isfinite(found[1][0]).all(axis=1)
    if both.sum() < _FEWEST:
        return None
    most = min(MOST, int(both.sum()))
    first, second = (top_classes(*own[:, both], most=most).index for own in found)
    return shared_classes(first, second, classes=int(both.sum()))


def outputs_group(layers: Sequence[str], classes: Sequence[str]) -> xr.Dataset:
    """The group `outputs`: layers whose output is the network's, and the names of its classes."""
    return xr.Dataset(
        coords={
            "layer_name": ("layer", np.array(list(layers), dtype=object)),
            "class_name": ("class", np.array(list(classes), dtype=object)),
        }
    )


def _last_layer(tree: xr.DataTree, layers: Sequence[str]) -> str | None:
    """The layer with one number for each class that the result knows something of."""
    if not {"units", "factors"} <= set(tree.children):
        return None
    there = list(dict.fromkeys(str(name) for name in tree["units"]["layer"].to_numpy()))
    if layers or "outputs" in tree.children:
        wanted = layers or [str(name) for name in tree["outputs"]["layer_name"].to_numpy()]
        return next((name for name in reversed(wanted) if name in there), None)
    last = there[-1] if there else ""
    if "maps" not in tree.children or last not in tree["maps"].children:
        return None
    maps = tree[f"maps/{last}"].to_dataset()
    flat = all(size == 1 for axis, size in maps.sizes.items() if axis in ("y", "x") or str(axis).startswith("axis_"))
    return last if flat else None


def _class_names(tree: xr.DataTree, names: Sequence[str], count: int) -> Sequence[str]:
    if len(names) == count:
        return names
    if "outputs" in tree.children and tree["outputs"].sizes.get("class") == count:
        return [str(name) for name in tree["outputs"]["class_name"].to_numpy()]
    return [str(number) for number in range(count)]


def _known(table: xr.Dataset, name: str) -> Float[np.ndarray, "ends c g"]:
    """Sensitivity of each class and factor and its limits; nan for classes of which nothing is known."""
    value = table[name].to_numpy()
    ends = [table[f"{name}_{end}"].to_numpy() for end in ("low", "high") if f"{name}_{end}" in table]
    low, high = ends if len(ends) == 2 else (np.full_like(value, np.nan),) * 2  # noqa: PLR2004 both ends
    noise = (np.nan_to_num(high - low) >= _WIDEST) | (np.abs(value - 1 / 2) > 1 / 2 + _FAR)
    return np.stack([np.where(noise.any(axis=1, keepdims=True), np.nan, one) for one in (value, low, high)])
