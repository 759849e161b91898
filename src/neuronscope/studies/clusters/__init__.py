"""The `clusters` study: units in clusters, and attributions with the gradient kept from one of them."""

from neuronscope.studies.clusters.joining import join_classes
from neuronscope.studies.clusters.original import ORIGINAL_FIGURES, export_clusters
from neuronscope.studies.clusters.page import clusters_page
from neuronscope.studies.clusters.setting import chosen_layers
from neuronscope.studies.clusters.spec import LEGACY, ClustersSpec
from neuronscope.studies.clusters.study import plan_clusters, run_clusters

__all__ = [
    "LEGACY",
    "ORIGINAL_FIGURES",
    "ClustersSpec",
    "chosen_layers",
    "clusters_page",
    "export_clusters",
    "join_classes",
    "plan_clusters",
    "run_clusters",
]
