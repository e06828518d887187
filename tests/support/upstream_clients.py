"""Clients of fake upstreams that give up quickly."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from replicator.upstream.auth import ChallengeAuthorizer
from replicator.upstream.client import UpstreamClient
from replicator.upstream.endpoint import UpstreamEndpoint
from replicator.upstream.session import Session
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.abc import AbstractResolver

    from tests.support.upstreams import FakeServer


def endpoint_of(server: FakeServer, **options: Any) -> UpstreamEndpoint:
    """Return an endpoint for `server` with short timeouts; options are the endpoint's."""
    settings: dict[str, Any] = {
        "url": server.url,
        "connect_timeout": 2.0,
        "stall_timeout": 2.0,
        "total_timeout": 5.0,
        **options,
    }
    return UpstreamEndpoint("fake", **settings)


@asynccontextmanager
async def client_of(
    server: FakeServer,
    clock: FakeClock | None = None,
    *,
    resolver: AbstractResolver | None = None,
    outcomes: list[tuple[str, str]] | None = None,
    **options: Any,
) -> AsyncIterator[UpstreamClient]:
    """Open a client for `server` that answers challenges; options are the endpoint's, outcomes collect the metrics."""
    endpoint, clock = endpoint_of(server, **options), clock or FakeClock(auto=True)
    session = Session(endpoint, resolver)
    authorizer = ChallengeAuthorizer(endpoint, session, clock)
    observe = None if outcomes is None else lambda method, outcome: outcomes.append((method, outcome))
    client = UpstreamClient(endpoint, authorizer, clock, observe, session=session)
    try:
        yield client
    finally:
        await client.close()
