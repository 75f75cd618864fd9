"""usage: xlmr-flax evaluate --encoder=SRC --task=T --languages=a,b --out=DIR [--data_root=DIR]

Evaluates an encoder (retrieval tasks) or a fine-tuned model (ckpt:DIR, hf:DIR) without training. Writes
DIR/results.jsonl and DIR/predictions/TASK/SPLIT-LANG files in XTREME's layout, and prints the numbers. Without
--languages: all the task has.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from absl import flags


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string('encoder', None, 'embedded, hf:NAME-OR-DIR, ckpt:DIR or random:SIZE.', flag_values=values)
    flags.DEFINE_string('task', None, 'Task to evaluate on.', flag_values=values)
    flags.DEFINE_list('languages', [], 'Language codes; default: all of the task.', flag_values=values)
    flags.DEFINE_string('split', '', "Split; default 'test', or 'dev' where there is no test.", flag_values=values)
    flags.DEFINE_string('data_root', '', 'Root of the data files; default: XLMR_DATA_ROOT.', flag_values=values)
    flags.DEFINE_string('out', None, 'Folder to write to.', flag_values=values)
    flags.DEFINE_integer(
        'layer', -1, 'Retrieval: hidden_states index; -1 = 14 of 24 layers, else the last.', flag_values=values
    )
    flags.DEFINE_enum(
        'pooling', 'mean', ['mean', 'cls'], 'Retrieval: mean over all tokens, or <s>.', flag_values=values
    )
    flags.DEFINE_integer('max_length', 0, 'Tokens a row; 0 = as fine-tuned, 512 for retrieval.', flag_values=values)
    flags.DEFINE_integer('max_examples', 0, 'First so many rows of each language; 0 = all.', flag_values=values)
    flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Compute dtype.', flag_values=values)


def run(values: flags.FlagValues) -> int:
    from xlmr_flax.cli.main import UsageError
    from xlmr_flax.config import Evaluation
    from xlmr_flax.experiment.evaluate import Request, evaluate

    for name in ('encoder', 'task', 'out'):
        if not values[name].value:
            raise UsageError(f'--{name} is missing')
    request = Request(
        encoder=values.encoder,
        task=values.task,
        languages=tuple(values.languages),
        split=values.split,
        data_root=values.data_root,
        out=Path(values.out),
        dtype=values.dtype,
        max_length=values.max_length,
        evaluation=Evaluation(max_examples=values.max_examples, retrieval_layer=values.layer, pooling=values.pooling),
        command=f'xlmr-flax {shlex.join(sys.argv[1:])}',
    )
    evaluate(request)
    return 0
