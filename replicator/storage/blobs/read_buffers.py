"""Buffers for reading files that are used again and again, but never while anybody may still look at one.

A fresh buffer for every piece costs as much as reading the piece does: the kernel has to find memory for it, and all of
it is zeroed. But a transport keeps a reference to what it could not send yet, and would send other bytes if they were
overwritten meanwhile. Python knows: it refuses to resize a `bytearray` as long as one view of it is left.
"""

from __future__ import annotations

from typing import Final

_KEPT: Final = 8
"""Buffers that stay. More readers than this at the same moment get buffers that go with their last view."""


class ReadBuffers:
    """Lends buffers of one size. Belongs to one thread; the views may be used and dropped by any."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: list[bytearray] = []

    def take(self, length: int) -> memoryview:
        """Return a writable view of `length` bytes, at most the size, that shares memory with no other live view."""
        for buffer in self._kept:
            if _is_free(buffer):
                return memoryview(buffer)[:length]
        if len(self._kept) == _KEPT:
            return memoryview(bytearray(length))
        buffer = bytearray(self._size)
        self._kept.append(buffer)
        return memoryview(buffer)[:length]


def _is_free(buffer: bytearray) -> bool:
    """Tell whether no view of a buffer is left, by resizing it there and back: that moves nothing."""
    try:
        last = buffer.pop()
    except BufferError:
        return False
    buffer.append(last)
    return True
