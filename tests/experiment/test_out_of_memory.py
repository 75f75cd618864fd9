"""An evaluation that has no room on the device says what is there and what makes it smaller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.config import Evaluation
from xlmr_flax.encoders.config import SIZES
from xlmr_flax.eval import zero_shot
from xlmr_flax.experiment.out_of_memory import evaluating
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.mesh import make_mesh
from xlmr_flax.train.diagnostics.out_of_memory import OutOfMemory


def no_room(*arguments: Any, **options: Any) -> Any:
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes.')


def test_what_settings_change() -> None:
    model, settings = Model(SIZES['tiny']), Evaluation(batch_tokens=256)
    params = {'pooler': {'dense': {'bias': jax.device_put(jax.numpy.zeros(64))}}}
    with pytest.raises(OutOfMemory) as caught, evaluating('a run', model, params, make_mesh(), settings, 128):
        no_room()
    lines = str(caught.value).splitlines()
    assert lines[0] == 'out of memory: evaluation of a run, batches of 256 tokens in rows of up to 128'
    # A token has 4 heads x 128 attention weights and 128 numbers of the feed-forward layer, 4 bytes each.
    tokens, dtype = lines[-2:]
    assert tokens.startswith('    evaluation.batch_tokens=128 (now 256): ') and '640.0 KiB -> 320.0 KiB' in tokens
    assert dtype.startswith("    encoder.dtype='bfloat16': ") and '640.0 KiB -> 576.0 KiB' in dtype
    with evaluating('a run', model, params, make_mesh(), settings, 128):
        pass


def test_the_command_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(zero_shot, 'embed_sentences', no_room)
    asked = ['--encoder=random:tiny', '--task=world_retrieval', '--languages=de', '--max_length=32']
    assert main(['evaluate', *asked, f'--out={tmp_path / "o"}']) == 1
    error = capsys.readouterr().err
    assert 'error: out of memory: evaluation of random:tiny, batches of 1024 tokens' in error
    assert 'float32[2048, 64]  encoder/embeddings/word' in error
    assert 'Traceback' not in error
