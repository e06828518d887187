"""A use case that is cancelled at any of its awaits leaves a session that goes on, or nothing; the node stays whole."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import BlobNotFound, UploadNotFound
from replicator.core.media_types import OCI_MANIFEST
from replicator.core.names import RepositoryName, Tag
from replicator.core.principal import UNRESTRICTED
from replicator.registry.pulls import Pulls
from replicator.registry.pushes import Pushes
from replicator.registry.uploads import Uploads
from replicator.storage.metadata import blobs, images, uploads
from tests.support.images import build_image
from tests.support.single_node import open_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator
    from pathlib import Path

    from replicator.registry.node import RegistryNode

REPOSITORY, OTHER = RepositoryName("a/b"), RepositoryName("c")
CONTENT = bytes(range(256)) * 8192  # two batches of an ingest
DIGEST = digest_of(CONTENT)
IMAGE = build_image([CONTENT])


class CancelledAt:
    """Awaits a coroutine, and cancels the task at the coroutine's await number `at`."""

    def __init__(self, coroutine: Coroutine[Any, Any, object], at: int) -> None:
        self._coroutine = coroutine
        self._at = at
        self.reached = False

    def __await__(self) -> Generator[Any, Any, object]:
        inner = self._coroutine.__await__()
        number = 0
        try:
            awaited = next(inner)
            while True:
                if number == self._at:
                    self.reached = True
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                number += 1
                try:
                    yield awaited
                except BaseException as error:  # noqa: BLE001 - whatever is thrown in goes on inwards
                    awaited = inner.throw(error)
                else:
                    awaited = next(inner)
        except StopIteration as stop:
            return stop.value


async def cancel_at(at: int, coroutine: Coroutine[Any, Any, object]) -> bool:
    """Run a coroutine in a task that is cancelled at its await number `at`; return whether it came so far."""
    cancelled = CancelledAt(coroutine, at)

    async def run() -> None:
        await cancelled

    task = asyncio.ensure_future(run())  # noqa: TID251 - awaited at once
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return cancelled.reached


async def chunks() -> AsyncIterator[bytes]:
    for start in range(0, len(CONTENT), 300_000):
        await asyncio.sleep(0)
        yield CONTENT[start : start + 300_000]


async def none() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk


@dataclass
class Use:
    """The use cases of a node, and the state that one of them is tried in."""

    node: RegistryNode
    uploads: Uploads
    pushes: Pushes
    pulls: Pulls
    session: str = ""

    async def prepare(self, kind: str) -> None:
        if kind in {"append", "finish", "finish with chunks", "cancel", "offset"}:
            self.session = (await self.uploads.start(UNRESTRICTED, REPOSITORY)).id
        if kind == "finish":
            await self.uploads.append(UNRESTRICTED, REPOSITORY, self.session, chunks())
        if kind in {"mount", "delete blob"}:
            await self.uploads.put_blob(UNRESTRICTED, OTHER, DIGEST, chunks())
        if kind in {"put manifest", "delete manifest"}:
            for digest, content in IMAGE.blobs.items():
                await self.uploads.put_blob(UNRESTRICTED, REPOSITORY, digest, _one(content))
        if kind == "delete manifest":
            await self.put_manifest()

    def start(self, kind: str) -> Coroutine[Any, Any, object]:
        cases: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "start": lambda: self.uploads.start(UNRESTRICTED, REPOSITORY),
            "append": lambda: self.uploads.append(UNRESTRICTED, REPOSITORY, self.session, chunks()),
            "offset": lambda: self.uploads.get_offset(UNRESTRICTED, REPOSITORY, self.session),
            "finish": lambda: self.uploads.finish(UNRESTRICTED, REPOSITORY, self.session, DIGEST, none()),
            "finish with chunks": lambda: self.uploads.finish(UNRESTRICTED, REPOSITORY, self.session, DIGEST, chunks()),
            "cancel": lambda: self.uploads.cancel(UNRESTRICTED, REPOSITORY, self.session),
            "whole": lambda: self.uploads.put_blob(UNRESTRICTED, REPOSITORY, DIGEST, chunks()),
            "mount": lambda: self.uploads.mount(UNRESTRICTED, REPOSITORY, DIGEST, OTHER),
            "delete blob": lambda: self.uploads.delete_blob(UNRESTRICTED, OTHER, DIGEST),
            "put manifest": self.put_manifest,
            "delete manifest": lambda: self.pushes.delete_manifest(UNRESTRICTED, REPOSITORY, Tag("v1")),
            "reclaim": self.uploads.reclaim,
        }
        return cases[kind]()

    async def put_manifest(self) -> object:
        return await self.pushes.put_manifest(UNRESTRICTED, REPOSITORY, Tag("v1"), IMAGE.manifest, OCI_MANIFEST)


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content


KINDS = [
    *("start", "append", "offset", "finish", "finish with chunks", "cancel", "whole"),
    *("mount", "delete blob", "put manifest", "delete manifest", "reclaim"),
]


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_at_every_await(kind: str, tmp_path: Path) -> None:
    at, reached = 0, True
    while reached:
        assert at < 200
        directory = tmp_path / str(at)
        directory.mkdir()
        async with open_node(directory) as node:
            use = Use(node, Uploads(node), Pushes(node), Pulls(node))
            await use.prepare(kind)
            reached = await cancel_at(at, use.start(kind))
            await _check_whole(use)
            await _check_session_goes_on_or_is_gone(use)
            await _check_everything_still_works(use, directory)
        at += 1
    assert at > 1 or kind == "reclaim"


async def _check_whole(use: Use) -> None:
    """What the rows say is there: every linked blob has its bytes, every manifest its blobs."""
    await use.node.database.write(_nothing)  # after everything that was queued before
    for repository in (REPOSITORY, OTHER):
        linked = await use.node.database.read(blobs.find_linked(repository, DIGEST))
        if linked is None:
            with pytest.raises(BlobNotFound):
                await _read(use, repository)
        else:
            assert await _read(use, repository) == CONTENT
    if await use.node.database.read(images.find_by_tag(REPOSITORY, Tag("v1"))) is not None:
        assert await use.node.database.read(blobs.missing(REPOSITORY, [*IMAGE.blobs])) == ()
    shown, stored = use.pulls.find_manifest(REPOSITORY, Tag("v1")), images.find_by_tag(REPOSITORY, Tag("v1"))
    assert await shown == await use.node.database.read(stored)


def _nothing() -> Generator[Any, Any, None]:
    yield from uploads.ids()


async def _read(use: Use, repository: RepositoryName) -> bytes:
    # Repositories of this test exist, or the error is a NotFound of another kind.
    await use.uploads.start(UNRESTRICTED, repository)
    async with await use.pulls.open_blob(UNRESTRICTED, repository, DIGEST) as blob:
        return b"".join([bytes(piece) async for piece in blob.read(0, blob.size)])


async def _check_session_goes_on_or_is_gone(use: Use) -> None:
    if not use.session:
        return
    try:
        offset = await use.uploads.get_offset(UNRESTRICTED, REPOSITORY, use.session)
    except UploadNotFound:
        return

    async def rest() -> AsyncIterator[bytes]:
        yield CONTENT[offset:]

    await use.uploads.finish(UNRESTRICTED, REPOSITORY, use.session, DIGEST, rest())
    assert await _read(use, REPOSITORY) == CONTENT


async def _check_everything_still_works(use: Use, directory: Path) -> None:
    await use.uploads.put_blob(UNRESTRICTED, REPOSITORY, DIGEST, chunks())
    assert await _read(use, REPOSITORY) == CONTENT
    for _ in range(2):
        await use.uploads.reclaim()
    kept = set(await use.node.database.read(uploads.ids()))
    assert {path.name for path in (directory / "blobs" / "ingest").iterdir()} <= kept


async def test_the_driver_cancels_where_it_says() -> None:
    """The instrument itself: await number 0, 1, … and then never."""
    seen: list[int] = []

    async def three_awaits() -> None:
        for number in range(3):
            seen.append(number)
            await asyncio.sleep(0)

    for at, expected in ((0, [0]), (1, [0, 1]), (2, [0, 1, 2]), (3, [0, 1, 2])):
        seen.clear()
        assert await cancel_at(at, three_awaits()) is (at < 3)
        assert seen == expected
