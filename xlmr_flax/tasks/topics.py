"""Classification of one text: topics of African news (MasakhaNEWS) and sentiment in languages of Indonesia (NusaX)."""

from __future__ import annotations

from xlmr_flax.tasks import parsers
from xlmr_flax.tasks.base import PairExample, Table, Task, text_of
from xlmr_flax.tasks.languages import get_language
from xlmr_flax.tasks.parsers import Row, id_of

NEWS_TOPICS = ('business', 'entertainment', 'health', 'politics', 'religion', 'sports', 'technology')
MASAKHANEWS_FOLDERS = (
    'amh', 'eng', 'fra', 'hau', 'ibo', 'lin', 'lug', 'orm', 'pcm', 'run', 'sna', 'som', 'swa', 'tir', 'xho', 'yor',
)  # fmt: skip
NUSAX_FOLDERS = {
    'ace': 'acehnese', 'ban': 'balinese', 'bjn': 'banjarese', 'bug': 'buginese', 'en': 'english', 'id': 'indonesian',
    'jv': 'javanese', 'mad': 'madurese', 'min': 'minangkabau', 'nij': 'ngaju', 'su': 'sundanese', 'bbc': 'toba_batak',
}  # fmt: skip


def parse_news(row: Row, task: Task, language: str) -> PairExample:
    """Parses an article: its headline and its text, one after the other, with its topic."""
    label = task.label_index(row['category'], 'category')
    return PairExample('', parsers.text(row, ('headline', 'text')), None, label)


def parse_sentiment(row: Row, task: Task, language: str) -> PairExample:
    """Parses a text with its sentiment. The same id is the same text in every language of a split."""
    return PairExample(id_of(row, 'id'), text_of(row, 'text'), None, task.label_index(row['label'], 'label'))


def _news(path: str, *others: Table, without: str = '') -> Table:
    left_out = {f'low_resource/masakhanews/{without}': 'text'} if without else {}
    columns = ('category', 'headline', 'text')
    return Table(f'low_resource/masakhanews/{path}', 'csv_tabs', columns, alternatives=others, without=left_out)


_NEWS_CODES = {get_language(folder).code: folder for folder in MASAKHANEWS_FOLDERS}
_TEST = 'data/{language}/test.tsv'

MASAKHANEWS = Task(
    name='masakhanews',
    kind='pair',
    labels=NEWS_TOPICS,
    metrics=('weighted_f1', 'macro_f1', 'accuracy'),
    languages=tuple(_NEWS_CODES),
    local_codes=_NEWS_CODES,
    splits={
        'train': (
            _news(
                'data/{language}/train.tsv',
                _news('few_shot_data/50_samples/{language}/train.tsv', without=_TEST),
                without=_TEST,
            ),
        ),
        'dev': (_news('data/{language}/dev.tsv'),),
        'test': (_news(_TEST),),
    },
    parse=parse_news,
    train_task='masakhanews',
    scorer='class_f1',
    licence='AFL-3.0; the articles are by BBC, VOA and other newspapers: research use (NC)',
    source='https://github.com/masakhane-io/masakhane-news',
    note='headline and text; English has no articles on religion, so that a model trained on English does not predict '
    'this topic: it counts, as in the scores of its authors, and bounds the F1 of a language that has it; without the '
    'whole training set the official one of 50 articles a topic is read; training texts that are in the test file are '
    'left out',
)

NUSAX = Task(
    name='nusax',
    kind='pair',
    labels=('negative', 'neutral', 'positive'),
    metrics=('macro_f1', 'accuracy'),
    languages=tuple(NUSAX_FOLDERS),
    local_codes=NUSAX_FOLDERS,
    splits={
        split: (Table(f'low_resource/nusax/sentiment/{{language}}/{name}.csv', 'csv', ('id', 'text', 'label')),)
        for split, name in (('train', 'train'), ('dev', 'valid'), ('test', 'test'))
    },
    parse=parse_sentiment,
    train_task='nusax',
    scorer='class_f1',
    licence='CC BY-SA 4.0',
    source='https://github.com/IndoNLP/nusax',
    note='NusaX-senti; the same id is the same text in every language; trained on English like every target here, its '
    'authors train on each language',
)

TASKS = (MASAKHANEWS, NUSAX)
