"""Every dataset's layout, from a small file written by hand to the examples that come out, worked by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tasks import tiny_files
from tasks.tiny_files import LAKE, SEE

from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import BadRow, read_gold, read_pairs, read_split, with_labels
from xlmr_flax.data.spans import answer_tokens
from xlmr_flax.data.split import Split
from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.tasks.base import ChoiceExample as Choice
from xlmr_flax.tasks.base import PairExample as Pair
from xlmr_flax.tasks.base import SentenceExample as Sentence
from xlmr_flax.tasks.base import SpanExample as Span
from xlmr_flax.tasks.base import Table, TaskError
from xlmr_flax.tasks.base import TagExample as Tag

# Machine-translated files.
TRANSLATED: dict[tuple[str, str, str], list[Any]] = {
    # A quotation mark is a character like any other, and 'contradictory' is contradiction.
    ('mnli', 'de', 'translate_train'): [
        Pair('mnli-translate_train-de-0', 'Er "lief .', 'Er lief .', 1),
        Pair('mnli-translate_train-de-1', 'Er lief .', 'Er saß .', 0),
    ],
    ('mnli', 'sw', 'translate_train'): [Pair('mnli-translate_train-sw-0', 'Alikimbia .', 'Alikaa .', 0)],
    ('mnli', 'ko', 'translate_train'): [Pair('mnli-translate_train-ko-0', '하나', '둘', 2)],
    ('snli', 'ko', 'translate_train'): [Pair('snli-translate_train-ko-0', '하나', '셋', 0)],
    ('xnli', 'de', 'translate_test'): [Pair('xnli-translate_test-de-0', 'He ran .', 'He sat .', 0)],
    ('xnli', 'sw', 'translate_test'): [Pair('xnli-translate_test-sw-0', 'He ran .', 'He sat .', None)],
    ('pawsx', 'de', 'translate_train'): [Pair('7', 'Eins .', 'Zwei .', 1)],
    ('pawsx', 'ja', 'translate_train'): [Pair('pawsx-translate_train-ja-0', '一', '二', 0)],
    ('pawsx', 'ja', 'translate_test'): [Pair('pawsx-translate_test-ja-0', 'One .', 'Two .', 1)],
    # A question whose answer was lost is not trained on.
    ('squad_v1', 'de', 'translate_train'): [Span('a1', 'Wann?', SEE, (('Mai', 16),))],
    ('squad_v1', 'vi', 'translate_train'): [Span('a1', 'Khi nào?', LAKE, (('May', 18),))],
    ('squad_v1', 'it', 'translate_train'): [Span('a3', 'Quando?', LAKE, (('May', 18),))],
    ('squad_v1', 'de', 'translate_dev'): [Span('a4', 'Wer?', SEE, (('Niemand', 24),))],
    # But it is scored: the text stands behind the context's end.
    ('xquad', 'de', 'translate_test'): [
        Span('x1', 'When?', LAKE, (('May', 18), ('may', len(LAKE)))),
        Span('x2', 'Who?', LAKE, (('No one', len(LAKE)),)),
    ],
    ('squad_v1', 'vi', 'translate_dev'): [Span('a4', 'Ai?', LAKE, (('Nobody', 23),))],
    ('mlqa', 'es', 'translate_test'): [Span('m3', 'When?', LAKE, (('May', 18),))],
    # The ids of TyDiQA's training files are not unique.
    ('tydiqa', 'fi', 'translate_train'): [
        Span('tydiqa-translate_train-fi-0', 'Milloin?', LAKE, (('May', 18),)),
        Span('tydiqa-translate_train-fi-1', 'Kuka?', LAKE, (('Nobody', 23),)),
    ],
    ('tydiqa', 'fi', 'translate_test'): [Span('t1', 'When?', LAKE, (('May', 18),))],
    ('xcopa', 'it', 'translate_test'): [
        Choice('xcopa-translate_test-it-0', 'The glass fell. What was the effect?', ('It broke.', 'It sang.'), 1)
    ],
}

LETTERS = ('a', 'b', 'c', 'd')
SIQA = ('Al fell. How is Al?', ('glad', 'hurt', 'tall'))
COPA = ('It broke.', 'It sang.')
CSQA = ('Where is rain kept?', ('barrel', 'sky', 'shoe', 'book', 'hat'))

# (task, language, split) -> examples
EXPECTED: dict[tuple[str, str, str], list[Any]] = {
    ('qqp', 'en', 'train'): [Pair('qqp-train-en-0', 'Why?', 'How come?', 1)],
    ('qqp', 'en', 'dev'): [Pair('qqp-dev-en-0', 'A cat .', 'A dog .', 0)],
    # The second answer is kept in the context's spelling: 'in May', not 'in  May'.
    ('squad_v1', 'en', 'dev'): [Span('a1', 'When?', LAKE, (('May', 18), ('in May', 15)))],
    ('squad_v2', 'en', 'dev'): [
        Span('b1', 'When?', LAKE, (('in May', 15),)),
        Span('b2', 'Why?', LAKE, (), is_impossible=True),
    ],
    ('hellaswag', 'en', 'dev'): [
        Choice('hellaswag-dev-en-0', 'She opens the door.', ('she runs.', 'she flies.', 'she melts.', 'she rains.'), 2)
    ],
    ('cosmosqa', 'en', 'dev'): [
        Choice('c1', 'It rained, so I "stayed" in. Why stay?', ('No reason', 'Rain', 'Snow', 'Sun'), 1)
    ],
    ('commonsenseqa', 'en', 'dev'): [Choice('s1', *CSQA, 1)],
    ('commonsenseqa', 'en', 'test'): [Choice('s2', *CSQA, None)],
    ('siqa', 'en', 'train'): [Choice('siqa-train-en-0', *SIQA, 1)],
    ('siqa', 'en', 'dev'): [Choice('siqa-dev-en-0', *SIQA, 2)],
    ('copa', 'en', 'train'): [Choice('copa-train-en-0', 'The glass fell. What was the effect?', COPA, 0)],
    # The labels of SuperGLUE's test file are placeholders.
    ('copa', 'en', 'test'): [Choice('copa-test-en-0', 'The glass fell. What was the effect?', COPA, None)],
    ('xcopa', 'it', 'test'): [Choice('xcopa-test-it-0', 'The glass fell. What was the cause?', COPA, 1)],
    ('xcopa_gmt', 'it', 'test'): [Choice('xcopa_gmt-test-it-0', 'The glass fell. What was the effect?', COPA, 1)],
    ('logiqa2', 'en', 'dev'): [Choice('logiqa2-dev-en-0', 'All men die. So?', LETTERS, 3)],
    ('logiqa2', 'zh', 'dev'): [Choice('logiqa2-dev-zh-0', '人皆有死。 所以？', ('甲', '乙', '丙', '丁'), 0)],
    ('logiqa2_nli', 'en', 'dev'): [
        Pair('logiqa2_nli-dev-en-0', 'A. B. C.', 'D.', 0),
        Pair('logiqa2_nli-dev-en-1', 'A.', 'D.', 1),
        Pair('logiqa2_nli-dev-en-2', 'P.', 'D.', 1),
    ],
    ('reclor', 'en', 'dev'): [Choice('val_0', 'C. Q?', ('1', '2', '3', '4'), 2)],
    ('control', 'en', 'dev'): [Pair('id_0', 'P', 'H', 0)],
    ('folio', 'en', 'train'): [Pair('11', 'X is Y. Y is Z.', 'X is Z.', 1), Pair('12', 'X is Y.', 'X is W.', 2)],
    ('folio', 'en', 'dev'): [Pair('folio-dev-en-0', 'X is Y.', 'X is W.', 2)],
    ('help', 'en', 'train'): [
        Pair('help-train-en-0', 'He ran', 'He ran and sat', 2),
        Pair('help-train-en-1', 'He ran', 'He ran or sat', 1),
    ],
    ('med', 'en', 'test'): [Pair('med-test-en-0', 'No dog ran', 'No pug ran', 1)],
    ('conjnli', 'en', 'dev'): [Pair('conjnli-dev-en-0', 'A and B ran', 'A ran', 1)],
    ('sick', 'en', 'dev'): [Pair('4', 'A man runs', 'A man sits', 0)],
    ('fracas', 'en', 'test'): [
        Pair('1', 'All ran. Ann is one.', 'Ann ran.', 1),
        Pair('13', 'None ran.', 'Ann ran.', 0),
    ],
    ('logicnli', 'en', 'dev'): [
        Pair('logicnli-dev-en-0', 'A is B. B is C.', 'A is C.', 1),
        Pair('logicnli-dev-en-1', 'A is B. B is C.', 'A is D.', 3),
    ],
    ('americasnli', 'qu', 'dev'): [Pair('9', 'p', 'h', 2)],
    ('myxnli', 'my', 'dev'): [Pair('myxnli-dev-my-0', 'တစ်', 'နှစ်', 1)],
    ('myxnli', 'en', 'dev'): [Pair('myxnli-dev-en-0', 'one', 'two', 1)],
    ('kornli', 'ko', 'dev'): [Pair('kornli-dev-ko-0', '하나', '둘', 0)],
    ('xquad', 'de', 'test'): [Span('x1', 'Wann?', SEE, (('im Mai', 13),))],
    ('mlqa_cross', 'en-de', 'dev'): [Span('m1', 'Wann?', LAKE, (('May', 18),))],
    ('mlqa', 'de', 'test'): [Span('m2', 'Wann?', SEE, ())],
    # The ids of its training files repeat.
    ('tydiqa', 'en', 'train'): [
        Span('tydiqa-train-en-0', 'When?', LAKE, (('May', 18),)),
        Span('tydiqa-train-en-1', 'Who?', LAKE, (('Nobody', 23),)),
    ],
    # Answers lost in translation are left out, and the question that has no other.
    ('squad_it', 'it', 'test'): [
        Span('i1', 'Quando?', LAKE, (('', len(LAKE)), ('May', 18))),
        Span('i2', 'Chi?', LAKE, (('nobody', len(LAKE)),)),
    ],
    # Vámonos is nearest to the root as VERB; al = a + el at one depth, ADP before DET; a sentence of '_' is dropped,
    # both treebanks are read, the zero-width non-joiner and the blank inside a word are taken out.
    ('udpos', 'es', 'test'): [
        Tag('udpos-test-es-0', ('Vámonos', 'al', 'mar'), (15, 1, 7)),
        Tag('udpos-test-es-1', ('10000',), (8,)),
    ],
    ('udpos', 'ar', 'test'): [Tag('udpos-test-ar-0', ('في', 'بيت'), (1, 7))],
    ('panx', 'af', 'dev'): [
        Tag('panx-dev-af-0', ('Hy', 'is'), (6, 6)),
        Tag('panx-dev-af-1', ('Pous', 'Romanus'), (2, 5)),
    ],
    ('panx', 'af', 'test'): [Tag('panx-test-af-0', ('Hy', 'is'), None), Tag('panx-test-af-1', ('Pous',), None)],
    ('masakhaner2', 'sw', 'test'): [Tag('masakhaner2-test-sw-0', ('Jana', 'Asha', 'alienda'), (7, 2, 6))],
    ('masakhaner2_nodate', 'sw', 'test'): [Tag('masakhaner2_nodate-test-sw-0', ('Jana', 'Asha', 'alienda'), (6, 2, 6))],
    ('masakhapos', 'tw', 'test'): [Tag('masakhapos-test-tw-0', ('Ama', 'kɔ'), (11, 15))],
    # Tags by first appearance, over train, test (not here) and dev: NP/N N S\NP . | S/NP
    ('ccg', 'en', 'train'): [
        Tag('ccg-train-en-0', ('Every', 'man', 'runs', '.'), (0, 1, 2, 3)),
        Tag('ccg-train-en-1', ('a|b',), (1,)),
    ],
    ('ccg', 'en', 'dev'): [Tag('ccg-dev-en-0', ('Ann', 'runs'), (1, 4))],
    ('udhr', 'de', 'train'): [
        Sentence('udhr-train-de-0', 'Artikel 1'),
        Sentence('udhr-train-de-2', 'Alle Menschen sind frei.'),
    ],
    ('udhr', 'zh', 'train'): [Sentence('udhr-train-zh-0', '第一条')],
    ('mlm_text', 'sw', 'train'): [Sentence('mlm_text-train-sw-0', 'Habari.')],
}


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_files.write(tmp_path_factory.mktemp('tiny'))


@pytest.mark.parametrize(('task', 'language', 'split'), [*EXPECTED, *TRANSLATED])
def test_examples(task: str, language: str, split: str, root: Path) -> None:
    assert read_split(get_task(task), language, split, root) == (EXPECTED | TRANSLATED)[task, language, split]


def test_every_layout_of_translated_files_is_tried() -> None:
    for task in all_tasks().values():
        for split, codes in task.translated.items():
            tables = [table for table in task.splits[split] if isinstance(table, Table)]
            for table in [each for first in tables for each in (first, *first.alternatives)]:
                paths = {table.path.replace('{language}', code) for code in codes}
                assert paths & set(tiny_files.FILES), f'{task.name}: {table.path}'


def test_an_answer_without_a_place_is_at_no_token(root: Path) -> None:
    [_, lost] = read_split(get_task('xquad'), 'de', 'translate_test', root)
    assert isinstance(lost, Span)
    [(text, start)] = lost.answers
    offsets = np.asarray([match.span() for match in re.finditer(r'\S+', lost.context)])
    assert answer_tokens(offsets, start, start + len(text)) is None


@pytest.mark.parametrize(
    ('row', 'reason'),
    [
        (('One .', 'Two .', 'Eins .', 'Zwei .', '2'), "line 2, column 'label': unknown label '2'"),
        (('One .', 'Two .', 'Eins .', '1'), 'line 2: 4 fields, expected 5'),
    ],
)
def test_a_bad_row_of_a_translated_file(row: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    file = tmp_path / 'translated/xtreme_translations/PAWSX/translate-train/en-de-translated.tsv'
    file.parent.mkdir(parents=True)
    file.write_text(tiny_files.tsv(('One .', 'Two .', 'Eins .', 'Zwei .', '1'), row), encoding='utf-8')
    with pytest.raises(DataError, match=reason):
        read_split(get_task('pawsx'), 'de', 'translate_train', tmp_path)
    bad: list[BadRow] = []
    assert len(read_split(get_task('pawsx'), 'de', 'translate_train', tmp_path, skip_bad_rows=bad)) == 1
    assert len(bad) == 1


def test_translated_rows_are_there_in_their_languages_alone(root: Path) -> None:
    task = get_task('mnli')
    here = [
        code
        for code in task.languages + task.translated['translate_train']
        if Split(task, code, 'train', root).is_there()
    ]
    assert here == []
    assert Split(task, 'de', 'translate_train', root).is_there()
    assert not Split(task, 'en', 'translate_train', root).is_there()
    assert not Split(task, 'fr', 'translate_train', root).is_there()
    with pytest.raises(TaskError, match="no language 'en' in split 'translate_train'"):
        read_split(task, 'en', 'translate_train', root)
    with pytest.raises(DataError, match=r'multinli\.train\.fr\.tsv: no such file'):
        read_split(task, 'fr', 'translate_train', root)


def test_bucc(root: Path) -> None:
    task = get_task('bucc2018')
    german, english = read_pairs(task, 'de', 'dev', root)
    assert [(e.id, e.text) for e in german] == [('de-1', 'Eins.'), ('de-2', 'Zwei.'), ('de-3', 'Drei.')]
    assert [e.id for e in english] == ['en-1', 'en-2']
    assert read_gold(task, 'de', 'dev', root) == [('de-1', 'en-2'), ('de-2', 'en-1')]
    assert Split(task, 'de', 'dev', root).stand_in() == 'Tatoeba sentences in the layout of BUCC 2018'
    assert [len(side) for side in read_pairs(task, 'de', 'dev', root, limit=1)] == [1, 2], 'the pool stays whole'
    assert len(Split(task, 'de', 'dev', root).files()) == 3


def test_lareqa(root: Path) -> None:
    task = get_task('lareqa')
    questions, pool = read_pairs(task, 'de', 'test', root)
    assert [(q.id, q.text) for q in questions] == [('q1_de', 'Wann fror der See zu?'), ('q2_de', 'Wer sah es?')]
    assert len(pool) == 22
    assert pool[0] == Sentence('ar_1_0', 'The lake froze in May.', LAKE)
    assert [c.id for c in pool[2:4]] == ['de_1_0', 'de_1_1'], 'languages in the order of the task'
    gold = read_gold(task, 'de', 'test', root)
    assert len(gold) == 22
    assert {right for question, right in gold if question == 'q2_de'} == {f'{code}_1_1' for code in task.languages}


def test_mewslix(root: Path) -> None:
    task = get_task('mewslix')
    mentions, entities = read_pairs(task, 'de', 'dev', root)
    assert [(m.id, m.text) for m in mentions] == [
        ('m1', 'Bonn: Die Stadt (alt) { Bonn } liegt am Rhein.'),
        ('m2', 'Rhein: Die Stadt (alt) Bonn liegt am { Rhein } .'),
    ]
    assert [e.id for e in entities] == ['Q586', 'Q584']
    assert entities[0].text == 'Bonn is a city. It is old.'
    assert read_gold(task, 'de', 'dev', root) == [('m1', 'Q586'), ('m2', 'Q584')]
    assert read_gold(task, 'fa', 'dev', root) == []
    left, right = read_pairs(task, 'de', 'train', root)
    assert [left[0].text[:5], right[0].text] == ['Rhein', 'Bonn is a city. It is old.']


def test_what_stands_in_is_said(root: Path) -> None:
    assert Split(get_task('qqp'), 'en', 'dev', root).stand_in() == 'PAWS-X pairs in the layout of QQP'
    assert Split(get_task('qqp'), 'en', 'train', root).stand_in() == '', 'the official file goes first'
    assert 'C&C' in Split(get_task('ccg'), 'en', 'train', root).stand_in()
    assert Split(get_task('world_nli'), 'en', 'train').stand_in() == ''


def test_labels_from_files(root: Path, tmp_path: Path) -> None:
    task = get_task('ccg')
    whole = with_labels(task, root)
    assert (task.labels, whole.labels) == ((), ('NP/N', 'N', 'S\\NP', '.', 'S/NP'))
    assert with_labels(whole, root) is whole
    assert with_labels(get_task('panx'), root) is get_task('panx')
    before = Split(task, 'en', 'train', root).digest()
    tiny_files.write(tmp_path, 'intermediate/ccg/train.stagged')
    assert with_labels(task, tmp_path).labels == whole.labels[:4]
    assert Split(task, 'en', 'train', tmp_path).digest() != before, 'other labels are other data'


@pytest.mark.parametrize(
    ('name', 'sections'),
    [
        ('ccg', {'train': range(19), 'dev': range(19, 22), 'test': range(22, 25)}),
        ('ccg_usual', {'train': range(2, 22), 'dev': range(1), 'test': range(23, 24)}),
    ],
)
def test_sections_of_ccgbank(name: str, sections: dict[str, range], tmp_path: Path) -> None:
    leaf = 'ID=x PARSER=GOLD NUMPARSE=1\n(<L N NNP NNP w{0:02} N>)\n'
    for section in range(25):
        file = tmp_path / f'intermediate/ccg/data/AUTO/{section:02}/wsj_{section:02}01.auto'
        file.parent.mkdir(parents=True)
        file.write_text(leaf.format(section), encoding='utf-8')
    tiny_files.write(tmp_path, 'intermediate/ccg/train.stagged')
    for split, wanted in sections.items():
        examples = read_split(get_task(name), 'en', split, tmp_path)
        assert [e.words[0] for e in examples if isinstance(e, Tag)] == [f'w{section:02}' for section in wanted]
        assert Split(get_task(name), 'en', split, tmp_path).stand_in() == ''
