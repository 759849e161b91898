"""Everything that can go wrong, as one tree of types.

    NeuronscopeError
    ├── InputError            (ValueError)    the caller's arguments, files or names cannot work as given
    │   ├── UnknownName       (KeyError)      a layer, study, model or data source that does not exist
    │   ├── WeightsError                      weights that do not fit the network, or hold NaN
    │   ├── DataError                         an image or label that cannot be read or is out of range
    │   └── ResultFileError                   a result folder that is torn, foreign or too new
    ├── MissingDependency     (ImportError)   an optional package that is not installed
    ├── StorageError          (OSError)       a folder that cannot be written: full, read-only, gone
    ├── NonFiniteActivations  (ArithmeticError)  a study finished, but some units gave NaN or infinity
    └── PortionDone                           no error: the part of a study that was asked for is worked and kept

Each is also the built-in type in brackets, so that ordinary `except` clauses work. A message has four parts:
what is wrong, what was expected, what came, what to do. The command line prints it alone, with exit code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class NeuronscopeError(Exception):
    """The root of the tree: catch this to catch everything neuronscope raises on purpose."""

    def __str__(self) -> str:
        """The message as written (a `KeyError` would show its `repr`)."""
        return str(self.args[0]) if self.args else type(self).__name__


class InputError(NeuronscopeError, ValueError):
    """Arguments, files or names that cannot work as given."""


class UnknownName(InputError, KeyError):
    """A name that is not in its table; the message offers the nearest ones."""


class WeightsError(InputError):
    """Weights that do not fit the network, are not finite, or are not there."""


class DataError(InputError):
    """An image or label that cannot be read, or that lies outside its range."""


class ResultFileError(InputError):
    """A result folder that is torn, was not written by neuronscope, or comes from a newer version."""


class MissingDependency(NeuronscopeError, ImportError):
    """An optional package that the chosen feature needs."""


class StorageError(NeuronscopeError, OSError):
    """A folder that cannot be written to: full, read-only, or gone."""


class NonFiniteActivations(NeuronscopeError, ArithmeticError):
    """A study is complete and saved, but some units gave NaN or infinite activations."""


class PortionDone(NeuronscopeError):
    """The part of a study that was asked for is worked and kept; joining all parts gives the result."""


def nearest(name: str, names: Iterable[str], *, most: int = 3) -> str:
    """A phrase that offers the names closest to `name`, empty when none is close.

    Example:
        >>> nearest("layer5", ["layer4", "layer3", "fc"])
        " Closest: 'layer4', 'layer3'."
    """
    close = difflib.get_close_matches(name, list(names), n=most, cutoff=0.5)
    return f" Closest: {', '.join(repr(found) for found in close)}." if close else ""


def check_name(name: str, names: Sequence[str], what: str) -> None:
    """Refuse a name that is not in its list.

    Args:
        name: as given.
        names: those there are.
        what: what it is the name of, as in `layer`.

    Raises:
        UnknownName: the message offers the nearest ones.

    Example:
        >>> check_name("evn", ["even", "odd"], "cut")
        Traceback (most recent call last):
        neuronscope.errors.UnknownName: cut 'evn' is not known: expected one of even, odd. Closest: 'even'.
    """
    if name not in names:
        message = f"{what} '{name}' is not known: expected one of {', '.join(names)}.{nearest(name, names)}"
        raise UnknownName(message)
