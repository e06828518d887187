from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.digest import digest_of
from replicator.core.errors import InvalidInput
from replicator.core.jobs import JobKind, Priority
from replicator.core.names import NodeId, RepositoryName, Tag, parse_node
from replicator.core.replication import (
    Origin,
    ReplicateImage,
    ReplicationRule,
    destinations_of,
    plan_replication,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

EU, US, AP, FOREIGN = (
    parse_node(text) for text in ("1" * 12 + "/eu", "1" * 12 + "/us", "1" * 12 + "/ap", "2" * 12 + "/eu")
)
DIGEST = digest_of(b"image")


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


def test_destinations_of_all_matching_rules_are_united() -> None:
    rules = [
        ReplicationRule("all", (US,)),
        ReplicationRule("prod", (US, AP, FOREIGN), ("prod",)),
        ReplicationRule("dev", (AP,), ("dev",)),
        ReplicationRule("nowhere", (), ("prod",)),
    ]
    found = destinations_of(rules, RepositoryName("prod/api"), EU)
    assert [(each.node, each.rule) for each in found] == [(US, "all"), (AP, "prod"), (FOREIGN, "prod")]


def test_a_node_is_never_its_own_destination() -> None:
    rules = [ReplicationRule("ring", (EU, US, FOREIGN))]
    assert [each.node for each in destinations_of(rules, RepositoryName("a"), EU)] == [US, FOREIGN]


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
    found = [each.node for each in destinations_of(rules, RepositoryName(name), source)]
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("origin", "tags", "planned"),
    [
        (Origin.DIRECT, ["v1"], {("v1", US), ("v1", AP)}),
        (Origin.DIRECT, ["v1", "v2"], {("v1", US), ("v1", AP), ("v2", US), ("v2", AP)}),
        (Origin.DIRECT, [], {(None, US), (None, AP)}),
        (Origin.CACHE, ["v1"], {("v1", US), ("v1", AP)}),
        (Origin.REPLICA, ["v1"], set()),
        (Origin.REPLICA, [], set()),
    ],
)
def test_what_a_push_causes(origin: Origin, tags: Sequence[str], planned: set[tuple[str | None, NodeId]]) -> None:
    rules = [ReplicationRule("all", (US, AP))]
    found = plan_replication(rules, EU, RepositoryName("a/b"), DIGEST, [Tag(tag) for tag in tags], origin)
    assert {(each.tag, each.destination) for each in found} == planned
    assert len(found) == len(planned)
    assert all((each.repository, each.digest, each.rule) == ("a/b", DIGEST, "all") for each in found)


images = st.builds(
    ReplicateImage,
    st.sampled_from([RepositoryName("a"), RepositoryName("a/b-c")]),
    st.binary(max_size=2).map(digest_of),
    st.none() | st.sampled_from([Tag("latest"), Tag("v1.0")]),
    nodes,
    st.text(),
)


@given(images)
def test_a_job_carries_it_whole(image: ReplicateImage) -> None:
    job = image.to_job()
    assert ReplicateImage.from_payload(job.payload) == image
    assert (job.kind, job.priority) == (JobKind.REPLICATE, Priority.PUSH)


@given(images, images)
def test_a_job_s_key_names_the_work(one: ReplicateImage, other: ReplicateImage) -> None:
    def work(image: ReplicateImage) -> tuple[object, ...]:
        return image.repository, image.digest, image.tag, image.destination

    assert (one.to_job().key == other.to_job().key) == (work(one) == work(other))


@given(st.dictionaries(st.sampled_from(["repository", "digest", "tag", "destination", "rule"]), st.none() | st.text()))
def test_a_payload_of_another_making_is_refused(payload: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        ReplicateImage.from_payload(payload)
