"""Worker processes: all answers, whatever happens to a worker."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from neuronscope.checkpoint import locked
from neuronscope.errors import DataError, NeuronscopeError
from neuronscope.executors import Processes

PARENT = """
import sys, time
from pathlib import Path
from neuronscope.checkpoint import locked
from neuronscope.executors import Processes

def sleep(folder, task):
    (folder / f"pid-{task}").write_text(str(__import__("os").getpid()))
    time.sleep(600)

folder = Path(sys.argv[1])
with locked(folder):
    list(Processes(2).work(sleep, folder, [0, 1]))
"""


def die_once(marker, task):
    """Answer, but the first worker to meet task 2 is killed."""
    if task == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task * 10


def die(_shared, _task):
    """Always be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(_shared, task):
    """Fail at one task."""
    if task == 3:
        message = "image 3 is torn. Remove it"
        raise DataError(message)
    return task


def convolve(shared, task):
    """Work with more than one thread, forward and backward."""
    torch.set_num_threads(shared)
    layer = torch.nn.Conv2d(8, 16, 3)
    image = torch.ones(4, 8, 64, 64, requires_grad=True)
    layer(image).sum().backward()
    return float(image.grad.shape[0] + task)


@pytest.mark.parametrize("start", ["auto", "fork", "spawn"])
def test_every_task_is_answered_once(start):
    """However the workers start, each position comes with its own answer, once."""
    found = list(Processes(2, start=start).work(operator.mul, 3, list(range(11))))
    assert sorted(found) == [(position, 3 * position) for position in range(11)]


def test_spawning_leaves_the_weights_where_they_are():
    """What is sent to spawned workers is a copy: arrays that look into the caller's weights stay valid."""
    weights = torch.arange(100_000.0)
    before = weights.data_ptr()
    assert len(list(Processes(1, start="spawn").work(operator.getitem, weights, [0, 1]))) == 2
    assert weights.data_ptr() == before
    assert not weights.is_shared()


def test_no_tasks_need_no_workers():
    """An empty list has no answers."""
    assert list(Processes(2).work(operator.mul, 3, [])) == []


def test_answers_wait_for_the_earliest_one(tmp_path):
    """No task far beyond the earliest missing one is begun: finished states wait in memory."""

    def work(folder, task):
        (folder / str(task)).touch()
        if task == 0:
            time.sleep(0.7)
            return [int(path.name) for path in folder.iterdir()]
        return []

    found = dict(Processes(2).work(work, tmp_path, list(range(40))))
    assert max(found[0]) <= 5


def test_a_killed_worker_costs_nothing(tmp_path):
    """The task of a worker that is killed in flight is worked again; the answers are complete and right."""
    found = list(Processes(2).work(die_once, tmp_path / "marker", list(range(9))))
    assert sorted(found) == [(task, task * 10) for task in range(9)]
    assert (tmp_path / "marker").exists()


def test_workers_killed_again_and_again_end_the_work():
    """After three pools without an answer there is one message with what to try."""
    with pytest.raises(NeuronscopeError, match=r"killed 3 times without finishing a task.*--executor serial"):
        list(Processes(2).work(die, None, [0, 1]))


def test_an_error_in_a_worker_reaches_the_caller():
    """Type and message are those of the worker."""
    with pytest.raises(DataError, match=r"image 3 is torn\. Remove it"):
        list(Processes(2).work(refuse, None, list(range(6))))


@pytest.mark.parametrize("threads", [1, 2])
def test_forking_beside_threads_ends(threads):
    """Workers are done although the parent had a team of threads before they were forked, and they want one too."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        convolve(2, 0)
        found = list(Processes(2).work(convolve, threads, [0, 1, 2]))
    finally:
        torch.set_num_threads(before)
    assert sorted(found) == [(task, 4.0 + task) for task in range(3)]


def test_a_killed_parent_takes_its_workers_and_its_lock_along(tmp_path):
    """After SIGKILL of the parent no worker is left, and the folder can be locked again at once."""
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)]) as parent:
        until = time.monotonic() + 60
        paths = [tmp_path / "pid-0", tmp_path / "pid-1"]
        while not all(path.exists() and path.read_text() for path in paths) and time.monotonic() < until:
            time.sleep(0.05)
        parent.kill()
    with locked(tmp_path):
        workers = [int(path.read_text()) for path in paths]
    time.sleep(0.5)
    assert not [pid for pid in workers if _alive(pid)]


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stream:  # noqa: PTH123 not a file of anyone's
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
