"""Who sees what: nothing that a caller may not read shows through another repository, a mount, a list or a status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from replicator.core.digest import digest_of
from replicator.core.names import AccountId, NodeId
from replicator.core.rate_limit import RateLimit
from replicator.core.rights import ALL_RIGHTS, Grant, Right
from replicator.registry.peer_tokens import PeerTokens
from replicator.registry_api.users import User
from replicator.telemetry.system_clock import SystemClock
from tests.support.clock import FakeClock
from tests.support.images import build_image
from tests.support.single_node import NODE, OTHER_NODE, PEER_SECRET, SingleNode, Users, serve_node
from tests.support.wire_client import Answer, WireClient, basic, bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PULL, PUSH = frozenset({Right.PULL}), frozenset({Right.PULL, Right.PUSH})
USERS = [
    User.with_password("admin", "admin", [Grant(ALL_RIGHTS)]),
    User.with_password("ann", "ann", [Grant(PUSH, ("team-b/*",))]),
    User.with_password("bob", "bob", [Grant(PUSH, ("team-b/*",))]),
    User.with_password("reader", "reader", [Grant(PULL, ("team-b/*",))]),
    User.with_password("anonymous", "anonymous", [Grant(PUSH, ("public/*",))]),
    User.with_password("nobody", "nobody", []),
]
PUBLIC = [Grant(PUSH, ("public/*",))]
PRIVATE, OPEN = "team-a/private", "team-b/app"
SECRET_LAYER = b"only team a may read this"
SECRET = build_image([SECRET_LAYER])
SHARED = build_image([b"everybody's layer"])
SECRET_BLOB = digest_of(SECRET_LAYER)


@pytest_asyncio.fixture
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SingleNode]:
    """A node where the secret image lies in team a's repository and a shared one in team b's."""
    async with serve_node(tmp_path_factory.mktemp("node"), users=Users(USERS, PUBLIC)) as node:
        async with caller(node, "admin") as admin:
            for repository, built in ((PRIVATE, SECRET), (OPEN, SHARED)):
                for content in built.blobs.values():
                    await admin.push_blob(repository, content)
                assert (await admin.push_manifest(repository, "v1", built.manifest)).status == 201
        yield node


def caller(node: SingleNode, name: str | None) -> WireClient:
    return node.client(basic(name, name) if name else None)


def linked(node: SingleNode) -> list[Any]:
    rows = node.contents["repository_blobs"]
    assert isinstance(rows, list)
    return rows


@pytest.mark.parametrize("name", ["ann", "reader", None])
async def test_content_of_another_repository_does_not_show(name: str | None, node: SingleNode) -> None:
    """To a caller of B, what is only in A is the same as what is nowhere; asking links nothing."""
    here = OPEN if name else "public/app"
    before = linked(node)
    async with caller(node, name) as client:
        for digest in (SECRET_BLOB, SECRET.config, digest_of(b"nowhere")):
            path = f"/v2/{here}/blobs/{digest}"
            answers = [
                await client.get(path),
                await client.head(path),
                await client.get(path, headers={"Range": "bytes=0-1"}),
                await client.get(path, headers={"Range": "bytes=999-"}),
                await client.get(path, headers={"If-None-Match": f'"{digest}"'}),
            ]
            assert {answer.status for answer in answers} == {404}
        for reference in (SECRET.digest, digest_of(b"nowhere")):
            assert (await client.get(f"/v2/{here}/manifests/{reference}")).status == 404
            assert (await client.head(f"/v2/{here}/manifests/{reference}")).status == 404
        assert (await client.get(f"/v2/{here}/referrers/{SECRET.digest}")).json()["manifests"] == []
    assert linked(node) == before


@pytest.mark.parametrize(("name", "status"), [("ann", 403), ("reader", 403), ("nobody", 403), (None, 401)])
async def test_another_repository_is_closed_whether_it_exists_or_not(
    name: str | None, status: int, node: SingleNode
) -> None:
    async with caller(node, name) as client:
        for repository in (PRIVATE, "team-a/never-pushed"):
            for method, path in (
                ("GET", f"blobs/{SECRET_BLOB}"),
                ("HEAD", f"blobs/{SECRET_BLOB}"),
                ("DELETE", f"blobs/{SECRET_BLOB}"),
                ("GET", "manifests/v1"),
                ("HEAD", f"manifests/{SECRET.digest}"),
                ("PUT", "manifests/v1"),
                ("DELETE", "manifests/v1"),
                ("GET", "tags/list"),
                ("GET", f"referrers/{SECRET.digest}"),
                ("POST", "blobs/uploads/"),
                ("POST", f"blobs/uploads/?digest={SECRET_BLOB}"),
                ("POST", f"blobs/uploads/?mount={SECRET_BLOB}"),
                ("PATCH", "blobs/uploads/id"),
            ):
                answer = await client.send(method, f"/v2/{repository}/{path}")
                assert answer.status == status, (method, path)
                assert ("WWW-Authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize("source", [f"&from={PRIVATE}", "&from=team-a/never-pushed", ""])
@pytest.mark.parametrize(("name", "here"), [("ann", OPEN), (None, "public/app")])
async def test_a_mount_gives_only_what_one_may_read(source: str, name: str | None, here: str, node: SingleNode) -> None:
    before = linked(node)
    async with caller(node, name) as client:
        offers = [
            await client.send("POST", f"/v2/{here}/blobs/uploads/?mount={digest}{source}")
            for digest in (SECRET_BLOB, digest_of(b"nowhere"))
        ]
        assert {answer.status for answer in offers} == {202}
        assert (await client.head(f"/v2/{here}/blobs/{SECRET_BLOB}")).status == 404
    assert linked(node) == before


async def test_a_mount_within_what_one_may_read_works(node: SingleNode) -> None:
    async with caller(node, "ann") as client:
        for number, source in enumerate((f"&from={OPEN}", "")):
            target = f"/v2/team-b/other-{number}/blobs/uploads/?mount={SHARED.layers[0]}{source}"
            assert (await client.send("POST", target)).status == 201


async def test_a_reader_cannot_mount_into_what_it_only_reads(node: SingleNode) -> None:
    async with caller(node, "reader") as client:
        target = f"/v2/{OPEN}/blobs/uploads/?mount={SHARED.layers[0]}&from={OPEN}"
        assert (await client.send("POST", target)).status == 403


async def test_a_manifest_does_not_open_what_it_names(node: SingleNode) -> None:
    """Whoever knows a secret image's digests cannot read it by pushing a manifest that names them."""
    async with caller(node, "ann") as client:
        answer = await client.push_manifest(OPEN, "stolen", SECRET.manifest)
        assert (answer.status, answer.codes[0]) == (404, "MANIFEST_BLOB_UNKNOWN")
        assert {error["detail"]["digest"] for error in answer.json()["errors"]} == {SECRET.config, *SECRET.layers}
        assert (await client.get(f"/v2/{OPEN}/manifests/{SECRET.digest}")).status == 404


@pytest.mark.parametrize(
    ("name", "seen"),
    [("admin", [PRIVATE, OPEN]), ("ann", [OPEN]), ("reader", [OPEN]), ("nobody", []), (None, [])],
)
async def test_the_catalog_lists_what_one_may_read(name: str | None, seen: list[str], node: SingleNode) -> None:
    async with caller(node, name) as client:
        answer = await client.get("/v2/_catalog")
        assert answer.json() == {"repositories": seen}
        paged = await client.get("/v2/_catalog?n=1")
        assert paged.json() == {"repositories": seen[:1]}
        assert ("Link" in paged.headers) == (len(seen) > 1)


async def test_a_catalog_page_is_full_whatever_lies_between(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with serve_node(tmp_path_factory.mktemp("node"), users=Users(USERS)) as node:
        async with caller(node, "admin") as admin:
            for number in range(12):
                await admin.push_blob(f"team-{'ab'[number % 2]}/app-{number:02}", b"{}")
        async with caller(node, "reader") as client:
            found: list[str] = []
            target = "/v2/_catalog?n=2"
            while target:
                page = await client.get(target)
                assert len(page.json()["repositories"]) == 2
                found += page.json()["repositories"]
                target = page.headers.get("Link", "").partition(">")[0].removeprefix("<")
            assert found == [f"team-b/app-{number:02}" for number in range(1, 12, 2)]


@pytest.mark.parametrize("path", ["/v2/_catalog", "/v2/_catalog/", "/v2/_catalog?n=1", "/v2/", "/v2"])
async def test_where_nobody_may_do_anything_all_are_asked(path: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    async with serve_node(tmp_path_factory.mktemp("node"), users=Users(USERS)) as node, node.client() as client:
        answer = await client.get(path)
        assert answer.status == 401
        assert answer.codes == ["UNAUTHORIZED"]
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")


async def test_an_upload_belongs_to_one_caller_and_one_repository(node: SingleNode) -> None:
    async with caller(node, "ann") as ann:
        session = await ann.start_upload(OPEN)
        assert (await ann.send("PATCH", session, body=b"abc")).status == 202
        elsewhere = session.replace(OPEN, "team-b/other")
        for client, place in (
            (ann, elsewhere),
            (caller(node, "bob"), session),
            (caller(node, "admin"), session),
            (caller(node, "admin"), session.replace(OPEN, PRIVATE)),
        ):
            for method, query in (("GET", ""), ("PATCH", ""), ("PUT", f"?digest={digest_of(b'abc')}"), ("DELETE", "")):
                answer = await client.send(method, place + query, body=b"x" if method == "PATCH" else None)
                assert answer.status == 404, (method, place)
                assert answer.codes == ["BLOB_UPLOAD_UNKNOWN"]
            if client is not ann:
                await client.close()
        assert (await ann.get(session)).headers["Range"] == "0-2"
        assert (await ann.send("PUT", session, digest=digest_of(b"abc"))).status == 201


async def test_a_user_called_anonymous_is_not_anonymous(node: SingleNode) -> None:
    async with caller(node, None) as nameless, caller(node, "anonymous") as named:
        session = await nameless.start_upload("public/app")
        assert (await named.get(session)).status == 404
        assert (await nameless.get(session)).status == 204


async def test_what_was_deleted_here_does_not_come_back_through_another_repository(node: SingleNode) -> None:
    """Also not after a restart, and not through the memory of pulls (CVE-2026-35172)."""
    path = f"/v2/{PRIVATE}/blobs/{SECRET_BLOB}"
    async with caller(node, "admin") as admin:
        assert (await admin.get(path)).body == SECRET_LAYER
        assert (await admin.get(f"/v2/{PRIVATE}/manifests/v1")).status == 200
        assert (await admin.delete(path)).status == 202
        assert (await admin.delete(f"/v2/{PRIVATE}/manifests/{SECRET.digest}")).status == 202
        for content in SECRET.blobs.values():
            await admin.push_blob(OPEN, content)
        assert (await admin.push_manifest(OPEN, "v1", SECRET.manifest)).status == 201
        assert (await admin.get(f"/v2/{OPEN}/blobs/{SECRET_BLOB}")).body == SECRET_LAYER
        await _check_gone(admin, path)
    node.node.blob_index.clear()
    node.node.manifest_index.clear()
    async with caller(node, "admin") as admin:
        await _check_gone(admin, path)


async def _check_gone(client: WireClient, path: str) -> None:
    for method in ("GET", "HEAD"):
        assert (await client.send(method, path)).status == 404
        assert (await client.send(method, f"/v2/{PRIVATE}/manifests/v1")).status == 404
        assert (await client.send(method, f"/v2/{PRIVATE}/manifests/{SECRET.digest}")).status == 404


async def test_nameless_callers_get_a_token_and_use_it(node: SingleNode) -> None:
    async with caller(node, None) as client:
        asked = await client.get("/v2/")
        assert asked.status == 401
        assert asked.headers["WWW-Authenticate"] == (
            f'Bearer realm="http://127.0.0.1:{node.port}/v2/token",service="replicator"'
        )
        token = (await client.get("/v2/token?service=replicator&scope=repository:public/app:pull,push")).json()["token"]
    async with node.client(bearer(token)) as client:
        assert (await client.get("/v2/")).status == 200
        digest = await client.push_blob("public/app", b"public")
        assert (await client.get(f"/v2/public/app/blobs/{digest}")).body == b"public"
        assert (await client.get(f"/v2/{PRIVATE}/tags/list")).status == 401


async def test_a_user_gets_a_token_and_uses_it(node: SingleNode) -> None:
    async with caller(node, "ann") as client:
        answer = (await client.get("/v2/token")).json()
        assert answer["token"] == answer["access_token"]
        assert answer["expires_in"] > 0
        assert (await client.send("POST", "/v2/token")).status == 400  # by POST credentials are in a form
        assert (await client.send("PUT", "/v2/token")).status == 405
    async with node.client(bearer(answer["token"])) as client:
        assert (await client.get(f"/v2/{OPEN}/tags/list")).status == 200
        assert (await client.get(f"/v2/{PRIVATE}/tags/list")).status == 403


@pytest.mark.parametrize(
    "headers",
    [
        basic("ann", "wrong"),
        basic("nobody-at-all", "ann"),
        basic("ann", ""),
        bearer("not.a.token"),
        bearer(""),
        {"Authorization": "Basic \u00ff\u00fe"},
        {"Authorization": "Digest ann"},
        {"Authorization": ""},
    ],
    ids=str,
)
async def test_wrong_credentials_are_refused_everywhere(headers: dict[str, str], node: SingleNode) -> None:
    """Also where a caller without any would be let in: who claims a name must prove it."""
    async with node.client(headers) as client:
        for path in ("/v2/", "/v2/token", "/v2/_catalog", "/v2/public/app/tags/list", f"/v2/{OPEN}/tags/list", "/v2/x"):
            answer = await client.get(path)
            assert answer.status == 401, path
            assert answer.codes == ["UNAUTHORIZED"]
            assert "WWW-Authenticate" in answer.headers
    assert {outcome.principal for outcome in node.outcomes if outcome.status == 401} <= {""}


@pytest.mark.parametrize("account", [OTHER_NODE.account, AccountId("999999999999")])
async def test_a_peer_that_nothing_is_sent_to_may_nothing(account: AccountId, node: SingleNode) -> None:
    """Neither of the own account nor of another; it writes by deliveries only (SEC-32, SEC-33)."""
    before = node.contents
    token = PeerTokens(NodeId(account, OTHER_NODE.region), PEER_SECRET, SystemClock()).issue(NODE)
    async with node.client(bearer(token)) as peer:
        assert (await peer.get("/v2/")).status == 200
        for path in (
            "_catalog",
            f"{OPEN}/tags/list",
            f"{OPEN}/manifests/v1",
            f"{OPEN}/referrers/{SHARED.digest}",
            "token",
        ):
            assert (await peer.get(f"/v2/{path}")).status == 403, path
        assert (await peer.send("POST", f"/v2/{OPEN}/blobs/uploads/")).status == 403
        assert (await peer.push_manifest(OPEN, "v1", SHARED.manifest)).status == 403
        assert (await peer.delete(f"/v2/{OPEN}/manifests/v1")).status == 403
    assert node.contents == before


async def test_each_caller_has_its_own_rate(tmp_path_factory: pytest.TempPathFactory) -> None:
    clock = FakeClock()
    limit = RateLimit(rate=0.5, burst=3, clock=clock)
    async with (
        serve_node(tmp_path_factory.mktemp("node"), clock, users=Users(USERS, PUBLIC), rate_limit=limit) as node,
        caller(node, "ann") as ann,
        caller(node, "bob") as bob,
        caller(node, None) as nameless,
    ):
        found = [await ann.get("/v2/") for _ in range(4)]
        assert [answer.status for answer in found] == [200, 200, 200, 429]
        _check_throttled(found[-1])
        assert (await bob.get("/v2/")).status == 200
        assert (await nameless.get("/v2/token")).status == 200
        clock.advance(2)
        assert [(await ann.get("/v2/")).status for _ in range(2)] == [200, 429]


async def test_guessing_passwords_is_slowed_down(tmp_path_factory: pytest.TempPathFactory) -> None:
    clock = FakeClock()
    limit = RateLimit(rate=1, burst=5, clock=clock)
    async with serve_node(tmp_path_factory.mktemp("node"), clock, users=Users(USERS), rate_limit=limit) as node:
        found = []
        for number in range(8):
            async with node.client(basic("ann", f"guess-{number}")) as client:
                found.append(await client.get("/v2/"))
        assert [answer.status for answer in found] == [401] * 5 + [429] * 3
        _check_throttled(found[-1])
        async with caller(node, "ann") as ann:
            assert (await ann.get("/v2/")).status == 200


async def test_peers_are_not_slowed_down(tmp_path_factory: pytest.TempPathFactory) -> None:
    clock = FakeClock()
    token = PeerTokens(OTHER_NODE, PEER_SECRET, clock).issue(NODE)
    limit = RateLimit(rate=0.1, burst=1, clock=clock)
    async with (
        serve_node(tmp_path_factory.mktemp("node"), clock, users=Users(USERS), rate_limit=limit) as node,
        node.client(bearer(token)) as peer,
    ):
        assert {(await peer.get("/v2/")).status for _ in range(5)} == {200}


def _check_throttled(answer: Answer) -> None:
    assert answer.codes == ["TOOMANYREQUESTS"]
    assert int(answer.headers["Retry-After"]) >= 1
