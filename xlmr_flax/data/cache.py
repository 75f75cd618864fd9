"""Token cache: stores encoded examples on disk, so that later runs memory-map them instead of tokenizing again.

    entry = lookup(task, examples, tokenizer, max_length, encode)     # entry.data: what `encode` returns

An entry is a folder of .npy files (read with allow_pickle=False) and an index.json with their sizes and sha256. The
name of an entry is a hash of everything that determines its contents: the parsed examples, the tokenizer file, the
maximum length, the version of `tokenizers` and the encoding code. If one of these changes, the name changes, so a stale
entry is never read.

Entries are stored in XLMR_CACHE, by default ~/.cache/xlmr_flax/tokens. XLMR_CACHE=off disables the cache. Entries may
be deleted at any time. Only local and prepared data are cached: encoding the embedded world or a small number of
examples is faster than writing files.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import operator
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from xlmr_flax.data import corpus as corpus_module
from xlmr_flax.data import encode as encode_module
from xlmr_flax.data import spans as spans_module
from xlmr_flax.data import tagging as tagging_module
from xlmr_flax.data import tokenize as tokenize_module
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.spans import SpanRows
from xlmr_flax.data.tagging import TagRows
from xlmr_flax.data.tokenize import Ragged, Tokenizer
from xlmr_flax.tasks.base import Example, Table, Task
from xlmr_flax.util import strict_json
from xlmr_flax.util import tokenizer_file as file_module

CACHE_VARIABLE = 'XLMR_CACHE'
OFF = 'off'
INDEX = 'index.json'
# Version of the folder's layout. Changes of the encoding code need no new version: the name has a digest of that code.
FORMAT = 1
# Fewer examples than this are not cached: encoding them is faster than writing a folder of files.
SMALLEST = 256
_ABANDONED = 24 * 3600.0
_SPAN_COLUMNS = ('example', 'start', 'end', 'first', 'count', 'begin')

Encode = Callable[[Task, Sequence[Any], Tokenizer, int], Encoded]

_log = logging.getLogger(__name__)


class _Damaged(Exception):
    """The files of an entry do not match its index."""


@dataclass(frozen=True)
class Entry:
    """Result of a cache lookup.

    state: 'read' (the entry existed), 'written' (the entry is new) or 'not kept' (too few examples, the embedded world,
      XLMR_CACHE=off, or a folder that cannot be written). path: the entry's folder, None if not kept.
    """

    data: Encoded
    state: str
    path: Path | None


def cache_dir() -> Path | None:
    """The folder that holds all entries; None with XLMR_CACHE=off."""
    value = os.environ.get(CACHE_VARIABLE)
    if value:
        return None if value.lower() == OFF else Path(value).expanduser()
    home = os.environ.get('XDG_CACHE_HOME')
    return (Path(home) if home else Path.home() / '.cache') / 'xlmr_flax' / 'tokens'


def lookup(task: Task, examples: Sequence[Example], tokenizer: Tokenizer, max_length: int, encode: Encode) -> Entry:
    """Encodes examples, or reads them from the cache if an entry exists.

    Arrays from the cache are read-only. A damaged entry is logged as a warning and replaced. encode: the `encode`
    function of the task's kind. Raises what `encode` raises.
    """
    root = cache_dir() if _is_kept(task, examples) else None
    if root is None:
        return Entry(encode(task, examples, tokenizer, max_length), 'not kept', None)
    name = entry_name(task, examples, tokenizer, max_length, encode)
    path = root / name
    cached = _read_or_remove(path)
    if cached is not None:
        return Entry(cached, 'read', path)
    data = encode(task, examples, tokenizer, max_length)
    try:
        won = _write(root, name, data, {'task': task.name, 'examples': len(examples), 'max_length': max_length})
    except OSError as error:  # a full disk, or no write permission: the run continues without the cache
        _log.warning('%s: not kept: %s', path, error.strerror or error)
        return Entry(data, 'not kept', None)
    kept = _read_or_remove(path)
    return Entry(data if kept is None else kept, 'written' if won else 'read', path)


def entry_name(task: Task, examples: Sequence[Example], tokenizer: Tokenizer, max_length: int, encode: Encode) -> str:
    """The entry's name 'TASK-HASH'. Equal names mean equal results of `encode`."""
    decides = {
        'format': FORMAT,
        'code': _code_digest(encode.__module__),
        'tokenizers': tokenizers.__version__,
        'tokenizer': _tokenizer_digest(tokenizer.path, tokenizer.path.stat().st_mtime_ns),
        'kind': task.kind,
        'max_length': max_length,
        'examples': examples_digest(examples),
    }
    return f'{task.name}-{hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:24]}'


def examples_digest(examples: Iterable[Example]) -> str:
    """sha256 (hex) over every field of every example, in order."""
    digest, getters = hashlib.sha256(), {}
    chunk: list[str] = []
    for example in examples:
        kind = type(example)
        if kind not in getters:
            getters[kind] = operator.attrgetter(*(f.name for f in fields(kind)))
        chunk.append(f'{kind.__name__}{getters[kind](example)!r}\n')
        if len(chunk) == 4096:
            digest.update(''.join(chunk).encode('utf-8', 'surrogatepass'))
            chunk.clear()
    digest.update(''.join(chunk).encode('utf-8', 'surrogatepass'))
    return digest.hexdigest()


def _is_kept(task: Task, examples: Sequence[Example]) -> bool:
    from_files = any(isinstance(source, Table) for sources in task.splits.values() for source in sources)
    return from_files and len(examples) >= SMALLEST


@lru_cache
def _code_digest(module_name: str) -> str:
    """sha256 (hex) of the source files of all modules that encode, so that a change of their code changes entry names.
    module_name: the module of the task's kind."""
    digest = hashlib.sha256()
    shared = (encode_module, tokenize_module, tagging_module, spans_module, corpus_module, file_module)
    for module in (*shared, sys.modules[module_name]):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def _tokenizer_digest(path: Path, stamp: int) -> str:
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _write(root: Path, name: str, data: Encoded, facts: Mapping[str, Any]) -> bool:
    """Writes an entry to a temporary folder and renames that folder. Returns False if another process was first."""
    root.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(root)
    folder = Path(tempfile.mkdtemp(prefix=f'.{name}-', dir=root))
    try:
        files = {}
        for key, array in to_arrays(data).items():
            file = folder / f'{key}.npy'
            np.save(file, array, allow_pickle=False)
            files[file.name] = {'bytes': file.stat().st_size, 'sha256': _sha256(file)}
        index = {'format': FORMAT, 'kind': data.kind, 'group': data.group, 'files': files, **facts}
        (folder / INDEX).write_text(json.dumps(index, indent=1) + '\n', encoding='utf-8')
        folder.chmod(0o755)
        try:
            folder.rename(root / name)
        except OSError:
            if (root / name / INDEX).is_file():
                return False
            raise
        return True
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(root: Path) -> None:
    """Deletes temporary folders of killed processes that are older than a day."""
    for folder in root.glob('.*'):
        try:
            if time.time() - folder.stat().st_mtime > _ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # another process was first
            continue


def _read_or_remove(path: Path) -> Encoded | None:
    """Reads an entry; None if it does not exist. A damaged entry is logged and removed, so that it is written again."""
    if not path.is_dir():
        return None
    try:
        return _read(path)
    except (_Damaged, OSError, ValueError, KeyError, TypeError) as error:
        if not path.is_dir():  # removed by another process
            return None
        _log.warning('%s: damaged (%s), made again', path, error)
        aside = path.with_name(f'.damaged-{path.name}-{os.getpid()}-{time.time_ns()}')
        try:
            path.rename(aside)
        except OSError:
            return None
        shutil.rmtree(aside, ignore_errors=True)
        return None


def _read(path: Path) -> Encoded:
    """Reads an entry with memory-mapped arrays. Raises _Damaged, OSError, ValueError or KeyError if it is damaged."""
    index = strict_json.read_object(path / INDEX)
    if index['format'] != FORMAT:
        raise _Damaged(f'format {index["format"]}, not {FORMAT}')
    arrays = {}
    for name, stated in index['files'].items():
        file = path / name
        size = file.stat().st_size
        if size != stated['bytes']:
            raise _Damaged(f'{name} has {size} bytes, not {stated["bytes"]}')
        if _sha256(file) != stated['sha256']:
            raise _Damaged(f'{name} has changed')
        arrays[file.stem] = _load(file)
    return from_arrays(index['kind'], index['group'], arrays)


def _load(file: Path) -> np.ndarray:
    """Memory-maps a .npy file and returns a plain ndarray view, because slicing an np.memmap is slow."""
    try:
        return np.asarray(np.load(file, mmap_mode='r', allow_pickle=False))
    except ValueError:  # an empty array cannot be mapped
        return np.load(file, allow_pickle=False)


def to_arrays(data: Encoded) -> dict[str, np.ndarray]:
    """Converts encoded examples to named arrays; ids are stored as UTF-8 bytes with offsets."""
    texts = [text.encode('utf-8', 'surrogatepass') for text in data.ids]
    arrays = {
        'tokens': data.tokens.flat,
        'offsets': data.tokens.offsets,
        'label': data.label,
        'ids': np.frombuffer(b''.join(texts), np.uint8),
        'id_offsets': np.cumsum([0, *map(len, texts)], dtype=np.int64),
    }
    if data.tags is not None:
        tags = data.tags
        arrays |= {'slots': tags.word_starts.flat, 'tag_labels': tags.labels.flat, 'example': tags.example}
    if data.spans is not None:
        characters = [offsets.reshape(-1, 2) for offsets in data.spans.offsets]
        arrays |= {name: getattr(data.spans, name) for name in _SPAN_COLUMNS}
        arrays['characters'] = np.concatenate(characters) if characters else np.zeros((0, 2), np.int32)
        arrays['character_offsets'] = np.cumsum([0, *map(len, characters)], dtype=np.int64)
    return arrays


def from_arrays(kind: str, group: int, arrays: Mapping[str, np.ndarray]) -> Encoded:
    """Inverse of `to_arrays`. Raises KeyError for a missing array."""
    offsets = arrays['offsets']
    tokens = Ragged(arrays['tokens'], offsets)
    text, ends = arrays['ids'].tobytes(), arrays['id_offsets'].tolist()
    ids = tuple(text[start:end].decode('utf-8', 'surrogatepass') for start, end in itertools.pairwise(ends))
    tags = spans = None
    if 'slots' in arrays:
        starts, labels = Ragged(arrays['slots'], offsets), Ragged(arrays['tag_labels'], offsets)
        tags = TagRows(tokens, starts, labels, arrays['example'])
    if 'characters' in arrays:
        ends = arrays['character_offsets'].tolist()
        parts = (arrays['characters'][start:end] for start, end in itertools.pairwise(ends))
        columns = {name: arrays[name] for name in _SPAN_COLUMNS}
        spans = SpanRows(tokens=tokens, offsets=tuple(parts), **columns)
    return Encoded(kind, tokens, arrays['label'], ids, group, tags, spans)
