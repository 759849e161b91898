"""The command line as a user meets it: what it writes, what it says, and how it refuses."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from typer.main import get_command
from typer.testing import CliRunner

import neuronscope as ns
from neuronscope.faces.cli import app as root
from neuronscope.faces.cli import console, options, recipes
from neuronscope.faces.cli.demo import run_demo
from neuronscope.faces.cli.run import make_command, study_options
from neuronscope.faces.outputs import write_outputs

# The cheapest study there is: one small layer, few images, few draws.
SMALL = [
    "--layers",
    "fc_layers.4",
    "--draws",
    "19",
    "--splits",
    "1",
    "--top-k",
    "1",
    "--examples",
    "0",
    "--wrong",
    "0",
    "--channels",
    "1",
    "--gallery",
    "1",
]
DIGITS = ["-m", "builtin:viewer-cnn", "-w", "random", "-d", "digits", "--limit", "20"]

NETWORK = """
import torch
from torch import nn

def small(num_classes=2):
    torch.manual_seed(0)
    features = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    module = nn.Sequential(*features, nn.Linear(4, num_classes))
    module.input_shape = (3, 16, 16)
    return module

def huge():
    module = small()
    module[0].weight.data[1] = 3e38
    return module
"""


class Answer:
    """What a command said: exit code, standard output and standard error, with line breaks of boxes undone."""

    def __init__(self, result: Any) -> None:
        """Keep what matters of a result of the runner."""
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.code: int = result.exit_code
        self.out: str = result.stdout
        self.err: str = result.stderr

    @property
    def last(self) -> str:
        """The last line of standard output."""
        return self.out.strip().splitlines()[-1]


def call(*arguments: object) -> Answer:
    """Run a command in this process."""
    return Answer(CliRunner().invoke(root.app, [str(one) for one in arguments], prog_name="neuronscope"))


def refused(answer: Answer, *words: str) -> None:
    """One message, exit code 2, no traceback; the message holds these words."""
    assert answer.code == 2, answer.out + answer.err
    assert "Traceback" not in answer.err
    assert len([line for line in answer.err.splitlines() if line.startswith("error: ")]) == 1, answer.err
    for word in words:
        assert word in answer.err


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, Answer]:
    """A finished run and what it said."""
    out = tmp_path_factory.mktemp("runs") / "layers"
    return out, call("run", "layers", *DIGITS, *SMALL, "--out", out, "--seed", 7, "--export-original")


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder of two classes with three images each."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.jpg")
    return tmp_path / "images"


@pytest.fixture
def network(tmp_path) -> Path:
    """A Python file that makes networks for these images."""
    path = tmp_path / "networks.py"
    path.write_text(NETWORK, encoding="utf-8")
    return path


def on_images(network: Path, images: Path, *, factory: str = "small") -> list[object]:
    """The options of a cheap study of these images."""
    cheap = ["--layers", "conv", *SMALL[2:]]
    return ["run", "layers", "-m", f"python:{network}:{factory}", "-w", "own", "-d", f"folder:{images}", *cheap]


def test_run_writes_everything(finished):
    """A run leaves result, report, tables, figures and the original files, and ends with the report's path."""
    out, answer = finished
    assert answer.code == 0, answer.err
    assert Path(answer.last) == (out / "report.html").resolve()
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    for folder, pattern in (("tables", "*.csv"), ("figures", "*.png"), ("figures", "*.svg"), ("original", "*.csv")):
        assert list((out / folder).glob(pattern)), (folder, pattern)
    assert ns.open(out).provenance.circumstances["seed"] == 7


def test_run_says_what_it_does(finished):
    """The header names network, images and layers; the plan counts passes; headline numbers come at the end."""
    _, answer = finished
    for words in (
        "builtin:viewer-cnn",
        "digits:report[20]",
        "1 with 10 units: fc_layers.4",
        "forward",
        "memory",
        "top-1",
    ):
        assert words in answer.out
    assert "observe: 20 images in" in answer.err


def test_recipe_repeats_the_run(finished, tmp_path):
    """The recipe beside a result makes the same numbers again; flags win over it."""
    out, _ = finished
    again = call("run", "layers", "--recipe", out / "recipe.toml", "--out", tmp_path / "again", "--quiet")
    assert again.code == 0, again.err
    first, second = ns.open(out), ns.open(tmp_path / "again")
    assert first.tree.identical(second.tree)
    assert second.provenance.spec == first.provenance.spec
    assert again.err == ""


def test_report_draws_again(finished):
    """What was deleted beside a result is drawn from it again."""
    out, _ = finished
    before = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    answer = call("report", out)
    assert Path(answer.last).read_bytes() == before


def test_earlier_drawings_go(finished, tmp_path):
    """A second run into the same folder leaves no table or figure of the first, and touches nothing else."""
    out, _ = finished
    result = ns.open(out)
    result.save(tmp_path / "result.zarr")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "of-an-earlier-run.csv").touch()
    (tmp_path / "notes.txt").touch()
    write_outputs(result, tmp_path)
    assert not (tmp_path / "tables" / "of-an-earlier-run.csv").exists()
    assert (tmp_path / "notes.txt").exists()


def test_result_survives_a_failing_drawing(finished, tmp_path):
    """The result is on disk before anything is drawn."""
    out, _ = finished
    (tmp_path / "tables").touch()  # a file where a folder must go
    with pytest.raises(ns.StorageError):
        write_outputs(ns.open(out), tmp_path)
    assert ns.open(tmp_path).tree.identical(ns.open(out).tree)


def test_plan_stops(tmp_path):
    """`--plan` says what would be done and writes nothing."""
    answer = call("run", "layers", *DIGITS, *SMALL, "--out", tmp_path / "plan", "--plan")
    assert answer.code == 0
    assert "backward" in answer.out
    assert "about" in answer.out
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--layers", "conv_layer.0"], ["'conv_layer.0'", "Closest: 'conv_layers.0'", "neuronscope list layers"]),
        (["--data", "digitz"], ["'digitz'", "Closest: 'digits'"]),
        (["--split", "tset"], ["'tset'", "train"]),
        (["--model", "builtin:viewer-cn"], ["'viewer-cn'", "viewer-cnn"]),
        (["--draws", "3"], ["--draws", "greater than or equal to 19", "got 3"]),
        (["--examples", "1,two"], ["--examples", "whole numbers", "1,two"]),
        (["--legacy", "raw-imput"], ["'raw-imput'", "Closest: 'raw-input'"]),
        (["--executor", "serail"], ["'serail'", "Closest: 'serial'"]),
        (["--resize", "1,2,3"], ["--resize", "1 or 2 numbers", "got 3"]),
        (["--batch-size", "0"], ["batch_size", "at least 1"]),
        (["--seed", "-1"], ["seed", "0 or more"]),
        (["--device", "cuda:99"], ["cuda:99"]),
        (["--recipe", "gone.toml"], ["gone.toml"]),
    ],
)
def test_wrong_options(tmp_path, changes, words):
    """A wrong name or number is one message that says what was expected, before anything is computed."""
    if changes[0] == "--device" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device: what an unknown number gives is for PyTorch to say")
    answer = call("run", "layers", *DIGITS, *SMALL, "--out", tmp_path / "out", *changes)
    refused(answer, *words)
    assert not (tmp_path / "out" / "result.zarr").exists()


@pytest.mark.parametrize("missing", ["--model", "--weights", "--data"])
def test_needed_options(tmp_path, missing):
    """Network, weights and images have no default."""
    given = {"--model": "builtin:viewer-cnn", "--weights": "random", "--data": "digits"}
    del given[missing]
    answer = call("run", "layers", *(part for pair in given.items() for part in pair), "--out", tmp_path / "out")
    refused(answer, missing)


def test_weights_of_another_architecture(tmp_path):
    """Weights that do not fit are refused with the keys and shapes that differ."""
    torch.save({"conv1.weight": torch.zeros(8, 3, 7, 7)}, tmp_path / "other.pth")
    answer = call("run", "layers", *DIGITS, "-w", tmp_path / "other.pth", "--out", tmp_path / "out")
    refused(answer, "other.pth", "conv1.weight")


def test_nan_weights(tmp_path):
    """Weights that hold NaN are refused at once."""
    subject = ns.load_model("builtin:viewer-cnn", weights="random")
    state = subject.module.state_dict()
    state["conv_layers.0.weight"][0] = float("nan")
    torch.save(state, tmp_path / "broken.pth")
    answer = call("run", "layers", *DIGITS, "-w", tmp_path / "broken.pth", "--out", tmp_path / "out")
    refused(answer, "broken.pth", "conv_layers.0.weight")


def test_truncated_image(tmp_path, images, network):
    """A torn image is named by default, and left out with a count when asked; the rest is studied."""
    torn = images / "cat" / "1.jpg"
    torn.write_bytes(torn.read_bytes()[:200])
    refused(call(*on_images(network, images), "--out", tmp_path / "out"), "1.jpg")
    skipped = call(*on_images(network, images), "--out", tmp_path / "out", "--on-error", "skip")
    assert skipped.code == 0, skipped.err
    assert "1 images could not be read and were left out: cat/1.jpg" in skipped.err
    assert ns.open(tmp_path / "out").provenance.images == 5


def test_label_outside_the_classes(tmp_path, images, network):
    """Images of more classes than the network has outputs are refused before the run."""
    (images / "emu").mkdir()
    Image.new("RGB", (16, 16)).save(images / "emu" / "0.jpg")
    refused(call(*on_images(network, images), "--out", tmp_path / "out"), "3 classes", "2 outputs")


def test_infinite_activations(tmp_path, images, network):
    """A network that overflows gives a complete, saved result, a list of the units concerned, and exit code 2."""
    answer = call(*on_images(network, images, factory="huge"), "--out", tmp_path / "out")
    refused(answer, "complete and saved", "0 (1 units)")
    assert Path(answer.last).exists()
    assert ns.open(tmp_path / "out").provenance.nonfinite == {"0": (1,)}


def test_output_folder_is_tried_first(tmp_path):
    """A folder that cannot be written is refused before anything is loaded."""
    (tmp_path / "file").touch()
    answer = call("run", "layers", "-m", "nothing:there", "-d", "nothing", "--out", tmp_path / "file" / "out")
    refused(answer, "cannot write to the output folder", "choose another --out")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="an administrator may write everywhere")
def test_read_only_folder(tmp_path):
    """A read-only folder is refused, too."""
    (tmp_path / "shut").mkdir(mode=0o500)
    refused(call("run", "layers", *DIGITS, "--out", tmp_path / "shut" / "out"), "Permission denied")


def test_unknown_flag_and_command():
    """Usage errors offer the nearest flag or command, with exit code 2."""
    flag = call("run", "layers", "--layer", "conv")
    assert (flag.code, "--layers" in flag.err) == (2, True)
    command = call("run", "layrs")
    assert (command.code, "'layers'" in command.err) == (2, True)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "stopped"),
        (MemoryError(), 2, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "--batch-size"),
        (OSError(28, "No space left on device", "runs/a"), 2, "no space left on the disk at runs/a"),
        (ns.StorageError("cannot write [x]"), 2, "error: cannot write [x]"),
    ],
)
def test_errors_become_messages(capsys, error, code, words):
    """What the user or the machine did is one message; nothing in it is taken for markup."""
    with pytest.raises(typer.Exit) as caught, console.answering(debug=False):
        raise error
    assert caught.value.exit_code == code
    assert words in capsys.readouterr().err


def test_faults_stay_loud():
    """A fault of the program keeps its traceback, and `--debug` keeps them all."""
    with pytest.raises(RuntimeError, match="a fault"), console.answering(debug=False):
        raise RuntimeError("a fault")  # noqa: EM101, TRY003 the text is what is looked for
    with pytest.raises(ns.InputError), console.answering(debug=True):
        raise ns.InputError("seen")  # noqa: EM101 as above
    with pytest.raises(ns.UnknownName):
        call("--debug", "list", "layers", "builtin:nothing")


def test_train(tmp_path):
    """Training leaves a checkpoint that can be looked into, its history, its curves and a report."""
    out = tmp_path / "trained"
    answer = call("train", "-d", "digits", "--limit", 60, "--channels", "4,8", "--epochs", 1, "--out", out)
    assert answer.code == 0, answer.err
    assert "test accuracy" in answer.out
    assert f"--model file:{out / 'model.pt'}" in answer.out
    assert "epoch 1: loss" in answer.err
    assert Path(answer.last) == (out / "report.html").resolve()
    assert (out / "history.csv").read_text(encoding="utf-8").startswith("iteration,")
    with Image.open(out / "curves.png") as both, Image.open(out / "figures" / "training_loss.png") as one:
        assert both.width > one.width
    listed = call("list", "layers", f"file:{out / 'model.pt'}", "--layers", "conv", "--format", "json")
    assert [row["units"] for row in json.loads(listed.out)] == [4, 8]


def test_train_needs_images_to_test_on(images):
    """A folder without a word on what to test on, and the same images for both, are refused."""
    refused(call("train", "-d", f"folder:{images}"), "--test-data")
    refused(call("train", "-d", "digits", "--split", "report", "--epochs", 1), "both to train and to test on")
    refused(call("train", "-d", "digits", "--epochs", 0), "--epochs")


def test_demo(tmp_path, capsys):
    """The demo leaves an index that leads to a report for the training and for each study, and says how to go on."""
    run_demo(tmp_path, seed=0, quiet=True, spec=ns.TrainSpec(channels=(2,), epochs=1))
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    for chapter in ("training", *ns.STUDIES):
        assert f'href="{chapter}/report.html"' in index
        assert (tmp_path / chapter / "report.html").exists()
    said = capsys.readouterr().out
    assert said.strip().splitlines()[-1] == str((tmp_path / "index.html").resolve())
    for words in ("Test accuracy", "selective units", "dead units", "--model torchvision:resnet18"):
        assert words in said


def test_list():
    """Lists are tables for people and JSON or CSV for programs."""
    layers = call("list", "layers", "builtin:viewer-cnn", "--layers", "conv")
    assert "conv_layers.0" in layers.out
    assert "3x3" in layers.out
    rows = list(csv.DictReader(io.StringIO(call("list", "layers", "builtin:viewer-cnn", "-f", "csv").out)))
    assert rows[0] == {
        "name": "conv_layers.0",
        "kind": "conv",
        "shape": "32x28x28",
        "units": "32",
        "receptive field": "3x3",
        "stride": "1x1",
    }
    for what, table in (("data", ns.DATA_SOURCES), ("executors", ns.EXECUTORS)):
        found = json.loads(call("list", what, "-f", "json").out)
        assert [row["name"] for row in found] == list(table)
        assert all(row["what"] for row in found)
    assert [row["name"] for row in json.loads(call("list", "models", "-f", "json").out)] == [
        f"{name}:..." for name in ns.MODEL_SOURCES
    ]
    assert "layers --legacy raw-input" in call("list", "studies").out


def test_data_show(images):
    """Images are counted by class."""
    shown = call("data", "show", f"folder:{images}")
    assert "images       6" in shown.out
    assert ns.load_data(f"folder:{images}").fingerprint in shown.out


def test_sort_imagenet(tmp_path):
    """A dry run says what would move; the real one moves it; a second one finds everything in place."""
    flat = tmp_path / "val"
    flat.mkdir()
    Image.new("RGB", (8, 8)).save(flat / "a.JPEG")
    (tmp_path / "labels.csv").write_text("image,wnid\na.JPEG,n01440764\n", encoding="utf-8")
    dry = call("data", "sort-imagenet", flat, tmp_path / "labels.csv", "--dry-run")
    assert "would move  1 images" in dry.out, dry.err
    assert (flat / "a.JPEG").exists()
    assert "moved  1 images" in call("data", "sort-imagenet", flat, tmp_path / "labels.csv").out
    assert (flat / "n01440764" / "a.JPEG").exists()
    assert "in place already  1" in call("data", "sort-imagenet", flat, tmp_path / "labels.csv").out


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """All commands below one, late ones included, by what is typed."""
    yield name, command
    for inner, found in getattr(command, "commands", {}).items():
        late = root.LATE.get(inner) if name == "neuronscope" else None
        yield from commands(late() if late is not None else found, f"{name} {inner}")


def test_everything_is_documented():
    """Every command has a help text and examples, every option says what it means."""
    found = dict(commands(get_command(root.app), "neuronscope"))
    assert {"neuronscope run layers", "neuronscope train", "neuronscope list layers"} <= set(found)
    for name, command in found.items():
        assert command.help, name
        if not getattr(command, "commands", None):
            assert command.epilog.count(name) >= 2, f"{name} has too few examples"
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_specs_are_documented():
    """Every field of a study's spec becomes a flag with a help text, and none clashes with a shared one."""
    for study in ns.STUDIES.values():
        keys = [option.key for option in study_options(study)]
        assert len(keys) == len(set(keys))
        assert {"layers", "legacy"} <= set(keys)


@checked_dataclass(frozen=True)
class ToySpec:
    """Options of a study that does nothing."""

    layers: Annotated[tuple[str, ...], Field(description="layers")] = ()
    depth: Annotated[int | None, Field(description="how deep", ge=1)] = None
    rates: Annotated[tuple[float, ...], Field(description="how fast")] = (0.5, 1.0)
    method: Annotated[Literal["a", "b"], Field(description="which way")] = "a"
    legacy: Annotated[tuple[str, ...], Field(description="deviations")] = ()


def test_a_new_study_needs_no_code_here(tmp_path, finished):
    """A row of the table is a command: its flags, their types and their help come from the spec."""
    seen: list[Any] = []

    def run(subject: ns.Subject, data: ns.Data, spec: Any, *, run: ns.Run) -> ns.Result:
        seen.append((subject.name, data.name, spec, run.seed))
        return ns.open(finished[0])

    layers = ns.STUDIES["layers"]
    toy = replace(layers, name="toy", question="Nothing?", spec=ToySpec, run=run, plan=lambda *_, **__: ns.Plan(()))
    toys = typer.Typer()
    toys.command("toy")(make_command(toy))
    given = [*DIGITS, "--depth", "3", "--rates", "0.1,2", "--rates", "3", "--method", "b", "--layers", "conv,relu"]
    answer = Answer(CliRunner().invoke(toys, [*given, "--out", str(tmp_path / "toy"), "--seed", "4"]))
    assert answer.code == 0, answer.err
    spec = ToySpec(layers=("conv", "relu"), depth=3, rates=(0.1, 2.0, 3.0), method="b")
    assert seen == [("builtin:viewer-cnn", "digits:report[20]", spec, 4)]
    read = recipes.read_recipe(tmp_path / "toy" / "recipe.toml", options=study_options(toy), study="toy")
    assert ToySpec(**read["study"]) == spec
    shown = CliRunner().invoke(toys, ["--help"], env={"COLUMNS": "200"}).stdout
    for words in ("How deep.", "[default: 0.5,1.0]", "a|b"):
        assert words in shown


def test_clashing_fields_are_refused():
    """A spec cannot take a name that means something else for all studies."""

    @checked_dataclass(frozen=True)
    class Clash:
        layers: tuple[str, ...] = ()
        seed: int = 1

    with pytest.raises(ns.InputError, match="seed"):
        study_options(replace(ns.STUDIES["layers"], spec=Clash))


@pytest.mark.parametrize(
    ("text", "parts"),
    [("a,b", ["a", "b"]), (" a , ", ["a"]), ("fc:0-3,7,conv", ["fc:0-3,7", "conv"]), ("1,2", ["1", "2"]), ("", [])],
)
def test_split(text, parts):
    """Commas part values, but not the units of one layer."""
    assert options.split(text) == parts


def test_starts_quickly():
    """`--help` and `--version` do not wait for torch."""
    program = "import sys; from neuronscope.faces.cli.app import app; app(['--help'], standalone_mode=False); "
    done = subprocess.run(
        [sys.executable, "-c", program + "print('torch' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
    assert f"neuronscope {ns.__version__}" in call("--version").out


def test_as_a_process(tmp_path):
    """The installed entry point answers a mistake with one line on standard error and exit code 2."""
    program = "from neuronscope.faces.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "list", "layers", "builtin:viewer-cnn", "--layers", "conf"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("error: layer, glob or kind 'conf' is not in builtin:viewer-cnn")


@pytest.mark.parametrize(
    ("what", "line", "bar"), [("images", "a: 2,500 images in", "2500/?"), ("bytes", "a: 2.5 kB in", "2.5/? kB")]
)
def test_progress_counts_what_it_was_told(what, line, bar, capsys):
    """Images are counted as images and bytes as sizes, in plain lines and in a bar; an unknown total is no fault."""
    for progress, expected in ((console.Lines(what), line), (console.Bar(what), bar)):
        progress.start("a", 0)
        progress.advance(2000)
        progress.advance(500)
        progress.finish()
        assert expected in capsys.readouterr().err
