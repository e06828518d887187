"""The daemon starts with everything else down, and refuses to start, with a reason, where it could do harm."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.daemon import Daemon, node, run_command
from tests.support.http_calls import get, push_blob, sha256

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("starting")]

START_SECONDS = 3.0


def serve(directory: Path, document: dict[str, Any]) -> tuple[int, str]:
    """Run a daemon that is expected to end at once; return its exit code and what it said."""
    config = directory / "refused.yaml"
    config.write_text(yaml.safe_dump({"version": 1, "storage_root": str(directory / "refused"), **document}))
    done = run_command("serve", "--config", str(config), cwd=directory)
    return done.returncode, done.stderr


def start_seconds(daemon: Daemon) -> float:
    """Kill the daemon and return how long it takes to be ready again."""
    daemon.kill()
    return daemon.timed_start()


def unreachable() -> str:
    """Return the address of a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_it_starts_quickly_while_every_upstream_and_peer_is_down(tmp_path: Path) -> None:
    destination = {"account": "111122223333", "region": "eu-west-1"}
    document = {
        "peer_secret": {"env": "PEER_SECRET"},
        "upstreams": [{"name": "gone", "url": f"http://{unreachable()}"}],
        "peers": [{**destination, "url": f"http://{unreachable()}"}],
        "nodes": [
            node(
                cache={"rules": [{"prefix": "gone", "upstream": "gone"}]},
                replication={"rules": [{"name": "all", "destinations": [destination]}]},
            )
        ],
    }
    with Daemon(tmp_path / "daemon", document, {"PEER_SECRET": "shared by both processes"}) as daemon:
        assert push_blob(daemon.url(""), "a/b", b"kept").status == 201
        assert min(start_seconds(daemon) for _ in range(3)) < START_SECONDS
        assert get(daemon.url(f"/v2/a/b/blobs/{sha256(b'kept')}")).body == b"kept"


def test_a_second_daemon_does_not_touch_a_store_in_use(tmp_path: Path) -> None:
    with Daemon(tmp_path / "daemon", {"nodes": [node()]}) as daemon:
        assert push_blob(daemon.url(""), "a/b", b"mine").status == 201
        other = {"nodes": [node()], "storage_root": str(daemon.directory / "data")}
        code, said = serve(tmp_path, other)
        assert code == 1
        assert f"is in use by process {daemon.process.pid}" in said
        assert "Traceback" not in said
        assert get(daemon.url(f"/v2/a/b/blobs/{sha256(b'mine')}")).body == b"mine"
        assert push_blob(daemon.url(""), "a/b", b"and more").status == 201


def test_a_port_in_use_is_named_before_anything_is_stored(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, said = serve(tmp_path, {"nodes": [node(listen=address)]})
    assert code == 1
    assert f"111122223333/us-east-1 cannot listen on {address}: Address already in use" in said
    assert "Traceback" not in said
    assert not (tmp_path / "refused").exists()


def test_it_does_not_listen_to_the_network_without_authentication(tmp_path: Path) -> None:
    code, said = serve(tmp_path, {"nodes": [node(listen="0.0.0.0:0")]})
    assert code == 1
    assert "nodes[0].listen" in said
    assert "is reachable by other machines and the node has no auth" in said
    assert not (tmp_path / "refused").exists()


def test_it_listens_to_the_network_when_told_to(tmp_path: Path) -> None:
    open_node = node(listen="0.0.0.0:0", allow_unauthenticated_network=True)
    with Daemon(tmp_path / "daemon", {"nodes": [open_node]}) as daemon:
        assert get(daemon.url("/v2/")).status == 200


def test_a_missing_secret_is_named_without_starting(tmp_path: Path) -> None:
    user = {"name": "ci", "password": {"env": "NO_SUCH_VARIABLE"}, "grants": [{"actions": ["pull"]}]}
    code, said = serve(tmp_path, {"nodes": [node(auth={"users": [user]})]})
    assert code == 1
    assert "NO_SUCH_VARIABLE" in said
    assert "Traceback" not in said


WRONG = """\
version: 1
storage_root: data
shutdown_grace: 30
upstreams:
  - name: hub
    url: ftp://example.com
nodes:
  - account: "1"
    region: eu-west-1
    listen: 0.0.0.0:5001
    repositorys: {}
"""


def test_every_problem_of_a_configuration_is_reported_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text(WRONG)
    done = run_command("config", "check", str(config), cwd=tmp_path)
    assert done.returncode == 1
    for line, key in (
        (3, "shutdown_grace"),
        (6, "upstreams[0].url"),
        (8, "nodes[0].account"),
        (11, "nodes[0].repositorys"),
    ):
        assert f"wrong.yaml:{line}: {key}: " in done.stderr
    assert "ok" not in done.stdout

    reported = json.loads(run_command("config", "check", "--json", str(config), cwd=tmp_path).stdout)
    assert {(one["line"], one["key"]) for one in reported} >= {(3, "shutdown_grace"), (8, "nodes[0].account")}
    assert serve(tmp_path, yaml.safe_load(WRONG))[0] == 1


def test_a_sound_configuration_is_ok(tmp_path: Path) -> None:
    config = tmp_path / "sound.yaml"
    config.write_text(yaml.safe_dump({"version": 1, "nodes": [node(listen="127.0.0.1:5001")]}))
    done = run_command("config", "check", str(config), cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, f"{config}: ok")
