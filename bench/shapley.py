"""How many evaluations do truncation and the early stop of Neuron Shapley save, and at what error?

The game is real: the last hidden layer of a small network trained here on scikit-learn's digits, its units the players,
and the accuracy on 128 images their worth. The truth is a long run without any saving.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float

import _measure as measure
import neuronscope as ns
from neuronscope.data.loading import batches
from neuronscope.hooks import placed
from neuronscope.maths.shapley import Game, ShapleySpec, shapley_values
from neuronscope.replay import cut

LAYER, TOP, IMAGES = "fc_layers.2", 10, 128


def game() -> tuple[Game, int]:
    """The worth of sets of units of the last hidden layer."""
    run = ns.Run(seed=0, device="cpu")
    made = ns.train(ns.load_data("digits:train"), ns.load_data("digits:report"), ns.TrainSpec(), run=run)
    subject = ns.subject_from(
        made.module, name="trained here", input_shape=made.input_shape, classes=made.classes, preprocess=made.preprocess
    )
    data = ns.load_data("digits:report", limit=IMAGES)
    batch = next(iter(batches(data, subject.preprocess.batch, batch_size=len(data), workers=1)))
    images, labels = batch.image, batch.label
    layer = subject.layer(LAYER)
    with placed(subject.module, run) as network, torch.inference_mode():
        way = cut(network, layer, images)
        live = way.prefix(images)

    def values(masks: Bool[np.ndarray, "m u"]) -> Float[np.ndarray, "m k"]:
        worth = np.empty((len(masks), 1))
        with torch.inference_mode():
            for chosen, logits in way.masked(live, torch.from_numpy(~masks)):
                worth[chosen, 0] = (logits.argmax(2) == labels).double().mean(1).numpy()
        return worth

    return values, layer.units


def figures(quick: bool) -> Iterator[measure.Figure]:  # noqa: FBT001 called by the harness
    """Evaluations with and without the savings, on the same game and seed."""
    values, players = game()
    most = 400 if quick else 2000
    plain = ShapleySpec(most=most, per_round=40, order="antithetic", interval="student")
    truth = shapley_values(values, players, spec=replace(plain, most=4 * most, seed=1)).value[:, 0]
    exact = set(np.argsort(-truth, kind="stable")[:TOP].tolist())
    full = shapley_values(values, players, spec=plain)
    for name, spec in (
        ("the early stop", replace(plain, top=TOP, precision=0.005)),
        ("truncation", replace(plain, tolerance=0.02)),
        ("both", replace(plain, top=TOP, precision=0.005, tolerance=0.02)),
        ("both, by Bernstein's bounds", replace(plain, top=TOP, precision=0.005, tolerance=0.02, interval="bernstein")),
    ):
        found = shapley_values(values, players, spec=spec)
        error = np.abs(found.value[:, 0] - truth)
        best = len(exact & set(found.top(TOP).tolist()))
        yield measure.Figure(
            f"evaluations of plain sampling over those with {name}",
            full.evaluations / found.evaluations,
            "",
            None,
            f"{full.evaluations:,} and {found.evaluations:,} masks, stopped by {found.stopped}; {best} of the {TOP} "
            f"best units of a run four times as long; largest error {error.max():.4f}, mean "
            f"{error.mean():.4f} of accuracy "
            f"(plain: {np.abs(full.value[:, 0] - truth).max():.4f}, {np.abs(full.value[:, 0] - truth).mean():.4f})",
        )


if __name__ == "__main__":
    measure.main(__doc__ or "", figures)
