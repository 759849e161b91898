"""How fast are compositional explanations from signatures, on a label set shaped like Broden's ADE20K part?

The labelled images are synthetic and seeded: regions of objects (some with parts) over a scene, each with its colours,
and noise in the colours. Units are 7x7 maps that follow a few concepts and pairs of concepts, with noise. The numbers
that the cost depends on (images, labels, signatures, image-signature pairs) are printed.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

import _measure as measure
from neuronscope.maths.cells import label_words
from neuronscope.maths.formula_search import SearchSpec, SearchTables, explain, prepare
from neuronscope.maths.signature_counts import batch_labels, count_batch
from neuronscope.maths.signatures import (
    CountFold,
    ImageSignatures,
    Signatures,
    UnitCounts,
    active_pixels,
    assemble,
    image_signatures,
    unit_counts,
)
from neuronscope.maths.word_search import WordSearchSpec, concept_words, explain_words, unit_words
from neuronscope.result import peak_memory

COLOURS, OBJECTS, PARTS, SCENES = 11, 400, 224, 468
SIDE, MAP, QUANTILE = 112, 7, 0.005


@dataclass(frozen=True)
class World:
    """What occurs with what: objects of a scene, parts and colours of an object, by label number.

    Attributes:
        count: objects there are.
        scene: label number before the first scene.
    """

    count: int
    scene: int
    objects: Int[np.ndarray, "scenes m"]
    parts: Int[np.ndarray, "objects m"]
    colours: Int[np.ndarray, "objects m"]


def world(rng: np.random.Generator, share: float = 1.0) -> World:
    """Labels 1 to 11 are colours, then come objects, parts and scenes: a share of the usual number of each."""
    count, parts, scenes = (int(number * share) for number in (OBJECTS, PARTS, SCENES))
    rare = 1 / np.arange(1, count + 1) ** 0.7
    objects = np.stack([rng.choice(count, 40, replace=False, p=rare / rare.sum()) for _ in range(scenes)])
    return World(
        count,
        COLOURS + count + parts,
        objects + COLOURS + 1,
        rng.integers(0, parts, (count, 3)) + COLOURS + count + 1,
        rng.integers(1, COLOURS + 1, (count, 3)),
    )


def regions(rng: np.random.Generator, count: int, side: int) -> Int[np.ndarray, "h w"]:
    """The image cut into the cells of `count` random points, on a grid a quarter as fine."""
    coarse = side // 4
    points = rng.random((count, 2)) * coarse
    y, x = np.mgrid[:coarse, :coarse]
    nearest = ((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2).argmin(-1)
    return nearest.repeat(4, 0).repeat(4, 1)


def labelled(rng: np.random.Generator, made: World, *, side: int) -> tuple[Int[np.ndarray, "l h w"], list[int]]:
    """One image: layers for colour, object and up to two for parts, and a scene."""
    scenes = len(made.objects)
    scene = int(rng.integers(scenes)) if rng.random() < 0.2 else min(scenes - 1, int(rng.exponential(scenes / 6)))
    count = int(rng.integers(6, 14))
    objects = made.objects[scene][np.minimum(rng.exponential(5, count).astype(np.int64), 39)]
    where = regions(rng, count, side)
    base = made.colours[objects - COLOURS - 1, rng.integers(0, 3, count)]
    colour = base[where]
    noise = rng.random((side, side)) < 0.08
    spread = np.minimum(rng.exponential(2.3, int(noise.sum())).astype(np.int64), COLOURS - 1)
    colour[noise] = (colour[noise] + spread) % COLOURS + 1
    layers = [colour, objects[where]]
    for layer, share in enumerate((0.35, 0.15)):
        if rng.random() < 0.5 and len(layers) == layer + 2:
            fine = regions(rng, 4 * count, side)
            there = rng.random(4 * count) < share
            layers.append(np.where(there[fine], made.parts[(objects - COLOURS - 1)[where], (fine % 2) + layer], 0))
    layers[1] = np.where(rng.random(count)[where] < 0.05, 0, layers[1])
    return np.stack(layers).astype(np.uint16), [made.scene + 1 + scene]


def reduced(images: int, side: int, seed: int, clock: list[float], share: float = 1.0) -> Iterator[ImageSignatures]:
    """Images one at a time, reduced; the seconds of the reduction alone are added to the clock."""
    rng = np.random.default_rng(seed)
    made = world(rng, share)
    for _ in range(images):
        layers, whole = labelled(rng, made, side=side)
        start = time.perf_counter()
        one = image_signatures(layers, whole)
        clock[0] += time.perf_counter() - start
        yield one


def unit_maps(signatures: Signatures, tables: SearchTables, seed: int, side: int) -> Float[np.ndarray, "n h w"]:
    """Activations that follow two to five concepts and pairs of concepts that meet, blurred to 7x7, with noise.

    Every other unit has so much noise that its best IoU is about 0.1, which is usual for units of real networks.
    """
    rng = np.random.default_rng(seed)
    value = np.zeros(len(signatures), dtype=np.float32)
    share = signatures.area / signatures.pixels.sum()
    usual = np.flatnonzero((share > 0.001) & (share < 0.05))
    for label in rng.choice(usual, int(rng.integers(1, 4)), replace=False):
        value[signatures.signatures_of(int(label))] += rng.uniform(0.5, 1.5)
    pairs = np.flatnonzero(tables.together.area > 0.0003 * signatures.pixels.sum())
    for pair in rng.choice(pairs, int(rng.integers(1, 3)), replace=False):
        first, last = tables.together.by_start[pair : pair + 2]
        value[tables.together.by_signature[first:last]] += rng.uniform(1, 2)
    block = side // MAP
    maps = np.empty((signatures.images, MAP, MAP), dtype=np.float32)
    for image in range(signatures.images):
        pixels = value[signatures.signature_map(image)].reshape(MAP, block, MAP, block)
        maps[image] = pixels.mean((1, 3))
    maps = maps * rng.gamma(4, 0.25, maps.shape) + rng.normal(0, 0.1, maps.shape)
    maps += rng.gamma(0.5, 0.5, maps.shape) * (seed % 2)
    return np.maximum(maps, 0).astype(np.float32)


def counted(signatures: Signatures, maps: Float[np.ndarray, "n h w"], side: int) -> tuple[UnitCounts, float, float]:
    """A unit's counts, and the seconds of upsampling and of counting."""
    above = float(np.quantile(maps, 1 - QUANTILE))
    start = time.perf_counter()
    image, pixel = active_pixels(maps, above=above, shape=(side, side))
    middle = time.perf_counter()
    counts = unit_counts(signatures, image, pixel)
    return counts, middle - start, time.perf_counter() - middle


def seconds(name: str, values: list[float], *, most: float | None, busy: float) -> measure.Figure:
    """Mean seconds per unit against a limit."""
    mean = float(np.mean(values))
    detail = f"median {np.median(values):.3g}, worst {max(values):.3g} of {len(values)} units; others used {busy:.0%}"
    if most is None:
        return measure.Figure(name, mean, "", None, detail)
    met = mean <= most or (None if busy > measure.BUSY else False)
    return measure.Figure(name, mean, f"<= {most:g} s", met, detail)


def at_scale(images: int, units: int, side: int, *, full: bool) -> Iterator[measure.Figure]:
    """Build, count, search and prove on one synthetic set."""
    clock = [0.0]
    with measure.Watch() as watch:
        made = list(reduced(images, side, 0, clock))
        start = time.perf_counter()
        signatures = assemble(made)
        made.clear()
        tables = prepare(signatures)
        build = clock[0] + time.perf_counter() - start
    shape = (
        f"{signatures.images:,} images of {side}x{side}, {tables.labels:,} labels, {len(signatures):,} signatures, "
        f"{len(signatures.pair_pixels):,} image-signature pairs, {len(tables.together.pairs):,} pairs of labels"
    )
    held = (signatures.nbytes + tables.together.nbytes) / 2**30
    met = (build <= 120 or (None if watch.busy > measure.BUSY else False)) if full else None
    yield measure.Figure(
        f"{images:,} images: seconds to build the signatures",
        build,
        "<= 120 s" if full else "",
        met,
        f"{shape}; {held:.2f} GiB held; others used {watch.busy:.0%}",
    )
    times: dict[str, list[float]] = {"up": [], "count": [], "beam": [], "proof": [], "long": []}
    better = 0
    with measure.Watch() as watch:
        for seed in range(units):
            maps = unit_maps(signatures, tables, seed, side)
            counts, up, count = counted(signatures, maps, side)
            times["up"].append(up)
            times["count"].append(count)
            found = {}
            for name, spec in (
                ("beam", SearchSpec()),
                ("long", SearchSpec(length=10)),
                ("proof", SearchSpec(certify="optimum")),
            ):
                start = time.perf_counter()
                found[name] = explain(tables, counts, spec)
                times[name].append(time.perf_counter() - start)
            certificate = found["proof"].certificate
            assert certificate is not None
            assert certificate.optimal
            first, last = found["beam"].best[-1], found["proof"].best[-1]
            assert first is not None
            assert last is not None
            better += last.score > first.score + 1e-12
    goal = 0.5 if full else None
    whole = [sum(three) for three in zip(times["up"], times["count"], times["beam"], strict=True)]
    busy = watch.busy
    yield seconds(
        f"{images:,} images: seconds per unit at length 3, beam 5, upsampling included", whole, most=goal, busy=busy
    )
    yield seconds(f"{images:,} images: seconds per unit of upsampling", times["up"], most=None, busy=busy)
    yield seconds(f"{images:,} images: seconds per unit of counting", times["count"], most=None, busy=busy)
    yield seconds(
        f"{images:,} images: seconds per unit of the search alone at length 3", times["beam"], most=None, busy=busy
    )
    yield seconds(
        f"{images:,} images: seconds per unit of the search alone at length 10", times["long"], most=None, busy=busy
    )
    proof = f"{images:,} images: seconds per unit to prove the optimum of length 3"
    yield seconds(proof, times["proof"], most=5.0 if full else None, busy=busy)
    yield measure.Figure(
        f"{images:,} images: units whose proved optimum beats the beam",
        better / units,
        "",
        None,
        f"{better} of {units}",
    )
    peak = peak_memory() / 2**30
    yield measure.Figure(
        f"{images:,} images: GiB at the peak",
        peak,
        "<= 4 GiB" if full else "",
        peak <= 4 if full else None,
        "of the whole process",
    )


def unless_busy(name: str, ratio: float, busy: float, detail: str) -> measure.Figure:
    """A ratio of times that were not taken in turn, which a busy machine cannot tell."""
    where = f"{detail}; others used {busy:.0%}"
    if busy > measure.BUSY:
        return measure.Figure(name, None, "", None, f"the machine was busy, ratio seen {ratio:.4g}; {where}")
    return measure.Figure(name, ratio, "", None, where)


STEPS = {
    "upsampling and counting": None,
    "the search at length 3": SearchSpec(),
    "the proof of length 3": SearchSpec(certify="optimum"),
}


def fastest(function: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest of a few runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def growth(images: int, units: int, side: int) -> Iterator[measure.Figure]:
    """Seconds per unit with twice and four times the images or labels, over those of the base; and with length."""
    whole = list(reduced(4 * images, side, 0, [0.0]))
    by_labels = [list(reduced(images, side, 0, [0.0], share)) for share in (0.25, 0.5)]
    sets = {"images": [whole[: factor * images] for factor in (1, 2, 4)], "labels": [*by_labels, whole[:images]]}
    for name, members in sets.items():
        assembled = [assemble(made) for made in members]
        tables = [prepare(one) for one in assembled]
        times = {step: np.zeros((units, len(members))) for step in STEPS}
        with measure.Watch() as watch:
            for seed, (at, one) in itertools.product(range(units), enumerate(tables)):
                maps = unit_maps(one.signatures, one, seed, side)
                counts, _, _ = counted(one.signatures, maps, side)
                explain(one, counts, SearchSpec(certify="optimum"))  # what all units share is made now
                for step, spec in STEPS.items():
                    run = functools.partial(counted, one.signatures, maps, side)
                    times[step][seed, at] = fastest(
                        run if spec is None else functools.partial(explain, one, counts, spec)
                    )
        for step, taken in times.items():
            ratio = taken / taken[:, :1]
            sizes = ", ".join(
                f"{one.signatures.images:,} images, {one.labels:,} labels, {len(one.weight):,} signatures"
                for one in tables
            )
            detail = (
                f"twice: {np.median(ratio[:, 1]):.3g}; of single units {ratio[:, 2].min():.3g} to "
                f"{ratio[:, 2].max():.3g}; base {1e3 * np.median(taken[:, 0]):.3g} ms; sets: {sizes}"
            )
            question = f"4 times the {name}: seconds per unit of {step}, over those of the base"
            yield unless_busy(question, float(np.median(ratio[:, 2])), watch.busy, detail)
    yield length_growth(tables[-1], units, side)
    yield at_once(tables[-1], units, side)


def length_growth(tables: SearchTables, units: int, side: int) -> measure.Figure:
    """The search at every length from 1 to 10, over length 3."""
    ratios = np.zeros((units, 10))
    with measure.Watch() as watch:
        for seed in range(units):
            counts, _, _ = counted(tables.signatures, unit_maps(tables.signatures, tables, seed, side), side)
            for length in range(1, 11):
                ratios[seed, length - 1] = fastest(
                    functools.partial(explain, tables, counts, SearchSpec(length=length))
                )
    ratios /= ratios[:, 2:3]
    each = ", ".join(f"{ratio:.2f}" for ratio in np.median(ratios, axis=0))
    question = "seconds of the search at length 10, over length 3"
    return unless_busy(question, float(np.median(ratios[:, -1])), watch.busy, f"lengths 1 to 10: {each}; {units} units")


def at_once(tables: SearchTables, units: int, side: int) -> measure.Figure:
    """Counts of many units of a batch after one another in numpy, over all at once in torch, which must be equal."""
    import torch

    number, batch = 16 * units, np.arange(min(64, tables.signatures.images))
    each = [unit_maps(tables.signatures, tables, seed, side)[batch] for seed in range(units)]
    maps = np.stack([np.roll(one, shift, axis=0) for one in each for shift in range(16)], axis=1)
    above = np.quantile(maps, 1 - QUANTILE, axis=(0, 2, 3))
    fold = CountFold(tables.signatures, number)
    tensors, bounds = torch.from_numpy(maps), torch.from_numpy(above.astype(np.float64))
    one_by_one = fold.start()
    all_at_once = {name: torch.from_numpy(values) for name, values in fold.start().items()}

    def after_another() -> None:
        for unit in range(number):
            one = np.ascontiguousarray(maps[:, unit])
            image, pixel = active_pixels(one, above=float(bounds[unit]), shape=(side, side))
            fold.add(one_by_one, unit=np.full(len(image), unit), image=image, pixel=pixel)

    def together() -> None:
        labels = batch_labels(tables.signatures, batch)
        count_batch(all_at_once, tensors, labels=labels, shape=(side, side), lower=bounds)

    paired = measure.pairs(together, after_another, repeats=5)
    for name, values in one_by_one.items():
        assert np.array_equal(values, all_at_once[name].numpy())
    question = f"counts of {number} units in {len(batch)} images: one by one in numpy, over all at once in torch"
    return measure.judged(question, paired, goal="", met=lambda _: True)


def over_cells(images: int, units: int, side: int) -> Iterator[measure.Figure]:
    """Words of 7x7 cells against signatures of the same cells, and what WITH, CLOSE and CLOSE TO cost beyond."""
    rng = np.random.default_rng(0)
    made, block = world(rng), side // MAP
    raw = [labelled(rng, made, side=side) for _ in range(images)]
    cells = [(layers[:, block // 2 :: block, block // 2 :: block], np.array(whole)) for layers, whole in raw]
    signatures = assemble(image_signatures(layers, whole.tolist()) for layers, whole in cells)
    tables = prepare(signatures)
    words = concept_words(label_words(layers, whole=whole, rule="nearest") for layers, whole in cells)
    plain = WordSearchSpec(beam=5, operators=("or", "and", "and-not"), expansions=False)
    times = np.zeros((units, 3))
    with measure.Watch() as watch:
        for seed in range(units):
            maps = unit_maps(signatures, tables, seed, MAP)
            above = float(np.quantile(maps, 1 - 4 * QUANTILE))
            unit = unit_words(maps, above=above)
            counts = unit_counts(signatures, *active_pixels(maps, above=above, shape=(MAP, MAP)))
            ours, theirs = explain(tables, counts, SearchSpec()), explain_words(words, unit, plain)
            assert [one.score for one in ours.best if one] == [one.score for one in theirs.best if one]
            runs = (
                functools.partial(explain, tables, counts, SearchSpec()),
                functools.partial(explain_words, words, unit, plain),
                functools.partial(explain_words, words, unit, WordSearchSpec()),
            )
            times[seed] = [fastest(run, repeats=2) for run in runs]
    shape = f"{images:,} images, {tables.labels:,} labels, {len(signatures):,} signatures, {units} units"
    boolean, all_operators = np.median(times[:, 1] / times[:, 0]), np.median(times[:, 2] / times[:, 1])
    yield unless_busy(
        "7x7 cells, same formulas: seconds of the search over words, over those of the search over signatures",
        float(boolean),
        watch.busy,
        f"medians {np.median(times[:, 1]):.3g} s and {np.median(times[:, 0]):.3g} s; {shape}",
    )
    yield unless_busy(
        "7x7 cells: seconds with WITH, CLOSE, CLOSE TO and expanded labels, over those of OR, AND, AND NOT",
        float(all_operators),
        watch.busy,
        f"beam 4; median {np.median(times[:, 2]):.3g} s",
    )


def known(numbers: Int[np.ndarray, "k"], layers: Int[np.ndarray, "l h w"]) -> Int[np.ndarray, "l h w"]:
    """Label maps with other labels taken away."""
    return np.where(np.isin(layers, numbers), layers, 0)


def against_package(images: int, labels: int, units: int, *, full: bool, side: int = 56) -> Iterator[measure.Figure]:
    """The same masks given to the PyPI package `compositional-explanations`: score and seconds of both, in turn."""
    try:
        import torch
        from compositional_explanations import beam, metrics, optimal
    except ImportError as error:
        yield measure.Figure("times faster than compositional-explanations", None, ">= 50", None, f"{error}")
        return
    rng = np.random.default_rng(1)
    made = world(rng)
    raw = [labelled(rng, made, side=side) for _ in range(images)]
    count = np.bincount(np.concatenate([layers.reshape(-1) for layers, _ in raw]))
    for _, whole in raw:
        count = np.bincount(whole, minlength=max(len(count), whole[0] + 1), weights=[side * side]) + np.pad(
            count, (0, max(0, whole[0] + 1 - len(count)))
        )
    numbers = np.sort(np.argsort(-count[1:], kind="stable")[:labels] + 1)
    kept = [(known(numbers, layers), [one for one in whole if one in numbers]) for layers, whole in raw]
    signatures = assemble([image_signatures(*one) for one in kept])
    tables = prepare(signatures)
    masks = [np.stack([(layers == n).any(0) | (n in whole) for layers, whole in kept]) for n in numbers]
    tensors = [torch.from_numpy(mask.reshape(images, -1)) for mask in masks]
    flat = np.stack([mask.reshape(-1) for mask in masks]).astype(np.float32)
    apart = torch.from_numpy(flat @ flat.T == 0)
    settings: dict[str, Any] = {"masks": tensors, "disjoint_info": apart, "length": 3, "device": torch.device("cpu")}
    ratios: dict[str, list[float]] = {"beam": [], "optimum": []}
    shares: dict[str, list[float]] = {"beam": [], "optimum": []}
    with measure.Watch() as watch, tempfile.TemporaryDirectory() as folder:
        settings["cache_dir"] = folder  # what it knows of the masks is worked out once, as our signatures are
        for seed in range(-1, units):  # the first is a warm-up of both
            maps = unit_maps(signatures, tables, seed % units, side)
            image, pixel = active_pixels(maps, above=float(np.quantile(maps, 1 - QUANTILE * 4)), shape=(side, side))
            bitmap = torch.zeros(images, side * side, dtype=torch.bool)
            bitmap[image, pixel] = True
            for name, spec in (("beam", SearchSpec()), ("optimum", SearchSpec(certify="optimum"))):
                start = time.perf_counter()
                ours = explain(tables, unit_counts(signatures, image, pixel), spec).best[-1]
                middle = time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()):  # it prints a line for every step
                    if name == "beam":
                        theirs = beam.compute_beam_explanations(bitmaps=bitmap, beam_size=5, **settings)
                    else:
                        theirs = optimal.compute_optimal_explanations(bitmaps=bitmap, **settings)
                end = time.perf_counter()
                other = metrics.compute_iou_from_masks(formula=theirs, masks=tensors, bitmaps=bitmap)
                assert ours is not None
                if seed >= 0:
                    ratios[name].append((end - middle) / (middle - start))
                    shares[name].append(ours.score - other)
    shape = f"{images} images of {side}x{side}, {tables.labels} labels, {len(signatures):,} signatures, {units} units"
    for name, found in ratios.items():
        differences = shares[name]
        same = sum(abs(one) < 1e-9 for one in differences)
        yield measure.Figure(
            f"times faster than compositional-explanations, {name} of length 3",
            float(np.median(found)),
            ">= 50" if full else "",
            (min(differences) > -1e-9 and float(np.median(found)) >= 50) if full else None,
            f"{shape}; worst ratio {min(found):.3g}; IoU higher for {sum(one >= 1e-9 for one in differences)}, equal "
            f"for {same}, lower for {sum(one <= -1e-9 for one in differences)} units; others used {watch.busy:.0%}",
        )


def figures(quick: bool) -> Iterator[measure.Figure]:  # noqa: FBT001 called by the harness
    """The full-size set and a quarter of it, or a twentieth; growth; and the published package on a small one."""
    yield from at_scale(1000 if quick else 22_210, 3 if quick else 8, SIDE, full=not quick)
    if not quick:
        yield from at_scale(5_552, 4, SIDE, full=False)  # a quarter of the images: how the cost grows
    yield from growth(250 if quick else 2776, 2 if quick else 6, SIDE)
    yield from over_cells(500 if quick else 5_552, 2 if quick else 4, SIDE)
    yield from against_package(200 if quick else 1000, 40 if quick else 150, 2 if quick else 4, full=not quick)


if __name__ == "__main__":
    measure.main(__doc__ or "", figures)
