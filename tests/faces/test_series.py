"""A series at the command line: planned, worked once, broken off and gone on with, and every mistake named."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

import neuronscope as ns
from neuronscope.faces.cli import app as root

LAYERS = """
[model]
model = "builtin:viewer-cnn"
weights = "random"

[data]
data = "digits"
limit = 48

[study]
name = "layers"
layers = "fc_layers.4"
draws = 19
splits = 1
top_k = 1
examples = 0
wrong = 0
channels = 1
gallery = 1

[run]
batch_size = 4
threads = 1
"""
SENSITIVITY = """
[model]
model = "builtin:viewer-cnn"
weights = "random"

[data]
data = "digits"
limit = 40

[study]
name = "sensitivity"
layers = "conv_layers.1"
augmentations = ["rolling"]
factors = ["class"]
estimators = ["shapley"]
permutations = 4
replicates = 2
min_images = 2

[run]
threads = 1
"""
MASKING = """
[model]
model = "builtin:viewer-cnn"
weights = "random"

[data]
data = "digits"
limit = 40

[study]
name = "masking"
images = 4
controls = 2
resamples = 4
scales = 0.0
quantiles = 0.5

[run]
threads = 1
"""
HUGE = """
from torch import nn

def huge():
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    module[0].weight.data[1] = 3e38
    module.input_shape = (1, 16, 16)
    return module
"""
GUIDED = """
title = "maps and masks"

[[steps]]
name = "maps"
recipe = "sensitivity.toml"

[[steps]]
name = "masks"
recipe = "masking.toml"
needs = { maps_from = "maps" }
"""
THREE = """
out = "three"

[[steps]]
recipe = "layers.toml"

[[steps]]
name = "fewer"
recipe = "layers.toml"
data = { limit = 40 }

[[steps]]
name = "another-seed"
recipe = "layers.toml"
run = { seed = 1 }
"""


def call(*arguments):
    """Run a command in this process: exit code, standard output, standard error."""
    result = CliRunner().invoke(root.app, [str(one) for one in arguments], prog_name="neuronscope")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def done(answer):
    """What a command that succeeded has said."""
    code, out, err = answer
    assert code == 0, out + err
    return out


def refused(answer, *words):
    """One message with these words, exit code 2."""
    code, out, err = answer
    assert code == 2, out + err
    assert "Traceback" not in err
    assert err.count("error: ") == 1, err
    for word in words:
        assert word in err, err


def states(out):
    """Step -> what came of it, as the last table says."""
    rows = [[cell.strip() for cell in line.split("│")] for line in out.partition("What came of it")[2].splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 4 and row[0]}


def planned(out):
    """Step -> name of a column -> cell of the table of plans."""
    rows = [[cell.strip() for cell in line.replace("┃", "│").split("│")] for line in out.splitlines()]
    head = next(row for row in rows if row[0] == "step")
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows if len(row) == len(head) and row[0] != "step"}


def passes(images):
    """Forward passes of `layers` as set up here: to observe, to attribute, and one to see which outputs there are."""
    return str(2 * images + 1)


def written(folder, text):
    """A series in a folder with the three recipes."""
    for name, recipe in (("layers", LAYERS), ("sensitivity", SENSITIVITY), ("masking", MASKING)):
        (folder / f"{name}.toml").write_text(recipe, encoding="utf-8")
    path = folder / "series.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """The folder of an undisturbed series, and what it said."""
    out = tmp_path_factory.mktemp("three")
    return out, done(call("series", written(out, THREE), "--out", out / "runs", "--quiet"))


def test_each_step_is_its_recipe_with_what_differs(three):
    """Folders have the names of steps; limit and seed are the step's own; the last lines say what came of each."""
    out, said = three
    assert states(said) == dict.fromkeys(("layers", "fewer", "another-seed"), "done")
    found = {name: ns.open(out / "runs" / name).provenance for name in states(said)}
    assert {name: one.images for name, one in found.items()} == {"layers": 48, "fewer": 40, "another-seed": 48}
    assert {name: one.circumstances["seed"] for name, one in found.items()} == {
        "layers": 0,
        "fewer": 0,
        "another-seed": 1,
    }
    assert all((out / "runs" / name / "report.html").is_file() for name in found)


def test_what_is_finished_is_not_done_again(three):
    """The same series again works nothing, also where only circumstances differ that change no number."""
    out, _ = three
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    said = done(call("series", out / "series.toml", "--out", out / "runs", "--quiet", "--workers", "1"))
    assert set(states(said).values()) == {"finished before"}
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")} == before


def test_a_series_is_the_runs_it_lists(three, tmp_path):
    """A step gives the bits of `neuronscope run` with its recipe."""
    out, _ = three
    done(call("run", "layers", "--recipe", out / "layers.toml", "--limit", "40", "--out", tmp_path, "--quiet"))
    assert ns.open(tmp_path).tree.identical(ns.open(out / "runs" / "fewer").tree)


def test_a_changed_step_is_done_again(three, tmp_path):
    """A step is finished only as it is written now; the others are left alone, until all are to start over."""
    runs = shutil.copytree(three[0] / "runs", tmp_path / "runs")
    path = written(tmp_path, THREE.replace("limit = 40", "limit = 32"))
    said = done(call("series", path, "--out", runs, "--quiet"))
    assert states(said) == {"layers": "finished before", "fewer": "done", "another-seed": "finished before"}
    assert ns.open(runs / "fewer").provenance.images == 32
    said = done(call("series", path, "--out", runs, "--quiet", "--only", "layers", "--fresh"))
    assert states(said) == {"layers": "done"}


def test_flags_hold_for_all_steps(tmp_path):
    """What the command line says wins over recipes and steps."""
    plans = planned(done(call("series", written(tmp_path, THREE), "--plan", "--limit", "20")))
    assert [plans[name]["forward"] for name in ("layers", "fewer", "another-seed")] == [passes(20)] * 3


def test_the_plan_adds_up_and_does_nothing(tmp_path):
    """Passes and time of all steps together; nothing is written."""
    out = done(call("series", written(tmp_path, THREE), "--plan", "--out", tmp_path / "runs"))
    plans = planned(out)
    assert [plans[name]["forward"] for name in ("layers", "fewer", "another-seed")] == [
        passes(48),
        passes(40),
        passes(48),
    ]
    assert plans["all"]["forward"] == str(2 * int(passes(48)) + int(passes(40)))
    assert all(plans["all"][column] != "-" for column in ("backward", "state", "memory", "time"))
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def guided(tmp_path):
    """A series whose second step takes the result of the first, done."""
    path = written(tmp_path, GUIDED)
    return path, done(call("series", path, "--out", tmp_path / "runs", "--quiet"))


def test_a_step_takes_the_result_of_an_earlier_one(guided):
    """Its recipe names the earlier step's folder, wherever that is."""
    path, said = guided
    folder = path.parent / "runs"
    assert states(said) == {"maps": "done", "masks": "done"}
    assert ns.open(folder / "masks").provenance.spec["maps_from"] in (str(folder / "maps"), [str(folder / "maps")])
    assert states(done(call("series", path, "--out", folder, "-q")))["masks"] == "finished before"

    # Made anew, the maps are newer than the masks that they guided.
    done(call("run", "sensitivity", "--recipe", folder / "maps" / "recipe.toml", "--fresh", "-q"))
    plans = planned(done(call("series", path, "--out", folder, "--plan")))
    assert (plans["maps"][""], plans["masks"][""]) == ("finished", "")

    # Asked for otherwise, the maps will be made anew, and what the masks take is known then.
    plans = planned(done(call("series", path, "--out", folder, "--plan", "--seed", "1")))
    assert (plans["maps"][""], plans["masks"][""]) == ("", "known after maps")


def test_a_plan_says_what_it_cannot_know(tmp_path):
    """A step that needs a result is planned after it, and is not in the sum."""
    out = done(call("series", written(tmp_path, GUIDED), "--plan", "--out", tmp_path / "runs"))
    plans = planned(out)
    assert plans["masks"] == {
        "step": "masks",
        **dict.fromkeys(("forward", "state", "memory", "time"), "-"),
        "": "known after maps",
    }
    assert "not counted: masks" in out


def test_steps_whose_needs_are_not_there_are_refused(tmp_path):
    """Chosen alone, a step needs the finished result of the one before."""
    path = written(tmp_path, GUIDED)
    answer = call("series", path, "--out", tmp_path / "runs", "--only", "masks")
    refused(answer, "'masks' needs the result of 'maps'", "--only maps,masks")


def test_a_failing_step_ends_the_series_and_costs_nothing(three, tmp_path, caplog):
    """What failed is named with its step, others are not reached; the same command goes on where it was."""
    caplog.set_level(logging.INFO, "neuronscope")
    path, runs = written(tmp_path, THREE), tmp_path / "runs"
    shutil.copytree(three[0] / "runs" / "layers", runs / "layers")
    (runs / "fewer").mkdir()
    (runs / "fewer" / "tables").write_text("not a folder")
    answer = call("series", path, "--out", runs, "--quiet")
    refused(answer, "step 'fewer': ", "the tables cannot be written to")
    assert states(answer[1]) == {"layers": "finished before", "fewer": "broken off", "another-seed": "not reached"}

    (runs / "fewer" / "tables").unlink()
    caplog.clear()
    said = done(call("series", path, "--out", runs, "--quiet", "--only", "layers,fewer"))
    assert states(said) == {"layers": "finished before", "fewer": "done"}
    assert any("going on from" in record.getMessage() and "fewer" in record.getMessage() for record in caplog.records)
    assert ns.open(runs / "fewer").tree.identical(ns.open(three[0] / "runs" / "fewer").tree)


def test_units_that_overflow_do_not_stop_the_others(tmp_path):
    """Their step is complete and saved, and said to be so; the next ones are done; the exit code is 2."""
    (tmp_path / "huge.py").write_text(HUGE, encoding="utf-8")
    text = "[[steps]]\nname = '{}'\nrecipe = 'layers.toml'\ndata = {{ limit = 20 }}\n"
    network = f"model = {{ model = 'python:{tmp_path / 'huge.py'}:huge', normalise = 'none' }}\n"
    layers = "study = { layers = ['0'], gradient = 'none' }\n"
    path = written(tmp_path, text.format("huge") + network + layers + text.format("next"))
    answer = call("series", path, "--out", tmp_path / "runs", "--quiet")
    refused(answer, "warning: step 'huge': the study is complete and saved", "error: step 'huge': ")
    assert states(answer[1]) == {"huge": "done, not all finite", "next": "done"}
    plans = planned(done(call("series", path, "--out", tmp_path / "runs", "--plan")))
    assert {name: plan[""] for name, plan in plans.items()} == {"huge": "finished", "next": "finished"}


def test_after_a_kill_it_goes_on(three, tmp_path):
    """A step that was killed is not finished, although its folder holds an older result beside the new recipe."""
    path, runs = written(tmp_path, THREE), tmp_path / "runs"
    for name in ("layers", "fewer"):
        shutil.copytree(three[0] / "runs" / "layers", runs / name)
    older = (runs / "fewer" / "recipe.toml").read_bytes()
    command = ["series", path, "--out", runs, "--quiet", "--only", "layers,fewer"]
    program = [sys.executable, "-c", "from neuronscope.faces.cli.app import main; main()"]
    with subprocess.Popen([*program, *map(str, command)], stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        while (runs / "fewer" / "recipe.toml").read_bytes() in (older, b"") and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert states(done(call(*command))) == {"layers": "finished before", "fewer": "done"}
    assert ns.open(runs / "fewer").tree.identical(ns.open(three[0] / "runs" / "fewer").tree)


def test_a_recipe_is_a_series_of_one_step(tmp_path):
    """A lone recipe has a folder of its name."""
    written(tmp_path, THREE)
    plans = planned(done(call("series", tmp_path / "layers.toml", "--plan", "--out", tmp_path / "runs")))
    assert list(plans) == ["layers"]


STEP = "[[steps]]\nrecipe = 'layers.toml'\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["the series has no 'steps'"]),
        ("title = 'x'\n[[step]]\nrecipe = 'layers.toml'", ["unknown key 'step'", "Closest: 'steps'"]),
        ("[[steps]]\nrecipes = 'layers.toml'", ["step 1 has an unknown key 'recipes'", "Closest: 'recipe'"]),
        ("[[steps]]\nname = 'a'", ["step 1 has no 'recipe'"]),
        (f"{STEP}needs = 3", ["'needs' of step 1"]),
        ("[[steps]]\nrecipe = 'gone.toml'", ["gone.toml", "cannot be read"]),
        ("[[steps]]\nrecipe = 'series.toml'", ["series.toml", "which study"]),
        (STEP + STEP, ["'layers'", "one folder"]),
        (f"{STEP}name = '../up'", ["'../up'", "no name for a step"]),
        (f"{STEP}study = {{ drawz = 9 }}", ["step 'layers' of the series", "'drawz'", "Closest: 'draws'"]),
        (f"{STEP}study = {{ draws = 'many' }}", ["'draws' in [study] of step 'layers'", "a whole number"]),
        (f"{STEP}study = {{ draws = 3 }}", ["--draws", "greater than or equal to 19"]),
        (f"{STEP}needs = {{ maps_from = 'layers' }}", ["'layers', which is the step itself"]),
        (
            f"[[steps]]\nname = 'a'\nrecipe = 'masking.toml'\nneeds = {{ maps_from = 'layers' }}\n{STEP}",
            ["'layers', which comes later", "Change their order"],
        ),
        (f"{STEP}needs = {{ maps_from = 'layer' }}", ["'layer', which is no step", "Closest: 'layers'"]),
        (
            f"{STEP}[[steps]]\nname = 'b'\nrecipe = 'layers.toml'\nneeds = {{ maps_from = 'layers' }}",
            ["unknown key 'maps_from' in [study]"],
        ),
        ("steps = [", ["is not TOML"]),
    ],
)
def test_mistakes_in_a_series(tmp_path, text, words):
    """One message that names the step and the nearest known word, before anything is computed."""
    refused(call("series", written(tmp_path, text), "--out", tmp_path / "runs"), *words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--only", "layer"], ["'layer'", "Closest: 'layers'"]),
        (["--shards", "2"], ["--shards", "--emit-jobs"]),
        (["--template", "x.sh"], ["--template", "--emit-jobs"]),
        (["--executor", "serail"], ["'serail'", "Closest: 'serial'"]),
        (["--data", "digitz", "--plan"], ["step 'layers': ", "'digitz'", "Closest: 'digits'"]),
    ],
)
def test_wrong_options(tmp_path, flags, words):
    """One message, before anything is computed."""
    refused(call("series", written(tmp_path, THREE), "--out", tmp_path / "runs", *flags), *words)
    assert not (tmp_path / "runs").exists()
