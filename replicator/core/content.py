"""Content that can be read: what the edges send, whether it lies in the store or is still arriving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.core.digest import Digest


class BlobContent(Protocol):
    """An open blob of known size. Use it as an async context manager; leaving closes it.

    A reader that gets all `size` bytes got the bytes of `digest`: content that is still arriving holds its last bytes
    back until the digest is verified.
    """

    digest: Digest
    size: int

    def read(self, start: int, length: int) -> AsyncIterator[bytes | memoryview]:
        """Yield `length` bytes from offset `start` in pieces. A piece is valid until the next one is asked for.

        Raises CorruptBlob when the store holds fewer bytes than it should, UpstreamError when a fill fails.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...
