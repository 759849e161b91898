"""The original file formats of image data sets, read with suspicion: IDX, CIFAR-10, folders of image files.

A file may be torn, foreign or hostile; each such case is a `DataError` that names the file and the cause. Nothing here
knows of splits or class names (`sources`), nor of networks.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import pickle
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from neuronscope.errors import DataError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of image files; capital letters do not matter."""

IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What an image file may hold, whatever its name says; PIL knows more, some of which start other programs."""

LARGEST_IDX = 2**33
"""Bytes; a header that announces more is torn. MNIST's training images are 47 million."""

GZIP_MAGIC = b"\x1f\x8b"
IDX_UNSIGNED_BYTE = 0x08
CIFAR_ROWS = 10_000
"""Images in each of the six files of CIFAR-10."""
CIFAR_SHAPE = (3, 32, 32)
FINGERPRINT_BYTES = 4096
"""How much of the beginning and of the end of an image file enters the fingerprint of its folder."""


def read_idx(path: Path, *, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """The array in an IDX file of unsigned bytes, gzipped or not (told by content, not by name).

    Source: the format description of the MNIST distribution (LeCun, Cortes & Burges).

    Args:
        path: the file.
        dimensions: 3 for images, 1 for labels.

    Raises:
        DataError: the file is absent, torn, of another kind, or longer than its header says.
    """
    expected = f"an IDX file of unsigned bytes with {dimensions} dimension{'s' if dimensions > 1 else ''}"
    try:
        with path.open("rb") as raw:
            packed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            header = stream.read(4 * (1 + dimensions))
            if len(header) < 4 * (1 + dimensions):
                _refuse(path, expected, f"only {len(header)} bytes")
            if header[:4] != bytes((0, 0, IDX_UNSIGNED_BYTE, dimensions)):
                _refuse(path, expected, f"the magic number 0x{header[:4].hex()}")
            shape = tuple(int(side) for side in np.frombuffer(header, dtype=">u4", offset=4))
            size = math.prod(shape)
            if size > LARGEST_IDX:
                _refuse(path, expected, f"a header that announces {size:,} bytes")
            body = stream.read(size + 1)  # one more than announced, to notice what is too long
    except (OSError, EOFError, zlib.error) as cause:
        _refuse(path, expected, str(cause) or type(cause).__name__, cause)
    if size == 0:
        _refuse(path, expected, "one without content")
    if len(body) != size:
        announced = " x ".join(map(str, shape))
        came = f"{len(body)} bytes" if len(body) < size else "more than that"
        _refuse(path, f"{size} bytes ({announced}, as its header says)", came)
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def read_cifar_binary(content: bytes, *, file: str) -> tuple[UInt8[np.ndarray, "n 3 32 32"], UInt8[np.ndarray, "n"]]:
    """Images and labels in one file of CIFAR-10's binary form: 10,000 records of a label byte and 3,072 pixel bytes.

    Args:
        content: all bytes of the file.
        file: its name, for messages.

    Raises:
        DataError: the file is not of exactly the right length.
    """
    record = 1 + math.prod(CIFAR_SHAPE)
    if len(content) != CIFAR_ROWS * record:
        _refuse(file, f"{CIFAR_ROWS * record:,} bytes (CIFAR-10's binary form)", f"{len(content):,} bytes")
    records = np.frombuffer(content, dtype=np.uint8).reshape(CIFAR_ROWS, record)
    return records[:, 1:].reshape(CIFAR_ROWS, *CIFAR_SHAPE), records[:, 0]


def read_cifar_pickle(content: bytes, *, file: str) -> tuple[UInt8[np.ndarray, "n 3 32 32"], Int[np.ndarray, "n"]]:
    """Images and labels in one Python batch of CIFAR-10, without running anything that the file asks for.

    Args:
        content: all bytes of the file.
        file: its name, for messages.

    Raises:
        DataError: the file asks for anything but numbers, texts, lists, dictionaries and numpy arrays; or is torn; or
            holds no CIFAR-10 batch.
    """
    expected = f"a Python batch of CIFAR-10 ({CIFAR_ROWS:,} x {math.prod(CIFAR_SHAPE)} bytes and as many labels)"
    try:
        batch = _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
    except _RefusedPickle as cause:
        _refuse(file, expected, f"a pickle that was refused, since it asks for {cause}", cause)
    except Exception as cause:  # noqa: BLE001 a torn pickle may raise nearly anything
        _refuse(file, expected, f"a torn or foreign pickle ({type(cause).__name__}: {cause})", cause)
    if not isinstance(batch, dict):
        _refuse(file, expected, f"a pickled {type(batch).__name__}")
    fields = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    pixels, labels = fields.get("data"), fields.get("labels")
    size = CIFAR_ROWS * math.prod(CIFAR_SHAPE)
    if not (isinstance(pixels, _PickledArray) and len(pixels.content) == size and pixels.is_bytes()):
        _refuse(file, expected, "no such array under 'data'")
    if not (isinstance(labels, list) and len(labels) == CIFAR_ROWS and all(type(label) is int for label in labels)):
        _refuse(file, expected, "no such list under 'labels'")
    images = np.frombuffer(pixels.content, dtype=np.uint8).reshape(CIFAR_ROWS, *CIFAR_SHAPE)
    return images, np.clip(np.array(labels, dtype=object), -(2**31), 2**31).astype(np.int64)


class _RefusedPickle(Exception):
    """A pickle asks for something that no batch of CIFAR-10 needs."""


class _PickledDtype:
    """Stands in for `numpy.dtype`: keeps the name of the type and builds nothing."""

    def __init__(self, name: object, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which bytes do not have."""


class _PickledArray:
    """Stands in for an array: keeps its bytes, so that no state from a file ever reaches numpy."""

    content: bytes = b""
    dtype: object = None
    by_columns: object = True

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Numpy's own state: version, shape, type, whether it is stored by columns, bytes."""
        _, _, self.dtype, self.by_columns, content = state
        self.content = content if isinstance(content, bytes) else b""

    def is_bytes(self) -> bool:
        """Whether it was a row-wise array of unsigned bytes."""
        named = self.dtype.name if isinstance(self.dtype, _PickledDtype) else None
        return named in ("u1", b"u1", "uint8", b"uint8") and not self.by_columns


class _PlainUnpickler(pickle.Unpickler):
    """Builds plain values; every callable that a batch may name is one of the stand-ins below."""

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """The stand-in for a name, or a refusal. Nothing is imported."""
        stand_ins: dict[tuple[str, str], Callable[..., object]] = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
            ("numpy._core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
            ("numpy", "ndarray"): lambda *_: None,  # only ever an argument of _reconstruct
            ("numpy", "dtype"): _PickledDtype,
            ("_codecs", "encode"): lambda text, *_: text.encode("latin1"),  # how protocol 2 writes bytes
        }
        if (module, name) not in stand_ins:
            message = f"'{module}.{name}'"
            raise _RefusedPickle(message)
        return stand_ins[module, name]

    def persistent_load(self, pid: object) -> NoReturn:
        """Refuse references to objects outside of the file."""
        message = f"the outside object {pid!r}"
        raise _RefusedPickle(message)


def find_member(folder: Path, names: Sequence[str], *, archives: Sequence[str] = ()) -> tuple[str, bytes] | None:
    """The first of some files that exists, as its path and (unzipped) content; None when there is none.

    Args:
        folder: where to look.
        names: paths relative to the folder; each is also looked for with `.gz` appended.
        archives: tar files in the folder (gzipped or not) that may hold a file with the last part of these names.

    Raises:
        DataError: a file is there but torn.
    """
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                try:
                    content = path.read_bytes()
                    return str(path), gzip.decompress(content) if content[:2] == GZIP_MAGIC else content
                except (OSError, EOFError, zlib.error) as cause:
                    _refuse(path, "a readable file, gzipped or not", str(cause), cause)
    wanted = {name.rsplit("/", 1)[-1] for name in names}
    for path in (folder / archive for archive in archives):
        if path.is_file():
            try:
                with tarfile.open(path) as archive:
                    for member in archive:
                        if member.isfile() and member.name.rsplit("/", 1)[-1] in wanted:
                            stream = archive.extractfile(member)
                            return f"{path}:{member.name}", stream.read() if stream else b""
            except (OSError, EOFError, zlib.error, tarfile.TarError) as cause:
                _refuse(path, "a complete tar archive", str(cause), cause)
    return None


@dataclass(frozen=True)
class ImageFiles:
    """A reader of image files.

    Attributes:
        folder: what the names are relative to.
        names: one file for each row, parts separated by `/`.
    """

    folder: Path
    names: tuple[str, ...]

    def __call__(self, row: int) -> UInt8[Tensor, "c h w"]:
        """Raw pixels of one row."""
        return read_image(self.folder / self.names[row])


def read_image(path: Path) -> UInt8[Tensor, "c h w"]:
    """The pixels of an image file: 1 channel for grey pictures, otherwise RGB; 0 to 255.

    Alpha is dropped, 16-bit grey is divided by 257, and the orientation noted by a camera is not applied (as in
    torchvision's `ImageFolder`, whose numbers published accuracies rest on).

    Raises:
        DataError: the file is absent, truncated, no image, or so large that it looks like an attack
            (`PIL.Image.MAX_IMAGE_PIXELS`).
    """
    from PIL import Image

    try:
        with Image.open(path, formats=IMAGE_FORMATS) as opened:
            most = Image.MAX_IMAGE_PIXELS
            if most is not None and opened.width * opened.height > most:
                _refuse_image(path, f"{opened.width} x {opened.height} pixels; more than {most} look like an attack")
            pixels = _eight_bits(opened)
    except DataError:
        raise
    except FileNotFoundError as cause:
        _refuse_image(path, "there is no such file", cause)
    except Exception as cause:  # noqa: BLE001 decoders of broken files raise nearly anything, warnings included
        _refuse_image(path, str(cause) or type(cause).__name__, cause)
    return torch.from_numpy(pixels if pixels.ndim == 3 else pixels[..., None]).permute(2, 0, 1).contiguous()  # noqa: PLR2004 height, width, channel


def _eight_bits(image: Any) -> UInt8[np.ndarray, "..."]:
    """Pixels of a PIL image as (height, width) or (height, width, 3)."""
    if image.mode.startswith("I"):  # 16 bits, whatever the byte order; PIL would cut off at 255
        return np.clip(np.asarray(image).astype(np.int64) // 257, 0, 255).astype(np.uint8)
    if image.mode == "F":
        message = "floating-point pixels have no fixed range"
        raise ValueError(message)
    if image.mode in ("1", "L", "LA", "La"):
        return np.array(image.convert("L"))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours; the direct way warns
    return np.array(image.convert("RGB"))


def image_names(folder: Path, *, within: str = "") -> list[str]:
    """Image files below a folder, sorted, as paths relative to it; hidden files and folders are passed over.

    Args:
        folder: what the names are relative to.
        within: a sub-folder to look into instead of the whole folder.
    """
    found = []
    for parent, folders, files in os.walk(folder / within):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(parent).relative_to(folder)
        found += [(below / name).as_posix() for name in files if is_image(name)]
    return sorted(found)


def is_image(name: str) -> bool:
    """Whether a file is an image, going by its name."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def fingerprint_files(folder: Path, names: Sequence[str], labels: Int[np.ndarray, "n"], classes: Sequence[str]) -> str:
    """A SHA-256 over the relative path, size, first and last 4 KiB of every file, and over labels and class names.

    Times of change are left out, so that copies of a folder agree. The middle of a file is left out for speed (about
    1 s for 50,000 images that are in the disk cache): a change there that keeps the size goes unnoticed. In compressed
    images that hardly happens; in large BMP files it can.
    """
    digest = hashlib.sha256(repr(tuple(classes)).encode())
    digest.update(labels.astype(np.int64).tobytes())
    for name in names:
        digest.update(repr(name).encode())
        try:
            with (folder / name).open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                head = file.read(2 * FINGERPRINT_BYTES if size <= 2 * FINGERPRINT_BYTES else FINGERPRINT_BYTES)
                if size > 2 * FINGERPRINT_BYTES:
                    file.seek(-FINGERPRINT_BYTES, os.SEEK_END)
                    head += file.read(FINGERPRINT_BYTES)
            digest.update(size.to_bytes(8, "little") + head)
        except OSError:
            digest.update(b"unreadable")  # an error only when the image is asked for, so that it can be skipped
    return digest.hexdigest()


def _refuse(file: Path | str, expected: str, came: str, cause: BaseException | None = None) -> NoReturn:
    """Raise the error for a data file that is not what it should be."""
    message = f"'{file}' cannot be read: expected {expected}; got {came}. Fetch the file again"
    raise DataError(message) from cause


def _refuse_image(path: Path, came: str, cause: BaseException | None = None) -> NoReturn:
    """Raise the error for an image that cannot be decoded."""
    message = (
        f"image '{path}' cannot be read: {came}. Expected a complete JPEG, PNG, BMP, TIFF or WebP file. "
        "Replace it, or leave such images out with --on-error skip"
    )
    raise DataError(message) from cause
