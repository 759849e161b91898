"""The part of the page on analysis B of the original: which responses resemble each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from neuronscope.maths.masking_analysis import CUT
from neuronscope.studies.sensitivity.page.view import texts
from neuronscope.views import Axis, Block, Chart, Section, Series, Table, Text

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
        yield _tree(leaves, table, ending, said)
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


def _tree(leaves: list[str], table: xr.Dataset, ending: str, said: str) -> Chart:
    """The tree, its root at the right; joins within the published distance of flat clusters are drawn apart."""
    linkage, order = table["linkage"].to_numpy(), table["order"].to_numpy()
    count = len(leaves)
    place, height = np.zeros(count + len(linkage)), np.zeros(count + len(linkage))
    place[order] = np.arange(count)
    brackets = np.zeros((len(linkage), 4))
    for join, (one, other, distance, _) in enumerate(linkage):
        parts = [int(one), int(other)]
        brackets[join] = np.stack([place[parts], height[parts]], axis=1).ravel()
        place[count + join], height[count + join] = place[parts].mean(), distance
    near = linkage[:, 2] <= CUT
    return Chart(
        f"tree{ending}",
        f"Tree of responses{said}",
        "dendrogram",
        tuple(
            Series(name, brackets[chosen], linkage[chosen, 2])
            for name, chosen in ((f"beyond {CUT}", ~near), (f"up to {CUT}", near))
            if chosen.any()
        ),
        Axis("distance sqrt(1 - |rho|)", limits=(0.0, max(float(linkage[:, 2].max()) * 1.04, 0.05))),
        Axis("response (factor of the mask on input)", ticks=tuple(leaves[leaf] for leaf in order)),
        text=f"Joins up to {CUT} are the flat clusters of the paper. How often redrawn images have the same clusters "
        "is in the table of joins: those with little support may be noise.",
    )
