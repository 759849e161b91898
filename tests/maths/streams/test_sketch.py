"""The originals' sketch: as good as was measured, repeatable to the bit, and not to be merged."""

import numpy as np
import pytest
import torch

from neuronscope.checkpoint import decode, encode
from neuronscope.errors import InputError
from neuronscope.maths.streams import SketchQuantile, state_bytes

IMAGES, CELLS = 22_210, 49  # the labelled images of the originals, positions of their maps


@pytest.fixture(scope="module")
def maps():
    """Two units with the skewed activations of a rectified layer, at the originals' size."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.gamma(0.6, 1, (IMAGES, 2, 7, 7)).astype(np.float32))


def sketched(sketch, maps, *, batch=64, state=None):
    """The state after all batches."""
    state = sketch.start() if state is None else state
    for first in range(0, len(maps), batch):
        state = sketch.add(state, {"x": maps[first : first + batch]})
    return state


def same(one, other):
    """Equal in every bit."""
    return encode(one) == encode(other)


def test_the_error_is_that_of_the_originals(maps):
    """At their size 0.4956 to 0.5092 % lie above a threshold meant for 0.5 % (specified), 0.5005 % being exact."""
    sketch = SketchQuantile("x", 0.005)
    state = sketched(sketch, maps)
    above = (maps > torch.from_numpy(sketch.finish(state))[:, None, None]).double().mean((0, 2, 3)).numpy()
    assert ((above > 0.004956) & (above < 0.005092)).all()
    weight = sum(count * 2**level for level, count in enumerate(state["filled"].tolist()))
    assert weight == pytest.approx(IMAGES * CELLS, rel=1e-3)
    assert state_bytes(state) <= sketch.size({"x": (2, 7, 7)}) + 256


def test_few_values_are_read_exactly():
    """Before the first buffer is full nothing is lost: the quantile 994 / 999 by linear interpolation."""
    values = np.random.default_rng(1).standard_normal((500, 2)).astype(np.float32)
    sketch = SketchQuantile("x", 0.005)
    found = sketch.finish(sketched(sketch, torch.from_numpy(values)))
    # each value stands for the stretch around it and the extremes are kept once more, at the ends
    places = np.concatenate([[0], (np.arange(500) + 0.5) / 500, [1]])
    ordered = np.sort(values, axis=0)
    wanted = [np.interp(994 / 999, places, [unit[0], *unit, unit[-1]]) for unit in ordered.T.astype(float)]
    assert np.allclose(found, wanted, rtol=1e-12)


def test_one_state_of_all_images_is_repeatable_whatever_the_batches(maps):
    """The same images give the same bits, in batches of 64 or of another size, and a unit alone those of all units."""
    some, sketch = maps[:3000], SketchQuantile("x", 0.005)
    whole = sketched(sketch, some)
    assert same(whole, sketched(sketch, some))
    assert same(whole, sketched(sketch, some, batch=1000))
    assert sketch.finish(sketched(sketch, some[:, 1:]))[0] == sketch.finish(whole)[1]


def test_a_killed_run_resumes_to_the_same_bits(maps):
    """A state written to a checkpoint and read again goes on as if nothing had happened, random choices included."""
    some, sketch = maps[:3000], SketchQuantile("x", 0.005)
    whole = sketched(sketch, some)
    kept = decode(encode(sketched(sketch, some[:1600])))
    assert int(kept["drawn"]) > 0
    assert same(sketched(sketch, some[1600:], state=kept), whole)


def test_two_parts_do_not_merge():
    """The rule depends on the order of the images; a stretch without images is harmless."""
    sketch = SketchQuantile("x", 0.1)
    state = sketched(sketch, torch.arange(6.0)[:, None])
    assert sketch.merge(state, sketch.start()) is state
    assert sketch.merge(sketch.start(), state) is state
    with pytest.raises(InputError, match="in one process"):
        sketch.merge(state, sketched(sketch, torch.arange(6.0)[:, None]))


def test_units_that_are_not_finite_have_no_threshold():
    """NaN or infinity in a unit makes its threshold nan, and that of no other; a dead unit's is 0."""
    sketch = SketchQuantile("x", 0.1)
    values = torch.tensor([[1.0, torch.nan, 0.0, torch.inf], [2.0, 1.0, 0.0, 1.0]])
    assert np.isnan(sketch.finish(sketched(sketch, values))).tolist() == [False, True, False, True]
    assert sketch.finish(sketched(sketch, values))[2] == 0


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_shares_that_mean_nothing_are_refused(fraction):
    """Nothing or everything above a threshold is not a quantile."""
    with pytest.raises(InputError, match="share of"):
        SketchQuantile("x", fraction)
