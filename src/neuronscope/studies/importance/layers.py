"""Which layers are looked at alone, and which unit by unit; and how hard, for what follows a layer may be costly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from neuronscope.data.dataset import balanced_rows
from neuronscope.errors import InputError
from neuronscope.hooks import placed
from neuronscope.steps.recent import cut_at
from neuronscope.studies.importance.setting import Setting

_SINGLE, _ABLATED = 1, 2  # the last ones, unless others are asked for

_MANY, _SOME = 1000, 200  # random sets where the logits follow in closed form, and where the network must run again


@dataclass(frozen=True)
class Alone:
    """How a layer is looked at by itself.

    Attributes:
        number: of the layer.
        rows: report images to use.
        draws: random unit sets.
    """

    number: int
    rows: Int[np.ndarray, "m"]
    draws: int


def effort(setting: Setting, number: int) -> Alone:
    """All report images and many random sets where silencing units of a layer costs next to nothing.

    Where the network must run again for each set of units: the images of the classes in question and as many others,
    no more than are used for silencing units one by one, and fewer random sets unless their number was asked for.
    """
    free = is_closed_form(setting, number)
    asked = setting.spec.layer_controls
    draws = asked if asked is not None else _MANY if free else _SOME
    labels = setting.report.labels
    if free:
        return Alone(number, np.arange(len(labels)), draws)
    limit = setting.spec.ablation_images
    own = np.flatnonzero(np.isin(labels, setting.classes))
    own = own[balanced_rows(labels[own], limit=limit, seed=setting.run.seed)]
    rest = np.flatnonzero((labels >= 0) & ~np.isin(labels, setting.classes))
    rest = rest[balanced_rows(labels[rest], limit=min(len(own), max(limit - len(own), 0)), seed=setting.run.seed)]
    return Alone(number, np.sort(np.concatenate([own, rest])), draws)


def is_closed_form(setting: Setting, number: int) -> bool:
    """Whether the logits follow from the layer's means without running anything again."""
    run = setting.run
    with run.scope(), placed(setting.subject.module, run) as module:
        image = run.place(torch.zeros(1, *setting.subject.input_shape))
        return cut_at(module, setting.silenced[number], image, memory=setting.replay_memory).way == "closed form"


def ablated_layers(setting: Setting) -> tuple[int, ...]:
    """Numbers of the layers whose units are silenced one by one.

    Raises:
        UnknownName: no such layer.
        InputError: a layer that is not among those of the study.
    """
    return _numbers(setting, "ablate", setting.spec.ablate, usual=_ABLATED)


def single_layers(setting: Setting) -> tuple[int, ...]:
    """Numbers of the layers that are looked at alone.

    Raises:
        UnknownName: no such layer.
        InputError: a layer that is not among those of the study.
    """
    return _numbers(setting, "alone", setting.spec.alone, usual=_SINGLE)


def _numbers(setting: Setting, option: str, patterns: tuple[str, ...], *, usual: int) -> tuple[int, ...]:
    everything = tuple(range(len(setting.layers)))
    if patterns == ("none",):
        return ()
    if not patterns:
        return everything[-usual:]
    wanted = setting.subject.select(*patterns)
    for layer in wanted:
        if layer not in setting.layers:
            message = (
                f"--{option} names '{layer.name}', which is not among the layers of the study "
                f"({', '.join(one.name for one in setting.layers)}). Name it in --layers too"
            )
            raise InputError(message)
    return tuple(number for number in everything if setting.layers[number] in wanted)
