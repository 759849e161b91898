"""One object pasted onto one image, at many places and sizes: does the network take it for a chosen class?

The counterpart of the original's `eval.py` and `eval_size_position.py` (Mu and Andreas 2020, section 7). A success is
told from chance by controls: the object's pixels in random order, and plain grey, over the very same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from neuronscope.data.dataset import Data
from neuronscope.data.pasting import KINDS, Kind, Paste, Patch, Placement, pasted, pasted_data, visible_share
from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.maths.resampling import wilson_interval
from neuronscope.maths.streams import StackRows
from neuronscope.models.subject import Subject
from neuronscope.run import Run
from neuronscope.steps import Predict
from neuronscope.sweep import sweep

Outcome = Literal["success", "partial", "failure"]
"""Seen as the target; as something new; or still as what the image or the object is without the other."""

OUTCOMES: tuple[Outcome, ...] = ("success", "partial", "failure")

IMAGE, OBJECT = 0, 1
"""Rows of the two pictures that everything is held against, before the pasted ones."""


@dataclass(frozen=True)
class PasteTrials:
    """What a network says about an image, an object, and the one pasted onto the other.

    Attributes:
        classes: class names.
        frame: the image as the network sees it.
        patch: the object that was pasted.
        image_logits, object_logits: of the image, and of the object's own whole picture.
        placements: where the object was laid.
        visible: share of the object's pixels that lie inside the image, for each placement.
        logits: of every pasted picture, for each kind in the order of `KINDS`.
        target: the class that a success is predicted as; None where none was asked for.
    """

    classes: tuple[str, ...]
    frame: UInt8[Tensor, "ch h w"]
    patch: Patch
    image_logits: Float[np.ndarray, "c"]
    object_logits: Float[np.ndarray, "c"]
    placements: tuple[Placement, ...]
    visible: Float[np.ndarray, "p"]
    logits: Float[np.ndarray, "kinds p c"]
    target: int | None = None

    @property
    def image_class(self) -> int:
        """What the network sees in the image."""
        return int(self.image_logits.argmax())

    @property
    def object_class(self) -> int:
        """What the network sees in the object's own picture."""
        return int(self.object_logits.argmax())

    @property
    def sides(self) -> tuple[int, ...]:
        """The sizes that were tried, ascending."""
        return tuple(sorted({one.side for one in self.placements}))

    def predicted(self, kind: Kind) -> Int[np.ndarray, "p"]:
        """The class of each pasted picture."""
        return np.asarray(self.logits[KINDS.index(kind)].argmax(axis=1))

    def outcomes(self, kind: Kind) -> list[Outcome]:
        """What became of each pasted picture."""
        known = (self.image_class, self.object_class)
        return [
            "success" if one == self.target else "failure" if one in known else "partial"
            for one in self.predicted(kind).tolist()
        ]

    def counts(self, kind: Kind, *, side: int | None = None) -> dict[Outcome, int]:
        """Number of pictures for each outcome, of all sizes or of one."""
        found = [
            outcome
            for outcome, one in zip(self.outcomes(kind), self.placements, strict=True)
            if side in (None, one.side)
        ]
        return {outcome: found.count(outcome) for outcome in OUTCOMES}

    def success(self, kind: Kind, *, side: int | None = None, level: float = 0.95) -> tuple[float, float, float]:
        """Share of successes, and its interval (Wilson).

        The placements of one object on one image are no sample of images: the interval says how well the share over
        placements is known, not what other images would give.
        """
        counts = self.counts(kind, side=side)
        hits, tries = np.array([counts["success"]]), np.array([sum(counts.values())])
        low, high = wilson_interval(hits, tries, level=level)
        return (int(hits[0]) / int(tries[0]) if tries[0] else float("nan")), float(low[0]), float(high[0])

    def picture(self, number: int) -> UInt8[Tensor, "ch h w"]:
        """The pasted picture of one placement."""
        one = self.placements[number]
        return pasted(self.frame, self.patch.pixels, self.patch.mask, x=one.x, y=one.y, side=one.side)

    def ranked(self) -> list[int]:
        """Placements of the object, successes first, then by the probability of the target (of the new class)."""
        chance = softmax(self.logits[0])
        wanted = self.predicted("object") if self.target is None else np.full(len(chance), self.target)
        value = chance[np.arange(len(chance)), wanted]
        order = {"success": 0, "partial": 1, "failure": 2 if self.target is None else 1}
        ranks = [order[outcome] for outcome in self.outcomes("object")]
        return sorted(range(len(chance)), key=lambda i: (ranks[i], self.visible[i] == 0, -value[i], i))

    def table(self) -> pd.DataFrame:
        """One line for each pasted picture."""
        lines = []
        for number, kind in enumerate(KINDS):
            chance, outcomes, predicted = softmax(self.logits[number]), self.outcomes(kind), self.predicted(kind)
            for i, one in enumerate(self.placements):
                line = {
                    "kind": kind,
                    "x": one.x,
                    "y": one.y,
                    "side": one.side,
                    "visible": self.visible[i],
                    "predicted": int(predicted[i]),
                    "predicted_name": self.classes[predicted[i]],
                    "logit": float(self.logits[number, i, predicted[i]]),
                    "probability": float(chance[i, predicted[i]]),
                }
                if self.target is not None:
                    line["target_logit"] = float(self.logits[number, i, self.target])
                    line["target_probability"] = float(chance[i, self.target])
                lines.append({**line, "outcome": outcomes[i]})
        return pd.DataFrame(lines)


def try_pastes(
    subject: Subject,
    image: UInt8[Tensor, "c h w"],
    patch: Patch,
    *,
    object_image: UInt8[Tensor, "c2 h2 w2"],
    placements: Sequence[Placement],
    target: int | None = None,
    run: Run | None = None,
) -> PasteTrials:
    """Paste an object and its controls onto an image at every placement, and ask the network about all of them.

    Args:
        subject: the network.
        image: the raw image; it is resized and cropped as the network sees it, and then pasted onto.
        patch: the object, cut out of its picture.
        object_image: the object's whole picture, for the class that the network gives it alone.
        placements: in pixels of the network's input.
        target: class number that counts as success.
        run: circumstances.

    Raises:
        InputError: no placements, a target that is no class or that the image has already, or pictures that do not
            have the network's size and that nothing resizes.

    Example:
        >>> import neuronscope as ns
        >>> from neuronscope.data.pasting import cut_out, grid_for
        >>> subject = ns.load_model("builtin:viewer-cnn", weights="random")
        >>> image, other = torch.zeros(1, 28, 28, dtype=torch.uint8), torch.full((1, 28, 28), 255, dtype=torch.uint8)
        >>> trials = try_pastes(subject, image, cut_out(other), object_image=other, placements=grid_for(28)[:4])
        >>> sum(trials.counts("object").values())
        4
    """
    run = run or Run()
    if not placements:
        message = "there is no place to paste at: expected one or more. Give a grid, or a place and a side"
        raise InputError(message)
    if target is not None and not 0 <= target < len(subject.classes):
        message = f"class {target} is none of the {len(subject.classes)} classes of {subject.name}, 0 to "
        message += f"{len(subject.classes) - 1}. Give one of these as target"
        raise InputError(message)
    frames = torch.stack([frame_for(subject, image), frame_for(subject, object_image)])
    own = Patch(in_channels(subject, patch.pixels), patch.mask)
    pastes = [Paste(0), Paste(1), *(Paste(0, 0, place, kind) for kind in KINDS for place in placements)]
    logits = ask(subject, pasted_data(frames, [own], pastes, seed=run.seed), run=run, name="paste")
    found = PasteTrials(
        classes=subject.classes,
        frame=frames[0],
        patch=own,
        image_logits=logits[IMAGE],
        object_logits=logits[OBJECT],
        placements=tuple(placements),
        visible=np.array([visible_share((frames.shape[2], frames.shape[3]), own, one) for one in placements]),
        logits=logits[OBJECT + 1 :].reshape(len(KINDS), len(placements), -1),
        target=target,
    )
    if target is not None and found.image_class == target:
        message = (
            f"the network sees '{subject.classes[target]}' in the image already, before anything is pasted: expected "
            "a target that it does not see there. Give another target, or another image"
        )
        raise InputError(message)
    return found


def ask(subject: Subject, data: Data, *, run: Run, name: str) -> Float[np.ndarray, "n c"]:
    """The logits of pictures that are framed already."""
    framed = replace(subject, preprocess=replace(subject.preprocess, resize=None, crop=None))
    fold = StackRows("logits", images=len(data))
    return np.asarray(sweep(framed, data, Predict(), fold, run=run, name=name).answer.values, dtype=np.float64)


def frame_for(subject: Subject, image: UInt8[Tensor, "c h w"]) -> UInt8[Tensor, "ch height width"]:
    """An image as the network sees it.

    Raises:
        InputError: it does not have the network's size, and nothing resizes it.
    """
    frame = subject.preprocess.frame(image)
    if tuple(frame.shape) != subject.input_shape:
        found, expected = ("x".join(map(str, size[1:])) for size in (frame.shape, subject.input_shape))
        message = (
            f"a picture of {found} pixels (height x width) reaches {subject.name}, which takes {expected}, and nothing "
            "resizes it. Give --resize and --crop"
        )
        raise InputError(message)
    return frame.contiguous()


def in_channels(subject: Subject, pixels: UInt8[Tensor, "c h w"]) -> UInt8[Tensor, "ch h w"]:
    """Pixels in the channels of the network, of the size they have."""
    return replace(subject.preprocess, resize=None, crop=None).frame(pixels).contiguous()


def find_class(subject: Subject, text: str) -> int:
    """The number of a class that is given by number, by name, or by one of the names in a list such as `tench, Tinca`.

    Raises:
        UnknownName: there is no such class, or more than one.
    """
    names = subject.classes
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    found = [i for i, name in enumerate(names) if text.lower() in {part.strip().lower() for part in name.split(",")}]
    if len(found) == 1:
        return found[0]
    if found:
        what = f"is {len(found)} classes: numbers {', '.join(map(str, found))}. Give the number"
    else:
        parts = {part.strip() for name in names for part in name.split(",")}
        what = f"is none of the {len(names)} classes of {subject.name}.{nearest(text, parts)} Give a name or a number"
    message = f"'{text}' {what}"
    raise UnknownName(message)


def softmax(logits: Float[np.ndarray, "*n c"]) -> Float[np.ndarray, "*n c"]:
    """Probabilities of the classes."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
