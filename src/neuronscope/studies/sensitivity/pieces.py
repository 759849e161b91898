"""Series 3: the study of pieces of a network, each on one channel of the images' colours, in place of the network.

A piece has no answer, so that what asks for the network's answers cannot be had of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.models.hsv import Tones
from neuronscope.models.segmented import SegmentLayer, segment_layers, segmented
from neuronscope.models.segments import SEGMENTS, Reason, read_segments
from neuronscope.models.subject import Subject
from neuronscope.studies.sensitivity.spec import Estimator, SensitivitySpec
from neuronscope.units import LayerInfo

_OF_PIECES: tuple[Estimator, ...] = ("sobol", "shapley")
"""What needs no answer of the network."""


def looked_at(subject: Subject, spec: SensitivitySpec) -> tuple[Subject, Mapping[str, SegmentLayer]]:
    """The network as the study looks at it: whole, or its segments, with what each of their layers is of.

    Raises:
        InputError: a file of segments that cannot be read, or segments that are not the network's.
        UnknownName: a module that the network has not.
    """
    if not spec.segments:
        return subject, {}
    segments = SEGMENTS[spec.segments] if spec.segments in SEGMENTS else read_segments(spec.segments)
    tones: Tones = "normalised" if "normalised-hsv" in spec.legacy else "pixels"
    pieces = segmented(subject, segments, channels=spec.channels, hsv=tones)
    return pieces, segment_layers(pieces, segments)


def without_answers(spec: SensitivitySpec) -> SensitivitySpec:
    """The options for segments: of the estimators those that need no answer of a network, unless others are named.

    Raises:
        InputError: another one is named.
    """
    if not spec.segments:
        return spec
    if spec.estimators == SensitivitySpec().estimators:
        return replace(spec, estimators=_OF_PIECES)
    other = [name for name in spec.estimators if name not in _OF_PIECES]
    if other:
        message = (
            f"'{other[0]}' cannot be had of segments, for it asks for the network's answers: expected some of "
            f"{', '.join(_OF_PIECES)} with --segments. Leave it out of --estimators, or leave out --segments"
        )
        raise InputError(message)
    return spec


def piece_layers(subject: Subject, names: Sequence[str]) -> tuple[LayerInfo, ...]:
    """Layers of segments by name or glob; all without a name.

    Raises:
        UnknownName: there is no such layer.
    """
    known = [layer.name for layer in subject.layers]
    for name in names:
        try:
            subject.select(name)
        except UnknownName as error:
            message = (
                f"'{name}' is no layer of the segments.{nearest(name, known)} They are called SEGMENT.CHANNEL: "
                f"{', '.join(known)}"
            )
            raise UnknownName(message) from error
    return subject.select(*names) if names else subject.layers


def real_units(pieces: Mapping[str, SegmentLayer], layers: Sequence[LayerInfo]) -> np.ndarray:
    """Numbers in the network of the units of some layers of segments, one after another."""
    return np.concatenate([np.array(pieces[layer.name].units, dtype=np.int64) for layer in layers])


def segments_group(pieces: Mapping[str, SegmentLayer], layers: Sequence[LayerInfo]) -> xr.Dataset:
    """Where each unit comes from: a row for each unit and channel, in the order of the table of units.

    Args:
        pieces: of all layers.
        layers: those of the result.
    """
    rows = [(pieces[layer.name], unit) for layer in layers for unit in pieces[layer.name].units]
    columns = {
        "segment": [one.segment.name for one, _ in rows],
        "channel": [one.channel for one, _ in rows],
        "modules": [",".join(one.segment.modules) for one, _ in rows],
        "kind": [one.segment.kind for one, _ in rows],
        "reasons": ["; ".join(reason_text(reason) for reason in one.segment.reasons_of(unit)) for one, unit in rows],
    }
    return xr.Dataset(
        {name: ("unit", np.array(values, dtype=object)) for name, values in columns.items()},
        coords={
            "layer": ("unit", np.array([one.layer.name for one, _ in rows], dtype=object)),
            "index": ("unit", np.array([unit for _, unit in rows], dtype=np.int64)),
        },
    )


def reason_text(reason: Reason) -> str:
    """A reason as text.

    Example:
        >>> reason_text(("hue", "shpv", "2"))
        'hue shpv 2'
    """
    return " ".join(reason)
