"""Every extension of the replication rules in a running daemon, configured as an operator would."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.daemon import Daemon, node
from tests.support.http_calls import call, get, push_blob, push_manifest
from tests.support.images import Built, build_image, build_index, walk
from tests.support.metrics import total
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("replication-rules")]

ACCOUNT, OTHER = "111122223333", "444455556666"
US, EU, AP = "us-east-1", "eu-west-1", "ap-southeast-1"
TO_EU = {"account": ACCOUNT, "region": EU}
TO_AP = {"account": OTHER, "region": AP}
TO_HARBOR = {"registry": "harbor"}
AT_REST = {"enabled": False}

IMAGES = [build_image([f"layer {i}".encode()]) for i in range(8)]
AMD = build_image([b"amd64"], platform=("linux", "amd64"))
ARM = build_image([b"arm64"], platform=("linux", "arm64"))
BOTH = build_index([AMD, ARM])
LARGE = build_image([bytes(range(256)) * 16 * 1024])  # 4 MiB


def document(harbor: str) -> dict[str, Any]:
    """Return three nodes, and a registry of somebody else, joined by one rule for each extension.

    Nothing is read through, so that what a node serves has arrived there.
    """
    rules = [
        {
            "name": "renamed",
            "destinations": [TO_EU],
            "filters": ["team-a/"],
            "exclude_repositories": ["team-a/private*"],
            "tags": ["v*"],
            "exclude_tags": ["*-rc"],
            "rename": [{"prefix": "team-a/", "to": "mirror/team-a/"}],
        },
        {"name": "deleting", "destinations": [TO_EU], "repositories": ["exact"], "delete_replication": True},
        {"name": "to-chain", "destinations": [TO_EU], "filters": ["chained/"], "lag_objective": "10s"},
        {"name": "platforms", "destinations": [TO_EU], "filters": ["multi/"], "platforms": ["linux/amd64"]},
        {"name": "existing-only", "destinations": [TO_AP], "filters": ["known/"]},
        {"name": "denied", "destinations": [TO_AP], "filters": ["denied/"]},
        {"name": "foreign", "destinations": [TO_HARBOR], "filters": ["public/"], "priority": 1},
        {"name": "slow", "destinations": [{"registry": "slow"}], "filters": ["slow/"]},
    ]
    shares = [{"registry": "slow", "bandwidth": "2MiB", "images": 1, "blobs": 1}, {**TO_EU, "requests_per_second": 500}]
    template = {"prefix": "chained", "applied_for": ["REPLICATION"], "tag_mutability": "IMMUTABLE"}
    return {
        "registries": [{"name": "harbor", "url": harbor}, {"name": "slow", "url": harbor}],
        "nodes": [
            node(US, replication={"rules": rules, "limits": shares, "anti_entropy": {"every": "off"}}),
            node(
                EU,
                repositories={"sparse_indexes": "allow", "templates": [template]},
                replication={
                    "rules": [{"name": "onward", "destinations": [TO_AP], "filters": ["chained/"], "chain": True}],
                    "read_through": AT_REST,
                },
            ),
            node(
                AP,
                OTHER,
                replication={
                    "accept_from": [
                        {"account": ACCOUNT, "repositories": ["chained/*"]},
                        {"account": ACCOUNT, "repositories": ["known/*"], "actions": ["ecr:ReplicateImage"]},
                    ],
                    "read_through": AT_REST,
                },
            ),
        ],
    }


@pytest.fixture(scope="module")
def harbor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Run a registry of somebody else: a node that shares nothing with the others, spoken to as any registry is."""
    with Daemon(tmp_path_factory.mktemp("harbor"), {"nodes": [node("somewhere", "999999999999")]}) as running:
        yield running


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, harbor: Daemon) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon"), document(harbor.url(""))) as running:
        yield running


def push(base: str, repository: str, tag: str, image: Built) -> None:
    for manifest in walk(image):
        for content in getattr(manifest, "blobs", {}).values():
            assert push_blob(base, repository, content).status == 201
        reference = tag if manifest is image else manifest.digest
        assert push_manifest(base, repository, reference, manifest.manifest, manifest.media_type).status == 201


def digest_at(base: str, repository: str, reference: str) -> str | None:
    answer = call("HEAD", f"{base}/v2/{repository}/manifests/{reference}")
    return answer.headers["Docker-Content-Digest"] if answer.status == 200 else None


def arrives(base: str, repository: str, tag: str, image: Built) -> None:
    eventually(lambda: digest_at(base, repository, tag) == image.digest, f"{repository}:{tag} to arrive")


def status(daemon: Daemon, repository: str, reference: str) -> list[dict[str, Any]]:
    query = f"repository={repository}&reference={reference}"
    answer = get(daemon.url(f"/_replicator/v1/replication/images?{query}", US)).json()
    found: list[dict[str, Any]] = answer["statuses"]
    return found


def settled(daemon: Daemon, repository: str, reference: str) -> list[dict[str, Any]]:
    """Return the status of an image once nothing of it is in progress."""

    def asked() -> list[dict[str, Any]]:
        found = status(daemon, repository, reference)
        return found if found and all(one["status"] != "IN_PROGRESS" for one in found) else []

    return eventually(asked, f"{repository}:{reference} to be settled")


def test_only_the_tags_of_a_rule_go_and_get_another_name(daemon: Daemon) -> None:
    base = daemon.url("", US)
    push(base, "team-a/private", "v1", IMAGES[0])
    push(base, "team-a/app", "dev", IMAGES[1])
    push(base, "team-a/app", "v2-rc", IMAGES[2])
    push(base, "team-a/app", "v1", IMAGES[0])
    eu = daemon.url("", EU)
    arrives(eu, "mirror/team-a/app", "v1", IMAGES[0])
    assert status(daemon, "team-a/app", "dev") == []
    assert status(daemon, "team-a/app", "v2-rc") == []
    assert status(daemon, "team-a/private", "v1") == []
    [complete] = settled(daemon, "team-a/app", "v1")
    assert (complete["status"], complete["repository"], complete["rule"]) == (
        "COMPLETE", "mirror/team-a/app", "renamed",
    )  # fmt: skip
    assert get(f"{eu}/v2/mirror/team-a/app/tags/list").json()["tags"] == ["v1"]
    assert digest_at(eu, "team-a/app", "v1") is None


def test_a_deletion_follows_where_the_rule_says_so(daemon: Daemon) -> None:
    base, eu = daemon.url("", US), daemon.url("", EU)
    push(base, "exact", "1", IMAGES[3])
    push(base, "team-a/app", "v9", IMAGES[3])
    arrives(eu, "exact", "1", IMAGES[3])
    arrives(eu, "mirror/team-a/app", "v9", IMAGES[3])
    assert call("DELETE", f"{base}/v2/team-a/app/manifests/v9").status == 202
    assert call("DELETE", f"{base}/v2/exact/manifests/1").status == 202
    eventually(lambda: digest_at(eu, "exact", "1") is None, "the tag to go")
    assert digest_at(eu, "mirror/team-a/app", "v9") == IMAGES[3].digest


def test_a_chain_goes_on_and_a_template_makes_tags_immutable(daemon: Daemon) -> None:
    push(daemon.url("", US), "chained/app", "1", IMAGES[4])
    arrives(daemon.url("", EU), "chained/app", "1", IMAGES[4])
    arrives(daemon.url("", AP), "chained/app", "1", IMAGES[4])
    eu = daemon.url("", EU)
    assert {push_blob(eu, "chained/app", content).status for content in IMAGES[5].blobs.values()} == {201}
    refused = push_manifest(eu, "chained/app", "1", IMAGES[5].manifest, IMAGES[5].media_type)
    assert refused.status == 400
    assert "immutable" in refused.text.lower()


def test_only_some_platforms_go(daemon: Daemon) -> None:
    push(daemon.url("", US), "multi/app", "1", BOTH)
    eu = daemon.url("", EU)
    arrives(eu, "multi/app", "1", BOTH)
    assert get(f"{eu}/v2/multi/app/manifests/1").body == BOTH.manifest
    assert digest_at(eu, "multi/app", AMD.digest) == AMD.digest
    assert digest_at(eu, "multi/app", ARM.digest) is None


def test_a_missing_permission_is_named(daemon: Daemon) -> None:
    base, ap = daemon.url("", US), daemon.url("", AP)
    push(base, "denied/app", "1", IMAGES[6])
    [found] = settled(daemon, "denied/app", "1")
    assert (found["status"], found["failure_code"]) == ("FAILED", "AccessDenied:ecr:ReplicateImage")
    push(base, "known/app", "1", IMAGES[6])
    [found] = settled(daemon, "known/app", "1")
    assert (found["status"], found["failure_code"]) == ("FAILED", "AccessDenied:ecr:CreateRepository")
    assert digest_at(ap, "known/app", "1") is None
    push(ap, "known/app", "own", IMAGES[7])
    assert call("POST", daemon.url("/_replicator/v1/replication/retry", US), b"{}").status == 200
    arrives(ap, "known/app", "1", IMAGES[6])


def test_a_registry_of_somebody_else_gets_images(daemon: Daemon, harbor: Daemon) -> None:
    push(daemon.url("", US), "public/app", "1", BOTH)
    arrives(harbor.url(""), "public/app", "1", BOTH)
    [found] = settled(daemon, "public/app", "1")
    assert (found["status"], found["destination"]) == ("COMPLETE", "registry:harbor")


def test_a_share_of_the_bandwidth_is_kept(daemon: Daemon, harbor: Daemon) -> None:
    began = time.monotonic()
    push(daemon.url("", US), "slow/app", "1", LARGE)
    arrives(harbor.url(""), "slow/app", "1", LARGE)
    assert time.monotonic() - began > 1.0  # 4 MiB at 2 MiB/s, a quarter of a second ahead at most


def test_the_start_says_what_is_doubtful(daemon: Daemon) -> None:
    doubtful = [one["problem"] for one in daemon.events() if one["event"] == "configuration is doubtful"]
    assert any("rule existing-only" in one and "ecr:CreateRepository is missing" in one for one in doubtful)
    assert any("rule denied" in one and "ecr:ReplicateImage is missing" in one for one in doubtful)


def test_a_lag_objective_is_measured(daemon: Daemon) -> None:
    labels = {"rule": "to-chain", "destination": f"{ACCOUNT}/{EU}"}
    assert total(daemon, "replicator_replication_lag_objective_seconds", **labels) == 10


# Peers in other processes


@contextlib.contextmanager
def pair(directory: Path, secret: str, eu_secret: str) -> Iterator[tuple[Daemon, Daemon]]:
    """Run a destination, and yield it with a source that is not started; each has a secret for the other alone."""
    nowhere = "http://127.0.0.1:9"
    peer = {"account": ACCOUNT, "region": US, "url": nowhere, "secret": {"env": "PAIR"}}
    with Daemon(directory / "eu", {"nodes": [node(EU)], "peers": [peer]}, {"PAIR": eu_secret}) as eu:
        document = {
            "nodes": [node(US, replication={"rules": [{"name": "to-peer", "destinations": [TO_EU]}]})],
            "peers": [{"account": ACCOUNT, "region": EU, "url": eu.url(""), "secret": {"env": "PAIR"}}],
        }
        yield eu, Daemon(directory / "us", document, {"PAIR": secret})


def test_two_nodes_replicate_with_a_secret_of_their_own(tmp_path: Path) -> None:
    with pair(tmp_path, "p" * 20, "p" * 20) as (eu, source), source as us:
        push(us.url(""), "app", "1", IMAGES[0])
        arrives(eu.url(""), "app", "1", IMAGES[0])
        assert not [one for one in us.events() if one["event"] == "destination cannot be used"]
        checked = us.command("config", "check", "--connect", str(us.config))
        assert (checked.returncode, checked.stderr) == (0, "")


def test_a_wrong_secret_is_reported_at_start_with_the_rule(tmp_path: Path) -> None:
    with pair(tmp_path, "p" * 20, "q" * 20) as (eu, source), source as us:
        [event] = eventually(
            lambda: [one for one in us.events() if one["event"] == "destination cannot be used"], "the warning"
        )
        assert (event["destination"], event["rules"]) == (f"{ACCOUNT}/{EU}", ["to-peer"])
        push(us.url(""), "app", "1", IMAGES[0])
        assert settled(us, "app", "1")[0]["status"] == "FAILED"
        assert digest_at(eu.url(""), "app", "1") is None
        checked = us.command("config", "check", "--connect", str(us.config))
        assert checked.returncode == 1
        assert f"nodes[0].replication.rules[0]: rule to-peer: {ACCOUNT}/{EU} cannot be used" in checked.stderr


def test_what_is_still_on_its_way_is_served(tmp_path: Path) -> None:
    """The source sends one byte a second, so nothing of a large image arrives by replication while this runs."""
    rules = [{"name": "late", "destinations": [TO_EU], "rename": [{"to": "from-us/"}]}]
    trickle = {"rules": rules, "limits": [{**TO_EU, "bandwidth": 1}]}
    with Daemon(tmp_path, {"nodes": [node(US, replication=trickle), node(EU)]}) as daemon:
        push(daemon.url("", US), "app", "1", LARGE)
        base = daemon.url("", EU)
        manifest = get(f"{base}/v2/from-us/app/manifests/1")
        assert (manifest.status, manifest.body) == (200, LARGE.manifest)
        for digest, content in LARGE.blobs.items():
            assert get(f"{base}/v2/from-us/app/blobs/{digest}").body == content
        eventually(lambda: get(f"{base}/v2/from-us/app/tags/list").json().get("tags") == ["1"], "the image to be kept")
        assert get(f"{base}/v2/app/manifests/1").status == 404
        daemon.kill()


def test_reading_through_may_be_switched_off(tmp_path: Path) -> None:
    trickle = {"rules": [{"name": "late", "destinations": [TO_EU]}], "limits": [{**TO_EU, "bandwidth": 1}]}
    eu = node(EU, replication={"read_through": AT_REST})
    with Daemon(tmp_path, {"nodes": [node(US, replication=trickle), eu]}) as daemon:
        push(daemon.url("", US), "app", "1", LARGE)
        assert get(daemon.url("/v2/app/manifests/1", EU)).status == 404
        daemon.kill()


def test_what_was_lost_at_a_destination_comes_back(tmp_path: Path) -> None:
    rules = [{"name": "all", "destinations": [TO_EU]}]
    us = node(US, replication={"rules": rules, "anti_entropy": {"every": "1s"}})
    with Daemon(tmp_path, {"nodes": [us, node(EU, replication={"read_through": AT_REST})]}) as daemon:
        push(daemon.url("", US), "app", "1", IMAGES[0])
        eu = daemon.url("", EU)
        arrives(eu, "app", "1", IMAGES[0])
        daemon.terminate()
        with contextlib.closing(sqlite3.connect(daemon.data(EU) / "metadata.db")) as database, database:
            assert database.execute("DELETE FROM tags").rowcount == 1
        daemon.start()
        arrives(eu, "app", "1", IMAGES[0])
        labels = {"destination": f"{ACCOUNT}/{EU}", "kind": "missing-tag"}
        repaired = "replicator_replication_drift_repaired_total"
        eventually(lambda: total(daemon, repaired, **labels) == 1, "the repair to be counted")


def test_rules_that_were_set_at_run_time_hold_beside_those_of_the_file(tmp_path: Path) -> None:
    """Nobody listens for such rules yet, so they are put into the store; the early pull shows that both nodes know."""
    rule = {"name": "api-1", "destinations": [f"{ACCOUNT}/{EU}"], "filters": ["late/"], "delete_replication": False}
    content = json.dumps({"rules": [rule], "next_number": 2})
    file = {"rules": [{"name": "all", "destinations": [TO_AP], "filters": ["other/"]}]}
    shares = [{**TO_EU, "bandwidth": 1}]
    nodes = [node(US, replication={**file, "limits": shares}), node(EU), node(AP, OTHER)]
    with Daemon(tmp_path, {"nodes": nodes}) as daemon:
        daemon.terminate()
        with contextlib.closing(sqlite3.connect(daemon.data(US) / "metadata.db")) as database, database:
            database.execute("INSERT INTO registry_documents VALUES ('replication-rules', ?, 1, 1.0)", (content,))
        daemon.start()
        us, eu = daemon.url("", US), daemon.url("", EU)
        push(us, "late/app", "1", LARGE)
        push(us, "app", "1", IMAGES[0])
        assert [(one["destination"], one["rule"]) for one in status(daemon, "late/app", "1")] == [
            (f"{ACCOUNT}/{EU}", "api-1")
        ]
        assert status(daemon, "app", "1") == []
        assert get(f"{eu}/v2/late/app/manifests/1").status == 200
        daemon.kill()
