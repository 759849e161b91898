"""The part of the page that stands beside a file of predictions of the original."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import xarray as xr

from neuronscope.studies.sensitivity.page.view import texts
from neuronscope.views import Axis, Block, Chart, Section, Series, Table


def comparison_blocks(groups: Mapping[str, xr.Dataset], *, level: float) -> Iterator[Block]:
    """Accuracies and correlations of both; nothing where none was compared with.

    Args:
        groups: of the result.
        level: coverage of intervals.
    """
    table = groups.get("comparison")
    if table is None:
        return
    numbers = ("accuracy", "accuracy_other", "difference", "difference_low", "difference_high")
    frame = pd.DataFrame(
        {
            "input": texts(table["compared_input"]),
            "mask": texts(table["compared_mask"]),
            **{name: table[name].to_numpy() for name in numbers},
        }
    )
    beyond = (frame["difference_low"] > 0) | (frame["difference_high"] < 0)
    yield Section(
        "Compared with the original's predictions",
        f"Top-1 accuracies of this result and of {table.attrs['file']}, input by input and mask by mask. Of "
        f"{len(frame):,} differences {int(beyond.sum()):,} have an interval without 0, where "
        f"{(1 - level) * len(frame):,.0f} would by chance.",
    )
    yield Chart(
        "comparison",
        "Accuracy here and there",
        "scatter",
        (Series("masks", frame["accuracy"].to_numpy(), frame["accuracy_other"].to_numpy()),),
        Axis("accuracy there", limits=(0.0, 1.0)),
        Axis("accuracy here", limits=(0.0, 1.0)),
    )
    yield Table(
        "comparison",
        "Accuracy here and there",
        frame,
        formats=dict.fromkeys(numbers, ".3f"),
        help={
            "accuracy_other": "of the file",
            "difference": "here minus there",
            "difference_low": f"lower {level:.0%} limit, the images of both being drawn apart (Newcombe 1998)",
        },
        preset="difference",
    )
    yield from _correlations(groups)


def _correlations(groups: Mapping[str, xr.Dataset]) -> Iterator[Block]:
    theirs, ours = groups.get("comparison_correlations"), groups.get("correlations")
    if theirs is None or ours is None:
        return
    rows, columns = texts(theirs["augmentation_name"]), texts(theirs["variable_name"])
    own_rows, own_columns = texts(ours["augmentation_name"]), texts(ours["variable_name"])
    shape = (len(rows), len(columns))
    here = {
        end: ours[f"correlation{end}"].to_numpy()[
            np.ix_([own_rows.index(one) for one in rows], [own_columns.index(one) for one in columns])
        ]
        for end in ("", "_low", "_high")
    }
    yield Table(
        "comparison-correlations",
        "Correlations of responses here and there",
        pd.DataFrame(
            {
                "input": np.repeat(np.array(rows, dtype=object), shape[1]),
                "mask": np.tile(np.array(columns, dtype=object), shape[0]),
                "here": here[""].ravel(),
                "here low": here["_low"].ravel(),
                "here high": here["_high"].ravel(),
                "there": theirs["correlation"].to_numpy().ravel(),
                "there low": theirs["correlation_low"].to_numpy().ravel(),
                "there high": theirs["correlation_high"].to_numpy().ravel(),
            }
        ).dropna(how="all", subset=["here", "there"]),
        formats=dict.fromkeys(("here", "here low", "here high", "there", "there low", "there high"), ".3f"),
        help={"there": "of the file, by the same computation", "here low": "limits are over images"},
        preset="there",
    )
