"""Each augmentation, batched, against torchvision image by image, or against its definition written plainly."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import pad
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from neuronscope.augment import augmentations, decoded
from neuronscope.augment.blurs import Sharpness

KNOWN = sorted(augmentations(28, 28))
GREY = [name for name in KNOWN if augmentations(28, 28)[name].colours == "any"]
SIZES = [(8, 8), (28, 28), (57, 40), (64, 64)]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def case(name, size, *, channels=3, n=24, seed=0):
    """An augmentation with noise images, the hardest for interpolation, and values spread over its ranges."""
    augmentation = augmentations(*size)[name]
    rng = np.random.default_rng(seed)
    values = decoded(augmentation, rng.random((n, len(augmentation.parameters))))
    images = torch.from_numpy(rng.random((n, channels, *size), dtype=np.float32))
    # exact black, white and grey pixels are where divisions by zero hide
    images[:, :, 0, 0], images[:, :, 0, 1], images[:, :, 1, 0] = 0, 1, 0.5
    return augmentation, images, torch.from_numpy(values)


def rotated(image, angle):
    """Rotation and zoom by torchvision's own affine resampling."""
    height, width = image.shape[1:]
    margin = [
        round(t / (1 - t**2) * (s - s * t)) for s in (height, width) for t in [abs(math.tan(math.radians(angle)))]
    ]
    zoom = [side / (side - 2 * cut) for side, cut in zip((height, width), margin, strict=True)]
    assert zoom[0] == pytest.approx(zoom[1]) or height != width
    return tv.affine(image, -angle, [0, 0], zoom[0], [0.0, 0.0], InterpolationMode.BILINEAR)


def erased(image, row, column, scale, log_ratio):
    """The original's rule, step by step."""
    height, width = image.shape[1:]
    tall = round(math.sqrt(height * width * scale * math.exp(log_ratio)))
    wide = round(math.sqrt(height * width * scale / math.exp(log_ratio)))
    top, left = max(0, round(row) - tall // 2), max(0, round(column) - wide // 2)
    if top + tall < height and left + wide < width:
        return tv.erase(image, top, left, tall, wide, torch.tensor(0.0))
    return image


def elliptic(image, *values):
    """Blurred everywhere, used pixel by pixel within the ellipse."""
    a, b, shift_x, shift_y, angle = values
    height, width = image.shape[1:]
    blurred = tv.gaussian_blur(pad(image[None], [12] * 4, mode="replicate")[0], [25, 25], [3.0, 3.0])[:, 12:-12, 12:-12]
    changed, turn = image.clone(), math.radians(angle)
    for y in range(height):
        for x in range(width):
            right, down = x - round(width // 2 + shift_x), y - round(height // 2 + shift_y)
            along = (right * math.cos(turn) - down * math.sin(turn)) / round(a)
            across = (right * math.sin(turn) + down * math.cos(turn)) / round(b)
            if along**2 + across**2 <= 1 + 1e-6:
                changed[:, y, x] = blurred[:, y, x]
    return changed


ORACLES = {
    "erasing": (erased, 0),
    "sharpness_const": (lambda image: tv.adjust_sharpness(image, 1.5), 1e-6),
    "rolling": (lambda image, down, right: torch.roll(image, (round(down), round(right)), (1, 2)), 0),
    "grayscaling": (lambda image: tv.rgb_to_grayscale(image, 3), 1e-6),
    "gaussian_blur": (lambda image, sigma: tv.gaussian_blur(image, [7, 7], [sigma, sigma]), 1e-6),
    "brightness": (tv.adjust_brightness, 1e-6),
    "contrast": (tv.adjust_contrast, 2e-6),
    "saturation": (tv.adjust_saturation, 2e-6),
    "hue": (tv.adjust_hue, 5e-6),
    "hflip": (tv.hflip, 0),
    "elliptic_local_blur": (elliptic, 2e-6),
}
"""Name -> one image's oracle, and how far float32 rounding may take the two apart (0: the same bits)."""


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", sorted(ORACLES))
def test_equal_to_torchvision(name, size, device):
    """Batched, with its own values for each image, an augmentation is torchvision's function or its definition."""
    augmentation, images, values = case(name, size)
    oracle, tolerance = ORACLES[name]
    changed = augmentation.apply(images.to(device), values).cpu()
    expected = torch.stack([oracle(image, *row) for image, row in zip(images, values.tolist(), strict=True)])
    assert (changed - expected).abs().max() <= tolerance
    assert (changed - images).abs().max() > 0.01


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("side", [8, 28, 64, 224])
def test_rotation_is_one_resampling(side, device):
    """Rotation, crop and enlargement are torchvision's affine map with the angle and the zoom that the crop makes.

    Noise of neighbours that differ by up to 1, looked up in float32: places agree to 1e-5 pixels.
    """
    augmentation, images, values = case("rotation", (side, side), n=8)
    changed = augmentation.apply(images.to(device), values).cpu()
    expected = torch.stack([rotated(image, *row) for image, row in zip(images, values.tolist(), strict=True)])
    assert (changed - expected).abs().max() < 1e-4


def test_rotation_equals_its_three_steps_on_smooth_images():
    """Rotated, cropped and enlarged in steps, a smooth image is the same within the error of two interpolations."""
    augmentation, _, values = case("rotation", (224, 224), n=12)
    y, x = torch.meshgrid(torch.linspace(0, 6, 224), torch.linspace(0, 6, 224), indexing="ij")
    image = torch.stack([(y + x).sin(), (y - x).cos(), (x * 2).sin()]) / 2 + 0.5
    changed = augmentation.apply(image.expand(12, -1, -1, -1), values)
    for one, (angle,) in zip(changed, values.tolist(), strict=True):
        slope = abs(math.tan(math.radians(angle)))
        cut = round(slope / (1 - slope**2) * (224 - 224 * slope))
        turned = tv.rotate(image, angle, InterpolationMode.BILINEAR)[:, cut : 224 - cut, cut : 224 - cut]
        assert turned.shape[1] == 224 - 2 * cut
        assert (turned > 0).all()  # no black wedge is left
        expected = tv.resize(turned, [224, 224], InterpolationMode.BILINEAR, antialias=True)
        inner = (slice(None), slice(3, -3), slice(3, -3))  # at the rim, a crop knows no neighbours
        assert (one - expected)[inner].abs().max() < 2e-3


def test_rotation_of_images_that_are_not_square_has_no_wedges():
    """Each side is cropped by its own length: white stays white, for the usual formats of photographs."""
    for size in ((60, 90), (90, 60), (120, 160)):
        rotation = augmentations(*size)["rotation"]
        values = torch.linspace(-10, 10, 21, dtype=torch.float64)[:, None]
        assert rotation.apply(torch.ones(21, 1, *size), values).min() > 0.999


def test_rotation_turns_counter_clockwise():
    """A point to the right of the centre moves up."""
    image = torch.zeros(1, 1, 65, 65)
    image[0, 0, 32, 48] = 1
    changed = augmentations(65, 65)["rotation"].apply(image, torch.tensor([[8.0]], dtype=torch.float64))
    row, column = np.unravel_index(int(changed.argmax()), (65, 65))
    assert row < 31
    assert column > 48  # enlarged as well


@pytest.mark.parametrize(("name", "channels"), [*((name, 3) for name in KNOWN), *((name, 1) for name in GREY)])
def test_a_batch_is_its_images_one_by_one(name, channels):
    """What an image becomes does not depend on the others, nor is the input changed."""
    augmentation, images, values = case(name, (28, 28), channels=channels, n=6)
    before = images.clone()
    changed = augmentation.apply(images, values)
    alone = torch.cat([augmentation.apply(images[i : i + 1], values[i : i + 1]) for i in range(6)])
    assert torch.equal(images, before)
    assert changed.dtype == torch.float32
    assert (changed - alone).abs().max() < 1e-6
    assert changed.min() > -1e-5
    assert changed.max() < 1 + 1e-5


@pytest.mark.parametrize("name", KNOWN)
def test_values_on_the_processor_go_with_images_elsewhere(name):
    """Parameters come from designs in main memory; the images stay on their device.

    The device `meta` holds no numbers, but refuses to be mixed with others like a real one.
    """
    augmentation, images, values = case(name, (28, 28), n=2)
    assert augmentation.apply(images.to("meta"), values).device.type == "meta"


@pytest.mark.parametrize("name", KNOWN)
def test_both_ends_of_every_parameter_work(name):
    """At the corners of its ranges an augmentation gives images from 0 to 1, also in float64 and by float32 values."""
    augmentation = augmentations(28, 28)[name]
    count = len(augmentation.parameters)
    corners = np.array([[number >> place & 1 for place in range(count)] for number in range(2**count)], dtype=float)
    values = torch.from_numpy(decoded(augmentation, corners.reshape(2**count, count)))
    images = torch.rand(2**count, 3, 28, 28, dtype=torch.float64)
    changed = augmentation.apply(images, values)
    assert changed.dtype == torch.float64
    assert changed.min() > -1e-9
    assert changed.max() < 1 + 1e-9
    single = augmentation.apply(images.float(), values.float())
    # places and angles are then rounded to float32
    assert (single - changed).abs().max() < 1e-4


def test_hue_turns_once_around():
    """Half a turn either way is the same, and two quarter turns are one half turn."""
    augmentation, images, _ = case("hue", (28, 28))

    def turned(source, turn):
        return augmentation.apply(source, torch.full((len(source), 1), turn, dtype=torch.float64))

    assert (turned(images, -0.5) - turned(images, 0.5)).abs().max() < 5e-6
    assert (turned(turned(images, 0.25), 0.25) - turned(images, 0.5)).abs().max() < 5e-6


def test_sharpness_leaves_tiny_images():
    """Without an inner pixel there is nothing to sharpen, as in torchvision."""
    image = torch.rand(1, 3, 2, 9)
    assert torch.equal(Sharpness()(image, torch.zeros(1, 0)), image)


def test_a_half_axis_of_zero_blurs_nothing():
    """Ellipses without an area are empty."""
    image = torch.rand(2, 3, 28, 28)
    flat = torch.tensor([[0.3, 9.0, 0.0, 0.0, 5.0], [9.0, 0.0, 1.0, 1.0, 0.0]])
    assert torch.equal(augmentations(28, 28)["elliptic_local_blur"].apply(image, flat), image)
