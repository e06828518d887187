"""Pushing: mounted where possible, sent in one piece where not, to nobody but the registry itself."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import (
    CorruptBlob,
    SizeMismatch,
    UpstreamContent,
    UpstreamDenied,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from replicator.core.names import RepositoryName, Tag
from replicator.telemetry.system_clock import SystemClock
from replicator.upstream.body import OutgoingBlob
from replicator.upstream.client import open_client
from replicator.upstream.endpoint import Credentials, UpstreamEndpoint
from replicator.upstream.limits import UpstreamLimits
from replicator.upstream.push import RESUMABLE_FROM
from tests.support.clock import FakeClock
from tests.support.images import build_image
from tests.support.upstream_clients import client_of
from tests.support.upstreams import FakeRegistry, FakeServer, Fault, Hold, Tokens, basic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.upstream.client import UpstreamClient

TEAM, OTHER, TAG = RepositoryName("team/app"), RepositoryName("team/base"), Tag("v1")
BLOB = bytes(range(256)) * 2000
DIGEST = digest_of(BLOB)


async def pieces(content: bytes = BLOB, size: int = 100_000) -> AsyncIterator[bytes | memoryview]:
    """Yield views of one buffer that is used again for every piece, as a file reader does."""
    buffer = bytearray(size)
    for start in range(0, len(content), size):
        piece = content[start : start + size]
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]


def pieces_from(start: int) -> AsyncIterator[bytes | memoryview]:
    return pieces(BLOB[start:])


class TestBlob:
    async def test_is_sent_in_one_piece(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        assert await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from)
        assert upstream.repository(TEAM).blobs[DIGEST] == BLOB
        put = upstream.requests[-1]
        assert put.headers["content-length"] == str(len(BLOB))
        assert "transfer-encoding" not in put.headers
        assert put.query == {"state": "a/b", "digest": DIGEST}

    async def test_of_no_bytes_is_sent(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        assert await client.put_blob(TEAM, digest_of(b""), 0, lambda _: pieces(b""))
        assert upstream.repository(TEAM).blobs[digest_of(b"")] == b""

    async def test_of_sha512_is_sent(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        digest = digest_of(BLOB, "sha512")
        assert await client.put_blob(TEAM, digest, len(BLOB), pieces_from)
        assert upstream.repository(TEAM).blobs[digest] == BLOB

    async def test_is_mounted_without_a_byte(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.add_blob(OTHER, BLOB)
        assert not await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from, mount_from=OTHER)
        assert upstream.repository(TEAM).blobs[DIGEST] == BLOB
        assert [(request.method, dict(request.query)) for request in upstream.requests] == [
            ("POST", {"mount": DIGEST, "from": OTHER})
        ]

    async def test_is_sent_where_it_cannot_be_mounted(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        assert await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from, mount_from=OTHER)
        assert upstream.count() == 2, "the session that came instead of the mount is used"

    @pytest.mark.parametrize("status", [400, 403, 404, 405])
    async def test_is_sent_where_mounting_is_refused(
        self, upstream: FakeRegistry, client: UpstreamClient, status: int
    ) -> None:
        upstream.faults.on("POST *", Fault(status=status), times=1)
        assert await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from, mount_from=OTHER)
        assert upstream.repository(TEAM).blobs[DIGEST] == BLOB

    async def test_mounted_as_something_else_is_refused(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        headers = {"Docker-Content-Digest": digest_of(b"other")}
        upstream.faults.on("POST *", Fault(status=201, headers=headers))
        with pytest.raises(UpstreamContent, match="another digest"):
            await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from, mount_from=OTHER)

    async def test_created_though_nothing_was_to_be_mounted_is_refused(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        upstream.faults.on("POST *", Fault(status=201))
        with pytest.raises(UpstreamContent, match="201"):
            await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from)

    async def test_taken_in_as_something_else_is_refused(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.faults.on("PUT *", Fault(headers={"Docker-Content-Digest": digest_of(b"other")}))
        with pytest.raises(UpstreamContent, match="another digest"):
            await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from)

    @pytest.mark.parametrize("content", [BLOB + b"x", BLOB[:-1], b""])
    async def test_of_another_size_is_not_sent_as_if_whole(
        self, upstream: FakeRegistry, client: UpstreamClient, content: bytes
    ) -> None:
        with pytest.raises(SizeMismatch, match=f"expected {len(BLOB)} bytes to send"):
            await client.put_blob(TEAM, DIGEST, len(BLOB), lambda start: pieces(content[start:]))
        assert DIGEST not in upstream.repository(TEAM).blobs

    async def test_failure_of_the_source_passes_through(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        """What the store says about its own blob is not turned into the upstream's fault."""

        async def broken() -> AsyncIterator[bytes]:
            yield BLOB[:1000]
            raise CorruptBlob("ours")

        with pytest.raises(CorruptBlob, match="ours"):
            await client.put_blob(TEAM, DIGEST, len(BLOB), lambda _: broken())
        assert DIGEST not in upstream.repository(TEAM).blobs
        await client.ping()

    async def test_refused_by_the_registry_is_named(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        with pytest.raises(
            UpstreamContent, match=f"fake: upload of blob {DIGEST} to team/app: answered 400 DIGEST_INVALID"
        ):
            await client.put_blob(TEAM, DIGEST, len(BLOB), lambda _: pieces(BLOB[::-1]))

    @pytest.mark.parametrize(("status", "error"), [(413, UpstreamRefused), (507, UpstreamUnavailable)])
    async def test_refused_before_it_was_read_is_named(
        self, upstream: FakeRegistry, client: UpstreamClient, status: int, error: type[Exception]
    ) -> None:
        """A registry may answer while we still send; its answer counts, not the broken pipe."""
        upstream.faults.on("PUT *", Fault(status=status))
        with pytest.raises(error):
            await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from)


async def test_pieces_are_copied_before_their_buffer_is_used_again() -> None:
    """A source may give views of one buffer; what the transport still holds must not change under it."""
    limits = UpstreamLimits(UpstreamEndpoint("fake", "http://registry.example"), FakeClock())
    async with asyncio.timeout(5) as deadline:
        body = OutgoingBlob(pieces(), len(BLOB), limits, deadline, 1.0, 1.0)
        assert b"".join([chunk async for chunk in body]) == BLOB


class TestLocation:
    """An upload goes where the registry says, which must be the registry (CVE-2026-50151)."""

    async def test_elsewhere_is_refused(self) -> None:
        async with FakeServer() as foreign, FakeRegistry(basic=("ann", "secret")) as upstream:
            upstream.upload_location = lambda path: foreign.url + path
            async with client_of(upstream, credentials=Credentials("ann", "secret")) as client:
                with pytest.raises(UpstreamContent, match="another origin"):
                    await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from)
            assert foreign.requests == []

    @pytest.mark.parametrize(
        "location", ["", "http://", "//evil.example/x", "https://{authority}/x", "file:///x", "http:\\\\x"]
    )
    async def test_that_is_none_of_the_registry_is_refused(
        self, upstream: FakeRegistry, client: UpstreamClient, location: str
    ) -> None:
        upstream.upload_location = lambda _: location.format(authority=upstream.authority)
        if location in {"", "http://"}:
            upstream.faults.on("POST *", Fault(status=202, headers={"Location": location}))
        with pytest.raises(UpstreamContent):
            await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from)
        assert upstream.count() == 1

    async def test_may_be_absolute(self) -> None:
        async with FakeRegistry(basic=("ann", "secret")) as upstream:
            upstream.upload_location = lambda path: upstream.url + path
            async with client_of(upstream, credentials=Credentials("ann", "secret")) as client:
                assert await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from)
            assert upstream.authorizations("PUT *") == [basic("ann", "secret")]

    async def test_may_have_no_query(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.upload_location = lambda path: path.partition("?")[0]
        assert await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from)
        assert upstream.requests[-1].query == {"digest": DIGEST}


class TestAuthorization:
    async def test_mount_asks_for_both_repositories(self) -> None:
        tokens = Tokens()
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream) as client:
            upstream.add_blob(OTHER, BLOB)
            assert not await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from, mount_from=OTHER)
            assert tokens.scopes == [["repository:team/app:pull,push", "repository:team/base:pull"]]

    async def test_token_that_expires_before_the_bytes_are_taken_is_a_reason_to_come_back(self) -> None:
        """The bytes are used up and cannot be sent again here; the next attempt brings a new token."""
        tokens = Tokens()
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream) as client:
            challenge = {"WWW-Authenticate": f'Bearer realm="{upstream.url}/token"'}
            upstream.faults.on("PUT *", Fault(status=401, headers=challenge), times=1)
            with pytest.raises(UpstreamUnavailable, match="expired"):
                await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from)
            assert tokens.issued == 2
            assert await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from)

    async def test_refusal_is_denied(self) -> None:
        async with FakeRegistry(basic=("ann", "secret")) as upstream, client_of(upstream) as client:
            with pytest.raises(UpstreamDenied):
                await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from)
            assert upstream.count("PUT *") == 0


class TestPatience:
    async def test_registry_that_takes_no_more_bytes_is_given_up(self, upstream: FakeRegistry) -> None:
        hold = Hold()
        upstream.faults.on("PATCH *", Fault(hold=hold))
        big = b"x" * 1_000_000

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(200):
                yield big

        async with client_of(upstream, stall_timeout=0.2) as client:
            with pytest.raises(UpstreamTimeout):
                await client.put_blob(TEAM, DIGEST, 200 * len(big), lambda _: endless())
        hold.release()

    async def test_registry_that_never_confirms_is_given_up(self, upstream: FakeRegistry) -> None:
        hold = Hold()
        upstream.faults.on("PUT *", Fault(hold=hold))
        async with client_of(upstream, total_timeout=0.2) as client:
            with pytest.raises(UpstreamTimeout):
                await client.put_blob(TEAM, DIGEST, len(BLOB), pieces_from)
        hold.release()

    async def test_slow_source_is_not_the_registrys_fault(self, upstream: FakeRegistry) -> None:
        """The source may take longer than any limit of the upstream: it has limits of its own."""

        async def slow() -> AsyncIterator[bytes]:
            yield BLOB[:1000]
            await asyncio.sleep(1.2)
            yield BLOB[1000:]

        async with client_of(upstream, stall_timeout=1.0, total_timeout=1.0) as client:
            assert await client.put_blob(TEAM, DIGEST, len(BLOB), lambda _: slow())

    async def test_cancellation_leaves_a_usable_client(self, upstream: FakeRegistry) -> None:
        started, never = asyncio.Event(), asyncio.Event()

        async def stuck() -> AsyncIterator[bytes]:
            yield BLOB[:1000]
            started.set()
            await never.wait()

        async with client_of(upstream, max_connections=1) as client:
            async with asyncio.TaskGroup() as group:
                push = group.create_task(client.put_blob(TEAM, DIGEST, len(BLOB), lambda _: stuck()))
                await started.wait()
                push.cancel()
            await client.ping()
        assert DIGEST not in upstream.repository(TEAM).blobs


class TestManifest:
    async def test_is_put_under_a_tag_with_its_headers(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        image = build_image()
        headers = {"X-Replicator-Revision": "1.2.3"}
        await client.put_manifest(TEAM, TAG, image.manifest, image.media_type, headers)
        assert upstream.repository(TEAM).tags == {TAG: image.digest}
        assert upstream.repository(TEAM).manifests == {image.digest: (image.manifest, image.media_type)}
        assert upstream.requests[0].headers["x-replicator-revision"] == "1.2.3"

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    async def test_is_put_under_its_digest(
        self, upstream: FakeRegistry, client: UpstreamClient, algorithm: str
    ) -> None:
        image = build_image(algorithm=algorithm)
        await client.put_manifest(TEAM, image.digest, image.manifest, image.media_type)
        assert list(upstream.repository(TEAM).manifests) == [image.digest]

    async def test_taken_in_as_something_else_is_refused(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        image = build_image()
        upstream.faults.on("PUT *", Fault(headers={"Docker-Content-Digest": digest_of(b"other")}))
        with pytest.raises(UpstreamContent, match="another digest"):
            await client.put_manifest(TEAM, TAG, image.manifest, image.media_type)

    async def test_not_confirmed_by_a_digest_is_accepted(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        image = build_image()
        upstream.faults.on("PUT *", Fault(status=201))
        await client.put_manifest(TEAM, TAG, image.manifest, image.media_type)

    async def test_refused_is_named(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        image = build_image()
        with pytest.raises(UpstreamContent, match="DIGEST_INVALID"):
            await client.put_manifest(TEAM, digest_of(b"other"), image.manifest, image.media_type)

    async def test_is_deleted_by_tag_or_digest(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        image = upstream.add_image(TEAM, TAG)
        await client.delete_manifest(TEAM, TAG)
        assert upstream.repository(TEAM).tags == {}
        await client.delete_manifest(TEAM, image.digest)
        assert upstream.repository(TEAM).manifests == {}

    async def test_that_may_not_be_deleted_is_named(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.add_image(TEAM, TAG)
        upstream.deletes_tags = False
        with pytest.raises(UpstreamRefused, match="UNSUPPORTED"):
            await client.delete_manifest(TEAM, TAG)

    async def test_that_is_deleted_by_digest_only_is_refused_by_tag(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        upstream.faults.on("DELETE *", Fault(status=400, body=b'{"errors":[{"code":"DIGEST_INVALID"}]}'))
        with pytest.raises(UpstreamRefused, match="DIGEST_INVALID"):
            await client.delete_manifest(TEAM, TAG)


BIG = bytes(range(256)) * (RESUMABLE_FROM // 256 + 5000)
BIG_DIGEST = digest_of(BIG)


class Reader:
    """Reads the large blob, and notes from where."""

    def __init__(self, content: bytes = BIG) -> None:
        self.starts: list[int] = []
        self._content = content

    def __call__(self, start: int) -> AsyncIterator[bytes | memoryview]:
        self.starts.append(start)
        return pieces(self._content[start:])


class TestLargeBlob:
    """A broken connection costs what was not taken in yet, and no more."""

    async def test_is_sent_so_that_it_can_be_resumed(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        reader = Reader()
        assert await client.put_blob(TEAM, BIG_DIGEST, len(BIG), reader)
        assert upstream.repository(TEAM).blobs[BIG_DIGEST] == BIG
        assert [request.method for request in upstream.requests] == ["POST", "PATCH", "PUT"]
        assert reader.starts == [0]

    async def test_goes_on_where_the_registry_stands(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.upload_cuts = [1_500_000, 1_100_000]
        reader = Reader()
        assert await client.put_blob(TEAM, BIG_DIGEST, len(BIG), reader)
        assert upstream.repository(TEAM).blobs[BIG_DIGEST] == BIG
        assert reader.starts == [0, 1_500_000, 2_600_000]

    async def test_is_begun_anew_where_the_registry_does_not_say_where_it_stands(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        upstream.upload_cuts, upstream.resumes = [1_500_000], False
        reader = Reader()
        assert await client.put_blob(TEAM, BIG_DIGEST, len(BIG), reader)
        assert upstream.repository(TEAM).blobs[BIG_DIGEST] == BIG
        assert reader.starts == [0, 0]

    async def test_is_given_up_after_a_bounded_number_of_connections(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        upstream.upload_cuts = [10] * 20
        with pytest.raises(UpstreamUnavailable):
            await client.put_blob(TEAM, BIG_DIGEST, len(BIG), Reader())
        assert upstream.count("PATCH *") == 4
        assert upstream.count("DELETE *") == 1, "the registry need not keep what it got"

    async def test_is_not_resumed_where_the_registry_claims_more_than_there_is(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        upstream.upload_cuts = [1_500_000]
        upstream.faults.on("GET *", Fault(status=204, headers={"Range": f"0-{len(BIG)}"}))
        reader = Reader()
        assert await client.put_blob(TEAM, BIG_DIGEST, len(BIG), reader)
        assert reader.starts == [0, 0]

    async def test_resumed_at_the_wrong_byte_is_refused_by_its_digest_and_comes_again(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        upstream.upload_cuts = [1_500_000]
        lie = Fault(status=204, headers={"Range": f"0-{len(BIG) - 1}"})
        upstream.faults.on("GET *", lie, times=1)
        with pytest.raises(UpstreamContent):
            await client.put_blob(TEAM, BIG_DIGEST, len(BIG), Reader())
        assert BIG_DIGEST not in upstream.repository(TEAM).blobs

    @pytest.mark.parametrize("status", [404, 405, 416])
    async def test_is_sent_in_one_piece_where_the_registry_knows_no_other_way(
        self, upstream: FakeRegistry, client: UpstreamClient, status: int
    ) -> None:
        upstream.faults.on("PATCH *", Fault(status=status))
        assert await client.put_blob(TEAM, BIG_DIGEST, len(BIG), Reader())
        assert upstream.repository(TEAM).blobs[BIG_DIGEST] == BIG

    @pytest.mark.parametrize("pattern", ["PATCH *", "GET *"])
    async def test_that_is_sent_elsewhere_half_way_is_refused(self, pattern: str) -> None:
        async with FakeServer() as foreign, FakeRegistry(basic=("ann", "secret")) as upstream:
            upstream.upload_cuts = [1_500_000] if pattern == "GET *" else []
            headers = {"Location": f"{foreign.url}/v2/x", "Range": "0-1499999"}
            upstream.faults.on(pattern, Fault(status=204, headers=headers))
            async with client_of(upstream, credentials=Credentials("ann", "secret")) as client:
                if pattern == "PATCH *":
                    with pytest.raises(UpstreamContent, match="another origin"):
                        await client.put_blob(TEAM, BIG_DIGEST, len(BIG), Reader())
                else:
                    assert await client.put_blob(TEAM, BIG_DIGEST, len(BIG), Reader()), "it is begun anew"
            assert foreign.requests == []

    async def test_failure_of_the_source_is_not_a_reason_to_resume(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        async def broken() -> AsyncIterator[bytes]:
            yield BIG[:1000]
            raise CorruptBlob("ours")

        with pytest.raises(CorruptBlob, match="ours"):
            await client.put_blob(TEAM, BIG_DIGEST, len(BIG), lambda _: broken())
        assert upstream.count("PATCH *") == 1


class TestReadBack:
    """What counts is what a registry gives, not what it says."""

    async def test_of_a_blob_fetches_its_last_byte(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.add_blob(TEAM, BLOB)
        assert await client.holds_blob(TEAM, DIGEST, len(BLOB))
        assert upstream.requests[-1].headers["range"] == f"bytes={len(BLOB) - 1}-"
        assert not await client.holds_blob(OTHER, DIGEST, len(BLOB))

    @pytest.mark.parametrize("content", [b"", b"x"])
    async def test_of_a_blob_of_no_or_one_byte(
        self, upstream: FakeRegistry, client: UpstreamClient, content: bytes
    ) -> None:
        assert await client.holds_blob(TEAM, upstream.add_blob(TEAM, content), len(content))

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(status=200, body=b"<html>welcome</html>", content_type="text/html"),
            Fault(status=200, body=BLOB[:-1]),
            Fault(status=206, body=b"x", headers={"Content-Range": f"bytes 0-0/{len(BLOB)}"}),
            Fault(status=206, body=b"x", headers={"Content-Range": f"bytes {len(BLOB)}-{len(BLOB)}/{len(BLOB) + 1}"}),
            Fault(
                status=206, body=b"", headers={"Content-Range": f"bytes {len(BLOB) - 1}-{len(BLOB) - 1}/{len(BLOB)}"}
            ),
            Fault(status=206, body=b"x"),
            Fault(status=200, body=BLOB[::-1], chunked=True),
        ],
    )
    async def test_of_a_blob_that_is_another_is_not_believed(
        self, upstream: FakeRegistry, client: UpstreamClient, fault: Fault
    ) -> None:
        upstream.faults.on("GET *", fault)
        with pytest.raises(UpstreamContent):
            await client.holds_blob(TEAM, DIGEST, len(BLOB))

    @pytest.mark.parametrize("fault", [Fault(status=200, body=BLOB), Fault(status=200, body=BLOB, chunked=True)])
    async def test_of_a_blob_by_its_length_or_content_where_no_part_is_served(
        self, upstream: FakeRegistry, client: UpstreamClient, fault: Fault
    ) -> None:
        upstream.faults.on("GET *", fault)
        assert await client.holds_blob(TEAM, DIGEST, len(BLOB))

    async def test_of_a_blob_without_an_end_is_given_up_at_its_size(self) -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
                    await writer.drain()
                    await asyncio.sleep(0)
            writer.close()

        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            endpoint = UpstreamEndpoint("endless", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            client = open_client(endpoint, SystemClock())
            try:
                async with asyncio.timeout(5):
                    with pytest.raises(UpstreamContent):
                        await client.holds_blob(TEAM, DIGEST, len(BLOB))
            finally:
                await client.close()

    async def test_does_not_ask_head(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.faults.on("HEAD *", Fault(status=200, headers={"Docker-Content-Digest": DIGEST}))
        assert not await client.holds_blob(TEAM, DIGEST, len(BLOB))
        assert not await client.holds_manifest(TEAM, DIGEST)
        assert await client.find_tag(TEAM, TAG) is None
        assert upstream.count("HEAD *") == 0

    async def test_of_a_blob_that_lies_at_another_host_shows_no_credentials_there(self) -> None:
        async with FakeRegistry() as storage, FakeRegistry(basic=("ann", "secret")) as upstream:
            storage.add_blob(TEAM, BLOB)
            upstream.faults.on("GET *", Fault(redirect=f"{storage.url}/v2/{TEAM}/blobs/{DIGEST}"))
            async with client_of(upstream, credentials=Credentials("ann", "secret")) as client:
                assert await client.holds_blob(TEAM, DIGEST, len(BLOB))
            assert storage.authorizations() == []

    async def test_of_manifest_and_tag_verifies_the_content(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        image, other = upstream.add_image(TEAM, TAG), build_image([b"another"])
        assert await client.holds_manifest(TEAM, image.digest)
        assert await client.find_tag(TEAM, TAG) == image.digest
        headers = {"Content-Type": image.media_type, "Docker-Content-Digest": image.digest}
        upstream.faults.on("GET *", Fault(body=other.manifest, headers=headers))
        with pytest.raises(UpstreamContent):
            await client.holds_manifest(TEAM, image.digest)
        upstream.faults.clear()
        upstream.faults.on(f"GET */manifests/{TAG}", Fault(body=other.manifest, headers=headers))
        with pytest.raises(UpstreamContent, match="announced"):
            await client.find_tag(TEAM, TAG)
        upstream.faults.clear()
        upstream.faults.on("GET *", Fault(body=other.manifest, headers={"Content-Type": image.media_type}))
        assert await client.find_tag(TEAM, TAG) == other.digest, "the digest is of what came"
