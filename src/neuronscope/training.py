"""Trains the small built-in networks, so that there is a network to look into before one brings one's own.

One recipe that works from a thousand digits to CIFAR-10: shuffled batches, Adam with a one-cycle learning rate, images
moved by a few pixels. The test images only ever measure; nothing is chosen by them, so the accuracy is an honest one.
What comes out is repeatable: the same data, spec, seed, thread count and versions give the same bits.

A share of the training images can be kept out to watch the training by (`TrainSpec.validation`). Nothing is chosen by
these either, but who tries several settings can compare them there and leave the test images for the end.

No general trainer: no checkpoints on the way, one device.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, UInt8
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn

from neuronscope.data.dataset import Data, class_counts
from neuronscope.data.loading import batches
from neuronscope.errors import DataError, InputError
from neuronscope.maths.resampling import wilson_interval
from neuronscope.models.builtin import BUILTIN_MODELS, Builtin
from neuronscope.models.checkpoints import save_checkpoint
from neuronscope.preprocessing import COLOUR, GREY, GREY_ALPHA, Preprocess
from neuronscope.run import Run
from neuronscope.views import Axis, Block, Chart, Page, Section, Series, Stat, Table

WINDOW = 100
"""Batches behind one point of the training curve and behind `stop_at`, as in the program of the MNIST viewer."""

CHANNELS = (32, 64, 128, 256)
"""Units of each block of `viewer-cnn`."""

LEGACY: dict[str, str] = {
    "raw-input": "feed pixels scaled to 0..1 without normalisation, as the networks of the sub-network experiments were"
}
"""What each named deviation brings back of the programs that the networks come from."""

_PRESENTATIONS = 16_000
"""Images shown in a short training; small data sets are shown more often."""

_MOST_EPOCHS = 40
_LEAST_EPOCHS = {GREY: 3, COLOUR: 10}

_PHOTO_SIDE = 64
"""Side of the input in pixels for images that come as files, of any size."""

_RISE = 0.25
"""Share of the training in which the learning rate of `one-cycle` rises; it falls in the rest."""

_FLOOR = 0.02
"""Where that rate starts and ends, as a share of its peak."""

_LOOK = 16  # image files looked at to tell grey from colour
_MANY_CLASSES = 20  # more would make the numbers in the confusion matrix unreadable


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TrainSpec:
    """Which network to train, and how.

    Example:
        >>> TrainSpec(channels=(8, 16), epochs=2).optimiser
        'adam'
    """

    model: Annotated[
        Literal["viewer-cnn", "subnet-mnist", "subnet-cifar10"], Field(description="which built-in network to train")
    ] = "viewer-cnn"
    channels: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...] | None,
        Field(description="units of each block of viewer-cnn; default: 32,64,128,256"),
    ] = None
    image: Annotated[
        int | None,
        Field(ge=1, description="side of viewer-cnn's input, pixels; default: that of the images, 64 for image files"),
    ] = None
    epochs: Annotated[
        int | None,
        Field(ge=1, description="times each image is shown; default: 16,000 / images, 3 to 40 (colour: 10 to 40)"),
    ] = None
    batch_size: Annotated[int, Field(ge=1, description="images in one step of the optimiser")] = 64
    optimiser: Annotated[
        Literal["adam", "rmsprop", "sgd"], Field(description="how gradients become steps; sgd has momentum 0.9")
    ] = "adam"
    learning_rate: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="size of the steps; the peak of a one-cycle schedule")
    ] = 2e-3
    schedule: Annotated[
        Literal["one-cycle", "constant"],
        Field(description="learning rate over time: up for a quarter and down again, or always the same"),
    ] = "one-cycle"
    weight_decay: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="pull of the weights to zero (decoupled for adam)")
    ] = 0.0
    augment: Annotated[
        Literal["none", "shift", "flip"] | None,
        Field(description="random moves of training images: shift by a few pixels, or flip and crop; default: shift for"
              " grey images, flip for colour"),
    ] = None  # fmt: skip
    validation: Annotated[
        float,
        Field(ge=0, lt=1, description="share of each class's training images kept out, to watch the training by"),
    ] = 0.0
    stop_at: Annotated[
        float | None,
        Field(gt=0, le=1, description="end once this share of the last 100 batches is right, as in the MNIST viewer"),
    ] = None
    legacy: Annotated[
        tuple[Literal["raw-input"], ...], Field(description="named deviations: raw-input leaves normalisation out")
    ] = ()


@dataclass(frozen=True)
class HistoryRow:
    """One point of the training curves.

    Attributes:
        iteration: batches so far, from the start of the training.
        epoch: which time the images are being shown, from 1.
        images: images shown so far.
        train_loss, train_accuracy: mean cross-entropy (nats) and share of right answers over the batches since the
            row before, on moved images and with dropout: the test figures are often better.
        test_loss, test_accuracy: the same over all test images; nan in rows within an epoch.
        learning_rate: of the last step.
        seconds: since the start, tests included.
        validation_loss, validation_accuracy: as those of the test, over the training images that were kept out; nan
            without such images, too.
    """

    iteration: int
    epoch: int
    images: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    learning_rate: float
    seconds: float
    validation_loss: float = np.nan
    validation_accuracy: float = np.nan


@dataclass(frozen=True)
class Trained:
    """A network that was trained, and how well it does.

    Attributes:
        module: the network, in eval mode, float32, on the CPU.
        options: arguments of its architecture.
        classes: class names.
        preprocess: how its input images are prepared.
        input_shape: (channels, height, width) of its input.
        history: one row each `WINDOW` batches of an epoch and at its end; columns as in `HistoryRow`, those of the
            validation only where images were kept out for it.
        confusion: test images of each true class (rows) by the class that the network gave (columns).
        seconds: wall time of training and tests.
        spec: what was asked for, with defaults filled in.
        trained_on, tested_on: names of the data.
    """

    module: nn.Module
    options: Mapping[str, Any]
    classes: tuple[str, ...]
    preprocess: Preprocess
    input_shape: tuple[int, int, int]
    history: pd.DataFrame
    confusion: Int[np.ndarray, "c c"]
    seconds: float
    spec: TrainSpec
    trained_on: str
    tested_on: str

    @property
    def accuracy(self) -> float:
        """Share of the test images that the network classifies rightly, 0 to 1."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of `accuracy`."""
        low, high = wilson_interval(np.array([np.trace(self.confusion)]), np.array([self.confusion.sum()]))
        return float(low[0]), float(high[0])

    @property
    def per_class(self) -> pd.DataFrame:
        """One row for each class: test images, right ones, accuracy with its 95 % Wilson interval, commonest error.

        Accuracy and interval are nan for a class without test images.
        """
        images, right = self.confusion.sum(axis=1), np.diagonal(self.confusion)
        low, high = wilson_interval(right, images)
        wrong = self.confusion - np.diag(right)
        taken_for = [self.classes[row.argmax()] if row.any() else "" for row in wrong]
        accuracy = np.divide(right, images, out=np.full(len(right), np.nan), where=images > 0)
        return pd.DataFrame(
            {
                "class": list(self.classes),
                "images": images,
                "right": right,
                "accuracy": accuracy,
                "low": low,
                "high": high,
                "taken_for": taken_for,
            }
        )

    def page(self) -> Page:
        """The training as a page: accuracy with interval, curves, accuracy of each class, confusion, tables."""
        return _page(self)

    def save(self, path: str | Path) -> None:
        """Write a checkpoint that `file:PATH` loads: architecture, classes, preprocessing and weights.

        Raises:
            StorageError: the file cannot be written.
        """
        save_checkpoint(
            path,
            architecture=f"builtin:{self.spec.model}",
            options=self.options,
            classes=self.classes,
            preprocess=self.preprocess,
            input_shape=self.input_shape,
            module=self.module,
        )


def train(
    train_data: Data,
    test_data: Data,
    spec: TrainSpec,
    *,
    run: Run,
    report: Callable[[HistoryRow], None] | None = None,
) -> Trained:
    """Train a built-in network on one set of images and measure it on another.

    Images in memory are trained from their array; image files are decoded again in each epoch, beside the network.
    PyTorch's global random state is left as it was found.

    Args:
        train_data: labelled images, at least one of each class.
        test_data: labelled images of the same classes. They are looked at after each epoch and decide nothing.
        spec: which network, and how.
        run: seed, device, threads, number format; its `batch_size` is that of the tests.
        report: told the row of the history at the end of each epoch.

    Raises:
        InputError: images without a label, a class without an image, other classes in the test data, options that do
            not fit the network, a share for validation that leaves no image on one side, or a loss that is no longer
            finite.
        DataError: an image file cannot be read and the data's `on_error` is `raise`.

    Example:
        >>> from neuronscope.data.sources import load_data
        >>> spec = TrainSpec(channels=(4, 8), epochs=1)
        >>> trained = train(load_data("digits:train", limit=200), load_data("digits", limit=100), spec, run=Run())
        >>> trained.confusion.sum(), trained.history["images"].tolist()
        (np.int64(100), [200])
    """
    _check_data(train_data, test_data)
    builtin = BUILTIN_MODELS[spec.model]
    options = _options(builtin, spec, train_data)
    input_shape = builtin.input_shape(options)
    preprocess = builtin.preprocess(options)
    if "raw-input" in spec.legacy:
        preprocess = replace(preprocess, mean=(), std=())
    shown, watched = _parts(train_data, spec, run=run)
    spec = _filled(spec, options, images=len(shown), channels=preprocess.channels)
    with run.scope(), _seeded(run):
        start = time.perf_counter()
        # Random weights are drawn on the CPU: the same ones for every device. Convolutions run faster channels-last.
        module = builtin.build(**options).to(run.torch_device, run.torch_dtype).to(memory_format=torch.channels_last)
        learner = _Learner(
            module=module,
            spec=spec,
            train=_Images.of(shown, preprocess, input_shape, run),
            validation=None if watched is None else _Images.of(watched, preprocess, input_shape, run),
            test=_Images.of(test_data, preprocess, input_shape, run),
            run=run,
            start=start,
        )
        rows, confusion = learner.learn(report or _unheard)
    return Trained(
        module=module.to("cpu", torch.float32).to(memory_format=torch.contiguous_format).eval(),
        options=options,
        classes=train_data.classes,
        preprocess=preprocess,
        input_shape=input_shape,
        history=_history(rows, watched=watched is not None),
        confusion=confusion,
        seconds=time.perf_counter() - start,
        spec=spec,
        trained_on=train_data.name,
        tested_on=test_data.name,
    )


def learning_rate_at(step: int, *, steps: int, spec: TrainSpec) -> float:
    """The learning rate of a step.

    `one-cycle` (Smith & Topin 2019, "Super-convergence") rises in a line to `spec.learning_rate` at a quarter of the
    training and falls on a cosine; it never goes below a fiftieth of the peak. The momentum stays as it is.

    Args:
        step: from 0.
        steps: of the whole training.
        spec: peak and schedule.

    Example:
        >>> spec = TrainSpec(learning_rate=1.0)
        >>> [round(learning_rate_at(step, steps=8, spec=spec), 3) for step in range(8)]
        [0.02, 0.5, 1.0, 0.933, 0.75, 0.5, 0.25, 0.067]
    """
    if spec.schedule == "constant":
        return spec.learning_rate
    done = step / steps
    share = done / _RISE if done < _RISE else (1 + np.cos(np.pi * (done - _RISE) / (1 - _RISE))) / 2
    return spec.learning_rate * max(float(share), _FLOOR)


def _parts(data: Data, spec: TrainSpec, *, run: Run) -> tuple[Data, Data | None]:
    """The images to train on and those to watch by: that share of every class, drawn without regard to their order.

    Raises:
        InputError: the share is so small that it takes no image, or so large that a class keeps none.
    """
    if not spec.validation:
        return data, None
    rng = run.generator("train", "validation")
    kept_out = np.zeros(len(data), dtype=bool)
    for label in range(len(data.classes)):
        rows = rng.permutation(np.flatnonzero(data.labels == label))
        kept_out[rows[: round(spec.validation * len(rows))]] = True
    shown, watched = data.take(np.flatnonzero(~kept_out)), data.take(np.flatnonzero(kept_out))
    if not len(watched) or not class_counts(shown).all():
        message = (
            f"--validation {spec.validation:g} of {data.name} ({len(data):,} images in {len(data.classes)} classes) "
            f"keeps {len(watched):,} images out: expected at least one, and one of each class left to train on. "
            "Give another share, or more images"
        )
        raise InputError(message)
    return replace(shown, name=data.name), watched


def _history(rows: Sequence[HistoryRow], *, watched: bool) -> pd.DataFrame:
    frame = pd.DataFrame([asdict(row) for row in rows])
    return (
        frame if watched else frame.drop(columns=[column for column in frame if str(column).startswith("validation_")])
    )


def _unheard(row: HistoryRow) -> None:
    """Nobody listens."""


@contextmanager
def _seeded(run: Run) -> Iterator[None]:
    """PyTorch's own random numbers (first weights, dropout) follow the run's seed, and only in here."""
    seed = int(run.generator("train", "torch").integers(2**63))
    devices = []
    if run.torch_device.type == "cuda":
        number = run.torch_device.index
        devices.append(torch.cuda.current_device() if number is None else number)
    # Not torch.manual_seed: it would reseed devices that are not put back.
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@dataclass(frozen=True)
class _Images:
    """The images of a data set, ready to be moved about and normalised.

    Attributes:
        labels: on the run's device.
        frames: what the network sees before normalisation, on that device; None for image files.
    """

    data: Data
    preprocess: Preprocess
    labels: Int[Tensor, "n"]
    frames: UInt8[Tensor, "n c h w"] | None
    workers: int

    @classmethod
    def of(cls, data: Data, preprocess: Preprocess, input_shape: tuple[int, int, int], run: Run) -> _Images:
        """Bring a data set to the device."""
        frames = data.pixels
        if frames is not None and tuple(frames.shape[1:]) != input_shape:
            frames = torch.stack([preprocess.frame(raw) for raw in frames])
        return cls(
            data=data,
            preprocess=preprocess,
            labels=run.place(torch.from_numpy(data.labels.astype(np.int64))),
            frames=None if frames is None else run.place(frames),
            workers=run.workers,
        )

    def __len__(self) -> int:
        return len(self.data)

    def batches(
        self, order: Int[np.ndarray, "n"], *, size: int
    ) -> Generator[tuple[UInt8[Tensor, "b c h w"], Int[Tensor, "b"]], None, None]:
        """Frames and labels in a given order; images that cannot be read are left out where the data says so."""
        if self.frames is not None:
            for start in range(0, len(order), size):
                rows = torch.from_numpy(order[start : start + size]).to(self.labels.device)
                yield self.frames[rows], self.labels[rows]
            return
        # Values 0 to 1 and back again, exactly: a batch holds floats, but moves and normalisation start from pixels.
        plain = replace(self.preprocess, mean=(), std=())
        decoded = batches(self.data.take(order), plain.batch, batch_size=size, workers=self.workers)
        with closing(decoded):
            for batch in decoded:
                device = self.labels.device
                yield plain.pixels(batch.image).to(device), batch.label.to(device)


@dataclass(frozen=True)
class _Learner:
    """A training under way; `start` is in seconds of `time.perf_counter`."""

    module: nn.Module
    spec: TrainSpec
    train: _Images
    test: _Images
    validation: _Images | None
    run: Run
    start: float

    def learn(self, report: Callable[[HistoryRow], None]) -> tuple[list[HistoryRow], Int[np.ndarray, "c c"]]:
        """The whole training: its history and the last confusion matrix."""
        progress = self.run.progress
        watched = len(self.validation) if self.validation is not None else 0
        progress.start("training", self._epochs * (len(self.train) + watched + len(self.test)))
        try:
            return self._learn(report)
        finally:
            progress.finish()

    @property
    def _epochs(self) -> int:
        return self.spec.epochs or 1

    def _learn(self, report: Callable[[HistoryRow], None]) -> tuple[list[HistoryRow], Int[np.ndarray, "c c"]]:
        optimiser = _optimiser(self.module, self.spec)
        orders, moves = self.run.generator("train", "order"), self.run.generator("train", "augment")
        steps = self._epochs * -(-len(self.train) // self.spec.batch_size)
        rows: list[HistoryRow] = []
        tally, recent = _Tally(), deque[tuple[int, int]](maxlen=WINDOW)
        iteration = images = 0
        rate = 0.0
        confusion = np.zeros((0, 0), dtype=np.int64)
        for epoch in range(1, self._epochs + 1):
            reached = False
            self.module.train()
            with closing(
                self.train.batches(orders.permutation(len(self.train)), size=self.spec.batch_size)
            ) as shuffled:
                for number, (frames, labels) in enumerate(shuffled):
                    # A row within an epoch is written one batch late, so that none stands just before the epoch's own.
                    if number and number % WINDOW == 0:
                        rows.append(self._row(tally, iteration, epoch, images, rate))
                        tally = _Tally()
                    rate = learning_rate_at(iteration, steps=steps, spec=self.spec)
                    moved = moved_frames(frames, augment=self.spec.augment or "none", rng=moves)
                    loss, right = self._step(optimiser, moved, labels, rate=rate, where=(iteration + 1, epoch))
                    iteration, images = iteration + 1, images + len(labels)
                    tally = tally.plus(loss, right, len(labels))
                    recent.append((right, len(labels)))
                    self.run.progress.advance(len(labels))
                    if iteration % WINDOW == 0 and _share(recent) >= (self.spec.stop_at or np.inf):
                        reached = True
                        break
            if not tally.images:
                message = f"no image of {self.train.data.name} can be read: nothing to train on. Check the files"
                raise DataError(message)
            row = self._row(tally, iteration, epoch, images, rate)
            if self.validation is not None:
                loss, cells = self._test(self.validation, where=(iteration, epoch))
                row = replace(row, validation_loss=loss, validation_accuracy=_right(cells))
            test_loss, confusion = self._test(self.test, where=(iteration, epoch))
            row = replace(
                row,
                test_loss=test_loss,
                test_accuracy=_right(confusion),
                seconds=time.perf_counter() - self.start,
            )
            tally = _Tally()
            rows.append(row)
            report(row)
            if reached:
                break
        return rows, confusion

    def _step(
        self,
        optimiser: torch.optim.Optimizer,
        frames: UInt8[Tensor, "b c h w"],
        labels: Int[Tensor, "b"],
        *,
        rate: float,
        where: tuple[int, int],
    ) -> tuple[float, int]:
        """One step downhill: summed loss and number of right answers before it."""
        for group in optimiser.param_groups:
            group["lr"] = rate
        logits = self.module(self._input(frames))
        loss = nn.functional.cross_entropy(logits, labels)
        value = float(loss.detach())
        self._refuse_divergence(value, where=where)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return value * len(labels), int((logits.detach().argmax(1) == labels).sum())

    def _test(self, held: _Images, *, where: tuple[int, int]) -> tuple[float, Int[np.ndarray, "c c"]]:
        """Mean loss and confusion matrix of images that are not trained on."""
        self.module.eval()
        classes = len(held.data.classes)
        counts = torch.zeros(classes * classes, dtype=torch.int64)
        total, images = 0.0, 0
        ordered = held.batches(np.arange(len(held)), size=self.run.batch_size)
        with torch.inference_mode(), closing(ordered):
            for frames, labels in ordered:
                logits = self.module(self._input(frames))
                total += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
                cells = (labels * classes + logits.argmax(1)).cpu()
                counts += torch.bincount(cells, minlength=classes * classes)
                images += len(labels)
                self.run.progress.advance(len(labels))
        if not images:
            message = f"no image of {held.data.name} can be read: nothing to test on. Check the files"
            raise DataError(message)
        self._refuse_divergence(total, where=where)
        return total / images, counts.reshape(classes, classes).numpy()

    def _input(self, frames: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        image = self.run.place(self.train.preprocess.normalise(frames))
        return image.contiguous(memory_format=torch.channels_last)

    def _refuse_divergence(self, loss: float, *, where: tuple[int, int]) -> None:
        if not np.isfinite(loss):
            message = (
                f"training diverged: the loss is {loss} at iteration {where[0]} (epoch {where[1]}), where a finite "
                f"number was expected. Give a --learning-rate below {self.spec.learning_rate:g}"
            )
            raise InputError(message)

    def _row(self, tally: _Tally, iteration: int, epoch: int, images: int, rate: float) -> HistoryRow:
        return HistoryRow(
            iteration=iteration,
            epoch=epoch,
            images=images,
            train_loss=tally.loss / tally.images,
            train_accuracy=tally.right / tally.images,
            test_loss=np.nan,
            test_accuracy=np.nan,
            learning_rate=rate,
            seconds=time.perf_counter() - self.start,
        )


@dataclass(frozen=True)
class _Tally:
    """Sums over the batches since the last row of the history."""

    loss: float = 0.0
    right: int = 0
    images: int = 0

    def plus(self, loss: float, right: int, images: int) -> _Tally:
        return _Tally(self.loss + loss, self.right + right, self.images + images)


def _right(confusion: Int[np.ndarray, "c c"]) -> float:
    """Share of right answers in a confusion matrix."""
    return float(np.trace(confusion) / confusion.sum())


def _share(recent: deque[tuple[int, int]]) -> float:
    """Share of right answers over some batches."""
    return sum(right for right, _ in recent) / sum(images for _, images in recent)


def moved_frames(
    frames: UInt8[Tensor, "n c h w"], *, augment: Literal["none", "shift", "flip"], rng: np.random.Generator
) -> UInt8[Tensor, "n c h w"]:
    """Each image moved by a random number of whole pixels, black coming in at the edges.

    Args:
        frames: images, as the network sees them.
        augment: `none`; `shift` by up to 1/14 of the shorter side (2 of MNIST's 28 pixels); `flip` left and right with
            probability 1/2 and shift by up to 1/8 (4 of CIFAR-10's 32 pixels).
        rng: where the moves come from.

    Example:
        >>> dot = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
        >>> dot[0, 0, 14, 14] = 255
        >>> moved = moved_frames(dot, augment="shift", rng=np.random.default_rng(0))
        >>> moved.shape, int(moved.sum())
        (torch.Size([1, 1, 28, 28]), 255)
    """
    if augment == "none":
        return frames
    n, _, height, width = frames.shape
    most = round(min(height, width) / (14 if augment == "shift" else 8))
    offsets = torch.from_numpy(rng.integers(0, 2 * most + 1, (2, n, 1)))
    rows, columns = offsets[0] + torch.arange(height), offsets[1] + torch.arange(width)
    if augment == "flip":
        mirrored = torch.from_numpy(rng.random((n, 1)) < 1 / 2)
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = nn.functional.pad(frames, (most, most, most, most)).permute(0, 2, 3, 1)
    device = frames.device
    image = torch.arange(n, device=device)[:, None, None]
    return padded[image, rows.to(device)[:, :, None], columns.to(device)[:, None, :]].permute(0, 3, 1, 2)


def _optimiser(module: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    weights = module.parameters()
    if spec.optimiser == "sgd":
        return torch.optim.SGD(weights, momentum=0.9, **common)
    if spec.optimiser == "rmsprop":
        return torch.optim.RMSprop(weights, alpha=0.9, eps=1e-8, **common)  # as the sub-network experiments have it
    return torch.optim.AdamW(weights, **common)


def _check_data(train_data: Data, test_data: Data) -> None:
    """Refuse data that no classifier can be trained or measured on."""
    for data in (train_data, test_data):
        unknown = int((data.labels < 0).sum())
        if len(data) == 0 or unknown:
            came = f"{unknown:,} of {len(data):,} images without a label" if len(data) else "no images"
            message = (
                f"{data.name} has {came}: training needs a label for every image. "
                "Give a data set with labels, for a folder one sub-folder for each class"
            )
            raise InputError(message)
    if len(train_data.classes) < 2:  # noqa: PLR2004 one class leaves nothing to tell apart
        message = (
            f"{train_data.name} has {len(train_data.classes)} class: expected two or more to tell apart. "
            "Give a data set with more classes"
        )
        raise InputError(message)
    if train_data.classes != test_data.classes:
        message = (
            f"{train_data.name} and {test_data.name} have different classes: {_some(train_data.classes)} and "
            f"{_some(test_data.classes)}; expected the same names in the same order. Give two parts of one data set"
        )
        raise InputError(message)
    counts = class_counts(train_data)
    empty = [train_data.classes[c] for c in np.flatnonzero(counts == 0)]
    if empty:
        message = (
            f"{train_data.name} has no image of {_some(empty)}: training needs at least one of each of its "
            f"{len(counts)} classes. Add images, or give a data set without these classes"
        )
        raise InputError(message)


def _some(names: list[str] | tuple[str, ...]) -> str:
    """How many classes, and the first few of them."""
    shown = ", ".join(repr(name) for name in names[:3])
    noun = "class" if len(names) == 1 else "classes"
    return f"{len(names)} {noun} ({shown}{', ...' if len(names) > len(names[:3]) else ''})"


def _options(builtin: Builtin, spec: TrainSpec, data: Data) -> dict[str, Any]:
    """Arguments of the architecture: those asked for, with input and classes taken from the data."""
    classes = len(data.classes)
    if builtin.for_input is None:
        for option, value in (("channels", spec.channels), ("image", spec.image)):
            if value is not None:
                message = (
                    f"{option} is given as {value}, but the layers and input of {spec.model} are fixed: only "
                    f"viewer-cnn takes it. Leave --{option} out, or say --model viewer-cnn"
                )
                raise InputError(message)
        return {"classes": classes}
    if data.pixels is not None:
        found, *sides = data.pixels.shape[1:]
        colour, side = found > GREY_ALPHA, spec.image or min(sides)
    else:
        colour, side = _any_colour(data), spec.image or _PHOTO_SIDE
    channels = spec.channels or CHANNELS
    if side < 2 ** len(channels):
        message = (
            f"{spec.model} halves its input {len(channels)} times: expected images of {2 ** len(channels)} pixels or "
            f"more, got {side}. Enlarge them with --image {2 ** len(channels)}, or give fewer --channels"
        )
        raise InputError(message)
    return {
        "channels": channels,
        "classes": classes,
        **builtin.for_input((COLOUR if colour else GREY, side, side)),
    }


def _any_colour(data: Data) -> bool:
    """Whether there is colour in the first few images, spread over the data."""
    for row in np.unique(np.linspace(0, len(data) - 1, _LOOK).astype(np.int64)):
        try:
            if data.read(int(row)).shape[0] > GREY_ALPHA:
                return True
        except DataError:
            if data.on_error == "raise":
                raise
    return False


def _filled(spec: TrainSpec, options: Mapping[str, Any], *, images: int, channels: int) -> TrainSpec:
    """The spec with the defaults that depend on the data."""
    epochs = min(max(round(_PRESENTATIONS / images), _LEAST_EPOCHS[channels]), _MOST_EPOCHS)
    return replace(
        spec,
        channels=options.get("channels"),
        image=options.get("image"),
        epochs=spec.epochs or epochs,
        augment=spec.augment or ("shift" if channels == GREY else "flip"),
    )


def _page(trained: Trained) -> Page:
    low, high = trained.accuracy_interval
    images, right = int(trained.confusion.sum()), int(np.trace(trained.confusion))
    shown = int(trained.history["images"].iloc[-1])
    parameters = sum(weights.numel() for weights in trained.module.parameters())
    blocks: list[Block] = [
        Stat("Test accuracy", trained.accuracy, low=low, high=high, note=f"{right:,} of {images:,} images"),
        Stat("Training time", round(trained.seconds, 1), unit="s", note=f"{shown:,} images shown"),
        Stat("Parameters", parameters, note=f"{trained.spec.model}, {len(trained.classes)} classes"),
        Section("Learning", "Training figures are taken on moved images with dropout on, so the test may do better."),
        *_curves(trained.history),
        Section("Test images", "Whiskers and columns low, high: 95 % Wilson intervals."),
        *_classes(trained),
        Table(
            "history",
            "Training, step by step",
            trained.history,
            help={
                "iteration": "batches so far",
                "epoch": "which time the images are being shown, from 1",
                "images": "images shown so far",
                "train_loss": "mean cross-entropy of the batches since the row before, nats",
                "train_accuracy": "share of right answers in these batches, 0 to 1",
                "test_loss": "mean cross-entropy of all test images, nats; empty within an epoch",
                "test_accuracy": "share of right answers to all test images, 0 to 1; empty within an epoch",
                "learning_rate": "of the last step",
                "seconds": "since the start, tests included",
                **(
                    {
                        "validation_loss": "mean cross-entropy of the training images that were kept out, nats",
                        "validation_accuracy": "share of right answers to these, 0 to 1",
                    }
                    if trained.spec.validation
                    else {}
                ),
            },
            formats={"seconds": ".1f"},
        ),
    ]
    summary = (
        f"{trained.spec.model} trained on {trained.trained_on} and tested on {trained.tested_on}: "
        f"{trained.accuracy:.2%} of {images:,} test images right."
    )
    return Page("Training", summary, tuple(blocks))


def _curves(history: pd.DataFrame) -> tuple[Chart, Chart]:
    """Loss and accuracy over the iterations."""
    tested = history[history["test_loss"].notna()]
    watched = [("validation", "validation", tested)] if "validation_loss" in history else []

    def chart(quantity: str, title: str, y: Axis) -> Chart:
        curves = tuple(
            Series(name, rows[f"{part}_{quantity}"].to_numpy(float), x=rows["iteration"].to_numpy(float))
            for part, name, rows in (("train", "training", history), *watched, ("test", "test", tested))
        )
        return Chart(f"training_{quantity}", title, "line", curves, Axis("Iteration", "batches"), y)

    return (
        chart("loss", "Loss", Axis("Cross-entropy", "nats")),
        chart("accuracy", "Accuracy", Axis("Share of right answers", limits=(0.0, 1.0))),
    )


def _classes(trained: Trained) -> tuple[Chart, Chart, Table]:
    """Accuracy of each class, and what is taken for what."""
    frame = trained.per_class
    bars = Series("accuracy", frame["accuracy"].to_numpy(), low=frame["low"].to_numpy(), high=frame["high"].to_numpy())
    names = trained.classes
    return (
        Chart(
            "class_accuracy",
            "Accuracy of each class",
            "bar",
            (bars,),
            Axis("Class", ticks=names),
            Axis("Share of right answers", limits=(0.0, 1.0)),
        ),
        Chart(
            "confusion",
            "Confusion",
            "heatmap",
            (Series("images", trained.confusion),),
            Axis("Given class", ticks=names),
            Axis("True class", ticks=names),
            value=Axis("Test images"),
            annotate=len(names) <= _MANY_CLASSES,
            text="A row holds the test images of one true class; off the diagonal are the errors.",
        ),
        Table(
            "classes",
            "Classes",
            frame,
            help={
                "class": "name of the true class",
                "images": "test images of the class",
                "right": "how many of them the network gets right",
                "accuracy": "right / images, 0 to 1",
                "low": "lower end of the 95 % Wilson interval of the accuracy",
                "high": "upper end of that interval",
                "taken_for": "the class most often given instead; empty without errors",
            },
        ),
    )
