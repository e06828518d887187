"""Secrets stay out of what is written: by key, by known value, and by the shapes in which credentials travel.

The last word is on the finished text, tracebacks included, so that no way of formatting an event gets around it. A
known value is found in each of the forms in which text is usually quoted: JSON, Python, URL, Base64.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote

if TYPE_CHECKING:
    from replicator.config.secrets import Secret

REDACTED = "[redacted]"
MIN_LENGTH = 4
"""Shorter values cannot be told from ordinary text: removing each `a` would hide the log, not the secret."""

_SECRET_KEY = re.compile(
    r"passw|passphrase|secret|token|authorization|credential|cookie|dsn|signature|private_?key|api_?key", re.IGNORECASE
)
_PASSWORD_IN_URL = re.compile(r"://[^:/@]*:([^/@]*)@")
_MAX_DEPTH = 4
_SHAPES = (
    (re.compile(r"\b(basic|bearer)(\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1\2{REDACTED}"),
    (re.compile(r"(://)[^\s/@\"'<>]*:[^\s/@\"'<>]*@"), rf"\1{REDACTED}@"),
    (re.compile(r"(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s\"'<>]+", re.IGNORECASE), rf"\1{REDACTED}"),
)


class Redactor:
    """Knows the process's secrets, and takes them out of text."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        for secret in secrets:
            self.add(secret)

    def add(self, secret: Secret) -> None:
        """Know one more secret from now on; a value shorter than `MIN_LENGTH` is only hidden by its key.

        Of a connection string the password alone is known too: drivers take it apart before they complain.
        """
        value = secret.reveal()
        if len(value) < MIN_LENGTH:
            return
        self._forms |= _forms(value)
        password = _PASSWORD_IN_URL.search(value)
        if password is not None and len(password[1]) >= MIN_LENGTH:
            self._forms |= _forms(password[1]) | _forms(unquote(password[1]))
        longest_first = sorted(self._forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(form) for form in longest_first))

    def redact_known(self, text: str) -> str:
        """Return `text` without the values of known secrets."""
        return text if self._pattern is None else self._pattern.sub(REDACTED, text)

    def redact(self, text: str) -> str:
        """Return `text` without known secrets and without anything shaped like a credential."""
        # Known secrets first: a shape may match the half of one and leave the other.
        text = self.redact_known(text)
        for pattern, replacement in _SHAPES:
            text = pattern.sub(replacement, text)
        return text


def redact_keys(fields: Mapping[str, object], depth: int = 0) -> dict[str, object]:
    """Return fields without the values of keys such as `password` or `Authorization`, also further inside."""
    return {key: REDACTED if _SECRET_KEY.search(str(key)) else _inside(value, depth) for key, value in fields.items()}


def _inside(value: object, depth: int) -> object:
    if not isinstance(value, Mapping):
        return value
    return redact_keys(value, depth + 1) if depth < _MAX_DEPTH else REDACTED


def _forms(value: str) -> set[str]:
    quoted = {value, repr(value)[1:-1], ascii(value)[1:-1], quote(value, safe=""), quote(value), quote_plus(value)}
    encoded = value.encode()
    quoted |= {base64.b64encode(encoded).decode(), base64.urlsafe_b64encode(encoded).decode().rstrip("=")}
    return quoted | {json.dumps(form, ensure_ascii=as_ascii)[1:-1] for form in quoted for as_ascii in (True, False)}
