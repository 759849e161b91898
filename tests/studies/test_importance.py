"""The `importance` study: planted units, noise, slow twins of its numbers, and inputs that cannot work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import neuronscope as ns
from neuronscope.result import open_result, same
from neuronscope.studies.importance import RULES
from neuronscope.studies.importance.spec import Rule

CLASSES = ("a", "b", "c", "d", "none")
SHOWN = 4  # classes that have images
PER_CLASS = 3  # units that carry a class
UNITS = 15
CONTROLS = 60


class Triples(nn.Module):
    """Fifteen units on images whose brightest quadrant is the class: three carry each of four classes, three nothing.

    Units 3c to 3c + 2 respond, more and less strongly, to quadrant c alone and write to the logit of class c alone, so
    that one of them is enough to be right. Unit 12 is dead, 13 and 14 respond a little to everything and write nothing.
    Where all units of a class are silent the fifth class wins, of which there are no images.
    """

    def __init__(self) -> None:  # noqa: D107 the class says it
        super().__init__()
        self.pool = nn.AvgPool2d(4)
        self.mix = nn.Conv2d(1, UNITS, 2)
        self.act = nn.ReLU(inplace=True)
        self.flat = nn.Flatten()
        self.head = nn.Linear(UNITS, len(CLASSES))
        with torch.no_grad():
            for weights in (self.mix.weight, self.mix.bias, self.head.weight, self.head.bias):
                weights.zero_()
            for c in range(SHOWN):
                for k in range(PER_CLASS):
                    unit = PER_CLASS * c + k
                    self.mix.weight[unit, 0, c // 2, c % 2] = 1.0 - 0.1 * k
                    self.mix.bias[unit] = -0.3
                    self.head.weight[c, unit] = 1.0
            self.mix.bias[12] = -10.0
            self.mix.weight[13:] = torch.tensor([[0.01, 0.012], [0.011, 0.01]])
            self.head.bias[4] = 0.01

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(self.flat(self.act(self.mix(self.pool(image)))))


def subject_of(module: nn.Module, *, classes: Sequence[str] = CLASSES, name: str = "network") -> ns.Subject:
    """A network on grey images of 8 x 8 pixels."""
    return ns.subject_from(
        module, name=name, input_shape=(1, 8, 8), preprocess=ns.Preprocess(channels=1), classes=tuple(classes)
    )


def quadrants(images: int, *, seed: int = 0, classes: Sequence[str] = CLASSES) -> ns.Data:
    """Images whose brightest quadrant is their class, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % SHOWN
    pixels = rng.integers(0, 40, (images, 1, 8, 8), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += rng.integers(140, 200, dtype=np.uint8)
    return ns.data_from_arrays(torch.from_numpy(pixels), labels, name="quadrants", classes=tuple(classes))


@pytest.fixture(scope="module")
def subject() -> ns.Subject:
    """A network whose units are known."""
    return subject_of(Triples(), name="triples")


@pytest.fixture(scope="module")
def data() -> ns.Data:
    """Images for it."""
    return quadrants(160)


ASKED = (0, 2)  # classes that are asked about
CARRIERS = [[0, 1, 2], [6, 7, 8]]  # and the units that carry them


@pytest.fixture(scope="module")
def planted(subject: ns.Subject, data: ns.Data) -> ns.Result:
    """The study with all rules on the network whose units are known."""
    spec = ns.ImportanceSpec(
        layers=("act",),
        which_class=("a", "2"),
        rules=get_args(Rule),
        budget=PER_CLASS / UNITS,
        controls=CONTROLS,
        alone=("none",),
        halves=2,
        shapley_permutations=40,
        shapley_images=40,
        shapley_top=3,
    )
    return ns.run_importance(subject, data, spec, run=ns.Run(batch_size=16))


@pytest.fixture(scope="module")
def layer_alone(subject: ns.Subject, data: ns.Data) -> xr.Dataset:
    """The layer by itself, by a rule that looks at activations alone."""
    spec = ns.ImportanceSpec(
        layers=("act",),
        which_class=("a", "c"),
        rules=("activation",),
        budget=PER_CLASS / UNITS,
        controls=20,
        layer_controls=CONTROLS,
        ablate=("none",),
        halves=2,
    )
    return ns.run_importance(subject, data, spec, run=ns.Run(batch_size=16)).tree["layers"].to_dataset().isel(layer=0)


def test_every_rule_finds_the_planted_units(planted):
    """The three best units of a class are the three that carry it, by every rule that knows classes."""
    table = planted.table
    assert table["rule_name"].to_numpy().tolist() == list(RULES)
    assert table["class_name"].to_numpy().tolist() == ["a", "c"]
    for rule, member, score in zip(
        table["rule_name"].to_numpy(),
        table["member"].to_numpy().transpose(1, 2, 0),
        table["score"].to_numpy().transpose(1, 2, 0),
        strict=True,
    ):
        for k, own in enumerate(CARRIERS):
            if rule == "nisp":  # one ranking for all classes; what never changes has no path
                np.testing.assert_array_equal(score[k], score[0])
                assert score[k][12] == 0
                continue
            assert np.flatnonzero(member[k]).tolist() == own, f"{rule}, class {ASKED[k]}"
            assert set(np.argsort(-np.nan_to_num(score[k], nan=-np.inf), kind="stable")[:3]) == set(own), rule


def test_without_its_units_a_class_falls_and_no_other_does(planted, layer_alone):
    """Taking the three out takes the class away and leaves the others; alone they keep it. Random triples take nothing."""
    found = planted.tree["subnetworks"].to_dataset()
    knows = found["rule_name"].to_numpy() != "nisp"
    for name, value in (("drop_own", -1.0), ("drop_others", 0.0), ("drop_selective", 1.0), ("keep_own", 1.0)):
        np.testing.assert_allclose(found[name].to_numpy()[knows], value, err_msg=name)
        np.testing.assert_allclose(layer_alone[name], value, err_msg=name)
    np.testing.assert_allclose(found["keep_informedness"].to_numpy()[knows], 1.0)
    np.testing.assert_allclose(found["intact"], 1.0)
    np.testing.assert_array_equal(found["images"], [20, 20])
    assert (found["size"].to_numpy()[knows] == PER_CLASS).all()
    for name in ("drop_own", "drop_selective", "drop_own_changed"):
        assert (found[f"{name}_q"].to_numpy()[knows] < 0.05).all(), name
    assert (found["drop_others_q"].to_numpy()[knows] > 0.5).all()
    assert (np.abs(found["drop_own_random"].to_numpy()) < 0.1).all()
    assert (np.abs(found["drop_others_random"].to_numpy()) < 0.1).all()
    assert (layer_alone["drop_selective_q"] < 0.05).all()
    assert (layer_alone["between_q"] < 0.05).all()


def test_masking_holds_and_silences_what_it_says(planted):
    """Units that masking calls ON respond to the class, and held at their means they say it for every image."""
    codes = planted.table["mask"].to_numpy()
    for k, own in enumerate(CARRIERS):
        on = np.flatnonzero(codes[:, k] == 1)
        assert set(on) <= set(own)
        assert len(on)
    found = planted.tree["masking"].to_dataset()
    np.testing.assert_array_equal(found["on"].to_numpy().sum(axis=0), (codes == 1).sum(axis=0))
    np.testing.assert_array_equal(found["off"].to_numpy().sum(axis=0), (codes == 0).sum(axis=0))
    np.testing.assert_allclose(found["keep_own"], 1.0)


def test_exact_ablation_and_the_summaries_of_units(planted):
    """Each planted unit costs its class logits and no other class anything; none is needed alone."""
    table = planted.table
    logit, q = table["logit_fall"].to_numpy(), table["logit_fall_q"].to_numpy()
    carries = np.zeros((UNITS, 2), dtype=bool)
    for k, own in enumerate(CARRIERS):
        carries[own, k] = True
    assert (logit[carries] > 0.05).all()
    assert (q[carries] < 0.05).all()
    assert (logit[~carries] == 0).all()
    assert (q[~carries] > 0.05).all()
    assert (table["accuracy_fall"].to_numpy() == 0).all()
    frame = planted.units()
    assert frame["layer"].unique().tolist() == ["act"]
    assert frame["index"].tolist() == list(range(UNITS))
    for k, own in enumerate(CARRIERS):
        assert (frame["importance.best_class"][own] == k).all()
        assert (frame["importance.largest_fall_class"][own] == k).all()
    np.testing.assert_allclose(frame["importance.best_score"], table["score"].to_numpy()[:, 0].max(axis=1))
    assert np.isnan(frame["importance.best_score"][12])  # the dead unit has no scale to measure its contrast by
    assert frame["importance.best_class"][12] == -1
    assert (frame["importance.largest_fall"] == 0).all()
    assert (frame["importance.largest_fall_q"] > 0.05).all()
    assert frame["importance.reuse"].tolist() == (carries.sum(axis=1)).tolist()
    assert all(table[name].attrs["long_name"] for name in table.data_vars)


def test_curves_of_a_known_ranking(layer_alone):
    """Deleting the three best units of fifteen ends at chance, inserting one of them is enough."""
    units_in = np.round(layer_alone["fraction"].to_numpy() * UNITS)
    for k in range(2):
        np.testing.assert_allclose(layer_alone["insertion"].to_numpy()[0, k], np.where(units_in >= 1, 1.0, 0.5))
        np.testing.assert_allclose(layer_alone["deletion"].to_numpy()[0, k], np.where(units_in >= PER_CLASS, 0.5, 1.0))


def test_saving_and_opening_changes_nothing(planted, tmp_path):
    """The file gives back every array and the options, and the study's way to show them."""
    opened = open_result(planted.save(tmp_path / "r.zarr"))
    assert same(opened, planted)
    assert ns.open(tmp_path / "r.zarr").view is planted.view
