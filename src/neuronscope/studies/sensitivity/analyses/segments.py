"""Do units of segments, each on one colour channel, have their factors go together as in the whole network?

A unit's matrix holds the correlations between its factors across the places of its map. It is compared unit by unit
with that of the same unit in the whole network, beside what two different units have, and layer by layer, beside what
chance makes of two groups of the same units. Maps of other sizes are no hindrance: each is correlated over its own
places.

Source of the summaries: the published notebook on single-channel segments (5-2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations_with_replacement

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.maths.correlation_matrices import MatrixDifference, matrix_difference
from neuronscope.maths.map_correlations import (
    MeanCorrelations,
    Method,
    Missing,
    mean_correlations,
    place_correlations,
)
from neuronscope.maths.matrix_tests import Triangle, exchange_test, mantel_test
from neuronscope.maths.resampling import by_qvalues
from neuronscope.result import Result
from neuronscope.run import Run
from neuronscope.studies.sensitivity.analyses.values import SHARES, layer_names, layer_values

ORIGINAL = "original"
"""What the whole network is called beside the channels."""

DRAWS = 999
"""Of every test that exchanges units or factors."""

_FEWEST = 3
"""Places that a map needs: of two, every correlation is full."""
_KEPT = tuple(field.name for field in fields(MeanCorrelations) if field.name not in ("counted", "units"))
_TESTS = ("distance", "distance_null", "distance_null_high", "distance_p", "alike", "alike_p")


@dataclass(frozen=True)
class Piece:
    """A segment of a result.

    Attributes:
        name: of the segment.
        module: its last module, a layer of the whole network.
        layers: channel -> layer of the result.
        units: numbers in the network of the units of each of these layers, in their order.
    """

    name: str
    module: str
    layers: Mapping[str, str]
    units: tuple[int, ...]


def pieces_of(segments: xr.Dataset) -> tuple[Piece, ...]:
    """The segments of a result, in order.

    Args:
        segments: the group of that name: a row for each unit and channel.
    """
    layer, channel, segment, modules = (
        [str(one) for one in segments[name].to_numpy()] for name in ("layer", "channel", "segment", "modules")
    )
    found = []
    for name in dict.fromkeys(segment):
        rows = [row for row, one in enumerate(segment) if one == name]
        layers = {channel[row]: layer[row] for row in rows}
        first = [row for row in rows if layer[row] == layer[rows[0]]]
        units = tuple(int(one) for one in segments["index"].to_numpy()[first])
        found.append(Piece(name, modules[rows[0]].rpartition(",")[2], layers, units))
    return tuple(found)


def check_whole(
    whole: Result, *, fingerprint: str, factors: Mapping[str, str], units: Mapping[str, Sequence[int]]
) -> None:
    """Refuse a result that segments cannot be compared with.

    Args:
        whole: of the network itself.
        fingerprint: of the network that the segments are of.
        factors: of the segments' result: name -> what it ranges over.
        units: last module of each segment -> its units.

    Raises:
        InputError: a result of another study, network, or with other factors, of segments, without maps, or with fewer
            units.
        UnknownName: a layer that it lacks.
    """
    origin, groups = whole.provenance, whole.tree.children
    wrong = {
        f"the study {origin.study}": origin.study != "sensitivity",
        "segments": "segments" in groups,
        "a run without maps of factors": "maps" not in groups or "factors" not in groups,
        "several runs joined": "factors" in groups and "factor_set" in groups["factors"].coords,
    }
    what = next((text for text, is_so in wrong.items() if is_so), None)
    if what is not None:
        message = (
            f"--whole-from gives a result of {what} ({origin.subject}): expected one of the study sensitivity, of the "
            "whole network. Make one with: neuronscope run sensitivity, without --segments"
        )
        raise InputError(message)
    if origin.subject_fingerprint != fingerprint:
        message = (
            f"--whole-from gives a result of another network ({origin.subject}), or of other weights: expected the one "
            "that the segments are of. Give the result that their units were chosen from"
        )
        raise InputError(message)
    theirs = factor_ranges(whole.tree["factors"].to_dataset())
    differing = [name for name in {**factors, **theirs} if factors.get(name) != theirs.get(name)]
    if differing:
        name = differing[0]
        message = (
            f"--whole-from gives a result with other factors: '{name}' is {theirs.get(name, 'not there')} in it, and "
            f"{factors.get(name, 'not there')} here. Expected the same augmentations, ranges and other factors: change "
            "them here, or give another result"
        )
        raise InputError(message)
    known = {name: node.sizes["unit"] for name, node in groups["maps"].children.items()}
    for module, own in units.items():
        if module not in known:
            message = (
                f"--whole-from gives a result without '{module}', where a segment ends.{nearest(module, known)} All: "
                f"{', '.join(known)}. Leave out the segment, or run the whole network with --layers {module}"
            )
            raise UnknownName(message)
        if own and max(own) >= known[module]:
            message = (
                f"unit {max(own)} of '{module}' is not in the result of --whole-from: expected one of its "
                f"{known[module]} units. Give a result of the whole layer"
            )
            raise InputError(message)


def factor_ranges(table: xr.Dataset) -> dict[str, str]:
    """What each factor of a result ranges over, as far as the design says it: of augmentations their parameters."""
    names, kinds, ranges = ([str(one) for one in table[name].to_numpy()] for name in ("factor_name", "kind", "range"))
    return {
        name: said if kind == "augmentation" else "there" for name, kind, said in zip(names, kinds, ranges, strict=True)
    }


def segment_groups(
    tree: xr.DataTree,
    whole: xr.DataTree,
    *,
    method: Method = "spearman",
    missing: Missing = "all",
    level: float = 0.95,
    run: Run,
) -> dict[str, xr.Dataset]:
    """The group `whole_network` of a result of segments: their correlations beside those of the whole network.

    Axes are `segment`, `share` (first, total, shapley), `source` (channels, and `original` for the whole network),
    `channel`, and `pair` of sources.

    * `own_mean`, `own_deviation`, `own_low`, `own_high`, `own_p`, `own_q`: correlation of two factors across the places
      of each unit, over units (Benjamini-Yekutieli over each matrix).
    * `difference_mean`, `difference_deviation`: absolute difference to the whole network, of the same units.
    * `apart` with `apart_low`, `apart_high`: its mean over units and pairs of factors; `apart_mismatched`: that of
      different units; `apart_p`, `apart_q`: that units are closer to themselves than to others (Benjamini-Yekutieli
      over the segments and channels of a share).
    * `distance`: mean absolute difference of the mean matrices of two layers (`segment`, `other_segment`) for each pair
      of sources; `distance_null`, `distance_null_high`, `distance_p`, `distance_q`: beside groups made at random.
    * `alike`: Spearman's correlation of their entries; `alike_p`, `alike_q`: by factors in random order. Pairs with the
      whole network are over the upper triangle with its diagonal, others without, as published. Both are corrected over
      all pairs of layers and sources of a share.

    Args:
        tree: of the segments' result.
        whole: of the whole network's.
        method: which coefficient.
        missing: what units without a coefficient mean.
        level: coverage of the intervals.
        run: seed.

    Returns:
        Empty where no segment has maps of at least three places, here and in the whole network; those that have not are
        named in the attribute `left_out`.
    """
    every = pieces_of(tree["segments"].to_dataset())
    there = set(layer_names(tree))
    matrices = {piece.name: _matrices(tree, whole, piece, there, method=method) for piece in every}
    kept = [piece for piece in every if matrices[piece.name]]
    if not kept:
        return {}
    shares = [name for name in SHARES if any(name in matrices[one.name] for one in kept)]
    channels = list(dict.fromkeys(name for one in kept for name in one.layers))
    sources = [*channels, ORIGINAL]
    factors = layer_values(tree, next(iter(kept[0].layers.values()))).factors
    found = _Found(
        matrices={
            (share, source, number): matrices[one.name][share][source]
            for number, one in enumerate(kept)
            for share in matrices[one.name]
            for source in matrices[one.name][share]
        },
        sizes=(len(shares), len(kept), len(factors)),
        missing=missing,
        level=level,
        run=run,
    )
    variables = _own(found, shares, sources) | _differences(found, shares, channels)
    pairs = list(combinations_with_replacement(sources, 2))
    variables |= _distances(found, shares, pairs)
    variables["units"] = (("segment",), np.array([len(one.units) for one in kept]))
    variables["places"] = (("segment", "source"), _places(tree, whole, kept, sources))
    coords = {
        "segment_name": ("segment", _texts([one.name for one in kept])),
        "module": ("segment", _texts([one.module for one in kept])),
        "share_name": ("share", _texts(shares)),
        "source_name": ("source", _texts(sources)),
        "channel_name": ("channel", _texts(channels)),
        "pair_name": ("pair", _texts([" x ".join(pair) for pair in pairs])),
        "factor_name": ("factor", _texts(factors)),
    }
    left_out = [one.name for one in every if not matrices[one.name]]
    attrs = {"method": method, "missing": missing, "draws": DRAWS, "left_out": ", ".join(left_out)}
    return {"whole_network": xr.Dataset(variables, coords=coords, attrs=attrs)}


Matrices = Mapping[str, Mapping[str, Float[np.ndarray, "u g g"]]]
Variables = dict[str, tuple[tuple[str, ...], np.ndarray]]


@dataclass(frozen=True, eq=False)
class _Found:
    """Matrices of all units by (share, source, segment), and how they are judged."""

    matrices: Mapping[tuple[str, str, int], Float[np.ndarray, "u g g"]]
    sizes: tuple[int, int, int]
    missing: Missing
    level: float
    run: Run


def _matrices(tree: xr.DataTree, whole: xr.DataTree, piece: Piece, there: set[str], *, method: Method) -> Matrices:
    """Share -> source -> matrix of each unit across the places of its map; empty without places."""
    layers = {channel: layer for channel, layer in piece.layers.items() if layer in there}
    values = {channel: layer_values(tree, layer) for channel, layer in layers.items()}
    original = layer_values(whole, piece.module)
    if not values or min(one.places for one in (*values.values(), original)) < _FEWEST:
        return {}
    units = np.array(piece.units)
    shares = [name for name in SHARES if name in original.shares and all(name in one.shares for one in values.values())]
    factors = next(iter(values.values())).factors
    order = [original.factors.index(name) for name in factors]
    of_whole = {name: original.shares[name][units][..., order] for name in shares}
    return {
        name: {
            **{channel: _across_places(one.shares[name], method) for channel, one in values.items()},
            ORIGINAL: _across_places(of_whole[name], method),
        }
        for name in shares
    }


def _across_places(values: Float[np.ndarray, "u p g"], method: Method) -> Float[np.ndarray, "u g g"]:
    return place_correlations(values.transpose(1, 0, 2), method=method)


def _own(found: _Found, shares: Sequence[str], sources: Sequence[str]) -> Variables:
    """Mean matrices of each segment and source."""
    _, count, g = found.sizes
    parts = {ending: np.full((count, len(shares), len(sources), g, g), np.nan) for ending in _KEPT}
    for (share, source, number), values in found.matrices.items():
        mean = mean_correlations(values, missing=found.missing, level=found.level)
        for ending, part in parts.items():
            part[number, shares.index(share), sources.index(source)] = getattr(mean, ending)
    axes = ("segment", "share", "source", "factor", "other")
    return {f"own_{ending}": (axes, part) for ending, part in parts.items()}


def _differences(found: _Found, shares: Sequence[str], channels: Sequence[str]) -> Variables:
    """The same units on a channel and in the whole network."""
    _, count, g = found.sizes
    names = ("off_diagonal", "low", "high", "mismatched", "p")
    numbers = {name: np.full((count, len(shares), len(channels)), np.nan) for name in names}
    parts = {name: np.full((count, len(shares), len(channels), g, g), np.nan) for name in ("mean", "deviation")}
    for (share, source, number), values in found.matrices.items():
        if source == ORIGINAL:
            continue
        place = (number, shares.index(share), channels.index(source))
        difference: MatrixDifference = matrix_difference(
            values,
            found.matrices[share, ORIGINAL, number],
            draws=DRAWS,
            rng=found.run.generator("segment difference", share, source, str(number)),
            missing=found.missing,
            level=found.level,
        )
        for name, into in (*numbers.items(), *parts.items()):
            into[place] = getattr(difference, name)
    axes = ("segment", "share", "channel")
    apart = {"off_diagonal": "apart"} | {name: f"apart_{name}" for name in names[1:]}
    return {
        **{f"difference_{name}": ((*axes, "factor", "other"), part) for name, part in parts.items()},
        **{apart[name]: (axes, values) for name, values in numbers.items()},
        "apart_q": (axes, _by_share(numbers["p"], axis=1)),
    }


def _distances(found: _Found, shares: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Variables:
    """Mean matrices of two layers, for every pair of sources."""
    _, count, _ = found.sizes
    parts = {name: np.full((len(shares), len(pairs), count, count), np.nan) for name in _TESTS}
    tested = np.zeros((len(shares), len(pairs), count, count), dtype=bool)
    for s, share in enumerate(shares):
        for k, (one, other) in enumerate(pairs):
            for row in range(count):
                for column in range(row if one == other else 0, count):
                    first, second = (
                        found.matrices.get((share, source, place)) for source, place in ((one, row), (other, column))
                    )
                    if first is None or second is None:
                        continue
                    values = _compared(found, first, second, (share, one, other, row, column))
                    for name, value in values.items():
                        parts[name][s, k, row, column] = value
                        if one == other:
                            parts[name][s, k, column, row] = value
                    tested[s, k, row, column] = True
    axes = ("share", "pair", "segment", "other_segment")
    variables: Variables = {name: (axes, values) for name, values in parts.items()}
    for name in ("distance", "alike"):
        q = _by_share(np.where(tested, parts[f"{name}_p"], np.nan), axis=0)
        mirrored = np.where(np.isfinite(q), q, np.swapaxes(q, 2, 3))
        alone = np.array([one == other for one, other in pairs])[None, :, None, None]
        variables[f"{name}_q"] = (axes, np.where(alone, mirrored, q))
    return variables


def _by_share(p: np.ndarray, *, axis: int) -> np.ndarray:
    """Corrected over everything that is tested of one share."""
    return np.stack([by_qvalues(own) for own in np.moveaxis(p, axis, 0)], axis=axis)


def _compared(
    found: _Found, first: np.ndarray, second: np.ndarray, place: tuple[str, str, str, int, int]
) -> dict[str, float]:
    """Two layers, or a layer on two channels; a layer and itself have distance 0 and no test."""
    share, one, other, row, column = place
    if one == other and row == column:
        return {"distance": 0.0, "alike": 1.0}
    triangle: Triangle = "diagonal" if ORIGINAL in (one, other) and one != other else "strict"
    name = (share, one, other, str(row), str(column))
    exchanged = exchange_test(
        first,
        second,
        units="paired" if row == column else "separate",
        triangle=triangle,
        missing=found.missing,
        draws=DRAWS,
        rng=found.run.generator("segment exchange", *name),
    )
    means = [mean_correlations(values, missing=found.missing).mean for values in (first, second)]
    pattern = mantel_test(*means, triangle=triangle, draws=DRAWS, rng=found.run.generator("segment pattern", *name))
    numbers = (exchanged.difference, exchanged.null, exchanged.null_high, exchanged.p, pattern.spearman, pattern.p)
    return dict(zip(_TESTS, numbers, strict=True))


def _places(
    tree: xr.DataTree, whole: xr.DataTree, kept: Sequence[Piece], sources: Sequence[str]
) -> Int[np.ndarray, "s k"]:
    """Places of the maps that correlations are over; 0 where a segment lacks a channel."""
    found = np.zeros((len(kept), len(sources)), dtype=np.int64)
    for row, piece in enumerate(kept):
        for column, source in enumerate(sources):
            if source == ORIGINAL:
                found[row, column] = layer_values(whole, piece.module).places
            elif source in piece.layers:
                found[row, column] = layer_values(tree, piece.layers[source]).places
    return found


def _texts(names: Sequence[str]) -> np.ndarray:
    return np.array([str(name) for name in names], dtype=object)
