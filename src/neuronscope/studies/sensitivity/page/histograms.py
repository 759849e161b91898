"""How all activations of each layer are distributed: total variance, indices, effects."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from neuronscope.studies.sensitivity.page.view import View
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series

_BINS = 50
_RARE = 0.01  # of the activations of the layer with the smallest variances lie below the axis
_LINES = 6  # layers in one chart
_VARIANCES = {"variance": "total variance, Sobol rows", "shapley_raw": "total variance, Shapley draws"}
_SHARES = {
    "first": "first-order index",
    "total": "total index",
    "second": "second-order index",
    "shapley": "Shapley effect",
}
_RANGES = {"first": (-0.25, 1.0), "total": (0.0, 1.25), "second": (-0.5, 0.5), "shapley": (-0.25, 1.0)}
"""Of the axes; what lies beyond is counted in the outermost bars."""


def histograms(view: View) -> Iterator[Block]:
    """A chart for each quantity, a line for each layer."""
    layers = _chosen(view)
    charts = [chart for name, title in _VARIANCES.items() if (chart := _variance(view, layers, name, title))]
    charts += [chart for name, title in _SHARES.items() if (chart := _shares(view, layers, name, title))]
    if not charts:
        return
    yield Section(
        "Distributions",
        "Of all activations of a layer that change, all factors or pairs together. Values beyond an axis are in its "
        "outermost bars. Indices and effects below 0 are errors of estimation: by as much those above 0 err too.",
    )
    text = f"{len(layers)} of {len(view.layers)} layers." if len(layers) < len(view.layers) else ""
    yield Panel("distributions", "Activations of each layer", tuple(charts), columns=2, text=text)


def _chosen(view: View) -> tuple[str, ...]:
    """Layers whose lines can still be told apart in one chart."""
    shown = view.shown_layers
    if len(shown) <= _LINES:
        return shown
    return tuple(shown[place] for place in np.unique(np.linspace(0, len(shown) - 1, _LINES).round().astype(int)))


def _variance(view: View, layers: tuple[str, ...], name: str, title: str) -> Chart | None:
    """On a logarithmic scale, as variances of probabilities and of early layers lie many powers of ten apart."""
    found = {layer: maps for layer in layers if (maps := view.maps(layer, name)) is not None}
    if not found:
        return None
    # The sum over players is the variance, as their effects divide it.
    divided = name == "shapley_raw"
    values = {layer: (maps.sum(axis=-1) if divided else maps).ravel() for layer, maps in found.items()}
    above = [one[(one > 0) & np.isfinite(one)] for one in values.values()]
    above = [one for one in above if one.size]
    if not above:
        return None
    ends = tuple(
        float(np.log10(edge)) for edge in (min(np.quantile(one, _RARE) for one in above), max(map(np.max, above)))
    )
    shown = {layer: np.log10(np.maximum(one, 10.0 ** ends[0])) for layer, one in values.items()}
    return _histogram(name, title, shown, (ends[0], max(ends[1], ends[0] + 1)), Axis("log10 of the variance"))


def _shares(view: View, layers: tuple[str, ...], name: str, title: str) -> Chart | None:
    found = {layer: maps.ravel() for layer in layers if (maps := view.maps(layer, name)) is not None}
    return _histogram(name, title, found, _RANGES[name], Axis(title)) if found else None


def _histogram(
    name: str, title: str, values: dict[str, Float[np.ndarray, "m"]], ends: tuple[float, float], axis: Axis
) -> Chart:
    edges = np.linspace(*ends, _BINS + 1)
    series = []
    for layer, own in values.items():
        known = own[np.isfinite(own)]
        counts, _ = np.histogram(np.clip(known, *ends), edges)
        series.append(Series(layer, counts / max(len(known), 1), edges))
    return Chart(name, title, "histogram", tuple(series), axis, Axis("share of activations"))
