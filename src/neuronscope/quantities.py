"""Bytes and seconds as people read them, in one way wherever they are printed.

Nothing but arithmetic: everything may import it, also what must speak where PyTorch does not load.
"""

from __future__ import annotations

from collections.abc import Sequence

_MINUTE = 60  # seconds; an hour has as many minutes


def memory_size(count: float) -> str:
    """Bytes of memory, in powers of 1,024 as systems count them.

    Example:
        >>> memory_size(512), memory_size(3 * 2**20)
        ('512 B', '3.0 MiB')
    """
    return _scaled(count, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def file_size(count: float) -> str:
    """Bytes of files and disks, in powers of 1,000 as they are offered and sold.

    Example:
        >>> file_size(500), file_size(46_827_520)
        ('500 B', '46.8 MB')
    """
    return _scaled(count, 1000, ("B", "kB", "MB", "GB", "TB"))


def _scaled(count: float, step: int, units: Sequence[str]) -> str:
    for unit in units[:-1]:
        # What is printed decides: 1023.96 KiB would be printed as 1024.0.
        if round(count, 1) < step:
            return f"{count:.0f} {unit}" if unit == units[0] else f"{count:.1f} {unit}"
        count /= step
    return f"{count:.1f} {units[-1]}"


def duration(seconds: float) -> str:
    """A time, with the two units that matter.

    Example:
        >>> duration(0.0042), duration(4.25), duration(250), duration(8000)
        ('4.2 ms', '4.2 s', '4 min 10 s', '2 h 13 min')
    """
    if round(seconds * 1000, 1) < 1000:  # noqa: PLR2004 milliseconds in a second
        return f"{seconds * 1000:.1f} ms"
    if round(seconds, 1) < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    hours, minutes_left = divmod(minutes, _MINUTE)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"
