"""What a sweep has done so far, on disk: whole or not at all, and never for another computation.

A checkpoint of a sweep is one file: the merged state of the first shards, and the states of finished shards beyond
them. Its name is a hash of everything that decides the result (weights, images, options, seed, versions, batch size,
threads), so an old one cannot be picked up by a changed run. Its content carries its own hash, so a torn one is
recognised and dropped. States are written as safetensors with a JSON outline: nothing is pickled.

A folder that is removed under a run is made again, with a warning: what the sweep has finished is in memory and is
written once more, and the lock that went with the folder is taken anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from io import TextIOWrapper
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from neuronscope.errors import InputError, StorageError
from neuronscope.maths.streams import State

LOGGER = logging.getLogger("neuronscope")

_MAGIC = b"NSCOPE01"
_DIGEST = 32
_FORMATS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls the number formats of states."""

_LEAST_PAUSE = 30.0  # seconds between two writes of one checkpoint
_SHARE = 20.0  # and at least so many times as long as the last write took
_LOCK = ".lock"
_PATIENCE = 1.0  # seconds to wait for a lock: workers of a run that was killed hold it for a moment more


@dataclass(frozen=True)
class ShardState:
    """The state after one or more consecutive shards, with what was left out on the way."""

    state: State
    images: int
    skipped: tuple[tuple[int, str], ...] = ()

    def plain(self) -> list[object]:
        """The state as `encode` takes it."""
        return [self.state, self.images, [list(entry) for entry in self.skipped]]

    @classmethod
    def from_plain(cls, parts: Sequence[Any]) -> ShardState:
        """What `plain` gave, after its way through `encode` and `decode`."""
        state, images, skipped = parts
        return cls(state, images, tuple((int(row), str(cause)) for row, cause in skipped))


@dataclass(frozen=True)
class Done:
    """How far a sweep is.

    Attributes:
        first: number of shards merged into `prefix`, counted from the beginning.
        prefix: their merged state; None while `first` is 0.
        beyond: position -> state of finished shards after them.
        shards: number of all shards of the sweep; 0 while nothing is known of it.
    """

    first: int = 0
    prefix: ShardState | None = None
    beyond: Mapping[int, ShardState] = field(default_factory=dict)
    shards: int = 0


class Checkpoint:
    """One sweep's file, written at most every 30 seconds and at most a twentieth of the time."""

    def __init__(self, folder: Path, *, name: str, key: str) -> None:
        """The checkpoint of the sweep `name` with the identity `key`; the first `read` or `write` makes the folder."""
        self.path = folder / f"{name}-{key[:24]}.state"
        self.key = key
        self._due = time.monotonic() + _LEAST_PAUSE
        self._disk: int | None = None  # where the folder is; None before it was made
        self._written: Done | None = None
        self._failed = False

    def read(self) -> Done:
        """What was done before: nothing without a checkpoint, or with one that is torn or another's (it is removed).

        Raises:
            StorageError: the folder cannot be made.
        """
        self._see_to_folder()
        for partial in self.path.parent.glob(f".{self.path.name}.*"):  # a run was killed while it wrote
            with contextlib.suppress(OSError):
                partial.unlink()
        if not self.path.is_file():
            return Done()
        try:
            parts = decode(self.path.read_bytes())
            if parts["key"] == self.key:
                LOGGER.info("going on from %s: %d shards are done", self.path, parts["first"])
                return _done(parts)
            LOGGER.warning("%s belongs to another computation and is dropped", self.path)
        except (ValueError, KeyError, TypeError) as error:
            LOGGER.warning("%s is torn and is dropped (%s)", self.path, error)
        except OSError as error:
            LOGGER.warning("%s cannot be read (%s): the work starts over", self.path, error)
            return Done()
        with contextlib.suppress(OSError):  # the next write replaces it
            self.path.unlink()
        return Done()

    def write(self, done: Done, *, now: bool = False) -> None:
        """Put the state on disk when it is time, or `now`.

        Raises:
            StorageError: the folder cannot be written, or is gone for good; a checkpoint that is there is still whole.
        """
        if not now and time.monotonic() < self._due:
            return
        start = time.monotonic()
        parts = {
            "key": self.key,
            "shards": done.shards,
            "first": done.first,
            "prefix": done.prefix.plain() if done.prefix is not None else None,
            "beyond": {str(position): state.plain() for position, state in done.beyond.items()},
        }
        try:
            self._see_to_folder()
            write_whole(self.path, *encoded(parts))
        except StorageError:
            self._failed = True
            raise
        self._written = done
        took = time.monotonic() - start
        self._due = time.monotonic() + max(_LEAST_PAUSE, _SHARE * took)

    def write_last(self, done: Done) -> None:
        """Put the state on disk while the sweep ends with an error: what goes wrong here is logged and not raised.

        Nothing is done when that very state is on disk, or when writing is what failed.
        """
        if self._failed or done is self._written:
            return
        try:
            self.write(done, now=True)
            LOGGER.info("what was finished is kept in %s: the same command goes on from there", self.path)
        except Exception as error:  # noqa: BLE001 whatever it is, the error that ended the sweep is to be seen
            LOGGER.warning("what was finished since the last checkpoint is lost: %s", error)

    def _see_to_folder(self) -> None:
        """Make the folder where it is not there yet, or no longer; hold the output folder's lock.

        Raises:
            StorageError: it cannot be made, or what it was in is gone, or another run has taken its place.
        """
        folder = self.path.parent
        try:
            if self._disk is None:
                folder.mkdir(parents=True, exist_ok=True)
                self._disk = folder.stat().st_dev
            elif not folder.is_dir():
                _make_again(folder, disk=self._disk)
            _hold_lock(folder)
        except StorageError:
            raise
        except OSError as error:
            raise _not_written(self.path, error) from error


def _make_again(folder: Path, *, disk: int) -> None:
    """A checkpoint folder that was removed in mid-run, and the output folder around it if that is gone too.

    No more than these two: where the folder above is missing, or on another disk, a disk is likely to have been taken
    away, and its place would be filled with files that nobody finds.

    Raises:
        StorageError: the folder above is gone, or not on the disk where the folder was.
        OSError: the folder cannot be made.
    """
    outer = folder.parent
    above = outer if outer.is_dir() else outer.parent
    if not above.is_dir() or above.stat().st_dev != disk:
        what = "which is gone too" if not above.is_dir() else "where another disk is now"
        message = (
            f"the folder {folder} was removed while the run was writing there, and it cannot be made again in {above}, "
            f"{what}. Expected it to stay until the run has ended. Put it back, or choose another place, and run again"
        )
        raise StorageError(message)
    outer.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    LOGGER.warning(
        "%s was removed while the run was writing there. It is made again, and nothing of this sweep is lost; what "
        "earlier sweeps had kept there is gone, and would be worked again if the run was stopped",
        folder,
    )


def encode(value: object) -> bytes:
    """A nest of dictionaries, lists, tensors and JSON values as bytes that know whether they are whole."""
    return b"".join(encoded(value))


def encoded(value: object) -> tuple[bytes | memoryview, ...]:
    """The same in pieces, which look into the tensors: a state of gigabytes goes to a file without a copy of it."""
    tensors: dict[str, torch.Tensor] = {}
    plan = json.dumps(_outline(value, tensors)).encode()
    pieces = (len(plan).to_bytes(8, "little"), plan, *_safetensors(tensors))
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return (_MAGIC, digest.digest(), *pieces)


def _outline(part: object, tensors: dict[str, torch.Tensor]) -> object:
    """A nest without its tensors, which are put aside under numbers.

    Not a function within `encoded`: one that calls itself is a circle of references, which would hold the tensors until
    Python looks for circles.
    """
    if isinstance(part, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = part.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(part, dict):
        return {"dict": {str(key): _outline(inner, tensors) for key, inner in part.items()}}
    if isinstance(part, list | tuple):
        return {"list": [_outline(inner, tensors) for inner in part]}
    return {"value": part}


def _safetensors(tensors: Mapping[str, torch.Tensor]) -> tuple[bytes | memoryview, ...]:
    """Tensors in the format of safetensors, whose own writer copies them: an outline, then the numbers themselves."""
    outline, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        outline[name] = {"dtype": _FORMATS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    head = json.dumps(outline).encode()
    head += b" " * (-len(head) % 8)
    numbers = (tensor.reshape(-1).view(torch.uint8).numpy().data for tensor in tensors.values())
    return (len(head).to_bytes(8, "little"), head, *numbers)


def decode(data: bytes) -> Any:
    """What `encode` was given; tuples come back as lists.

    Raises:
        ValueError: the bytes are torn, or not from `encode`.
    """
    start = len(_MAGIC) + _DIGEST
    body = memoryview(data)[start:]
    if not data.startswith(_MAGIC) or hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
        message = "the bytes do not match their checksum"
        raise ValueError(message)
    length = int.from_bytes(body[:8], "little")
    plan = json.loads(bytes(body[8 : 8 + length]))
    try:
        tensors = load(bytes(body[8 + length :]))
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return _filled(plan, tensors)


def _filled(part: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """A nest with its tensors in their places."""
    kind, inner = next(iter(part.items()))
    match kind:
        case "tensor":
            return tensors[inner]
        case "dict":
            return {key: _filled(value, tensors) for key, value in inner.items()}
        case "list":
            return [_filled(value, tensors) for value in inner]
        case _:
            return inner


def write_whole(path: Path, *data: bytes | memoryview) -> None:
    """Write a file so that it is there as a whole or not at all, and survives a loss of power; its folder is there.

    Args:
        path: of the file.
        data: its bytes, in pieces that follow one another.

    Raises:
        StorageError: it cannot be written; what stood there before still does.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as stream:
            stream.writelines(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise _not_written(path, error, size=sum(map(len, data))) from error


def _not_written(path: Path, error: OSError, *, size: int | None = None) -> StorageError:
    much = f" ({size / 2**20:.0f} MiB)" if size is not None else ""
    return StorageError(
        f"cannot write {path}{much}: {error.strerror or error}. What was finished before "
        "is kept: make room, or mend the folder, and run the same command again"
    )


def drop_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a run: it is finished, or starts over."""
    shutil.rmtree(folder, ignore_errors=True)


_locks: dict[Path, TextIOWrapper] = {}  # output folder -> the lock file by which this process has it for itself


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Have an output folder for oneself; the lock goes with the process, however it ends.

    Raises:
        InputError: another run is writing there.
    """
    place = folder.resolve()
    stream = _lock(place)
    if stream is None:
        yield
        return
    _locks[place] = stream
    try:
        yield
    finally:
        with _locks.pop(place) as last, contextlib.suppress(OSError):
            last.truncate(0)


def _lock(folder: Path) -> TextIOWrapper | None:
    """The lock file of a folder, open and locked; None where there are no locks.

    Raises:
        InputError: another run holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks of this kind
        return None
    stream = (folder / _LOCK).open("a+")
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() < until:
                time.sleep(_PATIENCE / 20)
                continue
            stream.seek(0)
            owner = stream.read().strip() or "another process"
            stream.close()
            message = f"{folder} is in use: {owner} is writing there. Wait for it, or choose another --out"
            raise InputError(message) from error
        except OSError as error:  # some network file systems have no locks
            stream.close()
            LOGGER.warning("%s cannot be locked (%s): let no other run write there", folder, error)
            return None
    with contextlib.suppress(OSError):  # who holds it is a courtesy
        stream.truncate(0)
        stream.write(f"process {os.getpid()}")
        stream.flush()
    return stream


def _hold_lock(folder: Path) -> None:
    """Take the lock of the output folder anew where its file was removed: it guards nothing any more.

    Args:
        folder: the checkpoint folder; the output folder is this one or one around it.

    Raises:
        StorageError: another run has taken the folder meanwhile.
    """
    here = folder.resolve()
    for place in (here, *here.parents):
        if place not in _locks:
            continue
        try:
            there = os.path.samestat(os.fstat(_locks[place].fileno()), (place / _LOCK).stat())
        except FileNotFoundError:
            there = False
        if there:
            continue
        try:
            fresh = _lock(place)
        except InputError as error:
            message = f"{place} was removed while this run was writing there, and now {error}"
            raise StorageError(message) from error
        if fresh is not None:
            _locks[place].close()
            _locks[place] = fresh


def digest(*parts: object) -> str:
    """SHA-256 of values, as the identity of a computation: the same in every process."""
    return hashlib.sha256("\x1f".join(_described(part) for part in parts).encode()).hexdigest()


def _described(part: Any) -> str:  # noqa: C901, PLR0911 one case for each kind of value
    """A value as text, in full and without the addresses and the shortening of printed forms."""
    match part:
        case torch.Tensor():
            array = part.detach().cpu().contiguous()
            return f"tensor {array.dtype} {_described(array.view(torch.uint8).numpy() if array.ndim else array.item())}"
        case np.ndarray() if part.dtype != object:
            content = hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest()
            return f"array {part.dtype} {part.shape} {content}"
        case nn.Module():
            return f"{part!r} {_described(part.state_dict())}"
        case Mapping():
            return "{" + ", ".join(f"{_described(key)}: {_described(value)}" for key, value in part.items()) + "}"
        case set() | frozenset():
            return "{" + ", ".join(sorted(map(_described, part))) + "}"
        case list() | tuple():
            return "(" + ", ".join(map(_described, part)) + ")"
        case type():
            return f"{part.__module__}.{part.__qualname__}"
        case FunctionType():
            inside = [cell.cell_contents for cell in part.__closure__ or ()]
            numbers = [one for one in part.__code__.co_consts if not isinstance(one, CodeType)]
            code = part.__code__.co_code.hex()
            return f"{part.__module__}.{part.__qualname__} {code} {_described([inside, numbers])}"
        case _ if is_dataclass(part):
            inner = {one.name: getattr(part, one.name) for one in fields(part)}
            return f"{_described(type(part))}{_described(inner)}"
        case _ if "object at 0x" in repr(part):  # an address
            return f"{_described(type(part))}{_described(getattr(part, '__dict__', {}))}"
    return repr(part)


def gather(folders: Sequence[Path], target: Path) -> int:
    """Bring the parts of a study together: all finished shards of several checkpoint folders into one.

    Args:
        folders: the checkpoint folders of the parts.
        target: where the joined checkpoints go.

    Returns:
        Number of sweeps.

    Raises:
        InputError: a folder holds no checkpoints, torn ones, or those of another computation, or shards are missing.
        StorageError: the target cannot be written.
    """
    names = [{path.name for path in folder.glob("*.state")} for folder in folders]
    for folder, own in zip(folders, names, strict=True):
        if not own:
            message = f"{folder} holds no checkpoints: expected the output folder of a run with --shard I/N"
            raise InputError(message)
        if own != names[0]:
            message = (
                f"{folder} holds the shards of another computation than {folders[0]}: weights, images, options, seed, "
                "versions, batch size and threads must be the same on all machines"
            )
            raise InputError(message)
    for name in sorted(names[0]):
        parts = [_whole(folder / name) for folder in folders]
        dones = [_done(part) for part in parts]
        longest = max(dones, key=lambda done: done.first)
        beyond = {position: state for done in dones for position, state in done.beyond.items()}
        shards = longest.shards
        missing = [p for p in range(longest.first, shards) if p not in beyond]
        if missing:
            message = (
                f"{len(missing)} of the {shards} shards of {name} are in none of the {len(folders)} folders, the first "
                f"is {missing[0] + 1}. Give the folders of all parts, each worked to its end"
            )
            raise InputError(message)
        done = Done(longest.first, longest.prefix, {p: s for p, s in beyond.items() if p >= longest.first}, shards)
        sweep, _, _ = name.rpartition("-")
        Checkpoint(target, name=sweep, key=parts[0]["key"]).write(done, now=True)
    return len(names[0])


def _whole(path: Path) -> Any:
    try:
        return decode(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path} is torn or cannot be read ({error}). Work that portion again"
        raise InputError(message) from error


def _done(parts: Mapping[str, Any]) -> Done:
    prefix = ShardState.from_plain(parts["prefix"]) if parts["prefix"] is not None else None
    beyond = {int(position): ShardState.from_plain(state) for position, state in parts["beyond"].items()}
    return Done(int(parts["first"]), prefix, beyond, int(parts["shards"]))
