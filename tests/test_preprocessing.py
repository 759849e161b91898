"""Preprocessing gives what torchvision's own transforms give, keeps grey and colour apart, and can be undone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.models import DenseNet121_Weights, EfficientNet_B0_Weights, ResNet18_Weights

from neuronscope.errors import InputError
from neuronscope.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess

RNG = np.random.default_rng(0)


def picture(height: int, width: int, channels: int = 3) -> torch.Tensor:
    """Smooth blobs with some noise, as a photograph has; (channels, height, width)."""
    coarse = torch.from_numpy(RNG.random((1, channels, 7, 9), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    noise = torch.from_numpy(RNG.normal(0, 0.03, (channels, height, width)).astype(np.float32))
    return ((smooth + noise) * 255).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(
    "weights", [ResNet18_Weights.DEFAULT, DenseNet121_Weights.DEFAULT, EfficientNet_B0_Weights.DEFAULT]
)
@pytest.mark.parametrize("size", [(300, 400), (500, 333), (227, 227), (100, 90)])
def test_it_agrees_with_torchvisions_transform_of_the_weights(weights, size):
    """Torchvision resizes with PIL, we with torch; both round to whole levels, so two of 255 levels are allowed."""
    theirs = weights.transforms()
    ours = Preprocess(
        resize=theirs.resize_size[0],
        crop=(theirs.crop_size[0], theirs.crop_size[0]),
        interpolation=theirs.interpolation.value,
        mean=tuple(theirs.mean),
        std=tuple(theirs.std),
    )
    raw = picture(*size)
    expected = theirs(Image.fromarray(raw.permute(1, 2, 0).numpy()))
    got = ours.batch([raw])[0]
    assert got.shape == expected.shape
    levels = (got - expected).abs() * torch.tensor(theirs.std).view(3, 1, 1) * 255
    assert levels.max() <= 2.01
    assert levels.mean() < 0.1


@given(st.sampled_from([1, 2, 3, 4]), st.sampled_from([1, 3]), st.integers(1, 20), st.integers(1, 20))
def test_every_kind_of_image_gets_the_channels_of_the_network(found, wanted, height, width):
    """Alpha is dropped, grey repeated, colour weighed by ITU-R 601 bit for bit as PIL does."""
    raw = torch.from_numpy(np.random.default_rng(height).integers(0, 256, (found, height, width), dtype=np.uint8))
    frame = Preprocess(channels=wanted).frame(raw)
    assert frame.shape == (wanted, height, width)
    if found in (1, 2):
        assert torch.equal(frame, raw[:1].expand(wanted, -1, -1))
    elif wanted == 3:
        assert torch.equal(frame, raw[:3])
    else:
        expected = Image.fromarray(raw[:3].permute(1, 2, 0).numpy()).convert("L")
        assert np.array_equal(frame[0].numpy(), np.asarray(expected))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 30), st.integers(2, 30))
def test_resize_and_crop_give_the_size_asked_for(height, width, rows, columns):
    """A pair forces the size; an int sets the shorter side; a crop pads with black."""
    raw = torch.full((3, height, width), 200, dtype=torch.uint8)
    assert Preprocess(resize=(rows, columns)).frame(raw).shape == (3, rows, columns)
    assert min(Preprocess(resize=rows).frame(raw).shape[1:]) == rows
    cropped = Preprocess(crop=(rows, columns)).frame(raw)
    assert cropped.shape == (3, rows, columns)
    assert int((cropped[0] > 0).sum()) == min(height, rows) * min(width, columns)


@pytest.mark.parametrize("resize", [None, 9, (12, 7)])
def test_one_array_gives_the_same_as_a_list_of_images(resize):
    """Bit for bit, so that images in memory and images in files cannot differ."""
    raws = torch.stack([picture(20, 15) for _ in range(4)])
    for channels in (1, 3):
        prepare = Preprocess(
            channels=channels, resize=resize, crop=(6, 6), mean=(0.5,) * channels, std=(0.2,) * channels
        )
        assert torch.equal(prepare.batch(raws), prepare.batch(list(raws)))
        assert torch.equal(prepare.batch(raws)[2:3], prepare.batch([raws[2]]))


def test_pixels_undo_the_normalisation():
    """Every level of every channel comes back; the raw image is not changed."""
    raws = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, -1, -1).contiguous()
    before = raws.clone()
    for prepare in (Preprocess(mean=IMAGENET_MEAN, std=IMAGENET_STD), Preprocess()):
        normal = prepare.batch(raws)
        assert torch.equal(prepare.pixels(normal), raws)
        assert torch.equal(raws, before)
    assert prepare.pixels(torch.tensor([-3.0, 3.0]).view(1, 1, 1, 2)).flatten().tolist() == [0, 255]


def test_white_stays_white_in_grey():
    """255 of every colour is 255, not 254."""
    white = torch.full((3, 2, 2), 255, dtype=torch.uint8)
    assert Preprocess(channels=1).frame(white).unique().tolist() == [255]


def test_without_mean_the_values_are_0_to_1():
    """Black is 0, white is 1."""
    raw = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 3)
    assert torch.allclose(Preprocess(channels=1).batch([raw]).flatten(), torch.tensor([0, 0.2, 1]))


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"mean": (0.5,), "std": (0.5,)}, "need 3 numbers each"),
        ({"channels": 1, "mean": (0.5,), "std": ()}, "got 1 and 0"),
        ({"channels": 1, "mean": (0.5,), "std": (0.0,)}, "above 0"),
        ({"channels": 1, "mean": (0.5,), "std": (float("nan"),)}, "above 0"),
        ({"resize": 0}, "resize is 0"),
        ({"crop": (5, -1)}, "crop is"),
    ],
)
def test_what_cannot_work_is_refused_at_once(options, cause):
    """Not when the first image comes."""
    with pytest.raises(InputError, match=cause):
        Preprocess(**options)


def test_images_that_do_not_fit_together_are_refused():
    """Different sizes without a resize, a number of channels that is no image, an empty batch."""
    with pytest.raises(InputError, match=r"different sizes.*4x4.*--resize"):
        Preprocess().batch([picture(4, 4), picture(5, 4)])
    with pytest.raises(InputError, match="5 channels"):
        Preprocess().frame(torch.zeros(5, 4, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match="at least one image"):
        Preprocess().batch([])
