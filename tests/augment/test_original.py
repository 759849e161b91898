"""The original's own versions of rotation and elliptic blur, and how far the default ones are from them."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from neuronscope.augment import augmentations, decoded

Y, X = torch.meshgrid(torch.linspace(0, 9, 224), torch.linspace(0, 9, 224), indexing="ij")
PHOTO = (torch.stack([(Y + X).sin(), (Y - X).cos(), (X * Y / 3).sin()]) / 2 + 0.5).clamp(0, 1)
"""A smooth image whose finest waves are some 20 pixels long."""


def values_of(augmentation, n, seed=0):
    """Rows of values."""
    return torch.from_numpy(
        decoded(augmentation, np.random.default_rng(seed).random((n, len(augmentation.parameters))))
    )


def margin(angle):
    """Pixels cropped from a side of 224."""
    slope = abs(math.tan(math.radians(angle)))
    return round(slope / (1 - slope**2) * (224 - 224 * slope))


@pytest.mark.parametrize("legacy", [("eight-bit",), ("eight-bit", "nearest-rotation")], ids=str)
def test_eight_bit_rotation_goes_through_pil(legacy):
    """To 8 bits, PIL's rotation with nearest neighbours, crop, bilinear resize of the 8-bit tensor: the same levels."""
    rotation = augmentations(224, 224, legacy=legacy)["rotation"]
    values = values_of(rotation, 4)
    changed = rotation.apply(PHOTO.expand(4, -1, -1, -1), values)
    for one, (angle,) in zip(changed, values.tolist(), strict=True):
        cut = margin(angle)
        turned = tv.to_pil_image(PHOTO).rotate(angle, Image.Resampling.NEAREST).crop((cut, cut, 224 - cut, 224 - cut))
        expected = tv.resize(tv.pil_to_tensor(turned), [224, 224], InterpolationMode.BILINEAR, antialias=False)
        levels = one * 255
        assert (levels - levels.round()).abs().max() < 1e-4
        # torchvision resizes 8-bit tensors in 8-bit weights here and there: a level of difference
        assert (levels.round() - expected.float()).abs().max() <= 1


def test_nearest_rotation_is_torchvisions_in_floats():
    """Rotation with nearest neighbours, crop and bilinear resize, without 8 bits."""
    rotation = augmentations(224, 224, legacy=("nearest-rotation",))["rotation"]
    values = values_of(rotation, 4)
    changed = rotation.apply(PHOTO.expand(4, -1, -1, -1), values)
    for one, (angle,) in zip(changed, values.tolist(), strict=True):
        cut = margin(angle)
        turned = tv.rotate(PHOTO, angle, InterpolationMode.NEAREST)[:, cut : 224 - cut, cut : 224 - cut]
        assert torch.equal(one, tv.resize(turned, [224, 224], InterpolationMode.BILINEAR, antialias=False))


def test_eight_bit_elliptic_blur_is_pils_within_the_ellipse():
    """PIL's blur inside, the 8-bit image outside; the ellipse is the exact one, half a pixel larger."""
    original, exact = (augmentations(224, 224, legacy=way)["elliptic_local_blur"] for way in (("eight-bit",), ()))
    values = values_of(exact, 6)
    changed = original.apply(PHOTO.expand(6, -1, -1, -1), values)
    picture = tv.to_pil_image(PHOTO)
    plain, blurred = (tv.to_tensor(one) for one in (picture, picture.filter(ImageFilter.GaussianBlur(3.0))))
    column, row = np.meshgrid(np.arange(224), np.arange(224))
    for one, (a, b, shift_x, shift_y, angle) in zip(changed, values.tolist(), strict=True):
        turned = np.exp(1j * math.radians(angle)) * (column - 112 - shift_x + 1j * (row - 112 - shift_y))
        inside = torch.from_numpy((turned.real / (a + 0.5)) ** 2 + (turned.imag / (b + 0.5)) ** 2 <= 1)
        assert torch.equal(one, torch.where(inside, blurred, plain))


OPENCV = {(10, 31, 0): 1045, (31, 10, -15): 1037, (20, 20, 5): 1307, (15, 12, 12): 602, (10, 10, 0): 347}
"""(a, b, angle) -> pixels of `cv2.ellipse(image, (112, 112), (a, b), -angle, 0, 360, 1, -1)`; OpenCV 5.0.0."""


@pytest.mark.parametrize("ellipse", OPENCV, ids=str)
def test_the_eight_bit_ellipse_is_as_large_as_opencvs(ellipse):
    """Within 1.5 % of the area that OpenCV fills; the exact ellipse is some 5 % smaller."""
    a, b, angle = ellipse
    original, exact = (augmentations(224, 224, legacy=way)["elliptic_local_blur"] for way in (("eight-bit",), ()))
    # blurring moves every pixel of this checkerboard to grey
    checks = ((torch.arange(224)[:, None] + torch.arange(224)) % 2).float().expand(1, 1, 224, 224)
    values = torch.tensor([[a, b, 0, 0, angle]], dtype=torch.float64)
    areas = [int(((one.apply(checks, values) - checks).abs() > 0.2).sum()) for one in (original, exact)]
    assert areas[0] == pytest.approx(OPENCV[ellipse], rel=0.015)
    assert areas[1] < OPENCV[ellipse]


def test_the_exact_versions_are_near_the_original():
    """On a smooth image, mean differences of less than a level (blur) and three levels (nearest neighbours) of 255."""
    for name, most in (("elliptic_local_blur", 0.7), ("rotation", 3)):
        default, original = (augmentations(224, 224, legacy=way)[name] for way in ((), ("eight-bit",)))
        values = values_of(default, 6)
        images = PHOTO.expand(6, -1, -1, -1)
        difference = (default.apply(images, values) - original.apply(images, values)).abs() * 255
        assert difference.mean() < most


def test_the_swapped_ellipse_differs_where_images_are_not_square():
    """Height and width change places in the centre, and nowhere else."""
    stripes = (torch.arange(120) % 2).float().expand(1, 1, 60, 120)
    row = torch.tensor([[6.0, 4.0, 0.0, 0.0, 0.0]])
    for legacy, centre in (((), (60, 30)), (("swapped-ellipse",), (30, 60))):
        changed = augmentations(60, 120, legacy=legacy)["elliptic_local_blur"].apply(stripes, row)
        rows, columns = ((changed - stripes).abs() > 0.2)[0, 0].nonzero().T
        assert columns.double().mean() == centre[0]
        # the lower half of the swapped ellipse lies below the image
        assert rows.max() == min(59, centre[1] + 4)
        assert rows.min() == centre[1] - 4
    square = [augmentations(64, 64, legacy=legacy)["elliptic_local_blur"] for legacy in ((), ("swapped-ellipse",))]
    images, values = torch.rand(5, 3, 64, 64), values_of(square[0], 5)
    assert torch.equal(*(one.apply(images, values) for one in square))


@pytest.mark.parametrize("legacy", [("eight-bit",), ("nearest-rotation",)], ids=str)
def test_grey_images_and_other_sizes_work_too(legacy):
    """One channel, sides that differ, nothing changed in place."""
    images = torch.rand(3, 1, 30, 44)
    before = images.clone()
    for name in ("rotation", "elliptic_local_blur"):
        augmentation = augmentations(30, 44, legacy=legacy)[name]
        changed = augmentation.apply(images, values_of(augmentation, 3))
        assert changed.shape == images.shape
        assert changed.dtype == images.dtype
        assert 0 <= changed.min() <= changed.max() <= 1
    assert torch.equal(images, before)
