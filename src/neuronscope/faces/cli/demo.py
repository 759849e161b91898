"""`neuronscope demo`: from nothing to reports on every unit of a network, with real images that need no download."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neuronscope import STUDIES, Stat, TrainSpec, __version__, duration, load_data, load_model
from neuronscope.faces.cli import console, recipes
from neuronscope.faces.cli.making import make_run, make_spec, study_data
from neuronscope.faces.cli.run import Request, check_finite, execute, resolved, shown
from neuronscope.faces.cli.train import CHECKPOINT
from neuronscope.faces.cli.train import execute as execute_training
from neuronscope.faces.html import write_index
from neuronscope.faces.outputs import RECIPE, prepare_folder

DATA = "digits"

_SHOWN_STATS = 6


SMALLER: dict[str, dict[str, Any]] = {
    "clusters": {
        "k": [2],
        "main_k": 2,
        "choose": "none",
        "images": 40,
        "steps": 10,
        "controls": 2,
        "metrics": ["patch"],
        "fractions": [],
    },
    "sensitivity": {
        "augmentations": ["erasing", "gaussian_blur", "brightness", "rotation"],
        "points": 128,
        "replicates": 8,
        "permutations": 64,
        "contrast_images": 60,
        "severity_images": 60,
    },
    "masking": {"variables": ["erasing", "rotation"], "images": 40, "controls": 2, "resamples": 100},
}
"""Options of studies that would take minutes with their defaults."""

GUIDED = {"masking": {"maps_from": "sensitivity"}}
"""Study -> option that names another study's folder."""


@dataclass(frozen=True)
class Chapter:
    """One report of the demo.

    Attributes:
        title, address, text: how the index names it.
        stats: its headline numbers.
        seconds: what it took, drawing included.
    """

    title: str
    address: str
    text: str
    stats: tuple[Stat, ...]
    seconds: float


def run_demo(out: Path, *, seed: int, quiet: bool, spec: TrainSpec | None = None) -> None:
    """Train, run every study, write an index, and say what matters.

    Args:
        out: folder to write to.
        seed: where all random streams start.
        quiet: no progress.
        spec: how to train; the defaults take some 15 seconds on two cores.

    Raises:
        NeuronscopeError: the folder cannot be written to, or a study failed.
    """
    prepare_folder(out)
    progress = console.progress(quiet=quiet)
    run = make_run({"seed": seed}, progress=progress)
    chapters = [_train(out, spec or TrainSpec(), seed=seed, progress=progress)]
    checkpoint = out / "training" / CHECKPOINT
    source = f"file:{checkpoint}"
    subject, data = load_model(source), load_data(DATA, split="report", seed=seed)
    for study in STUDIES.values():
        since = time.perf_counter()
        folder = prepare_folder(out / study.name)
        folders = {option: [str(out / other)] for option, other in GUIDED.get(study.name, {}).items()}
        chosen = SMALLER.get(study.name, {}) | folders
        spec_of = make_spec(study.spec, chosen)
        named = {"data": DATA, "split": "report"} if study.data_of is None else {}
        request = Request(study, subject, study_data(study, spec_of, named, seed=seed), spec_of, run, folder)
        settings = {"model": {"model": source}, "data": named, "study": chosen, "run": {"seed": seed}}
        title = f"neuronscope {__version__} demo. Repeat with: neuronscope run {study.name} --recipe {folder / RECIPE}"
        recipes.write_recipe(folder / RECIPE, resolved(settings, study, spec_of, folder=folder), title=title)
        result, outputs = execute(request)
        check_finite(result)
        stats = tuple(block for block in outputs.page.blocks if isinstance(block, Stat))
        address = f"{study.name}/report.html"
        chapters.append(Chapter(study.name, address, study.question, stats, time.perf_counter() - since))
    index = write_index(
        out / "index.html",
        "neuronscope demo",
        f"A small network was trained on {len(load_data(DATA, split='train')):,} real handwritten digits; every study "
        f"then looked at its units with {len(data):,} digits it had never seen.",
        [(chapter.title, chapter.address, chapter.text) for chapter in chapters],
        stats=[
            *(
                replace(stat, label=f"{chapter.title}: {stat.label}")
                for chapter in chapters
                for stat in chapter.stats[:_SHOWN_STATS]
            ),
            *(Stat(f"Time: {chapter.title}", round(chapter.seconds, 1), unit="s") for chapter in chapters),
        ],
        meta={
            "neuronscope": __version__,
            "seed": str(seed),
            "network": subject.fingerprint,
            "images": data.fingerprint,
        },
    )
    for chapter in chapters:
        console.rows(
            f"{chapter.title} ({duration(chapter.seconds)})",
            ("", "value", ""),
            [(stat.label, shown(stat), stat.note) for stat in chapter.stats],
            right=("value",),
        )
    console.say()
    console.say("Go on with a network of your own:")
    for line in (
        "neuronscope run layers --model torchvision:resnet18 --weights DEFAULT --data imagenet:PATH --plan",
        "neuronscope run layers --model python:my_code.py:make_network --weights my.pth --data folder:PATH",
        f"neuronscope run layers --model file:{checkpoint} --data {DATA} --layers conv --seed 1",
    ):
        console.say(f"  {line}")
    console.say()
    console.say(str(index.resolve()))


def _train(out: Path, spec: TrainSpec, *, seed: int, progress: console.Progress) -> Chapter:
    """The network that the studies look into."""
    since = time.perf_counter()
    done = execute_training(
        load_data(DATA, split="train"),
        load_data(DATA, split="report"),
        spec,
        run=make_run({"seed": seed}, progress=progress),
        progress=progress,
        folder=prepare_folder(out / "training"),
    )
    stats = tuple(block for block in done.outputs.page.blocks if isinstance(block, Stat))
    text = "How the network was trained, and how well it does."
    return Chapter("training", "training/report.html", text, stats, time.perf_counter() - since)
