"""The first operations that mix channels, brought up to date by what one unit adds to them.

A convolution or linear map is a sum over channels. When one unit alone changes, its result is the unedited result plus
the map of that unit's change: one channel of the filters instead of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, fx, nn
from torch.nn import functional

from neuronscope.replay.channels import MAPS, Channels
from neuronscope.replay.facts import Facts
from neuronscope.replay.folding import Convolution, untouched
from neuronscope.replay.program import Program


@runtime_checkable
class Mixing(Protocol):
    """An operation to which every unit adds its part."""

    @property
    def source(self) -> fx.Node:
        """The value it reads, in which units are apart."""

    def base(self, result: Tensor) -> Tensor:
        """The unedited result in the order that `updated` wants."""

    def updated(
        self, base: Tensor, change: Tensor, units: Int[Tensor, "r"], images: Int[Tensor, "r"]
    ) -> Float[Tensor, "r *result"]:
        """The result for rows of one changed unit each.

        Args:
            base: from `base`.
            change: edited minus unedited source, units on the second axis: (n, units, ...).
            units: which unit of each row is edited.
            images: which image each row is about.
        """


@dataclass(frozen=True, eq=False)
class MixingConvolution:
    """A convolution that all units go into.

    Attributes:
        source: the maps it reads.
        filters: (units, filter positions, outputs).
        convolution: the operation itself.
        size: (height, width) of its result.
    """

    source: fx.Node
    filters: Float[Tensor, "units positions out"]
    convolution: Convolution
    size: tuple[int, int]

    def base(self, result: Float[Tensor, "n out h w"]) -> Float[Tensor, "n place out"]:
        """The unedited result with channels last."""
        return result.flatten(2).transpose(1, 2).contiguous()

    def updated(
        self, base: Tensor, change: Tensor, units: Int[Tensor, "r"], images: Int[Tensor, "r"]
    ) -> Float[Tensor, "r out h w"]:
        """Base and the convolution of one channel's change with that channel's filters."""
        rows, how = base.index_select(0, images), self.convolution
        patches = functional.unfold(
            change[images, units].unsqueeze(1), how.weight.shape[2:], how.dilation, how.padding, how.stride
        )
        rows.baddbmm_(patches.transpose(1, 2), self.filters.index_select(0, units))
        return rows.view(len(rows), *self.size, -1).permute(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class MixingLinear:
    """A linear map that all units go into.

    Attributes:
        source: the features it reads.
        weights: (units, features of one unit, outputs).
    """

    source: fx.Node
    weights: Float[Tensor, "units step out"]

    def base(self, result: Float[Tensor, "n out"]) -> Float[Tensor, "n out"]:
        """The unedited result."""
        return result

    def updated(
        self, base: Tensor, change: Tensor, units: Int[Tensor, "r"], images: Int[Tensor, "r"]
    ) -> Float[Tensor, "r out"]:
        """Base and the change of one unit's features times their weights."""
        rows, part = base.index_select(0, images), change[images, units]
        if self.weights.shape[1] == 1:
            return rows.addcmul_(part, self.weights[units, 0])
        # A unit's weights may be large (49 x 4096 in VGG): rows of the same unit share them instead of copying.
        distinct, counts = torch.unique_consecutive(units, return_counts=True)
        start = 0
        for unit, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            rows[start : start + count].addmm_(part[start : start + count], self.weights[unit])
            start += count
        return rows


def mixing_at(
    program: Program, facts: Facts, node: fx.Node, *, apart: Mapping[fx.Node, Channels], units: int
) -> Mixing | None:
    """The operation as one to which each unit adds its part; None where it is none.

    Args:
        program: the network.
        facts: shapes of its values.
        node: which operation.
        apart: values in which units are apart.
        units: number of units.
    """
    reads, result = (node.args[0] if node.args else None), facts.shape(node)
    if not isinstance(reads, fx.Node) or reads not in apart or result is None or apart[reads].axis != 1:
        return None
    place, operation, axes = apart[reads], program.operations[node], len(facts.shape(reads) or ())
    if isinstance(operation, Convolution):
        if operation.groups != 1 or place.step != 1 or axes != MAPS:
            return None
        filters = operation.weight[:, place.first : place.first + units].permute(1, 2, 3, 0).flatten(1, 2)
        return MixingConvolution(reads, filters.contiguous(), operation, (result[2], result[3]))
    if type(operation) is nn.Linear and untouched(operation) and axes == 2:  # noqa: PLR2004 image and feature
        part = operation.weight.detach()[:, place.first : place.first + units * place.step]
        return MixingLinear(reads, part.reshape(len(part), units, place.step).permute(1, 2, 0))
    return None
