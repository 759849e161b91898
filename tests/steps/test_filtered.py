"""Filtered attributions against their definition: the network with a `stop_gradient` edit, one mask at a time."""

from __future__ import annotations

import pickle
from copy import deepcopy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import neuronscope as ns
from neuronscope.data.dataset import Batch
from neuronscope.edits import stop_gradient
from neuronscope.errors import InputError
from neuronscope.hooks import applied
from neuronscope.models.sources import subject_from
from neuronscope.preprocessing import Preprocess
from neuronscope.steps.filtered import (
    Blurred,
    Colour,
    Filtered,
    GradCam,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    SmoothGrad,
    Whole,
    black,
    is_cut,
    quadrature,
)
from neuronscope.units import UnitSet

SIDE = 64
STEPS = 3
# VGG-11 has no way past any layer; it is the last, and slow.
NETWORKS = {
    "densenet121": {
        "cuts": ("features.denseblock1", "features.denseblock3"),
        "past": "features.denseblock2.denselayer3",
    },
    "resnet18": {"cuts": ("layer1", "layer3"), "past": "layer2.0.conv1"},
    "vgg11": {"cuts": ("features.3", "features.10"), "past": None},
}
CUTS = [(name, layer) for name, one in NETWORKS.items() for layer in one["cuts"]]
EVERYWHERE = [*((name, one["past"]) for name, one in NETWORKS.items() if one["past"]), *CUTS]
METHODS = {
    "ig": IntegratedGradients(steps=STEPS),
    "trapezoid to blur": IntegratedGradients(steps=STEPS, rule="riemann_trapezoid", baseline=Blurred(sigma=2.0)),
    "signed saliency": Saliency("signed"),
    "saliency": Saliency(),
    "input x gradient": InputXGradient(),
    "smoothgrad": SmoothGrad(samples=2),
}
SIGNED = ("ig", "trapezoid to blur", "signed saliency", "input x gradient", "smoothgrad")


@cache
def network(name):
    """A torchvision network with random weights for small images."""
    return ns.load_model(f"torchvision:{name}", weights="random", input_shape=(3, SIDE, SIDE))


@cache
def exact_network(name):
    """The same in float64.

    In float32, another number of images at once rounds otherwise, and now and then a ReLU or a maximum falls on its
    other side: then one gradient differs by up to a thousandth of its norm, in Captum as much as here.
    """
    module = deepcopy(network(name).module).double()
    prepare = Preprocess(channels=3)
    return subject_from(module, name=name, input_shape=(3, SIDE, SIDE), preprocess=prepare)


def exact_images(many=2, *, seed=0):
    """The same in float64."""
    batch = images(many, seed=seed)
    return replace(batch, image=batch.image.double())


def images(many=2, *, seed=0):
    """Random images, all labelled."""
    pixels = torch.randn(many, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return Batch(index=torch.arange(100, 100 + many), image=pixels, label=torch.arange(many) * 3)


def clusters(layer, *, many=3, seed=0):
    """All open, each of some random clusters closed, each of them alone."""
    labels = np.random.default_rng(seed).permutation(np.arange(layer.units) % many)
    alone = [labels == c for c in range(many)]
    return np.stack([np.ones(layer.units, dtype=bool), *(~one for one in alone), *alone])


def definition(subject, layer, masks, batch, *, method, target):
    """Maps of the edited network, mask by mask, image by image, one backward pass through all of it at each point."""
    maps = []
    for mask in masks:
        with applied(subject.module, [layer], [stop_gradient(UnitSet.from_mask(layer.name, ~mask))]):
            for place in range(len(batch.image)):
                total = 0
                for point, weight in enumerate(method.weights):
                    one = method.points(batch.image, batch.index.tolist(), [(place, point)]).detach().requires_grad_()
                    logit = subject.module(one)[0, target[place]]
                    total = total + weight * torch.autograd.grad(logit, [one])[0]
                maps.append(method.finish(total[:, None], batch.image[place : place + 1])[0, 0])
    return torch.stack(maps).view(len(masks), len(batch.image), *batch.image.shape[1:]).transpose(0, 1)


def apart(found, expected):
    """The largest distance of two maps, of the norm of the expected one."""
    found, expected = found.flatten(2).double(), expected.flatten(2).double()
    return float(((found - expected).norm(dim=2) / expected.norm(dim=2).clamp_min(1e-30)).max())


@pytest.mark.parametrize(("name", "where"), EVERYWHERE)
def test_maps_are_those_of_the_edited_network(name, where):
    """At a cut and where a path goes past the layer alike (float64: see `exact_network`)."""
    subject, batch = exact_network(name), exact_images(1)
    layer, method = subject.layer(where), METHODS["ig"]
    masks = clusters(layer)[[0, 1, 5]]
    seen = Filtered(layer, masks, method=method)(subject.module, batch)
    expected = definition(subject, layer, masks, batch, method=method, target=seen["target"].tolist())
    assert apart(seen["maps"], expected) <= 1e-9


@pytest.mark.parametrize(("name", "where"), EVERYWHERE)
def test_the_edit_changes_no_bit_of_the_answer(name, where):
    """The logits with blocked gradients are those without, to the last bit."""
    subject, batch = network(name), images()
    mask = clusters(subject.layer(where))[1]
    plain = subject.module(batch.image)
    with applied(subject.module, [subject.layer(where)], [stop_gradient(UnitSet.from_mask(where, ~mask))]):
        edited = subject.module(batch.image)
    assert (plain - edited).abs().max() == 0


def test_what_goes_past_is_reported():
    """Its share is that of the map with every channel closed; 0 at a cut, nan where the masks do not tell it."""
    subject, batch = network("resnet18"), images()
    layer = subject.layer("layer2.0.conv1")
    step = Filtered(layer, clusters(layer), method=Saliency("signed"))
    seen = step(subject.module, batch)
    closed = replace(step, masks=np.zeros((1, layer.units), dtype=bool))(subject.module, batch)["maps"][:, 0]
    expected = closed.flatten(1).norm(dim=1) / seen["maps"][:, 0].flatten(1).norm(dim=1)
    torch.testing.assert_close(seen["past"], expected, rtol=1e-4, atol=1e-6)
    assert replace(step, masks=step.masks[:2])(subject.module, batch)["past"].isnan().all()
    cut = subject.layer("layer2")
    assert Filtered(cut, clusters(cut), method=Saliency())(subject.module, batch)["past"].eq(0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["conv1", "relu", "conv2", "relu#1", "pool", "fc"])
def test_every_method_at_every_layer(subject, batch, where, method):
    """Also where a module is used twice and works in place: each call is a layer of its own."""
    layer, method = subject.layer(where), METHODS[method]
    masks = clusters(layer, many=2)
    seen = Filtered(layer, masks, method=method)(subject.module, batch)
    assert seen["cut"].all()
    expected = definition(subject, layer, masks, batch, method=method, target=seen["target"].tolist())
    torch.testing.assert_close(seen["maps"], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore")  # Captum's own
@pytest.mark.parametrize(("name", "where"), EVERYWHERE)
def test_maps_are_captums_of_the_edited_network(name, where):
    """Captum's integrated gradients, saliency and input x gradient of the edited network, by its defaults."""
    captum = pytest.importorskip("captum.attr")
    subject, batch = network(name), images()
    layer = subject.layer(where)
    masks = clusters(layer)[[0, 2]]
    for method, theirs, options in (
        (IntegratedGradients(steps=5), captum.IntegratedGradients, {"n_steps": 5}),
        (Saliency(), captum.Saliency, {}),
        (InputXGradient(), captum.InputXGradient, {}),
    ):
        maps = Filtered(layer, masks, method=method)(subject.module, batch)["maps"]
        for place, mask in enumerate(masks):
            with applied(subject.module, [layer], [stop_gradient(UnitSet.from_mask(where, ~mask))]):
                inputs = batch.image.clone().requires_grad_()
                found = theirs(subject.module).attribute(inputs, target=batch.label, **options)
            assert apart(maps[:, place : place + 1], found.detach()[:, None]) <= 1e-5


@settings(max_examples=5)
@given(st.integers(2, 7), st.integers(0, 99), st.sampled_from(SIGNED), st.sampled_from(CUTS))
def test_clusters_add_up_and_complement(many, seed, method, where):
    """At a cut, signed maps of a partition add up to the unfiltered one, and closed is all less alone."""
    name, layer = where
    subject, batch = network(name), images(1, seed=seed)
    layer = subject.layer(layer)
    step = Filtered(layer, clusters(layer, many=many, seed=seed), method=METHODS[method])
    seen = step(subject.module, batch)
    whole, closed, alone = seen["maps"].split([1, many, many], dim=1)
    assert seen["cut"].tolist() == [1]
    assert step.products == many
    assert apart(alone.sum(1, keepdim=True), whole) <= 1e-5
    assert (closed + alone - whole).abs().max() <= 1e-5 * whole.abs().max()


@settings(max_examples=4)
@given(st.integers(1, 9), st.sampled_from([1, 2**25, 2**27]), st.sampled_from(EVERYWHERE[:4]))
def test_any_number_of_inputs_at_once(rows, memory, where):
    """Inputs taken together, one by one or as the memory allows: the same maps, residuals and changes."""
    subject, batch = exact_network(where[0]), exact_images(2)
    layer = subject.layer(where[1])
    step = Filtered(layer, clusters(layer, many=2), method=METHODS["ig"])
    expected = step(subject.module, batch)
    for other in (replace(step, rows=rows), replace(step, memory=memory)):
        seen = other(subject.module, batch)
        assert apart(seen["maps"], expected["maps"]) <= 1e-9
        torch.testing.assert_close(seen["residual"], expected["residual"], rtol=0, atol=1e-9)
        torch.testing.assert_close(seen["change"], expected["change"])


def test_no_more_activations_at_once_than_the_memory_allows():
    """Inputs go through the network one at a time in a small memory, and all together in a large one."""
    subject, batch = network("vgg11"), images(3)
    layer, sizes = subject.layer("features.3"), []
    counting = subject.module.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    step = Filtered(layer, clusters(layer), method=METHODS["signed saliency"])
    try:
        for memory in (1, 2**30):
            sizes.clear()
            replace(step, memory=memory)(subject.module, batch)
            assert sizes == [3, 1, *([1, 1, 1] if memory == 1 else [3])]  # prediction, survey, inputs
    finally:
        counting.remove()


@pytest.mark.parametrize(("name", "where"), EVERYWHERE)
def test_cuts_are_told_from_layers_with_a_way_past(name, where):
    """Blocks and stages are cuts; a layer inside a residual or dense block is not."""
    subject = network(name)
    assert is_cut(subject.module, subject.layer(where), images(1).image) == ((name, where) in CUTS)


def test_a_layer_that_hands_on_what_it_got_is_passed_by():
    """An identity beside a path of its own input: blocked is only what goes through the identity."""

    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.same, self.fc = nn.Conv2d(1, 3, 3), nn.Identity(), nn.Linear(48, 2)

        def forward(self, x):
            x = self.conv(x)
            return self.fc((self.same(x) + 2 * x).tanh().flatten(1))

    subject = subject_from(Beside(), name="beside", input_shape=(1, 6, 6), preprocess=Preprocess(channels=1))
    layer = subject.layer("same")
    batch = Batch(index=torch.arange(2), image=torch.randn(2, 1, 6, 6), label=torch.tensor([0, 1]))
    masks = np.array([[True, True, True], [False, True, False], [False, False, False]])
    seen = Filtered(layer, masks, method=Saliency("signed"))(subject.module, batch)
    assert seen["cut"].tolist() == [0, 0]
    expected = definition(subject, layer, masks, batch, method=Saliency("signed"), target=[0, 1])
    torch.testing.assert_close(seen["maps"], expected, rtol=1e-5, atol=1e-7)


def test_residual_is_what_the_steps_lack(smooth, smooth_batch):
    """The sum of the unfiltered map less the change of the logit; nil with many points, and nan where unknown."""
    layer = smooth.layer("tanh")
    masks = clusters(layer, many=2)
    coarse, fine = (
        Filtered(layer, masks, method=IntegratedGradients(steps=steps))(smooth.module, smooth_batch)
        for steps in (2, 40)
    )
    start = smooth.module(torch.zeros_like(smooth_batch.image))
    own = smooth_batch.label[:, None]
    change = (smooth.module(smooth_batch.image) - start).gather(1, own)[:, 0].detach()
    torch.testing.assert_close(fine["change"], change)
    torch.testing.assert_close(coarse["residual"], coarse["maps"][:, 0].sum((1, 2, 3)) - change)
    assert fine["residual"].abs().max() < 1e-6 < coarse["residual"].abs().max()
    alone = Filtered(layer, masks[1:2], method=IntegratedGradients(steps=2))(smooth.module, smooth_batch)
    assert alone["residual"].isnan().all()


@pytest.mark.parametrize(
    "rule", ["gausslegendre", "riemann_trapezoid", "riemann_left", "riemann_middle", "riemann_right"]
)
def test_quadratures_are_captums(rule):
    """Points and weights of each rule."""
    methods = pytest.importorskip("captum.attr._utils.approximation_methods")
    sizes, alphas = methods.approximation_parameters(rule)
    points, weights = quadrature(rule, 7)
    assert points == pytest.approx(alphas(7), abs=1e-7)
    assert weights == pytest.approx(sizes(7), abs=1e-7)


def test_baselines():
    """One colour, black before normalisation, and a blur that keeps a constant image and takes away contrast."""
    image = torch.rand(2, 3, 12, 9)
    prepare = Preprocess(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    assert torch.equal(Colour().of(image), torch.zeros_like(image))
    assert black(prepare).of(image)[1, :, 3, 4].tolist() == pytest.approx([-2.5, -4 / 3, -0.75])
    assert black(Preprocess()) == Colour()
    torch.testing.assert_close(Blurred(3.0).of(torch.ones_like(image)), torch.ones_like(image))
    assert Blurred(3.0).of(image).std() < 0.3 * image.std()


def test_grad_cam_is_its_definition(subject, batch):
    """Mean gradients weight the channels inside the mask; the positive part of their sum, enlarged."""
    layer = subject.layer("conv2")
    masks = clusters(layer, many=2)
    seen = Filtered(layer, masks, method=GradCam(), summary=Whole((1, 6, 6)))(subject.module, batch)
    module = subject.module
    maps = module.conv2(module.conv1(batch.image).relu()).detach().requires_grad_()
    logits = module.fc(module.pool(maps.relu()).flatten(1))
    (slopes,) = torch.autograd.grad(logits.gather(1, seen["target"][:, None]).sum(), [maps])
    for place, mask in enumerate(masks):
        weights = slopes.mean((2, 3)) * torch.from_numpy(mask)
        cam = (weights[:, :, None, None] * maps.detach()).sum(1).relu()
        expected = functional.interpolate(cam[:, None], size=(6, 6), mode="bilinear", align_corners=False)
        torch.testing.assert_close(seen["maps"][:, place], expected, rtol=1e-5, atol=1e-7)


def test_a_part_of_a_layer_is_filtered_as_the_whole(subject, batch):
    """Masks are for all channels of the layer; which part is named makes no difference."""
    layer = subject.layer("conv2")
    masks = clusters(layer, many=2)
    for method in (Saliency(), GradCam()):
        whole, part = (
            Filtered(one, masks, method=method)(subject.module, batch)["maps"] for one in (layer, layer.part(1, 3))
        )
        assert torch.equal(whole, part)


def test_noise_goes_with_the_row_number(subject, batch):
    """SmoothGrad of an image is the same in any batch; another seed gives another map."""
    step = Filtered(subject.layer("conv1"), clusters(subject.layer("conv1"), many=2), method=SmoothGrad(samples=3))
    maps = step(subject.module, batch)["maps"]
    part = Batch(index=batch.index[3:5], image=batch.image[3:5], label=batch.label[3:5])
    torch.testing.assert_close(step(subject.module, part)["maps"], maps[3:5])
    other = replace(step, method=SmoothGrad(samples=3, seed=1))(subject.module, batch)["maps"]
    assert not torch.allclose(other, maps)


def test_targets(subject, batch):
    """Label (prediction where there is none), prediction, or one class for all images."""
    predicted = subject.module(batch.image).argmax(1)
    layer = subject.layer("conv1")
    step = Filtered(layer, clusters(layer, many=2), method=Saliency())
    for target, expected in (
        ("label", torch.where(batch.label < 0, predicted, batch.label)),
        ("prediction", predicted),
        (2, torch.full_like(predicted, 2)),
    ):
        assert torch.equal(replace(step, target=target)(subject.module, batch)["target"], expected)
    with pytest.raises(InputError, match="target class 4 does not exist"):
        replace(step, target=4)(subject.module, batch)


@pytest.mark.parametrize("method", [*METHODS.values(), GradCam()])
def test_an_image_without_gradient_has_a_map_of_zeros(method):
    """A network that is dead for all images: zeros, no nan."""
    dead = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    nn.init.zeros_(dead[0].weight)
    nn.init.constant_(dead[0].bias, -1.0)
    subject = subject_from(dead, name="dead", input_shape=(1, 6, 6), preprocess=Preprocess(channels=1))
    layer = subject.layer("1")
    batch = Batch(index=torch.arange(2), image=torch.randn(2, 1, 6, 6), label=torch.tensor([0, -1]))
    seen = Filtered(layer, clusters(layer, many=2), method=method)(subject.module, batch)
    assert seen["maps"].eq(0).all()
    if isinstance(method, IntegratedGradients):
        assert seen["residual"].eq(0).all()


def test_nothing_and_everything_closed(subject, batch):
    """With every channel closed at a cut nothing is left; the same masks twice give the same maps."""
    layer = subject.layer("conv1")
    masks = np.array([[False] * 3, [True] * 3, [True] * 3, [False] * 3])
    maps = Filtered(layer, masks, method=InputXGradient())(subject.module, batch)["maps"]
    assert maps[:, [0, 3]].eq(0).all()
    assert torch.equal(maps[:, 1], maps[:, 2])
    only_closed = Filtered(layer, masks[:1], method=InputXGradient())(subject.module, batch)["maps"]
    assert only_closed.eq(0).all()


def test_network_and_answers_are_left_as_they_came(own_subject, batch, left_as_it_came):
    """Weights that want a gradient still do; inference mode around it and pickling change nothing."""
    module = left_as_it_came(own_subject.module)
    wanted = [weight.requires_grad for weight in module.parameters()]
    layer = own_subject.layer("relu")
    step = Filtered(layer, clusters(layer, many=2), summary=Whole((1, 6, 6)))
    seen = step(module, batch)
    assert [weight.requires_grad for weight in module.parameters()] == wanted
    with torch.inference_mode():
        again = pickle.loads(pickle.dumps(step))(module, batch)  # noqa: S301 our own
    assert {name: tuple(value.shape[1:]) for name, value in seen.items()} == {
        **step.shapes(4),
        "index": (),
        "label": (),
    }
    for name, value in seen.items():
        assert torch.equal(value, again[name])
        assert not value.requires_grad


def test_what_cannot_be_is_refused(subject, batch):
    """Masks of another layer, no masks, no rows, classes below 0, Grad-CAM without maps, a network in training."""
    layer = subject.layer("conv1")
    masks = clusters(layer, many=2)
    for wrong, text in (
        (lambda: Filtered(subject.layer("conv2"), masks), "3 units do not fit layer 'conv2', which has 5"),
        (lambda: Filtered(layer, masks[:0]), "0 masks"),
        (lambda: Filtered(layer, masks, rows=0), "rows is 0"),
        (lambda: Filtered(layer, masks, target=-1), "target class -1"),
        (lambda: Filtered(layer.part(0, 2), masks[:, :2]), "2 units do not fit layer 'conv1', which has 3"),
        (lambda: Filtered(subject.layer("fc"), clusters(subject.layer("fc")), method=GradCam()), "needs maps"),
        (lambda: IntegratedGradients(steps=1, rule="riemann_left"), "too few"),
        (lambda: Blurred(0.0), "above 0"),
        (lambda: SmoothGrad(samples=0), "at least 1 sample"),
        (lambda: Colour((1.0, 2.0)).of(torch.zeros(1, 3, 2, 2)), "give 1 or 3"),
    ):
        with pytest.raises(InputError, match=text):
            wrong()
    training = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(48, 2)).train()
    with pytest.raises(InputError, match="training mode"):
        Filtered(layer, masks)(training, batch)
