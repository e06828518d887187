"""A registry that misbehaves on request, and a client of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.clock import FakeClock
from tests.support.upstream_clients import client_of
from tests.support.upstreams import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.upstream.client import UpstreamClient


@pytest.fixture
async def upstream() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry
        # Whatever a test did, the client must have left every answer it did not want.
        await registry.idle()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto=True)


@pytest.fixture
async def client(upstream: FakeRegistry, clock: FakeClock) -> AsyncIterator[UpstreamClient]:
    async with client_of(upstream, clock) as opened:
        yield opened
