"""Tables of whole numbers against counting one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neuronscope.errors import InputError
from neuronscope.maths.streams import CoActivation, Confusion


def once(reducer, **seen):
    """The answer after one batch."""
    return reducer.finish(reducer.add(reducer.start(), {name: torch.as_tensor(part) for name, part in seen.items()}))


@given(st.lists(st.tuples(st.integers(-1, 2), *[st.integers(-2, 2)] * 3), min_size=1, max_size=20))
def test_confusion_counts_true_and_predicted_classes(images):
    """Each labelled image is one count in the row of its class, in the column of its first largest logit."""
    expected = np.zeros((3, 3), dtype=int)
    for label, *logits in images:
        if label >= 0:
            expected[label, logits.index(max(logits))] += 1
    label = np.array([image[0] for image in images])
    logits = np.array([image[1:] for image in images], dtype=np.float32)
    np.testing.assert_array_equal(once(Confusion("y", classes=3), label=label, y=logits), expected)


@pytest.mark.parametrize(("label", "outputs"), [(0, 3), (2, 2)])
def test_a_class_outside_the_table_is_refused(label, outputs):
    """A prediction or label beyond the table is an error and not a count in another row."""
    logits = np.arange(outputs, dtype=np.float32)[None]
    with pytest.raises(InputError, match="class 2 came where a table of 2 classes"):
        once(Confusion("y", classes=2), label=np.array([label]), y=logits)


@given(
    arrays(np.float32, st.tuples(st.integers(1, 12), st.just(4)), elements=st.integers(-2, 2).map(float)),
    st.sampled_from([None, (1, 3), (0, 0)]),
    st.sampled_from([0.0, 1.0]),
)
def test_co_activation_counts_images_where_both_are_active(values, units, threshold):
    """Entry (i, j) counts images with both above the threshold; the diagonal those with one."""
    first, last = units or (0, 4)
    active = values[:, first:last] > threshold
    expected = [[(active[:, i] & active[:, j]).sum() for j in range(last - first)] for i in range(last - first)]
    found = once(CoActivation("x", units=units, threshold=threshold), x=values)
    assert found.tolist() == expected
