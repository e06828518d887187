from __future__ import annotations

import copy
from typing import Any

import pytest

from replicator.config.checks import check
from replicator.config.model import Settings
from replicator.config.problems import Severity, dotted

US = {"account": "111122223333", "region": "us-east-1"}
EU = {"account": "111122223333", "region": "eu-west-1"}
AP = {"account": "444455556666", "region": "ap-southeast-1"}
GRANTS = [{"actions": ["pull"]}]


def node(identity: dict[str, str], port: int, **more: object) -> dict[str, object]:
    return {**identity, "listen": f"127.0.0.1:{port}", **more}


def findings(severity: Severity, **settings: Any) -> list[str]:
    data = copy.deepcopy({"version": 1, "nodes": [node(US, 5001)], **settings})
    found = check(Settings.model_validate(data))
    return [f"{dotted(one.path)}: {one.message}" for one in found if one.severity is severity]


def errors(**settings: Any) -> list[str]:
    return findings(Severity.ERROR, **settings)


def warnings(**settings: Any) -> list[str]:
    return findings(Severity.WARNING, **settings)


def replicating(*destinations: dict[str, str]) -> dict[str, object]:
    return {"rules": [{"name": "r", "destinations": list(destinations)}]}


def test_nodes_and_peers_are_unique() -> None:
    assert errors(nodes=[node(US, 5001), node(EU, 5002)]) == []
    assert "nodes[1]: 111122223333/us-east-1 is already used by nodes[0]" in errors(nodes=[node(US, 1), node(US, 2)])
    assert errors(peers=[{**US, "url": "https://x"}]) == [
        "peers[0]: 111122223333/us-east-1 is already used by nodes[0]"
    ]


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("127.0.0.1:5001", "127.0.0.1:5001", True),
        ("127.0.0.1:5001", "127.0.0.1:5002", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("127.0.0.1:5001", "127.0.0.2:5001", False),
        ("127.0.0.1:5001", "0.0.0.0:5001", True),
        ("[::]:5001", "[::1]:5001", True),
        ("LOCALHOST:5001", "localhost:5001", True),
    ],
)
def test_listen_addresses_do_not_clash(first: str, second: str, clash: bool) -> None:
    nodes = [
        {**US, "listen": first, "allow_unauthenticated_network": True},
        {**EU, "listen": second, "allow_unauthenticated_network": True},
    ]
    assert bool(errors(nodes=nodes)) is clash


def test_nodes_do_not_share_storage() -> None:
    def with_storage(kind: str, first: object, second: object) -> list[str]:
        nodes = [node(US, 1, storage={kind: first}), node(EU, 2, storage={kind: second})]
        return errors(nodes=nodes)

    files = {"kind": "filesystem", "path": "/data/x"}
    assert len(with_storage("blobs", files, files)) == 1
    assert len(with_storage("blobs", files, {"kind": "filesystem", "path": "/data/x/y"})) == 1
    assert with_storage("blobs", files, {"kind": "filesystem", "path": "/data/xy"}) == []
    sqlite = {"kind": "sqlite", "path": "/data/m.db"}
    assert "shares /data/m.db with nodes[0].storage.metadata.path" in with_storage("metadata", sqlite, sqlite)[0]
    bucket = {"kind": "s3", "bucket": "b", "prefix": "p"}
    assert len(with_storage("blobs", bucket, {**bucket, "prefix": "p/"})) == 1
    assert with_storage("blobs", bucket, {**bucket, "prefix": "q"}) == []
    schema = {"kind": "postgresql", "dsn": {"env": "DSN"}, "schema": "a"}
    assert len(with_storage("metadata", schema, schema)) == 1
    assert with_storage("metadata", schema, {**schema, "schema": "b"}) == []


def test_destinations_exist_and_are_not_the_node_itself() -> None:
    assert errors(nodes=[node(US, 1, replication=replicating(EU)), node(EU, 2)]) == []
    assert errors(nodes=[node(US, 1, replication=replicating(AP))], peers=[{**AP, "url": "https://ap"}]) == []
    assert errors(nodes=[node(US, 1, replication=replicating(US, AP))]) == [
        "nodes[0].replication.rules[0].destinations[0]: 111122223333/us-east-1 is this node itself;"
        " expected another one",
        "nodes[0].replication.rules[0].destinations[1]: 444455556666/ap-southeast-1 is neither a node nor a peer"
        " of this file",
    ]
    twice = [node(US, 1, replication=replicating(EU, EU)), node(EU, 2)]
    assert "111122223333/eu-west-1 is already used by" in errors(nodes=twice)[0]


def test_at_most_25_different_destinations_over_all_rules() -> None:
    peers = [{"account": US["account"], "region": f"r-{i}", "url": f"https://r{i}"} for i in range(26)]
    names = [{"account": peer["account"], "region": peer["region"]} for peer in peers]
    rules = [{"name": "a", "destinations": names[:13]}, {"name": "b", "destinations": names[12:25]}]
    assert errors(nodes=[node(US, 1, replication={"rules": rules})], peers=peers) == []
    rules[1]["destinations"] = names[13:]
    assert errors(nodes=[node(US, 1, replication={"rules": rules})], peers=peers) == [
        "nodes[0].replication.rules[1].destinations: expected at most 25 different destinations over all rules, got 26"
    ]


def test_a_destination_of_another_account_must_accept() -> None:
    source = node(US, 1, replication=replicating(AP))
    assert "does not accept images from 111122223333" in warnings(nodes=[source, node(AP, 2)])[0]
    accepting = node(AP, 2, replication={"accept_from": [{"account": US["account"]}]})
    assert warnings(nodes=[source, accepting]) == []


def test_names_are_unique() -> None:
    rules = [{"name": "r", "destinations": [EU]}, {"name": "r", "destinations": [EU]}]
    nodes = [node(US, 1, replication={"rules": rules}), node(EU, 2)]
    assert errors(nodes=nodes) == [
        "nodes[0].replication.rules[1].name: r is already used by nodes[0].replication.rules[0].name"
    ]
    user = {"name": "ci", "password": {"env": "P"}, "grants": GRANTS}
    assert (
        "nodes[0].auth.users[1].name: ci is already used" in errors(nodes=[node(US, 1, auth={"users": [user] * 2})])[0]
    )
    hub = {"name": "hub", "url": "https://hub"}
    cache = {"rules": [{"prefix": "hub", "upstream": "hub"}] * 2}
    assert errors(nodes=[node(US, 1, cache=cache)], upstreams=[hub, hub]) == [
        "upstreams[1].name: hub is already used by upstreams[0].name",
        "nodes[0].cache.rules[1].prefix: hub is already used by nodes[0].cache.rules[0].prefix",
    ]


def test_upstreams_exist_and_one_without_a_rule_is_for_rules_made_at_run_time() -> None:
    cache = {"rules": [{"prefix": "hub", "upstream": "hub"}]}
    assert errors(nodes=[node(US, 1, cache=cache)]) == [
        "nodes[0].cache.rules[0].upstream: expected the name of an upstream of this file, got 'hub'"
    ]
    assert warnings(upstreams=[{"name": "hub", "url": "https://hub"}]) == []


@pytest.mark.parametrize(
    ("listen", "url", "refused"),
    [
        ("127.0.0.1:5001", "http://127.0.0.1:5001", True),
        ("127.0.0.1:5001", "http://localhost:5001", True),
        ("127.0.0.1:5001", "http://[::1]:5001", True),
        ("0.0.0.0:5001", "http://localhost:5001", True),
        ("127.0.0.1:80", "http://localhost", True),
        ("127.0.0.1:5001", "http://127.0.0.1:5100", False),
        ("127.0.0.1:5001", "http://registry.example.com:5001", False),
        ("127.0.0.1:0", "http://127.0.0.1:5001", False),
        ("127.0.0.1:5001", "https://us.example.com", True),
    ],
)
def test_an_upstream_is_not_a_node_of_this_file(listen: str, url: str, refused: bool) -> None:
    one = {**US, "listen": listen, "public_url": "https://us.example.com", "allow_unauthenticated_network": True}
    assert bool(errors(nodes=[one], upstreams=[{"name": "hub", "url": url}])) is refused


def test_a_node_without_auth_does_not_listen_to_the_network() -> None:
    for listen in ("0.0.0.0:5001", "[::]:5001", "192.0.2.1:5001", "registry.example.com:5001"):
        exposed = {**US, "listen": listen}
        assert "reachable by other machines and the node has no auth" in errors(nodes=[exposed])[0]
        assert errors(nodes=[{**exposed, "allow_unauthenticated_network": True}]) == []
        assert errors(nodes=[{**exposed, "auth": {"anonymous": GRANTS}}]) == []
    for listen in ("127.0.0.1:5001", "[::1]:5001", "localhost:5001", "127.9.9.9:5001"):
        assert errors(nodes=[{**US, "listen": listen}]) == []


def test_secrets_in_clear_are_warned_about() -> None:
    auth = {"users": [{"name": "ci", "password": {"env": "P"}, "grants": GRANTS}]}
    exposed = {**US, "listen": "0.0.0.0:5001", "auth": auth}
    assert "passwords would cross the network in clear" in warnings(nodes=[exposed])[0]
    assert warnings(nodes=[{**exposed, "tls": {"certificate": "a", "key": "b"}}]) == []
    assert warnings(nodes=[{**exposed, "public_url": "https://proxy.example.com"}]) == []
    credentials = {"username": "u", "password": {"env": "P"}}
    hub = {"name": "hub", "url": "http://hub.example.com", "credentials": credentials}
    assert any("credentials would cross the network in clear" in one for one in warnings(upstreams=[hub]))


def test_peers_in_other_processes_need_a_shared_secret() -> None:
    peers = [{**EU, "url": "https://eu"}]
    assert "peer_secret: is absent" in warnings(peers=peers)[0]
    assert warnings(peers=peers, peer_secret={"env": "PEER"}) == []
    clear = [{**EU, "url": "http://eu.example.com"}]
    assert "replication would cross the network in clear" in warnings(peers=clear, peer_secret={"env": "PEER"})[0]
