"""How well linear discriminants recognise new samples, for many labellings of the same samples at once.

A permutation test of discriminants finds them anew for every permutation. What does not depend on labels is done once
here: an inverse of the products of all training samples, or of places, whichever are fewer. Each labelling then costs
products with its few class means.

With more samples than places, the discriminants are Fisher's, whatever the scale of places: those of scikit-learn. With
more places than samples they depend on that scale; places are then scaled by their deviation over all training samples,
which labels do not change, where scikit-learn takes that within classes.

Sources: for the products of samples, the identity `(M V M)^+ = E - E Y (Y' E Y)^-1 Y' E` with `E = V^-1` and `M` the
projection that takes class means off (S. R. Searle, G. Casella and C. E. McCulloch, "Variance Components" (1992),
appendix M.4f); for places `(T - B)^-1` from `T^-1` by Woodbury's identity.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import linalg

_RIDGE = 1e-9
"""Share of the mean variance added to each: keeps inverses finite where samples repeat each other."""
_NUMBERS = 2**24
"""Numbers held of one array."""


def labelling_accuracies(
    samples: Float[np.ndarray, "n p"],
    labellings: Int[np.ndarray, "d n"],
    *,
    train: Bool[np.ndarray, "n"],
    factors: int,
) -> Float[np.ndarray, "d"]:
    """Balanced accuracy on the samples left out, for discriminants from the others under each labelling.

    Args:
        samples: one row each.
        labellings: a class for every sample, 0 to `factors` - 1; the samples left out are judged by the same labelling.
        train: samples that the discriminants are found from; each labelling needs all classes among them.
        factors: number of classes.

    Returns:
        0 to 1; chance is 1 / factors.

    Example:
        >>> samples = np.array([[0.0], [5.0], [0.2], [5.1], [0.1], [5.2]])
        >>> labellings = np.array([[0, 1, 0, 1, 0, 1], [0, 1, 1, 0, 0, 1]])
        >>> train = np.array([True, True, True, True, False, False])
        >>> labelling_accuracies(samples, labellings, train=train, factors=2)[0]
        np.float64(1.0)
    """
    own = samples[train]
    deviation = own.std(axis=0)
    scaled = (samples - own.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    score = _by_places if scaled.shape[1] < len(own) - factors else _by_samples
    step = max(1, _NUMBERS // (factors * max(samples.shape)))
    return np.concatenate(
        [
            _accuracies(
                score(scaled, labellings[start : start + step], train, factors),
                labellings[start : start + step, ~train],
            )
            for start in range(0, len(labellings), step)
        ]
    )


def _accuracies(scores: Float[np.ndarray, "d t g"], labels: Int[np.ndarray, "d t"]) -> Float[np.ndarray, "d"]:
    hit = scores.argmax(axis=2) == labels
    of_class = labels[..., None] == np.arange(scores.shape[2])
    count = of_class.sum(axis=1)
    recall = (of_class & hit[..., None]).sum(axis=1) / np.maximum(count, 1)
    return np.asarray(recall.sum(axis=1) / (count > 0).sum(axis=1))


def _members(labels: Int[np.ndarray, "d n"], factors: int) -> Float[np.ndarray, "d g n"]:
    return np.asarray(labels[:, None, :] == np.arange(factors)[:, None], dtype=np.float64)


def _by_places(x: np.ndarray, labellings: np.ndarray, train: np.ndarray, factors: int) -> Float[np.ndarray, "d t g"]:
    """Whitened over all training samples, the scatter within classes is `I - M' M` of the weighted means M."""
    own = x[train]
    total = own.T @ own
    total[np.diag_indices_from(total)] += _RIDGE * (np.trace(total) / len(total) or 1.0)
    white = linalg.solve_triangular(linalg.cholesky(total, lower=True), x.T, lower=True).T
    member = _members(labellings[:, train], factors)
    count = member.sum(axis=2)
    means = (member.reshape(-1, member.shape[2]) @ white[train]).reshape(*count.shape, -1) / np.sqrt(count)[..., None]
    between = means @ means.transpose(0, 2, 1)
    inverse = np.linalg.inv((1 + _RIDGE) * np.eye(factors) - between)
    scale = len(own) / np.sqrt(count)
    along = (white[~train] @ means.transpose(0, 2, 1)) @ inverse * scale[:, None, :]
    middle = np.einsum("dgh,dhg->dg", between, inverse) * len(own) / count
    return np.asarray(along - 0.5 * middle[:, None, :] + np.log(count / len(own))[:, None, :])


def _by_samples(x: np.ndarray, labellings: np.ndarray, train: np.ndarray, factors: int) -> Float[np.ndarray, "d t g"]:
    """Products with the pseudo-inverse of the scatter within classes, in the space that training samples span."""
    products = x[train] @ x.T
    own = products[:, train]
    size, count = np.trace(own) / len(own) or 1.0, len(own)
    inverse = linalg.inv(own + size / count + _RIDGE * size * np.eye(count))
    solved = inverse @ products
    scores = np.empty((len(labellings), int((~train).sum()), factors))
    for number, labels in enumerate(labellings[:, train]):
        member = (labels[:, None] == np.arange(factors)).astype(np.float64)
        share = member.sum(axis=0) / count
        weighted = inverse @ member
        small = linalg.inv(member.T @ weighted)
        means = solved[:, train] @ member / (share * count)
        means -= weighted @ (small @ (member.T @ means))
        # the projection is the same from either side: the means' is enough, once more for its square
        twice = means - member @ (small @ (weighted.T @ means))
        along = solved[:, ~train].T @ twice
        scores[number] = count * (along - 0.5 * (means**2).sum(axis=0)) + np.log(share)
    return scores
