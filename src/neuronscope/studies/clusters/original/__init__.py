"""What the program this study comes from leaves behind, under its own names: everything below `outputs/`.

All of it is made from the result alone. Names are the original's for the original's setting and say what differs for
any other, so that no file takes the place of another; `parts` has the rules, `outputs/manifest.json` the list. JSON has
plain numbers, null for what is not known; tables have the original's columns first and then what this study adds:
intervals, logarithms of p-values that would be 0, and the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from neuronscope.result import Result
from neuronscope.studies.clusters.original.attributions import whole_maps, write_attributions
from neuronscope.studies.clusters.original.controls import write_controls
from neuronscope.studies.clusters.original.decompositions import write_decompositions
from neuronscope.studies.clusters.original.neurons import write_neurons
from neuronscope.studies.clusters.original.parts import Original, write_json
from neuronscope.studies.clusters.original.pictures import in_words, write_improvement, write_panels
from neuronscope.studies.clusters.original.tables import (
    class_tables,
    write_accuracies,
    write_classes,
    write_grid,
    write_metrics,
    write_significance,
)

__all__ = ["ORIGINAL_FIGURES", "export_clusters"]

ORIGINAL_FIGURES: dict[str, str] = {}
"""File of the original -> figure here in its place: its pictures lie in its folders, which are written anew."""


def export_clusters(result: Result, folder: Path) -> list[Path]:
    """Write the files of the original below `outputs/` in a folder.

    With `{filter}` for a block, cluster and number of clusters as in `block_1_cluster_0_k3`, and `_pixel` added to the
    names of what is measured by pixels:

    * `baseline/accuracy.json`, `baseline/metrics.json`, `filtered_{filter}/metrics.json`, `mask_grid_summary.csv`.
    * `neuron_stats/{block}_k{k}/`: statistics, clusters, manifest, centroids, and their pictures.
    * `accuracy/acc_{block}_c{c}_k{k}.json`: with the gradient filtered, and with the units silenced.
    * `statistical_analysis_{metric}_wise/statistical_results.json` for cluster 0 of the first layer; for the other
      clusters of the main clustering `statistical_analysis_{metric}_wise_{filter}/`.
    * `class_analysis_metrics_{a}_{b}.csv` and `faithfulness_improvement.png` likewise, those of the other clusters in
      `filtered_{filter}/`.
    * `control_random_{block}_{n}_seed{draw}/metrics.json` and `control_random/{block}_n{n}/`.
    * `cluster_analysis/`: each cluster's part of an attribution; of other layers in `cluster_analysis/{block}_k{k}/`.
    * `visualizations/attr_example_{row}_{block}_idx_{cluster}_k{k}.png`.
    * `attributions/{method}_{row}.npy` beside the metrics where the result keeps whole maps.
    * `manifest.json`, which the original has not: settings, blocks, files, and what is not there.

    Older or smaller results that lack a group lack its files.
    """
    original = Original(result, folder / "outputs")
    written: list[Path] = []
    for write in _WRITERS:
        written += write(original)
    return [*written, _manifest(original, written)]


def _write_improvements(original: Original) -> Iterator[Path]:
    """`faithfulness_improvement.png` beside every table by class."""
    for one, metric, folder, _, table in class_tables(original):
        added = original.classes if one == original.leading else ""
        classes = f"classes {table['class_id'].min()} to {table['class_id'].max()}"
        title = f"{one.block}, cluster {one.cluster} of {one.k} filtered, by {in_words(metric)}, {classes}"
        yield write_improvement(table, folder / f"faithfulness_improvement{added}.png", title=title)


_WRITERS: tuple[Callable[[Original], Iterator[Path]], ...] = (
    write_metrics,
    write_grid,
    write_neurons,
    write_accuracies,
    write_significance,
    write_classes,
    _write_improvements,
    write_controls,
    write_decompositions,
    write_panels,
    write_attributions,
)


def _manifest(original: Original, written: list[Path]) -> Path:
    whole = whole_maps(original)[0] is not None
    kept = (
        "attributions/ beside each metrics.json: one array for each method and image, named by the image's row"
        if whole
        else "not in the result, which has the metrics of each image, and the maps of those with a panel, summed over "
        "channels; attributions of all images are in the folder that --keep-in names: "
        f"{original.spec.get('keep_in') or 'none'}"
    )
    missing = []
    random = [one for one in original.filters if one.kind == "random"]
    if random and original.group("random_sets") is None:
        missing.append("control_random/*/control_scatter_3d.*: the result does not keep which units a random set has")
    return write_json(
        original.outputs / "manifest.json",
        {
            "blocks": {block: layer for layer, block in original.blocks.items()},
            "leading_filter": None if original.leading is None else original.leading.name,
            "attributions": kept,
            "missing": missing,
            "settings": original.settings(),
            "files": sorted(path.relative_to(original.outputs).as_posix() for path in written),
        },
    )
