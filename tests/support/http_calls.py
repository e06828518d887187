"""Plain HTTP for tests that are not coroutines: one request, one connection, no redirects followed."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TIMEOUT = 30.0


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:300]!r}>"


def call(
    method: str,
    url: str,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = TIMEOUT,
) -> Answer:
    """Send one request and return its whole answer; raises OSError or HTTPException when there is none."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def get(url: str, headers: Mapping[str, str] | None = None, *, timeout: float = TIMEOUT) -> Answer:
    """Send a GET."""
    return call("GET", url, headers=headers, timeout=timeout)


def basic(username: str, password: str) -> dict[str, str]:
    """Return the headers of Basic credentials."""
    pair = base64.b64encode(f"{username}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def sha256(content: bytes) -> str:
    """Return the digest of some bytes, as registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def push_blob(base: str, repository: str, content: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    """Push a blob in two requests to the registry at `http://host:port`; the last answer, 201 when it was taken."""
    started = call("POST", f"{base}/v2/{repository}/blobs/uploads/", headers=headers)
    if started.status != 202:
        return started
    location = started.headers["Location"]
    target = location if location.startswith("http") else base + location
    separator = "&" if "?" in target else "?"
    sent = {"Content-Type": "application/octet-stream", **(headers or {})}
    return call("PUT", f"{target}{separator}digest={sha256(content)}", content, sent)


def push_manifest(
    base: str,
    repository: str,
    reference: str,
    manifest: bytes,
    media_type: str,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Push a manifest; 201 when it was taken."""
    sent = {"Content-Type": media_type, **(headers or {})}
    return call("PUT", f"{base}/v2/{repository}/manifests/{reference}", manifest, sent)
