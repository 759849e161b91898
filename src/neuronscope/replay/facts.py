"""What the values of a program look like, learnt by running it on one image and on two.

A value that grows with the batch along its first axis holds rows of images, and rows of many edits can be stacked
there; one that stays the same is shared by all; a number that doubles is a batch size in disguise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx

from neuronscope.replay.live import UnsuitedError
from neuronscope.replay.program import Program, execute

Growth = Literal["rows", "shared", "other"]
"""How a value depends on the number of images."""


@dataclass(frozen=True)
class Shape:
    """A tensor reduced to its shape and number format."""

    sizes: tuple[int, ...]
    bytes_each: int

    @property
    def bytes(self) -> int:
        """Memory the tensor takes."""
        return torch.Size(self.sizes).numel() * self.bytes_each


@dataclass(frozen=True)
class Facts:
    """Every value's form for one image and for two; tensors are `Shape`s."""

    one: Mapping[fx.Node, Any]
    two: Mapping[fx.Node, Any]

    def shape(self, node: fx.Node) -> tuple[int, ...] | None:
        """The shape for two images where the value is a tensor with one row for each image, otherwise None."""
        a, b = self.one[node], self.two[node]
        rows = isinstance(a, Shape) and isinstance(b, Shape) and a.sizes[:1] == (1,) and b.sizes[:1] == (2,)
        return b.sizes if rows and a.sizes[1:] == b.sizes[1:] else None

    def growth(self, node: fx.Node) -> Growth:
        """How the value depends on the number of images; a list of several values must agree in all of them."""
        return _growth(self.one[node], self.two[node])

    def bytes_per_image(self, node: fx.Node) -> int:
        """Memory of all tensors in the value for one image."""
        return sum(item.bytes for item in _flat(self.one[node]) if isinstance(item, Shape))


def facts_of(program: Program, example: Tensor) -> Facts:
    """Run the program on the first of two images, and on both."""
    return Facts(_forms(program, example[:1]), _forms(program, example[:2]))


def _forms(program: Program, images: Tensor) -> dict[fx.Node, Any]:
    forms: dict[fx.Node, Any] = {program.images: _form(images)}

    def visit(node: fx.Node, value: Any) -> None:
        forms[node] = _form(value)

    execute(program.steps(program.nodes, keep=()), {program.images: images}, visit=visit)
    return forms


def rows_of(value: Any, one: Any, two: Any, index: Tensor, images: int) -> Any:
    """The value for stacked rows: row `r` of the answer is that of image `index[r]`.

    Args:
        value: as it is for `images` images.
        one: its form for one image.
        two: its form for two images.
        index: the image of each row.
        images: number of images of the batch that gave the value.
    """
    match _growth(one, two):
        case "shared":
            return value
        case "rows" if isinstance(value, Tensor):
            return take(value, index, images)
        case "rows" if isinstance(value, (tuple, list)):
            items = [rows_of(v, a, b, index, images) for v, a, b in zip(value, one, two, strict=True)]
            return torch.Size(items) if isinstance(value, torch.Size) else type(value)(items)
        case "rows":
            return value // images * len(index)
        case _:
            message = "a value that lives across the cut is tied to the batch size"
            raise UnsuitedError(message)


def take(value: Tensor, index: Tensor, images: int) -> Tensor:
    """The rows of the given images, in the memory order of `value` (channels last where it is)."""
    if value.ndim == 4 and len(value) == images and value.is_contiguous(memory_format=torch.channels_last):  # noqa: PLR2004 n, c, h, w
        return value.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
    if len(value) == images:
        return value.index_select(0, index)
    return value.reshape(images, -1, *value.shape[1:]).index_select(0, index).flatten(0, 1)


def _growth(one: Any, two: Any) -> Growth:
    match one, two:
        case Shape(), Shape():
            if one.sizes == two.sizes:
                return "shared"
            doubled = one.sizes and (2 * one.sizes[0], *one.sizes[1:]) == two.sizes
            return "rows" if doubled else "other"
        case bool(), bool():
            return "shared" if one == two else "other"
        case int(), int():
            return "shared" if one == two else "rows" if 2 * one == two else "other"
        case ((tuple() | list()), (tuple() | list())) if len(one) == len(two):
            found = {_growth(a, b) for a, b in zip(one, two, strict=True)}
            return "shared" if found <= {"shared"} else "other" if "other" in found else "rows"
        case _:
            return "shared" if type(one) is type(two) and one == two else "other"


def _form(value: Any) -> Any:
    match value:
        case Tensor():
            return Shape(tuple(value.shape), value.element_size())
        case tuple() | list():
            return [_form(item) for item in value]
        case _:
            return value


def _flat(form: Any) -> list[Any]:
    return [leaf for item in form for leaf in _flat(item)] if isinstance(form, list) else [form]
