"""What becomes of memory that is freed: kept for the next batch while a sweep runs, given back when it ends.

glibc returns large blocks to the system as soon as they are free, and each batch gets the maps of its layers anew, page
by page, filled with zeros. For ResNet-18 and batches of 18 images these are 50,000 to 100,000 pages a batch, which take
a tenth to a fifth of the time. PyTorch keeps what is freed on a GPU; here the same is asked for on the processor.

Kept memory has a price where states are large: what maps have left behind stays resident beside them, since a hole is
seldom of the size that is wanted next. So it is given back when a sweep ends, and when a shard with a large state does.
The contrast of SqueezeNet's first layer, whose states hold gigabytes, then takes 5.5 GB in place of 5.3.

All threads share one region, because a further one cannot hold blocks above 64 MiB: worker processes run networks in a
thread of their own.

Nothing is done where there is no glibc, nor where the environment settles it: glibc's variables `MALLOC_MMAP_MAX_`,
`MALLOC_MMAP_THRESHOLD_`, `MALLOC_TOP_PAD_`, `MALLOC_TRIM_THRESHOLD_`, and `glibc.malloc` in `GLIBC_TUNABLES`, win. So
does `MALLOC_ARENA_MAX`, for the number of regions alone.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

_MMAP_MAX, _TRIM_THRESHOLD, _ARENA_MAX = -4, -1, -8
"""Names of settings in glibc's malloc.h."""

_NEVER = -1

_OF_THE_USER = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory() -> None:
    """Let freed memory wait for the next request, from now on; processes that are forked inherit it."""
    _library()


def give_back_freed_memory() -> None:
    """Hand free pages to the system, if they are kept."""
    library = _library()
    if library is not None:
        library.malloc_trim(0)


@cache
def _library() -> ctypes.CDLL | None:
    """The C library, told to keep what is freed; None where it is left alone."""
    settled = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(name in os.environ for name in _OF_THE_USER)
    if sys.platform != "linux" or settled:
        return None
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):  # another C library, such as musl
        return None
    library.mallopt(_MMAP_MAX, 0)  # no block has a mapping of its own
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    if "MALLOC_ARENA_MAX" not in os.environ:
        library.mallopt(_ARENA_MAX, 1)
    return library
