"""Units chosen from planted results: the large ones are, noise is not, and reasons have the original's form."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from neuronscope.augment import SETS
from neuronscope.errors import InputError, UnknownName
from neuronscope.maths.replicates import t_quantile
from neuronscope.models.segments import SEGMENTS, Segment, read_segments, write_segments
from neuronscope.result import Provenance, Result, unit_table
from neuronscope.studies.sensitivity.selection import above_p, select_units

FACTORS = (*SETS["set1"], "order", "class", "partition", "image")
REPLICATES = 8


def planted(truth, *, layers=("features.2", "features.5"), values=("first",), factors=FACTORS, sd=0.01, seed=0, **more):
    """A result as the study writes it: every share is its truth and the scatter of eight replicates."""
    rng = np.random.default_rng(seed)
    units = len(layers) * len(truth)
    whole = np.concatenate([np.asarray(truth, dtype=np.float64)] * len(layers))
    variables = {}
    for value in values:
        drawn = whole + sd * rng.normal(size=(REPLICATES, *whole.shape))
        mean, reach = drawn.mean(0), t_quantile(REPLICATES, 0.95) * drawn.std(0, ddof=1) / np.sqrt(REPLICATES)
        axes = ("unit", "pair" if value == "second" else "factor")
        for end, numbers in (("", mean), ("_low", mean - reach), ("_high", mean + reach)):
            variables[f"{value}{end}"] = (axes, numbers, "", "")
    pairs = [" x ".join(pair) for pair in combinations(factors, 2)]
    names = np.array(layers, dtype=object)
    tree = {
        "/units": unit_table(dict.fromkeys(layers, units // len(layers)), variables, factor=factors, pair=pairs),
        "/layers": xr.Dataset(
            {"replicates": ("layer", np.full(len(layers), REPLICATES))},
            coords={
                "layer_name": ("layer", names),
                "shape": ("layer", np.array(more.get("shapes", ["4x3x3"] * len(layers)), dtype=object)),
            },
        ),
        "/factors": xr.Dataset(
            {"kind": ("factor", np.array(["augmentation"] * (len(factors) - 4) + ["auxiliary"] * 4, dtype=object))},
            coords={"factor_name": ("factor", np.array(factors, dtype=object))},
        ),
    }
    spec = {"level": 0.95, "replicates": REPLICATES}
    provenance = Provenance(
        more.get("study", "sensitivity"), spec, (), "torchvision:alexnet", more.get("weights", "w"), "x:y", "d", 9
    )
    return Result(xr.DataTree.from_dict({"/": xr.Dataset(), **tree}), provenance)


def some_large(units=60):
    """Units 3 and 7 react to erasing, 7 more; unit 5 to the order; the others to nothing."""
    truth = np.zeros((units, len(FACTORS)))
    truth[3, 0], truth[7, 0], truth[5, FACTORS.index("order")] = 0.3, 0.5, 0.2
    return truth


def test_planted_units_are_chosen_and_noise_is_not():
    """The units that react are found with their factors, in both layers, and nothing else."""
    found = select_units([planted(some_large())])
    assert [one.modules for one in found.segments] == [("features.2",), ("features.5",)]
    for segment in found.segments:
        assert segment.units == (3, 5, 7)
        assert segment.reasons_of(5) == (("permutation", "si", "1"),)
        assert segment.reasons_of(3) == segment.reasons_of(7) == (("erasing", "si", "1"),)
    assert found.counts["reasons"].tolist() == [3, 3]
    assert found.counts["tests"].tolist() == [60 * 9] * 2
    assert found.counts["by_chance"].tolist() == pytest.approx([60 * 9 / 40] * 2)


def test_the_largest_come_first():
    """Of two that pass, one is asked for: the one with the larger share."""
    found = select_units([planted(some_large())], top=1, factors=("erasing",), layers=("features.5",))
    assert [(one.modules, one.units) for one in found.segments] == [(("features.5",), (7,))]
    row = found.reasons.iloc[0]
    assert row["low"] > 0.02
    assert row["share"] == pytest.approx(0.5, abs=0.03)
    assert row["q"] < 0.05


def test_a_limit_must_surely_be_exceeded():
    """A share of 0.3 is above 0.2 and not above 0.4; the one of 0.5 is."""
    assert select_units([planted(some_large())], above=0.25).segments[0].units == (3, 7)
    assert select_units([planted(some_large())], above=0.4).segments[0].units == (7,)
    with pytest.raises(InputError, match=r"is surely above 0.6: expected at least one of 1,080 shares.*Lower --above"):
        select_units([planted(some_large())], above=0.6)


def test_noise_is_chosen_as_rarely_as_promised():
    """Of results whose shares are all exactly at the limit at most 5 % give a unit; of intervals 2.5 % lie above it."""
    chosen, intervals = 0, []
    for seed in range(150):
        truth = np.full((20, len(FACTORS)), 0.02)
        result = planted(truth, layers=("features.2",), seed=seed)
        intervals.append((result.table["first_low"].to_numpy() > 0.02).mean())
        try:
            chosen += bool(select_units([result]).segments)
        except InputError:
            continue
    assert np.mean(intervals) == pytest.approx(0.025, abs=0.004)
    assert chosen / 150 <= 0.05  # Benjamini-Yekutieli is stricter for independent tests: 0.9 % expected


def test_p_values_are_students():
    """The test is Student's t over replicates against the limit, as scipy has it."""
    values = 0.1 + 0.02 * np.random.default_rng(0).normal(size=(REPLICATES, 50))
    mean = values.mean(0)
    reach = t_quantile(REPLICATES, 0.9) * values.std(0, ddof=1) / np.sqrt(REPLICATES)
    found = above_p(mean, mean - reach, mean + reach, above=0.09, replicates=np.full(50, REPLICATES), level=0.9)
    truth = stats.ttest_1samp(values, 0.09, axis=0, alternative="greater").pvalue
    assert np.allclose(found, truth, atol=1e-12)
    same = np.array([0.0, 0.5])
    assert above_p(same, same, same, above=0.02, replicates=np.array([8, 8]), level=0.95).tolist() == [1.0, 0.0]
    assert np.isnan(above_p(same, same * np.nan, same, above=0.02, replicates=np.array([1, 1]), level=0.95)).all()


def test_pairs_have_the_originals_names():
    """Second order is of two variables, joined as in the published lists, both of the factors asked for."""
    pairs = list(combinations(FACTORS, 2))
    truth = np.zeros((30, len(pairs)))
    truth[4, pairs.index(("erasing", "order"))] = 0.3
    truth[6, pairs.index(("rolling", "class"))] = 0.3
    result = planted(truth, values=("second",), layers=("features.2",))
    found = select_units([result])
    assert found.segments[0].reasons == (
        (4, ("erasing--permutation", "si2", "1")),
        (6, ("rolling--class", "si2", "1")),
    )
    only = select_units([result], factors=("erasing", "order", "rolling"))
    assert only.segments[0].units == (4,)


def test_reasons_of_several_results_are_joined():
    """Both sets of augmentations give reasons with their numbers; a unit that both choose has both."""
    second = (*SETS["set2"], "order", "class", "partition", "image")
    truth = np.zeros((60, len(second)))
    truth[7, second.index("hue")], truth[9, second.index("hue")] = 0.3, 0.4
    other = planted(truth, factors=second, values=("first", "shapley"), seed=1)
    found = select_units([planted(some_large()), other], layers=("features.2",)).segments[0]
    assert found.units == (3, 5, 7, 9)
    assert found.reasons_of(7) == (("erasing", "si", "1"), ("hue", "si", "2"), ("hue", "shpv", "2"))


def test_segments_take_layers_by_their_end(tmp_path):
    """Units of the presets are replaced, layers that end none are left out, and the file is read back."""
    result = planted(some_large(), layers=("features.2", "features.4", "avgpool"))
    found = select_units([result], segments=SEGMENTS["alexnet"])
    assert [one.name for one in found.segments] == ["features2", "avgpool"]
    assert found.segments[1].modules == ("features.10", "features.11", "features.12", "avgpool")
    assert found.left_out == ("features.4",)
    write_segments(tmp_path / "units.json", found.segments)
    assert read_segments(tmp_path / "units.json") == found.segments


def test_layers_without_places_are_no_pieces():
    """Without segments a layer of single numbers is left out: it does not look at an image."""
    result = planted(some_large(), layers=("features.2", "fc"), shapes=["4x3x3", "60x1x1"])
    found = select_units([result])
    assert [one.modules for one in found.segments] == [("features.2",)]
    assert found.left_out == ("fc",)


def test_units_that_hardly_vary_are_no_candidates():
    """A unit with a share far above 1 has no variance worth speaking of: its other shares do not count either."""
    truth = some_large()
    truth[7, 2] = 30.0
    found = select_units([planted(truth)])
    assert found.segments[0].units == (3, 5)
    assert found.counts["tests"].tolist() == [59 * 9] * 2


def without(result, name):
    """The result without a group."""
    tree = {node.path: node.to_dataset(inherit=False) for node in result.tree.subtree if node.path != f"/{name}"}
    return Result(xr.DataTree.from_dict(tree), result.provenance)


@pytest.mark.parametrize(
    ("results", "options", "error", "message"),
    [
        ([], {}, InputError, "expected at least one result, got none"),
        ([planted(some_large(), study="masking")], {}, InputError, "got one of the study masking"),
        ([without(planted(some_large()), "units")], {}, InputError, "a run that only shows augmentations"),
        ([planted(some_large()), planted(some_large(), weights="v")], {}, InputError, "or other weights of it"),
        ([planted(some_large())], {"values": ("shapley",)}, InputError, "'shapley' is in no result.*estimated, first"),
        ([planted(some_large())], {"values": ("si",)}, UnknownName, "'si' is no value to choose by"),
        ([planted(some_large())], {"factors": ("hue",)}, UnknownName, "factor 'hue' is in no result"),
        ([planted(some_large())], {"layers": ("features.3",)}, UnknownName, "Closest: 'features.5', 'features.2'"),
        (
            [planted(some_large())],
            {"layers": ("features.5",), "segments": (Segment("one", ("features.2",)),)},
            UnknownName,
            "layer 'features.5' ends no segment",
        ),
        (
            [planted(some_large())],
            {"segments": SEGMENTS["resnet18"]},
            UnknownName,
            "expected some of maxpool.*got features.2, features.5",
        ),
        ([planted(some_large())], {"top": 0}, InputError, "at least 1 unit"),
        ([planted(some_large())], {"above": 1.0}, InputError, "from 0 to below 1"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(results, options, error, message):
    """Each mistake has its own message."""
    with pytest.raises(error, match=message):
        select_units(results, **options)


def test_results_of_segments_joined_ones_and_single_replicates_are_refused():
    """Units of pieces are chosen already; joined results do not say how many replicates; one replicate says nothing."""
    result = planted(some_large())
    pieces = {**{node.path: node.to_dataset(inherit=False) for node in result.tree.subtree}, "/segments": xr.Dataset()}
    with pytest.raises(InputError, match="of segments of the network"):
        select_units([Result(xr.DataTree.from_dict(pieces), result.provenance)])
    joined = without(result, "nothing")
    joined.tree["units"] = joined.table.assign_coords(factor_set=("factor", np.ones(9, dtype=int)))
    with pytest.raises(InputError, match="that was joined of several"):
        select_units([joined])
    blind = without(result, "nothing")
    blind.tree["units"] = blind.table.assign(first_low=blind.table["first_low"] * np.nan)
    with pytest.raises(InputError, match="no intervals of 'first': expected several replicates, got one"):
        select_units([blind])
