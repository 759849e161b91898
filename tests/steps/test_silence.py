"""What stands in place of silenced units, and who lends maps to whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import InputError
from neuronscope.steps import ZERO, Fill
from neuronscope.steps.silence import donors

indices = st.lists(st.integers(0, 10**6), min_size=1, max_size=40, unique=True)


@given(indices, st.integers(0, 2**40), st.randoms())
def test_everyone_lends_once_and_never_to_themselves(rows, seed, random):
    """Donors are a permutation without fixed points, the same pairs in whatever order the batch comes."""
    lenders = donors(torch.tensor(rows), seed=seed).tolist()
    assert sorted(lenders) == list(range(len(rows)))
    assert len(rows) == 1 or all(lender != place for place, lender in enumerate(lenders))
    pairs = {row: rows[lender] for row, lender in zip(rows, lenders, strict=True)}
    mixed = random.sample(rows, len(rows))
    again = donors(torch.tensor(mixed), seed=seed).tolist()
    assert {row: mixed[lender] for row, lender in zip(mixed, again, strict=True)} == pairs


def test_another_seed_other_donors():
    """The seed decides, and there is no pattern in it: neighbours are rarely each other's donors."""
    index = torch.arange(200)
    one, other = donors(index, seed=0), donors(index, seed=1)
    assert (one != other).sum() > 150
    assert ((one - index).abs() == 1).sum() < 20


def test_a_fill_takes_the_form_of_the_output():
    """One number for each unit; one for each image and unit; or whole maps, in the output's number format."""
    output = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    index, label = torch.tensor([5, 6, 7]), torch.tensor([1, 0, -1])
    here = {"index": index, "label": label}
    assert torch.equal(ZERO.maps(output, **here), torch.zeros(2, dtype=torch.float64))
    values = np.array([0.1, 0.2])
    assert torch.equal(
        Fill("values", values=values).maps(output, **here), torch.tensor([0.1, 0.2], dtype=torch.float64)
    )
    table = np.array([[1.0, 2.0], [3.0, 5.0]])
    expected = torch.tensor([[3.0, 5.0], [1.0, 2.0], [2.0, 3.5]]).double()
    assert torch.equal(Fill("by label", values=table).maps(output, **here), expected)
    beyond = Fill("by label", values=table).maps(output, index=index, label=torch.tensor([2, 0, 1]))
    assert torch.equal(beyond[0], expected[2]), "a label the table does not know is none"
    assert torch.equal(Fill("resample").maps(output, **here), output[donors(index, seed=0)])


@pytest.mark.parametrize(
    ("kind", "values"), [("by label", None), ("by label", np.zeros(3)), ("values", np.zeros((2, 3)))]
)
def test_a_table_of_another_form_is_refused(kind, values):
    """A fill says what it needs before any image is seen."""
    with pytest.raises(InputError, match=f"'{kind}' needs values of shape"):
        Fill(kind, values=values)
