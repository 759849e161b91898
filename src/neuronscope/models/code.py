"""Python code that a user names: `package.module:NAME` or `path/to/file.py:NAME`. Importing it runs it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from neuronscope.errors import InputError, UnknownName, nearest


def place_and_name(source: str, *, name: str = "NAME") -> tuple[str, str]:
    """What stands in a source `python:PLACE:NAME`.

    Args:
        source: as the user wrote it.
        name: what the part after the last colon is called in the message.

    Raises:
        InputError: it has another form.

    Example:
        >>> place_and_name("python:my/code.py:twirl")
        ('my/code.py', 'twirl')
    """
    prefix, _, rest = source.partition(":")
    place, _, found = rest.rpartition(":")
    if prefix != "python" or not place or not found:
        message = f"cannot read source '{source}': expected python:package.module:{name} or python:file.py:{name}"
        raise InputError(message)
    return place, found


def module_at(place: str, *, source: str) -> ModuleType:
    """Import a file (a place that ends with `.py`) or a module.

    Args:
        place: of the code.
        source: what the user wrote, for messages.

    Raises:
        InputError: there is no such file or module, or it fails.
    """
    try:
        return _module_of_file(Path(place)) if place.endswith(".py") else _module_of_package(place)
    except InputError:
        raise
    except Exception as problem:
        message = (
            f"importing {place} for '{source}' failed: {type(problem).__name__}: {problem}. Check the path and code"
        )
        raise InputError(message) from problem


def object_in(module: ModuleType, name: str, *, place: str, expected: str) -> Any:
    """What a module calls by a name.

    Args:
        module: from `module_at`.
        name: in it.
        place: where the user said it is, for the message.
        expected: what it should be, for the message.

    Raises:
        UnknownName: the module has nothing of that name.
    """
    found = getattr(module, name, None)
    if found is None:
        message = f"{place} has no '{name}'.{nearest(name, vars(module))} Expected {expected}"
        raise UnknownName(message)
    return found


def _module_of_file(file: Path) -> ModuleType:
    if not file.is_file():
        message = f"there is no Python file {file}. Check the path (looked for {file.absolute()})"
        raise InputError(message)
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]
    name = f"_neuronscope_{file.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        message = f"{file} cannot be imported as Python code"
        raise InputError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickling and dataclasses look their module up here
    spec.loader.exec_module(module)
    return module


def _module_of_package(name: str) -> ModuleType:
    """Import a module as `python -c` would: the current folder counts."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return importlib.import_module(name)
