"""Does a sweep stay flat in memory and linear in time as images are added, and do two processes work like two?"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import torch

import _measure as measure
import neuronscope as ns
from neuronscope.data.dataset import Data, data_from_arrays
from neuronscope.maths.streams import Each, Moments, TopK
from neuronscope.result import peak_memory
from neuronscope.steps import Observe

SIDE = 64  # pixels, of the images for memory and time
GROWTH = 4


def growth(*, quick: bool) -> Iterator[measure.Figure]:
    """Peak memory and seconds of a sweep over n and over 4n images, each in a process of its own."""
    n = 256 if quick else 1024  # a sweep has a fixed cost of about 0.1 s, which fewer images would not outweigh
    peaks: list[float] = []
    times: list[float] = []
    seen: list[tuple[int, float]] = []
    with measure.Watch() as watch:
        for _ in range(1 if quick else 5):
            seen = [_swept_elsewhere(images) for images in (n, GROWTH * n)]
            peaks.append(seen[1][0] / seen[0][0])
            times.append(seen[1][1] / seen[0][1] / GROWTH)
    memory, pace = statistics.median(peaks), statistics.median(times)
    yield measure.Figure(
        f"peak memory of a sweep over {GROWTH * n} images over that of {n}",
        memory,
        "<= 1.05",
        memory <= 1.05,
        f"{seen[0][0] / 2**20:.0f} and {seen[1][0] / 2**20:.0f} MiB",
    )
    busy = watch.busy > measure.BUSY
    spread = (
        f"{min(times):.3g} to {max(times):.3g} of {len(times)} pairs; last {seen[0][1]:.3g} s and {seen[1][1]:.3g} s"
    )
    yield measure.Figure(
        f"seconds per image of a sweep over {GROWTH * n} images over those of {n}",
        None if busy else pace,
        "0.9 to 1.1",
        None if busy else 0.9 <= pace <= 1.1,
        f"other programs used {watch.busy:.0%} of the processors; ratio seen {pace:.4g}" if busy else spread,
    )


def _swept_elsewhere(images: int) -> tuple[int, float]:
    command = [sys.executable, __file__, "--sweep-of", str(images)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()  # noqa: S603
    return int(said[-2]), float(said[-1])


def _sweep_once(images: int) -> tuple[int, float]:
    """Peak resident bytes, and seconds after a warm-up, of one sweep over so many images that are made when read."""

    def read(row: int) -> torch.Tensor:
        return torch.randint(0, 256, (3, SIDE, SIDE), generator=torch.Generator().manual_seed(row), dtype=torch.uint8)

    def made(count: int) -> Data:
        return Data("made", read, np.zeros(count, np.int64), ("0",), "made")

    subject = ns.load_model(
        "torchvision:resnet18", weights="random", input_shape=(3, SIDE, SIDE), resize=SIDE, crop=SIDE
    )
    step, fold = _observation(subject)
    run = ns.Run(batch_size=16)
    ns.sweep(subject, made(2 * run.batch_size), step, fold, run=run)
    start = time.perf_counter()
    ns.sweep(subject, made(images), step, fold, run=run)
    seconds = time.perf_counter() - start
    return peak_memory(), seconds


def _observation(subject: ns.Subject) -> tuple[Observe, Each]:
    """Moments and the nine strongest images of every unit of every convolution."""
    fold = Each(mean=Moments("mean"), top=TopK("max", 9, where="max_at"))
    return Observe(subject.select("conv"), measures=("mean", "max")), fold


def processes(*, quick: bool) -> Iterator[measure.Figure]:
    """Images per second of two worker processes over those of this one, one thread each, images in memory."""
    figure = "images per second of ResNet-18, 224x224, two worker processes over one process, one thread each"
    goal = ">= 1.6"
    if (os.cpu_count() or 1) < 2:
        yield measure.Figure(figure, None, goal, None, "this machine has one core")
        return
    images = 64 if quick else 256
    pixels = torch.randint(0, 256, (images, 3, 224, 224), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = data_from_arrays(pixels, np.zeros(images, np.int64), name="made", classes=("0",))
    subject = ns.load_model("torchvision:resnet18", weights="random")
    step, fold = _observation(subject)

    def swept(executor: ns.Executor) -> dict[str, Any]:
        run = ns.Run(batch_size=8, threads=1, device="cpu", executor=executor)
        answer: dict[str, Any] = ns.sweep(subject, data, step, fold, run=run).answer
        return answer

    def one() -> dict[str, Any]:
        return swept(ns.Serial())

    def two() -> dict[str, Any]:
        return swept(ns.Processes(2))

    _check_equal(one(), two())
    yield measure.judged(
        figure, measure.pairs(two, one, repeats=2 if quick else 7), goal=goal, met=lambda ratio: ratio >= 1.6
    )


def _check_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Every bit of two answers."""
    for name, answer in one.items():
        for field in fields(answer):
            left, right = getattr(answer, field.name), getattr(other[name], field.name)
            assert np.array_equal(left, right, equal_nan=True), f"{name}.{field.name} differs between executors"


def figures(quick: bool) -> Iterator[measure.Figure]:  # noqa: FBT001 called by the harness
    """All of them."""
    yield from growth(quick=quick)
    yield from processes(quick=quick)


if __name__ == "__main__":
    if "--sweep-of" in sys.argv:
        print(*_sweep_once(int(sys.argv[-1])))
    else:
        measure.main(__doc__ or "", figures)
