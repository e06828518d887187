"""Redirects: followed where they are harmless, without our credentials, and never into our own network."""

from __future__ import annotations

import ssl
import traceback
from typing import TYPE_CHECKING

import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from yarl import URL

from replicator.core.errors import ShuttingDown, UpstreamContent, UpstreamDenied, UpstreamUnavailable
from replicator.core.names import RepositoryName
from replicator.upstream.addresses import Network
from replicator.upstream.endpoint import ClientCertificate, Credentials, UpstreamEndpoint, origin_of
from replicator.upstream.home_resolver import HomeResolver
from replicator.upstream.session import MAX_REDIRECTS, Session
from replicator.upstream.urls import parse_url
from tests.support.dns import Diverted, Names
from tests.support.upstream_clients import client_of, endpoint_of
from tests.support.upstreams import FakeRegistry, FakeServer, FakeTokenServer, Fault, Tokens, basic

if TYPE_CHECKING:
    from pathlib import Path

    from replicator.core.digest import Digest
    from replicator.upstream.client import UpstreamClient

ALPINE = RepositoryName("library/alpine")
LAYER = b"layer" * 1000
CREDENTIALS = Credentials("ann", "correct-horse")


async def pull(client: UpstreamClient, digest: Digest, start: int = 0) -> bytes:
    async with client.open_blob(ALPINE, digest, start) as stream:
        return b"".join([chunk async for chunk in stream.chunks])


class TestCredentials:
    async def test_do_not_follow_a_redirect_to_another_port(self) -> None:
        """Another port is another party: it sees no Authorization and no cookie (CVE-2020-15157)."""
        async with FakeServer() as storage, FakeRegistry(basic=("ann", "correct-horse")) as upstream:
            digest = upstream.add_blob(ALPINE, LAYER)
            upstream.headers["Set-Cookie"] = "session=secret"
            storage.faults.on("*", Fault(body=LAYER))
            upstream.faults.on("*/blobs/*", Fault(redirect=f"{storage.url}/bucket/x?signature=a%2Fb%3D"))
            async with client_of(upstream, credentials=CREDENTIALS) as client:
                await client.ping()
                assert await pull(client, digest) == LAYER
            (request,) = storage.requests
            assert not {"authorization", "cookie", "referer"} & request.headers.keys()
            assert upstream.authorizations("*/blobs/*") == [basic("ann", "correct-horse")]
            assert "cookie" not in upstream.requests[-1].headers

    async def test_are_not_sent_again_when_the_chain_comes_back(self) -> None:
        """Once a chain has left the registry, even the registry gets no Authorization from it any more."""
        tokens = Tokens()
        async with FakeServer() as elsewhere, FakeRegistry(tokens=tokens) as upstream:
            digest = upstream.add_blob(ALPINE, LAYER)
            elsewhere.faults.on("*", Fault(redirect=f"{upstream.url}/back"))
            upstream.faults.on("/back", Fault(body=LAYER))
            async with client_of(upstream) as client:
                assert not await client.blob_exists(ALPINE, upstream.add_blob("other", b"x"))
                upstream.faults.on("*/blobs/*", Fault(redirect=f"{elsewhere.url}/away"))
                assert await pull(client, digest) == LAYER
            assert upstream.authorizations("GET */blobs/*") == ["Bearer token-1"]
            assert upstream.count("/back") == 1
            assert upstream.authorizations("/back") == []
            assert elsewhere.authorizations() == []

    async def test_stay_within_the_registry(self) -> None:
        async with FakeRegistry(basic=("ann", "correct-horse")) as upstream:
            digest = upstream.add_blob(ALPINE, LAYER)
            upstream.faults.on("*/library/alpine/blobs/*", Fault(redirect=f"/v2/moved/blobs/{digest}"))
            upstream.add_blob("moved", LAYER)
            async with client_of(upstream, credentials=CREDENTIALS) as client:
                await client.ping()
                assert await pull(client, digest) == LAYER
            assert upstream.authorizations("*/moved/*") == [basic("ann", "correct-horse")]


class TestChain:
    async def test_range_goes_along(self) -> None:
        async with FakeRegistry() as storage, FakeRegistry() as upstream, client_of(upstream) as client:
            digest = storage.add_blob(ALPINE, LAYER)
            upstream.faults.on("*", Fault(redirect=f"{storage.url}/v2/{ALPINE}/blobs/{digest}"))
            assert await pull(client, digest, 1234) == LAYER[1234:]
            assert storage.requests[0].headers["range"] == "bytes=1234-"

    async def test_signed_url_arrives_as_it_was_sent(self) -> None:
        async with FakeServer() as storage, FakeRegistry() as upstream, client_of(upstream) as client:
            raw: list[str] = []

            async def record(request: web.Request) -> web.StreamResponse:
                raw.append(request.raw_path)
                return web.Response(body=LAYER)

            storage.faults.on("*", Fault(answer=record))
            path = "/b%2Fc/~x%7E?X-Sig=a%2Bb%2F%3D&d=%3A:+%20"
            upstream.faults.on("*", Fault(redirect=storage.url + path))
            await pull(client, upstream.add_blob(ALPINE, LAYER))
            assert raw == [path]

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_every_redirect_is_followed(self, status: int) -> None:
        async with FakeRegistry() as upstream, client_of(upstream) as client:
            digest = upstream.add_blob("moved", LAYER)
            fault = Fault(status=status, redirect=f"/v2/moved/blobs/{digest}")
            upstream.faults.on("*/library/*", fault)
            assert await pull(client, digest) == LAYER
            assert await client.blob_exists(ALPINE, digest)
            assert upstream.count("HEAD /v2/moved/*") == 1

    async def test_loop_ends(self) -> None:
        """A redirect loop costs a bounded number of requests."""
        async with FakeRegistry() as upstream, client_of(upstream) as client:
            upstream.faults.on("*", Fault(redirect="/v2/loop"))
            with pytest.raises(UpstreamContent, match="redirects"):
                await client.blob_exists(ALPINE, upstream.add_blob(ALPINE, LAYER))
            assert upstream.count() == MAX_REDIRECTS + 1

    @pytest.mark.parametrize(
        "location",
        [
            "",
            "file:///etc/passwd",
            "http://",
            "http:x",
            "http://a\\b/",
            "http://ann:x@127.0.0.1/",
            "http://127.0.0.1:bad/",
            "gopher://x/",
        ],
    )
    async def test_to_no_plain_url_is_refused(self, location: str) -> None:
        async with FakeRegistry() as upstream, client_of(upstream) as client:
            upstream.faults.on("*", Fault(status=307, headers={"Location": location}))
            with pytest.raises(UpstreamContent):
                await pull(client, upstream.add_blob(ALPINE, LAYER))
            assert upstream.count() == 1

    async def test_of_a_push_is_not_followed(self) -> None:
        async with FakeRegistry() as upstream, client_of(upstream) as client:
            image = upstream.add_image(ALPINE)
            upstream.faults.on("PUT *", Fault(redirect="/elsewhere"))
            with pytest.raises(UpstreamContent, match="307"):
                await client.put_manifest(ALPINE, image.digest, image.manifest, image.media_type)
            assert upstream.count("/elsewhere") == 0

    async def test_error_does_not_show_the_signed_query(self) -> None:
        async with FakeServer() as storage, FakeRegistry() as upstream, client_of(upstream) as client:
            digest = upstream.add_blob(ALPINE, LAYER)
            upstream.faults.on("*", Fault(redirect=f"{storage.url}/bucket?signature=secret"))
            storage.faults.on("*", Fault(status=500))
            with pytest.raises(UpstreamUnavailable) as caught:
                await pull(client, digest)
            shown = "".join(traceback.format_exception(caught.value, limit=0))
            assert "answered 500" in shown
            assert "signature" not in shown
            assert "secret" not in shown


class TestInternalNetwork:
    @pytest.mark.parametrize(
        "target", ["http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/", "http://[::ffff:a9fe:a9fe]/"]
    )
    async def test_is_not_reached_by_a_redirect(self, target: str) -> None:
        """An upstream cannot make us call the metadata service (CVE-2020-13788, CVE-2025-59346)."""
        async with FakeRegistry() as upstream, client_of(upstream) as client:
            upstream.faults.on("*", Fault(redirect=target))
            with pytest.raises(UpstreamContent, match="internal network"):
                await pull(client, upstream.add_blob(ALPINE, LAYER))

    async def test_is_not_reached_by_a_name_either(self) -> None:
        names = Names(storage_test=["169.254.169.254"])
        async with FakeRegistry() as upstream, client_of(upstream, resolver=names) as client:
            upstream.faults.on("*", Fault(redirect="http://storage.test/"))
            with pytest.raises(UpstreamContent, match="internal network"):
                await pull(client, upstream.add_blob(ALPINE, LAYER))
            assert names.asked == ["storage.test"]

    @pytest.mark.parametrize(
        "target", ["http://127.0.0.1:{port}/", "http://[::1]:{port}/", "http://inside.test:{port}/"]
    )
    async def test_is_not_reached_from_a_registry_outside(self, target: str) -> None:
        """A registry at a public address has no way to our loopback, by address or by name."""
        names = Names(registry_test=["198.41.0.4", "127.0.0.1"], inside_test=["127.0.0.1"])
        async with FakeServer() as inside, FakeRegistry() as upstream:
            # The first look-up puts the registry at a public address; the connection is then made to the fake one.
            endpoint_url = f"http://registry.test:{upstream.port}"
            async with client_of(upstream, resolver=Diverted(names), url=endpoint_url) as client:
                upstream.faults.on("*", Fault(redirect=target.format(port=inside.port)))
                with pytest.raises(UpstreamContent, match="internal network"):
                    await pull(client, upstream.add_blob(ALPINE, LAYER))
            assert upstream.count() == 1
            assert inside.requests == []

    async def test_is_not_opened_by_a_name_that_moves_into_it(self) -> None:
        """Every connection is checked by the address it goes to: a second, different answer of DNS changes nothing."""
        names = Names(storage_test=["127.0.0.1", "169.254.169.254"])
        async with FakeServer() as storage, FakeRegistry() as upstream:
            storage.faults.on("*", Fault(body=LAYER, headers={"Connection": "close"}))
            upstream.faults.on("*", Fault(redirect=f"http://storage.test:{storage.port}/"))
            async with client_of(upstream, resolver=names) as client:
                digest = upstream.add_blob(ALPINE, LAYER)
                assert await pull(client, digest) == LAYER
            # A new client asks DNS again, and gets the other answer.
            async with client_of(upstream, resolver=names) as client:
                with pytest.raises(UpstreamContent, match="internal network"):
                    await pull(client, digest)

    async def test_is_not_opened_by_a_registry_that_moves_into_it(self) -> None:
        """Where the registry was found first is where it is: a later answer of DNS widens nothing."""
        endpoint = UpstreamEndpoint("fake", "http://registry.test")
        names = HomeResolver(Names(registry_test=["198.41.0.4", "127.0.0.1"], other_test=["10.0.0.1"]), endpoint)
        homes = [names.home]
        for host in ("other.test", "registry.test", "registry.test"):
            await names.resolve(host)
            homes.append(names.home)
        assert homes == [Network.PUBLIC] * 4

    @pytest.mark.parametrize(
        ("networks", "opened"), [(frozenset(), Network.PUBLIC), (frozenset({Network.PRIVATE}), Network.PRIVATE)]
    )
    async def test_sec_05_is_not_opened_by_an_address_that_the_registry_may_not_have(
        self, networks: frozenset[Network], opened: Network
    ) -> None:
        """One answer that is refused, then a public one, and redirects would lead wherever the first one lay."""
        endpoint = UpstreamEndpoint("fake", "http://registry.test", networks=networks)
        names = HomeResolver(Names(registry_test=["10.0.0.1", "198.41.0.4"]), endpoint)
        homes = []
        for _ in range(2):
            await names.resolve("registry.test")
            homes.append(names.home)
        assert homes == [opened] * 2

    async def test_is_reached_where_the_registry_itself_is(self) -> None:
        names = Names(registry_test=["127.0.0.1"], storage_test=["127.0.0.1"])
        async with FakeServer() as storage, FakeRegistry() as upstream:
            storage.faults.on("*", Fault(body=LAYER))
            upstream.faults.on("*", Fault(redirect=f"http://storage.test:{storage.port}/"))
            url = f"http://registry.test:{upstream.port}"
            async with client_of(upstream, resolver=names, url=url) as client:
                assert await pull(client, upstream.add_blob(ALPINE, LAYER)) == LAYER


class TestNetworks:
    """The name of a registry leads where its configuration permits, and nowhere else."""

    @pytest.mark.parametrize(
        ("address", "network"),
        [
            ("127.0.0.1", Network.LOOPBACK),
            ("10.0.0.1", Network.PRIVATE),
            ("169.254.169.254", Network.LINK_LOCAL),
            ("240.0.0.1", Network.RESERVED),
        ],
    )
    async def test_that_are_not_permitted_are_not_connected_to(self, address: str, network: Network) -> None:
        async with FakeRegistry() as upstream:
            url = f"http://registry.test:{upstream.port}"
            names, permitted = Names(registry_test=[address]), frozenset(Network) - {network}
            async with client_of(upstream, resolver=names, url=url, networks=permitted) as client:
                with pytest.raises(
                    UpstreamContent, match=rf"a {network} address, which is refused; `networks: \[{network}\]`"
                ):
                    await client.ping()
            assert upstream.requests == []

    async def test_that_are_permitted_are_connected_to(self) -> None:
        async with FakeRegistry() as upstream:
            url, names = f"http://registry.test:{upstream.port}", Names(registry_test=["127.0.0.1"])
            permitted = frozenset({Network.LOOPBACK})
            async with client_of(upstream, resolver=names, url=url, networks=permitted) as client:
                await client.ping()

    async def test_hold_for_every_connection(self) -> None:
        """The address that was looked at is the one connected to: DNS may say what it likes the next time."""
        names = Names(registry_test=["127.0.0.1", "10.0.0.1"])
        async with FakeRegistry() as upstream:
            url, permitted = f"http://registry.test:{upstream.port}", frozenset({Network.LOOPBACK})
            async with client_of(upstream, resolver=names, url=url, networks=permitted) as client:
                await client.ping()
            async with client_of(upstream, resolver=names, url=url, networks=permitted) as client:
                with pytest.raises(UpstreamContent, match="private address"):
                    await client.ping()
            assert upstream.count() == 1

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    async def test_are_permitted_by_an_address_in_the_url(self, upstream: FakeRegistry, host: str) -> None:
        url = f"http://{host}:{upstream.port}"
        async with client_of(upstream, url=url, networks=frozenset()) as client:
            await client.ping()

    async def test_of_a_redirect_can_be_permitted(self) -> None:
        """A public registry that keeps its blobs in our network is believed where the configuration says so."""
        names = Names(registry_test=["198.41.0.4", "127.0.0.1"])
        async with FakeServer() as storage, FakeRegistry() as upstream:
            storage.faults.on("*", Fault(body=LAYER))
            upstream.faults.on("*", Fault(redirect=f"{storage.url}/"))
            url, permitted = f"http://registry.test:{upstream.port}", frozenset({Network.LOOPBACK})
            async with client_of(upstream, resolver=Diverted(names), url=url, networks=permitted) as client:
                assert await pull(client, upstream.add_blob(ALPINE, LAYER)) == LAYER

    @pytest.mark.parametrize("realm_hosts", [frozenset({"127.0.0.1:{port}"}), frozenset({"localhost:{port}"})])
    async def test_of_a_token_service_are_permitted_by_its_own_name(self, realm_hosts: frozenset[str]) -> None:
        tokens = Tokens("ann", "correct-horse")
        async with FakeTokenServer(tokens) as service, FakeRegistry(tokens=tokens) as upstream:
            hosts = frozenset(host.format(port=service.port) for host in realm_hosts)
            upstream.realm = f"http://{next(iter(hosts))}/token"
            names = Names(registry_test=["198.41.0.4", "127.0.0.1"], localhost=["127.0.0.1"])
            async with client_of(
                upstream,
                resolver=Diverted(names),
                url=f"http://registry.test:{upstream.port}",
                networks=frozenset({Network.LOOPBACK}),
                realm_hosts=hosts,
                credentials=CREDENTIALS,
            ) as client:
                await client.ping()
            assert service.count() == 1

    async def test_of_a_token_service_by_name_are_those_around_the_registry(self) -> None:
        tokens = Tokens("ann", "correct-horse")
        async with FakeTokenServer(tokens) as service, FakeRegistry(tokens=tokens) as upstream:
            upstream.realm = f"http://auth.test:{service.port}/token"
            async with client_of(
                upstream,
                resolver=Names(auth_test=["127.0.0.1"]),
                networks=frozenset(),
                realm_hosts=frozenset({f"auth.test:{service.port}"}),
                credentials=CREDENTIALS,
            ) as client:
                await client.ping()
            assert service.count() == 1
            async with client_of(
                upstream,
                resolver=Names(auth_test=["169.254.169.254"]),
                networks=frozenset(),
                realm_hosts=frozenset({f"auth.test:{service.port}"}),
                credentials=CREDENTIALS,
            ) as client:
                with pytest.raises(UpstreamContent, match=r"networks: \[link-local\]"):
                    await client.ping()


class TestClientCertificate:
    """Our certificate proves who we are to the registry, and to nobody that it names."""

    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def certificate(self, authority: trustme.CA, tmp_path: Path) -> ClientCertificate:
        issued = authority.issue_cert("node.example")
        issued.cert_chain_pems[0].write_to_path(tmp_path / "node.pem")
        issued.private_key_pem.write_to_path(tmp_path / "node.key")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        return ClientCertificate(tmp_path / "node.pem", tmp_path / "node.key")

    @staticmethod
    def asking(authority: trustme.CA, mode: ssl.VerifyMode = ssl.CERT_REQUIRED) -> ssl.SSLContext:
        context = TestTls.server_context(authority)
        authority.configure_trust(context)
        context.verify_mode = mode
        return context

    @staticmethod
    def noting(shown: list[object], body: bytes) -> Fault:
        async def note(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            shown.append(request.transport.get_extra_info("peercert"))
            return web.Response(body=body)

        return Fault(answer=note)

    async def test_is_shown_to_the_registry(
        self, authority: trustme.CA, certificate: ClientCertificate, tmp_path: Path
    ) -> None:
        async with FakeRegistry(tls=self.asking(authority)) as upstream:
            async with client_of(upstream, ca_file=tmp_path / "ca.pem", client_certificate=certificate) as client:
                await client.ping()
            async with client_of(upstream, ca_file=tmp_path / "ca.pem") as client:
                with pytest.raises(UpstreamUnavailable):
                    await client.ping()

    async def test_is_not_shown_to_hosts_that_the_registry_names(
        self, authority: trustme.CA, certificate: ClientCertificate, tmp_path: Path
    ) -> None:
        shown: list[object] = []
        tokens = Tokens("ann", "correct-horse")
        async with (
            FakeServer(tls=self.asking(authority, ssl.CERT_OPTIONAL)) as elsewhere,
            FakeRegistry(tls=self.asking(authority), tokens=tokens, realm=f"{elsewhere.url}/token") as upstream,
            client_of(
                upstream,
                ca_file=tmp_path / "ca.pem",
                client_certificate=certificate,
                realm_hosts=frozenset({elsewhere.authority}),
                credentials=CREDENTIALS,
            ) as client,
        ):
            digest = upstream.add_blob(ALPINE, LAYER)
            tokens.valid.add("known")
            elsewhere.faults.on("/token", self.noting(shown, b'{"token": "known"}'))
            elsewhere.faults.on("/storage", self.noting(shown, LAYER))
            await client.ping()
            upstream.faults.on("*/blobs/*", Fault(redirect=f"{elsewhere.url}/storage"), times=1)
            assert await pull(client, digest) == LAYER
            assert len(shown) == 2, "a token and a blob"
            assert not any(shown)

    async def test_that_cannot_be_read_is_named(self, certificate: ClientCertificate, tmp_path: Path) -> None:
        (tmp_path / "node.key").write_text("no key")
        async with (
            FakeRegistry() as upstream,
            client_of(upstream, url="https://registry.test", client_certificate=certificate) as client,
        ):
            with pytest.raises(UpstreamUnavailable, match=r"cannot load the certificate .*node\.pem"):
                await client.ping()

    async def test_with_an_encrypted_key_is_refused_without_asking(
        self, certificate: ClientCertificate, tmp_path: Path
    ) -> None:
        key = serialization.load_pem_private_key((tmp_path / "node.key").read_bytes(), None)
        (tmp_path / "node.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"secret"),
            )
        )
        async with (
            FakeRegistry() as upstream,
            client_of(upstream, url="https://registry.test", client_certificate=certificate) as client,
        ):
            with pytest.raises(UpstreamUnavailable, match="cannot load the certificate"):
                await client.ping()


class TestTls:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @staticmethod
    def server_context(authority: trustme.CA) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        return context

    @staticmethod
    def ca_file(authority: trustme.CA, folder: Path) -> Path:
        path = folder / "ca.pem"
        authority.cert_pem.write_to_path(path)
        return path

    async def test_private_authority_is_trusted_when_configured(self, authority: trustme.CA, tmp_path: Path) -> None:
        async with FakeRegistry(tls=self.server_context(authority)) as upstream:
            digest = upstream.add_blob(ALPINE, LAYER)
            async with client_of(upstream, ca_file=self.ca_file(authority, tmp_path)) as client:
                assert await pull(client, digest) == LAYER

    async def test_unknown_authority_is_refused(self, authority: trustme.CA) -> None:
        async with FakeRegistry(tls=self.server_context(authority)) as upstream, client_of(upstream) as client:
            with pytest.raises(UpstreamUnavailable, match="TLS handshake failed: its certificate is not trusted"):
                await client.ping()
            assert upstream.requests == []

    async def test_a_certificate_of_another_host_is_told_from_one_that_is_not_trusted(
        self, authority: trustme.CA, tmp_path: Path
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("other.example.com").configure_cert(context)
        async with (
            FakeRegistry(tls=context) as upstream,
            client_of(upstream, ca_file=self.ca_file(authority, tmp_path)) as client,
        ):
            with pytest.raises(UpstreamUnavailable, match=r"not trusted \(IP address mismatch"):
                await client.ping()

    async def test_an_upstream_without_tls_is_told(self) -> None:
        async with (
            FakeRegistry() as upstream,
            client_of(upstream, url=upstream.url.replace("http://", "https://")) as client,
        ):
            with pytest.raises(UpstreamUnavailable, match="TLS handshake failed: it answers without TLS"):
                await client.ping()

    async def test_missing_authority_file_is_named(self, tmp_path: Path) -> None:
        async with FakeRegistry() as upstream, client_of(upstream, ca_file=tmp_path / "none.pem") as client:
            with pytest.raises(UpstreamUnavailable, match=r"cannot load .*none\.pem"):
                await client.ping()

    async def test_is_not_given_up_by_a_redirect(self, authority: trustme.CA, tmp_path: Path) -> None:
        """https never continues as http, where anybody on the way could read and answer (CVE-2014-5277)."""
        async with FakeServer() as plain, FakeRegistry(tls=self.server_context(authority)) as upstream:
            upstream.faults.on("*", Fault(redirect=f"{plain.url}/x"))
            async with client_of(upstream, ca_file=self.ca_file(authority, tmp_path)) as client:
                with pytest.raises(UpstreamContent, match="from https"):
                    await pull(client, upstream.add_blob(ALPINE, LAYER))
            assert plain.requests == []

    @pytest.mark.parametrize("credentials", [None, CREDENTIALS])
    async def test_is_not_given_up_by_a_token_realm(
        self, authority: trustme.CA, tmp_path: Path, credentials: Credentials | None
    ) -> None:
        """The token service of an https registry is https too, configured or not (CVE-2019-10214)."""
        async with FakeServer() as plain:
            realm = f"{plain.url}/token"
            async with (
                FakeRegistry(tls=self.server_context(authority), tokens=Tokens(), realm=realm) as upstream,
                client_of(
                    upstream,
                    ca_file=self.ca_file(authority, tmp_path),
                    credentials=credentials,
                    realm_hosts=frozenset({plain.authority}),
                ) as client,
            ):
                with pytest.raises(UpstreamDenied):
                    await client.ping()
            assert plain.requests == []

    async def test_of_a_token_host_is_verified(self, authority: trustme.CA, tmp_path: Path) -> None:
        async with FakeServer(tls=self.server_context(trustme.CA())) as service:
            async with (
                FakeRegistry(
                    tls=self.server_context(authority), tokens=Tokens(), realm=f"{service.url}/token"
                ) as upstream,
                client_of(upstream, ca_file=self.ca_file(authority, tmp_path)) as client,
            ):
                with pytest.raises(UpstreamUnavailable, match="TLS"):
                    await client.ping()
            assert service.requests == []


async def test_proxy_of_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeServer() as proxy, FakeRegistry() as upstream, client_of(upstream) as client:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        await client.ping()
        assert proxy.requests == []


@pytest.mark.parametrize(
    "text", ["http://exa mple.org/", "http://example.org/\r\nX: 1", "http://ex\u00e4mple.org/", ""]
)
def test_url_with_anything_but_printable_ascii_is_refused(text: str) -> None:
    with pytest.raises(UpstreamContent):
        parse_url(text)


@pytest.mark.parametrize("text", ["http://h:80/x", "https://h:443/x", "https://h:80/x", "http://h:443/x", "http://h/x"])
def test_url_may_state_the_port_that_its_scheme_has_anyway(text: str) -> None:
    assert origin_of(parse_url(text)) == origin_of(URL(text))


async def test_closed_session_refuses_to_send() -> None:
    async with FakeRegistry() as upstream, client_of(upstream) as client:
        await client.close()
        with pytest.raises(ShuttingDown):
            await client.ping()
        session = Session(endpoint_of(upstream))
        await session.close()
