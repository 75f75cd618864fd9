"""Benchmark of evaluation: forward passes of our evaluator against batched forward passes of transformers.

The work is zero-shot evaluation in every language of a task, or the sentence vectors of a retrieval task. Both sides
read tokens that were made before; neither writes files nor computes metrics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xlmr_flax.tools.bench import settings
from xlmr_flax.tools.bench.memory import forget_peak
from xlmr_flax.tools.bench.subject import BenchError, Implementation, Options, Run
from xlmr_flax.tools.bench.train import compile_refusal, unit_flops

if TYPE_CHECKING:
    from xlmr_flax.experiment.plan.runs import Run as PlanRun
    from xlmr_flax.experiment.runner import Runner

UNIT = 'examples'
NEAR = {'float32': 1e-3, 'bfloat16': 1e-1}  # of the largest output
environment = settings.environment


def title(options: Options) -> str:
    config = options['config']
    what = 'Sentence vectors' if options['embed'] else 'Zero-shot evaluation'
    return (
        f'{what} of {options["task"]}: {config["encoder"]["source"]}, at most {config["recipe"]["max_length"]} tokens, '
        f'{config["encoder"]["dtype"]}, {options["device_name"]}'
    )


def _open(options: Options, folder: Path) -> tuple[Runner, PlanRun]:
    from xlmr_flax.config import parse
    from xlmr_flax.experiment.runner import Runner

    runner = Runner.open(parse(options['config']), folder, 'bench', look_only=True)
    return runner, next(run for run in runner.plan if run.target == options['task'])


def inputs(options: Options, folder: Path) -> None:
    """Writes the start weights (start/), the tokens of each language (LANG.npz) and about.json."""
    from xlmr_flax.data.sources import read_pairs, read_split
    from xlmr_flax.eval.retrieval import retrieval_layer
    from xlmr_flax.experiment.plan.arms import task_of
    from xlmr_flax.experiment.plan.runs import scored_length
    from xlmr_flax.experiment.training import head_of, initial_params, start_params
    from xlmr_flax.kinds import encode, kind_of
    from xlmr_flax.tools.bench.rows import write_rows
    from xlmr_flax.tools.torch.torch_model import TRAINED, export_start

    runner, run = _open(options, folder / 'inputs')
    config, setting, task = runner.config, runner.setting, task_of(runner.config, options['task'])
    if options['embed'] != task.embeds or not (options['embed'] or task.kind in TRAINED):
        raise BenchError(f'task {task.name!r} is of kind {task.kind!r}: --embed goes with retrieval, and only with it')
    split, limit, flops = runner.split(run.target), config.evaluation.max_examples or None, {}
    length = min(scored_length(config, run), setting.model.config.max_length)
    for code in runner.languages(run.target):
        if options['embed']:
            examples = [e for side in read_pairs(task, code, split, config.data_root, limit) for e in side]
        else:
            examples = read_split(task, code, split, config.data_root, limit)
        data = encode(task, examples, setting.tokenizer, length)
        write_rows(folder / f'{code}.npz', data, setting.tokenizer.pad)
        flops[code] = unit_flops(setting.model.config, data.tokens.lengths, data.group, 1).tolist()
    if options['embed']:
        params, heads = start_params(setting, run), {}
    else:
        params, heads = initial_params(setting, run), dict([head_of(run)])
    export_start(folder / 'start', setting.model.config, params, setting.tokenizer.path, heads, setting.model.style)
    evaluation = config.evaluation
    layer = retrieval_layer(setting.model.config, evaluation.layer_of(task.name), evaluation.pooling)
    about = {
        'languages': list(flops),
        'flops': flops,
        'head': next(iter(heads), ''),
        'by_token': kind_of(task).by_token,
        'best_only': kind_of(task).best_only,
        'embed': options['embed'],
        'layer': layer if options['embed'] and layer != setting.model.config.num_layers else None,
        'max_length': length,
        'batch': config.recipe.batch_size,
        'dtype': setting.model.dtype,
    }
    (folder / 'about.json').write_text(json.dumps(about), encoding='utf-8')


class Ours:
    """Our implementation: each call is one pass over the rows of every language."""

    def __init__(self, options: Options, folder: Path):
        from xlmr_flax.data.tokenize import Ragged
        from xlmr_flax.eval.zero_shot import Evaluator
        from xlmr_flax.experiment.plan.arms import task_of
        from xlmr_flax.experiment.training import head_of, initial_params, start_params
        from xlmr_flax.parallel.mesh import put_tree
        from xlmr_flax.tools.bench.rows import read_rows

        settings.require_device(options)
        runner, run = _open(options, folder / 'ours')
        self.about = json.loads((folder / 'about.json').read_text(encoding='utf-8'))
        self.compilations, self.facts, self.checked = settings.count_compilations(), {}, False
        self.sets, self.group = {}, 1
        for code in self.about['languages']:
            rows = read_rows(folder / f'{code}.npz')
            self.sets[code], self.group = Ragged(rows.flat, rows.offsets), rows.group
        config, setting = runner.config, runner.setting
        self.task, head = task_of(config, run.target), None
        if self.about['embed']:
            params = {k: v for k, v in start_params(setting, run).items() if k != 'heads'}
        else:
            params = initial_params(setting, run)
            head = head_of(run)
        self.evaluator = Evaluator(
            setting.model, put_tree(params, setting.mesh), setting.tokenizer, setting.mesh, config.evaluation,
            config.data_root, self.about['max_length'], head,
        )  # fmt: skip

    def _outputs(self) -> list[Any]:
        """Outputs of each language. With a head, all languages are one stream, as in `Evaluator.run_all`; sentence
        vectors are computed one language after the other."""
        from xlmr_flax.data.batches import row_lengths
        from xlmr_flax.eval.predict import embed_sentences
        from xlmr_flax.eval.retrieval import retrieval_layer

        evaluator, evaluation, sets = self.evaluator, self.evaluator.evaluation, list(self.sets.values())
        if evaluator.head is not None:
            return list(evaluator.outputs(self.task, sets))
        forward = evaluator.forward(row_lengths(self.about['max_length']))
        layer = retrieval_layer(evaluator.model.config, evaluation.layer_of(self.task.name), evaluation.pooling)
        return [embed_sentences(forward, tokens, layer=layer, pooling=evaluation.pooling) for tokens in sets]

    def __call__(self) -> dict[str, np.ndarray]:
        before = self.compilations()
        outputs = dict(zip(self.sets, self._outputs(), strict=True))
        units = sum(len(tokens) for tokens in self.sets.values()) // self.group
        flops = sum(sum(each) for each in self.about['flops'].values())
        compiled = self.compilations() - before
        self.facts = {'units': units, 'flops': flops, 'compiled': compiled, **settings.device_facts()}
        if self.checked:
            return {}
        self.checked = True
        forget_peak()
        return {code: np.concatenate([np.ravel(value) for value in values]) for code, values in outputs.items()}


def _torch(order: str, options: Options, folder: Path, *, to_max: bool, share: float, compiled: bool = False) -> Run:
    from xlmr_flax.tools.bench.torch_loop import Forward

    return Forward(options, folder, order, to_max=to_max, share=share, compiled=compiled)


IMPLEMENTATIONS: dict[str, Implementation] = {
    'ours': Implementation(Ours),
    'torch-sorted': Implementation(partial(_torch, 'sorted', to_max=False, share=1.0), 'torch'),
    'torch-dynamic': Implementation(partial(_torch, 'file', to_max=False, share=0.5), 'torch'),
    'torch-padded': Implementation(partial(_torch, 'file', to_max=True, share=0.25), 'torch'),
    'torch-compiled': Implementation(
        partial(_torch, 'sorted', to_max=False, share=1.0, compiled=True), 'torch', compile_refusal
    ),
}


def check(options: Options, folder: Path, outcomes: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Compares every implementation's outputs (logits, vectors, or the best tags) with ours. Raises BenchError."""
    about = json.loads((folder / 'about.json').read_text(encoding='utf-8'))
    ours, furthest, tags = next(iter(outcomes.values())), 0.0, about['best_only']
    for name, outcome in outcomes.items():
        for code, expected in ours.items():
            values = np.asarray(outcome[code])
            if tags and name != 'ours':  # torch returns the logits of every tag, ours the best tag
                values = values.reshape(len(expected), -1).argmax(-1)
            if values.shape != expected.shape:
                raise BenchError(f'{name} gives other results in {code}: {values.shape} for {expected.shape} numbers')
            if tags:
                apart = float((values != expected).mean())
            else:
                apart = float(np.abs(values - expected).max() / max(1e-6, np.abs(expected).max()))
            if not apart <= (0.02 if tags else NEAR[options['config']['encoder']['dtype']]):
                raise BenchError(f'{name} gives other results in {code}: {apart:.3g} apart')
            furthest = max(furthest, apart)
    how = 'the same tags for all but a share of' if tags else 'the same outputs, relative to the largest within'
    return f'Every implementation has {how} {furthest:.1e}, in {len(ours)} language(s).'
