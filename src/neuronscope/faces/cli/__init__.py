"""The command line: `neuronscope run`, `train`, `demo`, `list`, `data` and `report`.

It reads options, calls the facade and says what came of it; whatever it can do, a script can do with the same names.
What takes long to import is imported by the command that needs it, so that `--help` answers at once.
"""

from neuronscope.faces.cli.app import main

__all__ = ["main"]
