"""The original's arrays of attributions, `attributions/{method}_{i}.npy`, where a result keeps whole maps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from neuronscope.studies.clusters.original.parts import Original
from neuronscope.studies.clusters.original.tables import metric_folders


def write_attributions(original: Original) -> Iterator[Path]:
    """One array (channel, y, x) of 32 bits for each image, by its row in the data, in every configuration's folder.

    Maps are the same for all metrics, so they lie in the folder of the first.
    """
    maps, rows = whole_maps(original)
    if maps is None or rows is None or not original.metrics:
        return
    for one, folder in metric_folders(original, original.metrics[0]):
        own = maps.isel(configuration=one.at)
        target = folder / "attributions"
        target.mkdir(parents=True, exist_ok=True)
        for at, method in enumerate(original.methods):
            for image, row in enumerate(rows.to_numpy().tolist()):
                path = target / f"{method}_{int(row)}.npy"
                values = own.isel(method=at, image=image).transpose("channel", "y", "x")
                np.save(path, values.to_numpy().astype(np.float32))
                yield path


def whole_maps(original: Original) -> tuple[xr.DataArray | None, xr.DataArray | None]:
    """Whole maps of all images and the images' rows; None where the result does not keep them."""
    images = original.group("images")
    for name in ("attributions", "images"):
        table = original.group(name)
        if table is not None and "attributions" in table:
            where = table if "row" in table else images
            return table["attributions"], where["row"] if where is not None and "row" in where else None
    return None, None
