"""Lanes: how many images at once, and pauses while a destination is down."""

from __future__ import annotations

import asyncio

from replicator.core.names import RepositoryName, Tag
from replicator.replication.lane import Lane

REPOSITORY, TAG = RepositoryName("team/app"), Tag("latest")


def test_a_lane_has_room_up_to_its_width() -> None:
    lane = Lane(4)
    assert lane.free == 4
    lane.running = 3
    assert lane.free == 1
    lane.running = 4
    assert lane.free == 0


def test_a_destination_that_is_down_is_probed_by_one_image_after_growing_pauses() -> None:
    lane, now, pauses = Lane(4), 0.0, []
    for _ in range(8):
        pauses.append(lane.failed(now, 1.0, None))
        assert lane.free == 1
        assert lane.pause_left(now) == pauses[-1]
        now += pauses[-1]
        assert lane.pause_left(now) == 0
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_images_that_fail_together_count_once() -> None:
    lane = Lane(4)
    assert [lane.failed(0.0, 1.0, None) for _ in range(4)] == [1, 1, 1, 1]
    assert lane.failed(1.0, 1.0, None) == 2


def test_a_lane_waits_as_long_as_it_is_asked_to() -> None:
    assert Lane(4).failed(0.0, 0.0, 300.0) == 300


def test_an_answer_opens_the_lane_again() -> None:
    lane = Lane(4)
    lane.failed(0.0, 1.0, 300.0)
    lane.reached()
    assert (lane.free, lane.pause_left(0.0)) == (4, 0.0)
    assert lane.failed(0.0, 1.0, None) == 1


def test_only_a_queue_with_nothing_due_is_looked_at_again() -> None:
    lane = Lane(4)
    lane.due_at = 100.0
    lane.look_again(100.0)
    assert lane.due_at == 100.0
    lane.look_again(99.0)
    assert lane.due_at is None


async def test_a_tag_is_set_by_one_at_a_time_and_other_tags_meanwhile() -> None:
    lane, order = Lane(4), []
    entered = asyncio.Event()
    leave = asyncio.Event()

    async def first() -> None:
        async with lane.tag(REPOSITORY, TAG):
            entered.set()
            await leave.wait()
            order.append("first")

    async def second() -> None:
        await entered.wait()
        async with lane.tag(REPOSITORY, Tag("other")):
            order.append("other tag")
        leave.set()
        async with lane.tag(REPOSITORY, TAG):
            order.append("second")

    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        group.create_task(second())
    assert order == ["other tag", "first", "second"]
