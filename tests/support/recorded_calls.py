"""What doubles of destinations have in common: they note what is asked of them, and a test can step in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class RecordedCalls:
    """`calls` are what was asked, in order. A test may have a call wait (`hold`), or fail (`before_call`)."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.before_call: Callable[[str], None] = lambda _: None
        self.hold: Callable[[str], Awaitable[None]] = _go_on

    def count(self, verb: str) -> int:
        """Return how many calls of a kind there were."""
        return sum(call.startswith(verb) for call in self.calls)

    async def called(self, call: str) -> None:
        """Note a call, and let a test do what it will with it."""
        self.calls.append(call)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)  # lets the others run, as a request would
            await self.hold(call)
            self.before_call(call)
        finally:
            self.at_once -= 1


async def _go_on(_: str) -> None:
    return None
