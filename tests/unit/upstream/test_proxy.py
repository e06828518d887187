"""Upstreams that are reached through a proxy."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

from replicator.core.errors import ConfigurationError, UpstreamContent, UpstreamDenied, UpstreamUnavailable
from replicator.core.names import RepositoryName, Tag
from replicator.upstream.endpoint import Credentials, ProxySettings
from tests.support.http_proxy import HttpProxy
from tests.support.upstream_clients import client_of
from tests.support.upstreams import FakeRegistry, FakeServer, Fault, Tokens, basic

if TYPE_CHECKING:
    from pathlib import Path

ALPINE, TAG = RepositoryName("library/alpine"), Tag("3.20")
PROXY_USER = Credentials("node", "proxy-password")


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def tls_of(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


class TestHttpUpstream:
    async def test_is_asked_by_the_proxy_which_also_resolves_its_name(self, upstream: FakeRegistry) -> None:
        image = upstream.add_image(ALPINE, TAG)
        authority = f"registry.invalid:{upstream.port}"
        async with (
            HttpProxy(routes={authority: ("127.0.0.1", upstream.port)}) as proxy,
            client_of(upstream, url=f"http://{authority}", proxy=ProxySettings(proxy.url)) as client,
        ):
            assert (await client.get_manifest(ALPINE, TAG)).digest == image.digest
            assert proxy.lines == [f"GET http://{authority}/v2/library/alpine/manifests/3.20 HTTP/1.1"]

    async def test_shows_the_proxy_its_credentials_and_the_upstream_its_own(self) -> None:
        async with (
            FakeRegistry(basic=("ann", "correct-horse")) as upstream,
            HttpProxy(authorization=basic("node", "proxy-password")) as proxy,
            client_of(
                upstream, proxy=ProxySettings(proxy.url, PROXY_USER), credentials=Credentials("ann", "correct-horse")
            ) as client,
        ):
            await client.ping()
            assert upstream.authorizations() == [basic("ann", "correct-horse")]
            assert all("proxy-authorization" not in request.headers for request in upstream.requests)


class TestHttpsUpstream:
    @pytest.mark.parametrize("proxy_tls", [False, True])
    async def test_is_reached_through_a_tunnel(self, authority: trustme.CA, ca_file: Path, *, proxy_tls: bool) -> None:
        target = "registry.invalid:443"
        async with FakeRegistry(tls=tls_of(authority, "registry.invalid")) as upstream:
            image = upstream.add_image(ALPINE, TAG)
            async with (
                HttpProxy(
                    routes={target: ("127.0.0.1", upstream.port)},
                    authorization=basic("node", "proxy-password"),
                    tls=tls_of(authority, "127.0.0.1") if proxy_tls else None,
                ) as proxy,
                client_of(
                    upstream,
                    url="https://registry.invalid",
                    ca_file=ca_file,
                    proxy=ProxySettings(proxy.url, PROXY_USER),
                ) as client,
            ):
                assert (await client.get_manifest(ALPINE, TAG)).digest == image.digest
                async with client.open_blob(ALPINE, image.config) as stream:
                    assert [chunk async for chunk in stream.chunks]
                assert set(proxy.lines) == {f"CONNECT {target} HTTP/1.1"}
                assert all("v2" not in head for head in proxy.heads), "what is asked for is nothing to the proxy"
                assert all("proxy-authorization" not in request.headers for request in upstream.requests)

    async def test_verifies_the_upstream_behind_the_tunnel(self, authority: trustme.CA, ca_file: Path) -> None:
        async with (
            FakeRegistry(tls=tls_of(authority, "other.invalid")) as upstream,
            HttpProxy(routes={"registry.invalid:443": ("127.0.0.1", upstream.port)}) as proxy,
            client_of(
                upstream, url="https://registry.invalid", ca_file=ca_file, proxy=ProxySettings(proxy.url)
            ) as client,
        ):
            with pytest.raises(UpstreamUnavailable, match="certificate is not trusted"):
                await client.ping()
            assert upstream.requests == []


class TestFailure:
    async def test_of_a_proxy_that_is_not_there_is_told_from_the_upstreams(self, upstream: FakeRegistry) -> None:
        async with HttpProxy() as proxy:
            pass
        async with client_of(upstream, proxy=ProxySettings(proxy.url)) as client:
            with pytest.raises(UpstreamUnavailable, match="cannot connect to its proxy"):
                await client.ping()
        assert upstream.requests == []

    @pytest.mark.parametrize(
        ("status", "kind"), [(407, UpstreamDenied), (403, UpstreamUnavailable), (502, UpstreamUnavailable)]
    )
    async def test_to_open_a_tunnel_is_named(self, upstream: FakeRegistry, status: int, kind: type[Exception]) -> None:
        async with (
            HttpProxy(refusal=status) as proxy,
            client_of(upstream, url="https://registry.invalid", proxy=ProxySettings(proxy.url, PROXY_USER)) as client,
        ):
            with pytest.raises(kind, match=f"fake: ping: its proxy answered {status}") as caught:
                await client.ping()
            assert "proxy-password" not in str(caught.value)


class TestAddresses:
    """The proxy connects where we say: an upstream must not have it reach what we would not."""

    @pytest.mark.parametrize(
        "target", ["http://169.254.169.254/latest/", "http://10.0.0.1/", "http://127.0.0.1:1/", "http://localhost/"]
    )
    async def test_that_a_redirect_names_are_checked(self, upstream: FakeRegistry, target: str) -> None:
        digest = upstream.add_blob(ALPINE, b"x")
        name = f"registry.invalid:{upstream.port}"
        upstream.faults.on("*/blobs/*", Fault(redirect=target))
        async with (
            HttpProxy(routes={name: ("127.0.0.1", upstream.port)}) as proxy,
            client_of(upstream, url=f"http://{name}", proxy=ProxySettings(proxy.url)) as client,
        ):
            with pytest.raises(UpstreamContent, match="internal network"):
                async with client.open_blob(ALPINE, digest):
                    pass
            assert len(proxy.lines) == 1

    async def test_that_a_challenge_names_are_checked(self) -> None:
        async with FakeRegistry(tokens=Tokens(), realm="http://169.254.169.254/token") as upstream:
            name = f"registry.invalid:{upstream.port}"
            async with (
                HttpProxy(routes={name: ("127.0.0.1", upstream.port)}) as proxy,
                client_of(upstream, url=f"http://{name}", proxy=ProxySettings(proxy.url)) as client,
            ):
                with pytest.raises(UpstreamContent, match="internal network"):
                    await client.ping()
                assert len(proxy.lines) == 1

    async def test_of_the_proxy_is_free(self, upstream: FakeRegistry) -> None:
        """The proxy is configured, wherever it is; the upstream's own name is resolved by it."""
        name = f"registry.invalid:{upstream.port}"
        async with (
            HttpProxy(routes={name: ("127.0.0.1", upstream.port)}) as proxy,
            client_of(upstream, url=f"http://{name}", networks=frozenset(), proxy=ProxySettings(proxy.url)) as client,
        ):
            await client.ping()

    async def test_that_are_public_are_followed_by_name(self, upstream: FakeRegistry) -> None:
        async with FakeServer() as storage:
            digest = upstream.add_blob(ALPINE, b"layer")
            storage.faults.on("*", Fault(body=b"layer"))
            upstream.faults.on("*/blobs/*", Fault(redirect="http://storage.invalid:80/x"))
            name = f"registry.invalid:{upstream.port}"
            routes = {name: ("127.0.0.1", upstream.port), "storage.invalid:80": ("127.0.0.1", storage.port)}
            routes["storage.invalid"] = ("127.0.0.1", storage.port)
            async with (
                HttpProxy(routes=routes) as proxy,
                client_of(upstream, url=f"http://{name}", proxy=ProxySettings(proxy.url)) as client,
                client.open_blob(ALPINE, digest) as stream,
            ):
                assert [chunk async for chunk in stream.chunks] == [b"layer"]


@pytest.mark.parametrize(
    "url", ["socks5://proxy:1080", "proxy:3128", "http://", "http://a:b@proxy", "http://proxy/path", "http://proxy?x"]
)
def test_url_that_is_no_proxys_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="proxy: expected"):
        ProxySettings(url)
