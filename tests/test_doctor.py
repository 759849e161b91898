"""The doctor finds each fault that was planted, finds none in a healthy network, and leaves what it looks at alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from typer.testing import CliRunner

from neuronscope.data.dataset import Data, data_from_arrays
from neuronscope.data.sources import load_data
from neuronscope.doctor import behaviour, cost, images, installation, network
from neuronscope.doctor.examination import examine, examine_behaviour, examine_network
from neuronscope.doctor.finding import Finding, some, worst
from neuronscope.faces.cli import app as root
from neuronscope.models.sources import fingerprint, load_model, subject_from
from neuronscope.models.subject import Subject
from neuronscope.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from neuronscope.run import Run
from neuronscope.sweep import Plan, PlannedSweep
from neuronscope.training import TrainSpec, train

RUN = Run(device="cpu", threads=1, workers=1)
GREY = Preprocess(channels=1, mean=(0.5,), std=(0.29,))  # of uniform noise
COLOUR = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.29, 0.29, 0.29))


def noise(count: int = 16, *, channels: int = 1, classes: int = 4) -> Data:
    """Images of noise with labels in turn."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, channels, 8, 8), dtype=np.uint8)
    names = tuple(str(number) for number in range(classes))
    return data_from_arrays(torch.from_numpy(pixels), np.arange(count) % classes, name="noise", classes=names)


def blank(value: int, count: int = 16) -> Data:
    """Images of one grey level."""
    pixels = torch.full((count, 1, 8, 8), value, dtype=torch.uint8)
    return data_from_arrays(pixels, np.arange(count) % 4, name="blank", classes=tuple("0123"))


class Net(nn.Module):
    """A small classifier that subclasses bend."""

    def __init__(self, channels: int = 1) -> None:
        """Random weights, the same every time."""
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, 4, 3)
        self.relu = nn.ReLU()
        self.head = nn.Linear(4, 4)

    def features(self, image: Tensor) -> Tensor:
        """What the head sees."""
        return self.relu(self.conv(image)).amax((2, 3))

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.features(image))


class Noisy(Net):
    """Functional dropout that nobody switches off."""

    def features(self, image: Tensor) -> Tensor:
        """Some of them."""
        return functional.dropout(super().features(image), 0.5)


class Choosy(Net):
    """Passes its ReLU by for images brighter than those it was loaded with."""

    def features(self, image: Tensor) -> Tensor:
        """With or without ReLU."""
        maps = self.conv(image)
        return (self.relu(maps) if image.mean() < 2 else maps).amax((2, 3))


class Social(Net):
    """Normalises with the statistics of the batch."""

    def __init__(self) -> None:
        """Batch normalisation without statistics of its own."""
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)

    def features(self, image: Tensor) -> Tensor:
        """Normalised."""
        return self.relu(self.norm(self.conv(image))).mean((2, 3))


class Idle(Net):
    """Has a part that nobody calls, one that is called twice, and one that works in place."""

    def __init__(self) -> None:
        """An auxiliary head."""
        super().__init__()
        self.aux = nn.Linear(4, 4)
        self.relu = nn.ReLU(inplace=True)

    def features(self, image: Tensor) -> Tensor:
        """Twice the ReLU."""
        return self.relu(self.relu(self.conv(image)).amax((2, 3)))


class Insistent(Net):
    """Calls its ReLU more often for brighter images."""

    def features(self, image: Tensor) -> Tensor:
        """Once or twice the ReLU."""
        maps = self.relu(self.conv(image))
        return (self.relu(maps) if image.mean() > 2 else maps).amax((2, 3))


def subject_of(module: nn.Module, preprocess: Preprocess = GREY) -> Subject:
    """A subject that takes 8 x 8 pixels."""
    return subject_from(module, name="python:net", input_shape=(preprocess.channels, 8, 8), preprocess=preprocess)


def behaves(subject: Subject, data: Data | None, *layers: str) -> dict[str, Finding]:
    """What is found when images are shown, by subject."""
    found, _ = examine_behaviour(subject, data, layers=subject.select(*layers), run=RUN)
    return {one.subject: one for one in found}


def verdicts(findings: Iterable[Finding]) -> dict[str, str]:
    """Subject -> verdict."""
    return {one.subject: one.verdict for one in findings}


def says(finding: Finding | None, verdict: str, *words: str) -> None:
    """The finding has this verdict and these words; what is not fine has words of its own."""
    assert finding is not None
    assert finding.verdict == verdict, finding
    for word in words:
        assert word in f"{finding.text} {finding.advice}", finding


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A small network that has learnt digits."""
    spec = TrainSpec(channels=(16, 32), epochs=6)
    path = tmp_path_factory.mktemp("digits") / "model.pt"
    train(load_data("digits:train"), load_data("digits"), spec, run=Run(device="cpu", threads=1)).save(path)
    return path


# The findings themselves


def test_worst():
    """The gravest verdict counts; nothing at all is fine."""
    one = [Finding("machine", name, name, "") for name in ("note", "broken", "fine", "warning")]
    assert worst(one) == "broken"
    assert worst([]) == "fine"


def test_words():
    """Names are shortened for reading."""
    assert some(["a"]) == "a"
    assert some(list("abcdef")) == "a, b, c, d and 2 more"


# Installation and machine


def test_python():
    """An old Python is broken; without a bound any will do."""
    says(installation.check_python((3, 10, 2), required=">=3.11"), "broken", "3.10.2", "3.11")
    says(installation.check_python((3, 11, 0), required=">=3.11"), "fine")
    says(installation.check_python((3, 11, 0), required=""), "fine")


def test_versions():
    """Packages that are missing or old are named with what is needed; extras are no fault."""
    needed = installation.requirements(["torch>=2.8", "numpy>=2.1", "ray>=2.46; extra == 'ray'"])
    [fine] = installation.check_versions(needed, {"torch": "2.8.0+cpu", "numpy": "2.10"})
    says(fine, "fine", "torch 2.8.0+cpu")
    old, missing = installation.check_versions(needed, {"torch": "2.7.1", "numpy": None})
    says(old, "broken", "2.7.1", "2.8 or newer", "pip install --upgrade 'torch>=2.8'")
    says(missing, "broken", "numpy is not installed", "pip install 'numpy>=2.1'")
    [unknown] = installation.check_versions((), {})
    says(unknown, "note")


@pytest.mark.parametrize(("version", "verdict"), [(None, "note"), ("2.9", "warning"), ("2.46.0", "fine")])
def test_extras(version, verdict):
    """An optional package may be absent, but not too old; those for development do not count."""
    needed = installation.requirements(["torch>=2.8", "ray>=2.46; extra == 'ray'", "ruff>=1; extra == 'dev'"])
    [found] = installation.check_extras(needed, {"ray": version})
    assert (found.subject, found.verdict) == ("ray", verdict)


def test_pair():
    """Torch and torchvision are held to what torchvision's meta data say, and its operators are tried."""
    fine = installation.check_pair("2.8.0+cpu", "0.23.0+cpu", needs=["torch==2.8.0"], failure="")
    says(fine, "fine", "belong together")
    other = installation.check_pair("2.9.0", "0.23.0", needs=["torch (==2.8.0)"], failure="")
    says(other, "warning", "torchvision 0.23.0 belongs to torch exactly 2.8.0")
    failed = "operator torchvision::nms does not exist"
    says(installation.check_pair("2.9.0", "0.23.0", needs=["torch==2.8.0"], failure=failed), "broken", failed, "2.8.0")
    assert installation.torchvision_failure() == ""


def test_devices():
    """What runs will compute on is said, and why not on something better."""
    card = installation.Accelerator("H100", memory=80 * 2**30, free=79 * 2**30)
    says(installation.check_devices([card], built="12.8", driver=True, mps=False), "fine", "cuda:0 H100", "79.0 GiB")
    says(installation.check_devices([], built="12.8", driver=True, mps=False), "warning", "12.8")
    says(installation.check_devices([], built="", driver=True, mps=False), "warning", "without CUDA")
    says(installation.check_devices([], built="", driver=False, mps=True), "note", "float64")
    says(installation.check_devices([], built="", driver=False, mps=False), "fine")


def test_threads():
    """Too many threads are warned of; threads that spin are worth a note."""
    says(installation.check_threads(8, cores=2, policy="PASSIVE"), "warning", "8", "2", "--threads 2")
    says(installation.check_threads(2, cores=2, policy=None), "note", "is not set")
    says(installation.check_threads(2, cores=2, policy="ACTIVE"), "note", "is 'ACTIVE'")
    says(installation.check_threads(2, cores=2, policy="passive"), "fine")


def test_disk_and_memory(tmp_path):
    """Little room is warned of, a folder that cannot be written to is broken."""
    says(installation.check_disk(tmp_path, free=2**40, writable=True), "fine")
    says(installation.check_disk(tmp_path, free=2**20, writable=True), "warning", "1.0 MB")
    says(installation.check_disk(tmp_path, free=2**40, writable=False), "broken", str(tmp_path))
    says(installation.check_memory(2**33), "fine")
    says(installation.check_memory(2**20), "warning")
    says(installation.check_memory(None), "note")


def test_meminfo(tmp_path):
    """Free memory is read where the system writes it down."""
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:  900 kB\nMemFree:  1 kB\nMemAvailable:  512 kB\n")
    assert installation.available_memory(file) == 512 * 1024
    assert installation.available_memory(tmp_path / "none") is None


def test_this_installation(tmp_path):
    """The installation these tests run in is not broken; a folder that is not there yet is no fault."""
    found = installation.examine_installation(out=tmp_path / "a" / "b")
    assert worst([one for one in found if one.topic == "installation"]) in ("fine", "note")
    assert {"Python", "torchvision", "device", "threads", "disk", "memory"} <= set(verdicts(found))
    assert not (tmp_path / "a").exists()


# The network at rest


def test_training_mode_is_found_and_left():
    """Dropout or batch normalisation in training mode is broken, and the network stays as it came."""
    subject = subject_of(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 4))
    )
    says(network.check_modes(subject.module), "fine", "1 dropout and 1 batch")
    subject.module.train()
    before = fingerprint(subject.module)
    says(network.check_modes(subject.module), "broken", "2 of", "1, 2", "eval()")
    found = behaves(subject, noise(), "0")
    says(found["repetition"], "broken")
    says(found["network"], "broken", "1.running_mean")
    assert subject.module.training
    assert fingerprint(subject.module) == before


def test_harmless_training_mode():
    """A part in training mode that does nothing different there is worth a warning only."""
    subject = subject_of(Net())
    subject.module.relu.train()
    says(network.check_modes(subject.module), "warning", "relu")


def test_batch_statistics():
    """Batch normalisation needs statistics of its own, from training images."""
    norm = nn.BatchNorm2d(4)
    assert network.check_statistics(Net()) is None
    says(network.check_statistics(nn.Sequential(norm)), "warning", "as when they were made")
    norm.running_mean.fill_(0.3)
    says(network.check_statistics(nn.Sequential(norm)), "fine")
    says(network.check_statistics(Social()), "broken", "norm", "depends on the others")


def test_weights():
    """NaN is broken; zeros and tensors left random are warned of."""
    module = Net()
    says(network.check_weights(module), "fine", "4 tensors")
    says(network.check_weights(module, not_loaded=("head.weight",)), "warning", "head.weight")
    with torch.no_grad():
        module.head.weight.zero_()
        says(network.check_weights(module), "warning", "head.weight")
        module.conv.weight[0, 0, 0, 0] = float("nan")
    says(network.check_weights(module), "broken", "conv.weight")


def test_modules_that_are_never_called_or_twice():
    """Parts that cannot be studied are named with the reason, parts called twice by their second name."""
    subject = subject_of(Idle())
    says(network.check_uncalled(subject), "note", "aux is never called")
    says(network.check_reused(subject), "note", "relu#1")
    other = subject_of(Net())
    says(network.check_uncalled(other), "fine")
    assert network.check_reused(other) is None


def test_receptive_fields():
    """Feature maps that see the whole image are named."""
    whole = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 4))
    says(network.check_fields(subject_of(whole)), "note", "1 of 2", "(1)")
    assert network.check_fields(subject_of(Net())) is None


@pytest.mark.parametrize(
    ("mean", "std", "verdict"),
    [
        (IMAGENET_MEAN, IMAGENET_STD, "fine"),
        ((0.49, 0.45, 0.41), IMAGENET_STD, "fine"),
        ((), (), "warning"),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "warning"),
        ((0.406, 0.456, 0.485), (0.05, 0.224, 0.225), "warning"),
    ],
)
def test_normalisation(mean, std, verdict):
    """A normalisation other than that of the weights' meta data is warned of, rounded figures are not."""
    expected = network.Normalisation(IMAGENET_MEAN, IMAGENET_STD, "somebody")
    says(network.check_normalisation(Preprocess(mean=mean, std=std), expected), verdict, "somebody")


def test_expected_normalisation(trained):
    """Meta data are asked where there are any; of an unknown network nobody knows."""
    net = subject_of(Net())
    says(network.check_normalisation(net.preprocess, network.expected_normalisation(net)), "note")
    squeeze = network.expected_normalisation(replace(net, name="torchvision:squeezenet1_1"))
    assert squeeze.mean == IMAGENET_MEAN
    builtin = load_model("builtin:viewer-cnn", weights="random", mean=(), std=())
    says(network.check_normalisation(builtin.preprocess, network.expected_normalisation(builtin)), "warning", "0.131")
    own = load_model(f"file:{trained}")
    says(network.check_normalisation(own.preprocess, network.expected_normalisation(own)), "fine", "checkpoint")
    assert network.expected_normalisation(replace(own, name="file:gone.pt")) is None


def test_network_at_rest():
    """All checks that need no image, together."""
    found = verdicts(examine_network(subject_of(Idle())))
    assert found == {
        "eval mode": "fine",
        "weights": "fine",
        "normalisation": "note",
        "modules": "note",
        "reused modules": "note",
    }


# Network and images


def test_input_statistics():
    """Images far from mean 0 and variance 1 are warned of, by what is wrong with them."""
    pixels = noise().pixels
    says(images.check_inputs(GREY.batch(pixels), normalised=True), "fine")
    percent = Preprocess(channels=1, mean=(127.0,), std=(74.0,))  # on the scale 0 to 255
    says(images.check_inputs(percent.batch(pixels), normalised=True), "warning", "0 to 1")
    plain = Preprocess(channels=1)
    says(images.check_inputs(plain.batch(pixels), normalised=False), "note", "without normalisation")


def test_constant_images():
    """Images without content are broken when all are, warned of when some are."""
    flat, real = GREY.batch(blank(0).pixels), GREY.batch(noise().pixels)
    says(images.check_constant(flat), "broken", "16 of 16")
    says(images.check_constant(torch.cat([flat, real])), "warning", "16 of 32")
    assert images.check_constant(real) is None


def test_grey_for_a_colour_network():
    """Grey images in a colour network are warned of; colours lost in a grey one are noted."""
    grey, colour = noise().pixels, noise(channels=3).pixels
    says(images.check_colour(COLOUR.batch(grey), COLOUR, raw_channels=1), "warning", "grey")
    assert images.check_colour(COLOUR.batch(colour), COLOUR, raw_channels=3) is None
    says(images.check_colour(GREY.batch(colour), GREY, raw_channels=3), "note")
    assert images.check_colour(GREY.batch(grey), GREY, raw_channels=1) is None


def test_labels():
    """Labels must be the network's classes."""
    subject = subject_of(Net())
    says(images.check_labels(noise(), subject), "fine", "16 of 16")
    says(images.check_labels(noise(classes=3), subject), "broken", "3 classes", "4 outputs")
    unlabelled = data_from_arrays(noise().pixels, np.full(16, -1), name="plain", classes=())
    says(images.check_labels(unlabelled, subject), "note")
    says(images.check_labels(noise(), replace(subject, classes=tuple("abcd"))), "note", "'a'", "'0'")


def test_outputs():
    """Outputs must be finite logits that depend on the image."""
    logits = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    says(images.check_logits(logits), "fine")
    says(images.check_logits(logits.softmax(1)), "warning", "softmax")
    says(images.check_logits(logits[:1].expand(16, 4)), "broken", "same outputs")
    dead = logits.clone()
    dead[:, 2] = 1.0
    says(images.check_logits(dead), "note", "1 of 4")
    dead[3, 1] = float("nan")
    says(images.check_logits(dead), "broken", "1 of 16")


def test_predictions():
    """One answer for images of many classes is warned of; of few images nothing is said."""
    labels, logits = torch.arange(16) % 4, torch.eye(4).repeat(4, 1)
    says(images.check_predictions(logits, labels), "fine", "4 different")
    says(images.check_predictions(logits + 9 * torch.eye(4)[0], labels), "warning", "class 0")
    assert images.check_predictions(logits[:4], labels[:4]) is None
    assert images.check_predictions(logits, labels * 0) is None


@pytest.mark.parametrize(
    ("right", "count", "verdict", "word"),
    [
        (30, 32, "fine", "94 %"),
        (8, 32, "warning", "cannot be told from guessing"),
        (0, 32, "warning", "worse than guessing"),
        (1, 4, "note", "too few"),
    ],
)
def test_accuracy(right, count, verdict, word):
    """Accuracy is held against guessing with its interval; images without a label do not count."""
    labels = torch.cat([torch.arange(count) % 4, torch.tensor([-1])])
    answers = torch.where(torch.arange(count + 1) < right, labels, (labels + 1) % 4)
    says(images.check_accuracy(functional.one_hot(answers, 4).float(), labels), verdict, word)


def test_accuracy_without_labels():
    """Nothing is said of images without labels."""
    assert images.check_accuracy(torch.eye(4), torch.full((4,), -1)) is None


def test_random_weights():
    """A network that was never trained is told by its one answer and its accuracy."""
    found = behaves(load_model("builtin:viewer-cnn", weights="random"), load_data("digits"))
    assert (found["predictions"].verdict, found["accuracy"].verdict) == ("warning", "warning")


# Behaviour


def test_a_network_that_behaves():
    """A plain network shows nothing, with real images and with noise."""
    subject = subject_of(Net())
    expected = {"hooks", "dead units", "repetition", "batch", "threads"}
    for data in (noise(), None):
        found = behaves(subject, data)
        assert {name for name in expected if found[name].verdict in ("fine", "note")} == expected
    says(behaves(subject, None)["images"], "note", "noise")


def test_stochastic_layer():
    """A layer that is random in eval mode is broken; what rests on repetition is left open."""
    found = behaves(subject_of(Noisy()), noise())
    says(found["repetition"], "broken", "random")
    says(found["batch"], "note")
    assert found["threads"].verdict in ("fine", "note")


def test_output_that_depends_on_the_batch():
    """Statistics of the batch in eval mode are broken."""
    says(behaves(subject_of(Social()), noise())["batch"], "broken", "beside others", "norm")


def test_control_flow():
    """A hook that does not fire for real images is broken for chosen layers, warned of for others."""
    subject = subject_of(Choosy(), Preprocess(channels=1, std=(0.05,), mean=(0.2,)))
    says(behaves(subject, noise(), "relu")["hooks"], "broken", "relu", "path")
    says(behaves(subject, noise(), "conv")["hooks"], "warning", "relu")


def test_more_calls_than_known():
    """A module that is called more often for real images is warned of."""
    subject = subject_of(Insistent(), Preprocess(channels=1, std=(0.05,), mean=(0.2,)))
    says(behaves(subject, noise())["hooks"], "warning", "more often", "relu")


def test_in_place():
    """Layers that are overwritten after they return are named, exactly."""
    subject = subject_of(Idle())
    seen = behaviour.look(subject, noise(), layers=subject.layers, run=RUN)
    assert seen.changed == ("conv",)
    says(behaviour.check_in_place(seen), "note", "(conv)")
    plain = subject_of(Net())
    assert behaviour.check_in_place(behaviour.look(plain, noise(), layers=plain.layers, run=RUN)) is None


def test_dead_layers():
    """A first layer without an answer is broken, one that is half dead is warned of."""
    module = Net()
    subject = subject_of(module)
    with torch.no_grad():
        module.conv.weight[:3] = 0
    says(behaves(subject, noise())["dead units"], "warning", "3 of 4", "'conv'")
    with torch.no_grad():
        module.conv.weight.zero_()
    found = behaves(subject, noise())
    says(found["dead units"], "broken", "first layer 'conv'")
    says(found["outputs"], "broken")
    module = Net()
    with torch.no_grad():
        module.conv.bias.fill_(-99)
    says(behaves(subject_of(module), noise())["dead units"], "broken", "relu")


def test_small_differences():
    """Differences are judged by their size, relative to the layer's largest activation."""
    same = behaviour.Comparison(again={"a": 0.0}, alone={"a": 2e-6}, threads={"a": 3e-6}, usual=2, other=1)
    says(behaviour.check_repeatable(same), "fine", "same bits")
    says(behaviour.check_alone(same), "fine", "2.0e-06")
    says(behaviour.check_thread_numbers(same), "fine", "1 and 2 threads")
    rough = replace(same, again={"a": 1e-7}, alone={"a": 1e-4, "b": 0.0}, threads={"a": 1e-4})
    says(behaviour.check_repeatable(rough), "warning", "1.0e-07")
    says(behaviour.check_alone(rough), "warning", "'a'")
    says(behaviour.check_thread_numbers(rough), "warning")
    says(behaviour.check_repeatable(replace(same, again={"a": float("nan")})), "broken")
    says(behaviour.check_alone(replace(same, failure="Expected more")), "broken", "Expected more")
    says(behaviour.check_thread_numbers(replace(same, other=2)), "fine", "nothing to compare")


def test_images_that_do_not_fit():
    """Images that the network cannot take are broken, with what it said; so is an empty set."""
    tiny = data_from_arrays(
        torch.zeros(4, 1, 2, 2, dtype=torch.uint8), np.zeros(4, dtype=int), name="tiny", classes="a"
    )
    says(behaves(subject_of(Net()), tiny)["images"], "broken", "cannot be shown")
    says(behaves(subject_of(Net()), noise(0))["images"], "broken", "no images")


# Cost


def test_cost():
    """Parameters and bytes are counted; more than there is of memory is warned of."""
    says(cost.check_size(Net()), "fine", "60 parameters", "240 B")
    subject = subject_of(Net())
    layers = subject.layers
    says(cost.check_activations(layers, layers[:1], batch_size=2, free=None), "fine", "1.1 KiB", "576 B")
    says(cost.check_activations(layers, layers, batch_size=2, free=100), "warning", "100 B free")
    says(cost.measure_times(subject, noise(), layers=layers, run=RUN), "fine", "forward and backward", "8 images")


def test_plans():
    """A study's plan is told; one that needs more memory than there is is warned of, one that cannot be is noted."""
    plan = Plan((PlannedSweep("observe", 10, 10, 5, state=2**20, working=2**20),), seconds=90)
    says(cost.check_plan("layers", plan, free=2**30), "fine", "1 min 30 s", "2.0 MiB", "10 forward and 5 backward")
    says(cost.check_plan("layers", plan, free=2**10), "warning", "--layers")
    subject = subject_of(Net())
    assert "study layers" in verdicts(cost.plan_studies(subject, noise(), layers=("relu",), run=RUN))
    [layers] = [
        one for one in cost.plan_studies(subject, noise(classes=9), layers=(), run=RUN) if one.subject == "study layers"
    ]
    says(layers, "note", "cannot be planned")


# All together


def test_healthy(trained):
    """A network that has learnt its images gives no warning."""
    found = examine(load_model(f"file:{trained}"), load_data("digits"), run=RUN)
    grave = [one for one in found if one.verdict in ("warning", "broken") and one.topic != "machine"]
    assert grave == []
    assert {one.topic for one in found} == {"installation", "machine", "network", "images", "behaviour", "cost"}
    assert verdicts(found)["accuracy"] == "fine"


def test_whatever_is_grave_has_advice():
    """A warning or worse says what to do."""
    subject = subject_of(Social())
    subject.module.train()
    for one in examine(subject, blank(9), run=RUN):
        assert one.text
        assert one.advice or one.verdict in ("fine", "note"), one


def call(*arguments: object) -> tuple[int, str, str]:
    """Exit code, output and messages of the command."""
    done = CliRunner().invoke(root.app, ["doctor", *map(str, arguments)], prog_name="neuronscope")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_command_json(trained, tmp_path):
    """JSON is for programs: one object for each finding; a healthy network exits with 0."""
    code, out, _ = call("-m", f"file:{trained}", "-d", "digits", "--format", "json", "--out", tmp_path / "runs")
    found = json.loads(out)
    assert code == 0
    assert {"topic", "subject", "verdict", "text", "advice"} == set(found[0])
    assert not (tmp_path / "runs").exists()


def test_command_table():
    """The table has a sign and a word for each finding and a count at the end; without a network, the machine's."""
    code, out, _ = call()
    assert code == 0
    assert ". fine" in out
    assert "network" not in out.replace("networkx", "")
    assert out.strip().splitlines()[-1].startswith("broken 0, warning ")


def test_command_warnings():
    """Warnings give exit code 1 only where that is wanted."""
    arguments = ("-m", "builtin:viewer-cnn", "-w", "random", "-d", "digits", "--limit", 40, "--layers", "fc_layers.4")
    code, out, _ = call(*arguments)
    assert code == 0
    assert "! warning" in out
    assert call(*arguments, "--fail-on", "warning")[0] == 1


def test_command_broken(tmp_path, trained):
    """Something broken gives exit code 1: labels of other classes, and a weights file that is torn."""
    code, out, _ = call("-m", "builtin:subnet-mnist", "-w", trained, "--format", "json")
    assert code == 1
    assert [one["verdict"] for one in json.loads(out)][-1] == "broken"
    torn = tmp_path / "torn.pth"
    torn.write_bytes(trained.read_bytes()[:100])
    code, out, _ = call("-m", "builtin:viewer-cnn", "-w", torn)
    assert code == 1
    assert "x broken" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "builtin:viewer-cn", "-w", "random"),
        ("-m", "builtin:viewer-cnn", "-w", "gone.pth"),
        ("-m", "builtin:viewer-cnn"),
        ("-m", "builtin:viewer-cnn", "-w", "random", "-d", "digitz"),
        ("-m", "builtin:viewer-cnn", "-w", "random", "--layers", "nowhere"),
        ("-d", "digits"),
        ("--layers", "conv"),
        ("--format", "yaml"),
    ],
    ids=" ".join,
)
def test_command_usage(arguments):
    """A name or option that cannot be gives exit code 2 and one message."""
    code, _, err = call(*arguments)
    assert code == 2
    assert "Traceback" not in err


def test_speaks_where_torchvision_is_broken(tmp_path):
    """With a torchvision built for another torch, the command says so in place of falling."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    program = "from neuronscope.faces.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "doctor", "-m", "torchvision:resnet18", "-w", "random", "-f", "json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 1, done.stderr
    found = {one["subject"]: one for one in json.loads(done.stdout)}
    assert found["torchvision"]["verdict"] == "broken"
    assert "operator torchvision::nms does not exist" in found["torchvision"]["text"]
    assert "not examined" in found["network"]["text"]
