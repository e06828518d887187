"""Answer bodies: sent piece by piece, so that a client which stops reading costs little memory, and not for ever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

SEND_TIMEOUT = 120.0
"""Seconds that a client may take to accept one piece; then it is given up."""

PIECE = 256 * 1024
"""Bytes that are handed to the transport at once, which keeps what the client does not take."""

TURN = 512 * 1024
"""Bytes that one client gets before the others have their turn. Shorter turns cost a crowd throughput."""


class AnswerBroken(Exception):
    """an answer that had begun could not be finished; its connection is closed."""


async def send_body(
    request: web.BaseRequest, response: web.StreamResponse, pieces: AsyncIterator[bytes | memoryview]
) -> web.StreamResponse:
    """Send an answer whose length is stated; raises AnswerBroken when it cannot be finished, with the connection cut.

    Raises ConnectionError when the client left.
    """
    await response.prepare(request)
    sent = 0
    try:
        async for piece in pieces:
            async with asyncio.timeout(SEND_TIMEOUT):
                await response.write(piece)
            sent += len(piece)
            if sent >= TURN:
                # A client that takes all at once never makes us wait, and nobody else's turn would come.
                await asyncio.sleep(0)
                sent = 0
    except ConnectionError:
        raise  # the client left
    except Exception as error:
        # The status line is gone: only a connection that breaks can still say that this is not the whole.
        if request.transport is not None:
            request.transport.abort()
        raise AnswerBroken("the content could not be sent to its end") from error
    await response.write_eof()
    return response


async def cut(content: bytes) -> AsyncIterator[memoryview]:
    """Yield content in pieces of the size to send."""
    for start in range(0, len(content), PIECE):
        yield memoryview(content)[start : start + PIECE]
