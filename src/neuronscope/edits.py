"""What to change in a network, as data: a list of edits *is* a sub-network.

An edit names units and says what becomes of them. It is applied to a layer's output, so it belongs after the
normalisation and the activation function: a zero set before a batch normalisation comes out of it as a constant, and
the unit is not silent (`hooks.edited` applies edits; nothing here touches a network).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from neuronscope.errors import InputError
from neuronscope.units import UnitSet

Action = Literal["drop", "scale", "replace", "resample", "stop_gradient"]


@dataclass(frozen=True)
class Edit:
    """One change to the units of one layer.

    Attributes:
        units: which units are changed; all others pass unchanged.
        action: `drop` sets them to 0, `scale` multiplies by `value`, `replace` puts `value` in their place at every
            position, `resample` puts the units' own output for another image of the batch there, `stop_gradient` leaves
            the output bit-identical and blocks the gradient.
        value: one number for all units, or one number for each unit in ascending order (for example its mean).
    """

    units: UnitSet
    action: Action
    value: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a value where none belongs, none where one is needed, and a wrong number of them."""
        needs_value = self.action in ("scale", "replace")
        if needs_value != (self.value is not None):
            message = f"an edit with action '{self.action}' {'needs a' if needs_value else 'takes no'} value"
            raise InputError(message)
        if isinstance(self.value, tuple) and len(self.value) != len(self.units):
            message = f"{len(self.value)} values for {len(self.units)} units of '{self.units.layer}': give one for each"
            raise InputError(message)


def drop(units: UnitSet) -> Edit:
    """Silence these units (output 0)."""
    return Edit(units, "drop")


def keep(units: UnitSet) -> Edit:
    """Silence all other units of the layer: the same edit as `drop(~units)`.

    Example:
        >>> some = UnitSet("conv1", 4, (0, 2))
        >>> keep(some) == drop(~some)
        True
    """
    return drop(~units)


def scale(units: UnitSet, factor: float | tuple[float, ...]) -> Edit:
    """Multiply these units' output by a factor."""
    return Edit(units, "scale", factor)


def replace(units: UnitSet, value: float | tuple[float, ...]) -> Edit:
    """Put a constant in place of these units' output, for example each unit's mean."""
    return Edit(units, "replace", value)


def resample(units: UnitSet) -> Edit:
    """Put these units' output for another image in place of their own: what is usual stays, what is told is wrong."""
    return Edit(units, "resample")


def stop_gradient(units: UnitSet) -> Edit:
    """Leave the forward pass bit-identical and let no gradient through these units."""
    return Edit(units, "stop_gradient")
