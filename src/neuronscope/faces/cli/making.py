"""From options to objects: the spec, the circumstances, the network and the images that a command was asked for."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from neuronscope import (
    EXECUTORS,
    Data,
    Executor,
    InputError,
    Run,
    Study,
    Subject,
    UnknownName,
    load_data,
    load_model,
    nearest,
)
from neuronscope.faces.cli import console

EXECUTOR_OPTIONS = {"processes": "workers", "address": "address"}
"""Option of the table [run] -> parameter of the executors that take it."""


def make_spec(spec: type[Any], given: Mapping[str, Any]) -> Any:
    """The spec with what was given in it.

    Raises:
        InputError: a value that its field does not take; all of them are named.
    """
    try:
        return spec(**given)
    except ValidationError as error:
        wrong = "; ".join(
            f"--{str((*part['loc'], 'spec')[0]).replace('_', '-')}: {part['msg']}, got {part['input']!r}"
            for part in error.errors()
        )
        raise InputError(wrong) from error


def make_run(given: Mapping[str, Any], *, progress: console.Progress) -> Run:
    """The circumstances that were asked for.

    Raises:
        UnknownName: no such executor.
        InputError: a size, seed or device that cannot be.
    """
    chosen = {
        key: given[key] for key in ("seed", "device", "dtype", "batch_size", "threads", "workers") if key in given
    }
    if "memory" in given:
        chosen["memory"] = read_bytes(given["memory"])
    run = Run(**chosen, progress=progress)
    return replace(run, executor=make_executor(given, device=run.torch_device.type))


def make_executor(given: Mapping[str, Any], *, device: str) -> Executor:
    """The executor that was asked for, with those of the circumstances that it wants to know.

    Raises:
        UnknownName: no such executor.
        InputError: an option that this executor has not, or a number that cannot be.
    """
    name = given.get("executor", "serial")
    if name not in EXECUTORS:
        message = f"there is no executor '{name}': expected one of {', '.join(EXECUTORS)}.{nearest(name, EXECUTORS)}"
        raise UnknownName(message)
    taken = {executor: set(inspect.signature(maker).parameters) for executor, maker in EXECUTORS.items()}
    said = {field: given[key] for key, field in EXECUTOR_OPTIONS.items() if key in given}
    for key, field in EXECUTOR_OPTIONS.items():
        if key in given and field not in taken[name]:
            others = " or ".join(f"--executor {other}" for other in EXECUTORS if field in taken[other])
            message = f"the executor '{name}' takes no --{key}, got {given[key]}. Leave it out, or say {others}"
            raise InputError(message)
    if said.get("workers", 1) < 1:
        message = f"--processes must be at least 1, not {said['workers']}"
        raise InputError(message)
    # What a task reserves on a cluster follows from what the run says anyway.
    reserved = {"threads_per_task": given.get("threads", 1), "gpus_per_task": 1 if device == "cuda" else 0}
    return EXECUTORS[name](**said, **{field: count for field, count in reserved.items() if field in taken[name]})


def make_subject(given: Mapping[str, Any], *, progress: console.Progress | None = None) -> Subject:
    """The network that was asked for.

    Args:
        given: the table [model].
        progress: hears of the bytes of weights that are downloaded.

    Raises:
        InputError: none was named, or a size has the wrong number of sides.
    """
    if "model" not in given:
        message = (
            "no network was named. Say --model PREFIX:NAME, or give `model` in the table [model] of a recipe; "
            "the prefixes: neuronscope list models"
        )
        raise InputError(message)
    chosen = {key: value for key, value in given.items() if key not in ("model", "normalise")}
    if given.get("normalise") == "none":
        chosen |= {"mean": (), "std": ()}
    for key, counts in (("input_shape", (3,)), ("resize", (1, 2)), ("crop", (1, 2))):
        if key in chosen:
            chosen[key] = _sides(key, chosen[key], counts)
    subject = load_model(given["model"], **chosen, progress=progress)
    if subject.not_loaded:
        console.warn(
            f"{len(subject.not_loaded)} tensors of {subject.name} are not in the weights and stay random, "
            f"first '{subject.not_loaded[0]}'"
        )
    return subject


def _sides(key: str, value: tuple[int, ...], counts: tuple[int, ...]) -> int | tuple[int, ...]:
    if len(value) not in counts:
        expected = " or ".join(map(str, counts))
        message = f"--{key.replace('_', '-')} takes {expected} numbers separated by commas, got {len(value)}"
        raise InputError(message)
    return value[0] if len(value) == 1 else value


def make_data(given: Mapping[str, Any], *, seed: int) -> Data:
    """The images that were asked for.

    Raises:
        InputError: none were named.
    """
    if "data" not in given:
        message = (
            "no images were named. Say --data NAME:PATH, or give `data` in the table [data] of a recipe; "
            "the names: neuronscope list data"
        )
        raise InputError(message)
    return load_data(given["data"], seed=seed, **{key: value for key, value in given.items() if key != "data"})


def study_data(study: Study, spec: Any, given: Mapping[str, Any], *, seed: int) -> Data:
    """The images of a study: those that were named, else those that come with its own options.

    Args:
        study: the row of the table.
        spec: its options.
        given: the table [data].
        seed: decides which images a limit takes.

    Raises:
        InputError: none were named and none come along; or options of images that were not named.
    """
    if study.data_of is None or "data" in given:
        return make_data(given, seed=seed)
    if given:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in given)
        message = (
            f"{flags} chooses among the images of --data, but none were named: those of '{study.name}' come with its "
            f"own options. Leave it out, or see: neuronscope run {study.name} --help"
        )
        raise InputError(message)
    return study.data_of(spec, seed)


def read_bytes(text: str) -> int:
    """`2GB`, `500 MiB` or a plain number as bytes.

    Raises:
        InputError: the text is not of this form.
    """
    match = re.fullmatch(r"([0-9]*\.?[0-9]+) *([kKMGT]?)(i?)[bB]?", text.strip())
    if match is None or float(match[1]) <= 0:
        message = f"--memory takes a size, as in 2GB or 500MiB, not '{text}'"
        raise InputError(message)
    power = " kMGT".index(match[2].replace("K", "k") or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)
