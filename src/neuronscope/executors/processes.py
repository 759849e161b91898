"""Worker processes on this machine: uncontended, two with one thread each beat one with two.

On Linux the workers are forked, so the network and the data are shared without a copy and anything can be a network.
Where a CUDA device is in use, or the system does not fork, they are spawned and get pickled copies. A worker that is
killed takes only its own task with it: the task is worked again.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from neuronscope.errors import NeuronscopeError
from neuronscope.executors.protocol import Answer, Shared, Task

_AHEAD = 2  # answers may be so many times the workers ahead of the earliest missing one
_WATCH = 0.2  # seconds between two looks at whether the parent is still there
_TRIES = 3  # pools in a row that may break without a single answer in between


@dataclass(frozen=True)
class Processes:
    """As many worker processes as cores, one thread each.

    Attributes:
        workers: number of processes.
        start: how they come to be; `auto` forks where that is safe and spawns elsewhere.
    """

    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    start: Literal["auto", "fork", "spawn"] = "auto"

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
        context = _context(self.start)
        initializer: Callable[..., None] = _receive
        arguments: tuple[Any, ...] = (function, shared)
        if context.get_start_method() == "spawn":
            # Pickled here: left to multiprocessing, PyTorch would move the caller's own weights to shared memory, and
            # arrays that look into them would look into freed memory.
            initializer, arguments = _receive_copy, (pickle.dumps(arguments),)
        pool = ProcessPoolExecutor(
            min(self.workers, len(missing)),
            mp_context=context,
            initializer=initializer,
            initargs=arguments,
        )
        running: dict[Future[Any], int] = {}
        queue = sorted(missing)
        try:
            while queue or running:
                while queue and queue[0] < min(missing) + _AHEAD * self.workers:
                    position = queue.pop(0)
                    with warnings.catch_warnings():
                        # from Python 3.12 on; what is wrong with forking beside threads is seen to in `_receive`
                        warnings.filterwarnings("ignore", message=".*multi-threaded", category=DeprecationWarning)
                        running[pool.submit(_answer, tasks[position])] = position
                # answers before errors: what is finished is handed over before the first error ends the work
                for done in sorted(wait(running, return_when=FIRST_COMPLETED).done, key=_failed):
                    position = running.pop(done)
                    answer = done.result()
                    missing.discard(position)
                    yield position, answer
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _failed(done: Future[Any]) -> bool:
    return done.exception() is not None


def _context(start: Literal["auto", "fork", "spawn"]) -> Any:
    if start != "auto":
        return multiprocessing.get_context(start)
    forks = sys.platform == "linux" and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return multiprocessing.get_context("fork" if forks else "spawn")


_inherited: dict[str, Any] = {}  # of a worker process: what it got when it started


def _receive(function: Callable[[Any, Any], Any], shared: object) -> None:
    # A forked process must not call up the team of threads that belongs to its parent's main thread: it was not copied,
    # and the wait for it never ends. A thread born here has a team of its own.
    worker = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
    _inherited.update(function=function, shared=shared, worker=worker)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _receive_copy(data: bytes) -> None:
    _receive(*pickle.loads(data))  # noqa: S301 from the parent process


def _end_with(parent: int) -> None:
    """Stop when the parent was killed: a worker left behind would wait for ever, and hold the lock it inherited."""
    while os.getppid() == parent:
        time.sleep(_WATCH)
    os._exit(1)


def _answer(task: object) -> Any:
    return _inherited["worker"].submit(_inherited["function"], _inherited["shared"], task).result()
