"""What the study found in a few numbers, what to beware of, and units of which less can be said than of others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from neuronscope.maths.resampling import wilson_interval
from neuronscope.studies.concepts.page.view import View, listed, median
from neuronscope.studies.concepts.spec import LEGACY
from neuronscope.views import Block, Stat, Table, Text

_FEW_IMAGES = 100  # one image then holds over a hundredth of the pixels that a score is made of
_WORDS = {"or": "OR", "and": "AND", "and-not": "AND NOT", "with": "WITH", "close": "CLOSE"}
_MEANT = {
    "with": "A WITH B: the parts of A in images that have B too",
    "close": "A CLOSE B: the parts of A and of B that lie near each other; A CLOSE TO B: the parts of A near to B",
}


def overview(view: View) -> Iterator[Block]:
    """Headline numbers, and what a score is."""
    units, explained = len(view.formulas), int(view.explained.sum())
    layers = len(view.layer_names)
    yield Stat(
        "units explained", f"{explained:,} of {units:,}", note=f"in {layers} {'layer' if layers == 1 else 'layers'}"
    )
    dead = int(view.dead.sum())
    yield Stat("dead units", dead, note="never above their threshold on the images searched" if dead else "none")
    yield from _fit(view)
    yield from _certainty(view)
    yield from _material(view)
    yield Text(_explanation(view))


def _fit(view: View) -> Iterator[Block]:
    """How well formulas fit."""
    held = view.known("held_out")
    if held.size:
        low, high = np.quantile(held, [0.25, 0.75])
        note = f"half of them from {low:.3f} to {high:.3f}"
        ends = [view.find(f"held_out_{end}") for end in ("low", "high")]
        if ends[0] is not None and ends[1] is not None:
            half = median((ends[1] - ends[0])[view.explained] / 2)
            note += f"; uncertain by ±{half:.3f} in the median unit ({view.level:.0%} interval over images)"
        yield Stat("median held-out IoU", round(float(np.median(held)), 4), note=note)
    for name, label, meaning in (
        ("auroc", "median AUROC", "0.5 is chance, 1 perfect"),
        ("correlation", "median correlation", "of activation and formula, 0 is none"),
    ):
        values = view.known(name)
        if values.size:
            low, high = np.quantile(values, [0.25, 0.75])
            yield Stat(
                label,
                round(float(np.median(values)), 3),
                note=f"{meaning}; half of the units from {low:.2f} to {high:.2f}",
            )


def _certainty(view: View) -> Iterator[Block]:
    """How sure formulas are, and how many are said twice."""
    tested, told = int(view.tested.sum()), int(view.told.sum())
    if tested:
        low, high = (
            100 * float(end[0]) for end in wilson_interval(np.array([told]), np.array([tested]), level=view.level)
        )
        note = f"{view.bound}; {told:,} of {tested:,} units"
        yield Stat("better than chance", 100 * told / tested, "%", low, high, note)
    optimal = view.get("optimal")[view.explained]
    asked = int((optimal >= 0).sum())
    if asked:
        proved = int((optimal == 1).sum())
        note = (
            f"{proved:,} of {asked:,}; no formula of up to {view.proved_length} labels is better on the images searched"
        )
        yield Stat("proved optimal", 100 * proved / asked, "%", note=note)
    else:
        yield Stat("proved optimal", "not asked", note="formulas are the best that the beam met")
    shared = view.find("shared_by")
    if shared is not None and view.explained.any():
        count, explained = int((shared[view.explained] > 1).sum()), int(view.explained.sum())
        note = f"{count:,} of {explained:,} units: another unit of the layer has a formula that says the same"
        yield Stat("share their formula", 100 * count / explained, "%", note=note)


def _material(view: View) -> Iterator[Block]:
    """What the search was made on."""
    numbers = view.concepts
    searched, reported = int(numbers["images_searched"]), int(numbers["images_reported"])
    yield Stat("images", f"{searched:,} / {reported:,}", note="searched / scored (held out)")
    if "signatures" in numbers:
        yield Stat(
            "label sets",
            int(numbers["signatures"]),
            note=f"distinct combinations of {numbers.sizes['concept']:,} concepts at a pixel, all that a search needs",
        )
    if "resolution" in view.spec:
        names = [str(one) for one in view.option("operators", ())]
        words = [_WORDS.get(one, one) for one in names] + ["CLOSE TO"] * ("close" in names)
        yield Stat(
            "resolution",
            "7 x 7 cells" if view.cells else "pixels",
            note=f"formulas join concepts by {listed(words)}" if words else "",
        )


def _explanation(view: View) -> str:
    share, what = float(view.spec["quantile"]), view.places_word
    if view.has("same-images"):
        return (
            f"A unit is active where its activation is above a threshold that {share:.2%} of its activations exceed. "
            f"IoU: {what} in both over {what} in either, 0 to 1."
        )
    enlarged = "brought to 7 x 7 cells" if view.cells else "enlarged to the masks"
    text = (
        f"A unit is active where its activation, {enlarged}, is above a threshold that {share:.2%} of its "
        f"activations exceed. The search looks for the formula of up to {view.spec['length']} concepts whose {what} "
        f"agree best with that ({view.score}). IoU: {what} in both over {what} in either, 0 to 1. Held-out scores are "
        "measured on images that neither threshold nor formula was chosen on."
    )
    if view.find("auroc") is not None:
        text += (
            " AUROC and correlation need no threshold: the chance that a position with the formula is more active than "
            "one without, and the correlation of activation and formula."
        )
    meant = [meaning for name, meaning in _MEANT.items() if name in view.option("operators", ())]
    return text + (f" {'. '.join(meant)}." if meant else "")


def warnings(view: View) -> Iterator[Block]:
    """What makes the numbers less than they seem."""
    for name in view.spec["legacy"]:
        yield Text(f"Deviation {name} is in force: {LEGACY.get(name, 'not known to this version')}.", tone="warning")
    if view.has("same-images"):
        yield Text(
            "Formulas were searched and scored on the same images: what is called held-out below is not, and scores "
            "are too good.",
            tone="warning",
        )
    if view.option("probe", "all") == "firing":
        yield Text(
            "Easy mode (--probe firing): each unit was searched and scored only on the images where it is active. "
            "Scores are higher than on all images, and do not compare with them.",
            tone="warning",
        )
    if view.option("thresholds", "static") == "dynamic":
        yield Text(
            "The search was free to move each unit's threshold (--thresholds dynamic): what counts as active was "
            "chosen to fit the formula. Held-out scores and chance levels use the threshold that was found.",
            tone="note",
        )
    images = min(int(view.concepts[f"images_{part}"]) for part in ("searched", "reported"))
    if images < _FEW_IMAGES:
        yield Text(
            f"Few images ({images} at least to search or to score on): formulas fit single images, and held-out scores "
            "vary from sample to sample.",
            tone="warning",
        )
    if not view.draws:
        yield Text(
            "No chance level was asked for (--draws 0): scores may be what any mask of the same area would reach.",
            tone="warning",
        )
    if view.provenance.skipped:
        yield Text(f"{len(view.provenance.skipped)} images could not be read and were left out.", tone="warning")


def exceptions(view: View) -> Iterator[Block]:
    """Units of which less can be said than of others."""
    if view.broken.any():
        yield Text(
            f"Some units gave NaN or infinite activations and are not explained: {view.those(view.broken)}.",
            tone="warning",
        )
    if view.dead.any():
        yield Text(
            "Dead units have no formula. Nothing exceeds their threshold, as they are 0 or constant, or at their "
            f"highest value in more than {float(view.spec['quantile']):.2%} of the positions: {view.those(view.dead)}.",
            tone="note",
        )
    blank = ~(view.explained | view.dead | view.broken)
    if blank.any():
        yield Text(f"No formula has anything in common with the activity of {view.those(blank)}.", tone="note")
    yield from _untold(view)
    unseen = view.explained & ~np.isfinite(view.get("held_out"))
    if unseen.any():
        yield Text(f"Neither active nor described on held-out images: {view.those(unseen)}.", tone="note")
    silent = view.explained & ~unseen & (view.get("active_share") == 0)
    if silent.any():
        yield Text(
            f"Active on images searched, but on no held-out image, so that no formula can fit: {view.those(silent)}.",
            tone="note",
        )
    gap = view.get("gap")
    left = view.explained & (view.get("optimal") == 0)
    if left.any():
        yield Text(
            f"{int(left.sum()):,} formulas are not proved optimal: a better one could add at most "
            f"{np.nanmax(gap[left]):.3g} ({view.score}).",
            tone="note",
        )


def _untold(view: View) -> Iterator[Block]:
    """Formulas that may be chance."""
    tested, untold = int(view.tested.sum()), view.tested & ~view.told
    count = int(untold.sum())
    if not count:
        return
    meaning = "on held-out images they fit no better, as far as can be told, than the same masks laid over other images"
    if count < tested:
        yield Text(
            f"{count:,} of {tested:,} formulas are not distinguishable from chance: {meaning}: {view.those(untold)}.",
            tone="note",
        )
        return
    yield Text(f"None of the {tested:,} formulas is distinguishable from chance: {meaning}.", tone="warning")


def layers(view: View) -> Iterator[Block]:
    """The layers side by side."""
    if len(view.layer_names) < 2:  # noqa: PLR2004 nothing to compare
        return
    rows = []
    for layer in view.layer_names:
        own = view.layer_of == layer
        formulas = [view.formulas[int(unit)] for unit in np.flatnonzero(own & view.explained)]
        rows.append(
            {
                "layer": layer,
                "units": int(own.sum()),
                "explained": len(formulas),
                "dead": int((own & view.dead).sum()),
                "better than chance": int((own & view.told).sum()),
                "median IoU": median(view.get("held_out")[own & view.explained]),
                "median null": median(view.get("null")[own & view.explained]),
                "different formulas": len(set(formulas)),
            }
        )
    yield Table(
        "layers",
        "Layers in calling order",
        pd.DataFrame(rows),
        help={
            "explained": "units with a formula",
            "dead": "units never above their threshold on the images searched",
            "better than chance": f"units with {view.bound}",
            "median IoU": "of the explained units on held-out images, 0 to 1",
            "median null": "the same with masks laid over other images",
            "different formulas": "of the explained units; fewer than these where units share one",
        },
        formats={"median IoU": ".4f", "median null": ".4f"},
    )
