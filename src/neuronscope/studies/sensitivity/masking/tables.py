"""The findings of the masking study as the groups of its result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float32, Int

from neuronscope.maths.guide_masks import UNMASKED, Selection
from neuronscope.maths.masking_analysis import (
    Accuracies,
    PairingGap,
    accuracies,
    accuracies_by_class,
    against_random,
    image_accuracy,
    input_correlations,
    pairing_gap,
    response_clusters,
)
from neuronscope.studies.sensitivity.masking.scalings import TOGETHER, Item, guided_items
from neuronscope.studies.sensitivity.masking.setting import MaskingSetting

COLOURS = ("hue", "saturation")
"""The pair of factors that the original found to deviate like one."""


def result_groups(
    setting: MaskingSetting,
    rank: Int[np.ndarray, "n block _"],
    labels: Int[np.ndarray, "n"],
    random: Int[np.ndarray, "n fewer _"],
    of: Int[np.ndarray, "draws masks"],
) -> dict[str, xr.Dataset]:
    """All groups.

    Args:
        setting: of the study.
        rank: classes before the label, for each row of an image's block, without a mask and under each.
        labels: of the images.
        random: the same under random masks alone, for the rows that these were tried on.
        of: which of the random masks, for each draw and guided mask.
    """
    tops = tuple(dict.fromkeys((1, setting.spec.top_k)))
    right = {top: _by_input(setting, rank, top=top) for top in tops}
    items = guided_items(setting)
    groups = {
        "configurations": configurations_group(items),
        "accuracy": accuracy_group(setting, right),
        "against_random": random_group(setting, right[1], _by_input(setting, random, top=1), of),
        "accuracy_by_class": class_group(setting, right[1], labels),
        "guides": guides_group(setting),
    }
    if setting.augmentations:
        together = [place for place, item in enumerate(items) if item.at == TOGETHER]
        responses = right[1][:, :, 1:][:, :, together]
        shape = (len(responses), len(setting.inputs), len(setting.variables), -1)
        groups |= response_groups(setting, responses.reshape(shape))
    return groups


def _by_input(setting: MaskingSetting, rank: Int[np.ndarray, "n block m"], *, top: int) -> Float32[np.ndarray, "n i m"]:
    """Share of right draws of each image, for each kind of input that there is."""
    columns = [own for own in setting.columns if own.stop <= rank.shape[1]]
    return np.stack([image_accuracy(rank[:, own], top=top) for own in columns], axis=1)


def configurations_group(items: Sequence[Item]) -> xr.Dataset:
    """The masks by name, the network as it is first."""
    selections = [item.configuration if isinstance(item.configuration, Selection) else None for item in items]
    kinds = [
        "selection" if isinstance(item.configuration, Selection) else item.configuration.sensitive for item in items
    ]
    nan = float("nan")
    return xr.Dataset(
        {
            "variable": ("configuration", _texts(["", *(item.variable for item in items)])),
            "kind": ("configuration", _texts(["unmasked", *kinds])),
            "scale": ("configuration", np.array([nan, *(nan if one is None else one.scale for one in selections)])),
            "quantile": (
                "configuration",
                np.array([nan, *(nan if one is None else one.quantile for one in selections)]),
            ),
            "at": ("configuration", _texts(["", *(item.at for item in items)])),
        },
        coords={"configuration_name": ("configuration", _texts([UNMASKED, *(item.name for item in items)]))},
    )


def accuracy_group(setting: MaskingSetting, right: dict[int, Float32[np.ndarray, "n i m"]]) -> xr.Dataset:
    """Accuracy of each input under each mask, with intervals over images."""
    found = [accuracies(one, level=setting.spec.level) for one in right.values()]
    axes = ("top", "input", "configuration")
    return xr.Dataset(
        {
            name: (axes, np.stack([getattr(one, field) for one in found]))
            for name, field in (("accuracy", "value"), ("accuracy_low", "low"), ("accuracy_high", "high"))
        },
        coords={"k": ("top", np.array(list(right))), "input_name": ("input", _texts(setting.inputs))},
        attrs={"images": int(found[0].images)},
    )


def random_group(
    setting: MaskingSetting,
    right: Float32[np.ndarray, "n i m"],
    random: Float32[np.ndarray, "n j _"],
    of: Int[np.ndarray, "draws masks"],
) -> xr.Dataset:
    """Top-1 accuracy under each mask minus the mean of its random masks, for the inputs that these were tried on."""
    inputs, masks = random.shape[1], of.shape[1]
    own = right[:, :inputs, 1:].reshape(len(right), -1)
    controls = random[:, :, of]  # image, input, draw, mask
    flat = controls.transpose(0, 2, 1, 3).reshape(len(controls), len(of), -1)
    found = against_random(own, flat, level=setting.spec.level)
    axes = ("input", "mask")
    variables = {
        "difference": found.value,
        "difference_low": found.low,
        "difference_high": found.high,
        "difference_p": found.p,
        "difference_q": found.q,
        "random": flat.mean(axis=(0, 1), dtype=np.float64),
        "random_lowest": flat.mean(axis=0, dtype=np.float64).min(axis=0),
        "random_highest": flat.mean(axis=0, dtype=np.float64).max(axis=0),
    }
    return xr.Dataset(
        {name: (axes, values.reshape(inputs, masks)) for name, values in variables.items()},
        coords={
            "input_name": ("input", _texts(setting.inputs[:inputs])),
            "mask_name": ("mask", _texts([item.name for item in guided_items(setting)])),
        },
        attrs={"draws": len(of)},
    )


def class_group(
    setting: MaskingSetting, right: Float32[np.ndarray, "n i m"], labels: Int[np.ndarray, "n"]
) -> xr.Dataset:
    """Top-1 accuracy of the images of each class that there is."""
    classes, numbers = np.unique(labels, return_inverse=True)
    found: Accuracies = accuracies_by_class(right, numbers, classes=len(classes), level=setting.spec.level)
    axes = ("class", "input", "configuration")
    return xr.Dataset(
        {
            "accuracy": (axes, found.value.astype(np.float32)),
            "accuracy_low": (axes, found.low.astype(np.float32)),
            "accuracy_high": (axes, found.high.astype(np.float32)),
            "images": ("class", found.images),
        },
        coords={
            "class_number": ("class", classes),
            "class_name": ("class", _texts([setting.data.classes[number] for number in classes])),
            "input_name": ("input", _texts(setting.inputs)),
        },
    )


def guides_group(setting: MaskingSetting) -> xr.Dataset:
    """How many elements of each layer the maps say something of."""
    share = [
        [float((setting.guides[layer.name, variable].values > 0).mean()) for variable in setting.variables]
        for layer in setting.layers
    ]
    mean = [
        [float(setting.guides[layer.name, variable].values.mean(dtype=np.float64)) for variable in setting.variables]
        for layer in setting.layers
    ]
    axes = ("layer", "variable")
    return xr.Dataset(
        {"above_zero": (axes, np.array(share)), "mean": (axes, np.array(mean))},
        coords={
            "layer_name": ("layer", _texts([layer.name for layer in setting.layers])),
            "variable_name": ("variable", _texts(setting.variables)),
        },
    )


def response_groups(setting: MaskingSetting, responses: Float32[np.ndarray, "n i j c"]) -> dict[str, xr.Dataset]:
    """The original's analyses A and B, and whether factors that augment the input deviate more."""
    spec, run = setting.spec, setting.run
    found = input_correlations(
        responses[:, 0], responses[:, 1:], rng=run.generator("correlations"), draws=spec.resamples, level=spec.level
    )
    axes = ("augmentation", "variable")
    augmentations, variables = setting.inputs[1:], setting.variables
    coords = {
        "augmentation_name": ("augmentation", _texts(augmentations)),
        "variable_name": ("variable", _texts(variables)),
    }
    groups = {
        "correlations": xr.Dataset(
            {
                "correlation": (axes, found.value),
                "correlation_low": (axes, found.low),
                "correlation_high": (axes, found.high),
                "correlation_p": (axes, found.p),
                "correlation_q": (axes, found.q),
            },
            coords=coords,
            attrs={"configurations": responses.shape[-1]},
        )
    }
    patterns = {
        "same factor": _same(augmentations, variables),
        "hue with saturation": _colours(augmentations, variables),
    }
    gaps: list[PairingGap] = [
        pairing_gap(found, pairs, rng=run.generator("pairing", name), level=spec.level)
        for name, pairs in patterns.items()
    ]
    groups["pairing"] = xr.Dataset(
        {
            "gap": ("pattern", np.array([one.value for one in gaps])),
            "gap_low": ("pattern", np.array([one.low for one in gaps])),
            "gap_high": ("pattern", np.array([one.high for one in gaps])),
            "gap_p": ("pattern", np.array([one.p for one in gaps])),
            "pairs": ("pattern", np.array([int(pairs.sum()) for pairs in patterns.values()])),
        },
        coords={"pattern_name": ("pattern", _texts(list(patterns)))},
    )
    leaves = [(augmentation, variable) for augmentation in augmentations for variable in variables]
    if len(leaves) > 1:
        groups["clusters"] = clusters_group(setting, responses[:, 1:], leaves)
    return groups


def clusters_group(
    setting: MaskingSetting, responses: Float32[np.ndarray, "n a j c"], leaves: Sequence[tuple[str, str]]
) -> xr.Dataset:
    """The tree of responses, a leaf for each pair of augmentation and mask factor."""
    flat = responses.reshape(len(responses), len(leaves), -1)
    tree = response_clusters(flat, rng=setting.run.generator("clusters"), draws=setting.spec.resamples)
    return xr.Dataset(
        {
            "distance": (("leaf", "other"), tree.distance),
            "correlation": (("leaf", "other"), tree.correlation),
            "linkage": (("join", "part"), tree.linkage),
            "support": ("join", tree.support),
            "order": ("leaf", tree.order),
            "flat": ("leaf", tree.flat),
        },
        coords={
            "leaf_input": ("leaf", _texts([augmentation for augmentation, _ in leaves])),
            "leaf_variable": ("leaf", _texts([variable for _, variable in leaves])),
        },
    )


def _same(augmentations: Sequence[str], variables: Sequence[str]) -> Bool[np.ndarray, "a j"]:
    return np.array([[one == other for other in variables] for one in augmentations], dtype=bool)


def _colours(augmentations: Sequence[str], variables: Sequence[str]) -> Bool[np.ndarray, "a j"]:
    return np.array([[{one, other} == set(COLOURS) for other in variables] for one in augmentations], dtype=bool)


def _texts(names: Sequence[str]) -> np.ndarray:
    return np.array([str(name) for name in names], dtype=object)
