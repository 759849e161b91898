"""The table: its addresses and checksums are those of upstream, its rows are complete and found by their names."""

from __future__ import annotations

import re

import pytest

from neuronscope.data import DATA_SOURCES
from neuronscope.data.concepts import CONCEPT_SOURCES
from neuronscope.errors import InputError, UnknownName
from neuronscope.fetching import FETCHABLE, RemoteFile, fetch, torchvision_weights
from neuronscope.fetching.items import find

HEX = "0123456789abcdef"

UNCHECKED = ("broden-227", "broden-384", "imagenet", "broden", "places365-resnet18")
"""Nobody publishes a checksum of these."""


@pytest.mark.parametrize("item", FETCHABLE.values(), ids=lambda item: item.name)
def test_rows_are_complete(item):
    """Something to check against, where there is anything, terms, and a next step."""
    assert FETCHABLE[item.name] is item
    assert item.licence
    assert item.page.startswith("http")
    assert item.then.startswith("neuronscope ")
    assert item.then.format(folder="F", file="f")
    sources = {**DATA_SOURCES, **CONCEPT_SOURCES}
    assert item.kind == "weights" or item.name.removesuffix("-227").removesuffix("-384") in sources
    for file in item.files:
        assert (file.checksum is None) is (item.name in UNCHECKED)
        assert file.urls[0].startswith("https://")


def test_data_sets_are_those_of_torchvision():
    """Names, MD5 sums, and all of its addresses."""
    from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

    for name, theirs in (("mnist", MNIST), ("fashion-mnist", FashionMNIST)):
        assert [(file.name, file.md5) for file in FETCHABLE[name].files] == theirs.resources
        for file in FETCHABLE[name].files:
            assert {f"{mirror}{file.name}" for mirror in theirs.mirrors} <= set(file.urls)
    [file] = FETCHABLE["cifar10"].files
    assert (file.name, file.urls, file.md5) == (CIFAR10.filename, (CIFAR10.url,), CIFAR10.tgz_md5)


def test_weights_are_those_of_torchvision():
    """The newer files are where its own names point; their sizes agree to a thousandth of a MiB."""
    from torchvision import models

    for name in ("alexnet", "vgg11", "resnet18", "densenet121", "squeezenet1_1"):
        theirs = models.get_model_weights(name)["IMAGENET1K_V1"]
        [file] = FETCHABLE[f"{name}-v1"].files
        assert file.urls == (theirs.url,)
        assert (file.size is None) != (file.about is None)
        assert (file.size or file.about) / 2**20 == pytest.approx(theirs.meta["_file_size"], abs=1e-3)


def test_every_weights_file_of_torchvision_can_be_checked():
    """Each address of its classifiers makes a row with a checksum; those of the table are found in it."""
    from torchvision import models

    known = {item.files[0].urls[0]: item for item in FETCHABLE.values() if item.kind == "weights"}
    for name in models.list_models(module=models):
        for entry in models.get_model_weights(name):
            item = torchvision_weights(entry.url, model=name, about=1)
            [file] = item.files
            assert file.urls == (entry.url,)
            [digits] = re.findall(r"-([0-9a-f]{8,})\.pth$", entry.url)
            assert file.sha256.startswith(digits)
            assert item is known.get(entry.url, item)
            assert (file.about == 1) is (entry.url not in known)


def test_weights_without_a_checksum_are_refused():
    """Nothing would tell whether the right file came."""
    with pytest.raises(InputError, match="expected 8 to 64 digits"):
        torchvision_weights("https://example.org/resnet18.pth", model="resnet18")


def test_weights_carry_their_checksum_in_their_name():
    """The digits in the names of torchvision's files are the first of the SHA-256."""
    rows = [item for item in FETCHABLE.values() if item.kind == "weights" and item.name != "places365-resnet18"]
    weights = [item.files[0] for item in rows]
    assert len(weights) == 8
    for file in weights:
        [digits] = re.findall(r"-([0-9a-f]{8})\.pth", file.name)
        assert file.sha256.startswith(digits)


@pytest.mark.parametrize("name", ["alexnet-owt-4df8aa71.pth", "vgg11-bbd30ac9.pth", "resnet18-5c106cde.pth"])
def test_rows_are_found_by_file_name(name):
    """The three that the sensitivity program asks for; also by the short name."""
    item = find(name)
    assert item.files[0].name == name
    assert find(item.name) is item
    assert item.name == name.split("-")[0]


@pytest.mark.parametrize(("name", "side"), [("broden", 224), ("broden-227", 227), ("broden-384", 384)])
def test_broden(name, side, tmp_path):
    """Each side is fetched for itself, from the address of its builders, and leads to a check of what is unpacked."""
    item = find(f"broden1_{side}.zip")
    assert item is FETCHABLE[name]
    [file] = item.files
    assert file.urls[-1] == f"http://netdissect.csail.mit.edu/data/broden1_{side}.zip"
    assert (file.unpack, file.size, file.about) == ("zip", None, None)
    planned = fetch(name, to=tmp_path, action="plan")
    assert planned.then == f"neuronscope concepts check broden:{tmp_path}/broden1_{side} --limit 500"


def test_places365():
    """The network of the original goes where torch keeps weights, under its own name."""
    item = find("resnet18_places365.pth.tar")
    assert item.name == "places365-resnet18"
    assert item.files[0].urls[-1] == "http://places2.csail.mit.edu/models_places365/resnet18_places365.pth.tar"
    assert item.folder().name == "checkpoints"


def test_unknown_names():
    """The nearest are offered."""
    with pytest.raises(UnknownName, match=r"'minst' cannot be fetched: .*Closest: 'mnist'.*neuronscope fetch --list"):
        find("minst")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"name": "../out"}, "without folders"),
        ({"name": ".."}, "without folders"),
        ({"urls": ()}, "one or more"),
        ({"urls": ("file:///etc/passwd",)}, "beginning with https"),
        ({"sha256": "abc"}, "expected 8 to 64 digits"),
        ({"sha256": "Z" * 64}, "expected 8 to 64 digits"),
        ({"md5": HEX}, "expected 32 to 32 digits"),
        ({"unpack": "tar"}, "no unpack_limit"),
    ],
)
def test_rows_that_cannot_be(facts, words):
    """A row of a third party is checked when it is made."""
    with pytest.raises(InputError, match=words):
        RemoteFile(**({"name": "file", "urls": ("https://example.org/file",)} | facts))
