"""First-order attributions against Captum, autograd and slow loops."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from neuronscope.data.dataset import Batch
from neuronscope.models.sources import subject_from
from neuronscope.preprocessing import Preprocess
from neuronscope.steps import MEASURES, AlongPath, Gradients, Observe, columns

LAYERS = ["conv1", "relu", "conv2", "relu#1", "pool", "fc"]
TARGETS = ("logit", "contrast", "loss")


def summed(values):
    """Maps summed over positions, numbers as they are."""
    return values.flatten(2).sum(2) if values.ndim > 2 else values


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("of", "target"), [(of, target) for of in ("label", "prediction") for target in TARGETS])
def test_pull_is_gradient_times_activation(subject, batch, outputs, name, of, target):  # noqa: PLR0917 fixtures
    """The definition of each target, by a forward pass written out and autograd."""
    seen = Gradients((subject.layer(name),), targets=(target,), of=of)(subject.module, batch)
    found = outputs(subject.module, batch.image.clone().requires_grad_())
    logits = found["fc"]
    predicted = logits.argmax(1)
    chosen = torch.where(batch.label >= 0, batch.label, predicted) if of == "label" else predicted
    total = 0
    for row, c in zip(logits, chosen.tolist(), strict=True):
        others = [row[other] for other in range(4) if other != c]
        total = (
            total
            + {
                "logit": row[c],
                "contrast": row[c] - sum(others) / 3,
                "loss": -torch.log(row.exp()[c] / row.exp().sum()),
            }[target]
        )
    (gradient,) = torch.autograd.grad(total, [found[name]])
    expected = summed(found[name] * gradient).detach()
    torch.testing.assert_close(seen[f"pull/{target}"], expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(seen[f"size/{target}"], seen[f"pull/{target}"].abs())


@pytest.mark.filterwarnings("ignore")  # Captum's own
@pytest.mark.parametrize("name", ["conv1", "conv2", "pool", "fc"])
def test_pull_equals_captum(subject, batch, small_network, name):
    """Summed over positions, Captum's LayerGradientXActivation gives the same numbers.

    Captum sees a twin without in-place operations: on ours it fails or reads values that were overwritten.
    """
    captum = pytest.importorskip("captum.attr")
    twin = small_network().eval()
    twin.load_state_dict(subject.module.state_dict())
    twin.relu.inplace = False
    labelled = batch.label >= 0
    seen = Gradients((subject.layer(name),))(subject.module, batch)["pull/logit"][labelled]
    method = captum.LayerGradientXActivation(twin, getattr(twin, name))
    expected = method.attribute(batch.image[labelled], target=batch.label[labelled]).detach()
    torch.testing.assert_close(seen, summed(expected), rtol=1e-5, atol=1e-6)


def test_contrast_is_linear_in_the_logits(subject, batch):
    """The pull on a contrast is the pull on the class's logit less the mean of the pulls on the others."""
    label = batch.label.clamp_min(0)
    pulls = {}
    for c in range(4):
        every = Batch(index=batch.index, image=batch.image, label=torch.full_like(label, c))
        pulls[c] = Gradients(subject.layers)(subject.module, every)["pull/logit"]
    asked = Batch(index=batch.index, image=batch.image, label=label)
    seen = Gradients(subject.layers, targets=("contrast",))(subject.module, asked)["pull/contrast"]
    table = torch.stack([pulls[c] for c in range(4)])
    own = table[label, torch.arange(len(label))]
    torch.testing.assert_close(seen, own - (table.sum(0) - own) / 3, rtol=1e-4, atol=1e-5)


def test_taylor_foretells_what_a_small_change_does(smooth, smooth_batch):
    """Scaling one unit by 1 - e changes the loss by -e times its pull, to first order."""
    layer = smooth.layer("tanh")
    pull = Gradients((layer,), targets=("loss",))(smooth.module, smooth_batch)["pull/loss"]
    epsilon, module, label = 1e-5, smooth.module, smooth_batch.label
    with torch.no_grad():
        output = module.tanh(module.bn(module.conv(smooth_batch.image)))
        for unit in range(layer.units):
            losses = []
            for sign in (1, -1):
                changed = output.clone()
                changed[:, unit] *= 1 + sign * epsilon
                logits = module.fc(module.soft(module.mix(changed)).flatten(1))
                losses.append(functional.cross_entropy(logits, label, reduction="none"))
            torch.testing.assert_close(pull[:, unit], (losses[0] - losses[1]) / (2 * epsilon), rtol=1e-6, atol=1e-9)


def test_several_targets_and_layers_at_once_are_each_alone(subject, batch):
    """Sharing a forward pass changes no attribution."""
    together = Gradients(subject.layers, targets=TARGETS)(subject.module, batch)
    for name, where in columns(subject.layers).items():
        for target in TARGETS:
            alone = Gradients((subject.layer(name),), targets=(target,))(subject.module, batch)[f"pull/{target}"]
            torch.testing.assert_close(together[f"pull/{target}"][:, where], alone, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("measures", [tuple(MEASURES), ("mean",), ()])
def test_measures_on_the_way_are_those_of_looking(subject, batch, measures):
    """What is measured beside the gradients has the bits that `Observe` gives, and no measure is there unasked."""
    seen = Gradients(subject.layers, measures=measures)(subject.module, batch)
    expected = Observe(subject.layers, measures=measures)(subject.module, batch)
    assert all(torch.equal(seen[name], expected[name]) for name in expected)
    assert not any(values.requires_grad for values in seen.values())
    assert seen.keys() == {*expected, "pull/logit", "size/logit"}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("width", [1, 2])
def test_parts_side_by_side_are_the_layer(subject, batch, name, width):
    """Attributed in parts, a layer's units have what they have together."""
    layer = subject.layer(name)
    parts = [layer.part(first, min(first + width, layer.units)) for first in range(0, layer.units, width)]
    for make in (lambda one: Gradients((one,), targets=TARGETS), lambda one: AlongPath((one,), steps=2)):
        whole = make(layer)(subject.module, batch)
        seen = [make(part)(subject.module, batch) for part in parts]
        for measure in whole.keys() - {"index", "label", "logits", "residual"}:
            joined = torch.cat([found[measure] for found in seen], dim=1)
            torch.testing.assert_close(joined, whole[measure], rtol=1e-6, atol=1e-7)


def test_a_unit_without_influence_gets_zero(batch):
    """A branch that does not reach the logits is attributed nothing, and no error."""

    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.idle, self.fc = nn.Conv2d(1, 2, 3), nn.Linear(36, 4)

        def forward(self, x):
            self.idle(x)
            return self.fc(x.flatten(1))

    subject = subject_from(Idle(), name="idle", input_shape=(1, 6, 6), preprocess=Preprocess(channels=1))
    layers = (subject.layer("idle"), subject.layer("fc"))
    seen = {**AlongPath(layers, steps=2)(subject.module, batch), **Gradients(layers)(subject.module, batch)}
    for measure in ("pull/logit", "conductance", "influence"):
        assert seen[measure][:, :2].eq(0).all()
        assert seen[measure][:, 2:].ne(0).any()


def slow_path(module, image, label, *, steps, baseline, until, after):
    """Conductance and influence of one image, position by position, by their definitions as sums along the path."""
    outputs, slopes = [], []
    for step in range(steps + 1):
        at = baseline + (image - baseline) * step / steps
        output = until(module, at[None]).detach().requires_grad_()
        (slope,) = torch.autograd.grad(after(module, output)[0, label], [output])
        outputs.append(output.detach()[0])
        slopes.append(slope[0])
    conductance, influence = torch.zeros_like(outputs[0]), torch.zeros_like(outputs[0])
    for k in range(steps):
        conductance += (outputs[k + 1] - outputs[k]) * (slopes[k] + slopes[k + 1]) / 2
        influence += (slopes[k] + slopes[k + 1]) / 2 / steps
    return conductance.flatten(1).sum(1), influence.flatten(1).sum(1)


@pytest.mark.parametrize("baseline", [0.0, -0.7])
@pytest.mark.parametrize("steps", [1, 5])
def test_the_path_is_a_sum_of_its_steps(smooth, smooth_batch, steps, baseline):
    """Both attributions are the trapezoid sums of their definitions, from a baseline of one's own."""
    seen = AlongPath((smooth.layer("tanh"),), steps=steps, baseline=baseline)(smooth.module, smooth_batch)
    for row, (image, label) in enumerate(zip(smooth_batch.image, smooth_batch.label, strict=True)):
        conductance, influence = slow_path(
            smooth.module,
            image,
            label,
            steps=steps,
            baseline=torch.full_like(image, baseline),
            until=lambda module, x: module.tanh(module.bn(module.conv(x))),
            after=lambda module, y: module.fc(module.soft(module.mix(y)).flatten(1)),
        )
        torch.testing.assert_close(seen["conductance"][row], conductance)
        torch.testing.assert_close(seen["influence"][row], influence)


@pytest.mark.filterwarnings("ignore")  # Captum's own
def test_the_path_equals_captum_where_both_have_converged(smooth, smooth_batch):
    """Captum's LayerConductance takes the slope at the start of each step, so it needs many; InternalInfluence few."""
    captum = pytest.importorskip("captum.attr")
    module, image, label = smooth.module, smooth_batch.image, smooth_batch.label
    layers = (smooth.layer("bn"), smooth.layer("mix"))
    seen = AlongPath(layers, steps=64)(module, smooth_batch)
    for name, where in columns(layers).items():
        part = getattr(module, name)
        influence = captum.InternalInfluence(module, part).attribute(image, target=label, n_steps=25)
        torch.testing.assert_close(seen["influence"][:, where], summed(influence).detach(), rtol=1e-3, atol=1e-4)
        conductance = [
            summed(captum.LayerConductance(module, part).attribute(image, target=label, n_steps=steps)).detach()
            for steps in (64, 128)
        ]
        extrapolated = 2 * conductance[1] - conductance[0]  # takes the error of first order away
        torch.testing.assert_close(seen["conductance"][:, where], extrapolated, rtol=1e-3, atol=1e-3)


def test_conductances_of_a_cut_add_up(smooth, smooth_batch):
    """Over a layer that all goes through, their sum is the change of the logit; what lacks falls with steps squared."""
    label = smooth_batch.label
    with torch.no_grad():
        ends = [smooth.module(image) for image in (torch.zeros_like(smooth_batch.image), smooth_batch.image)]
    change = (ends[1] - ends[0])[torch.arange(len(label)), label]
    lacking = {layer.name: [] for layer in smooth.layers}
    for steps in (8, 16, 32):
        seen = AlongPath(smooth.layers, steps=steps)(smooth.module, smooth_batch)
        for name, where in columns(smooth.layers).items():
            lacking[name].append((seen["conductance"][:, where].sum(1) - change).abs())
        torch.testing.assert_close(seen["residual"], lacking[smooth.layers[0].name][-1] / change.abs())
    assert list(lacking) == ["conv", "bn", "tanh", "mix", "soft", "fc"]
    for name, (coarse, middle, fine) in lacking.items():
        assert fine.max() < 2e-3 * change.abs().max()
        if name in ("soft", "fc"):  # from there on the network is linear, and any number of steps is exact
            assert coarse.max() < 1e-12
        else:
            assert 3.0 < coarse.sum() / middle.sum() < 5.0
            assert 3.5 < middle.sum() / fine.sum() < 4.5


def test_the_residual_is_of_the_first_layer(smooth, smooth_batch):
    """What lacks is told of the first layer alone, and the order of the layers changes nothing else."""
    one, other = smooth.layer("conv"), smooth.layer("soft")
    both = AlongPath((one, other), steps=4)(smooth.module, smooth_batch)
    turned = AlongPath((other, one), steps=4)(smooth.module, smooth_batch)
    assert torch.equal(both["residual"], AlongPath((one,), steps=4)(smooth.module, smooth_batch)["residual"])
    assert torch.equal(turned["residual"], AlongPath((other,), steps=4)(smooth.module, smooth_batch)["residual"])
    assert torch.equal(both["conductance"], turned["conductance"][:, [*range(3, 7), *range(3)]])


def test_nothing_flows_along_no_path(smooth, smooth_batch):
    """An image that is its own baseline has conductance 0 and nothing lacking."""
    still = Batch(index=torch.arange(5), image=torch.full_like(smooth_batch.image, 0.3), label=smooth_batch.label)
    seen = AlongPath((smooth.layer("tanh"),), steps=3, baseline=0.3)(smooth.module, still)
    assert seen["conductance"].eq(0).all()
    assert seen["residual"].eq(0).all()


def test_the_path_explains_the_class_meant(subject, batch):
    """Without a label the predicted class is explained; asked for the prediction, it always is."""
    predicted = subject.module(batch.image).argmax(1)
    asked = Batch(index=batch.index, image=batch.image, label=predicted)
    expected = AlongPath(subject.layers, steps=2)(subject.module, asked)
    seen = AlongPath(subject.layers, steps=2)(subject.module, batch)
    assert torch.equal(seen["conductance"][-1], expected["conductance"][-1])
    by_prediction = AlongPath(subject.layers, steps=2, of="prediction")(subject.module, batch)
    assert torch.equal(by_prediction["conductance"], expected["conductance"])
    assert torch.equal(by_prediction["influence"], expected["influence"])
