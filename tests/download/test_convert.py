"""Conversions of published files, on rows in the official layouts."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from download.conftest import files_of
from download.site import served
from download.small_world import World, packed

from xlmr_flax.download import convert
from xlmr_flax.download.archive import Budget
from xlmr_flax.download.records import DownloadError

KILL = Path(__file__).parent / 'fetch_small.py'


def made(conversion: str, data: bytes, targets: list[str], tmp_path: Path) -> dict[str, str]:
    """What a conversion makes, by target."""
    path = tmp_path / 'published'
    path.write_bytes(data)
    found = convert.CONVERSIONS[conversion](io.BytesIO(data), targets, Budget(path))
    return {target: b''.join(chunks).decode() for target, chunks in found}


def test_xnli_is_split_by_language(tmp_path: Path) -> None:
    head = 'language\tgold_label\ta\tb\tc\td\tsentence1\tsentence2\tx\n'
    rows = (
        'de\tneutral\t\t\t\t\t Er "lief \tEr saß\t1\nsw\tentailment\t\t\t\t\tA\tB\t2\r\nde\tneutral\t\t\t\t\tC\tD\t3\n'
    )
    targets = ['xtreme/xnli/dev-de.tsv', 'xtreme/xnli/dev-sw.tsv']
    found = made('xnli', (head + rows).encode(), targets, tmp_path)
    assert found == {targets[0]: 'Er "lief\tEr saß\tneutral\nC\tD\tneutral\n', targets[1]: 'A\tB\tentailment\n'}
    with pytest.raises(DownloadError, match='header of XNLI'):
        made('xnli', b'a\tb\n', targets, tmp_path)


def test_panx_keeps_tags_sentences_and_words_of_white_space(tmp_path: Path) -> None:
    text = 'de:Der\tO\nde:a:b\tB-ORG\nde:\u3000\tO\n\n\nde:Rhein\tB-LOC\n\n'
    data = packed('de.tar.gz', {'train': text.encode(), './dev': b'de:x\tO\n', 'extra': b'z'})
    targets = ['xtreme/panx/train-de.tsv', 'xtreme/panx/dev-de.tsv']
    found = made('panx', data, targets, tmp_path)
    assert found == {targets[0]: 'Der\tO\na:b\tB-ORG\n\ufffd\tO\n\nRhein\tB-LOC\n', targets[1]: 'x\tO\n'}
    with pytest.raises(DownloadError, match="no 'test'"):
        made('panx', data, [*targets, 'xtreme/panx/test-de.tsv'], tmp_path)


def test_two_objects_on_a_line_get_a_line_each(tmp_path: Path) -> None:
    text = '{"id": 1, "type": {"a": true}}{"id": 2, "premise": "}{ü"}\n\n{"id": 3}'
    found = made('json_lines', text.encode(), ['x/test_new.txt'], tmp_path)
    assert found == {'x/test_new.txt': '{"id": 1, "type": {"a": true}}\n{"id": 2, "premise": "}{ü"}\n{"id": 3}\n'}
    with pytest.raises(json.JSONDecodeError):
        made('json_lines', b'{"id": 1}x\n', ['x/test_new.txt'], tmp_path)


def test_tydiqa_is_split_by_the_ids_of_questions(tmp_path: Path) -> None:
    def asked(ident: str) -> dict[str, object]:
        return {'id': ident, 'question': 'Q', 'answers': []}

    paragraph = {'context': 'Ü', 'qas': [asked('finnish-1-0'), asked('english-2-0')]}
    data = json.dumps(
        {'version': 'v', 'data': [{'paragraphs': [paragraph, {'context': 'D', 'qas': [asked('finnish-3')]}]}]}
    )
    targets = [f'x/tydiqa.goldp.{code}.train.json' for code in ('en', 'fi')]
    found = made('tydiqa', data.encode(), targets, tmp_path)
    ids = {t: [p['qas'][0]['id'] for a in json.loads(found[t])['data'] for p in a['paragraphs']] for t in targets}
    assert ids == {targets[0]: ['english-2-0'], targets[1]: ['finnish-1-0', 'finnish-3']}
    assert 'Ü' in found[targets[0]]
    with pytest.raises(DownloadError, match='klingon'):
        made('tydiqa', data.replace('finnish-3', 'klingon-3').encode(), targets, tmp_path)


@pytest.mark.parametrize(
    ('conversion', 'data', 'text'),
    [
        ('whole_rows', 'a\tb\n1\t2\n3\n4\t"5\n', 'a\tb\n1\t2\n4\t"5\n'),
        ('padded_rows', 'a\tb\tc\n1\n1\t2\t3\n', 'a\tb\tc\n1\t\t\n1\t2\t3\n'),
        (
            'multinli',
            'gold_label\tx\tsentence1\tsentence2\tl\nneutral\t\tA\tB\n-\t\tC\tD\t1\n',
            'sentence1\tsentence2\tgold_label\nA\tB\tneutral\n',
        ),
        (
            'cosmosqa',
            '{"id": "1", "context": "a, \\"b\\"\\nc", "question": "q", "answer0": "0", "answer1": "1", '
            '"answer2": "2", "answer3": "3", "more": 1}\n\n',
            'id,context,question,answer0,answer1,answer2,answer3\n1,"a, ""b""\nc",q,0,1,2,3\n',
        ),
        ('unpack', 'a\r\nb', 'a\r\nb'),
        ('tagged_words', 'Hy O\n O\n\nB-PER\nO O\nI B-LOC\n', 'Hy O\n\ufffd O\n\n\ufffd B-PER\nO O\nI B-LOC\n'),
        (
            'own_ids',
            '{"id": 7, "a":1}\n{"id": 8}\n{"id": 7, "a": "ü"}\n{"b": 1}\n',
            '{"id": 7, "a":1}\n{"id": 8}\n{"id": "7-2", "a": "ü"}\n{"b": 1}\n',
        ),
    ],
)
def test_one_file_becomes_one(conversion: str, data: str, text: str, tmp_path: Path) -> None:
    assert made(conversion, data.encode(), ['t'], tmp_path) == {'t': text}


def test_fracas_from_both_of_its_forms(tmp_path: Path) -> None:
    row = '7\ts\tAll ran. || Ann is.\tAnn ran.\tyes\n'
    xml = (
        '<x><comment class="section"> s </comment><problem id="7" fracas_answer="yes"><p idx="2">Ann\nis.</p>'
        '<p idx="1">All  ran.</p><h> Ann ran.</h></problem><problem id="8"><p idx="1">None.</p></problem></x>'
    )
    head = 'id\tsection\tpremises\thypothesis\tanswer\n'
    assert made('fracas', xml.encode(), ['t'], tmp_path) == {'t': head + row}
    plain = [('f/fracas_007_s.answer', b'yes\n'), ('f/fracas_007_s.txt', b'All ran.\nAnn is.\nAnn ran.\n')]
    plain.append(('f/fracas_008_s.txt', b'None.\n'))
    assert b''.join(convert.fracas_plain(plain)).decode() == head + row


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    assert made('gunzip', gzip.compress(b'abc'), ['t'], tmp_path) == {'t': 'abc'}
    with pytest.raises(DownloadError, match='unpacks to more than'):
        made('gunzip', gzip.compress(bytes(80 << 20)), ['t'], tmp_path)


@pytest.mark.slow
def test_killed_at_twenty_points_the_tree_is_the_same(world: World, tmp_path: Path) -> None:
    """SIGKILL at random moments of a download that takes a second; the last start ends it."""
    random, root, killed, trees = Random(18), tmp_path / 'data', 0, []
    with served(dict(world.site)) as site:
        site.pace = 0.002
        command = [sys.executable, str(KILL), str(world.table), site.address, str(root)]
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
        while killed < 20:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
            assert process.stdout is not None
            assert process.stdout.readline() == b'begins\n'
            time.sleep(random.uniform(0.01, 0.25))
            process.send_signal(signal.SIGKILL)
            if process.wait() == 0:  # it was done: from nothing again
                trees.append(files_of(root))
                shutil.rmtree(root)
            else:
                killed += 1
            process.stdout.close()
        subprocess.run(command, check=True, capture_output=True, env=environment, timeout=120)
    for found in (*trees, files_of(root)):
        assert found == {path: world.tree[path] for path in found}
        assert len(found) > 200
    assert sorted(path.name for path in root.iterdir() if path.name.startswith('.')) == []
    assert not list(root.rglob('*.part'))
