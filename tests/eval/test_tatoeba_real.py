"""Tatoeba with the embedded encoder, through `convert` and back: the accuracies that transformers' model gives.

Reference: XLMRobertaModel of transformers on the same weights, no prefix, mean over all tokens of the last layer with
<s> and </s>, cosine, max length 512; measured once and held to within one sentence a language and direction.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlmr_flax.cli.main import main

# language: (English asks, the language asks) in percent
REFERENCE = {
    'deu': (97.10, 98.50),
    'spa': (94.90, 95.40),
    'swh': (81.28, 76.41),
    'tel': (94.44, 94.02),
    'jav': (68.29, 62.93),
    'yid': (86.67, 83.37),
    'kat': (90.08, 88.47),
    'tam': (89.25, 88.93),
}
SMALL = 'jav'


@pytest.fixture(scope='module')
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('embedded') / 'model'
    assert main(['convert', '--source=embedded', f'--out={out}']) == 0
    return out


def _check(languages: tuple[str, ...], converted: Path, data_root: Path, out: Path) -> None:
    arguments = ['--task=tatoeba', f'--languages={",".join(languages)}', f'--data_root={data_root}', f'--out={out}']
    assert main(['evaluate', f'--encoder=hf:{converted}', *arguments]) == 0
    rows = [json.loads(line) for line in (out / 'results.jsonl').read_text(encoding='utf-8').splitlines()]
    found = {(row['language'], row['metric']): row for row in rows}
    for language in languages:
        for metric, want in zip(('accuracy', 'accuracy_to_en'), REFERENCE[language], strict=True):
            row = found[language, metric]
            off = abs(row['value'] - want) * row['n'] / 100
            assert off < 1.01, f'{language} {metric}: {row["value"]:.2f}, reference {want:.2f} ({off:.1f} sentences)'
        lines = (out / 'predictions' / 'tatoeba' / f'test-{language}.tsv').read_text().splitlines()
        assert len(lines) == found[language, 'accuracy']['n']


def test_a_small_language(converted: Path, data_root: Path, tmp_path: Path) -> None:
    _check((SMALL,), converted, data_root, tmp_path)


@pytest.mark.slow
def test_all_languages_of_the_reference(converted: Path, data_root: Path, tmp_path: Path) -> None:
    _check(tuple(REFERENCE), converted, data_root, tmp_path)
