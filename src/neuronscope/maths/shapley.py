"""How much each unit is worth when all units share the credit: Shapley values by sampling permutations.

Silencing a unit alone misses what others can stand in for, and what only several do together. The Shapley value of a
unit is what its removal costs, averaged over all orders in which units can be removed (Shapley 1953; Neuron Shapley,
Ghorbani and Zou 2020, arXiv:2002.09815). It needs 2^units evaluations exactly; here are its estimate from random
permutations, with intervals, and three ways to spend fewer evaluations: truncation (a network that has fallen to
chance is not walked to its end), a bandit stop (units that are surely among the `top` or surely not are no longer
sampled), and antithetic pairs (a permutation and its reverse).

A *game* is a function from masks (m, players), True for a unit that is kept, to outcomes (m, k), such as overall
accuracy and the accuracy of each class: all outcomes are estimated from the same evaluations. A *walk* removes the
players one at a time in the order of a permutation. Walks come in rounds: what a round walks is a pure function of its
number and of the merged state of the rounds before it, so that a run that was interrupted goes on to the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from neuronscope.errors import InputError

Game = Callable[[np.ndarray], np.ndarray]
"""From masks of kept players, boolean (m, players), to outcomes, floating (m, k). A row's outcomes depend on its mask
alone: a game that draws random numbers, or rounds by its batch, gives marginals that are not zero for dead units."""

_EXACT_PLAYERS = 16
"""Most players that are enumerated: 65,536 masks."""

_EXACT_BATCH = 4096
"""Masks of an enumeration evaluated at a time."""

_TWO = 2
"""A variance needs two samples; an antithetic sample is of two walks."""


@dataclass(frozen=True, kw_only=True)
class ShapleySpec:
    """How to sample.

    Attributes:
        most: most permutations walked.
        per_round: permutations of one round, between which the bandit looks and a state can be kept.
        top: per outcome, how many of the highest players are sought: players whose interval lies wholly on one side
            of the line between the `top` highest and the next are no longer sampled. None samples all to the end, as
            does a `top` that is no fewer than the players.
        interval: what the stop and the interval use. "bernstein" holds for any game with marginals within `bounds`,
            but is wide: its last term alone is `7 ln(2/delta) / (3 n)` of their width. "student" is the usual t
            interval, right for many samples of not too rare marginals; a player whose first samples happen to be
            all 0 has one of width 0, so as a stop it may be wrong more often than `delta`.
        delta: chance that an interval misses on one side: both sides together miss with at most `2 delta`. 0.2 in
            the paper.
        family: "each" takes `delta` for each interval by itself, as the paper does; "all" shares it among all
            players, outcomes and rounds, so that with "bernstein", `precision` 0 and no truncation a set that is
            settled is right with `1 - 2 delta`.
        bounds: least and greatest possible marginal, 0 within. (-1, 1) holds for accuracies; the paper's R = 1 is
            (0, 1), which is right if no removal can help.
        precision: a player whose interval's half-width is at most this is no longer sampled either; what lies that
            close together is not worth telling apart. In units of the outcome.
        tolerance: a walk ends when `patience` evaluations in a row had every outcome within this of the empty
            network; the players not reached get the marginal 0. None walks to the end, free of that bias.
        patience: see `tolerance`; 5 in the paper.
        order: "antithetic" walks every permutation in reverse too, and takes the mean of the two as one sample;
            "independent" does not. Pairs cut the variance where a player's marginal depends on its place, at the
            cost of half as many samples, which the last term of a Bernstein interval feels.
        batch: masks handed to the game at a time.
        seed: start of all randomness, at least 0; the stream of a round derives from (seed, round).
    """

    most: int = 1000
    per_round: int = 20
    top: int | None = None
    interval: Literal["bernstein", "student"] = "bernstein"
    delta: float = 0.025
    family: Literal["each", "all"] = "each"
    bounds: tuple[float, float] = (-1.0, 1.0)
    precision: float = 0.0
    tolerance: float | None = None
    patience: int = 5
    order: Literal["antithetic", "independent"] = "independent"
    batch: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be sampled.

        Raises:
            InputError: a number outside its range; the message names it.
        """
        least = {"most": 1, "per_round": 1, "patience": 1, "batch": 1, "seed": 0, "precision": 0}
        for name, lowest in least.items():
            if not getattr(self, name) >= lowest:
                message = f"{name} of a Shapley sampling is at least {lowest}, got {getattr(self, name)}"
                raise InputError(message)
        if self.top is not None and self.top < 1:
            message = f"top is the number of players sought, at least 1, got {self.top}; None samples all to the end"
            raise InputError(message)
        if not 0 < self.delta < 0.5:  # noqa: PLR2004 a risk of a half on each side leaves no interval
            message = f"delta, the risk on one side of an interval, lies between 0 and 0.5, got {self.delta}"
            raise InputError(message)
        if not self.bounds[0] <= 0 <= self.bounds[1] or self.bounds[0] == self.bounds[1]:
            message = f"bounds are the least and greatest marginal with 0 between them, got {self.bounds}"
            raise InputError(message)
        if self.tolerance is not None and not self.tolerance >= 0:
            message = f"tolerance is at least 0, got {self.tolerance}; None walks every permutation to its end"
            raise InputError(message)
        if self.order == "antithetic" and (self.most % _TWO or self.per_round % _TWO):
            message = (
                f"antithetic permutations come in pairs, got most = {self.most} and per_round = {self.per_round}; "
                "give even numbers, or order = 'independent'"
            )
            raise InputError(message)

    @property
    def walks_per_sample(self) -> int:
        """Walks behind one independent sample."""
        return _TWO if self.order == "antithetic" else 1

    def risk(self, *, players: int, outcomes: int) -> float:
        """The chance of a miss granted to one side of one interval."""
        looks = math.ceil(self.most / self.per_round)
        return self.delta / (players * outcomes * looks) if self.family == "all" else self.delta


@dataclass(frozen=True)
class ShapleyRound:
    """What one round walks.

    Attributes:
        number: the round, from 0.
        walks: permutations walked.
        active: the players that are sampled.
        full: outcomes with all players, None before they are known.
        empty: outcomes without any.
    """

    number: int
    walks: int
    active: Bool[np.ndarray, "u"]
    full: Float[np.ndarray, "k"] | None = None
    empty: Float[np.ndarray, "k"] | None = None


@dataclass(frozen=True)
class ShapleyState:
    """What the walks so far have shown: sums that merge (`merge_rounds`) and can be kept (`to_arrays`).

    Attributes:
        count: samples of each player (pairs count as one).
        mean: mean marginal of each player and outcome; 0 before the first sample.
        squares: sum of squared deviations from the mean.
        cut: samples in which the walk ended before it reached the player (a half where one of a pair did).
        missed: over those, sum of how far each outcome still was from the empty network's.
        full: outcomes with all players.
        empty: outcomes without any.
        closure: largest amount by which the marginals of a complete walk failed to add up to `full - empty`.
        walks: permutations walked.
        complete: those of them walked to the end with every player sampled.
        evaluations: masks evaluated.
        rounds: rounds merged.
    """

    count: Int[np.ndarray, "u"]
    mean: Float[np.ndarray, "u k"]
    squares: Float[np.ndarray, "u k"]
    cut: Float[np.ndarray, "u"]
    missed: Float[np.ndarray, "u k"]
    full: Float[np.ndarray, "k"]
    empty: Float[np.ndarray, "k"]
    closure: Float[np.ndarray, "k"]
    walks: int
    complete: int
    evaluations: int
    rounds: int

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The state as named arrays, for a checkpoint."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ShapleyState:
        """The state that `to_arrays` wrote, bit for bit."""
        counts = ("walks", "complete", "evaluations", "rounds")
        read: dict[str, Any] = {name: int(value) if name in counts else value for name, value in arrays.items()}
        return cls(**read)


@dataclass(frozen=True)
class ShapleyValues:
    """Estimated Shapley values (u players, k outcomes) and how far to trust them.

    Truncation leaves out the marginals of players that a walk did not reach. The error this makes in `value` has two
    bounds, both sure for the walks made: in any game, the share of walks that ended before the player times the
    largest possible marginal (`bias`); in a game where no removal helps, the mean distance from the empty network at
    which they ended (`bias_monotone`), which is at most `tolerance` times that share. Both are 0 without truncation.
    Where sampling stops depends on what was seen, so the means of players settled early are slightly too far from the
    line; the intervals of `family = "all"` allow for it.

    Attributes:
        value: mean marginal.
        low: lower end of the interval that the sampling used (`ShapleySpec.interval`), without the bias.
        high: its upper end.
        bernstein: half-width of the empirical Bernstein interval.
        student: half-width of the t interval.
        count: samples of each player.
        settled: True where a player needs no more samples for an outcome.
        cut_share: share of a player's walks that ended before reaching it, 0 to 1.
        bias: largest error that truncation can have made, in any game.
        bias_monotone: the same, in a game where no removal helps.
        full: outcomes with all players.
        empty: outcomes without any.
        residual: `sum of value - (full - empty)`: 0 but for rounding, by efficiency, when all walks were complete;
            otherwise what truncation and unequal sampling have left.
        closure: largest failure of one complete walk to add up (rounding alone).
        walks: permutations walked.
        evaluations: masks evaluated.
        plain_evaluations: masks that plain sampling needs to give every player as many samples as the most sampled
            one has, hence at least its precision.
        stopped: "settled" when nobody was left to sample, "budget" when the permutations were used up.
    """

    value: Float[np.ndarray, "u k"]
    low: Float[np.ndarray, "u k"]
    high: Float[np.ndarray, "u k"]
    bernstein: Float[np.ndarray, "u k"]
    student: Float[np.ndarray, "u k"]
    count: Int[np.ndarray, "u"]
    settled: Bool[np.ndarray, "u k"]
    cut_share: Float[np.ndarray, "u"]
    bias: Float[np.ndarray, "u"]
    bias_monotone: Float[np.ndarray, "u k"]
    full: Float[np.ndarray, "k"]
    empty: Float[np.ndarray, "k"]
    residual: Float[np.ndarray, "k"]
    closure: Float[np.ndarray, "k"]
    walks: int
    evaluations: int
    plain_evaluations: int
    stopped: Literal["settled", "budget"]

    def top(self, number: int, *, outcome: int = 0) -> Int[np.ndarray, "t"]:
        """The players of highest value for an outcome, highest first; ties in the order of the players."""
        return np.argsort(-self.value[:, outcome], kind="stable")[:number]


def exact_shapley(values: Game, players: int) -> Float[np.ndarray, "u k"]:
    """Shapley values by evaluating every subset of the players.

    `sum over S without j of |S|! (p - |S| - 1)! / p! (V(S + j) - V(S))` (Shapley 1953).

    Args:
        values: the game.
        players: number of players, 1 to 16.

    Raises:
        InputError: too many players, or a game that does not give (m, k) outcomes.

    Example:
        A left glove (player 0) and two right gloves: only a pair has a value.

        >>> pair = lambda kept: (kept[:, :1] & kept[:, 1:].any(axis=1, keepdims=True)).astype(float)
        >>> exact_shapley(pair, 3).round(3).ravel()
        array([0.667, 0.167, 0.167])
    """
    if not 1 <= players <= _EXACT_PLAYERS:
        message = (
            f"exact Shapley values of {players} players need 2^{players} evaluations; "
            f"1 to {_EXACT_PLAYERS} players are enumerated, sample more of them with shapley_values"
        )
        raise InputError(message)
    subsets = np.arange(2**players)
    kept = (subsets[:, None] >> np.arange(players)) & 1 == 1
    worth = _evaluated(values, kept, batch=_EXACT_BATCH)
    sizes = kept.sum(axis=1)
    # 1 / (p binomial(p - 1, s)) is the weight of a subset of size s
    weight = 1 / (players * special.binom(players - 1, np.arange(players)))
    found = np.empty((players, worth.shape[1]))
    for player in range(players):
        without = subsets[~kept[:, player]]
        marginals = worth[without | (1 << player)] - worth[without]
        found[player] = weight[sizes[without]] @ marginals
    return found


def shapley_values(
    values: Game,
    players: int,
    *,
    spec: ShapleySpec,
    state: ShapleyState | None = None,
    keep: Callable[[ShapleyState], None] | None = None,
) -> ShapleyValues:
    """Shapley values from random permutations, walked in rounds until every player is settled or the budget is spent.

    Args:
        values: the game.
        players: number of players.
        spec: how to sample.
        state: where an earlier run with the same game and spec stopped; the result is the same to the bit.
        keep: called with the merged state after every round, to write a checkpoint or show progress.

    Raises:
        InputError: no players, a state of another game, or a game that does not give (m, k) outcomes.

    Example:
        >>> worth = np.array([0.5, 0.2, 0.0])
        >>> found = shapley_values(lambda kept: kept @ worth[:, None], 3, spec=ShapleySpec(most=2))
        >>> found.value.ravel().round(6), found.evaluations
        (array([0.5, 0.2, 0. ]), 6)
    """
    if players < 1:
        message = f"a game has at least one player, got {players}"
        raise InputError(message)
    if state is not None and len(state.count) != players:
        message = f"the state is of {len(state.count)} players and the game of {players}; start without a state"
        raise InputError(message)
    if state is None:
        state = walk_round(values, _first_round(players, spec=spec), spec=spec)
        if keep is not None:
            keep(state)
    while (planned := plan_round(state.rounds, state, players=players, spec=spec)) is not None:
        state = merge_rounds(state, walk_round(values, planned, spec=spec))
        if keep is not None:
            keep(state)
    return estimates(state, spec=spec)


def plan_round(number: int, state: ShapleyState | None, *, players: int, spec: ShapleySpec) -> ShapleyRound | None:
    """What a round walks, from the merged state of the rounds before it; None when there is nothing left to do."""
    if state is None:
        return _first_round(players, spec=spec)
    active = np.asarray(unsettled(state, spec=spec).any(axis=1))
    walks = min(spec.per_round, spec.most - state.walks)
    return ShapleyRound(number, walks, active, state.full, state.empty) if walks > 0 and active.any() else None


def walk_round(values: Game, planned: ShapleyRound, *, spec: ShapleySpec) -> ShapleyState:
    """Walk the permutations of one round.

    Only prefixes that some active player needs (all before it leaves, and all after) are evaluated: neighbours share
    them, and a stretch of settled players is stepped over at once. All walks go forward together, a few prefixes of
    each per call of the game; what a walk evaluated beyond its end counts as used but changes nothing.

    Raises:
        InputError: the game does not give (m, k) outcomes.
    """
    players = len(planned.active)
    evaluations = 0
    full, empty = planned.full, planned.empty
    if full is None or empty is None:
        full, empty = _evaluated(values, np.repeat([[True], [False]], players, axis=1), batch=_TWO)
        evaluations += 2
    leaves = np.argsort(_orders(planned, players, spec=spec), axis=1)  # step at which each player leaves
    worth, ends, used = _walked(values, leaves, planned.active, (full, empty), spec=spec)
    rows, sampled = np.arange(planned.walks)[:, None], np.flatnonzero(planned.active)
    steps = leaves[:, sampled]
    reached = steps < ends[:, None]
    marginals = np.where(reached[..., None], worth[rows, steps] - worth[rows, steps + 1], 0.0)
    gaps = np.abs(worth[np.arange(planned.walks), ends] - empty)
    missed = np.where(reached[..., None], 0.0, gaps[:, None])
    samples = _paired(marginals, spec=spec)
    whole = reached.all(axis=1) & planned.active.all()
    failure = np.abs(marginals[whole].sum(axis=1) - (full - empty))
    mean = samples.mean(axis=0)
    shape = (players, len(full))
    return ShapleyState(
        count=_placed(np.full(len(sampled), len(samples)), sampled, (players,)),
        mean=_placed(mean, sampled, shape),
        squares=_placed(((samples - mean) ** 2).sum(axis=0), sampled, shape),
        cut=_placed(_paired(1.0 - reached, spec=spec).sum(axis=0), sampled, (players,)),
        missed=_placed(_paired(missed, spec=spec).sum(axis=0), sampled, shape),
        full=full,
        empty=empty,
        closure=failure.max(axis=0, initial=0.0),
        walks=planned.walks,
        complete=int(whole.sum()),
        evaluations=evaluations + used,
        rounds=1,
    )


def merge_rounds(left: ShapleyState, right: ShapleyState) -> ShapleyState:
    """Both states' walks together (Chan et al. 1983); associative but for rounding, counts exactly.

    Raises:
        InputError: the states are of different games.
    """
    if left.mean.shape != right.mean.shape:
        message = (
            f"states of (players, outcomes) {left.mean.shape} and {right.mean.shape} do not merge: "
            "they are of different games. Start again without the kept state"
        )
        raise InputError(message)
    count = left.count + right.count
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(count > 0, right.count / count, 0.0)[:, None]
    apart = right.mean - left.mean
    return ShapleyState(
        count=count,
        mean=left.mean + apart * share,
        squares=left.squares + right.squares + apart**2 * share * left.count[:, None],
        cut=left.cut + right.cut,
        missed=left.missed + right.missed,
        full=left.full,
        empty=left.empty,
        closure=np.maximum(left.closure, right.closure),
        walks=left.walks + right.walks,
        complete=left.complete + right.complete,
        evaluations=left.evaluations + right.evaluations,
        rounds=left.rounds + right.rounds,
    )


def unsettled(state: ShapleyState, *, spec: ShapleySpec) -> Bool[np.ndarray, "u k"]:
    """Which players need more samples for which outcome.

    Those with an interval wider than `spec.precision` that holds the line half-way between the `top`-th highest mean
    and the next. The paper draws the line at the k-th best itself, whose interval always holds it. Outcomes that are
    nan, such as the accuracy of a class without images, ask for nothing.
    """
    radius = _radius(state, spec.interval, spec=spec)
    active = radius > spec.precision
    players = len(state.count)
    if spec.top is not None and spec.top < players:
        descending = -np.sort(-state.mean, axis=0)
        line = (descending[spec.top - 1] + descending[spec.top]) / 2
        active &= np.abs(state.mean - line) <= radius
    return np.asarray(active & ~np.isnan(state.mean))


def estimates(state: ShapleyState, *, spec: ShapleySpec) -> ShapleyValues:
    """The Shapley values that a state holds, with intervals and costs."""
    bernstein, student = _radius(state, "bernstein", spec=spec), _radius(state, "student", spec=spec)
    radius = bernstein if spec.interval == "bernstein" else student
    active = unsettled(state, spec=spec)
    samples = np.maximum(state.count, 1)
    cut_share = state.cut / samples
    most_walked = int(state.count.max()) * spec.walks_per_sample
    return ShapleyValues(
        value=state.mean,
        low=state.mean - radius,
        high=state.mean + radius,
        bernstein=bernstein,
        student=student,
        count=state.count,
        settled=~active,
        cut_share=cut_share,
        bias=cut_share * max(-spec.bounds[0], spec.bounds[1]),
        bias_monotone=state.missed / samples[:, None],
        full=state.full,
        empty=state.empty,
        residual=state.mean.sum(axis=0) - (state.full - state.empty),
        closure=state.closure,
        walks=state.walks,
        evaluations=state.evaluations,
        plain_evaluations=2 + most_walked * (len(state.count) - 1),
        stopped="budget" if active.any() else "settled",
    )


def bernstein_radius(
    variance: Float[np.ndarray, "*s"], count: Int[np.ndarray, "..."] | int, *, delta: float, width: float
) -> Float[np.ndarray, "*s"]:
    """Half-width of the empirical Bernstein interval of a mean of values that lie in an interval of known width.

    `sqrt(2 v ln(2/delta) / n) + 7 R ln(2/delta) / (3 (n - 1))` (Maurer and Pontil 2009, theorem 4). It is sure for
    any distribution: the mean lies beyond either end with a chance of at most `delta`, beyond one of both with
    `2 delta`.

    Args:
        variance: sample variances (divided by `count - 1`).
        count: number of independent values; broadcasts against `variance`.
        delta: chance of a miss on one side, between 0 and 1.
        width: width R of the interval that holds the values.

    Returns:
        Infinite for fewer than two values.

    Example:
        >>> bernstein_radius(np.array([0.01]), 1000, delta=0.2, width=1.0).round(4)
        array([0.0122])
    """
    n = np.asarray(count, dtype=np.float64)
    log = math.log(2 / delta)
    with np.errstate(invalid="ignore", divide="ignore"):
        radius = np.sqrt(2 * variance * log / n) + 7 * width * log / (3 * (n - 1))
    return np.where(n < _TWO, np.inf, radius)


def student_radius(
    variance: Float[np.ndarray, "*s"], count: Int[np.ndarray, "..."] | int, *, delta: float
) -> Float[np.ndarray, "*s"]:
    """Half-width of the t interval of a mean that misses on each side with chance `delta` (normal theory).

    Args:
        variance: sample variances (divided by `count - 1`).
        count: number of independent values; broadcasts against `variance`.
        delta: chance of a miss on one side, between 0 and 0.5.

    Returns:
        Infinite for fewer than two values.

    Example:
        >>> student_radius(np.array([4.0]), 16, delta=0.025).round(3)
        array([1.066])
    """
    n = np.asarray(count, dtype=np.float64)
    freedom = np.maximum(n - 1, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        radius = special.stdtrit(freedom, 1 - delta) * np.sqrt(variance / n)
    return np.where(n < _TWO, np.inf, radius)


def _first_round(players: int, *, spec: ShapleySpec) -> ShapleyRound:
    return ShapleyRound(0, min(spec.per_round, spec.most), np.ones(players, dtype=bool))


def _radius(state: ShapleyState, interval: str, *, spec: ShapleySpec) -> np.ndarray:
    players, outcomes = state.mean.shape
    variance = state.squares / np.maximum(state.count - 1, 1)[:, None]
    count = state.count[:, None]
    delta = spec.risk(players=players, outcomes=outcomes)
    if interval == "student":
        return student_radius(variance, count, delta=delta)
    return bernstein_radius(variance, count, delta=delta, width=spec.bounds[1] - spec.bounds[0])


def _orders(planned: ShapleyRound, players: int, *, spec: ShapleySpec) -> Int[np.ndarray, "w u"]:
    """The players in the order in which each walk removes them; the two of a pair stand together."""
    rng = np.random.default_rng([spec.seed, planned.number])
    drawn = rng.permuted(np.tile(np.arange(players), (planned.walks // spec.walks_per_sample, 1)), axis=1)
    if spec.order == "independent":
        return drawn
    return np.stack([drawn, drawn[:, ::-1]], axis=1).reshape(planned.walks, players)


def _walked(
    values: Game, leaves: np.ndarray, active: np.ndarray, ends: tuple[np.ndarray, np.ndarray], *, spec: ShapleySpec
) -> tuple[Float[np.ndarray, "w u1 k"], Int[np.ndarray, "w"], int]:
    """Outcomes after each number of removals (nan where not needed), where each walk ended, and masks evaluated."""
    walks, players = leaves.shape
    rows = np.arange(walks)[:, None]
    needed = np.zeros((walks, players + 1), dtype=bool)
    needed[rows, leaves[:, active]] = True
    needed[rows, leaves[:, active] + 1] = True
    needed[:, [0, -1]] = False
    worth = np.full((walks, players + 1, len(ends[0])), np.nan)
    worth[:, 0], worth[:, -1] = ends
    ended = np.full(walks, players)
    ahead = {walk: np.flatnonzero(row) for walk, row in enumerate(needed)}
    ahead = {walk: steps for walk, steps in ahead.items() if len(steps)}
    in_a_row = np.zeros(walks, dtype=np.int64)
    used = 0
    while ahead:
        stride = max(1, spec.batch // len(ahead))
        now = {walk: steps[:stride] for walk, steps in ahead.items()}
        ahead = {walk: steps[stride:] for walk, steps in ahead.items() if len(steps) > stride}
        which = np.repeat(list(now), [len(steps) for steps in now.values()])
        removed = np.concatenate(list(now.values()))
        worth[which, removed] = _evaluated(values, leaves[which] >= removed[:, None], batch=spec.batch)
        used += len(removed)
        if spec.tolerance is None:
            continue
        for walk, steps in now.items():
            # outcomes that are nan for the empty network have no value to come near to
            near = ((np.abs(worth[walk, steps] - ends[1]) <= spec.tolerance) | np.isnan(ends[1])).all(axis=-1)
            for step, close in zip(steps, near, strict=True):
                in_a_row[walk] = in_a_row[walk] + 1 if close else 0
                if in_a_row[walk] == spec.patience:
                    ended[walk] = step
                    ahead.pop(walk, None)
                    break
    return worth, ended, used


def _paired(walks: Float[np.ndarray, "w ..."], *, spec: ShapleySpec) -> Float[np.ndarray, "s ..."]:
    """Independent samples: the mean of each antithetic pair, or the walks as they are."""
    if spec.order == "independent":
        return walks
    return np.asarray(walks.reshape(-1, _TWO, *walks.shape[1:]).mean(axis=1))


def _placed(found: np.ndarray, players: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What was found for some players among all, 0 for the others."""
    everyone = np.zeros(shape, dtype=found.dtype)
    everyone[players] = found
    return everyone


def _evaluated(values: Game, masks: Bool[np.ndarray, "m u"], *, batch: int) -> Float[np.ndarray, "m k"]:
    parts = [np.asarray(values(masks[start : start + batch])) for start in range(0, len(masks), batch)]
    sizes = [min(batch, len(masks) - start) for start in range(0, len(masks), batch)]
    for part, size in zip(parts, sizes, strict=True):
        if part.ndim != 2 or len(part) != size:  # noqa: PLR2004 masks by outcomes
            message = (
                f"a game gives one row of outcomes per mask, shape ({size}, k), got {part.shape}; "
                "give a single outcome as one column: value[:, None]"
            )
            raise InputError(message)
    return np.concatenate(parts).astype(np.float64)
