"""Made-up rows of a study of logic: arms, targets, languages and seeds, with effects that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xlmr_flax.experiment.result_rows import language_facts

ARMS = ('none', 'mnli', 'conjnli', 'logic', 'logic_shuffled', 'pos_tags')
LANGUAGES = {
    'xnli_plus': (
        'en', 'de', 'ru', 'th', 'tr', 'hi', 'ur', 'sw', 'my', 'ko',
        'ay', 'bzd', 'cni', 'gn', 'hch', 'nah', 'oto', 'qu', 'shp', 'tar',
    ),
    'panx': ('en', 'de', 'fi', 'hi', 'tr', 'et', 'ka', 'kk', 'az', 'ml', 'mr', 'my', 'sw', 'ur', 'jv', 'qu', 'yo'),
    'tatoeba': ('de', 'hi', 'tr', 'ka', 'kk', 'az', 'ml', 'mr', 'sw', 'ur', 'jv', 'tl', 'amh', 'xho'),
}  # fmt: skip
METRICS = {'xnli_plus': 'accuracy', 'panx': 'f1', 'tatoeba': 'accuracy'}


def logic_rows(
    effect: Mapping[str, float], slope: Mapping[str, float] | None = None, seeds: Sequence[int] = (1, 2, 3),
    sds: tuple[float, float, float] = (1.0, 0.5, 1.5),
) -> list[dict[str, Any]]:  # fmt: skip
    """effect: arm -> true mean difference to 'none'. slope: arm -> points for a factor of ten in CC-100 size. sds: of
    the differences' components (languages, seeds, rest)."""
    rows, rng = [], np.random.default_rng(0)
    for target in LANGUAGES:
        codes = LANGUAGES[target]
        base = {(code, seed): 50 + rng.normal(0, 4) for code in codes for seed in seeds}
        for arm in ARMS:
            by_code = dict(zip(codes, rng.normal(0, sds[0], len(codes)), strict=True))
            by_seed = dict(zip(seeds, rng.normal(0, sds[1], len(seeds)), strict=True))
            for code in codes:
                facts = language_facts(code)
                size = np.log10(max(facts['cc100_gib'] or 0.0, 0.05))
                for seed in seeds:
                    value = base[code, seed]
                    if arm != 'none':
                        value += effect.get(arm, 0.0) + (slope or {}).get(arm, 0.0) * size
                        value += by_code[code] + by_seed[seed] + rng.normal(0, sds[2])
                    rows.append(
                        {
                            'encoder': 'small', 'intermediate': arm, 'target': target, 'language': code,
                            'split': 'test', 'metric': METRICS[target], 'value': float(value), 'n': 100, 'seed': seed,
                            'step': 75, **facts,
                        }
                    )  # fmt: skip
    return rows
