"""A destination that does not accept us is said once, with its rules, and once more when it does."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

import pytest

from replicator.core.destinations import RegistryRef
from replicator.core.errors import UpstreamDenied, UpstreamError, UpstreamUnavailable
from replicator.core.names import parse_node
from replicator.core.replication import ReplicationRule
from replicator.daemon.destination_check import AGAIN, DestinationCheck
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from replicator.core.destinations import DestinationId
    from replicator.replication.peers import PeerDirectory

US, EU, HARBOR = parse_node("1" * 12 + "/us"), parse_node("1" * 12 + "/eu"), RegistryRef("harbor")
RULES = (ReplicationRule("first", (EU, HARBOR)), ReplicationRule("second", (EU,)))


class Answers:
    """Destinations that answer as a test says, and count how often they were asked."""

    def __init__(self) -> None:
        self.errors: dict[DestinationId, UpstreamError] = {}
        self.asked: list[DestinationId] = []

    def find(self, destination: DestinationId) -> _Client:
        return _Client(self, destination)


class _Client:
    def __init__(self, answers: Answers, destination: DestinationId) -> None:
        self._answers = answers
        self._destination = destination

    async def ping(self) -> None:
        self._answers.asked.append(self._destination)
        error = self._answers.errors.get(self._destination)
        if error is not None:
            raise error


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def check(answers: Answers, clock: FakeClock) -> DestinationCheck:
    return DestinationCheck(US, lambda: RULES, cast("PeerDirectory", answers), clock)


async def test_destinations_of_new_rules_are_asked_and_those_of_none_forgotten(
    answers: Answers, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rules = [RULES[1]]
    check = DestinationCheck(US, lambda: tuple(rules), cast("PeerDirectory", answers), clock)
    answers.errors = {HARBOR: UpstreamDenied("the password is wrong")}
    running = asyncio.create_task(check.run())  # noqa: TID251 - cancelled below
    for following in ([ReplicationRule("third", (HARBOR,))], [], [RULES[1]], [RULES[1]]):
        await clock.sleepers(1)
        rules[:] = following
        clock.advance(AGAIN)
    await clock.sleepers(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    events = [cast("dict[str, object]", one.msg) for one in caplog.records]
    assert [(one["event"], one["destination"]) for one in events] == [("destination cannot be used", str(HARBOR))]
    assert events[0]["rules"] == ["third"]
    assert answers.asked == [EU, HARBOR, EU]


async def test_every_destination_is_asked_once_for_all_its_rules(check: DestinationCheck, answers: Answers) -> None:
    answers.errors[EU] = UpstreamDenied("the secret is wrong")
    [found] = await check.check()
    assert (found.destination, found.rules, str(found.error)) == (EU, ("first", "second"), "the secret is wrong")
    assert sorted(map(str, answers.asked)) == sorted([str(EU), str(HARBOR)])


@pytest.mark.parametrize(
    ("destination", "error", "reason"),
    [
        (EU, UpstreamDenied("answered 401"), "answered 401: expected the same peer_secret or secret there as here"),
        (HARBOR, UpstreamDenied("answered 401"), "answered 401: expected credentials that it accepts"),
        (EU, UpstreamUnavailable("cannot connect"), "cannot connect"),
    ],
)
async def test_a_destination_that_does_not_know_us_says_what_to_mend(
    check: DestinationCheck, answers: Answers, destination: DestinationId, error: UpstreamError, reason: str
) -> None:
    answers.errors[destination] = error
    [found] = await check.check()
    assert found.reason.startswith(reason)


async def test_it_is_said_once_and_once_more_when_it_is_mended(
    check: DestinationCheck, answers: Answers, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answers.errors = {EU: UpstreamDenied("the secret is wrong")}
    running = asyncio.create_task(check.run())  # noqa: TID251 - cancelled below
    await clock.sleepers(1)
    clock.advance(AGAIN)
    await clock.sleepers(1)
    answers.errors = {}
    clock.advance(AGAIN)
    await clock.sleepers(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    events = [cast("dict[str, object]", one.msg) for one in caplog.records]
    assert [one["event"] for one in events] == ["destination cannot be used", "destination can be used now"]
    assert events[0]["rules"] == ["first", "second"]
    assert answers.asked.count(HARBOR) == 1
