"""What stands in place of a silenced unit, as data; and which other image lends its maps when it is to be another's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuronscope.data.dataset import scatter
from neuronscope.errors import InputError

Kind = Literal["values", "by label", "resample"]


@dataclass(frozen=True, eq=False)
class Fill:
    """The output that silenced units of one layer give.

    Attributes:
        kind: `values`: one number for each unit; `by label`: one for each class of the image and unit (without a label,
            the mean over the classes); `resample`: the unit's own map for another image of the batch (which one depends
            on the seed and the images alone).
        values: (units,) or (classes, units); 0 where `values` has none; unused by `resample`.
        seed: of the choice of other images.
    """

    kind: Kind = "values"
    values: Float[np.ndarray, "*classes units"] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a table that is missing or of another form.

        Raises:
            InputError: one number is needed for each unit, or for each class and unit, and something else came.
        """
        axes = {"values": 1, "by label": 2}.get(self.kind)
        if axes is not None and (self.values is not None or self.kind == "by label"):
            came = "none" if self.values is None else f"an array of shape {self.values.shape}"
            if self.values is None or self.values.ndim != axes:
                form = "(units,)" if axes == 1 else "(classes, units)"
                message = f"a fill of kind '{self.kind}' needs values of shape {form}; {came} came"
                raise InputError(message)

    def maps(
        self, output: Float[Tensor, "n u *map"], *, index: Int[Tensor, "n"], label: Int[Tensor, "n"]
    ) -> Float[Tensor, "..."]:
        """What replaces the output, in a form that spreads over it: (u,), (n, u), or maps as the output's.

        Raises:
            InputError: the values are for another number of units.
        """
        if self.values is not None and self.values.shape[-1] != output.shape[1]:
            message = (
                f"a fill of values for {self.values.shape[-1]} units does not fit a layer of {output.shape[1]}. "
                "Give one number for each unit"
            )
            raise InputError(message)
        match self.kind:
            case "resample":
                return output[donors(index, seed=self.seed)]
            case "by label":
                table = torch.as_tensor(self.values, dtype=output.dtype, device=output.device)
                known = (label >= 0) & (label < len(table))
                return torch.where(known[:, None], table[label.where(known, 0)], table.mean(0))
            case "values":
                if self.values is None:
                    return output.new_zeros(output.shape[1])
                return torch.as_tensor(self.values, dtype=output.dtype, device=output.device)


ZERO = Fill()
"""Silence: 0."""


def donors(index: Int[Tensor, "n"], *, seed: int) -> Int[Tensor, "n"]:
    """For each image of a batch the place of another one: the next in an order without pattern.

    No image is its own donor unless it is alone in its batch.

    Example:
        >>> donors(torch.tensor([4, 7, 9]), seed=0).tolist()
        [1, 2, 0]
    """
    order = np.argsort(scatter(index.cpu().numpy(), seed=seed), kind="stable")
    donor = np.empty(len(order), dtype=np.int64)
    donor[order] = np.roll(order, -1)
    return torch.from_numpy(donor).to(index.device)
