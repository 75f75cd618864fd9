"""The table of published files: URLs, checksums, licences and numbers of rows.

sources.tsv has one line per published file, groups.tsv one per dataset, and rows.tsv has the official numbers of rows.
Pure Python.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote

MANUAL = 'manual'  # the conversion of a file that cannot be downloaded automatically
FALLBACK = 'fallback'  # the use of a file that is fetched only if the first source of the same files fails
HUB = 'hub'  # the use of a copy on the Hugging Face hub, which is fetched with --source=hub only
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Group:
    """A published dataset. ask: the reason why the user must accept its licence: 'non-commercial', 'not stated' or
    'conditional'; '' = no acceptance needed. note: the steps that the user must do by hand."""

    name: str
    licence: str
    ask: str
    note: str


@dataclass(frozen=True)
class Source:
    """One published file.

    urls: byte-identical copies, in the order in which they are tried. size: bytes, None if unknown. sha256, git_blob:
      its checksums in hex, '' if unknown; git_blob is the SHA-1 of git's blob object.
    conversion: a key of convert.CONVERSIONS, 'copy' (the unchanged file) or MANUAL.
    members: (member, target) pairs of an archive, or ('', target) for a single file. Targets are relative to the data
      root. `*` in a member matches any characters except `/`, and a leading `**/` matches any folders. Each `*` in a
      target is replaced by the text that the member's `*` matched, in order.
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
        """The file name at the end of the first URL."""
        return unquote(self.urls[0].split('?')[0].rsplit('/', 1)[1]) if self.urls else ''

    @property
    def key(self) -> str:
        """A unique file name for the download until it is complete and unpacked."""
        return f'{hashlib.sha256(self.urls[0].encode()).hexdigest()[:8]}-{self.name}'

    @property
    def sum(self) -> str:
        """The checksum that is verified: sha256, else git_blob; '' if none is published."""
        return self.sha256 or self.git_blob

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(target for _, target in self.members)

    @property
    def is_archive(self) -> bool:
        return bool(self.members[0][0])


def expand(text: str) -> list[str]:
    """Expands braces as a shell does: 'a{b,c}' -> ['ab', 'ac']; the leftmost braces vary slowest."""
    parts = re.split(r'\{([^{}]*)\}', text)
    choices = [part.split(',') if i % 2 else [part] for i, part in enumerate(parts)]
    return [''.join(each) for each in itertools.product(*choices)]


def pattern(text: str) -> re.Pattern[str]:
    """Compiles a path with `*`, `?`, `[...]` and a leading `**/` to a regular expression; each `*` is a group."""
    body, head = (text[3:], r'(?:.*/)?') if text.startswith('**/') else (text, '')
    known = {'*': '([^/]*)', '?': '[^/]'}
    tokens = re.split(r'(\*|\?|\[[^]]*\])', body)
    return re.compile(head + ''.join(known.get(t, t if t.startswith('[') else re.escape(t)) for t in tokens))


def members(text: str) -> tuple[tuple[str, str], ...]:
    """Parses a cell of sources.tsv, 'MEMBER=TARGET' or 'TARGET' with braces, to (member, target) pairs.

    If there are more targets than members, target i belongs to the member i modulo the number of members. Raises
    ValueError if the number of targets is not a multiple of the number of members.
    """
    pairs: list[tuple[str, str]] = []
    for part in text.split():
        left, _, right = part.rpartition('=')
        inside, targets = expand(left), expand(right)
        if len(targets) % len(inside):
            raise ValueError(f'{part}: {len(inside)} members and {len(targets)} targets')
        pairs += [(inside[i % len(inside)], target) for i, target in enumerate(targets)]
    return tuple(pairs)


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
    """Path of a task's file, relative to the data root -> number of rows that its reader reads in the official file."""
    return {path: int(line['rows']) for line in _table('rows.tsv') for path in expand(line['path'])}


def _table(name: str) -> Iterator[dict[str, str]]:
    header, *lines = (_HERE / name).read_text(encoding='utf-8').splitlines()
    for line in lines:
        yield dict(zip(header.split('\t'), line.split('\t'), strict=True))
