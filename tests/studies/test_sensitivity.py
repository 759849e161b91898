"""The `sensitivity` study: planted reactions, the original's artefact, stored twins, portions, and what cannot work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from SALib.analyze import sobol as salib_analyze
from scipy import stats
from torch import nn

import neuronscope as ns
from neuronscope.data.loading import batches
from neuronscope.errors import DataError, InputError, UnknownName
from neuronscope.executors import Processes
from neuronscope.result import open_result, same
from neuronscope.steps import Augmented
from neuronscope.studies.sensitivity.contrast import contrast_fold, contrast_rows
from neuronscope.studies.sensitivity.factors import make_problem
from neuronscope.studies.sensitivity.indices import design_of, rows_of
from neuronscope.studies.sensitivity.pool import halves, make_pool
from neuronscope.studies.sensitivity.setting import chosen_layers, classifier_of, settle
from neuronscope.studies.sensitivity.spec import PRESETS, SensitivitySpec
from neuronscope.studies.sensitivity.study import plan_sensitivity, run_sensitivity
from neuronscope.sweep import Plan

SIDE = 16
POOLED = "2"


@pytest.fixture(scope="module")
def subject():
    """Units that see how bright an image is, how red it is, and nothing at all; pooled over all positions."""
    conv = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        conv.weight[:] = 0
        conv.weight[0, :, 0, 0] = 1 / 3
        conv.weight[1, 0], conv.weight[1, 2] = 1.0, -1.0
        conv.bias[:] = torch.tensor([0.0, 1.0, -1.0])
    head = nn.Linear(3, 2)
    with torch.no_grad():
        head.weight[:] = torch.tensor([[-4.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
        head.bias[:] = torch.tensor([2.0, -2.0])
    module = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    preprocess = ns.Preprocess(channels=3)
    return ns.subject_from(module, name="planted", input_shape=(3, SIDE, SIDE), preprocess=preprocess)


def flat_images(*, between: float, within: float, images: int = 40, colour: float = 0.0):
    """Images of one colour each: two classes that differ in brightness, images of a class that differ too."""
    rng = np.random.default_rng(0)
    labels = np.arange(images) % 2
    level = 0.5 + between * (labels - 0.5) + within * rng.uniform(-1, 1, images)
    red = colour * rng.uniform(-1, 1, images)
    channels = np.stack([level + red, level, level - red], axis=1).clip(0, 1)
    pixels = np.broadcast_to(channels[:, :, None, None], (images, 3, SIDE, SIDE))
    raw = torch.from_numpy((255 * pixels).round().astype(np.uint8))
    return ns.data_from_arrays(raw, labels, name="levels", classes=("dark", "bright"))


@pytest.fixture(scope="module")
def data():
    """Images that differ in brightness and colour, within classes and between them."""
    return flat_images(between=0.2, within=0.2, colour=0.1)


QUICK = {"layers": (POOLED,), "points": 64, "replicates": 4, "permutations": 64, "stop": "never"}


def found_of(subject, data, **options):
    """Quantities of the units by name, from a quick run; factors by name."""
    result = run_sensitivity(subject, data, SensitivitySpec(**{**QUICK, **options}), run=ns.Run(threads=1))
    return result, result.table, list(result.table["factor_name"].to_numpy())


def share(table, name, factors, factor, unit=0):
    """One quantity of one unit and factor."""
    return float(table[name].to_numpy()[unit, factors.index(factor)])


def test_each_unit_reacts_to_what_it_sees(subject, data):
    """Brightness moves the unit of brightness, grey the unit of colour; a mirror image moves neither, to the bit."""
    _, table, factors = found_of(
        subject, data, augmentations=("brightness", "grayscaling", "hflip"), estimators=("sobol", "shapley")
    )
    assert share(table, "total", factors, "brightness", unit=0) > 0.5
    assert share(table, "total", factors, "grayscaling", unit=0) < 1e-3
    assert share(table, "total", factors, "grayscaling", unit=1) > 0.2
    for name in ("total", "shapley"):
        for unit in (0, 1):
            assert share(table, name, factors, "hflip", unit=unit) == pytest.approx(0, abs=1e-9)
    first = share(table, "first", factors, "hflip")
    assert abs(first) < 1e-9
    assert factors[int(table["dominant"].to_numpy()[0])] == "brightness"
    assert table["dominant_known"].to_numpy()[0] == 1


def test_a_dead_unit_is_nan_not_insensitive(subject, data):
    """The unit that sees nothing has no index, no share and no dominant factor."""
    _, table, _ = found_of(subject, data, augmentations=("brightness", "hflip"), estimators=("sobol", "shapley"))
    assert np.isnan(table["total"].to_numpy()[2]).all()
    assert np.isnan(table["shapley"].to_numpy()[2]).all()
    assert table["dominant"].to_numpy()[2] == -1
    assert table["dominant_known"].to_numpy()[2] == 0


def variance_between_and_within(data):
    """Variance of the level between classes and within them, of images that are equally likely."""
    level = data.pixels.double().mean((1, 2, 3)).numpy() / 255
    means = np.array([level[data.labels == one].mean() for one in (0, 1)])
    within = np.mean([level[data.labels == one].var() for one in (0, 1)])
    return means.var(), within


def test_the_image_is_a_factor_of_its_own(subject):
    """With the image as a factor an inert augmentation has total index 0, and the image holds the variance within."""
    data = flat_images(between=0.2, within=0.2)
    between, within = variance_between_and_within(data)
    _, table, factors = found_of(
        subject, data, augmentations=("hflip", "rolling"), estimators=("sobol", "shapley"), points=256, permutations=512
    )
    for inert in ("hflip", "rolling", "order"):
        assert share(table, "total", factors, inert) == pytest.approx(0, abs=1e-9)
        assert share(table, "shapley", factors, inert) == pytest.approx(0, abs=1e-9)
    assert share(table, "first", factors, "class") == pytest.approx(between / (between + within), abs=0.1)
    assert abs(share(table, "first", factors, "partition")) < 0.1
    assert share(table, "shapley", factors, "image") > share(table, "shapley", factors, "partition")


def test_a_redrawn_image_makes_the_originals_artefact(subject):
    """`image-redrawn`: an inert augmentation has the image noise as its total index, partition half of it as share."""
    data = flat_images(between=0.2, within=0.2, images=240)
    between, within = variance_between_and_within(data)
    noise = within / (between + within)
    _, table, factors = found_of(
        subject,
        data,
        augmentations=("hflip", "rolling"),
        estimators=("sobol", "shapley"),
        points=512,
        permutations=1024,
        legacy=("image-redrawn",),
    )
    assert "image" not in factors
    for inert in ("hflip", "rolling"):
        assert share(table, "total", factors, inert) == pytest.approx(noise, abs=0.08)
        assert abs(share(table, "first", factors, inert)) < 0.1
        assert share(table, "shapley", factors, inert) == pytest.approx(0, abs=1e-9)
    assert abs(share(table, "first", factors, "partition")) < 0.1
    assert share(table, "shapley", factors, "partition") == pytest.approx(noise / 2, abs=0.08)


def test_scalar_players_and_switches_of_the_original(subject, data):
    """The original's Shapley scheme, parameters as players and every augmentation switched, finds the same order."""
    _, table, factors = found_of(
        subject,
        data,
        augmentations=("brightness", "hflip"),
        estimators=("shapley",),
        permutations=32,
        outer=4,
        inner=4,
        legacy=("scalar-players", "switched-shapley", "clipped-shares"),
    )
    values = table["shapley"].to_numpy()[0]
    assert values.sum() == pytest.approx(1)
    assert values[factors.index("brightness")] == values.max()


def looked_at(setting, rows):
    """The pooled layer of every row of a design, stored."""
    step, found = setting.step(), []
    for batch in batches(rows.data, setting.subject.preprocess.batch, batch_size=rows.batch_size(64), workers=0):
        vectors = torch.from_numpy(rows.parameters[batch.index.numpy()]).float()
        found.append(step(setting.subject.module, replace(batch, parameters=vectors))[f"maps/{POOLED}"])
    return torch.cat(found).numpy()


def test_indices_are_those_of_stored_activations_in_salib(subject, data):
    """The whole chain, designs to indices, against activations that were stored and given to SALib."""
    spec = SensitivitySpec(**{**QUICK, "replicates": 1, "augmentations": ("set1",), "legacy": ("first-half",)})
    setting = settle(subject, data, replace(spec, estimators=("sobol",)), ns.Run(threads=1))
    result = run_sensitivity(subject, data, replace(spec, estimators=("sobol",)), run=ns.Run(threads=1))
    design = design_of(setting, 0)
    stored = looked_at(setting, rows_of(setting, design, 0)).astype(np.float64)
    names = [name for factor in setting.problem.factors for name in [factor.name] * len(factor.columns)]
    problem = {"num_vars": len(names), "names": list("abcdefghijklmnop")[: len(names)], "groups": names}
    problem["bounds"] = [[0, 1]] * len(names)
    maps = result.tree[f"maps/{POOLED}"]
    for unit in (0, 1):
        expected = salib_analyze.analyze(problem, stored[:, unit], num_resamples=2, seed=0)
        assert np.allclose(maps["first"].to_numpy()[unit].ravel(), expected["S1"], atol=1e-5)
        assert np.allclose(maps["total"].to_numpy()[unit].ravel(), expected["ST"], atol=1e-5)
        upper = expected["S2"][np.triu_indices(len(setting.problem.factors), 1)]
        assert np.allclose(maps["second"].to_numpy()[unit].ravel(), upper, atol=1e-5)


@pytest.mark.parametrize("ranks", ["histogram", "exact"])
def test_the_contrast_is_that_of_stored_activations(subject, data, ranks):
    """Rank-biserial, T and p of the maps against scipy on stored activations; within the stated bound if binned."""
    options = {"augmentations": ("brightness",), "factors": ("class", "image"), "estimators": ("contrast",)}
    spec = SensitivitySpec(**{**QUICK, **options, "contrast_images": 30, "draws": 3, "ranks": ranks})
    result = run_sensitivity(subject, data, spec, run=ns.Run(threads=1))
    setting = settle(subject, data, spec, ns.Run(threads=1))
    rows = contrast_rows(setting, setting.augmentations[0])
    stored = looked_at(setting, rows).reshape(-1, rows.block, 3)
    apart = stored[:, 1:] - stored[:, :1]
    maps = result.tree[f"maps/{POOLED}"]
    for unit in (0, 1):
        own = apart[:, :, unit].ravel()
        ordered = stats.rankdata(np.abs(own))
        expected = (ordered * np.sign(own)).sum() / (len(own) * (len(own) + 1) / 2)
        bound = float(maps["contrast_bound"].to_numpy()[unit].ravel()[0])
        assert abs(float(maps["contrast"].to_numpy()[unit].ravel()[0]) - expected) <= bound + 1e-6
        p = stats.wilcoxon(apart[:, :, unit].mean(1), zero_method="pratt", correction=True, method="asymptotic").pvalue
        tolerance = 1e-5 if ranks == "exact" else 0.05
        assert float(maps["contrast_p"].to_numpy()[unit].ravel()[0]) == pytest.approx(p, abs=tolerance)
        point = np.corrcoef(
            np.repeat([0, 1], [30, 90]), np.concatenate([stored[:, 0, unit], stored[:, 1:, unit].ravel()])
        )
        assert float(maps["contrast_point_biserial"].to_numpy()[unit].ravel()[0]) == pytest.approx(
            point[0, 1], abs=1e-4
        )


def test_the_contrast_of_unlikely_classes_is_as_exact_as_of_others(subject, data):
    """Probabilities from 1 down to 1e-12 keep a small bound, in the effect and in its test; other layers have fewer."""
    spec = SensitivitySpec(**{**QUICK, "layers": (POOLED, "4"), "augmentations": ("brightness",)}, draws=4)
    setting = settle(subject, data, spec, ns.Run(threads=1))
    folds = contrast_fold(setting, contrast_rows(setting, setting.augmentations[0])).reducers
    rng = np.random.default_rng(0)
    logits = 8 * (rng.standard_normal((200, 1, 40)) + 0.3 * rng.standard_normal((200, 5, 40)))
    chances = torch.from_numpy(logits).softmax(2).float().reshape(1000, 40)

    def bound(fold, layer):
        own = folds[f"{fold}/{layer}"]
        return own.finish(own.add(own.start(), {f"maps/{layer}": chances})).bound.max()

    assert bound("maps", "4") < 0.015
    assert bound("p", "4") < 0.03
    assert bound("maps", POOLED) > 0.1


def test_severity_grows_from_nothing(subject, data):
    """The brighter, the further the unit of brightness is off; a mirror image moves nothing and has one strength."""
    result, table, _ = found_of(
        subject,
        data,
        augmentations=("brightness", "hflip"),
        estimators=("severity",),
        severity_images=30,
        severities=(0.25, 0.5, 1.0),
    )
    drift = table["drift"].to_numpy()[0]
    assert (np.diff(drift[0]) > 0).all()
    assert np.isnan(drift[1, :2]).all()
    assert drift[1, 2] == pytest.approx(0, abs=1e-5)
    assert (table["drift_low"].to_numpy()[0, 0] <= drift[0]).all()
    accuracy = result.tree["severity"]["accuracy"].to_numpy()
    assert accuracy[0, 0] == accuracy[1, 0]
    assert accuracy[0, 3] <= accuracy[0, 0]


def test_accuracy_knows_which_augmentation_does_harm(subject, data):
    """Brightness takes the classes of a network that sees brightness; a mirror image takes none."""
    result, *_ = found_of(
        subject, data, augmentations=("brightness", "hflip"), estimators=("contrast",), contrast_images=40, draws=4
    )
    group = result.tree["accuracy"]
    names = list(group["input_name"].to_numpy())
    top = dict(zip(names, group["accuracy"].to_numpy()[0], strict=True))
    assert top["hflip"] == top["original"]
    assert top["brightness"] < top["original"]
    change = dict(zip(names, group["change"].to_numpy()[0], strict=True))
    assert change["hflip"] == change["original"] == 0
    assert change["brightness"] == pytest.approx(top["brightness"] - top["original"])
    assert group["change_high"].to_numpy()[0, names.index("brightness")] < 0


def test_the_study_stops_when_the_order_is_settled(subject, data):
    """A clear order ends the study early; `never` sweeps all replicates. The answers are close."""
    options = {"augmentations": ("brightness", "hflip"), "estimators": ("sobol",), "points": 512, "replicates": 8}
    options |= {"factors": ("class", "image"), "tolerance": 0.3}
    early, table, _ = found_of(subject, data, **options, stop="ranking")
    late, full, _ = found_of(subject, data, **options, stop="never")
    assert 4 <= early.tree["layers"]["replicates"].to_numpy()[0] < 8
    assert late.tree["layers"]["replicates"].to_numpy().tolist() == [8]
    assert np.allclose(table["total"].to_numpy()[0], full["total"].to_numpy()[0], atol=0.15)


def tree_equal(one, other):
    """Whether two results hold the same numbers, bit for bit."""
    return one.tree.identical(other.tree)


ALL = {
    "augmentations": ("brightness", "grayscaling"),
    "points": 16,
    "permutations": 16,
    "contrast_images": 8,
    "draws": 2,
}
ALL |= {"severity_images": 8, "layers": ("0", POOLED, "4")}


def test_portions_processes_and_one_pass_give_the_same_bits(subject, data, tmp_path):
    """Two portions that are merged, two processes, and one serial run agree bit for bit."""
    spec = SensitivitySpec(**{**QUICK, **ALL})
    plain = run_sensitivity(subject, data, spec, run=ns.Run(threads=1))
    for number in (1, 2):
        run = ns.Run(threads=1, checkpoint=tmp_path / f"part{number}", portion=(number, 2))
        with pytest.raises(ns.PortionDone):
            run_sensitivity(subject, data, spec, run=run)
    ns.gather([tmp_path / "part1", tmp_path / "part2"], tmp_path / "joined")
    merged = run_sensitivity(subject, data, spec, run=ns.Run(threads=1, checkpoint=tmp_path / "joined"))
    assert tree_equal(plain, merged)


def test_processes_give_the_same_bits():
    """Worker processes, to which designs and augmentations travel, agree with a serial run bit for bit."""
    subject = ns.load_model("builtin:viewer-cnn", weights="random")
    digits = ns.load_data("digits", limit=60)
    spec = SensitivitySpec(
        **{**QUICK, "layers": ("conv_layers.7",), "augmentations": ("brightness", "hflip"), "points": 16}
        | {"permutations": 16, "contrast_images": 8, "severity_images": 8}
    )
    plain = run_sensitivity(subject, digits, spec, run=ns.Run(threads=1))
    spread = run_sensitivity(subject, digits, spec, run=ns.Run(threads=1, executor=Processes(2)))
    assert tree_equal(plain, spread)


def test_a_memory_bound_changes_no_number(subject, data):
    """Layers in groups, and a layer in blocks of its units, give what one pass over all gives."""
    spec = SensitivitySpec(**{**QUICK, **ALL, "output": "logits"})
    plain = run_sensitivity(subject, data, spec, run=ns.Run(threads=1, batch_size=16))
    plan = plan_sensitivity(subject, data, spec, run=ns.Run(threads=1, batch_size=16))
    bound = int(0.6 * plan.memory)
    small = ns.Run(threads=1, batch_size=16, memory=bound)
    assert len(plan_sensitivity(subject, data, spec, run=small).sweeps) > len(plan.sweeps)
    split = run_sensitivity(subject, data, spec, run=small)
    for name in ("total", "shapley", "contrast", "drift", "second"):
        assert np.allclose(plain.table[name].to_numpy(), split.table[name].to_numpy(), equal_nan=True, atol=1e-6)


def test_too_little_memory_says_what_helps(subject, data):
    """A bound that not even one unit fits in is refused with what would help."""
    spec = SensitivitySpec(**{**QUICK, **ALL, "layers": ("0", POOLED)})
    with pytest.raises(InputError, match="--second-order none"):
        run_sensitivity(subject, data, spec, run=ns.Run(threads=1, memory=2000))
    wide = SensitivitySpec(**{**QUICK, **ALL, "layers": ("4",)})
    with pytest.raises(InputError, match="probabilities cannot be split"):
        run_sensitivity(subject, data, wide, run=ns.Run(threads=1, memory=2000))


def test_a_result_is_saved_and_opened(subject, data, tmp_path):
    """Everything the study keeps comes back from disk."""
    result, *_ = found_of(subject, data, augmentations=("brightness", "hflip"), contrast_images=8, severity_images=8)
    result.save(tmp_path / "result.zarr")
    assert same(open_result(tmp_path), result)


def test_the_augmentations_alone_can_be_shown(subject, data):
    """Only the sheet is made, without any sweep."""
    spec = SensitivitySpec(show_augmentations=True, augmentations=("set1", "set2"))
    assert plan_sensitivity(subject, data, spec) == Plan((), 0.0)
    result = run_sensitivity(subject, data, spec)
    assert set(result.tree.children) == {"sheet"}
    assert result.page().blocks


def test_a_second_data_set_is_the_second_partition(subject, tmp_path):
    """Images of another folder take partition 1; the same images are refused."""
    for part in ("one", "two"):
        for label, name in enumerate(("dark", "bright")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(3):
                level = 40 + 120 * label + 20 * number + (5 if part == "two" else 0)
                raw = torch.full((3, SIDE, SIDE), level, dtype=torch.uint8)
                Image.fromarray(raw.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    first = ns.load_data(f"folder:{tmp_path / 'one'}")
    spec = SensitivitySpec(
        **{**QUICK, "augmentations": ("brightness", "hflip"), "other_data": f"folder:{tmp_path / 'two'}"}
    )
    setting = settle(subject, first, spec, ns.Run())
    assert setting.partition.tolist() == [0] * 6 + [1] * 6
    assert setting.problem.pool.count.tolist() == [[3, 3], [3, 3]]
    with pytest.raises(InputError, match="same images"):
        settle(subject, first, replace(spec, other_data=f"folder:{tmp_path / 'one'}"), ns.Run())


def test_presets_are_the_originals_checkpoints():
    """Every checkpoint of chapter 3 is a layer of its torchvision network, with the number of activations it had."""
    expected = {"alexnet": 205_672, "vgg11": 1_539_560, "resnet18": 553_448}
    for name, total in expected.items():
        subject = ns.load_model(f"torchvision:{name}", weights="random")
        layers = chosen_layers(subject, SensitivitySpec(layers=(name,)))
        assert [layer.name for layer in layers] == list(PRESETS[name])
        assert sum(int(np.prod(layer.shape)) for layer in layers) == total


def test_the_last_layer_is_looked_at_as_probabilities_once(subject, data):
    """The classifier's activations are one softmax of its logits; `logits` leaves them."""
    batch = ns.data_from_arrays(data.pixels[:4], data.labels[:4], name="four", classes=data.classes)
    image = batch.pixels.float() / 255
    layers = (subject.layer("4"),)
    seen = {
        output: Augmented(layers, (), classifier=("4",), output=output)(
            subject.module, ns.Batch(index=torch.arange(4), image=image, label=torch.zeros(4, dtype=torch.int64))
        )
        for output in ("softmax", "logits")
    }
    assert torch.allclose(seen["softmax"]["maps/4"], seen["logits"]["maps/4"].softmax(1))
    assert torch.equal(seen["logits"]["maps/4"], seen["logits"]["logits"])


def test_pools_balance_partitions_and_redraw_without_replacement():
    """Halves hold each class alike; a redraw shows each image of a cell before any comes again."""
    labels = np.repeat(np.arange(3), 10)
    part = halves(labels, seed=1)
    assert [part[labels == one].sum() for one in range(3)] == [5, 5, 5]
    raw = torch.zeros(30, 1, 8, 8, dtype=torch.uint8)
    data = ns.data_from_arrays(raw, labels, name="x", classes=("a", "b", "c"))
    pool = make_pool(data, part, by_class=True, least=1, min_images=0)
    drawn = pool.redraw(np.ones(10, dtype=np.int64), np.zeros(10, dtype=np.int64), rng=np.random.default_rng(0))
    assert sorted(drawn[:5]) == sorted(drawn[5:]) == sorted(np.flatnonzero((labels == 1) & (part == 0)))
    every = pool.pick(np.full(5, 2), np.ones(5, dtype=np.int64), np.arange(5) / 5)
    assert sorted(every) == sorted(np.flatnonzero((labels == 2) & (part == 1)))


def test_rows_are_decoded_into_what_they_stand_for():
    """Switches at a half, parameters linear in their range, orders counted up, classes and images by equal shares."""
    from neuronscope.augment import augmentations

    known = augmentations(16, 16)
    labels = np.repeat(np.arange(2), 4)
    raw = torch.zeros(8, 3, 16, 16, dtype=torch.uint8)
    data = ns.data_from_arrays(raw, labels, name="x", classes=("a", "b"))
    pool = make_pool(data, None, by_class=True, least=1, min_images=0)
    problem = make_problem(
        [known["brightness"], known["hflip"]], ("order", "class", "image"), pool, switches="plain", integers="whole"
    )
    assert problem.names == ("brightness", "hflip", "order", "class", "image")
    unit = np.array([[0.0, 0.4, 0.0, 0.0, 0.0], [0.5, 0.6, 0.9, 0.99, 0.99]])
    vectors = problem.vectors(unit)
    assert vectors[0].tolist() == pytest.approx([0.1, 1, 1, 0, 1])
    assert vectors[1].tolist() == pytest.approx([1.3, 1, 0, 1, 0])
    assert problem.images(unit).tolist() == [0, 7]
    switched = make_problem([known["brightness"], known["hflip"]], ("class",), pool, switches="all", integers="whole")
    assert [len(factor.columns) for factor in switched.factors] == [2, 1, 1]
    assert switched.vectors(np.array([[0.2, 0.5, 0.7, 0.0]]))[0].tolist() == pytest.approx([1.3, 0, 1, 0, 1])


BAD = [
    ({"augmentations": ("rotatoin",)}, UnknownName, "Closest: 'rotation'"),
    ({"augmentations": ("rotation",), "ranges": ("rotation.angel=-5:5",)}, UnknownName, "Closest: 'angle'"),
    ({"augmentations": ("rotation",), "ranges": ("hue.turn=0:1",)}, UnknownName, "no chosen augmentation"),
    ({"augmentations": ("rotation",), "ranges": ("rotation.angle=5",)}, InputError, "LOW:HIGH"),
    ({"augmentations": ("rotation",), "ranges": ("rotation.angle=5:5",)}, InputError, "has no range"),
    ({"augmentations": ("python:nowhere.py:mine",)}, InputError, "nowhere.py"),
    ({"points": 100}, InputError, r"Take 128 \(or 64\)"),
    ({"points": 4, "replicates": 8}, InputError, "power of two of --replicates"),
    ({"points": 512, "replicates": 6}, InputError, "power of two of --replicates"),
    ({"permutations": 30, "replicates": 8}, InputError, "Take 32"),
    ({"severities": (0.5, 0.2)}, InputError, "rising"),
    ({"layers": ("nothing",)}, UnknownName, "nothing"),
    ({"legacy": ("image-redrawm",)}, UnknownName, "Closest: 'image-redrawn'"),
    ({"augmentations": ("hflip",), "factors": ()}, InputError, "at least two factors"),
    ({"min_images": 50}, InputError, "the largest has 20"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_options_that_cannot_work_are_refused(subject, data, options, error, message):
    """One message that says what to do, before anything is swept."""
    spec = SensitivitySpec(**{**QUICK, **options})
    with pytest.raises(error, match=message):
        settle(subject, data, spec, ns.Run())


def test_images_that_cannot_work_are_refused(subject, data):
    """No labels where class is a factor, classes with too few images, grey images for colours, an unreadable image."""
    unlabelled = ns.data_from_arrays(data.pixels, np.full(40, -1), name="bare", classes=())
    with pytest.raises(InputError, match="has no labels"):
        settle(subject, unlabelled, SensitivitySpec(**QUICK), ns.Run())
    assert settle(subject, unlabelled, SensitivitySpec(**QUICK, factors=("order", "image")), ns.Run()).problem.columns
    few = data.take([0, 1, 2, 3, 4, 6])
    with pytest.raises(InputError, match="--min-images 4"):
        settle(subject, few, SensitivitySpec(**QUICK), ns.Run())
    grey = ns.load_model("builtin:viewer-cnn", weights="random")
    with pytest.raises(InputError, match="saturation"):
        settle(grey, ns.load_data("digits", limit=60), SensitivitySpec(augmentations=("saturation", "hflip")), ns.Run())


def test_an_image_that_cannot_be_read_ends_the_study(subject, data):
    """A design cannot do without one of its rows: the image is named, and nothing is left out silently."""

    def read(row):
        if row == 7:
            message = "image seven.png is torn"
            raise DataError(message)
        return data.pixels[row]

    broken = replace(data, pixels=None, read=read)
    spec = SensitivitySpec(**QUICK, augmentations=("brightness", "hflip"), estimators=("sobol",))
    with pytest.raises(DataError, match=r"seven\.png is torn"):
        run_sensitivity(subject, broken, spec, run=ns.Run(threads=1))
    with pytest.raises(InputError, match="could not be read"):
        run_sensitivity(subject, replace(broken, on_error="skip"), spec, run=ns.Run(threads=1))


class Broken(nn.Module):
    """Gives NaN in one unit for bright images."""

    def forward(self, x):
        """NaN where the first unit is large."""
        first = torch.where(x[:, :1] > 0.6, torch.nan, x[:, :1])
        return torch.cat([first, x[:, 1:]], 1)


def test_units_that_are_not_numbers_are_listed(data):
    """A unit with NaN activations is nan and named; the others are as they would be."""
    conv = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        conv.weight[:] = 1 / 3
        conv.bias[:] = 0
    module = nn.Sequential(conv, Broken(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    torch.manual_seed(0)
    subject = ns.subject_from(module, name="broken", input_shape=(3, SIDE, SIDE), preprocess=ns.Preprocess(channels=3))
    result, table, _ = found_of(
        subject, data, augmentations=("brightness", "hflip"), contrast_images=8, severity_images=8
    )
    assert result.provenance.nonfinite == {POOLED: (0,)}
    assert np.isnan(table["total"].to_numpy()[0]).all()
    assert np.isfinite(table["total"].to_numpy()[1]).all()
    assert np.isfinite(table["contrast"].to_numpy()[1]).any()


def test_modules_that_end_with_the_classifier_are_looked_at_alike():
    """AlexNet's last linear layer and the module around it are the classifier; the default looks at one of them."""
    subject = ns.load_model("torchvision:alexnet", weights="random")
    assert classifier_of(subject) == ("classifier.6", "classifier")
    names = [layer.name for layer in chosen_layers(subject, SensitivitySpec())]
    assert names[-1] == "classifier.6"
    assert "classifier" not in names


def test_analyses_of_the_maps_are_made_where_they_are_asked_for():
    """Correlations of factors and discriminants stand in the result and on its page; too few units are refused."""
    subject, digits = ns.load_model("builtin:viewer-cnn", weights="random"), ns.load_data("digits", limit=60)
    options = {
        **QUICK,
        "layers": ("conv_layers.10", "fc_layers.4"),
        "augmentations": ("brightness", "hflip"),
        "points": 16,
    }
    options |= {"estimators": ("sobol",), "analyses": ("correlations", "discriminants")}
    options |= {"repeats": 2, "folds": 3, "label_permutations": 19}
    result = run_sensitivity(subject, digits, SensitivitySpec(**options), run=ns.Run(threads=1))
    assert {"correlations", "discriminants"} <= set(result.tree.children)
    titles = [block.title for block in result.page().blocks if isinstance(block, ns.Section)]
    assert len(titles) == len(set(titles))
    with pytest.raises(InputError, match="fold"):
        run_sensitivity(subject, digits, SensitivitySpec(**{**options, "folds": 300}), run=ns.Run(threads=1))
