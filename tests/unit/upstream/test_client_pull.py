"""Pulling: what comes back was checked, and what was not right never comes back."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import UpstreamContent, UpstreamNotFound
from replicator.core.manifest import MAX_MANIFEST_BYTES
from replicator.core.media_types import OCI_MANIFEST
from replicator.core.names import RepositoryName, Tag
from tests.support.images import build_image, build_index
from tests.support.upstreams import FakeRegistry, Fault, Hold

if TYPE_CHECKING:
    from replicator.upstream.client import UpstreamClient

ALPINE = RepositoryName("library/alpine")
TAG = Tag("3.20")
LAYER = bytes(range(256)) * 1024


async def whole(client: UpstreamClient, digest: str, start: int = 0) -> bytes:
    async with client.open_blob(ALPINE, digest, start) as stream:  # type: ignore[arg-type]
        return b"".join([chunk async for chunk in stream.chunks])


class TestManifest:
    async def test_is_fetched_by_tag_with_its_own_digest(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        image = upstream.add_image(ALPINE, TAG)
        fetched = await client.get_manifest(ALPINE, TAG)
        assert (fetched.content, fetched.media_type, fetched.digest) == (image.manifest, image.media_type, image.digest)

    @pytest.mark.parametrize("media", ["oci", "docker"])
    async def test_of_every_form_is_fetched(self, upstream: FakeRegistry, client: UpstreamClient, media: str) -> None:
        index = build_index([build_image(media=media), build_image([b"x"], media=media)], media=media)  # type: ignore[arg-type]
        upstream.add(ALPINE, index, TAG)
        for built in (index, *index.children):
            assert (await client.get_manifest(ALPINE, built.digest)).content == built.manifest

    async def test_of_sha512_is_verified_as_such(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        image = upstream.add_image(ALPINE, algorithm="sha512")
        assert (await client.get_manifest(ALPINE, image.digest)).digest == image.digest

    async def test_asks_for_every_form_and_for_no_encoding(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        upstream.add_image(ALPINE, TAG)
        await client.get_manifest(ALPINE, TAG)
        (request,) = upstream.requests
        assert OCI_MANIFEST in request.headers["accept"]
        assert "manifest.list.v2+json" in request.headers["accept"]
        assert request.headers["accept-encoding"] == "identity"

    async def test_unknown_is_not_found(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.add_image(ALPINE, TAG)
        with pytest.raises(
            UpstreamNotFound, match="fake: manifest nope of library/alpine: answered 404 MANIFEST_UNKNOWN"
        ):
            await client.get_manifest(ALPINE, Tag("nope"))

    async def test_that_is_not_what_its_digest_says_is_refused(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        """A digest pin is verified here, not believed: the upstream even states the digest that was asked for."""
        wanted, other = upstream.add_image(ALPINE), build_image([b"other"])
        headers = {"Docker-Content-Digest": wanted.digest, "Content-Type": other.media_type}
        upstream.faults.on("*/manifests/*", Fault(body=other.manifest, headers=headers))
        with pytest.raises(UpstreamContent, match="another digest"):
            await client.get_manifest(ALPINE, wanted.digest)

    @pytest.mark.parametrize("stated", ["", "md5:0", "sha256:short"])
    async def test_by_tag_gets_the_digest_of_its_bytes_whatever_is_stated(
        self, upstream: FakeRegistry, client: UpstreamClient, stated: str
    ) -> None:
        image = upstream.add_image(ALPINE, TAG)
        upstream.faults.on("*/manifests/*", Fault(headers={"Docker-Content-Digest": stated}))
        assert (await client.get_manifest(ALPINE, TAG)).digest == image.digest

    async def test_by_tag_may_be_announced_with_a_digest_of_another_algorithm(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        image = upstream.add_image(ALPINE, TAG)
        other = {"Docker-Content-Digest": digest_of(image.manifest, "sha512")}
        upstream.faults.on("*/manifests/*", Fault(headers=other))
        assert (await client.get_manifest(ALPINE, TAG)).digest == image.digest

    async def test_by_tag_that_was_damaged_on_the_way_is_refused(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        image = upstream.add_image(ALPINE, TAG)
        within_a_digest = image.manifest.index(b"sha256:") + 10
        upstream.faults.on("*/manifests/*", Fault(flip=within_a_digest))
        with pytest.raises(UpstreamContent, match="announced with"):
            await client.get_manifest(ALPINE, TAG)

    async def test_by_tag_of_a_registry_that_states_wrong_digests_is_taken_when_it_has_the_right_one_as_well(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        image = upstream.add_image(ALPINE, TAG)
        wrong = {"Docker-Content-Digest": digest_of(b"something else")}
        upstream.faults.on(f"*/manifests/{TAG}", Fault(headers=wrong))
        assert (await client.get_manifest(ALPINE, TAG)).digest == image.digest
        assert upstream.count(f"GET */manifests/{image.digest}") == 1

    @pytest.mark.parametrize(
        ("body", "content_type"),
        [
            (b"<html><body>Sign in to the hotel</body></html>", "text/html"),
            (b"<html></html>", OCI_MANIFEST),
            (b"", OCI_MANIFEST),
            (b"[" * 100_000, OCI_MANIFEST),
            (b"\x1f\x8b\x08garbage", OCI_MANIFEST),
            (build_image().manifest, "text/html"),
            (build_image().manifest, "application/vnd.docker.distribution.manifest.v2+json"),
            (json.dumps({"schemaVersion": 1}).encode(), "application/vnd.docker.distribution.manifest.v1+json"),
        ],
        ids=["portal", "html", "empty", "deep", "binary", "type", "other type", "schema 1"],
    )
    async def test_that_is_none_is_refused(
        self, upstream: FakeRegistry, client: UpstreamClient, body: bytes, content_type: str
    ) -> None:
        upstream.faults.on("*/manifests/*", Fault(body=body, content_type=content_type))
        with pytest.raises(UpstreamContent):
            await client.get_manifest(ALPINE, TAG)

    async def test_of_stated_excess_size_is_refused_unread(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        """An endless manifest costs us nothing (CVE-2017-11468, CVE-2023-25153)."""
        hold = Hold()
        fault = Fault(body=b" ", length=300 * 1024**2, hold=hold, hold_after=1, content_type=OCI_MANIFEST)
        upstream.faults.on("*/manifests/*", fault)
        with pytest.raises(UpstreamContent, match="longer than"):
            await client.get_manifest(ALPINE, TAG)
        hold.release()

    async def test_of_excess_size_without_length_is_cut_off(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        hold = Hold()
        endless = b" " * (MAX_MANIFEST_BYTES + 1024 * 1024)
        fault = Fault(
            body=endless, chunked=True, hold=hold, hold_after=MAX_MANIFEST_BYTES + 1, content_type=OCI_MANIFEST
        )
        upstream.faults.on("*/manifests/*", fault)
        with pytest.raises(UpstreamContent, match="longer than"):
            await client.get_manifest(ALPINE, TAG)  # returns while the upstream still has more
        hold.release()

    async def test_of_the_largest_size_is_fetched(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        image = upstream.add_image(ALPINE, TAG, annotations={"filler": "x" * (4 * 1024 * 1024)})
        assert (await client.get_manifest(ALPINE, TAG)).content == image.manifest

    @pytest.mark.parametrize("fault", [Fault(cut_after=10), Fault(cut_after=10, reset=True), Fault(length=100_000)])
    async def test_cut_off_is_refused(self, upstream: FakeRegistry, client: UpstreamClient, fault: Fault) -> None:
        upstream.add_image(ALPINE, TAG)
        upstream.faults.on("*/manifests/*", fault)
        with pytest.raises((UpstreamContent,)):
            await client.get_manifest(ALPINE, TAG)

    async def test_compressed_against_our_will_is_not_unpacked(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        """A compression bomb stays small: what comes is taken as it is, and is then no manifest (CVE-2025-69223)."""
        upstream.add_image(ALPINE, TAG)
        bomb = gzip.compress(build_image().manifest)
        fault = Fault(body=bomb, content_type=OCI_MANIFEST, headers={"Content-Encoding": "gzip"})
        upstream.faults.on("*/manifests/*", fault)
        with pytest.raises(UpstreamContent):
            await client.get_manifest(ALPINE, TAG)


class TestManifestHead:
    async def test_says_type_digest_and_size(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        image = upstream.add_image(ALPINE, TAG)
        head = await client.head_manifest(ALPINE, TAG)
        assert (head.media_type, head.digest, head.size) == (image.media_type, image.digest, len(image.manifest))

    @pytest.mark.parametrize("stated", ["", "sha256:../../etc/passwd", "md5:00"])
    async def test_without_a_usable_digest_says_none(
        self, upstream: FakeRegistry, client: UpstreamClient, stated: str
    ) -> None:
        upstream.add_image(ALPINE, TAG)
        upstream.faults.on("HEAD *", Fault(headers={"Docker-Content-Digest": stated}))
        assert (await client.head_manifest(ALPINE, TAG)).digest is None

    async def test_of_a_page_is_refused(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.faults.on("HEAD *", Fault(status=200, content_type="text/html; charset=utf-8"))
        with pytest.raises(UpstreamContent, match="text/html"):
            await client.head_manifest(ALPINE, TAG)

    async def test_for_another_digest_is_refused(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        image = upstream.add_image(ALPINE)
        upstream.faults.on("HEAD *", Fault(headers={"Docker-Content-Digest": digest_of(b"other")}))
        with pytest.raises(UpstreamContent, match="another digest"):
            await client.head_manifest(ALPINE, image.digest)

    async def test_error_has_no_body_to_wait_for(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        with pytest.raises(UpstreamNotFound):
            await client.head_manifest(ALPINE, TAG)


class TestBlob:
    async def test_streams_whole(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        digest = upstream.add_blob(ALPINE, LAYER)
        async with client.open_blob(ALPINE, digest) as stream:
            assert (stream.size, stream.start) == (len(LAYER), 0)
            assert b"".join([chunk async for chunk in stream.chunks]) == LAYER
        assert "range" not in upstream.requests[0].headers

    async def test_of_no_bytes_streams_none(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        digest = upstream.add_blob(ALPINE, b"")
        assert await whole(client, digest) == b""

    async def test_resumes_from_an_offset(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        digest = upstream.add_blob(ALPINE, LAYER)
        async with client.open_blob(ALPINE, digest, 1000) as stream:
            assert (stream.size, stream.start) == (len(LAYER), 1000)
            assert b"".join([chunk async for chunk in stream.chunks]) == LAYER[1000:]
        assert upstream.requests[0].headers["range"] == "bytes=1000-"

    async def test_restarts_where_the_upstream_knows_no_ranges(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        digest = upstream.add_blob(ALPINE, LAYER)
        upstream.faults.on("*/blobs/*", Fault(body=LAYER))
        async with client.open_blob(ALPINE, digest, 1000) as stream:
            assert (stream.size, stream.start) == (len(LAYER), 0)
            assert b"".join([chunk async for chunk in stream.chunks]) == LAYER

    async def test_restarts_where_the_offset_lies_outside(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        digest = upstream.add_blob(ALPINE, LAYER)
        async with client.open_blob(ALPINE, digest, len(LAYER)) as stream:
            assert (stream.size, stream.start) == (len(LAYER), 0)
            assert b"".join([chunk async for chunk in stream.chunks]) == LAYER
        assert upstream.count() == 2

    @pytest.mark.parametrize(
        "content_range",
        [
            "bytes 999-{last}/{size}",
            "bytes 0-{last}/{size}",
            "bytes 1000-2000/{size}",
            "bytes 1000-{last}/*",
            "bytes 1000-{last}/5",
            "items 1000-{last}/{size}",
            "",
        ],
    )
    async def test_part_that_is_not_the_one_asked_for_is_refused(
        self, upstream: FakeRegistry, client: UpstreamClient, content_range: str
    ) -> None:
        digest = upstream.add_blob(ALPINE, LAYER)
        stated = content_range.format(last=len(LAYER) - 1, size=len(LAYER))
        upstream.faults.on("*/blobs/*", Fault(headers={"Content-Range": stated}))
        with pytest.raises(UpstreamContent):
            await whole(client, digest, 1000)

    async def test_part_of_a_length_other_than_its_range_is_refused(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        digest = upstream.add_blob(ALPINE, LAYER)
        headers = {"Content-Range": f"bytes 1000-{len(LAYER) - 1}/{len(LAYER)}"}
        upstream.faults.on("*/blobs/*", Fault(status=206, body=LAYER[:50], headers=headers))
        with pytest.raises(UpstreamContent, match="contradicts"):
            await whole(client, digest, 1000)

    async def test_part_nobody_asked_for_is_refused(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        digest = upstream.add_blob(ALPINE, LAYER)
        headers = {"Content-Range": f"bytes 0-{len(LAYER) - 1}/{len(LAYER)}"}
        upstream.faults.on("*/blobs/*", Fault(status=206, body=LAYER, headers=headers))
        with pytest.raises(UpstreamContent, match="206"):
            await whole(client, digest)

    async def test_without_a_length_is_of_unknown_size(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        digest = upstream.add_blob(ALPINE, LAYER)
        upstream.faults.on("*/blobs/*", Fault(chunked=True))
        async with client.open_blob(ALPINE, digest) as stream:
            assert stream.size is None
            assert b"".join([chunk async for chunk in stream.chunks]) == LAYER

    @pytest.mark.parametrize("fault", [Fault(cut_after=5000), Fault(cut_after=0), Fault(length=len(LAYER) + 1)])
    async def test_that_ends_early_is_short(self, upstream: FakeRegistry, client: UpstreamClient, fault: Fault) -> None:
        digest = upstream.add_blob(ALPINE, LAYER)
        upstream.faults.on("*/blobs/*", fault)
        with pytest.raises(UpstreamContent, match="short"):
            await whole(client, digest)
        upstream.faults.clear()
        assert await whole(client, digest) == LAYER, "the next pull is good"

    async def test_part_that_ends_early_in_good_order_is_short(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        digest = upstream.add_blob(ALPINE, LAYER)
        upstream.faults.on("*/blobs/*", Fault(chunked=True, cut_after=5000))
        with pytest.raises(UpstreamContent, match=f"short, 5000 of {len(LAYER) - 1000} bytes"):
            await whole(client, digest, 1000)

    async def test_part_that_goes_on_too_long_is_refused(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        digest = upstream.add_blob(ALPINE, LAYER)
        headers = {"Content-Range": f"bytes 1000-{len(LAYER) - 1}/{len(LAYER)}"}
        upstream.faults.on("*/blobs/*", Fault(status=206, body=LAYER, chunked=True, headers=headers))
        with pytest.raises(UpstreamContent, match="longer"):
            await whole(client, digest, 1000)

    async def test_keeps_the_bytes_that_came_before_the_end(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        """What was received before a break is not lost, so that the rest can be asked for."""
        hold, received = Hold(), bytearray()
        digest = upstream.add_blob(ALPINE, LAYER)
        upstream.faults.on("*/blobs/*", Fault(hold=hold, hold_after=50_000, cut_after=50_000), times=1)

        async def read_until_it_breaks() -> None:
            async with client.open_blob(ALPINE, digest) as stream:
                async for chunk in stream.chunks:
                    received.extend(chunk)
                    if len(received) == 50_000:
                        hold.release()

        with pytest.raises(UpstreamContent, match="short"):
            await read_until_it_breaks()
        async with client.open_blob(ALPINE, digest, len(received)) as stream:
            async for chunk in stream.chunks:
                received += chunk
        assert bytes(received) == LAYER

    async def test_with_a_flipped_bit_is_delivered_as_it_came(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        """The stream promises no digest: whoever stores it compares."""
        digest = upstream.add_blob(ALPINE, LAYER)
        upstream.faults.on("*/blobs/*", Fault(flip=7))
        assert digest_of(await whole(client, digest)) != digest

    async def test_unknown_is_not_found(self, client: UpstreamClient) -> None:
        with pytest.raises(UpstreamNotFound, match="BLOB_UNKNOWN"):
            await whole(client, digest_of(b"none"))

    async def test_existence_is_told_by_head(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        digest = upstream.add_blob(ALPINE, LAYER)
        assert await client.blob_exists(ALPINE, digest)
        assert not await client.blob_exists(ALPINE, digest_of(b"none"))
        assert {request.method for request in upstream.requests} == {"HEAD"}

    async def test_cannot_be_read_after_it_was_left(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        digest = upstream.add_blob(ALPINE, LAYER * 8)
        async with client.open_blob(ALPINE, digest) as stream:
            assert await anext(stream.chunks)
        assert [chunk async for chunk in stream.chunks] == []

    async def test_chunks_are_bounded(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        digest = upstream.add_blob(ALPINE, LAYER * 32)
        async with client.open_blob(ALPINE, digest) as stream:
            assert max([len(chunk) async for chunk in stream.chunks]) <= 1024 * 1024
