"""The contract of a reducer, and `Each`, which lets one pass feed many of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

State = dict[str, Any]
"""Named tensors, lists of tensors, or further states: everything a checkpoint can write without pickling."""

Seen = Mapping[str, Tensor]
"""What a step saw of one batch: `index` and `label` of shape (n,), and measurements of shape (n, ...) by name."""

Answer_co = TypeVar("Answer_co", covariant=True)


@runtime_checkable
class Reducer(Protocol[Answer_co]):
    """Folds a stream of batches into a small answer.

    A state belongs to the loop that made it: `add` and `merge` may build on the memory of their first argument, and the
    caller uses only what they return. Batches of one shard arrive in the order of their rows.
    """

    def start(self) -> State:
        """The state that has seen nothing."""
        ...

    def add(self, state: State, seen: Seen) -> State:
        """The state after one more batch."""
        ...

    def merge(self, left: State, right: State) -> State:
        """The state of two consecutive stretches of data, `left` before `right`."""
        ...

    def finish(self, state: State) -> Answer_co:
        """The answer, as numpy arrays."""
        ...

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Bytes a state will take, given each measurement's shape without its first axis."""
        ...


class Each:
    """Several reducers over one pass: a mapping of names to answers.

    Example:
        >>> import torch
        >>> from neuronscope.maths.streams import Confusion, StackRows
        >>> both = Each(rows=StackRows(of="mean"), confusion=Confusion(of="logits", classes=2))
        >>> seen = {"index": torch.tensor([0]), "label": torch.tensor([1]),
        ...         "mean": torch.ones(1, 3), "logits": torch.tensor([[0.0, 2.0]])}
        >>> both.finish(both.add(both.start(), seen))["confusion"].tolist()
        [[0, 0], [0, 1]]
    """

    def __init__(self, **reducers: Reducer[Any]) -> None:
        """Name each reducer; its answer appears under that name."""
        self.reducers = reducers

    def start(self) -> State:
        """A state for each."""
        return {name: reducer.start() for name, reducer in self.reducers.items()}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch for each."""
        return {name: reducer.add(state[name], seen) for name, reducer in self.reducers.items()}

    def merge(self, left: State, right: State) -> State:
        """Merge name by name."""
        return {name: reducer.merge(left[name], right[name]) for name, reducer in self.reducers.items()}

    def finish(self, state: State) -> dict[str, Any]:
        """Name -> answer."""
        return {name: reducer.finish(state[name]) for name, reducer in self.reducers.items()}

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Bytes of all states together."""
        return sum(reducer.size(shapes) for reducer in self.reducers.values())

    def __repr__(self) -> str:
        """The reducers by name (part of a sweep's identity)."""
        return f"Each({', '.join(f'{name}={reducer!r}' for name, reducer in self.reducers.items())})"


def on_cpu(state: Any) -> Any:
    """The same state with its tensors in the processor's memory, where states of all shards meet."""
    if isinstance(state, Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {name: on_cpu(part) for name, part in state.items()}
    return [on_cpu(part) for part in state] if isinstance(state, list) else state


def state_bytes(state: Any) -> int:
    """Bytes held by the tensors of a state."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return sum(state_bytes(part) for part in parts)
