"""Ray: a real cluster of two workers on this machine gives the bits that one process gives, also when a worker dies."""

from __future__ import annotations

import os
import signal
import sys
import threading
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import neuronscope as ns
from neuronscope.data.dataset import Batch
from neuronscope.errors import DataError
from neuronscope.executors import EXECUTORS, RayCluster
from neuronscope.executors import ray as module
from neuronscope.faces.cli.app import app
from neuronscope.faces.cli.making import make_executor
from neuronscope.maths.streams import Each, Moments, StackRows

WORKERS = 2


@pytest.fixture
def installed():
    """Ray itself."""
    return pytest.importorskip("ray", reason="needs the extra ray")


@pytest.fixture(scope="module")
def cluster():
    """A cluster that this program has started: executors use it and leave it running."""
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    if not ray.is_initialized():
        ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def subject():
    """A small convolutional network whose class is in this file: workers cannot import it."""
    torch.manual_seed(0)
    return ns.subject_from(Small(), name="small", input_shape=(3, 16, 16), preprocess=ns.Preprocess(channels=3))


@pytest.fixture(scope="module")
def data():
    """Random pictures of three classes, enough for three shards."""
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (41, 3, 16, 16), dtype=np.uint8))
    return ns.data_from_arrays(pixels, rng.integers(0, 3, 41), name="noise", classes="abc")


class Small(torch.nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self) -> None:  # noqa: D107 the class says it
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.relu = torch.nn.ReLU()
        self.second = torch.nn.Conv2d(8, 16, 3, stride=2)
        self.out = torch.nn.Linear(16, 3)

    def forward(self, image):
        """Logits."""
        return self.out(self.relu(self.second(self.relu(self.first(image)))).mean((2, 3)))


@dataclass(frozen=True)
class Deadly:
    """A step that kills the process it runs in, once: whoever comes first to a place that does not exist yet."""

    step: ns.Observe
    marker: Path

    def __call__(self, model: torch.nn.Module, batch: Batch):
        """What the step within sees."""
        try:
            self.marker.touch(exist_ok=False)
        except FileExistsError:
            return self.step(model, batch)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def shapes(self, outputs: int):
        """Those of the step within."""
        return self.step.shapes(outputs)

    @property
    def passes(self):
        """Those of the step within."""
        return self.step.passes


def quiet(**changes):
    """Circumstances of a small run with several shards."""
    return ns.Run(**{"batch_size": 4, "threads": 1, "device": "cpu", **changes})


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:9", "no Ray cluster answers at '127.0.0.1:9'.*ray start --head"),
        ("127.0.0.1:70000", "no address of a Ray cluster: expected host:port"),
        ("host:port", "no address of a Ray cluster: expected host:port"),
    ],
)
def test_an_address_that_nobody_answers(installed, address, words):
    """A wrong address is one clear message at once; Ray's own patience lasts minutes."""
    assert not installed.is_initialized()  # with a connection there already, the address would not be asked for
    with pytest.raises(ns.InputError, match=words):
        list(RayCluster(address).work(square, None, [1]))


def test_a_worker_killed_in_flight_changes_no_bit(installed, subject, data, tmp_path):
    """A task whose worker dies is worked again, nothing is lost or counted twice; the executor's own cluster ends."""
    assert not installed.is_initialized()
    step = ns.Observe(subject.layers)
    fold = Each(moments=Moments("mean"), rows=StackRows("mean"))
    marker = tmp_path / "killed"
    serial = ns.sweep(subject, data, step, fold, run=quiet()).answer
    with RayCluster(workers=WORKERS) as executor:
        spread = ns.sweep(subject, data, Deadly(step, marker), fold, run=quiet(executor=executor)).answer
        assert installed.is_initialized()
    assert marker.exists()
    assert not installed.is_initialized()
    np.testing.assert_array_equal(spread["rows"].values, serial["rows"].values)
    np.testing.assert_array_equal(spread["moments"].mean, serial["moments"].mean)
    np.testing.assert_array_equal(spread["moments"].variance, serial["moments"].variance)


def test_same_bits_as_serial(cluster, subject, data):
    """A whole study on the cluster has every bit of the one worked in this process."""
    assert cluster.is_initialized()
    spec = ns.LayersSpec(draws=19)
    serial = ns.run_layers(subject, data, spec, run=quiet())
    spread = ns.run_layers(subject, data, spec, run=quiet(executor=RayCluster(workers=WORKERS)))
    assert spread.tree.identical(serial.tree)


def square(_shared: object, number: int) -> int:
    """A task."""
    return number * number


def fail(shared: str, number: int) -> int:
    """A task that fails for one number."""
    if number == 3:
        raise DataError(shared)
    return number


def die(_shared: object, _number: int) -> int:
    """A task that no worker survives."""
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def threads(_shared: object, _number: int) -> int:
    """Threads of a task."""
    return torch.get_num_threads()


def test_every_task_once(cluster):
    """Each task is answered once, with its position, and a cluster that was there before stays."""
    tasks = list(range(20))
    assert sorted(RayCluster().work(square, None, tasks)) == [(number, number * number) for number in tasks]
    assert cluster.is_initialized()


@pytest.mark.parametrize("count", [1, 2])
def test_threads_are_set_in_the_task(cluster, count):
    """A worker takes as many threads as its task reserves cores, whatever Ray's own default is."""
    assert cluster.is_initialized()
    executor = RayCluster(threads_per_task=count)
    assert executor.threads == count
    assert list(executor.work(threads, None, [0])) == [(0, count)]


def test_few_answers_wait(cluster):
    """No task is begun that is further ahead of the earliest missing answer than twice the workers."""
    assert cluster.is_initialized()
    seen: set[int] = set()
    for position, _ in RayCluster(workers=WORKERS).work(square, None, list(range(15))):
        missing = min(set(range(15)) - seen)
        assert position < missing + 2 * WORKERS
        seen.add(position)


def test_exceptions_arrive_as_themselves(cluster):
    """What a task raises is raised by the executor: type and message, for one clear line at the command line."""
    assert cluster.is_initialized()
    with pytest.raises(DataError, match=r"^image 3 is torn$") as caught:
        list(RayCluster().work(fail, "image 3 is torn", list(range(5))))
    assert type(caught.value) is DataError


def test_a_deadly_task_ends_the_run(cluster, monkeypatch):
    """A task that kills every worker is not worked for ever."""
    assert cluster.is_initialized()
    monkeypatch.setattr(module, "_RETRIES", 0)  # Ray's own tries; ours are enough to see it
    with pytest.raises(ns.NeuronscopeError, match=r"killed 3 times.*smaller --batch-size"):
        list(RayCluster().work(die, None, [0]))


def test_what_cannot_travel(cluster):
    """A network or data that holds something which stays in its process is refused, with a way out."""
    assert cluster.is_initialized()
    with pytest.raises(ns.InputError, match=r"cannot be sent.*lock.*--executor processes"):
        list(RayCluster().work(square, threading.Lock(), [1]))


def test_a_task_too_large_for_the_cluster(cluster):
    """More threads than the cluster has cores are refused, where Ray would wait for ever."""
    assert cluster.is_initialized()
    with pytest.raises(ns.InputError, match=r"2 cores and 0 GPUs: a task needs 3"):
        list(RayCluster(threads_per_task=3).work(square, None, [1]))


def test_other_versions_are_refused(cluster, monkeypatch):
    """A machine with another torch would give other bits: it says so instead."""
    assert cluster.is_initialized()
    monkeypatch.setattr(module, "_versions", lambda: {"torch": "0.1"})
    with pytest.raises(ns.InputError, match=r"has torch .* \(not 0\.1\)"):
        list(RayCluster().work(square, None, [1]))


def test_a_network_from_a_file(cluster, tmp_path, data):
    """The code of a factory in a file travels with the network, and of a module in the current folder too."""
    assert cluster.is_initialized()
    source = tmp_path / "nets.py"
    source.write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = torch.nn.Conv2d(3, 3, 3)\n"
        "    def forward(self, image):\n"
        "        return double(self.conv(image)).mean((2, 3))\n"
        "def double(maps):\n"
        "    return 2 * maps\n"
        "def make():\n"
        "    return Net()\n"
    )
    subject = ns.load_model(f"python:{source}:make", weights="random", input_shape=(3, 16, 16))
    step, fold = ns.Observe(subject.layers), Moments("mean")
    serial = ns.sweep(subject, data, step, fold, run=quiet()).answer
    source.unlink()
    spread = ns.sweep(subject, data, step, fold, run=quiet(executor=RayCluster())).answer
    np.testing.assert_array_equal(spread.mean, serial.mean)


def test_without_ray(monkeypatch):
    """Where Ray is not installed, the message says what to install; making the executor needs nothing."""
    monkeypatch.setitem(sys.modules, "ray", None)
    executor = EXECUTORS["ray"]()
    with pytest.raises(ns.MissingDependency, match=r"pip install 'neuronscope\[ray\]'"):
        list(executor.work(square, None, [1]))


def test_nothing_to_do(monkeypatch):
    """No cluster is started for no tasks, as when a checkpoint holds everything."""
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(RayCluster().work(square, None, [])) == []


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"threads_per_task": 0}, {"gpus_per_task": -1}])
def test_sizes_that_cannot_be(wrong):
    """Numbers below the least possible are refused when the executor is made."""
    with pytest.raises(ns.InputError, match="must be at least"):
        RayCluster(**wrong)


DIGITS = (
    "--model",
    "builtin:viewer-cnn",
    "--weights",
    "random",
    "--data",
    "digits",
    "--limit",
    "40",
    "--device",
    "cpu",
)
SMALL = ("--layers", "conv_layers.1", "--draws", "19", "--gradient", "none", "--examples", "1", "--quiet")


def call(*arguments: object):
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(one) for one in arguments], prog_name="neuronscope")


def test_command_line(cluster, tmp_path):
    """`--executor ray --address` works a study, and the recipe of the run repeats it with the same options."""
    assert cluster.is_initialized()
    address = cluster.get_runtime_context().gcs_address
    spread = ("--executor", "ray", "--address", address, "--processes", 2)
    first = call("run", "layers", *DIGITS, *SMALL, *spread, "--threads", 1, "--out", tmp_path / "ray")
    assert first.exit_code == 0, first.output
    recipe = tomllib.loads((tmp_path / "ray" / "recipe.toml").read_text())["run"]
    assert (recipe["executor"], recipe["address"], recipe["processes"]) == ("ray", address, 2)
    again = call("run", "layers", "--recipe", tmp_path / "ray" / "recipe.toml", "--out", tmp_path / "again", "--quiet")
    assert again.exit_code == 0, again.output
    assert ns.open(tmp_path / "again").tree.identical(ns.open(tmp_path / "ray").tree)


@pytest.mark.parametrize(
    ("given", "executor"),
    [
        ({"executor": "ray"}, RayCluster()),
        ({"executor": "ray", "threads": 3, "processes": 2}, RayCluster(workers=2, threads_per_task=3)),
        ({"executor": "ray", "address": "auto"}, RayCluster("auto")),
        ({"executor": "processes", "processes": 3, "threads": 2}, ns.Processes(3)),
        ({}, ns.Serial()),
    ],
)
def test_options_reach_the_executor(given, executor):
    """An executor is made with the options it takes; on a cluster, tasks reserve the threads of the run."""
    assert make_executor(given, device="cpu") == executor


def test_a_gpu_is_reserved():
    """Where the run computes on a GPU, each task of a cluster reserves one."""
    assert make_executor({"executor": "ray"}, device="cuda") == RayCluster(gpus_per_task=1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"executor": "processes", "address": "auto"}, "'processes' takes no --address.*--executor ray"),
        ({"address": "auto"}, "'serial' takes no --address"),
        ({"processes": 2}, "'serial' takes no --processes.*--executor processes or --executor ray"),
        ({"executor": "processes", "processes": 0}, "--processes must be at least 1, not 0"),
        ({"executor": "rya"}, "Closest: 'ray'"),
    ],
)
def test_options_that_an_executor_has_not(given, words):
    """An option that would have no effect is refused."""
    with pytest.raises(ns.InputError, match=words):
        make_executor(given, device="cpu")
