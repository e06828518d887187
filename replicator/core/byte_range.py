"""Byte ranges of a request, and the ranges an upload session speaks in.

RFC 9110 §14 for `Range` and `Content-Range`; the upload session's own dialect (`0-499`, no unit) is the distribution
specification's ("Pushing a blob in chunks").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from replicator.core.errors import InvalidUpload, RangeNotSatisfiable

_SINGLE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII)
_CHUNK = re.compile(r"(?:bytes[ =])?\s*(\d{1,19})-(\d{1,19})(?:/(?:\d{1,19}|\*))?", re.ASCII)
_MAX_DIGITS = 19


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length` bytes from offset `start`."""

    start: int
    length: int

    @property
    def stop(self) -> int:
        """The offset after the last byte."""
        return self.start + self.length

    def after(self, count: int) -> ByteRange | None:
        """Return what follows the first `count` bytes, or None when nothing does."""
        return ByteRange(self.start + count, self.length - count) if count < self.length else None

    def content_range(self, size: int) -> str:
        """Return the Content-Range value for content of `size` bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def parse_range(header: str, size: int) -> ByteRange | None:
    """Return the part of `size` bytes that a Range header asks for, or None when the whole is to be sent.

    A unit other than bytes, a malformed header and a request for several ranges are answered with the whole content, as
    RFC 9110 §14.2 permits. A range that ends before it starts, or lies outside the content, raises RangeNotSatisfiable.
    """
    match = _SINGLE.fullmatch(header)
    if match is None or any(len(group) > _MAX_DIGITS for group in match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return _suffix(last, size) if last else None
    start, stop = int(first), min(int(last) + 1, size) if last else size
    if start >= stop:
        raise RangeNotSatisfiable(f"the range lies outside the {size} bytes of the content", size=size)
    return ByteRange(start, stop - start)


def _suffix(last: str, size: int) -> ByteRange:
    length = min(int(last), size)
    if length == 0:
        raise RangeNotSatisfiable(f"the range lies outside the {size} bytes of the content", size=size)
    return ByteRange(size - length, length)


def parse_chunk_range(header: str) -> ByteRange:
    """Return the place of a chunk from its Content-Range (`<start>-<end>`, end included).

    Raises InvalidUpload when it is malformed or ends before it starts.
    """
    match = _CHUNK.fullmatch(header.strip())
    if match is None:
        raise InvalidUpload(f"expected Content-Range: <first byte>-<last byte>, got {header[:80]!r}")
    start, last = int(match[1]), int(match[2])
    if last < start:
        raise InvalidUpload(f"expected a Content-Range that ends after it starts, got {header[:80]!r}")
    return ByteRange(start, last - start + 1)


def session_range(offset: int) -> str:
    """Return the Range value of an upload session that holds `offset` bytes; `0-0` also when it holds none."""
    return f"0-{max(offset - 1, 0)}"
