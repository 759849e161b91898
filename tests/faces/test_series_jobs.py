"""A series as shell scripts: the same bits as the one command, and templates that say what a batch system wants."""

from __future__ import annotations

import shlex
import stat
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

import neuronscope as ns
from neuronscope.faces.cli import app as root
from neuronscope.faces.cli.series.jobs import DEFAULT_TEMPLATE, PLACEHOLDERS

NETWORK = """
[model]
model = "builtin:viewer-cnn"
weights = "random"

[data]
data = "digits"
limit = 40

[run]
batch_size = 4
threads = 1

[study]
"""
MAPS = """name = "sensitivity"
layers = "conv_layers.1"
augmentations = ["rolling"]
factors = ["class"]
estimators = ["shapley"]
permutations = 16
replicates = 2
min_images = 2
"""
MASKS = """name = "masking"
images = 20
controls = 2
resamples = 4
scales = 0.0
quantiles = 0.5
"""
SERIES = """
title = "maps, and masks guided by them"

[[steps]]
recipe = "maps.toml"

[[steps]]
recipe = "masks.toml"
needs = { maps_from = "maps" }
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


@pytest.fixture
def series(tmp_path, monkeypatch):
    """A series in the current folder, whose name no shell takes as it is."""
    folder = tmp_path / "it's $here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("maps.toml").write_text(NETWORK + MAPS, encoding="utf-8")
    Path("masks.toml").write_text(NETWORK + MASKS, encoding="utf-8")
    path = Path("series.toml")
    path.write_text(SERIES, encoding="utf-8")
    return path


def commands(jobs):
    """Job -> words of its last line."""
    names = [line.split()[0] for line in (jobs / "jobs.txt").read_text(encoding="utf-8").splitlines()]
    texts = {name: (jobs / f"{name}.sh").read_text(encoding="utf-8") for name in names}
    return {name: shlex.split(text.splitlines()[-1]) for name, text in texts.items()}


def test_all_jobs_in_order_are_the_series(series):
    """The commands for two parts of each step, one after another, give the bits of the one command."""
    said = done(call("series", series, "--out", "by jobs", "--emit-jobs", "jobs", "--shards", "2", "--quiet"))
    assert "6 jobs for 2 steps" in said
    assert not Path("by jobs").exists()
    for words in commands(Path("jobs")).values():
        done(call(*words[1:]))
    done(call("series", series, "--out", "at once", "--quiet"))
    for name in ("maps", "masks"):
        assert ns.open(Path("by jobs", name)).tree.identical(ns.open(Path("at once", name)).tree)
    again = done(call("series", series, "--out", "by jobs", "--quiet"))
    assert again.count("finished already") == 2


def test_scripts_run_from_anywhere(series, tmp_path):
    """The script of all jobs calls them in order, each where the series was called, and stops at one that fails."""
    Path("mine.sh").write_text(
        "#!/usr/bin/env bash\nset -e\ncd {{folder}}\nread -r no || echo {{job}} >> order\ntest {{part}} != 2\n"
        ": {{command}}\n",
        encoding="utf-8",
    )
    done(call("series", series, "--emit-jobs", "jobs", "--shards", "2", "-q", "--template", "mine.sh"))
    jobs = subprocess.run([str(Path("jobs/all.sh").absolute())], check=False, cwd=tmp_path, capture_output=True)
    assert (jobs.returncode, jobs.stderr) == (1, b"")
    assert Path("order").read_text(encoding="utf-8").split() == ["01-maps.1-of-2", "01-maps.2-of-2"]


def test_jobs_say_what_they_wait_for(series):
    """The list names, behind each job, those that must have ended: parts before they are joined, maps before masks."""
    done(call("series", series, "--emit-jobs", "jobs", "--shards", "2"))
    assert Path("jobs/jobs.txt").read_text(encoding="utf-8").splitlines() == [
        "01-maps.1-of-2",
        "01-maps.2-of-2",
        "01-maps.merge 01-maps.1-of-2 01-maps.2-of-2",
        "02-masks.1-of-2 01-maps.merge",
        "02-masks.2-of-2 01-maps.merge",
        "02-masks.merge 02-masks.1-of-2 02-masks.2-of-2",
    ]
    words = commands(Path("jobs"))
    assert words["01-maps.1-of-2"][:2] == ["neuronscope", "run"]
    assert words["02-masks.merge"] == [
        *("neuronscope", "merge", "runs/masks/parts/1-of-2", "runs/masks/parts/2-of-2", "--out", "runs/masks"),
    ]
    assert all(path.stat().st_mode & stat.S_IXUSR for path in Path("jobs").glob("[0a]*.sh"))


def test_one_part_needs_no_joining(series):
    """Without --shards a step is one job; an earlier call's jobs are gone, other files are not touched."""
    Path("jobs").mkdir()
    Path("jobs/notes.sh").touch()
    done(call("series", series, "--emit-jobs", "jobs", "--shards", "3", "-q"))
    done(call("series", series, "--emit-jobs", "jobs", "-q", "--only", "maps"))
    assert {path.name for path in Path("jobs").glob("*.sh")} == {"01-maps.sh", "all.sh", "template.sh", "notes.sh"}
    assert list(commands(Path("jobs"))) == ["01-maps"]


def test_the_template_is_the_users(series):
    """A template can be given, or edited where it was written; every placeholder has a value."""
    lines = [f"# {name}: {{{{{name}}}}}" for name in PLACEHOLDERS if name != "command"]
    Path("mine.sh").write_text("\n".join([*lines, "x=${x:-{}}", "{{ command }}"]), encoding="utf-8")
    done(call("series", series, "--emit-jobs", "jobs", "-q", "--template", "mine.sh", "--memory", "3GiB"))
    text = Path("jobs/02-masks.sh").read_text(encoding="utf-8")
    assert text.splitlines()[:-1] == [
        "# job: 02-masks",
        "# step: masks",
        "# title: maps, and masks guided by them",
        "# part: 1",
        "# parts: 1",
        f"# folder: {shlex.quote(str(Path.cwd()))}",
        "# after: 01-maps",
        "# cores: 1",
        "# memory: 5",
        "x=${x:-{}}",
    ]
    assert Path("jobs/template.sh").read_text(encoding="utf-8") == Path("mine.sh").read_text(encoding="utf-8")
    Path("jobs/template.sh").write_text("# edited\n{{command}}\n", encoding="utf-8")
    done(call("series", series, "--emit-jobs", "jobs", "-q"))
    assert Path("jobs/02-masks.sh").read_text(encoding="utf-8").startswith("# edited\nneuronscope run masking")


def test_memory_is_planned(series):
    """A job asks for what the plan says, whole GiB, with two for the program; a step that waits, as much as others."""
    done(call("series", series, "--emit-jobs", "jobs"))
    assert Path("jobs/template.sh").read_text(encoding="utf-8") == DEFAULT_TEMPLATE
    for name in ("01-maps", "02-masks"):
        assert "# needs 3 GiB, uses cores: " in Path(f"jobs/{name}.sh").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("template", "flags", "words"),
    [
        ("{{comand}}\n{{command}}", [], ["{{comand}}", "Closest: 'command'"]),
        ("echo", [], ["has no {{command}}"]),
        (None, ["--template", "gone.sh"], ["gone.sh", "cannot be read"]),
        (None, ["--shards", "0"], ["--shards", "at least 1"]),
        (None, ["--emit-jobs", "series.toml"], ["cannot write", "series.toml"]),
    ],
)
def test_mistakes(series, template, flags, words):
    """One message, and no script is written."""
    if template is not None:
        Path("mine.sh").write_text(template, encoding="utf-8")
        flags = ["--template", "mine.sh"]
    code, out, err = call("series", series, "--emit-jobs", "jobs", "-q", *flags)
    assert (code, err.count("error: ")) == (2, 1), out + err
    for word in words:
        assert word in err
    assert not Path("jobs").exists()
