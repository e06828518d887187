from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from replicator.core.names import RepositoryName, parse_node
from replicator.core.rate_limit import RateLimit
from replicator.core.rights import Grant, Right
from replicator.registry.peer_tokens import PeerTokens
from replicator.registry_api.authentication import (
    Authenticator,
    OpenAuthenticator,
    PeerAuthenticator,
    UserAuthenticator,
)
from replicator.registry_api.operations import Operations, Readiness
from replicator.registry_api.users import User
from tests.support.clock import FakeClock
from tests.support.wire_client import basic, bearer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EU, US = parse_node("1" * 12 + "/eu"), parse_node("1" * 12 + "/us")
SECRET = b"shared"
READS_SOMETHING = (Grant(frozenset({Right.PULL}), ("team-c/*",)),)


@dataclass
class Node:
    """What operations ask of a node, as a test decides."""

    clock: FakeClock = field(default_factory=FakeClock)
    answers: dict[str, Readiness] = field(default_factory=dict)
    rate_limit: RateLimit | None = None
    with_users: bool = True
    anonymous: tuple[Grant, ...] = ()
    grants: tuple[Grant, ...] = READS_SOMETHING

    async def ask(self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> web.Response:
        operations = Operations(self._authenticator(), self._check, self._metrics, self._status, self.rate_limit)
        response = await operations.handle(make_mocked_request(method, path, headers=headers or {}))
        assert isinstance(response, web.Response)
        return response

    def _authenticator(self) -> Authenticator:
        peers = PeerAuthenticator(PeerTokens(EU, SECRET, self.clock))
        if not self.with_users:
            return OpenAuthenticator(peers)
        return UserAuthenticator([User.with_password("dev", "s3cret", self.grants)], self.anonymous, peers, self.clock)

    async def _check(self, mode: str) -> Readiness:
        return self.answers.get(mode, Readiness(ready=True))

    async def _metrics(self) -> tuple[bytes, str]:
        return b"up 1\n", "text/plain; version=0.0.4"

    async def _status(self, may_see: Callable[[RepositoryName], bool]) -> Mapping[str, object]:
        seen = [name for name in map(RepositoryName, ("team-a/app", "team-b/app")) if may_see(name)]
        return {"node": str(EU), "failing": seen}


async def test_a_node_that_answers_is_alive() -> None:
    for method in ("GET", "HEAD"):
        assert (await Node().ask("/healthz", method)).status == 200


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [("", 200, "ready\n"), ("?mode=read", 200, "ready\n"), ("?mode=write", 503, "not ready: the disk is full\n")],
)
async def test_a_node_may_be_ready_to_read_and_not_to_write(query: str, status: int, text: str) -> None:
    node = Node(answers={"write": Readiness(ready=False, reason="the disk is full")})
    answer = await node.ask(f"/readyz{query}")
    assert (answer.status, answer.text) == (status, text)


@pytest.mark.parametrize("query", ["?mode=", "?mode=both", "?mode=" + "x" * 1000])
async def test_other_modes_are_refused(query: str) -> None:
    assert (await Node().ask(f"/readyz{query}")).status == 400


async def test_metrics() -> None:
    answer = await Node().ask("/metrics")
    assert (answer.status, answer.body) == (200, b"up 1\n")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"


@pytest.mark.parametrize("path", ["/", "/healthz/", "/_replicator/v1/", "/status", "/v1/"])
async def test_there_is_nothing_else(path: str) -> None:
    answer = await Node().ask(path)
    assert answer.status == 404
    assert json.loads(answer.text or "")["errors"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/_replicator/v1/status"])
async def test_nothing_is_changed_here(path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = await Node().ask(path, method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (basic("dev", "s3cret"), 200),
        (basic("dev", "wrong"), 401),
        (bearer("not.a.token"), 401),
        (bearer(PeerTokens(US, SECRET, FakeClock()).issue(EU)), 403),
    ],
    ids=["nobody", "user", "wrong password", "wrong token", "peer"],
)
async def test_the_status_is_for_users(headers: dict[str, str], status: int) -> None:
    answer = await Node().ask("/_replicator/v1/status", headers=headers)
    assert answer.status == status
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    if status == 200:
        assert json.loads(answer.text or "")["node"] == str(EU)


async def test_the_status_is_not_for_users_to_whom_nothing_is_granted() -> None:
    answer = await Node(grants=()).ask("/_replicator/v1/status", headers=basic("dev", "s3cret"))
    assert (answer.status, "node" in (answer.text or "")) == (403, False)


async def test_what_everybody_may_pull_does_not_show_the_status() -> None:
    node = Node(anonymous=(Grant(frozenset({Right.PULL})),))
    assert (await node.ask("/_replicator/v1/status")).status == 401


async def test_an_open_node_shows_its_status() -> None:
    assert (await Node(with_users=False).ask("/_replicator/v1/status")).status == 200


async def test_passwords_are_not_guessed_faster_here() -> None:
    clock = FakeClock()
    node = Node(clock, rate_limit=RateLimit(1, 3, clock))
    found = [(await node.ask("/_replicator/v1/status", headers=basic("dev", "wrong"))).status for _ in range(5)]
    assert found == [401, 401, 401, 429, 429]
    assert (await node.ask("/_replicator/v1/status", headers=basic("dev", "s3cret"))).status == 200


@pytest.mark.parametrize(
    ("grants", "seen"),
    [
        (READS_SOMETHING, []),
        ((Grant(frozenset({Right.PULL}), ("team-b/*",)),), ["team-b/app"]),
        ((Grant(frozenset({Right.PULL})),), ["team-a/app", "team-b/app"]),
    ],
)
async def test_the_status_names_no_repository_that_the_user_may_not_read(
    grants: tuple[Grant, ...], seen: list[str]
) -> None:
    answer = await Node(grants=grants).ask("/_replicator/v1/status", headers=basic("dev", "s3cret"))
    assert json.loads(answer.text or "")["failing"] == seen


async def test_an_open_node_names_every_repository_in_its_status() -> None:
    answer = await Node(with_users=False).ask("/_replicator/v1/status")
    assert json.loads(answer.text or "")["failing"] == ["team-a/app", "team-b/app"]
