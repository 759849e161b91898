"""Parameters apart from their application: decoding, severity, and what is refused."""

import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neuronscope.augment import Augmentation, Parameter, augmentations, check_channels, decoded, severity
from neuronscope.checkpoint import digest
from neuronscope.errors import InputError

KNOWN = augmentations(40, 56)
NAMES = sorted(KNOWN)
STRENGTHS = [name for name in NAMES if KNOWN[name].parameters]
UNIT = st.floats(0, 1, exclude_max=True)


def unchanged(images, _):
    """An augmentation that does nothing."""
    return images


def one(parameter):
    """An augmentation of one parameter."""
    return Augmentation("one", (parameter,), unchanged, "nothing")


@given(unit=arrays(np.float64, (20, 1), elements=UNIT), low=st.integers(-50, 50), span=st.integers(1, 90))
def test_integers_stay_below_their_end(unit, low, span):
    """Whole numbers, from the lower end to just below the upper one, as the definition says."""
    values = decoded(one(Parameter("k", low, low + span, "integer")), unit)
    assert values.tolist() == [[min(np.floor(low + u * span), low + span - 1)] for u in unit[:, 0]]
    assert ((values >= low) & (values < low + span)).all()


def test_integers_have_equal_shares():
    """Each whole number of a range has the same part of 0 to 1."""
    values = decoded(one(Parameter("k", -3, 4, "integer")), (np.arange(7000)[:, None] + 0.5) / 7000)
    assert np.unique(values, return_counts=True)[1].tolist() == [1000] * 7


def test_continuous_parameters_are_linear():
    """Low at 0, high at 1, straight between; float32 designs decode in float64."""
    unit = np.array([[0.0], [0.25], [1.0]], dtype=np.float32)
    assert decoded(one(Parameter("angle", -10, 10)), unit).tolist() == [[-10.0], [-5.0], [10.0]]


def test_integers_may_stay_continuous():
    """The original's Sobol design leaves integers as they fall; the augmentation rounds them."""
    shift = one(Parameter("k", -4, 4, "integer"))
    assert decoded(shift, np.array([[0.3]]), integers="continuous")[0] == pytest.approx([-1.6])


@pytest.mark.parametrize("name", STRENGTHS)
def test_no_strength_is_no_change_and_full_strength_is_as_drawn(name):
    """Neutral values change no pixel by more than the resampling's rounding; strength 1 keeps all values."""
    augmentation, rng = KNOWN[name], np.random.default_rng(3)
    values = decoded(augmentation, rng.random((12, len(augmentation.parameters))))
    assert np.allclose(severity(augmentation, values, 1.0), values, rtol=0, atol=1e-12)
    images = torch.rand(12, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    changed = augmentation.apply(images, torch.from_numpy(severity(augmentation, values, 0.0)))
    # the rotation looks up places in float32: 1e-6 of 56 pixels
    assert (changed - images).abs().max() < (1e-4 if name == "rotation" else 1e-6)


def test_severity_moves_strengths_and_keeps_places():
    """Half of the way for what is a strength, whole numbers for integers, nothing for centres."""
    erasing, rolling = KNOWN["erasing"], KNOWN["rolling"]
    drawn = np.array([[11.0, 30.0, 0.2, -0.4]])
    assert severity(erasing, drawn, 0.5).tolist() == [[11.0, 30.0, 0.1, -0.4]]
    assert severity(rolling, np.array([[-7.0, 3.0]]), 0.5).tolist() == [[-4.0, 2.0]]
    assert severity(KNOWN["brightness"], np.array([[0.4]]), 0.5)[0] == pytest.approx([0.7])


@pytest.mark.parametrize("name", STRENGTHS)
def test_effects_grow_with_severity(name):
    """On a smooth image a stronger augmentation changes more, for every augmentation that has a strength."""
    augmentation = KNOWN[name]
    rng = np.random.default_rng(1)
    values = decoded(augmentation, rng.random((30, len(augmentation.parameters))))
    y, x = torch.meshgrid(torch.linspace(0, 3, 40), torch.linspace(0, 4, 56), indexing="ij")
    image = torch.stack([(y + x).sin(), (y - x).cos(), (x * y / 2).sin()]) / 2 + 0.5
    images = image.expand(30, -1, -1, -1)
    changes = [
        (augmentation.apply(images, torch.from_numpy(severity(augmentation, values, strength))) - images).abs().mean()
        for strength in (0.0, 0.3, 0.6, 1.0)
    ]
    assert changes == sorted(changes)
    assert changes[-1] > 1.5 * changes[1]


@pytest.mark.parametrize("name", NAMES)
def test_augmentations_travel_and_have_a_lasting_identity(name):
    """They can be pickled, print the same in every process, and enter the keys of checkpoints."""
    augmentation = KNOWN[name]
    sent = pickle.loads(pickle.dumps(augmentation))  # noqa: S301 our own
    assert sent == augmentation
    assert digest(sent) == digest(augmentation)
    assert " at 0x" not in repr(augmentation)
    wider = replace(augmentation, parameters=(*augmentation.parameters, Parameter("more", 0, 1)))
    assert digest(wider) != digest(augmentation)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Parameter("x", 1, 1), "'x' has no range: expected finite ends, the lower first, got 1 to 1"),
        (lambda: Parameter("x", 0, float("inf")), "no range"),
        (lambda: Parameter("x", 0.5, 3, "integer"), "'x' is an integer, but its range is 0.5 to 3"),
        (lambda: Augmentation("a", (Parameter("x", 0, 1),) * 2, unchanged, ""), "'a' has more than one parameter 'x'"),
        (lambda: decoded(KNOWN["hue"], np.zeros((3, 2))), "'hue' got 2 columns of parameters: expected 1 (turn)"),
        (lambda: decoded(KNOWN["hue"], np.array([[1.5]])), "expected numbers from 0 to 1, got 1.5"),
        (lambda: decoded(KNOWN["hue"], np.array([[np.nan]])), "expected numbers from 0 to 1, got nan"),
        (lambda: severity(KNOWN["hue"], np.zeros((3, 2)), 0.5), "expected 1 (turn)"),
        (lambda: severity(KNOWN["hue"], np.zeros((3, 1)), 1.5), "'hue' cannot have a strength of 1.5: expected 0"),
        (lambda: check_channels([KNOWN["hue"], KNOWN["hflip"]], 1), "hue cannot change images of 1 channel: expected"),
        (lambda: check_channels([*KNOWN.values()], 1), "grayscaling, saturation, hue cannot change"),
    ],
)
def test_what_cannot_be_is_refused(make, text):
    """The message says what is wrong, what was expected, what came and what to do."""
    with pytest.raises(InputError, match=re.escape(text)):
        make()


def test_grey_images_take_what_needs_no_colour():
    """All but three augmentations work on one channel."""
    grey = [augmentation for augmentation in KNOWN.values() if augmentation.colours == "any"]
    assert len(grey) == 9
    check_channels(grey, 1)
    images = torch.rand(2, 1, 40, 56)
    for augmentation in grey:
        values = decoded(augmentation, np.full((2, len(augmentation.parameters)), 0.9))
        assert augmentation.apply(images, torch.from_numpy(values)).shape == images.shape
