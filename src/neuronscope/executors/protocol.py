"""What an executor is, and the simplest one."""

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

    @property
    def inside(self) -> bool:
        """Whether tasks run in this very process (then they report their own progress)."""
        ...

    @property
    def threads(self) -> int | None:
        """Threads of one operation in a task when the run does not say; None leaves PyTorch's own number."""
        ...

    def work(
        self, function: Callable[[Shared, Task], Answer], shared: Shared, tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Answer]]:
        """Yield `(position, function(shared, tasks[position]))` for every task, in any order.

        No more answers are ahead of the earliest missing one than a small multiple of the workers: they wait in memory.
        """
        ...


@dataclass(frozen=True)
class Serial:
    """One task after another, in this process."""

    @property
    def inside(self) -> bool:
        """Tasks run here."""
        return True

    @property
    def threads(self) -> int | None:
        """PyTorch's own number."""
        return None

    def work(
        self, function: Callable[[Shared, Task], Answer], shared: Shared, tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Answer]]:
        """Yield the answers in order."""
        for position, task in enumerate(tasks):
            yield position, function(shared, task)
