"""`fetch`: what a name stands for, file by file, into a folder; what is there and right is left alone."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from neuronscope.errors import DataError
from neuronscope.fetching.disk import alone, require_space, storing
from neuronscope.fetching.download import PART, Patience, digest, download
from neuronscope.fetching.items import Fetchable, RemoteFile, find
from neuronscope.fetching.kaggle import kaggle_credentials
from neuronscope.fetching.unpack import Unpacked, unpack
from neuronscope.quantities import file_size
from neuronscope.run import Progress, Silent


@dataclass(frozen=True)
class FileState:
    """How one file stands.

    Attributes:
        file: the row of the table.
        path: where it belongs.
        state: `absent`; `partial`, a part of it waits to be continued; `there`, complete and right (or unpacked, with
            the archive taken away); `other`, a file of its name with another content; `fetched`, by this call.
        held: bytes of it that are there.
    """

    file: RemoteFile
    path: Path
    state: Literal["absent", "partial", "there", "other", "fetched"]
    held: int


@dataclass(frozen=True)
class Fetched:
    """What was fetched, or would be.

    Attributes:
        item: what was asked for.
        folder: where it is.
        files: each of its files.
        unpacked: archive name -> what came out of it by this call.
        then: the command to go on with.
    """

    item: Fetchable
    folder: Path
    files: tuple[FileState, ...]
    unpacked: Mapping[str, Unpacked]
    then: str


def fetch(
    what: str | Fetchable,
    *,
    to: str | Path | None = None,
    action: Literal["fetch", "plan"] = "fetch",
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Fetched:
    """Bring named data or weights to this machine; call it again and it goes on where it stopped.

    Args:
        what: a name in `FETCHABLE`, the file name of weights (`resnet18-5c106cde.pth`), or a row of your own.
        to: the folder; by default `data/NAME` for data, and for weights the folder where torch looks for them.
        action: `plan` looks at what is there, and neither connects nor writes.
        progress: hears of bytes (not images), one file at a time; the total is 0 where it is not known.
        patience: how long to wait for servers.

    Raises:
        UnknownName: there is no such name.
        DataError: a server does not give a file, or gives another content; an archive is not harmless; or a file of
            that name is there with another content.
        InputError: it takes credentials, and there are none.
        StorageError: the folder cannot be written to, or has no room.

    Example:
        >>> planned = fetch("mnist", to="somewhere", action="plan")
        >>> [(state.file.name, state.state) for state in planned.files][:1]
        [('train-images-idx3-ubyte.gz', 'absent')]
        >>> planned.then
        'neuronscope train --data mnist:somewhere --out runs/mnist'
    """
    item = find(what) if isinstance(what, str) else what
    folder = Path(to).expanduser() if to is not None else item.folder()
    states = tuple(_state(file, folder) for file in item.files)
    unpacked: dict[str, Unpacked] = {}
    if action == "fetch":
        _refuse_others(states)
        wanted = [state for state in states if state.state != "there"]
        if wanted:
            require_space(folder, sum(map(_still_needed, wanted)), what=item.name)
            credentials = kaggle_credentials(os.environ, home=Path.home()) if item.account == "kaggle" else None
            with alone(folder):
                for state in wanted:
                    if _state(state.file, folder).state == "there":
                        continue  # another process has brought it meanwhile
                    try:
                        download(
                            state.file,
                            folder,
                            progress=progress or Silent(),
                            patience=patience or Patience(),
                            credentials=credentials,
                        )
                    except DataError as cause:
                        raise DataError(_refusal(item, folder, state.file, str(cause))) from cause
        for state in states:
            done = _unpacked(state.file, folder, progress or Silent())
            if done is not None:
                unpacked[state.file.name] = done
        states = tuple(
            FileState(state.file, state.path, "fetched" if state in wanted else "there", _size(state.path))
            for state in states
        )
    return Fetched(item, folder, states, unpacked, _then(item, folder))


def _state(file: RemoteFile, folder: Path) -> FileState:
    """How a file stands; the checksum is computed only where size leaves a doubt."""
    path, part = folder / file.name, folder / f"{file.name}{PART}"
    if _receipt_holds(file, folder):
        return FileState(file, path, "there", _size(path))
    if path.exists():
        return FileState(file, path, "there" if _right(file, path) else "other", _size(path))
    held = _size(part)
    return FileState(file, path, "partial" if held else "absent", held)


def _right(file: RemoteFile, path: Path) -> bool:
    if not path.is_file() or (file.size is not None and path.stat().st_size != file.size):
        return False
    if file.checksum is None:
        return True  # it has got its name, so it was complete
    kind, expected = file.checksum
    return digest(path, kind).startswith(expected)


def _refuse_others(states: tuple[FileState, ...]) -> None:
    others = [state for state in states if state.state == "other"]
    if others:
        names = ", ".join(f"'{state.path}' ({state.held:,} bytes)" for state in others)
        expected = ", ".join(_identity(state.file) for state in others)
        message = (
            f"{names}: a file of that name is there with another content; expected {expected}. Nothing is overwritten: "
            "move it away, or choose another folder"
        )
        raise DataError(message)


def _identity(file: RemoteFile) -> str:
    """Size and checksum of a file, as far as they are known."""
    if file.size is not None:
        size = f"{file.size:,} bytes"
    else:
        size = f"about {file_size(file.about)}" if file.about is not None else "size unknown"
    return f"{size}, {' '.join(file.checksum) if file.checksum else 'checksum unknown'}"


def _still_needed(state: FileState) -> int:
    """Bytes to be written: the rest of the file, and the least that its content can take."""
    size = state.file.size or state.file.about or 0
    return max(size - state.held, 0) + (size if state.file.unpack != "none" else 0)


def _refusal(item: Fetchable, folder: Path, failed: RemoteFile, reasons: str) -> str:
    """Why a file did not come, and which files to put where by hand."""
    missing = [file for file in item.files if _state(file, folder).state in ("absent", "partial")]
    lines = [
        line
        for file in missing
        for line in (
            f"  {file.name} ({_identity(file)})",
            f"    from {' or '.join(file.urls)}",
            f"    to   {(folder / file.name).absolute()}",
        )
    ]
    account = f"\nThe account and its rules: {item.page}" if item.account != "none" else ""
    return "\n".join(
        [
            f"{failed.name} could not be fetched. {reasons}.{account}",
            "Repeat the command to go on where it stopped. Without a connection, get by other means and put there:",
            *lines,
        ]
    )


def _unpacked(file: RemoteFile, folder: Path, progress: Progress) -> Unpacked | None:
    """Unpack an archive that was not unpacked yet, and leave a note that it was."""
    if file.unpack == "none" or _receipt_holds(file, folder):
        return None
    done = unpack(folder / file.name, folder, kind=file.unpack, limit=file.unpack_limit, progress=progress)
    note = {"file": _facts(file), **asdict(done)}
    with storing(_receipt(file, folder)):
        _receipt(file, folder).write_text(json.dumps(note, indent=1), encoding="utf-8")
    return done


def _receipt(file: RemoteFile, folder: Path) -> Path:
    return folder / f"{file.name}.unpacked.json"


def _facts(file: RemoteFile) -> dict[str, str | int | None]:
    return {"name": file.name, "sha256": file.sha256, "md5": file.md5, "size": file.size}


def _receipt_holds(file: RemoteFile, folder: Path) -> bool:
    """Whether an archive of this row was unpacked here, and its top folders are still there."""
    if file.unpack == "none":
        return False
    try:
        note = json.loads(_receipt(file, folder).read_text(encoding="utf-8"))
        return note["file"] == _facts(file) and all((folder / top).exists() for top in note["tops"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _then(item: Fetchable, folder: Path) -> str:
    path = shlex.quote(str(folder))
    return item.then.format(folder=path, file=shlex.quote(str(folder / item.files[0].name)))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
