"""The retrieval command: retrieval accuracy by layer of one or more encoders on one task, resumable.

Each encoder has the folder NAME-DIGEST under that of the results: vectors/LANG.npy (float32 [L + 1, n, D], only for
parallel sets, whose languages are compared with each other), then languages/LANG.json, and pairs/LAYER.json when all
languages are there. A file with another key (encoder, data, settings) is made again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_flax.config import Evaluation
from xlmr_flax.data.split import Split
from xlmr_flax.eval.layer_retrieval import (
    LanguageLayers,
    LayerRetrieval,
    check_task,
    is_parallel,
    many_to_many,
    pair_accuracies,
)
from xlmr_flax.eval.zero_shot import Evaluator
from xlmr_flax.experiment.evaluate import Request, open_model, require_one_request
from xlmr_flax.experiment.out_of_memory import evaluating
from xlmr_flax.experiment.plan.runs import default_split
from xlmr_flax.experiment.result_rows import language_facts
from xlmr_flax.experiment.workdir.files import Workdir
from xlmr_flax.models.source import EncoderSource, open_source
from xlmr_flax.parallel.distributed import connect, is_leader, on_leader
from xlmr_flax.parallel.mesh import make_mesh
from xlmr_flax.report.layers import write_layer_report, write_layer_rows
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Task
from xlmr_flax.util import strict_json
from xlmr_flax.util.console import Line, be_quiet, say
from xlmr_flax.util.files import replacing, safe_name, write_atomically
from xlmr_flax.util.stopping import check

Row = dict[str, Any]


def retrieval(request: Request, encoders: Sequence[tuple[str, str]]) -> list[Row]:
    """Embeds what is missing, writes the rows after every language, then tables and figure; returns the rows.

    encoders: (name in tables and figures, source) of each; they replace the encoder of the request.

    Raises TaskError for a task without pairs of rows, and ModelError, DataError, TokenizerError and ConfigError.
    """
    if not is_leader():
        be_quiet()
    task = get_task(request.task)
    languages = request.languages or (task.split_languages(request.split) if request.split else task.languages)
    languages = tuple(dict.fromkeys(languages))
    split = request.split or default_split(task, languages, request.data_root)
    check_task(task, split)
    sources = [(name, open_source(source)) for name, source in encoders]
    Workdir(request.out, look_only=not is_leader())  # raises ConfigError if nothing can be written there
    rows: list[Row] = []
    for name, source in sources:
        asked = dataclasses.replace(request, encoder=source.name)
        one = _Encoder.open(asked, name, source, task, split, languages)
        rows += one.run(lambda found, before=tuple(rows): _write_rows(request.out, [*before, *found]))
    report = on_leader('report', lambda: str(write_layer_report(request.out, rows, request.command)))
    say(f'written: {report}')
    return rows


def _write_rows(out: Path, rows: Sequence[Row]) -> None:
    if is_leader():
        write_layer_rows(out, rows)


@dataclass(frozen=True)
class _Encoder:
    """One encoder of a request. key: of all that decides its numbers, apart from the data of a language."""

    request: Request
    name: str
    source: EncoderSource
    task: Task
    split: str
    languages: tuple[str, ...]
    folder: Path
    key: dict[str, Any]
    evaluation: Evaluation

    @classmethod
    def open(
        cls,
        request: Request,
        name: str,
        source: EncoderSource,
        task: Task,
        split: str,
        languages: tuple[str, ...],
    ) -> _Encoder:
        require_one_request(request, source)
        opened = open_model(request, source, heads=False)
        evaluation = dataclasses.replace(request.evaluation, max_length=opened.max_length)
        key = {
            'encoder': source.digest, 'task': task.name, 'split': split, 'dtype': opened.model.dtype,
            'max_length': opened.max_length, 'max_examples': evaluation.max_examples, 'pooling': evaluation.pooling,
        }  # fmt: skip
        folder = request.out / f'{safe_name(name)}-{source.digest[:8]}'
        return cls(request, name, source, task, split, languages, folder, key, evaluation)

    def run(self, write: Callable[[list[Row]], None]) -> list[Row]:
        """The rows of all languages. write: called with the rows so far, after every language."""
        found = on_leader('languages', lambda: {code: self._finished(code) for code in self.languages})
        missing = [code for code in self.languages if found[code] is None]
        if self.source.note:
            say(self.source.note)
        if missing:
            for code, record in self._embedded(missing):
                found[code] = record
                write(self._rows(found, {}))
        pairs = {}
        if len(self.languages) > 1 and is_parallel(self.task, self.split):
            pairs = on_leader('pairs', lambda: self._pairs([found[code] for code in self.languages]))
        rows = self._rows(found, pairs)
        write(rows)
        return rows

    def _key(self, language: str) -> str:
        data = Split(self.task, language, self.split, self.request.data_root).digest()
        text = json.dumps(self.key | {'language': language, 'data': data}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _vectors(self, language: str) -> Path:
        return self.folder / 'vectors' / f'{language}.npy'

    def _record(self, language: str) -> Path:
        return self.folder / 'languages' / f'{language}.json'

    def _finished(self, language: str) -> dict[str, Any] | None:
        """The record of a language that is embedded; None for a missing or damaged one, or one of other settings."""
        record = _read(self._record(language), self._key(language))
        if record and is_parallel(self.task, self.split):
            try:
                shape = np.load(self._vectors(language), mmap_mode='r', allow_pickle=False).shape
            except (OSError, ValueError, EOFError):
                return None
            config = self.source.config
            if shape != (config.num_layers + 1, record.get('n'), config.hidden_size):
                return None
        return record

    def _embedded(self, missing: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields (language, record) of each missing language."""
        request, mesh = self.request, make_mesh()
        opened = open_model(request, self.source, heads=False)
        connect(mesh)
        params, model = opened.load(mesh, heads=False), opened.model
        evaluator = Evaluator(
            model, params, opened.tokenizer, mesh, self.evaluation, request.data_root, opened.max_length
        )
        layers = LayerRetrieval(evaluator, self.task, self.split)
        line = Line(f'{self.name}  {self.task.name} {self.split}', 'sentences')
        progress = _Progress(line, len(missing), is_parallel(self.task, self.split))
        with evaluating(self.name, model, params, mesh, self.evaluation, opened.max_length):
            for language in missing:
                check()
                found = layers.language(language, progress)
                progress.next_language()
                yield language, on_leader('language', lambda found=found, code=language: self._save(code, found))
        line.close(f'{len(missing)} languages, {progress.finished} sentences')

    def _save(self, language: str, found: LanguageLayers) -> dict[str, Any]:
        if is_parallel(self.task, self.split):
            with replacing(self._vectors(language)) as part, part.open('wb') as file:
                np.save(file, found.vectors, allow_pickle=False)
        record = {
            'key': self._key(language), 'n': found.vectors.shape[1], 'accuracy': found.accuracy,
            'accuracy_to_en': found.to_english,
        }  # fmt: skip
        write_atomically(self._record(language), json.dumps(record) + '\n')
        return record

    def _pairs(self, records: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
        """The many-to-many mean of each language by layer, {language: [L + 1 numbers]}."""
        count, rows = len(records), records[0]['n']
        key = hashlib.sha256(json.dumps([record['key'] for record in records]).encode()).hexdigest()
        means: dict[str, list[float]] = {code: [] for code in self.languages}
        line = Line(f'{self.name}  {self.task.name} many-to-many', 'pairs')
        layers, done = self.source.config.num_layers + 1, 0
        for layer in range(layers):
            path = self.folder / 'pairs' / f'{layer}.json'
            record = _read(path, key)
            if record is None:

                def tick(pairs: int) -> None:
                    nonlocal done
                    done += pairs
                    check()
                    line(done, count * (count - 1) * layers, done)

                def read(number: int, layer: int = layer) -> np.ndarray:
                    return np.load(self._vectors(self.languages[number]), mmap_mode='r', allow_pickle=False)[layer]

                record = {'key': key, 'means': many_to_many(pair_accuracies(read, count, rows, tick))}
                write_atomically(path, json.dumps(record) + '\n')
            else:
                done += count * (count - 1)
            for code, mean in zip(self.languages, record['means'], strict=True):
                means[code].append(mean)
        line.close(f'{count} languages')
        return means

    def _rows(self, found: dict[str, Any], pairs: dict[str, list[float]]) -> list[Row]:
        rows = []
        for language in self.languages:
            if (record := found[language]) is None:
                continue
            data = Split(self.task, language, self.split, self.request.data_root)
            stand_in = data.stand_in()
            for layer, accuracy in enumerate(record['accuracy']):
                rows.append(
                    {
                        'name': self.name, 'encoder': self.source.name, 'target': self.task.name,
                        'language': language, 'split': self.split, 'layer': layer, 'accuracy': accuracy,
                        'accuracy_to_en': record['accuracy_to_en'][layer],
                        **({'many_to_many': pairs[language][layer], 'among': len(self.languages)} if pairs else {}),
                        'n': record['n'], 'pooling': self.evaluation.pooling, 'command': self.request.command,
                        **language_facts(language, self.source.name), 'chance': 100.0 / record['n'],
                        **({'note': self.source.note} if self.source.note else {}),
                        **({'stand_in': stand_in} if stand_in else {}),
                    }
                )  # fmt: skip
        return rows


class _Progress:
    """A progress line over all languages. The number of sentences of the later ones is taken from the current one; the
    English side of a parallel set is embedded with the first language alone."""

    def __init__(self, line: Line, languages: int, is_parallel: bool):
        self.line, self.left, self.is_parallel = line, languages - 1, is_parallel
        self.finished, self.current, self.is_first = 0, 0, True

    def __call__(self, done: int, total: int) -> None:
        self.current = total
        later = total // 2 if self.is_first and self.is_parallel else total
        done += self.finished
        self.line(done, self.finished + total + later * self.left, done)

    def next_language(self) -> None:
        self.finished += self.current
        self.left, self.is_first = self.left - 1, False


def _read(path: Path, key: str) -> dict[str, Any] | None:
    """A JSON object of this key; None for a missing or damaged file, or one of another key."""
    try:
        record = strict_json.read_object(path)
    except (OSError, strict_json.JsonError):
        return None
    return record if record.get('key') == key else None
