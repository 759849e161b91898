"""A weights name of torchvision goes through the same downloader as all else: resumed, checked, found in torch's cache.

These are tests of `neuronscope.models.sources`; they stand here because of the server.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field, replace

import pytest
import torch
from tests.fetching.conftest import Server, serving, status
from torchvision import models

from neuronscope.errors import StorageError, WeightsError
from neuronscope.models import load_model
from neuronscope.preprocessing import IMAGENET_MEAN, IMAGENET_STD

ENTRY = models.SqueezeNet1_1_Weights.IMAGENET1K_V1


@dataclass
class Heard:
    """A progress that counts."""

    names: list[str] = field(default_factory=list)
    count: int = 0

    def start(self, name: str, total: int) -> None:
        """Remember."""
        self.names.append(f"{name} {total}")

    def advance(self, images: int) -> None:
        """Count."""
        self.count += images

    def finish(self) -> None:
        """Nothing more."""


@dataclass(frozen=True)
class Published:
    """Weights as torchvision publishes them: the file name ends in the first digits of their hash."""

    content: bytes
    name: str


@pytest.fixture(scope="module")
def published() -> Published:
    """Random weights."""
    stream = io.BytesIO()
    torch.save(models.squeezenet1_1().state_dict(), stream)
    content = stream.getvalue()
    return Published(content, f"squeezenet1_1-{hashlib.sha256(content).hexdigest()[:8]}.pth")


@pytest.fixture
def cache(server, published, monkeypatch, tmp_path):
    """Torch's folder of weights, and torchvision's table pointing to the server on this machine."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(ENTRY, "_value_", replace(ENTRY.value, url=f"{server.url}/models/{published.name}"))
    return tmp_path / "hub" / "checkpoints"


def test_weights_that_torchvision_has_brought_are_used(server: Server, published, cache):
    """They are looked up in its cache and not fetched again; their meta data give the class names."""
    cache.mkdir(parents=True)
    (cache / published.name).write_bytes(published.content)
    subject = load_model("torchvision:squeezenet1_1", weights="IMAGENET1K_V1")
    assert server.asked == []
    assert (len(subject.classes), subject.classes[0]) == (1000, "tench")
    assert (subject.preprocess.resize, subject.preprocess.crop) == (256, (224, 224))
    assert (subject.preprocess.mean, subject.preprocess.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_weights_come_through_breaks_and_only_once(server: Server, published, cache):
    """The connection breaks twice and is taken up; torchvision finds the file as well, and so does the next call."""
    server.at(f"/models/{published.name}", serving(published.content, drops=[1_000_000, 1_000_000]))
    heard = Heard()
    first = load_model("torchvision:squeezenet1_1", weights="DEFAULT", progress=heard)
    assert [headers.get("Range") for _, headers in server.asked] == [None, "bytes=1000000-", "bytes=2000000-"]
    assert heard.names == [f"{published.name} {round(4.729 * 2**20)}"]  # torchvision's rounded size
    assert heard.count == len(published.content)
    assert [path.name for path in cache.iterdir()] == [published.name]
    again = load_model("torchvision:squeezenet1_1", weights="IMAGENET1K_V1")
    theirs = ENTRY.get_state_dict(progress=False, check_hash=True)
    assert len(server.asked) == 3
    assert again.fingerprint == first.fingerprint
    assert all(torch.equal(value, theirs[name]) for name, value in first.module.state_dict().items())


def test_wrong_bytes_are_not_kept(server: Server, published, cache):
    """The digits in the file name are the first of its SHA-256; what does not have them does not get the name."""
    server.at(f"/models/{published.name}", serving(published.content[::-1]))
    with pytest.raises(WeightsError, match=r"another content: sha256 is [0-9a-f]{64}, expected [0-9a-f]{8}\.\.\."):
        load_model("torchvision:squeezenet1_1", weights="DEFAULT")
    assert list(cache.iterdir()) == []


def test_another_file_of_that_name_is_not_taken_for_it(server: Server, published, cache):
    """A torn copy, say: it is neither used nor overwritten, and the message says what to do."""
    cache.mkdir(parents=True)
    (cache / published.name).write_bytes(published.content[:-1])
    with pytest.raises(
        WeightsError, match=r"(?s)another content; expected about 5\.0 MB, sha256 .*--weights PATH"
    ) as caught:
        load_model("torchvision:squeezenet1_1", weights="DEFAULT")
    assert str(cache / published.name) in str(caught.value)
    assert (server.asked, (cache / published.name).stat().st_size) == ([], len(published.content) - 1)


def test_offline_says_which_file_to_put_where(server: Server, published, cache):
    """The address, the size as far as it is known, the checksum and the place; brought there by hand, it is used."""
    server.at(f"/models/{published.name}", status(503))
    with pytest.raises(WeightsError) as caught:
        load_model("torchvision:squeezenet1_1", weights="DEFAULT")
    for words in (
        f"{published.name} could not be fetched",
        "503",
        f"{server.url}/models/{published.name}",
        "about 5.0 MB, sha256",
        str(cache / published.name),
        "--weights PATH",
    ):
        assert words in str(caught.value)
    (cache / published.name).write_bytes(published.content)
    assert load_model("torchvision:squeezenet1_1", weights="DEFAULT").not_loaded == ()


def test_a_cache_that_cannot_be_written(cache):
    """A file where the folder should be: the disk is to blame, not the weights."""
    cache.parent.write_text("in the way")
    with pytest.raises(StorageError, match=r"(?s)cannot be written.*--weights PATH"):
        load_model("torchvision:squeezenet1_1", weights="DEFAULT")
