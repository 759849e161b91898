"""Pieces of a network to be looked at alone, with the units of interest of each: values, their JSON files, presets.

A piece, a *segment*, is a run of modules that follow one another. What is done with it is in `models.segmented`. The
files have the form of the program that the idea comes from (Kharyuk, Matveev & Oseledets 2025, series 3), so that its
lists of units can be read as they are.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from neuronscope.errors import InputError, StorageError

LOGGER = logging.getLogger("neuronscope")

SegmentKind = Literal["sequential", "residual"]

Reason = tuple[str, str, str]
"""What made a unit interesting: the variable (a factor, or two as `erasing--rolling`), the value (rbscc, si, siT, si2,
shpv), and the number of the set of augmentations."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_EVERY = "all"
_KEYS = ("modules_names", "neurons", "module_type", "unit_name")
_REASON = ("variable", "value", "set")


@dataclass(frozen=True)
class Segment:
    """Modules that follow one another in a network, and which units of their output matter.

    Attributes:
        name: of letters, digits, hyphens and underscores; unlike all others of a list.
        modules: dotted names in calling order.
        units: numbers of the output's units, rising; None for all.
        kind: `residual` where modules hold more than a chain. Only the original treats them differently.
        reasons: (unit, reason), by unit: what made it interesting, as many times as there are reasons.

    Example:
        >>> Segment("pool1", ("features.0", "features.1", "features.2"), (7, 3), reasons=((3, ("hue", "si", "2")),))
        Segment(name='pool1', modules=('features.0', 'features.1', 'features.2'), units=(3, 7), kind='sequential',
        reasons=((3, ('hue', 'si', '2')),))
    """

    name: str
    modules: tuple[str, ...]
    units: tuple[int, ...] | None = None
    kind: SegmentKind = "sequential"
    reasons: tuple[tuple[int, Reason], ...] = ()

    def __post_init__(self) -> None:
        """Put units in order and refuse what no network could have.

        Raises:
            InputError: a name that cannot stand in a result, no modules, no units, a unit twice or below 0, a reason of
                a unit that is not there.
        """
        if not _NAME.fullmatch(self.name):
            message = (
                f"segment name '{self.name}' cannot stand in names of layers and files: expected letters, digits, "
                "hyphens and underscores, as in features-5. Rename it (`unit_name` in a file)"
            )
            raise InputError(message)
        if not self.modules:
            message = f"segment '{self.name}' has no modules: expected at least one, as in features.0. Name some"
            raise InputError(message)
        if self.units is None:
            return
        _check_units(self.name, self.units)
        foreign = [unit for unit, _ in self.reasons if unit not in self.units]
        if foreign:
            message = (
                f"segment '{self.name}' has a reason for unit {foreign[0]}, which is not among its {len(self.units)} "
                "units. Add the unit, or drop the reason"
            )
            raise InputError(message)
        object.__setattr__(self, "units", tuple(sorted(self.units)))
        object.__setattr__(self, "reasons", tuple(sorted(self.reasons, key=lambda one: one[0])))

    def reasons_of(self, unit: int) -> tuple[Reason, ...]:
        """What made a unit interesting, in order."""
        return tuple(reason for one, reason in self.reasons if one == unit)


def _check_units(name: str, units: Sequence[int]) -> None:
    if not units:
        message = f"segment '{name}' has no units: expected at least one number, or all of them. Add some, or drop it"
        raise InputError(message)
    wrong = [unit for unit in units if unit < 0 or units.count(unit) > 1]
    if wrong:
        why = "is below 0" if wrong[0] < 0 else "is there twice"
        message = f"unit {wrong[0]} of segment '{name}' {why}: expected different numbers from 0 on. Correct the list"
        raise InputError(message)


def _preset(*segments: tuple[str, tuple[str, ...], SegmentKind]) -> tuple[Segment, ...]:
    return tuple(Segment(name, modules, None, kind) for name, modules, kind in segments)


SEGMENTS: dict[str, tuple[Segment, ...]] = {
    "alexnet": _preset(
        ("features2", ("features.0", "features.1", "features.2"), "sequential"),
        ("features5", ("features.3", "features.4", "features.5"), "sequential"),
        ("features7", ("features.6", "features.7"), "sequential"),
        ("features9", ("features.8", "features.9"), "sequential"),
        ("avgpool", ("features.10", "features.11", "features.12", "avgpool"), "sequential"),
    ),
    "resnet18": _preset(
        ("maxpool", ("conv1", "bn1", "relu", "maxpool"), "residual"),
        ("l1", ("layer1",), "residual"),
        ("l2", ("layer2",), "residual"),
        ("l3", ("layer3",), "residual"),
        ("avgpool", ("layer4", "avgpool"), "residual"),
    ),
}
"""The published segments, by network, with all their units. Names are the original's, but for its third layer of
ResNet-18, which has the name of another network's there."""


def check_segments(segments: Sequence[Segment]) -> None:
    """Refuse a list without segments, or with two of one name.

    Raises:
        InputError: with what to change.
    """
    if not segments:
        message = "there are no segments: expected at least one, with its modules and units. Add one"
        raise InputError(message)
    names = [segment.name for segment in segments]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        message = f"two segments are called '{twice}': expected different names. Rename one (`unit_name` in a file)"
        raise InputError(message)


def read_segments(path: str | Path) -> tuple[Segment, ...]:
    """The segments of a JSON file.

    The file is a list of objects with `modules_names` (names in calling order), `neurons` (a module of them -> units as
    text -> list of reasons, each `[variable, value, set]`; or `"all"` in place of the units), `module_type`
    (`sequential` or `residual`) and `unit_name`. Which of its modules the units are listed under makes no difference:
    they are taken of the segment's output.

    A name that several segments have is numbered, with a warning.

    Args:
        path: of the file.

    Raises:
        InputError: there is no such file, or it is torn, or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        message = (
            f"there is no file '{path}': expected a JSON file of segments, or the name of a preset "
            f"({', '.join(SEGMENTS)}). neuronscope select-units writes one"
        )
        raise InputError(message)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        message = f"'{path}' is no whole JSON file: {error}. Write or copy it again"
        raise InputError(message) from error
    if not isinstance(content, list):
        message = f"'{path}' holds {_kind(content)}: expected a list of segments. Is it another file?"
        raise InputError(message)
    segments = _renamed([_read(one, f"segment {number} of '{path}'") for number, one in enumerate(content, start=1)])
    check_segments(segments)
    return segments


def _renamed(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The segments, later ones of a name numbered: the published list of ResNet-18 has one name twice."""
    found: dict[str, Segment] = {}
    for segment in segments:
        number, name = 1, segment.name
        while name in found:
            number += 1
            name = f"{segment.name}-{number}"
        if name != segment.name:
            LOGGER.warning("segment name '%s' stands for several: %s is called %s", segment.name, segment.modules, name)
        found[name] = replace(segment, name=name)
    return tuple(found.values())


def _read(content: Any, place: str) -> Segment:
    if not isinstance(content, dict):
        message = f"{place} is {_kind(content)}: expected an object with {', '.join(_KEYS)}. Is it another file?"
        raise InputError(message)
    missing = [key for key in _KEYS if key not in content]
    if missing:
        there = ", ".join(content) or "nothing"
        message = f"{place} has no '{missing[0]}': expected {', '.join(_KEYS)}, and there are {there}. Add it"
        raise InputError(message)
    modules, kind = content["modules_names"], str(content["module_type"]).lower()
    if not isinstance(modules, list) or not all(isinstance(name, str) for name in modules):
        message = f"'modules_names' of {place} is {_kind(modules)}: expected a list of names, as in [\"features.0\"]"
        raise InputError(message)
    if kind not in get_args(SegmentKind):
        message = f"'module_type' of {place} is '{kind}': expected {' or '.join(get_args(SegmentKind))}. Correct it"
        raise InputError(message)
    units, reasons = _neurons(content["neurons"], modules, place)
    found: SegmentKind = "residual" if kind == "residual" else "sequential"
    return Segment(str(content["unit_name"]), tuple(modules), units, found, reasons)


def _neurons(
    neurons: Any, modules: Sequence[str], place: str
) -> tuple[tuple[int, ...] | None, tuple[tuple[int, Reason], ...]]:
    """Units and reasons of a segment."""
    if not isinstance(neurons, dict) or len(neurons) != 1:
        came = f"an object of {len(neurons)}" if isinstance(neurons, dict) else _kind(neurons)
        message = (
            f"'neurons' of {place} is {came}: expected an object with one of its modules and that module's units, as "
            'in {"features.0": {"3": [["hue", "si", 2]]}}. Correct it'
        )
        raise InputError(message)
    ((module, listed),) = neurons.items()
    if module not in modules:
        message = (
            f"{place} lists units of '{module}', which is none of its modules: expected one of {', '.join(modules)}. "
            "Correct one of the names"
        )
        raise InputError(message)
    if listed == _EVERY:
        return None, ()
    if not isinstance(listed, dict):
        message = f"units of '{module}' in {place} are {_kind(listed)}: expected units with reasons, or \"{_EVERY}\""
        raise InputError(message)
    wrong = next((unit for unit in listed if not unit.isdecimal()), None)
    if wrong is not None:
        message = f"'{wrong}' in {place} is no number of a unit: expected 0, 1, 2, ... Correct it"
        raise InputError(message)
    reasons = tuple(
        (int(unit), _reason(one, unit, place)) for unit, own in listed.items() for one in _list(own, unit, place)
    )
    return tuple(int(unit) for unit in listed), reasons


def _list(reasons: Any, unit: str, place: str) -> list[Any]:
    if isinstance(reasons, list):
        return reasons
    message = f"the reasons for unit {unit} in {place} are {_kind(reasons)}: expected a list, which may be empty"
    raise InputError(message)


def _reason(reason: Any, unit: str, place: str) -> Reason:
    if not isinstance(reason, list) or len(reason) != len(_REASON):
        message = (
            f"a reason for unit {unit} in {place} is {json.dumps(reason)}: expected [{', '.join(_REASON)}], as in "
            '["hue", "si", 2]. Correct it'
        )
        raise InputError(message)
    variable, value, number = map(str, reason)
    return variable, value, number


def _kind(content: Any) -> str:
    names: Mapping[type, str] = {dict: "an object", list: "a list", str: "a text", type(None): "null"}
    return names.get(type(content), f"a {type(content).__name__}")


def write_segments(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write segments as `read_segments` and the original read them.

    Units are listed under the module at which the original chooses them: the first of a chain, the last of a residual
    segment.

    Args:
        path: of the file; folders are made.
        segments: what to write.

    Raises:
        InputError: there are none, or two of one name.
        StorageError: the file cannot be written.
    """
    check_segments(segments)
    content = [_written(segment) for segment in segments]
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        message = f"cannot write '{path}': {error}. Choose another place, or make room"
        raise StorageError(message) from error


def _written(segment: Segment) -> dict[str, Any]:
    module = segment.modules[0 if segment.kind == "sequential" else -1]
    units: Any = _EVERY
    if segment.units is not None:
        units = {str(unit): [_plain(one) for one in segment.reasons_of(unit)] for unit in segment.units}
    return dict(zip(_KEYS, (list(segment.modules), {module: units}, segment.kind, segment.name), strict=True))


def _plain(reason: Reason) -> list[str | int]:
    """A reason with the number of its set as the number it is."""
    *words, number = reason
    return [*words, int(number) if number.isdecimal() else number]
