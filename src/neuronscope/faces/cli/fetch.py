"""`neuronscope fetch`: named data and weights onto this machine, with progress in bytes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as RichProgress

from neuronscope.faces.cli import console

if TYPE_CHECKING:
    from neuronscope import Fetched

EXAMPLES = (
    "Examples:\n\nneuronscope fetch mnist\n\nneuronscope fetch resnet18-5c106cde.pth --to weights\n\n"
    "neuronscope fetch imagenet --to /data/imagenet --dry-run\n\nneuronscope fetch --list"
)

_STATES = {
    "absent": "to fetch",
    "partial": "to continue, {held} are there",
    "there": "there already",
    "other": "a file of that name with another content is there: it will not be overwritten",
    "fetched": "fetched",
}
_UNITS = ("B", "kB", "MB", "GB", "TB")  # powers of 1,000, as disks are sold
_THOUSAND = 1000


def fetch(
    name: Annotated[
        str | None, typer.Argument(help="What to fetch: see --list. Weights also by file name.", show_default=False)
    ] = None,
    *,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Folder to put it into.", show_default="data/NAME, or torch's folder of weights"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be fetched, from where and to where.")
    ] = False,
    list_all: Annotated[bool, typer.Option("--list", help="List what can be fetched.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the outcome: no progress.")] = False,
) -> None:
    """Fetch named data or weights: resumed after a break, checked, unpacked safely."""
    import neuronscope as ns

    if list_all:
        _list()
        return
    if name is None:
        message = "fetch what? Expected a name, such as mnist, got none. List them with: neuronscope fetch --list"
        raise ns.InputError(message)
    progress = _progress(quiet=quiet)
    done = ns.fetch(name, to=to, action="plan" if dry_run else "fetch", progress=progress)
    console.say(f"{done.item.name}: {done.item.what}")
    console.say(f"licence  {done.item.licence} ({done.item.page})")
    if done.item.account == "kaggle":
        console.say(f"account  your own at kaggle.com, with the rules accepted at {done.item.page}")
    console.say(f"folder   {done.folder.absolute()}")
    _say_files(done, urls=dry_run)
    if not dry_run:
        console.say(f"next     {done.then}")


def _list() -> None:
    from neuronscope import FETCHABLE

    lines = [
        (
            item.name,
            size_text(None if None in sizes else sum(filter(None, sizes))),
            item.files[0].name if item.kind == "weights" else "",
            item.what + (" (with your own Kaggle account)" if item.account == "kaggle" else ""),
        )
        for item in FETCHABLE.values()
        for sizes in [[file.size for file in item.files]]
    ]
    console.rows("", ("name", "size", "file", "what"), lines, right=("size",))


def _say_files(done: Fetched, *, urls: bool) -> None:
    for state in done.files:
        status = _STATES[state.state].format(held=size_text(state.held))
        size = size_text(state.file.size if state.file.size is not None else (state.held or None))
        console.say(f"file     {state.file.name}  {size}  {status}")
        if urls:
            for url in state.file.urls:
                console.say(f"         from {url}")
        if state.file.name in done.unpacked:
            out = done.unpacked[state.file.name]
            console.say(f"         unpacked {out.files:,} files, {size_text(out.size)}; the archive may be removed")


def size_text(size: int | None) -> str:
    """A number of bytes to read.

    Example:
        >>> size_text(46_827_520), size_text(500), size_text(None)
        ('46.8 MB', '500 B', 'size unknown')
    """
    if size is None:
        return "size unknown"
    value, unit = float(size), _UNITS[0]
    for unit in _UNITS:
        if value < _THOUSAND or unit == _UNITS[-1]:
            break
        value /= _THOUSAND
    return f"{size} B" if unit == _UNITS[0] else f"{value:.1f} {unit}"


class _Lines:
    """One plain line when a file has come."""

    def __init__(self) -> None:
        self._name, self._done, self._since = "", 0, 0.0

    def start(self, name: str, total: int) -> None:  # noqa: ARG002 part of the protocol
        self._name, self._done, self._since = name, 0, time.perf_counter()

    def advance(self, images: int) -> None:
        self._done += images

    def finish(self) -> None:
        seconds = time.perf_counter() - self._since
        console.err().print(f"{self._name}: {size_text(self._done)} in {seconds:.1f} s", markup=False, soft_wrap=True)


class _Bar:
    """A bar that moves, with speed and the time that remains."""

    def __init__(self) -> None:
        self._bar = _bar()

    def start(self, name: str, total: int) -> None:
        self._bar = _bar()
        self._bar.add_task(escape(name), total=total or None)
        self._bar.start()

    def advance(self, images: int) -> None:
        for task in self._bar.task_ids:
            self._bar.advance(task, images)

    def finish(self) -> None:
        self._bar.stop()


def _bar() -> RichProgress:
    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console.err(),
    )


def _progress(*, quiet: bool) -> _Lines | _Bar | console.Silent:
    if quiet:
        return console.Silent()
    return _Bar() if console.err().is_terminal else _Lines()
