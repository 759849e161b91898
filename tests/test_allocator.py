"""Freed memory: kept while a sweep runs, given back afterwards; seen from outside, by page faults and resident size."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

if platform.libc_ver()[0] != "glibc":
    pytest.skip("another C library has its own ways", allow_module_level=True)

PROLOGUE = """
import ctypes, os, resource, threading
from pathlib import Path
from neuronscope.allocator import give_back_freed_memory, keep_freed_memory

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: a fault is one page of 4 KiB

def faults(who=resource.RUSAGE_SELF):
    return resource.getrusage(who).ru_minflt

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024

def batch():
    return [bytearray(b"x") * (size * 2**20) for size in (80, 16)]

def batches():
    for _ in range(8):
        batch()
    before = faults()
    for _ in range(4):
        batch()
    return faults() - before
"""
PAGES = 96 * 256
"""Of what a batch takes."""

SWEEPS = """
import numpy as np
import torch
from torch import nn
import neuronscope as ns
from neuronscope.data.dataset import data_from_arrays
from neuronscope.executors import Processes, Serial
from neuronscope.maths.streams import Moments
from neuronscope.models.sources import subject_from
from neuronscope.preprocessing import Preprocess
from neuronscope.steps import Observe

module = nn.Sequential(nn.Conv2d(1, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
subject = subject_from(module, name="wide", input_shape=(1, 256, 256), preprocess=Preprocess(channels=1))
pixels = torch.zeros(320, 1, 256, 256, dtype=torch.uint8)
data = data_from_arrays(pixels, np.zeros(320, int), name="black", classes="ab")
step, fold = Observe(subject.select("conv"), measures=("mean",)), Moments("mean")
for executor, who in (Serial(), resource.RUSAGE_SELF), (Processes(1), resource.RUSAGE_CHILDREN):
    before, size = faults(who), resident()
    ns.sweep(subject, data, step, fold, run=ns.Run(batch_size=32, threads=1, workers=1, executor=executor))
    print(faults(who) - before, resident() - size)
"""
MAP = 64
"""Mebibytes of the map of a batch."""


def printed(code, **environment):
    """What a program of its own prints, as numbers, with no settings of the allocator but these."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROLOGUE + code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=plain | environment)
    return [int(number) for number in done.stdout.split()]


def test_what_is_freed_is_there_for_the_next_batch():
    """A batch like the last one finds its memory in place; without asking, each fetches it from the system."""
    left_alone, kept = printed("print(batches()); keep_freed_memory(); print(batches())")
    assert left_alone > 2 * PAGES
    assert kept < PAGES / 10


def test_a_forked_process_keeps_it_too_in_whatever_thread():
    """Workers of an executor inherit it, and run networks in a thread of their own."""
    code = """
keep_freed_memory()
if not os.fork():
    thread = threading.Thread(target=lambda: print(batches(), flush=True))
    thread.start()
    thread.join()
else:
    os.wait()
"""
    (kept,) = printed(code)
    assert kept < PAGES / 10


def test_what_is_kept_is_given_back():
    """The process is as small as before once it is asked to be, and goes on keeping after that."""
    code = "keep_freed_memory(); batch(); size = resident(); give_back_freed_memory(); print(size - resident())"
    given, kept = printed(code + "; print(batches())")
    assert given > 80
    assert kept < PAGES / 10


@pytest.mark.parametrize(
    "environment", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=65536"}]
)
def test_the_environment_has_the_last_word(environment):
    """Who has set the allocator's own variables gets what they say."""
    (faults,) = printed("keep_freed_memory(); print(batches())", **environment)
    assert faults > 2 * PAGES


def test_a_sweep_keeps_what_it_frees_and_returns_it():
    """Here and in workers, batches fetch no maps after the first; nothing stays beside what stays in any case."""
    alone, usual, alone_elsewhere, _ = printed(SWEEPS, MALLOC_TRIM_THRESHOLD_="131072")
    kept, grown, kept_elsewhere, _ = printed(SWEEPS)
    assert alone - kept > 5 * MAP * 256
    assert alone_elsewhere - kept_elsewhere > 5 * MAP * 256
    assert grown - usual < MAP / 2
