"""What a configuration file says about peers and credentials of the cache, as the daemon does it."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.daemon import Daemon, node
from tests.support.docker_registry import DockerRegistry, Htpasswd
from tests.support.http_calls import get
from tests.support.layouts import container_image, write_oci_layout
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.skopeo import Skopeo

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.xdist_group("pull-through")]

IMAGE = container_image([{"etc/name": b"shared" * 5000}])
HERE, THERE = "eu-west-1", "ap-southeast-1"
STRANGER = {"account": "444455556666", "region": THERE}
APP = "/v2/hub/library/app"


def push(skopeo: Skopeo, registry: DockerRegistry, directory: Path, *options: str) -> None:
    write_oci_layout(directory, {"one": IMAGE})
    skopeo.copy(f"oci:{directory}:one", f"docker://{registry.address}/library/app:1.0", *options)


def pull(daemon: Daemon, region: str) -> None:
    """Pull the image with all its blobs, and check every byte."""
    answer = get(daemon.url(f"{APP}/manifests/1.0", region))
    assert (answer.status, answer.body) == (200, IMAGE.manifest)
    for digest, content in IMAGE.blobs.items():
        assert get(daemon.url(f"{APP}/blobs/{digest}", region)).body == content


def cache(**more: Any) -> dict[str, Any]:
    return {"rules": [{"prefix": "hub", "upstream": "plain", **more}]}


@pytest.mark.parametrize(("serve_to", "downloads"), [([STRANGER], 1), ([], 2)])
def test_a_node_of_another_account_is_served_where_it_is_named(
    skopeo: Skopeo, tmp_path: Path, serve_to: list[dict[str, str]], downloads: int
) -> None:
    asking = cache(peers=[{"account": "111122223333", "region": HERE}])
    with DockerRegistry(tmp_path / "upstream") as upstream:
        push(skopeo, upstream, tmp_path / "layout")
        document = {
            "upstreams": [{"name": "plain", "url": upstream.url}],
            "nodes": [
                node(HERE, cache={**cache(), "serve_to": serve_to}),
                node(THERE, account=STRANGER["account"], cache=asking),
            ],
        }
        with Daemon(tmp_path / "daemon", document) as daemon:
            pull(daemon, HERE)
            pull(daemon, THERE)
        assert len(upstream.blob_downloads()) == downloads * len(IMAGE.blobs)


def test_who_logs_in_with_docker_need_not_restart_the_daemon(skopeo: Skopeo, tmp_path: Path) -> None:
    config = tmp_path / "config.json"

    def log_in(password: str) -> None:
        auth = base64.b64encode(f"me:{password}".encode()).decode()
        fresh = tmp_path / "config.new"
        fresh.write_text(json.dumps({"auths": {upstream.address: {"auth": auth}}}), encoding="utf-8")
        fresh.replace(config)  # as docker does

    with DockerRegistry(tmp_path / "upstream", Htpasswd("me", "right")) as upstream:
        push(skopeo, upstream, tmp_path / "layout", "--dest-creds", "me:right")
        log_in("a-wrong-password")
        document = {
            "upstreams": [{"name": "plain", "url": upstream.url, "credentials": {"docker_config": str(config)}}],
            "nodes": [node(HERE, cache=cache(negative_for="off"))],
        }
        with Daemon(tmp_path / "daemon", document) as daemon:
            assert get(daemon.url(f"{APP}/manifests/1.0", HERE)).status == 502
            log_in("right")
            eventually(lambda: get(daemon.url(f"{APP}/manifests/1.0", HERE)).status == 200, "the new password")
            pull(daemon, HERE)
            assert "a-wrong-password" not in daemon.output()
