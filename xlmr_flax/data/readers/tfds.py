"""Reads prepared TensorFlow Datasets (ArrayRecord format) in place of missing local files, without TensorFlow.

If a local file does not exist, its rows are read from DATA_ROOT/tfds/BUILDER/CONFIG/VERSION, else from TFDS_DATA_DIR
(tensorflow_datasets' own variable). Rows get the columns of the local file, so that the task's parser is the same.

To prepare a dataset, most of these builders need TensorFlow, which unpacks the archives. Reading never needs it:

    tfds.builder('glue/mnli', data_dir='DATA_ROOT/tfds', file_format='array_record').download_and_prepare()

tensorflow_datasets writes rows in shuffled order, so row numbers, and ids made from them, differ from those of the
file. There is no builder for CommonsenseQA, CCG, Social IQa, XCOPA, LAReQA or Mewsli-X. Those for PAN-X, UD-POS and
Tatoeba cannot prepare data without TensorFlow, and BUCC's has only the gold pairs. These datasets need local files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_flax.data.readers.text import DataError, Problem, Row, Rows
from xlmr_flax.tasks.base import Table
from xlmr_flax.util import strict_json

FORMAT = 'tfds'
FOLDER = 'tfds'
DIRECTORY_VARIABLE = 'TFDS_DATA_DIR'
_INFO = 'dataset_info.json'
_ARRAY_RECORD = 'array_record'
_TYDIQA_LANGUAGES = {
    'ar': 'arabic', 'bn': 'bengali', 'en': 'english', 'fi': 'finnish', 'id': 'indonesian', 'ko': 'korean',
    'ru': 'russian', 'sw': 'swahili', 'te': 'telugu',
}  # fmt: skip

# (a record's values as plain Python, class names by feature, language) -> the local file's row; None = not in that file
ToRow = Callable[[dict[str, Any], Mapping[str, list[str]], str], Row | None]


@dataclass(frozen=True)
class Prepared:
    """The TFDS dataset that has the rows of a local file. configs and split may contain `{language}`; configs are tried
    in order ('' = a builder without configs). row: converts a record to the local file's row.
    """

    builder: str
    configs: tuple[str, ...]
    split: str
    row: ToRow

    def __str__(self) -> str:
        return f'{self.builder}/{self.configs[0]}'.rstrip('/')


def _class_name(record: Mapping[str, Any], names: Mapping[str, list[str]], missing: str = '') -> str:
    """The name of a record's label; `missing` if the label is -1, which is TFDS's mark for rows without a label."""
    number = record['label']
    return names['label'][number] if number >= 0 else missing


def glue_mnli(record: dict[str, Any], names: Mapping[str, list[str]], language: str) -> Row:
    """Converts glue/mnli and snli: premise, hypothesis, label entailment, neutral, contradiction; SNLI's '-' is -1."""
    label = _class_name(record, names, '-')
    return {'sentence1': record['premise'], 'sentence2': record['hypothesis'], 'gold_label': label}


def anli(record: dict[str, Any], names: Mapping[str, list[str]], language: str) -> Row:
    """Converts anli/r1 to r3: label e, n, c, as in the file."""
    return {**_only(record, 'uid', 'context', 'hypothesis'), 'label': _class_name(record, names)}


def glue_qqp(record: dict[str, Any], names: Mapping[str, list[str]], language: str) -> Row:
    """Converts glue/qqp: label not_duplicate or duplicate; the file has 0 and 1. GLUE's test rows have no label."""
    label = {} if record['label'] < 0 else {'is_duplicate': str(record['label'])}
    return {**_only(record, 'question1', 'question2'), **label}


def squad(record: dict[str, Any], names: Mapping[str, list[str]], language: str) -> Row:
    """Converts squad, mlqa, xquad: {answers: {text: [...], answer_start: [...]}} -> answers [{text, answer_start}]."""
    answers = record['answers']
    pairs = zip(answers['text'], answers['answer_start'], strict=True)
    row = _only(record, 'id', 'question', 'context')
    row['answers'] = [{'text': text, 'answer_start': start} for text, start in pairs]
    return row | ({'is_impossible': record['is_impossible']} if 'is_impossible' in record else {})


def tydiqa(record: dict[str, Any], names: Mapping[str, list[str]], language: str) -> Row | None:
    """Converts tydi_qa/goldp; None for a row in another language. The train split contains all languages; an id begins
    with the language's name."""
    if record['id'].split('-')[0] != _TYDIQA_LANGUAGES.get(language, language):
        return None
    return squad(record, names, language)


def hellaswag(record: dict[str, Any], names: Mapping[str, list[str]], language: str) -> Row:
    """Converts hellaswag: `context` is ctx_a and ctx_b joined by a blank; the label -1 marks rows without a label.

    `context` is split after its last complete sentence. This gives the file's own ctx_a and ctx_b for 3,492 of 3,500
    rows of the file. In the others, a sentence is at the start of the choices instead of the end of the prompt, or the
    reverse.
    """
    context = record['context']
    ends = [match.end() for match in re.finditer(r'[.?!)\]"\'](?=\s)', context)]
    at = ends[-1] if ends and context[-1] not in '.?!)]"\'' else len(context)
    label = {} if record['label'] < 0 else {'label': record['label']}
    return {'ctx_a': context[:at], 'ctx_b': context[at:].lstrip(), 'endings': record['endings'], **label}


def cosmosqa(record: dict[str, Any], names: Mapping[str, list[str]], language: str) -> Row:
    """Converts cosmos_qa: the columns are those of the file; test rows have the label -1."""
    row = _only(record, 'id', 'context', 'question', 'answer0', 'answer1', 'answer2', 'answer3')
    return row | ({} if record['label'] < 0 else {'label': _class_name(record, names)})


def xnli(record: dict[str, Any], names: Mapping[str, list[str]], language: str) -> Row:
    """Converts xnli: a record has all fifteen languages, as a dict of premises and lists of languages and
    hypotheses."""
    hypothesis = record['hypothesis']
    translations = dict(zip(hypothesis['language'], hypothesis['translation'], strict=True))
    label = _class_name(record, names)
    return {'sentence1': record['premise'][language], 'sentence2': translations[language], 'label': label}


def pawsx(record: dict[str, Any], names: Mapping[str, list[str]], language: str) -> Row:
    """Converts paws_x_wiki: it has no ids, and its builder has dropped rows whose label is not 0 or 1."""
    return {'id': '', **_only(record, 'sentence1', 'sentence2'), 'label': _class_name(record, names)}


def _only(record: Mapping[str, Any], *columns: str) -> Row:
    return {column: record[column] for column in columns}


def _splits(path: str, files: Mapping[str, str], builder: str, row: ToRow, *configs: str) -> dict[str, Prepared]:
    """PREPARED entries for the files of one path. files: {text in place of '{}' in the path: split}."""
    return {path.replace('{}', file): Prepared(builder, configs, split, row) for file, split in files.items()}


_DEV = {'train': 'train', 'dev': 'validation', 'test': 'test'}
_MNLI = {'train': 'train', 'dev_matched': 'validation_matched', 'dev_mismatched': 'validation_mismatched'}
_TRAIN_DEV = {'train': 'train', 'dev': 'validation'}

# Path of a table (tasks/base.Table.path) -> the TFDS dataset that has its rows.
PREPARED: dict[str, Prepared] = {
    **_splits('intermediate/mnli/{}.tsv', _MNLI, 'glue', glue_mnli, 'mnli'),
    **_splits('intermediate/snli/snli_1.0_{}.txt', _DEV, 'snli', glue_mnli, '', 'plain_text'),
    **_splits('intermediate/anli/anli_v1.0/R1/{}.jsonl', _DEV, 'anli', anli, 'r1'),
    **_splits('intermediate/anli/anli_v1.0/R2/{}.jsonl', _DEV, 'anli', anli, 'r2'),
    **_splits('intermediate/anli/anli_v1.0/R3/{}.jsonl', _DEV, 'anli', anli, 'r3'),
    **_splits('intermediate/qqp/{}.tsv', _DEV, 'glue', glue_qqp, 'qqp'),
    **_splits('intermediate/squad_v1.1/{}-v1.1.json', _TRAIN_DEV, 'squad', squad, 'v1.1'),
    **_splits('intermediate/squad_v2.0/{}-v2.0.json', _TRAIN_DEV, 'squad', squad, 'v2.0'),
    **_splits(
        'intermediate/hellaswag/hellaswag_{}.jsonl', {'train': 'train', 'val': 'validation', 'test': 'test'},
        'hellaswag', hellaswag, '',
    ),
    **_splits(
        'intermediate/cosmosqa/{}.csv', {'train': 'train', 'valid': 'validation', 'test': 'test'},
        'cosmos_qa', cosmosqa, '',
    ),
    **_splits('xtreme/xnli/{}-{language}.tsv', {'dev': 'validation', 'test': 'test'}, 'xnli', xnli, '', 'plain_text'),
    **_splits('xtreme/pawsx/x-final/en/{}.tsv', {'train': 'train'}, 'paws_x_wiki', pawsx, 'en'),
    **_splits(
        'xtreme/pawsx/x-final/{language}/{}_2k.tsv', {'dev': 'validation', 'test': 'test'},
        'paws_x_wiki', pawsx, '{language}',
    ),
    **_splits(
        'xtreme/mlqa/MLQA_V1/{}/{}-context-{language}-question-{language}.json', {'dev': 'validation', 'test': 'test'},
        'mlqa', squad, '{language}',
    ),
    **_splits('xtreme/xquad/{}.{language}.json', {'xquad': 'test'}, 'xquad', squad, '{language}'),
    'xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.{language}.train.json': Prepared(
        'tydi_qa', ('goldp',), 'train', tydiqa
    ),
    'xtreme/tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.{language}.dev.json': Prepared(
        'tydi_qa', ('goldp',), 'validation-{language}', tydiqa
    ),
}  # fmt: skip


@cache
def prepared_for(path: str) -> tuple[Prepared, str] | None:
    """(TFDS dataset, language code) for a table's path, which has `{language}` or a code in it; None = not in TFDS."""
    for template, prepared in PREPARED.items():
        parts = template.split('{language}')
        pattern = r'(?P<code>[^/]+?)'.join(map(re.escape, parts[:2]))
        pattern += ''.join(r'(?P=code)' + re.escape(part) for part in parts[2:])
        if match := re.fullmatch(pattern, path):
            return prepared, match.groupdict().get('code', '')
    return None


def find_prepared(path: str, root: Path) -> Path | None:
    """The folder of the newest prepared version with the rows of a local path (its language filled in); None if there
    is none.

    Looks under root/tfds, then under TFDS_DATA_DIR. Raises DataError if data exists, but not in ArrayRecord format.
    """
    match = prepared_for(path)
    if match is None:
        return None
    prepared, code = match
    split, refused = prepared.split.replace('{language}', code), ''
    for base in folders(root):
        for config in prepared.configs:
            folder = base / prepared.builder / config.replace('{language}', code)
            for info in sorted(folder.glob(f'*/{_INFO}'), key=_version, reverse=True):
                form, splits = _form_and_splits(info)
                if split in splits and form == _ARRAY_RECORD:
                    return info.parent
                if split in splits:
                    refused = refused or f'{info.parent}: prepared as {form}, which takes TensorFlow to read'
    if refused:
        raise DataError(f"{refused}; prepare it with file_format='{_ARRAY_RECORD}'")
    return None


def folders(root: Path) -> list[Path]:
    """The folders that are searched for prepared datasets."""
    other = os.environ.get(DIRECTORY_VARIABLE)
    return [root / FOLDER, *([Path(other).expanduser()] if other else [])]


def _version(info: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else -1 for part in info.parent.name.split('.'))


def _form_and_splits(info: Path) -> tuple[str, set[str]]:
    """Reads (file format, names of splits) of a prepared dataset. Raises DataError."""
    try:
        content = strict_json.read_object(info)
        return str(content.get('fileFormat', 'tfrecord')), {split['name'] for split in content['splits']}
    except (OSError, strict_json.JsonError, KeyError, TypeError) as error:
        raise DataError(f'{info}: not the description of a prepared TFDS dataset ({error!r})') from None


def data_files(folder: Path, path: str) -> list[Path]:
    """The ArrayRecord files that have the rows of a local path, in order, and the files with the label names."""
    match = prepared_for(path)
    split = match[0].split.replace('{language}', match[1]) if match else ''
    names = sorted(folder.glob('*.labels.txt')) + sorted(folder.glob('features.json'))
    return sorted(folder.glob(f'*-{split}.{_ARRAY_RECORD}*')) + names


def read_prepared(path: Path, table: Table) -> Rows:
    """Reads the rows of a prepared dataset in the columns of the local file table.path (its language filled in).

    Rows are numbered from 1. Raises DataError for data that cannot be read.
    """
    match = prepared_for(table.path)
    if match is None:
        raise DataError(f'{path}: no TFDS dataset is known to stand for {table.path}')
    prepared, code = match
    data, names = _open(path, prepared.split.replace('{language}', code))
    for number in range(len(data)):
        try:
            row = prepared.row(plain(data[number]), names, code)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            yield number + 1, Problem(f'not as {prepared} is known to be: {error!r}')
            continue
        if row is not None:
            yield number + 1, row


def _open(path: Path, split: str) -> tuple[Any, dict[str, list[str]]]:
    """Opens a split with tensorflow_datasets; returns (its records, class names by feature). Raises DataError."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(f'{path}: tensorflow_datasets does not import here ({error})') from None
    try:
        builder: Any = tfds.builder_from_directory(str(path))
        data = builder.as_data_source(split=split)
        features = builder.info.features
    except Exception as error:  # whatever tensorflow_datasets and array_record raise for files that are broken
        raise DataError(f'{path}: split {split!r} cannot be read: {type(error).__name__}: {error}') from None
    return data, {key: list(each.names) for key, each in features.items() if hasattr(each, 'names')}


def plain(value: Any) -> Any:
    """Converts bytes to text and numpy scalars and arrays to Python numbers and lists, recursively in dicts and
    lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode('utf-8')
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def described(path: str) -> str:
    """The TFDS name ('glue/mnli') of a table's path, '' if TFDS does not have it."""
    match = prepared_for(path)
    return str(match[0]).replace('{language}', match[1] or '{language}') if match else ''


def full_name(folder: Path, path: str) -> str:
    """TFDS's full name of a prepared folder: builder, config, version ('glue/mnli:2.0.0'). path: the table's path."""
    match = prepared_for(path)
    parts = folder.parts
    start = len(parts) - 1 - parts[::-1].index(match[0].builder) if match and match[0].builder in parts else -2
    return f'{"/".join(parts[start:-1])}:{parts[-1]}'
