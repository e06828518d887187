"""Whatever stands in a path or a query, the answer is the right 4xx, nothing is stored, and the node goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from replicator.core.digest import digest_of
from tests.support.single_node import SingleNode, serve_node
from tests.support.wire_client import exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

DIGEST = digest_of(b"nowhere")
UNDECODABLE = "\udcff\udcfe"  # the bytes FF FE, as they are sent


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SingleNode]:
    async with serve_node(tmp_path_factory.mktemp("node")) as node:
        yield node


async def statuses(node: SingleNode, method: str, target: str, body: bytes = b"") -> list[int]:
    """Send a request as it is and a harmless one after it; return the statuses."""
    before = node.contents
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    answers = await exchange(node.port, head.encode("utf-8", "surrogateescape") + body)
    assert node.contents == before
    async with node.client() as client:
        assert (await client.get("/v2/")).status == 200
    assert all("X" not in answer.headers and "X-Evil" not in answer.headers for answer in answers)
    return [answer.status for answer in answers]


BAD_NAMES = [
    *("..", ".", "a/..", "a/../b", "../../etc", "%2e%2e", "a%2fb", "a%2Fb", "%61", "a%00b", "a\\b", "a\x00b", "a\tb"),
    *("a//b", "a/./b", "A", "a/B", "-a", "a-", "a..b", "a___b", "_blobstore", ".hidden", "a;b", "a:b", "a@b"),
    *("é", "\N{FULLWIDTH LATIN SMALL LETTER A}", "%c0%ae%c0%ae", UNDECODABLE, "a" * 257, "a/" * 128 + "aa", "\u202ea"),
]
NAME_ENDPOINTS = [
    *(("GET", "/v2/{}/tags/list"), ("GET", "/v2/{}/manifests/v1"), ("PUT", "/v2/{}/manifests/v1")),
    *(("DELETE", "/v2/{}/manifests/v1"), ("GET", "/v2/{}/blobs/" + DIGEST), ("POST", "/v2/{}/blobs/uploads/")),
    *(("GET", "/v2/{}/blobs/uploads/id"), ("PATCH", "/v2/{}/blobs/uploads/id"), ("GET", "/v2/{}/referrers/" + DIGEST)),
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
async def test_repository_names(name: str, node: SingleNode) -> None:
    for method, target in NAME_ENDPOINTS:
        found = await statuses(node, method, target.format(name), b"{}" if method != "GET" else b"")
        assert found[0] in {400, 404}, (method, target)


@pytest.mark.parametrize("name", ["a b", "a?b", "a#b", "a\r\nX: y"], ids=ascii)
async def test_names_that_end_the_path(name: str, node: SingleNode) -> None:
    for method, target in NAME_ENDPOINTS:
        assert (await statuses(node, method, target.format(name)))[0] in {400, 404}


@pytest.mark.parametrize(
    "text",
    [
        *("..", ".", "%2e%2e", "..%2f..%2fv1", "..%5cv1", "v1%00", "v1%0d%0aX:%20y", "a\\b", "-v1", ".v1", "v 1"),
        *("é", UNDECODABLE, "a" * 129, "a" * 5000, "v1%252f", "%", "%zz", "v1;x", "@"),
    ],
    ids=ascii,
)
async def test_tags(text: str, node: SingleNode) -> None:
    assert (await statuses(node, "GET", f"/v2/a/manifests/{text}"))[0] in {400, 404}
    assert (await statuses(node, "HEAD", f"/v2/a/manifests/{text}"))[0] in {400, 404}
    assert (await statuses(node, "PUT", f"/v2/a/manifests/{text}", b"{}"))[0] == 400
    assert (await statuses(node, "PUT", f"/v2/a/manifests/{DIGEST}?tag={text}", b"{}"))[0] == 400
    assert (await statuses(node, "DELETE", f"/v2/a/manifests/{text}"))[0] in {400, 404}


@pytest.mark.parametrize(
    "text",
    [
        *("sha256:", "sha256:zz", "sha256:baddigeststring", "sha256:" + "0" * 63, "sha256:" + "0" * 65, "sha256"),
        *("sha256:" + "A" * 64, "SHA256:" + "0" * 64, "sha512:" + "0" * 64, "md5:" + "0" * 32, "sha256:../../x"),
        *("sha256:..%2f..%2fx", "sha256:%2e%2e", "sha256:" + "0" * 63 + "%00", DIGEST + "%0a", f"{DIGEST}:{DIGEST}"),
        *("sha256:" + UNDECODABLE, "sha256:" + "0" * 5000, "%73ha256:zz"),
    ],
    ids=ascii,
)
async def test_digests(text: str, node: SingleNode) -> None:
    """A digest that cannot be is refused wherever one may stand; where a tag may stand too, it may just be absent."""
    for method, target in (
        ("GET", "/v2/a/blobs/{}"),
        ("HEAD", "/v2/a/blobs/{}"),
        ("DELETE", "/v2/a/blobs/{}"),
        ("GET", "/v2/a/referrers/{}"),
        ("POST", "/v2/a/blobs/uploads/?digest={}"),
        ("POST", "/v2/a/blobs/uploads/?mount={}&from=b"),
        ("POST", "/v2/a/blobs/uploads/?mount={}"),
        ("PUT", "/v2/a/manifests/{}?tag=v1"),
    ):
        found = (await statuses(node, method, target.format(text), b"{}" if method in {"POST", "PUT"} else b""))[0]
        assert found == 400 or (found == 404 and "/" in text), (method, target)


@pytest.mark.parametrize(
    "query",
    ["from=..", "from=A", "from=%2e%2e%2fetc", "from=a%00", "from=" + "a" * 300, f"from={UNDECODABLE}"],
    ids=ascii,
)
async def test_mount_sources(query: str, node: SingleNode) -> None:
    assert (await statuses(node, "POST", f"/v2/a/blobs/uploads/?mount={DIGEST}&{query}"))[0] == 400


@pytest.mark.parametrize(
    "session",
    ["..", "%2e%2e", "..%2f..%2fmetadata.db", "x" * 5000, "%00", "a\\b", UNDECODABLE, "é", "*", "a b", "."],
    ids=ascii,
)
async def test_upload_ids(session: str, node: SingleNode) -> None:
    for method, query in (("GET", ""), ("PATCH", ""), ("PUT", f"?digest={DIGEST}"), ("DELETE", "")):
        target = f"/v2/a/blobs/uploads/{session}{query}"
        assert (await statuses(node, method, target, b"x" if method[0] == "P" else b""))[0] in {400, 404}


@pytest.mark.parametrize(
    ("query", "status"),
    [
        *(
            (f"n={n}", 400)
            for n in ("-1", "", "abc", "1.5", "1e9", "%20", "0x10", "9" * 40, "%00", "%d9%a1", "+1", "1%00")
        ),
        *((f"n={n}", 200) for n in ("0", "1", str(2**31), str(2**63), "0" * 19 + "1")),
        *((f"last={last}", 400) for last in ("%00", "%0d%0aX:%20y", "x" * 513, "%1b%5b2J")),
        *((f"last={last}", 200) for last in ("", "nobody", "%ff", "..", "'%20OR%201=1", "%25")),
        ("n=5&n=abc&last=a&last=%00", 200),
        (f"last={UNDECODABLE}", 400),
    ],
    ids=ascii,
)
async def test_pagination(query: str, status: int, node: SingleNode) -> None:
    for target in ("/v2/_catalog", f"/v2/a/referrers/{DIGEST}"):
        assert (await statuses(node, "GET", f"{target}?{query}"))[0] == status
    assert (await statuses(node, "GET", f"/v2/a/tags/list?{query}"))[0] == (404 if status == 200 else 400)


@pytest.mark.parametrize("kind", ["%00", "a%0d%0aX-Evil:%201", UNDECODABLE, "%7f"], ids=ascii)
async def test_artifact_types(kind: str, node: SingleNode) -> None:
    assert (await statuses(node, "GET", f"/v2/a/referrers/{DIGEST}?artifactType={kind}"))[0] == 400


async def test_an_artifact_type_cannot_end_a_header(node: SingleNode) -> None:
    async with node.client() as client:
        answer = await client.get(f"/v2/a/referrers/{DIGEST}", artifactType="a/b>; rel=evil, <c")
    assert answer.status == 200
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"


@pytest.mark.parametrize(
    "target",
    [
        *("//v2/_catalog", "/v2/./_catalog", "/v2/../v2/_catalog", "/v2//_catalog", "/v2/_catalog//", "/v2/_CATALOG"),
        *("/V2/_catalog", "/v2/%5fcatalog", "/v2/_catalog%00", "/v2/_catalog;x", "/v2/_catalog/x", "/v2/_catalog."),
        *("/v2/a/tags/list/", "/v2/a//tags/list", "/v2/a/tags//list", "/v2/a/TAGS/list", "/v2/a/tags/list%20"),
        *("/v2//", "/v2/%", "/", "/v1/", "*", "v2/", "/v2/a/manifests", "/v2/a/blobs", f"/v2/a/blobs/{DIGEST}/"),
        *("http://evil.example/v2/_catalog/x", "http://evil.example:99999/v2/", "//evil.example:99999/v2/"),
    ],
)
async def test_other_spellings_of_a_path_lead_nowhere(target: str, node: SingleNode) -> None:
    assert (await statuses(node, "GET", target))[0] in {400, 404}


@pytest.mark.parametrize(
    ("target", "allow"),
    [
        ("/v2/", "GET, HEAD"),
        ("/v2/token", "GET, HEAD, POST"),
        ("/v2/_catalog", "GET"),
        ("/v2/a/tags/list", "GET"),
        ("/v2/a/manifests/v1", "GET, HEAD, PUT, DELETE"),
        (f"/v2/a/blobs/{DIGEST}", "GET, HEAD, DELETE"),
        ("/v2/a/blobs/uploads/", "POST"),
        ("/v2/a/blobs/uploads/id", "GET, PATCH, PUT, DELETE"),
        (f"/v2/a/referrers/{DIGEST}", "GET"),
    ],
)
async def test_other_methods_are_told_what_is_allowed(target: str, allow: str, node: SingleNode) -> None:
    before = node.contents
    async with node.client() as client:
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} - set(
            allow.split(", ")
        ):
            answer = await client.send(method, target)
            assert answer.status == 405, method
            assert answer.headers["Allow"] == allow
            assert answer.codes == ["UNSUPPORTED"]
        for method in ("FOO", "get", "GET2", "CONNECT"):
            assert (await exchange(node.port, f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()))[0].status in {
                400,
                405,
            }
    assert node.contents == before


@pytest.mark.parametrize(
    "target",
    [
        "/v2/nothing",
        "/v2/A/manifests/v1",
        "/v2/a/manifests/v1",
        "/v2/a/blobs/sha256:zz",
        "/v2/a/tags/list",
        "/v2/_catalog",
    ],
)
async def test_an_error_to_head_has_no_body(target: str, node: SingleNode) -> None:
    async with node.client() as client:
        answer = await client.head(target)
        assert answer.status in {400, 404, 405}
        assert (await client.get("/v2/")).body == b"{}"  # the same connection is still in step


async def test_the_node_saw_no_bug_of_its_own(node: SingleNode) -> None:
    """Runs last: whatever came in this file, none of it was answered with a 5xx."""
    assert node.outcomes
    assert [outcome for outcome in node.outcomes if outcome.status >= 500] == []
