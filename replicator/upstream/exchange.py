"""One call to an upstream: a connection slot, its turn, our Authorization, a second try where that is safe.

Every caller gets either an answer with a status it expects or an UpstreamError, and that at once while the upstream
wants no calls or is known to be broken. Retries here are short and few: one
after a connection that broke before the answer began, one after a 401 that brought new credentials. Longer ones
belong to jobs.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, NoReturn

import aiohttp
import tenacity

from replicator.core.errors import UpstreamUnavailable
from replicator.core.retry import Backoff
from replicator.upstream.body import read_some
from replicator.upstream.breaker import Breaker, Watch
from replicator.upstream.errors import failure, outcome_of, translated
from replicator.upstream.pauses import Pauses
from replicator.upstream.rate_limit import parse_rate_limit
from replicator.upstream.session import Outgoing, Session, finish

if TYPE_CHECKING:
    from replicator.core.clock import Clock
    from replicator.core.rate_budget import RateLimit
    from replicator.upstream.auth import Authorizer
    from replicator.upstream.calls import Call
    from replicator.upstream.endpoint import UpstreamEndpoint
    from replicator.upstream.limits import UpstreamLimits

Observe = Callable[[str, str], None]

_MAX_ERROR_BODY = 16 * 1024
_ATTEMPTS = 2
_REPEATED_BY_TRANSPORT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""Methods that aiohttp itself sends once more after a broken connection (RFC 9110 §9.2.2), if the body allows it."""
_BACKOFF = Backoff(initial=0.1, maximum=1.0)


class Exchange:
    """Sends calls to one upstream."""

    def __init__(
        self,
        endpoint: UpstreamEndpoint,
        authorizer: Authorizer,
        session: Session,
        limits: UpstreamLimits,
        clock: Clock,
        observe: Observe | None,
    ) -> None:
        self.rate_limit: RateLimit | None = None
        self.pauses = Pauses(endpoint.name, clock)
        self.breaker = Breaker(endpoint, clock)
        self._total_timeout = endpoint.total_timeout
        self._authorizer = authorizer
        self._session = session
        self._limits = limits
        self._clock = clock
        self._observe = observe

    @asynccontextmanager
    async def small(self, call: Call, *expected: int) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a call that ends, its body included, within the total timeout. Raises UpstreamError only."""
        with self.watched(call.method) as watch, translated(call.what):
            async with asyncio.timeout(self._total_timeout), self.open(call, watch, *expected) as response:
                yield response

    @asynccontextmanager
    async def open(self, call: Call, watch: Watch, *expected: int) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a call and give its answer, whose status is one of `expected`; leaving early closes the connection.

        `watch` comes from `watched`. Raises UpstreamError for any other status, and without sending anything while the
        upstream wants no calls of this kind or is left alone. Failures of the transport pass through, for
        `errors.translated`.
        """
        self.breaker.check()
        self.pauses.check(call.kind)
        async with self._limits.slot():
            self.pauses.check(call.kind)  # what those said who went before may have changed it
            self.breaker.sent(watch)
            response = await self._authorized(call)
            try:
                self.breaker.answered(watch)
                self.rate_limit = parse_rate_limit(response.headers, self._clock.now()) or self.rate_limit
                if response.status not in expected:
                    await self._fail(call, response)
                self.pauses.answered(call.kind)
                yield response
            finally:
                finish(response)

    @contextmanager
    def watched(self, method: str) -> Iterator[Watch]:
        """Watch the call that the block makes: its outcome is reported, and counts for the upstream or against it."""
        watch = Watch()
        try:
            yield watch
        except BaseException as error:
            self._ended(method, watch, error)
            raise
        self._ended(method, watch, None)

    def _ended(self, method: str, watch: Watch, error: BaseException | None) -> None:
        self.breaker.ended(watch, error)
        if self._observe is not None:
            self._observe(method, "ok" if error is None else outcome_of(error))

    async def _fail(self, call: Call, response: aiohttp.ClientResponse) -> NoReturn:
        content = b"" if response.method == "HEAD" else await read_some(response, _MAX_ERROR_BODY)
        error = failure(call.what, response.status, response.headers, content, self._clock.now)
        self.pauses.failed(call.kind, response.status, error)
        raise error

    async def _authorized(self, call: Call) -> aiohttp.ClientResponse:
        """Return the answer, to a second sending where the first one's 401 brought new credentials."""
        authorization = await self._authorization(call)
        response = await self._sent(call, authorization)
        if response.status != HTTPStatus.UNAUTHORIZED:
            return response
        try:
            again = await self._authorizer.challenged(
                call.repository,
                call.actions,
                _challenge(response),
                mount_from=call.mount_from,
                refused=authorization,
            )
        except BaseException:
            finish(response)
            raise
        if not again:
            return response
        finish(response)
        if not call.repeatable:
            raise UpstreamUnavailable(f"{call.what}: the token expired before the content was accepted")
        return await self._sent(call, await self._authorization(call))

    async def _authorization(self, call: Call) -> Mapping[str, str]:
        return await self._authorizer.headers(call.repository, call.actions, mount_from=call.mount_from)

    async def _sent(self, call: Call, authorization: Mapping[str, str]) -> aiohttp.ClientResponse:
        outgoing = Outgoing(
            call.method, call.url, call.headers, authorization, call.body, answer_timeout=call.answer_timeout
        )
        if not call.repeatable or call.method in _REPEATED_BY_TRANSPORT:
            return await self._attempt(outgoing)
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=_wait,
            retry=tenacity.retry_if_exception(_broke_before_answer),
            sleep=self._clock.sleep,
            reraise=True,
        )
        return await retrying(self._attempt, outgoing)

    async def _attempt(self, outgoing: Outgoing) -> aiohttp.ClientResponse:
        await self._limits.request()
        return await self._session.send(outgoing)


def _challenge(response: aiohttp.ClientResponse) -> str:
    """Return the challenge to answer: the first Bearer one, else the first."""
    challenges = response.headers.getall("WWW-Authenticate", [])
    bearer = (header for header in challenges if header.lstrip()[:7].lower() == "bearer ")
    return next(bearer, challenges[0] if challenges else "")


def _broke_before_answer(error: BaseException) -> bool:
    """Tell whether an established connection was lost before the answer began; a refused one would be refused again."""
    broken = isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
    return broken and not isinstance(error, aiohttp.ClientConnectorError | TimeoutError)


def _wait(state: tenacity.RetryCallState) -> float:
    return _BACKOFF.delay(state.attempt_number, random.random())  # noqa: S311 - jitter, not a secret
