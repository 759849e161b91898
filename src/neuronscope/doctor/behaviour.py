"""What a network does when it is run: which layers are called, and whether its answers can be repeated.

A network is shown a few images in several ways (together, one by one, twice, with another number of threads). What it
writes into itself on the way (batch normalisation in training mode does) is noted and taken back.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuronscope.data.dataset import Data
from neuronscope.data.loading import batches
from neuronscope.doctor.finding import Finding, some
from neuronscope.errors import DataError
from neuronscope.hooks import observed, placed
from neuronscope.models.subject import Subject
from neuronscope.run import Run
from neuronscope.units import LayerInfo

TOLERANCE = 1e-5
"""Of a layer's largest activation: what another batch size or number of threads may change."""

GROSS = 1e-3
"""Of a layer's largest activation: no rounding makes such a difference."""

FEW = 4
"""Images for comparisons, which keep whole activations."""

LOGITS = "logits"
"""The network's output, among the names of layers."""


@dataclass(frozen=True)
class Look:
    """What was seen while a network was shown some images.

    Attributes:
        images: the network's input.
        labels: classes of the images; -1 where unknown.
        logits: the network's output.
        passes: forward passes that were made.
        missing: layer -> number of passes in which its hook did not fire.
        extra: modules called more often than when the network was loaded.
        constant: looked-at layer -> (units with one and the same value at all positions of all images, all units).
        changed: looked-at layers whose output a later operation overwrites in place.
        written: buffers of the network that a forward pass changed.
    """

    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, "n"]
    logits: Float[Tensor, "n k"]
    passes: int
    missing: Mapping[str, int]
    extra: tuple[str, ...]
    constant: Mapping[str, tuple[int, int]]
    changed: tuple[str, ...]
    written: tuple[str, ...]


def look(subject: Subject, data: Data, *, layers: Sequence[LayerInfo], run: Run) -> Look:
    """Show images to a network and write down what its layers do.

    Args:
        subject: the network.
        data: a few images; all are kept in memory.
        layers: whose units to look at; all others are only watched for being called.
        run: device, batch size, threads.

    Raises:
        NeuronscopeError: an image cannot be read, or the images do not have one size.
        RuntimeError: the network cannot take the images.
    """
    notes = _Notes(subject, layers)
    images, labels, logits = [], [], []
    with run.scope(), untouched(subject.module), placed(subject.module, run) as module:
        before = {name: buffer.clone() for name, buffer in module.named_buffers()}
        prepare = subject.preprocess.batch
        for batch in batches(data, prepare, batch_size=run.batch_size, workers=run.workers):
            logits.append(notes.watch(module, run.place(batch.image)).float().cpu())
            images.append(batch.image)
            labels.append(batch.label)
        if not images:
            message = f"none of the {len(data)} images of {data.name} that were tried could be read"
            raise DataError(message)
        few = run.place(torch.cat(images)[:FEW])
        with contextlib.suppress(RuntimeError, ValueError):  # a batch of one is judged by `compare`
            for image in torch.split(few, 1):
                notes.watch(module, image)  # a path that is chosen by the input may differ for each image
        written = [name for name, buffer in module.named_buffers() if not torch.equal(before[name], buffer)]
        changed = _changed(module, layers, few)
    return Look(
        images=torch.cat(images),
        labels=torch.cat(labels),
        logits=torch.cat(logits),
        passes=notes.passes,
        missing={name: notes.passes - notes.fired[name] for name in notes.names if notes.fired[name] < notes.passes},
        extra=tuple(sorted(notes.extra)),
        constant=notes.constant(),
        changed=changed,
        written=tuple(written),
    )


class _Notes:
    """What hooks write down over several passes."""

    def __init__(self, subject: Subject, layers: Sequence[LayerInfo]) -> None:
        """Nothing has been seen."""
        self.names = tuple(layer.name for layer in subject.layers)
        self.passes = 0
        self.fired: Counter[str] = Counter()
        self.extra: set[str] = set()
        self._looked_at = {layer.name for layer in layers}
        self._low: dict[str, Tensor] = {}
        self._high: dict[str, Tensor] = {}
        calls = Counter(layer.module_name for layer in subject.layers)
        visits: dict[LayerInfo, Callable[[Tensor], None]] = {one: self._visitor(one) for one in subject.layers}
        for layer in subject.layers:
            if layer.call == 0:  # one call beyond those that are known
                beyond = replace(layer, name=f"{layer.module_name}#{calls[layer.module_name]}")
                visits[beyond] = self._beyond(layer.module_name)
        self._visits = visits

    def watch(self, module: nn.Module, image: Tensor) -> Tensor:
        """One forward pass."""
        with torch.inference_mode(), observed(module, self._visits):
            logits: Tensor = module(image)
        self.passes += 1
        return logits

    def constant(self) -> dict[str, tuple[int, int]]:
        """Layer -> units that never change, all units."""
        return {
            name: (int((self._low[name] == self._high[name]).sum()), len(self._low[name]))
            for name in self.names
            if name in self._low
        }

    def _visitor(self, layer: LayerInfo) -> Callable[[Tensor], None]:
        def visit(maps: Tensor) -> None:
            self.fired[layer.name] += 1
            if layer.name in self._looked_at:
                flat = maps.reshape(*maps.shape[:2], -1)
                low, high = flat.amin(2).amin(0), flat.amax(2).amax(0)
                self._low[layer.name] = torch.minimum(self._low.get(layer.name, low), low)
                self._high[layer.name] = torch.maximum(self._high.get(layer.name, high), high)

        return visit

    def _beyond(self, name: str) -> Callable[[Tensor], None]:
        def visit(_maps: Tensor) -> None:
            self.extra.add(name)

        return visit


def _changed(module: nn.Module, layers: Sequence[LayerInfo], image: Tensor) -> tuple[str, ...]:
    """Layers whose output tensor is written to after their hook: PyTorch counts the writes (`Tensor._version`)."""
    outputs: dict[str, tuple[Tensor, int]] = {}

    def keeping(name: str) -> Callable[[Tensor], None]:
        def keep(maps: Tensor) -> None:
            outputs[name] = (maps, maps._version)  # noqa: SLF001 PyTorch has no other name for it

        return keep

    with torch.no_grad(), observed(module, {layer: keeping(layer.name) for layer in layers}):  # no inference tensors:
        module(image)  # they do not count
    return tuple(name for name, (maps, version) in outputs.items() if maps._version != version)  # noqa: SLF001 as above


@contextlib.contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Give a network's buffers and the random stream back as they were: looking must not change a network."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        with torch.no_grad():
            for buffer, values in buffers:
                buffer.copy_(values)


@dataclass(frozen=True)
class Comparison:
    """How far a network's answers to the same images lie apart, in units of each layer's largest activation.

    Attributes:
        again: the same batch once more.
        alone: each image alone.
        threads: with `other` threads in place of `usual`.
        usual, other: numbers of threads; equal where there is nothing to compare.
        failure: what the network said to one image alone; empty when it worked.
    """

    again: Mapping[str, float]
    alone: Mapping[str, float]
    threads: Mapping[str, float]
    usual: int
    other: int
    failure: str = ""


def compare(subject: Subject, images: Float[Tensor, "n c h w"], *, layers: Sequence[LayerInfo], run: Run) -> Comparison:
    """Run the same images in several ways.

    Args:
        subject: the network.
        images: its input; a few, for whole activations are kept.
        layers: whose outputs to compare, beside the logits.
        run: device and threads.
    """
    failure = ""
    alone: Mapping[str, float] = {}
    own = torch.get_num_threads()
    with run.scope(), untouched(subject.module), placed(subject.module, run) as module:
        few = run.place(images)
        kept = _outputs(module, layers, few)
        again = _apart(kept, module, layers, [few])
        try:
            alone = _apart(kept, module, layers, torch.split(few, 1))
        except (RuntimeError, ValueError) as problem:
            failure = next(iter(str(problem).splitlines()), type(problem).__name__)
        usual = torch.get_num_threads()
        other = usual if few.is_cuda else 1 if usual > 1 else own  # of a device, threads are no concern
        with replace(run, threads=other).scope():
            threads = _apart(kept, module, layers, [few]) if other != usual else {}
    return Comparison(again=again, alone=alone, threads=threads, usual=usual, other=other, failure=failure)


def _outputs(module: nn.Module, layers: Sequence[LayerInfo], image: Tensor) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}

    def keeping(name: str) -> Callable[[Tensor], None]:
        def keep(maps: Tensor) -> None:
            kept[name] = maps.clone()

        return keep

    with torch.inference_mode(), observed(module, {layer: keeping(layer.name) for layer in layers}):
        kept[LOGITS] = module(image)
    return kept


def _apart(
    kept: Mapping[str, Tensor], module: nn.Module, layers: Sequence[LayerInfo], parts: Sequence[Tensor]
) -> dict[str, float]:
    """Largest difference to what was kept when the same images come in these parts; only numbers are kept."""
    apart: dict[str, float] = {}
    first = 0

    def note(name: str, maps: Tensor) -> None:
        before = kept[name][first : first + len(maps)]
        scale = float(kept[name].abs().max())
        gap = float((maps - before).abs().max()) if maps.shape == before.shape else float("inf")
        apart[name] = max(apart.get(name, 0.0), gap / scale if scale else gap)

    def noting(name: str) -> Callable[[Tensor], None]:
        return lambda maps: note(name, maps)

    both = [layer for layer in layers if layer.name in kept]
    with torch.inference_mode(), observed(module, {layer: noting(layer.name) for layer in both}):
        for part in parts:
            note(LOGITS, module(part))
            first += len(part)
    return apart


def check_hooks(seen: Look, *, chosen: Sequence[LayerInfo]) -> Finding:
    """Whether the layers that were there when the network was loaded are called for real images.

    Args:
        seen: what happened.
        chosen: the layers to study: a run stops when one of them is not called.
    """
    names = {layer.name for layer in chosen}
    lost = [name for name in seen.missing if name in names]
    if lost:
        text = (
            f"{len(lost)} of {len(names)} chosen layers were not called in some of {seen.passes} passes: {some(lost)}; "
            "though they were when the network was loaded: it chooses its path by its input"
        )
        return Finding("behaviour", "hooks", "broken", text, "Leave these layers out with --layers")
    if seen.missing:
        text = f"{len(seen.missing)} layers were not called in some of {seen.passes} passes: {some(list(seen.missing))}"
        return Finding("behaviour", "hooks", "warning", text, "Choose other layers: a run would stop at these")
    if seen.extra:
        text = f"modules are called more often than when the network was loaded: {some(seen.extra)}"
        return Finding("behaviour", "hooks", "warning", text, "The calls beyond are not studied: look into forward()")
    return Finding("behaviour", "hooks", "fine", f"every layer was called in each of {seen.passes} passes")


def check_dead(seen: Look, *, first: str) -> Finding:
    """Whether layers answer to images: the first one above all, on which all others rest.

    Args:
        seen: what happened.
        first: the network's first layer.
    """
    still = [name for name, (constant, units) in seen.constant.items() if constant == units]
    images = f"{len(seen.images)} images"
    if first in still:
        text = f"all units of the first layer '{first}' have one value at every position of {images}"
        return Finding("behaviour", "dead units", "broken", text, "Look at the normalisation and at its weights")
    if still:
        text = f"{len(still)} layers have one value in each unit for {images}: {some(still)}"
        return Finding(
            "behaviour", "dead units", "broken", text, "Nothing after them depends on the image: see weights"
        )
    constant, units = seen.constant.get(first, (0, 0))
    if 2 * constant > units:
        text = f"{constant} of {units} units of the first layer '{first}' have one value at every position of {images}"
        return Finding("behaviour", "dead units", "warning", text, "Look at the normalisation and at its weights")
    total, dead = (sum(pair[i] for pair in seen.constant.values()) for i in (1, 0))
    text = f"{dead:,} of {total:,} units of the layers looked at have one value for {images}"
    return Finding("behaviour", "dead units", "note" if dead else "fine", text)


def check_in_place(seen: Look) -> Finding | None:
    """Which layers are overwritten after they return; None when none is."""
    if not seen.changed:
        return None
    text = (
        f"the outputs of {len(seen.changed)} layers looked at are overwritten in place by what follows "
        f"({some(seen.changed)}); they are measured before that"
    )
    return Finding("behaviour", "in-place operations", "note", text)


def check_written(seen: Look) -> Finding | None:
    """Whether a forward pass changes the network; None when it does not."""
    if not seen.written:
        return None
    text = f"a forward pass changes the network itself: {some(seen.written)}. Results depend on what was run before"
    advice = "Put it into eval mode, or see in forward() what writes into these buffers"
    return Finding("behaviour", "network", "broken", text, advice)


def check_repeatable(seen: Comparison) -> Finding:
    """Whether the same batch gives the same bits."""
    name, gap = _worst(seen.again)
    if gap == 0:
        return Finding("behaviour", "repetition", "fine", "the same images twice give the same bits")
    where = f"the same images twice differ by {gap:.1e} of the largest activation of '{name}'"
    if gap <= TOLERANCE:
        return Finding("behaviour", "repetition", "warning", f"{where}; expected the same bits", _KERNELS)
    text = f"{where}: something in the network is random in eval mode"
    advice = "Look for functional dropout without training=self.training, and for noise layers"
    return Finding("behaviour", "repetition", "broken", text, advice)


_KERNELS = "Some kernels of this device add in any order; --device cpu repeats its bits"


def check_alone(seen: Comparison) -> Finding:
    """Whether an image gets the same answer alone as beside others."""
    if seen.failure:
        text = f"the network cannot take one image alone: it said '{seen.failure}'"
        return Finding("behaviour", "batch", "broken", text, _BATCH)
    name, gap = _worst(seen.alone)
    where = f"an image alone and beside others differs by {gap:.1e} of the largest activation of '{name}'"
    settled = _settled(seen, "batch", gap, question="whether images influence each other", where=where)
    if settled is not None:
        return settled
    if gap <= GROSS:
        text = f"{where}; expected at most {TOLERANCE:.0e}"
        return Finding("behaviour", "batch", "warning", text, "Keep --batch-size the same; --dtype float64 may help")
    return Finding("behaviour", "batch", "broken", f"{where}: outputs depend on the other images in the batch", _BATCH)


_BATCH = "Look for batch normalisation in training mode or without statistics, and for sums over the first axis"


def check_thread_numbers(seen: Comparison) -> Finding:
    """Whether another number of threads gives the same answer."""
    if seen.usual == seen.other:
        text = "one number of threads only: nothing to compare"
        return Finding("behaviour", "threads", "fine", text)
    name, gap = _worst(seen.threads)
    where = f"{seen.other} and {seen.usual} threads differ by {gap:.1e} of the largest activation of '{name}'"
    settled = _settled(seen, "threads", gap, question="whether threads matter", where=where)
    if settled is not None:
        return settled
    text = f"{where}; expected at most {TOLERANCE:.0e}"
    return Finding("behaviour", "threads", "warning", text, "Fix their number with --threads, on all machines alike")


def _settled(seen: Comparison, subject: str, gap: float, *, question: str, where: str) -> Finding | None:
    """The finding where a difference says nothing (of a random network) or is mere rounding; None where it matters."""
    if _worst(seen.again)[1] > TOLERANCE:
        return Finding("behaviour", subject, "note", f"{question} cannot be told of a network that is random")
    if gap <= TOLERANCE:
        return Finding("behaviour", subject, "fine", f"{where}, within {TOLERANCE:.0e}")
    return None


def _worst(apart: Mapping[str, float]) -> tuple[str, float]:
    """The layer that differs most; a difference that is not a number counts as infinite."""
    numbers = {name: float("inf") if isnan(gap) else gap for name, gap in apart.items()}
    name = max(numbers, key=lambda one: numbers[one], default=LOGITS)
    return name, numbers.get(name, 0.0)
