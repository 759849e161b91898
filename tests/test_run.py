"""Circumstances: streams of random numbers, threads, device."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import InputError
from neuronscope.run import Run

NAMES = st.lists(st.text(max_size=5), max_size=3).map(tuple)


def numbers(run, names):
    """The first numbers of a stream."""
    return run.generator(*names).integers(2**62, size=4).tolist()


@given(st.integers(0, 5), NAMES, st.integers(0, 5), NAMES)
def test_streams_are_told_apart_by_seed_and_names(seed, names, other_seed, other_names):
    """Equal seed and names give equal numbers; anything else gives others, however the names are cut."""
    same = (seed, names) == (other_seed, other_names)
    assert (numbers(Run(seed=seed), names) == numbers(Run(seed=other_seed), other_names)) is same


def test_names_with_slashes_do_not_run_together():
    """("a/b",) is not ("a", "b")."""
    assert numbers(Run(), ("a/b",)) != numbers(Run(), ("a", "b"))


def test_zero_is_a_seed_and_streams_do_not_drift():
    """Seed 0 gives these numbers, on any machine and in any version: they are part of every saved result."""
    assert numbers(Run(seed=0), ("null",)) == numbers(Run(), ("null",))
    assert numbers(Run(seed=0), ("null",)) != numbers(Run(seed=1), ("null",))


def test_drawing_from_one_stream_leaves_the_others():
    """A stream does not depend on how much was drawn elsewhere."""
    run = Run(seed=3)
    expected = numbers(run, ("b",))
    run.generator("a").random(1000)
    assert numbers(run, ("b",)) == expected


class Interrupted(Exception):
    """Raised inside a scope."""


@pytest.mark.parametrize("fails", [False, True])
def test_a_scope_restores_what_it_changed(fails):
    """Threads and kernel flags are back afterwards, after an exception too."""
    cudnn = torch.backends.cudnn
    before = (torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark)
    try:
        with Run(threads=before[0] + 1).scope():
            assert torch.get_num_threads() == before[0] + 1
            assert cudnn.deterministic
            if fails:
                raise Interrupted  # noqa: TRY301 raised here on purpose
    except Interrupted:
        pass
    assert (torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark) == before


def test_threads_are_left_alone_unless_asked_for():
    """None means PyTorch's own number."""
    before = torch.get_num_threads()
    with Run(threads=None).scope():
        assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"device": "abacus"}, "device 'abacus' is not known"),
    ],
)
def test_impossible_circumstances_are_refused(options, message):
    """At once, and not in the middle of a sweep."""
    with pytest.raises(InputError, match=message):
        Run(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_an_absent_accelerator_is_refused():
    """Asking for CUDA where there is none says so."""
    with pytest.raises(InputError, match="PyTorch sees no CUDA device"):
        Run(device="cuda")


def test_placing_changes_the_format_of_floating_point_numbers_alone():
    """Images take the run's number format; row numbers and labels stay whole numbers."""
    run = Run(device="cpu", dtype="float64")
    assert run.place(torch.zeros(2)).dtype == torch.float64
    assert run.place(torch.zeros(2, dtype=torch.int64)).dtype == torch.int64
