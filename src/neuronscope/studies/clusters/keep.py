"""Attributions on disk, where somebody wants more than what is measured of them: compact ones, or whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from neuronscope.errors import StorageError
from neuronscope.maths.attribution_maps import channel_sums, patch_masses
from neuronscope.maths.streams import StackRows
from neuronscope.steps.filtered import Filtered, Whole
from neuronscope.studies.clusters.configurations import plan_of
from neuronscope.studies.clusters.setting import Setting
from neuronscope.studies.clusters.statistics import LayerClusters
from neuronscope.sweep import sweep

_AT_ONCE = 1 << 28
"""Bytes of maps that are held at a time."""


def keep_maps(setting: Setting, clusters: Sequence[LayerClusters]) -> list[Path]:
    """Write `LAYER/CONFIGURATION/METHOD_ROW.npy`, ROW being the image's row in the data.

    Of a colour image of 224 x 224 a file takes 100 KB (`sums`), 1 KB (`masses`) or 600 KB (`whole`). Configurations are
    the baseline, and of the main k each cluster filtered and alone. Maps are made once more, some images at a time.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    root = Path(setting.spec.keep_in).expanduser()
    written: list[Path] = []
    try:
        for one in clusters:
            plan = plan_of(setting, one, controls=False)
            names = [
                "baseline" if each.kind == "baseline" else f"{each.kind}_{each.cluster}_k{each.k}"
                for each in plan.masked
            ]
            for name in names:
                (root / one.layer.name / name).mkdir(parents=True, exist_ok=True)
            each_image = 4 * len(names) * int(np.prod(setting.subject.input_shape))
            block = max(1, _AT_ONCE // each_image)
            for method_name, method in setting.methods.items():
                step = Filtered(
                    one.layer,
                    plan.masks,
                    method,
                    target=setting.target,
                    memory=setting.at_once,
                    summary=Whole(setting.subject.input_shape),
                )
                for first in range(0, len(setting.explained), block):
                    rows = setting.explained[first : first + block]
                    fold = StackRows("maps", images=len(rows))
                    images = setting.data.take(rows)
                    maps = sweep(setting.subject, images, step, fold, run=setting.run, name="maps kept").answer
                    for place, own in zip(maps.index.tolist(), maps.values, strict=True):
                        for name, values in zip(names, own, strict=True):
                            path = root / one.layer.name / name / f"{method_name}_{rows[place]}.npy"
                            np.save(path, kept_of(values.astype(np.float32), keep=setting.spec.keep))
                            written.append(path)
    except OSError as error:
        message = (
            f"cannot write to {root}: {error.strerror or error}. {len(written):,} maps were written. Choose another "
            "--keep-in or disk, fewer --images, or --keep masses"
        )
        raise StorageError(message) from error
    return written


def kept_of(
    attribution: Float[np.ndarray, "c h w"], *, keep: Literal["sums", "masses", "whole"]
) -> Float[np.ndarray, "..."]:
    """What is kept of an attribution.

    Args:
        attribution: of one image.
        keep: `sums`: of the absolute values over channels, (h, w), in half precision and as shares of the largest sum,
            for half precision ends at 1e-7, which gradients are below; `masses`: of the patches, (14, 14); `whole`: all
            of it, in single precision.

    Example:
        >>> kept_of(np.array([[[1e-9, -4e-9]], [[1e-9, 0.0]]], np.float32), keep="sums")
        array([[0.5, 1. ]], dtype=float16)
    """
    if keep == "whole":
        return attribution
    sums = channel_sums(torch.from_numpy(attribution))
    if keep == "masses":
        return np.asarray(patch_masses(sums).float().numpy())
    return np.asarray((sums / sums.max().clamp(min=torch.finfo(torch.float32).tiny)).half().numpy())
