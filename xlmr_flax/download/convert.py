"""Converts published files to the files that tasks read: UTF-8, LF line ends, no quoting except in CSV.

A conversion takes a stream and its targets and yields (target, chunks of bytes).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from xlmr_flax.download import parquet
from xlmr_flax.download.archive import Budget, nested
from xlmr_flax.download.records import DownloadError

Made = Iterator[tuple[str, Iterable[bytes]]]
_TYDIQA = {
    'english': 'en', 'arabic': 'ar', 'bengali': 'bn', 'finnish': 'fi', 'indonesian': 'id', 'korean': 'ko',
    'russian': 'ru', 'swahili': 'sw', 'telugu': 'te',
}  # fmt: skip
_COSMOS = ('id', 'context', 'question', 'answer0', 'answer1', 'answer2', 'answer3')


def straight(stream: IO[bytes], targets: list[str], budget: Budget) -> Made:
    """Copies a member unchanged."""
    yield targets[0], iter(lambda: stream.read(1 << 20), b'')


def gunzip(stream: IO[bytes], targets: list[str], budget: Budget) -> Made:
    """Decompresses a single gzip file."""
    with gzip.open(stream) as file:

        def chunks() -> Iterator[bytes]:
            while chunk := file.read(1 << 20):
                budget.take(len(chunk))
                yield chunk

        yield targets[0], chunks()


def xnli(stream: IO[bytes], targets: list[str], budget: Budget) -> Made:
    """Splits the file of XNLI 1.0, which has all languages, into XTREME's form: one file per language with sentence1,
    sentence2, gold_label."""
    rows = _fields(stream)
    header = next(rows, [])
    try:
        columns = [header.index(name) for name in ('language', 'sentence1', 'sentence2', 'gold_label')]
    except ValueError:
        raise DownloadError(f'the header of XNLI is expected, not {header[:8]}') from None
    by_language: dict[str, list[str]] = {}
    for row in rows:
        language, *cells = (row[column].strip() for column in columns)
        by_language.setdefault(language, []).append('\t'.join(cells))
    for target in targets:
        language = re.split(r'[-.]', target)[-2]
        yield target, _lines(by_language.get(language, ()))


def tydiqa(stream: IO[bytes], targets: list[str], budget: Budget) -> Made:
    """Splits TyDiQA-GoldP's training file into its nine languages. The text before the first '-' of a question's id is
    the language. Ids are not changed."""
    content = json.load(stream)
    parts: dict[str, list[dict[str, Any]]] = {code: [] for code in _TYDIQA.values()}
    for article in content['data']:
        for paragraph in article['paragraphs']:
            for question in paragraph['qas']:
                code = _TYDIQA.get(question['id'].split('-')[0])
                if code is None:
                    raise DownloadError(f'question {question["id"]!r}: no known language')
                one = {**article, 'paragraphs': [{**paragraph, 'qas': [question]}]}
                parts[code].append(one)
    for target in targets:
        data = {**content, 'data': parts[target.split('.')[-3]]}
        yield target, [json.dumps(data, ensure_ascii=False).encode() + b'\n']


def panx(stream: IO[bytes], targets: list[str], budget: Budget) -> Made:
    """Converts PAN-X: an archive per language with train, dev and test; a line is 'xx:word TAB tag'.

    The prefix up to the first colon is removed. A line without two fields ends a sentence. A word that is only white
    space, which a tagging file cannot contain, becomes U+FFFD, so that words and tags stay aligned.
    """
    by_split = {target.rsplit('/', 1)[-1].split('-')[0]: target for target in targets}
    seen = set()
    for name, file in nested(stream, budget):
        split = name.rsplit('/', 1)[-1]
        if split in by_split:
            seen.add(split)
            yield by_split[split], _lines(_panx_lines(file))
    if lacking := by_split.keys() - seen:
        raise DownloadError(f'{by_split[min(lacking)]}: its archive has no {min(lacking)!r}')


def _panx_lines(file: IO[bytes]) -> Iterator[str]:
    """Yields the lines of the sentences, with one blank line between sentences."""
    blank = False
    started = False
    for row in _fields(file):
        if len(row) != 2:
            blank = True
            continue
        if blank and started:
            yield ''
        blank, started = False, True
        word = row[0].split(':', 1)[-1].strip()
        yield f'{word or chr(0xFFFD)}\t{row[1].strip()}'


def cosmosqa(stream: IO[bytes], targets: list[str], budget: Budget) -> Made:
    """Converts Cosmos QA's test questions from JSON lines to CSV, the format of the published train and dev files."""
    text = io.StringIO(newline='')
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(_COSMOS)
    for line in stream:
        if line.strip():
            row = json.loads(line)
            writer.writerow([row[name] for name in _COSMOS])
    yield targets[0], [text.getvalue().encode()]


def whole_rows(stream: IO[bytes], targets: list[str], budget: Budget) -> Made:
    """Keeps the rows with as many fields as the header. QQP's train.tsv has three rows with fewer fields."""
    yield targets[0], _lines(_of_width(stream, pad=False))


def padded_rows(stream: IO[bytes], targets: list[str], budget: Budget) -> Made:
    """Pads rows to the header's number of fields: SNLI's rows end after the last annotator's label."""
    yield targets[0], _lines(_of_width(stream, pad=True))


def tagged_words(stream: IO[bytes], targets: list[str], budget: Budget) -> Made:
    """Puts U+FFFD where a line of a tagging file has a tag and no word, so that words and tags stay aligned. MasakhaNER
    2.0's Xhosa training file has two such lines."""

    def lines() -> Iterator[bytes]:
        for line in stream:
            fields = line.decode('utf-8').split()
            alone = len(fields) == 1 and re.fullmatch(r'O|[BI]-[A-Z]+', fields[0])
            yield f'{chr(0xFFFD)} {fields[0]}\n'.encode() if alone else line

    yield targets[0], lines()


def own_ids(stream: IO[bytes], targets: list[str], budget: Budget) -> Made:
    """Makes the ids of JSON lines unique: the second row with an id gets ID-2, and so on. In LogiQA 2.0 and ConTRoL, a
    few rows repeat an id. Other rows are not changed."""
    seen: dict[str, int] = {}

    def lines() -> Iterator[bytes]:
        for line in stream:
            row = json.loads(line) if line.strip() else {}
            name = next((name for name in ('id', 'example_id', 'uid') if name in row), '')
            ident = str(row.get(name, ''))
            seen[ident] = seen.get(ident, 0) + 1
            if name and seen[ident] > 1:
                line = json.dumps({**row, name: f'{ident}-{seen[ident]}'}, ensure_ascii=False).encode() + b'\n'
            yield line

    yield targets[0], lines()


def json_lines(stream: IO[bytes], targets: list[str], budget: Budget) -> Made:
    """Gives each JSON object a line of its own. A line of LogiQA 2.0's test_new.txt has two objects."""
    decoder = json.JSONDecoder()

    def lines() -> Iterator[bytes]:
        for line in stream:
            text = line.decode('utf-8').strip()
            while text:
                _, end = decoder.raw_decode(text)
                yield text[:end].encode() + b'\n'
                text = text[end:].lstrip()

    yield targets[0], lines()


def _of_width(stream: IO[bytes], pad: bool) -> Iterator[str]:
    width = 0
    for row in _fields(stream):
        width = width or len(row)
        if pad:
            row += [''] * (width - len(row))
        if len(row) == width:
            yield '\t'.join(row)


def multinli(stream: IO[bytes], targets: list[str], budget: Budget) -> Made:
    """Converts MultiNLI's own file to GLUE's columns, without the rows whose annotators did not agree (label '-')."""
    rows = _fields(stream)
    header = next(rows, [])
    names = ('sentence1', 'sentence2', 'gold_label')
    try:
        columns = [header.index(name) for name in names]
    except ValueError:
        raise DownloadError(f'the header of MultiNLI is expected, not {header[:8]}') from None
    kept = ([row[column] for column in columns] for row in rows if len(row) > max(columns))
    yield targets[0], _lines(['\t'.join(names), *('\t'.join(row) for row in kept if row[-1] != '-')])


def fracas(stream: IO[bytes], targets: list[str], budget: Budget) -> Made:
    """Converts the problems of fracas.xml to rows; problems without a hypothesis are skipped."""
    rows, section = [], ''
    for node in ElementTree.parse(stream).getroot():
        if node.tag == 'comment' and node.get('class') == 'section':
            section = _words(node)
        elif node.tag == 'problem' and (hypothesis := node.find('h')) is not None:
            premises = sorted(node.findall('p'), key=lambda p: int(p.get('idx', '0')))
            answer = node.get('fracas_answer', '')
            rows.append((node.get('id', ''), section, ' || '.join(map(_words, premises)), _words(hypothesis), answer))
    yield targets[0], _fracas_lines(rows)


def fracas_plain(members: Iterable[tuple[str, bytes]]) -> Iterable[bytes]:
    """Converts the problems in ccg2lambda's form to rows: fracas_NUMBER_SECTION.txt, whose last line is the hypothesis,
    and .answer."""
    texts: dict[str, dict[str, str]] = {}
    for name, content in members:
        stem, _, kind = name.rsplit('/', 1)[-1].rpartition('.')
        texts.setdefault(stem, {})[kind] = content.decode()
    rows = []
    for stem, parts in sorted(texts.items()):
        match = re.fullmatch(r'fracas_(\d+)_(.*)', stem)
        lines = [' '.join(line.split()) for line in parts.get('txt', '').splitlines() if line.strip()]
        if match and len(lines) > 1 and 'answer' in parts:
            rows.append((str(int(match[1])), match[2], ' || '.join(lines[:-1]), lines[-1], parts['answer'].strip()))
    return _fracas_lines(rows)


def _fracas_lines(rows: Iterable[tuple[str, ...]]) -> Iterator[bytes]:
    return _lines(['id\tsection\tpremises\thypothesis\tanswer', *('\t'.join(row) for row in rows)])


def _words(node: ElementTree.Element) -> str:
    return ' '.join(''.join(node.itertext()).split())


def _fields(stream: IO[bytes]) -> Iterator[list[str]]:
    """Yields the tab-separated fields of each line of UTF-8 text. Only a line feed ends a line."""
    for line in stream:
        yield line.decode('utf-8').removesuffix('\n').removesuffix('\r').split('\t')


def _lines(lines: Iterable[str]) -> Iterator[bytes]:
    for line in lines:
        yield line.encode() + b'\n'


CONVERSIONS: dict[str, Callable[[IO[bytes], list[str], Budget], Made]] = {
    'unpack': straight,
    'password': straight,
    'gunzip': gunzip,
    'xnli': xnli,
    'tydiqa': tydiqa,
    'panx': panx,
    'cosmosqa': cosmosqa,
    'whole_rows': whole_rows,
    'padded_rows': padded_rows,
    'multinli': multinli,
    'own_ids': own_ids,
    'json_lines': json_lines,
    'tagged_words': tagged_words,
    'fracas': fracas,
    'hub_nli': parquet.nli,
    'hub_qqp': parquet.qqp,
    'hub_xnli': parquet.xnli,
    'hub_commonsenseqa': parquet.commonsenseqa,
}
