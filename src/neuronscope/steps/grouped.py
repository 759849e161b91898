"""The same measurements under other labels: for folds by random part and class, or by any other grouping of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import nn

from neuronscope.data.dataset import Batch
from neuronscope.maths.streams import Seen
from neuronscope.steps.protocol import Step


@dataclass(frozen=True, eq=False)
class Grouped:
    """A step whose labels are replaced after it has measured.

    Attributes:
        step: what measures.
        groups: group of each row of the data, -1 for none.
    """

    step: Step
    groups: Int[np.ndarray, "rows"]

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """Measure one batch and say which group each image is in."""
        seen = self.step(model, batch)
        group = torch.from_numpy(self.groups[batch.index.cpu().numpy()]).to(batch.index.device)
        return {**seen, "label": group}

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:
        """Those of the step."""
        return self.step.shapes(outputs)

    @property
    def passes(self) -> tuple[int, int]:
        """Those of the step."""
        return self.step.passes
