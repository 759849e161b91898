"""What does sensitivity of every activation cost beside the forward passes, and what does storing them cost instead?

Random weights, made images, one thread; times are processor times of this process. Both sides get the same batches of
the same designs and augment them alike.

Both sides keep freed memory, as a sweep asks glibc to. Where the environment forbids it, each batch fetches its maps
from the system anew, on both sides, and how often differs from run to run: what the sums cost then is reported
from a process of its own.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import _measure as measure
import neuronscope as ns
from neuronscope.allocator import keep_freed_memory
from neuronscope.data.dataset import Batch, data_from_arrays
from neuronscope.data.design import Design
from neuronscope.maths.shapley_effects import ShapleySums
from neuronscope.maths.sobol import SobolIndices, SobolSums, sobol_indices
from neuronscope.maths.sobol.design import block_rows
from neuronscope.result import peak_memory
from neuronscope.steps import Augmented
from neuronscope.studies.sensitivity import SensitivitySpec
from neuronscope.studies.sensitivity.contrast import contrast_fold, contrast_rows
from neuronscope.studies.sensitivity.effects import shapley_design, shapley_rows
from neuronscope.studies.sensitivity.indices import design_of, reducer_of, rows_of
from neuronscope.studies.sensitivity.setting import Setting, settle

NETWORKS = ("resnet18", "alexnet", "vgg11")
SHARD = 16
"""Blocks that one state sees before it is merged: a quarter of a replicate of the study's 512 points."""

PUBLISHED: dict[str, tuple[dict[str, int], float]] = {
    "resnet18": ({"1.1": 9_400_000, "1.2": 2_621_440, "1.3": 5_242_880, "1.4": 524_288, "1.5": 4_587_520}, 234.0),
    "alexnet": ({"1.1": 9_400_000, "1.2": 2_621_440, "1.3": 5_242_880, "1.4": 524_288, "1.5": 9_175_040}, 88.0),
    "vgg11": ({"1.1": 1_880_000, "1.2": 655_360, "1.3": 1_310_720, "1.4": 524_288, "1.5": 1_146_880}, 133.7),
}
"""Rows of the published experiments of series 1, both sets and parts, and the days they took."""


def setting_of(network: str, augmentations: str, **options: object) -> Setting:
    """The study of a network at the original's checkpoints; options of the spec, and images."""
    rng = np.random.default_rng(0)
    images = int(options.pop("images", 40))  # type: ignore[call-overload]
    coarse = torch.from_numpy(rng.integers(0, 256, (images, 3, 16, 16))).float()
    pixels = torch.nn.functional.interpolate(coarse, size=(256, 256), mode="bicubic").clamp_(0, 255).to(torch.uint8)
    labels = np.arange(images) % 10
    data = data_from_arrays(pixels, labels, name="made", classes=[str(number) for number in range(10)])
    subject = ns.load_model(f"torchvision:{network}", weights="random")
    chosen = {"layers": (network,), "points": 64, "replicates": 1} | options
    spec = SensitivitySpec(augmentations=(augmentations,), **chosen)  # type: ignore[arg-type]
    return settle(subject, data, spec, ns.Run(workers=1, threads=1))


def batches_of(setting: Setting, rows: Design, device: torch.device, *, most: int = 2**62) -> Iterator[Batch]:
    """Batches of whole blocks as a sweep makes them, with their parameters."""
    size = rows.batch_size(setting.running(rows).batch_size)
    own = range(min(len(rows), most))
    for batch in ns.batches(rows.data, setting.subject.preprocess.batch, rows=own, batch_size=size, workers=1):
        yield Batch(
            index=batch.index.to(device),
            image=batch.image.to(device),
            label=batch.label.to(device),
            parameters=torch.from_numpy(rows.parameters[batch.index.numpy()]).to(device),
        )


def bare(setting: Setting, step: Augmented, batches: list[Batch]) -> Tensor:
    """Augmentations and forward passes, and nothing else."""
    with torch.inference_mode():
        return torch.cat([setting.subject.module(step.prepared(batch)) for batch in batches])


def swept(setting: Setting, step: Augmented, fold: SobolSums, batches: list[Batch], before: dict) -> Tensor:
    """What a sweep does with a shard: a state of its own, every batch, and the way into the sums so far."""
    state, logits = fold.start(), []
    for batch in batches:
        seen = step(setting.subject.module, batch)
        state = fold.add(state, seen)
        logits.append(seen["logits"])
    before["state"] = fold.merge(before["state"], state)
    return torch.cat(logits)


def turns(first: Callable[[], object], second: Callable[[], object], *, repeats: int) -> measure.Paired:
    """As `measure.pairs`, in processor time: both sides work on one thread and wait for nothing."""
    taken: tuple[list[float], list[float]] = ([], [])
    with measure.Watch() as watch:
        for repeat in range(repeats):
            order = ((0, first), (1, second)) if repeat % 2 == 0 else ((1, second), (0, first))
            for side, function in order:
                start = time.process_time()
                function()
                taken[side].append(time.process_time() - start)
    return measure.Paired(tuple(taken[0]), tuple(taken[1]), watch.busy)


def sums(network: str, augmentations: str, *, blocks: int, repeats: int) -> tuple[measure.Paired, int, int, float]:
    """Bare passes and sums in turn; rows, activations, and seconds of wall time of our side once more on a GPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setting = setting_of(network, augmentations)
    rows, step, fold = rows_of(setting, design_of(setting, 0), 0), setting.step(), reducer_of(setting)
    setting.subject.module.to(device)
    own = list(batches_of(setting, rows, device, most=rows.block * blocks))
    before = {"state": fold.start()}
    ours, plain = partial(swept, setting, step, fold, own, before), partial(bare, setting, step, own)
    assert torch.equal(ours(), plain()), "looking changed the network's answer"
    taken = turns(plain, ours, repeats=repeats)
    seconds = sorted(taken.second)[repeats // 2]
    if device.type == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        ours()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return taken, sum(len(batch.index) for batch in own), sum(prod(one.shape) for one in setting.layers), seconds


def sobol(*, quick: bool) -> Iterator[measure.Figure]:
    """First-order, total and second-order sums of every activation over the bare pass; rows per second for all."""
    blocks = 4 if quick else SHARD
    for network in NETWORKS[: 2 if quick else 3]:
        for augmentations in ("set1",) if quick else ("set1", "set2"):
            repeats = 1 if quick else {"resnet18": 3, "alexnet": 5, "vgg11": 1}[network]
            taken, rows, scalars, seconds = sums(network, augmentations, blocks=blocks, repeats=repeats)
            gc.collect()
            goal = "<= 1.15" if network == "resnet18" and not quick else ""  # few rows hardly pay for a state
            name = f"{network}, {augmentations}, S1 + ST + S2 of {scalars:,} activations, {rows} rows, over bare passes"
            yield measure.judged(name, taken, goal=goal, met=lambda ratio: ratio <= 1.15)
            if augmentations == "set1":
                yield speed(network, rows, seconds)
    command = [sys.executable, __file__, "--memory-fetched-anew", str(blocks), str(1 if quick else 3)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    first, second, busy = json.loads(done.stdout.splitlines()[-1])
    name = "resnet18, set1, the same where freed memory is not kept"
    yield measure.judged(name, measure.Paired(tuple(first), tuple(second), busy), goal="", met=lambda _ratio: True)


def speed(network: str, rows: int, seconds: float) -> measure.Figure:
    """Rows a second, and how long all published rows of this network would take at that speed."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "one thread of this processor, not a GPU"
    published, days = PUBLISHED[network]
    total = sum(published.values())
    projected = total * seconds / rows / 86400
    detail = f"{where}; projected: {projected:.2g} days for all {total:,} rows of 1.1 to 1.5, published {days:g} days"
    return measure.Figure(f"{network}, rows a second with set1 and its sums", rows / seconds, "", None, detail)


def contrast(*, quick: bool) -> Iterator[measure.Figure]:
    """One augmentation's contrast with the plain image, as one sweep, over the bare pass of its rows."""
    images = 40 if quick else 200
    setting = setting_of("resnet18", "set1", images=images, contrast_images=images)
    rows, step = contrast_rows(setting, setting.augmentations[0]), setting.step(means="all")
    fold, cpu = contrast_fold(setting, rows), torch.device("cpu")

    def plain() -> list[Tensor]:
        return [bare(setting, step, [batch]) for batch in batches_of(setting, rows, cpu)]

    def ours() -> object:
        return ns.sweep(setting.subject, rows, step, fold, run=setting.running(rows)).answer

    name = f"resnet18, contrast of {images} images with 4 draws of erasing, one sweep, over bare passes"
    taken = turns(plain, ours, repeats=1 if quick else 3)
    goal = "" if quick else "<= 1.5"  # of few rows the state itself is most of the work
    yield measure.judged(name, taken, goal=goal, met=lambda ratio: ratio <= 1.5)


def shapley(*, quick: bool) -> Iterator[measure.Figure]:
    """Shapley effects of every activation, as one sweep, over the bare pass of its rows."""
    setting = setting_of("resnet18", "set1", permutations=4 if quick else 32, outer=1, inner=2)
    design = shapley_design(setting, 0)
    rows, step, cpu = shapley_rows(setting, design), setting.step(), torch.device("cpu")
    fold = ShapleySums(tuple(f"maps/{layer.name}" for layer in setting.layers), design)

    def plain() -> list[Tensor]:
        return [bare(setting, step, [batch]) for batch in batches_of(setting, rows, cpu)]

    def ours() -> object:
        return ns.sweep(setting.subject, rows, step, fold, run=setting.running(rows)).answer

    name = f"resnet18, set1, Shapley effects of every activation, {len(rows)} rows, one sweep, over bare passes"
    yield measure.judged(name, turns(plain, ours, repeats=1 if quick else 3), goal="", met=lambda _ratio: True)


def storing(*, quick: bool) -> Iterator[measure.Figure]:
    """The way of the original: activations appended to HDF5, then SALib for one column after the other."""
    import h5py
    from SALib.analyze import sobol as salib

    points, layer = (4, "classifier.6") if quick else (16, "avgpool")
    setting = setting_of("alexnet", "set1", points=points, layers=(layer,), output="logits")
    rows, step = rows_of(setting, design_of(setting, 0), 0), setting.step()
    fold = replace(reducer_of(setting), halves="first")  # the rows that SALib uses
    batches = list(batches_of(setting, rows, torch.device("cpu")))
    problem, key = setting.problem, f"maps/{layer}"
    asked = {
        "num_vars": problem.columns,
        "names": [f"x{number}" for number in range(problem.columns)],
        "bounds": [[0, 1]] * problem.columns,
        "groups": [factor.name for factor in problem.factors for _ in factor.columns],
    }
    found: dict[str, object] = {}

    def ours() -> None:
        before = {"state": fold.start()}
        swept(setting, step, fold, batches, before)
        found["ours"] = sobol_indices(fold.finish(before["state"])[key], halves="first")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "activations.hdf5"

        def peer() -> None:
            path.unlink(missing_ok=True)
            for batch in batches:
                values = step(setting.subject.module, batch)[key].numpy()
                with h5py.File(path, "a") as file:
                    if layer not in file:
                        shape = {"shape": (0, values.shape[1]), "maxshape": (None, values.shape[1])}
                        file.create_dataset(layer, dtype="f4", chunks=True, compression="gzip", **shape)
                    file[layer].resize(len(file[layer]) + len(values), axis=0)
                    file[layer][-len(values) :] = values
            answers = []
            with h5py.File(path) as file:
                stored = file[layer]
                for start in range(0, stored.shape[1], 1000):
                    for column in stored[:, start : start + 1000].T:
                        one = salib.analyze(asked, column.astype(np.float64), num_resamples=2, seed=0)
                        answers.append((one["S1"], one["ST"], one["S2"][np.triu_indices(len(problem.factors), 1)]))
            found["peer"] = answers

        with np.errstate(all="ignore"), warnings.catch_warnings():  # columns that never change
            warnings.simplefilter("ignore", UserWarning)
            taken = turns(ours, peer, repeats=1 if quick else 2)
        stored_bytes = path.stat().st_size
        with h5py.File(path) as file:
            stored_rows = file[layer][:]
        left = sum(file.stat().st_size for file in Path(folder).iterdir() if file != path)
    compared = agreement(found["ours"], found["peer"], stored_rows, fold)  # type: ignore[arg-type]
    scalars = stored_rows.shape[1]
    name = f"alexnet {layer}, {scalars:,} activations, {len(rows)} rows: HDF5 and SALib over ours ({compared})"
    yield measure.judged(name, taken, goal="" if quick else ">= 8", met=lambda ratio: ratio >= 8)
    detail = f"the other side {stored_bytes:,}, compressed, of {4 * scalars * len(rows):,}"
    yield measure.Figure("bytes of activations stored apart from the answer", left, "= 0", left == 0, detail)


def agreement(ours: SobolIndices, theirs: list[tuple[np.ndarray, ...]], rows: np.ndarray, fold: SobolSums) -> str:
    """How equal both sides are, in words; a column that stands still in A and B has no index by SALib's definition.

    The same fold of the same rows in float64 must give SALib's numbers everywhere else: the estimator is the same. What
    float32 adds is counted: it shows where A and B hardly vary, for their variance divides all indices.
    """
    block = block_rows(fold.groups, fold.order)
    ends = rows.reshape(-1, block, rows.shape[1])[:, [0, -1]]
    live = np.ptp(ends, axis=(0, 1)) > 1e-6 * np.abs(ends).max(axis=(0, 1))  # a few last places of float32 are rounding
    state = fold.start()
    for part in np.split(rows.astype(np.float64), len(rows) // block):
        state = fold.add(state, {name: torch.from_numpy(part) for name in fold.of})
    exact = sobol_indices(fold.finish(state)[fold.of[0]], halves=fold.halves)
    apart, exactly = np.zeros(int(live.sum())), 0.0
    for number, name in enumerate(("first", "total", "second")):
        expected = np.stack([one[number] for one in theirs], axis=1)[:, live]
        values, wide = getattr(ours, name)[:, live], getattr(exact, name)[:, live]
        assert np.isfinite(values).all(), "we have no index where there is one"
        assert np.isfinite(wide).all(), "we have no index where there is one"
        apart = np.maximum(apart, np.abs(values - expected).max(axis=0))
        exactly = max(exactly, float(np.abs(wide - expected).max()))
    assert exactly <= 1e-6, f"another estimator: in float64 the two sides differ by {exactly}"
    beyond = int((apart > 1e-4).sum())
    assert beyond <= 0.005 * len(apart), f"{beyond} of {len(apart)} columns differ by more than 1e-4"
    return (
        f"{len(apart):,} compared, the others stand still in A and B; in float64 equal to {exactly:.0e}, in float32 to "
        f"1e-4 but for {beyond}, at worst {apart.max():.2g}"
    )


def memory(*, quick: bool) -> Iterator[measure.Figure]:
    """Peak memory of a sweep over n and over 4 n base points, each in a process of its own.

    AlexNet takes 130 to 180 MiB more at 64 points than at 16, and no more at 256: the smaller base is not yet level.
    """
    for network, points in [("alexnet", 16)] if quick else [("resnet18", 16), ("alexnet", 64)]:
        peaks = []
        for many in (points, 4 * points):
            command = [sys.executable, __file__, "--peak-of", network, str(many)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
            peaks.append(int(done.stdout.split()[-1]))
        name = f"{network}, set1: peak memory of a sweep over {4 * points} base points over that of {points}"
        detail, growth = f"{peaks[0] / 2**20:,.0f} and {peaks[1] / 2**20:,.0f} MiB", peaks[1] / peaks[0]
        yield measure.Figure(name, growth, "" if quick else "<= 1.05", None if quick else growth <= 1.05, detail)


def peak_of(network: str, points: int) -> int:
    """Peak resident bytes after one sweep."""
    setting = setting_of(network, "set1", points=points)
    rows = rows_of(setting, design_of(setting, 0), 0)
    ns.sweep(setting.subject, rows, setting.step(), reducer_of(setting), run=setting.running(rows))
    return peak_memory()


def figures(quick: bool) -> Iterator[measure.Figure]:  # noqa: FBT001 called by the harness
    """All of them."""
    yield from sobol(quick=quick)
    yield from contrast(quick=quick)
    yield from shapley(quick=quick)
    yield from storing(quick=quick)
    yield from memory(quick=quick)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--memory-fetched-anew" in sys.argv:
        anew = sums("resnet18", "set1", blocks=int(sys.argv[-2]), repeats=int(sys.argv[-1]))[0]
        print(json.dumps([anew.first, anew.second, anew.busy]))
        sys.exit()
    keep_freed_memory()
    if "--peak-of" in sys.argv:
        print(peak_of(sys.argv[-2], int(sys.argv[-1])))
    else:
        measure.main(__doc__ or "", figures)
