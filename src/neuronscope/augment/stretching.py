"""What the original does to every image before the network's normalisation: each channel stretched to 0 to 1.

It undoes changes of brightness and contrast that are not cut off, and makes a black spot a change of the whole channel.
That is why it is a choice, not part of the augmentations.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

_FLAT = 1e-6
"""Range of a channel below which it is not stretched."""


def stretch(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Each channel of each image with its least value at 0 and its largest at 1; a flat channel becomes 0.

    A channel that spans less than 1e-6 keeps its span.

    Example:
        >>> import torch
        >>> stretch(torch.tensor([[[[0.25, 0.5], [0.375, 0.25]]]]))[0, 0].tolist()
        [[0.0, 1.0], [0.5, 0.0]]
    """
    shifted = images - images.amin((2, 3), keepdim=True)
    span = shifted.amax((2, 3), keepdim=True)
    return shifted.div_(span.masked_fill(span < _FLAT, 1))
