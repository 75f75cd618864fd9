"""A small PAWS-X with two bad rows, for tests of what is left out."""

from __future__ import annotations

from pathlib import Path

HEADER = 'id\tsentence1\tsentence2\tlabel\n'
ROWS = ''.join(f'{i}\tthe cat {i}\ta dog {i}\t{i % 2}\n' for i in range(6))
BAD = '90\tthe cat\ta dog\tyes\n91\tthe cat\n'


def write_pawsx(root: Path) -> Path:
    """PAWS-X in English and German; the German test file has two bad rows, as its second and third. Returns `root`."""
    folder = root / 'xtreme' / 'pawsx' / 'x-final'
    for name in ('en/train.tsv', 'en/dev_2k.tsv', 'en/test_2k.tsv', 'de/test_2k.tsv'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(HEADER + ROWS, 'utf-8')
    first, rest = ROWS.split('\n', 1)
    (folder / 'de' / 'test_2k.tsv').write_text(f'{HEADER}{first}\n{BAD}{rest}', 'utf-8')
    return root
