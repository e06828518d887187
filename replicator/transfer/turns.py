"""Who may work now: so many at once, those whom somebody waits for first, and no lane all of the places.

Background work gets at most half of the places, and one lane (an upstream) at most three quarters: one that hangs holds
nobody else up. Anybody who may pull can have any number of claims wait, so what it costs to give out a turn depends on
the number of lanes and not on how many wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_Lane = tuple[bool, str]


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
        self._arrivals = count()
        self._waiting: dict[_Lane, OrderedDict[Turn, int]] = {}
        """Claims with their numbers, by whether nobody waits for them and by lane; in order, and never empty."""
        self._working: set[Turn] = set()
        self._by_lane: Counter[str] = Counter()
        self._in_background = 0

    @asynccontextmanager
    async def held(self, turn: Turn) -> AsyncIterator[None]:
        """Wait for the turn and hold it. Whoever is cancelled while it waits gives its claim up."""
        self._enter(turn)
        self._grant()
        try:
            await turn.granted.wait()
            yield
        finally:
            if turn.granted.is_set():
                self._end(turn)
            else:
                self._leave(turn)
            self._grant()

    def promote(self, turn: Turn) -> None:
        """Say that somebody waits for what was background work so far; it goes behind others that somebody waits for.

        A claim that was not made yet, or is over, is changed as well.
        """
        if not turn.background:
            return
        waits = turn in self._waiting.get((True, turn.lane), ())
        if waits:
            self._leave(turn)
        self._in_background -= turn in self._working
        turn.background = False
        if waits:
            self._enter(turn)
        self._grant()

    def _enter(self, turn: Turn) -> None:
        self._waiting.setdefault((turn.background, turn.lane), OrderedDict())[turn] = next(self._arrivals)

    def _leave(self, turn: Turn) -> None:
        lane = (turn.background, turn.lane)
        del self._waiting[lane][turn]
        if not self._waiting[lane]:
            del self._waiting[lane]

    def _end(self, turn: Turn) -> None:
        self._working.remove(turn)
        self._by_lane[turn.lane] -= 1
        if not self._by_lane[turn.lane]:
            del self._by_lane[turn.lane]
        self._in_background -= turn.background

    def _grant(self) -> None:
        while len(self._working) < self._at_once:
            turn = self._next()
            if turn is None:
                return
            self._leave(turn)
            self._working.add(turn)
            self._by_lane[turn.lane] += 1
            self._in_background += turn.background
            turn.granted.set()

    def _next(self) -> Turn | None:
        """Return whose turn it is: the first that may work, of those whom somebody waits for if there is one."""
        firsts = (
            (background, *next(iter(self._waiting[background, lane].items())))
            for background, lane in self._waiting
            if self._may_work(lane, background=background)
        )
        found = min(firsts, key=lambda first: (first[0], first[2]), default=None)
        return None if found is None else found[1]

    def _may_work(self, lane: str, *, background: bool) -> bool:
        is_over = background and self._in_background >= self._background_at_once
        return not is_over and self._by_lane[lane] < self._lane_at_once
