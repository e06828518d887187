"""Attacks by an upstream, or by somebody who speaks in its place: one test or more for each known kind."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from aiohttp import web

from replicator.core.digest import digest_of
from replicator.core.errors import UpstreamContent, UpstreamDenied, UpstreamError, UpstreamUnavailable
from replicator.core.media_types import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from replicator.core.names import RepositoryName, Tag
from replicator.upstream.credentials import IDENTITY_TOKEN_USER
from replicator.upstream.endpoint import Credentials
from replicator.upstream.session import MAX_REDIRECTS
from tests.support.dns import Diverted, Names
from tests.support.upstream_clients import client_of
from tests.support.upstreams import FakeRegistry, FakeServer, FakeTokenServer, Fault, Tokens, basic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from replicator.core.digest import Digest
    from replicator.upstream.client import UpstreamClient

ALPINE, TAG = RepositoryName("library/alpine"), Tag("3.20")
SUBJECT = digest_of(b"subject")
LAYER = b"layer" * 1000
CREDENTIALS = Credentials("ann", "correct-horse")
IDENTITY = Credentials(IDENTITY_TOKEN_USER, "refresh-me")
MEGABYTE = 1024 * 1024


async def pull(client: UpstreamClient, digest: Digest) -> bytes:
    async with client.open_blob(ALPINE, digest) as stream:
        return b"".join([chunk async for chunk in stream.chunks])


# SEC-01: who gets our credentials


@pytest.mark.parametrize("credentials", [CREDENTIALS, IDENTITY], ids=["password", "identity token"])
async def test_sec_01_realm_on_another_host_gets_no_credentials(credentials: Credentials) -> None:
    tokens = Tokens()
    async with (
        FakeTokenServer(tokens) as foreign,
        FakeRegistry(tokens=tokens, realm=foreign.realm) as upstream,
        client_of(upstream, credentials=credentials) as client,
    ):
        upstream.add_image(ALPINE, TAG)
        with pytest.raises(UpstreamDenied, match="not trusted with the credentials"):
            await client.get_manifest(ALPINE, TAG)
        assert foreign.requests == []


@pytest.mark.parametrize("realm", ["http://127.0.0.1:{port}/token", "http://evil-{authority}/token"])
async def test_sec_01_realm_that_merely_resembles_the_registry_gets_none(realm: str) -> None:
    """Another port is another party, and so is a name that ends or begins alike."""
    async with FakeServer() as other, FakeRegistry(tokens=Tokens()) as upstream:
        upstream.realm = realm.format(port=other.port, authority=upstream.authority)
        async with client_of(upstream, credentials=CREDENTIALS) as client:
            with pytest.raises(UpstreamDenied, match="not trusted"):
                await client.ping()
        assert other.requests == []


async def test_sec_01_challenge_of_a_host_that_we_were_sent_to_gets_none() -> None:
    """A redirect's target that asks who we are is not told, and our answer goes to the registry alone."""
    async with FakeServer() as storage, FakeRegistry() as upstream:
        digest = upstream.add_blob(ALPINE, LAYER)
        upstream.faults.on("*/blobs/*", Fault(redirect=f"{storage.url}/x"))
        for challenge in ('Basic realm="x"', f'Bearer realm="{storage.url}/token"'):
            storage.faults.on("*", Fault(status=401, headers={"WWW-Authenticate": challenge}))
            async with client_of(upstream, credentials=CREDENTIALS) as client:
                with pytest.raises(UpstreamDenied):
                    await pull(client, digest)
        assert storage.requests
        assert storage.authorizations() == []


async def test_sec_01_token_service_that_redirects_gets_an_identity_token_nowhere_else() -> None:
    tokens = Tokens()
    async with (
        FakeServer() as foreign,
        FakeRegistry(tokens=tokens) as upstream,
        client_of(upstream, credentials=IDENTITY) as client,
    ):
        upstream.faults.on("/token", Fault(redirect=f"{foreign.url}/token"))
        with pytest.raises(UpstreamError):
            await client.ping()
        assert foreign.requests == []


# SEC-02: TLS is not given up


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def secure(authority: trustme.CA, tmp_path: Path) -> AsyncIterator[FakeRegistry]:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with FakeRegistry(tls=tls_of(authority), tokens=Tokens()) as registry:
        yield registry


def tls_of(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.mark.parametrize("credentials", [None, CREDENTIALS])
async def test_sec_02_http_realm_of_an_https_registry_is_refused(
    secure: FakeRegistry, tmp_path: Path, credentials: Credentials | None
) -> None:
    async with FakeServer() as plain:
        secure.realm = f"{plain.url}/token"
        options: dict[str, Any] = {"credentials": credentials, "realm_hosts": frozenset({plain.authority})}
        async with client_of(secure, ca_file=tmp_path / "ca.pem", **options) as client:
            with pytest.raises(UpstreamDenied, match="does not speak https"):
                await client.ping()
        assert plain.requests == []


async def test_sec_02_redirect_from_https_to_http_is_refused(secure: FakeRegistry, tmp_path: Path) -> None:
    async with FakeServer() as plain:
        secure.faults.on("*", Fault(redirect=f"{plain.url}/x"))
        async with client_of(secure, ca_file=tmp_path / "ca.pem") as client:
            with pytest.raises(UpstreamContent, match="from https"):
                await pull(client, SUBJECT)
        assert plain.requests == []


async def test_sec_02_token_host_that_signs_for_itself_is_refused(secure: FakeRegistry, tmp_path: Path) -> None:
    async with FakeServer(tls=tls_of(trustme.CA())) as service:
        secure.realm = f"{service.url}/token"
        options: dict[str, Any] = {"credentials": CREDENTIALS, "realm_hosts": frozenset({service.authority})}
        async with client_of(secure, ca_file=tmp_path / "ca.pem", **options) as client:
            with pytest.raises(UpstreamUnavailable, match="certificate is not trusted"):
                await client.ping()
        assert service.requests == []


# SEC-03, SEC-04: where our Authorization goes


async def test_sec_03_authorization_does_not_follow_a_redirect() -> None:
    async with FakeServer() as storage, FakeRegistry(basic=("ann", "correct-horse")) as upstream:
        digest = upstream.add_blob(ALPINE, LAYER)
        upstream.headers["Set-Cookie"] = "session=secret"
        storage.faults.on("*", Fault(body=LAYER))
        async with client_of(upstream, credentials=CREDENTIALS) as client:
            await client.ping()
            upstream.faults.on("*/blobs/*", Fault(redirect=f"{storage.url}/x"))
            assert await pull(client, digest) == LAYER
        (request,) = storage.requests
        assert not {"authorization", "cookie", "proxy-authorization"} & request.headers.keys()


async def test_sec_03_authorization_does_not_come_back_after_two_hops() -> None:
    async with (
        FakeServer() as first,
        FakeServer() as second,
        FakeRegistry(basic=("ann", "correct-horse")) as upstream,
        client_of(upstream, credentials=CREDENTIALS) as client,
    ):
        digest = upstream.add_blob(ALPINE, LAYER)
        first.faults.on("*", Fault(redirect=f"{second.url}/x"))
        second.faults.on("*", Fault(redirect=f"{upstream.url}/back"))
        upstream.faults.on("/back", Fault(body=LAYER))
        await client.ping()
        upstream.faults.on("*/blobs/*", Fault(redirect=f"{first.url}/x"))
        assert await pull(client, digest) == LAYER
        assert [server.authorizations("*") for server in (first, second)] == [[], []]
        assert upstream.authorizations("/back") == []
        assert upstream.authorizations("*/blobs/*") == [basic("ann", "correct-horse")]


async def test_sec_04_upload_goes_to_no_other_host() -> None:
    async def source() -> AsyncIterator[bytes]:
        yield LAYER

    async with FakeServer() as elsewhere, FakeRegistry(basic=("ann", "correct-horse")) as upstream:
        upstream.upload_location = lambda path: f"{elsewhere.url}{path}"
        async with client_of(upstream, credentials=CREDENTIALS) as client:
            with pytest.raises(UpstreamContent, match="refused to upload to"):
                await client.put_blob(ALPINE, digest_of(LAYER), len(LAYER), lambda _: source())
        assert elsewhere.requests == []


# SEC-05: which addresses we are led to

INTERNAL = ["http://169.254.169.254/latest/", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/"]


@pytest.mark.parametrize("target", INTERNAL)
async def test_sec_05_redirect_leads_into_no_internal_network(upstream: FakeRegistry, target: str) -> None:
    async with client_of(upstream) as client:
        upstream.faults.on("*", Fault(redirect=target))
        with pytest.raises(UpstreamContent, match="internal network"):
            await pull(client, SUBJECT)


CLOSER = ["http://10.0.0.1/", "http://192.168.1.1/", "http://[fd00::1]/", "http://127.0.0.1:1/", "http://localhost:1/"]


@pytest.mark.parametrize("target", CLOSER)
@pytest.mark.parametrize("named_by", ["redirect", "realm"])
async def test_sec_05_public_upstream_leads_into_no_private_network(target: str, named_by: str) -> None:
    """A registry with a public address cannot send us to one that is closer to us."""
    names = Diverted(Names(registry_test=["198.41.0.4", "127.0.0.1"], localhost=["127.0.0.1"]))
    tokens = Tokens() if named_by == "realm" else None
    async with FakeRegistry(tokens=tokens, realm=target) as upstream:
        if tokens is None:
            upstream.faults.on("*/blobs/*", Fault(redirect=target))
        async with client_of(upstream, resolver=names, url=f"http://registry.test:{upstream.port}") as client:
            with pytest.raises(UpstreamContent, match="internal network"):
                await pull(client, SUBJECT)
        assert upstream.count() == 1


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]"])
async def test_sec_05_realm_leads_into_no_internal_network(host: str) -> None:
    async with FakeRegistry(tokens=Tokens(), realm=f"http://{host}/t") as upstream, client_of(upstream) as client:
        with pytest.raises(UpstreamContent, match="internal network"):
            await client.ping()


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0"])  # noqa: S104 - refused
async def test_sec_05_name_of_an_upstream_leads_into_no_internal_network(upstream: FakeRegistry, address: str) -> None:
    url, names = f"http://registry.test:{upstream.port}", Names(registry_test=[address])
    async with client_of(upstream, resolver=names, url=url, networks=frozenset()) as client:
        with pytest.raises(UpstreamContent, match=r"networks: \["):
            await client.ping()
    assert upstream.requests == []


async def test_sec_05_name_that_resolves_in_two_ways_is_connected_to_as_it_was_checked(upstream: FakeRegistry) -> None:
    """What is checked is the address that is connected to: the second answer of a rebinding DNS is checked as well."""
    names = Names(storage_test=["127.0.0.1", "169.254.169.254"])
    async with FakeServer() as storage:
        storage.faults.on("*", Fault(body=LAYER, headers={"Connection": "close"}))
        upstream.faults.on("*", Fault(redirect=f"http://storage.test:{storage.port}/"))
        digest = digest_of(LAYER)
        async with client_of(upstream, resolver=names) as client:
            assert await pull(client, digest) == LAYER
        async with client_of(upstream, resolver=names) as client:
            with pytest.raises(UpstreamContent, match="internal network"):
                await pull(client, digest)
        assert storage.count() == 1


async def test_sec_05_urls_of_foreign_layers_are_not_followed(upstream: FakeRegistry) -> None:
    """A layer that lies elsewhere is asked of the registry, whatever URLs its descriptor names."""
    async with FakeServer() as elsewhere, client_of(upstream) as client:
        digest = digest_of(LAYER)
        layer = {
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "digest": digest,
            "size": len(LAYER),
            "urls": [f"{elsewhere.url}/layer"],
        }
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": SUBJECT, "size": 7}
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}
        upstream.add_manifest(ALPINE, json.dumps(document).encode(), OCI_MANIFEST, TAG)
        await client.get_manifest(ALPINE, TAG)
        with pytest.raises(UpstreamError):
            await pull(client, digest)
        assert elsewhere.requests == []


# SEC-19, SEC-20: content that is not what it says

CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": SUBJECT, "size": 7}
IMAGE: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": []}


@pytest.mark.parametrize(
    ("document", "content_type"),
    [
        ({**IMAGE, "manifests": []}, OCI_MANIFEST),
        ({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "layers": []}, OCI_INDEX),
        ({"schemaVersion": 2, "config": CONFIG, "layers": [], "manifests": []}, OCI_INDEX),
        (IMAGE, OCI_INDEX),
        (IMAGE, DOCKER_MANIFEST),
        ({**IMAGE, "Layers": []}, OCI_MANIFEST),
    ],
    ids=["image with manifests", "index with layers", "both", "image as index", "OCI as Docker", "two spellings"],
)
async def test_sec_19_manifest_that_reads_in_two_ways_is_refused(
    upstream: FakeRegistry, client: UpstreamClient, document: object, content_type: str
) -> None:
    digest = upstream.add_manifest(ALPINE, json.dumps(document).encode(), content_type, TAG)
    for reference in (TAG, digest):
        with pytest.raises(UpstreamContent):
            await client.get_manifest(ALPINE, reference)


async def test_sec_20_manifest_with_other_bytes_is_refused(upstream: FakeRegistry, client: UpstreamClient) -> None:
    image, other = upstream.add_image(ALPINE, TAG), json.dumps(IMAGE).encode()
    lie = {"Docker-Content-Digest": image.digest}
    upstream.faults.on("GET *", Fault(body=other, content_type=OCI_MANIFEST, headers=lie))
    with pytest.raises(UpstreamContent, match="another digest"):
        await client.get_manifest(ALPINE, image.digest)


async def test_sec_20_digest_is_computed_and_not_copied(upstream: FakeRegistry, client: UpstreamClient) -> None:
    content = json.dumps(IMAGE).encode()
    for stated in ("", "sha256:none", digest_of(content, "sha512")):
        headers = {"Docker-Content-Digest": stated}
        upstream.faults.on("GET *", Fault(body=content, content_type=OCI_MANIFEST, headers=headers))
        assert (await client.get_manifest(ALPINE, TAG)).digest == digest_of(content)
    upstream.faults.clear()
    wrong = {"Docker-Content-Digest": SUBJECT}
    upstream.faults.on(f"GET */manifests/{TAG}", Fault(body=content, content_type=OCI_MANIFEST, headers=wrong))
    with pytest.raises(UpstreamContent):
        await client.get_manifest(ALPINE, TAG)


# SEC-24 to SEC-27: answers that are too much

ENDLESS = 300 * MEGABYTE
CALLS: dict[str, tuple[str, Callable[[UpstreamClient], Awaitable[object]]]] = {
    "manifest": (OCI_MANIFEST, lambda client: client.get_manifest(ALPINE, TAG)),
    "tags": ("application/json", lambda client: client.list_tags(ALPINE)),
    "referrers": (OCI_INDEX, lambda client: client.list_referrers(ALPINE, SUBJECT)),
    "token": ("application/json", lambda client: client.ping()),
}


class Flood:
    """Sends 300 MB, as far as anybody takes them."""

    def __init__(self, content_type: str, status: int = 200, *, stated: bool = False) -> None:
        self.sent = 0
        self.ended = asyncio.Event()
        self._headers = {"Content-Type": content_type}
        self._status = status
        self._stated = stated

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=self._status, headers=self._headers)
        if self._stated:
            response.content_length = ENDLESS
        else:
            response.enable_chunked_encoding()
        await response.prepare(request)
        with suppress(ConnectionError):
            while self.sent < ENDLESS:
                await response.write(b" " * MEGABYTE)
                self.sent += MEGABYTE
        self.ended.set()
        return response


@pytest.fixture
def peak() -> Iterator[Callable[[], int]]:
    """Tell how many bytes of memory the test has used at most."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("stated", [True, False], ids=["with length", "without"])
@pytest.mark.parametrize("kind", CALLS)
async def test_sec_24_answer_of_300_mb_is_cut(kind: str, peak: Callable[[], int], *, stated: bool) -> None:
    content_type, call = CALLS[kind]
    flood = Flood(content_type, stated=stated)
    async with FakeRegistry(tokens=Tokens() if kind == "token" else None) as upstream, client_of(upstream) as client:
        upstream.faults.on("/token" if kind == "token" else "/v2/*", Fault(answer=flood.answer))
        with pytest.raises(UpstreamContent, match="longer than"):
            await call(client)
        await flood.ended.wait()
        await upstream.idle()
    assert flood.sent < 32 * MEGABYTE
    assert peak() < 64 * MEGABYTE


@pytest.mark.parametrize("status", [404, 500, 401])
async def test_sec_24_error_of_300_mb_is_not_read(status: int, peak: Callable[[], int]) -> None:
    flood = Flood("application/json", status)
    async with FakeRegistry() as upstream, client_of(upstream) as client:
        upstream.faults.on("*", Fault(answer=flood.answer))
        with pytest.raises(UpstreamError):
            await client.get_manifest(ALPINE, TAG)
        await flood.ended.wait()
        await upstream.idle()
    assert flood.sent < 16 * MEGABYTE
    assert peak() < 48 * MEGABYTE


async def test_sec_25_pages_without_end_are_followed_so_far(upstream: FakeRegistry, client: UpstreamClient) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        number = int(request.query.get("last", "0")) + 1
        headers = {"Link": f'<{request.path}?last={number}>; rel="next"'}
        if request.path.endswith("/tags/list"):
            return web.json_response({"tags": [f"t{number}"]}, headers=headers)
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        return web.Response(text=json.dumps(document), headers=headers, content_type=OCI_INDEX)

    upstream.faults.on("*", Fault(answer=page))
    assert not (await client.list_tags(ALPINE)).complete
    assert upstream.count("*/tags/list") == 100
    assert not (await client.list_referrers(ALPINE, SUBJECT)).complete
    assert upstream.count("*/referrers/*") == 100


async def test_sec_25_referrers_without_number_are_cut(upstream: FakeRegistry, client: UpstreamClient) -> None:
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": f"sha256:{number:064x}", "size": number} for number in range(30_000)
    ]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    upstream.faults.on("*", Fault(body=json.dumps(document).encode(), content_type=OCI_INDEX))
    listed = await client.list_referrers(ALPINE, SUBJECT)
    assert (len(listed.descriptors), listed.complete) == (10_000, False)


async def test_sec_25_redirects_without_end_are_followed_so_far(upstream: FakeRegistry, client: UpstreamClient) -> None:
    upstream.faults.on("*", Fault(redirect="/v2/loop"))
    with pytest.raises(UpstreamContent, match="redirects"):
        await client.get_manifest(ALPINE, TAG)
    assert upstream.count() == MAX_REDIRECTS + 1


async def test_sec_25_links_that_lead_in_a_circle_end(upstream: FakeRegistry, client: UpstreamClient) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        other = "b" if request.query.get("last") == "a" else "a"
        return web.json_response({"tags": [other]}, headers={"Link": f"<{request.path}?last={other}>; rel=next"})

    upstream.faults.on("*", Fault(answer=page))
    listed = await client.list_tags(ALPINE)
    assert (sorted(listed.tags), listed.complete) == (["a", "b"], False)
    assert upstream.count() == 3


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("opening", [b"[", b'{"a":'], ids=["list", "object"])
async def test_sec_26_deep_nesting_is_refused(kind: str, opening: bytes) -> None:
    content_type, call = CALLS[kind]
    async with FakeRegistry(tokens=Tokens() if kind == "token" else None) as upstream, client_of(upstream) as client:
        body = opening * (MEGABYTE // len(opening))
        upstream.faults.on(
            "/token" if kind == "token" else "/v2/*", Fault(body=body[:MEGABYTE], content_type=content_type)
        )
        with pytest.raises(UpstreamContent):
            await call(client)


async def test_sec_26_deep_nesting_of_an_error_is_nothing(upstream: FakeRegistry, client: UpstreamClient) -> None:
    upstream.faults.on("*", Fault(status=500, body=b"[" * MEGABYTE))
    with pytest.raises(UpstreamUnavailable, match="answered 500"):
        await client.get_manifest(ALPINE, TAG)


@pytest.mark.parametrize("kind", CALLS)
async def test_sec_27_compressed_answer_is_not_unpacked(kind: str, peak: Callable[[], int]) -> None:
    """A bomb of 64 MB stays the few kB that it came as."""
    content_type, call = CALLS[kind]
    bomb = gzip.compress(b" " * (64 * MEGABYTE), compresslevel=1)
    tracemalloc.reset_peak()
    async with FakeRegistry(tokens=Tokens() if kind == "token" else None) as upstream, client_of(upstream) as client:
        fault = Fault(body=bomb, content_type=content_type, headers={"Content-Encoding": "gzip"})
        upstream.faults.on("/token" if kind == "token" else "/v2/*", fault)
        with pytest.raises(UpstreamContent):
            await call(client)
        assert {request.headers["accept-encoding"] for request in upstream.requests} == {"identity"}
    assert peak() < 32 * MEGABYTE


async def test_sec_27_blob_arrives_as_it_was_sent(upstream: FakeRegistry, client: UpstreamClient) -> None:
    packed = gzip.compress(LAYER)
    upstream.faults.on("*", Fault(body=packed, headers={"Content-Encoding": "gzip"}))
    assert await pull(client, digest_of(packed)) == packed
    assert upstream.requests[0].headers["accept-encoding"] == "identity"
