"""Filled ellipses, one for each image: where `elliptic_local_blur` blurs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Centre = Literal["exact", "swapped"]
"""Whether the middle of the image is (W // 2, H // 2), or (H // 2, W // 2) as in the original; the same for squares."""


_RIM = 1e-6
"""How far outside, as a share of the squared distance, still is inside: rounding must not decide about the rim."""


@dataclass(frozen=True, eq=False)
class Ellipses:
    """Ellipses in images.

    Attributes:
        x, y: centre, a whole column and row.
        across, down: half-axes in pixels, along x and y before the ellipse is turned; whole.
        angle: of the turn, in degrees, counter-clockwise.
    """

    x: Float[Tensor, "n"]
    y: Float[Tensor, "n"]
    across: Float[Tensor, "n"]
    down: Float[Tensor, "n"]
    angle: Float[Tensor, "n"]

    def mask(self, rows: Int[Tensor, "n r"], columns: Int[Tensor, "n s"]) -> Bool[Tensor, "n r s"]:
        """Whether the centres of pixels are inside; none is where a half-axis is 0."""
        x = (columns - self.x[:, None])[:, None, :]
        y = (rows - self.y[:, None])[:, :, None]
        turn = torch.deg2rad(self.angle)[:, None, None]
        across, down = self.across[:, None, None], self.down[:, None, None]
        u = x * turn.cos() - y * turn.sin()
        v = x * turn.sin() + y * turn.cos()
        # Not divided by the half-axes, which may be 0.
        area = across * down
        return ((u * down) ** 2 + (v * across) ** 2 <= area**2 * (1 + _RIM)) & (area > 0)


def ellipses(parameters: Float[Tensor, "n 5"], height: int, width: int, *, centre: Centre = "exact") -> Ellipses:
    """The ellipses of images: from half-axes along x and y, shifts along x and y, and the angle.

    The centre is `(W // 2 + shift_x, H // 2 + shift_y)`; it and the half-axes are rounded, half to even.

    Example:
        >>> ellipse = ellipses(torch.tensor([[2.0, 1.0, 0.0, 0.0, 0.0]]), 3, 5)
        >>> ellipse.mask(torch.arange(3)[None], torch.arange(5)[None])[0].int()
        tensor([[0, 0, 1, 0, 0],
                [1, 1, 1, 1, 1],
                [0, 0, 1, 0, 0]], dtype=torch.int32)
    """
    across, down, shift_x, shift_y, angle = parameters.unbind(1)
    middle_x, middle_y = (width // 2, height // 2) if centre == "exact" else (height // 2, width // 2)
    return Ellipses(
        x=(middle_x + shift_x).round(),
        y=(middle_y + shift_y).round(),
        across=across.round(),
        down=down.round(),
        angle=angle,
    )
