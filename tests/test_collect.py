"""One row per image on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronscope.collect import Collect
from neuronscope.errors import StorageError

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
    reducer = Collect("maps", path, images=IMAGES, cells=(2, 3), batch_size=SIZE).prepare()
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
    reducer = Collect("maps", tmp_path / "maps", images=IMAGES, cells=(2, 3), batch_size=SIZE).prepare()
    found = reducer.finish(reducer.add(reducer.start(), seen([4, 5, 6, 7])))
    assert found.open().chunks == (SIZE, 2, 3)
    files = [file for file in (tmp_path / "maps").rglob("*") if file.is_file() and file.name != "zarr.json"]
    assert len(files) == 1


def test_the_state_holds_no_rows(tmp_path):
    """However large the maps, the state is a list of row numbers."""
    reducer = Collect("maps", tmp_path / "maps", images=IMAGES, cells=(2, 3), batch_size=SIZE).prepare()
    state = reducer.add(reducer.start(), seen([0, 1]))
    assert [part.tolist() for part in state["index"]] == [[0, 1]]
    assert reducer.size({"maps": (2, 3)}) == 8 * IMAGES


def test_preparing_again_starts_afresh(tmp_path):
    """Rows of an older table do not shine through."""
    reducer = Collect("maps", tmp_path / "maps", images=IMAGES, cells=(2, 3), batch_size=SIZE).prepare()
    reducer.add(reducer.start(), seen([0, 1]))
    found = reducer.prepare().finish(reducer.add(reducer.start(), seen([2])))
    np.testing.assert_array_equal(found.open()[:], expected([2]))


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path):
    """A file where the folder should be; a table that was taken away meanwhile."""
    (tmp_path / "file").write_text("mine")
    blocked = Collect("maps", tmp_path / "file" / "maps", images=IMAGES, cells=(2, 3), batch_size=SIZE)
    with pytest.raises(StorageError, match="cannot create"):
        blocked.prepare()
    assert (tmp_path / "file").read_text() == "mine"
    gone = Collect("maps", tmp_path / "never", images=IMAGES, cells=(2, 3), batch_size=SIZE)
    with pytest.raises(StorageError, match="cannot write"):
        gone.add(gone.start(), seen([0]))
