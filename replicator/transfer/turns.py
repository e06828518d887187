"""Who may work now: so many at once, those whom somebody waits for first, and no lane all of the places.

Background work gets at most half of the places, and one lane (an upstream) at most three quarters: one that hangs holds
nobody else up.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Turn:
    """One claim to a turn."""

    def __init__(self, lane: str, *, background: bool) -> None:
        self.lane = lane
        self.background = background
        self.granted = asyncio.Event()


class Turns:
    """Gives out `at_once` turns. Belongs to one event loop."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._background_at_once = max(1, at_once // 2)
        self._lane_at_once = max(1, at_once * 3 // 4)
        self._waiting: list[Turn] = []
        self._working: list[Turn] = []

    @asynccontextmanager
    async def held(self, turn: Turn) -> AsyncIterator[None]:
        """Wait for the turn and hold it. Whoever is cancelled while it waits gives its claim up."""
        self._waiting.append(turn)
        self._grant()
        try:
            await turn.granted.wait()
            yield
        finally:
            (self._working if turn.granted.is_set() else self._waiting).remove(turn)
            self._grant()

    def promote(self, turn: Turn) -> None:
        """Say that somebody waits for what was background work so far."""
        if turn.background:
            turn.background = False
            self._grant()

    def _grant(self) -> None:
        for turn in sorted(self._waiting, key=lambda waiting: waiting.background):
            if len(self._working) >= self._at_once:
                return
            if self._may_work(turn):
                self._waiting.remove(turn)
                self._working.append(turn)
                turn.granted.set()

    def _may_work(self, turn: Turn) -> bool:
        lanes = Counter(working.lane for working in self._working)
        in_background = sum(working.background for working in self._working)
        is_over = turn.background and in_background >= self._background_at_once
        return not is_over and lanes[turn.lane] < self._lane_at_once
