"""Work that was interrupted is gone on with: the same bits, and nothing finished is done again."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import neuronscope as ns
from neuronscope import checkpoint as checkpoint_module
from neuronscope.checkpoint import decode, digest, locked
from neuronscope.data.dataset import Data, data_from_arrays
from neuronscope.errors import DataError, NeuronscopeError, StorageError
from neuronscope.executors import Processes, RayCluster, Serial
from neuronscope.maths.streams import ClassMoments, Confusion, Decisions, Each, Histogram, Moments, StackRows, TopK
from neuronscope.models.sources import subject_from
from neuronscope.models.subject import Subject
from neuronscope.preprocessing import Preprocess
from neuronscope.run import Run
from neuronscope.steps import Gradients, Observe, Predict, Step
from neuronscope.sweep import identity, make_task, portion, processor, sweep

IMAGES, CLASSES, BATCH = 83, 3, 4
SHARD = 16  # images: the smallest shard has four batches

HAPPENINGS: list[Callable[[int], None]] = []
"""What befalls a step before a batch with this first row; no part of the step, so that its identity stays."""

KILLED = Path(__file__).with_name("killed_sweeps.py")


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C interrupts, also where the tests run in the background, for which shells switch it off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def subject():
    """A small network with a convolution."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, CLASSES))
    return subject_from(module, name="small", input_shape=(1, 8, 8), preprocess=Preprocess(channels=1))


@pytest.fixture(scope="module")
def data():
    """Random pictures with random labels."""
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (IMAGES, 1, 8, 8), dtype=np.uint8))
    return data_from_arrays(pixels, rng.integers(-1, CLASSES, IMAGES), name="noise", classes="abc")


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Checkpoints after every shard; nothing happens but what a test says."""
    HAPPENINGS.clear()
    monkeypatch.setattr(checkpoint_module, "_LEAST_PAUSE", 0.0)
    monkeypatch.setattr(checkpoint_module, "_SHARE", 0.0)


@dataclass
class Count:
    """A listener that counts."""

    total: int = 0
    done: int = 0
    calls: list = field(default_factory=list)

    def start(self, name, total):  # noqa: ARG002 the protocol gives it
        """A sweep begins."""
        self.total, self.done = total, 0

    def advance(self, images):
        """Images are done."""
        self.done += images
        self.calls.append(images)

    def finish(self):
        """A sweep ends."""


@dataclass(frozen=True)
class Counted:
    """A step that writes down the first row of each batch."""

    inner: Step
    log: Path

    def __call__(self, model, batch):
        """Measure."""
        for happening in HAPPENINGS:
            happening(int(batch.index[0]))
        with self.log.open("a") as stream:
            stream.write(f"{int(batch.index[0])}\n")
        return self.inner(model, batch)

    def shapes(self, outputs):
        """Those of the inner step."""
        return self.inner.shapes(outputs)

    @property
    def passes(self):
        """Those of the inner step."""
        return self.inner.passes


def reducer(classes=CLASSES):
    """Everything that a study takes from the forward sweep."""
    return Each(
        moments=Moments("mean"),
        by_class=ClassMoments("mean", classes=classes),
        top=TopK("max", 5, where="max_at"),
        histogram=Histogram("mean"),
        confusion=Confusion("logits", classes=classes),
        decisions=Decisions("logits"),
        rows=StackRows("mean"),
    )


def few():
    """What folds the answers of `Predict`, where neither steps nor reducers are in question."""
    return Each(moments=Moments("logits"))


def observe(subject):
    """The forward step."""
    return Observe(subject.layers, measures=("mean", "max"))


def on_cpu(**options):
    """A run on the processor."""
    return Run(device="cpu", **{"batch_size": BATCH, "workers": 1, "threads": 1, **options})


def print_of(swept):
    """Answer, images and skipped rows to the bit."""
    return digest(swept.answer, swept.images, swept.skipped)


def test_killed_at_any_moment(tmp_path):
    """A sweep killed at a random moment, or in a write, ends with the same bits; only what was not kept is redone."""
    answer = subprocess.run(
        [sys.executable, str(KILLED), str(tmp_path)], check=True, capture_output=True, text=True, timeout=180
    )
    trials = json.loads(answer.stdout)
    assert len(trials) >= 14
    assert len({trial["kept"] for trial in trials}) > 3, "killed at different moments"
    assert sum(trial["torn"] for trial in trials) >= 4, "killed within a write"
    for trial in trials:
        assert trial["print"] == trial["undisturbed"]
        assert trial["worked"] == trial["rest"], trial


def changes(subject, data):
    """Name -> arguments of an otherwise equal sweep."""
    module = nn.Sequential(*subject.module)
    weights = {**module.state_dict(), "4.bias": torch.ones(CLASSES)}
    other = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, CLASSES))
    other.load_state_dict(weights)
    changed = subject_from(other, name="small", input_shape=(1, 8, 8), preprocess=Preprocess(channels=1))
    step = observe(subject)
    return {
        "weights": {"subject": changed},
        "preprocess": {"subject": replace(subject, preprocess=Preprocess(channels=1, mean=(0.5,), std=(0.5,)))},
        "data": {"data": data.take(range(1, IMAGES))},
        "on_error": {"data": replace(data, on_error="skip")},
        "step": {"step": replace(step, measures=("mean", "max", "rate"))},
        "layers": {"step": replace(step, layers=subject.layers[:2])},
        "reducer": {"reducer": Each(moments=Moments("mean"))},
        "part of a reducer": {"reducer": Each(moments=Moments("max"))},
        "spec": {"run": on_cpu(context=("layers", "x"))},
        "seed": {"run": on_cpu(seed=1)},
        "batch size": {"run": on_cpu(batch_size=5)},
        "threads": {"run": on_cpu(threads=2)},
        "dtype": {"run": on_cpu(dtype="float64")},
        "name": {"name": "attribute"},
    }


def key(subject, data, *, step=None, reducer_=None, run=None, name="observe"):
    """The identity of a sweep."""
    task = make_task(subject, data, step or observe(subject), reducer_ or reducer(), run=run or on_cpu())
    return identity(task, name=name)


def test_every_part_of_the_key_counts(subject, data, monkeypatch):
    """Any change of what decides the result is another computation; what does not decide it is none."""
    usual = key(subject, data)
    keys = {"usual": usual}
    for what, change in changes(subject, data).items():
        given = {"subject": subject, "data": data, **change}
        if "reducer" in given:
            given["reducer_"] = given.pop("reducer")
        keys[what] = key(**given)
    monkeypatch.setattr(sys.modules[sweep.__module__], "versions", lambda: {"torch": "0"})
    keys["versions"] = key(subject, data)
    monkeypatch.undo()
    assert len(set(keys.values())) == len(keys), keys
    assert key(subject, data) == usual
    assert key(subject, data, run=on_cpu(workers=3, executor=Processes(2), progress=Count())) == usual


def test_the_kind_of_device_counts_and_not_its_number():
    """A run goes on with another GPU of the same model; another model, or the processor, gives other bits."""
    kinds = [
        processor(torch.device(name), model=lambda device, model=model: model if device.type == "cuda" else "none")
        for name, model in (
            ("cuda", "A"),
            ("cuda:0", "A"),
            ("cuda:1", "A"),
            ("cuda:1", "B"),
            ("cpu", "A"),
            ("cpu", "B"),
        )
    ]
    assert kinds[0] == kinds[1] == kinds[2]
    assert kinds[4] == kinds[5] == ("cpu",)
    assert len({digest(kind) for kind in kinds}) == 3


def test_a_key_is_the_same_in_every_process():
    """Nothing of a process (addresses, the order of sets) is in the identity."""
    code = (
        "import neuronscope as ns\n"
        "from neuronscope.studies.layers.setting import observation, settle\n"
        "from neuronscope.sweep import identity, make_task\n"
        "s, d = ns.load_model('builtin:viewer-cnn', weights='random'), ns.load_data('digits', limit=8)\n"
        "x = settle(s, d, ns.LayersSpec(), ns.Run(threads=1, device='cpu'))\n"
        "key = identity(make_task(x.subject, x.data, *observation(x), run=x.run), name='observe')"
    )
    here: dict = {}
    exec(code, here)  # noqa: S102 the very lines that another process runs
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    there = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(key)"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
    )
    assert there.stdout.strip() == here["key"]


def test_a_changed_run_does_not_go_on_from_another(subject, data, tmp_path):
    """With another seed in the same folder all images are worked."""
    log = tmp_path / "log"
    step = Counted(Predict(), log)
    sweep(subject, data, step, few(), run=on_cpu(checkpoint=tmp_path / "c"))
    sweep(subject, data, step, few(), run=on_cpu(checkpoint=tmp_path / "c"))
    assert len(log.read_text().split()) == -(-IMAGES // BATCH)
    sweep(subject, data, step, few(), run=on_cpu(checkpoint=tmp_path / "c", seed=1))
    assert len(log.read_text().split()) == 2 * -(-IMAGES // BATCH)


def test_a_torn_checkpoint_starts_over(subject, data, tmp_path):
    """Cut off at places through the file, or with a changed byte, the answer is right."""
    expected = print_of(sweep(subject, data, Predict(), few(), run=on_cpu()))
    run = on_cpu(checkpoint=tmp_path)
    sweep(subject, data, Predict(), few(), run=run)
    (path,) = tmp_path.glob("*.state")
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for place in rng.integers(0, len(whole), 4):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        for torn in (whole[:place], bytes(flipped)):
            path.write_bytes(torn)
            assert print_of(sweep(subject, data, Predict(), few(), run=run)) == expected


def test_serial_processes_and_portions_agree(subject, data, tmp_path):
    """One process, three, or two portions joined: the same bits, forward and backward."""
    label = data.labels.clip(0)
    known = data_from_arrays(data.pixels, label, name="noise", classes="abc")
    both = Each(all=Moments("pull/logit"), by_class=ClassMoments("pull/logit", classes=CLASSES))
    for step, fold in ((observe(subject), reducer()), (Gradients(subject.layers), both)):
        expected = print_of(sweep(subject, known, step, fold, run=on_cpu()))
        assert print_of(sweep(subject, known, step, fold, run=on_cpu(executor=Processes(3)))) == expected
        for number in (2, 1):
            run = on_cpu(checkpoint=tmp_path / str(number), portion=(number, 2))
            sweep(subject, known, step, fold, run=run, name="one")
        checkpoint_module.gather([tmp_path / "1", tmp_path / "2"], tmp_path / "whole")
        log = Count()
        joined = sweep(subject, known, step, fold, run=on_cpu(checkpoint=tmp_path / "whole", progress=log), name="one")
        assert print_of(joined) == expected
        assert log.calls == [IMAGES], "nothing was left to work"
        for folder in ("1", "2", "whole"):
            shutil.rmtree(tmp_path / folder)


def test_portions_cover_all_shards_once():
    """Every shard is in one portion, also where there are more portions than shards."""
    for shards in range(20):
        for count in range(1, 25):
            whole = [place for number in range(1, count + 1) for place in portion(shards, (number, count))]
            assert whole == list(range(shards))


@dataclass(frozen=True)
class Torn:
    """A reader with rows that cannot be read."""

    pixels: torch.Tensor
    rows: tuple

    def __call__(self, row):
        """Raw pixels."""
        if row in self.rows:
            message = f"image {row} is torn. Remove it"
            raise DataError(message)
        return self.pixels[row]


@pytest.mark.parametrize("executor", [None, Processes(2)])
def test_skipped_images_and_progress(subject, data, tmp_path, executor):
    """Skipped rows are listed in order and counted as done, also where the sweep was broken off and gone on with."""
    rows = (3, 16, 17, 18, 70, *range(32, 48))
    torn = replace(data, read=Torn(data.pixels, tuple(sorted(rows))), pixels=None, on_error="skip")
    count = Count()
    options = {"progress": count, **({"executor": executor} if executor else {})}
    swept = sweep(subject, torn, observe(subject), reducer(), run=on_cpu(**options))
    assert [row for row, _ in swept.skipped] == sorted(rows)
    assert (swept.images, count.total, count.done) == (IMAGES - len(rows), IMAGES, IMAGES)

    def stop(row):
        if row >= 3 * SHARD and not (tmp_path / "mended").exists():
            message = "stopped"
            raise DataError(message)

    HAPPENINGS.append(stop)
    step = Counted(observe(subject), tmp_path / "log")
    run = on_cpu(checkpoint=tmp_path / "c", **options)
    with pytest.raises(DataError, match="stopped"):
        sweep(subject, torn, step, reducer(), run=run)
    (tmp_path / "mended").touch()
    count.calls.clear()
    again = sweep(subject, torn, step, reducer(), run=run)
    assert print_of(again) == print_of(swept)
    assert (count.total, count.done) == (IMAGES, IMAGES)
    if executor is None:
        assert count.calls[0] == 3 * SHARD


def test_a_torn_image_in_a_worker_is_named(subject, data):
    """The error of the worker reaches the caller as itself."""
    torn = replace(data, read=Torn(data.pixels, (50,)), pixels=None)
    with pytest.raises(DataError, match=r"image 50 is torn\. Remove it"):
        sweep(subject, torn, Predict(), few(), run=on_cpu(executor=Processes(2)))


def ctrl_c():
    """What the terminal does."""
    signal.raise_signal(signal.SIGINT)


def torn_image():
    """An image that cannot be read."""
    message = "image is torn"
    raise DataError(message)


def no_room_elsewhere():
    """A disk that is full, though not the one with the checkpoint."""
    message = "no room for rows"
    raise StorageError(message)


def death():
    """The end of the process that works, again and again."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("rarely")
@pytest.mark.parametrize(
    "ending",
    [
        (ctrl_c, KeyboardInterrupt, Serial()),
        (torn_image, DataError, Serial()),
        (no_room_elsewhere, StorageError, Serial()),
        (torn_image, DataError, Processes(1)),
        (death, NeuronscopeError, Processes(1)),
    ],
    ids=["Ctrl-C", "a torn image", "no room elsewhere", "a torn image in a worker", "a worker killed again and again"],
)
def test_what_is_finished_is_kept_when_the_sweep_ends_early(subject, data, tmp_path, caplog, ending):
    """However it ends, and long before a checkpoint is due: the same call goes on after the finished shards."""
    trouble, kind, executor = ending
    caplog.set_level(logging.INFO, "neuronscope")
    log, mended = tmp_path / "log", tmp_path / "mended"
    HAPPENINGS.append(lambda row: trouble() if row >= 3 * SHARD and not mended.exists() else None)
    step = Counted(Predict(), log)
    run = on_cpu(checkpoint=tmp_path / "c", executor=executor)
    with pytest.raises(kind):
        sweep(subject, data, step, few(), run=run)
    assert "what was finished is kept" in caplog.text
    (path,) = (tmp_path / "c").iterdir()
    assert decode(path.read_bytes())["first"] == 3
    mended.touch()
    log.unlink()
    expected = print_of(sweep(subject, data, Predict(), few(), run=on_cpu()))
    assert print_of(sweep(subject, data, step, few(), run=run)) == expected
    assert sorted(int(row) for row in log.read_text().split()) == list(range(3 * SHARD, IMAGES, BATCH))


@pytest.fixture
def rarely(monkeypatch):
    """Checkpoints as far apart as they are for users: none is due in a test."""
    monkeypatch.setattr(checkpoint_module, "_LEAST_PAUSE", 30.0)


@pytest.mark.usefixtures("rarely")
def test_nothing_is_written_when_nothing_was_finished(subject, data, tmp_path):
    """An error in the first shard leaves no file; one right after going on leaves the file that was there."""
    stop = [0]
    HAPPENINGS.append(lambda row: torn_image() if row == stop[0] else None)
    run = on_cpu(checkpoint=tmp_path / "c")
    for stop[0] in (0, 2 * SHARD):
        with pytest.raises(DataError):
            sweep(subject, data, Counted(Predict(), tmp_path / "log"), few(), run=run)
        assert len(list((tmp_path / "c").iterdir())) == (1 if stop[0] else 0)
    (path,) = (tmp_path / "c").iterdir()
    before = path.stat().st_mtime_ns
    with pytest.raises(DataError):
        sweep(subject, data, Counted(Predict(), tmp_path / "log"), few(), run=run)
    assert path.stat().st_mtime_ns == before


@pytest.mark.usefixtures("rarely")
def test_a_last_checkpoint_that_fails_hides_nothing(subject, data, tmp_path, caplog):
    """The error that ended the sweep is raised; that its work is lost is logged."""
    folder = tmp_path / "c"

    def happen(row):
        if row == 2 * SHARD:
            folder.rmdir()
            folder.touch()
            torn_image()

    HAPPENINGS.append(happen)
    with pytest.raises(DataError, match="image is torn"):
        sweep(subject, data, Counted(Predict(), tmp_path / "log"), few(), run=on_cpu(checkpoint=tmp_path / "c"))
    assert "what was finished since the last checkpoint is lost: cannot write" in caplog.text


@dataclass(frozen=True)
class Interrupted:
    """A reducer that is stopped in the middle of a merge, once: the left state is half changed by then."""

    inner: Moments
    marker: Path

    def start(self):
        """That of the inner reducer."""
        return self.inner.start()

    def add(self, state, seen):
        """As the inner reducer does it."""
        return self.inner.add(state, seen)

    def merge(self, left, right):
        """As the inner reducer does it, but for the first one after the marker was taken away."""
        if self.marker.exists():
            self.marker.unlink()
            for part in left.values():
                if isinstance(part, torch.Tensor):
                    part.add_(1)
            ctrl_c()
        return self.inner.merge(left, right)

    def finish(self, state):
        """As the inner reducer does it."""
        return self.inner.finish(state)

    def size(self, shapes):
        """As the inner reducer does it."""
        return self.inner.size(shapes)


@pytest.mark.usefixtures("rarely")
def test_a_merge_that_was_broken_off_is_not_kept(subject, data, tmp_path):
    """A state that is half merged is the state of nothing: the checkpoint before it stays, and the answer is right."""
    marker = tmp_path / "marker"
    fold, run = Interrupted(Moments("logits"), marker), on_cpu(checkpoint=tmp_path / "c")
    expected = print_of(sweep(subject, data, Predict(), fold, run=on_cpu()))
    marker.touch()
    with pytest.raises(KeyboardInterrupt):
        sweep(subject, data, Predict(), fold, run=run)
    assert list((tmp_path / "c").iterdir()) == []
    assert print_of(sweep(subject, data, Predict(), fold, run=run)) == expected


@pytest.mark.parametrize("what", ["checkpoint", "output"])
def test_a_folder_removed_in_mid_run_is_made_again(subject, data, tmp_path, caplog, what):
    """Nothing is lost, a warning says what happened, and the output folder is locked as before."""
    out, log = tmp_path / "out", tmp_path / "log"
    folder = out / "checkpoint"
    out.mkdir()

    def happen(row):
        if row == 3 * SHARD and not (tmp_path / "happened").exists():
            (tmp_path / "happened").touch()
            shutil.rmtree(folder if what == "checkpoint" else out)
        if row == 4 * SHARD and (tmp_path / "happened").exists():
            torn_image()

    HAPPENINGS.append(happen)
    step, run = Counted(Predict(), log), on_cpu(checkpoint=folder)
    with locked(out):
        with pytest.raises(DataError):
            sweep(subject, data, step, few(), run=run)
        assert caplog.text.count("was removed while the run was writing there. It is made again") == 1
        with (out / ".lock").open() as stream, pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    (path,) = folder.iterdir()
    assert decode(path.read_bytes())["first"] == 4
    HAPPENINGS.clear()
    log.unlink()
    expected = print_of(sweep(subject, data, Predict(), few(), run=on_cpu()))
    with locked(out):
        assert print_of(sweep(subject, data, step, few(), run=run)) == expected
    assert int(log.read_text().split()[0]) == 4 * SHARD


def test_a_folder_that_went_with_the_one_above_is_not_made_again(subject, data, tmp_path):
    """Where even the place of the output folder is gone, one message names it; nothing is made in a strange place."""
    above = tmp_path / "disk"
    HAPPENINGS.append(lambda row: shutil.rmtree(above) if row == SHARD else None)
    run = on_cpu(checkpoint=above / "out" / "checkpoint")
    with pytest.raises(StorageError, match=r"out/checkpoint was removed while the run was writing there.* gone too"):
        sweep(subject, data, Counted(Predict(), tmp_path / "log"), few(), run=run)
    assert not above.exists()


def test_a_folder_on_a_disk_that_was_taken_away_is_not_made_again(subject, data, small_disk, tmp_path):
    """The folder where the disk was mounted is still there, but it is another disk: nothing is written to it."""

    def happen(row):
        if row == SHARD:
            subprocess.run([shutil.which("umount"), "-l", small_disk], check=True)

    HAPPENINGS.append(happen)
    run = on_cpu(checkpoint=small_disk / "checkpoint")
    with pytest.raises(StorageError, match=r"cannot be made again in .*disk, where another disk is now"):
        sweep(
            subject,
            data,
            Counted(Predict(), tmp_path / "log"),
            few(),
            run=run,
        )
    assert list(small_disk.iterdir()) == []


def test_a_folder_that_another_run_has_taken_is_left_to_it(subject, data, tmp_path):
    """Removed, made again and locked by somebody else: this run stops and says so."""
    out = tmp_path / "out"
    out.mkdir()
    other = contextlib.ExitStack()

    def happen(row):
        if row == SHARD:
            shutil.rmtree(out)
            (out / "checkpoint").mkdir(parents=True)
            stream = other.enter_context((out / ".lock").open("w"))
            stream.write("process 1")
            stream.flush()
            fcntl.flock(stream, fcntl.LOCK_EX)

    HAPPENINGS.append(happen)
    step = Counted(Predict(), tmp_path / "log")
    taken = r"out was removed while this run was writing there, and now .*process 1 is writing there"
    with other, locked(out), pytest.raises(StorageError, match=taken):
        sweep(subject, data, step, few(), run=on_cpu(checkpoint=out / "checkpoint"))
    assert list((out / "checkpoint").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    tool = shutil.which("mount")
    done = tool and subprocess.run([tool, "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)  # noqa: PLW1510
    if not done or done.returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    if folder.is_mount():  # a test may have taken it away
        subprocess.run([shutil.which("umount"), "-l", folder], check=True)


def test_a_full_disk(subject, data, small_disk, tmp_path):
    """One message; the checkpoint before is whole; after making room only the rest is worked."""
    ballast, log = small_disk / "ballast", tmp_path / "log"

    def fill(row):
        if row == 3 * SHARD and not (tmp_path / "filled").exists():
            (tmp_path / "filled").touch()
            with ballast.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
                while stream.write(b"x" * 4096):
                    pass

    HAPPENINGS.append(fill)
    step, run = Counted(Predict(), log), on_cpu(checkpoint=small_disk / "c")
    expected = print_of(sweep(subject, data, Predict(), few(), run=on_cpu()))
    with pytest.raises(StorageError, match=r"No space left on device\. What was finished before is kept"):
        sweep(subject, data, step, few(), run=run)
    (path,) = (small_disk / "c").iterdir()
    assert decode(path.read_bytes())["first"] == 3
    ballast.unlink()
    log.unlink()
    assert print_of(sweep(subject, data, step, few(), run=run)) == expected
    assert int(log.read_text().split()[0]) == 3 * SHARD


@pytest.mark.parametrize("trouble", ["read-only", "a file in its place", "full"])
def test_a_folder_that_is_lost_in_mid_run(subject, data, tmp_path, monkeypatch, trouble):
    """One message names the file; when it is mended the same call goes on."""
    folder, aside, log = tmp_path / "c", tmp_path / "aside", tmp_path / "log"
    if trouble == "read-only" and os.geteuid() == 0:
        pytest.skip("root may write to read-only folders")
    happened = []

    def happen(row):
        if row == 2 * SHARD and not happened:
            happened.append(row)
            if trouble == "read-only":
                folder.chmod(0o500)
            elif trouble == "full":
                monkeypatch.setattr(checkpoint_module.os, "fsync", full)
            else:
                folder.rename(aside)
                folder.touch()

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    HAPPENINGS.append(happen)
    step, run = Counted(Predict(), log), on_cpu(checkpoint=folder)
    with pytest.raises(StorageError, match=r"cannot write .*sweep-.*mend the folder"):
        sweep(subject, data, step, few(), run=run)
    if trouble == "read-only":
        folder.chmod(0o700)
    elif trouble == "full":
        monkeypatch.setattr(checkpoint_module.os, "fsync", lambda _descriptor: None)
    else:
        folder.unlink()
        aside.rename(folder)
    (path,) = folder.iterdir()
    assert decode(path.read_bytes())["first"] == 2
    expected = print_of(sweep(subject, data, Predict(), few(), run=on_cpu()))
    assert print_of(sweep(subject, data, step, few(), run=run)) == expected
    worked = [int(row) for row in log.read_text().split()]
    assert worked == [*range(0, 3 * SHARD, BATCH), *range(2 * SHARD, IMAGES, BATCH)]


@dataclass(frozen=True)
class Deadly:
    """A reader that kills the process it reads in: the first one, other than where it was made, to come to a row."""

    read: Callable[[int], torch.Tensor]
    row: int
    marker: Path
    home: int = field(default_factory=os.getpid)

    def __call__(self, row):
        """Raw pixels."""
        if row == self.row and os.getpid() != self.home:
            with contextlib.suppress(FileExistsError):
                self.marker.touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        return self.read(row)


@dataclass(frozen=True)
class Passes:
    """A forward and a backward sweep over some images, each with everything that a study takes from it."""

    subject: Subject
    images: Data
    layers: tuple

    def __call__(self, *, killing=None, **options):
        """Their answers, to the bit; an image of the second sweep kills the worker that reads it, where told so."""
        classes, run = len(self.subject.classes), on_cpu(**{"batch_size": 2, **options})
        forward = (Observe(self.layers, measures=("mean", "max")), reducer(classes))
        backward = (
            Gradients(self.layers),
            Each(all=Moments("pull/logit"), by_class=ClassMoments("pull/logit", classes=classes)),
        )
        last = self.images if killing is None else replace(self.images, read=Deadly(self.images.read, 21, killing))
        seen = sweep(self.subject, self.images, *forward, run=run, name="observe")
        pulled = sweep(self.subject, last, *backward, run=run, name="attribute")
        return print_of(seen), print_of(pulled)


@pytest.fixture(scope="module")
def squeezenet(test_data):
    """SqueezeNet 1.1 and ImageNet images in four shards, small enough to be worked often; what one process finds."""
    weights = test_data / "weights" / "squeezenet1_1_imagenet_tvnorm.pth"
    subject = ns.load_model("torchvision:squeezenet1_1", weights=str(weights), resize=112, crop=96)
    images = ns.load_data(f"imagenet:{test_data / 'imagenet_val1300'}", limit=32)
    passes = Passes(subject, images, subject.select("features.3.squeeze", "features.12.squeeze"))
    return passes, passes()


def test_squeezenet_in_worker_processes(squeezenet, tmp_path):
    """SqueezeNet on ImageNet images, two worker processes of which one is killed: the bits of one process."""
    passes, expected = squeezenet
    assert passes(killing=tmp_path / "killed", executor=Processes(2)) == expected
    assert (tmp_path / "killed").exists()


def test_squeezenet_on_a_ray_cluster(squeezenet, tmp_path):
    """The same on a Ray cluster of two workers on this machine, of which one is killed."""
    pytest.importorskip("ray", reason="needs the extra ray")
    passes, expected = squeezenet
    with RayCluster(workers=2) as cluster:
        assert passes(killing=tmp_path / "killed", executor=cluster) == expected
    assert (tmp_path / "killed").exists()


def test_squeezenet_in_parts(squeezenet, tmp_path):
    """Two portions, as of two machines: joined, they have the same bits, and nothing is left to work."""
    passes, expected = squeezenet
    for number in (1, 2):
        passes(checkpoint=tmp_path / str(number), portion=(number, 2))
    assert checkpoint_module.gather([tmp_path / "1", tmp_path / "2"], tmp_path / "whole") == 2
    log = Count()
    assert passes(checkpoint=tmp_path / "whole", progress=log) == expected
    assert log.calls == [32, 32]


def test_builtin_networks_can_be_spawned():
    """Where forking is not possible, a built-in network and data set reach the workers as copies: the same bits."""
    subject = ns.load_model("builtin:viewer-cnn", weights="random")
    data = ns.load_data("digits", limit=40)
    step, fold = observe(subject), Each(moments=Moments("mean"), rows=StackRows("max"))
    expected = sweep(subject, data, step, fold, run=on_cpu())
    spawned = sweep(subject, data, step, fold, run=on_cpu(executor=Processes(1, start="spawn")))
    assert print_of(spawned) == print_of(expected)
