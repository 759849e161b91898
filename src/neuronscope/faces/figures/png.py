"""PNG files of magnified pictures, three times as fast as a general encoder writes them.

Each pixel stands in several equal rows, so the difference to the row above is nearly all zeros: an encoder that tries
every filter on every row finds the same one in the end. Format: PNG specification, 2nd edition (ISO/IEC 15948:2003).
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

LEVEL = 3
"""Effort of compression, 1 to 9: beyond this, files become a sixth smaller and take twice as long."""
ROWS = 64
"""Rows at a time: few enough to stay in the processor's cache."""
UP = 2
"""The filter type "up" (section 9.2): each byte minus the one above it."""
METRE = 39.3701
"""Inches in a metre: PNG counts dots per metre."""


def write_png(image: Image.Image, path: Path, *, dpi: int) -> Path:
    """An RGB image as a PNG file; the same image gives the same bytes.

    Args:
        image: of mode RGB.
        path: of the file.
        dpi: dots per inch at which it is meant to be shown.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_png(Image.new("RGB", (3, 2), "#d55e00"), Path(folder) / "a.png", dpi=200)
        ...     Image.open(path).getpixel((2, 1))
        (213, 94, 0)
    """
    dots = round(dpi * METRE)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        # 8 bits for each of three colours, in the only ways there are to compress and filter, row by row.
        file.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 0)))
        file.write(_chunk(b"pHYs", struct.pack(">IIB", dots, dots, 1)))
        file.write(_chunk(b"IDAT", _compressed(image)))
        file.write(_chunk(b"IEND", b""))
    return path


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _compressed(image: Image.Image) -> bytes:
    """The filtered rows of an image, each after its filter type."""
    wide = 3 * image.width
    packer = zlib.compressobj(LEVEL)
    above = np.zeros(wide, dtype=np.uint8)
    filtered = np.full((ROWS, 1 + wide), UP, dtype=np.uint8)
    parts = []
    for top in range(0, image.height, ROWS):
        count = min(ROWS, image.height - top)
        pixels = image.crop((0, top, image.width, top + count)).tobytes()
        rows = np.frombuffer(pixels, dtype=np.uint8).reshape(count, wide)
        np.subtract(rows[0], above, out=filtered[0, 1:])
        np.subtract(rows[1:], rows[:-1], out=filtered[1:count, 1:])
        above = rows[-1]
        parts.append(packer.compress(filtered[:count].tobytes()))
    return b"".join([*parts, packer.flush()])
