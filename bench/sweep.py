"""What does looking at every convolution cost, does memory stay flat, and is one sort per unit enough for AUROC?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import _measure as measure
import neuronscope as ns
from neuronscope.data.dataset import Batch, data_from_arrays
from neuronscope.maths.ranks import auroc
from neuronscope.maths.streams import Each, MapMoments, Moments, StackRows, TopK
from neuronscope.result import peak_memory
from neuronscope.steps import Observe

BATCH = 8


def overhead(*, quick: bool) -> Iterator[measure.Figure]:
    """Moments and top-k with position at every convolution of ResNet-18 against the bare forward pass."""
    subject = ns.load_model("torchvision:resnet18", weights="random")
    layers = subject.select("conv")
    generator = torch.Generator().manual_seed(0)
    batches = [
        Batch(
            index=torch.arange(first, first + BATCH),
            image=torch.randn(BATCH, 3, 224, 224, generator=generator),
            label=torch.zeros(BATCH, dtype=torch.int64),
        )
        for first in range(0, 2 * BATCH, BATCH)
    ]

    def bare() -> list[torch.Tensor]:
        with torch.inference_mode():
            return [subject.module(batch.image) for batch in batches]

    def looked(step: Observe, reducer: Each) -> tuple[dict[str, object], list[torch.Tensor]]:
        state, logits = reducer.start(), []
        for batch in batches:
            seen = step(subject.module, batch)
            state = reducer.add(state, seen)
            logits.append(seen["logits"])
        return reducer.finish(state), logits

    units = Observe(layers, measures=("mean", "max"))
    fold = Each(mean=Moments("mean"), top=TopK("max", 9, where="max_at"))
    answer, logits = looked(units, fold)
    assert all(torch.equal(a, b) for a, b in zip(bare(), logits, strict=True)), "looking changed the network's answer"
    _check_against_definition(subject, layers, batches, answer)
    repeats = 3 if quick else 15
    yield measure.judged(
        f"ResNet-18, {len(layers)} convolutions, moments and top-9 with position, over the bare pass",
        measure.pairs(bare, lambda: looked(units, fold), repeats=repeats),
        goal="<= 1.15",
        met=lambda ratio: ratio <= 1.15,
    )
    scalars = Observe(layers, measures=(), maps=tuple(layer.name for layer in layers))
    whole = Each(**{layer.name: MapMoments(f"maps/{layer.name}") for layer in layers})
    yield measure.judged(
        "the same network, mean and variance of every scalar activation, over the bare pass",
        measure.pairs(bare, lambda: looked(scalars, whole), repeats=max(3, repeats // 3)),
        goal="",
        met=lambda _ratio: True,
    )


def _check_against_definition(
    subject: ns.Subject, layers: tuple[ns.LayerInfo, ...], batches: list, answer: dict
) -> None:
    """The folded answer equals the definition on stored activations, for the first and the last layer."""
    kept: dict[str, list[torch.Tensor]] = {}
    modules = dict(subject.module.named_modules())
    chosen = (layers[0], layers[-1])
    handles = [
        modules[layer.name].register_forward_hook(
            lambda _m, _i, output, name=layer.name: kept.setdefault(name, []).append(output.clone())
        )
        for layer in chosen
    ]
    with torch.inference_mode():
        for batch in batches:
            subject.module(batch.image)
    for handle in handles:
        handle.remove()
    start = {layers[0].name: 0, layers[-1].name: sum(layer.units for layer in layers[:-1])}
    for layer in chosen:
        maps = torch.cat(kept[layer.name]).flatten(2)
        place = slice(start[layer.name], start[layer.name] + layer.units)
        expected = maps.mean(2).double().mean(0).numpy()
        np.testing.assert_allclose(answer["mean"].mean[place], expected, rtol=1e-9, atol=1e-12)
        values, order = maps.amax(2).sort(dim=0, descending=True)
        np.testing.assert_array_equal(answer["top"].value[:, place], values[:9].double().numpy())
        np.testing.assert_array_equal(answer["top"].index[0, place], order[0].numpy())


def decoding(*, quick: bool) -> Iterator[measure.Figure]:
    """Images per second with decoding beside the network, over the slower of decoding alone and the network alone."""
    from PIL import Image

    number = 64 if quick else 192
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for row in range(number):  # smooth colours: as large on disk as photographs of that size, about 20 kB
            coarse = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
            coarse.resize((256, 256), Image.Resampling.BICUBIC).save(Path(folder) / f"{row:04d}.jpg", quality=90)
        subject = ns.load_model("torchvision:resnet18", weights="random")
        data = ns.load_data(f"folder:{folder}")
        run = ns.Run(batch_size=16)
        ready = list(ns.batches(data, subject.preprocess.batch, batch_size=run.batch_size, workers=run.workers))

        def decode_alone() -> None:
            for _ in ns.batches(data, subject.preprocess.batch, batch_size=run.batch_size, workers=run.workers):
                pass

        def network_alone() -> torch.Tensor:
            with torch.inference_mode():
                return torch.cat([subject.module(batch.image) for batch in ready])

        def together() -> torch.Tensor:
            fold = Each(logits=StackRows("logits", images=number))
            return torch.from_numpy(ns.sweep(subject, data, ns.Predict(), fold, run=run).answer["logits"].values)

        assert torch.equal(network_alone(), together()), "decoding beside the network changed its answer"
        repeats = 3 if quick else 7
        bound = measure.pairs(decode_alone, network_alone, repeats=repeats)
        slower = network_alone if bound.ratio > 1 else decode_alone
        paired = measure.pairs(together, slower, repeats=repeats)
        yield measure.judged(
            f"images per second with decoding, over the slower side alone ({slower.__name__})",
            paired,
            goal=">= 0.9",
            met=lambda ratio: ratio >= 0.9,
        )


def memory(*, quick: bool) -> Iterator[measure.Figure]:
    """Peak memory of a sweep over n and over 4n images, each in a process of its own."""
    n = 64 if quick else 256
    peaks = [_peak_of_sweep(images) for images in (n, 4 * n)]
    growth = peaks[1] / peaks[0]
    yield measure.Figure(
        f"peak memory of a sweep over {4 * n} images over that of {n}",
        growth,
        "<= 1.05",
        growth <= 1.05,
        f"{peaks[0] / 2**20:.0f} and {peaks[1] / 2**20:.0f} MiB",
    )


def _peak_of_sweep(images: int) -> int:
    command = [sys.executable, __file__, "--peak-of", str(images)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])  # noqa: S603


def _sweep_once(images: int) -> int:
    """Peak resident bytes after one sweep over so many images that are made when read."""

    def read(row: int) -> torch.Tensor:
        return torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(row), dtype=torch.uint8)

    few = data_from_arrays(
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8), np.zeros(1, np.int64), name="x", classes=("0",)
    )
    data = ns.Data("made", read, np.zeros(images, np.int64), few.classes, "made")
    subject = ns.load_model("torchvision:resnet18", weights="random", input_shape=(3, 64, 64), resize=64, crop=64)
    layers = subject.select("conv")
    fold = Each(mean=Moments("mean"), top=TopK("max", 9, where="max_at"))
    ns.sweep(subject, data, Observe(layers, measures=("mean", "max")), fold, run=ns.Run(batch_size=16))
    return peak_memory()


def ranks(*, quick: bool) -> Iterator[measure.Figure]:
    """Rank-once AUROC against a loop over scikit-learn, extrapolated from a part of its pairs."""
    from sklearn.metrics import roc_auc_score

    images, units, classes = 2000, 512, 100
    rng = np.random.default_rng(0)
    scores, labels = rng.random((images, units)), np.arange(images) % classes
    part = 2 if quick else 8

    def loop() -> np.ndarray:
        return np.array([[roc_auc_score(labels == c, scores[:, u]) for c in range(classes)] for u in range(part)])

    ours = auroc(scores, labels, classes=classes)
    worst = float(np.abs(ours[:part] - loop()).max())
    assert worst <= 1e-12, f"the two sides differ by {worst}"
    paired = measure.pairs(lambda: auroc(scores, labels, classes=classes), loop, repeats=3 if quick else 7)
    yield measure.judged(
        f"AUROC of {units} units x {classes} classes x {images} images, scikit-learn loop over ours",
        paired,
        goal=">= 300",
        met=lambda ratio: ratio >= 300,
        value=paired.ratio * units / part,
    )


def figures(quick: bool) -> Iterator[measure.Figure]:  # noqa: FBT001 called by the harness
    """All of them."""
    yield from overhead(quick=quick)
    yield from decoding(quick=quick)
    yield from memory(quick=quick)
    yield from ranks(quick=quick)


if __name__ == "__main__":
    if "--peak-of" in sys.argv:
        print(_sweep_once(int(sys.argv[-1])))
    else:
        torch.set_num_threads(os.cpu_count() or 1)
        measure.main(__doc__ or "", figures)
