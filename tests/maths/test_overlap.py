"""Overlaps, their chance level, reuse and class order: laws, slow twins on sets, and the original's own tables."""

import gzip
import itertools
import math

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from scipy.cluster import hierarchy
from torch.nn import functional

from neuronscope.errors import InputError
from neuronscope.maths import importance, overlap
from neuronscope.maths.selectivity import class_moments

memberships = hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 5)))


@st.composite
def two_memberships(draw):
    """Sets of units of one layer, for the rows and for the columns of a comparison."""
    units = draw(st.integers(1, 9))
    return tuple(draw(hnp.arrays(np.bool_, (units, draw(st.integers(1, 4))))) for _ in range(2))


def sets_of(membership):
    """Each class's units as a Python set."""
    return [set(np.flatnonzero(column).tolist()) for column in membership.T]


def random_sets(rng, *, units, sizes):
    """Independent random sets of the given sizes."""
    membership = np.zeros((units, len(sizes)), dtype=bool)
    for c, size in enumerate(sizes):
        membership[rng.choice(units, size, replace=False), c] = True
    return membership


def quotient(above, below):
    """Division that is nan where nothing is divided by."""
    return above / below if below else float("nan")


@given(two_memberships())
def test_measures_equal_python_sets(pair):
    """Every measure of every pair is what Python's sets give, also between different memberships."""
    first, second = pair
    n = len(first)
    found = {
        name: getattr(overlap, name)(first, second)
        for name in ("overlap_coefficient", "expected_overlap", "jaccard", "common_share", "chance_corrected")
    }
    for (i, a), (j, b) in itertools.product(enumerate(sets_of(first)), enumerate(sets_of(second))):
        smaller, chance = min(len(a), len(b)), len(a) * len(b) / n
        expected = {
            "overlap_coefficient": quotient(len(a & b), smaller),
            "expected_overlap": quotient(chance, smaller),
            "jaccard": quotient(len(a & b), len(a | b)),
            "common_share": len(a & b) / n,
            "chance_corrected": quotient(len(a & b) - chance, smaller - chance if smaller < n else 0)
            if max(len(a), len(b)) < n
            else float("nan"),
        }
        for name, value in expected.items():
            assert found[name][i, j] == pytest.approx(value, abs=1e-12, nan_ok=True), name


@given(memberships)
def test_one_call_gives_all_measures(membership):
    """`class_overlap` holds the same matrices as the single functions, symmetric, with sizes on the diagonal."""
    found = overlap.class_overlap(membership)
    for name, function in (
        ("overlap", overlap.overlap_coefficient),
        ("expected", overlap.expected_overlap),
        ("jaccard", overlap.jaccard),
        ("kappa", overlap.chance_corrected),
        ("p", overlap.hypergeometric_p),
    ):
        matrix = getattr(found, name)
        np.testing.assert_array_equal(matrix, function(membership))
        np.testing.assert_array_equal(matrix, matrix.T)
    assert found.units == len(membership)
    np.testing.assert_array_equal(np.diag(found.common), found.sizes)
    assert set(np.diag(found.overlap)[found.sizes > 0]) <= {1.0}


@given(memberships)
def test_measures_have_their_ranges_and_order(membership):
    """Jaccard is at most the overlap, the share at most Jaccard, and kappa at most 1; the order of units is nothing."""
    found = overlap.class_overlap(membership)
    defined = ~np.isnan(found.overlap)
    assert (found.jaccard[defined] <= found.overlap[defined]).all()
    both = ~np.isnan(found.jaccard)
    assert (overlap.common_share(membership)[both] <= found.jaccard[both]).all()
    assert np.nanmax(found.kappa, initial=0.0) <= 1
    np.testing.assert_array_equal(overlap.class_overlap(membership[::-1]).p, found.p)


@given(two_memberships())
def test_hypergeometric_p_counts_all_random_sets(pair):
    """The p-value is the share of all sets of one size that have at least as much in common with the other set."""
    first, second = pair
    p = overlap.hypergeometric_p(first, second)
    for (i, a), (j, b) in itertools.product(enumerate(sets_of(first)), enumerate(sets_of(second))):
        drawn = [len(b & set(random)) >= len(a & b) for random in itertools.combinations(range(len(first)), len(a))]
        assert p[i, j] == pytest.approx(sum(drawn) / len(drawn), rel=1e-12)


def test_hypergeometric_p_equals_scipy_in_wide_layers():
    """In layers of 40 and 2,048 units, from sure to 1e-300, p is SciPy's survival function."""
    rng = np.random.default_rng(0)
    for units in (40, 2048):
        membership = random_sets(rng, units=units, sizes=[0, 1, units // 9, units // 9, units // 3, units - 1, units])
        found = overlap.class_overlap(membership)
        a, b = found.sizes[:, None], found.sizes[None]
        oracle = stats.hypergeom.sf(found.common - 1, units, a, b)
        # log factorials near 13,000 keep 12 digits
        np.testing.assert_allclose(found.p, oracle, rtol=1e-10, atol=1e-300)


def test_random_sets_are_at_chance():
    """Independent sets have kappa 0 on average, the expected overlap, and p-values that are not too small."""
    rng = np.random.default_rng(1)
    membership = random_sets(rng, units=64, sizes=[10, 10, 19, 19, 30] * 40)
    found = overlap.class_overlap(membership)
    pairs = np.triu_indices(200, 1)
    # 20,000 pairs of standard deviation near 0.15; pairs share sets, hence the room
    assert abs(found.kappa[pairs].mean()) < 0.005
    assert abs((found.overlap - found.expected)[pairs].mean()) < 0.005
    assert (found.p[pairs] <= 0.05).mean() < 0.055
    mean = overlap.pair_mean(found.kappa)
    assert mean.low < 0 < mean.high


def test_kappa_at_its_ends():
    """Equal and nested sets have 1, sets that share what chance gives 0, disjoint ones less; full layers nan."""
    a = np.array([1, 1, 0, 0], dtype=bool)
    other = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=bool).T
    kappa = overlap.chance_corrected(a[:, None], other)[0]
    np.testing.assert_array_equal(kappa, [1, 1, 0, -1, np.nan, np.nan])


def test_chance_corrected_is_cohens_kappa_for_equal_sizes():
    """For sets of one size it is Cohen's kappa of the two yes-no judgements over the units."""
    rng = np.random.default_rng(2)
    membership = random_sets(rng, units=30, sizes=[11] * 6)
    kappa = overlap.chance_corrected(membership)
    for i, j in itertools.combinations(range(6), 2):
        agree = (membership[:, i] == membership[:, j]).mean()
        chance = (11 / 30) ** 2 + (19 / 30) ** 2
        assert kappa[i, j] == pytest.approx((agree - chance) / (1 - chance))


similarities = st.integers(2, 7).flatmap(
    lambda c: hnp.arrays(np.float64, (c, c), elements=st.one_of(st.floats(-1, 1), st.just(float("nan"))))
)


@given(similarities)
def test_pair_mean_equals_a_loop(matrix):
    """Mean and jackknife ends are those of leaving out one class after another; the diagonal plays no part."""
    matrix = np.triu(matrix) + np.triu(matrix, 1).T
    classes = range(len(matrix))

    def mean_of(kept):
        values = [matrix[i, j] for i, j in itertools.combinations(kept, 2) if not math.isnan(matrix[i, j])]
        return np.mean(values) if values else float("nan")

    found = overlap.pair_mean(matrix)
    assert found.value == pytest.approx(mean_of(classes), abs=1e-12, nan_ok=True)
    without = [mean_of([k for k in classes if k != c]) for c in classes]
    if len(matrix) < 3 or np.isnan(without).any():
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        return
    error = math.sqrt((len(matrix) - 1) * np.var(without))
    half = stats.t.ppf(0.975, len(matrix) - 1) * error
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=1e-9)


def test_interval_over_classes_covers_what_pairs_alone_would_miss():
    """Where classes differ, the jackknife covers the true mean; taking pairs as independent does not."""
    rng = np.random.default_rng(3)
    covered, naive = 0, 0
    for _ in range(1000):
        effect = rng.normal(0.1, 0.2, size=10)
        noise = rng.normal(0, 0.1, size=(10, 10))
        matrix = effect[:, None] + effect[None] + noise + noise.T
        found = overlap.pair_mean(matrix)
        covered += found.low <= 0.2 <= found.high
        values = matrix[np.triu_indices(10, 1)]
        naive += abs(values.mean() - 0.2) < 2.02 * values.std(ddof=1) / math.sqrt(45)
    assert 930 <= covered <= 980
    assert naive < 800


@given(st.integers(1, 3), st.data())
def test_split_half_kappa_is_kappa_of_the_same_class(splits, data):
    """Per split, it is the diagonal of the comparison of all classes of one half with all of the other."""
    shape = (splits, data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4)))
    first, second = (data.draw(hnp.arrays(np.bool_, shape)) for _ in range(2))
    found = overlap.split_half_kappa(first, second)
    for s in range(splits):
        np.testing.assert_array_equal(found[s], np.diag(overlap.chance_corrected(first[s], second[s])))


def test_modularity_gap_is_large_for_modules_and_none_for_noise():
    """Repeatable, separate sets have a gap near 1 with a narrow interval; random choices one that holds 0."""
    rng = np.random.default_rng(4)
    modules = np.kron(np.eye(10, dtype=bool), np.ones((6, 1), dtype=bool))
    noise = [random_sets(rng, units=60, sizes=[6] * 10) for _ in range(2)]
    gaps = []
    for first, second in ((modules, modules), noise):
        own = overlap.split_half_kappa(first[None], second[None]).mean(axis=0)
        gaps.append(overlap.modularity_gap(own, overlap.chance_corrected(first, second)))
    assert gaps[0].value == pytest.approx(1 + 1 / 9)  # separate sets share less than chance gives
    assert gaps[0].high - gaps[0].low < 1e-9
    assert gaps[1].low < 0 < gaps[1].high


def test_modularity_gap_is_a_difference_of_means_with_a_jackknife():
    """Value and ends equal a loop that leaves out one class at a time from both means."""
    rng = np.random.default_rng(5)
    own, between = rng.random(5), rng.random((5, 5))
    own[3] = np.nan

    def gap(kept):
        pairs = [between[i, j] for i in kept for j in kept if i != j]
        return np.nanmean(own[kept]) - np.mean(pairs)

    without = [gap([k for k in range(5) if k != c]) for c in range(5)]
    half = stats.t.ppf(0.95, 4) * math.sqrt(4 * np.var(without))
    found = overlap.modularity_gap(own, between, level=0.9)
    expected = gap(list(range(5)))
    assert (found.value, found.low, found.high) == pytest.approx((expected, expected - half, expected + half))


@given(memberships)
def test_reuse_equals_counting(membership):
    """Counts, histogram, kinds and fractions agree with each other and with a loop; fractions add up to 1."""
    found = overlap.reuse(membership)
    classes = membership.shape[1]
    counts = [sum(unit in chosen for chosen in sets_of(membership)) for unit in range(len(membership))]
    assert found.counts.tolist() == overlap.reuse_counts(membership).tolist() == counts
    assert found.histogram.tolist() == [counts.count(k) for k in range(classes + 1)]
    assert found.dead + found.specialised + found.shared == pytest.approx(1)
    kinds = overlap.reuse_kinds(membership).tolist()
    for kind, k in zip(kinds, counts, strict=True):
        expected = {0: "dead", 1: "specialised"}.get(k, "universal" if k == classes else "shared")
        assert kind == expected
    assert found.universal == pytest.approx(counts.count(classes) / len(counts))


@given(memberships)
def test_expected_reuse_is_the_sum_over_all_outcomes(membership):
    """The chance histogram is that of independent yes-no draws with each class's share, all outcomes enumerated."""
    units, classes = membership.shape
    shares = membership.mean(axis=0)
    expected = np.zeros(classes + 1)
    for outcome in itertools.product([False, True], repeat=classes):
        expected[sum(outcome)] += units * np.prod(np.where(outcome, shares, 1 - shares))
    np.testing.assert_allclose(overlap.reuse(membership).expected, expected, atol=1e-12)


def test_expected_reuse_is_what_random_sets_give():
    """The mean histogram of 500 independent draws of sets of these sizes is the expected one."""
    rng = np.random.default_rng(6)
    drawn = [overlap.reuse(random_sets(rng, units=50, sizes=[5, 20, 30])) for _ in range(500)]
    # bins vary by about 3 units per draw
    np.testing.assert_allclose(np.mean([d.histogram for d in drawn], axis=0), drawn[0].expected, atol=0.5)


def test_class_order_puts_groups_together():
    """Two groups of classes come out side by side, and the last merge joins them at their mean distance."""
    group = np.array([0, 1, 0, 1, 0, 1])
    similarity = np.where(group[:, None] == group[None], 0.9, -0.2)
    similarity[0, 1] = similarity[1, 0] = np.nan  # counts as 0
    found = overlap.class_order(similarity)
    assert sorted(found.order.tolist()) == list(range(6))
    assert np.count_nonzero(np.diff(group[found.order])) == 1
    assert found.linkage[-1, 2] == pytest.approx((8 * 1.2 + 1.0) / 9)
    assert hierarchy.leaves_list(found.linkage).tolist() == found.order.tolist()
    again = overlap.class_order(similarity)
    np.testing.assert_array_equal(again.linkage, found.linkage)


@pytest.mark.parametrize("classes", [0, 1])
def test_few_classes_have_an_order_without_a_tree(classes):
    """None or one class needs no clustering."""
    found = overlap.class_order(np.ones((classes, classes)))
    assert found.order.tolist() == list(range(classes))
    assert found.linkage.shape == (0, 4)


@given(two_memberships())
def test_original_formulas_equal_python_lists(pair):
    """Place by place, and list against list, as the original compares them."""
    first, second = pair
    found, lists = overlap.positional_share(first, second), overlap.list_equality_share(first, second)
    for (i, a), (j, b) in itertools.product(enumerate(sets_of(first)), enumerate(sets_of(second))):
        one, two = sorted(a), sorted(b)
        if not one and not two:
            assert np.isnan([found[i, j], lists[i, j]]).all()
            continue
        same = sum(x == y for x, y in zip(one, two, strict=True)) if len(one) == len(two) else 0
        assert found[i, j] == pytest.approx(quotient(same, len(one)) if one else 0)
        assert lists[i, j] == pytest.approx(1 / len(one) if one == two else 0)


def test_memberships_of_different_layers_are_refused():
    """Sets of units of layers of different width cannot be compared."""
    with pytest.raises(InputError, match="have 3 and 4; compare layer by layer"):
        overlap.jaccard(np.ones((3, 1), dtype=bool), np.ones((4, 1), dtype=bool))
    with pytest.raises(InputError, match="split by split"):
        overlap.split_half_kappa(np.ones((1, 3, 1), dtype=bool), np.ones((2, 3, 1), dtype=bool))
    with pytest.raises(InputError, match="0 and 1"):
        overlap.pair_mean(np.ones((4, 4)), level=95.0)


def test_layers_without_units():
    """An empty layer gives nan, not an error."""
    empty = np.zeros((0, 2), dtype=bool)
    found = overlap.class_overlap(empty)
    assert np.isnan(found.kappa).all()
    assert (found.p == 1).all()
    assert math.isnan(overlap.reuse(empty).dead)


# The original's tables, from its own weights and the 10,000 test images of MNIST (golden/mnist-subnetworks).
# Its published numbers, and ours where they are deterministic.


def idx_array(path):
    """The array in a compressed IDX file of unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(raw[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


@pytest.fixture(scope="session")
def original(test_data):
    """Labels, unit statistics of the six layers with weights (post-activation), and the output layer's weights."""
    images = idx_array(test_data / "mnist" / "t10k-images-idx3-ubyte.gz").astype(np.float32) / 255
    labels = idx_array(test_data / "mnist" / "t10k-labels-idx1-ubyte.gz").astype(np.int64)
    names = ("conv2d", "conv2d_1", "conv2d_2", "conv2d_3", "dense", "dense_1")
    with h5py.File(test_data / "golden" / "mnist-subnetworks" / "original_model.h5") as file:
        groups = [file["model_weights"][name][name] for name in names]
        weights = [tuple(torch.from_numpy(group[part][()]) for part in ("kernel:0", "bias:0")) for group in groups]
    layers = [[] for _ in names]
    for block in torch.from_numpy(images)[:, None].split(500):
        maps = block
        for layer, (kernel, bias) in enumerate(weights[:4]):
            maps = functional.conv2d(maps, kernel.permute(3, 2, 0, 1), bias, padding=kernel.shape[0] // 2).relu()
            layers[layer].append(maps.double().mean(dim=(2, 3)))
            if layer % 2:
                maps = functional.max_pool2d(maps, 2)
        hidden = functional.linear(maps.permute(0, 2, 3, 1).flatten(1), weights[4][0].T, weights[4][1]).relu()
        layers[4].append(hidden.double())
        layers[5].append(functional.linear(hidden, weights[5][0].T, weights[5][1]).softmax(dim=1).double())
    return labels, [torch.cat(parts).numpy() for parts in layers], [part.double().numpy() for part in weights[5]]


def file_halves(labels):
    """The original's halves of each class's images: the first half in the order of the file, and the rest."""
    place = np.zeros(len(labels), dtype=np.int64)
    for c in range(10):
        members = np.flatnonzero(labels == c)
        place[members] = np.arange(len(members)) >= len(members) // 2
    return [np.where(place == half, labels, -1) for half in (0, 1)]


def thresholded(scores, labels, layer):
    """The units the original's thresholding chooses: all of the output layer, else those above the 70th percentile."""
    means = class_moments(scores, labels, classes=10).means
    return np.ones(means.shape, dtype=bool) if layer == 5 else importance.threshold_by_percentile(means).above


def masked(scores, labels, layer, *, ties="original"):
    """The masks of the original's main script for one layer."""
    found = class_moments(scores, labels, classes=10)
    fraction = float(importance.layer_fractions(6)[layer])
    return importance.original_mask(found.means, found.variances, found.counts, fraction=fraction, ties=ties)


GOLDEN_OVERLAP = {
    # layer: between classes by the original's formula, overlap, Jaccard, share, chance; reuse by its formula, overlap
    0: (0.684, 0.898, 0.824, 0.281, 0.312, 0.970, 0.980),
    1: (0.411, 0.731, 0.603, 0.228, 0.312, 0.840, 0.910),
    2: (0.281, 0.758, 0.627, 0.225, 0.297, 0.505, 0.905),
    3: (0.292, 0.628, 0.470, 0.186, 0.297, 0.684, 0.916),
    4: (0.056, 0.284, 0.170, 0.087, 0.305, 0.556, 0.962),
    5: (0.100, 1, 1, 1, 1, 0.100, 1),
}


@pytest.mark.parametrize("layer", range(6))
def test_golden_overlap_of_thresholding(original, layer):
    """All columns of the original's overlap table, over all 45 pairs and 10 classes, to the printed digits."""
    labels, layers, _ = original
    sets = thresholded(layers[layer], labels, layer)
    halves = [thresholded(layers[layer], half, layer) for half in file_halves(labels)]
    formula = overlap.list_equality_share if layer == 5 else overlap.positional_share
    found = overlap.class_overlap(sets)
    between = [
        overlap.pair_mean(matrix).value
        for matrix in (formula(sets), found.overlap, found.jaccard, overlap.common_share(sets), found.expected)
    ]
    again = [np.diag(function(*halves)).mean() for function in (formula, overlap.overlap_coefficient)]
    # half a unit of the last printed digit
    np.testing.assert_allclose(between + again, GOLDEN_OVERLAP[layer], atol=0.0005 + 1e-9)
    assert set(found.sizes) == {(10, 10, 19, 19, 39, 10)[layer]}


def test_golden_modularity_of_thresholding(original):
    """With chance taken out, thresholding is repeatable in every layer and keeps classes apart in the last."""
    labels, layers, _ = original
    gaps = []
    for layer in range(5):
        halves = np.stack([thresholded(layers[layer], half, layer) for half in file_halves(labels)])
        own = overlap.split_half_kappa(halves[:1], halves[1:])[0]
        assert own.mean() > 0.85
        gaps.append(overlap.modularity_gap(own, overlap.chance_corrected(*halves)))
    assert gaps[0].value < 0.2
    assert gaps[4].value > 0.9
    assert gaps[4].low > gaps[0].high


@pytest.mark.parametrize("ties", ["original", "stable"])
def test_golden_masks(original, ties):
    """Only the hidden dense layer ever has ON units, 33 of 128 for every class; nothing is ever OFF."""
    labels, layers, _ = original
    for layer in range(5):
        mask = masked(layers[layer], labels, layer, ties=ties)
        assert set((mask == importance.ON).sum(axis=0)) == {33 if layer == 4 else 0}
        assert not (mask == importance.OFF).any()
    found = class_moments(layers[4], labels, classes=10)
    z = importance.fixed_threshold_z(found.means, found.variances, found.counts, threshold=0.55)
    # as many are tied at a probability of exactly 1: which 33 are taken is for the sort to say
    tied = ((1 - stats.norm.cdf(-z)) == 1).sum(axis=0)
    assert (tied.min(), tied.max()) == (42, 54)


def test_golden_overlap_of_masking(original):
    """Shares of 0.0875 and 0.248 against a ceiling of 0.258; Jaccard 0.208 between classes, 0.926 for the same one."""
    labels, layers, _ = original
    sets = masked(layers[4], labels, 4) == importance.ON
    halves = [masked(layers[4], half, 4) == importance.ON for half in file_halves(labels)]
    # which of the tied units are taken depends on the processor's sort, hence the wider tolerances
    assert overlap.pair_mean(overlap.common_share(sets)).value == pytest.approx(0.0875, abs=0.02)
    assert overlap.pair_mean(overlap.jaccard(sets)).value == pytest.approx(0.208, abs=0.05)
    assert np.diag(overlap.common_share(*halves)).mean() == pytest.approx(0.248, abs=0.02)
    assert np.diag(overlap.jaccard(*halves)).mean() == pytest.approx(0.926, abs=0.06)


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("mean", -0.171),
        ("fixed threshold", -0.208),
        ("contrast", -0.203),
    ],
)
def test_golden_drop_of_ablating_the_best_33(original, rule, change):
    """Silencing the 33 best dense units of a class costs it as much accuracy as the reference says, others nothing."""
    labels, layers, (weight, bias) = original
    found = class_moments(layers[4], labels, classes=10)
    scores = {
        "mean": found.means,
        "contrast": importance.contrast(found.means),
        "fixed threshold": importance.fixed_threshold_z(found.means, found.variances, found.counts, threshold=0.55),
    }[rule]
    drops, others = ablated(
        layers[4], labels, weight, bias, importance.choose(scores, budget=importance.Budget("count", 33))
    )
    assert drops.mean() == pytest.approx(change, abs=0.0005)
    assert abs(others.mean()) < 0.005


def test_golden_drop_of_the_masks_depends_on_ties(original):
    """With ties by unit number the second class loses 3 images, as published; every evidence-based order costs more."""
    labels, layers, (weight, bias) = original
    stable, _ = ablated(layers[4], labels, weight, bias, masked(layers[4], labels, 4, ties="stable") == importance.ON)
    assert round(stable[1] * (labels == 1).sum()) == -3
    other, _ = ablated(layers[4], labels, weight, bias, masked(layers[4], labels, 4) == importance.ON)
    # the reference gives -5.5 to -8.0 points, by the order of the ties
    assert -0.0805 <= stable.mean() <= -0.0545
    assert -0.0805 <= other.mean() <= -0.0545
    found = class_moments(layers[4], labels, classes=10)
    mask = importance.contrastive_mask(found.means, found.variances, found.counts, fraction=0.26)
    assert set((mask == importance.ON).sum(axis=0)) <= set(range(20, 34))
    corrected, others = ablated(layers[4], labels, weight, bias, mask == importance.ON)
    assert corrected.mean() < -0.15
    assert abs(others.mean()) < 0.005


def ablated(hidden, labels, weight, bias, sets):
    """Change of each class's accuracy, and of the others', when the class's units are silenced in the hidden layer."""
    own, others = [], []
    right = (hidden @ weight + bias).argmax(axis=1) == labels
    for c in range(10):
        change = ((hidden * ~sets[:, c]) @ weight + bias).argmax(axis=1) == labels
        own.append(change[labels == c].mean() - right[labels == c].mean())
        others.append(change[labels != c].mean() - right[labels != c].mean())
    return np.array(own), np.array(others)
