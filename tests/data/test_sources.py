"""Every source gives the images, labels and class names that it should, or says what is missing."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import shutil
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from neuronscope.data import DATA_SOURCES, balanced_rows, batches, class_counts, load_data
from neuronscope.errors import DataError, InputError, UnknownName
from neuronscope.fetching import FETCHABLE, RemoteFile
from neuronscope.preprocessing import Preprocess


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """A test that reaches for another machine fails."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: tuple[str, int]) -> None:
        assert address[0] == "127.0.0.1", "no network in tests"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_the_digits_have_fixed_splits_of_60_and_40_percent():
    """Sizes, balance and content are fixed for good: the fingerprints are golden."""
    train, report, everything = (load_data("digits", split=split) for split in ("train", "report", "all"))
    assert (len(train), len(report), len(everything)) == (1078, 719, 1797)
    assert set(train.ids).isdisjoint(report.ids)
    assert sorted(train.ids + report.ids) == list(everything.ids)
    share = class_counts(train) / class_counts(everything)
    assert np.allclose(share, 0.6, atol=0.01)  # one image more or less of some 180
    assert report.fingerprint == "8a8a25090d920bdcd8fa25cd51927e6376ddea48d79e13a4f36a4517b6edb3c1"


def test_the_digits_are_enlarged_as_keys_cubic_convolution_says():
    """Written out pixel by pixel from Keys 1981, equation 8 (a = -0.5), to half a grey level."""
    from sklearn.datasets import load_digits

    def kernel(x: float) -> float:
        x = abs(x)
        if x < 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    data = load_data("digits", split="all")
    small = load_digits().images[17] / 16
    weights = np.array([[kernel((i - 4 + 0.5) / 2.5 - 0.5 - j) for j in range(8)] for i in range(28)])
    expected = np.clip(weights @ small @ weights.T, 0, 1) * 255
    assert np.abs(data.read(17)[0].numpy() - expected).max() <= 0.5 + 1e-9
    assert data.pixels.shape == (1797, 1, 28, 28)
    assert data.pixels.max() == 255
    assert int(data.pixels[:, :, :2].max()) <= 1  # black all around, but for ripples of the kernel


@pytest.mark.parametrize(
    "ask", [("digits", None), ("digits", "report"), ("digits:report", None), ("digits:report", "report")]
)
def test_a_split_may_be_written_either_way(ask):
    """After a colon, as an option, or left out."""
    assert load_data(ask[0], split=ask[1]).name == "digits:report"


def test_contradicting_or_unknown_splits_are_refused():
    """The message offers the nearest."""
    with pytest.raises(InputError, match="contradict"):
        load_data("digits:train", split="report")
    with pytest.raises(UnknownName, match=r"no split 'trian'.*Closest: 'train'"):
        load_data("digits:trian")


def test_an_unknown_source_offers_the_nearest_name(tmp_path):
    """A bare folder is offered with its prefix."""
    with pytest.raises(UnknownName, match=r"'minst' is no data source.*Closest: 'mnist'"):
        load_data("minst:data")
    with pytest.raises(UnknownName, match=f"write folder:{tmp_path}"):
        load_data(str(tmp_path))


def test_limit_classes_and_seed_choose_images():
    """Balanced, of the classes wanted, repeatable; class numbers and names stay."""
    some = load_data("digits", classes=["3", 7], limit=11)
    counts = class_counts(some)
    assert sorted(counts.tolist()) == [0] * 8 + [5, 6]
    assert counts[3] + counts[7] == 11
    assert len(some.classes) == 10
    assert some.fingerprint == load_data("digits", classes=["3", 7], limit=11).fingerprint
    assert some.fingerprint != load_data("digits", classes=["3", 7], limit=11, seed=1).fingerprint
    whole = load_data("digits")
    rows = balanced_rows(whole.labels, limit=50)
    assert load_data("digits", limit=50).ids == tuple(whole.ids[row] for row in rows)
    assert load_data("digits", limit=10_000).fingerprint == whole.fingerprint


def test_unknown_classes_and_empty_limits_are_refused():
    """By name with the nearest, by number with the count."""
    with pytest.raises(UnknownName, match="'10' is no class of digits:report: expected one of its 10"):
        load_data("digits", classes=["10"])
    with pytest.raises(UnknownName, match="'-1' is no class"):
        load_data("digits", classes=[-1])
    with pytest.raises(InputError, match="limit is 0"):
        load_data("digits", limit=0)
    with pytest.raises(InputError, match="its own labels"):
        load_data("digits", labels="labels.csv")


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as an IDX file."""
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


TRAIN_LABELS, TEST_LABELS = np.array([1, 2, 9], dtype=np.uint8), np.array([4, 0], dtype=np.uint8)


def write_mnist(folder: Path, *, packed: bool = True, test_labels: np.ndarray = TEST_LABELS) -> dict[str, bytes]:
    """The four files of a tiny MNIST."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "train-images-idx3-ubyte": np.arange(12, dtype=np.uint8).reshape(3, 2, 2),
        "train-labels-idx1-ubyte": TRAIN_LABELS,
        "t10k-images-idx3-ubyte": np.arange(100, 108, dtype=np.uint8).reshape(2, 2, 2),
        "t10k-labels-idx1-ubyte": test_labels,
    }
    files = {
        f"{name}{'.gz' * packed}": gzip.compress(idx(array)) if packed else idx(array) for name, array in arrays.items()
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return files


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", [".", "raw"])
@pytest.mark.parametrize("source", ["mnist", "fashion-mnist"])
def test_mnist_is_read_from_its_files(tmp_path, source, place, packed):
    """The test part by default; packed or not; where torchvision puts it, too."""
    write_mnist(tmp_path / place, packed=packed)
    test, train = load_data(f"{source}:{tmp_path}"), load_data(f"{source}:{tmp_path}", split="train")
    assert test.name == f"{source}:test"
    assert test.pixels.flatten().tolist() == list(range(100, 108))
    assert test.labels.tolist() == [4, 0]
    assert train.pixels.shape == (3, 1, 2, 2)
    assert train.labels.tolist() == [1, 2, 9]
    assert test.classes[4] == ("4" if source == "mnist" else "Coat")


def test_mnist_with_wrong_files_is_refused(tmp_path):
    """Labels outside the classes, more labels than images, torn and absent files."""
    write_mnist(tmp_path, test_labels=np.array([4, 12], dtype=np.uint8))
    with pytest.raises(DataError, match="label 12 of image 1 is outside the 10 classes"):
        load_data(f"mnist:{tmp_path}")
    write_mnist(tmp_path, test_labels=np.array([4, 1, 2], dtype=np.uint8))
    with pytest.raises(DataError, match=r"holds 2 images but .* 3 labels"):
        load_data(f"mnist:{tmp_path}")
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b\x08torn")
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz' cannot be read"):
        load_data(f"mnist:{tmp_path}")
    (tmp_path / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"lacks t10k-images-idx3-ubyte: .*--download"):
        load_data(f"mnist:{tmp_path}")
    with pytest.raises(DataError, match="not there"):
        load_data(f"mnist:{tmp_path / 'gone'}")
    with pytest.raises(DataError, match="names no folder"):
        load_data("mnist")


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[Path, str]]:
    """A folder on this machine and the address at which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield folder, f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


@pytest.mark.parametrize("source", ["mnist", "fashion-mnist"])
def test_missing_files_are_fetched_when_asked_for(tmp_path, served, monkeypatch, source):
    """Only those of the split that are not there; they are what the table of things to fetch says."""
    folder, address = served
    contents = write_mnist(folder)
    row = FETCHABLE[source]
    assert sorted(file.name for file in row.files) == sorted(contents)
    files = tuple(
        RemoteFile(name, (f"{address}/{name}",), sha256=hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    )
    monkeypatch.setitem(FETCHABLE, source, replace(row, files=files))
    new = tmp_path / "new"
    assert len(load_data(f"{source}:{new}", download=True)) == 2
    assert sorted(path.name for path in new.iterdir()) == ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz could not be fetched.*another content"):
        load_data(f"{source}:{new}", split="train", download=True)
    assert sorted(path.name for path in new.iterdir()) == ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]


def test_cifar_is_fetched_and_unpacked_when_asked_for(tmp_path, served, monkeypatch):
    """The archive comes, and its batches are read."""
    folder, address = served
    batch = {"data": np.zeros((10_000, 3072), dtype=np.uint8), "labels": [3] * 10_000}
    inside = tmp_path / "test_batch"
    inside.write_bytes(pickle.dumps(batch, protocol=2))
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(inside, "cifar-10-batches-py/test_batch")
    content = (folder / "cifar-10-python.tar.gz").read_bytes()
    row = FETCHABLE["cifar10"]
    file = replace(
        row.files[0],
        urls=(f"{address}/cifar-10-python.tar.gz",),
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )
    monkeypatch.setitem(FETCHABLE, "cifar10", replace(row, files=(file,)))
    data = load_data(f"cifar10:{tmp_path / 'new'}", download=True)
    assert class_counts(data)[3] == 10_000
    assert (tmp_path / "new" / "cifar-10-batches-py" / "test_batch").is_file()


@pytest.fixture(scope="module")
def cifar(tmp_path_factory) -> Path:
    """CIFAR-10 in its binary form: the six files, each with 10,000 images of its own brightness."""
    folder = tmp_path_factory.mktemp("cifar")
    for number, name in enumerate(["test_batch", *(f"data_batch_{part}" for part in range(1, 6))]):
        records = np.full((10_000, 3073), number, dtype=np.uint8)
        records[:, 0] = np.arange(10_000) % 10
        records.tofile(folder / f"{name}.bin")
    return folder


def test_cifar_is_read_from_its_binary_form(cifar):
    """50,000 and 10,000 images in the order of the files."""
    train, test = load_data(f"cifar10:{cifar}", split="train"), load_data(f"cifar10:{cifar}")
    assert train.pixels.shape == (50_000, 3, 32, 32)
    assert train.pixels[::10_000, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert test.pixels.shape == (10_000, 3, 32, 32)
    assert class_counts(test).tolist() == [1000] * 10
    assert (test.classes[0], test.classes[9]) == ("airplane", "truck")


def test_cifar_is_found_in_sub_folders_archives_and_python_form(cifar, tmp_path):
    """All give the same data."""
    expected = load_data(f"cifar10:{cifar}").fingerprint
    below, packed = tmp_path / "below", tmp_path / "packed"
    (below / "cifar-10-batches-py").mkdir(parents=True)
    records = np.fromfile(cifar / "test_batch.bin", dtype=np.uint8).reshape(10_000, 3073)
    (below / "cifar-10-batches-py" / "test_batch").write_bytes(
        pickle.dumps({"data": records[:, 1:].copy(), "labels": records[:, 0].tolist()}, protocol=2)
    )
    assert load_data(f"cifar10:{below}").fingerprint == expected
    packed.mkdir()
    with tarfile.open(packed / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(cifar / "test_batch.bin", "cifar-10-batches-bin/test_batch.bin")
    assert load_data(f"cifar10:{packed}").fingerprint == expected


def test_cifar_with_wrong_files_is_refused(cifar, tmp_path):
    """A label outside the classes, absent files."""
    records = np.fromfile(cifar / "test_batch.bin", dtype=np.uint8).reshape(10_000, 3073)
    records[77, 0] = 10
    records.tofile(tmp_path / "test_batch.bin")
    with pytest.raises(DataError, match="label 10 of image 77 is outside the 10 classes"):
        load_data(f"cifar10:{tmp_path}")
    with pytest.raises(DataError, match=r"lacks data_batch_1\.bin"):
        load_data(f"cifar10:{tmp_path}", split="train")


def write_pictures(folder: Path, names: list[str]) -> None:
    """Small pictures, each of its own brightness."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (number * 20,) * 3).save(folder / name)


def test_a_folder_of_class_folders(tmp_path):
    """Classes by name, images by name within them; a class without images keeps its number."""
    write_pictures(tmp_path, ["b/2.png", "b/1.PNG", "a/x.jpeg", "a b/y.bmp"])
    (tmp_path / "aa").mkdir()
    (tmp_path / "readme.txt").touch()
    data = load_data(f"folder:{tmp_path}")
    assert data.classes == ("a", "a b", "aa", "b")
    assert data.ids == ("a/x.jpeg", "a b/y.bmp", "b/1.PNG", "b/2.png")
    assert data.labels.tolist() == [0, 1, 3, 3]
    assert data.read(2).unique().tolist() == [20]
    with pytest.raises(DataError, match="no image of the classes aa"):
        load_data(f"folder:{tmp_path}", classes=["aa"])


def test_class_folders_may_be_links(tmp_path):
    """A selection of classes made of links to a larger collection."""
    write_pictures(tmp_path / "all", ["a/1.png", "b/1.png"])
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "b").symlink_to(tmp_path / "all" / "b")
    assert load_data(f"folder:{tmp_path / 'some'}").ids == ("b/1.png",)


def test_a_flat_folder_has_no_labels(tmp_path):
    """Label -1 and no classes; a split is a sub-folder."""
    write_pictures(tmp_path, ["val/2.png", "val/1.png"])
    data = load_data(f"folder:{tmp_path}", split="val")
    assert (data.ids, data.labels.tolist(), data.classes) == (("1.png", "2.png"), [-1, -1], ())
    assert data.name == "folder:val"
    with pytest.raises(UnknownName, match=r"no sub-folder for the split 'vla'.*Closest: 'val'"):
        load_data(f"folder:{tmp_path}", split="vla")
    write_pictures(tmp_path, ["3.png"])
    with pytest.raises(DataError, match="1 images beside its class sub-folders"):
        load_data(f"folder:{tmp_path}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        load_data(f"folder:{tmp_path / 'empty'}")


def test_a_truncated_image_is_an_error_or_is_skipped_with_a_count(tmp_path):
    """By default the file is named; with skip the other images come, and the row and cause are told."""
    write_pictures(tmp_path, [f"a/{number}.jpg" for number in range(6)])
    torn = tmp_path / "a" / "3.jpg"
    torn.write_bytes(torn.read_bytes()[:-200])
    prepare = Preprocess().batch
    with pytest.raises(DataError, match=r"a/3\.jpg' cannot be read: .*[Tt]runcated"):
        list(batches(load_data(f"folder:{tmp_path}"), prepare))
    told: list[tuple[int, str]] = []
    data = load_data(f"folder:{tmp_path}", on_error="skip")
    made = list(batches(data, prepare, batch_size=4, on_skip=lambda *skipped: told.append(skipped)))
    assert torch.cat([batch.index for batch in made]).tolist() == [0, 1, 2, 4, 5]
    assert [row for row, _ in told] == [3]
    assert "3.jpg" in told[0][1]


def test_a_data_set_survives_pickling(tmp_path):
    """Worker processes read the same images."""
    write_pictures(tmp_path, ["a/1.png", "b/1.png"])
    data = load_data(f"folder:{tmp_path}", classes=["b"])
    again = pickle.loads(pickle.dumps(data))  # noqa: S301 our own bytes
    assert torch.equal(again.read(0), data.read(0))
    assert again.fingerprint == data.fingerprint


def test_a_third_party_adds_a_source_by_an_entry_point(tmp_path, monkeypatch):
    """A package with the entry point group `neuronscope.data` is found; its name is offered, too."""
    information = tmp_path / "stripes-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: stripes\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[neuronscope.data]\nstripes = stripes_for_test:load\n")
    (tmp_path / "stripes_for_test.py").write_text(
        "import numpy, torch\n"
        "from neuronscope.data import data_from_arrays\n"
        "def load(request):\n"
        "    images = torch.zeros(int(request.rest), 1, 4, 4, dtype=torch.uint8)\n"
        "    return data_from_arrays(images, numpy.zeros(len(images), dtype=int), name='stripes', classes=('s',))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert len(load_data("stripes:3")) == 3
    with pytest.raises(UnknownName, match="Closest: 'stripes'"):
        load_data("stripe:3")


def test_the_table_of_sources_is_complete():
    """What the documentation promises."""
    assert sorted(DATA_SOURCES) == ["cifar10", "digits", "fashion-mnist", "folder", "imagenet", "mnist"]


def test_the_real_mnist_has_70000_images(test_data):
    """60,000 and 10,000, with the published number of images of each class."""
    train, test = (load_data(f"mnist:{test_data / 'mnist'}", split=split) for split in ("train", "test"))
    assert class_counts(train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert class_counts(test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_the_real_mnist_torn_is_refused(test_data, tmp_path):
    """A download that broke off in the middle."""
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        shutil.copyfile(test_data / "mnist" / name, tmp_path / name)
    os.truncate(tmp_path / "t10k-images-idx3-ubyte.gz", 1_000_000)
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz' cannot be read: .*Compressed file ended"):
        load_data(f"mnist:{tmp_path}")
