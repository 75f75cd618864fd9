"""The table of published files: addresses, sums, licences, and numbers of rows.

sources.tsv has one line a published file, groups.tsv one a dataset, rows.tsv the official numbers of rows. Pure Python.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MANUAL = 'manual'  # the conversion of what cannot be fetched
FALLBACK = 'fallback'  # the use of what is fetched where the first source of the same files fails
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Group:
    """A dataset as it is published. ask: '' or why the user must accept its licence: 'non-commercial', 'not stated' or
    'conditional'. note: what must be done by hand."""

    name: str
    licence: str
    ask: str
    note: str


@dataclass(frozen=True)
class Source:
    """One published file.

    urls: byte-identical copies, in the order in which they are tried. size: bytes, None where unknown. sha256,
    git_blob: its sums in hex; git_blob is the SHA-1 of git's blob object, '' where unknown. conversion: a name of
    convert.CONVERSIONS, 'copy' (the file as it is) or MANUAL. members: of an archive, (member, target) pairs; of a
    single file ('', target). Targets are relative to the data root. `*` in a member stands for any characters but `/`,
    and a target's `*` for what it matched, in order; a leading `**/` for any folders.
    """

    group: str
    use: str
    urls: tuple[str, ...]
    size: int | None
    sha256: str
    git_blob: str
    conversion: str
    members: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """The file name that the first address ends in."""
        return self.urls[0].split('?')[0].rsplit('/', 1)[1] if self.urls else ''

    @property
    def key(self) -> str:
        """A file name of its own for what is fetched, as long as it is not whole or not unpacked."""
        return f'{hashlib.sha256(self.urls[0].encode()).hexdigest()[:8]}-{self.name}'

    @property
    def sum(self) -> str:
        """The sum that decides, '' where none is published."""
        return self.sha256 or self.git_blob

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(target for _, target in self.members)

    @property
    def is_archive(self) -> bool:
        return bool(self.members[0][0])


def expand(text: str) -> list[str]:
    """'a{b,c}' -> ['ab', 'ac'], as a shell does; the leftmost braces change slowest."""
    parts = re.split(r'\{([^{}]*)\}', text)
    choices = [part.split(',') if i % 2 else [part] for i, part in enumerate(parts)]
    return [''.join(each) for each in itertools.product(*choices)]


def pattern(text: str) -> re.Pattern[str]:
    """A path with `*`, `?`, `[...]` and a leading `**/` as a regular expression; what `*` matches is a group."""
    body, head = (text[3:], r'(?:.*/)?') if text.startswith('**/') else (text, '')
    known = {'*': '([^/]*)', '?': '[^/]'}
    tokens = re.split(r'(\*|\?|\[[^]]*\])', body)
    return re.compile(head + ''.join(known.get(t, t if t.startswith('[') else re.escape(t)) for t in tokens))


def members(text: str) -> tuple[tuple[str, str], ...]:
    """The (member, target) pairs of a cell of sources.tsv: 'MEMBER=TARGET' or 'TARGET', with braces.

    Where there are more targets than members, target i is of member i modulo their number.
    """
    found: list[tuple[str, str]] = []
    for part in text.split():
        left, _, right = part.rpartition('=')
        inside, targets = expand(left), expand(right)
        if len(targets) % len(inside):
            raise ValueError(f'{part}: {len(inside)} members and {len(targets)} targets')
        found += [(inside[i % len(inside)], target) for i, target in enumerate(targets)]
    return tuple(found)


@cache
def sources() -> tuple[Source, ...]:
    """Every published file, in the order in which the sources of one target are tried."""
    return tuple(
        Source(
            line['group'],
            line['use'],
            tuple(line['url'].split()),
            int(line['bytes']) if line['bytes'] else None,
            line['sha256'],
            line['git_blob'],
            line['conversion'],
            members(line['files']),
        )
        for line in _table('sources.tsv')
    )


@cache
def groups() -> dict[str, Group]:
    return {
        line['group']: Group(line['group'], line['licence'], line['ask'], line['note']) for line in _table('groups.tsv')
    }


@cache
def official_rows() -> dict[str, int]:
    """Path that a task reads, relative to the data root -> the rows that its reader finds in the official files."""
    return {path: int(line['rows']) for line in _table('rows.tsv') for path in expand(line['path'])}


def _table(name: str) -> Iterator[dict[str, str]]:
    header, *lines = (_HERE / name).read_text(encoding='utf-8').splitlines()
    for line in lines:
        yield dict(zip(header.split('\t'), line.split('\t'), strict=True))
