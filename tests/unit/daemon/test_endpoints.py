"""What the configuration says about other registries reaches the clients, with the share of each destination."""

from __future__ import annotations

from typing import Any

from replicator.config.model import Settings
from replicator.core.destinations import RegistryRef
from replicator.core.names import NodeId, parse_node
from replicator.core.replication import ReplicationRule
from replicator.daemon.early_sources import early_sources
from replicator.daemon.endpoints import Endpoints
from replicator.daemon.secrets import SecretStore
from replicator.replication.worker import WorkerLimits
from tests.support.configurations import AP, EU, US, node, peer

US_ID, EU_ID, AP_ID = (parse_node(f"{one['account']}/{one['region']}") for one in (US, EU, AP))
HARBOR = RegistryRef("harbor")


def settings(*nodes: dict[str, Any], **more: Any) -> Settings:
    return Settings.model_validate({"version": 1, "nodes": list(nodes), **more})


def endpoints(limits: list[dict[str, Any]]) -> Endpoints:
    rules = [{"name": "all", "destinations": [EU, AP, {"registry": "harbor"}]}]
    whole = settings(
        node(US, 5001, replication={"rules": rules, "limits": limits}),
        node(EU, 5002),
        peers=[peer(AP)],
        registries=[
            {
                "name": "harbor",
                "url": "https://harbor.example.com",
                "credentials": {"username": "robot", "password": {"env": "TOKEN"}},
                "bandwidth": 1000,
                "requests_per_second": 5,
            }
        ],
    )
    urls = {US_ID: "http://127.0.0.1:5001", EU_ID: "http://127.0.0.1:5002"}
    return Endpoints(whole, whole.node(US_ID), SecretStore({"TOKEN": "secret"}), urls)


def test_nodes_are_where_they_listen_and_peers_where_the_file_says() -> None:
    found = endpoints([]).nodes()
    assert found[EU_ID].url == "http://127.0.0.1:5002"
    assert found[AP_ID].url == "https://ap-southeast-1.example.com"
    assert found[AP_ID].bytes_per_second is None


def test_a_registry_has_its_own_limits_and_credentials() -> None:
    harbor = endpoints([]).registries()[HARBOR]
    assert (harbor.bytes_per_second, harbor.requests_per_second) == (1000, 5)
    assert harbor.credentials is not None
    assert harbor.credentials.password == "secret"  # noqa: S105 - of this test


def test_a_share_takes_precedence() -> None:
    found = endpoints([{"registry": "harbor", "bandwidth": 10}, {**EU, "requests_per_second": 2, "images": 1}])
    harbor, eu = found.registries()[HARBOR], found.nodes()[EU_ID]
    assert (harbor.bytes_per_second, harbor.requests_per_second) == (10, 5)
    assert (eu.bytes_per_second, eu.requests_per_second) == (None, 2)
    shares = found.worker_shares()
    assert set(shares) == {"registry:harbor", str(EU_ID)}
    assert shares["registry:harbor"] == WorkerLimits()
    assert (shares[str(EU_ID)].images_per_destination, shares[str(EU_ID)].background_per_destination) == (1, 1)


def sources_of(one: Settings, node: NodeId) -> dict[NodeId, tuple[str, ...]]:
    return early_sources(one, one.node(node), lambda other: one.node(other).replication_rules())


def test_nodes_whose_rules_send_here_are_asked_for_what_is_on_its_way() -> None:
    rules = [
        {"name": "named", "destinations": [EU], "filters": ["team/"], "repositories": ["exact"]},
        {"name": "renamed", "destinations": [EU], "filters": ["a/"], "rename": [{"prefix": "a/", "to": "b/"}]},
        {"name": "elsewhere", "destinations": [AP], "filters": ["other/"]},
    ]
    one = settings(node(US, 5001, replication={"rules": rules}), node(EU, 5002), peers=[peer(AP)])
    assert sources_of(one, EU_ID) == {US_ID: ("team/*", "exact", "a/*", "b/*")}
    assert sources_of(one, US_ID) == {}


def test_rules_that_nodes_were_given_since_count_as_well() -> None:
    one = settings(node(US, 5001), node(EU, 5002), peers=[peer(AP)])
    rules = {US_ID: (ReplicationRule("api-1", (EU_ID,), ("team/",)),), EU_ID: ()}
    assert early_sources(one, one.node(EU_ID), lambda other: rules[other]) == {US_ID: ("team/*",)}


def test_sources_are_added_and_switched_off_by_the_file() -> None:
    sources = [{**AP, "repositories": ["shared/*"]}]

    def found(**read_through: Any) -> dict[Any, tuple[str, ...]]:
        rules = {"rules": [{"name": "all", "destinations": [EU]}]}
        eu = node(EU, 5002, replication={"read_through": read_through})
        one = settings(node(US, 5001, replication=rules), eu, peers=[peer(AP)])
        return sources_of(one, EU_ID)

    assert found(sources=sources) == {US_ID: ("*",), AP_ID: ("shared/*",)}
    assert found(sources=[{**US, "repositories": ["only/*"]}]) == {US_ID: ("only/*",)}
    assert found(enabled=False, sources=sources) == {}
