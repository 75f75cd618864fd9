"""evaluate on a task's data with checkpoints of others: the names of their classes, and the order they stand in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from xlmr_flax.cli.main import main
from xlmr_flax.encoders.config import SIZES, ModelError
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models import hf
from xlmr_flax.models.model import Model

Fails = Callable[..., str]
TINY = SIZES['tiny']
WIKIANN = ('O', 'B-PER', 'I-PER', 'B-ORG', 'I-ORG', 'B-LOC', 'I-LOC')


def save(out: Path, tokenizer: Path, spec: HeadSpec, labels: Sequence[str], always: int) -> Path:
    """A checkpoint whose head always says the same class."""
    params = jax.device_get(Model(TINY, 'hf').init(jax.random.key(0), {'x': spec}))
    head = params['heads']['x']['out']
    head['kernel'], head['bias'] = np.zeros_like(head['kernel']), np.eye(spec.outputs, dtype=np.float32)[always]
    hf.save(out, TINY, params, tokenizer, head=('x', spec), labels=labels)
    return out


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """PAN-X with persons alone, XNLI with entailment alone."""
    files = {
        'panx/dev-en.tsv': 'Ada\tB-PER\nByron\tB-PER\n\nNairobi\tB-PER\n',
        'xnli/test-en.tsv': 'A cat sleeps .\tAn animal sleeps .\tentailment\n' * 3,
    }
    for name, text in files.items():
        path = tmp_path / 'data' / 'xtreme' / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding='utf-8')
    return tmp_path / 'data'


def evaluate(model: Path, task: str, split: str, root: Path, *flags: str) -> list[str]:
    return [
        'evaluate', f'--encoder=hf:{model}', f'--task={task}', f'--split={split}', '--languages=en',
        f'--data_root={root}', f'--out={model}.out', *flags,
    ]  # fmt: skip


def values(model: Path) -> dict[str, float]:
    rows = (json.loads(line) for line in Path(f'{model}.out', 'results.jsonl').read_text('utf-8').splitlines())
    return {row['metric']: row['value'] for row in rows}


def test_a_tagger_with_its_labels_in_another_order(root: Path, tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = save(tmp_path / 'm', tiny_tokenizer, HeadSpec('tag', 7), WIKIANN, WIKIANN.index('B-PER'))
    assert main(evaluate(model, 'panx', 'dev', root)) == 0
    written = Path(f'{model}.out', 'predictions', 'panx', 'dev-en.tsv').read_text('utf-8').split()
    assert written == ['B-PER'] * 3
    assert values(model)['f1'] == 100


def test_classes_without_names_are_not_scored_in_a_guessed_order(
    root: Path, tmp_path: Path, tiny_tokenizer: Path, fails: Fails
) -> None:
    model = save(tmp_path / 'm', tiny_tokenizer, HeadSpec('pair', 3), (), 0)
    command = evaluate(model, 'xnli', 'test', root)
    assert "the classes of head 'imported' have no names" in (message := fails(*command))
    assert 'name the 3 classes in the order of the head with --labels=' in message
    assert not list(Path(f'{model}.out').rglob('*.tsv'))
    assert "task 'xnli' has" in fails(*command, '--labels=yes,no')
    assert main([*command, '--labels=entailment,neutral,contradiction']) == 0
    assert values(model)['accuracy'] == 100


def test_a_tagger_without_names(root: Path, tmp_path: Path, tiny_tokenizer: Path, fails: Fails) -> None:
    model = save(tmp_path / 'm', tiny_tokenizer, HeadSpec('tag', 7), (), 1)
    assert 'name the 7 classes' in fails(*evaluate(model, 'panx', 'dev', root))


@pytest.mark.parametrize(
    'names',
    [
        {'0': '', '1': 'x', '2': 'y'},
        {'0': ' ', '1': 'x', '2': 'y'},
        {'a': 0, 'b': 1, 'c': 2},
        {'0': 'no', '1': 'yes'},
        {'0': 'x', '1': 'x', '2': 'y'},
        ['no', 'yes'],
        'no',
    ],
)
def test_names_that_are_not_one_a_class(names: object, tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = save(tmp_path / 'm', tiny_tokenizer, HeadSpec('pair', 3), (), 0)
    config = json.loads((model / 'config.json').read_text('utf-8'))
    (model / 'config.json').write_text(json.dumps(config | {'id2label': names}), 'utf-8')
    with pytest.raises(ModelError, match=r'm/config\.json: id2label must give each of the 3 classes'):
        hf.HfModel(model)
    (model / 'config.json').write_text(json.dumps(config | {'id2label': ['x', 'y', 'z']}), 'utf-8')
    assert hf.HfModel(model).labels == ('x', 'y', 'z')


@pytest.mark.parametrize(
    ('name', 'shape'),
    [
        ('classifier.out_proj.weight', (4, 64)), ('classifier.out_proj.bias', (3, 2)), ('classifier.out_proj.bias', ()),
        ('classifier.dense.weight', (64, 3)),
    ],
)  # fmt: skip
def test_a_head_of_another_shape(name: str, shape: tuple[int, ...], tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = save(tmp_path / 'm', tiny_tokenizer, HeadSpec('pair', 3), (), 0)
    tensors = load_file(model / 'model.safetensors')
    save_file(tensors | {name: np.zeros(shape, np.float32)}, model / 'model.safetensors')
    with pytest.raises(ModelError, match=f'{name} is {re.escape(str(list(shape)))}'):
        hf.HfModel(model).load()


def test_a_model_without_the_head_that_it_names(tmp_path: Path, tiny_tokenizer: Path, root: Path, fails: Fails) -> None:
    model = save(tmp_path / 'm', tiny_tokenizer, HeadSpec('pair', 3), (), 0)
    tensors = {k: v for k, v in load_file(model / 'model.safetensors').items() if not k.startswith('classifier')}
    save_file(tensors, model / 'model.safetensors')
    said = "has no 'classifier.out_proj.bias', which XLMRobertaForSequenceClassification of config.json needs"
    assert said in fails('convert', f'--source=hf:{model}', f'--out={tmp_path}/c')
    assert said in fails(*evaluate(model, 'xnli', 'test', root))
    assert main(['convert', f'--source=hf:{model}', f'--out={tmp_path}/c', '--head=none']) == 0


def test_label2id_names_the_classes_where_id2label_does_not(tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = save(tmp_path / 'm', tiny_tokenizer, HeadSpec('pair', 3), (), 0)
    path = model / 'config.json'
    config = json.loads(path.read_text('utf-8'))
    path.write_text(json.dumps(config | {'label2id': {'x': 2, 'y': 0, 'z': 1}}), 'utf-8')
    assert hf.HfModel(model).labels == ('y', 'z', 'x')
    path.write_text(json.dumps(config | {'id2label': ['x', 'y', 'z'], 'label2id': {'x': 2, 'y': 0, 'z': 1}}), 'utf-8')
    with pytest.raises(ModelError, match=r'm/config\.json: id2label .* label2id'):
        hf.HfModel(model)
    path.write_text(json.dumps({k: v for k, v in config.items() if k != 'id2label'} | {'label2id': {'x': 9}}), 'utf-8')
    with pytest.raises(ModelError, match=r'm/config\.json: label2id'):
        hf.HfModel(model)


def test_rows_of_ones_own_are_not_named_in_a_guessed_order(
    root: Path, tmp_path: Path, tiny_tokenizer: Path, fails: Fails
) -> None:
    model = save(tmp_path / 'm', tiny_tokenizer, HeadSpec('pair', 3), (), 2)
    rows, out = tmp_path / 'rows.tsv', tmp_path / 'o.jsonl'
    rows.write_text('A cat sleeps .\tAn animal sleeps .\n', encoding='utf-8')
    command = ['evaluate', f'--encoder=hf:{model}', f'--input={rows}', f'--out={out}']

    def label() -> str:
        return json.loads(out.read_text('utf-8'))['label']

    assert main(command) == 0
    assert label() == '2'
    assert 'name the 3 classes' in fails(*command, '--task=xnli', f'--data_root={root}')
    named = '--labels=Entailment,neutral,contradiction'
    assert main([*command, '--task=xnli', f'--data_root={root}', named]) == 0
    assert label() == 'contradiction'
    assert main([*command, '--labels=a,b,c']) == 0
    assert label() == 'c'
    assert '2 names for the 3 outputs' in fails(*command, '--labels=a,b')
    for names, said in (('a,a,b', "two classes have the name 'a'"), ('a,,b', "class 1 has the name ''")):
        assert said in fails(*command, f'--labels={names}')
        assert said in fails('convert', f'--source=hf:{model}', f'--out={tmp_path}/c', f'--labels={names}')


def test_what_was_assumed_is_in_the_result_rows(root: Path, tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = save(tmp_path / 'm', tiny_tokenizer, HeadSpec('pair', 3), (), 0)
    assert main([*evaluate(model, 'xnli', 'test', root), '--labels=entailment,neutral,contradiction']) == 0
    row = json.loads(Path(f'{model}.out', 'results.jsonl').read_text('utf-8').splitlines()[0])
    assert row['class_order'] == '--labels=entailment,neutral,contradiction'


def test_convert_names_the_classes(tmp_path: Path, tiny_tokenizer: Path, fails: Fails) -> None:
    model = save(tmp_path / 'm', tiny_tokenizer, HeadSpec('pair', 3), (), 0)
    command = ['convert', f'--source=hf:{model}', f'--out={tmp_path / "named"}']
    assert '2 names for the 3 outputs' in fails(*command, '--labels=a,b')
    assert main([*command, '--labels=a,b,c']) == 0
    assert hf.HfModel(tmp_path / 'named').labels == ('a', 'b', 'c')
    assert main(['convert', f'--source=hf:{model}', f'--out={tmp_path / "unnamed"}']) == 0
    assert hf.HfModel(tmp_path / 'unnamed').labels == ()
