"""`neuronscope paste`: what it says and writes, and that a user's mistake gives one message and exit code 2."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from neuronscope.faces.cli import app as root
from neuronscope.faces.cli.paste import placements_of, read_class_names, run_paste

NETWORK = ["-m", "builtin:viewer-cnn", "-w", "random", "--threads", 1]
GIVEN = {"model": "builtin:viewer-cnn", "weights": "random", "threads": 1, "quiet": True}


def call(*arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors of a command in this process."""
    wide = {"COLUMNS": "200"}  # tables are not to be cut, whatever the terminal
    done = CliRunner().invoke(root.app, ["paste", *(str(one) for one in arguments)], prog_name="neuronscope", env=wide)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An image, an object with its mask, and class names."""
    folder = tmp_path_factory.mktemp("paste")
    rng = np.random.default_rng(0)
    for name in ("image", "object"):
        Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(folder / f"{name}.png")
    mask = np.zeros((28, 28), dtype=np.uint8)
    mask[6:20, 4:16] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(mask[:20]).save(folder / "short.png")
    Image.fromarray(mask * 0).save(folder / "empty.png")
    (folder / "names.txt").write_text("".join(f"n0000000{i} digit {i}, {i}th\n" for i in range(10)), encoding="utf-8")
    (folder / "none.txt").write_text("\n\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def other_class(files):
    """A class that the random network does not see in the image, but in some pasted picture if in any."""
    trials = run_paste(files / "image.png", files / "object.png", GIVEN)
    seen = trials.predicted("object")
    return int(next((one for one in seen if one != trials.image_class), (trials.image_class + 1) % 10))


def test_the_grid_is_counted_drawn_and_written(files, other_class, tmp_path):
    """216 placements and as many of each control: counts by side, a line each in the table, a contact sheet."""
    out = tmp_path / "out"
    code, said, errors = call(
        files / "image.png", files / "object.png", "--mask", files / "mask.png", *NETWORK,
        "--class-names", files / "names.txt", "--target", f"digit {other_class}", "--out", out,
    )  # fmt: skip
    assert code == 0, errors
    for words in ("image image.png", "object object.png", "control: its pixels shuffled", "control: plain grey"):
        assert words in said
    assert f"success: seen as 'digit {other_class}, {other_class}th'" in said
    with (out / "results.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * 216
    assert {line["outcome"] for line in lines} <= {"success", "partial", "failure"}
    assert {int(line["side"]) for line in lines} == {9, 14, 21, 28, 42, 56}
    for line in lines:
        assert (line["outcome"] == "success") == (int(line["predicted"]) == other_class)
        assert line["predicted_name"] == f"digit {line['predicted']}, {line['predicted']}th"
    with Image.open(out / "successes.png") as sheet:
        assert min(sheet.size) > 200


def test_one_place(files, other_class):
    """`--at` asks about one picture only, and says what the network sees in it."""
    code, said, errors = call(
        files / "image.png", files / "object.png", *NETWORK, "--at=-3,4", "--side", 14, "--target", other_class
    )
    assert code == 0, errors
    assert "pasted at -3,4, side 14" in said
    assert "73" not in said.partition("success:")[2]


def test_without_target_nothing_is_a_success(files):
    """Only what became of the predictions is counted."""
    code, said, _ = call(files / "image.png", files / "object.png", *NETWORK, "-q")
    assert code == 0
    assert "no --target: nothing counts as success" in said
    assert "image image.png" not in said


def test_place_and_grid(files):
    """`--at` with `--grid` asks about both, the place first; without a side the object is half the input."""
    subject = run_paste(files / "image.png", files / "object.png", {**GIVEN, "at": (1, 2)})
    assert [(one.x, one.y, one.side) for one in subject.placements] == [(1, 2, 14)]
    both = run_paste(files / "image.png", files / "object.png", {**GIVEN, "at": (1, 2), "grid": True})
    assert len(both.placements) == 217
    assert placements_of.__doc__


def test_class_names_lose_their_wordnet_number(files, tmp_path):
    """`n01440764 tench` is called tench; other names stay as they are, blank lines are no classes."""
    assert read_class_names(files / "names.txt")[3] == "digit 3, 3th"
    (tmp_path / "plain.txt").write_text("nest\n\nn95 mask\nnorth pole\n", encoding="utf-8")
    assert read_class_names(tmp_path / "plain.txt") == ("nest", "n95 mask", "north pole")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.png", "object.png"], "absent.png"),
        (["names.txt", "object.png"], "cannot be read"),
        (["image.png", "object.png", "--mask", "short.png"], "the mask has 20 x 28 pixels, its image 28 x 28"),
        (["image.png", "object.png", "--mask", "empty.png"], "the mask is empty"),
        (["image.png", "object.png", "--target", "cat"], "'cat' is none of the 10 classes"),
        (["image.png", "object.png", "--class-names", "none.txt"], "holds no class names"),
        (["image.png", "object.png", "--class-names", "absent.txt"], "cannot read class names"),
        (["image.png", "object.png", "--at", "5"], "--at takes two whole numbers"),
        (["image.png", "object.png", "--at", "a,b"], "--at takes whole numbers"),
        (["image.png", "object.png", "--at", "1,2", "--side", "0"], "at least 1, got 0"),
        (["image.png", "object.png", "--side", "9"], "no place was given"),
        (["image.png", "object.png", "-m", "builtin:viewer-cn"], "Closest: 'viewer-cnn'"),
    ],
)
def test_refused(files, arguments, words):
    """Files, names and numbers that cannot be: one message, exit code 2, no traceback."""
    named = [files / one if one.endswith((".png", ".txt")) else one for one in arguments]
    code, _, errors = call(*NETWORK, *named)
    assert code == 2
    assert words in errors
    assert "Traceback" not in errors


def test_a_target_that_is_there_already(files):
    """Nothing can be shown where the network sees the target before anything is pasted."""
    trials = run_paste(files / "image.png", files / "object.png", {**GIVEN, "at": (0, 0)})
    code, _, errors = call(files / "image.png", files / "object.png", *NETWORK, "--target", trials.image_class)
    assert code == 2
    assert "in the image already" in errors


def test_help_names_every_option():
    """The two files and all options, with those of the network."""
    code, said, _ = call("--help")
    assert code == 0
    for words in ("IMAGE", "OBJECT", "--mask", "--class-names", "--target", "--grid", "--at", "--side", "--model"):
        assert words in said
