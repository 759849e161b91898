"""Sensitivity runs of different augmentations as one result, and analyses of results that are finished."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import neuronscope as ns
from neuronscope.errors import InputError, ResultFileError
from neuronscope.faces.cli.analyse import run_analyses
from neuronscope.faces.html import render_page
from neuronscope.faces.outputs import write_outputs
from neuronscope.studies.sensitivity.analyses import correlation_groups

SPATIAL, FLAT = "conv_layers.1", "fc_layers.3"
OPTIONS = {
    "layers": (SPATIAL, FLAT),
    "second_order": "units",
    "points": 16,
    "replicates": 4,
    "permutations": 8,
    "contrast_images": 10,
    "severity_images": 6,
    "draws": 1,
    "stop": "never",
    "shown_units": 2,
}


@pytest.fixture(scope="module")
def subject():
    """A small network."""
    return ns.load_model("builtin:viewer-cnn", weights="random")


def run_of(subject, *augmentations, seed=0, **options):
    """A small run."""
    spec = ns.SensitivitySpec(augmentations=augmentations, **{**OPTIONS, **options})
    return ns.run_sensitivity(subject, ns.load_data("digits", limit=100), spec, run=ns.Run(threads=1, seed=seed))


@pytest.fixture(scope="module")
def runs(subject):
    """Two runs, each with augmentations of its own."""
    return run_of(subject, "erasing", "gaussian_blur"), run_of(subject, "brightness", "hflip", "rotation")


@pytest.fixture(scope="module")
def whole(runs):
    """Both as one."""
    return ns.join_sets(runs)


@pytest.fixture(scope="module")
def small(subject):
    """A run with little to draw."""
    return run_of(subject, "hflip", "erasing", layers=(FLAT,), estimators=("sobol",), second_order="none", level=0.8)


FACTORS = [
    *("erasing", "gaussian_blur", "order-1", "class-1", "partition-1", "image-1"),
    *("brightness", "hflip", "rotation", "order-2", "class-2", "partition-2", "image-2"),
]


class TestJoinSets:
    """All factors side by side, each number as in its run."""

    def test_common_factors_are_numbered(self, whole):
        """An augmentation keeps its name; class and image, which both runs have, get the number of the run."""
        table = whole.tree["factors"]
        assert table["factor_name"].to_numpy().tolist() == FACTORS
        assert table["factor_set"].to_numpy().tolist() == [1] * 6 + [2] * 7

    @pytest.mark.parametrize("name", ["first", "total", "shapley", "total_error"])
    def test_maps_stand_side_by_side(self, runs, whole, name):
        """Nothing of a map is changed, in either part."""
        for layer in (SPATIAL, FLAT):
            maps = whole.tree[f"maps/{layer}"][name].to_numpy()
            for run, part in zip(runs, (maps[..., :6], maps[..., 6:]), strict=True):
                assert np.array_equal(part, run.tree[f"maps/{layer}"][name].to_numpy(), equal_nan=True)

    def test_means_are_of_each_run(self, runs, whole):
        """The mean over the rows of each design, on an axis of runs."""
        mean = whole.tree[f"maps/{SPATIAL}"]["mean"]
        assert mean.dims[-1] == "set"
        for number, run in enumerate(runs):
            assert np.array_equal(mean.to_numpy()[..., number], run.tree[f"maps/{SPATIAL}"]["mean"].to_numpy())

    def test_units_and_pairs(self, runs, whole):
        """The table of units has all shares, contrasts and pairs; pairs of two runs do not exist."""
        table = whole.table
        assert table["layer"].to_numpy().tolist() == runs[0].table["layer"].to_numpy().tolist()
        assert table["total"].shape[1] == len(FACTORS)
        assert table["contrast"].shape[1] == 5
        pairs = table["pair_name"].to_numpy().tolist()
        assert "class-1 x partition-1" in pairs
        assert "class-2 x partition-2" in pairs
        assert len(pairs) == 15 + 21
        assert np.array_equal(table["second"].to_numpy()[:, 15:], runs[1].table["second"].to_numpy(), equal_nan=True)

    def test_plain_images_count_once(self, runs, whole):
        """Accuracy on plain images is the same number in both runs, and stands there once."""
        names = whole.tree["accuracy"]["input_name"].to_numpy().tolist()
        assert names == ["original", "erasing", "gaussian_blur", "brightness", "hflip", "rotation"]
        plain = [run.tree["accuracy"]["accuracy"].to_numpy()[:, 0] for run in runs]
        assert np.array_equal(plain[0], plain[1])

    def test_what_is_of_one_design_is_left_out(self, whole):
        """Which factor dominates cannot be said across designs."""
        assert "convergence" not in whole.tree.children
        assert "dominant" not in whole.table
        assert whole.provenance.spec["augmentations"] == ["erasing", "gaussian_blur", "brightness", "hflip", "rotation"]

    def test_it_shows_itself_saved_and_opened(self, whole, tmp_path):
        """One page with the factors of both runs, which says that their shares are of two designs."""
        whole.save(tmp_path / "result.zarr")
        page = render_page(ns.open(tmp_path / "result.zarr").page())
        assert "Joined of 2 runs" in page
        assert all(name in page for name in FACTORS)
        assert "rows &#39;dominated&#39;" not in page

    def test_pages_of_one_run_say_nothing_of_sets(self, runs):
        """The same page without a second run is as it was."""
        assert "Joined of" not in render_page(runs[0].page())


class TestWhatCannotBeJoined:
    """One message each."""

    def test_one_run(self, runs):
        """There is nothing to join."""
        with pytest.raises(InputError, match="nothing to be joined with"):
            ns.join_sets(runs[:1])

    def test_the_same_augmentation_twice(self, runs):
        """Its name would stand for two things."""
        with pytest.raises(InputError, match="several runs vary erasing, gaussian_blur"):
            ns.join_sets([runs[0], runs[0]])

    def test_other_options(self, subject, runs):
        """Means over other images or points do not belong together."""
        other = run_of(subject, "hflip", points=32, estimators=("sobol", "shapley"))
        with pytest.raises(InputError, match=r"run 2 of 2 .*estimators.*points \(16 and 32\)"):
            ns.join_sets([runs[0], other])

    def test_other_weights(self, runs):
        """Maps of another network."""
        origin = replace(runs[1].provenance, subject_fingerprint="0" * 64)
        with pytest.raises(InputError, match="the weights differ"):
            ns.join_sets([runs[0], replace(runs[1], provenance=origin)])

    def test_joined_already(self, runs, whole):
        """Sets of sets have no numbers."""
        with pytest.raises(InputError, match="joined of several runs already"):
            ns.join_sets([whole, runs[0]])

    def test_augmentations_that_were_only_shown(self, subject, runs):
        """There is no map."""
        shown = run_of(subject, "hflip", show_augmentations=True)
        with pytest.raises(InputError, match=r"run 2 of 2 has no factors, units, layers, maps"):
            ns.join_sets([runs[0], shown])


class TestAnalyses:
    """Of one run, and of several."""

    def test_they_are_what_the_run_itself_finds(self, subject, runs):
        """Analyses in the run and after it are equal to the bit, with the seed of the run."""
        options = {"analyses": ("correlations", "discriminants"), "folds": 3, "repeats": 2, "label_permutations": 19}
        there = run_of(subject, "erasing", "gaussian_blur", **options)
        after = ns.analyse_sensitivity(runs[0], ns.SensitivitySpec(**options, shown_units=OPTIONS["shown_units"]))
        for name in ("correlations", "discriminants"):
            xr.testing.assert_identical(there.tree[name].to_dataset(), after.tree[name].to_dataset())
        assert after.provenance.spec == there.provenance.spec

    def test_the_result_itself_stays(self, runs):
        """A new one comes back."""
        ns.analyse_sensitivity(runs[0], ns.SensitivitySpec(analyses=("correlations",)))
        assert "correlations" not in runs[0].tree.children

    def test_others_stay(self, runs):
        """One analysis does not take the other's place."""
        first = ns.analyse_sensitivity(runs[0], ns.SensitivitySpec(analyses=("correlations",)))
        options = {"folds": 3, "repeats": 2, "label_permutations": 19}
        both = ns.analyse_sensitivity(first, ns.SensitivitySpec(analyses=("discriminants",), **options))
        assert {"correlations", "discriminants"} <= set(both.tree.children)
        assert both.provenance.spec["analyses"] == ["correlations", "discriminants"]

    def test_factors_of_two_runs_are_correlated(self, runs, whole):
        """A matrix of all factors: across the units that change in both designs, place by place."""
        found = correlation_groups(whole.tree)["correlations"]
        values = [str(name) for name in found["value_name"].to_numpy()]
        matrix = found["within_mean"].to_numpy()[0, values.index("total")]
        assert matrix.shape == (13, 13)
        maps = [np.clip(run.tree[f"maps/{SPATIAL}"]["total"].to_numpy(), 0, 1) for run in runs]
        one, other = (own.reshape(len(own), -1, own.shape[-1]) for own in maps)
        one, other = one[..., 0], other[..., 0]
        there = np.isfinite(one) & np.isfinite(other)
        places = [
            stats.spearmanr(one[own, place], other[own, place]).statistic
            for place, own in enumerate(there.T)
            if len(set(one[own, place])) > 1 and len(set(other[own, place])) > 1
        ]
        assert matrix[0, 6] == pytest.approx(np.nanmean(places))

    def test_variation_is_of_the_factors_own_run(self, runs, whole):
        """Each factor with the coefficient of variation over the rows of its own design."""
        found = correlation_groups(whole.tree)["correlations"]
        for run, part in zip(runs, (slice(0, 6), slice(6, 13)), strict=True):
            alone = correlation_groups(run.tree)["correlations"]
            for name in ("variation_mean", "variation_q", "variation_map"):
                assert np.allclose(found[name].to_numpy()[..., part], alone[name].to_numpy(), equal_nan=True)

    def test_discriminants_of_two_sets_are_refused(self, whole):
        """Maps of other designs are told apart by their designs."""
        with pytest.raises(InputError, match="Analyse each of the runs"):
            ns.analyse_sensitivity(whole, ns.SensitivitySpec(analyses=("discriminants",)))

    def test_no_analysis(self, runs):
        """There is nothing to do."""
        with pytest.raises(InputError, match="no analysis was asked for"):
            ns.analyse_sensitivity(runs[0], ns.SensitivitySpec())

    def test_fewer_units_than_folds(self, runs):
        """Before anything is computed."""
        with pytest.raises(InputError, match="cannot be split into 1000 folds"):
            ns.analyse_sensitivity(runs[0], ns.SensitivitySpec(analyses=("discriminants",), folds=1000))

    def test_deviations_of_the_run(self, runs):
        """They cannot be had afterwards."""
        spec = ns.SensitivitySpec(analyses=("correlations",), legacy=("min-max",))
        with pytest.raises(InputError, match="min-max cannot be had after the run"):
            ns.analyse_sensitivity(runs[0], spec)

    def test_results_of_other_studies(self, runs):
        """They have no maps of factors."""
        other = replace(runs[0], provenance=replace(runs[0].provenance, study="layers"))
        with pytest.raises(InputError, match="got one of 'layers'"):
            ns.analyse_sensitivity(other, ns.SensitivitySpec(analyses=("correlations",)))


class TestCommand:
    """`neuronscope analyse` and `neuronscope merge`."""

    def test_a_folder_is_analysed_in_place(self, small, tmp_path):
        """Its result, report and tables have the analysis afterwards."""
        small.save(tmp_path / "run" / "result.zarr")
        run_analyses(tmp_path / "run", {"analyses": ("correlations",), "correlation": "pearson", "quiet": True})
        found = ns.open(tmp_path / "run")
        assert found.tree["correlations"].attrs["method"] == "pearson"
        assert "Correlations between factors" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
        assert (tmp_path / "run" / "tables" / "correlations.csv").is_file()

    def test_files_of_the_original_stay(self, small, tmp_path):
        """What the run exported is there afterwards."""
        write_outputs(small, tmp_path, original="export")
        before = sorted(path.name for path in (tmp_path / "original").iterdir())
        run_analyses(tmp_path, {"analyses": ("correlations",), "quiet": True})
        assert sorted(path.name for path in (tmp_path / "original").iterdir()) == before
        assert before

    def test_options_of_the_run_hold_where_none_is_given(self, small, tmp_path):
        """A level that the run was given is that of its analyses."""
        small.save(tmp_path / "run" / "result.zarr")
        run_analyses(tmp_path / "run", {"analyses": ("correlations",), "out": tmp_path / "other", "quiet": True})
        assert ns.open(tmp_path / "other").provenance.spec["level"] == 0.8
        assert "correlations" not in ns.open(tmp_path / "run").tree.children

    def test_a_folder_without_a_result(self, tmp_path):
        """It says so."""
        with pytest.raises(ResultFileError, match="holds no neuronscope result"):
            run_analyses(tmp_path, {"analyses": ("correlations",)})

    def test_results_without_analyses(self, subject, tmp_path):
        """It says which studies have some."""
        found = ns.run_layers(
            subject, ns.load_data("digits", limit=20), ns.LayersSpec(layers=(FLAT,)), run=ns.Run(threads=1)
        )
        found.save(tmp_path / "result.zarr")
        with pytest.raises(InputError, match="which has no further analyses: expected one of sensitivity"):
            run_analyses(tmp_path, {"analyses": ("correlations",)})
