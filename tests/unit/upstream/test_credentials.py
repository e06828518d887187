from __future__ import annotations

import asyncio

import pytest

from replicator.core.errors import ConfigurationError, UpstreamDenied
from replicator.upstream.credentials import FIND_TIMEOUT, PAUSE, Found, KeptCredentials, ReadAgain
from replicator.upstream.endpoint import Credentials
from tests.support.clock import FakeClock

OLD, NEW = Credentials("me", "old"), Credentials("me", "new")


class Place:
    """A place to search whose answers a test puts in; it counts how often it was searched."""

    def __init__(self, *answers: Found | UpstreamDenied) -> None:
        self.answers = list(answers)
        self.searches = 0
        self._begun: dict[int, asyncio.Event] = {}
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self) -> Found:
        self.searches += 1
        self._begin(self.searches).set()
        answer = self.answers.pop(0)
        await self.open.wait()
        if isinstance(answer, UpstreamDenied):
            raise answer
        return answer

    async def searched(self, count: int) -> None:
        """Return when the search with that number has begun."""
        await self._begin(count).wait()

    def _begin(self, count: int) -> asyncio.Event:
        return self._begun.setdefault(count, asyncio.Event())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_what_was_found_is_kept_while_it_is_good(clock: FakeClock) -> None:
    place = Place(Found(OLD, good_for=60), Found(NEW))
    source = KeptCredentials("hub", place, clock)
    assert [await source.get(), await source.get()] == [OLD, OLD]
    clock.advance(59)
    assert (await source.get(), place.searches) == (OLD, 1)
    clock.advance(1)
    assert (await source.get(), place.searches) == (NEW, 2)


async def test_nobody_in_particular_is_an_answer_too(clock: FakeClock) -> None:
    place = Place(Found(None))
    source = KeptCredentials("hub", place, clock)
    assert [await source.get(), await source.get(), place.searches] == [None, None, 1]


async def test_many_callers_at_once_search_once(clock: FakeClock) -> None:
    place = Place(Found(OLD))
    place.open.clear()
    source = KeptCredentials("hub", place, clock)
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(source.get()) for _ in range(50)]
        await place.searched(1)
        place.open.set()
    assert {caller.result() for caller in callers} == {OLD}
    assert place.searches == 1


async def test_refused_credentials_are_searched_again_but_not_at_once(clock: FakeClock) -> None:
    place = Place(Found(OLD), Found(NEW))
    source = KeptCredentials("hub", place, clock)
    assert await source.get() == OLD
    source.refused(OLD)
    assert (await source.get(), place.searches) == (OLD, 1)
    clock.advance(PAUSE)
    assert (await source.get(), place.searches) == (NEW, 2)
    source.refused(OLD)  # a late answer about what is not used any more
    clock.advance(10 * PAUSE)
    assert (await source.get(), place.searches) == (NEW, 2)


async def test_who_was_refused_waits_for_the_new_ones(clock: FakeClock) -> None:
    place = Place(Found(OLD), Found(NEW))
    source = KeptCredentials("hub", place, clock)
    await source.get()
    clock.advance(PAUSE)
    source.refused(OLD)
    place.open.clear()
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(source.get()) for _ in range(3)]
        await place.searched(2)
        place.open.set()
    assert [caller.result() for caller in callers] == [NEW] * 3


async def test_while_others_are_being_found_the_old_ones_serve(clock: FakeClock) -> None:
    place = Place(Found(OLD, good_for=60, valid_for=120), Found(NEW))
    source = KeptCredentials("hub", place, clock)
    await source.get()
    clock.advance(60)
    place.open.clear()
    async with asyncio.TaskGroup() as group:
        searching = group.create_task(source.get())
        await place.searched(2)
        assert await source.get() == OLD
        place.open.set()
    assert searching.result() == NEW


async def test_a_failed_search_leaves_what_still_holds(clock: FakeClock) -> None:
    failed = UpstreamDenied("hub: the helper failed")
    place = Place(Found(OLD, good_for=60, valid_for=120), failed, failed)
    source = KeptCredentials("hub", place, clock)
    await source.get()
    clock.advance(60)
    assert (await source.get(), place.searches) == (OLD, 2)
    clock.advance(60)
    with pytest.raises(UpstreamDenied, match="the helper failed"):
        await source.get()


async def test_a_failed_search_is_not_repeated_for_a_moment(clock: FakeClock) -> None:
    place = Place(UpstreamDenied("hub: the helper failed"), Found(NEW))
    source = KeptCredentials("hub", place, clock)
    for _ in range(3):
        with pytest.raises(UpstreamDenied, match="the helper failed"):
            await source.get()
    assert place.searches == 1
    clock.advance(PAUSE)
    assert await source.get() == NEW


async def test_a_token_that_ends_at_once_is_no_storm(clock: FakeClock) -> None:
    place = Place(Found(OLD, good_for=0, valid_for=0), Found(NEW))
    source = KeptCredentials("hub", place, clock)
    assert [await source.get(), await source.get(), place.searches] == [OLD, OLD, 1]


async def test_a_cancelled_caller_leaves_the_search_to_the_next(clock: FakeClock) -> None:
    place = Place(Found(OLD), Found(NEW))
    place.open.clear()
    source = KeptCredentials("hub", place, clock)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(source.get())
        await place.searched(1)
        second = group.create_task(source.get())
        await asyncio.sleep(0)
        first.cancel()
        place.open.set()
    assert first.cancelled()
    assert second.result() == NEW


async def test_a_search_that_hangs_fails(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicator.upstream.credentials.FIND_TIMEOUT", 0.01)
    assert FIND_TIMEOUT == 10
    place = Place(Found(OLD))
    place.open.clear()
    with pytest.raises(UpstreamDenied, match="hub: its credentials were not found within"):
        await KeptCredentials("hub", place, clock).get()


async def test_a_password_in_a_file_is_read_again_when_it_is_refused(clock: FakeClock) -> None:
    passwords = iter(["old", "new"])
    source = KeptCredentials("hub", ReadAgain("hub", lambda: Credentials("me", next(passwords))), clock)
    assert await source.get() == OLD
    clock.advance(3600)
    assert await source.get() == OLD
    source.refused(OLD)
    assert await source.get() == NEW


async def test_a_file_that_cannot_be_read_is_a_denial(clock: FakeClock) -> None:
    def read() -> Credentials:
        raise ConfigurationError("file /run/secrets/hub cannot be read: No such file or directory")

    with pytest.raises(UpstreamDenied, match="hub: its password cannot be read: file /run/secrets/hub"):
        await KeptCredentials("hub", ReadAgain("hub", read), clock).get()
