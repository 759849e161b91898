"""A Ray cluster: a local one started for the run, or one that is there already.

The function and what all tasks share (the network, the data) go through the object store once, and each worker unpacks
them once; tasks and answers are small. A task whose worker or machine dies is worked again. Code that is not installed
as a package (a factory in a file, a module in the current folder) travels with the objects that need it.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from neuronscope.errors import InputError, MissingDependency, NeuronscopeError
from neuronscope.executors.protocol import Answer, Shared, Task

_AHEAD = 2  # answers may be so many times the workers ahead of the earliest missing one
_RETRIES = 3  # of a task whose worker dies, by Ray itself
_TRIES = 3  # of a task that Ray gave up, or whose answer was lost
_PATIENCE = 10.0  # seconds for a first connection to an address; Ray's own patience lasts minutes
_LARGEST_PORT = 65535


@dataclass(frozen=True)
class RayCluster:
    """A Ray cluster: tasks go to all its machines (install with the extra `ray`).

    Inside a `with`, the cluster or the connection to it stays for all sweeps; otherwise each sweep has its own, which
    takes some seconds. A connection that the calling program has made itself is used, and left as it is.

    Attributes:
        address: `host:port` of a cluster, or `auto` for the one on this machine; None starts one here for the run.
        workers: tasks worked at once; None for as many as the cluster has cores or GPUs for. On a cluster that is
            there already, Ray decides: then at most twice as many are handed over.
        threads_per_task: threads of one operation, and cores that a task reserves.
        gpus_per_task: GPUs that a task reserves; without any, a task sees none.
    """

    address: str | None = None
    workers: int | None = None
    threads_per_task: int = 1
    gpus_per_task: int = 0
    _open: ExitStack = field(default_factory=ExitStack, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be.

        Raises:
            InputError: less than one worker or thread, or less than no GPU.
        """
        for name, value, least in (
            ("workers", self.workers, 1),
            ("threads_per_task", self.threads_per_task, 1),
            ("gpus_per_task", self.gpus_per_task, 0),
        ):
            if value is not None and value < least:
                message = f"{name} must be at least {least}, not {value}"
                raise InputError(message)

    def __enter__(self) -> RayCluster:  # noqa: PYI034 beartype resolves no Self in a method
        """Start the cluster, or connect to it.

        Raises:
            MissingDependency: Ray is not installed.
            InputError: the cluster cannot be reached.
        """
        self._open.enter_context(self._connected(_ray()))
        return self

    def __exit__(self, *exc: object) -> None:
        """End what was started."""
        self._open.close()

    @property
    def inside(self) -> bool:
        """Tasks run elsewhere."""
        return False

    @property
    def threads(self) -> int | None:
        """As many as a task reserves cores."""
        return self.threads_per_task

    def work(
        self, function: Callable[[Shared, Task], Answer], shared: Shared, tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Answer]]:
        """Yield the answers as they come. What a task raises is raised here as it was.

        Raises:
            MissingDependency: Ray is not installed.
            InputError: the cluster cannot be reached, has no room for a task, or runs other versions; or the objects
                cannot be sent to it.
            NeuronscopeError: the workers of a task die again and again, for example for want of memory.
        """
        if not tasks:  # nothing is left to do: no cluster is started for it
            return
        ray = _ray()
        with self._connected(ray), _by_value(ray, _homeless()):
            yield from self._answers(ray, function, shared, tasks)

    def _answers(
        self, ray: Any, function: Callable[[Shared, Task], Answer], shared: Shared, tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Answer]]:
        remote = ray.remote(_answer).options(
            num_cpus=self.threads_per_task, num_gpus=self.gpus_per_task, max_retries=_RETRIES
        )
        # Inside a list a reference travels as it is: the worker fetches what it stands for once, not for every task.
        held = [_put(ray, (function, shared))]
        ahead = _AHEAD * (self.workers or self._room(ray))
        queue = list(range(len(tasks)))
        missing = set(queue)
        given_up: dict[int, int] = {}
        running: dict[Any, int] = {}
        try:
            while missing:
                while queue and queue[0] < min(missing) + ahead:
                    position = queue.pop(0)
                    running[remote.remote(held, self.threads_per_task, _versions(), tasks[position])] = position
                ready, _ = ray.wait(list(running), num_returns=1)
                position = running.pop(ready[0])
                try:
                    answer = ray.get(ready[0])
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                except _losses(ray) as error:
                    given_up[position] = given_up.get(position, 0) + 1
                    if given_up[position] >= _TRIES:
                        raise NeuronscopeError(_gave_up(error)) from error
                    queue.insert(0, position)
                    continue
                missing.discard(position)
                yield position, answer
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _room(self, ray: Any) -> int:
        """Tasks that the cluster has cores and GPUs for.

        Raises:
            InputError: not even one.
        """
        there = ray.cluster_resources()
        room = int(there.get("CPU", 0) // self.threads_per_task)
        if self.gpus_per_task:
            room = min(room, int(there.get("GPU", 0) // self.gpus_per_task))
        if room < 1:
            message = (
                f"the Ray cluster has {there.get('CPU', 0):.0f} cores and {there.get('GPU', 0):.0f} GPUs: a task needs "
                f"{self.threads_per_task} and {self.gpus_per_task}. Ask for fewer --threads, for --device cpu, or "
                "start the cluster with more"
            )
            raise InputError(message)
        return room

    @contextmanager
    def _connected(self, ray: Any) -> Iterator[None]:
        """A connection to the cluster, ended again unless the calling program had one before."""
        if ray.is_initialized():
            yield
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read by Ray when a cluster starts: nothing is sent
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address is None:
            cores = self.workers * self.threads_per_task if self.workers else os.cpu_count() or 1
            ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
        else:
            _knock(self.address)
            try:
                ray.init(address=self.address, **quiet)
            except (ConnectionError, RuntimeError, ValueError, ImportError) as error:
                raise InputError(_unreachable(self.address, error)) from error
        try:
            yield
        finally:
            ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        message = "the executor ray needs the package ray, which is not installed: pip install 'neuronscope[ray]'"
        raise MissingDependency(message) from error
    return ray


def _put(ray: Any, value: object) -> Any:
    try:
        return ray.put(value)
    except TypeError as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        message = (
            f"the network, the images or what is to be done with them cannot be sent to other processes: {reason}. "
            "Expected objects that can be pickled. On this machine, --executor processes needs no sending"
        )
        raise InputError(message) from error


def _losses(ray: Any) -> tuple[type[Exception], ...]:
    """What Ray raises when a worker, its machine or an answer is gone; the task itself did nothing wrong."""
    errors = ray.exceptions
    return (errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError, errors.OutOfMemoryError)


def _gave_up(error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0]
    return (
        f"the workers of one task were killed {(_RETRIES + 1) * _TRIES} times: {reason} Is there memory for all "
        "workers of a machine? Try a smaller --batch-size or fewer workers"
    )


def _knock(address: str) -> None:
    """Find out quickly whether anybody listens at an address that says host and port.

    Raises:
        InputError: nobody does, or the port is no port.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:  # `auto`, or whatever else Ray may understand
        return
    if not (port.isdigit() and 0 < int(port) <= _LARGEST_PORT):
        message = f"'{address}' is no address of a Ray cluster: expected host:port, as in 10.0.0.1:6379, or auto"
        raise InputError(message)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise InputError(_unreachable(address, error)) from error


def _unreachable(address: str, error: Exception) -> str:
    return (
        f"no Ray cluster answers at '{address}' ({str(error).strip() or type(error).__name__}). Expected the host:port "
        "that `ray start --head` prints there. Is it running, may this machine reach it, and does it want a token "
        "(RAY_AUTH_MODE=token)? Without --address a cluster is started on this machine"
    )


@contextmanager
def _by_value(ray: Any, modules: Sequence[ModuleType]) -> Iterator[None]:
    """Send the code of some modules along with what is made of it; workers could not import them."""
    pickling = ray.cloudpickle
    before = pickling.list_registry_pickle_by_value()
    fresh = [module for module in modules if module.__name__ not in before]
    for module in fresh:
        pickling.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in fresh:
            pickling.unregister_pickle_by_value(module)


def _homeless() -> list[ModuleType]:
    """Loaded modules that belong to no installed package: files, and what lies in the current or the script's folder.

    The script itself is not among them: Ray sends its code in any case.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    own = {Path.cwd(), *([Path(script).resolve().parent] if script else [])}
    installed = [entry for entry in sys.path if entry and Path(entry).resolve() not in own]
    known: dict[str, bool] = {}
    found = []
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top in ("__main__", "__mp_main__", "neuronscope") or not getattr(module, "__file__", None):
            continue
        if top not in known:
            known[top] = PathFinder.find_spec(top, installed) is not None
        if not known[top] and module.__name__ == name:
            found.append(module)
    return found


def _versions() -> dict[str, str]:
    """What decides bits, or whether code of one machine means the same on another."""
    return {
        "processor": platform.machine(),
        **{package: _version(package) for package in ("neuronscope", "numpy", "torch")},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from its source folder
        return "uninstalled"


_held: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {}  # of a worker: what it fetched last


def _answer(held: list[Any], threads: int, versions: dict[str, str], task: object) -> Any:
    """One task, in a worker."""
    import ray

    name = held[0].hex()
    if name not in _held:
        here = _versions()
        if here != versions:
            differ = ", ".join(
                f"{key} {here[key]} (not {versions[key]})" for key in versions if here[key] != versions[key]
            )
            message = (
                f"the machine {platform.node()} of the Ray cluster has {differ}: expected the same as where the run "
                "was started, for the numbers would differ. Install the same versions everywhere"
            )
            raise InputError(message)
        # The largest values of a worker: those of an earlier run go before new ones come.
        _held.clear()
        _held[name] = ray.get(held[0])
    torch.set_num_threads(threads)  # a Ray worker has one, whatever it reserves; convolutions then give other bits
    function, shared = _held[name]
    return function(shared, task)
