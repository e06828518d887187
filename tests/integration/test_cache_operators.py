"""What operators see of a cache and do with it: lists, explanations, checks, images fetched ahead of their pulls."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from replicator.cache import warm_images
from replicator.cache.check_outcome import CheckOutcome
from replicator.cache.space import CacheSpace
from replicator.cache.warm_images import WarmState
from replicator.config.units import duration_or_any
from replicator.core.cache_rules import FreshnessProfile
from replicator.core.errors import InvalidInput, ManifestNotFound, RepositoryNotFound, Throttled
from replicator.core.freshness import PullPlan
from replicator.core.names import RepositoryName, Tag
from replicator.core.platforms import parse_platform
from replicator.daemon.amounts import age_text
from replicator.daemon.cache_operators import cache_use_cases
from replicator.daemon.cache_text import explanation_lines, image_row, notes_of
from replicator.registry.settings import RegistrySettings
from replicator.registry_api.cache_json import explanation_json, image_json
from tests.support.images import build_image, build_index
from tests.support.pull_through_node import ALPINE, HUB, LATEST, caching_node
from tests.support.single_node import NODE
from tests.support.upstreams import FakeRegistry, Fault, Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.cache.inventory import CachedImageReport
    from replicator.core.cache_rules import CacheRule
    from replicator.registry_api.cache_api import CacheUseCases
    from tests.support.clock import FakeClock
    from tests.support.pull_through_node import CachingNode

RULE = replace(HUB, namespaces=("docker.io",))
START = ("", "")
DAY = 86400.0


@asynccontextmanager
async def operated(
    directory: Path, upstream: FakeRegistry, clock: FakeClock, rule: CacheRule = RULE
) -> AsyncIterator[tuple[CachingNode, CacheUseCases]]:
    """Open a caching node with what operators can ask of it."""
    settings = RegistrySettings(NODE, cache_rules=(rule,))
    async with caching_node(directory, {"hub": upstream}, clock, rules=(rule,), settings=settings) as caching:
        space = CacheSpace(caching.node, (rule,), caching.cache.uses)
        clients = caching.cache.upstreams.find(ALPINE).sources.clients  # type: ignore[union-attr] # the rule covers it
        cases = cache_use_cases(caching.node, caching.pulls, caching.cache, space, clients)
        try:
            yield caching, cases
        finally:
            await cases.warmer.close()
            await space.close()


async def listed(cases: CacheUseCases, size: int = 100, prefix: str = "") -> list[CachedImageReport]:
    """Return all pages."""
    found: list[CachedImageReport] = []
    after: tuple[str, str] | None = START
    while after is not None:
        page = await cases.inventory.of_prefix(prefix, after, size, lambda _: True)
        assert len(page.images) <= size
        found += page.images
        after = page.next_after
    return found


def names(found: list[CachedImageReport]) -> list[str]:
    return [f"{one.repository}:{one.tag or one.digest}" for one in found]


async def explained(cases: CacheUseCases, clock: FakeClock, name: str) -> dict[str, str]:
    """Return what the command shows of an explanation; of several lines with one name the last."""
    found = await cases.explainer.explain(name)
    return dict(explanation_lines({"node": "here", **explanation_json(found, clock.now())}))


# What is there


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_every_image_is_listed_once_whatever_the_size_of_pages(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock, size: int
) -> None:
    index = build_index([build_image([b"amd"]), build_image([b"arm"], platform=("linux", "arm64"))])
    upstream.add("library/alpine", index, "3.20")
    upstream.add_image("library/alpine", tag="latest", layers=[b"one"])
    upstream.add_image("library/alpine", tag="edge", layers=[b"one"])
    loose = upstream.add_image("library/busybox", tag="1", layers=[b"two"])
    async with operated(tmp_path, upstream, clock) as (caching, cases):
        busybox = RepositoryName("docker-hub/library/busybox")
        for tag in ("3.20", "latest", "edge"):
            await caching.manifest(Tag(tag))
        await caching.manifest(index.children[0].digest)
        await caching.manifest(loose.digest, busybox)
        found = await listed(cases, size)
        assert names(found) == [
            f"{ALPINE}:3.20",
            f"{ALPINE}:edge",
            f"{ALPINE}:latest",
            f"{busybox}:{loose.digest}",
        ]
        assert names(await listed(cases, size, "docker-hub/library/b")) == [f"{busybox}:{loose.digest}"]
        assert await listed(cases, size, "docker-hub/library/c") == []
        one = await cases.inventory.of_repository(busybox, START, 100)
        assert names(list(one.images)) == [f"{busybox}:{loose.digest}"]


async def test_what_is_here_of_an_image_is_counted(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> None:
    amd, arm = build_image([b"amd", b"shared"]), build_image([b"arm", b"shared"], platform=("linux", "arm64"))
    index = build_index([amd, arm])
    upstream.add("library/alpine", index, "latest")
    async with operated(tmp_path, upstream, clock) as (caching, cases):
        await caching.manifest()
        (found,) = await listed(cases)
        assert (found.holdings.manifests, found.holdings.all_manifests, found.holdings.size) == (1, 3, 0)
        await caching.image(amd.digest)
        (found,) = await listed(cases)
        assert (found.holdings.manifests, found.holdings.blobs, found.is_complete) == (2, 3, False)
        assert found.holdings.size == sum(map(len, amd.blobs.values()))
        await caching.image(arm.digest)
        (found,) = await listed(cases)
        assert found.is_complete
        assert found.holdings.size == sum(map(len, index.blobs.values()))


async def test_an_image_that_lost_its_tag_is_listed_by_digest(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    old = upstream.add_image("library/alpine", tag="latest", layers=[b"old"])
    async with operated(tmp_path, upstream, clock) as (caching, cases):
        await caching.manifest()
        upstream.add_image("library/alpine", tag="latest", layers=[b"new"])
        assert [one.outcome for one in await cases.refreshes.refresh(ALPINE, LATEST)] == [CheckOutcome.CHANGED]
        assert names(await listed(cases)) == [f"{ALPINE}:latest", f"{ALPINE}:{old.digest}"]


async def test_a_tag_that_somebody_pushed_is_not_the_caches(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", tag="latest", layers=[b"cached"])
    async with operated(tmp_path, upstream, clock, replace(RULE, accept_pushes=True)) as (caching, cases):
        cached = await caching.manifest()
        await caching.push(build_image([b"pushed"]), LATEST)
        assert names(await listed(cases)) == [f"{ALPINE}:{cached.digest}"]
        text = await explained(cases, clock, f"{ALPINE}:latest")
        assert text["pull"] == "served from here: the tag was pushed, the upstream has no say in it"


async def test_pins_are_shown_by_tag_and_digest(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> None:
    image = upstream.add_image("library/alpine", tag="latest", layers=[b"one"])
    async with operated(tmp_path, upstream, clock) as (caching, cases):
        await caching.manifest()
        for reference in (LATEST, image.digest):
            await cases.space.pin(ALPINE, reference)
            (found,) = await listed(cases)
            assert found.is_pinned
            assert "pinned" in image_row(image_json(found, clock.now()), clock.now())
            await cases.space.unpin(ALPINE, reference)
        (found,) = await listed(cases)
        assert not found.is_pinned


# Why it is answered so


async def test_an_explanation_follows_a_tag_through_its_ages(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", tag="latest", layers=[b"one"])
    rule = replace(RULE, fresh_for=3600.0, stale_while_revalidate=3600.0, max_stale=DAY)
    async with operated(tmp_path, upstream, clock, rule) as (caching, cases):
        cold = await explained(cases, clock, "alpine")
        assert cold["repository"] == f"{ALPINE}:latest at here, for docker.io"
        assert cold["rule"].startswith("docker-hub: upstream hub, fresh for ")
        assert cold["source"].endswith(" as library/alpine")
        assert cold["cached"] == "no; a pull fetches it"
        await caching.manifest()
        asked = upstream.count()
        plans = []
        for wait in (0.0, 4000.0, 4000.0, DAY):
            clock.advance(wait)
            found = await cases.explainer.explain("alpine")
            assert found.cached is not None
            plans.append(found.cached.plan)
            text = await explained(cases, clock, "alpine")
            assert text["last check"].startswith("confirmed it")
            assert text["confirmed"].endswith("fresh for another 60 min" if wait == 0 else text["confirmed"][-1])
        assert plans == [PullPlan.FRESH, PullPlan.SERVE_AND_CHECK, PullPlan.CHECK_FIRST, PullPlan.REFUSE_STALE]
        assert upstream.count() == asked, "explaining asks nobody"


async def test_an_explanation_says_how_long_this_tag_is_fresh(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", tag="latest", layers=[b"one"])
    profile = FreshnessProfile(("latest",), duration_or_any("forever"))
    async with operated(tmp_path, upstream, clock, replace(RULE, freshness=(profile,))) as (caching, cases):
        await caching.manifest()
        text = await explained(cases, clock, "alpine")
        assert text["rule"] == "docker-hub: upstream hub, fresh for ever"
        assert text["confirmed"] == "0 s ago, fresh for ever"
        other = await explained(cases, clock, "alpine:3.20")
        assert other["rule"] == f"docker-hub: upstream hub, fresh for {age_text(RULE.fresh_for)}"


async def test_an_explanation_says_what_the_last_check_said(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", tag="latest", layers=[b"one"])
    async with operated(tmp_path, upstream, clock) as (caching, cases):
        await caching.manifest()
        upstream.faults.on("*", Fault(status=503))
        assert (await cases.refreshes.refresh(ALPINE, LATEST))[0].outcome is CheckOutcome.FAILED
        text = await explained(cases, clock, "alpine")
        assert text["last check"].startswith("failed 0 s ago: ")
        assert "fake" in text["last check"]
        (found,) = await listed(cases)
        assert any("check failed" in note for note in notes_of(image_json(found, clock.now()), clock.now()))


async def test_an_explanation_knows_what_is_remembered_of_missing_images(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    async with operated(tmp_path, upstream, clock) as (caching, cases):
        with pytest.raises(ManifestNotFound):
            await caching.manifest()
        asked = upstream.count()
        for _ in range(2):
            told = await explained(cases, clock, "alpine")
            assert "remembered" in told
            assert told["cached"] == "no; a pull is told what is remembered"
        assert upstream.count() == asked
        clock.advance(RULE.negative_for + 1)
        assert "remembered" not in await explained(cases, clock, "alpine")


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("alpine:edge", "allowed", "tag: no, denied by 'edge'"),
        ("alpine:3.20", "allowed", "tag: yes, allowed by '3.*'"),
        ("alpine:2.0", "allowed", "tag: no, no allowed pattern matches"),
        ("quay.io/org/app", "upstream", "is not asked: no cache rule stands for quay.io/org/app"),
    ],
)
async def test_an_explanation_names_the_pattern(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock, name: str, key: str, said: str
) -> None:
    tags = replace(RULE.tags, allow=("3.*",), deny=("edge",))
    async with operated(tmp_path, upstream, clock, replace(RULE, tags=tags)) as (_, cases):
        assert (await explained(cases, clock, name))[key] == said
        is_allowed = "yes" in said
        assert (await cases.explainer.explain(name)).is_obtainable is is_allowed


async def test_notes_name_what_is_unusual() -> None:
    plain: dict[str, Any] = dict.fromkeys(("gone_at", "pending", "drift", "rolled_back_at", "last_error", "failed_at"))
    plain |= {"pinned": False}
    assert notes_of(plain, 100.0) == []
    digest = "sha256:" + "ab" * 32
    odd = {**plain, "gone_at": 40.0, "pending": digest, "drift": digest, "rolled_back_at": 95.0}
    assert notes_of(odd, 100.0) == [
        "gone upstream since 60 s",
        "sha256:abababababab upstream is too new to be served",
        "is sha256:abababababab upstream, but must not move here",
        "went back upstream 5 s ago",
    ]


# Checks


async def test_a_refresh_of_a_repository_checks_all_its_tags(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    for tag in ("1", "2", "3"):
        upstream.add_image("library/alpine", tag=tag, layers=[tag.encode()])
    async with operated(tmp_path, upstream, clock) as (caching, cases):
        for tag in ("1", "2", "3"):
            await caching.manifest(Tag(tag))
        upstream.add_image("library/alpine", tag="2", layers=[b"moved"])
        upstream.faults.on("/v2/library/alpine/manifests/3", Fault(status=500))
        found = await cases.refreshes.refresh(ALPINE, None)
        outcomes = [CheckOutcome.CONFIRMED, CheckOutcome.CHANGED, CheckOutcome.FAILED]
        assert [(one.tag, one.outcome) for one in found] == list(zip(("1", "2", "3"), outcomes, strict=True))
        assert [one.error is None for one in found] == [True, True, False]


async def test_a_refresh_of_nothing_is_refused(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> None:
    async with operated(tmp_path, upstream, clock) as (_, cases):
        with pytest.raises(ManifestNotFound):
            await cases.refreshes.refresh(ALPINE, None)
        with pytest.raises(ManifestNotFound):
            await cases.refreshes.refresh(ALPINE, LATEST)
        with pytest.raises(RepositoryNotFound):
            await cases.refreshes.refresh(RepositoryName("own/app"), LATEST)


# Images fetched ahead of their pulls


async def test_an_image_is_fetched_whole_and_once(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> None:
    amd, arm = build_image([b"amd"]), build_image([b"arm"], platform=("linux", "arm64"))
    upstream.add("library/alpine", build_index([amd, arm]), "latest")
    hold = Hold()
    upstream.faults.on("GET /v2/library/alpine/blobs/*", Fault(hold=hold))
    async with operated(tmp_path, upstream, clock) as (_, cases):
        first, second = (cases.warmer.start(ALPINE, LATEST) for _ in range(2))
        assert first is second
        await hold.reached()
        assert (first.state, first.is_over) == (WarmState.FETCHING, False)
        hold.release()
        assert await first.wait(20)
        assert (first.state, first.error, first.digest is not None) == (WarmState.COMPLETE, None, True)
        assert (first.progress.blobs_done, first.progress.manifests) == (len({**amd.blobs, **arm.blobs}), 3)
        assert first.progress.bytes_done == first.progress.bytes
        (found,) = await listed(cases)
        assert found.is_complete
        for digest in (*amd.layers, *arm.layers):
            assert upstream.count(f"GET /v2/library/alpine/blobs/{digest}") == 1


async def test_an_index_without_the_platform_is_not_warmed(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    index = build_index([build_image([b"amd"]), build_image([b"arm"], platform=("linux", "arm64"))])
    upstream.add("library/alpine", index, "latest")
    async with operated(tmp_path, upstream, clock) as (_, cases):
        warming = cases.warmer.start(ALPINE, LATEST, [parse_platform("linux/s390x")])
        assert await warming.wait(20)
        assert (warming.state, warming.error) == (
            WarmState.FAILED,
            f"{ALPINE}:latest has no image for linux/s390x",
        )


async def test_the_platforms_of_the_rule_are_fetched_unless_others_are_named(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    amd, arm = build_image([b"amd"]), build_image([b"arm"], platform=("linux", "arm64"))
    upstream.add("library/alpine", build_index([amd, arm]), "latest")
    linux_amd, linux_arm = parse_platform("linux/amd64"), parse_platform("linux/arm64")
    async with operated(tmp_path, upstream, clock, replace(RULE, platforms=(linux_amd,))) as (_, cases):
        of_rule = cases.warmer.start(ALPINE, LATEST)
        assert await of_rule.wait(20)
        assert upstream.count(f"GET /v2/library/alpine/blobs/{arm.layers[0]}") == 0
        named = cases.warmer.start(ALPINE, LATEST, (linux_arm,))
        assert await named.wait(20)
        assert upstream.count(f"GET /v2/library/alpine/blobs/{arm.layers[0]}") == 1


async def test_what_cannot_be_fetched_says_why(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> None:
    image = upstream.add_image("library/alpine", tag="latest", layers=[b"one"])
    tags = replace(RULE.tags, deny=("edge",))
    async with operated(tmp_path, upstream, clock, replace(RULE, tags=tags)) as (_, cases):
        for reference, text in (("nothing", "no manifest"), ("edge", "does not allow tag edge")):
            warming = cases.warmer.start(ALPINE, Tag(reference))
            assert await warming.wait(20)
            assert warming.state is WarmState.FAILED
            assert text in (warming.error or "")
        upstream.faults.on(f"GET /v2/library/alpine/blobs/{image.layers[0]}", Fault(status=404))
        warming = cases.warmer.start(ALPINE, LATEST)
        assert await warming.wait(20)
        assert warming.state is WarmState.FAILED
        upstream.faults.clear()
        again = cases.warmer.start(ALPINE, LATEST)
        assert await again.wait(20)
        assert again.error is None, "what failed may be asked for again"


async def test_what_has_no_upstream_is_refused(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> None:
    async with operated(tmp_path, upstream, clock) as (_, cases):
        with pytest.raises(InvalidInput, match="no cache rule covers own/app"):
            cases.warmer.start(RepositoryName("own/app"), LATEST)


async def test_only_so_many_images_wait(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_images, "MAX_IMAGES", 2)
    upstream.faults.on("*", Fault(hold=Hold()))
    async with operated(tmp_path, upstream, clock) as (_, cases):
        for tag in ("1", "2"):
            cases.warmer.start(ALPINE, Tag(tag))
        with pytest.raises(Throttled, match="2 images"):
            cases.warmer.start(ALPINE, Tag("3"))


async def test_the_work_goes_on_without_its_asker_and_ends_with_the_daemon(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", tag="latest", layers=[b"one"])
    hold = Hold()
    upstream.faults.on("*", Fault(hold=hold))
    async with operated(tmp_path, upstream, clock) as (_, cases):
        warming = cases.warmer.start(ALPINE, LATEST)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await warming.wait(20)
        assert not warming.is_over
        hold.release()
        await cases.warmer.idle()
        assert warming.state is WarmState.COMPLETE
        upstream.faults.on("*", Fault(hold=Hold()))
        waiting = cases.warmer.start(ALPINE, Tag("other"))
        await upstream.seen("*manifests/other")
        await cases.warmer.close()
        assert (waiting.state, waiting.error) == (WarmState.FAILED, "the daemon is shutting down")
