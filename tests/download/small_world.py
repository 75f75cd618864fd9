"""Every dataset's layout in small: the files that tasks read, and the published files that they are made from.

`build` writes both, with a table of the package's form whose sums and numbers of rows are those of the small files.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import gzip
import hashlib
import io
import itertools
import json
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tasks import parallel_files, tiny_files
from tasks.tiny_files import tsv

from xlmr_flax.download import facts, plan
from xlmr_flax.download.facts import Source

PAIRS = [('A man runs .', 'A man moves .', 'entailment'), ('A "dog" .', 'No dog .', 'contradiction')]
LANGUAGES = {'en': 'english', 'ar': 'arabic', 'bn': 'bengali', 'fi': 'finnish', 'id': 'indonesian', 'ko': 'korean'}
LANGUAGES |= {'ru': 'russian', 'sw': 'swahili', 'te': 'telugu'}
NLI = ('entailment', 'neutral', 'contradiction')
FILES = tiny_files.FILES | parallel_files.FILES
SNLI = ('gold_label', 'sentence1', 'sentence2', 'label1', 'label2')


# Universal Dependencies 2.5 has no such files.
UNPUBLISHED = [f'/{code}_any-ud-{split}.' for split in ('train', 'dev') for code in ('th', 'tl', 'yo')]
UNPUBLISHED += ['/kk_any-ud-dev.']


def content(target: str) -> str:
    """What a task reads at a path: rows of its own for what other tests have no file of, else theirs."""
    name = target.rsplit('/', 1)[-1]
    if target.startswith('intermediate/mnli/'):
        return tsv(('sentence1', 'sentence2', 'gold_label'), *PAIRS)
    if target.startswith('intermediate/snli/'):
        return tsv(SNLI, *((label, a, b, label, '') for a, b, label in PAIRS))
    if target.startswith('intermediate/anli/'):
        rows = [
            {'uid': f'{target}-{i}', 'context': 'C', 'hypothesis': 'H', 'label': label} for i, label in enumerate('enc')
        ]
        return ''.join(json.dumps(row) + '\n' for row in rows)
    if target.startswith('intermediate/qqp/'):
        train = tsv(
            ('id', 'question1', 'question2', 'is_duplicate'), ('0', 'Why?', 'How?', '1'), ('1', 'Who?', 'I?', '0')
        )
        return tsv(('id', 'question1', 'question2'), ('0', 'Why?', 'How?')) if 'test' in name else train
    if target.startswith('xtreme/xnli/'):
        return tsv(*((a, f'{b} {name}', label) for a, b, label in PAIRS))
    if target.startswith('xtreme/pawsx/'):
        return tsv(('id', 'sentence1', 'sentence2', 'label'), ('1', f'{target} .', 'b', '0'), ('2', 'c', 'd', '1'))
    if target.startswith('xtreme/tatoeba/'):
        return f'{name}\nTwo .\n'
    if target.startswith('low_resource/sib200/'):
        return tsv(('index_id', 'category', 'text'), ('7', 'sports', f'{target} .'), ('9', 'travel', 'Bye.'))
    if target.startswith('low_resource/masakhanews/') and name == 'train.tsv':
        return FILES['low_resource/masakhanews/few_shot_data/50_samples/eng/train.tsv']
    if target.startswith('xtreme/panx/'):
        return 'Hy\tO\nis\tO\n\nPous\tB-PER\nRomanus\tI-PER\n'
    if target.startswith('xtreme/udpos/'):
        return FILES['xtreme/udpos/UD_Spanish-YY/es_yy-ud-test.conllu'] if name.endswith('.conllu') else 'A licence.\n'
    if 'tydiqa.goldp' in name:
        asked = {'id': f'{LANGUAGES[name.split(".")[2]]}-1', 'question': 'Who?'}
        asked |= {'answers': [{'text': 'Ann', 'answer_start': 0}]}
        paragraph = {'context': 'Ann sings.', 'qas': [asked]}
        return json.dumps({'version': '1', 'data': [{'paragraphs': [paragraph]}]}, ensure_ascii=False) + '\n'
    if target.startswith('logic/clutrr/'):
        return FILES['logic/clutrr/data_089907f8/1.2_test.csv'].replace('i2', name.replace(',', '-'))
    if target == 'intermediate/cosmosqa/test.csv':
        return 'id,context,question,answer0,answer1,answer2,answer3\nc2,"It rained, ""a lot""",Why?,a,b,c,d\n'
    if target == 'logic/fracas/fracas.tsv':
        return tsv(
            ('id', 'section', 'premises', 'hypothesis', 'answer'), ('1', 's', 'All ran. || Ann is.', 'Ann ran.', 'yes')
        )
    if target.startswith('xtreme/bucc2018/'):
        side = name.split('.')[-1]
        return FILES[f'standins/bucc2018/de-en.dev.{side if side in ("gold", "en") else "de"}']
    if name == 'train_rand_split.jsonl':
        return FILES['intermediate/commonsenseqa/dev_rand_split.jsonl']
    return _nearest(target)


def _nearest(target: str) -> str:
    """The file of the other tests with the same suffix whose path begins alike."""
    suffix = Path(target).suffix
    alike = [path for path in FILES if Path(path).suffix == suffix and path.split('/')[0] == target.split('/')[0]]
    shared = {
        path: len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(path, target, strict=False))))
        for path in alike
    }
    best = max(alike, key=lambda path: (shared[path], path))
    assert best.split('/')[1] == target.split('/')[1], f'{target}: nothing like it'
    return FILES[best]


def published(source: Source) -> bytes:
    """The published file that a source's targets are made from."""
    if source.conversion == 'tydiqa':
        data = [article for target in source.targets for article in json.loads(content(target))['data']]
        return json.dumps({'version': '1', 'data': data}).encode()
    if source.conversion == 'cosmosqa':
        rows = csv.DictReader(io.StringIO(content(source.targets[0])))
        return ''.join(json.dumps(row) + '\n' for row in rows).encode()
    if source.conversion == 'fracas':
        inside = '<p idx="1">All  ran.</p><p idx="2">Ann\nis.</p><q>Did Ann run?</q><h>Ann ran.</h><a>Yes</a>'
        none = '<problem id="276" fracas_answer="undef"><p idx="1">None.</p></problem>'
        problem = f'<problem id="1" fracas_answer="yes">{inside}</problem>'
        return f'<x><comment class="section"> s </comment>{problem}{none}</x>'.encode()
    if source.use == facts.HUB:
        return parquet(source)
    if source.conversion == 'gunzip':
        return gzip.compress(content(source.targets[0]).encode(), mtime=0)
    if not source.is_archive:
        return content(source.targets[0]).encode()
    return packed(source.name, _members(source))


def parquet(source: Source) -> bytes:
    """The hub's copy of what a task reads at a source's targets."""
    import pyarrow
    from pyarrow.parquet import write_table

    rows = [line.split('\t') for line in content(source.targets[0]).splitlines()]
    cells = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]] if source.conversion != 'hub_xnli' else []
    if source.conversion == 'hub_nli':
        names = {'premise': 'sentence1', 'hypothesis': 'sentence2', 'label': 'gold_label'}
        made = [{new: row[old] for new, old in names.items()} for row in cells]
        made = [{**row, 'label': NLI.index(row['label'])} for row in made]
    elif source.conversion == 'hub_qqp':
        made = [{**row, 'idx': int(row['id']), 'label': int(row.get('is_duplicate', -1))} for row in cells]
    elif source.conversion == 'hub_xnli':
        codes = [target.split('-')[-1][:-4] for target in source.targets]
        lines = [[line.split('\t') for line in content(target).splitlines()] for target in source.targets]
        made = [
            {
                'premise': {code: row[0] for code, row in zip(codes, several, strict=True)},
                'hypothesis': {'language': codes, 'translation': [row[1] for row in several]},
                'label': NLI.index(several[0][2]),
            }
            for several in zip(*lines, strict=True)
        ]
    else:
        asked = [json.loads(line) for line in content(source.targets[0]).splitlines()]
        made = [
            {
                'id': row['id'],
                'question': row['question']['stem'],
                'question_concept': row['question'].get('question_concept', ''),
                'choices': {key: [each[key] for each in row['question']['choices']] for key in ('label', 'text')},
                'answerKey': row.get('answerKey', ''),
            }
            for row in asked
        ]
    out = io.BytesIO()
    write_table(pyarrow.Table.from_pylist(made), out)
    return out.getvalue()


def _members(source: Source) -> dict[str, bytes]:
    targets: dict[str, list[str]] = {}
    for member, target in source.members:
        if is_published(target):
            inside = member.replace('**/', 'top/').replace('*', 'any')
            targets.setdefault(inside, []).append(target.replace('*', 'any'))
    return {member: _member(source.conversion, those) for member, those in targets.items()}


def is_published(target: str) -> bool:
    return not any(part in target.replace('*', 'any') for part in UNPUBLISHED)


def _member(conversion: str, targets: list[str]) -> bytes:
    text = content(targets[0])
    rows = [line.split('\t') for line in text.splitlines()]
    if conversion == 'xnli':
        header = ('language', 'gold_label', 'a', 'b', 'c', 'd', 'sentence1', 'sentence2')
        parts = [(target, line.split('\t')) for target in targets for line in content(target).splitlines()]
        text = tsv(header, *((t.split('-')[-1][:-4], c, '', '', '', '', a, b) for t, (a, b, c) in parts))
    elif conversion == 'panx':
        lines = [f'xx:{line}' if line else '' for line in text.splitlines()]
        inside = '\n'.join([*lines, '', '']).encode()
        return packed('af.tar.gz', {target.split('/')[-1].split('-')[0]: inside for target in targets})
    elif conversion == 'whole_rows':
        text += 'broken\trow\n'
    elif conversion == 'padded_rows':
        text = tsv(rows[0], *(row[:-1] for row in rows[1:]))
    elif conversion == 'multinli':
        text = tsv((*rows[0], 'x'), *((*row, '') for row in rows[1:]), ('a', 'b', '-', ''))
    return text.encode()


def packed(name: str, members: dict[str, bytes]) -> bytes:
    """An archive of the kind that the name says."""
    out = io.BytesIO()
    if name.endswith('.zip'):
        with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as file:
            for member, data in {'__MACOSX/._x': b'x', **members}.items():
                file.writestr(zipfile.ZipInfo(member), data, zipfile.ZIP_DEFLATED)
        return out.getvalue()
    kind = 'gz' if name.endswith(('.tgz', '.gz')) else 'bz2' if name.endswith('.bz2') else ''
    with tarfile.open(fileobj=out, mode=f'w:{kind}') as file:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass(frozen=True)
class World:
    """site: published files by host and path. tree: what tasks read, by path. table: the folder of the small table."""

    site: dict[str, bytes]
    tree: dict[str, str]
    table: Path


def build(table: Path, hub: bool = False) -> World:
    """Writes the table of the small world, without fallbacks, into a folder. hub: with the copies on the hub."""
    site: dict[str, bytes] = {}
    tree: dict[str, str] = {}
    lines = ['group\tuse\turl\tbytes\tsha256\tgit_blob\tconversion\tfiles']
    for source in facts.sources():
        if source.use == facts.HUB and not hub:
            continue
        if source.use != facts.FALLBACK and source.conversion != facts.MANUAL:
            data = published(source)
            digest = hashlib.sha256(data).hexdigest()
            site |= {place(url): data for url in source.urls}
            tree |= {target.replace('*', 'any'): content(target) for target in source.targets if is_published(target)}
            source = dataclasses.replace(source, size=len(data), sha256=digest, git_blob='')
        elif source.conversion != facts.MANUAL:
            continue
        files = ' '.join(f'{member}={target}' if member else target for member, target in source.members)
        size = '' if source.size is None else str(source.size)
        urls = ' '.join(source.urls)
        cells = (source.group, source.use, urls, size, source.sha256, '', source.conversion, _short(source, files))
        lines.append('\t'.join(cells))
    table.mkdir()
    (table / 'sources.tsv').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    (table / 'groups.tsv').write_bytes((Path(facts.__file__).parent / 'groups.tsv').read_bytes())
    (table / 'rows.tsv').write_text('path\trows\n', encoding='utf-8')
    return World(site, tree, table)


def _short(source: Source, files: str) -> str:
    """Single files with several targets have them in braces, as the table wants it."""
    return '{' + ','.join(source.targets) + '}' if not source.is_archive and len(source.targets) > 1 else files


def place(url: str) -> str:
    """Host and path of an address, with its query."""
    parts = urlsplit(url)
    return unquote(f'{parts.netloc}{parts.path}') + (f'?{parts.query}' if parts.query else '')


@contextlib.contextmanager
def using(table: Path) -> Iterator[None]:
    """The package's table is the one of this folder."""
    caches = (facts.sources, facts.groups, facts.official_rows, plan._candidates, plan._by_target)
    before = facts._HERE
    try:
        facts._HERE = table
        for cached in caches:
            cached.cache_clear()
        yield
    finally:
        facts._HERE = before
        for cached in caches:
            cached.cache_clear()
