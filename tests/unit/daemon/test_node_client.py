"""How commands speak to nodes: whom they trust, which node they ask, and what they say when it goes wrong."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from replicator.core.errors import ConfigurationError
from replicator.daemon.node_client import CACHE, NodeFailed, choose, find_source, open_clients
from tests.support.answering_nodes import ACCOUNT, Answering, asking, serving

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from replicator.daemon.asking import Asking

IMAGES = "/_replicator/v1/replication/images"
US, EU = f"{ACCOUNT}/us-east-1", f"{ACCOUNT}/eu-west-1"


async def ask(asking: Asking) -> Mapping[str, Any]:
    async with open_clients(asking) as clients:
        return await clients[0].get("conflicts")


async def test_an_authority_is_trusted_where_it_is_named(tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    async with serving([Answering()], context) as ports:
        assert await ask(asking(tmp_path, ports, "https", ca_file=ca_file)) == {}
        with pytest.raises(
            NodeFailed, match=f"^{US}: cannot be reached: the TLS handshake failed: its certificate is not trusted"
        ) as failed:
            await ask(asking(tmp_path, ports, "https"))
        assert "\n" not in str(failed.value)


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_a_file_without_authorities_is_refused(tmp_path: Path, content: bytes | None) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="cannot load --ca-file"):
        await ask(asking(tmp_path, [1], ca_file=ca_file))


@pytest.mark.parametrize(
    ("answering", "reason"),
    [
        (Answering(200, b"<html>hello</html>"), "answered 200 without JSON"),
        (Answering(502, b"Bad Gateway"), "answered 502 without JSON"),
        (Answering(200, b"[]"), "answered 200 without a JSON object"),
        (Answering(200, b"\xff\xfe"), "answered 200 without JSON"),
        (Answering(500, b"{}"), "answered 500"),
        (Answering(404, b'{"errors": [{"code": "X", "message": "no such thing"}]}'), "no such thing"),
        (Answering(400, b'{"errors": "none"}'), "answered 400"),
        (Answering(401, b'{"errors": []}'), "asks for credentials: use --user, with the password in REPLICATOR_PASS"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answering) else "",
)
async def test_a_bad_answer_names_node_and_reason(tmp_path: Path, answering: Answering, reason: str) -> None:
    async with serving([answering]) as ports:
        with pytest.raises(NodeFailed) as failed:
            await ask(asking(tmp_path, ports))
    assert str(failed.value).startswith(f"{US}: {reason}")


async def test_a_node_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with serving([Answering()]) as ports:
        pass
    with pytest.raises(NodeFailed, match=rf"^{US}: cannot be reached: cannot connect \("):
        await ask(asking(tmp_path, ports))


async def test_the_password_goes_to_the_node_only(tmp_path: Path) -> None:
    elsewhere = Answering()
    async with serving([elsewhere]) as others:
        moved = Answering(307, b"{}", {"Location": f"http://127.0.0.1:{others[0]}/"})
        async with serving([moved]) as ports:
            await ask(asking(tmp_path, ports, user="admin"))
    assert moved.asked[0].headers["Authorization"].startswith("Basic ")
    assert elsewhere.asked == []


NOBODY = Answering(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "has no manifest"}]}')
HOLDER = Answering(200, b'{"statuses": []}')
SOURCE = Answering(200, b'{"statuses": [{}]}')


@pytest.mark.parametrize(
    ("nodes", "chosen"),
    [((SOURCE, HOLDER), US), ((HOLDER, SOURCE), EU), ((HOLDER, NOBODY), US), ((NOBODY, HOLDER), EU)],
)
async def test_the_source_of_an_image_is_found(tmp_path: Path, nodes: Sequence[Answering], chosen: str) -> None:
    async with serving(nodes) as ports, open_clients(asking(tmp_path, ports)) as clients:
        assert (await find_source(clients, None, "team/app", "1.0")).name == chosen


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ((NOBODY, NOBODY), "has no manifest"),
        ((NOBODY, Answering(500)), f"{EU}: answered 500"),
        ((Answering(500), NOBODY), f"{US}: answered 500"),
    ],
)
async def test_an_image_that_no_node_is_known_to_have(tmp_path: Path, nodes: Sequence[Answering], reason: str) -> None:
    async with serving(nodes) as ports, open_clients(asking(tmp_path, ports)) as clients:
        with pytest.raises(NodeFailed, match=reason):
            await find_source(clients, None, "team/app", "1.0")


async def test_a_node_is_chosen_by_name_or_region(tmp_path: Path) -> None:
    async with open_clients(asking(tmp_path, [1, 2])) as clients:
        assert choose(clients, None).name == US
        assert choose(clients, EU).name == choose(clients, "eu-west-1").name == EU
        with pytest.raises(ConfigurationError, match=f"expected --from to name one of {US}, {EU}, got 'mars'"):
            choose(clients, "mars")


async def lines_of(asking: Asking) -> list[Mapping[str, Any]]:
    async with open_clients(asking, CACHE) as clients:
        return [line async for line in clients[0].lines("warm", {"image": "nginx", "platforms": None})]


async def test_lines_are_read_one_by_one(tmp_path: Path) -> None:
    node = Answering(200, b'{"state":"fetching"}\n{"state":"complete"}\n')
    async with serving([node]) as ports:
        assert await lines_of(asking(tmp_path, ports)) == [{"state": "fetching"}, {"state": "complete"}]
    assert [(one.method, one.path) for one in node.asked] == [("POST", "/_replicator/v1/cache/warm")]


@pytest.mark.parametrize(
    ("answering", "reason"),
    [
        (Answering(200, b'{"state":\n'), "answered with a line that is no JSON$"),
        (Answering(200, b"[]\n"), "answered with a line that is no JSON object"),
        (Answering(200, b"\xff\n"), "answered with a line that is no JSON$"),
        (Answering(400, b'{"errors": [{"message": "no such image"}]}'), "no such image"),
        (Answering(401, b"{}"), "asks for credentials"),
        (Answering(200, b'"' + b"x" * 600_000 + b'"'), "answered with a line that is too long"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answering) else "",
)
async def test_bad_lines_name_node_and_reason(tmp_path: Path, answering: Answering, reason: str) -> None:
    async with serving([answering]) as ports:
        with pytest.raises(NodeFailed, match=f"^{US}: {reason}"):
            await lines_of(asking(tmp_path, ports))
