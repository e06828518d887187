"""How a receiver knows that an event comes from us, and now: an HMAC over its id, the time and the body.

The headers are those of Standard Webhooks, for which there are libraries in most languages. Several signatures stand
side by side while a secret is exchanged: a receiver accepts whichever it knows the secret of.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from replicator.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
_PREFIX: Final = "whsec_"
_VERSION: Final = "v1"


def signing_key(secret: str) -> bytes:
    """Return the key that a secret stands for: `whsec_` and Base64, or any other text as it is.

    Raises InvalidInput for what follows `whsec_` and is no Base64; the error does not show it.
    """
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("expected Base64 after whsec_") from None


def signature_headers(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers that go with a message; without keys it is not signed."""
    headers = {ID_HEADER: message_id, TIMESTAMP_HEADER: str(timestamp)}
    if keys:
        signed = f"{message_id}.{timestamp}.".encode() + body
        headers[SIGNATURE_HEADER] = " ".join(_signature(key, signed) for key in keys)
    return headers


def _signature(key: bytes, signed: bytes) -> str:
    return f"{_VERSION},{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"
