"""Language codes and facts about languages: a table of facts and a table of aliases.

Benchmark files use ISO 639-1 codes ('de'). LASER's Tatoeba set and UD use ISO 639-3 codes ('deu'; for some languages
the code of an individual language within a macrolanguage: 'swh', 'cmn', 'pes'). FLORES-200 and SIB-200 use such a code
with the script ('swh_Latn'). `get_language` accepts all of them. A code with a script or a region after an underscore
('zh_Hant', 'fr_CA') is a variant of a language; it shares the language's ISO 639-3 code.

languages.tsv has the CC-100 size in GiB from the XLM-R paper's Table 6 (0 = not in its pretraining data; Swedish as its
authors corrected it later), the class of Joshi et al. 2020, the resource level high (class 4-5), mid (3) or low (0-2 or
not listed there), the families as XTREME groups them, and the Glottocode that FLORES+ gives. An empty cell means that
the fact is not recorded here. The class is also empty if the languages of the list of Joshi et al., which has names
without codes, cannot be told apart (dialects of Arabic, Northern and Southern Sotho).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

UNKNOWN = 'unknown'

# Further codes of a language besides the benchmark's code and the ISO 639-3 code: individual languages and older codes.
ALIASES = {
    'ar': ('arb',), 'ay': ('ayr',), 'az': ('azj',), 'et': ('ekk',), 'fa': ('pes',), 'gn': ('gug',), 'he': ('iw',),
    'id': ('in',), 'jv': ('jw',), 'ko': ('kor_Hang',), 'ku': ('kmr',), 'lv': ('lvs',), 'mg': ('plt',), 'mn': ('khk',),
    'ms': ('zsm',), 'ne': ('npi',), 'om': ('gaz',), 'or': ('ory',), 'ps': ('pbt',), 'qu': ('quy',), 'sq': ('als',),
    'sw': ('swh',), 'tl': ('fil',), 'uz': ('uzn',), 'yi': ('ji', 'ydd'), 'zh': ('cmn',),
}  # fmt: skip

# Benchmark code -> code in LASER's Tatoeba file names, if it is not that of ISO 639-3 (XTREME: scripts/run_tatoeba.sh).
TATOEBA_CODES = {'fa': 'pes', 'lv': 'lvs', 'ms': 'zsm', 'sw': 'swh', 'zh': 'cmn'}


@dataclass(frozen=True, slots=True)
class Language:
    """Facts about one language.

    code: the benchmark's code. family, script (ISO 15924), resource_level: 'unknown' if not recorded.
    cc100_gib: GiB in XLM-R's pretraining data, 0.0 = not in it, None = not recorded. joshi_class: 0-5 or None.
    glottocode: '' if not recorded.
    """

    code: str
    iso639_3: str
    name: str
    family: str = UNKNOWN
    script: str = UNKNOWN
    cc100_gib: float | None = None
    joshi_class: int | None = None
    resource_level: str = UNKNOWN
    glottocode: str = ''

    @property
    def base(self) -> str:
        """The code of the language of which this is a variant: 'fr' for 'fr_CA', otherwise the code itself."""
        return self.code.split('_')[0]


def _language(cells: list[str]) -> Language:
    code, iso, name, family, script, size, joshi, level, glottocode = cells
    return Language(
        code,
        iso,
        name,
        family or UNKNOWN,
        script or UNKNOWN,
        float(size) if size else None,
        int(joshi) if joshi else None,
        level or UNKNOWN,
        glottocode,
    )


@cache
def all_languages() -> dict[str, Language]:
    """All languages of languages.tsv as {benchmark code: Language}, in the order of the table."""
    text = resources.files('xlmr_flax.tasks').joinpath('languages.tsv').read_text(encoding='utf-8')
    rows = [_language(line.split('\t')) for line in text.splitlines()[1:] if line]
    table = {language.code: language for language in rows}
    if len(table) != len(rows):
        raise ValueError('languages.tsv has a code twice')
    return table


@cache
def _aliases() -> dict[str, str]:
    """Alias -> benchmark code. A language is also found by its codes with its script, as FLORES-200 writes them."""
    table: dict[str, str] = {}
    for language in reversed(all_languages().values()):  # a language comes before its variants, so that its codes win
        codes = (language.iso639_3, *ALIASES.get(language.base, ()))
        table |= {f'{code}_{language.script}': language.code for code in codes if language.script != UNKNOWN}
        if language.code == language.base:
            table |= dict.fromkeys(codes, language.code)
    return table | {code: code for code in all_languages()}


def get_language(code: str) -> Language:
    """Looks up a language by its benchmark, ISO 639-3, Tatoeba, UD, LASER or FLORES code.

    A code that is not in the table gives a Language that has the code as its name and no other facts.
    """
    known = _aliases().get(code)
    if known:
        return all_languages()[known]
    return Language(code, code if len(code) == 3 and code.isalpha() else UNKNOWN, code)


def tatoeba_code(code: str) -> str:
    """The code of a language in LASER's Tatoeba file names ('de' -> 'deu', 'zh' -> 'cmn', 'yid' -> 'yid')."""
    language = get_language(code)
    if language.code == code:
        return TATOEBA_CODES.get(code, language.iso639_3 if language.iso639_3 != UNKNOWN else code)
    return code
