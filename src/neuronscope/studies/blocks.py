"""Layers in as few groups as fit into memory, and single layers in blocks of their units where they must be."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise

from neuronscope.errors import InputError
from neuronscope.units import LayerInfo


def layer_blocks(
    layers: Sequence[LayerInfo],
    *,
    fits: Callable[[tuple[LayerInfo, ...]], bool],
    refuse: Callable[[LayerInfo], str],
) -> list[tuple[LayerInfo, ...]]:
    """The layers, or parts of them, in consecutive groups.

    Args:
        layers: in order.
        fits: whether there is room for a group.
        refuse: what to say when not even one unit of a layer fits.

    Raises:
        InputError: with what `refuse` says.
    """
    groups: list[tuple[LayerInfo, ...]] = []
    for layer in layers:
        if groups and fits((*groups[-1], layer)):
            groups[-1] = (*groups[-1], layer)
            continue
        parts = unit_parts(layer, lambda part: fits((part,)))
        if not parts:
            raise InputError(refuse(layer))
        groups.extend((part,) for part in parts)
    return groups


def unit_parts(layer: LayerInfo, fits: Callable[[LayerInfo], bool]) -> list[LayerInfo]:
    """A layer in as few blocks of units as fit, of nearly the same size; none where not even one unit fits.

    Args:
        layer: what to split.
        fits: whether there is room for a part; where there is, there must be for smaller ones too.

    Example:
        >>> layer = LayerInfo("conv1", "conv", (10, 9, 9), 10)
        >>> [part.title for part in unit_parts(layer, lambda part: part.units <= 4)]
        ['conv1 units 0-2', 'conv1 units 3-5', 'conv1 units 6-9']
    """
    if fits(layer):
        return [layer]
    # the place of the first width from 1 that does not fit: the last one that does
    widest = bisect_left(range(1, layer.units), True, key=lambda width: not fits(layer.part(0, width)))
    if widest == 0:
        return []
    count = -(-layer.units // widest)
    bounds = [number * layer.units // count for number in range(count + 1)]
    return [layer.part(first, last) for first, last in pairwise(bounds)]


def block_title(layers: Sequence[LayerInfo]) -> str:
    """What there is to see of a group that holds part of a layer, empty for whole layers: `conv1 units 0-31`."""
    parts = [layer.title for layer in layers if layer.whole is not None]
    others = len(layers) - len(parts)
    more = [f"{others} more layer{'s' if others > 1 else ''}"] if others else []
    return ", ".join([*parts, *more]) if parts else ""
