"""What the study found in a few numbers, and what stands between the reader and believing them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from neuronscope.maths.resampling import wilson_interval
from neuronscope.studies.importance.page.view import View, named, number, picked, texts
from neuronscope.studies.importance.spec import LEGACY, RULES
from neuronscope.views import Block, Stat, Table, Text

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
    for name, title, note in (
        ("drop_own_q", "classes hit", "lose more without their sub-network than without random units"),
        ("drop_selective_q", "hit selectively", "lose more than the other classes do, compared with random units"),
    ):
        q = view.get(name)
        if not view.unheld(q):
            yield Stat(title, f"{int(view.told(q).sum())} of {len(q)}", note=f"{note} ({view.bound})")
    sizes = view.get("size")
    yield Text(
        f"A class's sub-network is the {view.spec['budget']:.0%} of each layer's units that a rule scores highest for "
        f"the class ({sizes.min():,.0f}{f' to {sizes.max():,.0f}' if sizes.max() > sizes.min() else ''} units). "
        f"{_samples(view)} by silencing units ({_silence(view)}). Random sets take as many units from "
        f"every layer. Intervals cover {view.level:.0%}."
    )
    yield from _warnings(view)
    yield from _layers(view)


def _samples(view: View) -> str:
    """Which images chose and which report."""
    if view.has("same-images"):
        return "It is chosen on the images that everything below is measured on,"
    known = view.network is not None and "selection_images" in view.network
    count = f"{int(view.network['selection_images']):,} " if known and view.network is not None else ""
    return f"It is chosen on {count}selection images; everything below is measured on other images, the report images,"


def _silence(view: View) -> str:
    """What silenced units give."""
    said = {
        "zero": "set to 0",
        "mean": "set to their mean",
        "other-mean": "set to their mean over the other classes",
        "resample": "given their values for another image",
        "constant": f"set to {view.spec.get('constant', 1.0):g}",
    }
    return said.get(view.spec["silence"], str(view.spec["silence"]))


def _layers(view: View) -> Iterator[Block]:
    """Where units are silenced, and which layers are tied by skip connections."""
    table = view.network
    if table is None:
        return
    names = texts(table["layer_name"])
    tied = table["coupled"].to_numpy()
    columns: dict[str, object] = {
        "layer": names,
        "kind": texts(table["kind"]),
        "units": table["units"].to_numpy(),
        "silenced at": texts(table["silenced_at"]),
    }
    if (tied >= 0).any():
        columns["tied"] = [f"group {one}" if one >= 0 else "" for one in tied]
    yield Table(
        "layers",
        "Layers of the study",
        pd.DataFrame(columns),
        help={
            "silenced at": "layer at which a silenced unit is really silent: after normalisation and activation",
            "tied": "layers of a group are added by skip connections: a channel silenced in one may live on in another",
        },
    )
    if (tied >= 0).any():
        chosen = "the same channels in all" if view.spec.get("coupled") == "joint" else "each by itself"
        yield Text(
            f"Skip connections add the outputs of {named(picked(names, tied >= 0))}. Units are chosen {chosen}; a "
            "channel that is silent in one layer only is still fed by the others.",
            tone="note",
        )
    residual = float(table["path_residual"]) if "path_residual" in table else np.nan
    if np.isfinite(residual):
        yield Text(
            f"Conductances of the first layer miss {number(residual, '.2%')} of the change of the logit (median over "
            f"images) with {view.spec['path_steps']} steps: more steps make them more exact."
        )


def _warnings(view: View) -> Iterator[Block]:
    for name in view.spec["legacy"]:
        yield Text(f"Deviation {name} is in force: {LEGACY.get(name, 'not known to this version')}.", tone="warning")
    if view.unheld(view.get("drop_own_q")):
        yield Text(
            "No random sets were tried (--controls 0): what follows may be what any units of the same number would do.",
            tone="warning",
        )
    images = view.sub["images"].to_numpy()
    few = images < _FEW_IMAGES
    if few.any():
        yield Text(
            f"Few report images ({images.min()} at least) of {view.those(few)}: intervals are wide, and "
            "what is not found may still be there.",
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
