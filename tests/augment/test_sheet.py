"""The contact sheet: what is on it, and that it says what it shows."""

import numpy as np
import torch

from neuronscope.augment import SETS, augmentations
from neuronscope.augment.sheet import sheet

PHOTO = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def made(names, images=PHOTO, seed=0):
    """A sheet of some augmentations."""
    known = augmentations(*images.shape[2:])
    return sheet([known[name] for name in names], images, rng=np.random.default_rng(seed))


def test_a_strip_for_each_augmentation_and_one_of_orders():
    """Labels are numbered, and orders are written in these numbers."""
    for names in SETS.values():
        gallery = made(names)
        labels = [f"{number} {name}" for number, name in enumerate(names, start=1)]
        assert [strip.label for strip in gallery.strips] == [*labels, "all"]
        for picture in gallery.strips[-1].pictures[1:]:
            assert sorted(map(int, picture.caption.split())) == [*range(1, len(names) + 1)]


def test_pictures_show_what_captions_say():
    """The original first, then each parameter at its ends, then draws with all values."""
    gallery = made(["rolling"])
    (strip,) = gallery.strips
    captions = [picture.caption for picture in strip.pictures]
    assert captions[:5] == ["original", "roll_y -6", "roll_y 5", "roll_x -6", "roll_x 5"]
    assert len(captions) == 8
    assert all(caption.startswith("roll_y ") and ", roll_x " in caption for caption in captions[5:])
    original = strip.pictures[0].image
    assert np.array_equal(original, (PHOTO[0] * 255).round().byte().permute(1, 2, 0).numpy())
    # the middle of -6 to 5 is -0.5, which rounds to no shift
    assert np.array_equal(strip.pictures[2].image, np.roll(original, 5, axis=0))


def test_a_small_change_is_framed_and_none_is_said():
    """A blurred spot has a frame around its pixels; a rectangle that does not fit is called unchanged."""
    blur, erasing = (made([name]).strips[0].pictures for name in ("elliptic_local_blur", "erasing"))
    top, bottom, left, right = blur[1].box
    differs = (blur[1].image != blur[0].image).any(axis=2)
    assert differs[top:bottom, left:right].sum() == differs.sum() > 0
    assert all(
        bool((one.image != erasing[0].image).any()) != one.caption.endswith(": unchanged") for one in erasing[1:]
    )
    assert any(one.caption.endswith(": unchanged") for one in erasing)
    assert made(["hflip"]).strips[0].pictures[1].box is None


def test_the_seed_decides_and_grey_images_stay_grey():
    """Same generator, same sheet; one channel gives pictures without colours; strips take the images in turn."""
    first, again, other = (made(["erasing"], seed=seed).strips[0].pictures[-1].caption for seed in (1, 1, 2))
    assert first == again != other
    grey = made(["brightness", "hflip"], images=PHOTO[:, :1])
    assert {picture.image.shape for strip in grey.strips for picture in strip.pictures} == {(32, 32)}
    assert not np.array_equal(grey.strips[0].pictures[0].image, grey.strips[1].pictures[0].image)
