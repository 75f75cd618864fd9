"""Prediction files here and in XTREME's and XTREME-R's evaluate.py: the same order, the same layout, both ways.

For every task of the two benchmarks, an official-looking data root whose order has traps, and the file that a perfect
system submits for it, written down by hand from XTREME's preprocessing (utils_preprocess.py) and reader (evaluate.py).
docs/layout.md holds the outcome: python tests/scoring/test_layout_table.py > docs/layout.md
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_flax.config import Evaluation
from xlmr_flax.data.sources import read_pairs, read_split
from xlmr_flax.data.spans import SpanRows
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import SIZES
from xlmr_flax.eval.zero_shot import Evaluator
from xlmr_flax.kinds import example_sums, read_gold_set, score_files
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.mesh import make_mesh
from xlmr_flax.scoring.benchmarks import XTREME, XTREME_R
from xlmr_flax.scoring.score import score_folder
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import SentenceExample

DOCS = Path(__file__).parents[2] / 'docs' / 'layout.md'
HEAD = """# Prediction files and XTREME's evaluate.py

Every file under `predictions/` has the name, the order and the layout that XTREME's and XTREME-R's own `evaluate.py`
expects, and `xlmr-flax score` and `report --against` read the files of any other system in that layout. For each task a
test makes a small data root in official form whose order has traps, and the file of a perfect system as the benchmark's
preprocessing and reader want it. **ours**: what an evaluation here writes equals that file. **theirs**: that file gets
100 from the scorer here, from its per-example sums and from `score`. Made by
`python tests/scoring/test_layout_table.py > docs/layout.md`; a test holds this page against what it finds.

"""
LABEL_FILES = {
    'xnli': ('xtreme/xnli/test-de.tsv', 'Eins .\tZwei .\t{}\n', ('neutral', 'entailment', 'contradiction', 'neutral')),
    'pawsx': ('xtreme/pawsx/x-final/de/test_2k.tsv', '{row}\tEins .\tZwei .\t{}\n', ('1', '0', '0', '1')),
}
HEADS = {'pawsx': 'id\tsentence1\tsentence2\tlabel\n'}
TREEBANKS = {  # by folder name PUD comes before ParTUT; XTREME sorts the file names, and en_partut < en_pud
    'UD_English-PUD/en_pud-ud-test.conllu': ('Vier', 'NUM'),
    'UD_English-ParTUT/en_partut-ud-test.conllu': ('Hunde', 'NOUN'),
    'UD_English-EWT/en_ewt-ud-test.conllu': ('laufen', 'VERB'),
}
KEYS = ('dog', 'sun', 'bread', 'cat')  # words that the two sides of a retrieval pair share here
ENGLISH = ('zebra dog', 'Apple sun', ' a bread', 'Éclair cat')  # sorted by code point once stripped
SORTED = (1, 2, 0, 3)
CANDIDATES = ('Sieben ist dog .', 'Drei ist sun .', 'Fünf ist bread .')
TEXT = ' '.join(CANDIDATES)


@dataclass(frozen=True)
class Case:
    """A task's data root in small and a perfect system's file for it.

    file, content: its name and text in the reference's layout. data: files of the data root, path -> text. order: what
    decides which item stands where. reason: what a reader of the table must know besides yes.
    """

    task: str
    language: str
    file: str
    content: str
    order: str
    data: dict[str, str] = field(default_factory=dict)
    reason: str = ''


def _squad(ids: Sequence[str]) -> str:
    """A file in SQuAD's form with XQuAD-R's sentence boundaries; one question a sentence, its first word the answer."""
    words = [sentence.split()[0] for sentence in CANDIDATES]
    qas = [
        {'id': id_, 'question': f'Was ist {key} ?', 'answers': [{'text': word, 'answer_start': TEXT.index(word)}]}
        for id_, key, word in zip(ids, KEYS[:3], words, strict=True)
    ]
    starts = [TEXT.index(sentence) for sentence in CANDIDATES]
    breaks = [[start, start + len(sentence)] for start, sentence in zip(starts, CANDIDATES, strict=True)]
    return json.dumps(
        {'data': [{'title': 't', 'paragraphs': [{'context': TEXT, 'qas': qas, 'sentence_breaks': breaks}]}]}
    )


def _mewslix() -> dict[str, str]:
    mentions, entities = [], []
    for k, key in enumerate(KEYS[:3]):
        text = f'Das Wort {key} hier .'
        start = text.index(key)
        span = {'start': start, 'end': start + len(key), 'text': key}
        mentions.append(
            {
                'context': {'text': text, 'language': 'de', 'sentence_spans': [{'start': 0, 'end': len(text)}]},
                'mentions': [{'example_id': f'm{9 - k}', 'mention_span': span, 'entity_id': f'Q{key}'}],
            }
        )
        description = f'Word {key} .'
        spans = [{'start': 0, 'end': len(description)}]
        entities.append({'entity_id': f'Q{key}', 'description': description, 'sentence_spans': spans})
    files = {'wikinews_mentions-test': mentions, 'candidate_set_entities': entities[::-1]}
    return {f'xtremer/mewslix/{name}.jsonl': '\n'.join(map(json.dumps, rows)) + '\n' for name, rows in files.items()}


def cases() -> Iterator[Case]:
    """One case a task, in the order of the benchmarks' tables."""
    for task, (path, line, labels) in LABEL_FILES.items():
        rows = [line.format(label, row=row) for row, label in enumerate(labels, 1)]
        data = {path: HEADS.get(task, '') + ''.join(rows)}
        yield Case(task, 'de', 'test-de.tsv', '\n'.join(labels) + '\n', 'rows of the file', data)
    yield Case(
        'udpos', 'en', 'test-en.tsv', 'VERB\n\nNOUN\n\nNUM\n', 'treebanks by file name, sentences as they stand',
        {f'xtreme/udpos/{path}': f'1\t{word}\t_\t{tag}\t_\t_\t0\troot\t_\t_\n\n'
         for path, (word, tag) in TREEBANKS.items()},
    )  # fmt: skip
    yield Case(
        'panx', 'de', 'test-de.tsv', 'B-PER\nI-PER\nO\n\nB-LOC\n', 'sentences of the file',
        {'xtreme/panx/test-de.tsv': 'Ada\tB-PER\nByron\tI-PER\nlacht\tO\n\nOslo\tB-LOC\n'},
    )  # fmt: skip
    answers = {'q9': 'Sieben', 'q1': 'Drei', 'q5': 'Fünf'}
    for task, path, language in (
        ('xquad', 'xtreme/xquad/xquad.de.json', 'de'),
        ('mlqa', 'xtreme/mlqa/MLQA_V1/test/test-context-de-question-de.json', 'de'),
        ('tydiqa', 'xtreme/tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.fi.dev.json', 'fi'),
    ):
        data = {path: _squad(list(answers))}
        yield Case(task, language, f'test-{language}.json', json.dumps(answers), 'by question id', data)
    sides = {side: ''.join(f'{side}-{key}\t{key} {side}\n' for key in KEYS) for side in ('de', 'en')}
    gold = ''.join(f'de-{key}\ten-{key}\n' for key in KEYS)
    yield Case(
        'bucc2018', 'de', 'test-de.tsv', gold, 'a set of id pairs',
        {f'xtreme/bucc2018/de-en.{split}.{suffix}': text for split in ('dev', 'test')
         for suffix, text in (*sides.items(), ('gold', gold))},
    )  # fmt: skip
    lines = ''.join(f'{line}\n' for line in ENGLISH)
    yield Case(
        'tatoeba', 'de', 'test-de.tsv', ''.join(f'{row}\n' for row in SORTED),
        'English lines stripped and sorted by code point; row numbers of the other side',
        {f'xtreme/tatoeba/v1/tatoeba.deu-eng.{suffix}': lines for suffix in ('eng', 'deu')},
    )  # fmt: skip
    rows = [
        {'premise': 'Es regnet .', 'choice1': 'nass', 'choice2': 'warm', 'question': 'effect', 'label': label, 'idx': i}
        for i, label in enumerate((1, 0, 0))
    ]
    yield Case(
        'xcopa', 'et', 'test-et.jsonl', ''.join(f'{{"label": {row["label"]}}}\n' for row in rows), 'rows of the file',
        {'xtremer/xcopa/data/et/test.et.jsonl': ''.join(json.dumps(row) + '\n' for row in rows)},
    )  # fmt: skip
    ranking = {f'm{9 - k}': [f'Q{key}'] for k, key in enumerate(KEYS[:3])}
    yield Case('mewslix', 'de', 'test-de.json', json.dumps(ranking), 'by mention id, best entity first', _mewslix())
    codes = get_task('lareqa').languages
    ranking = {f'{id_}_de': [f'{code}_1_{k}' for code in codes] for k, id_ in enumerate(answers)}
    yield Case(
        'lareqa', 'de', 'test-de.json', json.dumps(ranking), 'by question id, best candidate first',
        {f'xtremer/lareqa/xquad-r/{code}.json': _squad(list(answers)) for code in codes},
        reason="evaluate.py has no reader for LAReQA; the layout is Mewsli-X's",
    )  # fmt: skip


class Perfect(Evaluator):
    """An evaluator whose model makes no mistake: heads give the gold labels, and a text's vector counts the KEYS in
    it, which translations, answers and entities share in the cases above."""

    def outputs(self, task: Any, sets: Any, progress: Any = None) -> list[Any]:
        (language,) = self.evaluation.languages[task.name]
        data = self._encode(task, read_split(task, language, 'test', self.data_root))
        if task.kind == 'pair':
            return [np.eye(len(task.labels))[data.label]]
        if task.kind == 'choice':
            return [np.eye(data.group)[data.label].reshape(-1)]
        if task.kind == 'span':
            assert data.spans is not None
            return [gold_logits(data.spans)]
        assert data.tags is not None
        return [[np.maximum(labels, 0) for labels in data.tags.labels]]

    def _embed(self, task: str, tokens: Any, *_: Any, **__: Any) -> np.ndarray:
        marks = [int(self.tokenizer.encode([key])[0].max()) for key in KEYS]
        counts = [[(row == mark).sum() for mark in marks] for row in tokens]
        return np.asarray(counts, np.float32) + 1e-3


def gold_logits(rows: SpanRows) -> list[np.ndarray]:
    """Logits that point at the gold span of each window."""
    out = [np.zeros((length, 2), np.float32) for length in rows.tokens.lengths]
    for logits, start, end in zip(out, rows.start, rows.end, strict=True):
        logits[start, 0] = logits[end, 1] = 10.0
    return out


def read_as_the_reference(path: Path, right: int = 1) -> Any:
    """A prediction file as evaluate.py's readers have it; mined pairs as a set, of a ranking the first `right` ids."""
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.json':
        found = json.loads(text)
        return {key: {*value[:right]} if isinstance(value, list) else value for key, value in found.items()}
    if path.suffix == '.jsonl':
        return [json.loads(line)['label'] for line in text.splitlines()]
    lines = [line.strip() for line in text.rstrip('\n').split('\n')]
    return {tuple(line.split('\t')) for line in lines} if '\t' in text else lines


def write_files(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding='utf-8')
    return folder


def ours(case: Case, folder: Path) -> bool:
    """Whether what a perfect evaluation here writes is, for evaluate.py, the file of a perfect system."""
    root = write_files(folder / 'data', case.data)
    tokenizer = Path(str(resources.files('xlmr_flax.models') / 'tiny_tokenizer.json'))
    model, task = Model(SIZES['tiny'], 'hf'), get_task(case.task)
    evaluation = Evaluation(languages={case.task: (case.language,)}, packing=False)
    evaluator = Perfect(
        model, {}, Tokenizer(tokenizer, SIZES['tiny'].vocab_size), make_mesh(), evaluation, str(root),
        128, ('x', None),  # type: ignore[arg-type]
    )  # fmt: skip
    evaluator.run(task, case.language, 'test', folder / 'ours')
    official = write_files(folder / 'theirs', {f'{case.task}/{case.file}': case.content})
    right = len(get_task('lareqa').languages) if case.task == 'lareqa' else 1
    folders = (folder / 'ours', official)
    found, expected = (read_as_the_reference(each / case.task / case.file, right) for each in folders)
    return found == expected


def theirs(case: Case, folder: Path) -> bool:
    """Whether the file of a perfect system gets 100 here: from the scorer, the sums over examples, and `score`."""
    task, path = get_task(case.task), folder / 'theirs' / case.task / case.file
    gold = read_gold_set(task, case.language, 'test', str(folder / 'data'), 0)
    metric = task.metrics[0]
    sums = True
    if case.task != 'bucc2018':  # its F1 is no sum over examples
        over, under = example_sums(gold, path, metric)
        sums = over.sum() == under.sum() > 0
    if task.kind != 'retrieval':
        examples = read_split(task, case.language, 'test', folder / 'data')
        sums &= score_files(task, case.language, path, examples)[metric] == 100
    elif case.task == 'tatoeba':
        queries: list[SentenceExample] = read_pairs(task, case.language, 'test', folder / 'data')[0]
        sums &= score_files(task, case.language, path, queries)[metric] == 100
    labels = folder / 'labels' / case.task / case.file
    labels.parent.mkdir(parents=True)
    is_squad = task.kind == 'span'
    labels.write_text(next(iter(case.data.values())) if is_squad else path.read_text('utf-8'), encoding='utf-8')
    benchmark = 'xtreme-r' if case.task not in XTREME.parts else 'xtreme'
    scores = score_folder(folder / 'theirs', folder / 'labels', benchmark, allow_missing=True)
    return bool(sums) and scores['tasks'][case.task]['languages'][case.language][metric] == 100


def markdown() -> str:
    """The page docs/layout.md."""
    head = ['task', 'file', 'order', 'ours', 'theirs', 'note']
    lines = [f'| {" | ".join(head)} |', '| --- | --- | --- | --- | --- | --- |']
    for case in cases():
        with tempfile.TemporaryDirectory() as folder:
            said = ['yes' if find(case, Path(folder)) else 'NO' for find in (ours, theirs)]
        file = case.file.replace(f'-{case.language}.', '-LANG.')
        lines.append(f'| `{case.task}` | `{case.task}/{file}` | {case.order} | {" | ".join(said)} | {case.reason} |')
    return HEAD + '\n'.join(lines) + '\n'


CASES = {case.task: case for case in cases()}


def test_every_task_of_the_benchmarks_has_a_case() -> None:
    assert set(CASES) == {*XTREME.parts, *XTREME_R.parts}


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_order_and_layout(case: Case, tmp_path: Path) -> None:
    assert ours(case, tmp_path)
    assert theirs(case, tmp_path)


def test_the_page_is_up_to_date() -> None:
    rows = [
        line.split(' | ')[0].strip('| `') for line in DOCS.read_text(encoding='utf-8').splitlines() if ' yes ' in line
    ]
    assert rows == list(CASES)
    assert DOCS.read_text(encoding='utf-8') == markdown(), 'run this file: it writes docs/layout.md'


if __name__ == '__main__':
    sys.stdout.write(markdown())
