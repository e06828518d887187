"""What `config check --connect` says of upstreams and their credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicator.config.model import Settings
from replicator.config.problems import Severity
from replicator.daemon.secrets import SecretStore
from replicator.daemon.upstream_check import UpstreamCheck
from replicator.telemetry.system_clock import SystemClock
from tests.support.configurations import US, node
from tests.support.docker_registry import DockerRegistry, Htpasswd

if TYPE_CHECKING:
    from pathlib import Path

RIGHT, WRONG = ({"username": "me", "password": {"env": name}} for name in ("RIGHT", "WRONG"))
ENVIRON = {"RIGHT": "right", "WRONG": "wrong"}


def nothing(directory: Path) -> dict[str, Any]:
    """Return credentials that are nowhere."""
    path = directory / "config.json"
    path.write_text('{"auths": {}}')
    return {"docker_config": str(path)}


async def told(registry: DockerRegistry, **upstream: Any) -> list[tuple[Severity, str]]:
    rules = [{"prefix": "docker-hub", "upstream": "hub"}]
    document = {
        "version": 1,
        "upstreams": [{"name": "hub", "url": registry.url, **upstream}],
        "nodes": [node(US, 5001, cache={"rules": rules})],
    }
    check = UpstreamCheck(Settings.model_validate(document), "x.yaml", SecretStore(ENVIRON), SystemClock())
    found = await check.check()
    assert all(one.key == "upstreams[0]" for one in found)
    return [(one.severity, one.message.removeprefix("upstream hub of cache rule docker-hub ")) for one in found]


async def test_a_registry_that_wants_credentials(tmp_path: Path) -> None:
    refused = "cannot be used: hub: ping: answered 401 UNAUTHORIZED"
    with DockerRegistry(tmp_path / "registry", auth=Htpasswd("me", "right")) as registry:
        assert await told(registry, credentials=RIGHT) == []
        assert await told(registry, credentials=WRONG) == [(Severity.ERROR, refused)]
        assert await told(registry) == [(Severity.ERROR, f"{refused}; expected credentials")]
        assert await told(registry, credentials=nothing(tmp_path)) == [
            (Severity.ERROR, f"{refused}; its credentials have nothing for this registry")
        ]


async def test_a_registry_that_wants_none(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path / "registry") as registry:
        assert await told(registry) == []
        for credentials in (RIGHT, nothing(tmp_path)):
            assert await told(registry, credentials=credentials) == [
                (Severity.WARNING, "answers without asking for credentials: it may need none")
            ]
