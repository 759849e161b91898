"""Several augmentations one after the other, in an order and with switches of each image's own.

Images that meet the same augmentation at the same position are changed together, so a batch of any orders costs as many
calls as it has pairs of position and augmentation, not as it has images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuronscope.augment.augmentation import Augmentation, check_channels
from neuronscope.errors import InputError

_MOST = 20
"""Things whose orders can be numbered in 64 bits."""


def compose(
    augmentations: Sequence[Augmentation],
    images: Float[Tensor, "n c h w"],
    parameters: Float[Tensor, "n p"] | Float[np.ndarray, "n p"],
    applied: Bool[Tensor, "n a"] | Bool[np.ndarray, "n a"],
    order: Int[Tensor, "n a"] | Int[np.ndarray, "n a"],
) -> Float[Tensor, "n c h w"]:
    """Images after their augmentations.

    Args:
        augmentations: which there are.
        images: 0 to 1; never changed.
        parameters: values for each image: the columns of the first augmentation, then those of the second, and so on.
        applied: for each image and augmentation whether it is applied.
        order: for each image the numbers of the augmentations, first to last: image `i` meets `order[i, 0]` first.

    Returns:
        New images, 0 to 1 within rounding.

    Raises:
        InputError: tables of other sizes, an order that is not one, or colours changed in images without them.

    Example:
        >>> from neuronscope.augment.catalogue import augmentations
        >>> known = augmentations(8, 8)
        >>> images = torch.full((2, 3, 8, 8), 0.5)
        >>> chosen, factors = [known["brightness"], known["hflip"]], np.array([[0.5], [0.5]])
        >>> switches, orders = np.array([[True, True], [False, True]]), np.array([[0, 1], [1, 0]])
        >>> compose(chosen, images, factors, switches, orders)[:, 0, 0, 0]
        tensor([0.2500, 0.5000])
    """
    check_channels(augmentations, images.shape[1])
    values, switches, orders = torch.as_tensor(parameters), _table(applied), _table(order)
    ends = np.cumsum([0, *(len(augmentation.parameters) for augmentation in augmentations)])
    _check_tables(augmentations, images, values, switches, orders)
    changed = images.clone()
    for position in range(len(augmentations)):
        for number, augmentation in enumerate(augmentations):
            rows = np.flatnonzero((orders[:, position] == number) & switches[:, number])
            if not rows.size:
                continue
            chosen = torch.from_numpy(rows)
            own = values[chosen.to(values.device), ends[number] : ends[number + 1]]
            here = chosen.to(images.device)
            changed[here] = augmentation.apply(changed[here], own)
    return changed


def permutation(rank: Int[np.ndarray, "n"], count: int) -> Int[np.ndarray, "n count"]:
    """The orders of 0, ..., count - 1 with given numbers, in lexicographic order: 0 is 0, 1, 2, ...

    The number's digits in the factorial base say which of the things left comes next (Lehmer 1960).

    Args:
        rank: 0 to `count! - 1`.
        count: of things, up to 20.

    Raises:
        InputError: a number without an order, or too many things.

    Example:
        >>> permutation(np.array([0, 1, 5]), 3)
        array([[0, 1, 2],
               [0, 2, 1],
               [2, 1, 0]])
    """
    if not 0 <= count <= _MOST:
        message = f"orders of {count} things cannot be numbered in 64 bits: expected 0 to {_MOST}. Take fewer"
        raise InputError(message)
    orders = math.factorial(count)
    outside = rank[(rank < 0) | (rank >= orders)]
    if outside.size:
        message = (
            f"there is no order number {outside[0]} of {count} things: expected 0 to {orders - 1}. Multiply a number "
            f"from 0 to 1 by {orders} and cut it off"
        )
        raise InputError(message)
    left = np.broadcast_to(np.arange(count), (len(rank), count))
    rest = rank.astype(np.int64)
    chosen = np.empty((len(rank), count), dtype=np.int64)
    for position in range(count):
        digit, rest = np.divmod(rest, math.factorial(count - 1 - position))
        chosen[:, position] = np.take_along_axis(left, digit[:, None], axis=1)[:, 0]
        left = left[left != chosen[:, position, None]].reshape(len(rank), -1)
    return chosen


def _table(values: Tensor | np.ndarray) -> np.ndarray:
    """Switches and orders are read on the processor, where they come from."""
    return values.cpu().numpy() if isinstance(values, Tensor) else values


def _check_tables(
    augmentations: Sequence[Augmentation], images: Tensor, values: Tensor, switches: np.ndarray, orders: np.ndarray
) -> None:
    """Refuse tables that do not fit.

    Raises:
        InputError: too few or too many columns, or rows of an order that are none.
    """
    expected = sum(len(augmentation.parameters) for augmentation in augmentations)
    if values.shape != (len(images), expected):
        each = ", ".join(f"{augmentation.name} {len(augmentation.parameters)}" for augmentation in augmentations)
        message = (
            f"parameters of shape {tuple(values.shape)} came with {len(images)} images: expected a row for each, and "
            f"{expected} columns ({each}). Put the columns of the augmentations side by side, in their order"
        )
        raise InputError(message)
    count, shape = len(augmentations), (len(images), len(augmentations))
    if switches.shape != shape or orders.shape != shape or (np.sort(orders, axis=1) != np.arange(count)).any():
        message = (
            f"switches of shape {switches.shape} and orders of shape {orders.shape} came with {len(images)} images and "
            f"{count} augmentations: expected {shape} for both, and each of 0 to {count - 1} once in every order. Make "
            "orders with `permutation`"
        )
        raise InputError(message)
