"""Readers of files in SQuAD's JSON form: data > paragraphs > qas.

The file is parsed as a whole, so broken JSON is a DataError. A question with a missing field is a Problem; its line is
that of its id. XQuAD-R adds `sentence_breaks` to each paragraph: the [start, end] characters of its sentences.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xlmr_flax.data.readers.text import DataError, Problem, Rows, read_text
from xlmr_flax.tasks.base import Table
from xlmr_flax.util import strict_json
from xlmr_flax.util.errors import quote


def read_squad(path: Path, table: Table) -> Rows:
    """Reads one row per question: id, question, context, answers [{text, answer_start}], is_impossible, paragraph
    (number from 1 in the file), sentences (those of the paragraph as (text, start, end), [] without breaks)."""
    content = read_text(path)
    lines = _Lines(content)
    for number, paragraph in _paragraphs(path, content):
        context = paragraph.get('context')
        questions = paragraph.get('qas')
        if not isinstance(context, str) or not isinstance(questions, list):
            yield lines.line, Problem(f'paragraph {number} has no text `context` with a list `qas`')
            continue
        sentences = _sentences(paragraph, context)
        for question in questions:
            if not isinstance(question, dict) or 'id' not in question:
                yield lines.line, Problem(f'a question of paragraph {number} without an id')
                continue
            line = lines.find(question['id'])
            missing = [name for name in table.columns if name != 'context' and name not in question]
            if missing:
                yield line, Problem(f'question {question["id"]!r} has no field {missing[0]!r}')
            elif isinstance(sentences, Problem):
                yield line, sentences
            else:
                yield line, {'answers': [], **question, 'context': context, 'paragraph': number, 'sentences': sentences}


def read_sentences(path: Path, table: Table) -> Rows:
    """Reads one row per sentence of the contexts: paragraph (number from 1 in the file), position (from 0), text,
    context."""
    content = read_text(path)
    lines = _Lines(content)
    for number, paragraph in _paragraphs(path, content):
        context = paragraph.get('context')
        questions = paragraph.get('qas', [])
        if not isinstance(context, str) or not isinstance(questions, list):
            yield lines.line, Problem(f'paragraph {number} has no text `context` with a list `qas`')
            continue
        line = lines.find(*(q['id'] for q in questions[:1] if isinstance(q, dict) and 'id' in q))
        sentences = _sentences(paragraph, context)
        if isinstance(sentences, Problem):
            yield line, sentences
            continue
        if not sentences:
            yield line, Problem(f'paragraph {number} has no sentence_breaks')
        for position, (text, _, _) in enumerate(sentences):
            yield line, {'paragraph': number, 'position': position, 'text': text, 'context': context}


def _paragraphs(path: Path, content: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        data = strict_json.loads(content, surrogates=True)
    except strict_json.JsonError as error:
        raise DataError(f'{path}, line {error.line}: {error.described()}') from None
    articles = data.get('data') if isinstance(data, dict) else None
    if not isinstance(articles, list):
        raise DataError(f'{path}: not in the SQuAD form: an object with a list `data` is expected')
    number = 0
    for article in articles:
        paragraphs = article.get('paragraphs') if isinstance(article, dict) else None
        if not isinstance(paragraphs, list) or not all(isinstance(paragraph, dict) for paragraph in paragraphs):
            raise DataError(f'{path}: not in the SQuAD form: an article without a list `paragraphs` of objects')
        for paragraph in paragraphs:
            number += 1
            yield number, paragraph


def _sentences(paragraph: dict[str, Any], context: str) -> list[tuple[str, int, int]] | Problem:
    """The sentences of a paragraph as (text, start, end); [] if the file has no breaks."""
    breaks = paragraph.get('sentence_breaks', [])
    if not isinstance(breaks, list):
        return Problem(f'a list of [start, end] is expected in sentence_breaks, not {quote(breaks)}')
    sentences = []
    for pair in breaks:
        fine = isinstance(pair, list) and len(pair) == 2 and all(type(end) is int for end in pair)
        if not fine or not 0 <= pair[0] < pair[1] <= len(context):
            return Problem(f'sentence break {quote(pair)} does not lie in the context ({len(context)} characters)')
        sentences.append((context[pair[0] : pair[1]], *pair))
    return sentences


class _Lines:
    """Finds the line of each id in the file's text; each search starts at the previous match."""

    def __init__(self, content: str):
        self._content = content
        self._position = 0
        self.line = 1

    def find(self, *ids: Any) -> int:
        for ident in ids:
            start = self._content.find(json.dumps(ident, ensure_ascii=False), self._position)
            if start >= 0:
                self.line += self._content.count('\n', self._position, start)
                self._position = start
        return self.line
