"""The one loop over data: batches fixed by row number, grouped into shards, folded, merged in order.

What is bit-equal: the same weights, data, step, reducer, seed, batch size and threads give the same bits for any
executor and any order in which shards are worked, because batches and shards are cut by row number alone and shard
states merge from left to right. The loop also knows what a pass will cost before it starts (`Plan`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import torch

from neuronscope.allocator import give_back_freed_memory, keep_freed_memory
from neuronscope.checkpoint import Checkpoint, Done, ShardState, decode, digest, encode
from neuronscope.data.dataset import Batch, Data
from neuronscope.data.design import Design
from neuronscope.data.loading import batches
from neuronscope.errors import InputError, NeuronscopeError, PortionDone
from neuronscope.executors import Executor, Serial
from neuronscope.hooks import placed
from neuronscope.maths.streams import Reducer, State, on_cpu, state_bytes
from neuronscope.models.subject import Subject
from neuronscope.result import versions
from neuronscope.run import Run, Silent
from neuronscope.steps import Step, activation_bytes

Answer = TypeVar("Answer")
Work = TypeVar("Work")

_MOST_SHARDS = 64
_LEAST_BATCHES = 4  # in a shard: fewer would spend their time starting and merging
_LARGE_STATE = 16 * 2**20  # bytes; states above it are written and merged less often
_LEAST_SHARDS = 4  # of a sweep with the largest states: enough for a few workers
_CROWDING = 256 * 2**20  # bytes; beside states above it, which are few, no freed memory is kept
_LIVE_LAYERS = 4  # network outputs alive at once in a forward pass without gradients, as a rough bound
_PROBE_IMAGES = 8


@dataclass(frozen=True)
class Swept(Generic[Answer]):
    """What a sweep brought home.

    Attributes:
        answer: the reducer's answer.
        images: how many images were seen.
        skipped: row and cause of each image left out.
    """

    answer: Answer
    images: int
    skipped: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Shard:
    """A run of consecutive batches: rows `first` to `last` (exclusive)."""

    first: int
    last: int

    @property
    def images(self) -> int:
        """Number of rows."""
        return self.last - self.first


@dataclass(frozen=True)
class SweepTask:
    """All that working a shard takes; shared by the shards of a sweep and handed to an executor once."""

    subject: Subject
    data: Data | Design
    step: Step
    reducer: Reducer[Any]
    run: Run
    batch_size: int


@dataclass(frozen=True)
class PlannedSweep:
    """One pass over the data, before it happens.

    Attributes:
        name: what the pass is for.
        images: number of inputs.
        forward, backward: passes through the network, counted in images.
        state: bytes of the reducer's state.
        working: bytes of activations alive at once, roughly.
        replays: passes through what follows a layer only, counted in images.
    """

    name: str
    images: int
    forward: int
    backward: int
    state: int
    working: int
    replays: int = 0


@dataclass(frozen=True)
class Plan:
    """What a study is going to do.

    Attributes:
        sweeps: its passes, in order.
        seconds: estimate from timing a few images, decoding included; None when nothing was timed.
    """

    sweeps: tuple[PlannedSweep, ...]
    seconds: float | None = field(default=None)

    @property
    def memory(self) -> int:
        """Bytes needed at the largest moment beside the network and the program itself, roughly."""
        return max((one.state + one.working for one in self.sweeps), default=0)


def sweep(
    subject: Subject, data: Data | Design, step: Step, reducer: Reducer[Answer], *, run: Run, name: str = "sweep"
) -> Swept[Answer]:
    """Show all images to the network, a batch at a time, and fold what the step sees.

    With `run.checkpoint`, what was finished before is not done again, and what is finished now is kept. With
    `run.portion`, only that part of the shards is worked and kept, and there is no answer: `unfinished` ends the study.

    What is finished when the sweep ends by an error or by Ctrl-C is kept as well.

    Raises:
        InputError: the data is empty, or the sweep needs more than the memory of the run.
        DataError: an image cannot be read, and the data does not say to skip such images.
        StorageError: a checkpoint cannot be written.
    """
    keep_freed_memory()
    try:
        return _swept(subject, data, step, reducer, run=run, name=name)
    finally:
        give_back_freed_memory()  # when the states are gone as well


def _swept(
    subject: Subject, data: Data | Design, step: Step, reducer: Reducer[Answer], *, run: Run, name: str
) -> Swept[Answer]:
    if len(data) == 0:
        message = f"{data.name} holds no images"
        raise InputError(message)
    check_memory(planned(subject, data, step, reducer, run=run, name=name), run=run)
    task = make_task(subject, data, step, reducer, run=run)
    shards = cut(len(data), batch_size=task.batch_size, state=reducer.size(step.shapes(len(subject.classes))))
    checkpoint = Checkpoint(run.checkpoint, name=name, key=identity(task, name=name)) if run.checkpoint else None
    begun = replace(_absorbed(reducer, checkpoint.read()) if checkpoint is not None else Done(), shards=len(shards))
    mine = portion(len(shards), run.portion)
    due = [position for position in mine if position >= begun.first and position not in begun.beyond]
    run.progress.start(name, sum(shards[position].images for position in mine))
    run.progress.advance(sum(shards[position].images for position in mine if position not in set(due)))
    try:
        done = _folded(task, shards, due, begun=begun, run=run, checkpoint=checkpoint)
    finally:
        run.progress.finish()
    if run.portion is not None:
        return Swept(None, 0, ())  # type: ignore[arg-type]  # nobody may use it: `unfinished` stops the study
    if done.first != len(shards):
        message = (
            f"the executor brought back {done.first} of {len(shards)} shards of '{name}': the answer is incomplete"
        )
        raise NeuronscopeError(message)
    if done.prefix is None or done.prefix.images == 0:
        message = f"none of the {len(data)} images of {data.name} could be read"
        raise InputError(message)
    return Swept(reducer.finish(done.prefix.state), done.prefix.images, done.prefix.skipped)


def _folded(
    task: SweepTask,
    shards: Sequence[Shard],
    due: Sequence[int],
    *,
    begun: Done,
    run: Run,
    checkpoint: Checkpoint | None,
) -> Done:
    """How far the sweep is after the shards at the positions `due`; kept on the way, and when an error ends it."""
    done, whole = begun, True
    try:
        for position, state in _worked(task, [shards[position] for position in due], run.executor):
            # Merging may build on the memory of the prefix: broken off in the middle, that is the state of nothing.
            whole = False
            done = _absorbed(task.reducer, replace(done, beyond={**done.beyond, due[position]: state}))
            whole = True
            if not run.executor.inside:
                run.progress.advance(shards[due[position]].images)
            if checkpoint is not None:
                checkpoint.write(done)
        if checkpoint is not None and (due or run.portion is not None):  # an empty portion has a file as well
            checkpoint.write(done, now=True)
    except BaseException:  # Ctrl-C is one
        if checkpoint is not None and whole and done is not begun:
            checkpoint.write_last(done)
        raise
    return done


def unfinished(run: Run) -> None:
    """End a study after its independent sweeps when only a portion of them was asked for.

    Raises:
        PortionDone: always, when the run has a portion.
    """
    if run.portion is not None:
        number, count = run.portion
        message = f"portion {number} of {count} is done"
        raise PortionDone(message)


def make_task(subject: Subject, data: Data | Design, step: Step, reducer: Reducer[Any], *, run: Run) -> SweepTask:
    """The task of a sweep: the run as its shards see it, with threads settled and without a listener elsewhere."""
    threads = run.threads if run.threads is not None else run.executor.threads
    inside = run.executor.inside
    own = replace(
        run,
        device=str(run.torch_device),  # settled here: a worker must not choose for itself
        threads=threads,
        progress=run.progress if inside else Silent(),
        workers=run.workers if inside else 1,
        executor=Serial(),
        checkpoint=None,
        portion=None,
    )
    return SweepTask(subject, data, step, reducer, own, _batch_size(data, run))


def _batch_size(data: Data | Design, run: Run) -> int:
    return data.batch_size(run.batch_size) if isinstance(data, Design) else run.batch_size


def identity(task: SweepTask, *, name: str) -> str:
    """A hash of all that decides the answer of a sweep: a checkpoint serves no other computation."""
    run = task.run
    return digest(
        name,
        task.subject.fingerprint,
        task.subject.preprocess,
        task.data.fingerprint,
        task.data.on_error,
        task.step,
        task.reducer,
        run.context,
        run.seed,
        processor(run.torch_device),
        run.dtype,
        task.batch_size,
        run.threads if run.threads is not None else torch.get_num_threads(),
        sorted(versions().items()),
    )


def processor(
    device: torch.device, *, model: Callable[[torch.device], str] = torch.cuda.get_device_name
) -> tuple[str, ...]:
    """What of a device decides bits: its kind, and of a GPU the model; not which of several equal ones it is.

    Args:
        device: where a run computes.
        model: asked for the name of a GPU.

    Example:
        >>> processor(torch.device("cpu"))
        ('cpu',)
        >>> processor(torch.device("cuda:1"), model=lambda _: "NVIDIA H200")
        ('cuda', 'NVIDIA H200')
    """
    return (device.type, model(device)) if device.type == "cuda" else (device.type,)


def portion(shards: int, part: tuple[int, int] | None) -> range:
    """Positions of the shards of one part, consecutive; all when there is no part.

    Example:
        >>> portion(10, (2, 3))
        range(3, 6)
    """
    if part is None:
        return range(shards)
    number, count = part
    return range((number - 1) * shards // count, number * shards // count)


def _absorbed(reducer: Reducer[Any], done: Done) -> Done:
    """Finished shards merged into the prefix as far as they border on it: always from left to right."""
    beyond, first, prefix = dict(done.beyond), done.first, done.prefix
    while first in beyond:
        prefix = join(reducer, prefix, beyond.pop(first))
        first += 1
    return Done(first, prefix, beyond, done.shards)


def _worked(task: SweepTask, shards: Sequence[Shard], executor: Executor) -> Iterator[tuple[int, ShardState]]:
    """The state of each shard as it comes; from elsewhere it comes as bytes, so that nothing is pickled."""
    if executor.inside:
        yield from executor.work(work_shard, task, shards)
        return
    for position, answer in executor.work(work_shard_elsewhere, task, shards):
        yield position, ShardState.from_plain(decode(answer))


def cut(images: int, *, batch_size: int, state: int) -> tuple[Shard, ...]:
    """The shards of a sweep: a function of the number of images, the batch size and the state's bytes alone.

    Example:
        >>> cut(100, batch_size=10, state=0)
        (Shard(first=0, last=40), Shard(first=40, last=80), Shard(first=80, last=100))
    """
    count = -(-images // batch_size)
    most = _MOST_SHARDS if state <= _LARGE_STATE else max(_LEAST_SHARDS, _MOST_SHARDS * _LARGE_STATE // state)
    each = max(_LEAST_BATCHES, -(-count // most)) * batch_size
    return tuple(Shard(first, min(first + each, images)) for first in range(0, images, each))


def work_shard_elsewhere(task: SweepTask, shard: Shard) -> bytes:
    """`work_shard` with its state as bytes, fit to travel."""
    keep_freed_memory()
    return encode(work_shard(task, shard).plain())


def work_shard(task: SweepTask, shard: Shard) -> ShardState:
    """Fold one shard from the start."""
    state = task.reducer.start()
    images = 0
    skipped: list[tuple[int, str]] = []
    run = task.run
    source = task.data.data if isinstance(task.data, Design) else task.data

    def leave_out(row: int, cause: str) -> None:
        skipped.append((row, cause))
        run.progress.advance(1)

    with run.scope(), placed(task.subject.module, run) as module:
        for batch in batches(
            source,
            task.subject.preprocess.batch,
            rows=range(shard.first, shard.last),
            batch_size=task.batch_size,
            workers=run.workers,
            on_skip=leave_out,
        ):
            here = _placed_batch(batch, task.data, run)
            state = task.reducer.add(state, task.step(module, here))
            images += len(batch.index)
            run.progress.advance(len(batch.index))
    if state_bytes(state) > _CROWDING:
        give_back_freed_memory()
    return ShardState(on_cpu(state), images, tuple(skipped))


def join(reducer: Reducer[Any], left: ShardState | None, right: ShardState) -> ShardState:
    """Two consecutive stretches as one; a stretch whose images were all left out changes nothing."""
    if left is None:
        return right
    return ShardState(
        state=reducer.merge(left.state, right.state),
        images=left.images + right.images,
        skipped=left.skipped + right.skipped,
    )


def rounds(
    plan: Callable[[int, State | None], Work | None],
    work: Callable[[Work], State],
    merge: Callable[[State, State], State],
) -> State | None:
    """Adaptive work in rounds of fixed size: the next plan is a pure function of the round and the merged state.

    Args:
        plan: (round from 0, state so far) -> what to work next; None ends it.
        work: works one plan to a state.
        merge: joins the state so far with the new one.

    Returns:
        The merged state; None when the first plan is already None.

    Example:
        >>> add = lambda a, b: {"n": a["n"] + b["n"]}
        >>> rounds(lambda r, s: None if s and s["n"] >= 10 else 4, lambda n: {"n": n}, add)
        {'n': 12}
    """
    state: State | None = None
    number = 0
    while (planned := plan(number, state)) is not None:
        fresh = work(planned)
        state = fresh if state is None else merge(state, fresh)
        number += 1
    return state


def planned(
    subject: Subject, data: Data | Design, step: Step, reducer: Reducer[Any], *, run: Run, name: str
) -> PlannedSweep:
    """What `sweep` with the same arguments will do."""
    forward, backward = step.passes
    replays = int(getattr(step, "replays", 0))  # of the steps that cut the network at a layer
    sizes = sorted((activation_bytes([layer]) for layer in subject.layers), reverse=True)
    whole, batch = sum(sizes), _batch_size(data, run)
    live = whole if backward else sum(sizes[:_LIVE_LAYERS])
    return PlannedSweep(
        name=name,
        images=len(data),
        forward=forward * len(data),
        backward=backward * len(data),
        state=reducer.size(step.shapes(len(subject.classes))),
        working=batch * live + min(int(getattr(step, "memory", 0)), replays * batch * whole),
        replays=replays * len(data),
    )


def check_memory(one: PlannedSweep, *, run: Run) -> None:
    """Refuse a pass that needs more than the run allows, before it starts.

    Raises:
        InputError: its state and activations are larger than `run.memory`.
    """
    if run.memory is not None and one.state + one.working > run.memory:
        message = (
            f"the sweep '{one.name}' over {one.images:,} images needs {(one.state + one.working) / 2**20:,.1f} MiB "
            f"beside the network ({one.state / 2**20:,.1f} of state, {one.working / 2**20:,.1f} of activations), and "
            f"--memory allows {run.memory / 2**20:,.1f} MiB. Allow more, choose fewer layers, or lower --batch-size"
        )
        raise InputError(message)


def timed(subject: Subject, data: Data | Design, step: Step, *, run: Run) -> float:
    """Seconds per image of a step, decoding included, measured on a few images."""
    few = data.start(_PROBE_IMAGES) if isinstance(data, Design) else data.take(range(min(_PROBE_IMAGES, len(data))))
    shown = few.data if isinstance(few, Design) else few

    def once() -> float:
        start = time.perf_counter()
        for batch in batches(shown, subject.preprocess.batch, batch_size=_batch_size(few, run), workers=run.workers):
            step(module, _placed_batch(batch, few, run))
        return time.perf_counter() - start

    keep_freed_memory()
    with run.scope(), placed(subject.module, run) as module:
        once()  # the first pass sets up kernels and would count for thousands of images
        return once() / len(few)


def estimate(subject: Subject, data: Data, steps: Sequence[tuple[PlannedSweep, Step]], *, run: Run) -> Plan:
    """A plan with its time estimated by running each step on a few images."""
    seconds = sum(one.images * timed(subject, data, step, run=run) for one, step in steps)
    return Plan(tuple(one for one, _ in steps), seconds)


def _placed_batch(batch: Batch, data: Data | Design, run: Run) -> Batch:
    parameters = torch.from_numpy(data.parameters[batch.index.numpy()]) if isinstance(data, Design) else None
    return Batch(
        index=run.place(batch.index),
        image=run.place(batch.image),
        label=run.place(batch.label),
        parameters=run.place(parameters) if parameters is not None else None,
    )
