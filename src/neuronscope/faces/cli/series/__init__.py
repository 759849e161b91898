"""`neuronscope series`: a list of experiments in one command, or as jobs for other machines."""

from __future__ import annotations

from neuronscope.faces.cli.series.command import make_app

__all__ = ["make_app"]
