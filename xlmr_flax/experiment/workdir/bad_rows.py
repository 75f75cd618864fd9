"""Collects rows that a run skips because they cannot be read: prints the first ones and lists all in a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import SupportsIndex

from xlmr_flax.data.readers.text import DataError, read_lines
from xlmr_flax.data.sources import BadRow
from xlmr_flax.parallel.distributed import is_leader
from xlmr_flax.util.console import say

FILE = 'bad_rows.tsv'
_HEADER = 'file\tline\treason'
_SHOWN = 10


class BadRows(list[BadRow]):
    """A list of skipped rows; the readers of data/sources `append` to it (parameter `bad_rows`).

    A row that is read again (dev rows before every training, the same file in two runs) counts once. The file is
    append-only, one line at a time. Several processes may therefore share it (in a multi-process job, only the first
    one writes), and a resumed run knows the rows that an earlier start skipped.
    """

    def __init__(self, path: Path, shown: int = _SHOWN):
        """Opens the list. path: its file, with a header line and the tab-separated columns file, line and reason. An
        existing file is read; a new one is created with the first row. shown: number of rows that are printed. Raises
        DataError if the file is not such a list.
        """
        super().__init__(_read(path))
        self.path, self._shown, self._said = path, shown, 0
        self._known = set(self)

    def append(self, row: BadRow, /) -> None:
        """Adds, prints and writes one row, unless it is known."""
        row = BadRow(row.file, row.line, ' '.join(row.reason.split()))  # without tabs and line breaks
        if row in self._known:
            return
        self._known.add(row)
        super().append(row)
        if self._said < self._shown:
            say(f'left out: {row}')
        elif self._said == self._shown:
            say(f'left out: further rows, listed in {self.path}')
        self._said += 1
        if not is_leader():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = f'{row.file}\t{row.line}\t{row.reason}'
        with self.path.open('a', encoding='utf-8') as file:
            file.write(line + '\n' if file.tell() else f'{_HEADER}\n{line}\n')

    def extend(self, rows: Iterable[BadRow], /) -> None:
        for row in rows:
            self.append(row)

    def insert(self, index: SupportsIndex, row: BadRow, /) -> None:
        raise TypeError('rows are appended, in the order in which they are found')

    def close(self) -> None:
        """Prints how many rows were skipped, if any."""
        if self:
            say(f'{len(self)} row{"s" if len(self) > 1 else ""} left out, listed in {self.path}')


def collector(wanted: bool, folder: Path) -> BadRows | None:
    """Returns the `bad_rows` list of a run or an evaluation, which writes folder/bad_rows.tsv; None if not `wanted`,
    so that a row that cannot be read is an error.
    """
    return BadRows(folder / FILE) if wanted else None


def count_among(rows: Iterable[BadRow], files: Iterable[Path]) -> int:
    """Counts the rows that belong to these files."""
    names = {str(path) for path in files}
    return sum(row.file in names for row in rows)


def _read(path: Path) -> list[BadRow]:
    if not path.is_file():
        return []
    header, *lines = read_lines(path) or ['']
    if header != _HEADER:
        raise DataError(f'{path}: not a list of rows that were left out: its header is {header!r}')
    rows = [line.split('\t', 2) for line in lines]
    whole = [row for row in rows if len(row) == 3 and row[1].isdecimal()]  # a killed process may leave a partial line
    return list(dict.fromkeys(BadRow(file, int(line), reason) for file, line, reason in whole))
