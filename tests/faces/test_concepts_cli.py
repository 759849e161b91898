"""Concepts at the command line: the images come with the concepts, sets are looked through before they are used."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import neuronscope as ns
from neuronscope.faces.cli import app as root
from neuronscope.faces.cli.run import study_options

# The cheapest study there is: a few digits, one small layer, pairs of labels.
SMALL = ["--concept-limit", 40, "--layers", "conv_layers.1", "--length", 2, "--draws", 20, "--cards", 1, "--images", 1]
NETWORK = ["-m", "builtin:viewer-cnn", "-w", "random"]


def call(*arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors of a command in this process."""
    done = CliRunner().invoke(root.app, [str(one) for one in arguments], prog_name="neuronscope")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """A finished run without `--data`, and what it said."""
    out = tmp_path_factory.mktemp("runs") / "concepts"
    code, said, errors = call("run", "concepts", *NETWORK, *SMALL, "--concepts", "digits", "--out", out, "--seed", 3)
    assert code == 0, errors
    return out, said


@pytest.fixture
def mine(tmp_path) -> Path:
    """Four images with label maps of one's own: sky above grass."""
    for folder in ("images", "masks"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
    numbers = np.repeat(np.array([[1], [2]], dtype=np.uint8), [8, 8], axis=0).repeat(16, axis=1)
    for name in ("a", "b", "c", "d"):
        Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(tmp_path / "mine" / "images" / f"{name}.png")
        Image.fromarray(numbers).save(tmp_path / "mine" / "masks" / f"{name}.png")
    (tmp_path / "mine" / "labels.csv").write_text("number,name,category\n1,sky,stuff\n2,grass,stuff\n", "utf-8")
    return tmp_path / "mine"


def test_images_come_with_the_study(finished):
    """No `--data`: the images are those of the concepts, and the report is there."""
    out, said = finished
    assert "images   digits:report[40]" in said
    assert (out / "report.html").exists()
    assert ns.open(out).provenance.data == "digits:report[40]"


def test_recipe_repeats_the_run(finished, tmp_path):
    """The written recipe names no images either, and gives the same formulas."""
    out, _ = finished
    assert "[data]" not in (out / "recipe.toml").read_text(encoding="utf-8")
    assert call("run", "concepts", "--recipe", out / "recipe.toml", "--out", tmp_path, "-q")[0] == 0
    first, again = ns.open(out), ns.open(tmp_path)
    np.testing.assert_array_equal(first.table["formula"], again.table["formula"])
    np.testing.assert_array_equal(first.table["held_out"], again.table["held_out"])


def test_plan_stops(tmp_path):
    """The plan knows the images, too; nothing is written."""
    code, said, _ = call("run", "concepts", *NETWORK, *SMALL, "--plan", "--out", tmp_path / "none")
    assert code == 0
    assert "thresholds" in said
    assert not (tmp_path / "none").exists()


def test_labels_need_not_be_the_networks(mine, tmp_path):
    """Images of concepts have other classes than the network, or none; that is no reason to refuse them."""
    classes = tmp_path / "classes"
    rng = np.random.default_rng(0)
    for name in ("dotted", "striped", "plain"):
        (classes / name).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (28, 28), dtype=np.uint8)
            Image.fromarray(pixels).save(classes / name / f"{number}.png")
    for source in (
        f"classes:{classes}",
        f"labelmaps:{mine}/images,{mine}/masks,{mine}/labels.csv",
    ):
        code, _, errors = call("run", "concepts", *NETWORK, "--concepts", source, *SMALL[2:], "--plan")
        assert code == 0, errors


def test_commas_belong_to_a_source():
    """`coco:IMAGES,JSON` is one source, not two; several are given one after another, or as a list in a recipe."""
    [option] = [one for one in study_options(ns.STUDIES["concepts"]) if one.key == "concepts"]
    assert (option.many, option.commas) == (True, "belong")
    code, _, errors = call(
        "run", "concepts", *NETWORK, "--concepts", "digits", "--concepts", "coco:absent,absent.json", "--plan"
    )
    assert code == 2
    assert "Check the path in 'coco:absent,absent.json'" in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--limit", "5"], "--limit chooses among the images of --data, but none were named"),
        (["-d", "digits", "--limit", "5"], "Leave --data out"),
        (["--concepts", "digit"], "Closest: 'digits'"),
        (["--categories", "strokes"], "Closest: 'stroke'"),
    ],
)
def test_refused(tmp_path, arguments, words):
    """Images that are not those of the concepts, and names that do not exist."""
    code, _, errors = call("run", "concepts", *NETWORK, *arguments, "--out", tmp_path / "none")
    assert code == 2
    assert words in errors


def test_other_studies_still_need_images(tmp_path):
    """Only a study that brings images along can do without `--data`."""
    code, _, errors = call("run", "layers", *NETWORK, "--out", tmp_path)
    assert code == 2
    assert "no images were named" in errors


def test_check(mine):
    """Counts of what is in it; all is well."""
    code, said, _ = call("concepts", "check", f"labelmaps:{mine}")
    assert code == 0
    for words in ("4 images, 2 concepts (2 occur)", "labelled 100.0%", "signatures  2 distinct", "no problems"):
        assert words in said


def test_check_combines_and_chooses(mine):
    """Several sources, some of their categories, a few of their images, smaller masks."""
    code, said, _ = call(
        "concepts", "check", "digits", f"labelmaps:{mine}", "--categories", "hole,stuff", "--limit", 4, "--side", 8
    )
    assert code == 1
    assert "no category 'hole'" in said
    code, said, _ = call(
        "concepts", "check", "digits", f"labelmaps:{mine}", "--categories", "shape,stuff", "--limit", 4, "--side", 8
    )
    assert code == 0, said
    for words in ("4 images", "masks       8 x 8", "shape", "stuff"):
        assert words in said


def test_check_finds_everything(mine):
    """Every problem by its file, and an exit code that a script can go by."""
    Image.fromarray(np.full((16, 16), 9, dtype=np.uint8)).save(mine / "masks" / "a.png")
    (mine / "masks" / "b.png").unlink()
    code, said, _ = call("concepts", "check", f"labelmaps:{mine}")
    assert code == 1
    for words in ("error: ", "a.png", "b.png"):
        assert words in said


def test_check_can_fail_on_warnings(mine):
    """A concept in no image is a warning."""
    with (mine / "labels.csv").open("a", encoding="utf-8") as table:
        table.write("3,cloud,stuff\n")
    code, said, _ = call("concepts", "check", f"labelmaps:{mine}")
    assert code == 0
    assert "warning: concept 3 'cloud'" in said
    assert call("concepts", "check", f"labelmaps:{mine}", "--fail-on", "warning")[0] == 1


def test_list(mine):
    """The concepts, to read or for programs; what nobody has counted is empty."""
    code, said, _ = call("concepts", "list", "digits", "--categories", "stroke,digit")
    assert code == 0
    for words in ("digits:report: 14 concepts, 719 images", "horizontal stroke", "digit 0"):
        assert words in said
    assert "junction" not in said
    rows = list(csv.DictReader(io.StringIO(call("concepts", "list", f"labelmaps:{mine}", "--format", "csv")[1])))
    assert rows[0] == {"number": "1", "name": "sky", "category": "stuff", "level": "pixel", "images": ""}
    assert json.loads(call("concepts", "list", "digits", "-f", "json")[1])[4]["name"] == "hole"
    assert "check counts them" in call("concepts", "list", f"labelmaps:{mine}")[1]
