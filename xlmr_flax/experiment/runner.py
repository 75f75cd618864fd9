"""Runs a plan: trains and evaluates what is missing in the workdir.

The plan is a graph: an intermediate run is trained once, and all targets of its arm start from it. A process takes the
next run that is not finished, has not failed, has a trained parent and is not claimed by another process, until none is
left. All that it knows is read from the workdir, so it can be killed at any moment and started again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from xlmr_flax.config import Config, to_dict
from xlmr_flax.data.split import Split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.eval.weights import evaluation_weights
from xlmr_flax.eval.zero_shot import Evaluator
from xlmr_flax.experiment.collapse import over_phases
from xlmr_flax.experiment.out_of_memory import with_messages
from xlmr_flax.experiment.plan.arms import task_of
from xlmr_flax.experiment.plan.defaults import with_dtype
from xlmr_flax.experiment.plan.load_estimates import plan_defaults
from xlmr_flax.experiment.plan.reads import check_dev_labels
from xlmr_flax.experiment.plan.runs import Plan, Run, evaluation_languages, make_plan, resolve, scored_length
from xlmr_flax.experiment.result_rows import result_rows
from xlmr_flax.experiment.reuse import evaluation_key
from xlmr_flax.experiment.setting import Setting, make_model
from xlmr_flax.experiment.training import head_of, start_params, train_run, trained_facts
from xlmr_flax.experiment.workdir.bad_rows import collector
from xlmr_flax.experiment.workdir.claims import Claim, ClaimLost, Claims, Holder
from xlmr_flax.experiment.workdir.files import Workdir, read_evaluation, write_evaluation
from xlmr_flax.experiment.workdir.scheduling import PlanFailed, Share, Waiting, order, require_one_job
from xlmr_flax.experiment.workdir.tensorboard import Board
from xlmr_flax.models.model import Params
from xlmr_flax.models.source import open_source
from xlmr_flax.parallel import distributed
from xlmr_flax.parallel.machine import this_machine
from xlmr_flax.parallel.mesh import make_mesh, put_tree
from xlmr_flax.parallel.programs import release
from xlmr_flax.tasks import get_task
from xlmr_flax.util.console import Line, be_quiet, say
from xlmr_flax.util.stopping import asked, check, requests

FINISHED, FAILED, SKIPPED = 'finished', 'failed', 'skipped'


class Runner:
    """Runs a plan in a workdir: trains and evaluates what is missing, alone or together with other processes."""

    def __init__(self, setting: Setting, plan: Plan, command: str, share: Share, *, look_only: bool = False):
        """plan: resolved. look_only: write nothing; `run` must not be called (run --dry_run). Reads no file."""
        self.config, self.command, self.share, self.plan = setting.config, command, share, plan
        self.workdir, self.bad_rows = setting.workdir, setting.bad_rows
        self.setting = replace(setting, log=self._log)
        self._digests: dict[Split, str] = {}  # of scored rows: their files are looked at once
        self._board = Board(self.workdir.path / 'tensorboard') if self.config.tensorboard and not look_only else None
        self.claims = Claims(self.workdir.path / 'claims', share.label, share.claim_timeout, look_only)
        self.outcomes: dict[str, str] = {}  # run name -> outcome, of the runs that are settled
        self._claim: Claim | None = None
        self.train: Callable[[Setting, Run], None] = train_run
        self._results_written = time.monotonic()
        self._retried: set[str] = set()  # tokens of the failure records that --retry_failed ignores

    @classmethod
    def open(
        cls, config: Config, workdir: Path, command: str, share: Share | None = None, *, look_only: bool = False
    ) -> Self:
        """Opens the encoder and resolves the plan: reads all that is trained on. Raises ConfigError, TaskError,
        DataError and ModelError."""
        if not distributed.is_leader():
            be_quiet()
        config = with_dtype(config, this_machine())
        share, plan = share or Share(), make_plan(config)
        bad_rows = collector(config.skip_bad_rows and not look_only, workdir)
        look_only |= not distributed.is_leader()
        place = Workdir(workdir, share.label, look_only)
        source = open_source(config.encoder.source, seed=config.seeds[0])
        tokenizer = Tokenizer(source.tokenizer, source.config.vocab_size)
        plan, model = resolve(plan, source), make_model(config, source)
        mesh = make_mesh(**to_dict((defaults := plan_defaults(plan, model.config, tokenizer)).mesh))
        setting = Setting(config, source, model, tokenizer, mesh, place, place.log, defaults, bad_rows)
        check_dev_labels(plan, config.skip_bad_rows)
        return cls(setting, plan, command, share, look_only=look_only)

    def _log(self, record: dict[str, Any]) -> None:
        if distributed.process_count() == 1:  # several processes check it together, in `_recorded`
            self._check_claim()
        self.workdir.log(record)
        if self._board:
            self._board.add(record)

    def run(self) -> list[dict[str, Any]]:
        """Trains and evaluates what is missing, writes results.jsonl and returns its rows (in a job of several
        processes, process 0 does; the others return []).

        Raises PlanFailed at the end if runs failed (for a plan of one run: the error of that run), and Stopped.
        """
        require_one_job(self.config, self.plan, self.workdir.path)
        distributed.before_forced_exit(self._release_claim)
        distributed.connect(self.setting.mesh)
        self.workdir.save_config(self.config, self.command)
        if self.share.retry_failed:
            self._retried = {failure['token'] for run in self.plan if (failure := self.workdir.failure(run))}
        try:
            # Process 0 chooses the runs, from the files and claims that it sees; all processes do them together.
            runs = {run.name: run for run in self.plan}
            with requests(), self.workdir.gathering(), self.claims, contextlib.closing(self._claimed()) as claimed:
                while name := distributed.on_leader('next run', lambda: next(claimed, '')):
                    with self._recorded(run := runs[name]):
                        if self._is_to_train(run):
                            self.train(self.setting, run)
                        check()
                        if run.target:
                            self.evaluate(run)
                    release()  # of a failed run, too: its arrays live as long as its exception
        finally:
            if self._board:
                self._board.close()
        rows = self.results() if distributed.is_leader() else []
        self.workdir.write_results(rows)  # also if nothing was missing: the plan may have changed
        if self.bad_rows:
            self.bad_rows.close()
        if failures := distributed.on_leader('failures', self._failures):
            raise PlanFailed(*failures)
        return rows

    def _release_claim(self) -> None:
        if self._claim:
            self._claim.release('stopped')

    def _claimed(self) -> Generator[str]:
        """Yields the names of runs to execute, each claimed while the caller executes it. Ends when every run is done
        or has failed."""
        left, wait = order(self.plan, self.share, self.setting.defaults.seconds), Waiting()
        while left := [run for run in left if not self._is_settled(run)]:
            # After each run, start from the front again: other processes may have trained the parent of an earlier one.
            claim = None
            check()
            for run in left:
                if claim := self._take(run):
                    yield from self._held_while(run, claim)
                    break
            if claim:
                wait.reset()
            else:
                wait(self._held(left), len(left))

    def _held_while(self, run: Run, claim: Claim) -> Iterator[str]:
        self.workdir.take_over(run)  # another process may have finished it between the look and the claim
        outcome = 'nothing left to do'
        try:
            if not self._is_settled(run):
                outcome, self._claim = 'stopped', claim
                yield run.name
                outcome = self.outcomes.get(run.name, outcome)
        finally:
            self._claim = None
            claim.release(outcome)

    def _is_settled(self, run: Run) -> bool:
        """Whether there is nothing left to do for a run; says so the first time."""
        if run.name in self.outcomes:
            return True
        parent = run.start.name if run.start else ''
        if self.is_finished(run):
            self.workdir.remove_leftovers(run, bool(run.target) and self.config.keep_models == 'intermediate')
            self._settle(run, FINISHED, 'finished')
        elif self.outcomes.get(parent) in (FAILED, SKIPPED):
            self._settle(run, SKIPPED, f'skipped: {parent} failed')
        elif (failure := self.workdir.failure(run)) and failure['token'] not in self._retried:
            self._settle(run, FAILED, f'failed before: {failure["type"]}: {failure["error"]}')
        return run.name in self.outcomes

    def _settle(self, run: Run, outcome: str, text: str) -> None:
        self.outcomes[run.name] = outcome
        say(f'{self._label(run)}  {text}')

    def _label(self, run: Run) -> str:
        return f'[{self.plan.index(run) + 1}/{len(self.plan)}] {run.name}'

    def is_trained(self, run: Run) -> bool:
        """Whether a run has finished training, even if its weights have been deleted since (always true of retrieval,
        which trains nothing).
        """
        return not run.task or trained_facts(self.setting, run) is not None

    def must_train_again(self, run: Run) -> bool:
        """Whether a trained run has a language to be evaluated in, but no longer its weights (config.keep_models)."""
        return bool(run.task and not self.workdir.weights(run).exists() and self.missing_languages(run))

    def missing_languages(self, run: Run) -> list[str]:
        """The languages in which a run has yet to be evaluated."""
        languages = self.languages(run.target) if run.target else ()
        return [language for language in languages if self._finished(run, language) is None]

    def is_finished(self, run: Run) -> bool:
        """Whether a run is trained and evaluated."""
        return self.is_trained(run) and not self.missing_languages(run)

    def _held(self, left: list[Run]) -> dict[str, Holder]:
        return {run.name: holder for run in left if (holder := self.claims.holder(run.name))}

    def _take(self, run: Run) -> Claim | None:
        """Claims a run; None if its parent is not trained yet or another process holds the run."""
        if run.start and not self.is_trained(run.start):
            return None
        return self.claims.take(run.name)

    @contextlib.contextmanager
    def _recorded(self, run: Run) -> Iterator[None]:
        """Settles a run when the block ends: it is finished, or its failure is recorded. Raises Stopped, and what the
        block raises in a plan of one run."""
        say(self._label(run))
        started = time.monotonic()
        failure: Exception | None = None
        try:
            try:
                yield
                self._check_claim()
            except Exception as error:
                failure = error
            failure = distributed.agreed(failure)
            if failure and distributed.on_leader('claim lost', lambda: isinstance(failure, ClaimLost)):
                say(f'{self._label(run)}  {failure}')
            elif failure is not None:
                self.workdir.write_failure(run, failure, self.command)
                if len(self.plan) == 1 or asked():  # a failed stop: not everything is saved
                    raise failure
                self._settle(run, FAILED, f'failed: {type(failure).__name__}: {failure}')
            else:
                self.workdir.forget_failure(run)
                self.outcomes[run.name] = FINISHED
        finally:
            self.workdir.add_seconds(time.monotonic() - started)

    def _check_claim(self) -> None:
        if self._claim:
            self._claim.check()

    def _failures(self) -> tuple[str, list[str]] | None:
        """What PlanFailed says, None where no run failed."""
        failed = [run for run in self.plan if self.outcomes[run.name] == FAILED]
        skipped = [run for run in self.plan if self.outcomes[run.name] == SKIPPED]
        if not failed:
            return None
        behind = f', {len(skipped)} that start from them were skipped' if skipped else ''
        text = f'{len(failed)} of {len(self.plan)} runs failed{behind}; run --retry_failed tries again'
        return text, [self._failure_line(run) for run in failed]

    def _failure_line(self, run: Run) -> str:
        if not (failure := self.workdir.failure(run)):
            return f'{run.name}: see the error above; the failure record could not be written'
        return f'{run.name}: {failure["type"]}: {failure["error"]} ({self.workdir.failure_path(run)})'

    def _is_to_train(self, run: Run) -> bool:
        return distributed.on_leader('to train', lambda: not self.is_trained(run) or self.must_train_again(run))

    def languages(self, target: str) -> tuple[str, ...]:
        """The languages that a target is evaluated in, English first where it is one of them."""
        return evaluation_languages(self.config, target)

    def split(self, target: str) -> str:
        """The split that a target is evaluated on."""
        return self.plan.splits[target][0]

    def _evaluation_key(self, run: Run, language: str) -> str:
        rows = Split(get_task(run.target), language, self.split(run.target), self.config.data_root)
        if rows not in self._digests:
            self._digests[rows] = rows.digest()
        return evaluation_key(self.config, run, self._digests[rows])

    def _finished(self, run: Run, language: str) -> list[dict[str, Any]] | None:
        path = self.workdir.evaluation_path(run, language, self.split(run.target))
        return read_evaluation(path, self._evaluation_key(run, language))

    def evaluate(self, run: Run) -> None:
        """Evaluates a run in the languages that are missing and deletes weights that are not kept."""
        if missing := distributed.on_leader('languages', lambda: self.missing_languages(run)):
            self._evaluate(run, missing)
        if self.config.keep_models == 'intermediate' and distributed.is_leader():
            self.workdir.weights(run).unlink(missing_ok=True)

    def _evaluate(self, run: Run, missing: list[str]) -> None:
        split = self.split(run.target)
        self.workdir.refresh(run)
        task, evaluator = task_of(self.config, run.target), self._evaluator(run)
        if distributed.is_leader():
            self.workdir.forget_partial(run, task.prediction_folder)
        facts = trained_facts(self.setting, run) or {'step': 0}
        collapsed = over_phases(trained_facts(self.setting, each) for each in run.lineage)
        line = Line(f'evaluate {run.name}', 'languages')
        found = evaluator.run_all(task, missing, split, self.workdir.predictions(run))
        for number, (language, metrics, n) in enumerate(with_messages(evaluator, run.name, found)):
            distributed.on_leader('claim', self._check_claim)
            if not distributed.is_leader():
                continue
            rows = result_rows(
                self.config,
                self.setting.source,
                run,
                Split(task, language, split, self.config.data_root),
                metrics=metrics,
                n=n,
                step=facts['step'],
                command=self.command,
                bad_rows=self.bad_rows,
                collapsed=collapsed,
            )
            path = self.workdir.evaluation_path(run, language, split)
            write_evaluation(path, self._evaluation_key(run, language), rows)
            self._write_partial_results(number + 1 == len(missing))
            line(number + 1, len(missing), number + 1)
        line.close(f'{len(missing)} languages')

    def _write_partial_results(self, now: bool) -> None:
        """Writes results.jsonl so far, at most every ten seconds unless `now`: it reads the rows of the whole plan."""
        if now or time.monotonic() - self._results_written > 10:
            self.workdir.write_results(self.results())
            self._results_written = time.monotonic()

    def _evaluator(self, run: Run) -> Evaluator:
        setting, config = self.setting, self.config
        params = put_tree(self._final_params(run), setting.eval_mesh)
        return Evaluator(
            setting.model,
            evaluation_weights(params, setting.model, setting.eval_mesh),
            setting.tokenizer,
            setting.eval_mesh,
            config.evaluation,
            config.data_root,
            scored_length(config, run),
            head_of(run) if run.recipe else None,
            bad_rows=self.bad_rows,
        )

    def _final_params(self, run: Run) -> Params:
        if run.recipe is None:  # retrieval: the encoder as the arm left it
            params = start_params(self.setting, run)
            return {k: params[k] for k in ('encoder', 'pooler')}
        return open_source(f'ckpt:{self.workdir.run_dir(run)}').load()

    def results(self) -> list[dict[str, Any]]:
        """The rows of every finished evaluation of this plan, in plan order."""
        targets = [run for run in self.plan if run.target]
        finished = (self._finished(run, language) for run in targets for language in self.languages(run.target))
        return [row for rows in finished for row in rows or []]
