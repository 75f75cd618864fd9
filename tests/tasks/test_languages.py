"""The language table: facts as they stand, aliases that meet in one row, unknown codes that pass."""

from __future__ import annotations

import re

import pytest

from xlmr_flax.tasks import all_tasks
from xlmr_flax.tasks.languages import all_languages, get_language, tatoeba_code


def test_facts() -> None:
    german = get_language('de')
    assert (german.iso639_3, german.name, german.family, german.script) == ('deu', 'German', 'IE:Germanic', 'Latn')
    assert (german.cc100_gib, german.joshi_class, german.resource_level) == (66.6, 5, 'high')
    quechua = get_language('qu')
    assert (quechua.cc100_gib, quechua.resource_level) == (0.0, 'low')
    assert get_language('shp').joshi_class is None


@pytest.mark.parametrize(
    ('alias', 'code'),
    [('deu', 'de'), ('swh', 'sw'), ('swa', 'sw'), ('cmn', 'zh'), ('zho', 'zh'), ('pes', 'fa'), ('fas', 'fa'),
     ('zsm', 'ms'), ('yid', 'yi'), ('quy', 'qu'), ('arb', 'ar'), ('jw', 'jv'), ('hau', 'ha'), ('pcm', 'pcm'),
     ('swh_Latn', 'sw'), ('zho_Hans', 'zh'), ('zho_Hant', 'zh_Hant'), ('arb_Arab', 'ar'), ('arb_Latn', 'ar_Latn'),
     ('kor_Hang', 'ko'), ('min_Arab', 'min_Arab'), ('min_Latn', 'min'), ('eng_Latn', 'en'), ('npi', 'ne')],
)  # fmt: skip
def test_aliases_meet(alias: str, code: str) -> None:
    assert get_language(alias) == get_language(code)
    assert get_language(alias).code == code


def test_an_unknown_code_is_named_by_itself() -> None:
    language = get_language('xyz')
    assert (language.code, language.name, language.family, language.script) == ('xyz', 'xyz', 'unknown', 'unknown')
    assert (language.cc100_gib, language.joshi_class, language.resource_level) == (None, None, 'unknown')
    assert get_language('q-x').iso639_3 == 'unknown'


def test_what_is_not_recorded_is_unknown() -> None:
    kashubian = get_language('csb')
    assert (kashubian.name, kashubian.family, kashubian.script) == ('Kashubian', 'IE:Slavic', 'Latn')
    assert (kashubian.joshi_class, kashubian.resource_level) == (None, 'unknown')
    assert get_language('acm').cc100_gib is None


def test_facts_of_languages_that_xtreme_lacks() -> None:
    nko, oromo = get_language('nqo_Nkoo'), get_language('gaz_Latn')
    assert (nko.code, nko.script, nko.cc100_gib, nko.resource_level) == ('nqo', 'Nkoo', 0.0, 'low')
    assert (nko.family, nko.glottocode) == ('Mande', 'nkoa1234')
    assert (oromo.code, oromo.iso639_3, oromo.cc100_gib, oromo.joshi_class) == ('om', 'orm', 0.1, 1)


def test_a_variant_follows_its_language() -> None:
    """A script or a region has the ISO 639-3 code and the family of the language that stands before it."""
    seen: list[str] = []
    for language in all_languages().values():
        if language.code != language.base:
            plain = get_language(language.base)
            assert language.base in seen
            assert (language.iso639_3, language.family) == (plain.iso639_3, plain.family)
            assert get_language(language.iso639_3) == plain
        seen.append(language.code)
    assert [code for code in seen if code.startswith('zh')] == ['zh', 'zh_Hant']
    assert get_language('zh').base == 'zh'


def test_every_language_of_every_task_is_known() -> None:
    tasks = all_tasks().values()
    unknown = {task.answer_language(code) for task in tasks for code in task.languages} - set(all_languages())
    assert not unknown


def test_the_table_is_clean() -> None:
    table = all_languages()
    codes = [language.iso639_3 for language in table.values() if language.code == language.base]
    assert len(set(codes)) == len(codes)
    for language in table.values():
        assert len(language.iso639_3) == 3
        assert re.fullmatch('([a-z]{4}[0-9]{4})?', language.glottocode)
        assert language.resource_level in ('high', 'mid', 'low', 'unknown')
        assert language.script == 'unknown' or (len(language.script) == 4 and language.script.istitle())
        # The level follows from the class where a level is recorded (languages.py).
        if language.resource_level != 'unknown':
            level = {None: 'low', 0: 'low', 1: 'low', 2: 'low', 3: 'mid', 4: 'high', 5: 'high'}[language.joshi_class]
            assert language.resource_level == level, language


def test_tatoeba_codes() -> None:
    assert [tatoeba_code(code) for code in ('de', 'zh', 'sw', 'fa', 'lv', 'yi', 'yid', 'nov')] == [
        'deu', 'cmn', 'swh', 'pes', 'lvs', 'yid', 'yid', 'nov',
    ]  # fmt: skip
