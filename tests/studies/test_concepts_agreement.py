"""Agreement between activation and coverage: against the definitions written plainly, and whatever the shards."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.checkpoint import decode, digest, encode
from neuronscope.errors import InputError
from neuronscope.maths.signatures import assemble, image_signatures
from neuronscope.maths.streams import state_bytes
from neuronscope.studies.concepts.agreement import Agreement, OtherImages, SignatureCoverage

CARRIES = (1, 2)  # unit 0 is explained by label 1, unit 1 by label 2


def labelled(rng, images, shape):
    """Label maps in blocks, and the signatures of them."""
    maps = rng.integers(0, 4, (images, 1, *shape))
    return maps, assemble(image_signatures(one) for one in maps)


def holding(signatures):
    """Which label sets carry each unit's label."""
    return [(signatures.table == label).any(1) for label in CARRIES]


def agreement(maps, coverage, **changes):
    """The fold between the maps' own limits."""
    flat = maps.movedim(1, 0).reshape(maps.shape[1], -1).double().numpy()
    given = {"lowest": flat.min(1), "highest": flat.max(1), "images": len(maps)} | changes
    return Agreement("m", coverage, **given)


def folded(fold, maps, *, first=0, batch=7):
    """The state after these images, numbered from `first`."""
    state = fold.start()
    for a in range(0, len(maps), batch):
        some = maps[a : a + batch]
        state = fold.add(state, {"index": torch.arange(first + a, first + a + len(some)), "m": some})
    return state


@st.composite
def cases(draw):
    """Maps of two units with ties and zeros, of several signs and scales, and coverage in a few steps."""
    n, side = draw(st.integers(2, 9)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (n, 2, side, side)
    values = draw(
        st.sampled_from(
            [
                rng.integers(-2, 3, shape),
                np.maximum(rng.normal(size=shape), 0),
                -rng.random(shape),
                3 + rng.random(shape),
            ]
        )
    )
    coverage = rng.choice([0, 0, 0.25, 0.5, 1], (n, 2, side, side)).astype(np.float32)
    scale = draw(st.sampled_from([1.0, 1e-3, 100.0]))
    return torch.from_numpy((scale * values).astype(np.float32)), coverage


def lookup(coverage):
    """Coverage that is given."""
    return lambda image: coverage[image]


@pytest.mark.parametrize(
    ("shape", "map_shape"), [((8, 6), (3, 2)), ((7, 7), (7, 7)), ((2, 3), (4, 6)), ((5, 5), (1, 1))]
)
def test_coverage_is_the_share_of_the_pixels_nearest_to_each_position(shape, map_shape):
    """Pixel by pixel: each belongs to position floor((p + 0.5) h / H); a finer map takes the pixel under its centre."""
    labels, signatures = labelled(np.random.default_rng(0), 3, shape)
    coverage = SignatureCoverage(signatures, holding(signatures), shape, map_shape)
    for image in range(3):
        found = coverage(image).reshape(2, *map_shape)
        for unit, label in enumerate(CARRIES):
            mask = labels[image, 0] == label
            for y in range(map_shape[0]):
                for x in range(map_shape[1]):
                    rows = [p for p in range(shape[0]) if int((p + 0.5) * map_shape[0] / shape[0]) == y]
                    lines = [p for p in range(shape[1]) if int((p + 0.5) * map_shape[1] / shape[1]) == x]
                    rows = rows if shape[0] >= map_shape[0] else [int((y + 0.5) * shape[0] / map_shape[0])]
                    lines = lines if shape[1] >= map_shape[1] else [int((x + 0.5) * shape[1] / map_shape[1])]
                    assert found[unit, y, x] == pytest.approx(mask[np.ix_(rows, lines)].mean(), abs=1e-6)


def test_coverage_of_more_units_than_a_byte_holds():
    """Eleven units: each is covered by its own formula."""
    _, signatures = labelled(np.random.default_rng(1), 2, (4, 4))
    rng = np.random.default_rng(2)
    holds = [rng.random(len(signatures)) < 0.5 for _ in range(11)]
    found = SignatureCoverage(signatures, holds, (4, 4), (4, 4))(1)
    assert found.tolist() == [[float(one[s]) for s in signatures.signature_map(1)] for one in holds]


def test_images_without_labels_are_refused():
    """An unknown image, label maps of another size, and maps of another resolution each get a clear message."""
    _, signatures = labelled(np.random.default_rng(0), 2, (4, 4))
    coverage = SignatureCoverage(signatures, holding(signatures), (4, 4), (2, 2))
    with pytest.raises(InputError, match="cover images 0 to 1"):
        coverage(2)
    with pytest.raises(InputError, match="16 pixels"):
        SignatureCoverage(signatures, holding(signatures), (5, 4), (2, 2))(0)
    maps = torch.rand(2, 2, 3, 3)
    with pytest.raises(InputError, match="2 units of 9 positions, the coverage 2 of 4"):
        folded(agreement(maps, coverage), maps)
    with pytest.raises(InputError, match="were announced"):
        folded(agreement(maps[:1], coverage), maps[:, :, :2, :2])


@given(cases())
def test_correlation_and_auroc_follow_their_definitions(case):
    """Against numpy's correlation and scikit-learn's weighted AUROC of every position; the latter within its bound."""
    from sklearn.metrics import roc_auc_score

    maps, coverage = case
    fold = agreement(maps, lookup(coverage), steps=16)
    found = fold.finish(folded(fold, maps))
    for unit in range(2):
        a = maps[:, unit].reshape(-1).double().numpy()
        y = coverage[:, unit].reshape(-1).astype(np.float64)
        if np.ptp(a) == 0 or y.max() == 0 or y.min() == 1:
            assert np.isnan(found["auroc"][unit])
            assert np.isnan(found["correlation"][unit])
            continue
        truth, weights = np.repeat([1, 0], len(a)), np.concatenate([y, 1 - y])
        exact = roc_auc_score(truth, np.tile(a, 2), sample_weight=weights)
        assert abs(found["auroc"][unit] - exact) <= found["auroc_error"][unit] + 1e-6  # shares come in steps of 2^-20
        if np.ptp(y):
            assert found["correlation"][unit] == pytest.approx(np.corrcoef(a, y)[0, 1], abs=1e-7)


@given(cases(), st.integers(1, 9), st.integers(1, 5))
def test_shards_and_batches_change_no_bit(case, cut, batch):
    """Parts merged in order, and batches of any size, give the bits of one pass; the state is as large as announced."""
    maps, coverage = case
    fold = agreement(maps, lookup(coverage))
    whole = folded(fold, maps)
    left = decode(encode(folded(fold, maps[:cut], batch=batch)))
    joined = fold.merge(left, folded(fold, maps[cut:], first=cut, batch=batch))
    assert encode(joined) == encode(whole)
    assert encode(fold.merge(fold.start(), whole)) == encode(whole)
    assert state_bytes(whole) <= fold.size({})


def test_flat_layers_are_maps_of_one_position():
    """A layer (n, u) gives what the same numbers as 1 x 1 maps give."""
    rng = np.random.default_rng(3)
    _, signatures = labelled(rng, 20, (4, 4))
    coverage = SignatureCoverage(signatures, holding(signatures), (4, 4), (1, 1))
    flat = torch.from_numpy(rng.random((20, 2)).astype(np.float32))
    fold = agreement(flat, coverage)
    assert encode(folded(fold, flat)) == encode(folded(fold, flat[:, :, None, None]))


def test_a_planted_unit_agrees_and_a_null_does_not():
    """A unit that measures its concept has AUROC and correlation near 1; with other images' coverage, near chance."""
    rng = np.random.default_rng(4)
    _, signatures = labelled(rng, 64, (8, 8))
    coverage = SignatureCoverage(signatures, holding(signatures), (8, 8), (4, 4))
    maps = torch.from_numpy(np.stack([coverage(i).reshape(2, 4, 4) for i in range(64)]))
    fold = agreement(maps, coverage)
    found = fold.finish(folded(fold, maps))
    assert found["correlation"].tolist() == pytest.approx([1, 1], abs=1e-7)
    assert (found["auroc"] > 0.75).all()  # a half-covered position is a covered and an uncovered one
    null = agreement(maps, OtherImages(coverage, np.roll(np.arange(64), 1)))
    chance = null.finish(folded(null, maps))
    assert (abs(chance["correlation"]) < 0.1).all()
    assert (chance["auroc_low"] < 0.5).all()
    assert (chance["auroc_high"] > 0.5).all()


def test_intervals_are_those_of_a_bootstrap_over_images():
    """Positions of an image go together here; intervals as wide as those from drawing whole images again."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(5)
    n, cells, draws = 160, 9, 300
    common = rng.normal(size=(n, 1))  # makes the positions of an image alike
    covered = (common + rng.normal(size=(n, cells)) > 0.5).astype(np.float32)
    a = (0.7 * common + covered + rng.normal(size=(n, cells))).astype(np.float32)
    maps = torch.from_numpy(a.reshape(n, 1, 3, 3))
    fold = agreement(maps, lookup(covered.reshape(n, 1, 3, 3)))
    found = fold.finish(folded(fold, maps))
    drawn = rng.integers(0, n, (draws, n))
    r = [np.corrcoef(a[one].reshape(-1), covered[one].reshape(-1))[0, 1] for one in drawn]
    areas = [roc_auc_score(covered[one].reshape(-1), a[one].reshape(-1)) for one in drawn]
    width = found["correlation_high"][0] - found["correlation_low"][0]
    assert width == pytest.approx(2 * 1.96 * np.std(r), rel=0.2)
    # 16 groups know the spread to about 18 %, and Student's t widens by 9 %
    width = found["auroc_high"][0] - found["auroc_low"][0]
    assert 0.6 < width / (2 * 1.96 * np.std(areas)) < 1.7


def test_what_cannot_be_measured_is_nan():
    """Constant, dead and broken units, and formulas that cover nothing or everything, have no agreement."""
    rng = np.random.default_rng(6)
    maps = torch.from_numpy(rng.random((6, 5, 2, 2)).astype(np.float32))
    maps[:, 0] = 0.3
    maps[2, 1, 0, 0] = torch.nan
    coverage = (rng.random((6, 5, 2, 2)) < 0.5).astype(np.float32)
    coverage[:, 2], coverage[:, 3] = 0, 1
    limits = {"lowest": np.array([0.3, 0, 0, 0, np.nan]), "highest": np.array([0.3, 1, 1, 1, np.nan])}
    fold = agreement(maps, lookup(coverage), **limits)
    for name, values in fold.finish(folded(fold, maps)).items():
        assert np.isnan(values).all(), name


def test_values_outside_the_known_limits_count_at_the_ends():
    """Images reported may exceed the limits of those searched: then the error bound grows, and still holds."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(7)
    maps = torch.from_numpy(rng.normal(size=(30, 1, 2, 2)).astype(np.float32))
    covered = (maps.numpy() + rng.normal(size=(30, 1, 2, 2)) > 0).astype(np.float32)
    exact = roc_auc_score(covered.reshape(-1), maps.numpy().reshape(-1))
    for low, high in ((-0.5, 0.5), (0.0, 1.0), (-1.0, 0.0), (-9.0, 9.0)):
        fold = agreement(maps, lookup(covered), lowest=np.array([low]), highest=np.array([high]))
        found = fold.finish(folded(fold, maps))
        assert abs(found["auroc"][0] - exact) <= found["auroc_error"][0] + 1e-9


def test_folds_travel_and_have_an_identity():
    """A fold with its coverage is pickled for workers, and another formula is another computation."""
    rng = np.random.default_rng(8)
    _, signatures = labelled(rng, 3, (4, 4))
    holds = holding(signatures)
    maps = torch.rand(3, 2, 2, 2)
    fold = agreement(maps, SignatureCoverage(signatures, holds, (4, 4), (2, 2)))
    there = pickle.loads(pickle.dumps(fold))  # noqa: S301 our own bytes
    assert encode(folded(there, maps)) == encode(folded(fold, maps))
    other = agreement(maps, SignatureCoverage(signatures, [~one for one in holds], (4, 4), (2, 2)))
    assert digest(fold) == digest(there) != digest(other)
