"""Every task is whole: splits, labels, languages, licence, a training task that exists; errors name what is close."""

from __future__ import annotations

import dataclasses

import pytest

from xlmr_flax.data.readers.tables import READERS
from xlmr_flax.kinds import KINDS
from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.tasks.base import TRANSLATED, Embedded, RowError, Table, TaskError
from xlmr_flax.tasks.languages import UNKNOWN, all_languages, get_language

NAMES = sorted(all_tasks())

# The paper's nine intermediate tasks (ANLI+ is a mixture of anli, mnli and snli) and nine targets, XTREME-R's
# additions, and the further tasks.
INTERMEDIATE = [
    'anli', 'mnli', 'snli', 'qqp', 'squad_v1', 'squad_v2', 'hellaswag', 'ccg', 'cosmosqa', 'commonsenseqa', 'siqa',
    'copa',
]  # fmt: skip
XTREME = ['xnli', 'pawsx', 'udpos', 'panx', 'xquad', 'mlqa', 'tydiqa', 'bucc2018', 'tatoeba']
XTREME_R = ['xcopa', 'mewslix', 'lareqa']
LOGIC = [
    'logiqa2', 'logiqa2_nli', 'control', 'folio', 'help', 'med', 'conjnli', 'sick', 'fracas', 'reclor', 'logicnli',
    'logiqa2_nli_new', 'control_whole', 'proofwriter', 'clutrr', 'clutrr_nli', 'logicbench',
]  # fmt: skip
OTHERS = [
    'americasnli', 'myxnli', 'kornli', 'masakhaner2', 'masakhaner2_nodate', 'masakhapos', 'mlqa_cross', 'xcopa_gmt',
    'squad_it', 'udhr', 'ccg_usual', 'afrixnli', 'indicxnli', 'xnli_plus', 'sib200', 'sib200_retrieval', 'flores200',
    'ntrex', 'belebele', 'nusax', 'masakhanews', 'uner',
]  # fmt: skip

# Target -> what is trained, first to last (jiant: xtreme_runconfig_writer.py; XTREME: scripts/train_*.sh).
TRAINED_BY = {
    'xnli': ['mnli'],
    'pawsx': ['pawsx'],
    'udpos': ['udpos'],
    'panx': ['panx'],
    'xquad': ['squad_v1'],
    'mlqa': ['squad_v1'],
    'mlqa_cross': ['squad_v1'],
    'tydiqa': ['tydiqa'],
    'xcopa': ['siqa', 'copa'],
    'xcopa_gmt': ['siqa', 'copa'],
    'americasnli': ['mnli'],
    'myxnli': ['mnli'],
    'kornli': ['mnli'],
    'afrixnli': ['mnli'],
    'indicxnli': ['mnli'],
    'xnli_plus': ['mnli'],
    'sib200': ['sib200'],
    'belebele': ['cosmosqa'],
    'nusax': ['nusax'],
    'masakhanews': ['masakhanews'],
    'uner': ['panx'],
    'masakhaner2': ['panx'],
    'masakhaner2_nodate': ['panx'],
    'masakhapos': ['udpos'],
    'bucc2018': [],
    'tatoeba': [],
    'sib200_retrieval': [],
    'flores200': [],
    'ntrex': [],
}


@pytest.mark.parametrize('names', [INTERMEDIATE, XTREME, XTREME_R, LOGIC, OTHERS, ['world_nli', 'world_retrieval']])
def test_the_registry_holds_what_was_asked_for(names: list[str]) -> None:
    assert not set(names) - set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_a_task_is_whole(name: str) -> None:
    task = get_task(name)
    assert task.name == name
    assert task.kind in KINDS
    assert task.licence
    assert task.source
    assert task.metrics
    known = task.languages + task.more_languages
    assert known == tuple(dict.fromkeys(known))
    assert not set(task.local_codes) - set(known)
    assert bool(task.labels or task.labels_from) == (task.kind in ('pair', 'tag', 'choice'))
    assert len(set(task.labels)) == len(task.labels)
    assert not set(task.labels_from) - set(task.splits)
    assert all(sources for sources in task.splits.values())
    assert task.checked_on.startswith(('real rows', 'stand-in rows', 'hand-made rows', 'embedded world'))
    assert set(task.translated) <= set(TRANSLATED)
    for split, codes in task.translated.items():
        assert codes == tuple(dict.fromkeys(codes))
        assert task.split_languages(split) == codes
        assert 'en' not in codes, 'English is no translation'
    if task.kind == 'retrieval':
        assert all(len(sources) == 2 for sources in task.splits.values())
        assert bool(task.gold) == (task.parse_gold is not None)
        assert not set(task.gold) - set(task.splits)


@pytest.mark.parametrize('name', NAMES)
def test_the_training_task_exists_and_has_the_same_head(name: str) -> None:
    task = get_task(name)
    if task.train_task is None:
        assert 'train' not in task.splits
        return
    trained = get_task(task.train_task)
    assert 'train' in trained.splits
    if task.kind == 'retrieval':
        return
    assert trained.kind == task.kind
    # Labels that the training task lacks come last, so that an output means the same to both.
    assert task.labels[: len(trained.labels)] == trained.labels
    if task.warmup_task:
        # A choice head gives one number a choice: Social IQa's three choices and COPA's two have one head.
        assert {get_task(task.warmup_task).kind, trained.kind, task.kind} == {'choice'}
        assert 'train' in get_task(task.warmup_task).splits
        assert get_task(task.warmup_task).warmup_task is None, 'a chain has two links'


@pytest.mark.parametrize(('target', 'trained'), TRAINED_BY.items())
def test_what_a_target_is_trained_on(target: str, trained: list[str]) -> None:
    task = get_task(target)
    assert [name for name in (task.warmup_task, task.train_task) if name] == trained


@pytest.mark.parametrize('name', NAMES)
def test_tables_are_relative_and_name_known_formats(name: str) -> None:
    task = get_task(name)
    tables = [s for sources in task.splits.values() for s in sources if isinstance(s, Table)] + list(task.gold.values())
    assert tables or any(isinstance(s, Embedded) for sources in task.splits.values() for s in sources)
    others = [other for table in tables for other in table.alternatives]
    for table in tables + others:
        assert table.format in READERS
        for path in (table.path, *table.also, table.label_file or 'none'):
            assert not path.startswith('/')
            assert '..' not in path
            if table.path.startswith('standins/'):
                assert table.stand_in
    in_all = ('/en/', 'myxnli', 'mewslix', '/eng_Latn', 'src.eng')
    many = [
        table for table in tables if '{language}' not in table.path and not any(part in table.path for part in in_all)
    ]
    assert len(task.languages) == 1 or not many


@pytest.mark.parametrize('name', NAMES)
def test_languages_are_known(name: str) -> None:
    task = get_task(name)
    translated = [code for codes in task.translated.values() for code in codes]
    for code in (*task.languages, *task.more_languages, *translated):
        language = get_language(task.answer_language(code))
        assert language.code == task.answer_language(code), 'languages.tsv writes it differently'
        assert language.iso639_3 != UNKNOWN
        assert language.code in all_languages()


def test_label_order_of_all_inference_tasks() -> None:
    two_classes = {'logiqa2_nli', 'logiqa2_nli_new', 'logicnli', 'logicbench'}
    others = {'pawsx', 'qqp', 'world_pairs', 'clutrr', 'sib200', 'nusax', 'masakhanews'}
    for name in NAMES:
        task = get_task(name)
        if task.kind == 'pair' and name not in two_classes | others:
            assert task.labels == ('contradiction', 'entailment', 'neutral')
    assert get_task('masakhaner2').labels[:7] == get_task('panx').labels


def test_languages_of_the_benchmark() -> None:
    numbers = {name: len(get_task(name).languages) for name in XTREME + XTREME_R}
    assert numbers == {
        'xnli': 15, 'pawsx': 7, 'udpos': 33, 'panx': 40, 'xquad': 11, 'mlqa': 7, 'tydiqa': 9, 'bucc2018': 4,
        'tatoeba': 36, 'xcopa': 11, 'mewslix': 11, 'lareqa': 11,
    }  # fmt: skip
    assert get_task('pawsx').languages == ('de', 'en', 'es', 'fr', 'ja', 'ko', 'zh')
    added = {name: len(get_task(name).more_languages) for name in ('udpos', 'panx', 'xquad', 'tatoeba')}
    assert added == {'udpos': 5, 'panx': 8, 'xquad': 1, 'tatoeba': 5}
    assert len(get_task('mlqa_cross').languages) == 42
    assert set(get_task('panx').languages) - set(get_task('tatoeba').languages) == {'en', 'ms', 'my', 'yo'}


def test_languages_of_the_parallel_sets() -> None:
    names = ('sib200', 'sib200_retrieval', 'flores200', 'ntrex', 'belebele', 'afrixnli', 'indicxnli', 'xnli_plus')
    assert {name: len(get_task(name).languages) for name in names} == {
        'sib200': 205, 'sib200_retrieval': 204, 'flores200': 203, 'ntrex': 126, 'belebele': 122, 'afrixnli': 18,
        'indicxnli': 11, 'xnli_plus': 52,
    }  # fmt: skip
    assert get_task('ntrex').more_languages == ('en_GB', 'en_IN', 'en_US')
    sib200 = get_task('sib200')
    assert [sib200.local_code(code) for code in ('sw', 'zh', 'zh_Hant', 'ar', 'ar_Latn', 'min_Arab', 'ko', 'nqo')] == [
        'swh_Latn', 'zho_Hans', 'zho_Hant', 'arb_Arab', 'arb_Latn', 'min_Arab', 'kor_Hang', 'nqo_Nkoo',
    ]  # fmt: skip
    with pytest.raises(TaskError, match=r"no language 'swh_Latn' \(did you mean 'sw'\?\)"):
        sib200.local_code('swh_Latn')
    assert {get_task('ntrex').local_code(code) for code in ('az', 'pt_BR', 'zh_Hant', 'tl', 'gsw_ZH')} == {
        'aze-Latn', 'por-BR', 'zho-TW', 'fil', 'gsw-ZH',
    }  # fmt: skip


def test_every_language_of_sib200_is_its_flores_code() -> None:
    task = get_task('sib200')
    for code in task.languages:
        language, (iso, script) = get_language(code), task.local_code(code).split('_')
        assert get_language(f'{iso}_{script}') == language
        assert language.script in (script, 'Kore'), code


def test_unknown_names_get_the_closest() -> None:
    with pytest.raises(TaskError, match=r"unknown task 'xnl1' \(did you mean 'xnli'\?\)"):
        get_task('xnl1')
    with pytest.raises(TaskError, match=r"no split 'tset' \(did you mean 'test'\?\)"):
        get_task('xnli').sources('tset')
    with pytest.raises(TaskError, match=r"'xnli' has no language 'ja' \(known: ar, bg"):
        get_task('xnli').local_code('ja')
    with pytest.raises(TaskError, match=r"'masakhaner2' has no language 'swa' \(did you mean 'sw'\?\)"):
        get_task('masakhaner2').local_code('swa')
    with pytest.raises(RowError, match=r"column 'label': unknown label 'entailmnt' \(did you mean 'entailment'\?\)"):
        get_task('xnli').label_index('entailmnt', 'label')


def test_translated_splits_and_their_languages_go_together() -> None:
    with pytest.raises(TaskError, match=r"'mnli': `translated` must name .* it names none"):
        dataclasses.replace(get_task('mnli'), translated={})
    with pytest.raises(TaskError, match='it names translate_test'):
        dataclasses.replace(get_task('copa'), translated={'translate_test': ('de',)})


def test_a_language_of_translations_alone() -> None:
    task = get_task('mnli')
    assert task.languages == ('en',)
    assert task.local_code('de') == task.local_code('de', 'translate_train') == 'de'
    with pytest.raises(TaskError, match=r"'mnli' has no language 'de' \(known: en\)"):
        task.local_code('de', 'train')
    with pytest.raises(TaskError, match=r"no language 'en' in split 'translate_train' \(known: ar, bg"):
        task.local_code('en', 'translate_train')


@pytest.mark.parametrize(
    ('name', 'language', 'split'),
    [
        ('mnli', 'en', 'train'),
        ('mnli', 'ko', 'translate_train'),
        ('pawsx', 'de', 'translate_train'),
        ('tydiqa', 'ar', 'translate_train'),
        ('udpos', 'de', 'train'),
        ('logiqa2', 'zh', 'train'),
        ('squad_it', 'it', 'train'),
        ('udhr', 'de', 'train'),
        ('world_nli', 'en', 'train'),
        ('world_nli', 'sw', 'translate_train'),
    ],
)
def test_the_split_of_training_rows_in_a_language(name: str, language: str, split: str) -> None:
    assert get_task(name).training_split(language) == split


def test_no_training_rows_in_a_language() -> None:
    with pytest.raises(TaskError, match=r"'mnli' has no training rows in 'ja' \(known: ar, bg, .*, zh"):
        get_task('mnli').training_split('ja')
    with pytest.raises(TaskError, match="'xnli' has no training rows; it is trained by 'mnli'"):
        get_task('xnli').training_split('de')
    with pytest.raises(TaskError, match="'copa' has no training rows in 'it'"):
        get_task('copa').training_split('it')


def test_codes_in_file_names() -> None:
    task = get_task('tatoeba')
    codes = {code: task.local_code(code) for code in ('de', 'sw', 'zh', 'fa', 'ar', 'az', 'yid', 'deu')}
    assert codes == {
        'de': 'deu', 'sw': 'swh', 'zh': 'cmn', 'fa': 'pes', 'ar': 'ara', 'az': 'aze', 'yid': 'yid', 'deu': 'deu',
    }  # fmt: skip
    assert get_task('americasnli').local_code('qu') == 'quy'
    assert get_task('masakhapos').local_code('tw') == 'twi'
    assert get_task('mlqa_cross').local_code('en-de') == 'en-question-de'
    assert get_task('logiqa2').local_code('en') == ''
    assert get_task('udhr').local_code('mn') == 'khk'


def test_the_language_of_answers() -> None:
    assert get_task('mlqa_cross').answer_language('en-de') == 'en'
    assert get_task('mlqa').answer_language('de') == 'de'
    assert get_task('mlqa').answer_language('de', 'translate_test') == 'en'
