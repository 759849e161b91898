"""How fast are compositional explanations from signatures, on a label set shaped like Broden's ADE20K part?

The labelled images are synthetic and seeded: regions of objects (some with parts) over a scene, each with its colours,
and noise in the colours. Units are 7x7 maps that follow a few concepts and pairs of concepts, with noise. The numbers
that the cost depends on (images, labels, signatures, image-signature pairs) are printed.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

import _measure as measure
from neuronscope.maths.formula_search import SearchSpec, SearchTables, explain, prepare
from neuronscope.maths.signatures import (
    ImageSignatures,
    Signatures,
    UnitCounts,
    active_pixels,
    assemble,
    image_signatures,
    unit_counts,
)

COLOURS, OBJECTS, PARTS, SCENES = 11, 400, 224, 468
SIDE, MAP, QUANTILE = 112, 7, 0.005


@dataclass(frozen=True)
class World:
    """What occurs with what: objects of a scene, parts and colours of an object, by label number."""

    objects: Int[np.ndarray, "scenes m"]
    parts: Int[np.ndarray, "objects m"]
    colours: Int[np.ndarray, "objects m"]


def world(rng: np.random.Generator) -> World:
    """Labels 1 to 11 are colours, then come objects, parts and scenes."""
    rare = 1 / np.arange(1, OBJECTS + 1) ** 0.7
    objects = np.stack([rng.choice(OBJECTS, 40, replace=False, p=rare / rare.sum()) for _ in range(SCENES)])
    return World(
        objects + COLOURS + 1,
        rng.integers(0, PARTS, (OBJECTS, 5)) + COLOURS + OBJECTS + 1,
        rng.integers(1, COLOURS + 1, (OBJECTS, 3)),
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
    scene = min(SCENES - 1, int(rng.exponential(SCENES / 4)))
    count = int(rng.integers(6, 13))
    objects = made.objects[scene][np.minimum(rng.exponential(12, count).astype(np.int64), 39)]
    where = regions(rng, count, side)
    base = made.colours[objects - COLOURS - 1, rng.integers(0, 3, count)]
    colour = base[where]
    noise = rng.random((side, side)) < 0.08
    spread = np.minimum(rng.exponential(2.2, int(noise.sum())).astype(np.int64), COLOURS - 1)
    colour[noise] = (colour[noise] + spread) % COLOURS + 1
    layers = [colour, objects[where]]
    for share in (0.35, 0.15):
        if rng.random() < 0.5:
            fine = regions(rng, 4 * count, side)
            there = rng.random(4 * count) < share
            layers.append(np.where(there[fine], made.parts[(objects - COLOURS - 1)[where], fine % 5], 0))
    layers[1] = np.where(rng.random(count)[where] < 0.05, 0, layers[1])
    return np.stack(layers).astype(np.uint16), [COLOURS + OBJECTS + PARTS + 1 + scene]


def reduced(images: int, side: int, seed: int, clock: list[float]) -> Iterator[ImageSignatures]:
    """Images one at a time, reduced; the seconds of the reduction alone are added to the clock."""
    rng = np.random.default_rng(seed)
    made = world(rng)
    for _ in range(images):
        layers, whole = labelled(rng, made, side=side)
        start = time.perf_counter()
        one = image_signatures(layers, whole)
        clock[0] += time.perf_counter() - start
        yield one


def unit_maps(signatures: Signatures, tables: SearchTables, seed: int, side: int) -> Float[np.ndarray, "n h w"]:
    """Activations that follow two to four concepts and pairs of concepts that meet, blurred to 7x7, with noise."""
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
    return np.maximum(maps * rng.gamma(4, 0.25, maps.shape) + rng.normal(0, 0.1, maps.shape), 0).astype(np.float32)


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
        "seconds to build the signatures of all images",
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
    yield seconds("seconds per unit at length 3, beam 5, upsampling included", whole, most=goal, busy=busy)
    yield seconds("seconds per unit of upsampling", times["up"], most=None, busy=busy)
    yield seconds("seconds per unit of counting", times["count"], most=None, busy=busy)
    yield seconds("seconds per unit of the search alone at length 3", times["beam"], most=None, busy=busy)
    yield seconds("seconds per unit of the search alone at length 10", times["long"], most=None, busy=busy)
    yield seconds("seconds per unit to prove the optimum of length 3", times["proof"], most=5.0 if full else None, busy=busy)
    yield measure.Figure("units whose proved optimum beats the beam", better / units, "", None, f"{better} of {units}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield measure.Figure(
        "GiB at the peak", peak, "<= 4 GiB" if full else "", peak <= 4 if full else None, "of the whole process"
    )


def figures(quick: bool) -> Iterator[measure.Figure]:  # noqa: FBT001 called by the harness
    """The full-size set, or a twentieth of it."""
    yield from at_scale(1000 if quick else 22_210, 3 if quick else 8, SIDE, full=not quick)


if __name__ == "__main__":
    measure.main(__doc__ or "", figures)
