"""Names for parts of a network: layers, single units, sets of units, partitions of a layer.

A *unit* is one output channel of a layer: a feature map of a convolution, one number of a linear layer. Everything
here is a value: hashable, comparable, writable as a short string. Nothing here knows a network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

from neuronscope.errors import InputError

Kind = Literal["conv", "linear", "relu", "norm", "pool", "dropout", "flatten", "block", "other"]
"""What a layer does. `relu` stands for every elementwise nonlinearity; `block` for a module made of other modules."""

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class ReceptiveField:
    """The square of input pixels that can change one activation.

    The activation at row `y` depends on input rows `start + y * stride` to `start + y * stride + size - 1`, cut at the
    border of the image; columns alike.

    Attributes:
        size: side in input pixels, (height, width).
        stride: input pixels between neighbouring activations, (height, width).
        start: first input pixel of the activation at position 0, (row, column); negative with padding.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    start: tuple[int, int]

    def box(self, y: int, x: int, *, height: int, width: int) -> tuple[int, int, int, int]:
        """Rows and columns (top, bottom, left, right; ends excluded) seen from map position (y, x), cut at the border.

        Example:
            >>> ReceptiveField(size=(3, 3), stride=(1, 1), start=(-1, -1)).box(0, 5, height=28, width=28)
            (0, 2, 4, 7)
        """
        top, left = self.start[0] + y * self.stride[0], self.start[1] + x * self.stride[1]
        return (
            min(max(top, 0), height - 1),
            max(min(top + self.size[0], height), 1),
            min(max(left, 0), width - 1),
            max(min(left + self.size[1], width), 1),
        )


@dataclass(frozen=True)
class LayerInfo:
    """One addressable output of a network, or a block of its units (`part`): a layer like any other to all who measure.

    Attributes:
        name: dotted module name; the second and later calls of a reused module carry `#1`, `#2`.
        kind: what the layer does.
        shape: output shape of one image, without the batch axis, as the module gives it (of a part: its units alone).
        units: number of units (channels, or features of a flat output).
        channel_axis: the axis of the batched output that counts units: 1, or -1 for channels-last layers.
        receptive_field: None where it is the whole image or could not be found out.
        first: number of the first unit within the whole layer; above 0 only for a part.
        whole: units of the whole layer where this is a part of it, else None.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    units: int
    channel_axis: int = 1
    receptive_field: ReceptiveField | None = None
    first: int = 0
    whole: int | None = None

    @property
    def module_name(self) -> str:
        """The dotted name of the module, without the call number."""
        return self.name.partition("#")[0]

    @property
    def call(self) -> int:
        """Which call of the module within one forward pass, from 0."""
        return int(self.name.partition("#")[2] or 0)

    @property
    def map_shape(self) -> tuple[int, ...]:
        """The output's shape without its unit axis: (height, width) of a feature map, () of a flat layer."""
        axis = self._unit_axis
        return self.shape[:axis] + self.shape[axis + 1 :]

    @property
    def title(self) -> str:
        """The name, with the units where this is a part: `conv1 units 0-31`."""
        if self.whole is None:
            return self.name
        last = self.first + self.units - 1
        return f"{self.name} units {self.first}-{last}" if self.units > 1 else f"{self.name} unit {self.first}"

    @property
    def is_last(self) -> bool:
        """Whether the layer's last unit is here: true of whole layers."""
        return self.whole is None or self.first + self.units == self.whole

    def part(self, first: int, last: int) -> LayerInfo:
        """Units `first` to `last` (excluded, counted from this one's own first) as a layer of the same name.

        Raises:
            InputError: no unit would be left, or one is not in the layer.

        Example:
            >>> LayerInfo("conv1", "conv", (64, 9, 9), 64).part(16, 48).part(0, 8).title
            'conv1 units 16-23'
        """
        if not 0 <= first < last <= self.units:
            message = f"'{self.title}' has {self.units} units: units {first} to {last} (excluded) are no part of it"
            raise InputError(message)
        if last - first == self.units:
            return self
        axis = self._unit_axis
        return replace(
            self,
            shape=(*self.shape[:axis], last - first, *self.shape[axis + 1 :]),
            units=last - first,
            first=self.first + first,
            whole=self.units if self.whole is None else self.whole,
        )

    @property
    def _unit_axis(self) -> int:
        return self.channel_axis - 1 if self.channel_axis > 0 else len(self.shape) - 1


@dataclass(frozen=True)
class UnitSet:
    """A set of units of one layer: the common currency of all studies.

    Example:
        >>> a, b = UnitSet.parse("conv1:0-3", size=8), UnitSet("conv1", 8, (2, 3, 4))
        >>> a & b
        UnitSet('conv1:2-3', size=8)
        >>> ~a | b == ~(a - b)
        True
        >>> a.jaccard(b)
        0.4
    """

    layer: str
    size: int
    indices: tuple[int, ...]

    def __post_init__(self) -> None:
        """Sort the indices and refuse those outside the layer."""
        ordered = tuple(sorted({int(i) for i in self.indices}))
        if ordered and not 0 <= ordered[0] <= ordered[-1] < self.size:
            worst = ordered[-1] if ordered[-1] >= self.size else ordered[0]
            message = f"unit {worst} is not in layer '{self.layer}', which has units 0 to {self.size - 1}"
            raise InputError(message)
        object.__setattr__(self, "indices", ordered)

    @classmethod
    def all(cls, layer: str, size: int) -> UnitSet:
        """Every unit of a layer."""
        return cls(layer, size, tuple(range(size)))

    @classmethod
    def parse(cls, text: str, *, size: int) -> UnitSet:
        """Read `layer:unit`, `layer:first-last` or a comma-separated mix; `layer` is all of it, `layer:` none.

        Raises:
            InputError: the text after the colon is not made of numbers and ranges, or a unit is not in the layer.
        """
        layer, colon, rest = text.partition(":")
        if not colon:
            return cls.all(layer, size)
        indices: list[int] = []
        for part in rest.split(",") if rest else ():
            match = _RANGE.fullmatch(part.strip())
            if match is None or int(match[2] or match[1]) < int(match[1]):
                message = f"cannot read units '{rest}' of layer '{layer}'. Write numbers and ranges: {layer}:0-3,7"
                raise InputError(message)
            last = int(match[2] or match[1])
            indices.extend(range(int(match[1]), last + 1) if last < size else [last])  # refused below, however large
        return cls(layer, size, tuple(indices))

    @classmethod
    def from_mask(cls, layer: str, mask: ArrayLike) -> UnitSet:
        """The units where a one-dimensional boolean mask is true."""
        flags = np.asarray(mask, dtype=bool)
        return cls(layer, flags.size, tuple(np.flatnonzero(flags).tolist()))

    def mask(self) -> np.ndarray:
        """Boolean array of length `size`, true for the members."""
        flags = np.zeros(self.size, dtype=bool)
        flags[list(self.indices)] = True
        return flags

    def __and__(self, other: UnitSet) -> UnitSet:
        """Members of both."""
        return self._with(set(self.indices) & self._same(other))

    def __or__(self, other: UnitSet) -> UnitSet:
        """Members of either."""
        return self._with(set(self.indices) | self._same(other))

    def __sub__(self, other: UnitSet) -> UnitSet:
        """Members of this set that are not in the other."""
        return self._with(set(self.indices) - self._same(other))

    def __invert__(self) -> UnitSet:
        """The layer's other units."""
        return self._with(set(range(self.size)) - set(self.indices))

    def __len__(self) -> int:
        """Number of members."""
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        """The members in ascending order."""
        return iter(self.indices)

    def __contains__(self, unit: object) -> bool:
        """Whether a unit index is a member."""
        return unit in self.indices

    def __str__(self) -> str:
        """The short form that `parse` reads."""
        runs: list[str] = []
        members = list(self.indices)
        while members:
            length = next((i for i, unit in enumerate(members) if unit != members[0] + i), len(members))
            runs.append(str(members[0]) if length == 1 else f"{members[0]}-{members[length - 1]}")
            members = members[length:]
        return f"{self.layer}:{','.join(runs)}"

    def __repr__(self) -> str:
        """The short form, with the layer's size."""
        return f"UnitSet('{self}', size={self.size})"

    def jaccard(self, other: UnitSet) -> float:
        """Shared members over all members (0 to 1); nan when both sets are empty."""
        union = len(set(self.indices) | self._same(other))
        return len(self & other) / union if union else float("nan")

    def _same(self, other: UnitSet) -> set[int]:
        if (self.layer, self.size) != (other.layer, other.size):
            message = (
                f"these unit sets belong to different layers: '{self.layer}' ({self.size} units) and "
                f"'{other.layer}' ({other.size} units)"
            )
            raise InputError(message)
        return set(other.indices)

    def _with(self, members: Iterable[int]) -> UnitSet:
        return UnitSet(self.layer, self.size, tuple(members))


@dataclass(frozen=True)
class Partition:
    """A split of all units of one layer into groups 0, 1, ... (clusters)."""

    layer: str
    labels: tuple[int, ...]

    @classmethod
    def from_labels(cls, layer: str, labels: Int[np.ndarray, "u"] | Sequence[int]) -> Partition:
        """One group number for each unit."""
        return cls(layer, tuple(int(label) for label in labels))

    @property
    def groups(self) -> tuple[UnitSet, ...]:
        """The unit set of each group, in the order of their numbers."""
        size = len(self.labels)
        numbers = range(max(self.labels, default=-1) + 1)
        return tuple(UnitSet(self.layer, size, tuple(i for i, g in enumerate(self.labels) if g == n)) for n in numbers)
