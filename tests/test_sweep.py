"""The one loop: no circumstance but those stated changes a bit of an answer."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from neuronscope.data.dataset import Batch, Data, Pixels, data_from_arrays
from neuronscope.data.design import Design
from neuronscope.edits import drop
from neuronscope.errors import DataError, InputError
from neuronscope.hooks import edited
from neuronscope.maths.streams import ClassMoments, Confusion, Decisions, Each, Histogram, Moments, StackRows, TopK
from neuronscope.models.sources import subject_from
from neuronscope.preprocessing import Preprocess
from neuronscope.run import Run
from neuronscope.steps import Observe
from neuronscope.sweep import Shard, cut, estimate, planned, rounds, sweep, timed
from neuronscope.units import UnitSet

IMAGES, CLASSES = 83, 3


@pytest.fixture(scope="module")
def subject():
    """A small network with an in-place ReLU."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, CLASSES)
    )
    return subject_from(module, name="small", input_shape=(1, 8, 8), preprocess=Preprocess(channels=1))


@pytest.fixture(scope="module")
def data():
    """Random pictures with random labels, some unknown; a few pictures twice, so that values tie."""
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (IMAGES, 1, 8, 8), dtype=np.uint8))
    pixels[40:50] = pixels[:10]
    return data_from_arrays(pixels, rng.integers(-1, CLASSES, IMAGES), name="noise", classes="abc")


def observation(subject):
    """A step and a reducer with everything a study takes."""
    step = Observe(subject.layers, measures=("mean", "max"))
    reducer = Each(
        moments=Moments("mean"),
        by_class=ClassMoments("mean", classes=CLASSES),
        top=TopK("max", 5, where="max_at"),
        histogram=Histogram("mean"),
        confusion=Confusion("logits", classes=CLASSES),
        decisions=Decisions("logits"),
        rows=StackRows("mean"),
    )
    return step, reducer


def identical(one, other):
    """Equal in every bit."""
    if dataclasses.is_dataclass(one):
        return all(identical(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(identical(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return one == other


@dataclass(frozen=True)
class Disorderly:
    """An executor that works and yields the shards in another order."""

    seed: int
    inside: bool = True
    threads: int | None = None

    def work(self, function, shared, tasks):
        """Yield answers in the order of arrival."""
        order = random.Random(self.seed).sample(range(len(tasks)), len(tasks))  # noqa: S311 not for secrets
        for position in order if self.seed else reversed(range(len(tasks))):
            yield position, function(shared, tasks[position])


def quiet(**options):
    """A run on the processor."""
    return Run(device="cpu", **{"batch_size": 4, "workers": 1, "threads": 1, **options})


@pytest.mark.parametrize("executor", [Disorderly(0), Disorderly(1), Disorderly(2), None])
@pytest.mark.parametrize("workers", [1, 3])
def test_order_of_shards_and_number_of_workers_change_no_bit(subject, data, executor, workers):
    """Shards worked backwards or at random, images decoded by one thread or three: the same bits."""
    step, reducer = observation(subject)
    expected = sweep(subject, data, step, reducer, run=quiet())
    options = {"workers": workers, **({"executor": executor} if executor else {})}
    assert identical(sweep(subject, data, step, reducer, run=quiet(**options)), expected)
    assert expected.images == IMAGES
    assert expected.skipped == ()


def test_a_sweep_is_the_network_applied_to_all_images(subject, data):
    """The rows are what one pass over one batch of all images gives, to 1e-5 of each layer's maximum."""
    step, reducer = observation(subject)
    found = sweep(subject, data, step, reducer, run=quiet())
    image = subject.preprocess.batch(data.pixels)
    whole = step(subject.module, Batch(torch.arange(IMAGES), image, torch.from_numpy(data.labels)))
    assert found.answer["rows"].index.tolist() == list(range(IMAGES))
    np.testing.assert_allclose(found.answer["rows"].values, whole["mean"].numpy(), atol=1e-5)
    assert (found.answer["decisions"].predicted == whole["logits"].argmax(1).numpy()).all()


@pytest.mark.parametrize("batch_size", [1, 7, 32, 83, 200])
def test_other_batch_sizes_agree_within_the_stated_tolerance(subject, data, batch_size):
    """Means differ by at most 1e-5 of the layer's largest activation; counts are equal."""
    step, reducer = observation(subject)
    one = sweep(subject, data, step, reducer, run=quiet()).answer
    other = sweep(subject, data, step, reducer, run=quiet(batch_size=batch_size)).answer
    largest = np.nanmax(np.abs(one["top"].value))
    for name in ("moments", "by_class"):
        np.testing.assert_allclose(one[name].mean, other[name].mean, atol=1e-5 * largest)
        assert (one[name].count == other[name].count).all()
    np.testing.assert_allclose(one["rows"].values, other["rows"].values, atol=1e-5 * largest)
    assert one["confusion"].sum() == other["confusion"].sum() == (data.labels >= 0).sum()


def test_ties_go_to_the_earlier_image(subject, data):
    """Rows 40 to 49 are copies of rows 0 to 9: in every list the original stands before the copy."""
    step, _ = observation(subject)
    top = sweep(subject, data, step, TopK("max", IMAGES, where="max_at"), run=quiet(executor=Disorderly(3))).answer
    for unit in range(top.index.shape[1]):
        place = {int(row): rank for rank, row in enumerate(top.index[:, unit])}
        assert all(place[row] < place[row + 40] for row in range(10))


@dataclass(frozen=True)
class Damaged:
    """A reader of images of which some cannot be read."""

    pixels: Pixels
    broken: frozenset = field(default_factory=frozenset)

    def __call__(self, row: int) -> torch.Tensor:
        """Raw pixels."""
        if row in self.broken:
            message = f"image {row} is torn"
            raise DataError(message)
        return self.pixels(row)


def damaged(data, broken, on_error="skip"):
    """The data with images that cannot be read."""
    return replace(data, pixels=None, read=Damaged(data.read, frozenset(broken)), on_error=on_error)


@pytest.mark.parametrize("broken", [{0, 17, 82}, set(range(16, 40)), set(range(32)), set(range(60, 83))])
@pytest.mark.parametrize("executor", [Disorderly(0), Disorderly(5)])
def test_unreadable_images_are_left_out_and_reported(subject, data, broken, executor):
    """The answer is that of the other images; row and cause of each are told in order; whole shards may fall out."""
    step, reducer = observation(subject)
    found = sweep(subject, damaged(data, broken), step, reducer, run=quiet(executor=executor))
    assert found.skipped == tuple((row, f"image {row} is torn") for row in sorted(broken))
    assert found.images == IMAGES - len(broken)
    good = [row for row in range(IMAGES) if row not in broken]
    expected = sweep(subject, data.take(good), step, reducer, run=quiet()).answer
    assert found.answer["rows"].index.tolist() == good
    np.testing.assert_allclose(found.answer["moments"].mean, expected["moments"].mean, atol=1e-6)
    assert set(found.answer["top"].index.ravel()) <= set(good)
    np.testing.assert_allclose(found.answer["top"].value, expected["top"].value, atol=1e-6)
    assert (found.answer["histogram"].counts.sum(1) == len(good)).all()


def test_an_unreadable_image_stops_the_sweep_unless_told_otherwise(subject, data):
    """By default the cause is raised, and nothing of the sweep stays in the network."""
    step, reducer = observation(subject)
    before = subject.module(torch.zeros(1, 1, 8, 8))
    with pytest.raises(DataError, match="image 17 is torn"):
        sweep(subject, damaged(data, {17}, "raise"), step, reducer, run=quiet())
    assert torch.equal(subject.module(torch.zeros(1, 1, 8, 8)), before)
    assert not any(part._forward_hooks for part in subject.module.modules())


def test_data_without_a_readable_image_is_refused(subject, data):
    """Empty data and data of which nothing can be read are errors, not empty answers."""
    step, reducer = observation(subject)
    with pytest.raises(InputError, match="none of the 83 images"):
        sweep(subject, damaged(data, range(IMAGES)), step, reducer, run=quiet())
    with pytest.raises(InputError, match="holds no images"):
        sweep(subject, data.take([]), step, reducer, run=quiet())


def test_a_broken_unit_does_not_spread(subject, data):
    """A unit that gives infinity is nan in the answer; the other units of the layer have the numbers they had."""
    step = Observe((subject.layer("0"),))
    expected = sweep(subject, data, step, Moments("mean"), run=quiet()).answer
    torch.manual_seed(0)
    module = nn.Sequential(*subject.module)
    broken = subject_from(module, name="small", input_shape=(1, 8, 8), preprocess=subject.preprocess)
    kept = module[0].bias.data.clone()
    try:
        module[0].bias.data[1] = torch.inf
        found = sweep(broken, data, step, Moments("mean"), run=quiet()).answer
    finally:
        module[0].bias.data = kept
    assert found.nonfinite.tolist() == [0, IMAGES, 0, 0]
    assert np.isnan(found.mean[1])
    assert (found.mean[[0, 2, 3]] == expected.mean[[0, 2, 3]]).all()


def test_a_sweep_of_the_edited_network(subject, data):
    """Edits around a sweep hold for every batch of it."""
    step = Observe((subject.layer("1"),))
    with edited(subject, [drop(UnitSet("1", 4, (2,)))]):
        found = sweep(subject, data, step, Moments("mean"), run=quiet()).answer
    assert found.high[2] == 0
    assert found.high[1] > 0


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(0, 2**36))
def test_shards_cover_the_data_and_hold_whole_batches(images, batch_size, state):
    """Consecutive, without gap, cut at multiples of the batch size, at most 64, never more for larger states."""
    shards = cut(images, batch_size=batch_size, state=state)
    assert shards[0].first == 0
    assert shards[-1].last == images
    assert all(a.last == b.first for a, b in pairwise(shards))
    assert all(shard.first % batch_size == 0 and shard.first < shard.last for shard in shards)
    assert len(shards) <= 64
    assert len(shards) <= len(cut(images, batch_size=batch_size, state=state // 2))


def test_known_shards():
    """A hundred images in batches of ten: four batches to a shard."""
    assert cut(100, batch_size=10, state=0) == (Shard(0, 40), Shard(40, 80), Shard(80, 100))


@dataclass
class Listener:
    """Notes what a sweep tells."""

    told: list = field(default_factory=list)

    def start(self, name: str, total: int) -> None:
        """A sweep begins."""
        self.told.append((name, total))

    def advance(self, images: int) -> None:
        """Images are done."""
        self.told.append(images)

    def finish(self) -> None:
        """It has ended."""
        self.told.append("finish")


def test_progress_tells_name_images_and_end(subject, data):
    """The images add up to the total, and the end is told after an error as well."""
    step, reducer = observation(subject)
    listener = Listener()
    sweep(subject, data, step, reducer, run=quiet(progress=listener), name="observe")
    assert listener.told[0] == ("observe", IMAGES)
    assert sum(listener.told[1:-1]) == IMAGES
    assert listener.told[-1] == "finish"
    with pytest.raises(DataError):
        sweep(subject, damaged(data, {0}, "raise"), step, reducer, run=quiet(progress=listener))
    assert listener.told[-1] == "finish"


def test_a_plan_says_what_a_sweep_will_cost(subject, data):
    """Passes are counted in images, memory covers state and activations, the time is measured."""
    step, reducer = observation(subject)
    one = planned(subject, data, step, reducer, run=quiet(), name="observe")
    assert (one.name, one.images, one.forward, one.backward) == ("observe", IMAGES, IMAGES, 0)
    assert one.working >= 4 * 4 * (4 * 36 + 4 * 36)
    assert timed(subject, data, step, run=quiet()) > 0
    plan = estimate(subject, data, [(one, step)], run=quiet())
    assert plan.seconds > 0
    assert plan.memory == one.state + one.working


def test_a_sweep_beyond_the_memory_of_the_run_is_refused_before_it_starts(subject, data):
    """With exactly the room that is planned it runs; with a byte less no image is read, and the message has numbers."""
    step, reducer = observation(subject)
    one = planned(subject, data, step, reducer, run=quiet(), name="observe")
    room = one.state + one.working
    unreadable = damaged(data, range(IMAGES), on_error="raise")
    bounded = sweep(subject, data, step, reducer, run=quiet(memory=room), name="observe")
    assert identical(bounded, sweep(subject, data, step, reducer, run=quiet(), name="observe"))
    with pytest.raises(InputError, match=r"sweep 'observe' over 83 images needs [0-9.]+ MiB .*lower --batch-size"):
        sweep(subject, unreadable, step, reducer, run=quiet(memory=room - 1), name="observe")
    needs = planned(subject, data, step, reducer, run=quiet(batch_size=8), name="observe")
    assert needs.working == 2 * one.working


@dataclass(frozen=True)
class WithParameters:
    """A step that passes the parameters of each row on."""

    def __call__(self, _model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Parameters, and the pictures' sums to tell them by."""
        assert len(batch.index) % 3 == 0
        pictures = batch.image.double().sum((1, 2, 3))[:, None].float()
        return {"index": batch.index, "label": batch.label, "p": torch.cat([batch.parameters, pictures], 1)}

    def shapes(self, _outputs: int) -> dict[str, tuple[int, ...]]:
        """Two parameters and a sum."""
        return {"p": (3,)}

    @property
    def passes(self) -> tuple[int, int]:
        """None."""
        return (0, 0)


@pytest.mark.parametrize("executor", [Disorderly(0), Disorderly(4)])
def test_a_design_is_swept_in_whole_blocks(subject, data, executor):
    """Each row meets its own picture and its own parameters; a batch of 16 holds five whole blocks of 3."""
    rng = np.random.default_rng(1)
    image_row, parameters = np.repeat(rng.integers(0, IMAGES, 20), 3), rng.random((60, 2))
    design = Design(data, image_row, parameters, block=3)
    found = sweep(
        subject, design, WithParameters(), StackRows("p"), run=quiet(batch_size=16, executor=executor, workers=2)
    )
    assert found.images == 60
    assert found.answer.index.tolist() == list(range(60))
    np.testing.assert_array_equal(found.answer.values[:, :2], parameters.astype(np.float32))
    sums = subject.preprocess.batch(data.pixels).double().sum((1, 2, 3)).float().numpy()
    np.testing.assert_allclose(found.answer.values[:, 2], sums[image_row], rtol=1e-6)
    assert (found.answer.label == data.labels[image_row]).all()


def test_rounds_go_on_until_the_plan_is_empty():
    """The plan sees the round and the merged state; what it planned before the end is worked once each."""
    seen = []

    def plan(number, state):
        seen.append((number, None if state is None else state["n"]))
        return None if number == 3 else number + 1

    found = rounds(plan, lambda n: {"n": n}, lambda a, b: {"n": a["n"] + b["n"]})
    assert found == {"n": 6}
    assert seen == [(0, None), (1, 1), (2, 3), (3, 6)]
    assert rounds(lambda _number, _state: None, lambda n: {"n": n}, lambda a, _b: a) is None


def test_data_fixture_is_a_data_set(data):
    """The made-up images have the type that sweeps take."""
    assert isinstance(data, Data)
