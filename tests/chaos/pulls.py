"""What clients ask for, how they behave meanwhile, and what they got."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.digest import Digest, digest_of
from tests.chaos.world import NAMESPACES
from tests.support.wire_client import read_answer, read_head

if TYPE_CHECKING:
    from random import Random

    from tests.chaos.world import Known, World
    from tests.support.wire_client import Answer

_PIECE = 16_384
_SLOW_PAUSE = 0.004


class Kind(enum.StrEnum):
    """What a pull is of."""

    TAG = "manifest by tag"
    DIGEST = "manifest by digest"
    BLOB = "blob"
    RANGE = "part of a blob"
    TAGS = "tag list"
    REFERRERS = "referrers"


_KINDS = {Kind.TAG: 30, Kind.DIGEST: 15, Kind.BLOB: 30, Kind.RANGE: 10, Kind.TAGS: 8, Kind.REFERRERS: 7}


@dataclass(frozen=True)
class Pull:
    """One request of one client. `leaves_at` is the part of the body after which it leaves, None: it stays."""

    number: int
    kind: Kind
    known: Known
    reference: str
    method: str = "GET"
    span: tuple[int, int] | None = None
    leaves_at: float | None = None
    is_slow: bool = False
    by_namespace: bool = False

    @property
    def upstream_path(self) -> str:
        """The path at the upstream."""
        noun = {
            Kind.TAG: f"manifests/{self.reference}",
            Kind.DIGEST: f"manifests/{self.reference}",
            Kind.BLOB: f"blobs/{self.reference}",
            Kind.RANGE: f"blobs/{self.reference}",
            Kind.TAGS: "tags/list",
            Kind.REFERRERS: f"referrers/{self.reference}",
        }
        return f"/v2/{self.known.name}/{noun[self.kind]}"

    @property
    def target(self) -> str:
        """The path here, by the rule's prefix or as of a mirror."""
        if self.by_namespace:
            return f"{self.upstream_path}?ns={NAMESPACES[self.known.upstream]}"
        return f"/v2/{self.known.local}{self.upstream_path.removeprefix(f'/v2/{self.known.name}')}"

    @property
    def thing(self) -> tuple[str, str]:
        """What is asked for, whichever way."""
        return self.known.local, self.upstream_path

    @property
    def head(self) -> bytes:
        """The request."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: localhost", "Connection: close", "Accept: */*"]
        if self.span is not None:
            lines.append(f"Range: bytes={self.span[0]}-{self.span[1]}")
        return "\r\n".join([*lines, "", ""]).encode()

    def __str__(self) -> str:
        return f"pull {self.number}: {self.method} {self.target}" + (f" bytes {self.span}" if self.span else "")


@dataclass(frozen=True)
class Got:
    """What came back: None for a client that left. `seconds` are those until the answer began."""

    answer: Answer | None
    seconds: float


def choose(world: World, random: Random, number: int) -> Pull:
    """Return a pull by chance."""
    kind = random.choices(list(_KINDS), list(_KINDS.values()))[0]
    known = random.choice(world.known)
    method = "HEAD" if kind in {Kind.TAG, Kind.DIGEST, Kind.BLOB} and random.random() < 0.2 else "GET"
    reference, span = "", None
    missing = random.random() < 0.03
    if kind is Kind.TAG:
        reference = "no-such-tag" if missing else random.choice(sorted(known.tags))
    elif kind is Kind.DIGEST or kind is Kind.REFERRERS:
        reference = digest_of(b"missing") if missing else random.choice(sorted(known.manifests))
    elif kind in {Kind.BLOB, Kind.RANGE}:
        reference = digest_of(b"missing") if missing else random.choice(sorted(known.blobs))
    if kind is Kind.RANGE:
        size = 0 if missing else len(known.blobs[Digest(reference)])
        start = random.randrange(size + 2)
        span = start, random.randrange(start, size + 3)
    behaviour = random.random() if kind is Kind.BLOB and method == "GET" else 1.0
    return Pull(
        number,
        kind,
        known,
        reference,
        method,
        span,
        leaves_at=random.choice((0.01, 0.5, 0.99)) if behaviour < 0.15 else None,
        is_slow=0.15 <= behaviour < 0.25,
        by_namespace=random.random() < 0.15,
    )


async def carry_out(pull: Pull, port: int) -> Got:
    """Send a pull and return what came; raises ConnectionError when there was no answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    try:
        began = time.monotonic()
        writer.write(pull.head)
        await writer.drain()
        if pull.leaves_at is not None:
            await _leave(pull, reader)
            return Got(None, time.monotonic() - began)
        if not pull.is_slow:
            answer = await read_answer(reader, pull.method)
            return Got(answer, time.monotonic() - began)
        return await _read_slowly(reader, began)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _leave(pull: Pull, reader: asyncio.StreamReader) -> None:
    _, headers = await read_head(reader)
    left = int(int(headers.get("Content-Length", "0")) * (pull.leaves_at or 0.0))
    while left > 0 and (piece := await reader.read(min(left, _PIECE))):
        left -= len(piece)


async def _read_slowly(reader: asyncio.StreamReader, began: float) -> Got:
    slow = asyncio.StreamReader(limit=2**20)
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("the server closed the connection without an answer") from error
    seconds = time.monotonic() - began
    slow.feed_data(head)
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(_PIECE):
            slow.feed_data(piece)
            await asyncio.sleep(_SLOW_PAUSE)
    slow.feed_eof()
    return Got(await read_answer(slow), seconds)
