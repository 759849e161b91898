"""Explain units: the beam, the proof, and longer formulas from what was proved."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from neuronscope.maths.formula_search.beam import beam_search
from neuronscope.maths.formula_search.found import Explanation, Found, choice
from neuronscope.maths.formula_search.optimum import certified
from neuronscope.maths.formula_search.spec import CERTIFIED_LENGTH, SearchSpec
from neuronscope.maths.formula_search.tables import SearchTables
from neuronscope.maths.formulas import Formula
from neuronscope.maths.signatures import UnitCounts


def explain(tables: SearchTables, counts: UnitCounts, spec: SearchSpec, *, seeds: Sequence[Formula] = ()) -> Found:
    """The best formulas of a unit for every length up to `spec.length`.

    With `certify="optimum"` the beam's result starts the proof for up to three labels, and longer formulas are grown
    from the proved optimum, also by pairs of labels.

    Args:
        tables: the labelled image set.
        counts: the unit.
        spec: settings.
        seeds: Boolean formulas known before, of an earlier search for example: they compete from their length on.

    Raises:
        InputError: the counts are of another image set.

    Example:
        >>> import numpy as np
        >>> from neuronscope.maths.formula_search import prepare
        >>> from neuronscope.maths.formulas import text
        >>> from neuronscope.maths.signatures import assemble, image_signatures, mask_counts
        >>> labels = np.array([[[1, 1, 1, 2], [2, 0, 0, 0]], [[0, 3, 0, 0], [3, 0, 3, 0]]])
        >>> images = assemble([image_signatures(labels)])
        >>> unit = mask_counts(images, np.array([[[1, 0, 1, 1], [0, 0, 0, 0]]], dtype=bool))
        >>> found = explain(prepare(images), unit, SearchSpec(certify="optimum"))
        >>> [text(one.formula, {1: "sky", 2: "sea", 3: "blue"}) for one in found.best]
        ['sky', 'sky AND NOT blue', '(sky OR sea) AND NOT blue']
        >>> found.choice.score, found.certificate.optimal
        (1.0, True)
    """
    if spec.certify == "none":
        return beam_search(tables, counts, spec, seeds=seeds)
    started = time.monotonic()
    short = replace(spec, length=min(spec.length, CERTIFIED_LENGTH), terms="pairs", certify="none")
    start = beam_search(tables, counts, short, seeds=seeds)
    left = None if spec.seconds is None else max(0.0, spec.seconds - (time.monotonic() - started))
    proved, certificate = certified(tables, counts, short, start=start.best, seconds=left)
    known = (*seeds, *(one.formula for one in proved if one is not None))
    found = beam_search(tables, counts, replace(short, length=spec.length), seeds=known)
    best = tuple(_better(*pair) for pair in zip(found.best, [*proved, *[None] * spec.length], strict=False))
    return Found(best, found.top, choice(best, minimum_gain=spec.minimum_gain), certificate, found.beams)


def explain_all(tables: SearchTables, units: Iterable[UnitCounts], spec: SearchSpec) -> list[Found]:
    """`explain` for each unit, in order: what processes share out."""
    return [explain(tables, counts, spec) for counts in units]


def _better(found: Explanation | None, proved: Explanation | None) -> Explanation | None:
    """The proved one where they tie, so that a certificate is about the formula that is reported."""
    if found is None or proved is None:
        return found or proved
    return found if found.objective > proved.objective else proved
