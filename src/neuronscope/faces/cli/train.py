"""`neuronscope train`: a small network to study, from images to a checkpoint with its curves and report.

The flags of the training are the fields of `TrainSpec`. They may stand in the table [train] of a recipe, and what a
checkpoint was trained with stands beside it in that form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import typer
from PIL import Image

from neuronscope import (
    Data,
    InputError,
    Run,
    StorageError,
    Trained,
    TrainSpec,
    __version__,
    duration,
    load_data,
    locked,
    train,
)
from neuronscope.faces.cli import console, options, recipes
from neuronscope.faces.cli.making import make_run, make_spec
from neuronscope.faces.cli.options import Option
from neuronscope.faces.outputs import Outputs, draw_page, prepare_folder

CHECKPOINT = "model.pt"
HISTORY = "history.csv"
CURVES = "curves.png"
RECORD = "train.toml"
"""File beside a checkpoint that says what it was trained with."""

FOLDER = Path("runs/train")

_TRAINED = "trained"  # table of the record with what only the training knew: fingerprints of its images

_SPLITS_ON_DISK = ("folder", "imagenet")  # sources whose splits are whatever sub-folders there are
_CURVE_FIGURES = ("training_loss.png", "training_accuracy.png")

RECIPE = Option("recipe", "A TOML file with a table \\[train] of these options; flags win over it.", type=Path)

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
            "neuronscope train --recipe recipes/importance-mnist.toml",
        ),
        alone="helps",
    )


def train_options() -> tuple[Option, ...]:
    """All options of the command."""
    run = options.chosen(options.RUN, "out", "seed", "device", "dtype", "threads", "workers")
    return (*_DATA, *options.spec_options(TrainSpec, panel="Training"), *run, RECIPE, options.QUIET)


def table_options() -> tuple[Option, ...]:
    """The options of the command as the keys of the table [train]."""
    return tuple(replace(option, table="train") for option in train_options() if option.table)


def run_train(flags: Mapping[str, Any]) -> None:
    """Do what the command line asks for.

    Raises:
        NeuronscopeError: whatever was wrong with the request.
    """
    given = {key: value for key, value in flags.items() if key not in ("recipe", "quiet")}
    if "recipe" in flags:
        given = read_table(flags["recipe"]) | given
    folder = prepare_folder(folder_of(given))
    with locked(folder):
        done = run_training(given, quiet=bool(flags.get("quiet")))
    trained = done.trained
    low, high = trained.accuracy_interval
    images = int(trained.confusion.sum())
    console.say(f"test accuracy  {trained.accuracy:.4f} [{low:.4f}, {high:.4f}] on {images:,} images")
    console.say(f"time           {duration(trained.seconds)}")
    console.say(f"network        {folder / CHECKPOINT}")
    source = given.get("test_data", given["data"])
    split = f" --split {given['test_split']}" if "test_split" in given else ""
    console.say(f"look into it   neuronscope run layers --model file:{folder / CHECKPOINT} --data {source}{split}")
    console.say(str(done.outputs.report.resolve()))


def read_table(path: Path) -> dict[str, Any]:
    """The table [train] of a recipe, or of the record beside a checkpoint.

    Raises:
        InputError: there is none, or the file cannot be read.
        UnknownName: a table or key that does not exist.
    """
    others = {*recipes.TABLES, _TRAINED} - {"train"}
    table = recipes.read_recipe(path, options=table_options(), study="", others=others)["train"]
    if not table:
        message = (
            f"the recipe {path} has no table [train]: expected one with the options of `neuronscope train`, such as "
            "data, model and epochs. Add it, or give the options as flags"
        )
        raise InputError(message)
    return table


def folder_of(given: Mapping[str, Any]) -> Path:
    """Where a training writes to."""
    return Path(given.get("out", FOLDER))


def full_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that decides a training, defaults included, as the table [train]; what is None is left to the data.

    Raises:
        InputError: a value that the spec does not take.
    """
    spec = asdict(make_spec(TrainSpec, _of_table(given, "study")))
    settings = {**given, **spec, "seed": given.get("seed", Run().seed), "dtype": given.get("dtype", Run().dtype)}
    settings["out"] = str(folder_of(given))
    return {option.key: settings[option.key] for option in table_options() if settings.get(option.key) is not None}


def run_training(given: Mapping[str, Any], *, quiet: bool) -> Training:
    """Train as the options say, into a folder that is there and locked, with a record of the settings.

    Raises:
        NeuronscopeError: whatever was wrong with the request.
    """
    spec = make_spec(TrainSpec, _of_table(given, "study"))
    progress = console.progress(quiet=quiet)
    run = make_run(_of_table(given, "run"), progress=progress)
    to_train, to_test = make_data(given, seed=run.seed)
    return execute(
        to_train, to_test, spec, run=run, progress=progress, folder=folder_of(given), settings=full_settings(given)
    )


def _of_table(given: Mapping[str, Any], table: str) -> dict[str, Any]:
    """The options that belong to the training itself (study), or to its circumstances (run)."""
    keys = {option.key for option in train_options() if option.table == table}
    return {key: value for key, value in given.items() if key in keys}


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
    to_train: Data,
    to_test: Data,
    spec: TrainSpec,
    *,
    run: Run,
    progress: console.Progress,
    folder: Path,
    settings: Mapping[str, Any] | None = None,
) -> Training:
    """Train, then write checkpoint, record, history, curves and report.

    Args:
        to_train: images to train on.
        to_test: images to test on.
        spec: which network, and how.
        run: circumstances.
        progress: told of each epoch.
        folder: where to; it is there.
        settings: the whole training as `full_settings` gives it; None leaves no record.

    Raises:
        StorageError: something cannot be written; the checkpoint is written first.
    """

    def tell(row: Any) -> None:
        progress.tell(
            f"epoch {row.epoch}: loss {row.train_loss:.4f}, accuracy {row.train_accuracy:.4f}; "
            f"test loss {row.test_loss:.4f}, accuracy {row.test_accuracy:.4f}; {duration(row.seconds)}"
        )

    trained = train(to_train, to_test, spec, run=run, report=tell)
    # A record of the network before must not vouch for this one, even when the next step never comes.
    (folder / RECORD).unlink(missing_ok=True)
    trained.save(folder / CHECKPOINT)
    if settings is not None:
        tables = {
            "train": settings,
            _TRAINED: {"train_images": to_train.fingerprint, "test_images": to_test.fingerprint},
        }
        title = f"neuronscope {__version__}. Repeat with: neuronscope train --recipe {folder / RECORD}"
        recipes.write_recipe(folder / RECORD, tables, title=title)
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
