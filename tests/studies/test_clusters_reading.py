"""Reading what the original of the clusters study wrote: both of its formats, and nothing that is torn or foreign."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import DataError
from neuronscope.studies.clusters.reading import merge_class_csvs, read_clusters, read_statistics

UNITS = {1: 256, 2: 512, 3: 1024, 4: 1024}
SIZES = {(1, 3): [214, 13, 29], (2, 2): [45, 467], (3, 2): [973, 51], (4, 2): [438, 586]}
SILENT = {1: 181, 2: 387, 3: 799, 4: 562}
RATE, MEAN, VARIANCE = [0.0, 0.5, 1.0], [-0.5, 0.0, 0.25], [0.1, 0.2, 0.3]


@pytest.mark.parametrize("block", UNITS)
def test_golden_statistics(test_data, block):
    """Those of the original's four blocks, with as many silent units as on record."""
    path = test_data / "golden" / "densenet121-clusters" / f"stats_block_{block}.npz"
    rate, mean, variance = read_statistics(path)
    assert len(rate) == len(mean) == len(variance) == UNITS[block]
    assert (rate == 0).sum() == SILENT[block]
    assert (variance >= 0).all()
    assert mean.dtype == np.float64


@pytest.mark.parametrize("k", [2, 3, 4, 5])
@pytest.mark.parametrize("block", UNITS)
def test_golden_clusters(test_data, block, k):
    """All sixteen of the original, with the sizes on record."""
    path = test_data / "golden" / "densenet121-clusters" / f"cluster_results_block_{block}_k{k}.npz"
    labels, number, name = read_clusters(path)
    assert (len(labels), number, name) == (UNITS[block], k, f"block_{block}")
    counts = np.bincount(labels, minlength=k)
    assert (counts > 0).all()
    assert counts.tolist() == SIZES.get((block, k), counts.tolist())


@pytest.mark.parametrize("key", ["activation_rate", "sparsity"])
def test_both_names_of_the_rate(tmp_path, key):
    """Files made before August 2025 call it sparsity; a folder with one file stands for it."""
    np.savez(tmp_path / "stats_block_1.npz", mean_activation=MEAN, variance=VARIANCE, **{key: RATE})
    for place in (tmp_path, str(tmp_path / "stats_block_1.npz")):
        rate, mean, variance = read_statistics(place)
        assert (rate.tolist(), mean.tolist(), variance.tolist()) == (RATE, MEAN, VARIANCE)


@pytest.mark.parametrize(
    ("arrays", "cause"),
    [
        ({"mean_activation": MEAN, "variance": VARIANCE}, "activation_rate or sparsity missing"),
        ({"activation_rate": RATE}, "mean_activation, variance missing"),
        ({"activation_rate": RATE, "mean_activation": MEAN[:2], "variance": VARIANCE}, "do not belong together"),
        ({"activation_rate": RATE, "mean_activation": ["a"] * 3, "variance": VARIANCE}, "do not belong together"),
        ({"activation_rate": RATE, "mean_activation": [np.nan] * 3, "variance": VARIANCE}, "not finite"),
        ({"activation_rate": [0, 1, 1.5], "mean_activation": MEAN, "variance": VARIANCE}, "outside 0 to 1"),
    ],
)
def test_foreign_statistics_are_one_error(tmp_path, arrays, cause):
    """The file is named, and what is wrong with it."""
    path = tmp_path / "stats_x.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=cause) as caught:
        read_statistics(path)
    assert str(path) in str(caught.value)


def test_folders_without_one_file_are_refused(tmp_path):
    """None or several: the message lists them."""
    with pytest.raises(DataError, match="holds 0 files"):
        read_clusters(tmp_path)
    for name in ("a", "b"):
        np.savez(tmp_path / f"stats_{name}.npz", activation_rate=RATE)
    with pytest.raises(DataError, match=r"stats_a\.npz, stats_b\.npz"):
        read_statistics(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_statistics(tmp_path / "stats_c.npz")


@pytest.mark.parametrize(
    ("arrays", "cause"),
    [
        ({"labels": [0, 1]}, "selected_block, n_clusters missing"),
        ({"labels": [0, 2], "n_clusters": 2, "selected_block": "b"}, "clusters from 0 to 2"),
        ({"labels": [0.0, 1.0], "n_clusters": 2, "selected_block": "b"}, "whole numbers"),
        ({"labels": [0, 1], "n_clusters": [2, 3], "selected_block": "b"}, "whole number"),
    ],
)
def test_foreign_clusters_are_one_error(tmp_path, arrays, cause):
    """Labels outside their number of clusters are of something else."""
    np.savez(tmp_path / "cluster_results.npz", **arrays)
    with pytest.raises(DataError, match=cause):
        read_clusters(tmp_path)


def test_nothing_is_unpickled(tmp_path):
    """Arrays of objects would run code when read, as would a bare pickle."""
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "stats_x.npz", activation_rate=objects, mean_activation=MEAN, variance=VARIANCE)
    with pytest.raises(DataError, match="cannot be read"):
        read_statistics(tmp_path)
    (tmp_path / "cluster_results.npz").write_bytes(pickle.dumps({"labels": [0]}))
    with pytest.raises(DataError, match="cannot be read"):
        read_clusters(tmp_path)
    with (tmp_path / "cluster_results.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="single array"):
        read_clusters(tmp_path)


@given(data=st.data())
def test_torn_files_are_one_error(tmp_path_factory, data):
    """Cut off anywhere, or with a byte changed: either the same numbers or a `DataError`, nothing else."""
    path = tmp_path_factory.mktemp("torn") / "stats_x.npz"
    np.savez_compressed(path, activation_rate=RATE, mean_activation=MEAN, variance=VARIANCE)
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[at] ^= data.draw(st.integers(1, 255))
    else:
        del whole[at:]
    path.write_bytes(whole)
    try:
        found = read_statistics(path)
    except DataError:
        return
    assert [values.tolist() for values in found] == [RATE, MEAN, VARIANCE]


def table(classes, methods=("saliency", "ig"), **further) -> pd.DataFrame:
    """Rows as the original writes them, class by class."""
    rows = [(number, method) for number in classes for method in methods]
    return pd.DataFrame(rows, columns=["class_id", "method"]).assign(filtered_sparsity_mean=0.5, **further)


def test_tables_by_class_are_merged(tmp_path):
    """In order of class and method, whatever the order of files; further columns of one are nan in others."""
    table(range(3, 5), log10_p=-2.0).to_csv(tmp_path / "b.csv", index=False)
    table(range(3)).to_csv(tmp_path / "a.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merged = merge_class_csvs([tmp_path / "b.csv", tmp_path / "a.csv"])
    assert merged["class_id"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert merged["method"].tolist() == ["ig", "saliency"] * 5
    assert list(merged) == ["class_id", "method", "filtered_sparsity_mean", "log10_p"]
    assert merged["log10_p"].isna().tolist() == [True] * 6 + [False] * 4


def test_classes_twice_are_an_error_that_names_them(tmp_path):
    """Overlapping ranges would count classes twice."""
    table(range(3)).to_csv(tmp_path / "a.csv", index=False)
    table(range(2, 4)).to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(
        DataError, match=r"class 2, saliency; class 2, ig are in more than one row, from a\.csv, b\.csv"
    ):
        merge_class_csvs([tmp_path / "a.csv", tmp_path / "b.csv"])


def test_missing_classes_are_one_warning(tmp_path):
    """Between the first and the last, and methods that only some have."""
    whole = table([0, 1, 4])
    whole[~((whole["class_id"] == 1) & (whole["method"] == "ig"))].to_csv(tmp_path / "a.csv", index=False)
    with pytest.warns(UserWarning, match="class 1, ig; class 2, ig; class 2, saliency; class 3, ig") as caught:
        merged = merge_class_csvs([tmp_path / "a.csv"])
    assert (len(caught), len(merged)) == (1, 5)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "cannot be read"),
        ("a,b\n1,2\n", "no column class_id or method"),
        ("class_id,method\n1,ig\nx,ig\n", "torn"),
        ("class_id,method\n1,ig\n2,\n", "torn"),
        ('class_id,method\n1,"ig\n', "cannot be read"),
    ],
)
def test_foreign_tables_are_one_error(tmp_path, text, cause):
    """No table, another one, and one that was cut off."""
    (tmp_path / "a.csv").write_bytes(text.encode())
    with pytest.raises(DataError, match=cause):
        merge_class_csvs([tmp_path / "a.csv"])


def test_no_tables_are_refused(tmp_path):
    """There is nothing to merge, or the file is not there, or it is no text."""
    with pytest.raises(DataError, match="no tables"):
        merge_class_csvs([])
    with pytest.raises(DataError, match="does not exist"):
        merge_class_csvs([tmp_path / "none.csv"])
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="cannot be read"):
        merge_class_csvs([tmp_path / "a.csv"])
