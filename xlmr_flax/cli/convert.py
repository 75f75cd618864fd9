"""usage: xlmr-flax convert --source=SRC --out=DIR [--head=NAME] [--labels=A,B,...]

Exports an encoder or a fine-tuned model as a directory that Hugging Face transformers can load: config.json,
model.safetensors and the tokenizer. SRC is embedded, hf:NAME-OR-DIR, ckpt:DIR (a run directory of a workdir) or
random:SIZE. A source with one fine-tuned head is written as the matching class (such as
XLMRobertaForSequenceClassification); --head=none writes only the encoder.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string('source', None, 'embedded, hf:NAME-OR-DIR, ckpt:DIR or random:SIZE.', flag_values=values)
    flags.DEFINE_string('out', None, 'Folder to write; must not exist or be empty.', flag_values=values)
    flags.DEFINE_string('head', '', "Which head to write ('none': the bare encoder).", flag_values=values)
    flags.DEFINE_list(
        'labels',
        [],
        "Names of the head's classes in its order, for a source that does not name them, or names them wrongly.",
        flag_values=values,
    )
    flags.DEFINE_integer('seed', 0, 'Seed of random:SIZE.', flag_values=values)


def run(values: flags.FlagValues) -> int:
    from xlmr_flax.cli.main import UsageError
    from xlmr_flax.kinds.base import name_problem
    from xlmr_flax.models import hf
    from xlmr_flax.models.source import open_source
    from xlmr_flax.util.errors import closest

    for name in ('source', 'out'):
        if not values[name].value:
            raise UsageError(f'--{name} is missing')
    source = open_source(values.source, values.seed)
    name = values.head or (next(iter(source.heads)) if len(source.heads) == 1 else 'none')
    if name != 'none' and name not in source.heads:
        raise UsageError(f'--head={name}: {values.source} has no such head{closest(name, source.heads)}')
    head = None if name == 'none' else (name, source.heads[name])
    if head is None and source.missing and not values.head:
        raise UsageError(f'{values.source}: {source.missing}; --head=none writes the encoder alone')
    if problem := name_problem(values.labels):
        raise UsageError(f'--labels: {problem}')
    if values.labels and (head is None or len(values.labels) != head[1].outputs):
        outputs = head[1].outputs if head else 0
        raise UsageError(f'--labels: {len(values.labels)} names for the {outputs} outputs of head {name!r}')
    out = Path(values.out)
    hf.save(
        out,
        source.config,
        source.load((name,)),
        source.tokenizer,
        head=head,
        style=source.style or 'hf',
        labels=values.labels or source.labels.get(name, ()),
    )
    print(f'{values.source} -> {out}' + (f' with head {name!r} ({head[1].kind})' if head else ' (encoder)'))
    return 0
