"""Bad data, weights and tokenizers through the command line: one line that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.cli.main import main

Fails = Callable[..., str]
HEADER = 'id\tsentence1\tsentence2\tlabel\n'
ROWS = ''.join(f'{i}\tthe cat {i}\ta dog {i}\t{i % 2}\n' for i in range(8))
FILES = ('en/train.tsv', 'en/dev_2k.tsv', 'en/test_2k.tsv', 'de/test_2k.tsv')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """PAWS-X in its own layout, in English and German."""
    folder = tmp_path / 'data' / 'xtreme' / 'pawsx' / 'x-final'
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(HEADER + ROWS, 'utf-8')
    return tmp_path / 'data'


@pytest.fixture
def pawsx(root: Path, tmp_path: Path, config_file: Callable[..., Path]) -> list[str]:
    """The command that trains on it."""
    path = config_file(
        "config.intermediate = ('none',)", "config.targets = ('pawsx',)", 'config.recipe.steps = 2',
        "config.evaluation.languages = {'pawsx': ('en', 'de')}", f'config.data_root = {str(root)!r}',
    )  # fmt: skip
    return ['run', f'--config={path}', f'--workdir={tmp_path}/w']


def test_the_command_works_when_the_files_are_right(pawsx: list[str], tmp_path: Path) -> None:
    assert main(pawsx) == 0
    assert len((tmp_path / 'w' / 'predictions' / 'none-seed1' / 'pawsx' / 'test-de.tsv').read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ('name', 'content', 'said'),
    [
        (
            'en/train.tsv',
            b'id\tsentence1\tlabel\n1\ta\t0\n',
            ", line 1: the header has no column 'sentence2' (did you mean",
        ),
        (
            'en/train.tsv',
            HEADER.encode() + b'1\ta\tb\tyes\n',
            ", line 2, column 'label': unknown label 'yes' (known: 0, 1)",
        ),
        ('en/train.tsv', HEADER.encode() + b'1\ta\tb\n', ', line 2: 3 fields, expected 4'),
        ('en/train.tsv', HEADER.encode() + '1\tä\tb\t0\n'.encode('latin-1'), ', line 2: not UTF-8: byte 0xe4'),
        ('en/train.tsv', b'', ': no rows in this file'),
        ('en/dev_2k.tsv', HEADER.encode(), ': no rows in this file'),
        ('de/test_2k.tsv', (HEADER + ROWS).encode('utf-16'), ', line 1: not UTF-8: byte 0xff'),
        ('de/test_2k.tsv', None, ": no such file, needed for task 'pawsx' in 'de'"),
        ('en/train.tsv', None, ": no such file, needed for task 'pawsx' in 'en'"),
    ],
    ids=['column', 'label', 'short-row', 'latin-1', 'empty', 'header-alone', 'utf-16', 'no-test', 'no-train'],
)
def test_a_bad_file(name: str, content: bytes | None, said: str, pawsx: list[str], root: Path, fails: Fails) -> None:
    path = root / 'xtreme' / 'pawsx' / 'x-final' / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert f'{path}{said}' in fails(*pawsx)


def test_no_data_root(pawsx: list[str], fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('XLMR_DATA_ROOT', raising=False)
    assert 'error: no data root: set --data_root=FOLDER or the environment variable XLMR_DATA_ROOT' in fails(
        *pawsx, '--config.data_root='
    )
    assert "error: data root '/nowhere' (from --data_root) is not a folder" in fails(
        *pawsx, '--config.data_root=/nowhere'
    )


@pytest.fixture(scope='module')
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('hf') / 'tiny'
    assert main(['convert', '--source=random:tiny', f'--out={out}']) == 0
    return out


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / 'model'))


def evaluate(model: Path) -> list[str]:
    return [
        'evaluate', f'--encoder=hf:{model}', '--task=world_retrieval', '--languages=de', '--max_examples=4',
        f'--out={model.parent}/out',
    ]  # fmt: skip


def cut_weights(model: Path) -> None:
    path = model / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:5000])


def cut_tail(model: Path) -> None:
    path = model / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-100])


def change(**changes: Any) -> Callable[[Path], Any]:
    """Changes fields of config.json."""

    def write(model: Path) -> None:
        path = model / 'config.json'
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return write


def without(field: str) -> Callable[[Path], Any]:
    """Takes one field out of config.json."""

    def write(model: Path) -> None:
        path = model / 'config.json'
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != field}))

    return write


def add_token(model: Path) -> None:
    path = model / 'tokenizer.json'
    raw = json.loads(path.read_text('utf-8'))
    raw['added_tokens'].append({**raw['added_tokens'][-1], 'id': 2048, 'content': '<extra>'})
    path.write_text(json.dumps(raw), 'utf-8')


def pickle_only(model: Path) -> None:
    (model / 'model.safetensors').rename(model / 'pytorch_model.bin')


def lost_shard(model: Path) -> None:
    (model / 'model.safetensors').unlink()
    (model / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': {'a': 'model-00001.safetensors'}}))


MISFIT = 'weights do not fit config.json: '


@pytest.mark.parametrize(
    ('break_it', 'said'),
    [
        (cut_weights, 'model.safetensors: not a whole safetensors file'),
        (cut_tail, 'model.safetensors: not a whole safetensors file'),
        (change(intermediate_size=130), f'{MISFIT}encoder.layer.0.intermediate.dense.weight is [128, 64]'),
        (change(num_hidden_layers=3), f'{MISFIT}encoder.layer.2.attention.self.query.weight is missing'),
        (change(max_position_embeddings=131), f'{MISFIT}embeddings.position_embeddings.weight is [130, 64]'),
        (change(num_attention_heads=5), 'num_attention_heads is 5'),
        (change(model_type='gpt2'), "config.json: model_type is 'gpt2'; the known ones are xlm-roberta, roberta, bert"),
        (change(hidden_act='relu'), "config.json: hidden_act is 'relu'"),
        (change(position_embedding_type='relative_key'), "position_embedding_type 'relative_key'"),
        (lambda m: (m / 'config.json').write_text('{'), 'config.json, line 1: '),
        (lambda m: (m / 'config.json').unlink(), 'config.json is missing'),
        (without('vocab_size'), "config.json: field 'vocab_size' is missing"),
        (lambda m: (m / 'tokenizer.json').unlink(), 'no tokenizer.json or sentencepiece.bpe.model or spm.model'),
        (lambda m: (m / 'tokenizer.json').write_text('{}'), 'tokenizer.json: not a readable tokenizer.json'),
        (add_token, 'tokenizer.json: ids up to 2048, but the word table has 2048 rows'),
        (pickle_only, 'pytorch_model.bin is a pickle, and nothing is unpickled here; convert it once with: python -m'),
        (lambda m: (m / 'model.safetensors').unlink(), 'no model.safetensors or model.safetensors.index.json'),
        (lost_shard, 'model.safetensors.index.json: names model-00001.safetensors, not in'),
    ],
    ids=[
        'weights-cut', 'weights-tail', 'ffn', 'layers', 'positions', 'heads', 'type', 'activation', 'position-type',
        'config-broken', 'config-missing', 'config-field', 'tokenizer-missing', 'tokenizer-empty', 'tokenizer-ids',
        'pickle', 'no-weights', 'lost-shard',
    ],
)  # fmt: skip
def test_a_bad_model_directory(break_it: Callable[[Path], Any], said: str, model: Path, fails: Fails) -> None:
    break_it(model)
    line = fails(*evaluate(model))
    assert said in line
    if said[0] != 'h':  # of the head sizes, the field is named
        assert str(model) in line


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--encoder=hf:/nowhere/at/all'], 'hf:/nowhere/at/all: there is no such directory'),
        (['--encoder=hf:'], "encoder source 'hf:' is not one of embedded, hf:NAME-OR-DIR, ckpt:DIR, random:SIZE"),
        (['--encoder=xlm-roberta-base'], "encoder source 'xlm-roberta-base' is not one of embedded"),
        (
            ['--encoder=ckpt:/nowhere'],
            'ckpt:/nowhere: no model.json in /nowhere or /nowhere/model; name a run directory',
        ),
        (['--encoder=random:tiny', '--layer=3'], 'retrieval layer 3: the encoder has 2 layers'),
        (['--encoder=random:tiny', '--max_length=129'], 'max_length 129: the encoder has positions for 128 tokens'),
        (['--encoder=random:tiny', '--languages=dee'], "has no language 'dee' (did you mean 'de'?)"),
        (['--encoder=random:tiny', '--split=tset'], "has no split 'tset' (did you mean 'test'?)"),
        (['--encoder=random:tiny', '--task=world_nly'], "unknown task 'world_nly' (did you mean 'world_nli'?)"),
        (
            ['--encoder=random:tiny', '--task=world_nli'],
            "no single head of kind 'pair' with 3 outputs for task 'world_nli'",
        ),
    ],
)
def test_what_evaluate_refuses(arguments: list[str], said: str, fails: Fails, tmp_path: Path) -> None:
    assert said in fails('evaluate', '--task=world_retrieval', f'--out={tmp_path}/out', *arguments)


def test_where_convert_cannot_write(fails: Fails, exported: Path, tmp_path: Path) -> None:
    assert f'{exported} exists and is not an empty directory' in fails(
        'convert', '--source=random:tiny', f'--out={exported}'
    )
    (tmp_path / 'file').write_text('')
    assert f'error: {tmp_path}/file' in fails('convert', '--source=random:tiny', f'--out={tmp_path}/file/x')
    assert '--head=x: random:tiny has no such head' in fails(
        'convert', '--source=random:tiny', f'--out={tmp_path}/o', '--head=x'
    )


def test_a_loss_that_is_no_number(fails: Fails, config_file: Callable[..., Path], tmp_path: Path) -> None:
    path = config_file(
        "config.intermediate = ('none',)", "config.targets = ('world_pairs',)",
        'config.recipe.optimizer.clip_norm = 0.0',
        "config.evaluation.languages = {'world_pairs': ('en',)}", 'config.recipe.optimizer.learning_rate = 1e38',
    )  # fmt: skip
    line = fails('run', f'--config={path}', f'--workdir={tmp_path}/w')
    assert "of task 'world_pairs'; examples: " in line
    assert ' at step ' in line
    assert 'pairs-train-' in line
