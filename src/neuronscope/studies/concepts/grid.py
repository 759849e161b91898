"""How masks of units and concepts are compared: pixel by pixel, or on a grid of 7 x 7 cells.

A grid knows the annotations of all images and their two parts (searched, reported), gathers what a search needs of
each detector in one pass, searches, and says how well formulas fit. `Pixels` and `Cells` are the two there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

from neuronscope.maths.formula_search import Certificate, Explanation, Found
from neuronscope.maths.formulas import Formula
from neuronscope.maths.streams import Reducer
from neuronscope.steps import Step
from neuronscope.studies.concepts.agreement import CoverageOfImage
from neuronscope.studies.concepts.bounds import Bounds
from neuronscope.studies.concepts.fit import Fit
from neuronscope.studies.concepts.history import UnitHistory
from neuronscope.studies.concepts.spec import ConceptsSpec
from neuronscope.units import LayerInfo


@dataclass(frozen=True)
class Explained:
    """What the search found for one detector.

    Attributes:
        best: for each length, the best formula of at most so many labels.
        top: the best formulas with different masks, best first.
        choice: the formula that stands for the detector.
        certificate: what is proved of it.
        beams: the formulas kept at each length.
        candidates: labels that formulas were extended by, best first; empty where all were.
        threshold: where the search moved the threshold to; nan where it did not.
        active: active pixels or cells on the images searched.
        seconds: what it took.
    """

    best: tuple[Explanation | None, ...]
    top: tuple[Explanation, ...]
    choice: Explanation | None
    certificate: Certificate | None
    beams: tuple[tuple[Explanation, ...], ...]
    candidates: tuple[Formula, ...]
    threshold: float
    active: int
    seconds: float

    @property
    def formula(self) -> Formula | None:
        """The formula that stands for the detector."""
        return None if self.choice is None else self.choice.formula


def explained(found: Found, *, active: int, seconds: float) -> Explained:
    """What a search over label sets found."""
    return Explained(
        best=found.best,
        top=found.top,
        choice=found.choice,
        certificate=found.certificate,
        beams=found.beams,
        candidates=(),
        threshold=float("nan"),
        active=active,
        seconds=seconds,
    )


Formulas = Sequence[Formula | None]
"""One for each detector; None where it has none."""


@runtime_checkable
class Grid(Protocol):
    """One way to compare masks."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the masks."""
        ...

    def look(self, layers: Sequence[LayerInfo], *measures: str) -> Step:
        """A pass that sees the layers' maps, named `maps/LAYER`."""
        ...

    def map_shape(self, layer: LayerInfo) -> tuple[int, int]:
        """Height and width of these maps; a flat layer counts as one position."""
        ...

    def gather(self, of: str, bounds: Bounds) -> Reducer[Any]:
        """Folds a pass over the images searched into what a search needs, one entry for each detector."""
        ...

    def cost(self, detectors: int, spec: ConceptsSpec) -> int:
        """Bytes that passes keep of so many detectors."""
        ...

    def search_bytes(self) -> int:
        """Bytes of the annotations and of a search at its peak, beside what passes keep."""
        ...

    def shared(self) -> Any:
        """What `search` needs beside a detector's own; it goes to other processes."""
        ...

    def search(self, shared: Any, task: Any) -> Explained:
        """Explain one detector. Static, so that other processes can be asked."""
        ...

    def fitting(
        self,
        of: str,
        bounds: Bounds,
        formulas: Formulas,
        other: Int[np.ndarray, "draws n"],
        steps: Sequence[Formulas] = (),
    ) -> Reducer[Fit]:
        """Folds a pass over the images reported into how well formulas fit; `steps` are the best of each length."""
        ...

    def coverage(self, formulas: Formulas, map_shape: tuple[int, int]) -> CoverageOfImage:
        """What of each cell formulas cover, on the images reported."""
        ...

    def holding(self, formulas: Formulas) -> tuple[Sequence[Bool[np.ndarray, "s"]], Int[np.ndarray, "s"]]:
        """On the images reported, what satisfies each formula (label sets, or cells), and how many pixels that is."""
        ...

    def mask(self, row: int, formula: Formula) -> Bool[np.ndarray, "h w"]:
        """Where a formula holds in one of all images."""
        ...

    def areas(self) -> dict[int, int]:
        """Pixels or cells of each concept over all images."""
        ...

    def facts(self) -> dict[str, int]:
        """What there is to say of the annotations: label sets, and so on."""
        ...

    def keep(self, folder: Path) -> list[Path]:
        """Write label masks as the originals kept them; nothing where they kept none."""
        ...

    def start_from(self, history: UnitHistory | None) -> Any:
        """What a search needs of a jumpstart."""
        ...
