"""Rules that need more than one pass over the images: Shapley values of a layer's units, and importance by weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from neuronscope.checkpoint import Checkpoint, Done, ShardState, digest
from neuronscope.data.dataset import Data, balanced_rows
from neuronscope.data.loading import batches
from neuronscope.hooks import placed
from neuronscope.maths.importance import inf_fs
from neuronscope.maths.shapley import ShapleySpec, ShapleyState, ShapleyValues, shapley_values
from neuronscope.maths.streams import StackRows
from neuronscope.steps import Observe, Step, absolute_flow
from neuronscope.steps.recent import cut_at
from neuronscope.studies.importance.setting import Setting
from neuronscope.studies.importance.silence import fill_for_labels
from neuronscope.studies.importance.tables import Stats
from neuronscope.sweep import processor, sweep

LOGGER = logging.getLogger("neuronscope")

_PRECISION = 0.005  # accuracy: units closer together than that are not worth telling apart
_TOLERANCE = 0.02  # accuracy: a walk that is this close to the empty layer is nearly over
_PER_ROUND = 40  # permutations between two looks, in pairs of an order and its reverse
_LEAST_OF_CLASS = 2  # images of a class in a Shapley game, however few it is to be played on
_MOST_FEATURE_IMAGES = 2000  # behind the correlations of the last layer's features


@dataclass(frozen=True)
class Played:
    """Shapley values of all layers' units.

    Attributes:
        value, low, high: (units, 1 + classes in question): for the accuracy on the images of these classes together,
            then for each class's.
        evaluations, plain: masks evaluated in each layer, and what sampling without an early stop would have needed.
        bias: largest error in each unit that ending walks early can have made.
        settled: for each layer, whether the best units were told from the rest within the budget.
    """

    value: Float[np.ndarray, "u k"]
    low: Float[np.ndarray, "u k"]
    high: Float[np.ndarray, "u k"]
    evaluations: tuple[int, ...]
    plain: tuple[int, ...]
    bias: Float[np.ndarray, "u"]
    settled: tuple[bool, ...]


def play(setting: Setting, means: Stats) -> Played:
    """A game for each layer: its units join in random order, and the accuracy on some selection images is their gain.

    Sampling ends when the best units of the layer are told from the rest, for every class in question.
    """
    found = [play_layer(setting, number, means) for number in range(len(setting.layers))]
    return Played(
        value=np.concatenate([one.value for one in found]),
        low=np.concatenate([one.low for one in found]),
        high=np.concatenate([one.high for one in found]),
        evaluations=tuple(one.evaluations for one in found),
        plain=tuple(one.plain_evaluations for one in found),
        bias=np.concatenate([one.bias for one in found]),
        settled=tuple(one.stopped == "settled" for one in found),
    )


def play_layer(setting: Setting, number: int, means: Stats) -> ShapleyValues:
    """The game of one layer, kept in the run's checkpoint after every round."""
    run, spec, where = setting.run, setting.spec, setting.silenced[number]
    sample = game_images(setting)
    sampling = ShapleySpec(
        most=spec.shapley_permutations + spec.shapley_permutations % 2,
        per_round=_PER_ROUND,
        top=min(spec.shapley_top, where.units - 1),
        interval=spec.shapley_interval,
        order="antithetic" if spec.shapley_interval == "student" else "independent",
        precision=_PRECISION,
        tolerance=_TOLERANCE,
        seed=run.seed,
    )
    # the whole selection counts, for units may be silenced by their means over it
    prints = (setting.selection.fingerprint, sample.fingerprint)
    circumstances = (run.seed, processor(run.torch_device), run.dtype, run.threads or torch.get_num_threads())
    key = digest("shapley", setting.subject.fingerprint, *prints, where, spec, circumstances, sampling)
    kept = Checkpoint(run.checkpoint, name=f"shapley-{number}", key=key) if run.checkpoint is not None else None
    state = _state_of(kept.read()) if kept is not None else None
    labels = torch.from_numpy(sample.labels)
    run.progress.start(f"shapley {where.name}", sampling.most)

    def remember(now: ShapleyState) -> None:
        run.progress.advance(_PER_ROUND)
        if kept is not None:
            kept.write(_done(now))

    with run.scope(), placed(setting.subject.module, run) as module, torch.inference_mode():
        prepared = list(batches(sample, setting.subject.preprocess.batch, batch_size=len(sample), workers=run.workers))
        batch = prepared[0]
        images = run.place(batch.image)
        way = cut_at(module, where, images)
        live = way.prefix(images)
        fill = fill_for_labels(setting, means.at(setting.places[number]), units=where.units).maps(
            live.output, index=run.place(batch.index), label=run.place(batch.label)
        )
        labels = batch.label
        groups = np.stack([np.ones(len(labels), dtype=bool), *(labels.numpy() == c for c in setting.classes)])

        def values(masks: Bool[np.ndarray, "m u"]) -> Float[np.ndarray, "m k"]:
            gone = run.place(torch.from_numpy(~masks))
            right = np.zeros((len(masks), len(labels)), dtype=bool)
            for chosen, logits in way.masked(live, gone, fill):
                right[chosen] = (logits.argmax(2).cpu() == labels).numpy()
            return np.stack([right[:, group].mean(axis=1) for group in groups], axis=1)

        try:
            found = shapley_values(values, where.units, spec=sampling, state=state, keep=remember)
        finally:
            run.progress.finish()
    LOGGER.info(
        "shapley %s: %d evaluations (%d without the early stop), %s",
        where.name,
        found.evaluations,
        found.plain_evaluations,
        found.stopped,
    )
    return found


def game_images(setting: Setting) -> Data:
    """The selection images that games are played on: of the classes in question, as evenly as can be."""
    mine = np.flatnonzero(np.isin(setting.selection.labels, setting.classes))
    # a class without an image in the game would have no value
    limit = max(setting.spec.shapley_images, _LEAST_OF_CLASS * len(setting.classes))
    rows = balanced_rows(setting.selection.labels[mine], limit=limit, seed=setting.run.seed)
    return setting.selection.take(np.sort(mine[rows]))


def response_features(setting: Setting) -> tuple[Data, Step, StackRows]:
    """The pass that NISP starts from: the last layer's units on some selection images."""
    few = setting.selection.take(range(min(len(setting.selection), _MOST_FEATURE_IMAGES)))
    return few, Observe((setting.layers[-1],)), StackRows("mean", images=len(few))


def scores_by_weights(setting: Setting) -> Float[np.ndarray, "u"]:
    """NISP: the features of the last layer ranked by Inf-FS, and their scores handed back through absolute weights."""
    response = setting.layers[-1]
    few, step, fold = response_features(setting)
    features = sweep(setting.subject, few, step, fold, run=setting.run, name="features").answer
    values = features.values.astype(np.float64)
    finite = np.isfinite(values).all(axis=0)
    start = np.zeros(response.units)  # a unit that is not finite has no correlations to start from
    start[finite] = inf_fs(values[:, finite])
    return absolute_flow(
        setting.subject.module,
        setting.layers,
        response,
        np.nan_to_num(start),
        input_shape=setting.subject.input_shape,
    )


def _done(state: ShapleyState) -> Done:
    arrays = {name: torch.from_numpy(np.asarray(values)) for name, values in state.to_arrays().items()}
    return Done(first=state.rounds, prefix=ShardState(arrays, images=0), shards=0)


def _state_of(done: Done) -> ShapleyState | None:
    if done.prefix is None:
        return None
    return ShapleyState.from_arrays({name: values.numpy() for name, values in done.prefix.state.items()})
