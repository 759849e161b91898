"""The complete tables of a page as CSV files, for spreadsheets and scripts.

Nothing is rounded, sorted or left out: what a report abbreviates is whole here.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from neuronscope import Page, StorageError, Table


def write_tables(page: Page, folder: Path) -> list[Path]:
    r"""Each table of the page as `folder/NAME.csv` (UTF-8, `\n`, floats with all their digits), in page order.

    Reading the numbers with Python's `float` gives them back without losing a bit.

    Args:
        page: what to write.
        folder: made when it does not exist.

    Raises:
        StorageError: the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> page = Page("Units", "", (Table("units", "Units", pd.DataFrame({"unit": [0], "auc": [0.1 + 0.2]})),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path] = write_tables(page, Path(folder))
        ...     path.read_text()
        'unit,auc\n0,0.30000000000000004\n'
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for block in page.blocks:
            if isinstance(block, Table):
                path = folder / f"{block.name}.csv"
                with_index(block.frame).to_csv(path, index=False, encoding="utf-8", lineterminator="\n")
                written.append(path)
    except OSError as error:
        message = (
            f"the tables cannot be written to '{folder}': a writable folder was expected, the system says: {error}. "
            "Choose another output folder or make room."
        )
        raise StorageError(message) from error
    return written


def with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with a meaningful index turned into leading columns; a mere row count is not a column.

    Example:
        >>> with_index(pd.DataFrame({"auc": [0.5]}, index=pd.Index(["fc:1"], name="unit"))).columns.tolist()
        ['unit', 'auc']
    """
    if isinstance(frame.index, pd.RangeIndex) and frame.index.name is None:
        return frame
    return frame.reset_index()
