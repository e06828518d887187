from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from replicator.config.checks import check
from replicator.config.loader import check_settings
from replicator.config.model import Settings
from replicator.config.problems import Severity, dotted

if TYPE_CHECKING:
    from pathlib import Path

US = {"account": "111122223333", "region": "us-east-1"}
EU = {"account": "111122223333", "region": "eu-west-1"}
AP = {"account": "444455556666", "region": "ap-southeast-1"}
HUB: dict[str, object] = {"name": "hub", "preset": "docker-hub"}
RULE: dict[str, object] = {"prefix": "hub", "upstream": "hub"}
PEER_SECRET = {"peer_secret": {"env": "P"}}


def node(identity: dict[str, str], port: int, *rules: dict[str, object], **cache: object) -> dict[str, object]:
    return {**identity, "listen": f"127.0.0.1:{port}", "cache": {"rules": list(rules), **cache}}


def found(severity: Severity, *nodes: dict[str, object], **settings: Any) -> list[str]:
    settings = {"upstreams": [HUB], **settings}
    data = copy.deepcopy({"version": 1, "nodes": list(nodes), **settings})
    findings = check(Settings.model_validate(data))
    return [f"{dotted(one.path)}: {one.message}" for one in findings if one.severity is severity]


def errors(*nodes: dict[str, object], **settings: Any) -> list[str]:
    return found(Severity.ERROR, *nodes, **settings)


def warnings(*nodes: dict[str, object], **settings: Any) -> list[str]:
    return found(Severity.WARNING, *nodes, **settings)


def about(rule: dict[str, object], severity: Severity = Severity.ERROR, **settings: Any) -> list[str]:
    """Return what is found about one rule, without the place of the rule in front."""
    texts = found(severity, node(US, 1, {**RULE, **rule}), **settings)
    return [text.removeprefix("nodes[0].cache.rules[0].") for text in texts]


def test_an_ordinary_rule_is_right() -> None:
    assert errors(node(US, 1, RULE)) == warnings(node(US, 1, RULE)) == []


def test_prefixes_may_nest_but_not_repeat() -> None:
    nested = [{**RULE, "prefix": prefix, "namespaces": []} for prefix in ("hub", "hub/team", "ROOT")]
    assert errors(node(US, 1, *nested)) == []
    assert errors(node(US, 1, RULE, {**RULE, "namespaces": []})) == [
        "nodes[0].cache.rules[1].prefix: hub is already used by nodes[0].cache.rules[0].prefix"
    ]


def test_mirrors_are_upstreams_of_the_file_and_named_once() -> None:
    mirror = {"name": "near", "url": "https://mirror.example.com"}
    assert errors(node(US, 1, {**RULE, "mirrors": ["near"]}), upstreams=[HUB, mirror]) == []
    assert warnings(node(US, 1, {**RULE, "mirrors": ["near"]}), upstreams=[HUB, mirror]) == []
    assert about({"mirrors": ["far"]}) == ["mirrors[0]: expected the name of an upstream of this file, got 'far'"]
    assert about({"mirrors": ["hub"]}) == ["mirrors[0]: hub is already used by nodes[0].cache.rules[0].upstream"]


def test_peers_are_other_nodes_that_are_known() -> None:
    assert errors(node(US, 1, {**RULE, "peers": [EU]}), node(EU, 2, RULE)) == []
    assert about({"peers": [US]}) == ["peers[0]: 111122223333/us-east-1 is this node itself; expected another one"]
    assert about({"peers": [EU]}) == ["peers[0]: 111122223333/eu-west-1 is neither a node nor a peer of this file"]
    twice = errors(node(US, 1, {**RULE, "peers": [EU, EU]}), node(EU, 2, RULE))
    assert twice == ["nodes[0].cache.rules[0].peers[1]: 111122223333/eu-west-1 is already used by"
                     " nodes[0].cache.rules[0].peers[0]"]  # fmt: skip
    nameless = errors(node(US, 1, {**RULE, "peers": [EU], "namespaces": []}), node(EU, 2, RULE))
    assert nameless == [
        "nodes[0].cache.rules[0].namespaces: peers are asked by the first of the rule's namespaces:"
        " expected at least one"
    ]


def test_a_peer_of_another_account_must_serve_this_one() -> None:
    asking = node(US, 1, {**RULE, "peers": [AP]})
    assert warnings(asking, node(AP, 2, RULE)) == [
        "nodes[0].cache.rules[0].peers[0]: 444455556666/ap-southeast-1 will refuse: its cache.serve_to does not name"
        " 111122223333/us-east-1"
    ]
    assert warnings(asking, node(AP, 2, RULE, serve_to=[US])) == []
    [elsewhere] = warnings(asking, peers=[{**AP, "url": "https://ap", "secret": {"env": "S"}}], **PEER_SECRET)
    assert "refuses unless its cache.serve_to names 111122223333/us-east-1" in elsewhere


def test_serving_ones_own_account_needs_no_word() -> None:
    [told] = warnings(node(US, 1, RULE, serve_to=[EU]), node(EU, 2))
    assert told == "nodes[0].cache.serve_to[0]: 111122223333/eu-west-1 is of the same account: it may pull anyway"


def test_a_peer_is_no_upstream() -> None:
    peers = [{**EU, "url": "https://eu.example.com"}]
    upstreams = [{"name": "hub", "url": "https://eu.example.com"}]
    [told] = warnings(node(US, 1, RULE), peers=peers, upstreams=upstreams, **PEER_SECRET)
    assert told.startswith("upstreams[0].url: is peer 111122223333/eu-west-1, whose rules may lead back here")


def test_an_upstream_is_no_node_of_the_file_by_whatever_way() -> None:
    leading = {"name": "eu", "url": "http://127.0.0.1:2"}
    back = {"name": "us", "url": "http://127.0.0.1:1"}
    nodes = (node(US, 1, {"prefix": "aa", "upstream": "eu"}), node(EU, 2, {"prefix": "aa", "upstream": "us"}))
    assert errors(*nodes, upstreams=[leading, back]) == [
        "upstreams[0].url: http://127.0.0.1:2 is nodes[1] of this file; expected another registry",
        "upstreams[1].url: http://127.0.0.1:1 is nodes[0] of this file; expected another registry",
    ]


@pytest.mark.parametrize(
    ("upstream", "needless"),
    [
        ({"preset": "k8s"}, True),
        ({"preset": "quay"}, True),
        ({"url": "https://public.ecr.aws"}, True),
        ({"preset": "docker-hub"}, False),
        ({"url": "https://registry.example.com"}, False),
    ],
)
def test_credentials_that_nobody_needs_are_warned_about(upstream: dict[str, object], needless: bool) -> None:
    one = {"name": "hub", **upstream, "credentials": {"username": "u", "password": {"env": "P"}}}
    told = warnings(node(US, 1, RULE), upstreams=[one])
    assert bool(told) is needless
    assert all("needs no credentials" in text for text in told)


@pytest.mark.parametrize(
    ("upstream", "message"),
    [
        ({"preset": "quay", "url": "https://quay.example.com"}, "quay.example.com is not where quay is"),
        ({"preset": "ecr", "url": "https://registry.example.com"}, "expected a host that ends with .amazonaws.com"),
        ({"preset": "ecr", "url": "https://111122223333.dkr.ecr.eu-west-1.amazonaws.com"}, None),
        ({"preset": "azure-container-registry", "url": "https://team.azurecr.io"}, None),
    ],
)
def test_a_preset_fits_the_address(upstream: dict[str, object], message: str | None) -> None:
    told = warnings(node(US, 1, RULE), upstreams=[{"name": "hub", **upstream}])
    assert (message is None and told == []) or (message is not None and message in told[0])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"repositories": {"allow": ["-/*"]}}, "repositories.allow[0]: matches nothing: no name fits '-/*'"),
        ({"repositories": {"deny": ["a//*"]}}, "repositories.deny[0]: matches nothing: no name fits 'a//*'"),
        ({"tags": {"allow": [".x"]}}, "tags.allow[0]: matches nothing: no name fits '.x'"),
        ({"tags": {"deny": ["*"]}}, "tags: lets nothing through: '*' denies everything that it allows"),
        (
            {"repositories": {"allow": ["team/*"], "deny": ["team/*"]}},
            "repositories: lets nothing through: 'team/*' denies everything that it allows",
        ),
        (
            {"upstream_prefix": "library", "repositories": {"allow": ["nginx"]}},
            "repositories.allow[0]: matches nothing: the rule's names at the upstream start with 'library/'",
        ),
        (
            {"upstream_prefix": "library", "repositories": {"deny": ["team/*"]}},
            "repositories.deny[0]: matches nothing: the rule's names at the upstream start with 'library/'",
        ),
        (
            {"freshness": [{"tags": ["-x"], "fresh_for": "1h"}]},
            "freshness[0].tags[0]: matches nothing: no tag fits '-x'",
        ),
        ({"fresh_for": "2h", "max_stale": "1h"}, "max_stale: is shorter than fresh_for: expected a longer time"),
        ({"max_stale": "1h"}, "max_stale: is shorter than fresh_for: expected a longer time"),
    ],
)
def test_what_lets_nothing_through_is_an_error(rule: dict[str, object], message: str) -> None:
    assert about(rule) == [message]


@pytest.mark.parametrize(
    "rule",
    [
        {"repositories": {"allow": ["library/*", "*/app"], "deny": ["library/secret"]}},
        {"upstream_prefix": "library", "repositories": {"allow": ["library/n*", "l*"]}},
        {"tags": {"allow": ["v*"], "deny": ["*-rc*"]}},
        {"fresh_for": "1h", "max_stale": "30d"},
        {"freshness": [{"tags": ["semver", "v*"], "fresh_for": "forever"}]},
    ],
)
def test_what_lets_something_through_is_right(rule: dict[str, object]) -> None:
    assert about(rule) == about(rule, Severity.WARNING) == []


def test_doubtful_rules_are_warned_about() -> None:
    rule: dict[str, object] = {"repositories": {"allow": ["team/*", "library/*"], "deny": ["team/*"]}}
    assert about(rule, Severity.WARNING) == ["repositories.allow[0]: matches nothing, because 'team/*' is denied"]
    slow: dict[str, object] = {"fresh_for": "1h", "freshness": [{"tags": ["v*"], "fresh_for": "7d"}], "max_stale": "1d"}
    assert about(slow, Severity.WARNING) == ["max_stale: is shorter than a fresh_for of its freshness"]
    [told] = warnings(node(US, 1, {**RULE, "max_size": "2GiB"}, max_size="1GiB"))
    assert told == "nodes[0].cache.rules[0].max_size: is larger than the node's cache.max_size, which holds first"


def test_a_host_is_answered_for_by_one_rule() -> None:
    def rules(**second: object) -> dict[str, object]:
        return node(US, 1, RULE, {"prefix": "other", "upstream": "hub", **second})

    [told] = warnings(rules())
    assert told == (
        "nodes[0].cache.rules[1].namespaces: docker.io is already answered for by cache rule hub:"
        " expected others, or []"
    )
    assert warnings(rules(namespaces=[])) == []
    assert warnings(rules(upstream_prefix="library")) == []
    explicit = node(US, 1, {**RULE, "namespaces": ["x.io"]}, {**RULE, "prefix": "other", "namespaces": ["x.io"]})
    assert errors(explicit) == [
        "nodes[0].cache.rules[1].namespaces: x.io is already answered for by cache rule hub: expected others, or []"
    ]


FILE = """\
version: 1
upstreams:
  - {name: hub, preset: docker-hub, credentials: {username: u, password: {env: NOT_THERE}}}
nodes:
  - account: "111122223333"
    region: us-east-1
    listen: "127.0.0.1:0"
    cache:
      rules:
        - {prefix: docker-hub, upstream: hub, max_stale: 1h}
"""


def problems_of(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return [str(one).removeprefix(f"{path}:") for one in check_settings(path, {})]


def test_findings_begin_with_the_prefix_of_the_rule(tmp_path: Path) -> None:
    assert problems_of(tmp_path, FILE) == [
        "3: upstreams[0].credentials.password: upstream hub of cache rule docker-hub: environment variable NOT_THERE"
        " is not set",
        "10: nodes[0].cache.rules[0].max_stale: cache rule docker-hub: is shorter than fresh_for:"
        " expected a longer time",
    ]


def test_an_upstream_without_an_address_is_named_with_its_rules(tmp_path: Path) -> None:
    text = "version: 1\nupstreams:\n  - {name: hub}\n" + FILE.partition("NOT_THERE}}}\n")[2]
    assert problems_of(tmp_path, text)[0] == (
        "3: upstreams[0]: upstream hub of cache rule docker-hub: expected url, or a preset that has one"
    )


def test_a_rule_has_a_prefix(tmp_path: Path) -> None:
    assert problems_of(tmp_path, FILE.replace("{prefix: docker-hub, ", '{prefix: "", ')) == [
        "10: nodes[0].cache.rules[0].prefix: expected ROOT or a prefix of 2 to 30 characters, got ''"
    ]
