"""The operators' API of events over HTTP: who is let in, what it shows page by page, and what it refuses."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from replicator.core.digest import Digest
from replicator.core.errors import SinkNotFound
from replicator.core.event_sinks import EventSink
from replicator.core.events import ImageAction, image_action
from replicator.core.names import RepositoryName, Tag
from replicator.core.rights import Grant, Right
from replicator.daemon.http_server import HttpServer
from replicator.daemon.listener import Listener
from replicator.notifications.operators import EventOperators
from replicator.registry.events import record_event
from replicator.registry.peer_tokens import PeerTokens
from replicator.registry.settings import RegistrySettings
from replicator.registry_api.authentication import PeerAuthenticator, UserAuthenticator
from replicator.registry_api.events_api import EventsApi
from replicator.registry_api.users import User
from replicator.storage.metadata import event_deliveries
from tests.support.cached_edge import listening_socket
from tests.support.clock import FakeClock
from tests.support.http_calls import basic
from tests.support.single_node import NODE, PEER_SECRET, open_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.registry.node import RegistryNode

REPOSITORY = RepositoryName("team/app")
PULL, PUSH = frozenset({Right.PULL}), frozenset({Right.PUSH})
USERS = (
    User.with_password("admin", "pw", [Grant(PULL | PUSH)]),
    User.with_password("reader", "pw", [Grant(PULL)]),
    User.with_password("team", "pw", [Grant(PULL | PUSH, ("team/*",))]),
)


class Operated:
    """A node's API of events, asked as one of its users."""

    def __init__(self, node: RegistryNode, session: aiohttp.ClientSession) -> None:
        self.node = node
        self._session = session

    async def get(self, path: str, user: str | None = "admin") -> tuple[int, Any]:
        async with self._session.get(f"/_replicator/v1/events/{path}", headers=_login(user)) as response:
            return response.status, await response.json()

    async def post(self, path: str, body: object, user: str | None = "admin") -> tuple[int, Any]:
        async with self._session.post(f"/_replicator/v1/events/{path}", json=body, headers=_login(user)) as response:
            return response.status, await response.json()

    async def happen(self, count: int, *, given_up: bool) -> None:
        for number in range(count):
            event = image_action(ImageAction.PUSH, REPOSITORY, Digest("sha256:" + f"{number}" * 64), Tag(f"v{number}"))
            await self.node.commit(REPOSITORY, lambda event=event: record_event(self.node, event, 1.0))  # type: ignore[misc]
        leased = await self.node.database.write(lambda: event_deliveries.lease("ci", "me", 2.0, 9.0, count))
        for one in leased if given_up else ():
            await self.node.database.write(lambda one=one: event_deliveries.bury(one, 3.0, "no"))  # type: ignore[misc]


def _login(user: str | None) -> dict[str, str]:
    return {} if user is None else basic(user, "pw")


@pytest.fixture
async def operated(tmp_path: Path) -> AsyncIterator[Operated]:
    clock = FakeClock()
    settings = RegistrySettings(NODE, event_sinks=(EventSink("ci"),))
    async with contextlib.AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_node(tmp_path, clock, settings=settings))
        authenticator = UserAuthenticator(USERS, (), PeerAuthenticator(PeerTokens(NODE, PEER_SECRET, clock)), clock)
        api = EventsApi(EventOperators(node, [], {"ci": "webhook"}), authenticator, clock, lambda _: None)
        listening = listening_socket()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = HttpServer(Listener(listening, "", None), api.handle, api.handle, api.handle)
        await server.start()
        stack.push_async_callback(server.stop, 1.0)
        yield Operated(node, await stack.enter_async_context(aiohttp.ClientSession(url)))


@pytest.mark.parametrize(
    ("user", "reads", "writes"), [("admin", 200, 200), ("reader", 200, 403), ("team", 403, 403), (None, 401, 401)]
)
async def test_events_are_for_those_who_may_in_all_repositories(
    operated: Operated, user: str | None, reads: int, writes: int
) -> None:
    for path in ("sinks", "latest", "dead"):
        assert (await operated.get(path, user))[0] == reads
    for path in ("retry", "discard"):
        assert (await operated.post(path, {"sink": "ci"}, user))[0] == writes


async def test_what_was_given_up_is_paged_retried_and_discarded(operated: Operated) -> None:
    await operated.happen(3, given_up=True)
    _, first = await operated.get("dead?limit=2")
    _, rest = await operated.get(f"dead?limit=2&after={first['next_after']}")
    found = [*first["dead"], *rest["dead"]]
    assert [one["event"]["detail"]["image-tag"] for one in found] == ["v0", "v1", "v2"]
    assert rest["next_after"] is None
    assert {one["error"] for one in found} == {"no"}
    assert await operated.post("retry", {"event": found[0]["event"]["id"]}) == (200, {"retried": 1})
    assert await operated.post("discard", {"event": found[1]["event"]["id"]}) == (200, {"discarded": 1})
    assert await operated.post("discard", {"event": found[1]["event"]["id"]}) == (200, {"discarded": 0})
    _, sinks = await operated.get("sinks")
    assert sinks["sinks"][0]["deliveries"] == {"queued": 1, "dead": 1}
    assert await operated.post("retry", {}) == (200, {"retried": 1})


async def test_the_latest_come_first_page_by_page(operated: Operated) -> None:
    await operated.happen(3, given_up=False)
    _, first = await operated.get("latest?limit=2")
    _, rest = await operated.get(f"latest?limit=2&before={first['next_before']}")
    assert [one["event"]["detail"]["image-tag"] for one in (*first["events"], *rest["events"])] == ["v2", "v1", "v0"]
    assert {one["state"] for each in first["events"] for one in each["deliveries"]} == {"leased"}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("retry", {"sink": "nobody"}, 404),
        ("retry", {"event": "no such"}, 404),
        ("retry", {"snik": "ci"}, 400),
        ("retry", {"sink": 7}, 400),
        ("retry", {"sink": "x" * 201}, 400),
        ("discard", {"sink": "nobody"}, 404),
        ("discard", {}, 400),
        ("discard", {"event": "no such"}, 404),
        ("discard", {"all": "yes"}, 400),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    operated: Operated, path: str, body: object, status: int
) -> None:
    await operated.happen(1, given_up=True)
    assert (await operated.post(path, body))[0] == status
    _, sinks = await operated.get("sinks")
    assert sinks["sinks"][0]["deliveries"] == {"dead": 1}


async def test_a_sink_that_is_unknown_is_refused_in_the_same_words(operated: Operated) -> None:
    refused = await operated.post("retry", {"sink": "nobody"})
    assert "there is no sink nobody" in str(refused)
    assert await operated.post("discard", {"sink": "nobody"}) == refused


async def test_what_a_sink_that_was_removed_left_can_be_discarded(operated: Operated) -> None:
    await operated.happen(2, given_up=True)
    operators = EventOperators(operated.node, [], {})
    assert await operators.discard("ci", None) == 2
    with pytest.raises(SinkNotFound, match="there is no sink ci"):
        await operators.discard("ci", None)


@pytest.mark.parametrize("path", ["dead?after=x", "dead?limit=0", "latest?before=-1", "dead?sink=nobody", "nothing"])
async def test_what_cannot_be_asked(operated: Operated, path: str) -> None:
    status, answer = await operated.get(path)
    assert status in {400, 404}
    assert answer["errors"]
