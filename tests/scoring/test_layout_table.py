"""Prediction files in the layout of docs/layout.md: that of XTREME's and XTREME-R's evaluate.py, read and written.

For every task of the benchmarks, an official-looking data root whose row order is easy to get wrong, and a perfect
system's file, written by hand: for XTREME and XTREME-R from XTREME's preprocessing (utils_preprocess.py) and reader
(evaluate.py). docs/layout.md holds the outcome: python tests/scoring/test_layout_table.py > docs/layout.md
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
from xlmr_flax.scoring.benchmarks import BENCHMARKS
from xlmr_flax.scoring.gold import GoldOfDataRoot
from xlmr_flax.scoring.score import score_folder
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import SentenceExample

DOCS = Path(__file__).parents[2] / 'docs' / 'layout.md'
HEAD = """# Prediction files and gold files

Every file of these tasks under `predictions/` has the name, the order and the format of this page, and
`xlmr-flax score` and `report --against` read the files of any other system in that layout. For the tasks of XTREME and
XTREME-R it is the layout that their own `evaluate.py` expects; for the others (`--benchmark=low-resource`) it has the
same forms. LANG is a code of [Tasks](tasks.md) (`sw`), not that of the dataset's files (`swh_Latn`), and labels are the
names of this table (`neutral`), not the dataset's numbers. The queries of retrieval are the English sentences.

`score` takes the gold labels from one of two places. `--data_root=DATA`: the test files of the data root, which
[Tasks](tasks.md) lists; no other gold files are needed. `--labels=DIR`: gold files with the names of this table and the
same format; the gold file of a question answering task (`.json`, answers) is the dataset's own, in SQuAD's JSON format.

For each task a test makes a small data root in official form whose row order is easy to get wrong, and a perfect
system's file, as the benchmark's preprocessing and reader want it. **ours**: what an evaluation here writes equals that
file. **theirs**: that file gets 100 from the scorer here, from its per-example sums and from `score`, with either place
of gold labels. Made by `python tests/scoring/test_layout_table.py > docs/layout.md`; a test compares the two.

"""
FORMATS = dict.fromkeys(('labels', 'classes'), 'a label a line') | {
    'tags': 'a tag a line, an empty line between sentences',
    'choices': '`{"label": 0}` a line: the choice, counted from 0',
    'indices': 'a number a line: the row, counted from 0, of the sentence nearest to the query',
    'pairs': 'source id, tab, target id',
    **dict.fromkeys(('squad', 'mlqa'), 'JSON object: question id to answer'),
    'ranking': 'JSON object: query id to list of ids',
}
# Tasks with a label a row: language, file, head, row, labels of the file, and the names of these, if they are others.
_NLI = 'premise,hypothesis,label\n'
LABELLED: dict[str, tuple[str, str, str, str, str, str]] = {
    'xnli': ('de', 'xtreme/xnli/test-de.tsv', '', 'Eins .\tZwei .\t{}', 'neutral entailment contradiction neutral', ''),
    'pawsx': ('de', 'xtreme/pawsx/x-final/de/test_2k.tsv', 'id\tsentence1\tsentence2\tlabel\n',
              '{row}\tEins .\tZwei .\t{}', '1 0 0 1', ''),
    'afrixnli': ('sw', 'low_resource/afrixnli/swa/test.csv', _NLI, '"A, b",c,{}', '1 contradiction 0',
                 'neutral contradiction entailment'),
    'americasnli': ('qu', 'low_resource/americasnli/test/quy.tsv', 'id\tpremise\thypothesis\tlabel\n',
                    '{row}\ta\tb\t{}', 'neutral entailment contradiction', ''),
    'indicxnli': ('ta', 'low_resource/indicxnli/tam/test.csv', _NLI, 'a,b,{}', '2 0 1',
                  'contradiction entailment neutral'),
    'sib200': ('sw', 'low_resource/sib200/swh_Latn/test.tsv', 'index_id\tcategory\ttext\n', '{row}\t{}\t"a ""b"""',
               'travel geography science/technology', ''),
    'masakhanews': ('ha', 'low_resource/masakhanews/data/hau/test.tsv', 'category\theadline\ttext\turl\n',
                    '{}\ta\t"b\nc"\td', 'sports business health', ''),
    'nusax': ('nij', 'low_resource/nusax/sentiment/ngaju/test.csv', 'id,text,label\n', '{row},"a, b",{}',
              'positive negative neutral', ''),
}  # fmt: skip
PARALLEL = {  # both sides of the retrieval tasks whose row i is row i of the other side
    'sib200_retrieval': [f'sib200/{code}/test.tsv' for code in ('eng_Latn', 'swh_Latn')],
    'flores200': [f'flores200_dataset/devtest/{code}.devtest' for code in ('eng_Latn', 'swh_Latn')],
    'ntrex': [f'ntrex128/NTREX-128/newstest2019-{code}.txt' for code in ('src.eng', 'ref.swa')],
}
# By folder name PUD comes before ParTUT; XTREME sorts the file names, and en_partut < en_pud.
TREEBANKS = {'PUD/en_pud': ('Vier', 'NUM'), 'ParTUT/en_partut': ('Hunde', 'NOUN'), 'EWT/en_ewt': ('laufen', 'VERB')}
KEYS = ('dog', 'sun', 'bread', 'cat')  # words that the two sides of a retrieval pair share here
ENGLISH = ('zebra dog', 'Apple sun', ' a bread', 'Éclair cat')  # sorted by code point once stripped
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
    paragraph = {'context': TEXT, 'qas': qas, 'sentence_breaks': breaks}
    return json.dumps({'data': [{'title': 't', 'paragraphs': [paragraph]}]})


def _mewslix() -> dict[str, str]:
    mentions, entities = [], []
    for k, key in enumerate(KEYS[:3]):
        text = f'Das Wort {key} hier .'
        start = text.index(key)
        span = {'start': start, 'end': start + len(key), 'text': key}
        context = {'text': text, 'language': 'de', 'sentence_spans': [{'start': 0, 'end': len(text)}]}
        mention = {'example_id': f'm{9 - k}', 'mention_span': span, 'entity_id': f'Q{key}'}
        mentions.append({'context': context, 'mentions': [mention]})
        description = f'Word {key} .'
        spans = [{'start': 0, 'end': len(description)}]
        entities.append({'entity_id': f'Q{key}', 'description': description, 'sentence_spans': spans})
    files = {'wikinews_mentions-test': mentions, 'candidate_set_entities': entities[::-1]}
    return {f'xtremer/mewslix/{name}.jsonl': '\n'.join(map(json.dumps, rows)) + '\n' for name, rows in files.items()}


def cases() -> Iterator[Case]:
    """One case for each task of XTREME and XTREME-R, and for those with a label a row."""
    for task, (language, path, head, line, labels, written) in LABELLED.items():
        rows = [line.format(label, row=9 - row) + '\n' for row, label in enumerate(labels.split())]
        content = ''.join(f'{label}\n' for label in (written or labels).split())
        yield Case(task, language, f'test-{language}.tsv', content, 'rows of the file', {path: head + ''.join(rows)})
    yield Case(
        'udpos', 'en', 'test-en.tsv', 'VERB\n\nNOUN\n\nNUM\n', 'treebanks by file name, sentences as they stand',
        {f'xtreme/udpos/UD_English-{path}-ud-test.conllu': f'1\t{word}\t_\t{tag}\t_\t_\t0\troot\t_\t_\n\n'
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
        'tatoeba', 'de', 'test-de.tsv', '1\n2\n0\n3\n',
        'English lines stripped and sorted by code point; row numbers of the other side',
        {f'xtreme/tatoeba/v1/tatoeba.deu-eng.{suffix}': lines for suffix in ('eng', 'deu')},
    )  # fmt: skip
    choice = {'premise': 'Es regnet .', 'choice1': 'nass', 'choice2': 'warm', 'question': 'effect'}
    yield Case(
        'xcopa', 'et', 'test-et.jsonl', '{"label": 1}\n{"label": 0}\n{"label": 0}\n', 'rows of the file',
        {'xtremer/xcopa/data/et/test.et.jsonl':
         ''.join(json.dumps(choice | {'label': label, 'idx': row}) + '\n' for row, label in enumerate((1, 0, 0)))},
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


def low_resource_cases() -> Iterator[Case]:
    """One case for each other task for low-resource languages."""
    yield Case(
        'uner', 'tl', 'test-tl.tsv', 'B-LOC\nO\n\nO\nB-PER\n', 'treebanks by file name, sentences as they stand',
        {'low_resource/uner/UNER_Tagalog-A/tl_ugnayan-ud-test.iob2': '1\tSi\tB-OTH\t-\t-\n2\tAna\tB-PER\t-\tx\n',
         'low_resource/uner/UNER_Tagalog-B/tl_trg-ud-test.iob2': '1\tOslo\tB-LOC\t-\t-\n2\t.\tO\t-\t-\n'},
        reason='other entities (OTH) are O',
    )  # fmt: skip
    choice = dict.fromkeys(('flores_passage', 'question', *(f'mc_answer{number}' for number in range(1, 5))), 'Ndiyo .')
    yield Case(
        'belebele', 'sw', 'test-sw.jsonl', '{"label": 2}\n{"label": 0}\n{"label": 3}\n', 'rows of the file',
        {'low_resource/belebele/swh_Latn.jsonl':
         ''.join(json.dumps(choice | {'correct_answer_num': number}) + '\n' for number in '314')},
    )  # fmt: skip
    for task, paths in PARALLEL.items():
        head, line = ('index_id\tcategory\ttext\n', '{}\ttravel\t{}\n') if 'sib200' in task else ('', '{1}\n')
        sides = [head + ''.join(map(line.format, (9, 7, 8, 3), texts)) for texts in (ENGLISH, KEYS)]
        data = {f'low_resource/{path}': side for path, side in zip(paths, sides, strict=True)}
        yield Case(task, 'sw', 'test-sw.tsv', '0\n1\n2\n3\n', 'rows of the English file, not sorted', data)


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
    metric = 'accuracy' if task.kind == 'pair' else task.metrics[0]
    sums = True
    if case.task != 'bucc2018':  # its F1 is no sum over examples
        over, under = example_sums(gold, path, metric)
        sums = over.sum() == under.sum() > 0
    if task.kind != 'retrieval':
        examples = read_split(task, case.language, 'test', folder / 'data')
        sums &= set(score_files(task, case.language, path, examples).values()) == {100}
    elif 'test' not in task.gold:
        queries: list[SentenceExample] = read_pairs(task, case.language, 'test', folder / 'data')[0]
        sums &= score_files(task, case.language, path, queries)[metric] == 100
    text = next(iter(case.data.values())) if task.kind == 'span' else case.content
    labels = write_files(folder / 'labels', {f'{case.task}/{case.file}': text})
    benchmark = next(name for name, each in BENCHMARKS.items() if case.task in each.parts)
    places = (labels, GoldOfDataRoot(folder / 'data'))
    each = [score_folder(folder / 'theirs', place, benchmark, allow_missing=True) for place in places]
    values = each[0]['tasks'][case.task]['languages'][case.language]
    return bool(sums) and set(values.values()) == {100} and each[0]['tasks'] == each[1]['tasks']


def format_of(task: str) -> str:
    """The format of a task's prediction file, with the names of its classes."""
    form = next(each.parts[task].form for each in BENCHMARKS.values() if task in each.parts)
    names = get_task(task).labels if form in ('labels', 'classes', 'tags') else ()
    return f'{FORMATS[form]}: {", ".join(names)}' if names else FORMATS[form]


def markdown() -> str:
    """The page docs/layout.md."""
    head = ['task', 'file', 'format', 'order', 'ours', 'theirs', 'note']
    lines = [f'| {" | ".join(head)} |', f'| {" | ".join(["---"] * len(head))} |']
    for case in CASES.values():
        with tempfile.TemporaryDirectory() as folder:
            said = ['yes' if find(case, Path(folder)) else 'NO' for find in (ours, theirs)]
        file = case.file.replace(f'-{case.language}.', '-LANG.')
        cells = [f'`{case.task}`', f'`{case.task}/{file}`', format_of(case.task), case.order, *said, case.reason]
        lines.append(f'| {" | ".join(cells)} |')
    return HEAD + '\n'.join(lines) + '\n'


_TASKS = list(dict.fromkeys(task for each in BENCHMARKS.values() for task in each.parts))
CASES = {case.task: case for case in sorted([*cases(), *low_resource_cases()], key=lambda c: _TASKS.index(c.task))}


def test_every_task_of_the_benchmarks_has_a_case() -> None:
    assert list(CASES) == _TASKS


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_order_and_layout(case: Case, tmp_path: Path) -> None:
    assert ours(case, tmp_path)
    assert theirs(case, tmp_path)


def test_the_page_is_up_to_date() -> None:
    text = DOCS.read_text(encoding='utf-8')
    rows = [line.split(' | ')[0].strip('| `') for line in text.splitlines() if ' yes ' in line]
    assert rows == list(CASES)
    assert text == markdown(), 'run this file: it writes docs/layout.md'


if __name__ == '__main__':
    sys.stdout.write(markdown())
