"""Scores the dev sets of a training run, to select the checkpoint that is kept.

As in jiant (proj/main/runner.py), each task is scored on its first dev rows through the official prediction file, and
the scores are averaged over the tasks. The members' weights make this a weighted mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from xlmr_flax.config import Recipe
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.labels import IGNORED
from xlmr_flax.data.masking import Masking, mask_rows
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import BadRow
from xlmr_flax.data.tokenize import Ragged, Tokenizer
from xlmr_flax.eval.perplexity import masked_perplexity
from xlmr_flax.eval.weights import evaluation_weights
from xlmr_flax.eval.zero_shot import Evaluator
from xlmr_flax.experiment.collapse import FEWEST_ROWS, describe, one_class
from xlmr_flax.experiment.plan.arms import Dataset, dev_metrics
from xlmr_flax.experiment.plan.reads import Read, dev_reads
from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.setting import Setting
from xlmr_flax.kinds import encode_cached, head_spec, kind_of, score_files
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.distributed import on_leader
from xlmr_flax.scoring.metrics.sums import total
from xlmr_flax.tasks.base import Example, has_label


@dataclass(frozen=True)
class DevSet:
    """Dev rows of one dataset. name: the name in logs, which is the task, or the dataset for text and if two members
    have the same task. weight: its weight in the mean; 0 = it is scored, but does not count.
    """

    name: str
    dataset: Dataset
    examples: Sequence[Example]
    data: Encoded
    weight: float


def _has_masked_tokens(data: Encoded, tokenizer: Tokenizer) -> bool:
    """Returns whether masking selects any token of a text. A few short lines may have none, and so no perplexity."""
    return bool((mask_rows(data.tokens, 0, Masking.of(tokenizer))[1].flat != IGNORED).any())


@dataclass(frozen=True)
class Selection:
    """The dev sets of a run: the English dev rows of each task, and for text a held-out part in each language."""

    sets: tuple[DevSet, ...]
    dev_score: str = 'first'

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        datasets: Sequence[Dataset],
        recipe: Recipe,
        bad_rows: list[BadRow] | None = None,
    ) -> Selection:
        """Reads and encodes the dev sets. The weight of a member with several tasks is divided among those that have
        dev rows. bad_rows: a list that collects rows that cannot be read. Raises DataError for a set without labels.
        """
        sets: list[DevSet] = []
        for read in filter(Read.is_taken, dev_reads(datasets)):
            assert read.dataset is not None
            dataset, task, examples = read.dataset, read.dataset.task, read.examples(bad_rows)['']
            if examples and not any(map(has_label, examples)):
                files = ', '.join(map(str, read.split.files()))
                raise DataError(
                    f'{files}: no row has a label; dev rows of {task.name} with labels select the checkpoint'
                )
            data = encode_cached(task, examples, tokenizer, read.max_length)
            if task.is_text and not _has_masked_tokens(data, tokenizer):
                continue
            parts = {d.task.name for d in datasets if d.member == dataset.member and d.selects()}
            weight = 0.0 if task.is_text else dataset.spec.select / len(parts)
            several = len({d.member for d in datasets if d.task.name == task.name}) > 1
            name = dataset.name if task.is_text or several else task.name
            sets.append(DevSet(name, dataset, examples, data, weight))
        return cls(tuple(sets), recipe.dev_score)

    def tokens(self) -> Iterator[Ragged]:
        """Yields the tokens of every dev set."""
        return (dev.data.tokens for dev in self.sets)

    def evaluate(
        self, setting: Setting, model: Model, params: Params, run: Run, remap: Callable[[Ragged], Ragged]
    ) -> Mapping[str, float]:
        """Scores the dev sets; returns {'dev_metric': mean, and 'dev/NAME' for each set if there are several}.

        Values are percentages. For text, the value is the perplexity, which is not part of the mean. A run on text
        alone is selected by the lowest mean perplexity: its dev_metric is the negative mean.
        """
        params = evaluation_weights(params, model, setting.eval_mesh)
        scores = {dev.name: self._score(dev, setting, model, params, run, remap) for dev in self.sets}
        labelled = [dev for dev in self.sets if not dev.dataset.task.is_text]
        weights = [dev.weight for dev in labelled]
        if labelled:  # if no weight is above 0, all have equal weight
            scale = sum(weights) or len(labelled)
            weights = weights if sum(weights) else [1.0] * len(labelled)
            mean = total(scores[dev.name] * weight for dev, weight in zip(labelled, weights, strict=True)) / scale
        else:
            mean = -total(scores.values()) / len(scores)
        each = {f'dev/{name}': value for name, value in scores.items()} if len(scores) > 1 else {}
        return {'dev_metric': mean, **each}

    def _prediction_path(self, setting: Setting, run: Run, dev: DevSet) -> Path:
        name = '' if len(self.sets) == 1 else f'-{dev.name.replace("/", "-")}'
        return setting.workdir.run_dir(run) / f'dev-predictions{name}.{kind_of(dev.dataset.task).suffix}'

    def collapsed(self, setting: Setting, run: Run) -> str | None:
        """How the trained model collapsed on its dev rows, by the prediction files of the last evaluation
        (experiment/collapse.py): '' = it did not, None = no dev set can tell.

        Tested are sets of at least FEWEST_ROWS rows, of kinds that predict a class for a row or for each word. Shuffled
        labels have nothing that could be learned except the most frequent class, and are not tested. Raises DataError.
        """
        outcomes: dict[str, str] = {}
        for dev in self.sets:
            task, path = dev.dataset.task, self._prediction_path(setting, run, dev)
            if len(dev.examples) < FEWEST_ROWS or dev.dataset.spec.shuffle_labels or not path.is_file():
                continue
            if classes := kind_of(task).classified(task, path, dev.examples):
                outcomes[dev.name] = one_class(*classes)
        return describe(outcomes)

    def _score(
        self,
        dev: DevSet,
        setting: Setting,
        model: Model,
        params: Params,
        run: Run,
        remap: Callable[[Ragged], Ragged],
    ) -> float:
        task, config = dev.dataset.task, setting.config
        evaluator = Evaluator(
            model,
            params,
            setting.tokenizer,
            setting.eval_mesh,
            config.evaluation,
            config.data_root,
            dev.dataset.max_length,
            (dev.dataset.head, head_spec(task)),
            lengths=dev.dataset.lengths,
            remap=remap,
        )
        if task.is_text:
            forward = evaluator.forward(dev.dataset.lengths)
            return masked_perplexity(forward, dev.dataset.head, dev.data.tokens, Masking.of(setting.tokenizer))
        path = self._prediction_path(setting, run, dev)
        evaluator.predict(task, dev.examples, path)

        def score() -> float:
            scores = score_files(task, 'en', path, dev.examples)
            return fmean(scores[metric] for metric in dev_metrics(task, self.dev_score))

        return on_leader('dev score', score)
