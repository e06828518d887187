from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from replicator.config.base import Address, parse_address, parse_base_url
from replicator.config.model import LogFormat, LogLevel, Settings
from replicator.config.nodes import NodeSettings, Sparse
from replicator.core.cache_rules import DEFAULT_FRESHNESS, CacheRule
from replicator.core.errors import ConfigurationError
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import parse_node
from replicator.core.replication import ReplicationRule
from replicator.core.rights import Grant, Right

US = {"account": "111122223333", "region": "us-east-1", "listen": "127.0.0.1:5001"}


def node(**more: Any) -> NodeSettings:
    return NodeSettings.model_validate({**US, **more})


def settings(**more: Any) -> Settings:
    return Settings.model_validate({"version": 1, "nodes": [US], **more})


def refused(**more: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        node(**more)
    return str(caught.value)


def test_defaults_are_safe_for_a_node_on_this_machine() -> None:
    one = settings()
    assert (one.log.level, one.log.format, one.log.access_log) == (LogLevel.INFO, LogFormat.AUTO, True)
    assert one.shutdown_grace == 30
    assert one.peer_secret is None
    [us] = one.nodes
    assert us.auth is None
    assert us.repositories.create_on_push
    assert us.repositories.sparse_indexes is Sparse.REFUSE
    assert us.uploads.expire_after == 86400
    assert us.limits.max_manifest_size == 8 * 2**20
    assert us.url == "http://127.0.0.1:5001"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        settings().version = 2  # type: ignore[assignment]


def test_a_nodes_data_is_in_its_own_directory() -> None:
    one = settings(storage_root="root")
    us = one.node(parse_node("111122223333/us-east-1"))
    base = Path("root/111122223333/us-east-1")
    assert one.directory(us) == base
    assert one.metadata_path(us) == base / "metadata.db"
    assert one.blob_path(us) == base / "blobs"


def test_storage_may_be_elsewhere() -> None:
    one = settings(
        nodes=[{
            **US,
            "storage": {
                "metadata": {"kind": "postgresql", "dsn": {"env": "DSN"}, "schema": "us"},
                "blobs": {"kind": "s3", "bucket": "b", "ingest_path": "/var/ingests"},
            },
        }]
    )  # fmt: skip
    [us] = one.nodes
    assert one.metadata_path(us) is None
    assert one.blob_path(us) == Path("/var/ingests")
    assert us.storage.metadata.model_dump(by_alias=True)["schema"] == "us"


def test_what_is_not_configured_is_not_found() -> None:
    with pytest.raises(ConfigurationError, match="there is no node 111122223333/eu-west-1"):
        settings().node(parse_node("111122223333/eu-west-1"))
    with pytest.raises(ConfigurationError, match="there is no upstream hub"):
        settings().upstream("hub")


def test_rules_become_the_cores_values() -> None:
    eu = {"account": "111122223333", "region": "eu-west-1"}
    one = node(
        replication={"rules": [{"name": "r", "destinations": [eu], "filters": ["team-a/"]}]},
        cache={
            "rules": [
                {"prefix": "hub", "upstream": "docker-hub", "fresh_for": "1h"},
                {"prefix": "ROOT", "upstream": "q"},
            ]
        },
        repositories={"tag_mutability": "IMMUTABLE_WITH_EXCLUSION", "tag_mutability_exclusions": ["dev-*"]},
    )
    assert one.replication_rules() == (ReplicationRule("r", (parse_node("111122223333/eu-west-1"),), ("team-a/",)),)
    hub, root = (rule.to_rule() for rule in one.cache.rules)
    assert hub == CacheRule("hub", "docker-hub", "ROOT", 3600)
    assert root == CacheRule("ROOT", "q", freshness=DEFAULT_FRESHNESS)
    assert one.mutability() == MutabilityRule(TagMutability.IMMUTABLE_WITH_EXCLUSION, ("dev-*",))


def test_grants_become_the_cores_values() -> None:
    one = node(
        auth={
            "anonymous": [{"actions": ["pull"], "repositories": ["hub/*"]}],
            "users": [{"name": "ci", "password": {"env": "P"}, "grants": [{"actions": ["push", "delete"]}]}],
        }
    )
    assert one.anonymous_grants() == (Grant(frozenset({Right.PULL}), ("hub/*",)),)
    assert one.auth is not None
    [grant] = one.auth.users[0].to_grants()
    assert (grant.rights, grant.repositories) == (frozenset({Right.PUSH, Right.DELETE}), ("*",))
    assert node().anonymous_grants() == ()


def test_only_nodes_replicate() -> None:
    assert "expected one of pull, push, delete, got 'replicate'" in refused(
        auth={"anonymous": [{"actions": ["replicate"]}]}
    )


def test_an_auth_section_lets_somebody_in() -> None:
    assert "expected at least one user or anonymous grant" in refused(auth={})


@pytest.mark.parametrize(
    ("mutability", "exclusions", "fits"),
    [
        ("MUTABLE", [], True),
        ("MUTABLE", ["a"], False),
        ("IMMUTABLE_WITH_EXCLUSION", [], False),
        ("IMMUTABLE_WITH_EXCLUSION", ["a", "b-*"], True),
        ("MUTABLE_WITH_EXCLUSION", ["a"] * 6, False),
        ("MUTABLE_WITH_EXCLUSION", ["a b"], False),
    ],
)
def test_exclusions_come_with_the_settings_that_have_them(mutability: str, exclusions: list[str], fits: bool) -> None:
    section = {"tag_mutability": mutability, "tag_mutability_exclusions": exclusions}
    if fits:
        assert node(repositories=section).mutability().exclusions == tuple(exclusions)
    else:
        refused(repositories=section)


@pytest.mark.parametrize("prefix", ["x", "x" * 31, "Docker", "a//b", "a/", "/a", "root", ""])
def test_a_cache_prefix_follows_the_grammar(prefix: str) -> None:
    rule = {"prefix": prefix, "upstream": "hub"}
    if prefix == "root":
        assert node(cache={"rules": [rule]}).cache.rules[0].prefix == "root"
    else:
        refused(cache={"rules": [rule]})


def test_root_maps_to_root() -> None:
    rule = {"prefix": "ROOT", "upstream": "hub", "upstream_prefix": "library"}
    assert "expected upstream_prefix ROOT where prefix is ROOT" in refused(cache={"rules": [rule]})


def test_rules_have_ecrs_limits() -> None:
    eu = {"account": "111122223333", "region": "eu-west-1"}
    rules = [{"name": f"r{i}", "destinations": [eu]} for i in range(11)]
    assert len(node(replication={"rules": rules[:10]}).replication_rules()) == 10
    refused(replication={"rules": rules})
    refused(replication={"rules": [{"name": "r", "destinations": []}]})
    refused(replication={"rules": [{"name": "r", "destinations": [eu], "filters": ["team"] * 101}]})
    cache = [{"prefix": f"hub{i}", "upstream": "hub"} for i in range(51)]
    assert len(node(cache={"rules": cache[:50]}).cache.rules) == 50
    refused(cache={"rules": cache})


def test_a_manifest_limit_below_4_mib_is_refused() -> None:
    assert node(limits={"max_manifest_size": "4MiB"}).limits.max_manifest_size == 4 * 2**20
    refused(limits={"max_manifest_size": "3MiB"})


def test_a_burst_needs_a_rate() -> None:
    assert node(limits={"requests_per_second": 5}).limits.burst == 10
    assert node(limits={"requests_per_second": 0.1}).limits.burst == 1
    assert node(limits={"requests_per_second": 5, "request_burst": 3}).limits.burst == 3
    refused(limits={"request_burst": 3})


def test_an_object_stores_key_is_whole_and_goes_over_tls() -> None:
    def blobs(**more: object) -> dict[str, object]:
        return {"blobs": {"kind": "s3", "bucket": "b", **more}}

    assert "or neither" in refused(storage=blobs(access_key_id={"env": "A"}))
    assert "set allow_http: true" in refused(storage=blobs(endpoint="http://127.0.0.1:9000"))
    assert node(storage=blobs(endpoint="http://127.0.0.1:9000", allow_http=True)).storage.blobs.kind == "s3"


def test_an_account_may_be_written_without_quotes() -> None:
    assert node(account=111122223333).account == "111122223333"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:5001", Address("127.0.0.1", 5001)),
        ("[::1]:0", Address("::1", 0)),
        ("Registry.Example.com:443", Address("registry.example.com", 443)),
    ],
)
def test_an_address_is_host_and_port(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text.lower()


@pytest.mark.parametrize(
    "text",
    ["", ":5001", "5001", "a:", "a:x", "a:65536", "::1:5001", "[x]:1", "a b:1", "999.1.1.1:1", "1.2.3:1", None, 1],
)
def test_what_is_no_address_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected "):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://registry-1.docker.io", "https://registry-1.docker.io"),
        ("https://Quay.io/", "https://quay.io"),
        ("http://127.0.0.1:5100", "http://127.0.0.1:5100"),
        ("http://[::1]:5100", "http://[::1]:5100"),
    ],
)
def test_a_base_url_is_scheme_host_and_port(text: str, url: str) -> None:
    assert parse_base_url(text) == url


@pytest.mark.parametrize(
    "text",
    ["", "quay.io", "ftp://a", "https://", "https://a/b", "https://a?b", "https://a#b", "https://a b", "http://a:x",
     "http://a:99999", "http://[x]", "https://a\n", "https://a\\b", None, 5],
)  # fmt: skip
def test_what_is_no_base_url_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected "):
        parse_base_url(text)
