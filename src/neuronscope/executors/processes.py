"""Worker processes on this machine: uncontended, two with one thread each beat one with two.

On Linux the workers are forked, so the network and the data are shared without a copy and anything can be a network.
Where a CUDA device is in use, or the system does not fork, they are spawned and get pickled copies. A worker that is
killed takes only its own task with it: the task is worked again.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import torch

from neuronscope.errors import NeuronscopeError
from neuronscope.executors.protocol import Answer, Shared, Task

_AHEAD = 2  # answers may be so many times the workers ahead of the earliest missing one
_TRIES = 3  # pools in a row that may break without a single answer in between


@dataclass(frozen=True)
class Processes:
    """As many worker processes as cores, one thread each.

    Attributes:
        workers: number of processes.
    """

    workers: int = field(default_factory=lambda: os.cpu_count() or 1)

    @property
    def inside(self) -> bool:
        """Tasks run elsewhere."""
        return False

    @property
    def threads(self) -> int | None:
        """One: the workers share the cores."""
        return 1

    def work(
        self, function: Callable[[Shared, Task], Answer], shared: Shared, tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Answer]]:
        """Yield the answers as they come.

        Raises:
            NeuronscopeError: the workers are killed again and again, for example for want of memory.
        """
        missing = set(range(len(tasks)))
        broken = 0
        while missing:
            before = len(missing)
            try:
                yield from self._one_pool(function, shared, tasks, missing)
            except BrokenProcessPool as error:
                broken = broken + 1 if len(missing) == before else 1
                if broken >= _TRIES:
                    message = (
                        f"worker processes were killed {broken} times without finishing a task. Is there memory for "
                        f"{self.workers} of them? Try --executor serial, a smaller --batch-size or fewer workers"
                    )
                    raise NeuronscopeError(message) from error

    def _one_pool(
        self, function: Callable[[Shared, Task], Answer], shared: Shared, tasks: Sequence[Task], missing: set[int]
    ) -> Iterator[tuple[int, Answer]]:
        pool = ProcessPoolExecutor(
            min(self.workers, len(missing)), mp_context=_context(), initializer=_receive, initargs=(function, shared)
        )
        running: dict[Future[Any], int] = {}
        queue = sorted(missing)
        try:
            while queue or running:
                while queue and queue[0] < min(missing) + _AHEAD * self.workers:
                    position = queue.pop(0)
                    running[pool.submit(_answer, tasks[position])] = position
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    position = running.pop(done)
                    answer = done.result()
                    missing.discard(position)
                    yield position, answer
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _context() -> Any:
    forks = sys.platform == "linux" and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return multiprocessing.get_context("fork" if forks else "spawn")


_inherited: dict[str, Any] = {}  # of a worker process: what it got when it started


def _receive(function: Callable[[Any, Any], Any], shared: object) -> None:
    torch.set_num_threads(1)  # a forked process must not call up the parent's threads, which it does not have
    _inherited.update(function=function, shared=shared)


def _answer(task: object) -> Any:
    return _inherited["function"](_inherited["shared"], task)
