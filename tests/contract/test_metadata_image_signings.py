"""Signings of images over rows alone, on either database: one for each profile, the latest counts, gone with it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from replicator.core.digest import digest_of
from replicator.core.names import RepositoryName
from replicator.storage.metadata import image_signings
from replicator.storage.metadata.image_signings import ImageSigning

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.storage.metadata.database import Database

REPOSITORY, OTHER = RepositoryName("team/app"), RepositoryName("team/other")
A, B = digest_of(b"a"), digest_of(b"b")
FAILED = ImageSigning("arn:z", "FAILED", "SignerNotAvailable", "there is no signer", 1.5)
RUNNING = ImageSigning("arn:a", "IN_PROGRESS", None, None, 2.5)


async def put(
    database: Database, signing: ImageSigning, repository: RepositoryName = REPOSITORY, digest: Digest = A
) -> None:
    await database.write(partial(image_signings.put, repository, digest, signing))


async def test_signings_come_back_by_profile_as_they_were_put(database: Database) -> None:
    for one in (FAILED, RUNNING):
        await put(database, one)
    assert await database.read(image_signings.of_image(REPOSITORY, A)) == [RUNNING, FAILED]
    assert await database.read(image_signings.of_image(REPOSITORY, B)) == []


async def test_the_latest_signing_by_a_profile_counts(database: Database) -> None:
    await put(database, FAILED)
    again = replace(FAILED, status="COMPLETE", failure_code=None, failure_reason=None, requested_at=9.0)
    await put(database, again)
    assert await database.read(image_signings.of_image(REPOSITORY, A)) == [again]


async def test_they_go_with_their_image_and_no_other(database: Database) -> None:
    for repository, digest in ((REPOSITORY, A), (REPOSITORY, B), (OTHER, A)):
        await put(database, FAILED, repository, digest)
    await database.write(lambda: image_signings.forget(REPOSITORY, A))
    assert await database.read(image_signings.of_image(REPOSITORY, A)) == []
    for repository, digest in ((REPOSITORY, B), (OTHER, A)):
        assert await database.read(image_signings.of_image(repository, digest)) == [FAILED]
