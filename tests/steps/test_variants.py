"""Predictions of edited networks: against `hooks.edited` around a forward pass."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from neuronscope.data.dataset import Batch
from neuronscope.edits import drop, keep, replace, resample, scale
from neuronscope.errors import InputError
from neuronscope.hooks import edited
from neuronscope.steps import PredictVariants
from neuronscope.steps.silence import donors
from neuronscope.units import UnitSet

FIRST, SECOND, LAST = UnitSet("relu", 3, (0, 2)), UnitSet("relu#1", 5, (1, 3, 4)), UnitSet("pool", 5, (0,))
VARIANTS = (
    (),
    (drop(FIRST),),
    (keep(FIRST), keep(SECOND)),
    (replace(FIRST, (0.3, -1.0)), scale(SECOND, 2.0)),
    (scale(SECOND, 3.0), drop(LAST), replace(SECOND, 0.1)),
    (drop(~LAST & LAST),),
)


def test_variants_are_edited_networks(subject, batch, left_as_it_came):
    """Every column is what `hooks.edited` and a forward pass give; the first, without edits, the network itself."""
    left_as_it_came(subject.module)
    layers = tuple(subject.layer(name) for name in ("relu", "relu#1", "pool", "fc"))
    step = PredictVariants(layers, VARIANTS)
    seen = step(subject.module, batch)
    for number, edits in enumerate(VARIANTS):
        with torch.inference_mode(), edited(subject, edits):
            logits = subject.module(batch.image)
        loss = functional.cross_entropy(logits, batch.label.clamp_min(0), reduction="none")
        assert torch.equal(seen["predicted"][:, number], logits.argmax(1).int())
        torch.testing.assert_close(seen["surprise"][:-1, number], loss[:-1], rtol=1e-5, atol=1e-6)
        assert seen["surprise"][-1, number].isnan()
    assert step.passes == (6, 0)
    assert step.shapes(4) == {"predicted": (6,), "surprise": (6,)}
    assert len({tuple(column.tolist()) for column in seen["surprise"][:-1].T}) == 5, "the last changes nothing"


@pytest.mark.parametrize("seed", [0, 9])
def test_maps_are_lent_by_the_seed(subject, batch, outputs, seed):
    """With `resample`, units show another image's maps, in a forward pass written out."""
    units = UnitSet("relu#1", 5, (0, 3))
    step = PredictVariants((subject.layer("relu#1"),), ((resample(units),),), seed=seed)
    module = subject.module
    with torch.inference_mode():
        maps = outputs(module, batch.image)["relu#1"].clone()
        maps[:, [0, 3]] = maps[donors(batch.index, seed=seed)][:, [0, 3]]
        logits = module.fc(module.pool(maps).flatten(1))
    seen = step(module, batch)
    assert torch.equal(seen["predicted"][:, 0], logits.argmax(1).int())
    expected = functional.cross_entropy(logits, batch.label.clamp_min(0), reduction="none")
    torch.testing.assert_close(seen["surprise"][:-1, 0], expected[:-1], rtol=1e-5, atol=1e-6)
    order = [3, 0, 5, 1, 4, 2]
    mixed = Batch(index=batch.index[order], image=batch.image[order], label=batch.label[order])
    again = step(module, mixed)["surprise"]
    torch.testing.assert_close(again, seen["surprise"][order], rtol=1e-5, atol=1e-6, equal_nan=True)


def test_edits_of_other_layers_are_refused(subject, batch, left_as_it_came):
    """An edit of a layer that was not given, or of another size, says so; the edits before it are gone."""
    left_as_it_came(subject.module)
    for units in (SECOND, UnitSet("relu", 4, (0,))):
        step = PredictVariants((subject.layer("relu"),), ((drop(FIRST),), (drop(FIRST), drop(units))))
        with pytest.raises(InputError, match=f"an edit of '{units.layer}' was made for {units.size} units"):
            step(subject.module, batch)
