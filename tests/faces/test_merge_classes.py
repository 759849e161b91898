"""Ranges of classes, worked by several runs of the `clusters` study, and joined at the command line."""

from __future__ import annotations

import pandas as pd
import pytest
from typer.testing import CliRunner

import neuronscope as ns
from neuronscope.faces.cli import app as root

STUDY = ["run", "clusters", "-m", "builtin:viewer-cnn", "-w", "random", "-d", "digits", "--limit", "60", "--quiet"]
STUDY += ["--layers", "conv_layers.4", "--k", "2", "--main-k", "2", "--images", "4", "--steps", "2", "--controls", "0"]
STUDY += ["--methods", "saliency", "--metrics", "patch", "--choose", "none", "--panels", "0", "--draws", "100"]
STUDY += ["--sanity", "none", "--dropped", "none", "--images-per-class", "2", "--threads", "1", "--batch-size", "2"]
COLUMNS = ["class_id", "class_name", "method"]
COLUMNS += [f"{side}_{what}" for side in ("filtered", "baseline") for what in (
    "sparsity_mean", "sparsity_std", "faithfulness_mean", "faithfulness_std")]  # fmt: skip
COLUMNS += ["mean_diff"]
TABLE = "original/outputs/class_analysis_metrics_{}_{}.csv"


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
    assert err.count("error: ") == 1, err
    for word in words:
        assert word in err, err


def ranged(out, start, end, *more):
    """A run over some classes."""
    code, _, err = call(*STUDY, "--class-start", start, "--class-end", end, *more, "--out", out)
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Classes 1 to 5 in one run, and in two."""
    folder = tmp_path_factory.mktemp("ranges")
    ranged(folder / "whole", 1, 6, "--export-original")
    return folder / "whole", ranged(folder / "low", 1, 3), ranged(folder / "high", 3, 6)


def test_two_ranges_are_one(runs, tmp_path):
    """In any order, two runs give the table, the picture, and the report of one run over all classes."""
    whole, low, high = runs
    code, out, err = call("merge", high, low, "--out", tmp_path / "joined")
    assert code == 0, err
    assert err == ""
    assert "joined 2 runs" in out
    name = TABLE.format(1, 6)
    found, expected = (pd.read_csv(folder / name) for folder in (tmp_path / "joined", whole))
    pd.testing.assert_frame_equal(found, expected)
    assert list(found)[: len(COLUMNS)] == COLUMNS
    assert found["class_id"].tolist() == [1, 2, 3, 4, 5]
    assert (tmp_path / "joined" / "original/outputs/faithfulness_improvement.png").stat().st_size > 10_000
    joined, one = ns.open(tmp_path / "joined"), ns.open(whole)
    assert joined.tree["classes"].to_dataset().identical(one.tree["classes"].to_dataset())
    assert (joined.provenance.spec["class_start"], joined.provenance.spec["class_end"]) == (1, 6)
    assert "Class by class" in (tmp_path / "joined" / "report.html").read_text()
    code, _, err = call("report", tmp_path / "joined", "--export-original")
    assert code == 0, err


def test_classes_twice_or_missing_are_said(runs, tmp_path, caplog):
    """A class of two runs counts once; one that no run has is named."""
    whole, low, _ = runs
    top = ranged(tmp_path / "top", 7, 8)
    code, _, err = call("merge", whole, low, top, "--out", tmp_path / "joined")
    assert code == 0, err
    assert "in more than one run, counted once: classes 1, 2" in caplog.text
    assert "in none of the runs: classes 6" in caplog.text
    assert pd.read_csv(tmp_path / "joined" / TABLE.format(1, 8))["class_id"].tolist() == [1, 2, 3, 4, 5, 7]


def test_foreign_folders_are_refused(runs, tmp_path):
    """Runs of other settings or without classes, a lone run, finished runs beside parts, and folders of no run."""
    _, low, high = runs
    out = tmp_path / "out"
    other = ranged(tmp_path / "other", 3, 4, "--mass", "0.8", "--seed", "3")
    refused(call("merge", low, other, "--out", out), "run 2 of 2 does not belong to the first", "mass (0.9 and 0.8)")
    code, _, err = call(*STUDY, "--out", tmp_path / "none")
    assert code == 0, err
    refused(call("merge", low, tmp_path / "none", "--out", out), "run 2 of 2 looked at no class", "--class-start")
    refused(call("merge", low, "--out", out), "nothing to join", "over different classes of: clusters")
    refused(call("merge", low, tmp_path, "--out", out), "holds no recipe.toml")
    code, _, err = call(*STUDY, "--shard", "1/2", "--out", tmp_path / "part")
    assert code == 0, err
    refused(call("merge", low, tmp_path / "part", "--out", out), "part does not: expected finished runs only")
    assert not (out / "result.zarr").exists()
    (high / "result.zarr" / "zarr.json").write_text("{")
    refused(call("merge", low, high, "--out", out), "torn")
