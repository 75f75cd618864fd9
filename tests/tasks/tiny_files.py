"""Small files in the layout of every dataset, written by hand for these tests: path under the data root -> content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def jsonl(*rows: Any) -> str:
    return ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)


def tsv(*rows: tuple[str, ...]) -> str:
    return ''.join('\t'.join(row) + '\n' for row in rows)


def squad(*paragraphs: dict[str, Any], indent: int | None = None) -> str:
    data = {'version': '1.1', 'data': [{'title': 'T', 'paragraphs': list(paragraphs)}]}
    return json.dumps(data, ensure_ascii=False, indent=indent)


def question(ident: str, text: str, *answers: tuple[str, int], **more: Any) -> dict[str, Any]:
    return {
        'id': ident,
        'question': text,
        'answers': [{'text': answer, 'answer_start': start} for answer, start in answers],
        **more,
    }


def write(root: Path, *paths: str) -> Path:
    """Writes the files of those paths (default: all) under root."""
    for path in paths or FILES:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(FILES[path], encoding='utf-8', newline='')
    return root


LAKE = 'The lake froze in May. Nobody had seen that before.'
SEE = 'Der See fror im Mai zu. Niemand hatte das je gesehen.'
_LAKE_R = {
    'context': LAKE,
    'sentence_breaks': [[0, 22], [23, 51]],
    'qas': [question('q1', 'When did the lake freeze?', ('May', 18)), question('q2', 'Who saw it?', ('Nobody', 23))],
}
_SEE_R = {
    'context': SEE,
    'sentence_breaks': [[0, 23], [24, 53]],
    'qas': [question('q1', 'Wann fror der See zu?', ('Mai', 16)), question('q2', 'Wer sah es?', ('Niemand', 24))],
}
_CSQA = {'question_concept': 'rain', 'stem': 'Where is rain kept?', 'choices': [
    {'label': 'BACDE'[number], 'text': text} for number, text in enumerate(('sky', 'barrel', 'shoe', 'book', 'hat'))
]}  # fmt: skip
_COPA = {'premise': 'The glass fell.', 'choice1': 'It broke.', 'choice2': 'It sang.', 'question': 'effect', 'idx': 0}
_MENTION = {
    'context': {
        'document_title': 'D', 'document_url': 'u', 'document_id': 'd1', 'language': 'de',
        'text': 'Alles gut. Die Stadt {alt} Bonn liegt am Rhein. Ende.',
        'sentence_spans': [{'start': 0, 'end': 10}, {'start': 11, 'end': 47}, {'start': 48, 'end': 53}],
    },
    'mentions': [
        {'example_id': 'm1', 'mention_span': {'start': 27, 'end': 31, 'text': 'Bonn'}, 'entity_id': 'Q586'},
        {'example_id': 'm2', 'mention_span': {'start': 41, 'end': 46, 'text': 'Rhein'}, 'entity_id': 'Q584'},
    ],
}  # fmt: skip
_ENTITY = {
    'entity_id': 'Q586', 'title': 'Bonn', 'description': 'Bonn is a city.\nIt is old. More.',
    'description_language': 'en', 'description_url': 'u',
    'sentence_spans': [{'start': 0, 'end': 15}, {'start': 16, 'end': 26}],
}  # fmt: skip

FILES = {
    'intermediate/qqp/train.tsv': tsv(
        ('id', 'qid1', 'qid2', 'question1', 'question2', 'is_duplicate'), ('0', '1', '2', 'Why?', 'How come?', '1')
    ),
    'standins/QQP/dev.tsv': tsv(
        ('id', 'qid1', 'qid2', 'question1', 'question2', 'is_duplicate'), ('0', '1', '2', 'A cat .', 'A dog .', '0')
    ),
    'intermediate/squad_v1.1/dev-v1.1.json': squad(
        {'context': LAKE, 'qas': [question('a1', 'When?', ('May', 18), ('in  May', 15))]}, indent=1
    ),
    'intermediate/squad_v2.0/dev-v2.0.json': squad(
        {
            'context': LAKE,
            'qas': [
                question('b1', 'When?', ('in May', 15), is_impossible=False),
                question('b2', 'Why?', is_impossible=True, plausible_answers=[]),
            ],
        }
    ),
    'intermediate/hellaswag/hellaswag_val.jsonl': jsonl(
        {
            'ind': 4,
            'ctx_a': 'She opens the door.',
            'ctx_b': 'she',
            'endings': ['runs.', 'flies.', 'melts.', 'rains.'],
            'label': 2,
        }
    ),
    'intermediate/ccg/train.stagged': 'Every|DT|NP/N man|NN|N runs|VBZ|S\\NP .|.|.\n\na|b|SYM|N\n',
    'intermediate/ccg/dev.stagged': 'Ann|NNP|N runs|VBZ|S/NP\n',
    'intermediate/cosmosqa/valid.csv': (
        'id,context,question,answer0,answer1,answer2,answer3,label\n'
        'c1,"It rained, so I ""stayed"" in.",Why stay?,No reason,Rain,Snow,Sun,1\n'
    ),
    'intermediate/commonsenseqa/dev_rand_split.jsonl': jsonl({'answerKey': 'B', 'id': 's1', 'question': _CSQA}),
    'intermediate/commonsenseqa/test_rand_split_no_answers.jsonl': jsonl({'id': 's2', 'question': _CSQA}),
    'intermediate/siqa/train.jsonl': jsonl(
        {'context': 'Al fell.', 'question': 'How is Al?', 'answerA': 'glad', 'answerB': 'hurt', 'answerC': 'tall'}
    ),
    'intermediate/siqa/train-labels.lst': '2\n',
    'intermediate/siqa/socialIQa_v1.4_dev.jsonl': jsonl(
        {
            'context': 'Al fell.',
            'question': 'How is Al?',
            'answerA': 'glad',
            'answerB': 'hurt',
            'answerC': 'tall',
            'correct': 'C',
        }
    ),
    'xtremer/copa/train.en.jsonl': jsonl({**_COPA, 'label': 0}),
    'xtremer/copa/test.en.jsonl': jsonl({**_COPA, 'label': 0}),
    'xtremer/xcopa/data/it/test.it.jsonl': jsonl({**_COPA, 'question': 'cause', 'label': 1, 'changed': False}),
    'xtremer/xcopa/data-gmt/it/test.it.jsonl': jsonl({**_COPA, 'label': 1}),
    'logic/logiqa2/LOGIQA/dev.txt': jsonl(
        {'id': 7, 'answer': 3, 'text': 'All men die.', 'question': 'So?', 'options': ['a', 'b', 'c', 'd'], 'type': {}}
    ),
    'logic/logiqa2/LOGIQA/dev_zh.txt': jsonl(
        {'example_id': 8, 'answer': 0, 'text': '人皆有死。', 'question': '所以？', 'options': ['甲', '乙', '丙', '丁']}
    ),
    'logic/logiqa2/QA2NLI/dev.txt': jsonl(
        {'label': 'not entailed', 'major_premise': ['A.', 'B.'], 'minor_premise': ' C.', 'conclusion': 'D.'},
        {'label': 'entailed', 'major_premise': 'A.', 'minor_premise': '', 'conclusion': 'D.'},
        {'id': 3, 'label': 'entailed', 'premise': 'P.', 'conclusion': 'D.'},
    ),
    'logic/reclor/val.json': json.dumps(
        [{'context': 'C.', 'question': 'Q?', 'answers': ['1', '2', '3', '4'], 'label': 2, 'id_string': 'val_0'}],
        indent=1,
    ),
    'logic/control/dev.jsonl': jsonl({'uid': 'id_0', 'premise': 'P', 'hypothesis': 'H', 'label': 'c'}),
    'logic/folio/folio-train.jsonl': jsonl(
        {'story_id': 1, 'example_id': 11, 'premises': ['X is Y.', 'Y is Z.'], 'conclusion': 'X is Z.', 'label': 'True'},
        {'story_id': 1, 'example_id': 12, 'premises': ['X is Y.'], 'conclusion': 'X is W.', 'label': 'Unknown'},
    ),
    'logic/folio/folio-validation.jsonl': jsonl(
        {'premises': ['X is Y.'], 'conclusion': 'X is W.', 'label': 'Uncertain'}
    ),
    'logic/help/leskexppmb_and.tsv': tsv(
        ('', 'filename', 'gold_label', 'ori_sentence', 'new_sentence'),
        ('0', 'f', 'neutral', 'He ran', 'He ran and sat'),
    ),
    'logic/help/leskexppmb_or.tsv': tsv(
        ('', 'filename', 'gold_label', 'ori_sentence', 'new_sentence'),
        ('0', 'f', 'entailment', 'He ran', 'He ran or sat'),
    ),
    'logic/med/MED.tsv': tsv(
        ('index', 'sentence1', 'sentence2', 'gold_label'), ('1', 'No dog ran', 'No pug ran', 'entailment')
    ),
    'logic/conjnli/conj_dev.tsv': tsv(('Premise', 'Hypothesis', 'Label'), ('A and B ran', 'A ran', 'entailment')),
    'logic/sick/SICK_trial.txt': tsv(
        ('pair_ID', 'sentence_A', 'sentence_B', 'relatedness_score', 'entailment_judgment'),
        ('4', 'A man runs', 'A man sits', '3.1', 'CONTRADICTION'),
    ),
    'logic/fracas/fracas.tsv': tsv(
        ('id', 'section', 'premises', 'hypothesis', 'answer'),
        ('1', 's', 'All ran. || Ann is one.', 'Ann ran.', 'yes'),
        ('12', 's', 'Few ran.', 'Ann ran.', 'undef'),
        ('13', 's', 'None ran.', 'Ann ran.', 'no'),
    ),
    'logic/logicnli/dev_language.json': json.dumps(
        {
            '0': {
                'facts': ['A is B.'],
                'rules': ['B is C.'],
                'statements': ['A is C.', 'A is D.'],
                'labels': ['entailment', 'self_contradiction'],
            }
        }
    ),
    'low_resource/americasnli/dev/quy.tsv': tsv(
        ('id', 'language', 'premise', 'hypothesis', 'label'), ('9', 'quy', 'p', 'h', 'neutral')
    ),
    'low_resource/myxnli/my.genre.dev.tsv': tsv(
        ('genre', 'label', 'sentence1_en', 'sentence2_en', 'sentence1_my', 'sentence2_my'),
        ('fiction', 'entailment', 'one', 'two', 'တစ်', 'နှစ်'),
    ),
    'low_resource/kornli/xnli.dev.ko.tsv': tsv(
        ('sentence1', 'sentence2', 'gold_label'), ('하나', '둘', 'contradiction')
    ),
    'xtreme/xquad/xquad.de.json': squad({'context': SEE, 'qas': [question('x1', 'Wann?', ('im Mai', 13))]}),
    'xtreme/mlqa/MLQA_V1/dev/dev-context-en-question-de.json': squad(
        {'context': LAKE, 'qas': [question('m1', 'Wann?', ('May', 18))]}
    ),
    'xtreme/mlqa/MLQA_V1/test/test-context-de-question-de.json': squad(
        {'context': SEE, 'qas': [question('m2', 'Wann?')]}
    ),
    'xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json': squad(
        {'context': LAKE, 'qas': [question('1', 'When?', ('May', 18))]},
        {'context': LAKE, 'qas': [question('1', 'Who?', ('Nobody', 23))]},
    ),
    'translated/squad_it/SQuAD_it-test.json': squad(
        {
            'context': LAKE,
            'qas': [question('i1', 'Quando?', ('', 0), ('May', 18)), question('i2', 'Chi?', ('nobody', 23))],
        }
    ),
    'xtreme/udpos/UD_Spanish-XX/es_xx-ud-test.conllu': (
        '# text = Vámonos al mar\n'
        '1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_\n'
        '1\tVamos\tir\tVERB\t_\t_\t0\troot\t_\t_\n'
        '2\tnos\tnos\tPRON\t_\t_\t1\tobj\t_\t_\n'
        '3-4\tal\t_\t_\t_\t_\t_\t_\t_\t_\n'
        '3\ta\ta\tADP\t_\t_\t5\tcase\t_\t_\n'
        '4\tel\tel\tDET\t_\t_\t5\tdet\t_\t_\n'
        '4.1\t_\t_\tNOUN\t_\t_\t_\t_\t_\t_\n'
        '5\tm\u200car\tmar\tNOUN\t_\t_\t1\tobl\t_\t_\n'
        '\n'
        '1\t_\t_\tNOUN\t_\t_\t0\troot\t_\t_\n'
        '2\t_\t_\tVERB\t_\t_\t1\tx\t_\t_\n'
        '\n'
    ),
    'xtreme/udpos/UD_Spanish-YY/es_yy-ud-test.conllu': '1\t10 000\t_\tNUM\t_\t_\t0\troot\t_\t_\n',
    'xtreme/udpos_tsv/test-ar.tsv': 'في\tADP\nبيت\tNOUN\n',
    'xtreme/panx/dev-af.tsv': 'Hy\tO\nis\tO\n\nPous\tB-PER\nRomanus\tI-PER\n\n',
    'xtreme/panx/test-af.tsv': 'Hy\nis\n\nPous\n',
    'low_resource/masakhaner2/swa/test.txt': 'Jana B-DATE\nAsha B-PER\nalienda O\n\n',
    'low_resource/masakhapos/twi/test.txt': 'Ama PROPN\nkɔ VERB\n',
    'standins/bucc2018/de-en.dev.de': 'de-1\tEins.\nde-2\tZwei.\nde-3\tDrei.\n',
    'standins/bucc2018/de-en.dev.en': 'en-1\tTwo.\nen-2\tOne.\n',
    'standins/bucc2018/de-en.dev.gold': 'de-1\ten-2\nde-2\ten-1\n',
    **{f'xtremer/lareqa/xquad-r/{code}.json': squad(_LAKE_R) for code in ('ar', 'el', 'en', 'es', 'hi', 'ru', 'th')},
    **{f'xtremer/lareqa/xquad-r/{code}.json': squad(_SEE_R) for code in ('de', 'tr', 'vi', 'zh')},
    'xtremer/mewslix/wikinews_mentions-dev.jsonl': jsonl(
        _MENTION, {**_MENTION, 'context': {**_MENTION['context'], 'language': 'en'}}
    ),
    'xtremer/mewslix/candidate_set_entities.jsonl': jsonl(_ENTITY, {**_ENTITY, 'entity_id': 'Q584'}),
    'xtremer/mewslix/wikipedia_pairs-train.jsonl': jsonl(
        {'contextual_mention': {'context': _MENTION['context'], 'mention': _MENTION['mentions'][1]}, 'entity': _ENTITY}
    ),
    'translated/XNLI-MT-1.0/multinli/multinli.train.de.tsv': tsv(
        ('premise', 'hypo', 'label'),
        ('Er "lief .', 'Er lief .', 'entailment'),
        ('Er lief .', 'Er saß .', 'contradictory'),
    ),
    'translated/xtreme_translations/XNLI/translate-train/en-sw-translated.tsv': tsv(
        ('He ran .', 'He sat .', 'Alikimbia .', 'Alikaa .', 'contradictory')
    ),
    'translated/xtreme_translations/XNLI/translate-test/test-de-en-translated.tsv': tsv(
        ('Er lief .', 'Er saß .', 'He ran .', 'He sat .', 'contradiction')
    ),
    'translated/xtreme_translations/XNLI/translate-test/test-sw-en-translated.tsv': tsv(
        ('Alikimbia .', 'Alikaa .', 'He ran .', 'He sat .')
    ),
    'low_resource/kornli/multinli.train.ko.tsv': tsv(
        ('sentence1', 'sentence2', 'gold_label'), ('하나', '둘', 'neutral')
    ),
    'low_resource/kornli/snli_1.0_train.ko.tsv': tsv(
        ('sentence1', 'sentence2', 'gold_label'), ('하나', '셋', 'contradiction')
    ),
    'xtreme/pawsx/x-final/de/translated_train.tsv': tsv(
        ('id', 'sentence1', 'sentence2', 'label'), ('7', 'Eins .', 'Zwei .', '1')
    ),
    'translated/xtreme_translations/PAWSX/translate-train/en-ja-translated.tsv': tsv(
        ('One .', 'Two .', '一', '二', '0')
    ),
    'translated/xtreme_translations/PAWSX/translate-test/test-ja-en-translated.tsv': tsv(
        ('一', '二', 'One .', 'Two .', '1')
    ),
    'translated/xtreme_translations/SQuAD/translate-train/squad.translate.train.en-de.json': squad(
        {'context': SEE, 'qas': [question('a1', 'Wann?', ('Mai', 16)), question('a2', 'Wer?', ('Keiner', 24))]}
    ),
    'translated/mlqa-translate-train/vi_squad-translate-train-train-v1.1.json': squad(
        {'context': LAKE, 'qas': [question('a1', 'Khi nào?', ('May', 18))]}
    ),
    'translated/mlqa-translate-train/vi_squad-translate-train-dev-v1.1.json': squad(
        {'context': LAKE, 'qas': [question('a4', 'Ai?', ('Nobody', 23))]}
    ),
    'translated/squad_it/SQuAD_it-train.json': squad(
        {'context': LAKE, 'qas': [question('a3', 'Quando?', ('May', 18))]}
    ),
    'translated/xtreme_translations/SQuAD/translate-dev/squad.translate.dev.en-de.json': squad(
        {'context': SEE, 'qas': [question('a4', 'Wer?', ('Niemand', 24))]}
    ),
    'translated/xtreme_translations/XQuAD/translate-test/xquad.translate.test.de-en.json': squad(
        {
            'context': LAKE,
            'qas': [question('x1', 'When?', ('May', 18), ('may', 18)), question('x2', 'Who?', ('No one', 3))],
        }
    ),
    'translated/xtreme_translations/MLQA/translate-test/mlqa.translate.test.es-en.json': squad(
        {'context': LAKE, 'qas': [question('m3', 'When?', ('May', 18))]}
    ),
    'translated/xtreme_translations/TyDiQA-GoldP/translate-train/tydiqa.translate.train.en-fi.json': squad(
        {'context': LAKE, 'qas': [question('1', 'Milloin?', ('May', 18))]},
        {'context': LAKE, 'qas': [question('1', 'Kuka?', ('Nobody', 23))]},
    ),
    'translated/xtreme_translations/TyDiQA-GoldP/translate-test/tydiqa.translate.test.fi-en.json': squad(
        {'context': LAKE, 'qas': [question('t1', 'When?', ('', 0), ('May', 18))]}
    ),
    'raw_text/udhr/deu.txt': 'Artikel 1\n\nAlle Menschen sind frei.\n',
    'raw_text/udhr/cmn_hans.txt': '第一条\n',
    'raw_text/mlm/sw.txt': 'Habari.\n',
}
