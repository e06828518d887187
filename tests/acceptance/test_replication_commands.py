"""What operators and pipelines run against a daemon: wait for an image, see where it is, backfill, sync, retry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.daemon import Daemon, node
from tests.support.http_calls import basic, call, push_blob, push_manifest
from tests.support.layouts import container_image
from tests.support.metrics import total
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import CompletedProcess

    from tests.support.images import BuiltImage

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("replication-commands")]

ACCOUNT = "111122223333"
US, EU = "us-east-1", "eu-west-1"
EU_NODE = f"{ACCOUNT}/{EU}"
ONE = container_image([{"etc/name": b"one"}])
TWO = container_image([{"etc/name": b"two"}])


def document(**replication: Any) -> dict[str, Any]:
    """Return two nodes; the first sends what is below `team/` to the second."""
    rule = {"name": "team", "destinations": [{"account": ACCOUNT, "region": EU}], "filters": ["team/"]}
    rule |= {"lag_objective": "30s"}
    return {"nodes": [node(US, ACCOUNT, replication={"rules": [rule], **replication}), node(EU, ACCOUNT)]}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon"), document()) as running:
        yield running


def push(daemon: Daemon, image: BuiltImage, repository: str, tag: str, region: str = US) -> None:
    base = daemon.url("", region)
    assert {push_blob(base, repository, content).status for content in image.blobs.values()} == {201}
    assert push_manifest(base, repository, tag, image.manifest, image.media_type).status == 201


def holds(daemon: Daemon, repository: str, reference: str) -> bool:
    """Tell whether the second node holds an image; a pull would be answered while the image is still on its way."""
    query = f"repository={repository}&reference={reference}"
    return call("GET", daemon.url(f"/_replicator/v1/replication/images?{query}", EU)).status == 200


def run(daemon: Daemon, *arguments: str) -> CompletedProcess[str]:
    return daemon.command(*arguments, "--config", str(daemon.config))


def run_json(daemon: Daemon, *arguments: str, code: int = 0) -> Any:
    done = run(daemon, *arguments, "--json")
    assert (done.returncode, done.stderr) == (code, ""), done
    return json.loads(done.stdout)


def post(daemon: Daemon, path: str, body: object, region: str = US) -> tuple[int, Any]:
    url = daemon.url(f"/_replicator/v1/replication/{path}", region)
    found = call("POST", url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return found.status, found.json()


def test_wait_returns_when_the_image_can_be_pulled(daemon: Daemon) -> None:
    push(daemon, ONE, "team/waited", "1.0")
    done = run(daemon, "wait", "team/waited:1.0", "--regions", f"{US},{EU}", "--timeout", "20s")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert holds(daemon, "team/waited", "1.0")
    for name in (f"{ACCOUNT}/{US}", EU_NODE):
        assert f"{name}: COMPLETE team/waited@{ONE.digest}" in done.stdout
    found = run_json(daemon, "wait", f"team/waited@{ONE.digest}", "--regions", EU)
    assert (found["complete"], found["digest"]) == (True, ONE.digest)
    assert found["source"] == f"{ACCOUNT}/{US}"
    assert [(one["destination"], one["checked"]) for one in found["destinations"]] == [(EU_NODE, True)]


def test_wait_says_where_an_image_does_not_go(daemon: Daemon) -> None:
    push(daemon, ONE, "team/partly", "1.0")
    done = run(daemon, "wait", "team/partly:1.0", "--regions", f"{EU},ap-south-1", "--timeout", "20s")
    assert (done.returncode, done.stderr) == (1, "")
    lines = {line.partition(":")[0]: line for line in done.stdout.splitlines()}
    assert "COMPLETE" in lines[EU_NODE]
    assert lines["ap-south-1"].endswith("no replication rule sends it there")


def test_wait_without_regions_needs_a_rule(daemon: Daemon) -> None:
    push(daemon, ONE, "private/app", "1.0")
    done = run(daemon, "wait", "private/app:1.0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"replicator: {ACCOUNT}/{US}: no replication rule sends private/app:1.0 anywhere\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("wait", "team/nothing:1.0"), 1, "repository team/nothing has no manifest 1.0"),
        (("wait", "team/nothing"), 1, "expected repository:tag or repository@digest, got 'team/nothing'"),
        (("wait", "team/app@sha256:12"), 1, "expected sha256:"),
        (("wait", "team/app:1.0", "--from", "mars"), 1, "expected --from to name one of"),
        (("wait", "team/app:1.0", "--timeout", "soon"), 2, "expected a time such as 60s or 5m"),
        (("sync", "team/app:1.0", "--repository", "team/app"), 1, "expected an image or --repository, not both"),
        (("backfill", "start", "--destination", "mars"), 1, "expected an account id of 12 digits"),
        (("backfill", "start", "--destination", f"{ACCOUNT}/ap-south-1"), 1, "expected a destination of the"),
        (("backfill", "show", "nothing"), 1, "there is no backfill nothing"),
        (("backfill", "stop", "nothing"), 1, "there is no backfill nothing"),
        (("replication", "image", "team/nothing:1.0"), 1, "has no manifest"),
        (("replication", "retry", "--destination", "mars"), 1, "expected an account id"),
        (("wait", "team/app:1.0", "--ca-file", "/nowhere.pem"), 1, "cannot load --ca-file /nowhere.pem"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_one_line(daemon: Daemon, arguments: tuple[str, ...], code: int, text: str) -> None:
    done = run(daemon, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in " ".join(done.stderr.replace("│", " ").split())
    assert code == 2 or len(done.stderr.splitlines()) == 1


def test_an_image_shows_how_far_it_is(daemon: Daemon) -> None:
    push(daemon, ONE, "team/shown", "1.0")
    assert run(daemon, "wait", "team/shown:1.0", "--timeout", "20s").returncode == 0
    done = run(daemon, "replication", "image", "team/shown:1.0")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{EU_NODE}: COMPLETE team/shown:1.0 by rule team after" in done.stdout
    found = run_json(daemon, "replication", "image", f"team/shown@{ONE.digest}")
    assert [(one["status"], one["tag"], one["rule"]) for one in found["statuses"]] == [("COMPLETE", "1.0", "team")]
    assert [(one["status"], one["failure_code"]) for one in found["destinations"]] == [("COMPLETE", None)]


def test_status_and_metrics_show_the_objective(daemon: Daemon) -> None:
    push(daemon, ONE, "team/measured", "1.0")
    assert run(daemon, "wait", "team/measured:1.0", "--timeout", "20s").returncode == 0
    source = run_json(daemon, "status")[0]
    (objective,) = source["replication"]["objectives"]
    assert (objective["rule"], objective["destination"], objective["objective_seconds"]) == ("team", EU_NODE, 30.0)
    assert objective["windows"]["1h"]["met"] >= 1
    assert (objective["windows"]["1h"]["burn_rate"], objective["overdue"]) == (0.0, 0)
    assert source["replication"]["conflicts"] == []
    labels = {"node": f"{ACCOUNT}/{US}", "rule": "team", "destination": EU_NODE}
    assert total(daemon, "replicator_replication_lag_objective_seconds", **labels) == 30
    assert total(daemon, "replicator_replication_lag_burn_rate", **labels, window="5m") == 0
    assert total(daemon, "replicator_replication_lag_seconds_count", **labels) >= 1
    assert "99 % of images within 30 s, burn 0.0 in 5m" in run(daemon, "status").stdout


def test_a_backfill_brings_what_was_there_before_the_rule(tmp_path_factory: pytest.TempPathFactory) -> None:
    with_rules = document()
    without: dict[str, Any] = {"nodes": [node(US, ACCOUNT), node(EU, ACCOUNT)]}
    with Daemon(tmp_path_factory.mktemp("before"), without) as daemon:
        push(daemon, ONE, "team/early", "1.0")
        push(daemon, TWO, "team/early", "2.0")
        daemon.document["nodes"][0]["replication"] = with_rules["nodes"][0]["replication"]
        daemon.restart()
        waited = run(daemon, "wait", "team/early:1.0", "--regions", EU)
        assert waited.returncode == 1
        assert "was added after the push; sync or backfill it" in waited.stdout
        found = run_json(daemon, "backfill", "start", "--destination", EU_NODE, "--follow")
        assert (found["state"], found["progress"]["complete"], found["failed_images"]) == ("COMPLETE", 2, [])
        for tag in ("1.0", "2.0"):
            assert holds(daemon, "team/early", tag)
        listed = run(daemon, "backfill", "list")
        assert (listed.returncode, found["id"] in listed.stdout, "2 of 2 images" in listed.stdout) == (0, True, True)
        assert run(daemon, "backfill", "show", found["id"]).stdout.startswith(f"{found['id']} COMPLETE: 2 of 2 images")
        stopped = run(daemon, "backfill", "stop", found["id"])
        assert (stopped.returncode, stopped.stdout) == (1, "")


def test_a_sync_shows_what_is_missing_and_brings_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    with_rules = document()
    with Daemon(tmp_path_factory.mktemp("sync"), {"nodes": [node(US, ACCOUNT), node(EU, ACCOUNT)]}) as daemon:
        push(daemon, ONE, "team/early", "1.0")
        push(daemon, TWO, "team/late", "2.0")
        daemon.document["nodes"][0]["replication"] = with_rules["nodes"][0]["replication"]
        daemon.restart()
        plan = run_json(daemon, "sync", "--dry-run")
        assert [(one["repository"], one["tag"], one["kind"], one["rule"]) for one in plan["items"]] == [
            ("team/early", "1.0", "missing-tag", "team"),
            ("team/late", "2.0", "missing-tag", "team"),
        ]
        blobs = {**ONE.blobs, **TWO.blobs}
        assert plan["bytes"] == sum(len(content) for content in blobs.values()), "each blob is counted once"
        shown = run(daemon, "sync", "team/early:1.0", "--dry-run")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "team/early:1.0" in shown.stdout
        assert "rule team" in shown.stdout
        assert "team/late" not in shown.stdout
        assert not holds(daemon, "team/early", "1.0")
        done = run(daemon, "sync", "team/early:1.0")
        assert (done.returncode, done.stderr) == (0, ""), done
        assert "COMPLETE: 1 of 1 images" in done.stdout
        assert holds(daemon, "team/early", "1.0")
        found = run_json(daemon, "sync", "--repository", "team/late", "--destination", EU_NODE)
        assert (found["state"], found["progress"]["complete"]) == ("COMPLETE", 1)
        assert holds(daemon, "team/late", "2.0")
        again = run(daemon, "sync", "--dry-run")
        assert (again.returncode, again.stdout) == (0, "0 differences, 0 B to be sent\n")


def test_a_destination_that_forbids_it_is_named_with_the_permission(tmp_path_factory: pytest.TempPathFactory) -> None:
    other = "444455556666"
    rule = {"name": "over", "destinations": [{"account": other, "region": EU}], "filters": ["team/"]}
    nodes = [node(US, ACCOUNT, replication={"rules": [rule]}), node(EU, other)]
    with Daemon(tmp_path_factory.mktemp("denied"), {"nodes": nodes}) as daemon:
        push(daemon, ONE, "team/app", "1.0")
        done = run(daemon, "sync", "team/app:1.0", "--dry-run")
        assert done.returncode == 1
        assert "ecr:ReplicateImage is not allowed" in done.stdout
        synced = run(daemon, "sync", "team/app:1.0")
        assert synced.returncode == 1
        assert f"team/app:1.0 to {other}/{EU}: FAILED AccessDenied:ecr:ReplicateImage" in synced.stdout
        waited = run(daemon, "wait", "team/app:1.0", "--regions", EU, "--timeout", "200ms")
        assert waited.returncode == 1
        assert f"{other}/{EU}: FAILED" in waited.stdout
        assert "AccessDenied:ecr:ReplicateImage" in waited.stdout
        shown = run(daemon, "replication", "image", "team/app:1.0")
        assert (shown.returncode, "AccessDenied:ecr:ReplicateImage" in shown.stdout) == (1, True)
        labels = {"destination": f"{other}/{EU}", "code": "AccessDenied:ecr:ReplicateImage"}
        assert total(daemon, "replicator_replication_failures_total", **labels) >= 1
        status = run(daemon, "status").stdout
        assert "AccessDenied:ecr:ReplicateImage" in status
        assert f"failing      team/app:1.0 to {other}/{EU} by rule over after" in status


def test_retry_tries_at_once_what_waits(tmp_path_factory: pytest.TempPathFactory) -> None:
    only_source = document()
    peers = [{"account": ACCOUNT, "region": EU, "url": "http://127.0.0.1:9"}]
    nobody = {"nodes": only_source["nodes"][:1], "peers": peers, "peer_secret": {"env": "PEER_SECRET"}}
    secret = {"PEER_SECRET": "a secret of thirty-two characters or more"}
    with Daemon(tmp_path_factory.mktemp("retry"), nobody, secret) as daemon:
        push(daemon, ONE, "team/stuck", "1.0")
        labels = {"destination": EU_NODE, "outcome": "retry"}
        eventually(
            lambda: total(daemon, "replicator_replication_attempts_total", **labels) > 0, "the first attempt to fail"
        )
        done = run(daemon, "wait", "team/stuck:1.0", "--regions", EU, "--timeout", "300ms")
        assert done.returncode == 1
        assert "IN_PROGRESS" in done.stdout
        assert run_json(daemon, "replication", "retry", "--repository", "team/other") == [
            {"node": f"{ACCOUNT}/{US}", "jobs": 0}
        ]
        assert run(daemon, "replication", "retry").returncode == 0
        assert total(daemon, "replicator_replication_retries_total", destination=EU_NODE) >= 1
        assert total(daemon, "replicator_replication_jobs", destination=EU_NODE, priority_class="push") == 1
        plan = run(daemon, "sync", "--dry-run")
        assert (plan.returncode, f"{EU_NODE} could not be asked:" in plan.stdout) == (1, True), plan


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("wait", [], "expected a JSON object"),
        ("wait", {"repository": "team/app"}, "expected reference as text"),
        ("wait", {"repository": "Team", "reference": "1"}, "expected lower-case path components"),
        ("wait", {"repository": "team/app", "reference": "1", "timeout": "1"}, "expected timeout to be a number"),
        ("wait", {"repository": "team/app", "reference": "1", "timeout": 1e9}, "from 0 to 3600"),
        ("wait", {"repository": "team/app", "reference": "1", "regions": "eu"}, "expected regions to be a list"),
        ("wait", {"repository": "team/app", "reference": "1", "region": "eu"}, "expected only the fields repository"),
        ("retry", {"destination": 1}, "expected destination as text"),
        ("backfills", {}, "expected destination as text"),
        ("sync", {"reference": "1.0"}, "expected a repository with the reference"),
        ("sync", {"dry_run": "yes"}, "expected dry_run to be true or false"),
        ("sync", {"destination": f"{ACCOUNT}/ap-south-1"}, "expected a destination of the replication configuration"),
    ],
)
def test_malformed_requests_are_told_what_was_expected(daemon: Daemon, path: str, body: object, text: str) -> None:
    status, document = post(daemon, path, body)
    assert (status, text in document["errors"][0]["message"]) == (400, True), document


def test_bodies_are_bounded_and_methods_named(daemon: Daemon) -> None:
    base = daemon.url("/_replicator/v1/replication/")
    assert call("POST", f"{base}wait", b" " * 70_000).status == 413
    assert call("POST", f"{base}wait", b"{" * 60_000).status == 400
    answer = call("PUT", f"{base}backfills")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, POST")
    assert call("GET", f"{base}images").status == 400
    assert call("GET", f"{base}nothing").status == 404
    assert call("GET", f"{base}wait/x").status == 404


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Run the two nodes with users: one may do everything, one may only read `team/`."""
    users = [
        {"name": "admin", "password": {"env": "ADMIN"}, "grants": [{"actions": ["pull", "push", "delete"]}]},
        {
            "name": "reader",
            "password": {"env": "READER"},
            "grants": [{"actions": ["pull"], "repositories": ["team/*"]}],
        },
    ]
    guarded = document()
    for settings in guarded["nodes"]:
        settings["auth"] = {"users": users}
    with Daemon(tmp_path_factory.mktemp("guarded"), guarded, {"ADMIN": "admin-pw", "READER": "reader-pw"}) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "body", "nobody", "reader", "admin"),
    [
        ("POST", "wait", {"repository": "team/app", "reference": "1.0", "timeout": 0}, 401, 404, 404),
        ("POST", "wait", {"repository": "other/app", "reference": "1.0", "timeout": 0}, 401, 403, 404),
        ("GET", "images?repository=other/app&reference=1.0", None, 401, 403, 404),
        ("GET", "conflicts", None, 401, 200, 200),
        ("GET", "backfills", None, 401, 200, 200),
        ("POST", "retry", {"repository": "team/app"}, 401, 403, 200),
        ("POST", "retry", {}, 401, 403, 200),
        ("POST", "backfills", {"destination": EU_NODE, "repository": "team/app"}, 401, 403, 404),
        ("DELETE", "backfills/nothing", None, 401, 404, 404),
        ("POST", "sync", {"repository": "team/app", "dry_run": True}, 401, 404, 404),
        ("POST", "sync", {"repository": "team/app"}, 401, 403, 404),
        ("POST", "sync", {"dry_run": True}, 401, 403, 200),
    ],
)
def test_users_see_and_cause_what_they_may(
    guarded: Daemon, method: str, path: str, body: object, nobody: int, reader: int, admin: int
) -> None:
    url = guarded.url(f"/_replicator/v1/replication/{path}")
    content = None if body is None else json.dumps(body).encode()
    callers: tuple[dict[str, str], ...] = ({}, basic("reader", "reader-pw"), basic("admin", "admin-pw"))
    assert [call(method, url, content, headers).status for headers in callers] == [nobody, reader, admin]


def test_a_web_page_causes_nothing(guarded: Daemon) -> None:
    """A browser that knows the password sends it along with what a page of somebody else posts."""
    base, page = guarded.url("/_replicator/v1/replication/"), {"Origin": "https://elsewhere.example"}
    headers = basic("admin", "admin-pw") | page
    for path in ("retry", "sync", "backfills"):
        assert call("POST", base + path, b"{}", headers).status == 403, path
    assert call("DELETE", base + "backfills/nothing", headers=headers).status == 403


def test_commands_log_in(guarded: Daemon) -> None:
    refused = run(guarded, "replication", "conflicts")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"replicator: {ACCOUNT}/{US}: asks for credentials: use --user, with the password in REPLICATOR_PASSWORD\n"
    )
    guarded.environ |= {"REPLICATOR_PASSWORD": "admin-pw"}
    assert run(guarded, "replication", "conflicts", "--user", "admin").stdout == "no conflicts\n"
    wrong = run(guarded, "replication", "conflicts", "--user", "reader")
    assert "refuses the user or the password" in wrong.stderr
