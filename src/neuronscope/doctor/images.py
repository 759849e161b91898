"""Whether a network and real images go together: input statistics, colour, labels, predictions, accuracy.

All checks take arrays, as they stand after the preprocessing.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from neuronscope.data.dataset import Data, class_counts
from neuronscope.doctor.finding import Finding
from neuronscope.maths.resampling import wilson_interval
from neuronscope.models.subject import Subject
from neuronscope.preprocessing import COLOUR, Preprocess

MOST_MEAN = 1.0
"""Largest distance of a channel's mean from 0, in standard deviations of the training images. Digits written with a
thinner pen, or photographs at night, stay within it."""

SPREAD = (0.3, 3.0)
"""Smallest and largest standard deviation of a channel that passes for 1. Values 0 to 1 without normalisation, or an
ImageNet network fed with 0 to 255, lie outside."""

FEW = 20
"""Below so many labelled images an accuracy near chance says nothing."""

_MANY = 8  # images; if so many of several classes get one answer, something is wrong
_SEVERAL = 3  # classes among them
_SUM_OF_PROBABILITIES = 1e-4
_SAME_LOGITS = 1e-6  # of the largest logit: differences below it are rounding


def check_labels(data: Data, subject: Subject) -> Finding:
    """Whether the labels are the network's classes."""
    if not data.classes:
        text = f"{data.name} has no labels: selectivity and accuracy cannot be computed"
        return Finding("images", "labels", "note", text, "Use images in one folder for each class, or give --labels")
    if len(data.classes) != len(subject.classes):
        text = f"{data.name} has {len(data.classes):,} classes, {subject.name} has {len(subject.classes):,} outputs"
        advice = "Choose images that the network was trained for, or weights that fit them"
        return Finding("images", "labels", "broken", text, advice)
    if subject.classes != data.classes and not all(name.isdigit() for name in subject.classes):
        place = next(i for i, pair in enumerate(zip(subject.classes, data.classes, strict=True)) if pair[0] != pair[1])
        text = (
            f"class {place} is '{subject.classes[place]}' to the network and '{data.classes[place]}' in {data.name}: "
            "expected the same names in the same order"
        )
        return Finding("images", "labels", "note", text, "Look whether only the spelling differs, or the order too")
    counts = class_counts(data)
    text = f"{int(counts.sum()):,} of {len(data):,} images have a label, of {int((counts > 0).sum()):,} classes"
    return Finding("images", "labels", "fine", text)


def check_inputs(images: Float[Tensor, "n c h w"], *, normalised: bool) -> Finding:
    """Whether what reaches the network looks like what a normalisation should make: mean 0, variance 1.

    Args:
        images: network input.
        normalised: whether a mean is subtracted; without it, values 0 to 1 are expected.
    """
    flat = images.double().movedim(1, 0).flatten(1)
    means, spreads = flat.mean(1).tolist(), flat.std(1, correction=0).tolist()
    seen = "; ".join(f"{mean:.2g} ± {spread:.2g}" for mean, spread in zip(means, spreads, strict=True))
    if not normalised:
        text = f"without normalisation, channels have mean and spread {seen} (values 0 to 1)"
        return Finding("images", "input statistics", "note", text, "Say --mean and --std if it was trained with them")
    away = any(abs(mean) > MOST_MEAN for mean in means) or any(not SPREAD[0] <= one <= SPREAD[1] for one in spreads)
    if away:
        text = f"after the preprocessing channels have mean and spread {seen}; expected about 0 ± 1"
        advice = "Look whether --mean and --std are on the scale 0 to 1, and belong to images like these"
        return Finding("images", "input statistics", "warning", text, advice)
    return Finding("images", "input statistics", "fine", f"channels have mean and spread {seen}, near 0 ± 1")


def check_constant(images: Float[Tensor, "n c h w"]) -> Finding | None:
    """Whether images have content: some pixels that differ; None when all do."""
    flat = images.flatten(2)
    blank = int((flat.amax(2) == flat.amin(2)).all(1).sum())
    if not blank:
        return None
    text = f"{blank} of {len(images)} images are one constant colour"
    advice = "Look at them with an image viewer; --resize and --crop may cut all content away"
    return Finding("images", "content", "broken" if blank == len(images) else "warning", text, advice)


def check_colour(images: Float[Tensor, "n c h w"], preprocess: Preprocess, *, raw_channels: int) -> Finding | None:
    """Whether a colour network gets colours; None when it does, or wants none.

    Args:
        images: network input.
        preprocess: how it was made.
        raw_channels: of the first image as it was read.
    """
    if preprocess.channels != COLOUR:
        if raw_channels < COLOUR:
            return None
        text = "images in colour are turned to grey, since the network has one input channel"
        return Finding("images", "colour", "note", text)
    pixels = preprocess.pixels(images)
    grey = int((pixels == pixels[:, :1]).flatten(1).all(1).sum())
    if grey < len(images):
        return None
    text = f"all {len(images)} images are grey, fed three times over to a network with three input channels"
    return Finding("images", "colour", "warning", text, "Use images in colour, unless it was trained on grey ones")


def check_logits(logits: Float[Tensor, "n k"]) -> Finding:
    """Whether the outputs are logits that depend on the image."""
    if not logits.isfinite().all():
        wrong = int((~logits.isfinite()).any(1).sum())
        text = f"the outputs of {wrong} of {len(logits)} images hold NaN or infinity"
        return Finding("images", "outputs", "broken", text, "Look for an overflow; --dtype float64 may help")
    spread = (logits - logits[:1]).abs().amax(0)
    scale = float(logits.abs().max())
    still = int((spread <= _SAME_LOGITS * scale).sum())
    if len(logits) > 1 and still == logits.shape[1]:
        text = f"all {len(logits)} images get the same outputs: the network does not see its input"
        advice = "Look for dead layers in this list, for weights that are zero, and at the normalisation"
        return Finding("images", "outputs", "broken", text, advice)
    if logits.shape[1] > 1 and bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < _SUM_OF_PROBABILITIES).all()):
        text = "the outputs look like probabilities (each image's sum to 1); expected logits, before a softmax"
        advice = "Take the softmax off the network's end: gradients through it vanish where it is sure"
        return Finding("images", "outputs", "warning", text, advice)
    if len(logits) > 1 and still:
        text = f"{still} of {logits.shape[1]} outputs are the same for all {len(logits)} images"
        return Finding("images", "outputs", "note", text, "These classes can never be told apart: were they trained?")
    return Finding("images", "outputs", "fine", "logits are finite and depend on the image")


def check_predictions(logits: Float[Tensor, "n k"], labels: Int[Tensor, "n"]) -> Finding | None:
    """Whether the network gives more than one answer; None where there are too few images or classes to tell.

    Args:
        logits: outputs.
        labels: classes of the images; -1 where unknown.
    """
    predicted = logits.argmax(1)
    given = len(set(predicted.tolist()))
    classes = len(set(labels[labels >= 0].tolist()))
    if len(logits) < _MANY or (classes < _SEVERAL and bool((labels >= 0).any())):
        return None
    if given == 1:
        shown = f"images of {classes} classes" if classes else "images"
        text = f"all {len(logits)} {shown} are taken for class {int(predicted[0])}"
        advice = "Random weights do so: look at --weights, then at the normalisation"
        return Finding("images", "predictions", "warning", text, advice)
    return Finding("images", "predictions", "fine", f"{given} different classes are predicted for {len(logits)} images")


def check_accuracy(logits: Float[Tensor, "n k"], labels: Int[Tensor, "n"]) -> Finding | None:
    """Whether the network knows the classes better than guessing; None without labels.

    Args:
        logits: outputs.
        labels: classes of the images; -1 where unknown.
    """
    known = (labels >= 0) & (labels < logits.shape[1])
    images, classes = int(known.sum()), logits.shape[1]
    if not images or classes < 2:  # noqa: PLR2004 one class is always right
        return None
    right = int((logits.argmax(1) == labels)[known].sum())
    low, high = (float(end[0]) for end in wilson_interval(np.array([right]), np.array([images])))
    rate, low_rate, high_rate = (f"{100 * one:.0f} %" for one in (right / images, low, high))
    chance = 1 / classes
    guessing = f"{100 * chance:.2g} %"
    seen = f"{right} of {images} images are classified correctly, {rate} [{low_rate}, {high_rate}]"
    if low > chance:
        return Finding("images", "accuracy", "fine", f"{seen}; guessing gives {guessing}")
    advice = "Look at --weights (random?), the order of the classes, and the normalisation"
    if images < FEW:
        return Finding("images", "accuracy", "note", f"{seen}: too few to tell from guessing ({guessing})", advice)
    word = "worse than guessing" if high < chance else "which cannot be told from guessing"
    text = f"{seen}, {word} ({guessing}; interval of Wilson, 95 %)"
    return Finding("images", "accuracy", "warning", text, advice)
