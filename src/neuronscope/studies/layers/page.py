"""The page of the `layers` study: a result's arrays as blocks, with nothing computed that the result does not hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from neuronscope.maths.resampling import wilson_interval
from neuronscope.result import Result
from neuronscope.units import UnitSet
from neuronscope.views import Axis, Block, Chart, Gallery, Page, Picture, Section, Series, Stat, Strip, Table, Text

_MANY_CLASSES = 30  # more would make labels unreadable
_BAR_LAYERS = 8  # layers with a chart of their own; deeper networks get one chart for all
_SMALL = 40  # pixels: images up to this side are magnified
_WIDE = 112  # pixels: larger images are thinned to about this side beside their maps
_MAP_EXAMPLES = 3  # examples whose single maps are shown, channel by channel


def layers_page(result: Result) -> Page:
    """Everything the study found, in reading order: overview, layers, filters, maps, decisions, units."""
    view = _View(result)
    blocks: list[Block] = [
        *_overview(view),
        *_layers(view),
        *_filters(view),
        *_maps(view),
        *_decisions(view),
        *_selectivity(view),
        *_preferences(view),
        *_galleries(view),
        *_importance(view),
    ]
    origin = result.provenance
    summary = f"{origin.subject} on {origin.images:,} images of {origin.data}: what every layer and unit responds to."
    return Page("Layers and units", summary, tuple(blocks))


class _View:
    """A result's groups under short names."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.units = result.tree["units"].to_dataset()
        self.layers = result.tree["layers"].to_dataset()
        self.decisions = result.tree["decisions"].to_dataset()
        self.examples = result.tree["examples"].to_dataset()
        self.spec = result.provenance.spec
        self.classes = [str(name) for name in self.units["class_name"].to_numpy()]
        self.layer_names = [str(name) for name in self.layers["layer_name"].to_numpy()]
        self.layer_of = self.units["layer"].to_numpy().astype(str)
        self.index_of = self.units["index"].to_numpy()
        labels = self.decisions["label"].to_numpy()
        self.seen_classes = [int(c) for c in np.unique(labels[labels >= 0])]

    def __contains__(self, name: str) -> bool:
        return name in self.units

    def get(self, name: str) -> np.ndarray:
        return self.units[name].to_numpy()

    def of_layer(self, layer: str) -> np.ndarray:
        return np.flatnonzero(self.layer_of == layer)

    def unit_name(self, number: int) -> str:
        return f"{self.layer_of[number]}:{self.index_of[number]}"

    def class_name(self, number: int) -> str:
        return self.classes[number] if 0 <= number < len(self.classes) else "none"

    @property
    def shown_classes(self) -> list[int]:
        return self.seen_classes[:_MANY_CLASSES]

    @property
    def level(self) -> float:
        return float(self.spec["level"])

    def distinguishable(self) -> np.ndarray:
        """Units whose class dependence survives the false discovery rate."""
        return self.get("class_share_q") < 1 - self.level


def _overview(view: _View) -> Iterator[Block]:
    rank = view.decisions["rank_of_label"].to_numpy()
    labelled = int((rank >= 0).sum())
    for k in (1, 5):
        if labelled and len(view.classes) > 2 * k:
            right = int(((rank >= 0) & (rank < k)).sum())
            low, high = (
                100 * float(end[0])
                for end in wilson_interval(np.array([right]), np.array([labelled]), level=view.level)
            )
            yield Stat(f"top-{k} accuracy", 100 * right / labelled, "%", low, high, f"{labelled:,} images")
    dead, near = int((view.get("dead") == 1).sum()), int(view.get("near_dead").sum())
    total = len(view.layer_of)
    yield Stat("units", total, note=f"in {len(view.layer_names)} layers")
    yield Stat("dead units", dead, note="never vary on these images" if dead else "none")
    yield Stat("near-dead units", near, note="active in under 1 % of the images")
    if len(view.seen_classes) > 1:
        known = np.isfinite(view.get("class_share_q"))
        told = int(view.distinguishable().sum())
        yield Stat(
            "selective units",
            told,
            note=f"q < {1 - view.level:.2g}; {int(known.sum()) - told} are not distinguishable from noise",
        )
    broken = view.result.provenance.nonfinite
    if broken:
        names = "; ".join(f"{layer}: {len(units)} units" for layer, units in broken.items())
        yield Text(f"Some units gave NaN or infinite activations and are nan throughout: {names}.", tone="warning")
    skipped = view.result.provenance.skipped
    if skipped:
        yield Text(f"{len(skipped)} images could not be read and were left out.", tone="warning")
    if len(view.seen_classes) < 2:  # noqa: PLR2004 selectivity compares classes
        yield Text("Fewer than two labelled classes: selectivity and preferences are undefined.", tone="warning")


def _layers(view: _View) -> Iterator[Block]:
    yield Section("Layers", "One row per layer. A unit is selective here when class explains more of it than chance.")
    table = view.layers
    frame = pd.DataFrame(
        {
            "layer": view.layer_names,
            "kind": table["kind"].to_numpy().astype(str),
            "output": table["shape"].to_numpy().astype(str),
            "units": table["units"].to_numpy(),
            "selective": table["selective"].to_numpy(),
            "dead": table["dead"].to_numpy(),
            "near-dead": table["near_dead"].to_numpy(),
            "population sparseness": table["population_sparseness"].to_numpy(),
        }
    )
    yield Table(
        "layers",
        "Layers in calling order",
        frame,
        help={
            "selective": f"units with q < {1 - view.level:.2g} (variance explained by class, permutation null)",
            "dead": "units that never vary",
            "near-dead": "units active in under 1 % of the images",
            "population sparseness": "how few units respond to an image: 0 all alike, 1 one only; nan if signed",
        },
        formats={"population sparseness": ".3f"},
    )
    classes = view.shown_classes
    if not classes:
        return
    response, low, high = (table[name].to_numpy()[:, classes] for name in ("response", "response_low", "response_high"))
    names = tuple(view.class_name(c) for c in classes)
    few = (
        f"The first {len(classes)} of {len(view.seen_classes)} classes."
        if len(classes) < len(view.seen_classes)
        else ""
    )
    note = f"Mean over the units of the layer and the images of the class; whiskers: {view.level:.0%} interval."
    if len(view.layer_names) <= _BAR_LAYERS:
        order, captions = list(range(len(classes))), note
        if "appearance-order" in view.spec["legacy"]:
            order, captions = appearance_order(view, classes), "Deviation appearance-order: the labels are wrong."
        for place, layer in enumerate(view.layer_names):
            bars = Series(layer, response[place][order], low=low[place][order], high=high[place][order])
            yield Chart(
                f"response-{layer}",
                f"Response of {layer}",
                "bar",
                (bars,),
                Axis("class", ticks=names),
                Axis("mean activation"),
                text=captions,
            )
    else:
        scale = response / np.where(
            response.max(axis=1, keepdims=True) > 0, response.max(axis=1, keepdims=True), np.nan
        )
        yield Chart(
            "layer-responses",
            "Response of every layer, relative to its strongest class",
            "heatmap",
            (Series("response", scale),),
            Axis("class", ticks=names),
            Axis("layer", ticks=tuple(view.layer_names)),
            Axis("share of the largest class mean"),
            text=f"Mean over the units of the layer and the images of the class. {few}".strip(),
        )


def _filters(view: _View) -> Iterator[Block]:
    tree = view.result.tree
    if "filters" not in tree.children:
        return
    weight = tree["filters"]["weight"].to_numpy()
    number, channels, height, width = weight.shape
    yield Section(
        "First-layer filters", f"The network's first convolution: {number} filters of {channels}x{height}x{width}."
    )
    pictures = []
    for unit, filter_ in enumerate(weight):
        colour = filter_.transpose(1, 2, 0) if channels == 3 else filter_.mean(axis=0)  # noqa: PLR2004 RGB
        pictures.append(Picture(stretch(colour), f"{unit}"))
    per_row = 8
    rows = [
        Strip(f"{first}-{min(first + per_row, number) - 1}", pictures[first : first + per_row])
        for first in range(0, number, per_row)
    ]
    yield Gallery(
        "first-layer-filters",
        "Filters of the first convolution",
        rows,
        scale=max(1, 40 // max(height, width)),
        key="each filter scaled to its own range: black lowest, white highest weight",
    )


def _maps(view: _View) -> Iterator[Block]:
    tree = view.result.tree
    if "maps" not in tree.children:
        return
    layers = [layer for layer in view.layer_names if layer in tree["maps"].children]
    frames, labels = view.examples["frame"].to_numpy(), view.examples["label"].to_numpy()
    wrong = _wrong_examples(view)
    yield Section("Feature maps", "How chosen inputs look on their way through the network.")
    strips = []
    for place in np.flatnonzero(~wrong):
        pictures = [Picture(beside_maps(frames[place]), "input")]
        for layer in layers:
            mean_map = tree[f"maps/{layer}"]["mean_map"].to_numpy()[place]
            pictures.append(
                Picture(
                    stretch(enlarge(mean_map, side=min(frames.shape[1], _WIDE))),
                    f"{layer} {'x'.join(map(str, mean_map.shape))}",
                )
            )
        strips.append(Strip(view.class_name(int(labels[place])), pictures))
    yield Gallery(
        "feature-maps-mean",
        "Mean over the units of each layer",
        strips,
        scale=scale_for(frames.shape[1]),
        key="each map scaled to its own range: black lowest, white highest",
        text="One image of each class (or the images you chose); maps are enlarged to a common size.",
    )
    for place in np.flatnonzero(~wrong)[:_MAP_EXAMPLES]:
        name = view.class_name(int(labels[place]))
        rows = []
        for layer in layers:
            maps = tree[f"maps/{layer}"]["feature_map"].to_numpy()[place]
            top = float(maps.max()) if maps.size else 0.0
            low = min(float(maps.min()), 0.0) if maps.size else 0.0
            rows.append(
                Strip(
                    layer,
                    [
                        Picture(stretch(enlarge(one, side=min(frames.shape[1], _WIDE // 2)), low=low, high=top), str(i))
                        for i, one in enumerate(maps)
                    ],
                )
            )
        yield Gallery(
            f"feature-maps-{place}",
            f"Single maps for {name} (image {int(view.examples['row'].to_numpy()[place])})",
            rows,
            scale=2 if frames.shape[1] <= _SMALL else 1,
            key="brightness is comparable within a layer: black 0 (or the lowest value), white the layer's largest",
            text=f"The first {maps.shape[0] if layers else 0} units of each layer.",
        )


def _decisions(view: _View) -> Iterator[Block]:
    yield Section(
        "Decision path", "From the input through the layers to the probabilities, for right and wrong decisions."
    )
    tree = view.result.tree
    layers = [layer for layer in view.layer_names if "maps" in tree.children and layer in tree["maps"].children]
    chosen = [layers[i] for i in np.unique(np.linspace(0, len(layers) - 1, 4).round().astype(int))] if layers else []
    frames, labels = view.examples["frame"].to_numpy(), view.examples["label"].to_numpy()
    probability = view.examples["probability"].to_numpy()
    best = probability.argmax(axis=1)
    strips = []
    wrong = (labels != best) & (labels >= 0)
    for place in np.argsort(wrong, kind="stable"):
        right = not wrong[place]
        pictures = [Picture(beside_maps(frames[place]), "input", tone="good" if right else "bad")]
        for layer in chosen:
            mean_map = tree[f"maps/{layer}"]["mean_map"].to_numpy()[place]
            pictures.append(Picture(stretch(enlarge(mean_map, side=min(frames.shape[1], _WIDE))), layer))
        top = np.argsort(-probability[place], kind="stable")[:3]
        said = "; ".join(f"{view.class_name(int(c))} {probability[place, c]:.1%}" for c in top)
        verdict = "right" if right else f"wrong, it is {view.class_name(int(labels[place]))}"
        strips.append(Strip(f"says {view.class_name(int(best[place]))}", pictures, note=f"{verdict}. {said}"))
    yield Gallery(
        "decision-path",
        "Input, mean maps, probabilities",
        strips,
        scale=scale_for(frames.shape[1]),
        key="each map scaled to its own range",
        text="Rows are labelled with the prediction; wrong decisions come last.",
    )
    columns = sorted(set(best.tolist()) | {int(c) for c in labels if c >= 0})
    row_names = tuple(
        f"{view.class_name(int(c))} (row {r})" for c, r in zip(labels, view.examples["row"].to_numpy(), strict=True)
    )
    yield Chart(
        "decision-probabilities",
        "Probabilities of the same images",
        "heatmap",
        (Series("probability", probability[:, columns]),),
        Axis("predicted class", ticks=tuple(view.class_name(c) for c in columns)),
        Axis("image", ticks=row_names),
        Axis("probability", limits=(0.0, 1.0)),
        annotate=len(columns) <= 12,  # noqa: PLR2004 more numbers do not fit
    )
    confusion = view.decisions["confusion"].to_numpy()
    if 0 < len(view.seen_classes) <= _MANY_CLASSES:
        names = tuple(view.class_name(c) for c in view.seen_classes)
        yield Chart(
            "confusion",
            "Confusion: true against predicted class",
            "heatmap",
            (Series("images", confusion[np.ix_(view.seen_classes, view.seen_classes)].astype(np.float64)),),
            Axis("predicted class", ticks=names),
            Axis("true class", ticks=names),
            Axis("images"),
            annotate=len(names) <= 15,  # noqa: PLR2004 more numbers do not fit
        )


def _selectivity(view: _View) -> Iterator[Block]:
    if "csi" not in view or len(view.seen_classes) < 2:  # noqa: PLR2004 selectivity compares classes
        return
    yield Section(
        "Selectivity",
        "Every index that picks the best of many classes is above zero for pure noise. Each is therefore shown beside "
        "its null, and the split-half index chooses the class on one half of the images and measures it on the other.",
    )
    told = view.distinguishable()
    noise = int((np.isfinite(view.get("class_share_q")) & ~told).sum())
    if noise:
        yield Text(
            f"{noise} units are not distinguishable from noise on these images (see the column verdict).", tone="note"
        )
    frame = pd.DataFrame(
        {
            "unit": [view.unit_name(i) for i in range(len(view.layer_of))],
            "verdict": verdicts(view),
            "prefers": [view.class_name(int(c)) for c in view.get("preferred")],
            "class share": view.get("class_share"),
            "class share null": view.get("class_share_null"),
            "class share q": view.get("class_share_q"),
            "CSI": view.get("csi"),
            "CSI null": view.get("csi_null"),
            "CSI q": view.get("csi_q"),
            "CSI split-half": view.get("csi_split"),
            "ratio": view.get("ratio"),
            "AUROC": view.get("auroc"),
            "AUROC low": view.get("auroc_low"),
            "AUROC high": view.get("auroc_high"),
            "AUROC q": view.get("auroc_q"),
            "AUROC class": [view.class_name(int(c)) for c in view.get("auroc_class")],
            "d'": view.get("dprime"),
            "information": view.get("information"),
            "information null": view.get("information_null"),
            "sparseness": view.get("sparseness"),
            "precision": view.get("precision"),
            "effective classes": view.get("effective_classes"),
            "reliability": view.get("reliability"),
        }
    )
    yield Table(
        "selectivity",
        "Selectivity of every unit",
        frame,
        preset="-class share",
        formats={name: ".3f" for name in frame.columns[3:] if name != "AUROC class"},
        help={
            "verdict": f"selective: q < {1 - view.level:.2g}; noise: cannot be told from noise; dead: never varies",
            "prefers": "class with the largest mean activation",
            "class share": "fraction of the variance over images explained by class (eta squared), 0 to 1",
            "class share null": "the share that chance explains: mean over permuted labels",
            "class share q": "permutation q-value over all units",
            "CSI": "class selectivity index (Morcos 2018), uncorrected; nan for signed activations",
            "CSI null": "its noise floor: mean over permuted labels",
            "CSI split-half": "class chosen on one half of the images, measured on the other; about 0 for noise",
            "ratio": f"largest class mean over the sum of class means; chance is {1 / len(view.seen_classes):.3g}",
            "AUROC": "one-vs-rest, class chosen on one half, measured on the other; under 0.5: the class silences it",
            "AUROC low": f"lower {view.level:.0%} limit",
            "d'": "largest one-vs-rest d', in standard deviations",
            "information": "mutual information with the class, bits, Miller-Madow corrected",
            "sparseness": "lifetime sparseness (Vinje and Gallant): 0 responds to all images alike, 1 to one only",
            "precision": "share of the top class among the highest images",
            "effective classes": "exp of the entropy of the class profile: 1 for one class, many for all alike",
            "reliability": "Spearman-Brown corrected split-half correlation of the class profile",
        },
        text="The verdict rests on class share q: it tests all classes at once and works for signed activations.",
    )
    for quantity, title in (("csi", "Class selectivity index"), ("ratio", "Ratio selectivity")):
        values, null = view.get(quantity), view.get(f"{quantity}_null")
        finite = np.isfinite(values) & np.isfinite(null)
        if not finite.any():
            continue
        edges = np.linspace(0, max(float(values[finite].max()), 1e-9), 41)
        yield Chart(
            f"{quantity}-against-noise",
            f"{title} against its noise floor",
            "histogram",
            (
                Series("units", np.histogram(values[finite], edges)[0].astype(np.float64), edges),
                Series("noise floor (permuted labels)", np.histogram(null[finite], edges)[0].astype(np.float64), edges),
            ),
            Axis(title.lower()),
            Axis("units"),
        )
    yield Chart(
        "selectivity-by-layer",
        "Class share of the variance by layer",
        "box",
        (Series("units", five_numbers(view, view.get("class_share"))),),
        Axis("layer", ticks=tuple(view.layer_names)),
        Axis("class share", "fraction"),
        text="Smallest, quartiles and largest over the units of each layer.",
    )


def _preferences(view: _View) -> Iterator[Block]:
    classes = view.shown_classes
    if len(classes) < 2 or "class_sd" not in view:  # noqa: PLR2004 preferences compare classes
        return
    yield Section(
        "Preferences", "Mean activation of each unit for each class, and how its activations are distributed."
    )
    means = view.get("class_mean")[:, classes]
    names = tuple(view.class_name(c) for c in classes)
    together = "shared-preference-scale" in view.spec["legacy"]
    layers = view.layer_names if len(view.layer_names) <= _BAR_LAYERS else view.layer_names[-_BAR_LAYERS:]
    for layer in layers:
        own = means[view.of_layer(layer)]
        low, high = (
            (own.min(), own.max()) if together else (own.min(axis=1, keepdims=True), own.max(axis=1, keepdims=True))
        )
        span = np.asarray(high - low)
        scaled = np.divide(own - low, span, out=np.full_like(own, np.nan), where=np.broadcast_to(span, own.shape) > 0)
        yield Chart(
            f"preferences-{layer}",
            f"Preferences in {layer}",
            "heatmap",
            (Series("preference", scaled),),
            Axis("class", ticks=names),
            Axis("unit", ticks=tuple(str(i) for i in range(len(own)))),
            Axis("mean activation, scaled over the layer" if together else "mean activation, scaled for each unit"),
            text="Dead units are left blank." if not together else "",
        )
    quantile = view.get("quantile")
    for layer in layers[-2:]:
        own = view.of_layer(layer)
        strongest = own[np.argsort(-np.nan_to_num(view.get("class_share")[own]), kind="stable")[:20]]
        yield Chart(
            f"distributions-{layer}",
            f"Activation distributions of the most class-dependent units of {layer}",
            "box",
            (Series("units", quantile[strongest][:, [0, 2, 3, 4, 6]]),),
            Axis("unit", ticks=tuple(str(view.index_of[i]) for i in strongest)),
            Axis("pooled activation over images"),
            text="Smallest, quartiles (relative error up to 6 %) and largest over the images.",
        )


def _galleries(view: _View) -> Iterator[Block]:
    yield Section("Units", "The images that drive each unit most. The frame marks what the strongest activation sees.")
    rows_seen, labels_seen = view.decisions["row"].to_numpy(), view.decisions["label"].to_numpy()
    labels = dict(zip(rows_seen.tolist(), labels_seen.tolist(), strict=True))
    verdict = verdicts(view)
    for end, title in (("top", "Strongest"), ("bottom", "Weakest")):
        shown = view.result.tree[f"exemplars/{end}"].to_dataset()
        numbers = shown["unit_number"].to_numpy()
        values, rows = view.get(f"{end}_value"), view.get(f"{end}_image")
        pictures, boxes = shown["picture"].to_numpy(), shown["box"].to_numpy()
        side = pictures.shape[2]
        whole = side == view.examples["frame"].shape[1]
        for layer in view.layer_names:
            places = np.flatnonzero(view.layer_of[numbers] == layer)
            strips = []
            for place in places:
                number = int(numbers[place])
                row = [
                    Picture(
                        picture(pictures[place, rank]),
                        f"{view.class_name(labels.get(int(rows[number, rank]), -1))} {values[number, rank]:.3g}",
                        box=_box(boxes[place, rank]) if whole else None,
                    )
                    for rank in np.flatnonzero(rows[number] >= 0)
                ]
                strips.append(Strip(f"unit {view.index_of[number]}", row, note=verdict[number]))
            if strips:
                yield Gallery(
                    f"{end}-{layer}",
                    f"{title} images of {layer}",
                    strips,
                    scale=2 if side <= _SMALL else 1,
                    key="caption: class and activation",
                    text="" if whole else "Crops of the receptive field.",
                )


def _importance(view: _View) -> Iterator[Block]:
    yield Section(
        "Importance",
        "Contribution: a unit's share of its layer's absolute gradient x activation. Variance: how much the unit "
        "changes over images and positions. Neither proves a cause: switching units off does (the importance study).",
    )
    columns = {
        "unit": [view.unit_name(i) for i in range(len(view.layer_of))],
        "mean": view.get("mean"),
        "mean low": view.get("mean_low"),
        "mean high": view.get("mean_high"),
        "variance": view.get("variance_all"),
        "active": view.get("active"),
        "peak": view.get("peak"),
        "state": verdicts(view),
    }
    if "contribution" in view:
        columns |= {
            "contribution": view.get("contribution"),
            "contribution low": view.get("contribution_low"),
            "contribution high": view.get("contribution_high"),
            "gradient x activation": view.get("attribution"),
            "low": view.get("attribution_low"),
            "high": view.get("attribution_high"),
        }
    frame = pd.DataFrame(columns)
    yield Table(
        "importance",
        "Activation and importance of every unit",
        frame,
        preset="-contribution" if "contribution" in view else "-variance",
        help={
            "mean": "mean activation over images and positions, with its interval",
            "variance": "variance over images and positions",
            "active": "fraction of images with a positive activation anywhere",
            "peak": "largest activation anywhere",
            "contribution": "share of the layer's absolute gradient x activation, 0 to 1",
            "gradient x activation": "signed mean, in units of the explained logit, with its interval",
        },
    )
    quantity = "contribution" if "contribution" in view else "variance_all"
    layers = view.layer_names if len(view.layer_names) <= _BAR_LAYERS else view.layer_names[-4:]
    for layer in layers:
        own = view.of_layer(layer)
        best = own[np.argsort(-np.nan_to_num(view.get(quantity)[own]), kind="stable")[:24]]
        series = [Series("variance", view.get(quantity)[best])]
        if quantity == "contribution":
            low, high = view.get("contribution_low")[best], view.get("contribution_high")[best]
            series = [Series("contribution", view.get(quantity)[best], low=low, high=high)]
            spread = view.get("variance_all")
            total = np.nansum(spread[own])
            series.append(
                Series("share of variance", spread[best] / total if total > 0 else np.full(len(best), np.nan))
            )
        yield Chart(
            f"importance-{layer}",
            f"Most important units of {layer}",
            "bar",
            tuple(series),
            Axis("unit", ticks=tuple(str(view.index_of[i]) for i in best)),
            Axis("share of the layer", "fraction"),
        )
    for state in ("dead", "near_dead"):
        found = np.flatnonzero(view.get(state) == 1)
        if len(found):
            names = []
            for layer in dict.fromkeys(view.layer_of[found]):
                own = view.index_of[found[view.layer_of[found] == layer]]
                names.append(str(UnitSet(str(layer), int(own.max()) + 1, tuple(own.tolist()))))
            yield Text(f"{state.replace('_', '-').capitalize()} units: {'; '.join(names)}.", tone="note")


def verdicts(view: _View) -> list[str]:
    """One word per unit: dead, near-dead, selective, noise, or unknown."""
    told, q = view.distinguishable(), view.get("class_share_q")
    dead, near = view.get("dead"), view.get("near_dead")
    words = []
    for number in range(len(q)):
        if dead[number] != 0:
            words.append("dead" if dead[number] == 1 else "not finite")
        elif np.isnan(q[number]):
            words.append("unknown")
        else:
            word = "selective" if told[number] else "noise"
            words.append(f"{word}, near-dead" if near[number] else word)
    return words


def appearance_order(view: _View, classes: list[int]) -> list[int]:
    """Places of the classes in the order in which they first appear in the data."""
    labels = view.decisions["label"].to_numpy()
    first = [int(np.flatnonzero(labels == c)[0]) for c in classes]
    return [int(i) for i in np.argsort(first, kind="stable")]


def five_numbers(view: _View, values: np.ndarray) -> np.ndarray:
    """Smallest, quartiles and largest of the units of each layer."""
    rows = []
    for layer in view.layer_names:
        own = values[view.of_layer(layer)]
        own = own[np.isfinite(own)]
        rows.append(np.quantile(own, [0, 0.25, 0.5, 0.75, 1]) if own.size else np.full(5, np.nan))
    return np.array(rows)


def picture(frame: np.ndarray) -> np.ndarray:
    """A frame as a picture takes it: grey (h, w) or colour (h, w, 3)."""
    return frame[..., 0] if frame.shape[-1] == 1 else frame


def stretch(values: np.ndarray, *, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Numbers as grey or colour levels 0 to 255, from `low` (or the smallest) to `high` (or the largest)."""
    finite = np.isfinite(values)  # of a broken unit, its finite activations are all that can be shown
    shown = np.where(finite, values, 0.0)
    bottom = float(shown.min()) if low is None or not np.isfinite(low) else low
    top = float(shown.max()) if high is None or not np.isfinite(high) else high
    span = top - bottom if top > bottom else 1.0
    return np.asarray(255 * (shown - bottom) / span).clip(0, 255).astype(np.uint8)


def enlarge(image: np.ndarray, *, side: int) -> np.ndarray:
    """A small map magnified by whole steps to about `side` pixels, a large one thinned to it."""
    factor = max(1, round(side / max(image.shape)))
    thin = max(1, round(max(image.shape) / side))
    return np.kron(image[::thin, ::thin], np.ones((factor, factor)))


def beside_maps(frame: np.ndarray) -> np.ndarray:
    """A frame as a picture, thinned to the size of the maps beside it when it is large."""
    thin = max(1, round(max(frame.shape[:2]) / _WIDE))
    return picture(frame[::thin, ::thin])


def scale_for(side: int) -> int:
    """Whole magnification that makes a picture of this side easy to see."""
    return 3 if side <= _SMALL else 1


def _wrong_examples(view: _View) -> np.ndarray:
    labels = view.examples["label"].to_numpy()
    best = view.examples["probability"].to_numpy().argmax(axis=1)
    wrong = (labels >= 0) & (labels != best)
    # the first examples are one of each class, right or wrong: only those appended after them count as wrong cases
    asked = len(view.spec["examples"]) or min(len(view.seen_classes), 10)
    wrong[: max(asked, 1)] = False
    return np.asarray(wrong)


def _box(edges: np.ndarray) -> tuple[int, int, int, int]:
    top, bottom, left, right = (int(edge) for edge in edges)
    return top, bottom, left, right
