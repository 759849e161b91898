"""Archives unpack inside their folder, completely, or write nothing at all."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from neuronscope.errors import DataError, StorageError
from neuronscope.fetching.unpack import unpack

GOOD = {"top/a.txt": b"a" * 1000, "top/below/b.txt": b"b" * 2000, "c.txt": b""}


def make_tar(path: Path, files: dict[str, bytes], *entries: tarfile.TarInfo) -> Path:
    """A gzipped tar of files, with more entries at its end."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for entry in entries:
            archive.addfile(entry)
    return path


def make_zip(path: Path, files: dict[str, bytes], modes: dict[str, int] | None = None) -> Path:
    """A zip of files, some with a mode of their own."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (modes or {}).get(name, 0) << 16
            archive.writestr(info, content)
    return path


MAKERS = {"tar": make_tar, "zip": make_zip}


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder inside another, so that what leaves it is seen."""
    folder = tmp_path / "outer" / "inner"
    folder.mkdir(parents=True)
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    """All files around a place, but the archive."""
    top = folder.parents[1]
    return {
        path.relative_to(top).as_posix(): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file() and not path.name.startswith("archive")
    }


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A tar entry that is no file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_good_archives(place, kind):
    """Files and folders come out; unpacking again changes nothing."""
    archive = MAKERS[kind](place / "archive", GOOD)
    for _ in range(2):
        done = unpack(archive, place, kind=kind, limit=3000)
        assert (done.files, done.size, sorted(done.tops)) == (3, 3000, ["c.txt", "top"])
        assert everything(place) == {f"outer/inner/{name}": content for name, content in GOOD.items()}


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize(
    "name",
    ["../out.txt", "top/../../out.txt", "/root-of-all/out.txt", "..", "C:/out.txt", "a\\..\\..\\out.txt", "//host/out"],
)
def test_names_that_lead_out(place, kind, name):
    """Refused by name, with nothing written, also of the entries before it."""
    archive = MAKERS[kind](place / "archive", GOOD | {name: b"out"})
    with pytest.raises(DataError, match=r"is not unpacked: its entry .* (leads out|has no name)"):
        unpack(archive, place, kind=kind, limit=10_000)
    assert everything(place) == {}


@pytest.mark.parametrize(
    "bad",
    [
        entry("link", tarfile.SYMTYPE, "/etc"),
        entry("link", tarfile.SYMTYPE, "c.txt"),
        entry("hard", tarfile.LNKTYPE, "../../secret"),
        entry("pipe", tarfile.FIFOTYPE),
        entry("disk", tarfile.BLKTYPE),
    ],
)
def test_links_and_devices_in_tar(place, bad):
    """None is made, wherever it leads."""
    archive = make_tar(place / "archive", GOOD, bad)
    with pytest.raises(DataError, match=r"is a (link|device)"):
        unpack(archive, place, kind="tar", limit=10_000)
    assert everything(place) == {}


def test_links_in_zip(place):
    """The mode of an entry makes it a link."""
    archive = make_zip(place / "archive", GOOD | {"link": b"/etc"}, {"link": stat.S_IFLNK | 0o777})
    with pytest.raises(DataError, match="is a link"):
        unpack(archive, place, kind="zip", limit=10_000)
    assert everything(place) == {}


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_links_that_were_there(place, kind, tmp_path):
    """A link in the folder is no way out, neither as folder nor as file."""
    archive = MAKERS[kind](place / "archive", GOOD)
    (tmp_path / "elsewhere").mkdir()
    (place / "top").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="through a link"):
        unpack(archive, place, kind=kind, limit=10_000)
    (place / "top").unlink()
    (place / "c.txt").symlink_to(tmp_path / "elsewhere" / "c.txt")
    with pytest.raises(DataError, match="overwrite another file"):
        unpack(archive, place, kind=kind, limit=10_000)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_other_files_are_not_overwritten(place, kind):
    """Neither one of another size, which stops everything, nor one of the same."""
    archive = MAKERS[kind](place / "archive", GOOD)
    (place / "c.txt").write_bytes(b"mine")
    with pytest.raises(DataError, match="would overwrite another file"):
        unpack(archive, place, kind=kind, limit=10_000)
    assert everything(place) == {"outer/inner/c.txt": b"mine"}
    (place / "c.txt").unlink()
    (place / "top").mkdir()
    (place / "top" / "a.txt").write_bytes(b"z" * 1000)
    with pytest.raises(DataError, match="is there already and differs"):
        unpack(archive, place, kind=kind, limit=10_000)
    assert (place / "top" / "a.txt").read_bytes() == b"z" * 1000


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_too_much_content(place, kind):
    """An archive that grows beyond its limit is found out before it is written."""
    archive = MAKERS[kind](place / "archive", GOOD | {"bomb": bytes(5_000_000)})
    assert archive.stat().st_size < 100_000
    with pytest.raises(DataError, match="over the limit of 5,000"):
        unpack(archive, place, kind=kind, limit=5000)
    assert everything(place) == {}


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_torn_archives(place, kind, share):
    """Wherever they are torn; no torn file gets its name."""
    import random

    files = {f"top/{number}": random.Random(number).randbytes(20_000) for number in range(5)}  # noqa: S311 any bytes
    archive = MAKERS[kind](place / "archive", files)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(archive, place, kind=kind, limit=1_000_000)
    assert everything(place) == {}


def test_a_flipped_byte_in_a_zip(place):
    """The entry's own checksum finds it; the file does not get its name."""
    archive = make_zip(place / "archive", {"a.txt": b"a" * 1000})
    content = bytearray(archive.read_bytes())
    content[content.index(b"a.txt") + 6] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(archive, place, kind="zip", limit=1_000_000)
    assert everything(place) == {}


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_full_disk_keeps_the_archive(place, kind):
    """The largest file this process may write stands in for a full disk; no torn file gets its name."""
    resource = pytest.importorskip("resource")
    archive = MAKERS[kind](place / "archive", {"a.txt": b"a" * 100, "b.txt": b"b" * 200_000})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageError, match=r"no room left in .*The archive .* kept\. Make room and repeat"):
            unpack(archive, place, kind=kind, limit=1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert everything(place) == {"outer/inner/a.txt": b"a" * 100}
    assert unpack(archive, place, kind=kind, limit=1_000_000).files == 2
