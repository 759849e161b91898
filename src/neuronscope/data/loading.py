"""Batches, decoded in threads beside the network.

Decoding (PIL) and resizing (torch) let go of Python's global lock, so threads suffice and nothing has to be sent
between processes. What comes out, and in which order, does not depend on the number of threads: a batch is the unit of
work, and batches leave in the order in which they were asked for.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from neuronscope.data.dataset import Batch, Data
from neuronscope.errors import DataError, InputError

AHEAD = 2
"""How many batches may be finished or under way beyond one for each worker: bounds the memory."""

Prepare = Callable[[Sequence[UInt8[Tensor, "c h w"]] | UInt8[Tensor, "n c h w"]], Float[Tensor, "n c h w"]]
"""Raw images (a list, or one array where all have one size) to network input, as `Preprocess.batch` does."""

Skipped = tuple[int, str]
"""Row number and reason of an image that was left out."""

Made = tuple[Batch | None, list[Skipped]]
"""A batch, none when no image of it is left, and what was left out of it."""


def batches(
    data: Data,
    prepare: Prepare,
    *,
    rows: Sequence[int] | None = None,
    batch_size: int = 64,
    workers: int = 2,
    on_skip: Callable[[int, str], None] | None = None,
) -> Generator[Batch, None, None]:
    """The images of a data set in batches, prepared for a network.

    Batches are fixed by the row numbers of the whole data set: batch b holds those of the wanted rows that lie in
    [b * batch_size, (b + 1) * batch_size). So a range that starts and ends at multiples of `batch_size` gives the very
    batches that the whole data set would give. An image that is left out makes its batch smaller; a batch without
    images is not given. For another order of images use `Data.take` first: rows that jump give small batches.

    Threads end when the iterator is exhausted or closed, or when an error leaves it.

    Args:
        data: the images. Its `on_error` decides about images that cannot be read.
        prepare: raw images to network input, for example `subject.preprocess.batch`; called from worker threads.
        rows: which rows, ascending; all when left out.
        batch_size: number of images in a batch.
        workers: number of decoding threads; 0 decodes in the calling thread, when a batch is asked for.
        on_skip: told the row and the reason of every image that was left out: in row order, from the calling thread,
            before its batch is given.

    Raises:
        InputError: `batch_size` is below 1, `workers` below 0, or a row is not in the data set.
        DataError: an image cannot be read and `data.on_error` is `raise`; batches before it have been given.

    Example:
        >>> import numpy as np
        >>> from neuronscope.data.dataset import data_from_arrays
        >>> from neuronscope.preprocessing import Preprocess
        >>> black = torch.zeros(5, 1, 4, 4, dtype=torch.uint8)
        >>> data = data_from_arrays(black, np.arange(5), name="five", classes="abcde")
        >>> [batch.index.tolist() for batch in batches(data, Preprocess(channels=1).batch, batch_size=2)]
        [[0, 1], [2, 3], [4]]
    """
    if batch_size < 1 or workers < 0:
        message = f"batch_size must be at least 1 and workers at least 0: got {batch_size} and {workers}"
        raise InputError(message)
    wanted = range(len(data)) if rows is None else rows
    if len(wanted) and not 0 <= min(wanted) <= max(wanted) < len(data):
        message = (
            f"rows {min(wanted)} to {max(wanted)} are not all in {data.name}, which has {len(data)} images "
            f"(rows 0 to {len(data) - 1})"
        )
        raise InputError(message)
    # A generator of its own, so that wrong arguments are refused at the call and not at the first batch.
    groups = ([int(row) for row in group] for _, group in itertools.groupby(wanted, key=lambda row: row // batch_size))
    return _in_order(_worked(data, prepare, groups, workers=workers), on_skip)


def _in_order(
    made: Generator[Made, None, None], on_skip: Callable[[int, str], None] | None
) -> Generator[Batch, None, None]:
    """Hand out batches, telling first what was left out of each."""
    with contextlib.closing(made):  # the pool ends with its consumer, not whenever the garbage is collected
        for batch, skipped in made:
            if on_skip is not None:
                for row, reason in skipped:
                    on_skip(row, reason)
            if batch is not None:
                yield batch


def _worked(data: Data, prepare: Prepare, groups: Iterator[list[int]], *, workers: int) -> Generator[Made, None, None]:
    """The batch of each group, made in this thread or in a pool."""
    if workers == 0 or data.pixels is not None:  # pixels in memory need no decoding: a thread would cost more
        for group in groups:
            yield _batch(data, prepare, group)
        return
    # A decoding thread works alone: were it to call up a team of its own for every resize, the teams would fight with
    # the network's for the cores. The setting holds for the calling thread, and as the default of threads born later.
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(
        workers, thread_name_prefix="neuronscope-decode", initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        pending: deque[Future[Made]] = deque(
            pool.submit(_batch, data, prepare, group) for group in itertools.islice(groups, workers + AHEAD)
        )
        while pending:
            made = pending.popleft().result()
            for group in itertools.islice(groups, 1):
                pending.append(pool.submit(_batch, data, prepare, group))
            yield made
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)


def _batch(data: Data, prepare: Prepare, rows: list[int]) -> Made:
    """One batch and what was left out of it; no batch when nothing is left."""
    skipped: list[Skipped] = []
    raws: Sequence[UInt8[Tensor, "c h w"]] | UInt8[Tensor, "n c h w"]
    if data.pixels is not None:
        consecutive = rows == list(range(rows[0], rows[-1] + 1))  # then a view will do
        raws = data.pixels[rows[0] : rows[-1] + 1] if consecutive else data.pixels[rows]
    else:
        raws, read = [], []
        for row in rows:
            try:
                raws.append(data.read(row))
                read.append(row)
            except DataError as cause:
                if data.on_error == "raise":
                    raise
                skipped.append((row, str(cause)))
        rows = read
    if not rows:
        return None, skipped
    image = prepare(raws)
    index = torch.tensor(rows, dtype=torch.int64)
    label = torch.from_numpy(data.labels[rows].astype("int64"))
    return Batch(index=index, image=image, label=label), skipped
