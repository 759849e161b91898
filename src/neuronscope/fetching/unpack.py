"""Archives from strangers: every entry is looked at before the first byte is written, and nothing leaves the folder.

Only plain files and folders come out: no links, no devices, no absolute names, no `..`. A file that is there already
and differs is not overwritten. Each file gets its name when it is complete, so that unpacking can be repeated after an
interruption.
"""

from __future__ import annotations

import lzma
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Protocol, runtime_checkable

from neuronscope.errors import DataError, StorageError
from neuronscope.fetching.disk import require_space, storing
from neuronscope.fetching.items import Unpack
from neuronscope.run import Progress, Silent

_BLOCK = 1 << 20  # bytes
_TORN = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError)
_ENCRYPTED = 0x1  # bit of a zip entry's flags
_SUFFIX = ".unpacking"
_KEPT = "The archive and what came out of it are kept"


@dataclass(frozen=True)
class Unpacked:
    """What came out of an archive.

    Attributes:
        files: number of files.
        size: their bytes together.
        tops: the first parts of their names: what appears in the folder.
    """

    files: int
    size: int
    tops: tuple[str, ...]


def unpack(archive: Path, folder: Path, *, kind: Unpack, limit: int, progress: Progress | None = None) -> Unpacked:
    """Unpack an archive below a folder, after all of it was found to be harmless.

    Args:
        archive: the archive; tar may be packed with gzip, bzip2 or xz.
        folder: where to.
        kind: `tar` or `zip`; `none` unpacks nothing.
        limit: the most bytes that may come out.
        progress: hears of bytes.

    Raises:
        DataError: the archive is torn, has an entry that does not belong into the folder, holds more than `limit`
            bytes, or would overwrite another file.
        StorageError: the folder is full or cannot be written to; what was unpacked stays.
    """
    if kind == "none":
        return Unpacked(0, 0, ())
    with _reading(archive):
        plan = _Plan(archive, folder, limit, progress or Silent())
        return _unpack_tar(archive, plan) if kind == "tar" else _unpack_zip(archive, plan)


def _unpack_tar(archive: Path, plan: _Plan) -> Unpacked:
    with tarfile.open(archive) as content:
        for entry in content:
            if not (entry.isreg() or entry.isdir()):
                what = "a link" if entry.islnk() or entry.issym() else "a device"
                plan.refuse(entry.name, f"is {what}")
            plan.add(entry.name, entry.size if entry.isreg() else None)
            if sys.version_info >= (3, 11, 4):
                tarfile.data_filter(entry, str(plan.folder))  # Python's own idea of what is harmless, beside ours
    with tarfile.open(archive) as content, plan.writing():
        for entry in content:
            source = content.extractfile(entry) if entry.isreg() else None
            if source is not None:
                with source:
                    _write(source, plan.target(entry.name), size=entry.size, plan=plan)
    return plan.done()


def _unpack_zip(archive: Path, plan: _Plan) -> Unpacked:
    with zipfile.ZipFile(archive) as content:
        entries = content.infolist()
        for entry in entries:
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                plan.refuse(entry.filename, f"is {'a link' if stat.S_ISLNK(mode) else 'a device'}")
            if entry.flag_bits & _ENCRYPTED:
                plan.refuse(entry.filename, "is encrypted")
            plan.add(entry.filename, None if entry.is_dir() else entry.file_size)
        with plan.writing():
            for entry in entries:
                if not entry.is_dir():
                    with content.open(entry) as source:
                        _write(source, plan.target(entry.filename), size=entry.file_size, plan=plan)
    return plan.done()


@runtime_checkable
class _Readable(Protocol):
    """An opened entry of an archive."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes, none at its end."""
        ...


class _Plan:
    """Where the entries of an archive go; it refuses those that should not."""

    def __init__(self, archive: Path, folder: Path, limit: int, progress: Progress) -> None:
        self.folder, self.progress = folder, progress
        self._archive, self._root, self._limit = archive, folder.resolve(), limit
        self._inside: set[Path] = set()
        self._tops: dict[str, None] = {}
        self._files, self._size, self._new = 0, 0, 0

    def refuse(self, name: str, why: str) -> None:
        """Stop because of an entry."""
        message = (
            f"{self._archive.name} is not unpacked: its entry '{name}' {why}. Expected plain files and folders below "
            f"'{self.folder}'. The archive is kept; nothing was written"
        )
        raise DataError(message)

    def add(self, name: str, size: int | None) -> None:
        """Look at an entry: a file of so many bytes, or a folder."""
        target = self.target(name)
        if size is None:
            return
        if target == self.folder:
            self.refuse(name, "is the folder itself")
        self._files += 1
        self._size += size
        self._tops[target.relative_to(self.folder).parts[0]] = None
        if self._size > self._limit:
            self.refuse(name, f"brings the content to {self._size:,} bytes or more, over the limit of {self._limit:,}")
        if target == self._archive:
            self.refuse(name, "has the name of the archive itself")
        if target.is_symlink() or (target.exists() and not (target.is_file() and target.stat().st_size == size)):
            self.refuse(name, "would overwrite another file")
        self._new += 0 if target.exists() else size

    def target(self, name: str) -> Path:
        """Where an entry goes."""
        windows = PureWindowsPath(name)
        if not name or "\0" in name or "\\" in name or windows.drive or windows.root or PurePosixPath(name).root:
            self.refuse(name, "has no name that is a path below a folder")
        if ".." in PurePosixPath(name).parts:
            self.refuse(name, "leads out of the folder")
        target = self.folder / PurePosixPath(name)
        # Something that was there before may be a link that leads elsewhere.
        if target.parent not in self._inside and target != self.folder:
            if not target.parent.resolve().is_relative_to(self._root):
                self.refuse(name, "leads out of the folder through a link")
            self._inside.add(target.parent)
        return target

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Begin to write, if there is room for it, and tell how far it is."""
        require_space(self.folder, self._new, what=f"the content of {self._archive.name}")
        self.progress.start(f"unpacking {self._archive.name}", self._size)
        try:
            yield
        finally:
            self.progress.finish()

    def differs(self, target: Path) -> None:
        """Stop because a file is there that is not the same."""
        message = (
            f"'{target}' is there already and differs from the one in {self._archive.name}: nothing is overwritten. "
            "Move it away, or choose another folder"
        )
        raise DataError(message)

    def done(self) -> Unpacked:
        """What came out."""
        return Unpacked(self._files, self._size, tuple(self._tops))


def _write(source: _Readable, target: Path, *, size: int, plan: _Plan) -> None:
    """One entry to its place, or a comparison with what is there."""
    if target.exists():
        with target.open("rb") as there:
            while block := source.read(_BLOCK):
                if there.read(len(block)) != block:
                    plan.differs(target)
                plan.progress.advance(len(block))
            if there.read(1):
                plan.differs(target)
        return
    beside = target.with_name(target.name + _SUFFIX)
    with storing(target, kept=_KEPT):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle = beside.open("wb")
    written = 0
    try:
        with handle:
            while block := source.read(_BLOCK):
                with storing(target, kept=_KEPT):
                    written += handle.write(block)
                plan.progress.advance(len(block))
        if written != size:
            message = f"'{target.name}' has {written:,} of {size:,} bytes"
            raise EOFError(message)
        with storing(target, kept=_KEPT):
            beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Say what is wrong with an archive as what it is."""
    try:
        yield
    except (DataError, StorageError):
        raise
    except (*_TORN, OSError, RuntimeError) as cause:
        # OSError: gzip's word for content that is none; RuntimeError: zipfile's for methods it does not know.
        message = f"'{archive}' cannot be unpacked: {cause}. Expected a whole archive. Remove it and fetch it again"
        raise DataError(message) from cause
