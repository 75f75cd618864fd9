"""Small files in the layouts of parallel low-resource and generated logic sets: path under the data root -> content.

Written by hand for these tests, as those of tiny_files.py.
"""

from __future__ import annotations

import json
from typing import Any

from tasks.tiny_files import jsonl

CLUTRR = ',id,story,query,text_query,target\n'
PROOF = {
    'id': 'ProofWriter_X_Q1',
    'context': 'Bob is red.',
    'question': 'Based on the above information, is the following statement true, false, or unknown? Bob is big.',
    'options': ['A) True', 'B) False', 'C) Unknown'],
    'answer': 'C',
}
BENCH: dict[str, Any] = {'type': 't', 'axiom': 'a', 'samples': [{'id': 1, 'context': 'C.', 'qa_pairs': [
    {'question': 'Q?', 'answer': 'yes'}, {'question': 'R?', 'answer': 'no'},
]}]}  # fmt: skip
READING = {
    'link': 'l', 'question_number': 1, 'flores_passage': 'P.', 'question': 'Q?', 'mc_answer1': 'a', 'mc_answer2': 'b',
    'mc_answer3': 'c', 'mc_answer4': 'd', 'correct_answer_num': '3', 'dialect': 'swh_Latn', 'ds': '2023-05-03',
}  # fmt: skip

FILES = {
    'low_resource/sib200/eng_Latn/test.tsv': (
        'index_id\tcategory\ttext\n7\tsports\t"He said ""go""."\n9\ttravel\tBye.\n'
    ),
    'low_resource/sib200/swh_Latn/test.tsv': 'index_id\tcategory\ttext\n7\tsports\tNenda.\n9\ttravel\tKwaheri.\n',
    'low_resource/sib200/zho_Hant/test.tsv': 'index_id\tcategory\ttext\n9\ttravel\t再見。\n7\tsports\t走。\n',
    'low_resource/flores200_dataset/devtest/eng_Latn.devtest': 'Go.\nBye.\n',
    'low_resource/flores200_dataset/devtest/swh_Latn.devtest': 'Nenda.\nKwaheri.\n',
    'low_resource/ntrex128/NTREX-128/newstest2019-src.eng.txt': 'Go.\n',
    'low_resource/ntrex128/NTREX-128/newstest2019-ref.por-BR.txt': 'Vá.\n',
    'low_resource/ntrex128/NTREX-additional/newstest2019-ref.gsw-ZH.txt': 'Gang.\n',
    'low_resource/belebele/swh_Latn.jsonl': jsonl(READING),
    'low_resource/afrixnli/swa/test.csv': 'premise,hypothesis,label\n"A, b",c,0\n',
    'low_resource/afrixnli/amh/test.csv': 'premise,hypothesis,label\nሀ,ለ,2\n',
    'low_resource/afrixnli/lin/dev.csv': 'premise,hypothesis,label\na,b,neutral\n',
    'low_resource/indicxnli/tam/test.csv': 'premise,hypothesis,label\nஅ,ஆ,1\n',
    'low_resource/nusax/sentiment/ngaju/valid.csv': 'id,text,label\n411,"Iyuh, bujur",positive\n',
    'low_resource/masakhanews/data/eng/test.tsv': 'category\theadline\ttext\turl\nhealth\tH\tIn both.\tu\n',
    'low_resource/masakhanews/data/hau/test.tsv': 'category\theadline\ttext\turl\nreligion\tH1\t"Line 1\nline 2"\tu\n',
    'low_resource/masakhanews/few_shot_data/50_samples/eng/train.tsv': (
        'category\theadline\ttext\nsports\tGoal\tA game.\nhealth\tH\tIn both.\n'
    ),
    'low_resource/uner/UNER_Tagalog-TRG/tl_trg-ud-test.iob2': (
        '#\n#sent_id=1\n# text = Si Ana\n1\tSi\tO\t-\t-\n2\tAna\tB-PER\t-\tx\n\n# sent_id = 2\n1\t#\tB-OTH\t-\tx\n'
    ),
    'low_resource/uner/UNER_Norwegian-NDT/nno_norne-ud-test.iob2': '1\tNorsk\t-\tB-DRV\t-\n',
    'logic/proofwriter/train.json': json.dumps([PROOF, PROOF | {'id': 'x', 'answer': 'A'}]),
    'logic/clutrr/data_089907f8/1.10_test.csv': CLUTRR + "0,i1,[Ann] has a son [Bo].,\"('Ann', 'Bo')\",,son\n",
    'logic/clutrr/data_089907f8/1.2_test.csv': CLUTRR + "0,i2,[Bo] has a mother [Ann].,\"('Bo', 'Ann')\",,mother\n",
    'logic/logicbench/LogicBench(Eval)/BQA/nm_logic/x/data_instances.json': json.dumps(BENCH, indent=1),
    'logic/logicbench/LogicBench(Aug)/nm_logic/x/data_instances.json': json.dumps(
        {'type': 't', 'axiom': 'a', 'data_samples': [*BENCH['samples'], BENCH['samples'][0] | {'context': 'D.'}]}
    ),
    'logic/logiqa2_nli_new/dev_new.txt': jsonl(
        *(
            {'id': 3, 'premise': premise, 'hypothesis': 'H', 'label': 'entailment', 'type': {}}
            for premise in ('in both', 'alone', 'alone')
        )
    ),
    'logic/logiqa2_nli_new/test_new.txt': jsonl(
        {'id': 4, 'premise': 'in both', 'hypothesis': 'I', 'label': 'not-entailment', 'type': {}}
    ),
    'logic/control_whole/dev.jsonl': jsonl({'uid': 'id_0', 'premise': 'P', 'hypothesis': 'H', 'label': 'e'}),
}
