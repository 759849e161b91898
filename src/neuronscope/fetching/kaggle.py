"""The user's own credentials for Kaggle, from where Kaggle's own tool keeps them; they are read and never shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from neuronscope.errors import DataError, InputError

_HOW = (
    "Log in at https://www.kaggle.com, open Settings, create an API key (legacy: kaggle.json), and either put that "
    "file to {file} or set KAGGLE_USERNAME and KAGGLE_KEY"
)


@dataclass(frozen=True)
class Credentials:
    """Who asks; the key appears in no text that is made of this.

    Attributes:
        user: the name of the account.
        key: its key.
    """

    user: str
    key: str = field(repr=False)

    def header(self) -> str:
        """The value of the header `Authorization` (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.key}".encode()).decode("ascii")


def kaggle_credentials(environment: Mapping[str, str], *, home: Path) -> Credentials:
    """The credentials of whoever runs this: from the environment, else from `kaggle.json`.

    Args:
        environment: variables; `KAGGLE_USERNAME` and `KAGGLE_KEY` together, or `KAGGLE_CONFIG_DIR` for the folder.
        home: the folder in which `.kaggle/kaggle.json` is looked for.

    Raises:
        InputError: there are none; the message says how to get them.
        DataError: the file is there, but cannot be read.
    """
    user, key = environment.get("KAGGLE_USERNAME", ""), environment.get("KAGGLE_KEY", "")
    folder = environment.get("KAGGLE_CONFIG_DIR")
    file = (Path(folder).expanduser() if folder else home / ".kaggle") / "kaggle.json"
    how = _HOW.format(file=file)
    if user and key:
        return Credentials(user, key)
    if user or key:
        missing = "KAGGLE_KEY" if user else "KAGGLE_USERNAME"
        message = f"{missing} is not set, but its companion is: expected both or none. {how}"
        raise InputError(message)
    if not file.is_file():
        message = f"no Kaggle credentials: expected KAGGLE_USERNAME and KAGGLE_KEY, or {file}; neither is there. {how}"
        raise InputError(message)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return Credentials(str(found["username"]), str(found["key"]))
    except (OSError, ValueError, KeyError, TypeError):
        # Without the cause: a message about the content could hold a part of the key.
        message = f"{file} cannot be read as credentials: expected a JSON object with username and key. {how}"
        raise DataError(message) from None
