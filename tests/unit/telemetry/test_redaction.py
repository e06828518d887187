from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.config.secrets import Secret
from replicator.telemetry.redaction import REDACTED, Redactor, redact_keys

CANARY = 'can"ary\\5f2a/91+ü'


@pytest.mark.parametrize(
    "form",
    [
        CANARY,
        json.dumps(CANARY),
        json.dumps(CANARY, ensure_ascii=False),
        repr(CANARY),
        json.dumps(repr(CANARY)),
        quote(CANARY),
        quote(CANARY, safe=""),
        base64.b64encode(CANARY.encode()).decode(),
    ],
)
def test_a_known_secret_is_found_in_every_form(form: str) -> None:
    text = Redactor([Secret(CANARY)]).redact(f"before {form} after")
    assert form.strip("\"'") not in text
    assert "5f2a" not in text
    assert text.startswith("before ")
    assert text.endswith(" after")
    assert REDACTED in text


@given(st.text(min_size=4, max_size=30), st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_never_remains(secret: str, before: str, after: str) -> None:
    redacted = Redactor([Secret(secret)]).redact_known(before + secret + after)
    assert secret not in redacted.replace(REDACTED, "\x00")


def test_a_longer_secret_is_removed_whole() -> None:
    redactor = Redactor([Secret("hunter"), Secret("hunter2-long")])
    assert redactor.redact("x hunter2-long y") == f"x {REDACTED} y"


def test_a_secret_shaped_like_a_url_is_removed_whole() -> None:
    redactor = Redactor([Secret("postgresql://user:pass%40word@db/name?a=b@c")])
    assert redactor.redact("at postgresql://user:pass%40word@db/name?a=b@c now") == f"at {REDACTED} now"
    assert redactor.redact("password pass@word or pass%40word") == f"password {REDACTED} or {REDACTED}"


def test_a_very_short_secret_does_not_blank_the_log() -> None:
    assert Redactor([Secret("a")]).redact("a banana") == "a banana"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Basic dXNlcjpwYXNz", f"Authorization: Basic {REDACTED}"),
        ("sent bearer eyJhbGciOi.abc.def to", f"sent bearer {REDACTED} to"),
        ("GET https://user:pw@hub/v2/", f"GET https://{REDACTED}@hub/v2/"),
        ("postgresql://u:p%40@db:5432/x", f"postgresql://{REDACTED}@db:5432/x"),
        ("/b?X-Amz-Signature=abc123&x=1", f"/b?X-Amz-Signature={REDACTED}&x=1"),
        ("http://127.0.0.1:5001/v2/a@sha256:abc", "http://127.0.0.1:5001/v2/a@sha256:abc"),
        ("a basic idea", "a basic idea"),
    ],
)
def test_credentials_are_known_by_their_shape(text: str, expected: str) -> None:
    assert Redactor().redact(text) == expected


def test_values_are_hidden_by_their_keys_at_any_depth() -> None:
    fields = {
        "user": "ci",
        "password": "p",
        "headers": {"Authorization": "x", "Accept": "y", "deeper": {"Set-Cookie": 1}},
        "upload_token": 5,
    }
    assert redact_keys(fields) == {
        "user": "ci",
        "password": REDACTED,
        "headers": {"Authorization": REDACTED, "Accept": "y", "deeper": {"Set-Cookie": REDACTED}},
        "upload_token": REDACTED,
    }


def test_a_bottomless_mapping_is_not_followed() -> None:
    loop: dict[str, object] = {}
    loop["inside"] = loop
    assert REDACTED in repr(redact_keys(loop))
