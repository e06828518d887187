from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicator.cache import upstreams
from replicator.cache.upstreams import UpstreamRepositories
from replicator.core.cache_rules import ROOT, CacheRule
from replicator.core.errors import ConfigurationError
from replicator.core.names import RepositoryName
from replicator.upstream.client import open_client
from replicator.upstream.endpoint import UpstreamEndpoint
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.upstream.client import UpstreamClient


@pytest.fixture
async def client() -> AsyncIterator[UpstreamClient]:
    client = open_client(UpstreamEndpoint("hub", "http://127.0.0.1:1"), FakeClock())
    yield client
    await client.close()


async def test_rule_names_the_upstream_repository(client: UpstreamClient) -> None:
    rule = CacheRule("docker-hub", "hub")
    found = UpstreamRepositories([rule], {"hub": client}).find(RepositoryName("docker-hub/library/nginx"))
    assert found is not None
    assert (found.rule, found.sources.clients, found.name) == (rule, (client,), "library/nginx")
    assert not found.is_catch_all


async def test_repository_without_a_rule_has_no_upstream(client: UpstreamClient) -> None:
    repositories = UpstreamRepositories([CacheRule("docker-hub", "hub")], {"hub": client})
    for name in ("team/app", "docker-hub", "docker-hubs/x"):
        assert repositories.find(RepositoryName(name)) is None
        assert repositories.find(RepositoryName(name)) is None


async def test_catch_all_rule_is_known_as_one(client: UpstreamClient) -> None:
    found = UpstreamRepositories([CacheRule(ROOT, "hub")], {"hub": client}).find(RepositoryName("library/nginx"))
    assert found is not None
    assert found.is_catch_all


async def test_rule_without_its_upstream_is_refused(client: UpstreamClient) -> None:
    with pytest.raises(ConfigurationError, match="quay"):
        UpstreamRepositories([CacheRule("quay", "quay")], {"hub": client})


async def test_memory_of_matches_is_bounded(client: UpstreamClient) -> None:
    repositories = UpstreamRepositories([CacheRule("hub", "hub")], {"hub": client})
    for number in range(upstreams._REMEMBERED + 100):
        repositories.find(RepositoryName(f"hub/app{number}"))
    assert len(repositories._found) == upstreams._REMEMBERED
    assert repositories.find(RepositoryName("hub/app0")) is not None
