"""Circumstances of every test: checked annotations, one thread, no display, repeatable examples, real data if any.

pytest reads this file before it collects `src` for documented examples, so those run under the same checks.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Inherited by the commands that tests start; matplotlib and OpenMP read them once, on import.
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import beartype
import hypothesis
import jaxtyping
import torch

# An int may stand where a float is expected, as for mypy (PEP 484); beartype alone refuses it.
checked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))

# From here on every annotation of the package is true or a test fails: types by beartype, shapes by jaxtyping. The
# checker is named by where it can be imported from: here.
jaxtyping.install_import_hook("neuronscope", f"{__name__}.checked")

torch.set_num_threads(1)

# No deadline: the first example of a test pays for imports and thread pools, and test machines are shared.
_PATIENT = hypothesis.settings(deadline=None, max_examples=40, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("development", _PATIENT)
hypothesis.settings.register_profile("repeatable", _PATIENT, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("repeatable" if os.environ.get("CI") else "development")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real images and weights that `NEURONSCOPE_TEST_DATA` names; skips where it is not set."""
    folder = os.environ.get("NEURONSCOPE_TEST_DATA")
    if not folder:
        pytest.skip("needs real images and weights: set NEURONSCOPE_TEST_DATA to their folder")
    path = Path(folder)
    if not path.is_dir():
        # A wrong path must not look like a machine without data.
        pytest.fail(f"NEURONSCOPE_TEST_DATA names '{folder}', which is not a folder")
    return path
