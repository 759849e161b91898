"""Further analyses of the concepts study: contributions between layers, accuracy when firing, similarity of units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import nn

import neuronscope as ns
from neuronscope.data.dataset import data_from_arrays
from neuronscope.errors import InputError
from neuronscope.maths.signatures import assemble, image_signatures
from neuronscope.studies.concepts import accuracy as accuracy_module
from neuronscope.studies.concepts.accuracy import accuracy_when_firing, labelled_images, targets_of
from neuronscope.studies.concepts.contributions import (
    LayerThresholds,
    contributions,
    contributors,
    output_layer,
    weights_between,
)
from neuronscope.studies.concepts.setting import settle
from neuronscope.studies.concepts.similarity import activation_correlations, similarity

SIDE = 12
IMAGES = 160

FIRST = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
"""Units of the first layer by colour."""

SECOND = [[0.5, 0, 0], [-0.5, 0, 0], [0, 0.5, 0], [0.25, 0.25, 0]]
"""Units of the second by those of the first; blue leads nowhere."""

LAST = [[1.0, -1.0, 0, 0], [0, 0, 1.0, 0], [-0.5, 0, 0, 0.5]]
"""Classes by units of the second layer."""


def smooth(rng, size):
    """Noise whose neighbours are alike, 0 to 255; each image and colour for itself."""
    coarse = rng.integers(0, 256, size=(size, 3, 3, 3)).astype(np.uint8)
    return coarse.repeat(SIDE // 3, axis=1).repeat(SIDE // 3, axis=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images with unrelated colours, and masks that say little."""
    root = tmp_path_factory.mktemp("analyses")
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir()
    for number, image in enumerate(smooth(rng, IMAGES)):
        labels = (image[..., 0] > 127).astype(np.uint8) + 1
        Image.fromarray(image).save(root / "images" / f"{number:03d}.png")
        Image.fromarray(labels).save(root / "masks" / f"{number:03d}.png")
    (root / "labels.csv").write_text("number,name,category\n1,dark,tone\n2,light,tone\n", encoding="utf-8")
    return root


def convolution(weights, *, side, stride=1):
    """A convolution whose kernels are constant over space and add up to side squared times the weights."""
    table = torch.tensor(weights, dtype=torch.float32)
    conv = nn.Conv2d(table.shape[1], table.shape[0], side, padding=side // 2, stride=stride, bias=False)
    conv.weight.data = table[:, :, None, None].repeat(1, 1, side, side)
    return conv


@pytest.fixture(scope="module")
def setting(folder):
    """A settled study of a network with known weights: 12 x 12 maps, 6 x 6 maps, their means, three classes."""
    last = nn.Linear(4, 3, bias=False)
    last.weight.data = torch.tensor(LAST)
    second = convolution(SECOND, side=1, stride=2)
    second.bias = nn.Parameter(torch.tensor([0.0, 0.6, 0.0, 0.0]))
    module = nn.Sequential(
        convolution(FIRST, side=1), nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last
    ).eval()
    subject = ns.subject_from(
        module,
        name="planted",
        input_shape=(3, SIDE, SIDE),
        preprocess=ns.Preprocess(channels=3, mean=(), std=()),
    )
    spec = ns.ConceptsSpec(concepts=(f"labelmaps:{folder}",), side=SIDE, layers=("1", "3"), quantile=0.1)
    return settle(subject, ns.concept_images(spec), spec, ns.Run(seed=0, batch_size=16, threads=1))


@pytest.fixture(scope="module")
def explained(setting):
    """Both layers with thresholds; the last unit of the second never fires."""
    one, other = setting.layers
    return [
        LayerThresholds(one, np.array([0.7, 0.8, 0.6])),
        LayerThresholds(other, np.array([0.3, 0.4, 0.45, np.nan])),
    ]


@pytest.fixture(scope="module")
def seen(setting):
    """Maps of both layers and logits of the images reported, kept whole."""
    module, prepare = setting.subject.module, setting.subject.preprocess
    images = setting.concepts.images.take(setting.reported)
    with torch.inference_mode():
        batch = prepare.batch([images.read(row) for row in range(len(images))])
        first = module[:2](batch)
        second = module[2:4](first)
        return first.double().numpy(), second.double().numpy(), module[4:](second).double().numpy()


@pytest.fixture(scope="module")
def parts(setting, explained):
    """The contributions that the tests look at."""
    return contributions(setting, explained[::-1])


def columns_of(maps):
    """Maps as (unit, cells of all images)."""
    return np.moveaxis(maps, 1, 0).reshape(maps.shape[1], -1)


def blocks_of(maps):
    """12 x 12 maps as blocks of 2 x 2 cells."""
    n, units = maps.shape[:2]
    return maps.reshape(n, units, 6, 2, 6, 2)


def test_parts_are_named_and_ordered(parts, setting):
    """One part for the second layer, one for the classes, whatever order the layers came in."""
    assert list(parts) == ["contributions_3", "contributions_classes"]
    assert parts["contributions_3"].attrs["by"] == "1"
    assert parts["contributions_3"].attrs["images"] == len(setting.reported)
    assert parts["contributions_classes"]["of_name"].to_numpy().tolist() == list(setting.subject.classes)
    assert parts["contributions_classes"]["by_name"].to_numpy()[1] == "3:1"


def test_weights_are_those_of_the_network(parts):
    """The mean of a kernel over space; the classifier's own weights through the pooling."""
    assert parts["contributions_3"]["weight"].to_numpy() == pytest.approx(np.array(SECOND))
    assert parts["contributions_classes"]["weight"].to_numpy() == pytest.approx(np.array(LAST))


def test_correlations_are_those_of_the_maps(parts, seen):
    """Cells against means of 2 x 2 blocks; means of maps against logits."""
    first, second, logits = seen
    pooled = columns_of(blocks_of(first).mean((3, 5)))
    expected = np.corrcoef(columns_of(second), pooled)[:4, 4:]
    assert parts["contributions_3"]["correlation"].to_numpy() == pytest.approx(expected, abs=1e-5)
    expected = np.corrcoef(logits.T, second.mean((2, 3)).T)[:3, 3:]
    assert parts["contributions_classes"]["correlation"].to_numpy() == pytest.approx(expected, abs=1e-5)


def test_planted_contributions_rank_first_and_the_others_cannot_be_told_from_0(parts):
    """Colours that make a unit up are above all others, with a small q; unrelated colours have none."""
    part = parts["contributions_3"]
    weight = np.array(SECOND)
    correlation, q = part["correlation"].to_numpy(), part["q"].to_numpy()
    assert (q[weight != 0] < 0.001).all()
    assert (q[weight == 0] > 0.05).mean() > 0.8
    assert (np.sign(correlation[weight != 0]) == np.sign(weight[weight != 0])).all()
    assert np.abs(correlation[weight != 0]).min() > np.abs(correlation[weight == 0]).max()
    assert (part["correlation_low"] <= part["correlation"]).all()
    assert (part["correlation"] <= part["correlation_high"]).all()


def test_contributors_are_the_ends_of_the_weights(parts):
    """The largest weights contribute, the smallest inhibit."""
    found = parts["contributions_classes"]["contributor"].to_numpy()
    assert found.dtype == np.int8
    assert np.argwhere(found == -1).tolist() == [[0, 1]]
    assert (found == 1).sum() == 0  # two weights share the largest value: none is above the quantile
    assert parts["contributions_3"].attrs["contributor_of"] == "weight"
    ends = contributors(np.array([[3.0, np.nan, -1.0], [0.0, 0.5, 0.1]]))
    assert ends.tolist() == [[1, 0, -1], [0, 0, 0]]
    assert not contributors(np.full((2, 2), np.nan)).any()


def test_overlap_is_that_of_binarised_maps(parts, seen, explained, setting):
    """A block fires where any of its cells does; a class where its logit is among its highest; a unit anywhere."""
    first, second, logits = seen
    before = columns_of((blocks_of(first) > explained[0].thresholds[:, None, None, None, None]).any((3, 5)))
    after = columns_of(second > explained[1].thresholds[:, None, None])
    found = parts["contributions_3"]["overlap"].to_numpy()
    for i in range(3):
        for j in range(3):
            assert found[i, j] == pytest.approx((after[i] & before[j]).sum() / (after[i] | before[j]).sum())
    assert np.isnan(found[3]).all()
    fires = (second > explained[1].thresholds[:, None, None]).any((2, 3))
    most = int(0.1 * len(setting.reported))
    found = parts["contributions_classes"]["overlap"].to_numpy()
    for c in range(3):
        highest = np.zeros(len(logits), dtype=bool)
        highest[np.argsort(-logits[:, c], kind="stable")[:most]] = True
        for j in range(3):
            assert found[c, j] == pytest.approx((highest & fires[:, j]).sum() / (highest | fires[:, j]).sum())


def test_layers_that_are_not_directly_connected_have_no_weight(setting, explained):
    """Between the first layer and the classes stands another: correlation says who contributes."""
    part = contributions(setting, explained[:1])["contributions_classes"]
    assert np.isnan(part["weight"]).all()
    assert part.attrs["contributor_of"] == "correlation"
    assert (part["contributor"] == 1).sum() == 1


def test_the_classes_themselves_have_no_classes(setting):
    """Where the last explained layer is the output, the pair before it is the contribution to the classes."""
    layers = [setting.subject.layer(name) for name in ("3", "6")]
    both = [LayerThresholds(layer, np.zeros(layer.units)) for layer in layers]
    assert output_layer(setting.subject).name == "6"
    assert list(contributions(setting, both)) == ["contributions_6"]
    assert contributions(setting, both[1:]) == {}
    assert contributions(setting, []) == {}


def test_flattened_positions_add_up():
    """A unit's weight in a linear layer is the sum over the positions of its map."""
    linear = nn.Linear(2 * 9, 4)
    module = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), linear).eval()
    subject = ns.subject_from(
        module, name="flat", input_shape=(1, 3, 3), preprocess=ns.Preprocess(channels=1, mean=(), std=())
    )
    expected = linear.weight.detach().double().numpy().reshape(4, 2, 9).sum(2)
    assert weights_between(subject, subject.layer("1"), subject.layer("3")) == pytest.approx(expected)


def test_thresholds_belong_to_their_layer(setting):
    """As many thresholds as units, or an error that says so."""
    with pytest.raises(InputError, match="2 thresholds came for the 3 units of '1'"):
        LayerThresholds(setting.layers[0], np.zeros(2))


UNITS = 14
MARKERS = 2


@pytest.fixture(scope="module")
def classified():
    """A flat network: class by one pixel, units by the others; the first fires only where the network is right."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, size=90)
    right = rng.random(90) < 0.7
    pixels = np.zeros((90, 1, 4, 4), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.where(labels == right, 255, 0)
    pixels[:, 0, 0, 1] = np.where(right, 255, 0)
    pixels[:, 0, 0, 2] = np.where(~right, 255, 0)
    pixels[:, 0, 1:] = rng.integers(0, 256, size=(90, 3, 4))
    labels[:5] = -1
    hidden, last = nn.Linear(16, UNITS, bias=False), nn.Linear(UNITS, 2)
    hidden.weight.data = torch.eye(16)[[1, 2, 0, *range(4, 15)]]
    last.weight.data = torch.zeros(2, UNITS)
    last.weight.data[1, 2] = 1.0
    last.bias.data = torch.tensor([0.5, 0.0])
    subject = ns.subject_from(
        nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), last).eval(),
        name="flat",
        input_shape=(1, 4, 4),
        preprocess=ns.Preprocess(channels=1, mean=(), std=()),
    )
    data = data_from_arrays(torch.from_numpy(pixels), labels, name="marked", classes=("no", "yes"))
    return subject, data, right


def accuracy_of(classified, **changes):
    """The table of the hidden units; one is silent, one fires on a few images only."""
    subject, data, _ = classified
    rng = np.random.default_rng(2)
    thresholds = np.full(UNITS, 0.5)
    thresholds[3], thresholds[4] = 2.0, 0.96
    options = {"iou": rng.random(UNITS), "concept_iou": rng.random(UNITS), "run": ns.Run(seed=0, batch_size=16)}
    return accuracy_when_firing(
        subject, data, [LayerThresholds(subject.layer("2"), thresholds)], **{**options, **changes}
    )


def test_a_unit_that_fires_only_on_right_images_has_accuracy_1(classified):
    """Planted units, the accuracy of all, and the table of who fired, image by image."""
    right = classified[2][5:]
    table = accuracy_of(classified)
    found = table["accuracy_when_firing"].to_numpy()
    assert found[:2].tolist() == [1.0, 0.0]
    assert float(table["accuracy"]) == pytest.approx(right.mean())
    assert int(table["images"]) == 85
    assert table["row"].to_numpy().tolist() == list(range(5, 90))
    assert np.array_equal(table["pred"] == table["target"], right)
    fired = table["fired"].to_numpy().astype(bool)
    for unit in range(UNITS):
        if fired[:, unit].any():
            own = right[fired[:, unit]]
            assert found[unit] == pytest.approx(own.mean())
            exact = stats.binomtest(int(own.sum()), len(own)).proportion_ci(method="wilson")
            assert table["low"].to_numpy()[unit] == pytest.approx(exact.low)
            assert table["high"].to_numpy()[unit] == pytest.approx(exact.high)
    assert table["fires"].to_numpy() == pytest.approx(fired.mean(0))


def test_silent_units_and_rare_ones_take_no_part(classified):
    """A unit that never fires has no accuracy; one that fires on fewer than ten images is in no correlation."""
    iou = np.linspace(0, 1, UNITS)
    table = accuracy_of(classified, iou=iou, concept_iou=np.full(UNITS, np.nan))
    found, many = table["accuracy_when_firing"].to_numpy(), table["fires_images"].to_numpy()
    assert many[3] == 0
    assert np.isnan([found[3], table["low"].to_numpy()[3], table["high"].to_numpy()[3]]).all()
    assert 0 < many[4] < 10
    enough = many >= 10
    assert int(table["units_formula"]) == enough.sum() == UNITS - 2
    exact = stats.pearsonr(found[enough], iou[enough])
    assert float(table["r_formula"]) == pytest.approx(exact.statistic)
    assert float(table["p_formula"]) == pytest.approx(exact.pvalue)
    limits = exact.confidence_interval(0.95)
    assert float(table["r_formula_low"]) == pytest.approx(limits.low)
    assert float(table["r_formula_high"]) == pytest.approx(limits.high)
    assert float(table["p_formula_permuted"]) == pytest.approx(exact.pvalue, abs=0.05)
    assert np.isnan(float(table["r_concept"]))


def test_the_table_of_who_fired_has_a_limit(classified, monkeypatch):
    """Beyond it the numbers by unit stand alone, the same as before."""
    whole = accuracy_of(classified)
    monkeypatch.setattr(accuracy_module, "LARGEST_TABLE", 85 * UNITS - 1)
    small = accuracy_of(classified)
    assert set(whole.data_vars) - set(small.data_vars) == {"row", "pred", "target", "fired"}
    assert small.identical(whole[list(small.data_vars)])


def test_accuracy_needs_labels_of_the_network(classified):
    """No labels, labels beyond the outputs, and too few overlaps are refused."""
    subject, data, right = classified
    with pytest.raises(InputError, match="none of the 90 images"):
        accuracy_of((subject, replace(data, labels=np.full(90, -1)), right))
    beyond = replace(data, labels=np.full(90, 2), classes=("a", "b", "c"))
    with pytest.raises(InputError, match="labels up to 2"):
        accuracy_of((subject, beyond, right))
    with pytest.raises(InputError, match="overlaps came for 14 units"):
        accuracy_of(classified, iou=np.zeros(3), concept_iou=np.zeros(3))


@pytest.fixture(scope="module")
def digits():
    """A settled study of a few digits, whose images have labels."""
    subject = ns.load_model("builtin:viewer-cnn", weights="random")
    spec = ns.ConceptsSpec(concept_limit=40)
    return settle(subject, ns.concept_images(spec), spec, ns.Run())


def test_targets_are_the_images_own_labels_where_they_fit(digits):
    """Digits beside a network with ten outputs."""
    found, reason = targets_of(digits)
    assert np.array_equal(found, digits.concepts.images.labels)
    assert "own labels" in reason
    data, _ = labelled_images(digits)
    assert np.array_equal(data.labels, digits.concepts.images.labels[digits.reported])
    assert data.classes == digits.subject.classes


def test_targets_may_be_named_by_concepts(digits):
    """Without labels of their own, images are of the class that a label of the whole image names."""
    labels = digits.concepts.images.labels
    bare = replace(digits.concepts.images, labels=np.full(40, -1), classes=(), fingerprint="bare")
    named = tuple(replace(c, raw=f"Place_{c.raw}-s" if c.level == "image" else c.raw) for c in digits.concepts.concepts)
    concepts = replace(digits.concepts, images=bare, concepts=named)
    subject = replace(digits.subject, classes=tuple(f"/p/place/{n}" for n in "0123456789"))
    unnamed = replace(digits, concepts=concepts, subject=subject)
    found, reason = targets_of(unnamed)
    assert np.array_equal(found, labels)
    assert reason.startswith("10 concepts")
    data, _ = labelled_images(unnamed)
    assert np.array_equal(data.labels, labels[digits.reported])


def test_without_targets_there_is_a_reason(digits):
    """Classes that neither labels nor concepts know."""
    subject = replace(digits.subject, classes=tuple("abcdefghij"))
    found, reason = targets_of(replace(digits, subject=subject))
    assert found is None
    assert "(a, b, c, ...)" in reason
    assert labelled_images(replace(digits, subject=subject)) == (None, reason)


def test_similarity_is_that_of_maps_and_masks(setting, seen):
    """Correlation of the units of one layer, cell by cell, and overlap of their formulas, pixel by pixel."""
    layer, maps = setting.layers[1], seen[1]
    masks = [setting.concepts.masks(int(row)) for row in setting.reported]
    labels = assemble([image_signatures(one.maps, one.whole.tolist()) for one in masks])
    dark = labels.table[:, 0] == 1
    holds = [dark, ~dark, np.ones_like(dark), np.zeros_like(dark)]
    found = similarity(setting, layer, holds, labels.weight)
    columns = columns_of(maps)
    assert found["activations"].to_numpy() == pytest.approx(np.corrcoef(columns), abs=1e-5)
    share = np.concatenate([one.mask(1).ravel() for one in masks]).mean()
    expected = np.array([[1, 0, share], [0, 1, 1 - share], [share, 1 - share, 1]])
    assert found["masks"].to_numpy()[:3, :3] == pytest.approx(expected)
    assert np.isnan(found["masks"].to_numpy()[3]).all()
    q = found["q"].to_numpy()
    assert np.isnan(np.diag(q)).all()
    assert np.array_equal(q, q.T, equal_nan=True)
    assert q[0, 1] < 0.001
    assert q[0, 2] > 0.05
    again = similarity(
        setting, layer, holds, labels.weight, activations=activation_correlations(setting, [layer])[layer.name]
    )
    assert again.identical(found)


def test_similarity_needs_a_formula_for_each_unit(setting):
    """Fewer are refused."""
    labels = assemble([image_signatures(np.array([[[1, 2]]]))])
    with pytest.raises(InputError, match="1 formulas came for the 4 units of '3'"):
        similarity(setting, setting.layers[1], [np.ones(2, dtype=bool)], labels.weight)
