"""The way for networks that cannot be traced: modules that finish before the cut give back what they gave.

The network's own Python code runs each time, so branches and operations between modules are as they are; only the
largest modules that finished before the layer was called are not run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from neuronscope.hooks import units_first
from neuronscope.replay.full import as_made
from neuronscope.replay.live import Live, Logits, UnsuitedError
from neuronscope.replay.onebyone import masked_by_one, single_by_one
from neuronscope.units import LayerInfo


@dataclass(frozen=True)
class _Call:
    """One call of a module: when it began and ended, counted in calls and returns, and what it gave."""

    module: nn.Module
    began: int
    ended: int
    output: Any


@dataclass(frozen=True)
class Modules:
    """Recorded modules and a running rest, one unit at a time."""

    module: nn.Module
    layer: LayerInfo

    @torch.inference_mode()
    def prefix(self, images: Tensor) -> Live:
        """One forward pass that records the modules; keeps their outputs and the images.

        Raises:
            UnsuitedError: the layer is not called, or gives something other than one tensor.
        """
        target = self.module.get_submodule(self.layer.module_name)
        recorder = _Recorder(target, self.layer.call)
        parts = list(dict.fromkeys(self.module.modules()))[1:]  # the network itself never ends before the layer
        with _patched({part: recorder.watching(part) for part in parts}):
            logits = self.module(images)
        layer = recorder.layer
        if layer is None or not isinstance(layer.output, Tensor):
            message = f"'{self.layer.name}' was not called, or gave no single tensor"
            raise UnsuitedError(message)
        largest = [call for call in recorder.calls if call.ended < layer.began]
        output = units_first(layer.output, self.layer)
        kept = {"images": images, "calls": [(call.module, call.output) for call in largest]}
        return Live(output=output, logits=logits, kept=kept)

    def single(self, live: Live, units: Sequence[int], fill: Tensor) -> Logits:
        """Logits with one unit replaced, for each unit."""
        return single_by_one(self.replay, live, units, fill)

    def masked(self, live: Live, masks: Bool[Tensor, "m units"], fill: Tensor) -> Logits:
        """Logits with a set of units replaced, for each mask."""
        return masked_by_one(self.replay, live, masks, fill)

    def replay(self, live: Live, edited: Float[Tensor, "n units *map"]) -> Float[Tensor, "n classes"]:
        """Logits with the layer's output replaced.

        Raises:
            UnsuitedError: the network called its modules in another order than before.
        """
        target = self.module.get_submodule(self.layer.module_name)
        return self._run(live, [*live.kept["calls"], (target, as_made(edited, self.layer))])

    def rest(self, live: Live) -> Float[Tensor, "n classes"]:
        """The network run again from the layer on, itself included, with whatever hooks it has by now.

        Raises:
            UnsuitedError: the network called its modules in another order than before.
        """
        return self._run(live, live.kept["calls"])

    def _run(self, live: Live, due: Sequence[tuple[nn.Module, Any]]) -> Float[Tensor, "n classes"]:
        place = 0

        def answering(part: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
            def answer(*args: Any, **kwargs: Any) -> Any:
                nonlocal place
                if place < len(due) and due[place][0] is part:
                    place += 1
                    return _copied(due[place - 1][1])
                return forward(*args, **kwargs)

            return answer

        parts = list(dict.fromkeys(part for part, _ in due))
        with _patched({part: answering(part, part.forward) for part in parts}):
            logits: Tensor = self.module(live.kept["images"])
        if place < len(due):
            message = "its modules were called in another order than before"
            raise UnsuitedError(message)
        return logits


class _Recorder:
    """The largest modules that have ended so far, with a copy of what they gave, until the layer has been called."""

    def __init__(self, target: nn.Module, call: int) -> None:
        self.calls: list[_Call] = []
        self.layer: _Call | None = None
        self._target, self._before = target, call
        self._clock = 0

    def watching(self, part: nn.Module) -> Callable[..., Any]:
        forward = part.forward

        def watch(*args: Any, **kwargs: Any) -> Any:
            if self.layer is not None:
                return forward(*args, **kwargs)
            began = self._tick()
            output = forward(*args, **kwargs)
            if self.layer is None:
                self._note(_Call(part, began, self._tick(), _copied(output)))
            return output

        return watch

    def _note(self, call: _Call) -> None:
        if call.module is self._target:
            if self._before == 0:
                self.layer = call
            self._before -= 1
        if call.output is not _UNKNOWN and self.layer is not call:
            self.calls = [earlier for earlier in self.calls if earlier.ended < call.began]  # the rest ran inside it
            self.calls.append(call)

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


_UNKNOWN = object()  # stands for an output of a type that cannot be copied safely; its module runs again


def _copied(output: Any) -> Any:
    match output:
        case Tensor():
            return output.clone()
        case None | bool() | int() | float() | str():
            return output
        case tuple() | list() if type(output) in (tuple, list):
            copies = [_copied(item) for item in output]
            return _UNKNOWN if any(copy is _UNKNOWN for copy in copies) else type(output)(copies)
        case dict() if type(output) is dict:
            named = {key: _copied(item) for key, item in output.items()}
            return _UNKNOWN if any(copy is _UNKNOWN for copy in named.values()) else named
        case _:
            return _UNKNOWN


@contextmanager
def _patched(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Modules with another `forward` inside the `with`; as they were at its end."""
    before = {part: part.__dict__.get("forward") for part in forwards}
    try:
        for part, forward in forwards.items():
            part.__dict__["forward"] = forward
        yield
    finally:
        for part, own in before.items():
            if own is None:
                part.__dict__.pop("forward", None)
            else:
                part.__dict__["forward"] = own
