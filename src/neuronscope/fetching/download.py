"""One file from the internet to the disk: resumed, checked while it streams, renamed only when it is right.

What arrives goes to `NAME.part`; a note beside it, `NAME.part.json`, says from which address and which version (ETag)
it comes. A broken connection is taken up where it broke; a server that cannot do that starts over. Only the standard
library is used. Whoever listens in is out of scope beyond this: no step from https down to http, and credentials go to
the host they are for, over https, and to no other.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from neuronscope.errors import DataError, InputError, StorageError
from neuronscope.fetching.disk import require_space, storing
from neuronscope.fetching.items import RemoteFile
from neuronscope.fetching.kaggle import Credentials
from neuronscope.run import Progress

PART = ".part"
_NOTE = ".part.json"

_TOO_EARLY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}  # worth asking again, as all 5xx
_SERVER_ERROR = 500
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True)
class Patience:
    """How long to wait for servers.

    Attributes:
        timeout: seconds without an answer or a byte, after which a connection counts as broken.
        repeats: how often to try again without a new byte, before the next address is tried.
        pause: seconds before the first repeat; twice as many before each further one.
        block: bytes read at a time.
    """

    timeout: float = 30.0
    repeats: int = 3
    pause: float = 1.0
    block: int = 1 << 20


class _Passing(Exception):
    """Trying again may help: the connection broke, or the server is busy."""


class _Lasting(Exception):
    """This address will not do."""


class _Torn(_Lasting):
    """What came does not belong together: wrong bytes, or a piece from elsewhere."""


def download(
    file: RemoteFile,
    folder: Path,
    *,
    progress: Progress,
    patience: Patience,
    credentials: Credentials | None = None,
) -> None:
    """Bring a file into a folder, trying its addresses in order; it gets its name when it is complete and right.

    Args:
        file: what to fetch. Without checksum, it is complete when it has as many bytes as the server announced.
        folder: where to; it is made if it is not there.
        progress: hears of bytes.
        patience: how long to wait for servers.
        credentials: sent to the hosts of the file's own addresses, and to none that they redirect to.

    Raises:
        DataError: no address gives the file; the message has the reason for each.
        StorageError: the folder cannot be written to, or is full; what has arrived is kept.
        InputError: credentials would go over an open connection.
    """
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{file.name}{PART}"
    arrived = _Arrived(progress)
    reasons = []
    progress.start(file.name, file.size or file.about or 0)
    try:
        for url in file.urls:
            try:
                _from_address(url, file, part, arrived=arrived, patience=patience, credentials=credentials)
            except (_Lasting, _Passing) as reason:
                reasons.append(f"{url}: {reason}")
                continue
            with storing(part):
                part.replace(folder / file.name)
                _note_of(part).unlink(missing_ok=True)
            return
    finally:
        progress.finish()
    raise DataError("; ".join(reasons))


def digest(path: Path, kind: str) -> str:
    """The checksum of a file, in hexadecimal digits.

    Raises:
        StorageError: it cannot be read.
    """
    return str(_hash_of(path, kind).hexdigest())


class _Arrived:
    """Counts bytes for a progress that cannot go back: what is fetched again is not counted again."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.most = 0

    def reach(self, count: int) -> None:
        if count > self.most:
            self._progress.advance(count - self.most)
            self.most = count


def _from_address(
    url: str,
    file: RemoteFile,
    part: Path,
    *,
    arrived: _Arrived,
    patience: Patience,
    credentials: Credentials | None,
) -> None:
    """Fill the part from one address, until it is whole and right."""
    tries = _Tries(part, patience)
    while True:
        try:
            _stream(url, file, part, arrived=arrived, patience=patience, credentials=credentials)
            return
        except (_Torn, _Passing) as reason:
            if not tries.another(reason):
                raise


class _Tries:
    """Whether to ask an address once more: the one place that counts and waits."""

    def __init__(self, part: Path, patience: Patience) -> None:
        self._part, self._patience = part, patience
        self._most = _size(part)
        self._resumed, self._restarted = self._most > 0, False
        self._repeats = 0  # since the last request that brought something

    def another(self, reason: _Torn | _Passing) -> bool:
        """True when another request is worth it, after the pause that it takes."""
        if isinstance(reason, _Torn):
            _drop(self._part)
            # The piece from before may be to blame rather than this server: once more from the start.
            again = self._resumed and not self._restarted
            self._most, self._resumed, self._restarted, self._repeats = 0, False, True, 0
            return again
        held = _size(self._part)
        # A connection that breaks again and again still gets there, as long as each time brings something.
        self._repeats = self._repeats + 1 if held <= self._most else 1
        self._most, self._resumed = max(self._most, held), held > 0
        if self._repeats > self._patience.repeats:
            return False
        time.sleep(self._patience.pause * 2 ** (self._repeats - 1))
        return True


def _stream(
    url: str,
    file: RemoteFile,
    part: Path,
    *,
    arrived: _Arrived,
    patience: Patience,
    credentials: Credentials | None,
) -> None:
    """One request: the rest of the part, or all of it."""
    held, version = _held(url, file, part)
    kind = file.checksum[0] if file.checksum else "sha256"
    if held and held == file.size:  # all of it had arrived, and then something stopped
        arrived.reach(held)
        _check(file, _hash_of(part, kind).hexdigest())
        return
    with _answer(url, held, version, patience=patience, credentials=credentials) as answer:
        held, total = _place(answer, file, held, version)
        if total is not None:
            require_space(part.parent, total - held, what=file.name)
        _remember(part, url, answer)
        seen = _hash_of(part, kind) if held else hashlib.new(kind, usedforsecurity=False)
        with _writing(part, held) as handle:
            arrived.reach(held)
            for block in _blocks(answer, held, total, count=patience.block):
                seen.update(block)
                _write(block, handle, part)
                held += len(block)
                arrived.reach(held)
    _check(file, seen.hexdigest())


def _hash_of(path: Path, kind: str) -> Any:
    """The checksum of what a file holds, to be continued; the type has a name in type stubs only."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, lambda: hashlib.new(kind, usedforsecurity=False))
    except OSError as cause:
        message = f"'{path}' cannot be read: {cause.strerror or cause}. Move it away, or make it readable"
        raise StorageError(message) from cause


def _held(url: str, file: RemoteFile, part: Path) -> tuple[int, str | None]:
    """How much of the part can be used with an address, and the version that the server must still have."""
    size = _size(part)
    if not size:
        return 0, None
    if file.size is not None and size > file.size:
        return 0, None
    try:
        note = json.loads(_note_of(part).read_text(encoding="utf-8"))
        same = note["url"] == url
        version = str(note["version"]) if note["version"] else None
    except (OSError, ValueError, KeyError, TypeError):
        same, version = False, None
    if same and version:
        return size, version
    # A checksum finds out whether the pieces fit; without one, only the server's word does.
    return (size, None) if file.checksum else (0, None)


def _answer(
    url: str, held: int, version: str | None, *, patience: Patience, credentials: Credentials | None
) -> http.client.HTTPResponse:
    """The server's answer; what goes wrong on the way says whether to try again."""
    # Without "identity", a server may send the file packed once more.
    request = urllib.request.Request(url, headers={"User-Agent": "neuronscope", "Accept-Encoding": "identity"})  # noqa: S310 rows hold http(s) only
    if held:
        request.add_header("Range", f"bytes={held}-")
        if version:
            request.add_header("If-Range", version)
    if credentials is not None:
        _require_safe(url)
        request.add_unredirected_header("Authorization", credentials.header())
    with _connected("no connection"):
        try:
            answer: http.client.HTTPResponse = _opener(url, credentials).open(request, timeout=patience.timeout)
            return answer
        except urllib.error.HTTPError as error:
            with error:
                status = f"the server answers {error.code} {error.reason}"
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise _Torn(status) from error
            if error.code >= _SERVER_ERROR or error.code in _TOO_EARLY:
                raise _Passing(status) from error
            raise _Lasting(_hint(error.code, status, credentials)) from error


@contextmanager
def _connected(what: str) -> Iterator[None]:
    """Say of a connection that fails whether to try again."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)  # URLError wraps what happened
        text = f"{what} ({getattr(reason, 'strerror', None) or reason or type(reason).__name__})"
        # A certificate that does not fit, or a host that is not known, will be no better a second later.
        lasting = isinstance(reason, ssl.SSLCertVerificationError) or (
            isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME
        )
        raise (_Lasting if lasting else _Passing)(text) from error


def _hint(code: int, status: str, credentials: Credentials | None) -> str:
    """What a refusal means for somebody with an account."""
    if credentials is None:
        return status
    if code == HTTPStatus.UNAUTHORIZED:
        return f"{status}: the credentials are not accepted. Create a new API key and put it in place of the old one"
    if code == HTTPStatus.FORBIDDEN:
        return f"{status}: the rules are probably not accepted yet. Log in as '{credentials.user}' and accept them"
    return status


def _place(
    answer: http.client.HTTPResponse, file: RemoteFile, held: int, version: str | None
) -> tuple[int, int | None]:
    """Where the answer begins in the file, and how long the file is as far as the server says."""
    length = answer.headers.get("Content-Length")
    rest = int(length) if length and length.isdecimal() else None
    start, total = 0, rest
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        now = answer.headers.get("ETag")
        if found is None or int(found[1]) != held or (version and now and now != version):
            message = "the server sends another part than was asked for"
            raise _Torn(message)
        start, total = held, int(found[2]) if found[2] != "*" else None
    if file.size is not None and total is not None and total != file.size:
        message = f"the server has {total:,} bytes, expected {file.size:,}"
        raise _Lasting(message)
    if file.checksum is None:
        if answer.headers.get_content_type() == "text/html":
            message = "the server sends a web page in place of the file"
            raise _Lasting(message)
        if total is None:
            message = "the server does not say how long the file is, so that a torn one could not be told"
            raise _Lasting(message)
    return start, total if total is not None else file.size


def _blocks(answer: http.client.HTTPResponse, held: int, total: int | None, *, count: int) -> Iterator[bytes]:
    """The bytes of the answer; a broken connection is a reason to try again."""
    while True:
        with _connected("the connection broke"):
            block = answer.read(count)
        held += len(block)
        if total is not None and held > total:
            message = f"the server sends more than {total:,} bytes"
            raise _Torn(message)
        if not block:
            break
        yield block
    if total is not None and held < total:
        message = f"the connection ended after {held:,} of {total:,} bytes"
        raise _Passing(message)


def _write(block: bytes, handle: IO[bytes], part: Path) -> None:
    rest = memoryview(block)
    with storing(part):
        while rest:  # a disk that is nearly full takes some of it, and refuses the rest
            rest = rest[handle.write(rest) :]


def _check(file: RemoteFile, found: str) -> None:
    """Compare what came with the checksum."""
    if file.checksum is None:
        return
    kind, expected = file.checksum
    if not found.startswith(expected):
        dots = "..." if len(found) > len(expected) else ""
        message = f"another content: {kind} is {found}, expected {expected}{dots}"
        raise _Torn(message)


def _drop(part: Path) -> None:
    """Take away what has arrived."""
    with storing(part):
        part.unlink(missing_ok=True)
        _note_of(part).unlink(missing_ok=True)


@contextmanager
def _writing(part: Path, held: int) -> Iterator[IO[bytes]]:
    """The part, open at its end, or at its start when nothing of it is kept; on the disk when it is closed."""
    # Unbuffered: what a full disk refuses is refused here, and not when the file is closed.
    with storing(part):
        handle = part.open("ab" if held else "wb", buffering=0)
    try:
        yield handle
        with storing(part):
            os.fsync(handle.fileno())
    finally:
        handle.close()


def _note_of(part: Path) -> Path:
    return part.with_name(part.name.removesuffix(PART) + _NOTE)


def _remember(part: Path, url: str, answer: http.client.HTTPResponse) -> None:
    """Note which version of which address the part comes from; weak ones do not resume (RFC 9110, section 13.1.5)."""
    version = answer.headers.get("ETag", "")
    note = {"url": url, "version": version if version.startswith('"') else None}
    with storing(part):
        _note_of(part).write_text(json.dumps(note), encoding="utf-8")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _require_safe(url: str) -> None:
    """Refuse to send credentials over an open connection; this machine itself is no way to listen."""
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        message = f"credentials would go to {parts.scheme}://{parts.hostname} for anyone to read: expected https://"
        raise InputError(message)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, except from https to http; credentials stay with the host they are for."""

    def __init__(self, url: str, credentials: Credentials | None) -> None:
        self._home, self._credentials = _origin(url), credentials

    def redirect_request(  # noqa: PLR0917 urllib calls it so
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The request to make next; `Authorization` is not among the headers that urllib takes along."""
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            message = f"redirected from https to {newurl.partition('?')[0]}, which is not followed"
            raise _Lasting(message)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and self._credentials is not None and _origin(newurl) == self._home:
            following.add_unredirected_header("Authorization", self._credentials.header())
        return following


def _opener(url: str, credentials: Credentials | None) -> urllib.request.OpenerDirector:
    """An opener for http and https alone: no files, no ftp, no data in the address."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(url, credentials),
    ):
        opener.add_handler(handler)
    return opener
