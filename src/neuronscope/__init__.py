"""neuronscope: understand the single units of vision CNNs.

    import neuronscope as ns

    subject = ns.load_model("torchvision:resnet18", weights="resnet18.pth")
    data = ns.load_data("imagenet:path/to/val", limit=1000)
    result = ns.run_layers(subject, data, ns.LayersSpec(layers=("layer4",)), run=ns.Run(seed=0))
    result.save("runs/layers")

This is the facade: everything a user, a script or a face (command line, report) needs, and nothing else is promised to
stay. A name is imported from its home when it is first asked for, so that `neuronscope --help` need not wait for torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from neuronscope.checkpoint import drop_checkpoints, gather, locked
    from neuronscope.collect import Collect
    from neuronscope.data import (
        DATA_SOURCES,
        Batch,
        Data,
        DataRequest,
        batches,
        class_counts,
        data_from_arrays,
        load_data,
        sort_imagenet,
    )
    from neuronscope.data.concepts import (
        CONCEPT_SOURCES,
        ConceptData,
        ConceptOptions,
        ConceptReport,
        check_concepts,
        concept_options,
        load_concepts,
    )
    from neuronscope.data.design import Design
    from neuronscope.data.formats import read_image
    from neuronscope.data.pasting import Placement, cut_out, grid_for, opaque_pixels
    from neuronscope.doctor.examination import examine
    from neuronscope.doctor.finding import Finding, worst
    from neuronscope.doctor.installation import examine_installation
    from neuronscope.edits import Edit, drop, keep, replace, scale, stop_gradient
    from neuronscope.errors import (
        DataError,
        InputError,
        MissingDependency,
        NeuronscopeError,
        NonFiniteActivations,
        PortionDone,
        ResultFileError,
        StorageError,
        UnknownName,
        WeightsError,
        nearest,
    )
    from neuronscope.executors import EXECUTORS, Executor, Processes, RayCluster, Serial
    from neuronscope.fetching import FETCHABLE, Fetchable, Fetched, RemoteFile, fetch
    from neuronscope.hooks import edited, observed
    from neuronscope.maths.streams import (
        ClassMoments,
        CoActivation,
        Confusion,
        Each,
        Histogram,
        MapMoments,
        Moments,
        Reducer,
        StackRows,
        TopK,
        UpperTail,
    )
    from neuronscope.models import MODEL_SOURCES, Subject, load_model, subject_from
    from neuronscope.models.segmented import segmented
    from neuronscope.models.segments import SEGMENTS, Segment, read_segments, write_segments
    from neuronscope.preprocessing import Preprocess
    from neuronscope.quantities import duration, file_size, memory_size
    from neuronscope.result import Provenance, Result
    from neuronscope.run import Progress, Run
    from neuronscope.steps import Observe, Predict
    from neuronscope.studies import STUDIES
    from neuronscope.studies.clusters import ClustersSpec, run_clusters
    from neuronscope.studies.concepts import ConceptsSpec, concept_images, run_concepts
    from neuronscope.studies.concepts.paste_grid import PasteTrials, find_class, try_pastes
    from neuronscope.studies.importance import ImportanceSpec, run_importance
    from neuronscope.studies.layers import LayersSpec, run_layers
    from neuronscope.studies.sensitivity import SensitivitySpec, analyse_sensitivity, join_sets, run_sensitivity
    from neuronscope.studies.sensitivity.masking import MaskingSpec, run_masking
    from neuronscope.studies.sensitivity.selection import Selection, select_units
    from neuronscope.studies.study import Study
    from neuronscope.sweep import Plan, PlannedSweep, rounds, sweep
    from neuronscope.training import Trained, TrainSpec, train
    from neuronscope.units import LayerInfo, ReceptiveField, UnitSet
    from neuronscope.views import (
        Axis,
        Block,
        Chart,
        Gallery,
        Network,
        NetworkColumn,
        NetworkLinks,
        Page,
        Panel,
        Picture,
        Section,
        Series,
        Stat,
        Strip,
        Table,
        Text,
    )

__all__ = [
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

_HOMES = {
    "checkpoint": "drop_checkpoints gather locked",
    "collect": "Collect",
    "data": "Batch DATA_SOURCES Data DataRequest batches class_counts data_from_arrays load_data sort_imagenet",
    "data.concepts": (
        "CONCEPT_SOURCES ConceptData ConceptOptions ConceptReport check_concepts concept_options load_concepts"
    ),
    "data.design": "Design",
    "data.formats": "read_image",
    "data.pasting": "Placement cut_out grid_for opaque_pixels",
    "doctor.examination": "examine",
    "doctor.finding": "Finding worst",
    "doctor.installation": "examine_installation",
    "edits": "Edit drop keep replace scale stop_gradient",
    "errors": "DataError InputError MissingDependency NeuronscopeError NonFiniteActivations PortionDone "
    "ResultFileError StorageError UnknownName WeightsError nearest",
    "executors": "EXECUTORS Executor Processes RayCluster Serial",
    "fetching": "FETCHABLE Fetchable Fetched RemoteFile fetch",
    "hooks": "edited observed",
    "maths.streams": "ClassMoments CoActivation Confusion Each Histogram MapMoments "
    "Moments Reducer StackRows TopK UpperTail",
    "models": "MODEL_SOURCES Subject load_model subject_from",
    "models.segmented": "segmented",
    "models.segments": "SEGMENTS Segment read_segments write_segments",
    "preprocessing": "Preprocess",
    "quantities": "duration file_size memory_size",
    "result": "Provenance Result",
    "run": "Progress Run",
    "steps": "Observe Predict",
    "studies.clusters": "ClustersSpec run_clusters",
    "studies.concepts": "ConceptsSpec concept_images run_concepts",
    "studies.concepts.paste_grid": "PasteTrials find_class try_pastes",
    "studies.importance": "ImportanceSpec run_importance",
    "studies.layers": "LayersSpec run_layers",
    "studies.sensitivity": "SensitivitySpec analyse_sensitivity join_sets run_sensitivity",
    "studies.sensitivity.masking": "MaskingSpec run_masking",
    "studies.sensitivity.selection": "Selection select_units",
    "studies.study": "Study",
    "studies": "STUDIES",
    "sweep": "Plan PlannedSweep rounds sweep",
    "training": "TrainSpec Trained train",
    "units": "LayerInfo ReceptiveField UnitSet",
    "views": "Axis Block Chart Gallery Network NetworkColumn NetworkLinks Page Panel Picture Section Series Stat Strip "
    "Table Text",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}


def open(path: str | Path) -> Result:  # noqa: A001 `neuronscope.open(path)` is how a result is opened
    """A saved result, able to show itself: the study it comes from is looked up by name.

    Args:
        path: the output folder of a run, or its `result.zarr`.

    Raises:
        ResultFileError: there is no result, it is torn, foreign, or of a newer format.
    """
    from dataclasses import replace

    from neuronscope.result import open_result
    from neuronscope.studies import STUDIES

    result = open_result(path)
    study = STUDIES.get(result.provenance.study)
    return replace(result, view=study.page) if study is not None else result


if not TYPE_CHECKING:  # a type checker reads the imports above, and reports a name that is not among them

    def __getattr__(name: str) -> Any:
        """Fetch a public name from its home at its first use, and keep it."""
        if name not in _HOME:
            message = f"module 'neuronscope' has no attribute '{name}'"
            raise AttributeError(message, name=name, obj=sys.modules[__name__])
        value = getattr(import_module(f"neuronscope.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """The public names, fetched or not."""
    return sorted({*globals(), *__all__})


class _Facade(ModuleType):
    """This module, where a public name is never hidden by a submodule of the same name.

    Importing `neuronscope.sweep` makes Python set the attribute `sweep` of this package to the module; the public
    `sweep` is the function in it.
    """

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute, unless it is a submodule that would take a public name's place."""
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        """How this module travels to a worker: by name, as any module does."""
        return import_module, (self.__name__,)


sys.modules[__name__].__class__ = _Facade
