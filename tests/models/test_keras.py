"""Keras files: written here in the layouts of Keras 2 and 3, read, and compared with the definition in numpy."""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronscope.data.sources import load_data
from neuronscope.errors import InputError, WeightsError
from neuronscope.models import subject_from
from neuronscope.models.builtin import subnet_mnist
from neuronscope.models.keras import KerasNetwork, load_keras, same_padding

GOLDEN = "golden/mnist-subnetworks/original_model.h5"

Layers = list[tuple[str, dict[str, Any], dict[str, np.ndarray]]]


def write(file: Path, layers: Layers, shape: tuple[int | None, ...], *, keras: int = 2, nested: str = "") -> Path:
    """Write a sequential network as Keras does: class, options and arrays of each layer."""
    key = "batch_input_shape" if keras == 2 else "batch_shape"
    entries: list[dict[str, Any]] = [{"class_name": "InputLayer", "config": {"name": "input", key: [None, *shape]}}]
    with h5py.File(file, "w") as out:
        weights = out.create_group("model_weights")
        for number, (kind, options, arrays) in enumerate(layers):
            name = f"{kind.lower()}_{number}"
            entry: dict[str, Any] = {"class_name": kind, "config": {"name": name, **options}}
            if keras == 3:
                entry |= {"module": "keras.layers", "registered_name": None}
            entries.append(entry)
            group = weights.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{one}".encode() for one in arrays]
            for one, values in arrays.items():
                end = f"{one}:0" if keras == 2 else one
                group.create_dataset(f"{nested}{name}/{end}", data=values.astype(np.float32))
        out.attrs["keras_version"] = f"{keras}.0"
        out.attrs["model_config"] = json.dumps(
            {"class_name": "Sequential", "config": {"name": "sequential", "layers": entries}}
        )
    return file


def answers(network: KerasNetwork, images: np.ndarray) -> np.ndarray:
    """The output for channels-last images, as Keras would take them, and channels-last where it is a map."""
    with torch.no_grad():
        output = network.module(torch.from_numpy(images).float().permute(0, 3, 1, 2)).numpy()
    return output.transpose(0, 2, 3, 1) if output.ndim == 4 else output


def windows(  # noqa: PLR0917 read many times, always in this order
    image: np.ndarray, size: Any, stride: Any, dilation: Any, padding: str, fill: float
) -> np.ndarray:
    """Every window of channels-last images: (n, rows, columns, window rows, window columns, channels)."""
    pads = [(0, 0), (0, 0)]
    reach = [(one - 1) * gap + 1 for one, gap in zip(size, dilation, strict=True)]
    if padding == "same":
        for axis in (0, 1):
            side = image.shape[1 + axis]
            total = max((-(-side // stride[axis]) - 1) * stride[axis] + reach[axis] - side, 0)
            pads[axis] = (total // 2, total - total // 2)
    padded = np.pad(image.astype(np.float64), [(0, 0), *pads, (0, 0)], constant_values=fill)
    rows = range(0, padded.shape[1] - reach[0] + 1, stride[0])
    columns = range(0, padded.shape[2] - reach[1] + 1, stride[1])
    return np.stack(
        [
            np.stack(
                [padded[:, y : y + reach[0] : dilation[0], x : x + reach[1] : dilation[1]] for x in columns], axis=1
            )
            for y in rows
        ],
        axis=1,
    )


def convolved(
    image: np.ndarray, kernel: np.ndarray, *, stride: Any = (1, 1), dilation: Any = (1, 1), padding: str = "valid"
) -> np.ndarray:
    """A convolution by its definition; fewer kernel inputs than channels mean groups."""
    seen = windows(image, kernel.shape[:2], stride, dilation, padding, 0.0)
    inputs, units = kernel.shape[2:]
    groups = image.shape[3] // inputs
    each = units // groups
    parts = [
        np.einsum(
            "nyxijc,ijcu->nyxu",
            seen[..., g * inputs : (g + 1) * inputs],
            kernel.astype(np.float64)[..., g * each : (g + 1) * each],
        )
        for g in range(groups)
    ]
    return np.concatenate(parts, axis=3)


@pytest.fixture
def rng():
    """Numbers that are the same every time."""
    return np.random.default_rng(0)


# Real weights


def test_golden_accuracy(test_data):
    """The network of the sub-network experiments is right on 9,914 of the 10,000 test images of MNIST."""
    network = load_keras(test_data / GOLDEN)
    data = load_data(f"mnist:{test_data / 'mnist'}", split="test")
    assert data.pixels is not None
    right = 0
    with torch.inference_mode():
        for start in range(0, len(data), 250):
            rows = slice(start, start + 250)
            logits = network.module(network.preprocess.batch(data.pixels[rows]))
            right += int((logits.argmax(1).numpy() == data.labels[rows]).sum())
    assert right == 9914


def test_golden_layers_and_forward_pass(test_data):
    """It has the layers and names of `builtin:subnet-mnist`, and gives the logits that numpy does from the arrays."""
    network = load_keras(test_data / GOLDEN)
    twin = subnet_mnist()
    assert list(network.module._modules) == list(twin._modules)
    assert {k: v.shape for k, v in network.module.state_dict().items()} == {
        k: v.shape for k, v in twin.state_dict().items()
    }
    assert (network.input_shape, network.removed) == ((1, 28, 28), "dense_1")
    data = load_data(f"mnist:{test_data / 'mnist'}", split="test")
    assert data.pixels is not None
    image = network.preprocess.batch(data.pixels[:2]).numpy().transpose(0, 2, 3, 1)
    logits = answers(network, image)
    with h5py.File(test_data / GOLDEN) as file:
        names = ("conv2d", "conv2d_1", "conv2d_2", "conv2d_3", "dense", "dense_1")
        kernels = [np.asarray(file[f"model_weights/{name}/{name}/kernel:0"]) for name in names]
        biases = [np.asarray(file[f"model_weights/{name}/{name}/bias:0"]) for name in names]
    for place in range(4):
        image = np.maximum(convolved(image, kernels[place], padding="same") + biases[place], 0)
        if place % 2:
            image = windows(image, (2, 2), (2, 2), (1, 1), "valid", 0.0).max((3, 4))
    hidden = np.maximum(image.reshape(2, -1) @ kernels[4] + biases[4], 0)
    np.testing.assert_allclose(logits, hidden @ kernels[5] + biases[5], rtol=0, atol=1e-5)


# Layers


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60)
@given(
    sides=st.tuples(st.integers(7, 10), st.integers(7, 10)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=pairs,
    dilation=st.sampled_from([(1, 1), (2, 1), (2, 2)]),
    padding=st.sampled_from(["valid", "same"]),
    groups=st.sampled_from([1, 3]),
    use_bias=st.booleans(),
)
def test_convolution_is_its_definition(*, sides, kernel, stride, dilation, padding, groups, use_bias):
    """Any kernel, stride, dilation, padding and grouping gives the numbers and sizes of Keras's definition."""
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(*kernel, 3 // groups, 6)), rng.normal(size=6)
    options = {"filters": 6, "kernel_size": list(kernel), "strides": list(stride), "dilation_rate": list(dilation)}
    options |= {"padding": padding, "groups": groups, "use_bias": use_bias, "data_format": "channels_last"}
    image = rng.normal(size=(2, *sides, 3))
    with TemporaryDirectory() as folder:
        arrays = {"kernel": weight, "bias": bias} if use_bias else {"kernel": weight}
        network = load_keras(write(Path(folder) / "n.h5", [("Conv2D", options, arrays)], (*sides, 3)))
    expected = convolved(image, weight, stride=stride, dilation=dilation, padding=padding) + use_bias * bias
    np.testing.assert_allclose(answers(network, image), expected, atol=1e-4)  # float32 against float64


@settings(max_examples=60)
@given(
    sides=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    window=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.none() | pairs,
    padding=st.sampled_from(["valid", "same"]),
    of=st.sampled_from(["Max", "Average"]),
)
def test_pooling_is_its_definition(sides, window, stride, padding, of):
    """Maximum and mean over any window, where padding never counts: not as a value and not in the mean."""
    image = np.random.default_rng(2).normal(size=(2, *sides, 3)) - 5  # below 0: a padding with zeros would show
    options = {"pool_size": list(window), "strides": stride and list(stride), "padding": padding}
    with TemporaryDirectory() as folder:
        network = load_keras(write(Path(folder) / "n.h5", [(f"{of}Pooling2D", options, {})], (*sides, 3)))
    seen = windows(image, window, stride or window, (1, 1), padding, np.nan)
    expected = (np.nanmax if of == "Max" else np.nanmean)(seen, axis=(3, 4))
    np.testing.assert_allclose(answers(network, image), expected, atol=1e-5)


@given(size=st.integers(1, 40), window=st.integers(1, 9), stride=st.integers(1, 5))
def test_same_padding_law(size, window, stride):
    """`same` gives size / stride outputs, rounded up, with the odd pixel after and never a pixel too many."""
    before, after = same_padding(size, window=window, stride=stride)
    assert 0 <= after - before <= 1
    if before + after:
        assert (size + before + after - window) / stride + 1 == -(-size // stride)


@pytest.mark.parametrize("keras", [2, 3])
@pytest.mark.parametrize("nested", ["", "sequential/", "a/b/"])
def test_whole_network_in_both_layouts(tmp_path, rng, keras, nested):
    """Every usual layer at once: names carry Keras's index, a Flatten's order is minded, all numbers are right."""
    conv, bias = rng.normal(size=(3, 3, 3, 4)), rng.normal(size=4)
    flat = {name: rng.uniform(0.5, 1.5, 36) for name in ("gamma", "beta", "moving_mean", "moving_variance")}
    dense, last = rng.normal(size=(36, 5)), rng.normal(size=(5, 2))
    norm = {"moving_mean": rng.normal(size=4), "moving_variance": rng.uniform(0.5, 2, 4)}
    relu = "relu" if keras == 2 else {"class_name": "function", "config": "relu", "registered_name": "function"}
    layers: Layers = [
        ("ZeroPadding2D", {"padding": [[1, 0], [0, 2]]}, {}),
        ("Conv2D", {"filters": 4, "kernel_size": [3, 3], "activation": relu}, {"kernel": conv, "bias": bias}),
        ("BatchNormalization", {"axis": [3], "epsilon": 1e-3, "scale": False, "center": False}, norm),
        ("LeakyReLU", {"alpha" if keras == 2 else "negative_slope": 0.1}, {}),
        ("MaxPooling2D", {"pool_size": [2, 2]}, {}),
        ("Dropout", {"rate": 0.25}, {}),
        ("Flatten", {"data_format": "channels_last"}, {}),
        ("BatchNormalization", {"axis": -1, "epsilon": 0.01}, flat),
        ("Dropout", {"rate": 0.5}, {}),
        ("Dense", {"units": 5, "activation": "tanh", "use_bias": False}, {"kernel": dense}),
        ("Dense", {"units": 2, "activation": "softmax", "use_bias": False}, {"kernel": last}),
    ]
    network = load_keras(write(tmp_path / "n.h5", layers, (8, 7, 3), keras=keras, nested=nested))
    assert " ".join(network.module._modules) == (
        "pad0 conv1 relu1 bn2 leaky3 pool4 drop5 flatten6 bn7 drop8 dense9 tanh9 dense10"
    )
    assert dict(network.layers)["tanh9"] == "dense_9"
    assert (network.input_shape, network.removed) == ((3, 8, 7), "dense_10")

    image = rng.uniform(size=(2, 8, 7, 3))
    maps = np.maximum(convolved(np.pad(image, [(0, 0), (1, 0), (0, 2), (0, 0)]), conv) + bias, 0)
    maps = (maps - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + 1e-3)
    maps = np.where(maps > 0, maps, 0.1 * maps)
    values = windows(maps, (2, 2), (2, 2), (1, 1), "valid", 0.0).max((3, 4)).reshape(2, -1)
    values = (values - flat["moving_mean"]) / np.sqrt(flat["moving_variance"] + 0.01) * flat["gamma"] + flat["beta"]
    np.testing.assert_allclose(answers(network, image), np.tanh(values @ dense) @ last, atol=1e-4)


def test_flatten_keeps_channel_blocks(tmp_path, rng):
    """After the Flatten of a map, the inputs of a linear layer stand in one block of positions for each channel."""
    kernel = rng.normal(size=(2 * 3 * 3, 1))
    network = load_keras(
        write(tmp_path / "n.h5", [("Flatten", {}, {}), ("Dense", _dense(1), {"kernel": kernel})], (2, 3, 3))
    )
    blocks = network.module.get_parameter("dense1.weight").reshape(3, 2, 3)
    np.testing.assert_allclose(blocks, kernel[:, 0].reshape(2, 3, 3).transpose(2, 0, 1), rtol=1e-6)


@pytest.mark.parametrize("name", ["depthwise_kernel", "kernel"])
def test_depthwise_and_separable(tmp_path, rng, name):
    """One kernel for each channel, alone and before a 1x1 convolution; Keras 2 and 3 call it differently."""
    each, point = rng.normal(size=(3, 3, 3, 2)), rng.normal(size=(1, 1, 6, 4))
    first = rng.normal(size=(2, 2, 3, 1))
    layers: Layers = [
        ("DepthwiseConv2D", {"kernel_size": [2, 2], "use_bias": False, "padding": "same"}, {name: first}),
        (
            "SeparableConv2D",
            {"filters": 4, "kernel_size": [3, 3], "strides": [2, 2], "padding": "same", "depth_multiplier": 2},
            {"depthwise_kernel": each, "pointwise_kernel": point, "bias": np.arange(4.0)},
        ),
    ]
    network = load_keras(write(tmp_path / "n.h5", layers, (6, 6, 3)))
    assert list(network.module._modules) == ["pad0", "depthwise0", "pad1", "depthwise1", "conv1"]
    image = rng.normal(size=(2, 6, 6, 3))
    # The definition, channel by channel: output c * copies + m is channel c with kernel m.
    seen = np.einsum("nyxijc,ijcm->nyxcm", windows(image, (2, 2), (1, 1), (1, 1), "same", 0.0), first)[..., 0]
    seen = np.einsum("nyxijc,ijcm->nyxcm", windows(seen, (3, 3), (2, 2), (1, 1), "same", 0.0), each)
    expected = seen.reshape(*seen.shape[:3], 6) @ point[0, 0] + np.arange(4.0)
    np.testing.assert_allclose(answers(network, image), expected, atol=1e-4)


def test_global_pooling_and_dense_on_maps(tmp_path, rng):
    """A Dense on a map works on the channels of each position; global pooling gives one number for each channel."""
    kernel = rng.normal(size=(3, 4))
    layers: Layers = [("Dense", _dense(4), {"kernel": kernel}), ("GlobalMaxPooling2D", {}, {})]
    network = load_keras(write(tmp_path / "n.h5", layers, (5, 4, 3)))
    image = rng.normal(size=(2, 5, 4, 3))
    np.testing.assert_allclose(answers(network, image), (image @ kernel).max((1, 2)), atol=1e-5)
    kept = load_keras(write(tmp_path / "m.h5", [("GlobalAveragePooling2D", {"keepdims": True}, {})], (5, 4, 3)))
    np.testing.assert_allclose(answers(kept, image), image.mean((1, 2), keepdims=True), atol=1e-6)


def test_activations(tmp_path):
    """Activations as layers and by name are Keras's functions."""
    cases: list[tuple[str, dict[str, Any], Any]] = [
        ("Activation", {"activation": "sigmoid"}, lambda x: 1 / (1 + np.exp(-x))),
        ("Activation", {"activation": "swish"}, lambda x: x / (1 + np.exp(-x))),
        ("Activation", {"activation": "leaky_relu"}, lambda x: np.where(x > 0, x, 0.2 * x)),
        ("Activation", {"activation": "linear"}, lambda x: x),
        ("LeakyReLU", {}, lambda x: np.where(x > 0, x, 0.3 * x)),
        ("ReLU", {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}, lambda x: np.maximum(x, 0)),
        ("ReLU", {"max_value": 6.0}, lambda x: np.clip(x, 0, 6)),
        ("ReLU", {"max_value": 1.5}, lambda x: np.clip(x, 0, 1.5)),
        ("ReLU", {"negative_slope": 0.25}, lambda x: np.where(x > 0, x, 0.25 * x)),
        ("ELU", {"alpha": 0.5}, lambda x: np.where(x > 0, x, 0.5 * np.expm1(x))),
        ("GaussianNoise", {"stddev": 0.1}, lambda x: x),
    ]
    image = np.linspace(-9, 9, 12).reshape(1, 2, 2, 3)
    for kind, options, function in cases:
        network = load_keras(write(tmp_path / "n.h5", [(kind, options, {})], (2, 2, 3)))
        np.testing.assert_allclose(answers(network, image), function(image), atol=1e-5, err_msg=f"{kind} {options}")


def test_softmax_only_at_the_end_is_taken_off(tmp_path, rng, caplog):
    """A softmax inside stays; one at the end, as a layer or an activation, is left out and said in the log."""
    image = rng.normal(size=(2, 1, 1, 3))
    inside: Layers = [("Softmax", {"axis": -1}, {}), ("Flatten", {}, {})]
    network = load_keras(write(tmp_path / "n.h5", inside, (1, 1, 3)))
    expected = np.exp(image) / np.exp(image).sum(-1, keepdims=True)
    np.testing.assert_allclose(answers(network, image), expected[:, 0, 0], atol=1e-6)
    assert network.removed == ""
    with caplog.at_level(logging.INFO, logger="neuronscope"):
        network = load_keras(write(tmp_path / "n.h5", [("Flatten", {}, {}), ("Softmax", {}, {})], (1, 1, 3)))
    np.testing.assert_allclose(answers(network, image), image[:, 0, 0], atol=1e-6)
    assert network.removed == "softmax_1"
    assert "softmax_1" in caplog.text


def test_rescaling_becomes_preprocessing(tmp_path):
    """Pixels reach the first weighted layer as Keras would have scaled them, whatever the Rescaling says."""
    raw = torch.arange(48, dtype=torch.uint8).reshape(1, 3, 4, 4) * 5
    for scale, offset in ((1 / 255, 0.0), (1 / 127.5, -1), ([1.0, 2.0, 3.0], [0, -1, 4])):
        file = write(tmp_path / "n.h5", [("Rescaling", {"scale": scale, "offset": offset}, {})], (4, 4, 3))
        keras = raw.permute(0, 2, 3, 1).numpy() * np.asarray(scale) + np.asarray(offset)
        ours = load_keras(file).preprocess.batch(raw).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(ours, keras, rtol=1e-5, atol=1e-5)
    assert load_keras(write(tmp_path / "n.h5", [("ReLU", {}, {})], (4, 4, 3))).preprocess.std == ()


def test_subject(tmp_path, rng):
    """A file becomes a subject whose layers carry the Keras names, without touching the global random numbers."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    layers: Layers = [
        ("Conv2D", {"filters": 2, "kernel_size": 3, "activation": "relu", "use_bias": False}, {}),
        ("Flatten", {}, {}),
        ("Dense", _dense(3), {"kernel": rng.normal(size=(8, 3))}),
    ]
    layers[0][2]["kernel"] = rng.normal(size=(3, 3, 1, 2))
    network = load_keras(write(tmp_path / "n.h5", layers, (4, 4, 1)))
    subject = subject_from(
        network.module, name="keras:n.h5", input_shape=network.input_shape, preprocess=network.preprocess
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert [(layer.name, layer.kind) for layer in subject.layers] == [
        ("conv0", "conv"),
        ("relu0", "relu"),
        ("flatten1", "flatten"),
        ("dense2", "linear"),
    ]
    assert subject.preprocess.channels == 1


def test_input_shape(tmp_path):
    """The size may be left open in the file, and another one may be asked for."""
    layers: Layers = [("MaxPooling2D", {"padding": "same"}, {}), ("GlobalAveragePooling2D", {}, {})]
    file = write(tmp_path / "n.h5", layers, (None, None, 3))
    with pytest.raises(InputError, match=r"size of the input .* is not known .*--input-shape 3,224,224"):
        load_keras(file)
    assert load_keras(file, input_shape=(3, 7, 9)).preprocess.crop == (7, 9)


def test_configuration_of_early_keras(tmp_path):
    """Before Keras 2.3 the configuration was the list of layers, and the first one said the shape of the input."""
    layers = [{"class_name": "Flatten", "config": {"name": "f", "batch_input_shape": [None, 1, 1, 3]}}]
    with h5py.File(tmp_path / "n.h5", "w") as out:
        out.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": layers}).encode()
    assert load_keras(tmp_path / "n.h5").input_shape == (3, 1, 1)


# What is refused


def _dense(units: int) -> dict[str, Any]:
    return {"units": units, "use_bias": False}


CONV = {"filters": 2, "kernel_size": [3, 3], "use_bias": False}
KERNEL = {"kernel": np.zeros((3, 3, 3, 2))}

REFUSED: list[tuple[tuple[str, dict[str, Any], dict[str, np.ndarray]], str]] = [
    (("Conv3D", {}, {}), r"layer 0 .* cannot be read.*Closest: 'Conv2D'.*python:FILE.py:FACTORY"),
    (("Sequential", {}, {}), "cannot be read"),
    (("Lambda", {"function": "code"}, {}), "cannot be read"),
    (("Conv2D", CONV | {"activation": "swoosh"}, KERNEL), "activation 'swoosh'"),
    (("Conv2D", CONV | {"activation": {"registered_name": "mine>relu", "config": "relu"}}, KERNEL), "mine>relu"),
    (("Conv2D", CONV | {"padding": "causal"}, KERNEL), "expected 'valid' or 'same'"),
    (("Conv2D", CONV | {"data_format": "channels_first"}, KERNEL), "only 'channels_last'"),
    (("Conv2D", CONV | {"strides": [0, 1]}, KERNEL), "strides = .*at least 1"),
    (("Conv2D", CONV | {"kernel_size": [3, 3, 3]}, KERNEL), "kernel_size"),
    (("Conv2D", CONV | {"groups": 2}, KERNEL), "groups = 2"),
    (("Conv2D", CONV | {"filters": True}, KERNEL), "filters = True"),
    (("Conv2D", CONV | {"use_bias": 1}, KERNEL), "expected true or false"),
    (("Conv2D", CONV | {"filters": 4}, KERNEL), r"3x3x3x2 of float32: expected 3x3x3x4"),
    (("Conv2D", CONV, {}), r"needs one array 'kernel': found 0.*none"),
    (("Conv2D", CONV | {"dilation_rate": 9}, KERNEL), "does not fit"),
    (("MaxPooling2D", {"pool_size": 9}, {}), "does not fit"),
    (("ZeroPadding2D", {"padding": [[1, -1], [0, 0]]}, {}), "expected"),
    (("ZeroPadding2D", {"padding": 10**9}, {}), "expected"),
    (("ZeroPadding2D", {"padding": 10**5}, {}), "does not fit"),
    (("BatchNormalization", {"axis": 1}, {}), "axis 1"),
    (("BatchNormalization", {"epsilon": "x"}, {}), "expected a number"),
    (("Dropout", {"rate": 2}, {}), "expected 0 to 1"),
    (("ReLU", {"threshold": 1.0}, {}), "threshold"),
    (("Rescaling", {"scale": -1}, {}), "above 0"),
    (("Rescaling", {"scale": [1, 2]}, {}), "one for each of 3"),
    (("Flatten", {}, {}), "ends in a Flatten"),
]


@pytest.mark.parametrize(("layer", "says"), REFUSED, ids=[f"{row[0][0]}-{place}" for place, row in enumerate(REFUSED)])
def test_refused_layers(tmp_path, layer, says):
    """What cannot be read, or cannot be true, is refused with the layer's name."""
    with pytest.raises(InputError, match=says):
        load_keras(write(tmp_path / "n.h5", [layer], (6, 6, 3)))


def test_refused_order(tmp_path):
    """A Rescaling inside the network, and a map layer after a Flatten."""
    with pytest.raises(InputError, match="at the start only"):
        load_keras(write(tmp_path / "n.h5", [("ReLU", {}, {}), ("Rescaling", {"scale": 2}, {})], (4, 4, 3)))
    with pytest.raises(InputError, match="needs maps"):
        load_keras(write(tmp_path / "n.h5", [("Flatten", {}, {}), ("MaxPooling2D", {}, {})], (4, 4, 3)))
    with pytest.raises(InputError, match="images of 2 channels"):
        load_keras(write(tmp_path / "n.h5", [("ReLU", {}, {})], (4, 4, 2)))
    with pytest.raises(InputError, match="expected images"):
        load_keras(write(tmp_path / "n.h5", [("ReLU", {}, {})], (784,)))
    with pytest.raises(InputError, match="expected at most"):
        load_keras(write(tmp_path / "n.h5", [("ReLU", {}, {})], (4, 10**30, 3)))


def test_refused_files(tmp_path):
    """No file, another kind of file, a .keras archive, weights alone, a network with branches: one message each."""
    with pytest.raises(WeightsError, match="there is no Keras file"):
        load_keras(tmp_path / "absent.h5")
    (tmp_path / "torn.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    with pytest.raises(WeightsError, match="torn or of another kind"):
        load_keras(tmp_path / "torn.h5")
    with zipfile.ZipFile(tmp_path / "n.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(WeightsError, match=r"\.keras format.*model\.save"):
        load_keras(tmp_path / "n.keras")
    with h5py.File(tmp_path / "n.h5", "w") as out:
        out.create_dataset("layers/conv2d/vars/0", data=np.zeros(3))
    with pytest.raises(WeightsError, match=r"weights without the network.*model\.save"):
        load_keras(tmp_path / "n.h5")
    configurations = {
        '{"class_name": "Functional", "config": {}}': "class 'Functional'.*branches",
        "[1, 2]": "class None",
        "{": "not JSON",
        "[" * 60_000: "not JSON",
        '{"class_name": "Sequential", "config": {"layers": "x"}}': "no list of layers",
    }
    for text, says in configurations.items():
        with h5py.File(tmp_path / "n.h5", "w") as out:
            out.attrs["model_config"] = text
        with pytest.raises(InputError, match=says):
            load_keras(tmp_path / "n.h5")


def _write_around(file: Path, put: Any) -> Path:
    """A file with one convolution whose kernel is put in by the test."""
    write(file, [("Conv2D", CONV, {})], (6, 6, 3))
    with h5py.File(file, "a") as out:
        put(out["model_weights/conv2d_0"])
    return file


def test_nothing_outside_the_file_is_read(tmp_path):
    """Links, virtual arrays, arrays stored elsewhere and arrays that only claim their size are all refused."""
    with h5py.File(tmp_path / "secret.h5", "w") as out:
        out.create_dataset("kernel", data=np.zeros((3, 3, 3, 2), np.float32))

    def link(group: Any) -> None:
        group["kernel"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "kernel")

    def virtual(group: Any) -> None:
        layout = h5py.VirtualLayout((3, 3, 3, 2), np.float32)
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "kernel", (3, 3, 3, 2))
        group.create_virtual_dataset("kernel", layout)

    def elsewhere(group: Any) -> None:
        raw = [(str(tmp_path / "secret.h5"), 0, 216)]
        group.create_dataset("kernel", (3, 3, 3, 2), np.float32, external=raw)

    def whole(group: Any) -> None:
        group.create_dataset("kernel", data=np.zeros((3, 3, 3, 2), np.int32))

    with pytest.raises(WeightsError, match="found 0"):
        load_keras(_write_around(tmp_path / "n.h5", link))
    for put in (virtual, elsewhere):
        with pytest.raises(WeightsError, match="does not lie in the file itself"):
            load_keras(_write_around(tmp_path / "n.h5", put))
    with pytest.raises(WeightsError, match="int32: expected"):
        load_keras(_write_around(tmp_path / "n.h5", whole))

    file = tmp_path / "n.h5"
    write(file, [("Dense", _dense(2**25), {})], (1, 1, 3))
    with h5py.File(file, "a") as out:
        out.create_dataset("model_weights/dense_0/kernel", (3, 2**25), np.float32, chunks=(3, 2**10))
    with pytest.raises(WeightsError, match="does not lie in the file itself"):
        load_keras(file)


def test_two_arrays_of_one_name(tmp_path):
    """Which of two kernels is meant is not guessed."""

    def put(group: Any) -> None:
        for place in ("a", "b"):
            group.create_dataset(f"{place}/kernel:0", data=np.zeros((3, 3, 3, 2), np.float32))

    with pytest.raises(WeightsError, match="found 2"):
        load_keras(_write_around(tmp_path / "n.h5", put))
