"""The search of many detectors: shared out among the run's workers, one detector at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neuronscope.run import Run
from neuronscope.studies.concepts.grid import Explained, Grid


@dataclass(frozen=True, eq=False)
class Tasks(Sequence[tuple[Any, Any]]):
    """What is known of each detector beside where its search starts, put together when it is its turn."""

    gathered: Sequence[Any]
    starts: Sequence[Any]

    def __len__(self) -> int:
        """Number of detectors."""
        return len(self.gathered)

    def __getitem__(self, position: Any) -> Any:
        """One detector's."""
        return self.gathered[position], self.starts[position]


def search_all(grid: Grid, shared: Any, tasks: Sequence[Any], *, run: Run, title: str) -> list[Explained]:
    """Explain every detector, in order.

    Args:
        grid: how masks are compared.
        shared: `grid.shared()`.
        tasks: what the search needs of each detector.
        run: who works, and who is told.
        title: what progress calls it.
    """
    found: list[Explained | None] = [None] * len(tasks)
    run.progress.start(title, len(tasks))
    try:
        for position, answer in run.executor.work(grid.search, shared, tasks):
            found[position] = answer
            run.progress.advance(1)
    finally:
        run.progress.finish()
    return [one for one in found if one is not None]
