"""What operators ask a running daemon: is it alive, is it ready, what does it measure, how are its nodes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.daemon import Daemon
from tests.support.http_calls import call, get, push_blob, push_manifest
from tests.support.layouts import container_image
from tests.support.metrics import total
from tests.support.regions import AP, EU, US, three_regions
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("operations")]

IMAGE = container_image([{"etc/name": b"measured"}])


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Run three regions, with one image that has reached all of them."""
    with Daemon(tmp_path_factory.mktemp("daemon"), three_regions()) as running:
        base = running.url("", US)
        assert {push_blob(base, "team-a/app", content).status for content in IMAGE.blobs.values()} == {201}
        assert push_manifest(base, "team-a/app", "1.0", IMAGE.manifest, IMAGE.media_type).status == 201
        for region in (EU, AP):
            url = running.url("/v2/team-a/app/manifests/1.0", region)
            eventually(lambda url=url: call("HEAD", url).status == 200, f"the image in {region}")  # type: ignore[misc]
        yield running


def test_every_node_is_alive_and_ready(daemon: Daemon) -> None:
    for region in (US, EU, AP):
        for path in ("/healthz", "/readyz", "/readyz?mode=read", "/readyz?mode=write"):
            assert get(daemon.url(path, region)).status == 200
    assert get(daemon.url("/readyz?mode=sideways")).status == 400


def test_metrics_are_what_prometheus_reads(daemon: Daemon) -> None:
    answer = get(daemon.url("/metrics"))
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    for name in ("replicator_build_info", "replicator_replication_lag_seconds", "replicator_storage_bytes"):
        assert families[name].documentation
        assert families[name].samples
    assert total(daemon, "replicator_blobs", node=f"111122223333/{US}") == len(IMAGE.blobs)


def test_a_request_is_counted_once(daemon: Daemon) -> None:
    labels = {"node": f"444455556666/{AP}", "method": "GET", "status": "404"}
    before = total(daemon, "replicator_http_requests_total", **labels)
    assert get(daemon.url("/v2/never/pushed/manifests/1.0", AP)).status == 404
    assert total(daemon, "replicator_http_requests_total", **labels) == before + 1


def test_status_shows_nodes_queues_lag_and_cache(daemon: Daemon) -> None:
    done = daemon.command("status", "--json", "--config", str(daemon.config))
    assert (done.returncode, done.stderr) == (0, "")
    by_node = {one["node"]: one for one in json.loads(done.stdout)}
    assert set(by_node) == {f"111122223333/{US}", f"111122223333/{EU}", f"444455556666/{AP}"}
    source = by_node[f"111122223333/{US}"]
    assert source["ready"] == {"read": True, "write": True, "reason": ""}
    assert source["storage"]["images"] == 1
    assert set(source["replication"]["jobs"].values()) == {0}
    destinations = {one["destination"]: one for one in source["replication"]["destinations"]}
    for destination in (f"111122223333/{EU}", f"444455556666/{AP}"):
        assert destinations[destination]["images"] == 1
        assert 0 <= destinations[destination]["last_lag_seconds"] < 20
    assert isinstance(source["cache"], dict)


def test_status_is_a_text_for_people(daemon: Daemon) -> None:
    done = daemon.command("status", "--config", str(daemon.config))
    assert (done.returncode, done.stderr) == (0, "")
    for text in (f"111122223333/{US}", f"444455556666/{AP}", daemon.address(EU), "0 queued", "last lag"):
        assert text in done.stdout


def test_status_says_which_node_does_not_answer(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> None:
    with Daemon(tmp_path_factory.mktemp("stopped"), three_regions()) as stopped:
        stopped.terminate()
        done = stopped.command("status", "--json", "--config", str(stopped.config))
    assert done.returncode == 1
    assert all("cannot be reached" in one["error"] for one in json.loads(done.stdout))
