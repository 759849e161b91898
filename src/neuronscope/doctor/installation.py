"""The packages and the machine: versions, extras, accelerators, threads, disk and memory.

Nothing but the standard library is imported when this module is: it must be able to say what is wrong with an
installation in which PyTorch does not load. Each `check_...` takes plain values, `examine_installation` gathers them.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from neuronscope.doctor.finding import Finding
from neuronscope.quantities import file_size, memory_size

LITTLE_DISK = 10**9
"""Bytes; results with feature maps and galleries of a large network take some hundred MB."""

LITTLE_MEMORY = 2**30
"""Bytes; PyTorch and a ResNet with its activations need about as much."""

_PACKAGE = "neuronscope"
_REINSTALL = "Install both together, in an environment of their own: pip install --force-reinstall torch torchvision"
_DEVELOPMENT = "dev"  # an extra for those who change the program, not for those who use it
_MEMINFO = Path("/proc/meminfo")
_REQUIREMENT = re.compile(
    r"^\s*(?P<name>[A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*\(?(?P<bounds>[^;)]*)\)?\s*(?:;(?P<marker>.*))?$"
)
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


@dataclass(frozen=True)
class Requirement:
    """A package that another one needs.

    Attributes:
        name: of the package.
        at_least: its lowest version; empty when any will do.
        exactly: the one version that will do; empty when others will, too.
        extra: the extra that needs it; empty for what is always needed.
    """

    name: str
    at_least: str = ""
    exactly: str = ""
    extra: str = ""

    def admits(self, found: str) -> bool:
        """Whether a version will do. What stands after `+` names a build and does not count."""
        return release(found) >= release(self.at_least) and (
            not self.exactly or release(found) == release(self.exactly)
        )

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"exactly {self.exactly}" if self.exactly else f"{self.at_least} or newer" if self.at_least else "any"


@dataclass(frozen=True)
class Accelerator:
    """A device beside the processor.

    Attributes:
        name: what it calls itself.
        memory: all of it, in bytes.
        free: what is left of it, in bytes.
    """

    name: str
    memory: int
    free: int


def examine_installation(*, out: Path | None = None) -> tuple[Finding, ...]:
    """Whether the packages belong together and the machine has what a run needs.

    Args:
        out: the folder results will go to; it need not exist.

    Example:
        >>> {finding.topic for finding in examine_installation()} == {"installation", "machine"}
        True
    """
    needed = requirements(_requires(_PACKAGE))
    found = {one.name: _version(one.name) for one in needed}
    torch = _failure_to_load("torch")
    folder = out or Path("runs")
    findings = [
        check_python(sys.version_info[:3], required=_python_bound(_PACKAGE)),
        *check_versions(needed, found),
        *check_extras(needed, found),
    ]
    if torch:
        findings.append(Finding("installation", "torch", "broken", f"torch cannot be loaded: {torch}", _REINSTALL))
    else:
        findings.append(
            check_pair(
                _version("torch") or "",
                _version("torchvision") or "",
                needs=_requires("torchvision"),
                failure=torchvision_failure(),
            )
        )
        findings += [_devices(), _threads()]
    findings += [
        check_disk(
            folder, free=shutil.disk_usage(_existing(folder)).free, writable=os.access(_existing(folder), os.W_OK)
        ),
        check_memory(available_memory()),
    ]
    return tuple(findings)


def release(text: str) -> tuple[int, ...]:
    """The numbers of a version; what follows them (a build, a release candidate) is left out.

    Example:
        >>> release("2.8.0+cu126"), release("1.0rc1"), release("2.8") < release("2.15.1")
        ((2, 8), (1,), True)
    """
    match = re.match(r"\d+(?:\.\d+)*", text)
    numbers = [int(number) for number in match[0].split(".")] if match else []
    while numbers and numbers[-1] == 0:  # 2.8 and 2.8.0 are one version
        numbers.pop()
    return tuple(numbers)


def requirements(lines: Sequence[str]) -> tuple[Requirement, ...]:
    """What the meta data of a package say it needs.

    Example:
        >>> requirements(["torch>=2.8", "ray (>=2.46) ; extra == 'ray'", "torch==2.8.0"])
        (Requirement(name='torch', at_least='2.8', exactly='', extra=''),
         Requirement(name='ray', at_least='2.46', exactly='', extra='ray'),
         Requirement(name='torch', at_least='', exactly='2.8.0', extra=''))
    """
    found = []
    for line in lines:
        match = _REQUIREMENT.match(line)
        if match is None:
            continue
        bounds = dict(re.findall(r"(>=|==)\s*([0-9][^,\s]*)", match["bounds"]))
        extra = _EXTRA.search(match["marker"] or "")
        found.append(Requirement(match["name"], bounds.get(">=", ""), bounds.get("==", ""), extra[1] if extra else ""))
    return tuple(found)


def check_python(running: tuple[int, int, int], *, required: str) -> Finding:
    """Whether this Python is new enough.

    Args:
        running: its version.
        required: as the meta data write it, `>=3.11`; empty when unknown.
    """
    shown = ".".join(map(str, running))
    lowest = required.partition(">=")[2]
    if running < release(lowest):
        text = f"Python {shown} is running; neuronscope needs {lowest} or newer"
        return Finding("installation", "Python", "broken", text, f"Make an environment with Python {lowest} or newer")
    return Finding("installation", "Python", "fine", f"Python {shown}")


def check_versions(needed: Sequence[Requirement], found: Mapping[str, str | None]) -> tuple[Finding, ...]:
    """Whether the packages that are always needed are there and new enough.

    Args:
        needed: with their lowest versions.
        found: name -> installed version, None where there is none.
    """
    core = [one for one in needed if not one.extra]
    if not core:
        text = "neuronscope is used without being installed, so it is not known which versions it needs"
        return (Finding("installation", "packages", "note", text, "Install it: pip install neuronscope"),)
    findings = []
    for one in core:
        installed = found.get(one.name)
        if installed is None:
            text = f"{one.name} is not installed; expected {one.wanted}"
            findings.append(Finding("installation", one.name, "broken", text, f"pip install '{_bound(one)}'"))
        elif not one.admits(installed):
            text = f"{one.name} {installed} is installed; expected {one.wanted}"
            findings.append(Finding("installation", one.name, "broken", text, f"pip install --upgrade '{_bound(one)}'"))
    if findings:
        return tuple(findings)
    shown = ", ".join(f"{one.name} {found[one.name]}" for one in core)
    return (Finding("installation", "packages", "fine", f"all {len(core)} are there and new enough: {shown}"),)


def _bound(one: Requirement) -> str:
    return f"{one.name}=={one.exactly}" if one.exactly else f"{one.name}>={one.at_least}" if one.at_least else one.name


def check_extras(needed: Sequence[Requirement], found: Mapping[str, str | None]) -> tuple[Finding, ...]:
    """Which optional packages are there: their absence is no fault, an old one is."""
    findings = []
    for one in needed:
        if not one.extra or one.extra == _DEVELOPMENT:
            continue
        installed, get = found.get(one.name), f"pip install 'neuronscope[{one.extra}]'"
        if installed is None:
            text = f"the optional package {one.name} is not installed"
            findings.append(Finding("installation", one.name, "note", text, f"If you want it: {get}"))
        elif not one.admits(installed):
            text = f"{one.name} {installed} is installed; expected {one.wanted}"
            findings.append(Finding("installation", one.name, "warning", text, f"{get} --upgrade"))
        else:
            findings.append(Finding("installation", one.name, "fine", f"{one.name} {installed} (optional)"))
    return tuple(findings)


def check_pair(torch: str, torchvision: str, *, needs: Sequence[str], failure: str) -> Finding:
    """Whether torch and torchvision belong together: each torchvision is built against one torch.

    Args:
        torch: version that is installed.
        torchvision: version that is installed.
        needs: what the meta data of torchvision require.
        failure: what torchvision's compiled operators said when they were tried; empty when they worked.
    """
    pair = f"torch {torch} and torchvision {torchvision}"
    wanted = next((one for one in requirements(needs) if one.name == "torch" and not one.extra), Requirement("torch"))
    belongs = f"torchvision {torchvision} belongs to torch {wanted.wanted}"
    if failure:
        text = f"the compiled part of torchvision does not work with {pair} ({failure}); {belongs}"
        return Finding("installation", "torchvision", "broken", text, _REINSTALL)
    if not wanted.admits(torch):
        text = f"{pair} are installed; {belongs}"
        return Finding("installation", "torchvision", "warning", text, _REINSTALL)
    return Finding("installation", "torchvision", "fine", f"{pair} belong together; compiled operators work")


def torchvision_failure() -> str:
    """What torchvision's non-maximum suppression says when it is tried on two boxes; empty when it works."""
    try:
        torch = importlib.import_module("torch")
        operators = importlib.import_module("torchvision.ops")
        kept = operators.nms(torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]]), torch.tensor([0.5, 0.9]), 0.5)
    except (ImportError, OSError, RuntimeError, AttributeError) as problem:
        return _first_line(problem)
    return "" if kept.tolist() == [1] else f"nms kept {kept.tolist()} of two equal boxes, expected [1]"


def check_devices(accelerators: Sequence[Accelerator], *, built: str, driver: bool, mps: bool) -> Finding:
    """Where a run will compute.

    Args:
        accelerators: what PyTorch sees.
        built: the CUDA version that PyTorch was built for; empty for none.
        driver: whether the system has an NVIDIA driver.
        mps: whether there is an Apple GPU.
    """
    if accelerators:
        names = "; ".join(
            f"cuda:{number} {one.name}, {memory_size(one.free)} of {memory_size(one.memory)} free"
            for number, one in enumerate(accelerators)
        )
        return Finding("machine", "device", "fine", f"{names}. --device auto uses cuda:0")
    if driver:
        why = f"was built for CUDA {built} and sees no device" if built else "was built without CUDA"
        text = f"there is an NVIDIA driver, but PyTorch {why}; runs will use the processor"
        return Finding("machine", "device", "warning", text, "Install the build of PyTorch that fits the driver")
    if mps:
        text = "runs use the processor, not the Apple GPU there is: it has no float64, in which sums are kept"
        return Finding("machine", "device", "note", text)
    return Finding("machine", "device", "fine", "no accelerator: runs use the processor")


def check_threads(threads: int, *, cores: int, policy: str | None) -> Finding:
    """Whether the threads of one operation fit the processor, and wait without spinning.

    Args:
        threads: PyTorch's number.
        cores: processors this program may use.
        policy: the environment variable OMP_WAIT_POLICY.
    """
    if threads > cores:
        text = f"PyTorch works with {threads} threads, but may use {cores} cores: they get in each other's way"
        return Finding("machine", "threads", "warning", text, f"Say --threads {cores}, or set OMP_NUM_THREADS={cores}")
    text = f"{threads} of {cores} cores work on one operation"
    if (policy or "").upper() != "PASSIVE":
        seen = f"is '{policy}'" if policy else "is not set"
        text += f". OMP_WAIT_POLICY {seen}: waiting threads keep a core busy, which slows other programs"
        return Finding("machine", "threads", "note", text, "Set OMP_WAIT_POLICY=PASSIVE before Python starts")
    return Finding("machine", "threads", "fine", f"{text}; waiting threads sleep (OMP_WAIT_POLICY=PASSIVE)")


def check_disk(folder: Path, *, free: int, writable: bool) -> Finding:
    """Whether results can be written.

    Args:
        folder: where they go; it, or the nearest folder above it that is there, was looked at.
        free: bytes left.
        writable: whether something can be made there.
    """
    if not writable:
        text = f"the output folder '{folder}' cannot be written to"
        return Finding("machine", "disk", "broken", text, "Choose another --out, or change its permissions")
    if free < LITTLE_DISK:
        text = f"{file_size(free)} are free at '{folder}'; a result may take {file_size(LITTLE_DISK)}"
        return Finding("machine", "disk", "warning", text, "Make room, or choose another --out")
    return Finding("machine", "disk", "fine", f"{file_size(free)} free at '{folder}'")


def check_memory(available: int | None) -> Finding:
    """Whether there is memory to work in.

    Args:
        available: bytes; None where the system does not say.
    """
    if available is None:
        return Finding("machine", "memory", "note", "this system does not say in /proc/meminfo how much memory is free")
    if available < LITTLE_MEMORY:
        need = memory_size(LITTLE_MEMORY)
        text = f"{memory_size(available)} of memory are free; PyTorch and a common network need {need}"
        return Finding("machine", "memory", "warning", text, "End other programs, or make --batch-size smaller")
    return Finding("machine", "memory", "fine", f"{memory_size(available)} free")


def available_memory(meminfo: Path = _MEMINFO) -> int | None:
    """Bytes that new programs can have without swapping; None where the system does not say.

    Args:
        meminfo: a file as Linux keeps it, in KiB.
    """
    try:
        content = meminfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", content, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _devices() -> Finding:
    torch = importlib.import_module("torch")
    devices = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, memory = torch.cuda.mem_get_info(number)
        devices.append(Accelerator(torch.cuda.get_device_name(number), memory=memory, free=free))
    driver = any(path.exists() for path in (Path("/proc/driver/nvidia/version"), Path("/dev/nvidia0")))
    return check_devices(devices, built=torch.version.cuda or "", driver=driver, mps=torch.backends.mps.is_available())


def _threads() -> Finding:
    torch = importlib.import_module("torch")
    # A container or a batch system may allow fewer cores than the machine has; only Linux says which.
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return check_threads(torch.get_num_threads(), cores=allowed, policy=os.environ.get("OMP_WAIT_POLICY"))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    whole = folder.absolute()
    return next((one for one in (whole, *whole.parents) if one.is_dir()), Path(whole.anchor))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _requires(name: str) -> Sequence[str]:
    try:
        return requires(name) or ()
    except PackageNotFoundError:
        return ()


def _python_bound(name: str) -> str:
    try:
        return str(metadata(name)["Requires-Python"])
    except (PackageNotFoundError, KeyError):
        return ""


def _failure_to_load(name: str) -> str:
    """What importing a package said; empty when it worked."""
    try:
        importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as problem:
        return _first_line(problem)
    return ""


def _first_line(problem: Exception) -> str:
    return next(iter(str(problem).splitlines()), "") or type(problem).__name__
