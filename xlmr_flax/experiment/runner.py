"""Runs a plan: what is missing is trained and evaluated, what is there is used; then tables and report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xlmr_flax.config import Config, digest, to_dict
from xlmr_flax.data.sources import content_digest
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.eval.zero_shot import Evaluator
from xlmr_flax.experiment.phase import Setting, head_of, make_model, start_params, train_run, trained_facts
from xlmr_flax.experiment.plan import Run, evaluation_languages, evaluation_split, make_plan, task_of, training_task
from xlmr_flax.experiment.rows import result_rows
from xlmr_flax.experiment.workdir import Workdir, read_evaluation, write_evaluation
from xlmr_flax.models.model import Params
from xlmr_flax.models.source import open_source
from xlmr_flax.parallel.mesh import make_mesh, put_tree
from xlmr_flax.report.progress import Line, say


class Runner:
    """Carries out one plan in one workdir."""

    def __init__(self, config: Config, workdir: Path, command: str):
        self.config, self.command = config, command
        self.workdir = Workdir(workdir)
        self._data: dict[tuple[str, str, str], str] = {}
        source = open_source(config.encoder.source, seed=config.seeds[0])
        tokenizer = Tokenizer(source.tokenizer, source.config.vocab_size)
        mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.model)
        self._board = _Board(workdir / 'tensorboard') if config.tensorboard else None
        self.setting = Setting(config, source, make_model(config, source), tokenizer, mesh, self.workdir, self._log)
        self.plan = make_plan(config, source)

    def _log(self, record: dict[str, Any]) -> None:
        self.workdir.log(record)
        if self._board:
            self._board.add(record)

    def run(self) -> list[dict[str, Any]]:
        """Trains and evaluates what is missing, writes results.jsonl; returns its rows."""
        self.workdir.save_config(self.config, self.command)
        started = time.monotonic()
        try:
            for number, run in enumerate(self.plan, 1):
                say(f'[{number}/{len(self.plan)}] {run.name}')
                self._one(run)
        finally:
            if self._board:
                self._board.close()
            self.workdir.add_seconds(time.monotonic() - started)
        rows = self.results()
        self.workdir.write_results(rows)  # also where nothing was missing: the plan may be another than last time
        return rows

    def _one(self, run: Run) -> None:
        if run.task and trained_facts(self.setting, run) is None:
            train_run(self.setting, run)
        if run.target:
            self._evaluate(run)

    def languages(self, target: str) -> tuple[str, ...]:
        """The languages that a target is evaluated in, English first where it is one of them."""
        return evaluation_languages(self.config, target)

    def split(self, target: str) -> str:
        """The split that a target is evaluated on."""
        return evaluation_split(self.config, target)

    def _evaluation_key(self, run: Run, language: str) -> str:
        """What decides an evaluation: the weights, the settings and the rows that are scored."""
        settings = to_dict(self.config.evaluation)
        decides = {k: v for k, v in settings.items() if k not in ('languages', 'split', 'batch_tokens')}
        where = (run.target, language, self.split(run.target))
        if where not in self._data:
            self._data[where] = content_digest(task_of(self.config, run.target), *where[1:], self.config.data_root)
        return digest({'run': run.id, 'data': self._data[where], **decides})

    def _finished(self, run: Run, language: str) -> list[dict[str, Any]] | None:
        path = self.workdir.evaluation_path(run, language, self.split(run.target))
        return read_evaluation(path, self._evaluation_key(run, language))

    def _evaluate(self, run: Run) -> None:
        split = self.split(run.target)
        missing = [language for language in self.languages(run.target) if self._finished(run, language) is None]
        if not missing:
            return
        task, evaluator = task_of(self.config, run.target), self._evaluator(run)
        facts = trained_facts(self.setting, run) or {'step': 0}
        with _progress(f'evaluate {run.name}', len(missing)) as line:
            for number, language in enumerate(missing):
                metrics, n = evaluator.run(task, language, split, self.workdir.predictions(run))
                rows = result_rows(
                    self.config,
                    self.setting.source,
                    run,
                    task,
                    language,
                    split,
                    metrics,
                    n,
                    facts['step'],
                    self.command,
                )
                path = self.workdir.evaluation_path(run, language, split)
                write_evaluation(path, self._evaluation_key(run, language), rows)
                self.workdir.write_results(self.results())
                line(number + 1, len(missing), number + 1)

    def _evaluator(self, run: Run) -> Evaluator:
        setting, config = self.setting, self.config
        params = self._final_params(run)
        head = head_of(run, training_task(config, task_of(config, run.target))) if run.recipe else None
        return Evaluator(
            setting.model,
            put_tree(params, setting.mesh),
            setting.tokenizer,
            setting.mesh,
            config.evaluation,
            config.data_root,
            run.recipe.max_length if run.recipe else config.evaluation.max_length,
            head,
        )

    def _final_params(self, run: Run) -> Params:
        if run.recipe is None:  # retrieval: the encoder as the arm left it
            params = start_params(self.setting, run)
            return {k: params[k] for k in ('encoder', 'pooler')}
        return open_source(f'ckpt:{self.workdir.run_dir(run)}').load()

    def results(self) -> list[dict[str, Any]]:
        """The rows of every finished evaluation of this plan, in plan order."""
        rows = []
        for run in self.plan:
            if run.target:
                for language in self.languages(run.target):
                    rows += self._finished(run, language) or []
        return rows


@contextlib.contextmanager
def _progress(label: str, total: int) -> Iterator[Line]:
    line = Line(label, 'languages')
    yield line
    line.close(f'{total} languages')


class _Board:
    """TensorBoard scalars, one folder a run."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.writers: dict[str, Any] = {}

    def add(self, record: dict[str, Any]) -> None:
        from tensorboardX import SummaryWriter

        run = record['run']
        if run not in self.writers:
            self.writers[run] = SummaryWriter(str(self.directory / run), purge_step=record['step'])
        for name, value in record.items():
            if name not in ('step', 'seed') and isinstance(value, (int, float)) and not isinstance(value, bool):
                self.writers[run].add_scalar(name, value, record['step'])

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()
