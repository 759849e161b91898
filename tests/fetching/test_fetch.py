"""`fetch` and `neuronscope fetch`: what is there stays, what is missing comes, and messages say what to do."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from tests.fetching.conftest import CONTENT, QUICK, serving, status
from typer.testing import CliRunner

import neuronscope as ns
from neuronscope.errors import DataError, InputError, StorageError
from neuronscope.faces.cli.app import app
from neuronscope.fetching import FETCHABLE, Fetchable, RemoteFile, fetch


def file_of(content: bytes, name: str, *urls: str, **facts) -> RemoteFile:
    """A row for some content."""
    return RemoteFile(name, urls, **({"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)} | facts))


def packed() -> bytes:
    """A small archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo("inside/a.txt")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"hello"))
    return out.getvalue()


@pytest.fixture
def item(server) -> Fetchable:
    """One plain file and one archive."""
    archive = packed()
    return Fetchable(
        name="thing",
        what="a thing",
        kind="data",
        files=(
            file_of(CONTENT, "plain.bin", server.at("/plain", serving())),
            file_of(archive, "packed.tgz", server.at("/packed", serving(archive)), unpack="tar", unpack_limit=100),
        ),
        licence="free",
        page="https://example.org",
        then="neuronscope data show folder:{folder}",
    )


def states(done: ns.Fetched) -> list[str]:
    """How its files stand."""
    return [state.state for state in done.files]


def names(folder) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_fetch_and_again(server, item, tmp_path):
    """Once it is there, it is only checked."""
    done = fetch(item, to=tmp_path, patience=QUICK)
    assert states(done) == ["fetched", "fetched"]
    assert done.unpacked["packed.tgz"].files == 1
    assert (tmp_path / "inside" / "a.txt").read_text() == "hello"
    assert names(tmp_path) == ["inside", "packed.tgz", "packed.tgz.unpacked.json", "plain.bin"]
    assert done.then == f"neuronscope data show folder:{tmp_path}"
    server.asked.clear()
    again = fetch(item, to=tmp_path, patience=QUICK)
    assert states(again) == ["there", "there"]
    assert (dict(again.unpacked), server.asked) == ({}, [])


def test_an_archive_may_be_removed_once_unpacked(server, item, tmp_path):
    """Its content counts, as long as it is there."""
    fetch(item, to=tmp_path, patience=QUICK)
    (tmp_path / "packed.tgz").unlink()
    assert states(fetch(item, to=tmp_path, patience=QUICK)) == ["there", "there"]
    (tmp_path / "inside" / "a.txt").unlink()
    (tmp_path / "inside").rmdir()
    assert states(fetch(item, to=tmp_path, patience=QUICK)) == ["there", "fetched"]
    assert (tmp_path / "inside" / "a.txt").read_text() == "hello"
    assert [path for path, _ in server.asked] == ["/plain", "/packed", "/packed"]


def test_a_plan_touches_nothing(server, item, tmp_path):
    """Neither the network nor the disk; it says what is there."""
    assert states(fetch(item, to=tmp_path / "new", action="plan")) == ["absent", "absent"]
    assert not (tmp_path / "new").exists()
    (tmp_path / "plain.bin.part").write_bytes(b"abc")
    (tmp_path / "packed.tgz").write_bytes(b"mine")
    planned = fetch(item, to=tmp_path, action="plan")
    assert [(state.state, state.held) for state in planned.files] == [("partial", 3), ("other", 4)]
    assert names(tmp_path) == ["packed.tgz", "plain.bin.part"]
    assert server.asked == []


def test_a_file_of_somebody_else_is_left_alone(server, item, tmp_path):
    """Same name, other content: nothing is fetched, nothing overwritten."""
    (tmp_path / "plain.bin").write_bytes(CONTENT[::-1])
    with pytest.raises(
        DataError, match=r"plain\.bin' \(512,000 bytes\): .*another content; expected .* sha256 .*choose another folder"
    ):
        fetch(item, to=tmp_path)
    assert (tmp_path / "plain.bin").read_bytes() == CONTENT[::-1]
    assert server.asked == []


def test_offline_says_what_to_put_where(item, tmp_path):
    """Every missing file, its address and its place, in one message."""
    away = replace(item, files=tuple(replace(file, urls=(f"http://127.0.0.1:9/{file.name}",)) for file in item.files))
    with pytest.raises(DataError) as caught:
        fetch(away, to=tmp_path, patience=QUICK)
    for file in away.files:
        for words in (file.urls[0], str(tmp_path / file.name), file.sha256):
            assert words in str(caught.value)
    assert "no connection" in str(caught.value)
    (tmp_path / "plain.bin").write_bytes(CONTENT)
    (tmp_path / "packed.tgz").write_bytes(packed())
    done = fetch(away, to=tmp_path, patience=QUICK)
    assert (states(done), done.unpacked["packed.tgz"].files) == (["there", "there"], 1)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"size": None, "about": 531_460_000}, r"plain\.bin \(about 531\.5 MB, sha256 "),
        ({"size": None}, r"plain\.bin \(size unknown, sha256 "),
        ({"size": 7, "sha256": None}, r"plain\.bin \(7 bytes, checksum unknown\)"),
    ],
)
def test_what_is_not_known_is_said(item, tmp_path, facts, words):
    """A size that is rounded, and a size or checksum that nobody publishes."""
    file = replace(item.files[0], urls=("http://127.0.0.1:9/plain",), **facts)
    with pytest.raises(DataError, match=words):
        fetch(replace(item, files=(file,)), to=tmp_path, patience=QUICK)


def test_two_at_once(server, item, tmp_path):
    """The second waits for the first, and then finds the file there: their bytes do not mix."""
    slow = threading.Event()

    def waiting(handler):
        slow.wait(timeout=5)
        serving()(handler)

    server.at("/plain", waiting)
    one = replace(item, files=item.files[:1])
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(fetch, one, to=tmp_path, patience=QUICK) for _ in range(2)]
        time.sleep(0.2)
        slow.set()
        done = [states(future.result()) for future in both]
    assert done == [["fetched"]] * 2
    assert (tmp_path / "plain.bin").read_bytes() == CONTENT
    if importlib.util.find_spec("fcntl"):
        assert [path for path, _ in server.asked] == ["/plain"]


def test_a_harmful_archive_is_kept_and_not_unpacked(server, tmp_path):
    """It has the right checksum, and still nothing gets out of the folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../out.txt"))
    file = file_of(out.getvalue(), "bad.tar", server.at("/bad", serving(out.getvalue())), unpack="tar", unpack_limit=9)
    bad = replace(FETCHABLE["mnist"], files=(file,))
    for _ in range(2):
        with pytest.raises(DataError, match="leads out of the folder"):
            fetch(bad, to=tmp_path / "in", patience=QUICK)
    assert names(tmp_path) == ["in"]
    assert names(tmp_path / "in") == ["bad.tar"]


def test_too_little_room(server, item, tmp_path):
    """Nothing is asked for that has no place."""
    huge = replace(item, files=(replace(item.files[0], size=10**18),))
    with pytest.raises(StorageError, match=r"thing needs 1,000,000,000\.00 GB"):
        fetch(huge, to=tmp_path / "new")
    assert (server.asked, (tmp_path / "new").exists()) == ([], False)


@pytest.fixture
def kaggle(server, other, monkeypatch, tmp_path) -> Fetchable:
    """Something that takes an account, which redirects to another host as Kaggle does."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    there = other.at("/signed", serving(drops=[200_000]))
    file = RemoteFile("all.zip", (server.at("/api", status(302, {"Location": there})),))
    return replace(FETCHABLE["imagenet"], name="thing", files=(file,))


def test_kaggle_without_credentials(server, kaggle, tmp_path):
    """The message says where they are looked for and how to get them; half of them is none."""
    with pytest.raises(InputError, match=r"no Kaggle credentials: .*\.kaggle/kaggle\.json.*KAGGLE_KEY"):
        fetch(kaggle, to=tmp_path / "in", patience=QUICK)
    assert (server.asked, (tmp_path / "in").exists()) == ([], False)


def test_kaggle_with_half_or_torn_credentials(kaggle, monkeypatch, tmp_path):
    """No part of the key is in a message."""
    folder = tmp_path / "home" / ".kaggle"
    folder.mkdir(parents=True)
    (folder / "kaggle.json").write_text('{"username": "me", "key": "hid')
    with pytest.raises(DataError, match="cannot be read as credentials") as caught:
        fetch(kaggle, to=tmp_path / "in", patience=QUICK)
    assert "hid" not in str(caught.value).replace(str(tmp_path), "")
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    with pytest.raises(InputError, match="KAGGLE_KEY is not set"):
        fetch(kaggle, to=tmp_path / "in", patience=QUICK)


@pytest.mark.parametrize("where", ["environment", "file"])
def test_kaggle_with_credentials(server, other, kaggle, monkeypatch, tmp_path, where):  # noqa: PLR0917 fixtures
    """They go to Kaggle, and not to where it redirects; the rest of a broken file is asked for through it again."""
    if where == "environment":
        monkeypatch.setenv("KAGGLE_USERNAME", "me")
        monkeypatch.setenv("KAGGLE_KEY", "hidden")
    else:
        folder = tmp_path / "home" / ".kaggle"
        folder.mkdir(parents=True)
        (folder / "kaggle.json").write_text(json.dumps({"username": "me", "key": "hidden"}))
    assert states(fetch(kaggle, to=tmp_path / "in", patience=QUICK)) == ["fetched"]
    assert (tmp_path / "in" / "all.zip").read_bytes() == CONTENT
    assert [headers["Authorization"] for headers in server.headers("/api")] == ["Basic bWU6aGlkZGVu"] * 2
    assert all("Authorization" not in headers for _, headers in other.asked)
    assert other.asked[-1][1]["Range"] == "bytes=200000-"


def test_kaggle_without_the_rules(server, kaggle, monkeypatch, tmp_path):
    """403: the message says to accept them, and where."""
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    monkeypatch.setenv("KAGGLE_KEY", "hidden")
    server.at("/api", status(403))
    with pytest.raises(DataError, match=r"rules are probably not accepted.*'me'") as caught:
        fetch(kaggle, to=tmp_path / "in", patience=QUICK)
    assert kaggle.page in str(caught.value)
    assert "hidden" not in str(caught.value)


def command(*arguments: str) -> tuple[int, str]:
    """Exit code and output of `neuronscope fetch`."""
    done = CliRunner().invoke(app, ["fetch", *arguments], env={"COLUMNS": "200"})
    return done.exit_code, done.output


def test_command_fetches(item, tmp_path, monkeypatch):
    """It says what it is, where it went, under which terms, and what to do next."""
    monkeypatch.setitem(FETCHABLE, "thing", item)
    code, said = command("thing", "--to", str(tmp_path / "in"))
    assert code == 0, said
    for words in ("a thing", "licence  free", str(tmp_path / "in"), "plain.bin: 512.0 kB in", "unpacked 1 files"):
        assert words in said
    assert f"next     neuronscope data show folder:{tmp_path / 'in'}" in said
    code, said = command("thing", "--to", str(tmp_path / "in"), "--quiet")
    assert (code, said.count("there already")) == (0, 2)


def test_command_plans(item, tmp_path, monkeypatch, server):
    """`--dry-run` names addresses, sizes, the folder and what is there; nothing is touched."""
    monkeypatch.setitem(FETCHABLE, "thing", item)
    tmp_path.joinpath("plain.bin.part").write_bytes(bytes(1000))
    code, said = command("thing", "--to", str(tmp_path), "--dry-run")
    assert code == 0, said
    for words in (item.files[0].urls[0], "512.0 kB  to continue, 1.0 kB are there", "to fetch"):
        assert words in said
    assert (names(tmp_path), server.asked) == (["plain.bin.part"], [])


def test_command_lists():
    """Every name with its size; `imagenet` says whose account it takes."""
    code, said = command("--list")
    assert code == 0
    for name in FETCHABLE:
        assert name in said
    for words in ("11.6 MB", "resnet18-5c106cde.pth", "with your own Kaggle account"):
        assert words in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("minst",), "Closest: 'mnist'"), ((), "fetch what?"), (("imagenet", "--to", "in"), "no Kaggle credentials")],
)
def test_command_refuses(arguments, words, monkeypatch, tmp_path):
    """One message and exit code 2."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code, said = command(*arguments)
    assert code == 2
    assert words in said
    assert "Traceback" not in said


def test_command_offline(item, tmp_path, monkeypatch):
    """Exit code 2, and the message names file, address and place."""
    file = replace(item.files[0], urls=("http://127.0.0.1:9/plain",))
    monkeypatch.setitem(FETCHABLE, "thing", replace(item, files=(file,)))
    monkeypatch.setattr("time.sleep", lambda _: None)
    code, said = command("thing", "--to", str(tmp_path))
    assert code == 2
    for words in ("no connection", "http://127.0.0.1:9/plain", str(tmp_path / "plain.bin")):
        assert words in said


def test_default_folders(monkeypatch, tmp_path):
    """Data beside the project, weights where torch looks for them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert str(fetch("cifar10", action="plan").folder) == "data/cifar10"
    assert fetch("resnet18", action="plan").folder == tmp_path / "hub" / "checkpoints"
