"""What the program this study comes from leaves behind, under its own names."""

from __future__ import annotations

from pathlib import Path

from neuronscope.result import Result

ORIGINAL_FIGURES: dict[str, str] = {}


def export_sensitivity(result: Result, folder: Path) -> list[Path]:  # noqa: ARG001 written next
    """Write the files of the original."""
    return []
