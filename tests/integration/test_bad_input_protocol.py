"""Requests that are no proper HTTP, or mean one thing to us and another to whatever stands in front of us.

Each runs against the parser in C and against the one in Python, which platforms without wheels use.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from aiohttp import web_protocol
from aiohttp.http_parser import HttpRequestParserPy

from replicator.core.rights import Grant, Right
from replicator.registry_api.users import User
from tests.support.single_node import SingleNode, Users, serve_node
from tests.support.wire_client import WireClient, exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PULL = Grant(frozenset({Right.PULL}))


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(params=["C", "Python"], scope="module", loop_scope="module")
async def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SingleNode]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "Python":
            patch.setattr(web_protocol, "HttpRequestParser", HttpRequestParserPy)
        async with serve_node(tmp_path_factory.mktemp("node")) as node:
            yield node
            assert [outcome for outcome in node.outcomes if outcome.status >= 500] == []


POST = b"POST /v2/smuggled/blobs/uploads/ HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n"
SMUGGLED = b"POST /v2/evil/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
        POST + b"Content-Length: 5, 5\r\n\r\nabcde" + SMUGGLED,
        POST + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
        POST + b"Content-Length: +5\r\n\r\nabcde" + SMUGGLED,
        POST + b"Content-Length: 0x5\r\n\r\nabcde" + SMUGGLED,
        POST + b"Content-Length: 5 5\r\n\r\nabcde" + SMUGGLED,
        POST + b"Content-Length : 0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
        GET + b"X: a\r\n b\r\n\r\n" + SMUGGLED,
        GET + b"X: a\x00b\r\n\r\n" + SMUGGLED,
        GET + b"X: a\rb\r\n\r\n" + SMUGGLED,
        GET + b"X\x00: a\r\n\r\n" + SMUGGLED,
        GET + b": a\r\n\r\n" + SMUGGLED,
        GET + b"no colon\r\n\r\n" + SMUGGLED,
        b"GET /v2/ HTTP/1.1\nHost: x\n\n" + SMUGGLED,
        b"GET /v2/ HTTP/1.1\r\n\r\n" + SMUGGLED,
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + SMUGGLED,
        b"GET /v2/ HTTP/9\r\nHost: x\r\n\r\n" + SMUGGLED,
        b"GET\r\n\r\n" + SMUGGLED,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 32 + b"\r\n\r\n",
        GET + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        GET + b"Authorization: Bearer " + b"." * 10**6 + b"\r\n\r\n",
        GET + b"".join(b"X-%d: y\r\n" % number for number in range(20_000)) + b"\r\n",
        b"GET /v2/" + b"a" * 20_000 + b"/tags/list HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/a/tags/list?last=" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=lambda request: ascii(request[:80]),
)
async def test_a_request_with_two_meanings_has_none(request_bytes: bytes, node: SingleNode) -> None:
    """It is answered with 400 at most, the connection is closed, and nothing that follows on it is served."""
    before = node.contents
    answers = await exchange(node.port, request_bytes)
    assert [answer.status for answer in answers] in ([400], [])
    assert node.contents == before
    async with node.client() as client:
        assert (await client.get("/v2/")).status == 200


@pytest.mark.parametrize(
    "chunks",
    [
        *(b"zz\r\nabc\r\n0\r\n\r\n", b"-1\r\nabc\r\n0\r\n\r\n", b"+3\r\nabc\r\n0\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n"),
        *(b"3\r\nabcd\r\n0\r\n\r\n", b"3;a\nb\r\nabc\r\n0\r\n\r\n", b"3\nabc\r\n0\r\n\r\n", b"3\r\nabc\n0\r\n\r\n"),
        *(b"3 \n\r\nabc\r\n0\r\n\r\n", b"\r\n\r\n"),
    ],
    ids=ascii,
)
async def test_chunks_that_are_none_add_nothing(chunks: bytes, node: SingleNode) -> None:
    async with node.client() as client:
        session = await client.start_upload("a")
        head = f"PATCH {session} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        answers = await exchange(node.port, head + chunks + SMUGGLED)
        assert [answer.status for answer in answers] in ([400], [499], [])
        assert (await client.get("/v2/evil/tags/list")).status == 404
        assert (await client.get(session)).headers["Range"] in {"0-0", "0-2"}


async def test_a_coding_of_the_transfer_is_refused(node: SingleNode) -> None:
    async with node.client() as client:
        session = await client.start_upload("a")
        head = f"PATCH {session} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".encode()
        answers = await exchange(node.port, head + b"3\r\nabc\r\n0\r\n\r\n")
        assert answers[0].status in {400, 415}
        assert (await client.get(session)).headers["Range"] == "0-0"


@pytest.mark.parametrize(
    "request_bytes",
    [
        GET + b"Authorization: Bearer s3cret-" + b"a" * 9000 + b"\r\n\r\n",
        GET + b"Authorization: Bearer s3cret\r\nHost: y\r\n\r\n",
        GET + b"Authorization: Bearer s3cret\x00\r\n\r\n",
        b"GET http://user:s3cret@x:99999/v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"s3cret\r\n\r\n",
    ],
    ids=lambda request: ascii(request[:60]),
)
async def test_what_cannot_be_parsed_is_not_quoted_in_the_log(
    request_bytes: bytes, node: SingleNode, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, which its sender cannot fill with tracebacks, and whose readers learn no password from it."""
    with caplog.at_level("INFO"):
        await exchange(node.port, request_bytes)
    assert "s3cret" not in caplog.text
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"} or record.exc_info] == []
    assert len([record for record in caplog.records if "malformed" in record.getMessage()]) == 1


async def test_a_header_of_eight_megabytes_costs_its_sender_the_connection(node: SingleNode) -> None:
    for credentials in (b"Bearer " + b"a" * 8 * 2**20, b"Basic " + b"A" * 8 * 2**20):
        answers = await exchange(node.port, GET + b"Authorization: " + credentials + b"\r\n\r\n")
        assert [answer.status for answer in answers] in ([400], [])  # the answer may be lost in what is still sent


async def test_requests_in_a_row_are_answered_in_order(node: SingleNode) -> None:
    row = b"".join(
        b"GET /v2/%s HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in (b"", b"a", b"A/tags/list", b"_catalog")
    )
    answers = await exchange(node.port, row)
    assert [answer.status for answer in answers] == [200, 404, 400, 200, 200]


async def test_the_body_of_a_get_is_no_request(node: SingleNode) -> None:
    answers = await exchange(node.port, GET + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED)
    assert [answer.status for answer in answers] == [200, 200]
    async with node.client() as client:
        assert (await client.get("/v2/evil/tags/list")).status == 404


async def test_a_refused_body_is_no_request_either(node: SingleNode) -> None:
    """What is refused without being read must not be read as the next request."""
    for target in (b"/v2/A/blobs/uploads/", b"/v2/a/manifests/v1", b"/v2/nothing"):
        head = b"PUT %s HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        answers = await exchange(node.port, head % (target, len(SMUGGLED)) + SMUGGLED)
        assert 400 <= answers[0].status < 500
        assert {answer.status for answer in answers[1:]} <= {200}
    async with node.client() as client:
        assert (await client.get("/v2/evil/tags/list")).status == 404


async def test_clients_that_wait_are_told_to_go_on_only_when_it_is_worth_it(node: SingleNode) -> None:
    async with node.client() as client:
        session = await client.start_upload("a")
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    head = f"PATCH {session} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    writer.write(head.encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"abc")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 202")
    writer.close()
    await writer.wait_closed()
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(head.replace(session, session[:-1] + "!").encode())
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 404")
    writer.close()
    await writer.wait_closed()


HOSTS = [
    "evil.example",
    "evil.example:80",
    'evil"><script>',
    "evil.example/path",
    "user@evil.example",
    "",
    "[::1]",
    "a" * 1000,
]


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host[:30])
async def test_a_host_header_leads_nobody_elsewhere(host: str, node: SingleNode) -> None:
    disguise = {
        "Host": host,
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "Forwarded": "host=evil.example",
    }
    async with WireClient(node.port, disguise) as client:
        started = await client.send("POST", "/v2/a/blobs/uploads/")
        if started.status == 400:
            return
        pushed = await client.send("POST", "/v2/a/blobs/uploads/", body=b"", digest="sha256:" + EMPTY)
        mounted = await client.send("POST", "/v2/b/blobs/uploads/", mount="sha256:" + EMPTY)
        listed = await client.get("/v2/_catalog?n=1")
    for answer in (started, pushed, mounted):
        assert answer.location.startswith("/v2/")
    assert listed.headers["Link"].startswith("</v2/")
    assert all("evil" not in str(dict(answer.headers)) for answer in (started, pushed, mounted, listed))


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("anonymous", [[], [PULL]], ids=["basic", "bearer"])
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host[:30])
async def test_a_challenge_quotes_no_strange_host(
    host: str, anonymous: list[Grant], tmp_path_factory: pytest.TempPathFactory
) -> None:
    users = Users([User.with_password("dev", "s3cret", [])], anonymous)
    async with (
        serve_node(tmp_path_factory.mktemp("node"), users=users) as node,
        WireClient(node.port, {"Host": host}) as client,
    ):
        answer = await client.get("/v2/")
        assert answer.status in {400, 401}
        assert answer.headers.get("WWW-Authenticate", "").count('"') in {0, 4}
        assert "<" not in str(dict(answer.headers))
    async with (
        serve_node(tmp_path_factory.mktemp("node"), users=users, public_url="https://registry.example/") as node,
        WireClient(node.port, {"Host": host}) as client,
    ):
        answer = await client.get("/v2/")
        assert answer.status in {400, 401}
        if answer.status == 401:
            assert 'realm="https://registry.example/' in answer.headers["WWW-Authenticate"]
            assert "evil" not in str(dict(answer.headers))
