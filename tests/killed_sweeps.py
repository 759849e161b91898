"""Sweeps that are killed and run again, in processes of their own: a JSON list of what came of each.

Run with a folder to work in. The program works one sweep itself and then forks a child for each attempt, so that
nothing is imported or set up twice.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from neuronscope import checkpoint
from neuronscope.checkpoint import decode, digest
from neuronscope.data.dataset import Data, data_from_arrays
from neuronscope.maths.streams import Each, Moments, StackRows, TopK
from neuronscope.models.sources import subject_from
from neuronscope.models.subject import Subject
from neuronscope.preprocessing import Preprocess
from neuronscope.run import Run
from neuronscope.steps import Observe
from neuronscope.sweep import sweep

IMAGES, BATCH, SHARD = 128, 4, 16
RANDOM, WRITES = 10, 4


@dataclass(frozen=True)
class Slow:
    """A step that takes its time and writes down where it was."""

    inner: Observe
    log: Path

    def __call__(self, model, batch):
        """Measure one batch."""
        with self.log.open("a") as stream:
            stream.write(f"{int(batch.index[0])}\n")
        time.sleep(0.001)
        return self.inner(model, batch)

    def shapes(self, outputs):
        """Those of the inner step."""
        return self.inner.shapes(outputs)

    @property
    def passes(self):
        """Those of the inner step."""
        return self.inner.passes


def make() -> tuple[Subject, Data]:
    """A small network and random pictures."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (IMAGES, 1, 8, 8), dtype=np.uint8))
    data = data_from_arrays(pixels, rng.integers(-1, 3, IMAGES), name="noise", classes="abc")
    return subject_from(module, name="small", input_shape=(1, 8, 8), preprocess=Preprocess(channels=1)), data


def work(subject: Subject, data: Data, folder: Path) -> str:
    """The sweep, begun or gone on with; a hash of its answer."""
    step = Slow(Observe(subject.layers, measures=("mean", "max")), folder / "log")
    reducer = Each(mean=Moments("mean"), top=TopK("max", 5, where="max_at"), rows=StackRows("mean"))
    run = Run(device="cpu", threads=1, workers=1, batch_size=BATCH, checkpoint=folder / "state")
    swept = sweep(subject, data, step, reducer, run=run)
    return digest(swept.answer, swept.images, swept.skipped)


def attempt(subject: Subject, data: Data, folder: Path, *, kill_at_write: int | None = None) -> int:
    """Begin or go on with the sweep in a child; its process id."""
    child = os.fork()
    if child:
        return child
    # SIGKILL loses nothing that was handed to the system: a pause in the write serves better than a slow disk.
    checkpoint.os.fsync = lambda _descriptor: time.sleep(0.005)
    if kill_at_write is not None:
        writes = iter(range(kill_at_write, -1, -1))

        def killed(descriptor: int) -> None:
            if next(writes) == 0:
                os.truncate(descriptor, os.fstat(descriptor).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        checkpoint.os.fsync = killed
    (folder / "print").write_text(work(subject, data, folder))
    os._exit(0)


def rows(folder: Path) -> list[int]:
    """First rows of the batches that were worked, in order."""
    path = folder / "log"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def kept(folder: Path) -> int:
    """Number of shards in the checkpoint."""
    files = list((folder / "state").glob("*.state"))
    return int(decode(files[0].read_bytes())["first"]) if files else 0


def main(folder: Path) -> None:
    """All trials."""
    checkpoint._LEAST_PAUSE = checkpoint._SHARE = 0.0
    torch.set_num_threads(1)
    subject, data = make()
    (folder / "warm").mkdir()
    undisturbed = work(subject, data, folder / "warm")
    (folder / "whole").mkdir()
    start = time.monotonic()
    os.waitpid(attempt(subject, data, folder / "whole"), 0)
    took = time.monotonic() - start
    chance = random.Random(0)  # noqa: S311 not for secrets
    trials = []
    for number in range(RANDOM + WRITES):
        own = folder / str(number)
        own.mkdir()
        if number < RANDOM:
            child = attempt(subject, data, own)
            time.sleep(took * chance.uniform(0.05, 0.9))
            os.kill(child, signal.SIGKILL)
        else:
            child = attempt(subject, data, own, kill_at_write=2 * (number - RANDOM))
        os.waitpid(child, 0)
        torn = len(list((own / "state").glob(".*")))
        first, before = kept(own), len(rows(own))
        _, status = os.waitpid(attempt(subject, data, own), 0)
        trials.append(
            {
                "kept": first,
                "torn": torn,
                "status": status,
                "undisturbed": undisturbed,
                "print": (own / "print").read_text() if (own / "print").exists() else "",
                "worked": rows(own)[before:],
                "rest": list(range(first * SHARD, IMAGES, BATCH)),
            }
        )
    sys.stdout.write(json.dumps(trials))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
