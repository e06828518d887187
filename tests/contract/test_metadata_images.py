"""Lists of images in push order, and their states, shown on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from replicator.core.errors import InvalidInput
from replicator.core.image_status import ImageStatus, TagStatus
from replicator.core.manifest import parse_manifest
from replicator.core.names import RepositoryName, Tag, parse_node
from replicator.core.replication import Origin
from replicator.core.revisions import Revision
from replicator.storage.metadata import image_details, image_states, images, tags
from replicator.storage.metadata.image_details import NEWEST, Position, Selection, parse_position
from replicator.storage.metadata.image_states import DueImage
from replicator.storage.metadata.images import StoredImage, StoredManifest
from tests.support.images import build_image, build_index

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.statement import Steps
    from tests.support.images import Built

NODE = parse_node(f"{'1' * 12}/eu")
REPOSITORY, OTHER = RepositoryName("team/app"), RepositoryName("team/other")
EVERY = Selection(None)
ONE, TWO, THREE = (build_image([text]) for text in (b"1", b"22", b"333"))
LIST = build_index([ONE, TWO, THREE])


def push(built: Built, at: float, *names: str, repository: RepositoryName = REPOSITORY) -> Steps[None]:
    manifest = StoredManifest(built.digest, built.media_type, built.manifest)
    image = StoredImage(manifest, parse_manifest(built.manifest, built.media_type), Origin.DIRECT)
    yield from images.put(repository, image, NODE, at)
    for name in names:
        yield from tags.put(repository, Tag(name), built.digest, NODE, at)


async def filled(database: Database) -> None:
    await database.write(lambda: push(THREE, 1.0, "b", "a"))
    await database.write(lambda: push(ONE, 2.0))
    await database.write(lambda: push(TWO, 3.0, "c"))
    await database.write(lambda: push(TWO, 1.0, "elsewhere", repository=OTHER))


async def listed(database: Database, selection: Selection = EVERY) -> list[tuple[Digest, str | None]]:
    """Return all entries, read in pages of one."""
    found, after = [], Position()
    while page := await database.read(image_details.entries_after(REPOSITORY, selection, after, 1)):
        found += page
        after = parse_position(str(page[-1].position))
    return [(one.digest, one.tag) for one in found]


async def described(database: Database, selection: Selection = EVERY) -> list[tuple[Digest, tuple[str, ...]]]:
    found, after = [], Position()
    while page := await database.read(image_details.details_after(REPOSITORY, selection, after, 1)):
        found += page
        after = parse_position(str(page[-1].position))
    return [(one.digest, one.tags) for one in found]


class TestListing:
    async def test_images_come_in_the_order_in_which_they_were_pushed(self, database: Database) -> None:
        await filled(database)
        assert await listed(database) == [
            (THREE.digest, "a"),
            (THREE.digest, "b"),
            (ONE.digest, None),
            (TWO.digest, "c"),
        ]
        assert await described(database) == [(THREE.digest, ("a", "b")), (ONE.digest, ()), (TWO.digest, ("c",))]

    async def test_a_push_and_a_deletion_between_pages_move_nothing_else(self, database: Database) -> None:
        await filled(database)
        first = await database.read(image_details.entries_after(REPOSITORY, EVERY, Position(), 2))
        await database.write(lambda: push(THREE, 9.0, "0"))
        await database.write(lambda: images.delete(REPOSITORY, ONE.digest))
        rest = await database.read(image_details.entries_after(REPOSITORY, EVERY, first[-1].position, 9))
        assert [(one.digest, one.tag) for one in rest] == [(THREE.digest, "0"), (TWO.digest, "c")]

    async def test_tags_come_in_the_order_in_which_they_were_set(self, database: Database) -> None:
        for second, tag in enumerate(("b", "a", "c")):
            await database.write(partial(push, ONE, float(second), tag))
        assert await listed(database) == [(ONE.digest, "b"), (ONE.digest, "a"), (ONE.digest, "c")]
        assert await described(database) == [(ONE.digest, ("b", "a", "c"))]

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [(TagStatus.ANY, [THREE, ONE, TWO]), (TagStatus.TAGGED, [THREE, TWO]), (TagStatus.UNTAGGED, [ONE])],
    )
    async def test_tagged_and_untagged_ones_are_told_apart(
        self, database: Database, wanted: TagStatus, expected: list[Built]
    ) -> None:
        await filled(database)
        selection = Selection(ImageStatus.ACTIVE, wanted)
        assert [one for one, _ in await described(database, selection)] == [built.digest for built in expected]
        assert {one for one, _ in await listed(database, selection)} == {built.digest for built in expected}

    async def test_only_images_of_a_status_are_listed(self, database: Database) -> None:
        await filled(database)
        await database.write(lambda: image_states.archive(REPOSITORY, ONE.digest, 5.0))
        await database.write(lambda: image_states.begin_activation(REPOSITORY, TWO.digest, 9.0))
        found = {status: await described(database, Selection(status)) for status in ImageStatus}
        assert {status: [digest for digest, _ in entries] for status, entries in found.items()} == {
            ImageStatus.ACTIVE: [THREE.digest],
            ImageStatus.ARCHIVED: [ONE.digest],
            ImageStatus.ACTIVATING: [TWO.digest],
        }
        assert await listed(database, Selection(ImageStatus.ARCHIVED)) == [(ONE.digest, None)]

    async def test_an_image_is_as_large_as_its_layers_and_an_index_as_its_largest_image(
        self, database: Database
    ) -> None:
        await filled(database)
        await database.write(lambda: push(LIST, 4.0))
        sizes = [one.size for one in await database.read(image_details.details_after(REPOSITORY, EVERY, Position(), 9))]
        layers = [sum(one.size for one in parse_manifest(built.manifest).layers) for built in (THREE, ONE, TWO)]
        assert sizes == [*layers, max(layers)]
        one = await database.read(image_details.find(REPOSITORY, LIST.digest))
        assert one is not None
        assert (one.size, one.media_type, one.tags) == (max(layers), LIST.media_type, ())
        assert await database.read(image_details.find(OTHER, LIST.digest)) is None

    @pytest.mark.parametrize("text", ["x", "1 2", "a b c", "1.0 b c d"])
    def test_a_position_that_nobody_wrote_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidInput, match="nextToken"):
            parse_position(text)


class TestReferrers:
    async def test_the_newest_come_first_of_the_types_and_the_status_that_are_wanted(self, database: Database) -> None:
        made = [
            build_image([b"r%d" % number], subject=ONE, artifact_type=f"application/vnd.{kind}")
            for number, kind in enumerate("aba")
        ]
        for at, built in enumerate(made):
            await database.write(lambda built=built, at=at: push(built, float(at)))  # type: ignore[misc]

        async def found(status: ImageStatus | None, types: list[str], after: Position = NEWEST) -> list[Digest]:
            rows = await database.read(image_details.referrers_after(REPOSITORY, ONE.digest, status, types, after, 9))
            return [row.digest for row in rows]

        a, b, c = (built.digest for built in made)
        assert await found(None, []) == [c, b, a]
        assert await found(None, [], Position(2.0, c)) == [b, a]
        assert await found(None, ["application/vnd.a"]) == [c, a]
        assert await found(None, ["application/vnd.a", "application/vnd.b"]) == [c, b, a]
        await database.write(lambda: image_states.archive(REPOSITORY, c, 5.0))
        assert await found(ImageStatus.ACTIVE, ["application/vnd.a"]) == [a]
        assert await found(ImageStatus.ARCHIVED, []) == [c]
        assert sorted(await database.read(image_states.referrers(REPOSITORY, ONE.digest))) == sorted([a, b, c])


class TestStates:
    async def test_an_archived_image_is_missing_until_it_is_pushed_again(self, database: Database) -> None:
        await database.write(lambda: push(ONE, 1.0, "v1"))
        await database.write(lambda: image_states.archive(REPOSITORY, ONE.digest, 5.0))
        assert await database.read(images.missing(REPOSITORY, [ONE.digest])) == (ONE.digest,)
        found = await database.read(images.find_by_tag(REPOSITORY, Tag("v1")))
        assert found is not None
        assert not found.is_active
        await database.write(lambda: push(ONE, 7.0))
        detail = await database.read(image_details.find(REPOSITORY, ONE.digest))
        assert detail is not None
        assert (detail.status, detail.archived_at, detail.activated_at) == (ImageStatus.ACTIVE, 5.0, 7.0)
        assert (detail.pushed_at, detail.tags) == (1.0, ("v1",))
        assert await database.read(images.missing(REPOSITORY, [ONE.digest])) == ()

    async def test_a_way_back_ends_when_it_is_due_and_once(self, database: Database) -> None:
        await filled(database)
        assert await database.read(image_states.next_due()) is None
        await database.write(lambda: image_states.archive(REPOSITORY, ONE.digest, 5.0))
        await database.write(lambda: image_states.begin_activation(REPOSITORY, ONE.digest, 9.0))
        assert await database.read(image_states.next_due()) == 9.0
        assert await database.read(image_states.due(8.9, 9)) == []
        assert await database.read(image_states.due(9.0, 9)) == [DueImage(REPOSITORY, ONE.digest)]
        revision = Revision(1, 9, str(NODE))
        assert await database.write(lambda: image_states.finish_activation(REPOSITORY, ONE.digest, revision))
        assert not await database.write(lambda: image_states.finish_activation(REPOSITORY, ONE.digest, revision))
        known = await database.read(images.find_register(REPOSITORY, ONE.digest))
        assert known is not None
        assert known.revision == revision
        assert await database.read(image_states.find_status(REPOSITORY, ONE.digest)) is ImageStatus.ACTIVE

    async def test_only_what_is_not_active_is_restored(self, database: Database) -> None:
        await filled(database)
        assert not await database.write(lambda: image_states.restore(REPOSITORY, ONE.digest, 5.0))
        await database.write(lambda: image_states.archive(REPOSITORY, ONE.digest, 5.0))
        assert await database.write(lambda: image_states.restore(REPOSITORY, ONE.digest, 6.0))
        assert await database.read(image_states.find_status(REPOSITORY, ONE.digest)) is ImageStatus.ACTIVE
        assert await database.read(image_states.find_status(OTHER, ONE.digest)) is None

    async def test_an_index_uses_its_images_while_it_is_not_archived(self, database: Database) -> None:
        await filled(database)
        await database.write(lambda: push(LIST, 4.0))
        assert await database.read(image_states.is_used(REPOSITORY, ONE.digest))
        assert not await database.read(image_states.is_used(REPOSITORY, LIST.digest))
        assert not await database.read(image_states.is_used(OTHER, TWO.digest))
        assert await database.read(image_states.children(REPOSITORY, LIST.digest)) == sorted(
            built.digest for built in (ONE, TWO, THREE)
        )
        await database.write(lambda: image_states.archive(REPOSITORY, LIST.digest, 5.0))
        assert not await database.read(image_states.is_used(REPOSITORY, ONE.digest))

    async def test_a_pull_is_noted_unless_a_later_one_is(self, database: Database) -> None:
        await filled(database)
        for at, expected in ((5.0, 5.0), (3.0, 5.0), (8.0, 8.0)):
            await database.write(lambda at=at: image_states.touch(REPOSITORY, ONE.digest, at))  # type: ignore[misc]
            detail = await database.read(image_details.find(REPOSITORY, ONE.digest))
            assert detail is not None
            assert detail.pulled_at == expected
