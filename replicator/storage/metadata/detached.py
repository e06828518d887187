"""Work that goes on when its caller leaves.

A plain `asyncio.shield` does that too, but has the loop complain of an error that came after the caller had left.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

T = TypeVar("T")


async def result_of(work: asyncio.Future[T]) -> T:
    """Wait for work and return its result; a cancelled caller leaves, and the work goes on."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        work.add_done_callback(_ignore)
        raise


def _ignore(work: asyncio.Future[Any]) -> None:
    """Look at an error that nobody waits for any more, so that it does not count as lost."""
    if not work.cancelled():
        work.exception()
