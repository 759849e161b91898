"""Which masks the study tries: guided ones, and random ones that match them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from neuronscope.maths.guide_masks import Configuration, Guide, ScaleMap, Selection, configurations, shuffled
from neuronscope.steps.scaled import PredictScaled, Scaling
from neuronscope.studies.sensitivity.masking.setting import Combined, MaskingSetting

TOGETHER = "together"
"""Name of all layers in one pass."""


@dataclass(frozen=True)
class Item:
    """One guided mask.

    Attributes:
        at: layer that is masked, or `TOGETHER`.
        variable: factor that guides it.
        configuration: what is made of the guide.
    """

    at: str
    variable: str
    configuration: Configuration

    @property
    def name(self) -> str:
        """The original's, and where only one layer is masked, that layer's."""
        own = self.configuration.name(self.variable)
        return own if self.at == TOGETHER else f"{own}_at={self.at}"


@dataclass(frozen=True, eq=False)
class Controls:
    """Random masks, each run once however many guided ones it matches.

    Attributes:
        scalings: what is run.
        of: which of them, for each draw and guided mask.
        guides: random guides behind them.
    """

    scalings: tuple[Scaling, ...]
    of: Int[np.ndarray, "draws masks"]
    guides: int


def places(setting: MaskingSetting) -> dict[str, tuple[str, ...]]:
    """Where masks act, by name, and on which layers."""
    names = tuple(layer.name for layer in setting.layers)
    alone = {name: (name,) for name in names} if setting.spec.at == "each" and len(names) > 1 else {}
    return {TOGETHER: names, **alone}


def guided_items(setting: MaskingSetting, of: Combined) -> tuple[Item, ...]:
    """Place by place, variable by variable, the configurations in the original's order."""
    own = configurations(setting.spec.scales, setting.spec.quantiles)
    return tuple(Item(at, variable, one) for at in places(setting) for variable in of.variables for one in own)


def guided_scalings(setting: MaskingSetting, of: Combined) -> tuple[Scaling, ...]:
    """Of each item, in its order."""
    where = places(setting)
    return tuple(
        Scaling(
            item.name,
            {
                layer: ScaleMap(setting.guides[layer, item.variable], item.configuration, setting.rule)
                for layer in where[item.at]
            },
        )
        for item in guided_items(setting, of)
    )


def control_scalings(setting: MaskingSetting, of: Combined) -> Controls:
    """Random masks with the numbers of each guided one.

    Where exactly so many elements are scaled, a random mask is the same for all variables. Weights, and elements above
    a quantile, are a variable's own.
    """
    items, where = guided_items(setting, of), places(setting)
    random: dict[tuple[int, str, str], Guide] = {}
    numbers: dict[tuple[int, str, str, Configuration], int] = {}
    scalings: list[Scaling] = []
    which = np.empty((setting.spec.controls, len(items)), dtype=np.int64)

    def guide_of(draw: int, layer: str, variable: str) -> Guide:
        key = (draw, layer, variable)
        if key not in random:
            rng = setting.run.generator("control", str(draw), layer)
            random[key] = shuffled(setting.guides[layer, variable], rng=rng)
        return random[key]

    for draw in range(setting.spec.controls):
        for place, item in enumerate(items):
            shared = isinstance(item.configuration, Selection) and setting.rule == "ranks"
            variable = of.variables[0] if shared else item.variable
            key = (draw, item.at, variable, item.configuration)
            if key not in numbers:
                numbers[key] = len(scalings)
                maps = {
                    layer: ScaleMap(guide_of(draw, layer, variable), item.configuration, setting.rule)
                    for layer in where[item.at]
                }
                scalings.append(Scaling(f"random={draw}_{Item(item.at, variable, item.configuration).name}", maps))
            which[draw, place] = numbers[key]
    return Controls(tuple(scalings), which, len(random))


def step_of(setting: MaskingSetting, scalings: tuple[Scaling, ...]) -> PredictScaled:
    """What looks at a batch."""
    return PredictScaled(
        setting.layers, scalings, augmented=setting.images, k=setting.spec.top_k, softmaxes=setting.softmaxes
    )
