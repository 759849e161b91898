"""A series as shell scripts: one job for each part of each step, and one that joins the parts.

Jobs are made from a template, so that what a batch system wants to be told stands where it must. A placeholder is a
word in double braces, which no shell uses: `{{command}}`. All paths are quoted for the shell.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuronscope import InputError, Run, StorageError, UnknownName, nearest
from neuronscope.faces.cli import recipes
from neuronscope.faces.cli.making import read_bytes
from neuronscope.faces.cli.series.planning import Planned
from neuronscope.faces.cli.series.steps import Step
from neuronscope.faces.outputs import prepare_folder

TEMPLATE = "template.sh"
LIST = "jobs.txt"
ALL = "all.sh"

PLACEHOLDERS: dict[str, str] = {
    "job": "name of the job, and of its script without .sh",
    "step": "name of the step",
    "title": "title of the series",
    "part": "number of the part, from 1; 0 where parts are joined",
    "parts": "number of parts of the step",
    "command": "what the job does",
    "folder": "where it must be done: the folder that the series was called in",
    "after": "jobs that must have ended before, with spaces between; empty for none",
    "cores": "processor cores the job uses",
    "memory": "GiB the job needs: as planned, or as its recipe allows, with 2 for the program and the network",
}
"""Name of a placeholder -> what is put there."""

DEFAULT_TEMPLATE = """\
#!/usr/bin/env bash
# {{job}}: {{title}}
# comes after: {{after}}
# needs {{memory}} GiB, uses cores: {{cores}}
set -euo pipefail
cd {{folder}}
{{command}}
"""

_ALL = """\
#!/usr/bin/env bash
# {title}
# All jobs, one after another. It can be called again: sweeps that are finished are not worked twice.
#   {list}      a job a line, in order; behind it the jobs that must have ended before
#   {template}   what the jobs are made of: change it and give the same command again
# Jobs I-of-N of one step may run side by side, on other machines too; `merge` joins them and finishes the step.
set -euo pipefail
cd "$(dirname "$0")"
while read -r job _; do
  "./$job.sh" < /dev/null
done < {list}
"""

_PLACEHOLDER = re.compile(r"\{\{ *([A-Za-z_]+) *\}\}")
_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_EXECUTABLE = 0o755
_GIB = 2**30  # bytes
_MARGIN = 2  # GiB for the program and the network
_FEWEST = 8  # GiB where nothing is known


@dataclass(frozen=True)
class Job:
    """One script.

    Attributes:
        name: without .sh.
        step: name of the step it is of.
        part: from 1; 0 for the one that joins.
        command: as words.
        after: names of jobs that must have ended.
        cores: it uses; memory: GiB it needs.
    """

    name: str
    step: str
    part: int
    command: tuple[str, ...]
    after: tuple[str, ...]
    cores: int
    memory: int


def write_jobs(
    plans: Sequence[Planned], target: Path, *, parts: int, title: str, template: Path | None = None
) -> tuple[Job, ...]:
    """Scripts that do the steps, in a folder; what an earlier call has put there is replaced, but for the template.

    Args:
        plans: the steps, with what is known of them.
        target: the folder.
        parts: of each step.
        title: of the series.
        template: of the scripts; None takes the one in the folder, where there is one.

    Returns:
        The jobs, in an order in which they can be done.

    Raises:
        InputError: the number of parts is none, or the template cannot be read or lacks the command.
        UnknownName: the template has a placeholder that does not exist.
        StorageError: the folder cannot be written to.
    """
    if parts < 1:
        message = f"--shards must be at least 1, not {parts}"
        raise InputError(message)
    pattern = _template(target, template)
    jobs = _jobs(plans, target, parts=parts)
    scripts = {f"{job.name}.sh": filled(pattern, _values(job, parts=parts, title=title)) for job in jobs}
    prepare_folder(target)
    try:
        for name in _earlier(target):
            (target / f"{name}.sh").unlink(missing_ok=True)
        for planned in plans:
            step = planned.step
            settings = step.settings | {"study": {"name": step.study.name, **step.settings["study"]}}
            recipes.write_recipe(target / f"{_base(step)}.toml", settings, title=f"step '{step.name}' of: {title}")
        (target / TEMPLATE).write_text(pattern, encoding="utf-8")
        lines = (" ".join((job.name, *job.after)) for job in jobs)
        (target / LIST).write_text("\n".join(lines) + "\n", encoding="utf-8")
        scripts[ALL] = _ALL.format(title=title, list=LIST, template=TEMPLATE)
        for name, text in scripts.items():
            (target / name).write_text(text, encoding="utf-8")
            (target / name).chmod(_EXECUTABLE)
    except OSError as error:
        message = f"cannot write jobs to {target}: {error.strerror or error}. Choose another --emit-jobs"
        raise StorageError(message) from error
    return jobs


def filled(template: str, values: Mapping[str, str]) -> str:
    r"""A template with values in place of its placeholders.

    Raises:
        UnknownName: a placeholder that does not exist.

    Example:
        >>> filled("cd {{folder}}", {"folder": "'my runs'"})
        "cd 'my runs'\n"
    """

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in values:
            close = nearest(name, values)
            message = f"the template has an unknown placeholder {{{{{name}}}}}.{close} All: {', '.join(values)}"
            raise UnknownName(message)
        return values[name]

    return "\n".join(_PLACEHOLDER.sub(value, line).rstrip() for line in template.splitlines()) + "\n"


def _template(target: Path, given: Path | None) -> str:
    """The template that was given, else the one in the folder, else the default.

    Raises:
        InputError: it cannot be read, or would make scripts that do nothing.
    """
    path = given if given is not None else target / TEMPLATE
    if given is None and not path.is_file():
        return DEFAULT_TEMPLATE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"the template {path} cannot be read: {error}. Check --template"
        raise InputError(message) from error
    if "command" not in _PLACEHOLDER.findall(text):
        message = f"the template {path} has no {{{{command}}}}: jobs made of it would do nothing. Add it"
        raise InputError(message)
    return text


def _values(job: Job, *, parts: int, title: str) -> dict[str, str]:
    """What stands for each placeholder."""
    return {
        "job": job.name,
        "step": job.step,
        "title": " ".join(title.split()),
        "part": str(job.part),
        "parts": str(parts),
        "command": shlex.join(job.command),
        "folder": shlex.quote(str(Path.cwd())),
        "after": " ".join(job.after),
        "cores": str(job.cores),
        "memory": str(job.memory),
    }


def _jobs(plans: Sequence[Planned], target: Path, *, parts: int) -> tuple[Job, ...]:
    jobs: list[Job] = []
    last: dict[str, str] = {}  # step -> the job that finishes it
    for planned in plans:
        step, base = planned.step, _base(planned.step)
        after = tuple(last[need.name] for need in step.needs if need.name in last)
        cores, memory = _cores(step), _memory(planned, plans)
        begin = ("neuronscope", "run", step.study.name, "--recipe", str(target / f"{base}.toml"))
        if parts == 1:
            jobs.append(Job(base, step.name, 1, (*begin, "--out", str(step.folder)), after, cores, memory))
        else:
            folders = [str(step.folder / "parts" / f"{part}-of-{parts}") for part in range(1, parts + 1)]
            own = [
                Job(
                    f"{base}.{part}-of-{parts}",
                    step.name,
                    part,
                    (*begin, "--shard", f"{part}/{parts}", "--out", folder),
                    after,
                    cores,
                    memory,
                )
                for part, folder in enumerate(folders, 1)
            ]
            join = ("neuronscope", "merge", *folders, "--out", str(step.folder))
            jobs += [*own, Job(f"{base}.merge", step.name, 0, join, tuple(job.name for job in own), cores, memory)]
        last[step.name] = jobs[-1].name
    return tuple(jobs)


def _base(step: Step) -> str:
    return f"{step.number:02d}-{step.name}"


def _cores(step: Step) -> int:
    given = [step.settings["run"][key] for key in ("threads", "workers") if key in step.settings["run"]]
    return max(given, default=Run().workers)


def _memory(planned: Planned, plans: Sequence[Planned]) -> int:
    """GiB of a step: as planned; else as its recipe allows; else as much as any step that is known."""
    allowed = planned.step.settings["run"].get("memory")
    known = [one.plan.memory for one in plans if one.plan is not None]
    if planned.plan is not None:
        needed = planned.plan.memory
    elif allowed is not None:
        needed = read_bytes(allowed)
    else:
        needed = max(known, default=_FEWEST * _GIB)
    return math.ceil(needed / _GIB) + _MARGIN


def _earlier(target: Path) -> list[str]:
    """Jobs that an earlier call has put into the folder, as its list says."""
    if not (target / LIST).is_file():
        return []
    lines = (target / LIST).read_text(encoding="utf-8").splitlines()
    names = [line.split(" ", 1)[0] for line in lines]
    return [name for name in names if _JOB.fullmatch(name)]
