"""Measures of attribution maps against their definitions written plainly, toy values, and laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import InputError
from neuronscope.maths.attribution_maps import (
    CUTS,
    attribution_masses,
    blurred,
    blurred_to,
    channel_sums,
    descending,
    entropy,
    first_mask,
    first_of,
    gini,
    neighbour_likeness,
    patch_masses,
    patch_numbers,
    patch_sparsity,
    pixel_sparsity,
    random_order,
    sparsity,
)

seeds = st.integers(0, 2**32 - 1)


def attributions(seed, *shape):
    """Random maps with both signs."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_sparsity(values, mass=0.9):
    """The definition, value by value."""
    sizes = sorted((abs(float(v)) for v in values), reverse=True)
    total = sum(sizes)
    if total == 0:
        return 0.0
    running = 0.0
    for needed, size in enumerate(sizes, start=1):
        running += size
        if running >= mass * total:
            return 1 - needed / len(sizes)
    return 0.0


def original_masses(sums, grid):
    """The original's loop over patches."""
    size = sums.shape[0] // grid
    masses = np.zeros((grid, grid))
    for row in range(grid):
        for column in range(grid):
            masses[row, column] = sums[row * size : (row + 1) * size, column * size : (column + 1) * size].sum()
    return masses


@given(seeds)
def test_channel_sums_add_up_sizes(seed):
    """A pixel's attribution is the sum of the channels' absolute values, whatever the leading axes."""
    maps = attributions(seed, 2, 3, 4, 5, 6)
    expected = torch.stack([torch.stack([m.abs().sum(0) for m in image]) for image in maps])
    assert torch.allclose(channel_sums(maps), expected, atol=1e-6)
    assert torch.equal(channel_sums(maps[0, 0]), channel_sums(maps)[0, 0])
    for cut in CUTS:
        assert torch.equal(attribution_masses(maps, grid=3, cut=cut), patch_masses(channel_sums(maps), grid=3, cut=cut))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_masses_need_no_channel_sums(dtype):
    """Masses straight from the attribution are those of its channel sums, whatever the leading axes; nan stays nan."""
    maps = attributions(2, 2, 3, 3, 56, 28).to(dtype)
    expected = patch_masses(channel_sums(maps), grid=14)
    rounding = {torch.float16: 0.0, torch.float32: 1e-6, torch.float64: 1e-14}[dtype]  # of sums of 24 values
    assert torch.allclose(attribution_masses(maps, grid=14), expected, rtol=rounding, atol=0)
    maps[1, 2, 0, 30, 5] = torch.nan
    assert attribution_masses(maps, grid=14).isnan().nonzero().tolist() == [[1, 2, 7, 2]]
    with pytest.raises(InputError, match="a grid of 60 patches"):
        attribution_masses(maps, grid=60)


@pytest.mark.parametrize(("height", "width", "grid"), [(28, 28, 14), (224, 224, 14), (30, 17, 7), (9, 9, 9)])
def test_patch_masses_equal_the_loop(height, width, grid):
    """Masses are the loop's where the grid divides; `even` leaves no pixel out, `whole patches` as the original."""
    sums = channel_sums(attributions(0, 2, 3, height, width))
    for cut in ("even", "whole patches"):
        masses = patch_masses(sums, grid=grid, cut=cut)
        numbers = patch_numbers(height, width, grid=grid, cut=cut)
        for patch in range(grid**2):
            expected = sums[0].double()[numbers == patch].sum().item()
            assert masses[0].flatten()[patch].item() == pytest.approx(expected, rel=1e-12)
        assert (cut == "whole patches") or (numbers >= 0).all()
    if height == width:
        expected = original_masses(sums[1].double().numpy(), grid)
        whole = patch_masses(sums, grid=grid, cut="whole patches")[1].numpy()
        assert np.allclose(whole, expected, rtol=1e-12)


def test_toy_sparsities():
    """One-hot: 1 - 1/n; zero: 0; constant: the 90 % rule; one patch alone: 1 - 1/196."""
    one_hot = torch.zeros(3, 224, 224)
    one_hot[2, 5, 7] = -4.0
    assert pixel_sparsity(one_hot).item() == 1 - 1 / 150528
    assert pixel_sparsity(torch.zeros(3, 8, 8)).item() == 0.0
    assert patch_sparsity(torch.zeros(14, 14)).item() == 0.0
    for n in (7, 10, 196, 1000):
        needed = round((1 - sparsity(torch.ones(n)).item()) * n)
        assert needed in {int(np.ceil(0.9 * n)), int(np.ceil(0.9 * n)) + 1}
    corner = torch.zeros(3, 224, 224)
    corner[:, 16:32, 208:224] = 1.0
    assert patch_sparsity(patch_masses(channel_sums(corner))).item() == 1 - 1 / 196


@given(seeds, st.one_of(st.integers(1, 60), st.integers(250, 800)), st.floats(0.05, 1.0))
def test_sparsity_equals_its_definition(seed, n, mass):
    """The vectorised sparsity is the definition's, but for rounding at equality."""
    values = attributions(seed, 3, n)
    found = sparsity(values.double(), mass=mass)
    for own, row in zip(found, values, strict=True):
        assert own.item() == pytest.approx(plain_sparsity(row, mass), abs=1e-12)


@given(seeds, st.sampled_from([8193, 20_000, 60_000]), st.sampled_from(["spread", "ties", "few"]), st.floats(0.05, 1))
def test_sparsity_of_many_values_equals_its_definition(seed, n, kind, mass):
    """The search by parting finds the place that sorting finds, with ties and with nearly all values 0, too."""
    values = np.random.default_rng(seed).standard_cauchy(n).astype(np.float32)
    values = {"spread": values, "ties": np.round(values), "few": np.where(np.arange(n) % 997, 0, values)}[kind]
    running = np.cumsum(np.sort(np.abs(values))[::-1], dtype=np.float64)
    found = sparsity(torch.from_numpy(values), mass=mass).item()
    near = [1 - (np.searchsorted(running, (mass + off) * running[-1]) + 1) / n for off in (1e-12, -1e-12)]
    assert near[0] <= found <= near[1]


def test_sums_in_float32_are_the_originals():
    """`float32-sums` does what the original's numpy lines do; on real sizes it differs from float64 by little."""
    maps = attributions(3, 4, 3, 64, 64)
    for own, attribution in zip(pixel_sparsity(maps, sums="float32-sums"), maps.numpy(), strict=True):
        sizes = np.abs(attribution).ravel()
        running = np.cumsum(np.sort(sizes)[::-1])
        needed = np.searchsorted(running, 0.9 * sizes.sum()) + 1
        assert own.item() == 1 - needed / sizes.size
    assert torch.allclose(pixel_sparsity(maps), pixel_sparsity(maps, sums="float32-sums"), atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_number_format(dtype):
    """Maps kept in half precision have measures and orders too: those of their own, rounded values."""
    maps = attributions(4, 2, 300).to(dtype)
    exact = maps.double()
    assert torch.allclose(sparsity(maps), sparsity(exact), atol=1 / 300 + 1e-9)
    assert torch.allclose(gini(maps), gini(exact), atol=1e-6)
    assert torch.equal(descending(maps), descending(exact))


@given(seeds, st.floats(1e-3, 1e3))
def test_scale_and_order_change_nothing(seed, scale):
    """Measures do not depend on a map's scale, and images do not look at each other."""
    maps = attributions(seed, 5, 40).double()
    for measure in (sparsity, gini, entropy):
        assert torch.allclose(measure(maps), measure(scale * maps), atol=1 / 40 + 1e-9)
        assert torch.equal(measure(maps).flip(0), measure(maps.flip(0)))
    assert torch.equal(descending(maps), descending(4 * maps))


def test_not_a_number_gives_no_number():
    """A map with nan or infinity has no sparsity."""
    values = torch.tensor([[1.0, torch.nan], [1.0, torch.inf], [1.0, 2.0]])
    assert sparsity(values).isfinite().tolist() == [False, False, True]
    assert gini(values[:1]).isnan().all()
    assert entropy(values[:1]).isnan().all()
    assert neighbour_likeness(torch.full((2, 2), torch.nan)).isnan()


@given(seeds, st.integers(1, 200), st.sampled_from([torch.float32, torch.float64]))
def test_order_is_stable(seed, n, dtype):
    """The highest first; ties, -0.0 and 0.0 among them, by position."""
    rng = np.random.default_rng(seed)
    scores = rng.choice([-2.5, -1.0, -0.0, 0.0, 1e-30, 1.0, np.inf, -np.inf], size=(3, n))
    order = descending(torch.from_numpy(scores).to(dtype))
    expected = np.argsort(-scores, axis=-1, kind="stable")
    assert np.array_equal(order.numpy(), expected)


def test_first_positions():
    """5018 of 50,176 pixels and 20 of 196 patches, nested for rising counts."""
    scores = torch.rand(2, 196)
    masks = first_mask(descending(scores), [1, 20, 196])
    assert masks.sum(-1).tolist() == [[1, 20, 196]] * 2
    assert (masks[:, 0] <= masks[:, 1]).all()
    assert scores[0][masks[0, 1]].min() >= scores[0][~masks[0, 1]].max()


@given(seeds, st.sampled_from([5, 4096, 5000]), st.sampled_from([torch.float32, torch.float64]))
def test_first_positions_need_no_order(seed, n, dtype):
    """Parted at a count, a map has the same first positions as sorted: ties by position, -0.0 as 0.0, infinities."""
    rng = np.random.default_rng(seed)
    scores = rng.choice([-2.5, -0.0, 0.0, 1e-30, 1.0, 1.5, 7.0, np.inf, -np.inf], size=(2, 3, n))
    maps = torch.from_numpy(scores).to(dtype)
    counts = sorted({0, 1, n // 10, n // 2, n})
    assert torch.equal(first_of(maps, counts), first_mask(descending(maps), counts))
    maps[0, 1, 2] = torch.nan
    assert torch.equal(first_of(maps, counts), first_mask(descending(maps), counts))


def test_random_orders_belong_to_images():
    """The same image has the same orders in any batch and with any number of draws; others have others."""
    one = random_order(50, index=torch.tensor([3, 9]), draws=2, seed=1)
    assert torch.equal(random_order(50, index=torch.tensor([9]), draws=1, seed=1)[0, 0], one[1, 0])
    assert torch.equal(one.sort(-1).values, torch.arange(50).expand(2, 2, 50))
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one, random_order(50, index=torch.tensor([3, 9]), draws=2, seed=2))


@given(seeds, st.integers(2, 30))
def test_gini_and_entropy_equal_their_definitions(seed, n):
    """Gini is half the relative mean difference of all pairs; entropy the sum of -p log2 p."""
    values = attributions(seed, n).double()
    sizes = values.abs().numpy()
    expected = np.abs(sizes[:, None] - sizes).sum() / (2 * n * sizes.sum())
    assert gini(values).item() == pytest.approx(expected, abs=1e-12)
    shares = sizes / sizes.sum()
    assert entropy(values).item() == pytest.approx(-sum(p * np.log2(p) for p in shares if p > 0), abs=1e-9)


def plain_likeness(pixels):
    """The definition of smoothness, neighbour by neighbour."""
    height, width = pixels.shape
    apart = 0.0
    for row in range(height):
        for column in range(width):
            if row + 1 < height:
                apart += (pixels[row, column] - pixels[row + 1, column]) ** 2
            if column + 1 < width:
                apart += (pixels[row, column] - pixels[row, column + 1]) ** 2
    return 1 - apart / (4 * ((pixels - pixels.mean()) ** 2).sum())


@given(seeds, st.integers(2, 9), st.integers(2, 9))
def test_likeness_equals_its_definition(seed, height, width):
    """Smoothness of neighbours, whatever the scale and offset."""
    maps = attributions(seed, 2, height, width).double()
    found = neighbour_likeness(maps)
    assert found[1].item() == pytest.approx(plain_likeness(maps[1].numpy()), abs=1e-9)
    assert torch.allclose(found, neighbour_likeness(3 * maps + 1))


def test_a_blur_is_the_solution_of_the_heat_equation():
    """Slow twin: many small steps of diffusion with a mirrored rim; mass stays, no value leaves the range."""
    maps = torch.rand(2, 9, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.8, 2.0], dtype=torch.float64)
    found = blurred(maps, sigma)
    steps = 4000
    for own, start, s in zip(found, maps.numpy(), sigma.tolist(), strict=True):
        heat = start.copy()
        for _ in range(steps):
            wide = np.pad(heat, 1, mode="edge")
            flow = wide[2:, 1:-1] + wide[:-2, 1:-1] + wide[1:-1, 2:] + wide[1:-1, :-2] - 4 * heat
            heat += s**2 / 2 / steps * flow
        assert np.allclose(own.numpy(), heat, atol=2e-4)
    assert torch.allclose(found.sum((-2, -1)), maps.sum((-2, -1)))
    assert (found >= 0).all()
    again = blurred(blurred(maps, torch.tensor([3.0, 3.0])), torch.tensor([4.0, 4.0]))
    assert torch.allclose(again, blurred(maps, torch.tensor([5.0, 5.0])), atol=1e-12)


@given(seeds, st.floats(0.2, 4.0))
def test_a_blurred_map_reaches_the_target(seed, sigma):
    """The blur that was applied is found again, each map its own; the result is as smooth as asked."""
    maps = attributions(seed, 3, 16, 20).double().abs()
    widths = torch.tensor([sigma, 2 * sigma, sigma / 2], dtype=torch.float64)
    target = neighbour_likeness(blurred(maps, widths))
    found = blurred_to(maps, target)
    assert found.matched.all()
    assert torch.allclose(found.sigma, widths, rtol=1e-3, atol=2e-3)
    assert torch.allclose(found.smoothness, target, atol=1e-6)
    assert torch.allclose(found.maps.sum((-2, -1)), maps.sum((-2, -1)))


def test_what_cannot_be_matched_is_flagged():
    """A rougher target leaves the map as it is; one smoother than any blur, a flat map and nan are flagged too."""
    smooth = blurred(torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(1)), torch.full((4,), 2.0))
    smooth[2] = 1.0
    found = blurred_to(smooth, torch.tensor([0.1, 1.5, 0.9, torch.nan]))
    assert found.matched.tolist() == [False] * 4
    assert found.sigma[0] == 0
    assert torch.equal(found.maps[0], smooth[0])
    assert found.sigma[2:].isnan().all()
    assert found.maps[2:].isnan().all()
    itself = blurred_to(smooth[0], neighbour_likeness(smooth[0]))
    assert itself.matched
    assert itself.sigma == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: patch_masses(torch.ones(8, 8), grid=14), "1 to 8"),
        (lambda: sparsity(torch.ones(3), mass=0.0), "share"),
        (lambda: sparsity(torch.ones(0)), "at least one"),
        (lambda: random_order(0, index=torch.tensor([0])), "at least one position"),
    ],
)
def test_what_cannot_be_is_refused(call, words):
    """Errors say what was expected."""
    with pytest.raises(InputError, match=words):
        call()
