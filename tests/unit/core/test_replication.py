"""Which images go where, and what a change causes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.destinations import RegistryRef
from replicator.core.digest import digest_of
from replicator.core.errors import InvalidInput, InvalidName
from replicator.core.jobs import JobKind, Priority
from replicator.core.names import NodeId, RepositoryName, Tag, parse_node
from replicator.core.platforms import Platform
from replicator.core.replication import (
    Change,
    DeleteReplica,
    Origin,
    Rename,
    ReplicateImage,
    ReplicationRule,
    destinations_of,
    plan_deletion,
    plan_replication,
)
from replicator.core.revisions import Revision

EU, US, AP, FOREIGN = (
    parse_node(text) for text in ("1" * 12 + "/eu", "1" * 12 + "/us", "1" * 12 + "/ap", "2" * 12 + "/eu")
)
HARBOR = RegistryRef("harbor")
DIGEST = digest_of(b"image")
NAME = RepositoryName("prod/api")
V1, V2, DEV = Tag("v1"), Tag("v2"), Tag("dev-1")
REVISION = Revision(1, 5, str(EU))


@pytest.mark.parametrize(
    ("filters", "repository", "matches"),
    [
        ((), "anything/at/all", True),
        (("prod",), "prod", True),
        (("prod",), "prod/api", True),
        (("prod",), "production", True),  # a literal prefix: no slash is implied
        (("prod/",), "production", False),
        (("prod",), "team/prod", False),
        (("dev", "prod"), "prod/api", True),
        (("dev", "test"), "prod/api", False),
    ],
)
def test_filters_are_prefixes(filters: tuple[str, ...], repository: str, matches: bool) -> None:
    assert ReplicationRule("rule", (US,), filters).matches(RepositoryName(repository)) is matches


@pytest.mark.parametrize(
    ("filters", "names", "excluded", "repository", "matches"),
    [
        ((), ("prod/api",), (), "prod/api", True),
        ((), ("prod/api",), (), "prod/api2", False),
        ((), ("*/api",), (), "prod/api", True),
        (("dev",), ("prod/api",), (), "prod/api", True),
        (("dev",), ("prod/api",), (), "dev/x", True),
        (("prod",), (), ("prod/api",), "prod/api", False),
        ((), (), ("prod/*",), "prod/api", False),
        ((), (), ("prod/*",), "dev/api", True),
    ],
)
def test_names_and_exclusions(
    filters: tuple[str, ...], names: tuple[str, ...], excluded: tuple[str, ...], repository: str, matches: bool
) -> None:
    rule = ReplicationRule("rule", (US,), filters, names, excluded)
    assert rule.matches(RepositoryName(repository)) is matches


@pytest.mark.parametrize(
    ("tags", "excluded", "tag", "is_referrer", "matches"),
    [
        ((), (), None, False, True),
        ((), (), V1, False, True),
        (("v*",), (), V1, False, True),
        (("v*",), (), DEV, False, False),
        (("v*",), (), None, False, False),
        (("v*",), (), None, True, True),
        ((), ("dev-*",), DEV, False, False),
        (("*",), ("dev-*",), DEV, False, False),
        ((), ("dev-*",), None, False, True),
        (("v*",), (), DEV, True, False),
    ],
)
def test_tag_filters(
    tags: tuple[str, ...], excluded: tuple[str, ...], tag: Tag | None, is_referrer: bool, matches: bool
) -> None:
    rule = ReplicationRule("rule", (US,), tags=tags, excluded_tags=excluded)
    assert rule.matches_tag(tag, is_referrer=is_referrer) is matches


def test_destinations_of_all_matching_rules_are_united() -> None:
    rules = [
        ReplicationRule("all", (US,)),
        ReplicationRule("prod", (US, AP, FOREIGN, HARBOR), ("prod",)),
        ReplicationRule("dev", (AP,), ("dev",)),
        ReplicationRule("nowhere", (), ("prod",)),
        ReplicationRule("tagged", (AP,), tags=("v*",)),
    ]
    found = destinations_of(rules, EU, NAME)
    expected = [(US, "all"), (AP, "prod"), (FOREIGN, "prod"), (HARBOR, "prod")]
    assert [(each.id, each.rule.name) for each in found] == expected


def test_a_node_is_never_its_own_destination() -> None:
    rules = [ReplicationRule("ring", (EU, US, FOREIGN))]
    assert [each.id for each in destinations_of(rules, EU, RepositoryName("a"))] == [US, FOREIGN]


def test_a_repository_is_renamed_by_the_first_prefix_that_fits() -> None:
    rule = ReplicationRule("rule", (US,), rename=(Rename("prod/", "mirror/"), Rename("prod/api", "never")))
    assert rule.renamed(NAME) == "mirror/api"
    assert rule.renamed(RepositoryName("dev/api")) == "dev/api"
    (image, _), *_ = plan_replication([rule], EU, Change(NAME, DIGEST, (V1,), Origin.DIRECT))
    assert (image.repository, image.target, image.target_repository) == (NAME, "mirror/api", "mirror/api")
    (image, _), *_ = plan_replication([rule], EU, Change(RepositoryName("dev"), DIGEST, (V1,), Origin.DIRECT))
    assert (image.target, image.target_repository) == (None, "dev")
    with pytest.raises(InvalidName):
        Rename("prod/api", "").apply(NAME)


@pytest.mark.parametrize(
    ("platform", "matches"),
    [
        ({"os": "linux", "architecture": "arm64"}, True),
        ({"os": "linux", "architecture": "arm64", "variant": "v8"}, True),
        ({"os": "linux", "architecture": "amd64"}, False),
        ({"os": "windows", "architecture": "arm64"}, False),
        (None, True),
        ({}, True),
        ({"os": "unknown", "architecture": "unknown"}, True),
    ],
)
def test_platforms(platform: dict[str, object] | None, matches: bool) -> None:
    rule = ReplicationRule("rule", (US,), platforms=(Platform("linux", "arm64"), Platform("linux", "arm", "v7")))
    assert rule.wants_platform(platform) is matches
    assert ReplicationRule("rule", (US,)).wants_platform(platform)


def test_a_repository_that_cannot_be_renamed_stays_where_it_is() -> None:
    rule = ReplicationRule("rule", (EU,), rename=(Rename("", "mirror/"),))
    long = RepositoryName("a" * 250)
    assert rule.covers(long)
    assert not rule.matches(long)
    assert plan_replication([rule], US, Change(long, digest_of(b"x"), (Tag("1"),), Origin.DIRECT)) == ()
    assert rule.matches(RepositoryName("a" * 249))


def test_where_platforms_are_chosen_an_untagged_image_goes_with_its_index_only() -> None:
    rule = ReplicationRule("rule", (US,), platforms=(Platform("linux", "arm64"),))
    assert not rule.matches_tag(None)
    assert rule.matches_tag(None, is_referrer=True)
    assert rule.matches_tag(Tag("1.0"))


def test_a_platform_with_a_variant_wants_that_one() -> None:
    arm = Platform("linux", "arm", "v7")
    assert arm.matches({"os": "linux", "architecture": "arm", "variant": "v7"})
    assert not arm.matches({"os": "linux", "architecture": "arm", "variant": "v6"})
    assert not arm.matches({"os": "linux", "architecture": "arm"})


nodes = st.sampled_from([EU, US, AP, FOREIGN])
rules_of = st.lists(
    st.builds(
        ReplicationRule,
        st.sampled_from(["a", "b", "c"]),
        st.lists(nodes, max_size=4).map(tuple),
        st.lists(st.sampled_from(["p", "prod", "prod/", "dev", "x"]), max_size=3).map(tuple),
    ),
    max_size=5,
)


@given(rules_of, st.sampled_from(["prod", "prod/api", "dev/x", "other"]), nodes)
def test_destinations_are_those_of_a_naive_model(rules: list[ReplicationRule], name: str, source: NodeId) -> None:
    expected = {
        node
        for rule in rules
        for node in rule.destinations
        if node != source and (not rule.filters or any(name[: len(prefix)] == prefix for prefix in rule.filters))
    }
    found = [each.id for each in destinations_of(rules, source, RepositoryName(name))]
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("origin", "chain", "tags", "planned"),
    [
        (Origin.DIRECT, False, (V1,), {(V1, US), (V1, AP)}),
        (Origin.DIRECT, False, (V1, V2), {(V1, US), (V1, AP), (V2, US), (V2, AP)}),
        (Origin.DIRECT, False, (), {(None, US), (None, AP)}),
        (Origin.CACHE, False, (V1,), {(V1, US), (V1, AP)}),
        (Origin.REPLICA, False, (V1,), set()),
        (Origin.REPLICA, False, (), set()),
        (Origin.REPLICA, True, (V1,), {(V1, US), (V1, AP)}),
    ],
)
def test_what_a_push_causes(
    origin: Origin, chain: bool, tags: tuple[Tag, ...], planned: set[tuple[Tag | None, NodeId]]
) -> None:
    rules = [ReplicationRule("all", (US, AP), chain=chain)]
    found = plan_replication(rules, EU, Change(NAME, DIGEST, tags, origin, came_from=FOREIGN))
    assert {(image.tag, image.destination) for image, _ in found} == planned
    assert len(found) == len(planned)
    assert all((image.repository, image.digest, image.rule) == (NAME, DIGEST, "all") for image, _ in found)
    assert all(job == image.to_job() for image, job in found)


def test_a_chain_never_goes_back_to_where_an_image_came_from() -> None:
    rules = [ReplicationRule("all", (US, AP), chain=True, delete_replication=True)]
    change = Change(NAME, DIGEST, (V1,), Origin.REPLICA, came_from=US)
    assert [image.destination for image, _ in plan_replication(rules, EU, change)] == [AP]
    assert [image.destination for image in plan_deletion(rules, EU, change, V1, REVISION)] == [AP]


def test_every_tag_goes_where_its_own_rules_say() -> None:
    rules = [ReplicationRule("releases", (US,), tags=("v*",)), ReplicationRule("rest", (AP,), excluded_tags=("v*",))]
    found = plan_replication(rules, EU, Change(NAME, DIGEST, (V1, DEV), Origin.DIRECT))
    assert [(image.tag, image.destination) for image, _ in found] == [(V1, US), (DEV, AP)]
    untagged = plan_replication(rules, EU, Change(NAME, DIGEST, (), Origin.DIRECT))
    assert [(image.tag, image.destination) for image, _ in untagged] == [(None, AP)]
    referrer = plan_replication(rules, EU, Change(NAME, DIGEST, (), Origin.DIRECT, is_referrer=True))
    assert [image.destination for image, _ in referrer] == [US, AP]


def test_a_rule_s_priority_is_its_jobs_among_pushes() -> None:
    rules = [ReplicationRule("late", (US,), priority=9), ReplicationRule("early", (AP,), priority=1)]
    found = plan_replication(rules, EU, Change(NAME, DIGEST, (V1,), Origin.DIRECT))
    assert [job.priority for _, job in found] == [Priority.PUSH + 9, Priority.PUSH + 1]
    assert all(job.priority < Priority.BACKGROUND for _, job in found)


@pytest.mark.parametrize(
    ("tag", "tags", "expected"),
    [
        (V1, (V1,), {(V1, US), (V1, HARBOR)}),
        (DEV, (DEV,), {(DEV, HARBOR)}),
        (None, (V1,), {(None, US), (None, HARBOR)}),
        (None, (), {(None, HARBOR)}),
        (None, (DEV,), {(None, HARBOR)}),
    ],
)
def test_a_deletion_goes_wherever_the_image_may_have_gone(
    tag: Tag | None, tags: tuple[Tag, ...], expected: set[tuple[Tag | None, object]]
) -> None:
    rules = [
        ReplicationRule("kept", (AP,)),
        ReplicationRule("releases", (US,), tags=("v*",), delete_replication=True),
        ReplicationRule("all", (HARBOR,), delete_replication=True, rename=(Rename("prod", "mirror"),)),
    ]
    found = plan_deletion(rules, EU, Change(NAME, DIGEST, tags, Origin.DIRECT), tag, REVISION)
    assert {(each.tag, each.destination) for each in found} == expected
    assert len(found) == len(expected)
    assert {each.target_repository for each in found if each.destination == HARBOR} == {"mirror/api"}


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (ReplicateImage(NAME, DIGEST, V1, US, "releases", RepositoryName("there")), [(US, "there")]),
        (ReplicateImage(NAME, DIGEST, V1, US, "releases"), [(US, NAME)]),
        (ReplicateImage(NAME, DIGEST, V1, AP, "kept"), []),
        (ReplicateImage(NAME, DIGEST, V1, US, "gone"), []),
        (ReplicateImage(NAME, DIGEST, V1, HARBOR, "releases"), []),
    ],
    ids=["renamed", "lost its tag", "rule keeps", "rule is gone", "destination is gone"],
)
def test_a_deletion_goes_wherever_the_image_was_sent(
    sent: ReplicateImage, expected: list[tuple[object, object]]
) -> None:
    rules = [
        ReplicationRule("kept", (AP,)),
        ReplicationRule("releases", (US,), tags=("v*",), delete_replication=True),
    ]
    change = Change(NAME, DIGEST, (), Origin.DIRECT)
    assert not plan_deletion(rules, EU, change, None, REVISION)
    found = plan_deletion(rules, EU, change, None, REVISION, [sent])
    assert [(each.destination, each.target_repository) for each in found] == expected


def test_the_deletion_of_a_replica_goes_nowhere_without_a_chain() -> None:
    rules = [ReplicationRule("all", (US,), delete_replication=True)]
    assert plan_deletion(rules, EU, Change(NAME, DIGEST, (), Origin.REPLICA), None, REVISION) == ()


names = st.sampled_from([RepositoryName("a"), RepositoryName("a/b-c")])
digests = st.binary(max_size=2).map(digest_of)
tags_of = st.none() | st.sampled_from([Tag("latest"), Tag("v1.0")])
targets = st.none() | names
destinations = st.one_of(nodes, st.just(HARBOR))
images = st.builds(ReplicateImage, names, digests, tags_of, destinations, st.text(), targets)
deletions = st.builds(DeleteReplica, names, digests, tags_of, destinations, st.text(), st.just(REVISION), targets)


@given(images)
def test_a_job_carries_it_whole(image: ReplicateImage) -> None:
    job = image.to_job()
    assert ReplicateImage.from_payload(job.payload) == image
    assert (job.kind, job.lane) == (JobKind.REPLICATE, str(image.destination))


@given(deletions)
def test_a_job_of_a_deletion_carries_it_whole(deletion: DeleteReplica) -> None:
    job = deletion.to_job()
    assert DeleteReplica.from_payload(job.payload) == deletion
    assert (job.kind, job.lane) == (JobKind.DELETE_REPLICA, str(deletion.destination))


@given(images, images)
def test_a_job_s_key_names_the_work(one: ReplicateImage, other: ReplicateImage) -> None:
    """A newer push of a tag takes the place of the older one; images without a tag stand for themselves."""

    def work(image: ReplicateImage) -> tuple[object, ...]:
        return image.repository, image.tag or image.digest, image.destination

    assert (one.to_job().key == other.to_job().key) == (work(one) == work(other))


@given(st.dictionaries(st.sampled_from(["repository", "digest", "tag", "destination", "rule"]), st.none() | st.text()))
def test_a_payload_of_another_making_is_refused(payload: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        ReplicateImage.from_payload(payload)
    with pytest.raises(InvalidInput):
        DeleteReplica.from_payload(payload)
