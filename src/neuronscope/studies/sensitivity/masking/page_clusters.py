"""The part of the page on analysis B of the original: which responses resemble each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int

from neuronscope.studies.sensitivity.page.view import texts
from neuronscope.views import Axis, Block, Chart, Network, NetworkColumn, NetworkLinks, Section, Series, Table, Text

_LEAVES = 90  # of a tree that is drawn


def cluster_blocks(groups: Mapping[str, xr.Dataset]) -> Iterator[Block]:
    """Of each set the tree, the distances in its order, and its joins; nothing without augmentations.

    Args:
        groups: of the result: `clusters`, or `clusters-1` and so on.
    """
    found = [name for name in groups if name.partition("-")[0] == "clusters"]
    if found:
        yield Section(
            "Which responses resemble each other?",
            "Average linkage of sqrt(1 - |Spearman's correlation|); a leaf is a factor of masks on an input. Support: "
            "the share of trees of redrawn images that have the same cluster; joins with little of it may be noise.",
        )
    for name in sorted(found):
        number = name.partition("-")[2]
        yield from _set(groups[name], f"-{number}" if number else "", f", set {number}" if number else "")


def _set(table: xr.Dataset, ending: str, said: str) -> Iterator[Block]:
    leaves = [
        f"{variable} on {name}"
        for name, variable in zip(texts(table["leaf_input"]), texts(table["leaf_variable"]), strict=True)
    ]
    order, linkage, support = (table[name].to_numpy() for name in ("order", "linkage", "support"))
    known = np.isfinite(table["correlation"].to_numpy()[~np.eye(len(leaves), dtype=bool)])
    if not known.any():
        yield Text(
            f"Every response is the same under all masks{said}: nothing resembles anything. Take more images, or a "
            "network that is right more often.",
            tone="warning",
        )
        return
    ticks = tuple(leaves[place] for place in order)
    yield Chart(
        f"distances{ending}",
        f"Distances of responses, in the order of the tree{said}",
        "heatmap",
        (Series("distance", table["distance"].to_numpy()[np.ix_(order, order)]),),
        Axis("response", ticks=ticks),
        Axis("response", ticks=ticks),
        value=Axis("distance", limits=(0.0, 1.0)),
    )
    if len(leaves) <= _LEAVES:
        yield _tree(leaves, linkage, support, ending, said)
    members = _members(linkage, leaves)
    yield Table(
        f"joins{ending}",
        f"Joins of the tree{said}",
        pd.DataFrame(
            {
                "height": linkage[:, 2],
                "responses": linkage[:, 3].astype(int),
                "support": support,
                "one factor": [len({name.split(" on ")[0] for name in own}) == 1 for own in members],
                "members": ["; ".join(own) for own in members],
            }
        ),
        formats={"height": ".3f", "support": ".2f"},
        help={
            "height": "distance at which the parts join, 0 to 1",
            "support": "share of trees of redrawn images",
            "one factor": "whether all members have the same factor of the mask",
        },
        preset="height",
    )


def _members(linkage: Float[np.ndarray, "m 4"], leaves: list[str]) -> list[list[str]]:
    below: list[list[str]] = [[leaf] for leaf in leaves]
    for left, right in linkage[:, :2].astype(int):
        below.append([*below[left], *below[right]])
    return below[len(leaves) :]


def _tree(
    leaves: list[str], linkage: Float[np.ndarray, "m 4"], support: Float[np.ndarray, "m"], ending: str, said: str
) -> Network:
    """The tree from its root on the left; joins are named by their support, and have their height as value."""
    count = len(leaves)
    columns: list[list[int]] = [[count + len(linkage) - 1]]
    links: list[NetworkLinks] = []
    while any(node >= count for node in columns[-1]):
        parts = [
            (place, int(one))
            for place, node in enumerate(columns[-1])
            if node >= count
            for one in linkage[node - count, :2]
        ]
        start: Int[np.ndarray, "_"] = np.array([place for place, _ in parts], dtype=np.int64)
        links.append(NetworkLinks(start, np.arange(len(parts)), np.ones(len(parts))))
        columns.append([one for _, one in parts])
    return Network(
        f"tree{ending}",
        f"Tree of responses{said}",
        tuple(
            NetworkColumn(
                f"join {depth + 1}",
                tuple(leaves[node] if node < count else f"{support[node - count]:.0%}" for node in nodes),
                np.array([np.nan if node < count else min(float(linkage[node - count, 2]), 1.0) for node in nodes]),
            )
            for depth, nodes in enumerate(columns)
        ),
        tuple(links),
        text="From all responses on the left to single ones. Of each join its support, and below it its height.",
        value=Axis("height"),
        weight=Axis("part of"),
        form="tree",
    )
