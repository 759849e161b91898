"""From a source and weights to a subject, on every way that there is, and the errors on each."""

from __future__ import annotations

import math
import os
import stat
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from neuronscope.errors import InputError, StorageError, UnknownName, WeightsError
from neuronscope.models import MODEL_SOURCES, load_model, save_checkpoint, sources, subject_from
from neuronscope.models.builtin import small_preprocess, viewer_cnn
from neuronscope.preprocessing import IMAGENET_MEAN, Preprocess

HERE = Path(__file__).parent

FACTORIES = """
import torch
from torch import nn

class Net(nn.Sequential):
    input_shape = (1, 6, 6)
    mean, std = [0.5], torch.tensor([0.25])

def make(num_classes=3):
    return Net(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, num_classes))

def bare():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 2))

def broken():
    raise RuntimeError("no licence")

def text():
    return "network"

value = 3
"""


@pytest.fixture
def factories(tmp_path):
    """A file with factories, as a user would write it."""
    file = tmp_path / "nets.py"
    file.write_text(FACTORIES)
    return file


def logits(module: nn.Module, shape: tuple[int, int, int]) -> Tensor:
    """The outputs for one fixed image."""
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return module(image)


# Torchvision


def test_no_weights_is_refused():
    """Weights are never assumed: the message lists what can be said."""
    for source in ("torchvision:squeezenet1_1", "builtin:viewer-cnn"):
        with pytest.raises(WeightsError, match=r"no weights given: say --weights PATH.*--weights random"):
            load_model(source)
    with pytest.raises(WeightsError, match="--weights DEFAULT"):
        load_model("torchvision:squeezenet1_1")


def test_random_weights_repeat():
    """`random` gives the same network every time and leaves the global random state alone."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = load_model("torchvision:squeezenet1_1", weights="random", input_shape=(3, 64, 64), classes=["cat", "dog"])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    two = load_model("torchvision:squeezenet1_1", weights="random", input_shape=(3, 64, 64), classes=["cat", "dog"])
    assert one.fingerprint == two.fingerprint
    assert one.classes == ("cat", "dog")
    assert one.input_shape == (3, 64, 64)
    assert (one.preprocess.resize, one.preprocess.crop) == (64, (64, 64))
    assert not one.module.training
    assert not any(weight.requires_grad for weight in one.module.parameters())


def test_class_count_from_the_weights(tmp_path):
    """A file for five classes makes a network with five outputs, named by numbers."""
    from torchvision import models

    torch.save(models.squeezenet1_1(num_classes=5).state_dict(), tmp_path / "five.pth")
    subject = load_model("torchvision:squeezenet1_1", weights=tmp_path / "five.pth", input_shape=(3, 64, 64))
    assert subject.classes == ("0", "1", "2", "3", "4")
    assert subject.preprocess.mean == IMAGENET_MEAN
    with pytest.raises(InputError, match="2 class names for torchvision:squeezenet1_1, which has 5 outputs"):
        load_model(
            "torchvision:squeezenet1_1", weights=tmp_path / "five.pth", input_shape=(3, 64, 64), classes=["a", "b"]
        )


def test_preprocessing_flags():
    """Flags win over the meta data of the weights; the input shape follows the crop."""
    subject = load_model(
        "torchvision:squeezenet1_1",
        weights="random",
        resize=80,
        crop=72,
        mean=(0.1, 0.2, 0.3),
        std=(1, 1, 1),
        interpolation="bicubic",
    )
    assert subject.preprocess == Preprocess(
        resize=80, crop=(72, 72), mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), interpolation="bicubic"
    )
    assert subject.input_shape == (3, 72, 72)
    plain = load_model("torchvision:squeezenet1_1", weights="random", input_shape=(3, 64, 64), mean=())
    assert (plain.preprocess.mean, plain.preprocess.std) == ((), ())
    with pytest.raises(InputError, match="only one of --mean and --std"):
        load_model("torchvision:squeezenet1_1", weights="random", mean=(0.1, 0.2, 0.3))


def test_auxiliary_classifiers(tmp_path):
    """GoogLeNet loads with and without the auxiliary tensors in the file, and gives plain logits."""
    from torchvision import models

    module = models.googlenet(num_classes=4, aux_logits=True, init_weights=False)
    state = module.state_dict()
    torch.save(state, tmp_path / "with.pth")
    torch.save({name: t for name, t in state.items() if not name.startswith("aux")}, tmp_path / "without.pth")
    full = load_model("torchvision:googlenet", weights=tmp_path / "with.pth", input_shape=(3, 64, 64))
    lean = load_model("torchvision:googlenet", weights=tmp_path / "without.pth", input_shape=(3, 64, 64))
    assert len(full.classes) == len(lean.classes) == 4
    assert torch.equal(logits(full.module, (3, 64, 64)), logits(lean.module, (3, 64, 64)))
    with pytest.raises(UnknownName, match="layer 'aux1' of torchvision:googlenet is never called in eval mode"):
        full.layer("aux1")


def test_unknown_names():
    """Architectures, sources, weights names and bare names that do not exist lead to the nearest ones."""
    cases = {
        ("torchvision:squeezenet1_2", "random"): r"no classifier 'squeezenet1_2'.*'squeezenet1_1'",
        ("torchvision:fcn_resnet50", "random"): "no classifier 'fcn_resnet50'",
        ("torchvison:resnet18", "random"): "unknown model source 'torchvison'.*Closest: 'torchvision'",
        ("resnet18", "random"): "Say torchvision:resnet18",
        ("viewer-cnn", "random"): "Say builtin:viewer-cnn",
        ("rasnet18", "random"): "Closest: 'resnet18'",
        ("torchvision:", "random"): "expected SOURCE:NAME",
        ("builtin:viewer", "random"): "no built-in network 'viewer'.*'viewer-cnn'",
    }
    for (source, weights), text in cases.items():
        with pytest.raises(UnknownName, match=text):
            load_model(source, weights=weights)
    with pytest.raises(WeightsError, match=r"'DEFALT' are neither a file nor a known name.*Closest: 'DEFAULT'"):
        load_model("torchvision:squeezenet1_1", weights="DEFALT")
    with pytest.raises(WeightsError, match=r"there is no weights file .*nothing\.pth"):
        load_model("torchvision:squeezenet1_1", weights="nothing.pth")


def test_wrong_channels():
    """An input that the architecture cannot take is refused with the network's own words."""
    with pytest.raises(InputError, match="cannot take images of shape 1x64x64"):
        load_model("torchvision:squeezenet1_1", weights="random", input_shape=(1, 64, 64))


def test_squeezenet_of_imagenet(test_data):
    """The complete file loads strictly: all layers, class names and the standard preprocessing."""
    subject = load_model(
        "torchvision:squeezenet1_1", weights=test_data / "weights" / "squeezenet1_1_imagenet_tvnorm.pth"
    )
    assert subject.not_loaded == ()
    assert subject.classes[:2] == ("tench", "goldfish")
    first = subject.layers[0]
    assert (first.name, first.kind, first.units, first.shape) == ("features.0", "conv", 64, (64, 111, 111))
    assert len(subject.select("conv")) == 26
    assert len(subject.select("block")) == 10
    assert subject.layer("features.12").receptive_field.size == (207, 207)


def test_partial_resnet18(test_data):
    """A file with a part of ResNet-18 is refused as a whole and loads on request, saying what stays random."""
    file = test_data / "weights" / "resnet18_imagenet_partial_bnfolded.pth"
    with pytest.raises(WeightsError, match=r"4 tensors are missing .*--strict partial"):
        load_model("torchvision:resnet18", weights=file)
    subject = load_model("torchvision:resnet18", weights=file, strict="partial")
    assert subject.not_loaded == tuple(f"layer4.{block}.conv{conv}.weight" for block in (0, 1) for conv in (1, 2))


# Keras


def test_keras(test_data):
    """A Keras file brings weights, input and preprocessing; the caller may still say how classes are called."""
    file = test_data / "golden" / "mnist-subnetworks" / "original_model.h5"
    subject = load_model(f"keras:{file}", classes=tuple("abcdefghij"))
    assert subject.name == f"keras:{file}"
    assert subject.input_shape == (1, 28, 28)
    assert subject.preprocess == Preprocess(channels=1, resize=28, crop=(28, 28))
    assert subject.classes == tuple("abcdefghij")
    assert [layer.name for layer in subject.select()] == ["relu0", "relu1", "relu4", "relu5", "relu9", "dense11"]
    assert load_model(f"keras:{file}", weights=file).fingerprint == subject.fingerprint
    with pytest.raises(InputError, match="leave --weights random out"):
        load_model(f"keras:{file}", weights="random")


def test_keras_errors(tmp_path):
    """A Keras file that is missing or torn is refused; one without prefix is told from other files by its ending."""
    torn = tmp_path / "torn.h5"
    torn.write_bytes(b"no HDF5")
    with pytest.raises(WeightsError, match="there is no Keras file"):
        load_model(f"keras:{tmp_path / 'none.h5'}")
    with pytest.raises(WeightsError, match=r"torn\.h5"):
        load_model(f"keras:{torn}")
    with pytest.raises(UnknownName, match=r"Say keras:.*torn\.h5"):
        load_model(str(torn))


# Timm


def test_timm(tmp_path):
    """A timm network with a file for six classes; its preprocessing comes from its configuration."""
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("resnet10t", num_classes=6).state_dict(), tmp_path / "six.pth")
    subject = load_model("timm:resnet10t", weights=tmp_path / "six.pth")
    assert len(subject.classes) == 6
    assert subject.input_shape == (3, 176, 176)
    assert subject.preprocess.mean == IMAGENET_MEAN
    with pytest.raises(UnknownName, match=r"timm has no network 'resnet81'.*'resnet18'"):
        load_model("timm:resnet81", weights="random")
    with pytest.raises(WeightsError, match="no weights given"):
        load_model("timm:resnet10t")


# Python factories


def test_python_file(factories, tmp_path):
    """A factory in a file: input and normalisation from the network, classes from the weights."""
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 8))
    torch.save(module.state_dict(), tmp_path / "eight.pth")
    subject = load_model(f"python:{factories}:make", weights=tmp_path / "eight.pth")
    assert len(subject.classes) == 8
    assert subject.input_shape == (1, 6, 6)
    assert subject.preprocess == Preprocess(channels=1, resize=6, crop=(6, 6), mean=(0.5,), std=(0.25,))
    assert torch.equal(logits(subject.module, (1, 6, 6)), logits(module, (1, 6, 6)))


def test_python_package(factories, monkeypatch):
    """A factory in a module is imported as from the current folder."""
    monkeypatch.chdir(factories.parent)
    monkeypatch.setattr("sys.path", list(os.sys.path))
    monkeypatch.delitem(os.sys.modules, "nets", raising=False)
    subject = load_model("python:nets:bare", weights="own", input_shape=(3, 2, 2))
    assert subject.name == "python:nets:bare"
    assert subject.preprocess.mean == ()


def test_python_weights(factories):
    """`random` is repeatable, also for factories; none at all is refused."""
    source = f"python:{factories}:make"
    assert load_model(source, weights="random").fingerprint == load_model(source, weights="random").fingerprint
    with pytest.raises(WeightsError, match="--weights own, --weights random"):
        load_model(source)


def test_python_errors(factories):
    """Whatever is wrong with a factory is said: place, name, kind, failure, return value, unknown input."""
    cases = {
        "python:nofile.py:make": "there is no Python file nofile.py",
        "python:no.such.package:make": "importing no.such.package .* failed: ModuleNotFoundError",
        "python:make": "expected python:package.module:factory",
        f"python:{factories}:mak": "has no 'mak'. Closest: 'make'",
        f"python:{factories}:value": "'value' of .* is a int",
        f"python:{factories}:broken": "failed: RuntimeError: no licence",
        f"python:{factories}:text": "returned a str; expected a torch.nn.Module",
        f"python:{factories}:bare": "the input of python:.*:bare is not known: say --input-shape",
    }
    for source, text in cases.items():
        with pytest.raises(InputError, match=text):
            load_model(source, weights="own")


def test_cifar_resnet20(test_data):
    """The CIFAR-10 ResNet-20, an architecture that is not in torchvision, with its `.th` file."""
    subject = load_model(
        f"python:{HERE / 'resnet20.py'}:resnet20", weights=test_data / "weights" / "cifar10_resnet20-12fca82f.th"
    )
    assert len(subject.classes) == 10
    assert subject.not_loaded == ()
    # All ReLUs are functional: the convolutions and the classifier are the default choice.
    assert [layer.name for layer in subject.select()][::9] == ["conv1", "layer2.1.conv1", "layer3.2.conv2"]
    assert subject.layer("layer3").shape == (64, 8, 8)


# Checkpoints of `neuronscope train`


def checkpoint(path: Path, **changes) -> nn.Module:
    """Write a small checkpoint; returns its network."""
    options = {"channels": (2, 3), "hidden": 4, "classes": 2, "image": 8}
    module = viewer_cnn(**options)
    content = {
        "architecture": "builtin:viewer-cnn",
        "options": options,
        "classes": ["cat", "dog"],
        "preprocess": small_preprocess(1, (8, 8)),
        "input_shape": (1, 8, 8),
        "module": module,
    }
    save_checkpoint(path, **{**content, **changes})
    return module


def test_checkpoint_round_trip(tmp_path):
    """Save, then load: the same network, classes, input and preprocessing, and no other file in the folder."""
    file = tmp_path / "new" / "net.pth"
    module = checkpoint(file)
    subject = load_model(f"file:{file}")
    assert torch.equal(logits(subject.module, (1, 8, 8)), logits(module.eval(), (1, 8, 8)))
    assert subject.classes == ("cat", "dog")
    assert subject.preprocess == small_preprocess(1, (8, 8))
    assert subject.input_shape == (1, 8, 8)
    assert [path.name for path in file.parent.iterdir()] == ["net.pth"]
    # Its weights alone can be read, too.
    other = load_model("builtin:viewer-cnn", weights=file, input_shape=(1, 8, 8))
    assert other.fingerprint == subject.fingerprint


def test_checkpoint_errors(tmp_path):
    """Files that are missing, torn, foreign, too new, damaged or not finite each have their message."""
    torch.save(viewer_cnn(channels=(2,)).state_dict(), tmp_path / "foreign.pth")
    torch.save({"neuronscope": 99}, tmp_path / "new.pth")
    torch.save({"neuronscope": 1, "architecture": "builtin:viewer-cnn"}, tmp_path / "damaged.pth")
    checkpoint(tmp_path / "other.pth", architecture="builtin:unheard-of")
    checkpoint(tmp_path / "options.pth", options={"colour": "red"})
    checkpoint(tmp_path / "whole.pth")
    (tmp_path / "torn.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:900])
    ill = viewer_cnn(channels=(2, 3), hidden=4, classes=2, image=8)
    ill.fc_layers[1].bias.data[0] = math.nan
    checkpoint(tmp_path / "nan.pth", module=ill)
    cases = {
        "absent.pth": "there is no checkpoint",
        "foreign.pth": "was not written by `neuronscope train`.*--weights",
        "new.pth": "has format 99",
        "damaged.pth": "is damaged: KeyError",
        "other.pth": "asks for architecture 'builtin:unheard-of'",
        "options.pth": "cannot be made with .*colour",
        "torn.pth": "torn",
        "nan.pth": "1 of 4 values that are NaN",
    }
    for name, text in cases.items():
        with pytest.raises(WeightsError, match=text):
            load_model(f"file:{tmp_path / name}")
    with pytest.raises(InputError, match="holds its own weights"):
        load_model(f"file:{tmp_path / 'whole.pth'}", weights="random")


def test_checkpoint_that_cannot_be_written(tmp_path):
    """A folder that cannot be made gives a storage error that names the file."""
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(StorageError, match="cannot write the checkpoint"):
        checkpoint(tmp_path / "taken" / "net.pth")


def test_checkpoint_can_be_read_by_others(tmp_path):
    """The file does not keep the private mode of the temporary file it was written as."""
    checkpoint(tmp_path / "net.pth")
    assert stat.S_IMODE((tmp_path / "net.pth").stat().st_mode) & 0o044


# Networks as objects, and what all sources share


def test_builtin_follows_the_input():
    """`builtin:viewer-cnn` for colour images of 32 pixels has CIFAR-10's preprocessing."""
    subject = load_model("builtin:viewer-cnn", weights="random", input_shape=(3, 32, 32))
    assert subject.layers[0].shape == (32, 32, 32)
    assert subject.preprocess == small_preprocess(3, (32, 32))
    with pytest.raises(InputError, match="takes square images: got 32x16"):
        load_model("builtin:viewer-cnn", weights="random", input_shape=(3, 32, 16))


def test_network_as_object():
    """A network itself is a source; it must say or be told its input, and brings its own weights."""
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
    subject = load_model(module, input_shape=(3, 8, 8), mean=(0.5, 0.5, 0.5), std=(1, 1, 1))
    assert subject.module is module
    assert subject.preprocess.mean == (0.5, 0.5, 0.5)
    assert (subject.preprocess.resize, subject.preprocess.crop) == (8, (8, 8))
    with pytest.raises(InputError, match="is not known: say --input-shape"):
        load_model(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    with pytest.raises(InputError, match="has its weights already"):
        load_model(module, weights="w.pth", input_shape=(3, 8, 8))
    with pytest.raises(InputError, match="5 input channels cannot be shown"):
        load_model(module, input_shape=(5, 8, 8))


def subject_of(module: nn.Module, **options):
    """A subject with a grey 4x4 input."""
    return subject_from(module, name="net", input_shape=(1, 4, 4), preprocess=Preprocess(channels=1), **options)


def test_compiled_network_is_unwrapped():
    """Of a network from torch.compile the original is looked at: its parts have their own names."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    subject = subject_of(torch.compile(module))
    assert subject.module is module
    assert [layer.name for layer in subject.layers] == ["0", "1"]


def test_given_network_with_nan():
    """NaN weights are refused for networks given as objects, too."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    module[1].weight.data[1, 3] = math.nan
    with pytest.raises(WeightsError, match=r"'1\.weight' of net holds 1 of 32 values"):
        subject_of(module)


def test_output_that_is_not_logits():
    """A network must give one number for each class: anything else is named."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat = nn.Flatten()

        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            return self.flat(image), image

    with pytest.raises(InputError, match="net returns a tuple of 2; expected a tensor of shape"):
        subject_of(Pair())
    with pytest.raises(InputError, match="net returns a tensor of shape 2x2x2x2 for 2 images"):
        subject_of(nn.Sequential(nn.Conv2d(1, 2, 3)))
    with pytest.raises(InputError, match="no parts with an output"):
        subject_of(nn.Flatten())


def test_class_names_must_match():
    """As many names as outputs."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    assert subject_of(module, classes=("a", "b")).classes == ("a", "b")
    assert subject_of(module).classes == ("0", "1")
    with pytest.raises(InputError, match="3 class names for net, which has 2 outputs"):
        subject_of(module, classes=("a", "b", "c"))


def test_fingerprint():
    """Equal networks have equal fingerprints; one weight, one option or the kind of number changes it."""

    def make(rate: float = 0.5) -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Dropout(rate), nn.Linear(16, 2))

    marks = [sources.fingerprint(make()), sources.fingerprint(make(0.25)), sources.fingerprint(make().double())]
    other = make()
    other[2].bias.data[1] += 1e-7
    marks += [sources.fingerprint(other), sources.fingerprint(make().bfloat16())]
    assert len(set(marks)) == 5
    assert sources.fingerprint(make()) == marks[0]
    scalar = nn.Sequential(nn.BatchNorm1d(2))  # holds a tensor without axes
    assert len(sources.fingerprint(scalar)) == 64


def test_sources_of_other_packages(monkeypatch):
    """An entry point adds a prefix; the prefixes of the table cannot be taken over."""
    entry = EntryPoint("zoo", f"{__name__}:zoo", "neuronscope.models")
    taken = EntryPoint("builtin", f"{__name__}:zoo", "neuronscope.models")
    monkeypatch.setitem(os.sys.modules, __name__, os.sys.modules.get(__name__) or _this())
    monkeypatch.setattr(sources, "entry_points", lambda group: [entry, taken] if group == "neuronscope.models" else [])
    assert load_model("zoo:ape", weights="random").name == "zoo:ape"
    assert load_model("builtin:viewer-cnn", weights="random").name == "builtin:viewer-cnn"
    with pytest.raises(UnknownName, match="Known sources: torchvision, timm, python, file, keras, builtin, zoo"):
        load_model("farm:cow")


def zoo(name, options):
    """A loader of another package."""
    assert options.weights == "random"
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    return subject_from(module, name=f"zoo:{name}", input_shape=(1, 4, 4), preprocess=Preprocess(channels=1))


def _this():
    """This file as an importable module."""
    import types

    module = types.ModuleType(__name__)
    module.zoo = zoo
    return module


def test_table():
    """The sources of the documentation, in its order."""
    assert list(MODEL_SOURCES) == ["torchvision", "timm", "python", "file", "keras", "builtin"]
