"""When an upstream wants no requests: it is believed to the full, and asked nothing of that kind until then.

Only an operator who insists has it asked all the same; its good answer ends all pauses.

An upstream that asks us to slow down without saying for how long is left alone for longer each time, until it gives an
answer again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from replicator.core.errors import UpstreamError, UpstreamThrottled
from replicator.core.retry import Backoff
from replicator.upstream.calls import BLOBS
from replicator.upstream.errors import NotAsked, Paused
from replicator.upstream.insistence import is_insisting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.clock import Clock

_UNSTATED = Backoff(initial=30.0, maximum=900.0)


@dataclass(slots=True)
class _Pause:
    until: float
    is_throttled: bool


class Pauses:
    """The pauses of one upstream, by kind of request."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._pauses: dict[str, _Pause] = {}
        self._unstated: dict[str, int] = {}

    @property
    def left(self) -> Mapping[str, float]:
        """The seconds that are left, by kind of request; what is not paused is not in it."""
        now = self._clock.monotonic()
        return {kind: pause.until - now for kind, pause in self._pauses.items() if pause.until > now}

    def check(self, kind: str) -> None:
        """Raise UpstreamThrottled, or UpstreamUnavailable, while the upstream wants no request of this kind."""
        pause = self._pauses.get(kind)
        left = 0.0 if pause is None else pause.until - self._clock.monotonic()
        if pause is None or left <= 0 or _is_insisted(kind):
            return
        if pause.is_throttled:
            raise Paused(f"{self._name}: asked us to slow down", retry_after=left)
        raise NotAsked(f"{self._name}: asked us to come back later", retry_after=left)

    def answered(self, kind: str) -> None:
        """Note an answer that does not ask us to slow down.

        It ends no pause, as answers overtake each other, unless somebody insisted on it.
        """
        self._unstated.pop(kind, None)
        if _is_insisted(kind):
            self._pauses.clear()

    def failed(self, kind: str, status: int, error: UpstreamError) -> None:
        """Note a failure: how long to pause for it, which is also written into `error` where nobody stated it."""
        throttled = isinstance(error, UpstreamThrottled)
        if not throttled:
            self._unstated.pop(kind, None)
        if not throttled and status != HTTPStatus.SERVICE_UNAVAILABLE:
            return
        if throttled and error.retry_after is None:
            error.retry_after = self.left.get(kind) or self._longer(kind)
        if error.retry_after:
            self._pause(kind, error.retry_after, is_throttled=throttled)

    def _longer(self, kind: str) -> float:
        times = self._unstated[kind] = self._unstated.get(kind, 0) + 1
        return _UNSTATED.delay(times, random.random())  # noqa: S311 - jitter, not a secret

    def _pause(self, kind: str, seconds: float, *, is_throttled: bool) -> None:
        until = self._clock.monotonic() + seconds
        current = self._pauses.get(kind)
        if current is None or current.until < until:  # answers overtake each other: the longest pause holds
            self._pauses[kind] = _Pause(until, is_throttled)


def _is_insisted(kind: str) -> bool:
    """Tell whether a question is insisted on; the downloads that follow from its answer are not."""
    return kind != BLOBS and is_insisting()
