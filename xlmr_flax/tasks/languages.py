"""Language codes and facts about languages: a table of facts and a table of aliases.

Benchmark files use ISO 639-1 codes ('de'). LASER's Tatoeba set and UD use ISO 639-3 codes ('deu'; for some languages
the code of an individual language within a macrolanguage: 'swh', 'cmn', 'pes'). `get_language` accepts all of them.

languages.tsv has the CC-100 size in GiB from the XLM-R paper's Table 6 (0 = not in its pretraining data), the class of
Joshi et al. 2020, the resource level high (class 4-5), mid (3) or low (0-2 or not listed there), and the families as
XTREME groups them. An empty cell means that the fact is not recorded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

UNKNOWN = 'unknown'

# Further codes of a language besides the benchmark's code and the ISO 639-3 code: individual languages and older codes.
ALIASES = {
    'ar': ('arb',),
    'fa': ('pes',),
    'he': ('iw',),
    'id': ('in',),
    'jv': ('jw',),
    'lv': ('lvs',),
    'ms': ('zsm',),
    'qu': ('quy',),
    'sw': ('swh',),
    'yi': ('ji',),
    'zh': ('cmn',),
}

# Benchmark code -> code in LASER's Tatoeba file names, if it is not that of ISO 639-3 (XTREME: scripts/run_tatoeba.sh).
TATOEBA_CODES = {'fa': 'pes', 'lv': 'lvs', 'ms': 'zsm', 'sw': 'swh', 'zh': 'cmn'}


@dataclass(frozen=True, slots=True)
class Language:
    """Facts about one language.

    code: the benchmark's code. family, script (ISO 15924), resource_level: 'unknown' if not recorded.
    cc100_gib: GiB in XLM-R's pretraining data, 0.0 = not in it, None = not recorded. joshi_class: 0-5 or None.
    """

    code: str
    iso639_3: str
    name: str
    family: str = UNKNOWN
    script: str = UNKNOWN
    cc100_gib: float | None = None
    joshi_class: int | None = None
    resource_level: str = UNKNOWN


def _language(cells: list[str]) -> Language:
    code, iso, name, family, script, size, joshi, level = cells
    return Language(
        code,
        iso,
        name,
        family or UNKNOWN,
        script or UNKNOWN,
        float(size) if size else None,
        int(joshi) if joshi else None,
        level or UNKNOWN,
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
    table = {language.iso639_3: code for code, language in all_languages().items()}
    table |= {alias: code for code, aliases in ALIASES.items() for alias in aliases}
    return table | {code: code for code in all_languages()}


def get_language(code: str) -> Language:
    """Looks up a language by its benchmark, ISO 639-3, Tatoeba, UD or LASER code.

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
