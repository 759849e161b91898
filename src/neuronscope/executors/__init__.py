"""Where the shards of a sweep are worked: in this process, in worker processes, or on a cluster.

An executor gets one function, the objects that all tasks share (the network, the data: handed over once, by reference)
and the tasks themselves (small values). It yields (position, answer) pairs in any order; the caller puts them in order.
"""

from __future__ import annotations

from collections.abc import Callable

from neuronscope.executors.processes import Processes
from neuronscope.executors.protocol import Executor, Serial
from neuronscope.executors.ray import RayCluster

EXECUTORS: dict[str, Callable[..., Executor]] = {"serial": Serial, "processes": Processes, "ray": RayCluster}
"""Name on the command line -> maker. Its parameters are all optional; making one imports nothing."""

__all__ = ["EXECUTORS", "Executor", "Processes", "RayCluster", "Serial"]
