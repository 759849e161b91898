"""Files come whole, right and under their name, or not at all, whatever a server does."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.fetching.conftest import CONTENT, QUICK, serving, status

from neuronscope.errors import DataError, InputError, StorageError
from neuronscope.fetching import RemoteFile
from neuronscope.fetching.download import digest, download
from neuronscope.fetching.kaggle import Credentials

RIGHT = hashlib.sha256(CONTENT).hexdigest()
OTHER = CONTENT[::-1]


@dataclass
class Heard:
    """A progress that remembers."""

    calls: list[tuple[str, int]] = field(default_factory=list)

    def start(self, name: str, total: int) -> None:
        """Remember."""
        self.calls.append((name, total))

    def advance(self, images: int) -> None:
        """Remember."""
        self.calls.append(("advance", images))

    def finish(self) -> None:
        """Remember."""
        self.calls.append(("finish", 0))

    @property
    def bytes(self) -> int:
        """All that was counted."""
        return sum(count for call, count in self.calls if call == "advance")


def get(folder: Path, *urls: str, credentials: Credentials | None = None, **facts) -> Heard:
    """Download CONTENT from addresses into a folder as `file.bin`."""
    heard = Heard()
    file = RemoteFile("file.bin", urls, **({"sha256": RIGHT, "size": len(CONTENT)} | facts))
    download(file, folder, progress=heard, patience=QUICK, credentials=credentials)
    assert [path.name for path in folder.iterdir()] == ["file.bin"]
    assert (folder / "file.bin").read_bytes() == CONTENT
    return heard


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"sha256": RIGHT[:8], "size": None},
        {"sha256": None, "md5": hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()},
        {"sha256": None},
        {"sha256": None, "size": None},
    ],
)
def test_a_whole_file(server, tmp_path, facts):
    """By SHA-256, its first digits, MD5, or size alone; every byte is told once."""
    heard = get(tmp_path / "new" / "folder", server.at("/file", serving()), **facts)
    assert heard.calls[0] == ("file.bin", facts.get("size", len(CONTENT)) or 0)
    assert heard.bytes == len(CONTENT)
    assert heard.calls[-1] == ("finish", 0)


@pytest.mark.parametrize("facts", [{}, {"sha256": None, "size": None}])
def test_a_broken_connection_is_taken_up(server, tmp_path, facts):
    """As often as it breaks, as long as each time brings something."""
    drops = [100_000] * 5
    heard = get(tmp_path, server.at("/file", serving(drops=drops)), **facts)
    asked = server.headers("/file")
    starts = [headers.get("Range") for headers in asked]
    assert starts == [None, *(f"bytes={count}00000-" for count in range(1, 6))]
    assert all(headers["If-Range"] == '"1"' for headers in asked[1:])
    assert heard.bytes == len(CONTENT)


def test_a_stopped_download_goes_on_later(server, tmp_path):
    """Another process finds the part and asks for the rest."""
    url = server.at("/file", serving(drops=[200_000, 0, 0]))
    with pytest.raises(DataError, match=r"the connection ended after 200,000 of 512,000 bytes"):
        get(tmp_path, url)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.bin.part", "file.bin.part.json"]
    server.asked.clear()
    assert get(tmp_path, url).bytes == len(CONTENT)
    assert [headers.get("Range") for headers in server.headers("/file")] == ["bytes=200000-"]


def test_a_part_that_is_complete_needs_no_server(server, tmp_path):
    """Stopped between the last byte and the new name."""
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    get(tmp_path, server.at("/file", serving()))
    assert server.asked == []


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("part", [OTHER[:300_000], OTHER, CONTENT + b"more"])
@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_part_of_something_else_is_dropped(server, tmp_path, part, ranges, size):
    """Whatever lies there from before, a good server ends in a good file."""
    (tmp_path / "file.bin.part").write_bytes(part)
    get(tmp_path, server.at("/file", serving(ranges=ranges)), size=size)


@pytest.mark.parametrize("note", ["", "[]", '{"url": 1}'])
def test_a_torn_note_is_no_obstacle(server, tmp_path, note):
    """The note beside the part may be torn as well."""
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    (tmp_path / "file.bin.part.json").write_text(note)
    get(tmp_path, server.at("/file", serving()))


def test_a_server_without_ranges_starts_over(server, tmp_path):
    """It sends all of it again; what is told twice is counted once."""
    heard = get(tmp_path, server.at("/file", serving(ranges=False, drops=[100_000, 300_000])))
    assert len(server.asked) == 3
    assert heard.bytes == len(CONTENT)


def test_a_file_that_changed_meanwhile_starts_over(server, tmp_path):
    """Without a checksum, only the version keeps two halves of different files apart."""
    url = server.at("/file", serving(OTHER, drops=[200_000, 0, 0, 0], etag='"old"'))
    with pytest.raises(DataError):
        get(tmp_path, url, sha256=None)
    server.at("/file", serving(etag='"new"'))
    get(tmp_path, url, sha256=None)


def test_without_checksum_and_version_nothing_is_resumed(server, tmp_path):
    """Nothing would tell whether the pieces belong together."""
    get(tmp_path, server.at("/file", serving(drops=[200_000], etag=None)), sha256=None)
    assert all("Range" not in headers for headers in server.headers("/file"))


def test_redirects_are_followed(server, other, tmp_path):
    """Also to another host, where the rest is asked for as well."""
    there = other.at("/there", serving(drops=[200_000]))
    get(tmp_path, server.at("/file", status(302, {"Location": there})))
    assert [headers.get("Range") for headers in other.headers("/there")] == [None, "bytes=200000-"]


def test_credentials_stay_with_their_host(server, other, tmp_path):
    """They go along within a host, and not to another."""
    there = other.at("/there", serving())
    server.at("/second", status(302, {"Location": there}))
    url = server.at("/file", status(302, {"Location": "/second"}))
    get(tmp_path, url, credentials=Credentials("me", "hidden"))
    assert [headers.get("Authorization") for _, headers in server.asked] == ["Basic bWU6aGlkZGVu"] * 2
    assert [headers.get("Authorization") for _, headers in other.asked] == [None]
    assert "hidden" not in repr(Credentials("me", "hidden"))


def test_credentials_need_a_closed_connection(tmp_path):
    """They are not sent over http to another machine; no connection is made."""
    with pytest.raises(InputError, match="for anyone to read"):
        get(tmp_path, "http://example.org/file", credentials=Credentials("me", "hidden"))


def test_no_step_down_from_https(server):
    """A redirect from https to http is refused; the rule is asked directly, since a server would need a certificate."""
    import urllib.request

    from neuronscope.fetching import download as module

    request = urllib.request.Request("https://127.0.0.1/file")
    with pytest.raises(module._Lasting, match="redirected from https"):
        module._Redirects(request.full_url, None).redirect_request(request, None, 302, "", {}, server.url)


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/file"])
def test_redirects_lead_to_no_file_or_ftp(server, tmp_path, target):
    """A server cannot make this program read a local file."""
    with pytest.raises(DataError, match=r"could not|not allowed|unknown url type"):
        get(tmp_path, server.at("/file", status(302, {"Location": target})))


def test_the_second_mirror_helps(server, tmp_path):
    """After a wrong content, of which nothing stays."""
    wrong, right = server.at("/wrong", serving(OTHER)), server.at("/right", serving())
    get(tmp_path, wrong, right)
    assert [path for path, _ in server.asked] == ["/wrong", "/right"]


def test_all_mirrors_wrong(server, tmp_path):
    """The message says what was expected and what came, for each; nothing is left behind."""
    wrong, gone = server.at("/wrong", serving(OTHER)), server.at("/gone", status(404))
    short = server.at("/short", serving(CONTENT[:-1]))
    with pytest.raises(DataError) as caught:
        get(tmp_path, wrong, gone, short)
    for words in (RIGHT, hashlib.sha256(OTHER).hexdigest(), "404", "511,999 bytes, expected 512,000", gone):
        assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("code", "requests"), [(403, 1), (404, 1), (410, 1), (429, 3), (500, 3), (503, 3)])
def test_refusals(server, tmp_path, code, requests):
    """Only those that may pass are worth asking again."""
    with pytest.raises(DataError, match=f"answers {code}"):
        get(tmp_path, server.at("/file", status(code)))
    assert len(server.asked) == requests


@pytest.mark.parametrize(("code", "words"), [(401, "credentials are not accepted"), (403, "rules .* not accepted")])
def test_refusals_with_an_account(server, tmp_path, code, words):
    """Somebody with an account hears what to do; the key is in no message."""
    with pytest.raises(DataError, match=words) as caught:
        get(tmp_path, server.at("/file", status(code)), credentials=Credentials("me", "hidden"))
    assert "hidden" not in str(caught.value)


def test_no_server(tmp_path):
    """Port 9 of this machine, where nobody listens."""
    with pytest.raises(DataError, match="no connection"):
        get(tmp_path, "http://127.0.0.1:9/file")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (serving(kind="text/html"), "web page"),
        (status(200, {"Transfer-Encoding": "chunked"}), "does not say how long"),
    ],
)
def test_without_a_checksum_the_server_must_be_clear(server, tmp_path, answer, words):
    """A login page, and a file of unknown length, are not stored under the name."""

    def chunked(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"3\r\nabc\r\n0\r\n\r\n")

    url = server.at("/file", chunked if words.startswith("does") else answer)
    with pytest.raises(DataError, match=words):
        get(tmp_path, url, sha256=None, size=None)


def test_a_silent_server_is_given_up(server, tmp_path):
    """It accepts, and never answers."""
    import time

    from neuronscope.fetching.download import Patience

    url = server.at("/file", lambda _: time.sleep(0.5))
    file = RemoteFile("file.bin", (url,), sha256=RIGHT)
    with pytest.raises(DataError, match="no connection"):
        download(file, tmp_path, progress=Heard(), patience=Patience(timeout=0.1, repeats=0, pause=0.0))


def test_a_file_that_is_too_large_is_not_begun(server, tmp_path):
    """The server says how large it is; no disk holds that."""
    with pytest.raises(StorageError, match=r"needs 1,000,000,000.00 GB in .* has .* GB free"):
        get(tmp_path, server.at("/file", serving(length=10**18)), size=None)


def test_a_full_disk_keeps_what_came(server, tmp_path):
    """The largest file this process may write stands in for a full disk; with room, it goes on from there."""
    resource = pytest.importorskip("resource")
    url = server.at("/file", serving())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(StorageError, match=r"no room left .* 300,000 bytes that have arrived are kept in .*\.part"):
            get(tmp_path, url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "file.bin.part").stat().st_size == 300_000
    get(tmp_path, url)
    assert server.headers("/file")[-1]["Range"] == "bytes=300000-"


def test_a_folder_that_cannot_be(server, tmp_path):
    """A file where the folder should be, and a file that is not there."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        get(tmp_path / "file" / "folder", server.at("/file", serving()))
    with pytest.raises(StorageError, match="cannot be read"):
        digest(tmp_path / "gone", "md5")
