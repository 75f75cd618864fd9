"""evaluate --input: a user's own rows, predicted by a fine-tuned checkpoint; every kind of head and every format."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.data.sources import read_split
from xlmr_flax.data.tokenize import Tokenizer, pair_rows, single_rows
from xlmr_flax.encoders.config import SIZES
from xlmr_flax.kinds import HeadSpec, encode
from xlmr_flax.models.model import Model
from xlmr_flax.models.source import open_source, save_checkpoint
from xlmr_flax.tasks import get_task

Fails = Callable[..., str]
CONFIG = dataclasses.replace(SIZES['tiny'], num_layers=1, initializer_range=0.3)
NLI = ('contradiction', 'entailment', 'neutral')
LABELS = {'nli': NLI, 'pick': ('0', '1', '2'), 'tags': ('O', 'B-PER', 'I-PER'), 'qa': ()}
HEADS = {'nli': HeadSpec('pair', 3), 'pick': HeadSpec('choice'), 'tags': HeadSpec('tag', 3), 'qa': HeadSpec('span')}


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    """A folder of checkpoints of one encoder: one head each, and `all` of them."""
    root = tmp_path_factory.mktemp('ckpt')
    params = jax.device_get(Model(CONFIG).init(jax.random.key(0), HEADS))
    for name, heads in {**{name: (name,) for name in HEADS}, 'all': tuple(HEADS)}.items():
        save_checkpoint(
            root / name, CONFIG, {**params, 'heads': {head: params['heads'][head] for head in heads}}, tiny_tokenizer,
            style='jiant', heads={head: HEADS[head] for head in heads}, labels={h: LABELS[h] for h in heads},
            max_length=32, extra={},
        )  # fmt: skip
    return root


@pytest.fixture
def predict(checkpoints: Path, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Writes a file, predicts its rows with a checkpoint, and returns the records."""

    def run(checkpoint: str, name: str, content: str, *flags: str) -> list[dict[str, Any]]:
        path, out = tmp_path / name, tmp_path / 'out.jsonl'
        path.write_text(content, 'utf-8')
        command = ['evaluate', f'--encoder=ckpt:{checkpoints / checkpoint}', f'--input={path}', f'--out={out}', *flags]
        assert main(command) == 0
        return [json.loads(line) for line in out.read_text('utf-8').splitlines()]

    return run


Predict = Callable[..., list[dict[str, Any]]]
PAIRS = [('the cat sleeps', 'a cat is asleep'), ('Maria is in the garden', 'nobody is there'), ('x', 'the cat')]


def nli_probabilities(checkpoints: Path, tokens: Any) -> np.ndarray:
    """By hand: one row at a time, without padding."""
    source = open_source(f'ckpt:{checkpoints}/nli')
    model, params = Model(CONFIG), source.load()
    logits = [model.logits(params, 'nli', HEADS['nli'], row[None], np.ones_like(row[None]))[0] for row in tokens]
    return np.asarray(jax.nn.softmax(np.stack(logits)))


def test_pairs_with_every_probability(
    predict: Predict, checkpoints: Path, tiny_tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = predict('nli', 'mine.tsv', ''.join(f'{a}\t{b}\n' for a, b in PAIRS))
    tokens = pair_rows(Tokenizer(tiny_tokenizer, 2048), *zip(*PAIRS, strict=True), 32)
    want = nli_probabilities(checkpoints, tokens)
    for number, (record, row) in enumerate(zip(found, want, strict=True)):
        assert list(record) == ['row', 'label', 'probabilities']
        assert record['row'] == number
        assert list(record['probabilities']) == list(NLI)
        assert list(record['probabilities'].values()) == pytest.approx(row.tolist(), abs=1e-5)
        assert record['label'] == NLI[int(row.argmax())]
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].startswith(f'1  {found[1]["label"]} 0.')
    assert printed[1].endswith('Maria is in the garden | nobody is there')
    assert '3 rows, head nli (pair)' in printed[-1]


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('mine.txt', ''.join(f'{a}\t{b}\n' for a, b in PAIRS)),
        ('mine.tsv', 'extra\ttext_b\ttext_a\n' + ''.join(f'?\t{b}\t{a}\n' for a, b in PAIRS)),
        ('mine.csv', 'text_a,text_b\n' + ''.join(f'"{a}",{b}\n' for a, b in PAIRS)),
        ('mine.jsonl', ''.join(json.dumps({'text_a': a, 'text_b': b}) + '\n' for a, b in PAIRS)),
        ('mine.json', json.dumps([{'text_a': a, 'text_b': b} for a, b in PAIRS], indent=1)),
        ('lines.json', ''.join(json.dumps({'text_b': b, 'text_a': a}) + '\n' for a, b in PAIRS)),
        ('mine', ''.join(f'{a}\t{b}\n' for a, b in PAIRS)),
    ],
    ids=['txt', 'header', 'csv', 'jsonl', 'array', 'lines-of-json', 'no-ending'],
)
def test_one_answer_whatever_the_format(name: str, content: str, predict: Predict) -> None:
    want = predict('nli', 'same.tsv', ''.join(f'{a}\t{b}\n' for a, b in PAIRS))
    assert predict('nli', name, content) == want


def test_rows_with_and_without_a_second_text_keep_their_order_and_ids(
    predict: Predict, checkpoints: Path, tiny_tokenizer: Path
) -> None:
    rows = [{'id': 7, 'text_a': 'the cat'}, {'text_a': 'a dog', 'text_b': 'the cat'}, {'id': 'z', 'text_a': 'a dog',
            'text_b': None}]  # fmt: skip
    found = predict('nli', 'mine.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))
    assert [(r['row'], r.get('id')) for r in found] == [(0, '7'), (1, None), (2, 'z')]
    single = single_rows(Tokenizer(tiny_tokenizer, 2048), ['the cat', 'a dog'], 32)
    for record, row in zip(found[::2], nli_probabilities(checkpoints, single), strict=True):
        assert list(record['probabilities'].values()) == pytest.approx(row.tolist(), abs=1e-5)


def test_choices_may_be_of_any_number(predict: Predict) -> None:
    three = {'prompt': 'the cat', 'choices': ['sleeps', 'a dog', 'is in the garden']}
    rows = [three, {'prompt': 'the cat', 'choices': ['sleeps', 'a dog']}, {**three, 'choices': three['choices'][::-1]}]
    found = predict('pick', 'mine.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))
    assert [len(r['probabilities']) for r in found] == [3, 2, 3]
    for record, row in zip(found, rows, strict=True):
        assert sum(record['probabilities']) == pytest.approx(1, abs=1e-5)
        assert record['label'] == int(np.argmax(record['probabilities']))
        assert record['choice'] == row['choices'][record['label']]
    assert found[2]['probabilities'] == pytest.approx(found[0]['probabilities'][::-1], abs=1e-5)
    ratio = found[0]['probabilities'][0] / found[0]['probabilities'][1]
    assert found[1]['probabilities'][0] / found[1]['probabilities'][1] == pytest.approx(ratio, rel=1e-3)


SENTENCES = [['Maria', 'is', 'in', 'the', 'garden', '.'], ['a', 'dog']]


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('mine.txt', ''.join(' '.join(words) + '\n' for words in SENTENCES)),
        ('mine.tsv', '\n'.join(''.join(word + '\n' for word in words) for words in SENTENCES)),
        ('mine.conll', '\n'.join(''.join(f'{word} O\n' for word in words) for words in SENTENCES)),
        ('mine.jsonl', ''.join(json.dumps({'words': words}) + '\n' for words in SENTENCES)),
        (
            'mine.conllu',
            '\n'.join(''.join(f'{i}\t{w}' + '\t_' * 8 + '\n' for i, w in enumerate(words, 1)) for words in SENTENCES),
        ),
    ],
    ids=['sentences', 'words', 'tagged', 'jsonl', 'conllu'],
)
def test_every_word_has_a_tag_and_its_probability(name: str, content: str, predict: Predict) -> None:
    found = predict('tags', name, content)
    assert [record['words'] for record in found] == SENTENCES
    for record in found:
        assert len(record['tags']) == len(record['probabilities']) == len(record['words'])
        assert set(record['tags']) <= set(LABELS['tags'])
        assert all(1 / 3 - 1e-5 <= p <= 1 for p in record['probabilities'])


def test_tags_of_a_long_sentence_are_joined_again(predict: Predict) -> None:
    """32 tokens a row; the same words as a prediction file of a task would hold."""
    [record] = predict('tags', 'mine.txt', ' '.join(['Maria', 'is', 'in', 'the', 'garden'] * 12) + '\n')
    assert len(record['tags']) == 60


QUESTION = {'question': 'Where is Maria?', 'context': 'Maria is in the garden. The dog sleeps. ' * 6}


def test_answers_stand_at_their_place(predict: Predict) -> None:
    found = predict('qa', 'mine.jsonl', json.dumps(QUESTION) + '\n' + json.dumps({**QUESTION, 'id': 'q2'}) + '\n')
    for record in found:
        assert record['text'] == QUESTION['context'][record['start'] : record['end']] != ''
        assert all(np.isfinite([record['score'], record['no_answer_score']]))
    assert [r.get('id') for r in found] == [None, 'q2']
    asked = [{'id': ident, 'question': QUESTION['question']} for ident in ('q1', 'q2')]
    squad = {'data': [{'paragraphs': [{'context': QUESTION['context'], 'qas': asked}]}]}
    same = predict('qa', 'mine.json', json.dumps(squad))
    assert [r.pop('id') for r in same] == ['q1', 'q2']
    assert [{k: v for k, v in r.items() if k != 'id'} for r in found] == same


def test_the_answers_are_those_of_the_tasks_prediction_file(
    predict: Predict, checkpoints: Path, tmp_path: Path
) -> None:
    """The same rows through the task and through --input."""
    rows = read_split(get_task('world_spans'), 'de', 'test', limit=6)
    command = ['evaluate', f'--encoder=ckpt:{checkpoints}/qa', '--task=world_spans', '--languages=de',
               '--max_examples=6', f'--out={tmp_path}/o']  # fmt: skip
    assert main(command) == 0
    said = json.loads((tmp_path / 'o' / 'predictions' / 'world_spans' / 'test-de.json').read_text('utf-8'))
    lines = [json.dumps({'id': e.id, 'question': e.question, 'context': e.context}) for e in rows]  # type: ignore[union-attr]
    found = predict('qa', 'mine.jsonl', '\n'.join(lines) + '\n')
    assert {r['id']: r['text'] for r in found} == said


def test_one_of_several_heads_is_named(predict: Predict, checkpoints: Path, fails: Fails, tmp_path: Path) -> None:
    text = 'the cat\ta dog\n'
    assert predict('all', 'a.tsv', text, '--task=nli') == predict('nli', 'a.tsv', text)
    assert predict('all', 'a.tsv', text, '--task=world_nli') == predict('nli', 'a.tsv', text), (
        'its only head of that kind'
    )
    asked = ['evaluate', f'--encoder=ckpt:{checkpoints}/all', f'--input={tmp_path}/a.tsv', f'--out={tmp_path}/o']
    heads = '(heads: nli (pair, 3), pick (choice, 1), qa (span, 1), tags (tag, 3))'
    assert f'several heads, choose one with --task {heads}' in fails(*asked)
    assert f"no head or task 'nly' (did you mean 'nli'?) {heads}" in fails(*asked, '--task=nly')
    assert "no single head of kind 'pair' with 2 outputs for task 'world_pairs'" in fails(*asked, '--task=world_pairs')
    assert "no single head of kind 'retrieval'" in fails(*asked, '--task=world_retrieval')


@pytest.mark.parametrize(
    ('checkpoint', 'name', 'content', 'said'),
    [
        ('nli', 'a.tsv', 'a\tb\na\tb\tc\n', ', line 2: 3 fields, expected 2; a tab or quote'),
        ('nli', 'a.tsv', 'a\tb\n\tb\n', ", line 2, column 'text_a': an empty text"),
        ('nli', 'a.tsv', 'a\tb\tc\n', ', line 1: 3 fields, expected 1 to 2 (text_a, text_b)'),
        ('nli', 'a.csv', 'text,text_b\na,b\n', ", line 1: the header has no column 'text_a' (did you mean 'text_b'?)"),
        ('nli', 'a.jsonl', '{"text_a": "a"}\n{"text": "a"}\n', ", line 2: no field 'text_a'"),
        ('nli', 'a.jsonl', '{"text_a": "a"}\n{"text_a": 3}\n', ", line 2, column 'text_a': a string is expected"),
        ('nli', 'a.jsonl', '{"text_a": "a"\n', ', line 1: broken JSON: '),
        ('nli', 'a.tsv', 'Premise\thypothesis\na\tb\n', ', line 1: a header line'),
        ('nli', 'a.txt', '{"text_a": "a"}\n', ', line 1: JSON lines'),
        ('tags', 'a.txt', '{"words": ["a"]}\n', ', line 1: JSON lines'),
        ('nli', 'a.tsv', '', ': no rows in this file'),
        ('pick', 'a.txt', 'the cat\n', ": for a head of kind 'choice' a file ending in .jsonl or .json is expected"),
        ('tags', 'a.csv', 'the,cat\n', ": for a head of kind 'tag' a file ending in .txt or .tsv or .conll or "),
        ('pick', 'a.jsonl', '{"prompt": "a", "choices": ["b"]}\n', ", line 1, column 'choices': a list of at least"),
        ('tags', 'a.txt', 'the cat\n \n', ", line 2, column 'words': one or more words are expected, not ' '"),
        ('tags', 'a.conll', 'a O\nEU NNP B-ORG\n', ', line 2: a word and a tag are expected'),
        ('qa', 'a.json', '{"data": [{"paragraphs": [{"context": "a", "qas": [{"id": 1}]}]}]}', "no field 'question'"),
        ('qa', 'a.jsonl', '{"question": "a", "context": ""}\n', ", line 1, column 'context': an empty text"),
    ],
    ids=[
        'wider', 'empty', 'too-wide', 'header', 'field', 'type', 'json', 'other-header', 'json-pairs',
        'json-words', 'no-rows', 'ending', 'other-ending', 'choices',
        'no-words', 'columns', 'squad', 'context',
    ],
)  # fmt: skip
def test_bad_input_is_named(
    checkpoint: str, name: str, content: str, said: str, checkpoints: Path, tmp_path: Path, fails: Fails
) -> None:
    path = tmp_path / name
    path.write_text(content, 'utf-8')
    line = fails(
        'evaluate', f'--encoder=ckpt:{checkpoints / checkpoint}', f'--input={path}', f'--out={tmp_path}/o.jsonl'
    )
    assert line.startswith(f'error: {path}') and said in line
    assert sorted(p.name for p in tmp_path.iterdir()) == [name], 'nothing was written'


def test_bad_rows_are_left_out_and_listed(predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = predict('nli', 'a.tsv', 'a\tb\nc\n\td\ne\tf\n', '--skip_bad_rows')
    assert [record['row'] for record in found] == [0, 3]
    listed = (tmp_path / 'out.jsonl.bad_rows.tsv').read_text('utf-8').splitlines()
    path = tmp_path / 'a.tsv'
    assert listed == [
        'file\tline\treason',
        f'{path}\t2\t1 fields, expected 2; a row cut short?',
        f"{path}\t3\tcolumn 'text_a': an empty text",
    ]
    out = capsys.readouterr().out
    assert f'left out: {path}, line 2: 1 fields' in out
    assert '2 rows left out, listed in' in out


def test_where_every_row_is_bad(checkpoints: Path, tmp_path: Path, fails: Fails) -> None:
    path = tmp_path / 'a.jsonl'
    path.write_text('{}\n[]\n')
    line = fails('evaluate', f'--encoder=ckpt:{checkpoints}/nli', f'--input={path}', f'--out={tmp_path}/o.jsonl',
                 '--skip_bad_rows')  # fmt: skip
    assert f'{path}: none of its rows can be read' in line


def test_sentence_vectors(tiny_tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An encoder without heads: hidden states of the layer by depth, averaged."""
    path, out = tmp_path / 'a.txt', tmp_path / 'deep' / 'a.npy'
    texts = ['the cat sleeps', 'a dog', 'Maria is in the garden']
    path.write_text('\n'.join(texts) + '\n')
    assert main(['evaluate', '--encoder=random:tiny', f'--input={path}', f'--out={out}']) == 0
    found = np.load(out, allow_pickle=False)
    assert (found.shape, found.dtype) == ((3, 64), np.float32)
    source = open_source('random:tiny')
    rows = single_rows(Tokenizer(tiny_tokenizer, 2048), texts, 32)
    model, params = Model(source.config, 'hf'), source.load()
    for i in range(3):
        hidden = model.encode(params, rows[i][None], np.ones_like(rows[i][None]), layer=1)[0]
        np.testing.assert_allclose(found[i], np.asarray(hidden).mean(0), atol=1e-5)
    assert 'float32 [3, 64], layer 1 of 2 (14/24 of the depth), mean pooling' in capsys.readouterr().out
    assert [p.name for p in out.parent.iterdir()] == ['a.npy']


def test_an_encoder_without_heads_says_what_can_be_had(fails: Fails, tmp_path: Path) -> None:
    path = tmp_path / 'a.txt'
    path.write_text('a\n')
    line = fails('evaluate', '--encoder=random:tiny', f'--input={path}', f'--out={tmp_path}/o.jsonl')
    assert 'random:tiny: no head that predicts something (heads: none); --out=FILE.npy writes sentence vectors' in line


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        (['--languages=de'], '--languages has no meaning with --input'),
        (['--split=dev'], '--split has no meaning with --input'),
        (['--out=.'], ' is a folder; with --input it names the file to write'),
        (['--out=nowhere/a.txt'], 'nowhere/a.txt is the input'),
        (['--out=a.npy', '--task=nli'], '--task has no meaning with sentence vectors'),
        (['--out=a.npy', '--labels=a,b'], '--labels has no meaning with sentence vectors'),
        (['--out='], '--out is missing'),
        (['--encoder='], '--encoder is missing'),
        ([], 'nowhere/a.txt: no such file'),
    ],
)
def test_flags_that_do_not_go_together(flags: list[str], said: str, checkpoints: Path, fails: Fails) -> None:
    usual = [f'--encoder=ckpt:{checkpoints}/nli', '--input=nowhere/a.txt', '--out=o.jsonl']
    assert said in fails('evaluate', *usual, *flags)


def test_labels_of_a_foreign_checkpoint(checkpoints: Path, tiny_tokenizer: Path, tmp_path: Path) -> None:
    """A directory of transformers' with its classes in another order and spelling: called as it calls them, or as the
    task that is named spells them; without names by number."""
    params = jax.device_get(Model(CONFIG, 'hf').init(jax.random.key(1), {'x': HEADS['nli']}))
    text = tmp_path / 'a.tsv'
    text.write_text('the cat\ta dog\n')
    found = {}
    for labels in (('ENTAILMENT', 'NEUTRAL', 'CONTRADICTION'), ()):
        folder = tmp_path / ('named' if labels else 'plain')
        save_checkpoint(
            folder, CONFIG, params, tiny_tokenizer, style='hf', heads={'x': HEADS['nli']},
            labels={'x': labels} if labels else {}, max_length=32, extra={},
        )  # fmt: skip
        for task in ('', 'world_nli') if labels else ('',):
            out = tmp_path / 'o.jsonl'
            flags = [f'--task={task}'] if task else []
            assert main(['evaluate', f'--encoder=ckpt:{folder}', f'--input={text}', f'--out={out}', *flags]) == 0
            found[bool(labels), task] = list(json.loads(out.read_text('utf-8'))['probabilities'])
    assert found[True, ''] == ['ENTAILMENT', 'NEUTRAL', 'CONTRADICTION']
    assert found[True, 'world_nli'] == ['entailment', 'neutral', 'contradiction']
    assert found[False, ''] == ['0', '1', '2']


def test_tokens_are_those_of_the_tasks(tiny_tokenizer: Path, tmp_path: Path) -> None:
    """--input reads what `encode` of a task would get from the same texts."""
    from xlmr_flax.data.inputs import read_input
    from xlmr_flax.kinds.pair import Pair

    task = get_task('world_nli')
    rows = read_split(task, 'de', 'test', limit=5)
    path = tmp_path / 'a.tsv'
    path.write_text(''.join(f'{e.text_a}\t{e.text_b}\n' for e in rows), 'utf-8')  # type: ignore[union-attr]
    found, tokenizer = read_input(path, Pair.input), Tokenizer(tiny_tokenizer, 2048)
    ours = encode(found.task, found.examples, tokenizer, 32).tokens
    np.testing.assert_array_equal(ours.flat, encode(task, rows, tokenizer, 32).tokens.flat)
