"""How a long answer shares the event loop with everybody else."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from replicator.registry_api.answer_body import TURN, send_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TURNS = 20


class _Greedy(web.StreamResponse):
    """An answer whose client takes everything at once, so that writing never waits."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    async def prepare(self, _: web.BaseRequest) -> None:
        """Begin."""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take a piece."""
        self.taken += len(data)

    async def write_eof(self, _: bytes = b"") -> None:
        """End."""


async def _pieces(count: int) -> AsyncIterator[bytes]:
    piece = bytes(TURN // 2)
    for _ in range(2 * count):
        yield piece


async def test_greedy_client_leaves_the_others_their_turns() -> None:
    answer, between = _Greedy(), []

    async def others() -> None:
        while answer.taken < TURNS * TURN:
            between.append(answer.taken)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(others())
        group.create_task(_sent(answer))
    assert answer.taken == TURNS * TURN
    assert max(after - before for before, after in pairwise(between)) <= TURN
    assert len(between) >= TURNS


async def _sent(answer: _Greedy) -> None:
    await send_body(make_mocked_request("GET", "/v2/"), answer, _pieces(TURNS))
