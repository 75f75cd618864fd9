"""Numbers and notes of the paper's tables, for one encoder of a study and one kind of mean over languages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from xlmr_flax.report.rows import NONE, Row, Score, Values, collapsed_runs, delta, language_mean, seed_means
from xlmr_flax.report.study import DIRECTIONS, F1_AND_EM, MARKED, STAND_IN, Study, has_both_directions, score_metrics
from xlmr_flax.report.table import MISSING, PARTIAL

ON_SHOWN = '‡'
TIE = 'tie'
_LISTED = 8
# qa_decoding of a row -> description of how its answers were decoded.
_DECODINGS = {
    'offsets': 'the characters of the predicted tokens (qa_decoding: offsets)',
    'reference': "cut out of white-space words, as by XTREME's scripts (qa_decoding: reference)",
}


@dataclass(frozen=True)
class Best:
    """The best arm of a target. arms: one, several that tie, or () if no arm is complete. on_dev: chosen on dev."""

    arms: tuple[str, ...]
    on_dev: bool

    @property
    def shown(self) -> str:
        """Name of the best arm in tables."""
        name = TIE if len(self.arms) > 1 else ''.join(self.arms)
        return f'{name}{"" if self.on_dev else ON_SHOWN}' if name else MISSING


@dataclass(frozen=True)
class View:
    """A study in one table: one encoder, and means over all languages or (zero_shot) over all but English."""

    study: Study
    encoder: str
    zero_shot: bool = False

    @property
    def where(self) -> str:
        """Text in parentheses after the title of a table: which means, and the encoder if there are several."""
        means = 'zero-shot means, without English' if self.zero_shot else 'means over all languages'
        return means + (f'; {self.encoder}' if len(self.study.encoders) > 1 else '')

    @property
    def slug(self) -> str:
        """Suffix of file names: which means, and the number of the encoder if there are several."""
        number = f'-{self.study.encoders.index(self.encoder) + 1}' if len(self.study.encoders) > 1 else ''
        return ('-zero-shot' if self.zero_shot else '') + number

    def codes(self, target: str) -> list[str]:
        return self.study.codes(target, self.zero_shot)

    @property
    def compares(self) -> bool:
        """Whether there are arms to compare with 'none'."""
        return NONE in self.study.arms and len(self.study.arms) > 1

    @property
    def targets(self) -> list[str]:
        """The targets of the table; for zero-shot means only those with a language besides English."""
        return [t for t in self.study.targets if not self.zero_shot or self.codes(t)]

    def score(self, name: str, target: str, metric: str | None = None) -> Score | None:
        """Mean over languages of a target's score, or of one metric."""
        values = self.study.values(target, self.encoder, metric).get(name, {})
        return self.whole_seeds(language_mean(values, self.codes(target)), values)

    def change(self, name: str, target: str) -> Score | None:
        """The difference to 'none', with a mark if the test finds it significant."""
        values = self.study.values(target, self.encoder)
        change = delta(values.get(name, {}), values.get(NONE, {}), self.codes(target))
        change = self.whole_seeds(change, values.get(name, {}))
        test = self.study.test(self.encoder, name, target, self.zero_shot)
        if change is None or test is None or change.partial:
            return change
        agrees = abs(change.mean - test['difference']) < 0.01
        return replace(change, mark=MARKED) if agrees and test['p_holm'] < test['alpha'] else change

    def whole_seeds(self, score: Score | None, values: Values) -> Score | None:
        """The score, marked as partial if its values lack a planned seed."""
        there = {seed for seeds in values.values() for seed in seeds}
        return replace(score, partial=True, sd=None) if score and set(self.study.seeds) - there else score

    def average(self, name: str) -> tuple[Score | None, Score | None]:
        """Unweighted mean over targets, and its difference to 'none'; None if a target is missing or partial."""
        parts = [self.score(name, t) for t in self.targets]
        if any(part is None or part.partial for part in parts):
            return None, None
        mine = language_mean(self._by_target(name), self.targets)
        base = [self.score(NONE, t) for t in self.targets]
        if name == NONE or any(part is None or part.partial for part in base):
            return mine, None
        return mine, delta(self._by_target(name), self._by_target(NONE), self.targets)

    def _by_target(self, name: str) -> Values:
        found = {}
        for target in self.targets:
            found[target] = seed_means(self.study.values(target, self.encoder).get(name, {}), self.codes(target))
        return found

    def best(self, target: str) -> Best:
        """The best arm of a target, by dev scores if every arm has one, else by the scores shown, as printed."""
        scores = {n: s for n in self.study.arms if (s := self.score(n, target)) and not s.partial}
        on_dev = bool(scores) and all((name, target) in self.study.dev for name in scores)
        by = {n: round(self.study.dev[n, target], 6) if on_dev else round(s.mean, 1) for n, s in scores.items()}
        return Best(tuple(n for n, value in by.items() if value == max(by.values())), on_dev)

    def flagged(self, cell: Score | None, name: str, target: str) -> Score | None:
        """The cell, with a mark if its data are stand-ins and neither its row nor its column has that mark."""
        study = self.study
        if cell is None or study.stands_in(target=target) or study.stands_in(name):
            return cell
        return replace(cell, mark=cell.mark + STAND_IN) if study.stands_in(name, target) else cell

    def target_name(self, target: str) -> str:
        return target + STAND_IN * self.study.stands_in(target=target)

    def arm_name(self, name: str) -> str:
        return name + STAND_IN * (self.study.stands_in(name) and not self.study.stands_in())

    def runs(self, name: str, target: str, language: str | None = None) -> str:
        """The runs that a cell's number comes from, for its tooltip."""
        rows = self.study.behind(self.encoder, name, target)
        return provenance(row for row in rows if language in (None, row['language']))


def provenance(rows: Iterable[Row]) -> str:
    """Runs and presets of the rows: 'run 3f2a… (seed 1), run … (seed 2); preset paper'."""
    rows = list(rows)
    runs = dict.fromkeys(f'run {row["run"]} (seed {row["seed"]})' for row in rows if row.get('run'))
    presets = dict.fromkeys(f'preset {row["preset"]}' for row in rows if row.get('preset'))
    return '; '.join(part for part in (', '.join(runs), ', '.join(presets)) if part)


def stand_in_notes(rows: Iterable[Row]) -> list[str]:
    """Notes on stand-in data, each text once with the data that it replaces. Rows have 'NAME SPLIT: text; ...'."""
    by_text: dict[str, list[str]] = {}
    for full in dict.fromkeys(row['stand_in'] for row in rows if row.get('stand_in')):
        for part in full.split('; '):
            name, colon, note = part.partition(': ')
            names = by_text.setdefault(note if colon else part, [])
            if colon and name not in names:
                names.append(name)
    return [f'{", ".join(names)}: {note}' if names else note for note, names in by_text.items()]


def means_note(view: View) -> str:
    """Note on the languages and splits of a table's means."""
    study = view.study

    def listed(targets: Sequence[str]) -> str:
        return ', '.join(f'{t} {len(view.codes(t))}' for t in targets)

    own = [t for t in view.targets if len(view.codes(t)) > len(study.codes(t, zero_shot=True))]
    others = [t for t in view.targets if t not in own]
    parts = [f'number {which} English: {listed(ts)}' for which, ts in (('with', own), ('without', others)) if ts]
    splits = {t: rows[0]['split'] for t in view.targets if (rows := study.of_target(t))}
    split = f'{next(iter(splits.values()))} split' if len(set(splits.values())) == 1 else (
        'split: ' + ', '.join(f'{t} {s}' for t, s in splits.items()))  # fmt: skip
    return f'Unweighted means over languages ({"; ".join(parts)}); {split}.'


def significance_notes(view: View) -> list[str]:
    """Notes on the significance mark, and on the differences that were not tested, with the reason."""
    which = 'zero-shot' if view.zero_shot else 'all'
    mine = [row for row in view.study.tested if row['languages'] == which and row['encoder'] == view.encoder]
    tested = [row for row in mine if row.get('p_holm') is not None]
    if not tested:
        return [f'No test of the differences: {reason}.' for reason in dict.fromkeys(r['reason'] for r in mine)][:1]
    first = tested[0]
    notes = [
        f'{MARKED} differs from {NONE!r} at a family-wise error rate of {100 * first["alpha"]:g} %: two-sided paired '
        f'bootstrap over test examples (B = {first["resamples"]:,}; an example that languages share is drawn in all '
        f"of them), Holm's correction over the {first['family']} differences tested. Only test examples are resampled: "
        'the randomness of training is not covered.'
    ]
    untested: dict[str, dict[str, list[str]]] = {}
    for row in mine:
        if row.get('p_holm') is None:
            untested.setdefault(row['reason'], {}).setdefault(row['target'], []).append(row['intermediate'])
    for reason, places in untested.items():
        whole = [t for t, names in places.items() if not any(row['target'] == t for row in tested)]
        single = [f'{t} with {name}' for t, names in places.items() if t not in whole for name in names]
        notes.append(f'Not tested ({_some([*whole, *single])}): {reason}.')
    return notes


def best_notes(chosen: Mapping[str, Best], view: View) -> list[str]:
    """Notes on how the best arm of each target was chosen."""
    if len(view.study.arms) < 2 or not any(best.arms for best in chosen.values()):
        return []
    on_dev = [target for target, best in chosen.items() if best.arms and best.on_dev]
    shown = [target for target, best in chosen.items() if best.arms and not best.on_dev]
    notes = []
    if on_dev:
        of = ', '.join(on_dev) if shown else 'a target'
        notes.append(f'Best arm of {of}: the one with the highest score on its English dev set.')
    if shown:
        of = f' of {", ".join(shown)}' if on_dev else ''
        why = 'because there are no dev scores; its advantage is biased upwards'
        notes.append(f'{ON_SHOWN} Best arm{of}: chosen by the scores shown, {why}.')
    if any(len(best.arms) > 1 for best in chosen.values()):
        notes.append(f'{TIE}: several arms have the highest score; their mean is shown.')
    return notes


def chance_notes(view: View) -> list[str]:
    """Note that the average over targets mixes different chance levels; [] if it does not."""
    levels = {}
    for target in view.targets:
        mine = [row['chance'] for row in view.study.of_target(target) if row.get('chance') is not None]
        if mine:
            ends = dict.fromkeys(f'{level:.1f}' for level in (min(mine), max(mine)))
            levels[target] = ' to '.join(ends)
    if len(set(levels.values())) < 2:
        return []
    listed = ', '.join(f'{target} {level}' for target, level in levels.items())
    return [f'The average is over scores with different chance levels ({listed}).']


def direction_notes(targets: Iterable[str], study: Study) -> list[str]:
    """Note on the direction of retrieval that the main score uses; [] without such a target."""
    names = [target for target in targets if has_both_directions(study.of_target(target))]
    way = f"{DIRECTIONS['accuracy']} (XTREME's direction)"
    return [f'{", ".join(names)}: accuracy is that of one direction, {way}.'] if names else []


def seed_notes(seeds: Sequence[int]) -> list[str]:
    """Note on the spread over seeds."""
    listed = ', '.join(map(str, seeds))
    if len(seeds) == 1:
        return [f'One seed ({listed}): no spread is known, and small differences may be noise.']
    return [
        f'Mean ± sample standard deviation over seeds {listed}; for a difference, over the differences of each seed.'
    ]


def row_notes(rows: Iterable[Row]) -> list[str]:
    """Notes on collapsed runs, those that the rows carry, and how answers were decoded; each once, with its targets."""
    rows, found = list(rows), dict[str, dict[str, None]]()
    for row in rows:
        if row.get('note'):
            found.setdefault(row['note'], {})[row['target']] = None
        if row.get('qa_decoding'):
            how = _DECODINGS.get(row['qa_decoding'], row['qa_decoding'])
            found.setdefault(f'answers are {how}.', {})[row['target']] = None
    return collapsed_notes(rows) + [f'{", ".join(targets)}: {note}' for note, targets in found.items()]


def collapsed_notes(rows: Iterable[Row]) -> list[str]:
    """A note on the runs whose training collapsed: how many of those that were tested, and which; [] for none."""
    tested = collapsed_runs(rows)
    names = [f'{arm} on {target}, seed {seed} ({how})' for (_, arm, target, seed), how in tested.items() if how]
    if not names:
        return []
    return [
        f'{len(names)} of {len(tested)} trained runs are collapsed (nearly all dev rows get one class), and effects by '
        f'language leave them out: {_some(names)}.'
    ]


def common_notes(view: View, target: str = '', missing: bool = True) -> list[str]:
    """Notes of every table: question answering, seeds, missing scores, stand-in data, and the notes of the rows."""
    study, notes = view.study, []
    targets = [target] if target else view.targets
    double = [t for t in targets if (rows := study.of_target(t)) and len(score_metrics(rows, t)) == 2]
    if double and not target:
        notes.append(
            f'F1/EM: the {F1_AND_EM} (exact match), which is what counts in the average, as in XTREME '
            f'({", ".join(double)}).'
        )
    notes += ([] if target else direction_notes(targets, study)) + seed_notes(study.seeds)
    gaps = {k: v for k, v in study.missing(view.encoder).items() if k[1] in targets} if missing else {}
    if gaps:
        whole = [f'{name} on {t}' for (name, t), (lost, planned) in gaps.items() if lost == planned]
        some = [f'{n} on {t} ({lost} of {planned})' for (n, t), (lost, planned) in gaps.items() if lost < planned]
        cells = len(study.arms) * len(targets)
        parts = [f'{len(whole)} of {cells} have no score ({MISSING}): {_some(whole)}'] if whole else []
        parts += [f'{len(some)} of {cells} lack some languages or seeds ({PARTIAL}): {_some(some)}'] if some else []
        notes.append(f'Missing among intermediates and targets: {"; ".join(parts)}.')
    mine = [row for t in targets for row in study.of_target(t)]
    stands = stand_in_notes(mine)
    if stands:
        notes.append(f'{STAND_IN} Stand-in data, not the dataset itself: {"; ".join(stands)}.')
    return notes + row_notes(mine)


def _some(items: Sequence[str]) -> str:
    more = f' and {len(items) - _LISTED} more' if len(items) > _LISTED else ''
    return ', '.join(items[:_LISTED]) + more
