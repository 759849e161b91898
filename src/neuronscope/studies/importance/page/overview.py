"""What the study found in a few numbers, and what stands between the reader and believing them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neuronscope.maths.resampling import wilson_interval
from neuronscope.studies.importance.page.view import View
from neuronscope.studies.importance.spec import LEGACY, RULES
from neuronscope.views import Block, Stat, Text

_FEW_IMAGES = 30  # of a class: an accuracy of 90 % then has an interval of over 20 points


def overview(view: View) -> Iterator[Block]:
    """Headline numbers, the main finding in a sentence, and warnings."""
    images = int(view.sub["report_images"])
    share = float(view.sub["intact_full"])
    low, high = wilson_interval(np.array([round(share * images)]), np.array([images]), level=view.level)
    yield Stat(
        "accuracy, intact", 100 * share, "%", 100 * float(low[0]), 100 * float(high[0]), f"{images:,} report images"
    )
    yield Stat("classes", len(view.classes))
    yield Stat("units", len(view.layer_of), note=f"in {len(view.layer_names)} layers")
    yield Stat("first rule", view.first, note=RULES.get(view.first, ""))
    hit, own = view.told(view.get("drop_own_q")), view.told(view.get("drop_selective_q"))
    yield Stat(
        "classes hit",
        f"{int(hit.sum())} of {len(hit)}",
        note=f"lose more without their sub-network than without random units ({view.bound})",
    )
    yield Stat(
        "hit selectively",
        f"{int(own.sum())} of {len(own)}",
        note=f"lose more than the other classes do, compared with random units ({view.bound})",
    )
    sizes = view.get("size")
    yield Text(
        f"A class's sub-network is the {view.spec['budget']:.0%} of each layer's units that a rule scores highest for "
        f"the class ({sizes.min():,.0f}{f' to {sizes.max():,.0f}' if sizes.max() > sizes.min() else ''} units). It is "
        "chosen on selection images; everything below is measured on other images, the report images, by silencing "
        f"units ({_SILENCE.get(view.spec['silence'], view.spec['silence'])}). Random sets take as many units from "
        f"every layer. Intervals cover {view.level:.0%}."
    )
    yield from _warnings(view)


_SILENCE = {
    "zero": "set to 0",
    "mean": "set to their mean",
    "other-mean": "set to their mean over the other classes",
    "resample": "given another image's values",
}


def _warnings(view: View) -> Iterator[Block]:
    for name in view.spec["legacy"]:
        yield Text(f"Deviation {name} is in force: {LEGACY.get(name, 'not known to this version')}.", tone="warning")
    images = view.sub["images"].to_numpy()
    few = images < _FEW_IMAGES
    if few.any():
        yield Text(
            f"Few report images ({images.min()} at least) of {view.those(few)}: intervals are wide, and "
            " what is not found may still be there.",
            tone="warning",
        )
    weak = view.sub["intact"].to_numpy() < 0.5  # noqa: PLR2004 more often wrong than right
    if weak.any():
        yield Text(
            f"The intact network is more often wrong than right on {view.those(weak)}: silencing can "
            "take little away from such a class.",
            tone="warning",
        )
    broken = view.provenance.nonfinite
    if broken:
        names = "; ".join(f"{layer}: {len(units)} units" for layer, units in broken.items())
        yield Text(f"Some units gave NaN or infinite activations and are never chosen: {names}.", tone="warning")
    if view.provenance.skipped:
        yield Text(f"{len(view.provenance.skipped)} images could not be read and were left out.", tone="warning")
