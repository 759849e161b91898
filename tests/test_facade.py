"""The facade: which names are promised, that each is there, and that asking for one costs no more than it must."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import neuronscope as ns

PROJECT = Path(__file__).parents[1]
LATE = ("matplotlib", "plotly", "ray", "captum", "starlette", "torchvision", "sklearn")

PROMISED = [
    "CONCEPT_SOURCES",
    "DATA_SOURCES",
    "EXECUTORS",
    "FETCHABLE",
    "MODEL_SOURCES",
    "SEGMENTS",
    "STUDIES",
    "Axis",
    "Batch",
    "Block",
    "Chart",
    "ClassMoments",
    "ClustersSpec",
    "CoActivation",
    "Collect",
    "ConceptData",
    "ConceptOptions",
    "ConceptReport",
    "ConceptsSpec",
    "Confusion",
    "Data",
    "DataError",
    "DataRequest",
    "Design",
    "Each",
    "Edit",
    "Executor",
    "Fetchable",
    "Fetched",
    "Finding",
    "Gallery",
    "Histogram",
    "ImportanceSpec",
    "InputError",
    "LayerInfo",
    "LayersSpec",
    "MapMoments",
    "MaskingSpec",
    "MissingDependency",
    "Moments",
    "Network",
    "NetworkColumn",
    "NetworkLinks",
    "NeuronscopeError",
    "NonFiniteActivations",
    "Observe",
    "Page",
    "Panel",
    "PasteTrials",
    "Picture",
    "Placement",
    "Plan",
    "PlannedSweep",
    "PortionDone",
    "Predict",
    "Preprocess",
    "Processes",
    "Progress",
    "Provenance",
    "RayCluster",
    "ReceptiveField",
    "Reducer",
    "RemoteFile",
    "Result",
    "ResultFileError",
    "Run",
    "Section",
    "Segment",
    "Selection",
    "SensitivitySpec",
    "Serial",
    "Series",
    "StackRows",
    "Stat",
    "StorageError",
    "Strip",
    "Study",
    "Subject",
    "Table",
    "Text",
    "TopK",
    "TrainSpec",
    "Trained",
    "UnitSet",
    "UnknownName",
    "UpperTail",
    "WeightsError",
    "__version__",
    "analyse_sensitivity",
    "batches",
    "check_concepts",
    "class_counts",
    "concept_images",
    "concept_options",
    "cut_out",
    "data_from_arrays",
    "drop",
    "drop_checkpoints",
    "duration",
    "edited",
    "examine",
    "examine_installation",
    "fetch",
    "file_size",
    "find_class",
    "gather",
    "grid_for",
    "join_sets",
    "keep",
    "load_concepts",
    "load_data",
    "load_model",
    "locked",
    "memory_size",
    "nearest",
    "observed",
    "opaque_pixels",
    "open",
    "read_image",
    "read_segments",
    "replace",
    "rounds",
    "run_clusters",
    "run_concepts",
    "run_importance",
    "run_layers",
    "run_masking",
    "run_sensitivity",
    "scale",
    "segmented",
    "select_units",
    "sort_imagenet",
    "stop_gradient",
    "subject_from",
    "sweep",
    "train",
    "try_pastes",
    "worst",
    "write_segments",
]


def test_names_are_pinned():
    """Adding, renaming or removing a public name is a decision, made here too."""
    assert ns.__all__ == PROMISED


@pytest.mark.parametrize("name", ns.__all__)
def test_name_is_there(name):
    """Every promised name can be had, and is documented where it is not a plain value."""
    value = getattr(ns, name)
    if callable(value):
        assert value.__doc__, name


def test_type_checkers_see_the_same():
    """What a type checker reads is what is fetched at run time."""
    tree = ast.parse((PROJECT / "src/neuronscope/__init__.py").read_text(encoding="utf-8"))
    [seen] = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    checked = {
        alias.name: statement.module.removeprefix("neuronscope.")
        for statement in seen.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert checked == ns._HOME
    assert set(checked) | {"__version__", "open"} == set(ns.__all__)


def test_unknown_name():
    """A name that is not promised is an attribute error, as in any module."""
    with pytest.raises(AttributeError, match="no attribute 'sweeep'"):
        _ = ns.sweeep


def test_submodules_hide_nothing():
    """`neuronscope.sweep` is the function, also after the module of the same name was imported."""
    program = "import neuronscope.sweep as module; import neuronscope as ns; assert ns.sweep.__name__ == 'sweep'"
    assert run(program) == ""


def test_names_come_late():
    """Importing the package loads nothing heavy; fetching every name still loads no drawing and no cluster."""
    assert run("import sys, neuronscope; print(*({'torch', 'pandas'} & set(sys.modules)))") == ""
    everything = "import sys, neuronscope as ns; [getattr(ns, name) for name in ns.__all__]"
    assert run(f"{everything}; print(*(set({LATE!r}) & set(sys.modules)))") == ""


def test_version():
    """The version of the package is that of the project."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    assert ns.__version__ == project["project"]["version"]


def run(program: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
