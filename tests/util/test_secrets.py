"""Access tokens never reach a workdir: hidden in command lines and tracebacks, refused in configs."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlmr_flax.config import ConfigError, parse
from xlmr_flax.models import hf
from xlmr_flax.util.secrets import command_line, has_secret, hide

TOKEN = 'hf_' + 'a1B2' * 8


@pytest.mark.parametrize(
    'text',
    [
        f'--config.encoder.source=hf:name?token={TOKEN}',
        'https://me:pa55word@example.org/data',
        'gs://bucket/x?X-Goog-Signature=0123456789abcdef',
        '--hub_token=abcdef0123',
        'https://example.org/?api_key=abcdef0123&x=1',
        'ya29.a0AfH6SMBabcdefghijk',
        '--x=ghp_0123456789abcdefghijklmnopqrstuvwxyz',
        'git+ssh://gho_0123456789abcdefghijklmnopqrstuvwxyz@example.org/x',
        'github_pat_11ABCDEFG0_0123456789abcdef',
        'https://pa55word@example.org/data',
        'https://:pa55word@example.org/data',
        's3://AKIAIOSFODNN7EXAMPLE:x0123456789/abcdef0123@bucket/x',
        'Authorization: Basic abcdef0123',
        "{'authorization': 'abcdef0123'}",
        'failed with Bearer abcdef0123.0123456789abcdef',
        'https://example.org/x?sig=abcdef0123&se=5',
        'https://example.org/x?a=1&key=AIzaSyabcdef0123',
        'key AIzaSyabcdef0123456789',
        "login(token='abcdef0123')",
    ],
)
def test_secrets_are_hidden(text: str) -> None:
    found = hide(text)
    assert has_secret(text)
    assert '[hidden]' in found
    assert not any(secret in found for secret in (TOKEN, 'pa55word', '0123456789', 'abcdef', 'a0AfH6SMB'))


@pytest.mark.parametrize(
    'text',
    [
        '--config=configs/tiny.py', 'hf:xlm-roberta-large@main', 'gs://bucket/runs/token', 'hf_x', '--max_tokens=5',
        'ssh://git@example.org/x', 'gs://bucket/a@b', 'https://example.org/x?page=5&monkey=1', '--sort_key=name',
        'http://localhost:8080/a@b', 'ghp_x', 'a bearer of news', 'https://example.org/?q=a@b', '--authors=a',
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert hide(text) == text


def test_command_lines() -> None:
    assert command_line('xlmr-flax', ['run', f'--x=a b {TOKEN}']) == "xlmr-flax run '--x=a b [hidden]'"


def test_a_config_with_a_token_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'encoder\.source') as caught:
        parse({'encoder': {'source': f'hf:name?token={TOKEN}'}})
    assert TOKEN not in str(caught.value)


def test_a_revision_of_the_hub_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(name: str, revision: str | None = None, **_: object) -> str:
        asked.append((name, revision))
        return str(tmp_path)

    monkeypatch.setattr('huggingface_hub.snapshot_download', download)
    monkeypatch.chdir(tmp_path)
    hf.resolve('me/model@v1.0')
    hf.resolve('me/model@refs/pr/3')
    hf.resolve('xlm-roberta-base')
    assert asked == [('me/model', 'v1.0'), ('me/model', 'refs/pr/3'), ('xlm-roberta-base', None)]
    for name in ('a/b/c', 'a/b/c@v1', './a@v1'):
        with pytest.raises(hf.MissingWeights, match='no such directory'):
            hf.resolve(name)
    assert len(asked) == 3
    (tmp_path / 'a@b').mkdir()
    assert hf.resolve('a@b') == Path('a@b')


def test_an_error_of_the_hub_without_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, **_: object) -> str:
        raise TimeoutError

    monkeypatch.setattr('huggingface_hub.snapshot_download', fail)
    with pytest.raises(hf.MissingWeights, match='TimeoutError'):
        hf.resolve('me/model')
