from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicator.cache.negative import NegativeMemory
from replicator.cache.upstreams import UpstreamRepositories
from replicator.core.cache_rules import CacheRule
from replicator.core.digest import digest_of
from replicator.core.errors import ManifestNotFound, UpstreamContent
from replicator.core.names import RepositoryName, Tag
from replicator.upstream.client import open_client
from replicator.upstream.endpoint import UpstreamEndpoint
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.cache.upstreams import UpstreamRepository

APP, OTHER = RepositoryName("hub/app"), RepositoryName("hub/other")
LATEST = Tag("latest")
RULE = CacheRule("hub", "hub", negative_for=30.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def sources(clock: FakeClock) -> AsyncIterator[UpstreamRepositories]:
    client = open_client(UpstreamEndpoint("hub", "http://127.0.0.1:1"), clock)
    yield UpstreamRepositories([RULE], {"hub": client})
    await client.close()


def source_of(sources: UpstreamRepositories, repository: RepositoryName = APP) -> UpstreamRepository:
    found = sources.find(repository)
    assert found is not None
    return found


def test_nothing_is_known_at_first(clock: FakeClock) -> None:
    assert NegativeMemory(clock).find(APP, LATEST) is None


def test_failure_is_remembered_for_as_long_as_the_rule_says(sources: UpstreamRepositories, clock: FakeClock) -> None:
    memory = NegativeMemory(clock)
    memory.keep(source_of(sources), LATEST, ManifestNotFound("the upstream has none"))
    clock.advance(29.9)
    found = memory.find(APP, LATEST)
    assert isinstance(found, ManifestNotFound)
    assert (str(found), found.retry_after) == ("the upstream has none", None)
    assert memory.find(APP, Tag("other")) is None
    assert memory.find(OTHER, LATEST) is None
    clock.advance(0.1)
    assert memory.find(APP, LATEST) is None


def test_wall_clock_that_is_set_means_nothing(sources: UpstreamRepositories, clock: FakeClock) -> None:
    memory = NegativeMemory(clock)
    memory.keep(source_of(sources), LATEST, ManifestNotFound())
    clock.set_wall_clock(5.0)
    assert memory.find(APP, LATEST) is not None


def test_garbage_may_be_asked_for_again_when_it_is_forgotten(sources: UpstreamRepositories, clock: FakeClock) -> None:
    memory = NegativeMemory(clock)
    memory.keep(source_of(sources), LATEST, UpstreamContent("hub: no manifest"))
    clock.advance(10.0)
    found = memory.find(APP, LATEST)
    assert isinstance(found, UpstreamContent)
    assert found.retry_after == 20.0
    assert memory.find(APP, LATEST) is not found


def test_nothing_is_remembered_where_the_rule_says_so(sources: UpstreamRepositories, clock: FakeClock) -> None:
    memory = NegativeMemory(clock)
    source = replace(source_of(sources), rule=replace(RULE, negative_for=0.0))
    memory.keep(source, LATEST, ManifestNotFound())
    assert memory.find(APP, LATEST) is None


def test_what_is_oldest_is_dropped(sources: UpstreamRepositories, clock: FakeClock) -> None:
    memory = NegativeMemory(clock, capacity=2)
    for tag in ("a", "b", "a", "c"):
        memory.keep(source_of(sources), Tag(tag), ManifestNotFound())
    assert [memory.find(APP, Tag(tag)) is not None for tag in ("a", "b", "c")] == [True, False, True]


def test_long_texts_are_cut(sources: UpstreamRepositories, clock: FakeClock) -> None:
    memory = NegativeMemory(clock)
    memory.keep(source_of(sources), LATEST, UpstreamContent("x" * 100_000))
    assert len(str(memory.find(APP, LATEST))) == 500


def test_operators_make_it_forget(sources: UpstreamRepositories, clock: FakeClock) -> None:
    memory, digest = NegativeMemory(clock), digest_of(b"image")
    for repository in (APP, OTHER):
        for reference in (LATEST, digest):
            memory.keep(source_of(sources, repository), reference, ManifestNotFound())
    memory.forget(APP, LATEST)
    memory.forget(APP, Tag("unknown"))
    assert memory.find(APP, LATEST) is None
    assert memory.find(APP, digest) is not None
    memory.forget(APP)
    assert memory.find(APP, digest) is None
    assert memory.find(OTHER, LATEST) is not None
