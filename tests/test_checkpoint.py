"""Checkpoints: whole or not at all, and never for another computation."""

from __future__ import annotations

import errno
import gc
import os
import pickletools
import tracemalloc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope import checkpoint as module
from neuronscope.checkpoint import (
    Checkpoint,
    Done,
    ShardState,
    decode,
    digest,
    encode,
    encoded,
    gather,
    locked,
    write_whole,
)
from neuronscope.errors import InputError, StorageError

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)


@st.composite
def tensors(draw):
    """Tensors of every number format in use, empty and without axes too, with NaN among the values."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    values = torch.randint(0, 2, shape).to(dtype)
    if dtype.is_floating_point and values.numel():
        values.view(-1)[0] = draw(st.sampled_from([float("nan"), float("inf"), -0.0, 1e-310]))
    return values.transpose(0, -1) if draw(st.booleans()) and values.ndim > 1 else values


leaves = tensors() | st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text() | st.floats()
nests = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


def bits(tensor):
    """The memory of a tensor."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(one, other):
    """Equal in type, shape, number format and bits."""
    if isinstance(one, torch.Tensor):
        alike = isinstance(other, torch.Tensor) and (one.dtype, one.shape) == (other.dtype, other.shape)
        return alike and bits(one) == bits(other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def some(value=1.0):
    """A small state."""
    return ShardState({"sum": torch.full((3,), value, dtype=torch.float64), "rows": [torch.tensor(4)]}, 5, ((2, "ü"),))


def done(first=2, *, shards=4, beyond=()):
    """A state of a sweep."""
    return Done(first, some() if first else None, {position: some(position) for position in beyond}, shards)


@given(nests)
def test_what_is_written_is_read(value):
    """Nested states come back bit for bit, with their names and number formats."""
    assert same(decode(encode(value)), value)


@given(st.data())
def test_torn_bytes_are_recognised(data):
    """Cut off anywhere, or with any byte changed, nothing is read."""
    whole = encode({"a": torch.arange(5.0), "b": [None, 1]})
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= data.draw(st.integers(1, 255))
    for torn in (whole[:place], bytes(changed), whole + b"x"):
        with pytest.raises(ValueError, match="checksum"):
            decode(torn)


def test_nothing_is_pickled():
    """No part of the bytes can run code when read."""
    bytes_ = encode(some().plain())
    with pytest.raises(ValueError):  # noqa: PT011 whatever the tool finds first
        list(pickletools.genops(bytes_))
    with pytest.raises(TypeError):
        encode({"object": object()})


def test_tensors_that_share_memory_come_back_apart():
    """Views, the same tensor twice and empty tensors are written as what they hold."""
    whole = torch.arange(6.0)
    value = {"a": whole, "b": whole, "c": whole[2:4], "d": whole.view(2, 3).t(), "e": torch.empty(0)}
    assert same(decode(encode(value)), value)


def test_a_state_is_written_without_a_copy_of_it(tmp_path):
    """What is put in front of the numbers, and their way to the file, take no memory of their size."""
    state = {"sum": torch.ones(2**22), "rows": [torch.ones(2**10, 2**10)], "alike": torch.ones(8)[2:4]}
    tracemalloc.start()
    try:
        write_whole(tmp_path / "state", *encoded(state))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2**20
    assert same(decode((tmp_path / "state").read_bytes()), state)


def test_what_was_written_is_let_go():
    """Writing a state leaves nothing behind that holds it: no circle of references that waits to be looked for."""
    tensor = torch.arange(5.0)
    gc.disable()
    try:
        held = weakref.ref(tensor)
        decode(encode({"state": tensor}))
        del tensor
        assert held() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("content", [b"", b"NSCOPE01", encode([1, 2]), encode({"key": "k"}), os.urandom(2000)])
def test_a_torn_file_is_dropped(tmp_path, content):
    """The work starts over, and the file is gone."""
    mine = Checkpoint(tmp_path, name="observe", key="k")
    mine.path.write_bytes(content)
    assert mine.read() == Done()
    assert not mine.path.exists()


def test_another_computation_is_not_read(tmp_path):
    """Even under the same file name the whole key decides."""
    one, other = (Checkpoint(tmp_path, name="observe", key="k" * 24 + end) for end in "ab")
    one.write(done(), now=True)
    assert other.path == one.path
    assert other.read() == Done()


def test_leftovers_of_a_killed_write_go(tmp_path):
    """A half-written file beside the checkpoint is removed, the checkpoint is read."""
    mine = Checkpoint(tmp_path, name="observe", key="k")
    mine.write(done(beyond=[3]), now=True)
    partial = tmp_path / f".{mine.path.name}.12345"
    partial.write_bytes(b"half")
    found = mine.read()
    assert (found.first, list(found.beyond), found.shards) == (2, [3], 4)
    assert found.prefix.skipped == ((2, "ü"),)
    assert not partial.exists()


def test_writes_are_far_apart(tmp_path):
    """Not before its time, and then not again at once."""
    mine = Checkpoint(tmp_path, name="observe", key="k")
    mine.write(done())
    assert not mine.path.exists()
    mine._due = 0
    mine.write(done())
    mine.path.unlink()
    mine.write(done())
    assert not mine.path.exists()


def test_a_failed_write_leaves_what_was(tmp_path, monkeypatch):
    """Without room there is one message; the file before is whole and no partial one is left."""
    path = tmp_path / "file"
    write_whole(path, b"before")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left on device\. What was finished before is kept"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_one_run_to_a_folder(tmp_path):
    """The second is told who is there; afterwards the folder is free."""
    refusal = pytest.raises(InputError, match=f"in use: process {os.getpid()} is writing there")
    with locked(tmp_path), refusal, locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_digests_do_not_depend_on_addresses_or_shortened_arrays():
    """Equal values have one digest; values that differ in one number among many, or in a constant, have two."""

    class Plain:
        def __init__(self, **inner):
            self.inner = inner

    long = np.arange(5000.0)
    other = long.copy()
    other[2500] += 1
    assert digest(Plain(a=long)) == digest(Plain(a=long.copy()))
    assert digest(Plain(a=long)) != digest(Plain(a=other))
    assert digest(torch.from_numpy(long)) != digest(torch.from_numpy(other))
    assert digest(lambda x: x * 2) != digest(lambda x: x * 3)
    assert digest(torch.tensor(1.0)) != digest(torch.tensor(2.0))
    assert digest("a", "b") != digest("ab")


def parts(tmp_path, *states, key="k"):
    """Folders with a checkpoint each."""
    folders = [tmp_path / f"part-{number}" for number in range(len(states))]
    for folder, state in zip(folders, states, strict=True):
        Checkpoint(folder, name="a-b", key=key).write(state, now=True)
    return folders


def test_parts_are_joined(tmp_path):
    """What any part has finished is in the joined checkpoint."""
    folders = parts(tmp_path, done(2), done(0, beyond=[2]), done(0, beyond=[3]))
    assert gather(folders, tmp_path / "out") == 1
    found = Checkpoint(tmp_path / "out", name="a-b", key="k").read()
    assert (found.first, sorted(found.beyond)) == (2, [2, 3])


def test_missing_and_torn_parts_are_refused(tmp_path):
    """One message says what is wrong with which folder."""
    folders = parts(tmp_path, done(2), done(0, beyond=[3]))
    with pytest.raises(InputError, match=r"1 of the 4 shards .* the first is 3. Give the folders of all parts"):
        gather(folders, tmp_path / "out")
    with pytest.raises(InputError, match="holds no checkpoints"):
        gather([*folders, tmp_path / "none"], tmp_path / "out")
    with pytest.raises(InputError, match="another computation"):
        gather([folders[0], *parts(tmp_path / "other", done(2), key="z")], tmp_path / "out")
    path = next(folders[1].iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="torn or cannot be read"):
        gather(folders, tmp_path / "out")
