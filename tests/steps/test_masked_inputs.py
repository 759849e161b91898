"""Predictions of masked images against a loop that masks one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuronscope.errors import InputError, UnknownName
from neuronscope.maths.attribution_maps import patch_numbers
from neuronscope.maths.faithfulness import PixelFill
from neuronscope.steps.masked_inputs import drops, measured_classes

FILLS = (
    PixelFill(),
    PixelFill("image mean"),
    PixelFill("zero", black=(-2.0, -1.0, 0.5)),
    PixelFill("blur", sigma=2.0),
    PixelFill("noise", seed=3),
)
KINDS = [fill.kind for fill in FILLS]


class Counting(nn.Module):
    """A small network that keeps what it is shown."""

    def __init__(self, classes=5):
        """Random weights, the same each time."""
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, classes)
        )
        self.shown = []

    def forward(self, x):
        """Logits."""
        self.shown.append(x.clone())
        return self.layers(4 * x)


@pytest.fixture
def network():
    """In evaluation mode."""
    return Counting().eval()


def images(n=3, height=20, width=17):
    """Random images."""
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(n))


def original(network, image, order, *, count, areas, stand_in, mode, label):
    """One image, one map, one share: the probability after replacing, pixel by pixel."""
    chosen = order[:count].tolist() if mode == "deletion" else order[count:].tolist()
    changed = image.clone()
    for position in chosen:
        for row, column in (areas == position).nonzero().tolist():
            changed[:, row, column] = stand_in[:, row % stand_in.shape[1], column % stand_in.shape[2]]
    with torch.no_grad():
        return network(changed[None]).double().softmax(1)[0, label].item()


@pytest.mark.parametrize("mode", ["deletion", "insertion"])
@pytest.mark.parametrize("fill", FILLS, ids=KINDS)
@pytest.mark.parametrize(("grid", "cut"), [(None, "even"), (5, "even"), (5, "whole patches")])
def test_equals_the_loop(network, mode, fill, grid, cut):
    """Every image, map and share as if it were masked alone, pixel by pixel, in pixels and patches."""
    shown = images()
    size = (20, 17) if grid is None else (grid, grid)
    scores = torch.rand(3, 2, *size, generator=torch.Generator().manual_seed(1)).round(decimals=1)  # with ties
    index = torch.tensor([7, 1, 4])
    found = drops(
        network, shown, scores, fractions=(0.1, 0.5), mode=mode, fill=fill, index=index, cut=cut, memory=2**20
    )
    areas = torch.arange(340).view(20, 17) if grid is None else patch_numbers(20, 17, grid=grid, cut=cut)
    stand_in = fill.images(shown, index=index)
    for i in range(3):
        label = network(shown[i : i + 1]).argmax().item()
        assert found.classes[i] == label
        for m in range(2):
            order = torch.from_numpy(np.argsort(-scores[i, m].numpy().ravel(), kind="stable"))
            for f, count in enumerate(found.counts):
                expected = original(
                    network, shown[i], order, count=count, areas=areas, stand_in=stand_in[i], mode=mode, label=label
                )
                assert found.after[i, m, f].item() == pytest.approx(expected, abs=1e-6)
    by_order = torch.argsort(-scores.flatten(2), dim=-1, stable=True)
    again = drops(network, shown, by_order, fractions=(0.1, 0.5), mode=mode, fill=fill, index=index, cut=cut)
    assert torch.allclose(again.after, found.after, atol=1e-6)


def test_what_the_network_is_shown():
    """10 % of 224 x 224: 5018 pixels, or 20 patches of 16 x 16, are 0 in all channels; the rest is untouched."""
    network = Counting().eval()
    shown = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) + 0.5
    for scores, pixels in ((torch.rand(1, 1, 224, 224), 5018), (torch.rand(1, 1, 14, 14), 20 * 256)):
        network.shown.clear()
        drops(network, shown, scores)
        untouched, masked = network.shown
        assert torch.equal(untouched, shown)
        gone = (masked == 0).all(1)
        assert gone.sum() == pixels
        assert torch.equal(torch.where(gone[:, None], shown, masked), shown)


def test_a_constant_classifier_loses_nothing():
    """The drop of a network that always says the same is exactly 0."""
    network = Counting().eval()
    nn.init.zeros_(network.layers[-1].weight)
    found = drops(network, images(), torch.rand(3, 4, 20, 17), fractions=(0.1, 0.9))
    assert (found.drop == 0).all()


def test_nothing_is_predicted_twice(network):
    """The untouched image once, or not at all if its logits are there; equal masks of patches once."""
    shown = images(2)
    scores = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)).expand(2, 6, 4, 4).clone()
    scores[1, 5] = -scores[1, 5]
    found = drops(network, shown, scores, fractions=(0.25, 1.0))
    assert found.predictions == 2 + 3  # each image: a quarter, all; the second has another quarter too
    assert sum(map(len, network.shown)) == 2 + 5
    assert torch.equal(found.after[0], found.after[0, :1].expand(6, 2))
    assert (found.after[1, 5, 0] != found.after[1, 0, 0]) & (found.after[1, 5, 1] == found.after[1, 0, 1])
    logits = network.layers(4 * shown).detach()
    network.shown.clear()
    again = drops(network, shown, scores, fractions=(0.25, 1.0), logits=logits)
    assert sum(map(len, network.shown)) == 5
    assert torch.allclose(again.drop, found.drop)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2**24))
def test_neither_memory_nor_company_matters(seed, memory):
    """Any budget, any order of images and maps, any scale of the maps: the same answers; batches keep to the budget."""
    network = Counting().eval()
    rng = torch.Generator().manual_seed(seed)
    shown, scores = images(), torch.rand(3, 3, 20, 17, generator=rng)
    index = torch.tensor([2, 5, 9])
    here = {"fractions": (0.05, 0.4), "fill": PixelFill("noise")}
    one = drops(network, shown, scores, index=index, **here)
    network.shown.clear()
    small = drops(network, shown, scores, index=index, memory=memory, **here)
    assert torch.allclose(small.after, one.after, atol=1e-6)
    assert all(len(batch) in {1, 3} or batch.numel() * 4 * 48 <= memory for batch in network.shown)
    images_turned = drops(network, shown.flip(0), 8 * scores.flip(0, 1), index=index.flip(0), **here)
    assert torch.allclose(images_turned.after, one.after.flip(0, 1), atol=1e-6)


def test_ends_of_the_curves(network):
    """Nothing replaced is the untouched image; all replaced and none restored are the same image."""
    shown, scores = images(), torch.rand(3, 2, 20, 17)
    gone = drops(network, shown, scores, fractions=(0.0, 1.0))
    come = drops(network, shown, scores, fractions=(0.0, 1.0), mode="insertion")
    assert torch.allclose(gone.drop[..., 0], torch.zeros(3, 2, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(come.drop[..., 1], torch.zeros(3, 2, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(gone.after[..., 1], come.after[..., 0], atol=1e-6)


def test_maps_without_numbers_have_no_answer(network):
    """A map with nan gives nan; the others of the image are not touched; all nan asks for no prediction."""
    scores = torch.rand(2, 2, 20, 17)
    scores[0, 1, 3, 3] = torch.nan
    found = drops(network, images(2), scores)
    assert found.after.isnan().flatten().tolist() == [False, True, False, False]
    assert found.predictions == 3
    none = drops(network, images(2), torch.full((2, 2, 4, 4), torch.nan))
    assert none.predictions == 0
    assert none.drop.isnan().all()


def test_the_class_measured(network):
    """The prediction by default, the label where there is one, or one number for all; the same for all maps."""
    shown = images()
    logits = network(shown).detach()
    label = torch.tensor([4, -1, 0])
    assert torch.equal(measured_classes(logits, label), logits.argmax(1))
    assert measured_classes(logits, label, of="label").tolist() == [4, logits[1].argmax().item(), 0]
    assert measured_classes(logits, label, of=2).tolist() == [2, 2, 2]
    found = drops(network, shown, torch.rand(3, 2, 4, 4), classes=torch.tensor([4, 1, 0]))
    expected = logits.double().softmax(1)[torch.arange(3), torch.tensor([4, 1, 0])]
    assert torch.allclose(found.before, expected)
    for of, error in ((5, InputError), (-1, InputError), ("lable", UnknownName)):
        with pytest.raises(error):
            measured_classes(logits, label, of=of)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"maps": torch.rand(3, 2, 20, 18)}, "20 x 18 positions fit neither"),
        ({"maps": torch.rand(3, 2, 18, 18)}, "fit neither"),
        ({"maps": torch.arange(7).expand(3, 1, 7)}, "fit neither"),
        ({"maps": torch.rand(2, 2, 4, 4)}, "maps for 2 images"),
        ({"maps": torch.rand(3, 0, 4, 4)}, "at least one map"),
        ({"classes": torch.tensor([0, 5, 1])}, "class 5 is not among"),
        ({"classes": torch.tensor([0, -1, 1])}, "measured_classes"),
        ({"fractions": (0.2, 0.1)}, "rise"),
    ],
)
def test_what_cannot_be_is_refused(network, change, words):
    """Errors say what was expected."""
    options = {"maps": torch.rand(3, 2, 4, 4)} | change
    with pytest.raises(InputError, match=words):
        drops(network, images(), options.pop("maps"), **options)
