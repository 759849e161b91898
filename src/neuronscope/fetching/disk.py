"""The disk that fetched files go to: whether there is room, who writes, and what to say when it refuses."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from neuronscope.errors import StorageError

# Full: the disk, the user's share of it, the largest file that may be written.
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def require_space(folder: Path, needed: int, *, what: str) -> None:
    """Refuse to begin what cannot end.

    Args:
        folder: where it goes; it need not exist.
        needed: bytes that are still to be written.
        what: what is to be written, for the message.

    Raises:
        StorageError: the disk has less room.
    """
    there = folder.resolve()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed > free:
        message = (
            f"{what} needs {needed / 1e9:,.2f} GB in '{folder}', but the disk has {free / 1e9:,.2f} GB free. Make "
            "room, or choose another folder"
        )
        raise StorageError(message)


@contextlib.contextmanager
def storing(path: Path, *, kept: str = "") -> Iterator[None]:
    """Say what a disk refused as what it is.

    Args:
        path: the file or folder that is written.
        kept: what is not lost when the disk is full, as a sentence; by default, what there is of the file.

    Raises:
        StorageError: in place of an OSError.
    """
    try:
        yield
    except OSError as cause:
        if cause.errno in _NO_SPACE:
            held = path.stat().st_size if path.is_file() else 0
            part = f" The {held:,} bytes that have arrived are kept in '{path}'." if held else ""
            rest = f" {kept}." if kept else part
            message = f"no room left in '{path.parent}' ({cause.strerror}).{rest} Make room and repeat the command"
        else:
            message = f"'{path}' cannot be written: {cause.strerror or cause}. Choose a folder that may be written to"
        raise StorageError(message) from cause


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process fetches into a folder: two writers of one file would mix their bytes.

    The lock is on the folder itself, so that nothing of it stays, and ends with the process.

    Args:
        folder: where to; it is made if it is not there.

    Raises:
        StorageError: it cannot be made.
    """
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks of this kind
        yield
        return
    with storing(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
