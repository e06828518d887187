"""What most tests of a cache start from: an upstream, a clock that moves by itself, and a node that pulls through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.clock import FakeClock
from tests.support.pull_through_node import CachingNode, caching_node
from tests.support.upstreams import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto=True)


@pytest.fixture
async def upstream() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as upstream:
        yield upstream


@pytest.fixture
async def node(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> AsyncIterator[CachingNode]:
    async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
        yield node
