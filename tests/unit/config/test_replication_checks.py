"""Rules that cannot work, or not as they look, are reported with their name and their line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trustme
import yaml

from replicator.config.loader import check_settings
from tests.support.configurations import AP, EU, US, node, peer

if TYPE_CHECKING:
    from pathlib import Path

HARBOR = {"name": "harbor", "url": "https://harbor.example.com"}
TO_HARBOR = {"registry": "harbor"}


@pytest.fixture
def problems(tmp_path: Path) -> Any:
    """Return what `config check` says about a document, without the file's name and the lines."""

    def of(**document: Any) -> list[str]:
        path = tmp_path / "x.yaml"
        path.write_text(yaml.safe_dump({"version": 1, **document}, sort_keys=False))
        found = check_settings(path, {"PEER": "x" * 16, "TOKEN": "token"})
        return [f"{one.severity}: {one.key}: {one.message}" for one in found]

    return of


@pytest.fixture
def rule(problems: Any) -> Any:
    """Return what is said about one rule of us-east-1 to eu-west-1, without the key of the rule."""

    def of(**keys: Any) -> list[str]:
        one = {"name": "team", "destinations": [EU], **keys}
        nodes = [node(US, 5001, replication={"rules": [one]}), node(EU, 5002, repositories=SPARSE)]
        return [line.replace("nodes[0].replication.rules[0]", "R") for line in problems(nodes=nodes)]

    return of


SPARSE = {"sparse_indexes": "allow"}


def test_a_finding_has_the_line_and_the_name_of_its_rule(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("""\
version: 1
nodes:
  - account: "111122223333"
    region: us-east-1
    listen: 127.0.0.1:5001
    replication:
      rules:
        - name: first
          destinations:
            - {account: "111122223333", region: us-east-1}
        - name: second
          platforms: [linux]
          destinations:
            - {registry: harbor}
            - {account: "111122223333", region: mars}
""")
    assert [str(one).removeprefix(f"{path}:") for one in check_settings(path, {})] == [
        "10: nodes[0].replication.rules[0].destinations[0]: rule first: 111122223333/us-east-1 is this node itself;"
        " expected another one",
        "12: nodes[0].replication.rules[1].platforms[0]: rule second: expected a platform such as linux/amd64 or"
        " linux/arm64/v8, got 'linux'",
        "14: nodes[0].replication.rules[1].destinations[0]: rule second: expected the name of a registry of this file,"
        " got 'harbor'",
        "15: nodes[0].replication.rules[1].destinations[1]: rule second: 111122223333/mars is neither a node nor a"
        " peer of this file",
    ]


def test_a_destination_is_named_once_in_a_rule(problems: Any) -> None:
    rules = [{"name": "team", "destinations": [TO_HARBOR, EU, TO_HARBOR]}]
    nodes = [node(US, 5001, replication={"rules": rules}), node(EU, 5002)]
    assert problems(nodes=nodes, registries=[HARBOR]) == [
        "error: nodes[0].replication.rules[0].destinations[2]: rule team: registry:harbor is already used by"
        " nodes[0].replication.rules[0].destinations[0]"
    ]


def test_registries_count_among_the_25_destinations(problems: Any) -> None:
    peers = [peer({"account": US["account"], "region": f"r-{i}"}) for i in range(25)]
    rules = [
        {"name": "many", "destinations": [{"account": one["account"], "region": one["region"]} for one in peers]},
        {"name": "last", "destinations": [TO_HARBOR]},
    ]
    nodes = [node(US, 5001, replication={"rules": rules})]
    assert problems(nodes=nodes, peers=peers, registries=[HARBOR], peer_secret={"env": "PEER"}) == [
        "error: nodes[0].replication.rules[1].destinations: rule last: expected at most 25 different destinations"
        " over all rules, got 26"
    ]


def test_an_eleventh_rule_is_named(problems: Any) -> None:
    rules = [{"name": f"r{i}", "destinations": [EU]} for i in range(11)]
    assert problems(nodes=[node(US, 5001, replication={"rules": rules}), node(EU, 5002)]) == [
        "error: nodes[0].replication.rules: expected at most 10 rules, got 11: r10 is too many"
    ]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"filters": ["--"]}, "R.filters[0]: rule team: matches nothing: no repository name starts with '--'"),
        ({"filters": ["a//b"]}, "R.filters[0]: rule team: matches nothing: no repository name starts with 'a//b'"),
        ({"repositories": ["a//*"]}, "R.repositories[0]: rule team: matches nothing: 'a//*' is the pattern of no"),
        ({"repositories": ["*/"]}, "R.repositories[0]: rule team: matches nothing: '*/' is the pattern of no repos"),
        ({"tags": [".*"]}, "R.tags[0]: rule team: matches nothing: '.*' is the pattern of no tag"),
        ({"exclude_tags": ["-x"]}, "R.exclude_tags[0]: rule team: matches nothing: '-x' is the pattern of no tag"),
        ({"exclude_repositories": ["*"]}, "R: rule team: matches nothing: '*' excludes everything that it includes"),
        (
            {"filters": ["team-a/"], "repositories": ["team-b"], "exclude_repositories": ["team-*"]},
            "R: rule team: matches nothing: 'team-*' excludes everything that it includes",
        ),
        (
            {"tags": ["v1.*", "v2"], "exclude_tags": ["v*"]},
            "R: rule team: matches nothing: 'v*' excludes everything that it includes",
        ),
    ],
)
def test_a_rule_that_matches_nothing_is_refused(rule: Any, keys: dict[str, Any], message: str) -> None:
    assert [line for line in rule(**keys) if line.startswith(f"error: {message}")]


@pytest.mark.parametrize(
    "keys",
    [
        {"filters": ["team-", "team-a/"]},
        {"repositories": ["*/app", "c*-b.*", "*"], "exclude_repositories": ["a*", "*-x"]},
        {"filters": ["team-a/"], "exclude_repositories": ["team-a/private/*"]},
        {"tags": ["v*", "*-stable"], "exclude_tags": ["*-rc*"]},
        {"rename": [{"to": "mirror/"}]},
        {"filters": ["team-a/"], "rename": [{"prefix": "team-a/", "to": "a/"}]},
        {"platforms": ["linux/amd64", "linux/arm64/v8"]},
    ],
)
def test_a_rule_that_works_is_left_alone(rule: Any, keys: dict[str, Any]) -> None:
    assert rule(**keys) == []


def test_a_pattern_that_is_excluded_is_reported_where_others_are_left(rule: Any) -> None:
    assert rule(filters=["team-a/", "team-b/"], exclude_repositories=["team-b*"]) == [
        "warning: R.filters[1]: rule team: matches nothing, because 'team-b*' is excluded"
    ]
    assert rule(exclude_tags=["*"]) == [
        "warning: R.exclude_tags: rule team: excludes every tag: only images without a tag are replicated"
    ]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"repositories": ["team"], "rename": [{"prefix": "team", "to": ""}]},
            "error: R.rename[0]: rule team: turns 'team' into '', which is no repository name",
        ),
        (
            {"filters": ["team"], "rename": [{"prefix": "team", "to": "x/"}]},
            "warning: R.rename[0]: rule team: turns 'team' into 'x/', which is no repository name",
        ),
        (
            {"repositories": ["a" * 250], "rename": [{"to": "mirror/"}]},
            "error: R.rename[0]: rule team: turns '" + "a" * 250 + "' into a name of 257 characters, which is no",
        ),
        (
            {"rename": [{"to": "m" * 200 + "/"}]},
            "warning: R.rename[0].to: rule team: repositories with names longer than 55 characters cannot be renamed",
        ),
        (
            {"filters": ["team/"], "rename": [{"prefix": "other/", "to": "x/"}]},
            "warning: R.rename[0]: rule team: renames nothing: no repository that the rule covers gets to it",
        ),
        (
            {"rename": [{"prefix": "team-a/", "to": "team-b/"}]},
            "warning: R: rule team: 'team-a/app' and 'team-b/app' would both be 'team-b/app' at 111122223333/eu-west-1",
        ),
    ],
)
def test_a_renaming_that_goes_wrong_is_reported(rule: Any, keys: dict[str, Any], message: str) -> None:
    found = rule(**keys)
    assert any(line.startswith(message) for line in found), found


def test_two_rules_do_not_bring_two_repositories_into_one(problems: Any) -> None:
    rules = [
        {"name": "a", "destinations": [EU], "filters": ["a/"], "rename": [{"prefix": "a/", "to": "b/"}]},
        {"name": "b", "destinations": [EU], "filters": ["b/"]},
    ]
    [found] = problems(nodes=[node(US, 5001, replication={"rules": rules}), node(EU, 5002)])
    assert "would both be 'b/app' at 111122223333/eu-west-1" in found
    rules[1]["destinations"] = [AP]
    accepting = node(AP, 5003, replication={"accept_from": [{"account": US["account"]}]})
    assert problems(nodes=[node(US, 5001, replication={"rules": rules}), node(EU, 5002), accepting]) == []


# Chains


def ring(*chained: bool, **keys: Any) -> list[dict[str, Any]]:
    """Return three nodes of one account, each with a rule to the next, some of which chain."""
    places = [US, EU, {"account": US["account"], "region": "sa-east-1"}]
    return [
        node(
            place,
            5001 + i,
            replication={"rules": [{"name": f"r{i}", "destinations": [places[(i + 1) % 3]], "chain": chain, **keys}]},
        )
        for i, (place, chain) in enumerate(zip(places, chained, strict=True))
    ]


def test_rules_that_chain_in_a_circle_are_refused(problems: Any) -> None:
    [found] = problems(nodes=ring(True, True, True, filters=["team/"]))
    assert found.startswith(
        "error: nodes[0].replication.rules[0].chain: rule r0: sends 'team/app' round in a circle:"
        " 111122223333/us-east-1 (rule r0) -> 111122223333/eu-west-1 (rule r1) -> 111122223333/sa-east-1 (rule r2)"
        " -> 111122223333/us-east-1"
    )


def test_an_image_that_comes_back_once_is_a_warning(problems: Any) -> None:
    [found] = problems(nodes=ring(False, True, True))
    assert found.startswith("warning: nodes[1].replication.rules[0].chain: rule r1: sends 'app' round in a circle:")


def test_an_image_that_comes_back_as_another_one_is_said_to(problems: Any) -> None:
    [found] = problems(nodes=ring(True, True, True, rename=[{"to": "m/"}]))
    assert found.startswith("error: ")
    assert "where it comes back as 'm/m/m/app'" in found


def test_chains_without_a_circle_are_left_alone(problems: Any) -> None:
    assert problems(nodes=ring(False, False, False)) == []
    assert problems(nodes=ring(True, True, False)) != []  # from the third: r2, then r0 and r1, which chain
    nodes = ring(True, True, False)
    del nodes[2]["replication"]
    assert problems(nodes=nodes) == []
    apart = ring(True, True, True)
    for i, one in enumerate(apart):
        one["replication"]["rules"][0]["filters"] = [f"only-{i}/"]
    assert problems(nodes=apart) == []


def test_two_nodes_that_replicate_into_each_other_are_no_circle(problems: Any) -> None:
    def to(other: dict[str, str]) -> dict[str, Any]:
        return {"rules": [{"name": "both", "destinations": [other], "chain": True, "delete_replication": True}]}

    assert problems(nodes=[node(US, 5001, replication=to(EU)), node(EU, 5002, replication=to(US))]) == []


# What a destination refuses


@pytest.mark.parametrize(
    ("accept", "message"),
    [
        (None, "ecr:ReplicateImage is missing for 'team/app'"),
        ({"actions": ["ecr:ReplicateImage"]}, "ecr:CreateRepository is missing for 'team/app'"),
        ({"actions": ["ecr:CreateRepository"]}, "ecr:ReplicateImage is missing for 'team/app'"),
        ({"repositories": ["other/*"]}, "ecr:ReplicateImage is missing for 'team/app'"),
        ({"repositories": ["team/*"]}, None),
    ],
)
def test_a_destination_that_will_refuse_is_said_to(
    problems: Any, accept: dict[str, Any] | None, message: str | None
) -> None:
    source = node(US, 5001, replication={"rules": [{"name": "r", "destinations": [AP], "filters": ["team/"]}]})
    accepted = [] if accept is None else [{"account": US["account"], **accept}]
    found = problems(nodes=[source, node(AP, 5003, replication={"accept_from": accepted})])
    expected = [] if message is None else [
        "warning: nodes[0].replication.rules[0].destinations[0]: rule r: 444455556666/ap-southeast-1 does not accept"
        f" images from 111122223333: {message}, see its replication.accept_from"
    ]  # fmt: skip
    assert found == expected


def test_a_renamed_repository_is_asked_for_under_its_name_there(problems: Any) -> None:
    rules = [{"name": "r", "destinations": [AP], "filters": ["team/"], "rename": [{"to": "mirror/"}]}]
    accept = {"accept_from": [{"account": US["account"], "repositories": ["mirror/*"]}]}
    nodes = [node(US, 5001, replication={"rules": rules}), node(AP, 5003, replication=accept)]
    assert problems(nodes=nodes) == []


def test_a_destination_that_refuses_sparse_indexes_is_said_to(problems: Any) -> None:
    rules = [{"name": "r", "destinations": [EU], "platforms": ["linux/amd64"]}]
    [found] = problems(nodes=[node(US, 5001, replication={"rules": rules}), node(EU, 5002)])
    assert "111122223333/eu-west-1 refuses indexes of some platforms only" in found


# Registries, peers, limits, sources


def test_registries_are_used_safe_and_elsewhere(problems: Any) -> None:
    credentials = {"username": "u", "password": {"env": "TOKEN"}}
    rules = [{"name": "r", "destinations": [TO_HARBOR, {"registry": "me"}]}]
    found = problems(
        nodes=[node(US, 5001, replication={"rules": rules})],
        registries=[
            {**HARBOR, "url": "http://harbor.example.com", "credentials": credentials},
            {"name": "me", "url": "http://localhost:5001"},
            {"name": "spare", "url": "https://spare.example.com"},
        ],
    )
    assert found == [
        "warning: registries[0].url: credentials would cross the network in clear: expected https://",
        "error: registries[1].url: http://localhost:5001 is nodes[0] of this file; expected another registry",
        "warning: registries[2]: registry spare is not a destination of any replication rule",
    ]
    twice = problems(nodes=[node(US, 5001, replication={"rules": rules[:1]})], registries=[HARBOR, HARBOR])
    assert "error: registries[1].name: harbor is already used by registries[0].name" in twice


def test_a_peers_own_secret_is_long_enough_and_stands_for_the_shared_one(tmp_path: Path) -> None:
    def problems(secret: str) -> list[str]:
        path = tmp_path / "x.yaml"
        document = {"version": 1, "nodes": [node(US, 5001)], "peers": [{**peer(EU), "secret": {"env": "PAIR"}}]}
        path.write_text(yaml.safe_dump(document))
        return [one.message for one in check_settings(path, {"PAIR": secret})]

    assert problems("x" * 16) == []
    assert problems("x" * 15) == ["expected a secret of at least 16 characters"]


def test_a_limit_is_for_a_destination_of_a_rule(problems: Any) -> None:
    limits = [{**EU, "bandwidth": "1MB"}, {**EU, "images": 1}, {**TO_HARBOR, "blobs": 1}]
    rules = [{"name": "r", "destinations": [EU]}]
    assert problems(nodes=[node(US, 5001, replication={"rules": rules, "limits": limits}), node(EU, 5002)]) == [
        "error: nodes[0].replication.limits[1]: 111122223333/eu-west-1 is already used by"
        " nodes[0].replication.limits[0]",
        "warning: nodes[0].replication.limits[2]: registry:harbor is not a destination of any rule of this node",
    ]


def test_a_source_of_read_through_is_known_and_sends_here(problems: Any) -> None:
    sources = [EU, US, {"account": US["account"], "region": "mars"}, peer_place := {**AP}, peer_place]
    nodes = [node(US, 5001, replication={"read_through": {"sources": sources}}), node(EU, 5002)]
    assert problems(nodes=nodes, peers=[peer(AP)], peer_secret={"env": "PEER"}) == [
        "warning: nodes[0].replication.read_through.sources[0]: no rule of 111122223333/eu-west-1 sends images here;"
        " it will refuse",
        "error: nodes[0].replication.read_through.sources[1]: 111122223333/us-east-1 is this node itself; expected"
        " another one",
        "error: nodes[0].replication.read_through.sources[2]: 111122223333/mars is neither a node nor a peer of this"
        " file",
        "error: nodes[0].replication.read_through.sources[4]: 444455556666/ap-southeast-1 is already used by"
        " nodes[0].replication.read_through.sources[3]",
    ]


def test_templates_have_different_prefixes(problems: Any) -> None:
    one = {"prefix": "team", "applied_for": ["REPLICATION"]}
    assert problems(nodes=[node(US, 5001, repositories={"templates": [one, one]})]) == [
        "error: nodes[0].repositories.templates[1].prefix: team is already used by"
        " nodes[0].repositories.templates[0].prefix"
    ]


def test_many_rules_are_judged_quickly(problems: Any) -> None:
    places = [{"account": US["account"], "region": f"r-{i}"} for i in range(10)]
    filters = [f"team-{i}/" for i in range(100)]
    nodes = [
        node(
            place,
            6000 + i,
            replication={
                "rules": [
                    {
                        "name": f"r{j}",
                        "destinations": [one for one in places if one != place],
                        "filters": filters,
                        "tags": [f"v{k}.*" for k in range(100)],
                        "chain": True,
                    }
                    for j in range(10)
                ]
            },
        )
        for i, place in enumerate(places)
    ]
    assert any("round in a circle" in one for one in problems(nodes=nodes))


def test_authorities_to_trust_are_certificates(tmp_path: Path) -> None:
    authorities = tmp_path / "ca.pem"
    authorities.write_text("no certificate")
    path = tmp_path / "x.yaml"
    document = {"version": 1, "nodes": [node(US, 5001)], "peer_secret": {"env": "PEER"}}
    path.write_text(yaml.safe_dump({**document, "peers": [{**peer(EU), "ca_file": "ca.pem"}]}))
    [problem] = check_settings(path, {"PEER": "x" * 16})
    assert (problem.key, problem.message) == ("peers[0].ca_file", f"{authorities} holds no certificate in PEM form")


def test_a_certificate_has_its_own_key(tmp_path: Path) -> None:
    authority = trustme.CA()
    one, other = authority.issue_cert("one.example.com"), authority.issue_cert("other.example.com")
    one.cert_chain_pems[0].write_to_path(tmp_path / "one.crt")
    for name, issued in {"one": one, "other": other}.items():
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    path = tmp_path / "x.yaml"

    def found(key: str) -> list[str]:
        tls = {"certificate": "one.crt", "key": key}
        path.write_text(yaml.safe_dump({"version": 1, "nodes": [node(US, 5001, tls=tls)]}))
        return [f"{problem.key}: {problem.message}" for problem in check_settings(path, {})]

    assert found("one.key") == []
    assert found("other.key") == [
        "nodes[0].tls: expected a certificate and its own private key, in PEM form and in clear,"
        f" got {tmp_path}/one.crt and {tmp_path}/other.key"
    ]


def test_accounts_that_share_the_secret_of_all_are_warned_of(problems: Any) -> None:
    nodes, secret = [node(US, 5001)], {"env": "PEER"}
    shared = {name: value for name, value in peer(AP).items() if name != "secret"}
    (found,) = problems(nodes=nodes, peers=[shared], peer_secret=secret)
    assert found.startswith("warning: peers[0]: shares peer_secret with another account, 444455556666")
    assert problems(nodes=nodes, peers=[peer(AP)], peer_secret=secret) == []
