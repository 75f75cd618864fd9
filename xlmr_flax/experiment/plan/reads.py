"""Lists the splits that a plan reads, with their purpose and maximum length. Runs, `prepare`, `download` and reports
use this list."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from xlmr_flax.config import Config
from xlmr_flax.data.corpus import read_texts
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import BadRow, are_labelled
from xlmr_flax.data.split import Split
from xlmr_flax.eval.by_gold import MinedSide
from xlmr_flax.experiment.plan.arms import Dataset, training_examples
from xlmr_flax.experiment.plan.runs import Plan, Run, evaluation_languages, scored_length
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Example, Task, TaskError

TRAIN, DEV, TEST, LABELS, UNUSED = 'train', 'dev', 'test', 'labels', 'unused'


@dataclass(frozen=True)
class Read:
    """One split that a plan reads.

    purpose: TRAIN, DEV (selects the checkpoint), TEST (is scored, or gives the threshold of a mining target), LABELS
    (a task's labels are collected from it) or UNUSED (training rows that the config replaces by another split).
    max_length: the largest number of tokens of a row. limit: number of rows, from the first; 0 = all. fraction,
    is_shuffled: as `fraction` and `shuffle_labels` of config.Member. seed: the run's seed if these use it, else 0.
    is_optional: the split is read only if it exists. repeated: config.Evaluation.repeated_sentences. dataset: only for
    TRAIN and DEV.
    """

    split: Split
    purpose: str
    max_length: int = 0
    limit: int = 0
    seed: int = 0
    fraction: float = 1.0
    is_shuffled: bool = False
    is_optional: bool = False
    repeated: str = 'kept'
    dataset: Dataset | None = field(default=None, compare=False, repr=False)

    def is_taken(self) -> bool:
        """Returns whether a run reads the split: False if it is optional and does not exist."""
        return not self.is_optional or self.split.is_there()

    def examples(self, bad_rows: list[BadRow] | None = None) -> dict[str, Sequence[Example]]:
        """Reads the examples to encode: {'': examples}, or for retrieval {'queries': ..., 'pool': ...}.

        bad_rows: a list that collects rows that cannot be read; None = such a row raises DataError. In retrieval it
        always raises, because skipping it would change the pairs or the pool.
        """
        split, limit = self.split, self.limit or None
        if split.task.embeds:
            queries, pool = split.read_pairs(limit)
            if split.task.mines:
                queries, pool = (MinedSide.of(side, self.repeated).sentences for side in (queries, pool))
            return {'queries': queries, 'pool': pool}
        if self.purpose == TRAIN and self.dataset:
            return {'': training_examples(self.dataset, self.seed, bad_rows)}
        if split.task.is_text:
            part = 'dev' if self.purpose == DEV else 'train'
            return {'': read_texts(split.task, split.language, part, split.root, limit, bad_rows)}
        return {'': split.read(limit, bad_rows)}


def reads(plan: Plan) -> list[Read]:
    """Returns all reads of a plan, without duplicates, in the order of its runs.

    For a plan from `make_plan`, these are the reads if all data existed, with both splits on which a target may be
    scored. For a plan from `find_data`, they are the reads of the actual run.
    """
    result: list[Read] = []
    for run in plan:
        result += [*training_reads(run), *dev_reads(run.datasets)]
        if run.target:
            result += test_reads(plan.config, run, plan.splits[run.target])
    tasks = {read.split.task.name: read.split for read in result}
    result += [read for split in tasks.values() for read in _labels(split)]
    return list(dict.fromkeys(result))


def training_reads(run: Run) -> Iterator[Read]:
    """Yields the training reads of a run. If a member names another split, the task's own training rows are UNUSED."""
    for dataset in run.datasets:
        spec = dataset.spec
        is_drawn = spec.fraction < 1 or spec.shuffle_labels
        yield Read(
            dataset.rows,
            TRAIN,
            dataset.max_length,
            dataset.limit,
            run.seed if is_drawn else 0,
            spec.fraction,
            spec.shuffle_labels,
            dataset=dataset,
        )
        own = own_training_rows(dataset)
        if own and own != dataset.rows:
            yield Read(own, UNUSED, is_optional=True)


def own_training_rows(dataset: Dataset) -> Split | None:
    """Returns the task's own train split in the language of a dataset, even if its member names another split; None if
    the task has none."""
    with contextlib.suppress(TaskError):
        return replace(dataset.rows, name=dataset.task.training_split(dataset.language))
    return None


def dev_reads(datasets: Iterable[Dataset]) -> Iterator[Read]:
    """Yields the reads that select a checkpoint.

    For each task of a member, these are its English dev rows, if they exist and the member does not train on them. For
    text, they are the held-out part of the training rows, in each language.
    """
    seen: set[tuple[str, str]] = set()
    for dataset in datasets:
        split, key = dataset.dev, (dataset.member, dataset.task.name)
        if dataset.task.is_text:
            yield Read(dataset.rows, DEV, dataset.max_length, dataset.recipe.eval_examples, dataset=dataset)
        elif split and dataset.split != 'dev' and key not in seen:
            seen.add(key)
            limit = dataset.recipe.eval_examples
            yield Read(split, DEV, dataset.max_length, limit, is_optional=True, dataset=dataset)


def check_dev_labels(plan: Iterable[Run], skip_bad_rows: bool = False) -> None:
    """Raises DataError for the first dev split that selects a checkpoint and has rows without gold labels: all of them,
    or some. Reads the dev rows of the plan."""
    taken = (read for run in plan for read in dev_reads(run.datasets) if read.is_taken())
    for read in dict.fromkeys(read for read in taken if not read.split.task.is_text):
        split, rows = read.split, read.examples([] if skip_bad_rows else None)['']
        if rows and not are_labelled(split.task, split.language, split.name, split.root or None, rows):
            names = ', '.join(map(str, split.files())) or f'{split}'
            raise DataError(
                f'{names}: no row has a gold label, but dev rows of {split.task.name!r} select the checkpoint: add the '
                'labels, or move the file away to train without selection'
            )


def test_reads(config: Config, run: Run, splits: Iterable[str]) -> Iterator[Read]:
    """Yields the reads on which the target of a run is scored.

    Retrieval with gold pairs by id reads the whole pool. Mining also reads dev, which sets its threshold.
    """
    task, settings, length = get_task(run.target), config.evaluation, scored_length(config, run)
    repeated = settings.repeated_sentences if task.mines else 'kept'
    for split in splits:
        by_gold = split in task.gold
        limit = 0 if by_gold else settings.max_examples
        for name in dict.fromkeys(['dev', split] if by_gold and task.mines else [split]):
            for language in evaluation_languages(config, run.target):
                rows = Split(task, language, name, config.data_root)
                yield Read(rows, TEST, length, limit, repeated=repeated)


def read_tasks(reads: Iterable[Read]) -> list[Task]:
    """Returns the tasks whose rows are read, without duplicates and without labels from files."""
    return [get_task(name) for name in dict.fromkeys(r.split.task.name for r in reads if r.purpose != UNUSED)]


def _labels(split: Split) -> Iterator[Read]:
    for name in split.task.labels_from:
        yield Read(replace(split, language=split.task.languages[0], name=name), LABELS, is_optional=True)
