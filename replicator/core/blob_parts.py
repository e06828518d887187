"""Which bytes of a blob a connection carries, when several carry one blob at the same time.

    start          step                step
    |--0--|--1--|--2--|--0--|--1--|--2--|--0--|-    three parts; part 1 is the stripes marked 1

The parts of one transfer are interleaved stripes, so that connections of equal speed keep close to each other and the
receiver, who stores bytes in order, holds back only what lies between the slowest and the fastest of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.byte_range import ByteRange
from replicator.core.errors import InvalidUpload

if TYPE_CHECKING:
    from collections.abc import Iterator

STRIPE = 2 * 1024 * 1024
"""Bytes of one stripe as we send them."""

MIN_STRIPE = 64 * 1024
"""Bytes of a stripe as we accept them: smaller ones would cost more than they carry."""


@dataclass(frozen=True, slots=True)
class BlobPart:
    """`length` bytes of a transfer that begins at `start`: the first stripe from `offset`, the next `step` later.

    Where `step` is zero, one range. Raises InvalidUpload when the numbers contradict each other.
    """

    start: int
    offset: int
    length: int
    stripe: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        if min(self.start, self.length, self.stripe, self.step) < 0 or self.offset < self.start:
            raise InvalidUpload("expected a part of a blob that begins where its transfer does, or after that")
        if self.step and not MIN_STRIPE <= self.stripe <= self.step:
            raise InvalidUpload(f"expected stripes of at least {MIN_STRIPE} bytes that do not overlap")

    @property
    def stop(self) -> int:
        """The offset after the last byte."""
        if not self.step or not self.length:
            return self.offset + self.length
        whole, rest = divmod(self.length - 1, self.stripe)
        return self.offset + whole * self.step + rest + 1

    def ranges(self) -> Iterator[ByteRange]:
        """Yield what the part consists of, in order."""
        if not self.step:
            yield ByteRange(self.offset, self.length)
            return
        for index, sent in enumerate(range(0, self.length, self.stripe)):
            yield ByteRange(self.offset + index * self.step, min(self.stripe, self.length - sent))

    def rest_from(self, frontier: int) -> BlobPart | None:
        """Return what is left when everything before `frontier` has arrived; of stripes, from a whole one on."""
        if frontier >= self.stop:
            return None
        if not self.step:
            done = max(0, frontier - self.offset)
            return BlobPart(min(frontier, self.offset + done), self.offset + done, self.length - done)
        stripes = max(0, (frontier - self.offset - self.stripe) // self.step + 1)
        offset = self.offset + stripes * self.step
        return BlobPart(min(frontier, offset), offset, self.length - stripes * self.stripe, self.stripe, self.step)


def whole_part(start: int, size: int) -> BlobPart:
    """Return what is left of a blob from `start`, as one range."""
    return BlobPart(start, start, size - start)


def interleaved(start: int, size: int, count: int, stripe: int = STRIPE) -> tuple[BlobPart, ...]:
    """Return what is left of a blob from `start`, in `count` parts, or one for each stripe where those are fewer."""
    step = count * stripe
    parts = []
    for offset in range(start, min(size, start + step), stripe):
        rounds, rest = divmod(size - offset, step)
        parts.append(BlobPart(start, offset, rounds * stripe + min(stripe, rest), stripe, step))
    return tuple(parts)
