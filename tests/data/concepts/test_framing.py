"""Masks cover exactly what the network sees."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.data.concepts import WHOLE, Framing, framing_of, squashed
from neuronscope.preprocessing import Preprocess

SIZES = st.integers(5, 40)


@given(height=SIZES, width=SIZES, resize=st.none() | SIZES | st.tuples(SIZES, SIZES), crop=st.tuples(SIZES, SIZES),
       seed=st.integers(0, 99))  # fmt: skip
def test_masks_are_cut_as_the_preprocessing_cuts_images(height, width, resize, crop, seed):
    """Where a preprocessed picture of a mask is still pure black or white, the framed mask says the same."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), dtype=np.int32)
    y, x = rng.integers(0, height), rng.integers(0, width)
    mask[y : y + 1 + rng.integers(height), x : x + 1 + rng.integers(width)] = 1
    prepare = Preprocess(channels=1, resize=resize, crop=crop)
    picture = torch.from_numpy(mask.astype(np.uint8) * 255)[None]
    seen = prepare.frame(picture)[0].numpy()
    framed = framing_of(prepare).fit(mask[None], side=crop)[0]
    assert (framed[seen == 255] == 1).all()
    assert (framed[seen == 0] == 0).all()


@given(height=SIZES, width=SIZES, side=st.tuples(SIZES, SIZES))
def test_nearest_neighbour_takes_the_pixel_under_the_centre(height, width, side):
    """The rule written out with fractions of a pixel."""
    maps = np.arange(height * width).reshape(1, height, width)
    fitted = WHOLE.fit(maps, side=side)[0]
    for i in range(side[0]):
        for j in range(side[1]):
            assert fitted[i, j] == maps[0, (2 * i + 1) * height // (2 * side[0]), (2 * j + 1) * width // (2 * side[1])]


def test_a_whole_number_of_times_larger_and_back_is_the_identity():
    """Enlarging by a factor and going back changes nothing."""
    maps = np.arange(12).reshape(1, 3, 4)
    assert (WHOLE.fit(WHOLE.fit(maps, side=(9, 20)), side=(3, 4)) == maps).all()


def test_padding_has_no_label():
    """A crop larger than the image pads; what is padded is unlabelled."""
    fitted = Framing(crop=(4, 4)).fit(np.full((1, 2, 2), 7), side=(4, 4))[0]
    assert fitted.tolist() == [[0, 0, 0, 0], [0, 7, 7, 0], [0, 7, 7, 0], [0, 0, 0, 0]]


def test_a_preprocessing_without_a_crop_shows_the_whole_image():
    """Only a crop takes something away; `squashed` takes the crop away."""
    prepare = Preprocess(resize=256, crop=(224, 224))
    assert framing_of(Preprocess(resize=(8, 9))) == framing_of(squashed(prepare)) == WHOLE
    assert squashed(prepare) == Preprocess(resize=(224, 224))
    picture = torch.zeros(3, 30, 50, dtype=torch.uint8)
    assert squashed(prepare).frame(picture).shape == (3, 224, 224)
