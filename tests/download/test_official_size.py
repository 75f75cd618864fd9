"""Readers and tokenizer over generated files of the official sizes: time and memory grow with the rows alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
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
    texts = (f'( a )\t( b )\t{SENTENCE.format(i)}\t{SENTENCE.format(-i)}\t{i}.jpg#4\n' for i in range(n))
    rows = (f'{"-" if i % 700 == 699 else "neutral"}\t{row}' for i, row in enumerate(texts))
    yield 'intermediate/snli/snli_1.0_train.txt', iter([head, *rows])


def udpos(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    words = ''.join(UD.format(i) for i in range(1, 13))
    rows = (f'# sent_id = {i}\n# text = {"fox " * 12}\n{words}\n' for i in range(n))
    yield 'xtreme/udpos/UD_English-EWT/en_ewt-ud-train.conllu', rows


def bucc2018(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    for side in ('de', 'en'):
        yield f'xtreme/bucc2018/de-en.test.{side}', (f'{side}-{i:09d}\t{SENTENCE.format(i)}\n' for i in range(n))
    yield 'xtreme/bucc2018/de-en.test.gold', (f'de-{i:09d}\ten-{i:09d}\n' for i in range(0, n, 48))


def squad(path: str, n: int, impossible: bool = False) -> Iterator[tuple[str, Iterator[str]]]:
    """Five questions a paragraph. impossible: every third has no answer, as in SQuAD 2.0."""

    def answers(j: int) -> dict[str, object]:
        none = impossible and j % 3 == 2
        found: dict[str, object] = {'answers': [] if none else [{'text': 'fox', 'answer_start': 18}]}
        return found | {'is_impossible': none} if impossible else found

    def article(i: int) -> str:
        asked = [{'id': f'{i}-{j}', 'question': 'What?', **answers(j)} for j in range(min(5, n - 5 * i))]
        return json.dumps({'title': f'T{i}', 'paragraphs': [{'context': SENTENCE.format(i) * 10, 'qas': asked}]})

    articles = (f'{"," if i else ""}{article(i)}' for i in range(-(-n // 5)))
    yield path, iter(['{"data": [', *articles, '], "version": "1.1"}'])


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


def qqp(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    head = 'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n'
    rows = (f'{i}\t{i}\t{-i}\t{SENTENCE.format(i)}\tWhy "{i}?\t{i % 2}\n' for i in range(n))
    yield 'intermediate/qqp/train.tsv', iter([head, *rows])


def anli(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    for part, (first, last) in enumerate(((0, n // 10), (n // 10, n // 3), (n // 3, n)), 1):
        rows = (
            {'uid': f'{i}', 'context': SENTENCE.format(i) * 4, 'hypothesis': SENTENCE.format(-i), 'label': 'enc'[i % 3]}
            for i in range(first, last)
        )
        yield f'intermediate/anli/anli_v1.0/R{part}/train.jsonl', (f'{json.dumps(row)}\n' for row in rows)


def commonsenseqa(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    choices = [{'label': label, 'text': f'a {label}'} for label in 'ABCDE']
    rows = (
        {'answerKey': 'ABCDE'[i % 5], 'id': f'{i:032x}', 'question': {'stem': f'{i}?', 'choices': choices}}
        for i in range(n)
    )
    yield 'intermediate/commonsenseqa/train_rand_split.jsonl', (f'{json.dumps(row)}\n' for row in rows)


def ccg(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    leaves = ' '.join(f'(<L NP NNP NNP word{i} NP>)' for i in range(24))
    sections = range(19)  # jiant's training sections; the reader needs all of them
    for section in sections:
        numbers = range(section, n, len(sections))
        rows = (f'ID=wsj_{section:02}01.{i}\n(<T S[dcl] 0 2> {leaves})\n' for i in numbers)
        yield f'intermediate/ccg/data/AUTO/{section:02}/wsj_{section:02}01.auto', rows


def pawsx(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    rows = (f'{i}\t{SENTENCE.format(i)}\t{SENTENCE.format(-i)}\t{i % 2}\n' for i in range(n))
    yield 'xtreme/pawsx/x-final/en/train.tsv', iter(['id\tsentence1\tsentence2\tlabel\n', *rows])


def xnli(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    yield 'xtreme/xnli/test-de.tsv', (f'{SENTENCE.format(i)}\t{SENTENCE.format(-i)}\tneutral\n' for i in range(n))


def panx(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    yield 'xtreme/panx/train-en.tsv', (f'word{i}\tB-PER\n' + 'fox\tO\n' * 7 + '\n' for i in range(n))


def tatoeba(n: int) -> Iterator[tuple[str, Iterator[str]]]:
    for side in ('deu', 'eng'):
        yield f'xtreme/tatoeba/v1/tatoeba.deu-eng.{side}', (f'{side} {SENTENCE.format(i)}\n' for i in range(n))


# task -> (generator, split, language, rows of the official file)
SIZES = {
    'mnli': (mnli, 'train', 'en', 392_702),
    'snli': (snli, 'train', 'en', 550_152),
    'udpos': (udpos, 'train', 'en', 21_253),
    'bucc2018': (bucc2018, 'test', 'de', 460_000),
    'squad_v1': (partial(squad, 'intermediate/squad_v1.1/train-v1.1.json'), 'train', 'en', 87_599),
    'squad_v2': (partial(squad, 'intermediate/squad_v2.0/train-v2.0.json', impossible=True), 'train', 'en', 130_319),
    'mlqa': (partial(squad, 'xtreme/mlqa/MLQA_V1/test/test-context-en-question-en.json'), 'test', 'en', 11_590),
    'xquad': (partial(squad, 'xtreme/xquad/xquad.de.json'), 'test', 'de', 1_190),
    'tydiqa': (
        partial(squad, 'xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json'),
        'train',
        'en',
        3_696,
    ),
    'qqp': (qqp, 'train', 'en', 363_846),
    'anli': (anli, 'train', 'en', 162_865),
    'commonsenseqa': (commonsenseqa, 'train', 'en', 9_741),
    'ccg': (ccg, 'train', 'en', 39_604),
    'pawsx': (pawsx, 'train', 'en', 49_401),
    'xnli': (xnli, 'test', 'de', 5_010),
    'panx': (panx, 'train', 'en', 20_000),
    'tatoeba': (tatoeba, 'test', 'de', 1_000),
    'cosmosqa': (cosmosqa, 'train', 'en', 25_262),
    'hellaswag': (hellaswag, 'train', 'en', 39_905),
}
READ = r"""
import json, re, sys, time
from pathlib import Path
from xlmr_flax.data.sources import read_pairs, read_split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.kinds import encode
from xlmr_flax.models.source import open_source
from xlmr_flax.tasks import get_task
task, split, language, root = get_task(sys.argv[1]), *sys.argv[2:5]
source = open_source('embedded')
tokenizer = Tokenizer(source.tokenizer, source.config.vocab_size)
tokenizer.encode(['one'])
def kib(name):
    return int(re.search(name + r':\s+(\d+)', Path('/proc/self/status').read_text())[1])
def measured(work):
    Path('/proc/self/clear_refs').write_text('5')  # the peak begins at what is in memory now
    before, began = kib('VmRSS'), time.process_time()
    result = work()
    return result, time.process_time() - began, kib('VmHWM') - before
read = read_pairs if task.kind == 'retrieval' else read_split
found, seconds, peak = measured(lambda: read(task, language, split, root))
examples = found[0] if task.kind == 'retrieval' else found
out = {'rows': len(examples), 'seconds': seconds, 'peak': peak}
if sys.argv[5] == 'tokens':
    encoded, seconds, peak = measured(lambda: encode(task, examples, tokenizer, 256))
    out |= {'tokens': len(encoded.tokens.flat), 'token_seconds': seconds, 'token_peak': peak}
print(json.dumps(out))
"""


def measured(name: str, n: int, root: Path, tokens: bool = True) -> dict[str, float]:
    """What reading n generated rows takes, and making tokens of them, in a process of its own: rows, seconds of CPU
    and KiB of more peak memory; tokens, and the same of them. Of a language pair, the rows of one side."""
    make, split, language, _ = SIZES[name]
    for path, lines in make(n):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with (root / path).open('w', encoding='utf-8') as file:
            file.writelines(lines)
    command = [sys.executable, '-c', READ, name, split, language, str(root), 'tokens' if tokens else '']
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').is_file(), reason='peak memory is read from /proc')
@pytest.mark.parametrize('name', SIZES)
def test_an_official_size_is_read_and_tokenized_in_time(name: str, tmp_path: Path) -> None:
    n = SIZES[name][3]
    whole, part = measured(name, n, tmp_path / 'whole'), measured(name, n // 4, tmp_path / 'part')
    speed, mebibytes = whole['rows'] / whole['seconds'], whole['peak'] / 1024
    print(f'{name}: {speed:.0f} rows/s, {whole["seconds"]:.1f} s, {mebibytes:.0f} MiB')
    print(f'  tokens: {whole["rows"] / whole["token_seconds"]:.0f} rows/s, {whole["token_peak"] / 1024:.0f} MiB more')
    without = 700 if name == 'snli' else n + 1  # SNLI: each 700th row has no gold label and is left out
    assert (whole['rows'], part['rows']) == (n - n // without, n // 4 - n // 4 // without)
    assert whole['seconds'] < 8 * part['seconds'] + 1, 'a quadratic reader takes sixteen times as long'
    assert whole['peak'] < 8 * part['peak'] + (64 << 10)
    assert whole['tokens'] > 3 * part['tokens']
    assert whole['token_seconds'] < 8 * part['token_seconds'] + 1
    assert whole['token_peak'] < 8 * part['token_peak'] + (64 << 10)
    assert whole['peak'] + whole['token_peak'] < 4 << 20, '4 GiB'
