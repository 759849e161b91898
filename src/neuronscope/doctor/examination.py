"""The whole examination: installation, machine, network, images, behaviour, cost, in this order.

Later parts rest on earlier ones: a network that cannot be run has no behaviour, and no cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from neuronscope.data.dataset import Data, balanced_rows, data_from_arrays
from neuronscope.doctor import behaviour, cost, images, network
from neuronscope.doctor.finding import Finding
from neuronscope.doctor.installation import examine_installation
from neuronscope.errors import DataError, NeuronscopeError
from neuronscope.models.subject import Subject
from neuronscope.run import Run
from neuronscope.units import LayerInfo

LOOKED_AT = 32
"""Images of the data that are shown to the network."""

_MADE_UP = 8


def examine(
    subject: Subject | None = None,
    data: Data | None = None,
    *,
    layers: Sequence[str] = (),
    run: Run | None = None,
    out: Path | None = None,
) -> tuple[Finding, ...]:
    """Whether installation, machine, network and images are in order, and what studies would cost.

    The network is given back as it came: also batch statistics that a forward pass changed are restored.

    Args:
        subject: a network; without one, only installation and machine are examined.
        data: images for it. Without them, noise shows how the network behaves, and what needs real images is left out.
        layers: patterns of the layers to study, as `Subject.select` takes them.
        run: device, batch size, threads, seed.
        out: the folder results will go to.

    Returns:
        One finding for each thing looked at, gravest ones included: see `worst`.

    Raises:
        UnknownName: a layer pattern that fits nothing.

    Example:
        >>> from neuronscope.models import load_model
        >>> found = examine(load_model("builtin:viewer-cnn", weights="random"))
        >>> [finding.text for finding in found if finding.subject == "repetition"]
        ['the same images twice give the same bits']
    """
    findings = list(examine_installation(out=out))
    if subject is None:
        return tuple(findings)
    run = run or Run()
    chosen = subject.select(*layers)
    findings += examine_network(subject)
    rest, runs = examine_behaviour(subject, data, layers=chosen, run=run)
    findings += rest
    findings.append(cost.check_size(subject.module))
    if runs:
        findings += examine_cost(subject, data, patterns=layers, layers=chosen, run=run)
    return tuple(findings)


def examine_network(subject: Subject) -> tuple[Finding, ...]:
    """What can be told without showing an image."""
    found = (
        network.check_modes(subject.module),
        network.check_statistics(subject.module),
        network.check_weights(subject.module, not_loaded=subject.not_loaded),
        network.check_normalisation(subject.preprocess, network.expected_normalisation(subject)),
        network.check_uncalled(subject),
        network.check_reused(subject),
        network.check_fields(subject),
    )
    return tuple(one for one in found if one is not None)


def examine_behaviour(
    subject: Subject, data: Data | None, *, layers: Sequence[LayerInfo], run: Run
) -> tuple[tuple[Finding, ...], bool]:
    """What happens when images are shown, and whether anything happens at all.

    Args:
        subject: the network.
        data: images; noise in their place when None.
        layers: the layers to study.
        run: device, batch size, threads, seed.
    """
    found: list[Finding | None] = []
    if data is None:
        text = "no images were given: the network was shown noise, and what needs real images was left out"
        found.append(Finding("images", "images", "note", text, "Say --data NAME:PATH"))
    elif len(data) == 0:
        return (
            Finding("images", "images", "broken", f"{data.name} holds no images", "Choose others with --data"),
        ), False
    else:
        found.append(images.check_labels(data, subject))
    few = _few(data, run=run) if data is not None else made_up(subject, run=run)
    first = subject.layers[0]
    looked_at = tuple(dict.fromkeys((first, *layers)))
    try:
        seen = behaviour.look(subject, few, layers=looked_at, run=run)
        compared = behaviour.compare(subject, seen.images[: behaviour.FEW], layers=looked_at, run=run)
    except (NeuronscopeError, RuntimeError, ValueError) as problem:
        line = next(iter(str(problem).splitlines()), type(problem).__name__)
        text = f"the images cannot be shown to the network: {line}"
        found.append(Finding("images", "images", "broken", text, "Look at --resize, --crop and --input-shape"))
        return tuple(one for one in found if one is not None), False
    if data is not None:
        found += _judged(subject, data, few, seen)
    found += [
        behaviour.check_hooks(seen, chosen=layers),
        behaviour.check_dead(seen, first=first.name),
        behaviour.check_in_place(seen),
        behaviour.check_written(seen),
        behaviour.check_repeatable(compared),
        behaviour.check_alone(compared),
        behaviour.check_thread_numbers(compared),
    ]
    return tuple(one for one in found if one is not None), True


def _judged(subject: Subject, data: Data, few: Data, seen: behaviour.Look) -> list[Finding | None]:
    """The checks that need real images."""
    found = [
        images.check_inputs(seen.images, normalised=bool(subject.preprocess.mean)),
        images.check_constant(seen.images),
        images.check_colour(seen.images, subject.preprocess, raw_channels=_raw_channels(few)),
        images.check_logits(seen.logits),
    ]
    if bool(seen.logits.isfinite().all()):
        found.append(images.check_predictions(seen.logits, seen.labels))
        if len(data.classes) == len(subject.classes):
            found.append(images.check_accuracy(seen.logits, seen.labels))
    return found


def examine_cost(
    subject: Subject, data: Data | None, *, patterns: Sequence[str], layers: Sequence[LayerInfo], run: Run
) -> tuple[Finding, ...]:
    """What passes and studies take.

    Args:
        subject: the network.
        data: all images; without them only single passes are timed.
        patterns: of the layers to study.
        layers: the layers these mean.
        run: device, batch size, threads, seed.
    """
    free = cost.free_memory(run)
    found = [cost.check_activations(subject.layers, layers, batch_size=run.batch_size, free=free)]
    with behaviour.untouched(subject.module):
        try:
            shown = data if data is not None else made_up(subject, run=run)
            found.append(cost.measure_times(subject, shown, layers=layers, run=run))
        except (NeuronscopeError, RuntimeError, ValueError) as problem:
            line = next(iter(str(problem).splitlines()), type(problem).__name__)
            text, advice = (
                f"passes with gradients cannot be timed: {line}",
                "Studies with gradients will stop: choose others",
            )
            found.append(Finding("cost", "time", "warning", text, advice))
        if data is not None:
            found += cost.plan_studies(subject, data, layers=patterns, run=run)
    return tuple(found)


def _few(data: Data, *, run: Run) -> Data:
    """A few images, of as many classes as there are."""
    return data.take(balanced_rows(data.labels, limit=LOOKED_AT, seed=run.seed), name=data.name)


def _raw_channels(data: Data) -> int:
    """Channels of the first image that can be read; some can, or the network would not have been run."""
    for row in range(len(data)):
        with suppress(DataError):
            return int(data.read(row).shape[0])
    return 0


def made_up(subject: Subject, *, run: Run) -> Data:
    """Images of noise in the size of the network's input."""
    noise = run.generator("doctor", "noise").integers(0, 256, (_MADE_UP, *subject.input_shape), dtype=np.uint8)
    labels = np.full(_MADE_UP, -1)
    return data_from_arrays(torch.from_numpy(noise), labels, name="noise", classes=())
