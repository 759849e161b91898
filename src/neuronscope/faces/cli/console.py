"""What the command line says, and where: results on standard output, progress and errors on standard error.

A terminal gets bars and colours; a file or pipe gets one plain line for each thing that happened.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NoReturn, Protocol, runtime_checkable

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table as RichTable

from neuronscope import NeuronscopeError, duration, file_size

FAILED = 2
STOPPED = 130

What = Literal["images", "bytes"]

_WIDE = 120  # columns of output that goes to a file: there is no window to fit


@runtime_checkable
class Progress(Protocol):
    """How far a computation is: the protocol of `neuronscope.Run`, with lines on the way."""

    def start(self, name: str, total: int) -> None:
        """So much work begins."""
        ...

    def advance(self, images: int) -> None:
        """So much more of it is done."""
        ...

    def finish(self) -> None:
        """It has ended."""
        ...

    def tell(self, text: str) -> None:
        """A line about it, on the way."""
        ...


def out() -> Console:
    """Where results go."""
    return _console("out")


def err() -> Console:
    """Where progress and messages go."""
    return _console("err")


def _console(which: str) -> Console:
    console = Console(stderr=which == "err", highlight=False)
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(stderr=which == "err", highlight=False, width=_WIDE)


def say(text: str = "", *, style: str = "") -> None:
    """A line of results, as it is: no markup, no line breaks added."""
    out().print(text, style=style or None, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """A line that asks for attention and stops nothing."""
    err().print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)


def examples(*lines: str) -> str:
    r"""The end of a help text; Typer keeps lines apart that have an empty one between them.

    Example:
        >>> examples("neuronscope demo")
        'Examples:\n\nneuronscope demo'
    """
    return "\n\n".join(["Examples:", *lines])


def rows(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A small table; the columns named in `right` hold numbers."""
    table = RichTable(title=title or None, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(escape(column), justify="right" if column in right else "left", overflow="fold")
    for line in lines:
        table.add_row(*(escape(cell) for cell in line))
    out().print(table)


@contextmanager
def answering(*, debug: bool) -> Iterator[None]:
    """Turn what a user can mend into one message and exit code 2; a traceback is for faults of the program.

    Args:
        debug: let everything through as it came.
    """
    try:
        yield
    except NeuronscopeError as error:
        if debug:
            raise
        _fail(str(error), error)
    except KeyboardInterrupt as error:
        err().print("stopped", markup=False)
        raise typer.Exit(STOPPED) from error
    except (MemoryError, RuntimeError, OSError) as error:
        message = _circumstance(error)
        if debug or message is None:
            raise
        _fail(message, error)


def _fail(message: str, error: BaseException) -> NoReturn:
    console = err()
    console.print("error:", style="bold red", end=" ")
    console.print(message, markup=False, soft_wrap=True)
    raise typer.Exit(FAILED) from error


def _circumstance(error: Exception) -> str | None:
    """What to say about an error that comes from the machine rather than from the program; None for all others."""
    text = str(error)
    # PyTorch reports both kinds of memory with a RuntimeError: type OutOfMemoryError on a device, plain on the host.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return "not enough memory. Make --batch-size smaller, choose fewer --layers, or see the need with --plan"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" at {error.filename}" if error.filename else ""
        return f"no space left on the disk{where}. Make room, or choose another --out"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return None


class Silent:
    """Nobody wants to know how far it is."""

    def start(self, name: str, total: int) -> None:
        """Say nothing."""

    def advance(self, images: int) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""

    def tell(self, text: str) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Counted:
    """What is counted, and how it is shown.

    Attributes:
        amount: a number of them, in words.
        columns: of a bar, between the bar and the time that remains.
    """

    amount: Callable[[int], str]
    columns: Callable[[], Sequence[ProgressColumn]]


def _images(count: int) -> str:
    return f"{count:,} images"


COUNTED: Mapping[What, Counted] = {
    "images": Counted(_images, lambda: (MofNCompleteColumn(), TextColumn("images"), TimeElapsedColumn())),
    "bytes": Counted(file_size, lambda: (DownloadColumn(), TransferSpeedColumn())),
}


class Lines:
    """One plain line when a sweep or a file has ended."""

    def __init__(self, what: What = "images") -> None:
        """Nothing has begun."""
        self._amount = COUNTED[what].amount
        self._name, self._done, self._since = "", 0, 0.0

    def start(self, name: str, total: int) -> None:  # noqa: ARG002 part of the protocol
        """Remember what begins, and when."""
        self._name, self._done, self._since = name, 0, time.perf_counter()

    def advance(self, images: int) -> None:
        """Count."""
        self._done += images

    def finish(self) -> None:
        """Say what was done."""
        self.tell(f"{self._name}: {self._amount(self._done)} in {duration(time.perf_counter() - self._since)}")

    def tell(self, text: str) -> None:
        """Say it."""
        err().print(text, markup=False, soft_wrap=True)


class Bar:
    """A bar that moves, with the time that remains."""

    def __init__(self, what: What = "images") -> None:
        """Nothing has begun."""
        self._what = what
        self._bar = _bar(what)

    def start(self, name: str, total: int) -> None:
        """Show the bar; a total of 0 is one that is not known."""
        self._bar = _bar(self._what)
        self._bar.add_task(escape(name), total=total or None)
        self._bar.start()

    def advance(self, images: int) -> None:
        """Move it."""
        for task in self._bar.task_ids:
            self._bar.advance(task, images)

    def finish(self) -> None:
        """Leave it as it stands."""
        self._bar.stop()

    def tell(self, text: str) -> None:
        """Say it above the bar."""
        self._bar.console.print(text, markup=False, soft_wrap=True)


def _bar(what: What) -> RichProgress:
    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        *COUNTED[what].columns(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err(),
    )


def progress(*, quiet: bool, what: What = "images") -> Progress:
    """What suits where the messages go: a bar, plain lines, or nothing when `quiet`.

    Args:
        quiet: say nothing.
        what: is counted.
    """
    if quiet:
        return Silent()
    return Bar(what) if err().is_terminal else Lines(what)
