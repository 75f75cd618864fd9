"""Summarises result rows in sentences: the best arm of each target, its gain, chance level and significance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xlmr_flax.report.rows import (
    NONE,
    Row,
    Score,
    Values,
    columns,
    delta,
    distinct,
    language_mean,
    languages,
    latest,
    paired,
    scored,
)
from xlmr_flax.report.study import ALL_LANGUAGES, ZERO_SHOT, metric_name
from xlmr_flax.report.table import fixed, signed
from xlmr_flax.report.tables import sampling_margin

Tests = Iterable[Mapping[str, Any]]


def findings(rows: Iterable[Row], tested: Tests = ()) -> list[str]:
    """One text for each target and encoder that has 'none' and another arm.

    It names the intermediate task that raised the zero-shot mean most and the number of languages in which it did. It
    also states whether only some languages can be compared, which scores are clearly above chance, and whether the
    difference is significant, if `tested` (rows of `analysis.significance`) has it.
    """
    tested = list(tested)
    rows = latest(rows)
    sentences = []
    for target in distinct(rows, 'target'):
        chosen = scored(rows, target)
        codes, table = languages(chosen, zero_shot=True), columns(chosen)
        for encoder in distinct(chosen, 'encoder'):
            mine = {name: values for (e, name), values in table.items() if e == encoder}
            where = f' with {encoder}' if len(distinct(rows, 'encoder')) > 1 else ''
            if sentence := _sentence(chosen, mine, codes, [test for test in tested if test['encoder'] == encoder]):
                sentences.append(f'{target} ({metric_name(chosen[0]["metric"])}){where}: {sentence}')
    return sentences


def _sentence(rows: Sequence[Row], mine: dict[str, Values], codes: Sequence[str], tested: Tests) -> str:
    base = mine.get(NONE, {})
    changes = {n: c for n, values in mine.items() if n != NONE and (c := delta(values, base, codes))}
    # Arms that cover every language are preferred.
    best = max(changes, key=lambda name: (not changes[name].partial, changes[name].mean), default='')
    if not best:
        return ''
    ours, theirs = paired(mine[best], base, codes)
    both = list(ours)
    before, after = language_mean(theirs, both), language_mean(ours, both)
    assert before is not None and after is not None
    change, higher = changes[best], sum(_gain(mine[best], base, code) > 0 for code in both)
    whole = [name for name in changes if not changes[name].partial]
    first = [name for name in whole if changes[name].mean == changes[best].mean]
    place = 'the best' if len(first) < 2 else f'one of the {len(first)} that share the first place'
    among = f', {place} of {len(whole)},' if len(whole) > 1 else ''
    over = f' over the {len(both)} of {len(codes)} languages scored so far' if len(both) < len(codes) else ''
    of = f'of {len(both)} {"language" if len(both) == 1 else "languages"}'
    if signed(change.mean) == '0.0':
        text = f'{best}{among} makes no difference to the zero-shot mean{over} ({fixed(after.mean)})'
        lower = sum(_gain(mine[best], base, code) < 0 for code in both)
        text += f'; higher in {higher}, lower in {lower} {of}.' if higher or lower else '.'
    else:
        moved = f'from {fixed(before.mean)} to {fixed(after.mean)} ({signed(change.mean)} points)'
        text = f'{best}{among} moves the zero-shot mean{over} {moved}; higher in {higher} {of}.'
    text += _against_chance(rows, before, after)
    return text + ('' if change.partial else _verdict(tested, rows[0]['target'], best))


def _verdict(tested: Tests, target: str, name: str) -> str:
    """A sentence on the significance of the difference over test examples; '' if it was not tested."""
    mine = [test for test in tested if (test['target'], test['intermediate']) == (target, name)]
    tests = {test['languages']: test for test in mine if test.get('p_holm') is not None}
    test = tests.get(ZERO_SHOT, tests.get(ALL_LANGUAGES))  # a target without English has only the mean over all
    if test is None:
        return ''
    significant = 'Significant' if test['p_holm'] < test['alpha'] else 'Not significant'
    limits = f'{signed(test["low"])} to {signed(test["high"])}'
    return f' {significant} over test examples ({limits}; Holm-adjusted p = {test["p_holm"]:.3f}).'


def _gain(values: Values, base: Values, code: str) -> float:
    change = delta(values, base, [code])
    return change.mean if change else 0.0


def _against_chance(rows: Sequence[Row], before: Score, after: Score) -> str:
    """A sentence that names which of two scores are clearly above chance; '' if chance or margin is unknown.

    Clearly means by more than one language's sampling margin. (The languages of a benchmark are often translations of
    each other, so that more languages do not make the margin much smaller.)
    """
    chances = [row['chance'] for row in rows if row.get('chance') is not None]
    margin = sampling_margin(rows)
    if not chances or margin is None:
        return ''
    above = [score.mean - max(chances) >= margin for score in (before, after)]
    sentences = {
        (False, False): 'Neither is',
        (True, True): 'Both are',
        (False, True): 'Only the score with intermediate training is',
    }
    levels = ' to '.join(dict.fromkeys(f'{level:.1f}' for level in (min(chances), max(chances))))
    return f' {sentences.get((above[0], above[1]), "Only the score without it is")} clearly above chance ({levels}).'
