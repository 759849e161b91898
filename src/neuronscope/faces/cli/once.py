"""Trains a network once: what the table [train] of a recipe asks for is trained before the study, unless it is there.

A network is there when the record beside the checkpoint says the same settings. Only circumstances may differ: where
files lie, the device, the threads. Other settings are refused, never trained over: hours may have gone into what is
there.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neuronscope import InputError, Subject, TrainSpec, locked, train
from neuronscope.faces.cli import console, recipes
from neuronscope.faces.cli.making import make_run, make_spec, make_subject
from neuronscope.faces.cli.train import (
    CHECKPOINT,
    RECORD,
    folder_of,
    full_settings,
    make_data,
    read_table,
    run_training,
)
from neuronscope.faces.outputs import prepare_folder

_CIRCUMSTANCES = ("out", "download", "device", "threads", "workers")

_PLACES = {"data": "train_images", "test_data": "test_images"}
"""Key of [train] that names images -> key of the record with their fingerprint."""


def table_of(settings: recipes.Settings) -> dict[str, Any] | None:
    """The training that comes before a study; None where there is none, or where another network was named.

    What the table [train] does not say of device and threads is as in the table [run].
    """
    table = settings.get("train")
    named = settings["model"].get("model")
    if not table or named not in (None, source_of(table)):
        return None
    shared = {key: settings["run"][key] for key in ("device", "threads", "workers") if key in settings["run"]}
    return shared | table


def source_of(table: Mapping[str, Any]) -> str:
    """The network of a training, as `--model` takes it."""
    return f"file:{folder_of(table) / CHECKPOINT}"


def trained_subject(table: Mapping[str, Any], model: Mapping[str, Any], *, quiet: bool, study_folder: Path) -> Subject:
    """The network of a training, which is done now unless it was done before.

    Args:
        table: the table [train].
        model: the table [model]: how to prepare its images, if not as in the training.
        quiet: no progress.
        study_folder: where the study writes to.

    Raises:
        InputError: study and training write to one folder, or the folder holds a network with other settings.
    """
    folder = folder_of(table)
    if folder.resolve() == study_folder.resolve():
        message = (
            f"the training and the study both write to {folder}: expected two folders. "
            "Give another out in [train], or another --out"
        )
        raise InputError(message)
    prepare_folder(folder)
    with locked(folder):
        if is_there(table):
            if not quiet:
                console.say(f"training {folder / CHECKPOINT} is there already, with the settings of [train]")
        else:
            run_training(table, quiet=quiet)
            if not quiet:
                console.say(f"training {folder / CHECKPOINT} is written; its report: {folder / 'report.html'}")
    return make_subject({**model, "model": source_of(table)})


def planned_subject(table: Mapping[str, Any], model: Mapping[str, Any]) -> Subject:
    """The network of a training, or one of its form where it has not been trained yet: a plan needs no more.

    Raises:
        InputError: the folder holds a network with other settings.
    """
    if is_there(table):
        return make_subject({**model, "model": source_of(table)})
    told = full_settings(table)
    run = make_run({"seed": told["seed"]}, progress=console.progress(quiet=True))
    images, _ = make_data(table, seed=run.seed)
    console.say(f"training would train first: {told['model']} on {images.name}, {len(images):,} images")
    few = images.take(np.unique(images.labels, return_index=True)[1])
    # One step that changes next to nothing, on one image of each class.
    fields: dict[str, Any] = {key: told[key] for key in ("model", "channels", "image", "legacy") if key in told}
    spec = make_spec(TrainSpec, {**fields, "epochs": 1, "learning_rate": 1e-12})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CHECKPOINT
        train(few, few, spec, run=run).save(path)
        subject = make_subject({**model, "model": f"file:{path}"})
    return replace(subject, name=f"{source_of(table)}, not trained yet")


def is_there(table: Mapping[str, Any]) -> bool:
    """Whether the network of a training is there; one with other settings is refused.

    Raises:
        InputError: the folder holds a network that was trained with other settings, or without a record of them.
    """
    folder = folder_of(table)
    if not (folder / CHECKPOINT).exists():
        return False
    if not (folder / RECORD).exists():
        message = (
            f"{folder} holds {CHECKPOINT}, but no {RECORD} that says what it was trained with: expected both or none. "
            f"Give another out in [train], delete the folder, or use it as it is with --model {source_of(table)}"
        )
        raise InputError(message)
    there, wanted = full_settings(read_table(folder / RECORD)), full_settings(table)
    differ = [key for key in {**wanted, **there} if key not in _CIRCUMSTANCES and there.get(key) != wanted.get(key)]
    if differ and set(differ) <= set(_PLACES) and _same_images(folder / RECORD, table, seed=wanted["seed"]):
        return True
    if differ:
        pairs = ", ".join(
            f"{key} ({_shown(there.get(key))} there, {_shown(wanted.get(key))} asked for)" for key in differ
        )
        message = (
            f"{folder / CHECKPOINT} was trained with other settings than the table [train] says: {pairs}. "
            f"Expected the same ones. Give another out in [train], or delete the folder {folder} to train again"
        )
        raise InputError(message)
    return True


def _same_images(record: Path, table: Mapping[str, Any], *, seed: int) -> bool:
    """Whether images from another place are the ones that were trained and tested on."""
    known = tomllib.loads(record.read_text(encoding="utf-8")).get("trained", {})
    found = [data.fingerprint for data in make_data(table, seed=seed)]
    return found == [known.get(key) for key in _PLACES.values()]


def _shown(value: Any) -> str:
    if value is None:
        return "default"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
