"""What an examination says: one value for each thing looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Topic = Literal["installation", "machine", "network", "images", "behaviour", "cost"]

Verdict = Literal["fine", "note", "warning", "broken"]
"""From harmless to grave. `note`: worth knowing. `warning`: results may mean something else than one thinks. `broken`:
a run would fail or its results would be wrong."""

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

_SHOWN = 4  # names in a text before it says how many more there are


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: which part of the examination it belongs to.
        subject: what was looked at, in a word or two.
        verdict: how grave it is.
        text: what was seen and, where it is not as it should be, what was expected.
        advice: what to do about it; empty where there is nothing to do.
    """

    topic: Topic
    subject: str
    verdict: Verdict
    text: str
    advice: str = ""


def worst(findings: Sequence[Finding]) -> Verdict:
    """The gravest verdict; `fine` when nothing was found.

    Example:
        >>> worst([Finding("machine", "disk", "note", ""), Finding("machine", "memory", "fine", "")])
        'note'
    """
    return max((one.verdict for one in findings), key=VERDICTS.index, default="fine")


def some(names: Sequence[str]) -> str:
    """A few names, and how many more there are.

    Example:
        >>> some(["a", "b", "c", "d", "e", "f"])
        'a, b, c, d and 2 more'
    """
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
