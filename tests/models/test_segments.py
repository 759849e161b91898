"""Segments as values, their files and the presets."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import InputError, StorageError
from neuronscope.models.segments import SEGMENTS, Segment, check_segments, read_segments, write_segments

WORDS = st.text("abcdefghij-_0123456789", min_size=1, max_size=8)


UNITS = st.none() | st.dictionaries(
    st.integers(0, 2000),
    st.lists(st.tuples(WORDS, WORDS, st.sampled_from(["1", "2", "mine"])), max_size=2),
    min_size=1,
    max_size=6,
)
PARTS = st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3), UNITS, st.sampled_from(["sequential", "residual"]))


@given(st.lists(PARTS, min_size=1, max_size=4, unique_by=lambda one: one[0]))
def test_what_is_written_is_read(tmp_path_factory, parts):
    """A file gives back the segments that it was written of."""
    some = tuple(
        Segment(
            name,
            tuple(modules),
            None if units is None else tuple(units),
            kind,
            tuple((unit, reason) for unit, reasons in (units or {}).items() for reason in reasons),
        )
        for name, modules, units, kind in parts
    )
    path = tmp_path_factory.mktemp("segments") / "deeper" / "units.json"
    write_segments(path, some)
    assert read_segments(path) == some


def test_the_form_of_the_original(tmp_path):
    """A list as the original has it: units under the first convolution, sets as numbers, several reasons."""
    path = tmp_path / "units.json"
    content = [
        {
            "modules_names": ["features.3", "features.4"],
            "neurons": {"features.3": {"12": [["rolling", "si", 1]], "7": [["erasing", "si", 1], ["hue", "shpv", 2]]}},
            "module_type": "sequential",
            "unit_name": "features5",
        },
        {
            "modules_names": ["conv1", "bn1", "relu"],
            "neurons": {"bn1": {"0": []}},
            "module_type": "residual",
            "unit_name": "pool",
        },
    ]
    path.write_text(json.dumps(content), encoding="utf-8")
    first, second = read_segments(path)
    assert first.units == (7, 12)
    assert first.reasons_of(7) == (("erasing", "si", "1"), ("hue", "shpv", "2"))
    assert first.reasons_of(12) == (("rolling", "si", "1"),)
    assert second == Segment("pool", ("conv1", "bn1", "relu"), (0,), "residual")
    write_segments(path, (first, second))
    again = json.loads(path.read_text(encoding="utf-8"))
    assert again[0]["neurons"]["features.3"]["7"] == [["erasing", "si", 1], ["hue", "shpv", 2]]
    assert list(again[1]["neurons"]) == ["relu"]


@pytest.mark.parametrize(("network", "units"), [("alexnet", 5), ("resnet18", 5)])
def test_the_presets(network, units):
    """Five segments each, all with names of their own, all units."""
    check_segments(SEGMENTS[network])
    assert len(SEGMENTS[network]) == units
    assert all(segment.units is None for segment in SEGMENTS[network])


GOOD = {"modules_names": ["a"], "neurons": {"a": {"0": []}}, "module_type": "sequential", "unit_name": "a"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"modules_names": ["a"]', "no whole JSON file"),
        ('{"a": 1}', "holds an object: expected a list of segments"),
        ("[]", "no segments"),
        ("[1]", "segment 1 of .* is a int: expected an object"),
        (json.dumps([{key: GOOD[key] for key in ("modules_names", "neurons")}]), "has no 'module_type'"),
        (json.dumps([{**GOOD, "modules_names": "a"}]), "'modules_names' .* is a text: expected a list of names"),
        (json.dumps([{**GOOD, "modules_names": []}]), "none of its modules|has no modules"),
        (json.dumps([{**GOOD, "module_type": "tree"}]), "'module_type' .* is 'tree': expected sequential or residual"),
        (json.dumps([{**GOOD, "neurons": {}}]), "'neurons' .* is an object of 0"),
        (json.dumps([{**GOOD, "neurons": {"b": {"0": []}}}]), "lists units of 'b', which is none of its modules"),
        (json.dumps([{**GOOD, "neurons": {"a": {}}}]), "has no units"),
        (json.dumps([{**GOOD, "neurons": {"a": [1]}}]), "units of 'a' .* are a list"),
        (json.dumps([{**GOOD, "neurons": {"a": {"-1": []}}}]), "'-1' .* is no number of a unit"),
        (json.dumps([{**GOOD, "neurons": {"a": {"1": [], "01": []}}}]), "unit 1 .* is there twice"),
        (json.dumps([{**GOOD, "neurons": {"a": {"1": 3}}}]), "the reasons for unit 1"),
        (json.dumps([{**GOOD, "neurons": {"a": {"1": [["hue"]]}}}]), "expected .variable, value, set."),
        (json.dumps([{**GOOD, "unit_name": "a.b"}]), "segment name 'a.b'"),
    ],
)
def test_files_that_are_refused(tmp_path, text, said):
    """One message for each way in which a file can be wrong."""
    path = tmp_path / "units.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_segments(path)


def test_a_missing_file_names_the_presets(tmp_path):
    """Whoever mistypes the name of a preset reads which there are."""
    with pytest.raises(InputError, match=r"alexnet, resnet18"):
        read_segments(tmp_path / "alexnett")


def test_a_name_that_stands_twice_is_numbered(tmp_path, caplog):
    """The published list of ResNet-18 has one name twice: it is read as it is, with a warning."""
    path = tmp_path / "units.json"
    path.write_text(json.dumps([GOOD, GOOD, GOOD]), encoding="utf-8")
    assert [segment.name for segment in read_segments(path)] == ["a", "a-2", "a-3"]
    assert "'a' stands for several" in caplog.text


def test_segments_that_cannot_be():
    """Units twice, below 0, none, and reasons for others."""
    for units, said in (((), "has no units"), ((1, 1), "twice"), ((-1,), "below 0")):
        with pytest.raises(InputError, match=said):
            Segment("a", ("conv",), units)
    with pytest.raises(InputError, match="reason for unit 2"):
        Segment("a", ("conv",), (1,), reasons=((2, ("hue", "si", "2")),))


def test_a_place_that_cannot_be_written(tmp_path):
    """A file where a folder should be is said in one message."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot write"):
        write_segments(tmp_path / "file" / "units.json", SEGMENTS["alexnet"])
