"""What becomes of the calls to one upstream, and whether another one is worth sending.

What counts against an upstream is that it does not answer, answers that it cannot, breaks off, or accepts none of our
credentials. What it says about one image, such as that there is none or that we may not have it, is an answer like any
other. A caller that leaves says nothing, unless it has waited for long while nobody got an answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.circuit_breaker import BreakerState, CircuitBreaker
from replicator.core.errors import UpstreamError, UpstreamNotFound, UpstreamUnavailable
from replicator.upstream.errors import CredentialsRefused, CutShort, NotAsked, Paused, UpstreamLoop
from replicator.upstream.insistence import is_insisting

if TYPE_CHECKING:
    from replicator.core.clock import Clock
    from replicator.upstream.endpoint import UpstreamEndpoint

SILENCE = 4.0
"""Seconds without an answer after which a caller that leaves does so because of the upstream."""


@dataclass(slots=True)
class Watch:
    """One call as it goes: when it was sent (monotonic seconds), and whether its answer began."""

    sent_at: float | None = None
    answered: bool = False


class Breaker:
    """The circuit breaker of one upstream, which stays closed where the endpoint wants none."""

    def __init__(self, endpoint: UpstreamEndpoint, clock: Clock) -> None:
        self.last_error: str | None = None
        """Why the last call failed that was sent; None when it did not."""
        self._name = endpoint.name
        self._reason = ""
        self._breaker = CircuitBreaker() if endpoint.breaker else None
        self._clock = clock

    @property
    def state(self) -> BreakerState:
        """How the breaker stands."""
        return BreakerState.CLOSED if self._breaker is None else self._breaker.state(self._clock.monotonic())

    def check(self) -> None:
        """Raise UpstreamUnavailable while the upstream is left alone, before anybody queues for it."""
        if self._breaker is not None and self.state is BreakerState.OPEN and not is_insisting():
            self._refuse(self._breaker, self._breaker.admit(self._clock.monotonic()))

    def sent(self, watch: Watch) -> None:
        """Admit a call and note that it goes out, or raise UpstreamUnavailable; one that is insisted on always may."""
        now = self._clock.monotonic()
        if self._breaker is not None and not is_insisting() and (wait := self._breaker.admit(now)):
            self._refuse(self._breaker, wait)
        watch.sent_at, watch.answered = now, False

    def answered(self, watch: Watch) -> None:
        """Note that an answer begins: whoever tries a broken upstream out has done so, long before a blob's end."""
        watch.answered = True
        if self._breaker is not None:
            self._breaker.leave()

    def ended(self, watch: Watch, error: BaseException | None) -> None:
        """Note how a call ended; one that was never sent is nobody's."""
        if watch.sent_at is None or isinstance(error, NotAsked | Paused):
            return
        if error is None or isinstance(error, UpstreamError):
            self.last_error = None if isinstance(error, UpstreamNotFound) or error is None else str(error)
        if self._breaker is None:
            return
        if self._is_failure(watch, error):
            self._reason = _reason(error)
            self._breaker.fail(self._clock.monotonic(), random.random())  # noqa: S311 - jitter, not a secret
        elif error is None or isinstance(error, UpstreamError):
            self._breaker.succeed()
        else:
            self._breaker.leave()

    def _is_failure(self, watch: Watch, error: BaseException | None) -> bool:
        if isinstance(error, UpstreamError):
            failed = isinstance(error, UpstreamUnavailable | CutShort | CredentialsRefused)
            return failed and not isinstance(error, UpstreamLoop)
        waited = 0.0 if watch.sent_at is None else self._clock.monotonic() - watch.sent_at
        return error is not None and not watch.answered and waited >= SILENCE

    def _refuse(self, breaker: CircuitBreaker, wait: float) -> None:
        text = f"{self._name}: not asked, it failed {breaker.failures} times in a row, last with: {self._reason}"
        raise NotAsked(text, retry_after=wait)


def _reason(error: BaseException | None) -> str:
    """Return what went wrong, without what was asked for: that is not for everybody who asks for something else."""
    return str(error).rpartition(": ")[2] if isinstance(error, UpstreamError) else "no answer in time"
