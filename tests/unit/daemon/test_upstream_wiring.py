"""What the configuration says about upstreams reaches their clients: where they are, and who we are there."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from replicator.config.model import Settings
from replicator.core.destinations import RegistryRef
from replicator.core.errors import ConfigurationError, UpstreamDenied
from replicator.core.names import parse_node
from replicator.daemon.connection_check import check_connections
from replicator.daemon.endpoints import Endpoints
from replicator.daemon.secrets import SecretStore
from replicator.upstream.addresses import Network
from replicator.upstream.client import open_client
from replicator.upstream.credentials import PAUSE
from replicator.upstream.endpoint import ClientCertificate, Credentials, ProxySettings
from tests.support.clock import FakeClock
from tests.support.configurations import AP, EU, US, node, peer
from tests.support.upstreams import FakeRegistry, Tokens

if TYPE_CHECKING:
    from pathlib import Path

    from replicator.upstream.endpoint import UpstreamEndpoint

US_ID = parse_node("111122223333/us-east-1")
EU_ID = parse_node("111122223333/eu-west-1")
AP_ID = parse_node("444455556666/ap-southeast-1")
HARBOR = "https://harbor.example.com"
ENVIRON = {"TOKEN": "secret", "PROXY": "through"}


def endpoints(environ: dict[str, str] | None = None, **upstream: Any) -> Endpoints:
    settings = Settings.model_validate({
        "version": 1,
        "nodes": [node(US, 5001), node(EU, 5002, replication={"limits": [{**AP, "bandwidth": 1000}]})],
        "peers": [peer(AP)],
        "upstreams": [{"name": "hub", **upstream}],
        "registries": [{"name": "harbor", "url": HARBOR, "credentials": upstream.get("credentials")}],
    })  # fmt: skip
    urls = {US_ID: "http://127.0.0.1:5001", EU_ID: "http://127.0.0.1:5002"}
    return Endpoints(settings, settings.nodes[0], SecretStore(environ or ENVIRON), urls)


def hub(**upstream: Any) -> UpstreamEndpoint:
    return endpoints(**upstream).upstream("hub", "1.1 me")


def test_a_preset_says_where_an_upstream_is_and_whom_to_trust() -> None:
    found = hub(preset="docker-hub", realm_hosts=["tokens.example.com"])
    assert found.url == "https://registry-1.docker.io"
    assert found.realm_hosts == {"auth.docker.io", "tokens.example.com"}
    assert (found.via, found.breaker, found.namespace) == ("1.1 me", True, None)


def test_an_upstream_may_be_on_the_internet_and_where_the_file_permits() -> None:
    assert hub(url="https://registry.example.com").networks == frozenset({Network.PUBLIC})
    permitted = hub(url="https://registry.example.com", networks=["private", "link-local"])
    assert permitted.networks == frozenset({Network.PUBLIC, Network.PRIVATE, Network.LINK_LOCAL})


def test_destinations_and_peers_may_be_anywhere() -> None:
    found = endpoints(preset="quay")
    assert {one.networks for one in (*found.nodes().values(), *found.registries().values())} == {None}
    assert found.cache_peer(AP_ID, "quay.io", "1.1 me").networks is None


def test_a_proxy_and_a_certificate_are_handed_on(tmp_path: Path) -> None:
    found = hub(
        url="https://registry.example.com",
        proxy={"url": "http://proxy:3128", "credentials": {"username": "me", "password": {"env": "PROXY"}}},
        client_certificate={"certificate": str(tmp_path / "c.pem"), "key": str(tmp_path / "k.pem")},
    )
    assert found.proxy == ProxySettings("http://proxy:3128", Credentials("me", "through"))
    assert found.client_certificate == ClientCertificate(tmp_path / "c.pem", tmp_path / "k.pem")
    plain = hub(url="https://registry.example.com", proxy={"url": "http://proxy:3128"})
    assert plain.proxy == ProxySettings("http://proxy:3128")


def test_a_peer_is_asked_as_the_registry_it_stands_for() -> None:
    found = endpoints(preset="quay").cache_peer(EU_ID, "quay.io", "1.1 me")
    assert (found.url, found.namespace, found.via) == ("http://127.0.0.1:5002", "quay.io", "1.1 me")
    assert endpoints(preset="quay").cache_peer(AP_ID, "quay.io", "1.1 me").bytes_per_second is None
    with pytest.raises(ConfigurationError, match="neither a node nor a peer"):
        endpoints(preset="quay").cache_peer(parse_node("111122223333/elsewhere"), "quay.io", "1.1 me")


async def credentials(environ: dict[str, str] | None = None, **upstream: Any) -> Credentials | None:
    found = endpoints(environ, **upstream)
    source = found.upstream_credentials("hub", FakeClock())
    same = found.registry_credentials(FakeClock()).get(RegistryRef("harbor"))
    assert (source is None) == (same is None)
    return found.upstream("hub").credentials if source is None else await source.get()


async def test_a_password_of_the_environment_stays(tmp_path: Path) -> None:
    known = {"username": "me", "password": {"env": "TOKEN"}}
    assert await credentials(preset="quay", credentials=known) == Credentials("me", "secret")
    assert await credentials(preset="quay") is None


async def test_a_password_of_a_file_is_read_again_when_refused(tmp_path: Path) -> None:
    file, clock = tmp_path / "password", FakeClock()
    file.write_text("first\n", encoding="utf-8")
    known = {"username": "me", "password": {"file": str(file)}}
    source = endpoints(preset="quay", credentials=known).upstream_credentials("hub", clock)
    assert source is not None
    first = await source.get()
    assert first == Credentials("me", "first")
    file.write_text("second\n", encoding="utf-8")
    clock.advance(PAUSE)
    source.refused(first)
    assert await source.get() == Credentials("me", "second")


async def test_docker_knows_the_password(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    auth = base64.b64encode(b"me:logged-in").decode()
    file.write_text(json.dumps({"auths": {"quay.io": {"auth": auth}, "harbor.example.com": {"auth": auth}}}))
    known = {"docker_config": str(file)}
    assert await credentials(preset="quay", credentials=known) == Credentials("me", "logged-in")


async def test_a_helper_knows_the_password(tmp_path: Path) -> None:
    program = tmp_path / "docker-credential-vault"
    body = 'import json, sys\nprint(json.dumps({"Username": "me", "Secret": "of " + sys.stdin.read()}))\n'
    program.write_text(f"#!{sys.executable} -I\n{body}", encoding="utf-8")
    program.chmod(0o755)
    found = await credentials({"PATH": str(tmp_path)}, preset="quay", credentials={"helper": "vault"})
    assert found == Credentials("me", "of quay.io")


async def test_refused_credentials_are_exchanged_for_what_the_file_says_now(tmp_path: Path) -> None:
    file, clock = tmp_path / "password", FakeClock(auto=True)
    file.write_text("old", encoding="utf-8")
    async with FakeRegistry(basic=("me", "old")) as registry:
        known = {"username": "me", "password": {"file": str(file)}}
        found = endpoints(url=registry.url, credentials=known)
        client = open_client(found.upstream("hub"), clock, credentials=found.upstream_credentials("hub", clock))
        try:
            await client.ping()
            registry.basic = ("me", "new")
            clock.advance(PAUSE)
            with pytest.raises(UpstreamDenied):
                await client.ping()
            file.write_text("new", encoding="utf-8")
            clock.advance(PAUSE)
            await client.ping()
        finally:
            await client.close()


def written(directory: Path, *upstreams: str, mirrors: str = "[]") -> Path:
    path = directory / "config.yaml"
    listed = "\n".join(f"  - {one}" for one in upstreams)
    path.write_text(
        f"""\
version: 1
upstreams:
{listed}
nodes:
  - account: "111122223333"
    region: us-east-1
    listen: 127.0.0.1:0
    cache:
      rules:
        - {{prefix: one, upstream: one, mirrors: {mirrors}}}
        - {{prefix: two, upstream: one, namespaces: []}}
""",
        encoding="utf-8",
    )
    return path


async def checked(path: Path) -> list[str]:
    return [str(one).removeprefix(f"{path}: ") for one in await asyncio.to_thread(check_connections, path, ENVIRON)]


async def test_checking_connections_asks_upstreams_with_their_credentials(tmp_path: Path) -> None:
    known = "credentials: {username: me, password: {env: TOKEN}}"
    async with FakeRegistry(basic=("me", "secret")) as good, FakeRegistry(basic=("me", "other")) as bad:
        fine = written(tmp_path, f"{{name: one, url: '{good.url}', {known}}}")
        assert await checked(fine) == []
        path = written(
            tmp_path,
            f"{{name: one, url: '{bad.url}', {known}}}",
            "{name: near, url: 'http://127.0.0.1:1'}",
            mirrors="[near]",
        )
        refused, unreachable = await checked(path)
    assert refused.startswith("upstreams[0]: upstream one of cache rule one, two cannot be used: ")
    assert unreachable.startswith("upstreams[1]: upstream near of cache rule one cannot be used: ")
    assert "secret" not in refused


async def test_checking_connections_asks_token_services(tmp_path: Path) -> None:
    async with FakeRegistry(tokens=Tokens("me", "secret")) as registry:
        known = "credentials: {username: me, password: {env: TOKEN}}"
        assert await checked(written(tmp_path, f"{{name: one, url: '{registry.url}', {known}}}")) == []
        registry.tokens = Tokens("me", "changed")
        [refused] = await checked(written(tmp_path, f"{{name: one, url: '{registry.url}', {known}}}"))
    assert "cannot be used" in refused


async def test_checking_connections_asks_peers_of_cache_rules_too(tmp_path: Path) -> None:
    async with FakeRegistry() as upstream:
        path = written(tmp_path, f"{{name: one, url: '{upstream.url}'}}")
        text = path.read_text(encoding="utf-8").replace("mirrors: []", 'peers: [{account: "111122223333", region: eu}]')
        text += 'peer_secret: {env: PEER}\npeers: [{account: "111122223333", region: eu, url: "http://127.0.0.1:1"}]\n'
        path.write_text(text, encoding="utf-8")
        environ = {"PEER": "a-secret-of-this-test"}
        [problem] = await asyncio.to_thread(check_connections, path, environ)
    assert problem.key == "nodes[0].cache.rules[0].peers[0]"
    assert problem.message.startswith("cache rule one: 111122223333/eu cannot be used: ")
