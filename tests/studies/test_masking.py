"""The `masking` study: a planted unit, a slow twin, random masks, portions, the command line, and what cannot work."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import neuronscope as ns
from neuronscope.errors import InputError, PortionDone, ResultFileError, UnknownName
from neuronscope.faces.cli.app import app
from neuronscope.result import open_result
from neuronscope.studies.sensitivity import SensitivitySpec, run_sensitivity
from neuronscope.studies.sensitivity.masking import MaskingSpec, plan_masking, run_masking

SIDE, UNITS, MASKED = 8, 8, "1"
LUMINANCE = torch.tensor([0.299, 0.587, 0.114])
RUN = ns.Run(threads=1)


@pytest.fixture(scope="module")
def subject():
    """Unit 0 sees red against blue and alone decides; seven units see brightness, and nobody asks them."""
    conv = nn.Conv2d(3, UNITS, 1, bias=False)
    head = nn.Linear(UNITS, 2)
    with torch.no_grad():
        conv.weight[:] = LUMINANCE.view(1, 3, 1, 1)
        conv.weight[0, :, 0, 0] = torch.tensor([1.0, 0.0, -1.0])
        head.weight[:] = 0
        head.weight[1, 0] = 1.0
        head.bias[:] = torch.tensor([0.15, 0.0])
    module = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    preprocess = ns.Preprocess(channels=3)
    return ns.subject_from(module, name="planted", input_shape=(3, SIDE, SIDE), preprocess=preprocess)


@pytest.fixture(scope="module")
def data():
    """Blue and red images, more or less so, with brightness that rises to one side; never white."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    colour = np.where(labels == 1, 1.0, -1.0) * rng.uniform(0.08, 0.14, 60)
    ramp = rng.uniform(-0.1, 0.1, (60, 1, 1, 1)) * np.linspace(-1, 1, SIDE)
    channels = 0.35 + np.stack([colour, 0 * colour, -colour], axis=1)[:, :, None, None]
    pixels = (channels + ramp) * np.ones((60, 3, SIDE, SIDE))
    raw = torch.from_numpy((255 * pixels.clip(0, 1)).round().astype(np.uint8))
    return ns.data_from_arrays(raw, labels, name="colours", classes=("blue", "red"))


@pytest.fixture(scope="module")
def folder(subject, data, tmp_path_factory):
    """A sensitivity result: total indices of grey and of mirrored images."""
    spec = SensitivitySpec(
        layers=(MASKED,),
        augmentations=("grayscaling", "hflip", "brightness"),
        estimators=("sobol",),
        points=32,
        replicates=4,
    )
    path = tmp_path_factory.mktemp("sensitivity")
    run_sensitivity(subject, data, spec, run=RUN).save(path)
    return path


def masked(subject, data, folder, *, run=RUN, **options):
    """A quick result."""
    quick = {"maps_from": (str(folder),), "value": "total", "controls": 8, "resamples": 20, "images": 40, **options}
    return run_masking(subject, data, MaskingSpec(**quick), run=run)


def accuracy_of(result, name, given="original"):
    """Top-1 accuracy of an input under a mask."""
    place = result.tree["configurations"]["configuration_name"].values.tolist().index(name)
    row = result.tree["accuracy"]["input_name"].values.tolist().index(given)
    return float(result.tree["accuracy"]["accuracy"].values[0, row, place])


def test_the_unit_that_a_factor_moves_is_found_and_random_masks_are_not(subject, data, folder):
    """Grey images move the deciding unit: its guide blinds the network, that of mirror images and chance do not."""
    result = masked(subject, data, folder, scales=(0.0,), quantiles=(0.8,))
    grey, mirrored = (f"alpha=0.00_perc=0.80_iaug={name}" for name in ("grayscaling", "hflip"))
    assert accuracy_of(result, "iaug=original") == 1
    assert accuracy_of(result, grey) == 0.5
    assert accuracy_of(result, mirrored) == 1
    beside = result.tree["against_random"].to_dataset()
    place = beside["mask_name"].values.tolist().index(grey)
    assert beside["random"].values[0, place] > 0.8
    assert beside["difference_high"].values[0, place] < -0.2
    assert beside["difference_q"].values[0, place] < 0.05
    other = beside["mask_name"].values.tolist().index(mirrored)
    assert beside["difference_low"].values[0, other] > -0.1
    labels = [block.label for block in result.page().blocks if isinstance(block, ns.Stat)]
    assert {"accuracy, no mask", "masks worse than random ones"} <= set(labels)


def twin(subject, data, maps, *, name, given):
    """Accuracy of one mask by the definition: whole images, one forward pass, a hook."""
    kind, variable = name.split("_")[0], name.split("iaug=")[1].split("_")[0]
    own = maps.values[..., maps["factor_name"].values.tolist().index(variable)]
    own = np.clip(np.nan_to_num(own), 0, 1)
    if kind.startswith("alpha"):
        scales = np.where(own >= np.quantile(own.astype(np.float64), 0.8), 0.5, 1.0)
    else:
        scales = 1 - own if name.endswith("invert=1") else own
    images = data.pixels.float() / 255
    if given == "hflip":
        images = images.flip(-1)
    stage = subject.module[1].register_forward_hook(
        lambda _, __, seen: seen * torch.from_numpy(scales.astype(np.float32))
    )
    with torch.no_grad():
        said = subject.module(images).argmax(1).numpy()
    stage.remove()
    return (said == data.labels).mean()


def test_accuracies_are_those_of_whole_passes(subject, data, folder):
    """Every configuration, on plain and mirrored images, against hooks: weights, and elements above a quantile."""
    options = {"scales": (0.5,), "quantiles": (0.8,), "images": 60, "legacy": ("quantile-masks",), "controls": 2}
    result = masked(subject, data, folder, **options)
    names = result.tree["configurations"]["configuration_name"].values.tolist()[1:]
    found = {(name, given): accuracy_of(result, name, given) for name in names for given in ("original", "hflip")}
    maps = open_result(folder).tree[f"maps/{MASKED}"]["total"]
    assert len(set(found.values())) > 2  # masks differ in what they do
    for (name, given), value in found.items():
        assert value == pytest.approx(twin(subject, data, maps, name=name, given=given)), (name, given)


def test_random_masks_of_equal_numbers_are_run_once(subject, data, folder):
    """By rank a random selection serves all factors; the plan tells the passes that follow."""
    spec = MaskingSpec(maps_from=(str(folder),), value="total", variables=("hflip", "class"), controls=3, images=10)
    plan = plan_masking(subject, data, spec, run=RUN)
    guided, random = plan.sweeps
    assert guided.replays == 10 * 4 * 2 * 17  # images, inputs, factors, configurations
    assert random.replays == 10 * 3 * (15 + 2 * 2)
    assert plan.seconds is not None
    assert plan.memory > 0
    own = plan_masking(subject, data, replace(spec, legacy=("quantile-masks",)), run=RUN)
    assert own.sweeps[1].replays == 10 * 3 * 2 * 17


def test_layers_one_by_one_and_random_masks_on_all_inputs(subject, data, folder):
    """`each` adds every layer alone, `controlled` all random masks on every input; augmented draws are averaged."""
    options = {"variables": ("grayscaling",), "controls": 2, "draws": 2, "images": 12}
    result = masked(subject, data, folder, layers=(MASKED,), at="each", controlled="all", **options)
    beside = result.tree["against_random"].to_dataset()
    assert beside["input_name"].values.tolist() == ["original", "grayscaling", "hflip", "brightness"]
    assert beside.sizes["mask"] == 17  # one layer alone is all of them together
    assert result.tree["accuracy_by_class"]["images"].values.tolist() == [6, 6]
    assert result.tree["correlations"]["correlation"].shape == (3, 1)


def test_portions_give_the_same_result(subject, data, folder, tmp_path):
    """Two portions, then the whole from what they left behind."""
    once = masked(subject, data, folder, controls=2)
    for number in (1, 2):
        with pytest.raises(PortionDone):
            masked(subject, data, folder, controls=2, run=replace(RUN, checkpoint=tmp_path, portion=(number, 2)))
    again = masked(subject, data, folder, controls=2, run=replace(RUN, checkpoint=tmp_path))
    assert again.tree.identical(once.tree)


def test_what_cannot_work_is_refused(subject, data, folder, tmp_path):
    """No result, another network, other maps, unknown names: each says what to do."""
    with pytest.raises(InputError, match=r"name the folder of a finished sensitivity result with --maps-from"):
        run_masking(subject, data, MaskingSpec(), run=RUN)
    with pytest.raises(InputError, match=r"no maps of 'shapley' for layer '1'.*estimators sobol.*--value"):
        masked(subject, data, folder, value="shapley")
    with pytest.raises(UnknownName, match=r"no maps of variable 'grayscale'. Closest: 'grayscaling'"):
        masked(subject, data, folder, variables=("grayscale",))
    with pytest.raises(UnknownName, match=r"no maps of layer '0'.*It has: 1"):
        masked(subject, data, folder, layers=("0",))
    with pytest.raises(UnknownName, match=r"'quantile-mask' is not a deviation.*quantile-masks"):
        masked(subject, data, folder, legacy=("quantile-mask",))
    with pytest.raises(InputError, match=r"a scale of 0.0 at quantile 1.0"):
        masked(subject, data, folder, quantiles=(1.0,))
    other = ns.subject_from(
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * SIDE**2, 2)),
        name="other",
        input_shape=(3, SIDE, SIDE),
        preprocess=ns.Preprocess(channels=3),
    )
    with pytest.raises(InputError, match=r"holds maps of another network: planted"):
        masked(other, data, folder)
    wide = ns.subject_from(subject.module, name="planted", input_shape=(3, 9, 9), preprocess=ns.Preprocess(channels=3))
    with pytest.raises(InputError, match=r"another network|shape \(8, 8, 8\), and its output \(8, 9, 9\)"):
        masked(wide, data, folder)
    result = masked(subject, data, folder, controls=2, scales=(0.0,), quantiles=(0.5,))
    result.save(tmp_path / "masking")
    with pytest.raises(InputError, match=r"a result of the study 'masking': one of 'sensitivity' expected"):
        masked(subject, data, tmp_path / "masking")


def test_data_and_folders_that_cannot_work_are_refused(subject, data, folder, tmp_path):
    """Nothing there, a torn result, the same result twice, images without labels, one image alone."""
    with pytest.raises(ResultFileError, match=r"holds no neuronscope result. Give a folder that a run has written"):
        masked(subject, data, tmp_path / "none")
    torn = tmp_path / "torn"
    shutil.copytree(folder, torn)
    (chunk, *_) = (one for one in torn.glob("maps/**/c/**/*") if one.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(ResultFileError, match=r"is torn: 1 of \d+ files are missing, changed or strange"):
        masked(subject, data, torn)
    with pytest.raises(InputError, match="several runs vary brightness, grayscaling, hflip: expected different aug"):
        masked(subject, data, folder, maps_from=(str(folder), str(folder)))
    unlabelled = replace(data, labels=np.full(60, -1))
    with pytest.raises(InputError, match=r"colours has 0 labelled images: at least 2 expected. Give more"):
        masked(subject, unlabelled, folder)
    with pytest.raises(InputError, match=r"1 labelled images: at least 2 expected. Give more"):
        masked(subject, data.take(np.array([3]), name="one"), folder)


def test_from_the_command_line(tmp_path):
    """Masks from a sensitivity result of digits, the plan first; the report has every part."""
    sensitive, out, layer = tmp_path / "sensitivity", tmp_path / "masking", "conv_layers.7"
    spec = SensitivitySpec(
        layers=(layer,), augmentations=("rolling",), factors=("class",), estimators=("sobol",), points=4, replicates=2
    )
    subject = ns.load_model("builtin:viewer-cnn", weights="random")
    run_sensitivity(subject, ns.load_data("digits", limit=60), spec, run=RUN).save(sensitive)
    given = ["-m", "builtin:viewer-cnn", "--weights", "random", "-d", "digits", "--limit", "60", "--quiet"]
    given += ["--maps-from", str(sensitive), "--value", "total", "--images", "20", "--controls", "2"]
    given += ["--scales", "0", "--quantiles", "0.5,0.8", "--resamples", "20"]
    planned = CliRunner().invoke(app, ["run", "masking", *given, "--plan"])
    assert "random masks" in planned.output
    run = CliRunner().invoke(app, ["run", "masking", *given, "--out", str(out)])
    assert run.exit_code == 0, run.output
    assert "Guided and random masks" in (out / "report.html").read_text()
    assert ns.open(out).page().title == "Guided masks"
    wrong = CliRunner().invoke(app, ["run", "masking", *given, "--value", "shapley", "--out", str(out)])
    assert wrong.exit_code == 2
