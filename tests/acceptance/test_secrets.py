"""No password, token or connection string is ever written: not to a log, not into an answer, not into a metric."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.daemon import Daemon, node, run_command
from tests.support.docker_registry import DockerRegistry, Htpasswd
from tests.support.http_calls import basic, call, get, push_blob, push_manifest
from tests.support.images import build_image
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("secrets")]

USER = "canary-of-a-user"
UPSTREAM = "canary-of-an-upstream"
PEER = "canary-of-all-the-peers"
GUESS = "canary-of-a-wrong-guess"
DSN = "canary-of-a-database"
KEY = "canary-of-a-bucket"

NAMES = {"ci": USER, "puller": UPSTREAM}


def forms_of(secret: str) -> set[str]:
    """Return what a secret may look like on its way: as it is, and as Basic credentials."""
    pairs = [base64.b64encode(f"{name}:{secret}".encode()).decode() for name in NAMES]
    return {secret, *pairs}


def assert_clean(text: str) -> None:
    """Check that a text holds none of the secrets."""
    leaked = {secret for secret in (USER, UPSTREAM, PEER, GUESS) for form in forms_of(secret) if form in text}
    assert not leaked


def test_no_secret_is_written_while_everything_goes_wrong(tmp_path: Path) -> None:
    destination = {"account": "111122223333", "region": "eu-west-1"}
    user = {"name": "ci", "password": {"env": "USER_PASSWORD"}, "grants": [{"actions": ["pull", "push"]}]}
    environ = {"USER_PASSWORD": USER, "UPSTREAM_PASSWORD": UPSTREAM, "PEER_SECRET": PEER}
    with DockerRegistry(tmp_path / "upstream", Htpasswd("puller", "another password")) as upstream:
        document = {
            "log": {"level": "debug", "format": "json"},
            "peer_secret": {"env": "PEER_SECRET"},
            "upstreams": [
                {
                    "name": "private",
                    "url": upstream.url,
                    "credentials": {"username": "puller", "password": {"env": "UPSTREAM_PASSWORD"}},
                }
            ],
            "peers": [{**destination, "url": upstream.url}],
            "nodes": [
                node(
                    auth={"users": [user]},
                    cache={"rules": [{"prefix": "private", "upstream": "private"}]},
                    replication={"rules": [{"name": "all", "destinations": [destination]}]},
                )
            ],
        }
        with Daemon(tmp_path / "daemon", document, environ) as daemon:
            answers = provoke(daemon)
            daemon.environ["REPLICATOR_PASSWORD"] = USER
            shown = daemon.command("status", "--json", "--user", "ci", "--config", str(daemon.config))
            assert shown.returncode == 0
            answers += [shown.stdout, shown.stderr]
            upstream.stop()
            answers += [str(get(daemon.url("/v2/private/app/manifests/2.0"), basic("ci", USER)).body)]
            answers += [get(daemon.url("/metrics")).text]
            eventually(lambda: any(one["level"] == "warning" for one in daemon.events()), "a warning")
            daemon.terminate()
            for answer in answers:
                assert_clean(answer)
            assert '"path":"/v2/private/app/manifests/1.0"' in daemon.output()
            assert_clean(daemon.output())


def provoke(daemon: Daemon) -> list[str]:
    """Make requests that fail in many ways; return what was answered."""
    image = build_image([b"layer"])
    good = basic("ci", USER)
    base = daemon.url("")
    for content in image.blobs.values():
        assert push_blob(base, "app", content, good).status == 201
    assert push_manifest(base, "app", "1.0", image.manifest, image.media_type, good).status == 201
    answers = [
        get(daemon.url("/v2/app/manifests/1.0"), basic("ci", GUESS)),
        get(daemon.url("/v2/app/manifests/1.0"), {"Authorization": f"Bearer {PEER}"}),
        get(daemon.url("/v2/app/manifests/1.0"), {"Authorization": f"Basic {USER}"}),
        get(daemon.url(f"/v2/app/manifests/{USER}"), good),
        get(daemon.url(f"/v2/?password={USER}&token={PEER}"), {"User-Agent": USER}),
        get(daemon.url("/v2/private/app/manifests/1.0"), good),
        call("PUT", daemon.url("/v2/app/manifests/2.0"), USER.encode(), {**good, "Content-Type": "text/plain"}),
        call("POST", daemon.url("/v2/app/blobs/uploads/?digest=sha256:0"), USER.encode(), good),
    ]
    assert [answer.status for answer in answers[:4]] == [401, 401, 401, 404]
    assert answers[5].status == 502
    # A reference that happens to be a secret of the caller's own is the caller's business; ours is what we say first.
    return [answer.text for index, answer in enumerate(answers) if index != 3]


def test_no_secret_is_in_the_reason_why_a_start_failed(tmp_path: Path) -> None:
    metadata = {"kind": "postgresql", "dsn": {"env": "DSN"}}
    blobs = {
        "kind": "s3",
        "bucket": "no-such-bucket",
        "endpoint": "http://127.0.0.1:1",
        "allow_http": True,
        "access_key_id": {"env": "KEY_ID"},
        "secret_access_key": {"env": "KEY"},
    }
    environ = {"DSN": f"postgresql://somebody:{DSN}@127.0.0.1:1/nothing", "KEY_ID": "an-id", "KEY": KEY}
    for storage in ({"metadata": metadata}, {"metadata": metadata, "blobs": blobs}):
        config = tmp_path / "replicator.yaml"
        document = {"version": 1, "storage_root": str(tmp_path / "data"), "nodes": [node(storage=storage)]}
        config.write_text(yaml.safe_dump(document))
        done = run_command("serve", "--config", str(config), cwd=tmp_path, environ=environ)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert DSN not in done.stdout + done.stderr
        assert KEY not in done.stdout + done.stderr
