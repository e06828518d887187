"""Where a fill gets its blob, and how far it may go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import UpstreamContent

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from replicator.upstream.body import BlobStream

OpenFrom = Callable[[int], "AbstractAsyncContextManager[BlobStream]"]
"""Opens a blob at an offset. It may start earlier; every wait in it, also between chunks, is bounded; it raises
UpstreamError."""


@dataclass(frozen=True, slots=True)
class FillSource:
    """Where a fill gets its blob.

    `registries` are asked in order. The last one is the authority: that it does not have the blob counts, and its bytes
    are what the digest is compared with in the end. `size` is what a manifest of the upstream says, if one does;
    another size is refused. `received` is told the length of each chunk. Nothing longer than `max_size` is accepted:
    an upstream that never ends would otherwise take the whole disk.
    """

    registries: Sequence[OpenFrom]
    size: int | None
    received: Callable[[int], None]
    max_size: int | None = None


@dataclass(frozen=True, slots=True)
class FillLimits:
    """How far fills may go.

    `total` seconds for one, without those in which it waits for its turn: at most `turn_wait`. The largest blob that is
    accepted (None: any), and `max_unstated` where neither a manifest nor the sender states a size. `at_once` fills are
    under way at the same time. What a failed fill leaves is kept for the next one of the same blob, for `kept_age`
    seconds, as long as it is among the `kept_count` latest and these have at most `kept_bytes`.
    """

    total: float = 6 * 3600.0
    max_blob_size: int | None = None
    max_unstated: int = 64 * 1024**3
    at_once: int = 64
    turn_wait: float = 300.0
    kept_count: int = 32
    kept_bytes: int = 4 * 1024**3
    kept_age: float = 3600.0


class UnusableBlob(UpstreamContent):
    """The upstream's blob is not the one asked for."""

    retryable = False
