"""`neuronscope train`: a small network to study, from images to a checkpoint with its curves and report.

The flags of the training are the fields of `TrainSpec`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from PIL import Image

from neuronscope import Data, InputError, Run, StorageError, Trained, TrainSpec, duration, load_data, train
from neuronscope.faces.cli import console, options
from neuronscope.faces.cli.options import Option
from neuronscope.faces.cli.run import make_run, make_spec
from neuronscope.faces.outputs import Outputs, draw_page, prepare_folder

CHECKPOINT = "model.pt"
HISTORY = "history.csv"
CURVES = "curves.png"

_SPLITS_ON_DISK = ("folder", "imagenet")  # sources whose splits are whatever sub-folders there are
_CURVE_FIGURES = ("training_loss.png", "training_accuracy.png")

_DATA = (
    Option("data", "Images to train on, as NAME:PATH: see `neuronscope list data`.", table="data", short="-d"),
    Option("split", "Which part of them.", table="data", default="train, or all of them with --test-data"),
    Option("test_data", "Images to test on, as NAME:PATH.", table="data", default="another part of --data"),
    Option("test_split", "Which part of those.", table="data", default="the part not trained on"),
    Option("limit", "At most so many images of each, all classes evenly.", type=int, table="data", default="all"),
    *options.chosen(options.DATA, "on_error", "download"),
)


@dataclass(frozen=True)
class Training:
    """A training that has ended, with its files.

    Attributes:
        trained: the network.
        folder: where the files are.
        outputs: report, tables and figures.
    """

    trained: Trained
    folder: Path
    outputs: Outputs


def make_app() -> typer.Typer:
    """The command, with one flag for each field of `TrainSpec`."""
    return options.make_app(
        "train",
        run_train,
        train_options(),
        help="Train a small network to study: checkpoint, curves, accuracy of each class, confusion.",
        examples=(
            "neuronscope train --data digits --out runs/digits",
            "neuronscope train --data mnist:path/to/mnist --epochs 2 --seed 1",
            "neuronscope train --data cifar10:path/to/cifar --model subnet-cifar10 --out runs/cifar10",
        ),
        alone="helps",
    )


def train_options() -> tuple[Option, ...]:
    """All options of the command."""
    run = options.chosen(options.RUN, "out", "seed", "device", "dtype", "threads", "workers")
    return (*_DATA, *options.spec_options(TrainSpec, panel="Training"), *run, options.QUIET)


def run_train(flags: Mapping[str, Any]) -> None:
    """Do what the command line asks for.

    Raises:
        NeuronscopeError: whatever was wrong with the request.
    """
    known = {option.key: option for option in train_options()}
    own = {key: value for key, value in flags.items() if known[key].table == "study"}
    quiet = bool(flags.get("quiet"))
    spec = make_spec(TrainSpec, own)
    folder = prepare_folder(flags.get("out", Path("runs/train")))
    progress = console.progress(quiet=quiet)
    run = make_run({key: value for key, value in flags.items() if known[key].table == "run"}, progress=progress)
    done = execute(*make_data(flags, seed=run.seed), spec, run=run, progress=progress, folder=folder)
    trained = done.trained
    low, high = trained.accuracy_interval
    images = int(trained.confusion.sum())
    console.say(f"test accuracy  {trained.accuracy:.4f} [{low:.4f}, {high:.4f}] on {images:,} images")
    console.say(f"time           {duration(trained.seconds)}")
    console.say(f"network        {folder / CHECKPOINT}")
    source = flags.get("test_data", flags["data"])
    split = f" --split {flags['test_split']}" if "test_split" in flags else ""
    console.say(f"look into it   neuronscope run layers --model file:{folder / CHECKPOINT} --data {source}{split}")
    console.say(str(done.outputs.report.resolve()))


def make_data(given: Mapping[str, Any], *, seed: int) -> tuple[Data, Data]:
    """Images to train on and images to test on.

    Raises:
        InputError: none were named, no part is left to test on, or both are the same images.
    """
    if "data" not in given:
        message = "no images were named. Say --data NAME:PATH; the names: neuronscope list data"
        raise InputError(message)
    source, other = given["data"], given.get("test_data")
    alone = other is None and "test_split" not in given
    if alone and source.partition(":")[0] in _SPLITS_ON_DISK:
        message = (
            f"'{source}' does not say which of its images to test on: expected --test-data, or --test-split with the "
            "name of a sub-folder. Without images of their own, the accuracy would mean nothing"
        )
        raise InputError(message)
    shared = {key: given[key] for key in ("limit", "on_error", "download") if key in given}
    to_train = load_data(source, split=given.get("split", "train" if other is None else None), seed=seed, **shared)
    to_test = load_data(other or source, split=given.get("test_split"), seed=seed, **shared)
    if to_train.fingerprint == to_test.fingerprint:
        message = f"{to_train.name} is asked for both to train and to test on: give --test-data or --test-split"
        raise InputError(message)
    return to_train, to_test


def execute(
    to_train: Data, to_test: Data, spec: TrainSpec, *, run: Run, progress: console.Progress, folder: Path
) -> Training:
    """Train, then write checkpoint, history, curves and report.

    Raises:
        StorageError: something cannot be written; the checkpoint is written first.
    """

    def tell(row: Any) -> None:
        progress.tell(
            f"epoch {row.epoch}: loss {row.train_loss:.4f}, accuracy {row.train_accuracy:.4f}; "
            f"test loss {row.test_loss:.4f}, accuracy {row.test_accuracy:.4f}; {duration(row.seconds)}"
        )

    trained = train(to_train, to_test, spec, run=run, report=tell)
    trained.save(folder / CHECKPOINT)
    try:
        trained.history.to_csv(folder / HISTORY, index=False, lineterminator="\n")
    except OSError as error:
        message = f"cannot write {folder / HISTORY}: {error.strerror or error}. Choose another --out"
        raise StorageError(message) from error
    outputs = draw_page(trained.page(), folder, links=[(CHECKPOINT, CHECKPOINT), (HISTORY, HISTORY)])
    _beside([path for name in _CURVE_FIGURES for path in outputs.figures if path.name == name], folder / CURVES)
    return Training(trained, folder, outputs)


def _beside(pictures: Sequence[Path], target: Path) -> None:
    """Pictures next to one another as one."""
    images = [Image.open(path).convert("RGB") for path in pictures]
    if not images:
        return
    width, height = sum(image.width for image in images), max(image.height for image in images)
    whole = Image.new("RGB", (width, height), "white")
    left = 0
    for image in images:
        whole.paste(image, (left, 0))
        left += image.width
    whole.save(target)
