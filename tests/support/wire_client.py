"""An HTTP/1.1 client that sends exactly the bytes a test asks for, and shares no code with the server under test.

Nothing is normalised on the way out: a path with `..`, two Content-Lengths or a bare line feed reach the server as they
are.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode

from multidict import CIMultiDict, CIMultiDictProxy

from replicator.core.digest import Digest, digest_of

_LIMIT = 2**20
BLOB_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Answer:
    """What came back for one request. `whole` is false when the connection ended before the body did."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    whole: bool = True

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    @property
    def location(self) -> str:
        """The Location header; must be there."""
        return self.headers["Location"]

    @property
    def codes(self) -> list[str]:
        """The specification's error codes in the body."""
        return [entry["code"] for entry in self.json()["errors"]]

    def __repr__(self) -> str:
        return f"<{self.status} {dict(self.headers)} {self.body[:300]!r}>"


class WireClient:
    """Talks to one server as one caller, over one connection while the server keeps it."""

    def __init__(self, port: int, headers: Mapping[str, str] | None = None) -> None:
        self.port = port
        self.headers = dict(headers or {})
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(
        self,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        chunks: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        **query: str | int | list[str],
    ) -> Answer:
        """Send a request and return its answer. `chunks` are sent with chunked encoding, `body` with its length."""
        if query:
            target += ("&" if "?" in target else "?") + urlencode(query, doseq=True)
        lines = {"Host": f"127.0.0.1:{self.port}", **self.headers}
        extra = list(headers.items() if isinstance(headers, Mapping) else headers)
        if chunks is not None:
            extra.append(("Transfer-Encoding", "chunked"))
        elif body is not None or method in {"POST", "PUT", "PATCH"}:
            extra.append(("Content-Length", str(len(body or b""))))
        named = {name.lower() for name, _ in extra}
        head = [f"{method} {target} HTTP/1.1"]
        head += [f"{name}: {value}" for name, value in lines.items() if name.lower() not in named]
        head += [f"{name}: {value}" for name, value in extra]
        data = "\r\n".join([*head, "", ""]).encode("latin-1", "surrogateescape")
        parts = [data, body or b""] if chunks is None else [data, *_chunked(chunks)]
        return await self._exchange(parts, method)

    async def _exchange(self, parts: Sequence[bytes], method: str) -> Answer:
        reader, writer = await self._connected()
        with contextlib.suppress(ConnectionError):  # the server may answer before it has read everything
            for part in parts:
                writer.write(part)
                await writer.drain()
        answer = await read_answer(reader, method)
        if not answer.whole or answer.headers.get("Connection", "").lower() == "close":
            await self.close()
        return answer

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None and self._streams[0].at_eof():
            await self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port, limit=_LIMIT)
        return self._streams

    async def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # What almost every test of a registry needs.

    async def get(self, target: str, **options: Any) -> Answer:
        return await self.send("GET", target, **options)

    async def head(self, target: str, **options: Any) -> Answer:
        return await self.send("HEAD", target, **options)

    async def delete(self, target: str, **options: Any) -> Answer:
        return await self.send("DELETE", target, **options)

    async def start_upload(self, repository: str) -> str:
        """Open an upload session and return its location."""
        answer = await self.send("POST", f"/v2/{repository}/blobs/uploads/")
        assert answer.status == 202, answer
        return answer.location

    async def push_blob(self, repository: str, content: bytes, algorithm: str = "sha256") -> Digest:
        """Push a blob in one request and return its digest."""
        digest = digest_of(content, algorithm)
        answer = await self.send("POST", f"/v2/{repository}/blobs/uploads/", body=content, digest=digest)
        assert answer.status == 201, answer
        return digest

    async def push_manifest(
        self, repository: str, reference: str, content: bytes, media_type: str | None = None
    ) -> Answer:
        """Put a manifest under a reference, by default with the media type it states itself."""
        media_type = media_type or json.loads(content)["mediaType"]
        return await self.send(
            "PUT", f"/v2/{repository}/manifests/{reference}", body=content, headers={"Content-Type": media_type}
        )


def basic(name: str, password: str) -> dict[str, str]:
    """Return the headers of a caller with a password."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    """Return the headers of a caller with a token."""
    return {"Authorization": f"Bearer {token}"}


async def read_answer(reader: asyncio.StreamReader, method: str = "GET") -> Answer:
    """Read one final answer; interim ones (1xx) are passed over. Raises ConnectionError when there is none."""
    while True:
        status, headers = await read_head(reader)
        if status >= 200:
            break
    body, whole = b"", True
    if method != "HEAD" and status not in {204, 304}:
        body, whole = await _read_body(reader, headers)
    return Answer(status, CIMultiDictProxy(headers), body, whole)


async def read_head(reader: asyncio.StreamReader) -> tuple[int, CIMultiDict[str]]:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("the server closed the connection without an answer") from error
    first, *lines = head.rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split()[1]), CIMultiDict((name.strip(), value.strip()) for name, _, value in pairs)


async def _read_body(reader: asyncio.StreamReader, headers: CIMultiDict[str]) -> tuple[bytes, bool]:
    if "chunked" in headers.get("Transfer-Encoding", ""):
        return await _read_chunked(reader)
    if "Content-Length" not in headers:
        return await reader.read(), True
    length = int(headers["Content-Length"])
    try:
        return await reader.readexactly(length), True
    except asyncio.IncompleteReadError as error:
        return error.partial, False
    except ConnectionError:
        return b"", False


async def _read_chunked(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    parts = []
    try:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readexactly(2)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b"".join(parts), False
    return b"".join(parts), True


def _chunked(chunks: Iterable[bytes]) -> list[bytes]:
    return [*(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks), b"0\r\n\r\n"]


async def exchange(port: int, data: bytes) -> list[Answer]:
    """Send raw bytes on a connection of their own and return every answer until the server closes it.

    A server that keeps the connection is asked `GET /v2/` and to close it; that answer ends the list. Raises
    TimeoutError when the server does neither answer nor close.
    """
    answers = []
    method = data.partition(b" ")[0].decode("latin-1")
    async with asyncio.timeout(15), _connection(port) as (reader, writer):
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(ConnectionError):
            answers.append(await read_answer(reader, method))
            writer.write(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            await writer.drain()
            while True:
                answers.append(await read_answer(reader))
    return answers


@contextlib.asynccontextmanager
async def _connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LIMIT)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
