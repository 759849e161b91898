"""Which layers are looked at alone, and which unit by unit."""

from __future__ import annotations

from neuronscope.errors import InputError
from neuronscope.studies.importance.setting import Setting

_SINGLE, _ABLATED = 1, 2  # the last ones, unless others are asked for


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
