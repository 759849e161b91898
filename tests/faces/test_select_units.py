"""`neuronscope select-units`: what it says and writes, and that a user's mistake gives one message and exit code 2."""

from __future__ import annotations

from dataclasses import replace

import pytest
from typer.testing import CliRunner

import neuronscope as ns
from neuronscope.faces.cli import app as root


def call(*arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors of a command in this process."""
    wide = {"COLUMNS": "200"}  # tables are not to be cut, whatever the terminal
    line = ["select-units", *(str(one) for one in arguments)]
    done = CliRunner().invoke(root.app, line, prog_name="neuronscope", env=wide)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A small finished run: two layers of convolutions, and the classifier."""
    spec = ns.SensitivitySpec(
        layers=("conv_layers.0", "conv_layers.3", "fc_layers.3"),
        augmentations=("brightness", "rotation"),
        estimators=("sobol",),
        points=64,
        replicates=8,
        stop="never",
    )
    subject = ns.load_model("builtin:viewer-cnn", weights="random")
    found = ns.run_sensitivity(subject, ns.load_data("digits", limit=100), spec, run=ns.Run(threads=1))
    return found, found.save(tmp_path_factory.mktemp("finished") / "run")


def test_chosen_units_are_written_and_said(run_folder, tmp_path):
    """The file holds what `select_units` chooses, the table says how many there were; a second call replaces it."""
    result, folder = run_folder
    out = tmp_path / "deep" / "units.json"
    code, said, errors = call(folder, "--out", out, "--top", 2, "--values", "total", "--above", "0.05")
    assert code == 0, errors
    expected = ns.select_units([result], values=("total",), top=2, above=0.05)
    assert ns.read_segments(out) == expected.segments
    assert {one.name for one in expected.segments} <= {"conv_layers-0", "conv_layers-3"}
    assert "left out, as no piece of the network ends there: fc_layers.3" in said
    row = expected.counts.iloc[0]
    assert all(str(part) in said for part in (row["layer"], row["tests"], row["told"], row["reasons"]))
    assert "brightness" in said
    assert str(out.resolve()) in said.replace("\n", "")
    code, _, errors = call(folder, "--out", out, "--values", "total", "--factors", "brightness", "--above", 0)
    assert code == 0, errors
    assert {why[0] for one in ns.read_segments(out) for _, why in one.reasons} == {"brightness"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--above", "0.99"], "Lower --above"),
        (["--values", "frist"], "'frist' is no value to choose by. Closest: 'first'"),
        (["--values", "shapley"], "the value 'shapley' is in no result"),
        (["--segments", "none.json"], "there is no file 'none.json'"),
        (["--segments", "alexnet"], "no layer of the results ends a segment: expected some of features.2"),
        (["--layers", "conv"], "layer 'conv' is in no result"),
    ],
)
def test_mistakes_have_one_message(run_folder, tmp_path, arguments, message):
    """Exit code 2, one message, nothing written."""
    code, _, errors = call(run_folder[1], *arguments, "--out", tmp_path / "units.json")
    assert code == 2
    assert message in errors
    assert not (tmp_path / "units.json").exists()


def test_a_preset_of_another_network_and_a_folder_without_result_are_refused(run_folder, tmp_path):
    """A preset is of the network of its name; a folder must hold a result."""
    result, _ = run_folder
    other = replace(result, provenance=replace(result.provenance, subject="torchvision:vgg11"))
    other.save(tmp_path / "vgg")
    code, _, errors = call(tmp_path / "vgg", "--segments", "alexnet")
    assert code == 2
    assert "--segments alexnet is of the network alexnet, and the results are of torchvision:vgg11" in errors
    code, _, errors = call(tmp_path)
    assert code == 2
    assert "holds no neuronscope result" in errors
