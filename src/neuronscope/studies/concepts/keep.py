"""Activations, thresholds and label masks on disk, as the originals kept them: for programs that read theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuronscope.errors import StorageError
from neuronscope.maths.streams import StackRows
from neuronscope.studies.concepts.detect import levels_of
from neuronscope.studies.concepts.grid import Grid
from neuronscope.studies.concepts.setting import Setting
from neuronscope.sweep import sweep
from neuronscope.units import LayerInfo

_BLOCK = 1 << 28
"""Bytes of activations that are held at a time when nobody says how much memory there is."""


def keep(setting: Setting, grid: Grid, layers: Sequence[LayerInfo]) -> list[Path]:
    """Write `inspected_neurons.mmap` and its shape, `static_thresholds_{quantile}.npy` and the label masks.

    Activations are float32 of shape (units, images, height, width), as the grid sees them; the shape file holds
    (images, units, height, width), as in the original. Every layer has a folder of its own where there are several. All
    images are passed, a block of units at a time; thresholds are those of the images searched.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    folder = Path(setting.spec.keep_in).expanduser()
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for layer in layers:
            own = folder / layer.name if len(layers) > 1 else folder
            own.mkdir(exist_ok=True)
            written += _activations(setting, grid, layer, own)
            path = own / f"static_thresholds_{setting.spec.quantile:g}.npy"
            np.save(path, levels_of(setting, grid, [layer])[0].threshold)
            written.append(path)
        written += grid.keep(folder)
    except OSError as error:
        message = (
            f"cannot write to {folder}: {error.strerror or error}. Activations of all units take "
            f"{sum(_bytes(setting, grid, layer) for layer in layers) / 2**20:,.0f} MiB: choose another --keep-in, or "
            "fewer layers"
        )
        raise StorageError(message) from error
    return written


def _activations(setting: Setting, grid: Grid, layer: LayerInfo, folder: Path) -> list[Path]:
    images, side = setting.concepts.images, grid.map_shape(layer)
    path = folder / "inspected_neurons.mmap"
    table = np.memmap(path, dtype=np.float32, mode="w+", shape=(layer.units, len(images), *side))
    most = setting.run.memory or _BLOCK
    width = max(1, min(layer.units, most // max(1, 2 * _bytes(setting, grid, layer) // layer.units)))
    for first in range(0, layer.units, width):
        part = layer.part(first, min(layer.units, first + width)) if width < layer.units else layer
        fold = StackRows(f"maps/{layer.name}", images=len(images))
        rows = sweep(setting.subject, images, grid.look([part]), fold, run=setting.run, name="activations kept").answer
        values = rows.values.reshape(len(rows.index), part.units, *side)
        table[first : first + part.units, rows.index] = np.moveaxis(values, 0, 1)
    table.flush()
    shape = folder / "inspected_neurons_shape.npy"
    np.save(shape, np.array([len(images), layer.units, *side]))
    return [path, shape]


def _bytes(setting: Setting, grid: Grid, layer: LayerInfo) -> int:
    return 4 * layer.units * len(setting.concepts) * int(np.prod(grid.map_shape(layer)))
