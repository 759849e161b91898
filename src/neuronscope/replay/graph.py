"""The fast ways: a traced network whose tail runs many edits at once, or needs no run at all.

Three stages, each cheaper per edit than running the tail:

1. Operations on single channels (activations, normalisation, pooling) run once for all units, unedited and with all
   units replaced. Where both agree for an image and a unit, the edit changes nothing and the logits are known.
2. The first operations that mix channels add what one unit changes to their unedited result.
3. The rest runs on rows, each an (image, unit) pair, as many at once as the processor's caches take well.

If there is no rest, the logits are a sum and are written down: the closed form.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, fx, nn

from neuronscope.hooks import units_first
from neuronscope.replay.channels import Channels, changed, followed
from neuronscope.replay.facts import facts_of, rows_of, take
from neuronscope.replay.folding import folded, maps_last
from neuronscope.replay.full import as_made
from neuronscope.replay.live import Live, Logits, UnsuitedError
from neuronscope.replay.mixing import MixingLinear, mixing_at
from neuronscope.replay.program import Step, execute, traced
from neuronscope.units import LayerInfo

FAST_BYTES = 40 * 2**20
"""Activations of one run above which convolutions on a processor get slower: they no longer fit its caches.

Measured on tails of ResNet-18 at 224 x 224: 64 rows of layer 3, 128 rows of layer 4.
"""

MOST_ROWS = 1024
_ROUNDS = 16  # full runs in one chunk of an answer, so that the last, smaller run does not weigh much
_ANSWER_SHARE = 8  # an answer's chunk takes at most this part of the memory
_OUTLIER = 64.0
"""A unit this many times larger than the others are is not taken off a sum it dominates, for that would leave the
rounding of the large number behind; the operation runs in full."""


@dataclass(frozen=True, eq=False)
class _Replaced:
    """A fill, run through the operations on single channels.

    Attributes:
        values: those values where units meet others, with all units replaced, channels last.
        changes: edited minus unedited units, by the value they are in: (n, units, ...).
        active: (image, unit) pairs where the edit changes anything.
        dominant: pairs whose change is too large to be added to a sum of the others.
    """

    values: dict[fx.Node, Tensor]
    changes: dict[fx.Node, Tensor]
    active: Bool[Tensor, "n units"]
    dominant: Bool[Tensor, "n units"]


@dataclass(frozen=True, eq=False)
class _Rest:
    """Steps that run on rows, and what they read from outside."""

    steps: tuple[Step, ...]
    live: tuple[fx.Node, ...]
    borders: tuple[fx.Node, ...]


class Graph:
    """A program cut at a layer.

    Raises:
        UnsuitedError: torch.fx cannot follow the network.
    """

    def __init__(self, module: nn.Module, layer: LayerInfo, example: Tensor, *, memory: int) -> None:
        """Trace, learn shapes from the example, and plan."""
        self._layer, self._memory = layer, memory
        with torch.inference_mode():
            self._program = folded(traced(module, layer))
            self._facts = facts_of(self._program, maps_last(example))
            self._plan()

    @property
    def closed(self) -> bool:
        """Whether the logits are a sum over units."""
        return self._is_logits or (len(self._single.steps) == 0 and isinstance(self._final, MixingLinear))

    def _plan(self) -> None:
        program, facts = self._program, self._facts
        shape = facts.shape(program.layer)
        axis = self._layer.channel_axis % len(shape or (0,))
        if shape is None or len(shape) < 2 or shape[axis] != self._layer.units:  # noqa: PLR2004 image and unit
            message = f"'{self._layer.name}' gives {shape or 'no rows of images'}, not {self._layer.units} units"
            raise UnsuitedError(message)
        tail = changed(program)
        if len(facts.shape(program.logits) or ()) != 2:  # noqa: PLR2004 image and class
            message = "the network gives something other than one row of logits for each image"
            raise UnsuitedError(message)
        apart = followed(program, facts, Channels(axis, 0, 1))
        if program.logits in apart and apart[program.logits].step != 1:
            del apart[program.logits]  # each unit has several logits: run like any other value
        mixed = [node for node in tail if node not in apart]
        candidates = {node: mixing_at(program, facts, node, apart=apart, units=shape[axis]) for node in mixed}
        mixing = {node: found for node, found in candidates.items() if found is not None}
        self._apart, self._mixing = apart, mixing
        self._is_logits = program.logits in apart
        self._final = mixing.get(program.logits)
        rest = [node for node in mixed if node not in mixing]
        keep = (program.logits,)
        self._single = self._rest(program.steps(rest, keep=keep), {*apart}, {*mixing})
        self._dense = self._rest(program.steps(mixed, keep=keep), {*apart}, set())
        borders = {program.logits} if self._is_logits else set(self._dense.borders)
        self._borders = tuple(node for node in apart if node in borders)
        inside = [node for node in _leading_to(apart, borders) if node is not program.layer]
        self._channelwise = program.steps(inside, keep=borders)
        self._aside = tuple(
            dict.fromkeys(node for step in self._channelwise for node in step.node.all_input_nodes if node not in apart)
        )
        self._prefix = program.steps(
            program.nodes,
            keep={program.layer, program.logits, *self._borders, *mixing, *self._aside, *self._dense.live},
        )
        # Something that lives across the cut knows the number of images: then edits run one by one.
        self._tied = any(facts.growth(node) == "other" for node in self._dense.live)
        self._rows = self._fast_rows()

    def _rest(self, steps: tuple[Step, ...], apart: set[fx.Node], mixing: set[fx.Node]) -> _Rest:
        made = {step.node for step in steps}
        outside = list(
            dict.fromkeys(node for step in steps for node in step.node.all_input_nodes if node not in made | mixing)
        )
        live = tuple(node for node in outside if node not in apart)
        return _Rest(steps, live, tuple(node for node in outside if node in apart))

    def _fast_rows(self) -> int:
        """How many rows run best at once: what they keep at the same time fits caches and memory."""
        rest = self._dense
        grows = [node for node in rest.live if self._facts.growth(node) == "rows"]
        held = {node: self._facts.bytes_per_image(node) for node in (*rest.borders, *grows)}
        most = sum(held.values())
        for step in rest.steps:
            held[step.node] = self._facts.bytes_per_image(step.node)
            most = max(most, sum(held.values()))
            for node in step.forget:
                held.pop(node, None)
        return max(1, min(MOST_ROWS, min(self._memory, FAST_BYTES) // max(most, 1)))

    @torch.inference_mode()
    def prefix(self, images: Tensor) -> Live:
        """One forward pass; keeps what lives across the cut, with channels last."""
        program, n = self._program, len(images)
        values = execute(self._prefix, {program.images: maps_last(images)})
        output = units_first(values[program.layer], self._layer)
        kept: dict[Any, Any] = {"images": n}
        for node in self._dense.live:
            grows = isinstance(values[node], Tensor) and self._facts.growth(node) == "rows"
            kept[node] = maps_last(values[node]) if grows else values[node]
        kept |= {("border", node): maps_last(values[node]) for node in self._borders}
        kept |= {("aside", node): values[node] for node in self._aside}
        kept |= {("base", node): mixing.base(values[node]) for node, mixing in self._mixing.items()}
        return Live(output=output, logits=values[program.logits], kept=kept)

    def single(self, live: Live, units: Sequence[int], fill: Tensor) -> Logits:
        """Logits with one unit replaced, for each unit."""
        asked = torch.as_tensor(list(units), dtype=torch.int64, device=live.output.device)
        replaced = self._replaced(live, fill)
        for part in self._parts(len(asked), live):
            yield part, self._single_chunk(live, asked[part], replaced)

    def masked(self, live: Live, masks: Bool[Tensor, "m units"], fill: Tensor) -> Logits:
        """Logits with a set of units replaced, for each mask."""
        replaced = self._replaced(live, fill)
        for part in self._parts(len(masks), live):
            yield part, self._masked_chunk(live, masks[part], replaced)

    def _parts(self, count: int, live: Live) -> list[slice]:
        n, classes = live.logits.shape
        each = n * classes * live.logits.element_size()
        most = max(1, self._memory // _ANSWER_SHARE // max(each, 1))
        if not self.closed:
            most = min(most, max(1, _ROUNDS * self._rows // max(n, 1)))
        return [slice(start, min(start + most, count)) for start in range(0, count, most)]

    @torch.inference_mode()
    def _replaced(self, live: Live, fill: Tensor) -> _Replaced:
        program, units = self._program, self._layer.units
        values = {node: live.kept["aside", node] for node in self._aside}
        values[program.layer] = maps_last(as_made(fill, self._layer))
        execute(self._channelwise, values)
        n = len(live.logits)
        active = torch.zeros(n, units, dtype=torch.bool, device=fill.device)
        dominant = torch.zeros_like(active)
        changes: dict[fx.Node, Tensor] = {}
        summed = {mixing.source for mixing in self._mixing.values()}
        for node in self._borders:
            place, base = self._apart[node], live.kept["border", node]
            own = _by_unit(_own(values[node], place, units) - _own(base, place, units), place)
            largest = own.abs().amax(tuple(range(2, own.ndim)))
            active |= largest != 0  # also where it is not a number
            if node in summed:
                changes[node] = own.contiguous()
                dominant |= _dominating(largest, base, place)
        return _Replaced({node: maps_last(values[node]) for node in self._borders}, changes, active, dominant)

    @torch.inference_mode()
    def _single_chunk(self, live: Live, units: Int[Tensor, "m"], replaced: _Replaced) -> Float[Tensor, "m n classes"]:
        if self._is_logits:
            logits = live.logits.repeat(len(units), 1, 1)
            own = _own(replaced.values[self._program.logits], self._apart[self._program.logits], self._layer.units)
            logits[
                torch.arange(len(units), device=units.device), :, self._apart[self._program.logits].first + units
            ] = own[:, units].T
            return logits
        if self.closed and self._final is not None:
            return self._added(live, units, replaced)
        chosen = replaced.active[:, units].T
        heavy = chosen & replaced.dominant[:, units].T
        logits = live.logits.repeat(len(units), 1, 1)
        for position, image in self._batches(chosen & ~heavy, live):
            unit = units[position]
            values = {
                node: mixing.updated(live.kept["base", node], replaced.changes[mixing.source], unit, image)
                for node, mixing in self._mixing.items()
            }
            values |= {node: self._one_replaced(node, live, replaced, unit, image) for node in self._single.borders}
            logits[position, image] = self._run(self._single, values, live, image)
        if heavy.any():
            masks = nn.functional.one_hot(units, self._layer.units).bool()
            self._run_masked(logits, heavy, live, masks, replaced)
        return logits

    @torch.inference_mode()
    def _masked_chunk(
        self, live: Live, masks: Bool[Tensor, "m units"], replaced: _Replaced
    ) -> Float[Tensor, "m n classes"]:
        logits = live.logits.repeat(len(masks), 1, 1)
        if self._is_logits:
            place = self._apart[self._program.logits]
            own = _own(replaced.values[self._program.logits], place, self._layer.units)
            inside = logits[:, :, place.first : place.first + self._layer.units]
            inside.copy_(torch.where(masks[:, None], own, inside))
            return logits
        if self.closed and isinstance(self._final, MixingLinear):
            for image, change in enumerate(replaced.changes[self._final.source]):
                each = torch.bmm(change.unsqueeze(1), self._final.weights).squeeze(1)  # what each unit's edit adds
                logits[:, image].addmm_(masks.to(each.dtype), each)
            return logits
        chosen = (masks.float() @ replaced.active.T.float()) > 0
        self._run_masked(logits, chosen, live, masks, replaced)
        return logits

    def _run_masked(
        self,
        logits: Float[Tensor, "m n classes"],
        chosen: Bool[Tensor, "m n"],
        live: Live,
        masks: Bool[Tensor, "m units"],
        replaced: _Replaced,
    ) -> None:
        for position, image in self._batches(chosen, live):
            values = {
                node: self._some_replaced(node, live, replaced, masks[position], image) for node in self._dense.borders
            }
            logits[position, image] = self._run(self._dense, values, live, image)

    def _batches(self, chosen: Bool[Tensor, "m n"], live: Live) -> list[tuple[Tensor, Tensor]]:
        """Positions and images of the chosen pairs, in runs: of whole batches where something is tied to them."""
        if self._tied:
            images = torch.arange(len(live.logits), device=chosen.device)
            return [(position.expand_as(images), images) for position in chosen.any(1).nonzero()]
        position, image = chosen.nonzero(as_tuple=True)
        if len(position) == 0:
            return []
        return list(zip(torch.split(position, self._rows), torch.split(image, self._rows), strict=True))

    def _run(self, rest: _Rest, values: dict[fx.Node, Any], live: Live, images: Int[Tensor, "r"]) -> Tensor:
        n, facts = live.kept["images"], self._facts
        for node in rest.live:
            kept = live.kept[node]
            values[node] = kept if self._tied else rows_of(kept, facts.one[node], facts.two[node], images, n)
        logits: Tensor = execute(rest.steps, values)[self._program.logits]
        return logits

    def _one_replaced(
        self, node: fx.Node, live: Live, replaced: _Replaced, units: Int[Tensor, "r"], images: Int[Tensor, "r"]
    ) -> Tensor:
        """Rows of a value with one unit replaced in each."""
        place, n = self._apart[node], live.kept["images"]
        rows = take(live.kept["border", node], images, n)
        at = place.first + units[:, None] * place.step + torch.arange(place.step, device=units.device)
        each = torch.arange(len(units), device=units.device)[:, None]
        rows.movedim(place.axis, 1)[each, at] = replaced.values[node].movedim(place.axis, 1)[images[:, None], at]
        return rows

    def _some_replaced(
        self, node: fx.Node, live: Live, replaced: _Replaced, masks: Bool[Tensor, "r units"], images: Int[Tensor, "r"]
    ) -> Tensor:
        """Rows of a value with a set of units replaced in each."""
        place, n = self._apart[node], live.kept["images"]
        rows = take(live.kept["border", node], images, n)
        own = _own(rows, place, self._layer.units)
        donor = _own(replaced.values[node], place, self._layer.units).index_select(0, images)
        flags = masks.repeat_interleave(place.step, 1)
        own.copy_(torch.where(flags.view(*flags.shape, *(1,) * (own.ndim - 2)), donor, own))
        return rows

    def _added(self, live: Live, units: Int[Tensor, "m"], replaced: _Replaced) -> Float[Tensor, "m n classes"]:
        """The closed form for single units."""
        if not isinstance(self._final, MixingLinear):  # `closed` says it is one
            raise TypeError
        change, weights = replaced.changes[self._final.source][:, units].transpose(0, 1), self._final.weights[units]
        if change.shape[2] == 1:
            return torch.addcmul(live.logits, change, weights)
        return torch.baddbmm(live.logits.expand(len(units), -1, -1), change, weights)


def _own(value: Tensor, place: Channels, units: int) -> Tensor:
    """The units' positions of a value, on the second axis: (n, units * step, ...)."""
    return value.narrow(place.axis, place.first, units * place.step).movedim(place.axis, 1)


def _by_unit(own: Tensor, place: Channels) -> Tensor:
    """With one place on the second axis for each unit and at least one axis after it."""
    return own.reshape(len(own), -1, place.step) if own.ndim == 2 else own  # noqa: PLR2004 image and feature


def _dominating(largest: Float[Tensor, "n units"], base: Tensor, place: Channels) -> Bool[Tensor, "n units"]:
    """Whether a change is far larger than what the other channels usually reach."""
    units, step = largest.shape[1], place.step
    reached = base.abs()
    if base.ndim > 2:  # noqa: PLR2004 image and feature
        reached = reached.movedim(place.axis, 1)
        reached = reached.amax(tuple(range(2, base.ndim)))
    squares = reached.double().square()
    own = squares[:, place.first : place.first + units * step].reshape(len(base), units, step).sum(2)
    others = (squares.sum(1, keepdim=True) - own).clamp(min=0) / max(squares.shape[1] - step, 1)
    return largest.double() > _OUTLIER * others.sqrt()


def _leading_to(apart: Collection[fx.Node], borders: set[fx.Node]) -> list[fx.Node]:
    """Those of the nodes that are borders or that borders are made from."""
    wanted = set(borders)
    for node in reversed(list(apart)):
        if node in wanted:
            wanted.update(node.all_input_nodes)
    return [node for node in apart if node in wanted]
