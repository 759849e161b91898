"""A series as a TOML file: a title and steps in order, each a recipe with what differs from it.

    title = "what this is"
    out = "runs/mine"                    # folder that holds the steps' folders; --out wins

    [[steps]]
    recipe = "set1.toml"                 # relative to this file

    [[steps]]
    name = "masks"                       # its folder below `out`; default: the recipe's name without .toml
    recipe = "masks.toml"
    needs = { maps_from = ["set1"] }     # option of the study = steps before whose folders it takes
    study = { images = 100 }             # what differs from the recipe, by table

Nothing is looked up here but the file: what a recipe holds is for `steps.py`.
"""

from __future__ import annotations

import re
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from neuronscope import InputError, UnknownName, nearest
from neuronscope.faces.cli import recipes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")  # a folder, a file and a word of a shell, all at once

Tables = dict[str, Any]


def _several(value: Any) -> Any:
    """One name as a list of one."""
    return [value] if isinstance(value, str) else value


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Entry:
    """One step as it is written.

    Attributes:
        recipe: the TOML file; relative to the series until `read_series` has placed it.
        name: of the step, and of its folder; "" until `read_series` has named it after the recipe.
        needs: option of the study -> names of earlier steps whose folders it takes.
        train, model, data, study, run: what differs from the tables of the recipe.
    """

    recipe: Path
    name: str = ""
    needs: dict[str, Annotated[tuple[str, ...], BeforeValidator(_several)]] = field(default_factory=dict)
    train: Tables = field(default_factory=dict)
    model: Tables = field(default_factory=dict)
    data: Tables = field(default_factory=dict)
    study: Tables = field(default_factory=dict)
    run: Tables = field(default_factory=dict)

    @property
    def tables(self) -> dict[str, Tables]:
        """What differs from the recipe."""
        return {"train": self.train, "model": self.model, "data": self.data, "study": self.study, "run": self.run}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Document:
    """A series as it is written.

    Attributes:
        steps: in the order they are done.
        title: what the series is.
        out: folder that holds the steps' folders.
    """

    steps: Annotated[tuple[Entry, ...], Field(min_length=1)]
    title: str = ""
    out: Path = Path("runs")


_FIELDS: dict[Literal["series", "step"], list[str]] = {
    "series": list(Document.__dataclass_fields__),
    "step": list(Entry.__dataclass_fields__),
}


def read_series(path: Path) -> Document:
    """A series from its file, with its recipes' paths and its steps' names filled in; a recipe is a series of one step.

    Raises:
        InputError: no such file, no TOML, a value of the wrong type, a name that is no name or stands twice, or a need
            that is not met by a step before.
        UnknownName: a key that does not exist, or a need of a step that does not exist.
    """
    content = recipes.read_toml(path, what="series")
    if "steps" not in content and set(content) & set(recipes.TABLES):
        document = Document(steps=(Entry(recipe=Path(path.name)),))
    else:
        try:
            document = TypeAdapter(Document).validate_python(content)
        except ValidationError as error:
            raise _refusal(path, error) from error
    placed = tuple(
        replace(one, recipe=path.parent / one.recipe, name=one.name or one.recipe.stem) for one in document.steps
    )
    _check_names(path, placed)
    _check_needs(path, placed)
    return replace(document, steps=placed)


def _refusal(path: Path, error: ValidationError) -> InputError:
    """What is wrong with a series, all of it in one message; a key that does not exist comes with the nearest."""
    wrong, unknown = [], False
    # A step that is refused also leaves the list of steps too short, which is no mistake of its own.
    parts = [part for part in error.errors() if part["type"] != "too_short" or part["input"] == []]
    for part in parts:
        numbers = [key for key in part["loc"] if isinstance(key, int)]
        place = f"step {numbers[0] + 1}" if numbers else "the series"
        key = next((str(key) for key in reversed(part["loc"]) if not isinstance(key, int)), "")
        if part["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            names = _FIELDS["step" if numbers else "series"]
            wrong.append(f"{place} has an unknown key '{key}'.{nearest(key, names)} All: {', '.join(names)}")
            unknown = True
        elif part["type"] in ("missing", "missing_argument"):
            wrong.append(f"{place} has no '{key}', which is expected")
        else:
            wrong.append(f"'{key}' of {place}: {part['msg']}, got {part['input']!r}")
    message = f"the series {path} cannot be read: {'; '.join(wrong)}"
    return UnknownName(message) if unknown else InputError(message)


def _check_names(path: Path, entries: tuple[Entry, ...]) -> None:
    """Refuse names that are no names of folders, and two steps with one folder.

    Raises:
        InputError: with the name.
    """
    for entry in entries:
        if not _NAME.fullmatch(entry.name):
            message = (
                f"'{entry.name}' in {path} is no name for a step: expected letters, digits and . _ + - alone, for the "
                "step's folder has this name. Give it another `name`"
            )
            raise InputError(message)
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = (
            f"two steps of {path} have the name '{twice[0]}', and would write to one folder: expected a name for each. "
            "Give one of them another `name`"
        )
        raise InputError(message)


def _check_needs(path: Path, entries: tuple[Entry, ...]) -> None:
    """Refuse a need that no step before meets.

    Raises:
        UnknownName: of a step that does not exist.
        InputError: of a step that comes later, or of the step itself.
    """
    names = [entry.name for entry in entries]
    for number, entry in enumerate(entries):
        for need in (name for wanted in entry.needs.values() for name in wanted):
            if need not in names:
                message = (
                    f"step '{entry.name}' of {path} needs the result of '{need}', which is no step of it."
                    f"{nearest(need, names)} Steps before it: {', '.join(names[:number]) or 'none'}"
                )
                raise UnknownName(message)
            if need not in names[:number]:
                where = "is the step itself" if need == entry.name else "comes later"
                message = (
                    f"step '{entry.name}' of {path} needs the result of '{need}', which {where}: expected one of the "
                    f"steps before, {', '.join(names[:number]) or 'of which there are none'}. Change their order"
                )
                raise InputError(message)
