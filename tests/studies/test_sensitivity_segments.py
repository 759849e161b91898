"""The `sensitivity` study of segments: planted reactions, a network written by hand, portions, and what cannot work."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import neuronscope as ns
from neuronscope.errors import InputError, UnknownName
from neuronscope.models.hsv import CHANNELS, hsv
from neuronscope.models.segments import Segment, write_segments
from neuronscope.result import open_result
from neuronscope.studies.sensitivity.original import export_sensitivity, read_published
from neuronscope.studies.sensitivity.page import sensitivity_page
from neuronscope.studies.sensitivity.setting import chosen_layers, settle
from neuronscope.studies.sensitivity.spec import SensitivitySpec
from neuronscope.studies.sensitivity.study import plan_sensitivity, run_sensitivity
from neuronscope.views import Gallery, Table

SIDE = 12
QUICK = {"points": 64, "replicates": 4, "permutations": 32, "stop": "never", "factors": ("class", "image")}


class Colours(nn.Module):
    """Two convolutions with a pool, an in-place nonlinearity and a classifier, of fixed weights."""

    def __init__(self) -> None:
        """Make its parts."""
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.late = nn.Conv2d(4, 6, 3)
        self.head = nn.Linear(6, 2)

    def forward(self, images):
        """Logits."""
        return self.head(self.late(self.pool(self.relu(self.conv(images)))).mean((2, 3)))


class Twin(nn.Module):
    """The segments (conv, relu, pool) of units 1 and 3, and (late) of unit 5, on each channel, written out."""

    def __init__(self, network: Colours) -> None:
        """Take the network's modules; what is passed on by the others is what is looked at."""
        super().__init__()
        self.network = network
        self.first = nn.ModuleDict({channel: nn.Identity() for channel in CHANNELS})
        self.late = nn.ModuleDict({channel: nn.Identity() for channel in CHANNELS})

    def forward(self, images):
        """Each channel in three or four copies; logits that nobody asks for."""
        own = self.network
        for channel, plane in zip(CHANNELS, hsv(images).split(1, dim=1), strict=True):
            self.first[channel](own.pool(own.relu(own.conv(plane.repeat(1, 3, 1, 1))))[:, [1, 3]])
            self.late[channel](own.late(plane.repeat(1, 4, 1, 1))[:, [5]])
        return images.new_zeros(len(images), 2)


def subject_of(module):
    """A network of small colour images."""
    return ns.subject_from(module, name="colours", input_shape=(3, SIDE, SIDE), preprocess=ns.Preprocess())


@pytest.fixture(scope="module")
def subject():
    """That network."""
    return subject_of(Colours().eval())


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    """A file of two segments; one unit has reasons."""
    path = tmp_path_factory.mktemp("segments") / "units.json"
    reasons = ((3, ("hue", "si", "2")), (3, ("erasing", "shpv", "1")))
    first = Segment("first", ("conv", "relu", "pool"), (1, 3), reasons=reasons)
    write_segments(path, [first, Segment("late", ("late",), (5,), "residual")])
    return str(path)


@pytest.fixture(scope="module")
def data():
    """Colours of all kinds, two classes."""
    raw = np.random.default_rng(2).integers(0, 256, (40, 3, SIDE, SIDE))
    return ns.data_from_arrays(
        torch.from_numpy(raw.astype(np.uint8)), np.arange(40) % 2, name="confetti", classes=("one", "two")
    )


def run_of(subject, data, **options):
    """A quick run."""
    run = options.pop("run", ns.Run(threads=1, batch_size=64))
    return run_sensitivity(subject, data, SensitivitySpec(**{**QUICK, **options}), run=run)


@pytest.fixture(scope="module")
def result(subject, data, units):
    """Both designs, set 2."""
    return run_of(subject, data, segments=units, augmentations=("brightness", "hue", "saturation"))


def test_the_numbers_are_those_of_a_network_written_by_hand(subject, data, result):
    """Moments, Sobol indices and Shapley effects of every activation, by the twin and the whole study of networks."""
    layers = ("first.*", "late.*")
    twin = run_of(
        subject_of(Twin(subject.module).eval()),
        data,
        layers=layers,
        estimators=("sobol", "shapley"),
        augmentations=("brightness", "hue", "saturation"),
    )
    for channel in CHANNELS:
        for layer in (f"first.{channel}", f"late.{channel}"):
            ours, theirs = (one.tree[f"maps/{layer}"].to_dataset() for one in (result, twin))
            assert set(ours.data_vars) == set(theirs.data_vars)
            for name in ours.data_vars:
                # sums of float32 products in another order; shares are divided by variances that may be small
                assert np.allclose(ours[name], theirs[name], rtol=1e-3, atol=2e-4, equal_nan=True), (layer, name)
    ours, theirs = (
        one.table["first"].to_numpy()[np.argsort(one.table["layer"], kind="stable")] for one in (result, twin)
    )
    assert np.allclose(ours, theirs, atol=1e-4, equal_nan=True)


def test_units_have_their_own_numbers_and_reasons(result):
    """The table of units and the group of segments say which unit, segment, channel and module, and why."""
    table, pieces = result.table, result.tree["segments"].to_dataset()
    assert table["index"].to_numpy().tolist() == [1, 3] * 3 + [5] * 3
    assert pieces["index"].to_numpy().tolist() == table["index"].to_numpy().tolist()
    assert pieces["layer"].to_numpy().tolist() == table["layer"].to_numpy().tolist()
    assert pieces["channel"].to_numpy().tolist() == [
        *("hue", "hue", "saturation", "saturation", "value", "value"),
        *CHANNELS,
    ]
    assert pieces["modules"].to_numpy().tolist() == ["conv,relu,pool"] * 6 + ["late"] * 3
    assert pieces["reasons"].to_numpy().tolist() == ["", "hue si 2; erasing shpv 1"] * 3 + [""] * 3


def test_a_result_keeps_what_network_it_is_of(subject, result, tmp_path):
    """Name and fingerprint are the network's, and everything survives saving."""
    assert (result.provenance.subject, result.provenance.subject_fingerprint) == (subject.name, subject.fingerprint)
    assert list(result.provenance.spec["estimators"]) == ["sobol", "shapley"]
    result.save(tmp_path / "result")
    opened = open_result(tmp_path / "result")
    assert opened.tree["segments"].to_dataset()["reasons"].to_numpy().tolist()[1] == "hue si 2; erasing shpv 1"


def test_each_channel_sees_what_changes_it_and_nothing_else(tmp_path):
    """Full colours of one hue, turned: the hue is all of the variance of its channel, and the others never change."""
    conv = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        conv.weight[:] = torch.tensor([[0.2, 0.5, -0.1], [1.0, -2.0, 0.5]]).view(2, 3, 1, 1)
    network = subject_of(nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)).eval())
    write_segments(tmp_path / "units.json", [Segment("pixel", ("0", "1"), (1,))])
    cyan = torch.tensor([0, 255, 255], dtype=torch.uint8).view(1, 3, 1, 1).repeat(16, 1, SIDE, SIDE)
    data = ns.data_from_arrays(cyan, np.arange(16) % 2, name="cyan", classes=("one", "two"))
    found = run_of(network, data, segments=str(tmp_path / "units.json"), augmentations=("hue", "hflip")).table
    factors = found["factor_name"].to_numpy().tolist()
    hue, *others = found["total"].to_numpy()
    assert np.allclose(hue, [float(name == "hue") for name in factors], atol=0.02)
    assert np.allclose(found["first"].to_numpy()[0], hue, atol=0.02)
    assert np.allclose(found["shapley"].to_numpy()[0], hue, atol=0.02)
    assert np.isnan(others).all()
    # -0.5 is the sum of the unit's weights: the variance of a uniform hue is 1/12
    assert np.isclose(found["variance"].to_numpy()[0], 0.5**2 / 12, rtol=0.05)
    assert found["variance"].to_numpy()[1:].tolist() == [0, 0]


def test_portions_and_groups_that_fit_make_no_difference(subject, data, units, result):
    """A memory bound takes layers and units apart, other workers take rows apart: the numbers stay."""
    spec = {"segments": units, "augmentations": ("brightness", "hue", "saturation")}
    plan = plan_sensitivity(subject, data, SensitivitySpec(**QUICK, **spec), run=ns.Run(threads=1, batch_size=64))
    need = max(sweep.state + sweep.working for sweep in plan.sweeps)
    small = ns.Run(threads=1, batch_size=64, memory=need // 3)
    assert len(plan_sensitivity(subject, data, SensitivitySpec(**QUICK, **spec), run=small).sweeps) > len(plan.sweeps)
    parted = run_of(subject, data, run=small, **spec)
    for name in ("first", "total", "shapley", "mean", "variance"):
        assert np.allclose(parted.table[name], result.table[name].to_numpy(), atol=1e-5, equal_nan=True), name
    assert parted.table["index"].to_numpy().tolist() == result.table["index"].to_numpy().tolist()


def test_it_goes_on_where_it_was(subject, data, units, result, tmp_path):
    """A run with checkpoints gives the same bits, also when it is asked for again."""
    spec = {"segments": units, "augmentations": ("brightness", "hue", "saturation")}
    run = ns.Run(threads=1, batch_size=64, checkpoint=tmp_path / "checkpoint")
    for _ in range(2):
        assert run_of(subject, data, run=run, **spec).tree.identical(result.tree)


def test_the_page_shows_channels_side_by_side(result):
    """One row for each unit with all channels and reasons; the same map on hue, saturation and value in turn."""
    page = sensitivity_page(result)
    tables = {block.name: block.frame for block in page.blocks if isinstance(block, Table)}
    assert tables["segments"]["units"].tolist() == [2, 1]
    rows = tables["units-by-channel"]
    assert rows[["segment", "unit"]].to_numpy().tolist() == [["first", 1], ["first", 3], ["late", 5]]
    assert rows["reasons"].tolist() == ["", "hue si 2; erasing shpv 1", ""]
    total, names = result.table["total"].to_numpy(), result.table["factor_name"].to_numpy()
    assert rows["value"][1].startswith(names[total[5].argmax()])
    assert f"{total[5].max():.2f} (" in rows["value"][1]
    gallery = next(block for block in page.blocks if isinstance(block, Gallery) and block.name == "channels-0")
    labels = [strip.label for strip in gallery.strips[1:]]
    assert labels[:3] == [f"first:1 first-order index, {channel}" for channel in CHANNELS]
    assert len(labels) == 2 * 4 * 3
    assert "listed for hue si 2; erasing shpv 1" in gallery.strips[1 + 4 * 3].note


def test_runs_of_two_sets_are_joined(subject, data, tmp_path):
    """The joined result knows its segments and shows them; runs of other units are not joined."""

    def made(units, augmentation):
        write_segments(tmp_path / "units.json", [Segment("first", ("conv", "relu", "pool"), units)])
        small = {"points": 16, "permutations": 8}
        return run_of(subject, data, segments=str(tmp_path / "units.json"), augmentations=(augmentation,), **small)

    hue = made((1, 3), "hue")
    joined = ns.join_sets([hue, made((1, 3), "hflip")])
    assert joined.tree["segments"].to_dataset().identical(hue.tree["segments"].to_dataset())
    (gallery,) = (one for one in sensitivity_page(joined).blocks if getattr(one, "name", "").startswith("channels-"))
    shown = [picture.caption.partition(" ")[0] for picture in gallery.strips[1].pictures]
    assert shown == ["hue", "class-1", "image-1", "hflip", "class-2", "image-2"]
    assert [path.name for path in export_sensitivity(joined, tmp_path / "original")] == ["manifest.json"]
    with pytest.raises(InputError, match="units differ"):
        ns.join_sets([hue, made((0, 3), "hflip")])


def test_files_of_the_original(subject, data, units, result, tmp_path):
    """Value files for each channel with the original's checkpoints, read again; a run beside them is as they are."""
    paths = export_sensitivity(result, tmp_path)
    names = {path.name for path in paths}
    end = "confetti_{}selected_single_units_part=all_augnm=brightness+saturation+hue"
    for kind in ("sitv", "si", "shptv", "shpv"):
        assert {f"{channel}_{kind}_colours_{end.format('values_')}.hdf5" for channel in CHANNELS} <= names
    assert f"si_colours_{end.format('activations_params_')}.npz" in names
    with h5py.File(tmp_path / f"value_si_colours_{end.format('values_')}.hdf5") as content:
        assert sorted(content) == ["modules_dict.first.2", "modules_dict.late.0"]
        group = content["modules_dict.first.2"]
        assert group.attrs["shape"].tolist() == [2, 6, 6]
        total = result.tree["maps/first.value"].to_dataset()["total"].to_numpy()
        order = [list(result.table["factor_name"].to_numpy()).index(name) for name in content.attrs["variables"]]
        assert np.array_equal(
            group["si+sT"][1], np.moveaxis(total, -1, 0)[order].reshape(len(order), -1), equal_nan=True
        )
    assert {file.name.channel for file in read_published(tmp_path)} == set(CHANNELS)
    spec = {"segments": units, "augmentations": ("brightness", "hue", "saturation"), "channels": ("hue", "value")}
    compared = run_of(subject, data, compare_with=str(tmp_path), **spec).tree["comparison"].to_dataset()
    assert {name.partition("_")[0] for name in compared["file_name"].to_numpy()} == {"hue", "value"}
    assert np.allclose(compared["difference"], 0, atol=1e-5)


def test_layers_and_channels_can_be_chosen(subject, data, units):
    """By name or glob, and by channel; only what was chosen is in the result."""
    names = [layer.name for layer in chosen_layers(subject, SensitivitySpec(segments=units))]
    assert names == [f"{segment}.{channel}" for segment in ("first", "late") for channel in CHANNELS]
    found = run_of(subject, data, segments=units, channels=("value",), layers=("first.*",), points=16, permutations=8)
    assert found.tree["layers"].to_dataset()["layer_name"].to_numpy().tolist() == ["first.value"]
    assert found.tree["segments"].to_dataset().sizes["unit"] == 2
    setting = settle(subject, data, SensitivitySpec(**QUICK, segments=units, layers=("late.hue",)), ns.Run())
    assert setting.subject.module.wanted == (("late", "hue"),)


def test_the_original_order_is_a_deviation(data, units):
    """Normalised images give other numbers than pixels do, and say so."""
    own = replace(subject_of(Colours().eval()), preprocess=ns.Preprocess(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3)))
    small = {"segments": units, "augmentations": ("brightness",), "points": 16, "permutations": 8}
    pixels, normalised = (run_of(own, data, **small, legacy=legacy) for legacy in ((), ("normalised-hsv",)))
    assert not np.allclose(pixels.table["mean"], normalised.table["mean"].to_numpy(), rtol=0.1)
    assert normalised.provenance.legacy == ("normalised-hsv",)


def test_what_needs_answers_is_refused(subject, data, units):
    """Contrast and severity by name; analyses and comparisons that have no network behind them."""
    for name in ("contrast", "severity"):
        with pytest.raises(InputError, match=f"'{name}' cannot be had of segments"):
            run_of(subject, data, segments=units, estimators=("sobol", name))


@pytest.mark.parametrize("layer", ["first.hues", "features.0"])
def test_other_layers_are_refused(subject, data, units, layer):
    """The answer lists what there is."""
    with pytest.raises(UnknownName, match=rf"'{layer}' is no layer of the segments.*first\.hue"):
        run_of(subject, data, segments=units, layers=(layer,))


def test_a_file_of_another_network(subject, data):
    """The preset of a network that this one is not."""
    with pytest.raises(UnknownName, match=r"segment 'features2': layer 'features.0' is not in colours"):
        run_of(subject, data, segments="alexnet")
