"""Tasks on the sentences of FLORES-200, which are parallel in 204 languages: topic classification (SIB-200), sentence
retrieval and reading comprehension (Belebele); and sentence retrieval in the news of NTREX-128.

File names have FLORES-200's codes ('swh_Latn'); our codes are those of languages.tsv ('sw').
"""

from __future__ import annotations

from typing import Any

from xlmr_flax.tasks import parsers
from xlmr_flax.tasks.base import PairExample, SentenceExample, Table, Task, text_of
from xlmr_flax.tasks.labels import choices
from xlmr_flax.tasks.languages import get_language
from xlmr_flax.tasks.parsers import Row, id_of

TOPICS = ('entertainment', 'geography', 'health', 'politics', 'science/technology', 'sports', 'travel')

# SIB-200's languages. FLORES-200 has no Nko.
SIB200_CODES = (
    'ace_Arab', 'ace_Latn', 'acm_Arab', 'acq_Arab', 'aeb_Arab', 'afr_Latn', 'ajp_Arab', 'aka_Latn', 'als_Latn',
    'amh_Ethi', 'apc_Arab', 'arb_Arab', 'arb_Latn', 'ars_Arab', 'ary_Arab', 'arz_Arab', 'asm_Beng', 'ast_Latn',
    'awa_Deva', 'ayr_Latn', 'azb_Arab', 'azj_Latn', 'bak_Cyrl', 'bam_Latn', 'ban_Latn', 'bel_Cyrl', 'bem_Latn',
    'ben_Beng', 'bho_Deva', 'bjn_Arab', 'bjn_Latn', 'bod_Tibt', 'bos_Latn', 'bug_Latn', 'bul_Cyrl', 'cat_Latn',
    'ceb_Latn', 'ces_Latn', 'cjk_Latn', 'ckb_Arab', 'crh_Latn', 'cym_Latn', 'dan_Latn', 'deu_Latn', 'dik_Latn',
    'dyu_Latn', 'dzo_Tibt', 'ell_Grek', 'eng_Latn', 'epo_Latn', 'est_Latn', 'eus_Latn', 'ewe_Latn', 'fao_Latn',
    'fij_Latn', 'fin_Latn', 'fon_Latn', 'fra_Latn', 'fur_Latn', 'fuv_Latn', 'gaz_Latn', 'gla_Latn', 'gle_Latn',
    'glg_Latn', 'grn_Latn', 'guj_Gujr', 'hat_Latn', 'hau_Latn', 'heb_Hebr', 'hin_Deva', 'hne_Deva', 'hrv_Latn',
    'hun_Latn', 'hye_Armn', 'ibo_Latn', 'ilo_Latn', 'ind_Latn', 'isl_Latn', 'ita_Latn', 'jav_Latn', 'jpn_Jpan',
    'kab_Latn', 'kac_Latn', 'kam_Latn', 'kan_Knda', 'kas_Arab', 'kas_Deva', 'kat_Geor', 'kaz_Cyrl', 'kbp_Latn',
    'kea_Latn', 'khk_Cyrl', 'khm_Khmr', 'kik_Latn', 'kin_Latn', 'kir_Cyrl', 'kmb_Latn', 'kmr_Latn', 'knc_Arab',
    'knc_Latn', 'kon_Latn', 'kor_Hang', 'lao_Laoo', 'lij_Latn', 'lim_Latn', 'lin_Latn', 'lit_Latn', 'lmo_Latn',
    'ltg_Latn', 'ltz_Latn', 'lua_Latn', 'lug_Latn', 'luo_Latn', 'lus_Latn', 'lvs_Latn', 'mag_Deva', 'mai_Deva',
    'mal_Mlym', 'mar_Deva', 'min_Arab', 'min_Latn', 'mkd_Cyrl', 'mlt_Latn', 'mni_Beng', 'mos_Latn', 'mri_Latn',
    'mya_Mymr', 'nld_Latn', 'nno_Latn', 'nob_Latn', 'npi_Deva', 'nqo_Nkoo', 'nso_Latn', 'nus_Latn', 'nya_Latn',
    'oci_Latn', 'ory_Orya', 'pag_Latn', 'pan_Guru', 'pap_Latn', 'pbt_Arab', 'pes_Arab', 'plt_Latn', 'pol_Latn',
    'por_Latn', 'prs_Arab', 'quy_Latn', 'ron_Latn', 'run_Latn', 'rus_Cyrl', 'sag_Latn', 'san_Deva', 'sat_Olck',
    'scn_Latn', 'shn_Mymr', 'sin_Sinh', 'slk_Latn', 'slv_Latn', 'smo_Latn', 'sna_Latn', 'snd_Arab', 'som_Latn',
    'sot_Latn', 'spa_Latn', 'srd_Latn', 'srp_Cyrl', 'ssw_Latn', 'sun_Latn', 'swe_Latn', 'swh_Latn', 'szl_Latn',
    'tam_Taml', 'taq_Latn', 'taq_Tfng', 'tat_Cyrl', 'tel_Telu', 'tgk_Cyrl', 'tgl_Latn', 'tha_Thai', 'tir_Ethi',
    'tpi_Latn', 'tsn_Latn', 'tso_Latn', 'tuk_Latn', 'tum_Latn', 'tur_Latn', 'twi_Latn', 'tzm_Tfng', 'uig_Arab',
    'ukr_Cyrl', 'umb_Latn', 'urd_Arab', 'uzn_Latn', 'vec_Latn', 'vie_Latn', 'war_Latn', 'wol_Latn', 'xho_Latn',
    'ydd_Hebr', 'yor_Latn', 'yue_Hant', 'zho_Hans', 'zho_Hant', 'zsm_Latn', 'zul_Latn',
)  # fmt: skip

# Belebele has these further scripts, and not these languages.
ROMANIZED = ('ben_Latn', 'hin_Latn', 'npi_Latn', 'sin_Latn', 'urd_Latn')
NOT_IN_BELEBELE = (
    'ace_Arab', 'ace_Latn', 'acq_Arab', 'aeb_Arab', 'ajp_Arab', 'aka_Latn', 'ast_Latn', 'awa_Deva', 'ayr_Latn',
    'azb_Arab', 'bak_Cyrl', 'ban_Latn', 'bel_Cyrl', 'bem_Latn', 'bho_Deva', 'bjn_Arab', 'bjn_Latn', 'bos_Latn',
    'bug_Latn', 'cjk_Latn', 'crh_Latn', 'cym_Latn', 'dik_Latn', 'dyu_Latn', 'dzo_Tibt', 'epo_Latn', 'ewe_Latn',
    'fao_Latn', 'fij_Latn', 'fon_Latn', 'fur_Latn', 'gla_Latn', 'gle_Latn', 'glg_Latn', 'hne_Deva', 'kab_Latn',
    'kam_Latn', 'kas_Arab', 'kas_Deva', 'kbp_Latn', 'kik_Latn', 'kmb_Latn', 'kmr_Latn', 'knc_Arab', 'knc_Latn',
    'kon_Latn', 'lij_Latn', 'lim_Latn', 'lmo_Latn', 'ltg_Latn', 'ltz_Latn', 'lua_Latn', 'lus_Latn', 'mag_Deva',
    'mai_Deva', 'min_Arab', 'min_Latn', 'mni_Beng', 'mos_Latn', 'nno_Latn', 'nqo_Nkoo', 'nus_Latn', 'oci_Latn',
    'pag_Latn', 'pap_Latn', 'prs_Arab', 'quy_Latn', 'run_Latn', 'sag_Latn', 'san_Deva', 'sat_Olck', 'scn_Latn',
    'smo_Latn', 'srd_Latn', 'szl_Latn', 'taq_Latn', 'taq_Tfng', 'tat_Cyrl', 'tpi_Latn', 'tuk_Latn', 'tum_Latn',
    'twi_Latn', 'tzm_Tfng', 'uig_Arab', 'umb_Latn', 'vec_Latn', 'ydd_Hebr', 'yue_Hant',
)  # fmt: skip
BELEBELE_CODES = (*(code for code in SIB200_CODES if code not in NOT_IN_BELEBELE), *ROMANIZED)

# NTREX-128's codes that do not name a language of languages.tsv by themselves; all others are ISO 639-3 codes.
NTREX_VARIANTS = {
    'aze-Latn': 'az', 'ckb-Arab': 'ckb', 'eng-GB': 'en_GB', 'eng-IN': 'en_IN', 'eng-US': 'en_US', 'fra-CA': 'fr_CA',
    'gsw-BE': 'gsw_BE', 'gsw-ZH': 'gsw_ZH', 'por-BR': 'pt_BR', 'sna-Latn': 'sn', 'snd-Arab': 'sd', 'spa-MX': 'es_MX',
    'srp-Cyrl': 'sr', 'srp-Latn': 'sr_Latn', 'tgk-Cyrl': 'tg', 'zho-CN': 'zh', 'zho-TW': 'zh_Hant',
}  # fmt: skip
NTREX_CODES = (
    'afr', 'amh', 'arb', 'bak', 'bel', 'bem', 'ben', 'bod', 'bos', 'bul', 'cat', 'ces', 'cym', 'dan', 'deu', 'div',
    'dzo', 'ell', 'est', 'eus', 'ewe', 'fao', 'fas', 'fij', 'fil', 'fin', 'fra', 'fuc', 'gle', 'glg', 'guj', 'hau',
    'heb', 'hin', 'hmn', 'hrv', 'hun', 'hye', 'ibo', 'ind', 'isl', 'ita', 'jpn', 'kan', 'kat', 'kaz', 'khm', 'kin',
    'kir', 'kmr', 'kor', 'lao', 'lav', 'lit', 'ltz', 'mal', 'mar', 'mey', 'mkd', 'mlg', 'mlt', 'mon', 'mri', 'msa',
    'mya', 'nde', 'nep', 'nld', 'nno', 'nob', 'nso', 'nya', 'orm', 'pan', 'pol', 'por', 'prs', 'pus', 'ron', 'rus',
    'shi', 'sin', 'slk', 'slv', 'smo', 'som', 'spa', 'sqi', 'ssw', 'swa', 'swe', 'tah', 'tam', 'tat', 'tel', 'tha',
    'tir', 'ton', 'tsn', 'tuk', 'tur', 'uig', 'ukr', 'urd', 'uzb', 'ven', 'vie', 'wol', 'xho', 'yor', 'yue', 'zul',
)  # fmt: skip


def parse_topic(row: Row, task: Task, language: str) -> PairExample:
    """Parses a row of SIB-200: one sentence with its topic. Its id is the line of the sentence in FLORES-200."""
    label = task.label_index(row['category'], 'category')
    return PairExample(id_of(row, 'index_id'), text_of(row, 'text'), None, label)


def parse_sentence(row: Row, task: Task, language: str) -> SentenceExample:
    """Parses a sentence; in SIB-200's files with its id, which is the same in every language."""
    return SentenceExample(id_of(row, 'index_id'), text_of(row, 'text'))


def _local_codes(codes: tuple[str, ...]) -> dict[str, str]:
    """Our code -> code in file names, in the order of the latter."""
    return {get_language(code).code: code for code in codes}


def _retrieval(name: str, codes: dict[str, str], splits: dict[str, tuple[Table, Table]], **more: Any) -> Task:
    """A retrieval task with English queries. English itself is no language of it, as in Tatoeba; its variants do not
    count in the mean."""
    local = {code: file for code, file in codes.items() if code != 'en'}
    english = tuple(code for code in local if get_language(code).base == 'en')
    return Task(
        name=name,
        kind='retrieval',
        labels=(),
        metrics=('accuracy',),
        languages=tuple(code for code in local if code not in english),
        more_languages=english,
        local_codes=local,
        splits=splits,
        parse=parse_sentence,
        **more,
    )


def _sib200(split: str, language: str = '{language}') -> Table:
    return Table(f'low_resource/sib200/{language}/{split}.tsv', 'csv_tabs', ('index_id', 'category', 'text'))


def _lines(path: str) -> Table:
    return Table(f'low_resource/{path}', 'lines', ('text',), header=False)


_SIB200_CODES = _local_codes(SIB200_CODES)
_SIB200: dict[str, Any] = {
    'licence': 'CC BY-SA 4.0 (the sentences); Apache-2.0 (the repository)',
    'source': 'https://github.com/dadelani/sib-200',
}

SIB200 = Task(
    name='sib200',
    kind='pair',
    labels=TOPICS,
    metrics=('accuracy',),
    languages=tuple(_SIB200_CODES),
    local_codes=_SIB200_CODES,
    splits={split: (_sib200(split),) for split in ('train', 'dev', 'test')},
    parse=parse_topic,
    train_task='sib200',
    note='the files of its folder data/annotated; they are quoted as CSV; a row has the same id in every language',
    **_SIB200,
)

SIB200_RETRIEVAL = _retrieval(
    'sib200_retrieval',
    _SIB200_CODES,
    {split: (_sib200(split, 'eng_Latn'), _sib200(split)) for split in ('dev', 'test')},
    note='the sentence with the same index_id, both ways; rows with different ids are an error',
    **_SIB200,
)

FLORES200 = _retrieval(
    'flores200',
    _local_codes(tuple(code for code in SIB200_CODES if code != 'nqo_Nkoo')),
    {
        split: (
            _lines(f'flores200_dataset/{part}/eng_Latn.{part}'),
            _lines(f'flores200_dataset/{part}/{{language}}.{part}'),
        )
        for split, part in (('dev', 'dev'), ('test', 'devtest'))
    },
    licence='CC BY-SA 4.0',
    source='https://github.com/facebookresearch/flores',
    note='the unpacked archive flores200_dataset; its devtest part is the test split; SIB-200 has the same sentences, '
    'and the passages of Belebele consist of them',
    checked_on='hand-made rows',
)

NTREX = _retrieval(
    'ntrex',
    _local_codes(NTREX_CODES) | {code: file for file, code in NTREX_VARIANTS.items()},
    {
        'test': (
            _lines('ntrex128/NTREX-128/newstest2019-src.eng.txt'),
            _lines('ntrex128/NTREX-*/newstest2019-ref.{language}.txt'),
        )
    },
    licence='CC BY-SA 4.0',
    source='https://github.com/MicrosoftTranslator/NTREX',
    note='news of WMT19 and their translations, line by line; with the two Swiss German dialects of NTREX-additional; '
    'the second Spanish reference is not read',
)

BELEBELE = Task(
    name='belebele',
    kind='choice',
    labels=choices(4),
    metrics=('accuracy',),
    languages=tuple(_local_codes(BELEBELE_CODES)),
    local_codes=_local_codes(BELEBELE_CODES),
    splits={
        'test': (
            Table(
                'low_resource/belebele/{language}.jsonl',
                'jsonl',
                ('flores_passage', 'question', 'mc_answer1', 'mc_answer2', 'mc_answer3', 'mc_answer4'),
                optional=('correct_answer_num',),
            ),
        )
    },
    parse=parsers.choice(
        ('flores_passage', 'question'),
        ('mc_answer1', 'mc_answer2', 'mc_answer3', 'mc_answer4'),
        'correct_answer_num',
        {str(number): number - 1 for number in (1, 2, 3, 4)},
    ),
    train_task='cosmosqa',
    licence='CC BY-SA 4.0',
    source='https://github.com/facebookresearch/belebele',
    note='the files of its archive; it has no training set: trained on Cosmos QA, which also has a passage and four '
    'choices; its authors train on a mixture of English reading comprehension',
    checked_on='hand-made rows',
)

TASKS = (SIB200, SIB200_RETRIEVAL, FLORES200, NTREX, BELEBELE)
