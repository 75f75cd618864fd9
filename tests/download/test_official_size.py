"""Readers over generated files of the official sizes: counts, time and memory, which grow with the rows alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SENTENCE = 'The "quick" brown fox number {} jumps over the lazy dog near the river bank .'
UD = '{}\tfox\tfox\tNOUN\tNN\t_\t0\troot\t_\t_\n'


def mnli(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    head = ['index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse']
    head += ['sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n']
    parse = '( ( The fox ) ( jumps ( over ( the dog ) ) ) )\t' * 4
    rows = (
        f'{i}\t{i}\t{i}e\tfiction\t{parse}{SENTENCE.format(i)}\t{SENTENCE.format(-i)}\tneutral\tneutral\n'
        for i in range(n)
    )
    yield 'intermediate/mnli/train.tsv', iter(['\t'.join(head), *rows])


def snli(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    head = 'gold_label\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1\tsentence2\tcaptionID\n'
    rows = (f'neutral\t( a )\t( b )\t{SENTENCE.format(i)}\t{SENTENCE.format(-i)}\t{i}.jpg#4\n' for i in range(n))
    yield 'intermediate/snli/snli_1.0_train.txt', iter([head, *rows])


def udpos(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    words = ''.join(UD.format(i) for i in range(1, 13))
    rows = (f'# sent_id = {i}\n# text = {"fox " * 12}\n{words}\n' for i in range(n))
    yield 'xtreme/udpos/UD_English-EWT/en_ewt-ud-train.conllu', rows


def bucc2018(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    for side in ('de', 'en'):
        yield f'xtreme/bucc2018/de-en.test.{side}', (f'{side}-{i:09d}\t{SENTENCE.format(i)}\n' for i in range(n))
    yield 'xtreme/bucc2018/de-en.test.gold', (f'de-{i:09d}\ten-{i:09d}\n' for i in range(0, n, 48))


def squad_v1(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    def article(i: int) -> str:
        asked = [
            {'id': f'{i}-{j}', 'question': 'What?', 'answers': [{'text': 'fox', 'answer_start': 18}]} for j in range(5)
        ]
        return json.dumps({'title': f'T{i}', 'paragraphs': [{'context': SENTENCE.format(i) * 10, 'qas': asked}]})

    yield (
        'intermediate/squad_v1.1/train-v1.1.json',
        iter(['{"data": [', *(f'{"," if i else ""}{article(i)}' for i in range(n // 5)), '], "version": "1.1"}']),
    )


def cosmosqa(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    text = SENTENCE.replace('"', '""')
    rows = (f'{i},"{text.format(i) * 5}",Why?,one,two,three,None of the above choices .,{i % 4}\n' for i in range(n))
    head = 'id,context,question,answer0,answer1,answer2,answer3,label\n'
    yield 'intermediate/cosmosqa/train.csv', iter([head, *rows])


def hellaswag(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    endings = [SENTENCE.format(j) for j in range(4)]
    rows = (
        json.dumps({'ind': i, 'ctx_a': SENTENCE, 'ctx_b': 'he', 'endings': endings, 'label': i % 4}) for i in range(n)
    )
    yield 'intermediate/hellaswag/hellaswag_train.jsonl', (f'{row}\n' for row in rows)


# task -> (generator, split, language, rows of the official file)
SIZES = {
    'mnli': (mnli, 'train', 'en', 392_702),
    'snli': (snli, 'train', 'en', 549_367),
    'udpos': (udpos, 'train', 'en', 21_253),
    'bucc2018': (bucc2018, 'test', 'de', 460_000),
    'squad_v1': (squad_v1, 'train', 'en', 87_595),
    'cosmosqa': (cosmosqa, 'train', 'en', 25_262),
    'hellaswag': (hellaswag, 'train', 'en', 39_905),
}
READ = r"""
import json, re, sys, time
from pathlib import Path
from xlmr_flax.data.sources import read_pairs, read_split
from xlmr_flax.tasks import get_task
task, split, language, root = get_task(sys.argv[1]), *sys.argv[2:5]
def peak():  # getrusage's would be that of the process which started this one, where it was larger
    return int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1])
before, began = peak(), time.process_time()
found = (read_pairs if task.kind == 'retrieval' else read_split)(task, language, split, root)
taken = time.process_time() - began
rows = len(found[0]) if task.kind == 'retrieval' else len(found)
print(json.dumps({'rows': rows, 'seconds': taken, 'peak': peak() - before}))
"""


def measured(name: str, n: int, root: Path) -> dict[str, float]:
    """rows, seconds of CPU and KiB of peak memory of reading n generated rows, in a process of its own."""
    make, split, language, _ = SIZES[name]
    for path, lines in make(n):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with (root / path).open('w', encoding='utf-8') as file:
            file.writelines(lines)
    command = [sys.executable, '-c', READ, name, split, language, str(root)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').is_file(), reason='peak memory is read from /proc')
@pytest.mark.parametrize('name', SIZES)
def test_an_official_size_is_read_whole_and_in_time(name: str, tmp_path: Path) -> None:
    n = SIZES[name][3]
    whole, part = measured(name, n, tmp_path / 'whole'), measured(name, n // 4, tmp_path / 'part')
    speed, mebibytes = whole['rows'] / whole['seconds'], whole['peak'] / 1024
    print(f'{name}: {speed:.0f} rows/s, {whole["seconds"]:.1f} s, {mebibytes:.0f} MiB')
    assert (whole['rows'], part['rows']) == (n, n // 4 if name != 'squad_v1' else n // 20 * 5)
    assert whole['seconds'] < 8 * part['seconds'] + 1, 'a quadratic reader takes sixteen times as long'
    assert whole['peak'] < 8 * part['peak'] + (64 << 10)
    assert whole['peak'] < 4 << 20, '4 GiB'
