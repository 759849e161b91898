"""One row per image on disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuronscope.checkpoint import digest
from neuronscope.collect import Collect
from neuronscope.data.dataset import data_from_arrays
from neuronscope.errors import DataError, StorageError
from neuronscope.models.sources import subject_from
from neuronscope.preprocessing import Preprocess
from neuronscope.run import Run
from neuronscope.steps import Observe
from neuronscope.sweep import sweep

IMAGES, SIZE = 13, 4


def seen(rows):
    """A batch whose rows can be told apart."""
    index = torch.tensor(rows)
    return {"index": index, "label": index * 0, "maps": index[:, None, None] + torch.arange(6.0).view(1, 2, 3) / 10}


def expected(rows):
    """The table by definition."""
    table = np.full((IMAGES, 2, 3), np.nan, dtype=np.float32)
    for row in rows:
        table[row] = seen([row])["maps"][0].numpy()
    return table


@settings(max_examples=15)
@given(st.frozensets(st.integers(0, IMAGES - 1), min_size=1), st.randoms(), st.booleans())
def test_every_row_is_written_where_it_belongs(tmp_path_factory, rows, random, again):
    """Batches in any order, with images left out, and worked twice after a kill: the same table, the same bytes."""
    path = tmp_path_factory.mktemp("collect") / "maps.zarr"
    reducer = Collect("maps", path, images=IMAGES, cells=(2, 3), batch_size=SIZE, key="k").prepare()
    groups = [sorted(row for row in rows if row // SIZE == number) for number in range(-(-IMAGES // SIZE))]
    groups = random.sample([group for group in groups if group], len([group for group in groups if group]))
    if again:  # a kill in the middle: what came before it is worked once more
        reducer.add(reducer.start(), seen(groups[0]))
    state = reducer.start()
    for group in groups:
        state = reducer.merge(state, reducer.add(reducer.start(), seen(group)))
    found = reducer.finish(state)
    assert found.index.tolist() == sorted(rows)
    np.testing.assert_array_equal(found.open()[:], expected(rows))


def test_batches_are_chunks(tmp_path):
    """Two batches never share a file, so two workers never write to one."""
    reducer = Collect("maps", tmp_path / "maps", images=IMAGES, cells=(2, 3), batch_size=SIZE, key="k").prepare()
    found = reducer.finish(reducer.add(reducer.start(), seen([4, 5, 6, 7])))
    assert found.open().chunks == (SIZE, 2, 3)
    files = [file for file in (tmp_path / "maps").rglob("*") if file.is_file() and file.name != "zarr.json"]
    assert len(files) == 1


def test_the_state_holds_no_rows(tmp_path):
    """However large the maps, the state is a list of row numbers."""
    reducer = Collect("maps", tmp_path / "maps", images=IMAGES, cells=(2, 3), batch_size=SIZE, key="k").prepare()
    state = reducer.add(reducer.start(), seen([0, 1]))
    assert [part.tolist() for part in state["index"]] == [[0, 1]]
    assert reducer.size({"maps": (2, 3)}) == 8 * IMAGES


def table(path, **changes):
    """A reducer for the table of this file."""
    wanted = {"of": "maps", "images": IMAGES, "cells": (2, 3), "batch_size": SIZE, "key": "k", **changes}
    return Collect(path=path, **wanted)


def test_preparing_again_keeps_what_was_written(tmp_path):
    """The same table, asked for by a run that goes on, has its finished rows; it is the same reducer to the bit."""
    reducer = table(tmp_path / "maps").prepare()
    reducer.add(reducer.start(), seen([0, 1]))
    again = table(tmp_path / "maps").prepare()
    assert again == reducer == reducer.prepare()
    found = again.finish(again.add({"index": [torch.tensor([0, 1])]}, seen([2])))
    np.testing.assert_array_equal(found.open()[:], expected([0, 1, 2]))


@pytest.mark.parametrize(
    "change", [{"key": "other"}, {"images": 20}, {"batch_size": 2}, {"cells": (3, 2)}, {"of": "values"}]
)
def test_a_table_for_other_rows_starts_afresh(tmp_path, change):
    """Rows of another computation or shape do not shine through, and a checkpoint that counts on them is not read."""
    reducer = table(tmp_path / "maps").prepare()
    reducer.add(reducer.start(), seen([0, 1]))
    other = table(tmp_path / "maps", **change).prepare()
    assert other.token != reducer.token
    assert np.isnan(other.finish({"index": [torch.tensor([0, 1])]}).open()[:]).all()


def test_a_table_that_was_removed_is_another_table(tmp_path):
    """Its rows are gone: a sweep with the new one has another identity and works them again."""
    reducer = table(tmp_path / "maps").prepare()
    shutil.rmtree(tmp_path / "maps")
    assert digest(table(tmp_path / "maps").prepare()) != digest(reducer)


def test_what_is_no_table_is_left_alone(tmp_path):
    """A folder with somebody's files, or an array of another program, is not replaced."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "file").write_text("mine")
    zarr.create_array(tmp_path / "array", shape=(3,), dtype="float32")[:] = 1.0
    for path in (own, tmp_path / "array"):
        with pytest.raises(StorageError, match="no table of neuronscope, and it is not replaced"):
            table(path).prepare()
    assert (own / "file").read_text() == "mine"
    assert zarr.open_array(tmp_path / "array", mode="r")[:].tolist() == [1.0, 1.0, 1.0]


def test_a_sweep_that_was_broken_off_goes_on_in_its_table(tmp_path):
    """The finished rows are in the table and not worked again; the whole table is that of an undisturbed sweep."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    subject = subject_from(module, name="small", input_shape=(1, 4, 4), preprocess=Preprocess(channels=1))
    pixels = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8)
    data = data_from_arrays(pixels, np.arange(40) % 3, name="noise", classes="abc")
    step = Observe(subject.layers[:1], measures=("mean",))
    size = {"images": 40, "cells": (2,), "batch_size": SIZE}
    run = Run(device="cpu", threads=1, workers=1, batch_size=SIZE)
    whole = sweep(subject, data, step, table(tmp_path / "whole", of="mean", **size).prepare(), run=run).answer

    run = replace(run, checkpoint=tmp_path / "state")
    broken = replace(data, pixels=None, read=Until(pixels, 20))
    parts = table(tmp_path / "parts", of="mean", **size)
    with pytest.raises(DataError, match="row 20"):
        sweep(subject, broken, step, parts.prepare(), run=run)
    broken.read.end = 40
    broken.read.read.clear()
    found = sweep(subject, broken, step, parts.prepare(), run=run).answer
    assert min(broken.read.read) == 4 * SIZE
    np.testing.assert_array_equal(found.index, np.arange(40))
    np.testing.assert_array_equal(found.open()[:], whole.open()[:])


@dataclass
class Until:
    """A reader that fails at a row; it notes which ones it was asked for."""

    pixels: torch.Tensor
    end: int
    read: list = field(default_factory=list)

    def __call__(self, row):
        """Raw pixels."""
        self.read.append(row)
        if row >= self.end:
            message = f"row {row} is torn"
            raise DataError(message)
        return self.pixels[row]


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path):
    """A file where the folder should be; a table that was taken away meanwhile."""
    (tmp_path / "file").write_text("mine")
    blocked = Collect("maps", tmp_path / "file" / "maps", images=IMAGES, cells=(2, 3), batch_size=SIZE, key="k")
    with pytest.raises(StorageError, match="cannot create"):
        blocked.prepare()
    assert (tmp_path / "file").read_text() == "mine"
    gone = Collect("maps", tmp_path / "never", images=IMAGES, cells=(2, 3), batch_size=SIZE, key="k")
    with pytest.raises(StorageError, match="cannot write"):
        gone.add(gone.start(), seen([0]))
