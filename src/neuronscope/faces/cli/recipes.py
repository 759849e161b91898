"""Recipes: what a command was asked for, as a TOML file that can be written by hand and repeated.

A recipe has the tables [model], [data], [study] and [run]; its keys are the flags with underscores. A table [train]
holds those of `neuronscope train`, for a network that is trained before it is studied. Every run writes the recipe that
repeats it beside its results.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from neuronscope import InputError, StorageError, UnknownName, nearest
from neuronscope.faces.cli.options import Option, Table

TABLES: tuple[Table, ...] = ("train", "model", "data", "study", "run")

Settings = dict[str, dict[str, Any]]
"""Table -> key -> value, for what was given only."""

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a text (a path)"}


def read_recipe(path: Path, *, options: Sequence[Option], study: str, others: Collection[str] = ()) -> Settings:
    """The settings of a recipe, checked against the options there are.

    Args:
        path: the TOML file.
        options: the options that may stand in it.
        study: what the command line asks for; a `name` in the table [study] must be the same.
        others: tables that another command reads: they are passed over.

    Raises:
        InputError: no such file, no TOML, or a value of the wrong type.
        UnknownName: a table or key that does not exist; the message offers the nearest.
    """
    content = {table: keys for table, keys in read_toml(path, what="recipe").items() if table not in others}
    named = content.get("study", {})
    if isinstance(named, dict) and named.get("name", study) != study:
        message = (
            f"the recipe {path} is for the study '{named['name']}', not '{study}'. "
            f"Say: neuronscope run {named['name']} --recipe {path}"
        )
        raise InputError(message)
    return checked(content, options=options, place=f"the recipe {path}")


def read_toml(path: Path, *, what: str) -> dict[str, Any]:
    """What a TOML file holds.

    Args:
        path: the file.
        what: it is, for messages.

    Raises:
        InputError: no such file, or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"the {what} {path} cannot be read: {error.strerror}. Expected a TOML file: check the path"
        raise InputError(message) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"the {what} {path} is not TOML: {error}"
        raise InputError(message) from error


def checked(content: Mapping[str, Any], *, options: Sequence[Option], place: str) -> Settings:
    """Tables as settings, each value as the command line would give it; the name of the study is left out.

    Args:
        content: table -> key -> value, as TOML gives it.
        options: those that may stand in it.
        place: where it stands, for messages.

    Raises:
        InputError: a value of the wrong type.
        UnknownName: a table or key that does not exist; the message offers the nearest.

    Example:
        >>> limit = Option("limit", "", type=int, table="data")
        >>> checked({"data": {"limit": 9}}, options=[limit], place="here")["data"]
        {'limit': 9}
    """
    known = {(option.table, option.key): option for option in options if option.table}
    settings: Settings = {table: {} for table in TABLES}
    for table, keys in content.items():
        _check_table(place, table, keys)
        for key, value in keys.items():
            if (table, key) == ("study", "name"):
                continue
            option = next((option for own, option in known.items() if own == (table, key)), None)
            if option is None:
                raise UnknownName(_unknown_key(place, table, key, list(known)))
            settings[table][key] = _read_value(place, option, value)
    return settings


def study_name(path: Path) -> str:
    """The study that a written recipe is of; empty when it does not say.

    Raises:
        InputError: the file cannot be read as TOML.
    """
    named = read_toml(path, what="recipe").get("study", {})
    return str(named.get("name", "")) if isinstance(named, dict) else ""


def moved(recipe: Mapping[str, Mapping[str, Any]], source: str | None) -> Settings:
    """The settings of a recipe with its images taken from another place, wherever it names them.

    The images of [data] may be named a second time, to train on (`data` in [train]) or to report on (`report_data` in
    [study]): a `--data` that says where they are on this machine is meant for all of these.

    Args:
        recipe: what was read.
        source: what `--data` says; None changes nothing.

    Example:
        >>> recipe = {"train": {"data": "mnist:data/mnist", "limit": 9}, "data": {"data": "mnist:data/mnist"}}
        >>> moved(recipe, "mnist:elsewhere")["train"]
        {'data': 'mnist:elsewhere', 'limit': 9}
    """
    before = recipe.get("data", {}).get("data")

    def place(key: str, value: Any) -> Any:
        names_images = key == "data" or key.endswith("_data")
        return source if names_images and source is not None and value == before else value

    return {table: {key: place(key, value) for key, value in keys.items()} for table, keys in recipe.items()}


def merge(recipe: Mapping[str, Mapping[str, Any]], flags: Mapping[str, Any], *, options: Sequence[Option]) -> Settings:
    """The settings of a recipe with those of the command line in their place where both speak.

    Example:
        >>> merge({"run": {"seed": 1}}, {"seed": 2}, options=[Option("seed", "", type=int, table="run")])["run"]
        {'seed': 2}
    """
    settings: Settings = {table: dict(recipe.get(table, {})) for table in TABLES}
    for option in options:
        if option.table and option.key in flags:
            settings[option.table][option.key] = flags[option.key]
    return settings


def write_recipe(path: Path, settings: Mapping[str, Mapping[str, Any]], *, title: str) -> Path:
    """Write settings so that `read_recipe` gives them back; what is None is left out.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        path.write_text(recipe_text(settings, title=title), encoding="utf-8")
    except OSError as error:
        message = f"cannot write {path}: {error.strerror or error}. Choose another --out"
        raise StorageError(message) from error
    return path


def recipe_text(settings: Mapping[str, Mapping[str, Any]], *, title: str) -> str:
    """Settings as TOML.

    Example:
        >>> print(recipe_text({"run": {"seed": 0, "out": None}, "study": {"layers": ("conv",)}}, title="an example"))
        # an example
        <BLANKLINE>
        [run]
        seed = 0
        <BLANKLINE>
        [study]
        layers = ["conv"]
        <BLANKLINE>
    """
    lines = [f"# {title}"]
    for table, keys in settings.items():
        given = {key: value for key, value in keys.items() if value is not None}
        if given:
            lines += ["", f"[{table}]", *(f"{key} = {_toml(value)}" for key, value in given.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml(one) for one in value)}]"
    # A JSON text is a TOML text, but for the one control character that JSON lets stand as it is.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _check_table(place: str, table: str, keys: Any) -> None:
    if table not in TABLES:
        message = (
            f"{place} has {'a table' if isinstance(keys, dict) else 'a key'} '{table}': expected the tables "
            f"{', '.join(f'[{name}]' for name in TABLES)}.{nearest(table, TABLES)}"
        )
        raise UnknownName(message)
    if not isinstance(keys, dict):
        message = f"'{table}' in {place} is {_described(keys)}: expected a table, [{table}]"
        raise InputError(message)


def _unknown_key(place: str, table: str, key: str, known: Sequence[tuple[str, str]]) -> str:
    here = [name for own, name in known if own == table]
    elsewhere = [own for own, name in known if name == key]
    hint = f" It belongs in [{elsewhere[0]}]." if elsewhere else nearest(key, here)
    return f"{place} has an unknown key '{key}' in [{table}].{hint} All: {', '.join(here)}"


def _read_value(place: str, option: Option, value: Any) -> Any:
    """A value of a recipe as the command line would give it."""
    # A single value may stand without brackets where several are taken, as on the command line.
    values = value if option.many and isinstance(value, list) else [value]
    if not all(_fits(option.type, one) for one in values):
        what = _expected(option)
        message = f"'{option.key}' in [{option.table}] of {place} is {_described(value)}: expected {what}"
        raise InputError(message)
    read = tuple(float(one) if option.type is float else Path(one) if option.type is Path else one for one in values)
    return read if option.many else read[0]


def _fits(kind: Any, value: Any) -> bool:
    if get_origin(kind) is not None:
        return value in get_args(kind)
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float)
    # Names and numbers of classes may be mixed; a spec decides about the numbers among its texts.
    return isinstance(value, str | int) if kind is str else isinstance(value, str if kind is Path else kind)


def _expected(option: Option) -> str:
    if get_origin(option.type) is not None:
        return f"one of {', '.join(map(repr, get_args(option.type)))}"
    kind = _KINDS[option.type]
    return f"a list, each {kind}" if option.many else kind


def _described(value: Any) -> str:
    kinds: dict[type, str] = {dict: "a table", list: "a list", str: "the text", bool: "", int: "", float: ""}
    return f"{kinds.get(type(value), '')} {_toml(value) if not isinstance(value, dict) else ''}".strip()
