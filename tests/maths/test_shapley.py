"""Shapley values: the axioms, known games, enumeration as the slow twin, and what the savings may change."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import InputError
from neuronscope.maths.shapley import (
    ShapleySpec,
    ShapleyState,
    bernstein_radius,
    estimates,
    exact_shapley,
    merge_rounds,
    plan_round,
    shapley_values,
    student_radius,
    walk_round,
)


def table_game(players, *, outcomes=2, seed=0):
    """Any game at all: a random worth for every subset, in [0, 1]."""
    worth = np.random.default_rng(seed).random((2**players, outcomes))
    bits = 1 << np.arange(players)
    return lambda kept: worth[kept @ bits]


def saturating_game(weights, *, power=0.5):
    """A monotone game of bounded worth in which players stand in for one another; the outcome is in [0, 1]."""
    total = weights.sum()
    return lambda kept: ((kept @ weights / total) ** power)[:, None]


def steep_game(players, *, seed=0):
    """Like a network: chance level until most units are there, then a steep rise to 1; monotone."""
    weights = np.random.default_rng(seed).random(players) + 0.2

    def worth(kept):
        # no matrix product: its rounding would depend on how many masks come at a time
        share = (kept * weights).sum(axis=1) / weights.sum()
        return (1 / (1 + np.exp(-30 * (share - 0.75))))[:, None]

    return worth


def plain_shapley(values, players):
    """The definition: the marginal of every player, averaged over all orders."""
    total = 0.0
    for order in itertools.permutations(range(players)):
        kept = np.zeros(players, dtype=bool)
        found = [None] * players
        for player in order:
            before = values(kept[None])[0]
            kept[player] = True
            found[player] = values(kept[None])[0] - before
        total = total + np.array(found)
    return total / math.factorial(players)


class Counted:
    """A game that notes how many masks it was asked for."""

    def __init__(self, game):
        """Nothing asked for yet."""
        self.game, self.masks = game, 0

    def __call__(self, kept):
        """Evaluate, and count."""
        self.masks += len(kept)
        return self.game(kept)


@pytest.mark.parametrize("players", [1, 2, 5])
def test_enumeration_equals_all_orders(players):
    """The subset formula equals the average over all orders of joining."""
    game = table_game(players, seed=players)
    np.testing.assert_allclose(exact_shapley(game, players), plain_shapley(game, players), atol=1e-12)


def test_enumeration_knows_its_limit():
    """More than 16 players, or none, are refused."""
    for players in (0, 17):
        with pytest.raises(InputError, match="enumerated"):
            exact_shapley(table_game(2), players)


def test_glove_game():
    """One left and two right gloves: 2/3, 1/6, 1/6, exactly and by sampling."""

    def game(kept):
        return (kept[:, :1] & kept[:, 1:].any(axis=1, keepdims=True)).astype(float)

    np.testing.assert_allclose(exact_shapley(game, 3)[:, 0], [2 / 3, 1 / 6, 1 / 6])
    found = shapley_values(game, 3, spec=ShapleySpec(most=4000, per_round=500, interval="student", delta=0.001))
    assert (found.low[:, 0] < [2 / 3, 1 / 6, 1 / 6]).all()
    assert (found.high[:, 0] > [2 / 3, 1 / 6, 1 / 6]).all()


@given(st.integers(1, 12), st.integers(0, 2**20))
def test_additive_game_is_exact_after_one_permutation(players, seed):
    """Where marginals do not depend on the order, one walk says all, for every outcome."""
    weights = np.random.default_rng(seed).standard_normal((players, 3))
    found = shapley_values(lambda kept: kept @ weights, players, spec=ShapleySpec(most=1, seed=seed))
    np.testing.assert_allclose(found.value, weights, atol=1e-12)
    assert found.evaluations == 2 + players - 1


@pytest.mark.parametrize("order", ["independent", "antithetic"])
def test_sampling_approaches_enumeration(order):
    """On a random game, the mean over many walks lies within its own error of the exact values."""
    game = table_game(6, seed=3)
    spec = ShapleySpec(most=4000, per_round=400, order=order, interval="student", delta=0.0005)
    found = shapley_values(game, 6, spec=spec)
    assert (np.abs(found.value - exact_shapley(game, 6)) < found.student).all()


@given(st.integers(2, 8), st.integers(0, 2**20), st.sampled_from(["independent", "antithetic"]))
def test_efficiency(players, seed, order):
    """Complete walks share out exactly what all players are worth: each walk, and the mean."""
    spec = ShapleySpec(most=6, per_round=4, order=order, seed=seed)
    found = shapley_values(table_game(players, seed=seed), players, spec=spec)
    np.testing.assert_allclose(found.residual, 0, atol=1e-12)
    np.testing.assert_allclose(found.closure, 0, atol=1e-12)
    assert found.stopped == "budget"
    assert found.walks == 6


def test_dead_player_is_worth_exactly_nothing():
    """A unit that changes no outcome gets 0, not nearly 0, and symmetric players agree exactly in enumeration."""
    inner = table_game(5, seed=1)

    def game(kept):
        return inner(kept[:, [0, 1, 2, 4, 5]])

    found = shapley_values(game, 6, spec=ShapleySpec(most=40, per_round=8, tolerance=0.1))
    np.testing.assert_array_equal(found.value[3], 0.0)
    np.testing.assert_array_equal(found.student[3], 0.0)
    np.testing.assert_array_equal(exact_shapley(game, 6)[3], 0.0)


def test_symmetric_players_are_worth_the_same():
    """Players that can be swapped have the same value; the interval of the difference holds 0 in sampling."""
    game = saturating_game(np.array([1.0, 1.0, 3.0, 2.0]))
    exact = exact_shapley(game, 4)
    np.testing.assert_allclose(exact[0], exact[1], atol=1e-14)
    found = shapley_values(game, 4, spec=ShapleySpec(most=2000, interval="student", delta=0.001))
    assert np.abs(found.value[0] - found.value[1])[0] < found.student[:2].sum()


def test_batch_changes_nothing_but_waste():
    """However many masks go to the game at a time, the values are the same to the bit, truncated or not."""
    game = steep_game(12)
    for tolerance in (None, 0.02):
        spec = ShapleySpec(most=20, per_round=10, tolerance=tolerance, patience=2, batch=1)
        one, many = (shapley_values(game, 12, spec=replace(spec, batch=batch)) for batch in (1, 1000))
        np.testing.assert_array_equal(one.value, many.value)
        np.testing.assert_array_equal(one.bias, many.bias)
        assert one.evaluations <= many.evaluations


def test_evaluations_are_those_made():
    """The reported evaluations are the masks the game saw; plain sampling reports its own cost."""
    game = Counted(steep_game(10))
    found = shapley_values(game, 10, spec=ShapleySpec(most=30, per_round=10, tolerance=0.02, patience=2))
    assert found.evaluations == game.masks < found.plain_evaluations
    game = Counted(table_game(6))
    found = shapley_values(game, 6, spec=ShapleySpec(most=30))
    assert found.evaluations == game.masks == found.plain_evaluations == 2 + 30 * 5


@pytest.mark.parametrize("order", ["independent", "antithetic"])
def test_truncation_bias_stays_within_its_bounds(order):
    """With the same permutations, ending walks early moves no value by more than either bound says."""
    game = steep_game(20)
    spec = ShapleySpec(most=60, order=order, bounds=(0, 1))
    whole = shapley_values(game, 20, spec=spec)
    short = shapley_values(game, 20, spec=replace(spec, tolerance=0.02))
    apart = np.abs(whole.value - short.value)
    assert short.cut_share.max() > 0.3
    assert short.evaluations < 0.8 * whole.evaluations
    assert (apart <= short.bias_monotone + 1e-12).all()
    assert (short.bias_monotone <= 0.02 * short.cut_share[:, None] + 1e-12).all()
    assert (apart[:, 0] <= short.bias + 1e-12).all()
    assert (whole.bias == 0).all()
    assert (short.residual <= 0).all()


@given(st.integers(0, 2**20))
def test_truncation_bias_of_any_game_stays_within_the_general_bound(seed):
    """In games where removals may help, the bound by the share of ended walks still holds."""
    game = table_game(7, seed=seed)
    spec = ShapleySpec(most=10, seed=seed)
    whole = shapley_values(game, 7, spec=spec)
    short = shapley_values(game, 7, spec=replace(spec, tolerance=0.5, patience=2))
    assert (np.abs(whole.value - short.value) <= short.bias[:, None] + 1e-12).all()


def test_truncation_waits_for_patience():
    """A walk ends at the patience-th near evaluation in a row, and players not reached get 0."""

    def game(kept):
        return (kept.sum(axis=1, keepdims=True) >= 9).astype(float)  # worth nothing after two of ten have left

    found = shapley_values(game, 10, spec=ShapleySpec(most=50, per_round=50, tolerance=0.0, patience=3, batch=50))
    # all, none, then per walk: 9 left is worth 1, and 8, 7, 6 are near
    assert found.evaluations == 2 + 50 * 4
    # a walk ends after 4 removals, so that 6 of its 10 players are not reached
    np.testing.assert_allclose(found.cut_share.sum(), 6)


def test_intervals_cover():
    """The Student interval covers at about its level, the Bernstein interval at no less; errors on both sides count."""
    game = saturating_game(np.array([1.0, 2.0, 4.0, 1.0, 3.0]))
    truth = exact_shapley(game, 5)
    for order in ("independent", "antithetic"):
        spec = ShapleySpec(most=60, per_round=60, delta=0.05, bounds=(0, 1), order=order)
        runs = [shapley_values(game, 5, spec=replace(spec, seed=seed)) for seed in range(400)]
        errors = np.abs([run.value - truth for run in runs])
        bernstein = (errors <= [run.bernstein for run in runs]).mean()
        student = (errors <= [run.student for run in runs]).mean()
        assert bernstein >= 0.9
        # 2,000 intervals, five of a game alike: standard error below 0.015
        assert 0.87 <= student <= 0.94


def test_radii_are_the_formulas():
    """Both half-widths equal their formulas written out, and are infinite below two samples."""
    v, n, log = np.array([0.02, 0.3]), 50, math.log(2 / 0.2)
    np.testing.assert_allclose(
        bernstein_radius(v, n, delta=0.2, width=2.0), np.sqrt(2 * v * log / n) + 7 * 2.0 * log / (3 * (n - 1))
    )
    np.testing.assert_allclose(student_radius(v, n, delta=0.025), 2.009575 * np.sqrt(v / n), rtol=1e-6)
    for radius in (bernstein_radius(v, 1, delta=0.2, width=1.0), student_radius(v, 0, delta=0.2)):
        assert np.isinf(radius).all()


def test_antithetic_pairs_steady_a_game_whose_marginals_depend_on_the_place():
    """With the same number of walks, the error is well below that of independent permutations."""
    game = saturating_game(np.arange(1.0, 9.0), power=2.0)
    truth = exact_shapley(game, 8)
    spec = ShapleySpec(most=20, per_round=20)
    error = {
        order: np.mean(
            [
                (shapley_values(game, 8, spec=replace(spec, order=order, seed=seed)).value - truth) ** 2
                for seed in range(60)
            ]
        )
        for order in ("independent", "antithetic")
    }
    assert error["antithetic"] < 0.3 * error["independent"]


def planted_game(*, players=40, strong=3, seed=0):
    """Three strong units among weak ones that share the rest; two outcomes whose strong units differ."""
    rng = np.random.default_rng(seed)
    weights = np.full((players, 2), 0.1 / players)
    weights[:strong, 0] = 0.25
    weights[strong : 2 * strong, 1] = 0.25
    crossed = rng.random((players, players)) * 0.1 / players**2

    def game(kept):
        both = np.einsum("mu,uv,mv->m", kept, crossed, kept, optimize=True)
        return kept @ weights + both[:, None]

    return game


@pytest.mark.parametrize("interval", ["bernstein", "student"])
def test_bandit_finds_the_planted_units(interval):
    """The planted units of each outcome come out on top, surely, and long before the budget is spent."""
    spec = ShapleySpec(most=2000, per_round=10, top=3, interval=interval, family="all", bounds=(0, 1))
    game = Counted(planted_game())
    found = shapley_values(game, 40, spec=spec)
    assert found.stopped == "settled"
    assert found.settled.all()
    assert set(found.top(3, outcome=0)) == {0, 1, 2}
    assert set(found.top(3, outcome=1)) == {3, 4, 5}
    assert game.masks == found.evaluations
    assert found.walks < spec.most


@pytest.mark.parametrize(("interval", "delta"), [("student", 0.001), ("bernstein", 0.025)])
def test_bandit_needs_fewer_evaluations_than_plain_sampling(interval, delta):
    """Where one pair is hard to tell apart, the others are left alone: far fewer evaluations for the same set."""
    # only two players are near the line, at 0.09
    weights = np.array([0.30, 0.20, 0.12, 0.06, 0.01, 0.01, 0.02, 0.01, 0.0, 0.0] + [0.0] * 30)
    keys = np.random.default_rng(5).random((40, 16))

    def game(kept):
        ripple = np.cos(2 * np.pi * (kept @ keys)).mean(axis=1) * 0.3  # marginals vary with the company
        return (kept @ weights + ripple)[:, None]

    # the ripple changes by 0.6 at most
    spec = ShapleySpec(most=4000, per_round=50, top=3, interval=interval, delta=delta, bounds=(-0.6, 0.9))
    found = shapley_values(game, 40, spec=spec)
    assert set(found.top(3)) == {0, 1, 2}
    assert found.stopped == "settled"
    assert found.evaluations < 0.5 * found.plain_evaluations
    assert found.count.max() > 2 * np.median(found.count)


def test_bandit_is_rarely_wrong():
    """With Bernstein intervals shared among all, the top set of a noisy game is found in every one of 20 runs."""
    weights = np.array([0.5, 0.25, 0.1, 0.1, 0.05])

    def game(kept):
        return ((kept @ weights) ** 2)[:, None]

    for seed in range(20):
        spec = ShapleySpec(most=4000, per_round=100, top=2, bounds=(0, 1), family="all", seed=seed)
        found = shapley_values(game, 5, spec=spec)
        assert found.stopped == "settled"
        assert set(found.top(2)) == {0, 1}


def test_ties_end_by_precision_or_budget():
    """Equal players on both sides of the line cannot be told apart: the budget ends it, or a precision."""
    game = saturating_game(np.ones(6))
    spec = ShapleySpec(most=200, per_round=20, top=2, interval="student")
    assert shapley_values(game, 6, spec=spec).stopped == "budget"
    found = shapley_values(game, 6, spec=replace(spec, precision=0.05))
    assert found.stopped == "settled"
    assert found.student.max() <= 0.05
    assert found.walks < 200


def test_top_of_all_players_samples_to_the_end():
    """Where `top` is everyone there is no line to draw: the values are those of plain sampling."""
    game, spec = table_game(4), ShapleySpec(most=40)
    plain, everyone = (shapley_values(game, 4, spec=replace(spec, top=top)) for top in (None, 4))
    np.testing.assert_array_equal(plain.value, everyone.value)
    assert everyone.walks == 40


def test_outcomes_without_a_value_ask_for_nothing():
    """A class without images is nan for every mask: it stays nan and neither prolongs nor prevents anything."""
    weights = np.array([0.5, 0.3, 0.0, 0.0])

    def game(kept):
        return np.stack([kept @ weights, np.full(len(kept), np.nan)], axis=1)

    spec = ShapleySpec(most=500, per_round=20, top=2, interval="student", tolerance=0.01, patience=1)
    found = shapley_values(game, 4, spec=spec)
    assert found.stopped == "settled"
    assert np.isnan(found.value[:, 1]).all() or np.isnan(found.residual[1])
    assert set(found.top(2)) == {0, 1}


def states(game, players, spec):
    """The state after every round."""
    kept = []
    shapley_values(game, players, spec=spec, keep=kept.append)
    return kept


@pytest.mark.parametrize("order", ["independent", "antithetic"])
def test_resume_goes_on_to_the_same_bits(order):
    """Stopped after any round, kept as arrays and taken up again, the result is that of one go, to the bit."""
    game = steep_game(12)
    spec = ShapleySpec(most=80, per_round=10, top=2, interval="student", order=order, tolerance=0.01, patience=2)
    whole = states(game, 12, spec)
    assert len(whole) > 2
    assert whole[-1].count.min() < whole[-1].count.max()
    assert whole[-1].cut.max() > 0
    for state in whole[:-1]:
        kept = ShapleyState.from_arrays({name: array.copy() for name, array in state.to_arrays().items()})
        last = []
        shapley_values(game, 12, spec=spec, state=kept, keep=last.append)
        for name, array in whole[-1].to_arrays().items():
            np.testing.assert_array_equal(last[-1].to_arrays()[name], array, err_msg=name)


def test_merge_is_associative_and_equals_one_pass():
    """Rounds merged in either grouping agree but for rounding, and with the moments of all samples at once."""
    game, players, spec = table_game(6, seed=2), 6, ShapleySpec(most=90, per_round=30, tolerance=0.3, patience=2)
    rounds = [
        walk_round(game, replace(plan_round(0, None, players=players, spec=spec), number=number), spec=spec)
        for number in range(3)
    ]
    left = merge_rounds(merge_rounds(rounds[0], rounds[1]), rounds[2])
    right = merge_rounds(rounds[0], merge_rounds(rounds[1], rounds[2]))
    for name, array in left.to_arrays().items():
        np.testing.assert_allclose(right.to_arrays()[name], array, atol=1e-12, err_msg=name)
    assert left.walks == 90
    assert left.rounds == 3
    singles = [
        walk_round(game, replace(plan_round(0, None, players=players, spec=spec), number=number), spec=spec).mean
        for number in range(3)
    ]
    np.testing.assert_allclose(left.mean, np.mean(singles, axis=0), atol=1e-12)
    np.testing.assert_allclose(estimates(left, spec=spec).value, left.mean)
    with pytest.raises(InputError, match="different games"):
        merge_rounds(left, walk_round(table_game(5), plan_round(0, None, players=5, spec=spec), spec=spec))


def test_merge_with_players_not_sampled():
    """Players left out of a round keep what they had; those never sampled stay at nothing."""
    game, spec = table_game(4), ShapleySpec(most=20, per_round=10)
    first = walk_round(game, plan_round(0, None, players=4, spec=spec), spec=spec)
    planned = replace(plan_round(1, first, players=4, spec=spec), active=np.array([True, False, False, True]))
    second = walk_round(game, planned, spec=spec)
    both = merge_rounds(first, second)
    np.testing.assert_array_equal(both.mean[1:3], first.mean[1:3])
    np.testing.assert_array_equal(both.squares[1:3], first.squares[1:3])
    np.testing.assert_array_equal(both.count, [20, 10, 10, 20])
    np.testing.assert_array_equal(merge_rounds(second, second).mean[1:3], 0.0)


def test_settled_neighbours_are_stepped_over():
    """A round that samples one player evaluates at most two masks per walk, and finds the same marginals."""
    game, spec = table_game(9, seed=4), ShapleySpec(most=10, per_round=10)
    planned = plan_round(0, None, players=9, spec=spec)
    everyone = walk_round(game, planned, spec=spec)
    one = walk_round(game, replace(planned, active=np.arange(9) == 4), spec=spec)
    assert one.evaluations <= 2 + 2 * 10
    np.testing.assert_array_equal(one.mean[4], everyone.mean[4])
    np.testing.assert_array_equal(one.squares[4], everyone.squares[4])
    assert one.complete == 0
    assert everyone.complete == 10


def test_seed_decides():
    """The same seed gives the same bits, another one others."""
    game = table_game(6)
    first, again, other = (
        shapley_values(game, 6, spec=ShapleySpec(most=10, per_round=5, seed=seed)).value for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"most": 0}, "most"),
        ({"seed": -1}, "seed"),
        ({"top": 0}, "top"),
        ({"delta": 0.5}, "delta"),
        ({"bounds": (0.1, 1.0)}, "bounds"),
        ({"tolerance": -0.1}, "tolerance"),
        ({"order": "antithetic", "per_round": 5}, "pairs"),
    ],
)
def test_bad_specs_are_refused(wrong, match):
    """Every number out of range is refused by name."""
    with pytest.raises(InputError, match=match):
        ShapleySpec(**wrong)


def test_bad_games_and_states_are_refused():
    """A game of one flat outcome, no players, or a state of another game are named for what they are."""
    spec = ShapleySpec(most=2)
    with pytest.raises(InputError, match="one column"):
        shapley_values(lambda kept: kept.sum(axis=1).astype(float), 3, spec=spec)
    with pytest.raises(InputError, match="at least one player"):
        shapley_values(table_game(2), 0, spec=spec)
    state = states(table_game(3), 3, spec)[-1]
    with pytest.raises(InputError, match="of 3 players"):
        shapley_values(table_game(4), 4, spec=spec, state=state)
