"""Training: what comes out is good, repeatable, complete on its page, loads again, and refuses what cannot work."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from neuronscope.data.dataset import Data, data_from_arrays
from neuronscope.data.sources import load_data
from neuronscope.errors import DataError, InputError
from neuronscope.models.sources import load_model
from neuronscope.run import Run
from neuronscope.training import (
    HistoryRow,
    Trained,
    TrainSpec,
    learning_rate_at,
    moved_frames,
    train,
)
from neuronscope.views import Chart, Stat, Table

RUN = Run(seed=0, device="cpu", threads=1, workers=2)
SMALL = TrainSpec(channels=(4, 8), epochs=2, batch_size=8)


def blocks(count: int = 24, *, channels: int = 1, side: int = 8, classes: int = 2, seed: int = 0) -> Data:
    """Noise with one bright row of pixels, whose place is the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pixels = rng.integers(0, 80, (count, channels, side, side), dtype=np.uint8)
    pixels[np.arange(count), :, 1 + 2 * labels] = 250
    return data_from_arrays(torch.from_numpy(pixels), labels, name=f"blocks{seed}", classes=tuple("abcdef"[:classes]))


def trained(spec: TrainSpec = SMALL, *, run: Run = RUN) -> Trained:
    """A quick training on bright rows."""
    return train(blocks(), blocks(12, seed=1), spec, run=run)


def weights(result: Trained) -> list[torch.Tensor]:
    """All tensors of a trained network."""
    return list(result.module.state_dict().values())


@dataclass
class Counting:
    """A progress that adds up what it hears."""

    calls: list[str] = field(default_factory=list)
    total: int = 0
    done: int = 0

    def start(self, name: str, total: int) -> None:
        """Note the start."""
        self.calls.append(f"start {name}")
        self.total = total

    def advance(self, images: int) -> None:
        """Count the images."""
        self.done += images

    def finish(self) -> None:
        """Note the end."""
        self.calls.append("finish")


def test_digits() -> None:
    """The default network learns real handwritten digits: at least 97 % of the images it was not trained on."""
    result = train(load_data("digits:train"), load_data("digits"), TrainSpec(), run=RUN)
    assert result.spec.channels == (32, 64, 128, 256)
    assert result.confusion.sum() == 719
    assert result.accuracy >= 0.97
    assert result.accuracy_interval[0] < result.accuracy < result.accuracy_interval[1]


def test_mnist(test_data: Path) -> None:
    """Two epochs over 6,000 images of MNIST give more than 95 % of 1,000 test images."""
    source = f"mnist:{test_data / 'mnist'}"
    shown, held_out = load_data(source, split="train", limit=6000), load_data(source, limit=1000)
    result = train(shown, held_out, TrainSpec(epochs=2, batch_size=32), run=RUN)
    assert result.accuracy > 0.95


def test_repeatable() -> None:
    """The same seed gives the same bits, whatever random numbers were drawn before; another seed gives others."""
    torch.manual_seed(1)
    first = trained()
    torch.manual_seed(2)
    again, other = trained(), trained(run=replace(RUN, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(again), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(first), weights(other), strict=True))
    assert first.history.drop(columns="seconds").equals(again.history.drop(columns="seconds"))


def test_random_state_is_left_alone() -> None:
    """Training draws nothing from the random numbers of the rest of the program, and keeps its thread count."""
    torch.manual_seed(3)
    before, numpy_before, threads = torch.get_rng_state(), np.random.get_state()[1], torch.get_num_threads()  # noqa: NPY002 the global state is what is looked at
    trained(run=replace(RUN, threads=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002 as above
    assert torch.get_num_threads() == threads


def test_test_images_decide_nothing() -> None:
    """Other test images give the same network: they are measured on and never chosen by."""
    one, two = (train(blocks(), blocks(count, seed=seed), SMALL, run=RUN) for count, seed in ((12, 1), (6, 2)))
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))


def test_history() -> None:
    """Each epoch ends in a row with test figures; the last one agrees with the confusion matrix."""
    heard: list[HistoryRow] = []
    result = train(blocks(), blocks(12, seed=1), replace(SMALL, epochs=3), run=RUN, report=heard.append)
    assert result.history["iteration"].tolist() == [3, 6, 9]
    assert result.history["epoch"].tolist() == [1, 2, 3]
    assert result.history["images"].tolist() == [24, 48, 72]
    assert result.history["test_accuracy"].iloc[-1] == result.accuracy
    assert [row.iteration for row in heard] == [3, 6, 9]
    assert result.history["seconds"].is_monotonic_increasing
    assert result.seconds >= result.history["seconds"].iloc[-1]


def test_rows_within_an_epoch() -> None:
    """Long epochs get a row each 100 batches, without test figures, and none just before the epoch's own."""
    spec = TrainSpec(channels=(2,), epochs=1, batch_size=1, augment="none")
    shown = blocks(230)
    assert train(shown, blocks(4, seed=1), spec, run=RUN).history["iteration"].tolist() == [100, 200, 230]
    history = train(shown.take(range(200)), blocks(4, seed=1), spec, run=RUN).history
    assert history["iteration"].tolist() == [100, 200]
    assert history["test_loss"].isna().tolist() == [True, False]


def test_validation() -> None:
    """A share of every class is kept out of the training, measured in each epoch, and shown beside the test."""
    spec = replace(SMALL, validation=0.25, learning_rate=1e-30, batch_size=9)
    result = train(blocks(), blocks(12, seed=1), spec, run=RUN)
    assert result.history["images"].tolist() == [18, 36]  # 24 images, three of twelve in each class kept out
    assert result.history[["validation_loss", "validation_accuracy"]].notna().all(axis=None)
    assert set((result.history["validation_accuracy"] * 6).round(9)) <= set(range(7))
    charts = {block.name: block for block in result.page().blocks if isinstance(block, Chart)}
    assert [curve.name for curve in charts["training_loss"].series] == ["training", "validation", "test"]
    tables = {block.name: block for block in result.page().blocks if isinstance(block, Table)}
    assert set(tables["history"].help) == set(tables["history"].frame.columns)
    assert "validation_loss" not in trained().history


def test_validation_images_teach_nothing() -> None:
    """The network is the one that the other images alone make."""
    spec = replace(SMALL, validation=0.5, augment="none", epochs=1, batch_size=100)
    shown, changed = blocks(), blocks()
    first = train(shown, blocks(12, seed=1), spec, run=RUN)
    losses = []
    for row in range(len(shown)):
        pixels = changed.pixels.clone()
        pixels[row] = 255 - pixels[row]
        other = data_from_arrays(pixels, changed.labels, name="changed", classes=changed.classes)
        again = train(other, blocks(12, seed=1), spec, run=RUN)
        same = all(torch.equal(one, two) for one, two in zip(weights(first), weights(again), strict=True))
        losses.append((same, again.history["validation_loss"].iloc[-1] == first.history["validation_loss"].iloc[-1]))
    assert sum(same for same, _ in losses) == 12  # half of the images: with these changed, only the validation differs
    assert all(same != unchanged for same, unchanged in losses if same)


def test_losses_are_means_over_images() -> None:
    """With steps too small to matter, the losses are those of the network over all images, whatever the batches."""
    spec = TrainSpec(model="viewer-cnn", channels=(4,), epochs=1, batch_size=10, learning_rate=1e-30, augment="none")
    data = blocks()
    result = train(data, data, spec, run=replace(RUN, batch_size=7))
    with torch.inference_mode():
        logits = result.module(result.preprocess.batch(data.pixels))
    expected = float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.labels)))
    assert result.history["test_loss"].iloc[-1] == pytest.approx(expected, abs=1e-6)
    # Dropout blurs the training loss; before anything is learnt it is near log 2 all the same.
    assert result.history["train_loss"].iloc[-1] == pytest.approx(expected, abs=0.2)


def test_stop_at() -> None:
    """Training ends once the last 100 batches are right often enough, and is still measured at its end."""
    spec = TrainSpec(channels=(8,), epochs=40, batch_size=4, stop_at=0.5)
    result = train(blocks(), blocks(12, seed=1), spec, run=RUN)
    assert result.history["iteration"].iloc[-1] == 100
    assert np.isfinite(result.history["test_accuracy"].iloc[-1])
    assert result.history["epoch"].iloc[-1] == 17


def test_progress() -> None:
    """Progress counts each training and test image of each epoch and always ends, after an error too."""
    progress = Counting()
    trained(run=replace(RUN, progress=progress))
    assert progress.calls == ["start training", "finish"]
    assert progress.done == progress.total == 2 * (24 + 12)
    failed = Counting()
    with pytest.raises(InputError, match="diverged"):
        trained(replace(SMALL, optimiser="sgd", learning_rate=1e30), run=replace(RUN, progress=failed))
    assert failed.calls == ["start training", "finish"]


@pytest.mark.parametrize("optimiser", ["adam", "rmsprop", "sgd"])
def test_optimisers(optimiser: str) -> None:
    """Every optimiser learns to tell bright rows apart."""
    spec = TrainSpec(channels=(8,), epochs=20, batch_size=8, optimiser=optimiser, augment="none", learning_rate=0.01)
    assert train(blocks(), blocks(12, seed=1), spec, run=RUN).accuracy == 1


def test_divergence_is_refused() -> None:
    """A loss that is no number stops the training with advice."""
    with pytest.raises(
        InputError, match=r"loss is (nan|inf) at iteration \d+ \(epoch \d\).*--learning-rate below 1e\+30"
    ):
        trained(replace(SMALL, optimiser="sgd", learning_rate=1e30, schedule="constant"))


@pytest.mark.parametrize(
    ("model", "channels", "side"), [("viewer-cnn", 3, 32), ("subnet-cifar10", 3, 32), ("subnet-mnist", 1, 28)]
)
def test_save_then_load(model: str, channels: int, side: int, tmp_path: Path) -> None:
    """A saved network loads with its classes and preprocessing and gives the same logits, bit for bit."""
    data = blocks(6, channels=channels, side=side, classes=3)
    spec = TrainSpec(model=model, channels=(2, 4) if model == "viewer-cnn" else None, epochs=1)
    result = train(data, data, spec, run=RUN)
    result.save(tmp_path / "network.pth")
    subject = load_model(f"file:{tmp_path / 'network.pth'}")
    assert (subject.classes, subject.preprocess, subject.input_shape) == (
        result.classes,
        result.preprocess,
        result.input_shape,
    )
    image = result.preprocess.batch(data.pixels)
    with torch.inference_mode():
        assert torch.equal(subject.module(image), result.module(image))


def test_float64() -> None:
    """A training in double precision leaves a float32 network, like any other."""
    assert {tensor.dtype for tensor in weights(trained(run=replace(RUN, dtype="float64")))} == {torch.float32}


def test_raw_input() -> None:
    """The named deviation `raw-input` leaves out the normalisation."""
    assert trained(replace(SMALL, legacy=("raw-input",))).preprocess.mean == ()
    assert trained().preprocess.mean == (0.1307,)


def test_defaults_follow_the_data() -> None:
    """Epochs, moves and input size are filled in from the images."""
    spec = trained(replace(SMALL, epochs=None)).spec
    assert (spec.epochs, spec.augment, spec.image) == (40, "shift", 8)
    colour = blocks(channels=3)
    assert train(colour, colour, SMALL, run=RUN).spec.augment == "flip"


def test_image_files(tmp_path: Path) -> None:
    """Folders of image files train as arrays do: the same pixels give the same bits."""
    data = blocks(16, channels=3)
    for row, image in enumerate(data.pixels.permute(0, 2, 3, 1).numpy()):
        folder = tmp_path / data.classes[data.labels[row]]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{row:02d}.png")
    files = load_data(f"folder:{tmp_path}")
    order = np.array([int(Path(name).stem) for name in files.ids])
    spec = replace(SMALL, image=8)
    result = train(files, files, spec, run=RUN)
    twin = train(data.take(order), data.take(order), spec, run=RUN)
    assert result.spec.augment == "flip"
    assert all(torch.equal(a, b) for a, b in zip(weights(result), weights(twin), strict=True))


def test_unreadable_files(tmp_path: Path) -> None:
    """A broken file stops the training with its name, or is left out where that was asked for."""
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("L", (8, 8), 60 * number).save(tmp_path / name / f"{number}.png")
    (tmp_path / "b" / "2.png").write_bytes(b"no image")
    spec = replace(SMALL, image=8, epochs=1)
    data = load_data(f"folder:{tmp_path}")
    with pytest.raises(DataError, match=r"2\.png"):
        train(data, data, spec, run=RUN)
    skipping = replace(data, on_error="skip")
    result = train(skipping, skipping, spec, run=RUN)
    assert result.confusion.sum() == 7
    assert result.history["images"].tolist() == [7]


def test_data_that_cannot_work() -> None:
    """Unlabelled images, other classes, classes without images and a single class are refused, each with advice."""
    good = blocks()
    unlabelled = replace(good, labels=np.where(np.arange(24) < 3, -1, good.labels))
    empty = replace(good, labels=np.zeros(24, dtype=np.int64))
    single = replace(empty, classes=("a",))
    for shown, held_out, message in (
        (unlabelled, good, r"3 of 24 images without a label.*Give a data set with labels"),
        (good, unlabelled, "3 of 24 images without a label"),
        (good, good.take([]), "no images"),
        (good, blocks(classes=3), r"different classes: 2 classes \('a', 'b'\) and 3 classes"),
        (good, replace(good, classes=("a", "c")), "same names in the same order"),
        (empty, good, r"no image of 1 class \('b'\).*2 classes"),
        (single, single, "expected two or more"),
    ):
        with pytest.raises(InputError, match=message):
            train(shown, held_out, SMALL, run=RUN)


def test_options_that_cannot_work() -> None:
    """Options that do not fit the network or are out of range are refused before anything is trained."""
    for spec, message in (
        (TrainSpec(model="subnet-mnist", channels=(4,)), "layers and input of subnet-mnist are fixed"),
        (TrainSpec(model="subnet-mnist", image=28), "layers and input of subnet-mnist are fixed"),
        (replace(SMALL, validation=0.01), "--validation 0.01.*keeps 0 images out"),
        (replace(SMALL, validation=0.99), "one of each class left"),
        (TrainSpec(), r"images of 16 pixels or more, got 8.*--image 16"),
    ):
        with pytest.raises(InputError, match=message):
            trained(spec)
    for wrong in ({"learning_rate": 0}, {"epochs": 0}, {"channels": (0,)}, {"stop_at": 98}, {"optimizer": "adam"}):
        with pytest.raises(ValidationError):
            TrainSpec(**wrong)


def test_test_class_without_images() -> None:
    """A class without test images has accuracy nan, and the page still stands."""
    result = train(blocks(), blocks().take([0, 2, 4]), SMALL, run=RUN)
    frame = result.per_class
    assert frame["images"].tolist() == [3, 0]
    assert np.isnan(frame.loc[1, ["accuracy", "low", "high"]].astype(float)).all()
    assert result.page().blocks


def test_page() -> None:
    """The page holds accuracy with interval, curves, class accuracies, confusion and both tables."""
    result = trained()
    page = result.page()
    charts = {block.name: block for block in page.blocks if isinstance(block, Chart)}
    tables = {block.name: block for block in page.blocks if isinstance(block, Table)}
    headline = next(block for block in page.blocks if isinstance(block, Stat))
    assert (headline.value, headline.low, headline.high) == (result.accuracy, *result.accuracy_interval)
    assert set(charts) == {"training_loss", "training_accuracy", "class_accuracy", "confusion"}
    assert charts["confusion"].annotate
    assert np.array_equal(charts["confusion"].series[0].y, result.confusion)
    assert tables["history"].frame.equals(result.history)
    for table in tables.values():
        assert set(table.help) == set(table.frame.columns)


@given(steps=st.integers(1, 300), peak=st.floats(1e-5, 1))
def test_learning_rate(steps: int, peak: float) -> None:
    """One-cycle stays within its bounds and rises before it falls; constant never changes."""
    spec = TrainSpec(learning_rate=peak)
    rates = [learning_rate_at(step, steps=steps, spec=spec) for step in range(steps)]
    top = int(np.argmax(rates))
    assert all(peak / 50 * (1 - 1e-12) <= rate <= peak * (1 + 1e-12) for rate in rates)
    assert np.all(np.diff(rates[: top + 1]) >= 0)
    assert np.all(np.diff(rates[top:]) <= 0)
    assert learning_rate_at(steps - 1, steps=steps, spec=replace(spec, schedule="constant")) == peak


@pytest.mark.parametrize(("augment", "most"), [("shift", 2), ("flip", 4)])
def test_moved_frames(augment: str, most: int) -> None:
    """Every moved image is the image, perhaps mirrored, cut out of a black frame; all moves occur."""
    side = {"shift": 28, "flip": 32}[augment]
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(1, 256, (3, side, side), dtype=np.uint8))
    many = moved_frames(image.expand(2000, -1, -1, -1), augment=augment, rng=rng)
    possible = set()
    for version in (image, image.flip(2))[: 1 if augment == "shift" else 2]:
        padded = torch.nn.functional.pad(version, (most,) * 4)
        for y in range(2 * most + 1):
            for x in range(2 * most + 1):
                possible.add(padded[:, y : y + side, x : x + side].contiguous().numpy().tobytes())
    assert {one.contiguous().numpy().tobytes() for one in many} == possible


def test_no_moves() -> None:
    """Without augmentation the images pass as they are."""
    frames = blocks().pixels
    assert moved_frames(frames, augment="none", rng=np.random.default_rng(0)) is frames
