"""Where the shards of a sweep are worked: one after another here; worker processes and clusters take the same shape.

An executor gets one function, the objects that all tasks share (the network, the data: handed over once, by reference)
and the tasks themselves (small values). It yields (position, answer) pairs in any order; the caller puts them in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Answer = TypeVar("Answer")


@runtime_checkable
class Executor(Protocol):
    """Works a list of independent tasks."""

    def work(
        self, function: Callable[[Shared, Task], Answer], shared: Shared, tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Answer]]:
        """Yield `(position, function(shared, tasks[position]))` for every task, in any order."""
        ...


@dataclass(frozen=True)
class Serial:
    """One task after another, in this process."""

    def work(
        self, function: Callable[[Shared, Task], Answer], shared: Shared, tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Answer]]:
        """Yield the answers in order."""
        for position, task in enumerate(tasks):
            yield position, function(shared, task)


EXECUTORS: dict[str, Callable[[], Executor]] = {"serial": Serial}
"""Name on the command line -> maker."""
