"""`xlmr-flax prepare`: what is there, what is missing and where it goes, bad rows, overlaps, and tokens made ahead."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tasks.tiny_files import FILES, tsv

from xlmr_flax.cli.main import main
from xlmr_flax.data import cache
from xlmr_flax.data.cache import cache_dir
from xlmr_flax.kinds.pair import Pair

Prepare = Callable[..., tuple[int, str]]
PAWSX = 'xtreme/pawsx/x-final'
HEAD = ('id', 'sentence1', 'sentence2', 'label')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """PAWS-X's English training set, a dev set in two languages and a test set in one."""
    write(
        tmp_path, f'{PAWSX}/en/train.tsv', tsv(HEAD, ('1', 'a b', 'c', '0'), ('2', 'd', 'e', '1'), ('3', 'x', 'y', '1'))
    )
    write(tmp_path, f'{PAWSX}/en/dev_2k.tsv', tsv(HEAD, ('1', 'E', ' d', '1'), ('2', 'g', 'h', '0')))
    write(tmp_path, f'{PAWSX}/de/dev_2k.tsv', tsv(HEAD, ('1', 'ü', 'h', '1')))
    write(tmp_path, f'{PAWSX}/de/test_2k.tsv', tsv(HEAD, ('1', 'ö', 'h', '1')))
    return tmp_path


def write(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content, encoding='utf-8')


@pytest.fixture
def prepare(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Runs `xlmr-flax prepare` on that root; (exit code, what it printed). Keeps even one example."""
    monkeypatch.setenv('XLMR_CACHE', str(root / 'tokens'))
    monkeypatch.delenv('TFDS_DATA_DIR', raising=False)
    monkeypatch.setattr(cache, 'SMALLEST', 1)

    def run(*arguments: str | Path) -> tuple[int, str]:
        capsys.readouterr()
        code = main(['prepare', *map(str, arguments), f'--data_root={root}'])
        return code, capsys.readouterr().out

    return run


def row(text: str, task: str, split: str) -> list[str]:
    [found] = [re.split('  +', line) for line in text.splitlines() if line.split()[:2] == [task, split]]
    return found[2:]


def test_the_summary_and_where_missing_files_go(prepare: Prepare, root: Path) -> None:
    code, text = prepare('--check', '--tasks=pawsx')
    assert code == 1
    assert row(text, 'pawsx', 'train') == ['1/1', '3', 'part (3 of 49401)', 'files']
    assert row(text, 'pawsx', 'dev') == ['2/7', '3', 'missing, part (3 of 4000)', 'files']
    assert row(text, 'pawsx', 'test') == ['1/7', '1', 'missing, part (1 of 2000)', 'files']
    assert f'missing: {root}/{PAWSX}/{{language}}/dev_2k.tsv for es fr ja ko zh' in text
    assert f'{PAWSX}/{{language}}/test_2k.tsv for en es fr ja ko zh (or TFDS paws_x_wiki/{{language}}' in text
    assert 'acknowledge Google LLC' in text
    assert 'https://github.com/google-research-datasets/paws' in text
    assert '4 of 15 splits are there and readable' in text
    assert text.index('----') < text.index('missing: ')


def test_what_was_asked_for_decides_the_exit_code(prepare: Prepare) -> None:
    assert prepare('--check', '--tasks=pawsx', '--splits=train')[0] == 0
    assert prepare('--check', '--tasks=pawsx', '--splits=dev', '--languages=de,en')[0] == 0
    assert prepare('--check', '--tasks=pawsx', '--splits=dev', '--languages=de,fr')[0] == 1
    assert prepare('--check', '--tasks=world_nli')[0] == 0


def test_translated_files_are_missed_only_when_they_are_asked_for(prepare: Prepare, root: Path) -> None:
    code, text = prepare('--check', '--tasks=pawsx', '--languages=de,en')
    assert code == 1
    assert row(text, 'pawsx', 'translate_train') == ['0/0', '0', 'none']
    missing = [line.replace(str(root), '') for line in text.splitlines() if 'missing: ' in line]
    assert missing
    assert 'translate' not in ''.join(missing)
    assert '5 of 6 splits are there and readable' in text

    # MNLI in German can be nothing but a translation.
    assert row(prepare('--check', '--tasks=mnli', '--languages=de')[1], 'mnli', 'translate_train')[2] == 'missing'

    asked = ('--check', '--tasks=pawsx', '--languages=de', '--splits=translate_train')
    code, text = prepare(*asked)
    assert (code, row(text, 'pawsx', 'translate_train')) == (1, ['0/1', '0', 'missing'])
    other = 'translated/xtreme_translations/PAWSX/translate-train/en-de-translated.tsv'
    assert f'missing: {root}/{PAWSX}/de/translated_train.tsv (or {other})' in text
    write(root, f'{PAWSX}/de/translated_train.tsv', tsv(HEAD, ('1', 'ä', 'c', '0'), ('2', 'ü', 'e', '1')))
    code, text = prepare(*asked)
    assert (code, row(text, 'pawsx', 'translate_train')) == (0, ['1/1', '2', 'readable', 'files'])
    assert row(prepare('--check', '--tasks=pawsx')[1], 'pawsx', 'translate_train') == [
        '0/0 +1',
        '2',
        'readable',
        'files',
    ]


def test_a_task_named_help_is_a_task(prepare: Prepare, root: Path) -> None:
    head = ('ori_sentence', 'new_sentence', 'gold_label')
    write(root, 'logic/help/pmb_train_v1.0.tsv', tsv(head, ('He ran', 'He ran and sat', 'neutral')))
    for arguments in (['--tasks=help'], ['--tasks', 'help']):
        code, text = prepare('--check', *arguments)
        assert (code, row(text, 'help', 'train')) == (0, ['1/1', '1', 'readable', 'files'])


def test_tested_texts_that_are_trained_on_are_named(prepare: Prepare) -> None:
    _, text = prepare('--check', '--tasks=pawsx')
    assert 'overlap: pawsx dev with the training data of pawsx' in text
    assert '1 of 3 tested reversed pairs (2 = 1)' in text
    assert 'overlap:' not in prepare('--check', '--tasks=pawsx', '--overlap=false')[1]


def test_an_intermediate_task_is_compared_with_the_targets(prepare: Prepare, root: Path) -> None:
    write(root, 'intermediate/qqp/train.tsv', tsv(('question1', 'question2', 'is_duplicate'), ('ü', 'h', '1')))
    _, text = prepare('--check', '--tasks=pawsx,qqp')
    assert 'overlap: pawsx dev with the training data of qqp' in text


def test_bad_rows_are_listed_by_file_line_and_reason(prepare: Prepare, root: Path) -> None:
    file = root / PAWSX / 'en' / 'train.tsv'
    rows = [(f'{i}', 'a', 'b', 'maybe') for i in range(10, 24)]
    file.write_text(tsv(HEAD, ('1', 'a', 'b', '0'), ('2', 'a'), *rows), encoding='utf-8')
    code, text = prepare('--check', '--tasks=pawsx', '--splits=train')
    assert code == 1
    assert row(text, 'pawsx', 'train')[1:] == ['1', 'bad rows, part (16 of 49401)', 'files']
    assert '15 bad rows, train en:' in text
    assert f'{file}, line 3: 2 fields, expected 4; a row cut short?' in text
    assert f"{file}, line 4, column 'label': unknown label 'maybe'" in text
    assert '... and 5 more (--skip_bad_rows lists all)' in text
    code, text = prepare('--check', '--tasks=pawsx', '--splits=train', '--skip_bad_rows')
    assert code == 0
    assert f'{file}, line 17, ' in text
    assert '1 of 1 splits are there and readable; 15 bad rows left out' in text


def test_a_file_that_cannot_be_read_at_all(prepare: Prepare, root: Path) -> None:
    (root / PAWSX / 'de' / 'test_2k.tsv').write_bytes(b'id\tsentence1\tsentence2\n1\t\xff\tb\n')
    code, text = prepare('--check', '--tasks=pawsx', '--splits=test', '--languages=de')
    assert code == 1
    assert row(text, 'pawsx', 'test') == ['1/1', '0', 'unreadable', 'files']
    assert 'unreadable, test de: ' in text
    assert 'line 2: not UTF-8' in text


def test_stand_ins_licences_and_notes(prepare: Prepare, root: Path) -> None:
    write(root, 'standins/QQP/dev.tsv', FILES['standins/QQP/dev.tsv'])
    code, text = prepare('--check', '--tasks=qqp', '--splits=dev')
    assert code == 0
    assert row(text, 'qqp', 'dev') == ['1/1', '1', 'stand-in', 'files']
    assert 'dev: a stand-in: PAWS-X pairs in the layout of QQP' in text
    assert 'its licence does not allow commercial use' in text
    assert 'note: where QQP is not there' in text


def test_codes_of_file_names_and_label_files(prepare: Prepare, root: Path) -> None:
    _, text = prepare('--check', '--tasks=logiqa2,siqa', '--languages=zh,en', '--splits=train')
    assert f'{root}/logic/logiqa2/LOGIQA/train{{language}}.txt for _zh' in text
    assert f'missing: {root}/intermediate/siqa/train-labels.lst' in text


def test_retrieval_by_gold(prepare: Prepare, root: Path) -> None:
    for end in ('de', 'en', 'gold'):
        write(root, f'standins/bucc2018/de-en.dev.{end}', FILES[f'standins/bucc2018/de-en.dev.{end}'])
    code, text = prepare('--check', '--tasks=bucc2018', '--splits=dev', '--languages=de')
    assert (code, row(text, 'bucc2018', 'dev')) == (0, ['1/1', '3', 'stand-in', 'files'])
    (root / 'standins/bucc2018/de-en.dev.gold').unlink()
    code, text = prepare('--check', '--tasks=bucc2018', '--splits=dev', '--languages=de')
    assert code == 1
    assert 'xtreme/bucc2018/de-en.dev.gold' in text


def test_a_config_is_checked_for_what_it_reads(prepare: Prepare, config_file: Callable[..., Path]) -> None:
    lines = [
        "config.targets = ('pawsx',)",
        "config.intermediate = ('none',)",
        "config.evaluation.languages = {'pawsx': ('de',)}",
    ]
    code, text = prepare('--check', f'--config={config_file(*lines)}')
    assert code == 0
    assert [row(text, 'pawsx', split)[0] for split in ('train', 'dev', 'test')] == ['1/1', '1/1', '1/1']


def test_all_tasks_are_looked_for_by_default(prepare: Prepare) -> None:
    code, text = prepare('--check')
    assert code == 1
    assert row(text, 'mewslix', 'test')[0] == '0/11'
    assert 'world_' not in text


def test_tokens_are_made_ahead_and_found_again(prepare: Prepare, config_file: Callable[..., Path]) -> None:
    lines = [
        "config.targets = ('pawsx',)",
        "config.intermediate = ('none',)",
        "config.evaluation.languages = {'pawsx': ('de',)}",
    ]
    config = config_file(*lines)
    code, text = prepare(f'--config={config}')
    assert code == 0
    assert 'pawsx train en: 3 examples' in text
    assert text.count(', written') == 3
    assert f'3 of 3 in {cache_dir()}' in text
    folder = cache_dir()
    assert folder is not None
    assert {json.loads(p.read_text())['task'] for p in folder.glob('*/index.json')} == {'pawsx'}
    assert prepare(f'--config={config}')[1].count(', read') == 3


def test_a_dev_set_is_read_where_it_is_there(prepare: Prepare, config_file: Callable[..., Path], root: Path) -> None:
    """As a run takes it: it selects by the English dev rows, and does without them."""
    lines = [
        "config.targets = ('pawsx',)",
        "config.intermediate = ('none',)",
        "config.evaluation.languages = {'pawsx': ('de',)}",
    ]
    config = config_file(*lines)
    (root / PAWSX / 'en' / 'dev_2k.tsv').unlink()
    code, text = prepare('--check', f'--config={config}')
    assert (code, row(text, 'pawsx', 'dev')) == (0, ['0/0', '0', 'none'])
    code, text = prepare(f'--config={config}')
    assert (code, text.count(', written')) == (0, 2)


def test_rows_that_a_run_leaves_out_are_left_out_here(
    prepare: Prepare, config_file: Callable[..., Path], root: Path
) -> None:
    lines = ["config.targets = ('pawsx',)", "config.intermediate = ('none',)"]
    lines.append("config.evaluation.languages = {'pawsx': ('de',)}")
    file = root / PAWSX / 'en' / 'train.tsv'
    file.write_text(file.read_text() + '4\tcut short\n')
    for skip, code in ((False, 1), (True, 0)):
        config = config_file(*lines, f'config.skip_bad_rows = {skip}')
        found, text = prepare(f'--config={config}')
        assert (found, 'pawsx train en: 3 examples' in text) == (code, skip)


def test_whole_tasks_are_tokenized(prepare: Prepare) -> None:
    command = ('--tasks=pawsx', '--languages=de', '--splits=dev', '--encoder=random:tiny', '--max_length=16')
    code, text = prepare(*command)
    assert (code, text.count(', written')) == (0, 1)
    assert prepare(*command)[1].count(', read') == 1


def test_translated_rows_are_tokenized_where_they_are_asked_for(prepare: Prepare, root: Path) -> None:
    write(root, f'{PAWSX}/de/translated_train.tsv', tsv(HEAD, ('1', 'ä', 'c', '0'), ('2', 'ü', 'e', '1')))
    command = ('--tasks=pawsx', '--languages=de', '--encoder=random:tiny', '--max_length=16')
    assert 'translate_train' not in prepare(*command)[1]
    assert 'pawsx translate_train de: 2 examples' in prepare(*command, '--splits=translate_train')[1]


@pytest.mark.parametrize(
    ('intermediate', 'reads'),
    [
        # All that it reads is read in the other case, too.
        pytest.param('none', 3, marks=pytest.mark.slow),
        # Rows that are drawn by the seed, and the dev rows of a dataset, which has its own length.
        ('half', 3 + 2 * 1 + 1),
    ],
)
def test_a_run_finds_what_prepare_has_made(
    intermediate: str,
    reads: int,
    prepare: Prepare,
    config_file: Callable[..., Path],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half = {'pawsx': {'fraction': 0.7, 'shuffle_labels': True, 'max_length': 24, 'head': 'half'}}
    lines = [
        "config.targets = ('pawsx',)", f"config.intermediate = ('{intermediate}',)", 'config.recipe.steps = 1',
        f"config.arms = {{'half': {{'tasks': {half}}}}}", 'config.seeds = (1, 2)',
        "config.evaluation.languages = {'pawsx': ('de',)}",
    ]  # fmt: skip
    config = config_file(*lines)
    code, text = prepare(f'--config={config}')
    assert (code, text.count(' examples, ')) == (0, reads)
    made = sorted(path.name for path in (root / 'tokens').iterdir())

    def encode(*arguments: object) -> None:
        raise AssertionError('encoded again')

    encode.__module__ = Pair.encode.__module__  # part of an entry's name
    monkeypatch.setattr(Pair, 'encode', encode)
    assert main(['run', f'--config={config}', f'--workdir={root / "w"}', f'--config.data_root={root}']) == 0
    assert sorted(path.name for path in (root / 'tokens').iterdir()) == made
    assert (root / 'w' / 'results.jsonl').read_text().count('"language": "de"') == 2


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ((), '--config=FILE or --tasks=a,b is missing'),
        (('--tasks=pawsx', '--config=CONFIG'), '--config and --tasks: one of them'),
        (('--check', '--tasks=pawsy'), "did you mean 'pawsx'"),
        (('--check', '--tasks=pawsx', '--splits=tset'), "did you mean 'test'"),
        (('--check', '--tasks=pawsx', '--languages=xx'), "no language 'xx'"),
        (('--check', '--data_root=/no/such/folder'), "'/no/such/folder'"),
        (('--tasks=pawsx', '--splits=test', '--languages=fr'), 'fr/test_2k.tsv: no such file'),
    ],
)
def test_what_is_asked_for_wrongly(
    arguments: tuple[str, ...],
    said: str,
    root: Path,
    config_file: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = [argument.replace('CONFIG', str(config_file())) for argument in arguments]
    data_root = [] if any('data_root' in argument for argument in named) else [f'--data_root={root}']
    assert main(['prepare', *named, *data_root]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count('error: ') == 1


def test_another_folder_of_tfds_data_is_looked_in(
    prepare: Prepare, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TFDS_DATA_DIR', 'elsewhere')  # so that it is put back
    assert main(['prepare', '--tasks=snli', f'--data_root={root}', f'--tfds_dir={root / "other"}']) == 1
    assert f'nor TFDS snli in {root}/tfds or {root}/other)' in capsys.readouterr().err


def test_the_embedded_world_needs_no_data_root(
    config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv('XLMR_DATA_ROOT', raising=False)
    assert main(['prepare', '--check', '--tasks=world_nli', '--languages=en']) == 0
    assert row(capsys.readouterr().out, 'world_nli', 'train')[2:] == ['readable', 'embedded']
    assert main(['prepare', f'--config={config_file()}']) == 0
    assert 'not kept' in capsys.readouterr().out


def test_it_is_in_the_list_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['help']) == 0
    assert 'prepare' in capsys.readouterr().out
    assert main(['prepare', '--help']) == 0
    assert '--skip_bad_rows' in capsys.readouterr().out.replace('[no]', '')
