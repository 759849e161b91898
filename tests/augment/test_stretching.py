"""Every channel stretched to 0 to 1, as the original does before the normalisation."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.augment import augmentations, stretch


def plainly(image):
    """The definition: image by image, channel by channel."""
    changed = image - image.amin((1, 2), keepdim=True)
    most = [float(channel.max()) for channel in changed]
    return torch.stack([channel / (1.0 if top < 1e-6 else top) for channel, top in zip(changed, most, strict=True)])


def test_each_channel_of_each_image_spans_0_to_1():
    """Equal to the definition, and the input stays."""
    images = torch.rand(5, 3, 9, 7) * torch.rand(5, 3, 1, 1)
    images[0, 1], images[1, 2, 0, 0] = 0.25, 0
    before = images.clone()
    changed = stretch(images)
    assert torch.equal(images, before)
    assert torch.equal(changed, torch.stack([plainly(image) for image in images]))
    assert (changed[0, 1] == 0).all()
    spans = changed.amax((2, 3)) - changed.amin((2, 3))
    assert sorted(spans.flatten().tolist()) == [0.0, *[1.0] * 14]


def test_a_channel_that_hardly_spans_anything_is_not_stretched():
    """Noise of rounding is not blown up."""
    image = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    image[0, 0, 0, 0] = 5e-7
    assert torch.equal(stretch(image), image)


@given(factor=st.floats(0.1, 1.0))
def test_it_undoes_a_darker_image(factor):
    """Brightness below 1 is cancelled: the reason why it is a named deviation."""
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    dark = augmentations(8, 8)["brightness"].apply(images, torch.tensor([[factor]]))
    assert (stretch(dark) - stretch(images)).abs().max() < 1e-5
