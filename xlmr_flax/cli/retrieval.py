"""usage: xlmr-flax retrieval --encoder=SRC [--encoder=SRC2 ...] --task=T --out=DIR [--languages=a,b] [--data_root=DIR]
       xlmr-flax retrieval --results=DIR1,DIR2 --out=DIR

Computes the retrieval accuracy of every layer of one or more encoders: from English to each language and back and, for
tasks with the same sentences in all languages (sib200_retrieval, flores200, ntrex), the mean over all other languages
(many to many). Each language is embedded once, for all layers together. Writes to DIR:

  retrieval.jsonl, .csv   a row for each encoder, language and layer
  retrieval.md            the means by layer and the languages; retrieval_means.csv has the means in full precision
  figures/                accuracy by layer, the encoders in one figure
  NAME-DIGEST/            files from which a rerun continues, one for each language. vectors/ (parallel sets) has the
                          vectors of all layers, 4 bytes * (layers + 1) * sentences * hidden size for each language;
                          it can be deleted

--names names the encoders in tables and figures, in their order; encoders with the same name (seeds) share a line.
--results instead joins the retrieval.jsonl files of folders that are finished, in one report.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from xlmr_flax.cli import processes
from xlmr_flax.config import CLS, E5, MEAN
from xlmr_flax.util.secrets import command_line


def define_flags(values: flags.FlagValues) -> None:
    processes.define_flags(values)
    flags.DEFINE_multi_string(
        'encoder', [], 'embedded, hf:NAME-OR-DIR, ckpt:DIR or random:SIZE; repeat it for several.', flag_values=values
    )
    flags.DEFINE_list('names', [], 'Names of the encoders; default: their sources.', flag_values=values)
    flags.DEFINE_string('task', None, 'A retrieval task in which row i of both sides is a pair.', flag_values=values)
    flags.DEFINE_list('languages', [], 'Language codes; default: all of the task.', flag_values=values)
    flags.DEFINE_string(
        'split', '', "Split; default: 'test', or 'dev' if test labels are missing in some language.", flag_values=values
    )
    flags.DEFINE_string('data_root', '', 'Root of the data files; default: XLMR_DATA_ROOT.', flag_values=values)
    flags.DEFINE_string('out', None, 'Folder to write to.', flag_values=values)
    flags.DEFINE_list('results', [], 'Join the rows of these folders instead of computing.', flag_values=values)
    flags.DEFINE_enum(
        'pooling', MEAN, [MEAN, CLS, E5], 'Mean of all tokens; the first token; as multilingual-e5.', flag_values=values
    )
    flags.DEFINE_integer('max_length', 0, 'Tokens a row; 0 = 512.', flag_values=values)
    flags.DEFINE_integer('max_examples', 0, 'Number of rows of each language; 0 = all.', flag_values=values)
    flags.DEFINE_enum(
        'dtype', 'auto', ['auto', 'float32', 'bfloat16'], 'Compute dtype; auto as in evaluate.', flag_values=values
    )


def _check(values: flags.FlagValues) -> None:
    from xlmr_flax.cli.main import UsageError

    needed = ('out',) if values.results else ('encoder', 'task', 'out')
    for name in needed:
        if not values[name].value:
            raise UsageError(f'--{name} is missing')
    if values.results:
        for name in ('encoder', 'task', 'languages', 'split', 'names'):
            if values[name].value:
                raise UsageError(f'--{name} has no meaning with --results')
    if values.names and len(values.names) != len(values.encoder):
        raise UsageError(f'--names has {len(values.names)} names for {len(values.encoder)} encoders')


def run(values: flags.FlagValues) -> int:
    _check(values)
    if values.results:
        return _join([Path(folder) for folder in values.results], Path(values.out))
    from xlmr_flax.config import Evaluation
    from xlmr_flax.experiment.evaluate import Request
    from xlmr_flax.experiment.layer_retrieval import retrieval

    request = Request(
        encoder=','.join(values.encoder),
        task=values.task,
        languages=tuple(values.languages),
        split=values.split,
        data_root=values.data_root,
        out=Path(values.out),
        dtype=values.dtype,
        max_length=values.max_length,
        evaluation=Evaluation(max_examples=values.max_examples, pooling=values.pooling),
        command=command_line('xlmr-flax', sys.argv[1:]),
    )
    with processes.together(values, 'retrieval'):
        retrieval(request, list(zip(values.names or values.encoder, values.encoder, strict=True)))
    return 0


def _join(folders: list[Path], out: Path) -> int:
    from xlmr_flax.report.layers import FILE, read_layer_rows, write_layer_report, write_layer_rows

    rows = [row for folder in folders for row in read_layer_rows(folder / FILE)]
    write_layer_rows(out, rows)
    print(f'written: {write_layer_report(out, rows, command_line("xlmr-flax", sys.argv[1:]))}')
    return 0
