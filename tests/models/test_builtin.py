"""The built-in networks have the layers that their originals have on record."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import InputError
from neuronscope.models.builtin import BUILTIN_MODELS, subnet_cifar10, subnet_mnist, viewer_cnn
from neuronscope.models.probe import probe, probe_layers


def parameters(module: torch.nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(weight.numel() for weight in module.parameters())


def test_viewer_cnn_of_the_original():
    """Widths 16, 32, 64, 128 give the original's 106,058 parameters and maps of 28, 14, 7 and 3 pixels."""
    module = viewer_cnn(channels=(16, 32, 64, 128))
    assert parameters(module) == 106_058
    layers = {layer.name: layer.shape for layer in probe_layers(module, (1, 28, 28))}
    assert [layers[f"conv_layers.{i}"] for i in (0, 3, 6, 9)] == [(16, 28, 28), (32, 14, 14), (64, 7, 7), (128, 3, 3)]
    assert layers["conv_layers.11"] == (128, 1, 1)
    assert layers["fc_layers.4"] == (10,)


def test_viewer_cnn_for_colour():
    """The flat size follows from the image: 32 pixels leave 2x2 maps."""
    module = viewer_cnn(in_channels=3, image=32)
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert module.fc_layers[1].in_features == 256 * 2 * 2


def test_viewer_cnn_refuses_images_that_cannot_be_halved():
    """Four blocks need at least 16 pixels."""
    with pytest.raises(InputError, match="side 15 cannot be halved 4 times: expected 16 or more"):
        viewer_cnn(image=15)


@given(
    channels=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    hidden=st.integers(1, 5),
    classes=st.integers(1, 12),
    in_channels=st.sampled_from([1, 3]),
    image=st.sampled_from([8, 16, 28, 32, 48]),
)
def test_viewer_options_are_read_off_its_weights(channels, hidden, classes, in_channels, image):
    """A network made from the options that its weights show takes these weights."""
    module = viewer_cnn(channels=tuple(channels), hidden=hidden, classes=classes, in_channels=in_channels, image=image)
    options = BUILTIN_MODELS["viewer-cnn"].options(module.state_dict())
    viewer_cnn(**options).load_state_dict(module.state_dict())


def test_subnet_mnist():
    """Six weighted layers at Keras indices 0, 1, 4, 5, 9, 11, with 484,714 parameters in all."""
    module = subnet_mnist()
    weighted = [layer.name for layer in probe_layers(module, (1, 28, 28)) if layer.kind in ("conv", "linear")]
    assert weighted == ["conv0", "conv1", "conv4", "conv5", "dense9", "dense11"]
    sizes = [832, 25_632, 18_496, 36_928, 401_536, 1_290]
    assert [parameters(module.get_submodule(name)) for name in weighted] == sizes
    assert parameters(module) == sum(sizes) == 484_714


def test_subnet_cifar10():
    """Eight weighted layers at Keras indices 0, 2, 6, 8, 12, 14, 19, 21; the ReLU stands before the normalisation."""
    module = subnet_cifar10()
    layers = [layer.name for layer in probe_layers(module, (3, 32, 32))]
    weighted = [name for name in layers if name.startswith(("conv", "dense"))]
    assert weighted == ["conv0", "conv2", "conv6", "conv8", "conv12", "conv14", "dense19", "dense21"]
    assert layers[:6] == ["conv0", "relu0", "bn1", "conv2", "relu2", "bn3"]


@pytest.mark.parametrize("name", BUILTIN_MODELS)
def test_input_of_the_table_fits(name):
    """The input shape and preprocessing of the table are those of the network, which gives ten logits."""
    builtin = BUILTIN_MODELS[name]
    shape = builtin.input_shape({})
    assert probe(builtin.build(), shape).classes == 10
    prepare = builtin.preprocess({})
    raw = torch.randint(0, 256, (1, 40, 50), dtype=torch.uint8)
    assert prepare.batch([raw]).shape == (1, *shape)


def test_original_viewer_weights(test_data):
    """The original's file shows its widths, which its documentation states wrongly."""
    from neuronscope.models import load_model

    subject = load_model("builtin:viewer-cnn", weights=test_data / "golden" / "mnist-viewer" / "mnist_cnn.pth")
    assert [layer.units for layer in subject.select("conv")] == [16, 32, 64, 128]
    assert subject.input_shape == (1, 28, 28)
    assert len(subject.classes) == 10
