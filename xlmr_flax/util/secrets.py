"""Hides access tokens in command lines and URLs before they are written to a workdir or a report."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

_HIDDEN = '[hidden]'
_SECRETS = (
    re.compile(r'\bhf_[A-Za-z0-9]{16,}'),  # the Hugging Face hub's tokens
    re.compile(r'\bya29\.[\w.-]{16,}'),  # Google's OAuth access tokens
    re.compile(r'\bAIza[\w-]{10,}'),  # Google's API keys
    re.compile(r'\b(?:gh[oprsu]_|github_pat_|glpat-)\w[\w-]{9,}'),  # tokens of GitHub and GitLab
    re.compile(r'(?<=://)(?!git@)[^/\s@\'"?#]+(?=@)'),  # user:password@ or TOKEN@ in an address; git@ is no secret
    re.compile(r'(?<=://)[^/\s@:\'"?#]+:(?!\d+/)[^\s@\'"]+(?=@)'),  # a password with unescaped slashes
    # A header: `Authorization: SCHEME credentials`, and the scheme Bearer alone.
    re.compile(r'(?i)(?<=\bauthorization)[\'"]?[:=]\s*[\'"]?(?:\w+[ +])?[^\s\'"]+'),
    re.compile(r'(?i)(?<=\bbearer)(?:[ =:+]|%20)+[\w.~+/-]{8,}=*'),
    re.compile(r'(?i)(?<=[?&;])(?:key|sig|auth|code|pwd|pass)=[^&;\s\'"]+'),  # names of secrets only in an address
    re.compile(
        r'(?i)(?<![A-Za-z0-9])(?:token|password|secret|signature|api_?key|access_?key|x-goog-signature)='
        r'(?:\'[^\']+\'|"[^"]+"|[^&;\s\'"]+)'
    ),
)


def hide(text: str) -> str:
    """Replaces access tokens and passwords in a text by '[hidden]'."""
    for pattern in _SECRETS:
        text = pattern.sub(_HIDDEN, text)
    return text


def has_secret(text: str) -> bool:
    """Whether `hide` would change the text."""
    return hide(text) != text


def command_line(program: str, arguments: Sequence[str]) -> str:
    """The command line, quoted for a shell and without secrets, for config.json, result rows and reports."""
    return hide(f'{program} {shlex.join(arguments)}')
