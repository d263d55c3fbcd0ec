"""Secrets taken out of what is written or shown.

They are values of the environment that are secret by their name, and what a URI or a header carries to prove who asks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

#: Variables whose values are secrets; those that say where or how a secret is kept are none.
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE_KEY|_PAT$|_AUTH$|_KEY$", re.I)
_NO_SECRET = re.compile(r"_(PATH|FILE|DIR|MODE|NAME|URL|URI|TYPE|PARALLELISM|ID)$", re.I)
_SHORTEST = 6  # a shorter value is no secret, and would take words out of every sentence
_PASSWORD = re.compile(r"://[^/\s@:]*:([^/\s@]+)@")
_SHOWN = (
    re.compile(r"(?<=://)[^/\s@'\"]+(?=@)"),  # user:password of a URI
    re.compile(r"(?<=[?&])((?:[\w-]*(?:token|secret|password|signature|credential|api_?key)|sig)=)[^&\s'\"]+", re.I),
    re.compile(r"\b((?:Bearer|Basic)\s+)[\w.~+/=-]{6,}", re.I),
    re.compile(r"\b()(?:hf_\w{20,}|gh[pousr]_\w{20,}|AKIA[A-Z0-9]{16})\b"),
)


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text with every secret as ***; secrets are those of `environment` (default: this process's)."""
    variables = os.environ if environment is None else environment
    secrets = {value for name, value in variables.items() if _SECRET.search(name) and not _NO_SECRET.search(name)}
    secrets |= {password for value in variables.values() for password in _PASSWORD.findall(value)}
    # The longest first, so that no secret which begins like another leaves its end behind.
    for secret in sorted((value for value in secrets if len(value) >= _SHORTEST), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern in _SHOWN:
        text = pattern.sub(lambda match: (match[1] if match.re.groups else "") + HIDDEN, text)
    return text


def redact_all(value: Any) -> Any:
    """The value with every text in it redacted, however deep in lists and mappings it stands."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {name: redact_all(part) for name, part in value.items()}
    return [redact_all(part) for part in value] if isinstance(value, (list, tuple)) else value


def has_secret(uri: str) -> bool:
    """Whether a URI carries a password, a token or a signature."""
    return redact(uri, {}) != uri
