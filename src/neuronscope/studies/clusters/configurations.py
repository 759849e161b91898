"""Which channels the gradient may pass: every filter, every isolated cluster, and random sets of equal size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool

from neuronscope.maths.controls import matched_sets
from neuronscope.studies.clusters.setting import Setting
from neuronscope.studies.clusters.statistics import LayerClusters

Kind = Literal["baseline", "filter", "isolate", "random", "blurred", "ranking"]


@dataclass(frozen=True)
class Configuration:
    """One way to attribute.

    Attributes:
        kind: `baseline`: everything passes; `filter`: all but a cluster; `isolate`: a cluster alone; `random`: all but
            a random set; `blurred`: the baseline's map, blurred until it is as smooth as the filtered one; `ranking`:
            no map, positions in random order.
        k, cluster: of which clustering which cluster it is about; 0 and -1 for the baseline and the ranking.
        draw: number of a random set, else -1.
        closed: channels that the gradient does not pass.
        shared: channels that a random set had to take from the cluster it stands for.
    """

    kind: Kind
    k: int = 0
    cluster: int = -1
    draw: int = -1
    closed: int = 0
    shared: int = 0


@dataclass(frozen=True, eq=False)
class Plan:
    """All configurations at a layer: those with masks first, then what is made of maps.

    Attributes:
        masks: true where the gradient passes.
        masked: what each mask is.
        made: blurred maps and the random ranking.
        main: numbers of the filters of the main clustering among the masks, cluster by cluster.
        alone: numbers of its isolated clusters.
    """

    masks: Bool[np.ndarray, "m u"]
    masked: tuple[Configuration, ...]
    made: tuple[Configuration, ...]
    main: tuple[int, ...]
    alone: tuple[int, ...]

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """All of them, in the order of the results."""
        return (*self.masked, *self.made)


def plan_of(setting: Setting, clusters: LayerClusters, *, controls: bool = True, k: int = 0) -> Plan:
    """The configurations of a layer.

    Args:
        setting: the study.
        clusters: the layer with its clusterings.
        controls: whether random sets, blurred maps, the random ranking and other clusterings are among them.
        k: the clustering that all but the filters of other clusterings are about; 0 for the main one.
    """
    units, spec, main_k = clusters.layer.units, setting.spec, k or setting.spec.main_k
    masks: list[Bool[np.ndarray, "u"]] = [np.ones(units, dtype=bool)]
    masked = [Configuration("baseline")]
    for every in setting.ks if controls else (main_k,):
        labels = clusters.clusterings[every].labels
        for cluster in range(every):
            masks.append(labels != cluster)
            masked.append(Configuration("filter", every, cluster, closed=int((labels == cluster).sum())))
    main = [at for at, one in enumerate(masked) if one.kind == "filter" and one.k == main_k]
    labels = clusters.clusterings[main_k].labels
    alone = []
    for cluster in range(main_k):
        alone.append(len(masks))
        masks.append(labels == cluster)
        masked.append(Configuration("isolate", main_k, cluster, closed=int((labels != cluster).sum())))
    made: list[Configuration] = []
    if controls:
        for cluster in range(main_k) if spec.controls else ():
            for draw, (mask, shared) in enumerate(_random_sets(setting, clusters, labels == cluster)):
                masks.append(~mask)
                masked.append(Configuration("random", main_k, cluster, draw, closed=int(mask.sum()), shared=shared))
        made = [
            *(Configuration("blurred", main_k, cluster) for cluster in range(main_k)),
            Configuration("ranking"),
        ]
    return Plan(np.stack(masks), tuple(masked), tuple(made), tuple(main), tuple(alone))


def _random_sets(
    setting: Setting, clusters: LayerClusters, cluster: Bool[np.ndarray, "u"]
) -> list[tuple[Bool[np.ndarray, "u"], int]]:
    """Sets of as many units as a cluster has, from outside it as far as these suffice."""
    name, spec = clusters.layer.name, setting.spec
    size = min(spec.n_random or int(cluster.sum()), clusters.layer.units)
    rng = setting.run.generator("clusters", "random", name, str(np.flatnonzero(cluster).tolist()))
    sets = matched_sets(
        {name: size}, {name: clusters.layer.units}, draws=spec.controls, rng=rng, avoid={name: cluster}
    ).masks[name]
    return [(mask, int((mask & cluster).sum())) for mask in sets]
