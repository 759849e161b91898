"""The findings of the masking study as the groups of its result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Float32, Int

from neuronscope.maths.guide_masks import UNMASKED, Selection
from neuronscope.maths.masking_analysis import Accuracies, accuracies, accuracies_by_class, against_random
from neuronscope.maths.resampling import by_qvalues
from neuronscope.studies.sensitivity.masking.answers import Answers, Controlled, by_input, texts, whole
from neuronscope.studies.sensitivity.masking.overlap import overlap_groups
from neuronscope.studies.sensitivity.masking.responses import Responses, response_groups
from neuronscope.studies.sensitivity.masking.scalings import TOGETHER, Item, guided_items
from neuronscope.studies.sensitivity.masking.setting import Combined, MaskingSetting


def result_groups(
    setting: MaskingSetting, guided: Sequence[Answers], random: Sequence[Controlled]
) -> dict[str, xr.Dataset]:
    """All groups.

    Args:
        setting: of the study.
        guided: of each set.
        random: of what random masks are tried on.
    """
    labels = guided[0].label
    right = [by_input(setting, own.of, own.rank, top=1) for own in guided]
    groups = {
        "configurations": configurations_group(guided_items(setting, setting.every)),
        "accuracy": accuracy_group(setting, guided),
        "against_random": random_group(setting, list(zip(setting.sets, right, strict=True)), random),
        "accuracy_by_class": class_group(setting, right, labels),
        "guides": guides_group(setting),
        **overlap_groups(setting, guided),
        **response_groups(responses_of(setting, right), setting.spec, setting.run),
    }
    if setting.spec.keep == "predictions":
        groups |= {
            f"predictions/{number}": predictions_group(setting, own) for number, own in enumerate(guided, start=1)
        }
    return groups


def responses_of(setting: MaskingSetting, right: Sequence[Float32[np.ndarray, "n _ _"]]) -> list[Responses]:
    """The answers of each set that has an augmentation, under masks of all layers together."""
    found = []
    for of, own in zip(setting.sets, right, strict=True):
        together = [place for place, item in enumerate(guided_items(setting, of), start=1) if item.at == TOGETHER]
        shape = (len(own), len(of.inputs), len(of.variables), -1)
        if of.augmentations:
            found.append(Responses(of.inputs[1:], of.variables, own[:, :, together].reshape(shape)))
    return found


def configurations_group(items: Sequence[Item]) -> xr.Dataset:
    """The masks by name, the network as it is first."""
    selections = [item.configuration if isinstance(item.configuration, Selection) else None for item in items]
    kinds = [
        "selection" if isinstance(item.configuration, Selection) else item.configuration.sensitive for item in items
    ]
    nan = float("nan")
    return xr.Dataset(
        {
            "variable": ("configuration", texts(["", *(item.variable for item in items)])),
            "kind": ("configuration", texts(["unmasked", *kinds])),
            "scale": ("configuration", np.array([nan, *(nan if one is None else one.scale for one in selections)])),
            "quantile": (
                "configuration",
                np.array([nan, *(nan if one is None else one.quantile for one in selections)]),
            ),
            "at": ("configuration", texts(["", *(item.at for item in items)])),
        },
        coords={"configuration_name": ("configuration", texts([UNMASKED, *(item.name for item in items)]))},
    )


def accuracy_group(setting: MaskingSetting, guided: Sequence[Answers]) -> xr.Dataset:
    """Accuracy of each input under each mask, with intervals over images; nan for what is not combined."""
    tops = tuple(dict.fromkeys((1, setting.spec.top_k)))
    found = [
        [accuracies(by_input(setting, own.of, own.rank, top=top), level=setting.spec.level) for own in guided]
        for top in tops
    ]
    axes = ("top", "input", "configuration")

    def every(field: str) -> Float[np.ndarray, "t i m"]:
        parts = [[(own.of, getattr(one, field)) for own, one in zip(guided, row, strict=True)] for row in found]
        return np.stack([whole(setting, part) for part in parts])

    return xr.Dataset(
        {
            name: (axes, every(field))
            for name, field in (("accuracy", "value"), ("accuracy_low", "low"), ("accuracy_high", "high"))
        },
        coords={"k": ("top", np.array(tops)), "input_name": ("input", texts(setting.every.inputs))},
        attrs={"images": int(found[0][0].images)},
    )


def random_group(
    setting: MaskingSetting,
    right: Sequence[tuple[Combined, Float32[np.ndarray, "n _ _"]]],
    random: Sequence[Controlled],
) -> xr.Dataset:
    """Top-1 accuracy under each mask minus the mean of its random masks, for the inputs that these were tried on."""
    fields: dict[str, list[tuple[Combined, np.ndarray]]] = {}
    guided = whole(setting, right)
    inputs, items = setting.every.inputs, guided_items(setting, setting.every)
    for own in random:
        controls = by_input(setting, own.of, own.rank, top=1)[:, :, own.which]  # image, input, draw, mask
        flat = controls.transpose(0, 2, 1, 3).reshape(len(controls), len(own.which), -1)
        rows = [inputs.index(name) for name in own.of.inputs]
        columns = [1 + place for place, item in enumerate(items) if item.variable in own.of.variables]
        masked = guided[:, np.array(rows)[:, None], np.array(columns)]
        found = against_random(masked.reshape(len(masked), -1), flat, level=setting.spec.level)
        means = flat.mean(axis=0, dtype=np.float64)
        numbers = {
            "difference": found.value,
            "difference_low": found.low,
            "difference_high": found.high,
            "difference_p": found.p,
            "random": means.mean(axis=0),
            "random_lowest": means.min(axis=0),
            "random_highest": means.max(axis=0),
        }
        for name, values in numbers.items():
            table = values.reshape(len(rows), len(columns))
            fields.setdefault(name, []).append((own.of, np.column_stack([np.full(len(rows), np.nan), table])))
    tried = len(inputs) if setting.spec.controlled == "all" else 1
    variables = {name: whole(setting, parts)[:tried, 1:] for name, parts in fields.items()}
    variables["difference_q"] = by_qvalues(variables["difference_p"])
    return xr.Dataset(
        {name: (("input", "mask"), values) for name, values in variables.items()},
        coords={
            "input_name": ("input", texts(inputs[:tried])),
            "mask_name": ("mask", texts([item.name for item in items])),
        },
        attrs={"draws": setting.spec.controls},
    )


def class_group(
    setting: MaskingSetting, right: Sequence[Float32[np.ndarray, "n _ _"]], labels: Int[np.ndarray, "n"]
) -> xr.Dataset:
    """Top-1 accuracy of the images of each class that there is."""
    classes, numbers = np.unique(labels, return_inverse=True)
    found: list[Accuracies] = [
        accuracies_by_class(one, numbers, classes=len(classes), level=setting.spec.level) for one in right
    ]
    axes = ("class", "input", "configuration")
    return xr.Dataset(
        {
            name: (
                axes,
                whole(
                    setting,
                    [(of, getattr(one, field).astype(np.float32)) for of, one in zip(setting.sets, found, strict=True)],
                ),
            )
            for name, field in (("accuracy", "value"), ("accuracy_low", "low"), ("accuracy_high", "high"))
        }
        | {"images": ("class", found[0].images)},
        coords={
            "class_number": ("class", classes),
            "class_name": ("class", texts([setting.data.classes[number] for number in classes])),
            "input_name": ("input", texts(setting.every.inputs)),
        },
    )


def guides_group(setting: MaskingSetting) -> xr.Dataset:
    """How many elements of each layer the maps say something of."""
    guides, variables = setting.guides, setting.every.variables
    share = [[float((guides[layer.name, name].values > 0).mean()) for name in variables] for layer in setting.layers]
    mean = [
        [float(guides[layer.name, name].values.mean(dtype=np.float64)) for name in variables]
        for layer in setting.layers
    ]
    axes = ("layer", "variable")
    return xr.Dataset(
        {"above_zero": (axes, np.array(share)), "mean": (axes, np.array(mean))},
        coords={
            "layer_name": ("layer", texts([layer.name for layer in setting.layers])),
            "variable_name": ("variable", texts(variables)),
        },
    )


def predictions_group(setting: MaskingSetting, answers: Answers) -> xr.Dataset:
    """The first classes of every row under every mask, and their probabilities."""
    of, axes = answers.of, ("image", "row", "configuration", "place")
    rows = [
        (name, draw)
        for name, own in zip(of.inputs, setting.columns(of), strict=True)
        for draw in range(own.stop - own.start)
    ]
    return xr.Dataset(
        {"top": (axes, answers.top), "probability": (axes, answers.probability)},
        coords={
            "label": ("image", answers.label),
            "image_row": ("image", answers.row),
            "row_input": ("row", texts([name for name, _ in rows])),
            "row_draw": ("row", np.array([draw for _, draw in rows])),
            "configuration_name": (
                "configuration",
                texts([UNMASKED, *(item.name for item in guided_items(setting, of))]),
            ),
        },
        attrs={"variables": list(of.variables)},
    )
