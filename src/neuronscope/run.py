"""Every outside circumstance of a computation, in one frozen value that is passed on explicitly.

Seed, device, batch size, threads, workers, executor, progress: a study never asks the environment for any of them.
What decides the bits of a result (`seed`, `batch_size`, `threads`, `device`, `dtype`) is recorded with it; what does
not (`workers`, `executor`, `progress`) is not.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from neuronscope.errors import InputError
from neuronscope.executors import Executor, Serial


@runtime_checkable
class Progress(Protocol):
    """Who wants to know how far a sweep is: three calls."""

    def start(self, name: str, total: int) -> None:
        """A sweep over so many images begins."""
        ...

    def advance(self, images: int) -> None:
        """So many more images are done."""
        ...

    def finish(self) -> None:
        """The sweep has ended."""
        ...


@dataclass(frozen=True)
class Silent:
    """Nobody wants to know."""

    def start(self, name: str, total: int) -> None:
        """Say nothing."""

    def advance(self, images: int) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Run:
    """The circumstances of a computation.

    Attributes:
        seed: where all random streams start; 0 is a seed like any other.
        device: `cpu`, `cuda`, `cuda:1`, or `auto` for the first accelerator there is.
        dtype: number format of the network's arithmetic; sums are float64 in any case.
        batch_size: images per forward pass. Another size agrees within 1e-5 of a layer's largest activation.
        threads: threads of one operation; None leaves PyTorch's own number.
        workers: threads that decode images beside the network.
        executor: who works the shards.
        progress: who hears how far it is.
        checkpoint: folder where sweeps keep what they have finished; None keeps nothing.
        portion: (number from 1, count): work only this part of every sweep's shards.
        memory: bytes that a study may use beside the program and the network; layers are taken in groups that fit. The
            answers are the same. A sweep that needs more is refused before it starts. None sets no bound.
        context: what a study adds to the identity of its sweeps, such as a hash of its options.
    """

    seed: int = 0
    device: str = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    batch_size: int = 32
    threads: int | None = None
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    executor: Executor = field(default_factory=Serial)
    progress: Progress = field(default_factory=Silent)
    checkpoint: Path | None = None
    portion: tuple[int, int] | None = None
    memory: int | None = None
    context: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse sizes below one and devices that are not there."""
        for name in ("batch_size", "workers"):
            if getattr(self, name) < 1:
                message = f"{name} must be at least 1, not {getattr(self, name)}"
                raise InputError(message)
        if self.threads is not None and self.threads < 1:
            message = f"threads must be at least 1, or None for PyTorch's own number, not {self.threads}"
            raise InputError(message)
        if self.dtype not in ("float32", "float64"):
            message = f"dtype '{self.dtype}' is not known. Give float32 or float64"
            raise InputError(message)
        try:
            self.torch_device  # noqa: B018 whether PyTorch can read the name is the question
        except RuntimeError as error:
            message = f"device '{self.device}' is not known. Give auto, cpu, cuda or cuda:NUMBER"
            raise InputError(message) from error
        if self.portion is not None and not 1 <= self.portion[0] <= self.portion[1]:
            message = f"portion {self.portion[0]}/{self.portion[1]} does not exist: expected 1/N to N/N"
            raise InputError(message)
        if self.portion is not None and self.checkpoint is None:
            message = "a portion of the work is of use only where it is kept: give a checkpoint folder"
            raise InputError(message)
        if self.seed < 0:
            message = f"seed must be 0 or more, not {self.seed}"
            raise InputError(message)
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            message = f"device '{self.device}' was asked for, but PyTorch sees no CUDA device. Say --device cpu"
            raise InputError(message)

    @property
    def torch_device(self) -> torch.device:
        """The device meant by `device`."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The number format meant by `dtype`."""
        return torch.float64 if self.dtype == "float64" else torch.float32

    def generator(self, *names: str) -> np.random.Generator:
        """An independent random stream for each (seed, names): the same names give the same stream on any machine.

        Example:
            >>> run = Run(seed=1)
            >>> bool(run.generator("null").integers(2**60) == run.generator("null").integers(2**60))
            True
            >>> bool(run.generator("null").integers(2**60) == run.generator("halves").integers(2**60))
            False
        """
        digest = hashlib.sha256(repr((self.seed, *names)).encode()).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))

    def place(self, values: Tensor) -> Tensor:
        """A tensor on this run's device; floating-point ones in its number format."""
        dtype = self.torch_dtype if values.is_floating_point() else None
        return values.to(self.torch_device, dtype, non_blocking=True)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Set the number of threads and repeatable kernels; undone at the end."""
        threads = torch.get_num_threads()
        cudnn = torch.backends.cudnn
        flags = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)
        try:
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
            yield
        finally:
            torch.set_num_threads(threads)
            cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = flags
