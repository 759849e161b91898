"""What was found: saved and opened without loss, refused when torn."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuronscope.errors import InputError, ResultFileError, StorageError
from neuronscope.result import Provenance, Result, circumstances, open_result, peak_memory, same, unit_table, versions
from neuronscope.run import Run
from neuronscope.views import Page

NAMES = st.text(st.characters(categories=("L", "N"), include_characters="_-. #"), min_size=1, max_size=8).filter(
    lambda name: name.strip(". ") and not name.startswith("__") and name.encode("utf-8")
)
NUMBERS = st.one_of(st.just(float("nan")), st.just(float("inf")), st.just(-0.0), st.floats(-1e300, 1e300))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


def provenance(**options):
    """Where a made-up result comes from."""
    given_options = {
        "study": "layers",
        "spec": {"layers": ["conv1"], "level": 0.95},
        "legacy": (),
        "subject": "builtin:small",
        "subject_fingerprint": "aa",
        "data": "digits",
        "data_fingerprint": "bb",
        "images": 12,
        **options,
    }
    return Provenance(**given_options)


def example():
    """A result with everything that studies put into one."""
    layers = {"conv1": 2, "layer1.0.relu#1": 3}
    table = unit_table(
        layers,
        {
            "mean": (("unit",), np.array([0.5, np.nan, 1, 2, 3]), "mean activation", ""),
            "mean_low": (("unit",), np.arange(5.0), "lower end of its interval", ""),
            "dead": (("unit",), np.array([True, False, False, False, True]), "never active", ""),
            "best": (("unit",), np.arange(5), "class it prefers", "class number"),
            "by_class": (("unit", "class"), np.arange(10.0).reshape(5, 2), "mean activation per class", ""),
            "seconds": (("unit",), np.array([1.0, 2, 3, 4, 5]), "time taken", "seconds"),
            "days": (("class",), np.array([1.0, 2]), "age of the data", "days since 2000-01-01"),
        },
        **{"class": ("zero", "één")},
    )
    maps = xr.Dataset({"mean": (("unit", "y", "x"), np.random.default_rng(0).random((2, 4, 5)).astype(np.float32))})
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"title": "Schichten"}), "units": table, "maps/conv1": maps})
    return Result(
        tree, provenance(skipped=((3, "torn"),), nonfinite={"conv1": (1,)}, spec={"shape": (1, 2), "x": None})
    )


@st.composite
def trees(draw):
    """Raw material of a small result: layers, variables by type, texts."""
    layers = draw(st.dictionaries(NAMES, st.integers(1, 3), min_size=1, max_size=3))
    units = sum(layers.values())
    variables = {}
    for number, kind in enumerate(draw(st.lists(st.sampled_from("fdilbt"), max_size=4))):
        pool = {
            "f": (st.floats(width=32), np.float32),
            "d": (NUMBERS, np.float64),
            "i": (st.integers(-(2**31), 2**31 - 1), np.int32),
            "l": (st.integers(-(2**63), 2**63 - 1), np.int64),
            "b": (st.booleans(), np.bool_),
            "t": (st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=4), object),
        }[kind]
        values = draw(st.lists(pool[0], min_size=units, max_size=units))
        array = np.empty(units, dtype=pool[1])
        array[:] = values
        variables[f"{kind}{number}"] = (
            ("unit",),
            array,
            draw(st.text(max_size=4)),
            draw(st.sampled_from(["", "s", "days"])),
        )
    return layers, variables


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees(), JSON, st.dictionaries(NAMES, st.integers(0, 5).map(lambda unit: (unit,)), max_size=2))
def test_saved_and_opened_is_the_same(tmp_path, material, option, nonfinite):
    """Arrays, their types, nan, texts in any script, attributes and provenance come back as they were."""
    layers, variables = material
    tree = xr.DataTree.from_dict({"units": unit_table(layers, variables), "maps/é": xr.Dataset({"a": ("y", [1.0])})})
    result = Result(tree, provenance(spec={"option": option}, nonfinite=nonfinite))
    found = open_result(result.save(tmp_path / "result"))
    assert same(found, result)
    for name, (_, values, _, _) in variables.items():
        assert found.table[name].dtype == values.dtype


def test_everything_a_study_saves_comes_back(tmp_path):
    """Units of measure such as seconds stay numbers and never become dates; one group per layer keeps its maps."""
    result = example()
    found = open_result(result.save(tmp_path / "runs" / "layers"))
    assert same(found, result)
    assert found.table["seconds"].dtype == np.float64
    assert found.table["seconds"].attrs == {"long_name": "time taken", "units": "seconds"}
    assert found.tree["maps/conv1"]["mean"].shape == (2, 4, 5)
    assert found.tree.attrs == {"title": "Schichten"}
    assert found.provenance.nonfinite == {"conv1": (1,)}
    assert found.provenance.skipped == ((3, "torn"),)


def test_saving_twice_and_saving_what_was_opened(tmp_path):
    """A new result replaces the old one; what was opened can be saved again, over itself too."""
    result = example()
    path = result.save(tmp_path / "result")
    other = replace(result, provenance=provenance(images=13))
    other.save(path)
    assert same(open_result(path), other)
    opened = open_result(path)
    opened.save(path)
    assert same(open_result(path), other)
    assert [entry.name for entry in tmp_path.iterdir()] == ["result"]


def test_a_run_folder_is_opened_by_its_name(tmp_path):
    """The folder that holds `result.zarr` stands for it."""
    result = example()
    result.save(tmp_path / "result.zarr")
    assert same(open_result(tmp_path), result)


def test_nothing_is_pickled(tmp_path):
    """No file of a result is a pickle, and no array holds Python objects."""
    path = example().save(tmp_path / "result")
    for file in path.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert b"pickle" not in content
            with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, AttributeError)):
                pickle.loads(content)  # noqa: S301 that it cannot be read is what is shown


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved result, to be copied."""
    return example().save(tmp_path_factory.mktemp("saved") / "result")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_torn_folder_is_recognised(tmp_path, saved, data):
    """A file cut off, a flipped bit, a file gone, a file too many: an error of ours, or not a number has changed."""
    torn = tmp_path / "torn"
    shutil.rmtree(torn, ignore_errors=True)
    shutil.copytree(saved, torn)
    files = sorted(file.relative_to(torn).as_posix() for file in torn.rglob("*") if file.is_file())
    file = torn / data.draw(st.sampled_from(files))
    content = file.read_bytes()
    damage = data.draw(st.sampled_from(["cut", "flip", "delete", "add"]))
    place = data.draw(st.integers(0, max(len(content) - 1, 0)))
    if damage == "cut":
        file.write_bytes(content[:place])
    elif damage == "flip" and content:
        flipped = content[place] ^ (1 << data.draw(st.integers(0, 7)))
        file.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
    elif damage == "add":
        (file.parent / "strange").write_bytes(b"x")
    else:
        file.unlink()
    try:
        found = open_result(torn)
    except ResultFileError as error:
        assert str(torn) in str(error)  # noqa: PT017 both outcomes are right, by the damage
    else:
        assert same(found, example())  # a space became another space
        assert file.name == "zarr.json"
        assert damage == "flip"


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "{}", '{"attributes": 3}', '{"attributes": {"neuronscope": []}}']
)
def test_foreign_folders_are_recognised(tmp_path, content):
    """Other people's Zarr folders, and files that are none, are not results."""
    (tmp_path / "zarr.json").write_text(content)
    with pytest.raises(ResultFileError, match="torn or was not written by neuronscope"):
        open_result(tmp_path)


def test_a_foreign_zarr_folder_is_recognised(tmp_path):
    """A sound Zarr folder of another program."""
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(tmp_path / "other", consolidated=False)
    with pytest.raises(ResultFileError, match="not written by neuronscope"):
        open_result(tmp_path / "other")


@pytest.mark.parametrize("name", ["absent", "empty", "file"])
def test_where_no_result_is(tmp_path, name):
    """No folder, an empty one, a file."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResultFileError, match="holds no neuronscope result"):
        open_result(tmp_path / name)


def test_a_newer_format_asks_for_a_newer_program(tmp_path, saved):
    """Whatever else a newer format has changed, its number is what is told."""
    path = tmp_path / "newer"
    shutil.copytree(saved, path)
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["neuronscope"] = {"manifest": {"format": 2, "else": []}}
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(ResultFileError, match=r"format 2, this neuronscope reads format 1\. Update"):
        open_result(path)


def test_a_place_that_cannot_be_written(tmp_path):
    """A file where a folder should be: an error of ours, and the file is untouched."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="cannot write the result"):
        example().save(tmp_path / "file" / "result")
    with pytest.raises(StorageError, match="is no result"):
        example().save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_other_peoples_folders_are_not_replaced(tmp_path):
    """Saving to a folder full of something else destroys nothing; an empty folder is taken."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("x")
    with pytest.raises(StorageError, match="exists and is no result"):
        example().save(tmp_path / "photos")
    assert (tmp_path / "photos" / "one.jpg").is_file()
    (tmp_path / "empty").mkdir()
    assert same(open_result(example().save(tmp_path / "empty")), example())


@pytest.mark.parametrize("stage", ["write", "swap"])
def test_the_old_result_survives_a_failed_save(tmp_path, monkeypatch, stage):
    """A full disk while writing, or while the new folder takes its place: the old result is there, nothing else is."""
    path = example().save(tmp_path / "result")
    whole = Path.rename

    def full(self, target):
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return whole(self, target)

    def full_at_once(*_args, **_options):
        raise OSError(28, "No space left on device")

    if stage == "swap":
        monkeypatch.setattr(Path, "rename", full)
    else:
        monkeypatch.setattr(xr.DataTree, "to_zarr", full_at_once)
    with pytest.raises(StorageError, match="No space left on device"):
        replace(example(), provenance=provenance(images=99)).save(path)
    monkeypatch.undo()
    assert same(open_result(path), example())
    assert [entry.name for entry in tmp_path.iterdir()] == ["result"]


def test_a_torn_result_may_be_replaced(tmp_path):
    """Running the study again, as the message says, works."""
    path = example().save(tmp_path / "result")
    next(file for file in path.rglob("c/*") if file.is_file()).unlink()
    assert same(open_result(example().save(path)), example())


def test_units_has_one_row_per_unit():
    """Layer, index, and each quantity under the study's name; quantities with further axes are left out."""
    frame = example().units()
    assert list(frame.columns[:2]) == ["layer", "index"]
    assert set(frame.columns[2:]) == {f"layers.{name}" for name in ("mean", "mean_low", "dead", "best", "seconds")}
    assert frame["layer"].tolist() == ["conv1"] * 2 + ["layer1.0.relu#1"] * 3
    assert frame["index"].tolist() == [0, 1, 0, 1, 2]
    assert frame["layers.best"].tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(frame["layers.mean"][1])


def test_units_of_a_result_without_quantities():
    """The units are still listed."""
    result = Result(xr.DataTree.from_dict({"units": unit_table({"fc": 2}, {})}), provenance())
    frame = result.units()
    assert list(frame.columns) == ["layer", "index"]
    assert frame["index"].tolist() == [0, 1]
    assert len(Result(xr.DataTree.from_dict({"units": unit_table({}, {})}), provenance()).units()) == 0


def test_a_table_of_units_and_classes():
    """One row for each pair, in the order asked for, with class names."""
    frame = example().to_frame("unit", "class")
    assert list(frame.columns) == ["layer", "index", "class", "by_class"]
    assert frame["by_class"].tolist() == list(range(10))
    assert frame["class"].tolist() == ["zero", "één"] * 5
    turned = example().to_frame("class", "unit")
    assert turned["by_class"].tolist() == [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    assert example().to_frame("class")["days"].tolist() == [1.0, 2.0]


def test_axes_that_no_quantity_has_are_refused():
    """The message lists those there are."""
    with pytest.raises(
        InputError, match=r"no quantity of layers has the axes cluster\. There are: class, unit, unit x"
    ):
        example().to_frame("cluster")


def test_the_page_is_the_studys():
    """A result shows what its study says, and without the study says so."""
    page = Page("title", "summary", ())
    assert replace(example(), view=lambda _result: page).page() is page
    with pytest.raises(ResultFileError, match="no study named 'layers'"):
        example().page()


def test_circumstances_hold_what_decides_bits_and_nothing_else():
    """Worker count, executor and progress are no part of a result."""
    one = circumstances(Run(seed=3, device="cpu", workers=1))
    assert one == circumstances(Run(seed=3, device="cpu", workers=7))
    assert one == {"seed": 3, "batch_size": 32, "threads": None, "device": "cpu", "dtype": "float32"}
    assert json.loads(json.dumps(one)) == one


def test_versions_and_memory_are_there():
    """Versions name the packages that decide numbers; the peak is in bytes."""
    assert {"python", "torch", "numpy", "xarray", "zarr"} <= versions().keys()
    assert peak_memory() > 20 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell the peak in one way only")
def test_the_peak_of_a_process_is_its_own():
    """What the process that started it held is no part of it: getrusage would hand that down."""
    held = np.ones(2**28, np.uint8)
    code = "from neuronscope.result import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) < peak_memory() - held.nbytes // 2
