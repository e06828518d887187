"""Upload sessions as a state machine: whatever is asked in whatever order, a node does what a list of bytes would."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from replicator.core.byte_range import ByteRange
from replicator.core.digest import Digest, digest_of
from replicator.core.errors import BlobNotFound, DigestMismatch, SizeMismatch, UploadNotFound, UploadOutOfOrder
from replicator.core.names import RepositoryName, parse_repository
from replicator.core.principal import UNRESTRICTED, Principal
from replicator.registry.node import RegistryNode
from replicator.registry.pulls import Pulls
from replicator.registry.settings import RegistrySettings
from replicator.registry.uploads import Uploads
from replicator.storage.blobs.memory import MemoryBlobStore, MemoryVolume
from replicator.storage.metadata.sqlite import SqliteDatabase
from tests.support.clock import FakeClock
from tests.support.single_node import NODE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

T = TypeVar("T")

A, B = parse_repository("a"), parse_repository("b")
EXPIRY = 3600.0
SOMEBODY_ELSE = Principal("else", UNRESTRICTED.kind, UNRESTRICTED.policies)
chunk = st.binary(max_size=6)


async def sent(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 2):
        yield content[start : start + 2]


class UploadMachine(RuleBasedStateMachine):
    """A node with a memory of what it was sent."""

    sessions: Bundle[str] = Bundle("sessions")
    digests: Bundle[Digest] = Bundle("digests")

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        self.volume = MemoryVolume()
        self.received: dict[str, bytearray] = {}
        self.expires: dict[str, float] = {}
        self.blobs: dict[Digest, bytes] = {}
        self.linked: set[tuple[RepositoryName, Digest]] = set()
        self._start()

    def _start(self) -> None:
        self.database = SqliteDatabase(Path(self.directory.name) / "metadata.db")
        self.store = MemoryBlobStore(self.volume)
        self.run(self.database.open())
        self.run(self.store.open())
        node = RegistryNode(RegistrySettings(NODE, upload_expiry=EXPIRY), self.database, self.store, self.clock)
        self.uploads, self.pulls = Uploads(node), Pulls(node)

    def _stop(self) -> None:
        self.run(self.store.close())
        self.run(self.database.close())

    def run(self, awaitable: Awaitable[T]) -> T:
        async def wait() -> T:
            return await awaitable

        return self.runner.run(wait())

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self._stop()
            self.runner.close()
            self.directory.cleanup()

    def lives(self, session: str) -> bool:
        return session in self.received and self.expires[session] > self.clock.now()

    def extend(self, session: str) -> None:
        self.expires[session] = self.clock.now() + EXPIRY

    def forget(self, session: str) -> None:
        del self.received[session], self.expires[session]

    @rule(target=sessions, algorithm=st.sampled_from(["sha256", "sha512"]))
    def start(self, algorithm: str) -> str:
        session = self.run(self.uploads.start(UNRESTRICTED, A, algorithm))
        assert session.id not in self.received
        self.received[session.id] = bytearray()
        self.extend(session.id)
        return session.id

    @rule(session=sessions)
    def ask(self, session: str) -> None:
        if not self.lives(session):
            with pytest.raises(UploadNotFound):
                self.run(self.uploads.get_offset(UNRESTRICTED, A, session))
            return
        assert self.run(self.uploads.get_offset(UNRESTRICTED, A, session)) == len(self.received[session])

    @rule(session=sessions, content=chunk)
    def append(self, session: str, content: bytes) -> None:
        if not self.lives(session):
            with pytest.raises(UploadNotFound):
                self.run(self.uploads.append(UNRESTRICTED, A, session, sent(content)))
            return
        self.received[session] += content
        offset = self.run(self.uploads.append(UNRESTRICTED, A, session, sent(content)))
        assert offset == len(self.received[session])
        self.extend(session)

    @rule(session=sessions, content=chunk, shift=st.sampled_from([0, 0, 0, -1, 1]), length=st.sampled_from([0, 0, 1]))
    def append_at(self, session: str, content: bytes, shift: int, length: int) -> None:
        if not self.lives(session) or not content:
            return
        start = max(0, len(self.received[session]) + shift)
        place = ByteRange(start, len(content) + length)
        append = self.uploads.append(UNRESTRICTED, A, session, sent(content), place)
        if start != len(self.received[session]):
            with pytest.raises(UploadOutOfOrder) as raised:
                self.run(append)
            assert raised.value.offset == len(self.received[session])
            return
        self.received[session] += content
        if length:
            with pytest.raises(SizeMismatch):
                self.run(append)
            return
        assert self.run(append) == len(self.received[session])
        self.extend(session)

    @rule(session=sessions, content=chunk, sent_before=st.integers(0, 6))
    def break_off(self, session: str, content: bytes, sent_before: int) -> None:
        """The connection breaks after some bytes: those are kept."""
        if not self.lives(session):
            return
        content = content[:sent_before]

        async def broken() -> AsyncIterator[bytes]:
            yield content
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            self.run(self.uploads.append(UNRESTRICTED, A, session, broken()))
        self.received[session] += content

    @rule(target=digests, session=consumes(sessions), content=chunk, algorithm=st.sampled_from(["sha256", "sha512"]))
    def finish(self, session: str, content: bytes, algorithm: str) -> Digest:
        whole = bytes(self.received.get(session, b"")) + content
        digest = digest_of(whole, algorithm)
        finish = self.uploads.finish(UNRESTRICTED, A, session, digest, sent(content))
        if not self.lives(session):
            with pytest.raises(UploadNotFound):
                self.run(finish)
            return digest
        blob = self.run(finish)
        assert (blob.digest, blob.size) == (digest, len(whole))
        self.blobs[digest] = whole
        self.linked.add((A, digest))
        self.forget(session)
        return digest

    @rule(session=consumes(sessions), content=chunk)
    def finish_with_another_digest(self, session: str, content: bytes) -> None:
        if not self.lives(session):
            return
        wrong = digest_of(bytes(self.received[session]) + content + b"!")
        with pytest.raises(DigestMismatch):
            self.run(self.uploads.finish(UNRESTRICTED, A, session, wrong, sent(content)))
        self.forget(session)

    @rule(session=sessions)
    def cancel(self, session: str) -> None:
        if not self.lives(session):
            with pytest.raises(UploadNotFound):
                self.run(self.uploads.cancel(UNRESTRICTED, A, session))
            return
        self.run(self.uploads.cancel(UNRESTRICTED, A, session))
        self.forget(session)

    @rule(session=sessions)
    def ask_as_somebody_else(self, session: str) -> None:
        for principal, repository in ((UNRESTRICTED, B), (SOMEBODY_ELSE, A)):
            with pytest.raises(UploadNotFound):
                self.run(self.uploads.get_offset(principal, repository, session))

    @rule(target=digests, content=chunk, repository=st.sampled_from([A, B]))
    def push_whole(self, content: bytes, repository: RepositoryName) -> Digest:
        digest = digest_of(content)
        self.run(self.uploads.put_blob(UNRESTRICTED, repository, digest, sent(content)))
        self.blobs[digest] = content
        self.linked.add((repository, digest))
        return digest

    @rule(digest=digests, source=st.sampled_from([None, A, B]), into=st.sampled_from([A, B]))
    def mount(self, digest: Digest, source: RepositoryName | None, into: RepositoryName) -> None:
        holders = {repository for repository, held in self.linked if held == digest}
        expected = bool(holders if source is None else holders & {source})
        assert self.run(self.uploads.mount(UNRESTRICTED, into, digest, source)) is expected
        if expected:
            self.linked.add((into, digest))

    @rule(digest=digests, repository=st.sampled_from([A, B]))
    def delete(self, digest: Digest, repository: RepositoryName) -> None:
        if (repository, digest) in self.linked:
            self.run(self.uploads.delete_blob(UNRESTRICTED, repository, digest))
            self.linked.remove((repository, digest))

    @rule(seconds=st.sampled_from([1.0, EXPIRY / 2, EXPIRY]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def reclaim(self) -> None:
        self.run(self.uploads.reclaim())
        self.run(self.uploads.reclaim())
        for session in [session for session in self.received if not self.lives(session)]:
            self.forget(session)
        assert set(self.volume.ingests) == set(self.received)

    @rule()
    def restart(self) -> None:
        self._stop()
        self._start()

    @invariant()
    def every_repository_shows_what_it_holds_and_nothing_else(self) -> None:
        if not hasattr(self, "runner"):
            return
        for digest, content in self.blobs.items():
            for repository in (A, B):
                if (repository, digest) in self.linked:
                    assert self.run(self._read(repository, digest)) == content
                elif repository in {held for held, _ in self.linked}:
                    with pytest.raises(BlobNotFound):
                        self.run(self._read(repository, digest))

    async def _read(self, repository: RepositoryName, digest: Digest) -> bytes:
        async with await self.pulls.open_blob(UNRESTRICTED, repository, digest) as blob:
            return b"".join([bytes(piece) async for piece in blob.read(0, blob.size)])


TestUploadMachine = UploadMachine.TestCase
TestUploadMachine.settings = settings(derandomize=True, deadline=None, max_examples=25, stateful_step_count=40)
