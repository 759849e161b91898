"""The `layers` study: published numbers, planted units, noise, and inputs that cannot work."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import neuronscope as ns
from neuronscope.maths.selectivity import population_sparseness
from neuronscope.result import open_result, same
from neuronscope.studies.blocks import unit_parts
from neuronscope.studies.layers import plan_layers
from neuronscope.studies.layers.measures import LayerSums
from neuronscope.studies.layers.setting import blocks, planned_sweeps, settle
from neuronscope.units import LayerInfo

CLASSES = ("a", "b", "c", "d")


class Detectors(nn.Module):
    """Ten units with known behaviour on images whose brightest quadrant is the class.

    Units 0 to 3 respond to one quadrant each, unit 4 to all alike, unit 5 never, unit 6 is noise that depends on the
    image but not on its class, units 7 to 9 are copies of it with other noise.
    """

    def __init__(self) -> None:  # noqa: D107 the class says it
        super().__init__()
        self.pool = nn.AvgPool2d(4)
        self.mix = nn.Conv2d(1, 10, 2)
        self.act = nn.ReLU(inplace=True)
        self.flat = nn.Flatten()
        self.head = nn.Linear(10, 4)
        with torch.no_grad():
            self.mix.weight.zero_()
            self.mix.bias.zero_()
            for unit in range(4):
                self.mix.weight[unit, 0, unit // 2, unit % 2] = 1.0
            self.mix.weight[4] = 0.25
            self.mix.bias[5] = -10.0
            self.head.weight.zero_()
            self.head.bias.zero_()
            self.head.weight[:4, :4] = torch.eye(4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits; the noise comes from the image's own low bits (its corner pixels)."""
        maps = self.mix(self.pool(image))
        noise = torch.stack([image[:, 0, 0, k] for k in range(4)], dim=1)
        added = torch.cat([torch.zeros_like(maps[:, :6, 0, 0]), noise], dim=1)
        return self.head(self.flat(self.act(maps + added[..., None, None])))


@pytest.fixture(scope="module")
def subject() -> ns.Subject:
    """A network whose units are known."""
    return ns.subject_from(
        Detectors(), name="detectors", input_shape=(1, 8, 8), preprocess=ns.Preprocess(channels=1), classes=CLASSES
    )


@pytest.fixture(scope="module")
def data() -> ns.Data:
    """Images with one bright quadrant, a little pixel noise, and independent corner pixels."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 4
    images = rng.integers(0, 40, (240, 1, 8, 8), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 150
    images[:, 0, 0, :4] = rng.integers(0, 256, (240, 4), dtype=np.uint8)
    images[:, 0, 1, :4] = 255 - images[:, 0, 0, :4]  # keeps the quadrant's mean: the noise must not leak into it
    return ns.data_from_arrays(torch.from_numpy(images), labels, name="quadrants", classes=CLASSES)


@pytest.fixture(scope="module")
def result(subject: ns.Subject, data: ns.Data) -> ns.Result:
    """The study on that network."""
    return ns.run_layers(subject, data, ns.LayersSpec(layers=("act",), draws=199), run=ns.Run(batch_size=16))


def test_planted_units_are_found_and_noise_is_shown_as_noise(result):
    """Quadrant detectors are selective for their class; noise units are not distinguishable; the dead unit is dead."""
    table = result.table
    q = table["class_share_q"].to_numpy()
    assert (q[:4] < 0.05).all()
    assert table["preferred"].to_numpy()[:4].tolist() == [0, 1, 2, 3]
    assert (table["auroc"].to_numpy()[:4] > 0.99).all()
    assert (q[6:] > 0.05).all()
    assert np.isnan(q[5])
    assert table["dead"].to_numpy().tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    words = result.page()
    shown = next(block for block in words.blocks if isinstance(block, ns.Table) and block.name == "selectivity").frame
    assert shown["verdict"].tolist()[5] == "dead"
    assert set(shown["verdict"].tolist()[6:]) == {"noise"}


def test_statistics_equal_their_definition(result, subject, data):
    """Mean, class means, variances, top images and positions are those of the stored activations."""
    kept = []
    handle = subject.module.act.register_forward_hook(lambda _m, _i, out: kept.append(out.clone()))
    with torch.inference_mode():
        subject.module(subject.preprocess.batch(data.pixels))
    handle.remove()
    maps = kept[0].flatten(2).double().numpy()
    table = result.table
    np.testing.assert_allclose(table["mean"], maps.mean(axis=(0, 2)), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(table["variance_all"], maps.var(axis=(0, 2)), rtol=1e-4, atol=1e-7)
    pooled = maps.mean(axis=2)
    for c in range(4):
        np.testing.assert_allclose(
            table["class_mean"][:, c], pooled[data.labels == c].mean(axis=0), rtol=1e-6, atol=1e-9
        )
    peak = maps.max(axis=2)
    order = np.lexsort((np.arange(len(peak))[:, None].repeat(10, 1), -peak), axis=0)[:9]
    np.testing.assert_array_equal(table["top_image"].to_numpy().T, order)
    places = maps[order, np.arange(10), :].argmax(axis=2)
    np.testing.assert_array_equal(table["top_at"].to_numpy().T, places)


def test_gradient_times_activation_is_exact_for_a_linear_head(result, subject):
    """With a linear head, a unit's mean attribution to the true class is weight times mean activation."""
    weight = subject.module.head.weight.numpy()
    by_class = result.table["class_mean"].to_numpy()
    expected = np.stack([weight[c] * by_class[:, c] for c in range(4)], axis=1)
    np.testing.assert_allclose(result.table["class_attribution"], expected, rtol=1e-5, atol=1e-7)


def test_one_row_per_unit_with_named_columns(result):
    """`units()` has one row per unit and columns `layers.QUANTITY`, uncertainty beside the quantity."""
    frame = result.units()
    assert len(frame) == 10
    assert frame["layer"].unique().tolist() == ["act"]
    assert frame["index"].tolist() == list(range(10))
    for name in ("csi", "csi_low", "csi_high", "csi_null", "csi_q", "auroc", "auroc_low", "auroc_high", "auroc_q"):
        assert f"layers.{name}" in frame


def test_the_same_run_gives_the_same_bits_and_the_file_gives_them_back(subject, data, result, tmp_path):
    """Same seed, same bits, whatever the number of workers; saving and opening changes nothing."""
    again = ns.run_layers(
        subject, data, ns.LayersSpec(layers=("act",), draws=199), run=ns.Run(batch_size=16, workers=1)
    )
    assert again.tree.identical(result.tree)
    opened = open_result(result.save(tmp_path / "r.zarr"))
    assert same(opened, result)
    assert ns.open(tmp_path / "r.zarr").page().title == result.page().title


def test_another_batch_size_agrees_within_the_stated_tolerance(subject, data, result):
    """Batch size changes a mean by at most 1e-5 of the layer's largest activation."""
    other = ns.run_layers(subject, data, ns.LayersSpec(layers=("act",), draws=19), run=ns.Run(batch_size=7))
    bound = 1e-5 * float(result.table["peak"].max())
    assert float(np.abs(other.table["mean"] - result.table["mean"]).max()) <= bound


def test_the_network_comes_back_as_it_went(subject, data):
    """Neither hooks nor gradients nor weights are left changed."""
    before = {name: tensor.clone() for name, tensor in subject.module.state_dict().items()}
    ns.run_layers(subject, data.take(range(8)), ns.LayersSpec(layers=("act",), draws=19))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in subject.module.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in subject.module.state_dict().items())


def test_pure_noise_is_not_selective():
    """Of 64 random units on images whose labels mean nothing, at most a few survive q < 0.05."""
    rng = np.random.default_rng(1)
    pixels = torch.from_numpy(rng.integers(0, 256, (200, 1, 8, 8), dtype=np.uint8))
    data = ns.data_from_arrays(pixels, rng.integers(0, 10, 200), name="noise", classes=tuple("0123456789"))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    subject = ns.subject_from(
        network, name="random", input_shape=(1, 8, 8), preprocess=ns.Preprocess(channels=1), classes=data.classes
    )
    table = ns.run_layers(subject, data, ns.LayersSpec(layers=("1",), draws=199)).table
    assert int((table["class_share_q"] < 0.05).sum()) <= 3
    assert int((table["auroc_q"] < 0.05).sum()) <= 3
    assert float(table["csi"].mean()) > 3 * abs(float(table["csi_split"].mean())), "the raw index has a noise floor"


def test_units_with_nan_activations_are_nan_and_listed(data):
    """Two units that give NaN or infinity on some images are named; the others are untouched."""

    class Broken(nn.Module):
        """Divides by zero in unit 1 and overflows in unit 2, on dark images."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 1, bias=False)
            self.out = nn.Identity()
            self.head = nn.Linear(3, 4)
            nn.init.ones_(self.conv.weight)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            """NaN where the image is 0."""
            maps = self.conv(image)
            scale = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1) / (maps * 1e30) * 0.0
            broken = maps + torch.where(maps == 0, scale, torch.zeros_like(scale))
            return self.head(self.out(broken).mean((2, 3)))

    subject = ns.subject_from(
        Broken(), name="broken", input_shape=(1, 8, 8), preprocess=ns.Preprocess(channels=1), classes=CLASSES
    )
    pixels = data.pixels.clone().clamp_min(1)
    pixels[5] = 0
    dark = ns.data_from_arrays(pixels, data.labels, name="dark", classes=CLASSES)
    spec = ns.LayersSpec(layers=("out",), draws=19, gradient="none")
    result = ns.run_layers(subject, dark, spec)
    # 0/0 makes a NaN in all three products; only what reached the layer counts
    listed = result.provenance.nonfinite["out"]
    assert np.isnan(result.table["mean"].to_numpy()[list(listed)]).all()
    others = [unit for unit in range(3) if unit not in listed]
    assert np.isfinite(result.table["mean"].to_numpy()[others]).all()
    assert result.page().blocks


def test_unlabelled_images_still_give_activations(subject, data):
    """Without labels, selectivity is undefined (nan) and everything else is there."""
    bare = dataclasses.replace(data, labels=np.full(len(data), -1), classes=())
    result = ns.run_layers(subject, bare, ns.LayersSpec(layers=("act",), draws=19))
    assert np.isnan(result.table["class_share"]).all()
    assert np.isfinite(result.table["mean"]).all()
    assert any(isinstance(block, ns.Text) and block.tone == "warning" for block in result.page().blocks)


def test_a_plan_says_what_the_run_will_do(subject, data):
    """Two sweeps over all images and one over examples, their passes counted, memory and time estimated."""
    plan = plan_layers(subject, data, ns.LayersSpec(layers=("act",)))
    assert [(one.name, one.forward, one.backward) for one in plan.sweeps] == [
        ("observe", 240, 0),
        ("attribute", 240, 240),
        ("examples", 9, 0),
    ]
    assert plan.memory > 0
    assert plan.seconds is not None
    assert plan.seconds > 0


def test_a_memory_bound_takes_layers_in_groups_and_changes_no_bit(subject, data):
    """With room for one layer at a time the plan has more sweeps, and the result is the same."""
    spec = ns.LayersSpec(layers=("pool", "mix", "act"), draws=39)
    alone = [
        max(sweep.state + sweep.working for sweep, _ in planned_sweeps(settle(subject, data, one, ns.Run())))
        for one in (ns.LayersSpec(layers=(name,)) for name in spec.layers)
    ]
    bounded = ns.Run(memory=int(1.2 * max(alone)))
    groups = blocks(settle(subject, data, spec, bounded))
    assert len(groups) > 1
    plan = plan_layers(subject, data, spec, run=bounded)
    assert sum(one.name.startswith("observe") for one in plan.sweeps) == len(groups)
    assert ns.run_layers(subject, data, spec, run=bounded).tree.identical(ns.run_layers(subject, data, spec).tree)


class Wide(nn.Module):
    """Random layers of many units: maps, an in-place ReLU used twice, units last, a flat layer."""

    def __init__(self) -> None:  # noqa: D107 the class says it
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 40, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.LayerNorm(40)
        self.mix = nn.Conv2d(40, 24, 3)
        self.head = nn.Linear(24, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.relu(self.conv(image))
        x = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        return self.head(self.relu(self.mix(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def wide() -> ns.Subject:
    """A network whose layers alone need more memory than there is."""
    return ns.subject_from(
        Wide(), name="wide", input_shape=(1, 8, 8), preprocess=ns.Preprocess(channels=1), classes=CLASSES
    )


def room_for(subject: ns.Subject, data: ns.Data, spec: ns.LayersSpec, layer: str, *, units: int) -> ns.Run:
    """A run that has memory for so many units of a layer and no more."""
    setting = settle(subject, data, spec, ns.Run(batch_size=4))
    part = setting.block((subject.layer(layer).part(0, units),))
    least = max(sweep.state + sweep.working for sweep, _ in planned_sweeps(part))
    return ns.Run(batch_size=4, memory=least)


BY_UNIT = ("mean", "variance", "quantile", "peak", "density", "dead", "top_value", "top_at", "class_mean", "class_sd")
RANKED = ("preferred", "top_image", "bottom_image", "csi_q", "class_share_q", "auroc_q", "class_auroc_q", "auroc_class")
CORRECTED = ("auroc", "auroc_low", "class_auroc", "precision", "attribution", "attribution_low", "class_attribution")


def test_layers_split_by_units_give_what_whole_layers_give(wide, data):
    """Blocks of units, joined: the same bits where each unit is by itself, the same numbers in every group."""
    spec = ns.LayersSpec(layers=("relu", "norm", "relu#1", "head"), draws=39, channels=15)
    few = data.take(range(80))
    bounded = room_for(wide, few, spec, "relu", units=15)
    groups = blocks(settle(wide, few, spec, bounded))
    assert [layer.units for group in groups for layer in group.layers] == [13, 13, 14, 13, 13, 14, 12, 12, 4]
    whole, split = (ns.run_layers(wide, few, spec, run=run) for run in (ns.Run(batch_size=4), bounded))
    assert [node.path for node in split.tree.subtree] == [node.path for node in whole.tree.subtree]
    for node in whole.tree.subtree:
        expected, found = node.to_dataset(), split.tree[node.path].to_dataset()
        assert expected.variables.keys() == found.variables.keys()
        for name, values in expected.variables.items():
            assert found[name].dims == values.dims
            assert found[name].attrs == values.attrs
            assert found[name].dtype == values.dtype
            if values.dtype.kind == "f":  # single precision: of channels-last layers torch sums in another order
                np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=2e-6, err_msg=f"{node.path} {name}")
            else:
                np.testing.assert_array_equal(found[name], values, err_msg=f"{node.path} {name}")
    own = whole.table["layer"].to_numpy() != "norm"
    for name in whole.table.data_vars:
        expected, found = whole.table[name].to_numpy()[own], split.table[name].to_numpy()[own]
        if name in BY_UNIT + RANKED + CORRECTED:
            np.testing.assert_array_equal(found, expected, err_msg=str(name))
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=str(name))
    rows = whole.tree["layers"].to_dataset()
    kept = rows["layer_name"].to_numpy() != "norm"
    for name in ("response", "response_low", "population_sparseness"):
        np.testing.assert_allclose(
            split.tree["layers"][name][kept], rows[name][kept], rtol=1e-9, atol=1e-12, err_msg=name
        )
    assert np.isfinite(rows["population_sparseness"]).any()


def test_a_plan_names_blocks_of_units_and_keeps_to_the_memory(wide, data):
    """Each sweep over part of a layer says over which units; none needs more than was allowed, examples included."""
    spec = ns.LayersSpec(layers=("conv", "relu#1", "head"), draws=19)
    for units in (5, 13, 20):
        bounded = room_for(wide, data, spec, "conv", units=units)
        plan = plan_layers(wide, data, spec, run=bounded)
        assert 0 < plan.memory <= bounded.memory
        for name in ("observe", "attribute", "examples"):
            assert any(one.name.startswith(name) for one in plan.sweeps)
    names = [one.name for one in plan.sweeps if not one.name.startswith("examples")]
    assert names == [
        "observe 1 of 4 (conv units 0-19)",
        "attribute 1 of 4 (conv units 0-19)",
        "observe 2 of 4 (conv units 20-39)",
        "attribute 2 of 4 (conv units 20-39)",
        "observe 3 of 4 (relu#1 units 0-11)",
        "attribute 3 of 4 (relu#1 units 0-11)",
        "observe 4 of 4 (relu#1 units 12-23, 1 more layer)",
        "attribute 4 of 4 (relu#1 units 12-23, 1 more layer)",
    ]


@given(st.integers(1, 70), st.integers(0, 80))
def test_unit_parts_cover_a_layer_in_order_and_fit(units, room):
    """Every unit is in one part, parts are as few as can be, nearly of one size, and none is larger than the room."""
    layer = LayerInfo("conv", "conv", (units, 3, 3), units)
    parts = unit_parts(layer, lambda part: part.units <= room)
    if room == 0:
        assert parts == []
        return
    assert [unit for part in parts for unit in range(part.first, part.first + part.units)] == list(range(units))
    sizes = [part.units for part in parts]
    assert len(parts) == -(-units // room)
    assert max(sizes) <= room
    assert max(sizes) - min(sizes) <= 1
    assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**31), st.booleans())
def test_sums_of_parts_are_those_of_the_layer(images, units, seed, negative):
    """However a layer is cut, its totals and its population sparseness are those of all units at once."""
    rng = np.random.default_rng(seed)
    scores = np.maximum(rng.normal(size=(images, units)), -np.inf if negative else 0.0)
    cut = int(rng.integers(0, units + 1))
    both = LayerSums.of(scores[:, :cut]) + LayerSums.of(scores[:, cut:])
    np.testing.assert_allclose(both.total, scores.sum(axis=1), atol=1e-12)
    expected = population_sparseness(scores) if (scores >= 0).all() else np.full(images, np.nan)
    known = expected[np.isfinite(expected)]
    mean = known.mean() if known.size else np.nan
    np.testing.assert_allclose(both.population_sparseness(units=units), mean, rtol=1e-9, atol=1e-9)


def test_broken_units_keep_their_numbers_when_layers_are_split(data):
    """Units that are not finite are listed by their number within the layer, in whichever block they are."""
    network = Wide()
    with torch.no_grad():
        network.conv.weight[[3, 33]] = 3e38  # a few bright pixels, and the sum is infinite
    subject = ns.subject_from(
        network, name="broken", input_shape=(1, 8, 8), preprocess=ns.Preprocess(channels=1), classes=CLASSES
    )
    spec, few = ns.LayersSpec(layers=("conv", "relu"), draws=19, gradient="none"), data.take(range(40))
    bounded = room_for(subject, few, spec, "conv", units=20)
    split = ns.run_layers(subject, few, spec, run=bounded)
    assert len(blocks(settle(subject, few, spec, bounded))) == 4
    assert split.provenance.nonfinite == {"conv": (3, 33), "relu": (3, 33)}
    assert np.isnan(split.tree["layers"]["population_sparseness"]).all()


def test_too_little_memory_for_one_unit_is_refused_before_anything_is_done(subject, wide, data):
    """Splitting does not make the forward pass smaller: the message says so and names the batch size."""
    for network, layer in ((subject, "act"), (wide, "conv")):
        spec = ns.LayersSpec(layers=(layer,), draws=19)
        with pytest.raises(ns.InputError, match=r"one unit of layer .* alone needs .* lower --batch-size"):
            ns.run_layers(network, data, spec, run=ns.Run(memory=10_000))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ns.LayersSpec(layers=("akt",)), "Closest: 'act'"),
        (ns.LayersSpec(legacy=("raw-inputs",)), "Closest: 'raw-input'"),
        (ns.LayersSpec(examples=(1000,)), "row 1000"),
    ],
)
def test_what_does_not_exist_is_refused_with_a_hint(subject, data, spec, message):
    """Unknown layers and deviations name the nearest; rows beyond the data name its size."""
    with pytest.raises(ns.InputError, match=message):
        ns.run_layers(subject, data, spec)


def test_labels_beyond_the_outputs_are_refused(subject, data):
    """Data of ten classes does not belong to a network of four."""
    wide = dataclasses.replace(data, labels=data.labels + 3, classes=tuple("0123456789"))
    with pytest.raises(ns.InputError, match="do not belong together"):
        ns.run_layers(subject, wide, ns.LayersSpec(layers=("act",)))


@pytest.fixture(scope="module")
def published(test_data) -> ns.Result:
    """The original's network on the original's images, with the original's deviations."""
    subject = ns.load_model("builtin:viewer-cnn", weights=test_data / "golden/mnist-viewer/mnist_cnn.pth")
    mnist = ns.load_data(f"mnist:{test_data / 'mnist'}", split="test")
    legacy = ("raw-input", "first-1000", "ratio-epsilon")
    return ns.run_layers(subject, mnist, ns.LayersSpec(legacy=legacy, top_by="mean", draws=19, splits=2))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("conv_layers.1", (16, 0.137, 0.114, 0, 0, [5, 15, 1], (0.076, 0.175), (0.823, 0.992))),
        ("conv_layers.4", (32, 0.186, 0.130, 0, 0, [30, 0, 24], (0.148, 0.347), (0.820, 0.961))),
        ("conv_layers.7", (64, 0.239, 0.153, 0, 4, [55, 15, 19], (0.237, 0.478), (0.832, 0.940))),
        ("conv_layers.10", (128, 0.999, 0.200, 7, 20, [72, 59, 103], (0.384, 1.0), (0.864, 0.995))),
    ],
)
def test_published_table(published, layer, expected):
    """Every number of the original's table of layers, to the digits printed (medians of areas: 0.0015)."""
    units, largest, median, above, dead, variance_order, csi, area = expected
    table = published.table
    own = np.flatnonzero(table["layer"].to_numpy() == layer)
    ratio = table["ratio"].to_numpy()[own]
    index = np.nan_to_num(table["csi"].to_numpy()[own])
    best = table["class_auroc"].to_numpy()[own].max(axis=1)
    assert len(own) == units
    assert ratio.max() == pytest.approx(largest, abs=5e-4)
    assert np.median(ratio) == pytest.approx(median, abs=5e-4)
    assert int((ratio > 0.8).sum()) == above
    assert int((table["dead"].to_numpy()[own] == 1).sum()) == dead
    assert np.argsort(table["variance_all"].to_numpy()[own])[-3:].tolist() == variance_order
    assert (np.median(index), index.max()) == pytest.approx(csi, abs=6e-4)
    assert np.median(best) == pytest.approx(area[0], abs=1.5e-3)
    assert best.max() == pytest.approx(area[1], abs=6e-4)


def test_published_selective_units_variances_responses_and_top_images(published):
    """Selective units with their digits, layer-1 variances, mean responses, and the top images of unit 5."""
    table = published.table
    last = np.flatnonzero(table["layer"].to_numpy() == "conv_layers.10")
    ratio, preferred = table["ratio"].to_numpy()[last], table["preferred"].to_numpy()[last]
    found = {int(unit): (int(preferred[unit]), round(float(ratio[unit]), 3)) for unit in np.flatnonzero(ratio > 0.8)}
    assert found == {
        57: (2, 0.996),
        58: (1, 0.800),
        76: (7, 0.999),
        107: (1, 0.962),
        110: (3, 0.968),
        112: (3, 0.982),
        121: (9, 0.948),
    }
    variances = [0.0160, 0.1301, 0.0053, 0.0140, 0.0215, 0.0460, 0.0138, 0.0237]
    variances += [0.0284, 0.0211, 0.0022, 0.0321, 0.0023, 0.0077, 0.0129, 0.1293]
    np.testing.assert_allclose(table["variance_all"].to_numpy()[:16], variances, atol=6e-5)
    top = table["top_image"].to_numpy()[5][::-1]
    labels = dict(
        zip(
            published.tree["decisions"]["row"].to_numpy().tolist(),
            published.tree["decisions"]["label"].to_numpy().tolist(),
            strict=True,
        )
    )
    assert [labels[int(row)] for row in top] == [8, 3, 0, 2, 3, 3, 0, 8, 0]
    examples = published.tree["examples"]
    response: dict[int, list[float]] = {}
    for label, values in zip(examples["label"].to_numpy(), examples["response"].to_numpy(), strict=True):
        response.setdefault(int(label), values[:4].tolist())
    assert response[2] == pytest.approx([0.1368, 0.1618, 0.2394, 0.2822], abs=1e-4)
    assert response[7] == pytest.approx([0.1218, 0.1188, 0.1681, 0.3725], abs=1e-4)
    assert response[8] == pytest.approx([0.1406, 0.1642, 0.2060, 0.3109], abs=1e-4)
