"""Weights files of every form that is about, and every way in which they fail."""

from __future__ import annotations

import logging
import math
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from neuronscope.errors import WeightsError
from neuronscope.models.builtin import viewer_cnn
from neuronscope.models.weights import Unfilled, class_count, fit_state, fitting_architectures, load_state


def tiny() -> nn.Sequential:
    """A network with four tensors."""
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two states hold the same tensors under the same names."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


FORMS = {
    "plain.pth": lambda state: state,
    "plain.pt": lambda state: state,
    "wrapped.pth.tar": lambda state: {"epoch": 3, "state_dict": state, "best": 0.5},
    "model.th": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "parallel.pth": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "both.pth": lambda state: {"state_dict": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}},
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_torch_files(name, tmp_path):
    """State dicts are found plain, wrapped, and behind the prefixes of DataParallel and torch.compile."""
    state = tiny().state_dict()
    torch.save(FORMS[name](state), tmp_path / name)
    assert same(load_state(tmp_path / name), state)


def test_old_serialisation(tmp_path):
    """Files in torch's form from before 1.6 are read."""
    state = tiny().state_dict()
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(load_state(str(tmp_path / "old.pth")), state)


def test_safetensors(tmp_path):
    """Safetensors files are read."""
    state = tiny().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    assert same(load_state(tmp_path / "w.safetensors"), state)


def test_old_densenet_names(tmp_path):
    """Dotted names inside dense layers become today's, all others stay."""
    names = ["features.denseblock1.denselayer2.norm.1.weight", "features.denseblock1.denselayer12.conv.2.weight"]
    others = ["features.norm0.weight", "features.transition1.conv.weight", "classifier.weight"]
    torch.save({name: torch.ones(1) for name in names + others}, tmp_path / "dense.pth")
    assert list(load_state(tmp_path / "dense.pth")) == [
        "features.denseblock1.denselayer2.norm1.weight",
        "features.denseblock1.denselayer12.conv2.weight",
        *others,
    ]


def test_old_densenet_file_loads(tmp_path):
    """A DenseNet-121 with the old names and without batch counters loads into today's network."""
    from torchvision import models

    with Unfilled():
        module = models.densenet121(num_classes=4)
    state = {name: torch.zeros_like(tensor) for name, tensor in module.state_dict().items() if "batches" not in name}
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): tensor for name, tensor in state.items()}
    assert old.keys() != state.keys()
    torch.save({"state_dict": old}, tmp_path / "densenet121.pth.tar")
    assert fit_state(module, load_state(tmp_path / "densenet121.pth.tar"), source="old") == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite(value, tmp_path):
    """NaN and infinity are refused at once; the message names the tensor and counts the values."""
    state = tiny().state_dict()
    state["3.weight"][1, 2:5] = value
    state["3.bias"][0] = value
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match=r"'3\.weight' of .*bad\.pth holds 3 of 24 values .* \(1 more tensors"):
        load_state(tmp_path / "bad.pth")


def test_pickled_network(tmp_path):
    """A pickled network is not opened: the message says why and how to convert it."""
    torch.save(tiny(), tmp_path / "whole.pth")
    with pytest.raises(WeightsError, match=r"pickled object .*can run any code, so only tensors .*torch\.save\("):
        load_state(tmp_path / "whole.pth")


class Trap:
    """An object whose opening would leave a mark."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code was run')",)


def test_pickled_code_is_not_run(tmp_path):
    """A file that would run code when opened is refused without running it."""
    torch.save({"state_dict": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match="pickled object"):
        load_state(tmp_path / "trap.pth")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("name", ["torn.pth", "torn.safetensors"])
def test_torn_and_empty_files(name, share, tmp_path):
    """A file that was cut off says so, and how many bytes there are."""
    file = tmp_path / name
    if name.endswith("pth"):
        torch.save(tiny().state_dict(), file)
    else:
        save_file(tiny().state_dict(), file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=r"is empty \(0 bytes\)" if share == 0 else r"bytes\) cannot be read"):
        load_state(file)


def test_files_that_are_no_weights(tmp_path):
    """Missing files, folders, other suffixes, text and dictionaries without tensors: each has its message."""
    (tmp_path / "text.pth").write_text("weights\n" * 50)
    (tmp_path / "net.h5").write_text("x")
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "log.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    cases = {
        "absent.pth": "there is no weights file",
        "": "is a folder",
        "net.h5": "should end in one of .pth",
        "text.pth": "cannot be read as weights",
        "log.pth": "holds no state dict.*'epoch', 'lr'",
        "list.pth": "holds no state dict.*list",
    }
    for name, text in cases.items():
        with pytest.raises(WeightsError, match=text):
            load_state(tmp_path / name)


def test_fit_all():
    """Weights that fit fill the whole network."""
    source, target = tiny(), tiny()
    assert fit_state(target, source.state_dict(), source="file") == ()
    assert same(target.state_dict(), source.state_dict())


def test_missing_batch_counter_is_no_mismatch():
    """The training counter of batch normalisation, absent in older files, has no part in the output."""
    module = nn.BatchNorm2d(2)
    state = {name: tensor for name, tensor in module.state_dict().items() if name != "num_batches_tracked"}
    assert fit_state(module, state, source="file") == ()


def test_mismatch_names_tensors_and_shapes():
    """The message says what is missing, unexpected and of another shape, and leaves the network as it was."""
    module = tiny()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = {
        "0.weight": torch.zeros(2, 1, 5, 5),
        "0.bias": torch.zeros(2),
        "3.weight": torch.zeros(3, 8),
        "extra": torch.zeros(1),
    }
    with pytest.raises(WeightsError) as caught:
        fit_state(module, state, source="w.pth")
    text = str(caught.value)
    assert "the weights of w.pth do not fit Sequential" in text
    assert "1 tensors are missing ('3.bias')" in text
    assert "1 are not expected ('extra')" in text
    assert "0.weight is 2x1x5x5, expected 2x1x3x3" in text
    assert "python:package.module:factory" in text
    assert same(module.state_dict(), before)


def test_partial(caplog):
    """`partial` loads what fits, tells the rest and warns; tensors of another shape count as not there."""
    source, target = tiny(), tiny()
    state = {**source.state_dict(), "0.weight": torch.zeros(2, 1, 5, 5), "extra": torch.zeros(1)}
    del state["3.bias"]
    before = target[3].bias.clone()
    with caplog.at_level(logging.WARNING, logger="neuronscope"):
        assert fit_state(target, state, source="w.pth", strict="partial") == ("0.weight", "3.bias")
    assert torch.equal(target[3].weight, source[3].weight)
    assert torch.equal(target[3].bias, before)
    assert "2 stay random: '0.weight', '3.bias'" in caplog.text


def test_partial_with_nothing_that_fits():
    """`partial` does not turn foreign weights into a random network."""
    with pytest.raises(WeightsError, match="4 tensors are missing"):
        fit_state(tiny(), {"foreign": torch.zeros(1)}, source="w.pth", strict="partial")


def test_class_count():
    """The number of classes is read off the classifier; weights of another build have none."""
    wide = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 7))
    assert class_count(tiny(), wide.state_dict()) == 7
    assert class_count(tiny(), tiny().state_dict()) is None
    other = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 7))
    assert class_count(tiny(), other.state_dict()) is None


def test_fitting_architectures_knows_torchvision_and_builtin():
    """Weights with any number of classes lead back to their architecture, and only to that."""
    from torchvision import models

    with Unfilled("meta"):
        network = models.mobilenet_v3_small(num_classes=7)
        auxiliary = models.googlenet(num_classes=5, init_weights=False, aux_logits=True)
    assert fitting_architectures(network.state_dict()) == ("torchvision:mobilenet_v3_small",)
    assert fitting_architectures(auxiliary.state_dict()) == ("torchvision:googlenet",)
    built = viewer_cnn(channels=(3, 5), classes=4, in_channels=3, image=32)
    assert fitting_architectures(built.state_dict()) == ("builtin:viewer-cnn",)


def test_unfilled_networks_have_the_same_tensors():
    """Leaving out the random numbers changes no name, shape or type."""
    from torchvision import models

    with Unfilled("meta"):
        twin = models.regnet_x_400mf()
    real = models.regnet_x_400mf().state_dict()
    assert {name: (t.shape, t.dtype) for name, t in twin.state_dict().items()} == {
        name: (t.shape, t.dtype) for name, t in real.items()
    }


def test_resnet18_weights_for_squeezenet(test_data):
    """Real ResNet-18 weights given to SqueezeNet: the message names ResNet-18, though the file holds a part only."""
    from torchvision import models

    state = load_state(test_data / "weights" / "resnet18_imagenet_partial_bnfolded.pth")
    with pytest.raises(WeightsError, match=r"closest architecture is torchvision:resnet18 \(96%"):
        fit_state(models.squeezenet1_1(), state, source="resnet18.pth")


def test_squeezenet_weights_for_resnet(test_data):
    """A complete file says which source it fits."""
    from torchvision import models

    state = load_state(test_data / "weights" / "squeezenet1_1_imagenet_tvnorm.pth")
    with pytest.raises(WeightsError, match=r"They fit torchvision:squeezenet1_1: use that with --model"):
        fit_state(models.resnet18(), state, source="squeezenet.pth")
