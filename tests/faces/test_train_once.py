"""A recipe that trains its network: once, with exactly these settings, and never over another network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import neuronscope as ns
from neuronscope.faces.cli import app as root

TABLE = """
[train]
data = "digits"
limit = 40
channels = [2, 4]
epochs = 1
validation = 0.25
threads = 1
out = {network!r}
"""
STUDY = """
[data]
data = "digits"
limit = 20

[study]
name = "layers"
layers = "fc_layers.4"
draws = 20
splits = 2
gallery = 0
"""


class Answer:
    """What a command said."""

    def __init__(self, result: Any) -> None:
        """Take it apart."""
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr


def call(*arguments: object) -> Answer:
    """Run a command in this process."""
    return Answer(CliRunner().invoke(root.app, [str(one) for one in arguments], prog_name="neuronscope"))


def refused(answer: Answer, *words: str) -> None:
    """One message with these words, and exit code 2."""
    assert answer.code == 2, answer.out + answer.err
    assert len([line for line in answer.err.splitlines() if line.startswith("error: ")]) == 1, answer.err
    for word in words:
        assert word in answer.err


@pytest.fixture
def recipe(tmp_path) -> Path:
    """A recipe that trains into `network`."""
    return written(tmp_path / "recipe.toml")


def written(path: Path, table: str = TABLE) -> Path:
    """A recipe with this table [train], beside which the network goes."""
    path.write_text(table.format(network=str(path.parent / "network")) + STUDY, encoding="utf-8")
    return path


def study(recipe: Path, *more: object) -> Answer:
    """What the study of a recipe says."""
    return call("run", "layers", "--recipe", recipe, "--out", recipe.parent / "study", *more)


def test_trains_once(tmp_path, recipe):
    """The first run trains, the second uses what is there; both look into the same network."""
    first = study(recipe)
    assert first.code == 0, first.err
    assert "epoch 1: loss" in first.err
    model = tmp_path / "network" / "model.pt"
    before, result = model.stat().st_mtime_ns, ns.open(tmp_path / "study")
    assert result.provenance.subject == f"file:{model}"

    second = study(recipe)
    assert second.code == 0, second.err
    assert "epoch" not in second.err
    assert "is there already" in second.out
    assert model.stat().st_mtime_ns == before
    assert ns.open(tmp_path / "study").tree.identical(result.tree)


def test_written_recipe_repeats_the_training(tmp_path, recipe):
    """The recipe beside a result holds the training as well: with the network gone, it makes the same one again."""
    assert study(recipe).code == 0
    fingerprint = ns.open(tmp_path / "study").provenance.subject_fingerprint
    (tmp_path / "network" / "model.pt").unlink()
    again = call("run", "layers", "--recipe", tmp_path / "study" / "recipe.toml", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    assert "epoch 1: loss" in again.err
    assert ns.open(tmp_path / "again").provenance.subject_fingerprint == fingerprint


def test_other_settings_are_refused(tmp_path, recipe):
    """A network with other settings is neither used nor trained over; the message names what differs and a way out."""
    assert study(recipe).code == 0
    model = tmp_path / "network" / "model.pt"
    before = model.read_bytes()
    changed = TABLE.replace("epochs = 1", "epochs = 2\nseed = 3")
    for more in ([], ["--plan"]):
        answer = study(written(tmp_path / "other.toml", changed), *more)
        refused(
            answer, "epochs (1 there, 2 asked for)", "seed (0 there, 3 asked for)", "another out", "delete the folder"
        )
        assert "limit" not in answer.err
    assert model.read_bytes() == before
    (tmp_path / "network" / "train.toml").unlink()
    refused(study(recipe), "no train.toml", "another out")


def test_circumstances_may_differ(tmp_path, recipe):
    """Threads, and a limit written as its default, are no other training."""
    assert study(recipe).code == 0
    changed = TABLE.replace("threads = 1", 'threads = 2\noptimiser = "adam"')
    answer = study(written(tmp_path / "other.toml", changed))
    assert answer.code == 0, answer.err
    assert "is there already" in answer.out


def test_same_images_from_elsewhere(tmp_path):
    """Images that moved are told by their content: the same ones will do, others are refused."""
    rng = np.random.default_rng(0)
    for place in ("here", "there", "else"):
        for number in range(8):
            split, name = ("train", "test")[number % 2], "cat" if number < 4 else "dog"
            path = tmp_path / place / split / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(rng.permutation(pixels) if place == "else" else pixels).save(path)

    def recipe(place: str) -> Path:
        """The recipe with its images in this place."""
        table = f'[train]\ndata = "folder:{tmp_path / place}"\nsplit = "train"\ntest_split = "test"\nchannels = [2]\n'
        return written(tmp_path / f"{place}.toml", table + "image = 8\nepochs = 1\nout = {network!r}\n")

    trained = study(recipe("here"), "--data", f"folder:{tmp_path / 'here'}", "--split", "test")
    assert trained.code == 0, trained.err
    moved = study(recipe("there"), "--data", f"folder:{tmp_path / 'there'}", "--split", "test")
    assert moved.code == 0, moved.err
    assert "is there already" in moved.out
    refused(study(recipe("else"), "--data", f"folder:{tmp_path / 'else'}", "--split", "test"), "data (folder:")


def test_plan_trains_nothing(tmp_path, recipe):
    """A plan says that it would train first, and plans the study with a network of that form."""
    answer = study(recipe, "--plan")
    assert answer.code == 0, answer.err
    assert "would train first: viewer-cnn on digits:train[40]" in answer.out
    assert "not trained yet" in answer.out
    assert "forward" in answer.out
    assert not (tmp_path / "network").exists()
    assert study(recipe).code == 0
    assert "would train" not in study(recipe, "--plan").out


def test_another_network_needs_no_training(tmp_path, recipe):
    """Where another network is named, nothing is trained."""
    answer = study(recipe, "--model", "builtin:viewer-cnn", "--weights", "random")
    assert answer.code == 0, answer.err
    assert not (tmp_path / "network").exists()
    assert "[train]" not in (tmp_path / "study" / "recipe.toml").read_text(encoding="utf-8")


def test_one_folder_for_both_is_refused(tmp_path, recipe):
    """The study must not write over the report of its training."""
    refused(call("run", "layers", "--recipe", recipe, "--out", tmp_path / "network"), "both write to")


def test_train_reads_the_same_table(tmp_path, recipe):
    """`train` takes the table of the recipe, flags win over it, and the record beside the network repeats it."""
    answer = call("train", "--recipe", recipe)
    assert answer.code == 0, answer.err
    assert "is there already" in study(recipe).out
    model = tmp_path / "network" / "model.pt"
    first = ns.load_model(f"file:{model}").fingerprint
    assert call("train", "--recipe", recipe, "--seed", 5).code == 0
    refused(study(recipe), "seed (5 there, 0 asked for)")
    again = call("train", "--recipe", tmp_path / "network" / "train.toml", "--seed", 0)
    assert again.code == 0, again.err
    assert ns.load_model(f"file:{model}").fingerprint == first


def test_train_needs_a_table(tmp_path):
    """A recipe without a training, or with an unknown key in it, is refused."""
    path = tmp_path / "recipe.toml"
    path.write_text(STUDY, encoding="utf-8")
    refused(call("train", "--recipe", path), "no table [train]")
    refused(call("train", "--recipe", written(path, "[train]\nepoch = 1\n")), "'epoch' in [train]", "Closest: 'epochs'")


@pytest.mark.parametrize("name", ["importance-mnist", "importance-cifar10"])
def test_shipped_recipes(name, tmp_path):
    """The recipes in the repository hold known keys, and take the place of the images from the command line."""
    path = Path(__file__).parents[2] / "recipes" / f"{name}.toml"
    answer = call(
        "run", "importance", "--recipe", path, "--data", f"mnist:{tmp_path / 'nowhere'}", "--no-download", "--plan"
    )
    refused(answer, "nowhere")
