"""The picture of the floors in `docs/explanation/architecture.md`, held by reading the imports of the source.

Nothing of the package is imported here (one test does so in a process of its own): an import that is written anywhere,
at the top, in a function or under `if TYPE_CHECKING`, counts.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "neuronscope"
ROOT = "neuronscope"

# First part of a module's name below the package -> floor. Imports point to the same floor or below.
FLOORS = {
    "errors": 0,
    "quantities": 0,
    "units": 1,
    "views": 1,
    "allocator": 1,
    "executors": 1,
    "edits": 2,
    "result": 2,
    "run": 2,
    "maths": 2,
    "hooks": 3,
    "replay": 3,
    "models": 3,
    "data": 3,
    "preprocessing": 3,
    "augment": 3,
    "attribution": 3,
    "checkpoint": 3,
    "collect": 3,
    "fetching": 3,
    "steps": 4,
    "sweep": 4,
    "studies": 5,
    "training": 5,
    "doctor": 5,
    "": 6,  # the package itself: the facade
    "faces": 7,
}
FACES = FLOORS["faces"]

# What studies share: what a study is made of, and how layers are grouped to fit into memory.
SHARED = {"study", "blocks"}

# Hooks change what a network does; they are set, and taken away again, in one place.
MAY_HOOK = {
    "neuronscope.hooks",
    "neuronscope.models.probe",  # finds layers and their shapes while a network is loaded, before there is a Subject
}
# Reads the Python batches of CIFAR-10 with an unpickler that knows a few harmless names only.
MAY_UNPICKLE = {
    "neuronscope.data.formats",  # CIFAR-10's own files, through a list of harmless names
    "neuronscope.executors.processes",  # hands objects to processes of its own making; reads no file
}

# Whoever types `import neuronscope` waits for none of these: each is imported where it is used.
LATE = ("matplotlib", "plotly", "ray", "captum", "starlette", "torchvision", "sklearn")

PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
HOOK = re.compile(r"register_(\w+_)?hook")


@dataclass(frozen=True)
class Import:
    """One name that a module imports: `name` is None for `import module`."""

    module: str
    name: str | None
    line: int


def modules(source: Path) -> dict[str, ast.Module]:
    """Every module of the package by dotted name, parsed."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        dotted = ".".join((ROOT, *(part for part in parts if part != "__init__")))
        found[dotted] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return found


def imports(tree: ast.Module) -> Iterator[Import]:
    """Everything a module imports, wherever it says so; relative imports are banned by ruff."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, None, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import(node.module or "", alias.name, node.lineno) for alias in node.names)


def targets(tree: ast.Module, known: Mapping[str, object]) -> Iterator[tuple[str, int]]:
    """The modules of this package that a module imports, with line numbers.

    `from neuronscope.maths import sobol` reaches the module `neuronscope.maths.sobol` where there is one, and the
    package `neuronscope.maths` otherwise.
    """
    for item in imports(tree):
        if item.module.partition(".")[0] == ROOT:
            inner = f"{item.module}.{item.name}"
            yield (inner if inner in known else item.module), item.line


def place(module: str) -> str:
    """The first part of a module's name below the package: its place on the map."""
    return module.removeprefix(ROOT).removeprefix(".").partition(".")[0]


def floor(module: str) -> int:
    """The floor of a module; one that is not on the map is nowhere, and `test_map` says so."""
    return FLOORS.get(place(module), FACES)


def study(module: str) -> str | None:
    """The study a module belongs to, None outside the studies, for their table, and for what all of them share."""
    parts = module.split(".")
    return parts[2] if parts[1:2] == ["studies"] and len(parts) > 2 and parts[2] not in SHARED else None


def upward(trees: Mapping[str, ast.Module]) -> list[str]:
    """Imports that point to a higher floor."""
    return [
        f"{module}:{line} (floor {floor(module)}) imports {target} (floor {floor(target)})"
        for module, tree in trees.items()
        for target, line in targets(tree, trees)
        if floor(target) > floor(module)
    ]


def circle(trees: Mapping[str, ast.Module]) -> list[str]:
    """The modules of one circle of imports, empty when there is none."""
    graph = {module: {target for target, _ in targets(tree, trees)} for module, tree in trees.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def across_studies(trees: Mapping[str, ast.Module]) -> list[str]:
    """Imports from one study into another."""
    return [
        f"{module}:{line} imports {target}"
        for module, tree in trees.items()
        for target, line in targets(tree, trees)
        if study(module) and study(target) and study(module) != study(target)
    ]


def past_the_facade(trees: Mapping[str, ast.Module]) -> list[str]:
    """Imports of a face that reach behind the facade, and imports of the facade from below it."""
    found = []
    for module, tree in trees.items():
        for target, line in targets(tree, trees):
            if place(module) == "faces" and target != ROOT and place(target) != "faces":
                found.append(f"{module}:{line} imports {target}: a face may import {ROOT} and {ROOT}.faces only")
            if floor(module) < FLOORS[""] and target == ROOT:
                found.append(f"{module}:{line} imports {ROOT}: below the facade, import the module that defines it")
    return found


def hooks(trees: Mapping[str, ast.Module]) -> list[str]:
    """Places that register hooks on a module or tensor without being allowed to, also through `getattr`."""
    found = []
    for module, tree in trees.items():
        for node in ast.walk(tree):
            name = (
                node.attr if isinstance(node, ast.Attribute) else node.value if isinstance(node, ast.Constant) else ""
            )
            if isinstance(name, str) and HOOK.fullmatch(name) and module not in MAY_HOOK:
                found.append(f"{module}:{node.lineno} uses {name}")
    return found


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """The package as it is."""
    return modules(SOURCE)


def test_map(trees):
    """Every module has its floor on the map, so that no new one escapes the rules."""
    lost = sorted({place(module) for module in trees} - set(FLOORS))
    assert not lost, (
        f"{', '.join(f'{ROOT}.{name}' for name in lost)}: on which floor? Add it to FLOORS in "
        "tests/test_architecture.py and to the picture in docs/explanation/architecture.md"
    )


def test_imports_point_down(trees):
    """A module imports from its own floor and those below."""
    assert upward(trees) == []


def test_no_circle(trees):
    """Modules can be put in an order in which each imports only earlier ones."""
    assert circle(trees) == []


def test_studies_are_independent(trees):
    """A study can be read, changed or removed without the others."""
    assert across_studies(trees) == []


def test_facade_is_the_only_door(trees):
    """Faces see what a user sees; what lies below the facade never asks for it."""
    assert past_the_facade(trees) == []


def test_hooks_have_one_home(trees):
    """A network is hooked in one place, which also unhooks it."""
    assert hooks(trees) == []


def test_no_pickle(trees):
    """Nothing reads or writes pickles, which can run any code, but the modules that may, for the reasons they give."""
    found = [
        f"{module}:{item.line} imports {item.module}"
        for module, tree in trees.items()
        for item in imports(tree)
        if item.module.partition(".")[0] in PICKLES
        and module not in MAY_UNPICKLE
        and item.name != "UnpicklingError"  # what torch's own safe reader raises; the name alone reads nothing
    ]
    assert found == []


def test_no_assert(trees):
    """Input is checked with errors that say what to do; `python -O` would remove an assert."""
    found = [
        f"{module}:{node.lineno}"
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_no_print(trees):
    """The library logs, the command line has its console: nothing is printed by the way."""
    found = [
        f"{module}:{node.lineno}"
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


def test_import_is_light():
    """`import neuronscope` loads no package that only some uses need."""
    program = f"import neuronscope, sys; sys.stdout.write(' '.join(set({LATE!r}) & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split() == []


def read(**sources: str) -> dict[str, ast.Module]:
    """A package of a few lines; `_` in a name stands for the dot, the package itself is `facade`."""
    return {
        ROOT if name == "facade" else f"{ROOT}.{name.replace('_', '.')}": ast.parse(text)
        for name, text in sources.items()
    }


@pytest.mark.parametrize(
    ("rule", "package"),
    [
        pytest.param(upward, read(units="from neuronscope.edits import Edit", edits=""), id="up"),
        pytest.param(
            upward, read(maths_sobol="def f():\n    import neuronscope.hooks", hooks=""), id="up, in a function"
        ),
        pytest.param(
            circle,
            read(
                run="if TYPE_CHECKING:\n    from neuronscope.result import Result",
                result="from neuronscope import run",
                facade="",
            ),
            id="circle, for types only",
        ),
        pytest.param(
            circle,
            read(data="from neuronscope.data.digits import digits", data_digits="from neuronscope.data import Data"),
            id="circle through a package",
        ),
        pytest.param(
            across_studies,
            read(studies_layers_page="from neuronscope.studies import importance", studies_importance=""),
            id="study to study",
        ),
        pytest.param(
            past_the_facade, read(faces_cli="from neuronscope.units import UnitSet"), id="face past the facade"
        ),
        pytest.param(past_the_facade, read(sweep="import neuronscope as ns"), id="facade from below"),
        pytest.param(hooks, read(steps="module.register_forward_pre_hook(f)"), id="hook"),
        pytest.param(hooks, read(steps="getattr(tensor, 'register_hook')(f)"), id="hook by its name"),
    ],
)
def test_rules_find_offenders(rule, package):
    """Each rule sees the fault it is there for."""
    assert rule(package)


def test_rules_pass_what_is_allowed():
    """A table of studies may name them all, a package may offer what its modules define, a face may use its own."""
    package = read(
        facade="from neuronscope.studies import STUDIES",
        studies="from neuronscope.studies import layers, importance",
        studies_layers="from neuronscope.maths import sobol\nfrom neuronscope.maths import Reducer",
        studies_importance="from neuronscope.sweep import sweep",
        maths="from neuronscope.maths.sobol import Reducer",
        maths_sobol="import numpy as np",
        sweep="from neuronscope.hooks import observed",
        hooks="module.register_forward_hook(f)",
        faces_cli="import neuronscope as ns\nfrom neuronscope import faces\nfrom neuronscope.faces.html import write",
        faces_html="from neuronscope import Page",
        faces="",
    )
    assert [rule(package) for rule in (upward, circle, across_studies, past_the_facade, hooks)] == [[]] * 5
