"""The steps of a series, settled: recipe, what differs from it and flags in one; and whether they are done already.

A step is finished when its folder holds a result and no checkpoint, made from a recipe that asks for the same, after
the results that it needs. Only circumstances may differ that change no number: where files lie, workers, executor,
memory. What lies behind the names of weights and images is not looked at.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neuronscope import STUDIES, InputError, Study, UnknownName, nearest
from neuronscope.faces.cli import options, recipes
from neuronscope.faces.cli.options import Option
from neuronscope.faces.cli.run import CHECKPOINT, resolved, study_options, study_spec
from neuronscope.faces.cli.series.document import Document, Entry
from neuronscope.faces.cli.train import table_options
from neuronscope.faces.outputs import RECIPE, RESULT

SHARED = tuple(
    replace(option, default="as the recipes say")
    for option in (
        *options.chosen(options.MODEL, "weights"),
        *options.chosen(options.DATA, "data", "limit", "on_error"),
        *(option for option in options.RUN if option.key != "out"),
    )
)
"""Options that hold for all steps, whatever their recipes say."""

_CIRCUMSTANCES = ("out", "workers", "memory", "executor", "processes", "address")


@dataclass(frozen=True)
class Step:
    """One step, settled.

    Attributes:
        number: its place in the series, from 1.
        name: as the file calls it.
        study: the row of the table.
        settings: its recipe, with what the step and the command line say in place of it.
        spec: options of the study.
        folder: where it writes to.
        needs: steps before whose results it takes, each once.
        taken: options of the study that take them.
    """

    number: int
    name: str
    study: Study
    settings: recipes.Settings
    spec: Any
    folder: Path
    needs: tuple[Step, ...] = ()
    taken: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether its folder holds what it would make."""
        recipe = self.folder / RECIPE
        if not (recipe.is_file() and (self.folder / RESULT).is_dir()) or (self.folder / CHECKPOINT).is_dir():
            return False
        made = recipe.stat().st_mtime_ns
        # A recipe is written when a run starts: this one must have started after those of the results it was made of.
        if not all(one.finished and (one.folder / RECIPE).stat().st_mtime_ns <= made for one in self.needs):
            return False
        return self._asked(recipe) == self._deciding(self.settings, self.spec)

    @property
    def begun(self) -> bool:
        """Whether an interrupted run has kept something in its folder."""
        return any((self.folder / CHECKPOINT).glob("*.state"))

    def _asked(self, recipe: Path) -> dict[str, Any] | None:
        """What a recipe beside a result asks for; None where it cannot be read, as that of another version."""
        known = (*study_options(self.study), *table_options())
        try:
            settings = recipes.read_recipe(recipe, options=known, study=self.study.name)
            return self._deciding(settings, study_spec(self.study, settings))
        except InputError:
            return None

    def _deciding(self, settings: recipes.Settings, spec: Any) -> dict[str, Any]:
        """All that decides the numbers, defaults included, as plain values of TOML."""
        full = resolved(settings, self.study, spec, folder=self.folder)
        plain = tomllib.loads(recipes.recipe_text(full, title=""))
        plain["run"] = {key: value for key, value in plain["run"].items() if key not in _CIRCUMSTANCES}
        for option in self.taken:  # the same folder may be named from elsewhere
            plain["study"][option] = [str(Path(one).resolve()) for one in _listed(plain["study"].get(option, []))]
        return plain


def settle(document: Document, *, path: Path, flags: Mapping[str, Any]) -> tuple[Step, ...]:
    """The steps of a series, each with all it takes.

    Args:
        document: as it is written.
        path: where, for messages.
        flags: what the command line says for all steps, and `out`.

    Raises:
        NeuronscopeError: a recipe that cannot be read, or options that cannot be; nothing was computed.
    """
    out = flags.get("out", document.out)
    steps: dict[str, Step] = {}
    for number, entry in enumerate(document.steps, 1):
        steps[entry.name] = _settled(entry, number, path=path, out=out, flags=flags, before=steps)
    return tuple(steps.values())


def choose(steps: Sequence[Step], only: Sequence[str]) -> tuple[Step, ...]:
    """The steps that were asked for, in the order of the series; all when none was named.

    Raises:
        UnknownName: no such step.
    """
    names = [step.name for step in steps]
    for name in only:
        if name not in names:
            message = f"there is no step '{name}' in this series.{nearest(name, names)} All: {', '.join(names)}"
            raise UnknownName(message)
    return tuple(step for step in steps if not only or step.name in only)


def check_needs(chosen: Iterable[Step]) -> None:
    """Refuse steps whose needs will not be there.

    Raises:
        InputError: a step needs the result of one that is neither finished nor chosen.
    """
    coming: set[str] = set()
    for step in chosen:
        for need in step.needs:
            if need.name not in coming and not need.finished:
                message = (
                    f"step '{step.name}' needs the result of '{need.name}', which is not in {need.folder} as this "
                    f"series would make it, and is not chosen. Say --only {need.name},{step.name}, or leave --only out"
                )
                raise InputError(message)
        coming.add(step.name)


def _settled(
    entry: Entry, number: int, *, path: Path, out: Path, flags: Mapping[str, Any], before: Mapping[str, Step]
) -> Step:
    """One step with all it takes."""
    study = _study_of(entry)
    known = (*study_options(study), *table_options())
    place = f"step '{entry.name}' of the series {path}"
    written = recipes.read_recipe(entry.recipe, options=known, study=study.name)
    own = recipes.checked(entry.tables, options=known, place=place)
    both: recipes.Settings = {table: written[table] | own[table] for table in recipes.TABLES}
    settings = recipes.merge(recipes.moved(both, flags.get("data")), flags, options=SHARED)
    folders = {
        option: _folders(option, [str(before[name].folder) for name in names], known=known)
        for option, names in entry.needs.items()
    }
    settings["study"] |= recipes.checked({"study": folders}, options=known, place=place)["study"]
    settings["run"]["out"] = out / entry.name
    needed = dict.fromkeys(name for names in entry.needs.values() for name in names)
    return Step(
        number=number,
        name=entry.name,
        study=study,
        settings=settings,
        spec=study_spec(study, settings),
        folder=out / entry.name,
        needs=tuple(before[name] for name in needed),
        taken=tuple(entry.needs),
    )


def _study_of(entry: Entry) -> Study:
    """The study that the recipe of a step is of.

    Raises:
        InputError: it does not say.
        UnknownName: no such study.
    """
    name = recipes.study_name(entry.recipe)
    if not name:
        message = (
            f"the recipe {entry.recipe} does not say which study it is for: expected `name` in its table [study], such "
            f"as one of {', '.join(STUDIES)}. Add it"
        )
        raise InputError(message)
    if name not in STUDIES:
        message = f"the recipe {entry.recipe} is of the study '{name}', which is not installed here."
        raise UnknownName(message + nearest(name, STUDIES))
    return STUDIES[name]


def _folders(key: str, folders: list[str], *, known: Sequence[Option]) -> list[str] | str:
    """Folders as an option takes them: a list, or the only one where it takes one."""
    many = any(option.many for option in known if (option.table, option.key) == ("study", key))
    return folders if many or len(folders) != 1 else folders[0]


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]
