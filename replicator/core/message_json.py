"""JSON that somebody else wrote, read without holding up those who wait meanwhile.

The decoder cannot be interrupted, and what it costs goes by the number of values, not by the number of bytes: sixteen
megabytes of empty lists take seconds and hundreds of megabytes. So values are counted before anything is decoded.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from replicator.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_VALUES = 150_000
"""Values in one message: more than the largest of ours has, and few enough to be decoded at once."""

_STRANGE = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")
"""Escapes of surrogates and of NUL, which no message of ours holds and no database takes."""


def parse_message(body: bytes) -> object:
    """Return what a message says. Raises InvalidInput for what is no JSON in UTF-8, or holds too many values."""
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_VALUES:
        raise InvalidInput(f"expected a message of at most {MAX_VALUES} values")
    try:
        # Decoded here, since the decoder of JSON takes UTF-16 as well, and lets surrogates pass.
        text = body.decode()
        if _STRANGE.search(text):
            raise InvalidInput("expected JSON without surrogates and NUL")
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("expected a JSON document") from error


def object_of(value: object, what: str) -> Mapping[str, object]:
    """Return the fields of an object; raises InvalidInput."""
    if not isinstance(value, dict):
        raise InvalidInput(f"expected {what} to be a JSON object")
    return value


def text_of(fields: Mapping[str, object], name: str) -> str:
    """Return a field that holds text; raises InvalidInput."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise InvalidInput(f"expected {name!r} to be text")
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(text)
