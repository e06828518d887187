"""Which blobs are being read, so that nobody takes them away from under a reader.

A blob that still arrives counts as well: whoever follows it reads the stored copy at the end.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest


class Readings:
    """Counts the open readers of each blob."""

    def __init__(self) -> None:
        self._readers: Counter[Digest] = Counter()

    def count(self, content: BlobContent) -> BlobContent:
        """Return content that counts as being read until it is closed."""
        self._readers[content.digest] += 1
        return _Counted(content, self)

    @contextmanager
    def expected(self, digest: Digest) -> Iterator[None]:
        """Count whoever is about to read a blob, so that it is not taken away before it is open."""
        self._readers[digest] += 1
        try:
            yield
        finally:
            self.over(digest)

    def is_read(self, digest: Digest) -> bool:
        """Tell whether somebody reads a blob, or is about to. Any thread may ask."""
        return digest in self._readers

    def over(self, digest: Digest) -> None:
        """Note that one reader has closed a blob."""
        self._readers[digest] -= 1
        if not self._readers[digest]:
            del self._readers[digest]


class _Counted:
    """`BlobContent` that tells when it is closed. Pieces come straight from the content, at no cost."""

    def __init__(self, content: BlobContent, readings: Readings) -> None:
        self.digest = content.digest
        self.size = content.size
        self._content = content
        self._readings = readings
        self._is_open = True

    def read(self, start: int, length: int) -> AsyncIterator[bytes | memoryview]:
        """Yield `length` bytes from `start`; see BlobContent."""
        return self._content.read(start, length)

    async def __aenter__(self) -> Self:
        await self._content.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._is_open:
            self._is_open = False
            self._readings.over(self.digest)
        await self._content.__aexit__(*exc_info)
