"""usage: xlmr-flax evaluate --encoder=SRC --task=T --languages=a,b --out=DIR [--data_root=DIR]
       xlmr-flax evaluate --encoder=SRC --input=FILE --out=FILE.jsonl [--task=HEAD-OR-TASK]
       xlmr-flax evaluate --encoder=SRC --input=FILE --out=FILE.npy

Evaluates an encoder (retrieval tasks) or a fine-tuned model (ckpt:DIR, hf:DIR) without training. Writes
DIR/results.jsonl and DIR/predictions/TASK/SPLIT-LANG files in XTREME's layout, and prints the scores. The default of
--languages is all languages of the task.

With --input, it predicts for the rows of your own file instead of a task's data. The output has one JSON object per
line with `row` (the row's index in the file, from 0), `id` if the file has one, and, by the kind of the model's head:

  pair    label, probabilities       read from .tsv or .txt (text_a[TAB text_b] per line, or with a header line that
                                     names text_a [text_b] [id]), .csv (with that header), .jsonl
  choice  label, choice,             read from .jsonl {"prompt", "choices": [...]}
          probabilities
  tag     words, tags,               read from .txt (one sentence per line, white space between words), .tsv or .conll
          probabilities              (one word per line, a blank line between sentences), .conllu,
                                     .jsonl {"words": [...]}
  span    text, start, end, score,   read from .jsonl {"question", "context"}, .json (SQuAD's format)
          no_answer_score

A .json file may have an array of such objects. "id" is optional. If --out ends in .npy, it writes float32 [rows, D]
sentence vectors of a .txt (one sentence per line) or .jsonl {"text"}; no head is needed. --task selects the head if a
model has several. The class names come from --labels or the checkpoint; otherwise classes have numbers.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from xlmr_flax.cli import processes
from xlmr_flax.config import POOLINGS, QA_DECODINGS, REPEATED
from xlmr_flax.util.secrets import command_line


def define_flags(values: flags.FlagValues) -> None:
    processes.define_flags(values)
    flags.DEFINE_string('encoder', None, 'embedded, hf:NAME-OR-DIR, ckpt:DIR or random:SIZE.', flag_values=values)
    flags.DEFINE_string('task', None, 'Task to evaluate on; with --input the head or its task.', flag_values=values)
    flags.DEFINE_list('languages', [], 'Language codes; default: all of the task.', flag_values=values)
    flags.DEFINE_string(
        'split', '', "Split; default: 'test', or 'dev' if test labels are missing in some language.", flag_values=values
    )
    flags.DEFINE_string('data_root', '', 'Root of the data files; default: XLMR_DATA_ROOT.', flag_values=values)
    flags.DEFINE_string('input', '', "A file of your own rows instead of a task's (see above).", flag_values=values)
    flags.DEFINE_list(
        'labels',
        [],
        "Names of the head's classes in its order (entailment,neutral,contradiction), for a checkpoint whose "
        'config.json does not name them, or names them wrongly.',
        flag_values=values,
    )
    flags.DEFINE_string('out', None, 'Folder to write to; with --input the file.', flag_values=values)
    flags.DEFINE_integer(
        'layer', -1, 'Retrieval: hidden_states index; -1 = by depth (docs/config.md).', flag_values=values
    )
    flags.DEFINE_enum(
        'pooling',
        'mean',
        list(POOLINGS),
        'Retrieval: mean over all tokens; the first token; as multilingual-e5 or LaBSE say (docs/config.md).',
        flag_values=values,
    )
    flags.DEFINE_enum(
        'repeated_sentences',
        'kept',
        list(REPEATED),
        'BUCC: a text that occurs several times on one side is mined row by row (kept); once, with all pairs of ids '
        '(expanded, as jiant); or gives no pairs (dropped, as XTREME).',
        flag_values=values,
    )
    flags.DEFINE_enum(
        'qa_decoding',
        'offsets',
        list(QA_DECODINGS),
        'Answers as the characters of the predicted tokens (offsets), or cut out of white-space words as by the '
        'scripts of XTREME (reference).',
        flag_values=values,
    )
    flags.DEFINE_integer('max_length', 0, 'Tokens a row; 0 = as fine-tuned, 512 for retrieval.', flag_values=values)
    flags.DEFINE_integer('max_examples', 0, 'Number of rows of each language; 0 = all.', flag_values=values)
    flags.DEFINE_enum(
        'dtype',
        'auto',
        ['auto', 'float32', 'bfloat16'],
        'Compute dtype; auto = bfloat16 on TPUs and on GPUs with fast products in it, else float32.',
        flag_values=values,
    )
    flags.DEFINE_bool(
        'skip_bad_rows',
        False,
        'Leave out rows that cannot be read, and list them in DIR/bad_rows.tsv (with --input: FILE.bad_rows.tsv), '
        'instead of stopping. Not for retrieval tasks, where it would change the pool.',
        flag_values=values,
    )


def _check(values: flags.FlagValues) -> None:
    from xlmr_flax.cli.main import UsageError

    for name in ('encoder', 'out') if values.input else ('encoder', 'task', 'out'):
        if not values[name].value:
            raise UsageError(f'--{name} is missing')
    if not values.input:
        return
    for name in ('languages', 'split'):
        if values[name].value:
            raise UsageError(f'--{name} has no meaning with --input: a file of your own has none')
    if values.qa_decoding != 'offsets':
        raise UsageError('--qa_decoding is only for the data of a task: answers of --input have their characters')
    out = Path(values.out)
    if out.is_dir():
        raise UsageError(f'--out={out} is a folder; with --input it names the file to write')
    if out.resolve() == Path(values.input).resolve():
        raise UsageError(f'--out={out} is the input')
    for name in ('task', 'labels'):
        if values[name].value and out.suffix == '.npy':
            raise UsageError(f'--{name} has no meaning with sentence vectors (--out={out})')


def run(values: flags.FlagValues) -> int:
    from xlmr_flax.config import Evaluation, check_evaluation
    from xlmr_flax.experiment.evaluate import Request, evaluate
    from xlmr_flax.experiment.predict_file import annotate

    _check(values)
    evaluation = Evaluation(
        max_examples=values.max_examples,
        retrieval_layer=values.layer,
        pooling=values.pooling,
        repeated_sentences=values.repeated_sentences,
        qa_decoding=values.qa_decoding,
    )
    check_evaluation(evaluation)
    request = Request(
        encoder=values.encoder,
        task=values.task or '',
        languages=tuple(values.languages),
        split=values.split,
        data_root=values.data_root,
        out=Path(values.out),
        dtype=values.dtype,
        max_length=values.max_length,
        evaluation=evaluation,
        command=command_line('xlmr-flax', sys.argv[1:]),
        skip_bad_rows=values.skip_bad_rows,
        input=values.input,
        labels=tuple(values.labels),
    )
    with processes.together(values, 'evaluate'):
        if request.input:
            annotate(request)
        else:
            evaluate(request)
    return 0
