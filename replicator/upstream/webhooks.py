"""Posting messages to somebody's webhook: one try, and what it means.

An answer counts when it is 2xx; no redirect is followed, because what we send carries secrets that are for one address.
Where the address may lead is guarded as for upstreams. Errors say the sink's name and the reason, never the URL's path
or query, which is the whole secret of many webhooks, and never a header or the answer's text.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from yarl import URL

from replicator.core.errors import ConfigurationError, UpstreamError
from replicator.core.webhook_signature import signature_headers
from replicator.upstream.body import read_some
from replicator.upstream.endpoint import UpstreamEndpoint
from replicator.upstream.errors import failure, translated
from replicator.upstream.session import Outgoing, Session, finish

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aiohttp.abc import AbstractResolver

    from replicator.core.clock import Clock
    from replicator.upstream.addresses import Network

_MAX_ANSWER = 16 * 1024
_DOWN = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Answers that concern every message, not this one."""


class MessageRefused(UpstreamError):
    """the receiver does not accept this message; it may accept others, or this one later."""

    retryable = True


class ReceiverGone(UpstreamError):
    """the receiver answers 410: it wants this message never again."""


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A webhook. `keys` sign what is sent to it, `headers` go with it; neither is ever shown. `timeout` is seconds.

    `networks` are the kinds of network that its name may lead to; None allows any.
    """

    name: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    ca_file: Path | None = None
    timeout: float = 10.0
    networks: frozenset[Network] | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: `id` is the same at every try."""

    id: str
    content_type: str
    body: bytes = field(repr=False)


class WebhookClient:
    """Posts to one webhook. Close it when done. Raises ConfigurationError for a URL that cannot be one."""

    def __init__(self, endpoint: WebhookEndpoint, clock: Clock, resolver: AbstractResolver | None = None) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._url = _parsed(endpoint)
        connection = UpstreamEndpoint(
            endpoint.name,
            str(self._url.origin()),
            ca_file=endpoint.ca_file,
            connect_timeout=endpoint.timeout,
            stall_timeout=endpoint.timeout,
            total_timeout=endpoint.timeout,
            networks=endpoint.networks,
        )
        self._session = Session(connection, resolver)

    async def post(self, message: Message) -> None:
        """Send a message once, and return when its receiver has accepted it.

        Raises ReceiverGone, MessageRefused for an answer that is about this message, and any other UpstreamError when
        the receiver cannot take messages now. Cancelling it closes the connection; the receiver may have it then.
        """
        what = f"sink {self._endpoint.name}"
        timestamp = int(self._clock.now())
        headers = {
            **self._endpoint.headers,
            **signature_headers(self._endpoint.keys, message.id, timestamp, message.body),
            "Content-Type": message.content_type,
        }
        with translated(what):
            async with asyncio.timeout(self._endpoint.timeout):
                response = await self._session.send(Outgoing("POST", self._url, headers, body=message.body))
                try:
                    await read_some(response, _MAX_ANSWER)
                    self._judge(what, response.status, response.headers)
                finally:
                    finish(response)

    def _judge(self, what: str, status: int, headers: Mapping[str, str]) -> None:
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return
        error = failure(what, status, headers, b"", self._clock.now)
        if status == HTTPStatus.GONE:
            raise ReceiverGone(str(error))
        if status in _DOWN:
            raise error
        raise MessageRefused(str(error), retry_after=error.retry_after)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


def _parsed(endpoint: WebhookEndpoint) -> URL:
    try:
        url = URL(endpoint.url)
        ok = url.scheme in {"http", "https"} and bool(url.host) and url.user is None and not url.fragment
    except ValueError:
        ok, url = False, URL()
    if not ok:
        raise ConfigurationError(f"sink {endpoint.name}: expected an http or https URL without a user")
    return url
