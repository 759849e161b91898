"""Measurements of one batch against their definitions, and what all steps share."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuronscope.errors import InputError
from neuronscope.models.sources import subject_from
from neuronscope.preprocessing import Preprocess
from neuronscope.steps import (
    MEASURES,
    AlongPath,
    Gradients,
    Observe,
    Predict,
    activation_bytes,
    columns,
    spatial_max,
)


def test_measures_are_their_definitions(subject, batch, outputs):
    """Mean, maximum with position, rate and mean square of every unit of every layer stand side by side."""
    step = Observe(subject.layers, measures=("mean", "max", "rate", "square"), maps=("conv2", "fc"))
    seen = step(subject.module, batch)
    with torch.inference_mode():
        expected = outputs(subject.module, batch.image)
    assert torch.equal(seen["logits"], expected["fc"])
    assert torch.equal(seen["index"], batch.index)
    assert torch.equal(seen["label"], batch.label)
    for name, where in columns(subject.layers).items():
        maps = expected[name].flatten(2) if expected[name].ndim > 2 else expected[name][:, :, None]
        torch.testing.assert_close(seen["mean"][:, where], maps.mean(2))
        assert torch.equal(seen["max"][:, where], maps.amax(2))
        assert torch.equal(seen["max_at"][:, where], maps.argmax(2).int())
        torch.testing.assert_close(seen["rate"][:, where], (maps > 0).double().mean(2).float())
        torch.testing.assert_close(seen["square"][:, where], maps.square().mean(2))
    assert torch.equal(seen["maps/conv2"], expected["conv2"])
    assert torch.equal(seen["maps/fc"], expected["fc"])


@pytest.mark.parametrize("measures", [tuple(MEASURES), ("max",), ("rate",), ()])
def test_announced_shapes_are_those_that_come(subject, batch, measures):
    """What `shapes` announces is what a batch gives, name by name."""
    for step in (
        Observe(subject.layers, measures=measures, maps=("conv2",)),
        Gradients(subject.layers, targets=("logit", "loss"), measures=measures),
        AlongPath(subject.layers, steps=1),
        Predict(),
    ):
        seen = step(subject.module, batch)
        announced = step.shapes(4)
        assert announced == {name: tuple(seen[name].shape[1:]) for name in seen if name not in ("index", "label")}


@settings(max_examples=30)
@given(st.sampled_from([1, 7, 512, 513, 640, 1024, 1152]), st.integers(0, 2**31), st.integers(1, 3))
def test_the_place_of_a_maximum_is_the_first_of_equals(positions, seed, levels):
    """The blockwise search for long maps finds value and first position, with ties all over the place."""
    maps = torch.randint(-levels, levels, (2, 3, positions), generator=torch.Generator().manual_seed(seed)).float()
    found = spatial_max(maps)
    for image in range(2):
        for unit in range(3):
            row = maps[image, unit].tolist()
            assert found["max"][image, unit] == max(row)
            assert found["max_at"][image, unit] == row.index(max(row))


@pytest.mark.parametrize("positions", [9, 1024])
def test_a_map_with_nan_has_maximum_nan(positions):
    """A broken map is not passed over."""
    maps = torch.zeros(1, 2, positions)
    maps[0, 1, positions // 2] = torch.nan
    found = spatial_max(maps)
    assert found["max"][0, 0] == 0
    assert found["max"][0, 1].isnan()
    assert found["max_at"][0, 1] == positions // 2


@pytest.mark.parametrize("name", ["conv1", "relu", "conv2", "relu#1", "pool", "fc"])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_parts_side_by_side_are_the_layer(subject, batch, name, width):
    """Measured in parts, a layer's units have the bits they have together; other layers keep theirs."""
    layer, other = subject.layer(name), subject.layer("conv1" if name != "conv1" else "conv2")
    parts = [layer.part(first, min(first + width, layer.units)) for first in range(0, layer.units, width)]
    for make in (
        lambda *layers: Observe(layers, measures=tuple(MEASURES), maps=(name,)),
        lambda *layers: Gradients(layers, measures=tuple(MEASURES)),
    ):
        whole = make(layer, other)(subject.module, batch)
        seen = [make(part, other)(subject.module, batch) for part in parts]
        for step, found in zip([make(part, other) for part in parts], seen, strict=True):
            assert step.shapes(4) == {n: tuple(found[n].shape[1:]) for n in found if n not in ("index", "label")}
        for measure in whole.keys() - {"index", "label", "logits"}:
            own = [found[measure][:, : part.units] for found, part in zip(seen, parts, strict=True)]
            assert torch.equal(torch.cat(own, dim=1), whole[measure][:, : layer.units]), measure
            assert all(
                torch.equal(found[measure][:, part.units :], whole[measure][:, layer.units :])
                for found, part in zip(seen, parts, strict=True)
            )


@pytest.mark.parametrize("step", [Observe, Gradients, AlongPath])
def test_a_layer_that_is_not_called_is_refused(step, batch):
    """A network that chooses its path by its input is recognised, and the layer named."""

    class Choosing(nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.now_and_then = nn.Linear(36, 4), nn.Linear(4, 4)

        def forward(self, x):
            y = self.always(x.flatten(1))
            return self.now_and_then(y) if len(x) == 2 else y

    subject = subject_from(Choosing(), name="choosing", input_shape=(1, 6, 6), preprocess=Preprocess(channels=1))
    with pytest.raises(InputError, match="'now_and_then' was not called"):
        step(subject.layers)(subject.module, batch)


def test_passes_are_counted():
    """One forward pass each; gradients one backward pass more for each target; the path one of each for each point."""
    assert (Observe(()).passes, Predict().passes) == ((1, 0), (1, 0))
    assert Gradients((), targets=("logit", "loss")).passes == (1, 2)
    assert AlongPath((), steps=4).passes == (6, 5)


def test_bytes_of_activations(subject):
    """Four bytes a number."""
    assert activation_bytes([subject.layer("conv1"), subject.layer("fc")]) == 4 * (3 * 36 + 4)
