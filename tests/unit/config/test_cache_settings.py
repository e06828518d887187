"""What can be said of the cache and its upstreams, and what that means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from replicator.config.loader import check_settings
from replicator.config.model import Settings
from replicator.config.upstreams import UpstreamSettings
from replicator.core.cache_rules import DEFAULT_FRESHNESS, CacheRule, FreshnessProfile, OnNotFound, Selection
from replicator.core.image_names import DOCKER_HUB_HOSTS
from replicator.core.names import Tag, parse_node
from replicator.core.platforms import Platform
from replicator.core.upstream_presets import PRESETS

if TYPE_CHECKING:
    from pathlib import Path

US = {"account": "111122223333", "region": "us-east-1"}
A_HUNDRED_YEARS = 100 * 365 * 86400


def settings(rule: dict[str, Any] | None = None, upstream: dict[str, Any] | None = None, **cache: Any) -> Settings:
    rules = [{"prefix": "hub", "upstream": "hub", **(rule or {})}]
    return Settings.model_validate({
        "version": 1,
        "upstreams": [{"name": "hub", **({"preset": "quay"} if upstream is None else upstream)}],
        "nodes": [{**US, "listen": "127.0.0.1:5001", "cache": {"rules": rules, **cache}}],
    })  # fmt: skip


def rule(**given: Any) -> CacheRule:
    one = settings(given)
    return one.cache_rules(one.nodes[0])[0]


def refused(given: dict[str, Any] | None = None, upstream: dict[str, Any] | None = None, **cache: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        settings(given, upstream, **cache)
    return str(caught.value)


def test_a_rule_says_everything_that_the_core_knows() -> None:
    one = rule(
        upstream_prefix="team",
        mirrors=["near"],
        peers=[US],
        namespaces=["Hub.example.com:5000"],
        repositories={"allow": ["team/*"], "deny": ["team/x"]},
        tags={"allow": ["v*"], "deny": ["*-rc"]},
        platforms=["linux/arm64/v8"],
        fill_library=True,
        fresh_for="2h",
        freshness=[{"tags": ["semver", "r*"], "fresh_for": "forever"}, {"tags": ["dev"], "fresh_for": "off"}],
        stale_while_revalidate="off",
        max_stale="30d",
        on_not_found="follow",
        negative_for="off",
        cool_down="3d",
        max_size="10GiB",
        accept_pushes=True,
    )
    assert one == CacheRule(
        "hub",
        "hub",
        "team",
        7200,
        mirrors=("near",),
        peers=(parse_node("111122223333/us-east-1"),),
        namespaces=("hub.example.com:5000",),
        repositories=Selection(("team/*",), ("team/x",)),
        tags=Selection(("v*",), ("*-rc",)),
        platforms=(Platform("linux", "arm64", "v8"),),
        fill_library=True,
        freshness=(FreshnessProfile(("semver", "r*"), A_HUNDRED_YEARS), FreshnessProfile(("dev",), 0)),
        stale_while_revalidate=0,
        max_stale=30 * 86400,
        on_not_found=OnNotFound.FOLLOW,
        negative_for=0,
        cool_down=3 * 86400,
        max_size=10 * 2**30,
        accept_pushes=True,
    )


def test_a_rule_that_says_little_has_the_cores_defaults() -> None:
    assert rule() == CacheRule("hub", "hub", namespaces=("quay.io",), freshness=DEFAULT_FRESHNESS)


@pytest.mark.parametrize(
    ("given", "semver", "latest", "other"),
    [
        ({}, 7 * 86400, 3600, 86400),
        ({"fresh_for": "2h"}, 7200, 7200, 7200),
        ({"freshness": []}, 86400, 86400, 86400),
        ({"freshness": [{"tags": ["latest"], "fresh_for": "1m"}]}, 86400, 60, 86400),
        ({"fresh_for": "2h", "freshness": [{"tags": ["semver"], "fresh_for": "1d"}]}, 86400, 7200, 7200),
        ({"fresh_for": "off"}, 0, 0, 0),
        ({"fresh_for": "forever"}, A_HUNDRED_YEARS, A_HUNDRED_YEARS, A_HUNDRED_YEARS),
    ],
)
def test_freshness_follows_the_shape_of_tags(given: dict[str, Any], semver: int, latest: int, other: int) -> None:
    one = rule(**given)
    assert [one.freshness_of(Tag(tag)) for tag in ("1.27.3", "latest", "1.27")] == [semver, latest, other]


@pytest.mark.parametrize(
    ("upstream", "namespaces"),
    [
        ({"preset": "docker-hub"}, DOCKER_HUB_HOSTS),
        ({"url": "https://registry-1.docker.io"}, DOCKER_HUB_HOSTS),
        ({"preset": "k8s"}, {"registry.k8s.io"}),
        ({"url": "http://Registry.example.com:5000"}, {"registry.example.com:5000"}),
        ({"preset": "ecr", "url": "https://1.dkr.ecr.eu-west-1.amazonaws.com"}, {"1.dkr.ecr.eu-west-1.amazonaws.com"}),
    ],
)
def test_a_rule_stands_for_the_hosts_of_its_upstream(upstream: dict[str, Any], namespaces: set[str]) -> None:
    one = settings(upstream=upstream)
    assert set(one.cache_rules(one.nodes[0])[0].namespaces) == namespaces
    none = settings({"namespaces": []}, upstream)
    assert none.cache_rules(none.nodes[0])[0].namespaces == ()


def test_the_node_has_limits_of_its_own() -> None:
    cache = settings().nodes[0].cache
    assert (cache.stale_wait, cache.cold_wait, cache.max_size, cache.keep_free) == (1.5, 30, None, None)
    assert (cache.sweep.interval, cache.sweep.used_within) == (60, 3 * 86400)
    served = settings(serve_to=[{"account": "444455556666", "region": "eu"}]).nodes[0].cache.serve_to
    assert [one.id for one in served] == [parse_node("444455556666/eu")]


def test_every_preset_of_the_core_can_be_named() -> None:
    for name, preset in PRESETS.items():
        url = {} if preset.url is not None else {"url": "https://ours.example.com"}
        found = UpstreamSettings.model_validate({"name": "x", "preset": name, **url})
        assert found.url == (preset.url or "https://ours.example.com")
        assert found.known_as is preset


def test_an_upstream_has_an_address() -> None:
    assert "expected url, or a preset that has one" in refused(upstream={})
    assert "has a host for each user, which ends with .azurecr.io" in refused(
        upstream={"preset": "azure-container-registry"}
    )
    assert "Input should be 'docker-hub'" in refused(upstream={"preset": "hub"})


@pytest.mark.parametrize(
    ("credentials", "fits"),
    [
        ({"username": "u", "password": {"env": "P"}}, True),
        ({"docker_config": "config.json"}, True),
        ({"helper": "ecr-login"}, True),
        ({"aws": {"region": "eu-west-1"}}, True),
        ({"aws": {"region": "eu-west-1", "access_key_id": {"env": "A"}, "secret_access_key": {"env": "B"}}}, True),
        ({}, False),
        ({"username": "u"}, False),
        ({"password": {"env": "P"}}, False),
        ({"helper": "a", "docker_config": "b"}, False),
        ({"username": "u", "password": {"env": "P"}, "helper": "a"}, False),
        ({"helper": "../bin/sh"}, False),
        ({"aws": {"region": "eu-west-1", "access_key_id": {"env": "A"}}}, False),
        ({"aws": {"region": "eu-west-1", "session_token": {"env": "A"}}}, False),
        ({"aws": {}}, False),
    ],
)
def test_credentials_come_from_one_place(credentials: dict[str, Any], fits: bool) -> None:
    upstream = {"preset": "quay", "credentials": credentials}
    if fits:
        assert settings(upstream=upstream).upstreams[0].credentials is not None
    else:
        refused(upstream=upstream)


def test_networks_are_those_that_are_not_the_internet() -> None:
    assert "Input should be 'private', 'loopback' or 'link-local'" in refused(
        upstream={"preset": "quay", "networks": ["public"]}
    )


@pytest.mark.parametrize(
    "given",
    [
        {"fresh_for": "never"},
        {"fresh_for": "0s"},
        {"max_stale": "forever"},
        {"on_not_found": "delete"},
        {"platforms": ["amd64"]},
        {"namespaces": ["https://quay.io"]},
        {"freshness": [{"tags": [], "fresh_for": "1h"}]},
        {"freshness": [{"tags": ["a b"], "fresh_for": "1h"}]},
        {"mirrors": [f"m{i}" for i in range(11)]},
        {"max_size": "0"},
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    refused(given)


def written(directory: Path, credentials: str) -> list[str]:
    path = directory / "c.yaml"
    path.write_text(
        f"""\
version: 1
upstreams:
  - {{name: hub, preset: docker-hub, credentials: {credentials}}}
nodes:
  - {{account: "111122223333", region: r, listen: "127.0.0.1:0", cache: {{rules: [{{prefix: hub, upstream: hub}}]}}}}
""",
        encoding="utf-8",
    )
    return [str(one).removeprefix(f"{path}:3: ") for one in check_settings(path, {"PATH": str(directory)})]


def test_what_credentials_need_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "upstreams[0].credentials"
    assert written(tmp_path, "{helper: vault}") == [
        f"{place}.helper: upstream hub of cache rule hub: there is no program docker-credential-vault on PATH"
    ]
    (tmp_path / "docker-credential-vault").write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / "docker-credential-vault").chmod(0o755)
    assert written(tmp_path, "{helper: vault}") == []
    assert written(tmp_path, "{docker_config: none.json}") == [
        f"{place}.docker_config: upstream hub of cache rule hub: there is no file {tmp_path / 'none.json'}"
    ]
    assert written(tmp_path, "{aws: {region: eu-west-1}}") == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert written(tmp_path, "{aws: {region: eu-west-1}}") == [
        f"{place}.aws: upstream hub of cache rule hub: needs botocore: install replicator[ecr]"
    ]


def test_a_client_certificate_goes_with_its_key(tmp_path: Path) -> None:
    for name in ("a.pem", "b.pem"):
        (tmp_path / name).write_text("no certificate", encoding="utf-8")
    path = tmp_path / "c.yaml"
    path.write_text(
        """\
version: 1
upstreams:
  - {name: hub, preset: docker-hub, client_certificate: {certificate: a.pem, key: b.pem}}
nodes:
  - {account: "111122223333", region: r, listen: "127.0.0.1:0", cache: {rules: [{prefix: hub, upstream: hub}]}}
""",
        encoding="utf-8",
    )
    [problem] = check_settings(path, {})
    assert "expected a certificate and its own private key" in problem.message
