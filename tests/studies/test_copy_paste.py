"""Copy-paste examples: pasting, the original's grid, trials on one image, and the search for examples.

The network of these tests is planted: red pixels make class 1, green ones class 2, nothing else does anything.
"""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import neuronscope as ns
from neuronscope.data.pasting import (
    GREY,
    KINDS,
    Paste,
    Patch,
    Placement,
    cut_out,
    grey,
    grid_for,
    laid,
    opaque_pixels,
    pasted,
    pasted_data,
    scaled,
    shuffled,
    visible_share,
)
from neuronscope.maths.formulas import And, AndNot, Expanded, Label, Or
from neuronscope.studies.concepts import copy_paste
from neuronscope.studies.concepts.copy_paste import beats, copy_paste_examples, positive_labels
from neuronscope.studies.concepts.paste_grid import find_class, try_pastes
from neuronscope.studies.concepts.setting import settle

SIDE = 24
RED, BLUE, BAR = 1, 2, 3


def black(side: int = SIDE) -> torch.Tensor:
    """A colour image without light."""
    return torch.zeros(3, side, side, dtype=torch.uint8)


def square(side: int, channel: int) -> Patch:
    """A square of one full colour."""
    pixels = torch.zeros(3, side, side, dtype=torch.uint8)
    pixels[channel] = 255
    return Patch(pixels, torch.ones(side, side, dtype=torch.bool))


# --- pasting ----------------------------------------------------------------------------------------------------------


def test_the_grid_is_the_originals():
    """At 224 pixels: 216 placements, 36 for each side, offsets of the corner from -150 to 100 in steps of 50."""
    grid = grid_for(224)
    assert len(grid) == len(set(grid)) == 216
    assert sorted({one.side for one in grid}) == [73, 112, 168, 224, 336, 448]
    assert sorted({one.x for one in grid}) == sorted({one.y for one in grid}) == [-150, -100, -50, 0, 50, 100]
    assert all(sum(one.side == side for one in grid) == 36 for side in (73, 448))


def test_the_grid_scales_with_the_input():
    """At half the side everything is half as large and as far."""
    halves = {(one.x * 2, one.y * 2) for one in grid_for(112)}
    assert halves == {(one.x, one.y) for one in grid_for(224)}
    assert sorted({one.side for one in grid_for(112)}) == [36, 56, 84, 112, 168, 224]
    assert len(grid_for(1)) == 216
    with pytest.raises(ns.InputError, match="at least 1"):
        grid_for(0)


@given(
    x=st.integers(-12, 12), y=st.integers(-12, 12), side=st.integers(1, 12), seed=st.integers(0, 99), wide=st.booleans()
)
def test_pasting_is_its_definition(x, y, side, seed, wide):
    """Pixel by pixel: the scaled patch where it is opaque and inside, the image everywhere else."""
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 256, (3, 8, 9), dtype=np.uint8))
    shape = (5, 7) if wide else (7, 5)
    patch = Patch(
        torch.from_numpy(rng.integers(0, 256, (3, *shape), dtype=np.uint8)), torch.from_numpy(rng.random(shape) < 0.5)
    )
    before = image.clone()
    found = pasted(image, patch.pixels, patch.mask, x=x, y=y, side=side)
    small = scaled(patch, side=side)
    assert max(small.mask.shape) == side
    expected = image.clone()
    for row in range(small.mask.shape[0]):
        for column in range(small.mask.shape[1]):
            inside = 0 <= y + row < 8 and 0 <= x + column < 9
            if inside and small.mask[row, column]:
                expected[:, y + row, x + column] = small.pixels[:, row, column]
    assert torch.equal(found, expected)
    assert torch.equal(image, before)
    share = visible_share((8, 9), patch, Placement(x, y, side))
    assert np.isnan(share) if not small.area else 0 <= share <= 1


def test_a_patch_of_its_own_size_is_pasted_as_it_is():
    """Without a mask and at its own side nothing is resampled; outside of the image nothing is pasted."""
    rng = np.random.default_rng(0)
    patch = torch.from_numpy(rng.integers(0, 256, (3, 4, 4), dtype=np.uint8))
    assert torch.equal(pasted(black(6), patch, None, x=1, y=2, side=4)[:, 2:6, 1:5], patch)
    assert torch.equal(pasted(black(6), patch, None, x=-4, y=0, side=4), black(6))
    assert torch.equal(pasted(black(6), patch, None, x=6, y=6, side=4), black(6))


def test_what_stood_around_an_object_does_not_colour_its_edge():
    """A red disc on white stays red at every size: its colours are averaged over its own pixels."""
    y, x = np.mgrid[:20, :20]
    disc = torch.from_numpy((y - 10) ** 2 + (x - 10) ** 2 < 60)
    pixels = torch.full((3, 20, 20), 255, dtype=torch.uint8)
    pixels[1:, disc] = 0
    for side in (7, 13, 31):
        small = scaled(cut_out(pixels, disc), side=side)
        assert small.area > 0
        assert (small.pixels[0, small.mask] == 255).all()
        assert (small.pixels[1:, small.mask] == 0).all()


def test_controls_cover_the_same_pixels():
    """Shuffled pixels are the object's own in another order, grey ones are all equal; masks stay."""
    rng = np.random.default_rng(3)
    mask = torch.from_numpy(rng.random((6, 6)) < 0.5)
    patch = Patch(torch.from_numpy(rng.integers(0, 256, (3, 6, 6), dtype=np.uint8)), mask)
    mixed = shuffled(patch, rng=np.random.default_rng(1))
    assert torch.equal(mixed.mask, mask)
    assert sorted(map(tuple, mixed.pixels[:, mask].T.tolist())) == sorted(map(tuple, patch.pixels[:, mask].T.tolist()))
    assert torch.equal(mixed.pixels[:, ~mask], patch.pixels[:, ~mask])
    assert not torch.equal(mixed.pixels, patch.pixels)
    assert (grey(patch).pixels == GREY).all()
    assert torch.equal(laid(black(6), grey(patch), x=0, y=0)[0] == GREY, mask)


def test_an_object_is_cut_out_with_its_rectangle():
    """The smallest rectangle around the mask; masks of 0 and 1 or 0 and 255 mean the same."""
    picture = torch.zeros(1, 6, 8, dtype=torch.uint8)
    picture[0, 2:4, 3:7] = 255
    mask = opaque_pixels(picture)
    assert torch.equal(mask, opaque_pixels(picture // 255))
    patch = cut_out(torch.arange(48, dtype=torch.uint8).reshape(1, 6, 8), mask)
    assert patch.pixels[0, :, 0].tolist() == [19, 27]
    assert patch.area == 8


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cut_out(black(4), torch.zeros(4, 4, dtype=torch.bool)), "the mask is empty"),
        (lambda: cut_out(black(4), torch.ones(4, 5, dtype=torch.bool)), "4 x 5 pixels, its image 4 x 4"),
        (lambda: scaled(square(3, 0), side=0), "a longer side of 0"),
    ],
)
def test_patches_that_cannot_be(call, words):
    """A mask without pixels or of another size, and a patch scaled to nothing, are refused."""
    with pytest.raises(ns.InputError, match=words):
        call()


def test_pasted_pictures_are_made_when_asked_for():
    """Rows of a data set: the image alone, with an object, with a control; equal work has an equal fingerprint."""
    frames, patch = black()[None], square(4, 0)
    pastes = [Paste(0), *(Paste(0, 0, Placement(2, 3, 4), kind) for kind in KINDS)]
    data = pasted_data(frames, [patch], pastes, seed=1)
    assert torch.equal(data.read(0), frames[0])
    assert torch.equal(data.read(1), pasted(frames[0], patch.pixels, None, x=2, y=3, side=4))
    assert int(data.read(3).sum()) == GREY * 3 * 16
    assert data.fingerprint == pasted_data(frames, [patch], pastes, seed=1).fingerprint
    assert data.fingerprint != pasted_data(frames, [square(4, 1)], pastes, seed=1).fingerprint


# --- one object on one image ------------------------------------------------------------------------------------------


class Corners(nn.Module):
    """Class 1 for a red square of 6 x 6 pixels, class 2 for blue light, otherwise class 0."""

    def __init__(self) -> None:
        """Weights by hand."""
        super().__init__()
        self.look = nn.Conv2d(3, 2, 6)
        weight = torch.full((2, 3, 6, 6), -1.0)
        weight[0, 0] = weight[1, 2] = 1 / 36
        self.look.weight.data, self.look.bias.data = weight, torch.tensor([-0.8, -0.8])
        self.fire = nn.ReLU()
        self.head = nn.Linear(2, 3)
        self.head.weight.data = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 30.0]])
        self.head.bias.data = torch.tensor([1.0, 0.0, 0.0])

    def forward(self, x):
        """Logits: what the best place says."""
        return self.head(self.fire(self.look(x)).amax(dim=(2, 3)))


@pytest.fixture(scope="module")
def subject():
    """The planted network."""
    return ns.subject_from(
        Corners().eval(),
        name="planted",
        input_shape=(3, SIDE, SIDE),
        preprocess=ns.Preprocess(channels=3, mean=(), std=()),
        classes=("nothing", "red thing, red", "blue thing"),
    )


def ringed(channel: int) -> torch.Tensor:
    """An object that needs its form: a full square in a black frame, so that shuffled pixels are no square."""
    pixels = black(18)
    pixels[channel, 5:13, 5:13] = 255
    return pixels


def test_success_is_seen_against_controls(subject):
    """A red square in a black frame makes class 1 wherever it is inside; shuffled and grey it never does."""
    object_image = black()
    object_image[2, 8:16, 8:16] = 255  # its own picture is of class 2
    places = [Placement(0, 0, 18), Placement(3, 3, 18), Placement(100, 0, 18), Placement(0, 0, 4)]
    trials = try_pastes(
        subject, black(), cut_out(ringed(0)), object_image=object_image, placements=places, target=1,
        run=ns.Run(batch_size=4),
    )  # fmt: skip
    assert (trials.image_class, trials.object_class) == (0, 2)
    assert trials.outcomes("object") == ["success", "success", "failure", "failure"]
    assert trials.counts("object") == {"success": 2, "partial": 0, "failure": 2}
    assert trials.counts("object", side=18) == {"success": 2, "partial": 0, "failure": 1}
    assert trials.counts("shuffled")["success"] == trials.counts("grey")["success"] == 0
    share, low, high = trials.success("object")
    assert low < share == 0.5 < high
    assert trials.visible.tolist() == [1.0, 1.0, 0.0, 1.0]
    assert set(trials.ranked()[:2]) == {0, 1}
    assert trials.ranked()[-1] == 2
    table = trials.table()
    assert len(table) == 12
    assert table["predicted"].tolist()[:4] == [1, 1, 0, 0]
    assert table["target_probability"].between(0, 1).all()


def test_outcomes_follow_their_definition(subject):
    """Target: success. The image's or the object's own class: failure. Anything else: partial, also without target."""
    own = ringed(0)
    args = {"object_image": black(), "placements": [Placement(0, 0, 18)]}
    assert try_pastes(subject, black(), cut_out(own), target=2, **args).outcomes("object") == ["partial"]
    assert try_pastes(subject, black(), cut_out(own), **args).outcomes("object") == ["partial"]
    shown = {**args, "object_image": torch.nn.functional.pad(own, (3, 3, 3, 3))}
    assert try_pastes(subject, black(), cut_out(own), target=2, **shown).outcomes("object") == ["failure"]
    assert "target_logit" not in try_pastes(subject, black(), cut_out(own), **args).table()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": 0}, "sees 'nothing' in the image already"),
        ({"target": 7}, "class 7 is none of the 3 classes"),
        ({"placements": []}, "no place to paste at"),
        ({"object_image": black(30)}, "30x30 pixels .* takes 24x24"),
    ],
)
def test_trials_that_cannot_be(subject, changes, words):
    """A target that is there already or no class, no place, and pictures that nothing resizes."""
    asked = {"object_image": black(), "placements": [Placement(0, 0, 18)], **changes}
    with pytest.raises(ns.InputError, match=words):
        try_pastes(subject, black(), cut_out(ringed(0)), **asked)


def test_classes_by_name_number_or_part(subject):
    """A whole name, a number, one of several names; the nearest are offered for others."""
    assert [find_class(subject, text) for text in ("blue thing", "1", "Red", "red thing, red")] == [2, 1, 1, 1]
    with pytest.raises(ns.UnknownName, match="Closest: 'blue thing'"):
        find_class(subject, "blue thin")
    with pytest.raises(ns.UnknownName, match="none of the 3 classes"):
        find_class(subject, "3")


# --- the search -------------------------------------------------------------------------------------------------------


def test_positive_labels():
    """What is behind AND NOT is not asked for; what is behind two of them is."""
    assert positive_labels(And(Or(Label(1), Expanded(2)), Label(3))) == {1, 2, 3}
    assert positive_labels(AndNot(Label(1), Or(Label(2), AndNot(Label(3), Label(4))))) == {1, 4}


def test_beats_is_the_binomial_tail():
    """Gains against losses, one-sided; nothing gained says nothing."""
    yes, no = np.ones(6, dtype=bool), np.zeros(6, dtype=bool)
    assert beats(yes, no) == pytest.approx(0.5**6)
    assert beats(no, yes) == beats(yes, yes) == beats(no, no) == 1.0
    mixed = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
    assert beats(mixed, ~mixed) == pytest.approx(42 / 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images with red squares, blue squares, both, grey bars, and with nothing."""
    root = tmp_path_factory.mktemp("concepts")
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir()
    mixed = range(1, 60, 8)
    for number in range(60):
        image = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
        labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
        kind = number % 4
        if kind in (RED, BLUE):
            top, left = rng.integers(0, SIDE - 12, size=2)
            left = 12 * (number % 3 == 0) if number in mixed else left
            # A frame of darkness belongs to the concept, so that its shuffled pixels make no square.
            labels[top : top + 12, left : left + 12] = kind
            image[top + 2 : top + 10, left + 2 : left + 10, 0 if kind == RED else 2] = 255
            if number in mixed:  # and in the free half stands the other concept, which the network prefers
                free = 0 if left >= 12 else 12
                labels[top : top + 12, free : free + 12] = BLUE
                image[top + 2 : top + 10, free + 2 : free + 10, 2] = 255
        elif kind == BAR:
            top = rng.integers(0, SIDE - 6)
            labels[top : top + 6] = BAR
            image[top : top + 6] = 90
        Image.fromarray(image).save(root / "images" / f"{number:02d}.png")
        Image.fromarray(labels).save(root / "masks" / f"{number:02d}.png")
    lines = ["number,name,category", "1,red square,colour", "2,blue square,colour", "3,bar,material"]
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def setting(folder, subject):
    """The study before it starts."""
    spec = ns.ConceptsSpec(concepts=(f"labelmaps:{folder}",), side=SIDE, layers=("fire",), draws=0)
    return settle(subject, ns.concept_images(spec), spec, ns.Run(seed=0, batch_size=64))


HELPS = np.array([[0, 0], [1, 0], [0, 1]], dtype=np.int8)
"""Unit 0 helps class 1, unit 1 class 2."""


def found_with(setting, formulas, *, contributor=HELPS, **options):
    """Examples for the planted layer."""
    layer = setting.subject.layer("fire")
    return copy_paste_examples(setting, layer, formulas, contributor, **{"examples": 3, **options})


def test_the_planted_example_is_found(setting):
    """Images seen as nothing become the red thing with a red square; controls change none of them."""
    found = found_with(setting, [Label(RED), None], first=10)
    first = found.isel(example=0)
    assert (str(first["class_to"].values), str(first["concept"].values)) == ("red thing, red", "red square")
    assert str(first["class_from"].values) == "nothing"
    assert int(first["unit"]) == 10
    assert int(first["successes"]) == int(first["trials"]) >= 6
    assert float(first["low"]) > 0.6
    assert int(first["shuffled_successes"]) == int(first["other_successes"]) == int(first["control_successes"]) == 0
    assert int(first["control_trials"]) == int(first["trials"])
    assert float(first["control_high"]) < 0.5
    assert float(first["grid_shuffled"]) == 0 < float(first["grid_own"]) <= 1
    assert float(first["q"]) < 0.05
    assert int(first["region_row"]) in setting.searched
    assert int(first["frame_row"]) in setting.reported
    assert str(first["predicted"].values) == "red thing, red"
    assert float(first["probability"]) > 0.5
    assert found.attrs["layer"] == "fire"
    # The picture holds the square, and the same image without it does not.
    assert first["frame"].dtype == np.uint8
    assert first["frame"].values[..., 0].max() > 200 > first["before"].values[..., 0].max()


def test_what_is_no_wonder_is_told(setting):
    """A region is preferably cut from a picture that is not of class b; where there is no such picture, it says so."""
    first = found_with(setting, [Label(RED), None], examples=1).isel(example=0)
    assert (int(first["adversarial"]), str(first["region_class"].values)) == (1, "blue thing")
    blue = found_with(setting, [None, Label(BLUE)], examples=1).isel(example=0)
    assert (int(blue["adversarial"]), str(blue["region_class"].values)) == (0, "blue thing")
    assert int(blue["successes"]) == int(blue["trials"])


def test_a_concept_that_does_nothing_beats_no_control(setting):
    """A bar can cover what hid the red thing, but so can its shuffled pixels: the dataset says that this is nothing."""
    found = found_with(setting, [Label(BAR), None])
    np.testing.assert_array_equal(found["successes"], found["control_successes"])
    assert (found["successes"].values < found["trials"].values / 2).all()
    assert (found["q"].values == 1).all()


def test_examples_repeat(setting):
    """The same seed gives the same examples."""
    formulas = [Or(Label(RED), Label(BAR)), Label(BLUE)]
    first, again = (found_with(setting, formulas, strength=HELPS.astype(float), examples=2) for _ in range(2))
    assert first.identical(again)
    assert first.sizes["example"] == 2
    assert list(first["adversarial"].values) == sorted(first["adversarial"].values, reverse=True)


def test_other_images_can_be_pasted_onto(setting):
    """Labelled data in place of the concepts' own images; a few classes pooled where none is seen often enough."""
    pixels = torch.randint(0, 60, (40, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = ns.data_from_arrays(pixels, np.full(40, -1), name="noise", classes=())
    found = found_with(setting, [Label(RED), None], data_labelled=data, examples=1)
    assert int(found["trials"][0]) == 20
    assert int(found["successes"][0]) > 18


def test_rare_classes_are_asked_together(setting, monkeypatch):
    """Where no single class has enough images, class a is any that the unit does not help."""
    monkeypatch.setattr(copy_paste, "LEAST_REPORTED", 21)
    found = found_with(setting, [Label(RED), None], examples=1)
    assert (int(found["class_from_number"][0]), str(found["class_from"].values[0])) == (-1, "any other")
    monkeypatch.setattr(copy_paste, "LEAST_REPORTED", 1000)
    assert found_with(setting, [Label(RED), None]) is None


@pytest.mark.parametrize(
    ("formulas", "options", "words"),
    [
        ([None, None], {}, "no unit that helps a class has a concept of pixels"),
        ([AndNot(Expanded(9), Label(RED)), None], {}, "no unit that helps a class has a concept of pixels"),
        ([Label(RED), None], {"contributor": -HELPS}, "no unit that helps a class has a concept of pixels"),
        ([Label(RED), None], {"examples": 0}, "none were asked for"),
    ],
)
def test_nothing_to_try(setting, caplog, formulas, options, words):
    """No formula, no positive concept, no helping unit: None, and the log says why."""
    with caplog.at_level(logging.INFO, logger="neuronscope"):
        assert found_with(setting, formulas, **options) is None
    assert words in caplog.text
