"""Whole attributions on disk, where somebody wants more than what is measured of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuronscope.errors import StorageError
from neuronscope.maths.streams import StackRows
from neuronscope.steps.filtered import Filtered, Whole
from neuronscope.studies.clusters.configurations import plan_of
from neuronscope.studies.clusters.setting import Setting
from neuronscope.studies.clusters.statistics import LayerClusters
from neuronscope.sweep import sweep

_AT_ONCE = 1 << 28
"""Bytes of maps that are held at a time."""


def keep_maps(setting: Setting, clusters: Sequence[LayerClusters]) -> list[Path]:
    """Write `LAYER/CONFIGURATION/METHOD_ROW.npy`: float32 of the image's shape, ROW being the image's row in the data.

    Configurations are the baseline, and of the main k each cluster filtered and alone. Maps are made once more, some
    images at a time.

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
                            np.save(path, values.astype(np.float32))
                            written.append(path)
    except OSError as error:
        message = (
            f"cannot write to {root}: {error.strerror or error}. Maps take 4 bytes for each number: "
            f"{len(written):,} were written. Choose another --keep-in, fewer --images or another disk"
        )
        raise StorageError(message) from error
    return written
