"""The HTML page: whole, self-contained, escaped, with the numbers of the rows."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from xlmr_flax.report.findings import findings
from xlmr_flax.report.html import duration, page, write_report
from xlmr_flax.report.html_table import Notes
from xlmr_flax.report.rows import RowsError
from xlmr_flax.report.study import make_study
from xlmr_flax.util.files import write_atomically

VOID = {'meta', 'link', 'br', 'hr', 'img', 'input', 'col', 'source'}
INFO = {
    'title': 'A <b>study</b>',
    'command': 'xlmr-flax run --config="a.py" && echo',
    'config': {'seed': 0, 'tag': '</pre><script>alert(1)</script>'},
    'versions': {'jax': '0.10.2'},
    'seconds': 754.2,
    'notes': ['cut & small'],
    'licences': ['XNLI: CC BY-NC 4.0'],
}


class Reader(HTMLParser):
    """Fails on a tag that does not close what is open; keeps tables, ids and attributes."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: list[list[list[tuple[str, int]]]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        attributes = {name: value or '' for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in attributes.items()]
        if 'id' in attributes:
            self.ids.append(attributes['id'])
        if tag not in VOID:
            self.open.append(tag)
        if tag == 'table':
            self.tables.append([])
        elif tag == 'tr':
            self.tables[-1].append([])
        elif tag in ('td', 'th'):
            self.tables[-1][-1].append(('', int(attributes.get('colspan', 1))))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open, f'</{tag}> closes nothing'
        assert self.open[-1] == tag, f'</{tag}> closes <{self.open[-1]}> at {self.getpos()}'
        self.open.pop()

    def handle_data(self, data):
        if {'td', 'th'} & set(self.open):
            before, span = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = (before + data, span)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


@pytest.fixture(scope='module')
def whole(study, curves) -> str:
    return page(make_study(study), curves, INFO)


def test_every_tag_closes_and_ids_are_unique(whole):
    reader = read(whole)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    for tag, name, value in reader.attributes:
        if name in ('href', 'xlink:href'):
            assert value.startswith('#') and value[1:] in reader.ids, (tag, name, value)
    for used in re.findall(r'url\(#([^)]+)\)', whole):
        assert used in reader.ids


def test_the_page_asks_for_nothing(whole):
    reader = read(whole)
    assert not reader.tags & {'script', 'link', 'img', 'iframe', 'object', 'embed', 'video', 'audio'}
    assert not [a for a in reader.attributes if a[1] in ('src', 'srcset', 'action', 'data', 'poster', 'onclick')]
    assert '@import' not in whole
    addresses = set(re.findall(r'https?://[^\s"\'<>)]+', whole))
    assert addresses <= {'http://www.w3.org/2000/svg', 'http://www.w3.org/1999/xlink'}  # names of XML spaces


def test_everything_given_is_escaped(whole):
    for raw in ('<b>study</b>', '<small>', '<script>', '"a.py" && echo'):
        assert raw not in whole
    assert 'A &lt;b&gt;study&lt;/b&gt;' in whole
    assert 'XNLI cut &lt;small&gt;' in whole
    assert '&amp;&amp; echo' in whole


def test_the_page_shows_numbers_facts_and_caveats(whole):
    reader = read(whole)
    rows = [[cell for cell, _ in row] for table in reader.tables for row in table]
    swahili = ['49.2 ± 0.4', '47.2 ± 0.4', '48.2 ± 0.4', '−2.0 ± 0.0', '−1.0 ± 0.0']
    assert ['sw', 'Swahili', 'Latn', 'low', '400', *swahili] in rows
    assert ['mnli', '+4.0 ± 0.0', '+3.0 ± 0.0', '+3.5 ± 0.0'] in rows  # with English, of which tatoeba has none
    assert ['mnli', '+3.5 ± 0.0', '+3.0 ± 0.0', '+3.2 ± 0.0'] in rows
    hinted = [value for tag, name, value in reader.attributes if name == 'title']
    assert not hinted  # these rows name no run
    for table in reader.tables:
        assert len({sum(span for _, span in row) for row in table}) == 1
    for said in ('12 min 34 s', 'jax 0.10.2', 'cut &amp; small', 'CC BY-NC 4.0', 'its retrieval scores start high'):
        assert said in whole
    assert (
        whole.count('<svg ') == 3 + 2 + 2
    )  # heat maps of arms and of languages, gains; two targets; curves of both phases


def test_a_repeated_note_is_printed_once_and_then_by_its_number(whole):
    reader = read(whole)
    assert '\0' not in whole and '\1' not in whole
    assert whole.count('Mean ± sample standard deviation over seeds 0, 1') == 1
    numbers = re.findall(r'<li id="note-(\d+)"><b>\[\1\]</b> ', whole)
    assert numbers == [str(i + 1) for i in range(len(numbers))] and numbers
    assert {f'note-{number}' for number in numbers} == {
        value[1:] for tag, name, value in reader.attributes if name == 'href' and value.startswith('#note-')
    }
    first, again = whole.index('id="note-1"'), whole.index('href="#note-1"')
    assert first < again


def test_a_fold_is_no_place_to_send_a_reader_to():
    a, b, c = ('a' * 60, 'b' * 60, 'c' * 60)
    notes = Notes()
    assert notes.html([a], folded=True) == f'<ul class="notes"><li>{a}</li></ul>'
    text = notes.html([a, b, 'short']) + notes.html([a, c, 'short'], folded=True)
    assert notes.numbered(text) == (
        f'<ul class="notes"><li id="note-1"><b>[1]</b> {a}</li><li>{b}</li><li>short</li></ul>'
        f'<ul class="notes"><li>{c}</li><li>short</li><li>As above: <a href="#note-1">[1]</a>.</li></ul>'
    )


def test_the_end_of_the_page_says_what_its_numbers_come_from(study, curves, whole):
    footer = whole[whole.index('<footer>') :]
    assert f'from {len(study):,} result rows (results.jsonl)' in footer and 'metrics.jsonl' in footer
    assert 'test predictions' not in footer  # nothing was tested
    assert 'metrics.jsonl' not in page(make_study(study))
    end = whole[whole.index('How to reproduce</h2>') :]
    assert end.index('This page was made by') < end.index('with the versions listed') < end.index('<details>')


def test_the_page_names_the_source_where_it_is_known(study, whole):
    text = page(make_study(study), info={**INFO, 'sources': ['abc', 'def (modified)']})
    assert '<dt>Source</dt><dd>commit abc, commit def (modified)</dd>' in text
    assert 'with the source of commit abc, def (modified), the versions listed above' in text
    assert '<dt>Source</dt>' not in whole and 'source of commit' not in whole


def test_captions_name_the_encoder_only_where_there_are_several(study, make_row):
    assert '<figcaption>small.' not in page(make_study(study))
    two = [row | {'encoder': name} for row in study for name in ('small', 'large')]
    assert '<figcaption>small.' in page(make_study(two))


def test_both_directions_of_retrieval_stand_beside_each_other_and_are_named(make_row):
    more = {'target': 'tatoeba'}
    rows = [
        make_row('de', value, intermediate=name, metric=metric, **more)
        for metric in ('accuracy', 'accuracy_to_en')
        for name, value in (('none', 50), ('mnli', 60))
    ]
    text = page(make_study(rows))
    open_part = re.sub('<details>.*?</details>', '', text, flags=re.DOTALL)
    for way in ('English asks, the language answers', 'the language asks, English answers'):
        assert f'<h3>tatoeba: accuracy ({way}) by language, without and with intermediate training</h3>' in open_part
    assert "tatoeba: accuracy is that of one direction, English asks, the language answers (XTREME's" in html.unescape(
        open_part
    )
    assert 'direction' not in page(make_study([row for row in rows if row['metric'] == 'accuracy']))


def test_the_least_page_has_no_empty_parts(make_row):
    text = page(make_study([make_row()]))
    assert read(text).open == []
    assert 'Training curves' not in text
    assert 'Differences by language' not in text
    assert '<dd></dd>' not in text
    with pytest.raises(RowsError):
        page(make_study([]))


def test_findings(study):
    assert findings(study) == [
        'xnli (accuracy): mnli, the best of 2, moves the zero-shot mean from 54.2 to 57.7 (+3.5 points); '
        'higher in 10 of 11 languages. Both are clearly above chance (33.3).',
        'tatoeba (accuracy): mnli, the best of 2, moves the zero-shot mean from 78.0 to 81.0 (+3.0 points); '
        'higher in 11 of 11 languages. Both are clearly above chance (0.1).',
    ]


def test_findings_say_what_cannot_be_compared_and_what_is_chance(make_row):
    rows = [make_row('de', 60), make_row('sw', 40), make_row('de', 51, intermediate='mnli')]
    assert findings(rows) == [
        'xnli (accuracy): mnli moves the zero-shot mean over the 1 of 2 languages scored so far from 60.0 to 51.0 '
        '(−9.0 points); higher in 0 of 1 language.'
    ]
    rows = [make_row('de', 50, chance=50.0), make_row('de', 54, chance=50.0, intermediate='mnli')]
    assert findings(rows)[0].endswith('Neither is clearly above chance (50.0).')  # n = 400: 4.9 points of margin
    higher = [row | {'value': row['value'] + 2} for row in rows]
    assert findings(higher)[0].endswith('Only the score with intermediate training is clearly above chance (50.0).')
    assert findings(higher[::-1])[0] == findings(higher)[0]
    retrieval = [row | {'target': 'tatoeba', 'value': 90.0} for row in rows]
    assert findings(retrieval)[0].endswith('Both are clearly above chance (50.0).')
    assert findings([make_row()]) == []


def test_findings_compare_the_seeds_that_both_have(make_row):
    rows = [make_row('de', value, seed=seed) for seed, value in enumerate((50, 60))]
    assert findings([*rows, make_row('de', 52, intermediate='mnli')]) == [
        'xnli (accuracy): mnli moves the zero-shot mean from 50.0 to 52.0 (+2.0 points); higher in 1 of 1 language.'
    ]


def test_findings_say_that_there_is_no_difference(make_row):
    rows = [make_row('de', 50), make_row('sw', 40), make_row('de', 50.02, intermediate='mnli')]
    same = [*rows, make_row('sw', 40, intermediate='mnli')]
    assert findings([row | {'value': round(row['value'])} for row in same]) == [
        'xnli (accuracy): mnli makes no difference to the zero-shot mean (45.0).'
    ]
    assert findings([*rows, make_row('sw', 39.98, intermediate='mnli')]) == [
        'xnli (accuracy): mnli makes no difference to the zero-shot mean (45.0); '
        'higher in 1, lower in 1 of 2 languages.'
    ]


def test_findings_name_no_best_arm_where_several_are(make_row):
    rows = [make_row('de', 50), *(make_row('de', 52, intermediate=arm) for arm in ('mnli', 'qqp'))]
    (text,) = findings([*rows, make_row('de', 51, intermediate='ccg')])
    assert text.startswith('xnli (accuracy): mnli, one of the 2 that share the first place of 3, moves ')


def test_findings_say_whether_a_difference_is_significant(make_row):
    rows = [make_row('de', 60), make_row('de', 64, intermediate='mnli')]
    test = {'encoder': rows[0]['encoder'], 'intermediate': 'mnli', 'target': 'xnli', 'alpha': 0.05}
    test |= {'languages': 'zero-shot', 'low': 1.25, 'high': 6.75, 'p': 0.01, 'p_holm': 0.02}
    verdict = 'significant over test examples (+1.2 to +6.8; Holm-adjusted p = 0.020).'
    assert findings(rows, [test])[0].endswith(f'. {verdict.capitalize().replace("holm", "Holm")}')
    assert findings(rows, [test | {'alpha': 0.01}])[0].endswith(f'. Not {verdict}')
    for other in ({'target': 'pawsx'}, {'intermediate': 'qqp'}, {'p_holm': None}, {'encoder': 'another'}):
        assert 'ignificant' not in findings(rows, [test | other])[0]
    whole = test | {'languages': 'all', 'p_holm': 0.5}  # where both were tested, the sentence is on the zero-shot mean
    assert findings(rows, [whole, test]) == findings(rows, [test])
    assert 'p = 0.500' in findings(rows, [whole])[0]


def test_duration():
    assert [duration(s) for s in (42.4, 754.2, 11100, 3599.9)] == ['42 s', '12 min 34 s', '3 h 05 min', '1 h 00 min']


def test_a_failed_write_leaves_the_old_page(tmp_path, study, monkeypatch):
    path = write_report(tmp_path / 'out' / 'report.html', make_study(study))
    before = path.read_text(encoding='utf-8')
    assert before.endswith('</html>\n')

    def fail(*_):
        raise OSError('disk full')

    monkeypatch.setattr('os.replace', fail)
    with pytest.raises(OSError, match='disk full'):
        write_atomically(path, 'half')
    assert path.read_text(encoding='utf-8') == before
    assert [p.name for p in path.parent.iterdir() if p.is_file()] == ['report.html']


def test_the_caption_of_curves_says_what_is_drawn(whole):
    assert 'xnli: training loss and dev accuracy by training step; a line for each run' in whole
    assert 'intermediate training: training loss by training step' in whole


def test_matplotlib_is_imported_only_to_draw():
    code = 'import sys, xlmr_flax.report; sys.exit("matplotlib" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
