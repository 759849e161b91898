"""How every benchmark here measures: both sides in one process, alternating, as a ratio, with its spread.

A benchmark is one question. It checks that both sides give the same answer, then times them in turn, so that whatever
else the machine does hits both. A busy machine cannot tell: then a figure is "not measured", never "missed".
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not burn the other side's cores

BUSY = 0.15
"""Share of the processors used by other programs above which nothing is measured."""


@dataclass(frozen=True)
class Figure:
    """One answer: what was measured, the goal it is held against, and whether it was met (None: not measured)."""

    figure: str
    value: float | None
    goal: str
    met: bool | None
    detail: str

    def line(self) -> str:
        """The figure in one line."""
        verdict = {True: "met", False: "MISSED", None: "not measured" if self.goal else "reported"}[self.met]
        value = "-" if self.value is None else f"{self.value:.4g}"
        goal = f" (goal {self.goal})" if self.goal else ""
        return f"{self.figure}: {value}{goal}: {verdict}. {self.detail}"


@dataclass(frozen=True)
class Paired:
    """Seconds of two sides that took turns."""

    first: tuple[float, ...]
    second: tuple[float, ...]
    busy: float

    @property
    def ratios(self) -> list[float]:
        """Second over first, pair by pair, ascending."""
        return sorted(b / a for a, b in zip(self.first, self.second, strict=True))

    @property
    def ratio(self) -> float:
        """Median of the pairs' ratios."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> str:
        """Quartiles of the ratios, and the median seconds of both sides."""
        ratios = self.ratios
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        a, b = statistics.median(self.first), statistics.median(self.second)
        return f"quartiles {low:.3g} to {high:.3g} of {len(ratios)} pairs; medians {a:.4g} s and {b:.4g} s"


def pairs(first: Callable[[], object], second: Callable[[], object], *, repeats: int) -> Paired:
    """Time two sides in turn, after one warm-up of each."""
    first()
    second()
    times: tuple[list[float], list[float]] = ([], [])
    with Watch() as watch:
        for repeat in range(repeats):
            order = ((0, first), (1, second)) if repeat % 2 == 0 else ((1, second), (0, first))
            for side, function in order:
                start = time.perf_counter()
                function()
                times[side].append(time.perf_counter() - start)
    return Paired(tuple(times[0]), tuple(times[1]), watch.busy)


class Watch:
    """How much of the machine other programs used meanwhile (0 to 1); 0 where the system does not tell."""

    busy = 0.0

    def __enter__(self) -> Self:
        """Start watching."""
        self._start = self._read()
        return self

    def __exit__(self, *exc: object) -> None:
        """Work out the share."""
        used, total, own = (b - a for a, b in zip(self._start, self._read(), strict=True))
        self.busy = max(0.0, (used - own) / total) if total > 0 else 0.0

    def _read(self) -> tuple[float, float, float]:
        own = sum(os.times()[:4])
        try:
            fields = [float(x) for x in Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:9]]
        except OSError:
            return 0.0, 0.0, own
        tick = os.sysconf("SC_CLK_TCK")
        idle = fields[3] + fields[4]
        return (sum(fields) - idle) / tick, sum(fields) / tick, own


def judged(
    figure: str, paired: Paired, *, goal: str, met: Callable[[float], bool], value: float | None = None
) -> Figure:
    """A figure from timed pairs; not measured when the machine was busy."""
    number = paired.ratio if value is None else value
    if paired.busy > BUSY:
        detail = f"other programs used {paired.busy:.0%} of the processors; ratio seen {number:.4g}"
        return Figure(figure, None, goal, None, detail)
    return Figure(figure, number, goal, met(number) if goal else None, paired.spread)


def main(question: str, figures: Callable[[bool], Iterator[Figure]]) -> None:
    """Run one benchmark from the command line: prints a line per figure."""
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and smaller sizes: a smoke test")
    parser.add_argument("--json", type=Path, help="write the figures to this file as a list of objects")
    options = parser.parse_args()
    found: list[Figure] = []
    for figure in figures(options.quick):
        found.append(figure)
        print(figure.line(), flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(figure) for figure in found], indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if any(figure.met is False for figure in found) else 0)
