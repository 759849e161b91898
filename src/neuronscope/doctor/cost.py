"""What a network costs to run and what each study would take: parameters, time, memory.

Times are measured on a few images after a warm-up, with `neuronscope.sweep.timed`; studies are asked for their plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from neuronscope.data.dataset import Data
from neuronscope.doctor.finding import Finding
from neuronscope.doctor.installation import available_memory
from neuronscope.errors import NeuronscopeError
from neuronscope.models.subject import Subject
from neuronscope.quantities import duration, memory_size
from neuronscope.run import Run
from neuronscope.steps import Gradients, Predict, activation_bytes
from neuronscope.studies import STUDIES, Study
from neuronscope.sweep import Plan, timed
from neuronscope.units import LayerInfo

TIMED = 8
"""Images that are timed."""


def check_size(module: nn.Module) -> Finding:
    """Number of parameters and bytes of all tensors."""
    parameters = sum(one.numel() for one in module.parameters())
    held = sum(one.numel() * one.element_size() for one in (*module.parameters(), *module.buffers()))
    return Finding("cost", "network", "fine", f"{parameters:,} parameters, {memory_size(held)}")


def check_activations(
    every: Sequence[LayerInfo], chosen: Sequence[LayerInfo], *, batch_size: int, free: int | None
) -> Finding:
    """Whether the outputs of all layers fit into memory, as a backward pass needs them.

    Args:
        every: all layers of the network.
        chosen: the layers to study.
        batch_size: images in a forward pass.
        free: bytes; None when unknown.
    """
    one, wanted = activation_bytes(every), activation_bytes(chosen)
    text = (
        f"activations of one image: {memory_size(one)} in all {len(every)} layers, {memory_size(wanted)} in the "
        f"{len(chosen)} chosen; a backward pass over {batch_size} images holds about {memory_size(batch_size * one)}"
    )
    if free is not None and batch_size * one > free:
        advice = "Make --batch-size smaller"
        return Finding("cost", "activations", "warning", f"{text}, of {memory_size(free)} free", advice)
    return Finding("cost", "activations", "fine", text)


def measure_times(subject: Subject, data: Data, *, layers: Sequence[LayerInfo], run: Run) -> Finding:
    """Time of one forward pass, and of one with gradients, for each image.

    Args:
        subject: the network.
        data: images; the first few are used.
        layers: whose gradients are taken.
        run: device, batch size, threads.
    """
    few = data.take(range(min(TIMED, len(data))))
    forward = timed(subject, few, Predict(), run=run)
    text = f"{duration(forward)} for an image forward"
    if layers:
        both = timed(subject, few, Gradients(tuple(layers), of="prediction", measures=()), run=run)
        text += f", {duration(both)} forward and backward"
    batch = min(run.batch_size, len(few))
    where = f"{run.torch_device}, batches of {batch}, decoding included"
    return Finding("cost", "time", "fine", f"{text} ({where}; measured on {len(few)} images)")


def plan_studies(
    subject: Subject, data: Data, *, layers: Sequence[str], run: Run, studies: Mapping[str, Study] = STUDIES
) -> tuple[Finding, ...]:
    """What each study would take on these images, with its usual options.

    Args:
        subject: the network.
        data: all images.
        layers: patterns of the layers to study.
        run: device, batch size, threads.
        studies: name -> study.
    """
    free = free_memory(run)
    return tuple(
        _planned(name, partial(study.plan, subject, data, study.spec(layers=tuple(layers)), run=run), free)
        for name, study in studies.items()
    )


def _planned(name: str, plan: Callable[[], Plan], free: int | None) -> Finding:
    try:
        return check_plan(name, plan(), free=free)
    except (NeuronscopeError, RuntimeError, ValueError) as problem:
        first = next(iter(str(problem).splitlines()), type(problem).__name__)
        text = f"the study '{name}' cannot be planned for this network and these images: {first}"
        return Finding("cost", f"study {name}", "note", text)


def check_plan(name: str, plan: Plan, *, free: int | None) -> Finding:
    """Whether a study fits into memory, and how long it takes.

    Args:
        name: of the study.
        plan: what it would do.
        free: bytes; None when unknown.
    """
    passes = sum(one.forward for one in plan.sweeps), sum(one.backward for one in plan.sweeps)
    time = f"about {duration(plan.seconds)}, " if plan.seconds is not None else ""
    text = f"{time}{memory_size(plan.memory)} of memory ({passes[0]:,} forward and {passes[1]:,} backward passes)"
    if free is not None and plan.memory > free:
        advice = "Choose fewer --layers, or make --batch-size smaller"
        return Finding("cost", f"study {name}", "warning", f"{text}; {memory_size(free)} are free", advice)
    return Finding("cost", f"study {name}", "fine", text)


def free_memory(run: Run) -> int | None:
    """Bytes that are free where a run computes; None when unknown."""
    device: Any = run.torch_device
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory()
