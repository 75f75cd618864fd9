"""Made-up rows, tests and curves of a study of the paper's size: eleven arms, XTREME's nine targets and languages."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from xlmr_flax.experiment.result_rows import language_facts
from xlmr_flax.report import make_study
from xlmr_flax.report.view import View
from xlmr_flax.scoring.benchmarks import XTREME

ARMS = [
    'none',
    'anli_plus',
    'mnli',
    'qqp',
    'squad_v1',
    'squad_v2',
    'hellaswag',
    'ccg',
    'cosmosqa',
    'commonsenseqa',
    'multi',
]
METRICS = {
    'labels': ('accuracy',), 'tags': ('f1', 'precision', 'recall'), 'squad': ('f1', 'exact_match'),
    'mlqa': ('f1', 'exact_match'), 'pairs': ('f1', 'precision', 'recall'), 'indices': ('accuracy',),
}  # fmt: skip
COMMAND = 'xlmr-flax run --config=configs/paper.py:paper_small --workdir=runs/paper_small'


def paper_plan(seeds: Sequence[int] = (1,)) -> dict[str, Any]:
    """The plan of the paper's table: eleven arms, XTREME's nine targets."""
    languages = {name: list(part.languages) for name, part in XTREME.parts.items()}
    return {'intermediate': ARMS, 'targets': list(XTREME.parts), 'seeds': list(seeds), 'languages': languages}


def paper_rows(seeds: Sequence[int] = (1,), gaps: bool = False) -> list[dict[str, Any]]:
    """Rows of that plan. gaps: ccg has no row on udpos, multi none at all, qqp no Swahili in xnli, and mnli on
    tydiqa only its first seed."""
    rows, rng = [], random.Random(0)
    for arm in ARMS:
        for number, (target, part) in enumerate(XTREME.parts.items()):
            gain = 0.0 if arm == 'none' else rng.gauss(1.0, 3.0)
            for seed in seeds:
                noise = rng.gauss(0, 0.4)
                for code in sorted(part.languages, key=lambda c: c != 'en'):
                    gone = (arm, target) == ('ccg', 'udpos') or arm == 'multi' or (arm, code) == ('qqp', 'sw')
                    gone |= (arm, target) == ('mnli', 'tydiqa') and seed != seeds[0]
                    if gaps and gone:
                        continue
                    for place, metric in enumerate(METRICS[part.form]):
                        value = 60 - 3 * number - 9 * place + gain + noise + rng.gauss(0, 2)
                        rows.append(
                            {
                                'encoder': 'small', 'intermediate': arm, 'target': target, 'language': code,
                                'split': 'test', 'metric': metric, 'value': value, 'n': 500, 'seed': seed, 'step': 150,
                                'run': f'{arm[:4]}{target[:4]}{seed:04d}', 'preset': 'paper_small', 'command': COMMAND,
                                **language_facts(code),
                                **({'stand_in': 'ccg train: tags of a small grammar'} if arm == 'ccg' else {}),
                                **({'stand_in': f'{target} test: sentences by hand'} if target == 'bucc2018' else {}),
                            }
                        )  # fmt: skip
    return rows


def paper_tests(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Made-up tests of a study without gaps: every second difference is significant; bucc2018 is not tested."""
    study, found = make_study(rows, paper_plan()), []
    for which in ('all', 'zero-shot'):
        view = View(study, 'small', which == 'zero-shot')
        for number, (arm, target) in enumerate((a, t) for a in ARMS[1:] for t in study.targets):
            row = {'encoder': 'small', 'intermediate': arm, 'target': target, 'split': 'test', 'languages': which}
            if target == 'bucc2018':
                found.append(row | {'reason': 'F1 over mined pairs is no sum over examples'})
            elif change := view.change(arm, target):
                about = {'difference': change.mean, 'low': change.mean - 1, 'high': change.mean + 1, 'n': 7500}
                about |= {'p': 0.0002, 'p_holm': 0.018 if number % 2 else 0.2, 'family': 80, 'resamples': 9600}
                about |= {'metric': 'mean of F1 and EM' if target in ('xquad', 'mlqa', 'tydiqa') else 'accuracy'}
                found.append(row | about | {'alpha': 0.05, 'parts': 15, 'seeds': 1})
    return found


def paper_curves(seeds: Sequence[int] = (1,), steps: int = 150) -> list[dict[str, Any]]:
    """A loss for every step and a dev score for every tenth, of every run that trains."""
    points, rng = [], random.Random(1)
    for arm in ARMS:
        for target in ('', 'xnli', 'pawsx', 'udpos', 'panx', 'xquad', 'mlqa', 'tydiqa'):
            for seed in seeds if target or arm != 'none' else ():
                run, level = f'{arm}--{target or "intermediate"}--seed{seed}', rng.uniform(0.3, 0.8)
                for step in range(1, steps + 1):
                    where = {'run': run, 'intermediate': arm, 'target': target, 'seed': seed, 'step': step}
                    points.append({**where, 'loss': level + 0.7 / step**0.3 + rng.gauss(0, 0.1)})
                    if step % 10 == 0:
                        points.append({**where, 'metric': 'dev accuracy', 'value': 70 - 20 * level - 90 / (step + 9)})
    return points
