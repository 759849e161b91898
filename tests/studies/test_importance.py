"""The `importance` study: planted units, noise, slow twins of its numbers, and inputs that cannot work."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from torch import nn

import neuronscope as ns
from neuronscope import checkpoint
from neuronscope.errors import DataError, PortionDone
from neuronscope.executors import Processes
from neuronscope.maths.importance import inf_fs
from neuronscope.maths.streams import ClassMoments
from neuronscope.result import open_result, same
from neuronscope.steps.silence import donors
from neuronscope.studies.importance import RULES, plan_importance
from neuronscope.studies.importance.evidence import (
    Evidence,
    few_rows,
    gather,
    look_groups,
    looking,
    walk_groups,
    walking,
)
from neuronscope.studies.importance.games import game_images
from neuronscope.studies.importance.layers import effort
from neuronscope.studies.importance.reuse import halvings
from neuronscope.studies.importance.rules import HALVED, choose_units, score_units
from neuronscope.studies.importance.setting import Setting, settle
from neuronscope.studies.importance.single import unit_effects
from neuronscope.studies.importance.spec import Rule
from neuronscope.studies.importance.study import Found, decide
from neuronscope.studies.importance.variants import Case, all_cases, layer_cases, random_members, sizes
from neuronscope.studies.importance.verify import try_layer, try_networks
from neuronscope.sweep import planned

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
    """Taking the three out takes the class away and no other; alone they keep it. Random triples take nothing."""
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


class Small(nn.Module):
    """Two layers of units that are taught a little, so that classes hang on several units and some are confused."""

    def __init__(self) -> None:  # noqa: D107 the class says it
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(1, 6, 3, stride=2)
        self.act = nn.ReLU()
        self.flat = nn.Flatten()
        self.hidden = nn.Linear(54, 8)
        self.top = nn.ReLU()
        self.head = nn.Linear(8, len(CLASSES))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(self.top(self.hidden(self.flat(self.act(self.conv(image))))))


LAYERS = ("act", "top")
SIZES = (6, 8)


def blurred(images: int, *, seed: int = 5) -> ns.Data:
    """Quadrants that are hard to tell, in an order by class, with a few images of unknown class."""
    rng = np.random.default_rng(seed)
    base = quadrants(images, seed=seed)
    order = np.argsort(base.labels, kind="stable")
    noise = rng.integers(0, 250, (images, 1, 8, 8))
    pixels = (0.35 * base.pixels.numpy()[order] + 0.65 * noise).astype(np.uint8)
    labels = base.labels[order].copy()
    labels[[7, images - 2]] = -1
    return ns.data_from_arrays(torch.from_numpy(pixels), labels, name="blurred", classes=CLASSES)


@pytest.fixture(scope="module")
def small() -> ns.Subject:
    """A network that makes mistakes."""
    network, lesson = Small(), blurred(240, seed=9)
    known = torch.from_numpy(lesson.labels) >= 0
    images = ns.Preprocess(channels=1).batch(lesson.pixels)[known]
    labels = torch.from_numpy(lesson.labels)[known]
    teacher = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(25):
        teacher.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        teacher.step()
    return subject_of(network, name="small")


@pytest.fixture(scope="module")
def hard() -> ns.Data:
    """Images for it."""
    return blurred(120)


@dataclass(frozen=True)
class Known:
    """A study half-way: what was settled, gathered and decided."""

    setting: Setting
    evidence: Evidence
    found: Found

    @property
    def images(self) -> torch.Tensor:
        """The selection images as the network gets them."""
        return self.setting.subject.preprocess.batch(self.setting.selection.pixels)

    @property
    def labels(self) -> np.ndarray:
        """Their classes."""
        return self.setting.selection.labels


def half_way(subject: ns.Subject, data: ns.Data, spec: ns.ImportanceSpec, *, batch_size: int = 16) -> Known:
    """Everything up to the choice of units."""
    setting = settle(subject, data, spec, ns.Run(batch_size=batch_size))
    evidence = gather(setting)
    return Known(setting, evidence, decide(setting, evidence))


TWINS: tuple[Rule, ...] = HALVED


@pytest.fixture(scope="module")
def known(small: ns.Subject, hard: ns.Data) -> Known:
    """The rules that can be written down in a few lines, on that network."""
    return half_way(small, hard, ns.ImportanceSpec(layers=LAYERS, rules=TWINS, path_steps=4, controls=0))


def outputs_of(subject: ns.Subject, images: torch.Tensor, name: str) -> torch.Tensor:
    """A layer's output, by a plain hook."""
    kept = []
    handle = subject.module.get_submodule(name).register_forward_hook(lambda _m, _i, out: kept.append(out))
    subject.module(images)
    handle.remove()
    return kept[0]


def unit_means(subject: ns.Subject, images: torch.Tensor, names: Sequence[str] = LAYERS) -> np.ndarray:
    """(n, units of all layers): mean of each unit's map."""
    tables = [outputs_of(subject, images, name).detach() for name in names]
    return np.concatenate([table.reshape(*table.shape[:2], -1).double().mean(2).numpy() for table in tables], axis=1)


def test_moments_of_any_parts_are_those_of_their_images(known):
    """Whichever random parts are put together: counts, means and variances by class are those of these images."""
    values, groups = unit_means(known.setting.subject, known.images), known.setting.groups
    table = known.evidence.tables["mean"]
    assert set(groups[groups >= 0] % 8) == set(range(8))
    np.testing.assert_array_equal(groups[groups >= 0] // 8, known.labels[groups >= 0])
    for number in range(256):
        parts = (number >> np.arange(8) & 1).astype(bool)
        found = table.over(parts)
        for c in range(len(CLASSES)):
            own = values[(known.labels == c) & parts[groups % 8]]
            assert found.counts[c] == len(own)
            if len(own):
                np.testing.assert_allclose(found.means[:, c], own.mean(axis=0), rtol=1e-5, atol=1e-7)
                np.testing.assert_allclose(found.variances[:, c], own.var(axis=0), rtol=1e-4, atol=1e-7)
            else:
                assert np.isnan(found.means[:, c]).all()


def gradients_of(subject: ns.Subject, images: torch.Tensor, value, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Output of a layer and the gradient of a value of the logits with respect to it."""
    kept = []
    handle = subject.module.get_submodule(name).register_forward_hook(lambda _m, _i, out: kept.append(out))
    with torch.enable_grad():
        logits = subject.module(images.clone().requires_grad_())
        (slope,) = torch.autograd.grad(value(logits).sum(), kept[0])
    handle.remove()
    return kept[0].detach(), slope


def per_image(known: Known, rule: str) -> np.ndarray:
    """(n, units): what a rule averages over the images of a class, written down plainly."""
    subject, images = known.setting.subject, known.images
    label = torch.from_numpy(known.labels).clamp_min(0)
    rows = torch.arange(len(label))

    def own(logits):
        return logits[rows, label]

    values = {
        "gradient": own,
        "gradient-contrast": lambda logits: own(logits) - (logits.sum(1) - own(logits)) / (logits.shape[1] - 1),
        "taylor": lambda logits: nn.functional.cross_entropy(logits, label, reduction="none"),
    }
    tables = []
    for name in LAYERS:
        if rule in values:
            output, slope = gradients_of(subject, images, values[rule], name)
            pull = (output * slope).flatten(2).sum(2) if output.ndim > 2 else output * slope
            tables.append(pull.abs() if rule == "taylor" else pull)
        elif rule == "ablation":
            plain = own(subject.module(images)).detach()
            falls = []
            for unit in range(subject.layer(name).units):
                gone = ns.UnitSet(name, subject.layer(name).units, (unit,))
                with ns.edited(subject, [ns.drop(gone)]):
                    falls.append(plain - own(subject.module(images)).detach())
            tables.append(torch.stack(falls, dim=1))
        else:
            steps = [gradients_of(subject, images * k / 4, own, name) for k in range(5)]
            ends = list(itertools.pairwise(steps))
            if rule == "influence":
                total = sum((before + after) / 2 / 4 for (_, before), (_, after) in ends)
            else:
                total = sum((now - past) * (before + after) / 2 for (past, before), (now, after) in ends)
            tables.append(total.reshape(*total.shape[:2], -1).sum(2))
    return torch.cat(tables, dim=1).double().numpy()


def plain_scores(known: Known, rule: str, chosen: np.ndarray) -> np.ndarray:
    """A rule's scores from the chosen selection images, by loops over units and classes."""
    labels = np.where(chosen, known.labels, -1)
    present = [c for c in range(len(CLASSES)) if (labels == c).any()]
    scores = np.full((sum(SIZES), len(CLASSES)), np.nan)
    if rule in ("thresholding", "masking", "activation", "selectivity"):
        values = unit_means(known.setting.subject, known.images)
        for unit, c in itertools.product(range(sum(SIZES)), present):
            mine = values[labels == c, unit]
            rest = [values[labels == other, unit] for other in present if other != c]
            others = np.mean([one.mean() for one in rest])
            if rule == "activation":
                scores[unit, c] = mine.mean()
            elif rule == "thresholding":
                spread = values[labels >= 0, unit].std()
                scores[unit, c] = (mine.mean() - others) / spread if spread else np.nan
            elif rule == "masking":
                squared = mine.var(ddof=1) / len(mine)
                squared += sum(one.var(ddof=1) / len(one) for one in rest) / len(rest) ** 2
                scores[unit, c] = (mine.mean() - others) / np.sqrt(squared) if squared else np.nan
            elif mine.mean() + others > 0:
                scores[unit, c] = (mine.mean() - others) / (mine.mean() + others)
        return scores
    values = per_image(known, rule)
    for c in present:
        scores[:, c] = values[labels == c].mean(axis=0)
    if rule == "taylor":
        for place in (slice(0, 6), slice(6, 14)):
            scores[place] /= np.sqrt((scores[place] ** 2).sum(axis=0))
    return scores


@pytest.mark.parametrize("rule", TWINS)
def test_scores_are_those_of_a_plain_loop(known, rule):
    """Every rule equals its definition, on all selection images and on the halves that reuse is told from."""
    groups = known.setting.groups
    np.testing.assert_allclose(
        known.found.scores[rule], plain_scores(known, rule, groups >= 0), rtol=2e-4, atol=2e-6, equal_nan=True
    )
    half = np.array([True, False, False, True, True, False, True, False])
    for parts in (half, ~half):
        found = score_units(known.setting, known.evidence, rule, parts=parts)
        expected = plain_scores(known, rule, (groups >= 0) & parts[groups % 8])
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-6, equal_nan=True)
        members = choose_units(known.setting, known.evidence, found, rule, parts=parts).members
        for place, c in itertools.product(known.setting.places, range(SHOWN)):
            size = place.stop - place.start
            best = np.argsort(-found[place, c], kind="stable")[: int(np.ceil(0.3 * size))]
            assert set(np.flatnonzero(members[place, c])) == set(best[~np.isnan(found[place, c][best])])


def test_the_classless_rule_hands_scores_back_through_absolute_weights(small, hard):
    """NISP of a layer is the absolute weights after it, transposed, times the scores of the next layer."""
    known = half_way(small, hard, ns.ImportanceSpec(layers=LAYERS, rules=("nisp",), controls=0))
    scores = known.found.scores["nisp"]
    start = inf_fs(unit_means(small, known.images, ("top",)))
    np.testing.assert_allclose(scores[6:, 0], start, rtol=1e-4)
    block = small.module.hidden.weight.detach().double().abs().numpy().reshape(8, 6, 9)
    np.testing.assert_allclose(scores[:6, 0], np.einsum("abp,a->b", block, start), rtol=1e-4)


def test_shapley_values_are_those_of_all_orders(small, hard):
    """Sampled values lie around the exact ones, which are averages over all sets of the other units."""
    spec = ns.ImportanceSpec(
        layers=("act",), rules=("shapley",), controls=0, shapley_images=24, shapley_permutations=2000, shapley_top=5
    )
    known = half_way(small, hard, spec)
    sample = game_images(known.setting)
    assert np.bincount(sample.labels, minlength=4).tolist() == [6, 6, 6, 6]
    images = small.preprocess.batch(sample.pixels)

    def right(members: tuple[int, ...]) -> np.ndarray:
        with torch.inference_mode(), ns.edited(small, [ns.keep(ns.UnitSet("act", 6, members))]):
            return small.module(images).argmax(1).numpy() == sample.labels

    worth = {
        members: [right(members)[sample.labels == c].mean() for c in range(SHOWN)]
        for size in range(7)
        for members in itertools.combinations(range(6), size)
    }
    exact = np.zeros((6, SHOWN))
    for unit in range(6):
        for members, without in worth.items():
            if unit not in members:
                weight = math.factorial(len(members)) * math.factorial(5 - len(members)) / math.factorial(6)
                exact[unit] += weight * (np.array(worth[tuple(sorted((*members, unit)))]) - without)
    played = known.found.played
    wide = 2 * (played.high - played.low)[:, 1:] + 0.03  # walks may end early within a tolerance of 0.02
    assert (np.abs(played.value[:, 1:] - exact) <= wide).all()
    np.testing.assert_array_equal(known.found.scores["shapley"][:, :4], played.value[:, 1:])
    assert np.isnan(known.found.scores["shapley"][:, 4]).all()


@pytest.fixture(scope="module")
def told(small: ns.Subject, hard: ns.Data) -> ns.Result:
    """The study on the network that makes mistakes."""
    return ns.run_importance(small, hard, TOLD, run=ns.Run(batch_size=16))


TOLD = ns.ImportanceSpec(
    layers=LAYERS, rules=("thresholding", "masking"), controls=20, layer_controls=20, curves=4, halves=3, budget=0.4
)


def logits_with(subject: ns.Subject, images: torch.Tensor, edits: Sequence[ns.Edit]) -> torch.Tensor:
    """What an edited network says."""
    with torch.inference_mode(), ns.edited(subject, list(edits)):
        return subject.module(images)


@pytest.fixture(scope="module")
def report(small: ns.Subject, hard: ns.Data) -> tuple[torch.Tensor, np.ndarray]:
    """The labelled report images of that study as the network gets them, and their classes."""
    data = settle(small, hard, TOLD, ns.Run()).report
    known = np.flatnonzero(data.labels >= 0)
    return small.preprocess.batch(data.pixels[known]), data.labels[known]


def dropping(gone: np.ndarray) -> list[ns.Edit]:
    """Units of both layers silenced."""
    first, second = np.flatnonzero(gone[:6]).tolist(), np.flatnonzero(gone[6:]).tolist()
    return [ns.drop(ns.UnitSet("act", 6, tuple(first))), ns.drop(ns.UnitSet("top", 8, tuple(second)))]


def test_subnetworks_are_those_of_edited_forward_passes(told, small, report):
    """Accuracies, changes, labels and confusion tables equal plain passes through the network with units dropped."""
    images, labels = report
    found = told.tree["subnetworks"].to_dataset()
    member = told.table["member"].to_numpy().astype(bool)
    before = logits_with(small, images, []).argmax(1).numpy()
    assert 0.4 < (before == labels).mean() < 1.0, "mistakes are needed here"
    np.testing.assert_allclose(found["intact_full"], (before == labels).mean())
    for r, k in itertools.product(range(2), range(SHOWN)):
        own = labels == k
        kept = logits_with(small, images, dropping(~member[:, r, k])).argmax(1).numpy()
        left = logits_with(small, images, dropping(member[:, r, k])).argmax(1).numpy()
        one = found.isel({"rule": r, "class": k})
        informed = (kept[own] == k).mean() - (kept[~own] == k).mean()
        precision = (kept[own] == k).sum() / max((kept == k).sum(), 1)
        fall_own = ((left == labels)[own].mean()) - (before == labels)[own].mean()
        fall_others = ((left == labels)[~own].mean()) - (before == labels)[~own].mean()
        expected = {
            "size": member[:, r, k].sum(),
            "keep_own": (kept[own] == k).mean(),
            "keep_full": (kept == labels).mean(),
            "keep_precision": precision,
            "keep_informedness": informed,
            "modularity_b": (kept[own] == k).mean() * precision,
            "keep_labels": len(np.unique(kept)),
            "drop_own": fall_own,
            "drop_others": fall_others,
            "drop_selective": fall_others - fall_own,
            "intact": (before == labels)[own].mean(),
            "images": own.sum(),
        }
        for name, value in expected.items():
            assert float(one[name]) == pytest.approx(value, abs=1e-12), name
        changes = [(left == labels)[labels == c].mean() - (before == labels)[labels == c].mean() for c in range(SHOWN)]
        np.testing.assert_allclose(one["change"], changes, atol=1e-12)
        for name, said, base in (("keep_confusion", kept, None), ("drop_confusion_change", left, before)):
            table = np.zeros((SHOWN, SHOWN + 1), dtype=int)
            np.add.at(table, (labels, said), 1)
            if base is not None:
                np.add.at(table, (labels, base), -1)
            np.testing.assert_array_equal(one[name], table, err_msg=name)
        assert one["labels"].to_numpy().tolist() == [int(c in kept) for c in range(SHOWN)] + [int(4 in kept)]


def test_random_sets_have_the_sizes_of_what_they_are_held_against(told, small, hard, report):
    """The controls' mean and p-value are those of as many random units in each layer, silenced and told plainly."""
    images, labels = report
    setting = settle(small, hard, TOLD, ns.Run(batch_size=16))
    member = told.table["member"].to_numpy().astype(bool)
    counts = sizes(setting, member[:, 0, 1])
    assert counts == (3, 4)
    drawn = random_members(setting, counts, draws=20)
    assert (drawn[:, :6].sum(axis=1) == 3).all()
    assert (drawn[:, 6:].sum(axis=1) == 4).all()
    assert len({row.tobytes() for row in drawn}) > 15
    own = labels == 1
    before = (logits_with(small, images, []).argmax(1).numpy() == labels).astype(float)
    falls = []
    for gone in drawn:
        after = logits_with(small, images, dropping(gone)).argmax(1).numpy() == labels
        falls.append((after - before)[~own].mean() - (after - before)[own].mean())
    one = told.tree["subnetworks"].to_dataset().isel({"rule": 0, "class": 1})
    assert float(one["drop_selective_random"]) == pytest.approx(np.mean(falls))
    spread = np.std(falls, ddof=1) * np.sqrt(1 + 1 / 20)
    t = (float(one["drop_selective"]) - np.mean(falls)) / spread
    limit = stats.t.ppf(0.975, 19) * spread
    assert float(one["drop_selective_random_high"]) == pytest.approx(np.mean(falls) + limit)
    p = told.tree["subnetworks"]["drop_selective_q"].to_numpy()
    assert stats.t.sf(t, 19) <= p[0, 1] + 1e-12


def test_curves_of_a_layer_are_those_of_units_taken_out_one_after_another(told, small, report):
    """Balanced accuracy along a ranking, its area, and the area between, from plain passes."""
    images, labels = report
    found = told.tree["layers"].to_dataset().isel(layer=0)
    assert found["layer_name"].item() == "top"
    score = told.table["score"].to_numpy()[6:]
    for r, k in itertools.product(range(2), (0, 3)):
        order = np.argsort(-np.nan_to_num(score[:, r, k], nan=-np.inf), kind="stable")
        curves = {"deletion": [], "insertion": []}
        for step in range(5):
            best = order[: round(step * 8 / 4)]
            for name, gone in (("deletion", best), ("insertion", np.setdiff1d(order, best))):
                edits = [ns.drop(ns.UnitSet("top", 8, tuple(sorted(gone.tolist()))))]
                says = logits_with(small, images, edits).argmax(1).numpy() == k
                curves[name].append((says[labels == k].mean() + (~says)[labels != k].mean()) / 2)
        one = found.isel({"rule": r, "class": k})
        for name, heights in curves.items():
            np.testing.assert_allclose(one[name], heights, atol=1e-12, err_msg=name)
        gap = np.array(curves["insertion"]) - np.array(curves["deletion"])
        assert float(one["between"]) == pytest.approx((gap[:-1] + gap[1:]).mean() / 2)
        assert float(one["between_low"]) <= float(one["between"]) <= float(one["between_high"])


def test_falls_of_single_units_and_their_tests(told, small, report):
    """Means, Student's limits and q-values of silencing units alone; McNemar's from counted gains and losses."""
    images, labels = report
    table = told.table
    base = logits_with(small, images, [])
    p = np.full((14, SHOWN), np.nan)
    for row, (layer, size, unit) in enumerate([("act", 6, u) for u in range(6)] + [("top", 8, u) for u in range(8)]):
        after = logits_with(small, images, [ns.drop(ns.UnitSet(layer, size, (unit,)))])
        for c in range(SHOWN):
            own = labels == c
            fall = (base - after)[own, c].double().numpy()
            was, now = base.argmax(1).numpy()[own] == c, after.argmax(1).numpy()[own] == c
            assert float(table["logit_fall"][row, c]) == pytest.approx(fall.mean(), rel=1e-4, abs=1e-6)
            assert float(table["accuracy_fall"][row, c]) == pytest.approx(was.mean() - now.mean(), abs=1e-9)
            half = stats.t.ppf(0.975, own.sum() - 1) * fall.std(ddof=1) / np.sqrt(own.sum())
            assert float(table["logit_fall_high"][row, c]) == pytest.approx(fall.mean() + half, rel=1e-3, abs=1e-5)
            lost, gained = int((was & ~now).sum()), int((~was & now).sum())
            p[row, c] = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    np.testing.assert_allclose(table["accuracy_fall_q"], stats.false_discovery_control(p.ravel()).reshape(p.shape))
    falls = table["accuracy_fall"].to_numpy()
    assert (falls > 0).any()
    np.testing.assert_allclose(table["largest_fall"], falls.max(axis=1))
    worst = table["largest_fall_class"].to_numpy()
    np.testing.assert_allclose(falls[np.arange(14), worst], falls.max(axis=1))
    np.testing.assert_allclose(table["largest_fall_q"], table["accuracy_fall_q"].to_numpy()[np.arange(14), worst])


def test_connections_are_the_strongest_between_members(told, small):
    """Weight times mean activation between chosen units of neighbouring layers, and to the class's output."""
    edges = told.tree["edges"].to_dataset()
    assert edges["layer_name"].to_numpy().tolist() == ["act", "top", "head"]
    table = told.table
    member, means = table["member"].to_numpy()[:, 0].astype(bool), table["class_mean"].to_numpy()
    hidden = small.module.hidden.weight.detach().double().reshape(8, 6, 9).mean(2).numpy()
    head = small.module.head.weight.detach().double().numpy()
    expected = set()
    for k in range(SHOWN):
        for before, after in itertools.product(range(6), range(8)):
            strength = hidden[after, before] * means[before, k]
            if member[before, k] and member[6 + after, k] and strength:
                expected.add((k, 0, 1, before, after, round(float(strength), 6)))
        for before in range(8):
            strength = head[k, before] * means[6 + before, k]
            if member[6 + before, k] and strength:
                expected.add((k, 1, 2, before, k, round(float(strength), 6)))
    names = ("class_number", "before", "after", "unit_before", "unit_after", "strength")
    rows = zip(*(edges[name].to_numpy().tolist() for name in names), strict=True)
    assert {(*row[:5], round(row[5], 6)) for row in rows} == expected


def test_reuse_is_that_of_choosing_again_from_half_of_the_images(told, small, hard):
    """Agreement within a class is the mean over halvings of what the two halves' choices share beyond chance."""
    known = half_way(small, hard, TOLD)
    halves = halvings(8, most=3, rng=known.setting.run.generator("importance", "halves"))
    assert told.tree["reuse"]["halvings"].item() == 3
    groups = known.setting.groups
    for number, place in enumerate(known.setting.places):
        units, agreed = place.stop - place.start, []
        for half in halves:
            sets = []
            for parts in (half, ~half):
                scores = plain_scores(known, "thresholding", (groups >= 0) & parts[groups % 8])[place, :SHOWN]
                best = np.argsort(-np.nan_to_num(scores, nan=-np.inf), axis=0, kind="stable")
                best = best[: int(np.ceil(0.4 * units))]
                sets.append([set(best[:, c][~np.isnan(scores[best[:, c], c])].tolist()) for c in range(SHOWN)])
            for c in range(SHOWN):
                one, other = sets[0][c], sets[1][c]
                chance, most = len(one) * len(other) / units, min(len(one), len(other))
                agreed.append((len(one & other) - chance) / (most - chance))
        assert told.tree["reuse"]["within"].to_numpy()[number] == pytest.approx(np.mean(agreed))
    member = told.table["member"].to_numpy()[:, 0].astype(bool)
    common = member[:6].astype(int).T @ member[:6].astype(int)
    np.testing.assert_array_equal(told.tree["reuse"]["common"].to_numpy()[0], common)
    assert told.table["reuse"].to_numpy().tolist() == member.sum(axis=1).tolist()


KINDS = ("zero", "mean", "other-mean", "resample", "constant")


@dataclass(frozen=True)
class ByHand:
    """Forward passes with units silenced, written down operation by operation."""

    known: Known

    @property
    def kind(self) -> str:
        """How units are silenced."""
        return self.known.setting.spec.silence

    def value(self, own: np.ndarray, label: int) -> float:
        """What a unit gives instead of its output, for questions about a class."""
        known = self.known.labels >= 0
        means = {"zero": 0.0, "constant": 1.0, "mean": own[known].mean()}
        return means.get(self.kind, own[known & (self.known.labels != label)].mean())

    def silenced(self, output: torch.Tensor, place: slice, gone: np.ndarray, asked: np.ndarray) -> torch.Tensor:
        """A layer's output with units silenced, for questions about each image's class of `asked`."""
        values = unit_means(self.known.setting.subject, self.known.images)[:, place]
        lenders, changed = donors(torch.arange(len(output)), seed=0), output.clone()
        for unit in np.flatnonzero(gone[place]):
            if self.kind == "resample":
                changed[:, unit] = output[lenders, unit]
            else:
                for row, label in enumerate(asked):
                    changed[row, unit] = self.value(values[:, unit], label)
        return changed

    def logits(self, images: torch.Tensor, gone: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """What the network says then."""
        net, places = self.known.setting.subject.module, self.known.setting.places
        with torch.inference_mode():
            first = self.silenced(net.act(net.conv(images)), places[0], gone, asked)
            second = self.silenced(net.top(net.hidden(net.flat(first))), places[1], gone, asked)
            return net.head(second).numpy()


@pytest.fixture(scope="module", params=KINDS)
def by_hand(request, small: ns.Subject, hard: ns.Data) -> ByHand:
    """Every way of silencing, all images in one batch."""
    rules = ("activation", "ablation")
    spec = ns.ImportanceSpec(layers=LAYERS, rules=rules, silence=request.param, controls=0, layer_controls=0, curves=2)
    return ByHand(half_way(small, hard, spec, batch_size=200))


def test_silenced_subnetworks_give_what_was_asked_for(by_hand):
    """In sub-networks, whichever way units are silenced, every prediction is that of a forward pass by hand."""
    known, report = by_hand.known, by_hand.known.setting.report
    images = known.setting.subject.preprocess.batch(report.pixels)
    cases = all_cases(known.setting, known.found.choices, known.evidence.silenced, None)
    said = try_networks(known.setting, cases)
    assert [case.kind for case in cases] == ["intact", *("keep", "drop") * 2 * SHOWN]
    for place, case in enumerate(cases[1:], start=1):
        members = known.found.choices[case.rule].members[:, case.class_number]
        gone = ~members if case.kind == "keep" else members
        logits = by_hand.logits(images, gone, np.full(len(images), case.class_number))
        np.testing.assert_array_equal(said.predicted[:, place], logits.argmax(1)[report.labels >= 0])


def test_silenced_sets_of_a_layer_give_what_was_asked_for(by_hand):
    """So they are where units of one layer alone are silenced."""
    known, setting = by_hand.known, by_hand.known.setting
    images = setting.subject.preprocess.batch(setting.report.pixels)
    place, choices = setting.places[1], {"activation": known.found.choices["activation"]}
    order = np.argsort(-np.nan_to_num(known.found.scores["activation"][place], nan=-np.inf), axis=0, kind="stable")
    how = effort(setting, 1)
    np.testing.assert_array_equal(how.rows, np.arange(len(images)))
    cases, masks = layer_cases(setting, how, choices, {"activation": order}, known.evidence.silenced.at(place))
    said = try_layer(setting, how, masks)
    for number, case in enumerate(cases):
        if case.kind in ("drop", "keep"):
            members = choices["activation"].members[:, case.class_number]
            gone = members.copy() if case.kind == "drop" else ~members
            gone[: place.start] = False
            logits = by_hand.logits(images, gone, np.full(len(images), case.class_number))
            np.testing.assert_array_equal(said.predicted[:, number], logits.argmax(1)[setting.report.labels >= 0])


def test_units_silenced_alone_give_what_was_asked_for(by_hand):
    """And where every unit is silenced alone: each image is asked about its own class."""
    known = by_hand.known
    rows = few_rows(known.setting.selection, known.setting)
    images, labels = known.images[rows], known.labels[rows]
    assert (labels >= 0).all()
    before = by_hand.logits(images, np.zeros(14, dtype=bool), labels)
    for unit in range(14):
        after = by_hand.logits(images, np.arange(14) == unit, labels)
        fall = (before - after)[np.arange(len(rows)), labels]
        for c in range(SHOWN):
            expected = pytest.approx(fall[labels == c].mean(), rel=1e-3, abs=1e-5)
            assert known.found.scores["ablation"][unit, c] == expected


class Normed(nn.Module):
    """A nonlinearity that a normalisation follows, and a residual stream."""

    def __init__(self) -> None:  # noqa: D107 the class says it
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Conv2d(1, 8, 3, stride=2)
        self.first = nn.ReLU()
        self.bn = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.ReLU()
        self.outer = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.last = nn.ReLU()
        self.head = nn.Linear(8, len(CLASSES))
        for norm in (self.bn, self.bn2):
            nn.init.normal_(norm.weight, 1.0, 0.3)
            nn.init.normal_(norm.bias, 0.0, 0.5)
            norm.running_mean.normal_(0.0, 0.2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits."""
        stream = self.bn(self.first(self.stem(image)))
        branch = self.bn2(self.outer(self.second(self.inner(stream))))
        return self.head(self.last(branch + stream).mean((2, 3)))


def test_units_are_silenced_after_a_normalisation_that_follows(hard):
    """A unit of a ReLU before batch normalisation is silenced after it, where a zero stays a zero."""
    subject = subject_of(Normed(), name="normed")
    spec = ns.ImportanceSpec(
        layers=("first", "second"), rules=("thresholding",), controls=0, alone=("none",), ablate=("first",)
    )
    result = ns.run_importance(subject, hard, spec)
    network = result.tree["network"].to_dataset()
    assert network["silenced_at"].to_numpy().tolist() == ["bn", "second"]
    report = settle(subject, hard, spec, ns.Run()).report
    known = report.labels >= 0
    images, labels = subject.preprocess.batch(report.pixels[torch.from_numpy(known)]), report.labels[known]
    net = subject.module
    member = result.table["member"].to_numpy()[:, 0].astype(bool)
    with torch.inference_mode():
        stream = net.bn(net.first(net.stem(images)))

        def rest(stream: torch.Tensor, gone: np.ndarray) -> np.ndarray:
            inner = net.second(net.inner(stream))
            inner[:, np.flatnonzero(gone)] = 0
            return net.head(net.last(net.bn2(net.outer(inner)) + stream).mean((2, 3))).numpy()

        for k in range(SHOWN):
            gone = stream.clone()
            gone[:, np.flatnonzero(member[:8, k])] = 0
            left = rest(gone, member[8:, k]).argmax(1)
            right = rest(stream, np.zeros(8, dtype=bool)).argmax(1) == labels
            expected = ((left == labels) - right.astype(float))[labels == k].mean()
            assert float(result.tree["subnetworks"]["drop_own"][0, k]) == pytest.approx(expected)
        for unit in range(8):
            gone = stream.clone()
            gone[:, unit] = 0
            fall = rest(stream, np.zeros(8, dtype=bool)) - rest(gone, np.zeros(8, dtype=bool))
            for k in range(SHOWN):
                found = float(result.table["logit_fall"][unit, k])
                assert found == pytest.approx(fall[labels == k, k].mean(), rel=1e-3, abs=1e-5)


def test_layers_that_are_added_are_chosen_together_where_asked(hard):
    """Channels that a skip connection adds are the same in all its layers under `joint`, and may differ otherwise."""
    subject = subject_of(Normed(), name="normed")
    found = {}
    for way in ("joint", "separate"):
        spec = ns.ImportanceSpec(
            layers=("bn", "second", "bn2", "last"), rules=("thresholding",), controls=0, coupled=way, budget=0.25
        )
        known = half_way(subject, hard, spec)
        assert known.setting.coupled == ((0, 2, 3),)
        found[way] = known.found.choices["thresholding"].members.reshape(4, 8, len(CLASSES))[..., :SHOWN]
        assert (found[way].sum(axis=1) == 2).all()
    np.testing.assert_array_equal(found["joint"][0], found["joint"][2])
    np.testing.assert_array_equal(found["joint"][0], found["joint"][3])
    np.testing.assert_array_equal(found["joint"][1], found["separate"][1])
    assert (found["separate"][0] != found["separate"][2]).any()


QUICK = ns.ImportanceSpec(
    layers=("act",), rules=("thresholding",), controls=0, layer_controls=0, ablate=("none",), alone=("none",), halves=2
)


def with_(spec: ns.ImportanceSpec, **changes) -> ns.ImportanceSpec:
    """Some other options."""
    return replace(spec, **changes)


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_no_image_both_chooses_and_reports(small, hard, share):
    """Selection and report are disjoint and together all images; classes are divided alike, order has no pattern."""
    setting = settle(small, hard, with_(QUICK, report_share=share), ns.Run())
    selection, report = setting.selection, setting.report
    assert not set(selection.ids) & set(report.ids)
    assert set(selection.ids) | set(report.ids) == set(hard.ids)
    for c in range(SHOWN):
        many = (hard.labels == c).sum()
        assert (report.labels == c).sum() == round(share * many)
    for part in (selection, report):  # the images came sorted by class: batches must not
        assert len(np.unique(part.labels[:16])) >= SHOWN


def test_the_seed_decides_the_split_and_nothing_else_does(small, hard):
    """The same seed gives the same parts and the same result to the bit, another seed other parts."""
    first, again, other = (settle(small, hard, QUICK, ns.Run(seed=seed)) for seed in (0, 0, 1))
    assert first.report.ids == again.report.ids
    assert set(first.report.ids) != set(other.report.ids)
    np.testing.assert_array_equal(first.groups, again.groups)
    spec = with_(QUICK, controls=20, ablate=(), alone=(), layer_controls=20, curves=3)
    one, two = (ns.run_importance(small, hard, spec, run=ns.Run(batch_size=16, workers=w)) for w in (1, 2))
    assert one.tree.identical(two.tree)


def test_other_images_to_report_on():
    """Images of `report_data` report, all images given choose; the same ones, or some of them, are refused."""
    digits = ns.load_data("digits", limit=60)
    subject = subject_of(Small10(), classes=digits.classes, name="small")
    spec = with_(QUICK, report_data="digits")
    with pytest.raises(ns.InputError, match=r"60 images of .* are in .* too"):
        ns.run_importance(subject, digits, spec)
    with pytest.raises(ns.InputError, match="same images as --data"):
        ns.run_importance(subject, ns.load_data("digits"), spec)
    with pytest.raises(ns.InputError, match="leave out --report-data"):
        settle(subject, digits, with_(spec, legacy=("same-images",)), ns.Run())


class Small10(Small):
    """The same for ten classes."""

    def __init__(self) -> None:  # noqa: D107 the class says it
        super().__init__()
        self.head = nn.Linear(8, 10)


def test_the_same_images_only_where_it_is_said(small, hard):
    """The deviation `same-images` chooses and reports on all images, and the result says so."""
    spec = with_(QUICK, legacy=("same-images",))
    result = ns.run_importance(small, hard, spec)
    assert result.provenance.legacy == ("same-images",)
    assert result.provenance.images == len(hard)
    assert int(result.tree["subnetworks"]["report_images"]) == int((hard.labels >= 0).sum())
    setting = settle(small, hard, spec, ns.Run())
    assert set(setting.selection.ids) == set(setting.report.ids) == set(hard.ids)


def test_classes_are_asked_for_by_name_or_number_and_do_not_change_each_other(small, hard):
    """A class's scores, units and verdicts are the same whichever other classes are looked at."""
    spec = with_(QUICK, rules=("thresholding", "masking", "taylor"), alone=(), curves=3)
    whole, few = (ns.run_importance(small, hard, with_(spec, which_class=names)) for names in ((), ("d", "1")))
    assert whole.table["class_name"].to_numpy().tolist() == ["a", "b", "c", "d"]
    assert few.table["class_name"].to_numpy().tolist() == ["d", "b"]
    for name in ("score", "member", "class_mean", "mask"):
        axis = whole.table[name].dims.index("class")
        expected = whole.table[name].to_numpy().take([3, 1], axis=axis)
        np.testing.assert_array_equal(few.table[name], expected, err_msg=name)
    for group, name in itertools.product(("subnetworks", "layers"), ("drop_own", "drop_own_low", "keep_own")):
        expected = whole.tree[group][name].to_numpy()[..., [3, 1]]
        np.testing.assert_array_equal(few.tree[group][name], expected, err_msg=name)
    expected = whole.tree["layers"]["between_low"].to_numpy()[..., [3, 1]]
    np.testing.assert_array_equal(few.tree["layers"]["between_low"], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ("akt",)}, "Closest: 'act'"),
        ({"which_class": ("non",)}, "Closest: 'none'"),
        ({"which_class": ("5",)}, "no class '5' among its 5"),
        ({"which_class": ("none",)}, "class 'none' has 0 images"),
        ({"legacy": ("same-image",)}, "Closest: 'same-images'"),
        ({"ablate": ("top",)}, r"--ablate names 'top', which is not among the layers of the study \(act\)"),
        ({"alone": ("topp",)}, "Closest: 'top'"),
        ({"controls": 5}, "Give 20 or more, or 0"),
        ({"layer_controls": 19}, "Give 20 or more, or 0"),
    ],
)
def test_what_does_not_exist_is_refused_with_a_hint(small, hard, changes, message):
    """Unknown layers, classes and deviations name the nearest; the message says what to do instead."""
    with pytest.raises(ns.InputError, match=message):
        ns.run_importance(small, hard, with_(QUICK, **changes))


def test_data_that_does_not_belong_is_refused(small, hard):
    """Labels beyond the outputs, no labels, too few images, a layer of one unit, a network without hidden units."""
    names = tuple("abcdefgh")
    beyond = replace(hard, labels=np.where(hard.labels == 3, 7, hard.labels), classes=names)
    with pytest.raises(ns.InputError, match="do not belong together"):
        ns.run_importance(small, beyond, QUICK)
    with pytest.raises(ns.InputError, match="no labelled images"):
        ns.run_importance(small, replace(hard, labels=np.full(len(hard), -1)), QUICK)
    with pytest.raises(ns.InputError, match="no labelled images"):
        ns.run_importance(small, hard.take([]), QUICK)
    with pytest.raises(ns.InputError, match="expected at least 2 such classes"):
        ns.run_importance(small, hard.take(np.flatnonzero(hard.labels == 1)), QUICK)
    thin = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5))
    with pytest.raises(ns.InputError, match="layer '1' has 1 unit"):
        ns.run_importance(subject_of(thin), hard, with_(QUICK, layers=("1",)))
    bare = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    with pytest.raises(ns.InputError, match="no layer with units before its output"):
        ns.run_importance(subject_of(bare), hard, with_(QUICK, layers=()))


def test_masks_and_edits_of_another_width_are_refused(small, hard):
    """An edit made for a layer of another width does not run."""
    setting = settle(small, hard, QUICK, ns.Run())
    wrong = Case("drop", "", 0, (1,), 0, (ns.drop(ns.UnitSet("act", 9, (1,))),))
    with pytest.raises(ns.InputError, match="made for 9 units"):
        try_networks(setting, [wrong])


def test_layers_default_to_activations_without_the_output(hard):
    """The output layer is left out; a hidden layer with as many units as classes is not taken for it."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 5))
    setting = settle(subject_of(network), hard, with_(QUICK, layers=()), ns.Run())
    assert [layer.name for layer in setting.layers] == ["2"]


class Winding(Small):
    """A network whose path hangs on the values of the image."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits."""
        hidden = self.top(self.hidden(self.flat(self.act(self.conv(image)))))
        if float(hidden.detach().sum()) < -1:
            hidden = hidden * 0
        return self.head(hidden)


def test_a_network_that_cannot_be_recorded_gives_the_same(small, hard, caplog):
    """Without a record of its operations everything runs in full, says so, and gives the same answers."""
    twin = Winding()
    twin.load_state_dict(small.module.state_dict())
    spec = with_(QUICK, layers=LAYERS, rules=("thresholding", "ablation"), ablate=("act",), alone=("top",), curves=2)
    with caplog.at_level("INFO", logger="neuronscope"):
        slow = ns.run_importance(subject_of(twin, name="winding"), hard, spec)
    assert "is not certain" in caplog.text
    fast = ns.run_importance(small, hard, spec)
    for group in ("subnetworks", "units", "layers", "reuse"):
        for name, values in fast.tree[group].data_vars.items():
            np.testing.assert_allclose(slow.tree[group][name], values, rtol=1e-3, atol=1e-5, err_msg=str(name))


class Counting(Winding):
    """Counts the images that go through, in full."""

    seen = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits."""
        Counting.seen += len(image)
        return super().forward(image)


EVERYTHING = with_(
    QUICK,
    layers=LAYERS,
    rules=get_args(Rule),
    ablate=("act",),
    alone=("top",),
    controls=20,
    layer_controls=20,
    curves=2,
    path_steps=2,
    shapley_permutations=2,
    shapley_images=10,
)


@dataclass
class Names:
    """A listener that writes down the sweeps, and may end the study at one of them."""

    fail_at: str = ""
    names: list = field(default_factory=list)
    totals: list = field(default_factory=list)
    done: int = 0

    def start(self, name, total):
        """A sweep begins."""
        self.names.append(name)
        self.totals.append(total)
        self.done = 0

    def advance(self, images):
        """Images are done."""
        self.done += images
        if self.fail_at and self.names[-1] == self.fail_at and self.done > 16:
            message = "the power is gone"
            raise RuntimeError(message)

    def finish(self):
        """A sweep ends."""


@dataclass
class Passes(Names):
    """A listener that counts the images that go through the network in each sweep."""

    seen: list = field(default_factory=list)

    def start(self, name, total):
        """A sweep begins."""
        super().start(name, total)
        Counting.seen = 0

    def finish(self):
        """A sweep ends."""
        self.seen.append(Counting.seen)


def test_the_plan_is_what_the_run_does(hard):
    """Every sweep is named with its images; the images that go through the network are those planned."""
    twin = Counting()
    subject = subject_of(twin, name="counting")
    rules = ("gradient-contrast", "influence", "nisp", "ablation")
    spec = with_(EVERYTHING, rules=rules, which_class=("a", "b"))
    log = Passes()
    plan = plan_importance(subject, hard, spec)
    ns.run_importance(subject, hard, spec, run=ns.Run(progress=log))
    assert {one.name: one.images for one in plan.sweeps} == {
        "select": log.totals[0],
        "path": log.totals[1],
        "select act: 6 units": log.totals[2],
        "select top: 8 units": log.totals[3],
        "ablate act: 6 units": log.totals[4],
        "features": log.totals[5],
        "report: 57 edited networks": log.totals[6],
        "report top alone: 204 sets of units": log.totals[7],
    }
    names = ["select", "path", "select-0", "select-1", "ablate-0", "features", "report-0", "report-layer-1"]
    assert log.names == names
    by_name = {one.name.partition(":")[0]: one for one in plan.sweeps}
    for name in ("select", "path", "features"):
        assert by_name[name].forward == log.seen[log.names.index(name)]
    # a few passes more show from which layer on the network can be run again
    assert log.seen[log.names.index("report-0")] == pytest.approx(by_name["report"].forward, rel=0.1)
    for title, name in (("select act", "select-0"), ("ablate act", "ablate-0"), ("report top alone", "report-layer-1")):
        one, few = by_name[title], 60  # images that decide how to replay
        assert one.images < log.seen[log.names.index(name)] <= one.forward + one.replays + few
    assert plan.seconds is not None
    assert plan.seconds > 0
    assert plan.memory > 0


@pytest.mark.parametrize("kind", ["zero", "other-mean"])
def test_every_rule_can_be_planned(small, hard, kind):
    """A plan of all rules, with every way of silencing, names every layer's game and counts all networks."""
    plan = plan_importance(small, hard, with_(EVERYTHING, silence=kind))
    names = [one.name for one in plan.sweeps]
    assert "shapley act, at most" in names
    assert "shapley top, at most" in names
    setting = settle(small, hard, with_(EVERYTHING, silence=kind), ns.Run())
    many = 1 + 2 * 12 * SHOWN + 2 * SHOWN + 2 * 20 * (SHOWN if kind == "other-mean" else 1)
    assert f"report: {many} edited networks" in names
    if kind == "zero":
        evidence = gather(setting)
        found = decide(setting, evidence)
        assert len(all_cases(setting, found.choices, evidence.silenced, found.codes)) <= many + 40


def test_units_that_are_not_numbers_are_listed_and_not_chosen(small, hard):
    """A unit that gives NaN for some images is in the record and in no sub-network; nothing crashes, by any rule."""
    network = Broken()
    network.load_state_dict(small.module.state_dict())
    spec = with_(EVERYTHING, which_class=("a", "b"), controls=0, layer_controls=0, ablate=LAYERS, silence="mean")
    result = ns.run_importance(subject_of(network, name="broken"), hard, spec)
    assert result.provenance.nonfinite == {"act": (2,)}
    table = result.table
    named = table["rule_name"].to_numpy().tolist()
    for rule in ("thresholding", "masking", "activation", "selectivity"):
        assert not table["member"].to_numpy()[2, named.index(rule)].any()
        assert np.isnan(table["score"].to_numpy()[2, named.index(rule)]).any()
    others = np.delete(np.arange(14), 2)
    assert np.isfinite(table["score"].to_numpy()[others][:, named.index("activation")]).all()


class Broken(Small):
    """The third unit of its first layer overflows where the image begins with a dark pixel, but nothing hears of it."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits."""
        maps = self.conv(image)
        dark = (image[:, 0, 0, 0] < 0.2).to(maps.dtype) * 3e38
        burst = torch.zeros_like(maps)
        burst[:, 2] = dark[:, None, None] * 10 - dark[:, None, None] * 10
        hidden = self.hidden(self.flat(self.act(maps + burst).nan_to_num(0.0)))
        return self.head(self.top(hidden))


def test_weights_that_are_not_numbers_end_in_a_result(hard):
    """A network whose every answer is NaN has scores that are undefined and empty sub-networks."""
    subject = subject_of(Small(), name="nan")
    with torch.no_grad():  # such weights are refused when they are read
        subject.module.conv.weight[0] = torch.nan
    spec = with_(EVERYTHING, which_class=("a", "b"), controls=0, layer_controls=0, ablate=("top",))
    result = ns.run_importance(subject, hard, spec)
    assert result.provenance.nonfinite == {"act": (0,), "top": tuple(range(8))}
    member = result.table["member"].to_numpy()
    assert not member[0, :4].any()


def test_memory_is_kept_to_and_changes_nothing(small, hard):
    """With room for part of a layer's units at a time there are more passes and the same answers."""
    spec = with_(QUICK, layers=LAYERS, rules=("thresholding", "gradient", "influence", "conductance"), path_steps=2)
    free = settle(small, hard, spec, ns.Run(batch_size=4))
    needs = [
        planned(small, free.selection, *job(free, (layer,)), run=free.run, name="x")
        for job in (looking, walking)
        for layer in (free.layers[0].part(0, 4), free.layers[1].part(0, 4))
    ]
    bounded = ns.Run(batch_size=4, memory=max(one.state + one.working for one in needs))
    tight = settle(small, hard, spec, bounded)
    assert len(look_groups(tight)) > 1
    assert len(walk_groups(tight)) > 1
    assert any(layer.whole for group in look_groups(tight) for layer in group)
    log = Names()
    whole, split = (
        ns.run_importance(small, hard, spec, run=run) for run in (ns.Run(batch_size=4), replace(bounded, progress=log))
    )
    assert log.names.count("select") == len(look_groups(tight))
    for node in whole.tree.subtree:
        for name, values in node.to_dataset().variables.items():
            if name == "path_residual":
                continue
            found = split.tree[node.path][name]
            if values.dtype.kind == "f":
                np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-7, err_msg=str(name))
            else:
                np.testing.assert_array_equal(found, values, err_msg=str(name))
    plan = plan_importance(small, hard, spec, run=bounded)
    assert plan.memory <= bounded.memory
    assert any("units 0-" in one.name for one in plan.sweeps)
    with pytest.raises(ns.InputError, match=r"one unit of layer 'act' alone needs .* lower --batch-size"):
        ns.run_importance(small, hard, spec, run=ns.Run(memory=5_000))


@pytest.fixture
def eager(monkeypatch, tmp_path):
    """A folder where checkpoints are written after every shard."""
    monkeypatch.setattr(checkpoint, "_LEAST_PAUSE", 0.0)
    monkeypatch.setattr(checkpoint, "_SHARE", 0.0)
    return tmp_path


RESUMED = with_(EVERYTHING, silence="mean", rules=("thresholding", "ablation", "shapley"), shapley_permutations=120)


@pytest.fixture(scope="module")
def expected(small: ns.Subject, hard: ns.Data) -> ns.Result:
    """What the study says when nothing happens."""
    return ns.run_importance(small, hard, RESUMED, run=ns.Run(batch_size=4, threads=1))


def alike(one: ns.Result, other: ns.Result) -> bool:
    """The same result but for the time it took."""
    return same(replace(one, provenance=replace(one.provenance, seconds=0.0, peak_memory=0)),
                replace(other, provenance=replace(other.provenance, seconds=0.0, peak_memory=0)))  # fmt: skip


@pytest.mark.parametrize("sweep", ["select", "select-1", "ablate-0", "shapley act", "report-0"])
def test_an_interrupted_study_goes_on_with_the_same_bits(small, hard, expected, eager, sweep):
    """Ended in the middle of any sweep and started again, the study says the same to the bit."""
    with pytest.raises(RuntimeError, match="power"):
        ns.run_importance(
            small,
            hard,
            RESUMED,
            run=ns.Run(batch_size=4, threads=1, checkpoint=eager, progress=Names(fail_at=sweep)),
        )
    again = Names()
    resumed = ns.run_importance(
        small, hard, RESUMED, run=ns.Run(batch_size=4, threads=1, checkpoint=eager, progress=again)
    )
    assert alike(resumed, expected)


def test_processes_and_portions_give_the_same_bits(small, hard, expected, eager):
    """Worked by several processes, or in two portions whose folders are joined, the study says the same to the bit."""
    run = ns.Run(batch_size=4, threads=1, executor=Processes(2))
    assert alike(ns.run_importance(small, hard, RESUMED, run=run), expected)
    for number in (1, 2):
        with pytest.raises(PortionDone, match=f"portion {number} of 2"):
            ns.run_importance(
                small,
                hard,
                RESUMED,
                run=ns.Run(batch_size=4, threads=1, checkpoint=eager / str(number), portion=(number, 2)),
            )
    checkpoint.gather([eager / "1", eager / "2"], eager / "whole")
    joined = ns.run_importance(small, hard, RESUMED, run=ns.Run(batch_size=4, threads=1, checkpoint=eager / "whole"))
    assert alike(joined, expected)


def noise(images: int, *, seed: int) -> ns.Data:
    """Images and labels that have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(rng.integers(0, 256, (images, 1, 8, 8), dtype=np.uint8))
    return ns.data_from_arrays(pixels, rng.permutation(np.arange(images) % SHOWN), name="noise", classes=CLASSES)


def test_labels_without_meaning_give_no_selective_subnetworks():
    """Random networks on shuffled labels: no more false findings than the q-values allow."""
    false, found = [], []
    for seed in range(8):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(1, 12, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)
        )
        with torch.no_grad():  # so that answers differ between images
            data = noise(160, seed=seed)
            logits = network(ns.Preprocess(channels=1).batch(data.pixels))
            network[4].bias -= logits.mean(0) + torch.tensor([0, 0, 0, 0, 100.0])
        spec = with_(QUICK, layers=("1",), rules=("thresholding", "masking"), controls=20)
        one = ns.run_importance(subject_of(network, name=f"random {seed}"), data, spec).tree["subnetworks"]
        false.append((one["drop_selective_q"].to_numpy() < 0.05).any())
        found.append((one["drop_selective"] - one["drop_selective_random"]).to_numpy())
    assert sum(false) <= 2, "5 % of eight are expected, more than 2 in one case of 200"
    found = np.stack(found)
    assert abs(found.mean()) < 3 * found.std() / np.sqrt(8 * SHOWN)  # the two rules choose nearly the same


def test_units_that_change_nothing_on_average_are_not_found(small, hard):
    """Falls around zero: one in twenty p-values is below 0.05 for logits, fewer for accuracies, hardly any q-value."""
    setting = settle(small, hard, with_(QUICK, layers=LAYERS), ns.Run())
    rng = np.random.default_rng(0)
    many, images = 300, 40
    wide = replace(setting, layers=(replace(setting.layers[0], units=many),), silenced=setting.silenced[:1])
    groups = np.repeat(np.arange(len(CLASSES)), images)
    falls = {
        "accuracy_fall": rng.choice([-1.0, 0.0, 1.0], size=(len(groups), many), p=[0.15, 0.7, 0.15]),
        "logit_fall": rng.normal(size=(len(groups), many)),
        "loss_rise": rng.normal(size=(len(groups), many)),
    }
    folds = {name: ClassMoments(name, classes=len(CLASSES)) for name in falls}
    answers = {}
    for name, values in falls.items():
        seen = {"label": torch.from_numpy(groups), name: torch.from_numpy(values)}
        answers[name] = folds[name].finish(folds[name].add(folds[name].start(), seen))
    effects = unit_effects(wide, {0: answers})
    for name in falls:
        assert (effects[f"{name}_q"][1] < 0.05).mean() < 0.005, name
    for name in ("logit_fall", "loss_rise"):
        low, high = effects[f"{name}_low"][1], effects[f"{name}_high"][1]
        missed = ((low > 0) | (high < 0)).mean()
        assert 0.03 < missed < 0.07, name
    # McNemar's test from the moments is the test from the counts of gains and losses
    lost = (falls["accuracy_fall"] == 1).reshape(len(CLASSES), images, many).sum(axis=1)[:SHOWN]
    gained = (falls["accuracy_fall"] == -1).reshape(len(CLASSES), images, many).sum(axis=1)[:SHOWN]
    p = stats.binom.cdf(np.minimum(lost, gained), lost + gained, 0.5) * 2
    p = np.minimum(p, 1.0)
    assert (p < 0.05).mean() < 0.05
    expected = stats.false_discovery_control(p.T.ravel()).reshape(many, SHOWN)
    np.testing.assert_allclose(effects["accuracy_fall_q"][1], expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["drop", "keep"])
def test_random_sets_are_drawn_for_every_size(small, hard, kind):
    """Where classes have sub-networks of different sizes, each is held against sets of its own size."""
    spec = with_(QUICK, layers=LAYERS, controls=20, legacy=("absolute-activation",), silence="other-mean")
    known = half_way(small, hard, spec)
    cases = all_cases(known.setting, known.found.choices, known.evidence.silenced, None)
    for case in cases:
        if case.kind == kind:
            same_size = [one for one in cases if one.kind == f"random {kind}" and one.sizes == case.sizes]
            own = [one for one in same_size if one.class_number == case.class_number]
            assert sorted(one.draw for one in own) == list(range(20)), "and with its own means in place"


@dataclass(frozen=True)
class Torn:
    """A reader with rows that cannot be read."""

    pixels: torch.Tensor
    rows: tuple[int, ...]

    def __call__(self, row):
        """Raw pixels."""
        if row in self.rows:
            message = f"image {row} is torn. Remove it"
            raise DataError(message)
        return self.pixels[row]


def test_images_that_cannot_be_read_are_left_out_and_named(small, hard):
    """Where they may be skipped, the study goes on without them and names their rows in the data that was given."""
    split = settle(small, hard, QUICK, ns.Run())
    rows = (int(split.selection.ids[3]), int(split.report.ids[5]))
    torn = replace(hard, read=Torn(hard.pixels, rows), pixels=None)
    spec = with_(EVERYTHING, which_class=("a", "b"), rules=("thresholding", "ablation", "shapley", "nisp", "influence"))
    with pytest.raises(DataError, match="is torn"):
        ns.run_importance(small, torn, spec)
    result = ns.run_importance(small, replace(torn, on_error="skip"), spec)
    assert sorted(row for row, _ in result.provenance.skipped) == sorted(rows)
    assert int(result.tree["subnetworks"]["report_images"]) == len(split.report) - 2  # and one without a label
