"""Rows of a Shapley design: what is fixed and what is drawn anew, counts, permutations."""

from __future__ import annotations

from itertools import permutations
from math import factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from neuronscope.errors import InputError
from neuronscope.maths.shapley_effects import ShapleyDesign, lexicographic, original_design

SHARED = ShapleyDesign(groups=((0, 2), (1,), (3, 4)), permutations=50, outer=2, inner=3, seed=9)
FRESH = ShapleyDesign(groups=((0, 2), (1,), (3, 4)), permutations=50, outer=2, inner=3, seed=9, draws="fresh")
TIED = ShapleyDesign(groups=((0,), (1, 3), (2, 3)), permutations=50, seed=9)


def every(design):
    """All rows."""
    return design.unit(np.arange(len(design)))


@given(st.sampled_from([SHARED, FRESH, TIED]), st.lists(st.integers(0, 349), max_size=30))
def test_a_row_is_the_same_in_any_company(design, rows):
    """Rows asked for alone, in any order or twice are those of the whole design."""
    chosen = np.array(rows, dtype=np.int64) % len(design)
    np.testing.assert_array_equal(design.unit(chosen), every(design)[chosen])


@pytest.mark.parametrize("design", [SHARED, FRESH, TIED])
def test_players_that_have_joined_are_drawn_anew(design):
    """Within a block, columns of players to come are those of the first row, all others are new in each inner draw."""
    unit = every(design).reshape(design.blocks, design.block, design.columns)
    orders = design.order_of(np.arange(design.blocks))
    players = len(design.groups)
    for number, (block, order) in enumerate(zip(unit, orders, strict=True)):
        first = number // design.outer % players if design.draws == "fresh" else 0
        for step in range(design.steps):
            joined = {column for player in order[: first + step + 1] for column in design.groups[player]}
            rows = block[1 + step * (design.inner - 1) :][: design.inner - 1]
            for column in range(design.columns):
                values = np.array([block[0, column], *rows[:, column]])
                assert len(set(values)) == (design.inner if column in joined else 1)


def test_places_of_a_walk_share_their_draws():
    """The inner draws of a column are the same at each place after its player has joined."""
    walk = every(SHARED)[: SHARED.block]
    order = SHARED.order_of(np.array([0]))[0]
    last = walk[-2:]
    for step, rows in enumerate(walk[1:].reshape(3, 2, -1)):
        joined = [column for player in order[: step + 1] for column in SHARED.groups[player]]
        np.testing.assert_array_equal(rows[:, joined], last[:, joined])


def test_blocks_are_independent():
    """No number occurs in two blocks."""
    for design in (SHARED, FRESH):
        unit = every(design).reshape(design.blocks, -1)
        distinct = sum(len(np.unique(block)) for block in unit)
        assert len(np.unique(unit)) == distinct


@pytest.mark.parametrize("draws", ["shared", "fresh"])
def test_coordinates_are_uniform(draws):
    """Every column of the rows with all inputs drawn is uniform in the cube, and columns are uncorrelated."""
    design = ShapleyDesign(groups=((0,), (1,), (2,)), permutations=3000, seed=1, draws=draws)
    unit = every(design)[design.full(np.arange(design.blocks))]
    assert unit.shape == (6000, 3)
    assert ((unit >= 0) & (unit < 1)).all()
    assert min(stats.kstest(unit[:, column], "uniform").pvalue for column in range(3)) > 1e-3
    assert np.abs(np.corrcoef(unit.T)[np.triu_indices(3, 1)]).max() < 0.05


def test_seeds_give_independent_designs():
    """Another seed gives other permutations and other rows."""
    other = ShapleyDesign(groups=SHARED.groups, permutations=50, outer=2, inner=3, seed=10)
    blocks = np.arange(SHARED.blocks)
    assert not np.intersect1d(every(other), every(SHARED)).size
    assert (other.order_of(blocks) != SHARED.order_of(blocks)).any()
    assert other.fingerprint != SHARED.fingerprint == ShapleyDesign(**vars_of(SHARED)).fingerprint


def vars_of(design):
    """The fields of a design."""
    return {name: getattr(design, name) for name in design.__dataclass_fields__}


def test_random_permutations_are_uniform():
    """All 6 orders of 3 players come equally often (chi-square), and outer draws share one."""
    design = ShapleyDesign(groups=((0,), (1,), (2,)), permutations=6000, outer=2, seed=2)
    orders = design.order_of(np.arange(design.blocks))
    np.testing.assert_array_equal(orders[::2], orders[1::2])
    counts = [(orders[::2] == order).all(axis=1).sum() for order in permutations(range(3))]
    assert sum(counts) == 6000
    assert stats.chisquare(counts).pvalue > 1e-3


def test_fresh_blocks_say_who_joins_and_who_follows():
    """The player added at a block's place, and the next one, -1 after the last."""
    blocks = np.arange(FRESH.blocks)
    added, following = FRESH.added(blocks)[:, 0], FRESH.following(blocks)
    for number, order in enumerate(FRESH.order_of(blocks)):
        place = number // 2 % 3
        assert added[number] == order[place]
        assert following[number] == (order[place + 1] if place < 2 else -1)
    np.testing.assert_array_equal(SHARED.added(np.arange(100)), SHARED.order_of(np.arange(100)))


def test_many_players_have_random_permutations():
    """30 players, whose permutations no 64-bit number counts."""
    design = ShapleyDesign(groups=tuple((column,) for column in range(30)), permutations=5, seed=0)
    assert len(design) == 5 * 31
    assert (np.sort(design.order_of(np.arange(5)), axis=1) == np.arange(30)).all()


@pytest.mark.parametrize("players", [1, 2, 3, 5])
def test_lexicographic_numbers(players):
    """The k-th permutation is the k-th that `itertools` lists."""
    expected = list(permutations(range(players)))
    found = lexicographic(np.arange(factorial(players)), players=players)
    assert [tuple(order) for order in found.tolist()] == expected


def test_the_last_permutation_of_twenty():
    """Numbers near 2^61 are decoded without overflow."""
    last = lexicographic(np.array([factorial(20) - 1]), players=20)
    assert last[0].tolist() == list(range(19, -1, -1))


def test_permutations_of_the_original():
    """Numbers drawn without replacement and put in another order by one generator, decoded in lexicographic order."""
    design = original_design([(column,) for column in range(15)], permutations=256, outer=2, inner=2)
    generator = np.random.default_rng(190)
    numbers = generator.permutation(generator.choice(factorial(15), 256, replace=False, shuffle=True))
    for place, number in enumerate(numbers):
        left, rest, order = list(range(15)), int(number), []
        for remaining in range(14, -1, -1):
            digit, rest = divmod(rest, factorial(remaining))
            order.append(left.pop(digit))
        assert design.order_of(np.array([place * 15 * 2]))[0].tolist() == order
    assert len({tuple(order) for order in design.order_of(np.arange(256) * 30).tolist()}) == 256


@pytest.mark.parametrize(
    ("columns", "permuted", "outer", "inner", "rows"),
    [
        (15, 256, 64, 16, 3_932_160),  # AlexNet
        (20, 256, 64, 16, 5_242_880),
        (15, 256, 64, 8, 1_966_080),  # ResNet18
        (20, 256, 64, 8, 2_621_440),
        (15, 128, 32, 8, 491_520),  # VGG11
        (20, 128, 32, 8, 655_360),
        (15, 128, 8, 8, 122_880),  # segments
        (20, 128, 8, 8, 163_840),
        (15, 8, 6, 4, 2_880),  # the authors' tests
        (20, 8, 6, 4, 3_840),
    ],
)
def test_the_original_scheme_has_the_rows_of_the_original(columns, permuted, outer, inner, rows):
    """P n O I forward passes in each published run."""
    groups = [(column,) for column in range(columns)]
    design = original_design(groups, permutations=permuted, outer=outer, inner=inner)
    assert len(design) == rows
    assert design.block == inner


@pytest.mark.parametrize(("inner", "outer", "rows"), [(2, 1, 100 * 9), (3, 1, 100 * 17), (2, 4, 400 * 9)])
def test_a_walk_evaluates_its_first_row_once(inner, outer, rows):
    """Shared draws have P O (1 + G (I - 1)) rows, a walk to a block."""
    design = ShapleyDesign(groups=tuple((column,) for column in range(8)), permutations=100, inner=inner, outer=outer)
    assert len(design) == rows
    assert design.blocks == design.walks == 100 * outer


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"groups": ()}, "do not cover the columns"),
        ({"groups": ((0,), ())}, "do not cover the columns"),
        ({"groups": ((0,), (2,))}, "expected each of 0 to 2 in some group"),
        ({"groups": ((0, 0), (1,))}, "none twice in the same group"),
        ({"groups": ((-1,), (0,))}, "do not cover the columns"),
        ({"permutations": 0}, "permutations of a Shapley design is at least 1, got 0"),
        ({"outer": 0}, "outer of a Shapley design is at least 1"),
        ({"inner": 1}, "inner of a Shapley design is at least 2, got 1"),
        ({"seed": -1}, "seed of a Shapley design is at least 0"),
        ({"permutations": 3, "order": "distinct"}, "2 players have 2 different permutations, 3 were asked for"),
        ({"groups": tuple((c,) for c in range(21)), "order": "distinct"}, "at most 20 players"),
    ],
)
def test_impossible_designs_are_refused(fault, message):
    """What is wrong is said before any row is made."""
    with pytest.raises(InputError, match=message):
        ShapleyDesign(**{"groups": ((0,), (1,)), "permutations": 2, **fault})


def test_rows_and_permutations_beyond_the_last_are_refused():
    """Row numbers from 0 to one less than the length, permutation numbers from 0 to n! - 1."""
    with pytest.raises(InputError, match="of a Shapley design of 100 rows"):
        ShapleyDesign(groups=((0,),), permutations=50).unit(np.array([3, 100]))
    with pytest.raises(InputError, match="numbered 0 to 5, got 0 to 6"):
        lexicographic(np.array([0, 6]), players=3)
