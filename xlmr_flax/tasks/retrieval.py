"""Retrieval with gold pairs by id: BUCC 2018, LAReQA (XQuAD-R) and Mewsli-X. Tatoeba has its own module.

Retrieval is zero-shot: nothing is trained. The two sources of a split are the queries and the pool. `Task.gold` is the
table of gold pairs; a query may have several right items.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from xlmr_flax.tasks.base import RowError, SentenceExample, Table, Task, text_of
from xlmr_flax.tasks.parsers import Row, id_of

BUCC_LANGUAGES = ('de', 'fr', 'ru', 'zh')
LAREQA_LANGUAGES = ('ar', 'de', 'el', 'en', 'es', 'hi', 'ru', 'th', 'tr', 'vi', 'zh')
MEWSLIX_LANGUAGES = ('ar', 'de', 'en', 'es', 'fa', 'ja', 'pl', 'ro', 'ta', 'tr', 'uk')

BUCC_STAND_IN = 'Tatoeba sentences in the layout of BUCC 2018'


def parse_bucc(row: Row, task: Task, language: str) -> SentenceExample:
    """Parses a BUCC line: id TAB sentence. config.Evaluation.repeated_sentences sets how repeated sentences count."""
    if not row['id'] or not row['text'].strip():
        raise RowError('id' if not row['id'] else 'text', 'empty')
    return SentenceExample(row['id'], row['text'])


def gold_bucc(row: Row, task: Task, language: str) -> Sequence[tuple[str, str]]:
    """Parses a BUCC gold pair: foreign id TAB English id."""
    return ((row['source'], row['target']),)


def parse_lareqa(row: Row, task: Task, language: str) -> SentenceExample | None:
    """Parses LAReQA: a question, or a candidate sentence with its paragraph as the context.

    Ids are those of XTREME's third_party/utils_lareqa.py: QUESTION-ID_LANGUAGE for a question and
    LANGUAGE_PARAGRAPH_SENTENCE for a candidate; paragraphs are counted from 1 in the file and sentences from 0. A
    question whose answer does not start in any sentence is dropped.
    """
    if 'question' not in row:
        return SentenceExample(f'{language}_{row["paragraph"]}_{row["position"]}', row['text'], row['context'])
    if _answer_sentence(row) is None:
        return None
    return SentenceExample(f'{id_of(row, "id")}_{language}', text_of(row, 'question'))


def gold_lareqa(row: Row, task: Task, language: str) -> Sequence[tuple[str, str]]:
    """The gold pairs of a question in the requested language with the candidates of one language: every sentence of the
    paragraph whose text is equal to that of the sentence in which the answer starts."""
    sentence = _answer_sentence(row)
    if sentence is None:
        return ()
    question = f'{id_of(row, "id")}_{row["#language"]}'
    return tuple(
        (question, f'{language}_{row["paragraph"]}_{position}')
        for position, (text, _, _) in enumerate(row['sentences'])
        if text == sentence
    )


def _answer_sentence(row: Row) -> str | None:
    answers = row['answers']
    if not row['sentences']:
        raise RowError('sentence_breaks', 'the paragraph has none')
    if len(answers) != 1 or type(answers[0].get('answer_start')) is not int:
        raise RowError('answers', f'one answer with an answer_start is expected, not {answers!r}')
    start = answers[0]['answer_start']
    return next((text for text, first, end in row['sentences'] if first <= start < end), None)


def parse_mewslix(row: Row, task: Task, language: str) -> SentenceExample | None:
    """Parses Mewsli-X: a mention in its sentence, or an entity's description (XTREME: third_party/utils_mewslix.py).

    mention: 'SURFACE: left { SURFACE } right'; braces in the sentence become parentheses. Rows of other languages are
    dropped. entity: the sentences of its description, one after the other.
    """
    pair = row.get('contextual_mention')
    if row['side'] == 'entity':
        entity = row['entity'] if pair is not None else row
        description = text_of(entity, 'description')
        spans = entity.get('sentence_spans') or ()
        texts = [description[start:end] for start, end in (_span(span, description) for span in spans)]
        return SentenceExample('' if pair is not None else text_of(entity, 'entity_id'), _one_line(' '.join(texts)))
    holder = row if pair is None else pair
    context, mention = holder['context'], holder['mention'] if 'mention' in holder else holder['mentions']
    if pair is None and context['language'] != language:
        return None
    ident = text_of(mention, 'example_id')
    return SentenceExample('' if pair is not None else ident, _mention_text(context, mention['mention_span']))


def gold_mewslix(row: Row, task: Task, language: str) -> Sequence[tuple[str, str]]:
    """The gold pairs (mention id, entity id) of the mentions in the requested language."""
    if row['context']['language'] != row['#language']:
        return ()
    mention = row['mention'] if 'mention' in row else row['mentions']
    return ((text_of(mention, 'example_id'), text_of(mention, 'entity_id')),)


def _span(span: Any, text: str) -> tuple[int, int]:
    start, end = span.get('start'), span.get('end')
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        raise RowError('span', f'{span!r} does not lie in the text ({len(text)} characters)')
    return start, end


def _mention_text(context: dict[str, Any], mention: dict[str, Any]) -> str:
    text = text_of(context, 'text')
    start, end = _span(mention, text)
    surface = text[start:end]
    if surface != mention.get('text'):
        raise RowError('mention_span', f'{mention.get("text")!r} does not stand at character {start}: {surface!r}')
    sentences = [_span(span, text) for span in context.get('sentence_spans') or ()]
    within = next(((first, last) for first, last in sentences if first <= start and end <= last), None)
    if within is None:
        raise RowError('mention_span', f'{surface!r} at character {start} is not within one sentence')
    left, right = (re.sub(r'\{(.*?)\}', r'(\1)', part) for part in (text[within[0] : start], text[end : within[1]]))
    return _one_line(f'{surface}: {left} {{ {surface} }} {right}')


def _one_line(text: str) -> str:
    return ' '.join(text.splitlines()).replace('  ', ' ').strip()


def _bucc(split: str, suffix: str, columns: tuple[str, ...]) -> Table:
    name = f'{{language}}-en.{split}.{suffix}'
    other = Table(f'standins/bucc2018/{name}', 'tsv', columns, header=False, stand_in=BUCC_STAND_IN)
    return Table(f'xtreme/bucc2018/{name}', 'tsv', columns, header=False, alternatives=(other,))


BUCC = Task(
    name='bucc2018',
    kind='retrieval',
    labels=(),
    metrics=('f1', 'precision', 'recall'),
    languages=BUCC_LANGUAGES,
    splits={
        split: tuple(_bucc(split, side, ('id', 'text')) for side in ('{language}', 'en')) for split in ('dev', 'test')
    },
    gold={split: _bucc(split, 'gold', ('source', 'target')) for split in ('dev', 'test')},
    parse=parse_bucc,
    parse_gold=gold_bucc,
    licence='not stated by its authors',
    source='https://comparable.limsi.fr/bucc2018/bucc2018-task.html',
    note='pairs are mined in both directions and cut at the threshold that is best on dev; its test split is the '
    "shared task's training part; where BUCC is not there, Tatoeba sentences in its layout are read and flagged as a "
    'stand-in',
    checked_on='stand-in rows (Tatoeba sentences)',
)

_XQUAD_R = 'xtremer/lareqa/xquad-r/{language}.json'
_QUESTIONS = ('id', 'question', 'context', 'answers')

LAREQA = Task(
    name='lareqa',
    kind='retrieval',
    labels=(),
    metrics=('map@20',),
    languages=LAREQA_LANGUAGES,
    splits={
        'test': (
            Table(_XQUAD_R, 'squad', _QUESTIONS),
            Table(_XQUAD_R, 'squad_sentences', ('context',), every_language=True),
        )
    },
    gold={'test': Table(_XQUAD_R, 'squad', _QUESTIONS, every_language=True)},
    parse=parse_lareqa,
    parse_gold=gold_lareqa,
    train_task='squad_v1',
    licence='CC BY-SA 4.0',
    source='https://github.com/google-research-datasets/lareqa',
    note='a question of one language is asked against the sentences of all languages, and the answer in each of them '
    "is right; candidates are embedded as (sentence, paragraph); the same paragraphs as XQuAD's",
)


def _mewslix(name: str, columns: tuple[str, ...], side: str) -> Table:
    return Table(f'xtremer/mewslix/{name}.jsonl', 'jsonl', columns, explode=('mentions',), constants={'side': side})


MEWSLIX = Task(
    name='mewslix',
    kind='retrieval',
    labels=(),
    metrics=('map@20',),
    languages=MEWSLIX_LANGUAGES,
    splits={
        'train': tuple(
            _mewslix('wikipedia_pairs-train', ('contextual_mention', 'entity'), s) for s in ('mention', 'entity')
        ),
        **{
            split: (
                _mewslix(f'wikinews_mentions-{split}', ('context',), 'mention'),
                _mewslix('candidate_set_entities', ('entity_id', 'description'), 'entity'),
            )
            for split in ('dev', 'test')
        },
    },
    gold={split: _mewslix(f'wikinews_mentions-{split}', ('context',), 'mention') for split in ('dev', 'test')},
    parse=parse_mewslix,
    parse_gold=gold_mewslix,
    train_task='mewslix',
    licence='CC BY 2.5 (Wikinews), CC BY-SA 3.0 (Wikipedia), CC0 (Wikidata)',
    source='https://github.com/google-research/google-research',
    note='folder dense_representations_for_entity_retrieval/mel, whose script makes the files; a mention in one '
    'language is asked against a million entities in fifty; its train split pairs English mentions and entities, '
    'for a dual encoder',
    checked_on='hand-made rows',
)

TASKS = (BUCC, LAREQA, MEWSLIX)
