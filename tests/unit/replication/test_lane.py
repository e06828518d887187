"""Lanes: how many images at once, and pauses while a destination is down."""

from __future__ import annotations

import asyncio

from replicator.core.jobs import Priority
from replicator.core.names import RepositoryName, Tag
from replicator.replication.lane import Lane

REPOSITORY, TAG = RepositoryName("team/app"), Tag("latest")


def test_a_lane_has_room_up_to_its_width_and_background_work_its_own() -> None:
    lane = Lane(4, background=2)
    pushes, background = lane.tracks
    assert (lane.free(pushes), lane.free(background)) == (4, 2)
    background.running = 2
    assert (lane.free(pushes), lane.free(background)) == (4, 0)
    pushes.running = 4
    assert lane.free(pushes) == 0


def test_a_destination_that_is_down_is_asked_by_one_image_of_either_kind() -> None:
    lane = Lane(4, background=2)
    lane.failed(0.0, 1.0, None)
    assert [lane.free(track) for track in lane.tracks] == [1, 1]
    lane.tracks[1].running = 1
    assert [lane.free(track) for track in lane.tracks] == [0, 0]


def test_a_destination_that_is_down_is_probed_by_one_image_after_growing_pauses() -> None:
    lane, now, pauses = Lane(4), 0.0, []
    for _ in range(8):
        pauses.append(lane.failed(now, 1.0, None))
        assert lane.free(lane.tracks[0]) == 1
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
    assert (lane.free(lane.tracks[0]), lane.pause_left(0.0)) == (4, 0.0)
    assert lane.failed(0.0, 1.0, None) == 1


def test_only_a_queue_with_nothing_due_is_looked_at_again() -> None:
    lane = Lane(4)
    pushes, background = lane.tracks
    pushes.due_at, background.due_at = 100.0, 99.5
    lane.look_again(99.5)
    assert [track.due_at for track in lane.tracks] == [None, 99.5]


async def test_a_tag_is_set_by_one_at_a_time_and_other_tags_meanwhile() -> None:
    lane, order = Lane(4).at(Priority.PUSH), []
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
