"""`neuronscope fetch`: named data and weights onto this machine, with progress in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuronscope import file_size
from neuronscope.faces.cli import console

if TYPE_CHECKING:
    from neuronscope import Fetched, RemoteFile

EXAMPLES = console.examples(
    "neuronscope fetch mnist",
    "neuronscope fetch resnet18-5c106cde.pth --to weights",
    "neuronscope fetch imagenet --to /data/imagenet --dry-run",
    "neuronscope fetch --list",
)

_STATES = {
    "absent": "to fetch",
    "partial": "to continue, {held} are there",
    "there": "there already",
    "other": "a file of that name with another content is there: it will not be overwritten",
    "fetched": "fetched",
}


def fetch(
    name: Annotated[
        str | None,
        typer.Argument(help="What to fetch: see --list. Weights also by file name.", show_default=False),
    ] = None,
    *,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Folder to put it into.", show_default="data/NAME, or torch's folder of weights"),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would be fetched, from where and to where."),
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
    progress = console.progress(quiet=quiet, what="bytes")
    done = ns.fetch(name, to=to, action="plan" if dry_run else "fetch", progress=progress)
    console.say(f"what     {done.item.what}")
    console.say(f"licence  {done.item.licence} ({done.item.page})")
    if done.item.account == "kaggle":
        console.say(f"account  your own at kaggle.com, with the rules accepted at {done.item.page}")
    console.say(f"folder   {done.folder.absolute()}")
    _say_files(done, urls=dry_run)
    console.say("nothing was fetched: leave --dry-run out to do so" if dry_run else f"next     {done.then}")


def _list() -> None:
    from neuronscope import FETCHABLE

    lines = [
        (
            item.name,
            size_text(item.files),
            item.files[0].name if item.kind == "weights" else "",
            item.what + (" (with your own Kaggle account)" if item.account == "kaggle" else ""),
        )
        for item in FETCHABLE.values()
    ]
    console.rows("", ("name", "size", "file", "what"), lines, right=("size",))


def _say_files(done: Fetched, *, urls: bool) -> None:
    for state in done.files:
        status = _STATES[state.state].format(held=file_size(state.held))
        here = state.state in ("there", "fetched") and state.held
        size = file_size(state.held) if here else size_text([state.file])
        console.say(f"file     {state.file.name}  {size}  {status}")
        if urls:
            for url in state.file.urls:
                console.say(f"         from {url}")
        if state.file.name in done.unpacked:
            out = done.unpacked[state.file.name]
            console.say(f"         unpacked {out.files:,} files, {file_size(out.size)}; the archive may be removed")


def size_text(files: Sequence[RemoteFile]) -> str:
    """The size of files together, as far as their table knows it.

    Example:
        >>> from neuronscope import FETCHABLE
        >>> [size_text(FETCHABLE[name].files) for name in ("resnet18-v1", "vgg11-v1", "imagenet")]
        ['46.8 MB', 'about 531.5 MB', 'size unknown']
    """
    sizes = [file.about if file.size is None else file.size for file in files]
    if None in sizes:
        return "size unknown"
    text = file_size(sum(filter(None, sizes)))
    return text if all(file.size is not None for file in files) else f"about {text}"
