"""`neuronscope run sensitivity --segments`: from a file of units to a page, and one message for whatever is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from neuronscope.faces.cli import app as root
from neuronscope.models.segments import Segment, write_segments
from neuronscope.result import open_result

SMALL = {
    "--points": 8,
    "--replicates": 4,
    "--permutations": 8,
    "--augmentations": "brightness,hue",
    "--factors": "class",
    "--second-order": "none",
    "--shown-units": 2,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Ten classes of two noisy colour images."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(10):
        (folder / f"class{number}").mkdir()
        for image in range(2):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class{number}" / f"{image}.png")
    return folder


@pytest.fixture
def units(tmp_path):
    """A segment of the built-in network of colour images."""
    first = Segment("first", ("conv0", "relu0", "bn1"), (3, 17), reasons=((17, ("hue", "si", "2")),))
    path = tmp_path / "units.json"
    write_segments(path, [first])
    return path


def call(images, units, *more, model="builtin:subnet-cifar10"):
    """Run the command in this process: exit code, what it said, and its errors."""
    run = [
        "run",
        "sensitivity",
        "-m",
        model,
        "-w",
        "random",
        "-d",
        f"folder:{images}",
        "--segments",
        units,
        *(part for pair in SMALL.items() for part in pair),
        *more,
    ]
    answer = CliRunner().invoke(root.app, [str(one) for one in run], prog_name="neuronscope")
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return answer.exit_code, answer.stdout, answer.stderr


def test_from_units_to_a_page(images, units, tmp_path):
    """A plan, a run, a page that shows each unit by its number, channel and reason, and files of the original."""
    code, said, _ = call(images, units, "--plan", "--out", tmp_path / "out")
    assert code == 0
    assert "first.hue, first.saturation, first.value" in said
    less = ("--channels", "hue,saturation", "--estimators", "sobol")  # drawing is slow
    code, said, error = call(images, units, *less, "--export-original", "--out", tmp_path / "out")
    assert code == 0, said + error
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for words in ("first:17 total index, saturation", "listed for hue si 2", "conv0, relu0, bn1", "Units by channel"):
        assert words in page
    assert len(list((tmp_path / "out" / "original").glob("hue_*_selected_single_units_*.hdf5"))) == 2
    assert open_result(tmp_path / "out").table["index"].to_numpy().tolist() == [3, 17] * 2


@pytest.mark.parametrize(
    ("content", "more", "words"),
    [
        ('[{"modules_names": ["conv0"', (), "is no whole JSON file"),
        ({"modules_names": ["conv00"]}, (), "segment 'a': layer 'conv00' is not in"),
        ({"modules_names": ["conv0", "conv2"], "neurons": {"conv0": {"1": []}}}, (), "After 'conv0' comes 'relu0'"),
        ({"modules_names": ["dense19"]}, (), "a Linear: expected a convolution"),
        ({"neurons": {"conv0": {"64": []}}}, (), "unit 64 is not in segment 'a'"),
        ({}, ("--estimators", "contrast"), "'contrast' cannot be had of segments"),
        ({}, ("--channels", "hues"), "hue"),
        ({}, ("--layers", "a.hues"), "'a.hues' is no layer of the segments"),
    ],
)
def test_one_message_for_what_is_wrong(images, tmp_path, content, more, words):
    """Exit code 2, and one line that says what to do."""
    if isinstance(content, dict):
        module = content.get("modules_names", ["conv0"])[0]
        content = json.dumps(
            [
                {
                    "modules_names": [module],
                    "neurons": {module: {"1": []}},
                    "module_type": "sequential",
                    "unit_name": "a",
                    **content,
                }
            ]
        )
    (tmp_path / "units.json").write_text(content, encoding="utf-8")
    code, said, error = call(images, tmp_path / "units.json", *more, "--out", tmp_path / "out")
    assert code == 2, said + error
    assert words in error
    assert "Traceback" not in error


def test_grey_networks_and_missing_files(images, units, tmp_path):
    """A network of grey images has no channels of colour; a file that is not there is answered with the presets."""
    code, _, error = call(images, units, "--out", tmp_path / "out", model="builtin:viewer-cnn")
    assert code == 2
    assert "takes images of 1 channel" in error
    code, _, error = call(images, tmp_path / "unitss.json", "--out", tmp_path / "out")
    assert code == 2
    assert "alexnet, resnet18" in error
