"""Lists of tags and referrers, page after page, and never without end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from replicator.core.digest import digest_of
from replicator.core.errors import UpstreamContent, UpstreamNotFound, UpstreamUnavailable
from replicator.core.media_types import OCI_INDEX, OCI_MANIFEST
from replicator.core.names import RepositoryName, Tag
from tests.support.clock import FakeClock
from tests.support.upstream_clients import client_of
from tests.support.upstreams import FakeRegistry, FakeServer, Fault, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicator.upstream.client import UpstreamClient

ALPINE = RepositoryName("library/alpine")
SUBJECT = digest_of(b"subject")
LINK_TO_3 = '</v2/library/alpine/tags/list?last=3>; rel="next"'


def tags(*names: object, link: str | None = None) -> Fault:
    body = json.dumps({"name": ALPINE, "tags": names}).encode()
    headers = {} if link is None else {"Link": link}
    return Fault(body=body, content_type="application/json; charset=utf-8", headers=headers)


def descriptor(number: int, artifact_type: str = "application/sbom", **members: Any) -> dict[str, Any]:
    content = str(number).encode()
    return {
        "mediaType": OCI_MANIFEST,
        "digest": digest_of(content),
        "size": len(content),
        "artifactType": artifact_type,
        **members,
    }


def referrers(*descriptors: dict[str, Any], link: str | None = None) -> Fault:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}
    headers = {} if link is None else {"Link": link}
    return Fault(body=json.dumps(document).encode(), content_type=OCI_INDEX, headers=headers)


def paged(answer: Callable[[int], Fault]) -> Fault:
    """Answer each request with the page that its `last` names, the first being page 0."""

    async def page(request: web.Request) -> web.StreamResponse:
        fault = answer(int(request.query.get("last", "0")))
        return web.Response(body=fault.body, headers={**fault.headers, "Content-Type": fault.content_type or ""})

    return Fault(answer=page)


class TestTags:
    async def test_are_listed_whole(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.faults.on("*/tags/list", tags("3.19", "3.20", "latest"))
        listed = await client.list_tags(ALPINE)
        assert (listed.tags, listed.complete) == (("3.19", "3.20", "latest"), True)
        assert upstream.requests[0].query == {"n": "1000"}

    @pytest.mark.parametrize("absent", ["null", None])
    async def test_may_be_none(self, upstream: FakeRegistry, client: UpstreamClient, absent: str | None) -> None:
        body = b'{"name": "x", "tags": null}' if absent else b'{"name": "x"}'
        upstream.faults.on("*", Fault(body=body, content_type="application/json"))
        assert (await client.list_tags(ALPINE)).tags == ()

    @pytest.mark.parametrize(
        "link",
        [
            LINK_TO_3,
            "</v2/library/alpine/tags/list?last=3>;rel=next",
            '<list?last=3>; title="x"; REL="next"',
            '<https://example.org/other>; rel="first", </v2/library/alpine/tags/list?last=3>; rel="next"',
            "<{url}/v2/library/alpine/tags/list?last=3>; rel=next",
        ],
    )
    async def test_of_the_next_page_follow(self, upstream: FakeRegistry, client: UpstreamClient, link: str) -> None:
        pages = {0: tags("a", "b", link=link.format(url=upstream.url)), 3: tags("b", "c")}
        upstream.faults.on("*", paged(pages.__getitem__))
        listed = await client.list_tags(ALPINE)
        assert (listed.tags, listed.complete) == (("a", "b", "c"), True)

    async def test_of_every_page_are_asked_for_with_our_token(self) -> None:
        tokens = Tokens()
        async with FakeRegistry(tokens=tokens) as upstream, client_of(upstream) as client:
            upstream.repository(ALPINE).tags["a"] = SUBJECT
            await client.list_tags(ALPINE)
            upstream.faults.on("*/tags/list", paged(lambda last: tags("x", link=None if last else LINK_TO_3)))
            assert (await client.list_tags(ALPINE)).complete
            assert len(upstream.authorizations("*/tags/list")) == 3

    async def test_that_nobody_could_ask_for_are_left_out(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.faults.on("*", tags("ok", "../etc", "a b", "", "x" * 200))
        assert (await client.list_tags(ALPINE)).tags == ("ok",)

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(body=b"<html>", content_type="text/html"),
            Fault(body=b'{"tags": ["a"]}', content_type="text/html"),
            Fault(body=b"<html>", content_type="application/json"),
            Fault(body=b"[]", content_type="application/json"),
            Fault(body=b'{"tags": "abc"}', content_type="application/json"),
            tags("a", 5),
            Fault(body=b"[" * 100_000, content_type="application/json"),
            Fault(body=b'{"tags": [' + b'"a",' * 200_000 + b'"a"]}', content_type="application/json"),
        ],
        ids=["page", "type", "no JSON", "list", "text", "number", "nested", "too many"],
    )
    async def test_that_are_none_are_refused(
        self, upstream: FakeRegistry, client: UpstreamClient, fault: Fault
    ) -> None:
        upstream.faults.on("*", fault)
        with pytest.raises(UpstreamContent, match="fake: tags of library/alpine"):
            await client.list_tags(ALPINE)

    async def test_of_an_unknown_repository_are_not_found(self, client: UpstreamClient) -> None:
        with pytest.raises(UpstreamNotFound):
            await client.list_tags(ALPINE)

    async def test_are_not_given_in_part_when_a_page_fails(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        upstream.faults.on("*", Fault(status=500))
        upstream.faults.on("*", tags("a", link=LINK_TO_3), times=1)
        with pytest.raises(UpstreamUnavailable):
            await client.list_tags(ALPINE)


class TestBounds:
    async def test_of_names(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.faults.on("*", tags("a", "b", "c"))
        listed = await client.list_tags(ALPINE, limit_names=2)
        assert (listed.tags, listed.complete) == (("a", "b"), False)
        assert (await client.list_tags(ALPINE, limit_names=3)).complete

    async def test_of_pages(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        endless = paged(lambda last: tags(f"t{last}", link=f"<list?last={last + 1}>; rel=next"))
        upstream.faults.on("*", endless)
        listed = await client.list_tags(ALPINE, limit_pages=7)
        assert (len(listed.tags), listed.complete, upstream.count()) == (7, False, 7)

    async def test_of_time(self, upstream: FakeRegistry) -> None:
        clock = FakeClock()

        def slow(last: int) -> Fault:
            clock.advance(2)
            return tags(f"t{last}", link=f"<list?last={last + 1}>; rel=next")

        upstream.faults.on("*", paged(slow))
        async with client_of(upstream, clock, total_timeout=9.0) as client:
            listed = await client.list_tags(ALPINE)
        assert (len(listed.tags), listed.complete) == (5, False)

    async def test_of_bytes(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.faults.on("*", Fault(body=b" " * (5 * 1024 * 1024), content_type="application/json", chunked=True))
        with pytest.raises(UpstreamContent, match="longer than"):
            await client.list_tags(ALPINE)

    @pytest.mark.parametrize("link", ["<list>; rel=next", "<list?n=1000>; rel=next", "<?last=1>; rel=next"])
    async def test_of_a_circle(self, upstream: FakeRegistry, client: UpstreamClient, link: str) -> None:
        upstream.faults.on("*", tags("a", link=link))
        listed = await client.list_tags(ALPINE)
        assert (listed.tags, listed.complete) == (("a",), False)
        assert upstream.count() <= 3

    @pytest.mark.parametrize(
        "link", ["<{url}/v2/x/tags/list>; rel=next", "<//{authority}/>; rel=next", "<file:///etc/passwd>; rel=next"]
    )
    async def test_of_places(self, upstream: FakeRegistry, client: UpstreamClient, link: str) -> None:
        async with FakeServer() as elsewhere:
            upstream.faults.on("*", tags("a", link=link.format(url=elsewhere.url, authority=elsewhere.authority)))
            listed = await client.list_tags(ALPINE)
            assert (listed.tags, listed.complete) == (("a",), False)
            assert elsewhere.requests == []


class TestReferrers:
    async def test_are_listed_with_what_is_said_of_them(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.faults.on("*/referrers/*", referrers(descriptor(1, annotations={"a": "b"}), descriptor(2)))
        listed = await client.list_referrers(ALPINE, SUBJECT)
        assert [one.digest for one in listed.descriptors] == [digest_of(b"1"), digest_of(b"2")]
        assert listed.descriptors[0].annotations == {"a": "b"}
        assert listed.descriptors[0].artifact_type == "application/sbom"
        assert listed.complete

    @pytest.mark.parametrize("applied", [True, False])
    async def test_of_one_type_are_asked_for_and_picked_out(
        self, upstream: FakeRegistry, client: UpstreamClient, *, applied: bool
    ) -> None:
        """Whether the upstream filters is up to it; what is given is of the type that was asked for."""
        found = [descriptor(1, "a/b+c")] + ([] if applied else [descriptor(2, "other")])
        upstream.faults.on("*/referrers/*", referrers(*found))
        listed = await client.list_referrers(ALPINE, SUBJECT, "a/b+c")
        assert [one.digest for one in listed.descriptors] == [digest_of(b"1")]
        assert upstream.requests[0].query == {"artifactType": "a/b+c"}

    async def test_of_the_next_page_follow(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        link = f"</v2/{ALPINE}/referrers/{SUBJECT}?last=1>; rel=next"
        pages = {0: referrers(descriptor(1), link=link), 1: referrers(descriptor(1), descriptor(2))}
        upstream.faults.on("*", paged(pages.__getitem__))
        listed = await client.list_referrers(ALPINE, SUBJECT)
        assert (len(listed.descriptors), listed.complete) == (2, True)

    @pytest.mark.parametrize("status", [404, 405, 400])
    async def test_are_looked_for_under_their_tag_where_there_is_no_such_list(
        self, upstream: FakeRegistry, client: UpstreamClient, status: int
    ) -> None:
        upstream.faults.on("*/referrers/*", Fault(status=status))
        fault = referrers(descriptor(1), descriptor(2, "other"))
        assert fault.body is not None
        tag = Tag(SUBJECT.replace(":", "-"))
        upstream.add_manifest(ALPINE, fault.body, OCI_INDEX, tag)
        assert len((await client.list_referrers(ALPINE, SUBJECT)).descriptors) == 2
        listed = await client.list_referrers(ALPINE, SUBJECT, "other")
        assert [one.digest for one in listed.descriptors] == [digest_of(b"2")]

    async def test_tag_of_a_long_digest_is_cut(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        subject = digest_of(b"subject", "sha512")
        upstream.faults.on("*/referrers/*", Fault(status=404))
        assert (await client.list_referrers(ALPINE, subject)).descriptors == ()
        assert upstream.requests[-1].path.endswith(f"/manifests/sha512-{subject[7:71]}")

    async def test_are_none_where_there_is_neither_list_nor_tag(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        upstream.lists_referrers = False
        listed = await client.list_referrers(ALPINE, SUBJECT)
        assert (listed.descriptors, listed.complete) == ((), True)

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(body=b"<html>", content_type="text/html"),
            Fault(body=b"{}", content_type=OCI_INDEX),
            Fault(body=b"[" * 100_000, content_type=OCI_INDEX),
            referrers({**descriptor(1), "size": -1}),
            referrers({**descriptor(1), "digest": "sha256:../../x"}),
            referrers({"digest": SUBJECT}),
        ],
        ids=["page", "no index", "nested", "size", "digest", "no type"],
    )
    async def test_that_do_not_parse_strictly_are_refused(
        self, upstream: FakeRegistry, client: UpstreamClient, fault: Fault
    ) -> None:
        upstream.faults.on("*", fault)
        with pytest.raises(UpstreamContent, match=r"fake: referrers of sha256:.* in library/alpine"):
            await client.list_referrers(ALPINE, SUBJECT)

    async def test_image_under_their_tag_is_refused(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.lists_referrers = False
        upstream.add_image(ALPINE, SUBJECT.replace(":", "-"))
        with pytest.raises(UpstreamContent, match="expected an index"):
            await client.list_referrers(ALPINE, SUBJECT)

    async def test_are_bounded_in_number_and_pages(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        def many(last: int) -> Fault:
            found = [descriptor(last * 10 + number) for number in range(10)]
            return referrers(*found, link=f"</v2/{ALPINE}/referrers/{SUBJECT}?last={last + 1}>; rel=next")

        upstream.faults.on("*", paged(many))
        listed = await client.list_referrers(ALPINE, SUBJECT, limit=25)
        assert (len(listed.descriptors), listed.complete, upstream.count()) == (25, False, 3)
        listed = await client.list_referrers(ALPINE, SUBJECT, limit_pages=2)
        assert (len(listed.descriptors), listed.complete, upstream.count()) == (20, False, 5)


class TestNamespace:
    """A registry that stands for several is told which one is meant, on every page."""

    async def test_is_in_every_call(self, upstream: FakeRegistry) -> None:
        image = upstream.add_image(ALPINE, "3.20")
        async with client_of(upstream, namespace="docker.io") as client:
            await client.ping()
            await client.get_manifest(ALPINE, Tag("3.20"))
            await client.blob_exists(ALPINE, image.config)
            async with client.open_blob(ALPINE, image.config, 1) as stream:
                assert [chunk async for chunk in stream.chunks]
            await client.list_referrers(ALPINE, SUBJECT, "a/b")
            upstream.faults.on("*", paged(lambda last: tags("x", link=None if last else LINK_TO_3)))
            await client.list_tags(ALPINE)
        assert {request.query.get("ns") for request in upstream.requests} == {"docker.io"}
        assert upstream.requests[-2].query == {"n": "1000", "ns": "docker.io"}

    async def test_is_not_said_twice(self, upstream: FakeRegistry) -> None:
        link = "<list?last=3&ns=docker.io>; rel=next"
        raw: list[str] = []

        async def page(request: web.Request) -> web.StreamResponse:
            raw.append(request.query_string)
            headers: dict[str, str] = {} if "last" in request.query else {"Link": link}
            return web.json_response({"tags": ["x"]}, headers=headers)

        upstream.faults.on("*", Fault(answer=page))
        async with client_of(upstream, namespace="docker.io") as client:
            await client.list_tags(ALPINE)
        assert raw == ["n=1000&ns=docker.io", "last=3&ns=docker.io"]

    async def test_with_a_port_is_written_so_that_it_arrives(self, upstream: FakeRegistry) -> None:
        async with client_of(upstream, namespace="registry.example:5000") as client:
            await client.ping()
        assert upstream.requests[0].query == {"ns": "registry.example:5000"}
