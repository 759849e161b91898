"""Recipes: what is written is read back, and every mistake in one is named."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronscope import InputError, UnknownName
from neuronscope.faces.cli.options import Option
from neuronscope.faces.cli.recipes import merge, moved, read_recipe, write_recipe

OPTIONS = (
    Option("model", "", table="model"),
    Option("resize", "", type=int, table="model", many=True),
    Option("data", "", table="data"),
    Option("limit", "", type=int, table="data"),
    Option("download", "", type=bool, table="data"),
    Option("layers", "", table="study", many=True),
    Option("level", "", type=float, table="study"),
    Option("pool", "", type=Literal["mean", "max"], table="study"),
    Option("out", "", type=Path, table="run"),
    Option("quiet", "", type=bool),
)


def read(tmp_path, text, *, study="layers"):
    """The settings of a recipe with this text."""
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path, options=OPTIONS, study=study)


# TOML has no lone surrogates; everything else a shell can pass may be in a name.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    model=TEXTS,
    resize=st.lists(st.integers(-(2**62), 2**62), max_size=3).map(tuple),
    download=st.booleans(),
    layers=st.lists(TEXTS, max_size=3).map(tuple),
    level=st.floats(allow_nan=False),
)
def test_written_recipes_read_back(tmp_path_factory, model, resize, download, layers, level):  # noqa: PLR0917 hypothesis passes them by name
    """A recipe that was written says what went into it, whatever its texts hold."""
    settings = {
        "model": {"model": model, "resize": resize},
        "data": {"download": download, "limit": None},
        "study": {"name": "layers", "layers": layers, "level": level, "pool": "max"},
        "run": {"out": Path("runs/here")},
    }
    path = write_recipe(tmp_path_factory.mktemp("recipe") / "recipe.toml", settings, title="an example")
    back = read_recipe(path, options=OPTIONS, study="layers")
    assert back == {
        "train": {},
        "model": settings["model"],
        "data": {"download": download},
        "study": {"layers": layers, "level": level, "pool": "max"},
        "run": {"out": Path("runs/here")},
    }


def test_flags_win(tmp_path):
    """The command line has the last word, option by option; what only it can say is not in the settings."""
    recipe = read(tmp_path, '[data]\ndata = "digits"\nlimit = 5\n')
    merged = merge(recipe, {"limit": 9, "layers": ("conv",), "quiet": True}, options=OPTIONS)
    assert merged == {
        "train": {},
        "model": {},
        "data": {"data": "digits", "limit": 9},
        "study": {"layers": ("conv",)},
        "run": {},
    }


def test_images_move_together():
    """Images named again beside [data] are taken from where the command line says; others, and other texts, stay."""
    recipe = {
        "train": {"data": "mnist:here", "test_data": "mnist:other", "model": "mnist:here"},
        "data": {"data": "mnist:here"},
        "study": {"report_data": "mnist:here"},
    }
    assert moved(recipe, "mnist:there") == {
        "train": {"data": "mnist:there", "test_data": "mnist:other", "model": "mnist:here"},
        "data": {"data": "mnist:there"},
        "study": {"report_data": "mnist:there"},
    }
    assert moved(recipe, None) == recipe


def test_tables_of_others_are_passed_over(tmp_path):
    """A command that reads one table does not judge those of others; a table that nobody has is still a mistake."""
    path = tmp_path / "recipe.toml"
    path.write_text("[study]\nunheard = 1\n[data]\nlimit = 5\n", encoding="utf-8")
    assert read_recipe(path, options=OPTIONS, study="", others=("study",))["data"] == {"limit": 5}
    with pytest.raises(UnknownName, match="'unheard' in"):
        read_recipe(path, options=OPTIONS, study="")


def test_one_value_needs_no_brackets(tmp_path):
    """Where several values are taken, one may stand alone, as on the command line."""
    recipe = read(tmp_path, '[model]\nresize = 224\n[study]\nlayers = "conv"\nlevel = 1\n')
    assert recipe["model"]["resize"] == (224,)
    assert recipe["study"] == {"layers": ("conv",), "level": 1.0}


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("[modell]\nmodel = 'a'\n", UnknownName, ["'modell'", "Closest: 'model'"]),
        ("seed = 1\n", UnknownName, ["a key 'seed'", "[run]"]),
        ("run = 1\n", InputError, ["'run'", "expected a table"]),
        ("[model]\nresise = 1\n", UnknownName, ["'resise' in [model]", "Closest: 'resize'"]),
        ("[model]\nlimit = 1\n", UnknownName, ["'limit' in [model]", "belongs in [data]"]),
        ("[run]\nquiet = true\n", UnknownName, ["'quiet' in [run]"]),
        ("[data]\nlimit = '5'\n", InputError, ["'limit' in [data]", 'the text "5"', "a whole number"]),
        ("[data]\nlimit = true\n", InputError, ["'limit'", "true", "a whole number"]),
        ("[data]\ndownload = 1\n", InputError, ["'download'", "true or false"]),
        ("[study]\nlevel = 'high'\n", InputError, ["'level'", "a number"]),
        ("[study]\nlayers = [1.5]\n", InputError, ["'layers'", "a list, each a text"]),
        ("[study]\npool = 'median'\n", InputError, ["'pool'", "'mean', 'max'"]),
        ("[run]\nout = ['a']\n", InputError, ["'out'", "a path"]),
        ("[study]\nname = 'clusters'\n", InputError, ["study 'clusters', not 'layers'"]),
        ("[run\n", InputError, ["is not TOML", "line 1"]),
    ],
)
def test_mistakes_are_named(tmp_path, text, error, words):
    """A wrong table, key, type or study is one message that names the place and what was expected."""
    with pytest.raises(error) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_missing_recipe(tmp_path):
    """A recipe that is not there is the caller's mistake."""
    with pytest.raises(InputError, match=r"gone\.toml cannot be read"):
        read_recipe(tmp_path / "gone.toml", options=OPTIONS, study="layers")
