"""A study in parts, broken off and gone on with, at the command line."""

from __future__ import annotations

import logging
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

import neuronscope as ns
from neuronscope.checkpoint import locked
from neuronscope.faces.cli import app as root

STUDY = ["run", "layers", "-m", "builtin:viewer-cnn", "-w", "random", "-d", "digits", "--limit", "48", "--quiet"]
SMALL = ["--layers", "fc_layers.4", "--draws", "19", "--splits", "1", "--top-k", "1", "--examples", "0", "--wrong", "0"]
CHEAP = [*STUDY, *SMALL, "--channels", "1", "--gallery", "1", "--batch-size", "4", "--threads", "1"]


def call(*arguments):
    """Run a command in this process: exit code, standard output, standard error."""
    result = CliRunner().invoke(root.app, [str(one) for one in arguments], prog_name="neuronscope")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def refused(answer, *words):
    """One message with these words, exit code 2."""
    code, out, err = answer
    assert code == 2, out + err
    assert "Traceback" not in err
    assert err.count("error: ") == 1, err
    for word in words:
        assert word in err, err


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The result of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    code, _, err = call(*CHEAP, "--out", out)
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """Folders of two parts."""
    folder = tmp_path_factory.mktemp("parts")
    for number in (1, 2):
        code, out, err = call(*CHEAP, "--out", folder / str(number), "--shard", f"{number}/2")
        assert code == 0, err
        assert "neuronscope merge" in out
    return folder


@pytest.fixture
def parts(worked, tmp_path):
    """Copies of both parts, to be damaged."""
    return [shutil.copytree(worked / name, tmp_path / "parts" / name) for name in ("1", "2")]


def test_parts_are_merged_to_the_whole(whole, parts, tmp_path):
    """Two parts joined are the undisturbed result, bit for bit; no checkpoint is left where the result is."""
    code, _, err = call("merge", *parts, "--out", tmp_path / "out")
    assert code == 0, err
    assert ns.open(tmp_path / "out").tree.identical(ns.open(whole).tree)
    assert not (tmp_path / "out" / "checkpoint").exists()
    assert (parts[0] / "checkpoint").is_dir()


def test_parts_may_be_merged_into_one_of_them(whole, parts):
    """The folder of a part may take the result."""
    code, _, err = call("merge", *parts, "--out", parts[0])
    assert code == 0, err
    assert ns.open(parts[0]).tree.identical(ns.open(whole).tree)


def test_worker_processes_give_the_same(whole, tmp_path):
    """`--executor processes` changes no bit."""
    code, _, err = call(*CHEAP, "--out", tmp_path, "--executor", "processes")
    assert code == 0, err
    assert ns.open(tmp_path).tree.identical(ns.open(whole).tree)


def test_a_missing_part_is_noticed(parts, tmp_path):
    """The work of a part that was not given is not silently done again."""
    refused(call("merge", parts[0], "--out", tmp_path / "out"), "Give the folders of all parts")
    refused(call("merge", *parts, tmp_path / "none", "--out", tmp_path / "out"), "none", "recipe.toml")


def test_parts_of_another_computation_are_refused(parts, tmp_path):
    """Another seed is another computation."""
    code, _, err = call(*CHEAP, "--out", tmp_path / "other", "--shard", "2/2", "--seed", "1")
    assert code == 0, err
    refused(call("merge", parts[0], tmp_path / "other", "--out", tmp_path / "out"), "another computation")


def test_torn_parts_are_refused(parts, tmp_path):
    """The torn file is named."""
    path = min((parts[1] / "checkpoint").glob("*.state"))
    path.write_bytes(path.read_bytes()[:-7])
    refused(call("merge", *parts, "--out", tmp_path / "out"), str(path), "torn")


def test_parts_without_recipe_or_checkpoint_are_refused(parts, tmp_path):
    """What is missing is named."""
    shutil.rmtree(parts[1] / "checkpoint")
    refused(call("merge", *parts, "--out", tmp_path / "out"), "holds no checkpoints")
    (parts[1] / "recipe.toml").unlink()
    refused(call("merge", *parts, "--out", tmp_path / "out"), "holds no recipe.toml")


@pytest.mark.parametrize("shard", ["3/2", "0/2", "x", "1", "1/0", "-1/2", "1/2/3"])
def test_impossible_parts_are_refused(tmp_path, shard):
    """One message, before anything is worked."""
    refused(call(*CHEAP, "--out", tmp_path, f"--shard={shard}"))
    assert not (tmp_path / "checkpoint").exists()


def test_a_folder_in_use_is_refused(tmp_path):
    """The second run is told who is writing there."""
    with locked(tmp_path):
        refused(call(*CHEAP, "--out", tmp_path), "in use", "process", "choose another --out")


def test_a_run_that_is_killed_frees_its_folder(whole, tmp_path):
    """After SIGKILL of a run with workers the same command goes on at once, to the same bits."""
    command = [sys.executable, "-c", "from neuronscope.faces.cli.app import main; main()"]
    executor = ["--executor", "processes", "--out", str(tmp_path)]
    with subprocess.Popen([*command, *CHEAP, *executor], stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        while not (tmp_path / "recipe.toml").exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    code, _, err = call(*CHEAP, *executor)
    assert code == 0, err
    assert ns.open(tmp_path).tree.identical(ns.open(whole).tree)


def test_failed_drawing_costs_no_computation(whole, tmp_path, caplog):
    """The result is saved first and the checkpoint stays: the next run works nothing; `--fresh` works everything."""
    caplog.set_level(logging.INFO, "neuronscope")
    out = tmp_path / "out"
    out.mkdir()
    (out / "tables").write_text("not a folder")
    refused(call(*CHEAP, "--out", out), "the tables cannot be written to")
    assert gone_on(caplog) == set()
    assert ns.open(out).tree.identical(ns.open(whole).tree)
    assert (out / "checkpoint").is_dir()
    shutil.copytree(out / "checkpoint", tmp_path / "kept")
    (out / "tables").unlink()

    code, _, err = call(*CHEAP, "--out", out, "--plan", "--fresh")
    assert (code, (out / "checkpoint").is_dir()) == (0, True), err
    assert call(*CHEAP, "--out", out)[0] == 0
    assert gone_on(caplog) >= {"observe", "attribute"}
    assert not (out / "checkpoint").exists()

    shutil.copytree(tmp_path / "kept", out / "checkpoint")
    assert call(*CHEAP, "--out", out, "--fresh")[0] == 0
    assert gone_on(caplog) == set(), "started over"
    assert ns.open(out).tree.identical(ns.open(whole).tree)


def gone_on(caplog):
    """The sweeps that have gone on from a checkpoint, as the log says; the log is empty afterwards."""
    lines = [record.getMessage() for record in caplog.records if record.name == "neuronscope"]
    caplog.clear()
    found = [re.search(r"going on from .*/(\w+)-\w+\.state: ([1-9]\d*) shards are done", line) for line in lines]
    return {match[1] for match in found if match}
