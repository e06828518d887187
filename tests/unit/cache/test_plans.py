from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicator.cache.plans import due_after, plan_of, stretch_of
from replicator.cache.upstreams import UpstreamRepositories
from replicator.core.cache_rules import CacheRule, FreshnessProfile
from replicator.core.digest import digest_of
from replicator.core.freshness import FAILED_CHECK_PAUSE, PullPlan
from replicator.core.names import RepositoryName, Tag
from replicator.storage.metadata.cache_entries import CacheEntry
from replicator.upstream.client import open_client
from replicator.upstream.endpoint import UpstreamEndpoint
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.cache.upstreams import UpstreamRepository

HOUR = 3600.0
NOW = 1_750_000_000.0
RULE = CacheRule("hub", "hub", fresh_for=HOUR, stale_while_revalidate=HOUR, max_stale=10 * HOUR)
ENTRY = CacheEntry(RepositoryName("hub/app"), Tag("latest"), "hub", digest_of(b"x"), NOW, NOW, NOW, due_at=NOW + HOUR)


@pytest.fixture
async def source() -> AsyncIterator[UpstreamRepository]:
    client = open_client(UpstreamEndpoint("hub", "http://127.0.0.1:1"), FakeClock(NOW))
    found = UpstreamRepositories([RULE], {"hub": client}).find(ENTRY.repository)
    assert found is not None
    yield found
    await client.close()


@pytest.mark.parametrize(
    ("age", "plan"),
    [
        (0, PullPlan.FRESH),
        (HOUR, PullPlan.SERVE_AND_CHECK),
        (2 * HOUR, PullPlan.CHECK_FIRST),
        (10 * HOUR, PullPlan.REFUSE_STALE),
    ],
)
async def test_the_rule_decides(source: UpstreamRepository, age: float, plan: PullPlan) -> None:
    assert plan_of(source, ENTRY, NOW + age) is plan


@pytest.mark.parametrize(
    ("age", "failed_at", "plan"),
    [
        (0, None, PullPlan.CHECK_FIRST),
        (5.0, NOW, PullPlan.SERVE),
        # one failure does not make what another upstream had fresh
        (FAILED_CHECK_PAUSE, NOW, PullPlan.CHECK_FIRST),
        (HOUR, None, PullPlan.CHECK_FIRST),
        (10 * HOUR, None, PullPlan.REFUSE_STALE),
    ],
)
async def test_what_another_upstream_said_counts_for_little(
    source: UpstreamRepository, age: float, failed_at: float | None, plan: PullPlan
) -> None:
    entry = replace(ENTRY, upstream="former", failed_at=failed_at)
    assert plan_of(source, entry, NOW + age) is plan


@pytest.mark.parametrize(
    ("age", "failed_at", "plan"),
    [
        (99.0, None, PullPlan.FRESH),
        (100.0, None, PullPlan.SERVE_AND_CHECK),
        (100.0, NOW + 90.0, PullPlan.FRESH),
        (100.0 + FAILED_CHECK_PAUSE, NOW + 100.0, PullPlan.SERVE_AND_CHECK),
        (2 * HOUR, None, PullPlan.CHECK_FIRST),
    ],
)
async def test_what_is_held_back_is_looked_at_when_its_time_has_come(
    source: UpstreamRepository, age: float, failed_at: float | None, plan: PullPlan
) -> None:
    entry = replace(ENTRY, pending_digest=digest_of(b"new"), due_at=NOW + 100.0, failed_at=failed_at)
    assert plan_of(source, entry, NOW + age) is plan


@pytest.mark.parametrize(
    ("age", "failed_at", "plan"),
    [
        (HOUR, NOW + HOUR, PullPlan.SERVE),
        (2 * HOUR - 1, NOW + HOUR, PullPlan.SERVE),
        (3 * HOUR - 1, NOW + 2 * HOUR, PullPlan.SERVE),
        (3 * HOUR, NOW + 2 * HOUR, PullPlan.CHECK_FIRST),
        (HOUR, None, PullPlan.SERVE_AND_CHECK),
        (10 * HOUR, NOW + 10 * HOUR, PullPlan.REFUSE_STALE),
    ],
)
async def test_what_is_gone_is_asked_for_as_seldom_as_what_is_there(
    source: UpstreamRepository, age: float, failed_at: float | None, plan: PullPlan
) -> None:
    entry = replace(ENTRY, gone_at=NOW + HOUR, failed_at=failed_at)
    assert plan_of(source, entry, NOW + age) is plan


async def test_upstream_that_said_nothing_of_a_limit_is_not_spared(source: UpstreamRepository) -> None:
    assert stretch_of(source, NOW) == 1.0


def test_tags_are_due_by_their_profile() -> None:
    rule = replace(RULE, freshness=(FreshnessProfile(("latest",), 60.0),))
    assert due_after(rule, Tag("latest"), NOW) == NOW + 60.0
    assert due_after(rule, Tag("1.0"), NOW) == NOW + HOUR
