"""Files are read exactly, and whatever is torn, foreign or hostile is refused with the file's name."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from neuronscope.data import formats
from neuronscope.data.formats import (
    CIFAR_ROWS,
    find_member,
    fingerprint_files,
    image_names,
    read_cifar_binary,
    read_cifar_pickle,
    read_idx,
    read_image,
)
from neuronscope.errors import DataError

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    """An array of bytes as an IDX file."""
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


IMAGES = RNG.integers(0, 256, (5, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_is_read_back_gzipped_or_not(tmp_path, pack):
    """The array comes back whatever the file is called."""
    file = tmp_path / "any-name"
    file.write_bytes(pack(idx_bytes(IMAGES)))
    assert np.array_equal(read_idx(file, dimensions=3), IMAGES)


@given(st.floats(0, 1, exclude_max=True), st.booleans())
def test_a_torn_idx_file_is_refused_wherever_it_is_torn(where, packed):
    """Every proper beginning of a file is refused, and the message names the file."""
    content = gzip.compress(idx_bytes(IMAGES)) if packed else idx_bytes(IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "torn-ubyte"
        file.write_bytes(content[: int(where * len(content))])
        with pytest.raises(DataError, match="torn-ubyte' cannot be read"):
            read_idx(file, dimensions=3)


def test_a_header_of_absurd_size_is_refused(tmp_path):
    """A torn header that announces exabytes is a torn file, not an attempt to read them."""
    file = tmp_path / "images"
    file.write_bytes(bytes((0, 0, 8, 3)) + b"\xff" * 12 + b"some pixels")
    with pytest.raises(DataError, match="announces"):
        read_idx(file, dimensions=3)


@given(st.integers(0, len(gzip.compress(idx_bytes(IMAGES), mtime=0)) - 1), st.integers(1, 255))
def test_a_flipped_byte_never_gives_other_pixels(position, change):
    """A damaged gzip file is refused, or the damage was in a part of the header that does not matter."""
    content = bytearray(gzip.compress(idx_bytes(IMAGES), mtime=0))
    content[position] ^= change
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "damaged"
        file.write_bytes(content)
        try:
            assert np.array_equal(read_idx(file, dimensions=3), IMAGES)
        except DataError as refusal:
            assert "damaged" in str(refusal)  # noqa: PT017 either outcome is right


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (idx_bytes(IMAGES) + b"x", "60 bytes .*got more"),
        (idx_bytes(IMAGES[0]), "magic number 0x00000802"),
        (b"<html><body>not found</body></html>", "magic number"),
        (idx_bytes(IMAGES[:0]), "without content"),
    ],
    ids=["too long", "other dimensions", "a web page", "empty"],
)
def test_a_foreign_idx_file_is_refused_with_the_cause(tmp_path, content, cause):
    """The message says what came instead."""
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=cause):
        read_idx(tmp_path / "file", dimensions=3)


def cifar_arrays() -> tuple[np.ndarray, np.ndarray]:
    """10,000 images that differ, with labels 0 to 9."""
    pixels = np.zeros((CIFAR_ROWS, 3, 32, 32), dtype=np.uint8)
    pixels[:, :, 0, 0] = np.arange(CIFAR_ROWS)[:, None] % 251 + np.arange(3)
    return pixels, np.arange(CIFAR_ROWS) % 10


def cifar_pickle(protocol: int = 2, **changed: object) -> bytes:
    """A Python batch of CIFAR-10."""
    pixels, labels = cifar_arrays()
    fields = {b"batch_label": b"testing batch", b"labels": labels.tolist(), b"data": pixels.reshape(CIFAR_ROWS, -1)}
    return pickle.dumps({**fields, **{key.encode(): value for key, value in changed.items()}}, protocol=protocol)


def test_both_forms_of_cifar_give_the_same_arrays():
    """Binary records and Python batches hold channel-major pixels."""
    pixels, labels = cifar_arrays()
    records = np.concatenate([labels[:, None].astype(np.uint8), pixels.reshape(CIFAR_ROWS, -1)], axis=1)
    for images, numbers in (
        read_cifar_binary(records.tobytes(), file="f"),
        read_cifar_pickle(cifar_pickle(), file="f"),
        read_cifar_pickle(cifar_pickle(protocol=4), file="f"),
    ):
        assert np.array_equal(images, pixels)
        assert np.array_equal(numbers, labels)


def test_a_batch_written_by_python_2_is_read():
    """The original files: texts without unicode, numpy's old module names, type and state as byte strings."""
    body = b"\x07" * (CIFAR_ROWS * 3072)
    content = (
        b"\x80\x02}(U\x06labels](" + b"K\x03" * CIFAR_ROWS + b"eU\x04data"
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01M\x10'M\x00\x0c\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89T" + len(body).to_bytes(4, "little") + body + b"tbu."
    )
    images, labels = read_cifar_pickle(content, file="data_batch_1")
    assert images.shape == (CIFAR_ROWS, 3, 32, 32)
    assert set(images.ravel().tolist()) == {7}
    assert set(labels.tolist()) == {3}


class Hostile:
    """Pickles into a call that leaves a trace."""

    def __init__(self, function: object, *arguments: object) -> None:
        """Remember what to call."""
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """What the unpickler is told to call."""
        return self.call


def test_a_hostile_pickle_is_refused_and_does_not_run(tmp_path):
    """Whatever a batch asks to be called is not called; the message says so."""
    trace = tmp_path / "trace"
    calls = [
        Hostile(os.mkdir, str(trace)),
        Hostile(eval, f"__import__('os').mkdir({str(trace)!r})"),
        Hostile(getattr, "text", "upper"),
        Hostile(np.fromfile, str(trace)),
        Hostile(bytearray, 10),
    ]
    for call in calls:
        for protocol in (0, 2, 5):
            with pytest.raises(DataError, match=r"'test_batch' cannot be read.*refused"):
                read_cifar_pickle(pickle.dumps({b"data": call}, protocol=protocol), file="test_batch")
    assert not trace.exists()


@given(st.binary(max_size=200))
def test_any_bytes_as_a_pickle_are_refused(content):
    """Nothing but a complete batch gets through, and nothing but a `DataError` comes out."""
    with pytest.raises(DataError):
        read_cifar_pickle(content, file="batch")


@given(st.floats(0, 1, exclude_max=True))
def test_a_torn_batch_is_refused(where):
    """A pickle that ends early gives no images."""
    content = cifar_pickle()
    with pytest.raises(DataError, match="torn or foreign pickle"):
        read_cifar_pickle(content[: int(where * len(content))], file="batch")


@pytest.mark.parametrize(
    "changed",
    [
        {"labels": [0, 1]},
        {"labels": ["cat"] * CIFAR_ROWS},
        {"data": np.zeros((3, 3072), dtype=np.uint8)},
        {"data": np.zeros((CIFAR_ROWS, 384), dtype=np.float64)},
        {"data": np.asfortranarray(np.zeros((CIFAR_ROWS, 3072), dtype=np.uint8))},
    ],
    ids=["few labels", "texts as labels", "few images", "not bytes", "by columns"],
)
def test_a_batch_of_another_form_is_refused(changed):
    """Labels and pixels must be what the documentation of CIFAR-10 says."""
    with pytest.raises(DataError, match="no such"):
        read_cifar_pickle(cifar_pickle(**changed), file="batch")


def test_a_torn_binary_batch_is_refused():
    """Also when it ends exactly between two images."""
    with pytest.raises(DataError, match=r"expected 30,730,000 bytes.*got 3,073"):
        read_cifar_binary(bytes(3073), file="test_batch.bin")


def test_members_are_found_plain_gzipped_and_in_archives(tmp_path):
    """The content is the same from all three; what is torn is refused by name."""
    assert find_member(tmp_path, ["a.bin"], archives=["all.tar.gz"]) is None
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("inner/a.bin")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"12345"))
    assert find_member(tmp_path, ["a.bin"], archives=["all.tar.gz"])[1] == b"12345"
    (tmp_path / "all.tar.gz").write_bytes((tmp_path / "all.tar.gz").read_bytes()[:60])
    with pytest.raises(DataError, match=r"all\.tar\.gz"):
        find_member(tmp_path, ["a.bin"], archives=["all.tar.gz"])
    (tmp_path / "a.bin.gz").write_bytes(gzip.compress(b"12345"))
    assert find_member(tmp_path, ["a.bin"])[1] == b"12345"
    (tmp_path / "a.bin.gz").write_bytes(gzip.compress(b"12345")[:-3])
    with pytest.raises(DataError, match=r"a\.bin\.gz"):
        find_member(tmp_path, ["a.bin"])


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3), ("CMYK", 3)]
)
def test_images_of_every_mode_become_grey_or_colour(tmp_path, mode, channels):
    """As PIL converts them: grey stays one channel, everything else is RGB."""
    picture = Image.fromarray(NOISE).convert(mode)
    file = tmp_path / ("image.tiff" if mode == "CMYK" else "image.png")
    picture.save(file)
    expected = np.atleast_3d(np.asarray(Image.open(file).convert("L" if channels == 1 else "RGB")))
    pixels = read_image(file)
    assert pixels.shape == (channels, 40, 30)
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), expected)


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    """PIL warns on the direct way to RGB; the colours are the same."""
    picture = Image.fromarray(NOISE).convert("P")
    picture.save(tmp_path / "image.png", transparency=bytes(range(0, 250, 10)))
    assert torch.equal(
        read_image(tmp_path / "image.png"), torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    )


def test_sixteen_bit_grey_is_scaled_not_cut(tmp_path):
    """65535 is white and 257 is one step above black."""
    deep = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png").flatten().tolist() == [0, 1, 127, 255]


def test_the_orientation_noted_by_a_camera_is_not_applied(tmp_path):
    """As in torchvision's ImageFolder: pixels come as stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(NOISE).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (3, 40, 30)


def jpeg() -> bytes:
    """A complete JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "jpeg")
    return buffer.getvalue()


@given(st.floats(0, 0.95))
def test_a_truncated_jpeg_is_an_error_that_names_it(where):
    """Wherever it is cut (but for the last bytes, which may be padding)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cut.jpg"
        file.write_bytes(jpeg()[: int(where * len(jpeg()))])
        with pytest.raises(DataError, match=r"cut\.jpg' cannot be read: .*--on-error skip"):
            read_image(file)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif.png", "tiff", "webp", "bmp"])
def test_a_text_file_is_no_image(tmp_path, suffix):
    """Whatever it is called."""
    (tmp_path / f"text.{suffix}").write_text("not an image")
    with pytest.raises(DataError, match="cannot identify image"):
        read_image(tmp_path / f"text.{suffix}")


def test_an_absent_image_is_an_error(tmp_path):
    """It may have been deleted since the folder was listed."""
    with pytest.raises(DataError, match="no such file"):
        read_image(tmp_path / "gone.jpg")


def test_an_image_large_enough_to_be_an_attack_is_refused(tmp_path, monkeypatch):
    """PIL's own limit is kept, as an error in place of a warning."""
    Image.fromarray(NOISE).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"large\.png.*(attack|bomb)"):
        read_image(tmp_path / "large.png")


def test_image_names_are_sorted_and_leave_out_what_is_hidden(tmp_path):
    """Capital endings count; hidden files and other files do not."""
    for name in ("b/2.JPEG", "b/1.jpg", "a/deep/x.png", "a/._x.png", ".hidden/y.png", "b/notes.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert image_names(tmp_path) == ["a/deep/x.png", "b/1.jpg", "b/2.JPEG"]
    assert image_names(tmp_path, within="b") == ["b/1.jpg", "b/2.JPEG"]


def test_the_fingerprint_of_files_sees_content_names_labels_and_not_the_place(tmp_path):
    """A copy elsewhere agrees; a changed byte at either end, size, name or label does not."""
    size = 3 * formats.FINGERPRINT_BYTES

    def fingerprint(content: bytes, *, name: str = "x.bmp", label: int = 0, place: str = "one") -> str:
        folder = tmp_path / place
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        return fingerprint_files(folder, [name], np.array([label]), ["a", "b"])

    original = fingerprint(bytes(size))
    assert original == fingerprint(bytes(size), place="two")
    others = {
        fingerprint(b"1" + bytes(size - 1)),
        fingerprint(bytes(size - 1) + b"1"),
        fingerprint(bytes(size + 1)),
        fingerprint(bytes(size), name="y.bmp"),
        fingerprint(bytes(size), label=1),
        fingerprint_files(tmp_path, ["gone.bmp"], np.array([0]), ["a", "b"]),
    }
    assert len(others | {original}) == 7
